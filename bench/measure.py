"""
What every part of the benchmark shares: the record, rounds, medians, ratios, the table.

Contestants take turns (A B C A B C ...), so that what else the machine does at some moment hits
them alike. A ratio is taken inside each round, between neighbours in time, and the median over the
rounds is what counts; a ratio of two medians would compare different moments.
"""

import gc
import os
import platform
import sqlite3
import statistics
import sys
import textwrap
from importlib import metadata

BENCH = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(BENCH)
for _folder in ("host_tests/machines", "lib"):
    sys.path.insert(0, os.path.join(ROOT, _folder))

_WIDTH = 46  # columns of a row's name


def record(i):
    """Return record number `i`: a small reading, 86 bytes as JSON for i of six digits."""
    return {"n": i, "t": 1795207171.25, "sensor": "greenhouse-1", "temperature": 21.53, "rh": 48}


def payload(i):
    """Return record number `i` as the JSON that the library would store."""
    from postcache.ports import dumps

    return dumps(record(i))


def store(path, count):
    """
    Store records 0..count-1 in a log at `path`; return the last sequence number.

    Through `Log.append` with lists of 1,000: add_request would have made the same lines,
    with one sync for each.
    """
    from postcache.log import Log
    from postcache.ports import Directory

    log = Log(Directory(path))
    try:
        for start in range(0, count, 1000):
            last = log.append([payload(i) for i in range(start, min(count, start + 1000))])
    finally:
        log.close()
    return last


class Contest:
    """
    Contestants for one measure, in the order in which they take turns.

    Args:
        part: str, the part of the benchmark.
        unit: str, of the values that the contestants return.
    """

    def __init__(self, part, unit):
        self.part = part
        self.unit = unit
        self.rows = {}
        self.ratios = []
        self.notes = []  # sentences to be printed below the ratios
        self._functions = {}

    def add(self, name, function, what):
        """
        Add a contestant.

        Args:
            name: str, short.
            function: callable without arguments that runs one round of it and returns its value,
                or a tuple of that and a dict of further numbers. None: it cannot run here.
            what: str, what it does and how durable it is.
        """
        self.rows[name] = {"name": name, "what": what, "unit": self.unit, "values": []}
        self._functions[name] = function

    def run(self, rounds):
        """Run `rounds` rounds."""
        for turn in range(rounds):
            for name, function in self._functions.items():
                if not function:
                    continue
                progress("%s, round %d of %d: %s" % (self.part, turn + 1, rounds, name))
                gc.collect()
                # Else the first sync of this one would also write what the last one left unsynced:
                # ext4 puts the data of all files into one transaction.
                os.sync()
                value = function()
                if isinstance(value, tuple):
                    value, more = value
                    for key, amount in more.items():
                        self.rows[name].setdefault(key, []).append(amount)
                self.rows[name]["values"].append(value)
        progress("")
        for row in self.rows.values():
            for key in [key for key, value in row.items() if isinstance(value, list)]:
                if key == "values" and row[key]:
                    row["median"] = statistics.median(row[key])
                elif row[key]:
                    row[key] = statistics.median(row[key])

    def compare(self, text, ours, theirs, budget=None):
        """
        Add the ratio `ours` / `theirs`.

        Args:
            text: str, what this ratio says.
            budget: the least that is asked for, or None for a number without a budget.
        """
        pairs = list(zip(self.rows[ours]["values"], self.rows[theirs]["values"]))
        if pairs:
            each = sorted(a / b for a, b in pairs)
            self.ratios.append(verdict(self.part, text, statistics.median(each), ">=", budget))
            self.ratios[-1].update(ours=ours, theirs=theirs, least=each[0], most=each[-1])

    def show(self):
        """Print rows and ratios."""
        heading("%s (%s)" % (self.part, self.unit))
        for row in self.rows.values():
            values = row["values"]
            if not values:
                print("%-*s %12s" % (_WIDTH, row["name"], "not run"))
            else:
                spread = "%s .. %s" % (number(min(values)), number(max(values)))
                text = "%-*s %12s   %-22s" % (
                    _WIDTH,
                    row["name"],
                    number(row["median"]),
                    spread,
                )
                if "cpu_us" in row:
                    text += " %6.2f us CPU each" % row["cpu_us"]
                if "written" in row:
                    text += " %6s B written each" % number(row["written"])
                print(text)
            print(textwrap.fill(row["what"], 95, initial_indent="    ", subsequent_indent="    "))
        show_ratios(self.ratios)
        for note in self.notes:
            print("  -> " + note)


class Device:
    """
    The block device that the files in a folder lie on, and the kernel's count of what is written.

    Args:
        folder: str.

    Attribute: `why_not`, str, why there is no such count; "" if there is one.
    """

    def __init__(self, folder):
        number = os.stat(folder).st_dev
        self._path = "/sys/dev/block/%d:%d/stat" % (os.major(number), os.minor(number))
        self.why_not = ""
        try:
            self.written()
        except (OSError, IndexError, ValueError) as e:
            self.why_not = "no block device's counter for these files (%s)" % e

    def written(self):
        """Return the bytes written so far, by whomever; None if nobody counts them."""
        if self.why_not:
            return None
        with open(self._path) as f:
            return int(f.read().split()[6]) * 512  # sectors of 512 bytes, whatever the disk's are


def verdict(part, text, value, sign, budget):
    """Return a comparison with a budget as a dict; `sign` is ">=", "<=" or "=="."""
    result = {"part": part, "text": text, "value": value, "sign": sign, "budget": budget}
    if budget is not None:
        met = {">=": value >= budget, "<=": value <= budget, "==": value == budget}[sign]
        result["met"] = met
        if sign == "==" or not budget:
            result["missed_by"] = abs(value - budget)
        else:
            share = 1 - value / budget if sign == ">=" else value / budget - 1
            result["missed_by"] = max(0.0, share)
    return result


def show_ratios(ratios):
    """Print a list of what `verdict` returned."""
    for ratio in ratios:
        text = "%-74s %9s" % (ratio["text"], number(ratio["value"]))
        if "least" in ratio:
            text += "  (%s .. %s)" % (number(ratio["least"]), number(ratio["most"]))
        print("  -> " + text + "  " + judged(ratio))


def judged(ratio):
    """Return in words how a value stands to its budget."""
    if ratio["budget"] is None:
        return "no budget"
    text = "budget %s %s: " % (ratio["sign"], number(ratio["budget"]))
    if ratio["met"]:
        return text + "met"
    if ratio["sign"] == "==":
        return text + "MISSED by %s" % number(ratio["missed_by"])
    return text + "MISSED by %.0f %%" % (100 * ratio["missed_by"])


def number(value):
    """Return a number as a person reads it."""
    if isinstance(value, int) or abs(value) >= 100:
        return f"{value:,.0f}"
    return "%.2f" % value


def heading(text):
    """Print the title of a table."""
    print()
    print(text)
    print("-" * len(text))


def progress(text):
    """Show what is being measured, where somebody is watching."""
    if sys.stderr.isatty():
        sys.stderr.write("\r\033[K" + text[:90])
        sys.stderr.flush()


def version(package):
    """Return the version of an installed package, None if there is none."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def mount(path):
    """Return (kind of file system, options) of what `path` lies on, as far as the system tells."""
    found = ("unknown", "")
    best = -1
    path = os.path.realpath(path)
    try:
        with open("/proc/self/mountinfo") as f:
            for line in f:
                left, _, right = line.partition(" - ")
                point = left.split()[4].replace("\\040", " ")
                inside = path == point or path.startswith(point.rstrip("/") + "/")
                if inside and len(point) >= best:
                    best = len(point)
                    found = (right.split()[0], left.split()[5] + " " + right.split()[-1])
    except OSError:
        pass  # not Linux
    return found


def machine(path):
    """Return the facts that a number means nothing without; no names of hosts or people."""
    cpu = platform.processor()
    try:
        with open("/proc/cpuinfo") as f:
            for line in f:
                key, _, value = line.partition(":")
                if key.strip() in ("model name", "Model", "Hardware"):
                    cpu = value.strip()
                    break
    except OSError:
        pass
    kind, options = mount(path)
    packages = ("persist-queue", "litequeue", "requests", "psutil")
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "load_at_start": os.getloadavg()[0],
        "system": platform.system(),
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "python": "%s %s" % (platform.python_implementation(), platform.python_version()),
        "sqlite": sqlite3.sqlite_version,
        "file_system": kind,
        "mount_options": options,
        "packages": {name: version(name) for name in packages},
    }
