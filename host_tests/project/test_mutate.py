"""
tools/mutate.py tells a mutation that a test caught from one that none did, and from its own fault.

What it finds is another matter: that it is run for, and not by pytest.
"""

import pathlib
import shutil
import subprocess
import sys

import pytest

from conftest import HERE

sys.path.insert(0, str(HERE.parent / "tools"))
import mutate

TEST = "host_tests/test_it.py::test_it"


@pytest.fixture
def project(tmp_path):
    """A project of one module and one test."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "host_tests").mkdir()
    shutil.copy(HERE.parent / "pyproject.toml", tmp_path)
    (tmp_path / "lib" / "it.py").write_text("def one():\n    import os\n\n    return 1\n")
    test = "def test_it():\n    import it\n\n    assert it.one() == 1\n"
    (tmp_path / "host_tests" / "test_it.py").write_text(test)
    return tmp_path


@pytest.mark.parametrize(
    ("old", "new", "verdict"),
    [
        ("return 1", "return 2", "caught"),
        ("return 1", "raise OSError(5)", "caught"),
        ("return 1", "return 3 - 2", "survived"),
        ("return 1", "return nothing", "no assertion"),
    ],
)
def test_a_mutation_counts_when_a_test_fails_by_what_it_asserts(project, old, new, verdict):
    before = (project / "lib" / "it.py").read_text()
    mutation = mutate.Mutation("it", "lib/it.py", "", [old], [new], [TEST])
    assert mutate.judge(mutation, project).verdict == verdict
    assert (project / "lib" / "it.py").read_text() == before


def test_tests_that_fail_before_anything_is_changed_are_told(project):
    assert mutate.unmutated([project], [TEST]) == {}
    path = project / "lib" / "it.py"
    path.write_text("def one():\n    return 2\n")
    assert list(mutate.unmutated([project], [TEST])) == [TEST]
    assert list(mutate.unmutated([project], [TEST + "_not"])) == [TEST + "_not"]


def test_text_that_is_not_there_once_or_makes_no_python_is_an_error(project):
    for old, new in (("return 9", "pass"), ("return 1", "return ("), ("return 1\n", "pass")):
        mutation = mutate.Mutation("it", "lib/it.py", "", [old], [new], [TEST])
        with pytest.raises(ValueError, match="it: "):
            mutate.mutated(mutation, project)
    twice = pathlib.Path(project, "lib", "it.py")
    twice.write_text(twice.read_text() * 2)
    with pytest.raises(ValueError, match="2 times"):
        mutate.mutated(mutate.Mutation("it", "lib/it.py", "", ["return 1"], [""], [TEST]), project)


def test_the_table_is_up_to_date():
    mutations = mutate.table()
    assert [line for mutation in mutations for line in mutate.outdated(mutation)] == []
    assert len(mutations) > 100


TABLE = """# What a mutation is.

it = host_tests/test_it.py

==== it.py

one is two: it is one
    - return 1
    + return 2
  it::test_it
"""


def test_a_table_says_what_changes_and_which_tests_must_notice(tmp_path):
    path = tmp_path / "table.txt"
    path.write_text(TABLE)
    assert mutate.table(path) == [
        mutate.Mutation(
            "it: one is two",
            "lib/postcache/it.py",
            "it is one",
            ["return 1"],
            ["return 2"],
            [TEST],
            7,
        )
    ]
    for old, new in (
        ("one is two: it is one", "one is two"),
        ("    - return 1\n    + return 2\n", ""),
        ("  it::test_it\n", ""),
        ("==== it.py\n", "==== it.py\n\none is two: it\n    - a\n  it::test_it\n"),
    ):
        assert TABLE.count(old) == 1
        path.write_text(TABLE.replace(old, new))
        with pytest.raises(ValueError, match=r"mutations.txt:7: it: "):
            mutate.table(path)


def test_code_and_tests_that_have_moved_are_said_with_their_new_place(project):
    mutation = mutate.Mutation("it", "lib/it.py", "", ["return 1"], ["return 2"], [TEST], 7)
    assert mutate.outdated(mutation, project) == []
    (project / "lib" / "log").mkdir()
    (project / "lib" / "it.py").rename(project / "lib" / "log" / "that.py")
    (project / "host_tests" / "test_it.py").rename(project / "host_tests" / "test_that.py")
    code, test = mutate.outdated(mutation, project)
    assert code.startswith("host_tests/mutations.txt:7: it: this is 0 times in lib/it.py")
    assert "it is in lib/log/that.py" in code and code.endswith("return 1")
    assert test.endswith(f"no {TEST}; it is in host_tests/test_that.py")


def test_what_a_change_concerns_is_chosen_and_a_share_of_the_others(project):
    def git(*arguments):
        who = ("-c", "user.name=it", "-c", "user.email=it@example.com")
        subprocess.run(["git", *who, *arguments], cwd=project, check=True, capture_output=True)

    def table():
        return mutate.table(project / mutate.NAME)

    def names(*args):
        return [mutation.name for mutation in mutate.some(table(), *args, folder=project)]

    (project / "lib" / "postcache").mkdir()
    text = "it = host_tests/test_it.py\nthat = host_tests/test_that.py\n"
    for name in "abcdefgh":
        (project / "lib" / "postcache" / f"{name}.py").write_text("")
        test = "that" if name == "h" else "it"
        text += f"\n==== {name}.py\n\nits rule: it is\n    - a\n  {test}::test\n"
    path = project / mutate.NAME
    path.write_text(text)
    that = project / "host_tests" / "test_that.py"
    that.write_text("")
    git("init", "-q")
    git("add", "lib", "host_tests")
    git("commit", "-q", "-m", "One.")
    everything = [mutation.name for mutation in table()]
    assert len(everything) == 8
    assert names("HEAD") == [] and names(None, 1) == names("HEAD", 1) == everything
    (project / "lib" / "postcache" / "b.py").write_text("pass\n")
    that.write_text("pass\n")
    # One reads otherwise, and all of them are on another line.
    text = text.replace("f.py\n\nits rule", "f.py\n\nits other rule")
    path.write_text(text.replace("\n==== a", "\n\n\n==== a"))
    changed = ["b: its rule", "f: its other rule", "h: its rule"]
    assert names("HEAD") == changed
    # The others come in two halves, by the commit: the same ones for as long as that is the same.
    seen = set()
    for i in range(40):
        half = names("HEAD", 2)
        assert half == names("HEAD", 2)
        assert set(changed) < set(half) and len(half) in (5, 6)
        seen.add(tuple(half))
        git("commit", "-q", "--allow-empty", "-m", f"{i}.")
    both = [set(half) - set(changed) for half in seen]
    assert len(both) == 2 and len(both[0] | both[1]) == 5 and not both[0] & both[1]
    with pytest.raises(ValueError, match="nothing"):
        names("nothing")
