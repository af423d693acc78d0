"""Keeps Wi-Fi connected while the program goes on, for ESP32 and Pico W."""

import time

import network
from micropython import const

_DEADLINE = const(20000)  # ms for one try, address by DHCP included
_FIRST = const(5000)  # ms from a failed try to the next; doubles with each ...
_LONGEST = const(300000)  # ... up to this
_SICK = const(600000)  # ms without an answer, on a link that says it is up

_OFF = const(0)
_TRYING = const(1)
_UP = const(2)


class Wifi:
    """
    A link that poll() makes, watches and makes again.

    Each try begins with the radio switched off and on: on both chips that cures what nothing else
    does. Between failed tries it stays off, to save power, for longer and longer.

    Args:
        ssid: str; "" for none: poll() does nothing then.
        password: str; "" for an open network.
        country: str, two letters, or "".
        hostname: str, the name that the router shows.
    """

    def __init__(self, ssid, password, country="", hostname=""):
        self._ssid = ssid
        self._password = password
        self._state = _OFF
        self._since = time.ticks_ms()
        self._wait = 0  # ms to stay off
        self._pause = _FIRST
        self._sick = None  # ticks since which no try to send got an answer
        try:
            if country:
                network.country(country)
            if hostname:  # letters, digits and hyphens, 32 at most
                name = [c if c.isdigit() or c.isalpha() else "-" for c in hostname[:32]]
                network.hostname("".join(name))
        except ValueError as e:
            print("Wi-Fi:", e)
        self._wlan = None  # until it is needed: an ESP32 starts its driver for it

    def is_connected(self):
        """Return True while there is a link and an address: `online=` of POSTCache."""
        return bool(self._wlan and self._wlan.isconnected())

    def on_event(self, kind, detail):
        """
        Print what POSTCache tells, and hear from it whether the link carries anything.

        A Pico W can say that it is connected when its access point has forgotten it:
        https://github.com/raspberrypi/pico-sdk/issues/2153
        """
        print("postcache:", kind, detail)
        if kind in ("error", "recovered"):
            error = detail["error"] or ""
            # Refused and reset are answers, too; "offline" is no link, and that poll() sees.
            if error[:7] != "OSError" or error[8:] in ("104", "111"):
                self._sick = None
            elif self._sick is None:
                self._sick = time.ticks_ms()

    def poll(self):
        """
        Do what is due, if anything; call it every second or more often.

        Returns True while there is a link. Nothing waits for it here: the longest step, switching
        the radio on, takes about a second on a Pico W.
        """
        if not self._ssid:
            return False
        now = time.ticks_ms()
        age = time.ticks_diff(now, self._since)
        try:
            wlan = self._wlan = self._wlan or network.WLAN(network.STA_IF)
            if wlan.isconnected():
                if self._state != _UP:
                    self._enter(_UP)
                    self._pause = _FIRST
                    self._sick = None
                    print("Wi-Fi: connected,", wlan.ifconfig()[0])
                if self._sick is None or time.ticks_diff(now, self._sick) < _SICK:
                    return True
                print("Wi-Fi: connected, but no answer comes: again")
                self.off()
            elif self._state == _UP:
                print("Wi-Fi: lost")
                self.off()
            elif self._state == _TRYING:
                # Below 0: a Pico W has given up. An ESP32, above, goes on trying by itself.
                if age >= _DEADLINE or wlan.status() < 0:
                    print("Wi-Fi: no link, status", wlan.status())
                    self._fail()
            elif age >= self._wait:
                self._enter(_TRYING)
                wlan.active(True)
                wlan.connect(self._ssid, self._password or None)
        except (OSError, RuntimeError) as e:
            print("Wi-Fi:", e)
            self._fail()
        return False

    def off(self):
        """Switch the radio off; the next poll() begins anew."""
        wlan = self._wlan
        if wlan:  # else it was never on; to disconnect() it a Pico W would switch it on
            # On a Pico W active(False) leaves the chip on power, and deinit() does not.
            for step in (
                wlan.disconnect,
                lambda: wlan.active(False),
                getattr(wlan, "deinit", int),
            ):
                try:
                    step()
                except (OSError, RuntimeError):
                    pass  # off already
        self._sick = None
        self._wait = 0
        self._enter(_OFF)

    def _fail(self):
        self.off()
        self._wait = self._pause
        self._pause = min(2 * self._pause, _LONGEST)

    def _enter(self, state):
        self._state = state
        self._since = time.ticks_ms()
