"""
A file system that fails: at every call, in every way, once and until it is repaired.

Programs run on the model disk of power.py, with a layer in between that counts the calls and lets
the n-th one fail, for every n until there are no more calls: before it did anything, when it was
done, or after the first half of a write. Then the program lives on, or the power goes, and all
that was acknowledged to it must be there (S7), what was refused must not, and the next add works.
"""

import collections
import gc
import itertools

import power
import pytest
from power import World, examine, look
from test_power_cuts import SETUPS, pad

from conftest import say, tally
from postcache.log.line import decode

faults = collections.Counter()

NO_SPACE, BROKEN, NO_MEMORY = (OSError, 28, "no space"), (OSError, 5, "broken"), (MemoryError,)
# How a call fails: with what, when, and whether all calls from there on do.
WAYS = {
    "EIO": (BROKEN, "before", False),
    "EIO until repaired": (BROKEN, "before", True),
    "EIO when it was done": (BROKEN, "after", False),
    "ENOSPC in the middle": (NO_SPACE, "half", False),
    "ENOSPC until repaired": (NO_SPACE, "half", True),
    "MemoryError": (NO_MEMORY, "before", False),
}
FOUR = ("posix-append", "posix-slots", "littlefs-append", "littlefs-slots")


class Plan:
    """
    Which call fails, and how.

    Args:
        n: int, the first call that fails, counted from 0; None: none.
        error, when: how it fails, as in WAYS.
        lasting: whether all calls from there on fail, until repair().
    """

    def __init__(self, n, error=BROKEN, when="before", lasting=False):
        self.left = n
        self.kind = error[0]
        self.error = lambda: error[0](*error[1:])
        self.when = when
        self.lasting = lasting
        self.fired = 0
        self.failed = set()  # names of files that a write or a sync has failed on
        self.abused = []  # those that were written to or synced afterwards

    def repair(self):
        self.left = None

    def now(self):
        """True when the call that is being made fails."""
        if self.left is None:
            return False
        self.left -= 1
        if self.left >= 0:
            return False
        if not self.lasting:
            self.left = None
        self.fired += 1
        return True

    def call(self, function, *args):
        if not self.now():
            return function(*args)
        if self.when == "half" and args and isinstance(args[-1], bytes):
            function(*args[:-1], args[-1][: len(args[-1]) // 2])
        elif self.when == "after":
            result = function(*args)
            if hasattr(result, "close"):
                result.close()
        raise self.error()


class FaultyFile:
    """An open file whose calls may fail."""

    def __init__(self, file, name, plan):
        self._file = file
        self._name = name
        self._plan = plan

    def _change(self, function, *args):
        plan = self._plan
        if self._name in plan.failed:
            plan.abused.append(self._name)
        try:
            return plan.call(function, *args)
        except (OSError, MemoryError):
            plan.failed.add(self._name)
            raise

    def write(self, data):
        return self._change(self._file.write, data)

    def flush(self):
        return self._change(self._file.flush)

    def close(self):
        return self._plan.call(self._file.close)

    def read(self, *args):
        return self._plan.call(self._file.read, *args)

    def readline(self, *args):
        line = self._file.readline(*args)
        if line != b"\n":  # what a slot is filled up with is no call worth failing
            self._plan.call(len, line)
        return line

    def seek(self, *args):
        return self._plan.call(self._file.seek, *args)

    def __iter__(self):
        return self

    def __next__(self):
        line = self.readline()
        if not line:
            raise StopIteration
        return line

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self._file.close()


class FaultyDirectory:
    """A Directory whose calls may fail, but for those that are about nobody's bytes."""

    def __init__(self, fs, plan):
        self._fs = fs
        self._plan = plan

    def __getattr__(self, name):
        value = getattr(self._fs, name)
        if name in ("check", "close") or not callable(value):
            return value
        return lambda *args: self._plan.call(value, *args)

    def __setattr__(self, name, value):
        target = self if name in ("_fs", "_plan") else self._fs
        object.__setattr__(target, name, value)

    def open(self, name, mode):
        plan = self._plan
        if mode == "wb":
            plan.failed.discard(name)  # emptied: another file, of the same name
        elif mode == "ab" and name in plan.failed:
            plan.abused.append(name)
        return FaultyFile(plan.call(self._fs.open, name, mode), name, plan)


# --- the programs: a past without faults, and steps that may fail ---


def _adds(world, first, n, size=0):
    return [
        lambda cache, key=key: world.add(cache, pad(key, size) if size else key)
        for key in range(first, first + n)
    ]


def add(world):
    world.server.answers = [200, "lost", "down", 200, 500, 200]
    return _adds(world, 1000, 6)


def add_in_an_outage(world):
    world.server.answers = ["down"] * 100
    return _adds(world, 1000, 5)


def roll(world):
    """Segments fill up, and slots are written to a segment (pre-filled by the past)."""
    world.server.answers = ["down"] * 100
    return _adds(world, 1000, 3) + _adds(world, 1003, 4, world.block // 2 - 30)


def seal_slots(world):
    world.server.answers = ["down"] * 100
    return _adds(world, 1000, 5)


def drop_oldest(world):
    world.server.answers = ["down"] * 100
    return _adds(world, 1000, 4, world.block // 2 + 20)


def add_many(world):
    world.server.answers = ["down", 200, 200, 200]
    groups = ([1000, 1001], [1002, pad(1003, 100), pad(1004, 100)], [1005, pad(1006, 300)])
    return [lambda cache, group=group: world.add(cache, *group) for group in groups]


def drain(world):
    def flush(cache):
        cache.outbox._next = 0
        cache.flush()

    return [flush, *_adds(world, 1000, 1), flush]


def reopen(world):
    return []


PASTS = {roll: 2, seal_slots: 6, drain: 7, reopen: 5}
PROGRAMS = (add, add_in_an_outage, roll, seal_slots, drop_oldest, add_many, drain, reopen)


def _past(program, setup):
    # Few slots are full soon, and read soon: each of the thousands of runs boots several times.
    world = World(*SETUPS[setup], slots=8)
    cache = world.open(None, max_bytes=8 * world.block)
    if program is drop_oldest:
        while cache.stats["dropped"] == 0:
            world.add(cache, pad(len(world.tried), world.block // 2))
        world.dropped = cache.stats["dropped"]
    for value in range(PASTS.get(program, 0)):
        world.add(cache, value)
    cache.close()
    return world


def _open(world, plan):
    """Open, if need be a second time, which must work when the fault is gone."""
    options = {"max_bytes": 8 * world.block, "upload_limit": 3}
    try:
        return world.open(**options)
    except (OSError, MemoryError):
        assert plan.fired
        plan.repair()
        return world.open(**options)


def _live(world, plan, steps):
    """Run `steps`; whoever gets an exception gets one of the fault's kind, and goes on."""
    cache = _open(world, plan)
    for step in steps:
        fired = plan.fired
        try:
            step(cache)
        except (OSError, MemoryError) as e:
            error = e
        else:
            continue
        assert plan.fired > fired, "an error out of nothing: %r" % error
        assert isinstance(error, plan.kind)
    return cache


def _every_fault(program, setup, error, when, lasting, layer):
    """Yield (world, plan, cache) for each call of `program` that can fail, when it has ended."""
    past = _past(program, setup)
    n = 0
    while True:
        world = past.copy()
        plan = Plan(n, error, when, lasting)
        layer(world, plan)
        cache = _live(world, plan, program(world))
        if not plan.fired:
            plan.repair()
            cache.close()
            return
        # A cursor that could not be read or written is one step behind.
        world.dropped = past.dropped + cache.storage.dropped
        world.acked = 0  # an ack that failed costs a duplicate
        yield world, plan, cache
        n += 1


def _in_the_directory(world, plan):
    world.wrap = lambda fs: FaultyDirectory(fs, plan)


def _in_the_system(world, plan):
    def call(function):
        # Not close(): what it may still say, __del__ would say to nobody.
        if function != "close" and plan.now():
            raise plan.error()

    world.disk.on_call = call


def _check(world, plan, cache):
    """Look at the ends that a program may have when it has met a fault; return how many."""
    options = {"max_bytes": 8 * world.block}
    # A reboot before the next add: what was refused may be there, and need not.
    world.wrap = world.disk.on_call = None
    examine(world.copy(world.disk.contents()), again=False, **options)
    power.directory(world.disk)  # that one was elsewhere
    # The fault goes away: the next add works, and from now on nothing that was refused is there.
    plan.repair()
    world.add(cache, 5000)
    world.acked = 0
    world.dropped = max(world.dropped, cache.storage.dropped)
    ends = 2
    for contents in world.disk.after_cut(few=True):
        examine(world.copy(contents), again=False, **options)
        ends += 1
    # Or the program lives on: everything arrives.
    power.directory(world.disk)
    look(world, cache)
    world.server.answers = []
    # The second one: the batch that is in flight may have been dropped, which fails once.
    assert cache.flush() or cache.flush(), cache.stats
    cache.close()
    delivered = set(world.server.records)
    assert not delivered & world.dead
    assert len([key for key in world.told if key not in delivered]) <= world.dropped
    assert world.server.records == sorted(delivered)
    assert world.server.errors == []
    return ends


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("setup", FOUR)
@pytest.mark.parametrize("program", PROGRAMS)
def test_s7_no_failing_call_loses_what_was_acknowledged(program, setup, way):
    n = 0
    for run in _every_fault(program, setup, *WAYS[way], _in_the_directory):
        faults["in a call of the directory"] += 1
        faults["ends that were looked at"] += _check(*run)
        n += 1
    assert n > 5


# ENOSPC is for the zeros that a segment is filled ahead with: then it goes on without them.
@pytest.mark.parametrize("way", ["EIO", "EIO until repaired", "ENOSPC"])
@pytest.mark.parametrize("setup", ["posix-append", "posix-slots"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_s7_no_failing_call_of_the_system_loses_what_was_acknowledged(program, setup, way):
    system = power._port("cpython")[1]
    gc.collect()
    before = set(system._open)  # of worlds whose power went
    n = 0
    error = NO_SPACE if way == "ENOSPC" else BROKEN
    lasting = "until" in way
    for run in _every_fault(program, setup, error, "before", lasting, _in_the_system):
        faults["in a call of the system"] += 1
        faults["ends that were looked at"] += _check(*run)
        n += 1
    assert n > 5
    del run
    gc.collect()
    assert set(system._open) <= before  # no descriptor is forgotten on the way


@pytest.mark.parametrize("setup", SETUPS)
def test_a_file_whose_sync_has_failed_is_never_written_or_synced_again(setup):
    n = failed = 0
    for program in (add, roll, seal_slots, add_many):
        for way in ("EIO", "EIO when it was done", "ENOSPC in the middle"):
            for _, plan, cache in _every_fault(program, setup, *WAYS[way], _in_the_directory):
                for key, size in ((6000, 0), (6001, 200), (6002, 0)):
                    cache.add_request(pad(key, size) if size else key)
                cache.close()
                assert plan.abused == []
                failed += bool(plan.failed)
                n += 1
    assert n > failed > 3


# --- a flush that lies ---


def _numbers(data):
    return {record[0] for record in map(decode, data.splitlines(True)) if record}


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "until the cut"])
@pytest.mark.parametrize("setup", SETUPS)
@pytest.mark.parametrize("program", [add, add_in_an_outage, roll, seal_slots, add_many, drain])
def test_a_flush_that_lies_costs_what_it_lied_about(program, setup, lasting):
    past = _past(program, setup)
    n = 0
    while True:
        world = past.copy()
        plan = Plan(n, lasting=lasting)
        numbers = set()

        def lying(number, world=world, plan=plan, numbers=numbers):
            # A folder's sync is about names, and is one that lies only together with all others.
            if (number == -1 and not plan.lasting) or not plan.now():
                return False
            if number != -1:
                durable, _, content = world.disk.files[number]
                numbers |= _numbers(content) - _numbers(durable)
            return True

        world.disk.lying = lying
        told = {}

        def follow(step, world=world, plan=plan, told=told):
            def run(log):
                step(log)
                if not plan.fired:
                    told.update(world.told)

            return run

        cache = _live(world, plan, [follow(step) for step in program(world)])
        cache.close()
        if not plan.fired:
            break
        n += 1
        later = set(world.told) - set(told) - set(past.told) if lasting else set()
        lied = later | {key for key, seq in world.told.items() if seq in numbers}
        assert lasting or len(lied) < 30
        world.acked = 0
        for contents in itertools.islice(world.disk.after_cut(few=True), 40):
            after = world.copy(contents)
            again = after.open(max_bytes=8 * world.block)
            look(after, again, lied=lied)
            assert after.add(again, 9000) > 0
            again.close()
            faults["after a flush that lied"] += 1
    assert n > 2


# --- a disk that is full ---


class FullDirectory:
    """A Directory on a disk that takes `free` more bytes; what shrinks and what stays is free."""

    def __init__(self, fs, disk, free):
        self._fs = fs
        self._disk = disk
        self._most = self._used() + free

    def _used(self):
        return sum(len(data or b"") + 32 for data in self._disk.contents().values())

    def __getattr__(self, name):
        return getattr(self._fs, name)

    def _check(self, more):
        if self._used() + more > self._most:
            raise OSError(28, "no space")

    def _new(self, name):
        if name not in self._disk.names:
            self._check(32)

    def make(self, name):
        self._new(name)
        return self._fs.make(name)

    def put(self, name, data):
        there = self._disk.contents().get(name, b"")
        self._check(max(0, len(data.ljust(128, b"\n")) - max(128, len(there))) if there else 160)
        return self._fs.put(name, data)

    def open(self, name, mode):
        if mode != "rb":
            self._new(name)
        file = self._fs.open(name, mode)
        if mode != "rb":
            write = file.write

            class Writer:
                def write(_, data):  # noqa: N805
                    self._check(len(data))
                    return write(data)

                flush, close = file.flush, file.close

            return Writer()
        return file

    def free(self):
        return 1 << 30  # as it was when the log asked: somebody else has filled the disk since


def _fill(world, cache):
    """Add until the disk says that it is full; returns how many were refused."""
    refused = 0
    key = 2000
    while refused < 3:
        try:
            world.add(cache, pad(key, world.block // 3))
        except OSError as e:
            if e.errno != 28:
                raise
            refused += 1
        key += 1
        assert key < 2100
    return refused


@pytest.mark.parametrize("setup", SETUPS)
def test_s8_a_full_disk_takes_an_ack_and_then_records_again(setup):
    world = _past(drain, setup)
    # The second cursor is there before the disk is full, as after any ack.
    world.server.answers = [200, "down"]
    cache = world.open(upload_limit=2)
    cache.flush()
    cache.close()
    world.wrap = lambda fs: FullDirectory(fs, world.disk, 3 * world.block)
    cache = world.open(max_bytes=64 * world.block)
    cache.outbox._next = 1 << 60
    _fill(world, cache)
    assert cache.flush() and len(cache) == 0
    assert cache.stats["dropped"] == 0
    world.note(cache)
    # Durably so: nothing comes back.
    world.wrap = None
    for contents in world.disk.after_cut():
        examine(world.copy(contents))
    world.add(cache, 9000)  # and there is room
    cache.close()
    assert [key for key in world.told if key not in set(world.server.records)] == []


@pytest.mark.parametrize("setup", SETUPS)
def test_s8_a_log_that_is_full_drops_on_a_disk_that_is_full(setup):
    world = _past(drop_oldest, setup)
    world.wrap = lambda fs: FullDirectory(fs, world.disk, world.block)
    cache = world.open(None, max_bytes=8 * world.block)
    before = cache.stats["dropped"]
    key = 3000
    while cache.stats["dropped"] < before + 4:
        world.add(cache, pad(key, world.block // 2))
        key += 1
        assert key < 3100
    cache.close()
    world.wrap = None
    examine(world, max_bytes=8 * world.block)


def test_how_many_faults_there_were():
    for what, n in sorted(faults.items()):
        say("faults %s: %d" % (what, n))
    # What was found when the program ended and the log was opened again is no fault of its own.
    tally(sum(n for what, n in faults.items() if "ends" not in what))
    assert sum(faults.values()) > 10000
