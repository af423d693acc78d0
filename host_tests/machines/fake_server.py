"""A real HTTP server on loopback that misbehaves on command.

The tests, the demo and the bench send to it. Each request is answered by the next entry of a
script, and an entry can be a plain answer or a failure that real networks produce: a reset, a
hang, a torn answer, a hotspot's login page. http.server is too polite for that, so this one
speaks HTTP/1.0 and 1.1 over plain sockets, one thread per connection.

    client --POST--> Connection (thread) --take the next Answer--> FakeServer.script / .default
                         |  read as much of the request as the Answer wants
                         |  Receiver.take()      if the Answer stores and the body is complete
                         |  FakeServer.requests  now wait_for() can see it
                         |  on_request(request)  the hook of the test
                         +--play the Answer--> client

Receiver is the other half of the protocol: it remembers one number per stream and so has every
record exactly once, however often a batch is repeated. CPython 3.9 or later on a POSIX system,
standard library only; it listens on 127.0.0.1 and nowhere else.

    python host_tests/machines/fake_server.py [--port N] [--status 200]     shows what arrives
"""

import argparse
import collections
import errno
import hashlib
import http
import json
import re
import select
import signal
import socket
import ssl
import struct
import sys
import threading
import time
import traceback
import zlib

MAX_BODY = 64 * 1024 * 1024  # bytes of one request body, also unpacked; more is answered 413
MAX_HEAD = 64 * 1024  # bytes of one request head, and of one chunk-size line
_RECV = 256 * 1024  # bytes asked for at once
_LINGER = 5  # seconds a polite close waits for the client to close too
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 s: close() sends RST
_RDHUP = getattr(select, "POLLRDHUP", 0)  # Linux; elsewhere POLLHUP, always reported, does

LOGIN_PAGE = (
    b"<!DOCTYPE html><html><head><title>Wi-Fi login</title></head><body>"
    b"<form method=post>Accept the terms to go online</form></body></html>"
)

# Answers that are not HTTP, or stop too early to be; played with Answer.raw(BROKEN[name]).
BROKEN = {
    "garbage": b"garbage\r\n\r\n",
    "nothing but a newline": b"\r\n\r\n",
    "status line cut": b"HTTP/1.1 20",
    "status line without end": b"HTTP/1.1 200",
    "status not a number": b"HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n",
    "no status": b"HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
    "head cut after status": b"HTTP/1.1 200 OK\r\n",
    "head cut in a header": b"HTTP/1.1 200 OK\r\nContent-Le",
    "head cut before the end": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n",
    "binary": bytes(range(256)),
}


class _Gone(Exception):
    """The client left, or stop() or down() ends this connection."""


class _BadRequest(Exception):
    """What the client sent is not HTTP, or is too large; status and sentence in args."""


class Answer:
    """One behaviour of the server for one request; immutable in use, so it may be reused.

    status, reason, version, headers, body: the answer itself. headers is a dict or a list of
        pairs; "{base}" in a value becomes the server's http://127.0.0.1:PORT. body is bytes,
        str (UTF-8), or a dict or list, which is sent as JSON.
    length: the Content-Length to announce instead of the right one. Too long: the body is cut
        short by closing. Too short: the extra bytes follow.
    chunked: True, or the number of bytes in each chunk: Transfer-Encoding instead of a length.
    until_close: no length at all; the body ends where the connection does.
    close: close the connection afterwards, and say so in a header unless announce is False.
    interim: statuses of interim answers to send first, such as (100,).
    interval: seconds between single bytes; 0 sends all at once.
    cut: send so many bytes of the body, then end the connection.
    data: raw bytes sent in place of all of the above.
    endless: bytes repeated after the answer until the client leaves, release() or stop().
    read: how much of the request is read before: "all", "head", "nothing", or a number of bytes
        of the body.
    end: what follows the answer: "keep", "close", "reset" (RST) or "hang"; None: as HTTP says,
        but "close" after data or a cut.
    then: the Answer to play when release() ends a hang; None closes.
    rcvbuf: SO_RCVBUF in bytes for this connection, so that a large send soon blocks.
    store: whether the batch is handed to the receiver. None: yes for a 2xx answer whose request
        is read completely, no otherwise. An incomplete body is never stored.
    on_request: callable(request) in the server's thread before this answer is played, after the
        server's own hook.
    """

    def __init__(
        self,
        status=200,
        headers=None,
        body=b"",
        *,
        reason=None,
        version="HTTP/1.1",
        length=None,
        chunked=False,
        until_close=False,
        close=False,
        announce=True,
        interim=(),
        interval=0,
        cut=None,
        data=None,
        endless=None,
        read="all",
        end=None,
        then=None,
        rcvbuf=None,
        store=None,
        on_request=None,
        name=None,
    ):
        if end not in (None, "keep", "close", "reset", "hang"):
            raise ValueError("end must be keep, close, reset, hang or None")
        if read not in ("all", "head", "nothing") and not isinstance(read, int):
            raise ValueError("read must be all, head, nothing or a number of bytes")
        headers = list(headers.items() if isinstance(headers, dict) else headers or ())
        if isinstance(body, (dict, list)):
            body = json.dumps(body)
            if not any(key.lower() == "content-type" for key, _ in headers):
                headers.insert(0, ("Content-Type", "application/json"))
        self.status = status
        self.headers = headers
        self.body = body.encode() if isinstance(body, str) else bytes(body)
        self.reason = _reason(status) if reason is None else reason
        self.version = version
        self.length = length
        self.chunked = 16 if chunked is True else chunked
        self.until_close = until_close
        self.close = close
        self.announce = announce
        self.interim = tuple(interim)
        self.interval = interval
        self.cut = cut
        self.data = data
        self.endless = endless
        self.read = read
        self.end = end
        self.then = then
        self.rcvbuf = rcvbuf
        self.store = (
            data is None and read == "all" and 200 <= status < 300
            if store is None
            else bool(store)
        )
        self.on_request = on_request
        self.name = name or "Answer(%s)" % status

    def __repr__(self):
        return self.name

    @classmethod
    def raw(cls, data, **more):
        """Exactly these bytes instead of an HTTP answer, then close (see BROKEN)."""
        more.setdefault("end", "close")
        more.setdefault("name", "Answer.raw(%r)" % bytes(data[:24]))
        return cls(data=bytes(data), **more)

    @classmethod
    def reset_before(cls, **more):
        """RST as soon as the first byte of the request has come; nothing is read."""
        return cls._silent("reset_before", read="nothing", end="reset", **more)

    @classmethod
    def reset_after(cls, store=False, **more):
        """RST after the whole request; with store=True the batch arrived, the answer is lost."""
        return cls._silent("reset_after", end="reset", store=store, **more)

    @classmethod
    def reset_in_body(cls, count, **more):
        """RST after the head and count bytes of the request's body."""
        return cls._silent("reset_in_body", read=count, end="reset", **more)

    @classmethod
    def close_before(cls, **more):
        """Close in order (FIN, not RST) without looking at the request and without an answer."""
        return cls._silent("close_before", read="nothing", end="close", **more)

    @classmethod
    def close_after(cls, store=False, **more):
        """Close in order after the whole request, without an answer; store as in reset_after."""
        return cls._silent("close_after", end="close", store=store, **more)

    @classmethod
    def close_in_answer(cls, count=5, status=200, body=b"0123456789", **more):
        """Close after count bytes of the answer's body."""
        return cls(status, body=body, cut=count, **_named(more, "close_in_answer", end="close"))

    @classmethod
    def reset_in_answer(cls, count=5, status=200, body=b"0123456789", **more):
        """RST after count bytes of the answer's body."""
        return cls(status, body=body, cut=count, **_named(more, "reset_in_answer", end="reset"))

    @classmethod
    def hang(cls, then=None, store=False, **more):
        """Read the request, then nothing until the client leaves, release() or stop()."""
        return cls._silent("hang", end="hang", then=then, store=store, **more)

    @classmethod
    def hang_before(cls, then=None, rcvbuf=4096, **more):
        """Like hang, but the request stays unread, so that a large send blocks. A client that
        leaves with unsent bytes is not noticed: its FIN waits behind them."""
        return cls._silent(
            "hang_before", read="nothing", end="hang", then=then, rcvbuf=rcvbuf, **more
        )

    @classmethod
    def hang_in_answer(cls, count=5, status=200, body=b"0123456789", **more):
        """Send the head and count bytes of the answer's body, then hang."""
        return cls(status, body=body, cut=count, **_named(more, "hang_in_answer", end="hang"))

    @classmethod
    def drip(cls, interval=0.05, status=200, headers=None, body=b"", **more):
        """The answer, head and all, one byte each interval seconds."""
        return cls(status, headers, body, interval=interval, **_named(more, "drip"))

    @classmethod
    def early(cls, status=413, headers=None, body=b"", rude=False, **more):
        """Answer after the head, before the body, and close; rude=True closes with an RST, which
        may overtake the answer."""
        return cls(
            status,
            headers,
            body,
            read="head",
            close=True,
            **_named(more, "early", end="reset" if rude else "close"),
        )

    @classmethod
    def redirect(cls, status=302, location="{base}/elsewhere", **more):
        """A redirection; the target answers like every other path, by script or default."""
        return cls(status, {"Location": location}, **_named(more, "redirect"))

    @classmethod
    def captive_portal(cls, body=LOGIN_PAGE, **more):
        """What a hotspot says to everything: 200 and an HTML login page; never stored."""
        more.setdefault("store", False)
        return cls(
            200,
            {"Content-Type": "text/html; charset=utf-8"},
            body,
            **_named(more, "captive_portal"),
        )

    @classmethod
    def captive_redirect(cls, status=302, location="{base}/login", **more):
        """The other kind of hotspot: a redirection to /login, which answers 200 (server.pages)."""
        return cls(
            status,
            {"Location": location, "Cache-Control": "no-store"},
            **_named(more, "captive_redirect"),
        )

    @classmethod
    def with_continue(cls, status=200, headers=None, body=b"", count=1, **more):
        """count times 100 Continue, then the real answer."""
        return cls(status, headers, body, interim=(100,) * count, **_named(more, "with_continue"))

    @classmethod
    def endless_header(cls, interval=0, **more):
        """A good status line, then header lines for ever."""
        return cls.raw(
            b"HTTP/1.1 200 OK\r\n",
            endless=b"X-Filler: " + b"a" * 52 + b"\r\n",
            interval=interval,
            **_named(more, "endless_header"),
        )

    @classmethod
    def endless_line(cls, interval=0, **more):
        """A good status line, then one header line that never ends."""
        return cls.raw(
            b"HTTP/1.1 200 OK\r\nX-Filler: ",
            endless=b"a" * 64,
            interval=interval,
            **_named(more, "endless_line"),
        )

    @classmethod
    def endless_continue(cls, interval=0, **more):
        """100 Continue for ever."""
        return cls.raw(
            b"",
            endless=b"HTTP/1.1 100 Continue\r\n\r\n",
            interval=interval,
            **_named(more, "endless_continue"),
        )

    @classmethod
    def endless_body(cls, interval=0, **more):
        """200, no length, and a body that never ends."""
        return cls.raw(
            b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
            endless=b"x" * 64,
            interval=interval,
            **_named(more, "endless_body"),
        )

    @classmethod
    def _silent(cls, name, **more):
        return cls(data=b"", **_named(more, name))

    def encode(self, request, base, ack=True):
        """The bytes to send and how the connection goes on.

        request: the Request answered; base: what "{base}" in a header stands for; ack: whether
            a stored batch is confirmed by a Postcache-Ack header.
        Returns (bytes, end) with end as in the constructor, never None.
        """
        interim = b"".join(
            b"HTTP/1.1 %d %s\r\n\r\n" % (status, _reason(status).encode())
            for status in self.interim
        )
        if self.data is not None:
            return interim + self.data, self.end or "close"
        body = self._encode_body()
        if self.cut is not None:
            body = body[: self.cut]
        announced = not request.keep_alive or self.until_close or self.close
        head = ["%s %d %s" % (self.version, self.status, self.reason)]
        given = set()
        for key, value in self.headers:
            given.add(key.lower())
            head.append("%s: %s" % (key, str(value).replace("{base}", base)))
        self._add_framing(head, given)
        if ack and request.receipt in ("applied", "duplicate") and "postcache-ack" not in given:
            head.append("Postcache-Ack: %s" % request.headers["postcache-last"])
        if "connection" not in given and self.announce:
            if announced:
                head.append("Connection: close")
            elif request.version == "HTTP/1.0":
                head.append("Connection: keep-alive")
        if request.method == "HEAD":
            body = b""
        short = self.length is not None and self.length > len(self.body)
        ends = announced or short or self.cut is not None
        text = "\r\n".join(head).encode("latin-1") + b"\r\n\r\n"
        return interim + text + body, self.end or ("close" if ends else "keep")

    def _add_framing(self, head, given):
        if self.chunked:
            if "transfer-encoding" not in given:
                head.append("Transfer-Encoding: chunked")
        elif self.until_close or "content-length" in given:
            pass
        elif self.length is not None:
            head.append("Content-Length: %d" % self.length)
        elif self.body or self.status not in (204, 304):  # these two never carry a length
            head.append("Content-Length: %d" % len(self.body))

    def _encode_body(self):
        if not self.chunked:
            return self.body
        parts = []
        for at in range(0, len(self.body), self.chunked):
            part = self.body[at : at + self.chunked]
            parts.append(b"%x\r\n%s\r\n" % (len(part), part))
        return b"".join(parts) + b"0\r\n\r\n"


def _named(more, name, **defaults):
    for key, value in defaults.items():
        more.setdefault(key, value)
    more.setdefault("name", "Answer." + name)
    return more


def _reason(status):
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


class Request:
    """One request as it arrived.

    method, path, version: from the request line; "" when the Answer left the request unread.
    headers: dict with lower-case names; repeated ones are joined by ", ".
    body: bytes, chunked ones decoded, gzip unpacked; b"" when the server keeps no bodies
        (record=False).
    packed: bytes, the body as it came, when it was gzip; else None.
    size: bytes of body that arrived, kept or not.
    complete: whether the whole body arrived.
    answer: the Answer played for it.
    connection: running number of the TCP connection, from 1.
    receipt: what Receiver.take() said, or None.
    """

    __slots__ = (
        "method",
        "path",
        "version",
        "headers",
        "body",
        "packed",
        "size",
        "complete",
        "answer",
        "connection",
        "receipt",
    )

    def __init__(self, method="", path="", version="", headers=None, connection=0):
        self.method = method
        self.path = path
        self.version = version
        self.headers = {} if headers is None else headers
        self.body = b""
        self.packed = None
        self.size = 0
        self.complete = False
        self.answer = None
        self.connection = connection
        self.receipt = None

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

    def json(self):
        """The body as JSON; ValueError if it is none."""
        return json.loads(self.body)


_KEY = re.compile(r'"([^"\\\s]+)-(0|[1-9][0-9]*)-(0|[1-9][0-9]*)"')
_NUMBER = re.compile(r"0|[1-9][0-9]*")
_HEADERS = ("idempotency-key", "postcache-stream", "postcache-first", "postcache-last")


class Receiver:
    """The exactly-once receiver: one number per stream, the highest applied.

    A batch is a run of consecutive sequence numbers, so line i of it is record first + i. One
    whose last number is known is a duplicate; of one that overlaps, only the new lines count.

    key: name of the list of records in the body.
    keep: False keeps counts only, neither records nor lines.
    parse: False trusts the headers and never looks into the body (the bench).
    start: the sequence number a new stream must begin with, or None if any will do.

    records: [(stream, number, record)], each once, in order of arrival.     lines: the records.
    raw_lines: every line of every stored request: what a receiver without memory would have.
    duplicates: batches recognised.   skipped: single lines recognised in overlapping batches.
    gaps: [(stream, expected, got)].  errors: sentences about anything malformed.
    highest: {stream: number}.
    batches, count, raw_count: how many batches were stored, records applied, raw lines seen.
    """

    def __init__(self, key="lines", keep=True, parse=True, start=None):
        self.key = key
        self.keep = keep
        self.parse = parse
        self.start = start
        self.records = []
        self.lines = []
        self.raw_lines = []
        self.duplicates = 0
        self.skipped = 0
        self.gaps = []
        self.errors = []
        self.highest = {}
        self.batches = 0
        self.count = 0
        self.raw_count = 0
        self._digests = {}
        self._lock = threading.Lock()

    def take(self, headers, body, store=True, method="POST"):
        """Check one complete request and, with store, apply it.

        Requests that are answered with an error pass through here with store=False, because a
        retry must repeat the bytes of exactly those (promise D4).
        headers: dict, lower-case names; body: bytes.
        Returns "applied", "duplicate", "malformed", "plain" (no Postcache headers), or "seen"
        (not stored). Never raises for what the client sent.
        """
        problems = []
        batch = None
        plain = not any(name in headers for name in _HEADERS)
        if not plain:
            batch = _batch_numbers(headers, method, problems)
        lines = self._lines_of(headers, body, plain, batch, problems) if self.parse else None
        with self._lock:
            malformed = bool(problems)
            if batch is not None and self.parse and self._other_bytes(batch, body):
                problems.append('batch "%s-%d-%d" came again with other bytes' % batch)
            self.errors.extend(problems)
            if not store:
                return "seen"
            if lines is not None:
                self.raw_count += len(lines)
                if self.keep:
                    self.raw_lines.extend(lines)
            if plain:
                return "malformed" if malformed else "plain"
            self.batches += 1
            return "malformed" if malformed else self._apply(batch, lines)

    def _lines_of(self, headers, body, plain, batch, problems):
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        is_json = kind == "application/json"
        if plain and not is_json:
            return None
        if not is_json:
            problems.append(
                "Content-Type is %r, not application/json" % headers.get("content-type")
            )
        try:
            lines = json.loads(body.decode(), parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            problems.append("bad JSON in %s: %s" % (headers.get("idempotency-key"), error))
            return None
        lines = lines.get(self.key) if isinstance(lines, dict) else None
        if not isinstance(lines, list):
            if not plain:
                problems.append("no list %r in %s" % (self.key, headers.get("idempotency-key")))
            return None
        if batch is not None and len(lines) != batch[2] - batch[1] + 1:
            problems.append("%d lines in batch %s-%d-%d" % ((len(lines),) + batch))
        return lines

    def _other_bytes(self, batch, body):
        digest = hashlib.blake2b(body, digest_size=16).digest()
        return self._digests.setdefault(batch, digest) != digest

    def _apply(self, batch, lines):
        stream, first, last = batch
        if lines is None:  # parse=False: the headers are all we know
            self.raw_count += last - first + 1
        highest = self.highest.get(stream)
        if highest is not None and last <= highest:
            self.duplicates += 1
            return "duplicate"
        expected = self.start if highest is None else highest + 1
        if expected is None:
            expected = first
        if first > expected:
            self.gaps.append((stream, expected, first))
        known = 0 if highest is None else max(0, expected - first)
        self.skipped += known
        self.count += last - first + 1 - known
        self.highest[stream] = last
        if self.keep and lines is not None:
            for number, record in enumerate(lines[known:], first + known):
                self.records.append((stream, number, record))
                self.lines.append(record)
        return "applied"


def _batch_numbers(headers, method, problems):
    """(stream, first, last) as the headers say, or None; what is wrong goes into problems."""
    if method != "POST":
        problems.append("a batch came by %s, not POST" % method)
    missing = [name for name in _HEADERS if name not in headers]
    if missing:
        problems.append("missing header %s" % ", ".join(missing))
        return None
    key, stream, first, last = (headers[name] for name in _HEADERS)
    if not _KEY.fullmatch(key):
        problems.append("bad Idempotency-Key %s" % key)
        return None
    if not (_NUMBER.fullmatch(first) and _NUMBER.fullmatch(last)):
        problems.append("bad numbers %s to %s in %s" % (first, last, key))
        return None
    if key != '"%s-%s-%s"' % (stream, first, last):
        problems.append("Idempotency-Key %s is not %s, %s, %s" % (key, stream, first, last))
        return None
    if int(last) < int(first):
        problems.append("batch %s ends before it begins" % key)
        return None
    return stream, int(first), int(last)


def _refuse_constant(text):
    raise ValueError("%s is not JSON" % text)


class FakeServer:
    """The scripted server; `with FakeServer() as server:` starts and stops it.

    port: 0 takes a free one. path: what .url ends with; every path is answered alike, but for
        those in .pages.
    record: False keeps no requests and no bodies, and lets the receiver only count.
    receiver: None makes one; False means none; or a Receiver of your own.
    on_request: callable(request) run in the server's thread when a request has been read, stored
        and recorded, before its answer is played.
    tls: None, or an ssl.SSLContext of a server, with its certificate: then it speaks https.

    ack: True; False leaves the Postcache-Ack header out of answers to batches that were stored.
    gzip: True; False answers 415 to gzip bodies, as to any other Content-Encoding.
    hello: what a TLS client's first bytes get: None for a handshake, or "hang" (until release(),
        stop() or the client leaves), "reset" (RST) or "close".
    close_notify: True; False ends TLS streams as a cut line or an attacker would, without a word.
    refusals: sentences about TLS handshakes that failed, as when the client did not trust us.
    default: the Answer while the script is empty. It and the entries of the script may also be
        functions: function(request) -> Answer, called once the request is read completely.
    pages: {path: Answer} that never use up the script; has /login.
    requests: [Request], in the order in which their reading ended. A client that leaves within a
        head is not listed and uses no entry; one that leaves within a body is and does.
    request_count: how many there were, recorded or not.
    connections: TCP connections accepted so far.
    errors: sentences and tracebacks: requests that were not HTTP, exceptions in hooks.
    """

    def __init__(
        self, port=0, path="/readings", record=True, receiver=None, on_request=None, tls=None
    ):
        self.tls = tls
        self.ack = self.gzip = self.close_notify = True
        self.hello = None
        self.refusals = []
        self.port = port
        self.path = path
        self.record = record
        if receiver is None:
            receiver = Receiver() if record else Receiver(keep=False, parse=False)
        self.receiver = receiver or None
        self.on_request = on_request
        self.default = Answer(200)
        self.pages = {"/login": Answer.captive_portal()}
        self.requests = []
        self.request_count = 0
        self.connections = 0
        self.errors = []
        self._script = collections.deque()
        self._open = set()
        self._releases = 0
        self._changed = threading.Condition(threading.RLock())
        self._life = threading.RLock()
        self._socket = None  # bound; it listens while _acceptor runs
        self._acceptor = None
        self._wake = None

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    @property
    def base(self):
        """http://127.0.0.1:PORT, or https://"""
        return "%s://127.0.0.1:%d" % ("https" if self.tls else "http", self.port)

    @property
    def url(self):
        """http://127.0.0.1:PORT/readings, or https://"""
        return self.base + self.path

    @property
    def open_connections(self):
        """How many connections are open now."""
        with self._changed:
            return len(self._open)

    @property
    def pending(self):
        """How many entries of the script are still unused."""
        return len(self._script)

    def start(self):
        """Bind and listen; returns self. Again after stop(), it takes the same port."""
        with self._life:
            if self._socket is None:
                self._socket = self._bind()
            self.up()
        return self

    def stop(self, timeout=5):
        """Close every socket and join every thread, in timeout seconds at most.

        A thread that a hook keeps busy longer is left behind (they are daemons) and named in
        errors; its socket is closed all the same.
        """
        with self._life:
            self._stop_accepting()
            if self._socket is not None:
                self._socket.close()
                self._socket = None
        left = self._abort_all(reset=False, timeout=timeout)
        for connection in left:
            self._note("connection %d did not end; its hook blocks" % connection.number)
            connection.close()

    def down(self, timeout=5):
        """Like a server that crashed: connections are refused, open ones reset."""
        with self._life:
            if self._acceptor is None:
                return
            self._stop_accepting()
            self._socket.close()
            # Held, not listened to: connections are refused, nobody else gets the port, and no
            # client can connect to itself by being given this very port (Linux, loopback).
            self._socket = self._bind()
        self._abort_all(reset=True, timeout=timeout)

    def up(self):
        """Listen again, on the same port."""
        with self._life:
            if self._acceptor is not None:
                return
            if self._socket is None:
                raise RuntimeError("start() the server first")
            self._socket.listen(128)
            self._wake = socket.socketpair()
            self._acceptor = threading.Thread(
                target=self._accept,
                name="fake-server-accept",
                args=(self._socket, self._wake[1]),
                daemon=True,
            )
            self._acceptor.start()

    def script(self, *answers):
        """Append entries; each answers one request. Answers or function(request) -> Answer."""
        for answer in answers:
            if not (isinstance(answer, Answer) or callable(answer)):
                raise TypeError("script() takes Answers, not %r" % (answer,))
        with self._changed:
            self._script.extend(answers)

    def clear_script(self):
        """Forget the unused entries; default answers from now on."""
        with self._changed:
            self._script.clear()

    def release(self):
        """End every hang and every endless answer of the requests recorded so far."""
        with self._changed:
            self._releases += 1
            for connection in self._open:
                connection.wake()

    def wait_for(self, count, timeout=10):
        """Wait until count requests have been recorded; returns a copy of the list.

        With record=False they are counted and the list is empty.
        timeout: seconds, after which AssertionError tells what was there.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._recorded() >= count, timeout):
                raise AssertionError(
                    "%d requests after %s s, not %d: %r; errors: %r"
                    % (self._recorded(), timeout, count, self.requests[-5:], self.errors)
                )
            return list(self.requests)

    def wait_closed(self, timeout=10):
        """Wait until no connection is open; AssertionError after timeout seconds."""
        with self._changed:
            if not self._changed.wait_for(lambda: not self._open, timeout):
                raise AssertionError("%d connections open after %s s" % (len(self._open), timeout))

    def _recorded(self):
        return len(self.requests) if self.record else self.request_count

    def _bind(self):
        bound = socket.socket()
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.setblocking(False)
            bound.bind(("127.0.0.1", self.port))
        except BaseException:
            bound.close()
            raise
        self.port = bound.getsockname()[1]
        return bound

    def _accept(self, listener, wake):
        ready = select.poll()
        ready.register(listener, select.POLLIN)
        ready.register(wake, select.POLLIN)
        pause = select.poll()
        pause.register(wake, select.POLLIN)
        while wake.fileno() not in [fd for fd, _ in ready.poll()]:
            try:
                accepted = listener.accept()[0]
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.ECONNABORTED):
                    self._note("accept: %s" % error)
                    pause.poll(50)  # out of descriptors: do not spin
                continue
            with self._changed:
                self.connections += 1
                connection = accepted
                try:
                    connection = _Connection(self, accepted, self.connections)
                    self._open.add(connection)
                    connection.thread.start()
                except (OSError, RuntimeError) as error:  # no descriptor, no thread
                    connection.close()
                    self._note("connection %d: %s" % (self.connections, error))

    def _stop_accepting(self):
        if self._acceptor is None:
            return
        self._wake[0].send(b"x")
        self._acceptor.join()
        for end in self._wake:
            end.close()
        self._acceptor = self._wake = None

    def _abort_all(self, reset, timeout):
        """End all connections and wait for their threads; returns those that did not end.

        When resetting, nobody waits for a thread that runs a hook: the hook may be the caller,
        or wait for the caller. Its connection is reset when the hook returns.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            doomed = list(self._open)
            for connection in doomed:
                connection.abort(reset)

            def waited_for():
                return [
                    each
                    for each in doomed
                    if each in self._open
                    and each.thread is not threading.current_thread()
                    and not (reset and each.in_hook)
                ]

            self._changed.wait_for(lambda: not waited_for(), timeout)
            left = waited_for()
        for connection in doomed:
            # Those that left _open have nothing more to do than to return.
            if (
                connection not in left
                and connection.thread is not threading.current_thread()
                and not connection.in_hook
            ):
                connection.thread.join(max(0, deadline - time.monotonic()))
        return left

    def _take(self, path):
        """The entry for one request: a page, the next of the script, or the default."""
        if path in self.pages:
            return self.pages[path]
        with self._changed:
            return self._script.popleft() if self._script else self.default

    def _take_unread(self, take=True):
        """The next entry, if it is one that leaves the request unread, else None."""
        with self._changed:
            entry = self._script[0] if self._script else self.default
            if getattr(entry, "read", None) != "nothing":
                return None
            if take and self._script:
                self._script.popleft()
            return entry

    def _record(self, request):
        with self._changed:
            self.request_count += 1
            if self.record:
                self.requests.append(request)
            self._changed.notify_all()
            return self._releases

    def _closed(self, connection):
        with self._changed:
            self._open.discard(connection)
            self._changed.notify_all()

    def _note(self, text):
        self.errors.append(text)


class _Connection:
    """One TCP connection and its thread.

    The socket never blocks. Every wait is a poll() on the socket and on a wake-up pair, so that
    stop(), down() and release() reach a thread wherever it waits, and only the thread itself
    ever closes the socket: closing under another thread's recv() neither wakes it nor is safe.
    """

    def __init__(self, server, accepted, number):
        self.server = server
        self.number = number
        self.socket = accepted
        self.in_hook = False
        self._aborted = False
        self._reset = False
        self._polite = False  # unread bytes may remain: FIN and drain instead of close
        self._buffer = bytearray()
        self._mark = 0  # the server's count of releases when the request came
        accepted.setblocking(False)
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_out.setblocking(False)
        self._wake_in.setblocking(False)
        self._readable = self._poll(select.POLLIN)
        self._writable = self._poll(select.POLLOUT)
        self._leaving = self._poll(_RDHUP)
        self.thread = threading.Thread(
            target=self._run, name="fake-server-%d" % number, daemon=True
        )

    def abort(self, reset):
        """From any thread: end this connection, with RST or in order."""
        self._reset = self._reset or reset
        self._aborted = True
        self.wake()

    def wake(self):
        """From any thread: let the waiting thread look around."""
        try:
            self._wake_in.send(b"x")
        except OSError:
            pass  # full means it will wake anyway; closed means it is gone

    def close(self):
        """Close the sockets; once is enough, twice does no harm."""
        for end in (self.socket, self._wake_in, self._wake_out):
            end.close()
        self.server._closed(self)  # last: who waits for this finds the socket closed

    # Waiting, reading, sending

    def _poll(self, events):
        poll = select.poll()
        poll.register(self.socket, events)
        poll.register(self._wake_out, select.POLLIN)
        return poll

    def _wait(self, poll, seconds=None):
        """True if the socket is ready, False if woken or after seconds; _Gone if aborted."""
        ready = False
        milliseconds = None if seconds is None else max(0, seconds * 1000)
        for fd, _ in poll.poll(milliseconds):
            if fd == self.socket.fileno():
                ready = True
            else:
                try:
                    self._wake_out.recv(4096)
                except BlockingIOError:
                    pass
        if self._aborted:
            raise _Gone
        return ready

    def _receive(self, size=_RECV):
        """Bytes from the client; b"" when it has closed."""
        while True:
            if self._pending() or self._wait(self._readable):
                try:
                    return self.socket.recv(size)
                except (BlockingIOError, ssl.SSLWantReadError):
                    pass
                except ssl.SSLWantWriteError:
                    self._wait(self._writable)

    def _pending(self):
        # Decrypted already: poll() knows nothing of it.
        return isinstance(self.socket, ssl.SSLSocket) and self.socket.pending()

    def _fill(self):
        data = self._receive()
        self._buffer += data
        return bool(data)

    def _send(self, data):
        view = memoryview(data)
        while view:
            if self._aborted:
                raise _Gone
            try:
                view = view[self.socket.send(view) :]
            except (BlockingIOError, ssl.SSLWantWriteError):
                self._wait(self._writable)
            except ssl.SSLWantReadError:
                self._wait(self._readable)

    # TLS

    def _handshake(self):
        """Wrap the socket; False if no connection came of it."""
        hello = self.server.hello
        if hello:
            mark = self.server._releases
            while not self._wait(self._readable):
                pass
            self._reset = hello == "reset"
            if hello == "hang":
                while self.server._releases == mark and not self._wait(self._leaving):
                    pass
            return False
        try:
            self.socket = self.server.tls.wrap_socket(
                self.socket, server_side=True, do_handshake_on_connect=False
            )
            while True:
                try:
                    self.socket.do_handshake()
                    return True
                except ssl.SSLWantReadError:
                    self._wait(self._readable)
                except ssl.SSLWantWriteError:
                    self._wait(self._writable)
        except OSError as error:
            self.server.refusals.append("connection %d: %s" % (self.number, error))
            return False

    def _say_goodbye(self):
        """The end of a TLS stream, as far as it can be said without waiting."""
        if isinstance(self.socket, ssl.SSLSocket) and self.server.close_notify:
            try:
                self.socket.unwrap()
            except (OSError, ValueError):
                pass  # it waits for the client's, which need not come

    # One request after the other

    def _run(self):
        try:
            if not self.server.tls or self._handshake():
                while self._serve():
                    pass
                if not self._reset:
                    self._say_goodbye()
            if self._polite:
                self._drain()
        except (_Gone, OSError):
            pass  # the client left or reset, or stop() and down(): nothing to report
        except Exception:
            self.server._note(traceback.format_exc())
        try:
            if self._reset:
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        except OSError:
            pass
        finally:
            self.close()

    def _serve(self):
        """Read and answer one request; True if another may follow."""
        request = Request(connection=self.number)
        try:
            unread = self._await_request()
            if unread is not None:
                return self._answer(request, unread, "nothing")
            head = self._read_head()
            if head is None:
                return False
            _parse_head(head, request)
            return self._answer(request, self.server._take(request.path.partition("?")[0]), "head")
        except _BadRequest as problem:
            status, text = problem.args
            self.server._note("bad request: " + text)
            request.answer = Answer(status, body=text, close=True)
            self.server._record(request)
            self._polite = True
            self._send(request.answer.encode(request, self.server.base)[0])
            return False

    def _await_request(self):
        """Wait for the first byte; the script's entry if that leaves the request unread, or None.

        An entry is used by a request, not by a connection: a client that connects and leaves, or
        keeps an idle connection, uses none.
        """
        while not (self._buffer or self._pending() or self._wait(self._readable)):
            pass
        if self.server._take_unread(take=False) is None:
            return None
        if not (self._buffer or self._peek()):
            return None  # closed, as the reader will find
        return self.server._take_unread()

    def _peek(self):
        """Whether there is a byte; over TLS it has to be read, with what came along with it."""
        if isinstance(self.socket, ssl.SSLSocket):
            return self._fill()
        try:
            return bool(self.socket.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return True

    def _answer(self, request, entry, was_read):
        function = None if isinstance(entry, Answer) else entry
        answer = None if function else entry
        reach = "all" if function else answer.read
        gone = False
        if was_read == "head" and reach not in ("head", "nothing"):
            gone = not self._read_body(request, None if reach == "all" else reach)
        if self._packed(request) not in ("", "gzip" if self.server.gzip else ""):
            answer = Answer(415, name="415 by the server")
        elif function:
            answer = self._call(function, request)
            if not isinstance(answer, Answer):
                raise TypeError("%r returned %r, not an Answer" % (function, answer))
        # RST for unread bytes would overtake a polite end.
        self._polite = not request.complete
        request.answer = answer
        if answer.rcvbuf:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, answer.rcvbuf)
        self._store(request, answer)
        self._mark = self.server._record(request)
        self._hooks(request, answer)
        return not gone and self._play(request, answer)

    @staticmethod
    def _packed(request):
        return request.headers.get("content-encoding", "").strip().lower()

    def _store(self, request, answer):
        receiver = self.server.receiver
        if receiver is not None and request.complete and request.receipt in (None, "seen"):
            request.receipt = receiver.take(
                request.headers, request.body, answer.store, request.method
            )

    def _hooks(self, request, answer):
        for hook in (self.server.on_request, answer.on_request):
            if hook is not None:
                self._call(hook, request)

    def _call(self, function, request):
        """Run foreign code, marked as such for down().

        _Gone if the connection ended before, or if the code raised; then errors tells, also of
        an OSError, which from a socket would mean no more than that the client left.
        """
        self.in_hook = True
        try:
            if self._aborted:
                raise _Gone
            return function(request)
        except Exception as error:
            if not isinstance(error, _Gone):
                self.server._note(traceback.format_exc())
            raise _Gone from None
        finally:
            self.in_hook = False

    def _play(self, request, answer):
        """Send the answer and do what follows it; True if the connection lives on."""
        data, end = answer.encode(request, self.server.base, self.server.ack)
        if answer.interval:
            self._drip(data, answer.interval)
        else:
            self._send(data)
        if answer.endless:
            self._repeat(answer)
        if end == "hang":
            if not self._hang() or answer.then is None:
                return False
            request.answer = answer.then
            if answer.then.store and not answer.store:
                self._store(request, answer.then)
            return self._play(request, answer.then)
        if end == "reset":
            self._reset = True
        # What follows an unread body cannot be told from a new request.
        return end == "keep" and request.complete

    def _drip(self, data, interval):
        for at in range(len(data)):
            self._send(data[at : at + 1])
            until = time.monotonic() + interval
            while True:
                left = until - time.monotonic()
                if left <= 0:
                    break
                if self._wait(self._leaving, left):
                    raise _Gone

    def _repeat(self, answer):
        block = answer.endless if answer.interval else answer.endless * 64
        at = 0
        while self.server._releases == self._mark:
            if answer.interval:
                self._drip(block[at : at + 1], answer.interval)
                at = (at + 1) % len(block)
            else:
                self._send(block)

    def _hang(self):
        """Say nothing; True if released, False if the client left."""
        while self.server._releases == self._mark:
            if self._wait(self._leaving):
                return False
        return True

    def _drain(self):
        """Close our side, then read until the client closes too, so that no RST is sent."""
        if self._reset:
            return
        self.socket.shutdown(socket.SHUT_WR)
        until = time.monotonic() + _LINGER
        while time.monotonic() < until:
            ready = self._wait(self._readable, until - time.monotonic())
            if ready and not self.socket.recv(_RECV):
                return

    # The request

    def _read_head(self):
        """The bytes of a head, or None if the client left."""
        start = 0
        while True:
            while self._buffer[:2] == b"\r\n":  # RFC 9112, 2.2: ignore before a request line
                del self._buffer[:2]
                start = 0
            end = self._buffer.find(b"\r\n\r\n", start)
            if end > MAX_HEAD or (end < 0 and len(self._buffer) > MAX_HEAD):
                raise _BadRequest(431, "the head is longer than %d bytes" % MAX_HEAD)
            if end >= 0:
                head = bytes(self._buffer[:end])
                del self._buffer[: end + 4]
                return head
            start = max(0, len(self._buffer) - 3)
            if not self._fill():
                return None

    def _read_body(self, request, limit):
        """Read the body, or its first limit bytes; False if the client left within it."""
        headers = request.headers
        coding = headers.get("transfer-encoding", "").strip().lower()
        length = headers.get("content-length")
        if coding and (coding != "chunked" or length is not None):
            raise _BadRequest(400, "Transfer-Encoding %r, Content-Length %r" % (coding, length))
        if length is not None and not (length.isascii() and length.isdigit()):
            raise _BadRequest(400, "Content-Length is %r" % length)
        length = int(length or 0)
        if length > MAX_BODY:
            raise _BadRequest(413, "the body is longer than %d bytes" % MAX_BODY)
        if (
            headers.get("expect", "").lower() == "100-continue"
            and request.version != "HTTP/1.0"
            and not self._buffer
            and (coding or length)
        ):
            self._send(b"HTTP/1.1 100 Continue\r\n\r\n")
        server = self.server
        keep = server.record or (server.receiver is not None and server.receiver.parse)
        parts = []
        try:
            if coding:
                request.complete = self._read_chunks(request, parts, limit, keep)
            else:
                want = length if limit is None else min(length, limit)
                self._read_exactly(want, request, parts, keep)
                request.complete = want == length
        except EOFError:
            pass
        request.body = b"".join(parts)
        if keep and request.complete and self._packed(request) == "gzip":
            request.packed = request.body
            request.body = _unpack(request.packed)
        return request.complete or (limit is not None and request.size >= limit)

    def _read_exactly(self, count, request, parts, keep):
        """count bytes of the body; EOFError if the client leaves before."""
        while count:
            if self._buffer:
                data = bytes(self._buffer[:count])
                del self._buffer[:count]
            else:
                data = self._receive(min(count, _RECV))
                if not data:
                    raise EOFError
            count -= len(data)
            request.size += len(data)
            if keep:
                parts.append(data)

    def _read_chunks(self, request, parts, limit, keep):
        """A chunked body; True if its end was reached, False at limit."""
        while True:
            text = self._read_line().partition(b";")[0].strip()
            if not re.fullmatch(rb"[0-9A-Fa-f]{1,8}", text):
                raise _BadRequest(400, "chunk size is %r" % text[:40])
            size = int(text, 16)
            if request.size + size > MAX_BODY:
                raise _BadRequest(413, "the body is longer than %d bytes" % MAX_BODY)
            if size == 0:
                while self._read_line():  # trailers
                    pass
                return True
            if limit is not None and request.size + size > limit:
                self._read_exactly(limit - request.size, request, parts, keep)
                return False
            self._read_exactly(size, request, parts, keep)
            if self._read_line():
                raise _BadRequest(400, "a chunk is longer than it said")

    def _read_line(self):
        while True:
            end = self._buffer.find(b"\r\n")
            if end >= 0:
                line = bytes(self._buffer[:end])
                del self._buffer[: end + 2]
                return line
            if len(self._buffer) > MAX_HEAD:
                raise _BadRequest(400, "a line in the chunked body never ends")
            if not self._fill():
                raise EOFError


def _parse_head(head, request):
    """Fill in method, path, version and headers; _BadRequest if this is not HTTP/1."""
    lines = head.decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if len(words) != 3 or words[2] not in ("HTTP/1.0", "HTTP/1.1"):
        raise _BadRequest(400, "request line %r" % lines[0][:80])
    headers = request.headers
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip() or "\n" in line or "\r" in line:
            raise _BadRequest(400, "header line %r" % line[:80])
        name = name.lower()
        value = value.strip()
        headers[name] = headers[name] + ", " + value if name in headers else value
    if words[2] == "HTTP/1.1" and "host" not in headers:  # RFC 9112, 3.2
        raise _BadRequest(400, "no Host header")
    request.method, request.path, request.version = words


def _unpack(data):
    """gzip of any number of members, unpacked; _BadRequest if it is none, or too much."""
    parts = []
    left = MAX_BODY + 1
    try:
        while data:
            unpacker = zlib.decompressobj(wbits=31)
            part = unpacker.decompress(data, left)
            left -= len(part)
            if left <= 0:
                raise _BadRequest(413, "the body is longer than %d bytes, unpacked" % MAX_BODY)
            if not unpacker.eof:
                raise _BadRequest(400, "gzip that was cut short")
            parts.append(part)
            data = unpacker.unused_data
    except zlib.error as error:
        raise _BadRequest(400, "no gzip: %s" % error) from None
    return b"".join(parts)


def _describe(request):
    """One line of text about a request, for the command line."""
    headers = request.headers
    text = "%s %s %s" % (time.strftime("%H:%M:%S"), request.method, request.path)
    if request.receipt not in (None, "plain"):
        text += " stream %s, %s-%s, %s" % (
            headers.get("postcache-stream", "?"),
            headers.get("postcache-first", "?"),
            headers.get("postcache-last", "?"),
            request.receipt,
        )
    if not request.complete:
        text += " (cut short)"
    body = request.body.decode("utf-8", "replace")
    # One line per batch, whatever the body holds, and no control codes for the terminal.
    body = "".join(char if char.isprintable() else " " for char in body[:400])
    return "%s: %s%s -> %s" % (
        text,
        body,
        "..." if len(request.body) > 400 else "",
        request.answer.status,
    )


def main(arguments=None):
    """The command line: serve until Ctrl-C and print one line per request. Returns 0."""
    parser = argparse.ArgumentParser(description="Answers every request and shows what arrives.")
    parser.add_argument("--port", type=int, default=8080, help="0 takes a free one [8080]")
    parser.add_argument("--status", type=int, default=200, help="the answer to all [200]")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also when started with &
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    server = FakeServer(
        options.port,
        record=False,
        receiver=Receiver(keep=False),
        on_request=lambda request: print(_describe(request), flush=True),
    )
    server.default = Answer(options.status)
    try:
        server.start()
    except OSError as error:
        print(
            "Port %d cannot be used (%s); try --port 0." % (options.port, error), file=sys.stderr
        )
        return 1
    try:
        print("Listening on %s, Ctrl-C ends." % server.url, flush=True)
        threading.Event().wait()
    except KeyboardInterrupt:
        pass
    finally:
        server.stop()
    receiver = server.receiver
    print(
        "%d requests, %d records, %d duplicate batches, %d gaps"
        % (server.request_count, receiver.count, receiver.duplicates, len(receiver.gaps)),
        flush=True,
    )
    for text in receiver.errors + server.errors:
        print(text, file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
