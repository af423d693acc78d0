"""
Reads a sensor, keeps each reading on flash, and sends them when there is a link.

Yours to edit: your sensor goes into read(), the rest is in settings.json.
"""

import sys
import time

import board
import settings
from clock import Clock
from wifi import Wifi


def read():
    """Return a reading, a dict. The time is added to it, as "ts"."""
    return {"celsius": board.celsius()}


def main():
    wifi = Wifi(
        config["wifi_ssid"], config["wifi_password"], config["wifi_country"], config["device"]
    )
    clock = Clock(config["ntp_host"])
    cache = settings.open_cache(
        config, online=wifi.is_connected, on_event=wifi.on_event, feed=wdt.feed
    )
    print("%s: %d readings wait on flash" % (config["device"], len(cache)))
    period = int(config["every"] * 1000)
    due = time.ticks_ms()
    failed = 0
    while True:
        wdt.feed()
        try:
            now = time.ticks_ms()
            late = time.ticks_diff(now, due)
            if late >= 0:
                due = time.ticks_add(now if late > period else due, period)
                reading = read()
                if failed and isinstance(reading, dict):
                    reading["failed"] = failed
                number = cache.add_request(reading)  # on flash when this returns
                print("stored %d, %d waiting" % (number, len(cache)))
            clock.poll(wifi.poll())
            cache.poll()
        except Exception as e:  # a loose wire is no reason to end
            failed += 1
            sys.print_exception(e)
        time.sleep_ms(100)


config = settings.load()
print("Starts in 3 s: until then Ctrl-C finds no watchdog running.")
time.sleep(3)
wdt = board.Watchdog(config["watchdog"])
try:
    main()
except KeyboardInterrupt:
    wdt.stop()  # somebody is at the console: no reset under their hands
    raise
