"""
Many threads on one cache (CPython): who shares a sync, what a failure costs, and who never dies.
"""

import atexit
import collections
import json
import linecache
import sys
import threading

import pytest

from postcache import POSTCache
from postcache.ports import Clock as RealClock
from postcache.ports import Group
from postcache.ports.cpython import files

URL = "http://localhost/"


class Http:
    """An http port in memory; `before` is called in each post and may block or raise."""

    def __init__(self, before=None):
        self.before = before
        self.rows = []
        self.ranges = []
        self.changed = threading.Condition()

    def post(self, url, headers, chunks, timeout):
        rows = json.loads(b"".join(chunks))["lines"]
        if self.before:
            self.before()
        with self.changed:
            self.ranges.append((int(headers["Postcache-First"]), int(headers["Postcache-Last"])))
            self.rows += rows
            self.changed.notify_all()
        return 200, {}

    def wait_for(self, n):
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.rows) >= n, 20), self.rows

    def check_each_once_in_order(self):
        """The batches follow each other: every number once, none left out."""
        assert self.ranges[0][0] == 1
        for (_, last), (first, _) in zip(self.ranges, self.ranges[1:]):
            assert first == last + 1

    def close(self):
        pass


class Clock(RealClock):
    """A clock that passes over every back-off."""

    def __init__(self):
        self.jumps = 0

    def ticks_ms(self):
        self.jumps += 3600_000
        return super().ticks_ms() + self.jumps


class Thread(threading.Thread):
    """A thread that hands over what it returned or raised."""

    def __init__(self, call, *args):
        super().__init__(daemon=True)  # a test that fails must not hang at the end, too
        self._call = lambda: call(*args)
        self._result = self._error = None
        self.start()

    def run(self):
        try:
            self._result = self._call()
        except Exception as e:
            self._error = e

    def result(self):
        self.join(20)
        assert not self.is_alive(), "deadlock"
        if self._error:
            raise self._error
        return self._result


class Queue(collections.deque):
    """Stands in for group commit's queue: wait(n) returns when n records have been queued; one
    that finds nobody else is not."""

    def __init__(self, cache):
        super().__init__()
        self._came = threading.Semaphore(0)
        group = cache.commit.__self__
        assert not group._queue
        group._queue = self

    def append(self, entry):
        super().append(entry)
        self._came.release()

    def wait(self, n):
        for _ in range(n):
            assert self._came.acquire(timeout=20)


class Syncs:
    """Counts the syncs of files; the first one waits for go_on(), `fail` makes later ones fail."""

    def __init__(self, monkeypatch):
        self.count = 0
        self.fail = set()
        self._begun = threading.Event()
        self._go_on = threading.Event()
        self._sync = files._sync
        monkeypatch.setattr(files, "_sync", self)

    def __call__(self, fd):
        self.count += 1
        if self.count in self.fail:
            raise OSError(5, "Input/output error")
        self._begun.set()
        assert self._go_on.wait(20)
        self._sync(fd)

    def wait(self):
        assert self._begun.wait(20)

    def go_on(self):
        self._go_on.set()


def delivered(path):
    """[(number, record)] of what waits in a log, as a server would get it."""
    http = Http()
    with POSTCache(URL, path, http=http, upload_limit=1) as cache:
        while not cache.flush():
            pass
    return [(first, row) for (first, _), row in zip(http.ranges, http.rows)]


# --- adding ---


@pytest.mark.parametrize("interval", [None, 0.001], ids=["sync", "async"])
def test_eight_threads_lose_nothing_and_share_no_number(server, tmp_path, interval):
    together = threading.Barrier(8)
    told = {}

    def add(name):
        together.wait(60)
        for i in range(100):
            told[cache.add_request([name, i])] = [name, i]

    cache = POSTCache(server.url, tmp_path, interval, timeout=60, upload_limit=50)
    for thread in [Thread(add, name) for name in range(8)]:
        thread.result()
    assert cache.flush()
    cache.close()
    assert sorted(told) == list(range(1, 801))
    assert {number: row for _, number, row in server.receiver.records} == told
    assert server.receiver.raw_count == 800, "each was sent once"
    for name in range(8):
        own = [row[1] for row in server.receiver.lines if row[0] == name]
        assert own == list(range(100)), "out of the order in which one thread added"


def test_threads_that_add_at_the_same_time_share_one_sync(tmp_path, monkeypatch):
    cache = POSTCache(None, tmp_path)
    cache.storage.fs.step = 0  # a step of zeros has a sync of its own
    queue = Queue(cache)
    syncs = Syncs(monkeypatch)
    threads = [Thread(cache.add_request, "first")]
    syncs.wait()
    threads += [Thread(cache.add_request, "later") for _ in range(7)]
    queue.wait(7)
    syncs.go_on()
    assert sorted(thread.result() for thread in threads) == list(range(1, 9))
    assert syncs.count == 2, "one for the first, one for all the others"
    cache.close()
    monkeypatch.undo()
    assert delivered(tmp_path) == [(1, "first")] + [(n, "later") for n in range(2, 9)]


def test_an_add_returns_only_after_its_own_sync(tmp_path, monkeypatch):
    cache = POSTCache(None, tmp_path)
    queue = Queue(cache)
    syncs = Syncs(monkeypatch)
    first = Thread(cache.add_request, 1)
    syncs.wait()
    second = Thread(cache.add_request, 2)
    queue.wait(1)
    # Both records are in memory, one of them is written; none may be told stored.
    assert first.is_alive()
    assert second.is_alive()
    assert len(cache) == 0
    syncs.go_on()
    assert (first.result(), second.result()) == (1, 2)
    cache.close()


# --- adding while somebody sends ---


def test_an_add_while_another_thread_sends_returns_and_is_sent_by_that_one(tmp_path):
    sending = threading.Semaphore(0)
    answer = threading.Semaphore(0)

    def before():
        sending.release()
        assert answer.acquire(timeout=60)

    http = Http(before)
    cache = POSTCache(URL, tmp_path, http=http, timeout=600)
    sender = Thread(cache.add_request, 1)
    assert sending.acquire(timeout=60)
    numbers = [Thread(cache.add_request, n).result() for n in (2, 3, 4)]
    assert numbers == [2, 3, 4]
    assert http.rows == [], "they did not wait for the server"
    answer.release(2)
    assert sender.result() == 1
    assert http.rows == [1, 2, 3, 4]
    http.check_each_once_in_order()
    assert len(cache) == 0
    cache.close()


def test_four_threads_that_add_and_send_leave_nothing_behind(server, tmp_path):
    """Whoever finds another thread sending relies on it; nobody must be forgotten."""
    cache = POSTCache(server.url, tmp_path, timeout=600)

    def add(name):
        for i in range(50):
            cache.add_request([name, i])

    for thread in [Thread(add, name) for name in range(4)]:
        thread.result()
    assert len(cache) == 0, "no flush was needed"
    cache.close()
    assert len(server.receiver.lines) == server.receiver.raw_count == 200


def test_flush_from_several_threads_delivers_once(tmp_path):
    with POSTCache(None, tmp_path) as cache:
        for n in range(200):
            cache.add_request(n)
    http = Http()
    together = threading.Barrier(6)

    def flush():
        together.wait(60)
        return cache.flush()

    cache = POSTCache(URL, tmp_path, http=http, upload_limit=3, timeout=60)
    assert [thread.result() for thread in [Thread(flush) for _ in range(6)]] == [True] * 6
    cache.close()
    assert http.rows == list(range(200))
    http.check_each_once_in_order()


# --- failures ---


def grouped_failure(cache, queue, syncs, n):
    """One add that is being synced, then `n` more that share the commit that fails."""
    first = Thread(cache.add_request, "first")
    syncs.wait()
    threads = [Thread(cache.add_request, ["failed", i]) for i in range(n)]
    queue.wait(n)
    syncs.go_on()
    assert first.result() == 1
    for thread in threads:
        with pytest.raises(OSError, match="Input/output error"):
            thread.result()


@pytest.mark.parametrize("how", ["sync", "sync of zeros", "write", "half a write"])
def test_a_failed_commit_fails_for_all_who_shared_it_and_for_nobody_else(
    tmp_path, monkeypatch, how
):
    cache = POSTCache(None, tmp_path)
    if how != "sync of zeros":
        cache.storage.fs.step = 0
    queue = Queue(cache)
    syncs = Syncs(monkeypatch)
    write = files._Segment.write
    writes = []

    def failing_write(file, data):
        writes.append(data)
        if len(writes) != 2:
            write(file, data)
            return
        if how == "half a write":
            write(file, data[: len(data) * 2 // 3])
        raise OSError(5, "Input/output error")

    if "sync" in how:
        syncs.fail = {2}
    else:
        monkeypatch.setattr(files._Segment, "write", failing_write)
    grouped_failure(cache, queue, syncs, 5)
    assert len(cache) == 1, "a record that could not be stored does not wait"
    numbers = [cache.add_request(["later", i]) for i in range(3)]
    cache.close()
    monkeypatch.undo()
    with POSTCache(None, tmp_path) as cache:
        numbers.append(cache.add_request("reopened"))
    assert len({1, *numbers}) == 5, "a number was given out twice"
    assert numbers == sorted(numbers)
    assert delivered(tmp_path) == list(
        zip([1, *numbers], ["first", ["later", 0], ["later", 1], ["later", 2], "reopened"])
    )


def test_after_a_failed_commit_numbers_are_fresh_for_an_instance_that_opens_next(
    tmp_path, monkeypatch
):
    """Closed or killed right after the failure, with what it left behind still on the disk."""
    cache = POSTCache(None, tmp_path)
    queue = Queue(cache)
    syncs = Syncs(monkeypatch)
    syncs.fail = {2}
    grouped_failure(cache, queue, syncs, 5)
    cache.close()
    monkeypatch.undo()
    with POSTCache(None, tmp_path) as cache:
        number = cache.add_request("later")
    rows = delivered(tmp_path)
    assert collections.Counter(n for n, _ in rows).most_common(1)[0][1] == 1
    assert rows[0] == (1, "first")
    assert rows[-1] == (number, "later")
    # What an add failed for may be there or not, as after a power cut; if so, once.
    rest = [tuple(row) for _, row in rows[1:-1]]
    assert len(set(rest)) == len(rest)


def test_a_disk_that_takes_a_few_bytes_at_a_time_gets_all_of_them(tmp_path, monkeypatch):
    cache = POSTCache(None, tmp_path)
    write = files.os.pwrite
    monkeypatch.setattr(files.os, "pwrite", lambda fd, data, at: write(fd, data[:7], at))
    numbers = [cache.add_request({"pad": "x" * n}) for n in range(50)]
    monkeypatch.undo()
    cache.close()
    assert delivered(tmp_path) == [(n, {"pad": "x" * (n - 1)}) for n in numbers]


def test_failing_commits_under_load_cost_exactly_those_that_were_told(
    server, tmp_path, monkeypatch
):
    sync = files._sync
    count = [0]

    def failing(fd):
        count[0] += 1
        if count[0] % 7 == 0:
            raise OSError(5, "Input/output error")
        sync(fd)

    cache = POSTCache(None, tmp_path)
    monkeypatch.setattr(files, "_sync", failing)
    told = {}
    refused = []

    def add(name):
        for i in range(60):
            try:
                told[cache.add_request([name, i])] = [name, i]
            except OSError:
                refused.append([name, i])

    for thread in [Thread(add, name) for name in range(8)]:
        thread.result()
    monkeypatch.undo()
    cache.add_request("last")
    cache.close()
    assert len(told) + len(refused) == 480, "a number was given out twice"
    assert refused
    with POSTCache(server.url, tmp_path) as cache:
        assert cache.flush()
    sent = {number: row for _, number, row in server.receiver.records if row != "last"}
    assert sent == told


@pytest.mark.parametrize(
    "error",
    [ValueError("?"), MemoryError(), SystemError("?"), OSError(), RecursionError(), KeyError(1)],
    ids=lambda error: type(error).__name__,
)
def test_the_worker_survives_every_exception_of_an_http_port(tmp_path, error):
    left = [3]

    def before():
        if left[0]:
            left[0] -= 1
            raise error

    http = Http(before)
    cache = POSTCache(URL, tmp_path, async_interval=0.001, http=http, clock=Clock())
    assert cache.add_request(1) == 1
    http.wait_for(1)
    assert left == [0]
    assert cache.add_request(2) == 2
    http.wait_for(2)
    assert cache.stats["retries"] == 3
    assert http.rows == [1, 2]
    http.check_each_once_in_order()
    cache.close()


def test_without_a_thread_to_send_in_nothing_is_left_open(tmp_path, monkeypatch):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    registered = []
    monkeypatch.setattr(atexit, "register", registered.append)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError) as failure:
        POSTCache(URL, tmp_path, async_interval=1, http=Http())
    assert registered == []
    POSTCache(None, tmp_path).close()  # although the traceback still has the first one
    assert failure.value


@pytest.mark.parametrize("answer", [None, "200", (200,), (None, {}), ("200", {})], ids=repr)
def test_the_worker_survives_an_http_port_that_returns_nonsense(tmp_path, answer):
    answers = [answer]

    class Odd(Http):
        def post(self, *args):
            good = super().post(*args)
            return answers.pop() if answers else good

    http = Odd()
    cache = POSTCache(URL, tmp_path, async_interval=0.001, http=http, clock=Clock())
    cache.add_request(1)
    http.wait_for(2)
    assert http.rows == [1, 1], "not delivered until the port says so"
    cache.close()


def test_ctrl_c_anywhere_in_an_add_leaves_the_next_one_working(tmp_path):
    """Interrupted at each line of the group commit in turn; the locks must be free again."""
    cache = POSTCache(None, tmp_path)
    code = {
        function.__code__ for function in vars(Group).values() if hasattr(function, "__code__")
    }
    interrupted = 0

    def add(n):
        left = n
        seen = []

        def trace(frame, event, _):
            nonlocal left
            if frame.f_code not in code:
                return None
            # Not where the interpreter never looks for signals: a try, the way out of a with.
            line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
            again = line.startswith("with ") and (frame, line) in seen
            if event == "line" and line != "try:" and not again:
                seen.append((frame, line))
                left -= 1
                if left == 0:
                    raise KeyboardInterrupt
            return trace

        sys.settrace(trace)
        try:
            cache.add_request(["interrupted", n])
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(None)
        return False

    # In a thread of its own: there a deadlock is a failure.
    while Thread(add, interrupted + 1).result():
        interrupted += 1
        Thread(cache.add_request, ["after", interrupted]).result()
    assert interrupted > 5
    cache.close()
    rows = [row for _, row in delivered(tmp_path)]
    assert [row for row in rows if row[0] == "after"] == [
        ["after", n + 1] for n in range(interrupted)
    ]


# --- closing ---


@pytest.mark.parametrize("interval", [None, 0.001], ids=["sync", "async"])
def test_add_after_close_is_a_value_error(tmp_path, interval):
    cache = POSTCache(URL, tmp_path, interval, http=Http())
    cache.close()
    with pytest.raises(ValueError, match="closed"):
        cache.add_request(1)
    assert delivered(tmp_path) == []


@pytest.mark.parametrize("interval", [None, 0.001], ids=["sync", "async"])
def test_close_while_others_add_keeps_what_they_were_told(server, tmp_path, interval):
    told = []
    some = threading.Semaphore(0)

    def add(name):
        i = 0
        while True:
            try:
                number = cache.add_request([name, i])
            except (ValueError, OSError):
                return
            told.append((number, [name, i]))
            some.release()
            i += 1

    cache = POSTCache(server.url, tmp_path, interval)
    threads = [Thread(add, name) for name in range(4)]
    for _ in range(100):
        assert some.acquire(timeout=60)
    cache.close()
    for thread in threads:
        thread.result()
    with POSTCache(server.url, tmp_path) as cache:
        assert cache.flush()
    assert [(number, row) for _, number, row in server.receiver.records] == sorted(told)


def test_an_add_that_close_overtakes_is_refused_or_kept(tmp_path, monkeypatch):
    """It waits behind a commit while the log is closed, and another instance opens it."""
    cache = POSTCache(None, tmp_path)
    queue = Queue(cache)
    syncs = Syncs(monkeypatch)
    first = Thread(cache.add_request, 1)
    syncs.wait()
    second = Thread(cache.add_request, 2)
    queue.wait(1)
    closer = Thread(cache.close)
    syncs.go_on()
    closer.result()
    told = [(first.result(), 1)]
    try:
        told.append((second.result(), 2))
    except (ValueError, OSError):
        pass
    monkeypatch.undo()
    assert delivered(tmp_path) == told


def test_a_group_is_not_longer_than_the_longest_record():
    class Slow:
        max_record = 1000
        stored = 0

        @staticmethod
        def size_of(payloads):
            return sum(len(payload) + 30 for payload in payloads)

        def append(self, payloads):
            groups.append(payloads)
            begun.set()
            if len(groups) == 1:
                assert queued.wait(10)
            self.stored += len(payloads)
            return self.stored

    groups = []
    begun, queued = threading.Event(), threading.Event()
    group = Group(Slow())
    threads = [threading.Thread(target=group.append, args=([b"x" * 400],)) for _ in range(6)]
    threads[0].start()
    assert begun.wait(10)
    for thread in threads[1:]:
        thread.start()
    while len(group._queue) < 5:
        threading.Event().wait(0.001)
    queued.set()
    for thread in threads:
        thread.join()
    assert [len(payloads) for payloads in groups] == [1, 2, 2, 1]


def test_a_slot_that_the_disk_takes_a_part_of_is_not_stored(tmp_path, monkeypatch):
    cache = POSTCache(None, tmp_path / "log", slot_size=128)
    cache.add_request(1)
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "pwrite", lambda fd, data, offset: len(data) - 1)
        with pytest.raises(OSError, match="no space"):
            cache.add_request(2)
    assert len(cache) == 1
    assert cache.add_request(3) == 2
    cache.close()


def test_after_close_a_late_thread_cannot_write(tmp_path):
    cache = POSTCache(None, tmp_path / "log")
    log = cache.storage
    cache.close()
    with pytest.raises(OSError, match="closed"):
        log.append([b"1"])
    assert not list(tmp_path.glob("log/*.log"))
