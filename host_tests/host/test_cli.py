"""
The command line: it tells what the library knows, changes nothing, and never ends in a traceback.

Held against the library itself: what `export` gives is what POSTCache delivers from a copy.
"""

import binascii
import contextlib
import csv
import io
import json
import os
import pathlib
import pty
import re
import shutil
import subprocess
import sys
import threading

import pytest
import wasm_board
from fake_server import Answer, FakeServer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from logs import GOLDEN, LOGS
from logs import write as write_log

from conftest import HERE, LIB, find_runtime
from core.support import Clock, Http
from postcache import POSTCache
from postcache.host import cli, reader
from postcache.influx import Influx
from postcache.log.line import encode

READING = [  # the commands that only look
    ["status", "--json"],
    ["status", "--timestamp-key", "t"],
    ["tail"],
    ["tail", "--json"],
    ["rejected"],
    ["rejected", "--json"],
    ["export"],
    ["export", "--all"],
    ["export", "--format", "csv"],
]


def run(*args, python=sys.executable, check=None, **kwargs):
    """Run the command line in a process of its own; its output is text."""
    kwargs.setdefault("capture_output", True)
    done = subprocess.run(
        [python, "-W", "error", "-m", "postcache", *map(str, args)],
        env=dict(os.environ, PYTHONPATH=str(LIB), **kwargs.pop("env", {})),
        text=True,
        timeout=60,
        **kwargs,
    )
    if check is not None:
        assert done.returncode == check, (done.stdout, done.stderr)
        if not check:
            assert done.stderr == ""
    return done


def call(*args):
    """Run the command line in this process: (exit code, output, errors)."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main([str(arg) for arg in args])
    return code, out.getvalue(), err.getvalue()


def status(path, *args):
    code, out, err = call("status", path, "--json", *args)
    assert (code, err) == (0, "")
    return json.loads(out)


def exported(path, *args):
    """What `export` gives: [(number, delivered, record)]."""
    code, out, _ = call("export", path, *args)
    assert code == 0
    rows = [json.loads(line) for line in out.split("\n")[:-1]]
    return [(row["number"], row["delivered"], row["record"]) for row in rows]


def photograph(path):
    """All that is in a folder, with the times of the last change."""
    return {
        str(file): (file.stat().st_mtime_ns, file.is_file() and file.read_bytes())
        for file in [path, *path.rglob("*")]
    }


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "log"


# --- what there is ---


@pytest.mark.parametrize("name", LOGS)
def test_status_and_export_of_logs_of_older_versions(name):
    stream, acked, waiting, sending, following = LOGS[name]
    state = status(GOLDEN / name)
    assert state["stream"] == stream
    assert state["acked"] == acked
    assert state["waiting"] == len(waiting)
    assert state["dropped"] == (60 if name == "v1-dropped" else 0)
    assert state["in_flight"] == ([acked + 1, sending] if sending else None)
    assert state["damaged"] == (name == "v1-torn")
    assert state["journal"] == ("slot" if name == "v1-slots" else "append")
    assert state["stored"] == (7 if name == "v1-torn" else following - 1)
    assert state["oldest"] == ({"number": acked + 1, "time": None} if waiting else None)
    assert exported(GOLDEN / name) == [(seq, False, value) for seq, value in waiting]


@pytest.mark.parametrize("slot_size", [0, 128])
def test_status_says_what_stats_says(slot_size, folder):
    http = Http(422, 200, 422, default=200)
    cache = POSTCache(
        "http://s/", folder, http=http, upload_limit=1, slot_size=slot_size, max_bytes=4096
    )
    for n in range(200):
        if n == 20:
            http.default = ConnectionRefusedError(111)
        cache.add_request({"n": n, "pad": "x" * 60})
        stats = cache.stats
        state = status(folder)
        same = ("stream", "waiting", "dropped", "rejected", "bytes")
        assert [state[key] for key in same] == [stats[key] for key in same]
        assert state["journal"] == stats["journal"]
        assert state["damaged"] == 0
        assert state["set_aside"] == len(cache.rejected())
    assert stats["dropped"] > 0 and stats["rejected"] == 2
    assert state["stored"] == 200
    cache.close()


@pytest.mark.parametrize(("max_bytes", "slot_size"), [(1 << 20, 0), (8192, 0), (1 << 20, 128)])
def test_what_each_runtime_wrote_is_exported(runtime, max_bytes, slot_size, folder):
    write_log(folder, 60, 20, max_bytes, runtime.name, slot_size)
    found = exported(folder, "--all")
    assert [seq for seq, done, _ in found if not done] == list(range(21, 61))
    for number, delivered, record in found:
        assert delivered == (number <= 20)
        assert record == {"n": number - 1, "text": "x" * ((number - 1) % 50)}
    assert exported(folder) == [entry for entry in found if not entry[1]]
    assert status(folder)["waiting"] == 40
    code, out, _ = call("tail", folder, "-n", "7", "--json")
    assert code == 0
    assert [json.loads(line)["number"] for line in out.splitlines()] == list(range(54, 61))


@pytest.mark.parametrize("n", [0, 1, 3, 20, 21, 22, 23, 99, 1000])
def test_tail_gives_the_last_n(n, folder):
    cache = POSTCache(None, folder, max_bytes=4096)
    for i in range(300):
        cache.add_request(i)
    there = status(folder)["waiting"]
    assert 100 < there < 300 and status(folder)["segments"] > 3
    _, out, _ = call("tail", folder, "--json", "-n", n)
    rows = [json.loads(line) for line in out.splitlines()]
    first = 301 - min(n, there)
    assert [row["number"] for row in rows] == list(range(first, 301))
    assert [row["record"] for row in rows] == list(range(first - 1, 300))
    cache.close()


@pytest.mark.parametrize("slot_size", [0, 128])
def test_reading_changes_nothing_and_needs_no_right_to_write(slot_size, folder):
    # Also while the log is open: no lock is taken, so the writer is not in the way.
    with POSTCache(None, folder, slot_size=slot_size) as cache:
        cache.add_many(list(range(50)))
        before = photograph(folder)
        for command in READING:
            code, out, err = call(command[0], folder, *command[1:])
            assert (code, err) == (0, "")
            assert out or command[0] == "rejected"
        assert photograph(folder) == before
        cache.add_request("still open")


def test_the_time_of_the_oldest_and_the_newest(folder):
    clock = Clock()
    clock.date = 1763697600
    http = Http()
    cache = POSTCache("http://s/", folder, 3600, clock=clock, http=http, timestamp_key="ts")
    cache.add_request({"t": 1})
    cache.flush()
    clock.now += 5000
    clock.date += 5
    cache.add_request({"t": 2})
    clock.date += 5
    cache.add_request({"t": 3})
    state = status(folder, "--timestamp-key", "ts")
    assert state["oldest"] == {"number": 2, "time": 1763697605}
    assert state["newest"] == {"number": 3, "time": 1763697610}
    assert status(folder)["oldest"] == {"number": 2, "time": None}
    assert (
        "number 2, 2025-11-21 04:00:05 UTC" in call("status", folder, "--timestamp-key", "ts")[1]
    )
    cache.close(0)


def test_points_for_influxdb_are_read_as_any_log(folder):
    clock = Clock()
    with Influx(None, folder, clock=clock) as influx:
        clock.now = 4711
        influx.write("m", {"f": 1})
        clock.now = 10000
        clock.date = 1763697610
        influx.write("m", {"f": 2.0}, {"t": "x"})
        assert exported(folder) == [
            (1, False, {"epoch_ms": 1763697604711, "line": "m f=1i"}),
            (2, False, {"epoch_ms": 1763697610000, "line": "m,t=x f=2.0"}),
        ]
        shown = call("status", folder, "--timestamp-key", "epoch_ms")[1]
        assert "number 1, 2025-11-21 04:00:04 UTC" in shown
        assert "number 2, 2025-11-21 04:00:10 UTC" in shown


def test_a_record_from_before_the_clock_was_set_is_shown_as_it_would_be_sent(folder):
    clock = Clock()
    with POSTCache(None, folder, clock=clock, timestamp_key="ts") as cache:
        clock.now = 4711
        cache.add_request({"t": 1})
        assert exported(folder)[0][2] == {"ts": None, "uptime_ms": 4711, "boot": 1, "t": 1}
        clock.now = 10000
        clock.date = 1763697610
        cache.add_request({"t": 2})
        before = photograph(folder)
        assert exported(folder) == [
            (1, False, {"ts": 1763697604, "t": 1}),
            (2, False, {"ts": 1763697610, "t": 2}),
        ]
        assert photograph(folder) == before


# --- what a log in use looks like ---

WRITER = """
import sys
from postcache import POSTCache
class Http:
    def post(self, url, headers, chunks, timeout):
        for chunk in chunks:
            pass
        return 200, {}
cache = POSTCache("http://s/", sys.argv[1], 3600, http=Http(), slot_size=int(sys.argv[2]),
                  max_bytes=1 << 20, upload_limit=7)
n = 0
print("ready", flush=True)
while True:
    n += 1
    assert cache.add_request({"n": n, "pad": "x" * (n % 60)}) == n
    if n % 200 == 0:
        cache.flush()
"""


@pytest.mark.parametrize("slot_size", [0, 128])
def test_a_log_that_is_written_to_has_no_holes_for_its_reader(slot_size, tmp_path, folder):
    (tmp_path / "writer.py").write_text(WRITER)
    with find_runtime("cpython").start(tmp_path / "writer.py", folder, slot_size) as writer:
        try:
            assert writer.stdout.readline() == "ready\n"
            last = seen = 0
            while last < 1500:
                records = exported(folder)
                numbers = [number for number, _, _ in records]
                state = status(folder)
                if numbers:
                    # What is missing was delivered while it was read.
                    missing = set(range(numbers[0], numbers[-1])) - set(numbers)
                    assert max(missing, default=0) <= state["acked"]
                    assert numbers == sorted(numbers)
                    assert numbers[-1] >= last
                    last = numbers[-1]
                for number, _, record in records:
                    assert record == {"n": number, "pad": "x" * (number % 60)}
                assert state["damaged"] == 0
                assert state["stored"] >= last
                seen += len(records)
                assert writer.poll() is None
            assert seen
        finally:
            writer.kill()


@pytest.mark.parametrize("slot_size", [0, 128])
def test_follow_misses_nothing_and_repeats_nothing(slot_size, folder):
    cache = POSTCache(None, folder, slot_size=slot_size, max_bytes=1 << 20)
    cache.add_many([{"n": n} for n in range(1, 6)])
    process = subprocess.Popen(
        [sys.executable, "-m", "postcache", "tail", "-f", "-n", "2", "--json", str(folder)],
        env=dict(os.environ, PYTHONPATH=str(LIB)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = threading.Timer(60, process.kill)  # readline() has none
    deadline.start()
    with process:
        try:
            rows = [json.loads(process.stdout.readline()) for _ in range(2)]
            adder = threading.Thread(
                target=lambda: [cache.add_request({"n": n}) for n in range(6, 301)]
            )
            adder.start()
            rows += [json.loads(process.stdout.readline()) for _ in range(295)]
            adder.join()
            process.send_signal(2)
            assert process.stdout.read() == ""
            assert process.stderr.read() == ""
            assert process.wait(60) == 130
        finally:
            deadline.cancel()
            process.kill()
    assert [row["number"] for row in rows] == list(range(4, 301))
    assert [row["record"]["n"] for row in rows] == list(range(4, 301))
    cache.close()


def test_half_a_line_at_the_end_is_damage_only_when_it_stays(folder):
    with POSTCache(None, folder) as cache:
        cache.add_many([1, 2])
    segment = folder / "0000000001.log"
    whole = segment.read_bytes()
    records = reader.Records(reader.Files(folder))
    segment.write_bytes(whole[:-4])
    assert [number for number, _ in records.more()] == [1]
    assert records.damaged == 0
    segment.write_bytes(whole)
    assert [number for number, _ in records.more()] == [2]
    assert records.damaged == 0
    segment.write_bytes(whole + b"torn")
    assert list(records.more()) == []
    assert records.damaged == 0
    assert list(records.more()) == []
    assert records.damaged == 1
    assert list(records.more()) == []
    assert records.damaged == 1
    assert status(folder)["damaged"] == 1


def test_zeros_behind_the_last_line_are_its_end(folder):
    with POSTCache(None, folder) as cache:
        for n in range(1, 10):
            cache.add_request(n)
            state = status(folder)
            assert state["waiting"] == n
            assert state["damaged"] == 0
            assert state["bytes"] == cache.stats["bytes"]
            assert exported(folder)[-1][2] == n
        assert (folder / "0000000001.log").read_bytes()[-1:] == b"\0"


@pytest.mark.parametrize("kept", [slice(0, 9), slice(5, None), slice(0, 0)])
def test_a_line_that_is_being_written_over_zeros_is_looked_at_again(kept, folder):
    """Another process may see any part of a write: the first one, or the last one, or none."""
    with POSTCache(None, folder) as cache:
        cache.add_many([1, 2, 3])
    segment = folder / "0000000001.log"
    whole = segment.read_bytes()
    at = whole.rindex(b"\n", 0, -1) + 1
    part = bytearray(len(whole) - at)
    part[kept] = whole[at:][kept]
    records = reader.Records(reader.Files(folder))
    segment.write_bytes(whole[:at] + part + bytes(100))
    assert [number for number, _ in records.more()] == [1, 2]
    assert records.damaged == 0
    segment.write_bytes(whole + bytes(100))
    assert [number for number, _ in records.more()] == [3]
    assert records.damaged == 0
    # It stays as it is: damage, but for zeros alone.
    segment.write_bytes(whole + part + bytes(100))
    for damaged in (0, 1, 1) if part.strip(b"\0") else (0, 0, 0):
        assert list(records.more()) == []
        assert records.damaged == damaged
    segment.write_bytes(whole + part + encode(4, b"4") + bytes(100))
    assert [number for number, _ in records.more()] == ([4] if part[-1:] == b"\n" else [])


def test_slots_that_are_being_written_out_are_read_in_the_segment(folder, monkeypatch):
    with POSTCache(None, folder, slot_size=128) as cache:
        for n in range(1, 6):
            cache.add_request(n)
    # Two of them are in the segment already; the others, and a new record, follow right then.
    segment = folder / "0000000001.log"
    segment.write_bytes(encode(1, b"1") + encode(2, b"2"))
    original = reader.Records._look

    def look(self):
        monkeypatch.undo()
        segment.write_bytes(b"".join(encode(n, b"%d" % n) for n in range(1, 6)))
        (folder / "+0/0").write_bytes(encode(6, b"6"))
        (folder / "+1/1").write_bytes(encode(7, b"7"))
        (folder / "+3/3").write_bytes(encode(8, b"8"))
        return original(self)

    monkeypatch.setattr(reader.Records, "_look", look)
    assert [record for _, _, record in exported(folder)] == list(range(1, 9))


def test_what_is_met_half_written_is_looked_at_again(folder, monkeypatch):
    shutil.copytree(GOLDEN / "v1-segments", folder)
    expected = status(folder)
    whole = {name: (folder / name).read_bytes() for name in ("cursor-a", "0000000046.log")}
    for name, data in whole.items():
        (folder / name).write_bytes(data[:20] if name == "cursor-a" else data[:-5])
    assert status(folder)["damaged"] == 2
    pauses = []

    def finish(seconds):
        pauses.append(seconds)
        for name, data in whole.items():
            (folder / name).write_bytes(data)

    monkeypatch.setattr(reader.time, "sleep", finish)
    for name, data in whole.items():
        (folder / name).write_bytes(data[:20] if name == "cursor-a" else data[:-5])
        assert status(folder) == expected
        assert exported(folder) == exported(GOLDEN / "v1-segments")
    assert len(pauses) == 2


# --- damage ---


@pytest.fixture
def no_pause(monkeypatch):
    """Nobody writes to these logs, so nothing that is met half written changes."""
    monkeypatch.setattr(reader, "_PAUSE", 0)


def _files(path):
    return sorted(file for file in path.rglob("*") if file.is_file() and file.name != "lock")


@st.composite
def damaged_logs(draw):
    """A golden log and what befalls it: [(file, offset, bytes that are put there, cut?)]."""
    name = draw(st.sampled_from(sorted(LOGS)))
    files = [str(file.relative_to(GOLDEN / name)) for file in _files(GOLDEN / name)]
    names = [*files, "cursor-a", "cursor-b", "clock-a", "rejected.log", "+0/4", "0000000003.log"]
    number = st.integers(0, 1 << 66)
    value = st.recursive(
        st.none() | st.booleans() | number | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=6)
            | st.dictionaries(
                st.sampled_from(["total", "requeued", "status", "reason", "record", "ts"]), inner
            )
        ),
        max_leaves=8,
    )
    # Good checksums, too: a reader must not trust them.
    text = st.one_of(
        st.binary(max_size=40),
        value.map(lambda v: json.dumps(v).encode()),
        st.lists(value, min_size=3, max_size=4).map(lambda v: json.dumps([1, *v]).encode()),
        st.tuples(number, number, number).map(
            lambda n: b'{"total":%d,"requeued":%d,"status":%d,"reason":"r","record":1}' % n
        ),
        st.just(b' {"ts":null,"uptime_ms":1,"boot":1,"t":1}'),
        st.just(b"[" * 5000),
    )

    def line(number, text):
        text = b"%d %s" % (number, text.replace(b"\n", b""))
        return b"%08x %s\n" % (binascii.crc32(text), text)

    piece = st.binary(max_size=30) | st.builds(line, number, text)
    change = st.tuples(st.sampled_from(names), st.integers(0, 400), piece, st.booleans())
    return name, draw(st.lists(change, min_size=1, max_size=5))


def _damage(path, changes):
    for name, offset, piece, cut in changes:
        file = path / name
        if file.parent.is_dir():
            data = file.read_bytes() if file.exists() else b""
            offset = min(offset, len(data))
            file.write_bytes(data[:offset] + piece + (b"" if cut else data[offset + len(piece) :]))


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(damaged=damaged_logs())
def test_no_bytes_bring_it_down(damaged, tmp_path, no_pause):
    path = tmp_path / "damaged"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(GOLDEN / damaged[0], path)
    _damage(path, damaged[1])
    before = photograph(path)
    for command in READING:
        code, out, err = call(command[0], path, *command[1:])
        assert code in (0, 2)
        if "--json" in command:
            for line in out.split("\n")[:-1]:
                json.loads(line)
        assert (code == 2) == (out == "" and "passed over" not in err and err != "")
        assert all(line.startswith("postcache: ") for line in err.splitlines())
    assert photograph(path) == before


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    name=st.sampled_from(sorted(LOGS)),
    hits=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 1 << 16), st.integers(1, 255))),
    lost=st.booleans(),
)
def test_of_a_damaged_log_it_exports_what_the_library_delivers(
    name, hits, lost, tmp_path, no_pause
):
    path = tmp_path / "damaged"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(GOLDEN / name, path)
    if lost:
        (path / "cursor-b").unlink()
    for which, offset, flip in hits:
        file = _files(path)[which % len(_files(path))]
        data = bytearray(file.read_bytes())
        if data:
            data[offset % len(data)] ^= flip
            file.write_bytes(data)
    agrees_with_the_library(path)


def agrees_with_the_library(path):
    copy = path.with_name("copy")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(path, copy)
    http = Http()
    with POSTCache("http://s/", copy, http=http) as cache:
        assert cache.flush()
    expected = []
    for headers, body in http.taken:
        expected += enumerate(json.loads(body)["lines"], int(headers["Postcache-First"]))
    assert [(number, record) for number, _, record in exported(path)] == expected
    return [number for number, _ in expected]


def test_only_numbers_whose_turn_it_is_count(tmp_path):
    path = shutil.copytree(GOLDEN / "v1-small", tmp_path / "stale")
    # Good checksums, of another time: below their file's name, or below a line before them, or
    # claimed by the next file.
    for name, numbers in (("0000000010.log", [7, 12, 11, 13, 20]), ("0000000020.log", [20, 21])):
        (path / name).write_bytes(b"".join(encode(n, b"%d" % n) for n in numbers))
    assert agrees_with_the_library(path) == [1, 2, 3, 4, 5, 6, 12, 13, 20, 21]
    assert status(path)["damaged"] == 0
    path = shutil.copytree(GOLDEN / "v1-slots", tmp_path / "slots")
    assert agrees_with_the_library(path) == list(range(4, 12))
    (path / "0000000009.log").write_bytes(b"")
    assert agrees_with_the_library(path) == [4, 5, 9, 10, 11]
    (path / "0000000099.log").write_bytes(b"")
    assert agrees_with_the_library(path) == [4, 5]
    (path / "+0/4").write_bytes(encode(100, b"1") + encode(7, b"2") + encode(101, b"3"))
    assert agrees_with_the_library(path) == [4, 5, 100, 101]


def test_a_torn_slot_is_damage_as_it_is_to_the_library(tmp_path):
    path = shutil.copytree(GOLDEN / "v1-slots", tmp_path / "slots")
    whole = (path / "+1/1").read_bytes()
    for data in (whole[:20], whole[:20] + b"\n" * 108, whole.rstrip(b"\n"), bytes(128)):
        (path / "+1/1").write_bytes(data)
        assert len(agrees_with_the_library(path)) < 8
        copy = shutil.copytree(path, tmp_path / "opened")
        with POSTCache(None, copy) as cache:
            assert status(path)["damaged"] == cache.stats["damaged"] == 1
        shutil.rmtree(copy)


def test_garbage_without_a_newline_is_not_taken_into_memory(folder):
    with POSTCache(None, folder) as cache:
        cache.add_request(1)
    with open(folder / "0000000001.log", "ab") as f:
        f.truncate(1 << 29)  # zeros, which take no room on the disk
        f.seek(0, 2)
        f.write(b"\n")
    # Limited address space: a program that takes it into memory dies.
    done = subprocess.run(
        ["bash", "-c", 'ulimit -v 600000; exec "$0" "$@"', sys.executable, "-m", "postcache"]
        + ["status", "--json", str(folder)],
        env=dict(os.environ, PYTHONPATH=str(LIB)),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    state = json.loads(done.stdout)
    assert (state["waiting"], state["damaged"]) == (1, 1)


def test_damage_is_told_with_the_records_that_are_whole(folder):
    with POSTCache(None, folder) as cache:
        cache.add_many([1, 2, 3])
    segment = folder / "0000000001.log"
    segment.write_bytes(segment.read_bytes().replace(b" 2 2\n", b" 2 9\n"))
    done = run("export", folder)
    assert done.returncode == 0
    assert [json.loads(line)["number"] for line in done.stdout.splitlines()] == [1, 3]
    assert done.stderr == (
        "postcache: passed over 1 place that held no record where one was due.\n"
    )
    done = run("status", folder, "--check")
    assert done.returncode == 3
    assert "damaged    1" in done.stdout
    assert "! 1 place that held no record" in done.stdout
    assert status(folder)["damaged"] == 1


# --- sentences ---


def make_newer(folder):
    (folder / "cursor-a").write_bytes(encode(9, b'[2, "0a1b2c3d4e5f6071", 0, 0, 0]'))


def make_file(folder):
    shutil.rmtree(folder)
    folder.write_text("x")


def make_sqlite(folder):
    shutil.rmtree(folder)
    folder.write_bytes(b"SQLite format 3\0" + bytes(100))


def make_stranger(folder):
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "notes.txt").write_text("x")


SENTENCES = {
    "no such folder": (shutil.rmtree, "LOG: there is no such folder."),
    "a file": (make_file, "LOG is a file; name the log's folder."),
    "an old cache": (
        make_sqlite,
        (
            "LOG is an SQLite file; if it is of the old package, `postcache import-sqlite` takes "
            "it over."
        ),
    ),
    "a stranger's folder": (
        make_stranger,
        "LOG is no postcache log: there is no cursor, segment or slot in it.",
    ),
    "of a newer version": (
        make_newer,
        (
            "LOG was written by a newer postcache (format 2; this one knows 1): update postcache "
            "here."
        ),
    ),
}


@pytest.mark.parametrize("what", SENTENCES)
@pytest.mark.parametrize("command", ["status", "tail", "export", "rejected", "requeue"])
def test_each_command_says_in_a_sentence_why_not(what, command, folder):
    shutil.copytree(GOLDEN / "v1-small", folder)
    make, sentence = SENTENCES[what]
    make(folder)
    before = photograph(folder) if folder.exists() else None
    code, out, err = call(command, folder)
    assert (code, out) == (2, "")
    assert err == "postcache: %s\n" % sentence.replace("LOG", str(folder))
    assert (photograph(folder) if folder.exists() else None) == before


def test_a_file_that_cannot_be_read_is_named(folder, monkeypatch):
    shutil.copytree(GOLDEN / "v1-small", folder)
    original = reader.Files.open

    def refuse(self, name, mode="rb"):
        if name == "0000000001.log":
            raise OSError(5, "Input/output error", name)
        return original(self, name, mode)

    monkeypatch.setattr(reader.Files, "open", refuse)
    for command in ("status", "tail", "export"):
        code, _, err = call(command, folder)
        assert code == 2
        assert err == "postcache: %s/0000000001.log cannot be read: Input/output error.\n" % folder


def test_a_pipe_in_the_place_of_a_file_does_not_stop_it(folder):
    shutil.copytree(GOLDEN / "v1-small", folder)
    (folder / "cursor-a").unlink(missing_ok=True)
    os.mkfifo(folder / "cursor-a")
    os.mkfifo(folder / "0000000007.log")
    assert status(folder)["waiting"] == 6
    assert status(folder)["damaged"] == 2


@pytest.mark.parametrize(
    "args",
    [[], ["no-such"], ["status"], ["tail"], ["tail", "x", "-n", "-1"], ["export", "x", "y"]],
)
def test_a_wrong_command_line_is_told_as_such(args):
    done = run(*args)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr and done.stderr


def test_its_help_names_every_command():
    done = run("--help", check=0)
    for name in ("status", "tail", "export", "rejected", "requeue", "import-sqlite"):
        assert name in done.stdout
        assert run(name, "--help", check=0).stdout
    assert run("--version", check=0).stdout.startswith("postcache 1.")


def test_without_rich_and_on_the_oldest_python(folder):
    python = find_runtime("python3.9").command[0]
    http = Http(422)
    with POSTCache("http://s/", folder, http=http, upload_limit=1) as cache:
        cache.add_request("refused")
    with POSTCache(None, folder) as cache:
        cache.add_many([1, 2])
    sentence = (
        "postcache: Tables need the package rich: pip install 'postcache[cli]'. --json needs "
        "nothing.\n"
    )
    for command in ("status", "tail", "rejected"):
        done = run(command, folder, python=python)
        assert (done.returncode, done.stdout, done.stderr) == (2, "", sentence)
        done = run(command, folder, "--json", python=python, check=0)
        assert done.stdout
    assert len(run("export", folder, python=python, check=0).stdout.splitlines()) == 2
    done = run("export", folder, "--format", "csv", python=python, check=0)
    assert done.stdout == "number,delivered,record\n2,false,1\n3,false,2\n"
    done = run("requeue", folder, "--json", python=python, check=0)
    assert json.loads(done.stdout) == {"requeued": 1}
    done = run("status", "--json", "--port", "socket://127.0.0.1:9", python=python)
    assert done.returncode == 2
    assert done.stderr == (
        "postcache: Boards need the package mpremote: pip install 'postcache[board]'.\n"
    )


def test_what_is_no_posix_system_is_a_sentence(folder):
    shutil.copytree(GOLDEN / "v1-small", folder)
    code = (
        "import sys; sys.modules['fcntl'] = None; from postcache.host.cli import main; "
        "sys.exit(main(['status', sys.argv[1]]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        env=dict(os.environ, PYTHONPATH=str(LIB)),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr == (
        "postcache: this needs a POSIX system: Linux, macOS, or WSL on Windows.\n"
    )


def test_json_is_utf_8_whatever_the_terminal_speaks(folder):
    with POSTCache(None, folder) as cache:
        cache.add_request("é", ensure_ascii=False)
    for command in (["export"], ["tail", "--json"]):
        done = run(command[0], folder, *command[1:], check=0, env={"PYTHONIOENCODING": "latin-1"})
        assert json.loads(done.stdout)["record"] == "é"


# --- where it goes ---


def test_colours_go_to_a_terminal_only(folder):
    shutil.copytree(GOLDEN / "v1-torn", folder)
    for command in (["status", folder], ["tail", folder]):
        assert "\x1b" not in run(*command, check=0).stdout
        ours, theirs = pty.openpty()
        done = run(*command, stdout=theirs, capture_output=False, env={"TERM": "xterm-256color"})
        os.close(theirs)
        assert done.returncode == 0
        assert b"\x1b[" in os.read(ours, 1 << 16)
        os.close(ours)


def test_nothing_in_a_record_can_move_a_terminals_cursor(folder):
    with POSTCache(None, folder) as cache:
        cache.add_request("a\x1b[2J\x9b2J\u2028\u202eé[red]b", ensure_ascii=False)
        cache.add_request("\ud800")
    done = run("tail", folder, check=0)
    assert done.stdout == (
        '       1  waiting    "a\\u001b[2J\\u009b2J\\u2028\\u202eé[red]b"\n'
        '       2  waiting    "\\ud800"\n'
    )
    assert json.loads(run("tail", folder, "-n1", "--json", check=0).stdout)["record"] == "\ud800"
    done = run("export", folder, "--format", "csv", check=0)
    assert done.stdout.endswith("2,false,\\ud800\n")


def test_a_closed_pipe_is_no_error(folder):
    with POSTCache(None, folder) as cache:
        cache.add_many([{"n": n, "pad": "x" * 400} for n in range(500)])
    for command in ("export", "tail -n 500 --json", "tail -n 500"):
        words = [sys.executable, "-m", "postcache", *command.split(), str(folder)]
        with subprocess.Popen(
            words,
            env=dict(os.environ, PYTHONPATH=str(LIB)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            process.stdout.readline()
            process.stdout.close()
            assert process.stderr.read() == b""
            assert process.wait(60) == 0


@pytest.mark.parametrize("closed", [1, 2])
def test_a_stream_that_is_closed_from_the_start_is_no_error(closed, folder):
    POSTCache(None, folder).close()
    if closed == 2:
        folder = folder / "nowhere"
    done = run("tail", "--json", folder, preexec_fn=lambda: os.close(closed))
    assert (done.returncode, done.stdout, done.stderr) == (0 if closed == 1 else 2, "", "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a Linux device")
def test_a_full_disk_is_a_sentence(folder):
    with POSTCache(None, folder) as cache:
        cache.add_many(list(range(10)))
    for target in ({"stdout": open("/dev/full", "w")}, {}):
        with contextlib.ExitStack() as stack:
            args = []
            if target:
                stack.enter_context(target["stdout"])
                target.update(capture_output=False, stderr=subprocess.PIPE)
            else:
                args = ["-o", "/dev/full"]
            done = run("export", folder, *args, **target)
        assert done.returncode == 2
        assert done.stderr == "postcache: No space left on device.\n"


def test_export_to_a_file_is_all_or_nothing(tmp_path, folder, monkeypatch):
    with POSTCache(None, folder) as cache:
        cache.add_many([1, 2, 3])
    target = tmp_path / "out.jsonl"
    assert call("export", folder, "-o", target) == (0, "", "")
    rows = [json.loads(line) for line in target.read_text().splitlines()]
    assert [row["record"] for row in rows] == [1, 2, 3]
    target.write_text("old")

    def fail(self):
        yield 1, b"1"
        raise reader.Problem("the disk is away.")

    monkeypatch.setattr(reader.Records, "all", fail)
    assert call("export", folder, "-o", target)[0] == 2
    assert target.read_text() == "old"
    assert {file.name for file in tmp_path.iterdir()} == {"out.jsonl", "log"}


@pytest.mark.parametrize("name", ["0000000001.log", "new.jsonl", "cursor-a"])
def test_export_never_writes_into_the_log(name, folder):
    with POSTCache(None, folder) as cache:
        cache.add_many([1, 2, 3])
    before = photograph(folder)
    code, _, err = call("export", folder, "-o", folder / name)
    assert code == 2
    assert err == (
        "postcache: %s would lie in the log's own folder; write it elsewhere.\n" % (folder / name)
    )
    assert photograph(folder) == before


def test_csv_has_a_column_for_each_field(folder):
    with POSTCache(None, folder) as cache:
        cache.add_request({"t": 21.5, "number": "mine"})
        cache.add_request({"text": 'a,"b"\nc', "on": True, "no": None, "deep": {"a": [1]}})
        cache.add_request(7)
    _, out, _ = call("export", folder, "--format", "csv")
    rows = list(csv.reader(io.StringIO(out)))
    names = ["number", "delivered", "t", "record.number", "text", "on", "no", "deep", "record"]
    assert rows == [
        names,
        ["1", "false", "21.5", "mine", "", "", "", "", ""],
        ["2", "false", "", "", 'a,"b"\nc', "true", "", '{"a": [1]}', ""],
        ["3", "false", "", "", "", "", "", "", "7"],
    ]


# --- what was refused ---


def refuse_two(folder):
    http = Http(422, 200, (400, {}, b"no t"), default=200)
    with POSTCache("http://s/", folder, http=http, upload_limit=1) as cache:
        for n in range(3):
            cache.add_request({"n": n})


def test_what_was_refused_is_shown_and_put_back(folder):
    refuse_two(folder)
    state = status(folder)
    assert (state["waiting"], state["rejected"], state["set_aside"]) == (0, 2, 2)
    code, out, _ = call("status", folder, "--check")
    assert code == 3 and "requeue" in out
    code, out, _ = call("rejected", folder, "--json")
    assert [json.loads(line) for line in out.splitlines()] == [
        {"number": 1, "status": 422, "reason": "", "record": {"n": 0}},
        {"number": 3, "status": 400, "reason": "no t", "record": {"n": 2}},
    ]
    _, out, _ = call("rejected", folder)
    assert re.findall(r"\S+", out.splitlines()[1])[:3] == ["3", "HTTP", "400"]
    assert run("requeue", folder, check=0).stdout == "2 records put back into the queue.\n"
    assert [record for _, _, record in exported(folder)] == [{"n": 0}, {"n": 2}]
    state = status(folder)
    assert (state["waiting"], state["rejected"], state["set_aside"]) == (2, 2, 0)
    assert call("status", folder, "--check")[0] == 0
    assert run("requeue", folder, check=0).stdout == "0 records put back into the queue.\n"


def test_requeue_needs_the_log_for_itself(folder):
    refuse_two(folder)
    with POSTCache(None, folder):
        before = photograph(folder)
        done = run("requeue", folder)
        assert done.returncode == 2
        assert done.stderr == (
            "postcache: %s is in use: stop the program that logs, run this again, and start it "
            "again.\n" % folder
        )
        assert photograph(folder) == before
    assert status(folder)["set_aside"] == 2


def test_nothing_that_a_board_loads_knows_of_it():
    for file in pathlib.Path(LIB, "postcache").rglob("*.py"):
        if "host" not in file.parts and file.name != "__main__.py":
            assert not re.search(r"^\s*(from|import) .*\bhost\b", file.read_text(), re.M), file


# --- a board ---

LOGGER = """
import time
from postcache import POSTCache
cache = POSTCache(None, "/cache", slot_size=128)
while True:
    print("stored", cache.add_request({"t": 21.5, "pad": "x" * 40}))
    time.sleep(0.05)
"""
PORT_GONE = (
    "postcache: %s cannot be opened: there is no such port, it is in use, or you may not use it.\n"
)
INTERRUPTED = "postcache: the board's program was interrupted; it has been started again.\n"


@pytest.fixture
def board():
    pytest.importorskip("mpremote")
    wasm_board.need()
    with wasm_board.Board() as board:
        yield board


def boot(board, main, says):
    """Power up with this main.py, and wait until it says so."""
    board.unplug()
    board.write("/main.py", main)
    board.plug()
    assert board.wait_for(says)


def give(board, folder, path="/cache"):
    for file in folder.rglob("*"):
        if file.is_file():
            board.write("%s/%s" % (path, file.relative_to(folder)), file.read_bytes())


def over_port(board, *args):
    return call("status", "--port", board.port, *args)


@pytest.mark.parametrize("name", ["v1-slots", "v1-torn"])
def test_status_of_a_board_is_that_of_its_log(name, board):
    give(board, GOLDEN / name)
    give(board, GOLDEN / "v1-small", "/data/other log")
    before = board.files()
    for path, folder in ((None, name), ("/data/other log", "v1-small")):
        code, out, err = over_port(board, "--json", *([path] if path else []))
        assert (code, err) == (0, "")  # nothing ran, so nothing is said to be interrupted
        state = json.loads(out)
        assert state.pop("path") == "%s on %s" % (path or "/cache", board.port)
        expected = status(GOLDEN / folder)
        if folder != "v1-slots":
            expected["bytes"] = state["bytes"]
        del expected["path"]
        assert state == expected
    assert board.files() == before
    assert over_port(board, "/nope") == (
        2,
        "",
        "postcache: /nope: there is no such folder on the board.\n",
    )
    board.write("/empty/x.txt", b"x")
    code, _, err = over_port(board, "/empty")
    assert code == 2
    assert "is no postcache log" in err and board.port in err


def test_the_program_of_a_board_is_interrupted_and_goes_on(board):
    for target, source in json.loads((HERE.parent / "package.json").read_text())["urls"]:
        board.write("/lib/" + target, (HERE.parent / source).read_bytes())
    boot(board, LOGGER, "stored 20")
    code, out, err = over_port(board, "--json")
    assert (code, err) == (0, INTERRUPTED)
    state = json.loads(out)
    assert state["journal"] == "slot"
    assert state["damaged"] == 0
    assert state["waiting"] == state["stored"] >= 20
    number = state["stored"] + 5
    board.wait_for("stored %d" % number)
    state = json.loads(over_port(board, "--json")[1])
    assert state["waiting"] == state["stored"] >= number


def test_the_watchdog_of_a_board_is_fed_while_it_is_read(board):
    give(board, GOLDEN / "v1-dropped")
    boot(
        board,
        """
import time
class Watchdog:
    def feed(self):
        with open("/fed", "a") as f:
            f.write(".")
wdt = Watchdog()
print("ready")
while True:
    time.sleep(0.05)
""",
        "ready",
    )
    assert over_port(board)[0] == 0
    assert len(board.files()["/fed"]) > 10 + 7  # for each file in the list, and for each read


@pytest.mark.parametrize("printed", ["QUJD", "\x1e'QUJD'", "\x1enonsense"])
def test_what_a_board_prints_amid_a_file_is_not_taken_for_the_log(printed, board):
    give(board, GOLDEN / "v1-dropped")
    boot(
        board,
        """
import time
class Watchdog:
    n = 0
    def feed(self):
        self.n += 1
        if self.n == 26:  # behind the list of names
            print(%r)
wdt = Watchdog()
print("ready")
while True:
    time.sleep(0.05)
"""
        % printed,
        "ready",
    )
    code, out, err = over_port(board, "--json")
    if printed == "QUJD":  # what is told has a mark in front of it
        assert (code, err) == (0, INTERRUPTED)
        state = json.loads(out)
        here = status(GOLDEN / "v1-dropped")
        assert state == {**here, "path": state["path"], "bytes": state["bytes"]}
    else:
        assert (code, out) == (2, "")
        assert "the board does not answer as MicroPython does" in err
        assert INTERRUPTED in err  # and it was started again all the same
    assert board.output.count("QUJD") == (printed != "\x1enonsense")


def test_a_port_that_cannot_be_used_is_a_sentence(board):
    give(board, GOLDEN / "v1-small")
    import serial

    with serial.serial_for_url(board.port):
        code, out, err = over_port(board)
        assert (code, out) == (2, "")
        assert err == PORT_GONE % board.port or "does not answer" in err
    board.wait_until_closed()
    assert over_port(board)[0] == 0
    board.unplug()
    assert over_port(board) == (2, "", PORT_GONE % board.port)
    assert call("status", "--port", "/dev/no-such-port")[2] == PORT_GONE % "/dev/no-such-port"


@pytest.mark.parametrize("n", [1, 40, 300, 1000, 1800])
def test_a_board_that_is_unplugged_midway_is_a_sentence(n, board):
    give(board, GOLDEN / "v1-slots")
    board.cut_after(n)
    code, out, err = over_port(board)
    assert (code, out) == (2, "")
    assert "the board does not answer" in err and err.count("\n") == 1
    board.plug()
    assert over_port(board)[0] == 0


def test_what_is_no_board_is_a_sentence():
    pytest.importorskip("mpremote")
    with FakeServer() as server:
        server.default = Answer.close_before()  # it hangs up, as what is no board may
        code, out, err = call("status", "--port", "socket://127.0.0.1:%d" % server.port)
    assert server.connections == 1
    assert (code, out) == (2, "")
    assert "the board does not answer" in err and err.count("\n") == 1
