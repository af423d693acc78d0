"""
Count what a synced record costs the flash of an ESP32 and of a Pico W, and the heap.

    python bench/flash.py [--check] [--json]

flash_board.py does the counting, under MicroPython's unix port, on a real littlefs with the
parameters of the two ports, on NOR flash in RAM. Nothing is timed, so every run prints the same.
--check: exit status 1 when a budget is missed. --json: all numbers, for a program.

Years: what it takes at a record a second until littlefs, which levels the wear over all blocks
that change hands, has erased every block 100,000 times. Milliseconds: an estimate.
"""

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from measure import BENCH, ROOT, heading, progress

sys.path.insert(0, os.path.join(ROOT, "tools"))
import get_runtimes

# As the ports mount it, lookahead and readsize by default (32 bytes each):
# https://github.com/micropython/micropython/blob/master/ports/esp32/modules/inisetup.py
# https://github.com/micropython/micropython/blob/master/ports/rp2/modules/_boot.py
_TARGETS = {
    "ESP32": {"blocks": 512, "progsize": 32, "slot_size": 128},
    "Pico": {"blocks": 212, "progsize": 256, "slot_size": 512},
}
_BLOCK = 4096
_SIZES = (("848 KiB", 212), ("2 MiB", 512))  # of a Pico W's file system and an ESP32's, in blocks
_CYCLES = 100000  # erases that a block endures
_YEAR = 365.25 * 86400  # records
_PAYLOADS = (64, 100)
_WARM = 500  # records stored before counting begins
_COUNT = 5000
_WAITING = (100, 10000)

_POSTCACHE = {"row": "postcache", "up": True, "group": 10, "flush_every": 1}
_RAW = "raw NOR, no file system (computed)"
_ROWS = {
    "append + flush": {"row": "append", "group": 1},
    "a file a record, sent in tens": {"row": "files", "group": 10},
    "btree put + flush, sent in tens": {"row": "btree", "group": 10},
    "postcache, append, sent in tens": dict(_POSTCACHE, slot_size=0),
    "postcache, slots, sent in tens": _POSTCACHE,
    "postcache, slots, in an outage": dict(_POSTCACHE, up=False),
    "postcache, by 16, sent in sixteens": dict(_POSTCACHE, flush_every=16, group=16),
    "postcache, by 16, in an outage": dict(_POSTCACHE, flush_every=16, group=16, up=False),
}
# Erases for each record of 64 bytes, at most.
BUDGETS = (
    ("ESP32", "postcache, slots, sent in tens", 0.05),
    ("ESP32", "postcache, slots, in an outage", 0.09),
    ("Pico", "postcache, slots, sent in tens", 0.10),
    ("Pico", "postcache, slots, in an outage", 0.15),
)

_HEAD = """\
postcache bench-flash: littlefs under MicroPython, counted at its block device
%d records a row, after %d that do not count. bytes: programmed; ampl.: programmed for a byte of
payload; read: bytes read by an add; ms: an estimate, at 45 ms an erase and 0.4 ms a page of 256
bytes. Years: %d,000 erases a block, the wear levelled by littlefs over all blocks; it levels it
over blocks that change, so a file system full of files that never do wears out sooner."""


def make_jobs():
    """Return {key: job}; a key is (job, target, row or journal, payload)."""
    jobs = {}
    for target, parameters in _TARGETS.items():
        for payload in _PAYLOADS:
            for name, row in _ROWS.items():
                job = dict(parameters, job="wear", payload=payload, warm=_WARM, count=_COUNT)
                job.update(row)
                jobs["wear", target, name, payload] = job
        for journal in ("append", "slot"):
            # Room for 10,000 records, whatever the target has.
            job = dict(parameters, payload=64, blocks=512, max_bytes=1536 * 1024)
            if journal == "append":
                job["slot_size"] = 0
            jobs["heap", target, journal, 64] = dict(job, job="heap", count=max(_WAITING))
            jobs["boot", target, journal, 64] = dict(job, job="boot", counts=_WAITING)
    return jobs


def run(micropython, job):
    """Run one job in a process of its own; return what it found."""
    done = subprocess.run(
        [micropython, "-X", "heapsize=16M", os.path.join(BENCH, "flash_board.py")]
        + [json.dumps(job)],
        env=dict(os.environ, MICROPYPATH="%s:.frozen" % os.path.join(ROOT, "lib")),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError("%s\n%s%s" % (job, done.stdout, done.stderr))
    return json.loads(done.stdout)


def _run_all(micropython):
    """Run every job, side by side; return {key: what it found}."""
    found = {}
    jobs = make_jobs()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        running = {key: pool.submit(run, micropython, job) for key, job in jobs.items()}
        try:
            for key, future in running.items():
                done = "flash, %d of %d: " % (len(found) + 1, len(jobs))
                progress(done + " ".join(map(str, key)))
                found[key] = future.result()
        finally:
            for future in running.values():
                future.cancel()  # after an error: what has not begun need not
    progress("")
    for target, parameters in _TARGETS.items():
        for payload in _PAYLOADS:
            found["wear", target, _RAW, payload] = _raw(payload, parameters["progsize"])
    return found


def _raw(payload, progsize):
    """
    Return the limit: records one after another on bare flash, each erased block filled up.

    A frame of 12 bytes (length, number, CRC-32), and what is programmed rounded up to `progsize`.
    """
    line = payload + 12
    programmed = -(-line // progsize) * progsize
    return {
        "erases": line / _BLOCK,
        "programs": 1,
        "bytes": programmed,
        "amplification": programmed / payload,
        "read_by_adds": 0,
        "worst_add": {"erases": 1, "ms": 45.4},
    }


def _years(erases):
    """Return how many years a record a second takes to wear out each of _SIZES."""
    return [blocks * _CYCLES / erases / _YEAR for _, blocks in _SIZES]


def _check(found):
    """Return [(text, value, budget, whether it is met)]."""
    verdicts = []
    for target, row, budget in BUDGETS:
        value = found["wear", target, row, 64]["erases"]
        text = "%s: %s, erases per record of 64 bytes" % (target, row)
        verdicts.append((text, value, budget, value <= budget))
    return verdicts


def _show_wear(found, target, payload):
    heading(
        "%s: progsize %d, %d-byte slots; records of %d bytes"
        % (target, _TARGETS[target]["progsize"], _TARGETS[target]["slot_size"], payload)
    )
    print("%-34s %38s %15s %15s" % ("", "for each record", "worst add", "years at 1/s"))
    titles = ("erases", "progs", "bytes", "ampl.", "read", "erases", "ms", *dict(_SIZES))
    print("%-34s %7s %6s %7s %6s %8s %8s %6s %8s %7s" % ("", *titles))
    for name in (*_ROWS, _RAW):
        row = found["wear", target, name, payload]
        if "missing" in row:
            print("%-34s not run: %s in this MicroPython" % (name, row["missing"]))
            continue
        print(
            "%-34s %7.4f %6.2f %7.0f %6.1f %8.0f %8d %6.0f %8.1f %7.1f"
            % (
                name,
                row["erases"],
                row["programs"],
                row["bytes"],
                row["amplification"],
                row["read_by_adds"],
                row["worst_add"]["erases"],
                row["worst_add"]["ms"],
                *_years(row["erases"]),
            )
        )


def _show_heap(found):
    heading("heap in bytes, 64-bit (a 32-bit board takes about half); records of 64 bytes")
    titles = ("an add", "worst add", "open", "drain 10,000, peak")
    print("%-34s %10s %10s %10s %20s" % ("", *titles))
    for (job, target, journal, _), row in found.items():
        if job == "heap":
            print(
                "%-34s %10.0f %10d %10d %20d"
                % (
                    "%s, %s journal" % (target, journal),
                    row["add"],
                    row["worst_add"],
                    row["open"],
                    row["drain_at_the_peak"],
                )
            )


def _show_boot(found):
    heading("opening, at the block device of 2 MiB; records of 64 bytes")
    titles = ("waiting", "reads", "bytes read", "programs", "then: worst of 50 adds reads")
    print("%-34s %8s %8s %11s %9s %29s" % ("", *titles))
    for (job, target, journal, _), row in found.items():
        if job == "boot":
            for entry in row["opened"]:
                print(
                    "%-34s %8d %8d %11d %9d %29d"
                    % (
                        "%s, %s journal" % (target, journal),
                        entry["waiting"],
                        entry["reads"],
                        entry["bytes_read"],
                        entry["programs"],
                        entry["worst_add_bytes_read"],
                    )
                )


def _show(found, verdicts):
    print(_HEAD % (_COUNT, _WARM, _CYCLES // 1000))
    for target in _TARGETS:
        for payload in _PAYLOADS:
            _show_wear(found, target, payload)
    _show_heap(found)
    _show_boot(found)
    heading("budgets")
    for text, value, budget, met in verdicts:
        print("%-76s %.4f  <= %.2f: %s" % (text, value, budget, "met" if met else "MISSED"))


def _tell(found, verdicts):
    """Return everything as one JSON object."""
    rows = []
    for (job, target, name, payload), row in found.items():
        row = {"job": job, "target": target, "name": name, "payload": payload, **row}
        if "erases" in row:
            row["years"] = dict(zip(dict(_SIZES), _years(row["erases"])))
        rows.append(row)
    names = ("text", "value", "budget", "met")
    budgets = [dict(zip(names, verdict)) for verdict in verdicts]
    counts = {"warm": _WARM, "count": _COUNT}
    return json.dumps({"targets": _TARGETS, **counts, "rows": rows, "budgets": budgets}, indent=1)


def main(arguments=None):
    """The command line. Returns 0; 1 with --check for a missed budget; 2 without MicroPython."""
    parser = argparse.ArgumentParser(description=__doc__.strip().partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="fail when a budget is missed")
    parser.add_argument("--json", action="store_true", help="print all numbers as JSON")
    options = parser.parse_args(arguments)
    try:
        micropython = get_runtimes.find("micropython")[0]
    except get_runtimes.Unavailable as error:
        print("flash: %s" % error, file=sys.stderr)
        return 2
    found = _run_all(micropython)
    verdicts = _check(found)
    if options.json:
        print(_tell(found, verdicts))
    else:
        _show(found, verdicts)
    return int(options.check and not all(met for *_, met in verdicts))


if __name__ == "__main__":
    sys.exit(main())
