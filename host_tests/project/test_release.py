"""Nothing is released that says different things about itself: tools/release.py."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from conftest import HERE

ROOT = HERE.parent
FILES = ("CHANGELOG.md", "LICENSE", "README.md", "manifest.py", "package.json", "pyproject.toml")
GIT = dict(
    os.environ,
    GIT_AUTHOR_NAME="a",
    GIT_AUTHOR_EMAIL="a@example.com",
    GIT_COMMITTER_NAME="a",
    GIT_COMMITTER_EMAIL="a@example.com",
)


def _release(project, *arguments):
    """Run the tool on `project`; return (exit status, what it said)."""
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "release.py", "--project", project, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done.returncode, done.stdout + done.stderr


def _change(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def _git(project, *arguments):
    subprocess.run(["git", *arguments], cwd=project, env=GIT, check=True, capture_output=True)


@pytest.fixture
def project(tmp_path):
    """A copy of what a release is made of, as version 1.2.3 of 2020-02-29, committed."""
    if not shutil.which("git"):
        pytest.skip("install git")
    copy = tmp_path / "project"
    copy.mkdir()
    for name in FILES:
        shutil.copy(ROOT / name, copy)
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "lib", copy / "lib", ignore=ignore)
    import postcache

    version = postcache.__version__
    _change(copy / "lib/postcache/__init__.py", version, "1.2.3")
    _change(copy / "CHANGELOG.md", "[%s] - unreleased" % version, "[1.2.3] - 2020-02-29")
    (copy / ".gitignore").write_text("build\n*.egg-info\ndist\n__pycache__\n")
    assert _release(copy, "--write")[0] == 0
    _git(copy, "init", "-q")
    _git(copy, "add", ".")
    _git(copy, "commit", "-q", "-m", "all")
    return copy


def test_what_is_here_agrees():
    assert _release(ROOT, "--check")[0] == 0


@pytest.mark.parametrize(
    ("file", "old", "new", "word"),
    [
        ("package.json", '"version": "1.2.3"', '"version": "1.2.4"', "package.json"),
        ("package.json", "postcache/log/line.py", "postcache/log/lime.py", "package.json"),
        ("package.json", "[\n", '[\n    ["main.py", "main.py"],\n', "package.json"),
        ("CHANGELOG.md", "[1.2.3]", "[1.2.2]", "1.2.2"),
        ("lib/postcache/__init__.py", '= "1.2.3"', '= "1.2." + "3"', "literal"),
        ("lib/postcache/__init__.py", "1.2.3", "1.2.4", "1.2.4"),
        ("pyproject.toml", '"postcache.ports"', '"postcache.harbours"', "postcache.ports"),
        ("pyproject.toml", 'dynamic = ["version"]', 'version = "1.2.3"', "version"),
    ],
)
def test_what_differs_is_named(project, file, old, new, word):
    _change(project / file, old, new)
    status, said = _release(project, "--check")
    assert status == 1 and word in said and "Traceback" not in said


@pytest.mark.parametrize(
    ("file", "old", "new", "word"),
    [
        ("README.md", "\n", "\n\n", "not committed"),
        ("CHANGELOG.md", "2020-02-29", "unreleased", "unreleased"),
        ("CHANGELOG.md", "2020-02-29", "2020-02-30", "2020-02-30"),
        ("CHANGELOG.md", "2020-02-29", "9999-01-01", "future"),
    ],
)
def test_no_release_of_what_is_not_ready(project, file, old, new, word):
    _change(project / file, old, new)
    status, said = _release(project)
    assert status == 1 and word in said
    assert not (project / "dist").exists()


def test_no_release_of_a_development_version_nor_of_one_that_was_released(project):
    _git(project, "tag", "v1.2.3")
    assert "v1.2.3" in _release(project)[1]
    for name in ("lib/postcache/__init__.py", "CHANGELOG.md"):
        _change(project / name, "1.2.3", "1.2.4.dev0")
    assert _release(project, "--write")[0] == 0
    _git(project, "commit", "-q", "-a", "-m", "next")
    status, said = _release(project)
    assert status == 1 and "1.2.4.dev0 is not" in said


def test_a_release_is_built_and_tried(project):
    status, said = _release(project)
    assert status == 0, said
    assert [path.name for path in (project / "dist").iterdir()] == [
        "postcache-1.2.3-py3-none-any.whl"
    ]


def test_a_wheel_with_something_else_in_it_is_no_release(project):
    (project / "lib/secrets_of_mine.py").write_text("")
    more = 'py-modules = ["secrets_of_mine"]\npackages = ['
    _change(project / "pyproject.toml", "packages = [", more)
    _git(project, "add", ".")
    _git(project, "commit", "-q", "-m", "worse")
    status, said = _release(project)
    assert status == 1 and "holds what it should not: secrets_of_mine.py" in said


def test_a_part_gets_a_list_of_its_own_once_its_modules_are_there(project):
    package = project / "lib/postcache"
    for name in ("store.py", "region.py", "cached.py"):
        (package / name).write_text("")
    assert _release(project, "--write")[0] == 0
    assert not (project / "cache.json").exists()  # the part is not whole
    (package / "resource.py").write_text("")
    assert _release(project, "--check")[0] == 1
    assert _release(project, "--write")[0] == 0
    cache = json.loads((project / "cache.json").read_text())
    assert [target for target, _ in cache["urls"]] == [
        "postcache/" + name for name in ("store.py", "region.py", "cached.py", "resource.py")
    ]
    core = (project / "package.json").read_text()
    assert "region.py" not in core and "client.py" in core


def test_the_frozen_files_are_those_of_mip():
    listed = json.loads((ROOT / "package.json").read_text())
    frozen = {}
    names = {"package": lambda name, **more: frozen.update(more)}
    names["metadata"] = lambda **more: frozen.update(more)
    folder = os.getcwd()
    os.chdir(ROOT)  # as the freezer does
    try:
        exec((ROOT / "manifest.py").read_text(), names)
    finally:
        os.chdir(folder)
    assert frozen["version"] == listed["version"]
    assert ["postcache/" + file for file in frozen["files"]] == [t for t, _ in listed["urls"]]
    for file in frozen["files"]:
        assert (ROOT / frozen["base_path"] / "postcache" / file).is_file()
