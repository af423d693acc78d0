"""The ports' Http by itself, on real sockets, on both runtimes: what it returns, whom it feeds."""

import asyncio
import json
import socket

import pytest
from fake_server import Answer, FakeServer

from conftest import HERE, find_runtime
from postcache import POSTCache
from postcache.ports import cpython


def post(runtime, url, timeout="10", chunks=1, size=10):
    """Returns (status, headers, start, meals, meals at each chunk)."""
    done = runtime.run(HERE / "programs" / "post.py", url, timeout, chunks, size)
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("answer", "start"),
    [
        (Answer(200), ""),
        (Answer(204), ""),
        (Answer(200, body=b"hello"), "hello"),
        (Answer(422, body=b"line 3: " + b"z" * 1000), "line 3: " + "z" * 504),
        (Answer(200, body=b"a" * 511, chunked=100), "a" * 511),
        (Answer(200, body=b"a" * 100000, chunked=10000), "a" * 512),
        (Answer(200, body=b"to the end", until_close=True), "to the end"),
        (Answer.drip(0.001, body=b"slow"), "slow"),
        (Answer(200, body=b"last", interim=(103,)), "last"),
        (Answer(200, body=b"and gone", end="reset"), "and gone"),
        (Answer(200, body=b"and gone", chunked=3, end="reset"), "and gone"),
    ],
)
def test_the_beginning_of_the_body_comes_with_the_status(runtime, server, answer, start):
    server.script(answer)
    assert post(runtime, server.url)[:3:2] == [answer.status, start]


def test_headers_come_in_lower_case(runtime, server):
    server.script(Answer(200, {"X-One": "1", "RETRY-AFTER": " 5 ", "Date": "now"}))
    headers = post(runtime, server.url)[1]
    assert (headers["x-one"], headers["retry-after"], headers["date"]) == ("1", "5", "now")
    assert headers["content-length"] == "0"


def test_a_large_head_is_taken_in_part_but_for_what_matters(runtime, server):
    many = [("X-%d" % n, "y" * 100) for n in range(90)]
    server.script(Answer(503, many + [("Retry-After", "7")], body=b"later"))
    status, headers, start, *_ = post(runtime, server.url)
    assert (status, start, headers["retry-after"]) == (503, "later", "7")
    if runtime.name == "micropython":
        assert sum(len(name) + len(value) for name, value in headers.items()) < 2100


@pytest.mark.parametrize("answer", [Answer.hang(), Answer.hang_before(), Answer.drip(0.2)])
def test_the_watchdog_is_fed_while_nothing_comes(runtime, server, answer):
    server.script(answer)
    kind, number, _, meals, at_chunks = post(runtime, server.url, "4")
    assert number == 110, kind
    assert 6 <= meals - at_chunks[-1] < 100  # it waits, and does not spin
    server.release()


def test_the_watchdog_is_fed_between_chunks(runtime, server):
    status, *_, at_chunks = post(runtime, server.url, chunks=50, size=1000)
    assert status == 200
    assert len(at_chunks) == 50
    assert all(a < b for a, b in zip(at_chunks, at_chunks[1:]))


def test_a_socket_is_closed_once_micropython(server, tmp_path):
    # The number of a closed one goes to the next file that is opened, such as the log's.
    code = """
from postcache.ports import Http
http = Http(%r)
http.post(%r, {"Content-Length": "0"}, iter([]), 10)
files = [open(%r + str(n), "wb") for n in range(9)]
for url in ("http://no-such-host.invalid/", %r):
    try:
        http.post(url, {"Content-Length": "0"}, iter([]), 10)
    except OSError:
        pass
    for file in files:
        file.write(b"x")
        file.flush()
print("all open")
"""
    run = find_runtime("micropython").run
    assert (
        run("-c", code % (server.url, server.url, str(tmp_path / "f"), server.url)).stdout
        == "all open\n"
    )


@pytest.mark.parametrize("rude", [False, True])
@pytest.mark.parametrize("status", [413, 401])
def test_a_refusal_in_the_middle_of_a_large_body_is_heard(runtime, server, status, rude):
    # The rest is read politely, or the connection reset, as the little servers do.
    server.script(Answer.early(status, body=b"too much", end="reset" if rude else "close"))
    assert post(runtime, server.url, chunks=1000, size=10000)[:3:2] == [status, "too much"]


def test_a_good_answer_to_half_a_body_is_none(runtime, server):
    server.script(Answer.early(200, end="reset"))
    kind, number, *_ = post(runtime, server.url, chunks=1000, size=10000)
    assert isinstance(kind, str)
    assert number in (32, 104)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "geheim",
        "ftp://geheim/",
        "http://user:geheim\n@h/",
        "http://h/ geheim",
        "http://h/geheim\r\nX: 1",
        "http://h/g\u00e9heim",
        "https://h:geheim/",
        "https:///geheim",
    ],
)
def test_a_bad_url_is_refused_and_not_repeated(runtime, url):
    code = "from postcache.ports import Http\ntry:\n Http(%a)\nexcept ValueError as e:\n print(e)"
    text = runtime.run("-c", code % url).stdout
    assert "http_endpoint" in text
    assert "geheim" not in text


@pytest.fixture
def black_hole():
    """An address that answers no connection."""
    with FakeServer() as hole:
        hole.deaf()
        yield "127.0.0.1", hole.port


@pytest.mark.parametrize("way", ["flush", "run"])
def test_a_host_whose_first_address_is_dead_is_reached(
    way, server, black_hole, tmp_path, monkeypatch
):
    # Broken IPv6 before a working IPv4: the dead one takes the whole timeout of the first try.
    good = ("127.0.0.1", server.port)
    found = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in (black_hole, good)
    ]
    monkeypatch.setattr(cpython.Http, "_resolve", lambda self, host, port, limit: found)
    cache = POSTCache("http://two.example/", tmp_path / "log", timeout=0.5)
    cache.immediate = False  # only flush() and run() send
    cache.outbox._next = 1 << 60
    cache.add_request(1)
    if way == "flush":
        assert not cache.flush() and cache.flush()
    else:
        cache.outbox._next = 0

        async def main():
            task = asyncio.create_task(cache.run())
            while len(cache):
                await asyncio.sleep(0.01)
                if cache.stats["retries"]:
                    cache.outbox._next = 0  # no back-off
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        asyncio.run(main())
        assert cache.stats["retries"] == 1
    assert server.receiver.lines == [1]
    cache.close()
