"""
A seeded world of devices, networks, disks and servers, in which everything goes wrong.

    devices    real POSTCaches, each on a model disk of power.py (posix, fat, littlefs; append
               journal or slots), with every option now and then
    disks      lose their power at any operation, also in the middle of a write; get full; fail
    networks   delay, lose requests and answers, cut both short, deliver a request a second time,
               late and out of order; hotspots answer 200 to everything
    servers    two behind one name, with one database; they crash before and after the commit, and
               have phases in which they answer 401, 503 with Retry-After, 413, ...
    clocks     are unset after a boot, then set, and jump

There is no thread, no socket and no sleep. Time is a number, and everything random comes from the
seed, also what postcache takes from os.urandom: so a seed is the same story each time,

    python tools/simulate.py --seed 17 --trace

At the end everything becomes well, and within hours of virtual time all must have been delivered:
what a server has is what was added, in order, once, byte for byte, but for what was counted as
dropped and what was set aside as refused.
"""

import collections
import contextlib
import heapq
import importlib
import json
import os
import pathlib
import random
import re
import sys
import zlib

import power
from power import ROOT, Cut, Disk

from postcache import POSTCache, ports
from postcache.ports.answer import Answer

LIB = pathlib.Path(__file__).parents[2] / "lib" / "postcache"
TIMEOUT = 10  # seconds, of every device
HEALED = 4 * 3600_000  # ms within which all is delivered once everything is well
EPOCH = 1763697600  # seconds since 1970 at which a world begins
SLOTS = 8  # of the slot journal, so that few records fill them
RECORD = re.compile(rb"\{[^{}]*\}")
KEY = re.compile(rb'"k": (\d+)')
TIME = re.compile(
    rb'^\{"ts":\s*(null|\d+),(?:\s*"uptime_ms":\s*(\d+),\s*"boot":\s*(?:null|\d+),)?'
)


class Ports:
    """What postcache.ports has, but for the worker: in a world nobody runs by himself."""

    Worker = None

    def __init__(self, group):
        self.Group = group

    def __getattr__(self, name):
        return getattr(ports, name)


# What a phase of the servers answers: status, headers, how likely.
PHASES = (
    (503, {"Retry-After": "120"}, 3),
    (503, {}, 2),
    (429, {"Retry-After": "30"}, 2),
    (
        429,
        {"Retry-After": "Sat, 21 Nov 2026 10:01:00 GMT", "Date": "Sat, 21 Nov 2026 10:00:00 GMT"},
        1,
    ),
    (500, {}, 3),
    (502, {}, 1),
    (408, {}, 1),
    (425, {}, 1),
    (401, {}, 1),
    (403, {}, 1),
    (404, {}, 1),
    (302, {"Location": "http://elsewhere/"}, 2),
    (400, {}, 1),
    ("down", {}, 4),
)
# Those that say that it was too early, and those that a person has to mend.
SLOW = (401, 403, 404, 405, 410)
REFUSING = (400, 413, 422)


class Broken(BaseException):
    """A promise does not hold. (An Exception would be taken for the network's.)"""


def must(promise, holds, *facts):
    if not holds:
        raise Broken(promise, *facts)


class World:
    """
    One seed.

    Args:
        seed: int.
        trace: callable that is given each line of the story, or None.

    Attributes: `counts`, how often each thing has happened.
    """

    def __init__(self, seed, trace=None):
        self.rng = rng = random.Random(seed)
        self.awake = None  # the device whose turn it is
        self.trace = trace
        self.counts = collections.Counter()
        self.keys = 0
        self.healthy = False
        self.mended = 1 << 60  # ms, from then on bad records are taken, too
        self.bad_status = rng.choice((400, 422))
        self.servers = Servers(self)
        self.devices = [Device(self, i) for i in range(rng.randint(3, 8))]

    def say(self, device, text, *args):
        if self.trace:
            where = "%10.3f s  device %d  " % (device.now / 1000, device.index)
            self.trace(where + (text % args if args else text))

    def run(self):
        """Live through it; raises Broken when a promise does not hold."""
        due = [(device.now, device.index) for device in self.devices]
        heapq.heapify(due)
        while due:
            _, i = heapq.heappop(due)
            device = self.devices[i]
            self.awake = device
            device.act()
            if device.turns:
                heapq.heappush(due, (device.now, i))
        self.healthy = True
        for device in self.devices:
            self.awake = device
            device.heal()
        for device in self.devices:
            self.awake = device
            device.check()


# --- the servers ---


class Servers:
    """Two processes that receive, behind one name, and their database."""

    def __init__(self, world):
        self.world = world
        rng = world.rng
        self.records = {}  # {stream: {number: bytes}}, and in the order of their arrival
        self.highest = {}
        self.bodies = {}  # {idempotency key: body}
        self.up_at = [0, 0]
        self.crashing = rng.choice((0, 0.03, 0.1))
        self.most = rng.choice((1 << 30, 1 << 30, 700, 300))  # bytes of a body
        self.no_gzip = rng.random() < 0.5
        self.acknowledges = True
        self.phases = []
        t = 0
        while rng.random() < 0.8 and len(self.phases) < 5:
            t += int(rng.expovariate(1 / 300_000))
            end = t + int(rng.expovariate(1 / 400_000))
            what = rng.choices(PHASES, [phase[2] for phase in PHASES])[0]
            self.phases.append((t, end, what[0], what[1]))
            t = end

    def answer(self, device, headers, raw, now):
        """Take a request; return (status, headers, body), or None when nobody is there to."""
        world = self.world
        rng = world.rng
        counts = world.counts
        which = rng.randrange(2)
        healthy = world.healthy
        if not healthy:
            if self.up_at[which] > now:
                return None
            for begin, end, status, fields in self.phases:
                if begin <= now < end:
                    if status == "down":
                        return None
                    if status == 400:
                        first, last = headers["Postcache-First"], headers["Postcache-Last"]
                        if first == last:
                            device.moody.add(int(first))
                        return self._refuse(device, headers, status)
                    return status, fields, b"in a phase"
        body = raw
        if headers.get("Content-Encoding") == "gzip":
            counts["gzip bodies"] += 1
            if self.no_gzip:
                return 415, {}, b"no gzip"
            body = zlib.decompress(raw, 31)
        if len(body) > self.most:
            return self._refuse(device, headers, 413)
        key = headers["Idempotency-Key"]
        stream = headers["Postcache-Stream"]
        first, last = int(headers["Postcache-First"]), int(headers["Postcache-Last"])
        records = self._parse(device, headers, body, first, last)
        must("a retry repeats bytes and key", self.bodies.setdefault(key, body) == body, key)
        if now < world.mended and any(b'"bad"' in record for record in records):
            return self._refuse(device, headers, world.bad_status)
        crash = 0 if healthy else rng.random() / self.crashing if self.crashing else 1
        if not healthy and crash < 0.5:
            counts["crashes before the commit"] += 1
            self.up_at[which] = now + int(rng.expovariate(1 / 30_000))
            return None
        table = self.records.setdefault(stream, {})
        highest = self.highest.get(stream, 0)
        if last <= highest:
            counts["requests that brought nothing new"] += 1
        for number, record in enumerate(records, first):
            if number > highest:
                table[number] = record
        self.highest[stream] = max(highest, last)
        if not healthy and crash < 1:
            counts["crashes after the commit"] += 1
            self.up_at[which] = now + int(rng.expovariate(1 / 30_000))
            return None
        return 200, {"Postcache-Ack": str(last)}, b"ok"

    def _refuse(self, device, headers, status):
        first, last = int(headers["Postcache-First"]), int(headers["Postcache-Last"])
        if first == last:
            device.refused_alone.add(first)
        return status, {}, b"refused: %d" % status

    def _parse(self, device, headers, body, first, last):
        records = RECORD.findall(body, 1, len(body) - 1)
        tail = b'],"device": %d}' % device.index
        must("well formed", body == b'{"lines":[' + b",".join(records) + tail, body)
        must("as many as the numbers say", len(records) == last - first + 1, headers)
        return records


# --- a device ---


class Device:
    """A program that logs, on its disk, with its clock, behind its network."""

    def __init__(self, world, index):
        rng = world.rng
        self.world = world
        self.index = index
        self.now = rng.randrange(60_000)
        self.turns = rng.randint(6, 26)
        self.kind = rng.choice(power.KINDS)
        self.disk = Disk(self.kind)
        self.cache = None
        self.booted = self.now
        self.ticks = 0
        self.boot = 0
        # The world's part.
        self.cut_in = None  # operations of the disk after which the power goes
        self.full = 0  # more changes of the disk that fail for want of space
        self.ill = 0.0  # how likely a call of the system fails
        self.hotspot = 0  # ms until which everything is answered with 200
        self.flaky = rng.choice((0, 0.05, 0.2, 0.5))
        self.copies = []  # requests that arrive a second time, later: (when, headers, body)
        self.clock_set = rng.random() < 0.4
        self.offset = rng.randrange(1000)  # ms by which its clock is wrong
        # What was promised.
        self.keys = []  # every key, in the order of adding
        self.payloads = {}
        self.told = {}  # {key: number}
        self.refused = []  # keys of adds that raised, and none was stored since
        self.dead = set()  # keys that must not arrive
        self.stamps = {}  # {key: (boot, ticks, unix)}
        self.offsets = {}  # {boot: offsets between clock and ticks}
        self.refused_alone = set()  # numbers
        self.moody = set()  # numbers that were refused by a server that may have them
        self.requeued = set()  # keys
        self.rejects = {}  # {number: bytes}, that were ever seen set aside
        self.lost_newest = 0
        self.confirmed = set()  # numbers to which a 2xx has arrived
        self.uncounted = 0  # drops that could not be written down before a restart
        self.drops = 0  # as many in RAM when a life ended in which something was not written
        self.unsettled = None  # key of the batch that was tried last, and what may change it
        self.killed = False
        self.errors = 0  # of the disk, and damage, in former lives
        self.forced = False
        self.failures = []  # times of failures in a row, since the boot
        self.waits = []  # ms from each of them to the next request
        self.not_before = 0
        self.posts = 0
        self._options()

    def _options(self):
        rng = self.world.rng
        posix = self.kind == "posix"
        block = 512 if posix else 4096
        self.options = options = {
            "async_interval": rng.choice((None, 5, 60)),
            "upload_limit": rng.choice((500, 500, 20, 7, 3, 1)),
            "max_bytes": block * rng.choice((8, 8, 16, 64)),
            "slot_size": rng.choice((0, 0, 128) if posix else (0, 128, 512)),
            "flush_every": rng.choice((1, 1, 1, 1, 3)),
            "timeout": TIMEOUT,
            "top_level_attributes": {"device": self.index},
        }
        if rng.random() < 0.4:
            options["confirm"] = "ack"
        if rng.random() < 0.3:
            options["on_full"] = rng.choice(("drop_newest", "raise"))
        if rng.random() < 0.1:
            options["max_age"] = 600
        if rng.random() < 0.2:
            options["compress"] = True
        if rng.random() < 0.2:
            options["timestamp_key"] = "ts"
        if rng.random() < 0.1:
            options["online"] = self._online
        if rng.random() < 0.2:
            options["on_event"] = self._event
        # Some logs get full.
        self.size = (100 if posix else 900) if options["max_bytes"] == 8 * block else 40

    # --- what postcache asks

    def ticks_ms(self):
        return self.ticks + self.now - self.booted

    def unix(self):
        return (EPOCH * 1000 + self.now + self.offset) // 1000 if self.clock_set else None

    def _online(self):
        return self.world.healthy or self.world.rng.random() < 0.6

    def _event(self, kind, detail):
        self.world.counts["event " + kind] += 1
        if self.world.rng.random() < 0.1:
            raise RuntimeError("a bug in the program's callback")

    def post(self, url, headers, chunks, timeout):
        """The network, with the servers behind it; time goes on here."""
        world = self.world
        counts = world.counts
        self.posts += 1
        counts["requests"] += 1
        must("within the timeout", 0 < timeout <= TIMEOUT, timeout)
        begin = self.now
        end = begin + int(timeout * 1000)
        self._pace(begin)
        self._late(begin)
        self._again(headers["Idempotency-Key"])
        try:
            outcome = self._exchange(headers, chunks, end)
            if self.now > end:
                counts["timeouts"] += 1
                raise OSError(110)
        except Exception as e:
            self.now = min(self.now, end)
            world.say(self, "  %s: %r", headers["Idempotency-Key"], e)
            self._failed(0)
            raise
        status, fields, start = outcome
        counts["status %d" % status] += 1
        world.say(
            self,
            "  %s: %d %s",
            headers["Idempotency-Key"],
            status,
            start.decode("ascii", "replace"),
        )
        last = int(headers["Postcache-Last"])
        if 200 <= status < 300 and (
            "confirm" not in self.options or fields.get("postcache-ack") == str(last)
        ):
            self.confirmed.update(range(int(headers["Postcache-First"]), last + 1))
            self._recovered()
            self.unsettled = None
        elif status in REFUSING:
            self.unsettled = None
            self.not_before = 0
        elif status == 415 and "Content-Encoding" in headers:
            self.not_before = 0
        else:
            pause = 150_000 if status in SLOW else 0
            if "retry-after" in fields:
                asked = fields["retry-after"]
                pause = max(pause, int(asked) * 1000 if asked.isdigit() else 60_000)
                counts["Retry-After"] += 1
            self._failed(pause)
        return outcome

    def _exchange(self, headers, chunks, end):
        world = self.world
        rng = world.rng
        counts = world.counts
        healthy = world.healthy
        fate = 1 if healthy else rng.random() / self.flaky if self.flaky else 1
        self.now += rng.randrange(20, 400)
        self._power("before the request")
        if fate < 0.15:
            counts["connections refused"] += 1
            raise OSError(111)
        if fate < 0.2:
            counts["bugs in a port"] += 1
            raise RuntimeError("a bug in somebody's port")
        if fate < 0.3:
            counts["requests cut short"] += 1
            for _ in chunks:
                break
            raise OSError(104)
        raw = b"".join(chunks)
        must("the length that was said", len(raw) == int(headers["Content-Length"]), headers)
        self._power("when the request was sent")
        headers = dict(headers)
        if not healthy and self.hotspot > self.now:
            counts["answers of a hotspot"] += 1
            return self._read(200, {}, b"<html>Please log in", 1 << 30)
        if fate < 0.4:
            counts["requests lost"] += 1
            self.now = end
            raise OSError(110)
        if fate < 0.5:  # in time for nobody
            counts["requests that came late"] += 1
            self.copies.append((end + rng.randrange(60_000), headers, raw))
            self.now = end
            raise OSError(110)
        if fate < 0.6:
            counts["requests doubled"] += 1
            self.copies.append((self.now + rng.randrange(300_000), headers, raw))
        if 0.85 <= fate < 0.9:
            counts["answers that a proxy began"] += 1
            return self._read(200, {"Postcache-Ack": headers["Postcache-Last"]}, b"wait", 0.99)
        answer = world.servers.answer(self, headers, raw, self.now)
        self.now += rng.randrange(20, 400)
        self._power("before the answer")
        if answer is None:
            counts["servers down"] += 1
            raise OSError(104)
        if fate < 0.7:
            counts["answers lost"] += 1
            self.now = end
            raise OSError(110)
        whole = 1 << 30
        if fate < 0.85:
            counts["answers cut short"] += 1
            whole = rng.random()
        return self._read(*answer, whole)

    def _read(self, status, fields, body, part):
        """Return what the port's strict reader makes of an answer; `part` of it arrives."""
        data = b"HTTP/1.1 %d X\r\n" % status
        if self.world.rng.random() < 0.1:
            data = b"HTTP/1.1 103 X\r\nLink: x\r\n\r\n" + data
        for name, value in fields.items():
            data += b"%s: %s\r\n" % (name.encode(), value.encode())
        if self.world.rng.random() < 0.3:
            data += b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        else:
            data += b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        reader = Answer()
        if part < 1:
            data = data[: int(part * len(data))]
        done = bool(data) and reader.feed(data)
        if not done:
            done = reader.feed(b"")
        if not done:
            raise OSError(104)
        return reader.status, reader.headers, bytes(reader.start)

    def _power(self, when):
        if not self.world.healthy and self.world.rng.random() < 0.01:
            self.world.counts["cuts " + when] += 1
            self._cut(when)

    def _late(self, now):
        """Requests that arrive a second time, or too late for the one who waited."""
        if self.copies:
            due = [copy for copy in self.copies if copy[0] <= now or self.world.healthy]
            self.copies = [copy for copy in self.copies if copy not in due]
            self.world.rng.shuffle(due)
            for when, headers, raw in due:
                self.world.say(self, "  %s arrives again", headers["Idempotency-Key"])
                self.world.servers.answer(self, headers, raw, max(when, now))

    def _again(self, key):
        """A batch of which nobody knows whether it was stored is tried again under its key."""
        log = self.cache.storage
        # Records that were dropped in between and a cursor that could not be written excuse it.
        state = (log.dropped, self.errors + log.errors + log.damaged)
        if self.unsettled:
            tried, then, failed = self.unsettled
            number = int(tried.strip('"').rsplit("-", 1)[1])
            # Set aside, and then the power was cut: opening has passed over it.
            aside = number in self.refused_alone and number <= log.acked
            same = tried == key or failed or aside or then != state
            must("a retry has the same key", same, tried, key)
            self.world.counts["retries of the same batch"] += tried == key
        # Slots on POSIX may be seen after a kill, or a failed add, and yet not be durable.
        shaky = self.kind == "posix" and self.options["slot_size"] and self.killed
        self.unsettled = (key, state, log.errors or shaky)

    # --- back-off

    def _pace(self, now):
        """Requests are no more than back-off, Retry-After and async_interval allow."""
        if self.forced:
            return
        must("back-off", now >= self.not_before, now, self.not_before)
        if self.failures:
            self.waits.append(now - self.failures[-1])
        # The n-th wait is random below 2^n seconds: that nine of them are less than nine seconds
        # together is a matter of one in a hundred million.
        if len(self.waits) >= 9:
            self.world.counts["nine failures in a row"] += 1
            must("back-off grows", sum(self.waits[-9:]) > 9_100, self.waits)

    def _failed(self, pause):
        if self.forced:
            self._recovered()
        else:
            self.failures.append(self.now)
        interval = (self.options["async_interval"] or 0) * 1000
        self.not_before = self.now + max(pause, interval)

    def _recovered(self):
        self.failures.clear()
        self.waits.clear()
        self.not_before = 0

    # --- the disk

    def _cut(self, when):
        self.world.say(self, "power cut %s", when)
        self.cut_in = -1
        raise Cut

    def _on_change(self, kind, name):
        if self.cut_in is not None:
            self.cut_in -= 1
            if self.cut_in < 0:
                if self.cut_in == -1:
                    self.world.say(self, "power cut before: %s %s", kind, name)
                    self.world.counts["cuts before: " + kind] += 1
                raise Cut
        if self.full and kind in ("create", "write", "commit", "make"):
            # In place there is always room.
            if self.kind == "posix" and name and name.startswith("cursor"):
                return
            self.full -= 1
            self.world.counts["writes to a full disk"] += 1
            raise OSError(28, "no space")

    def _on_call(self, function):
        if function == "close":
            return  # also by whoever collects garbage, whenever that is
        if self.cut_in is not None and self.cut_in < 0:
            raise Cut
        if self.ill and self.world.rng.random() < self.ill:
            self.world.counts["failed calls of the system"] += 1
            raise OSError(5, "broken")

    def _on_read(self, n):
        self._on_call("read")

    def after_cut(self):
        """Return what is on the disk after a cut: one of the ways that Disk.after_cut() lists."""
        rng = self.world.rng
        disk = self.disk
        names = dict(disk.durable_names)
        for name, number in disk.pending_names:
            if rng.random() < 0.5:
                if number is None:
                    names.pop(name, None)
                else:
                    names[name] = number
        contents = {}
        for name, number in names.items():
            if number == power.FOLDER:
                contents[name] = None
                continue
            folder = name.rpartition("/")[0]
            if folder and names.get(folder) != power.FOLDER:
                continue
            data, pending, content = disk.files[number]
            if pending and pending[0] == "whole":
                data = rng.choice((data, content))
            else:
                for change in pending:
                    fate = rng.choice(("kept", "kept", "torn", "torn", "lost", 0, 0xA5))
                    if fate == "lost":
                        continue
                    if isinstance(change, tuple):
                        at, piece = change
                        if fate == "torn":
                            piece = piece[: rng.randrange(len(piece) + 1)]
                            self.world.counts["writes torn"] += 1
                        elif fate != "kept":
                            piece = bytes([fate]) * len(piece)
                        change = (at, piece)
                    data = power._apply(data, change)
            contents[name] = data
        return contents

    # --- lives

    def _start(self):
        """Boot: open the log. False when the disk would not have it."""
        self.booted = self.now
        self.ticks = self.world.rng.randrange(100, 5000)
        self.boot += 1
        self.offsets[self.boot] = []
        self._note_offset()
        self._recovered()
        self._wake()
        self.refused = []
        self._on_disk()
        own = Ports(ports.Group if self.kind == "posix" else None)
        try:
            fs = power.directory(self.disk)(ROOT)
            fs.slots = SLOTS
            self.cache = POSTCache(
                "http://server/", fs, http=self, clock=self, ports=own, **self.options
            )
        except OSError as e:
            self.world.say(self, "does not start: %s", e)
            self.world.counts["starts that failed"] += 1
            self.cache = None
            return False
        outbox = self.cache.outbox
        outbox.most, outbox.buffer = power.batch_sizes(self.kind)
        log = self.cache.storage
        self.world.say(
            self, "starts: %s, %d waiting, %d dropped", log.stream, len(log), log.dropped
        )
        self.world.say(self, "  %s", {k: v for k, v in self.options.items() if not callable(v)})
        # What was not written down is not known any more.
        self.uncounted += max(0, self.drops - log.dropped)
        self.drops = 0
        self.confirmed = {number for number in self.confirmed if number <= log.acked}
        return True

    def _wake(self):
        """From now on the process is this device's."""
        power.directory(self.disk)

    def _on_disk(self):
        disk = self.disk
        disk.on_change = self._on_change
        disk.on_call = self._on_call
        disk.on_read = self._on_read if self.ill else None

    def _end(self, closed=False):
        """The life is over: remember what it knew and could not write down."""
        cache, self.cache = self.cache, None
        if not cache:
            return
        log = cache.storage
        for key in self.keys[::-1]:  # what flush_every has held was in RAM
            if self.told.get(key, 0) <= log.stored:
                if self.told.get(key):
                    break
            else:
                del self.told[key]
                self.world.counts["records lost in RAM"] += 1
        # The newest that is dropped is counted by the next write of the cursor, or by close().
        counted = closed or self.options.get("on_full") != "drop_newest"
        self.drops = 0 if counted and not log.errors else log.dropped
        self.errors += log.errors + log.damaged

    def _die(self, cut):
        self._end()
        if cut:
            self.world.counts["power cuts"] += 1
            self.disk = Disk(self.kind, self.after_cut())
            if self.world.rng.random() < 0.7:
                self.clock_set = False
        self.cut_in = None

    def _note_offset(self):
        if self.clock_set:
            self.offsets[self.boot].append(EPOCH * 1000 + self.now + self.offset - self.ticks_ms())

    def act(self):
        """One turn of the program."""
        self.turns -= 1
        rng = self.world.rng
        self.now += rng.choice((0, 0, 500, 1000, 5000, 20_000, 60_000, 60_000, 400_000))
        self._wake()
        if self.cache:
            self._on_disk()
        try:
            if not self.cache and not self._start():
                if rng.random() < 0.5:
                    self.ill = self.full = 0
                return
            self._trouble()
            self._turn(rng.random())
        except Cut:
            self._die(True)

    def _trouble(self):
        """What happens to the device in this turn, beside what it does."""
        rng = self.world.rng
        what = rng.random()
        if what < 0.12:
            self.cut_in = int(rng.expovariate(1 / 6))
        elif what < 0.16:
            self.full = rng.choice((1, 2, 5, 20))
            self.world.say(self, "disk full, %d times", self.full)
        elif what < 0.20:
            self.ill = rng.choice((0.02, 0.1, 0.3))
            self.world.say(self, "disk is ill")
        elif what < 0.30:
            self.ill = self.full = 0
        elif what < 0.34 and "confirm" in self.options:
            self.hotspot = self.now + rng.randrange(300_000)
            self.world.say(self, "in a hotspot")
        elif what < 0.40:
            self.clock_set = True
            self.offset += rng.choice((0, 5_000, -30_000, 86_400_000))
            self._note_offset()
            self.world.say(self, "clock set to %s", self.unix())
            self.world.counts["clocks set"] += 1
        elif what < 0.44:
            self.flaky = rng.choice((0, 0.1, 0.5, 1))
        self._on_disk()

    def _turn(self, what):
        rng = self.world.rng
        cache = self.cache
        assert cache
        if what < 0.34:
            self._add(1)
        elif what < 0.45:
            self._add(rng.choice((2, 3, 5, 8)))
        elif what < 0.48:
            for _ in range(rng.choice((5, 10))):
                self._add(3)
        elif what < 0.62:
            self._call("poll", TIMEOUT, cache.poll)
        elif what < 0.72:
            self._wait(rng.choice((1, 2, 12)))
        elif what < 0.78:
            self._forced("flush", None, cache.flush)
        elif what < 0.82:
            timeout = rng.choice((0.1, 1, 10))
            self._forced("flush", timeout, cache.flush, timeout)
        elif what < 0.88:
            timeout = rng.choice((None, 0, 3))
            self._forced("close", TIMEOUT if timeout is None else timeout, cache.close, timeout)
            if cache.closed:
                self._end(True)
        elif what < 0.92:
            self.world.say(self, "killed")
            self.world.counts["kills"] += 1
            self._die(False)
            self.killed = True
            if self.kind != "posix":  # a reset: what was not synced is gone
                self.disk = Disk(self.kind, self.after_cut())
            self._start()
        elif what < 0.94:
            self.world.say(self, "power cut while idle")
            raise Cut
        elif what < 0.96:
            stats = self._call("stats", 0, lambda: cache.stats)
            if stats:
                must("waiting", stats["waiting"] == len(cache), stats)
        elif what < 0.98:
            self._look_at_rejects()
        elif rng.random() < 0.5:
            self._requeue()

    def _call(self, name, seconds, call, *args):
        """Call; nothing but OSError may come out, and within the deadline."""
        begin = self.now
        self.world.say(self, "%s%s", name, args)
        result = None
        try:
            result = call(*args)
        except OSError as e:
            self.world.say(self, "  raised %r", e)
        if seconds is not None:
            spent = self.now - begin
            must("deadline of " + name, spent <= seconds * 1000 + 1, spent, seconds)
        return result

    def _forced(self, name, seconds, call, *args):
        self.forced = True
        try:
            return self._call(name, seconds, call, *args)
        finally:
            self.forced = False

    def _wait(self, n):
        """As a main loop does: poll when it is due."""
        for _ in range(n):
            cache = self.cache
            idle = cache.idle_ms()
            self.now += max(idle or 0, 10)
            self._call("poll", TIMEOUT, cache.poll)
            if not len(cache.storage):
                break

    def _add(self, n):
        world = self.world
        rng = world.rng
        cache = self.cache
        bodies = []
        keys = []
        for _ in range(n):
            world.keys += 1
            body = {"k": world.keys, "p": "x" * rng.randrange(self.size)}
            if rng.random() < 0.06:
                body["bad"] = 1
            if rng.random() < 0.02:
                body["p"] = "x" * 300  # too long for some slots, and with others for a segment
            keys.append(world.keys)
            bodies.append(body)
            self.payloads[world.keys] = json.dumps(body).encode()
            self.stamps[world.keys] = (self.boot, self.ticks_ms(), self.unix())
        self.keys += keys
        begin = self.now
        dropped = cache.storage.dropped
        try:
            if n == 1:
                last = cache.add_request(bodies[0])
            else:
                last = cache.add_many(bodies)
        except OSError as e:
            world.say(self, "add %s raised %r", keys, e)
            world.counts["adds that raised"] += 1
            self.killed = True
            self.refused += keys
            return
        except ValueError as e:
            must("room for all of them", n > 1, e)
            self.dead.update(keys)
            world.counts["adds that were too long"] += 1
            return
        must("deadline of add", self.now - begin <= TIMEOUT * 1000, self.now - begin)
        world.counts["adds"] += n
        world.say(self, "add %s: up to number %s", keys, last)
        if not last:
            must("what is dropped is counted", cache.storage.dropped >= dropped + n)
            self.lost_newest += n
            self.dead.update(keys)
            world.counts["newest dropped"] += n
            return
        if cache.storage.stored >= last:  # else it is held in RAM, and nothing was written
            self.dead.update(self.refused)
            self.refused = []
        for key, number in zip(keys, range(last - n + 1, last + 1)):
            self.told[key] = number

    def _look_at_rejects(self):
        cache = self.cache
        found = self._call("rejected", 0, cache.rejected)
        for reject in found or ():
            number = reject["number"]
            must("refused alone", number in self.refused_alone, reject)
            must("its status", reject["status"] in REFUSING, reject)
        return found

    def _requeue(self):
        before = self._call("rejected", 0, self.cache.rejected)
        # But for those that wait, too, because the power was cut before they were passed over.
        acked = self.cache.storage.acked
        ours = [reject for reject in before or () if reject["number"] <= acked]
        if before:
            self.requeued.update(reject["record"]["k"] for reject in ours)
            n = self._call("requeue_rejected", 0, self.cache.requeue_rejected)
            if n is not None:
                must("all of them", n == len(ours), n, before)
                self.world.counts["requeued"] += n

    # --- the end

    def heal(self):
        """Everything is well from now on: all must be delivered, in time."""
        self._wake()
        world = self.world
        self.ill = self.full = 0
        self.cut_in = None
        self._late(self.now)
        begin = self.now
        world.say(self, "all is well")
        if self.cache:
            self._on_disk()
        else:
            must("a disk that is well can be opened", self._start())
        cache = self.cache
        assert cache
        if cache.buffered is not None:
            self._forced("flush", None, cache.flush)
        posts = self.posts
        while len(cache):
            if cache.buffered and not len(cache.storage):
                # The log was full: what is in RAM is stored by the next add or flush.
                self._forced("flush", None, cache.flush)
            self.now += max(10, cache.idle_ms() or 0)
            self._call("poll", TIMEOUT, cache.poll)
            must("drained in time", self.now - begin < HEALED, len(cache), cache.outbox.error)
            must("drained with few requests", self.posts - posts < 1000, len(cache))
        world.counts["longest drain, ms"] = max(
            world.counts["longest drain, ms"], self.now - begin
        )
        self.stats = cache.stats
        self.found = self._look_at_rejects() or []
        self._forced("close", TIMEOUT, cache.close)
        taken = max(self.told.values(), default=0)
        # Acknowledged in RAM only, perhaps; and of an add that raised the record may be there.
        maybe = cache.storage.errors or self.refused
        for _ in range(2):
            self._end(True)
            must("opens again", self._start())
            cache = self.cache
            self.stored = cache.storage.stored
            self.dropped = cache.storage.dropped
            must("numbers stay", self.stored >= taken, self.stored, taken)
            posts = self.posts
            self._forced("flush", None, cache.flush)
            must("nothing comes back", maybe or self.posts == posts, self.posts - posts)
            self._forced("close", TIMEOUT, cache.close)
            maybe = False

    def check(self):
        """Hold what the servers have against what was added."""
        world = self.world
        stats = self.stats
        table = world.servers.records.get(stats["stream"], {})
        numbers = list(table)
        world.say(self, "ends with %s", stats)
        world.say(self, "  told %s", self.told)
        world.say(self, "  delivered %s", numbers)
        must("in order", numbers == sorted(numbers), numbers)
        keys = []
        for number, record in table.items():
            key = int(KEY.search(record)[1])
            keys.append(key)
            self._same(key, record)
            if key not in self.requeued:
                must("its number", self.told.get(key, number) == number, key, number)
            must("what was refused is not sent", key not in self.dead, key, number)
        here = set(keys)
        excused = [
            key
            for number, key in zip(numbers, keys)
            if number in self.moody and key in self.requeued
        ]
        twice = [key for key in here if keys.count(key) > 1 and key not in excused]
        must("once", not twice, twice, keys)
        must("nothing but what was added", here <= set(self.payloads), keys)
        straight = [key for key in keys if key not in self.requeued]
        must("in the order of adding", straight == sorted(straight), straight)
        aside = {}
        for reject in self.found:
            key = reject["record"]["k"]
            must("set aside once", key not in aside, self.found)
            aside[key] = reject
            must(
                "set aside as it was",
                reject["record"].items() >= json.loads(self.payloads[key]).items(),
                reject,
            )
        # Each that was told is there, set aside, or counted as dropped.
        told = [key for key in self.told if key not in self.dead]
        missing = [key for key in told if key not in here and key not in aside]
        overwritten = self._overwritten(missing)
        lost = len(missing) - overwritten + self.lost_newest
        dropped = self.dropped
        must("drops are counted", lost <= dropped + self.uncounted, missing, dropped)
        # What was set aside may have been dropped as well, if the power went in between.
        gone = self.stored - len(table)
        unsure = len(set(numbers) - self.confirmed)
        if self.options.get("on_full") == "drop_newest":  # also in an add that the power ended
            unsure += len([k for k in self.keys if k not in self.told and k not in self.dead])
        must("no more than that", dropped <= gone + unsure + self.lost_newest, dropped, gone)
        world.counts["records delivered"] += len(keys)
        world.counts["records dropped"] += dropped
        world.counts["records rejected"] += len(aside)
        exact = not self.uncounted and lost == dropped
        world.counts["devices"] += 1
        world.counts["devices of which each number is accounted for"] += exact

    def _overwritten(self, missing):
        """How many of the missing were set aside, and are gone because that file is bounded."""
        alone = [key for key in missing if self.told[key] in self.refused_alone]
        return min(len(alone), self.stats["rejected"])

    def _same(self, key, record):
        payload = self.payloads.get(key)
        if "timestamp_key" not in self.options:
            must("bytes as added", record == payload, record, payload)
            return
        match = TIME.match(record)
        must("stamped", match, record)
        must("bytes as added", b"{" + record[match.end() :].lstrip() == payload, record, payload)
        date, uptime = match.groups()
        booted, ticks, unix = self.stamps[key]
        if date == b"null":
            must("undated only without a clock", unix is None and int(uptime) == ticks, record)
            self.world.counts["records without a date"] += 1
        elif unix is not None:
            must("dated by the clock", int(date) == unix, record, unix)
        else:
            ways = [(offset + ticks) // 1000 for offset in self.offsets[booted]]
            must(
                "dated later by the clock",
                any(abs(int(date) - way) <= 1 for way in ways),
                record,
                ways,
            )
            self.world.counts["records dated later"] += 1


@contextlib.contextmanager
def surroundings():
    """What postcache finds while worlds run: their own chance."""
    kept = os.urandom
    try:
        yield
    finally:
        os.urandom = kept


@contextlib.contextmanager
def planted(path, *changes):
    """
    The library with a bug in it, for as long as this lasts.

    Args:
        path: of a module below lib/postcache, such as "log/journal.py".
        changes: pairs of texts, what is there exactly once and what comes in its place.
    """
    name = "postcache." + path[:-3].replace("/", ".")
    module = importlib.import_module(name.replace(".__init__", ""))
    source = (LIB / path).read_text()
    for old, new in changes:
        if source.count(old) != 1:
            raise ValueError("%d times in %s: %s" % (source.count(old), path, old))
        source = source.replace(old, new)
    modules = [
        m for name, m in sys.modules.items() if name.startswith(("postcache", "simulation"))
    ]
    kept = [(m, dict(m.__dict__)) for m in modules]
    before = dict(module.__dict__)
    derived = []
    try:
        exec(compile(source, "planted " + path, "exec"), module.__dict__)
        # Who has imported something by its name gets the new one, too.
        new = {
            id(before[name]): value for name, value in module.__dict__.items() if name in before
        }
        for m, names in kept:
            for name, value in names.items():
                if m is not module and callable(value) and id(value) in new:
                    setattr(m, name, new[id(value)])
                bases = getattr(value, "__bases__", ())
                if m is not module and any(id(base) in new for base in bases):
                    derived.append((value, bases))
                    value.__bases__ = tuple(new.get(id(base), base) for base in bases)
        yield
    finally:
        for value, bases in derived:
            value.__bases__ = bases
        for m, names in kept:
            m.__dict__.clear()
            m.__dict__.update(names)


def simulate(seed, trace=None):
    """Run one seed within surroundings(); returns its counts. Raises Broken, or what came out."""
    world = World(seed, trace)
    os.urandom = world.rng.randbytes
    try:
        world.run()
    except Broken as e:
        world.say(world.awake, "BREAKS A PROMISE: %s", e.args[0])
        raise AssertionError(*e.args) from e
    return world.counts


def add(sums, counts):
    """Add the counts of a world to those of others."""
    for name, count in counts.items():
        sums[name] = max(sums[name], count) if name.startswith("longest") else sums[name] + count
