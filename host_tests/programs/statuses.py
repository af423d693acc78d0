"""
Adds three records each time a line comes in, tries once, and then until they are delivered.

    statuses.py URL PATH

Prints what waited after the first try, the answer, the error, whether it is blocked, and what
waits in the end.
"""

import json
import sys

from postcache import POSTCache

cache = POSTCache(sys.argv[1], sys.argv[2], timeout=5)
n = 0
while sys.stdin.readline():
    cache.add_many([{"n": n}, {"n": n + 1}, {"n": n + 2}])
    n += 3
    stats = cache.stats
    result = [len(cache), stats["status"], stats["error"], stats["blocked"]]
    cache.flush()
    print(json.dumps(result + [len(cache)]))
    if hasattr(sys.stdout, "flush"):
        sys.stdout.flush()
cache.close(timeout=0.1)
