"""
Part "adds": durable adds per second, store only.

All store the same records and make their JSON themselves, but for the bare loops, which write one
line that was made before. Each contestant keeps its files open from the first round to the last,
as a logger does, and runs for the same time in each round: on a slow card a fixed count takes for
ever.

Where the kernel counts what is written to the block device of the files, a row has the bytes for
each record, the file system's own journal included. What others write at the time is in it,
too: it is that of the round with the fewest, and says nothing where others write all the time.
"""

import fcntl
import importlib
import json
import os
import sqlite3
import threading
import time

from measure import Contest, Device, payload, record, verdict

PART = "adds"
_THREADS = 8


def _sync(fd):
    if hasattr(fcntl, "F_FULLFSYNC"):  # macOS, where the library asks for this one
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
    else:
        os.fdatasync(fd)


class _BareAppend:
    """write + fdatasync on one descriptor, a file that grows."""

    def __init__(self, path):
        from postcache.log.line import encode

        self._line = encode(100000, payload(100000))
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)

    def add(self, i):
        os.write(self._fd, self._line)
        _sync(self._fd)

    def close(self):
        os.close(self._fd)


class _BareOverwrite(_BareAppend):
    """
    The same over zeros that were written and synced before, round and round: what the file system
    allows one thread to do.
    """

    _SIZE = 256 * 1024  # of a segment

    def __init__(self, path):
        super().__init__(path)
        os.write(self._fd, bytes(self._SIZE))
        os.fsync(self._fd)
        self._at = 0

    def add(self, i):
        if self._at + len(self._line) > self._SIZE:
            self._at = 0
        os.pwrite(self._fd, self._line, self._at)
        self._at += len(self._line)
        _sync(self._fd)


class _Ours:
    def __init__(self, path, step=None):
        from postcache import POSTCache
        from postcache.ports import Directory

        files = Directory(path)
        if step is not None:
            files.step = step
        self._cache = POSTCache(None, files)
        self.add = self._add

    def _add(self, i):
        self._cache.add_request(record(i))

    def close(self):
        self._cache.close()


class _OursGrowing(_Ours):
    """With segments that are not filled with zeros ahead."""

    def __init__(self, path):
        super().__init__(path, 0)


class _OldSqlite:
    """The statements of postcache 0.2.0, with SQLite's defaults."""

    def __init__(self, path):
        self._connection = sqlite3.connect(path)
        self._cursor = self._connection.cursor()
        self._cursor.execute("CREATE TABLE postcache (request_body TEXT)")
        self._connection.commit()

    def settings(self):
        return _pragmas(self._connection)

    def add(self, i):
        self._cursor.execute("INSERT INTO postcache VALUES (?)", (json.dumps(record(i)),))
        self._connection.commit()

    def close(self):
        self._connection.close()


class _PersistSqlite:
    def __init__(self, path):
        from persistqueue import SQLiteQueue
        from persistqueue.serializers import json as serializer

        self._queue = SQLiteQueue(path, auto_commit=True, serializer=serializer)

    def settings(self):
        return _pragmas(self._queue._putter)

    def add(self, i):
        self._queue.put(record(i))

    def close(self):
        self._queue.close()


class _PersistFile:
    def __init__(self, path):
        from persistqueue import Queue
        from persistqueue.serializers import json as serializer

        # tempdir: its index is renamed into place, so both must be on one file system.
        os.mkdir(path)
        self._queue = Queue(path, serializer=serializer, tempdir=path)

    def add(self, i):
        self._queue.put(record(i))

    def close(self):
        pass  # it has none; its files are closed with it


class _Lite:
    def __init__(self, path):
        from litequeue import LiteQueue

        self._queue = LiteQueue(path)

    def settings(self):
        return _pragmas(self._queue.conn)

    def add(self, i):
        self._queue.put(json.dumps(record(i)))

    def close(self):
        self._queue.close()


def _pragmas(connection):
    """Ask the connection itself, so that what is printed is what was measured."""
    mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
    level = connection.execute("PRAGMA synchronous").fetchone()[0]
    return "journal_mode=%s synchronous=%s" % (
        mode,
        {0: "OFF", 1: "NORMAL", 2: "FULL", 3: "EXTRA"}.get(level, level),
    )


def _one(contestant, seconds, device):
    """
    Return a function that runs a round in this thread and returns adds per second.

    Where `device`, a measure.Device, counts what is written, it keeps the least number of bytes
    for an add so far as `contestant.written`.
    """
    add = contestant.add
    clock = time.perf_counter

    def turn():
        count = 0
        before = device.written()
        start = now = clock()
        end = start + seconds
        while now < end:
            add(count)
            count += 1
            now = clock()
        if before is not None:
            os.sync()  # what the file system still owes for this round
            each = (device.written() - before) / count
            contestant.written = min(each, getattr(contestant, "written", each))
        return count / (now - start)

    return turn


def _many(contestant, seconds, threads):
    """Return a function that runs a round in `threads` threads and returns adds per second."""
    add = contestant.add
    clock = time.perf_counter

    def turn():
        counts = [0] * threads
        failures = []
        ready = threading.Barrier(threads + 1)
        end = 0

        def work(index):
            ready.wait()
            count = 0
            try:
                while clock() < end:
                    add(count)
                    count += 1
            except Exception as e:
                failures.append(e)
            counts[index] = count

        team = [threading.Thread(target=work, args=(i,)) for i in range(threads)]
        for thread in team:
            thread.start()
        start = clock()
        end = start + seconds
        ready.wait()
        for thread in team:
            thread.join()
        elapsed = clock() - start
        if failures:
            raise failures[0]
        return sum(counts) / elapsed

    return turn


def _has(module):
    try:
        importlib.import_module(module)
    except ImportError:
        return False
    return True


_SYNCED = "every add survives a power cut when the call returns"


def run(folder, quick):
    """Measure; return the Contest."""
    seconds, rounds = (0.3, 7) if quick else (0.6, 25)
    contest = Contest("adds", "adds/s")
    device = Device(folder)
    opened = []

    def enter(name, maker, file, what, threads=1, module=None):
        if module and not _has(module):
            contest.add(name, None, "not installed: " + module)
            return
        contestant = maker(os.path.join(folder, file))
        opened.append((name, contestant))
        if hasattr(contestant, "settings"):
            what = contestant.settings() + "; " + what
        if threads > 1:
            turn = _many(contestant, seconds, threads)
        else:
            turn = _one(contestant, seconds, device)
        contest.add(name, turn, what)

    bare = "bare overwrite + fdatasync, 1 thread"
    append = "bare append + fdatasync, 1 thread"
    one = "postcache add_request, 1 thread"
    growing = "postcache, segments that grow, 1 thread"
    many = "postcache add_request, %d threads" % _THREADS
    old = "SQLite as postcache 0.2.0, 1 thread"
    try:
        enter(
            bare,
            _BareOverwrite,
            "over.log",
            "one line made before, over zeros that were synced before; " + _SYNCED,
        )
        enter(one, _Ours, "one", "JSON, checksum, write, fdatasync; " + _SYNCED)
        enter(growing, _OursGrowing, "growing", "the same, no zeros (step = 0); " + _SYNCED)
        enter(append, _BareAppend, "bare.log", "one line made before, appended; " + _SYNCED)
        enter(many, _Ours, "many", "the same, threads share one fdatasync; " + _SYNCED, _THREADS)
        enter(old, _OldSqlite, "old.db", "JSON, INSERT, COMMIT; " + _SYNCED)
        enter(
            "persist-queue SQLiteQueue, 1 thread",
            _PersistSqlite,
            "persist-sqlite",
            "JSON, INSERT, COMMIT; FULL syncs the WAL at each commit: " + _SYNCED,
            module="persistqueue",
        )
        enter(
            "persist-queue Queue (files), 1 thread",
            _PersistFile,
            "persist-files",
            "JSON, flush to the kernel; fsync once in 100 adds, its index never: a power cut may "
            "take all of them",
            module="persistqueue",
        )
        enter(
            "litequeue, 1 thread",
            _Lite,
            "lite.db",
            "JSON, INSERT; no sync at a commit: a power cut may take the last ones",
            module="litequeue",
        )
        contest.run(rounds)
        for name, contestant in opened:
            if hasattr(contestant, "written"):
                contest.rows[name]["written"] = contestant.written
    finally:
        for _, contestant in opened:
            contestant.close()
    contest.compare("postcache 1 thread / bare overwrite", one, bare, 0.9)
    contest.compare("postcache 1 thread / bare append", one, append)
    contest.compare("postcache 1 thread / segments that grow", one, growing)
    contest.compare("postcache 1 thread / SQLite as 0.2.0", one, old, 3)
    contest.compare("postcache 8 threads / bare overwrite of ONE thread", many, bare)
    contest.compare("postcache 8 threads / bare append of ONE thread", many, append, 2)
    for name in list(contest.rows)[6:]:
        # litequeue does not sync: faster than that is nothing that does.
        budget = None if name.startswith("litequeue") else 1
        contest.compare("postcache 1 thread / %s" % name.split(",")[0], one, name, budget)
    text = "bytes written to the device a record / of segments that grow"
    if device.why_not:
        contest.notes.append("%s: not known: %s" % (text, device.why_not))
    else:
        ratio = contest.rows[one]["written"] / contest.rows[growing]["written"]
        contest.ratios.append(verdict("adds", text, ratio, "<=", 0.6))
    return contest
