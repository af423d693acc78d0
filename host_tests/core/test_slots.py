"""The slot journal, on every file system: what test_log.py says of the log holds here, too."""

import os

from support import MICROPYTHON, Clock, Counting, Http, cut_off, folder, raises

from postcache.client import POSTCache
from postcache.log import Log
from postcache.log.line import encode
from postcache.ports import Directory

LITTLEFS = MICROPYTHON and os.getenv("POSTCACHE_TEST_FS") == "lfs2"


def open_log(path, slot_size=128, **kwargs):
    return Log(Directory(path), slot_size=slot_size, **kwargs)


def record(n, size=64):
    return b'{"n":%d%s}' % (n, b" " * (size - 6 - len(str(n))))


def records(log):
    return list(log.read(None))


def numbers(log):
    return [seq for seq, _ in log.read(None)]


def add(log, *numbers):
    for n in numbers:
        assert log.append([record(n)]) == n


def slots(path):
    """Names of the slots' files."""
    found = []
    for i in range(4):
        try:
            found += ["+%d/%s" % (i, name) for name in os.listdir(path + "/+%d" % i)]
        except OSError:
            pass
    return sorted(found)


def segments(path):
    return sorted([name for name in os.listdir(path) if name.endswith(".log")])


def put(path, name, data):
    with open(path + "/" + name, "wb") as f:
        f.write(data)


def get(path, name):
    with open(path + "/" + name, "rb") as f:
        return f.read()


def slot_of(path, n):
    """The name of the slot that holds record n."""
    for name in slots(path):
        if get(path, name)[8:].startswith(b" %d " % n):
            return name
    raise AssertionError(n)


class Failing:
    """A Directory whose `method` fails from its n-th call on, `times` times."""

    def __init__(self, fs, method, n=1, times=1, errno=5, after=False):
        self._fs = fs
        self._method = method
        self._n = n
        self._times = times
        self._errno = errno
        self._after = after

    def __getattr__(self, name):
        method = getattr(self._fs, name)
        if name != self._method:
            return method

        def call(*args):
            self._n -= 1
            if self._n <= 0 and self._times > 0:
                self._times -= 1
                if self._after:
                    method(*args)
                raise OSError(self._errno, "")
            return method(*args)

        return call


class Full:
    """A file that takes nothing."""

    def __init__(self, errno):
        self._errno = errno

    def write(self, data):
        raise OSError(self._errno, "")

    def close(self):
        pass


def test_the_journal_fits_the_file_system_and_can_be_chosen():
    fits = "slot" if LITTLEFS else "append"
    for slot_size, kind in ((None, fits), (0, "append"), (128, "slot")):
        with POSTCache(None, folder(), slot_size=slot_size) as cache:
            assert cache.stats["journal"] == kind
            cache.add_request(1)
    raises(ValueError, POSTCache, None, folder(), slot_size=-1)


def test_records_come_out_in_order_with_their_numbers_also_after_reopening():
    for size in (128, 512):
        path = folder()
        log = open_log(path, size)
        add(log, *range(1, 31))
        assert records(log) == [(n, record(n)) for n in range(1, 31)]
        log.close()
        assert segments(path) == [] and len(slots(path)) == 30
        log = open_log(path, size)
        assert len(log) == 30
        assert records(log) == [(n, record(n)) for n in range(1, 31)]
        add(log, 31)
        assert numbers(log) == list(range(1, 32))
        log.close()


def test_full_slots_become_one_segment_and_are_used_again():
    path = folder()
    log = open_log(path)
    add(log, *range(1, 201))
    assert numbers(log) == list(range(1, 201))
    names = segments(path)
    assert 3 <= len(names) <= 5
    for name in names:
        content = get(path, name)
        assert len(content) <= 4096
        assert int(content.split(b" ")[1]) == int(name[:-4])
    assert len(slots(path)) <= 40
    log.close()
    log = open_log(path)
    assert records(log) == [(n, record(n)) for n in range(1, 201)]
    log.close()


def test_a_segment_of_slots_is_never_longer_than_a_block():
    # One byte more would be a block more, and an erase.
    cases = ((128, 20, 50), (128, 100, 80), (128, 109, 80), (512, 100, 80), (512, 450, 20))
    for slot_size, size, count in cases:
        path = folder()
        log = open_log(path, slot_size)
        for n in range(1, count + 1):
            assert log.append([record(n, size)]) == n
        for name in segments(path):
            assert len(get(path, name)) <= 4096
        assert segments(path) and numbers(log) == list(range(1, count + 1))
        log.close()


def test_delivered_in_tens_only_the_first_slots_are_ever_used():
    path = folder()
    log = open_log(path)
    for n in range(1, 301):
        add(log, n)
        if n % 10 == 0:
            log.ack(n - 9, n, 0)
    assert segments(path) == []
    assert len(slots(path)) == 10
    log.close()
    log = open_log(path)
    assert len(log) == 0 and numbers(log) == []
    add(log, 301)
    assert numbers(log) == [301]
    log.close()


def test_a_record_too_big_for_a_slot_goes_to_a_segment_with_what_is_in_the_slots():
    path = folder()
    log = open_log(path)
    add(log, 1, 2, 3)
    assert log.append([record(4, 500)]) == 4
    assert segments(path) == ["0000000001.log"]
    assert get(path, "0000000001.log").count(b"\n") == 4
    add(log, 5, 6)
    assert log.append([record(7, 500)]) == 7
    # The next ones are appended to it, and do not take a block each. Only littlefs does that as a
    # whole; elsewhere what slots hold gets a file of its own.
    assert segments(path) == ["0000000001.log", "0000000005.log"][: 1 if LITTLEFS else 2]
    names = segments(path)
    assert log.append([record(8, 500)]) == 8
    assert segments(path) == names
    assert numbers(log) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert log.append([record(9, log.max_record)]) == 9
    add(log, 10)
    log.close()
    log = open_log(path)
    assert numbers(log) == list(range(1, 11))
    assert records(log)[8][1] == record(9, log.max_record)
    log.close()


def test_what_is_stored_together_shares_a_slot_or_a_segment():
    path = folder()
    log = open_log(path, 512)
    assert log.append([record(n) for n in range(1, 6)]) == 5
    assert len(slots(path)) == 1 and segments(path) == []
    assert log.append([record(n) for n in range(6, 26)]) == 25
    assert len(slots(path)) == 5 and segments(path) == []
    assert log.append([record(n) for n in range(26, 76)]) == 75
    # More than a block together: what the slots held has one of its own.
    assert segments(path) == ["0000000001.log", "0000000026.log"]
    log.ack(1, 75, 0)
    assert log.append([record(n) for n in range(76, 81)]) == 80
    log.ack(76, 77, 0)  # a part of a slot
    assert numbers(log) == [78, 79, 80]
    add(log, 81)
    log.close()
    log = open_log(path, 512)
    assert numbers(log) == [78, 79, 80, 81]
    log.close()


def test_acknowledged_records_do_not_come_back():
    path = folder()
    log = open_log(path)
    add(log, *range(1, 121))
    log.ack(1, 115, 0)
    assert numbers(log) == [116, 117, 118, 119, 120]
    cut_off(log)
    log = open_log(path)
    assert numbers(log) == [116, 117, 118, 119, 120]
    log.ack(116, 120, 0)
    cut_off(log)
    log = open_log(path)
    assert numbers(log) == [] and segments(path) == []
    add(log, 121)  # numbers are not reused
    log.close()


def test_slots_are_read_in_the_order_of_their_numbers():
    path = folder()
    log = open_log(path)
    add(log, 1, 2, 3, 4, 5)
    log.ack(1, 3, 0)
    add(log, 6, 7)  # in the slots of 1 and 2
    assert numbers(log) == [4, 5, 6, 7]
    log.close()
    log = open_log(path)
    assert numbers(log) == [4, 5, 6, 7]
    log.close()


def test_a_damaged_slot_costs_its_record_and_its_number_is_not_reused():
    for victim in (1, 3, 5):
        path = folder()
        log = open_log(path)
        add(log, 1, 2, 3, 4, 5)
        log.close()
        name = slot_of(path, victim)
        put(path, name, get(path, name).replace(b'"n"', b'"m"'))
        log = open_log(path)
        assert numbers(log) == [n for n in range(1, 6) if n != victim]
        assert log.damaged == 1
        seq = log.append([b'"new"'])
        assert seq > 5
        assert records(log)[-1] == (seq, b'"new"')
        log.close()


def test_a_damaged_line_in_a_slot_of_many_costs_one_record():
    for victim in range(1, 6):
        path = folder()
        log = open_log(path, 512)
        log.append([record(n) for n in range(1, 6)])
        log.close()
        put(path, "+0/0", get(path, "+0/0").replace(b'"n":%d' % victim, b'"m":%d' % victim))
        log = open_log(path, 512)
        assert numbers(log) == [n for n in range(1, 6) if n != victim]
        assert log.append([b"6"]) >= 6
        log.append([record(99, 600)])
        assert len(numbers(log)) == 6
        log.close()


def test_a_torn_slot_is_passed_over():
    path = folder()
    log = open_log(path)
    add(log, 1, 2, 3)
    log.close()
    name = slot_of(path, 3)
    whole = get(path, name).rstrip() + b"\n"
    for cut in range(len(whole)):
        put(path, name, whole[:cut])
        log = open_log(path)
        assert numbers(log) == [1, 2]
        assert log.damaged == (1 if cut else 0)
        log.close()


def test_opening_succeeds_on_any_bytes_in_slots():
    stale = encode(9, b"9")
    for junk in (b"", b"\x00" * 300, b"\xff" * 5000, b"\n" * 100, b"1 2 3\n" * 50, stale):
        path = folder()
        log = open_log(path)
        add(log, 1, 2)
        log.close()
        for name in ("+0/0", "+2/2"):
            put(path, name, junk)
            log = open_log(path)
            seq = log.append([b'"after"'])
            assert seq > 2 and records(log)[-1] == (seq, b'"after"')
            log.close()


def test_strangers_in_the_way_are_left_alone():
    path = folder()
    fs = Directory(path)
    fs.make("+0")
    fs.make("+0/0")
    put(path, "+0/mine", b"mine")
    log = Log(fs, None, 128)
    try:
        add(log, 1)
    except OSError:  # FAT shows only now that this is no file; the next one goes elsewhere
        add(log, 1)
    add(log, 2, 3)
    assert numbers(log) == [1, 2, 3]
    log.close()
    log = open_log(path)
    assert numbers(log) == [1, 2, 3] and get(path, "+0/mine") == b"mine"
    log.close()
    if MICROPYTHON and os.getenv("POSTCACHE_TEST_FS") == "fat":
        return  # the first ten adds raise there
    # A file where the first folder should be: its slots are not used, and nothing is lost.
    path = folder()
    fs = Directory(path)
    put(path, "+0", b"mine")
    log = Log(fs, None, 128)
    add(log, 1, 2, 3)
    log.close()
    log = open_log(path)
    assert numbers(log) == [1, 2, 3] and get(path, "+0") == b"mine"
    log.close()


def test_a_failed_write_of_a_slot_stores_nothing_and_the_next_one_works():
    for after in (False, True):  # True: all of it arrived, and then came the error
        path = folder()
        log = open_log(path)
        add(log, 1, 2)
        fs = log.journal._fs
        log.journal._fs = Failing(fs, "put", after=after)
        assert raises(OSError, log.append, [record(99)]).errno == 5
        assert numbers(log) == [1, 2]
        assert log.append([record(3)]) == 3
        assert records(log)[-1] == (3, record(3))
        log.close()
        log = open_log(path)
        assert records(log) == [(1, record(1)), (2, record(2)), (3, record(3))]
        log.close()


def test_what_a_failed_write_may_have_left_is_removed_before_anything_else_is_written():
    path = folder()
    log = open_log(path)
    add(log, 1, 2)
    fs = log.journal._fs
    log.journal._fs = Failing(Failing(fs, "put", after=True), "remove")
    raises(OSError, log.append, [record(99)])
    raises(OSError, log.append, [record(98)])  # it cannot be removed yet
    assert log.append([record(3)]) == 3
    log.close()
    log = open_log(path)
    assert records(log) == [(1, record(1)), (2, record(2)), (3, record(3))]
    log.close()


def test_a_segment_that_could_not_be_written_costs_nothing_that_is_in_slots():
    for before in (0, 3, 60):
        for errno in (5, 28):
            path = folder()
            log = open_log(path)
            add(log, *range(1, before + 1))
            fs = log.journal._fs

            def fail(name, mode, fs=fs, errno=errno):
                f = fs.open(name, mode)
                if mode == "rb":
                    return f
                f.close()
                return Full(errno)

            log.journal._fs = Failing(fs, "none")
            log.journal._fs.open = fail
            log.journal.close()
            for _ in range(3):
                assert raises(OSError, log.append, [record(99, 600)]).errno == errno
                assert numbers(log) == list(range(1, before + 1))
            log.journal._fs = fs
            # A small one, too, goes to a segment now: what is left of the other gives way to it.
            add(log, before + 1, before + 2)
            assert numbers(log) == list(range(1, before + 3))
            log.close()
            log = open_log(path)
            assert records(log) == [(n, record(n)) for n in range(1, before + 3)]
            log.close()


def test_a_segment_that_was_written_before_the_error_does_not_hide_the_next_records():
    path = folder()
    log = open_log(path)
    add(log, 1, 2, 3)
    real = log.journal._fs.open

    def fail(name, mode):
        f = real(name, mode)
        if mode == "rb":
            return f

        class Lying:
            def write(self, data):
                f.write(data)
                self.last = data

            def flush(self):
                f.flush()
                if len(self.last) > 600:
                    raise OSError(5, "")

            def close(self):
                f.close()

        return Lying()

    log.journal._fs = Failing(log.journal._fs, "none")
    log.journal._fs.open = fail
    raises(OSError, log.append, [record(99, 600)])
    log.journal._fs.open = real
    add(log, 4, 5)
    log.close()
    log = open_log(path)
    assert records(log) == [(n, record(n)) for n in range(1, 6)]
    log.close()


def test_metadata_that_littlefs_cannot_read_costs_what_is_there_and_no_more():
    path = folder()
    log = open_log(path)
    add(log, *range(1, 11))
    log.close()
    lost = [slot_of(path, n) for n in (1, 5, 9)]
    fs = Directory(path)
    real = fs.open

    def corrupt(name, mode):
        if name in lost:
            raise OSError(84, "")
        return real(name, mode)

    fs.open = corrupt
    log = Log(fs, None, 128)
    assert numbers(log) == [2, 3, 4, 6, 7, 8, 10]
    seq = log.append([record(11)])
    assert seq > 10
    log.append([record(12, 600)])
    assert len(numbers(log)) == 9
    log.close()


def test_an_error_while_slots_are_looked_at_is_told_and_loses_nothing():
    path = folder()
    log = open_log(path)
    add(log, *range(1, 11))
    log.close()
    fs = Directory(path)
    failed = 0
    for n in range(3, 43):  # after the two copies of the cursor: the slots
        failing = Failing(fs, "open", n)
        try:
            Log(failing, None, 128)
        except OSError:
            failed += 1
    assert failed == 40
    fs.close()
    log = open_log(path)
    assert numbers(log) == list(range(1, 11))
    log.close()


def test_a_log_may_change_its_journal_at_any_time():
    path = folder()
    n = 0
    for slot_size in (0, 128, 0, 0, 512, 128, 0):
        log = open_log(path, slot_size)
        assert numbers(log) == list(range(1, n + 1))
        for _ in range(7):
            n += 1
            add(log, n)
        assert records(log) == [(i, record(i)) for i in range(1, n + 1)]
        log.close()
    log = open_log(path, 128)
    log.ack(1, n, 0)
    log.close()
    log = open_log(path, 0)
    assert len(log) == 0
    add(log, n + 1)
    log.close()


def test_full_the_oldest_segment_is_dropped_and_counted():
    path = folder()
    log = open_log(path, max_bytes=32768)
    add(log, *range(1, 1001))
    assert sum([size for _, size in log.fs.files()]) <= 32768
    left = numbers(log)
    assert left == list(range(left[0], 1001))
    assert len(left) > 200
    assert log.dropped == left[0] - 1
    log.close()
    log = open_log(path, max_bytes=32768)
    assert numbers(log) == left and log.dropped == left[0] - 1
    log.close()


def test_a_reader_goes_on_when_slots_are_written_out_or_used_again():
    for step in (1, 3, 7, 40):
        log = open_log(folder())
        n = 0
        seen = []
        position = None
        while len(seen) < 150:
            for _ in range(step):
                n += 1
                add(log, n)
            reader = log.read(position)
            taken = 0
            for seq, payload in reader:
                if taken == step - (n % 3 == 0):
                    break
                assert payload == record(seq)
                seen.append(seq)
                taken += 1
            reader.close()
            if taken:
                position = reader.place
                assert position[2] == seen[-1]
                if n % 2:
                    log.ack(log.acked + 1, seen[-1], 0)
        assert seen == list(range(1, len(seen) + 1))
        log.close()


def test_opening_looks_at_the_slots_and_the_newest_segment_whatever_waits():
    path = folder()
    log = open_log(path)
    add(log, *range(1, 82))
    log.close()
    fs = Counting(Directory(path))
    Log(fs, None, 128).close()
    few, calls = fs.read, fs.calls
    log = open_log(path)
    n = 82
    while n < 1000 or len(segments(path)) * 41 + 40 > n:
        add(log, n)
        n += 1
        if n > 1100:
            break
    log.close()
    fs = Counting(Directory(path))
    Log(fs, None, 128).close()
    # The slots hold up to 40 lines, the end of a segment is 2048 bytes.
    assert fs.calls <= calls + 1
    assert fs.read <= few + 40 * 128


def test_a_whole_life_with_a_server():
    http = Http()
    clock = Clock()
    path = folder()
    n = 0
    for life in range(6):
        slot_size = (128, 512, 128, 0, 512, 128)[life]
        cache = POSTCache(
            "http://server/", path, async_interval=60, http=http, clock=clock, slot_size=slot_size
        )
        for i in range(30 + life * 10):
            cache.add_request({"n": n, "text": "x" * (i * 7 % 200)})
            n += 1
            if i % 25 == 24:
                http.answers = [503, (429, {"retry-after": "1"})][life % 2 :]
                clock.now += 10**6
                cache.flush()
        cache.close()
    with POSTCache("http://server/", path, http=http, clock=clock) as cache:
        assert cache.flush()
    assert [line["n"] for line in http.lines()] == list(range(n))


def test_held_records_are_stored_together_and_by_flush_and_close():
    for slot_size in (0, 512):
        path = folder()
        http = Http()
        clock = Clock()
        cache = POSTCache(
            "http://server/",
            path,
            async_interval=60,
            http=http,
            clock=clock,
            flush_every=4,
            slot_size=slot_size,
        )
        assert [cache.add_request(n) for n in range(1, 7)] == [1, 2, 3, 4, 5, 6]
        assert cache.storage.stored == 4
        assert len(cache) == cache.stats["waiting"] and cache.stats["added"] == 6
        assert cache.add_many([7, 8]) == 8  # durable with all that came before
        assert cache.storage.stored == 8
        assert cache.add_request(9) == 9
        assert cache.flush() and len(cache) == 0
        cache.add_request(10)
        cache.close()
        with POSTCache("http://server/", path, http=http, clock=clock) as cache:
            assert len(cache) == 0 or cache.flush()
        assert http.lines() == list(range(1, 11))


def test_held_records_stay_held_when_they_cannot_be_stored():
    path = folder()
    cache = POSTCache(None, path, flush_every=3, slot_size=128)
    assert [cache.add_request(n) for n in (1, 2)] == [1, 2]
    fs = cache.storage.journal._fs
    cache.storage.journal._fs = Failing(fs, "put", times=3)
    raises(OSError, cache.add_request, 99)  # this one is not stored, and not held
    raises(OSError, cache.flush)
    raises(OSError, cache.close)
    assert len(cache) == 2
    assert cache.add_request(3) == 3
    cache.close()
    log = open_log(path)
    assert records(log) == [(1, b"1"), (2, b"2"), (3, b"3")]
    log.close()


def test_held_records_are_stored_before_they_outgrow_a_segment():
    path = folder()
    cache = POSTCache(None, path, flush_every=10**6, max_bytes=32768, slot_size=0)
    most = cache.storage.max_record
    text = "x" * (most // 3)
    for n in range(1, 11):
        assert cache.add_request(text) == n
    assert len(cache.buffered) < 4
    cache.close()
    for name in segments(path):
        assert len(get(path, name)) <= cache.storage.limit
    log = open_log(path, 0)
    assert numbers(log) == list(range(1, 11))
    log.close()


def test_add_many_stores_all_or_refuses_before_anything_is_written():
    for slot_size in (0, 128):
        path = folder()
        cache = POSTCache(None, path, max_bytes=32768, slot_size=slot_size)
        assert cache.add_many([1, {"a": None}, "x"]) == 3
        assert cache.add_many((4,), separators=(",", ":")) == 4
        for bad in ([], [5, b"6"], [object()], ["x" * 3000] * 3):
            raises(ValueError, cache.add_many, bad)
        assert len(cache) == 4
        cache.close()
        raises(ValueError, cache.add_many, [1])
        log = open_log(path, slot_size)
        assert numbers(log) == [1, 2, 3, 4]
        log.close()


def test_a_slot_that_cannot_be_read_for_a_while_is_kept():
    path = folder()
    log = open_log(path)
    add(log, 1, 2, 3)
    fs = log.journal._fs
    lost = slot_of(path, 2)
    broken = Failing(fs, "none")

    def fail(name, mode):
        if name == lost:
            raise OSError(5, "")
        return fs.open(name, mode)

    broken.open = fail
    log.journal._fs = broken
    raises(OSError, log.append, [record(99, 600)])
    raises(OSError, records, log)
    log.journal._fs = fs
    add(log, 4)
    log.append([record(5, 600)])
    assert numbers(log) == [1, 2, 3, 4, 5] and log.dropped == 0
    log.close()


def test_a_shorter_record_leaves_nothing_of_a_longer_one():
    path = folder()
    log = open_log(path, 512)
    log.append([record(1, 400)])
    log.ack(1, 1, 0)
    assert log.append([record(2, 20)]) == 2
    log.close()
    log = open_log(path, 512)
    assert numbers(log) == [2] and log.damaged == 0
    assert log.append([record(3)]) == 3
    log.close()


def test_old_content_behind_the_records_of_a_slot_is_not_believed():
    # FAT: the length of the old content, and the first sector of the new one.
    path = folder()
    log = open_log(path, 512)
    add(log, *range(1, 10))
    log.close()
    name = slot_of(path, 9)
    put(path, name, encode(9, record(9)) + encode(7, b'"old"'))
    log = open_log(path, 512)
    assert records(log) == [(n, record(n)) for n in range(1, 10)]
    assert log.append([record(10)]) == 10
    log.close()


def test_add_many_is_durable_whatever_flush_every_says():
    path = folder()
    cache = POSTCache(None, path, flush_every=100, slot_size=128)
    assert cache.add_request(1) == 1
    assert cache.storage.stored == 0
    assert cache.add_many([2, 3]) == 3
    assert cache.storage.stored == 3
    cache.close()


def test_a_segment_that_is_delivered_and_removed_is_not_gone_on_with():
    path = folder()
    log = open_log(path)
    log.append([record(1, 500)])
    add(log, 2)
    log.ack(1, 1, 0)
    assert segments(path) == []
    log.append([record(3, 500)])
    assert numbers(log) == [2, 3]
    log.close()
    log = open_log(path)
    assert numbers(log) == [2, 3]
    log.close()


def test_a_group_that_finds_too_few_slots_is_stored_as_a_whole():
    path = folder()
    log = open_log(path)
    add(log, *range(1, 39))
    assert log.append([record(n) for n in range(39, 43)]) == 42
    assert records(log) == [(n, record(n)) for n in range(1, 43)]
    log.close()
    log = open_log(path)
    assert numbers(log) == list(range(1, 43))
    log.close()


def test_a_reader_that_is_overtaken_by_new_records_says_so():
    log = open_log(folder())
    add(log, *range(1, 41))
    reader = iter(log.read())
    seen = [next(reader)[0]]
    add(log, *range(41, 61))  # the slots are written out, and used again
    try:
        for seq, _ in reader:
            seen.append(seq)
    except OSError:
        pass
    else:
        assert len(seen) >= 40
    assert seen == list(range(1, len(seen) + 1))
    assert numbers(log) == list(range(1, 61))
    log.close()


def test_a_reader_that_was_opened_before_slots_were_written_out_says_so():
    log = open_log(folder())
    add(log, *range(1, 41))
    f, _ = log.journal.open(log.journal.firsts[-1])
    add(log, *range(41, 61))  # written out, and used again for longer lines, or for other ones
    raises(OSError, f.readline)
    assert numbers(log) == list(range(1, 61))
    log.close()


def test_without_room_for_its_folders_a_log_has_no_slots():
    path = folder()
    fs = Directory(path)
    fs.free = lambda: 65536
    log = Log(fs, None, 128)
    add(log, 1, 2, 3)
    assert slots(path) == [] and segments(path) == ["0000000001.log"]
    log.close()
    log = open_log(path)  # now there is
    add(log, 4, 5)
    assert len(slots(path)) == 2 and numbers(log) == [1, 2, 3, 4, 5]
    log.close()


def test_slots_that_cannot_be_looked_up_for_a_while_are_not_forgotten():
    path = folder()
    log = open_log(path)
    add(log, 1, 2, 3)
    log.close()
    fs = Directory(path)
    real = fs.size

    def fail(name):
        if name == "+0":
            raise OSError(5, "")
        return real(name)

    fs.size = fail
    assert raises(OSError, Log, fs, None, 0).errno == 5
    fs.close()
    log = open_log(path, 0)
    assert numbers(log) == [1, 2, 3]
    log.close()


def test_slots_that_were_written_out_are_not_written_out_again_after_reopening():
    path = folder()
    log = open_log(path)
    add(log, *range(1, 42))
    assert segments(path) == ["0000000001.log"]
    log.close()
    log = open_log(path)
    add(log, *range(42, 61))
    assert segments(path) == ["0000000001.log"] and len(slots(path)) == 40
    assert numbers(log) == list(range(1, 61))
    log.close()


def test_a_slot_is_not_used_again_before_the_cursor_says_on_flash_that_it_is_free():
    path = folder()
    log = open_log(path)
    for _ in range(3):
        log.append([b"1"])
    whole = log.fs
    log._cursor._fs = Failing(whole, "put", times=10)
    log.ack(1, 3, 0)  # delivered, but that cannot be written
    assert log.errors >= 1 and len(log) == 0

    class Torn:
        """A disk that leaves nothing of what was there, nor of what came."""

        def put(self, name, data):
            whole.put(name, b"?")
            raise OSError(5)

        def __getattr__(self, name):
            return getattr(whole, name)

    log.journal._fs = Torn()
    for _ in range(3):
        raises(OSError, log.append, [b"2"])
    log.journal._fs = log._cursor._fs = whole
    cut_off(log)
    log = open_log(path)
    assert log.stored >= 3
    log.close()
