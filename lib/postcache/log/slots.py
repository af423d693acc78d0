"""
The slot journal: right for littlefs, where an appended and synced line erases a flash block.

    +0/0  +1/1  +2/2  +3/3  +0/4  ...      40 slots, each a file of a line, or of one commit's

littlefs keeps a file that is small enough (128 bytes on an ESP32, 512 on a Pico W) inside its
directory's metadata, so a record in a slot costs a commit there instead of a block. There are four
folders because the fewer files in a directory, the cheaper a commit.

Only a dead slot is written to: one whose records are delivered, or in a segment. When the slots
are full, or a record is too big for one, all that they hold and the new record go into a segment
together. So no power cut can lose a record from both places, on any file system.
"""

from ..ports import const
from .journal import AppendJournal, name_of

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
        unused: list of the other slots.
        done: int, the highest number that is delivered or in a segment.

    What the slots hold is read like a segment of its own, the last one in `firsts`.
    """

    def __init__(self, fs, limit, firsts, end, file, size, tail, unused, done):
        super().__init__(fs, min(limit, _FULL) if size else limit, firsts, end, file)
        self._size = size
        self._tail = tail
        self._unused = unused
        self._stale = ()  # slots that may hold what was never stored
        self._torn = False  # the newest file may hold it
        self._age = 0  # how often slots were written out
        self._first = 0
        self._become(tail, unused, done + 1)

    @property
    def kind(self):
        """What this is now, for people: "slot", or "append" if it writes to segments only."""
        return "slot" if self._size else "append"

    def _become(self, tail, unused, first):
        """Put what the slots hold at the end of `firsts`, as number `first`."""
        firsts = self.firsts
        # What needs memory comes first: without any, nothing has changed.
        if not self._first:
            if tail and (not firsts or firsts[-1] != first):
                firsts.append(first)
        elif tail:
            firsts[-1] = first
        else:
            firsts.pop()
        self._first = first if tail else 0
        self._tail = tail
        self._unused = unused

    def _pieces(self, tail, age, data):
        """Yield what each slot of `tail` holds, and then `data`, if that is not None."""
        for i in range(0, len(tail), 3):
            try:
                with self._fs.open(slot_name(tail[i + 1]), "rb") as f:
                    piece = f.read(tail[i + 2])
            except OSError as e:
                if e.errno not in NOT_THERE:
                    raise
                piece = b"\0\n"  # counted by whoever reads it
            if self._age != age:
                raise OSError(116)  # ESTALE: this slot may have been used again already
            if data is None or self._fs.slot_size:
                yield piece
                continue
            # Only littlefs writes all of a file or nothing. Elsewhere line after line, or a cut
            # could leave a later one and not an earlier one, and opening would take the slot of
            # that one for written out.
            while piece:
                at = piece.find(b"\n") + 1 or len(piece)
                yield piece[:at]
                self._file.flush()
                piece = piece[at:]
        if data:
            yield data

    def open(self, first):
        if first != self._first:
            return super().open(first)
        return _Slots(self._pieces(self._tail, self._age, None)), 1 << 30

    def append(self, seq, lines, acked, make_room):
        fs = self._fs
        for slot in self._stale:
            try:
                fs.remove(slot_name(slot))
            except OSError as e:
                if e.errno not in NOT_THERE:
                    raise
        self._stale = ()
        tail = self._tail
        n = 0
        while n < len(tail) and tail[n] <= acked:
            n += 3
        if n:
            # Delivered slots are used again first: the fewer slots in use, the cheaper a commit.
            self._become(tail[n:], tail[1:n:3] + self._unused, max(self._first, acked + 1))
            tail = self._tail
        unused = self._unused

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
        if tail and size > self._limit:
            # A block for what the slots hold: together they would take one more.
            self.empty(seq, make_room)
            self.append(seq, lines, acked, make_room)
            return
        n = len(chunks) // 2
        if n > len(unused) or self._torn or most > self._size or size + self._size > self._limit:
            self._write_out(seq, size, tail, b"".join(lines), make_room)
            return
        # Everything that needs memory is there before anything is written: what is durable must
        # not end in an exception.
        used = unused[:n]
        rest = unused[n:]
        after = tail[:]
        for i in range(n):
            after += (chunks[2 * i], used[i], len(chunks[2 * i + 1]))
        first = self._first
        if not first:
            self._become(after, unused, seq)
            self._tail = tail  # nothing is in there yet
        self._unused = rest + used  # after an error others are tried first
        self._stale = used
        for i in range(n):
            if not self._put(slot_name(used[i]), chunks[2 * i + 1]):
                self._size = 0  # no room for slots
                self._write_out(seq, size, tail, b"".join(lines), make_room)
                return
        self._tail, self._unused = after, rest
        self._stale = ()

    def empty(self, seq, make_room):
        """Write what the slots hold to a segment; `seq` is the number of the next record."""
        tail = self._tail
        if tail:
            self._write_out(seq, sum(tail[2::3]), tail, b"", make_room)

    def _write_out(self, seq, size, tail, data, make_room):
        """Write what the slots hold, and `data`, to a segment, together."""
        firsts = self.firsts
        first = self._first
        unused = tail[1::3] + self._unused
        nothing = []
        # What the last try left behind is claimed by a file of its own; and one that littlefs does
        # not write as a whole has to be removed after an error.
        if self._torn or (tail and not self._fs.slot_size):
            self.close()
        self._torn = True
        try:
            if first:
                self._first = 0
                firsts.pop()
            self._write(first or seq, size, self._pieces(tail, self._age, data), make_room)
        except BaseException:
            if first:
                if not firsts or firsts[-1] != first:
                    firsts.append(first)
                self._first = first
            if tail and not self._fs.slot_size:
                # After a failed sync the next one may lie, and opening would believe this file.
                try:
                    self._fs.remove(name_of(first))
                except OSError:
                    pass  # not even made
            raise
        self._age += 1
        self._tail = nothing
        self._unused = unused
        self._torn = False

    def _put(self, name, data):
        """Write a slot; return False when its folder is missing and there is no room for it."""
        fs = self._fs
        try:
            fs.put(name, data)
        except OSError as e:
            if e.errno != 2:
                raise
            # Each folder takes two blocks, which must not be the ones that a segment needs.
            if fs.free() < 4 * fs.reserve:
                return False
            for folder in range(_FOLDERS):
                fs.make("+%d" % folder)
            fs.put(name, data)
        return True


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
