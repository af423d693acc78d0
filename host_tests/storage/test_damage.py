"""
Damage that no power cut makes: opening works on any bytes (S5), and damage stays local (S6).

A reference log has sealed segments, a journal, both cursors and slots. Every bit of every file is
flipped, every file is cut off at every length, overwritten at random, and removed.
"""

import collections
import itertools
import json
import os
import random

import pytest
from power import World, key_of, look
from test_power_cuts import SETUPS, pad

from conftest import say, tally
from postcache import POSTCache
from postcache.log.line import decode

counts = collections.Counter()


def reference(setup):
    """A log with two acknowledgements, three segments and, if it has slots, some in use."""
    world = World(*SETUPS[setup])
    cache = world.open(upload_limit=2, max_bytes=4096)
    world.server.answers = [200, 200, "down"]
    for value in range(4):
        world.add(cache, value)
    cache.outbox._next = 1 << 60
    for value in range(4, 9):
        world.add(cache, pad(value, 180))
    for value in range(9, 13):
        world.add(cache, value)
    cache.close()
    world.acked = 0  # a cursor that is damaged sends again what the older one does not know
    return world


def boot(world, contents):
    """Open the log with other contents; return what is in it, and all that came out of it."""
    after = world.copy(contents)
    cache = after.open(upload_limit=2, max_bytes=4096)
    missing = look(after, cache, lambda promise, holds, *facts: None)
    there = {key_of(json.loads(payload)): seq for seq, payload in cache.storage.read(None)}
    assert list(there.values()) == sorted(there.values())
    for key, seq in there.items():
        assert world.told.get(key) == seq  # nothing invented, nothing under another number
    # It goes on: a number that nobody has, and all of it arrives.
    seq = after.add(cache, 999)
    assert seq > max(there.values(), default=0)
    assert after.add(cache, 1000) == seq + 1
    assert cache.flush() and len(cache) == 0
    cache.close()
    arrived = set(after.server.records)
    assert {999, 1000, *there} <= arrived
    return missing, seq


def _lines(data):
    """Yield (start, end) of each line of a file."""
    at = 0
    for line in data.splitlines(True):
        yield at, at + len(line)
        at += len(line)


def _keys_at(world, data, first, last):
    """Keys of the records in the lines that the bytes first..last of a file touch."""
    numbers = {seq: key for key, seq in world.told.items()}
    keys = set()
    for start, end in _lines(data):
        if start <= last and first < end:
            record = decode(data[start:end])
            if record:
                keys.add(numbers.get(record[0]))
    return keys


@pytest.mark.parametrize("setup", ["posix-append", "posix-slots", "littlefs-slots"])
def test_s6_a_flipped_bit_costs_the_record_it_hit_and_a_newline_two(setup):
    world = reference(setup)
    contents = world.disk.contents()
    highest = max(world.told.values())
    cost = collections.Counter()
    for name, data in contents.items():
        for at in range(len(data or b"")):
            hit = _keys_at(world, data, at, at)
            newline = data[at : at + 1] == b"\n"
            both = hit | _keys_at(world, data, at + 1, at + 1) if newline else hit
            for bit in range(8):
                changed = bytearray(data)
                changed[at] ^= 1 << bit
                missing, seq = boot(world, {**contents, name: bytes(changed)})
                counts["flipped bits"] += 1
                cost[len(missing)] += 1
                assert set(missing) <= both, (name, at, bit, missing)
                assert len(missing) < 2 or newline
                if not name.startswith("cursor"):
                    assert seq > highest, (name, at, bit)  # no number has two records
    say("flipped bits, %s: cost no record %d, one %d, two %d" % (setup, cost[0], cost[1], cost[2]))
    assert cost[1] > 500 and cost[0] > 500
    assert set(cost) <= {0, 1, 2}


@pytest.mark.parametrize("setup", SETUPS)
def test_s5_s6_a_file_that_is_cut_off_keeps_what_is_left_of_it(setup):
    world = reference(setup)
    contents = world.disk.contents()
    for name, data in contents.items():
        for size in range(len(data or b"")):
            gone = _keys_at(world, data, size, len(data))
            missing, _ = boot(world, {**contents, name: data[:size]})
            counts["cut off files"] += 1
            assert set(missing) <= gone, (name, size, missing)


@pytest.mark.parametrize("setup", SETUPS)
def test_s5_s6_random_bytes_cost_what_they_lie_on(setup):
    world = reference(setup)
    contents = world.disk.contents()
    rng = random.Random(setup)
    names = [name for name, data in contents.items() if data]
    for _ in range(400):
        name = rng.choice(names)
        data = contents[name]
        first = rng.randrange(len(data))
        size = min(len(data) - first, rng.choice((1, 4, 16, 100, 512)))
        noise = bytes(rng.randrange(256) for _ in range(size))
        # The line after it is hit when the newline between them is.
        hit = _keys_at(world, data, first, first + size)
        missing, _ = boot(world, {**contents, name: data[:first] + noise + data[first + size :]})
        counts["random bytes"] += 1
        assert set(missing) <= hit, (name, first, size, missing)


@pytest.mark.parametrize("setup", SETUPS)
def test_s5_s6_files_that_are_gone_cost_what_was_in_them(setup):
    world = reference(setup)
    contents = world.disk.contents()
    names = [name for name, data in contents.items() if data]
    for n in (1, 2, len(names)):
        for gone in itertools.combinations(names, n):
            hit = set()
            for name in gone:
                hit |= _keys_at(world, contents[name], 0, len(contents[name]))
            left = {name: data for name, data in contents.items() if name not in gone}
            missing, _ = boot(world, left)
            counts["lost files"] += 1
            assert set(missing) <= hit
    # A folder with all slots in it.
    left = {name: data for name, data in contents.items() if not name.startswith("+1")}
    hit = set()
    for name in set(contents) - set(left):
        hit |= _keys_at(world, contents[name] or b"", 0, 1 << 20)
    missing, _ = boot(world, left)
    assert set(missing) <= hit


# --- strangers, on a real disk ---


def _garbage(path):
    for name in (b"\xff\xfe", b"a\nb", b"x" * 255, "\u00e9.log".encode(), b"1.log", b" .log"):
        with open(os.path.join(os.fsencode(path), name), "wb") as f:
            f.write(b"garbage")
    for name in ("0000000000.log", "00000000001.log", "-000000001.log", "cursor-c", "cursor-a~"):
        (path / name).write_bytes(b"0123456789abcdef" * 9)


def _folders_like_segments(path):
    for name in ("0000000007.log", "0000000001.log ", "notes"):
        (path / name).mkdir()


def _folders_like_slots(path):
    for name in ("+0", "+0/4", "+0/8", "+1", "+3", "+9"):
        (path / name).mkdir(exist_ok=True)
    (path / "+1" / "1x").write_bytes(b"garbage")


def _file_like_a_folder(path):
    if not (path / "+2").is_dir():
        (path / "+2").write_bytes(b"garbage")


def _garbage_in_slots(path):
    (path / "+0").mkdir(exist_ok=True)
    for slot in range(4, 40, 4):
        (path / "+0" / str(slot)).write_bytes(bytes(range(256)) * 2)


def _huge_files(path):
    for name in ("core", "+huge", "cursor-x"):
        with open(path / name, "wb") as f:
            f.truncate(1 << 33)  # takes no space: it has no content


STRANGERS = (
    _garbage,
    _folders_like_segments,
    _folders_like_slots,
    _file_like_a_folder,
    _garbage_in_slots,
    _huge_files,
)


def _tree(path):
    return {
        os.path.join(root, name): os.lstat(os.path.join(root, name)).st_size
        for root, folders, files in os.walk(os.fsencode(path))
        for name in folders + files
    }


@pytest.mark.parametrize("slot_size", [0, 128])
@pytest.mark.parametrize("strangers", STRANGERS)
@pytest.mark.parametrize("first", [True, False], ids=["before the log", "into the log"])
def test_s5_strangers_files_stop_nothing_and_are_left_alone(strangers, slot_size, first, tmp_path):
    values = []
    if not first:
        with POSTCache(None, tmp_path, slot_size=slot_size) as cache:
            for value in range(3):
                cache.add_request(value)
                values.append(value)
    strangers(tmp_path)
    before = _tree(tmp_path)
    for value in range(10, 14):
        with POSTCache(None, tmp_path, slot_size=slot_size) as cache:
            for _ in range(3):  # a stranger in the way of one file is not in the way of the next
                try:
                    cache.add_request(value)
                    values.append(value)
                    break
                except (IsADirectoryError, NotADirectoryError):
                    pass
            else:
                pytest.fail("no record can be added any more")
    with POSTCache(None, tmp_path, slot_size=slot_size) as cache:
        assert [int(payload) for _, payload in cache.storage.read(None)] == values
    after = _tree(tmp_path)
    ours = (b"+0", b"+1", b"+2", b"+3", b".log", b"cursor-a", b"cursor-b")
    for path, size in before.items():
        if not any(name in path for name in ours):
            assert after.get(path) == size, path


@pytest.mark.parametrize("slot_size", [0, 128])
@pytest.mark.parametrize("name", ["cursor-a", "cursor-b"])
def test_s5_a_folder_where_a_cursor_should_be_costs_acks_but_no_record(name, slot_size, tmp_path):
    with POSTCache(None, tmp_path, slot_size=slot_size) as cache:
        cache.add_request(1)
    (tmp_path / "cursor-b").replace(tmp_path / "other")
    (tmp_path / name).mkdir()
    try:
        cache = POSTCache(None, tmp_path, slot_size=slot_size)
    except OSError as e:
        # The stream cannot get a name: a sentence for a person, and nothing is lost.
        if (name, e.errno) != ("cursor-b", 21):
            raise
        (tmp_path / name).rmdir()
        cache = POSTCache(None, tmp_path, slot_size=slot_size)
    assert cache.add_request(2) == 2
    assert [int(payload) for _, payload in cache.storage.read(None)] == [1, 2]
    cache.close()


def test_how_much_was_damaged():
    for what, n in sorted(counts.items()):
        say("damage, %s: %d" % (what, n))
    tally(sum(counts.values()))
    assert counts["flipped bits"] > 20000
