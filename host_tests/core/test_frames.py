"""The seam between formats and the rest: groups, lines, limits. See also test_envelope.py."""

import json

from support import Clock, Http, cut_off, folder

from postcache.envelope import Frame, Verdict
from postcache.log import Log
from postcache.ports import Directory
from postcache.send import Outbox
from postcache.send.dead_letters import DeadLetters, listed
from postcache.send.resume import resume


class Rooms(Frame):
    """A letter and a number, sent as a line to the letter's own URL."""

    def group(self, payload):
        return json.loads(payload)[0]

    def render(self, payload):
        letter, n = json.loads(payload)
        return b"%s is %d" % (letter.encode(), n)

    def request(self, group):
        return self.url + group, {"Room": group}


class Reader(Http):
    """Remembers URLs, and answers by `answer(lines)` if there is one."""

    answer = None

    def __init__(self, *answers):
        Http.__init__(self, *answers)
        self.urls = []

    def post(self, url, headers, chunks, timeout):
        self.urls.append(url)
        answer = Http.post(self, url, headers, chunks, timeout)
        if self.answer and answer == (200, {}):
            return self.answer(self.posts[-1][1].split(b"\n"))
        return answer

    def bodies(self):
        return [body for _, body in self.posts]


def make(path, http, letters="", limit=500, buffer=None, kind=Rooms):
    log = Log(Directory(path), None, 0)
    resume(log)
    for letter in letters:
        log.append([b'["%s",%d]' % (letter.encode(), log.stored + 1)])
    outbox = Outbox(log, http, Clock(), kind("http://x/", {}, b"<", b"\n", b">"), limit, 0)
    if buffer is not None:
        outbox.buffer = buffer
    return log, outbox


def drain(log, outbox):
    for _ in range(100):
        if not len(log):
            return
        assert outbox.send(10), outbox.error
    raise AssertionError("it does not come to an end")


def test_a_request_never_has_records_of_two_groups():
    for letters in ("aab", "abab", "aaaa", "abbbba", "cab"):
        for buffer in (None, 0):  # kept in RAM; streamed from the files
            http = Reader()
            log, outbox = make(folder(), http, letters, buffer=buffer)
            drain(log, outbox)
            rooms = []
            n = 0
            for url, (headers, body) in zip(http.urls, http.posts):
                room = headers["Room"]
                assert url == "http://x/" + room
                assert body[:1] + body[-1:] == b"<>"
                for line in body[1:-1].split(b"\n"):
                    n += 1
                    assert line == b"%s is %d" % (letters[n - 1].encode(), n)
                    assert letters[n - 1] == room
                rooms.append(room)
                assert (int(headers["Postcache-Last"]), len(body)) == (
                    n,
                    int(headers["Content-Length"]),
                )
            assert n == len(letters) == outbox.sent
            # And no more requests than changes: neighbours of one group go together.
            assert all(a != b for a, b in zip(rooms, rooms[1:]))
            log.close()


def test_a_group_is_the_same_after_a_restart():
    path = folder()
    http = Reader(503)
    log, outbox = make(path, http, "aab")
    assert not outbox.send(10)
    cut_off(log)
    log, outbox = make(path, http)
    drain(log, outbox)
    assert http.bodies() == [b"<a is 1\na is 2>"] * 2 + [b"<b is 3>"]
    log.close()


def test_the_limits_of_a_batch_hold_within_a_group():
    http = Reader()
    log, outbox = make(folder(), http, "a" * 7, limit=3)
    drain(log, outbox)
    assert [body.count(b"is") for body in http.bodies()] == [3, 3, 1]
    log.close()


def test_bytes_are_counted_as_they_are_sent():
    class Long(Frame):
        def render(self, payload):
            return payload * 100

    http = Reader()
    log, outbox = make(folder(), http, "a" * 20, kind=Long)
    outbox.most = 2500  # a line has 700 bytes and more, its payload 7
    drain(log, outbox)
    assert max([len(body) for body in http.bodies()]) <= 2500 + 2
    assert len(http.posts) == 7
    log.close()


class Partial(Rooms):
    """A format whose server says which lines it did not take: 207 and their positions."""

    group = None

    def request(self, group):
        return self.url, {}

    def verdict(self, batch, status, headers, start):
        if status == 207:
            return Verdict("delivered", 0, {int(i): b"not " + i for i in start.split()})
        return Rooms.verdict(self, batch, status, headers, start)


def test_what_a_server_names_is_set_aside_and_the_rest_is_delivered():
    # In each place, several, all; kept in RAM or streamed.
    for bad in ((0,), (2,), (4,), (0, 4), (1, 2, 3), (0, 1, 2, 3, 4)):
        for buffer in (None, 0):
            http = Reader((207, {}, b" ".join([b"%d" % i for i in bad])))
            log, outbox = make(folder(), http, "abcde", buffer=buffer, kind=Partial)
            assert outbox.send(10)
            assert len(log) == 0 and len(http.posts) == 1
            assert (outbox.sent, DeadLetters(log).total) == (5 - len(bad), len(bad))
            assert (outbox.error, outbox.retries, outbox.blocked) == ("", 0, False)
            assert outbox.rejected == (bad[-1] + 1, 207, b"not %d" % bad[-1])
            # On flash as they were stored, not as they were sent.
            assert listed(log) == [
                {
                    "number": i + 1,
                    "status": 207,
                    "reason": "not %d" % i,
                    "record": ["abcde"[i], i + 1],
                }
                for i in bad
            ]
            log.close()


def test_a_server_that_takes_a_part_each_time_is_not_taken_for_one_that_refuses_everything():
    http = Reader()
    http.answer = lambda lines: (207, {}, b"0")
    log, outbox = make(folder(), http, "a" * 30, limit=1, kind=Partial)
    for _ in range(30):
        assert outbox.send(10) and not outbox.blocked and outbox.wait_ms() == 0
    assert len(log) == 0 and DeadLetters(log).total == 30 and outbox.sent == 0
    log.close()
