"""What is sent, when, and what an answer means."""

import json

from support import Clock, Counting, Http, folder

from postcache.envelope import Frame
from postcache.log import Log
from postcache.ports import BATCH, Directory
from postcache.send import Outbox
from postcache.send.retry_after import retry_after


def make(path, http, n=0, limit=500, interval=0, max_bytes=None, head=b'{"lines":[', buffer=None):
    # Batches above `buffer` bytes are streamed from the files instead of kept in RAM.
    log = Log(Directory(path), max_bytes, 0)
    for _ in range(n):
        log.append([b'{"n":%d}' % (log.stored + 1)])
    clock = Clock()
    frame = Frame("http://x/", {"A": "b"}, head, b",", b"]}")
    outbox = Outbox(log, http, clock, frame, limit, interval)
    if buffer is not None:
        outbox.buffer = buffer
    return log, outbox, clock


def test_a_batch_is_the_oldest_records_under_their_numbers():
    http = Http()
    log, outbox, _ = make(folder(), http, 3)
    assert outbox.send(10)
    headers, body = http.posts[0]
    assert body == b'{"lines":[{"n":1},{"n":2},{"n":3}]}'
    assert headers == {
        "A": "b",
        "Content-Length": str(len(body)),
        "Idempotency-Key": '"%s-1-3"' % log.stream,
        "Postcache-Stream": log.stream,
        "Postcache-First": "1",
        "Postcache-Last": "3",
    }
    assert len(log) == 0 and outbox.sent == 3
    log.close()


def test_upload_limit_cuts_batches_and_the_rest_follows():
    http = Http()
    log, outbox, _ = make(folder(), http, 25, limit=10)
    while len(log):
        assert outbox.send(10)
    assert [len(json.loads(body)["lines"]) for _, body in http.posts] == [10, 10, 5]
    assert http.lines() == [{"n": n} for n in range(1, 26)]
    log.close()


def test_a_batch_is_bounded_in_bytes_and_holds_one_record_at_least():
    http = Http()
    log, outbox, _ = make(folder(), http)
    big = b'"' + b"x" * (log.max_record - 2) + b'"'
    n = BATCH // len(big) + 3
    for _ in range(n):
        log.append([big])
    while len(log):
        assert outbox.send(10)
    assert sum([len(json.loads(body)["lines"]) for _, body in http.posts]) == n
    for _, body in http.posts:
        assert len(body) <= BATCH + 100
    log.close()


def test_a_large_batch_is_streamed_and_a_small_one_is_kept():
    # Both ways give the same body; Http checks the length.
    bodies = []
    for size in (100, 100000):
        http = Http(500)
        log, outbox, _ = make(folder(), http, 40, buffer=size)
        outbox.send(10)
        assert bool(outbox.batch.lines) == (size == 100000)
        outbox.send(10)
        bodies += [body for _, body in http.posts]
        assert len(log) == 0
        log.close()
    assert bodies == [bodies[0]] * 4


def test_a_retry_repeats_bytes_and_key():
    http = Http(500, OSError(104), 503, default=200)
    log, outbox, _ = make(folder(), http, 5)
    for _ in range(3):
        assert not outbox.send(10)
        log.append([b'"later"'])  # must not join the batch that is in flight
    assert outbox.send(10)
    first = http.posts[0]
    assert [post for post in http.posts if post != first] == []
    assert len(log) == 3
    assert outbox.send(10)
    assert json.loads(http.posts[-1][1]) == {"lines": ["later"] * 3}
    log.close()


def test_a_retry_after_a_reboot_repeats_bytes_and_key():
    path = folder()
    http = Http(500)
    log, outbox, _ = make(path, http, 5, limit=3)
    assert not outbox.send(10)
    log.close()
    # More records and another limit: the batch that may have arrived stays as it was.
    log, outbox, _ = make(path, http, 4, limit=500)
    assert outbox.send(10)
    assert http.posts[0] == http.posts[1]
    assert outbox.send(10)
    assert http.lines() == [{"n": n} for n in range(1, 10)]
    log.close()


def test_the_next_batch_is_frozen_with_the_acknowledgement_of_the_last():
    path = folder()
    http = Http(200, 500, default=200)
    log, outbox, _ = make(path, http, 5, limit=3)
    assert outbox.send(10)
    assert (log.acked, log.sending) == (3, 5)
    assert not outbox.send(10)
    log.close()
    log, outbox, _ = make(path, http, 3)
    assert outbox.send(10)
    assert http.posts[1] == http.posts[2]
    log.close()


def test_a_batch_ends_before_a_gap_so_that_every_line_has_its_number():
    path = folder()
    http = Http()
    log, outbox, _ = make(path, http, 6)
    log.close()
    name = path + "/0000000001.log"
    with open(name, "rb") as f:
        lines = f.read().split(b"\n")
    lines[2] = b"damage"
    with open(name, "wb") as f:
        f.write(b"\n".join(lines))
    log, outbox, _ = make(path, http)
    while len(log):
        assert outbox.send(10)
    assert [(h["Postcache-First"], h["Postcache-Last"]) for h, _ in http.posts] == [
        ("1", "2"),
        ("4", "6"),
    ]
    assert http.lines() == [{"n": n} for n in (1, 2, 4, 5, 6)]
    assert log.damaged == 1
    log.close()


def test_damage_between_two_tries_gives_up_what_is_damaged_and_nothing_else():
    path = folder()
    http = Http(500)
    count = 40
    log, outbox, _ = make(path, http, count, buffer=100)
    assert not outbox.send(10)
    name = path + "/0000000001.log"
    with open(name, "rb") as f:
        data = f.read()
    at = data.find(b"\n")
    with open(name, "wb") as f:
        f.write(data[: at + 3] + b"\x00" + data[at + 4 :])
    for _ in range(10):
        outbox.send(10)
    assert len(log) == 0
    assert http.lines() == [{"n": 1}] + [{"n": n} for n in range(3, count + 1)]
    assert log.damaged == 1
    log.close()


def test_every_status_has_its_meaning():
    slow = (401, 403, 404, 405, 410)
    soon = (408, 425, 429)
    http = Http()
    log, outbox, clock = make(folder(), http)
    for status in range(100, 600):
        clock.now += outbox.wait_ms()
        log.append([b"1"])
        log.append([b"2"])
        http.answers.append(status)
        good = 200 <= status < 300
        halved = 400 <= status < 500 and status not in slow and status not in soon
        assert outbox.send(10) == (good or halved), status
        assert outbox.status == status and len(log) == (0 if good else 2)
        assert outbox.blocked == (status in slow)
        assert (outbox.error == "") == (good or halved)
        if not good and not halved:
            # The same again: but not before its time, and slowly if a person must mend it.
            wait = outbox.wait_ms()
            assert 150000 <= wait < 450000 if status in slow else wait < 1000, status
        assert outbox.send(10)
        assert len(log) == (1 if halved else 0)
        if not good:
            keys = [headers["Idempotency-Key"] for headers, _ in http.posts]
            assert (keys[0] == keys[1]) != halved
        if halved:
            assert outbox.send(10) and len(log) == 0
        outbox.most = BATCH  # 413 is remembered
        http.posts.clear()  # a board's heap would be in pieces
        http.taken.clear()
    assert outbox.sent == 1000 and outbox.rejected is None
    log.close()


def test_whatever_a_port_raises_keeps_the_records_and_is_told():
    for e in (OSError(104), OSError("secret"), ValueError("secret"), MemoryError(), KeyError(1)):
        http = Http(e)
        log, outbox, _ = make(folder(), http, 1)
        assert not outbox.send(10)
        assert len(log) == 1 and outbox.status is None
        assert ("104" in outbox.error) == (e.args[:1] == (104,))
        assert type(e).__name__ in outbox.error and "secret" not in outbox.error
        log.close()


def test_a_port_that_answers_nonsense_keeps_the_records():
    for answer in ((None, {}), ("200", {}), (200.5, None), (503, None)):
        log, outbox, _ = make(folder(), Http(answer), 1)
        outbox.send(10)
        assert len(log) == 1 or answer[0] == 200.5
        log.close()


def test_a_port_that_does_not_read_the_body_sends_each_batch_once():
    keys = []

    class Lazy:
        def post(self, url, headers, chunks, timeout):
            keys.append(headers["Idempotency-Key"].split("-", 1)[1])
            return 200, {}

    log, outbox, _ = make(folder(), Lazy(), 5, limit=2)
    for _ in range(6):
        assert outbox.send(10)
    assert keys == ['1-2"', '3-4"', '5-5"']
    assert len(log) == 0
    log.close()


def test_back_off_is_random_below_a_bound_that_doubles_to_a_cap():
    seen = {}
    for _ in range(12):
        log, outbox, clock = make(folder(), Http(default=500), 1)
        for failure in range(13):
            outbox.send(10)
            seen.setdefault(failure, []).append(outbox.wait_ms())
            clock.now += outbox.wait_ms()
            assert outbox.wait_ms() == 0
        log.close()
    for failure, waits in seen.items():
        bound = min(300000, 1000 << failure)
        assert min(waits) >= 0 and max(waits) < bound
        # 12 draws all in the lower or the upper quarter: once in eight million runs.
        assert max(waits) > bound // 4 and min(waits) < bound * 3 // 4
    assert outbox.retries == 13


def test_success_ends_the_back_off():
    log, outbox, _ = make(folder(), Http(500, 500, 500, 200, 500), 1)
    for _ in range(4):
        outbox.send(10)
    assert outbox.wait_ms() == 0 and outbox.error == ""
    log.append([b"1"])
    outbox.send(10)
    assert outbox.wait_ms() < 1000
    log.close()


def test_retry_after_is_the_least_wait():
    log, outbox, _ = make(folder(), Http((503, {"retry-after": "120"})), 1)
    outbox.send(10)
    assert 120000 <= outbox.wait_ms() < 121000
    log.close()


def test_retry_after_in_every_form():
    now = "Wed, 21 Oct 2026 07:28:00 GMT"
    for value, date, ms in (
        ("0", now, 0),
        ("7", None, 7000),
        ("100000000000000", now, 600000),
        ("-5", now, 0),
        ("1.5", now, 0),
        ("", now, 0),
        ("soon", now, 0),
        ("Wed, 21 Oct 2026 07:28:30 GMT", now, 30000),
        ("Wed, 21 Oct 2026 07:27:00 GMT", now, 0),
        ("Thu, 22 Oct 2026 07:28:00 GMT", now, 600000),
        ("Wed, 21 Oct 2026 07:28:30 GMT", None, 0),
        ("Wed, 21 Oct 2026 07:28:30 GMT", "yesterday", 0),
        ("Wed, 99 Foo 2026 aa:bb:cc GMT", now, 0),
    ):
        headers = {"retry-after": value}
        if date:
            headers["date"] = date
        assert retry_after(headers) == ms, value


def test_dates_are_right_across_months_and_leap_years():
    for earlier, later, seconds in (
        ("Sat, 28 Feb 2026 23:59:59 GMT", "Sun, 01 Mar 2026 00:00:01 GMT", 2),
        ("Mon, 28 Feb 2028 23:59:59 GMT", "Tue, 29 Feb 2028 00:00:00 GMT", 1),
        ("Tue, 29 Feb 2028 23:59:00 GMT", "Wed, 01 Mar 2028 00:00:00 GMT", 60),
        ("Thu, 31 Dec 2026 23:59:58 GMT", "Fri, 01 Jan 2027 00:00:00 GMT", 2),
        ("Sun, 31 May 2026 23:55:00 GMT", "Mon, 01 Jun 2026 00:00:00 GMT", 300),
    ):
        assert retry_after({"retry-after": later, "date": earlier}) == seconds * 1000


def test_a_round_ends_when_nothing_waits_and_the_next_keeps_the_interval():
    log, outbox, clock = make(folder(), Http(), 3, limit=2, interval=60000)
    assert outbox.wait_ms() == 0
    outbox.send(10)
    assert outbox.wait_ms() == 0  # one record more: the round goes on
    outbox.send(10)
    assert outbox.wait_ms() == 60000
    clock.now += 60000
    assert outbox.wait_ms() == 0
    outbox.send(10)  # nothing there
    assert outbox.wait_ms() == 60000
    log.close()


def test_what_comes_during_a_round_waits_for_the_next():
    class Busy(Http):
        def post(self, url, headers, chunks, timeout):
            answer = Http.post(self, url, headers, chunks, timeout)
            log.append([b'"came during the exchange"'])
            return answer

    http = Busy()
    log, outbox, clock = make(folder(), http, 3, limit=2, interval=60000)
    for _ in range(3):
        rounds = 0
        while not outbox.wait_ms():
            assert outbox.send(10)
            rounds += 1
        assert rounds <= 3  # an endless producer does not make an endless round
        clock.now += 60000
    log.close()


def test_steady_sending_does_not_read_what_was_delivered_again():
    http = Http()
    log, outbox, _ = make(folder(), http)
    log.journal._fs = Counting(log.journal._fs)
    for n in range(1, 51):
        log.append([b'{"n":%d}' % n])
        assert outbox.send(10)
    assert len(log) == 0
    # A record is read to be sent, and on a board once more when the batch is streamed.
    assert 50 <= log.journal._fs.lines <= 3 * 50
    assert http.lines() == [{"n": n} for n in range(1, 51)]
    log.close()


def broken_open(log, broken, errno=5):
    """Let opening the segments `broken` (a list of first numbers) fail; returns the failures."""
    real = log.fs.open
    count = []

    def fail(name, mode):
        if mode == "rb" and name[:-4].isdigit() and int(name[:-4]) in broken:
            count.append(name)
            raise OSError(errno, "")
        return real(name, mode)

    log.fs.open = fail
    return count


def sixty(http):
    """A log with sixty records in several segments of 8 KB."""
    log, outbox, _ = make(folder(), http, 0, max_bytes=65536)
    for n in range(1, 61):
        log.append([b'{"n":%d%s}' % (n, b" " * 600)])
    assert len(log.journal.firsts) > 2
    return log, outbox


def test_what_cannot_be_read_for_a_while_is_kept():
    # A bad contact, or a directory that is away: all of it, or the first segment only.
    for errno in (5, 2):
        for segments in (1, 99):
            http = Http()
            log, outbox = sixty(http)
            broken = log.journal.firsts[:segments]
            broken_open(log, broken, errno)
            for _ in range(5):
                assert not outbox.send(10)
            assert http.posts == [] and len(log) == 60
            del broken[:]
            while len(log):
                assert outbox.send(10)
            assert http.lines() == [{"n": n} for n in range(1, 61)]
            log.close()


def test_a_segment_that_stays_unreadable_does_not_hold_up_the_rest_for_ever():
    http = Http()
    log, outbox = sixty(http)
    first, second = log.journal.firsts[:2]
    broken_open(log, [first])
    for _ in range(60):
        outbox.send(10)
    assert http.lines() == [{"n": n} for n in range(second, 61)]
    assert log.damaged == 1 and log.errors >= 39
    log.close()


def test_each_segment_has_its_own_tries():
    http = Http()
    log, outbox = sixty(http)
    firsts = log.journal.firsts[:]
    broken = firsts[:2]
    count = broken_open(log, broken)
    for _ in range(200):
        outbox.send(10)
    assert http.lines() == [{"n": n} for n in range(firsts[2], 61)]
    assert len(count) == 80 and log.damaged == 2
    log.close()


def test_no_memory_for_the_next_batch_does_not_send_this_one_again():
    http = Http()
    log, outbox, _ = make(folder(), http, 4, limit=2)
    real = log.read
    calls = []

    def read(position):
        calls.append(position)
        if len(calls) == 2:
            raise MemoryError
        return real(position)

    log.read = read
    for _ in range(4):
        outbox.send(10)
    assert len(http.posts) == 2
    assert http.lines() == [{"n": n} for n in range(1, 5)]
    log.close()


def test_a_port_that_stops_at_content_length_drains_the_backlog_in_one_round():
    class Exact(Http):
        def post(self, url, headers, chunks, timeout):
            left = int(headers["Content-Length"])
            pieces = []
            while left:
                pieces.append(next(chunks))
                left -= len(pieces[-1])
            return Http.post(self, url, headers, pieces, timeout)

    http = Exact()
    log, outbox, _ = make(folder(), http, 10, limit=2, interval=60000)
    for _ in range(5):
        assert outbox.wait_ms() == 0
        outbox.send(10)
    assert outbox.wait_ms() == 60000
    assert http.lines() == [{"n": n} for n in range(1, 11)]
    log.close()


class Wire(Http):
    """An Http that keeps each body, also one that broke off: `left`, (last number, bytes)."""

    def __init__(self, *answers):
        Http.__init__(self, *answers)
        self.left = []

    def post(self, url, headers, chunks, timeout):
        self.left.append((int(headers["Postcache-Last"]), bytearray()))

        def leaving():
            for chunk in chunks:
                self.left[-1][1].extend(chunk)
                yield chunk

        return Http.post(self, url, headers, leaving(), timeout)


def test_a_batch_whose_last_record_is_damaged_does_not_take_the_next_one_in():
    path = folder()
    http = Wire(500)
    log, outbox, _ = make(path, http, 6, limit=3, buffer=10)
    assert not outbox.send(10)
    name = path + "/0000000001.log"
    with open(name, "rb") as f:
        lines = f.read().split(b"\n")
    lines[2] = b"x" + lines[2][1:]
    with open(name, "wb") as f:
        f.write(b"\n".join(lines))
    for _ in range(5):
        outbox.send(10)
    assert len(log) == 0
    assert http.lines() == [{"n": n} for n in (1, 2, 4, 5, 6)]
    for last, body in http.left:
        for n in range(last + 1, 7):
            assert b'"n":%d}' % n not in body
    assert len(http.left) == len(http.posts) + 1  # one of them broke off
    log.close()


def test_nothing_waits_behind_the_last_record_when_that_is_damaged():
    path = folder()
    http = Http()
    log, outbox, _ = make(path, http, 3, limit=2)
    assert outbox.send(10)
    name = path + "/0000000001.log"
    with open(name, "rb") as f:
        data = f.read()
    at = data.rindex(b"\n") - 4  # zeros may follow
    with open(name, "wb") as f:
        f.write(data[:at] + b"x" + data[at + 1 :])
    outbox.batch = None  # the next one was formed while the first was sent
    for _ in range(3):
        outbox.send(10)
    assert len(log) == 0 and len(http.posts) == 1
    log.close()
