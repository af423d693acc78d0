"""
A world for the programs in boards/, in which time passes only while somebody waits.

Whoever sleeps, or polls and finds nothing, moves the clock; so a day takes a minute, and it is the
program alone, not the load of this machine, that decides whether a watchdog bites. Sockets, the
log and its littlefs are real.

The world outlives a boot of the board in the file `state`, JSON:

    ms         virtual ms since the world began
    events     [[ms, name, value], ...], sorted: what will happen; see `happen`
    link, password, server, sensor, ntp   as the last such event left them
    cause      of the next reset: "power", "reset", "deepsleep", "watchdog"
    clock      ms that the board's clock is ahead of the world's, or None: not set
    registers  {"address": value}: what outlives a reset
    erases     of a block of the flash, so far
    cut        writes to flash until the power fails in the middle of one; 0 for never
"""

import json
import os

import ffi

BEGIN = 1763683200000  # ms since 1970 when the world began: 2025-11-21
EPOCHS = {"esp32": 946684800, "pico_w": 0}  # where the board's time.time() begins
AWAY = {"esp32": 946684800, "pico_w": 1609459200}  # what a clock says that nobody has set

board = os.getenv("FAKE_BOARD")
epoch = EPOCHS[board]
_exit = ffi.open(None).func("v", "_exit", "i")

now = 0  # ms since this boot
calls = {}  # {name: function(value)}, called when the event of this name happens
timers = []  # [due, period or 0, function]
watchdog = None  # [timeout, fed]
radio = False  # whether it has power
log = print
_path = None
state = {}
_begun = 0


def load(path):
    """Begin a boot with the world as `path` has it."""
    global _path, _begun, state
    _path = path
    with open(path) as f:
        state = json.load(f)
    _begun = state["ms"]
    if state["cause"] == "power":
        state["registers"] = {}
    if state["cause"] == "power" or board == "pico_w" or state["clock"] is None:
        state["clock"] = AWAY[board] * 1000 - BEGIN - _begun
    save()


def save():
    state["ms"] = _begun + now
    with open(_path, "w") as f:
        json.dump(state, f)


def die(cause, code):
    """End this boot, as nothing but the power and a reset do."""
    state["cause"] = cause
    save()
    _exit(code)


def happen(name, value):
    if name == "kill":
        log("[%d] power cut" % at())
        die("power", 137)
    if name == "stop":
        save()
        raise KeyboardInterrupt
    state[name] = value
    if name in calls:
        calls[name](value)


def at():
    """Return the ms since the world began."""
    return _begun + now


def clock_ms():
    """What the board's own clock says, ms since 1970."""
    return BEGIN + at() + state["clock"]


def spend(ms):
    """Let `ms` pass, with all that is due in them."""
    global now
    end = now + ms
    while True:
        # The watchdog goes first: who is late by a moment is late.
        due = end
        what = None
        if watchdog and watchdog[0] + watchdog[1] < due:
            due = watchdog[0] + watchdog[1]
            what = watchdog
        if timers and min(timers)[0] < due:
            due = min(timers)[0]
            what = min(timers)
        events = state["events"]
        if events and events[0][0] - _begun < due:
            due = max(now, events[0][0] - _begun)
            what = events
        now = due
        if what is None:
            return
        if what is watchdog:
            log("[%d] THE WATCHDOG BITES" % at())
            die("watchdog", 99)
        if what is events:
            _, name, value = events.pop(0)
            happen(name, value)
        else:
            timers.remove(what)
            if what[1]:
                timers.append([due + what[1], what[1], what[2]])
            what[2]()


def cut_in_write():
    """Count a write to flash; True when the power fails in the middle of this one."""
    state["cut"] -= 1
    return state["cut"] == 0
