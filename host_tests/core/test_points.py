"""Points for InfluxDB: the lines they become, their dates, and what an answer does."""

import json

from support import Clock, Http, cut_off, folder, raises

from postcache.influx import Influx
from postcache.ports import Directory, Group

URL = "http://x/api/v2/write?org=o&bucket=b"
START = 1763697600  # 2025-11-21

LINES = (
    (("m", {"f": 1.5}), "m f=1.5"),
    (("m", {"f": 1.0}), "m f=1.0"),
    (("m", {"f": 1}), "m f=1i"),
    (("m", {"f": -0.25}), "m f=-0.25"),
    (("m", {"f": 1e300}), "m f=1e+300"),
    (("m", {"f": -(1 << 63)}), "m f=-9223372036854775808i"),
    (("m", {"f": (1 << 63) - 1}), "m f=9223372036854775807i"),
    (("m", {"f": True}), "m f=true"),
    (("m", {"f": False}), "m f=false"),
    (("m", {"f": ""}), 'm f=""'),
    (("m", {"f": "a, b=c"}), 'm f="a, b=c"'),
    (("m", {"f": 'say "hi"\\'}), r'm f="say \"hi\"\\"'),
    (("m", {"f": "two\nlines"}), 'm f="two\nlines"'),
    (("m", {"f": "12i"}), 'm f="12i"'),
    (("m", {"f": 1}, {"b": "2", "a": "1", "c": "3"}), "m,a=1,b=2,c=3 f=1i"),
    (("m", {"f": 1}, {"a": "", "b": "x"}), "m,b=x f=1i"),
    (("m", {"f": 1}, {"a": ""}), "m f=1i"),
    (("my m,1=2", {"f": 1}), r"my\ m\,1=2 f=1i"),
    (("m", {"f, =g": 1}), r"m f\,\ \=g=1i"),
    (("m", {"f": 1}, {"t =,": "a,b c=d"}), r"m,t\ \=\,=a\,b\ c\=d f=1i"),
    (("C:\\temp", {"f": 1}, {"p\\q": "C:\\temp"}), r"C:\temp,p\q=C:\temp f=1i"),
    (('"m"', {"'f'": 1}, {'"t"': '"a"'}), '"m","t"="a" \'f\'=1i'),
    (("m", {"f": 1}, {"t": "_v", "u": "time"}), "m,t=_v,u=time f=1i"),
    (("\u00fc", {"\u00e9": "\U0001f36d"}), '\u00fc \u00e9="\U0001f36d"'),
    (("m", {"f": 1}, {"\u20ac": "\U0001f36d"}), "m,\u20ac=\U0001f36d f=1i"),
    (("time", {"#": 1}, {"#t": "#"}), "time,#t=# #=1i"),
)

BAD = (
    ("", {"f": 1}),
    ("_m", {"f": 1}),
    ("#m", {"f": 1}),
    ("m\\", {"f": 1}),
    ("m\\\\n", {"f": 1}),
    ("m\\ n", {"f": 1}),
    ("m\\=n", {"f": 1}),
    ('m\\"n', {"f": 1}),
    ("m\n", {"f": 1}),
    ("m\tn", {"f": 1}),
    ("m\0", {"f": 1}),
    ("m", {}),
    ("m", None),
    ("m", {"": 1}),
    ("m", {"_f": 1}),
    ("m", {"time": 1}),
    ("m", {"f\\": 1}),
    ("m", {"f\r": 1}),
    ("m", {"f": None}),
    ("m", {"f": [1]}),
    ("m", {"f": {"g": 1}}),
    ("m", {"f": b"x"}),
    ("m", {"f": 1 << 63}),
    ("m", {"f": -(1 << 63) - 1}),
    ("m", {"f": float("nan")}),
    ("m", {"f": float("inf")}),
    ("m", {"f": -float("inf")}),
    ("m", {"f": 1, "g": None}),
    ("m", {"f": 1}, {"": "x"}),
    ("m", {"f": 1}, {"_t": "x"}),
    ("m", {"f": 1}, {"time": "x"}),
    ("m", {"f": 1}, {"f": "x"}),
    ("m", {"f": 1}, {"t": "x\\"}),
    ("m", {"f": 1}, {"t": "x\ny"}),
    ("m", {"f": 1}, {"t\t": "x"}),
    ("m", {"f": 1}, None, float("nan")),
    ("m", {"f": 1}, None, float("inf")),
)

# What has a wrong type altogether may be a TypeError.
WRONG = (
    (None, {"f": 1}),
    (5, {"f": 1}),
    ("m", {5: 1}),
    ("m", {"f": 1}, {"t": 5}),
    ("m", {"f": 1}, {"t": None}),
    ("m", {"f": 1}, None, "now"),
)


class Ports:
    """What postcache.ports has, but for the worker: only flush() and exchange() send."""

    class Worker:
        def __init__(self, uplink):
            pass

        def stop(self, ms):
            pass

    Directory = Directory
    Group = Group


def make(http=None, path=None, url=URL, date=START, token="secret", **settings):
    clock = Clock()
    clock.date = date
    settings["ports"] = Ports
    settings.setdefault("async_interval", 60)
    return Influx(url, path or folder(), token, http=http or Http(), clock=clock, **settings)


def bodies(http):
    return [body.decode() for _, body in http.posts]


def test_a_point_is_the_line_that_the_grammar_has_for_it():
    http = Http()
    path = folder()
    influx = make(http, path)
    for n, (point, _) in enumerate(LINES):
        assert influx.write(*point, epoch=n) == n + 1
    cut_off(influx.storage)  # what is on flash makes the same lines
    influx = make(http, path)
    assert influx.flush() and len(http.posts) == 1
    dated = ["%s %d" % (line, n * 10**9) for n, (_, line) in enumerate(LINES)]
    assert bodies(http)[0] == "\n".join(dated)
    influx.close()


def test_several_fields_are_one_point():
    http = Http()
    influx = make(http)
    influx.write("m", {"f": 1.0, "g": 1, "h": "x y", "i": True}, {"t": "u"}, 0)
    assert influx.flush()
    head, rest = bodies(http)[0].split(" ", 1)
    rest, date = rest.rsplit(" ", 1)
    # MicroPython's dicts have no order.
    assert sorted(rest.split(",")) == ["f=1.0", "g=1i", 'h="x y"', "i=true"]
    assert (head, date) == ("m,t=u", "0")
    influx.close()


def test_what_is_stored_is_json_that_the_tools_for_logs_can_read():
    influx = make(Http())
    influx.write("m", {"f": 'a"\n'}, {"t": "x"}, 5)
    influx.write("m", {"f": 1.0})
    records = [json.loads(payload) for _, payload in influx.storage.read(None)]
    assert records == [
        {"epoch_ms": 5000, "line": 'm,t=x f="a\\"\n"'},
        {"epoch_ms": START * 1000, "line": "m f=1.0"},
    ]
    influx.close()


def test_what_influxdb_would_refuse_is_a_value_error_and_nothing_is_written():
    influx = make(Http())
    for point in BAD:
        raises(ValueError, influx.write, *point)
    for point in WRONG:
        raises((TypeError, ValueError), influx.write, *point)
    assert len(influx) == 0 and influx.storage.stored == 0
    influx.close()


def test_a_timestamp_is_in_the_unit_of_the_url():
    for unit, step in (
        ("&precision=s", 10**9),
        ("&precision=ms", 10**6),
        ("&precision=us", 1000),
        ("&precision=ns", 1),
        ("", 1),
        ("&precision=second", 10**9),
        ("&precision=millisecond&no_sync=true", 10**6),
        ("&precision=microsecond", 1000),
        ("&precision=nanosecond", 1),
        ("&precision=auto", 1),
    ):
        http = Http()
        influx = make(http, url=URL + unit)
        for epoch in (START, 0, -1, START + 0.123456, START + 0.999999, -0.5, 0.001001):
            influx.write("m", {"f": 1}, epoch=epoch)
        assert influx.flush()
        wanted = [
            START * 10**9,
            0,
            -(10**9),
            START * 10**9 + 123456000,
            START * 10**9 + 999999000,
            -(10**9) // 2,
            1001000,
        ]
        assert bodies(http) == ["\n".join(["m f=1i %d" % (ns // step) for ns in wanted])], unit
        influx.close()
    for url in (URL + "&precision=h", "http://x/w?precision=seconds&db=d"):
        assert "precision" in str(raises(ValueError, make, url=url))
    http = Http()
    influx = make(http, url="http://x/write?db=my_precision=ms&precision=s")
    influx.write("m", {"f": 1}, epoch=7)
    assert influx.flush() and bodies(http) == ["m f=1i 7"]
    influx.close()


def test_a_point_without_an_epoch_has_the_time_of_its_writing():
    http = Http(503)
    influx = make(http, url=URL + "&precision=ms")
    clock = influx.clock
    influx.write("m", {"f": 1})
    clock.now += 250
    influx.write("m", {"f": 2})
    clock.now += 7200 * 1000
    clock.date += 7200
    assert not influx.flush() and influx.flush()
    wanted = "m f=1i %d000\nm f=2i %d250" % (START, START)
    assert bodies(http) == [wanted, wanted]  # a retry has the same bytes
    influx.close()


def test_points_written_at_once_do_not_replace_each_other():
    # InfluxDB keeps one point of a series for each timestamp.
    http = Http()
    influx = make(http, url=URL + "&precision=ms")
    for n in range(20):
        influx.write("m", {"f": n})
    assert influx.flush()
    dates = [int(line.split(" ")[2]) for line in bodies(http)[0].split("\n")]
    assert dates == [START * 1000 + n for n in range(20)]
    influx.close()


def test_a_point_from_before_the_clock_was_set_gets_the_time_of_its_writing():
    http = Http()
    influx = make(http, date=None, url=URL + "&precision=ms")
    clock = influx.clock
    for n in (1, 2):
        clock.now += 10
        influx.write("m", {"f": n})
    influx.exchange(10)
    assert http.posts == [] and influx.stats["error"] == "no clock"
    clock.now += 5000
    clock.date = START
    assert influx.flush()
    now = START * 1000
    assert bodies(http) == ["m f=1i %d\nm f=2i %d" % (now - 5010, now - 5000)]
    influx.close()


def test_points_that_never_get_a_date_are_sent_each_alone():
    # All undated points of a request get the time of its arrival, and the last one would remain.
    http = Http(503)
    path = folder()
    influx = make(path=path, date=None)
    for n in (1, 2, 3):
        influx.write("m", {"f": n})
    cut_off(influx.storage)  # and nobody will ever know when that was
    influx = make(http, path)
    for n in (4, 5):
        influx.write("m", {"f": n})
    influx.flush()
    assert influx.flush()
    assert bodies(http)[:4] == ["m f=1i", "m f=1i", "m f=2i", "m f=3i"]
    assert [line[:6] for line in bodies(http)[4].split("\n")] == ["m f=4i", "m f=5i"]
    assert len(http.posts) == 5
    influx.close()


def test_a_request_has_the_token_and_says_what_it_is():
    http = Http()
    influx = make(http, headers={"X-Own": "1"})
    influx.write("m", {"f": 1})
    assert influx.flush()
    headers, _ = http.posts[0]
    assert headers["Authorization"] == "Token secret" and headers["X-Own"] == "1"
    assert headers["Content-Type"] == "text/plain; charset=utf-8"
    influx.close()
    http = Http()
    influx = make(http, token=None, headers={"authorization": "Bearer other"})
    influx.write("m", {"f": 1})
    assert influx.flush()
    assert http.posts[0][0]["authorization"] == "Bearer other"
    assert "Authorization" not in http.posts[0][0]
    influx.close()


def test_a_bad_token_is_refused_and_not_shown():
    for token, headers in (
        ("secret\n", None),
        ("secret\u00e9", None),
        ("secret", {"Authorization": "x"}),
        ("secret", {"authorization": "x"}),
        (b"secret", None),
        (5, None),
    ):
        e = raises((ValueError, TypeError), make, token=token, headers=headers)
        assert "secret" not in str(e), token


def test_settings_are_those_of_every_face():
    raises(TypeError, make, colour="red")
    raises(TypeError, make, timestamp_key="ts")
    raises(TypeError, make, data_key="lines")
    raises(ValueError, make, upload_limit=0)
    http = Http()
    with make(http, upload_limit=2, flush_every=3) as influx:
        for n in range(5):
            influx.write("m", {"f": n})
        assert influx.flush() and [body.count("\n") for body in bodies(http)] == [1, 1, 0]
    path = folder()
    with Influx(None, path) as influx:  # stores only
        influx.write("m", {"f": 1}, epoch=5)
    http = Http()
    with make(http, path, url=URL + "&precision=s") as influx:
        assert influx.flush() and bodies(http) == ["m f=1i 5"]


# --- answers ---


class Batch:
    """Five points."""

    first = 11
    last = 15


def judged(status, body):
    """Return the kind of the verdict on a batch of five points, and which of them are refused."""
    influx = make(Http())
    verdict = influx.frame.verdict(Batch, status, {}, body[:512])
    influx.close()
    return verdict.kind, verdict.refused


def named(*rows, error="partial write of line protocol occurred", text="why"):
    return json.dumps(
        {
            "error": error,
            "data": [
                {"original_line": "m f=1", "line_number": n, "error_message": text} for n in rows
            ],
        }
    ).encode()


def dropped(n):
    text = "failure writing points to database: partial write: why dropped=%d" % n
    return json.dumps({"code": "unprocessable entity", "message": text}).encode()


def test_version_3_names_the_lines_that_it_refused():
    assert judged(400, named(2)) == ("delivered", {1: b"why"})
    assert judged(400, named(1, 3, 5)) == ("delivered", {0: b"why", 2: b"why", 4: b"why"})
    assert judged(400, named(2, text="d\u00fcr")) == ("delivered", {1: "d\u00fcr".encode()})


def test_an_answer_that_does_not_tell_all_is_no_reason_to_give_up_a_point():
    for status, body in (
        (400, named(1, 2, 3, text="a long reason " * 10)),  # cut off
        (400, named()),
        (400, named(6)),
        (400, named(2, 6)),
        (400, named(2, text=None)),
        (400, named(2, error="parsing failed for write_lp endpoint")),
        (400, named("2")),
        (400, b'{"error":"partial write of line protocol occurred"}'),
        (400, b'{"error":"partial write of line protocol occurred","data":{"line_number":2}}'),
        (400, b'["partial write"]'),
        (400, b"partial write"),
        (400, b"5"),
        (400, b""),
        (422, dropped(2)),
        (400, dropped(4)),
        (422, dropped(50)),
        (422, dropped(15)),
    ):
        assert judged(status, body) == ("refused", {}), (status, body)


def test_version_2_tells_when_it_dropped_all():
    for status in (400, 422):
        kind, refused = judged(status, dropped(5))
        assert kind == "delivered" and sorted(refused) == [0, 1, 2, 3, 4]
        assert refused[3][:31] == b'partial write: why dropped=5"}'


def test_any_other_answer_is_judged_as_for_every_format():
    for status, kind in (
        (204, "delivered"),
        (200, "delivered"),
        (302, "retry"),
        (401, "blocked"),
        (403, "blocked"),
        (404, "blocked"),
        (413, "too large"),
        (415, "plain"),
        (429, "retry"),
        (500, "retry"),
        (503, "retry"),
    ):
        for body in (b"", named(2) if status > 299 else b"", dropped(5) if status > 299 else b""):
            assert judged(status, body) == (kind, {}), status


class Server(Http):
    """Stores a point by its line; refuses those with a `bad` field as version `version` does."""

    def __init__(self, version):
        Http.__init__(self, default=204)
        self.version = version
        self.stored = {}

    def post(self, url, headers, chunks, timeout):
        Http.post(self, url, headers, chunks, timeout)
        lines = self.posts[-1][1].split(b"\n")
        bad = [n for n, line in enumerate(lines, 1) if b"bad" in line]
        for line in lines:
            if b"bad" not in line:
                self.stored[line] = self.stored.get(line, 0) + 1
        if not bad:
            return 204, {}
        return (400, {}, named(*bad)[:512]) if self.version == 3 else (422, {}, dropped(len(bad)))


def test_bad_points_become_dead_letters_and_the_others_are_stored():
    for version, bad, requests in (
        (3, (3,), 1),
        (3, (1, 20), 1),
        (3, (5, 6, 7, 8, 9, 10), None),  # too many to be named in the 512 bytes
        (2, (3,), None),
        (2, (1, 20), None),
        (2, tuple(range(1, 21)), 1),
    ):
        http = Server(version)
        influx = make(http)
        for n in range(1, 21):
            influx.write("m", {"bad" if n in bad else "f": n}, epoch=n)
        assert influx.flush()  # with no back-off in between
        assert len(http.stored) == 20 - len(bad)
        assert [letter["number"] for letter in influx.rejected()] == list(bad)
        assert influx.rejected()[0]["record"]["line"] == "m bad=%di" % bad[0]
        assert "why" in influx.rejected()[0]["reason"]
        stats = influx.stats
        assert (stats["sent"], stats["rejected"]) == (20 - len(bad), len(bad))
        if requests:
            assert len(http.posts) == requests
        influx.close()


def test_lines_say_how_long_they_are_when_they_are_streamed():
    # The port in use here compares Content-Length with what arrives.
    http = Http(503, 204)
    influx = make(http)
    influx.outbox.buffer = 0
    for n in range(5):
        influx.write("m", {"f": "x" * n}, epoch=n)
    assert not influx.flush() and influx.flush()
    assert bodies(http)[0] == bodies(http)[1] and bodies(http)[0].count("\n") == 4
    influx.close()
