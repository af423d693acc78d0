"""The board of wasm_board.py behaves as a board does: what the tests that use it rely on."""

import os
import signal
import socket
import subprocess
import sys

import pytest
import serial
from mpremote.transport import TransportExecError
from mpremote.transport_serial import SerialTransport
from wasm_board import Board, need

from conftest import HERE

LOOP = "import time\nprint('up')\nwhile True:\n    time.sleep(3600)\n"


@pytest.fixture
def board():
    need()
    with Board() as board:
        yield board


def mpremote(board, *args):
    """Run the real mpremote; returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "mpremote", "connect", board.port, *args],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Console:
    """The raw REPL, by mpremote's own code."""

    def __init__(self, board):
        self._board = board

    def __enter__(self):
        self._link = SerialTransport(self._board.port)
        self._link.enter_raw_repl(soft_reset=False)
        return self

    def run(self, code):
        return self._link.exec(code).decode()

    def __exit__(self, *args):
        sock = self._link.serial._socket
        self._link.close()
        sock.close()  # pyserial leaves it open when the other side is gone


def test_mpremote_runs_code_and_copies_files(board, tmp_path):
    assert mpremote(board, "exec", "print(6 * 7)") == "42\n"
    data = bytes(range(256)) * 3
    (tmp_path / "data").write_bytes(data)
    mpremote(board, "fs", "mkdir", ":d", "+", "fs", "cp", str(tmp_path / "data"), ":d/data")
    assert board.files() == {"/d/data": data} and board.folders() == ["/d"]
    mpremote(board, "fs", "cp", ":d/data", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == data
    mpremote(board, "fs", "rm", ":d/data", "+", "fs", "rmdir", ":d")
    assert board.files() == {} and board.folders() == []


@pytest.mark.parametrize("paste", [True, False])
def test_code_longer_than_any_buffer_arrives_whole(board, paste):
    with Console(board) as console:
        console._link.use_raw_paste = paste
        text = "".join(chr(33 + i * 7 % 90) for i in range(20000)).replace("\\", "/")
        assert console.run("print(len(%r), %r)" % (text, text)) == "20000 %s\r\n" % text
        assert console._link.use_raw_paste == paste
        with pytest.raises(TransportExecError, match="ZeroDivisionError"):
            console.run("1 / 0")


def test_errors_have_the_numbers_that_a_board_gives(board):
    board.write("/f", "x")
    with Console(board) as console:
        for call, number in (
            ("open('/none')", 2),
            ("os.mkdir('/d')\nos.mkdir('/d')", 17),
            ("os.mkdir('/d/e')\nos.rmdir('/d')", 39),
            ("open('/f/x', 'w')", 20),
            ("open('/d', 'w')", 21),
            ("open('/rom/machine.py', 'a')", 30),
        ):
            code = "import os\ntry:\n %s\nexcept OSError as e: print(e.errno)"
            assert console.run(code % call.replace("\n", "\n ")) == "%d\r\n" % number, call


def test_power_up_runs_boot_and_main_and_a_soft_reset_does_so_again(board):
    board.unplug()
    board.write("/boot.py", "print('boot')\n")
    board.write("/main.py", "print('main')\nwdt = 1\n")
    board.plug()
    assert board.wait_for(">>> ")
    assert board.output.startswith("boot\nmain\n\nMicroPython v1.25.0")
    with socket.create_connection(board.address) as console:
        console.sendall(b"print('w', wdt)\r\x04")  # the program's names are there at the prompt
        assert board.wait_for("MPY: soft reboot\nboot\nmain\n")
        assert "\nw 1\n" in board.output
    # From the raw prompt main.py is not run, as on a board.
    assert mpremote(board, "exec", "print('wdt' in globals())") == "False\n"
    assert board.output.count("\nboot\n") == 2 and board.output.count("main\n") == 2


def test_an_exception_in_main_is_printed_and_leaves_the_prompt(board):
    board.unplug()
    board.write("/main.py", "def f():\n    raise ValueError('no')\nf()\n")
    board.plug()
    assert board.wait_for(">>> ")
    assert board.output.startswith(
        'Traceback (most recent call last):\n  File "main.py", line 3, in <module>\n'
        '  File "main.py", line 2, in f\nValueError: no\n'
    )


@pytest.mark.parametrize(
    "loop",
    ["time.sleep(3600)", "time.sleep_ms(1)", "print(1)", "open('f', 'w').close()", "time.time()"],
)
def test_ctrl_c_ends_a_program_that_loops(board, loop):
    board.unplug()
    board.write("/main.py", "import time\nprint('up')\nwhile True:\n    %s\n" % loop)
    board.plug()
    assert board.wait_for("up\n")
    assert mpremote(board, "exec", "print('free')") == "free\n"
    assert "KeyboardInterrupt" in board.output


def test_a_program_may_catch_ctrl_c_and_what_is_typed_meanwhile_is_not_lost(board):
    board.unplug()
    code = "import time\nprint('up')\ntry:\n    while True: time.sleep(3600)\n"
    board.write("/main.py", code + "except KeyboardInterrupt:\n    print('stopped')\n")
    board.plug()
    assert board.wait_for("up\n")
    with socket.create_connection(board.address) as console:
        console.sendall(b"print(1 + \x031)\r")
        assert board.wait_for("\n2\n")
        assert "up\nstopped\n" in board.output


def test_a_program_may_read_what_is_typed(board):
    board.unplug()
    code = "import sys\nprint('up')\nprint(sys.stdin.readline(), sys.stdin.read(2))\n"
    board.write("/main.py", code + "print('again')\nsys.stdin.read(1)\n")
    board.plug()
    assert board.wait_for("up\n")
    with socket.create_connection(board.address) as console:
        console.sendall(b"hello\n")
        console.sendall(b"ab")
        assert board.wait_for("hello\n ab\nagain\n")
        console.sendall(b"\x03")  # also where it waits for more
        assert board.wait_for("KeyboardInterrupt")


def test_a_hard_reset_keeps_the_connection(board):
    board.write("/main.py", "print('main')\n")
    with Console(board) as console:
        console._link.exec_raw_no_follow("x = 1; import machine; machine.reset()")
        assert board.wait_for("main\n")
        console._link.enter_raw_repl(soft_reset=False)
        assert console.run("print('x' in globals())") == "False\r\n"


def test_a_second_client_is_refused_and_the_port_is_free_again(board):
    with socket.create_connection(board.address) as console:
        console.sendall(b"print(6 * 7)\r")
        assert board.wait_for("\n42\n")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", board.number))
    assert mpremote(board, "exec", "print(1)") == "1\n"


def test_unplugged_the_port_is_gone_and_the_flash_stays(board):
    name = board.port
    with Console(board) as console:
        console.run("f = open('/f', 'w'); f.write('abc'); f.flush()")
        board.unplug()
        with pytest.raises(serial.SerialException):
            console.run("print(1)")
    assert not board.plugged
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", board.number))
    board.plug()
    assert board.port == name
    assert mpremote(board, "exec", "print(open('/f').read())") == "abc\n"


def test_the_power_goes_after_so_many_bytes(board):
    with socket.create_connection(board.address) as console:
        console.sendall(b"\x01")
        assert board.wait_for("raw REPL")
        code = b"open('/f', 'w').write('abc')\x04"
        board.cut_after(2 * len(code) - 1)
        console.sendall(code + code.replace(b"/f", b"/g"))
        assert board.wait_until_unplugged()
    assert board.files() == {"/f": b"abc"}  # all but the last byte of the second one


@pytest.mark.parametrize(
    ("n", "files"),
    [
        (1, {}),  # making f
        (2, {"/f": b"ab"}),  # half of the write
        (3, {"/f": b"abcd"}),  # renaming
        (4, {"/g": b"abcd"}),  # removing
        (5, {}),
    ],
)
def test_the_power_goes_amid_an_operation_of_the_flash(board, n, files):
    code = "import os\nwith open('/f', 'w') as f: f.write('abcd')\n"
    code += "os.rename('/f', '/g')\nos.remove('/g')\nos.mkdir('/d')\n"
    with Console(board) as console:
        board.cut_after_writes(n)
        with pytest.raises(serial.SerialException):
            console.run(code)
    assert board.wait_until_unplugged()
    assert board.files() == files and board.folders() == []


def test_a_cut_may_be_taken_back(board):
    board.cut_after(100)
    board.cut_after(-1)
    board.cut_after_writes(1)
    board.cut_after_writes(0)
    assert mpremote(board, "exec", "f = open('/f', 'w'); f.write('a' * 999); f.close()") == ""
    assert board.files() == {"/f": b"a" * 999}


def test_a_full_flash_says_so_and_statvfs_tells_the_truth(board):
    board.write("/old", b"x" * 4096)
    board.free(8192)
    with Console(board) as console:
        free = "import os\ns = os.statvfs('/')\nprint(s[0], s[1] * s[3], s[1] * s[4])"
        assert console.run(free) == "4096 8192 8192\r\n"
        console.run("f = open('/f', 'w'); w = lambda: f.write('x' * 4096); w(); w()")
        assert console.run(free) == "4096 0 0\r\n"
        for code in ("w()", "import os; os.mkdir('/d')", "open('/g', 'w').write('x')"):
            with pytest.raises(TransportExecError, match="OSError: 28"):
                console.run(code)
        console.run("import os; os.remove('/old'); open('/g', 'w').write('x')")
    assert len(board.files()["/f"]) == 8192 and board.files()["/g"] == b"x"


def test_asyncio_runs_to_its_end_and_is_interrupted(board):
    code = "import asyncio\nasync def f(n):\n await asyncio.sleep_ms(n)\n return n\n"
    code += "async def g(): return await asyncio.gather(f(2), f(1))\n"
    with Console(board) as console:
        assert console.run(code + "print(asyncio.run(g()))") == "[2, 1]\r\n"
        with pytest.raises(TransportExecError, match="ZeroDivisionError"):
            console.run("async def h(): 1 / 0\nasyncio.run(h())")


@pytest.mark.parametrize("program", [LOOP, "print('up')\nwhile True: pass\n"])
def test_it_ends_when_whoever_started_it_is_killed(program, tmp_path):
    need()
    code = "import sys; from wasm_board import Board; b = Board(); b.write('/main.py', %r)\n"
    code += "with b: b.wait_for('up'); print(b.process.pid, flush=True); input()"
    parent = subprocess.Popen(
        [sys.executable, "-c", code % program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=dict(os.environ, PYTHONPATH=str(HERE / "machines"), TMPDIR=str(tmp_path)),
        text=True,
    )
    with parent:
        pid = int(parent.stdout.readline())
        watch = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else None
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    if watch is not None:
        import select

        assert select.select([watch], [], [], 30)[0], "the interpreter outlives its owner"
        os.close(watch)


def test_the_board_of_each_release_takes_a_program(tmp_path):
    import get_runtimes

    for version in get_runtimes.WEBASSEMBLY:
        need(version)
        with Board(version) as board:
            code = "import sys; print('%d.%d.%d' % sys.implementation.version[:3])"
            assert mpremote(board, "exec", code) == version.partition("-")[0] + "\n"
            board.free(4096)
            with Console(board) as console:
                code = "import os; s = os.statvfs('/'); print(s[1], s[2], s[3], s[4])"
                assert console.run(code) == "4096 3 1 1\r\n"
