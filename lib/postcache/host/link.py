"""
The link to a board with MicroPython: its serial port, or what stands for one, and its raw REPL.

mpremote's SerialTransport opens the port and speaks the raw REPL's protocol. What is added here: a
deadline for every wait, which for a board that is at work counts from the last byte heard; values
that the board tells, whatever else is printed meanwhile; and files, compared by a checksum.
"""

import ast
import binascii
import contextlib
import io
import socket
import struct
import time
from typing import Any

from . import BoardError, Problem

try:
    from mpremote.transport import TransportError
    from mpremote.transport_serial import SerialTransport
    from serial.tools import list_ports
except ImportError:
    raise Problem("Boards need the package mpremote: pip install 'postcache[board]'.") from None

# What a Link raises when the board is gone, or what is there does not talk as MicroPython does.
LOST = (TransportError, OSError, struct.error)

_MARK = b"\x1e"  # begins a value in what the board prints; tell() below has it, too
_MOST = 64 << 20  # bytes that the board may print for one command; no board has a longer file
_SLOWEST = 2000  # bytes a second: what comes more slowly is given up
_FLUSH = 0.2  # s for what has been printed before; a board may print without end

# Runs on the board, where tell(value) prints "\x1e" and the value's repr(), on a line of its own.
_READ = """
import binascii
with open(%r, "rb") as file:
    check = 0
    while True:
        piece = file.read(384)
        if not piece:
            break
        check = binascii.crc32(piece, check)
        tell(binascii.b2a_base64(piece))
tell(check)
"""


def usb_ports():
    """Return what pyserial knows of each serial port that is on USB, sorted."""
    return [port for port in sorted(list_ports.comports()) if port.vid is not None]


class Garbled(TransportError):
    """What came is not what the board was asked to tell."""


class Link(SerialTransport):
    """
    An open port to a board.

    Args:
        port: str, as pyserial takes it.
        quiet: seconds without a byte before a board that is at work is given up.

    Attribute: `heard`, whether anything has ever come.

    All methods raise what LOST lists.
    """

    serial: Any  # pyserial's; mpremote has others in its place at times, which are not used here
    heard = False

    def __init__(self, port, quiet):
        super().__init__(port, timeout=quiet)
        self.quiet = quiet
        self.serial.write_timeout = quiet
        # pyserial's own, for socket:// ports, and the only way to two things that it does not do.
        self._socket = getattr(self.serial, "_socket", None)
        if self._socket:  # mpremote writes in small pieces; TCP would wait 40 ms with each second
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self):
        """Close the port, whatever has become of it; raises nothing."""
        with contextlib.suppress(OSError):
            super().close()
        with contextlib.suppress(OSError):
            self.serial.close()
        if self._socket:  # pyserial leaves one open that the other end has closed
            self._socket.close()

    def read_until(
        self, min_num_bytes, ending, timeout=None, data_consumer=None, timeout_overall=None
    ):
        """
        Return what has come when that ends with `ending`, or when there is no more time.

        Args:
            timeout: seconds without a byte; None for `quiet`.
            timeout_overall: seconds in all; None for any number.
            data_consumer: callable, given each byte; the last one alone is returned then.
        """
        # mpremote's own looks every 10 ms, which is most of the time of a short command, and
        # copies all that it has for each byte; and it has no end while something comes.
        timeout = self.quiet if timeout is None else timeout
        always = getattr(self, "is_pty", False)  # a pseudo-terminal; older versions know of none
        data = bytearray()
        begin = last = time.monotonic()
        while not data.endswith(ending):
            byte = self.serial.read(1) if always or self.serial.in_waiting else b""
            now = time.monotonic()
            if byte:
                if data_consumer:
                    data_consumer(byte)
                    data.clear()
                data += byte
                last = now
                self.heard = True
            elif now >= last + timeout:
                break
            if timeout_overall and now >= begin + timeout_overall:
                break
            if not byte:
                time.sleep(0.001)
        return bytes(data)

    def at_prompt(self):
        """Return whether the board waits at its prompt: that answers an empty line at once."""
        self._flush()
        self.serial.write(b"\r")
        return self.read_until(1, b">>> ", 1, timeout_overall=2).endswith(b">>> ")

    def enter_raw_repl(self, soft_reset=True, timeout_overall=None):
        """Interrupt what runs, by Ctrl-C, and get the raw REPL; by a soft reset if that is set."""
        # mpremote's own prints what it did not expect, and has no end while something comes.
        self.interrupt()
        self._flush()
        self.serial.write(b"\r\x01")
        banner = b"raw REPL; CTRL-B to exit\r\n"
        steps = [(banner + b">", b"\x04"), (b"soft reboot\r\n", b"")] if soft_reset else []
        for ending, answer in (*steps, (banner, b"")):
            overall = timeout_overall or self.quiet
            if not self.read_until(1, ending, timeout_overall=overall).endswith(ending):
                raise TransportError("no raw REPL")
            self.serial.write(answer)
        self.in_raw_repl = True

    def interrupt(self):
        """Press Ctrl-C."""
        self.serial.write(b"\r\x03")

    def start_over(self):
        """Leave the raw REPL by a soft reset: boot.py and main.py run."""
        self.exit_raw_repl()
        self.read_until(1, b">>> ", 2, timeout_overall=4)
        self.serial.write(b"\x04")
        self.read_until(1, b"soft reboot", 2, timeout_overall=4)

    def _flush(self):
        end = time.monotonic() + _FLUSH
        while self.serial.in_waiting and time.monotonic() < end:
            self.serial.read(self.serial.in_waiting)

    def told(self, code, most=_MOST):
        """
        Run `code` on the board, in the raw REPL; return the values that it told, a list.

        Args:
            most: bytes that it may print.

        Raises BoardError when it ends by an exception.
        """
        output = bytearray()
        end = time.monotonic() + self.quiet + most / _SLOWEST

        def take(data):
            output.extend(data)
            if len(output) > most or time.monotonic() > end:
                raise TransportError("too much, or too slow")

        with contextlib.redirect_stdout(io.StringIO()):  # mpremote may print what it heard
            _, error = self.exec_raw(code, self.quiet, take)
        if error:
            raise BoardError(error.decode("utf-8", "replace"))
        try:
            return [
                ast.literal_eval(line.partition(_MARK)[2].decode())
                for line in output.replace(b"\x04", b"").splitlines()
                if _MARK in line  # after what a timer of the program's prints, perhaps
            ]
        except (ValueError, SyntaxError):
            raise Garbled("no value") from None

    def read(self, path):
        """Return the content of a file, bytes; the board has to have a function tell()."""
        *pieces, check = self.told(_READ % path) or [None]
        try:
            data = b"".join(map(binascii.a2b_base64, pieces))
        except (TypeError, ValueError):
            data = None
        if data is None or check != binascii.crc32(data):
            raise Garbled("another checksum")
        return data
