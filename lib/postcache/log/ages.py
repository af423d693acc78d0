"""
For how long records have waited, at least: `max_age`, and the age of the oldest in `stats`.

Only the time counts in which this instance has run, and no clock is used that could be set. What
was there when the log was opened is as old as the opening, and time without power does not count.
So no record is ever taken for older than it is.
"""

from ..ports import const

_MARKS = const(32)


class Ages:
    """
    Remembers when records were added: in marks, a bounded number of them, not one for each.

    A mark `(number, ticks)` says that records up to this number were there at that time.

    Args:
        log: with acked, stored, lock, give_up() and clean().
        clock: with ticks_ms().
        most: ms, what expire() lets wait; 0 for all.

    Attribute: `dropped`, records that were too old.
    """

    dropped = 0

    def __init__(self, log, clock, most=0):
        self._log = log
        self._clock = clock
        self._most = most
        self._step = most // 16 or 1000  # records that are added within it share a mark
        self._begun = clock.ticks_ms()
        self._marks = [(log.stored, self._begun)]

    def note(self):
        """Remember that all that is stored now was there at this time."""
        # Two threads at once may lose a mark here: its records get a younger age, or none.
        seq = self._log.stored
        now = self._clock.ticks_ms()
        marks = self._marks
        if now - self._begun < self._step and len(marks) > 1:
            marks[-1] = (seq, now)
            return
        self._begun = now
        if len(marks) > _MARKS:
            # Records whose mark goes get the age of the next one: too young, never too old.
            marks[:] = marks[1::2]
            self._step *= 2
        marks.append((seq, now))
        try:
            self.expire()
        except OSError:
            pass  # a callback came in between: the next one does it

    def oldest(self):
        """Return the age of the oldest record that waits, in ms; 0 when none does."""
        acked = self._log.acked
        self._marks = [mark for mark in self._marks if mark[0] > acked] or self._marks[-1:]
        seq, ticks = self._marks[0]
        return self._clock.ticks_ms() - ticks if seq > acked else 0

    def expire(self):
        """Let the log drop what has waited for longer than `most`."""
        if self._most and self.oldest() > self._most:
            then = self._clock.ticks_ms() - self._most
            last = 0
            for seq, ticks in self._marks:
                if ticks < then:
                    last = seq
            log = self._log
            with log.lock:
                self.dropped += log.give_up(0, last)
            log.clean()
