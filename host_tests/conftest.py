"""
What all tests share: the interpreters, where files lie, and who counts how many cases ran on what.

A test that takes the fixture `runtime` runs once for each runtime, in a process of its own. Tests
of the core (host_tests/core) are plain functions with bare asserts: pytest runs them here, and
test_core_everywhere.py runs the same functions under MicroPython, on each of its file systems.

With pytest-xdist (`make test`) tests run in several processes. What belongs together stays in one
(see _unit()), and what they count comes together at the end.
"""

import collections
import functools
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading

import pytest

HERE = pathlib.Path(__file__).parent
LIB = HERE.parent / "lib"
sys.path[:0] = [str(LIB), str(HERE.parent / "tools")]

import get_runtimes  # noqa: E402

CPYTHON = "CPython %d.%d" % sys.version_info[:2]
# What counts as run on it, beside tests that have its name in theirs.
_ON_MICROPYTHON = (
    "micropython",
    "real_stack",
    "test_boards",
    "test_deploy",
    "test_mip",
)

# A worker of pytest-xdist takes whole files, the slow ones first, so that all end at about the
# same time. The cases of these files have nothing in common, and may go to different workers:
_APART = (
    "boards/test_deploy.py",
    "runtimes/test_suite_elsewhere.py",
    "runtimes/test_webassembly.py",
)
# How the names of the slow ones begin, the slowest first.
_SLOW = (
    "storage/test_real_stack.py",
    "storage/test_power_cuts.py",
    "runtimes/test_suite_elsewhere.py",
    "runtimes/test_webassembly.py::test_core[test_rejects.py",
    "runtimes/test_webassembly.py::test_core[test_aio.py",
    "storage/test_faults.py",
    "storage/test_damage.py",
    "wire/test_simulation.py",
    "storage/test_kill.py",
    "runtimes/test_core_everywhere.py",
)

# The disk: where tests lie that are about what a disk does, such as being killed amid a sync.
DISK = os.environ.get("POSTCACHE_TEST_DISK") or tempfile.gettempdir()
_RAM = "/dev/shm"
_ENOUGH = 1 << 30  # bytes free there; a container has 64 MB
SILENCE = 600  # seconds without a line of output: what runs hangs

_worker = False  # whether this process is one of pytest-xdist's
_counts = collections.Counter()
_figures = []
_tally = []
_missing = {}  # runtime: what to install
_versions = {}


def amount(usual, nightly=None, sample=None):
    """
    Return how many seeds, rounds or examples to take: `usual`, for each commit.

    `make nightly` takes `nightly`. Where test_suite_elsewhere.py repeats for each commit what runs
    here anyway, it is `sample`.
    """
    if get_runtimes.NIGHTLY and nightly is not None:
        return nightly
    if os.environ.get("POSTCACHE_SAMPLE") and sample is not None:
        return sample
    return usual


@functools.cache
def find_interpreter(name):
    """
    Return the path of an interpreter by its name in tools/get_runtimes.py, or None.

    Where all runtimes are wanted, a missing one ends the run.
    """
    required = get_runtimes.REQUIRE_ALL and name in get_runtimes.wanted()
    try:
        return get_runtimes.find(name, offline=not required)[0]
    except get_runtimes.Unavailable as error:
        if required:
            pytest.exit("%s is missing: %s" % (name, error), 2)
        _missing[name] = str(error)
        return None


class Runtime:
    """
    One interpreter: `name`, `title` to show, `command` to start it, `env` to give it.
    """

    def __init__(self, name, command, title):
        self.name = name
        self.title = title
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

    def watch(self, *args, **env):
        """
        Run a program; return what it printed, errors included, and its status.

        It may take any time, as a busy machine does, but is killed after SILENCE without a line.
        """
        output = ""
        env = dict(self.env, PYTHONUNBUFFERED="1", **env)
        with self.start(*args, stderr=subprocess.STDOUT, env=env) as process:
            line = "\n"
            while line:
                output += line
                watchdog = threading.Timer(SILENCE, process.kill)
                watchdog.start()
                line = process.stdout.readline()
                watchdog.cancel()
        return output, process.returncode


def find_runtime(name):
    """
    Return the Runtime called `name`, or skip with a sentence that says what to install.

    "cpython" is the Python that runs this; the other names are those of tools/get_runtimes.py.
    """
    if name == "cpython":
        return Runtime(name, [sys.executable, "-W", "error"], CPYTHON)
    path = find_interpreter(name)
    if not path:
        pytest.skip(_missing[name])
    if name.startswith("python"):
        return Runtime(name, [path, "-W", "error"], "CPython " + name[len("python") :])
    if name not in _versions:
        code = "import sys; print('%d.%d' % sys.implementation.version[:2])"
        done = subprocess.run([path, "-c", code], capture_output=True, text=True, timeout=60)
        _versions[name] = done.stdout.strip()
    title = "MicroPython"  # its version is added at the end
    if name == "micropython-wheel":
        title = "MicroPython %s (wheel)" % _versions[name]
    return Runtime(name, [path], title)


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


@pytest.fixture
def disk_path():
    """A folder on a disk, as far as there is one: `tmp_path` is in RAM, where no sync waits."""
    with tempfile.TemporaryDirectory(prefix="postcache-", dir=DISK) as path:
        yield pathlib.Path(path)


@pytest.fixture(scope="session", autouse=True)
def _core_folders(tmp_path_factory):
    """Where the core's tests make their logs."""
    os.environ["POSTCACHE_TEST_DIR"] = str(tmp_path_factory.mktemp("core"))


def pytest_configure(config):
    global _worker
    _worker = hasattr(config, "workerinput")
    # A shell has Ctrl-C ignored by what it runs in the background, and by all that this starts.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Most tests are not about a disk, and would wait for it nearly all the time.
    if not os.environ.get("TMPDIR") and _is_roomy(_RAM):
        os.environ["TMPDIR"] = tempfile.tempdir = _RAM
        os.environ["POSTCACHE_TEST_DISK"] = DISK


def _is_roomy(path):
    try:
        return os.access(path, os.W_OK) and shutil.disk_usage(path).free > _ENOUGH
    except OSError:
        return False


# --- several processes ---


def _unit(nodeid):
    """Return the name of what has to run in one process with this test."""
    path, _, name = nodeid.partition("::")
    path = path.partition("host_tests/")[2] or path
    if path == "runtimes/test_core_everywhere.py":
        # test_core[FILE-NAME-FS]: one interpreter runs all tests of a file on a file system.
        file, _, rest = name.partition("[")[2].partition("-")
        return "%s %s %s" % (path, file, rest.rpartition("-")[2])
    return nodeid if path in _APART else path


def _rank(name):
    """Return the place of a test in the order of _SLOW."""
    return next((i for i, slow in enumerate(_SLOW) if name.startswith(slow)), len(_SLOW))


def pytest_collection_modifyitems(items):
    if _worker:
        items.sort(key=lambda item: _rank(item.nodeid.partition("host_tests/")[2]))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return _unit(nodeid)

    config.option.loadscopereorder = False  # the order is ours
    return Scheduling(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    output = getattr(node, "workeroutput", {}).get("postcache")
    if output:
        counts, figures, cuts, versions, missing = output
        _counts.update(counts)
        _figures.extend(figures)
        _tally.extend(cuts)
        _versions.update(versions)
        _missing.update(missing)


def pytest_sessionfinish(session):
    if _worker:
        output = dict(_counts), _figures, _tally, _versions, _missing
        session.config.workeroutput["postcache"] = output


# --- what was counted ---


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
    # A worker's report comes twice: there, and in the process that started the worker.
    if report.when == "call" and report.passed and not _worker:
        name = report.nodeid.lower()
        micropython = any(part in name for part in _ON_MICROPYTHON)
        said = dict(report.user_properties).get("runtime")
        _counts[said or ("MicroPython" if micropython else CPYTHON)] += 1


def pytest_terminal_summary(terminalreporter):
    terminalreporter.section("cases that passed, by runtime")
    for name, n in sorted(_counts.items()):
        if name == "MicroPython":
            name += " " + _versions.get("micropython", "")
        terminalreporter.write_line("%-36s %d" % (name, n))
    if _tally:
        _figures.append(f"power cuts and faults in all, each looked at: {sum(_tally):,}")
    for figure in sorted(_figures):
        terminalreporter.write_line(figure)
    for name, cause in sorted(_missing.items()):
        terminalreporter.write_line("not run on %s: %s" % (name, cause))
