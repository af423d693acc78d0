"""
Log: records in, in order, durable; out again oldest first; gone once acknowledged.

    <path>/
        cursor-a cursor-b   two alternating copies: stream id, what is acknowledged, in flight
        0000000001.log ...  segments, named by their first number; the newest is the journal
        lock                one writer at a time (CPython)

A number is given out once. It is given back only when its record's write or sync failed, so that
nobody holds it: callers got an OSError, and only durable records are ever sent. What a failed
write left behind has a number that the next file's name claims, and is passed over for ever.

Opening reads the cursor, the names and the end of the newest file. Sealed segments are trusted
until they are read; a line that is no record is counted and passed over.
"""

from .journal import AppendJournal, name_of
from .line import OVERHEAD, decode, encode
from .ports import MAX_BYTES, RESERVE, SEGMENT, Lock, const, forget

_VERSION = const(1)
# How often a segment that cannot be read is tried, each time after a back-off, before it is passed
# over: a card that is being replugged comes back, a bad sector does not.
_TRIES = const(40)


class Log:
    """
    An append-only log in a directory.

    Args:
        fs: a `ports.Directory`, or anything with its methods.
        max_bytes: int >= 4096, what the files may take; None for half of what is free, with a cap.
            When it is full the oldest segment is dropped and counted, or `on_full` raises.
        slot_size: int, bytes of a slot, 0 for the append journal; None for what fits `fs`.

    Attributes: `on_full`, str, see POSTCache; `stream`, str; `stored`, `acked`, `sending`: highest
    sequence number that is durable, acknowledged, in flight; `opened`, that of `stored` when it
    was opened; counters `dropped`, `damaged`, `errors`, `writes`; `max_record`, bytes of the
    longest payload; `journal`.

    Raises OSError when the directory cannot be used or was written by a newer version.
    """

    on_full = "drop_oldest"

    # Set by opening.load().
    stream: str
    acked: int
    # What is durably acknowledged: only that may be overwritten, or the newest number could be
    # known nowhere, and be given out again.
    _noted: int
    _counted: int
    sending: int
    dropped: int
    generation: int
    stored: int
    opened: int
    limit: int
    journal: AppendJournal

    def __init__(self, fs, max_bytes=None, slot_size=None):
        self._fs = fs
        self._max = max_bytes
        self._lock = Lock()
        self.damaged = self.errors = self.writes = self._dropped_to = self._tries = 0
        self._seen = (0, 0)  # damage up to this place is counted already
        self._room = 0  # what the files may take, once it is known
        from .opening import load

        load(self, fs, max_bytes, slot_size)
        forget(__name__.replace(".log", ".opening"))
        self.max_record = min(SEGMENT, self.limit) - OVERHEAD
        if not self.generation:
            self._move()  # the stream has its name before its first record
        self._clean()

    def _move(self):
        """Make the cursor durable. OSError when that failed; the older copy is whole then."""
        generation = self.generation + 1
        acked = self.acked
        dropped = self.dropped
        text = b'[%d, "%s", %d, %d, %d]' % (
            _VERSION,
            self.stream.encode(),
            acked,
            self.sending,
            dropped,
        )
        self.writes += 1
        self._fs.put("cursor-b" if generation & 1 else "cursor-a", encode(generation, text))
        self.generation = generation
        self._noted = acked
        self._counted = dropped

    def append(self, payloads, before=None):
        """
        Store `payloads`, a list of bytes of JSON text without a newline; durable when it returns.

        `before`, if given, is called with the number of the first one just before anything is
        written, while nobody else can append; what it raises ends this call.

        Returns the sequence number of the last one. Raises OSError when they could not be stored;
        none of them is then in the log or is sent, unless it is opened anew before the next
        append. The error of a log that is full, and may drop nothing, is (28, "full").
        """
        with self._lock:
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
        fs = self._fs
        firsts = self.journal.firsts
        while True:
            used = sum([size for _, size in fs.files()])
            if not self._room:
                # Not at open: asking littlefs for its free space walks the whole file system.
                # What is there already stays, also when others have filled the disk.
                total = used + fs.free()
                most = min(self._max, total - RESERVE) if self._max else min(MAX_BYTES, total // 2)
                self._room = max(used, most)
            if len(firsts) < 2 or used + max(size, self.limit) <= self._room:
                return
            if self.on_full != "drop_oldest" and firsts[1] > self.acked + 1:
                raise OSError(28, "full")
            first = firsts.pop(0)
            self._drop(first, firsts[0] - 1)
            if not self._free(firsts[0]) or not self._remove(first):
                return  # dropping more would not help

    def _drop(self, first, last):
        """Give up the records from `first` to `last`, those of them that wait."""
        lost = last - max(first - 1, self.acked)
        if lost > 0:
            self.dropped += lost
            self._dropped_to = self.acked = last
            self._put()

    def _remove(self, first):
        """Remove a segment; return True when it is gone."""
        try:
            self._fs.remove(name_of(first))
            return True
        except OSError:
            self.errors += 1  # the next open tries again
            return False

    def read(self, position):
        """
        Yield `(sequence number, payload)` of durable records, oldest first, from `position` on.

        `position` is None for the oldest that is not acknowledged, or `(segment, offset, seq)` as
        these attributes were when a reader had taken record `seq`. A reader that breaks off must
        be closed. Raises OSError when a file cannot be read, and after some tries passes over it.
        """
        segment, offset, last = position or (0, 0, self.acked)
        firsts = self.journal.firsts
        while True:
            first = upper = 0
            try:
                with self._lock:
                    if not firsts:
                        return
                    # The segment that holds record last + 1, or the first one after it.
                    i = 1
                    while i < len(firsts) and firsts[i] <= last + 1:
                        i += 1
                    upper = firsts[i] if i < len(firsts) else 0
                    bound = upper or self.stored + 1
                    first = firsts[i - 1]
                    f, end = self.journal.open(first)
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
                            if (first, offset) > self._seen:
                                self._seen = (first, offset)
                                self.damaged += 1
                        elif last < record[0] < bound:
                            last = record[0]
                            yield record
                            # Asked for more: the reader took this one.
                            self.segment = first
                            self.offset = offset
            except OSError as e:
                if not first:
                    raise  # the lock: a callback came in between
                if e.errno == 116 or (first not in firsts and not upper):
                    # Slots were written out meanwhile, under this name or another: look again.
                    segment = 0
                    continue
                if first in firsts:  # else dropped in the meantime
                    self.errors += 1
                    self._tries += 1
                    if self._tries < _TRIES:
                        raise
                    self.damaged += 1
                    if upper:
                        firsts.remove(first)  # until the next open
            self._tries = 0
            if not upper:
                return
            last = max(last, upper - 1)

    def ack(self, first, last, sending):
        """
        Records `first`..`last` were delivered; `sending` is the last number of the next batch.

        Never raises: what cannot be written is counted in `errors`, and costs duplicates at worst.
        """
        with self._lock:
            # Dropped while it was on its way: delivered all the same.
            if self._dropped_to >= first:
                self.dropped -= min(last, self._dropped_to) - first + 1
            self.acked = max(last, self.acked)
        written = self.freeze(sending)
        self._clean()
        if not written:
            self.freeze(sending)  # the disk was full: what was delivered has made room

    def freeze(self, last):
        """Note durably that the batch in flight ends with record `last`, also after a reboot."""
        with self._lock:
            self.sending = last
            return self._put()

    def _put(self):
        """Write the cursor; return True if it is durable."""
        try:
            self._move()
            return True
        except OSError:
            self.errors += 1
            return False

    def _clean(self):
        """Delete the segments that hold nothing but acknowledged records."""
        with self._lock:
            firsts = self.journal.firsts
            while len(firsts) > 1 and firsts[1] <= self.acked + 1 and self._free(firsts[1]):
                self._remove(firsts.pop(0))

    def _free(self, following):
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
            with self._lock:
                if self._noted < self.acked or self._counted < self.dropped:
                    self._put()
                self.journal.close()
        finally:
            self._fs.close()
