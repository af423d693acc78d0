"""Finding a log's place on a board: loaded when a log is opened, and then given up."""

import os
import sys


def prepare(path, in_use):
    """
    Make directory `path` (str), with its parents, if it is missing.

    Returns its full path, and the bytes of a file that costs no flash block there: 0 if that is no
    littlefs. Raises OSError when it is in the set `in_use` or something else is in the way.
    """
    if path[:1] != "/":
        path = os.getcwd() + "/" + path
    full = ""
    for name in path.split("/"):
        if name not in ("", "."):
            full += "/" + name
            try:
                os.mkdir(full)
            except OSError as e:
                if e.errno not in (17, 30):  # EEXIST; EROFS also for one that is there
                    raise OSError(e.errno, full)
    if full in in_use:
        raise OSError(16, "in use: " + full)
    if not os.stat(full)[0] & 0x4000:
        raise OSError(20, "a file is in the way: " + full)
    return full, _slot_size(full + "/")


def _slot_size(path):
    size = 512 if sys.platform == "rp2" else 128
    try:
        from vfs import mount

        best = kind = ""
        for fs, at in mount():
            if path.startswith(at.rstrip("/") + "/") and at >= best:
                best = at
                kind = type(fs).__name__
        return size if "Lfs" in kind else 0
    except (ImportError, TypeError):
        # Before 1.25 mounts are not listed, but what these boards boot from is littlefs.
        same = os.statvfs(path) == os.statvfs("/")
        return size if same and sys.platform in ("esp32", "rp2") else 0
