"""
Reads a log that belongs to somebody else: docs/format.md in code.

It may be in use by another process, or be a folder that was pulled from a board, damaged in any
way. Nothing is locked and nothing is changed: files are opened for reading, and that is all.

    Files     the folder: its names, the cursor, what was set aside, the dates
    Records   the way through it, oldest first; it can be gone on with later
    survey    what `status` says
"""

import collections
import errno
import json
import os
import stat
import time
from binascii import crc32

from ..log.journal import name_of
from ..log.line import decode
from ..log.slots import slot_name
from ..send.stamps import Stamps
from . import Problem, counted

VERSION = 1  # the only format so far
_SLOTS = 40
_FOLDERS = 4  # of slots
_MOST = 1 << 20  # bytes of a line; the longest record is a quarter of it
_PAUSE = 0.2  # s, after which a write that was met in the middle has come to its end
_ROUNDS = 1000  # how often a log may change while its slots are read
# No such file; a stranger's file for a folder; a folder, or a pipe, for a file.
_NONE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR)

Cursor = collections.namedtuple("Cursor", "generation stream acked sending dropped damaged")
Reject = collections.namedtuple("Reject", "total number status reason payload")


def parse(payload):
    """Return the value of a payload, bytes of JSON; ValueError when it is none."""
    try:
        return json.loads(payload.decode(), parse_constant=_refuse)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _refuse(name):
    raise ValueError(name)


def _whole(value, least=0):
    """Whether `value` is an int of `least` at least; True is none."""
    return type(value) is int and value >= least


class Files:
    """
    The folder of a log, to look at.

    Args:
        path: str or os.PathLike.
        name: str, what it is called in sentences; None: the path.

    Raises Problem when it is none, was written by a newer version, or cannot be read; so does
    everything here.
    """

    def __init__(self, path, name=None):
        self.path = os.fspath(path)
        self.name = name or self.path
        try:
            names = os.listdir(self.path)
        except OSError as e:
            raise Problem(self._why_not(e)) from None
        ours = {"cursor-a", "cursor-b", *("+%d" % i for i in range(_FOLDERS))}
        if not ours.intersection(names) and not self.firsts():
            raise Problem(
                "%s is no postcache log: there is no cursor, segment or slot in it." % self.name
            )
        # For the dates of records that were added before the clock was set. Nothing is written:
        # it begins no boot of its own, and knows no clock.
        self.damaged = 0
        self._bad = set()  # copies of the cursor that are damaged and stay so
        self.fs = self  # as a log's
        self._stamps = Stamps(self, None, None)
        self.cursor()

    def _why_not(self, e):
        if e.errno == errno.ENOENT:
            return "%s: there is no such folder." % self.name
        if e.errno != errno.ENOTDIR:
            return "%s cannot be read: %s." % (self.name, e.strerror)
        try:
            with open(self.path, "rb") as f:
                old = f.read(15) == b"SQLite format 3"
        except OSError:
            old = False
        if old:
            return (
                "%s is an SQLite file; if it is of the old package, `postcache import-sqlite` "
                "takes it over." % self.name
            )
        return "%s is a file; name the log's folder." % self.name

    def open(self, name, mode="rb"):
        """Open a file for reading; OSError as usual, EISDIR for what is no regular file."""
        path = os.path.join(self.path, name)
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise IsADirectoryError(errno.EISDIR, "no regular file", path)  # a pipe would block
        return open(path, "rb")

    def firsts(self):
        """Return the first numbers of the segments, in order."""
        firsts = []
        try:
            for name in os.listdir(self.path):
                digits = name[:-4] if len(name) < 24 and name.isascii() else ""
                if digits.isdigit() and int(digits) and name == name_of(int(digits)):
                    firsts.append(int(digits))
        except OSError as e:
            raise Problem(self._why_not(e)) from None
        return sorted(firsts)

    def bytes(self):
        """Return how many bytes the log's files take, as `POSTCache.stats` counts them."""
        total = 0
        with os.scandir(self.path) as entries:
            for entry in entries:
                if len(entry.name) < 24 and entry.name.isascii():
                    try:
                        if entry.is_file():
                            total += entry.stat().st_size
                    except FileNotFoundError:
                        pass  # delivered and deleted in this moment
        return total

    def cursor(self):
        """Return what the newer whole copy says, or a Cursor with generation 0."""
        cursor, bad = self._cursor()
        if bad != self._bad:  # the writer overwrites one copy in place: look again
            time.sleep(_PAUSE)
            cursor, again = self._cursor()
            self._bad = bad & again
        return cursor._replace(damaged=len(self._bad))

    def _cursor(self):
        """Return the newer Cursor that is whole, and what is in the others' place, a set."""
        newest = Cursor(0, None, 0, 0, 0, 0)
        bad = set()
        for name in ("cursor-a", "cursor-b"):
            line = found = None
            try:
                with self.open(name) as f:
                    line = f.readline(128)
                    found = self._state(line)
            except OSError as e:
                if e.errno == errno.ENOENT:
                    continue  # a young log has one copy
                if e.errno not in _NONE:
                    raise self.unreadable(name, e) from None
            if not found:
                bad.add((name, line))
            elif found.generation > newest.generation:
                newest = found
        return newest, bad

    def _state(self, line):
        record = decode(line)
        if not record:
            return None
        try:
            version, *state = parse(record[1])
        except (TypeError, ValueError):
            return None
        if _whole(version) and version > VERSION:
            raise Problem(
                "%s was written by a newer postcache (format %d; this one knows %d): update "
                "postcache here." % (self.name, version, VERSION)
            )
        if len(state) != 4 or not isinstance(state[0], str) or not all(map(_whole, state[1:])):
            return None
        stream, acked, sending, dropped = state
        return Cursor(record[0], stream, acked, sending, dropped, 0)

    def unreadable(self, name, e):
        """Return the Problem of a file that cannot be read."""
        return Problem("%s cannot be read: %s." % (os.path.join(self.name, name), e.strerror or e))

    def rejects(self):
        """Return (what was set aside and waits, oldest first; how many ever; damaged lines)."""
        files = []
        done = damaged = 0
        for name in ("rejected.log", "rejected-2.log"):
            lines = []
            last = 0
            try:
                with self.open(name) as f:
                    for _, line in _lines(f):
                        found = self._reject(line)
                        if found:
                            done = max(done, found[1])
                            last = max(last, found[0].total)
                            lines.append(found[0])
                        elif line != b"\n":
                            damaged += 1
            except OSError as e:
                if e.errno not in _NONE:
                    raise self.unreadable(name, e) from None
                damaged += e.errno != errno.ENOENT
            files.append((last, lines))
        files.sort(key=lambda file: file[0])
        waiting = []
        last = done
        for reject in files[0][1] + files[1][1]:
            if reject.payload and reject.total > last:
                last = reject.total
                waiting.append(reject)
        return waiting, files[1][0], damaged

    @staticmethod
    def _reject(line):
        record = decode(line)
        if not record:
            return None
        # The first one: a quote in the reason has a backslash before it.
        text, _, payload = record[1].partition(b',"record":')
        try:
            fields = parse(text + b"}" if payload else text)
            total, done = fields["total"], fields["requeued"]
            status, reason = (fields["status"], fields["reason"]) if payload else (0, "")
        except (TypeError, ValueError, KeyError):
            return None
        if not (_whole(total, 1) and _whole(done) and _whole(status) and isinstance(reason, str)):
            return None
        return Reject(total, record[0], status, reason, payload[:-1]), done

    def requeue(self):
        """Whether a requeue did not come to its end; the log's next opening ends it."""
        return os.path.exists(os.path.join(self.path, "requeue"))

    def dated(self, number, payload):
        """Return a payload as it would be sent now: with its date, if it was added without one."""
        if payload[:1] != b" ":
            return payload
        try:
            return self._stamps.complete(number, payload, True).strip()
        except (OSError, ValueError, OverflowError, RecursionError):
            return payload.strip()


def _lines(f):
    """
    Yield (bytes in the file, line) of a binary file; the last one may lack its newline.

    A line longer than any record is garbage: a question mark stands for it.
    """
    while True:
        line = f.readline(_MOST)
        size = len(line)
        if not line:
            return
        if size == _MOST and line[-1:] != b"\n":
            while line and line[-1:] != b"\n":
                line = f.readline(_MOST)
                size += len(line)
            line = b"?\n" if line else b"?"
        yield size, line


class Records:
    """
    The records of a log, oldest first.

    Args:
        files: a Files.
        after: int; segments that hold nothing above this number are not read.

    Attributes: `damaged`, the places found so far that hold no record where one was due; `last`,
    the number that was passed last; `slots`, True when there are any.
    """

    def __init__(self, files, after=0):
        self._files = files
        self.last = 0
        self.slots = False
        self._bad = 0  # lines of segments
        self._bad_slots = set()
        self._torn = False
        self._rest = None  # of the newest segment, behind its last newline
        self._segment = self._offset = 0
        for first in files.firsts():
            if first <= after + 1:
                self._segment = first

    @property
    def damaged(self):
        return self._bad + len(self._bad_slots) + self._torn

    def more(self):
        """
        Yield (number, payload) of what is there, and was not yielded before.

        In a log in use the end of the newest file may be half a line that is being written, or a
        second half whose first one is still to come: it counts as damaged when the next call of
        this finds it unchanged. Zeros at the end of a file are no damage: they are what lines will
        overwrite.
        """
        files = self._files
        for _ in range(_ROUNDS):
            firsts = files.firsts()
            left = [first for first in firsts if first >= self._segment]
            for first, upper in zip(left, left[1:] + [0]):
                yield from self._read(first, upper)
            found = self._read_slots()
            # What the slots held may have gone to a segment meanwhile: then it is read there.
            if not self.slots or (files.firsts() == firsts and self._at_end()):
                for number, payload in found:
                    if number > self.last:
                        self.last = number
                        yield number, payload
                return
        raise Problem("%s changes too fast to be read." % files.name)

    def all(self):
        """Yield (number, payload) of all that is there; then `damaged` is the truth."""
        yield from self.more()
        if self._rest:
            time.sleep(_PAUSE)
            yield from self.more()

    def _at_end(self):
        """Whether the newest segment has no more lines than when it was read."""
        if not self._segment:
            return True
        try:
            with self._files.open(name_of(self._segment)) as f:
                f.seek(self._offset + (self._rest or (0, 0))[0])
                return not f.read(_MOST).strip(b"\0")
        except OSError:
            return True  # there is none to grow

    def _read(self, first, upper):
        """Yield what segment `first` holds, up to where `upper`, the next one's number, begins."""
        if first != self._segment:
            self._segment = first
            self._offset = 0
        self.last = max(self.last, first - 1)
        rest = None
        try:
            with self._files.open(name_of(first)) as f:
                f.seek(self._offset)
                for size, line in _lines(f):
                    whole = line[-1:] == b"\n"
                    if not whole:
                        line = line.rstrip(b"\0")
                        if not line:
                            break
                    record = decode(line)
                    if not upper and not record and (not whole or b"\0" in line):
                        # Met in the middle of being written, unless it stays as it is.
                        rest = len(line), crc32(line)
                        if not whole or rest != self._rest:
                            break
                        rest = None
                    self._offset += size
                    if not record:
                        self._bad += 1
                    elif self.last < record[0] and (not upper or record[0] < upper):
                        self.last = record[0]
                        yield record
        except OSError as e:
            if e.errno not in _NONE:
                raise self._files.unreadable(name_of(first), e) from None
            if e.errno != errno.ENOENT:  # else delivered and deleted in this moment
                self._bad += not self._offset
                self._offset = 1 << 62  # never again
        self._torn = rest is not None and not upper and rest == self._rest
        self._rest = rest

    def _read_slots(self):
        """
        Return (number, payload) of what the slots hold, in order.

        They are read twice. What is there up to the greatest number of the first time was there
        all through the second time, but for what is delivered or in a new segment: only such
        slots are used again. So no number is passed over that a later call would then miss.
        """
        found, bad = self._look()
        if not self.slots:
            return ()
        limit = max(found, default=0)
        again, still = self._look()
        self._bad_slots = bad & still
        found.update(again)
        return sorted((number, payload) for number, payload in found.items() if number <= limit)

    def _look(self):
        found = {}
        bad = set()
        for slot in range(_SLOTS):
            name = slot_name(slot)
            try:
                with self._files.open(name) as f:
                    self.slots = True
                    data = f.read(_MOST)
            except OSError as e:
                if e.errno not in _NONE:
                    raise self._files.unreadable(name, e) from None
                continue
            *lines, rest = data.split(b"\n")
            last = 0
            for line in lines:
                record = line and decode(line + b"\n")  # a host fills slots up with newlines
                if record is None:
                    bad.add((slot, data))
                elif record and record[0] > last:  # else older content
                    last = record[0]
                    found[last] = record[1]
            if rest:  # torn, also if its checksum is right
                bad.add((slot, data))
        return found, bad


def last_records(files, n):
    """Return a Records that begins so that it yields the last `n`, and few more."""
    firsts = files.firsts()
    seen = 0
    while firsts and seen < n:
        first = firsts.pop()
        try:
            with files.open(name_of(first)) as f:
                seen += sum(decode(line) is not None for _, line in _lines(f))
        except OSError as e:
            if e.errno not in _NONE:
                raise files.unreadable(name_of(first), e) from None
        if not firsts or seen >= n:
            return Records(files, first - 1)
    return Records(files)


def survey(files, timestamp_key=None):
    """
    Return what there is, a dict; its names mean what those of `POSTCache.stats` mean.

    path; format, the version; stream, None when no cursor is whole. journal. waiting: records that
    are there and not delivered. bytes. acked: all up to this number are delivered or given up.
    stored: the greatest number there is. in_flight: [first, last] of the batch that was tried and
    has no good answer yet, or None. dropped, rejected: since the stream began. set_aside: those
    rejected that are still here. requeue: True when one was cut off. damaged: places that hold no
    record where one was due, the cursor's copies among them. segments: files. oldest: the oldest
    that waits, newest: the newest that is there, each None or {"number", "time"}; time is its
    value under `timestamp_key`, str, or None.
    """
    records = Records(files)
    acked = files.cursor().acked
    runs = []  # of consecutive numbers: which are there, in little memory
    oldest = newest = None
    for number, payload in records.all():
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
        newest = number, payload
        if not oldest and number > acked:
            oldest = newest
    # Now, not before: what was deleted while it was read is delivered by this one, too.
    cursor = files.cursor()
    acked = cursor.acked
    above = [(max(first, acked + 1), last) for first, last in runs if last > acked]
    if above and oldest and oldest[0] != above[0][0]:
        oldest = above[0][0], b"null"
        for number, payload in Records(files, oldest[0] - 1).more():
            if number >= oldest[0]:
                oldest = number, payload
                break
    rejects, total, bad = files.rejects()
    return {
        "path": files.name,
        "format": VERSION,
        "stream": cursor.stream,
        "journal": "slot" if records.slots else "append",
        "waiting": sum(last - first + 1 for first, last in above),
        "bytes": files.bytes(),
        "acked": acked,
        "stored": max([acked, cursor.sending] + [last for _, last in runs[-1:]]),
        "in_flight": [acked + 1, cursor.sending] if cursor.sending > acked else None,
        "dropped": cursor.dropped,
        "rejected": total,
        "set_aside": len(rejects),
        "requeue": files.requeue(),
        "damaged": records.damaged + cursor.damaged + bad,
        "segments": len(files.firsts()),
        "oldest": _entry(files, oldest if above else None, timestamp_key),
        "newest": _entry(files, newest, timestamp_key),
    }


def _entry(files, record, key):
    if not record:
        return None
    number, payload = record
    time = None
    if key is not None:
        try:
            value = parse(files.dated(number, payload))
            time = value.get(key) if isinstance(value, dict) else None
        except ValueError:
            pass
    return {"number": number, "time": time}


def attention(state):
    """Return what of a survey needs a person, a list of sentences."""
    found = []
    if state["damaged"]:
        found.append(
            "%s that held no record where one was due: normal now and then after a power cut; if "
            "it grows, the flash is loose or worn." % counted(state["damaged"], "place")
        )
    if state["set_aside"]:
        found.append(
            "%s refused by the server and set aside: `postcache rejected` shows why, `postcache "
            "requeue` puts them back." % counted(state["set_aside"], "record")
        )
    if state["requeue"]:
        found.append("A requeue was cut off: the next program that opens the log ends it.")
    if state["stream"] is None:
        found.append(
            "Both copies of the cursor are lost: the next program that opens the log begins a new "
            "stream, and sends all that is here again."
        )
    return found
