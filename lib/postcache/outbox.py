"""
What to send, when, and what an answer means.

A batch is a run of consecutive numbers, oldest first, so that its line i is record first + i. Its
end is made durable before its first try: a retry, also after a reboot, repeats the same bytes
under the same key. While the server works on one the next is formed, and one write of the cursor
acknowledges the one and begins the other.

    read -> batch -> freeze -> POST -> 2xx -> ack      anything else -> back-off, and the same
    again
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

    Attributes: `sent`, `retries`, counters; `status`, the last answer's or None;
    `error`, why the last try failed, or None.
    """

    def __init__(self, log, http, clock, url, around, limit, interval):
        self._log = log
        self._http = http
        self._clock = clock
        self._url = url
        self._headers, self._head, self._tail = around
        self._limit = limit
        self._round = interval
        self._batch = self._end = None  # what is tried next; the end of what was delivered
        self._goal = 0  # the round ends with this record: what comes later waits for the next
        self._next = self._failed = 0  # ticks before which nothing is tried; failures in a row
        self.sent = self.retries = 0
        self.status = self.error = None

    def wait_ms(self):
        """Return the milliseconds until the next try is due, 0 for now."""
        return max(0, self._next - self._clock.ticks_ms())

    def send(self, timeout):
        """
        Try to deliver one batch within `timeout` seconds.

        Returns True when it was delivered or nothing waits. False means back-off; nothing is
        raised.
        """
        error = None
        pause = 0
        try:
            log = self._log
            batch = self._batch
            self._goal = self._goal or log.stored
            if not batch:
                self._batch = batch = self._form(self._end, log.sending)
                if batch:
                    log.freeze(batch[1])
                else:
                    log.acked = max(log.acked, self._goal)  # what is left is damaged: no waiting
            if batch:
                self.status = None
                self.status, headers = self._post(batch, timeout)
                if 200 <= self.status < 300:
                    self._failed = 0
                    first, last, _, self._end, *_ = batch
                    self.sent += last - first + 1
                    self._batch = after = self._after
                    log.ack(first, last, after[1] if after else 0)
                else:
                    error = "HTTP %d" % self.status
                    if "retry-after" in headers:
                        from .retry import retry_after

                        pause = retry_after(headers)
        except Exception as e:  # a bug in somebody's port, too, must not end the program that logs
            error = type(e).__name__
            # Its number, but not its text: that could hold a URL with a secret.
            if e.args and isinstance(e.args[0], int):
                error += " %d" % e.args[0]
        if error:
            # "Exponential Backoff And Jitter": random below a bound that doubles, so that a fleet
            # which lost its server together does not come back together.
            bound = min(_CAP, _BASE << min(self._failed, 9))
            pause += int.from_bytes(os.urandom(4), "big") % bound
            self._failed += 1
            self.retries += 1
        if error or self._log.acked >= self._goal:
            pause = max(pause, self._round)
            self._goal = 0
        self._next = self._clock.ticks_ms() + pause
        self.error = error
        return not error

    def _form(self, start, last):
        """Return the next batch from position `start`, up to record `last` if that is not 0."""
        log = self._log
        limit = self._limit
        payloads = []
        first = seq = size = 0
        reader = log.read(start)
        try:
            for number, payload in reader:
                n = len(payload) + 1
                if not seq:
                    first = number
                elif number != seq + 1 or (
                    seq >= last if last else size + n > BATCH or number - first >= limit
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
        size += len(self._head) + len(self._tail) - 1
        return first, seq, start, (log.segment, log.offset, seq), size, payloads

    def _body(self, batch):
        seq, last, start, end, _, payloads = batch
        mark = self._head
        if payloads:
            yield mark + b",".join(payloads) + self._tail
        else:
            reader = self._log.read(start)
            try:
                for number, payload in reader:
                    if number != seq:
                        break
                    yield mark + payload
                    mark = b","
                    seq += 1
                    if number == last:
                        break
            finally:
                reader.close()
            if seq <= last:
                # Readable a moment ago: the next try forms the batch anew, without the damage.
                self._batch = None
                raise OSError(5)
            yield self._tail
        # The port has all of this one: form the next while the server works on it.
        try:
            if last < self._goal:
                self._after = self._form(end, 0)
        except Exception:
            pass  # met again, and backed off from, by the next call

    def _post(self, batch, timeout):
        headers = self._headers
        headers["Content-Length"] = str(batch[4])
        headers["Postcache-Stream"] = stream = self._log.stream
        headers["Postcache-First"] = first = str(batch[0])
        headers["Postcache-Last"] = last = str(batch[1])
        headers["Idempotency-Key"] = '"%s-%s-%s"' % (stream, first, last)
        body = self._body(batch)
        self._after = None
        try:
            return self._http.post(self._url, headers, body, timeout)
        finally:
            body.close()
