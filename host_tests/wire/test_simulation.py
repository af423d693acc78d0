"""
The simulation of simulation.py: no seed breaks a promise, everything really happens in it, each
seed is the same story every time, and it finds bugs that are put into the library on purpose.

It takes 2000 seeds, in a nightly run 20,000; POSTCACHE_SEEDS=n makes it n.
"""

import collections
import os
import subprocess
import sys
import time

import pytest
import simulation

from conftest import HERE, amount, say, tally

SEEDS = int(os.environ.get("POSTCACHE_SEEDS") or amount(2000, nightly=20000))
FEW = 400  # seeds within which each planted bug is found
COMMAND = "python tools/simulate.py --seed %d --trace"

# What must have happened somewhere in all these seeds, or it was not tested.
HAPPENS = """
    adds; adds that raised; adds that were too long; newest dropped; records dropped
    power cuts; kills; writes torn; starts that failed; records lost in RAM
    cuts before: commit; cuts before: create; cuts before: make; cuts before: sync
    cuts before: sync names; cuts before: truncate; cuts before: unlink; cuts before: write
    cuts before the request; cuts when the request was sent; cuts before the answer
    writes to a full disk; failed calls of the system; clocks set
    connections refused; requests cut short; requests lost; requests that came late
    requests doubled; requests that brought nothing new; answers lost; answers cut short
    answers that a proxy began
    answers of a hotspot; bugs in a port; timeouts; servers down
    crashes before the commit; crashes after the commit; retries of the same batch
    nine failures in a row; Retry-After
    status 200; status 302; status 401; status 403; status 404; status 408; status 425
    status 429; status 500; status 502; status 503
    event dropped; event error; event recovered; event damaged
    records without a date; records dated later; gzip bodies; event plain; status 415
    records rejected; requeued; event rejected; status 400; status 413; status 422
    devices of which each number is accounted for
"""

# What, where; what is there, what comes in its place.
BUGS = [
    (
        "acknowledged before there is an answer",
        "send/__init__.py",
        "                log.freeze(batch.last)\n",
        "                log.acked = batch.last\n                log.freeze(batch.last)\n",
    ),
    (
        "a redirect counts as a delivery",
        "envelope.py",
        "if 200 <= status < 300 and (",
        "if 200 <= status < 400 and (",
    ),
    (
        "the end of a batch is not durable before its first try",
        "send/__init__.py",
        "                log.freeze(batch.last)\n",
        "                log.sending = batch.last\n",
    ),
    (
        "a retry has another key",
        "send/__init__.py",
        "% (log.stream, batch.first, batch.last)",
        "% (log.stream, batch.first, batch.last + self.retries)",
    ),
    (
        "a gap ends no batch",
        "send/__init__.py",
        "                    number != seq + 1\n                    or group",
        "                    group",
    ),
    (
        "back-off begins anew with each failure",
        "send/__init__.py",
        "self._failures += 1",
        "pass",
    ),
    (
        "Retry-After is not obeyed",
        "send/statuses.py",
        "pause = retry_after(headers)",
        "pause = 0",
    ),
    (
        "async_interval does not hold after a failure",
        "send/__init__.py",
        "if error or (self.log.acked >= self._goal and not at_once):",
        "if self.log.acked >= self._goal and not at_once:",
    ),
    (
        "a hotspot's 200 counts in spite of confirm",
        "envelope.py",
        " and (not self.confirm or self.confirm(status, headers, start)):\n",
        ":\n",
    ),
    (
        "what an acknowledgement writes is lost silently",
        "log/__init__.py",
        "        written = self.freeze(sending)\n",
        "        written = True\n",
    ),
    (
        "what a full log drops is not counted",
        "log/__init__.py",
        "            self.dropped += lost\n",
        "",
    ),
    (
        "slots are read in any order after a restart",
        "log/recover.py",
        "        tail.sort()\n",
        "        tail.sort(reverse=True)\n",
    ),
    (
        "a record is not synced",
        "log/journal.py",
        "            self._file.flush()\n",
        "",
    ),
    (
        "a file is written to after an error",
        "log/journal.py",
        "            self.close()  # after an error the file takes no further line\n",
        "",
    ),
    (
        "a record is set aside in RAM only",
        "send/isolate.py",
        "                letters.add(number, outbox.status, refused[i], payload)\n",
        "",
    ),
    (
        "the record behind a bad one goes with it",
        "send/isolate.py",
        "        log.ack(batch.first, batch.last, 0)\n        outbox.end = batch.end\n",
        "        log.ack(batch.first, min(batch.last + 1, log.stored), 0)\n",
    ),
    (
        "a batch that is too large is given up",
        "send/isolate.py",
        "            if too_large:\n",
        "            if too_large:\n                log.ack(batch.first, batch.last, 0)\n",
    ),
    (
        "the half with the bad record is given up",
        "send/isolate.py",
        "                self._suspect = batch.last\n",
        "                log.ack(batch.first, (batch.first + batch.last) // 2, 0)\n",
    ),
    (
        "a 401 is tried again like any failure",
        "send/statuses.py",
        "max(pause, _SLOW)",
        "pause",
    ),
    (
        "an answer that was cut short counts",
        "ports/answer.py",
        "                    raise OSError(104)\n",
        "                    return\n",
    ),
    (
        "an undated record gets the time at which it is sent",
        "send/stamps.py",
        "(uptime + offset) // step",
        "(self._clock.ticks_ms() + offset) // step",
    ),
    (
        "what was sent without a date gets one later",
        "send/stamps.py",
        "                    mine[1] = last\n",
        "                    pass\n",
    ),
    (
        "flush() may take longer than its timeout",
        "uplink.py",
        "                left = min(left, (end - clock.ticks_ms()) / 1000)\n",
        "                left = min(left, timeout)\n",
    ),
]


def run(seed, trace=None):
    with simulation.surroundings():
        return simulation.simulate(seed, trace)


def test_no_seed_breaks_a_promise():
    sums = collections.Counter()
    failed = []
    begin = time.process_time()
    for seed in range(SEEDS):
        try:
            simulation.add(sums, run(seed))
        except Exception as e:
            failed.append("%s: %r" % (COMMAND % seed, e))
    assert not failed, "\n".join(failed)
    cuts = sums["power cuts"] + sums["kills"]
    tally(cuts)
    say(
        "simulation: %d seeds in %d s, %d devices, %d records, %d requests, %d cuts and kills;"
        " every number of %.1f %% of the devices accounted for; drained within %d minutes"
        % (
            SEEDS,
            time.process_time() - begin,
            sums["devices"],
            sums["adds"],
            sums["requests"],
            cuts,
            100 * sums["devices of which each number is accounted for"] / sums["devices"],
            sums["longest drain, ms"] / 60000,
        )
    )
    if SEEDS >= 2000:
        wanted = [name.strip() for line in HAPPENS.split("\n") for name in line.split(";")]
        assert [name for name in wanted if name and not sums[name]] == []


def test_a_seed_is_the_same_story_each_time():
    stories = []
    for _ in range(2):
        lines = []
        run(17, lines.append)
        stories.append("\n".join(lines))
    assert stories[0] == stories[1]
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, HERE.parent / "tools" / "simulate.py", "--seed", "17", "--trace"],
            env=dict(os.environ, PYTHONHASHSEED=hash_seed),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.stdout.startswith(stories[0] + "\n"), done.stderr
        assert done.returncode == 0


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug[0])
def test_a_planted_bug_is_found(bug):
    name, path, old, new = bug
    with simulation.planted(path, (old, new)):
        for seed in range(FEW):
            try:
                run(seed)
            except AssertionError as e:
                say("simulation: %s: found by seed %d (%s)" % (name, seed, e.args[0]))
                return
    raise AssertionError("not found")


def test_torture():
    seconds = float(os.environ.get("POSTCACHE_TORTURE_SECONDS", "0"))
    if not seconds:
        pytest.skip("make torture")
    end = time.monotonic() + seconds
    seed = time.time_ns() // 1000
    while time.monotonic() < end:
        seed += 1
        try:
            run(seed)
        except Exception as e:
            raise AssertionError(COMMAND % seed) from e
