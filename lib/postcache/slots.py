"""
The slot journal: right for littlefs, where an appended and synced line erases a flash block.

    +0/0  +1/1  +2/2  +3/3  +0/4  ...      40 slots, each a file of a line, or of one commit's

littlefs keeps a file that is small enough (128 bytes on an ESP32, 512 on a Pico W) inside its
directory's metadata, so a record in a slot costs a commit there instead of a block. Four folders,
because a commit costs the less the less else there is in its directory.

Only a dead slot is written to: one whose records are delivered, or in a segment. When the slots
are full, or a record is too big for one, all that they hold and the new record go into a segment
together. So no power cut finds a record in neither place, on any file system.
"""

from .journal import AppendJournal
from .ports import const

_FOLDERS = const(4)
_FULL = const(4096)  # bytes of a segment: a flash block
# No such file; a stranger's file for a folder, or folder for a file; metadata that is damaged.
NOT_THERE = (2, 20, 21, 84)


def slot_name(slot):
    """File name of a slot, an int from 0 to 39."""
    return "+%d/%d" % (slot % _FOLDERS, slot)


class SlotJournal(AppendJournal):
    """
    The newest records, in slots; see AppendJournal for what is the same.

    Args:
        size: int, bytes of a slot; 0 to write what slots hold to a segment, and use none.
        tail: list of the slots that hold records, in order, three ints for each: its last number,
            the slot, and its bytes. (Flat: tuples would take three times the heap.)
        free: list of the other slots.
        done: int, the highest number that is delivered or in a segment.

    What the slots hold is read like a segment of its own, the last one in `firsts`.
    """

    def __init__(self, fs, limit, firsts, end, file, size, tail, free, done):
        super().__init__(fs, min(limit, _FULL) if size else limit, firsts, end, file)
        self._size = size
        self._tail = tail
        self._free = free
        self._stale = []  # slots that may hold what was never stored
        self._torn = False  # the newest file may hold it
        self._show(done + 1)

    def _show(self, first):
        """Put what the slots hold at the end of `firsts`, as number `first`."""
        self._first = 0
        if self._tail:
            self._first = first
            if self.firsts[-1:] != [first]:
                self.firsts.append(first)

    def _pieces(self, data):
        """Yield what each slot holds, and then `data`."""
        tail = self._tail[:]
        for i in range(0, len(tail), 3):
            try:
                with self._fs.open(slot_name(tail[i + 1]), "rb") as f:
                    piece = f.read(tail[i + 2])
            except OSError as e:
                if e.errno not in NOT_THERE:
                    raise
                piece = b"\0\n"  # counted by whoever reads it
            yield piece
            if data and not self._fs.slot_size:
                # Only littlefs writes all of a file or nothing. Elsewhere line after line, or a
                # cut could leave a later one and not an earlier one, and opening would take the
                # slot of that one for written out.
                self._file.flush()
        yield data

    def open(self, first):
        if first != self._first:
            return super().open(first)
        return _Slots(self._pieces(b"")), 1 << 30

    def append(self, seq, lines, acked, make_room):
        fs = self._fs
        stale = self._stale
        while stale:
            try:
                fs.remove(slot_name(stale[-1]))
            except OSError as e:
                if e.errno not in NOT_THERE:
                    raise
            stale.pop()
        tail = self._tail
        free = self._free
        if self._first:
            self.firsts.pop()
        # What is delivered is used again, and first: a commit costs the less the fewer slots are
        # in use.
        n = 0
        while tail and tail[0] <= acked:
            free.insert(n, tail[1])
            del tail[:3]
            n += 1
        self._show(max(self._first, acked + 1))

        size = sum(tail[2::3])
        most = 0
        chunks = []  # last number, data, each for a slot
        for number, line in enumerate(lines, seq):
            if chunks and len(chunks[-1]) + len(line) <= self._size:
                chunks[-2] = number
                chunks[-1] += line
            else:
                chunks += (number, line)
            size += len(line)
            most = max(most, len(line))
        n = len(chunks) // 2
        if n > len(free) or self._torn or most > self._size or size + self._size > self._limit:
            first = self._first
            if first:
                self.firsts.pop()
            self._torn = True
            try:
                self._write(first or seq, size, self._pieces(b"".join(lines)), make_room)
                self._torn = False
                self._free = tail[1::3] + free
                tail.clear()
            finally:
                self._show(first)
            return
        used = free[:n]
        self._free = free[n:] + used  # after an error others are tried first
        for slot in used:
            stale.append(slot)
            self._put(slot_name(slot), chunks[2 * len(stale) - 1])
        stale.clear()
        del self._free[-n:]
        for slot in used:
            tail += (chunks.pop(0), slot, len(chunks.pop(0)))
        self._show(self._first or seq)

    def _put(self, name, data):
        try:
            self._fs.put(name, data)
        except OSError as e:
            if e.errno != 2:
                raise
            for folder in range(_FOLDERS):
                self._fs.make("+%d" % folder)
            self._fs.put(name, data)


class _Slots:
    """What slots hold, one after the other, as a file to be read."""

    def __init__(self, pieces):
        self._pieces = pieces
        self._data = b""

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self._pieces.close()

    def seek(self, offset):
        while offset > 0:  # a place between two lines
            offset -= len(self.readline()) or offset

    def readline(self):
        try:
            while not self._data:
                self._data = next(self._pieces)
        except StopIteration:
            return b""
        at = self._data.find(b"\n") + 1 or len(self._data)
        line = self._data[:at]
        self._data = self._data[at:]
        return line
