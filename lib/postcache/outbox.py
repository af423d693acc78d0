"""
What to send, when, and what an answer means.

A batch is a run of consecutive numbers, oldest first, so that its line i is record first + i. Its
end is made durable before its first try: a retry, also after a reboot, repeats the same bytes
under the same key. While the server works on one the next is formed, and one write of the cursor
acknowledges the one and begins the other.

    read -> batch -> freeze -> POST -> 2xx -> ack
                                       another answer -> refused.py: halve it, set one
                                           aside, or back off, and the same again
                                       none -> back-off, and the same again
"""

import os

from .ports import BATCH, BUFFER, const

_BASE = const(1000)  # ms, the first back-off is random below this
_CAP = const(300000)  # ms, and no back-off is random above this


class Outbox:
    """
    Sends what waits in a log.

    A batch is a tuple `(first, last, start, end, size, payloads)`: its numbers, where it begins
    and ends in the log, the bytes of its body, and its payloads, or None when they are too many
    to keep.

    Args:
        log: a `log.Log`, or anything with what is used of it here.
        http: with post(url, headers, chunks, timeout); see `ports`.
        clock: with ticks_ms().
        url: str.
        around: tuple (headers, head, tail): a dict of str, sent with every batch, and the bytes
            before and after the records, which are joined by commas.
        limit: int, records in a batch at most.
        interval: milliseconds from one round of sending to the next; a round ends when nothing
            waits or a try failed.

    Attributes: `sent`, `retries`, `refused`, counters of records, failed tries, records set aside;
    `status`, the last answer's or None; `error`, why the last try failed, or None; `blocked`, True
    when that needs a person.

    Attributes to set: `before`, called before each try, returns why there can be none now, if so;
    `notify`, called after each try; and, each None for none, `confirm`, see POSTCache; `stamps`, a
    `stamps.Stamps`; `pack`, `gzipped.pack`.
    """

    before = notify = int  # which does nothing
    confirm = stamps = pack = None
    sent = retries = refused = 0
    status = error = None
    blocked = False
    refusal = None  # (number, status, beginning of the answer's body) of what was set aside last
    # Set by refused.py: the last record of a run of which one at least is bad; how many in a row
    # were set aside; what says how many records a batch may have; how many bytes.
    suspect = row = 0
    halve = None
    most = BATCH

    batch: "tuple | None" = None  # what is tried next
    end: "tuple | None" = None  # the end of what was delivered

    def __init__(self, log, http, clock, url, around, limit, interval):
        self.log = log
        self._http = http
        self.clock = clock
        self._url = url
        self.headers, self.head, self.tail = around
        self.limit = limit
        self._round = interval
        self._goal = 0  # the round ends with this record: what comes later waits for the next
        self._next = self.failed = 0  # ticks before which nothing is tried; failures in a row
        self.hurry = self._held = False

    def wait_ms(self):
        """Return the milliseconds until the next try is due, 0 for now."""
        return max(0, self._next - self.clock.ticks_ms())

    def send(self, timeout, hurry=False):
        """
        Try to deliver one batch within `timeout` seconds.

        With `hurry` no record waits for the clock. Returns True when something was settled, or
        nothing waits. False means back-off; nothing is raised.
        """
        try:
            job = self.begin(hurry)
            if not job:
                return not self.error
            headers, body = job
            try:
                answer = self._http.post(self._url, headers, body, timeout)
            finally:
                body.close()
        except Exception as e:  # a bug in somebody's port, too, must not end the program that logs
            answer = e
        return self.finish(answer)

    def begin(self, hurry=False):
        """
        Return the next batch to try, `(headers, body)`: a dict and an iterator of bytes.

        None when there is none: then `error` says what is waited for, if anything. Otherwise
        body.close() must follow, and finish(), also with an exception that comes out of this.
        """
        log = self.log
        self.hurry = hurry
        self._held = False
        self._goal = self._goal or log.stored
        self._after = None
        error = self.before()
        if error:
            return self._idle(error)
        acked = log.acked
        if self.end and self.end[2] < acked:  # what came next was given up
            self.end = None
        batch = self.batch
        if not batch or batch[0] <= acked:
            self.batch = batch = None
            batch = self._form(self.end, log.sending if log.sending > acked else 0)
            if batch:
                if self.stamps:
                    self.stamps.frozen(batch[1])
                log.freeze(batch[1])
                self.batch = batch
            elif self._held:
                return self._idle("no clock")
            else:
                log.acked = max(log.acked, self._goal)  # what is left is damaged: no waiting
                self._settle(None, 0)
                return None
        headers = self.headers
        first, last, _, end, size, _ = batch
        headers["Postcache-Stream"] = log.stream
        headers["Postcache-First"] = "%d" % first
        headers["Postcache-Last"] = "%d" % last
        headers["Idempotency-Key"] = '"%s-%d-%d"' % (log.stream, first, last)
        body = self.body(batch)
        if self.pack:
            size, body = self.pack(self, batch)  # pyright: ignore
        headers["Content-Length"] = "%d" % size
        self.status = None
        return headers, self._ahead(body, last, end)

    def finish(self, answer):
        """
        Judge what came of the batch that begin() returned.

        Args:
            answer: what the port's post() returned, `(status, headers)` or `(status, headers,
                first bytes of the body)`; or the exception that it raised.

        Returns True when something was settled; False means back-off. Nothing is raised.
        """
        pause = 0
        self.blocked = False
        try:
            if isinstance(answer, Exception):
                raise answer
            status, headers, *start = answer
            start = start[0] if start else b""
            self.status = status
            if 200 <= status < 300 and (not self.confirm or self.confirm(status, headers, start)):
                error = None
                first, last, _, self.end, *_ = self.batch  # pyright: ignore
                self.sent += last - first + 1
                self.batch = after = self._after
                if after and self.stamps:
                    self.stamps.frozen(after[1])
                self.row = self.failed = 0
                self.log.ack(first, last, after[1] if after else 0)
            else:
                from .refused import judge

                error, pause = judge(self, status, headers, start)
        except Exception as e:
            error = type(e).__name__
            # Its number, but not its text: that could hold a URL with a secret.
            if e.args and isinstance(e.args[0], int):
                error += " %d" % e.args[0]
        if error:
            self.retries += 1
        return self._settle(error, pause)

    def _idle(self, error):
        """Look again in a second: nothing was tried, so nothing has failed."""
        self.error = error
        self._next = max(self._next, self.clock.ticks_ms() + 1000)

    def _settle(self, error, pause):
        """Set when the next try is: `pause` ms of waiting at least, None for at once."""
        if error and pause is not None:
            # "Exponential Backoff And Jitter": random below a bound that doubles, so that a fleet
            # which lost its server together does not come back together.
            bound = min(_CAP, _BASE << min(self.failed, 9))
            pause += int.from_bytes(os.urandom(4), "big") % bound
            self.failed += 1
        if pause is not None and (error or self.log.acked >= self._goal):
            pause = max(pause, self._round)
            self._goal = 0
        self._next = self.clock.ticks_ms() + (pause or 0)
        self.error = None if pause is None else error
        self.notify()
        return not self.error

    def _date(self, *args):
        from .stamps import date

        return date(self, *args)

    def _form(self, start, last):
        """Return the next batch from position `start`, up to record `last` if that is not 0."""
        log = self.log
        limit = self.limit
        payloads = []
        first = seq = size = 0
        reader = log.read(start)
        try:
            for number, payload in reader:
                if payload[:1] == b" ":
                    payload = self._date(number, payload, last)
                    if payload is None:
                        self._held = True
                        break
                n = len(payload) + 1
                if not seq:
                    first = number
                    if self.halve:
                        limit = self.halve(self, first)
                elif number != seq + 1 or (
                    seq >= last if last else size + n > self.most or number - first >= limit
                ):
                    break
                seq = number
                size += n
                if size > BUFFER:
                    payloads = None
                if payloads is not None:
                    payloads.append(payload)
        finally:
            reader.close()
        if not seq:
            return None
        size += len(self.head) + len(self.tail) - 1
        return first, seq, start, (log.segment, log.offset, seq), size, payloads

    def body(self, batch):
        """Yield the body of a batch in pieces of bytes."""
        seq, last, start, _, _, payloads = batch
        mark = self.head
        if payloads:
            yield mark + b",".join(payloads) + self.tail
            return
        reader = self.log.read(start)
        try:
            for number, payload in reader:
                if number != seq:
                    break
                if payload[:1] == b" ":
                    payload = self._date(number, payload, True)
                yield mark + payload
                mark = b","
                seq += 1
                if number == last:
                    break
        finally:
            reader.close()
        if seq <= last:
            # Readable a moment ago: the next try forms the batch anew, without the damage.
            self.batch = None
            raise OSError(5)
        yield self.tail

    def _ahead(self, body, last, end):
        yield from body
        # The port has all of this one: form the next while the server works on it.
        try:
            if last < self._goal:
                self._after = self._form(end, 0)
        except Exception:
            pass  # met again, and backed off from, by the next call
