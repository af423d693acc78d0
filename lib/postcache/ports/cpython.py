"""
CPython on a POSIX system: os.fdatasync, http.client, threads.

Durability rules: fsync(2) for the bytes, and an fsync of the directory for a new name. The total
deadline of an exchange is kept by setting the socket's timeout to what is left before every call
that can wait; http.client alone would grant the full timeout to every single byte.
"""

import atexit
import collections
import errno
import fcntl
import http.client
import io
import json
import os
import select
import socket
import ssl
import threading
import time
import weakref
from base64 import b64encode
from urllib.parse import unquote, urlsplit

from ..line import OVERHEAD

SEGMENT = 256 * 1024  # bytes of a full segment; the longest record fits into one
BLOCK = 512  # bytes of a full segment at least
RESERVE = 1 << 20  # bytes of the file system that no log may count on
MAX_BYTES = 1 << 30  # default cap of what a log may take
BATCH = 512 * 1024  # bytes of a batch; servers often take no more than 1 MiB
BUFFER = BATCH  # a batch up to this size is kept in RAM between its tries
CHUNK = 65536
START = 512  # bytes of an answer's body that are kept

Lock = threading.Lock


def const(value):
    """MicroPython's micropython.const: here the value itself."""
    return value


# --- JSON ---


def _refuse(name):
    raise ValueError("%s is no JSON" % name)


def dumps(value, kwargs=None):
    """
    Return `value` as bytes of JSON text on one line.

    Args:
        value: what `json.dumps` takes, but for NaN and infinity, which no JSON parser has to
            accept.
        kwargs: dict, further arguments of `json.dumps`.

    Raises ValueError for anything that is not JSON, also if it came out of a custom encoder.
    """
    try:
        if not kwargs:
            return json.dumps(value, allow_nan=False).encode()
        kwargs["allow_nan"] = False
        text = json.dumps(value, **kwargs)
        json.loads(text, parse_constant=_refuse)
        # A raw newline in valid JSON text is white space between tokens: indent= makes them.
        return text.replace("\r", " ").replace("\n", " ").encode()
    except (TypeError, RecursionError, AttributeError) as e:
        raise ValueError("not JSON: %s" % e) from None


# --- Files ---

_open_directories = weakref.WeakSet()


def _after_fork():
    # A child that kept the descriptor would keep the lock after its parent's death.
    for directory in list(_open_directories):
        directory.close()
        directory.path = None


os.register_at_fork(after_in_child=_after_fork)


def _sync(fd):
    full = getattr(fcntl, "F_FULLFSYNC", None)
    if full is not None:  # macOS: fsync(2) stops at the drive's cache
        fcntl.fcntl(fd, full)
    else:
        os.fdatasync(fd)


class _File:
    """A handle for appending. Unbuffered: what write() returned from is in the kernel's hands."""

    def __init__(self, fd):
        self._fd = fd

    def write(self, data):
        n = os.write(self._fd, data)
        while n < len(data):  # a disk that is almost full takes a part, and reports with the rest
            data = data[n:]
            n = os.write(self._fd, data)

    def flush(self):
        _sync(self._fd)

    def close(self):
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    __del__ = close


class Directory:
    """
    The files of one log, durable when a call returns; one owner at a time.

    Args:
        path: str or os.PathLike; made, with its parents, if it is missing.

    Raises OSError when something else is in the way or the directory has an owner already.
    """

    slot_size = 0  # no slots unless somebody asks for them: a disk has no littlefs

    def __init__(self, path):
        self._lock = None
        self._named = set()  # small files whose names are durable
        if not path or path == ":memory:":
            raise ValueError("cache_path: a directory on a disk")
        self.path = os.path.abspath(os.fspath(path))
        self._make(self.path)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        try:
            self._lock = os.open(self.path + "/lock", flags, 0o666)
        except OSError:
            # A card that became read-only: what is on it can still be sent, and needs a lock, too.
            self._lock = os.open(self.path + "/lock", os.O_RDONLY | os.O_CLOEXEC)
        try:
            # The kernel drops it with the process, however that ends.
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            self.close()
            if e.errno in (11, 13, 35):
                raise OSError(16, "in use by another POSTCache or process", self.path) from None
            raise
        _open_directories.add(self)

    def _make(self, path):
        if os.path.isdir(path):
            return
        if os.path.lexists(path):
            raise OSError(
                20, "a file is in the way (an old SQLite cache?); name a directory", path
            )
        self._make(os.path.dirname(path))
        try:
            self._mkdir(path)
        except FileExistsError:
            pass

    def _mkdir(self, path):
        os.mkdir(path)
        try:
            self._sync_directory(os.path.dirname(path))
        except OSError:
            os.rmdir(path)  # else the next try would find it, and take its name for durable
            raise

    def _name(self, name):
        if self._lock is None:  # a late thread: another instance may be the owner by now
            raise OSError(9, "closed")
        return self.path + "/" + name

    @staticmethod
    def _sync_directory(path):
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def check(self):
        """Raise OSError in a forked child: two processes cannot share a log."""
        if not self.path:
            raise OSError(16, "this log was opened before a fork; open one in each process")

    def close(self):
        """Let others open it."""
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    __del__ = close

    def files(self):
        """Return (name, bytes) of each file here, but for those that cannot be ours."""
        with os.scandir(self.path) as entries:
            return [
                (entry.name, self.size(entry.name))
                for entry in entries
                if len(entry.name) < 24 and entry.name.isascii() and entry.is_file()
            ]

    def size(self, name):
        """Return the size of file `name` in bytes."""
        return os.stat(self._name(name)).st_size

    def open(self, name, mode):
        """
        Open file `name`.

        Args:
            mode: "rb" for a binary reader with seek, read, readline and close; "ab" or "wb" for a
                handle with write(data), flush() and close(). flush() makes durable what was
                written; the name of a new file is durable when open returns.
        """
        if mode == "rb":
            return open(self._name(name), "rb", CHUNK)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        if mode == "wb":
            flags |= os.O_TRUNC
        file = _File(os.open(self._name(name), flags, 0o666))
        self._sync_directory(self.path)
        return file

    def put(self, name, data):
        """
        Write a small file in place.

        In place and at a fixed size, so that a full disk takes it; not atomic, which is why the
        caller keeps two copies, or writes only to a file that nobody needs.
        """
        name = self._name(name)
        data = data.ljust(128, b"\n")
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            if os.pwrite(fd, data, 0) < len(data):
                raise OSError(28, "no space", name)
            os.ftruncate(fd, len(data))
            _sync(fd)
        finally:
            os.close(fd)
        if name not in self._named:
            folder = os.path.dirname(name)
            self._sync_directory(folder)
            if folder != self.path:
                self._sync_directory(self.path)  # who made it may have been killed before that
            self._named.add(name)

    def remove(self, name):
        """
        Remove a file; none there is fine.

        A slot is durably gone when this returns: what a failed write left there must not come
        back. A segment or its like need not be: nothing in it counts any more.
        """
        path = self._name(name)
        self._named.discard(path)
        try:
            os.remove(path)
        except FileNotFoundError:
            pass
        if "/" in name:
            self._sync_directory(os.path.dirname(path))

    def make(self, name):
        """Make a directory in this one; one that is there is fine."""
        try:
            os.mkdir(self._name(name))
        except FileExistsError:
            pass
        self._sync_directory(self.path)

    def free(self):
        """Return the bytes that are free for us on this file system."""
        stat = os.statvfs(self.path)
        return stat.f_bavail * stat.f_frsize


def forget(name):
    """Modules that were needed only once stay: there is room, and another thread may be in one."""


# --- Clock, thread, loop ---

_SET = 1735689600  # 2025-01-01: what is before it nobody has set


class Clock:
    """The system's clock."""

    def ticks_ms(self):
        """Return milliseconds that only grow."""
        return time.monotonic_ns() // 1_000_000

    def unix(self):
        """Return seconds since 1970, an int; None while the clock has not been set."""
        now = int(time.time())
        return now if now >= _SET else None


class Group:
    """
    Group commit: threads that append at the same time share one write and one sync.

    Whoever gets the lock leads: takes what is queued and stores it for all. The others sleep on
    locks of their own until their records are stored or it is their turn to lead; at one lock for
    all they would wake up one after the other. Waking is for speed only: who is not woken, because
    Ctrl-C hit the leader, looks for itself after a moment.

    Args:
        log: with append(payloads), which stores a list and returns the number of the last one, and
            max_record. A group is not longer than the longest record, or it would outgrow a
            segment.
    """

    def __init__(self, log):
        self._log = log
        self._leading = threading.Lock()
        self._appointed = False  # somebody has been woken to lead
        self._queue = collections.deque()

    def __call__(self, payloads):
        """Store `payloads`; return the number of the last, or raise what its commit raised."""
        entry = _Entry(payloads)
        self._queue.append(entry)
        if self._leading.locked() or self._appointed:
            while not entry.wake.acquire(timeout=0.1) and self._leading.locked():
                pass  # a slow disk: whoever leads has this one in the group, or in the next
        if entry.result is None:
            with self._leading:
                self._appointed = False
                while entry.result is None:
                    self._commit()
            # The next leader is one that came while this one led. Were it this one again, with its
            # next record, it would lead a group of its own while the others wake up.
            following = list(self._queue)[:1]
            self._appointed = bool(following)
            self._wake(following)
        if isinstance(entry.result, BaseException):
            raise entry.result
        return entry.result

    def _commit(self):
        if not self._queue:
            raise OSError(4, "interrupted")  # the thread that took this one's record from it
        group = []
        size = 0
        failure = OSError(4, "interrupted")
        try:
            while self._queue:
                size += self._queue[0].size
                if group and size > self._log.max_record:
                    break
                group.append(self._queue.popleft())
            last = self._log.append([payload for entry in group for payload in entry.payloads])
            for entry in reversed(group):
                entry.result = last
                last -= len(entry.payloads)
        except Exception as e:
            failure = e
        finally:
            for entry in group:
                if entry.result is None:
                    entry.result = failure
            self._wake(group)

    @staticmethod
    def _wake(entries):
        for entry in entries:
            try:
                entry.wake.release()
            except RuntimeError:
                pass  # awake already


class _Entry:
    """Payloads on their way through a Group, together."""

    __slots__ = ("payloads", "result", "size", "wake")

    def __init__(self, payloads):
        self.payloads = payloads
        self.size = sum(len(payload) + OVERHEAD for payload in payloads)
        self.result = None  # its number, or the exception of its commit
        self.wake = threading.Lock()  # held until it is stored, or has to lead
        self.wake.acquire()


class Worker:
    """
    A daemon thread that sends what is due.

    Args:
        cache: a POSTCache; closed at interpreter exit, while threads still run.
    """

    def __init__(self, cache):
        self._cache = cache
        self._at_exit = at_exit = cache.close
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="postcache", daemon=True)
        atexit.register(at_exit)
        self._thread.start()

    def _run(self):
        cache = self._cache
        outbox = cache._outbox
        while True:
            while not cache._closed and not outbox.wait_ms():
                with cache._sending:
                    outbox.send(cache._timeout)
            if self._stop.wait(max(1, outbox.wait_ms()) / 1000):
                return

    def stop(self, ms, abort):
        """
        Ask the thread to end and wait for it, `ms` milliseconds at most.

        `abort` is called when it takes longer than half of that: an exchange hangs.
        """
        self._stop.set()
        atexit.unregister(self._at_exit)
        if self._thread is not threading.current_thread():
            self._thread.join(max(0, ms) / 2000)
            if self._thread.is_alive():
                abort()
                self._thread.join(max(0, ms) / 2000)


async def offload(call):
    """Await a blocking call without holding up the event loop."""
    import asyncio  # heavy, and most loggers have no event loop

    await asyncio.get_running_loop().run_in_executor(None, call)


# --- HTTP ---


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


class _Limit:
    """The one deadline of an exchange; waits for it in slices when somebody is to be fed."""

    def __init__(self, timeout, feed):
        self._end = time.monotonic() + timeout
        self._feed = feed

    def left(self):
        """Return the seconds that the next call may wait; raise when there are none left."""
        if self._feed:
            self._feed()
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError(110, "no whole answer within the timeout")
        return min(left, 0.9) if self._feed else left

    def call(self, sock, function, *args):
        """Return function(*args), which waits for `sock`."""
        while True:
            sock.settimeout(self.left())
            try:
                return function(*args)
            except socket.timeout as e:
                if e.errno:  # not of settimeout, but of TCP
                    raise


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
        self._turn = 0  # the address to begin with
        self._tls = _trust(cafile, verify) if urlsplit(text).scheme == "https" else None
        self._feed = feed

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
        limit = _Limit(timeout, self._feed)
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
        for family, kind, proto, _, address in self._addresses(parts.hostname, port, limit):
            sock = socket.socket(family, kind, proto)
            try:
                self._reach(sock, address, limit)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if parts.scheme == "https":
                    sock = self._tls.wrap_socket(
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
                self._turn += 1
                limit.left()  # raises when the time is up: the next try has the next address
            except BaseException:
                sock.close()
                raise
        raise failure or OSError(113, "no address for the host")

    def _addresses(self, host, port, limit):
        # One that swallows everything takes the whole timeout: the next try begins behind those
        # that have failed, or a host with a dead IPv6 address would never be reached.
        found = self._resolve(host, port, limit)
        turn = self._turn % max(1, len(found))
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
