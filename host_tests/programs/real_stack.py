"""
The power-cut machine on real file systems, under MicroPython: littlefs and FAT on a device in RAM.

    real_stack.py cuts FS SCENARIO JOURNAL [NAME=VALUE ...]     single cuts
    real_stack.py recut FS SCENARIO JOURNAL [NAME=VALUE ...]    and a second one in the boot after
    real_stack.py faults FS MODE JOURNAL [NAME=VALUE ...]       the device fails, the program lives
    real_stack.py full FS MODE JOURNAL                          a stranger fills the file system
    real_stack.py boot FS - JOURNAL                             what opening reads, by backlog

FS: esp32 or pico (littlefs as on these boards), fat. JOURNAL: append or slot. The last line that
is printed is JSON with what was counted; a failure prints the command line that shows it again.
Needs a heap of 64 MB: micropython -X heapsize=64M.

A scenario runs once and is recorded: each program and erase with its bytes, and between them what
the program was told and what the server holds. The recording is then played: before each
operation, and at several points within it, the power goes; the bytes of the device are mounted by
a fresh file system, and the log on it must keep every promise. So nothing can reach the device
after the cut: the device that is examined is another one.
"""

import json
import os
import random
import sys

import postcache.assemble
import postcache.log
import postcache.log.recover
from postcache import POSTCache
from postcache.ports.micropython import files as port

DIR = "/ram/log"
URL = "http://server/"
ERASE, PROGRAM, TRIED, TOLD, ACKED, OPENED, BODY, STORED = range(8)

# FS: size and number of blocks (the fewest that the scenarios fit in: each cut copies them all),
# what the file system is told, slot size.
SYSTEMS = {
    "esp32": (4096, 32, {"progsize": 32, "readsize": 32}, 128),
    "pico": (4096, 32, {"progsize": 256}, 512),
    "fat": (512, 256, None, 128),
}


# --- The device ---


class Device:
    """
    NOR flash of `count` blocks of `size` bytes in RAM; for FAT a card with sectors.

    Flash: an erase makes FF, a program only clears bits, and asking for more is an error of the
    file system's. With a list as `events`, what changes the device is noted in it.
    """

    def __init__(self, system, count=0):
        self.size, blocks, self.options, _ = SYSTEMS[system]
        self.count = count or blocks
        self.bytes = bytearray(b"\xff" * self.size * self.count)
        self.view = memoryview(self.bytes)
        self.events = None
        self.strict = True

    def make(self):
        """Make a file system: the factory's work."""
        if self.options is None:
            os.VfsFat.mkfs(self)
        else:
            os.VfsLfs2.mkfs(self, **self.options)

    def mount(self):
        """Mount the bytes as they are, with nothing remembered from before."""
        if self.options is None:
            vfs = os.VfsFat(self)
        else:
            vfs = os.VfsLfs2(self, **self.options)
        os.mount(vfs, "/ram")

    def readblocks(self, block, buffer, offset=0):
        at = block * self.size + offset
        buffer[:] = self.view[at : at + len(buffer)]

    def writeblocks(self, block, buffer, offset=0):
        at = block * self.size + offset
        piece = self.view[at : at + len(buffer)]
        if self.options is not None:
            new = int.from_bytes(buffer, "little")
            old = int.from_bytes(piece, "little")
            if new & old != new:
                assert not self.strict, "a program must only clear bits"
                buffer = (new & old).to_bytes(len(buffer), "little")
            if self.events is not None:
                self.events.append((PROGRAM, at, bytes(buffer)))
        elif self.events is not None:
            for i in range(0, len(buffer), 512):  # a card's unit is the sector
                self.events.append((PROGRAM, at + i, bytes(buffer[i : i + 512])))
        piece[:] = buffer

    def ioctl(self, op, arg):
        if op == 4:
            return self.count
        if op == 5:
            return self.size
        if op == 6 and self.options is not None:
            if self.events is not None:
                self.events.append((ERASE, arg * self.size, b"\xff" * self.size))
            at = arg * self.size
            self.view[at : at + self.size] = b"\xff" * self.size
        return 0


class BadDevice(Device):
    """
    A device that counts its calls and fails: the `at`-th of `kind`, and `lasting` - 1 after it.

    It answers with an error, as a driver in C does, or raises it, as those in Python do.
    """

    kind = ""
    at = lasting = calls = reads = read = failed = 0
    style = "answer"
    deaf = False  # see DeafOs

    def _fails(self, kind):
        if kind != self.kind or self.deaf:
            return 0
        self.calls += 1
        if not self.at <= self.calls < self.at + self.lasting:
            return 0
        self.failed += 1
        if self.style == "raise":
            raise OSError(5)
        return -5

    def readblocks(self, block, buffer, offset=0):
        self.reads += 1
        self.read += len(buffer)
        return self._fails("read") or super().readblocks(block, buffer, offset)

    def writeblocks(self, block, buffer, offset=0):
        return self._fails("program") or super().writeblocks(block, buffer, offset)

    def ioctl(self, op, arg):
        return (op == 6 and self._fails("erase")) or super().ioctl(op, arg)


class DeafOs:
    """
    The `os` of the library's port, but for what MicroPython itself makes of a failed read.

    os.ilistdir() ends as if there were no more names, on both file systems; and after a failed
    os.statvfs() a FAT is full until it is mounted anew. No fault is injected there.
    """

    def __init__(self, device):
        self.device = device

    def __getattr__(self, name):
        return getattr(os, name)

    def _call(self, call, *args):
        self.device.deaf = True
        try:
            return call(*args)
        finally:
            self.device.deaf = False

    def ilistdir(self, path):
        return self._call(lambda: list(os.ilistdir(path)))

    def statvfs(self, path):
        return self._call(os.statvfs, path)


def unmount():
    os.umount("/ram")


# --- The world around it ---


def encode(value):
    """The record of a value: its number, and text that makes it as long as the scenario wants."""
    size = value >> 32
    return [value, "x" * size] if size else value


def sized(number, size):
    """A value whose record has `size` bytes more."""
    return number | size << 32


def number_of(value):
    return value & 0xFFFFFFFF


def value_of(record):
    """The value of a record; what was not written by us fails here."""
    value = record if isinstance(record, int) else record[0]
    assert encode(value) == record, "S2: invented: %r" % record
    return value


class World:
    """What the program was told and what the server holds; played back event by event."""

    def __init__(self):
        self.tried = set()
        self.told = {}  # value: sequence number, once add_request returned
        self.names = {}  # and the other way round
        self.acked = 0  # the cursor has moved past this number and is durable
        self.options = {}  # what the log was last opened with
        self.highest = {}
        self.records = []
        self.bodies = {}

    def copy(self):
        twin = World()
        twin.tried = set(self.tried)
        twin.told = self.told.copy()
        twin.names = self.names.copy()
        twin.acked = self.acked
        twin.options = self.options
        twin.highest = self.highest.copy()
        twin.records = list(self.records)
        twin.bodies = self.bodies.copy()
        return twin

    def play(self, event):
        kind, a, b = event
        if kind == TRIED:
            self.tried.add(a)
        elif kind == TOLD:
            self.told[a] = b
            self.names[b] = a
        elif kind == ACKED:
            self.acked = max(self.acked, a)
        elif kind == OPENED:
            self.options = a
        elif kind == BODY:
            # D4: a retry repeats bytes and key, also after a reboot.
            assert self.bodies.get(a, b) == b, "D4: another body under the key %s" % a
            self.bodies[a] = b
        elif kind == STORED:
            stream, seq, value = a
            self.highest[stream] = seq
            self.records.append(value)


class Clock:
    """Stands still."""

    def ticks_ms(self):
        return 0


class Server:
    """An exactly-once receiver that outlives the device; `answers` are played like a script."""

    def __init__(self, world, events=None):
        self.world = world
        self.events = events
        self.answers = []

    def note(self, kind, a, b=None):
        event = (kind, a, b)
        self.world.play(event)
        if self.events is not None:
            self.events.append(event)

    def post(self, url, headers, chunks, timeout):
        body = b""
        for chunk in chunks:
            body += chunk
        assert len(body) == int(headers["Content-Length"])
        answer = self.answers.pop(0) if self.answers else 200
        if answer == "down":
            raise OSError(111)
        self.note(BODY, headers["Idempotency-Key"], body)
        stream = headers["Postcache-Stream"]
        first, last = int(headers["Postcache-First"]), int(headers["Postcache-Last"])
        lines = json.loads(body)["lines"]
        assert len(lines) == last - first + 1
        if answer in (200, "lost"):
            for i, record in enumerate(lines):
                if first + i > self.world.highest.get(stream, 0):
                    self.note(STORED, (stream, first + i, value_of(record)))
        if answer == "lost":
            raise OSError(104)
        return answer, {}


class Dice:
    """os.urandom for a stream's name: from the seed, so that a run can be repeated."""

    def __init__(self):
        self.n = 0

    def urandom(self, n):
        self.n += 1
        return bytes([(self.n * 37 + i) & 255 for i in range(n)])


class Live:
    """A device that runs a program: told to `world`, and noted in the list `events`, if any."""

    def __init__(self, world, journal, slot, events=None):
        self.world = world
        self.server = Server(world, events)
        self.note = self.server.note
        self.journal = journal
        self.slot = slot

    def open(self, url=None, journal=None, **options):
        journal = journal or self.journal
        options["slot_size"] = self.slot if journal == "slot" else 0
        self.note(OPENED, options)
        return POSTCache(url, DIR, http=self.server, clock=Clock(), **options)

    def add(self, cache, *values):
        for value in values:
            self.note(TRIED, value)
        if len(values) == 1:
            last = cache.add_request(encode(values[0]))
        else:
            last = cache.add_many([encode(value) for value in values])
        for i, value in enumerate(values):
            self.note(TOLD, value, last - len(values) + 1 + i)
        self.see(cache)

    def see(self, cache):
        if not cache.storage.errors:
            self.note(ACKED, cache.storage.acked)
        if cache.outbox:
            cache.outbox._next = 0  # no waiting in a model


# --- Scenarios: each a program as people write it ---


def segments():
    return [name for name in os.listdir(DIR) if name.endswith(".log")]


def steady(live):
    """Readings that arrive one by one, with an outage, a lost answer and a 500 in between."""
    answers = [200] * 4 + ["down", 500, "lost", 200, 200, "lost"]
    cache = live.open(URL)
    for number in range(24):
        live.server.answers = [answers[number % len(answers)]]
        live.add(cache, number)
    cache.close()


def outage(live):
    """Records pile up over several segments, then drain in batches."""
    cache = live.open(max_bytes=8192)
    for number in range(64):
        live.add(cache, sized(number, 70))
    assert segments()
    cache.close()
    cache = live.open(URL, upload_limit=7, max_bytes=8192)
    while len(cache):
        cache.flush(1)
        live.see(cache)
    for number in range(64, 70):
        live.add(cache, number)
    cache.close()


def reboots(live):
    """A deep-sleep device: every reading is a boot."""
    answers = ["lost", 200, "down", 200, 500, "down", "down"]
    for number in range(14):
        live.server.answers = [answers[number % len(answers)]]
        cache = live.open(URL)
        live.add(cache, number)
        cache.close(0)


def first_boot(live):
    live.open().close()
    cache = live.open(URL)
    live.add(cache, 1)
    cache.close()


def drop(live):
    """A full log drops its oldest segments."""
    cache = live.open(max_bytes=4096)
    number = 0
    while number < 60 or cache.storage.dropped < 20:
        live.add(cache, sized(number, 90))
        number += 1
    cache.close()


def mixed(live):
    """Records of all sizes: some fit no slot, one fits hardly a segment."""
    sizes = (0, 40, 0, 400, 10, 1500, 90, 0, 75, 60)
    cache = live.open()
    for number in range(24):
        live.add(cache, sized(number, sizes[number % len(sizes)]))
    assert segments()
    cache.close()
    cache = live.open(URL, upload_limit=5)
    for number in range(24, 36):
        live.server.answers = [[200, "down", "lost"][number % 3]]
        live.add(cache, sized(number, sizes[number % len(sizes)]))
    cache.flush()
    live.see(cache)
    cache.close()


def groups(live):
    """Several records in one commit."""
    cache = live.open(URL)
    number = 0
    for size in (1, 2, 5, 9, 1, 30, 3, 4):
        live.server.answers = [["down", 200, "lost"][size % 3]]
        live.add(cache, *[sized(number + i, (0, 25, 60)[i % 3]) for i in range(size)])
        number += size
    cache.close()


def upgrade(live):
    """One journal's log is opened by the other, and back, with records waiting and without."""
    number = 0
    for journal in ("append", "slot", "append", "slot"):
        for url in (None, URL):
            cache = live.open(url, journal)
            for _ in range(4):
                live.add(cache, sized(number, 20))
                number += 1
            cache.close()
            live.see(cache)


SCENARIOS = {
    "steady": steady,
    "outage": outage,
    "reboots": reboots,
    "first_boot": first_boot,
    "drop": drop,
    "mixed": mixed,
    "groups": groups,
    "upgrade": upgrade,
}


# --- The promises ---


def check(world, journal="", slot=0, dropping=False, again=True):
    """Boot what is mounted after a cut and hold every promise against it. Changes `world`."""
    options = world.options.copy()
    if journal:
        options["slot_size"] = slot if journal == "slot" else 0
    told = world.told
    server = Server(world)
    cache = POSTCache(URL, DIR, http=server, clock=Clock(), **options)  # S5: opening succeeds
    log = cache.storage
    found = set()
    last = world.acked  # S4: what was acknowledged does not come back
    before = -1
    for seq, payload in log.read(None):
        value = value_of(json.loads(payload))
        assert value in world.tried, "S2: invented %d" % value
        assert seq > last, "S3, S4: %d after %d" % (seq, last)
        assert number_of(value) > before, "S3: order"
        assert told.get(value, seq) == seq, "%d has another number" % value
        assert world.names.get(seq, value) == value, "number %d names two records" % seq
        found.add(value)
        last = seq
        before = number_of(value)
    delivered = set(world.records)
    lost = [value for value in told if value not in found and value not in delivered]
    assert len(lost) <= log.dropped, "S1: lost %r" % lost
    assert dropping or not log.dropped, "dropped"
    if lost and found:
        lowest = min([number_of(value) for value in found])
        assert max([number_of(value) for value in lost]) < lowest, "only the oldest are dropped"
    highest = max([0] + list(world.names))
    fresh = [10**6, 10**6 + 1]
    for value in fresh:
        seq = cache.add_request(value)
        assert seq > highest, "number %d is given out twice" % seq
        highest = seq
    world.tried.update(fresh)
    assert cache.flush() and not len(cache), "not drained: %r" % cache.stats
    cache.close()
    before = -1
    for value in world.records:  # D2, D3: once, in order
        assert value in world.tried and number_of(value) > before, "D3: %r" % world.records
        before = number_of(value)
    delivered = set(world.records)
    missing = [value for value in list(told) + fresh if value not in delivered]
    assert len(missing) <= log.dropped, "D1: %r" % missing
    if again:
        cache = POSTCache(None, DIR, **options)
        assert not len(cache), "S4: not acknowledged"
        cache.close()


# --- Cutting ---


def is_text(now, at, data):
    """True if a sector that is written to a FAT holds text of ours, False for FAT, directory."""
    reserved, fats, entries, size = now[14], now[16], now[17] | now[18] << 8, now[22]
    if at < (reserved + fats * size) * 512 + entries * 32:
        return False
    # A directory has 0 at 12, or at least no text: name, attribute, then a reserved byte.
    return all(byte >= 32 or byte == 10 for byte in data[:13])


class Cutter:
    """Plays a recording and cuts it at every operation; counts `cuts` and `torn`."""

    def __init__(self, system, scenario, journal, options):
        self.system = system
        self.scenario = scenario
        self.journal = journal
        self.slot = SYSTEMS[system][3]
        self.tears = int(options.get("tears", 2))
        self.seed = int(options.get("seed", 1))
        shard, self.shards = map(int, options.get("shard", "0/1").split("/"))
        self.shard = shard
        self.every = int(options.get("every", 1))
        self.inner = int(options.get("inner", 1))
        self.only = options.get("at")
        self.plant = options.get("plant")
        # FAT only: instead of sectors of files those of the FAT and of directories are torn. No
        # FAT survives that: what is asked for then is that nothing is invented.
        self.names = options.get("tear") == "names"
        self.broken = 0
        self.device = Device(system)
        self.patient = Device(system)
        self.cuts = self.torn = 0
        self.where = ""

    def record(self):
        """Run the scenario on a fresh device; return its bytes at the start, and the events."""
        device = self.device
        device.make()
        start = bytes(device.bytes)
        device.events = events = []
        with Plant(self.plant):
            device.mount()
            SCENARIOS[self.scenario](Live(World(), self.journal, self.slot, events))
        unmount()
        return start, events

    def states(self, n, now, operation):
        """
        Yield (name, bytes or None) for what operation `n` may leave on the device at its place.

        None: nothing of it happened. All of it is what the next operation begins with.
        """
        if not self.names:
            yield "before", None
        if not operation:
            return
        kind, at, data = operation
        size = len(data)
        old = bytes(now[at : at + size])
        card = self.device.options is None
        if card and self.names == is_text(now, at, data):
            return
        for i in range(self.tears):
            random.seed((self.seed * 1009 + n) * 64 + i)
            if kind == ERASE:
                keep = random.randrange(size)
            else:  # where it makes a difference
                differ = [k for k in range(size) if data[k] != old[k]]
                if len(differ) < 2:
                    return
                keep = differ[random.randrange(1, len(differ))]
            if card:
                # A card takes a sector whole or not at all, says its specification; bad ones do
                # not: the first bytes new, the rest old.
                new = data[:keep] + old[keep:]
            else:
                # NOR flash takes bytes in turn; when the power fades some bits of the rest are
                # half way. An erase that breaks off may leave anything at all.
                noise = bytes([random.getrandbits(8) for _ in range(32)]) * (size // 32 + 1)
                noise = noise[: size - keep]
                if i % 2 == 0:
                    new = data[:keep] + old[keep:]
                elif kind == ERASE:
                    new = noise + data[len(noise) :]
                else:
                    rest = zip(old[keep:], zip(data[keep:], noise))
                    new = data[:keep] + bytes([o & (d | r) for o, (d, r) in rest])
            if new not in (old, data):
                yield "torn%d" % i, new

    def play(self, start, events, world, visit, where=""):
        """Call `visit(name, world, bytes, place, piece)` for every state a cut may leave."""
        now = bytearray(start)
        n = 0
        for event in events + [None]:
            if event and event[0] > PROGRAM:
                world.play(event)
                continue
            for name, piece in self.states(n, now, event):
                visit(n, "%s%d.%s" % (where, n, name), world, now, event, piece)
            if event:
                _, at, data = event
                now[at : at + len(data)] = data
            n += 1
        return n

    def mount(self, now, event, piece):
        """Put the bytes after a cut into the other device and mount it."""
        patient = self.patient
        patient.view[:] = now
        if piece is not None:
            patient.view[event[1] : event[1] + len(piece)] = piece
        patient.mount()

    def wanted(self, n, name):
        if self.only:
            return self.only.split("/")[0] == name
        return n % self.shards == self.shard and n // self.shards % self.every == 0

    def count(self, piece):
        if piece is None:
            self.cuts += 1
        else:
            self.torn += 1

    def examine(self, n, name, world, now, event, piece):
        if not self.wanted(n, name):
            return
        self.where = name
        self.count(piece)
        world = world.copy()
        try:
            self.mount(now, event, piece)
            journal = ""
            if self.scenario == "upgrade":  # a cut may come between two versions, too
                journal = ("append", "slot")[n % 2]
            check(world, journal, self.slot, self.scenario == "drop", n % 4 == 0)
        except (OSError, AssertionError) as e:
            if not self.names or "S2" in str(e):
                raise
            self.broken += 1
            port._in_use.clear()
        unmount()

    def examine_twice(self, n, name, world, now, event, piece):
        """Cut again at every operation of the boot that follows this cut."""
        if not self.wanted(n, name):
            return
        self.where = name
        self.mount(now, event, piece)
        patient = self.patient
        start = bytes(patient.bytes)
        patient.events = events = []
        live = Live(world.copy(), self.journal, self.slot, events)
        options = world.options.copy()
        options.pop("slot_size", 0)
        cache = live.open(URL, **options)
        live.add(cache, 10**5)
        cache.close()
        unmount()
        patient.events = None
        self.play(start, events, world.copy(), self.examine_inner, name + "/")

    def examine_inner(self, n, name, world, now, event, piece):
        if self.only and "/" in self.only:
            if name != self.only:
                return
        elif n % self.inner:
            return
        self.where = name
        self.count(piece)
        self.mount(now, event, piece)
        check(world.copy(), "", 0, self.scenario == "drop", False)
        unmount()


def cut(system, scenario, journal, options, twice=False):
    cutter = Cutter(system, scenario, journal, options)
    try:
        start, events = cutter.record()
        visit = cutter.examine_twice if twice else cutter.examine
        n = cutter.play(start, events, World(), visit)
    except BaseException:
        replay("at=" + cutter.where)
        raise
    return {"operations": n, "cuts": cutter.cuts, "torn": cutter.torn, "broken": cutter.broken}


def replay(more):
    arguments = [x for x in sys.argv[1:] if x.split("=")[0] not in ("shard", "at", "every")]
    print("FAILED. To see it again:")
    print("  MICROPYPATH=lib:.frozen micropython -X heapsize=64M", sys.argv[0], *arguments, more)


# --- A device that fails while the program lives ---


def attempt(live, cache, failed, *values):
    """Add; only OSError may come out. True if it was stored."""
    try:
        live.add(cache, *values)
        return True
    except OSError:
        failed.extend(values)
        return False


def suffer(device, live, failed):
    """What a program does while its device fails; returns the cache, None if it did not open."""
    try:
        cache = live.open(URL, upload_limit=3)
    except OSError:
        return None
    groups = [(sized(100 + i, size),) for i, size in enumerate((0, 20, 200, 0, 1200, 40, 0, 90))]
    groups.extend([(110, sized(111, 30), 112), (113,)])
    for i, group in enumerate(groups):
        live.server.answers = [("down", 200, "lost", "down")[i % 4]]
        if i == 9:
            cache.flush(1)
        attempt(live, cache, failed, *group)
    return cache


def fault(base, before, system, journal, kind, at, lasting, style, live_on):
    """Let one call fail, or all from it on; returns True if it came to that."""
    device = BadDevice(system)
    # After an error littlefs takes what it did not get to program for erased. What it then reads
    # back is bits of both, and it notices.
    device.strict = False
    device.view[:] = base
    device.mount()
    device.kind, device.at, device.lasting, device.style = kind, at, lasting, style
    port.os = DeafOs(device)
    world = before.copy()
    live = Live(world, journal, SYSTEMS[system][3])
    failed = []
    cache = suffer(device, live, failed)
    device.kind = ""  # mended
    if not device.failed:
        cache.close()
        unmount()
        return False
    if lasting == 1:
        assert len(failed) <= 3, "S7: one fault, %d adds failed" % len(failed)
    remounted = lasting > 1 and device.options is None and not live_on
    if remounted:
        # After a card has refused many writes in a row a new file was seen to be written without
        # an error and to have no name. Whoever puts a card in again mounts it again. (live=1 does
        # not, and shows it.)
        port._in_use.clear()
        cache = None
        unmount()
        device.mount()
    if not cache:
        cache = live.open(URL)
    live.add(cache, 200)  # S7: the next add works
    live.add(cache, 201)
    assert cache.flush() and not len(cache), "not drained: %r" % cache.stats
    delivered = set(world.records)
    for value in world.told:
        assert value in delivered, "S7: lost %d" % value
    if not remounted:
        for value in failed:
            assert value not in delivered, "sent what add_request refused"
    cache.close()
    unmount()
    whole = Device(system)
    whole.view[:] = device.view
    whole.mount()
    check(world)
    unmount()
    return True


def faults(system, kind, journal, options):
    """
    S7: let the n-th program, erase or read fail, for every n, once and from then on.

    Reads fail on FAT only. On littlefs a read that failed leaves wrong bytes in its cache (lfs.c,
    lfs_bd_read labels the cache before it is filled), and from then on it may say that a file is
    not there, or hand out another one's bytes: no one above can know. The flash that littlefs is
    for does not fail to be read; a card does.

    JOURNAL "back": the log was written with slots and is opened without.
    """
    assert kind != "read" or SYSTEMS[system][2] is None
    back = journal == "back"
    if back:
        journal = "slot"
    device = Device(system)
    device.make()
    device.mount()
    before = World()
    live = Live(before, journal, SYSTEMS[system][3])
    cache = live.open(URL)
    for number in range(6):
        live.server.answers = [(200, 200, "down")[number % 3]]
        live.add(cache, sized(number, 20))
    cache.close()
    unmount()
    base = bytes(device.bytes)
    if back:
        journal = "append"
    shard, shards = map(int, options.get("shard", "0/1").split("/"))
    only = options.get("at")
    live_on = "live" in options
    count = 0
    # An exception that jumps through littlefs leaves freed files in its list, and the next one may
    # crash MicroPython. FatFs keeps no such list.
    for style in ("answer",) if device.options else ("answer", "raise"):
        for lasting in (1, 1 << 30):
            at = 0
            while at < 1 << 16:
                at += 1
                name = "%s.%d.%d" % (style, lasting, at)
                if only == name or (not only and at % shards == shard):
                    try:
                        if not fault(
                            base, before, system, journal, kind, at, lasting, style, live_on
                        ):
                            break
                    except BaseException:
                        replay("at=" + name)
                        raise
                    count += 1
    return {"faults": count}


# --- A stranger fills the file system ---


def fill():
    """Write a file until not even one byte more goes in; returns how many bytes went."""
    total = 0
    for i, size in enumerate((4096, 512, 64, 1)):
        try:
            with open("/ram/stranger%d" % i, "wb") as f:
                for _ in range(4096):
                    f.write(b"s" * size)
                    f.flush()
                    total += size
        except OSError as e:
            if e.errno != 28:
                raise
    return total


def full(system, mode, journal, options):
    """S7, S8: what a log does on a file system that others have filled to the last block."""
    device = Device(system)
    device.make()
    device.mount()
    live = Live(World(), journal, SYSTEMS[system][3])
    world = live.world
    failed = []
    most = 24576 if mode == "drop" else None
    cache = live.open(URL, max_bytes=most, upload_limit=5)
    live.server.answers = [200] * 3 + ["down"] * 10**4
    number = 0
    while number < 40 or (mode == "drop" and not cache.storage.dropped):
        live.add(cache, sized(number, 90))
        number += 1
    assert fill() > 4096
    filled = number
    for _ in range(100):
        attempt(live, cache, failed, sized(number, (0, 90, 700)[number % 3]))
        number += 1
    refused = len(failed)
    assert refused or mode == "drop", "the file system is not full"
    # S8: what waits is delivered and acknowledged without a free byte.
    live.server.answers = []
    assert cache.flush() and not len(cache), "not drained: %r" % cache.stats
    delivered = set(world.records)
    lost = [value for value in world.told if value not in delivered]
    assert len(lost) == cache.storage.dropped, "S7: lost %r" % lost
    cache.close()
    unmount()
    device.mount()
    cache = live.open(URL, max_bytes=most)
    assert not len(cache), "S8: the acknowledgement is not durable"
    for i in range(4):
        if "stranger%d" % i in os.listdir("/ram"):
            os.remove("/ram/stranger%d" % i)
    live.add(cache, number)
    live.add(cache, sized(number + 1, 700))
    assert cache.flush()
    cache.close()
    unmount()
    device.mount()
    # Many small files, in a block each, may be more than the log's share of a small disk.
    check(world, dropping=mode == "drop" or cache.storage.dropped > 0)
    unmount()
    return {"faults": refused, "adds": number - filled, "dropped": cache.storage.dropped}


# --- What opening reads ---


def boot(system, journal):
    """S9: bytes and calls of the device while a log is opened, with 100 and 10,000 records."""
    result = {}
    for n in (100, 10000):
        device = BadDevice(system, (1 << 20) // SYSTEMS[system][0])
        device.make()
        device.mount()
        live = Live(World(), journal, SYSTEMS[system][3])
        cache = live.open()
        for i in range(n // 20):
            cache.add_many([{"t": 21.5, "n": j} for j in range(i * 20, i * 20 + 19)])
            cache.add_request({"t": 21.5, "n": i * 20 + 19})
        cache.close()
        unmount()
        device.mount()
        device.read = 0
        files = len(list(os.ilistdir(DIR)))
        names = device.read
        device.reads = device.read = 0
        cache = live.open()
        assert len(cache) == n
        result[n] = {"reads": device.reads, "read": device.read, "files": files, "names": names}
        cache.close()
        unmount()
    return result


# --- Planted faults: the machine must find them ---


class Lazy:
    """A file whose flush() is a lie: what is written gets there when it is closed."""

    def __init__(self, file):
        self.file = file
        self.data = b""

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.close()

    def write(self, data):
        self.data += data
        return len(data)

    def flush(self):
        pass

    def close(self):
        self.file.write(self.data)
        self.file.close()


class Plant:
    """While this is entered, the library has the fault `name`."""

    def __init__(self, name):
        self.name = name
        self.undo = []

    def put(self, owner, name, value):
        self.undo.append((owner, name, getattr(owner, name)))
        setattr(owner, name, value)

    def __enter__(self):
        log = postcache.log.Log
        opened = port.Directory.open
        put = port.Directory.put
        append = log.append
        late = []

        def lazy(self, name, mode):
            file = opened(self, name, mode)
            return file if mode == "rb" else Lazy(file)

        def behind(self, name, data):
            late.append((name, data))
            if len(late) > 1:
                put(self, *late.pop(0))

        def early(self, payloads):
            seq = append(self, payloads)
            self.acked = seq
            self._put()
            return seq

        if self.name == "flush":
            self.put(port.Directory, "open", lazy)
        elif self.name == "put":
            self.put(port.Directory, "put", behind)
        elif self.name == "ack":
            self.put(log, "append", early)
        elif self.name == "freeze":
            self.put(log, "freeze", lambda self, last: True)
        elif self.name == "erase":
            self.put(
                Device, "ioctl", lambda self, op, arg: {4: self.count, 5: self.size}.get(op, 0)
            )
        elif self.name:
            raise ValueError(self.name)
        return self

    def __exit__(self, *args):
        for owner, name, value in self.undo:
            setattr(owner, name, value)


def main():
    what, system, scenario, journal = sys.argv[1:5]
    options = dict([argument.split("=", 1) for argument in sys.argv[5:]])
    # What is loaded for an opening only is loaded once here, not 100,000 times.
    postcache.log.forget = postcache.assemble.forget = port.forget = lambda name: None
    postcache.log.recover.os = Dice()
    if what in ("cuts", "recut"):
        result = cut(system, scenario, journal, options, what == "recut")
    elif what == "faults":
        result = faults(system, scenario, journal, options)
    elif what == "full":
        result = full(system, scenario, journal, options)
    else:
        result = boot(system, journal)
    print(json.dumps(result))


main()
