"""POSTCache: what a program sees."""

import json

from support import MICROPYTHON, Clock, Http, folder, raises

from postcache import POSTCache
from postcache.log.line import encode
from postcache.ports import Directory


def make(path=None, http=None, **kwargs):
    kwargs.setdefault("clock", Clock())
    kwargs.setdefault("slot_size", 0)
    return POSTCache("http://server/x", path or folder(), http=http or Http(), **kwargs)


def test_a_record_is_sent_inside_add_request_together_with_the_backlog():
    path = folder()
    with POSTCache(None, path) as cache:
        assert [cache.add_request({"n": n}) for n in range(3)] == [1, 2, 3]
        assert len(cache) == 3
    http = Http()
    with make(path, http) as cache:
        assert cache.add_request({"n": 3}) == 4
        assert len(cache) == 0
    assert http.lines() == [{"n": n} for n in range(4)]


def test_any_json_value_is_a_record():
    http = Http()
    values = [
        None,
        True,
        False,
        0,
        -5,
        2**40,
        1.5,
        "",
        'é \n \t " \\ \x01',
        [],
        {},
        [[1, {"a": []}]],
    ]
    values.append({"nested": {"list": [1, 2, {"x": None}]}})
    with make(http=http) as cache:
        for value in values:
            cache.add_request(value)
    assert http.lines() == values


def test_what_is_no_json_is_a_value_error_and_nothing_is_written():
    class Thing:
        pass

    nan = float("nan")
    loop = []
    loop.append(loop)
    bad = [
        nan,
        float("inf"),
        -float("inf"),
        b"bytes",
        bytearray(b"x"),
        {1, 2},
        Thing(),
        Thing,
        print,
    ]
    bad += [[nan], {"a": [1, {"b": nan}]}, (1, b"x"), {"a": Thing()}, loop, {b"k": 1}, {(1, 2): 3}]
    bad.append("x" * 300000)
    if MICROPYTHON:
        from collections import namedtuple

        bad += [{1: 2}, namedtuple("P", "a")(1)]  # json.dumps writes {1: 2} and P(a=1) there
    http = Http()
    with make(http=http) as cache:
        for value in bad:
            raises(ValueError, cache.add_request, value)
            assert len(cache) == 0
        assert cache.add_request("good") == 1
        assert cache.stats["added"] == 1
    assert http.lines() == ["good"]


def test_json_dumps_arguments_are_taken_and_cannot_smuggle_in_what_is_no_json():
    http = Http()
    with make(http=http) as cache:
        cache.add_request({"a": [1, 2]}, separators=(",", ":"))
        raises(ValueError, cache.add_request, {"a": 1}, separators=(",", "="))
        raises(ValueError, cache.add_request, {"a": 1}, no_such_argument=1)
        if not MICROPYTHON:
            cache.add_request({"b": {1, 2}}, default=sorted, sort_keys=True, indent=2)
            raises(ValueError, cache.add_request, [float("nan")], allow_nan=True)
            raises(ValueError, cache.add_request, [{1}], default=lambda o: float("nan"))
        assert cache.add_request("end") == len(http.lines())
    assert http.posts[0][1] == b'{"lines":[{"a":[1,2]}]}'
    for _, body in http.posts:
        assert b"\n" not in body


def test_half_a_surrogate_pair_arrives_as_json():
    http = Http()
    text = json.loads('"\\ud83d\\ude00 \\ud800 \xed\x9f\xbf ok"')
    with make(http=http) as cache:
        cache.add_request(text)
    body = http.posts[0][1]
    assert b"\\ud83d\\ude00 \\ud800" in body
    assert http.lines() == [text]


def test_attributes_and_key_surround_the_records():
    http = Http()
    attributes = {"device": "g1", "rows": "hidden", "n": [1]}
    with make(http=http, top_level_attributes=attributes, data_key="rows") as cache:
        attributes["device"] = "changed later"  # a retry must repeat the same bytes
        cache.add_request(1)
        cache.add_request(2)
    assert [json.loads(body) for _, body in http.posts] == [
        {"rows": [1], "device": "g1", "n": [1]},
        {"rows": [2], "device": "g1", "n": [1]},
    ]


def test_instances_do_not_share_attributes():
    one = POSTCache(None, folder())
    two = POSTCache(None, folder())
    one.close()
    two.close()
    for cache in (one, two):
        raises(ValueError, cache.add_request, 1)


def test_headers_are_sent_and_ours_cannot_be_replaced():
    http = Http()
    with make(http=http, headers={"Authorization": "Bearer x"}) as cache:
        cache.add_request(1)
    assert http.posts[0][0]["Authorization"] == "Bearer x"
    assert http.posts[0][0]["Content-Type"] == "application/json"
    for name, value in (
        ("Content-Length", "5"),
        ("content-type", "text/plain"),
        ("HOST", "other"),
        ("Transfer-Encoding", "chunked"),
        ("idempotency-key", "x"),
        ("Postcache-First", "9"),
        ("X", "a\r\nEvil: 1"),
        ("X\n", "a"),
        ("X:", "a"),
        ("", "a"),
        ("X", "é"),
    ):
        raises(ValueError, make, None, http, headers={name: value})


def test_bad_arguments_are_value_errors():
    for name, value in (
        ("async_interval", 0),
        ("async_interval", -1),
        ("async_interval", float("nan")),
        ("upload_limit", 0),
        ("timeout", 0),
        ("timeout", -1),
        ("data_key", 5),
        ("max_bytes", 100),
    ):
        raises(ValueError, make, None, None, **{name: value})
    for url in ("", "server/x", "ftp://server/", "http://", "http://a b/", "http://host\nname/"):
        if (
            not MICROPYTHON or url[:7] != "http://"
        ):  # requests there reports the rest when it sends
            raises(ValueError, POSTCache, url, folder())


def test_any_positive_interval_is_taken():
    for interval in (0.05, 0.5, 1, 3600):
        path = folder()
        cache = POSTCache(None, path, async_interval=interval)
        cache.add_request(1)
        cache.close()


def test_an_outage_does_not_make_each_add_wait():
    clock = Clock()
    http = Http(default=OSError(110))
    cache = make(http=http, clock=clock)
    for n in range(50):
        cache.add_request(n)
    assert len(http.posts) == 1  # the clock stands still: this is the back-off
    assert len(cache) == 50
    clock.now += 300000
    http.default = 200
    cache.add_request(50)
    assert http.lines() == list(range(51))
    cache.close()


def test_a_failing_server_is_not_sent_the_backlog_with_each_add():
    clock = Clock()
    http = Http(default=OSError(104))
    cache = make(http=http, clock=clock)
    for n in range(1000):
        cache.add_request(n)
        clock.now += 1000
    lines = sum([len(json.loads(body)["lines"]) for _, body in http.posts])
    assert lines < 100  # the old package sent 375,250
    cache.close()


def test_one_call_stays_within_one_timeout():
    class Slow(Http):
        def post(self, url, headers, chunks, timeout):
            clock.now += 4000
            return Http.post(self, url, headers, chunks, timeout)

    clock = Clock()
    path = folder()
    with POSTCache(None, path) as cache:
        for n in range(100):
            cache.add_request(n)
    http = Slow()
    cache = make(path, http, clock=clock, timeout=10, upload_limit=1)
    cache.add_request(100)
    assert clock.now <= 10000
    assert 1 <= len(http.posts) <= 3
    for timeout in http.timeouts:
        assert 0 < timeout <= 10
    assert cache.flush()
    assert http.lines() == list(range(101))
    cache.close()


def test_flush_tries_now_whatever_the_back_off_says():
    http = Http(500, 500, 200)
    cache = make(http=http)
    cache.add_request(1)
    assert not cache.flush()
    assert cache.flush()
    assert len(cache) == 0 and len(http.posts) == 3
    assert cache.flush()  # nothing there: nothing sent
    assert len(http.posts) == 3
    cache.close()


def test_flush_keeps_to_its_timeout():
    class Slow(Http):
        def post(self, url, headers, chunks, timeout):
            clock.now += 1000
            return Http.post(self, url, headers, chunks, timeout)

    clock = Clock()
    path = folder()
    with POSTCache(None, path) as cache:
        for n in range(10):
            cache.add_request(n)
    http = Slow()
    cache = make(path, http, clock=clock, upload_limit=1)
    assert not cache.flush(timeout=3)
    assert len(http.posts) == 3 and len(cache) == 7
    assert http.timeouts == [3, 2, 1]
    cache.close(timeout=0)


def test_without_an_endpoint_nothing_is_sent():
    cache = POSTCache(None, folder(), async_interval=1)
    cache.add_request(1)
    cache.poll()
    assert not cache.flush()
    assert len(cache) == 1
    assert cache.stats["sent"] == 0 and cache.stats["status"] is None
    cache.close()


def test_poll_sends_what_waits_in_a_sync_program():
    clock = Clock()
    http = Http(500, default=200)
    cache = make(http=http, clock=clock)
    cache.add_request(1)
    cache.poll()
    assert len(http.posts) == 1  # back-off
    clock.now += 1000
    cache.poll()
    assert len(http.posts) == 2 and len(cache) == 0
    cache.poll()
    assert len(http.posts) == 2
    cache.close()


def test_cooperative_sending_keeps_the_interval():
    if not MICROPYTHON:
        return  # a thread does it there: see test_threads.py
    clock = Clock()
    http = Http()
    cache = make(http=http, clock=clock, async_interval=60, upload_limit=2)
    cache.add_request(1)  # the first round is at once
    assert len(http.posts) == 1
    for n in range(2, 7):
        cache.add_request(n)
    cache.poll()
    assert len(http.posts) == 1 and len(cache) == 5
    clock.now += 60000
    for _ in range(9):  # one batch a call, and the whole backlog
        cache.poll()
    assert len(http.posts) == 4 and len(cache) == 0
    assert http.lines() == [1, 2, 3, 4, 5, 6]
    cache.close()


def test_a_failed_try_does_not_end_the_interval():
    if not MICROPYTHON:
        return
    clock = Clock()
    http = Http(200, 500, default=200)
    cache = make(http=http, clock=clock, async_interval=30)
    at = []
    for n in range(300):
        before = len(http.posts)
        cache.add_request(n)
        at += [clock.now] * (len(http.posts) - before)
        clock.now += 1000
    # Rounds 30 s apart, each of two batches at most: one frozen before, one of what came since.
    assert len(at) <= 2 * (300 // 30) + 2
    for i in range(2, len(at)):
        assert at[i] - at[i - 2] >= 29000
    cache.flush()
    assert http.lines() == list(range(300))
    cache.close()


def test_close_delivers_what_waits_when_the_server_is_well():
    clock = Clock()
    path = folder()
    with POSTCache(None, path) as cache:
        cache.add_request(1)
    http = Http()
    make(path, http, clock=clock).close()
    assert http.lines() == [1]


def test_close_does_not_wait_for_a_server_that_is_not():
    http = Http(default=OSError(111))
    path = folder()
    with make(path, http) as cache:
        cache.add_request(1)
    assert len(http.posts) == 1
    assert len(cache) == 1
    cache.close()  # again: nothing happens
    raises(ValueError, cache.add_request, 2)
    with POSTCache(None, path) as cache:
        assert len(cache) == 1


def test_a_callback_that_comes_back_in_does_no_harm():
    class Nosy(Http):
        def post(self, url, headers, chunks, timeout):
            if len(self.posts) < 3:
                cache.add_request("inner")
                cache.poll()
            return Http.post(self, url, headers, chunks, timeout)

    http = Nosy()
    cache = make(http=http)
    cache.add_request("outer")
    cache.flush()
    assert http.lines() == ["outer", "inner", "inner", "inner"]
    cache.close()


def test_a_callback_may_open_another_log_while_one_is_opened():
    inner = []

    def open_another():
        if not inner:
            inner.append(0)
            with make() as cache:
                inner.append(cache.add_request("inner"))

    class NosyClock(Clock):
        def ticks_ms(self):
            open_another()
            return self.now

    class NosyDirectory(Directory):
        def files(self):
            open_another()
            return Directory.files(self)

    for path, clock in ((folder(), NosyClock()), (NosyDirectory(folder()), Clock())):
        inner.clear()
        with make(path, clock=clock, max_age=10) as cache:
            assert inner == [0, 1]
            assert cache.add_request("outer") == 1


def test_an_empty_cache_is_not_false():
    cache = POSTCache(None, folder())
    assert cache and len(cache) == 0
    cache.close()


def test_stats_tell_what_happened():
    clock = Clock()
    http = Http((503, {"retry-after": "5"}), default=200)
    cache = make(http=http, clock=clock)
    cache.add_request(1)
    cache.add_request(2)
    stats = cache.stats
    assert type(stats) is dict
    assert (stats["added"], stats["sent"], stats["waiting"]) == (2, 0, 2)
    assert (stats["retries"], stats["status"], stats["error"]) == (1, 503, "HTTP 503")
    assert 5000 <= stats["next_try_ms"] < 6000
    clock.now += 6000
    cache.add_request(3)
    stats = cache.stats
    assert (stats["added"], stats["sent"], stats["waiting"]) == (3, 3, 0)
    assert (stats["status"], stats["error"], stats["next_try_ms"]) == (200, None, 0)
    assert stats["dropped"] == stats["damaged"] == stats["errors"] == stats["rejected"] == 0
    assert len(stats["stream"]) == 16 and stats["journal"] == "append"
    cache.close()


def test_a_full_disk_is_told_to_the_caller_and_the_next_add_works_when_there_is_room():
    http = Http()
    path = folder()
    cache = make(path, http)
    cache.add_request(1)
    real = cache.storage.fs.open
    cache.storage.journal._file.close()

    class Full:
        def write(self, data):
            raise OSError(28, "full")

        def flush(self):
            raise OSError(28, "full")

        def close(self):
            pass

    cache.storage.journal._file = Full()
    cache.storage.fs.open = lambda name, mode: Full() if mode != "rb" else real(name, mode)
    for _ in range(3):
        assert raises(OSError, cache.add_request, 2).errno == 28
    cache.storage.fs.open = real
    assert cache.add_request(3) == 2
    assert http.lines() == [1, 3]
    cache.close()
    http = Http()
    with POSTCache(None, path) as cache:
        assert len(cache) == 0


def test_the_package_loads_the_client_when_it_is_asked_for():
    import postcache

    assert postcache.POSTCache is POSTCache
    assert postcache.__version__
    raises(AttributeError, getattr, postcache, "nothing")


def test_a_directory_is_free_again_after_a_failed_open():
    path = folder()
    POSTCache(None, path).close()
    for name in ("cursor-a", "cursor-b"):
        with open(path + "/" + name, "wb") as f:
            f.write(encode(9, b"[2, 0]"))
    for _ in range(2):
        assert "newer" in str(raises(OSError, POSTCache, None, path))


def test_a_directory_is_free_again_when_memory_ran_out_at_the_end_of_opening():
    import postcache.assemble as module

    def fail(name):
        raise MemoryError

    path = folder()
    real, module.forget = module.forget, fail
    try:
        failure = raises(MemoryError, POSTCache, None, path)
    finally:
        module.forget = real
    with POSTCache(None, path) as cache:
        assert cache.add_request(1) == 1
    assert failure
