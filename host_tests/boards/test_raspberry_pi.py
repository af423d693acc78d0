"""
boards/raspberry_pi/main.py as systemd, a terminal and a power cut see it.

The program is a process of its own and the notify socket a real one; systemd itself only reads the
unit here.
"""

import json
import os
import re
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys

import pytest
from fake_server import Answer
from logs import load

from conftest import HERE, LIB

FOLDER = HERE.parent / "boards" / "raspberry_pi"
MAIN = FOLDER / "main.py"
UNIT = FOLDER / "postcache.service"
SECONDS = 30  # that anything may take


class Service:
    """The program, started as systemd would; a context manager that ends it."""

    def __init__(self, folder, *, abstract=False, journal=False, notify=True, **settings):
        self.folder = folder
        settings = {"every": 0.02, "send_every": 0.05, **settings}
        (folder / "settings.json").write_text(json.dumps(settings))
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        path = str(folder / "notify")
        name = path
        if abstract:
            path, name = "\0postcache-%d" % os.getpid(), "@postcache-%d" % os.getpid()
        elif os.path.exists(path):
            os.unlink(path)
        self.socket.bind(path)
        self.socket.settimeout(SECONDS)
        self.said, stderr = os.pipe()
        env = {k: v for k, v in os.environ.items() if k not in ("NOTIFY_SOCKET", "JOURNAL_STREAM")}
        env.update(PYTHONPATH=str(LIB), CREDENTIALS_DIRECTORY=str(folder))
        env.update(STATE_DIRECTORY=str(folder), PYTHONWARNINGS="error")
        if notify:
            env.update(NOTIFY_SOCKET=name, WATCHDOG_USEC="100000")
        if journal:
            found = os.fstat(stderr)
            env["JOURNAL_STREAM"] = "%d:%d" % (found.st_dev, found.st_ino)
        self.process = subprocess.Popen([sys.executable, str(MAIN)], env=env, stderr=stderr)
        os.close(stderr)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.socket.close()
        os.close(self.said)

    def next(self):
        """The lines of the next message to systemd."""
        return self.socket.recv(4096).decode().split("\n")

    def wait_for(self, pattern):
        """Read messages until a line of one matches; returns (match, all its lines)."""
        for _ in range(2000):
            lines = self.next()
            for line in lines:
                match = re.fullmatch(pattern, line)
                if match:
                    return match, lines
        raise AssertionError("never told: " + pattern)

    def wait_for_waiting(self, count):
        """Wait until so many readings wait at least; returns how many did then."""
        for _ in range(2000):
            match, _ = self.wait_for(r"STATUS=(\d+) waiting; .*")
            if int(match[1]) >= count:
                return int(match[1])
        raise AssertionError("fewer wait")

    def end(self, number=signal.SIGTERM):
        """Send a signal, unless it is 0; returns (exit status, what the program logged)."""
        if number:
            self.process.send_signal(number)
        status = self.process.wait(SECONDS)
        text = b""
        while select.select([self.said], [], [], SECONDS)[0]:
            more = os.read(self.said, 65536)
            if not more:
                break
            text += more
        return status, text.decode()


def numbers(server):
    return [number for _, number, _ in server.receiver.records]


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told_when_it_is_ready_well_and_stopping(abstract, tmp_path, server):
    with Service(tmp_path, abstract=abstract, endpoint=server.url) as service:
        assert service.next() == ["READY=1"]
        _, lines = service.wait_for(r"STATUS=\d+ waiting; all is well")
        assert lines[1:] == ["WATCHDOG=1"]
        assert server.wait_for(1)
        service.process.send_signal(signal.SIGTERM)
        service.wait_for("STOPPING=1")  # while the queue has no room for it, it is not sent
        status, text = service.end(0)
    assert status == 0
    assert text.endswith("INFO stopped; 0 readings wait\n")
    assert len(server.receiver.lines) > 0
    for line in server.receiver.lines:
        assert line.keys() - {"celsius"} == {"ts", "load"}
    assert json.loads(server.requests[0].body)["device"] == socket.gethostname()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly_also_in_a_terminal(number, tmp_path, server):
    with Service(tmp_path, notify=False, endpoint=server.url) as service:
        assert server.wait_for(2)
        status, text = service.end(number)
    assert status == 0
    assert re.match(r"INFO .*: 0 readings wait in /.*/cache\n", text)
    assert numbers(server) == list(range(1, len(numbers(server)) + 1))


def test_what_waits_at_the_end_is_delivered(tmp_path, server):
    with Service(tmp_path, endpoint=server.url, send_every=3600) as service:
        service.wait_for_waiting(3)
        status, text = service.end()
    assert status == 0
    assert "stopped; 0 readings wait" in text
    assert len(numbers(server)) >= 3


def test_there_are_signs_of_life_also_between_two_readings(tmp_path):
    with Service(tmp_path, every=3600) as service:
        for _ in range(4):
            service.wait_for("WATCHDOG=1")


def test_a_kill_at_any_moment_loses_nothing(tmp_path, server):
    server.down()
    waited = 0
    for count in (5, 30, 31, 60):
        with Service(tmp_path, endpoint=server.url) as service:
            waited = service.wait_for_waiting(max(count, waited))
            status, _ = service.end(signal.SIGKILL)
        assert status == -signal.SIGKILL
    server.up()
    with Service(tmp_path, endpoint=server.url) as service:
        assert server.wait_for(1)
        status, text = service.end()
    assert status == 0
    assert int(re.search(r": (\d+) readings wait in", text)[1]) >= waited
    assert numbers(server) == list(range(1, len(numbers(server)) + 1))
    assert len(numbers(server)) >= waited


def test_there_is_no_sign_of_life_while_nothing_can_be_stored(tmp_path):
    with Service(tmp_path) as service:
        service.wait_for("WATCHDOG=1")
        pid = service.process.pid
        _, most = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, most))  # every write fails from now on
        service.wait_for(r"STATUS=.*File too large.*")
        for _ in range(10):
            assert "WATCHDOG=1" not in service.next()
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (most, most))
        service.wait_for("WATCHDOG=1")
        status, text = service.end()
    assert status == 0
    assert text.count("File too large") == 1  # told once, not for each
    assert "readings again" in text


def test_what_a_person_must_mend_is_in_the_status(tmp_path, server):
    server.default = Answer(401)
    with Service(tmp_path, endpoint=server.url) as service:
        service.wait_for(r"STATUS=\d+ waiting; HTTP 401, and a person must mend that")
        status, text = service.end()
    assert status == 0
    assert "WARNING error error: HTTP 401, blocked: True" in text


def test_the_journal_gets_priorities(tmp_path, server):
    server.default = Answer(500)
    with Service(tmp_path, journal=True, endpoint=server.url) as service:
        service.wait_for(r"STATUS=\d+ waiting; HTTP 500")
        _, text = service.end()
    lines = text.splitlines()
    assert lines[0].startswith("<6>") and "0 readings wait" in lines[0]
    assert any(line.startswith("<4>error error: HTTP 500") for line in lines)


def test_a_second_one_says_who_has_the_log(tmp_path):
    with Service(tmp_path) as service:
        service.wait_for("READY=1")
        # A socket of its own, or it would take the first one's.
        (tmp_path / "two").mkdir()
        with Service(tmp_path / "two", cache=str(tmp_path / "cache")) as second:
            status, text = second.end(0)
    assert status == 1
    assert "the log cannot be opened: [Errno 16]" in text


@pytest.mark.parametrize(
    "bad",
    [
        {"endpoint": "ftp://user:hidden@example.com/"},
        {"endpoint": 5},
        {"headers": {"X": "hid\nden"}},
        {"headers": "hidden"},
        {"every": "hidden"},
        {"send_every": 0},
        {"endpoint": "https://example.com/", "cafile": "/nowhere.pem"},
        {"device": ["hidden"]},
    ],
)
def test_a_setting_that_is_no_good_costs_no_reading(bad, tmp_path):
    settings = {"every": 0.02, **bad}
    with Service(tmp_path, **settings) as service:
        service.wait_for("READY=1")
        service.wait_for_waiting(1)
        status, text = service.end()
    assert status == 0
    assert "settings.json" in text
    assert "hidden@" not in text and "den'" not in text


def test_settings_that_cannot_be_read_cost_no_reading(tmp_path):
    with Service(tmp_path) as service:
        service.wait_for("READY=1")
        service.end()
    (tmp_path / "settings.json").write_text("{")
    env = dict(os.environ, PYTHONPATH=str(LIB))
    process = subprocess.Popen(
        [sys.executable, str(MAIN), str(tmp_path / "settings.json")],
        cwd=tmp_path,
        env=env,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        lines = [process.stderr.readline() for _ in range(2)]
    finally:
        process.terminate()
        assert process.wait(SECONDS) == 0
        process.stderr.close()
    assert lines[0] == "ERROR settings.json cannot be read (JSONDecodeError); readings are kept\n"
    assert "readings wait in cache" in lines[1]


def test_a_machine_without_a_thermometer_has_a_load(tmp_path, monkeypatch):
    program = load(MAIN)
    monkeypatch.setattr(program, "THERMAL", tmp_path / "temp")
    assert program.read().keys() == {"load"}
    (tmp_path / "temp").write_text("48312\n")
    assert program.read()["celsius"] == 48.312


def test_a_sensor_that_fails_is_told_once_and_is_not_systemds_affair(monkeypatch):
    program = load(MAIN)
    messages = []
    monkeypatch.setattr(program.log, "error", lambda text, *args: messages.append(text % args))
    monkeypatch.setattr(program.log, "info", lambda text, *args: messages.append(text % args))
    added = []

    class Cache:
        add_request = staticmethod(added.append)

    logger = program.Logger(Cache, None)
    readings = [{"n": 1}, OSError(5, "bus"), OSError(5, "bus"), {"n": 2}]

    def read():
        reading = readings.pop(0)
        if isinstance(reading, Exception):
            raise reading
        return reading

    monkeypatch.setattr(program, "read", read)
    assert [logger.step() for _ in range(4)] == [True] * 4
    assert added == [{"n": 1}, {"n": 2, "failed": 2}]
    assert messages == ["no reading: OSError: [Errno 5] bus", "readings again, after 2 failures"]


def test_the_example_has_every_setting_and_its_default():
    assert json.loads((FOLDER / "settings.example.json").read_text()) == load(MAIN).DEFAULTS


@pytest.fixture
def unit(tmp_path):
    """The unit, with a program that is there."""
    if not shutil.which("systemd-analyze"):
        pytest.skip("install systemd for its systemd-analyze, which reads the unit")
    text = UNIT.read_text()
    command = "ExecStart=/opt/postcache/env/bin/python /opt/postcache/main.py\n"
    assert command in text
    path = tmp_path / "postcache.service"
    path.write_text(text.replace(command, "ExecStart=%s %s\n" % (sys.executable, MAIN)))
    return path


def test_systemd_finds_nothing_wrong_with_the_unit(unit):
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_systemd_finds_little_that_the_service_could_harm(unit):
    # 0 is a service that can do nothing, 10 one that may do everything.
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager"]
    done = subprocess.run([*command, unit], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-300:] + done.stderr
    assert re.search(r"Overall exposure level for postcache.service: [01]\.\d OK", done.stdout)
