"""
Part "adds": durable adds per second, store only.

All store the same records and make their JSON themselves, but for the bare loop, which writes one
line that was made before. Each contestant keeps its files open from the first round to the last,
as a logger does, and runs for the same time in each round: on a slow card a fixed count takes for
ever.
"""

import fcntl
import importlib
import json
import os
import sqlite3
import threading
import time

from measure import Contest, payload, record

PART = "adds"
_THREADS = 8


class _Bare:
    """write + fdatasync on one descriptor: what the file system allows one thread to do."""

    def __init__(self, path):
        from postcache.log.line import encode

        self._line = encode(100000, payload(100000))
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)

    def add(self, i):
        os.write(self._fd, self._line)
        if hasattr(fcntl, "F_FULLFSYNC"):  # macOS, where the library asks for this one
            fcntl.fcntl(self._fd, fcntl.F_FULLFSYNC)
        else:
            os.fdatasync(self._fd)

    def close(self):
        os.close(self._fd)


class _Ours:
    def __init__(self, path):
        from postcache import POSTCache

        self._cache = POSTCache(None, path)
        self.add = self._add

    def _add(self, i):
        self._cache.add_request(record(i))

    def close(self):
        self._cache.close()


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


def _one(contestant, seconds):
    """Return a function that runs a round in this thread and returns adds per second."""
    add = contestant.add
    clock = time.perf_counter

    def turn():
        count = 0
        start = now = clock()
        end = start + seconds
        while now < end:
            add(count)
            count += 1
            now = clock()
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
    opened = []

    def enter(name, maker, file, what, threads=1, module=None):
        if module and not _has(module):
            contest.add(name, None, "not installed: " + module)
            return
        contestant = maker(os.path.join(folder, file))
        opened.append(contestant)
        if hasattr(contestant, "settings"):
            what = contestant.settings() + "; " + what
        if threads > 1:
            turn = _many(contestant, seconds, threads)
        else:
            turn = _one(contestant, seconds)
        contest.add(name, turn, what)

    bare = "bare write + fdatasync, 1 thread"
    one = "postcache add_request, 1 thread"
    many = "postcache add_request, %d threads" % _THREADS
    old = "SQLite as postcache 0.2.0, 1 thread"
    try:
        enter(bare, _Bare, "bare.log", "one line made before, appended to one file; " + _SYNCED)
        enter(one, _Ours, "one", "JSON, checksum, write, fdatasync; " + _SYNCED)
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
    finally:
        for contestant in opened:
            contestant.close()
    contest.compare("postcache 1 thread / bare loop", one, bare, 0.8)
    contest.compare("postcache 1 thread / SQLite as 0.2.0", one, old, 3)
    contest.compare("postcache 8 threads / bare loop of ONE thread", many, bare, 2)
    for name in list(contest.rows)[4:]:
        contest.compare("postcache 1 thread / %s" % name.split(",")[0], one, name)
    return contest
