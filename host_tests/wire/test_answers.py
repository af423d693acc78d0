"""
What a server may answer, on real sockets, on both runtimes.

A 2xx whose whole answer arrived acknowledges. Everything else keeps every record, in order, and
the next good answer delivers them, each once. No connection stays open after a bad answer.
"""

import json
import subprocess

import pytest
from fake_server import BROKEN, Answer, FakeServer

from conftest import HERE

TIMEOUT = "0.5"

TAKEN = {
    "200": Answer(200),
    "201": Answer(201),
    "202": Answer(202, body=b"x" * 100000),
    "204": Answer(204),
    "chunked": Answer(200, body=b"hello" * 50, chunked=True),
    "until close": Answer(200, body=b"hello", until_close=True),
    "100 continue": Answer.with_continue(),
    "two 100 continues": Answer.with_continue(count=2),
    "103 early hints": Answer(200, interim=(103,)),
    "102, 100, 103": Answer(200, interim=(102, 100, 103)),
    "slow": Answer.drip(0.001, body=b"ok"),
    "HTTP/1.0": Answer(200, version="HTTP/1.0", close=True),
}

KEPT = {
    "302 to a login page": Answer.captive_redirect(),
    "300": Answer(300),
    "301": Answer.redirect(301),
    "302": Answer.redirect(302),
    "303": Answer.redirect(303),
    "304": Answer(304),
    "307": Answer.redirect(307),
    "308": Answer.redirect(308),
    "401": Answer(401),
    "403": Answer(403),
    "404": Answer(404, body=b"<html>nothing here</html>"),
    "429": Answer(429, headers={"Retry-After": "1"}),
    "500": Answer(500),
    "502": Answer(502, headers={"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}),
    "503": Answer(503, headers={"Retry-After": "nonsense"}),
    "599": Answer(599),
    "interim and nothing more": Answer(199, read="all", end="close"),
    "switching protocols": Answer(101, end="close"),
    "reset before the request": Answer.reset_before(),
    "reset after the request": Answer.reset_after(),
    "reset after it was stored": Answer.reset_after(store=True),
    "reset in the body": Answer.reset_in_body(10),
    "closed before the request": Answer.close_before(),
    "closed after the request": Answer.close_after(),
    "closed after it was stored": Answer.close_after(store=True),
    "body cut short": Answer(200, body=b"abc", length=10, store=True),
    "body reset": Answer.reset_in_answer(),
    "body hangs": Answer.hang_in_answer(),
    "chunked body cut short": Answer(200, body=b"hello" * 50, chunked=True, cut=60, store=False),
    "silence": Answer.hang(),
    "silence before the request": Answer.hang_before(),
    "drip": Answer.drip(0.1),
    "endless header": Answer.endless_header(),
    "endless line": Answer.endless_line(),
    "endless continue": Answer.endless_continue(),
}
# The batch is halved, and goes on at once.
HALVED = {
    "400": Answer(400, body=b"record 2: bad"),
    "409": Answer(409),
    "413": Answer(413),
    "413 before the body": Answer.early(413),
    "415": Answer(415),
    "422": Answer(422, body=b"x" * 10000),
    "499": Answer(499, chunked=True, body=b"no"),
}
for _name, _data in BROKEN.items():
    KEPT["broken: " + _name] = Answer.raw(_data)


class Program:
    """programs/flush_twice.py under a runtime, a flush at a time."""

    def __init__(self, runtime, url, path, timeout=TIMEOUT):
        self.process = runtime.start(
            HERE / "programs" / "flush_twice.py", url, path, timeout, stdin=subprocess.PIPE
        )

    def flush(self):
        """Returns (all delivered, waiting, status, error)."""
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.process.stdin.close()
        try:
            code = self.process.wait(30)
        finally:
            self.process.kill()
            self.process.stdout.close()
        assert code == 0


RECORDS = [{"n": 0}, {"n": 1}, {"n": 2}]


@pytest.mark.parametrize("name", TAKEN)
def test_delivered(runtime, name, tmp_path, server):
    server.default = TAKEN[name]
    with Program(runtime, server.url, tmp_path / "log", "5") as program:
        assert program.flush()[:2] == [True, 0]
    assert server.receiver.lines == RECORDS
    assert len(server.requests) == 1
    request = server.requests[0]
    assert request.json() == {"lines": RECORDS, "device": "é"}
    assert request.headers["content-type"] == "application/json"
    assert request.headers["content-length"] == str(len(request.body))
    assert "transfer-encoding" not in request.headers


@pytest.mark.parametrize("name", KEPT)
def test_kept_and_delivered_later(runtime, name, tmp_path):
    with FakeServer() as server:
        server.script(KEPT[name])
        with Program(runtime, server.url, tmp_path / "log") as program:
            done, waiting, status, error = program.flush()
            assert (done, waiting) == (False, 3)
            assert error
            if name[:3].isdigit():
                assert status == int(name[:3])
            assert len(server.requests) == 1  # nothing was followed, nothing repeated at once
            server.clear_script()
            server.release()
            if runtime.name == "cpython" and name[:3].isdigit():
                assert server.open_connections <= 1  # a whole answer: the connection may be kept
            else:
                server.wait_closed()  # a bad answer leaks no socket
            assert program.flush()[:2] == [True, 0]
        assert server.receiver.lines == RECORDS
        assert server.receiver.errors == []
        assert [e for e in server.errors if "bad request" in e] == []


@pytest.mark.parametrize("name", HALVED)
def test_halved_and_delivered_at_once(runtime, name, tmp_path, server):
    server.script(HALVED[name])
    with Program(runtime, server.url, tmp_path / "log", "5") as program:
        assert program.flush()[:2] == [True, 0]
    assert server.receiver.lines == RECORDS
    assert server.receiver.errors == []
    first, second = server.requests[:2]
    assert int(second.headers["postcache-last"]) < int(first.headers["postcache-last"])
    assert first.headers["idempotency-key"] != second.headers["idempotency-key"]


def test_every_status_on_the_wire(runtime, tmp_path, server):
    """100 to 599, one after the other; no record is lost or repeated, whatever came before."""
    slow = (401, 403, 404, 405, 410)
    soon = (408, 425, 429)
    statuses = [status for status in range(100, 600) if status != 413]
    statuses.append(413)  # remembered: from then on batches are smaller
    process = runtime.start(
        HERE / "programs" / "statuses.py", server.url, tmp_path / "log", stdin=subprocess.PIPE
    )
    try:
        for status in statuses:
            server.script(Answer(status, end="close" if status < 200 else None))
            process.stdin.write("go\n")
            process.stdin.flush()
            waiting, answer, error, blocked, after = json.loads(process.stdout.readline())
            at_once = 200 <= status < 300 or (
                400 <= status < 500 and status not in slow and status not in soon
            )
            assert waiting == (0 if at_once else 3), status
            assert (error is None) == at_once
            assert blocked == (status in slow)
            assert answer == (None if status < 200 else 200 if at_once else status) or (
                answer == status and status in (*range(200, 300), 101)
            )
            assert after == 0, status
            server.clear_script()
        process.stdin.close()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.stdout.close()
    assert server.receiver.lines == [{"n": n} for n in range(3 * len(statuses))]
    assert server.receiver.errors == []


def test_a_body_without_end_or_length(runtime, tmp_path, server):
    # Whole is what came to its end: by its length, or where the server closes ("until close").
    server.script(Answer.endless_body())
    with Program(runtime, server.url, tmp_path / "log") as program:
        assert program.flush()[:2] == [False, 3]
        server.release()
        assert program.flush()[:2] == [True, 0]


def test_refused_connection(runtime, tmp_path, server):
    server.down()
    with Program(runtime, server.url, tmp_path / "log") as program:
        assert program.flush()[:3] == [False, 3, None]
        server.up()
        assert program.flush()[:2] == [True, 0]
    assert server.receiver.lines == RECORDS


def test_a_server_that_goes_away_between_two_batches_costs_one_try(runtime, tmp_path, server):
    # CPython keeps the connection: an end of file on it must not be taken for a refusal.
    with Program(runtime, server.url, tmp_path / "log", "5") as program:
        assert program.flush()[:2] == [True, 0]
        server.down()
        server.up()
        assert program.flush()[:2] == [True, 0]


def test_path_query_and_host_are_sent_as_they_were_given(runtime, tmp_path, server):
    url = server.base + "/a/b%20c?key=v&x=1"
    with Program(runtime, url, tmp_path / "log", "5") as program:
        assert program.flush()[0]
    assert server.requests[0].path == "/a/b%20c?key=v&x=1"
    host = server.requests[0].headers["host"]
    assert host.split(":")[0] == "127.0.0.1"


def test_a_name_that_cannot_be_resolved_keeps_everything(runtime, tmp_path):
    with Program(runtime, "http://no-such-host.invalid/x", tmp_path / "log", "5") as program:
        done, waiting, status, error = program.flush()
    assert (done, waiting, status) == (False, 3, None)
    assert error
