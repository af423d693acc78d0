"""
Several owners, forks, exits, files in the way, event loops: what processes do to a log.
"""

import asyncio
import gc
import os
import pathlib
import shutil
import signal
import sqlite3
import subprocess
import threading

import pytest
from fake_server import Answer

from conftest import LIB, find_runtime
from postcache import POSTCache
from postcache.ports import Clock as RealClock
from postcache.ports.cpython import files

PROGRAMS = pathlib.Path(__file__).parents[1] / "programs"


@pytest.fixture
def this_python():
    """CPython in a process of its own."""
    return find_runtime("cpython")


def waiting(path):
    """How many records wait in a log; opening it is also the test that nobody holds it."""
    with POSTCache(None, path) as cache:
        return len(cache)


def deliver(server, path):
    """What waits in a log, given to the server; returns the records it has then."""
    with POSTCache(server.url, path) as cache:
        assert cache.flush()
    return server.receiver.lines


# --- one owner ---

SECOND = """
import sys
from postcache import POSTCache

url, path, again = sys.argv[1:]
first = POSTCache(None, path)
try:
    POSTCache(None, again)
    print("opened twice")
except OSError as e:
    print(e.errno, path in str(e))
first.add_request(1)
first.close()
with POSTCache(url, again) as second:
    second.add_request(2)
    print(second.flush())
"""


@pytest.mark.parametrize("spelling", ["%s/log", "%s/log/", "%s//./log", "log", "./log"])
def test_s12_a_second_instance_is_refused_by_name_and_harms_nothing(
    runtime, server, tmp_path, spelling, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    again = spelling % tmp_path if "%" in spelling else spelling
    done = runtime.run("-c", SECOND, server.url, tmp_path / "log", again)
    assert done.stdout.split() == ["16", "True", "True"]
    assert server.receiver.lines == [1, 2]


OPEN = """
import sys
from postcache import POSTCache

cache = POSTCache(None, sys.argv[1])
cache.add_request(1)
print("open")
sys.stdin.readline()
"""


def test_s12_a_second_process_is_refused_by_name(this_python, tmp_path):
    with this_python.start("-c", OPEN, tmp_path, stdin=subprocess.PIPE) as process:
        assert process.stdout.readline() == "open\n"
        with pytest.raises(OSError, match="in use") as refused:
            POSTCache(None, tmp_path)
        assert str(tmp_path) in str(refused.value)
        process.send_signal(signal.SIGKILL)
    assert waiting(tmp_path) == 1


def test_after_kill_9_the_directory_opens_without_help(runtime, tmp_path):
    for _ in range(3):
        with runtime.start("-c", OPEN, tmp_path, stdin=subprocess.PIPE) as process:
            assert process.stdout.readline() == "open\n"
            process.send_signal(signal.SIGKILL)
    assert waiting(tmp_path) == 3


@pytest.mark.parametrize("status", [200, 422])
@pytest.mark.parametrize(
    "options",
    [{}, {"confirm": "ack"}, {"max_age": 9, "timestamp_key": "t", "flush_every": 2}],
    ids=["plain", "ack", "others"],
)
def test_a_log_that_nobody_closed_is_free_once_its_cache_is_gone(tmp_path, options, status):
    class Server:
        def post(self, url, headers, chunks, timeout):
            b"".join(chunks)
            return status, {"postcache-ack": headers["Postcache-Last"]}

    gc.disable()  # at once, and not when the next collection happens to be
    try:
        cache = POSTCache("http://x/", tmp_path, http=Server(), **options)
        cache.add_request({"n": 1})
        cache.flush()
        assert cache.stats["status"] == status
        del cache
        POSTCache(None, tmp_path).close()
    finally:
        gc.enable()


def test_the_package_may_be_part_of_another(runtime, server, tmp_path):
    package = tmp_path / "sensors" / "vendor"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "postcache").symlink_to(LIB / "postcache")
    runtime.env.update(PYTHONPATH=str(tmp_path), MICROPYPATH="%s:.frozen" % tmp_path)
    done = runtime.run(
        "-c",
        "import sys; from sensors.vendor.postcache import POSTCache\n"
        "with POSTCache(sys.argv[1], sys.argv[2], flush_every=2, timestamp_key='t') as cache:\n"
        "    print(cache.add_request({}), cache.flush(), 'postcache' in sys.modules)",
        server.url,
        tmp_path / "log",
    )
    assert done.stdout.split() == ["1", "True", "False"]
    assert server.request_count == 1


def test_what_one_instance_only_stored_another_delivers(runtime, server, tmp_path):
    store = "import sys; from postcache import POSTCache; c = POSTCache(%s, sys.argv[2]);"
    done = runtime.run(
        "-c",
        store % "None" + "[c.add_request(n) for n in range(5)]; print(c.flush(), len(c));"
        "c.poll(); c.close()",
        server.url,
        tmp_path,
    )
    assert done.stdout.split() == ["False", "5"]
    assert server.request_count == 0
    done = runtime.run("-c", store % "sys.argv[1]" + "print(c.flush())", server.url, tmp_path)
    assert done.stdout.split() == ["True"]
    assert server.receiver.lines == [0, 1, 2, 3, 4]


# --- fork ---


@pytest.mark.parametrize("interval", [0, 3600], ids=["sync", "async"])
@pytest.mark.parametrize("how", ["os", "multiprocessing", "os-commit"])
def test_a_forked_child_cannot_touch_its_parents_log(this_python, server, tmp_path, how, interval):
    program = PROGRAMS / "forked.py"
    done = this_python.run(program, how, server.url, tmp_path, interval)
    assert done.stdout.split("\n") == [
        "add_request OSError",
        "flush OSError",
        "poll None",
        "close None",
        "parent: 0 waiting",
        "",
    ]
    assert done.stderr == ""
    assert server.receiver.lines == [{"n": 1}, {"n": 2}, {"n": 3}]
    assert server.connections == 1, "the child broke the parent's connection"


POLL_IN_CHILD = """
import os, sys
from postcache import POSTCache

url, path = sys.argv[1:]
ticks = [0]


class Clock:
    def ticks_ms(self):
        ticks[0] += 3600_000  # no back-off is longer
        return ticks[0]


cache = POSTCache(url, path, timeout=10**6, clock=Clock())
cache.add_request(1)  # is not delivered, and the batch stays in memory for its retry
pid = os.fork()
if not pid:
    cache.poll()
    sys.exit(0)
os.waitpid(pid, 0)
print(len(cache), cache.flush())
"""


def test_poll_in_a_forked_child_sends_nothing(this_python, server, tmp_path):
    server.script(Answer(500))
    done = this_python.run("-c", POLL_IN_CHILD, server.url, tmp_path)
    assert done.stdout.split() == ["1", "True"]
    assert len(server.wait_for(2)) == 2, "the child sent, too"


LIVES_ON = """
import os, sys
from postcache import POSTCache

cache = POSTCache(sys.argv[1], sys.argv[2], async_interval=3600)
cache.add_request(1)
if os.fork():
    sys.stdin.readline()
else:
    print("forked", flush=True)
    for line in sys.stdin:
        print("child", line, end="", flush=True)
"""


def test_a_child_that_lives_on_does_not_keep_the_lock(this_python, server, tmp_path):
    server.down()
    start = this_python.start(
        "-W", "ignore", "-c", LIVES_ON, server.url, tmp_path, stdin=subprocess.PIPE
    )
    with start as parent:
        assert parent.stdout.readline() == "forked\n"
        parent.send_signal(signal.SIGKILL)
        parent.wait(60)
        assert waiting(tmp_path) == 1
        # It has lived on: it answers.
        parent.stdin.write("are you there?\n")
        parent.stdin.flush()
        assert parent.stdout.readline() == "child are you there?\n"
        parent.stdin.close()
        assert parent.stdout.read() == ""


OWN_LOG = """
import os, sys
from postcache import POSTCache

url, path = sys.argv[1:]
cache = POSTCache(url, path + "/parent", async_interval=3600)
cache.add_request("parent")
pid = os.fork()
if not pid:
    cache = POSTCache(url, path + "/child", async_interval=3600)
    cache.add_request("child")
    sys.exit(0)
os.waitpid(pid, 0)
"""


def test_a_forked_child_may_open_a_log_of_its_own(this_python, server, tmp_path):
    this_python.run("-W", "ignore", "-c", OWN_LOG, server.url, tmp_path)
    assert sorted(server.receiver.lines) == ["child", "parent"]


# --- the end of a program ---

ADD_THREE = """
import sys
from postcache import POSTCache

cache = POSTCache(sys.argv[1], sys.argv[2], async_interval=3600, timeout=0.5)
for n in range(3):
    cache.add_request(n)
"""


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_program_that_just_ends_delivers_what_it_added(this_python, server, tmp_path, host):
    url = server.url.replace("127.0.0.1", host)
    done = this_python.run("-c", ADD_THREE.replace("0.5", "20"), url, tmp_path)
    assert done.stderr == ""
    assert server.receiver.lines == [0, 1, 2]
    assert waiting(tmp_path) == 0


@pytest.mark.parametrize("answer", [Answer.hang(), Answer.hang_before(), Answer(500)], ids=repr)
def test_a_program_ends_in_time_when_the_server_does_not_answer(runtime, server, tmp_path, answer):
    server.default = answer
    done = runtime.run("-c", ADD_THREE, server.url, tmp_path)
    assert done.stderr == ""
    assert waiting(tmp_path) == 3
    server.default = Answer(200)
    server.release()
    assert deliver(server, tmp_path) == [0, 1, 2]


ENDINGS = {
    "falls off the end": "",
    "sys.exit": "sys.exit(0)",
    "exception": "raise RuntimeError('on purpose')",
    "SIGTERM": "sys.stdin.readline()",
}


@pytest.mark.parametrize("interval", ["None", "3600"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_however_a_program_ends_nothing_is_lost(runtime, server, tmp_path, ending, interval):
    server.default = Answer(503)
    program = ADD_THREE.replace("3600", interval) + "print('added')\n" + ENDINGS[ending]
    pipe = subprocess.PIPE
    start = runtime.start("-c", program, server.url, tmp_path, stdin=pipe, stderr=pipe)
    with start as process:
        assert process.stdout.readline() == "added\n"
        if ending == "SIGTERM":
            process.terminate()
        error = process.communicate(timeout=60)[1]
    code = {"SIGTERM": -signal.SIGTERM, "exception": 1}.get(ending, 0)
    assert process.returncode == code, error
    assert ("on purpose" in error) == (ending == "exception")
    server.default = Answer(200)
    assert deliver(server, tmp_path) == [0, 1, 2]


# --- close() ---


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("postcache")]


def test_close_ends_a_hanging_exchange_and_frees_the_directory(server, tmp_path):
    """The exchange would hang for 600 s; nothing but close() can end it within a test."""
    server.default = Answer.hang()
    cache = POSTCache(server.url, tmp_path, async_interval=0.001, timeout=600)
    cache.add_request(1)
    server.wait_for(1)
    cache.close(0.2)
    assert threads() == []
    server.wait_closed()
    assert waiting(tmp_path) == 1
    server.default = Answer(200)
    assert deliver(server, tmp_path) == [1]


def test_close_ends_an_exchange_of_another_thread(server, tmp_path):
    """Without a worker, the thread that adds is the one that hangs."""
    server.default = Answer.hang()
    cache = POSTCache(server.url, tmp_path, timeout=600)
    numbers = []
    adder = threading.Thread(target=lambda: numbers.append(cache.add_request(1)))
    adder.start()
    server.wait_for(1)
    cache.close(0.2)
    adder.join(60)
    assert numbers == [1], "the record was stored, and its add must say so"
    assert waiting(tmp_path) == 1


class Recorder:
    """An http port that takes everything and remembers how often it was asked."""

    def __init__(self):
        self.posts = 0

    def post(self, url, headers, chunks, timeout):
        b"".join(chunks)
        self.posts += 1
        return 200, {}

    def close(self):
        pass


@pytest.mark.parametrize("call", ["close", "flush"])
def test_no_time_means_no_try(tmp_path, call):
    with POSTCache(None, tmp_path) as cache:
        cache.add_request(1)
    http = Recorder()
    cache = POSTCache("http://localhost/", tmp_path, http=http)
    getattr(cache, call)(0)
    assert http.posts == 0
    cache.close(0)
    assert waiting(tmp_path) == 1


AFTER_CLOSE = """
import sys
from postcache import POSTCache

url, path = sys.argv[1:]
for endpoint in (url, None):
    cache = POSTCache(endpoint, path, timeout=0.5)
    cache.add_request(1)  # the server does not take it, and it stays in memory
    cache.close()
    cache.outbox and setattr(cache.outbox, "_next", 0)  # no back-off
    cache.poll()
    print(cache.flush())
    cache.close()
    try:
        cache.add_request(2)
    except ValueError:
        print("refused")
"""


def test_after_close_nothing_is_sent_or_added(runtime, server, tmp_path):
    """Another instance may own the log by then, and have delivered it."""
    server.default = Answer(500)
    done = runtime.run("-c", AFTER_CLOSE, server.url, tmp_path)
    assert done.stdout.split() == ["False", "refused"] * 2
    assert server.request_count == 1
    assert waiting(tmp_path) == 2


def test_two_threads_that_close_at_once_free_the_directory_once(tmp_path, monkeypatch):
    """The lock's descriptor, closed twice, would be somebody else's file the second time."""
    meet = threading.Barrier(2)

    class Http(Recorder):
        def close(self):  # called within POSTCache.close: here both threads are
            meet.wait(60)

    lock = []
    closed = []
    close = os.close

    def slow_close(fd):
        if fd in lock:
            closed.append(fd)
            if len(closed) == 1:
                # A second thread that comes now must find that there is nothing left to do.
                cache.fs.close()
        close(fd)

    class Clock(RealClock):
        first = threading.Barrier(2)
        waited = threading.local()

        def ticks_ms(self):
            if threading.current_thread() in closers and not hasattr(self.waited, "here"):
                self.waited.here = True
                self.first.wait(60)  # both are past the question whether it is closed already
            return super().ticks_ms()

    closers = []
    failures = []

    def run():
        try:
            cache.close()
        except Exception as e:
            failures.append(e)

    cache = POSTCache("http://localhost/", tmp_path, http=Http(), clock=Clock())
    lock.append(cache.fs._lock)
    monkeypatch.setattr(files.os, "close", slow_close)
    closers += [threading.Thread(target=run) for _ in range(2)]
    for thread in closers:
        thread.start()
    for thread in closers:
        thread.join(60)
    monkeypatch.undo()
    assert failures == []
    assert len(closed) == 1
    assert waiting(tmp_path) == 0


# --- files and directories ---

TRY = """
import sys
from postcache import POSTCache

try:
    POSTCache(None, sys.argv[1]).close()
    print("opened")
except OSError as e:
    print(e)
"""


@pytest.mark.parametrize("below", ["", "/logs/readings"])
def test_an_old_sqlite_cache_in_the_way_is_named_and_left_alone(runtime, tmp_path, below):
    path = tmp_path / "cache.sqlite"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE cache (id INTEGER PRIMARY KEY, body TEXT)")
        db.executemany("INSERT INTO cache (body) VALUES (?)", [("x" * n,) for n in range(500)])
    db.close()
    before = path.read_bytes()
    stamp = path.stat().st_mtime_ns
    done = runtime.run("-c", TRY, str(path) + below)
    # The board's mkdir says only where it was stopped; the name is there all the same.
    assert "a file is in the way" in done.stdout or below
    assert str(path) in done.stdout
    assert path.read_bytes() == before
    assert path.stat().st_mtime_ns == stamp
    assert os.listdir(tmp_path) == ["cache.sqlite"]


def test_missing_parents_are_made(runtime, tmp_path):
    assert runtime.run("-c", TRY, tmp_path / "a" / "b" / "c").stdout == "opened\n"
    assert (tmp_path / "a" / "b" / "c" / "cursor-b").exists()


@pytest.fixture
def unprivileged(runtime):
    """Returns run(*args): a program for which the permissions of files count, also for root's."""
    if os.geteuid() == 0:
        without = "-dac_override,-dac_read_search"
        setpriv = ["setpriv", "--bounding-set", without, "--inh-caps", without]
        if not shutil.which("setpriv") or subprocess.run([*setpriv, "true"]).returncode:
            pytest.skip("run the tests as an ordinary user: root may write everywhere")
        runtime.command = [*setpriv, *runtime.command]
    return runtime.run


def test_an_unwritable_parent_is_a_clear_error(unprivileged, tmp_path):
    tmp_path.chmod(0o555)
    done = unprivileged("-c", TRY, tmp_path / "log")
    tmp_path.chmod(0o755)
    assert str(tmp_path / "log") in done.stdout
    assert "13" in done.stdout, "EACCES says what is wrong"


READ_ONLY = """
import sys
from postcache import POSTCache

url, path, n = sys.argv[1:]
try:
    cache = POSTCache(url, path, timeout=20)
except OSError as e:
    print("refused", path in str(e))
    sys.exit()
for i in range(int(n)):
    try:
        cache.add_request({"n": i, "pad": "x" * 8000})
    except OSError:
        print("not stored")
        break
print("sent", cache.flush())
cache.close()
"""


@pytest.mark.parametrize("files", [0o600, 0o400], ids=["writable files", "read-only files"])
def test_a_read_only_directory_with_a_backlog_loses_nothing(unprivileged, server, tmp_path, files):
    """As after errors on a card, when the kernel mounts it read-only."""
    server.default = Answer(500)
    done = unprivileged("-c", READ_ONLY, server.url, tmp_path, 3)
    assert done.stdout == "sent False\n"
    server.default = Answer(200)
    for path in tmp_path.iterdir():
        path.chmod(files)
    tmp_path.chmod(0o555)
    done = unprivileged("-c", READ_ONLY, server.url, tmp_path, 100)
    assert done.stdout.split("\n") in (
        ["not stored", "sent True", ""],  # it says what it cannot do, and does what it can
        ["refused True", ""],
    )
    tmp_path.chmod(0o755)
    for path in tmp_path.iterdir():
        path.chmod(0o600)
    unprivileged("-c", READ_ONLY, server.url, tmp_path, 0)
    assert [row["n"] for row in server.receiver.lines][:3] == [0, 1, 2]
    numbers = [number for _, number, _ in server.receiver.records]
    assert numbers == list(range(1, len(numbers) + 1))
    assert waiting(tmp_path) == 0


PROTECTED = """
import os, sys
sys.path.append(sys.argv[2])
from support import RamBlocks
from postcache import POSTCache

blocks = RamBlocks(512, 1024)
os.VfsFat.mkfs(blocks)
os.mount(os.VfsFat(blocks), "/sd")
with POSTCache(None, "/sd/log") as cache:
    cache.add_request(1)
os.umount("/sd")
os.mount(blocks, "/sd", readonly=True)
with POSTCache(sys.argv[1], "/sd/log") as cache:
    print(cache.flush())
    try:
        cache.add_request(2)
    except OSError:
        print("not stored")
"""


def test_micropython_delivers_what_is_on_a_write_protected_card(server):
    runtime = find_runtime("micropython")
    done = runtime.run("-c", PROTECTED, server.url, PROGRAMS.parent / "core")
    assert done.stdout == "True\nnot stored\n"
    assert server.receiver.lines == [1]


# --- asyncio ---

RUN = """
import asyncio, sys
from postcache import POSTCache


async def main(url, path):
    # Store first, so that all of it is for run() to send.
    cache = POSTCache(url, path, async_interval=0.01)
    task = asyncio.create_task(cache.run())
    for n in range(20):
        cache.add_request(n)
        await asyncio.sleep(0)
    while len(cache):
        await asyncio.sleep(0.001)
    cache.close()
    await task
    print("done", len(cache))


asyncio.run(main(*sys.argv[1:]))
"""


def test_run_delivers_while_the_program_adds(runtime, server, tmp_path):
    done = runtime.run("-c", RUN, server.url, tmp_path)
    assert done.stdout == "done 0\n"
    assert done.stderr == ""
    assert server.receiver.lines == list(range(20))


RUN_RETRIES = RUN.replace("async_interval=0.01", "timeout=20").replace(
    "    while", "    print(len(cache))\n    while"
)


def test_run_delivers_what_add_request_could_not(runtime, server, tmp_path):
    """No later add, no flush and no worker: only run() tries again."""
    server.script(Answer(500))
    code = RUN_RETRIES.replace("range(20)", "range(1)")
    done = runtime.run("-c", code, server.url, tmp_path)
    assert done.stdout == "1\ndone 0\n"
    assert server.receiver.lines == [0]


def test_run_leaves_the_event_loop_free_while_a_server_hangs(server, tmp_path):
    with POSTCache(None, tmp_path) as cache:
        cache.add_request(1)
    server.script(Answer.hang(then=Answer(200, store=True)))

    async def main():
        cache = POSTCache(server.url, tmp_path, timeout=20)
        task = asyncio.create_task(cache.run())
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, server.wait_for, 1)
        for _ in range(100):
            await asyncio.sleep(0)  # the ticker
        assert cache.stats["retries"] == 0, "it waited until the exchange was over"
        assert len(cache) == 1
        assert not task.done()
        server.release()
        await loop.run_in_executor(None, cache.flush)
        assert len(cache) == 0
        cache.close()
        await task

    asyncio.run(main())
    assert server.receiver.lines == [1]


def test_a_cancelled_run_ends_at_once_and_the_log_goes_on(server, tmp_path):
    with POSTCache(None, tmp_path) as cache:
        cache.add_request(1)
    server.default = Answer.hang()

    async def main():
        cache = POSTCache(server.url, tmp_path, timeout=20)
        task = asyncio.create_task(cache.run())
        await asyncio.get_running_loop().run_in_executor(None, server.wait_for, 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        cache.close(0.2)  # ends the exchange, too; asyncio.run would wait for its thread

    asyncio.run(main())
    server.default = Answer(200)
    assert deliver(server, tmp_path) == [1]


CANCEL = """
import asyncio, sys
from postcache import POSTCache


async def main(url, path):
    cache = POSTCache(url, path, async_interval=0.01)
    task = asyncio.create_task(cache.run())
    cache.add_request(1)
    await asyncio.sleep(0)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        print("cancelled")
    cache.add_request(2)
    print(cache.flush())
    cache.close()


asyncio.run(main(*sys.argv[1:]))
"""


def test_after_a_cancelled_run_everything_else_works(runtime, server, tmp_path):
    done = runtime.run("-c", CANCEL, server.url, tmp_path)
    assert done.stdout == "cancelled\nTrue\n"
    assert done.stderr == ""
    assert server.receiver.lines == [1, 2]


def test_the_names_of_new_directories_are_synced(tmp_path, monkeypatch):
    synced = []
    fsync = os.fsync

    def note(fd):
        synced.append(os.readlink("/proc/self/fd/%d" % fd))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", note)
    POSTCache(None, tmp_path / "a" / "b").close()
    assert str(tmp_path) in synced and str(tmp_path / "a") in synced

    def fail(fd):
        monkeypatch.setattr(os, "fsync", note)
        raise OSError(5, "once")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="once"):
        POSTCache(None, tmp_path / "c")
    synced.clear()
    POSTCache(None, tmp_path / "c").close()
    assert str(tmp_path) in synced


def test_what_happens_to_names_is_synced(tmp_path, monkeypatch):
    synced = []
    broken = []
    fsync = os.fsync

    def note(fd):
        if broken:
            raise OSError(5, broken.pop())
        synced.append(os.readlink("/proc/self/fd/%d" % fd))
        fsync(fd)

    fs = files.Directory(tmp_path)
    monkeypatch.setattr(os, "fsync", note)
    broken.append("once")
    with pytest.raises(OSError, match="once"):
        fs.make("+0")
    here, folder = str(tmp_path), str(tmp_path / "+0")
    for call, args, where in (
        (fs.make, ("+0",), [here]),
        (fs.put, ("+0/0", b"1"), [folder, here]),
        (fs.put, ("+0/0", b"2"), []),
        (fs.remove, ("+0/0",), [folder]),
        (fs.put, ("+0/0", b"3"), [folder, here]),
    ):
        synced.clear()
        call(*args)
        assert synced == where
    fs.close()
