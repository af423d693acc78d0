"""
Reads a log without postcache: docs/format.md in code, for CPython and MicroPython.

    python read_log.py cache

prints a line for each record, oldest first: its sequence number, "waiting" or "delivered", and its
payload. Nothing is changed, and the log may be in use.
"""

import json
import os
import sys
from binascii import crc32


def decode(line):
    """Return (number, payload) of a line of bytes, or None if it is damaged."""
    text = line[9:-1]
    number, _, payload = text.partition(b" ")
    if line[-1:] == b"\n" and line[:8] == b"%08x" % crc32(text) and number.isdigit():
        return int(number), payload
    return None


def read_acked(folder):
    """Return the highest delivered number, as the newer whole copy of the cursor says."""
    acked = newest = 0
    for name in ("cursor-a", "cursor-b"):
        try:
            with open(folder + "/" + name, "rb") as f:
                found = decode(f.readline())
        except OSError:
            continue  # the second copy is made when the cursor moves for the first time
        if found:
            version, *fields = json.loads(found[1])
            if version > 1:
                raise ValueError("%s has format %d, newer than this reader" % (name, version))
            if found[0] > newest:
                newest = found[0]
                acked = fields[1]
    return acked


def first_of(name):
    """Return the first number of the segment called `name`, or 0 if that is no segment's name."""
    try:
        first = int(name[:-4])
    except ValueError:
        return 0
    return first if name == "%010d.log" % first else 0


def read_slots(folder):
    """Return [(number, payload)] of what the slots hold, in order; a log may have none."""
    records = []
    for slot in range(40):
        try:
            f = open(folder + "/+%d/%d" % (slot % 4, slot), "rb")
        except OSError:
            continue
        with f:
            number = 0
            for line in f:
                found = decode(line)
                if found and found[0] > number:  # else older content
                    number = found[0]
                    records.append(found)
    return sorted(records)


def read(folder):
    """Yield (number, delivered, payload) of each record, oldest first."""
    acked = read_acked(folder)
    firsts = sorted(first for first in map(first_of, os.listdir(folder)) if first > 0)
    last = 0
    for first, after in zip(firsts, firsts[1:] + [0]):
        last = max(last, first - 1)
        try:
            f = open(folder + "/%010d.log" % first, "rb")
        except OSError:
            continue  # delivered and deleted in this moment
        with f:
            for line in f:
                found = decode(line)
                # The next file's name claims every number from there on, so that what a failed
                # write left behind here does not count.
                if found and last < found[0] and (not after or found[0] < after):
                    last = found[0]
                    yield last, last <= acked, found[1]
    for number, payload in read_slots(folder):
        if number > last:  # else it is in a segment, too
            yield number, number <= acked, payload


if __name__ == "__main__":
    for number, delivered, payload in read(sys.argv[1]):
        print(number, "delivered" if delivered else "waiting", payload.decode())
