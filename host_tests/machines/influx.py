"""An InfluxDB that only takes writes, and is stricter than a real one.

    with InfluxServer(version=3, token="secret") as server:
        ...                       # a sender POSTs to server.url, in any process
        server.points             # [(measurement, tags, fields, timestamp)], as stored

FakeServer speaks HTTP, TLS and gzip and misbehaves on command; here is what InfluxDB adds. The
two write APIs are the documented ones:
https://docs.influxdata.com/influxdb/v2/api/v2/#operation/PostWrite
https://docs.influxdata.com/influxdb/v2/write-data/troubleshoot/
https://docs.influxdata.com/influxdb3/core/write-data/http-api/v3-write-lp/
https://docs.influxdata.com/influxdb3/core/write-data/troubleshoot/

What is stored of a batch, and what the answer is:

    if a line               is malformed             has a field of another type than before
    version 2               nothing; 400             the rest; 422 "partial write: ... dropped=2"
    version 3               the rest; 400 with the numbers of the lines that were refused
    and accept_partial=false   nothing; 400 with the first of them
"""

import threading
import urllib.parse

from fake_server import Answer, FakeServer
from line_protocol import LATEST, UNITS, LineError, Point, parse_line, split_lines

_ENDPOINTS = {2: "/api/v2/write", 3: "/api/v3/write_lp"}
_PARAMETERS = {2: ("org", "bucket", "precision")}
_PARAMETERS[3] = ("db", "precision", "accept_partial", "no_sync")
_PRECISIONS = {2: {name: name for name in UNITS}}
_PRECISIONS[3] = {"ns": "nanosecond", "us": "microsecond", "ms": "millisecond", "s": "second"}
_PRECISIONS[3]["auto"] = "auto"
_SCHEMES = {2: ("Token",), 3: ("Bearer", "Token")}
_CODES = {  # of version 2; version 3 has none
    400: "invalid",
    401: "unauthorized",
    404: "not found",
    413: "request too large",
    422: "unprocessable entity",
    429: "too many requests",
    503: "unavailable",
}
_CONFLICTS = {
    2: 'field type conflict: input field "{name}" on measurement "{measurement}"'
    " is type {new}, already exists as type {old}",
    3: "invalid column type for column '{name}', expected {old}, got {new}",
}


class _Refused(Exception):
    """The whole request is refused with args: status, message."""


class InfluxServer(FakeServer):
    """One InfluxDB with one organization and bucket, or one database.

    version: of the write API, 2 or 3.
    token: what the Authorization header must carry; None lets everybody in.
    schema: {measurement: {field: type}} that was there before; see .schema.
    org, bucket: their names; the bucket is version 3's database.
    precision: "ns", "us", "ms", "s" or, in version 3, "auto"; it stands in .url.
    accept_partial: version 3's parameter of that name; it stands in .url.
    partial_status: version 2's status of a partial write: 422 as InfluxDB OSS since 2.5, or 400
        as InfluxDB Cloud.
    oldest: version 2: where the bucket's retention ends, in ns; older points are dropped.
    max_body: bytes of a body, unpacked; a larger one is refused with 413.
    Anything else is FakeServer's.

    url: the complete URL to write to.
    points: [Point] in the order in which they came; equal to plain tuples. A point that comes
        again, with the same measurement, tags and timestamp, has the fields of both, and the
        later value of each. Points without a timestamp (None) are one if one request had them.
    schema: {measurement: {field: type}}, with types as in line_protocol.parse_line(); version 3
        lists the tags as well, their type is "tag".
    answers: what the next requests get instead of a write: entries as for script(), first in
        first out; see also error() and lost().
    requests, request_count: the requests, and how many there were.
    errors: sentences about what a correct sender never does, however it was answered.
    """

    def __init__(
        self,
        version=2,
        token="token",
        schema=None,
        *,
        org="org",
        bucket="bucket",
        precision="ns",
        accept_partial=True,
        partial_status=422,
        oldest=-LATEST,
        max_body=None,
        **more,
    ):
        if version == 2:
            query = {"org": org, "bucket": bucket}
        else:
            query = {"db": bucket, "accept_partial": str(accept_partial).lower()}
        query["precision"] = _PRECISIONS[version][precision]
        path = "%s?%s" % (_ENDPOINTS[version], urllib.parse.urlencode(query))
        super().__init__(path=path, receiver=False, **more)
        self.version = version
        self.token = token
        self.org = org
        self.bucket = bucket
        self.partial_status = partial_status
        self.oldest = oldest
        self.max_body = max_body
        self.schema = {name: dict(types) for name, types in (schema or {}).items()}
        self.default = self._write
        self._points = {}  # (measurement, tags, timestamp or number of the write): fields
        self._writes = 0
        self._lock = threading.Lock()

    @property
    def points(self):
        with self._lock:
            return [
                Point(measurement, dict(tags), dict(fields), timestamp)
                for (measurement, tags, timestamp, _), fields in self._points.items()
            ]

    def error(self, status, message="", retry_after=None):
        """Return an Answer that refuses a request as this version words it."""
        if self.version == 2:
            body = {"code": _CODES.get(status, "internal error"), "message": message}
        else:
            body = {"error": message}
        return Answer(status, {} if retry_after is None else {"Retry-After": retry_after}, body)

    def lost(self, answer):
        """Return an entry for .answers: InfluxDB writes, but `answer` is played in its place."""

        def write(request):
            self._write(request)
            return answer

        return write

    # A write, from the request to the answer

    def _write(self, request):
        if not request.complete:
            return Answer.close_after()
        try:
            self._check_request(request)
            unit, partial = self._read_parameters(request.path)
            lines = self._read_lines(request)
            with self._lock:
                return self._store(lines, unit, partial)
        except _Refused as refused:
            return self.error(*refused.args)

    def _check_request(self, request):
        path = request.path.partition("?")[0]
        if request.method != "POST" or path != _ENDPOINTS[self.version]:
            self.note("%s %s is not the write API" % (request.method, path))
            raise _Refused(404, "path not found")
        kind = request.headers.get("content-type", "text/plain")
        if kind.partition(";")[0].strip().lower() != "text/plain":
            self.note("Content-Type is %s, not text/plain" % kind)
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme and scheme not in _SCHEMES[self.version]:
            self.note("Authorization begins with %s, not %s" % (scheme, _SCHEMES[self.version]))
            raise _Refused(401, "unauthorized access")
        if token != self.token and self.token is not None:
            raise _Refused(401, "unauthorized access")

    def _read_parameters(self, path):
        """Return (nanoseconds in a step of the timestamps, or None; whether partial writes are
        accepted); _Refused if the query is not right."""
        known = _PARAMETERS[self.version]
        given = urllib.parse.parse_qsl(path.partition("?")[2], keep_blank_values=True)
        query = dict(given)
        if len(query) < len(given) or not query.keys() <= set(known):
            self.note("the parameters are %r, not some of %r" % (given, known))
        precisions = {name: short for short, name in _PRECISIONS[self.version].items()}
        precision = query.get("precision", "ns" if self.version == 2 else "auto")
        partial = query.get("accept_partial", "true")
        if precision not in precisions or partial not in ("true", "false"):
            self.note("the parameters are %r" % given)
            raise _Refused(400, "invalid precision; valid are %s" % ", ".join(precisions))
        if self.version == 2 and query.get("org") != self.org:
            raise _Refused(404, 'organization name "%s" not found' % query.get("org"))
        if self.version == 2 and query.get("bucket") != self.bucket:
            raise _Refused(404, 'bucket "%s" not found' % query.get("bucket"))
        if self.version == 3 and query.get("db") != self.bucket:
            # A real one creates the database: this is how data lands where nobody looks.
            self.note("the database is %r, not %r" % (query.get("db"), self.bucket))
            raise _Refused(404, "database not found")
        return UNITS.get(precisions[precision]), partial == "true"

    def _read_lines(self, request):
        if self.max_body is not None and len(request.body) > self.max_body:
            raise _Refused(413, "unable to read data: points batch is too large")
        try:
            return split_lines(request.body.decode())
        except UnicodeDecodeError as error:
            self.note("the body is not UTF-8: %s" % error)
            raise _Refused(400, "the body is not UTF-8") from None

    # The points

    def _store(self, lines, unit, partial):
        """Store what can be stored; returns the Answer."""
        if not lines:
            self.note("an empty body")
            return (
                Answer(204) if self.version == 2 else self.error(400, "incoming write was empty")
            )
        points, refused = self._parse(lines, unit)
        if refused and self.version == 2:
            return self._unreadable(lines, refused)
        schema = {name: dict(types) for name, types in self.schema.items()}
        for number, (point, types) in points.items():
            reason = self._learn(schema, point, types)
            if reason:
                refused[number] = reason
        if refused and not partial:
            return self._all_refused(lines, refused)
        self.schema = schema
        self._writes += 1
        for number, (point, _) in points.items():
            if number not in refused:
                self._merge(point)
        if refused:
            return self._some_refused(lines, refused)
        return Answer(204)

    def _parse(self, lines, unit):
        """Return ({number of a line: (Point, types)}, {number of a line: what is wrong})."""
        points = {}
        refused = {}
        for number, line in enumerate(lines, 1):
            try:
                points[number] = parse_line(line, unit)
            except LineError as error:
                refused[number] = str(error)
                self.note("line %d, %r: %s" % (number, line, error))
        return points, refused

    def _learn(self, schema, point, types):
        """Add a point's fields to the schema; if they don't fit, say why and add nothing."""
        if self.version == 2 and point.timestamp is not None and point.timestamp < self.oldest:
            return "point outside retention policy"
        if self.version == 3:
            types = dict(types, **dict.fromkeys(point.tags, "tag"))
        known = schema.setdefault(point.measurement, {})
        for name, new in types.items():
            old = known.get(name, new)
            if new != old:
                return _CONFLICTS[self.version].format(
                    name=name, measurement=point.measurement, new=new, old=old
                )
        known.update(types)
        return None

    def _merge(self, point):
        write = self._writes if point.timestamp is None else None
        key = (point.measurement, tuple(sorted(point.tags.items())), point.timestamp, write)
        self._points.setdefault(key, {}).update(point.fields)

    # The answers

    def _unreadable(self, lines, refused):
        return self.error(
            400,
            "\n".join(
                "unable to parse '%s': %s" % (lines[number - 1], reason)
                for number, reason in refused.items()
            ),
        )

    def _some_refused(self, lines, refused):
        if self.version == 2:
            reason = refused[min(refused)]
            text = "failure writing points to database: partial write: %s dropped=%d"
            return self.error(self.partial_status, text % (reason, len(refused)))
        data = [self._details(lines, refused, number) for number in sorted(refused)]
        error = "partial write of line protocol occurred"
        return Answer(400, body={"error": error, "data": data[:100]})

    def _all_refused(self, lines, refused):
        error = "parsing failed for write_lp endpoint"
        data = self._details(lines, refused, min(refused))
        return Answer(400, body={"error": error, "data": data})

    @staticmethod
    def _details(lines, refused, number):
        return {
            "original_line": lines[number - 1],
            "line_number": number,
            "error_message": refused[number],
        }
