"""
Log: records in, in order, durable; out again oldest first; gone once acknowledged.

    <path>/
        cursor-a cursor-b   a `pair`: stream id, what is acknowledged, in flight
        0000000001.log ...  segments, named by their first number; the newest is the journal
        lock                one writer at a time (CPython)

A number is given out once. It is given back only when its record's write or sync failed. Nobody
holds it then: the caller got an OSError, and only durable records are ever sent. The next file is
named by that number, so what the failed write left behind is never read.

Opening reads the cursor, the names and the end of the newest file (`recover`). Sealed segments are
trusted until they are read; a line that is no record is counted and passed over.
"""

from ..ports import Lock, const, forget
from .journal import name_of
from .line import OVERHEAD, encode
from .reader import Reader

_VERSION = const(1)


class Log:
    """
    An append-only log in a directory.

    Args:
        fs: a `ports.Directory`, or anything with its methods and sizes.
        max_bytes: int >= 4096, what the files may take; None for half of what is free, with a cap.
            When it is full the oldest segment is dropped and counted, or `on_full` raises.
        slot_size: int, bytes of a slot, 0 for the append journal; None for what fits `fs`.

    Attributes to read: `fs`; `stream`, str; `stored`, `acked`, `sending`: highest sequence number
    that is durable, acknowledged, in flight; `opened`, that of `stored` when it was opened;
    counters `dropped`, `damaged`, `errors`, `writes`; `limit`, bytes of a full segment, and
    `max_record`, of the longest payload; `journal`; `lock`, held while any of this changes.

    Attributes to set: `on_full`, str, see POSTCache; `acked`, to a higher number, to wait no
    longer for what is left up to there; `seen` and `tries`, by readers; `dropped`, under the lock;
    `damaged` and `errors`, by whoever keeps files beside the log; `notes`, a dict, in which they
    remember things until it is closed.

    Raises OSError when the directory cannot be used or was written by a newer version.
    """

    on_full = "drop_oldest"

    def __init__(self, fs, max_bytes=None, slot_size=None):
        from .recover import Recovered

        self.fs = fs
        self.lock = Lock()
        self.notes = {}
        self._max = max_bytes
        self.errors = self.writes = self.tries = self._dropped_to = 0
        self.seen = (0, 0)  # damage up to this place, (segment, offset), is counted already
        self._room = 0  # what the files may take, once it is known
        found = Recovered(fs, max_bytes, slot_size, _VERSION)
        forget(__name__ + ".recover")
        self._cursor = found.cursor
        self.journal = found.journal
        self.stream = found.stream
        # What is durably acknowledged: only that may be overwritten, or the newest number could be
        # known nowhere, and be given out again.
        self.acked = self._noted = found.acked
        self.sending = found.sending
        self.dropped = self._counted = found.dropped
        self.damaged = found.damaged
        self.stored = self.opened = found.stored
        self.limit = found.limit
        self.max_record = min(fs.segment, self.limit) - OVERHEAD
        if not self._cursor.generation:
            self._move()  # the stream has its name before its first record
        self.clean()

    def _move(self):
        """Make the cursor durable. OSError when that failed; the older copy is whole then."""
        acked = self.acked
        dropped = self.dropped
        self.writes += 1
        self._cursor.write(
            b'[%d, "%s", %d, %d, %d]'
            % (_VERSION, self.stream.encode(), acked, self.sending, dropped)
        )
        self._noted = acked
        self._counted = dropped

    @staticmethod
    def size_of(payloads):
        """Return the bytes of the lines that hold `payloads`, at most."""
        return sum([len(payload) + OVERHEAD for payload in payloads])

    def append(self, payloads, before=None):
        """
        Store `payloads`, a list of bytes of JSON text without a newline; durable when it returns.

        `before`, if given, is called with the number of the first one just before anything is
        written, while nobody else can append; what it raises ends this call.

        Returns the sequence number of the last one. Raises OSError when they could not be stored;
        none of them is then in the log or is sent, unless it is opened anew before the next
        append. The error of a log that is full, and may drop nothing, is (28, "full").
        """
        with self.lock:
            seq = self.stored
            if before:
                before(seq + 1)
            lines = []
            for payload in payloads:
                seq += 1
                lines.append(encode(seq, payload))
            self.writes += 1
            self.journal.append(self.stored + 1, lines, self._noted, self._make_room)
            self.stored = seq
            return seq

    def _make_room(self, size):
        """Drop the oldest segments until another one, of `size` bytes at least, is allowed."""
        fs = self.fs
        firsts = self.journal.firsts
        while True:
            used = sum([size for _, size in fs.files()])
            if not self._room:
                # Not at open: asking littlefs for its free space walks the whole file system.
                # What is there already stays, also when others have filled the disk.
                total = used + fs.free()
                most = (
                    min(self._max, total - fs.reserve)
                    if self._max
                    else min(fs.max_bytes, total // 2)
                )
                self._room = max(used, most)
            if len(firsts) < 2 or used + max(size, self.limit) <= self._room:
                return
            if self.on_full != "drop_oldest" and firsts[1] > self.acked + 1:
                raise OSError(28, "full")
            first = firsts.pop(0)
            self.give_up(first, firsts[0] - 1)
            if not self._removable(firsts[0]) or not self._remove(first):
                return  # dropping more would not help

    def give_up(self, first, last):
        """
        Drop and count the records from `first` to `last`, those of them that wait.

        Returns how many. To be called under the lock.
        """
        lost = last - max(first - 1, self.acked)
        if lost > 0:
            self.dropped += lost
            self._dropped_to = self.acked = last
            self._put()
        return max(0, lost)

    def _remove(self, first):
        """Remove a segment; return True when it is gone."""
        try:
            self.fs.remove(name_of(first))
            return True
        except OSError:
            self.errors += 1  # the next open tries again
            return False

    def read(self, place=None):
        """Return a `Reader` from `place` on; None for the oldest that is not acknowledged."""
        return Reader(self, place)

    def ack(self, first, last, sending):
        """
        Records `first`..`last` were delivered; `sending` is the last number of the next batch.

        Never raises: what cannot be written is counted in `errors`, and costs duplicates at worst.
        """
        with self.lock:
            # Dropped while it was on its way: delivered all the same.
            if self._dropped_to >= first:
                self.dropped -= min(last, self._dropped_to) - first + 1
            self.acked = max(last, self.acked)
        written = self.freeze(sending)
        self.clean()
        if not written:
            self.freeze(sending)  # the disk was full: what was delivered has made room

    def freeze(self, last):
        """Note durably that the batch in flight ends with record `last`, also after a reboot."""
        with self.lock:
            self.sending = last
            return self._put()

    def flush(self):
        """Make the cursor durable if it is not; return True if it is."""
        with self.lock:
            known = self._noted >= self.acked and self._counted >= self.dropped
            return known or self._put()

    def _put(self):
        """Write the cursor; return True if it is durable."""
        try:
            self._move()
            return True
        except OSError:
            self.errors += 1
            return False

    def clean(self):
        """Delete the segments that hold nothing but acknowledged records."""
        with self.lock:
            firsts = self.journal.firsts
            while len(firsts) > 1 and firsts[1] <= self.acked + 1 and self._removable(firsts[1]):
                self._remove(firsts.pop(0))

    def _removable(self, following):
        """
        Return True if the segment before number `following` may be removed, as far as numbers go.

        The one with the newest number may not before a cursor is durable that knows this number.
        """
        return following <= self.stored or self._noted >= self.acked

    def __len__(self):
        return self.stored - self.acked

    def close(self):
        """Close the files and let others open the log. Everything stored stays stored."""
        try:
            self.flush()
            with self.lock:
                self.journal.close()
        finally:
            self.fs.close()
