"""The type hints of the public names, as a program's author meets them in pyright."""

import os
import subprocess
import sys

import pytest

from conftest import HERE


def test_pyright_accepts_what_is_right_in_a_typed_program_and_finds_what_is_wrong():
    pytest.importorskip("pyright", reason="install pyright (requirements-dev.txt)")
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--pythonpath", sys.executable]
        + [HERE / "programs" / "typed.py"],
        cwd=HERE.parent,  # where pyproject.toml says where the package is
        env=dict(os.environ, PYRIGHT_PYTHON_IGNORE_WARNINGS="1"),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 errors, 0 warnings" in done.stdout
