"""
The newest records: how one record becomes durable most cheaply on this file system.

The append journal is one file, appended and synced: right for POSIX and FAT. Each file is named by
its first sequence number, so a full one becomes a sealed segment by being left alone: no rename
(on FAT a rename is not atomic), no copy, and nothing on flash says "this is the journal" but its
being the newest.

    0000000001.log  0000000954.log  0000001907.log
    `---- sealed, never written again ---'  `- the journal

A file is never written again after an error: a failed write may have left half a line, and a
failed sync leaves pages that the next sync would call clean. The next record opens a new file,
whose name takes over every number from there on, so what the failed call left in the old one is
never read.
"""

from .line import SHORTEST, decode
from .ports import SEGMENT


def name_of(first):
    """File name of the segment whose first sequence number is `first`."""
    return "%010d.log" % first


def number_of(name):
    """First sequence number of the segment called `name`; 0 if that is no segment's name."""
    digits = name[:-4]
    return int(digits) if digits.isdigit() and name == name_of(int(digits)) else 0


class AppendJournal:
    """
    The newest segment, appended to and synced.

    Args:
        fs: a `ports.Directory`, or anything with its methods.
        limit: int, bytes of a full file.
        firsts: list of the first sequence number of every segment, oldest first, the journal's own
            last; it is kept up to date here.

    Attributes: `last`, the highest number that may have been given out, as found on flash; `end`,
    how many bytes of the newest file are durable: a reader goes no further; `damaged`, pieces at
    its end that are no record.

    Opening reads the end of the newest file only, whatever waits in it and in the others.
    """

    def __init__(self, fs, limit, firsts):
        self._fs = fs
        self._limit = limit
        self.firsts = firsts
        self.last = self.end = self.damaged = 0
        self._file = None
        if firsts:
            name = name_of(firsts[-1])
            try:
                # Synced before it is read: what a killed process wrote may be visible and not
                # durable, and must not be sent under a number that a power cut would free again.
                self._file = fs.open(name, "ab")
                self._file.flush()
            except OSError:
                self.close()  # a read-only card: what is on it can still be sent
            self.end = size = fs.size(name)
            self.last, rest = self._find_last(name, size)
            if rest:
                # What is damaged may have been records whose numbers a caller holds: pass over
                # every number they can have had, so that none ever names two records.
                self.last += rest // SHORTEST + 1
                self.damaged = 1
                self.close()
            # Else go on in this file: many short lives (deep sleep) must not mean many files.

    def _find_last(self, name, size):
        """Return the number of the last good line, and how many bytes there are after it."""
        first = self.firsts[-1]
        for window in (2048, 2 * SEGMENT):
            start = max(0, size - window)
            with self._fs.open(name, "rb") as f:
                f.seek(start)
                data = f.read(size - start)
            end = len(data)
            while end:
                at = data.rfind(b"\n", 0, end - 1) + 1
                if start and not at:
                    break  # began before the window
                record = decode(data[at:end])
                if record and record[0] >= first:
                    return record[0], len(data) - end
                end = at
        return first - 1, size

    def full(self, size):
        """True when `size` more bytes need a new file."""
        return not self._file or self.end + size > self._limit

    def roll(self, seq):
        """Begin the file of record `seq`. After an OSError the next call tries again."""
        self.close()
        # "wb": one of that name holds nothing that is durable, and perhaps half a line.
        self._file = self._fs.open(name_of(seq), "wb")
        self.end = 0
        if self.firsts[-1:] != [seq]:
            self.firsts.append(seq)

    def write(self, data):
        """Write lines; durable when it returns. After an error the file takes no further one."""
        try:
            self._file.write(data)
            self._file.flush()
            self.end += len(data)
        except BaseException:  # a KeyboardInterrupt, too, may leave half a line
            self.close()
            raise

    def close(self):
        file, self._file = self._file, None
        if file:
            try:
                file.close()
            except OSError:
                pass  # whoever was told "stored" was told so by write()
