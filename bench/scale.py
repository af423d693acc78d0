"""
What a fleet asks of its servers after an outage: the tables in docs/scale.md.

    python bench/scale.py                    all of them: 100,000 devices
    python bench/scale.py --devices 10000    a smaller fleet, with a smaller server

Each device adds a reading of 91 bytes once a minute. For an hour nothing answers, then the server
is back. Time is virtual. A device is a model of a few lines that knows the rules of
lib/postcache/send/; first of all 200 devices are run twice, as models and as real Outboxes,
with the same random numbers, and every request of one must be a request of the other: the same
millisecond, the same records, the same bytes.
"""

import argparse
import gc
import heapq
import os
import random
import statistics
import sys
import time
from array import array

import measure

MINUTE = 60_000  # ms, from reading to reading
EXCHANGE = 200  # ms, a request and its answer
OUTAGE = 3600_000
AFTER = 900_000  # ms that are looked at when the server is back, at most
FIRST = 300_000  # and at least: more only until all are up to date
BASE, CAP = 1000, 300_000  # ms, as in the outbox
BATCH = 16384  # bytes, as on a board
LIMIT = 500
PAYLOAD = measure.payload(100_000)
COMMA = len(PAYLOAD) + 1
AROUND = len(b'{"lines":[') + len(b"]}") - 1


# --- when the next try is: ms after the n-th failure in a row, n = 0, 1, ...; draw() is 32 bits


def full_jitter(n, draw):
    return draw() % min(CAP, BASE << min(n, 9))


def half_jitter(n, draw):
    bound = min(CAP, BASE << min(n, 9))
    return bound // 2 + draw() % (bound // 2)


def no_jitter(n, draw):
    return min(CAP, BASE << min(n, 9))


def every_10_s(n, draw):
    return 10_000


class Server:
    """
    It answers 503 to whatever is more than its capacity, second by second.

    Args:
        capacity: requests a second; None for any number.
        retry_after: seconds that its 503 asks for, or None.
    """

    def __init__(self, capacity=None, retry_after=None):
        self.capacity = capacity or 1 << 60
        self.retry_after = retry_after
        self.second = -1
        self.taken = 0
        self.requests = [0] * ((AFTER + MINUTE) // 1000)
        self.sent = [0] * len(self.requests)  # bytes
        self.refused = 0
        self.needed = 0  # requests until the backlog of each was gone

    def take(self, now, size):
        """Return True when a request at `now`, ms after the return, is answered with 200."""
        second = now // 1000
        if second != self.second:
            self.second = second
            self.taken = 0
        self.requests[second] += 1
        self.sent[second] += size
        self.taken += 1
        if self.taken > self.capacity:
            self.refused += 1
            return False
        return True


class Model:
    """
    A device; `phase` is when in the minute it adds, `pause` one of the functions above.

    With `step` None it tries as soon as it may (async_interval with run(), poll() in a loop, or
    CPython's thread); else only when it adds: async_interval=None.
    """

    __slots__ = (
        "acked", "after", "draw", "failed", "goal", "interval", "limit", "next", "pause", "phase",
        "size",
    )  # fmt: skip

    def __init__(self, phase, interval, pause, draw):
        self.phase = phase
        self.interval = interval
        self.pause = pause
        self.draw = draw
        self.acked = self.failed = self.goal = self.next = 0
        self.limit = min(LIMIT, BATCH // COMMA)
        self.size = self.after = 0  # records of the batch that is tried, and of the one behind it

    def due(self):
        """Return when the next try is: when it may be, and there is something."""
        # Record number n is added at phase + (n - 1) * MINUTE.
        at = max(self.next, self.phase + self.acked * MINUTE)
        if self.interval is None:  # at an add
            at += (self.phase - at) % MINUTE
        return at

    def batch(self, now):
        """Return the number of records that a try at `now` sends."""
        stored = (now - self.phase) // MINUTE + 1
        if not self.goal:
            self.goal = stored
        acked = self.acked
        n = self.size
        if not n:  # else it was tried before, and stays what it was
            n = self.size = min(stored - acked, self.limit)
        if acked + n < self.goal:
            self.after = min(stored - acked - n, self.limit)
        else:
            self.after = 0
        return n

    def failure(self, now, asked):
        wait = asked + self.pause(self.failed, self.draw)
        self.failed += 1
        self.goal = 0
        self.next = now + EXCHANGE + max(wait, self.interval or 0)

    def skip(self, at, end):
        """Fail every 10 s from `at` to `end`; return how often."""
        self.batch(at)
        n = (end - at) // (10_000 + EXCHANGE) + 1
        self.failure(at + (n - 1) * (10_000 + EXCHANGE), 0)
        return n

    def success(self, now, n):
        self.acked += n
        self.size = self.after
        self.failed = 0
        self.next = now + EXCHANGE
        if self.acked >= self.goal:
            self.goal = 0
            self.next += self.interval or 0


class _Reader:
    """As log.reader.Reader: over the numbers of a device."""

    def __init__(self, device, place):
        self.place = place or (0, 0, device.acked)
        self._device = device

    def __iter__(self):
        while self.place[2] < self._device.stored:
            seq = self.place[2] + 1
            yield seq, PAYLOAD
            self.place = (0, 0, seq)

    def close(self):
        pass


class Real:
    """The same, made of an Outbox; its log holds nothing but numbers."""

    stream = "0123456789abcdef"
    dropped = damaged = errors = sending = 0

    def __init__(self, phase, interval, pause, draw):
        from postcache.envelope import Frame
        from postcache.send import Outbox

        self.phase = phase
        self.interval = interval
        self.pause = pause
        self.now = self.acked = 0
        frame = Frame("", {}, b'{"lines":[', b",", b"]}")
        self.outbox = Outbox(self, None, self, frame, LIMIT, interval or 0)
        self.outbox.most = BATCH

    # the log
    @property
    def stored(self):
        return (self.now - self.phase) // MINUTE + 1

    def read(self, place):
        return _Reader(self, place)

    def freeze(self, last):
        self.sending = last

    def ack(self, first, last, sending):
        self.acked = last
        self.sending = sending

    # the clock
    def ticks_ms(self):
        return self.now

    # the device
    def due(self):
        at = max(self.now + self.outbox.wait_ms(), self.phase + self.acked * MINUTE)
        if self.interval is None:
            at += (self.phase - at) % MINUTE
        return at

    def batch(self, now):
        self.now = now
        _, headers, body = self.outbox.begin()
        data = b"".join(body)
        body.close()
        n = int(headers["Postcache-Last"]) - int(headers["Postcache-First"]) + 1
        if len(data) != n * COMMA + AROUND or len(data) != int(headers["Content-Length"]):
            raise AssertionError("the model does not know how long a batch is")
        return n

    def failure(self, now, asked):
        self.now = now + EXCHANGE
        self.outbox.finish((503, {"retry-after": str(asked // 1000)} if asked else {}, b""))

    def success(self, now, n):
        self.now = now + EXCHANGE
        self.outbox.finish((200, {}, b""))


def batch_of(device, i, at):
    return device.batch(at)


class Fleet:
    """
    Devices, an outage and a return.

    Args:
        kind: Model or Real.
        count: how many.
        in_step: they add within the same second of each minute; else at any time of it.
        interval: ms, async_interval; None: they send when they add.
        pause: see above.
        outage: ms. It begins when all is delivered.
    """

    def __init__(self, kind, count, in_step, interval, pause, outage=OUTAGE, trace=None):
        self.trace = trace
        self.outage = outage
        self.tries = 0  # in the outage
        rng = random.Random(2025)
        self.devices = []
        for _ in range(count):
            phase = rng.randrange(1000 if in_step else MINUTE)
            self.devices.append(kind(phase, interval, pause, random.Random(phase).getrandbits))
        for i, device in enumerate(self.devices):
            seed = random.Random(i)
            device.draw = lambda bits=seed.getrandbits: bits(32)

    def run(self, server):
        """Return when the backlog of all was delivered: array of ms after the return."""
        queue = []
        outage = self.outage
        end = outage + AFTER
        attempt = self._try if self.trace is not None else batch_of
        tries = 0
        for i, device in enumerate(self.devices):
            at = device.due()
            if device.pause is every_10_s:  # in one step
                tries += device.skip(at, outage)
                at = device.due()
            while at < outage:
                attempt(device, i, at)
                device.failure(at, 0)
                tries += 1
                at = device.due()
            queue.append((at, i))
        self.tries = tries
        heapq.heapify(queue)
        gone = array("q", [0]) * len(self.devices)
        asked = (server.retry_after or 0) * 1000
        left = len(self.devices)
        while queue[0][0] < end:
            at, i = queue[0]
            if not left and at > outage + FIRST:
                break
            device = self.devices[i]
            n = attempt(device, i, at)
            if server.take(at - outage, n * COMMA + AROUND):
                if not gone[i]:
                    server.needed += 1
                    if n + device.acked > (outage - device.phase) // MINUTE:
                        gone[i] = at - outage + EXCHANGE
                        left -= 1
                device.success(at, n)
            else:
                device.failure(at, asked)
            heapq.heapreplace(queue, (device.due(), i))
        return gone

    def _try(self, device, i, at):
        import postcache.send

        # Both kinds draw from the same numbers.
        postcache.send.os = _Os(device)
        n = device.batch(at)
        self.trace.append((at, i, device.acked + 1, device.acked + n))
        return n


class _Os:
    def __init__(self, device):
        self.device = device

    def urandom(self, n):
        return self.device.draw().to_bytes(4, "big")


def validate():
    """Run the same fleet as models and as Outboxes; return the number of requests, all equal."""
    import postcache.send

    total = 0
    for interval in (None, MINUTE):
        for in_step in (False, True):
            for retry_after, outage in ((None, OUTAGE), (120, 4 * OUTAGE)):
                traces = []
                for kind in (Model, Real):
                    trace = []
                    fleet = Fleet(kind, 200, in_step, interval, full_jitter, outage, trace)
                    try:
                        fleet.run(Server(4, retry_after))
                    finally:
                        postcache.send.os = os
                    traces.append(trace)
                if traces[0] != traces[1]:
                    for one, other in zip(*traces):
                        if one != other:
                            raise AssertionError("model %s, Outbox %s" % (one, other))
                    raise AssertionError("one makes more requests than the other")
                total += len(traces[0])
    return total


def row(name, fleet, server, gone, count):
    rates = server.requests[: AFTER // 1000]
    last = max(gone)
    print(
        "| %s | %.0f | %s | %s | %s | %s | %.1f | %s | %s |"
        % (
            name,
            fleet.tries / count / (fleet.outage / OUTAGE),
            thousands(max(rates)),
            thousands(statistics.median(rates[: FIRST // 1000])),
            "%.1f" % (max(server.sent) / 1e6),
            thousands(server.refused),
            server.needed / count,
            half(gone),
            minutes(last) if all(gone) else "%s are not" % thousands(gone.count(0)),
        )
    )
    sys.stdout.flush()


def half(gone):
    """The time at which half of the devices were up to date."""
    gone = sorted([ms or 1 << 60 for ms in gone])[len(gone) // 2]
    return minutes(gone) if gone < 1 << 60 else "-"


def thousands(n):
    return f"{n:,.0f}"


def minutes(ms):
    return "%d:%02d" % divmod(ms // 1000, 60)


HEAD = """
| %s | tries an hour | peak/s | median/s | peak MB/s | 503s | taken | half | all |
|---|---|---|---|---|---|---|---|---|"""


def table(title, rows, count):
    print(HEAD % title)
    for name, in_step, interval, pause, capacity, retry_after, backlog, limit in rows:
        fleet = Fleet(Model, count, in_step, interval, pause)
        for device in fleet.devices if backlog else ():
            # So much was there before the hour; one record was on its way when all began.
            device.acked = -backlog
            device.size = 1
            device.limit = min(limit, BATCH // COMMA)
        server = Server(capacity, retry_after)
        gone = fleet.run(server)
        row(name, fleet, server, gone, count)


def main():
    parser = argparse.ArgumentParser(description="A fleet after an outage.")
    parser.add_argument("--devices", type=int, default=100_000, help="[%(default)s]")
    count = parser.parse_args().devices
    gc.disable()  # nothing here goes in circles
    begin = time.monotonic()
    print("%s requests of 200 Outboxes, each as the model has it." % thousands(validate()))
    capacity = count // 50
    c = thousands(capacity)
    run = MINUTE
    table(
        "back-off, spread over the minute",
        [
            ("**full jitter**", False, run, full_jitter, None, None, 0, 0),
            ("half jitter", False, run, half_jitter, None, None, 0, 0),
            ("no jitter", False, run, no_jitter, None, None, 0, 0),
            ("every 10 s", False, 10_000, every_10_s, None, None, 0, 0),
        ],
        count,
    )
    table(
        "all in the same second",
        [
            ("**full jitter**", True, run, full_jitter, None, None, 0, 0),
            ("no jitter", True, run, no_jitter, None, None, 0, 0),
            ("full jitter, `async_interval=None`", True, None, full_jitter, None, None, 0, 0),
        ],
        count,
    )
    table(
        "at most %s/s" % c,
        [
            ("**full jitter**, spread", False, run, full_jitter, capacity, None, 0, 0),
            ("and Retry-After: 120", False, run, full_jitter, capacity, 120, 0, 0),
            ("**full jitter**, in step", True, run, full_jitter, capacity, None, 0, 0),
            ("no jitter, in step", True, run, no_jitter, capacity, None, 0, 0),
            ("every 10 s, spread", False, 10_000, every_10_s, capacity, None, 0, 0),
        ],
        count,
    )
    table(
        "outages",
        [
            ("12 hours", False, run, full_jitter, None, None, 11 * 60, LIMIT),
            ("12 hours, `upload_limit=50`", False, run, full_jitter, None, None, 11 * 60, 50),
            ("12 hours, at most %s/s" % c, False, run, full_jitter, capacity, 120, 660, LIMIT),
        ],
        count,
    )
    print("%d s" % (time.monotonic() - begin))


if __name__ == "__main__":
    main()
