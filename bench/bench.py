"""
Measure postcache against the alternatives and its budgets, side by side in one run.

    python bench/bench.py [--quick] [--only NAME] [--dir PATH]

Parts: adds, backlog, opening, memory; each has a module of its own, which says what is measured.
The table goes to stdout and all numbers to bench/results.json. Nothing here fails because of a
number: a machine that is busy is no reason for a red build.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time

import adds
import backlog
import measure
import memory
import opening

_PARTS = (adds, backlog, opening, memory)
_RAM = ("tmpfs", "ramfs")


def _place(wanted):
    """Return a new folder for the files: in `wanted`, or beside the repository, or in it."""
    for parent in (wanted,) if wanted else (os.path.dirname(measure.ROOT), measure.ROOT):
        try:
            return tempfile.mkdtemp(prefix="postcache-bench-", dir=parent)
        except OSError as e:
            error = e
    raise error


def _show_machine(facts):
    print("postcache bench: %(python)s, SQLite %(sqlite)s, %(system)s %(kernel)s" % facts)
    print("%(cpu)s, %(cores)s cores, load %(load_at_start).2f at the start" % facts)
    print("files on %(file_system)s (%(mount_options)s)" % facts)
    if facts["file_system"] in _RAM:
        print("!! That is RAM: a sync costs nothing there, so the adds mean nothing. Use --dir.")
    print(
        "Values are medians over interleaved rounds, then lowest .. highest. A ratio is the median"
    )
    print("of the ratios inside each round.")


def _show_budgets(ratios):
    budgets = [ratio for ratio in ratios if ratio["budget"] is not None]
    measure.heading("budgets")
    for ratio in budgets:
        print(
            "%-8s %-70s %9s   %s"
            % (
                ratio["part"].split()[0],
                ratio["text"],
                measure.number(ratio["value"]),
                measure.judged(ratio),
            )
        )
    met = sum(ratio["met"] for ratio in budgets)
    print("%d of %d met" % (met, len(budgets)))


def main(arguments=None):
    """The command line. Returns 0, whatever the numbers are."""
    parser = argparse.ArgumentParser(description=__doc__.strip().partition("\n")[0])
    names = [part.PART for part in _PARTS]
    parser.add_argument("--quick", action="store_true", help="about 30 s: fewer rounds, less data")
    parser.add_argument("--only", choices=names, help="one part alone")
    parser.add_argument("--dir", help="where the files lie [a new folder beside the repository]")
    options = parser.parse_args(arguments)
    try:
        folder = _place(options.dir)
    except OSError as e:
        print("No folder for the files: %s. Name one with --dir." % e, file=sys.stderr)
        return 1
    start = time.time()
    results = {
        "machine": measure.machine(folder),
        "quick": options.quick,
        "only": options.only,
        "date": time.strftime("%Y-%m-%d", time.gmtime(start)),
        "parts": [],
    }
    _show_machine(results["machine"])
    ratios = []
    try:
        for part in _PARTS:
            if options.only in (None, part.PART):
                place = os.path.join(folder, part.PART)
                os.mkdir(place)
                found = part.run(place, options.quick)
                found.show()
                sys.stdout.flush()
                shutil.rmtree(place)
                ratios += found.ratios
                results["parts"].append(
                    {
                        "name": part.PART,
                        "title": found.part,
                        "rows": list(found.rows.values()),
                        "ratios": found.ratios,
                    }
                )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _show_budgets(ratios)
    results["seconds"] = round(time.time() - start)
    target = os.path.join(measure.BENCH, "results.json")
    with open(target, "w") as f:
        json.dump(results, f, indent=1)
        f.write("\n")
    print("%d s; all numbers: %s" % (results["seconds"], os.path.relpath(target)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
