"""
The newest records: how one record becomes durable most cheaply on this file system.

The append journal is one file, appended and synced, which suits POSIX and FAT. Each file is named
by its first sequence number. A full one becomes a sealed segment by being left alone, without a
copy and without a rename, which is not atomic on FAT. The newest file is the journal; nothing else
marks it.

    0000000001.log  0000000954.log  0000001907.log
    `---- sealed, never written again ---'  `- the journal

A file is never written again after an error: a failed write may have left half a line, and a
failed sync leaves pages that the next sync would call clean. The next record opens a new file,
whose name takes over every number from there on, so what the failed call left in the old one is
never read.
"""


def name_of(first):
    """File name of the segment whose first sequence number is `first`."""
    return "%010d.log" % first


class AppendJournal:
    """
    The newest segment, appended to and synced.

    Args:
        fs: a `ports.Directory`, or anything with its methods.
        limit: int, bytes of a full file.
        firsts: list of the first sequence number of every segment, oldest first, the journal's own
            last; it is kept up to date here.
        end: int, bytes of the newest segment.
        file: that one, open for appending; None if it must be left alone.
    """

    kind = "append"

    def __init__(self, fs, limit, firsts, end, file):
        self._fs = fs
        self._limit = limit
        self.firsts = firsts
        self._newest = firsts[-1] if firsts else 0
        self._end = end
        self._file = file

    def open(self, first):
        """Return segment `first`, open for reading, and how many bytes of it are durable."""
        end = self._end if first == self._newest else 1 << 30
        return self._fs.open(name_of(first), "rb"), end

    def append(self, seq, lines, acked, make_room):
        """
        Store `lines`, a list whose first is record `seq`; durable when it returns.

        `acked` is the highest number that is durably acknowledged. make_room(bytes) is called
        before a new file is begun. After an OSError none of the lines is stored, and the next call
        tries anew.
        """
        data = b"".join(lines)
        self._write(seq, len(data), (data,), make_room)

    def _write(self, seq, size, pieces, make_room):
        firsts = self.firsts
        if not self._file or firsts[-1:] != [self._newest] or self._end + size > self._limit:
            make_room(size)
            self.close()
            # "wb": a file of that name holds nothing durable, and perhaps half a line.
            self._file = self._fs.open(name_of(seq), "wb")
            self._newest = seq
            self._end = 0
            if firsts[-1:] != [seq]:
                firsts.append(seq)
        try:
            for piece in pieces:
                self._file.write(piece)
            self._file.flush()
            self._end += size
        except BaseException:  # a KeyboardInterrupt, too, may leave half a line
            self.close()  # after an error the file takes no further line
            raise

    def close(self):
        file, self._file = self._file, None
        if file:
            try:
                file.close()
            except OSError:
                pass  # whoever was told "stored" was told so by append()
