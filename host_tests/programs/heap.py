"""
What postcache costs in heap, under MicroPython: prints JSON, all in bytes.

    heap.py PATH URL FS      with PATH/lib holding the package as .mpy

Drains to an object as server, or over HTTP with a URL ("-" for none). FS is "posix" (in PATH) or
"lfs2", a littlefs in RAM with an ESP32's parameters, where the slot journal is chosen.
"""

import gc
import json
import os
import sys

path, url, fs = sys.argv[1:]
sys.path.insert(0, path + "/lib")
N = 10000


class Blocks:
    """A block device in RAM."""

    def __init__(self, count):
        self.data = bytearray(count * 4096)

    def readblocks(self, block, buffer, offset=0):
        at = block * 4096 + offset
        buffer[:] = memoryview(self.data)[at : at + len(buffer)]

    def writeblocks(self, block, buffer, offset=0):
        at = block * 4096 + offset
        self.data[at : at + len(buffer)] = buffer

    def ioctl(self, op, arg):
        return {4: len(self.data) // 4096, 5: 4096}.get(op, 0)


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


if fs == "lfs2":
    device = Blocks(512)
    os.VfsLfs2.mkfs(device, progsize=32)
    os.mount(os.VfsLfs2(device, progsize=32), "/flash")
    folder = "/flash/log"
else:
    folder = path + "/log"

before = used()
from postcache import POSTCache  # noqa: E402 - this is what is measured

imported = used() - before
# A plain http:// logger keeps these loaded as well, from its first instance on.
for name in ("log", "send", "ports.micropython.http", "ports.answer"):
    __import__("postcache." + name)
kept = used() - before


def fill():
    """In a function of its own, so that nothing of this cache is left."""
    with POSTCache(None, folder, max_bytes=1500000) as cache:
        record = {"t": 21.5, "h": 40, "n": 0}
        cache.add_request(record)
        before = used()
        for n in range(1, N):
            record["n"] = n
            cache.add_request(record)
        return used() - before


adding = fill()
loaded = [name for name in sys.modules if name.startswith("postcache")]
real = None
if url != "-":
    from postcache.ports import Http as Real

    real = Real(url)
before = used()
cache = POSTCache(url, folder, http=Http(real))
opened = used() - before
assert len(cache) == N
assert cache.flush()
cache.close()
print(
    json.dumps(
        {
            "import": imported,
            "all that stays": kept,
            "loaded": sorted(loaded),
            "adding 10,000": adding,
            "open": opened,
            "drain 10,000 at the peak": Http.peak - before,
        }
    )
)
