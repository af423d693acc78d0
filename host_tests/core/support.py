"""
What the core's tests need on every runtime: a folder, and ports that obey the test.

With POSTCACHE_TEST_FS=lfs2 or fat, MicroPython's folders lie on a real littlefs or FAT in RAM.
"""

import os
import sys

MICROPYTHON = sys.implementation.name == "micropython"
# A long sweep over the calls that may fail takes every n-th of them.
STRIDE = 3 if os.getenv("POSTCACHE_SAMPLE") else 1
_made = 0
_mounted = False


class RamBlocks:
    """A block device in RAM, as MicroPython's file systems want it."""

    def __init__(self, size, count):
        self._size = size
        self._data = bytearray(b"\xff" * (size * count))

    def readblocks(self, block, buffer, offset=0):
        at = block * self._size + offset
        buffer[:] = self._data[at : at + len(buffer)]

    def writeblocks(self, block, buffer, offset=None):
        at = block * self._size + (offset or 0)
        self._data[at : at + len(buffer)] = buffer

    def ioctl(self, op, arg):
        if op == 4:
            return len(self._data) // self._size
        if op == 5:
            return self._size
        return 0  # init, deinit, sync, erase


def _mount(kind):
    if kind == "lfs2":
        device = RamBlocks(4096, 512)
        os.VfsLfs2.mkfs(device, progsize=32, readsize=32)
        vfs = os.VfsLfs2(device, progsize=32, readsize=32)
    else:
        device = RamBlocks(512, 1024)
        os.VfsFat.mkfs(device)
        vfs = os.VfsFat(device)
    os.mount(vfs, "/ram")


def folder():
    """Return the path of a folder that does not exist yet, on a file system that does."""
    global _made, _mounted
    _made += 1
    kind = os.getenv("POSTCACHE_TEST_FS") if MICROPYTHON else None
    if kind in ("lfs2", "fat"):
        if not _mounted:
            _mount(kind)
            _mounted = True
        return "/ram/log%d" % _made
    base = os.getenv("POSTCACHE_TEST_DIR")
    if not base:
        import tempfile

        base = tempfile.mkdtemp()
    return "%s/log%d" % (base, _made)


def clean():
    """Between two tests: give back the file system in RAM, and with it all that is on it."""
    global _mounted
    if MICROPYTHON:
        import gc

        gc.collect()  # closes what nobody has closed, as long as it can be
    if _mounted:
        os.umount("/ram")
        _mounted = False


def raises(kind, call, *args, **kwargs):
    """Call, and return the exception of `kind` that must come out."""
    try:
        call(*args, **kwargs)
    except kind as e:
        return e
    raise AssertionError("%s was not raised" % kind)


def cut_off(log):
    """Leave a log as the power does: close() would write the cursor. Others may open it then."""
    log.journal.close()
    log.fs.close()


class Counting:
    """A Directory that counts what is read through it: `calls` of open, `lines`, `read` bytes."""

    def __init__(self, fs):
        self._fs = fs
        self.calls = self.lines = self.read = 0

    def open(self, name, mode):
        self.calls += 1
        f = self._fs.open(name, mode)
        if mode != "rb":
            return f
        counting = self

        class Reader:
            def __enter__(self):
                return self

            def __exit__(self, *args):
                f.close()

            def seek(self, at):
                f.seek(at)

            def read(self, n):
                data = f.read(n)
                counting.read += len(data)
                return data

            def readline(self, *args):
                data = f.readline(*args)
                counting.lines += 1
                counting.read += len(data)
                return data

        return Reader()

    def __getattr__(self, name):
        return getattr(self._fs, name)


class Clock:
    """A clock that stands still until it is told: `now`, ms; `date`, seconds, or None: not set."""

    def __init__(self):
        self.now = 0
        self.date = None

    def ticks_ms(self):
        return self.now

    def unix(self):
        return self.date


class Http:
    """
    A server that is a Python object.

    `answers` are played in turn: an int (a status), a tuple (status, headers), or an exception to
    raise; then `default`. `posts` lists what arrived: (headers, body); `taken` what got a 200.
    """

    def __init__(self, *answers, default=200):
        self.answers = list(answers)
        self.default = default
        self.posts = []
        self.taken = []
        self.timeouts = []

    def post(self, url, headers, chunks, timeout):
        body = b"".join([bytes(chunk) for chunk in chunks])
        assert headers["Content-Length"] == str(len(body))
        self.posts.append((dict(headers), body))
        self.timeouts.append(timeout)
        answer = self.answers.pop(0) if self.answers else self.default
        if isinstance(answer, Exception):
            raise answer
        if answer == 200:
            self.taken.append(self.posts[-1])
        return answer if isinstance(answer, tuple) else (answer, {})

    def lines(self):
        """What an exactly-once receiver holds: the records, in order."""
        import json

        highest = 0
        lines = []
        for headers, body in self.taken:
            first = int(headers["Postcache-First"])
            records = json.loads(body)["lines"]
            assert len(records) == int(headers["Postcache-Last"]) - first + 1
            for i, record in enumerate(records):
                if first + i > highest:
                    highest = first + i
                    lines.append(record)
        return lines
