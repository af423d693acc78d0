"""
What to send, and when.

A batch is a run of consecutive numbers, oldest first, so that its line i is record first + i. Its
end is made durable before its first try: a retry, also after a reboot, repeats the same bytes
under the same key. While the server works on one the next is formed, and one write of the cursor
acknowledges the one and begins the other.

    read -> batch -> freeze -> POST -> answer -> verdict -> delivered: ack
                                                            refused: halve, or set one aside
                                       none ---> back-off <- any other
"""

import os

from ..ports import BATCH, BUFFER, const

_BASE = const(1000)  # ms, the first back-off is random below this
_CAP = const(300000)  # ms, and no back-off is random above this


class Batch:
    """
    Consecutive records that are sent together.

    Attributes: `first`, `last`, their numbers; `place`, `end`, where it begins and ends in the
    log, as a `log.reader.Reader` has it; `size`, the bytes of its body; `group`, what the frame
    says that they have in common; `lines`, a list of bytes, or None when they are too many to
    keep.
    """

    def __init__(self, first, last, place, end, size, group, lines):
        self.first = first
        self.last = last
        self.place = place
        self.end = end
        self.size = size
        self.group = group
        self.lines = lines


class Outbox:
    """
    Sends what waits in a log.

    Args:
        log: a `log.Log`, or anything with what is used of it here.
        http: with post(url, headers, chunks, timeout); see `ports`.
        clock: with ticks_ms().
        frame: an `envelope.Frame`.
        limit: int, records in a batch at most.
        interval: milliseconds from one round of sending to the next; a round ends when nothing
            waits or a try failed.

    Attributes to read: `log`; `sent`, `retries`, counters of records, and of failed tries;
    `status`, the last answer's or None; `error`, why the last try failed, or "".

    Attributes to set: `gates`, callables that are asked before each try: one that returns a str
    stops it, for that reason; `watchers`, callables, called after each try; `stamps`, a
    `stamps.Stamps` or None; `gzip`, the pair (length, stream) of `ports.gzipped` to compress, or
    None; `most`, bytes of a batch, and `buffer`, bytes up to which it is kept in RAM.

    Shared with `isolate.Search`: `batch`, what is tried next, or None; `end`, the end of what was
    delivered, as a reader's place; `rejected`, (number, status, beginning of the answer's body) of
    the newest dead letter; `blocked`, True when a person has to correct what made the last try
    fail.
    """

    gates = watchers = ()
    stamps = status = rejected = None
    blocked = False
    sent = retries = 0
    error = ""
    most = BATCH
    buffer = BUFFER
    gzip: "tuple | None" = None
    batch: "Batch | None" = None
    end: "tuple | None" = None
    _search = None

    def __init__(self, log, http, clock, frame, limit, interval):
        self.log = log
        self._http = http
        self._clock = clock
        self._frame = frame
        self.limit = limit
        self._round = interval
        self.headers = {}
        self._following = None  # the batch after the one that is on its way
        self._goal = 0  # the round ends with this record: what comes later waits for the next
        self._next = self._failures = 0  # ticks before which nothing is tried; failures in a row
        self._hurry = self._undated = False

    def wait_ms(self):
        """Return the milliseconds until the next try is due, 0 for now."""
        return max(0, self._next - self._clock.ticks_ms())

    def send(self, timeout, hurry=False):
        """
        Try to deliver one batch within `timeout` seconds.

        With `hurry` no record waits for the clock. Returns True to go on: something was delivered
        or found out, or nothing waits. False means back-off; nothing is raised.
        """
        try:
            job = self.begin(hurry)
            if not job:
                return not self.error
            url, headers, body = job
            try:
                answer = self._http.post(url, headers, body, timeout)
            finally:
                body.close()
        except Exception as e:  # a bug in somebody's port, too, must not end the program that logs
            answer = e
        return self.finish(answer)

    def begin(self, hurry=False):
        """
        Return the next batch to try, `(url, headers, body)`: a str, a dict, an iterator of bytes.

        None when there is none: then `error` says what is waited for, if anything. Otherwise
        body.close() must follow, and finish(), also with an exception that comes out of this.
        """
        log = self.log
        self._hurry = hurry
        self._undated = False
        self._goal = self._goal or log.stored
        self._following = None
        for gate in self.gates:
            reason = gate()
            if reason:
                return self._idle(reason)
        acked = log.acked
        if self.end and self.end[2] < acked:  # what came next was given up
            self.end = None
        batch = self.batch
        if not batch or batch.first <= acked:
            self.batch = batch = None
            batch = self._form(self.end, log.sending if log.sending > acked else 0)
            if batch:
                if self.stamps:
                    self.stamps.frozen(batch.last)
                log.freeze(batch.last)
                self.batch = batch
            elif self._undated:
                return self._idle("no clock")
            else:
                log.acked = max(acked, self._goal)  # what is left is damaged: no waiting
                self._schedule("", 0)
                return None
        url, fixed = self._frame.request(batch.group)
        headers = self.headers
        headers.clear()
        headers.update(fixed)
        headers["Postcache-Stream"] = log.stream
        headers["Postcache-First"] = "%d" % batch.first
        headers["Postcache-Last"] = "%d" % batch.last
        headers["Idempotency-Key"] = '"%s-%d-%d"' % (log.stream, batch.first, batch.last)
        size = batch.size
        body = self._body(batch)
        if self.gzip:
            length, stream = self.gzip
            headers["Content-Encoding"] = "gzip"
            size = length(body)
            body = stream(self._body(batch))
        headers["Content-Length"] = "%d" % size
        self.status = None
        return url, headers, self._ahead(body, batch)

    def finish(self, answer):
        """
        Judge what came of the batch that begin() returned.

        Args:
            answer: what the port's post() returned, `(status, headers)` or `(status, headers,
                first bytes of the body)`; or the exception that it raised.

        Returns True to go on: something was delivered or found out. False means back-off. Nothing
        is raised.
        """
        pause = 0
        at_once = self.blocked = False
        try:
            if isinstance(answer, Exception):
                raise answer
            status, headers, *start = answer
            start = start[0] if start else b""
            self.status = status
            batch = self.batch
            verdict = self._frame.verdict(batch, status, headers, start)
            if verdict.kind == "delivered":
                error = ""
                refused = verdict.refused
                if refused:
                    self._searching().set_aside(self, batch, refused)
                self.sent += batch.last - batch.first + 1 - len(refused)
                self.end = batch.end
                self.batch = following = self._following
                if following and self.stamps:
                    self.stamps.frozen(following.last)
                if self._search:
                    self._search.streak = 0
                self._failures = 0
                self.log.ack(batch.first, batch.last, following.last if following else 0)
            else:
                error = "HTTP %d" % status
                if 200 <= status < 300:
                    error += ", not confirmed"
                pause = verdict.pause
                at_once = self._setback(batch, verdict, start)
        except Exception as e:
            error = type(e).__name__
            # Its number, but not its text: that could hold a URL with a secret.
            if e.args and isinstance(e.args[0], int):
                error += " %d" % e.args[0]
        if error:
            self.retries += 1
        return self._schedule(error, pause, at_once)

    def _setback(self, batch, verdict, reason):
        """
        Act on a verdict that does not deliver.

        Returns True to go on at once: nothing has failed, and what the answer told was worth the
        request.
        """
        kind = verdict.kind
        if kind == "plain" and self.gzip:
            self.gzip = None
            return True
        if kind == "blocked":
            self.blocked = True
            self._failures = 9  # a fleet that was locked out does not come back together, either
        elif kind != "retry":
            self._searching().refuse(self, batch, kind == "too large", reason)
            return not (self.blocked or verdict.pause)
        return False

    def _searching(self):
        if not self._search:
            from .isolate import Search

            self._search = Search(self._frame.size)
        return self._search

    def _idle(self, reason):
        """Look again in a second: nothing was tried, so nothing has failed."""
        self.error = reason
        self._next = max(self._next, self._clock.ticks_ms() + 1000)

    def _schedule(self, error, pause, at_once=False):
        """
        Set when the next try is: after `pause` ms at least, and a back-off if there is an error.

        Returns True to go on.
        """
        if at_once:
            error = ""
            pause = 0
        elif error:
            # "Exponential Backoff And Jitter": random below a bound that doubles, so that a fleet
            # which lost its server together does not come back together.
            bound = min(_CAP, _BASE << min(self._failures, 9))
            pause += int.from_bytes(os.urandom(4), "big") % bound
            self._failures += 1
        if error or (self.log.acked >= self._goal and not at_once):
            pause = max(pause, self._round)
            self._goal = 0
        self._next = self._clock.ticks_ms() + pause
        self.error = error
        for watcher in self.watchers:
            watcher()
        return not error

    def _completed(self, number, payload, hurry):
        """Return an undated payload with its date; None when it has to wait for the clock."""
        if not self.stamps:
            from .stamps import Stamps

            self.stamps = Stamps(self.log, self._clock, None)
        return self.stamps.complete(number, payload, hurry or self._hurry)

    def _form(self, place, last):
        """Return the next batch from `place` on, up to record `last` if that is not 0."""
        limit = self.limit
        frame = self._frame
        grouped = frame.group
        render = frame.render
        gap = len(frame.between)
        lines = []
        first = seq = size = 0
        common = None
        reader = self.log.read(place)
        try:
            for number, payload in reader:
                if payload[:1] == b" ":
                    payload = self._completed(number, payload, last)
                    if payload is None:
                        self._undated = True
                        break
                group = grouped and grouped(payload)
                if render:
                    payload = render(payload)
                n = len(payload) + gap
                if not seq:
                    first = number
                    common = group
                    if self._search:
                        limit = self._search.limit(first, limit)
                elif (
                    number != seq + 1
                    or group != common
                    or (seq >= last if last else size + n > self.most or number - first >= limit)
                ):
                    break
                seq = number
                size += n
                if size > self.buffer:
                    lines = None
                if lines is not None:
                    lines.append(payload)
        finally:
            reader.close()
        if not seq:
            return None
        return Batch(first, seq, place, reader.place, size + frame.size - gap, common, lines)

    def records(self, batch):
        """Yield (number, payload) of a batch, dated and all, but not rendered."""
        seq = batch.first
        reader = self.log.read(batch.place)
        try:
            for number, payload in reader:
                if number != seq:
                    break
                if payload[:1] == b" ":
                    payload = self._completed(number, payload, True)
                yield number, payload
                seq += 1
                if number == batch.last:
                    return
        finally:
            reader.close()
        # Readable a moment ago: the next try forms the batch anew, without the damage.
        self.batch = None
        raise OSError(5)

    def _body(self, batch):
        """Yield the body of a batch in pieces of bytes."""
        frame = self._frame
        mark = frame.head
        if batch.lines:
            yield mark + frame.between.join(batch.lines) + frame.tail
            return
        records = self.records(batch)
        try:
            for _, payload in records:
                yield mark + (frame.render(payload) if frame.render else payload)
                mark = frame.between
        finally:
            records.close()
        yield frame.tail

    def _ahead(self, body, batch):
        yield from body
        # The port has all of this one: form the next while the server works on it.
        try:
            if batch.last < self._goal:
                self._following = self._form(batch.end, 0)
        except Exception:
            pass  # met again, and backed off from, by the next call
