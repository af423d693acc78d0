"""
Kill -9 at random moments: what add_request returned for arrives, once and in order.

A test kills 100 or 30 times on each runtime, in a nightly run ten times as often, and n times with
POSTCACHE_KILLS=n. POSTCACHE_SEED=n repeats the choices of a run that failed (when exactly the
kernel kills cannot be repeated).
"""

import os
import pathlib
import queue
import random
import signal
import time

from fake_server import Answer

import conftest
from programs.logger import record

LOGGER = pathlib.Path(__file__).parents[1] / "programs" / "logger.py"

# What the server is between one kill and the next. Each at least once in every 13 kills.
WEATHER = {
    "up": Answer(200),
    "down": None,
    "500": Answer(500),
    "hanging": Answer.hang(),
    "up, slowly": Answer.drip(0.0005),
    "hanging, but stored": Answer.hang(store=True),
    "429": Answer(429, {"Retry-After": "1"}),
    "reset after reading": Answer.reset_after(),
    "up again": Answer(204),
    "reset after storing": Answer.reset_after(store=True),
    "answer torn after storing": Answer.close_in_answer(store=True),
    "a login page": Answer.captive_redirect(),
    "500, but stored": Answer(500, store=True),
}


class Figures:
    """What the test was told and has seen."""

    def __init__(self, runtime, rng, seed):
        self.runtime = runtime.name
        self.rng = rng
        self.seed = seed
        self.told = {}  # number of a record: its sequence number, as the logger printed them
        self.open = set()  # numbers whose add was in progress at a kill
        self.kills = self.next = 0

    def report(self, what, server):
        """Show one line at the end of the run, and when the test fails."""
        receiver = server.receiver
        conftest.say(
            "%s, %s: %d kills, %d records told stored, %d requests, %d batches stored, %d of them "
            "duplicates that the receiver recognised, %d records that a naive one would have "
            "twice, %d arrived of %d adds in progress; POSTCACHE_SEED=%d"
            % (
                what,
                self.runtime,
                self.kills,
                len(self.told),
                server.request_count,
                receiver.batches,
                receiver.duplicates,
                receiver.raw_count - receiver.count,
                receiver.count - len(self.told),
                len(self.open),
                self.seed,
            )
        )


def begin(runtime):
    seed = int(os.environ.get("POSTCACHE_SEED") or random.randrange(1 << 32))
    return Figures(runtime, random.Random(seed), seed)


def kills(default):
    usual = conftest.amount(default, nightly=10 * default, sample=len(WEATHER))
    return int(os.environ.get("POSTCACHE_KILLS") or usual)


def set_weather(server, name):
    server.clear_script()
    if WEATHER[name] is None:
        server.down()
    else:
        server.default = WEATHER[name]
        server.up()


def kill(process):
    """Kill -9; returns what it had printed that nobody has read yet."""
    process.send_signal(signal.SIGKILL)
    rest = process.stdout.read()
    process.stdout.close()
    assert process.wait(60) == -signal.SIGKILL, "it had ended by itself:\n" + rest
    return rest


def live_and_die(runtime, server, path, figures, interval, limit):
    """One life of a logger, from its start to the kill."""
    rng = figures.rng
    lines = rng.choice((0, 1, 1, 2, 3, 8, 25, 60))
    delay = rng.choice((0, 0.001, 0.03)) * rng.random()
    first = figures.next
    with runtime.start(LOGGER, "add", server.url, path, first, interval, limit) as process:
        text = ""
        for _ in range(lines):
            line = process.stdout.readline()
            assert line, "it ended by itself"
            text += line
        time.sleep(delay)  # the random moment; nobody waits for anything
        text += kill(process)
    figures.kills += 1
    figures.next = first
    # A last line without its end was not printed as far as anybody can know.
    for line in text.split("\n")[:-1]:
        word, *numbers = line.split()
        if word == "stored":
            number, seq = map(int, numbers)
            assert number == figures.next
            figures.told[number] = seq
            figures.next += 1
    figures.open.add(figures.next)
    figures.next += 1  # never again: its add may have come to its end, or not


def deliver_the_rest(runtime, server, path):
    set_weather(server, "up")
    done = runtime.run(LOGGER, "drain", server.url, path, 0, 0, 500)
    assert done.stdout.split() == ["open", "empty"]


def check_exactly_once_in_order(server, figures):
    receiver = server.receiver
    arrived = [row["n"] for row in receiver.lines]
    missing = sorted(set(figures.told) - set(arrived))
    assert missing == [], "told stored, and lost"
    assert len(set(arrived)) == len(arrived), "twice at an exactly-once receiver"
    assert arrived == sorted(arrived), "out of order"
    invented = set(arrived) - set(figures.told) - figures.open
    assert invented == set(), "nobody added these"
    assert len(set(arrived) - set(figures.told)) <= figures.kills
    for row in receiver.lines:
        assert row == record(row["n"]), "not what was added"
    numbers = {row["n"]: number for _, number, row in receiver.records}
    assert {n: numbers[n] for n in figures.told} == figures.told, "not the number add_request gave"
    assert len({stream for stream, _, _ in receiver.records}) == 1
    assert receiver.errors == [], "malformed, or a retry with other bytes"
    assert receiver.skipped == 0, "a retry with other boundaries"


def test_a_killed_logger_loses_nothing_and_repeats_nothing(runtime, server, disk_path):
    figures = begin(runtime)
    weather = []
    for _ in range(kills(100)):
        if not weather:
            weather = list(WEATHER)
            figures.rng.shuffle(weather)
        set_weather(server, weather.pop())
        interval = figures.rng.choice((0, 0.01))
        limit = figures.rng.choice((1, 7, 500))
        live_and_die(runtime, server, disk_path, figures, interval, limit)
    deliver_the_rest(runtime, server, disk_path)
    figures.report("kills while it logs", server)
    check_exactly_once_in_order(server, figures)
    assert figures.told, "no add ever returned, so nothing was tested"
    assert server.receiver.count > 0


def test_killed_while_it_drains_a_backlog(runtime, server, disk_path):
    """The server is well. Killed between storing and answer, a batch arrives twice, none never."""
    figures = begin(runtime)
    rng = figures.rng
    doomed = queue.Queue()
    left = 0

    def maybe_kill(request):
        # The server has the batch, the client does not know it.
        nonlocal left
        left -= 1
        if left == 0:
            doomed.get(timeout=60).send_signal(signal.SIGKILL)

    for _ in range(kills(30)):
        set_weather(server, "down")
        live_and_die(runtime, server, disk_path, figures, 0, 1)
        set_weather(server, "up")
        interval, limit = rng.choice((0, 0.01)), rng.choice((1, 7))
        left = rng.choice((1, 2, 3, 10))
        doomed = queue.Queue()
        server.on_request = maybe_kill if rng.random() < 0.7 else None
        with runtime.start(LOGGER, "drain", server.url, disk_path, 0, interval, limit) as process:
            doomed.put(process)
            if not server.on_request:
                process.stdout.readline()
                time.sleep(rng.random() * 0.02)  # the random moment
                process.send_signal(signal.SIGKILL)
            process.stdout.read()
            code = process.wait(60)
        server.on_request = None
        assert code in (0, -signal.SIGKILL)
        figures.kills += code != 0
    deliver_the_rest(runtime, server, disk_path)
    figures.report("kills while it drains", server)
    check_exactly_once_in_order(server, figures)
    # A receiver without memory has some records twice, but all of them.
    assert {row["n"] for row in server.receiver.raw_lines} >= set(figures.told)
    assert server.receiver.duplicates > 0, "no kill came between storing and answer"
