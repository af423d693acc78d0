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
from .line import SHORTEST, decode
from .ports import BLOCK, SEGMENT, const, dumps

_VERSION = const(1)
_SLOTS = const(40)
# Beginnings of the header names that are set here, in lower case.
_RESERVED = ("content-", "transfer", "host", "idempote", "postcach", "")


def settings(headers, attributes, data_key, numbers):
    """
    Return what is around the records of a batch: headers, and the bytes before and after.

    `numbers` are a POSTCache's timeout, upload_limit, max_bytes and async_interval.
    Raises ValueError or TypeError for a bad argument.
    """
    timeout, upload_limit, max_bytes, interval = numbers
    for name, ok in (
        ("data_key: a str", isinstance(data_key, str)),
        ("timeout: seconds > 0", timeout > 0),
        ("upload_limit: 1 or more", upload_limit >= 1),
        ("max_bytes: 4096 or more", max_bytes is None or max_bytes >= 4096),
        ("async_interval: seconds > 0", interval is None or interval > 0),
    ):
        if not ok:
            raise ValueError(name)
    fields = {"Content-Type": "application/json"}
    for name, value in (headers or {}).items():
        text = name + value
        if min(text) < " " or max(text) > "~" or name.lower()[:8] in _RESERVED:
            raise ValueError("bad header")
        for c in name:
            if c in ' "(),/:;<=>?@[]{}' or c == chr(92):  # RFC 9110, 5.6.2: no token
                raise ValueError("bad header")
        fields[name] = value
    # Text of its own: a dict that the caller changes later would change the bytes of a retry.
    rest = (attributes or {}).copy()
    rest.pop(data_key, None)
    tail = b"]," + dumps(rest)[1:] if rest else b"]}"
    return fields, b"{" + dumps(data_key) + b":[", tail


def load(log, fs, max_bytes, slot_size):
    """Set what a `log.Log` is made of, from what is in the directory `fs`."""
    opened = []
    try:
        _load(log, fs, max_bytes, slot_size, opened)
    except BaseException:
        for file in opened:
            _close(file)
        raise


def _close(file):
    try:
        file.close()
    except OSError:
        pass  # nothing was written to it


def _load(log, fs, max_bytes, slot_size, opened):
    _read_cursor(log, fs)
    log._noted = log.acked
    log._counted = log.dropped
    firsts = []
    requeue = rejects = False
    for name, _ in fs.files():
        requeue = requeue or name == "requeue"
        rejects = rejects or name[:8] == "rejected"
        digits = name[:-4]
        if digits.isdigit() and int(digits) and name == name_of(int(digits)):
            firsts.append(int(digits))
    firsts.sort()
    # At most 1/8 of the space, or one drop would take most of it; at least 1/256, or the list of
    # segments would grow with the card; and not less than what a file takes anyway.
    limit = SEGMENT
    if max_bytes:
        limit = max(BLOCK, min(max(SEGMENT, max_bytes // 256), max_bytes // 8))
    log.limit = limit
    end = last = passed = 0
    file = None
    if firsts:
        name = name_of(firsts[-1])
        try:
            # Synced before it is read: what a killed process wrote may be visible and not
            # durable, and must not be sent under a number that a power cut would free again.
            file = fs.open(name, "ab")
            opened.append(file)
            file.flush()
        except OSError:
            # A read-only card: what is on it can still be sent.
            for file in opened:
                _close(file)
            file = None
        end = fs.size(name)
        last, passed = _find_last(fs, firsts[-1], end)
        if passed:
            log.damaged += 1
            # Left alone, else gone on with: many short lives (deep sleep) are not many files.
            if file:
                _close(file)
                file = None
    if slot_size is None:
        slot_size = fs.slot_size
    slots = slot_size
    try:
        fs.size("+0")
        slots = True  # records may be in there, whatever is wanted now
    except OSError as e:
        if e.errno != 2:
            raise  # there may be some: the next open tries again
    if slots:
        from .slots import NOT_THERE, SlotJournal, slot_name

        done = max(last, log.acked)
        tail, free, more, lowest = _read_slots(log, fs, done, slot_name, NOT_THERE)
        last += passed
        passed = more
        if not firsts and not log.generation:
            done = max(done, lowest - 1)  # nothing is known, so nothing before these waits
        if tail:
            last = max(last, tail[-3])
        log.journal = SlotJournal(fs, limit, firsts, end, file, slot_size, tail, free, done)
    else:
        log.journal = AppendJournal(fs, limit, firsts, end, file)
    # What is damaged may have been records whose numbers a caller holds: pass over every number
    # that they can have had, so that none ever names two records.
    log.stored = log.opened = max(last + passed, log.acked, log.sending)
    if not log.generation and firsts:
        log.acked = firsts[0] - 1
    # One record alone was on its way: it may have been set aside, and not passed over.
    alone = rejects and log.sending == log.acked + 1
    if requeue or alone:
        from .rejects import Rejects

        try:
            if alone:
                Rejects(log).settle()
            if requeue:
                Rejects(log).resolve()
        except OSError:
            log.errors += 1  # the next requeue or open tries again


def _read_cursor(log, fs):
    """Read the newer cursor that is whole; without one, begin a new stream."""
    log.stream = hexlify(os.urandom(8)).decode()
    log.acked = log.sending = log.dropped = log.generation = 0
    for name in ("cursor-a", "cursor-b"):
        newer = False
        try:
            with fs.open(name, "rb") as f:
                # None does not unpack: that TypeError is the answer to damage, too.
                generation, text = decode(f.readline(128))  # pyright: ignore
            version, *state = json.loads(text)
            newer = version > _VERSION
            if generation > log.generation and not newer:
                log.stream, log.acked, log.sending, log.dropped = state
                log.generation = generation
        except OSError as e:
            if e.errno in (20, 21, 84):  # no file, or metadata that littlefs cannot read
                log.damaged += 1
            elif e.errno != 2:
                raise  # taken for lost it would have everything sent again: the next open tries
        except (TypeError, ValueError):
            log.damaged += 1
        if newer:
            raise OSError(95, name + ": of a newer postcache")


def _find_last(fs, first, size):
    """Return the number of the last good line, and how many numbers may be damaged after it."""
    for window in (2048, 2 * SEGMENT):
        start = max(0, size - window)
        with fs.open(name_of(first), "rb") as f:
            f.seek(start)
            data = f.read(size - start)
        end = len(data)
        while end:
            at = data.rfind(b"\n", 0, end - 1) + 1
            if start and not at:
                break  # began before the window
            record = decode(data[at:end])
            if record and record[0] >= first:
                rest = len(data) - end
                return record[0], rest and rest // SHORTEST + 1
            end = at
    return first - 1, size and size // SHORTEST + 1


def _read_slots(log, fs, done, slot_name, not_there):
    """
    Return the slots with records above number `done`, in order, as a list of last number, slot,
    bytes; the list of the others; how many numbers may be damaged; and the lowest number.
    """
    tail = []
    free = []
    passed = lowest = 0
    for slot in range(_SLOTS):
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
                log.damaged += 1
                passed += 512 // SHORTEST + 1
            if e.errno > 2:
                continue
        if rest:
            log.damaged += 1
            passed += rest // SHORTEST + 1
        if last > done:
            tail.append((last, slot, size))
        else:
            # A damaged one is used first: until then each opening passes over numbers.
            free.insert(0 if rest else len(free), slot)
    tail.sort()
    return [n for entry in tail for n in entry], free, passed, lowest
