"""
Files under MicroPython, durable when a call returns.

f.flush() commits on every file system there (littlefs: lfs_file_sync, FAT: f_sync, the unix port:
fsync); there is no os.fsync and no directory sync to call.
"""

import os
import sys

from micropython import const

_BLOCK = const(4096)


def forget(name):
    """
    Give back the heap of a module that was needed only once; the next import loads it anew.

    Args:
        name: str, with its packages'.
    """
    package, child = name.rsplit(".", 1)
    # It is gone already when another log was opened in the middle, by a callback.
    if sys.modules.pop(name, None):
        delattr(sys.modules[package], child)


_in_use = set()


def _blocks(size):
    # littlefs keeps 128 bytes, at least, in the directory, and each block of a file but the first
    # begins with a pointer, or more.
    return (size + 4087) // 4092 * _BLOCK if size > 128 else 0


class Directory:
    """
    The files of one log, durable when a call returns; one owner at a time.

    Args:
        path: str; made, with its parents, if it is missing.

    Raises OSError when something else is in the way or the directory has an owner already.
    """

    segment = 8188  # just under two flash blocks: the second one of a file holds a pointer
    block = _BLOCK  # bytes that a file takes at least, but for those in a directory's metadata
    reserve = 32768  # bytes of the file system that no log may count on
    max_bytes = 2 << 20  # default cap of what a log may take: keeps the list of segments short
    slots = 40  # slots of a slot journal

    def __init__(self, path):
        from .place import prepare

        self.path, self.slot_size = prepare(path, _in_use)
        forget(__name__.replace("files", "place"))
        _in_use.add(self.path)

    def make(self, name):
        """Make a directory in this one; one that is there is fine."""
        try:
            os.mkdir(self.path + "/" + name)
        except OSError as e:
            if e.errno != 17:  # EEXIST
                raise

    def check(self):
        """Nothing can come between: no processes here."""

    def close(self):
        """Let others open it."""
        _in_use.discard(self.path)

    def files(self):
        """Return (name, bytes that it takes on flash) of each file in the directory."""
        return [
            # To be asked for a size littlefs would search the directory: only POSIX does not tell
            # it at once.
            (name, _blocks(size[0] if size else self.size(name)))
            for name, kind, _, *size in os.ilistdir(self.path)
            if kind == 0x8000
        ]

    def size(self, name):
        """Return the size of file `name` in bytes."""
        return os.stat(self.path + "/" + name)[6]

    def open(self, name, mode):
        """
        Open file `name`, mode "rb", "ab" or "wb".

        What was written is durable, with the file's name, when flush() or close() returned.
        """
        return open(self.path + "/" + name, mode)

    def put(self, name, data):
        """Write a small file; not atomic on every file system, so the caller keeps two copies."""
        with self.open(name, "wb") as f:
            f.write(data)
            f.flush()

    def remove(self, name):
        """Remove a file."""
        os.remove(self.path + "/" + name)

    def free(self):
        """Return the bytes that are free for us on this file system."""
        stat = os.statvfs(self.path)
        # A full littlefs counts past zero: more free blocks than there are.
        return stat[1] * stat[4] if stat[4] <= stat[2] else 0
