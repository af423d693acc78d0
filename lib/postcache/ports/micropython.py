"""
MicroPython: flush is sync, `requests` for http://, everything cooperative.

Durability rules: f.flush() commits on every MicroPython file system (littlefs: lfs_file_sync, FAT:
f_sync, the unix port: fsync); there is no os.fsync and no directory sync to call.
"""

import json
import os
import select
import socket
import sys
import time
from errno import EINPROGRESS

from micropython import const

SEGMENT = 8188  # just under two flash blocks: the second one of a littlefs file holds a pointer
BLOCK = 4096  # bytes that a file takes at least, but for those that littlefs keeps in a directory
RESERVE = 32768  # bytes of the file system that no log may count on
MAX_BYTES = 2 << 20  # default cap of what a log may take: keeps the list of segments short
BATCH = 16384  # bytes of a batch: what a slow radio link carries within one timeout
BUFFER = 1024  # a batch up to this size is kept in RAM between its tries


class Lock:
    """No threads here, but a callback may come back in: what is held is held."""

    held = False

    def acquire(self, *args):
        held, self.held = self.held, True
        return not held

    def __enter__(self):
        if not self.acquire():
            raise OSError(16)  # EBUSY: a callback came in between, and may try again later

    def release(self):
        self.held = False

    def __exit__(self, kind, value, trace):  # *args would need memory, when there may be none
        self.held = False


def forget(name):
    """Give back the heap of a module that was needed only once; the next import loads it anew."""
    package, name = name.rsplit(".", 1)
    sys.modules.pop(package + "." + name)
    delattr(sys.modules[package], name)


# --- JSON ---


def _check(value):
    # This json.dumps writes nan, <object>, {2, 1}, {1: 2} and P(a=1) without a word.
    ok = value is None or isinstance(value, (str, int, bool))
    if isinstance(value, float):
        ok = not value - value  # nan, also for infinity
    elif isinstance(value, list) or type(value) is tuple:
        ok = True
        for item in value:
            _check(item)
    elif isinstance(value, dict):
        ok = True
        for key in value:
            ok = ok and isinstance(key, str)
            _check(value[key])
    if not ok:
        raise ValueError("not JSON: %s" % type(value))


def dumps(value, kwargs=None):
    """
    Return `value` as bytes of JSON text on one line.

    Args:
        value: None, bool, int, float, str, list, tuple, or a dict with str keys, nested.
        kwargs: dict, further arguments of `json.dumps`; this one knows `separators`.

    Raises ValueError for anything else.
    """
    try:
        _check(value)
        text = json.dumps(value, **(kwargs or {}))
        if kwargs:
            json.loads(text)
    except (TypeError, RuntimeError):  # RuntimeError: nested too deeply
        raise ValueError("not JSON")
    data = text.encode().replace(b"\n", b" ")
    at = 0
    while True:
        at = data.find(b"\xed", at) + 1
        if not at:
            return data
        if data[at] >= 0xA0:
            # U+D800..DFFF: half of a pair that json.loads() made of "\ud83d\ude00". In UTF-8 that
            # is invalid, and a server would refuse the whole batch; as an escape it is JSON again.
            code = 0xD000 | (data[at] & 0x3F) << 6 | data[at + 1] & 0x3F
            data = data[: at - 1] + b"\\u%04x" % code + data[at + 2 :]


# --- Files ---

_in_use = set()


def _blocks(size):
    # littlefs keeps 128 bytes, at least, in the directory, and each block of a file but the first
    # begins with a pointer, or more.
    return (size + 4087) // 4092 * BLOCK if size > 128 else 0


class Directory:
    """
    The files of one log, durable when a call returns; one owner at a time.

    Args:
        path: str; made, with its parents, if it is missing.

    Raises OSError when something else is in the way or the directory has an owner already.
    """

    def __init__(self, path):
        from .board import prepare

        self.path, self.slot_size = prepare(path, _in_use)
        forget(__name__.replace(".micropython", ".board"))
        _in_use.add(self.path)

    def make(self, name):
        """Make a directory in this one; one that is there is fine."""
        try:
            os.mkdir(self.path + "/" + name)
        except OSError as e:
            if e.errno != 17:  # EEXIST
                raise

    def check(self):
        """Nothing can come between: no processes here."""

    def close(self):
        """Let others open it."""
        _in_use.discard(self.path)

    def files(self):
        """Return (name, bytes that it takes on flash) of each file in the directory."""
        return [
            # To be asked for a size littlefs would search the directory: only POSIX does not tell
            # it at once.
            (name, _blocks(size[0] if size else self.size(name)))
            for name, kind, _, *size in os.ilistdir(self.path)
            if kind == 0x8000
        ]

    def size(self, name):
        """Return the size of file `name` in bytes."""
        return os.stat(self.path + "/" + name)[6]

    def open(self, name, mode):
        """
        Open file `name`, mode "rb", "ab" or "wb".

        What was written is durable, with the file's name, when flush() or close() returned.
        """
        return open(self.path + "/" + name, mode)

    def put(self, name, data):
        """Write a small file; not atomic on every file system, so the caller keeps two copies."""
        with self.open(name, "wb") as f:
            f.write(data)
            f.flush()

    def remove(self, name):
        """Remove a file."""
        os.remove(self.path + "/" + name)

    def free(self):
        """Return the bytes that are free for us on this file system."""
        stat = os.statvfs(self.path)
        # A full littlefs counts past zero: more free blocks than there are.
        return stat[1] * stat[4] if stat[4] <= stat[2] else 0


# --- Clock, threads ---

_PAST = const(1 << 20)  # ms


class Clock:
    """The board's clock."""

    def __init__(self):
        self._ms = 0
        self._ticks = time.ticks_ms()
        self._mask = time.ticks_add(0, -1)  # the port's own wrap after this one

    def ticks_ms(self):
        """
        Return milliseconds that only grow, past the 12 days after which the port's own wrap.

        It has to be asked once in 12 days (every record and every poll() does): how often they
        have wrapped in between nothing else can tell, least of all a clock that is set meanwhile.
        """
        # Nearly all of the period is the future: ticks_diff() would see half of it. Some is the
        # past, for a reader that another one overtakes. No branch: a callback may come in there.
        ticks = time.ticks_ms()
        self._ms += ((ticks - self._ticks + _PAST) & self._mask) - _PAST
        self._ticks = ticks
        return self._ms

    def unix(self):
        """Return seconds since 1970, an int; None while the clock has not been set."""
        from .epoch import unix

        return unix(time)


# No threads: whoever wants to send calls poll(), and there are no commits that could be grouped.
Worker = Group = None


# --- HTTP ---


def Http(url, cafile=None, verify=True, feed=None):  # noqa: N802 - a class on CPython
    """
    Return a client for `url`: `Plain` for http://, `secure.Secure` for https://.

    Args:
        url: str, http:// or https://.
        cafile: str, path of the certificates that are trusted, PEM or DER, for https://.
        verify: False takes any certificate: the server may be anybody.
        feed: None, or a callable for a watchdog: called at least once a second while the client
            waits, but for a name look-up, and while the body is sent.

    Raises ValueError for a bad URL or bad certificates, OSError for a file that cannot be read.
    """
    from .answer import Answer  # noqa: F401 - loaded now, not amid an exchange

    if str(url)[:8] == "https://":
        from .secure import Secure

        return Secure(url, feed, cafile, verify)
    return Plain(url, feed)


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
    _socket = None

    def __init__(self, url, feed):
        from .wire import split

        split(url)
        forget(__name__.replace(".micropython", ".wire"))
        import requests  # frozen into the firmware of boards with a network

        self._lib = requests
        self._feed = feed

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

    def _request(self, url, headers, chunks):
        requests = self._lib
        requests.socket = self
        try:
            requests.request("POST", url, data=chunks, headers=headers)
        finally:
            requests.socket = socket

    def _wait(self, event):
        while True:
            if self._feed:
                self._feed()
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
        from .answer import Answer

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
