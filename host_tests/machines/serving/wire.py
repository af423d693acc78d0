"""One accepted TCP connection, or the TLS stream in it, that can be ended from any thread.

The socket never blocks. Every wait is a poll() on the socket and on a wake-up pair, so that
stop(), down() and release() of the server reach a thread wherever it waits, and only the thread
itself ever closes the socket: closing under another thread's recv() neither wakes it nor is safe.
"""

import select
import socket
import ssl
import struct
import time

_RECV = 256 * 1024  # bytes asked for at once
_LINGER = 5  # seconds drain() waits for the client to close too
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 s: close() sends RST
_RDHUP = getattr(select, "POLLRDHUP", 0)  # Linux; elsewhere POLLHUP, always reported, does


class Gone(Exception):
    """The client left, or the server ends this connection."""


class Wire:
    """What a connection's thread reads from and writes to.

    buffer: bytes that have been received and not been used yet.
    """

    def __init__(self, accepted):
        self.buffer = bytearray()
        self._socket = accepted
        self._aborted = False
        accepted.setblocking(False)
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_out.setblocking(False)
        self._wake_in.setblocking(False)
        self._readable = self._poll(select.POLLIN)
        self._writable = self._poll(select.POLLOUT)
        self._leaving = self._poll(_RDHUP)

    def abort(self):
        """From any thread: let whatever the connection's thread does end with Gone."""
        self._aborted = True
        self.wake()

    def wake(self):
        """From any thread: let the waiting thread look around."""
        try:
            self._wake_in.send(b"x")
        except OSError:
            pass  # full means it will wake anyway; closed means it is gone

    def close(self, reset=False):
        """Close the sockets, with an RST if told so; once is enough, twice does no harm."""
        try:
            if reset:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        except OSError:
            pass
        finally:
            for end in (self._socket, self._wake_in, self._wake_out):
                end.close()

    def narrow(self, size):
        """Set SO_RCVBUF, in bytes."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)

    # Waiting

    def check(self):
        """Raise Gone if the connection has been ended."""
        if self._aborted:
            raise Gone

    def wait_readable(self, seconds=None):
        """True if there is something to read; False if woken, or after seconds."""
        return self._wait(self._readable, seconds)

    def wait_leaving(self, seconds=None):
        """True if the client has closed; False if woken, or after seconds."""
        return self._wait(self._leaving, seconds)

    def wait_byte(self):
        """Wait for the first byte of a request, or for the end of the connection."""
        while not (self.buffer or self._pending() or self.wait_readable()):
            pass

    def peek(self):
        """Whether there is a byte; over TLS it has to be read, with what came along with it."""
        if self.buffer or isinstance(self._socket, ssl.SSLSocket):
            return bool(self.buffer) or self.fill()
        try:
            return bool(self._socket.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return True

    def _poll(self, events):
        poll = select.poll()
        poll.register(self._socket, events)
        poll.register(self._wake_out, select.POLLIN)
        return poll

    def _wait(self, poll, seconds=None):
        ready = False
        milliseconds = None if seconds is None else max(0, seconds * 1000)
        for fd, _ in poll.poll(milliseconds):
            if fd == self._socket.fileno():
                ready = True
            else:
                try:
                    self._wake_out.recv(4096)
                except BlockingIOError:
                    pass
        self.check()
        return ready

    def _pending(self):
        # Decrypted already: poll() knows nothing of it.
        return isinstance(self._socket, ssl.SSLSocket) and self._socket.pending()

    # Reading and sending

    def receive(self, size=_RECV):
        """Bytes from the client, past the buffer; b"" when it has closed."""
        while True:
            if self._pending() or self.wait_readable():
                try:
                    return self._socket.recv(min(size, _RECV))
                except (BlockingIOError, ssl.SSLWantReadError):
                    pass
                except ssl.SSLWantWriteError:
                    self._wait(self._writable)

    def fill(self):
        """Receive into the buffer; False when the client has closed."""
        data = self.receive()
        self.buffer += data
        return bool(data)

    def take(self, count):
        """Up to count bytes of the buffer, or received; b"" when the client has closed."""
        if not self.buffer:
            return self.receive(count)
        data = bytes(self.buffer[:count])
        del self.buffer[:count]
        return data

    def send(self, data):
        view = memoryview(data)
        while view:
            self.check()
            try:
                view = view[self._socket.send(view) :]
            except (BlockingIOError, ssl.SSLWantWriteError):
                self._wait(self._writable)
            except ssl.SSLWantReadError:
                self._wait(self._readable)

    def drip(self, data, interval):
        """Send single bytes, interval seconds apart; Gone if the client leaves meanwhile."""
        for at in range(len(data)):
            self.send(data[at : at + 1])
            until = time.monotonic() + interval
            while True:
                left = until - time.monotonic()
                if left <= 0:
                    break
                if self.wait_leaving(left):
                    raise Gone

    def drain(self):
        """Close our side, then read until the client closes too, so that no RST is sent.

        Returns how many bytes came.
        """
        self._socket.shutdown(socket.SHUT_WR)
        count = len(self.buffer)
        until = time.monotonic() + _LINGER
        while time.monotonic() < until:
            if self.wait_readable(until - time.monotonic()):
                try:
                    data = self._socket.recv(_RECV)
                except OSError:
                    break
                if not data:
                    break
                count += len(data)
        return count

    # TLS

    def handshake(self, context):
        """Begin a TLS stream as its server; OSError if there is no agreement."""
        self._socket = context.wrap_socket(
            self._socket, server_side=True, do_handshake_on_connect=False
        )
        while True:
            try:
                self._socket.do_handshake()
                return
            except ssl.SSLWantReadError:
                self._wait(self._readable)
            except ssl.SSLWantWriteError:
                self._wait(self._writable)

    def say_goodbye(self):
        """End a TLS stream in order, as far as that can be said without waiting."""
        if isinstance(self._socket, ssl.SSLSocket):
            try:
                self._socket.unwrap()
            except (OSError, ValueError):
                pass  # it waits for the client's, which need not come
