"""
Finds the record that a server refuses, and sets it aside: loaded by the first refusal.

A batch is halved until a bad record stands alone. A batch of n records with one bad one costs at
most log2(n) + 3 requests (log2 rounded up): the whole batch, one half for each level, the bad
record alone, and all that is behind it. When the server takes a left half, the bad record is in
the right half, which need not be tried as a whole.

A server that refuses everything has not looked at the records. So after some records in a row have
been set aside and none was taken, each further one costs a back-off, and is tried alone.
"""

from ..ports import const
from .dead_letters import DeadLetters

_STREAK = const(8)


class Search:
    """
    What is known about refused records; in RAM only, so a reboot costs requests and nothing else.

    It does not know its outbox: a cycle of objects would keep a log that nobody closed in use.

    Args:
        around: int, bytes of a request's body that are not records.

    Attribute: `streak`, how many records in a row were set aside; whoever delivers one sets it to
    0.
    """

    streak = 0

    def __init__(self, around):
        self._around = around
        self._suspect = 0  # the last record of a run of which one at least is bad

    def limit(self, first, most):
        """Return how many records a batch from number `first` on may have; `most` if any."""
        if self.streak > 1:
            return 1
        if first <= self._suspect:
            return max(1, (self._suspect - first + 1) // 2)
        return most

    def refuse(self, outbox, batch, too_large, reason):
        """
        Halve a batch that was refused, or make its only record a dead letter and pass over it.

        Args:
            outbox: the `send.Outbox` that sent it.
            too_large: True when none of its records need be bad.
            reason: bytes, what the server said.

        Raises OSError when the record could not be set aside; it stays where it is then.
        """
        log = outbox.log
        outbox.batch = None
        if batch.last > batch.first:
            if too_large:
                outbox.most = (batch.size - self._around) // 2
            else:
                self._suspect = batch.last
            # Another batch, under another key. Durable, so that a device which is restarted after
            # each try comes to an end, too.
            log.freeze((batch.first + batch.last - 1) // 2)
            return
        self.set_aside(outbox, batch, {0: reason})
        log.ack(batch.first, batch.last, 0)
        outbox.end = batch.end
        self.streak += 1
        outbox.blocked = self.streak >= _STREAK

    def set_aside(self, outbox, batch, refused):
        """
        Make dead letters of some records of a batch.

        Args:
            outbox: as refuse() has it.
            refused: dict, position in the batch to what the server said of it, bytes.
        """
        letters = DeadLetters(outbox.log)
        records = outbox.records(batch)
        try:
            for i, (number, payload) in enumerate(records):
                if i in refused:
                    letters.add(number, outbox.status, refused[i], payload)
                    outbox.rejected = number, outbox.status, refused[i]
        finally:
            records.close()  # the file it reads: MicroPython would keep it open until a collection
