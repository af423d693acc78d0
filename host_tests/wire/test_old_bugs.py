"""
The eleven bugs of postcache 0.2.0: for each a test that it cannot come back.

Real sockets and files. How the old package failed stands above each test.
"""

import os
import resource
import subprocess
import sys
import threading

import pytest
from fake_server import Answer

from conftest import LIB
from postcache import POSTCache


# DELETE came before the status was looked at: five stored records and one add, answered 500, and
# all six were gone.
@pytest.mark.parametrize("status", [400, 401, 404, 413, 429, 500, 503])
def test_bug_1_an_http_error_loses_no_batch(status, tmp_path, server):
    with POSTCache(None, tmp_path / "log") as cache:
        for n in range(5):
            cache.add_request(n)
    server.script(Answer(status))
    cache = POSTCache(server.url, tmp_path / "log")
    cache.add_request(5)
    # 400 and 413 are about the batch: it is halved, and goes on at once.
    assert len(cache) == (0 if status in (400, 413) else 6)
    assert cache.flush()
    cache.close()
    assert server.receiver.lines == [0, 1, 2, 3, 4, 5]


# json.dumps stored NaN, requests refused to send it: the queue stood still for ever.
def test_bug_2_no_poison_record_can_be_stored(tmp_path, server):
    with POSTCache(server.url, tmp_path / "log") as cache:
        for bad in (float("nan"), float("inf"), {"v": [float("nan")]}):
            with pytest.raises(ValueError, match="JSON"):
                cache.add_request(bad)
        with pytest.raises(ValueError, match="JSON"):
            cache.add_request([float("nan")], allow_nan=True)
        cache.add_request("good")
        assert len(cache) == 0
    assert server.receiver.lines == ["good"]


# A line that is no JSON raised out of every add, and killed the thread.
def test_bug_2_a_damaged_record_does_not_stop_the_queue(tmp_path, server):
    with POSTCache(None, tmp_path / "log") as cache:
        for n in range(3):
            cache.add_request(n)
    (log,) = (tmp_path / "log").glob("*.log")
    lines = log.read_bytes().split(b"\n")
    lines[1] = b"plain text that 0.1.x left"
    log.write_bytes(b"\n".join(lines))
    with POSTCache(server.url, tmp_path / "log") as cache:
        cache.add_request(3)
        assert cache.stats["damaged"] == 1
    assert server.receiver.lines == [0, 2, 3]


# No timeout: add_request never came back from a server that says nothing.
@pytest.mark.parametrize("answer", [Answer.hang(), Answer.hang_before(), Answer.drip(0.05)])
def test_bug_3_a_silent_server_does_not_hold_add_request(answer, tmp_path, server):
    server.default = answer
    cache = POSTCache(server.url, tmp_path / "log", timeout=0.3)
    done = threading.Event()

    def add():
        cache.add_request(1)
        done.set()

    threading.Thread(target=add, daemon=True).start()
    assert done.wait(20)
    assert len(cache) == 1
    cache.close(timeout=0.3)


# ... and in async mode the process could not end.
def test_bug_3_a_silent_server_does_not_hold_the_process(tmp_path, server):
    server.default = Answer.hang()
    code = (
        "from postcache import POSTCache\n"
        "c = POSTCache(%r, %r, async_interval=1, timeout=0.5)\n"
        "c.add_request(1)\n" % (server.url, str(tmp_path / "log"))
    )
    subprocess.run(
        [sys.executable, "-c", code],
        env=dict(os.environ, PYTHONPATH=str(LIB)),
        timeout=30,
        check=True,
    )
    with POSTCache(None, tmp_path / "log") as cache:
        assert len(cache) == 1


# A fast producer and a healthy server: "database is locked", 10,501 duplicates, the rest stuck.
def test_bug_4_a_fast_producer_does_not_wedge_the_sender(tmp_path, server):
    with POSTCache(server.url, tmp_path / "log", async_interval=0.01) as cache:
        for n in range(5000):
            cache.add_request(n)
        assert cache.flush(timeout=30)
        assert cache.stats["retries"] == 0
    assert server.receiver.raw_lines == list(range(5000))  # no duplicate, for a plain receiver too
    assert server.receiver.duplicates == 0


# One cursor shared by threads: SIGSEGV in 40 runs of 40.
def test_bug_5_threads_share_an_instance(tmp_path, server):
    cache = POSTCache(server.url, tmp_path / "log", check_same_thread=False)
    start = threading.Barrier(4)

    def add(thread):
        start.wait(10)
        for n in range(100):
            cache.add_request([thread, n])

    threads = [threading.Thread(target=add, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert cache.flush(timeout=30)
    cache.close()
    lines = server.receiver.raw_lines
    assert sorted(lines) == [[thread, n] for thread in range(4) for n in range(100)]
    for thread in range(4):
        assert [n for t, n in lines if t == thread] == list(range(100))


# Two processes on one file: 119 of 239 lines were duplicates.
def test_bug_6_a_second_owner_is_refused(tmp_path):
    with POSTCache(None, tmp_path / "log"):
        with pytest.raises(OSError, match="in use"):
            POSTCache(None, tmp_path / "log")
        code = "from postcache import POSTCache\nPOSTCache(None, %r)" % str(tmp_path / "log")
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=dict(os.environ, PYTHONPATH=str(LIB)),
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert done.returncode == 1
        assert "in use" in done.stderr
    POSTCache(None, tmp_path / "log").close()


# ROWID was given out again after the table had been emptied: an unsent record went with the
# DELETE.
def test_bug_7_numbers_are_not_given_out_twice(tmp_path, server):
    path = tmp_path / "log"
    seen = []
    for n in range(4):
        with POSTCache(server.url, path) as cache:
            seen.append(cache.add_request(n))  # delivered, and everything deleted
            assert len(cache) == 0
    assert seen == [1, 2, 3, 4]

    # A record that comes in while the others are on their way stays when they are acknowledged.
    cache = POSTCache(server.url, path)
    server.script(Answer(200, on_request=lambda request: cache.add_request("victim")))
    cache.add_request("first")
    assert cache.flush()
    cache.close()
    assert server.receiver.lines == [0, 1, 2, 3, "first", "victim"]


# async_interval=0.5 killed the thread, 0 never ended, ":memory:" had no table.
def test_bug_8_every_interval_works_or_is_refused(tmp_path, server):
    with POSTCache(server.url, tmp_path / "log", async_interval=0.05) as cache:
        for n in range(3):
            cache.add_request(n)
            server.wait_for(n + 1)
    assert server.receiver.lines == [0, 1, 2]
    for bad in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="async_interval"):
            POSTCache(server.url, tmp_path / "log", async_interval=bad)
    with pytest.raises(ValueError, match="directory"):
        POSTCache(server.url, ":memory:", async_interval=1)


# Each add sent up to 500 rows again: 375,250 lines for 1,000 adds.
def test_bug_9_a_failing_server_is_not_sent_everything_with_each_add(tmp_path, server):
    server.default = Answer.close_after()
    cache = POSTCache(server.url, tmp_path / "log")
    for n in range(1000):
        cache.add_request(n)
    sent = sum(len(request.json()["lines"]) for request in server.requests)
    assert sent < 5000
    server.default = Answer(200)
    assert cache.flush()
    cache.close()
    assert server.receiver.lines == list(range(1000))


# No limit in bytes: 20,001 rows in one POST of 2.4 MB.
def test_bug_10_a_batch_is_bounded_in_bytes(tmp_path, server):
    with POSTCache(None, tmp_path / "log") as cache:
        for _ in range(40):
            cache.add_request("x" * 50000)
    with POSTCache(server.url, tmp_path / "log", upload_limit=10**6) as cache:
        assert cache.flush()
    assert max(len(request.body) for request in server.requests) <= 512 * 1024 + 100
    assert len(server.receiver.lines) == 40


# No bound on the disk either.
def test_bug_10_the_log_is_bounded(tmp_path):
    with POSTCache(None, tmp_path / "log", max_bytes=65536) as cache:
        for n in range(1500):
            cache.add_request("%0100d" % n)
        assert cache.stats["dropped"] > 0
        assert cache.stats["dropped"] + len(cache) == 1500
    assert sum(path.stat().st_size for path in (tmp_path / "log").iterdir()) <= 65536


# The README said "power may be lost" and kept that for the disk; what reached it was then lost by
# 1, 4 and 7. A disk that is full said "disk I/O error" and went on.
def test_bug_11_a_full_disk_loses_nothing_that_was_stored(tmp_path, server):
    # RLIMIT_FSIZE is a disk that is full for one process; SIGXFSZ is ignored by Python.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    cache = POSTCache(None, tmp_path / "log")
    stored = []
    resource.setrlimit(resource.RLIMIT_FSIZE, (10000, hard))
    try:
        for n in range(200):
            try:
                cache.add_request("%0100d" % n)
                stored.append("%0100d" % n)
            except OSError:
                break
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert 0 < len(stored) < 200
    assert len(cache) == len(stored)
    cache.add_request("after")
    cache.close()
    with POSTCache(server.url, tmp_path / "log") as cache:
        assert cache.flush()
    assert server.receiver.lines == [*stored, "after"]
