"""
Log this machine's load, memory and temperature ten times a second, and lose no reading.

    PYTHONPATH=lib python3 examples/logger.py http://server/readings cache
    MICROPYPATH=lib:.frozen micropython examples/logger.py http://server/readings cache

The same file for both. Each reading is on disk when add_request returns, so the program may be
killed at any moment and started again, and the server may be away. Enter, or the end of standard
input, stops it. A third argument is the number of the first reading (1).
"""

import os
import select
import sys
import time

from postcache import POSTCache

PERIOD = 100  # ms from one reading to the next


def read(path):
    """Return the text of a file, "" if this machine has none there."""
    try:
        with open(path) as f:
            return f.read()
    except OSError:
        return ""


def measure(n):
    """Return reading number `n`: a dict of what this machine can tell about itself."""
    reading = {"n": n, "time": time.time()}
    load = read("/proc/loadavg")
    if load:
        reading["load"] = float(load.split()[0])
    elif hasattr(os, "getloadavg"):
        reading["load"] = os.getloadavg()[0]
    for line in read("/proc/meminfo").split("\n"):
        if line.startswith("MemAvailable:"):
            reading["memory_kib"] = int(line.split()[1])
    temperature = read("/sys/class/thermal/thermal_zone0/temp")
    if temperature:
        reading["cpu_celsius"] = int(temperature) / 1000
    return reading


def deliver(cache):
    """Try for some seconds to deliver what still waits; what remains stays safe on disk."""
    for _ in range(20):
        if cache.flush(1):
            return True
        time.sleep(0.5)
    return False


def main(url, folder, n=1):
    """Log until standard input says stop; return the exit status."""
    n = int(n)
    stop = select.poll()
    stop.register(sys.stdin, select.POLLIN)
    # A short timeout: under MicroPython, which sends inside add_request, a server that hangs
    # holds up the next reading for so long. Small batches: a slow link has many chances.
    with POSTCache(url, folder, async_interval=0.5, upload_limit=10, timeout=1) as cache:
        while not stop.poll(PERIOD):
            seq = cache.add_request(measure(n))
            # Only now does anybody hear of this reading: from here on it can not be lost.
            print("stored %d %d" % (seq, n))
            n += 1
        if not deliver(cache):
            print("%d readings wait on disk for the next start" % len(cache))
            return 1
    return 0


if len(sys.argv) < 3:
    print("usage: logger.py http://server/path folder [number of the first reading]")
    sys.exit(2)
sys.exit(main(*sys.argv[1:]))
