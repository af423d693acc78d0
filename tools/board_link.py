"""
deploy's link to a board: which port it is on, how its prompt is reached, and what a failure means.

postcache.host.link does the talking. What is added here: patience with a board that sleeps, or
whose USB port goes away when it restarts; its watchdog, which must not bite while its program
stands still; and for all that can go wrong a sentence that says what to do. No sentence holds what
was sent: that may be a password.
"""

import contextlib
import errno
import os
import time

import serial

from postcache.host import Problem, link
from postcache.host.link import LOST, Garbled, TransportError, usb_ports

QUIET = 30  # s without a byte before a board that was at work is given up
OPENING = 1  # s between two tries to open a port that is not there
ANSWER = 2  # s for the answer to one Ctrl-C
NUDGE = 0.2  # s between two Ctrl-C for a board that may be awake for a moment only
NEVER = 1e9  # s
HEARD = 120  # s that a board's watchdog is fed for, after it heard from us last

# USB vendors; None: a chip that sits between USB and any board.
_VENDORS = {
    0x2E8A: ("pico_w", "Raspberry Pi"),
    0x303A: ("esp32", "Espressif"),
    0x10C4: (None, "CP210x"),
    0x1A86: (None, "CH340"),
    0x0403: (None, "FTDI"),
}
_DEBUG_PROBE = (0x2E8A, 0x000C)  # has a serial port, which leads to another board's pins

# The first that a board is told. A program that we have interrupted no longer feeds its watchdog:
# one that can be reached as `wdt` is stopped if it knows how, else fed by a timer as long as we
# are heard. Any other one of an RP2040 or RP2350 is stopped by its register (datasheets: CTRL,
# bit 30, ENABLE; its address + 0x3000 clears bits).
_FIRST = """
def _hold(w):
    global _heard, _timer
    import sys, time
    _heard = time.ticks_ms()
    if hasattr(w, "stop"):
        w.stop()
    elif hasattr(w, "feed"):
        w.feed()
        import machine
        def feed(_):
            if time.ticks_diff(time.ticks_ms(), _heard) < %d:
                w.feed()
        for i in (-1, 3, 1, 0):
            try:
                _timer = machine.Timer(i)
                _timer.init(period=2000, mode=machine.Timer.PERIODIC, callback=feed)
                break
            except (ValueError, OSError):
                pass
    elif sys.platform == "rp2":
        try:
            from machine import mem32
            at = 0x400d8000 if "RP2350" in sys.implementation._machine else 0x40058000
            if mem32[at] >> 30 & 1:
                mem32[at + 0x3000] = 1 << 30
        except ImportError:
            pass
    i = sys.implementation
    print("\\x1e" + repr((i.name, tuple(i.version)[:3], getattr(i, "_mpy", 0), sys.platform,
        getattr(i, "_machine", ""), bool(w))))
_hold(globals().get("wdt"))
""" % (HEARD * 1000)

# With a watchdog that is fed there is no soft reset, which would stop the feeding: what can be
# given back of the program's memory is. Its modules are those that are files; frozen ones are not.
_CLEAN = """
def _clean():
    import gc, os, sys
    for n in list(globals()):
        if n not in ("wdt", "_timer", "_heard", "_clean", "__name__"):
            del globals()[n]
    for n in list(sys.modules):
        try:
            os.stat(sys.modules[n].__file__)
            del sys.modules[n]
        except (AttributeError, OSError):
            pass
    gc.collect()
_clean()
"""

_BEAT = """
try:
    import time
    _heard = time.ticks_ms()
except Exception:
    pass
"""

_GARBLED = (
    "What the board says is garbled: another program may use its port too, or the cable is bad. "
    "Close that, and run the same command again."
)

# The pause lets the answer out before the port goes away.
_RESET = "import time, machine\ntime.sleep_ms(100)\nmachine.reset()"


def find_port(board):
    """Return the serial port that the board must be on; None when there is none (yet).

    Raises Problem when there are several: trying each would stop the programs of other boards.
    """
    found = []
    for port in usb_ports():
        kind, name = _VENDORS.get(port.vid, ("", ""))
        if kind in (board, None) and (port.vid, port.pid) != _DEBUG_PROBE:
            found.append((port.device, port.description or name))
    if len(found) > 1:
        raise Problem(
            "Several ports may be the board's; name the right one with --port: "
            + ", ".join(f"{device} ({text})" for device, text in found)
            + "."
        )
    return found[0][0] if found else None


def _none_found(board):
    others = [f"{port.device} ({port.description})" for port in usb_ports()]
    text = (
        f"No {board} board was found on USB. Plug it in with a cable that carries data, "
        "press its reset button if it sleeps, and run the same command again"
    )
    if others:
        text += "; or, if it is one of these, name it with --port: " + ", ".join(others)
    return text + "."


def _cannot_open(port, error):
    """Return (sentence, True if waiting may help) for the exception that opening a port raised."""
    text = str(error)
    number = getattr(error, "errno", None)
    if isinstance(error, ValueError):
        return f"{port} is no serial port: give a name such as /dev/ttyACM0 or COM3.", False
    if "://" in port:
        return f"Nothing answers at {port}, or it is in use: is the board's process up?", False
    windows = os.name == "nt"
    if (
        number in (errno.EAGAIN, errno.EBUSY)
        or "exclusively lock" in text
        or (windows and "Access is denied" in text)
    ):
        return (
            f"Another program (Thonny, mpremote, a serial monitor) has {port} open; close it "
            "there and run the same command again."
        ), False
    if number in (errno.EACCES, errno.EPERM):
        return (
            f"You may not open {port}: put yourself into the group that may (on most Linux: "
            "`sudo usermod -aG dialout $USER`), log out and in, and run the same command again."
        ), False
    if number in (errno.ENOENT, errno.ENXIO, errno.ENODEV) or windows:
        return (
            f"There is no {port}: is the board plugged in, with a cable that carries data? "
            "--port auto finds it by itself."
        ), True
    return f"{port} cannot be opened (error {number}): is it a board's serial port?", False


class Link(link.Link):
    """
    An open port to a board.

    Args:
        port: str, as pyserial takes it, or "auto".
        board: str, "esp32" or "pico_w".
        wait: seconds that it is waited for, if it is not there or does not answer.
        say: callable, given a line of text for the person.

    Attributes: `port`; after enter(): `name` of the implementation, `version`, a tuple, `mpy`,
    `platform`, `machine`.

    All methods raise Problem.
    """

    def __init__(self, port, board, wait, say):
        self.auto = port == "auto"
        self.port = port
        self.board = board
        self.end = time.monotonic() + wait
        self.wait = wait
        self.say = say
        self.entered = False
        self._waited = self._opened = False
        self._open()

    def _patience(self, pause=OPENING):
        """Say once that it is waited for, and wait a moment; False when there is no time left."""
        left = self.end - time.monotonic()
        if left <= 0:
            return False
        if not self._waited:
            self._waited = True
            until = f"up to {self.wait:g} s" if left < NEVER else "until Ctrl-C"
            self.say(f"Waiting {until} for the board: if it sleeps, press its reset button.")
        time.sleep(min(left, pause))
        return True

    def _open(self):
        """Open the port, waiting for it until `end`."""
        while True:
            if self.auto:
                found = find_port(self.board)
                if not found:
                    if self._patience():
                        continue
                    raise Problem(_none_found(self.board))
                self.port = found
            try:
                super().__init__(self.port, QUIET)
                self._opened = True
                return
            except ValueError as error:
                raise Problem(_cannot_open(self.port, error)[0]) from None
            except (TransportError, OSError):
                sentence, waiting = self._why()
            # A port that was ours comes back for its superuser alone, and is everybody's then.
            if not ((waiting or self._opened) and self._patience()):
                raise Problem(sentence)

    def _why(self):
        """mpremote drops the reason: open the port once more, to hear it."""
        try:
            serial.serial_for_url(self.port, timeout=1, exclusive=os.name != "nt" or None).close()
        except (OSError, ValueError) as error:
            return _cannot_open(self.port, error)
        return _cannot_open(self.port, OSError(errno.EBUSY, ""))  # free by now

    # --- Getting in ---

    def enter(self):
        """
        Stop the board's program, hold its watchdog and ask what it is.

        Until `end` it is tried again and again: a board that wakes up for a moment is stopped.
        """
        tries = 0
        while True:
            tries += 1
            try:
                if not self.serial.is_open:
                    self._open()
                self._nudge()
                self.enter_raw_repl(soft_reset=False, timeout_overall=ANSWER)
                if tries > 1:
                    self._settle()
                break
            except TransportError:
                pass
            except OSError as error:
                self.close()  # its USB port went away: it sleeps again, or restarts
                if "://" in self.port:
                    raise Problem(_cannot_open(self.port, error)[0]) from None
            if not self._patience(0):
                if self.heard:
                    raise Problem(
                        f"What is on {self.port} does not stop for Ctrl-C, or is not MicroPython: "
                        "press its reset button and run the same command again; if that does not "
                        "help, install MicroPython (https://micropython.org/download)."
                    )
                raise Problem(
                    f"Nothing answers on {self.port}: press the board's reset button and run the "
                    "same command again. A board without MicroPython needs that first "
                    "(https://micropython.org/download)."
                )
        self.entered = True
        facts = self.run(_FIRST)
        if not facts:
            raise Problem(f"What is on {self.port} answers, but not as MicroPython does.")
        self.name, self.version, self.mpy, self.platform, self.machine, self._watched = facts[0]
        if self._watched:
            self.run(_CLEAN)
        else:
            self._soft_reset()

    def _nudge(self):
        """Press Ctrl-C, and Ctrl-B for a raw REPL, until a prompt comes, or for a while."""
        end = time.monotonic() + ANSWER
        while time.monotonic() < end:
            self.serial.write(b"\r\x03\x02")
            if self.read_until(1, b">>> ", timeout_overall=NUDGE).endswith(b">>> "):
                break

    def _settle(self):
        """Answers to earlier tries may still come: let them, and begin anew."""
        end = time.monotonic() + QUIET  # a thread of the program's may go on printing
        while self.read_until(1, b"\n", timeout_overall=0.3) and time.monotonic() < end:
            pass
        self.enter_raw_repl(soft_reset=False)

    def _soft_reset(self):
        """Give up the program's memory, timers and threads; boot.py runs."""
        try:
            self.enter_raw_repl()
        except TransportError:
            # A boot.py that does not end: without it, then.
            try:
                self.serial.write(b"\r\x03\x03")
                self._settle()
            except (TransportError, OSError):
                self._gone()
        except OSError:
            self._gone()

    def _gone(self):
        self.entered = False
        raise Problem(
            f"The board on {self.port} went away or stopped answering. Nothing is lost: plug it "
            "in again and run the same command."
        ) from None

    # --- Talking ---

    def run(self, code):
        """Run `code` on the board; return the values that it told, see on_board.py."""
        with self._talking():
            return self.told(code)

    def get(self, path):
        """Return the content of a file, bytes."""
        with self._talking():
            return self.read(path)

    @contextlib.contextmanager
    def _talking(self):
        """Say in a sentence what goes wrong, in a `with`."""
        try:
            yield
        except Garbled:
            raise Problem(_GARBLED) from None
        except LOST:
            self._gone()

    def call(self, function, *arguments):
        """Call a function of on_board.py; return the values that it told."""
        text = ", ".join(map(repr, arguments))
        beat = _BEAT if self._watched else ""
        return self.run(f"{beat}{function}({text})")

    def ask(self, function, *arguments):
        """Call a function of on_board.py that tells one value; return that."""
        told = self.call(function, *arguments)
        if len(told) != 1:
            raise Problem(_GARBLED)
        return told[0]

    # --- Getting out ---

    def restart(self):
        """Reset the board, so that its main.py runs."""
        with self._talking():
            self.exec_raw_no_follow(_RESET)
        self.entered = False

    def leave(self):
        """Whatever happened, try to have the board run its program again; return True if so."""
        if not self.entered:
            return True
        self.entered = False
        try:
            self.serial.write_timeout = ANSWER
            self.serial.write(b"\r\x03\x03")
            self.enter_raw_repl(soft_reset=False, timeout_overall=ANSWER)
            # Ctrl-B and Ctrl-D, a soft reset, for what has no `machine`.
            self.exec_raw_no_follow(_RESET)
            data = self.read_until(1, b"\x04", timeout_overall=ANSWER)
            if data.endswith(b"\x04"):
                self.start_over()
        except LOST:
            return False
        return True

    def watch(self, write):
        """Give what the board prints to `write`, bytes, until Ctrl-C."""
        while True:
            data = b""
            try:
                if self.serial.timeout != NUDGE:
                    self.serial.timeout = NUDGE
                data = self.serial.read(1)
                if data and self.serial.in_waiting:
                    data += self.serial.read(self.serial.in_waiting)
            except OSError:
                self.close()
                self.end = time.monotonic() + 2 * NEVER
                self._waited = False
                time.sleep(NUDGE)
                self._open()
            if data:
                write(data)
