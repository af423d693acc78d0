"""
postcache: looks at a log, takes records out of it, and puts records into it.

    status, tail, export, rejected    read only: they take no lock and change nothing
    requeue, import-sqlite            own the log: the program that logs must be stopped

Exit codes: 0 done, 2 it could not be done, or the command line is wrong, 3 something needs a
person (`status --check`, and rows that `import-sqlite` had to leave).
"""

import argparse
import collections
import contextlib
import csv
import io
import json
import os
import sys
import time

from .. import __version__
from . import Problem, counted

DONE, FAILED, ATTENTION = 0, 2, 3
_POLL = 0.25  # s, how often --follow looks
_COLUMNS = 1000  # of a CSV file at most


def _say(text):
    sys.stdout.write(text + "\n")


def _note(text):
    sys.stderr.write("postcache: %s\n" % text)


# --- looking ---


def _status(args):
    from . import reader

    show = None
    if not args.json:
        from . import show  # what is missing is said before a board is interrupted
    if args.port:
        from . import board

        path = args.path or "/cache"
        with board.pulled(args.port, path, _note) as folder:
            files = reader.Files(folder, "%s on %s" % (path, args.port))
            state = reader.survey(files, args.timestamp_key)
    elif args.path:
        state = reader.survey(reader.Files(args.path), args.timestamp_key)
    else:
        raise Problem("Name the log's folder, or --port of a board.")
    if show:
        show.status(state)
    else:
        _say(json.dumps(state))
    return ATTENTION if args.check and reader.attention(state) else DONE


def _line(number, delivered, payload):
    """Return a record as one line of JSON; its own text as it is stored."""
    from .reader import parse

    head = '{"number": %d, "delivered": %s, "record": ' % (
        number,
        "true" if delivered else "false",
    )
    try:
        parse(payload)
        return head + payload.decode() + "}"
    except ValueError:  # no damage, its checksum is right: somebody's own bytes
        return (
            head + "null, " + json.dumps({"text": payload.decode("utf-8", "backslashreplace")})[1:]
        )


def _tail(args):
    from . import reader

    files = reader.Files(args.path)
    put = _printer(args)
    records = reader.last_records(files, args.lines)
    kept = collections.deque(records.more(), args.lines)
    while True:
        acked = files.cursor().acked
        for number, payload in kept:
            put(number, number <= acked, files.dated(number, payload))
        if not args.follow:
            return DONE
        sys.stdout.flush()
        time.sleep(_POLL)
        kept = records.more()


def _printer(args):
    """Return what prints a record: a callable(number, delivered, payload)."""
    if args.json:
        return lambda *record: _say(_line(*record))
    from .show import Lines

    lines = Lines()
    return lambda number, delivered, payload: lines.record(
        number, "delivered" if delivered else "waiting", payload
    )


def _rejected(args):
    from . import reader

    files = reader.Files(args.path)
    rejects, _, damaged = files.rejects()
    if not args.json:
        from .show import Lines

        lines = Lines()
        for reject in rejects:
            payload = files.dated(reject.number, reject.payload)
            lines.record(reject.number, "HTTP %d" % reject.status, payload, reject.reason)
    else:
        for reject in rejects:
            head = {"number": reject.number, "status": reject.status, "reason": reject.reason}
            record = _line(0, False, files.dated(reject.number, reject.payload))
            _say(json.dumps(head)[:-1] + record[record.index(', "record"') :])
    _tell_damage(damaged)
    return DONE


def _tell_damage(n):
    if n:
        _note("passed over %s that held no record where one was due." % counted(n, "place"))


# --- taking out ---


def _waiting(args, files, until=None):
    """Yield (number, delivered, payload) of what is to be exported; damage is told at the end."""
    from .reader import Records

    acked = files.cursor().acked
    records = Records(files, 0 if args.all else acked)
    for number, payload in records.all():
        if until is not None and number > until:
            break
        if args.all or number > acked:
            yield number, number <= acked, files.dated(number, payload)
    if until is None:
        _tell_damage(records.damaged)


def _export_lines(args, files, out):
    for record in _waiting(args, files):
        out.write(_line(*record) + "\n")


def _export_csv(args, files, out):
    """Two passes: first the names of all fields, then the records."""
    from .reader import parse

    def fields(payload):
        try:
            value = parse(payload)
        except ValueError:
            value = payload.decode("utf-8", "backslashreplace")
        return value if isinstance(value, dict) else {"record": value}

    own = ("number", "delivered")
    names = {}
    last = 0
    for number, _, payload in _waiting(args, files):
        last = number
        names.update(dict.fromkeys(fields(payload)))
        if len(names) > _COLUMNS:
            raise Problem(
                "The records have more than %d different fields; use --format jsonl." % _COLUMNS
            )
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*own, *("record." + name if name in own else name for name in names)])
    for number, delivered, payload in _waiting(args, files, last):
        row = fields(payload)
        writer.writerow(
            [number, "true" if delivered else "false", *(_cell(row, name) for name in names)]
        )


def _cell(row, name):
    value = row.get(name)
    if name not in row or value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _export(args):
    from .reader import Files

    files = Files(args.path)
    write = _export_csv if args.format == "csv" else _export_lines
    if args.output in (None, "-"):
        write(args, files, sys.stdout)
        return DONE
    target = os.path.abspath(args.output)
    if os.path.realpath(args.path) in (
        os.path.dirname(os.path.realpath(target)),
        os.path.realpath(os.path.dirname(target)),
    ):
        raise Problem("%s would lie in the log's own folder; write it elsewhere." % args.output)
    if os.path.exists(target) and not os.path.isfile(target):  # a pipe, a terminal
        with _open(target) as out:
            write(args, files, out)
        return DONE
    part = target + ".part"  # so that half an export never has the name of a whole one
    try:
        with _open(part) as out:
            write(args, files, out)
        os.replace(part, target)
    except BaseException:
        try:
            os.remove(part)
        except OSError:
            pass
        raise
    return DONE


def _open(path):
    return open(path, "w", encoding="utf-8", errors="backslashreplace", newline="")


# --- putting in ---


def _requeue(args):
    from ..client import POSTCache
    from .reader import Files

    Files(args.path)  # not a log, or of a newer version: a sentence, and nothing is made
    # "raise": what is set aside has no right to the place of what waits.
    with _owned(args.path), POSTCache(None, args.path, on_full="raise") as cache:
        n = cache.requeue_rejected()
    if args.json:
        _say(json.dumps({"requeued": n}))
    else:
        _say(counted(n, "record") + " put back into the queue.")
    return DONE


def _import_sqlite(args):
    from . import old_sqlite

    with _owned(args.path):
        result = old_sqlite.take_over(args.database, args.path, args.anew, args.dry_run)
    if args.json:
        _say(json.dumps(result))
    else:
        for sentence in old_sqlite.told(result, args.database, args.dry_run):
            _say(sentence)
    return ATTENTION if result["left"] else DONE


@contextlib.contextmanager
def _owned(path):
    """Turn the errors of opening and writing the log at `path` into sentences, in a `with`."""
    try:
        yield
    except OSError as e:
        if e.errno == 16:
            text = " is in use: stop the program that logs, run this again, and start it again."
        elif e.errno == 28:
            text = ": there is no room left."
        else:
            text = ": %s." % (e.strerror or e)
        raise Problem(path + text) from None


# --- the command line ---


def _count(text):
    n = int(text)
    if not 0 <= n <= 1000000:
        raise ValueError(text)
    return n


_count.__name__ = "count (0 to 1000000)"


def _parser():
    main = argparse.ArgumentParser(
        prog="postcache",
        description="Look at a log of postcache, take records out of it, put records into it.",
        epilog="Exit codes: 0 done; 2 it could not be done, or the command line is wrong; 3 "
        "something needs a person (status --check, rows that import-sqlite had to leave).",
    )
    main.add_argument("--version", action="version", version="postcache " + __version__)
    commands = main.add_subparsers(metavar="COMMAND", required=True)

    def command(name, call, text, path="the log's folder, also one that is in use"):
        parser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        parser.set_defaults(call=call)
        if name != "import-sqlite":
            parser.add_argument("path", metavar="PATH", help=path)
        return parser

    def with_json(parser, text):
        parser.add_argument("--json", action="store_true", help=text)

    status = commands.add_parser(
        "status",
        help="say what waits, what is delivered, and what is wrong",
        description="Say what waits, what is delivered, and what is wrong.",
    )
    status.set_defaults(call=_status)
    status.add_argument(
        "path",
        metavar="PATH",
        nargs="?",
        help="the log's folder, also one that is in use or was copied from a board; with --port "
        "the one on the board (default: /cache)",
    )
    status.add_argument(
        "--port",
        help="look at a board instead: auto, a serial port or socket://HOST:PORT. Its program is "
        "interrupted, and started again afterwards.",
    )
    status.add_argument(
        "--timestamp-key", metavar="KEY", help="the field of a record that holds its time"
    )
    status.add_argument(
        "--check", action="store_true", help="exit with 3 when something needs a person"
    )
    with_json(status, "one JSON object")

    tail = command("tail", _tail, "show the newest records")
    tail.add_argument(
        "-n", dest="lines", metavar="N", type=_count, default=10, help="how many (default: 10)"
    )
    tail.add_argument(
        "-f", "--follow", action="store_true", help="go on with what is added, until Ctrl-C"
    )
    with_json(tail, "JSON Lines: number, delivered, record")

    export = command("export", _export, "write the records that wait, oldest first")
    export.add_argument(
        "--format", choices=("jsonl", "csv"), default="jsonl", help="(default: jsonl)"
    )
    export.add_argument("--json", dest="format", action="store_const", const="jsonl")
    export.add_argument(
        "--all", action="store_true", help="those that are delivered and still there, too"
    )
    export.add_argument(
        "-o", dest="output", metavar="FILE", help="instead of standard output; replaced as a whole"
    )

    rejected = command("rejected", _rejected, "show the records that the server refused, and why")
    with_json(rejected, "JSON Lines: number, status, reason, record")

    requeue = command(
        "requeue",
        _requeue,
        "put the records that the server refused back into the queue",
        "the log's folder; the program that logs must be stopped",
    )
    with_json(requeue, "one JSON object: requeued")

    old = command(
        "import-sqlite",
        _import_sqlite,
        "take over the backlog of postcache 0.2.0, in order and once; OLD.db is not changed",
    )
    old.add_argument("database", metavar="OLD.db", help="the file that was its cache_path")
    old.add_argument(
        "path", metavar="PATH", help="the log's folder, made if it is missing; not in use"
    )
    old.add_argument("--dry-run", action="store_true", help="say what would be done; do nothing")
    old.add_argument(
        "--anew",
        action="store_true",
        help="take all rows, also those that this log has been given before",
    )
    with_json(old, "one JSON object: imported, before, left, first, last")
    return main


def main(argv=None):
    """Run the command line `argv`, a list of str; return its exit code."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # >&-
            setattr(sys, name, open(os.open(os.devnull, os.O_WRONLY), "w", closefd=False))
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # half a surrogate pair is valid JSON
    try:
        args = _parser().parse_args(argv)
        if isinstance(sys.stdout, io.TextIOWrapper) and args.call is not _status:
            sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")  # RFC 8259, 8.1
        code = args.call(args)
        sys.stdout.flush()
        return code
    except Problem as e:
        _note(e)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except ModuleNotFoundError as e:
        if e.name != "fcntl":
            raise
        _note("this needs a POSIX system: Linux, macOS, or WSL on Windows.")
    except OSError as e:
        _note("%s: %s." % (e.filename, e.strerror) if e.filename else "%s." % (e.strerror or e))
    return FAILED
