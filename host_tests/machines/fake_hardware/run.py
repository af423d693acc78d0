"""
One boot of a board: `micropython run.py STATE IMAGE MAIN FOLDER...`.

IMAGE is the flash, a littlefs with the parameters of FAKE_BOARD, and the root of all paths; the
host's files are below /host. FOLDERs hold the program's modules. Exit code: 0 for a reset or deep
sleep, 99 for a watchdog, 137 for a power cut, 3 for Ctrl-C.
"""

import os
import sys

BLOCKS, PROG = {"esp32": (512, 32), "pico_w": (212, 256)}[os.getenv("FAKE_BOARD")]


class Flash:
    """A file as a block device; a power cut tears the write that is going on."""

    def __init__(self, path):
        self._file = open(path, "r+b")

    def readblocks(self, block, buffer, offset=0):
        self._file.seek(block * 4096 + offset)
        self._file.readinto(buffer)

    def writeblocks(self, block, buffer, offset=0):
        cut = world.cut_in_write()
        self._file.seek(block * 4096 + offset)
        self._file.write(buffer[: len(buffer) // 2] if cut else buffer)
        if cut:
            world.happen("kill", None)

    def ioctl(self, op, arg):
        if op == 4:
            return BLOCKS
        if op == 5:
            return 4096
        if op == 6:
            self._file.seek(arg * 4096)
            self._file.write(b"\xff" * 4096)
            world.state["erases"] += 1
        return 0


def main(state, image, program, *folders):
    os.mount(os.VfsPosix("/"), "/host")
    world.load("/host" + state)
    flash = Flash(image)
    args = {"progsize": PROG, "readsize": PROG}
    try:
        vfs = os.VfsLfs2(flash, **args)
    except OSError:
        os.VfsLfs2.mkfs(flash, **args)
        vfs = os.VfsLfs2(flash, **args)
    os.umount("/")
    os.mount(vfs, "/")
    os.chdir("/")
    sys.path[:] = ["", ".frozen", "/lib"] + ["/host" + folder for folder in folders]
    settings = os.getenv("FAKE_SETTINGS")
    if settings:
        with open("settings.json", "w") as f:
            f.write(settings)
    with open("/host" + program) as f:
        code = compile(f.read(), program, "exec")
    try:
        exec(code, {"__name__": "__main__"})
    except KeyboardInterrupt:
        # As at the REPL: the interpreter idles, and whatever was left running goes on.
        world.spend(300000)
        print("[idle]")
        world.state["cause"] = "power"
        world.save()
        sys.exit(3)


sys.path[:0] = [os.getenv("FAKE_HARDWARE")]
import world  # noqa: E402

main(*sys.argv[1:])
