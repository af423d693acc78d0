"""
The same as main.py in an event loop, beside something else: here, a light that blinks.

It goes on blinking while a server is slow. Yours to edit: your sensor goes into read(), your own
tasks beside blink(), the rest is in settings.json.
"""

import asyncio
import sys
import time

import board
import machine
import settings
from clock import Clock
from wifi import Wifi


def read():
    """Return a reading, a dict. The time is added to it, as "ts"."""
    return {"celsius": board.celsius()}


async def readings(cache):
    failed = 0
    while True:
        try:
            reading = read()
            if failed and isinstance(reading, dict):
                reading["failed"] = failed
            number = cache.add_request(reading)  # on flash when this returns
            print("stored %d, %d waiting" % (number, len(cache)))
        except Exception as e:  # a loose wire is no reason to end
            failed += 1
            sys.print_exception(e)
        await asyncio.sleep(config["every"])


async def link(wifi, clock):
    while True:
        wdt.feed()  # as long as the loop goes round
        try:
            clock.poll(wifi.poll())
        except Exception as e:
            sys.print_exception(e)
        await asyncio.sleep_ms(200)


async def blink():
    led = machine.Pin(board.LED, machine.Pin.OUT)
    while True:
        led.value(not led.value())
        await asyncio.sleep_ms(500)


async def main():
    wifi = Wifi(
        config["wifi_ssid"], config["wifi_password"], config["wifi_country"], config["device"]
    )
    cache = settings.open_cache(
        config, online=wifi.is_connected, on_event=wifi.on_event, feed=wdt.feed
    )
    print("%s: %d readings wait on flash" % (config["device"], len(cache)))
    tasks = readings(cache), link(wifi, Clock(config["ntp_host"])), cache.run(), blink()
    await asyncio.gather(*tasks)


config = settings.load()
print("Starts in 3 s: until then Ctrl-C finds no watchdog running.")
time.sleep(3)
wdt = board.Watchdog(config["watchdog"])
try:
    asyncio.run(main())
except KeyboardInterrupt:
    wdt.stop()  # somebody is at the console: no reset under their hands
    raise
