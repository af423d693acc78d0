"""
What happens once, when a log is opened: this module is loaded for it, and then given up.

The cursor is read, the names are listed, and the newest records are looked at: the end of the
newest segment, and the slots. Sealed segments are trusted until they are read, so this is the same
work for a backlog of any length. It succeeds on any bytes.
"""

import json
import os
from binascii import hexlify

from .journal import AppendJournal, name_of
from .line import OVERHEAD, SHORTEST, decode, encode
from .pair import Pair

# A folder in its place, or metadata that littlefs cannot read: as good as damaged.
_UNREADABLE = (20, 21, 84)


class Recovered:
    """
    What a log goes on from: see `log.Log` for the attributes.

    Args:
        fs: a `ports.Directory`.
        max_bytes, slot_size: as `log.Log` was given them.
        version: int, of the format that is understood.

    Further attribute: `cursor`, a `pair.Pair`.
    """

    acked = sending = dropped = damaged = 0

    def __init__(self, fs, max_bytes, slot_size, version):
        self._fs = fs
        self._opened = []
        self.stream = hexlify(os.urandom(8)).decode()
        self.cursor, state, self.damaged = read_pair(
            fs, "cursor", lambda text: _parsed(text, version)
        )
        if state:  # else a new stream begins
            self.stream, self.acked, self.sending, self.dropped = state
        # At most 1/8 of the space, or one drop would take most of it; at least 1/256, or the list
        # of segments would grow with the card; and not less than what a file takes anyway.
        self.limit = fs.segment
        if max_bytes:
            self.limit = max(fs.block, min(max(fs.segment, max_bytes // 256), max_bytes // 8))
        try:
            self._find_newest(slot_size)
        except BaseException:
            for file in self._opened:
                _close(file)
            raise

    def _find_newest(self, slot_size):
        fs = self._fs
        firsts = []
        for name, _ in fs.files():
            digits = name[:-4]
            if digits.isdigit() and int(digits) and name == name_of(int(digits)):
                firsts.append(int(digits))
        firsts.sort()
        end = last = passed = 0
        file = None
        if firsts:
            name = name_of(firsts[-1])
            try:
                # Synced before it is read: what a killed process wrote may be visible and not
                # durable, and must not be sent under a number that a power cut would free again.
                file = fs.open(name, "ab")
                self._opened.append(file)
                file.flush()
            except OSError:
                # A read-only card: what is on it can still be sent.
                for file in self._opened:
                    _close(file)
                file = None
            size = fs.size(name)
            last, passed, end = _find_last(fs, firsts[-1], size)
            if file and end < size:
                try:
                    file, end = self._finish(file, name, end, size, last, passed)
                except OSError:
                    for file in self._opened:
                        _close(file)
                    file = None
            if passed:
                self.damaged += 1
                # Left alone, else gone on with: many short lives (deep sleep) are not many files.
                if file:
                    _close(file)
                    file = None
        if slot_size is None:
            slot_size = fs.slot_size
        if not slot_size:
            fs.fill_to = self.limit
        slots = slot_size
        try:
            fs.size("+0")
            slots = True  # records may be in there, whatever is wanted now
        except OSError as e:
            if e.errno != 2:
                raise  # there may be some: the next open tries again
        new = not self.cursor.generation
        if slots:
            from .slots import NOT_THERE, SlotJournal, slot_name

            done = max(last, self.acked)
            tail, unused, more, lowest = self._read_slots(done, slot_name, NOT_THERE)
            last += passed
            passed = more
            if not firsts and new:
                done = max(done, lowest - 1)  # nothing is known, so nothing before these waits
            if tail:
                last = max(last, tail[-3])
            self.journal = SlotJournal(
                fs, self.limit, firsts, end, file, slot_size, tail, unused, done
            )
        else:
            self.journal = AppendJournal(fs, self.limit, firsts, end, file)
        # What is damaged may have been records whose numbers a caller holds: pass over every
        # number that they can have had, so that none ever names two records.
        self.stored = max(last + passed, self.acked, self.sending)
        if new and firsts:
            self.acked = firsts[0] - 1

    def _finish(self, file, name, end, size, last, passed):
        """
        Make lines of the zeros that the newest segment, `file`, ends with, from `end` to `size`.

        A host that was killed has left them, on a port that knows nothing of zeros: the next line
        would come behind them, and who reads them would need memory for all of them at once. The
        lines are short, and have the number of the `last` one, so every reader passes over them.

        Returns the file, open for appending, and its size.
        """
        _close(file)
        if not end:
            file = self._fs.open(name, "wb")
            self._opened.append(file)
            return file, 0
        file = self._fs.open(name, "r+b")
        self._opened.append(file)
        file.seek(end)
        line = b"\n"  # of the line that is torn
        while end < size:
            if not passed:
                line = encode(last, b" " * max(1, min(size - end, 512) - OVERHEAD))
            passed = 0
            file.write(line)
            end += len(line)
        file.flush()
        return file, end

    def _read_slots(self, done, slot_name, not_there):
        """
        Return the slots with records above number `done`, in order, as a list of last number,
        slot, bytes; the list of the others; how many numbers may be damaged; the lowest number.
        """
        fs = self._fs
        tail = []
        unused = []
        passed = lowest = 0
        for slot in range(fs.slots):
            last = size = at = rest = 0
            try:
                with fs.open(slot_name(slot), "rb") as f:
                    while True:
                        line = f.readline()
                        if not line:
                            break
                        at += len(line)
                        record = line != b"\n" and decode(line)  # a host fills up with newlines
                        if record is None:
                            rest += len(line)
                        elif record and record[0] > last:  # else older content
                            last = record[0]
                            if last > done and (not lowest or last < lowest):
                                lowest = last
                            size = at
            except OSError as e:
                if e.errno not in not_there:
                    raise  # it may hold records: the next open tries again
                if e.errno == 84:
                    # It may have held the newest records, as many as fit into 512 bytes.
                    self.damaged += 1
                    passed += 512 // SHORTEST + 1
                if e.errno > 2:
                    continue
            if rest:
                self.damaged += 1
                passed += rest // SHORTEST + 1
            if last > done:
                tail.append((last, slot, size))
            else:
                # A damaged one is used first: until then each opening passes over numbers.
                unused.insert(0 if rest else len(unused), slot)
        tail.sort()
        return [n for entry in tail for n in entry], unused, passed, lowest


def read_pair(fs, name, parse, give_up=False):
    """
    Return a `pair.Pair`, what `parse` makes of its newer copy, and how many copies are damaged.

    Args:
        fs, name: as for `pair.Pair`.
        parse: callable, given bytes; a TypeError or ValueError from it means damage.
        give_up: True to take a copy that cannot be read for damaged.

    None stands for what is not there. Raises OSError when a file is there and cannot be read:
    taken for lost it would change what is sent.
    """
    found = None
    newest = damaged = 0
    for suffix in ("-a", "-b"):
        try:
            with fs.open(name + suffix, "rb") as f:
                # None does not unpack: that TypeError is the answer to damage, too.
                generation, text = decode(f.readline(1024))  # pyright: ignore
            value = parse(text)
            if generation > newest:
                newest = generation
                found = value
        except OSError as e:
            if e.errno != 2:
                if not give_up and e.errno not in _UNREADABLE:
                    raise
                damaged += 1
        except (TypeError, ValueError):
            damaged += 1
    return Pair(fs, name, newest), found, damaged


def _parsed(text, version):
    written, *state = json.loads(text)
    if written > version:
        raise OSError(95, "cursor: of a newer postcache")
    stream, acked, sending, dropped = state
    return stream, acked, sending, dropped


def _close(file):
    try:
        file.close()
    except OSError:
        pass  # nothing was written to it


def _find_last(fs, first, end):
    """
    Return the number of the last good line in the first `end` bytes of segment `first`, how many
    numbers may be damaged after it, and where the zeros begin that it may end with.
    """
    with fs.open(name_of(first), "rb") as f:
        window = 2048
        while end:
            start = max(0, end - window)
            f.seek(start)
            data = f.read(end - start)
            to = len(data.rstrip(b"\0"))
            if to < len(data):
                end = start + to  # what is before the zeros is looked at as if they were not there
                continue
            while to:
                at = data.rfind(b"\n", 0, to - 1) + 1
                if start and not at:
                    break  # began before the window
                record = decode(data[at:to])
                if record and record[0] >= first:
                    rest = len(data) - to
                    return record[0], rest and rest // SHORTEST + 1, end
                to = at
            if not start or window > 2048:
                break
            window = 2 * fs.segment
    return first - 1, end and end // SHORTEST + 1, end
