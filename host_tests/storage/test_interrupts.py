"""
An exception at any line of the code that stores: no memory, or Ctrl-C.

The n-th line that runs in the journals or the log while records are added raises, for every n. An
add that raised may have stored its record or not; what was acknowledged before and after is there,
once, in order, and the log goes on.
"""

import sys
import threading

import pytest

from postcache import POSTCache
from postcache.log import Log
from postcache.ports import Directory

FILES = ("/postcache/log/slots.py", "/postcache/log/journal.py")


def record(n, size):
    return b'{"n":%d%s}' % (n, b" " * (size - 6 - len(str(n))))


class Bomb:
    """Raises `error` at the n-th line that runs in FILES; `left` stays above 0 without one."""

    def __init__(self, n, error):
        self.left = n
        self.error = error

    def __enter__(self):
        sys.settrace(self.trace)
        return self

    def __exit__(self, *args):
        sys.settrace(None)

    def trace(self, frame, event, arg):
        if not frame.f_code.co_filename.endswith(FILES):
            return None
        if event == "line":
            self.left -= 1
            if self.left == 0:
                raise self.error
        return self.trace


# Sizes of the records that are added while the bomb ticks; six are there, and two delivered.
WAYS = {
    "a slot": [[40]],
    "slots that were delivered, then a segment": [[40]] * 5,
    "a segment": [[600]],
    "a group": [[40, 40, 40, 90]],
    "a group that is a segment": [[40] * 9],
}


# A file that had just been opened is closed by the collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
@pytest.mark.parametrize("slot_size", [0, 128])
@pytest.mark.parametrize("way", WAYS)
def test_no_exception_at_any_line_loses_what_was_stored(way, slot_size, error, tmp_path):
    def directory():
        fs = Directory(path)
        fs.slots = 8
        return fs

    n = 0
    left = 0
    while left <= 0:
        n += 1
        path = tmp_path / str(n)
        log = Log(directory(), None, slot_size)
        for i in range(1, 7):
            log.append([record(i, 40)])
        log.ack(1, 2, 0)
        stored = {i: record(i, 40) for i in range(3, 7)}
        raised = set()
        value = 100
        with Bomb(n, error) as bomb:
            for group in WAYS[way]:
                payloads = []
                for size in group:
                    value += 1
                    payloads.append(record(value, size))
                try:
                    last = log.append(payloads)
                    for i, payload in enumerate(reversed(payloads)):
                        assert last - i not in stored
                        stored[last - i] = payload
                except (MemoryError, KeyboardInterrupt):
                    raised.update(payloads)
        left = bomb.left
        # The log goes on, and so does its reader.
        for size in (40, 40, 300, 40):
            value += 1
            seq = log.append([record(value, size)])
            assert seq not in stored
            stored[seq] = record(value, size)
        assert dict(log.read(None)) == stored, n
        log.close()
        log = Log(directory(), None, slot_size)
        found = list(log.read(None))
        assert [seq for seq, _ in found] == sorted({seq for seq, _ in found})
        assert {seq: payload for seq, payload in found if seq in stored} == stored, n
        assert {payload for seq, payload in found if seq not in stored} <= raised
        log.close()
    assert n > 8


def test_a_sender_beside_an_adding_thread_loses_nothing_from_slots(tmp_path):
    # The sender reads slots while they are written out and used again.
    class Server:
        def __init__(self):
            self.lines = []

        def post(self, url, headers, chunks, timeout):
            body = b"".join(chunks).decode()
            first = int(headers["Postcache-First"])
            numbers = [int(n) for n in body[len('{"lines":[') : -2].split(",")]
            self.lines += zip(range(first, first + len(numbers)), numbers)
            return 200, {}

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for life in range(12):
            server = Server()
            path = tmp_path / str(life)
            cache = POSTCache("http://x/", path, async_interval=0.0005, slot_size=128, http=server)
            for n in range(1, 151):
                assert cache.add_request(n) == n
            cache.close()
            with POSTCache("http://x/", path, http=server) as cache:
                assert cache.flush()
            assert sorted(dict(server.lines)) == list(range(1, 151))
            assert all(seq == n for seq, n in server.lines)
    finally:
        sys.setswitchinterval(interval)


def test_what_is_added_while_close_sends_is_stored(tmp_path):
    # flush_every holds it, and close() has stored what was held already.
    entered, go_on = threading.Event(), threading.Event()

    class Slow:
        def post(self, url, headers, chunks, timeout):
            b"".join(chunks)
            entered.set()
            assert go_on.wait(10)
            return 200, {}

    cache = POSTCache("http://x/", tmp_path, async_interval=60, flush_every=9, http=Slow())
    assert cache.add_request(1) == 1
    closing = threading.Thread(target=cache.close)
    closing.start()
    assert entered.wait(10)
    assert cache.add_request(2) == 2
    go_on.set()
    closing.join()
    with POSTCache(None, tmp_path) as cache:
        assert 2 in [seq for seq, _ in cache.storage.read(None)]
