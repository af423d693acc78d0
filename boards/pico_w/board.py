"""What is particular to a Pico W and a Pico 2 W: their temperature, watchdog and deep sleep."""

import sys
import time

import machine
from micropython import const

LED = "LED"

# Registers of the chip's watchdog; see "Watchdog" in the datasheets of RP2040 and RP2350.
_WATCHDOG = 0x400D8000 if "RP2350" in sys.implementation._machine else 0x40058000
_CLEAR = const(0x3000)  # the same registers, for clearing single bits
_ENABLE = const(1 << 30)  # in the first of them
_DUE = const(0x0C)  # scratch registers 0 and 1 outlive a reset, and no power cut;
_MARK = const(0x10)  # neither the firmware nor the boot ROM uses them
_MAGIC = const(0x52454144)


def celsius():
    """Return the temperature of the chip; without calibration it is off by several degrees."""
    volts = machine.ADC(machine.ADC.CORE_TEMP).read_u16() * 3.3 / 65535
    return round(27 - (volts - 0.706) / 0.001721, 1)


class Watchdog:
    """
    Resets the board when feed() has not been called for a minute.

    The chip's own watchdog waits for 8.3 s at most, and a name look-up can take longer, in which
    nobody calls feed(). So a timer feeds that one, for a minute after the last feed(). When the
    chip itself hangs there is no timer any more, and it bites after 8 s.

    Args:
        on: bool; False makes one that does nothing.
    """

    def __init__(self, on):
        self._left = 30
        self._timer = None
        if on:
            self._wdt = machine.WDT(timeout=8000)
            self._timer = machine.Timer(period=2000, callback=self._tick)

    def _tick(self, timer):
        if self._left > 0:
            self._left -= 1
            self._wdt.feed()

    def feed(self):
        self._left = 30

    def stop(self):
        """Let nothing bite from now on, by the chip's own switch, which MicroPython has not."""
        if self._timer:
            machine.mem32[_WATCHDOG + _CLEAR] = _ENABLE
            self._timer.deinit()


def woke():
    """
    Return True if the board comes out of deepsleep(), not from power-on or a reset.

    Sets the clock then: on this chip it does not go on by itself.
    """
    due = machine.mem32[_WATCHDOG + _DUE]
    mark = machine.mem32[_WATCHDOG + _MARK]
    machine.mem32[_WATCHDOG + _MARK] = 0
    if mark != due ^ _MAGIC:
        return False
    if due:
        now = time.gmtime(due)
        machine.RTC().datetime(now[:3] + (now[6],) + now[3:6] + (0,))
    return True


def deepsleep(ms):
    """
    Sleep, and start anew: RAM is lost.

    Not by machine.deepsleep(): on a Pico W that may return from its sleep at once, see
    https://github.com/micropython/micropython/issues/17204, and with a sleep of more than 71
    minutes it fails. Stop the watchdog first.
    """
    due = 0
    if time.gmtime()[0] >= 2025:
        # The clock will be set to a whole second: sleep to the beginning of one.
        now = time.time_ns() // 1000000
        due = (now + ms + 999) // 1000
        ms = due * 1000 - now
    end = time.ticks_add(time.ticks_ms(), ms)
    while True:
        left = time.ticks_diff(end, time.ticks_ms())
        if left <= 0:
            # Not before: a reset after Ctrl-C would set the clock to what has long passed.
            machine.mem32[_WATCHDOG + _DUE] = due
            machine.mem32[_WATCHDOG + _MARK] = due ^ _MAGIC
            machine.reset()
        machine.lightsleep(min(left, 3600000))
        time.sleep_ms(5)  # time for Ctrl-C, and for the radio to finish what kept it awake
