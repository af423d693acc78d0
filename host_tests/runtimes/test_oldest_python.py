"""The suite again, as far as it is about CPython, under the oldest one that is supported."""

import os
import re
import subprocess

import pytest

from conftest import HERE, count_cases, find_python39

FILES = (
    "core",
    "wire/test_answers.py",
    "project/test_examples.py",
    "storage/test_golden.py",
    "storage/test_kill.py",
    "wire/test_old_bugs.py",
    "storage/test_power_cuts.py",
    "storage/test_processes.py",
    "storage/test_stateful.py",
    "storage/test_threads.py",
)


def test_the_suite_passes_on_python_3_9():
    python = find_python39()
    site = os.environ.get("PYTHON39_SITE")
    if not python or not site:
        pytest.skip("install CPython 3.9 (or run `make test`, which looks for it)")
    done = subprocess.run(
        [python, "-m", "pytest", "-q", "-k", "not micropython", "-p", "no:cacheprovider"]
        + [str(HERE / name) for name in FILES],
        env=dict(os.environ, PYTHONPATH=site, POSTCACHE_KILLS="20"),
        cwd=HERE.parent,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert "CPython 3.9" in done.stdout
    count_cases("CPython 3.9", int(re.search(r"(\d+) passed", done.stdout).group(1)))
