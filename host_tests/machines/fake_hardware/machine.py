"""`machine` of an ESP32 or a Pico W, as far as the programs in boards/ go."""

import utime
import world

PWRON_RESET = 1
WDT_RESET = 3
_causes = {"power": 1, "reset": 3, "watchdog": 3}
if world.board == "esp32":
    DEEPSLEEP_RESET = 4
    _causes = {"power": 1, "reset": 2, "watchdog": 3, "deepsleep": 4}


def reset_cause():
    return _causes[world.state["cause"]]


def unique_id():
    return b"\xe6\x61\x38\x25\x17"


def reset():
    world.log("[reset]")
    world.die("reset", 0)


def deepsleep(ms):
    if world.board == "pico_w":
        raise AssertionError("not to be used on a Pico W")
    world.log("[deepsleep %d]" % ms)
    world.watchdog = None  # it does not run there
    world.timers.clear()
    world.spend(ms)
    world.die("deepsleep", 0)


def lightsleep(ms):
    if ms >= 4294967:
        raise ValueError("sleep too long")
    assert not world.radio  # it would return at once
    world.spend(min(ms, 60000))  # it may be woken too early


class _Registers:
    def __getitem__(self, address):
        return world.state["registers"].get(str(address), 0)

    def __setitem__(self, address, value):
        assert 0 <= value < 1 << 32
        if address == 0x40058000 + 0x3000:
            assert value == 1 << 30
            world.watchdog = None
        else:
            world.state["registers"][str(address)] = value


if world.board == "pico_w":
    mem32 = _Registers()


class WDT:
    def __init__(self, *, timeout=5000):
        if world.board == "pico_w" and timeout > 8388:
            raise ValueError("timeout exceeds 8388")
        world.watchdog = [timeout, world.now]

    def feed(self):
        if world.watchdog:
            world.watchdog[1] = world.now


class Timer:
    PERIODIC = 1
    ONE_SHOT = 0

    def __init__(self, number=-1, **kwargs):
        if (number == -1) != (world.board == "pico_w"):
            raise ValueError("Timer doesn't exist")
        self._entry = None
        if kwargs:
            self.init(**kwargs)

    def init(self, *, mode=PERIODIC, period, callback):
        self.deinit()
        once = mode == self.ONE_SHOT
        self._entry = [world.now + period, 0 if once else period, lambda: callback(self)]
        world.timers.append(self._entry)

    def deinit(self):
        world.timers[:] = [e for e in world.timers if not self._entry or e[2] != self._entry[2]]


class RTC:
    def datetime(self, when):
        year, month, day, weekday, hour, minute, second, _ = when
        seconds = utime.mktime((year, month, day, hour, minute, second, weekday, 0))
        world.state["clock"] += seconds * 1000 - world.clock_ms()


class ADC:
    CORE_TEMP = 4

    def __init__(self, channel):
        assert channel == self.CORE_TEMP

    def read_u16(self):
        if not world.state["sensor"]:
            raise OSError(5)
        return 14019  # 27.0 degC, by the datasheet


class Pin:
    OUT = 1

    def __init__(self, name, mode):
        assert name == ("LED" if world.board == "pico_w" else 2)
        self._value = 0

    def value(self, *args):
        if args:
            self._value = int(args[0])
            world.log("[%d] led %d" % (world.at(), self._value))
        return self._value
