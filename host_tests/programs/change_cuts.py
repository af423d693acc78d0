"""
What tools/on_board.py does to a board's files, with the power cut everywhere.

    micropython change_cuts.py SYSTEM CASE TOOLS

MicroPython's own littlefs, or FAT, on a block device in RAM is mounted as "/", as on a board, and
the change of CASE is made on it: "install", "update", "source" (.mpy becomes .py), "frozen" (the
package's place is /postcache) or "uninstall". The device notes all that is programmed and erased.
Then the power goes before each of these operations, and amid it; what is left is mounted, looked
at, and the same change is made once more, as the next run of deploy.py makes it, and looked at.

Prints one line, {"cuts": ...}. An AssertionError says what was wrong.
"""

import json
import os
import sys

SYSTEM, CASE, TOOLS = sys.argv[1:4]
sys.path.insert(0, TOOLS)

from on_board import (  # noqa: E402
    RECORD,
    STAGE,
    change,
    clear,
    finish,
    folders,
    kind,
    walk,
)

FAT = SYSTEM == "fat"
PLACE = "/lib/postcache"
LITTLEFS = {"esp32": (4096, 32), "pico": (4096, 256)}  # bytes of a block, of a program
NAMES = ("__init__", "client", "log/__init__", "ports/__init__", "ports/micropython/files")


class Device:
    """Blocks in RAM; with `events` a list, what changes them is noted there."""

    def __init__(self):
        self.littlefs = SYSTEM in LITTLEFS
        self.size, self.prog = LITTLEFS.get(SYSTEM, (512, 0))
        self.count = 64 if self.littlefs else 256
        self.bytes = bytearray(b"\xff" * (self.size * self.count))
        self.events = None

    def make(self):
        if self.littlefs:
            os.VfsLfs2.mkfs(self, progsize=self.prog, readsize=self.prog)
        else:
            os.VfsFat.mkfs(self)

    def mount(self):
        if self.littlefs:
            os.mount(os.VfsLfs2(self, progsize=self.prog, readsize=self.prog), "/")
        else:
            os.mount(os.VfsFat(self), "/")
        os.chdir("/")

    def readblocks(self, block, buffer, offset=0):
        at = block * self.size + offset
        buffer[:] = memoryview(self.bytes)[at : at + len(buffer)]

    def writeblocks(self, block, buffer, offset=0):
        at = block * self.size + offset
        for i in range(0, len(buffer), self.prog or 512):
            self._change(at + i, bytes(buffer[i : i + (self.prog or 512)]))

    def _change(self, at, data):
        if self.events is not None:
            self.events.append((at, data))
        self.bytes[at : at + len(data)] = data

    def ioctl(self, op, arg):
        if op == 4:
            return self.count
        if op == 5:
            return self.size
        if op == 6 and self.littlefs:
            self._change(arg * self.size, b"\xff" * self.size)
        return 0


def write(path, text):
    folders(path)
    with open(path, "w") as f:
        f.write(text)


def read(path):
    try:
        with open(path) as f:
            return f.read()
    except OSError:
        return None


def modules(which, suffix=".py"):
    """A package of its own kind, {path in it: text}: each file says which one it is of."""
    # Longer than what littlefs keeps in a directory, so that blocks are taken, and given back.
    text = "WHICH = %r\n" % which + "#" * 600 + "\n"
    return {name + suffix: text for name in NAMES}


def record(*packages, files=()):
    names = {}
    for package in packages:
        names.update(package)
    return json.dumps({"package": sorted(names), "files": sorted(files)})


OLD = modules("old")
NEW = modules("new")
if CASE == "source":
    OLD = modules("old", ".mpy")
STRANGE = {"/notes.txt": "mine", "/cache/cursor-a": "a log", "/cache/0000000001.log": "readings"}
OLD_FILES = {"/wifi.py": "old wifi", "/main.py": "old main"}
NEW_FILES = {"/wifi.py": "new wifi", "/clock.py": "new clock", "/main.py": "new main"}
if CASE == "install":
    OLD, OLD_FILES = {}, {"/main.py": "old main"}  # somebody's own
    BACKUPS = {"/main.py.before-postcache": "old main"}
else:
    BACKUPS = {}
if CASE == "uninstall":
    NEW, NEW_FILES = {}, {"/main.py": "before"}
    OLD_FILES["/main.py.before-postcache"] = "before"
LIVE = "/postcache" if CASE == "frozen" else PLACE


def prepare():
    for name in OLD:
        write(LIVE + "/" + name, OLD[name])
    for files in (OLD_FILES, STRANGE):
        for path in files:
            write(path, files[path])
    if CASE != "install":
        write(RECORD, record(OLD, files=OLD_FILES))


def stage():
    """Bring what is new into the stage, as deploy.py does: not what is in its place already."""
    for name in list(walk(STAGE)):
        clear(name)
    if CASE == "uninstall":
        clear(STAGE)
        moves = []
        if read("/main.py.before-postcache"):
            moves.append(("/main.py.before-postcache", "/main.py"))
        return None, moves, ["/wifi.py"], [PLACE] if kind(PLACE) else []
    moves = []
    for files in (BACKUPS, NEW_FILES):
        for path in files:
            if read(path) != files[path]:
                staged = STAGE + "/files/" + path[1:]
                write(staged, files[path])
                moves.append((staged, path))
    live = None
    if found(LIVE) != NEW:
        live = LIVE
        for name in NEW:
            write(STAGE + "/postcache/" + name, NEW[name])
    write(STAGE + "/record.0", record(OLD, NEW, files=NEW_FILES))
    write(STAGE + "/record.1", record(NEW, files=NEW_FILES))
    return live, moves, [], []


def found(folder):
    """Return a package as it is on flash, or None if there is no folder."""
    if kind(folder) != 0x4000:
        return None
    return {path[len(folder) + 1 :]: read(path) for path in walk(folder)}


def look(whole):
    """Hold the promises against what is mounted; with `whole`, it must be the new state."""
    assert {path: read(path) for path in STRANGE} == STRANGE
    for path in BACKUPS:
        assert read(path) == BACKUPS[path] or (not whole and read("/main.py") == "old main"), path
    # What `import postcache` finds: the first folder of that name on sys.path.
    package = found("/postcache")
    if package is None:
        package = found(PLACE)
    if whole:
        assert package == (NEW or None), package
        assert kind(STAGE) == 0
        assert read(RECORD) == (record(NEW, files=NEW_FILES) if NEW else None), read(RECORD)
        assert LIVE == "/postcache" or not kind("/postcache")
    elif FAT:
        pass  # what is there may be half of the one and half of the other: move() says why
    elif CASE == "uninstall":
        assert package in (OLD, None) or read("/main.py") == "before"
    else:
        # With one frozen in, that is found when there is none; and the first install has none.
        none = CASE in ("frozen", "install")
        assert package in (OLD, NEW) or (package in (None, {}) and none), package
    for path in set(OLD_FILES) | set(NEW_FILES):
        if path not in BACKUPS and path != "/main.py.before-postcache":
            right = (NEW_FILES.get(path),) if whole else (OLD_FILES.get(path), NEW_FILES.get(path))
            assert read(path) in right or (FAT and not whole), path
    if CASE != "uninstall" and read("/main.py") == "new main" and not FAT:
        assert package == NEW and read("/clock.py") == "new clock"  # main.py is the last
    if kind("/postcache") and LIVE == PLACE:
        # The next run must see that it is ours.
        names = json.loads(read(RECORD))["package"]
        assert all(name in names for name in found("/postcache"))


def run():
    if LIVE == PLACE:
        finish(PLACE)
    live, moves, gone, drops = stage()
    change(live, drops, moves, gone)


os.umount("/")
device = Device()
device.make()
device.mount()
prepare()
live, moves, gone, drops = stage()
before = bytes(device.bytes)
device.events = events = []
change(live, drops, moves, gone)
device.events = None
look(True)
os.umount("/")

cuts = 0
device.bytes[:] = before
for at, data in events:
    for size in sorted({0, len(data) // 2} if len(data) > 1 else {0}):
        now = bytes(device.bytes)
        device.bytes[at : at + size] = data[:size]
        device.mount()
        look(False)
        run()
        look(True)
        os.umount("/")
        device.bytes[:] = now
        cuts += 1
    device.bytes[at : at + len(data)] = data
print()
print(json.dumps({"cuts": cuts}))
