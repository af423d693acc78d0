"""
`network` with the habits of the board's own radio.

A Pico W tries once, and says by a negative status why that failed. An ESP32 tries again and again
until it is told to stop, refuses to be told twice, and has positive numbers for everything.
"""

import world

STA_IF = 0
_ESP32 = world.board == "esp32"
_JOIN = 1800  # ms until there is an address
_FIND_OUT = 3000  # ms until a radio knows that it can not


def country(code):
    if len(code) != 2:
        raise ValueError


def hostname(name):
    if len(name) > 32:
        raise ValueError


class WLAN:
    def __init__(self, interface):
        assert interface == STA_IF
        self._active = self._wanted = self._up = False
        self._failure = 0  # what a Pico W will say of this try
        self._since = 0
        world.calls["link"] = self._changed

    def _changed(self, link):
        if not link:
            self._up = False
            self._failure = -1  # a Pico W does not look again

    def _look(self):
        if self._wanted and not self._up and world.now - self._since >= _JOIN:
            self._up = not self._obstacle() and (_ESP32 or not self._failure)

    def _obstacle(self):
        if not world.state["link"]:
            return 201 if _ESP32 else -2  # no access point found
        if world.state["password"] != self._key:
            return 202 if _ESP32 else -3  # wrong password
        return 0

    def _power(self):
        # On a Pico W whatever is asked of the chip switches it on first (cyw43_ensure_up).
        if not world.radio:
            world.log("[%d] radio on" % world.at())
            world.radio = True

    def active(self, on):
        world.spend(300)
        if on or not _ESP32:
            self._power()
        else:
            world.radio = False
        if not on:
            self._up = False
            self._wanted = self._wanted and _ESP32  # it means to go on as soon as it is on again
        self._active = on

    def connect(self, ssid, key):
        if not self._active:
            raise OSError("Wifi Not Started")
        if _ESP32 and self._wanted:
            raise OSError("Wifi Internal State Error")
        self._key = key
        self._wanted = True
        self._since = world.now
        self._failure = self._obstacle()

    def disconnect(self):
        if _ESP32 and not self._active:
            raise OSError("Wifi Not Started")
        if not _ESP32:
            self._power()
        self._up = self._wanted = False

    def isconnected(self):
        self._look()
        return self._up

    def status(self):
        self._look()
        if self._up:
            return 1010 if _ESP32 else 3
        if not self._wanted:
            return 1000 if _ESP32 else 0
        if world.now - self._since < _FIND_OUT:
            return 1001 if _ESP32 else 1
        return self._obstacle() or 1001 if _ESP32 else self._failure

    def ifconfig(self):
        return ("10.0.0.7", "255.255.255.0", "10.0.0.1", "10.0.0.1")

    if not _ESP32:

        def deinit(self):
            self._active = self._up = self._wanted = world.radio = False
