"""
Records that the server refused alone, kept durably: loaded by the first of them.

    1a2b3c4d 954 {"total":17,"requeued":12,"status":422,"reason":"no t","record":{"x":1}}
             |            |             |                                `- byte for byte
             |            |             `- up to this total none waits here: they are put back
             |            `- records refused since the stream began, up to this one
             `- the record's number; any, in a line without a record

rejected.log and rejected-2.log take turns: when one is full the other, older one is begun anew.

To be put back once, also with power cuts, records go in groups, oldest first. `requeue` says what
is about to happen: `5e6f7a8b 960 {"total":17,"requeued":12}`, those up to total 17 are appended to
the log, from number 960 on. They are appended. A line without a record says that they are put
back. `requeue` goes. Whoever finds it compares: what is in the log under these numbers was
appended. What cannot be read there any more is appended again: rather twice than never.
"""

import json
from binascii import crc32

from ..log.line import decode, encode
from ..ports import const, dumps

_TRIES = const(40)  # how often a file is tried, each time after a back-off, before it is given up


def _line(seq, total, done):
    return encode(seq, b'{"total":%d,"requeued":%d}' % (total, done))


def _next(iterator):
    """Return its next item, or None: next() takes no default before MicroPython 1.25."""
    for item in iterator:
        return item
    return None


class DeadLetters:
    """
    The records of a log that were set aside. One thread at a time may change them.

    Args:
        log: a `log.Log`.
        count: False to look only, amid what others do: damage is not counted.

    Attributes: `total`, records ever set aside; `place`, that of the record which records() gave
    last.

    All of it raises OSError when a file cannot be read or written.
    """

    def __init__(self, log, count=True):
        self._count = count
        self._log = log
        self._fs = log.fs
        # As long as the log is open. By file, how often it could not be read; "failed": a write
        # was not, so what can be read may not be durable, and the end be torn; "void": what was to
        # be put back last could not be appended; "bad": damaged lines that are counted.
        self._notes = log.notes
        self._load()

    def _load(self):
        files = []
        self._done = bad = 0
        for name in ("rejected.log", "rejected-2.log"):
            first = last = size = torn = 0
            for line, _, total, done, _, _ in self._lines(name):
                size += len(line)
                torn = line[-1:] != b"\n"
                last = max(last, total)
                first = first or last
                self._done = max(self._done, done)
                if not total and line != b"\n":
                    bad += 1
            files.append((last, first, name, size, torn))
        files.sort()
        self._files = files  # the second is the one in use
        self.total = files[1][0]
        # The same damage is met each time.
        if self._count:
            self._log.damaged += max(0, bad - self._notes.get("bad", 0))
            self._notes["bad"] = bad

    def _lines(self, name):
        """Yield (line, number, total, requeued, fields, record) of a file; total 0 is damage."""
        try:
            with self._fs.open(name, "rb") as f:
                while True:
                    line = f.readline()
                    if not line:
                        self._notes[name] = 0
                        return
                    seq = total = done = 0
                    fields = record = None
                    try:
                        # None does not unpack: that TypeError is the answer to damage, too.
                        seq, text = decode(line)  # pyright: ignore
                        # The first one: a quote in the reason has a backslash before it.
                        text, _, record = text.partition(b',"record":')
                        fields = json.loads(text + b"}" if record else text)
                        done = fields["requeued"]
                        total = fields["total"]
                    except (TypeError, ValueError, KeyError):
                        pass
                    yield line, seq, total, done, fields, record
        except OSError as e:
            if e.errno != 2:
                self._notes[name] = tries = self._notes.get(name, 0) + 1
                if e.errno not in (20, 21, 84) and tries < _TRIES:
                    raise
                yield b"?", 0, 0, 0, None, None

    def records(self):
        """Yield (number, status, reason as str, payload as bytes), oldest first."""
        last = self._done
        for _, _, name, _, _ in self._files:
            lines = self._lines(name)
            try:
                for _, seq, total, _, fields, record in lines:
                    if record and total > last:
                        self.place = last = total
                        yield seq, fields["status"], fields["reason"], record[:-1]
            finally:
                lines.close()  # and its file

    def dropped(self):
        """Return how many since the last requeue were overwritten by later ones, or damaged."""
        return self.total - self._done - sum([1 for _ in self.records()])

    def add(self, seq, status, reason, payload):
        """
        Set record `seq` aside; durable when this returns. The same one again changes nothing.

        Args:
            status: int, of the answer.
            reason: bytes, the beginning of its body; 80 characters of it are kept.
            payload: bytes of JSON text without a newline.
        """
        total = 0
        for number, _, _, record in self.records():
            if number == seq and record == payload:
                total = self.place
        if total and not self._notes.get("failed"):
            self._write(b"")  # a program that was killed may not have synced it
            return
        reason = "".join([chr(c) if 31 < c < 127 else "?" for c in reason[:80]])
        # encode()'s line, in pieces: whole it would be several copies of a long record, and one
        # that a board cannot set aside holds up all others.
        text = b'%d {"total":%d,"requeued":%d,"status":%d,"reason":%s,"record":' % (
            seq,
            total or self.total + 1,
            self._done,
            status,
            dumps(reason),
        )
        check = crc32(b"}", crc32(payload, crc32(text)))
        size = self._files[1][3]
        full = size + len(text) + len(payload) + 11 > min(self._fs.segment, self._log.limit)
        self._write(b"%08x %s" % (check, text), size and full, payload, b"}\n")

    def _write(self, line, anew=False, *more):
        """Append a line, or pieces of one, to the file in use, or begin the other one `anew`."""
        _, _, name, _, torn = self._files[1]
        if anew:
            name = self._files[0][2]
        elif torn or self._notes.get("failed"):
            line = b"\n" + line
        self._log.writes += 1
        f = self._fs.open(name, "wb" if anew else "ab")
        try:
            f.write(line)
            for piece in more:
                f.write(piece)
            f.flush()
        except BaseException:
            self._notes["failed"] = True
            raise
        finally:
            f.close()
        self._load()

    def _remove(self, name):
        try:
            self._fs.remove(name)
        except OSError as e:
            if e.errno != 2:
                self._log.errors += 1  # it says nothing any more

    def pass_over(self):
        """Pass over the next record if it is set aside already: the power was cut in between."""
        log = self._log
        reader = log.read()
        head = _next(reader)
        reader.close()
        last = None
        for seq, _, _, payload in self.records():
            last = seq, payload
        if head and last == head:
            self._write(b"")  # a program that was killed may not have synced it
            log.acked = head[0]

    def resolve(self):
        """Find out how far a requeue came that did not end, and take note of it."""
        if self._notes.get("void"):
            return
        first = last = done = 0
        for _, seq, total, _, _, _ in self._lines("requeue"):
            if total:
                first = seq
                last = total
        reader = self._log.read((0, 0, first - 1))
        records = self.records()
        try:
            for _, _, _, payload in records:
                if self.place > last or _next(reader) != (first, payload):
                    break
                first += 1
                done = self.place
        finally:
            reader.close()
            records.close()
        self._forget(done)

    def _forget(self, upto):
        if upto:
            # Appended, never anew: the other file may hold what is being forgotten.
            self._write(_line(upto, self.total, upto))
        self._remove("requeue")

    def requeue(self, append):
        """
        Put everything back with append(payloads, before), `log.Log.append`; return how many.

        Nobody may send meanwhile. After an OSError what was not put back is still here.
        """
        log = self._log
        self.resolve()
        if not log.flush():
            raise OSError(5)  # after a reboot one of them could wait again, under its old number
        n = 0
        while True:
            group = []
            size = upto = 0
            records = self.records()
            for seq, _, _, payload in records:
                if log.acked < seq <= log.stored:
                    break  # the power was cut before it was passed over: it waits, too
                size += log.size_of((payload,))
                if group and size > log.max_record:
                    break
                group.append(payload)
                upto = self.place
            records.close()
            if not group:
                break
            total = upto, self._done
            try:
                append(group, lambda first: self._fs.put("requeue", _line(first, *total)))  # noqa: B023
            except Exception:
                # Others may get these numbers now. After a reboot it is compared all the same:
                # what is whole counts then, though it was refused.
                self._notes["void"] = True
                raise
            self._notes["void"] = False
            n += len(group)
            self._forget(upto)
        if n and not list(self.records()):
            used = self._files[1][2]
            self._write(_line(self.total, self.total, self.total), True)
            self._remove(used)
        return n


def listed(log):
    """Return `POSTCache.rejected()` of a log: see there."""
    return [
        {"number": seq, "status": status, "reason": reason, "record": json.loads(record)}
        for seq, status, reason, record in DeadLetters(log, False).records()
    ]


def requeue(uplink):
    """Do `Uplink.requeue_rejected()`: see there."""
    uplink.fs.check()
    if uplink.closed:
        raise ValueError("closed")
    if not uplink.sending.acquire(True, uplink.timeout):
        raise OSError(16, "sending")
    buffered = uplink.buffered
    log = uplink.storage
    try:

        def call():
            return DeadLetters(log).requeue(log.append)

        n = call() if buffered is None else buffered.alone(call)
    finally:
        uplink.sending.release()
    for watcher in uplink.watchers:
        watcher()
    return n
