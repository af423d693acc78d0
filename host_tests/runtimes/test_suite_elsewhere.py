"""
The rest of the suite again: on other releases of CPython, and on a newer MicroPython.

test_core_everywhere.py runs the core's tests there. Here pytest runs the files that depend most on
the runtime: files, processes, threads, sockets. pytest itself needs CPython: for MicroPython it
runs on this one, and the tests drive the other.

* Each commit: the oldest CPython that is supported and the one of Raspberry Pi OS, with a sample
  of the kills; and what the newer MicroPython stores and sends.
* Nightly: every release of CPython, and all of storage/, wire/ and, for CPython, host/.
"""

import os
import re
import sys

import pytest

from conftest import HERE, amount, count_cases, find_runtime

PYTHONS = amount(
    ["python3.9", "python3.13"],
    nightly=["python3.9", "python3.11", "python3.13", "python3.13t", "python3.14"],
)
HERE_ALREADY = "python%d.%d" % sys.version_info[:2]
FILES = amount(
    {
        "kill": ["storage/test_kill.py"],
        "shared": ["storage/test_processes.py", "storage/test_threads.py"],
        "examples": ["project/test_examples.py", "storage/test_golden.py"],
        "wire": ["wire/test_answers.py"],
    },
    nightly={
        "storage": ["storage"],
        "wire": ["wire", "project/test_examples.py"],
        "host": ["host"],
    },
)
MICROPYTHON_FILES = amount(
    {
        "storage": ["storage/test_golden.py", "storage/test_kill.py"],
        "wire": ["wire/test_answers.py", "wire/test_asyncio.py", "wire/test_http.py"],
    },
    nightly={"storage": ["storage"], "wire": ["wire"]},
)


def _run(runtime, files, selected, title, **env):
    """Run those tests in files or folders that `selected`, as pytest's -k has it, selects."""
    args = ["-m", "pytest", "-v", "-p", "no:cacheprovider", "-p", "no:xdist", "-k", selected]
    # Even a nightly run takes the usual number of seeds on each of so many.
    env.update(POSTCACHE_NIGHTLY="", POSTCACHE_SAMPLE=amount("1", nightly=""))
    output, status = runtime.watch(*args, *(HERE / file for file in files), **env)
    assert status == 0, output[-8000:]
    count_cases(title, int(re.search(r"(\d+) passed", output)[1]))


@pytest.mark.parametrize("python", [name for name in PYTHONS if name != HERE_ALREADY])
@pytest.mark.parametrize("files", FILES)
def test_on_another_cpython(files, python):
    runtime = find_runtime(python)
    site = os.environ.get("POSTCACHE_PYTEST")
    if not site:
        pytest.skip("run `make test`: it names a pytest for other Pythons in POSTCACHE_PYTEST")
    runtime.command = runtime.command[:1]  # pytest turns warnings into errors, but not its own
    selected = "not micropython and not real_stack"
    _run(runtime, FILES[files], selected, runtime.title, PYTHONPATH=site)


@pytest.mark.parametrize("files", MICROPYTHON_FILES)
def test_on_a_newer_micropython(files):
    newer = find_runtime("micropython-wheel")
    env = {"MICROPYTHON": newer.command[0]}
    selected = "micropython or real_stack"
    _run(find_runtime("cpython"), MICROPYTHON_FILES[files], selected, newer.title, **env)
