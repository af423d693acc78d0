"""
import-sqlite: each row of the old database becomes one record, in order and once.

Also when it is killed (kill -9 before each call that changes the disk, and amid each write), when
the power is cut there, and when the log is used, delivered and deleted before it runs again.
"""

import contextlib
import itertools
import json
import os
import pathlib
import shutil
import signal
import sqlite3
import subprocess
import sys

import pytest
from logs import GOLDEN
from test_cli import call, exported, photograph, run

from conftest import LIB, find_runtime, say, tally
from core.support import Http
from postcache import POSTCache
from postcache.host import old_sqlite

OLD = GOLDEN / "postcache-0.2.0.db"
SMALL = 160  # bytes of a segment, so that few rows are several


def make_old(path, rows):
    """An old cache as 0.2.0 makes it, `rows` being text."""
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE postcache (request_body TEXT)")
        db.executemany("INSERT INTO postcache VALUES (?)", [(row,) for row in rows])
    return path


def numbered(first, last):
    return ['{"old": %d, "t": 21.5}' % n for n in range(first, last + 1)]


def imported(database, path, *args):
    code, out, err = call("import-sqlite", database, path, "--json", *args)
    assert (code in (0, 3)) and not err, err
    return json.loads(out)


def delivered(path):
    """Deliver all of a log; return the records that an exactly-once receiver has."""
    http = Http()
    with POSTCache("http://s/", path, http=http, upload_limit=4) as cache:
        assert cache.flush()
    return http.lines()


def records(path):
    return [record for _, _, record in exported(path, "--all")]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "log"


@pytest.fixture
def old(tmp_path):
    return make_old(tmp_path / "old.db", numbered(1, 12))


# --- what is taken over ---


def test_a_database_of_the_real_old_package(folder):
    before = photograph(GOLDEN)
    code, out, err = call("import-sqlite", OLD, folder)
    assert code == 3 and not err
    assert out == (
        "15 records taken over from %s: number 1 to 15.\n"
        "Not taken, as no records: 1 row, which is only there:\n"
        "  rowid 18: no JSON\n" % OLD
    )
    values = [{"n": n, "t": 20 + n / 4} for n in range(4, 13)]
    values += ["a string", None, [1, {"deep": [True, 1000.0]}], {"text": "café \u2028 end"}]
    values += [{"big": 12345678901234567890}, {"n": 19, "t": 24.75}]
    assert delivered(folder) == values
    assert photograph(GOLDEN) == before
    # Again, also when all of it is delivered and gone: nothing.
    assert call("import-sqlite", OLD, folder) == (
        3,
        "Nothing was taken over from %s.\n"
        "16 of its rows were dealt with before.\n"
        "Not taken, as no records: 1 row, which is only there:\n"
        "  rowid 18: no JSON\n" % OLD,
        "",
    )
    assert delivered(folder) == []
    assert photograph(GOLDEN) == before


def test_on_the_oldest_python(folder):
    python = find_runtime("python3.9").command[0]
    if subprocess.run([python, "-c", "import sqlite3"], capture_output=True).returncode:
        pytest.skip("this CPython 3.9 has no sqlite3")
    assert json.loads(run("import-sqlite", OLD, folder, "--json", python=python).stdout) == {
        "imported": 15,
        "before": 0,
        "left": 1,
        "left_rows": [{"rowid": 18, "why": "no JSON"}],
        "first": 1,
        "last": 15,
    }


def test_a_big_backlog_becomes_segments_that_are_not_too_long(tmp_path, folder):
    rows = ['{"n": %d, "pad": "%s"}' % (n, "x" * (n % 700)) for n in range(3000)]
    old = make_old(tmp_path / "old.db", rows)
    assert imported(old, folder)["last"] == 3000
    sizes = [file.stat().st_size for file in folder.glob("*.log")]
    assert len(sizes) > 3 and max(sizes) <= 256 * 1024
    assert delivered(folder) == [json.loads(row) for row in rows]


def test_rows_that_are_no_records_are_named_and_the_others_are_taken(tmp_path, folder):
    old = tmp_path / "old.db"
    rows = [
        '{"n": 1}',
        "not JSON",
        '\t{"n":\r\n 2}  ',
        "",
        None,
        b"\xff\xfe",
        '"%s"' % ("x" * 262112),
        '"%s"' % ("x" * 262113),
        "[" * 20000,
        '{"v": Infinity}',
        21.5,
        b'{"blob": 1}',
        '{"n": 1}',
    ]
    make_old(old, rows)
    result = imported(old, folder)
    assert result["imported"] == 6
    assert result["left"] == 7
    assert [row["rowid"] for row in result["left_rows"]] == [2, 4, 5, 6, 8, 9, 10]
    reasons = {row["rowid"]: row["why"] for row in result["left_rows"]}
    assert reasons[5] == "empty"
    assert reasons[8] == "longer than a record may be, 262114 bytes"
    assert delivered(folder) == [
        {"n": 1},
        {"n": 2},
        "x" * 262112,
        21.5,
        {"blob": 1},
        {"n": 1},
    ]


def test_a_database_of_nothing_but_such_rows(tmp_path, folder):
    old = make_old(tmp_path / "old.db", ["no"] * 150)
    result = imported(old, folder)
    assert (result["imported"], result["left"], len(result["left_rows"])) == (0, 150, 100)
    assert imported(old, folder)["before"] == 150


@pytest.mark.parametrize("slot_size", [0, 128])
def test_into_a_log_that_has_records_delivered_and_not(slot_size, old, folder):
    http = Http(200, 200, default=ConnectionRefusedError(111))
    cache = POSTCache("http://s/", folder, http=http, slot_size=slot_size, upload_limit=1)
    for n in range(1, 6):
        cache.add_request({"new": n})
    cache.close(0)
    assert imported(old, folder) == {
        "imported": 12,
        "before": 0,
        "left": 0,
        "left_rows": [],
        "first": 6,
        "last": 17,
    }
    with POSTCache(None, folder, slot_size=slot_size) as cache:
        assert cache.add_request({"new": 6}) == 18
    values = [{"new": n} for n in range(3, 6)] + [json.loads(row) for row in numbered(1, 12)]
    assert delivered(folder) == [*values, {"new": 6}]


def test_behind_a_torn_end_no_number_is_given_twice(old, folder):
    shutil.copytree(GOLDEN / "v1-torn", folder)
    result = imported(old, folder)
    assert result["first"] == 10  # test_golden.py: two numbers are passed over
    lines = delivered(folder)
    assert lines[6:] == [json.loads(row) for row in numbered(1, 12)]


def test_rows_that_are_added_to_the_old_database_later_are_taken_then(old, folder):
    assert imported(old, folder)["imported"] == 12
    with contextlib.closing(sqlite3.connect(old)) as db, db:
        db.executemany("INSERT INTO postcache VALUES (?)", [(row,) for row in numbered(13, 15)])
    assert delivered(folder) == [json.loads(row) for row in numbered(1, 12)]
    result = imported(old, folder)
    assert (result["before"], result["imported"]) == (12, 3)
    assert delivered(folder) == [json.loads(row) for row in numbered(13, 15)]


def test_a_copy_elsewhere_is_known_again_and_another_database_is_another(tmp_path, old, folder):
    other = make_old(tmp_path / "other.db", numbered(101, 103))
    assert imported(old, folder)["imported"] == 12
    assert imported(other, folder)["imported"] == 3
    copy = shutil.copy(old, tmp_path / "copy.db")
    old.unlink()
    assert (imported(copy, folder)["imported"], imported(copy, folder)["before"]) == (0, 12)
    assert imported(other, folder)["imported"] == 0
    assert len(records(folder)) == 15


@pytest.mark.parametrize("copied", [False, True])
def test_a_database_that_lost_rows_meanwhile_is_a_question(copied, old, folder, tmp_path):
    imported(old, folder)
    if copied:
        old = shutil.copy(old, tmp_path / "copy.db")
    with contextlib.closing(sqlite3.connect(old)) as db, db:
        db.execute("DELETE FROM postcache WHERE rowid <= 5")
    before = photograph(folder)
    code, out, err = call("import-sqlite", old, folder)
    assert (code, out) == (2, "")
    assert err == (
        "postcache: %s has changed since 12 of its rows were taken over: those are not its first "
        "rows any more. Stop the old program; --anew takes all that is in it now.\n" % old
    )
    assert photograph(folder) == before
    assert imported(old, folder, "--anew")["imported"] == 7
    assert imported(old, folder)["before"] == 7
    assert len(records(folder)) == 19


def test_a_dry_run_changes_nothing(old, folder):
    assert call("import-sqlite", old, folder, "--dry-run") == (
        0,
        "12 records would be taken over from %s.\n" % old,
        "",
    )
    assert not folder.exists()
    imported(old, folder)
    before = photograph(folder)
    assert imported(old, folder, "--dry-run")["imported"] == 0
    assert photograph(folder) == before


def test_what_a_power_cut_left_unfinished_in_the_old_database_is_undone_in_a_copy(
    tmp_path, folder
):
    # A hot journal: rows were changed on the disk, and were never committed.
    source = make_old(tmp_path / "source.db", numbered(1, 500))
    old = tmp_path / "old.db"
    db = sqlite3.connect(source, isolation_level=None)
    db.execute("PRAGMA cache_size = 1")
    db.execute("BEGIN")
    db.execute("UPDATE postcache SET request_body = '{\"torn\": 1}'")
    shutil.copy(source, old)
    shutil.copy(str(source) + "-journal", str(old) + "-journal")
    db.execute("ROLLBACK")
    db.close()
    assert b'"torn"' in old.read_bytes()
    before = photograph(tmp_path)
    assert imported(old, tmp_path / "sub" / "log")["imported"] == 500
    after = photograph(tmp_path)
    assert {name: after[name] for name in before if name != str(tmp_path)} == {
        name: data for name, data in before.items() if name != str(tmp_path)
    }
    assert delivered(tmp_path / "sub" / "log") == [json.loads(row) for row in numbered(1, 500)]


def test_a_database_in_wal_mode_is_read_from_a_copy(tmp_path, folder):
    old = make_old(tmp_path / "old.db", numbered(1, 3))
    db = sqlite3.connect(old, isolation_level=None)
    db.execute("PRAGMA journal_mode = wal")
    db.execute('INSERT INTO postcache VALUES (\'{"old": 4, "t": 21.5}\')')
    copy = tmp_path / "copy"
    copy.mkdir()
    for suffix in ("", "-wal"):
        shutil.copy(str(old) + suffix, str(copy / "old.db") + suffix)
    db.close()
    before = photograph(copy)
    assert imported(copy / "old.db", folder)["imported"] == 4
    assert photograph(copy) == before
    assert delivered(folder) == [json.loads(row) for row in numbered(1, 4)]


# --- sentences ---


def _truncated(path):
    data = OLD.read_bytes()
    path.write_bytes(data[:5000])


def _damaged(path):
    make_old(path, numbered(1, 5000))
    data = bytearray(path.read_bytes())
    data[4096 * 3 : 4096 * 4] = b"\xa5" * 4096
    path.write_bytes(data)


def _page_lost(path):
    """Its rows are gone, and reading all others meets no error."""
    make_old(path, numbered(1, 5000))
    data = bytearray(path.read_bytes())
    assert data[4096] == 5  # an interior page of a table; its number of cells is at 3
    data[4096 + 4] -= 1
    path.write_bytes(data)


def _without_rowid(path):
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE postcache (request_body TEXT PRIMARY KEY) WITHOUT ROWID")


def _other_schema(path):
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE postcache (body TEXT)")


def _view(path):
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE VIEW postcache AS SELECT 1 AS request_body")


NO_TABLE = "OLD has no table postcache(request_body): it is no backlog of postcache 0.2.0."
DAMAGED = (
    "OLD is damaged; nothing was taken from it. What can be read goes to a new file with: sqlite3 "
    "OLD.db .recover | sqlite3 NEW.db"
)
BAD = {
    "missing": (lambda path: None, "OLD: there is no such file."),
    "a folder": (lambda path: path.mkdir(), "OLD is no file."),
    "a pipe": (os.mkfifo, "OLD is no file."),
    "empty": (lambda path: path.write_bytes(b""), NO_TABLE),
    "no database": (lambda path: path.write_text("{}" * 100), "OLD is no SQLite database."),
    "a head only": (
        lambda path: path.write_bytes(b"SQLite format 3\0" + b"\xa5" * 5000),
        "OLD is no SQLite database, or its head is damaged.",
    ),
    "another schema": (_other_schema, NO_TABLE),
    "a view": (_view, NO_TABLE),
    "no rowid": (_without_rowid, "OLD was not made by postcache 0.2.0: no rowid."),
    "cut off": (_truncated, DAMAGED),
    "damaged": (_damaged, DAMAGED),
    "a page lost": (_page_lost, DAMAGED),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_database_is_a_sentence_and_no_log_is_made(what, tmp_path, folder):
    make, sentence = BAD[what]
    old = tmp_path / "old.db"
    make(old)
    code, out, err = call("import-sqlite", old, folder)
    assert (code, out) == (2, "")
    assert err == "postcache: %s\n" % sentence.replace("OLD ", str(old) + " ").replace(
        "OLD:", str(old) + ":"
    )
    assert not folder.exists()


def test_no_byte_of_a_database_brings_it_down(tmp_path, folder):
    data = OLD.read_bytes()
    old = tmp_path / "old.db"
    outcomes = set()
    offsets = [*range(0, 110, 3), *range(4000, 4200, 7), *range(7300, len(data), 23)]
    for offset in offsets:
        old.write_bytes(data[:offset] + bytes([data[offset] ^ 0x55]) + data[offset + 1 :])
        code, out, err = call("import-sqlite", old, folder, "--dry-run")
        outcomes.add(code)
        assert code in (2, 3) or (code == 0 and out)
        assert (code == 2) == err.startswith("postcache: ")
        assert err.count("\n") == (code == 2)
    assert outcomes >= {2, 3}


def test_a_log_in_use_is_a_sentence(old, folder):
    with POSTCache(None, folder) as cache:
        cache.add_request(1)
        before = photograph(folder)
        code, _, err = call("import-sqlite", old, folder)
        assert code == 2
        assert err == (
            "postcache: %s is in use: stop the program that logs, run this again, and start it "
            "again.\n" % folder
        )
        assert photograph(folder) == before
    assert imported(old, folder)["first"] == 2


def test_a_database_in_use_is_a_sentence(old, folder, monkeypatch):
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **kw: connect(*a, timeout=0, **kw))
    with contextlib.closing(connect(old, isolation_level=None)) as db:
        db.execute("BEGIN EXCLUSIVE")
        code, _, err = call("import-sqlite", old, folder)
    assert (code, err) == (2, "postcache: %s is in use: stop the old program first.\n" % old)
    assert not folder.exists()


def test_a_stranger_in_the_place_of_the_log_is_a_sentence(old, tmp_path):
    (tmp_path / "file").write_text("x")
    code, _, err = call("import-sqlite", old, tmp_path / "file")
    assert (code, err) == (
        2,
        "postcache: %s is a file; name the log's folder.\n" % (tmp_path / "file"),
    )
    code, _, err = call("import-sqlite", old, tmp_path)
    assert (code, err) == (
        2,
        "postcache: %s is no postcache log: there is no cursor, segment or slot in it.\n"
        % tmp_path,
    )
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "old.db"]
    for path in ("", ":memory:"):
        assert call("import-sqlite", old, path)[2] == (
            "postcache: PATH must be a folder on a disk.\n"
        )


def test_without_room_nothing_is_written_but_the_empty_log(old, folder, monkeypatch):
    monkeypatch.setattr(old_sqlite.Directory, "free", lambda self: 1000000)
    code, out, err = call("import-sqlite", old, folder)
    assert (code, out) == (2, "")
    assert err == (
        "postcache: There is no room: the records need up to 615 bytes, 1,000,000 are free where "
        "the log is, and 1,048,576 have to stay free.\n"
    )
    assert records(folder) == []
    monkeypatch.undo()
    assert imported(old, folder)["imported"] == 12


# --- killed ---

# Runs an import for each line that it reads, in a child that kills itself (kill -9) before the
# n-th call that changes the disk, or in the middle of it if that is a write.
KILLED = """
import os, signal, sys
from postcache.host import old_sqlite
old_sqlite._GROUP = int(sys.argv[1])
left = middle = 0
def wrap(name):
    call = getattr(os, name)
    def wrapped(*args, **kwargs):
        global left
        if name == "open" and not args[1] & os.O_CREAT:
            return call(*args, **kwargs)
        left -= 1
        if left == 0:
            if middle and name in ("write", "pwrite"):
                call(args[0], args[1][: len(args[1]) // 2], *args[2:])
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **kwargs)
    setattr(os, name, wrapped)
for name in "open write pwrite ftruncate fsync fdatasync rename remove mkdir".split():
    wrap(name)
for line in sys.stdin:
    left, middle, database, path = line.split()
    left, middle = int(left), int(middle)
    child = os.fork()
    if not child:
        old_sqlite.take_over(database, path)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture
def killer(tmp_path):
    """A callable (n, middle, database, path) that returns True when it came to its end."""
    program = tmp_path / "killed.py"
    program.write_text(KILLED)
    with subprocess.Popen(
        [sys.executable, "-W", "error", program, str(SMALL)],
        env=dict(os.environ, PYTHONPATH=str(LIB)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:

        def kill(n, middle, database, path):
            print(n, int(middle), database, path, file=process.stdin, flush=True)
            code = int(process.stdout.readline())
            assert code in (0, -signal.SIGKILL)
            return code == 0

        yield kill
        process.stdin.close()


def use_the_log(path, n, deliver):
    """A life of the logger between two runs of the import; returns what it delivered."""
    http = Http(default=200 if deliver else ConnectionRefusedError(111))
    with POSTCache("http://s/", path, http=http, upload_limit=3, max_bytes=65536) as cache:
        for i in range(n):
            cache.add_request({"new": i})
        cache.outbox.wait_ms = lambda: 0
        cache.flush()
        cache.close(0)
    return http.lines()


def hold(lines, extra, *facts):
    """All rows, in order and once, and `extra` records of the logger's own between them."""
    old = [line["old"] for line in lines if "old" in line]
    new = [line["new"] for line in lines if "new" in line]
    assert old == list(range(1, 13)), facts
    assert len(lines) == len(old) + len(new), facts
    assert len(new) == extra, facts


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(old_sqlite, "_GROUP", SMALL)


@pytest.mark.parametrize("middle", [False, True])
@pytest.mark.parametrize("between", ["nothing", "adds", "delivers"])
def test_killed_anywhere_and_run_again(between, middle, killer, old, tmp_path, small):
    kills = 0
    for n in itertools.count(1):
        path = tmp_path / ("log%d" % n)
        done = killer(n, middle, old, path)
        kills += not done
        lines = []
        extra = 0
        if between != "nothing":
            lines += use_the_log(path, 2, between == "delivers")
            extra = 2
        imported(old, path)
        lines += delivered(path)
        hold(lines, extra, n)
        assert imported(old, path)["imported"] == 0
        assert not list(path.glob("*.part"))
        shutil.rmtree(path)
        if done:
            break
    assert kills > 30
    tally(kills)


def test_killed_again_and_again(killer, old, tmp_path):
    """Every run is killed a little later than the one before, or a little earlier."""
    kills = 0
    for step in range(1, 60, 5):
        path = tmp_path / ("log%d" % step)
        lines = []
        lives = 0
        for life in itertools.count():
            done = killer(step + life * (life % 3), life % 2, old, path)
            kills += not done
            if done:
                break
            if life % 4 == 3:
                lines += use_the_log(path, 1, life % 8 == 3)
                lives += 1
        lines += delivered(path)
        hold(lines, lives, step)
        shutil.rmtree(path)
    assert kills > 40
    tally(kills)
    say("import-sqlite: %d kills in rows of them" % kills)


# --- the power is cut ---


CHANGING = "open write pwrite ftruncate fsync fdatasync rename remove mkdir"


class Trace:
    """
    What a program asks of the disk below `root`, in order: the calls that change it, and syncs.

    cuts() gives what a power cut may leave: POSIX keeps what was synced; of anything later each
    file's data may be there, not there, or half there, and each name may be there or not. A
    rename is there or not, as one: that is what file systems with a journal promise. `renamed`,
    (old name, new name), was not durable yet when the program began.
    """

    def __init__(self, root, monkeypatch, renamed=None):
        self.root = str(root)
        self.renamed = renamed
        self.start = {
            str(file.relative_to(root)): file.read_bytes()
            for file in root.rglob("*")
            if file.is_file()
        }
        self.steps = []
        self._files = {}
        for name in CHANGING.split():
            self._wrap(name, monkeypatch)

    def _wrap(self, name, monkeypatch):
        original = getattr(os, name)
        note = getattr(self, "_" + name)

        def wrapped(*args, **kwargs):
            result = original(*args, **kwargs)
            note(result, *args)
            return result

        monkeypatch.setattr(os, name, wrapped)

    def _step(self, kind, name, *rest):
        if str(name).startswith(self.root):
            self.steps.append((kind, os.path.relpath(name, self.root), *rest))

    def _open(self, fd, path, flags=0, *_):
        self._files[fd] = str(path)
        if flags & os.O_CREAT:
            self._step("create", path)
        if flags & os.O_TRUNC:
            self._step("truncate", path, 0)

    def _write(self, n, fd, data):
        self._step("append", self._files.get(fd), bytes(data[:n]))

    def _pwrite(self, n, fd, data, offset):
        self._step("write", self._files.get(fd), bytes(data[:n]), offset)

    def _ftruncate(self, _, fd, size):
        self._step("truncate", self._files.get(fd), size)

    def _fsync(self, _, fd):
        self._step("sync", self._files.get(fd))

    _fdatasync = _fsync

    def _rename(self, _, source, target):
        self._step("rename", source, os.path.relpath(target, self.root))

    def _remove(self, _, path):
        self._step("remove", path)

    def _mkdir(self, _, path, *mode):
        self._step("create", path)

    def cuts(self):
        """Yield (number of the step before which it was cut, {name: bytes})."""
        # number: (durable bytes, bytes, bytes amid the last write)
        files = {n: (data, data, data) for n, data in enumerate(self.start.values())}
        names = {name: n for n, name in enumerate(self.start)}
        pending = []  # changes of names: lists of (name, number or None)
        durable = dict(names)
        if self.renamed:
            before, after = self.renamed
            pending.append([(before, None), (after, names[after])])
            durable[before] = durable.pop(after)
        for at, step in enumerate([*self.steps, ("end", "")]):
            for names_kept in self._choices(pending):
                state = dict(durable)
                for change in names_kept:
                    state.update(change)
                for pick in range(3):
                    yield (
                        at,
                        {
                            name: files[number][pick]
                            for name, number in state.items()
                            if number is not None
                        },
                    )
            kind, name, *rest = step
            if kind == "create":
                if name != "." and name not in names:
                    names[name] = len(files)
                    files[len(files)] = (b"", b"", b"")
                    pending.append([(name, names[name])])
            elif kind in ("append", "write", "truncate"):
                number = names[name]
                kept, data, _ = files[number]
                if kind == "truncate":
                    new = half = data[: rest[0]]
                else:
                    at_byte = len(data) if kind == "append" else rest[1]
                    base = data[:at_byte].ljust(at_byte, b"\0")
                    tail = data[at_byte:]
                    new = base + rest[0] + tail[len(rest[0]) :]
                    n = len(rest[0]) // 2
                    half = base + rest[0][:n] + tail[n:]
                files[number] = (kept, new, half)
            elif kind == "sync" and name == ".":
                for change in pending:
                    durable.update(change)
                pending = []
            elif kind == "sync":
                if name in names:
                    data = files[names[name]][1]
                    files[names[name]] = (data, data, data)
            elif kind == "rename":
                names[rest[0]] = names.pop(name)
                pending.append([(name, None), (rest[0], names[rest[0]])])
            elif kind == "remove" and names.pop(name, None) is not None:
                pending.append([(name, None)])

    @staticmethod
    def _choices(pending):
        for n in range(len(pending) + 1):
            yield from itertools.combinations(pending, n)


@pytest.mark.parametrize("fill", ["an empty log", "slots", "delivered"])
def test_the_power_is_cut_anywhere(fill, old, tmp_path, small, monkeypatch):
    path = tmp_path / "log"
    extra = 0
    if fill != "an empty log":
        slot_size = 128 if fill == "slots" else 0
        http = Http(default=200 if fill == "delivered" else ConnectionRefusedError(111))
        with POSTCache("http://s/", path, http=http, slot_size=slot_size) as cache:
            for n in range(3):
                cache.add_request({"new": n})
            cache.flush()
        extra = 0 if fill == "delivered" else 3
    with monkeypatch.context() as patch:
        trace = Trace(path, patch)
        imported(old, path)
    shutil.rmtree(path)
    states = look_at_all_cuts(trace, path, old, extra)
    assert states > 25
    tally(states)
    say("import-sqlite into %s: %d states that a power cut may leave" % (fill, states))


def look_at_all_cuts(trace, path, old, extra):
    """Boot every state that a cut may leave, with a life of the logger and without; how many."""
    states = {frozenset(contents.items()): at for at, contents in trace.cuts()}
    for contents, at in states.items():
        for deliver in (False, True):
            path.mkdir()
            for name, data in contents:
                (path / name).parent.mkdir(exist_ok=True)
                (path / name).write_bytes(data)
            lines = use_the_log(path, 1, True) if deliver else []
            imported(old, path)
            lines += delivered(path)
            hold(lines, extra + deliver, at, trace.steps[at - 1 : at + 1])
            shutil.rmtree(path)
    return len(states)


class Killed(BaseException):
    """The program ends here, and does nothing more."""


def die_at_rename(n, old, folder, monkeypatch, after=True):
    """Run an import that ends right after its n-th rename, or before it; return both names."""
    renamed = []

    def rename(source, target, original=os.rename):
        renamed.append((os.path.basename(source), os.path.basename(target)))
        if len(renamed) < n or after:
            original(source, target)
        if len(renamed) == n:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", rename)
        with pytest.raises(Killed):
            old_sqlite.take_over(str(old), str(folder))
    return renamed[-1]


@pytest.mark.parametrize("n", [1, 2, 3])
def test_the_power_is_cut_after_a_kill_whose_rename_was_not_durable(
    n, old, folder, small, monkeypatch
):
    renamed = die_at_rename(n, old, folder, monkeypatch)
    with monkeypatch.context() as patch:
        trace = Trace(folder, patch, renamed)
        imported(old, folder)
    shutil.rmtree(folder)
    tally(look_at_all_cuts(trace, folder, old, 0))


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_file_system_whose_rename_lost_both_names(n, old, folder, small, monkeypatch):
    """FAT, when its power is cut amid a rename."""
    _, segment = die_at_rename(n, old, folder, monkeypatch)
    (folder / segment).unlink()
    imported(old, folder)
    hold(delivered(folder), 0)


def test_the_newer_mark_is_damaged_after_a_kill(old, folder, small, monkeypatch):
    part, _ = die_at_rename(2, old, folder, monkeypatch, after=False)
    assert (folder / part).exists()
    original = old_sqlite.Directory.open

    def die_at_part(self, name, mode):
        if name.endswith(".part"):
            raise Killed
        return original(self, name, mode)

    with monkeypatch.context() as patch:
        patch.setattr(old_sqlite.Directory, "open", die_at_part)
        with pytest.raises(Killed):
            old_sqlite.take_over(str(old), str(folder))
    assert not (folder / part).exists()
    for name in ("import-a", "import-b"):
        copy = shutil.copytree(folder, folder.with_name(name))
        (copy / name).write_bytes(b"garbage")
        imported(old, copy)
        hold(delivered(copy), 0, name)


def test_a_damaged_mark_is_one_of_two(old, folder):
    imported(old, folder)
    for name in ("import-a", "import-b"):
        data = (folder / name).read_bytes()
        for damage in (b"", b"\0" * 200, data[:40], b"[" * 5000 + b"\n", data.replace(b"1", b"2")):
            (folder / name).write_bytes(damage)
            assert imported(old, folder)["before"] == 12
        (folder / name).write_bytes(data)


def test_a_mark_of_a_newer_version_is_a_sentence(old, folder):
    from postcache.log.line import encode

    imported(old, folder)
    (folder / "import-a").write_bytes(encode(99, b"[2, {}]"))
    code, _, err = call("import-sqlite", old, folder)
    assert code == 2
    assert err == (
        "postcache: A newer postcache has imported into %s: update postcache here.\n" % folder
    )


def test_a_log_forgets_no_database_by_itself(tmp_path, folder):
    for n in range(32):
        imported(make_old(tmp_path / ("old%d.db" % n), numbered(n, n)), folder)
    last = make_old(tmp_path / "old.db", numbered(40, 40))
    before = len(records(folder))
    code, _, err = call("import-sqlite", last, folder)
    assert code == 2
    assert "has taken over 32 databases" in err
    assert len(records(folder)) == before == 32
    assert pathlib.Path(folder, "import-a").exists()
