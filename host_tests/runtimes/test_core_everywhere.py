"""
The core's tests again: the same functions under MicroPython, on each of its file systems, and
under other releases of CPython.

One interpreter runs all that is wanted of a file. A test that ends it fails, by name, and another
one runs the rest. Where sweeps over every call that may fail are long, all of it runs on Debian's
MicroPython, and elsewhere a third, but nightly all.
"""

import ast
import functools
import re
import sys

import pytest

from conftest import HERE, amount, find_runtime

FILES = sorted((HERE / "core").glob("test_*.py"))

# Where the tests run: a name, the runtime, and the file system.
PLACES = {
    "posix": ("micropython", "posix"),
    "lfs2": ("micropython", "lfs2"),
    "fat": ("micropython", "fat"),
    "wheel_posix": ("micropython-wheel", "posix"),
    "wheel_lfs2": ("micropython-wheel", "lfs2"),
    "wheel_fat": ("micropython-wheel", "fat"),
    "python3.9": ("python3.9", "posix"),
    "python3.11": ("python3.11", "posix"),
    "python3.13": ("python3.13", "posix"),
    "python3.13t": ("python3.13t", "posix"),
    "python3.14": ("python3.14", "posix"),
}
if not amount(False, nightly=True):
    for name in ("wheel_posix", "wheel_fat"):
        PLACES.pop(name)
# On the Python that runs this, the core's tests run anyway.
PLACES.pop("python%d.%d" % sys.version_info[:2], None)


def _cases():
    for path in FILES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                yield path.name, node.name


def _start(place, file, names, folder):
    """Run tests in one interpreter, as far as it gets; return what it printed, and its status."""
    name, fs = PLACES[place]
    runtime = find_runtime(name)
    runtime.env.update(POSTCACHE_TEST_FS=fs, POSTCACHE_TEST_DIR=str(folder))
    if name != "micropython":
        runtime.env["POSTCACHE_SAMPLE"] = amount("1", nightly="")
    # The heap holds the file system in RAM.
    heap = ("-X", "heapsize=16M") if name.startswith("micropython") else ()
    return runtime.watch(*heap, HERE / "runner.py", HERE / "core" / file, *names)


def run(place, file, names, folder):
    """Run tests of a file; return {name: what it failed with, or ""}."""
    found = {}
    while len(found) < len(names):
        output, status = _start(place, file, names[len(found) :], folder)
        parts = re.split(r"^(ok  |FAIL) (\w+)\n", output, flags=re.MULTILINE)
        for verdict, name, text in zip(parts[1::3], parts[2::3], parts[3::3]):
            found[name] = "FAIL %s\n%s" % (name, text) if verdict == "FAIL" else ""
        if status not in (0, 1) or len(found) < len(names):
            # As far as it came: the next one is it, or what the last one left behind.
            name = names[min(len(found), len(names) - 1)]
            found[name] = "the interpreter ended with %d\n%s" % (status, output[-3000:])
    return found


@pytest.fixture(scope="module")
def verdicts(request, tmp_path_factory):
    """A function of (place, file) that returns what run() does, of all that is wanted."""

    @functools.cache
    def look(place, file):
        names = [
            item.callspec.params["name"]
            for item in request.session.items
            if item.path == request.path
            and item.function is test_core
            and (item.callspec.params["place"], item.callspec.params["file"]) == (place, file)
        ]
        return run(place, file, names, tmp_path_factory.mktemp("core"))

    return look


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("file", "name"), list(_cases()))
def test_core(verdicts, file, name, place, request):
    runtime = find_runtime(PLACES[place][0])
    if place.startswith("wheel") and runtime.command == find_runtime("micropython").command:
        pytest.skip("it stands in for the other MicroPython, and runs these tests as that")
    # Not by record_property: it warns when a report is written, as tools/mutate.py has it.
    request.node.user_properties.append(("runtime", runtime.title))
    failure = verdicts(place, file)[name]
    assert not failure, failure[-5000:]


# --- the tests themselves ---

SUSPECTS = """
import os, sys
def test_a(): pass
def test_b(): assert 1 == 2, "on purpose"
def test_c(): sys.exit(3)
def test_d(): raise ValueError("a bad one")
def test_e(): assert os.getenv("POSTCACHE_TEST_FS") == "%s"
"""


@pytest.mark.parametrize("place", ["fat", next(name for name in PLACES if name[:2] == "py")])
def test_each_failure_has_the_name_of_its_test(place, tmp_path):
    path = tmp_path / "test_suspects.py"
    path.write_text(SUSPECTS % PLACES[place][1])
    found = run(place, path, ["test_a", "test_b", "test_c", "test_d", "test_e"], tmp_path)
    assert found["test_a"] == found["test_e"] == ""
    assert "AssertionError: on purpose" in found["test_b"]
    assert found["test_c"].startswith("the interpreter ended with 3\n")
    assert "ValueError: a bad one" in found["test_d"] and "on purpose" not in found["test_d"]
