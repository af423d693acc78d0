"""`mpremote mip install package.json`, by the real mpremote, from this folder onto a board."""

import json
import subprocess
import sys

import pytest
from wasm_board import Board, need

from conftest import HERE

ROOT = HERE.parent
sys.path.insert(0, str(ROOT / "tools"))

import release  # noqa: E402

# Prints the number of the new record, and how many wait.
ADD = """
import postcache
c = postcache.POSTCache("http://server/readings", "cache")
print(c.add_request({"t": 21.5}), len(c))
"""


def mpremote(board, *args):
    done = subprocess.run(
        [sys.executable, "-m", "mpremote", "connect", board.port, *args],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def wanted(package):
    """Return {"/lib/...": bytes} of all that the package installs."""
    urls = json.loads((ROOT / package).read_text())["urls"]
    return {"/lib/" + target: (ROOT / source).read_bytes() for target, source in urls}


@pytest.mark.parametrize("package", sorted(release.lists(ROOT)))
def test_what_is_installed_from_here_stores_readings(package):
    need()
    with Board() as board:
        mpremote(board, "mip", "install", package)
        assert board.files() == wanted(package)
        if package == "package.json":
            assert mpremote(board, "exec", ADD) == "1 1\n"
            board.unplug()
            board.plug()
            assert mpremote(board, "exec", ADD) == "2 2\n"
