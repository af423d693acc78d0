"""
Files on a POSIX system, durable when a call returns.

fsync(2) for the bytes, and an fsync of the directory for a new name.
"""

import fcntl
import os
import weakref

CHUNK = 65536

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


class _File:
    """A handle for appending. Unbuffered: what write() returned from is in the kernel's hands."""

    def __init__(self, fd):
        self._fd = fd

    def write(self, data):
        n = os.write(self._fd, data)
        while n < len(data):  # a disk that is almost full takes a part, and reports with the rest
            data = data[n:]
            n = os.write(self._fd, data)

    def flush(self):
        _sync(self._fd)

    def close(self):
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    __del__ = close


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

    def __init__(self, path):
        self._lock = None
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
                (entry.name, self.size(entry.name))
                for entry in entries
                if len(entry.name) < 24 and entry.name.isascii() and entry.is_file()
            ]

    def size(self, name):
        """Return the size of file `name` in bytes."""
        return os.stat(self._name(name)).st_size

    def open(self, name, mode):
        """
        Open file `name`.

        Args:
            mode: "rb" for a binary reader with seek, read, readline and close; "ab" or "wb" for a
                handle with write(data), flush() and close(). flush() makes durable what was
                written; the name of a new file is durable when open returns.
        """
        if mode == "rb":
            return open(self._name(name), "rb", CHUNK)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        if mode == "wb":
            flags |= os.O_TRUNC
        file = _File(os.open(self._name(name), flags, 0o666))
        self.sync_directory(self.path)
        return file

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
