"""ports/answer.py and ports/request.py: what is an answer and what is a URL, to the byte."""

from support import raises

from postcache.ports.answer import Answer
from postcache.ports.request import head, split

OK = b"HTTP/1.1 200 OK\r\n"
# Name of a header that is never dropped, and of one that may be.
LENGTH = b"Content-Length: "

# (what comes before the end of the stream, status, beginning of the body, or None for the head)
WHOLE = [
    (OK + LENGTH + b"0\r\n\r\n", 200, b""),
    (OK + LENGTH + b"5\r\n\r\nhello", 200, b"hello"),
    (OK + LENGTH + b"  5 \t\r\n\r\nhello", 200, b"hello"),
    (OK + LENGTH + b"5\r\nContent-length: 5\r\n\r\nhello", 200, b"hello"),
    (b"HTTP/1.0 404 Not Found\n" + LENGTH + b"2\n\nno", 404, b"no"),
    (b"HTTP/1.1 200\r\n" + LENGTH + b"0\r\n\r\n", 200, b""),
    (b"HTTP/1.1 200 \r\n" + LENGTH + b"0\r\n\r\n", 200, b""),
    (b"HTTP/1.1 999 so be it\r\n" + LENGTH + b"0\r\n\r\n", 999, b""),
    (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
    (b"HTTP/1.1 304 Not Modified\r\n" + LENGTH + b"7\r\n\r\n", 304, b""),
    (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", 101, b""),
    (b"HTTP/1.1 100 Continue\r\n\r\n" * 40 + OK + LENGTH + b"1\r\n\r\nx", 200, b"x"),
    (b"HTTP/1.1 103 Hints\r\nContent-Length: 9\r\n\r\n" + OK + LENGTH + b"1\r\n\r\nx", 200, b"x"),
    (OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 200, b""),
    (
        OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n",
        200,
        None,
    ),
    (
        OK + b"transfer-encoding: gzip, Chunked\r\n\r\n1;a=b\r\nx\r\n00\r\nT: 1\r\nU: 2\r\n\r\n",
        200,
        b"x",
    ),
    (
        OK + b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n2\r\nab\r\n0\r\n\r\n",
        200,
        b"ab",
    ),
    (OK + b"X-Latin: f\xfcr\r\nX:\r\n folded:\r\n\t5\r\n" + LENGTH + b"1\r\n\r\nx", 200, b"x"),
    (OK + LENGTH + b"600\r\n\r\n" + b"y" * 600, 200, b"y" * 512),
    (OK + b"X: " + b"a" * 4090 + b"\r\n" + LENGTH + b"0\r\n\r\n", 200, b""),
]
# Whole only by the end of the stream.
TO_THE_END = [(OK + b"\r\n", b""), (OK + b"Connection: close\r\n\r\n" + b"z" * 2000, b"z" * 512)]

NOT_HTTP = [
    b"\r\n",
    b"garbage\r\n\r\n",
    b"HTTP/2 200\r\n\r\n",
    b"HTTP/1.1 20\r\n\r\n",
    b"HTTP/1.1 2000\r\n\r\n",
    b"HTTP/1.1 +20\r\n\r\n",
    b"HTTP/1.1 2_0\r\n\r\n",
    b"HTTP/1.1 099\r\n\r\n",
    b"HTTP/1.1  200\r\n\r\n",
    b"HTTP/1.1\t200\r\n\r\n",
    b"HTTP/1.x 200\r\n\r\n",
    b"HTTP/1.11 200\r\n\r\n",
    b"http/1.1 200\r\n\r\n",
    b" HTTP/1.1 200\r\n\r\n",
    OK + b"no colon\r\n\r\n",
    OK + b"Content-Length : 3\r\n\r\nabc",
    OK + LENGTH + b"\r\n\r\n",
    OK + LENGTH + b"-1\r\n\r\n",
    OK + LENGTH + b"+1\r\n\r\nx",
    OK + LENGTH + b"1_0\r\n\r\n",
    OK + LENGTH + b"0x1\r\n\r\nx",
    OK + LENGTH + b"1, 1\r\n\r\nx",
    OK + LENGTH + "\u0663".encode() + b"\r\n\r\nxxx",
    OK + LENGTH + "\u00b2".encode() + b"\r\n\r\nxx",
    OK + LENGTH + b"1\r\nContent-Length: 2\r\n\r\nxx",
    OK + b"Transfer-Encoding: chunked\r\n\r\n\r\n",
    OK + b"Transfer-Encoding: chunked\r\n\r\nx\r\n",
    OK + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n",
    OK + b"Transfer-Encoding: chunked\r\n\r\n0x1\r\nx\r\n0\r\n\r\n",
    OK + b"Transfer-Encoding: chunked\r\n\r\n1_0\r\n",
    OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\nxy\r\n0\r\n\r\n",
    OK + b"X: " + b"a" * 4094 + b"\r\n" + LENGTH + b"0\r\n\r\n",
    b"a" * 5000,
    OK + b"X: aaaaaaa\r\n" * 2000 + b"\r\n",
    OK + b"X: \xe9aaaaaa\r\n" * 2000 + b"\r\n",
    OK + b" folded\r\n" * 3000 + b"\r\n",
]


def pieces(data, size):
    return [data[at : at + size] for at in range(0, len(data), size)]


def play(parts):
    """Feed all; returns the Answer and whether it was whole, which must not come earlier."""
    answer = Answer()
    whole = False
    for part in parts:
        assert not whole, "whole before its end"
        whole = answer.feed(part)
    return answer, whole


def test_a_whole_answer_is_whole_at_its_last_byte_however_it_comes():
    for data, status, start in WHOLE:
        for size in (1, 3, 64, len(data)):
            answer, whole = play(pieces(data, size))
            assert whole, data[:60]
            assert answer.status == status
            assert start is None or answer.start == start
            assert answer.rest == b""


def test_every_shorter_one_is_cut_short():
    for data, _, _ in WHOLE:
        for n in range(len(data)) if len(data) < 300 else (0, 9, 30, len(data) - 1):
            answer, whole = play([data[:n]] if n else [])
            assert not whole, data[:n]
            e = raises(OSError, answer.feed, b"")
            assert e.args[0] == 104, data[:n]
            # Used on by mistake it still is none.
            assert not answer.feed(b"") and not answer.feed(data)


def test_a_body_without_a_length_ends_with_the_stream():
    for data, start in TO_THE_END:
        for size in (1, 700):
            answer, whole = play(pieces(data, size))
            assert not whole and answer.left < 0
            assert answer.feed(b"")
            assert answer.status == 200 and answer.start == start


def test_what_is_not_http_is_refused_however_it_comes():
    for data in NOT_HTTP:
        for size in (1, 64, len(data)):
            e = raises(OSError, play, pieces(data, size) + [b""])
            assert e.args[0] == 71, data[:60]


def test_headers_have_lower_case_names_and_the_last_of_several_values():
    lines = b"X-One: 1\r\nx-one:2\r\nDate: today: 12:00\r\nEmpty:\r\n"
    answer, _ = play([OK + lines + LENGTH + b"0\r\n\r\n"])
    assert answer.headers == {
        "x-one": "2",
        "date": "today: 12:00",
        "empty": "",
        "content-length": "0",
    }


def test_headers_of_interim_answers_are_none_of_the_last():
    first = b"HTTP/1.1 103 Early\r\nRetry-After: 7\r\n\r\n"
    answer, _ = play([first + OK + LENGTH + b"0\r\n\r\n"])
    assert answer.headers == {"content-length": "0"}


def test_headers_are_bounded_but_those_that_matter_come_through():
    filler = b"".join([b"X-%d: %s\r\n" % (n, b"a" * 90) for n in range(140)])
    matter = b"Retry-After: 3\r\nDate: d\r\nPostcache-Ack: 9\r\nTransfer-Encoding: chunked\r\n"
    answer, whole = play([OK + filler + matter + b"\r\n1\r\nx\r\n0\r\n\r\n"])
    assert whole
    headers = answer.headers
    assert (headers["retry-after"], headers["date"], headers["postcache-ack"]) == ("3", "d", "9")
    assert headers["transfer-encoding"] == "chunked"
    assert "x-0" in headers and "x-139" not in headers
    assert sum([len(name) + len(headers[name]) for name in headers]) <= 2048


def test_what_follows_a_whole_answer_is_left_in_rest():
    answer = Answer()
    assert answer.feed(OK + LENGTH + b"2\r\n\r\nabHTTP/1.1 ")
    assert answer.rest == b"HTTP/1.1 "
    assert answer.feed(b"")


def test_left_never_asks_for_a_byte_too_many():
    # What reads `left` bytes, or a line where it is 0, never waits behind the end of the answer.
    for data, _, _ in WHOLE:
        answer = Answer()
        at = 0
        whole = False
        while not whole:
            n = answer.left if answer.left > 0 else data.index(b"\n", at) + 1 - at
            whole = answer.feed(data[at : at + n])
            at += n
        assert at == len(data)


def test_a_lengthy_body_takes_no_memory():
    answer = Answer()
    answer.feed(OK + LENGTH + b"99999999999999999999\r\n\r\n")
    for _ in range(200):
        assert not answer.feed(b"x" * 256)
        assert len(answer.start) <= 512 and answer.rest == b""
    assert answer.left == 99999999999999999999 - 200 * 256


def test_split():
    for url, parts in (
        ("http://h", ("http", "h", 80, "/")),
        ("https://h/", ("https", "h", 443, "/")),
        ("http://a-b.c:8080/x/y?z=/&q", ("http", "a-b.c", 8080, "/x/y?z=/&q")),
        ("https://h:/x#part", ("https", "h", 443, "/x")),
        ("http://h/user@home", ("http", "h", 80, "/user@home")),
        ("https://[::1]/x", ("https", "::1", 443, "/x")),
        ("http://[fe80::1]:65535", ("http", "fe80::1", 65535, "/")),
    ):
        assert split(url) == parts


def test_split_refuses_and_repeats_nothing():
    for url in (
        "",
        "h",
        "http:/h",
        "http://",
        "http:///x",
        "ftp://h/",
        "HTTP://h/",
        "http://user:secret@h/",
        "http://secret@h/",
        "http://h?secret",
        "http://h:0/",
        "http://h:65536/",
        "http://h:secret/",
        "http://h:-1/",
        "http://h:+80/",
        "http://h:8_0/",
        "http://:80/",
        "http://[::1]secret/",
        "http://[::1/secret",
        "http://[]/secret",
        "http://h/ secret",
        " http://h/secret",
        "http://h/secret\r\nX: 1",
        "http://h/secret\x7f",
        "http://h\u00e9/secret",
        b"http://h/secret",
        None,
        5,
    ):
        assert "secret" not in str(raises(ValueError, split, url)), url


def test_head():
    assert head("h:8", "/x?y", {"A": "b", "Content-Length": "3"}) == (
        b"POST /x?y HTTP/1.1\r\nHost: h:8\r\nConnection: close\r\n"
        b"A: b\r\nContent-Length: 3\r\n\r\n"
    )
