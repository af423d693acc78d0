"""
Part "memory": what a process takes on while it drains a long backlog.

Three processes: one stores the records and ends, one serves, and one drains. The draining one
sends its first batch, stops, and has its size taken; from there on its growth counts.

    python bench/memory.py store DIRECTORY COUNT
    python bench/memory.py drain DIRECTORY URL
"""

import os
import select
import subprocess
import sys
import time

from measure import heading, number, progress, show_ratios, store, verdict
from server import Server

PART = "memory"
_BUDGET = 4.0  # MB


def _resident(pid):
    """Return (resident bytes now, peak or None) of a process; None for one that has gone."""
    try:
        with open("/proc/%d/status" % pid) as f:
            found = dict(line.split(":", 1) for line in f if line.startswith(("VmRSS", "VmHWM")))
        return tuple(int(found[key].split()[0]) * 1024 for key in ("VmRSS", "VmHWM"))
    except KeyError:
        return None  # a zombie
    except OSError:
        pass
    try:
        import psutil

        return psutil.Process(pid).memory_info().rss, None
    except Exception:
        return None


class Memory:
    """What was found, with the same face as a `Contest`."""

    def __init__(self, rows, ratios):
        self.part = PART
        self.rows = rows
        self.ratios = ratios

    def show(self):
        """Print rows and ratios."""
        heading("memory of a draining process")
        for row in self.rows.values():
            print("%-60s %12s %s" % (row["name"], number(row["values"][0]), row["unit"]))
        show_ratios(self.ratios)


def run(folder, quick):
    """Measure; return a Memory."""
    count = 100000 if quick else 1000000
    path = os.path.join(folder, "log")
    progress("%s: storing %d records" % (PART, count))
    subprocess.run([sys.executable, __file__, "store", path, str(count)], check=True)
    os.sync()
    with Server() as server:
        first, peak, sampled, seconds, samples = _drain(path, server.url, count)
    progress("")
    rows = {}
    for name, value, unit in (
        ("records drained (stored by Log.append, lists of 1,000)", count, ""),
        ("resident after opening and the first batch", first / 1e6, "MB"),
        ("resident at most, by %d samples" % samples, sampled / 1e6, "MB"),
        ("resident at most, by the kernel (VmHWM from the first batch)", peak / 1e6, "MB"),
        ("drained in", seconds, "s"),
    ):
        rows[name] = {"name": name, "values": [value], "unit": unit}
    growth = (max(peak, sampled) - first) / 1e6
    text = "growth while %s records drain, MB" % number(count)
    return Memory(rows, [verdict(PART, text, growth, "<=", _BUDGET)])


def _drain(path, url, count):
    """Run the draining process; return sizes in bytes, seconds and how many samples."""
    process = subprocess.Popen(
        [sys.executable, __file__, "drain", path, url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        universal_newlines=True,
        bufsize=1,
    )
    try:
        if process.stdout.readline() != "first\n":
            raise AssertionError("the first batch was not sent")
        first, peak = _resident(process.pid)
        sampled = first
        samples = 0
        process.stdin.write("go\n")
        start = time.perf_counter()
        said = ""
        while not said:
            progress("%s: draining" % PART)
            # Until it says that it has done, or for the time between two samples.
            ended = select.select([process.stdout], [], [], 0.01)[0]
            now = _resident(process.pid)
            if now:
                sampled = max(sampled, now[0])
                samples += 1
            if ended:
                said = process.stdout.readline() or "nothing: it died"
        seconds = time.perf_counter() - start
        if said != "sent %d\n" % count:
            raise AssertionError("the draining process says %r" % said)
        peak = (_resident(process.pid) or (0, 0))[1] or 0
        return first, peak, sampled, seconds, samples
    finally:
        process.stdin.close()
        process.wait(10)
        process.stdout.close()


def _main_drain(path, url):
    from postcache import POSTCache

    with POSTCache(url, path) as cache:
        cache.poll()
        if cache.stats["sent"]:
            try:
                with open("/proc/self/clear_refs", "w") as f:
                    f.write("5")  # begin the peak anew, without that of starting up
            except OSError:
                pass
            print("first", flush=True)
            sys.stdin.readline()
            cache.flush()
            print("sent", cache.stats["sent"], flush=True)
            sys.stdin.readline()


if __name__ == "__main__":
    if sys.argv[1] == "store":
        store(sys.argv[2], int(sys.argv[3]))
    else:
        _main_drain(sys.argv[2], sys.argv[3])
