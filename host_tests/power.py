"""
A disk that loses its power: the model under test_power_cuts.py.

The port under test is the real ports/cpython.py, loaded a second time with this module's `os` in
place of the system's, so that every sync it forgets is a record that is lost. The disk knows what
POSIX promises and no more:

    data written to a file        durable after fsync/fdatasync of that file
    a name created or removed     durable after fsync of the directory

Until then each of them is, after a cut, kept or lost, each on its own; written data may also be
torn (a first part of it) or garbage (the file has grown, its content never came).
"""

import contextlib
import copy
import functools
import io
import itertools
import os as real_os
import pathlib
import types

PORT = pathlib.Path(__file__).parent.parent / "lib" / "postcache" / "ports" / "cpython.py"
ROOT = "/disk"


class File:
    """One file: what is durable, and what has been done to it since, in order."""

    def __init__(self):
        self.durable = b""
        self.pending = []  # (offset, data), or None for a truncation to nothing

    def content(self, pending=None):
        """The bytes that the file has once `pending` (default: all of it) has happened."""
        data = bytearray(self.durable)
        for change in self.pending if pending is None else pending:
            if change is None:
                data = bytearray()
                continue
            offset, piece = change
            if len(data) < offset:
                data += bytes(offset - len(data))
            data[offset : offset + len(piece)] = piece
        return bytes(data)


class Disk:
    """
    A directory of files, one moment of it.

    `on_change(kind, file, data)` is called before each operation that changes the disk.
    """

    def __init__(self):
        self.names = {}  # what a program sees
        self.durable_names = {}  # what a cut leaves for sure
        self.pending_names = []  # (name, File or None), in order
        self.on_change = lambda kind, file, data: None

    def step(self, kind, file=None, data=None):
        self.on_change(kind, file, data)

    def copy(self):
        """A copy that shares nothing."""
        hook, self.on_change = self.on_change, None
        try:
            twin = copy.deepcopy(self)
        finally:
            self.on_change = hook
        twin.on_change = lambda kind, file, data: None
        return twin

    def write(self, file, offset, data):
        self.step("write", file, data)
        file.pending.append((offset, bytes(data)))

    def sync(self, file):
        self.step("sync", file)
        file.durable = file.content()
        file.pending = []

    def create(self, name):
        self.step("create")
        file = File()
        self.names[name] = file
        self.pending_names.append((name, file))
        return file

    def truncate(self, file):
        self.step("truncate", file)
        file.pending.append(None)

    def unlink(self, name):
        self.step("unlink")
        del self.names[name]
        self.pending_names.append((name, None))

    def sync_names(self):
        self.step("sync names")
        self.durable_names = dict(self.names)
        self.pending_names = []

    def after_cut(self, most=64):
        """
        Yield the disks that a power cut at this moment may leave, `most` at the most.

        Directory changes are kept or lost one by one; the unsynced changes of each file are kept
        up to each of them, torn, or garbage.
        """
        ways = []
        for changes in itertools.product((True, False), repeat=len(self.pending_names)):
            names = dict(self.durable_names)
            for keep, (name, file) in zip(changes, self.pending_names):
                if keep and file:
                    names[name] = file
                elif keep:
                    names.pop(name, None)
            dirty = [name for name in sorted(names) if names[name].pending]
            contents = [list(self._contents(names[name])) for name in dirty]
            for combination in itertools.product(*contents):
                ways.append((names, dict(zip(dirty, combination))))
        step = max(1, -(-len(ways) // most))
        for names, contents in ways[::step]:
            disk = Disk()
            for name, file in names.items():
                twin = File()
                twin.durable = contents.get(name, file.durable)
                disk.names[name] = disk.durable_names[name] = twin
            yield disk

    @staticmethod
    def _contents(file):
        seen = set()
        for n in range(len(file.pending) + 1):
            whole = file.content(file.pending[:n])
            ways = [whole]
            if n and file.pending[n - 1] is not None:
                offset, data = file.pending[n - 1]
                before = file.content(file.pending[: n - 1])
                for cut in (1, len(data) // 2, len(data) - 1):
                    ways.append(file.content([*file.pending[: n - 1], (offset, data[:cut])]))
                if len(whole) > len(before):
                    ways.append(before + bytes(len(whole) - len(before)))
                    ways.append(before + b"\xa5" * (len(whole) - len(before)))
            for way in ways:
                if way not in seen:
                    seen.add(way)
                    yield way


class _Os:
    """What ports/cpython.py uses of `os`, on a Disk."""

    O_RDWR, O_WRONLY, O_RDONLY = real_os.O_RDWR, real_os.O_WRONLY, real_os.O_RDONLY
    O_CREAT, O_APPEND, O_TRUNC = real_os.O_CREAT, real_os.O_APPEND, real_os.O_TRUNC
    O_CLOEXEC, O_DIRECTORY = real_os.O_CLOEXEC, real_os.O_DIRECTORY
    fspath = staticmethod(real_os.fspath)
    urandom = staticmethod(real_os.urandom)

    def __init__(self, disk):
        self.disk = disk
        self._open = {}
        self._next = 1000
        self.path = types.SimpleNamespace(
            abspath=lambda path: path,
            isdir=lambda path: path == ROOT,
            lexists=lambda path: path == ROOT,
            exists=lambda path: self._name(path) in disk.names,
            dirname=real_os.path.dirname,
        )

    @staticmethod
    def _name(path):
        assert path.startswith(ROOT + "/"), path
        return path[len(ROOT) + 1 :]

    def open(self, path, flags, mode=0o777):
        if path == ROOT:
            file = "directory"
        elif self._name(path) == "lock":
            file = "lock"
        else:
            file = self.disk.names.get(self._name(path))
            if file is None:
                if not flags & self.O_CREAT:
                    raise FileNotFoundError(2, "no such file", path)
                file = self.disk.create(self._name(path))
            elif flags & self.O_TRUNC and file.content():
                self.disk.truncate(file)
        self._next += 1
        self._open[self._next] = file
        return self._next

    def close(self, fd):
        del self._open[fd]

    def write(self, fd, data):
        file = self._open[fd]
        self.disk.write(file, len(file.content()), data)
        return len(data)

    def pwrite(self, fd, data, offset):
        self.disk.write(self._open[fd], offset, data)
        return len(data)

    def fdatasync(self, fd):
        self.disk.sync(self._open[fd])

    def fsync(self, fd):
        assert self._open[fd] == "directory"
        self.disk.sync_names()

    def remove(self, path):
        if self._name(path) not in self.disk.names:
            raise FileNotFoundError(2, "no such file", path)
        self.disk.unlink(self._name(path))

    @contextlib.contextmanager
    def scandir(self, path):
        assert path == ROOT
        yield [types.SimpleNamespace(name=name, is_file=lambda: True) for name in self.disk.names]

    def stat(self, path):
        if self._name(path) not in self.disk.names:
            raise FileNotFoundError(2, "no such file", path)
        return types.SimpleNamespace(st_size=len(self.disk.names[self._name(path)].content()))

    def statvfs(self, path):
        return types.SimpleNamespace(f_bavail=1 << 20, f_frsize=4096)


@functools.lru_cache(maxsize=1)
def _code():
    return compile(PORT.read_text(), str(PORT), "exec")


def directory(disk):
    """Return the class `Directory` of ports/cpython.py, living on `disk`."""
    port = types.ModuleType("postcache.ports.cpython_on_a_model")
    port.__package__ = "postcache.ports"
    exec(_code(), port.__dict__)
    port.os = _Os(disk)
    port.fcntl = types.SimpleNamespace(LOCK_EX=0, LOCK_NB=0, flock=lambda fd, how: None)

    def open_for_reading(path, mode, buffering=-1):
        assert mode == "rb"
        name = path[len(ROOT) + 1 :]
        if name not in disk.names:
            raise FileNotFoundError(2, "no such file", path)
        return io.BytesIO(disk.names[name].content())

    port.open = open_for_reading
    return port.Directory
