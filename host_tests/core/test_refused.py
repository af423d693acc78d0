"""What a status of 400 to 499 does: the bad record is found and set aside, the rest arrives."""

import json

from support import Clock, Http, folder, raises

from postcache import POSTCache
from postcache.envelope import Frame
from postcache.log import Log
from postcache.ports import Directory
from postcache.send import Outbox
from postcache.send.dead_letters import DeadLetters, listed
from postcache.send.resume import resume

SLOW = (401, 403, 404, 405, 410)
SOON = (408, 425, 429)


def make(path, http, n=0, limit=500):
    log = Log(Directory(path), None, 0)
    resume(log)
    for _ in range(n):
        log.append([b'{"n":%d}' % (log.stored + 1)])
    clock = Clock()
    tail = b'],"device":"a rather long name, longer than the records"}'
    frame = Frame("http://x/", {}, b'{"lines":[', b",", tail)
    return log, Outbox(log, http, clock, frame, limit, 0), clock


class Picky(Http):
    """A server that refuses batches with a record in `bad`, and bodies over `most` bytes."""

    bad = ()
    status = 400
    most = 1 << 30
    after = ()

    def post(self, url, headers, chunks, timeout):
        answer = Http.post(self, url, headers, chunks, timeout)
        body = self.posts[-1][1]
        refused = None
        if len(body) > self.most:
            refused = 413, {}, b"too large"
        else:
            for record in json.loads(body)["lines"]:
                if record["n"] in self.bad:
                    refused = self.status, dict(self.after), b"n: %d is bad" % record["n"]
        if refused and answer == (200, {}):
            self.taken.pop()
            return refused
        return answer

    def numbers(self):
        return [record["n"] for record in self.lines()]


def drain(log, outbox, clock, tries=10000):
    while len(log) and tries:
        clock.now += outbox.wait_ms()
        outbox.send(10)
        tries -= 1
    assert not len(log)


def without(n, *bad):
    return [i for i in range(1, n + 1) if i not in bad]


def test_one_bad_record_among_500_costs_at_most_12_requests():
    # log2(500), rounded up, and 3. Places in the batch that meet both halves often.
    for bad in (1, 2, 3, 125, 249, 250, 251, 333, 499, 500):
        http = Picky()
        http.bad = (bad,)
        log, outbox, _ = make(folder(), http, 500)
        while len(log):
            assert outbox.send(10)
            assert outbox.wait_ms() == 0  # no back-off: the server is well
        assert len(http.posts) <= 12, (bad, len(http.posts))
        assert http.numbers() == without(500, bad)
        (one,) = listed(log)
        assert one == {
            "number": bad,
            "status": 400,
            "reason": "n: %d is bad" % bad,
            "record": {"n": bad},
        }
        log.close()


def test_every_status_that_a_record_can_be_refused_with():
    for status in range(400, 500):
        if status in SLOW or status in SOON or status == 413:
            continue
        http = Picky()
        http.status = status
        http.bad = (3,)
        log, outbox, clock = make(folder(), http, 5)
        drain(log, outbox, clock, 10)
        assert http.numbers() == [1, 2, 4, 5]
        assert [reject["status"] for reject in listed(log)] == [status]
        assert (outbox.sent, DeadLetters(log).total) == (4, 1)
        log.close()


def test_several_bad_records_in_every_place():
    for bad in ((1, 2), (1, 30), (29, 30), (7, 8, 9), (1, 3, 5, 7, 9, 11), tuple(range(10, 16))):
        http = Picky()
        http.bad = bad
        log, outbox, clock = make(folder(), http, 30)
        drain(log, outbox, clock)
        assert http.numbers() == without(30, *bad)
        assert [reject["number"] for reject in listed(log)] == list(bad)
        log.close()


def test_a_server_that_refuses_everything_is_not_fed_the_backlog():
    http = Http(default=422)
    log, outbox, clock = make(folder(), http, 500)
    begun = 0
    while not outbox.blocked and begun < 40:
        outbox.send(10)
        begun += 1
    assert begun <= 30 and DeadLetters(log).total == 8 and outbox.blocked
    # From now on each record costs a back-off that grows, and one request.
    for _ in range(12):
        clock.now += outbox.wait_ms()
        before = len(http.posts)
        assert not outbox.send(10)
        assert len(http.posts) == before + 1
    assert DeadLetters(log).total == 20
    assert len(log) == 480
    # The server is mended: the rest arrives at full size.
    http.default = 200
    clock.now += outbox.wait_ms()
    assert outbox.send(10) and not outbox.blocked
    assert outbox.send(10) and outbox.send(10)
    assert len(log) == 0
    assert len(listed(log)) == 20 == DeadLetters(log).total
    log.close()


def test_a_server_that_refused_by_mistake_loses_nothing():
    # 400 for the whole, 200 for both halves.
    http = Http(400, default=200)
    log, outbox, clock = make(folder(), http, 9)
    drain(log, outbox, clock, 10)
    assert len(http.lines()) == 9 and not listed(log)
    # What was suspected is behind us: the next batch is whole again.
    for _ in range(6):
        log.append([b"1"])
    assert outbox.send(10)
    assert len(log) == 0
    log.close()


def test_statuses_that_a_person_must_mend_keep_everything_and_are_tried_slowly():
    for status in SLOW:
        waits = []
        for _ in range(12):
            http = Http(default=status)
            log, outbox, clock = make(folder(), http, 5)
            for _ in range(2):
                assert not outbox.send(10)
                assert outbox.blocked and outbox.error == "HTTP %d" % status
                waits.append(outbox.wait_ms())
                clock.now += waits[-1]
            if len(waits) < 24:
                log.close()
        assert min(waits) >= 150000 and max(waits) < 450000
        # A fleet is spread, from its first try on: of 300 s, 12 draws never lie within 60.
        assert max(waits[::2]) - min(waits[::2]) > 60000
        assert len(log) == 5 and not listed(log)
        assert [post for post in http.posts if post != http.posts[0]] == []
        http.default = 200
        assert outbox.send(10) and not outbox.blocked and outbox.error == ""
        assert len(log) == 0
        log.close()


def test_statuses_that_say_later_keep_everything():
    for status in SOON:
        http = Http((status, {"retry-after": "30"}), status)
        log, outbox, _clock = make(folder(), http, 5)
        assert not outbox.send(10)
        assert 30000 <= outbox.wait_ms() < 31000
        assert not outbox.send(10) and not outbox.blocked
        assert outbox.wait_ms() < 2000
        assert outbox.send(10)
        assert http.posts[0] == http.posts[1] == http.posts[2]
        log.close()


def test_retry_after_is_obeyed_while_the_bad_record_is_looked_for():
    http = Picky()
    http.bad = (2,)
    http.after = (("retry-after", "60"),)
    log, outbox, clock = make(folder(), http, 4)
    refused = 0
    while len(log):
        if not outbox.send(10):
            refused += 1
            assert 60000 <= outbox.wait_ms() < 60000 + (1000 << refused)
        clock.now += outbox.wait_ms()
    assert refused == 3  # the whole, its half, the record
    assert http.numbers() == [1, 3, 4] and len(listed(log)) == 1
    log.close()


def test_413_halves_and_remembers_the_size_that_worked():
    http = Picky()
    http.most = 700
    log, outbox, clock = make(folder(), http, 400)
    drain(log, outbox, clock, 200)
    assert http.numbers() == without(400)
    refused = len(http.posts) - len(http.taken)
    assert 1 <= refused <= 5
    assert not listed(log)
    # And each of the others had a good part of what is allowed.
    assert len(http.taken) <= 2 * (400 * 9 // (700 - 100)) + 2
    log.close()


def test_a_record_that_is_too_large_alone_is_set_aside():
    for place in (1, 3, 5):
        http = Picky()
        http.most = 200
        log, outbox, clock = make(folder(), http)
        for n in range(1, 6):
            text = "x" * (300 if n == place else 3)
            log.append([b'{"n":%d,"text":"%s"}' % (n, text.encode())])
        drain(log, outbox, clock, 30)
        assert http.numbers() == without(5, place)
        (one,) = listed(log)
        assert (one["number"], one["status"]) == (place, 413)
        assert one["record"] == {"n": place, "text": "x" * 300}
        log.close()


def test_refusing_is_durable_before_the_record_is_passed_over():
    # The power goes between the two: it is set aside once, and not sent again.
    path = folder()
    http = Picky()
    http.bad = (2,)
    log, outbox, clock = make(path, http, 3)

    def cut(*args):
        raise KeyboardInterrupt

    log.ack, ack = cut, log.ack
    try:
        # The first record alone is delivered before.
        log.ack = lambda first, last, sending: ack(first, last, sending) if last < 2 else cut()
        while True:
            outbox.send(10)
    except KeyboardInterrupt:
        pass
    log.close()
    log, outbox, clock = make(path, http)
    assert [reject["number"] for reject in listed(log)] == [2]
    assert len(log) == 1
    http.bad = ()  # the server is mended: it must not get what can be put back
    drain(log, outbox, clock, 30)
    assert http.numbers() == [1, 3]
    assert [reject["number"] for reject in listed(log)] == [2]
    assert DeadLetters(log).total == 1
    log.close()


def test_a_record_that_cannot_be_set_aside_stays():
    http = Picky()
    http.bad = (1,)
    log, outbox, _clock = make(folder(), http, 1)
    opened = log.fs.open
    log.fs.open = lambda name, mode: raises_full() if "rejected" in name else opened(name, mode)

    def raises_full():
        raise OSError(28)

    for _ in range(3):
        assert not outbox.send(10)
        assert outbox.error == "OSError 28" and outbox.wait_ms() < 300000
    assert len(log) == 1
    log.fs.open = opened
    outbox.send(10)
    assert len(log) == 0 and len(listed(log)) == 1
    log.close()


def test_after_a_reboot_in_the_middle_of_the_search_it_goes_on():
    path = folder()
    http = Picky()
    http.bad = (37,)
    numbers = 64
    log, outbox, clock = make(path, http, numbers)
    for _ in range(200):
        clock.now += outbox.wait_ms()
        outbox.send(10)
        if not len(log):
            break
        log.close()
        log, outbox, clock = make(path, http)
    assert http.numbers() == without(numbers, 37)
    assert [reject["number"] for reject in listed(log)] == [37]
    log.close()


def test_what_was_set_aside_can_be_sent_again():
    http = Picky()
    http.bad = (2, 4)
    with POSTCache("http://x/", folder(), 60, http=http, clock=Clock()) as cache:
        for n in range(1, 6):
            cache.add_request({"n": n})
        for _ in range(20):
            cache.flush()
        assert len(cache) == 0
        assert cache.stats["rejected"] == 2 and cache.stats["sent"] == 3
        assert [reject["record"] for reject in cache.rejected()] == [{"n": 2}, {"n": 4}]
        http.bad = ()
        assert cache.requeue_rejected() == 2
        assert cache.rejected() == [] and len(cache) == 2
        assert cache.flush()
        assert http.numbers() == [1, 3, 5, 2, 4]
        assert cache.requeue_rejected() == 0
        assert cache.stats["rejected"] == 2  # ever


def test_what_is_held_in_ram_keeps_its_numbers_when_others_come_back():
    http = Picky()
    http.bad = (1,)
    with POSTCache("http://x/", folder(), 60, http=http, clock=Clock(), flush_every=10) as cache:
        cache.add_request({"n": 1})
        cache.flush()
        assert [cache.add_request({"n": n}) for n in (2, 3)] == [2, 3]
        http.bad = ()
        assert cache.requeue_rejected() == 1
        assert cache.add_request({"n": 4}) == 5
        assert cache.flush()
        assert http.numbers() == [2, 3, 1, 4]


def test_what_waits_is_not_put_back():
    # The power was cut between the two, and what was read at opening could not say so.
    log, _outbox, _ = make(folder(), Http(), 3)
    log.ack(1, 1, 0)
    DeadLetters(log).add(1, 400, b"", b'{"n":1}')
    DeadLetters(log).add(2, 400, b"", b'{"n":2}')
    assert DeadLetters(log).requeue(log.append) == 1
    assert len(log) == 3
    log.close()


def test_nothing_is_put_back_before_the_cursor_has_passed_it_over():
    log, _outbox, _ = make(folder(), Http(), 1)
    put = log.fs.put

    def broken(name, data):
        if name[:6] == "cursor":
            raise OSError(28)
        put(name, data)

    DeadLetters(log).add(1, 400, b"", b'{"n":1}')
    log.fs.put = broken
    log.ack(1, 1, 0)
    raises(OSError, DeadLetters(log).requeue, log.append)
    assert len(listed(log)) == 1 and len(log) == 0
    log.fs.put = put
    assert DeadLetters(log).requeue(log.append) == 1
    log.close()


def test_requeue_needs_the_sender_to_rest():
    with POSTCache("http://x/", folder(), 60, http=Http(), clock=Clock(), timeout=0.01) as cache:
        assert cache.sending.acquire(True)
        raises(OSError, cache.requeue_rejected)
        cache.sending.release()
        assert cache.requeue_rejected() == 0
