"""
Pulls a log off a board, over a serial port or what stands for one, by mpremote's library.

Nothing is written on the board. Its program, if one runs, is interrupted and stands still, so what
is pulled is one moment of the log; then it is started again by a soft reset. A board that waits at
its prompt is left there. Every wait has a deadline.
"""

import binascii
import contextlib
import io
import os
import struct
import tempfile
import time
from typing import Any

from . import Problem

try:
    from mpremote.transport import TransportError
    from mpremote.transport_serial import SerialTransport
    from serial.tools import list_ports
except ImportError:
    raise Problem("Boards need the package mpremote: pip install 'postcache[board]'.") from None

_WAIT = 10  # s without a byte
_SLOWEST = 2000  # bytes a second: what comes more slowly is given up
_MOST = 64 << 20  # bytes of a file; there is no board with more
_FOLDERS = ("", "/+0", "/+1", "/+2", "/+3")  # of a log

# Runs on the board. A program that ran may have left its watchdog on, as a global `wdt`.
_PROLOGUE = """
import os, sys
from binascii import b2a_base64, crc32
def _feed():
 w = globals().get('wdt')
 if hasattr(w, 'feed'): w.feed()
_feed()
"""
_LIST = """
for d in %r:
 try:
  for e in os.ilistdir(%r + d):
   _feed()
   if e[1] != 0x4000: print(repr(d + '/' + e[0]))
 except OSError as e:
  if not d: print(e.errno)
"""
_READ = """
with open(%r, 'rb') as f:
 c = 0
 while True:
  b = f.read(384)
  if not b: break
  c = crc32(b, c)
  _feed()
  print(b2a_base64(b).decode(), end='')
print('=', c)
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
        # mpremote prints when it is at a loss.
        with contextlib.redirect_stdout(io.StringIO()), _Board(_find(port), note) as board:
            files = board.pull("/" + path.strip("/"))
    except (TransportError, OSError, struct.error, ValueError) as e:
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
    found = sorted(p.device for p in list_ports.comports() if p.vid is not None)
    if len(found) == 1:
        return found[0]
    if not found:
        raise Problem("There is no board at any USB port; name one with --port.")
    raise Problem("There is more than one: name it with --port: %s." % ", ".join(found))


class _Board:
    """A board with MicroPython at a port, to be used in a `with`."""

    def __init__(self, port, note):
        self._port = port
        self._note = note
        self._running = False

    def __enter__(self):
        try:
            self._link = link = SerialTransport(self._port, timeout=_WAIT)
        except (TransportError, OSError, ValueError):  # pyserial's are OSErrors
            raise Problem(
                "%s cannot be opened: there is no such port, it is in use, or you may not use it."
                % self._port
            ) from None
        self._serial: Any = link.serial
        try:
            self._serial.write_timeout = _WAIT
            # A prompt answers an empty line; a program does not.
            self._drain()
            self._serial.write(b"\r")
            prompt = link.read_until(1, b">>> ", timeout=1, timeout_overall=2)
            self._running = not prompt.endswith(b">>> ")
            for _ in range(3):  # a program may catch the first Ctrl-C, to stop its watchdog
                try:
                    link.enter_raw_repl(soft_reset=False, timeout_overall=3)
                    break
                except TransportError:
                    pass
            else:
                raise TransportError("no prompt")
            return self
        except BaseException:
            self._close()
            raise

    def __exit__(self, kind, *args):
        try:
            if kind:
                self._serial.write(b"\r\x03")  # it may be amid what it was told to do
            self._link.exit_raw_repl()
            if self._running:
                self._link.read_until(1, b">>> ", timeout=2, timeout_overall=4)
                self._serial.write(b"\x04")  # a soft reset runs boot.py and main.py
                self._link.read_until(1, b"soft reboot", timeout=2, timeout_overall=4)
                self._note("the board's program was interrupted; it has been started again.")
        except (TransportError, OSError):
            if kind is None:
                raise
        finally:
            self._close()

    def _close(self):
        socket = getattr(self._serial, "_socket", None)
        with contextlib.suppress(OSError):
            self._link.close()
        if socket:  # pyserial leaves one open that the other end has closed
            socket.close()

    def _drain(self):
        end = time.monotonic() + 1  # a board that prints without end
        while self._serial.inWaiting() and time.monotonic() < end:
            self._serial.read(self._serial.inWaiting())

    def _run(self, code, most):
        """Run `code` on the board; return what it printed, at most so many bytes, as lines."""
        output = bytearray()
        end = time.monotonic() + _WAIT + most / _SLOWEST

        def take(data):
            output.extend(data)
            if len(output) > most or time.monotonic() > end:
                raise TransportError("too much, or too slow")

        _, error = self._link.exec_raw(code, _WAIT, take)
        if error:
            raise TransportError(error.decode("utf-8", "replace"))
        return output.replace(b"\x04", b"").decode("ascii").splitlines()

    def pull(self, path):
        """Return the files of the log at `path` on the board: {name below it: bytes}."""
        files = {}
        self._run(_PROLOGUE, 1000)
        for line in self._run(_LIST % (_FOLDERS, path), 1 << 20):
            if line.isdigit():
                raise Problem("%s: there is no such folder on the board." % path)
            name = line[1:-1]
            if "\\" in name or name.count("/") > 2 or ".." in name:
                continue  # a stranger's
            *lines, check = self._run(_READ % (path + name), _MOST)
            data = b"".join(map(binascii.a2b_base64, lines))
            if check != "= %d" % binascii.crc32(data):
                raise TransportError("garbled")
            files[name] = data
        return files
