"""The core's tests again: the same functions under MicroPython, on each of its file systems."""

import ast
import pathlib

import pytest

from conftest import HERE, find_runtime

FILES = sorted((HERE / "core").glob("test_*.py"))


def _cases():
    for path in FILES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                yield path.name, node.name


@pytest.mark.parametrize("fs", ["posix", "lfs2", "fat"])
@pytest.mark.parametrize(("file", "name"), list(_cases()))
def test_core(file, name, fs, tmp_path):
    runtime = find_runtime("micropython")
    runtime.run(
        "-X",
        "heapsize=16M",  # for the file system in RAM
        pathlib.Path(HERE, "runner.py"),
        pathlib.Path(HERE, "core", file),
        name,
        timeout=300,  # on POSIX its os.sync() waits for all that anybody writes
        POSTCACHE_TEST_FS=fs,
        POSTCACHE_TEST_DIR=str(tmp_path),
    )
