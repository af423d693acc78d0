"""
Stores records, then flushes each time a line comes in; prints what came of it as JSON.

    https.py URL PATH TIMEOUT CAFILE VERIFY RECORDS SIZE

SIZE is that of a text in each record. CAFILE "-" is none; VERIFY is "yes" or "no". What the
constructor refuses is printed, too.
"""

import json
import sys

from postcache import POSTCache

url, path, timeout, cafile, verify, records, size = sys.argv[1:]
meals = 0


def feed():
    """The watchdog's."""
    global meals
    meals += 1


def say(value):
    print(json.dumps(value))
    if hasattr(sys.stdout, "flush"):
        sys.stdout.flush()


with POSTCache(None, path) as cache:
    for n in range(int(records)):
        cache.add_request({"n": n, "text": "x" * int(size)})
try:
    cache = POSTCache(
        url,
        path,
        timeout=float(timeout),
        headers={"Authorization": "Bearer geheim"},
        cafile=None if cafile == "-" else cafile,
        verify=verify == "yes",
        feed=feed,
    )
except (ValueError, OSError) as e:
    say([type(e).__name__, str(e)])
    sys.exit()
say("ready")
while sys.stdin.readline():
    meals = 0
    done = cache.flush()
    stats = cache.stats
    say([done, len(cache), stats["status"], stats["error"], meals])
cache.close(timeout=0.1)
