"""
One record <-> one line of text.

    1a2b3c4d 17 {"t":21.5}\n
    |        |  `- payload: JSON text, UTF-8, no raw newline
    |        `---- sequence number, decimal, no leading zero
    `------------- CRC-32 (IEEE 802.3) of everything between the first space and the newline, 8 hex
                   digits in lower case

The checksum lies over the stored bytes, never over re-encoded JSON. JSON text holds no raw
newline, so a damaged line is skipped and the next one is found: one damaged line costs one
record.
"""

from binascii import crc32

# Bytes a line adds to its payload, at most: checksum, two spaces, newline, 19 digits (2**63).
OVERHEAD = 30
# The shortest line there is, "xxxxxxxx 1 1\n": how many records a damaged region held, at most.
SHORTEST = 13


def encode(seq, payload):
    """Return the line of record `seq` (int >= 1) with `payload` (bytes without a newline)."""
    text = b"%d %s" % (seq, payload)
    return b"%08x %s\n" % (crc32(text), text)


def decode(line):
    """
    Return `(seq, payload)` of a line of bytes, or None if the line is damaged.

    A line without its newline is a torn one: damaged, whatever its checksum says.
    """
    try:
        text = line[9:-1]
        # int() takes capitals, "+" and "_", encode() writes none of them: compare the text.
        if line[-1:] == b"\n" and b"%08x" % crc32(text) == line[:8]:
            seq, payload = text.split(b" ", 1)
            return int(seq), payload
    except ValueError:
        pass
    return None
