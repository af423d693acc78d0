"""
What tools/deploy.py does on the board, as code that the board runs: sent as text, never installed.

    /postcache.new/           the stage: all that is new is here, checked, before anything changes
        postcache/            the package, complete
        files/                main.py, settings.json, ...; a `!` stands for a `/` of the path
        record.0 record.1     what is ours while files change, and afterwards
        old/                  a package that is being removed
        test/                 the self-test's log
    /postcache/               only while packages change places, see swap()
    /lib/postcache/           the package
    /lib/postcache.json       the record: what deploy wrote here, by hash
    /postcache.kept/          what somebody else had put into the package's folder

Each function is called alone. What it finds it prints, a line each: a mark, and the repr() of a
value. It prints a dot for all that takes time, so that the host hears that the board is at work.
"""

import binascii
import gc
import hashlib
import os
import sys
import time

STAGE = "/postcache.new"
SHADOW = "/postcache"
KEPT = "/postcache.kept"
RECORD = "/lib/postcache.json"


def tell(value):
    print("\x1e" + repr(value))


def kind(path):
    """Return 0x4000 for a folder, 0x8000 for a file, 0 for nothing."""
    try:
        return os.stat(path)[0] & 0xC000
    except OSError:
        return 0


def tell_kind(path):
    tell(kind(path))


def names(path):
    """Tell the names in a folder."""
    if kind(path) == 0x4000:
        tell([entry[0] for entry in os.ilistdir(path)])


def walk(path):
    """Return the paths of all files below folder `path`."""
    found = []
    if kind(path) == 0x4000:
        for name, what, *_ in os.ilistdir(path):
            name = path.rstrip("/") + "/" + name
            if what == 0x4000:
                found += walk(name)
            else:
                found.append(name)
    return found


def folders(path):
    """Make the folders that file `path` needs."""
    at = path.find("/", 1)
    while at > 0:
        if not kind(path[:at]):
            os.mkdir(path[:at])
        at = path.find("/", at + 1)


def clear(path):
    """Remove file or folder `path`, if there is one."""
    what = kind(path)
    if what == 0x4000:
        for name, *_ in list(os.ilistdir(path)):
            clear(path + "/" + name)
        os.rmdir(path)
    elif what:
        os.remove(path)
        print(".")


def digest(path, target=None):
    """Return the bytes and the SHA-256 of a file, copied to `target` on the way if that is one."""
    h = hashlib.sha256()
    buffer = bytearray(1024)
    size = 0
    out = open(target, "wb") if target else None
    try:
        with open(path, "rb") as f:
            while True:
                n = f.readinto(buffer)
                if not n:
                    break
                part = memoryview(buffer)[:n]
                h.update(part)
                size += n
                if out:
                    out.write(part)
    finally:
        if out:
            out.close()
    if target:
        return digest(target)  # what is on flash now
    return size, binascii.hexlify(h.digest()).decode()


def scan(paths):
    """Tell (path, bytes, hash) of files, and of all files below folders."""
    for path in paths:
        for name in walk(path) or ((path,) if kind(path) == 0x8000 else ()):
            tell((name,) + digest(name))


def space():
    """Tell the bytes of a block, and how many blocks there are and are free."""
    s = os.statvfs("/")
    # A full littlefs counts past zero: more free blocks than there are.
    tell((s[1] or s[0], s[2], s[4] if s[4] <= s[2] else 0))


def put(path, part, first, last):
    """Write a piece, in base64, of a staged file; tell its size and hash when it was the last."""
    global _file  # noqa: PLW0603 - it stays open between two calls
    if first:
        folders(path)
        _file = open(path, "wb")
    _file.write(binascii.a2b_base64(part))
    if last:
        _file.close()
        tell(digest(path))


def copy(path, target):
    """Copy a file; tell its size and hash."""
    folders(target)
    tell(digest(path, target))


def frozen():
    """Tell the version of the package that the firmware has frozen in, or None."""
    path = sys.path[:]
    unload()
    sys.path[:] = [".frozen"]
    try:
        import postcache

        tell(postcache.__version__)
    except (ImportError, AttributeError):
        tell(None)
    sys.path[:] = path
    unload()


def unload():
    for name in list(sys.modules):
        if name.split(".")[0] == "postcache":
            del sys.modules[name]


def has_network():
    """Tell whether there is any."""
    try:
        import network  # pyright: ignore[reportMissingImports]

        tell(hasattr(network, "WLAN") or hasattr(network, "LAN"))
    except ImportError:
        tell(False)


# --- The change ---


def move(path, target):
    """
    Put a file into another place, or over another one.

    On littlefs that is one rename, all or nothing. FAT has no such thing: a power cut amid a
    rename leaves two names for one content, and when one is removed the other reads garbage. So
    there it is copied: a cut may tear the target, but the stage has the whole file until the end.
    """
    folders(target)
    if kind(STAGE.upper()):  # FAT: capital letters are no other name
        digest(path, target)
        if not path.startswith(STAGE):
            os.remove(path)
    else:
        os.rename(path, target)
    print(".")


def set_aside(live):
    """Move what is no part of a package out of its folder: it is somebody's."""
    for path in walk(live):
        if not path.endswith((".py", ".mpy", ".pyi", "/py.typed")):
            name = target = KEPT + "/" + path[len(live) + 1 :].replace("/", "!")
            n = 1
            while kind(target):
                n += 1
                target = "%s-%d" % (name, n)
            move(path, target)
            tell((path, target))


def finish(live):
    """Bring the package from SHADOW, where it is imported from meanwhile, to its place."""
    if live != SHADOW and kind(SHADOW):
        set_aside(live)
        clear(live)
        folders(live)
        os.rename(SHADOW, live)


def swap(live):
    """
    Put the staged package into `live`, so that at every instant a complete one can be imported.

    sys.path is ["", ".frozen", "/lib"]: /postcache comes before /lib/postcache. So the new package
    goes there, by one rename; then the old one goes file by file, unseen; then the new one goes
    into its place, by one rename. Where the firmware has another version frozen in, /postcache is
    the place, and the frozen one is what can be imported in between.

    On FAT there is no complete one for as long as it takes to copy it.
    """
    new = STAGE + "/postcache"
    if kind(STAGE.upper()):
        set_aside(live)
        clear(live)
        for path in walk(new):
            move(path, live + path[len(new) :])
    elif live == SHADOW:
        drop(live)
        os.rename(new, live)
    elif kind(live):
        os.rename(new, SHADOW)
        finish(live)
    else:
        folders(live)
        os.rename(new, live)


def drop(live):
    """Remove a package, so that no half of it can be imported."""
    if kind(live):
        set_aside(live)
        if not kind(STAGE.upper()):
            clear(STAGE + "/old")
            os.rename(live, STAGE + "/old")
            live = STAGE + "/old"
        clear(live)


def change(live, drops, moves, gone):
    """
    Let what is staged take effect.

    Args:
        live: the folder that the staged package goes to; None when it stays as it is.
        drops: package folders to remove.
        moves: pairs of a file and where it goes, in this order.
        gone: files to remove, after that.
    """
    folders(STAGE + "/")
    last = STAGE + "/record.1"
    if kind(last):
        move(STAGE + "/record.0", RECORD)
    if live:
        swap(live)
    for path, target in moves:
        move(path, target)
    for path in gone:
        clear(path)
    for path in drops:
        drop(path)
    if kind(last):
        move(last, RECORD)
    else:
        clear(RECORD)
    clear(STAGE)


# --- The self-test ---


class Server:
    """An HTTP port for POSTCache: takes every batch, and keeps it."""

    body = b""

    def post(self, url, headers, chunks, timeout):
        for chunk in chunks:
            self.body += chunk
        return 200, {}

    def close(self):
        pass


def used():
    s = os.statvfs("/")
    return (s[2] - s[3]) * (s[1] or s[0])


def free():
    gc.collect()
    return gc.mem_free()


def self_test(package, text):
    """
    Store a record in a log of its own, open that again, read the record back; tell the figures.

    Args:
        package: folder whose `postcache` is tried, or None for the one that is installed.
        text: str, what the record says.
    """
    import json

    folder = STAGE + "/test"
    clear(folder)
    folders(folder)
    unload()
    if package:
        sys.path.insert(0, package)
    figures = {"heap": free(), "right": False}
    try:
        from postcache import POSTCache

        print(".")
        flash = used()
        cache = POSTCache(None, folder)
        print(".")
        log = cache.storage
        writes = log.writes
        start = time.ticks_ms()
        cache.add_request({"self_test": text})
        figures["ms"] = time.ticks_diff(time.ticks_ms(), start)
        figures["writes"] = log.writes - writes
        figures["flash"] = used() - flash
        cache.close()
        print(".")
        server = Server()
        cache = POSTCache("http://self.test/", folder, http=server)
        waiting = len(cache)
        cache.flush()
        left = len(cache)
        figures["left"] = free()
        figures["journal"] = cache.stats["journal"]
        cache.close()
        lines = json.loads(server.body)["lines"]
        figures["right"] = lines == [{"self_test": text}] and waiting == 1 and not left
        figures["from"] = sys.modules["postcache"].__file__
    finally:
        if package:
            sys.path.remove(package)
        clear(folder)
    tell(figures)
