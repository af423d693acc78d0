"""What a wire format may do, and the default one does not: group, render, take a batch in part."""

import json

from support import Clock, Http, cut_off, folder

from postcache.envelope import Frame, Verdict
from postcache.log import Log
from postcache.ports import Directory
from postcache.send import Outbox
from postcache.send.dead_letters import DeadLetters, listed
from postcache.send.resume import resume


class Grouped(Frame):
    """Records that say where they go, `{"to": "a", ...}`, each place with a URL of its own."""

    @staticmethod
    def group(payload):
        return json.loads(payload)["to"]

    def request(self, group):
        return self.url + group, self.headers


class Partial(Frame):
    """A 207 takes the batch but for some records: its body is a dict, position to reason."""

    def verdict(self, batch, status, headers, start):
        if status == 207:
            refused = {int(i): reason.encode() for i, reason in json.loads(start).items()}
            return Verdict("delivered", 0, refused)
        return Frame.verdict(self, batch, status, headers, start)


class Rendered(Partial):
    """The text of a record instead of its JSON, which may be longer or shorter."""

    @staticmethod
    def render(payload):
        return json.loads(payload)["text"].encode()


class Server(Http):
    """An Http that knows the URLs, too: `urls` lists them."""

    def __init__(self, *answers, default=200):
        Http.__init__(self, *answers, default=default)
        self.urls = []

    def post(self, url, headers, chunks, timeout):
        self.urls.append(url)
        return Http.post(self, url, headers, chunks, timeout)


def make(path, http, kind, records=(), limit=500, buffer=None):
    log = Log(Directory(path), None, 0)
    resume(log)
    for record in records:
        log.append([json.dumps(record).encode()])
    frame = kind("http://x/", {}, b'{"lines":[', b",", b"]}")
    outbox = Outbox(log, http, Clock(), frame, limit, 0)
    if buffer is not None:
        outbox.buffer = buffer  # a batch above it is streamed from the files
    return log, outbox


def numbered(n):
    return [{"n": i} for i in range(1, n + 1)]


# --- group ---


def test_a_batch_ends_where_the_next_group_begins():
    records = [{"to": to, "n": i} for i, to in enumerate("aababb")]
    for buffer in (None, 0):
        http = Server()
        log, outbox = make(folder(), http, Grouped, records, buffer=buffer)
        while len(log):
            assert outbox.send(10)
        assert http.urls == ["http://x/" + to for to in "abab"]
        batches = [json.loads(body)["lines"] for _, body in http.posts]
        assert batches == [records[:2], records[2:3], records[3:4], records[4:]]
        assert http.lines() == records  # each under its number, and in order
        log.close()


def test_a_retry_after_a_reboot_has_the_same_group():
    path = folder()
    records = [{"to": to, "n": i} for i, to in enumerate("aab")]
    http = Server(500)
    log, outbox = make(path, http, Grouped, records[:2])
    assert not outbox.send(10)
    log.close()
    log, outbox = make(path, http, Grouped, records[2:])
    assert outbox.send(10) and outbox.send(10)
    assert http.urls == ["http://x/" + to for to in "aab"]
    assert http.posts[0] == http.posts[1] and http.lines() == records
    log.close()


# --- render ---


def test_what_is_rendered_is_sent_and_what_is_stored_is_kept():
    texts = ["1", "[0" + ",0" * 40 + "]", "", "22"]
    for buffer in (None, 0):
        # The server looks at Content-Length.
        http = Server(500, (207, {}, b'{"1":"no"}'))
        records = [{"text": text} for text in texts]
        log, outbox = make(folder(), http, Rendered, records, buffer=buffer)
        assert not outbox.send(10) and outbox.send(10)
        assert http.posts[0] == http.posts[1]
        assert http.posts[1][1] == b'{"lines":[' + ",".join(texts).encode() + b"]}"
        assert [letter["record"] for letter in listed(log)] == [{"text": texts[1]}]
        log.close()


# --- what a server takes in part ---


def test_of_a_batch_that_is_taken_in_part_the_others_count_as_delivered():
    for buffer in (None, 0):
        # Positions in the batch, which is not the first one.
        http = Server(200, (207, {}, b'{"0":"too old","3":"too hot"}'), 200)
        log, outbox = make(folder(), http, Partial, numbered(12), 5, buffer)
        assert outbox.send(10) and outbox.send(10)
        assert len(log) == 2 and outbox.wait_ms() == 0  # no failure, so no back-off
        assert outbox.sent == 8 and outbox.retries == 0 and outbox.error == ""
        assert outbox.rejected == (9, 207, b"too hot")
        assert outbox.send(10)
        assert len(log) == 0 and outbox.sent == 10
        assert listed(log) == [
            {"number": 6, "status": 207, "reason": "too old", "record": {"n": 6}},
            {"number": 9, "status": 207, "reason": "too hot", "record": {"n": 9}},
        ]
        assert [headers["Postcache-First"] for headers, _ in http.posts] == ["1", "6", "11"]
        log.close()


def test_what_is_taken_in_part_stays_until_the_others_are_set_aside():
    answer = 207, {}, b'{"1":"bad"}'
    http = Server(answer, answer, answer)
    log, outbox = make(folder(), http, Partial, numbered(3))
    opened = log.fs.open

    def full(name, mode):
        if "rejected" in name:
            raise OSError(28)
        return opened(name, mode)

    log.fs.open = full
    for _ in range(2):
        assert not outbox.send(10)
        assert outbox.error == "OSError 28" and len(log) == 3 and outbox.sent == 0
    log.fs.open = opened
    assert outbox.send(10)
    assert len(log) == 0 and (outbox.sent, DeadLetters(log).total) == (2, 1)
    assert http.posts[0] == http.posts[1] == http.posts[2]
    assert [letter["number"] for letter in listed(log)] == [2]
    log.close()


def test_a_cut_before_the_acknowledgement_repeats_bytes_and_key_and_no_dead_letter():
    # The first record, too, is set aside: it must not be passed over, as one that was alone is, or
    # the retry would have other bytes under another key.
    for refused in (b'{"0":"bad"}', b'{"0":"bad","2":"bad"}', b'{"2":"bad"}'):
        path = folder()
        http = Server((207, {}, refused), (207, {}, refused))
        log, outbox = make(path, http, Partial, numbered(3))

        def cut(*args):
            raise KeyboardInterrupt

        log.ack = cut
        try:
            outbox.send(10)
            raise AssertionError("it was not cut")
        except KeyboardInterrupt:
            pass
        cut_off(log)
        log, outbox = make(path, http, Partial)
        numbers = [int(i) + 1 for i in sorted(json.loads(refused))]
        assert [letter["number"] for letter in listed(log)] == numbers  # durable before the cut
        assert len(log) == 3
        assert outbox.send(10) and len(log) == 0
        assert http.posts[0] == http.posts[1]
        assert [letter["number"] for letter in listed(log)] == numbers
        assert DeadLetters(log).total == len(numbers)
        log.close()
