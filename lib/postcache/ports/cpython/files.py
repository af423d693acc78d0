"""
Files on a POSIX system, durable when a call returns.

fsync(2) for the bytes, and an fsync of the directory for a new name. The newest segment is filled
with zeros ahead of its lines. Zeros at the end of a segment belong to no line, and only this
module knows of them: what a segment's size is, and what can be read of it, ends before them.
"""

import errno
import fcntl
import io
import os
import weakref

CHUNK = 65536
_BLOCK = 4096  # bytes of the first zeros; a longer write than that gains nothing by zeros
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)

_open_directories = weakref.WeakSet()


def _after_fork():
    # A child that kept the descriptor would keep the lock after its parent's death.
    for directory in list(_open_directories):
        directory.close()
        directory.path = None


os.register_at_fork(after_in_child=_after_fork)


def _sync(fd):
    full = getattr(fcntl, "F_FULLFSYNC", None)
    if full is not None:  # macOS: fsync(2) stops at the drive's cache
        fcntl.fcntl(fd, full)
    else:
        os.fdatasync(fd)


def _write(fd, data, offset):
    """Write all of `data` at `offset`; None: at the end of a file that was opened to append."""
    while True:
        n = os.write(fd, data) if offset is None else os.pwrite(fd, data, offset)
        if n == len(data):
            return
        data = data[n:]  # a disk that is almost full takes a part, and reports with the rest
        if offset is not None:
            offset += n


def _is_segment(name):
    return name[:-4].isdigit()


def _end_of(f):
    """Return the size of a file that is open for reading, without the zeros at its end."""
    end = f.seek(0, 2)
    window = 1  # most segments end with a line
    while end:
        start = max(0, end - window)
        f.seek(start)
        data = f.read(end - start).rstrip(b"\0")
        if data:
            return start + len(data)
        end = start
        window = _BLOCK
    return 0


class _File:
    """A handle for appending. Unbuffered: what write() returned from is in the kernel's hands."""

    def __init__(self, fd):
        self._fd = fd

    def write(self, data):
        _write(self._fd, data, None)

    def flush(self):
        _sync(self._fd)

    def close(self):
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    __del__ = close


class _Segment(_File):
    """
    A handle for appending to a segment, which is filled with zeros ahead of its lines.

    A line that makes its file longer costs a journalling file system a commit of its own journal.
    A line that overwrites zeros, once these are durable, costs the blocks it lies in.

        lines              zeros
        -------------------00000000000
                           end       _size    <= directory.fill_to

    Args:
        fd: int, open for writing.
        directory: the Directory.
        name: str.

    Attributes to read: `name`; `end`, int, bytes up to where the lines end.
    """

    def __init__(self, fd, directory, name):
        super().__init__(fd)
        self._directory = directory
        self.name = name
        self.end = self._size = 0
        self._step = 0  # bytes of the next zeros: a program that adds one record needs none
        self._fills = True

    def find_end(self, path):
        """Go on where the lines end in what is there."""
        with open(path, "rb") as f:
            self.end = _end_of(f)
            self._size = f.seek(0, 2)

    def write(self, data):
        end = self.end + len(data)
        if end > self._size:
            if self._fills and len(data) <= _BLOCK:
                self._fill(end)
            self._size = max(self._size, end)
        _write(self._fd, data, self.end)
        self.end = end

    def _fill(self, end):
        """Make room for a line up to `end` by a step of zeros, if there may be that many."""
        directory = self._directory
        step = self._step
        self._step = min(2 * step or _BLOCK, directory.step)
        start = self._size
        size = min(start + step, directory.fill_to)
        if size < end:
            return
        try:
            if directory.free() < directory.reserve + step:
                raise OSError(errno.ENOSPC, "no space for zeros")
            self._size = size
            _write(self._fd, bytes(size - start), start)
            # On their own: a file system that tells only now that it is full, as a network's may,
            # tells it here, and not to a record that would still have fitted.
            _sync(self._fd)
        except OSError as e:
            if e.errno not in _NO_SPACE:
                raise
            self._fills = False
            os.ftruncate(self._fd, self.end)
            self._size = self.end

    def close(self):
        """Cut off the zeros that are left, and what a failed write left, durably."""
        try:
            # After a fork, or when the log is closed, these may be lines of the owner's by now.
            if self._size > self.end and self._fd >= 0 and self._directory.is_owner():
                os.ftruncate(self._fd, self.end)
                self._size = self.end
                _sync(self._fd)
        finally:
            super().close()

    # __del__ cuts nothing: a log that is forgotten looks like one that was killed.


class Directory:
    """
    The files of one log, durable when a call returns; one owner at a time.

    Args:
        path: str or os.PathLike; made, with its parents, if it is missing.

    Raises OSError when something else is in the way or the directory has an owner already.
    """

    segment = 256 * 1024  # bytes of a full segment; the longest record fits into one
    block = 512  # bytes of a full segment at least
    reserve = 1 << 20  # bytes of the file system that no log may count on
    max_bytes = 1 << 30  # default cap of what a log may take
    slot_size = 0  # no slots unless somebody asks for them: a disk has no littlefs
    slots = 40  # slots of a slot journal
    step = 16384  # bytes of zeros that a segment is filled ahead by, at most; 0: by none
    fill_to = 0  # bytes up to which a segment may be filled; a log sets it

    def __init__(self, path):
        self._lock = None
        self._newest = None  # a weak reference to the segment that was opened for appending
        self._named = set()  # small files whose names are durable
        if not path or path == ":memory:":
            raise ValueError("cache_path: a directory on a disk")
        self.path = os.path.abspath(os.fspath(path))
        self._make(self.path)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        try:
            self._lock = os.open(self.path + "/lock", flags, 0o666)
        except OSError:
            # A card that became read-only: what is on it can still be sent, and needs a lock, too.
            self._lock = os.open(self.path + "/lock", os.O_RDONLY | os.O_CLOEXEC)
        try:
            # The kernel drops it with the process, however that ends.
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            self.close()
            if e.errno in (11, 13, 35):
                raise OSError(16, "in use by another POSTCache or process", self.path) from None
            raise
        _open_directories.add(self)

    def _make(self, path):
        if os.path.isdir(path):
            return
        if os.path.lexists(path):
            raise OSError(
                20, "a file is in the way (an old SQLite cache?); name a directory", path
            )
        self._make(os.path.dirname(path))
        try:
            self._mkdir(path)
        except FileExistsError:
            pass

    def _mkdir(self, path):
        os.mkdir(path)
        try:
            self.sync_directory(os.path.dirname(path))
        except OSError:
            os.rmdir(path)  # else the next try would find it, and take its name for durable
            raise

    def _name(self, name):
        if self._lock is None:  # a late thread: another instance may be the owner by now
            raise OSError(9, "closed")
        return self.path + "/" + name

    @staticmethod
    def sync_directory(path):
        """Make durable which names are in the directory `path`."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def check(self):
        """Raise OSError in a forked child: two processes cannot share a log."""
        if not self.path:
            raise OSError(16, "this log was opened before a fork; open one in each process")

    def is_owner(self):
        """Return True until close(); False in a forked child."""
        return self._lock is not None

    def close(self):
        """Let others open it."""
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    __del__ = close

    def files(self):
        """Return (name, bytes) of each file here, but for those that cannot be ours."""
        with os.scandir(self.path) as entries:
            return [
                (entry.name, entry.stat().st_size)
                for entry in entries
                if len(entry.name) < 24 and entry.name.isascii() and entry.is_file()
            ]

    def size(self, name):
        """Return the size of file `name` in bytes; of a segment, without zeros at its end."""
        path = self._name(name)
        if not _is_segment(name):
            return os.stat(path).st_size
        newest = self._newest and self._newest()
        if newest and newest.name == name:
            return newest.end
        with open(path, "rb") as f:
            return _end_of(f)

    def open(self, name, mode):
        """
        Open file `name`.

        Args:
            mode: "rb" for a binary reader with seek, read, readline and close; "ab" or "wb" for a
                handle with write(data), flush() and close(). flush() makes durable what was
                written; the name of a new file is durable when open returns. Only one segment at
                a time is open for appending.
        """
        if mode == "rb":
            return self._open_for_reading(name)
        path = self._name(name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
        if mode == "wb":
            flags |= os.O_TRUNC
        if _is_segment(name):
            fd = os.open(path, flags, 0o666)
            file = _Segment(fd, self, name)
            if mode == "ab":
                file.find_end(path)
            self._newest = weakref.ref(file)
        else:
            file = _File(os.open(path, flags | os.O_APPEND, 0o666))
        self.sync_directory(self.path)
        return file

    def _open_for_reading(self, name):
        f = open(self._name(name), "rb", CHUNK)
        newest = self._newest and self._newest()
        # Whoever reads the newest one knows where it ends.
        if not _is_segment(name) or (newest and newest.name == name):
            return f
        try:
            end = _end_of(f)
            whole = f.seek(0, 2) == end
            f.seek(0)
            if whole:
                return f
            data = f.read(end)  # one that could not be cut: a power cut, or an error
        except BaseException:
            f.close()
            raise
        f.close()
        return io.BytesIO(data)

    def put(self, name, data):
        """
        Write a small file in place.

        In place and at a fixed size, so that a full disk takes it; not atomic, which is why the
        caller keeps two copies, or writes only to a file that nobody needs.
        """
        name = self._name(name)
        data = data.ljust(128, b"\n")
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            if os.pwrite(fd, data, 0) < len(data):
                raise OSError(28, "no space", name)
            os.ftruncate(fd, len(data))
            _sync(fd)
        finally:
            os.close(fd)
        if name not in self._named:
            folder = os.path.dirname(name)
            self.sync_directory(folder)
            if folder != self.path:
                self.sync_directory(self.path)  # who made it may have been killed before that
            self._named.add(name)

    def remove(self, name):
        """
        Remove a file; none there is fine.

        A slot is durably gone when this returns: what a failed write left there must not come
        back. A segment or its like need not be: nothing in it counts any more.
        """
        path = self._name(name)
        self._named.discard(path)
        try:
            os.remove(path)
        except FileNotFoundError:
            pass
        if "/" in name:
            self.sync_directory(os.path.dirname(path))

    def make(self, name):
        """Make a directory in this one; one that is there is fine."""
        try:
            os.mkdir(self._name(name))
        except FileExistsError:
            pass
        self.sync_directory(self.path)

    def free(self):
        """Return the bytes that are free for us on this file system."""
        stat = os.statvfs(self.path)
        return stat.f_bavail * stat.f_frsize
