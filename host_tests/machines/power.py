"""
A disk that loses its power, a device that lives on it, and a server that outlives both.

The ports under test are the real files.py of ports/cpython and ports/micropython, loaded again
with this module's `os` and `open` in place of the system's, so that every sync they forget is a
record that is lost. A disk is of one of three kinds, each of which knows what that file system
promises and no more:

    posix     data is durable after fsync/fdatasync of its file, a name that was created or removed
              after fsync of its own directory (ports/cpython)
    fat       both are durable after flush() of the file; a removed name at once
              (ports/micropython)
    littlefs  a file's new content becomes durable as a whole at flush() or close(), never a part
              of it; until then the old content is there (ports/micropython)

Whatever is not durable yet is, after a cut, kept or lost or garbage, each on its own, and on posix
and fat any first part of a write, and any of its sectors, may be there.
"""

import contextlib
import functools
import io
import itertools
import json
import os as real_os
import pathlib
import sys
import types

from postcache import POSTCache

PORTS = pathlib.Path(__file__).parents[2] / "lib" / "postcache" / "ports"
ROOT = "/disk"
FOLDER = -1  # what a name means when it is no file's number
SECTOR = 32  # bytes that a cut keeps or loses together: so few that a line lies in two
KINDS = ("posix", "fat", "littlefs")


class Cut(BaseException):
    """The power went: no Python code goes on, and the disk takes nothing more."""


# --- the disk ---


def _folder(name):
    return name.rpartition("/")[0]


def _apply(data, change):
    """Return what `data` is after `change`: (offset, bytes), or a size to cut or fill it to."""
    if isinstance(change, int):
        return data[:change].ljust(change, b"\0")
    offset, piece = change
    return data[:offset].ljust(offset, b"\0") + piece + data[offset + len(piece) :]


def _torn(size, few):
    """How many bytes of a write may have come through: every number if it is a small one."""
    if few or size > 256:
        lengths = {1, size // 2, size - 1}
        if not few:
            lengths.update(range(64, size, 64), range(4, size, 511))
        return sorted(n for n in lengths if 0 < n < size)
    return range(1, size)


def _sectors(change, few):
    """
    Yield parts of a write, (offset, bytes) as `change` is, as lists: sectors that came through.

    Any of them if they are few; else, or with `few`, all but one, and each one alone.
    """
    offset, piece = change
    starts = [offset, *range(offset // SECTOR * SECTOR + SECTOR, offset + len(piece), SECTOR)]
    parts = [
        (start, piece[start - offset : end - offset])
        for start, end in zip(starts, starts[1:] + [offset + len(piece)])
    ]
    if few or len(parts) > 4:
        if len(parts) > 40 or not piece.strip(b"\0"):
            parts = parts[:2] + parts[-2:]
        for i in range(len(parts)):
            yield parts[:i] + parts[i + 1 :]
            yield [parts[i]]
        return
    for mask in itertools.product((True, False), repeat=len(parts)):
        yield list(itertools.compress(parts, mask))


class Disk:
    """
    A directory of files, one moment of it. Values are never changed, only replaced: a copy is a
    few small dicts.

    `on_change(kind, name)` is called before each operation that changes the disk, and may raise;
    `on_call(name of the function)` before each call of the system.
    """

    def __init__(self, kind="posix", contents=None):
        self.kind = kind
        self.names = {}  # what a program sees: {name: number of the file, or FOLDER}
        self.durable_names = {}  # what a cut leaves for sure
        self.pending_names = ()  # (name, number or None), in order
        self.files = {}  # {number: (durable content, changes since, content that a program sees)}
        self.on_change = self.on_call = self.on_read = None
        self.lying = lambda number: False  # a sync that returns and has done nothing
        for name, data in (contents or {}).items():
            self.names[name] = FOLDER if data is None else len(self.files)
            if data is not None:
                self.files[len(self.files)] = (data, (), data)
        self.durable_names = dict(self.names)

    def copy(self):
        """A copy that shares nothing that can change."""
        twin = Disk(self.kind)
        twin.names = dict(self.names)
        twin.durable_names = dict(self.durable_names)
        twin.pending_names = self.pending_names
        twin.files = dict(self.files)
        return twin

    def contents(self):
        """What a program sees: {name: bytes, or None for a folder}."""
        return {
            name: None if number == FOLDER else self.files[number][2]
            for name, number in self.names.items()
        }

    def step(self, kind, name=None):
        if self.on_change:
            self.on_change(kind, name)

    def call(self, function):
        if self.on_call:
            self.on_call(function)

    def content(self, number):
        return self.files[number][2]

    def find(self, name):
        """Return the number that `name` stands for, or None; raise what the system would."""
        if "/" in name:
            folder = _folder(name)
            if self.names.get(folder) != FOLDER:
                raise OSError(20 if folder in self.names else 2, "no such folder", name)
        return self.names.get(name)

    def change(self, number, change, name):
        """A write or a change of size; in nobody's hands but the file system's."""
        self.step("write" if isinstance(change, tuple) else "truncate", name)
        durable, pending, content = self.files[number]
        self.files[number] = durable, (*pending, change), _apply(content, change)

    def sync(self, number, name=None):
        self.step("sync", name)
        if not self.lying(number):
            content = self.files[number][2]
            self.files[number] = content, (), content

    def commit(self, number, content, name):
        """littlefs: the new content and the name, all at once."""
        self.step("commit", name)
        self.files[number] = self.files[number][0], ("whole", content), content
        if not self.lying(number):
            self.files[number] = content, (), content
            self._settle(lambda entry: entry[1] != number)

    def create(self, name):
        self.step("create", name)
        number = len(self.files)
        self.files[number] = (b"", (), b"")
        self._rename(name, number)
        return number

    def make(self, name):
        """A new folder."""
        if self.find(name) is not None:
            raise FileExistsError(17, "there is one", name)
        self.step("make", name)
        self._rename(name, FOLDER)
        if self.kind != "posix":
            self._settle(lambda entry: entry[0] != name)

    def unlink(self, name):
        if self.find(name) is None:
            raise FileNotFoundError(2, "no such file", name)
        if self.names[name] == FOLDER:
            raise IsADirectoryError(21, "a folder", name)
        self.step("unlink", name)
        self._rename(name, None)
        if self.kind != "posix":
            self._settle(lambda entry: entry[0] != name)

    def remove_folder(self, name):
        """As rmdir does; the folder is empty."""
        self.step("rmdir", name)
        self._rename(name, None)

    def sync_names(self, folder):
        """The names in `folder`, "" for the directory itself, become durable."""
        self.step("sync names", folder)
        if not self.lying(FOLDER):
            self._settle(lambda entry: _folder(entry[0]) != folder)

    def sync_name(self, number):
        """fat: a flush writes the directory's entry, too."""
        if not self.files[number][1]:
            self._settle(lambda entry: entry[1] != number)

    def _rename(self, name, number):
        if number is None:
            del self.names[name]
        else:
            self.names[name] = number
        self.pending_names += ((name, number),)

    def _settle(self, waits):
        """Make the pending names durable of which `waits(entry)` is False."""
        rest = []
        for entry in self.pending_names:
            if waits(entry):
                rest.append(entry)
            elif entry[1] is None:
                self.durable_names.pop(entry[0], None)
            else:
                self.durable_names[entry[0]] = entry[1]
        self.pending_names = tuple(rest)

    def after_cut(self, few=False, sectors=True):
        """
        Yield what a power cut at this moment may leave: each a dict as contents() returns it.

        Each change of a name is kept or lost; each change of a file kept, lost or garbage, and
        every first part of it may be there, and with `sectors` any of its sectors: with `few`, and
        of long writes, only some of them.
        """
        choices = (True, False)
        if len(self.pending_names) > 4:  # only when syncs lie: each alone, and each up to there
            n = len(self.pending_names)
            masks = [[i < k for i in range(n)] for k in range(n + 1)]
            masks += [[i != k for i in range(n)] for k in range(n)]
        else:
            masks = itertools.product(choices, repeat=len(self.pending_names))
        for mask in masks:
            names = dict(self.durable_names)
            for keep, (name, number) in zip(mask, self.pending_names):
                if keep and number is None:
                    names.pop(name, None)
                elif keep:
                    names[name] = number
            state = {}
            dirty = []
            for name, number in names.items():
                if number == FOLDER:
                    state[name] = None
                elif not _folder(name) or names.get(_folder(name)) == FOLDER:
                    state[name], pending, _ = self.files[number]
                    if pending:
                        ways = self._ways(number, few or len(mask) > 4, sectors)
                        dirty.append((name, ways))
            if len(dirty) > 2:  # only when syncs lie
                dirty = [(name, [ways[0], ways[-1]]) for name, ways in dirty[:6]]
            for combination in itertools.product(*[ways for _, ways in dirty]):
                yield {**state, **dict(zip([name for name, _ in dirty], combination))}

    def _ways(self, number, few, sectors):
        """Return what may be in a file that has changes which are not durable."""
        durable, pending, content = self.files[number]
        if pending[0] == "whole":
            return [durable, content]
        ways = dict.fromkeys([durable, content])
        if len(pending) <= 3:
            for fates in itertools.product(("kept", "lost", 0, 0xA5), repeat=len(pending)):
                data = durable
                for fate, change in zip(fates, pending):
                    if fate == "kept":
                        data = _apply(data, change)
                    elif fate != "lost" and isinstance(change, tuple):
                        data = _apply(data, (change[0], bytes([fate]) * len(change[1])))
                ways[data] = None
        data = durable
        for change in pending:
            if isinstance(change, tuple):
                offset, piece = change
                for n in _torn(len(piece), few or len(pending) > 3):
                    ways[_apply(data, (offset, piece[:n]))] = None
                if sectors:
                    for parts in _sectors(change, few or len(pending) > 3):
                        ways[functools.reduce(_apply, parts, data)] = None
            data = _apply(data, change)
            ways[data] = None
        return list(ways)


# --- what the ports take for their system ---


class _Reader(io.BytesIO):
    """A file open for reading whose bytes are counted."""

    def __init__(self, data, disk):
        super().__init__(data)
        self._disk = disk

    def read(self, *args):
        data = super().read(*args)
        self._disk.on_read(len(data))
        return data

    def readline(self, *args):
        data = super().readline(*args)
        self._disk.on_read(len(data))
        return data

    def __next__(self):
        data = super().__next__()
        self._disk.on_read(len(data))
        return data


class _System:
    """What both ports ask of `os` and `open`, on `disk`."""

    def __init__(self):
        self.disk = None
        self.locked = set()  # descriptors of the file "lock": there is one lock, and one holder

    def name(self, path):
        assert path.startswith(ROOT + "/"), path
        return path[len(ROOT) + 1 :]

    def number(self, path):
        """The number of a file that is there."""
        name = self.name(path)
        number = self.disk.find(name)
        if number is None:
            raise FileNotFoundError(2, "no such file", path)
        return number

    def reader(self, path):
        self.disk.call("open")
        number = self.number(path)
        if number == FOLDER:
            raise IsADirectoryError(21, "a folder", path)
        data = self.disk.content(number)
        return _Reader(data, self.disk) if self.disk.on_read else io.BytesIO(data)

    def mkdir(self, path, mode=0o777):
        self.disk.call("mkdir")
        self.disk.make(self.name(path))

    def rmdir(self, path):
        self.disk.call("rmdir")
        self.disk.remove_folder(self.name(path))

    def remove(self, path):
        self.disk.call("remove")
        self.disk.unlink(self.name(path))

    def entries(self, path):
        """Yield (name, number) of what is in the folder `path`."""
        within = "" if path == ROOT else self.name(path)
        if within and self.number(path) != FOLDER:
            raise NotADirectoryError(20, "a file", path)
        return [
            (name.rpartition("/")[2], number)
            for name, number in self.disk.names.items()
            if _folder(name) == within
        ]


class _Posix(_System):
    """What ports/cpython/files.py uses of `os`."""

    O_RDWR, O_WRONLY, O_RDONLY = real_os.O_RDWR, real_os.O_WRONLY, real_os.O_RDONLY
    O_CREAT, O_APPEND, O_TRUNC = real_os.O_CREAT, real_os.O_APPEND, real_os.O_TRUNC
    O_CLOEXEC, O_DIRECTORY = real_os.O_CLOEXEC, real_os.O_DIRECTORY
    fspath = staticmethod(real_os.fspath)
    urandom = staticmethod(real_os.urandom)

    def __init__(self):
        super().__init__()
        self._open = {}
        self._next = 1000
        self.path = types.SimpleNamespace(
            abspath=lambda path: path,
            isdir=self._isdir,
            lexists=self._exists,
            exists=self._exists,
            dirname=real_os.path.dirname,
        )

    def _exists(self, path):
        return path == ROOT or self.name(path) in self.disk.names

    def _isdir(self, path):
        return path == ROOT or self.disk.names.get(self.name(path)) == FOLDER

    def open(self, path, flags, mode=0o777):
        disk = self.disk
        disk.call("open")
        name = "" if path == ROOT else self.name(path)
        number = FOLDER if not name else disk.find(name)
        if name == "lock":
            number = "lock"
        elif number == FOLDER:
            if flags & (self.O_WRONLY | self.O_RDWR):
                raise IsADirectoryError(21, "a folder", path)
        elif number is None:
            if not flags & self.O_CREAT:
                raise FileNotFoundError(2, "no such file", path)
            number = disk.create(name)
        elif flags & self.O_TRUNC and disk.content(number):
            disk.change(number, 0, name)
        self._next += 1
        self._open[self._next] = number, name
        return self._next

    def close(self, fd):
        self._open.pop(fd)  # also when it reports an error
        self.disk.call("close")

    def write(self, fd, data):
        self.disk.call("write")
        number, name = self._open[fd]
        self.disk.change(number, (len(self.disk.content(number)), bytes(data)), name)
        return len(data)

    def pwrite(self, fd, data, offset):
        self.disk.call("pwrite")
        number, name = self._open[fd]
        self.disk.change(number, (offset, bytes(data)), name)
        return len(data)

    def ftruncate(self, fd, size):
        self.disk.call("ftruncate")
        number, name = self._open[fd]
        if len(self.disk.content(number)) != size:
            self.disk.change(number, size, name)

    def fdatasync(self, fd):
        self.disk.call("fdatasync")
        self.disk.sync(*self._open[fd])

    def fsync(self, fd):
        self.disk.call("fsync")
        number, name = self._open[fd]
        if number == FOLDER:
            self.disk.sync_names(name)
        else:
            self.disk.sync(number, name)

    def listdir(self, path):
        self.disk.call("listdir")
        return [name for name, _ in self.entries(path)]

    @contextlib.contextmanager
    def scandir(self, path):
        self.disk.call("scandir")
        yield [self._entry(path, name, number) for name, number in self.entries(path)]

    def _entry(self, path, name, number):
        def stat(follow_symlinks=True):
            return self.stat(path + "/" + name)

        return types.SimpleNamespace(
            name=name,
            path=path + "/" + name,
            is_file=lambda **_: number != FOLDER,
            is_dir=lambda **_: number == FOLDER,
            stat=stat,
        )

    def stat(self, path):
        self.disk.call("stat")
        number = self.number(path)
        if number == FOLDER:
            return types.SimpleNamespace(st_size=4096, st_mode=0o40755, st_blocks=8)
        size = len(self.disk.content(number))
        return types.SimpleNamespace(st_size=size, st_mode=0o100644, st_blocks=-(-size // 512))

    def statvfs(self, path):
        self.disk.call("statvfs")
        return types.SimpleNamespace(
            f_bavail=1 << 20, f_frsize=4096, f_bsize=4096, f_blocks=1 << 21
        )


class _Handle:
    """A file that ports/micropython/files.py opened for writing."""

    def __init__(self, disk, name, mode):
        self._disk = disk
        self._name = name
        number = disk.find(name)
        if number == FOLDER:
            raise IsADirectoryError(21, "a folder", name)
        self._new = number is None
        self._number = number = disk.create(name) if self._new else number
        content = disk.content(number)
        self._content = b"" if mode == "wb" else content
        self._at = len(self._content) if mode == "ab" else 0
        self._dirty = self._new or self._content != content
        if disk.kind == "fat" and self._dirty and content:
            disk.change(number, 0, name)

    def write(self, data):
        self._disk.call("write")
        change = self._at, bytes(data)
        if self._disk.kind == "fat":
            self._disk.change(self._number, change, self._name)
        self._content = _apply(self._content, change)
        self._at += len(data)
        self._dirty = True
        return len(data)

    def seek(self, offset):
        self._at = offset

    def flush(self):
        self._disk.call("flush")
        self._commit()

    def _commit(self):
        disk = self._disk
        if disk.kind == "fat":
            disk.sync(self._number, self._name)
            disk.sync_name(self._number)
        elif self._dirty:
            disk.commit(self._number, self._content, self._name)
        self._dirty = False

    def close(self):
        self._disk.call("close")
        if self._dirty:
            self._commit()

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.close()


class _Board(_System):
    """What ports/micropython/files.py uses of `os` and `open`."""

    urandom = staticmethod(real_os.urandom)

    def getcwd(self):
        return "/"

    def mkdir(self, path):
        if path == ROOT:
            raise OSError(17, "there is one")
        super().mkdir(path)

    def stat(self, path):
        self.disk.call("stat")
        number = FOLDER if path == ROOT else self.number(path)
        size = 0 if number == FOLDER else len(self.disk.content(number))
        return (0x4000 if number == FOLDER else 0x8000, 0, 0, 0, 0, 0, size, 0, 0, 0)

    def ilistdir(self, path):
        self.disk.call("ilistdir")
        for name, number in self.entries(path):
            if number == FOLDER:
                yield name, 0x4000, 0, 0
            else:
                yield name, 0x8000, 0, len(self.disk.content(number))

    def listdir(self, path):
        return [entry[0] for entry in self.ilistdir(path)]

    def statvfs(self, path):
        self.disk.call("statvfs")
        return (4096, 4096, 1 << 20, 1 << 19, 1 << 19, 0, 0, 0, 0, 255)

    def open(self, path, mode="r"):
        if mode == "rb":
            return self.reader(path)
        self.disk.call("open")
        return _Handle(self.disk, self.name(path), mode)


def _load(name):
    """Load a module of postcache.ports once more, for the model."""
    path = PORTS / (name.replace(".", "/") + ".py")
    module = types.ModuleType("postcache.ports.%s_on_a_model" % name)
    module.__package__ = "postcache.ports." + name.partition(".")[0]
    exec(compile(path.read_text(), str(path), "exec"), module.__dict__)
    return module


@functools.cache
def _port(name):
    """Load a port's files on a system of its own; return (module, system)."""
    stub = types.ModuleType("micropython")
    stub.const = lambda value: value
    sys.modules["micropython"] = stub
    try:
        port = _load(name + ".files")
    finally:
        del sys.modules["micropython"]
    if name == "cpython":
        port.os = system = _Posix()
        port.fcntl = types.SimpleNamespace(LOCK_EX=0, LOCK_NB=0, flock=lambda fd, how: None)

        def open_for_reading(path, mode, buffering=-1):
            assert mode == "rb"
            return system.reader(path)

        port.open = open_for_reading
    else:
        port.os = system = _Board()
        port.open = system.open
        port.forget = lambda name: None
        place = _load(name + ".place")
        place.os = system
        sys.modules["postcache.ports.micropython.place"] = place  # it is imported when used
    return port, system


def directory(disk):
    """Return the class `Directory` of the port that goes with `disk`, living on it."""
    port, system = _port("cpython" if disk.kind == "posix" else "micropython")
    system.disk = disk
    if disk.kind != "posix":
        port._in_use.clear()  # a reboot
    return port.Directory


def batch_sizes(kind):
    """Return the `most` and the `buffer` of an outbox on the machine with this kind of disk."""
    return (512 * 1024, 512 * 1024) if kind == "posix" else (16384, 1024)


# --- the server and the device ---


class Server:
    """An exactly-once receiver that outlives the device; `answers` are played like a script."""

    def __init__(self):
        self.highest = {}
        self.records = []
        self.bodies = {}
        self.answers = []
        self.errors = []  # an outbox takes an exception for a network's: they are kept here

    def copy(self):
        twin = Server()
        twin.highest = dict(self.highest)
        twin.records = list(self.records)
        twin.bodies = dict(self.bodies)
        twin.answers = list(self.answers)
        twin.errors = list(self.errors)
        return twin

    def _hold(self, holds, *facts):
        if not holds:
            self.errors.append(facts)

    def post(self, url, headers, chunks, timeout):
        body = b"".join(chunks)
        self._hold(len(body) == int(headers["Content-Length"]), "length", headers)
        answer = self.answers.pop(0) if self.answers else 200
        if answer == "down":
            raise OSError(111, "refused")
        key = headers["Idempotency-Key"]
        # D4: a retry repeats bytes and key, also after a reboot.
        self._hold(self.bodies.setdefault(key, body) == body, key, body, self.bodies[key])
        stream = headers["Postcache-Stream"]
        first, last = int(headers["Postcache-First"]), int(headers["Postcache-Last"])
        lines = json.loads(body)["lines"]
        self._hold(len(lines) == last - first + 1, "lines", headers)
        if answer in (200, "lost"):
            for i, record in enumerate(lines):
                if first + i > self.highest.get(stream, 0):
                    self.records.append(key_of(record))
                    self.highest[stream] = first + i
        if answer == "lost":
            raise OSError(104, "reset after it was stored")
        return answer, {}


def key_of(value):
    """The int that tells records apart; a longer record is [int, padding]."""
    return value if isinstance(value, int) else value[0]


class World:
    """
    A disk, a server, and what the program was told; `slot_size` as in POSTCache, `slots`, how
    many there are, and `step`, bytes of zeros that a segment is filled ahead by (on posix).
    """

    def __init__(self, kind="posix", slot_size=0, step=64, slots=40):
        self.slots = slots
        self.step = step
        self.disk = Disk(kind)
        self.server = Server()
        self.slot_size = slot_size
        self.wrap = None  # what to put around the directory, a function of it
        self.tried = []  # keys of values handed to the log
        self.told = {}  # key: sequence number, once the call returned
        self.dead = set()  # keys that were refused, and a later one was taken: never sent
        self.refused = set()  # keys that were refused in this life of the log
        self.acked = 0  # the cursor has moved past this number and is durable
        self.dropped = 0  # records that a full log has given up without being able to say so

    def copy(self, contents=None):
        """A world of the same past, on a disk of its own: with `contents`, as a cut left it."""
        twin = World(self.disk.kind, self.slot_size, self.step, self.slots)
        twin.disk = self.disk.copy() if contents is None else Disk(self.disk.kind, contents)
        twin.server = self.server.copy()
        twin.tried = list(self.tried)
        twin.told = dict(self.told)
        twin.dead = set(self.dead)
        twin.refused = set(self.refused)
        twin.acked = self.acked
        twin.dropped = self.dropped
        return twin

    @property
    def block(self):
        """Bytes of a full segment when `max_bytes` is eight times as much."""
        return 512 if self.disk.kind == "posix" else 4096

    def facts(self):
        """What can tell two moments apart, beside the disk."""
        return (
            tuple(self.told.items()),
            len(self.tried),
            self.acked,
            tuple(self.server.records),
            len(self.server.bodies),
        )

    def record(self, photos):
        """From now on, photograph the world before each change of the disk."""
        self.disk.on_change = lambda kind, name: photos.append(self.copy())

    def cut_after(self, n):
        """Let the power go before the n-th change of the disk from now on."""
        left = [n]

        def count(kind, name):
            left[0] -= 1
            if left[0] < 0:
                raise Cut

        self.disk.on_change = count

    def open(self, url="http://server/", **kwargs):
        fs = directory(self.disk)(ROOT)
        fs.slots = self.slots
        fs.step = self.step
        kwargs.setdefault("max_bytes", 65536)
        kwargs.setdefault("slot_size", self.slot_size)
        cache = POSTCache(
            url, self.wrap(fs) if self.wrap else fs, http=self.server if url else None, **kwargs
        )
        if url:
            cache.outbox.most, cache.outbox.buffer = batch_sizes(self.disk.kind)
        self.refused = set()
        return cache

    def add(self, cache, *values):
        """Store values, in one commit if there are several."""
        keys = [key_of(value) for value in values]
        self.tried += keys
        self.refused.update(keys)
        if len(values) == 1:
            last = cache.add_request(values[0])
        else:
            last = cache.add_many(list(values))
        self.refused.difference_update(keys)
        self.dead |= self.refused
        for i, key in enumerate(keys):
            self.told[key] = last - len(keys) + 1 + i
        self.note(cache)
        return last

    def note(self, cache):
        """
        What is acknowledged is durable unless a write failed; beyond what was told it is about
        damage that nobody waits for, and that is known to this life only.
        """
        if cache.storage.errors == 0:
            acked = min(cache.storage.acked, max(self.told.values(), default=0))
            self.acked = max(self.acked, acked)


# --- the promises ---


def must(promise, holds, *facts):
    """Fail at once if a promise does not hold."""
    assert holds, (promise, *facts)


def look(world, cache, hold=must, lied=()):
    """
    Hold the promises against what is in a log that was just opened; return the keys that are lost.

    `lied`: keys of records whose sync only said that it was done.
    """
    told = world.told
    log = cache.storage
    cache.outbox._next = 1 << 60  # nothing is sent until flush() is called
    found = [(seq, key_of(json.loads(payload))) for seq, payload in log.read(None)]
    keys = [key for _, key in found]
    here = set(keys)
    hold("S2", here <= set(world.tried), keys)  # nothing invented
    hold("S7", not here & world.dead, keys)  # nothing that was refused
    numbers = [seq for seq, _ in found]
    hold("S3", all(a < b for a, b in zip(keys, keys[1:])), keys)  # in order
    hold("S3", all(a < b for a, b in zip(numbers, numbers[1:])), numbers)
    for seq, key in found:
        hold("S3", told.get(key, seq) == seq, key, seq)  # a name is for ever
        hold("S4", seq > world.acked or key not in told, key, seq)  # acknowledged is gone
    there = here.union(world.server.records, lied)
    lost = [key for key in told if key not in there]
    hold("S1", len(lost) <= max(log.dropped, world.dropped), lost, log.dropped)
    return lost


def examine(world, hold=must, again=True, **kwargs):
    """
    Boot `world` after a cut, and hold every promise against it; changes `world`.

    `hold(promise, holds, *facts)` is told each of them. What is found is looked at first, then two
    records are added and everything is delivered, and with `again` there is another boot.
    """
    server = world.server
    server.answers = []
    hold("S5", True)  # that nothing below raises
    try:
        cache = world.open(**kwargs)
        lost = look(world, cache, hold)
        taken = set(world.told.values())
        for _ in range(2):
            seq = world.add(cache, max(world.tried, default=0) + 1)
            hold("S3", seq not in taken, seq)  # a number is not given out twice
        hold("D1", cache.flush() and not len(cache), cache.stats)
        cache.close()
        if again:
            cache = world.open(None)
            rest = list(cache.storage.read(None))
            hold("S4", rest == [], rest)
            cache.close()
    except AssertionError:
        raise
    except Exception as e:
        hold("S5", False, repr(e))
        return
    records = server.records
    delivered = set(records)
    missing = [key for key in world.told if key not in delivered]
    hold("S2", delivered <= set(world.tried), records)
    hold("S7", not delivered & world.dead, records)
    # All that was there arrives; the two records more may have made a full log drop a segment.
    dropped = max(cache.storage.dropped, world.dropped)
    hold("D1", missing == lost or len(missing) <= dropped, missing, lost)
    hold("D2", len(delivered) == len(records), records)  # once
    hold("D3", all(a < b for a, b in zip(records, records[1:])), records)  # in order
    hold("D4", not server.errors, server.errors)
