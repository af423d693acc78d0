"""
Count the erases of layouts that the slot journal could have: the table in docs/design.md.

    python bench/layouts.py

Raw file operations on a real littlefs under MicroPython, without the library: so many slots in so
many folders, delivered in tens (with two writes of the cursor) or never, and written out as one
file when they are full or hold 4096 bytes. Records are lines of 64 bytes of payload.
"""

import os
import sys

_COUNT = 1500
# Slots, folders for them (0: the log's own), bytes up to which a slot gets a further line.
_LAYOUTS = (
    (8, 0, 0),
    (16, 0, 0),
    (32, 0, 0),
    (16, 4, 0),
    (32, 4, 0),
    (40, 4, 0),
    (51, 4, 0),
    (40, 6, 0),
    (16, 4, 232),
)


class _Flash:
    """A block device in RAM that counts erases."""

    def __init__(self, blocks):
        self._data = bytearray(b"\xff" * (blocks * 4096))
        self.erases = 0

    def readblocks(self, block, buffer, offset=0):
        at = block * 4096 + offset
        buffer[:] = memoryview(self._data)[at : at + len(buffer)]

    def writeblocks(self, block, buffer, offset=0):
        at = block * 4096 + offset
        self._data[at : at + len(buffer)] = buffer

    def ioctl(self, op, arg):
        if op == 6:
            self.erases += 1
            self._data[arg * 4096 : arg * 4096 + 4096] = b"\xff" * 4096
        return {4: len(self._data) // 4096, 5: 4096}.get(op, 0)


def _put(name, data):
    with open(name, "wb") as f:
        f.write(data)


def _line(n, payload):
    return b"%08x %d %s\n" % (0xDEADBEEF, n, b"x" * payload)


def _erases(progsize, slots, folders, share, delivered):
    """Return erases for each record, on 212 blocks; `delivered` every so many, 0 for never."""
    flash = _Flash(212)
    os.VfsLfs2.mkfs(flash, progsize=progsize)
    os.mount(os.VfsLfs2(flash, progsize=progsize), "/flash")
    for folder in range(folders):
        os.mkdir("/flash/%d" % folder)
    names = ["/flash/%d" % i for i in range(slots)]
    if folders:
        names = ["/flash/%d/%d" % (i % folders, i) for i in range(slots)]
    cursors = ("/flash/cursor-a", "/flash/cursor-b")
    for name in cursors:
        _put(name, _line(1, 45))
    before = flash.erases
    live = []
    for n in range(1, _COUNT + 1):
        line = _line(n, 64)
        if live and len(live[-1]) + len(line) <= share:
            live[-1] += line
            _put(names[len(live) - 1], live[-1])
        elif len(live) < slots and sum([len(data) for data in live]) + len(line) <= 4096:
            _put(names[len(live)], line)
            live.append(line)
        else:
            _put("/flash/%010d.log" % n, b"".join(live) + line)
            live = []
        if delivered and n % delivered == 0:
            for name in cursors:
                _put(name, _line(n, 45))
            live = []
    os.umount("/flash")
    return (flash.erases - before) / _COUNT


def _trial():
    print("slots  folders  lines up to  ESP32 tens     outage  Pico tens     outage")
    for slots, folders, share in _LAYOUTS:
        row = "%5d %8d %12d" % (slots, folders, share)
        for progsize in (32, 256):
            for delivered in (10, 0):
                row += " %10.3f" % _erases(progsize, slots, folders, share, delivered)
        print(row)


def main():
    """Run the trial under MicroPython; return the exit status, 2 without one."""
    import subprocess

    sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tools"))
    import get_runtimes

    try:
        micropython = get_runtimes.find("micropython")[0]
    except get_runtimes.Unavailable as error:
        print("layouts: %s" % error, file=sys.stderr)
        return 2
    return subprocess.call([micropython, "-X", "heapsize=16M", os.path.abspath(__file__)])


if sys.implementation.name == "micropython":
    _trial()
elif __name__ == "__main__":
    sys.exit(main())
