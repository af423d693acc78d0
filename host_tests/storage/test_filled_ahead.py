"""
The newest segment is filled with zeros ahead of its lines (CPython).

Zeros at the end of a segment belong to no line: they are no damage, they are cut off when the
segment is sealed or the log is closed, and a disk that has no room for them takes records all the
same. What a power cut leaves of them is tested in test_power_cuts.py, what a failing call does in
test_faults.py.
"""

import errno
import gc
import os
import pathlib
import shutil

import pytest

from conftest import find_runtime
from core.support import Http
from postcache import POSTCache
from postcache.log.line import encode
from postcache.ports import Directory
from postcache.ports.cpython import files

FIRST = "0000000001.log"


def lines(first, last):
    return b"".join(encode(n, b'{"n": %d}' % n) for n in range(first, last + 1))


def add(cache, *numbers):
    """Add records whose numbers in the log are `numbers`, too."""
    for n in numbers:
        assert cache.add_request({"n": n}) == n


def found(cache):
    return [seq for seq, _ in cache.storage.read(None)]


def killed(path):
    """Return a copy of a log in use: what a kill leaves."""
    return shutil.copytree(path, path.with_name("killed"))


class Calls:
    """Writes and syncs of files, in order; those that `fails(name, data)` fail."""

    def __init__(self, monkeypatch, fails=lambda name, data: None):
        self.made = []
        self.fails = fails
        pwrite, sync = os.pwrite, files._sync

        def write(fd, data, offset):
            data = bytes(data)
            self.call("zeros" if not data.strip(b"\0") else "line", data)
            return pwrite(fd, data, offset)

        def syncs(fd):
            self.call("sync", b"")
            sync(fd)

        monkeypatch.setattr(files.os, "pwrite", write)
        monkeypatch.setattr(files, "_sync", syncs)

    def call(self, name, data):
        self.made.append(name)
        number = self.fails(name, data)
        if number:
            raise OSError(number, os.strerror(number))


@pytest.fixture
def log(tmp_path):
    """The folder of a log, and the file that is its newest segment."""
    path = tmp_path / "log"
    return path, path / FIRST


def test_lines_overwrite_zeros_that_were_synced_before(log, monkeypatch):
    path, segment = log
    with POSTCache(None, path) as cache:
        calls = Calls(monkeypatch)
        add(cache, 1)
        assert calls.made == ["line", "sync"]  # there are many lives that add one record
        assert segment.read_bytes() == lines(1, 1)
        add(cache, 2)
        assert calls.made[2:] == ["zeros", "sync", "line", "sync"]
        size = segment.stat().st_size
        blocks = segment.stat().st_blocks
        add(cache, 3, 4, 5)
        assert calls.made[6:] == ["line", "sync"] * 3
        assert segment.read_bytes() == lines(1, 5).ljust(size, b"\0")
        assert segment.stat().st_blocks == blocks  # written, not only reserved
        assert found(cache) == [1, 2, 3, 4, 5]
        monkeypatch.undo()


def test_the_zeros_come_in_steps_up_to_a_limit(log):
    path, segment = log
    sizes = []
    with POSTCache(None, path) as cache:
        n = 0
        while len(sizes) < 7:
            n += 1
            cache.add_request("x" * 1000)
            size = segment.stat().st_size
            if not sizes or size != sizes[-1]:
                sizes.append(size)
            assert size <= 2 * len(encode(n, b"x" * 1002)) * n + 4096
    steps = [b - a for a, b in zip(sizes, sizes[1:])]
    assert steps == [4096, 8192, 16384, 16384, 16384, 16384]
    assert steps[-1] == Directory.step


def test_closing_cuts_them_off_and_an_empty_life_leaves_none(log):
    path, segment = log
    with POSTCache(None, path) as cache:
        add(cache, 1, 2, 3)
    assert segment.read_bytes() == lines(1, 3)
    POSTCache(None, path).close()
    assert segment.read_bytes() == lines(1, 3)


def test_a_sealed_segment_has_none_and_no_segment_is_longer_than_a_full_one(log):
    path, _ = log
    with POSTCache(None, path, max_bytes=4096) as cache:
        for _ in range(60):
            cache.add_request("x" * 100)
            *sealed, newest = sorted(path.glob("0*.log"))
            for segment in sealed:
                assert segment.read_bytes()[-1:] == b"\n"
            assert newest.stat().st_size <= cache.storage.limit == 512
            sizes = [file.stat().st_size for file in path.iterdir()]
            assert cache.stats["bytes"] == sum(sizes) <= 4096
        assert cache.stats["dropped"] > 0
        assert cache.stats["damaged"] == 0


def test_a_killed_program_leaves_no_damage_and_the_next_one_goes_on_in_the_file(log):
    path, segment = log
    with POSTCache(None, path) as cache:
        add(cache, 1, 2, 3)
        size = segment.stat().st_size
        left = killed(path)
    with POSTCache(None, left) as cache:
        assert found(cache) == [1, 2, 3]
        assert cache.stats["damaged"] == 0
        add(cache, 4)
        assert (left / FIRST).read_bytes() == lines(1, 4).ljust(size, b"\0")
        assert found(cache) == [1, 2, 3, 4]
    assert (left / FIRST).read_bytes() == lines(1, 4)


def test_a_log_that_is_forgotten_is_one_that_was_killed(log):
    path, segment = log
    cache = POSTCache(None, path)
    add(cache, 1, 2, 3)
    del cache
    gc.collect()
    with POSTCache(None, path) as cache:
        add(cache, 4)
        assert cache.stats["damaged"] == 0
    assert segment.read_bytes() == lines(1, 4)


FORKS = """
import os, sys
from postcache import POSTCache

cache = POSTCache(None, sys.argv[1])
cache.add_request({"n": 1})
cache.add_request({"n": 2})
go = os.pipe()
pid = os.fork()
if not pid:
    os.read(go[0], 1)
    cache.storage.journal.close()
    sys.exit(0)
cache.add_request({"n": 3})
os.write(go[1], b"1")
os.waitpid(pid, 0)
os._exit(0)  # killed
"""


def test_a_forked_child_cuts_nothing_off(log):
    path, segment = log
    find_runtime("cpython").run("-W", "ignore", "-c", FORKS, path)
    assert segment.read_bytes().rstrip(b"\0") == lines(1, 3)
    assert segment.stat().st_size > len(lines(1, 3))


@pytest.mark.parametrize("zeros", [1, 12, 700, 70000])
@pytest.mark.parametrize("torn", [b"", b"12345678 4 {"], ids=["whole", "torn"])
def test_only_what_is_before_the_zeros_counts(zeros, torn, log):
    path, segment = log
    with POSTCache(None, path) as cache:
        add(cache, 1, 2, 3)
    segment.write_bytes(lines(1, 3) + torn + bytes(zeros))
    with POSTCache(None, path) as cache:
        assert cache.stats["damaged"] == bool(torn)
        following = 4 + (len(torn) // 13 + 1 if torn else 0)
        add(cache, following)
        assert found(cache) == [1, 2, 3, following]
    if torn:  # nothing is written behind what is damaged, but the zeros are gone
        assert segment.read_bytes() == lines(1, 3) + torn


def test_zeros_between_lines_are_damage(log):
    path, segment = log
    with POSTCache(None, path) as cache:
        add(cache, 1, 2, 3)
    segment.write_bytes(lines(1, 1) + bytes(len(lines(2, 2))) + lines(3, 3))
    with POSTCache(None, path) as cache:
        assert found(cache) == [1]  # the zeros and the third line are one line
        assert cache.stats["damaged"] > 0


def test_a_sealed_segment_that_could_not_be_cut_is_no_damage(log, monkeypatch):
    path, segment = log

    def refused(fd, size):
        raise OSError(errno.EIO, "Input/output error")

    with POSTCache(None, path, max_bytes=4096) as cache:
        with monkeypatch.context() as patch:
            patch.setattr(files.os, "ftruncate", refused)
            n = 0
            while len(list(path.glob("0*.log"))) < 3:
                n += 1
                add(cache, n)
        assert segment.read_bytes()[-1:] == b"\0"
        assert found(cache) == list(range(1, n + 1))
        assert cache.stats["damaged"] == 0
    with POSTCache(None, path, max_bytes=4096) as cache:
        assert found(cache) == list(range(1, n + 1))
        assert cache.stats["damaged"] == 0


# --- where there is no room for them ---


@pytest.mark.parametrize("where", ["zeros", "sync"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_without_room_for_zeros_takes_records(log, monkeypatch, where, number):
    path, segment = log
    with POSTCache(None, path) as cache:
        add(cache, 1)
        calls = Calls(monkeypatch)
        # The sync of the zeros only: it comes right after them.
        calls.fails = lambda name, data: (
            number if name == where and "zeros" in calls.made[-2:] else None
        )
        for n in range(2, 6):
            add(cache, n)
            assert segment.read_bytes() == lines(1, n)
        assert calls.made.count("zeros") == 1  # it is not tried for every record
        monkeypatch.undo()
        assert found(cache) == [1, 2, 3, 4, 5]
    assert segment.read_bytes() == lines(1, 5)


def test_zeros_are_not_written_to_a_disk_that_is_almost_full(log, monkeypatch):
    path, segment = log
    with POSTCache(None, path) as cache:
        add(cache, 1)
        cache.storage.fs.free = lambda: Directory.reserve + 100
        calls = Calls(monkeypatch)
        add(cache, 2, 3, 4)
        assert "zeros" not in calls.made
        assert segment.read_bytes() == lines(1, 4)
        monkeypatch.undo()


@pytest.mark.parametrize("where", ["zeros", "sync"])
def test_an_error_that_is_not_about_space_fails_the_add(log, monkeypatch, where):
    path, segment = log
    with POSTCache(None, path) as cache:
        add(cache, 1)
        calls = Calls(monkeypatch, lambda name, data: errno.EIO if name == where else None)
        with pytest.raises(OSError, match="Input/output"):
            cache.add_request({"n": "refused"})
        monkeypatch.undo()
        add(cache, 2, 3)  # its number is given back, and its file takes no further line
        assert segment.read_bytes() == lines(1, 1)
        assert (path / "0000000002.log").read_bytes().rstrip(b"\0") == lines(2, 3)
        assert found(cache) == [1, 2, 3]
    assert calls.made.count("line") == 0


def test_half_a_line_of_a_failed_write_is_cut_off_with_the_zeros(log, monkeypatch):
    path, segment = log
    with POSTCache(None, path) as cache:
        add(cache, 1, 2)
        pwrite = os.pwrite

        def half(fd, data, offset):
            pwrite(fd, data[: len(data) // 2], offset)
            raise OSError(errno.EIO, "Input/output error")

        with monkeypatch.context() as patch:
            patch.setattr(files.os, "pwrite", half)
            with pytest.raises(OSError, match="Input/output"):
                cache.add_request("refused")
        assert segment.read_bytes() == lines(1, 2)
        add(cache, 3)
        assert found(cache) == [1, 2, 3]
        assert cache.stats["damaged"] == 0


def test_a_step_of_0_means_none(log):
    path, segment = log
    with POSTCache(None, path) as cache:
        cache.storage.fs.step = 0
        for n in range(1, 6):
            add(cache, n)
            assert segment.read_bytes() == lines(1, n)


def test_a_long_record_is_not_written_twice(log, monkeypatch):
    path, _ = log
    with POSTCache(None, path) as cache:
        calls = Calls(monkeypatch)
        for _ in range(4):
            cache.add_request("x" * 5000)
        assert "zeros" not in calls.made
        monkeypatch.undo()


def test_slots_and_what_is_set_aside_are_not_filled(tmp_path):
    path = tmp_path / "log"
    http = Http(422, 422, 422)
    with POSTCache("http://s/", path, http=http, upload_limit=1, slot_size=128) as cache:
        for n in range(60):
            cache.outbox._next = 0
            cache.add_request({"n": n, "x": "x" * 60})
            for file in pathlib.Path(path).rglob("*"):
                assert file.is_dir() or b"\0" not in file.read_bytes()
    assert (path / "rejected.log").exists()
