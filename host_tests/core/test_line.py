"""One record <-> one line: what is damaged is seen, what is whole is read back."""

from postcache.log.line import OVERHEAD, SHORTEST, decode, encode


def test_a_line_is_checksum_number_payload():
    # CRC-32 of b'17 {"t":21.5}', as gzip writes it into its trailer.
    assert encode(17, b'{"t":21.5}') == b'69e1b5d5 17 {"t":21.5}\n'


def test_what_was_encoded_is_decoded():
    for seq, payload in ((1, b"1"), (2**63 - 1, b'"' + b"x" * 5000 + b'"'), (9, "é漢".encode())):
        line = encode(seq, payload)
        assert decode(line) == (seq, payload)
        assert SHORTEST <= len(line) <= len(payload) + OVERHEAD


def test_every_single_bit_flip_is_seen_or_harmless():
    line = encode(17, b'{"t":21.5}')
    for i in range(len(line) * 8):
        damaged = bytearray(line)
        damaged[i // 8] ^= 1 << i % 8
        found = decode(bytes(damaged))
        # The space after the checksum carries nothing; every other byte is covered.
        assert found is None or (i // 8 == 8 and found == (17, b'{"t":21.5}'))


def test_every_truncation_is_seen():
    line = encode(17, b'{"t":21.5}')
    for n in range(len(line)):
        assert decode(line[:n]) is None


def test_text_with_a_good_checksum_that_is_no_record_is_damage():
    from binascii import crc32

    for text in (b"", b" ", b"17", b"x {}", b"-"):
        assert decode(b"%08x %s\n" % (crc32(text), text)) is None
    for junk in (b"", b"\n", b" \n", b"\x00" * 20 + b"\n", b"\xff" * 9 + b"\n"):
        assert decode(junk) is None
