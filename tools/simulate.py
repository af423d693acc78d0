"""Run the seeded simulation (host_tests/machines/simulation.py): one seed with its story, or many.

    python tools/simulate.py --seed 17              one seed; exit status 1 if a promise breaks
    python tools/simulate.py --seed 17 --trace      and what happens in it, line by line
    python tools/simulate.py --seeds 2000           seeds 0..1999, and how often what happened
    python tools/simulate.py --seeds 500 --first 2000

Each seed is the same story on every machine with the same Python and the same code. A seed that
fails is printed with the command that replays it.
"""

import argparse
import collections
import sys
import time
import traceback
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(PROJECT / "lib"), str(PROJECT / "host_tests" / "machines")]

import simulation  # pyright: ignore[reportMissingImports] # noqa: E402


def one(seed, trace):
    """Run one seed; return its counts, or the exception that came out."""
    try:
        with simulation.surroundings():
            return simulation.simulate(seed, trace)
    except Exception as e:
        return e


def main():
    parser = argparse.ArgumentParser(description="A seeded simulation of everything going wrong.")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--seed", type=int, help="run this one")
    which.add_argument("--seeds", type=int, help="run so many")
    parser.add_argument("--first", type=int, default=0, help="the first of many [%(default)s]")
    parser.add_argument("--trace", action="store_true", help="print what happens")
    options = parser.parse_args()
    first, n = (options.seed, 1) if options.seeds is None else (options.first, options.seeds)
    sums = collections.Counter()
    failed = []
    begin = time.process_time()
    for seed in range(first, first + n):
        result = one(seed, print if options.trace else None)
        if isinstance(result, Exception):
            failed.append(seed)
            print("".join(traceback.format_exception(type(result), result, result.__traceback__)))
            print("seed %d failed: python tools/simulate.py --seed %d --trace" % (seed, seed))
        else:
            simulation.add(sums, result)
    for name, count in sorted(sums.items()):
        print("%9d  %s" % (count, name))
    seconds = time.process_time() - begin
    print("%d seeds, %d failed, %.1f s of CPU" % (n, len(failed), seconds))
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
