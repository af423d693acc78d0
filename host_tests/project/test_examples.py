"""
The programs in examples/ do what docs/format.md and docs/protocol.md say.

read_log.py shares no code with the library and must agree with it about every log, damaged or
not; receiver.py must have every record exactly once, however it dies. Both get what either
runtime wrote.
"""

import binascii
import contextlib
import gzip
import http.client
import json
import re
import shutil
import signal
import sqlite3
import subprocess
import sys

import pytest
from logs import load, write

from conftest import HERE, find_runtime
from postcache import POSTCache

EXAMPLES = HERE.parent / "examples"
READ_LOG = EXAMPLES / "read_log.py"
RECEIVER = EXAMPLES / "receiver.py"
URL = "http://127.0.0.1:9/"

read_log = load(READ_LOG)


class Server:
    """An HTTP port that takes every batch and keeps the bytes of each record, by number."""

    def __init__(self):
        self.records = []

    def post(self, url, headers, chunks, timeout):
        # One record a batch: its bytes stand between the brackets.
        body = b"".join(chunks)
        assert headers["Postcache-First"] == headers["Postcache-Last"]
        self.records.append((int(headers["Postcache-First"]), body[len(b'{"lines":[') : -2]))
        return 200, {}


def delivered_by_library(folder):
    """What the library itself finds in a copy of a log and delivers: [(number, payload)]."""
    copy = folder.with_name(folder.name + "-copy")
    shutil.copytree(folder, copy)
    server = Server()
    with POSTCache(URL, copy, upload_limit=1, http=server) as cache:
        cache.flush()
        assert not len(cache)
    shutil.rmtree(copy)
    return server.records


def line_of(seq, payload):
    """Return a line of a segment or a cursor, as docs/format.md has it."""
    text = b"%d %s" % (seq, payload)
    return b"%08x %s\n" % (binascii.crc32(text), text)


def waiting(folder):
    """What read_log.py finds waiting: [(number, payload)]."""
    return [(seq, payload) for seq, done, payload in read_log.read(str(folder)) if not done]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "log"


# --- read_log.py ---------------------------------------------------------------------------------


@pytest.mark.parametrize("reader", ["cpython", "micropython"])
@pytest.mark.parametrize(("max_bytes", "slot_size"), [(1 << 20, 0), (8192, 0), (1 << 20, 128)])
def test_read_log_prints_what_each_runtime_wrote(runtime, reader, max_bytes, slot_size, folder):
    write(folder, 60, 20, max_bytes, runtime.name, slot_size)
    found = find_runtime(reader).run(READ_LOG, folder).stdout.splitlines()
    expected = []
    for n in range(60):
        payload = json.dumps({"n": n, "text": "x" * (n % 50)})
        expected.append((n + 1, "waiting" if n >= 20 else "delivered", json.loads(payload)))
    if slot_size:
        assert len(list(folder.glob("+?/*"))) > 20
    elif max_bytes == 8192 and runtime.name == "cpython":
        assert len(list(folder.glob("*.log"))) > 2
    got = []
    for line in found:
        number, state, payload = line.split(" ", 2)
        got.append((int(number), state, json.loads(payload)))
    assert got == expected[-len(got) :]  # delivered segments are deleted
    assert len(got) >= 40


def test_read_log_agrees_with_the_library(runtime, folder):
    write(folder, 60, 20, 8192, runtime.name)
    found = waiting(folder)
    assert [seq for seq, _ in found] == list(range(21, 61))
    assert found == delivered_by_library(folder)


@pytest.mark.parametrize("slot_size", [128, 512])
def test_read_log_agrees_about_every_number_of_records_in_slots(slot_size, folder):
    # On its way from empty to two segments, delivered and not, every state of the slots is met.
    cache = POSTCache(None, folder, slot_size=slot_size)
    segments = set()
    for n in range(1, 101):
        cache.add_request({"n": n, "text": "x" * 40})
        if n in (45, 46, 80):
            cache.storage.ack(1, n - 3, 0)
        found = waiting(folder)
        assert found == list(cache.storage.read(None))
        segments.update(folder.glob("*.log"))
        if n % 7 == 0:
            assert found == delivered_by_library(folder)
    cache.close()
    assert segments


def test_read_log_agrees_about_damaged_slots(folder):
    write(folder, 30, 0, 1 << 20, "cpython", 128)
    whole = waiting(folder)
    for path in folder.glob("+?/*"):
        data = path.read_bytes()
        for torn in (b"", data[:1], data[:20], b"\0" * 60, data.replace(b"1", b"2"), data * 2):
            path.write_bytes(torn)
            found = waiting(folder)
            assert found == delivered_by_library(folder), (path, torn)
            assert len(found) >= 29 and set(found) <= set(whole)
        path.write_bytes(data)
    assert waiting(folder) == whole


@pytest.mark.parametrize("max_bytes", [1 << 20, 8192])
def test_read_log_agrees_about_every_flipped_byte(max_bytes, folder):
    write(folder, 12, 0, max_bytes)
    whole = waiting(folder)
    assert len(whole) == 12
    path = min(folder.glob("*.log"))
    data = path.read_bytes()
    for at in range(0, len(data), 7):  # 7 and a line's length are coprime: all columns are hit
        for bits in (0x01, 0x2A, 0x80):  # 0x2A makes newlines out of blanks
            path.write_bytes(data[:at] + bytes([data[at] ^ bits]) + data[at + 1 :])
            found = waiting(folder)
            assert found == delivered_by_library(folder), (at, bits)
            assert set(found) <= set(whole)
            assert len(found) >= 10  # a lost newline costs two records, anything else one
    path.write_bytes(data)
    assert waiting(folder) == whole


def test_read_log_agrees_about_every_torn_tail(folder):
    write(folder, 5)
    (path,) = folder.glob("*.log")
    data = path.read_bytes()
    for size in range(len(data) + 1):
        path.write_bytes(data[:size])
        found = waiting(folder)
        assert len(found) == data[:size].count(b"\n")
        assert found == delivered_by_library(folder), size
    path.write_bytes(data[:-1] + b" ")  # all there, but for the newline
    assert len(waiting(folder)) == 4
    assert waiting(folder) == delivered_by_library(folder)


def test_read_log_passes_over_what_a_failed_write_left(folder):
    write(folder, 3)
    (path,) = folder.glob("*.log")
    lines = path.read_bytes().splitlines(True)
    # Record 3 was written, its sync failed, and its number was given again: see docs/format.md.
    (folder / "0000000003.log").write_bytes(line_of(3, b'"again"'))
    # A line below its file's first number is nobody's record.
    (folder / "0000000007.log").write_bytes(line_of(6, b'"no"') + line_of(7, b'"yes"'))
    found = waiting(folder)
    assert found[:2] == [(1, lines[0][11:-1]), (2, lines[1][11:-1])]
    assert found[2:] == [(3, b'"again"'), (7, b'"yes"')]
    assert found == delivered_by_library(folder)


def test_read_log_tolerates_strangers(folder):
    write(folder, 3)
    found = waiting(folder)
    for name in ("notes.txt", "1.log", "0000000000.log", "-000000005.log", "²²²².log", "x.log"):
        (folder / name).write_bytes(b'7ee3e4b1 9 "no"\n')
    (path,) = folder.glob("0000000001.log")
    path.write_bytes(b"\xff\xfe\n\n00000000 \n00000000\n" + path.read_bytes() + b"\0" * 100)
    assert waiting(folder) == found
    assert found == delivered_by_library(folder)


@pytest.mark.parametrize("delivered", [3, 4])
def test_read_log_takes_the_newer_whole_cursor(delivered, folder):
    write(folder, delivered + 2, delivered)
    copies = [folder / "cursor-a", folder / "cursor-b"]
    if delivered == 3:  # also with the newer copy in the other file
        a, b = (path.read_bytes() for path in copies)
        copies[0].write_bytes(b)
        copies[1].write_bytes(a)
    newer = max(copies, key=lambda path: int(path.read_bytes().split()[1]))
    states = [done for _, done, _ in read_log.read(str(folder))]
    assert states == [True] * delivered + [False] * 2
    assert waiting(folder) == delivered_by_library(folder)
    for data in (b"", newer.read_bytes()[:30], b"\n" * 128):
        newer.write_bytes(data)
        found = waiting(folder)
        assert len(found) == 3  # the older copy: the last batch is sent again
        assert found == delivered_by_library(folder)
    for path in copies:
        path.unlink()
    assert len(waiting(folder)) == delivered + 2
    assert waiting(folder) == delivered_by_library(folder)


def test_read_log_refuses_a_newer_format(folder):
    write(folder, 1)
    (folder / "cursor-b").write_bytes(line_of(1, b'[2, "a field that nobody knows yet"]'))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ValueError, match="newer"):
        list(read_log.read(str(folder)))
    with pytest.raises(OSError, match="newer"):
        POSTCache(None, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_read_log_passes_over_damage_on_micropython(folder):
    write(folder, 60, 20, 8192)
    for path in sorted(folder.glob("*.log")):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0x80
        path.write_bytes(data[:-3])
    found = find_runtime("micropython").run(READ_LOG, folder).stdout.splitlines()
    assert found == find_runtime("cpython").run(READ_LOG, folder).stdout.splitlines()
    assert 20 < len(found) < 60


def test_read_log_imports_nothing_of_the_library():
    assert not re.search(r"\b(import|from)\s+postcache", READ_LOG.read_text())


# --- receiver.py ---------------------------------------------------------------------------------


class Receiver:
    """examples/receiver.py in a process of its own, on one port and one database for ever."""

    def __init__(self, tmp_path):
        self.database = tmp_path / "received.db"
        self.port = 0
        self.process = None

    @property
    def url(self):
        return "http://127.0.0.1:%d/readings" % self.port

    def start(self, *prefix):
        """Start it; `prefix`, if there is one, is the program that starts it in its own way."""
        command = [sys.executable, *(prefix or (str(RECEIVER),)), str(self.database)]
        self.process = subprocess.Popen(
            [*command, "--port", str(self.port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        line = self.process.stdout.readline()
        self.port = int(re.fullmatch(r"Listening on http://127.0.0.1:(\d+)/\n", line)[1])

    def wait(self):
        """Wait for its end; returns the exit status."""
        status = self.process.wait(30)
        self.process.stdout.close()
        return status

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
        self.wait()

    def rows(self):
        """[(number, record)] in order of arrival; asserts that there is one stream."""
        with contextlib.closing(sqlite3.connect(self.database)) as db:
            streams = db.execute("SELECT stream, highest FROM streams").fetchall()
            rows = db.execute("SELECT stream, number, record FROM records ORDER BY rowid")
            rows = rows.fetchall()
        assert {row[0] for row in rows} == {stream for stream, _ in streams}
        assert len(streams) == 1
        assert max(row[1] for row in rows) == streams[0][1]
        return [(number, json.loads(record)) for _, number, record in rows]

    def post(self, first, last, lines, stream="s", **more):
        """POST a batch by hand; returns the status, and keeps the answer's headers."""
        body = lines if isinstance(lines, bytes) else json.dumps({"lines": lines}).encode()
        headers = {"Postcache-Stream": stream, "Postcache-First": first, "Postcache-Last": last}
        headers = {k: str(v) for k, v in dict(headers, **more).items() if v is not None}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            connection.request("POST", "/readings", body, headers)
            answer = connection.getresponse()
            self.headers = dict(answer.getheaders())
            return answer.status


@pytest.fixture
def receiver(tmp_path):
    receiver = Receiver(tmp_path)
    receiver.start()
    yield receiver
    receiver.stop()


def test_receiver_stores_what_each_runtime_sends(runtime, receiver, tmp_path):
    script = tmp_path / "sender.py"
    script.write_text(
        "import sys\n"
        "from postcache import POSTCache\n"
        "cache = POSTCache(sys.argv[1], sys.argv[2], upload_limit=7,\n"
        "                  top_level_attributes={'device': 'greenhouse-1'})\n"
        "for n in range(20):\n"
        "    assert cache.add_request([n, 'für ' + chr(0x1f600)]) == n + 1\n"
        "assert cache.flush(), cache.stats\n"
        "cache.close()\n",
        encoding="utf-8",
    )
    runtime.run(script, receiver.url, tmp_path / "log")
    assert receiver.rows() == [(n + 1, [n, "für \U0001f600"]) for n in range(20)]
    with contextlib.closing(sqlite3.connect(receiver.database)) as db:
        (attributes,) = db.execute("SELECT attributes FROM streams").fetchone()
    assert json.loads(attributes) == {"device": "greenhouse-1"}


def test_receiver_knows_a_batch_that_comes_again(receiver):
    assert receiver.post(1, 3, ["a", "b", "c"]) == 200
    assert receiver.post(1, 3, ["a", "b", "c"]) == 200  # the answer was lost
    assert receiver.post(1, 2, ["a", "b"]) == 200  # an older cursor
    assert receiver.post(2, 5, ["b", "c", "d", "e"]) == 200  # the limit was changed in between
    assert receiver.post(8, 8, ["h"]) == 200  # 6 and 7 will never come: damaged or dropped
    assert receiver.rows() == list(zip((1, 2, 3, 4, 5, 8), "abcdeh"))


def test_receiver_says_what_it_has_when_it_has_it(receiver):
    assert receiver.post(1, 3, ["a", "b", "c"]) == 200
    assert receiver.headers["Postcache-Ack"] == "3"
    assert receiver.post(1, 3, ["a", "b", "c"]) == 200
    assert receiver.headers["Postcache-Ack"] == "3"
    assert receiver.post(4, 5, ["d"]) == 400
    assert "Postcache-Ack" not in receiver.headers


def test_receiver_takes_gzip_and_bounds_it(receiver):
    body = gzip.compress(b'{"lines": ["a", "b"]}')
    encoding = {"Content-Encoding": "gzip"}
    assert receiver.post(1, 2, body, **encoding) == 200
    assert receiver.rows() == [(1, "a"), (2, "b")]
    bomb = gzip.compress(b'{"lines": ["%s"]}' % (b"x" * (1 << 21)))
    for bad in (bomb, body[:-1], body + b"x", b"", b'{"lines": ["c"]}'):
        assert receiver.post(3, 3, bad, **encoding) == 400
    assert receiver.post(3, 3, ["c"], **{"Content-Encoding": "br"}) == 415
    assert len(receiver.rows()) == 2


def test_receiver_keeps_streams_apart(receiver):
    assert receiver.post(1, 1, ["a"], "s") == 200
    assert receiver.post(1, 1, ["b"], "t") == 200
    with contextlib.closing(sqlite3.connect(receiver.database)) as db:
        rows = db.execute("SELECT * FROM records ORDER BY rowid").fetchall()
    assert rows == [("s", 1, '"a"'), ("t", 1, '"b"')]


def test_receiver_locks_before_it_reads(tmp_path, monkeypatch):
    # Else a try that the sender gave up and its retry would both find the same highest number.
    receiver = load(RECEIVER)
    path = str(tmp_path / "received.db")
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript(receiver.SCHEMA)
    refused = []

    class Json:
        @staticmethod
        def dumps(value):
            other = sqlite3.connect(path, timeout=0)
            with contextlib.closing(other), pytest.raises(sqlite3.OperationalError):
                other.execute("BEGIN IMMEDIATE")
            refused.append(value)
            return json.dumps(value)

    monkeypatch.setattr(receiver, "json", Json)
    assert receiver.store(path, "s", 1, ["a"], {}) == 1
    assert refused == ["a", {}]
    assert receiver.store(path, "s", 1, ["a"], {}) == 0


@pytest.mark.parametrize(
    "batch",
    [
        (1, 3, ["a", "b"]),
        (1, 1, ["a", "b"]),
        (1, 0, []),
        (0, 0, ["a"]),
        (-1, -1, ["a"]),
        ("+1", "1", ["a"]),
        ("1" * 19, "1" * 19, ["a"]),
        ("x", "x", ["a"]),
        (1, None, ["a"]),
        (None, 1, ["a"]),
        (1, 1, {"a": 1}),
        (1, 1, "a"),
        (1, 1, b'["a"]'),
        (1, 1, b'{"lines":["a"]'),
        (1, 1, b"\xff"),
        (1, 1, b"[" * 100000),
        (1, 1, ["a"], ""),
        (1, 1, ["a"], "a b"),
        (1, 1, ["a"], "x" * 65),
        (1, 1, ["a"], None),
    ],
)
def test_receiver_refuses_what_is_malformed(receiver, batch):
    assert receiver.post(*batch) == 400
    with contextlib.closing(sqlite3.connect(receiver.database)) as db:
        assert db.execute("SELECT * FROM records").fetchall() == []
        assert db.execute("SELECT * FROM streams").fetchall() == []
    assert receiver.post(1, 1, ["a"], "s") == 200


def test_receiver_bounds_the_body(receiver):
    assert receiver.post(1, 1, b"", **{"Content-Length": str((1 << 20) + 1)}) == 413
    assert receiver.post(1, 1, b"", **{"Content-Length": "9" * 18}) == 413
    assert receiver.post(1, 1, b"", **{"Content-Length": "x"}) == 413
    data = b'{"lines":["%s"]}' % (b"x" * ((1 << 20) - 14))
    assert receiver.post(1, 1, data) == 200


def test_receiver_answers_503_when_it_cannot_store(receiver, folder):
    with contextlib.closing(sqlite3.connect(receiver.database)) as db:
        db.execute("DROP TABLE records")
        db.commit()
    with POSTCache(receiver.url, folder) as cache:
        cache.add_request("kept")
        assert cache.stats["status"] == 503
        assert len(cache) == 1
        with contextlib.closing(sqlite3.connect(receiver.database)) as db:
            db.executescript(load(RECEIVER).SCHEMA)
        assert cache.flush()
    assert receiver.rows() == [(1, "kept")]


# The receiver, but it dies like in a power cut at one point of its first batch.
KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv.pop(1))
import receiver
store = receiver.store
def die_before(*args):
    os.kill(os.getpid(), signal.SIGKILL)
def die_after(*args):
    store(*args)
    os.kill(os.getpid(), signal.SIGKILL)
receiver.store = globals()[sys.argv.pop(1)]
receiver.main()
"""


@pytest.mark.parametrize("point", ["die_before", "die_after"])
def test_receiver_killed_around_the_commit_has_no_duplicate(point, tmp_path, folder):
    receiver = Receiver(tmp_path)
    receiver.start("-c", KILLED, str(EXAMPLES), point)
    try:
        with POSTCache(receiver.url, folder, upload_limit=2) as cache:
            assert cache.add_request("a") == 1
            assert receiver.wait() == -signal.SIGKILL
            assert len(cache) == 1  # no answer: kept, whatever the server did
            committed = [(1, "a")] if point == "die_after" else []
            with contextlib.closing(sqlite3.connect(receiver.database)) as db:
                rows = db.execute("SELECT number, record FROM records").fetchall()
            assert [(n, json.loads(r)) for n, r in rows] == committed
            cache.add_request("b")
            cache.add_request("c")
            receiver.start()
            assert cache.flush()
        assert receiver.rows() == [(1, "a"), (2, "b"), (3, "c")]
    finally:
        receiver.stop()


def test_receiver_listens_on_loopback_unless_told(receiver):
    # The line that start() matched says so; nothing listens on the other loopback addresses.
    connection = http.client.HTTPConnection("127.0.0.2", receiver.port, timeout=30)
    with contextlib.closing(connection), pytest.raises(ConnectionRefusedError):
        connection.connect()
