"""The other half of the protocol: a receiver that has every record exactly once.

It remembers one number per stream, and needs no more, however often a batch is repeated.
"""

import hashlib
import json
import re
import threading

_KEY = re.compile(r'"([^"\\\s]+)-(0|[1-9][0-9]*)-(0|[1-9][0-9]*)"')
_NUMBER = re.compile(r"0|[1-9][0-9]*")
_HEADERS = ("idempotency-key", "postcache-stream", "postcache-first", "postcache-last")


class Receiver:
    """The exactly-once receiver: one number per stream, the highest applied.

    A batch is a run of consecutive sequence numbers, so line i of it is record first + i. One
    whose last number is known is a duplicate; of one that overlaps, only the new lines count.

    key: name of the list of records in the body.
    keep: False keeps counts only, neither records nor lines.
    parse: False trusts the headers and never looks into the body (the bench).
    start: the sequence number a new stream must begin with, or None if any will do.

    records: [(stream, number, record)], each once, in order of arrival.     lines: the records.
    raw_lines: every line of every stored request: what a receiver without memory would have.
    duplicates: batches recognised.   skipped: single lines recognised in overlapping batches.
    gaps: [(stream, expected, got)].  errors: sentences about anything malformed.
    highest: {stream: number}.
    batches, count, raw_count: how many batches were stored, records applied, raw lines seen.
    """

    def __init__(self, key="lines", keep=True, parse=True, start=None):
        self.key = key
        self.keep = keep
        self.parse = parse
        self.start = start
        self.records = []
        self.lines = []
        self.raw_lines = []
        self.duplicates = 0
        self.skipped = 0
        self.gaps = []
        self.errors = []
        self.highest = {}
        self.batches = 0
        self.count = 0
        self.raw_count = 0
        self._digests = {}
        self._lock = threading.Lock()

    def take(self, headers, body, store=True, method="POST"):
        """Check one complete request and, with store, apply it.

        Requests that are answered with an error pass through here with store=False, because a
        retry must repeat the bytes of exactly those (promise D4).
        headers: dict, lower-case names; body: bytes.
        Returns "applied", "duplicate", "malformed", "plain" (no Postcache headers), or "seen"
        (not stored). Never raises for what the client sent.
        """
        problems = []
        batch = None
        plain = not any(name in headers for name in _HEADERS)
        if not plain:
            batch = _batch_numbers(headers, method, problems)
        lines = self._lines_of(headers, body, plain, batch, problems) if self.parse else None
        with self._lock:
            malformed = bool(problems)
            if batch is not None and self.parse and self._other_bytes(batch, body):
                problems.append('batch "%s-%d-%d" came again with other bytes' % batch)
            self.errors.extend(problems)
            if not store:
                return "seen"
            if lines is not None:
                self.raw_count += len(lines)
                if self.keep:
                    self.raw_lines.extend(lines)
            if plain:
                return "malformed" if malformed else "plain"
            self.batches += 1
            return "malformed" if malformed else self._apply(batch, lines)

    def _lines_of(self, headers, body, plain, batch, problems):
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        is_json = kind == "application/json"
        if plain and not is_json:
            return None
        if not is_json:
            problems.append(
                "Content-Type is %r, not application/json" % headers.get("content-type")
            )
        try:
            lines = json.loads(body.decode(), parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            problems.append("bad JSON in %s: %s" % (headers.get("idempotency-key"), error))
            return None
        lines = lines.get(self.key) if isinstance(lines, dict) else None
        if not isinstance(lines, list):
            if not plain:
                problems.append("no list %r in %s" % (self.key, headers.get("idempotency-key")))
            return None
        if batch is not None and len(lines) != batch[2] - batch[1] + 1:
            problems.append("%d lines in batch %s-%d-%d" % ((len(lines),) + batch))
        return lines

    def _other_bytes(self, batch, body):
        digest = hashlib.blake2b(body, digest_size=16).digest()
        return self._digests.setdefault(batch, digest) != digest

    def _apply(self, batch, lines):
        stream, first, last = batch
        if lines is None:  # parse=False: the headers are all we know
            self.raw_count += last - first + 1
        highest = self.highest.get(stream)
        if highest is not None and last <= highest:
            self.duplicates += 1
            return "duplicate"
        expected = self.start if highest is None else highest + 1
        if expected is None:
            expected = first
        if first > expected:
            self.gaps.append((stream, expected, first))
        known = 0 if highest is None else max(0, expected - first)
        self.skipped += known
        self.count += last - first + 1 - known
        self.highest[stream] = last
        if self.keep and lines is not None:
            for number, record in enumerate(lines[known:], first + known):
                self.records.append((stream, number, record))
                self.lines.append(record)
        return "applied"


def _batch_numbers(headers, method, problems):
    """(stream, first, last) as the headers say, or None; what is wrong goes into problems."""
    if method != "POST":
        problems.append("a batch came by %s, not POST" % method)
    missing = [name for name in _HEADERS if name not in headers]
    if missing:
        problems.append("missing header %s" % ", ".join(missing))
        return None
    key, stream, first, last = (headers[name] for name in _HEADERS)
    if not _KEY.fullmatch(key):
        problems.append("bad Idempotency-Key %s" % key)
        return None
    if not (_NUMBER.fullmatch(first) and _NUMBER.fullmatch(last)):
        problems.append("bad numbers %s to %s in %s" % (first, last, key))
        return None
    if key != '"%s-%s-%s"' % (stream, first, last):
        problems.append("Idempotency-Key %s is not %s, %s, %s" % (key, stream, first, last))
        return None
    if int(last) < int(first):
        problems.append("batch %s ends before it begins" % key)
        return None
    return stream, int(first), int(last)


def _refuse_constant(text):
    raise ValueError("%s is not JSON" % text)
