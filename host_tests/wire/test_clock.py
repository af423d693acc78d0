"""The time of records that many threads add, and of what a whole cache sends (CPython)."""

import json
import threading

from postcache import POSTCache
from postcache.log import Log
from postcache.ports import Directory, Group, cpython, dumps
from postcache.send.stamps import Stamps

START = 1763697600


class Clock(cpython.Clock):
    """A clock that is not set until `date` is."""

    date = None

    def unix(self):
        return self.date


class Http:
    """A server that takes everything, or answers `status`."""

    def __init__(self):
        self.status = 200
        self.bodies = []

    def post(self, url, headers, chunks, timeout):
        self.bodies.append(b"".join(chunks))
        return self.status, {}

    def times(self):
        return [r["ts"] for body in self.bodies for r in json.loads(body)["lines"]]


def in_threads(n, call):
    """Run `call(i)` in n threads at the same time; raises what one of them raised."""
    barrier = threading.Barrier(n)
    errors = []

    def run(i):
        barrier.wait(20)
        try:
            call(i)
        except Exception as e:
            errors.append(e)

    threads = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive(), "deadlock"
    assert errors == []


def test_threads_share_one_boot_number_and_one_write(tmp_path):
    fs = Directory(tmp_path)
    log = Log(fs)
    clock = Clock()
    stamps = Stamps(log, clock, "ts")
    append = Group(log).append

    def add(i):
        for j in range(20):
            body = {"thread": i, "j": j}
            append([stamps.stamp(body, dumps(body))])

    in_threads(8, add)
    records = [json.loads(payload) for _, payload in log.read(None)]
    assert len(records) == 160 and {record["boot"] for record in records} == {1}
    assert (tmp_path / "clock-b").exists() and not (tmp_path / "clock-a").exists()

    clock.date = START
    in_threads(8, add)
    assert json.loads((tmp_path / "clock-a").read_text().split(" ", 2)[2])[0][2]  # the offset
    generation = (tmp_path / "clock-a").read_text().split()[1]
    assert generation == "2" and (tmp_path / "clock-b").read_text().split()[1] == "1"
    dated = [
        stamps.complete(seq, payload, False) if payload[:1] == b" " else payload
        for seq, payload in log.read(None)
    ]
    assert [json.loads(payload)["ts"] for payload in dated[160:]] == [START] * 160
    assert all(json.loads(payload)["ts"] <= START for payload in dated[:160])
    log.close()


def test_a_number_is_no_lower_than_that_of_records_before_it_in_ram(tmp_path):
    # flush_every: what is stamped is stored later, under a higher number.
    clock = Clock()
    options = {"flush_every": 4, "timestamp_key": "ts", "clock": clock, "http": Http()}
    for life in range(3):
        with POSTCache(None, tmp_path, **options) as cache:
            for _ in range(6):
                cache.add_request({"life": life})
    fs = Directory(tmp_path)
    log = Log(fs)
    boots = [(r["life"], r["boot"]) for r in [json.loads(p) for _, p in log.read(None)]]
    assert [life for life, _ in boots] == [0] * 6 + [1] * 6 + [2] * 6
    assert sorted(set(boots)) == [(0, 1), (1, 7), (2, 13)]
    log.close()


def test_a_cache_dates_what_waited_for_its_clock(tmp_path):
    clock = Clock()
    http = Http()
    options = {"timestamp_key": "ts", "clock": clock, "http": http, "async_interval": 3600}
    with POSTCache("http://localhost/", tmp_path, **options) as cache:
        cache.worker.stop(1000)  # this test sends
        for i in range(3):
            cache.add_request({"i": i})
        assert http.bodies == []
        clock.date = START
        cache.add_many([{"i": 3}, {"i": 4, "ts": "own"}])
        http.status = 503
        assert not cache.flush()
    clock = options["clock"] = Clock()
    http.status = 200
    with POSTCache("http://localhost/", tmp_path, **options) as cache:
        assert cache.flush()
    assert len(set(http.bodies)) == 1 and len(http.bodies) > 1  # the same bytes, also now
    times = http.times()[:5]
    assert times[3:] == [START, "own"]
    assert all(START - 60 <= time <= START for time in times[:3])


def test_flush_sends_null_rather_than_wait(tmp_path):
    http = Http()
    cache = POSTCache("http://localhost/", tmp_path, timestamp_key="ts", clock=Clock(), http=http)
    cache.add_request({})
    assert http.bodies == [] and len(cache) == 1
    assert cache.flush() and http.times() == [None]
    cache.close()
