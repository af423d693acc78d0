"""
Pulls a log off a board, over a serial port or what stands for one.

Nothing is written on the board. Its program, if one runs, is interrupted and stands still, so what
is pulled is one moment of the log; then it is started again by a soft reset. A board that waits at
its prompt is left there. Every wait has a deadline.
"""

import contextlib
import os
import tempfile

from . import Problem
from .link import LOST, Link, TransportError, usb_ports

_QUIET = 10  # s without a byte
_NAMES = 1 << 20  # bytes of a list of names
_FOLDERS = ("", "/+0", "/+1", "/+2", "/+3")  # of a log

# Runs on the board. A program that ran may have left its watchdog on, as a global `wdt`.
_PROLOGUE = """
import os
def feed():
    w = globals().get("wdt")
    if hasattr(w, "feed"):
        w.feed()
def tell(value):
    feed()
    print("\\x1e" + repr(value))
feed()
"""
_LIST = """
for d in %r:
    try:
        for e in os.ilistdir(%r + d):
            feed()
            if e[1] != 0x4000:
                tell(d + "/" + e[0])
    except OSError as e:
        if not d:
            tell(e.errno)
"""


@contextlib.contextmanager
def pulled(port, path, note):
    """
    Give the path of a temporary folder with a copy of the log, in a `with`.

    Args:
        port: str, "auto" or what pyserial opens.
        path: str, the log's folder on the board.
        note: callable(str), told what a person should know.

    Raises Problem.
    """
    try:
        with _interrupted(_find(port), note) as link:
            files = _pull(link, "/" + path.strip("/"))
    except (*LOST, ValueError) as e:
        raise Problem(
            "%s: the board does not answer as MicroPython does (%s). Is it plugged in, and no "
            "other program at its port?" % (port, type(e).__name__)
        ) from None
    with tempfile.TemporaryDirectory(prefix="postcache-") as folder:
        for name, data in files.items():
            os.makedirs(os.path.dirname(folder + name), exist_ok=True)
            with open(folder + name, "wb") as f:
                f.write(data)
        yield folder


def _find(port):
    if port != "auto":
        return port
    found = [p.device for p in usb_ports()]
    if len(found) == 1:
        return found[0]
    if not found:
        raise Problem("There is no board at any USB port; name one with --port.")
    raise Problem("There is more than one: name it with --port: %s." % ", ".join(found))


@contextlib.contextmanager
def _interrupted(port, note):
    """Give a Link to a board that stands still, in a `with`; then its program goes on."""
    try:
        link = Link(port, _QUIET)
    except (*LOST, ValueError):
        raise Problem(
            "%s cannot be opened: there is no such port, it is in use, or you may not use it."
            % port
        ) from None
    try:
        running = not link.at_prompt()
        _enter(link)
        try:
            yield link
        except BaseException:
            with contextlib.suppress(*LOST):
                link.interrupt()  # it may be amid what it was told to do
                _leave(link, running, note)
            raise
        _leave(link, running, note)
    finally:
        link.close()


def _enter(link):
    for _ in range(3):  # a program may catch the first Ctrl-C, to stop its watchdog
        try:
            link.enter_raw_repl(soft_reset=False, timeout_overall=3)
            return
        except TransportError:
            pass
    raise TransportError("no prompt")


def _leave(link, running, note):
    if running:
        link.start_over()
        note("the board's program was interrupted; it has been started again.")
    else:
        link.exit_raw_repl()


def _pull(link, path):
    """Return the files of the log at `path` on the board: {name below it: bytes}."""
    link.told(_PROLOGUE)
    files = {}
    for name in link.told(_LIST % (_FOLDERS, path), _NAMES):
        if not isinstance(name, str):
            raise Problem("%s: there is no such folder on the board." % path)
        strange = not (name.isascii() and name.isprintable()) or "\\" in name
        if not strange and name.count("/") <= 2 and ".." not in name:
            files[name] = link.read(path + name)
    return files
