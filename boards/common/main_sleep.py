"""
For batteries: wakes, reads a sensor, keeps the reading on flash, and sleeps again.

Wi-Fi is turned on with each sixth reading ("wakes_per_send"), for 20 s at most ("awake"), and
whatever does not get through in that time waits for the next. Yours to edit: your sensor goes into
read(), the rest is in settings.json.
"""

import os
import sys
import time

import board
import settings
from clock import Clock
from wifi import Wifi


def read():
    """Return a reading, a dict. The time is added to it, as "ts"."""
    return {"celsius": board.celsius()}


def send(cache, wifi):
    """Connect, set the clock and deliver what waits, within "awake" seconds."""
    clock = Clock(config["ntp_host"])
    end = time.ticks_add(time.ticks_ms(), int(config["awake"] * 1000))
    while time.ticks_diff(end, time.ticks_ms()) > 0:
        wdt.feed()
        if wifi.poll():
            clock.poll(True)
            left = time.ticks_diff(end, time.ticks_ms())
            cache.flush(max(1, left / 1000))
            return
        time.sleep_ms(50)


def main():
    wifi = Wifi(
        config["wifi_ssid"], config["wifi_password"], config["wifi_country"], config["device"]
    )
    number = os.urandom(1)[0]  # without a reading the lot decides when to send
    try:
        cache = settings.open_cache(
            config, online=wifi.is_connected, on_event=wifi.on_event, feed=wdt.feed
        )
        try:
            number = cache.add_request(read())  # on flash when this returns
            print("stored %d, %d waiting" % (number, len(cache)))
        except Exception as e:  # a loose wire, or flash that is full until something is sent
            sys.print_exception(e)
        if not woke or number % max(1, int(config["wakes_per_send"])) == 0:
            send(cache, wifi)
    except Exception as e:  # nothing may keep the board awake
        sys.print_exception(e)
    wifi.off()


begun = time.ticks_ms()
woke = board.woke()
config = settings.load()
if not woke:
    print("Switched on: starts in 10 s, for Ctrl-C. Out of deep sleep it starts at once.")
    time.sleep(10)
wdt = board.Watchdog(config["watchdog"])
try:
    main()
except KeyboardInterrupt:
    wdt.stop()  # somebody is at the console: no reset under their hands
    raise
wdt.stop()
board.deepsleep(max(1000, int(config["every"] * 1000) - time.ticks_diff(time.ticks_ms(), begun)))
