"""
Power cuts at every operation: nothing that was stored is lost, and each record arrives once.

A scenario runs once on a model disk of power.py. Before each operation that changes the disk the
world is photographed: the disk, what the program was told, what the server holds. From each
photograph every state that a cut may leave there (before the operation that comes, within and
after the one before it) is booted and must keep all promises, on what is found and after
everything was delivered. Two states that are the same in everything are booted once and count
once.

Each scenario runs on each kind of disk with each journal (SETUPS). Then come 1000 random lives, in
a nightly run 10,000. With POSTCACHE_TORTURE_SECONDS random programs go on for that long; a failure
names its seed, and POSTCACHE_TORTURE_SEED=<seed> repeats it.
"""

import collections
import functools
import itertools
import os
import random
import time

import power
import pytest
from power import Cut, Disk, World, examine, look

from conftest import amount, say, tally

SETUPS = {
    "posix-append": ("posix", 0),
    "posix-slots": ("posix", 128),
    "fat-append": ("fat", 0),
    "fat-slots": ("fat", 128),
    "littlefs-append": ("littlefs", 0),
    "littlefs-slots": ("littlefs", 128),
    "littlefs-slots512": ("littlefs", 512),
}
# The others fill segments with zeros ahead, on posix.
ALL = {**SETUPS, "posix-append-growing": ("posix", 0, 0)}
SWEPT = amount(list(ALL), sample=["posix-append", "posix-slots"])
counts = collections.Counter()


class Findings:
    """What a sweep saw: how many states, how often each promise was asked, and what broke it."""

    def __init__(self):
        self.states = 0
        self.asked = collections.Counter()
        self.broken = {}
        self.where = None

    def hold(self, promise, holds, *facts):
        self.asked[promise] += 1
        if not holds:
            self.broken.setdefault(promise, []).append((self.where, *facts))


def photographs(scenario, setup):
    """Run `scenario(world)`; return the world before each of its changes, and at its end."""
    world = World(*ALL[setup])
    photos = []
    if scenario in PASTS:
        PASTS[scenario](world)
    world.record(photos)
    scenario(world)
    photos.append(world.copy())
    return photos


def states_of(photos, seen, few=False):
    """Yield (index of the photo, world after a cut there), those that are new to `seen`."""
    for i, photo in enumerate(photos):
        facts = photo.facts()
        for contents in photo.disk.after_cut(few):
            key = (frozenset(contents.items()), facts)
            if key not in seen:
                seen.add(key)
                yield i, photo.copy(contents)


@functools.cache
def sweep(scenario, setup):
    """Cut `scenario` everywhere and examine what is left, until a promise is broken."""
    findings = Findings()
    for i, world in states_of(photographs(scenario, setup), set()):
        findings.where = i
        findings.states += 1
        examine(world, findings.hold, again=findings.states % 8 == 0)
        if findings.broken:
            break  # enough: where a sync is missing there are tens of thousands of states
    counts["after one cut"] += findings.states
    return findings


# --- scenarios ---


def pad(key, size):
    """A record whose line has about `size` bytes."""
    return [key, "x" * (size - 22)]


def steady(world):
    """Readings that arrive one by one, with an outage, a lost answer and a 500 in between."""
    answers = [200] * 3 + ["down", 500, "lost", 200, "lost"]
    cache = world.open()
    for value in range(24):
        world.server.answers = [answers[value % len(answers)]]
        cache.outbox._next = 0  # no waiting in a model
        world.add(cache, value)
    cache.close()


def outage(world):
    """Records pile up until the slots are full, and more."""
    cache = world.open(None)
    for value in range(34, 50):
        world.add(cache, value)
    cache.close()


def _before_outage(world):
    cache = world.open(None)
    for value in range(34):
        world.add(cache, value)
    cache.close()


def drain(world):
    """A backlog in several segments leaves in batches, while new records come."""
    cache = world.open(upload_limit=7, max_bytes=8 * world.block)
    world.server.answers = [200, "lost", 200, 500, 200, "down", "lost", 200, 500]
    for value in range(10):
        cache.outbox._next = 0
        cache.flush()
        world.note(cache)
        cache.outbox._next = 1 << 60
        world.add(cache, 100 + value)
    cache.close()


def _before_drain(world):
    cache = world.open(None, max_bytes=8 * world.block)
    for value in range(22):
        world.add(cache, pad(value, world.block // 10))
    cache.close()


def ack(world):
    """A small backlog leaves record by record."""
    cache = world.open(upload_limit=1)
    cache.flush()
    world.note(cache)
    cache.close()


def _before_ack(world):
    cache = world.open(None)
    for value in range(12):
        world.add(cache, value)
    cache.close()


def roll(world):
    """The journal becomes a segment, twice."""
    cache = world.open(None, max_bytes=8 * world.block)
    for value in range(90, 100):
        world.add(cache, pad(value, world.block // (2 + value % 4)))
    cache.close()


def _before_roll(world):
    cache = world.open(None, max_bytes=8 * world.block)
    world.add(cache, 1)
    world.add(cache, 2)
    cache.close()


def drop_oldest(world):
    """A full log drops its oldest segments, while it delivers and while it does not."""
    cache = world.open(upload_limit=2, max_bytes=8 * world.block)
    world.server.answers = ["down", 200]
    for value in range(90, 98):
        cache.outbox._next = 0 if value in (91, 95) else 1 << 60
        world.add(cache, pad(value, world.block // 2))
    cache.close()


def _before_drop_oldest(world):
    cache = world.open(None, max_bytes=8 * world.block)
    while cache.stats["dropped"] == 0:
        world.add(cache, pad(len(world.tried), world.block // 2))
    cache.close()


def first_boot(world):
    """No directory worth the name, then the first record."""
    world.open(None).close()
    cache = world.open()
    world.add(cache, 1)
    cache.close()


def reboots(world):
    """A deep-sleep device: every reading is a boot."""
    for value in range(12):
        world.server.answers = [("lost", 200, "down", 200, 500)[value % 5]]
        cache = world.open()
        world.add(cache, value)
        cache.close(timeout=0)


def upgrade(world):
    """A log that the other journal left is gone on with, and goes back, and comes again."""
    here = world.slot_size
    for value, slot_size in enumerate((here, 0 if here else 128, here)):
        world.slot_size = slot_size
        cache = world.open(None)
        world.add(cache, 200 + 2 * value)
        world.add(cache, 201 + 2 * value)
        cache.close()
    cache = world.open(upload_limit=4)
    cache.flush()
    world.note(cache)
    cache.close()


def _before_upgrade(world):
    here = world.slot_size
    world.slot_size = 0 if here else 128
    cache = world.open(upload_limit=2)
    world.server.answers = [200, 200, 200, "down"]
    for value in range(6):
        world.add(cache, value)
    cache.close()
    world.slot_size = here


def groups(world):
    """Several records in one commit: one slot, several slots, and too much for slots."""
    cache = world.open()
    value = 0
    for sizes in ((13, 13), (60, 60, 60), (13, 300), (13,) * 5, (100,) * 4, (13,) * 20, (30,) * 9):
        world.server.answers = [200 if value % 2 else "down"]
        cache.outbox._next = 0
        keys = range(value, value + len(sizes))
        world.add(cache, *[pad(k, size) if size > 22 else k for k, size in zip(keys, sizes)])
        value += len(sizes)
    cache.close()


def filled(world):
    """A log that a killed host has left, with zeros behind its last line, is gone on with."""
    cache = world.open(None, max_bytes=8 * world.block)
    for value in range(90, 96):
        world.add(cache, pad(value, 60))
    cache.close()


def _before_filled(world):
    cache = world.open(None, max_bytes=8 * world.block)
    world.add(cache, *[pad(value, 30) for value in range(9)])  # in a segment, with slots, too
    cache.close()
    disk = world.disk
    name = max((name for name in disk.names if name.endswith(".log")), default=None)
    if name:
        content = disk.content(disk.names[name]) + bytes(700)
        disk.files[disk.names[name]] = content, (), content


SCENARIOS = (
    steady,
    outage,
    drain,
    ack,
    roll,
    drop_oldest,
    first_boot,
    reboots,
    upgrade,
    groups,
    filled,
)
# What happened before the scenario, while the power was on.
PASTS = {
    outage: _before_outage,
    drain: _before_drain,
    ack: _before_ack,
    roll: _before_roll,
    drop_oldest: _before_drop_oldest,
    upgrade: _before_upgrade,
    filled: _before_filled,
}


def core(world):
    """A first boot, a lost answer, a backlog, and all of it delivered."""
    cache = world.open()
    world.server.answers = [200, "lost", 500]
    for value in range(1, 4):
        world.add(cache, value)
    cache.outbox._next = 0
    world.add(cache, 4)
    cache.close()


def _recover(world):
    """A boot, a record, a delivery."""
    cache = world.open()
    world.add(cache, 10**6)
    cache.close()


def sweep_twice(setup, few=True, end=None):
    """
    Cut the core scenario everywhere, and the recovery from each of these cuts everywhere again.

    `few`: of the second cut's torn writes only some lengths; `end`: a time.monotonic() to stop at.
    """
    findings = Findings()
    seen = set()
    for i, world in states_of(photographs(core, setup), set()):
        photos = []
        world.record(photos)
        _recover(world)
        for j, twice in states_of(photos, seen, few):
            findings.where = i, j
            findings.states += 1
            examine(twice, findings.hold, again=findings.states % 8 == 0)
        if end and time.monotonic() > end:
            break
    counts["after a second cut, during recovery"] += findings.states
    return findings


class Life:
    """
    A long life of random programs and random cuts, which `seed` decides.

    Attributes: `world`; `cuts`, how many there were.
    """

    def __init__(self, seed):
        self.rng = rng = random.Random(seed)
        self.world = World(*SETUPS[rng.choice(list(SETUPS))], slots=8)  # full after a few adds
        self.world.step = rng.choice((0, 32, 64, 200, 4096))
        self.cuts = 0
        self._next = 0

    def run(self, cuts):
        """Live through `cuts` cuts, then look whether all is there."""
        rng = self.rng
        while self.cuts < cuts:
            world = self.world
            # Short lives and long ones.
            world.cut_after(rng.choice((rng.randrange(12), rng.randrange(80))))
            try:
                self._live()
            except Cut:
                pass
            self.cuts += 1
            ways = list(itertools.islice(world.disk.after_cut(few=rng.random() < 0.5), 400))
            self.world = world.copy(rng.choice(ways))
        self.world.slot_size = rng.choice((0, 128, 512))
        examine(self.world, max_bytes=8 * self.world.block)

    def _live(self):
        world, rng = self.world, self.rng
        while True:
            if rng.random() < 0.1:
                world.slot_size = rng.choice((0, 128, 512))
            cache = world.open(upload_limit=rng.choice((1, 2, 5, 500)), max_bytes=8 * world.block)
            look(world, cache)
            for _ in range(rng.randrange(20)):
                world.server.answers = [rng.choice((200, 200, 200, 500, "down", "lost"))]
                cache.outbox._next = 0 if rng.random() < 0.6 else 1 << 60
                what = rng.random()
                if what < 0.75:
                    world.add(cache, self._value())
                elif what < 0.9:
                    group = [self._value() for _ in range(rng.randrange(1, 6))]
                    size = sum(len(str(value)) + 30 for value in group)
                    world.add(cache, *(group if size < world.block else group[:1]))
                else:
                    cache.flush()
                    world.note(cache)
            cache.close()

    def _value(self):
        self._next += 1
        size = self.rng.choice((0, 0, 0, 40, 90, 130, self.world.block // 6 - 8))
        return pad(self._next, size) if size else self._next


# --- the tests ---


@pytest.mark.parametrize("setup", SWEPT)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_no_cut_breaks_a_promise(scenario, setup):
    findings = sweep(scenario, setup)
    assert findings.broken == {}
    assert findings.states > 5


def _hold_everywhere(*promises):
    """Fail when one of `promises` was broken anywhere, or never asked."""
    for setup in ALL:
        for scenario in SCENARIOS:
            findings = sweep(scenario, setup)
            for promise in promises:
                assert findings.broken.get(promise, []) == [], (promise, setup, scenario)
                assert findings.asked[promise] > 0, (promise, setup, scenario)


def test_s1_what_was_stored_survives_any_cut():
    _hold_everywhere("S1", "D1")


def test_s2_nothing_is_sent_that_was_not_added():
    _hold_everywhere("S2")


def test_s3_order_is_kept_numbers_are_for_ever_and_what_is_missing_is_counted():
    _hold_everywhere("S3", "D3")


def test_s4_what_was_acknowledged_does_not_come_back():
    _hold_everywhere("S4", "D2")


def test_s5_opening_succeeds_after_any_cut():
    _hold_everywhere("S5")


def test_d4_a_retry_repeats_bytes_and_key_after_any_cut():
    _hold_everywhere("D4")


@pytest.mark.parametrize("setup", SWEPT)
def test_s9_opening_reads_the_cursor_and_the_newest_records_only(setup):
    def work(records):
        world = World(*ALL[setup])
        cache = world.open(None, max_bytes=1 << 17)
        # The same records at the end, whatever is before them.
        for value in (*range(1000, 1000 + records), *range(9000, 9050)):
            world.add(cache, pad(value, 100))
        cache.close()
        done = collections.Counter()
        world.disk.on_read = lambda n: done.update(bytes=n)
        world.disk.on_call = lambda function: done.update([function])
        cache = world.open(None, max_bytes=1 << 17)
        world.disk.on_read = world.disk.on_call = None
        assert len(cache) == records + 50
        cache.close()
        return done["open"], done["bytes"]

    small, large = work(100), work(1000)
    assert small[0] == large[0]
    # Two cursors, the end of the newest segment, and the slots with the segment they went to.
    slots = ALL[setup][1]
    most = 2 * 128 + 2048 + (40 * max(128, slots) + (1 << 14) if slots else 0)
    assert 0 < small[1] <= most and 0 < large[1] <= most


@pytest.mark.parametrize("setup", amount(list(ALL), sample=["posix-slots"]))
def test_a_second_cut_during_recovery_breaks_no_promise(setup):
    # Where a cut leaves the most, on posix with slots, every torn length is for `make torture`.
    findings = sweep_twice(setup, few=setup == "posix-slots")
    assert findings.broken == {}
    assert findings.states > 30


@pytest.mark.parametrize("block", range(amount(20, nightly=200, sample=2)))
def test_no_cut_in_a_long_life_breaks_a_promise(block):
    for seed in range(50 * block, 50 * block + 50):
        life = Life(seed)
        try:
            life.run(8)
        except Exception as e:
            raise AssertionError("POSTCACHE_TORTURE_SEED=%d" % seed) from e
        counts["in random lives"] += life.cuts


def test_torture():
    seconds = float(os.environ.get("POSTCACHE_TORTURE_SECONDS", "0"))
    seed = os.environ.get("POSTCACHE_TORTURE_SEED")
    if not seconds and not seed:
        pytest.skip("make torture")
    if seed:
        Life(int(seed)).run(60 if int(seed) >= 10**6 else 8)
        return
    end = time.monotonic() + seconds
    # Every length of every torn write of both cuts first, for a third of the time.
    for setup in ALL:
        findings = sweep_twice(setup, few=False, end=time.monotonic() + seconds / 21)
        assert findings.broken == {}
    while time.monotonic() < end:
        seed = random.SystemRandom().randrange(10**6, 10**12)
        life = Life(seed)
        try:
            life.run(60)
        except Exception as e:
            raise AssertionError("POSTCACHE_TORTURE_SEED=%d" % seed) from e
        counts["in random lives"] += life.cuts
    say(f"torture on the model: {sum(counts.values()):,} cuts")


# --- the model itself ---


def _left(disk):
    return [tuple(sorted(state.items())) for state in disk.after_cut()]


def test_the_model_itself_loses_what_is_not_synced():
    disk = Disk("posix")
    number = disk.create("a")
    disk.change(number, (0, b"abcdef"), "a")
    states = _left(disk)
    assert () in states  # the name was not synced
    for n in range(7):
        assert (("a", b"abcdef"[:n]),) in states
    assert (("a", bytes(6)),) in states
    disk.sync(number)
    assert (("a", b"abcdef"),) in _left(disk) and () in _left(disk)
    disk.sync_names("")
    assert _left(disk) == [(("a", b"abcdef"),)]
    disk.change(number, 2, "a")
    assert _left(disk) == [(("a", b"abcdef"),), (("a", b"ab"),)]


def test_the_model_keeps_the_names_of_each_folder_apart():
    disk = Disk("posix")
    disk.make("+0")
    disk.sync(disk.create("+0/0"))
    disk.sync_names("")
    assert _left(disk) == [(("+0", None), ("+0/0", b"")), (("+0", None),)]
    disk.sync_names("+0")
    assert _left(disk) == [(("+0", None), ("+0/0", b""))]
    disk = Disk("posix")
    disk.make("+0")
    disk.create("+0/0")
    disk.sync_names("+0")
    assert () in _left(disk)  # nor is there a file in a folder that is not there


def test_the_model_of_littlefs_knows_old_and_new_only():
    disk = Disk("littlefs", {"a": b"old"})
    handle = power._Handle(disk, "a", "wb")
    handle.write(b"new content")
    assert _left(disk) == [(("a", b"old"),)]
    handle.flush()
    assert _left(disk) == [(("a", b"new content"),)]
    handle = power._Handle(disk, "b", "wb")
    handle.write(b"1")
    assert (("a", b"new content"),) in _left(disk)
    assert not [state for state in _left(disk) if ("b", b"1") in state]
    handle.close()
    assert _left(disk) == [(("a", b"new content"), ("b", b"1"))]


def test_the_model_of_fat_tears_what_is_not_flushed():
    disk = Disk("fat", {"a": b"old"})
    handle = power._Handle(disk, "a", "wb")
    handle.write(b"new")
    states = _left(disk)
    for data in (b"old", b"", b"n", b"ne", b"new", bytes(3)):
        assert (("a", data),) in states
    handle.flush()
    assert _left(disk) == [(("a", b"new"),)]


BROKEN = ("no data sync", "no directory sync", "no freeze", "early ack", "no slot order")


@pytest.mark.parametrize("broken", BROKEN)
def test_the_model_finds_what_is_taken_away(broken, monkeypatch):
    import postcache.log
    import postcache.log.slots

    if broken == "no data sync":
        monkeypatch.setattr(power._Posix, "fdatasync", lambda self, fd: None)
    elif broken == "no directory sync":
        monkeypatch.setattr(power._Posix, "fsync", lambda self, fd: None)
    elif broken == "no freeze":
        monkeypatch.setattr(postcache.log.Log, "freeze", lambda self, last: True)
    elif broken == "early ack":
        append = postcache.log.Log.append

        def early(self, payloads):
            seq = append(self, payloads)
            self.acked = seq
            self._put()
            return seq

        monkeypatch.setattr(postcache.log.Log, "append", early)
    else:  # one slot for all: also one that is still needed is written to
        monkeypatch.setattr(postcache.log.slots, "slot_name", lambda slot: "+0/0")
    cached = dict(counts)
    for scenario in (steady, outage, reboots):
        for setup in ("posix-append", "posix-slots"):
            if sweep.__wrapped__(scenario, setup).broken:
                counts.clear()
                counts.update(cached)
                return
    pytest.fail("nobody noticed")


def test_how_many_cuts_were_made():
    for what, n in sorted(counts.items()):
        say("power cuts on the model, %s: %d" % (what, n))
    tally(sum(counts.values()))
    assert sum(counts.values()) > amount(100000, sample=10000)
