"""InfluxDB: points in line protocol, for the write APIs of versions 2 and 3: docs/influxdb.md."""

import json

from .envelope import Frame, Verdict
from .ports import dumps
from .uplink import Uplink

_UNITS = ("ns", "us", "ms", "s", "nanosecond", "microsecond", "millisecond", "second", "auto")


class Influx(Uplink):
    """`POSTCache` for InfluxDB: `url` is where to write, with its query; `token` a str or None."""

    def __init__(self, url, cache_path, token=None, *, headers=None, **settings):
        from .checks import checked_headers

        fixed = checked_headers("text/plain; charset=utf-8", headers, token and "Token " + token)
        frame = _Lines(url, fixed, b"", b"\n", b"")
        unit = str(url).replace("?", "&").partition("&precision=")[2].partition("&")[0] or "ns"
        if unit not in _UNITS:
            raise ValueError("precision: one of " + ", ".join(_UNITS))
        frame.step = 1000 ** (_UNITS.index(unit) % 4)
        super().__init__(frame, cache_path, timestamp_key="epoch_ms", **settings)

    def write(self, measurement, fields, tags=None, epoch=None):
        """Store a point; return and raise as `POSTCache.add_request` does.
        fields: dict of bool, int of 64 bits, float, str. tags: dict of str; "" is left out.
        epoch: seconds since 1970, int or float, to the microsecond; None: now."""
        tags = {key: value for key, value in (tags or {}).items() if value != ""}
        if not fields or "time" in tags or "time" in fields or set(tags) & set(fields):
            raise ValueError("no field, one called time, or one that is also a tag")
        names = [_name(measurement, "_#").replace("\\=", "=")]
        names += [_name(key) + "=" + _name(tags[key], "") for key in sorted(tags)]
        values = [_name(key) + "=" + _value(fields[key]) for key in fields]
        point = {} if epoch is None else {"epoch_ms": round(epoch * 1000, 3)}
        point["line"] = (",".join(names) + " " + ",".join(values)).encode().decode()  # UTF-8?
        return self.add((point,), {})


class _Lines(Frame):
    step = 1  # of a timestamp, in nanoseconds

    def group(self, payload):
        return payload if payload[:16] == b'{"epoch_ms":null' else None  # undated: alone

    def render(self, payload):
        point = json.loads(payload)
        ms = point.get("epoch_ms")
        date = "" if ms is None else " %d" % (round(ms * 1000) * 1000 // self.step)
        return (point.get("line", "no point") + date).encode()  # it is refused, and set aside

    def verdict(self, batch, status, headers, start):
        n = batch.last - batch.first + 1
        try:
            rows = json.loads(start)["data"]
            refused = {row["line_number"] - 1: row["error_message"].encode() for row in rows}
        except (AttributeError, KeyError, TypeError, ValueError):  # version 2, or cut off at 512
            why = start[start.find(b"partial") :]
            refused = dict.fromkeys(range(n) if b' dropped=%d"' % n in why else (), why)
        if status in (400, 422) and b"partial write" in start and refused and max(refused) < n:
            return Verdict("delivered", 0, refused)
        return super().verdict(batch, status, headers, start)


def _name(text, first="_"):
    unclear = [c for c in ',= "\\' if "\\" + c in text + " "]  # versions 2 and 3 differ
    if unclear or not text or min(text) < " " or text[0] in first:
        raise ValueError("not a name in InfluxDB: %r" % text)
    return text.replace(",", "\\,").replace("=", "\\=").replace(" ", "\\ ")


def _value(value):
    if isinstance(value, str):
        return '"%s"' % value.replace("\\", "\\\\").replace('"', '\\"')
    text = dumps(value).decode()  # as in JSON: bool and float
    whole = isinstance(value, int) and not isinstance(value, bool)
    if text[0] in "[{n" or (whole and not -(1 << 63) <= value < 1 << 63):
        raise ValueError("a field: bool, int of 64 bits, finite float or str")
    return text + "i" if whole else text
