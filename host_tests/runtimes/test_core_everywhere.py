"""
The core's tests again: the same functions under MicroPython, on each of its file systems.

One interpreter runs all that is wanted of a file. A test that ends it fails, by name, and another
one runs the rest.
"""

import ast
import functools
import re
import subprocess
import threading

import pytest

from conftest import HERE, find_runtime

FILES = sorted((HERE / "core").glob("test_*.py"))
SILENCE = 600  # seconds that one test may take: it hangs


def _cases():
    for path in FILES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                yield path.name, node.name


def _start(file, names, fs, folder):
    """Run tests in one interpreter, as far as it gets; return what it printed, and its status."""
    runtime = find_runtime("micropython")
    runtime.env.update(POSTCACHE_TEST_FS=fs, POSTCACHE_TEST_DIR=str(folder))
    output = ""
    with runtime.start(
        *("-X", "heapsize=16M"),  # for the file system in RAM
        *(HERE / "runner.py", HERE / "core" / file, *names),
        stderr=subprocess.STDOUT,
    ) as process:
        line = "\n"
        while line:
            output += line
            watchdog = threading.Timer(SILENCE, process.kill)
            watchdog.start()
            line = process.stdout.readline()
            watchdog.cancel()
    return output, process.returncode


def run(file, names, fs, folder):
    """Run tests of a file; return {name: what it failed with, or ""}."""
    found = {}
    while len(found) < len(names):
        output, status = _start(file, names[len(found) :], fs, folder)
        parts = re.split(r"^(ok  |FAIL) (\w+)\n", output, flags=re.MULTILINE)
        for verdict, name, text in zip(parts[1::3], parts[2::3], parts[3::3]):
            found[name] = "FAIL %s\n%s" % (name, text) if verdict == "FAIL" else ""
        if status not in (0, 1) or len(found) < len(names):
            # As far as it came: the next one is it, or what the last one left behind.
            name = names[min(len(found), len(names) - 1)]
            found[name] = "MicroPython ended with %d\n%s" % (status, output[-3000:])
    return found


@pytest.fixture(scope="module")
def verdicts(request, tmp_path_factory):
    """A function of (file, file system) that returns what run() does, of all that is wanted."""

    @functools.cache
    def look(file, fs):
        names = [
            item.callspec.params["name"]
            for item in request.session.items
            if item.path == request.path
            and getattr(item, "callspec", None)
            and (item.callspec.params["file"], item.callspec.params["fs"]) == (file, fs)
        ]
        return run(file, names, fs, tmp_path_factory.mktemp("core"))

    return look


@pytest.mark.parametrize("fs", ["posix", "lfs2", "fat"])
@pytest.mark.parametrize(("file", "name"), list(_cases()))
def test_core(verdicts, file, name, fs):
    find_runtime("micropython")
    failure = verdicts(file, fs)[name]
    assert not failure, failure[-5000:]


# --- the tests themselves ---

SUSPECTS = """
import os, sys
def test_a(): pass
def test_b(): assert 1 == 2, "on purpose"
def test_c(): sys.exit(3)
def test_d(): raise OSError(5)
def test_e(): assert os.getenv("POSTCACHE_TEST_FS") == "fat"
"""


def test_each_failure_has_the_name_of_its_test_micropython(tmp_path):
    path = tmp_path / "test_suspects.py"
    path.write_text(SUSPECTS)
    found = run(path, ["test_a", "test_b", "test_c", "test_d", "test_e"], "fat", tmp_path)
    assert found["test_a"] == found["test_e"] == ""
    assert "AssertionError: on purpose" in found["test_b"]
    assert found["test_c"].startswith("MicroPython ended with 3\n")
    assert "EIO" in found["test_d"] and "on purpose" not in found["test_d"]
