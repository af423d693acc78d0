"""What people see: tables by rich, which is loaded for them alone."""

import datetime
import json
import sys

from . import Problem
from .reader import attention, parse

try:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text
except ImportError:
    raise Problem(
        "Tables need the package rich: pip install 'postcache[cli]'. --json needs nothing."
    ) from None

_STYLES = {"waiting": "yellow", "delivered": "green"}


class _Console(Console):
    def on_broken_pipe(self):
        raise BrokenPipeError  # rich would exit with 1


def _console():
    # What is piped is not cut to a width, and has no colours.
    plain = not sys.stdout.isatty()
    return _Console(highlight=False, soft_wrap=True, no_color=plain or None)


def printable(value):
    """Return a JSON value as text on one line, in which nothing moves a terminal's cursor."""
    text = json.dumps(value, ensure_ascii=False)
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def _escaped(text):
    return "".join(c if c.isprintable() else "?" for c in text)


def _time(value):
    """Return a record's time as text; seconds or milliseconds since 1970 as a date."""
    if type(value) in (int, float):
        seconds = value / 1000 if abs(value) > 1e11 else value  # year 5138
        try:
            date = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
            return date.strftime("%Y-%m-%d %H:%M:%S UTC")
        except (ValueError, OverflowError, OSError):
            pass  # not of this calendar
    return printable(value)


def _entry(entry):
    if not entry:
        return "none"
    text = "number %d" % entry["number"]
    return text if entry["time"] is None else "%s, %s" % (text, _time(entry["time"]))


def status(state):
    """Print a survey as a table."""
    waiting = state["waiting"]
    flight = state["in_flight"]
    in_flight = "none"
    if flight:
        in_flight = "number %d" % flight[0]
        if flight[1] > flight[0]:
            in_flight += " to %d" % flight[1]
    delivered = "up to number %d" % state["acked"]
    if state["dropped"]:
        delivered += ", but for what was dropped"
    rows = [
        ("stream", _escaped(state["stream"] or "lost"), "" if state["stream"] else "red"),
        ("waiting", "%s" % format(waiting, ","), "yellow" if waiting else "green"),
        ("  oldest", _entry(state["oldest"]), ""),
        ("newest", _entry(state["newest"]), ""),
        ("delivered", delivered if state["acked"] else "none", ""),
        ("in flight", in_flight, ""),
        ("dropped", format(state["dropped"], ","), "yellow" if state["dropped"] else ""),
        (
            "rejected",
            "%s, %s of them set aside here"
            % (format(state["rejected"], ","), format(state["set_aside"], ",")),
            "yellow" if state["set_aside"] else "",
        ),
        ("damaged", format(state["damaged"], ","), "red" if state["damaged"] else ""),
        (
            "files",
            "%s bytes, %s; journal: %s"
            % (
                format(state["bytes"], ","),
                "1 segment" if state["segments"] == 1 else "%d segments" % state["segments"],
                state["journal"],
            ),
            "",
        ),
    ]
    table = Table(box=None, show_header=False, title=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text, style in rows:
        table.add_row(Text(name), Text(text, style))
    console = _console()
    console.print(Text(_escaped(state["path"]), "bold"))
    for line in _render(console, table):
        console.print(line)
    for sentence in attention(state):
        console.print(Text("! " + sentence, "red"))


def _render(console, table):
    """Yield a table's lines as Text, without the blanks that rich fills them up with."""
    for segments in console.render_lines(table, pad=False):
        line = Text.assemble(*((segment.text, segment.style or "") for segment in segments))
        line.rstrip()
        yield line


class Lines:
    """Prints records, a line for each, as they come."""

    def __init__(self):
        self._console = _console()

    def record(self, number, state, payload, remark=""):
        """Print one record: its number, str, bytes, and a str to stand before it."""
        try:
            text = printable(parse(payload))
        except ValueError:
            text = _escaped(payload.decode("utf-8", "backslashreplace"))
        line = Text("%8d  " % number, "bold")
        line.append("%-9s  " % state, _STYLES.get(state, "red"))
        if remark:
            line.append(_escaped(remark) + "  ", "red")
        line.append(text)
        self._console.print(line)
