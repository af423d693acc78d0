"""HTTP on http.client, with one deadline, a kept-alive connection and verified certificates."""

import errno
import http.client
import io
import os
import select
import socket
import ssl
import threading
from base64 import b64encode
from urllib.parse import unquote, urlsplit

from .deadline import Deadline

CHUNK = 65536
START = 512  # bytes of an answer's body that are kept


class _Raw(io.RawIOBase):
    """A socket's bytes, read in time."""

    def __init__(self, sock, limit):
        self._sock = sock
        self._limit = limit
        self.ended = False

    def readable(self):
        return True

    def readinto(self, buffer):
        if self.ended:
            return 0
        return self._limit.call(self._sock, self._sock.recv_into, buffer)


class _Reader(io.BufferedReader):
    """
    A strict reader of one answer.

    http.client takes an end of file for the end of the head, and forgets on close() what it read
    too much; both would let an answer that was cut short, or one that nobody asked for, count.
    """

    def __init__(self, raw):
        super().__init__(raw, CHUNK)
        self._source = raw
        self.surplus = False

    def readline(self, size=-1):  # pyright: ignore[reportIncompatibleMethodOverride]
        line = super().readline(size)
        if not line.endswith(b"\n") and (size < 0 or len(line) < size):
            raise ConnectionResetError(104, "answer cut short")
        return line

    def close(self):
        if not self.closed:
            self._source.ended = True
            self.surplus = bool(self.peek(1))
        super().close()


class _Response(http.client.HTTPResponse):
    """http.client takes an interim answer (RFC 9110, 15.2) other than 100 for the last one."""

    def _read_status(self):
        while True:
            answer = super()._read_status()  # pyright: ignore[reportAttributeAccessIssue]
            if answer[1] in (100, 101) or answer[1] >= 200:
                return answer
            while self.fp.readline(CHUNK) not in (b"\r\n", b"\n"):
                pass


class _Wire:
    """What http.client is given for a socket during one exchange."""

    def __init__(self, sock, limit):
        self._sock = sock
        self._limit = limit
        self.reader = None

    def sendall(self, data):
        data = memoryview(data)
        while data:
            data = data[self._limit.call(self._sock, self._sock.send, data) :]

    def makefile(self, *args, **kwargs):
        self.reader = _Reader(_Raw(self._sock, self._limit))
        return self.reader

    def close(self):
        pass


def _trust(cafile, verify):
    """Return the ssl.SSLContext for the arguments of Http."""
    if not cafile and verify:
        return ssl.create_default_context()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if cafile:
        with open(cafile, "rb") as f:
            data = f.read()
        try:
            # As str it is PEM, as bytes DER. Around PEM may stand comments in any encoding.
            pem = b"-----BEGIN" in data
            context.load_verify_locations(cadata=data.decode("ascii", "ignore") if pem else data)
        except (ssl.SSLError, ValueError):
            raise ValueError(
                "cafile: not one or more whole certificates in PEM, or one in DER"
            ) from None
        # What is named there is trusted, also if another authority has signed it, as on a board.
        # (VERIFY_X509_PARTIAL_CHAIN has a name since Python 3.10.)
        context.verify_flags |= ssl.VerifyFlags(0x80000)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class Http:
    """
    `http.client` with one deadline for everything, a kept-alive connection, verified certificates.

    One exchange at a time; no redirect is followed and no proxy setting is read.

    Args:
        url: str, http:// or https://.
        cafile: str, path of the certificates that are trusted, PEM or DER, in place of the
            system's; read once, here.
        verify: False takes any certificate: the server may be anybody.
        feed: None, or a callable for a watchdog: called at least once a second while the client
            waits, and between the chunks of the body.

    Raises ValueError for a bad URL or bad certificates, OSError for a file that cannot be read.
    """

    def __init__(self, url, cafile=None, verify=True, feed=None):
        text = url if isinstance(url, str) else ""
        try:
            parts = urlsplit(text)
            ok = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            ok = False
        if not ok or min(text) <= " " or max(text) > "~":
            # Not repeated here: it may hold a secret.
            raise ValueError("http_endpoint: an http:// or https:// URL in ASCII, or None")
        self._sock = self._peer = self._resolver = None
        self.turn = 0  # the address to begin with
        self.tls = _trust(cafile, verify) if urlsplit(text).scheme == "https" else None
        self.feed = feed

    def post(self, url, headers, chunks, timeout):
        """
        POST and wait for the whole answer.

        Args:
            url: str, http:// or https:// as the one that this object was made with.
            headers: dict of str; Content-Length among them.
            chunks: iterable of bytes, the body.
            timeout: seconds for the whole exchange.

        Returns `(status, headers, start)`: int, a dict with lower-case names, and the first bytes
        of the body, 512 at most. Raises OSError unless a whole answer arrived before the deadline.
        """
        limit = Deadline(timeout, self.feed)
        parts = urlsplit(url)
        peer = (parts.scheme, parts.hostname, parts.port)
        try:
            if self._sock is None or self._peer != peer or self._stale(self._sock):
                self.close()
                self._sock = self._connect(parts, limit)
                self._peer = peer
            answer, keep = self._exchange(parts, headers, chunks, limit)
            if not keep:
                self.close()
            return answer
        except http.client.HTTPException as e:
            self.close()
            raise OSError(71, "bad answer: %s" % type(e).__name__) from None
        except BaseException:
            self.close()
            raise

    async def apost(self, url, headers, chunks, timeout):
        """Do what post() does on asyncio's streams; see `streams`."""
        from .streams import apost

        return await apost(self, url, headers, chunks, timeout)

    def close(self):
        """Drop the connection; a post in another thread ends with an OSError."""
        sock, self._sock = self._sock, None
        if sock is not None:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            sock.close()

    @staticmethod
    def _stale(sock):
        # Between exchanges a server has nothing to say: it is an end of file, or not our answer.
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        return bool(poll.poll(0))

    def _connect(self, parts, limit):
        port = parts.port or (443 if parts.scheme == "https" else 80)
        failure = None
        for family, kind, proto, _, address in self.addresses(parts.hostname, port, limit):
            sock = socket.socket(family, kind, proto)
            try:
                self._reach(sock, address, limit)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if parts.scheme == "https":
                    sock = self.tls.wrap_socket(
                        sock,
                        server_hostname=parts.hostname,
                        do_handshake_on_connect=False,
                        # A stream that ends without a goodbye may have been cut.
                        suppress_ragged_eofs=False,
                    )
                    limit.call(sock, sock.do_handshake)
                return sock
            except OSError as e:
                sock.close()
                failure = e
                self.turn += 1
                limit.left()  # raises when the time is up: the next try has the next address
            except BaseException:
                sock.close()
                raise
        raise failure or OSError(113, "no address for the host")

    def addresses(self, host, port, limit):
        """Return what getaddrinfo() finds for `host`, the one to try first in front."""
        # One that swallows everything takes the whole timeout: the next try begins behind those
        # that have failed, or a host with a dead IPv6 address would never be reached.
        found = self._resolve(host, port, limit)
        turn = self.turn % max(1, len(found))
        return found[turn:] + found[:turn]

    @staticmethod
    def _reach(sock, address, limit):
        sock.setblocking(False)
        error = sock.connect_ex(address)
        if error in (errno.EINPROGRESS, errno.EINTR):
            poll = select.poll()
            poll.register(sock, select.POLLOUT)
            while not poll.poll(limit.left() * 1000):
                pass
            error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))

    def _resolve(self, host, port, limit):
        # getaddrinfo knows no timeout, so it waits in a thread of its own, one at the most.
        if self._resolver and self._resolver.is_alive():
            raise TimeoutError(110, "the last name look-up still hangs")
        found = []

        def resolve():
            try:
                found.append(socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM))
            except Exception as e:  # UnicodeError for an impossible name, too
                found.append(OSError(-2, "name look-up failed: %s" % type(e).__name__))

        try:
            socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
            resolve()
        except OSError:
            self._resolver = threading.Thread(target=resolve, name="postcache-dns", daemon=True)
            try:
                self._resolver.start()
                while self._resolver.is_alive():
                    self._resolver.join(limit.left())
            except RuntimeError:  # Python 3.12 starts no thread once the program is ending
                self._resolver = None
                resolve()
        if isinstance(found[0], OSError):
            raise found[0]
        return found[0]

    def _exchange(self, parts, headers, chunks, limit):
        wire = _Wire(self._sock, limit)
        connection = http.client.HTTPConnection(parts.hostname, parts.port)
        connection.sock = wire
        connection.response_class = _Response
        path = parts.path or "/"
        if parts.query:
            path += "?" + parts.query
        if parts.port is None:
            connection.putrequest("POST", path, skip_accept_encoding=True, skip_host=True)
            host = parts.hostname
            connection.putheader("Host", "[%s]" % host if ":" in host else host)
        else:
            connection.putrequest("POST", path, skip_accept_encoding=True)
        if parts.username is not None:  # RFC 7617, as in http://user:password@host/
            user = "%s:%s" % (unquote(parts.username), unquote(parts.password or ""))
            connection.putheader("Authorization", "Basic " + b64encode(user.encode()).decode())
        for name, value in headers.items():
            connection.putheader(name, value)
        failure = None
        try:
            pending = bytearray()
            started = False
            left = int(headers["Content-Length"])
            for chunk in chunks:
                limit.left()
                pending += chunk
                left -= len(chunk)
                # All of it is sent before the next chunk is asked for: behind the last one the
                # outbox does other work, and the server can do its own in the meantime.
                if len(pending) >= CHUNK or left <= 0:
                    if started:
                        wire.sendall(pending)
                    else:
                        connection.endheaders(bytes(pending))
                        started = True
                    pending = bytearray()
        except (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError) as e:
            failure = e  # a server may refuse before it has read everything: see what it said
        response = connection.getresponse()
        status = response.status
        if failure and 200 <= status < 300:
            raise failure  # it cannot have taken what it has not read
        start = b""
        data = response.read(CHUNK)
        while data:
            start += data[: START - len(start)]
            data = response.read(CHUNK)
        if response.length:  # read(amount) says nothing when it gets less
            raise ConnectionResetError(104, "answer cut short")
        keep = status >= 200 and not (failure or response.will_close or wire.reader.surplus)
        response.close()
        return (status, {k.lower(): v.strip() for k, v in response.getheaders()}, start), keep
