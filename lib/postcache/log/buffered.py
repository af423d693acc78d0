"""Records that wait in RAM for others, so that one commit stores them all: `flush_every`."""

from ..ports import Lock


class Buffered:
    """
    Buffers records until `n` of them can be stored together.

    Args:
        log: with stored, the number of the newest record, size_of(payloads) and max_record, bytes.
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

    def add(self, payloads):
        """Keep `payloads` for now; return the number that the last one will have."""
        with self._lock:
            waiting = self._payloads
            if len(waiting) + len(payloads) >= self._n or not self._fits(waiting + payloads):
                return self._commit(payloads)
            waiting += payloads
            return self._log.stored + len(waiting)

    def commit(self, payloads):
        """
        Store what is buffered, and then `payloads`; return the number of the last one.

        After an OSError `payloads` are neither stored nor buffered; what was buffered still is.
        """
        with self._lock:
            return self._commit(payloads)

    def alone(self, call):
        """Store what is buffered, and return what `call` returns; nothing is added meanwhile."""
        with self._lock:
            self._commit(())
            return call()

    def __len__(self):
        return len(self._payloads)

    def _fits(self, payloads):
        return self._log.size_of(payloads) <= self._log.max_record

    def _commit(self, payloads):
        waiting = self._payloads
        group = waiting + list(payloads)
        if waiting and not self._fits(group):
            self._append(waiting[:])
            waiting.clear()
            group = payloads
        seq = self._append(group) if group else self._log.stored
        waiting.clear()
        return seq
