"""
Power cuts at every operation: nothing that was stored is lost, and each record arrives once.

A scenario runs once on the model disk of power.py. Before each operation that changes the disk,
and within each write, the world is photographed: the disk, what the program was told, what the
server holds. From each photograph every state that the cut may leave is booted and must keep all
promises. The promises are checked twice: on what is found, and after everything was delivered.
"""

import copy
import json

import pytest

import postcache.client
from conftest import say
from postcache import POSTCache
from power import ROOT, Disk, directory

cuts = 0


class Server:
    """An exactly-once receiver that outlives the device; `answers` are played like a script."""

    def __init__(self):
        self.highest = {}
        self.records = []
        self.bodies = {}
        self.answers = []

    def post(self, url, headers, chunks, timeout):
        body = b"".join(chunks)
        assert len(body) == int(headers["Content-Length"])
        answer = self.answers.pop(0) if self.answers else 200
        if answer == "down":
            raise OSError(111, "refused")
        key = headers["Idempotency-Key"]
        # D4: a retry repeats bytes and key, also after a reboot.
        assert self.bodies.setdefault(key, body) == body
        stream = headers["Postcache-Stream"]
        first, last = int(headers["Postcache-First"]), int(headers["Postcache-Last"])
        lines = json.loads(body)["lines"]
        assert len(lines) == last - first + 1
        if answer in (200, "lost"):
            for i, record in enumerate(lines):
                if first + i > self.highest.get(stream, 0):
                    self.records.append(record)
                    self.highest[stream] = first + i
        if answer == "lost":
            raise OSError(104, "reset after it was stored")
        return answer, {}


class World:
    """A disk, a server, and what the program was told."""

    def __init__(self):
        self.disk = Disk()
        self.server = Server()
        self.tried = []  # values handed to add_request
        self.told = {}  # value: sequence number, once add_request returned
        self.acked = 0  # the cursor has moved past this number and is durable
        self.dropped = 0  # records that a full log may have given up by now

    def copy(self):
        twin = World()
        twin.disk = self.disk.copy()
        twin.server = copy.deepcopy(self.server)
        twin.tried = list(self.tried)
        twin.told = dict(self.told)
        twin.acked = self.acked
        twin.dropped = self.dropped
        return twin

    def record(self, photos):
        """From now on, photograph the world before each change of the disk and within writes."""

        def photograph(kind, file, data):
            names = [name for name in self.disk.names if self.disk.names[name] is file]
            photos.append(self.copy())
            if kind == "write" and names:
                size = len(data)
                lengths = set(range(1, size, 1 if names[0].endswith(".log") else 9)) | {size}
                for n in sorted(lengths):
                    photo = self.copy()
                    torn = photo.disk.names[names[0]]
                    where = len(file.content()) if names[0].endswith(".log") else 0
                    # The only unsynced write here: durable as torn, so that it is in every state.
                    assert not torn.pending or torn.pending == [None]
                    torn.durable = torn.content([*torn.pending, (where, bytes(data[:n]))])
                    torn.pending = []
                    photos.append(photo)

        self.disk.on_change = photograph

    def open(self, url="http://server/", **kwargs):
        postcache.client.Directory = directory(self.disk)
        kwargs.setdefault("max_bytes", 65536)
        return POSTCache(url, ROOT, http=self.server if url else None, **kwargs)

    def add(self, cache, value):
        self.tried.append(value)
        self.told[value] = cache.add_request(value)
        self.acked = max(self.acked, cache._log.acked if cache.stats["errors"] == 0 else 0)


@pytest.fixture(autouse=True)
def _directory():
    real = postcache.client.Directory
    yield
    postcache.client.Directory = real


def check(world):
    """Boot `world` after a cut, and hold every promise against it. Changes `world`."""
    global cuts
    cuts += 1
    store = world.open(None)  # S5: opening succeeds
    found = [(seq, json.loads(payload)) for seq, payload in store._log.read(None)]
    values = [value for _, value in found]
    numbers = [seq for seq, _ in found]
    assert set(values) <= set(world.tried)  # S2: nothing invented
    assert values == sorted(values)  # S3: in order
    assert numbers == sorted(set(numbers))
    for seq, value in found:
        assert world.told.get(value, seq) == seq  # a name is for ever
    here = set(values) | set(world.server.records)
    lost = [value for value in world.told if value not in here]
    assert len(lost) <= max(world.dropped, store._log.dropped)  # S1: what was stored is there
    for value, seq in world.told.items():
        if seq <= world.acked:
            assert value not in values  # S4: what was acknowledged does not come back
    store.close()

    world.server.answers = []
    cache = world.open()
    for value in (10**6, 10**6 + 1):
        seq = cache.add_request(value)
        assert seq not in world.told.values()  # a number is not given out twice
        world.tried.append(value)
        world.told[value] = seq
    assert cache.flush()
    assert len(cache) == 0
    cache.close()
    records = world.server.records
    assert records == sorted(set(records))  # D2, D3: once, in order
    assert set(records) <= set(world.tried)
    missing = [value for value in world.told if value not in set(records)]
    assert sorted(missing) == sorted(lost)  # D1: all that was there arrives
    again = world.open(None)
    assert len(again) == 0
    again.close()


def cut_everywhere(scenario, most=64):
    """Run `scenario(world)`, cut it at every operation, check all outcomes; returns the photos."""
    world = World()
    photos = []
    world.record(photos)
    scenario(world)
    photos.append(world.copy())
    for photo in photos:
        for disk in photo.disk.after_cut(most):
            after = photo.copy()
            after.disk = disk
            check(after)
    return photos


def steady(world):
    """Readings that arrive one by one, with an outage, a lost answer and a 500 in between."""
    answers = [200] * 4 + ["down", 500, "lost", 200, 200, "lost"]
    cache = world.open()
    for value in range(14):
        world.server.answers = [answers[value % len(answers)]]
        cache._outbox._next = 0  # no waiting in a model
        world.add(cache, value)
    cache.close()


def outage(world):
    """Records pile up over several segments, then drain in batches."""
    cache = world.open(None, max_bytes=4096)
    for value in range(20):
        world.add(cache, value)
    cache.close()
    cache = world.open(upload_limit=7, max_bytes=4096)
    cache.flush()
    for value in range(20, 24):
        world.add(cache, value)
    cache.close()


def drop_oldest(world):
    """A full log drops its oldest segments."""
    cache = world.open(None, max_bytes=4096)
    for value in range(140):
        world.add(cache, value)
        world.dropped = cache._log.dropped + 35  # a drop under way: a segment of 512 bytes
    cache.close()


def first_boot(world):
    world.open(None).close()
    cache = world.open()
    world.add(cache, 1)
    cache.close()


def reboots(world):
    """A deep-sleep device: every reading is a boot."""
    for value in range(5):
        world.server.answers = ["lost", 200, "down", 200, 500][value : value + 1]
        cache = world.open()
        world.add(cache, value)
        cache.close(timeout=0)


@pytest.mark.parametrize("scenario", [steady, outage, first_boot, reboots])
def test_no_cut_loses_repeats_or_reorders(scenario):
    photos = cut_everywhere(scenario)
    assert len(photos) > 15


def test_no_cut_while_dropping_loses_more_than_the_dropped_segment():
    world = World()
    photos = []
    world.record(photos)
    # 140 adds make 20,000 photographs: every 40th operation is cut, and every one around a drop.
    drop_oldest(world)
    for photo in photos[::10]:
        for disk in photo.disk.after_cut(8):
            after = photo.copy()
            after.disk = disk
            check(after)


@pytest.mark.parametrize("scenario", [steady, outage])
def test_a_second_cut_during_recovery_changes_nothing(scenario):
    world = World()
    photos = []
    world.record(photos)
    scenario(world)
    for photo in photos[::3]:
        for disk in photo.disk.after_cut(3):
            first = photo.copy()
            first.disk = disk
            again = []
            first.record(again)
            cache = first.open()
            first.add(cache, 10**5)
            cache.close()
            for twice in again[:: max(1, len(again) // 12)]:
                for rest in twice.disk.after_cut(4):
                    after = twice.copy()
                    after.disk = rest
                    check(after)


def test_the_model_itself_loses_what_is_not_synced():
    disk = Disk()
    file = disk.create("a")
    disk.write(file, 0, b"abcdef")
    states = {tuple((n, f.durable) for n, f in after.names.items()) for after in disk.after_cut()}
    assert () in states  # the name was not synced
    assert (("a", b""),) in states
    assert (("a", b"abc"),) in states
    assert (("a", b"abcdef"),) in states
    assert (("a", bytes(6)),) in states
    disk.sync(file)
    disk.sync_names()
    assert [dict(d.names)["a"].durable for d in disk.after_cut()] == [b"abcdef"]


@pytest.mark.parametrize("broken", ["no data sync", "no directory sync", "no freeze", "early ack"])
def test_the_model_finds_what_is_taken_away(broken, monkeypatch):
    import postcache.log
    import power

    if broken == "no data sync":
        monkeypatch.setattr(power._Os, "fdatasync", lambda self, fd: None)
    elif broken == "no directory sync":
        monkeypatch.setattr(power._Os, "fsync", lambda self, fd: None)
    elif broken == "no freeze":
        monkeypatch.setattr(postcache.log.Log, "freeze", lambda self, last: True)
    else:
        append = postcache.log.Log.append

        def early(self, payloads):
            seq = append(self, payloads)
            self.acked = seq
            self._put()
            return seq

        monkeypatch.setattr(postcache.log.Log, "append", early)
    found = 0
    for scenario in (steady, outage, reboots):
        try:
            cut_everywhere(scenario, most=8)
        except AssertionError:
            found += 1
    assert found


def test_how_many_cuts_were_made():
    say("power cuts on the model: %d" % cuts)
    assert cuts > 10000
