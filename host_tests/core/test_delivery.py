"""
The promises of delivery, D1 to D7, with the power cut between any two steps of it.

A step is the request on its way, stored by the server, answered, and every call of the file
system: cursor written, segment deleted, record set aside. The program is cut before each of them
in turn, started again on what is there, and goes on; the receiver is one that keeps one number for
each stream. What a cut does to bytes that are not synced yet is for test_power_cuts.py.
"""

import json
import os

from support import Clock, folder

from postcache.envelope import Frame
from postcache.log import Log
from postcache.ports import Directory
from postcache.send import Outbox

RECORDS = 30
LIMIT = 7  # records in a batch


class Cut(BaseException):
    """The power is gone."""


class Power:
    """Counts steps, and cuts before step number `at`."""

    def __init__(self):
        self.steps = []
        self.at = -1

    def step(self, name):
        if len(self.steps) == self.at:
            raise Cut
        self.steps.append(name)


class Disk:
    """A Directory whose changes are steps."""

    def __init__(self, fs, power):
        self._fs = fs
        self._power = power

    def __getattr__(self, name):
        return getattr(self._fs, name)

    def put(self, name, data):
        self._power.step("put " + name)
        self._fs.put(name, data)

    def remove(self, name):
        self._power.step("remove " + name)
        self._fs.remove(name)

    def open(self, name, mode):
        if mode == "rb":
            return self._fs.open(name, mode)
        self._power.step("open " + name)
        return File(self._fs.open(name, mode), self._power)


class File:
    def __init__(self, file, power):
        self._file = file
        self._power = power

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        self._file.close()

    def write(self, data):
        self._power.step("write")
        self._file.write(data)

    def flush(self):
        self._power.step("sync")
        self._file.flush()

    def close(self):
        self._file.close()


class Server:
    """A receiver that keeps one number per stream, in a database that outlives everybody."""

    def __init__(self, power, bad=()):
        self._power = power
        self.bad = bad
        self.highest = {}
        self.lines = []  # what an exactly-once receiver holds: (number, record)
        self.raw = []  # what one that looks at nothing holds
        self.bodies = {}  # by key: the first body that came under it
        self.script = []  # statuses to answer first, storing nothing
        self.requests = 0

    def post(self, url, headers, chunks, timeout):
        self._power.step("connect")
        body = b"".join([bytes(chunk) for chunk in chunks])
        self._power.step("sent")
        self.requests += 1
        assert str(len(body)) == headers["Content-Length"]
        # D4: a retry repeats bytes and key.
        assert self.bodies.setdefault(headers["Idempotency-Key"], body) == body
        if self.script:
            return self.script.pop(0), {}
        first = int(headers["Postcache-First"])
        records = json.loads(body)["lines"]
        assert len(records) == int(headers["Postcache-Last"]) - first + 1
        for record in records:
            if record in self.bad:
                return 422, {}, b"bad"
        stream = headers["Postcache-Stream"]
        for i, record in enumerate(records):
            self.raw.append(record)
            if first + i > self.highest.get(stream, 0):
                self.highest[stream] = first + i
                self.lines.append((first + i, record))
        self._power.step("stored")
        return 200, {}


def boot(path, server, power, max_bytes=None):
    fs = Disk(Directory(path), power)
    try:
        log = Log(fs, max_bytes, 0)
    except BaseException:
        fs.close()
        raise
    clock = Clock()
    return (
        log,
        Outbox(log, server, clock, Frame("http://x/", {}, b'{"lines":[', b",", b"]}"), LIMIT, 0),
        clock,
    )


def drain(log, outbox, clock):
    for _ in range(500):
        if not len(log):
            return
        clock.now += outbox.wait_ms()
        outbox.send(10)
    raise AssertionError("it does not end")


def off(log):
    """What is left of a program that lost its power: nothing, and its files are closed."""
    log.journal.close()
    log.fs.close()


def lives(check, script=(), bad=(), max_bytes=None, cut_again=False):
    """
    Send a backlog with a cut before each step in turn; `check(log, server)` at each end.

    Returns the steps of a life without a cut.
    """
    at = 0
    while True:
        path = folder()
        power = Power()
        server = Server(power, bad)
        server.script = list(script)
        log, outbox, clock = boot(path, server, power, max_bytes)
        for n in range(RECORDS):
            # Long enough for segments to come and go where they are small.
            log.append([b'{"n":%d,"text":"%s"}' % (n, b"x" * 60)])
        power.steps = []
        power.at = at
        cut = False
        try:
            drain(log, outbox, clock)
        except Cut:
            cut = True
        off(log)
        if cut and cut_again:
            # The life after it is cut, too, a few steps later.
            power.steps = []
            power.at = at % 5
            log = None
            try:
                log, outbox, clock = boot(path, server, power, max_bytes)
                drain(log, outbox, clock)
            except Cut:
                pass
            if log:
                off(log)
        steps = power.steps
        power.steps = []
        power.at = -1
        log, outbox, clock = boot(path, server, power, max_bytes)
        drain(log, outbox, clock)
        check(log, server)
        off(log)
        for name in os.listdir(path):  # a disk in RAM is small
            os.remove(path + "/" + name)
        if not cut:
            return steps
        at += 1


def added():
    return [{"n": n, "text": "x" * 60} for n in range(RECORDS)]


def exactly_once(log, server):
    assert [record for _, record in server.lines] == added()
    assert [number for number, _ in server.lines] == list(range(1, RECORDS + 1))
    assert log.dropped == 0


def test_d1_at_least_once():
    def check(log, server):
        for record in added():
            assert record in server.raw

    steps = lives(check)
    # Each pair of these had a cut in between, once for each batch.
    batches = -(-RECORDS // LIMIT)
    for name in ("connect", "sent", "stored"):
        assert steps.count(name) == batches
    assert len([step for step in steps if step[:4] == "put "]) >= batches
    i = steps.index("connect")
    assert steps[i : i + 3] == ["connect", "sent", "stored"] and steps[i + 3][:4] == "put "


def test_d2_exactly_once_with_a_receiver_that_keeps_one_number():
    steps = lives(exactly_once, max_bytes=32768)
    # Segments are small here, so some are deleted on the way.
    assert [step for step in steps if step[:7] == "remove "] or RECORDS * 100 < 4096


def test_d2_also_when_the_life_after_the_cut_is_cut():
    lives(exactly_once, script=(500,), cut_again=True)


def test_d3_the_list_is_what_was_added_minus_rejects_in_order():
    from postcache.send.dead_letters import listed

    bad = [added()[n] for n in (0, 12, 13, RECORDS - 1)]

    def check(log, server):
        assert [record for _, record in server.lines] == [r for r in added() if r not in bad]
        rejects = listed(log)
        assert [reject["record"] for reject in rejects] == bad
        assert [reject["number"] for reject in rejects] == [1, 13, 14, RECORDS]
        assert [r for r in server.raw if r in bad] == []

    lives(check, bad=bad)


def test_d3_drops_are_counted():
    path = folder()
    power = Power()
    server = Server(power)
    server.script = [500, 500]
    log, outbox, clock = boot(path, server, power, 16384)
    for n in range(1000):
        log.append([b'{"n":%d}' % n])
        if n in (10, 500):
            clock.now += outbox.wait_ms()
            outbox.send(10)
    drain(log, outbox, clock)
    numbers = [number for number, _ in server.lines]
    assert [record["n"] for _, record in server.lines] == [number - 1 for number in numbers]
    assert log.dropped == 1000 - len(numbers) > 0
    off(log)


def test_d4_a_retry_repeats_bytes_and_key():
    # Asserted by the server for each request; here with answers that make it retry.
    lives(exactly_once, script=(503, 302, 401, 200 - 1, 500))


def test_d4_also_when_more_is_added_and_the_settings_change():
    path = folder()
    power = Power()
    server = Server(power)
    keys = []
    for n in range(8):
        log, outbox, _ = boot(path, server, power)
        log.append([b'{"n":%d}' % n])
        server.script = [500]
        outbox.limit = n + 1
        outbox.send(10)
        keys = list(server.bodies)
        assert len(keys) == 1
        off(log)


def test_d5_one_bad_line_among_n_costs_at_most_log2_n_and_3_requests():
    for n in (1, 2, 3, 10, 100, 500):
        log2 = 0  # rounded up
        while 1 << log2 < n:
            log2 += 1
        for place in {0, 1 % n, n // 3, n // 2, n - 1}:
            power = Power()
            server = Server(power, [{"n": place}])
            log, outbox, clock = boot(folder(), server, power)
            outbox.limit = 500
            log.append([b'{"n":%d}' % i for i in range(n)])
            drain(log, outbox, clock)
            # One by one is cheaper for the smallest batches.
            assert server.requests <= (log2 + 3 if n > 3 else n + 1), (n, place, server.requests)
            assert [record["n"] for _, record in server.lines] == [
                i for i in range(n) if i != place
            ]
            off(log)


def test_d6_a_port_never_gets_more_time_than_the_call_has():
    from postcache import POSTCache

    clock = Clock()

    class Slow:
        def post(self, url, headers, chunks, timeout):
            for _ in chunks:
                pass
            began.append((clock.now, timeout))
            clock.now += int(timeout * 700)
            return 200, {}

    began = []
    cache = POSTCache("http://x/", folder(), http=Slow(), clock=clock, upload_limit=1)
    cache.immediate = False  # only flush() sends
    cache.outbox._next = 1 << 40
    try:
        for timeout in (0.5, 3, 25):
            cache.add_many(list(range(40)))
            del began[:]
            start = clock.now
            cache.flush(timeout)
            assert clock.now - start <= timeout * 1000
            for at, given in began:
                assert at + given * 1000 <= start + timeout * 1000 + 1 and given <= 10
    finally:
        cache.close(0)


def test_d7_no_rule_needs_a_right_wall_clock():
    seen = []
    for unix in (
        lambda now: None,
        lambda now: 0,
        lambda now: 1763697600 - now,
        lambda now: 1763697600 + (now % 7 - 3) * 10**9,
        lambda now: 2**40,
    ):
        power = Power()
        server = Server(power)
        server.script = [500, 429, 200 - 1, 503]
        log, outbox, clock = boot(folder(), server, power)
        clock.unix = lambda unix=unix, clock=clock: unix(clock.now)
        for n in range(RECORDS):
            log.append([b'{"n":%d}' % n])
        waits = []
        for _ in range(20):
            outbox.send(10)
            waits.append(outbox.wait_ms() > 0)
            clock.now += outbox.wait_ms()
        assert len(log) == 0
        seen.append((waits, [record for _, record in server.lines], server.requests))
        off(log)
    assert [one for one in seen if one != seen[0]] == []
