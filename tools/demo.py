"""
The demo: kill the logger, take the server away, and count what arrives.

    tools/demo.py (this process)                       examples/logger.py (a process of its own)
        FakeServer, down() and up()  <-- HTTP, batches --  reads the machine 10 times a second
        SIGKILL, twice               <-- "stored ..." ---  add_request: on disk before it returns

One after the other: all is well; the server goes away; the logger is killed and started again
while it is away; the server comes back; the logger is killed at the worst moment there is, when a
batch has arrived and its answer has not; the logger is asked to stop. Then `compare` holds what
the logger said it had stored against what the server has. Both lists are made by different
processes, and nothing here knows what the result ought to be.

SIGKILL is not a power cut: what a killed process has written, the kernel still writes to disk. So
this shows that the log survives its process, not that it was synced; the tests show that.

    python tools/demo.py [--runtime cpython|micropython] [--seconds 30] [--keep]

In a terminal the screen is drawn with rich; elsewhere it is plain lines. CPython 3.9 or later on a
POSIX system.
Exit status: 0, 1 if anything went wrong with a reading, 2 if there was no runtime to run.
"""

import argparse
import collections
import os
import re
import signal
import subprocess
import sys
import threading
import time

import get_runtimes  # beside this file
import screens
import stories
from stories import ROOT, StoryError

TICK = 0.1  # s between two looks at everything, and two frames
LATENCY = 0.1  # s each answer takes, as on a mobile link: else a backlog is gone in a blink
PATIENCE = 60  # s for anything that must happen; far above the longest back-off to be expected

# When things happen, as parts of --seconds. The first kill comes near the end of the outage, so
# that the restarted logger, which begins with a short back-off, soon notices the server is back.
DOWN, KILL, UP, STOP = 0.15, 0.455, 0.5, 0.87
# The second kill: while the server handles this batch of the backlog.
FATAL_BATCH = 3


# -- the verdict ----------------------------------------------------------------------------------


def compare(told, records, kills=0):
    """
    Hold what was stored against what arrived.

    Args:
        told: [(seq, n)], in the order in which the logger said that reading n was stored as seq.
        records: [(stream, seq, reading)], in order of arrival, `reading` a dict with its "n".
        kills: how often the logger was killed. Each time one reading may have been on disk already
            when the logger had not said so yet.

    Returns a Verdict.
    """
    problems = []
    seq_of = {n: seq for seq, n in told}
    if len(seq_of) < len(told):
        problems.append("the logger told a reading twice")
    held = collections.Counter()
    before = None
    for stream, seq, reading in records:
        n = reading.get("n") if isinstance(reading, dict) else None
        if not isinstance(n, int):
            problems.append(f"what arrived as {seq} is no reading: {reading!r:.60}")
            continue
        held[n] += 1
        if seq_of.get(n, seq) != seq:
            problems.append(f"reading {n} was stored as {seq_of[n]} and arrived as {seq}")
        if before and stream != before[0]:
            problems.append(f"the stream changed from {before[0]} to {stream}")
        elif before and held[n] == 1 and (n <= before[2] or seq <= before[1]):
            problems.append(f"reading {n} arrived after reading {before[2]}")
        before = stream, seq, n
    return stories.judge("logger", list(seq_of), held, kills, problems)


def report(verdict):
    """Return the lines to print for a Verdict; the last one is the result."""
    return stories.report(verdict, "the kill came before the logger said so")


# -- the logging process --------------------------------------------------------------------------


class Logger:
    """
    One life of examples/logger.py. `told` grows as it says what is stored.

    Args:
        command: list, the interpreter and its options.
        url, folder: str, for the logger.
        first: number of the first reading.
    """

    def __init__(self, command, url, folder, first):
        lib = str(ROOT / "lib")
        self.first = first
        self.told = []
        self.noise = []
        self.killed = False
        self.process = subprocess.Popen(
            [*command, str(ROOT / "examples" / "logger.py"), url, folder, str(first)],
            env=dict(os.environ, PYTHONPATH=lib, MICROPYPATH=lib + ":.frozen"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # A group of its own: Ctrl-C is for us to handle, and SIGKILL gets the interpreter
            # also where it was started by a wrapper script.
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            # A kill can cut the last line short, perhaps within a number: without its end it
            # says nothing.
            stored = re.fullmatch(rb"stored (\d+) (\d+)\r?\n", line)
            if stored:
                self.told.append((int(stored[1]), int(stored[2])))
            elif line.endswith(b"\n") and not line.startswith(b"stored "):
                self.noise.append(line.decode(errors="replace").rstrip())

    @property
    def next(self):
        """
        The number with which the next life begins.

        One is left out: that reading may be on disk although its add_request never returned. If
        its number were given again, nobody could tell a duplicate from another reading.
        """
        return self.first + len(self.told) + 1

    def kill(self):
        """SIGKILL, from any thread; it is dead when this returns."""
        self.killed = True
        self._signal(signal.SIGKILL)
        self.process.wait()

    def finish(self, timeout):
        """Wait until the process has ended and all it said is read. Returns the exit status."""
        deadline = time.monotonic() + timeout
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise StoryError(f"the logger did not end within {timeout} s") from None
        self._reader.join(max(0, deadline - time.monotonic()))
        if self._reader.is_alive():
            raise StoryError("the logger has ended, but somebody still holds its output")
        return status

    def stop(self):
        """Ask it to deliver everything and end."""
        try:
            self.process.stdin.close()
        except OSError:
            pass  # it has ended already, and `finish` will say how

    def end(self):
        """Leave nothing behind, whatever has happened."""
        if self.process.poll() is None:
            self.kill()
        self.stop()
        self._reader.join(1)
        if not self._reader.is_alive():
            self.process.stdout.close()

    def _signal(self, number):
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            pass  # ended by itself a moment ago


# -- the story ------------------------------------------------------------------------------------


class Demo(stories.Story):
    """
    What happens, and all there is to show about it.

    Args:
        runtime: display name of the runtime.
        command: list that starts it.
        folder: str, where the log will be.
        seconds: how long it is to take, about.
        screen: with event(demo, event), tick(demo).

    Attributes: `samples` [(seconds, waiting, is up)]; `kills` [seconds]; `is_up`, `alive`;
    `repeated`, readings that came again after the second kill and were recognised.
    """

    def __init__(self, runtime, command, folder, seconds, screen):
        super().__init__(screen, self._on_request)
        self.runtime = runtime
        self.seconds = seconds
        self.samples = []
        self.kills = []
        self.loggers = []
        self.is_up = False
        self.repeated = 0
        self._command = command
        self._folder = folder
        self._armed = False
        self._batches = 0
        self._answer_lost = None  # the key of the batch that the second kill came after
        self._followed = False  # whether another request has come since
        self._lock = threading.Lock()  # for what the server's threads count

    @property
    def told(self):
        """Everything the logger said it stored, over all its lives."""
        return [pair for logger in self.loggers for pair in logger.told]

    @property
    def stored(self):
        """How many readings the logger said are stored."""
        return sum(len(logger.told) for logger in self.loggers)

    @property
    def waiting(self):
        """How many readings are on disk only."""
        return max(0, self.stored - self.arrived)

    @property
    def alive(self):
        """Whether the logger runs."""
        return bool(self.loggers) and self.loggers[-1].process.poll() is None

    def run(self):
        """Play it all; returns the Verdict."""
        try:
            self.server.start()
            self.is_up = True
            wrong = []
            try:
                self._play()
            except StoryError as error:
                # The story has stuck, which is a failure, and what arrived tells more about it.
                wrong.append(str(error))
                for logger in self.loggers:
                    logger.end()
            # Not before: a thread of the server may still be busy with the last batch.
            self.server.stop()
            verdict = compare(self.told, self.receiver.records, len(self.kills))
            if self._answer_lost and not self.repeated:
                wrong.append(f"the batch {self._answer_lost} did not come again, recognised")
            return self._completed(verdict, wrong)
        finally:
            for logger in self.loggers:
                logger.end()
            self.server.stop()

    def _play(self):
        self._launch(1)
        self._wait(lambda: self.stored, "the logger has stored nothing")
        # The clock of the story starts with the first reading, so that a slow machine, where an
        # interpreter takes its time to start, sees the same story.
        self._start = time.monotonic()
        self._event("good", f"server up, logger stores 10 readings a second ({self.runtime})")
        self._until(DOWN)

        self.server.down()
        self.is_up = False
        self._event("bad", "server gone: connections are refused")
        self._until(KILL)

        self._kill()
        self._restart("SIGKILL during the outage")
        self._until(UP)

        with self._lock:
            self._armed = True
        self.server.up()
        self.is_up = True
        self._event("good", "server back: the logger tries again when its back-off ends")

        self._wait(lambda: self.loggers[-1].killed, "the logger has not come back to the server")
        self._restart(f"SIGKILL: batch {FATAL_BATCH} had arrived, its answer had not")
        backlog = self.stored
        self._wait(lambda: self._followed, "nothing has come after the kill")
        if self.repeated:
            again = f"that batch came again, same key: {self.repeated} readings recognised"
            self._event("good", again)
        else:
            self._event("bad", "another batch came, or that one was not recognised")
        self._wait(lambda: self.arrived >= backlog, "the backlog has not arrived")
        self._event("good", "backlog delivered")
        self._until(STOP)

        logger = self.loggers[-1]
        self._event("plain", "logger asked to stop: it delivers what waits and ends")
        self._check()
        logger.stop()
        self._wait(lambda: not self.alive, "the logger did not end")
        status = logger.finish(PATIENCE)
        if status:
            raise StoryError(f"the logger ended with status {status}. " + self._last_words())
        self._event("plain", "logger ended: it says that nothing waits any more")

    # What happens

    def _launch(self, first):
        self.loggers.append(Logger(self._command, self.server.url, self._folder, first))

    def _kill(self):
        self._check()
        self.loggers[-1].kill()

    def _restart(self, text):
        """After a kill: read what was still in the pipe, and start the next life at once."""
        logger = self.loggers[-1]
        logger.finish(PATIENCE)
        self.kills.append(self.elapsed)
        before = self.stored
        waiting = self.waiting
        self._launch(logger.next)
        self._event("cut", text)
        self._wait(lambda: self.stored > before, "the logger did not come back")
        self._event("plain", f"logger back, it found {waiting} readings on its disk")

    def _on_request(self, request):
        """In a thread of the server: a batch is read and stored, and not answered yet."""
        time.sleep(LATENCY)
        key = request.headers.get("idempotency-key")
        with self._lock:
            if self._answer_lost and not self._followed:
                # Same key, recognised; that its bytes were the same is checked by the receiver.
                if key == self._answer_lost and request.receipt == "duplicate":
                    first, last = map(int, key.strip('"').split("-")[-2:])
                    self.repeated = last - first + 1
                self._followed = True
            # A duplicate is not counted: it is the batch that was on its way when the server went.
            elif self._armed and request.receipt == "applied":
                self._batches += 1
                if self._batches == FATAL_BATCH:
                    self._armed = False
                    self._answer_lost = key
                    self.loggers[-1].kill()

    # The clock

    def _until(self, part):
        while self.elapsed < part * self.seconds:
            self._check()
            self._tick()

    def _wait(self, condition, otherwise):
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                raise StoryError(f"{otherwise} for {PATIENCE} s. " + self._last_words())
            self._tick()

    def _tick(self):
        self.samples.append((self.elapsed, self.waiting, self.is_up))
        self._screen.tick(self)
        time.sleep(TICK)

    def _check(self):
        if not self.alive:
            raise StoryError("the logger ended by itself. " + self._last_words())

    def _last_words(self):
        noise = self.loggers[-1].noise[-5:]
        return "It said: " + " | ".join(noise) if noise else "It said nothing."


# -- the screen -----------------------------------------------------------------------------------

_UNITS = (("load", "load %.2f"), ("cpu_celsius", "CPU %.1f °C"))


def describe(reading):
    """Return a reading as text, with units."""
    parts = [text % reading[key] for key, text in _UNITS if key in reading]
    if "memory_kib" in reading:
        parts.insert(1, "memory available {:,.1f} MiB".format(reading["memory_kib"] / 1024))
    moment = reading.get("time", 0)
    clock = time.strftime("%H:%M:%S", time.localtime(moment)) + ".%d" % (moment * 10 % 10)
    return "   ".join([f"#{reading['n']:<4} {clock}", *parts])


class Plain(screens.PlainScreen):
    """Lines for a log file."""

    def status(self, story):
        """Return how things are, in a line."""
        return "stored %4d   on disk only %4d   arrived %4d   server %s" % (
            story.stored,
            story.waiting,
            story.arrived,
            "up" if story.is_up else "down",
        )


class Live(screens.LiveScreen):
    """A panel with a chart of what waits."""

    SUBTITLE = "once add_request has returned, a reading survives the kill"

    def title(self, story):
        """Return what the panel is headed with, in rich's markup."""
        return f"[bold]postcache[/bold] on {story.runtime}, {story.elapsed:.1f} s"

    def parts(self, story, width, rows):
        """Return the panel's lines, Texts, for so many columns and rows beside the frame."""
        from rich.text import Text

        rows -= 8
        chart = 8 if rows > 24 else max(3, min(4, rows - 7))
        readings = 4 if rows > 24 else 1 + (rows > 12)
        events = max(3, min(12, rows - chart - readings))
        blank = Text("")
        return [
            self._state(story),
            blank,
            Text("readings on disk that the server has not, over time", "bold"),
            *self._chart(story, width, chart),
            blank,
            *screens.events(story, events),
            blank,
            Text("the last to arrive", "bold"),
            *screens.lines(map(describe, story.receiver.lines[-readings:]), readings),
        ]

    def _state(self, demo):
        from rich.text import Text

        return Text.assemble(
            *("stored ", (f"{demo.stored:<6}", "bold cyan")),
            *("on disk only ", (f"{demo.waiting:<6}", "bold yellow")),
            *("arrived ", (f"{demo.arrived:<6}", "bold green")),
            *("server ", ("● up  " if demo.is_up else "○ DOWN", self._server(demo.is_up))),
            *("  logger ", ("● runs" if demo.alive else "○ ended", "green" if demo.alive else "")),
        )

    @staticmethod
    def _server(is_up):
        return "green" if is_up else "bold red"

    def _chart(self, demo, width, height):
        from rich.text import Text

        gutter = 6
        span = max(demo.seconds * STOP, demo.elapsed)
        columns = bars(demo.samples, width - gutter, span)
        top = max([10] + [level for level, _ in columns])
        rows = []
        for row in range(height - 1, -1, -1):
            label = top if row == height - 1 else 0 if not row else ""
            text = Text(f"{label:>{gutter - 2}}  ")
            for level, is_up in columns:
                eighths = round(level / top * height * 8) - row * 8
                # What waits is seen, however little it is.
                eighths = max(eighths, 1) if level and not row else eighths
                text.append(" ▁▂▃▄▅▆▇█"[max(0, min(8, eighths))], "yellow" if is_up else "red")
            rows.append(text)
        axis = Text(" " * gutter)
        killed = {int(at / span * (width - gutter)) for at in demo.kills}
        for column in range(width - gutter):
            if column in killed:
                axis.append("✗", screens.STYLES["cut"])
            elif column < len(columns):
                is_up = columns[column][1]
                axis.append("━" if is_up else "╌", self._server(is_up))
            else:
                axis.append("─", "bright_black")
        legend = Text.assemble(
            " " * gutter,
            ("━", "green"),
            " server up   ",
            ("╌", "bold red"),
            " server down   ",
            ("✗", screens.STYLES["cut"]),
            " logger killed",
        )
        return [*rows, axis, legend]


def bars(samples, width, span):
    """
    Sort samples into the columns of a chart.

    Args:
        samples: [(seconds, waiting, is_up)], oldest first.
        width: columns for `span` seconds.

    Returns [(most that waited, is_up)] for the columns up to the last sample.
    """
    columns = []
    for at, waiting, is_up in samples:
        column = min(width - 1, max(0, int(at / span * width)))
        while len(columns) < column:  # between two samples nothing has changed
            columns.append(columns[-1] if columns else (waiting, is_up))
        if len(columns) == column:
            columns.append((waiting, is_up))
        else:
            columns[column] = max(columns[column][0], waiting), is_up
    return columns


# -- the command line -----------------------------------------------------------------------------


def find_runtime(name):
    """Return (display name, command). Raises StoryError, which says what to install."""
    if name == "cpython":
        # -u: a line that waits in a buffer when the kill comes would not have been told.
        return "CPython %d.%d" % sys.version_info[:2], [sys.executable, "-u"]
    try:
        path = get_runtimes.find(name, offline=True)[0]
    except get_runtimes.Unavailable:
        print("MicroPython is not here yet; fetching it once ...", file=sys.stderr, flush=True)
        try:
            path = get_runtimes.find(name)[0]
        except get_runtimes.Unavailable as error:
            raise StoryError(f"no MicroPython: {error}") from None
    code = "import sys; print('%d.%d' % sys.implementation.version[:2])"
    version = subprocess.check_output([path, "-c", code], text=True, timeout=PATIENCE)
    return "MicroPython " + version.strip(), [path]


def main(arguments=None):
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(
        description="Kill the logger, take the server away, and count what arrives."
    )
    parser.add_argument("--runtime", choices=["cpython", "micropython"], default="cpython")
    parser.add_argument("--seconds", type=float, default=30, help="about how long to take [30]")
    parser.add_argument("--keep", action="store_true", help="keep the folder with the log")
    options = parser.parse_args(arguments)
    if not 1 <= options.seconds <= 3600:
        parser.error("--seconds must be 1 to 3600")
    screen = screens.make_screen(Plain, Live)

    def tell(runtime, folder):
        name, command = runtime
        demo = Demo(name, command, os.path.join(folder, "cache"), options.seconds, screen)
        verdict = demo.run()
        screen.tick(demo)
        return verdict, report(verdict)

    return stories.play("demo", screen, lambda: find_runtime(options.runtime), tell, options.keep)


if __name__ == "__main__":
    sys.exit(main())
