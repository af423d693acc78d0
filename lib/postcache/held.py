"""Records that wait in RAM for others, so that one commit stores them all: `flush_every`."""

from .line import OVERHEAD
from .ports import Lock


class Held:
    """
    Holds records back until `n` of them can be stored together.

    Args:
        log: with stored, the number of the newest record, and max_record, bytes.
        append: stores a list of payloads and returns the number of the last one.
        n: int, records. A group is also stored before it outgrows the longest record.

    `len()` of it is the number of records that are in RAM only.
    """

    def __init__(self, log, append, n):
        self._log = log
        self._append = append
        self._n = n
        self._lock = Lock()
        self._payloads = []

    def hold(self, payloads):
        """Keep `payloads` for now; return the number that the last one will have."""
        with self._lock:
            held = self._payloads
            if len(held) + len(payloads) >= self._n or not self._fits(held + payloads):
                return self._commit(payloads)
            held += payloads
            return self._log.stored + len(held)

    def commit(self, payloads):
        """
        Store everything held, and then `payloads`; return the number of the last one.

        After an OSError `payloads` are not stored and not held; what was held before still is.
        """
        with self._lock:
            return self._commit(payloads)

    def alone(self, call):
        """Store everything held, and return what `call` returns; nothing is added meanwhile."""
        with self._lock:
            self._commit(())
            return call()

    def __len__(self):
        return len(self._payloads)

    def _fits(self, payloads):
        return sum([len(payload) + OVERHEAD for payload in payloads]) <= self._log.max_record

    def _commit(self, payloads):
        held = self._payloads
        group = held + list(payloads)
        if held and not self._fits(group):
            self._append(held[:])
            held.clear()
            group = payloads
        seq = self._append(group) if group else self._log.stored
        held.clear()
        return seq
