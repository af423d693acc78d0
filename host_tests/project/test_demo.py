"""The demo runs on both runtimes, and it can fail: `compare` sees whatever must not happen."""

import importlib
import os
import pathlib
import re
import signal
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
DEMO = ROOT / "tools" / "demo.py"


@pytest.fixture(scope="module")
def demo():
    """The module tools/demo.py."""
    sys.path.insert(0, str(DEMO.parent))  # for its neighbours
    return importlib.import_module("demo")


def arrived(*pairs, stream="a"):
    """What a receiver holds after these (seq, n)."""
    return [(stream, seq, {"n": n}) for seq, n in pairs]


TOLD = [(1, 1), (2, 2), (3, 3), (4, 5)]


def test_compare_passes_what_is_whole(demo):
    verdict = demo.compare(TOLD, arrived(*TOLD), kills=1)
    assert demo.stories.passed(verdict)
    assert demo.report(verdict) == ["delivered 4 of 4 readings, 0 lost, 0 duplicated"]


def test_compare_reports_a_lost_reading(demo):
    verdict = demo.compare(TOLD, arrived((1, 1), (3, 3), (4, 5)))
    assert verdict.lost == [2]
    assert not demo.stories.passed(verdict)
    assert demo.report(verdict)[-1] == "delivered 3 of 4 readings, 1 lost, 0 duplicated"


def test_compare_reports_a_server_that_got_nothing(demo):
    verdict = demo.compare(TOLD, [])
    assert verdict.lost == [1, 2, 3, 5]
    assert not demo.stories.passed(verdict)


@pytest.mark.parametrize("seq", [2, 5])
def test_compare_reports_a_duplicate_also_under_another_number(demo, seq):
    verdict = demo.compare(TOLD, arrived(*TOLD, (seq, 2)))
    assert verdict.duplicated == [2]
    assert not demo.stories.passed(verdict)
    assert demo.report(verdict)[-1] == "delivered 4 of 4 readings, 0 lost, 1 duplicated"


def test_compare_counts_readings_that_came_again_not_copies(demo):
    verdict = demo.compare(TOLD, arrived(*TOLD, (3, 3), (3, 3), (4, 5)))
    assert demo.report(verdict)[-1] == "delivered 4 of 4 readings, 0 lost, 2 duplicated"


def test_compare_reports_the_wrong_order(demo):
    verdict = demo.compare(TOLD, arrived((1, 1), (3, 3), (2, 2), (4, 5)))
    assert verdict.problems == ["reading 2 arrived after reading 3"]
    assert not demo.stories.passed(verdict)
    # The result speaks of lost and duplicated only: the line before it says what is wrong.
    assert demo.report(verdict)[0] == "WRONG: reading 2 arrived after reading 3"


def test_compare_reports_readings_that_changed_places(demo):
    verdict = demo.compare(TOLD, arrived((1, 2), (2, 1), (3, 3), (4, 5)))
    assert "reading 1 was stored as 1 and arrived as 2" in verdict.problems
    assert not demo.stories.passed(verdict)


def test_compare_allows_one_untold_reading_for_each_kill(demo):
    records = arrived((1, 1), (2, 2), (3, 3), (4, 4), (5, 5))
    told = [(1, 1), (2, 2), (3, 3), (5, 5)]
    verdict = demo.compare(told, records, kills=1)
    assert verdict.extra == [4]
    assert demo.stories.passed(verdict)
    first, last = demo.report(verdict)
    assert first.startswith("1 reading more arrived")
    assert last == "delivered 4 of 4 readings, 0 lost, 0 duplicated"
    assert not demo.stories.passed(demo.compare(told, records, kills=0))


@pytest.mark.parametrize(
    "records",
    [
        arrived((1, 1), (2, 2)) + arrived((3, 3), (4, 5), stream="b"),
        [*arrived(*TOLD), ("a", 5, {"load": 1})],
        [*arrived(*TOLD), ("a", 5, None)],
    ],
    ids=["another stream", "without a number", "no reading"],
)
def test_compare_reports_what_no_logger_sends(demo, records):
    assert not demo.stories.passed(demo.compare(TOLD, records))


def test_compare_does_not_pass_an_empty_run(demo):
    assert not demo.stories.passed(demo.compare([], []))


def test_bars_keep_the_peak_and_fill_the_gaps(demo):
    samples = [(0.0, 1, True), (0.4, 7, True), (0.6, 2, True), (3.1, 4, False), (9.0, 5, False)]
    assert demo.bars(samples, 5, 5) == [(7, True)] * 3 + [(4, False), (5, False)]


def start(name, *args, **env):
    """Start the demo on a runtime; returns the Popen."""
    return subprocess.Popen(
        [sys.executable, str(DEMO), "--runtime", name, *args],
        env=dict(os.environ, **env),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_demo_delivers_everything_and_leaves_nothing_behind(runtime, tmp_path):
    env = {"TMPDIR": str(tmp_path)}
    if runtime.name == "micropython":
        env["MICROPYTHON"] = runtime.command[0]
    process = start(runtime.name, "--seconds", "4", **env)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, out + err
    last = out.splitlines()[-1]
    result = re.fullmatch(r"delivered (\d+) of (\d+) readings, 0 lost, 0 duplicated", last)
    assert result, out + err
    assert result[1] == result[2] != "0"
    # All of the story took place, not only its end.
    for text in ("server gone", "SIGKILL during", "server back", "SIGKILL: batch", "came again"):
        assert text in out
    assert err == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing_behind(tmp_path, number):
    process = start("cpython", TMPDIR=str(tmp_path))
    with process:
        assert "server up" in process.stdout.readline()
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "demo: interrupted\n"
    assert list(tmp_path.iterdir()) == []


def test_without_micropython_one_sentence_says_what_to_do(tmp_path):
    process = start("micropython", MICROPYTHON=str(tmp_path / "none"), TMPDIR=str(tmp_path))
    out, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert out == ""
    assert "install MicroPython" in err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []
