"""What the server does with one request, as data: an answer, or a failure that networks have."""

import dataclasses
import functools
import http
import json
from typing import Any, Callable, Optional, Union

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


class _Kind:
    """A named Answer: Answer.<name>(...) takes any field, those of `first` also by position."""

    def __init__(self, doc, *first, **fields):
        self.__doc__ = doc
        self._first = first
        self._fields = fields

    def __set_name__(self, owner, name):
        self._fields.setdefault("name", "Answer." + name)

    def __get__(self, instance, owner):
        return functools.partial(self._make, owner)

    def _make(self, owner, *values, **changes):
        if len(values) > len(self._first):
            raise TypeError("by position, only %s" % ", ".join(self._first))
        return owner(**{**self._fields, **dict(zip(self._first, values)), **changes})


@dataclasses.dataclass(eq=False, repr=False)
class Answer:
    """One behaviour of the server for one request; immutable in use, so it may be reused."""

    # The answer itself. "{base}" in the value of a header becomes the server's
    # http://127.0.0.1:PORT. A body may be text (UTF-8), or a dict or list, which is sent as JSON.
    status: int = 200
    headers: Any = ()  # dict, or list of pairs
    body: Any = b""
    reason: Optional[str] = None
    version: str = "HTTP/1.1"

    # How it is framed.
    length: Optional[int] = None  # a Content-Length that is wrong: too long cuts the body short
    chunked: Union[bool, int] = False  # or the number of bytes in each chunk
    until_close: bool = False  # no length: the body ends where the connection does
    close: bool = False  # close afterwards, and say so in a header ...
    announce: bool = True  # ... unless this is False
    interim: tuple = ()  # statuses of interim answers to send first, such as (100,)

    # How it is sent.
    interval: float = 0  # seconds between single bytes; 0 sends all at once
    cut: Optional[int] = None  # bytes of the body after which the connection ends
    data: Optional[bytes] = None  # raw bytes in place of all of the above
    endless: Optional[bytes] = None  # repeated until the client leaves, release() or stop()
    reply: Optional[bytes] = None  # sent whenever anything comes, and nothing is looked at

    # What is done before and after.
    read: Union[str, int] = "all"  # "all", "head", "nothing", or bytes of the request's body
    rcvbuf: Optional[int] = None  # bytes of SO_RCVBUF from now on, so that a large send blocks
    store: Optional[bool] = None  # to the receiver? None: if a 2xx answers a complete request
    on_request: Optional[Callable] = None  # callable(request), after the server's own hook
    end: Optional[str] = None  # "keep", "close", "reset" (RST) or "hang"; None: as HTTP says
    then: Optional["Answer"] = None  # played when release() ends a hang; None closes
    name: Optional[str] = None

    def __post_init__(self):
        if self.end not in (None, "keep", "close", "reset", "hang"):
            raise ValueError("end must be keep, close, reset, hang or None")
        if self.read not in ("all", "head", "nothing") and not isinstance(self.read, int):
            raise ValueError("read must be all, head, nothing or a number of bytes")
        headers = self.headers
        self.headers = list(headers.items() if isinstance(headers, dict) else headers or ())
        if isinstance(self.body, (dict, list)):
            self.body = json.dumps(self.body)
            if not any(key.lower() == "content-type" for key, _ in self.headers):
                self.headers.insert(0, ("Content-Type", "application/json"))
        if isinstance(self.body, str):
            self.body = self.body.encode()
        if self.chunked is True:
            self.chunked = 16
        if self.reason is None:
            self.reason = _reason(self.status)
        if self.store is None:
            self.store = self.data is None and self.read == "all" and 200 <= self.status < 300
        if self.name is None:
            self.name = "Answer(%s)" % self.status

    def __repr__(self):
        return self.name

    raw = _Kind(
        "Exactly these bytes instead of an HTTP answer, then close (see BROKEN).",
        "data",
        end="close",
    )

    # Connections that end. The batch arrived although the answer is lost, if store=True.

    reset_before = _Kind(
        "RST as soon as the first byte of the request has come; nothing is read.",
        data=b"",
        read="nothing",
        end="reset",
    )
    reset_after = _Kind("RST after the whole request.", data=b"", end="reset")
    reset_in_body = _Kind(
        "RST after the head and so many bytes of the request's body.",
        "read",
        data=b"",
        end="reset",
    )
    reset_in_answer = _Kind(
        "RST after so many bytes of the answer's body.",
        "cut",
        cut=5,
        body=b"0123456789",
        end="reset",
    )
    close_before = _Kind(
        "Close in order (FIN, not RST) without looking at the request and without an answer.",
        data=b"",
        read="nothing",
        end="close",
    )
    close_after = _Kind("Close in order after the whole request.", data=b"", end="close")
    close_in_answer = _Kind(
        "Close after so many bytes of the answer's body.",
        "cut",
        cut=5,
        body=b"0123456789",
        end="close",
    )

    # Connections that don't.

    hang = _Kind(
        "Read the request, then nothing until the client leaves, release() or stop().",
        "then",
        data=b"",
        end="hang",
    )
    hang_before = _Kind(
        "Like hang, but the request stays unread, so that a large send blocks. A client that"
        " leaves with unsent bytes is not noticed: its FIN waits behind them.",
        "then",
        data=b"",
        read="nothing",
        rcvbuf=4096,
        end="hang",
    )
    hang_in_answer = _Kind(
        "Send the head and so many bytes of the answer's body, then hang.",
        "cut",
        cut=5,
        body=b"0123456789",
        end="hang",
    )
    swallow = _Kind(
        "Take all that comes and give `reply` for it; what is no HTTP server may do so.",
        "reply",
        reply=b"",
        data=b"",
        read="nothing",
        end="close",
    )
    drip = _Kind(
        "The answer, head and all, one byte each interval seconds.",
        "interval",
        "status",
        "headers",
        "body",
        interval=0.05,
    )
    endless_header = _Kind(
        "A good status line, then header lines for ever.",
        "interval",
        data=b"HTTP/1.1 200 OK\r\n",
        endless=b"X-Filler: " + b"a" * 52 + b"\r\n",
        end="close",
    )
    endless_line = _Kind(
        "A good status line, then one header line that never ends.",
        "interval",
        data=b"HTTP/1.1 200 OK\r\nX-Filler: ",
        endless=b"a" * 64,
        end="close",
    )
    endless_continue = _Kind(
        "100 Continue for ever.",
        "interval",
        data=b"",
        endless=b"HTTP/1.1 100 Continue\r\n\r\n",
        end="close",
    )
    endless_body = _Kind(
        "200, no length, and a body that never ends.",
        "interval",
        data=b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
        endless=b"x" * 64,
        end="close",
    )

    # Answers that are HTTP.

    early = _Kind(
        'Answer after the head, before the body, and close; with end="reset" by an RST, which'
        " may overtake the answer.",
        "status",
        status=413,
        read="head",
        close=True,
        end="close",
    )
    captive_portal = _Kind(
        "What a hotspot says to everything: 200 and an HTML login page; never stored.",
        "body",
        headers={"Content-Type": "text/html; charset=utf-8"},
        body=LOGIN_PAGE,
        store=False,
    )
    captive_redirect = _Kind(
        "The other kind of hotspot: a redirection to /login, which answers 200 (server.pages).",
        status=302,
        headers={"Location": "{base}/login", "Cache-Control": "no-store"},
    )

    @classmethod
    def redirect(cls, status=302, location="{base}/elsewhere"):
        """A redirection; the target answers like every other path, by script or default."""
        return cls(status, {"Location": location}, name="Answer.redirect")

    @classmethod
    def with_continue(cls, status=200, headers=None, body=b"", count=1, **more):
        """count times 100 Continue, then the real answer."""
        return cls(status, headers, body, interim=(100,) * count, **more)

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


def _reason(status):
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
