"""
One POST through the port's Http: prints what came of it as JSON.

    post.py URL TIMEOUT CHUNKS SIZE [CAFILE]

The body is CHUNKS pieces of SIZE bytes. Prints [status, headers, beginning of the body, meals,
meals at each chunk], or [kind of exception, number, "", meals, meals at each chunk]: how often
the watchdog was fed.
"""

import json
import sys

from postcache.ports import Http

url, timeout, chunks, size, *cafile = sys.argv[1:]
meals = 0
at_chunks = []


def feed():
    """The watchdog's."""
    global meals
    meals += 1


def body():
    """The pieces."""
    for _ in range(int(chunks)):
        at_chunks.append(meals)
        yield b"x" * int(size)


http = Http(url, *cafile, feed=feed)
headers = {"Content-Length": str(int(chunks) * int(size)), "Content-Type": "text/plain"}
try:
    status, headers, start = http.post(url, headers, body(), float(timeout))
    found = [status, headers, start.decode()]
except OSError as e:
    found = [type(e).__name__, e.args[0], ""]
http.close()
print(json.dumps(found + [meals, at_chunks]))
