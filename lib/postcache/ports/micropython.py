"""
MicroPython: flush is sync, `requests` for http://, everything cooperative.

Durability rules: f.flush() commits on every MicroPython file system (littlefs: lfs_file_sync, FAT:
f_sync, the unix port: fsync); there is no os.fsync and no directory sync to call.
"""

import json
import os
import socket
import sys
import time

from micropython import const  # noqa: F401

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


class Clock:
    """The board's clock."""

    def __init__(self):
        self._ms = 0
        self._ticks = time.ticks_ms()

    def ticks_ms(self):
        """Return milliseconds that only grow, past the 12 days after which the port's own wrap."""
        ticks = time.ticks_ms()
        self._ms += time.ticks_diff(ticks, self._ticks)
        self._ticks = ticks
        return self._ms


# No threads: whoever wants to send calls poll(), and there are no commits that could be grouped.
Worker = Group = None


# --- HTTP ---


class Http:
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

    def __init__(self, url):
        if url[:7] != "http://" or "@" in url:
            # Not repeated here: it may hold a secret.
            raise ValueError("http_endpoint: http:// only")
        import requests  # frozen into the firmware of boards with a network

        self._lib = requests

    def post(self, url, headers, chunks, timeout):
        """
        POST and wait for the whole answer.

        Args:
            url: str, http:// only: requests cannot verify a certificate.
            headers: dict of str; Content-Length among them.
            chunks: generator of bytes, the body.
            timeout: seconds for the whole exchange, but for the name look-up, which has none.

        Returns `(status, headers)`: int, and a dict with lower-case names. Raises OSError unless a
        whole answer arrived before the deadline.
        """
        requests = self._lib
        self._end = time.ticks_add(time.ticks_ms(), int(timeout * 1000))
        self._in = b""
        self._out = bytearray()
        self.headers = {}
        self.status = 0
        requests.socket = self
        try:
            requests.request("POST", url, data=chunks, headers=headers)
            self._drain()
        finally:
            requests.socket = socket
            self.close()
        return self.status, self.headers

    def _ready(self):
        left = time.ticks_diff(self._end, time.ticks_ms())
        if left <= 0:
            raise OSError(110)
        self._socket.settimeout(left / 1000)
        return self._socket

    def socket(self, *args):
        self._socket = socket.socket(*args)
        return self

    def connect(self, address):
        self._ready().connect(address)

    def write(self, data):
        # requests writes a header in four pieces: collected, or each would be a packet.
        self._out += data
        if len(self._out) > 512:
            self._flush()

    def _flush(self):
        data = memoryview(self._out)
        self._out = bytearray()
        while data:
            data = data[self._ready().send(data) :]

    def _more(self):
        data = self._ready().recv(256)
        if not data:
            raise OSError(104)  # cut short
        self._in += data

    def _line(self):
        while b"\n" not in self._in:
            if len(self._in) > 4096:
                raise OSError(71)  # EPROTO: an endless line
            self._more()
        line, self._in = self._in.split(b"\n", 1)
        return line.strip()

    def readline(self):
        if self.status:
            return b"\r\n"
        self._flush()
        status = 0
        while status < 200:  # RFC 9110, 15.2: interim answers, any number of them
            line = self._line()
            # RFC 9112, section 4: HTTP-version SP 3DIGIT SP [reason-phrase]
            if line[:7] != b"HTTP/1." or line[8:9] + line[12:13] not in (b" ", b"  "):
                raise OSError(71)
            try:
                status = int(line[9:12])
            except ValueError:
                raise OSError(71)
            line = self._line()
            while line:
                name, _, value = line.partition(b":")
                name = name.lower()
                if name in (b"content-length", b"transfer-encoding", b"retry-after", b"date"):
                    self.headers[name.decode()] = value.strip().decode()
                line = self._line()
        self.status = status
        return b"HTTP/1.0 %d\r\n" % status

    def _drain(self):
        # An answer that was cut short is none, so its body is read to the end it announces.
        length = self.headers.get("content-length", 0)
        chunked = "transfer-encoding" in self.headers
        try:
            while True:
                if chunked:
                    length = int(self._line().split(b";")[0], 16)
                n = int(length)
                while n > len(self._in):
                    n -= len(self._in)
                    self._in = b""
                    self._more()
                self._in = self._in[n:]
                if not chunked:
                    return
                self._line()
                chunked = length
        except ValueError:
            raise OSError(71)

    def close(self):
        if self._socket:
            self._socket.close()
