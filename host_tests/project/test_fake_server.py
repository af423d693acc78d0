"""The fake server does what it promises: each behaviour seen by a real client on loopback.

A test instrument that lies makes every other test worthless, so each of its behaviours and each
rule of its receiver is proven here, through a raw socket or http.client. Nothing sleeps and no
time is asserted; a timeout only ends a test that hangs.
"""

import gzip
import http.client
import json
import os
import select
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading

import fake_server
import pytest
from fake_server import BROKEN, Answer, FakeServer, Receiver

TIMEOUT = 10  # seconds, generous: reaching it fails the test
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /readings HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n0123456789"


@pytest.fixture
def server():
    with FakeServer() as running:
        yield running
    assert running.errors == []
    assert running.open_connections == 0


def connect(server):
    return socket.create_connection(("127.0.0.1", server.port), TIMEOUT)


def read_all(client):
    data = b""
    while True:
        more = client.recv(65536)
        if not more:
            return data
        data += more


def exchange(server, data=POST):
    """All bytes the server says to these bytes until it closes in order."""
    with connect(server) as client:
        client.sendall(data)
        return read_all(client)


def wait_reset(client):
    """Bytes received before an RST; fails if the connection ends in order."""
    data = b""
    try:
        while True:
            more = client.recv(65536)
            assert more, "closed in order, not reset, after %r" % data
            data += more
    except ConnectionError:
        return data


def batch_headers(first, last, stream="ab12"):
    return {
        "Content-Type": "application/json",
        "Idempotency-Key": '"%s-%s-%s"' % (stream, first, last),
        "Postcache-Stream": stream,
        "Postcache-First": str(first),
        "Postcache-Last": str(last),
    }


def batch_body(first, last):
    return json.dumps({"lines": [{"n": n} for n in range(first, last + 1)]}).encode()


def post(server, body=b"0123456789", headers=None, client=None):
    """One POST by http.client; (status, headers, body)."""
    own = client or http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT)
    try:
        own.request("POST", "/readings", body, headers or {})
        answer = own.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        if client is None:
            own.close()


def post_batch(server, first, last):
    return post(server, batch_body(first, last), batch_headers(first, last))[0]


def lower(headers):
    return {key.lower(): value for key, value in headers.items()}


def take(receiver, first, last, body=None, stream="ab12", **more):
    return receiver.take(
        lower(batch_headers(first, last, stream)),
        batch_body(first, last) if body is None else body,
        **more,
    )


# Requests


def test_a_request_is_recorded_as_it_came(server):
    status, _, body = post(server, b"hello", {"X-One": "1"})
    assert (status, body) == (200, b"")
    (request,) = server.wait_for(1)
    assert (request.method, request.path, request.version) == ("POST", "/readings", "HTTP/1.1")
    assert request.headers["x-one"] == "1"
    assert (request.body, request.size, request.complete) == (b"hello", 5, True)
    assert request.connection == 1
    assert request.answer is server.default
    assert server.url == "http://127.0.0.1:%d/readings" % server.port


def test_script_is_played_in_order_then_the_default(server):
    server.script(Answer(500), Answer(429, headers={"Retry-After": "2"}))
    assert server.pending == 2
    assert post(server)[0] == 500
    status, headers, _ = post(server)
    assert (status, headers["Retry-After"]) == (429, "2")
    assert post(server)[0] == 200
    server.default = Answer(503)
    assert post(server)[0] == 503
    server.script(Answer(201), Answer(202))
    server.clear_script()
    assert post(server)[0] == 503


def test_script_refuses_what_is_no_answer(server):
    with pytest.raises(TypeError):
        server.script(500)
    with pytest.raises(ValueError, match="end must be"):
        Answer(end="explode")
    with pytest.raises(ValueError, match="read must be"):
        Answer(read="some")


def test_an_entry_may_be_a_function_of_the_request(server):
    server.script(
        lambda request: Answer(422 if b"bad" in request.body else 200),
        lambda request: Answer(422 if b"bad" in request.body else 200),
    )
    assert post(server, b"bad line")[0] == 422
    assert post(server, b"good line")[0] == 200


def test_keep_alive_serves_many_requests_on_one_connection(server):
    client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT)
    for number in range(20):
        assert post(server, b"%d" % number, client=client)[0] == 200
    assert server.connections == 1
    assert server.open_connections == 1
    client.close()
    server.wait_closed()
    assert [each.body for each in server.requests] == [b"%d" % n for n in range(20)]
    assert {each.connection for each in server.requests} == {1}


def test_pipelined_requests_are_told_apart(server):
    last = POST.replace(b"Host: x", b"Host: x\r\nConnection: close")
    text = exchange(server, b"\r\n" + POST + POST + last)
    assert text.count(b"HTTP/1.1 200 OK") == 3
    assert [each.body for each in server.requests] == [b"0123456789"] * 3


def test_chunked_request_body(server):
    data = (
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n"
        b"\r\n3;ext=1\r\nabc\r\nA\r\n0123456789\r\n0\r\nTrailer: 1\r\n\r\n"
    )
    assert exchange(server, data).startswith(b"HTTP/1.1 200")
    assert server.requests[0].body == b"abc0123456789"
    assert server.requests[0].complete


def test_expect_100_continue(server):
    with connect(server) as client:
        client.sendall(
            b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
            b"Content-Length: 3\r\nConnection: close\r\n\r\n"
        )
        interim = b"HTTP/1.1 100 Continue\r\n\r\n"
        got = b""
        while len(got) < len(interim):
            got += client.recv(len(interim) - len(got))
        assert got == interim
        client.sendall(b"abc")
        assert read_all(client).startswith(b"HTTP/1.1 200")
    assert server.requests[0].body == b"abc"


def test_a_cut_body_is_recorded_incomplete_and_not_stored(server):
    body = batch_body(1, 2)
    head = "".join("%s: %s\r\n" % each for each in batch_headers(1, 2).items())
    with connect(server) as client:
        client.sendall(
            b"POST / HTTP/1.1\r\nHost: x\r\n"
            + head.encode()
            + b"Content-Length: %d\r\n\r\n" % len(body)
            + body[:-1]
        )
    (request,) = server.wait_for(1)
    assert (request.complete, request.body) == (False, body[:-1])
    assert server.receiver.batches == 0
    assert server.receiver.errors == []


def test_a_cut_chunked_body_is_incomplete(server):
    with connect(server) as client:
        client.sendall(
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
        )
    assert not server.wait_for(1)[0].complete


def test_a_client_that_leaves_before_a_request_uses_no_entry(server):
    server.script(Answer(500), Answer.reset_before())
    connect(server).close()
    with connect(server) as client:
        client.sendall(b"POST / HT")
    server.wait_closed()
    assert (server.pending, server.requests) == (2, [])


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"what is this\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1, 2\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"400"),
        (
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 70000,
            b"400",
        ),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n", b"413"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 67108865\r\n\r\n", b"413"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 70000 + b"\r\n\r\n", b"431"),
    ],
)
def test_what_is_not_http_is_refused_and_noted(data, status):
    with FakeServer() as server:
        assert exchange(server, data).startswith(b"HTTP/1.1 " + status)
    assert len(server.errors) == 1
    assert server.errors[0].startswith("bad request")
    assert not server.requests[0].complete


# Plain answers


def test_status_reason_headers_body(server):
    server.script(Answer(299, [("X-A", "1"), ("X-A", "2")], "näh", reason="Fine", close=True))
    assert (
        exchange(server)
        == (
            "HTTP/1.1 299 Fine\r\nX-A: 1\r\nX-A: 2\r\nContent-Length: 4\r\n"
            "Connection: close\r\n\r\nnäh"
        ).encode()
    )


def test_a_dict_is_sent_as_json(server):
    server.script(Answer(body={"ok": True}))
    _, headers, body = post(server)
    assert headers["Content-Type"] == "application/json"
    assert json.loads(body) == {"ok": True}


def test_no_content_has_no_length(server):
    server.script(Answer(204))
    status, headers, _ = post(server)
    assert status == 204
    assert "Content-Length" not in headers


def test_head_has_no_body(server):
    server.script(Answer(body=b"12345"))
    data = exchange(server, GET.replace(b"GET", b"HEAD").replace(b"x", b"x\r\nConnection: close"))
    assert b"Content-Length: 5" in data
    assert data.endswith(b"\r\n\r\n")


def test_length_too_long_cuts_the_body_short(server):
    server.script(Answer(body=b"123", length=10))
    with pytest.raises(http.client.IncompleteRead) as caught:
        post(server)
    assert caught.value.partial == b"123"


def test_length_too_short_leaves_extra_bytes(server):
    server.script(Answer(body=b"12345", length=2, close=True))
    data = exchange(server)
    assert b"Content-Length: 2\r\n" in data
    assert data.endswith(b"\r\n\r\n12345")


def test_chunked_answer(server):
    server.script(Answer(body=b"x" * 40, chunked=True), Answer(body=b"abc", chunked=2, close=True))
    _, headers, body = post(server)
    assert headers["Transfer-Encoding"] == "chunked"
    assert "Content-Length" not in headers
    assert body == b"x" * 40
    assert exchange(server).endswith(b"\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n")


def test_until_close_has_no_length(server):
    server.script(Answer(body=b"all of it", until_close=True))
    _, headers, body = post(server)
    assert "Content-Length" not in headers
    assert body == b"all of it"


def test_close_can_be_unannounced(server):
    server.script(Answer(close=True, announce=False))
    data = exchange(server)
    assert data.startswith(b"HTTP/1.1 200")
    assert b"Connection" not in data


def test_http_1_0(server):
    old = POST.replace(b"HTTP/1.1", b"HTTP/1.0")
    assert b"Connection: close" in exchange(server, old)
    server.script(Answer(version="HTTP/1.0"), Answer(version="HTTP/1.0", close=True))
    kept = old.replace(b"Host: x", b"Connection: keep-alive")
    data = exchange(server, kept + kept)
    assert data.count(b"HTTP/1.0 200 OK") == 2
    assert data.count(b"Connection: keep-alive") == 1
    assert data.count(b"Connection: close") == 1


def test_redirect(server):
    server.script(Answer.redirect(307, "http://127.0.0.1:9/x"), Answer.redirect())
    status, headers, _ = post(server)
    assert (status, headers["Location"]) == (307, "http://127.0.0.1:9/x")
    status, headers, _ = post(server)
    assert (status, headers["Location"]) == (302, server.base + "/elsewhere")


def test_captive_portal_says_200_and_stores_nothing(server):
    server.script(Answer.captive_portal())
    status, headers, body = post(server, batch_body(1, 1), batch_headers(1, 1))
    assert status == 200
    assert headers["Content-Type"].startswith("text/html")
    assert b"login" in body
    assert server.receiver.batches == 0


def test_captive_redirect_leads_to_a_login_page(server):
    server.script(Answer.captive_redirect(), Answer(503))
    _, headers, _ = post(server)
    assert headers["Location"] == server.base + "/login"
    page = exchange(server, b"GET /login?from=x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert page.startswith(b"HTTP/1.1 200")
    assert b"login" in page
    assert server.pending == 1  # a page uses no entry
    assert [each.path for each in server.requests] == ["/readings", "/login?from=x"]


def test_100_continue_before_the_answer(server):
    server.script(Answer.with_continue(201, count=2, close=True), Answer(202, interim=(102, 103)))
    data = exchange(server)
    assert data.startswith(b"HTTP/1.1 100 Continue\r\n\r\n" * 2 + b"HTTP/1.1 201 Created\r\n")
    with connect(server) as client:
        client.sendall(POST)
        data = b""
        while not data.endswith(b"Length: 0\r\n\r\n"):
            data += client.recv(1000)
    assert data.startswith(b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 ")


# Broken answers


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_raw_bytes_are_sent_as_they_are(server, name):
    server.script(Answer.raw(BROKEN[name]))
    assert exchange(server) == BROKEN[name]
    assert not server.requests[0].answer.store


@pytest.mark.parametrize(
    "name",
    sorted(
        set(BROKEN)
        - {
            "status line without end",
            "head cut after status",
            "head cut in a header",
            "head cut before the end",
        }
    ),
)
def test_http_client_calls_it_broken(server, name):
    server.script(Answer.raw(BROKEN[name]))
    with pytest.raises(http.client.HTTPException):
        post(server)


@pytest.mark.parametrize(
    ("make", "start", "unit"),
    [
        (Answer.endless_header, b"HTTP/1.1 200 OK\r\n", b"X-Filler: " + b"a" * 52 + b"\r\n"),
        (Answer.endless_line, b"HTTP/1.1 200 OK\r\nX-Filler: ", b"a" * 64),
        (Answer.endless_continue, b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (Answer.endless_body, b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", b"x" * 64),
    ],
    ids=["header", "line", "continue", "body"],
)
def test_endless_answers_go_on_until_the_client_leaves(server, make, start, unit):
    server.script(make())
    with connect(server) as client:
        client.sendall(POST)
        data = b""
        while len(data) < 1000000:
            data += client.recv(65536)
    expected = start + unit * (len(data) // len(unit) + 1)
    assert data == expected[: len(data)]
    server.wait_closed()


def test_release_ends_an_endless_answer(server):
    server.script(Answer.endless_header(interval=0.001))
    with connect(server) as client:
        client.sendall(POST)
        assert client.recv(1) == b"H"
        server.release()
        assert read_all(client).startswith(b"TTP/1.1 200 OK\r\n")


# Resets, closes, hangs


def test_reset_before(server):
    server.script(Answer.reset_before())
    with connect(server) as client:
        client.sendall(POST)
        assert wait_reset(client) == b""
    (request,) = server.wait_for(1)
    assert (request.method, request.complete, request.body) == ("", False, b"")
    assert post(server)[0] == 200


def test_reset_before_a_later_request_of_a_connection(server):
    server.script(Answer(200), Answer.reset_before())
    client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT)
    assert post(server, client=client)[0] == 200
    with pytest.raises(ConnectionError):
        post(server, client=client)
    client.close()


@pytest.mark.parametrize("store", [False, True])
def test_reset_after(server, store):
    server.script(Answer.reset_after(store=store))
    with pytest.raises(ConnectionResetError):
        post_batch(server, 1, 3)
    assert server.requests[0].complete
    assert server.receiver.batches == int(store)
    assert post_batch(server, 1, 3) == 200
    assert server.receiver.duplicates == int(store)
    assert [record["n"] for record in server.receiver.lines] == [1, 2, 3]
    assert len(server.receiver.raw_lines) == (6 if store else 3)


def test_reset_in_body(server):
    server.script(Answer.reset_in_body(4))
    with connect(server) as client:
        client.sendall(POST)
        assert wait_reset(client) == b""
    (request,) = server.wait_for(1)
    assert (request.body, request.complete) == (b"0123", False)


def test_reset_in_a_chunked_body(server):
    server.script(Answer.reset_in_body(4))
    with connect(server) as client:
        client.sendall(
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3\r\nabc\r\n5\r\ndefgh\r\n"
        )
        assert wait_reset(client) == b""
    assert server.wait_for(1)[0].body == b"abcd"


def test_close_before_sends_fin_not_rst(server):
    server.script(Answer.close_before())
    assert exchange(server, POST + b"x" * 500000) == b""
    assert server.requests[0].size == 0


@pytest.mark.parametrize("store", [False, True])
def test_close_after(server, store):
    server.script(Answer.close_after(store=store))
    with pytest.raises(http.client.RemoteDisconnected):
        post_batch(server, 1, 2)
    assert server.requests[0].complete
    assert server.receiver.count == (2 if store else 0)


def test_close_in_answer(server):
    server.script(Answer.close_in_answer(3))
    data = exchange(server)
    assert b"Content-Length: 10\r\n" in data
    assert data.endswith(b"\r\n\r\n012")
    server.script(Answer.close_in_answer(5, chunked=4))
    with pytest.raises(http.client.IncompleteRead):
        post(server)


def test_reset_in_answer(server):
    server.script(Answer.reset_in_answer(3))
    with connect(server) as client:
        client.sendall(POST)
        assert wait_reset(client).endswith(b"\r\n\r\n012")


def test_early_answer_leaves_the_body_unread(server):
    server.script(Answer.early(413, body=b"too big"))
    data = exchange(server, POST.replace(b"10", b"500000") + b"x" * 499990)
    assert data.startswith(b"HTTP/1.1 413")
    assert data.endswith(b"too big")
    assert b"Connection: close" in data
    (request,) = server.requests
    assert (request.method, request.size, request.complete) == ("POST", 0, False)


def test_a_body_left_unread_is_not_taken_for_a_request(server):
    server.script(Answer(500, read=4))
    assert exchange(server).startswith(b"HTTP/1.1 500")
    (request,) = server.requests
    assert (request.body, request.complete) == (b"0123", False)


def test_a_rude_early_answer_resets(server):
    server.script(Answer.early(413, end="reset"))
    with connect(server) as client:
        client.sendall(POST)
        wait_reset(client)


def test_drip_arrives_whole(server):
    server.script(Answer.drip(0.0005, 201, body=b"slow", close=True))
    data = exchange(server)
    assert data.startswith(b"HTTP/1.1 201 Created\r\n")
    assert data.endswith(b"slow")


def test_drip_is_one_byte_at_a_time_and_stops_with_the_server():
    with FakeServer() as server:
        server.script(Answer.drip(interval=3600))
        client = connect(server)
        client.sendall(POST)
        assert client.recv(100) == b"H"
    assert client.recv(100) == b""
    client.close()
    assert server.errors == []


def test_drip_ends_when_the_client_leaves(server):
    server.script(Answer.drip(interval=3600))
    with connect(server) as client:
        client.sendall(POST)
        assert client.recv(100) == b"H"
    server.wait_closed()


@pytest.mark.parametrize(
    ("then", "expected"),
    [
        (None, b""),
        (Answer(201, close=True), b"HTTP/1.1 2"),
    ],
)
def test_hang_until_release(server, then, expected):
    server.script(Answer.hang(then=then))
    with connect(server) as client:
        client.sendall(POST)
        server.wait_for(1)
        client.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.recv(1)
        client.settimeout(TIMEOUT)
        server.release()
        assert read_all(client)[:10] == expected


def test_release_reaches_every_request_that_was_recorded(server):
    """Also one that the server's thread has recorded but not begun to hang on."""
    entered, go = threading.Event(), threading.Event()
    server.script(Answer.hang(on_request=lambda request: (entered.set(), go.wait(TIMEOUT))))
    with connect(server) as client:
        client.sendall(POST)
        assert entered.wait(TIMEOUT)
        server.release()
        go.set()
        assert read_all(client) == b""


def test_hang_stores_when_its_later_answer_does(server):
    server.script(Answer.hang(then=Answer(200)))
    done = []
    thread = threading.Thread(target=lambda: done.append(post_batch(server, 1, 2)))
    thread.start()
    server.wait_for(1)
    assert server.receiver.count == 0
    server.release()
    thread.join(TIMEOUT)
    assert done == [200]
    assert server.receiver.count == 2
    assert server.receiver.duplicates == 0


def test_hang_ends_when_the_client_leaves(server):
    server.script(Answer.hang(), Answer.hang_before(), Answer.hang_in_answer(4))
    for count in (1, 2, 3):
        with connect(server) as client:
            client.sendall(POST)
            server.wait_for(count)
        server.wait_closed()


def test_hang_before_blocks_a_large_send(server):
    server.script(Answer.hang_before())
    with connect(server) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        client.sendall(POST[:-10])
        server.wait_for(1)
        client.settimeout(0.2)  # what sending longer proves: nobody reads
        with pytest.raises(socket.timeout):
            client.sendall(b"x" * 16000000)
        # Leave by RST: a FIN would queue behind the bytes that nobody reads.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    server.wait_closed()
    assert server.requests[0].size == 0


def test_hang_in_answer(server):
    server.script(Answer.hang_in_answer(4))
    with connect(server) as client:
        client.sendall(POST)
        data = b""
        while not data.endswith(b"\r\n\r\n0123"):
            data += client.recv(1000)
        server.release()
        assert client.recv(100) == b""


# The server's own life


def test_hook_runs_after_storing_and_before_the_answer(server):
    seen = []
    server.on_request = lambda request: seen.append(
        (request.receipt, len(server.requests), server.receiver.count)
    )
    server.script(Answer(200, on_request=lambda request: seen.append("own")))
    assert post_batch(server, 1, 2) == 200
    assert seen == [("applied", 1, 2), "own"]


def test_hook_may_crash_the_server_before_the_answer(server):
    server.on_request = lambda request: server.down()
    with pytest.raises(ConnectionResetError):
        post_batch(server, 1, 2)
    assert server.receiver.count == 2
    server.on_request = None
    server.up()
    assert post_batch(server, 1, 2) == 200
    assert server.receiver.duplicates == 1


def test_down_does_not_wait_for_a_blocked_hook(server):
    entered, go, left = threading.Event(), threading.Event(), threading.Event()

    def hook(_):
        entered.set()
        go.wait(TIMEOUT)
        left.set()

    server.on_request = hook
    with connect(server) as client:
        client.sendall(POST)
        assert entered.wait(TIMEOUT)
        server.down(timeout=10 * TIMEOUT)
        assert not left.is_set()
        go.set()
        assert wait_reset(client) == b""


def test_an_exception_in_a_hook_is_collected_not_printed(capfd):
    def missing_file(_):
        raise FileNotFoundError("no such thing")

    with FakeServer(on_request=lambda request: 1 // 0) as server:
        assert exchange(server) == b""
        server.on_request = missing_file
        assert exchange(server) == b""
        server.on_request = None
        server.script(lambda request: None)
        assert exchange(server) == b""
    for text, error in zip(server.errors, ("ZeroDivision", "no such thing", "not an Answer")):
        assert error in text
    assert len(server.errors) == 3
    assert capfd.readouterr().err == ""


def test_down_refuses_and_resets_and_up_listens_again(server):
    port = server.port
    client = connect(server)
    client.sendall(POST)
    assert client.recv(1000).startswith(b"HTTP/1.1 200")
    server.down()
    assert server.open_connections == 0
    assert wait_reset(client) == b""
    client.close()
    for _ in range(20):
        with pytest.raises(ConnectionRefusedError):
            connect(server)
    server.down()
    server.up()
    server.up()
    assert server.port == port
    assert post(server)[0] == 200


def test_stop_ends_hanging_connections_and_their_threads():
    before = set(threading.enumerate())
    server = FakeServer().start()
    server.default = Answer.hang()
    server.script(Answer.hang_before(), Answer.endless_body(), Answer.drip(3600))
    clients = [connect(server) for _ in range(8)]
    for client in clients:
        client.sendall(POST)
    server.wait_for(8)
    server.stop()
    assert server.open_connections == 0
    assert server.errors == []
    assert set(threading.enumerate()) <= before
    for client in clients:
        client.close()
    with pytest.raises(ConnectionRefusedError):
        connect(server)
    server.stop()
    with pytest.raises(RuntimeError):
        server.up()


def test_start_after_stop_takes_the_same_port():
    server = FakeServer()
    ports = []
    for _ in range(2):
        with server:
            ports.append(server.port)
            assert post(server)[0] == 200
    assert ports[0] == ports[1]
    assert len(server.requests) == 2


def test_stop_leaves_a_blocked_hook_behind_and_says_so():
    go = threading.Event()
    entered = threading.Event()
    server = FakeServer(on_request=lambda request: (entered.set(), go.wait(TIMEOUT))).start()
    with connect(server) as client:
        client.sendall(POST)
        assert entered.wait(TIMEOUT)
        server.stop(timeout=0.05)
    assert len(server.errors) == 1
    assert "hook" in server.errors[0]
    go.set()
    for thread in threading.enumerate():
        if thread.name.startswith("fake-server"):
            thread.join(TIMEOUT)
    assert len(server.errors) == 1


def test_wait_for_says_what_is_missing(server):
    post(server)
    with pytest.raises(AssertionError, match="1 requests"):
        server.wait_for(2, timeout=0.01)
    with connect(server) as second:
        second.sendall(GET)
        server.wait_for(2)
        with pytest.raises(AssertionError, match="open"):
            server.wait_closed(timeout=0.01)


def test_many_clients_at_once(server):
    def send(stream):
        client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT)
        for first in range(1, 41, 2):
            post(
                server,
                batch_body(first, first + 1),
                batch_headers(first, first + 1, stream),
                client,
            )
        client.close()

    threads = [threading.Thread(target=send, args=("s%d" % n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    assert server.receiver.highest == {"s%d" % n: 40 for n in range(8)}
    assert len(server.receiver.records) == 320
    assert len(server.requests) == 160
    assert not server.receiver.errors
    assert not server.receiver.gaps


def test_record_false_keeps_nothing_but_counts():
    with FakeServer(record=False) as server:
        assert post_batch(server, 1, 5) == 200
        assert post_batch(server, 1, 5) == 200
        assert server.wait_for(2) == []
    receiver = server.receiver
    assert (server.request_count, server.requests) == (2, [])
    assert (receiver.count, receiver.raw_count, receiver.duplicates) == (5, 10, 1)
    assert receiver.records == receiver.lines == receiver.raw_lines == []


def test_receiver_off():
    with FakeServer(receiver=False) as server:
        assert post_batch(server, 1, 5) == 200
    assert server.receiver is None
    assert server.requests[0].receipt is None


# The receiver


def test_each_record_once_in_order():
    receiver = Receiver()
    assert take(receiver, 1, 2) == "applied"
    assert take(receiver, 3, 3) == "applied"
    assert receiver.records == [
        ("ab12", 1, {"n": 1}),
        ("ab12", 2, {"n": 2}),
        ("ab12", 3, {"n": 3}),
    ]
    assert receiver.lines == receiver.raw_lines == [{"n": 1}, {"n": 2}, {"n": 3}]
    assert (receiver.batches, receiver.count, receiver.raw_count) == (2, 3, 3)
    assert receiver.gaps == receiver.errors == []
    assert receiver.highest == {"ab12": 3}


def test_a_repeated_batch_is_a_duplicate():
    receiver = Receiver()
    take(receiver, 1, 3)
    assert take(receiver, 1, 3) == "duplicate"
    assert take(receiver, 2, 3) == "duplicate"
    assert receiver.duplicates == 2
    assert len(receiver.lines) == 3
    assert len(receiver.raw_lines) == 8
    assert receiver.errors == []


def test_an_overlapping_batch_counts_only_what_is_new():
    receiver = Receiver()
    take(receiver, 1, 3)
    assert take(receiver, 2, 5) == "applied"
    assert [number for _, number, _ in receiver.records] == [1, 2, 3, 4, 5]
    assert [record["n"] for record in receiver.lines] == [1, 2, 3, 4, 5]
    assert (receiver.skipped, receiver.duplicates, receiver.gaps) == (2, 0, [])


def test_gaps_are_listed_per_stream():
    receiver = Receiver()
    take(receiver, 5, 6)  # where a stream begins is its own affair
    take(receiver, 9, 9)
    take(receiver, 1, 1, stream="other-one")
    assert receiver.gaps == [("ab12", 7, 9)]
    assert receiver.highest == {"ab12": 9, "other-one": 1}


def test_start_says_where_streams_begin():
    receiver = Receiver(start=1)
    take(receiver, 3, 3)
    take(receiver, 1, 1, stream="other")
    assert receiver.gaps == [("ab12", 1, 3)]
    assert receiver.count == 2


def test_a_retry_must_repeat_the_bytes():
    receiver = Receiver()
    other = batch_body(1, 2).replace(b" ", b"")
    assert take(receiver, 1, 2, store=False) == "seen"
    assert receiver.count == receiver.raw_count == 0
    assert take(receiver, 1, 2, other) == "applied"
    (error,) = receiver.errors
    assert "other bytes" in error
    assert '"ab12-1-2"' in error


def test_a_halved_batch_is_another_key():
    receiver = Receiver()
    take(receiver, 1, 4, store=False)
    take(receiver, 1, 2)
    take(receiver, 3, 4)
    assert receiver.errors == []
    assert receiver.count == 4


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b'{"lines":[1,2', "bad JSON"),
        (b'{"lines":[1,NaN]}', "bad JSON"),
        (b'{"lines":["\xff",2]}', "bad JSON"),
        (b"[" * 100000, "bad JSON"),
        (b'{"lines":[1]}', "1 lines in batch ab12-1-2"),
        (b'{"lines":[1,2,3]}', "3 lines in batch"),
        (b'{"lines":5}', "no list 'lines'"),
        (b"[1,2]", "no list 'lines'"),
    ],
)
def test_malformed_bodies(body, error):
    receiver = Receiver()
    assert take(receiver, 1, 2, body) == "malformed"
    assert len(receiver.errors) == 1
    assert error in receiver.errors[0]
    assert receiver.records == []
    assert receiver.highest == {}


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"idempotency-key": "ab12-1-2"}, "bad Idempotency-Key"),
        ({"idempotency-key": '"ab12-1-02"'}, "bad Idempotency-Key"),
        ({"idempotency-key": '"ab12-1-3"'}, "is not"),
        ({"idempotency-key": None}, "missing header idempotency-key"),
        ({"postcache-stream": None}, "missing header postcache-stream"),
        ({"postcache-stream": "other"}, "is not"),
        ({"postcache-first": "one"}, "bad numbers"),
        ({"postcache-first": "3", "idempotency-key": '"ab12-3-2"'}, "ends before"),
        ({"content-type": "text/plain"}, "Content-Type"),
        ({"content-type": None}, "Content-Type"),
    ],
)
def test_malformed_headers(change, error):
    receiver = Receiver()
    headers = lower(batch_headers(1, 2))
    headers.update(change)
    headers = {key: value for key, value in headers.items() if value is not None}
    assert receiver.take(headers, batch_body(1, 2)) == "malformed"
    assert any(error in each for each in receiver.errors)
    assert receiver.records == []


def test_only_post_carries_batches():
    receiver = Receiver()
    assert take(receiver, 1, 2, method="PUT") == "malformed"
    assert "PUT" in receiver.errors[0]


def test_other_requests_reach_raw_lines_only():
    receiver = Receiver()
    json_type = {"content-type": "Application/JSON; charset=utf-8"}
    assert receiver.take(json_type, b'{"lines":[1,2]}') == "plain"
    assert receiver.take(json_type, b"[3]") == "plain"
    assert receiver.take({"content-type": "text/plain"}, b"{") == "plain"
    assert receiver.take({}, b"", method="GET") == "plain"
    assert receiver.raw_lines == [1, 2]
    assert receiver.records == receiver.errors == []
    assert receiver.take(json_type, b"{") == "malformed"
    assert "bad JSON" in receiver.errors[0]


def test_data_key_is_configurable():
    receiver = Receiver(key="data")
    assert take(receiver, 1, 2, b'{"data":[7,8]}') == "applied"
    assert receiver.lines == [7, 8]


def test_counting_still_checks_unless_it_does_not_parse():
    checking = Receiver(keep=False)
    take(checking, 1, 2)
    take(checking, 3, 4, b'{"lines":[1]}')
    assert (checking.count, checking.raw_count, len(checking.errors)) == (2, 3, 1)
    assert checking.records == checking.lines == checking.raw_lines == []
    trusting = Receiver(keep=False, parse=False)
    assert take(trusting, 1, 2, b"") == "applied"
    assert take(trusting, 2, 3, b"") == "applied"
    assert (trusting.count, trusting.raw_count, trusting.errors) == (3, 4, [])


# Hosts that are no help


def test_a_deaf_server_gives_no_answer_to_a_connect(server):
    with connect(server) as open_before:
        server.wait_until(lambda: server.connections == 1)
        server.deaf()
        assert wait_reset(open_before) == b""
    with socket.socket() as client:
        client.settimeout(0.2)
        with pytest.raises(OSError, match="timed out"):
            client.connect(("127.0.0.1", server.port))
    assert server.connections == 1
    server.up()
    assert post(server)[0] == 200
    server.deaf()
    server.down()
    with pytest.raises(ConnectionRefusedError):
        connect(server)
    server.deaf()
    server.stop()
    with pytest.raises(ConnectionRefusedError):
        connect(server)
    server.start()
    assert post(server)[0] == 200


@pytest.mark.parametrize("reply", [b"", b"what?"])
def test_swallow_takes_everything_and_replies_to_it(server, reply):
    server.script(Answer.swallow(reply))
    with connect(server) as client:
        client.sendall(bytes(3000000))
        assert client.recv(len(reply)) == reply
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == b"" if not reply else set(read_all(client)) <= set(reply)
    assert server.wait_for(1)[0].size == 0
    server.wait_closed()


def test_release_ends_a_swallow(server):
    server.script(Answer.swallow())
    with connect(server) as client:
        client.sendall(b"x")
        server.wait_for(1)
        server.release()
        assert client.recv(1) == b""


def test_a_narrow_server_takes_little_ahead():
    with FakeServer(rcvbuf=2048) as server:
        server.script(Answer.hang_before(rcvbuf=None))
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2048)
            client.connect(("127.0.0.1", server.port))
            client.setblocking(False)
            sent = 0
            while select.select([], [client], [], 0.2)[1]:
                sent += client.send(bytes(1000000))
            server.wait_for(1)
            server.release()
            client.shutdown(socket.SHUT_WR)
            server.wait_closed()
        assert sent < 32768
        assert server.requests[0].unread == sent


def test_hellos_are_counted_and_can_be_waited_for(secure):
    secure.hello = "hang"
    with pytest.raises(AssertionError, match="not true"):
        secure.wait_until(lambda: secure.hellos, timeout=0)
    with connect(secure) as client:
        client.sendall(b"\x16")
        secure.wait_until(lambda: secure.hellos == 1)
    secure.wait_closed()


# Confirmation, compression, TLS


def test_a_stored_batch_is_confirmed(server):
    headers = post(server, batch_body(1, 2), batch_headers(1, 2))[1]
    assert headers["Postcache-Ack"] == "2"
    assert post(server, batch_body(1, 2), batch_headers(1, 2))[1]["Postcache-Ack"] == "2"
    server.script(Answer(500), Answer.captive_portal(), Answer(200, {"Postcache-Ack": "1"}))
    for given in (None, None, "1"):
        assert post(server, batch_body(3, 4), batch_headers(3, 4))[1]["Postcache-Ack"] == given
    assert post(server)[1]["Postcache-Ack"] is None
    server.ack = False
    assert post(server, batch_body(5, 6), batch_headers(5, 6))[1]["Postcache-Ack"] is None
    assert server.receiver.highest == {"ab12": 6}


def post_packed(server, data, coding="gzip"):
    return post(server, data, dict(batch_headers(1, 2), **{"Content-Encoding": coding}))[0]


def test_gzip_is_unpacked(server):
    body = batch_body(1, 2)
    packed = gzip.compress(body[:5]) + gzip.compress(body[5:])
    assert post_packed(server, packed, "GZip") == 200
    (request,) = server.requests
    assert (request.body, request.packed, request.size) == (body, packed, len(packed))
    assert server.receiver.lines == [{"n": 1}, {"n": 2}]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"no gzip", 400),
        (gzip.compress(batch_body(1, 2))[:-1], 400),
        (gzip.compress(batch_body(1, 2)) + b"x", 400),
        (gzip.compress(bytes(65 * 1024 * 1024)), 413),
    ],
    ids=["none", "cut", "with a tail", "too large"],
)
def test_bad_gzip_is_refused_and_noted(data, status):
    with FakeServer() as server:
        assert post_packed(server, data) == status
    assert len(server.errors) == 1
    assert server.receiver.batches == 0


def test_what_is_not_understood_is_answered_415(server):
    assert post_packed(server, batch_body(1, 2), "br") == 415
    server.gzip = False
    assert post_packed(server, gzip.compress(batch_body(1, 2))) == 415
    assert server.receiver.batches == 0
    assert server.receiver.errors == []
    server.gzip = True
    assert post_packed(server, gzip.compress(batch_body(1, 2))) == 200


@pytest.fixture(scope="module")
def authority():
    trustme = pytest.importorskip("trustme", reason="install trustme (requirements-dev.txt)")
    return trustme.CA()


@pytest.fixture
def secure(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with FakeServer(tls=context) as running:
        yield running
    assert running.errors == []
    assert running.open_connections == 0


def dial(server, authority):
    """A TLS connection that is told how the stream ends."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    return context.wrap_socket(
        connect(server), server_hostname="127.0.0.1", suppress_ragged_eofs=False
    )


def test_tls_serves_many_requests_and_says_goodbye(secure, authority):
    assert secure.url == "https://127.0.0.1:%d/readings" % secure.port
    large = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n" + bytes(3000000)
    secure.script(Answer(200), Answer(201, body=b"y" * 1000000), Answer(202, close=True))
    with dial(secure, authority) as client:
        client.sendall(large + POST + POST)
        text = read_all(client)
    assert [text.count(b"HTTP/1.1 20%d" % n) for n in range(3)] == [1, 1, 1]
    assert [request.size for request in secure.requests] == [3000000, 10, 10]
    assert secure.connections == 1
    assert secure.refusals == []


def test_tls_may_end_without_a_goodbye(secure, authority):
    secure.close_notify = False
    secure.script(Answer(200, close=True))
    with dial(secure, authority) as client:
        client.sendall(POST)
        with pytest.raises(ssl.SSLEOFError):
            read_all(client)


@pytest.mark.parametrize(
    "answer", [Answer.reset_before(), Answer.reset_after(), Answer.close_before(), Answer.hang()]
)
def test_tls_misbehaves_like_the_plain_one(secure, authority, answer):
    secure.script(answer)
    with dial(secure, authority) as client:
        client.sendall(POST)
        secure.wait_for(1)
        secure.release()
        if answer.end == "reset":
            with pytest.raises((ConnectionResetError, ssl.SSLEOFError)):  # no goodbye
                read_all(client)
        else:
            assert read_all(client) == b""
    assert secure.requests[0].answer is answer


@pytest.mark.parametrize("hello", ["reset", "close", "hang"])
def test_a_handshake_that_never_is(secure, hello):
    secure.hello = hello
    with connect(secure) as client:
        client.sendall(b"\x16")
        if hello == "reset":
            assert wait_reset(client) == b""
        elif hello == "close":
            assert wait_end(client) == b""  # or by RST: our byte was not read
        else:
            client.shutdown(socket.SHUT_WR)  # we leave, and it has said nothing
            assert wait_end(client) == b""
    secure.wait_closed()
    assert secure.connections == 1
    assert secure.requests == secure.refusals == []


def test_who_does_not_trust_us_is_noted(secure):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with connect(secure) as client, pytest.raises(ssl.SSLCertVerificationError):
        context.wrap_socket(client, server_hostname="127.0.0.1")
    secure.wait_closed()
    assert len(secure.refusals) == 1
    assert secure.requests == []


def test_plain_http_to_a_tls_port_is_noted(secure):
    with connect(secure) as client:
        client.sendall(POST)
        assert POST not in wait_end(client)
    secure.wait_closed()
    assert len(secure.refusals) == 1


def test_stop_ends_a_handshake_that_hangs(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    server = FakeServer(tls=context).start()
    with connect(server) as client:
        client.sendall(b"\x16")  # the beginning of a record, and nothing more
        server.stop()
        assert wait_end(client) == b""
    assert server.errors == []


def wait_end(client):
    """All bytes until the connection ends, in order or not."""
    data = b""
    try:
        while True:
            more = client.recv(65536)
            if not more:
                return data
            data += more
    except ConnectionResetError:
        return data


# The command line


def test_command_line_shows_batches_and_ends_on_ctrl_c():
    process = subprocess.Popen(
        [
            sys.executable,
            "-W",
            "error",
            os.path.abspath(fake_server.__file__),
            "--port",
            "0",
            "--status",
            "202",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        ready = process.stdout.readline()
        port = int(ready.partition("127.0.0.1:")[2].partition("/")[0])
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
        for _ in range(2):
            assert post(None, batch_body(1, 2), batch_headers(1, 2), client)[0] == 202
        first, second = process.stdout.readline(), process.stdout.readline()
        assert 'stream ab12, 1-2, applied: {"lines": [{"n": 1}' in first
        assert "202" in first
        assert "duplicate" in second
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=TIMEOUT)
        client.close()
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    assert (process.returncode, err) == (0, "")
    assert out == "2 requests, 2 records, 1 duplicate batches, 0 gaps\n"


def test_command_line_counts_until_the_end_of_stdin():
    done = subprocess.Popen(
        [sys.executable, "-W", "error", fake_server.__file__, "--port", "0", "--counts"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with done:
        port = int(done.stdout.readline().partition("127.0.0.1:")[2].partition("/")[0])
        for _ in range(2):
            client = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
            assert post(None, b"0123456789", client=client)[0] == 200
            client.close()
        assert done.communicate("?\n?\n", timeout=TIMEOUT)[0] == "2 20\n2 20\n"
    assert done.returncode == 0


def test_command_line_says_when_the_port_is_taken(server, capsys):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    try:
        assert fake_server.main(["--port", str(server.port)]) == 1
    finally:
        signal.signal(signal.SIGINT, before[0])
        signal.signal(signal.SIGTERM, before[1])
    assert "--port 0" in capsys.readouterr().err
