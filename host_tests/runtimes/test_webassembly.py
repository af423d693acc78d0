"""
The core's tests on several releases of MicroPython: the oldest supported, a later one, the newest.

Each file runs on a board of its own (wasm_board.py), whose logs lie on a file system in RAM. The
releases are those that npm has of the WebAssembly port. Where sweeps over every call that may fail
are long, a third of each runs, but nightly all.
"""

import re
import socket

import pytest
from wasm_board import Board, need

from conftest import HERE, LIB, SILENCE, amount, count_cases

RELEASES = ["1.24.0", "1.27.0", "1.29.0-6"]
FILES = sorted(path.name for path in (HERE / "core").glob("test_*.py"))

# What cannot pass there, why, and on which releases. It runs nevertheless: what passes may not be
# listed.
UNABLE = {
    "test_memory_does_not_grow_with_the_body": (
        RELEASES,
        "the port collects garbage between programs only",
    ),
    "test_strangers_in_the_way_are_left_alone": (
        ["1.24.0"],
        "its open() says ENOENT, not ENOTDIR, for a file below a file",
    ),
}

BOOT = """
import os, sys
os.getenv = lambda name: {"POSTCACHE_TEST_DIR": "/ram", "POSTCACHE_SAMPLE": "%s"}.get(name)
def run(*args):
    sys.argv[:] = ["/runner.py"] + list(args)
    try:
        execfile("/runner.py")
    except SystemExit:  # at the prompt that would be a soft reset
        pass
"""


def _run(release, file):
    """Run the tests of `file`; return what the board printed."""
    board = Board(release, flash=None, ram=True)
    for path in LIB.glob("postcache/**/*.py"):
        board.write("/lib/" + path.relative_to(LIB).as_posix(), path.read_bytes())
    board.write("/runner.py", (HERE / "runner.py").read_bytes())
    board.write("/core/support.py", (HERE / "core" / "support.py").read_bytes())
    board.write("/core/" + file, (HERE / "core" / file).read_bytes())
    board.write("/boot.py", BOOT % amount("1", nightly=""))
    with board, socket.create_connection(board.address, 60) as console:
        # One after the other, since garbage is collected in between; but all are sent at once.
        lines = ["run('/core/%s', '%s')" % (file, name) for name in _names(file)]
        lines += [
            "print('release %d.%d.%d' % sys.implementation.version[:3])",
            "print('[' 'end]')",
        ]
        console.sendall(b"\x01" + "\x04".join([*lines, ""]).encode())
        said = None  # it may take any time, as a busy machine does, but not without a line
        while not board.wait_for("[end]", SILENCE) and board.output != said:
            said = board.output
        return board.output.replace("\x04", "")


def _names(file):
    return re.findall(r"^def (test_\w+)", (HERE / "core" / file).read_text(), re.MULTILINE)


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("file", FILES)
def test_core(release, file):
    need(release)
    output = _run(release, file)
    passed = re.findall(r"^>?OKok +(\w+)$", output, re.MULTILINE)
    failed = re.findall(r"^>?OKFAIL (\w+)$", output, re.MULTILINE)
    assert "release %s\n" % release.partition("-")[0] in output, output[-3000:]
    unable = {name for name, (releases, _) in UNABLE.items() if release in releases}
    assert not set(failed) - unable, output[-6000:]
    assert not set(passed) & unable, "take it off the list: it passes"
    assert sorted(passed + failed) == sorted(_names(file)), output[-3000:]
    count_cases("MicroPython %s (WebAssembly)" % release, len(passed))


def test_what_cannot_pass_exists():
    names = {name for file in FILES for name in _names(file)}
    assert set(UNABLE) <= names
