"""
Part "opening": a log with 100 and with 100,000 records waiting costs the same to open.

Counted twice: at the port, where every call of the library for a file passes, and (where strace is
installed) as the kernel sees it.

    python bench/opening.py DIRECTORY       opens it once, between two marks that strace can find
"""

import collections
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from measure import heading, number, progress, show_ratios, store, verdict

PART = "opening"
_MARK = "/postcache-bench-mark"
_COUNTS = (100, 100000)


class _File:
    """Passes everything on and counts it."""

    def __init__(self, file, counts):
        self._file = file
        self._counts = counts

    def __getattr__(self, name):
        method = getattr(self._file, name)

        def call(*args):
            result = method(*args)
            self._counts[name] += 1
            if name in ("read", "readline"):
                self._counts["bytes read"] += len(result)
            elif name == "write":
                self._counts["bytes written"] += len(args[0])
            return result

        return call

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.close()

    def __iter__(self):
        return iter(self._file.readline, b"")


class _Counting:
    """A `ports.Directory` that counts calls and bytes into `counts`."""

    def __init__(self, fs):
        self._fs = fs
        self.counts = collections.Counter()

    def __getattr__(self, name):
        method = getattr(self._fs, name)
        if not callable(method):  # a size
            return method

        def call(*args):
            self.counts[name] += 1
            result = method(*args)
            if name == "names":
                self.counts["names listed"] += len(result)
            elif name == "put":
                self.counts["bytes written"] += len(args[1])
            elif name == "open":
                result = _File(result, self.counts)
            return result

        return call


def _counted(path):
    """Open the log once; return the Counter of what it did."""
    from postcache.log import Log
    from postcache.ports import Directory

    fs = _Counting(Directory(path))
    log = Log(fs)
    counts = collections.Counter(fs.counts)  # closing is not opening
    log.close()
    return counts


def _open_once(path):
    from postcache import POSTCache

    start = time.perf_counter()
    cache = POSTCache(None, path)
    seconds = time.perf_counter() - start
    waiting = len(cache)
    cache.close()
    return seconds, waiting


def _traced(path):
    """Open the log in a process under strace; return a Counter of system calls, or None."""
    if not shutil.which("strace"):
        return None
    with tempfile.NamedTemporaryFile("r", dir=os.path.dirname(path)) as trace:
        command = ["strace", "-f", "-e", "trace=file,desc", "-o", trace.name]
        try:
            subprocess.run(
                command + [sys.executable, __file__, path],
                check=True,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=60,
            )
        except (subprocess.SubprocessError, OSError):
            return None  # containers may forbid ptrace
        text = trace.read()
    parts = [part.partition("\n")[2] for part in text.split(_MARK)]
    if len(parts) != 3:
        return None
    counts = collections.Counter()
    for line in parts[1].splitlines()[:-1]:  # the last one is the beginning of the second mark
        found = re.match(r"(?:\d+ +)?(\w+)\(.*= (-?\d+)", line)
        if found:
            name, result = found[1], int(found[2])
            counts[name] += 1
            if name in ("read", "pread64") and result > 0:
                counts["bytes read"] += result
    return counts


_NOT_CALLS = ("bytes read", "bytes written", "names listed")


def _calls(counts):
    return sum(value for name, value in counts.items() if name not in _NOT_CALLS)


class Opening:
    """What was found, with the same face as a `Contest`."""

    def __init__(self):
        self.part = PART
        self.rows = {}
        self.ratios = []

    def add(self, what, small, large):
        """Add a row: both values, which a budget wants to be equal unless `what` is a time."""
        self.rows[what] = {"name": what, "values": [small, large]}

    def show(self):
        """Print rows and ratios."""
        heading(
            "opening a log (with %s and with %s records waiting)" % tuple(map(number, _COUNTS))
        )
        for name, row in self.rows.items():
            print("%-60s %10s %10s" % (name, number(row["values"][0]), number(row["values"][1])))
        show_ratios(self.ratios)


def run(folder, quick):
    """Measure; return an Opening."""
    rounds = 15 if quick else 101
    paths = []
    for count in _COUNTS:
        progress("%s: storing %d records" % (PART, count))
        path = os.path.join(folder, "log-%d" % count)
        store(path, count)
        paths.append(path)
    os.sync()
    found = Opening()
    # Once unseen: a first opening may tidy up what the making left.
    for path, count in zip(paths, _COUNTS):
        if _open_once(path)[1] != count:
            raise AssertionError("not %d records" % count)

    counted = [_counted(path) for path in paths]
    for name in sorted(set(counted[0]) | set(counted[1])):
        kind = name if name in _NOT_CALLS else "calls of " + name
        found.add("at the port: " + kind, counted[0][name], counted[1][name])
    _judge(found, "at the port", counted)

    traced = [_traced(path) for path in paths]
    if all(traced):
        for name in sorted(set(traced[0]) | set(traced[1])):
            kind = name if name in _NOT_CALLS else name + "()"
            found.add("in the kernel: " + kind, traced[0][name], traced[1][name])
        _judge(found, "in the kernel", traced)
    else:
        print("opening: strace is missing or may not trace, so the kernel's view is left out")

    times = [[], []]
    for _ in range(rounds):
        progress("%s, timing" % PART)
        for path, each in zip(paths, times):
            each.append(_open_once(path)[0] * 1000)
    progress("")
    found.add("median time, ms (two syncs in it)", *map(statistics.median, times))
    ratio = statistics.median(large / small for small, large in zip(*times))
    found.ratios.append(
        verdict(PART, "time with 100,000 waiting / with 100", ratio, "<=", None),
    )
    return found


def _judge(found, where, pair):
    for what, amounts in (
        ("calls", [_calls(counts) for counts in pair]),
        ("bytes read", [counts["bytes read"] for counts in pair]),
    ):
        text = "%s %s with 100,000 waiting, less those with 100" % (what, where)
        found.ratios.append(verdict(PART, text, amounts[1] - amounts[0], "==", 0))


def main(path):
    """Open the log at `path` between two marks."""
    from postcache import POSTCache

    POSTCache(None, path).close()  # so that nothing is loaded between the marks
    os.access(_MARK, os.F_OK)
    cache = POSTCache(None, path)
    os.access(_MARK, os.F_OK)
    cache.close()


if __name__ == "__main__":
    main(sys.argv[1])
