"""The InfluxDB for tests refuses what the documented grammar doesn't have, and answers as one.

A sender that passes its tests against a server which believes everything has proven nothing.
"""

import gzip
import http.client
import json
import re
import subprocess
import sys

import pytest
from fake_server import Answer
from influx import InfluxServer
from line_protocol import LATEST, LineError, parse_line, split_lines

TIMEOUT = 10  # seconds, generous: reaching it fails the test

# --- The grammar ---

ACCEPTED = {
    "m f=1": ("m", {}, {"f": 1.0}, {"f": "float"}),
    "m f=-1.234456e+78": ("m", {}, {"f": -1.234456e78}, {"f": "float"}),
    "m f=1E5": ("m", {}, {"f": 1e5}, {"f": "float"}),
    "m f=-9223372036854775808i": ("m", {}, {"f": -(1 << 63)}, {"f": "integer"}),
    "m f=9223372036854775807i": ("m", {}, {"f": (1 << 63) - 1}, {"f": "integer"}),
    "m f=18446744073709551615u": ("m", {}, {"f": (1 << 64) - 1}, {"f": "unsigned"}),
    "m f=t,g=True": ("m", {}, {"f": True, "g": True}, {"f": "boolean", "g": "boolean"}),
    "m f=FALSE": ("m", {}, {"f": False}, {"f": "boolean"}),
    'm f="t"': ("m", {}, {"f": "t"}, {"f": "string"}),
    'm f=""': ("m", {}, {"f": ""}, {"f": "string"}),
    r'm f="say \"a=b, c\"\\"': ("m", {}, {"f": 'say "a=b, c"\\'}, {"f": "string"}),
    r'm f="C:\temp"': ("m", {}, {"f": "C:\\temp"}, {"f": "string"}),
    'm f="two\nlines",g=1i': (
        "m",
        {},
        {"f": "two\nlines", "g": 1},
        {"f": "string", "g": "integer"},
    ),
    r"my\ m\,1=2,tag\ key\==a\,b\ c\=d f\,\ \=g=1i": (
        "my m,1=2",
        {"tag key=": "a,b c=d"},
        {"f, =g": 1},
        {"f, =g": "integer"},
    ),
    r"m,t=C:\temp f=1": ("m", {"t": "C:\\temp"}, {"f": 1.0}, {"f": "float"}),
    'm,"t"="a" \'f\'=1': ("m", {'"t"': '"a"'}, {"'f'": 1.0}, {"'f'": "float"}),
    "m,t=🍭 f=1": ("m", {"t": "🍭"}, {"f": 1.0}, {"f": "float"}),
    "m,a=1,b=2 f=1": ("m", {"a": "1", "b": "2"}, {"f": 1.0}, {"f": "float"}),
}


@pytest.mark.parametrize("line", ACCEPTED)
def test_a_line_of_the_grammar_is_read(line):
    measurement, tags, fields, types = ACCEPTED[line]
    for text, timestamp in ((line, None), (line + " -5", -5), (line + " 0", 0)):
        point, found = parse_line(text)
        assert point == (measurement, tags, fields, timestamp)
        assert found == types
        assert [type(value) for value in point.fields.values()] == [
            type(value) for value in fields.values()
        ]


REFUSED = [
    "",
    "# comment",
    "m",
    "m ",
    "m,t=1",
    ",t=1 f=1",
    " m f=1",
    "m  f=1",
    "m f=1 ",
    "m f=1  5",
    "m f=1 5 6",
    "m f=1 5 ",
    "m f=1 five",
    "m f=1 5.0",
    "m f=1 +5",
    "m f=1 5ns",
    "m f=1 5\r",
    "m f=1\r",
    "m f",
    "m f=",
    "m =1",
    "m f=1,",
    "m f=1,,g=1",
    "m f=1,g",
    "m, f=1",
    "m,t f=1",
    "m,t= f=1",
    "m,=1 f=1",
    "m,t=a=b f=1",
    "m,t=1,t=2 f=1",
    "m,time=1 f=1",
    "m time=1",
    "m f=1,f=2",
    "m,f=1 f=2",
    "_m f=1",
    "m,_t=1 f=1",
    "m _f=1",
    "m f=+5",
    "m f=.5",
    "m f=5.",
    "m f=1e",
    "m f=0x10",
    "m f=1e999",
    "m f=nan",
    "m f=inf",
    "m f=-inf",
    "m f=tRUE",
    "m f=null",
    "m f=text",
    "m f='text'",
    "m f=1.5i",
    "m f=-1u",
    "m f=9223372036854775808i",
    "m f=-9223372036854775809i",
    "m f=18446744073709551616u",
    'm f="text',
    'm f="text\\"',
    'm f="a"b',
    'm f="a"b"',
    "m\\ f=1",
    "m,t=a\\ f=1",
    r"m\\ f=1",
    r"m,t=a\\b f=1",
    r"m\=a f=1",
    r"m\"a f=1",
    "m\tn f=1",
    "m,t=a\tb f=1",
    "m,t=a\\\tb f=1",
    "m,t=a\\\nb f=1",
    "m f\t=1",
    "m\0 f=1",
    'm f="%s"' % ("x" * 65537),
    "m,t=%s f=1" % ("x" * 65537),
]


@pytest.mark.parametrize("line", REFUSED, ids=lambda line: ascii(line[:40]))
def test_what_is_not_of_the_grammar_is_refused(line):
    with pytest.raises(LineError):
        parse_line(line)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("", "an empty line"),
        ("#m f=1", "a comment"),
        ("m", "missing fields"),
        ("m\\", "a measurement ends with a backslash"),
        ("m,t f=1", "missing = after the tag key 't'"),
        ("m f", "missing = after the field key 'f'"),
        ("m f=1 five", "bad timestamp 'five'"),
    ],
)
def test_the_reason_says_what_is_wrong(line, reason):
    with pytest.raises(LineError, match=re.escape(reason)):
        parse_line(line)


def test_a_line_ends_where_neither_a_string_nor_an_escape_goes_on():
    lines = ["m f=1", 'm,t=a"b f=2', 'm f="a\nb",g="c\\"\n" 5', "m\\\n f=3", 'm g="open\nm f=1']
    assert split_lines("\n".join(lines)) == lines
    assert split_lines("m f=1\nm f=2\n") == ["m f=1", "m f=2"]
    assert split_lines("m f=1\n\n\n") == ["m f=1", "", ""]
    assert split_lines("m f=1\\") == ["m f=1\\"]
    assert split_lines("") == []


@pytest.mark.parametrize(
    ("text", "unit", "timestamp"),
    [
        ("17", 1, 17),
        ("17", 1000_000, 17_000_000),
        ("-17", 1000_000_000, -17_000_000_000),
        (str(LATEST), 1, LATEST),
        ("4999999999", None, 4999999999_000_000_000),
        ("5000000000", None, 5000000000_000_000),
        ("4999999999999", None, 4999999999999_000_000),
        ("5000000000000", None, 5000000000000_000),
        ("4999999999999999", None, 4999999999999999_000),
        ("5000000000000000", None, 5000000000000000),
    ],
)
def test_timestamps_are_nanoseconds_in_the_end(text, unit, timestamp):
    assert parse_line("m f=1 " + text, unit)[0].timestamp == timestamp


@pytest.mark.parametrize(("text", "unit"), [(str(LATEST + 1), 1), (str(LATEST // 1000 + 1), 1000)])
def test_a_timestamp_out_of_range_is_refused(text, unit):
    for sign in ("", "-"):
        with pytest.raises(LineError):
            parse_line("m f=1 " + sign + text, unit)


# --- Both APIs ---


@pytest.fixture(params=[2, 3])
def server(request):
    with InfluxServer(version=request.param) as running:
        yield running
    assert running.errors == []


def post(server, body, path=None, method="POST", token="Token token", headers=None):
    """Return (status, headers, body as JSON or None)."""
    if isinstance(body, str):
        body = body.encode()
    headers = dict(headers or {})
    if token:
        headers["Authorization"] = token
    client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT)
    try:
        client.request(method, path or server.path, body, headers)
        answer = client.getresponse()
        data = answer.read()
        return answer.status, answer.headers, json.loads(data) if data else None
    finally:
        client.close()


def test_points_are_stored(server):
    assert post(server, 'a,t=x f=1i,g="s" 5\nb f=t')[::2] == (204, None)
    assert server.points == [
        ("a", {"t": "x"}, {"f": 1, "g": "s"}, 5),
        ("b", {}, {"f": True}, None),
    ]
    assert server.schema["a"]["f"] == "integer"
    assert server.request_count == len(server.requests) == 1


def test_the_url_says_where_to_write():
    assert InfluxServer(2, org="my org", bucket="b", precision="s", port=8086).url == (
        "http://127.0.0.1:8086/api/v2/write?org=my+org&bucket=b&precision=s"
    )
    assert InfluxServer(3, bucket="b", precision="auto", accept_partial=False, port=8181).url == (
        "http://127.0.0.1:8181/api/v3/write_lp?db=b&accept_partial=false&precision=auto"
    )


def test_the_same_point_again_has_the_fields_of_both(server):
    post(server, "m,t=1,u=2 f=1i,g=1i 5\nm,u=2,t=1 g=2i,h=3i 5\nm,t=1 f=9i 5\nm,t=1,u=2 f=9i 6")
    post(server, "m,t=1,u=2 f=8i 5")
    assert server.points == [
        ("m", {"t": "1", "u": "2"}, {"f": 8, "g": 2, "h": 3}, 5),
        ("m", {"t": "1"}, {"f": 9}, 5),
        ("m", {"t": "1", "u": "2"}, {"f": 9}, 6),
    ]


def test_points_without_a_timestamp_are_one_only_if_they_came_together(server):
    post(server, "m f=1i\nm g=2i")
    post(server, "m f=3i")
    assert server.points == [("m", {}, {"f": 1, "g": 2}, None), ("m", {}, {"f": 3}, None)]


@pytest.mark.parametrize("unit", ["ns", "us", "ms", "s"])
@pytest.mark.parametrize("version", [2, 3])
def test_the_precision_is_that_of_the_url(version, unit):
    with InfluxServer(version, precision=unit) as server:
        assert post(server, "m f=1 7")[0] == 204
        assert (
            server.points[0].timestamp == 7 * {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9}[unit]
        )


def test_gzip_is_unpacked(server):
    packed = gzip.compress(b"m f=1i 1\n") + gzip.compress(b"m f=2i 2")
    assert post(server, packed, headers={"Content-Encoding": "gzip"})[0] == 204
    assert [point.fields for point in server.points] == [{"f": 1}, {"f": 2}]


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("token", [None, "Token", "Token other", "token", "Basic token"])
def test_without_the_token_nothing_is_stored(version, token):
    with InfluxServer(version) as server:
        assert post(server, "m f=1", token=token)[0] == 401
        assert server.points == []


def test_version_3_takes_bearer_tokens_and_version_2_does_not():
    with InfluxServer(3) as server:
        assert post(server, "m f=1", token="Bearer token")[0] == 204
        assert server.errors == []
    with InfluxServer(2) as server:
        assert post(server, "m f=1", token="Bearer token")[0] == 401
        assert len(server.errors) == 1


def test_no_token_is_needed_where_none_is_set():
    with InfluxServer(token=None) as server:
        assert post(server, "m f=1", token=None)[0] == 204


def test_what_is_too_large_is_refused_by_its_size_unpacked():
    with InfluxServer(max_body=20) as server:
        packed = gzip.compress(b"m f=1i 1\n" * 3)
        status, _, body = post(server, packed, headers={"Content-Encoding": "gzip"})
        assert (status, body["code"]) == (413, "request too large")
        assert post(server, "m f=1i 1\n" * 2)[0] == 204


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("body", [b"", b"m f=\xff", b"\n"])
def test_a_body_that_is_none_is_an_error(version, body):
    with InfluxServer(version) as server:
        status = post(server, body)[0]
        assert status == (204 if version == 2 and not body else 400)
        assert server.points == []
        assert len(server.errors) == 1


@pytest.mark.parametrize("version", [2, 3])
def test_what_a_correct_sender_never_does_is_an_error(version):
    with InfluxServer(version) as server:
        base = server.path.partition("?")[0]
        for status, request in (
            (404, {"method": "PUT"}),
            (404, {"path": "/write" + server.path[len(base) :]}),
            (204, {"path": server.path + "&colour=red"}),
            (204, {"path": server.path + "&precision=%s" % server.path.rpartition("=")[2]}),
            (400, {"path": server.path.partition("&precision")[0] + "&precision=h"}),
            (204, {"headers": {"Content-Type": "application/json"}}),
        ):
            before = len(server.errors)
            assert post(server, "m f=1 1", **request)[0] == status, request
            assert len(server.errors) == before + 1, request


def test_entries_of_answers_come_first_and_store_nothing(server):
    server.answers.append(server.error(503, "try again", retry_after=30))
    server.answers.append(Answer.reset_after())
    server.answers.append(server.lost(Answer.reset_after()))
    status, headers, body = post(server, "m f=1i 1")
    assert (status, headers["Retry-After"]) == (503, "30")
    assert "try again" in body.values()
    with pytest.raises(ConnectionError):
        post(server, "m f=2i 2")
    assert server.points == []
    with pytest.raises(ConnectionError):
        post(server, "m f=3i 3")
    assert [point.fields for point in server.points] == [{"f": 3}]
    assert post(server, "m f=4i 4")[0] == 204
    assert server.request_count == 4


def test_a_body_that_is_cut_stores_nothing(server):
    client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT)
    client.putrequest("POST", server.path)
    client.putheader("Authorization", "Token token")
    client.putheader("Content-Length", "100")
    client.endheaders(b"m f=1 1\nm f=2 2\n")
    client.close()
    assert server.wait_for(1)[0].complete is False
    server.wait_closed()
    assert server.points == []


def test_another_process_finds_it_by_its_url(server):
    code = """if True:
        import sys, urllib.request
        headers = {"Authorization": "Token token", "Content-Type": "text/plain"}
        request = urllib.request.Request(sys.argv[1], b"m f=1i 1", headers)
        print(urllib.request.urlopen(request).status)"""
    done = subprocess.run(
        [sys.executable, "-c", code, server.url], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("204\n", "")
    assert server.points == [("m", {}, {"f": 1}, 1)]


# --- What of a batch is stored ---

GOOD = "m f=1.5 1\nm f=2.5 3"
MALFORMED = "m f=1.5 1\nm f= 2\nm f=2.5 3"
CONFLICT = 'm f=1.5 1\nm f="a\nb" 2\nm f=2i,g=2i 3\nm f=2.5 4'


def test_version_2_stores_nothing_of_a_batch_with_a_malformed_line():
    with InfluxServer(2) as server:
        status, _, body = post(server, MALFORMED)
        assert (status, body["code"]) == (400, "invalid")
        assert body["message"] == "unable to parse 'm f= 2': missing field value"
        assert server.points == []
        assert server.errors == ["line 2, 'm f= 2': missing field value"]


@pytest.mark.parametrize(("status", "code"), [(422, "unprocessable entity"), (400, "invalid")])
def test_version_2_stores_what_fits_and_counts_what_does_not(status, code):
    with InfluxServer(2, partial_status=status) as server:
        seen, _, body = post(server, CONFLICT)
        assert (seen, body["code"]) == (status, code)
        assert body["message"] == (
            "failure writing points to database: partial write: field type conflict: input field"
            ' "f" on measurement "m" is type string, already exists as type float dropped=2'
        )
        assert [point.timestamp for point in server.points] == [1, 4]
        assert server.schema == {"m": {"f": "float"}}  # g came with a conflict
        assert server.errors == []


def test_version_2_drops_what_is_older_than_its_retention():
    with InfluxServer(2, oldest=2) as server:
        status, _, body = post(server, GOOD)
        assert (status, body["code"]) == (422, "unprocessable entity")
        assert "outside retention policy dropped=1" in body["message"]
        assert [point.timestamp for point in server.points] == [3]
        assert server.errors == []


def test_version_3_stores_the_other_lines_and_numbers_those_it_refused():
    with InfluxServer(3) as server:
        status, _, body = post(server, CONFLICT + "\nm f= 5\nm f=3.5 6")
        assert status == 400
        assert body == {
            "error": "partial write of line protocol occurred",
            "data": [
                {
                    "original_line": 'm f="a\nb" 2',
                    "line_number": 2,
                    "error_message": "invalid column type for column 'f', expected float,"
                    " got string",
                },
                {
                    "original_line": "m f=2i,g=2i 3",
                    "line_number": 3,
                    "error_message": "invalid column type for column 'f', expected float,"
                    " got integer",
                },
                {
                    "original_line": "m f= 5",
                    "line_number": 5,
                    "error_message": "missing field value",
                },
            ],
        }
        assert [point.timestamp for point in server.points] == [1, 4, 6]
        assert len(server.errors) == 1


@pytest.mark.parametrize("lines", [MALFORMED, CONFLICT])
def test_version_3_stores_nothing_if_partial_writes_are_not_accepted(lines):
    with InfluxServer(3, accept_partial=False) as server:
        status, _, body = post(server, lines)
        assert status == 400
        assert body["error"] == "parsing failed for write_lp endpoint"
        assert body["data"]["line_number"] == 2
        assert server.points == []
        assert server.schema == {}
        assert post(server, GOOD)[0] == 204
        assert len(server.points) == 2


def test_version_3_has_columns_so_a_tag_is_no_field():
    with InfluxServer(3) as server:
        assert post(server, "m,t=1 f=1 1")[0] == 204
        assert post(server, "m t=1 2")[0] == 400
        assert post(server, "m,f=1 g=1 3")[0] == 400
        assert len(server.points) == 1
    with InfluxServer(2) as server:
        assert post(server, "m,t=1 f=1 1\nm t=1 2")[0] == 204


@pytest.mark.parametrize("version", [2, 3])
def test_a_schema_that_was_there_before_counts(version):
    with InfluxServer(version, schema={"m": {"f": "integer"}}) as server:
        assert post(server, "m f=1 1\nm f=1i 2\nn f=1 3")[0] in (400, 422)
        assert [point[::3] for point in server.points] == [("m", 2), ("n", 3)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"org": "other"}, 'organization name "other" not found'),
        ({"bucket": "other"}, 'bucket "other" not found'),
    ],
)
def test_version_2_has_no_other_organization_or_bucket(change, message):
    with InfluxServer(2) as server:
        other = InfluxServer(2, **change)
        status, _, body = post(server, GOOD, path=other.path)
        assert (status, body) == (404, {"code": "not found", "message": message})
        assert server.points == []


def test_version_3_would_create_another_database_and_nobody_would_look_there():
    with InfluxServer(3) as server:
        assert post(server, GOOD, path=InfluxServer(3, bucket="other").path)[0] == 404
        assert server.points == []
        assert len(server.errors) == 1
