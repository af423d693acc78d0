"""
gzip: what comes out is what went in, the same bytes each time, in little memory.

On firmware that cannot compress (most can not) these tests hold that available() says so.
"""

import gc

from support import MICROPYTHON, raises

from postcache.ports.gzipped import available, length, stream

LINE = b'{"lines":[{"t":1763697600,"temp":21.5,"hum":40,"id":"shed"},'


def _unpack(data):
    if MICROPYTHON:
        import io

        import deflate

        return deflate.DeflateIO(io.BytesIO(data), deflate.GZIP).read()
    import zlib

    unpacker = zlib.decompressobj(wbits=31)
    text = unpacker.decompress(data)
    assert unpacker.eof and not unpacker.unused_data  # one whole file, with a good checksum
    return text


class Source:
    """A generator's stand-in that says whether it was closed."""

    def __init__(self, chunks, error=None):
        self._chunks = iter(chunks)
        self._error = error
        self.closed = 0

    def __iter__(self):
        return self

    def __next__(self):
        try:
            return next(self._chunks)
        except StopIteration:
            if self._error:
                raise self._error
            raise

    def close(self):
        self.closed += 1


def _noise(n):
    # Bytes that do not compress, the same on each runtime.
    seed = 1
    data = bytearray(n)
    for i in range(n):
        seed = (seed * 75 + 74) % 65537
        data[i] = seed & 255
    return bytes(data)


def test_available_tells_whether_the_runtime_can():
    able = not MICROPYTHON
    if MICROPYTHON:
        import io

        import deflate

        try:
            deflate.DeflateIO(io.BytesIO(), deflate.GZIP).write(b"x")  # pyright: ignore
            able = True
        except AttributeError:
            pass
    assert available() is able


def test_what_comes_out_is_what_went_in_and_the_same_each_time():
    if not available():
        return
    cases = (
        (b"x",),
        (b"", b"x", b""),
        (LINE,),
        [LINE] * 100,
        [LINE[i : i + 1] for i in range(len(LINE))] * 10,
        (_noise(5000),),
        (_noise(511), _noise(513), LINE * 20),
    )
    for chunks in cases:
        source = Source(chunks)
        pieces = list(stream(source))
        assert all(type(piece) is bytes and piece for piece in pieces)
        data = b"".join(pieces)
        assert data[:4] == b"\x1f\x8b\x08\x00"
        assert data[4:8] == bytes(4)  # no time
        assert _unpack(data) == b"".join(chunks)
        assert source.closed == 1
        assert b"".join(list(stream(Source(chunks)))) == data


def test_100_kb_of_records_become_a_fraction():
    if not available():
        return
    text = b"".join([b'{"n":%d,"temp":%d.5,"id":"shed"},' % (i, i % 40) for i in range(3000)])
    assert len(text) > 100000 - 5000
    for size in (len(text), 1024, 33):
        chunks = [text[i : i + size] for i in range(0, len(text), size)]
        data = b"".join(list(stream(Source(chunks))))
        assert len(data) < len(text) // 3, len(data)
        assert _unpack(data) == text


def test_memory_does_not_grow_with_the_body():
    if not available():
        return

    def work(chunks):
        for i in range(chunks):
            yield LINE * 7 + noise[i : i + 60]

    noise = _noise(700)

    sizes = []
    most = total = 0
    gc.collect()
    used = getattr(gc, "mem_alloc", int)
    begun = used()
    for i, piece in enumerate(stream(work(640))):  # 300 KB
        total += len(piece)
        sizes.append(len(piece))
        if MICROPYTHON and i % 4 == 0:
            gc.collect()
            most = max(most, used() - begun)
    assert total > 1000
    assert max(sizes) < (1 << 16)
    if MICROPYTHON:
        assert 1024 < most < 6000, most
        # A piece goes out as soon as it is worth a packet.
        assert max(sizes) < 1200, max(sizes)


def test_an_exception_of_the_source_passes_and_the_source_is_closed():
    if not available():
        return
    for chunks in ((), (LINE,), [LINE] * 100):
        source = Source(chunks, OSError(5))
        assert raises(OSError, list, stream(source)).args == (5,)
        assert source.closed == 1


def test_who_breaks_off_closes_the_source():
    if not available():
        return
    source = Source([_noise(3000)] * 200)
    pieces = stream(source)
    assert next(pieces)
    assert not source.closed
    pieces.close()
    assert source.closed == 1


def test_pack_gives_the_length_of_what_it_sends():
    if not available():
        return

    bodies = [Source([LINE] * 50) for _ in range(2)]
    size = length(bodies[0])
    data = b"".join(list(stream(bodies[1])))
    assert len(data) == size < 50 * len(LINE)
    assert _unpack(data) == LINE * 50
    assert [source.closed for source in bodies] == [1, 1]
