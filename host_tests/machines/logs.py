"""Logs to look at: those that older versions left (golden/), and new ones of any runtime's."""

import importlib.util

from conftest import HERE, find_runtime

GOLDEN = HERE / "golden"


def _readings(first, last):
    return [(i, {"n": i, "t": 20 + i / 4}) for i in range(first, last + 1)]


# name: (stream, acked, what waits, what the cursor says is in flight, the next number)
LOGS = {
    "v1-small": (
        "0a1b2c3d4e5f6071",
        0,
        [*_readings(1, 5), (6, "café \u2028 end")],
        0,
        7,
    ),
    "v1-segments": ("1122334455667788", 20, _readings(21, 60), 30, 61),
    # The last of its lines is cut off after 17 bytes: two numbers are passed over.
    "v1-torn": ("99aabbccddeeff00", 1, _readings(2, 7), 0, 10),
    "v1-in-flight": ("f0e1d2c3b4a59687", 1, _readings(2, 9), 5, 10),
    "v1-dropped": ("5566778899aabbcc", 60, _readings(61, 160), 0, 161),
    "v1-delivered": ("0123456789abcdef", 30, [], 0, 31),
    "v1-refused": ("cafebabe00c0ffee", 0, _readings(1, 6), 0, 7),
    "v1-preallocated": ("0f1e2d3c4b5a6978", 2, _readings(3, 7), 0, 8),
    "v1-slots": (
        "5107510751075107",
        3,
        [
            *_readings(4, 4),
            (5, {"n": 5, "t": 21.25, "long": "x" * 150}),
            *_readings(6, 11),
        ],
        6,
        12,
    ),
}


# Writes a log on any runtime: FOLDER COUNT DELIVERED MAX_BYTES SLOT_SIZE. The server is an object.
WRITER = """
import sys
from postcache import POSTCache
class Http:
    def post(self, url, headers, chunks, timeout):
        for chunk in chunks:
            pass
        return 200, {}
folder = sys.argv[1]
count, delivered, max_bytes, slot_size = map(int, sys.argv[2:])
def add(cache, numbers):
    for n in numbers:
        cache.add_request({"n": n, "text": "x" * (n % 50)})
    cache.close()
kwargs = {"max_bytes": max_bytes, "slot_size": slot_size}
add(POSTCache("http://x/", folder, http=Http(), **kwargs), range(delivered))
add(POSTCache(None, folder, **kwargs), range(delivered, count))
"""


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write(folder, count=40, delivered=0, max_bytes=1 << 20, runtime="cpython", slot_size=0):
    script = folder.with_name("writer.py")
    script.write_text(WRITER)
    find_runtime(runtime).run(script, folder, count, delivered, max_bytes, slot_size)
    return folder
