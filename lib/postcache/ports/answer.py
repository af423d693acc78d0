"""
A strict reader of HTTP/1.x answers, without the input and output.

Sockets, TLS streams and asyncio share it. An answer counts when all of it has arrived; its body is
thrown away, but for its beginning, 512 bytes. A line may have 4,096 bytes and a head 16,384, and
headers are kept that stand in its first 2,048.
"""

# Kept wherever they stand in a head.
_ALWAYS = "content-length transfer-encoding retry-after date postcache-ack"


class Answer:
    """
    One answer, read from whatever pieces it comes in.

    Attributes: `status`, int, 0 until the head is complete; `headers`, dict of str with lower-case
    names, bounded, the last of several values; `start`, bytes, the beginning of the body, at most
    512; `left`, int, the bytes of the body, or of a piece of it, that must still come, 0 within a
    line, below 0 for all to the end of the stream; `rest`, bytes, what came after a whole answer.
    """

    status = left = 0
    start = rest = b""
    _whole = False

    def __init__(self):
        self.headers = {}
        self._steps = self._read()

    def feed(self, data):
        """
        Take what has arrived, bytes; b"" is the end of the stream. Returns True for a whole one.

        Raises OSError 71 (EPROTO) for what is not HTTP, 104 (ECONNRESET) when it was cut short.
        After either it must not be used again.
        """
        self._more = data
        self.rest += data
        for _ in self._steps:  # next() takes no default before MicroPython 1.25
            break
        return self._whole

    def _line(self):
        while True:
            line, end, rest = self.rest.partition(b"\n")
            if len(line) > 4096:
                raise OSError(71)
            if end:
                self.rest = rest
                return line.rstrip(b"\r")
            if not self._more:
                raise OSError(104)
            yield

    def _read(self):
        status = 0
        headers = {}
        while status < 200 and status != 101:  # RFC 9110, 15.2: any number of interim answers
            line = yield from self._line()
            # RFC 9112, section 4: HTTP-version SP 3DIGIT SP [reason-phrase]
            code = line[7:8] + line[9:12]
            if (
                line[:7] + line[8:9] + line[12:13] not in (b"HTTP/1. ", b"HTTP/1.  ")
                or len(code) < 4
                or line[9:10] == b"0"
                or not code.isdigit()
            ):
                raise OSError(71)
            status = int(line[9:12])
            self.headers = headers = {}
            size = 0
            while True:
                line = yield from self._line()
                if not line:
                    break
                size += len(line)
                if size > 16384:
                    raise OSError(71)
                try:
                    name, colon, value = line.decode().partition(":")
                except ValueError:
                    continue  # Latin-1, of an old server: nothing that matters
                if line[:1] not in b" \t":  # else folded: the end of the value before
                    name = name.lower()
                    value = value.strip()
                    ok = colon and name == name.strip()
                    if name == "content-length":  # decides whether the body is whole
                        ok = value.encode().isdigit() and headers.get(name, value) == value
                    if not ok:
                        raise OSError(71)
                    if size < 2048 or name in _ALWAYS:
                        headers[name] = value
        self.status = status
        length = int(headers.get("content-length", -1))
        if status in (101, 204, 304):
            length = 0
        elif headers.get("transfer-encoding", "").lower()[-7:] == "chunked":
            length = -1
            while length:
                line = yield from self._line()
                line = line.split(b";")[0].strip()
                if not line or line.strip(b"0123456789abcdefABCDEF"):
                    raise OSError(71)
                length = int(line, 16)
                yield from self._body(length)
                if length and (yield from self._line()):
                    raise OSError(71)  # longer than it said
            while (yield from self._line()):
                pass  # trailers
        yield from self._body(length)
        self._whole = True

    def _body(self, left):
        # `left` bytes; below 0 all, to the end of the stream.
        self.left = left
        while left:
            n = len(self.rest)
            if 0 <= left < n:
                n = left
            self.start += self.rest[: min(n, 512 - len(self.start))]
            self.rest = self.rest[n:]
            if left > 0:
                self.left = left = left - n
            if left:
                if self._more:
                    yield
                elif left < 0:
                    return
                else:
                    raise OSError(104)
