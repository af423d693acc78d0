"""Reading a log from a place on, while others write to it: any number of readers at a time."""

from ..ports import const
from .line import decode

# How often a segment that cannot be read is tried, each time after a back-off, before it is passed
# over: a card that is being replugged comes back, a bad sector does not.
_TRIES = const(40)


class Reader:
    """
    Iterates over durable records, oldest first: `(sequence number, payload)`.

    Args:
        log: a `log.Log`.
        place: None to begin with the oldest that is not acknowledged, or where another reader was.

    Attribute: `place`, tuple (segment, offset, sequence number): behind the last record that was
    *taken*. A record is taken once the next one is asked for.

    A reader that breaks off must be closed. Iterating raises OSError when a file cannot be read,
    and after some tries, by one reader or another, passes over it.
    """

    def __init__(self, log, place=None):
        self.place = place or (0, 0, log.acked)
        self._records = self._read(log)

    def __iter__(self):
        return self._records

    def close(self):
        """Close the file that is open."""
        self._records.close()

    def _read(self, log):
        segment, offset, last = self.place
        firsts = log.journal.firsts
        while True:
            first = upper = 0
            try:
                with log.lock:
                    if not firsts:
                        return
                    # The segment that holds record last + 1, or the first one after it.
                    i = 1
                    while i < len(firsts) and firsts[i] <= last + 1:
                        i += 1
                    upper = firsts[i] if i < len(firsts) else 0
                    bound = upper or log.stored + 1
                    first = firsts[i - 1]
                    f, end = log.journal.open(first)
                if first != segment:
                    segment = first
                    offset = 0
                with f:
                    f.seek(offset)
                    while offset < end:
                        # Without a limit: MicroPython would allocate all of it for each line.
                        data = f.readline()
                        if not data:
                            break
                        record = decode(data)
                        offset += len(data)
                        if not record:
                            if (first, offset) > log.seen:
                                log.seen = first, offset
                                log.damaged += 1
                        elif last < record[0] < bound:
                            last = record[0]
                            yield record
                            # Asked for more: the reader took this one.
                            self.place = first, offset, last
            except OSError as e:
                if not first:
                    raise  # the lock: a callback came in between
                if e.errno == 116 or (first not in firsts and not upper):
                    # Slots were written out meanwhile, under this name or another: look again.
                    segment = 0
                    continue
                if first in firsts:  # else dropped in the meantime
                    log.errors += 1
                    log.tries += 1
                    if log.tries < _TRIES:
                        raise
                    log.damaged += 1
                    if upper:
                        firsts.remove(first)  # until the next open
            log.tries = 0
            if not upper:
                return
            last = max(last, upper - 1)
