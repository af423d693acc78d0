"""
What tools/demo.py and tools/sim.py have in common: a story in which things go wrong, and its end.

A device stores readings and says so; what it sends arrives at FakeServer; then one list is held
against the other. The device, and what happens to it, is the business of either tool; what counts
as a success is the same for both, and it is here.
"""

import collections
import pathlib
import shutil
import signal
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "host_tests" / "machines"))

from fake_server import FakeServer  # pyright: ignore[reportMissingImports]  # noqa: E402


class StoryError(Exception):
    """It could not go on; the message is a sentence for the user."""


# -- the verdict ----------------------------------------------------------------------------------

Verdict = collections.namedtuple("Verdict", "told lost duplicated extra problems")
Verdict.__doc__ = """What a tool's `compare` found.

told: how many readings the device said were stored.
lost, duplicated, extra: lists of reading numbers: told and not held, held twice, held untold.
problems: sentences about everything else that must not be.
"""


def judge(device, told, held, cuts, problems):
    """
    Return the Verdict.

    Args:
        device: str, what the device is called.
        told: numbers of the readings that the device said were stored.
        held: a Counter of those of the readings that arrived.
        cuts: how often the device was stopped at once. Each time one reading may have been stored
            already when the device had not said so yet.
        problems: what else was found.
    """
    lost = [number for number in told if number not in held]
    duplicated = sorted(number for number in held if held[number] > 1)
    extra = sorted(held.keys() - set(told))
    if len(extra) > cuts:
        untold = f"{len(extra)} readings arrived that the {device} never told of: {extra}"
        problems = [*problems, untold]
    return Verdict(len(told), lost, duplicated, extra, problems)


def passed(verdict):
    """Return whether nothing is wrong. No reading at all is no success."""
    return bool(verdict.told and not (verdict.lost or verdict.duplicated or verdict.problems))


def report(verdict, cut, over=""):
    """
    Return the lines to print for a Verdict; the last one is the result.

    Args:
        cut: str, why a reading was stored and not told: "the kill came before the logger said so".
        over: str, what the readings have been through: " over 3 power cuts".
    """
    lines = [f"WRONG: {problem}" for problem in verdict.problems]
    for what in ("lost", "duplicated"):
        numbers = getattr(verdict, what)
        if numbers:
            some = ", ".join(map(str, numbers[:10])) + (", ..." if len(numbers) > 10 else "")
            lines.append(f"WRONG: {what} {some}")
    if verdict.extra:
        count = len(verdict.extra)
        lines.append(f"{count} reading{'s' if count > 1 else ''} more arrived: stored, but {cut}")
    lines.append(
        f"delivered {verdict.told - len(verdict.lost)} of {verdict.told} readings{over}, "
        f"{len(verdict.lost)} lost, {len(verdict.duplicated)} duplicated"
    )
    return lines


# -- the story ------------------------------------------------------------------------------------


class Story:
    """
    What happens, and what there is to show about it.

    Args:
        screen: with event(story, event), tick(story).
        on_request: callable(request), in a thread of the server, see FakeServer.

    Attributes: `events` [(seconds, style, text)]; `server`, `receiver`.
    """

    def __init__(self, screen, on_request):
        self.events = []
        self.server = FakeServer(on_request=on_request)
        self.receiver = self.server.receiver
        self._screen = screen
        self._start = time.monotonic()

    @property
    def elapsed(self):
        """Seconds since the beginning."""
        return time.monotonic() - self._start

    @property
    def arrived(self):
        """How many readings the server has."""
        return self.receiver.count

    def _event(self, style, text):
        event = (self.elapsed, style, text)
        self.events.append(event)
        self._screen.event(self, event)

    def _completed(self, verdict, wrong):
        """Return the Verdict, and in it what else went `wrong`, and what the server has met."""
        wrong = wrong + self.receiver.errors + self.server.errors
        wrong += [f"gap: expected {gap[1]}, got {gap[2]}" for gap in self.receiver.gaps]
        return verdict._replace(problems=[*verdict.problems, *wrong])


# -- the command line -----------------------------------------------------------------------------


def play(name, screen, find, tell, keep):
    """
    Tell a story in a folder of its own, and print how it ended; return the exit status.

    Args:
        name: of the tool.
        screen: see screens.make_screen.
        find: callable(), returns what the story needs.
        tell: callable(found, folder), returns the Verdict and the lines to print.
        keep: whether the folder is kept also when all went well.

    Both may raise StoryError.
    """
    # kill, timeout and CI systems end a program by SIGTERM: clean up as after Ctrl-C, which a
    # shell makes a program in the background ignore.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    folder = None
    lines = []
    status = 2
    try:
        found = find()
        folder = tempfile.mkdtemp(prefix=f"postcache-{name}-")
        with screen:
            verdict, lines = tell(found, folder)
        status = 0 if passed(verdict) else 1
    except StoryError as error:
        print(f"{name}: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        status = 130
    finally:
        if folder and (keep or status in (1, 2)):
            print(f"what was stored is kept in {folder}", flush=True)
        elif folder:
            shutil.rmtree(folder, ignore_errors=True)
    if lines:
        screen.result(lines, not status)
    return status
