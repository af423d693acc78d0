"""
run(): what test_answers.py promises, and an event loop that goes on meanwhile; cancelled at will.

The program under test (programs/async_run.py) is told what to do over a connection that its event
loop serves: each answer to a command proves that the loop is not held up.
"""

import asyncio
import json
import os
import socket
import threading

import pytest
from fake_server import Answer, FakeServer
from test_answers import HALVED, KEPT, RECORDS, TAKEN, TIMEOUT

from conftest import HERE, find_runtime
from postcache import POSTCache
from postcache.ports import Http

LONG = "60"  # seconds of timeout: longer than any test


class Program:
    """
    programs/async_run.py under a runtime. Its methods are this object's, too.

    At the end it must have written nothing to stderr: no exception that nobody retrieved, no
    socket or task that was left to the garbage collector.
    """

    def __init__(self, runtime, url, path, timeout=LONG, *cafile):
        self._path = str(path) + "/"
        self._errors = open(str(path) + ".stderr", "w+")
        with socket.create_server(("127.0.0.1", 0)) as control:
            control.settimeout(30)
            self.process = runtime.start(
                HERE / "programs" / "async_run.py",
                url,
                path,
                timeout,
                str(control.getsockname()[1]),
                *cafile,
                stderr=self._errors,
            )
            self._connection = control.accept()[0]
        self._connection.settimeout(30)
        self._lines = self._connection.makefile("rw")
        self.state()
        self._sockets = self.sockets()

    def __getattr__(self, name):
        def call(*args):
            self.tell(name, *args)
            return self.told()

        return call

    def tell(self, *command):
        """Send a command; told() returns its result."""
        self._lines.write(json.dumps(command) + "\n")
        self._lines.flush()

    def told(self):
        line = self._lines.readline()
        assert line, self.stderr()
        return json.loads(line)

    def stderr(self):
        self._errors.seek(0)
        return self._errors.read()

    def sockets(self):
        """How many sockets it has open, and files of its log."""
        n = 0
        folder = "/proc/%d/fd/" % self.process.pid
        for name in os.listdir(folder):
            try:
                n += os.readlink(folder + name).startswith(("socket:", self._path))
            except FileNotFoundError:
                pass  # closed in this moment
        return n

    def until(self, condition):
        """Let its event loop go round until the condition is true."""
        for _ in range(20000):
            if condition():
                return
            self.state()
        raise AssertionError("never: %s" % condition)

    def until_connecting(self):
        self.until(lambda: self.sockets() > self._sockets)

    def until_closed(self):
        self.until(lambda: self.sockets() <= self._sockets)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self._lines.close()
        self._connection.close()
        try:
            code = self.process.wait(30)
        finally:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()
            errors = self.stderr()
            self._errors.close()
        if kind is None:
            assert errors == ""
            assert code == 0


@pytest.fixture
def path(tmp_path):
    """Of a log with three records in it."""
    path = tmp_path / "log"
    with POSTCache(None, path) as cache:
        for record in RECORDS:
            cache.add_request(record)
    return path


# --- The table of answers ---


@pytest.mark.parametrize("name", TAKEN)
def test_delivered(runtime, name, path, server):
    server.default = TAKEN[name]
    with Program(runtime, server.url, path, "20") as program:
        program.start()
        assert program.outcome(0)[:2] == [True, 0]
        server.wait_closed()
        program.until_closed()
    assert server.receiver.lines == RECORDS
    assert len(server.requests) == 1
    request = server.requests[0]
    assert request.json() == {"lines": RECORDS, "device": "é"}
    assert request.version == "HTTP/1.1"
    assert request.headers["host"] == "127.0.0.1:%d" % server.port
    assert request.headers["content-type"] == "application/json"
    assert request.headers["content-length"] == str(len(request.body))
    assert "transfer-encoding" not in request.headers


@pytest.mark.parametrize("name", KEPT)
def test_kept_and_delivered_later(runtime, name, path):
    with FakeServer() as server:
        server.script(KEPT[name])
        with Program(runtime, server.url, path, TIMEOUT) as program:
            program.start()
            _, waiting, status, error = program.outcome(0)
            assert waiting == 3
            assert error
            if name[:3].isdigit():
                assert status == int(name[:3])
            server.clear_script()
            server.release()
            program.jump()  # over the back-off
            program.empty()
            server.wait_closed()
            program.until_closed()
        assert server.receiver.lines == RECORDS
        assert server.receiver.errors == []
        assert [e for e in server.errors if "bad request" in e] == []


@pytest.mark.parametrize("name", HALVED)
def test_halved_and_delivered_at_once(runtime, name, path, server):
    server.script(HALVED[name])
    with Program(runtime, server.url, path) as program:
        program.start()
        assert program.outcome(0)[1] == 3
        program.empty()
        program.until_closed()
    assert server.receiver.raw_lines == RECORDS
    first, second = server.requests[:2]
    assert int(second.headers["postcache-last"]) < int(first.headers["postcache-last"])


def test_a_body_that_never_ends(runtime, path, server):
    server.script(Answer.endless_body())
    with Program(runtime, server.url, path, TIMEOUT) as program:
        program.start()
        assert program.outcome(0)[:2] == [False, 3]
        program.jump()
        program.empty()
        server.wait_closed()
    assert server.receiver.lines == RECORDS


def test_refused_connection(runtime, path, server):
    server.down()
    with Program(runtime, server.url, path) as program:
        program.start()
        assert program.outcome(0)[:3] == [False, 3, None]
        program.until_closed()
        server.up()
        program.jump()
        program.empty()
    assert server.receiver.lines == RECORDS


def test_a_name_that_cannot_be_resolved_keeps_everything(runtime, path):
    with Program(runtime, "http://no-such-host.invalid/x", path, "5") as program:
        program.start()
        done, waiting, status, error = program.outcome(0)
    assert (done, waiting, status) == (False, 3, None)
    assert error


def test_path_query_and_host_are_sent_as_they_were_given(runtime, path, server):
    with Program(runtime, server.base + "/a/b%20c?key=v&x=1", path) as program:
        program.start()
        program.empty()
    assert server.requests[0].path == "/a/b%20c?key=v&x=1"
    assert server.requests[0].headers["host"] == "127.0.0.1:%d" % server.port


def test_user_and_password_in_the_url(server, path):
    url = server.url.replace("//", "//me:p%40ss@")
    with Program(find_runtime("cpython"), url, path) as program:
        program.start()
        program.empty()
    assert server.requests[0].headers["authorization"] == "Basic bWU6cEBzcw=="
    assert server.requests[0].headers["host"] == "127.0.0.1:%d" % server.port


def test_a_port_derived_from_ours_is_called_by_its_post(server, path):
    class Counting(Http):
        calls = 0

        def post(self, *args):
            self.calls += 1
            return super().post(*args)

    async def main():
        http = Counting(server.url)
        cache = POSTCache(server.url, path, http=http)
        task = asyncio.create_task(cache.run())
        while len(cache):
            await asyncio.sleep(0.001)
        cache.close()
        await task
        assert http.calls == len(server.requests) == 1

    asyncio.run(main())
    assert server.receiver.lines == RECORDS


def test_many_batches_one_after_the_other(runtime, path, server):
    with Program(runtime, server.url, path) as program:
        program.start()
        program.add(3, 2000, 0)
        program.empty()
        program.until_closed()
    assert server.receiver.lines == [{"n": n} for n in range(2000)]
    assert server.receiver.raw_count == 2000
    assert len(server.requests) > 3


# --- The event loop goes on ---


def test_the_loop_goes_on_while_the_server_is_silent(runtime, path, server):
    server.script(Answer.hang(then=Answer(200, store=True)))
    with Program(runtime, server.url, path) as program:
        program.start()
        server.wait_for(1)
        for _ in range(100):
            assert program.state() == [3, 0, False]  # the exchange is going on
        server.release()
        assert program.outcome(0)[:2] == [True, 0]
    assert server.receiver.raw_lines == RECORDS


def test_adding_goes_on_while_the_server_is_silent(runtime, path, server):
    # And adding sends nothing by itself: that would block the loop.
    server.default = Answer.hang(then=Answer(200, store=True))
    with Program(runtime, server.url, path) as program:
        program.start()
        server.wait_for(1)
        program.add(3, 53, 0)
        assert program.state() == [53, 0, False]
        server.release()
        server.default = Answer(200)
        program.empty()
    assert server.receiver.raw_lines == [{"n": n} for n in range(53)]


def test_adding_before_an_exchange_sends_nothing(runtime, path, server):
    server.default = Answer.hang(then=Answer(200, store=True))
    server.down()
    with Program(runtime, server.url, path) as program:
        program.start()
        program.outcome(0)
        program.jump()
        server.up()
        program.add(3, 5, 0)  # it is time to send, and nobody has begun to: this would hang
        server.wait_for(1)
        server.release()
        server.default = Answer(200)
        program.empty()
    assert server.receiver.lines == [{"n": n} for n in range(5)]


def test_two_tasks_of_run(runtime, path, server):
    server.script(Answer.hang(then=Answer(200, store=True)))
    with Program(runtime, server.url, path) as program:
        program.start()
        program.start()
        server.wait_for(1)
        for _ in range(100):
            assert program.state() == [3, 0, False]
        assert server.connections == 1
        server.release()
        program.empty()
        program.add(3, 6, 0)
        program.empty()
        program.close(0.1)
        assert program.join() == [None, None]
    assert server.receiver.raw_lines == [{"n": n} for n in range(6)]


def test_flush_during_an_exchange_does_not_start_another(runtime, path, server):
    server.script(Answer.hang(then=Answer(200, store=True)))
    with Program(runtime, server.url, path) as program:
        program.start()
        server.wait_for(1)
        assert program.flush(0.1) is False
        assert program.state() == [3, 0, False]
        assert server.connections == 1
        server.release()
        program.empty()
        assert program.flush(20) is True
    assert server.receiver.raw_lines == RECORDS


# --- The end ---


def test_close_during_an_exchange_ends_run(runtime, path, server):
    server.script(Answer.hang())
    with Program(runtime, server.url, path) as program:
        program.start()
        server.wait_for(1)
        program.close(0.1)
        assert program.join() == [None]  # long before its timeout
        server.wait_closed()
        program.until_closed()
        program.reopen()
        program.start()
        program.empty()
    assert server.receiver.raw_lines == RECORDS


def test_an_answer_that_comes_after_close_is_not_noted(runtime, path, server):
    # The log may have another owner by then.
    server.script(Answer.hang(then=Answer(200, store=True)))
    with Program(runtime, server.url, path) as program:
        program.start()
        server.wait_for(1)
        program.close(0.1)
        program.reopen()
        server.release()
        assert program.join() == [None]
        assert program.state() == [3, 0, True]
        assert program.flush(20) is True
    assert server.receiver.lines == RECORDS


def store_large_batch(runtime, path):
    """Add records to those that are there: all fit into a batch, but not into a narrow server."""
    lines = [{"n": n, "x": "x" * 1000} for n in range(200 if runtime.name == "cpython" else 6)]
    with POSTCache(None, path) as cache:
        for line in lines:
            cache.add_request(line)
    return RECORDS + lines


def deliver(how, program):
    """By a new run(), or by flush(), which needs the lock that the old one had."""
    if how == "run":
        program.start()
        program.empty()
        program.until_closed()
    else:
        assert program.flush(20) is True


@pytest.mark.parametrize("how", ["run", "flush"])
@pytest.mark.parametrize("phase", ["answer", "body of the answer"])
def test_cancelled_while_waiting_for(runtime, phase, how, path, server):
    server.script(Answer.hang() if phase == "answer" else Answer.hang_in_answer(store=False))
    with Program(runtime, server.url, path) as program:
        program.start()
        server.wait_for(1)
        for _ in range(100):
            assert program.state() == [3, 0, False]
        assert program.cancel() == ["cancelled"]
        assert program.state() == [3, 0, True]
        server.wait_closed()
        program.until_closed()
        deliver(how, program)
    assert server.receiver.raw_lines == RECORDS
    assert len(server.requests) == 2
    first, second = server.requests
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
    assert first.body == second.body


@pytest.mark.parametrize("how", ["run", "flush"])
def test_cancelled_while_connecting(runtime, how, path, server):
    server.deaf()
    with Program(runtime, server.url, path) as program:
        program.start()
        program.until_connecting()
        for _ in range(100):
            assert program.state() == [3, 0, False]
        assert program.cancel() == ["cancelled"]
        program.until_closed()
        assert program.state() == [3, 0, True]
        server.up()
        deliver(how, program)
    assert server.receiver.raw_lines == RECORDS


@pytest.mark.parametrize("how", ["run", "flush"])
def test_cancelled_while_sending(runtime, how, path):
    lines = store_large_batch(runtime, path)
    with FakeServer(rcvbuf=2048) as server, Program(runtime, server.url, path) as program:
        server.script(Answer.hang_before())
        program.narrow()
        program.start()
        (request,) = server.wait_for(1)
        for _ in range(100):
            assert program.state() == [len(lines), 0, False]
        assert program.cancel() == ["cancelled"]
        program.until_closed()
        assert program.state() == [len(lines), 0, True]
        server.release()
        server.wait_closed()
        assert request.unread < (len(lines) - 3) * 1000, "it was not in the middle of it"
        deliver(how, program)
    assert server.receiver.raw_lines == lines
    assert server.errors == []


def test_refused_before_the_body_was_read(runtime, path):
    """The answer counts though the rest of the request could not be sent; a 200 does not."""
    lines = store_large_batch(runtime, path)
    with FakeServer(rcvbuf=2048) as server, Program(runtime, server.url, path) as program:
        for status in (503, 200):
            server.script(Answer.early(status, read="nothing", end="reset"))
        program.narrow()
        program.start()
        for i, status in enumerate((503, 200)):
            done, waiting, seen, error = program.outcome(i)
            assert (done, waiting) == (False, len(lines)), error
            assert (seen == 503) if status == 503 else (seen is None)
            program.until_closed()
            program.jump()
        program.empty()
    assert server.receiver.raw_lines == lines


# --- TLS ---


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    pytest.importorskip("trustme", reason="install trustme (requirements-dev.txt)")
    from test_tls import Certificates

    return Certificates(tmp_path_factory.mktemp("certificates"))


def test_tls_delivered_to_whom_we_trust(runtime, path, certificates):
    with FakeServer(tls=certificates.contexts["good"]) as server:
        with Program(runtime, server.url, path, LONG, certificates.files["PEM"]) as program:
            program.start()
            program.add(3, 1000, 0)
            program.empty()
            program.until_closed()
        assert server.receiver.raw_lines == [{"n": n} for n in range(1000)]
        assert server.errors == []


@pytest.mark.parametrize("name", ["expired", "another host's", "of an unknown authority"])
def test_tls_no_byte_for_whom_we_do_not_trust(runtime, path, certificates, name):
    with FakeServer(tls=certificates.contexts[name]) as server:
        with Program(runtime, server.url, path, LONG, certificates.files["PEM"]) as program:
            program.start()
            done, waiting, status, error = program.outcome(0)
            assert (done, waiting, status) == (False, 3, None)
            assert error.split()[1] == ("1" if runtime.name == "cpython" else "-9984")
            program.until_closed()
        assert server.requests == []


TORN = ("body cut short", "body reset", "chunked body cut short", "500")
TORN += ("reset after it was stored", "closed before the request", "silence", "body hangs")


@pytest.mark.parametrize("name", TORN)
def test_tls_kept_and_delivered_later(runtime, path, certificates, name):
    with FakeServer(tls=certificates.contexts["good"]) as server:
        server.close_notify = False
        server.script(KEPT[name])
        with Program(runtime, server.url, path, "1", certificates.files["PEM"]) as program:
            program.start()
            assert program.outcome(0)[1] == 3
            server.clear_script()
            server.release()
            program.jump()
            program.empty()
            server.wait_closed()
            program.until_closed()
        assert server.receiver.lines == RECORDS
        assert server.receiver.errors == []


@pytest.mark.parametrize("goodbye", [True, False])
def test_tls_an_end_of_stream_that_nobody_vouches_for(runtime, path, certificates, goodbye):
    # As without run(): MicroPython cannot tell, and the head has to do.
    with FakeServer(tls=certificates.contexts["good"]) as server:
        server.script(Answer(200, body=b"x", until_close=True, store=True))
        server.close_notify = goodbye
        with Program(runtime, server.url, path, LONG, certificates.files["PEM"]) as program:
            program.start()
            assert program.outcome(0)[0] == (goodbye or runtime.name == "micropython")
            program.jump()
            program.empty()
        assert server.receiver.lines == RECORDS


def test_tls_cancelled_in_the_handshake(runtime, path, certificates):
    with FakeServer(tls=certificates.contexts["good"]) as server:
        server.hello = "hang"
        with Program(runtime, server.url, path, LONG, certificates.files["PEM"]) as program:
            program.start()
            server.wait_until(lambda: server.hellos == 1)
            for _ in range(100):
                assert program.state() == [3, 0, False]
            assert program.cancel() == ["cancelled"]
            program.until_closed()
            assert program.state() == [3, 0, True]
            server.hello = None
            deliver("run", program)
        assert server.receiver.raw_lines == RECORDS


def test_tls_the_loop_goes_on_while_a_large_batch_is_not_read(runtime, path, certificates):
    lines = store_large_batch(runtime, path)
    with FakeServer(tls=certificates.contexts["good"]) as server:
        server.script(Answer.hang(read="head", then=Answer(503, close=True)))
        with Program(runtime, server.url, path, LONG, certificates.files["PEM"]) as program:
            program.narrow()
            program.start()
            server.wait_for(1)
            for _ in range(100):
                assert program.state() == [len(lines), 0, False]
            server.release()
            assert program.outcome(0)[0] is False
            program.jump()
            program.empty()
        assert server.receiver.raw_lines == lines


class Still:
    """A clock that goes by itself nowhere."""

    now = 0

    def ticks_ms(self):
        return self.now


def test_a_name_look_up_that_hangs(server, path, monkeypatch):
    """The event loop goes on, the deadline is kept, and no second look-up is begun."""
    real = socket.getaddrinfo
    hanging = threading.Event()
    looked_up = []

    def slow(host, *args):
        looked_up.append(host)
        if host == "localhost":
            assert hanging.wait(600)
        return real(host, *args)

    monkeypatch.setattr(socket, "getaddrinfo", slow)

    async def main():
        url = server.url.replace("127.0.0.1", "localhost")
        clock = Still()
        cache = POSTCache(url, path, timeout=0.1, clock=clock)
        task = asyncio.create_task(cache.run())
        while cache.stats["retries"] < 1:
            await asyncio.sleep(0)
        clock.now += 10**8
        while cache.stats["retries"] < 2:
            await asyncio.sleep(0)
        assert cache.stats["error"] == "TimeoutError 110"
        assert looked_up == ["localhost"]
        hanging.set()
        cache.timeout = 60  # also a slow machine answers in that time
        tries = 2
        while len(cache):
            # Only between two tries: the clock ends one that is going on.
            if cache.stats["retries"] == tries:
                clock.now += 10**8
                tries += 1
            await asyncio.sleep(0.001)
        cache.close()
        await task

    try:
        asyncio.run(main())
    finally:
        hanging.set()
    assert server.receiver.raw_lines == RECORDS
