"""
gzip for bodies that are never in memory as a whole: `compress=True`, loaded by those that use it.

Stock firmware for boards can only decompress; to compress is a build option of MicroPython,
MICROPY_PY_DEFLATE_COMPRESS. Without it bodies are sent as they are.
"""

import io

from . import const

compressobj = deflate = None
try:
    from zlib import compressobj
except ImportError:
    try:
        import deflate
    except ImportError:
        pass  # a build with neither

# A window of 1 KiB: it is searched byte by byte, so a longer one costs time.
_WBITS = const(10)
_PIECE = const(512)


def available():
    """Return True if this runtime can compress."""
    return bool(compressobj or (deflate and hasattr(deflate.DeflateIO, "write")))


def stream(chunks):
    """
    Yield `chunks` as one gzip file, in pieces of bytes, and close them.

    Args:
        chunks: generator of bytes, one byte at least in all.

    The same chunks give the same bytes again: there is no time in them.
    """
    try:
        if compressobj:
            packer = compressobj(wbits=31)
            for chunk in chunks:
                data = packer.compress(chunk)
                if data:
                    yield data
            yield packer.flush()
            return
        # Not a sink in Python: it would be called for each byte.
        sink = io.BytesIO()
        packer = deflate.DeflateIO(sink, deflate.GZIP, _WBITS)
        for chunk in chunks:
            chunk = memoryview(chunk)
            for at in range(0, len(chunk), _PIECE):
                packer.write(chunk[at : at + _PIECE])  # pyright: ignore
                n = sink.tell()
                if n >= _PIECE:
                    sink.seek(0)
                    yield sink.read(n)
                    sink.seek(0)
        packer.close()
        n = sink.tell()
        sink.seek(0)
        yield sink.read(n)
    finally:
        chunks.close()


def length(chunks):
    """Return the bytes that stream(chunks) has in all."""
    return sum([len(piece) for piece in stream(chunks)])
