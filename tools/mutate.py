"""Take away one sync, one check, one ordering at a time: for each, some test must fail.

A test that cannot fail proves nothing. Each mutation in host_tests/mutations.txt changes one place
of lib/postcache in a copy of the project, and the tests that are named beside it run there: one of
them must fail, by an assertion. Before anything is changed all of them must pass.

    python tools/mutate.py                 all, a row each: what was removed, and what caught it
    python tools/mutate.py "log: freeze"   those whose name begins so
    python tools/mutate.py --list          the names, and what each would break
    python tools/mutate.py --check         those that the code or the tests have left behind
    python tools/mutate.py --since main --share 5
                                           those whose code or tests have changed since then, and
                                           a fifth of the others: which one, the commit decides

What a mutation replaces has to be in its file exactly once, so the table cannot fall behind the
code. Exit status: 0; 1 if one survives, a test fails unmutated, or --check finds something; 2 if
it cannot run.
"""

import argparse
import collections
import concurrent.futures
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import xml.etree.ElementTree
from pathlib import Path

import get_runtimes

PROJECT = Path(__file__).resolve().parent.parent
# Seconds. A mutation may turn a loop into an endless one: that is no assertion.
TIMEOUT = 120
LEFT_OUT = shutil.ignore_patterns("__pycache__", "build", "dist", "typings", ".*")

NAME = "host_tests/mutations.txt"
TABLE = PROJECT / NAME
# These tests need MicroPython. Their ids end in [test_file.py-test_name-file system].
EVERYWHERE = "host_tests/runtimes/test_core_everywhere.py::test_core"

# `old`, `new`: lists of lines without their common margin; `line`: where the table has it.
Mutation = collections.namedtuple("Mutation", "name path breaks old new tests line", defaults=[0])
# `verdict`: "caught", "survived" or what else happened; `by`: the test, or why.
Outcome = collections.namedtuple("Outcome", "verdict by")


# -- the table ------------------------------------------------------------------------------------


def table(path=TABLE):
    """Return every Mutation in a table, with the full ids of its tests. Raises ValueError."""
    found = []
    tests = {}
    file = ""
    text = path.read_text(encoding="utf-8")
    for block in re.finditer(r"(?:.+\n)+", text):
        number = text.count("\n", 0, block.start()) + 1
        lines = [line for line in block[0].splitlines() if not line.startswith("#")]
        if not lines:
            continue
        if lines[0].startswith("==== "):
            file = lines[0][5:]
        elif named := re.findall(r"^(\w+) = (\S+)$", block[0], re.M):
            tests.update(named)
        else:
            found.append(_mutation(file, lines, tests, number))
    names = [mutation.name for mutation in found]
    for mutation in found:
        if names.count(mutation.name) > 1:
            raise ValueError(f"{_where(mutation)}: two have this name.")
    return found


def _mutation(file, lines, tests, number):
    name, _, breaks = lines[0].rpartition(": ")
    change = [line[4:] for line in lines[1:] if line.startswith("    ")]
    named = [line.strip() for line in lines[1:] if not line.startswith("    ")]
    module = re.sub(r"(/__init__)?\.py$", "", file).replace("/", ".")
    mutation = Mutation(
        f"{module}: {name}",
        f"lib/postcache/{file}",
        breaks,
        [line[2:] for line in change if line[:1] != "+"],
        [line[2:] for line in change if line[:1] != "-"],
        # What the table has no name for stays as it is: there is no such test.
        [re.sub(r"^\w+", lambda match: tests.get(match[0], match[0]), test) for test in named],
        number,
    )
    if not (name and mutation.old and named):
        raise ValueError(f"{_where(mutation)}: a promise, a change or a test is missing.")
    return mutation


def places(old, text):
    """Return the numbers of the lines of `text` at which `old` begins, whatever its margin."""
    lines = text.split("\n")
    return [
        i
        for i, line in enumerate(lines)
        if line.strip() == old[0].strip()
        and textwrap.dedent("\n".join(lines[i : i + len(old)])) == "\n".join(old)
    ]


def mutated(mutation, folder):
    """Return the source of the mutation's file below `folder`, mutated. Raises ValueError."""
    path = folder / mutation.path
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    old = mutation.old
    found = places(old, text)
    if len(found) != 1:
        there = "" if found else _found_in(folder, "lib/**/*.py", lambda text: places(old, text))
        raise ValueError(
            f"{_where(mutation)}: this is {len(found)} times in {mutation.path}, and must be "
            f"there once{there}:\n" + "\n".join(old)
        )
    lines = text.split("\n")
    at = found[0]
    margin = lines[at][: len(lines[at]) - len(old[0])]
    lines[at : at + len(old)] = [margin + line for line in mutation.new]
    text = "\n".join(lines)
    try:
        compile(text, mutation.path, "exec")
    except SyntaxError as error:
        raise ValueError(f"{_where(mutation)}: what it makes is no Python: {error}") from None
    return text


def some(mutations, since=None, share=None, folder=PROJECT):
    """
    Return those mutations that a change concerns, and a share of the others.

    Args:
        since: str, a revision that git knows: a mutation counts if its module, a file of its
            tests, or what the table says of it has changed since then. None: none of them does.
        share: int >= 1, one in so many of the others. The same ones for the same commit, which
            decides by its hash. None: none of them.

    Raises ValueError when git does not know the revision.
    """
    first, others = [], mutations
    if since:
        files = set(_git(folder, "diff", "--name-only", "--relative", since, "--").splitlines())
        then = _table_of(since, folder) if NAME in files else None
        first = [
            mutation
            for mutation in mutations
            if files.intersection([mutation.path, *(_defined(test)[0] for test in mutation.tests)])
            or not (then is None or mutation._replace(line=0) in then)
        ]
        others = [mutation for mutation in mutations if mutation not in first]
    if not share:
        return first
    turn = int(_git(folder, "rev-parse", "HEAD"), 16) % share
    wanted = first + others[turn::share]
    return [mutation for mutation in mutations if mutation in wanted]


def _table_of(revision, folder):
    """Return the mutations of a revision, [] if it had none that can be read."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, "then")
        try:
            path.write_text(_git(folder, "show", f"{revision}:./{NAME}"), encoding="utf-8")
            return [mutation._replace(line=0) for mutation in table(path)]
        except ValueError:
            return []


def _git(folder, *arguments):
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True)
    except OSError as error:
        raise ValueError(f"git: {error}") from None
    if done.returncode:
        raise ValueError(f"git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def exists(test, folder=PROJECT):
    """Say whether there is a test of this id: pytest would run none if one is missing."""
    path, function = _defined(test)
    source = folder / path
    return source.is_file() and bool(function.search(source.read_text(encoding="utf-8")))


def _defined(test):
    """Return the file of a test, and a pattern of how its function begins."""
    path, _, name = test.partition("::")
    if test.startswith(EVERYWHERE):
        file, name, _ = name.partition("[")[2].split("-")
        path = f"host_tests/core/{file}"
    return path, re.compile(rf"^def {name.partition('[')[0]}\(", re.M)


def outdated(mutation, folder=PROJECT):
    """Return what the code and the tests have left behind in a mutation, a sentence each."""
    found = []
    try:
        mutated(mutation, folder)
    except ValueError as error:
        found.append(str(error).replace("\n", "\n    "))
    for test in mutation.tests:
        if not exists(test, folder):
            there = _found_in(folder, "host_tests/**/test_*.py", _defined(test)[1].search)
            found.append(f"{_where(mutation)}: there is no {test}{there}")
    return found


def _found_in(folder, pattern, is_there):
    """Return where else something is, for the end of a sentence."""
    files = [
        path.relative_to(folder).as_posix()
        for path in sorted(folder.glob(pattern))
        if is_there(path.read_text(encoding="utf-8"))
    ]
    return f"; it is in {', '.join(files)}" if files else ""


def _where(mutation):
    return f"{NAME}:{mutation.line}: {mutation.name}"


# -- running tests --------------------------------------------------------------------------------


def run(folder, tests, *options):
    """
    Run pytest on the ids `tests` in the project below `folder`.

    Returns its exit status (None: it took too long), {test id: None or what it failed with} and
    what it printed.
    """
    report = folder / "report.xml"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    process = subprocess.Popen(
        [*command, f"--junit-xml={report}", *tests],
        cwd=folder,
        # No .pyc: two versions of a file, of one size and one second, have the same one.
        env=dict(os.environ, PYTHONDONTWRITEBYTECODE="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output = process.communicate(timeout=TIMEOUT)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # also what the tests have started
        return None, {}, process.communicate()[0]
    cases = {}
    if report.exists():
        for case in xml.etree.ElementTree.parse(report).iter("testcase"):
            test = case.get("classname", "").replace(".", "/") + ".py::" + case.get("name", "")
            failure = case.find("failure")
            if failure is not None:
                # The message is cut short where it has many lines.
                message = failure.get("message", "").partition("\n")[0]
                cases[test] = f"{message}\n{failure.text}"
            elif case.find("error") is not None:
                cases[test] = "error"
            elif case.find("skipped") is None:
                cases[test] = None
    return process.returncode, cases, output


def is_assertion(failure):
    """Say whether a test failed because what it asserts does not hold, and for nothing else."""
    if re.search(r"\b(Name|UnboundLocal|Import|ModuleNotFound|Syntax)Error\b", failure):
        return False  # the mutation itself is wrong
    # A test that ran in a process of its own, under MicroPython, has told what ended it.
    told = re.search(r"^E +Traceback \((?:.*\n)+?E +(\w+(?:Error|Exception)\b)", failure, re.M)
    what = told[1] if told else failure
    # An OSError: what must not raise has raised.
    return bool(
        re.match(r"assert |AssertionError|Failed: |OSError|\w+(Directory|Found)Error", what)
    )


def judge(mutation, folder):
    """Apply the mutation in the copy `folder`, run its tests there; return the Outcome."""
    path = folder / mutation.path
    original = path.read_text(encoding="utf-8")
    path.write_text(mutated(mutation, folder), encoding="utf-8")
    try:
        status, cases, output = run(folder, mutation.tests, "-x")
    finally:
        path.write_text(original, encoding="utf-8")
    if status == 0:
        return Outcome("survived", "no test fails")
    if status is None:
        return Outcome("no assertion", f"longer than {TIMEOUT} s")
    for test, failure in cases.items():
        if failure:
            verdict = "caught" if is_assertion(failure) else "no assertion"
            return Outcome(verdict, short(test) if verdict == "caught" else failure[:500])
    return Outcome("no assertion", output[-500:])


def short(test):
    """The id of a test without what all have in common."""
    return test.rpartition("/")[2].replace(".py::", "::", 1)


# -- the command line -----------------------------------------------------------------------------


def find_micropython():
    """Let the tests find MicroPython; return True if there is one."""
    try:
        os.environ["MICROPYTHON"] = get_runtimes.find("micropython")[0]
    except get_runtimes.Unavailable as error:
        if os.environ.get("CI") or os.environ.get("POSTCACHE_REQUIRE_ALL"):
            raise
        print(f"mutate: goes on without MicroPython: {error}", file=sys.stderr)
        return False
    return True


def unmutated(folders, tests):
    """Run all `tests` in the copies `folders`, nothing changed; return {id: why it failed}."""
    parts = [part for part in (tests[i :: len(folders)] for i in range(len(folders))) if part]
    failed = {}
    with concurrent.futures.ThreadPoolExecutor(len(folders)) as pool:
        for part, (status, cases, output) in zip(parts, pool.map(run, folders, parts)):
            if status not in (0, 1):
                failed.update(
                    dict.fromkeys(part, f"pytest's status is {status}\n{output[-2000:]}")
                )
                continue
            for test in part:
                # With parameters one test has several cases.
                whys = [why for case, why in cases.items() if case.partition("[")[0] == test]
                whys = list(filter(None, whys or [cases.get(test, "was skipped")]))
                if whys:
                    failed[test] = whys[0]
    return failed


def main(arguments=None):
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description="Break one promise at a time; tests must notice.")
    parser.add_argument("name", nargs="*", help="only mutations whose name begins so")
    parser.add_argument("--list", action="store_true", help="show the names, run nothing")
    parser.add_argument("--check", action="store_true", help="show what is outdated, run nothing")
    parser.add_argument("--since", metavar="REVISION", help="only what has changed since then")
    parser.add_argument(
        "--share", type=int, metavar="N", help="one in N of those that have not changed"
    )
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time; default: 2")
    options = parser.parse_args(arguments)
    try:
        wanted = [
            mutation
            for mutation in table()
            if not options.name or mutation.name.startswith(tuple(options.name))
        ]
        if not wanted:
            raise ValueError("no mutation has such a name; --list shows them.")
        if options.share is not None and options.share < 1:
            raise ValueError("--share: 1 or more.")
        if options.since or options.share:
            total = len(wanted)
            wanted = some(wanted, options.since, options.share)
            print(f"mutate: {len(wanted)} of {total} mutations are wanted.")
            if not wanted:
                return 0
        if options.check:
            found = [line for mutation in wanted for line in outdated(mutation)]
            print("\n".join(found) or f"mutate: {len(wanted)} mutations, all up to date.")
            return 1 if found else 0
        for mutation in wanted:
            mutated(mutation, PROJECT)
    except ValueError as error:
        print(f"mutate: {error}", file=sys.stderr)
        return 2
    width = max(len(mutation.name) for mutation in wanted)
    if options.list:
        for mutation in wanted:
            print(f"{mutation.name:{width}}  {mutation.breaks}")
        return 0
    try:
        micropython = find_micropython()
    except get_runtimes.Unavailable as error:
        print(f"mutate: {error}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="mutate-") as place:
        folders = [Path(place, str(i), "project") for i in range(max(1, options.jobs))]
        for folder in folders:
            shutil.copytree(PROJECT, folder, ignore=LEFT_OUT)
        return _all(wanted, folders, micropython, width)


def _all(wanted, folders, micropython, width):
    begun = time.monotonic()
    if not micropython:
        out = [m for m in wanted if any(test.startswith(EVERYWHERE) for test in m.tests)]
        wanted = [m for m in wanted if m not in out]
        if out:
            print(f"mutate: {len(out)} left out that only MicroPython shows.", file=sys.stderr)
    tests = sorted({test for mutation in wanted for test in mutation.tests})
    failed = {test: "there is no such test" for test in tests if not exists(test)}
    failed.update(unmutated(folders, [test for test in tests if test not in failed]))
    for test, why in failed.items():
        print(f"mutate: before anything is changed: {test}: {why[:2000]}", file=sys.stderr)
    free = queue.Queue()
    for folder in folders:
        free.put(folder)

    def one(mutation):
        for test in mutation.tests:
            if test in failed:
                return Outcome("not judged", f"{short(test)} {failed[test].splitlines()[0]}")
        folder = free.get()
        try:
            return judge(mutation, folder)
        finally:
            free.put(folder)

    bad = 0
    with concurrent.futures.ThreadPoolExecutor(len(folders)) as pool:
        for mutation, outcome in zip(wanted, pool.map(one, wanted)):
            caught = outcome.verdict == "caught"
            bad += not caught
            print(
                f"{mutation.name:{width}}  {'' if caught else outcome.verdict.upper() + ': '}"
                f"{outcome.by}",
                flush=True,
            )
    seconds = time.monotonic() - begun
    print(f"\n{len(wanted) - bad} of {len(wanted)} mutations caught, {seconds:.0f} s")
    if bad:
        print(f"mutate: {bad} were not caught.", file=sys.stderr)
    return 1 if bad or failed else 0


if __name__ == "__main__":
    sys.exit(main())
