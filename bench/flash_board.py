"""
The board's side of bench/flash.py: runs under MicroPython on a real littlefs, prints JSON.

    micropython -X heapsize=16M flash_board.py '{"job": "wear", "row": "append", ...}'

Jobs: wear, heap, boot. Each takes a process of its own, and what it takes is in its docstring.
Nothing is timed: flash, clock and server are objects in RAM, so two runs count the same.
"""

import gc
import json
import os
import sys

_BLOCK = 4096
_ERASED = b"\xff" * _BLOCK
_PAGE = 256
_MOUNT = "/flash"
# Typical of serial NOR flash of 2 MiB: an estimate, to rank what is counted.
_ERASE_MS = 45
_PAGE_MS = 0.4


class Flash:
    """
    NOR flash in RAM that counts, as MicroPython's file systems want a block device.

    Attributes, all since `start()`: `erases`; `programs`, calls, `programmed`, their bytes,
    `pages`, the pages of 256 bytes that they touched; `reads`, calls, `read`, their bytes.
    A program of a byte that is not erased is an AssertionError.
    """

    def __init__(self, blocks):
        self._blocks = blocks
        self._data = bytearray(_ERASED * blocks)
        self._view = memoryview(self._data)
        self.start()

    def start(self):
        self.erases = self.programs = self.programmed = self.pages = self.reads = self.read = 0

    def readblocks(self, block, buffer, offset=0):
        n = len(buffer)
        at = block * _BLOCK + offset
        buffer[:] = self._view[at : at + n]
        self.reads += 1
        self.read += n

    def writeblocks(self, block, buffer, offset):
        n = len(buffer)
        at = block * _BLOCK + offset
        there = self._view[at : at + n]
        assert there == _ERASED[:n], "programmed twice without an erase"
        there[:] = buffer
        self.programs += 1
        self.programmed += n
        self.pages += (at + n - 1) // _PAGE - at // _PAGE + 1

    def ioctl(self, op, arg):
        if op == 4:
            return self._blocks
        if op == 5:
            return _BLOCK
        if op == 6:
            self._view[arg * _BLOCK : (arg + 1) * _BLOCK] = _ERASED
            self.erases += 1
        return 0  # init, deinit, sync, erase


class QuietFlash(Flash):
    """
    One that allocates nothing, like a board's driver in C, so that what others allocate may be
    counted. It is slow, and counts nothing itself.
    """

    def readblocks(self, block, buffer, offset=0):
        data = self._data
        at = block * _BLOCK + offset
        for i in range(len(buffer)):
            buffer[i] = data[at + i]

    def writeblocks(self, block, buffer, offset):
        data = self._data
        at = block * _BLOCK + offset
        for i in range(len(buffer)):
            data[at + i] = buffer[i]

    def ioctl(self, op, arg):
        if op == 6:
            data = self._data
            at = arg * _BLOCK
            for i in range(_BLOCK):
                data[at + i] = 0xFF
            return 0
        return Flash.ioctl(self, op, arg)


class Clock:
    """A clock that stands still: after its first round the outbox sends when flush() says so."""

    def ticks_ms(self):
        return 0


class Server:
    """An `http` port: a server that takes everything, or (`up` False) one that is not there."""

    def __init__(self, up=True):
        self.up = up

    def post(self, url, headers, chunks, timeout):
        if not self.up:
            raise OSError(113)  # EHOSTUNREACH
        for chunk in chunks:
            self.seen(chunk)
        return 200, {}

    def seen(self, chunk):
        pass


class HeapServer(Server):
    """One that looks at the heap between the chunks, as host_tests/programs/heap.py does."""

    peak = chunks = 0

    def seen(self, chunk):
        if self.chunks % 10 == 0:
            self.peak = max(self.peak, _used())
        self.chunks += 1


def _used():
    gc.collect()
    return gc.mem_alloc()


def _mount(device, progsize, new=True):
    """Mount a littlefs as the ESP32 and RP2 ports do: all but the size of a program by default."""
    if new:
        os.VfsLfs2.mkfs(device, progsize=progsize)
    os.mount(os.VfsLfs2(device, progsize=progsize), _MOUNT)


def _text(n, payload):
    """Return record `n`: a str that is `payload` bytes as JSON, quotes included."""
    return ("%%0%dd" % (payload - 2)) % n


def _open(job, up=None, **kwargs):
    """Open the cache; `up` as in Server, None without an endpoint."""
    from postcache import POSTCache

    cache = POSTCache(
        None if up is None else "http://server/",
        _MOUNT + "/" + kwargs.pop("name", "log"),
        async_interval=3600,
        slot_size=job["slot_size"],
        max_bytes=job.get("max_bytes"),
        http=kwargs.pop("http", None) or Server(up),
        clock=Clock(),
        **kwargs,
    )
    kind = "slot" if job["slot_size"] else "append"
    assert cache.stats["journal"] == kind, cache.stats["journal"]
    return cache


# --- wear ---
# Each row is a class: add(n) stores record n; when that returns the record is durable, or belongs
# to a group that will be. deliver(), if there is one, is called after every `group` adds.


class Append:
    """What loggers do: a file kept open, one line and one flush for each record."""

    deliver = None

    def __init__(self, job):
        self._payload = job["payload"]
        self._file = open(_MOUNT + "/readings.txt", "ab")

    def add(self, n):
        self._file.write(b'"%s"\n' % _text(n, self._payload).encode())
        self._file.flush()


class Files:
    """What pimoroni/enviro does: one file for each record, read and removed when it is sent."""

    def __init__(self, job):
        self._payload = job["payload"]

    def add(self, n):
        try:
            os.mkdir(_MOUNT + "/uploads")
        except OSError:
            pass  # there already
        with open(_MOUNT + "/uploads/2026-11-21T%08dZ.json" % n, "w") as f:
            f.write('"%s"' % _text(n, self._payload))

    def deliver(self):
        for entry in os.ilistdir(_MOUNT + "/uploads"):
            name = _MOUNT + "/uploads/" + entry[0]
            with open(name) as f:
                json.load(f)
            os.remove(name)


class Btree:
    """MicroPython's own database: a put and a flush for each record, removed when it is sent."""

    def __init__(self, job):
        import btree

        self._payload = job["payload"]
        self._sent = self._stored = 0
        self._file = open(_MOUNT + "/readings.db", "w+b")
        self._db = btree.open(self._file)

    def _flush(self):
        self._db.flush()
        self._file.flush()

    def add(self, n):
        self._db[b"%010d" % n] = b'"%s"' % _text(n, self._payload).encode()
        self._flush()
        self._stored = n + 1

    def deliver(self):
        for n in range(self._sent, self._stored):
            json.loads(self._db[b"%010d" % n])
            del self._db[b"%010d" % n]
        self._sent = self._stored
        self._flush()


class Postcache:
    """The library, with a server or (`up` False) without one."""

    def __init__(self, job):
        self._payload = job["payload"]
        self._up = job["up"]
        self._added = 0
        self._cache = _open(job, self._up, flush_every=job["flush_every"])

    def add(self, n):
        self._cache.add_request(_text(n, self._payload))
        self._added += 1

    def deliver(self):
        cache = self._cache
        assert cache.flush() == self._up
        stats = cache.stats
        kept = stats["sent"] if self._up else stats["waiting"] + stats["dropped"]
        assert kept == self._added, stats


_ROWS = {"append": Append, "files": Files, "btree": Btree, "postcache": Postcache}


def wear(job):
    """
    Count what storing and delivering `count` records costs the flash, after `warm` others.

    `row`, a key of _ROWS; `blocks`, `progsize`, of the file system; `payload`, bytes of a record;
    `group`, records from one delivery to the next. For the library also `slot_size`,
    `flush_every`, `up`.
    """
    flash = Flash(job["blocks"])
    _mount(flash, job["progsize"])
    try:
        row = _ROWS[job["row"]](job)
    except ImportError as e:
        return {"missing": str(e)}
    worst = worst_sending = (0, 0, 0)  # ms, erases, bytes read
    read = early = late = 0  # by adds: in all, in the first and the last tenth
    count = job["count"]
    tenth = count // 10
    for n in range(-job["warm"], count):
        if n == 0:
            flash.start()
            worst = worst_sending = (0, 0, 0)
            read = early = late = 0
        before = flash.erases, flash.pages, flash.read
        row.add(n + job["warm"])
        cost = _cost(flash, before)
        worst = max(worst, cost)
        read += cost[2]
        early += cost[2] if n < tenth else 0
        late += cost[2] if n >= count - tenth else 0
        if row.deliver and (n + job["warm"] + 1) % job["group"] == 0:
            before = flash.erases, flash.pages, flash.read
            row.deliver()
            worst_sending = max(worst_sending, _cost(flash, before))
    return {
        "erases": flash.erases / count,
        "programs": flash.programs / count,
        "bytes": flash.programmed / count,
        "amplification": flash.programmed / count / job["payload"],
        "read_by_adds": read / count,
        "read_by_first_tenth": early / tenth,
        "read_by_last_tenth": late / tenth,
        "read_in_all": flash.read / count,
        "worst_add": {"erases": worst[1], "ms": worst[0], "read": worst[2]},
        "worst_sending": {
            "erases": worst_sending[1],
            "ms": worst_sending[0],
            "read": worst_sending[2],
        },
    }


def _cost(flash, before):
    erases, pages, read = before
    erases = flash.erases - erases
    return erases * _ERASE_MS + (flash.pages - pages) * _PAGE_MS, erases, flash.read - read


# --- heap ---


def heap(job):
    """
    Count heap: what an add allocates, and what draining `count` records holds at the peak.

    `blocks`, `progsize`, `slot_size`, `payload`, `max_bytes`. All in bytes; the peak, and what an
    open log holds, over what there was before it was opened.
    """
    _mount(QuietFlash(64), job["progsize"])
    found = _adds(job)
    os.umount(_MOUNT)
    _mount(Flash(job["blocks"]), job["progsize"])
    _fill(job)
    server = HeapServer()
    free = _used()
    cache = _open(job, True, http=server)
    found["open"] = _used() - free
    assert len(cache) == job["count"]
    assert cache.flush()
    found["drain_at_the_peak"] = server.peak - free
    return found


def _adds(job):
    """Return what one of a hundred adds allocates, on the average and at most."""
    texts = [_text(n, job["payload"]) for n in range(100)]
    small = dict(job, max_bytes=None)
    # Sent once, so that all that is loaded when it is needed is there.
    with _open(small, True, name="first") as cache:
        cache.add_request(texts[0])
        assert cache.flush()
    with _open(small) as cache:
        for text in texts:
            cache.add_request(text)
        worst = 0
        gc.collect()
        gc.disable()
        start = before = gc.mem_alloc()
        for text in texts:
            cache.add_request(text)
            now = gc.mem_alloc()
            worst = max(worst, now - before)
            before = now
        gc.enable()
    return {"add": (before - start) / len(texts), "worst_add": worst}


# In a function of its own: what its variables hold would be missing from the account of the next
# cache.
def _fill(job):
    with _open(job) as cache:
        for n in range(job["count"]):
            cache.add_request(_text(n, job["payload"]))


# --- boot ---


def boot(job):
    """
    Count what opening the log reads with so many records waiting, for each of `counts`.

    `blocks`, `progsize`, `slot_size`, `payload`, `max_bytes`. The file system is mounted anew
    before, and that is not counted. Also: the most that one of the next 50 adds reads, because
    what is put off until then has to be paid, too.
    """
    flash = Flash(job["blocks"])
    _mount(flash, job["progsize"])
    found = []
    stored = 0
    for count in job["counts"]:
        with _open(job) as cache:
            while stored < count:
                stored = cache.add_request(_text(stored, job["payload"]))
        os.umount(_MOUNT)
        gc.collect()
        flash.start()
        _mount(flash, job["progsize"], False)
        mounted = flash.read
        flash.start()
        cache = _open(job)
        entry = {
            "waiting": len(cache),
            "reads": flash.reads,
            "bytes_read": flash.read,
            "programs": flash.programs,
            "mount_bytes_read": mounted,
            "worst_add_bytes_read": 0,
        }
        assert len(cache) == count
        for _ in range(50):
            flash.start()
            stored = cache.add_request(_text(stored, job["payload"]))
            entry["worst_add_bytes_read"] = max(entry["worst_add_bytes_read"], flash.read)
        cache.close()
        found.append(entry)
    return {"opened": found}


if __name__ == "__main__":
    _job = json.loads(sys.argv[1])
    print(json.dumps({"wear": wear, "heap": heap, "boot": boot}[_job["job"]](_job)))
