"""What is particular to an ESP32: its temperature, watchdog and deep sleep."""

import esp32
import machine

LED = 2  # the pin of the blue LED on most ESP32 DevKits; others differ


def celsius():
    """Return the temperature of the chip; the classic ESP32's sensor is off by several degrees."""
    if hasattr(esp32, "mcu_temperature"):  # S2, S3, C3, C6
        return esp32.mcu_temperature()
    return round((esp32.raw_temperature() - 32) / 1.8, 1)  # it speaks Fahrenheit


class Watchdog:
    """
    Resets the board when feed() has not been called for a minute.

    A minute, since a name look-up and the handshake of https:// can take tens of seconds, in which
    nobody can feed it.

    Args:
        on: bool; False makes one that does nothing.
    """

    def __init__(self, on):
        self._wdt = machine.WDT(timeout=60000) if on else None

    def feed(self):
        if self._wdt:
            self._wdt.feed()

    def stop(self):
        """Let nothing bite from now on: this chip's watchdog has no off, so a timer feeds it."""
        if self._wdt:
            machine.Timer(0, period=10000, callback=lambda timer: self.feed())


def woke():
    """Return True if the board comes out of deepsleep(), not from power-on or a reset."""
    return machine.reset_cause() == machine.DEEPSLEEP_RESET


def deepsleep(ms):
    """Sleep, and start anew: RAM is lost, the clock goes on."""
    machine.deepsleep(ms)
