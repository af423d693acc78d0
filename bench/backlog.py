"""
Part "backlog": what waits is built into batches of 500 and sent.

"Parse and dump" is what a queue does that knows its records as objects: json.loads each of them,
json.dumps the list. It comes in two kinds:

    postcache 0.2.0   its own flow, SQLite and `requests` and all: what a user had before
    the core          the same lines out of the same files, through the same HTTP port, with as
                      many durable cursor writes: nothing but parse-and-dump differs

and the second also without HTTP, and without HTTP and cursor. Each run starts from a fresh copy of
the same files; only the sending is timed, not the copying and opening.
"""

import json
import os
import shutil
import sqlite3
import statistics
import time

from measure import Contest, number, payload, store, verdict
from server import Server

PART = "backlog"
_LIMIT = 500  # records in a batch


class _Sink:
    """An HTTP port that takes the whole body and sends nothing."""

    def __init__(self):
        self.requests = self.size = 0

    def post(self, url, headers, chunks, timeout):
        self.requests += 1
        for chunk in chunks:
            self.size += len(chunk)
        return 200, {}


def _unsynced(directory):
    """Return a Directory class whose cursor writes go nowhere, to see the CPU work alone."""

    class Unsynced(directory):
        def put(self, name, data):
            pass

    return Unsynced


def _ours(path, count, url, http, directory):
    """flush() of the whole log; return seconds, CPU seconds."""
    from postcache import POSTCache

    cache = POSTCache(url, directory(path), upload_limit=_LIMIT, http=http)
    try:
        cpu = time.process_time()
        start = time.perf_counter()
        done = cache.flush()
        taken = time.perf_counter() - start, time.process_time() - cpu
        if not done or cache.stats["sent"] != count:
            raise AssertionError("not everything was sent: %s" % cache.stats)
    finally:
        cache.close()
    return taken


def _core(path, count, url, http, directory):
    """Parse and dump the same lines, with the same port and cursor; return as `_ours`."""

    fs = directory(path)
    headers = {
        "Content-Type": "application/json",
        "Postcache-Stream": "0123456789abcdef",
    }
    cursor = b'12345678 100 [1, "0123456789abcdef", 100000, 100500, 0]\n'
    sent = 0

    def send(lines):
        nonlocal sent
        body = json.dumps({"lines": lines}).encode()
        # The headers of ours, so that the exchange costs the same.
        first, last = str(sent + 1), str(sent + len(lines))
        headers["Content-Length"] = str(len(body))
        headers["Postcache-First"] = first
        headers["Postcache-Last"] = last
        headers["Idempotency-Key"] = '"%s-%s-%s"' % (headers["Postcache-Stream"], first, last)
        status, *_ = http.post(url, headers, (body,), 10)
        if status != 200:
            raise AssertionError("HTTP %d" % status)
        sent += len(lines)
        fs.put("cursor-%s" % "ab"[sent // _LIMIT & 1], cursor)

    try:
        cpu = time.process_time()
        start = time.perf_counter()
        fs.put("cursor-a", cursor)
        lines = []
        for name in sorted(name for name, _ in fs.files() if name.endswith(".log")):
            with fs.open(name, "rb") as f:
                # No look at the checksum: that is ours to do, and would flatter us here.
                for line in f:
                    lines.append(json.loads(line.split(b" ", 2)[2]))
                    if len(lines) == _LIMIT:
                        send(lines)
                        lines = []
            fs.remove(name)
        if lines:
            send(lines)
        taken = time.perf_counter() - start, time.process_time() - cpu
        if sent != count:
            raise AssertionError("sent %d of %d" % (sent, count))
    finally:
        fs.close()
        close = getattr(http, "close", None)
        if close:
            close()
    return taken


def _old(path, count, url):
    """flush_cache of postcache 0.2.0 again and again, without its pauses; return as `_ours`."""
    import requests

    connection = sqlite3.connect(path)
    cursor = connection.cursor()
    sent = 0
    try:
        cpu = time.process_time()
        start = time.perf_counter()
        while True:
            cursor.execute(
                "select ROWID, request_body from postcache ORDER BY ROWID ASC limit %d" % _LIMIT
            )
            rows = cursor.fetchall()
            if not rows:
                break
            answer = requests.post(url, json={"lines": [json.loads(row[1]) for row in rows]})
            cursor.execute("delete from postcache where ROWID <= ?", (rows[-1][0],))
            connection.commit()
            if answer.status_code != 200:
                raise AssertionError("HTTP %d" % answer.status_code)
            sent += len(rows)
        taken = time.perf_counter() - start, time.process_time() - cpu
        if sent != count:
            raise AssertionError("sent %d of %d" % (sent, count))
    finally:
        connection.close()
    return taken


def _make_old(path, count):
    """The database that postcache 0.2.0 would have left, made in one transaction."""
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE postcache (request_body TEXT)")
    rows = ((payload(i).decode(),) for i in range(count))
    connection.executemany("INSERT INTO postcache VALUES (?)", rows)
    connection.commit()
    connection.close()


def run(folder, quick):
    """Measure; return the Contest."""
    count, rounds = (20000, 7) if quick else (100000, 15)
    # `requests` would ask a proxy for the way to our own loopback.
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        os.environ.pop(name, None)
    log = os.path.join(folder, "log")
    old = os.path.join(folder, "old.db")
    work = os.path.join(folder, "work")
    store(log, count)
    _make_old(old, count)
    with Server() as server:
        return _contest(count, rounds, log, old, work, server)


def _contest(count, rounds, log, old, work, server):
    from postcache.ports import Directory, Http

    contest = Contest(
        "backlog of %s records, batches of %d" % (number(count), _LIMIT), "records/s"
    )
    batches = -(-count // _LIMIT)

    def timed(function, template, http=None, directory=None):
        """Return a turn: fresh files, the run, and a look at what arrived."""

        def turn():
            (shutil.copytree if os.path.isdir(template) else shutil.copyfile)(template, work)
            os.sync()
            try:
                port = http and http()
                before = server.counters()
                arguments = (port, directory) if http else ()
                seconds, cpu = function(work, count, server.url, *arguments)
                if isinstance(port, _Sink):
                    requests, size = port.requests, port.size
                else:
                    requests, size = (b - a for a, b in zip(before, server.counters()))
                # A shortcut in one of the ways would show here.
                if requests != batches or size < count * len(payload(0)):
                    raise AssertionError("%d requests, %d bytes arrived" % (requests, size))
            finally:
                if os.path.isdir(work):
                    shutil.rmtree(work)
                elif os.path.exists(work):
                    os.remove(work)
            return count / seconds, {
                "cpu_us": cpu / count * 1e6,
                "bytes_sent": size,
            }

        return turn

    def port():
        return Http(server.url)

    quiet = _unsynced(Directory)
    names = {}
    for key, name, turn, what in (
        (
            "ours",
            "postcache flush()",
            timed(_ours, log, port, Directory),
            "files, batches, HTTP (one kept-alive connection), a synced cursor write per batch",
        ),
        (
            "core",
            "parse and dump, same files, port and cursor",
            timed(_core, log, port, Directory),
            "json.loads each line, json.dumps the list, else as above; checksums not looked at",
        ),
        (
            "old",
            "parse and dump as postcache 0.2.0",
            timed(_old, old),
            "SELECT, json.loads, requests.post (a connection each), DELETE, COMMIT (synced)",
        ),
        (
            "ours-built",
            "postcache flush(), no HTTP",
            timed(_ours, log, _Sink, Directory),
            "the body is made and thrown away; a synced cursor write per batch",
        ),
        (
            "core-built",
            "parse and dump, no HTTP",
            timed(_core, log, _Sink, Directory),
            "the same with json.loads and json.dumps; a synced cursor write per batch",
        ),
        (
            "ours-alone",
            "postcache flush(), no HTTP, no cursor",
            timed(_ours, log, _Sink, quiet),
            "reading, checking and building alone; not durable, for this comparison only",
        ),
        (
            "core-alone",
            "parse and dump, no HTTP, no cursor",
            timed(_core, log, _Sink, quiet),
            "the same with json.loads and json.dumps; not durable",
        ),
    ):
        if key == "old":
            try:
                import requests  # noqa: F401
            except ImportError:
                turn, what = None, "not installed: requests"
        names[key] = name
        contest.add(name, turn, what)
    contest.run(rounds)
    for text, ours, theirs, budget in (
        ("building and sending: postcache / postcache 0.2.0's own flow", "ours", "old", 5),
        ("building and sending: postcache / parse-and-dump, all else equal", "ours", "core", 5),
        ("building, cursor synced: postcache / parse-and-dump", "ours-built", "core-built", None),
        ("building alone: postcache / parse-and-dump", "ours-alone", "core-alone", None),
    ):
        contest.compare(text, names[ours], names[theirs], budget)
    # Both send the same bytes and sync the same cursor: that much of the second ratio is fixed.
    shared = []
    for whole, alone in zip(
        contest.rows[names["core"]]["values"], contest.rows[names["core-alone"]]["values"]
    ):
        shared.append(1 / (1 - whole / alone))
    contest.ratios.append(
        verdict(
            contest.part,
            "for scale: the second ratio if building cost postcache nothing at all",
            statistics.median(shared),
            ">=",
            None,
        )
    )
    return contest
