"""
A logger for the tests to kill: adds numbered records until it dies, and says which were stored.

    logger.py add URL PATH FIRST INTERVAL LIMIT     adds records from number FIRST on, for ever
    logger.py drain URL PATH 0 INTERVAL LIMIT       adds nothing, delivers what waits, then ends

INTERVAL: async_interval in seconds, 0 for None. LIMIT: upload_limit.
Prints "open", then "stored N SEQ" for each record, when add_request has returned, then "empty".
"""

import sys

from postcache import POSTCache

# From a few bytes to just below MicroPython's longest record, so that segments roll.
SIZES = (0, 30, 3, 700, 0, 60, 2500, 9, 120, 0, 5000, 45, 8050, 1)


def record(number):
    """Return record `number`; the receiver can tell from the number what it must be."""
    return {"n": number, "pad": chr(97 + number % 26) * SIZES[number % len(SIZES)]}


def say(text):
    # One write: a line that the test reads whole was printed whole.
    sys.stdout.write(text + "\n")
    if hasattr(sys.stdout, "flush"):  # MicroPython's is unbuffered
        sys.stdout.flush()


def main(mode, url, path, first, interval, limit):
    cache = POSTCache(
        url,
        path,
        async_interval=float(interval) or None,
        upload_limit=int(limit),
        max_bytes=1 << 26,  # however fast the disk is: a full log would drop records
        timeout=0.3 if mode == "add" else 20,
    )
    say("open")
    if mode == "add":
        number = int(first)
        while True:
            say("stored %d %d" % (number, cache.add_request(record(number))))
            number += 1
    while not cache.flush():
        pass
    say("empty")
    cache.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
