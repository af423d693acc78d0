"""HTTP/1 requests, and how they are read from a Wire."""

import collections
import dataclasses
import json
import re
import zlib
from typing import Optional

from serving.answer import Answer

MAX_BODY = 64 * 1024 * 1024  # bytes of one request body, also unpacked; more is answered 413
MAX_HEAD = 64 * 1024  # bytes of one request head, and of one chunk-size line


class BadRequest(Exception):
    """What the client sent is not HTTP, or is too large; status and sentence in args."""


@dataclasses.dataclass(eq=False, repr=False)
class Request:
    """One request as it arrived; its line and headers are empty if the Answer left it unread."""

    method: str = ""
    path: str = ""
    version: str = ""
    headers: dict = dataclasses.field(default_factory=dict)  # lower-case; repeated: "a, b"
    body: bytes = b""  # without chunks and gzip; b"" if the server keeps no bodies (record=False)
    packed: Optional[bytes] = None  # the body as it came, when it was gzip
    size: int = 0  # bytes of the body that were read, kept or not
    complete: bool = False  # whether the whole body was read
    unread: int = 0  # bytes that came after the answer, known once the connection is closed
    answer: Optional[Answer] = None  # the one played for it
    connection: int = 0  # running number of the TCP connection, from 1
    receipt: Optional[str] = None  # what Receiver.take() said

    def __repr__(self):
        return "<Request %s %s %d bytes%s -> %r>" % (
            self.method,
            self.path,
            self.size,
            "" if self.complete else " (cut)",
            self.answer,
        )

    @property
    def keep_alive(self):
        """Whether the client lets the connection live on (RFC 9112, section 9.3)."""
        options = self.headers.get("connection", "").lower()
        return "keep-alive" in options if self.version == "HTTP/1.0" else "close" not in options

    @property
    def coding(self):
        """The Content-Encoding, "" if there is none."""
        return self.headers.get("content-encoding", "").strip().lower()

    def json(self):
        """The body as JSON; ValueError if it is none."""
        return json.loads(self.body)


def read_head(wire, request):
    """Read the head of a request into it; False if the client left before its end."""
    start = 0
    while True:
        while wire.buffer[:2] == b"\r\n":  # RFC 9112, 2.2: ignore before a request line
            del wire.buffer[:2]
            start = 0
        end = wire.buffer.find(b"\r\n\r\n", start)
        if end > MAX_HEAD or (end < 0 and len(wire.buffer) > MAX_HEAD):
            raise BadRequest(431, "the head is longer than %d bytes" % MAX_HEAD)
        if end >= 0:
            _parse_head(bytes(wire.buffer[:end]), request)
            del wire.buffer[: end + 4]
            return True
        start = max(0, len(wire.buffer) - 3)
        if not wire.fill():
            return False


def read_body(wire, request, limit=None, keep=True):
    """Read the body, or its first limit bytes; False if the client left within it.

    keep: False discards the body and counts its bytes.
    """
    coding, length = _framing(request.headers)
    if (
        request.headers.get("expect", "").lower() == "100-continue"
        and request.version != "HTTP/1.0"
        and not wire.buffer
        and (coding or length)
    ):
        wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    parts = [] if keep else collections.deque(maxlen=0)
    try:
        if coding:
            request.complete = _read_chunks(wire, request, parts, limit)
        else:
            want = length if limit is None else min(length, limit)
            _read_exactly(wire, want, request, parts)
            request.complete = want == length
    except EOFError:
        pass
    if keep:
        request.body = b"".join(parts)
        if request.complete and request.coding == "gzip":
            request.packed = request.body
            request.body = _unpack(request.packed)
    return request.complete or (limit is not None and request.size >= limit)


def _framing(headers):
    """Return (transfer coding, length), one of them is false; BadRequest if they make no sense."""
    coding = headers.get("transfer-encoding", "").strip().lower()
    length = headers.get("content-length")
    if coding and (coding != "chunked" or length is not None):
        raise BadRequest(400, "Transfer-Encoding %r, Content-Length %r" % (coding, length))
    if length is not None and not (length.isascii() and length.isdigit()):
        raise BadRequest(400, "Content-Length is %r" % length)
    if int(length or 0) > MAX_BODY:
        raise BadRequest(413, "the body is longer than %d bytes" % MAX_BODY)
    return coding, int(length or 0)


def _read_exactly(wire, count, request, parts):
    """count bytes of the body; EOFError if the client leaves before."""
    while count:
        data = wire.take(count)
        if not data:
            raise EOFError
        count -= len(data)
        request.size += len(data)
        parts.append(data)


def _read_chunks(wire, request, parts, limit):
    """A chunked body; True if its end was reached, False at limit."""
    while True:
        text = _read_line(wire).partition(b";")[0].strip()
        if not re.fullmatch(rb"[0-9A-Fa-f]{1,8}", text):
            raise BadRequest(400, "chunk size is %r" % text[:40])
        size = int(text, 16)
        if request.size + size > MAX_BODY:
            raise BadRequest(413, "the body is longer than %d bytes" % MAX_BODY)
        if size == 0:
            while _read_line(wire):  # trailers
                pass
            return True
        if limit is not None and request.size + size > limit:
            _read_exactly(wire, limit - request.size, request, parts)
            return False
        _read_exactly(wire, size, request, parts)
        if _read_line(wire):
            raise BadRequest(400, "a chunk is longer than it said")


def _read_line(wire):
    while True:
        end = wire.buffer.find(b"\r\n")
        if end >= 0:
            line = bytes(wire.buffer[:end])
            del wire.buffer[: end + 2]
            return line
        if len(wire.buffer) > MAX_HEAD:
            raise BadRequest(400, "a line in the chunked body never ends")
        if not wire.fill():
            raise EOFError


def _parse_head(head, request):
    """Fill in method, path, version and headers; BadRequest if this is not HTTP/1."""
    lines = head.decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if len(words) != 3 or words[2] not in ("HTTP/1.0", "HTTP/1.1"):
        raise BadRequest(400, "request line %r" % lines[0][:80])
    headers = request.headers
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip() or "\n" in line or "\r" in line:
            raise BadRequest(400, "header line %r" % line[:80])
        name = name.lower()
        value = value.strip()
        headers[name] = headers[name] + ", " + value if name in headers else value
    if words[2] == "HTTP/1.1" and "host" not in headers:  # RFC 9112, 3.2
        raise BadRequest(400, "no Host header")
    request.method, request.path, request.version = words


def _unpack(data):
    """gzip of any number of members, unpacked; BadRequest if it is none, or too much."""
    parts = []
    left = MAX_BODY + 1
    try:
        while data:
            unpacker = zlib.decompressobj(wbits=31)
            part = unpacker.decompress(data, left)
            left -= len(part)
            if left <= 0:
                raise BadRequest(413, "the body is longer than %d bytes, unpacked" % MAX_BODY)
            if not unpacker.eof:
                raise BadRequest(400, "gzip that was cut short")
            parts.append(part)
            data = unpacker.unused_data
    except zlib.error as error:
        raise BadRequest(400, "no gzip: %s" % error) from None
    return b"".join(parts)
