r"""InfluxDB's line protocol, read strictly: what a sender may write so that every server agrees.

    measurement[,tag=value]... field=value[,field=value]... [timestamp]

The grammar is the documented one:
https://docs.influxdata.com/influxdb/v2/reference/syntax/line-protocol/
https://docs.influxdata.com/influxdb3/core/reference/line-protocol/

Servers are more tolerant than that page, each in its own way, so here is refused whatever the
page doesn't have, or what InfluxDB 2 and 3 read differently:

* two backslashes in a row in a name: InfluxDB 2 keeps both, InfluxDB 3 only one. In quoted
  strings, both read them as one;
* a backslash before = or " in a measurement: InfluxDB 2 stores a name that no query finds;
* a tab in a name: InfluxDB 3 refuses it;
* the same field twice, a tag named as a field, a field called "time": InfluxDB 3 refuses them;
* two spaces in a row, an empty line, a comment: a sender has no use for them, and a measurement
  that begins with # is lost as one.

A line break within a quoted string is part of the string; both servers store it, although the
page says that it isn't supported.
"""

import collections
import re

UNITS = {"ns": 1, "us": 1000, "ms": 1000_000, "s": 1000_000_000}  # nanoseconds
MAX_STRING = 65536  # bytes of a string, or of a name
LATEST = 9223372036854775806  # ns; a timestamp's earliest is as far before 1970

Point = collections.namedtuple("Point", "measurement tags fields timestamp")
Point.__doc__ = """One point: str, {str: str}, {str: value}, and int or None.

A value is a float, int, str or bool; for how it was written see the types from parse_line(),
because 1.0 == 1 == True in Python.
"""

# A line ends at a line break that is neither escaped nor in a string. Strings only begin behind
# an equals sign, and only after the first space; elsewhere a quotation mark is a letter.
_LINE = re.compile(
    r"""(?: \\. | [^\\ \n] )*
        (?:[ ] (?: =" (?: \\. | [^\\"] )* "? | \\. | [^\\\n] )* )?
        \\?""",
    re.DOTALL | re.VERBOSE,
)
_MEASUREMENT = re.compile(r"(?:\\.|[^\\, \n\t\0])*", re.DOTALL)
_NAME = re.compile(r"(?:\\.|[^\\,= \n\t\0])*", re.DOTALL)
_STRING = re.compile(r'"((?:\\.|[^\\"])*)"', re.DOTALL)
_BARE = re.compile(r"[^, \n]*")
_FLOAT = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_TIMESTAMP = re.compile(r"-?[0-9]+")
_BOOLEANS = dict.fromkeys(("t", "T", "true", "True", "TRUE"), True)
_BOOLEANS.update(dict.fromkeys(("f", "F", "false", "False", "FALSE"), False))


class LineError(ValueError):
    """A line is not what the grammar says; args[0] is the reason."""


def split_lines(text):
    """Return the lines of a body; the line break after the last one may be missing."""
    lines = []
    at = 0
    while at < len(text):
        end = _LINE.match(text, at).end()
        lines.append(text[at:end])
        at = end + 1
    return lines


def parse_line(line, unit=1):
    """Return (Point, {field: type}) of one line, with types as InfluxDB calls them.

    unit: nanoseconds in one step of the timestamp, or None: InfluxDB 3 guesses by its size.
    The types are "float", "integer", "unsigned", "string" and "boolean". Raises LineError.
    """
    if not line:
        raise LineError("an empty line")
    if line.startswith("#"):
        raise LineError("a comment, or a measurement that would be taken for one")
    measurement, at = _read_name(line, 0, _MEASUREMENT, "measurement")
    tags, at = _read_tags(line, at)
    if line[at : at + 1] != " ":
        raise LineError("missing fields")
    fields, types, at = _read_fields(line, at + 1)
    both = tags.keys() & fields.keys()
    if both:
        raise LineError("%r is a tag and a field" % min(both))
    timestamp = None
    if line[at : at + 1] == " ":
        timestamp = _read_timestamp(line[at + 1 :], unit)
    elif at < len(line):
        raise LineError("%r after the fields" % line[at : at + 10])
    return Point(measurement, tags, fields, timestamp), types


def _read_name(line, at, pattern, kind):
    """Return (name without its escapes, position after it)."""
    match = pattern.match(line, at)
    raw = match.group()
    if not raw:
        raise LineError("missing %s" % kind)
    if line[match.end() : match.end() + 1] == "\\":
        raise LineError("a %s ends with a backslash" % kind)
    if "\\\\" in raw:
        raise LineError("two backslashes in a %s, which servers read differently" % kind)
    if "\\\n" in raw or "\\\t" in raw or "\\\0" in raw:
        raise LineError("a control character in a %s" % kind)
    if pattern is _MEASUREMENT:
        if re.search(r'\\[="]', raw):
            raise LineError('an escaped = or " in a measurement')
        name = re.sub(r"\\([, ])", r"\1", raw)
    else:
        name = re.sub(r"\\([,= ])", r"\1", raw)
    if len(name.encode()) > MAX_STRING:
        raise LineError("a %s of more than %d bytes" % (kind, MAX_STRING))
    if kind != "tag value" and name.startswith("_"):
        raise LineError("%r: the names that begin with _ are InfluxDB's own" % name)
    return name, match.end()


def _read_key(line, at, kind, known):
    key, at = _read_name(line, at, _NAME, kind + " key")
    if line[at : at + 1] != "=":
        raise LineError("missing = after the %s key %r" % (kind, key))
    if key in known:
        raise LineError("%s %r twice" % (kind, key))
    if key == "time":
        raise LineError("a %s must not be called time" % kind)
    return key, at + 1


def _read_tags(line, at):
    tags = {}
    while line[at : at + 1] == ",":
        key, at = _read_key(line, at + 1, "tag", tags)
        tags[key], at = _read_name(line, at, _NAME, "tag value")
    return tags, at


def _read_fields(line, at):
    fields = {}
    types = {}
    while True:
        key, at = _read_key(line, at, "field", fields)
        fields[key], types[key], at = _read_value(line, at)
        if line[at : at + 1] != ",":
            return fields, types, at
        at += 1


def _read_value(line, at):
    """Return (value, type, position after it)."""
    if line[at : at + 1] == '"':
        match = _STRING.match(line, at)
        if not match:
            raise LineError("unbalanced quotes")
        value = re.sub(r'\\(["\\])', r"\1", match.group(1))
        if len(value.encode()) > MAX_STRING:
            raise LineError("a string of more than %d bytes" % MAX_STRING)
        return value, "string", match.end()
    match = _BARE.match(line, at)
    text = match.group()
    if not text:
        raise LineError("missing field value")
    if text in _BOOLEANS:
        return _BOOLEANS[text], "boolean", match.end()
    if re.fullmatch(r"-?[0-9]+i", text):
        return _in_range(text, -(1 << 63), (1 << 63) - 1), "integer", match.end()
    if re.fullmatch(r"[0-9]+u", text):
        return _in_range(text, 0, (1 << 64) - 1), "unsigned", match.end()
    if not _FLOAT.fullmatch(text):
        raise LineError("invalid field value %r" % text)
    value = float(text)
    if value - value != 0:
        raise LineError("the number %s is out of range" % text)
    return value, "float", match.end()


def _in_range(text, low, high):
    value = int(text[:-1])
    if not low <= value <= high:
        raise LineError("the number %s is out of range" % text)
    return value


def _read_timestamp(text, unit):
    if not _TIMESTAMP.fullmatch(text):
        raise LineError("bad timestamp %r" % text)
    value = int(text)
    if unit is None:
        size = abs(value)
        unit = UNITS["s" if size < 5e9 else "ms" if size < 5e12 else "us" if size < 5e15 else "ns"]
    if abs(value * unit) > LATEST:
        raise LineError("the timestamp %s is out of range" % text)
    return value * unit
