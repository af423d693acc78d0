"""
postcache.influx against a server that takes nothing but what InfluxDB's documentation has.

On both runtimes, over real sockets, with both write APIs.
"""

import ast
import inspect
import json
import re
import subprocess

import pytest
from fake_server import Answer, FakeServer
from hypothesis import given, settings
from hypothesis import strategies as st
from influx import InfluxServer
from line_protocol import parse_line

from conftest import HERE
from postcache.assemble import assemble
from postcache.influx import Influx
from postcache.options import Options
from postcache.ports.gzipped import available

PROGRAM = HERE / "programs" / "influx.py"
BOTH = pytest.mark.parametrize("version", [2, 3])
START = 1763697600
DELIVERED = [0, 204, None, False]


class Sender:
    """The program, in a process of its own; `with` ends it."""

    def __init__(self, runtime, server, path, token="token", **settings):
        self.process = runtime.start(
            *(PROGRAM, server.url, path, token, json.dumps(settings)),
            stdin=subprocess.PIPE,
            encoding="utf-8",
        )

    def __enter__(self):
        return self

    def __exit__(self, *args):
        with self.process:
            self.process.stdin.close()
            rest = self.process.stdout.read()
            assert args[0] or (self.process.wait(60), rest) == (0, "")

    def tell(self, *command):
        """Give a command; return what came of it."""
        # MicroPython's json would make two characters of an escaped pair.
        self.process.stdin.write(json.dumps(command, ensure_ascii=False) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, "it has ended"
        return json.loads(line)

    def write(self, *point):
        return self.tell("write", *point)

    def flush(self):
        return self.tell("flush")

    def kill(self):
        self.process.kill()
        self.process.wait(60)
        self.process.stdin.close()
        self.process.stdout.close()


def fields_of(server):
    """Return the field f of each point of series m, by its time in seconds."""
    return {
        point.timestamp // 10**9: point.fields["f"]
        for point in server.points
        if point.measurement == "m"
    }


TEXTS = (
    "a b",
    "a,b",
    "a=b",
    '"a"',
    "'",
    "é",
    "🍭",
    "C:\\temp",
    " a ",
    ",",
    "=",
    "#",
    "1i",
    "true",
)
STRINGS = (*TEXTS, "", "\\", '"', '\\"', '"\\', "\\\\", "two\nlines", "\t", "a\\nb", "x" * 2000)


@BOTH
def test_every_text_arrives_as_it_was_given(runtime, version, tmp_path):
    wanted = []
    with InfluxServer(version) as server, Sender(runtime, server, tmp_path / "log") as sender:
        for n, text in enumerate(TEXTS):
            measurement = text if text[0] != "#" else "m"
            sender.write(measurement, {text + "f": n}, {text + "t": text}, START + n)
            wanted.append((measurement, {text + "t": text}, {text + "f": n}, START + n))
        for n, text in enumerate(STRINGS):
            sender.write("s", {"f": text}, {}, START + n)
            wanted.append(("s", {}, {"f": text}, START + n))
        assert sender.flush() == DELIVERED
        assert [(m, t, f, ns // 10**9) for m, t, f, ns in server.points] == wanted
        assert server.errors == []


@BOTH
def test_every_type_arrives_as_it_was_given(runtime, version, tmp_path):
    values = {"integer": (0, 1, -1, (1 << 63) - 1, -(1 << 63)), "boolean": (True, False)}
    values["float"] = (0.0, 1.0, -1.5, 21.7, 1e-9, 1e16, -1e300, 123456789.125)
    values["string"] = ("1", "")
    with InfluxServer(version) as server, Sender(runtime, server, tmp_path / "log") as sender:
        for kind, row in values.items():
            for n, value in enumerate(row):
                sender.write("m", {kind: value}, {}, n)
        assert sender.flush() == DELIVERED
        assert server.schema == {"m": {kind: kind for kind in values}}
        for kind, row in values.items():
            found = [point.fields[kind] for point in server.points if kind in point.fields]
            assert tuple(found) == row
        assert server.errors == []


@BOTH
@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_the_timestamp_is_in_the_unit_of_the_url(runtime, version, unit, tmp_path):
    step = {"s": 10**9, "ms": 10**6, "us": 1000, "ns": 1}[unit]
    epochs = {
        START: START * 10**9,
        START + 1.123456: (START + 1) * 10**9 + 123456000,
        -5: -5 * 10**9,
    }
    with (
        InfluxServer(version, precision=unit) as server,
        Sender(runtime, server, tmp_path / "log") as sender,
    ):
        for epoch in epochs:
            sender.write("m", {"f": 1}, {}, epoch)
        assert sender.flush() == DELIVERED
        found = [point.timestamp for point in server.points]
        assert found == [ns // step * step for ns in epochs.values()]
        assert server.errors == []


def test_version_3_guesses_the_unit_right(runtime, tmp_path):
    with (
        InfluxServer(3, precision="auto") as server,
        Sender(runtime, server, tmp_path / "log") as sender,
    ):
        sender.write("m", {"f": 1}, {}, START)
        sender.write("m", {"f": 2})
        assert sender.flush() == DELIVERED
        first, second = [point.timestamp for point in server.points]
        assert first == START * 10**9 and second > first
        assert server.errors == []


def test_points_written_at_once_are_all_kept(runtime, tmp_path):
    with (
        InfluxServer(2, precision="ms") as server,
        Sender(runtime, server, tmp_path / "log", flush_every=50) as sender,
    ):
        for n in range(100):
            sender.write("m", {"f": n}, {"t": "same"})
        assert sender.flush() == DELIVERED
        points = sorted(server.points, key=lambda point: point.timestamp)
        assert [point.fields["f"] for point in points] == list(range(100))


@BOTH
def test_points_survive_a_kill(runtime, version, tmp_path):
    with InfluxServer(version) as server:
        server.answers.append(server.error(503, "not now"))
        # Stored, and nobody hears of it: the same bytes come again.
        server.answers.append(server.lost(Answer.reset_after()))
        sender = Sender(runtime, server, tmp_path / "log")
        numbers = [sender.write("m", {"f": n}, {"t": "x"}, START + n) for n in range(40)]
        assert numbers == list(range(1, 41))
        assert sender.flush()[0] == 40
        sender.kill()
        for _ in range(2):
            with Sender(runtime, server, tmp_path / "log") as sender:
                sender.flush()
        assert [request.body for request in server.requests] == [server.requests[0].body] * 3
        assert fields_of(server) == {START + n: n for n in range(40)}
        assert server.errors == []


@pytest.mark.parametrize(
    "kind",
    [
        {"version": 2},
        {"version": 2, "partial_status": 400},
        {"version": 3},
        {"version": 3, "accept_partial": False},
    ],
)
def test_one_bad_point_of_five_is_set_aside_and_the_others_are_stored(runtime, kind, tmp_path):
    schema = {"m": {"f": "integer"}}
    with (
        InfluxServer(schema=schema, **kind) as server,
        Sender(runtime, server, tmp_path / "log") as sender,
    ):
        for n in range(5):
            sender.write("m", {"f": 2.5 if n == 3 else n}, {}, START + n)
        assert sender.flush()[0] == 0
        (letter,) = sender.tell("rejected")
        assert letter["number"] == 4 and letter["status"] in (400, 422)
        assert letter["record"] == {"epoch_ms": (START + 3) * 1000, "line": "m f=2.5"}
        sender.write("m", {"f": 5}, {}, START + 5)
        assert sender.flush() == DELIVERED
        assert fields_of(server) == {START + n: n for n in (0, 1, 2, 4, 5)}
        if kind == {"version": 3}:
            assert server.request_count == 2  # one named it
        else:
            assert server.request_count <= 6 + 1
        # What a person has mended at the server is put back.
        server.schema["m"]["f"] = "float"
        sender.tell("requeue")
        assert sender.flush()[0] == 0
        assert fields_of(server)[START + 3] == 2.5
        assert server.errors == []


@BOTH
def test_many_bad_points_are_found_though_the_answer_is_long(runtime, version, tmp_path):
    bad = (0, 7, 8, 9, 20, 21, 39)
    with (
        InfluxServer(version, schema={"m": {"f": "integer"}}) as server,
        Sender(runtime, server, tmp_path / "log") as sender,
    ):
        for n in range(40):
            sender.write("m", {"f": "x" if n in bad else n}, {"t": "x" * 20}, START + n)
        assert sender.flush()[0] == 0
        assert [letter["number"] - 1 for letter in sender.tell("rejected")] == list(bad)
        assert fields_of(server) == {START + n: n for n in range(40) if n not in bad}
        assert server.errors == []


def test_points_older_than_the_bucket_keeps_do_not_hold_up_those_to_come(runtime, tmp_path):
    with (
        InfluxServer(2, oldest=START * 10**9) as server,
        Sender(runtime, server, tmp_path / "log") as sender,
    ):
        for n in range(30):
            sender.write("m", {"f": n}, {}, START - 1000 + n)
        assert sender.flush() == [0, 422, None, False]
        assert server.request_count == 1
        letters = sender.tell("rejected")
        assert len(letters) == 30
        assert letters[0]["reason"].startswith("partial write: point outside retention policy")
        sender.write("m", {"f": 1}, {}, START)
        assert sender.flush() == DELIVERED
        assert fields_of(server) == {START: 1}
        assert server.errors == []


@BOTH
def test_without_its_token_everything_is_kept_and_the_token_is_told_nobody(
    runtime, version, tmp_path
):
    with InfluxServer(version) as server:
        with Sender(runtime, server, tmp_path / "log", token="s3cret") as sender:
            sender.write("m", {"f": 1}, {}, START)
            told = sender.flush()
            assert told == [1, 401, "HTTP 401", True]
        assert server.requests[0].headers["authorization"] == "Token s3cret"
        for path in (tmp_path / "log").rglob("*"):
            assert not path.is_file() or b"s3cret" not in path.read_bytes()
        with Sender(runtime, server, tmp_path / "log") as sender:
            assert sender.flush() == DELIVERED
        assert fields_of(server) == {START: 1}
        assert server.errors == []


@BOTH
@pytest.mark.parametrize("status", [404, 429, 500, 503])
def test_nothing_is_lost_while_the_server_is_not_well(runtime, version, status, tmp_path):
    with InfluxServer(version) as server, Sender(runtime, server, tmp_path / "log") as sender:
        server.answers.append(server.error(status, "why", retry_after=1))
        for n in range(4):
            sender.write("m", {"f": n}, {}, START + n)
        assert sender.flush() == [4, status, "HTTP %d" % status, status == 404]
        assert sender.flush() == DELIVERED
        assert fields_of(server) == {START + n: n for n in range(4)}
        assert sender.tell("rejected") == []
        assert server.errors == []


def test_a_body_that_is_too_large_is_halved(runtime, tmp_path):
    with (
        InfluxServer(2, max_body=200) as server,
        Sender(runtime, server, tmp_path / "log") as sender,
    ):
        for n in range(30):
            sender.write("m", {"f": n}, {}, START + n)
        assert sender.flush()[0] == 0
        assert fields_of(server) == {START + n: n for n in range(30)}
        assert sender.tell("rejected") == []


@BOTH
def test_gzip_carries_lines_too(runtime, version, tmp_path):
    with (
        InfluxServer(version) as server,
        Sender(runtime, server, tmp_path / "log", compress=True) as sender,
    ):
        for n in range(200):
            sender.write("m", {"f": n}, {"t": "x"}, START + n)
        assert sender.flush() == DELIVERED
        assert fields_of(server) == {START + n: n for n in range(200)}
        if runtime.name == "cpython":
            assert available()
            assert {request.headers["content-encoding"] for request in server.requests} == {"gzip"}
        assert server.errors == []


def test_bad_input_is_refused_and_nothing_is_sent(runtime, tmp_path):
    with InfluxServer() as server, Sender(runtime, server, tmp_path / "log") as sender:
        for point in (
            ("", {"f": 1}),
            ("m", {}),
            ("_m", {"f": 1}),
            ("m", {"time": 1}),
            ("m", {"f": None}),
            ("m", {"f": [1]}),
            ("m", {"f": 1 << 63}),
            ("m", {"f": 1}, {"t": "two\nlines"}),
            ("m", {"f": 1}, {"t": "x\\"}),
            ("m", {"f": "x" * (9000 if runtime.name == "micropython" else 300000)}),
        ):
            assert sender.write(*point) == "ValueError", point
        assert sender.flush() == [0, None, None, False]
        assert server.requests == []


# --- any text at all ---

NAMES = st.text(st.sampled_from("ab_,= \\\"'#\n\té🍭"), max_size=6) | st.text(max_size=6)
VALUES = st.booleans() | st.integers() | st.floats() | NAMES | st.none()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with Influx(None, str(tmp_path_factory.mktemp("influx") / "log")) as influx:
        yield influx


@settings(max_examples=400, deadline=None)
@given(
    NAMES, st.dictionaries(NAMES, VALUES, max_size=3), st.dictionaries(NAMES, NAMES, max_size=3)
)
def test_a_point_is_refused_or_arrives_as_it_was_given(store, measurement, fields, tags):
    try:
        number = store.write(measurement, fields, tags, START)
    except ValueError:
        return
    ((_, payload),) = [row for row in store.storage.read(None) if row[0] == number]
    point, _ = parse_line(store.frame.render(payload).decode())
    tags = {key: value for key, value in tags.items() if value}
    assert point == (measurement, tags, fields, START * 10**9)
    assert [type(point.fields[key]) for key in fields] == [
        type(value) for value in fields.values()
    ]


# --- docs/influxdb.md ---

EXAMPLES = re.findall(
    r"```python\n(.*?)```", (HERE.parent / "docs" / "influxdb.md").read_text("utf-8"), re.DOTALL
)


def test_the_example_delivers(runtime, tmp_path):
    with InfluxServer(precision="ms", token="my-token") as server:
        code = EXAMPLES[0]
        for here, there in (
            ("http://localhost:8086/api/v2/write?org=home&bucket=air&precision=ms", server.url),
            ('"points"', '"%s/points"' % tmp_path),
        ):
            assert here in code
            code = code.replace(here, there)
        assert runtime.run("-c", code).stdout.startswith("0 waiting {")
        (point,) = server.points
        assert point[:3] == ("air", {"room": "hall"}, {"temp": 21.5, "fan": True})
        assert server.errors == []


def test_the_format_of_ones_own_delivers(runtime, tmp_path):
    with FakeServer(receiver=False) as server:
        code = (
            EXAMPLES[1]
            + """
devices = Devices(%r, %r, async_interval=3600)
for n, device in enumerate("aab"):
    devices.put(device, n=n)
while not devices.flush():
    pass
devices.close()
"""
        )
        runtime.run("-c", code % (server.url + "/", str(tmp_path / "log")))
        found = {}
        for request in server.requests:
            assert request.headers["content-type"] == "application/x-ndjson"
            *lines, end = request.body.split(b"\n")
            assert lines and end == b""
            found.setdefault(request.path, []).extend(json.loads(line)["n"] for line in lines)
        assert found == {"/readings/a": [0, 1], "/readings/b": [2]}
        assert server.errors == []


def test_it_is_as_short_as_the_page_says():
    text = (HERE.parent / "lib" / "postcache" / "influx.py").read_text("utf-8")
    assert text.count("\n") <= 80


def test_the_hints_have_every_argument():
    path = HERE.parent / "lib" / "postcache" / "influx.pyi"
    (hints,) = [node for node in ast.parse(path.read_text("utf-8")).body if hasattr(node, "name")]
    methods = {node.name: node.args for node in hints.body}
    for method in (Influx.__init__, Influx.write):
        wanted = list(inspect.signature(method).parameters)
        if "settings" in wanted:
            wanted += list(inspect.signature(assemble).parameters)[3:]
            wanted += list(inspect.signature(Options).parameters)
        args = methods[method.__name__]
        found = {arg.arg for arg in args.args + args.kwonlyargs}
        assert found == set(wanted) - {"settings", "options", "ports", "timestamp_key"}
