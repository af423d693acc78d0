"""
What postcache costs in heap, under MicroPython: prints JSON, all in bytes.

    heap.py PATH [URL]       with PATH/lib holding the package as .mpy; drains over HTTP with a URL
"""

import gc
import json
import sys

path = sys.argv[1]
url = sys.argv[2] if len(sys.argv) > 2 else None
sys.path.insert(0, path + "/lib")


def used():
    gc.collect()
    return gc.mem_alloc()


class Http:
    """A server that takes everything, and looks at the heap between the chunks."""

    peak = 0

    def __init__(self, real=None):
        self.real = real

    def watch(self, chunks):
        for n, chunk in enumerate(chunks):
            if n % 50 == 0:
                Http.peak = max(Http.peak, used())
            yield chunk

    def post(self, url, headers, chunks, timeout):
        if self.real:
            return self.real.post(url, headers, self.watch(chunks), timeout)
        for _ in self.watch(chunks):
            pass
        return 200, {}


before = used()
from postcache import POSTCache  # noqa: E402 - this is what is measured

imported = used() - before
loaded = [name for name in sys.modules if name.startswith("postcache")]

N = 10000
with POSTCache(None, path + "/log") as cache:
    record = {"t": 21.5, "h": 40, "n": 0}
    cache.add_request(record)
    before = used()
    for n in range(1, N):
        record["n"] = n
        cache.add_request(record)
    adding = used() - before

real = None
if url:
    from postcache.ports import Http as Real

    real = Real(url)
before = used()
cache = POSTCache(url or "http://server/", path + "/log", http=Http(real))
opened = used() - before
assert len(cache) == N
assert cache.flush()
cache.close()
print(
    json.dumps(
        {
            "import": imported,
            "loaded": sorted(loaded),
            "adding 10,000": adding,
            "open": opened,
            "drain 10,000 at the peak": Http.peak - before,
        }
    )
)
