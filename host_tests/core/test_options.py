"""What a program may ask for: storage policies, confirmation, events, and what stats tell."""

from support import MICROPYTHON, Clock, Http, folder, raises

from postcache import POSTCache, ports
from postcache.log.ages import Ages

FULL = (28, "full")


class Idle:
    """A worker that does nothing: only flush() sends."""

    def __init__(self, uplink):
        pass

    def stop(self, ms):
        pass


class Ports:
    """What postcache.ports has, but for the worker."""

    def __init__(self, worker):
        self.Worker = worker

    def __getattr__(self, name):
        return getattr(ports, name)


def make(http=None, path=None, worker=Idle, **options):
    clock = Clock()
    http = http or Http()
    options["ports"] = Ports(worker)
    return POSTCache("http://x/", path or folder(), 60, http=http, clock=clock, **options), clock


def fill(cache, add):
    """Add records until the log is full; return their numbers, and what happened then."""
    numbers = []
    while len(numbers) < 5000:
        try:
            seq = add({"n": len(numbers), "text": "x" * 200})
        except OSError as e:
            return numbers, e
        if not seq:
            return numbers, 0
        numbers.append(seq)
        if cache.stats["dropped"]:
            return numbers, None
    raise AssertionError("never full")


def test_bad_options_are_value_errors_before_anything_is_made():
    path = folder()
    for bad in (
        {"on_full": "drop"},
        {"on_full": None},
        {"max_age": 0},
        {"max_age": -1},
        {"on_event": "print"},
        {"online": True},
        {"confirm": "yes"},
        {"confirm": 1},
        {"timestamp_key": ""},
        {"timestamp_key": 1},
        {"verify": None},
        {"verify": 0},
        {"verify": "/ca.pem"},
        {"feed": 1},
    ):
        raises(ValueError, POSTCache, "http://x/", path, 60, http=Http(), **bad)
    import os

    raises(OSError, os.stat, path)


# --- Full ---


def test_full_drops_the_oldest_by_default_and_counts():
    http = Http(default=500)
    cache, _clock = make(http, max_bytes=40000)
    numbers, _ = fill(cache, cache.add_request)
    dropped = cache.stats["dropped"]
    assert 0 < dropped < len(numbers) // 2
    http.default = 200
    while not cache.flush():
        pass
    assert [line["n"] for line in http.lines()] == list(range(dropped, len(numbers)))
    cache.close()


def test_drop_newest_keeps_what_is_there():
    path = folder()
    http = Http(default=500)
    events = []
    options = {"max_bytes": 40000, "on_full": "drop_newest"}
    cache, _ = make(
        http, path, on_event=lambda kind, detail: events.append((kind, detail)), **options
    )
    numbers, end = fill(cache, cache.add_request)
    assert end == 0 and numbers == list(range(1, len(numbers) + 1))
    assert cache.add_many([{"n": -1, "text": "x" * 200}] * 3) == 0
    assert cache.stats["dropped"] == 4 and len(cache) == len(numbers)
    assert [detail["records"] for kind, detail in events if kind == "dropped"] == [1, 3]
    assert events[-1] == ("dropped", {"records": 3, "total": 4, "why": "full"})
    http.default = 200
    assert cache.flush()
    assert [line["n"] for line in http.lines()] == list(range(len(numbers)))
    # There is room again, and the numbers go on.
    assert cache.add_request({"n": 7}) == len(numbers) + 1
    assert cache.flush()
    cache.close()
    cache, _clock = make(http, path, **options)
    assert cache.stats["dropped"] == 4
    cache.close()


def test_raise_tells_the_caller_and_stores_nothing():
    http = Http(default=500)
    cache, _clock = make(http, max_bytes=40000, on_full="raise")
    numbers, e = fill(cache, cache.add_request)
    assert e.args == FULL and len(cache) == len(numbers)
    for _ in range(3):
        assert raises(OSError, cache.add_request, {"n": 1, "text": "x" * 200}).args == FULL
    assert cache.stats["dropped"] == 0 and len(cache) == len(numbers)
    http.default = 200
    assert cache.flush()
    assert [line["n"] for line in http.lines()] == list(range(len(numbers)))
    assert cache.add_request({"n": 1})
    cache.close()


def test_policies_hold_for_slots_and_for_records_that_are_held():
    for on_full in ("drop_newest", "raise"):
        for options in ({"slot_size": 128}, {"flush_every": 5}):
            http = Http(default=500)
            cache, _clock = make(http, max_bytes=40000, on_full=on_full, **options)
            numbers, end = fill(cache, cache.add_request)
            assert end == 0 if on_full == "drop_newest" else end.args == FULL
            assert len(cache) == len(numbers)
            http.default = 200
            assert cache.flush() or cache.flush()  # what is held has room after the first
            assert [line["n"] for line in http.lines()] == list(range(len(numbers)))
            cache.close()


def test_what_is_held_is_not_lost_when_the_log_is_full():
    for on_full in ("drop_newest", "raise"):
        path = folder()
        cache, _clock = make(Http(default=500), path, max_bytes=40000, on_full=on_full)
        fill(cache, cache.add_request)
        count = len(cache)
        cache.close(0)
        cache, _clock = make(
            Http(default=500), path, max_bytes=40000, on_full=on_full, flush_every=3
        )
        assert cache.add_request({"n": 1, "text": "x" * 200}) == count + 1
        assert raises(OSError, cache.flush).args == FULL
        assert len(cache) == count + 1  # still held
        assert raises(OSError, cache.close).args == FULL
        cache.http.default = 200
        cache.flush()
        assert cache.flush()
        assert len(cache.http.lines()) == count + 1
        cache.close()


def test_a_real_error_of_the_disk_is_raised_whatever_the_policy():
    cache, _clock = make(on_full="drop_newest")
    log = cache.storage

    def broken(*args):
        raise OSError(28)

    log.journal.append = broken
    assert raises(OSError, cache.add_request, 1).args == (28,)
    assert cache.stats["dropped"] == 0
    del log.journal.append
    cache.close()


def test_newest_only():
    # As the documentation says: a small log that drops the oldest.
    http = Http(default=500)
    cache, _clock = make(http, max_bytes=4096)
    for n in range(2000):
        cache.add_request({"n": n})
    http.default = 200
    while len(cache):
        cache.flush()
    numbers = [line["n"] for line in http.lines()]
    assert numbers == list(range(2000 - len(numbers), 2000))
    assert 0 < len(numbers) <= 4096 * 2 // 20
    assert cache.stats["dropped"] == 2000 - len(numbers)
    cache.close()


# --- Age ---


def test_what_is_too_old_is_dropped_counted_and_not_sent():
    http = Http(default=500)
    events = []
    cache, clock = make(
        http, max_age=3600, on_event=lambda kind, detail: events.append((kind, detail))
    )
    for n in range(100):
        cache.add_request({"n": n})
        clock.now += 60000
    # The first is 6000 s old by now, the last one 60 s.
    http.default = 200
    http.posts.clear()
    assert cache.flush()
    numbers = [line["n"] for line in http.lines()]
    dropped = cache.stats["dropped"]
    assert numbers == list(range(dropped, 100))
    # Never too early, and at most a sixteenth of max_age late.
    assert 100 - 60 - 4 <= dropped <= 100 - 60
    told = [detail for kind, detail in events if kind == "dropped"]
    assert sum([detail["records"] for detail in told]) == dropped == told[-1]["total"]
    assert [detail for detail in told if detail["why"] != "age"] == []
    assert cache.stats["sent"] == 100 - dropped
    cache.close()


def test_all_of_it_may_be_too_old():
    http = Http(default=500)
    cache, clock = make(http, max_age=60)
    for n in range(5):
        cache.add_request({"n": n})
    cache.flush()  # one try, so a batch is in flight
    clock.now += 100000
    http.default = 200
    assert cache.flush()
    assert http.lines() == [] and cache.stats["dropped"] == 5 and len(cache) == 0
    cache.add_request({"n": 5})
    assert cache.flush()
    assert http.lines() == [{"n": 5}]
    cache.close()


def test_what_is_too_old_goes_also_when_no_try_is_due():
    http = Http((503, {"retry-after": "600"}))
    cache, clock = make(http, worker=None, max_age=60)
    cache.add_request(0)
    for n in range(1, 100):
        clock.now += 5000
        cache.add_request(n)
        assert cache.stats["age_ms"] <= 60000 + 60000 // 16 + 5000
    assert cache.stats["dropped"] >= 80
    cache.close(0)
    cache, clock = make(None, max_age=60)
    cache.outbox = None  # store only
    for n in range(100):
        clock.now += 5000
        cache.add_request(n)
    assert 85 <= cache.stats["dropped"] <= 90
    cache.close(0)


def test_time_in_which_nobody_ran_does_not_count():
    path = folder()
    cache, clock = make(Http(default=500), path, max_age=60)
    cache.add_request(1)
    clock.now += 50000
    cache.close()
    http = Http()
    cache, clock = make(http, path, max_age=60)
    clock.now += 50000
    assert cache.flush() and http.lines() == [1]
    cache.close()


def test_ages_are_never_too_old_and_take_little_room():
    class Log:
        acked = 0
        stored = 0
        old = dropped = 0
        lock = ports.Lock()

        def give_up(self, first, last):
            self.old = last
            return 0

        def clean(self):
            pass

    log = Log()
    clock = Clock()
    for most in (0, 1000, 100000, 2000000):
        ages = Ages(log, clock, most)
        log.acked = log.stored
        first = log.stored
        times = []
        for n in range(1, 2000):
            clock.now += 1 + n * 7919 % 5000
            log.stored += 1
            times.append(clock.now)
            ages.note()
            if n % 37 == 0:
                log.acked += n % 20
            log.old = 0
            ages.expire()
            if log.old:
                assert clock.now - times[log.old - first - 1] > most
                log.acked = max(log.acked, log.old)
            oldest = clock.now - times[min(log.acked - first, len(times) - 1)]
            assert ages.oldest() <= oldest
            if most:
                assert oldest <= most + most // 16 + 5000 or log.acked == log.stored
        assert len(ages._marks) <= 34
        if log.acked < log.stored:
            assert ages.oldest() > oldest // 2 - 5000  # and worth knowing
    log.acked = log.stored
    assert ages.oldest() == 0


# --- Confirmation ---


def test_ack_wants_the_number_back():
    answers = [
        (200, {}),
        (200, {"postcache-ack": "2"}),
        (200, {"postcache-ack": ""}),
        (200, {"postcache-ack": "true"}),
        (204, {"postcache-ack": "1, 3"}),
        (500, {"postcache-ack": "3"}),
    ]
    http = Http(*answers)
    cache, _clock = make(http, confirm="ack")
    for n in range(3):
        cache.add_request(n)
    for status, _ in answers:
        assert not cache.flush()
        stats = cache.stats
        assert stats["waiting"] == 3 and stats["sent"] == 0
        assert stats["error"] == "HTTP %d%s" % (status, "" if status == 500 else ", not confirmed")
        assert stats["next_try_ms"] < 64000
    http.answers.append((200, {"postcache-ack": "3"}))
    assert cache.flush()
    assert len(cache) == 0
    assert [post for post in http.posts if post != http.posts[0]] == []
    cache.close()


def test_a_callable_sees_the_answer_and_decides():
    seen = []

    def confirm(status, headers, start):
        seen.append((status, headers, start))
        return start == b"stored"

    http = Http(
        (200, {"a": "b"}, b"<html>login"), (201, {}), (302, {}, b"stored"), (202, {}, b"stored")
    )
    cache, _clock = make(http, confirm=confirm)
    cache.add_request(1)
    assert [cache.flush() for _ in range(4)] == [False, False, False, True]
    # Only asked about answers that would count.
    assert seen == [(200, {"a": "b"}, b"<html>login"), (201, {}, b""), (202, {}, b"stored")]
    cache.close()


def test_a_callable_that_raises_confirms_nothing():
    def confirm(status, headers, start):
        raise KeyError("secret")

    cache, _clock = make(confirm=confirm)
    cache.add_request(1)
    assert not cache.flush()
    assert len(cache) == 1 and cache.stats["error"] == "KeyError"
    cache.close()


# --- Compression ---


def test_415_ends_compression_for_good():
    from postcache.ports.gzipped import available

    events = []
    http = Http(415)
    cache, _clock = make(
        http, compress=True, on_event=lambda kind, detail: events.append((kind, detail))
    )
    for n in range(3):
        cache.add_request(n)
    assert cache.flush()
    cache.add_request(3)
    assert cache.flush()
    encodings = [headers.get("Content-Encoding") for headers, _ in http.posts]
    if available():
        assert encodings == ["gzip", None, None]
        assert http.posts[0][0]["Idempotency-Key"] == http.posts[1][0]["Idempotency-Key"]
        assert events == [("plain", {})]
        assert http.lines() == [0, 1, 2, 3]
    else:  # firmware that cannot: told, and sent all the same
        assert encodings == [None] * len(encodings)
        assert ("plain", {}) in events
    cache.close()


# --- Online ---


def test_offline_nothing_is_tried_and_nothing_counts_as_failed():
    http = Http()
    state = [False]
    cache, clock = make(http, worker=None, online=lambda: state[0])
    cache.add_request(1)
    for _ in range(50):
        cache.poll()
        clock.now += 1000
    assert not cache.flush()
    stats = cache.stats
    assert http.posts == [] and stats["retries"] == 0 and stats["error"] == "offline"
    assert stats["next_try_ms"] == 1000  # no back-off: a second after the link is up it goes on
    state[0] = True
    clock.now += 1000
    cache.poll()
    assert len(cache) == 0 and cache.stats["error"] is None
    cache.close()


def test_offline_a_back_off_is_not_forgotten():
    http = Http((503, {"retry-after": "300"}))
    state = [True]
    cache, clock = make(http, worker=None, online=lambda: state[0])
    cache.add_request(1)
    state[0] = False
    assert not cache.flush()
    assert cache.stats["next_try_ms"] >= 300000
    state[0] = True
    clock.now += 299999
    cache.poll()
    assert len(http.posts) == 1
    cache.close(0)


def test_online_is_asked_before_each_try_also_of_a_batch_that_is_in_flight():
    asked = []
    http = Http(500)
    cache, _clock = make(http, online=lambda: asked.append(1) or len(asked) != 2)
    cache.add_request(1)
    assert [cache.flush() for _ in range(3)] == [False, False, True]
    assert len(asked) == 3 and len(http.posts) == 2
    cache.close()


def test_online_that_raises_is_a_failed_try():
    def online():
        raise OSError(5)

    http = Http()
    cache, _clock = make(http, online=online)
    cache.add_request(1)
    assert not cache.flush()
    assert http.posts == [] and cache.stats["error"] == "OSError 5"
    assert cache.stats["retries"] == 1
    cache.close()


# --- Events ---


def test_recovered_is_told_by_a_delivery_and_by_nothing_else():
    kinds = []
    http = Http(503, 400, 400, 200)
    cache, _clock = make(http, on_event=lambda kind, detail: kinds.append(kind))
    cache.add_many([1, 2])
    cache.flush()
    assert kinds == ["error"]
    cache.flush()  # halved, set aside, and then the other one is delivered
    assert kinds == ["error", "rejected", "recovered"]
    cache.close(0)


def test_a_drop_that_arrived_all_the_same_hides_no_later_one():
    events = []
    cache, _clock = make(on_event=lambda kind, detail: events.append(detail))
    log = cache.storage
    log.dropped = 50
    cache.add_request(1)
    log.dropped = 20
    cache.add_request(2)
    log.dropped = 45
    cache.add_request(3)
    assert [detail["records"] for detail in events] == [50, 25]
    log.dropped = 0
    cache.close(0)


def test_events_tell_of_trouble_once_and_of_its_end():
    events = []
    http = Http(500, 500, 401, OSError(104), 200, (422, {}, b"n\x00t \xffthis"), 200)
    cache, _clock = make(http, on_event=lambda kind, detail: events.append((kind, detail)))
    cache.add_request(1)
    for _ in range(5):
        cache.flush()
    assert [kind for kind, _ in events] == ["error", "error", "error", "recovered"]
    details = [(d["error"], d["blocked"]) for _, d in events[:3]]
    assert details == [("HTTP 500", False), ("HTTP 401", True), ("OSError 104", False)]
    assert events[1][1]["next_try_ms"] >= 150000
    events.clear()
    cache.add_request(2)
    cache.flush()
    rejected = {"number": 2, "status": 422, "reason": "n?t ?this"}
    assert events[0] == ("rejected", rejected)
    cache.close()


def test_a_callback_that_raises_or_comes_back_in_does_no_harm():
    def callback(kind, detail):
        cache.stats
        cache.add_request({"kind": kind})
        raise RuntimeError("secret")

    http = Http(500)
    cache, _clock = make(http, on_event=callback)
    cache.add_request(1)
    try:
        assert not cache.flush()
    except RuntimeError:
        raise AssertionError("it came out")
    assert cache.stats["errors"] == 1
    cache.flush()
    cache.flush()
    assert http.lines() == [1, {"kind": "error"}, {"kind": "recovered"}]
    cache.close()


def test_damage_is_told():
    path = folder()
    cache, _ = make(Http(default=500), path)
    for n in range(3):
        cache.add_request(n)
    cache.close()
    name = path + "/0000000001.log"
    try:
        with open(name, "rb") as f:
            data = f.read()
    except OSError:
        return  # slots: none of these is in a segment
    with open(name, "wb") as f:
        f.write(b"?" + data[1:])
    events = []
    cache, _clock = make(path=path, on_event=lambda kind, detail: events.append((kind, detail)))
    assert cache.flush()
    assert ("damaged", {"pieces": 1}) in events
    cache.close()


# --- Stats ---


def test_stats_tell_what_an_operator_asks():
    http = Http(500, default=200)
    cache, clock = make(http)
    stats = cache.stats
    assert stats["age_ms"] == 0 and stats["waiting"] == 0
    before = stats["writes"]
    cache.add_request({"n": 1})
    clock.now += 5000
    cache.add_request({"n": 2})
    clock.now += 1000
    stats = cache.stats
    assert stats["age_ms"] == 6000 and stats["waiting"] == 2
    assert stats["writes"] == before + 2
    assert stats["bytes"] > 0 or MICROPYTHON  # littlefs and we count what takes no block as 0
    assert not cache.flush()
    assert cache.stats["writes"] == before + 3  # the batch is frozen
    assert cache.flush()
    stats = cache.stats
    assert stats["age_ms"] == 0 and stats["sent"] == 2 and stats["status"] == 200
    assert stats["blocked"] is False and stats["rejected"] == 0
    cache.close()
    assert cache.stats["sent"] == 2  # also after the end
