"""
Power cuts while records are set aside and put back: each is in the log or aside, and once.

As in test_power_cuts.py: the disk is photographed before each operation that changes it, every
state that a cut may leave there is booted, and what is found is held against what was promised.
The boot that finds out how far a requeue came is cut everywhere again.
"""

import collections
import functools

import power
import pytest
from power import Disk
from test_power_cuts import SETUPS

import postcache.send.dead_letters
from conftest import say, tally
from postcache.log import Log
from postcache.send.dead_letters import DeadLetters
from postcache.send.resume import resume

counts = collections.Counter()


class Findings:
    """What a sweep saw: how many states, and what broke a promise."""

    def __init__(self):
        self.states = 0
        self.broken = []

    def hold(self, holds, *facts):
        if not holds:
            self.broken.append(facts)


class Device:
    """A disk with a log on it; `done` is what the program has been told, a number that grows."""

    def __init__(self, kind, slot_size, disk=None):
        self.kind = kind
        self.slot_size = slot_size
        self.disk = disk or Disk(kind)
        self.block = 512 if kind == "posix" else 4096
        self.done = 0
        self.photos = []
        self._seen = set()

    def boot(self):
        """Return the log; with it, what a failed write left in RAM is gone."""
        log = Log(power.directory(self.disk)(power.ROOT), 8 * self.block, self.slot_size)
        resume(log)
        return log

    def record(self):
        """From now on, photograph the disk before each of its changes."""
        self.disk.on_change = lambda kind, name: self.photograph()

    def photograph(self):
        """Keep what is there now."""
        self.photos.append((self.done, self.disk.copy()))

    def cuts(self, few=False):
        """Yield (what the program had been told, a device after a cut), those that are new."""
        self.photograph()
        self.disk.on_change = None
        for done, disk in self.photos:
            # A group with a hole in it is put back anew: rather twice than never.
            for contents in disk.after_cut(few, sectors=False):
                key = done, frozenset(contents.items())
                if key not in self._seen:
                    self._seen.add(key)
                    yield done, Device(self.kind, self.slot_size, Disk(self.kind, contents))

    def payload(self, n):
        """A record; on posix two are set aside in a file, and three are put back in a group."""
        size = 100 if self.kind == "posix" else 1024
        return b'{"n":%d,"x":"%s"}' % (n, b"x" * size)


def aside(log):
    return [payload for _, _, _, payload in DeadLetters(log).records()]


def waiting(log):
    return [payload for _, payload in log.read(None)]


def refuse(device, log, n):
    """Add record n, have it refused, and pass over it; return its payload."""
    payload = device.payload(n)
    seq = log.append([payload])
    DeadLetters(log).add(seq, 400, b"no", payload)
    log.ack(seq, seq, 0)
    return payload


# --- set aside ---


@functools.cache
def sweep_add(setup, n):
    """Cut everywhere while three records are set aside, after n others."""
    device = Device(*SETUPS[setup])
    log = device.boot()
    for i in range(n):
        refuse(device, log, i)
    payloads = [device.payload(i) for i in range(n, n + 3)]
    first = log.stored + 1
    log.append(payloads)
    before = aside(log)
    device.record()
    for i, payload in enumerate(payloads):
        DeadLetters(log).add(first + i, 422, b"no t", payload)
        device.done += 1
    everything = before + payloads
    most = aside(log)
    findings = Findings()
    for done, twin in device.cuts(few=n > 1):
        findings.states += 1
        try:
            log = twin.boot()
            found = aside(log)
            # Those that were told of are there, but for the oldest, which the newest push out.
            told = everything[: len(before) + done]
            there = found[:-1] if found[-1:] == everything[len(told) : len(told) + 1] else found
            findings.hold(there == told[len(told) - len(there) :], done, there, told)
            findings.hold(len(there) >= min(len(told), len(most) - 2), done, there)
            total = DeadLetters(log).total
            findings.hold(total == n + done + len(found) - len(there), done, total)
            # What was not passed over is refused again.
            for i, payload in enumerate(payloads):
                DeadLetters(log).add(first + i, 422, b"no t", payload)
            log.close()
            log = twin.boot()
            found = aside(log)
            findings.hold(found == everything[-len(found) :], done, found)
            findings.hold(len(found) >= 2 and DeadLetters(log).total == n + 3, done)
            log.close()
        except Exception as e:
            findings.hold(False, done, repr(e))
    counts["while records are set aside"] += findings.states
    return findings


@pytest.mark.parametrize("setup", SETUPS)
@pytest.mark.parametrize("n", [0, 1, 5])
def test_no_cut_loses_or_repeats_what_is_set_aside(setup, n):
    findings = sweep_add(setup, n)
    assert findings.broken == []
    assert findings.states >= 4  # littlefs writes all of a file, or nothing


# --- put back ---


def put_back(log):
    """Requeue all; return how many."""
    groups = []

    def append(group, before):
        groups.append(group)
        assert len(groups) <= 4, "for ever"
        return log.append(group, before)

    return DeadLetters(log).requeue(append)


def _examine(findings, device, expected, facts):
    """Boot a device after a cut: each record is there once; then put back all that is aside."""
    findings.states += 1
    try:
        log = device.boot()
        found = waiting(log) + aside(log)
        findings.hold(found == expected, *facts, found)
        rest = len(aside(log))
        findings.hold(put_back(log) == rest, *facts)
        findings.hold(waiting(log) == expected and aside(log) == [], *facts, waiting(log))
        findings.hold(DeadLetters(log).total == 4, *facts, DeadLetters(log).total)
        log.append([b'"after"'])
        log.close()
        log = device.boot()
        findings.hold(waiting(log) == [*expected, b'"after"'], *facts, waiting(log))
        findings.hold(aside(log) == [] and log.dropped == 0, *facts)
        log.close()
    except Exception as e:
        findings.hold(False, *facts, repr(e))


def sweep_requeue(setup, twice=False):
    """Cut everywhere in a requeue of two groups from both files, and `twice` also in the boot."""
    device = Device(*SETUPS[setup])
    log = device.boot()
    payloads = [refuse(device, log, i) for i in range(4)]
    log.append([b'"first"'])
    expected = [b'"first"', *payloads]
    assert len(aside(log)) == 4
    device.record()
    assert put_back(log) == 4
    assert waiting(log) == expected
    findings = Findings()
    for i, (_, twin) in enumerate(device.cuts(few=twice)):
        if not twice:
            _examine(findings, twin, expected, (i,))
            continue
        twin.record()
        twin.boot().close()
        for j, (_, again) in enumerate(twin.cuts(few=True)):
            _examine(findings, again, expected, (i, j))
    return findings


@pytest.mark.parametrize("setup", SETUPS)
def test_no_cut_in_a_requeue_loses_or_repeats_a_record(setup):
    findings = sweep_requeue(setup)
    counts["in a requeue"] += findings.states
    assert findings.broken == []
    assert findings.states > 10


@pytest.mark.parametrize("setup", SETUPS)
def test_a_second_cut_in_the_boot_after_it_changes_nothing(setup):
    findings = sweep_requeue(setup, twice=True)
    counts["in the boot after a cut in a requeue"] += findings.states
    assert findings.broken == []
    assert findings.states > 20


# --- the tests themselves ---


def _no_intent(monkeypatch):
    for name in ("cpython", "micropython"):
        port, _ = power._port(name)
        put = port.Directory.put

        def forgetful(self, name, data, put=put):
            if name != "requeue":
                put(self, name, data)

        monkeypatch.setattr(port.Directory, "put", forgetful)


def _forget_before_append(monkeypatch):
    def early(self, append):
        payloads = [payload for _, _, _, payload in self.records()]
        self._forget(self.total)
        append(payloads[:2], None)
        append(payloads[2:], None)
        return len(payloads)

    monkeypatch.setattr(DeadLetters, "requeue", early)


def _never_forget(monkeypatch):
    forget = DeadLetters._forget
    monkeypatch.setattr(DeadLetters, "_forget", lambda self, upto: forget(self, 0))


def _forget_in_a_new_file(monkeypatch):
    def forget(self, upto):
        if upto:
            self._write(postcache.send.dead_letters._line(upto, self.total, upto), True)
        self._remove("requeue")

    monkeypatch.setattr(DeadLetters, "_forget", forget)


def _no_sync(monkeypatch):
    monkeypatch.setattr(power._Posix, "fdatasync", lambda self, fd: None)


def _believe_the_intent(monkeypatch):
    def resolve(self):
        for _, _, total, _, _, _ in list(self._lines("requeue")):
            self._forget(total)

    monkeypatch.setattr(DeadLetters, "resolve", resolve)


def _no_resolve(monkeypatch):
    monkeypatch.setattr(DeadLetters, "resolve", lambda self: None)


@pytest.mark.parametrize(
    "plant",
    [
        _no_intent,
        _forget_before_append,
        _never_forget,
        _forget_in_a_new_file,
        _no_sync,
        _believe_the_intent,
        _no_resolve,
    ],
)
def test_a_planted_fault_is_found(plant, monkeypatch):
    plant(monkeypatch)
    for setup in ("posix-append", "littlefs-append"):
        try:
            if sweep_requeue(setup).broken:
                return
        except AssertionError as e:  # without any cut
            if plant is _never_forget:
                return
            raise AssertionError("to be found by its cuts") from e
    pytest.fail("nobody noticed")


def test_an_add_that_is_not_durable_is_found(monkeypatch):
    _no_sync(monkeypatch)
    assert sweep_add.__wrapped__("posix-append", 0).broken


def test_how_many_cuts_were_made():
    for what, n in sorted(counts.items()):
        say("power cuts on the model, %s: %d" % (what, n))
    tally(sum(counts.values()))
    assert sum(counts.values()) > 1000
