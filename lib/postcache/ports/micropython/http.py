"""http:// on MicroPython: the firmware's `requests`, guarded."""

import select
import socket
import time
from errno import EINPROGRESS

from .files import forget


class Plain:
    """
    `requests` (frozen into the firmware), guarded; one connection for each exchange.

    During an exchange this object is what `requests` has for its socket module, and for its
    socket. It leaves requests the URL, the look-up and the writing of the request, and reads the
    answer itself: requests would follow a 302 as a GET and report that one's 200, take
    "HTTP/1.1 20" for a status, leave the socket open after a bad status line, wait anew for each
    byte and fail on a chunked answer. It sees a bare status line and no header.
    """

    SOCK_STREAM = socket.SOCK_STREAM
    getaddrinfo = socket.getaddrinfo
    context = None  # of TLS
    _socket = None

    def __init__(self, url, feed):
        from ..request import split

        split(url)
        forget(__name__.replace("micropython.http", "request"))
        import requests  # frozen into the firmware of boards with a network

        self._lib = requests
        self.feed = feed

    def post(self, url, headers, chunks, timeout):
        """
        POST and wait for the whole answer.

        Args:
            url: str, of the kind that this client was made for.
            headers: dict of str; Content-Length among them.
            chunks: generator of bytes, the body.
            timeout: seconds for the whole exchange, but for the name look-up, which has none.

        Returns `(status, headers, start)`: int, a dict with lower-case names, and the first bytes
        of the body, 512 at most. Raises OSError unless a whole answer arrived before the deadline.
        """
        self._end = time.ticks_add(time.ticks_ms(), int(timeout * 1000))
        self._out = bytearray()
        self._answer = self._broken = None
        try:
            self._request(url, headers, chunks)
        finally:
            self.close()
        answer, self._answer = self._answer, None
        if self._broken and answer.status < 300:
            raise self._broken  # it cannot have taken what it has not read
        return answer.status, answer.headers, answer.start

    async def apost(self, url, headers, chunks, timeout):
        """Do what post() does on asyncio's streams; see `streams`."""
        from .streams import apost

        return await apost(self, url, headers, chunks, timeout)

    def _request(self, url, headers, chunks):
        requests = self._lib
        requests.socket = self
        try:
            requests.request("POST", url, data=chunks, headers=headers)
        finally:
            requests.socket = socket

    def _wait(self, event):
        while True:
            if self.feed:
                self.feed()
            left = time.ticks_diff(self._end, time.ticks_ms())
            if left <= 0:
                raise OSError(110)
            self._poll.register(self._socket, event)
            if self._poll.poll(min(left, 900)):
                return self._socket

    def socket(self, *args):
        self._poll = select.poll()
        self._socket = socket.socket(*args)
        return self

    def connect(self, address):
        self._socket.setblocking(False)
        try:
            self._socket.connect(address)
        except OSError as e:
            if e.errno != EINPROGRESS:
                raise
        self._wait(select.POLLOUT)  # what went wrong comes out of the first write

    def write(self, data):
        # requests writes a header in four pieces: collected, or each would be a packet.
        self._out += data
        if len(self._out) > 512:
            self._flush()

    def _flush(self):
        data = memoryview(self._out)
        self._out = bytearray()
        try:
            while data:
                data = data[self._wait(select.POLLOUT).write(data) or 0 :]
        except OSError as e:
            if e.errno not in (32, 104):
                raise
            self._broken = e  # a server may refuse before it has read everything: see what it said

    def readline(self):
        if self._answer:
            return b"\r\n"
        from ..answer import Answer

        self._flush()
        self._answer = answer = Answer()
        whole = False
        while not whole:
            stream = self._wait(select.POLLIN)
            # No byte more than must come: an error behind a whole answer would hide it.
            data = stream.read(min(answer.left, 256)) if answer.left > 0 else stream.readline(256)
            if data is not None:
                whole = answer.feed(data)
        return b"HTTP/1.0 %d\r\n" % answer.status

    def close(self):
        # Once: on a POSIX system its number may be the log's by the time of a second one.
        sock, self._socket = self._socket, None
        if sock:
            sock.close()
