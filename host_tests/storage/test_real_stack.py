"""
The storage promises on real file systems: littlefs as on an ESP32 and on a Pico, and FAT.

MicroPython runs programs/real_stack.py, which says how: a block device in RAM loses its power at
every program and every erase, and within them; or it fails; or it is full. Here is what is run,
and how much of it. With POSTCACHE_TORTURE_SECONDS set, other seeds and more tears follow until
that time is over.
"""

import collections
import concurrent.futures
import itertools
import json
import os
import time

import pytest

from conftest import HERE, find_runtime, say, tally

PROGRAM = HERE / "programs" / "real_stack.py"
LITTLEFS = ["esp32", "pico"]
SYSTEMS = [*LITTLEFS, "fat"]
SCENARIOS = ["steady", "outage", "reboots", "first_boot", "drop", "mixed", "groups", "upgrade"]
JOURNALS = ["append", "slot"]
# Each operation is torn so often; what is examined quickly is torn more often.
TEARS = {"steady": 6, "outage": 1, "reboots": 6, "first_boot": 24, "drop": 1, "groups": 6}
# Where there are many operations for one record, or a long boot, every n-th is cut. Torture: all.
EVERY = {
    ("esp32", "outage", "append"): 2,
    ("esp32", "drop", "append"): 3,
    ("esp32", "drop", "slot"): 4,
    ("pico", "drop", "slot"): 2,
    ("fat", "drop", "slot"): 4,
}
# Opening lists the names once, and looks up two cursors, "+0" and the newest segment three times.
# On FAT each of these is a walk; on littlefs listing alone is so dear that the others are little.
WALKS = {"esp32": 2, "pico": 2, "fat": 8}
SECONDS = float(os.environ.get("POSTCACHE_TORTURE_SECONDS") or 0)

counts = collections.Counter()


def program(*args, check=True):
    """Run the program; returns the CompletedProcess. A failure shows how to see it again."""
    runtime = find_runtime("micropython")
    runtime.command = [*runtime.command, "-X", "heapsize=64M"]
    done = runtime.run(PROGRAM, *args, timeout=SECONDS + 600, check=False)
    if check:
        assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done


def figures(done):
    """What the program counted. At its end MicroPython may say more, of files that were open."""
    return json.loads([line for line in done.stdout.splitlines() if line[:1] == "{"][-1])


def count(jobs):
    """
    Run the program with each of `jobs`, tuples of arguments, on two cores.

    Returns what all of them counted. None may fail.
    """
    total = collections.Counter()
    with concurrent.futures.ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        for (what, system, *_), done in zip(jobs, pool.map(lambda job: program(*job), jobs)):
            result = figures(done)
            total.update(result)
            if what in ("cuts", "recut"):
                counts[system, "cuts"] += result["cuts"]
                counts[system, "torn operations"] += result["torn"]
            else:
                counts[system, "faults"] += result["faults"]
    return total


def cuts(system, scenario, journal, tears=None, seed=1):
    """Return the two jobs, half of the work each, that cut a scenario everywhere."""
    tears = tears or TEARS.get(scenario, 2)
    every = 1 if seed > 1 else EVERY.get((system, scenario, journal), 1)
    for shard in ("0/2", "1/2"):
        yield (
            "cuts",
            system,
            scenario,
            journal,
            "tears=%d" % tears,
            "every=%d" % every,
            "seed=%d" % seed,
            "shard=" + shard,
        )


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("journal", JOURNALS)
@pytest.mark.parametrize("system", SYSTEMS)
def test_s1_to_s5_no_cut_loses_repeats_or_reorders(system, journal, scenario):
    total = count(list(cuts(system, scenario, journal)))
    assert total["cuts"] > 10 and total["torn"] > 5


@pytest.mark.parametrize("journal", JOURNALS)
@pytest.mark.parametrize("system", SYSTEMS)
def test_a_second_cut_in_the_boot_after_the_first_changes_nothing(system, journal):
    jobs = [
        ("recut", system, scenario, journal, "tears=1", "shard=" + shard, "every=%d" % every)
        for scenario, every in (("steady", 1), ("reboots", 3))
        for shard in ("0/2", "1/2")
    ]
    assert count(jobs)["cuts"] > 500


@pytest.mark.parametrize("scenario", ["steady", "drop", "mixed"])
def test_a_torn_fat_or_directory_sector_invents_nothing(scenario):
    # No FAT survives that with all of its files; a good card never does it.
    total = count([("cuts", "fat", scenario, "append", "tear=names", "tears=4")])
    assert total["torn"] > 100
    counts["fat", "torn operations"] -= total["torn"]
    counts["fat", "torn FAT and directory sectors"] += total["torn"]
    counts["fat", "of these without any harm"] += total["torn"] - total["broken"]


@pytest.mark.parametrize("journal", [*JOURNALS, "back"])
@pytest.mark.parametrize(
    ("system", "kind"),
    [*itertools.product(LITTLEFS, ["program", "erase"]), ("fat", "program"), ("fat", "read")],
)
def test_s7_a_device_that_fails_loses_nothing_that_was_stored(system, kind, journal):
    jobs = [("faults", system, kind, journal, "shard=" + shard) for shard in ("0/2", "1/2")]
    assert count(jobs)["faults"] >= 4


@pytest.mark.parametrize("mode", ["wait", "drop"])
@pytest.mark.parametrize("journal", JOURNALS)
@pytest.mark.parametrize("system", SYSTEMS)
def test_s8_a_full_file_system_loses_nothing_and_is_drained(system, journal, mode):
    count([("full", system, mode, journal)])


@pytest.mark.parametrize("journal", JOURNALS)
@pytest.mark.parametrize("system", SYSTEMS)
def test_s9_opening_reads_the_newest_records_and_the_names(system, journal):
    few, many = (figures(program("boot", system, "-", journal))[n] for n in ("100", "10000"))
    text = "%s, %s: opening reads %d bytes with 100 records, %d with 10,000; to list names: %d, %d"
    say(text % (system, journal, few["read"], many["read"], few["names"], many["names"]))
    # Names have to be listed, and a file that is opened is looked up among them: nothing else may
    # grow with the backlog. So it is a few walks through the directory, and not one for each name.
    assert many["read"] - few["read"] <= WALKS[system] * many["names"]


@pytest.mark.parametrize(
    ("fault", "system", "scenario", "journal", "promise"),
    [
        ("flush", "esp32", "steady", "append", "S1"),
        ("flush", "pico", "reboots", "append", "S1"),
        ("flush", "fat", "steady", "append", "S1"),
        ("put", "esp32", "steady", "slot", "S1"),
        ("put", "pico", "reboots", "slot", "S1"),
        ("put", "fat", "steady", "append", "S4"),
        ("ack", "esp32", "steady", "slot", "S1"),
        ("ack", "fat", "steady", "append", "S1"),
        ("freeze", "pico", "steady", "slot", "S4"),
        ("freeze", "fat", "reboots", "append", "S4"),
        ("erase", "esp32", "drop", "append", "only clear bits"),
        ("erase", "pico", "drop", "append", "only clear bits"),
    ],
)
def test_the_machine_finds_a_planted_fault(fault, system, scenario, journal, promise):
    done = program("cuts", system, scenario, journal, "plant=" + fault, check=False)
    assert done.returncode and promise in done.stderr.splitlines()[-1]
    if fault != "erase":  # that one is found before anything is cut
        # The line that is printed shows the same failure again.
        line = done.stdout.split("real_stack.py ")[1].split()
        assert "plant=" + fault in line and line[-1].startswith("at=")
        again = program(*line, check=False)
        assert again.stderr.splitlines()[-1] == done.stderr.splitlines()[-1]


@pytest.mark.skipif(not SECONDS, reason="set POSTCACHE_TORTURE_SECONDS: make torture does")
def test_torture():
    end = time.monotonic() + SECONDS
    for seed in itertools.count(2):
        for scenario, system, journal in itertools.product(SCENARIOS, SYSTEMS, JOURNALS):
            if time.monotonic() > end:
                say(f"torture on real file systems: {sum(counts.values()):,} cuts and tears")
                return
            count(list(cuts(system, scenario, journal, tears=8, seed=seed)))


def test_how_many_cuts_and_faults_there_were():
    if not counts:
        pytest.skip("run it with the tests above")
    for system in SYSTEMS:
        parts = ["%d %s" % (n, what) for (fs, what), n in counts.items() if fs == system]
        say("real %s: %s" % (system, ", ".join(parts)))
    n = sum(counts.values()) - counts["fat", "of these without any harm"]
    say("cuts and faults on real file systems: %d" % n)
    tally(n)
