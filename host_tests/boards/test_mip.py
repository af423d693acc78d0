"""The package alone, by the real mpremote onto a board: `mip install`, and by hand."""

import json
import re
import shutil
import subprocess
import sys

import pytest
from wasm_board import Board, need

from conftest import HERE, LIB

ROOT = HERE.parent
sys.path.insert(0, str(ROOT / "tools"))

import release  # noqa: E402

# Prints the number of the new record, and how many wait.
ADD = """
import postcache
c = postcache.POSTCache("http://server/readings", "cache")
print(c.add_request({"t": 21.5}), len(c))
"""


def mpremote(board, *args, cwd=ROOT):
    done = subprocess.run(
        [sys.executable, "-m", "mpremote", "connect", board.port, *args],
        cwd=cwd,
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


def commands(heading):
    """Return the commands that docs/boards.md shows in a section, without their comments."""
    text = (ROOT / "docs" / "boards.md").read_text(encoding="utf-8")
    text = text.split("%s\n" % heading)[1].split("\n#")[0]
    lines = re.findall(r"^    (.+)$", text, re.MULTILINE)
    return [line.split("  #")[0].rstrip() for line in lines]


def test_what_the_docs_copy_by_hand_is_what_mip_installs(tmp_path):
    need()
    shutil.copytree(LIB, tmp_path / "lib")
    collect = [line for line in commands("## In the firmware") if "rom/lib" in line]
    assert len(collect) == 2
    for line in collect:
        subprocess.run(line, shell=True, cwd=tmp_path, check=True, timeout=60)
    package = wanted("package.json")
    rom = tmp_path / "rom"
    collected = [path for path in rom.rglob("*") if path.is_file()]
    assert {"/" + path.relative_to(rom).as_posix(): path.read_bytes() for path in collected} == (
        package
    )
    # One folder of them is enough to see where they go.
    for path in collected:
        if path.parent.name != "log":
            path.unlink()
    copy = [line.split() for line in commands("### The package alone") if "mip" not in line]
    assert [line[:2] for line in copy] == [["mpremote", "mkdir"], ["mpremote", "cp"]]
    with Board() as board:
        for line in copy:
            mpremote(board, *line[1:], cwd=tmp_path)
        found = board.files()
    assert found == {path: data for path, data in package.items() if "/log/" in path}
