"""`time` of a board: its clock is the world's, and to sleep takes no time."""

import utime
import world
from utime import ticks_add, ticks_diff  # noqa: F401

# For what is to be done at once asyncio gets the time from C: it must not lie in the future.
_base = utime.ticks_ms()


def ticks_ms():
    return ticks_add(_base, world.now)


def sleep_ms(ms):
    world.spend(max(0, ms))


def sleep(seconds):
    sleep_ms(int(seconds * 1000))


def time():
    return world.clock_ms() // 1000 - world.epoch


def time_ns():
    return (world.clock_ms() - world.epoch * 1000) * 1000000


def gmtime(seconds=None):
    # 2000 on an ESP32, 1970 on a Pico: gmtime(0) says which.
    return utime.gmtime((time() if seconds is None else seconds) + world.epoch)


localtime = gmtime
