"""
The rest of the suite again: on other releases of CPython, and on a newer MicroPython.

test_core_everywhere.py runs the core's tests there. Here pytest runs the files that depend most on
the runtime (files, processes, threads, sockets), each in a process of its own. pytest itself needs
CPython: for MicroPython it runs on this one, and the tests drive the other.

* Each commit: the oldest CPython that is supported and the one of Raspberry Pi OS, with a sample
  of the kills, cuts and seeds; and what the newer MicroPython stores and sends.
* Nightly: every release of CPython, and all files of storage/, wire/ and, for CPython, host/.
"""

import os
import re
import sys

import pytest

from conftest import HERE, amount, count_cases, find_runtime


def _all_in(*folders):
    """Return all test files in folders of host_tests/."""
    paths = [path for folder in folders for path in sorted((HERE / folder).glob("test_*.py"))]
    return [path.relative_to(HERE).as_posix() for path in paths]


PYTHONS = amount(
    ["python3.9", "python3.13"],
    nightly=["python3.9", "python3.11", "python3.13", "python3.13t", "python3.14"],
)
HERE_ALREADY = "python%d.%d" % sys.version_info[:2]
FILES = amount(
    [
        "storage/test_golden.py",
        "storage/test_kill.py",
        "storage/test_power_cuts.py",
        "storage/test_processes.py",
        "storage/test_stateful.py",
        "storage/test_threads.py",
        "wire/test_answers.py",
        "wire/test_old_bugs.py",
        "project/test_examples.py",
    ],
    nightly=[*_all_in("storage", "wire", "host"), "project/test_examples.py"],
)
MICROPYTHON_FILES = amount(
    [
        "storage/test_golden.py",
        "storage/test_kill.py",
        "wire/test_answers.py",
        "wire/test_asyncio.py",
        "wire/test_http.py",
        "wire/test_tls.py",
    ],
    nightly=_all_in("storage", "wire"),
)
NOTHING_TO_RUN = 5  # pytest's status when no test of the file was selected


def _run(runtime, file, selected, title, **env):
    """Run those tests of a file that `selected`, an expression of pytest's -k, selects."""
    args = ["-m", "pytest", "-v", "-p", "no:cacheprovider", "-p", "no:xdist", "-k", selected]
    # Even a nightly run takes the usual number of seeds on each of so many.
    env.update(POSTCACHE_NIGHTLY="", POSTCACHE_SAMPLE=amount("1", nightly=""))
    output, status = runtime.watch(*args, HERE / file, **env)
    assert status in (0, NOTHING_TO_RUN), output[-8000:]
    passed = re.search(r"(\d+) passed", output)
    if not passed:
        pytest.skip("none of its tests runs there")
    count_cases(title, int(passed[1]))


@pytest.mark.parametrize("python", [name for name in PYTHONS if name != HERE_ALREADY])
@pytest.mark.parametrize("file", FILES)
def test_on_another_cpython(file, python):
    runtime = find_runtime(python)
    site = os.environ.get("POSTCACHE_PYTEST")
    if not site:
        pytest.skip("run `make test`: it names a pytest for other Pythons in POSTCACHE_PYTEST")
    runtime.command = runtime.command[:1]  # pytest turns warnings into errors, but not its own
    _run(runtime, file, "not micropython and not real_stack", runtime.title, PYTHONPATH=site)


@pytest.mark.parametrize("file", MICROPYTHON_FILES)
def test_on_a_newer_micropython(file):
    newer = find_runtime("micropython-wheel")
    path = newer.command[0]
    _run(find_runtime("cpython"), file, "micropython or real_stack", newer.title, MICROPYTHON=path)
