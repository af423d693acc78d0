"""
Tells a program what happens: `on_event`.

After each add and each try, counters are compared. So nothing that holds a lock ever calls out,
and the callback may use the cache.
"""

from ..ports import Lock


class Events:
    """
    Calls `callback(kind, detail)`, a str and a dict, for what is new since the last look().

    kind, detail:
        "dropped"    records: how many; total; why: "full" or "age".
        "rejected"   number, status, reason: what the server said of it, str. Of several that one
                     answer refused, the newest: `rejected()` has all.
        "damaged"    pieces: how many places on flash held no record where one was due.
        "error"      error: why the last try failed; blocked: True when a person must act;
                     next_try_ms. Told when the reason changes, not for each try.
        "recovered"  error: None. The first delivery after an error.
        "plain"      {}. The server does not take gzip: sent without it from now on.

    What the callback raises is counted in `errors` and goes nowhere.
    """

    def __init__(self, callback, log, outbox, compress, ages):
        self._callback = callback
        self._log = log
        self._outbox = outbox
        self._lock = Lock()
        self._dropped = log.dropped
        self._damaged = 0
        self._expired = self._sent = 0
        self._rejected = self._error = None
        self._gzip = compress
        self._ages = ages

    def look(self):
        """Call the callback for what is new."""
        if not self._lock.acquire(False):
            return  # another thread looks, or the callback has come back in
        try:
            self._look(self._log, self._outbox)
        finally:
            self._lock.release()

    def _tell(self, kind, **detail):
        try:
            self._callback(kind, detail)
        except (Exception, SystemExit):  # not the end of the thread that sends
            self._log.errors += 1

    def _look(self, log, outbox):
        dropped = log.dropped
        # Less than before: one was on its way, and has arrived all the same.
        self._dropped = min(self._dropped, dropped)
        if dropped > self._dropped:
            n = dropped - self._dropped
            self._dropped = dropped
            old = 0
            if self._ages:
                old = min(n, self._ages.dropped - self._expired)
                self._expired = self._ages.dropped
            if old:
                self._tell("dropped", records=old, total=dropped, why="age")
            if n > old:
                self._tell("dropped", records=n - old, total=dropped, why="full")
        if log.damaged > self._damaged:
            n = log.damaged - self._damaged
            self._damaged = log.damaged
            self._tell("damaged", pieces=n)
        if not outbox:
            return
        rejected = outbox.rejected
        if rejected is not self._rejected:
            self._rejected = rejected
            seq, status, reason = rejected
            reason = "".join([chr(c) if 32 <= c < 127 else "?" for c in reason[:80]])
            self._tell("rejected", number=seq, status=status, reason=reason)
        error = (outbox.error, outbox.blocked) if outbox.error else None
        if error != self._error:
            before, self._error = self._error, error
            if error:
                wait = outbox.wait_ms()
                self._tell("error", error=error[0], blocked=error[1], next_try_ms=wait)
            elif outbox.sent > self._sent:
                self._tell("recovered", error=None)
            else:
                self._error = before  # halved, set aside or expired: not delivered yet
        self._sent = outbox.sent
        if self._gzip and not outbox.gzip:
            self._gzip = False
            self._tell("plain")
