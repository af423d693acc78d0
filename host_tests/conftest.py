"""
What all tests share: the interpreters, and who counts how many cases ran on each.

A test that takes the fixture `runtime` runs once for each runtime, in a process of its own. Tests
of the core (host_tests/core) are plain functions with bare asserts: pytest runs them here, and
test_core_everywhere.py runs the same functions under MicroPython, on each of its file systems.
"""

import collections
import os
import pathlib
import signal
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).parent
LIB = HERE.parent / "lib"
sys.path.insert(0, str(LIB))

CPYTHON = "CPython %d.%d" % sys.version_info[:2]
# What counts as run on it, beside tests that have its name in theirs.
_ON_MICROPYTHON = (
    "micropython",
    "core_everywhere",
    "real_stack",
    "test_boards",
    "test_deploy",
    "test_mip",
)
_counts = collections.Counter()
_figures = []
_tally = []
_versions = {}


def _find(name, variable):
    """Return the path of an interpreter, or None; whoever wants all of them gets a failure."""
    found = os.environ.get(variable)
    if not found:
        tool = [sys.executable, str(HERE.parent / "tools" / "get_runtimes.py"), name]
        if not os.environ.get("CI"):
            tool.append("--offline")
        done = subprocess.run(tool, capture_output=True, text=True)
        found = done.stdout.strip() or None
    if not found and (os.environ.get("CI") or os.environ.get("POSTCACHE_REQUIRE_ALL")):
        pytest.exit("%s is missing, and here that is a failure: make test fetches it" % name, 2)
    return found


class Runtime:
    """
    One interpreter: `name` ("cpython", "micropython"), `command` to start it, `env` to give it.
    """

    def __init__(self, name, command):
        self.name = name
        self.command = command
        self.env = dict(os.environ, PYTHONPATH=str(LIB), MICROPYPATH="%s:.frozen" % LIB)

    def run(self, *args, timeout=60, check=True, **env):
        """Run a program to its end; returns its CompletedProcess, with text output."""
        done = subprocess.run(
            [*self.command, *map(str, args)],
            env=dict(self.env, **env),
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if check:
            assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done

    def start(self, *args, **kwargs):
        """Start a program with its output in a pipe; returns the Popen."""
        kwargs.setdefault("env", self.env)
        return subprocess.Popen(
            [*self.command, *map(str, args)], stdout=subprocess.PIPE, text=True, **kwargs
        )


def find_runtime(name):
    """Return the Runtime called `name`, or skip with a line that says what to install."""
    if name == "cpython":
        return Runtime(name, [sys.executable, "-W", "error"])
    path = _find("micropython", "MICROPYTHON")
    if not path:
        pytest.skip("install MicroPython 1.24 or later (or run `make test`, which looks for it)")
    if name not in _versions:
        code = "import sys; print('%d.%d' % sys.implementation.version[:2])"
        done = subprocess.run([path, "-c", code], capture_output=True, text=True, timeout=60)
        _versions[name] = done.stdout.strip()
    return Runtime(name, [path])


def find_python39():
    """Return the path of CPython 3.9, or None."""
    return _find("python3.9", "PYTHON39")


@pytest.fixture(params=["cpython", "micropython"])
def runtime(request):
    """Each runtime in turn."""
    return find_runtime(request.param)


@pytest.fixture
def server():
    """A fake server that is up; it must not have seen a protocol error at the end."""
    from fake_server import FakeServer

    with FakeServer() as server:
        yield server
    assert server.errors == []
    assert server.receiver.errors == []


def pytest_configure():
    # A shell has Ctrl-C ignored by what it runs in the background, and by all that this starts.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def count_cases(runtime, n):
    """Add `n` cases that a subprocess ran on `runtime` (a display name)."""
    _counts[runtime] += n


def say(figure):
    """Show a line of text, a figure that a test counted, at the end of the run."""
    _figures.append(figure)


def tally(n):
    """Add `n` power cuts or faults, each with its consequences looked at, to the sum."""
    _tally.append(n)


def pytest_runtest_logreport(report):
    if report.when == "call" and report.passed:
        name = report.nodeid.lower()
        micropython = any(part in name for part in _ON_MICROPYTHON)
        _counts["MicroPython" if micropython else CPYTHON] += 1


def pytest_terminal_summary(terminalreporter):
    terminalreporter.section("cases that passed, by runtime")
    for name, n in sorted(_counts.items()):
        if name == "MicroPython":
            name += " " + _versions.get("micropython", "")
        terminalreporter.write_line("%-36s %d" % (name, n))
    if _tally:
        _figures.append(f"power cuts and faults in all, each looked at: {sum(_tally):,}")
    for figure in _figures:
        terminalreporter.write_line(figure)
