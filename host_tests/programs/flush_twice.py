"""
Stores three records, then flushes each time a line comes in; prints what came of it as JSON.

    flush_twice.py URL PATH TIMEOUT
"""

import json
import sys

from postcache import POSTCache

url, path, timeout = sys.argv[1:]
with POSTCache(None, path) as cache:
    for n in range(3):
        cache.add_request({"n": n})
cache = POSTCache(url, path, timeout=float(timeout), top_level_attributes={"device": "é"})
while sys.stdin.readline():
    done = cache.flush()
    stats = cache.stats
    print(json.dumps([done, len(cache), stats["status"], stats["error"]]))
    if hasattr(sys.stdout, "flush"):
        sys.stdout.flush()
cache.close(timeout=0.1)
