"""Sets the board's clock by NTP: when there is a link, and then once a day."""

import time

from micropython import const

_DAY = const(86400000)  # ms
_FIRST = const(15000)  # ms from a failed try to the next; doubles with each ...
_LONGEST = const(3600000)  # ... up to this


class Clock:
    """
    A clock that poll() sets.

    Args:
        host: str, the time server; None leaves the clock alone.
    """

    def __init__(self, host):
        self._host = host
        self._since = time.ticks_ms()
        self._wait = 0
        self._pause = _FIRST

    def poll(self, online):
        """
        Set the clock if it is time, and there is a link: `online`, a bool.

        Returns True if it was set. Takes a second at most, and as long as the look-up of the
        server's name, which nothing can interrupt.
        """
        now = time.ticks_ms()
        if not self._host or time.ticks_diff(now, self._since) < self._wait:
            return False
        self._since = now
        if not online:
            self._wait = 0  # due from now on: past six days ticks_diff() would say the contrary
            return False
        try:
            import ntptime

            ntptime.host = self._host
            ntptime.settime()
        except Exception as e:  # whatever such a packet may do
            print("NTP:", type(e).__name__, e)
            self._wait = self._pause
            self._pause = min(2 * self._pause, _LONGEST)
            return False
        print("NTP: %04d-%02d-%02d %02d:%02d:%02d UTC" % time.gmtime()[:6])
        self._wait = _DAY
        self._pause = _FIRST
        return True
