"""rejected.log: what is set aside is there, once, within a bound, and can be put back."""

import os
from io import BytesIO

from support import MICROPYTHON, STRIDE, Clock, Http, folder, raises

from postcache import POSTCache
from postcache.log import Log
from postcache.log.line import encode
from postcache.ports import Directory
from postcache.send.dead_letters import DeadLetters, listed, requeue
from postcache.send.resume import resume

FILES = ("rejected.log", "rejected-2.log")


class Faulty:
    """
    A Directory whose n-th call raises OSError(5), before it has done anything, or `after` it.

    `calls` counts them: of the directory, and of the files that are open.
    """

    def __init__(self, fs, n=-1, after=False):
        self._fs = fs
        self.left = n
        self.after = after
        self.calls = self.opened = 0
        self.log = []

    def call(self, what, function, *args):
        self.calls += 1
        self.log.append(what)
        self.left -= 1
        if self.left == -1 and not self.after:
            if what == "close":
                function()
            raise OSError(5)
        result = function(*args)
        if self.left == -1:
            if what in ("open", "open rb"):
                result.close()
            raise OSError(5)
        return result

    def open(self, name, mode):
        what = "open rb" if mode == "rb" else "open"
        return Handle(self, self.call(what, self._fs.open, name, mode))

    def put(self, name, data):
        self.call("put", self._fs.put, name, data)

    def remove(self, name):
        self.call("remove", self._fs.remove, name)

    def __getattr__(self, name):
        return getattr(self._fs, name)


class Handle:
    def __init__(self, faulty, f):
        self._faulty = faulty
        self._f = f
        faulty.opened += 1

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self._faulty.opened -= 1
        self._f.close()

    def close(self):
        self._faulty.opened -= 1
        self._faulty.call("close", self._f.close)

    def readline(self, *args):
        return self._faulty.call("readline", self._f.readline, *args)

    def read(self, n):
        return self._faulty.call("read", self._f.read, n)

    def write(self, data):
        return self._faulty.call("write", self._f.write, data)

    def flush(self):
        return self._faulty.call("flush", self._f.flush)

    def seek(self, at):
        self._f.seek(at)


def make(path=None, max_bytes=None, slot_size=0):
    log = Log(Directory(path or folder()), max_bytes, slot_size)
    resume(log)
    return log


def read(log):
    return list(DeadLetters(log).records())


def content(log, name):
    try:
        with log.fs.open(name, "rb") as f:
            return f.read(1 << 20)
    except OSError:
        return b""


def write(log, name, data, mode="ab"):
    f = log.fs.open(name, mode)
    f.write(data)
    f.flush()
    f.close()


def waiting(log):
    return [payload for _, payload in log.read(None)]


def discard(log):
    """Close a log, and give its place on the disk in RAM to the next one."""
    path = log.fs.path
    log.close()

    def empty(path):
        for name in os.listdir(path):
            if os.stat(path + "/" + name)[0] & 0x4000:
                empty(path + "/" + name)
            else:
                os.remove(path + "/" + name)
        os.rmdir(path)

    empty(path)


# --- set aside ---


def test_what_is_set_aside_comes_back_byte_for_byte_also_after_a_reboot():
    path = folder()
    log = make(path)
    payloads = (
        b'{"t": 21.5}',
        b' {"t":null}',
        b'"text"',
        b"0",
        b'{"x":",\\"record\\":1","record":2}',
        b'{"record":3}',
        '{"é":"\u2028"}'.encode(),
        b"[1,2] ",
    )
    for i, payload in enumerate(payloads):
        DeadLetters(log).add(7 + 2 * i, 400 + i, b"no", payload)
    expected = [(7 + 2 * i, 400 + i, "no", payload) for i, payload in enumerate(payloads)]
    assert read(log) == expected
    log.close()
    log = make(path)
    assert read(log) == expected
    assert DeadLetters(log).total == len(payloads)
    assert listed(log)[0] == {
        "number": 7,
        "status": 400,
        "reason": "no",
        "record": {"t": 21.5},
    }
    discard(log)


def test_a_line_is_text_for_a_person():
    log = make()
    DeadLetters(log).add(954, 422, b"no t", b'{"x":1}')
    text = b'{"total":1,"requeued":0,"status":422,"reason":"no t","record":{"x":1}}'
    assert content(log, "rejected.log") == encode(954, text)
    discard(log)


def test_the_reason_is_what_can_be_printed_of_80_characters():
    log = make()
    DeadLetters(log).add(1, 400, b'","record":0,"\\\r\n\0\xc3\xa9', b"1")
    DeadLetters(log).add(2, 400, b"x" * 512, b"2")
    DeadLetters(log).add(3, 400, b"", b"3")
    assert [reason for _, _, reason, _ in read(log)] == [
        '","record":0,"\\?????',
        "x" * 80,
        "",
    ]
    assert [payload for _, _, _, payload in read(log)] == [b"1", b"2", b"3"]
    discard(log)


def test_the_same_record_again_is_stored_once():
    path = folder()
    log = make(path)
    for _ in range(2):
        for seq in (5, 6, 7):
            DeadLetters(log).add(seq, 400, b"", b"%d" % seq)
            DeadLetters(log).add(seq, 422, b"other words", b"%d" % seq)
        log.close()
        log = make(path)
    assert [seq for seq, _, _, _ in read(log)] == [5, 6, 7]
    assert DeadLetters(log).total == 3
    # The same number on another record: a log that lost its cursor. Both are kept.
    DeadLetters(log).add(6, 400, b"", b"66")
    assert [payload for _, _, _, payload in read(log)] == [b"5", b"6", b"7", b"66"]
    discard(log)


def test_what_a_killed_program_left_is_synced_before_it_is_believed():
    log = make()
    DeadLetters(log).add(1, 400, b"", b"1")
    log.fs = Faulty(log.fs)
    DeadLetters(log).add(1, 400, b"", b"1")
    assert "flush" in log.fs.log
    log.fs = Faulty(log.fs._fs)
    log.fs.left = log.fs.calls
    while True:
        log.fs.left += 1
        try:
            DeadLetters(log).add(1, 400, b"", b"1")
            break
        except OSError:
            pass
    discard(log)


def test_after_a_sync_that_failed_the_line_is_written_again():
    log = make()
    DeadLetters(log).add(1, 400, b"", b"1")
    fs = log.fs

    class Lost(Faulty):
        def call(self, what, function, *args):
            if what == "flush":
                raise OSError(5)
            return Faulty.call(self, what, function, *args)

    log.fs = Lost(fs)
    raises(OSError, DeadLetters(log).add, 2, 400, b"", b"2")
    log.fs = fs
    before = content(log, "rejected.log")
    DeadLetters(log).add(2, 400, b"", b"2")
    after = content(log, "rejected.log")
    # What the next sync would call clean is not relied on: the line is there anew.
    assert after.startswith(before) and b" 2 {" in after[len(before) :]
    assert [seq for seq, _, _, _ in read(log)] == [1, 2]
    assert DeadLetters(log).total == 2
    DeadLetters(log).add(3, 400, b"", b"3")
    assert [seq for seq, _, _, _ in read(log)] == [1, 2, 3]
    assert DeadLetters(log).total == 3
    discard(log)


def test_the_files_are_bounded_and_the_newest_stay():
    path = folder()
    log = make(path, 65536)
    payload = b'"' + b"x" * 300 + b'"'
    n = 4 * log.limit // 300
    for seq in range(1, n + 1):
        DeadLetters(log).add(seq, 400, b"", payload)
        for name in FILES:
            assert len(content(log, name)) <= log.limit
        if seq % 16 == 0:
            log.close()
            log = make(path, 65536)
    found = [seq for seq, _, _, _ in read(log)]
    assert found == list(range(found[0], n + 1))
    assert len(found) * 400 > log.limit // 2  # half of the space is always in use
    rejects = DeadLetters(log)
    assert rejects.total == n
    assert rejects.dropped() == n - len(found) > 0
    # And after everything was put back, too.
    assert DeadLetters(log).requeue(log.append) == len(found)
    rejects = DeadLetters(log)
    assert (rejects.total, rejects.dropped(), read(log)) == (n, 0, [])
    DeadLetters(log).add(n + 1, 400, b"", payload)
    log.close()
    log = make(path, 65536)
    assert (DeadLetters(log).total, len(read(log))) == (n + 1, 1)
    # Also when the line that said so has been overwritten.
    for seq in range(n + 2, 2 * n + 1):
        DeadLetters(log).add(seq, 400, b"", payload)
    assert DeadLetters(log).dropped() == n - len(read(log)) > 0
    discard(log)


def test_the_longest_record_fits():
    for max_bytes in (4096, 65536, None):
        log = make(folder(), max_bytes)
        payload = b'"' + b"x" * (log.max_record - 2) + b'"'
        for seq in range(1, 6):
            log.append([payload[:-2] + b'%d"' % seq])
            DeadLetters(log).add(seq, 400, b"\\" * 80, payload[:-2] + b'%d"' % seq)
            for name in FILES:
                assert len(content(log, name)) <= log.limit + 300
            DeadLetters(log).add(seq, 400, b"\\" * 80, payload[:-2] + b'%d"' % seq)
        assert [seq for seq, _, _, _ in read(log)] == [4, 5]
        assert DeadLetters(log).dropped() == 3
        log.acked = 5
        assert DeadLetters(log).requeue(log.append) == 2
        assert waiting(log) == [payload[:-2] + b'4"', payload[:-2] + b'5"']
        discard(log)


def test_damage_costs_the_lines_that_it_hit_and_is_counted_once():
    path = folder()
    log = make(path)
    for seq in range(1, 6):
        DeadLetters(log).add(seq, 400, b"", b"%d" % seq)
    data = content(log, "rejected.log")
    third = data.find(b" 3 {") + 1
    write(log, "rejected.log", data[:third] + b"?" + data[third + 1 :], "wb")
    for _ in range(3):
        assert [seq for seq, _, _, _ in read(log)] == [1, 2, 4, 5]
    assert log.damaged == 1 and DeadLetters(log).total == 5 and DeadLetters(log).dropped() == 1
    # Whatever the end looks like, the next one is found.
    tails = (
        b"\0" * 50,
        b"12345678 6 {",
        encode(9, b"17")[:-1],
        b"\n\n",
        b"\xff\n",
        encode(9, b"[]"),
    )
    for i, tail in enumerate(tails):
        write(log, "rejected.log", tail)
        DeadLetters(log).add(6 + i, 400, b"", b"%d" % (6 + i))
    assert [seq for seq, _, _, _ in read(log)] == [1, 2, 4, 5] + list(range(6, 6 + len(tails)))
    discard(log)


def test_any_bytes_are_survived():
    log = make()
    log.append([b"1", b"2", b"3"])
    log.ack(1, 3, 0)
    for data in (b"", b"\n", b"\0" * 600, b"00000000 \n", encode(1, b"null"), encode(1, b"{}")):
        for name in FILES:
            write(log, name, data, "wb")
        write(log, "requeue", data, "wb")
        before = DeadLetters(log).total
        DeadLetters(log).add(3, 400, b"", b"3")
        assert [seq for seq, _, _, _ in read(log)] == [3]
        assert DeadLetters(log).total == before + 1
        assert DeadLetters(log).requeue(log.append) == 1
        assert read(log) == []
        if "requeue" in [name for name, _ in log.fs.files()]:
            raise AssertionError(data)
    discard(log)


def test_a_write_that_failed_halfway_costs_nothing():
    # What is written before the error is in the file, or is not: every part of the line.
    for cut in (0, 1, 20, 60, 1000):
        log = make()
        DeadLetters(log).add(1, 400, b"", b"1")
        fs = log.fs

        class Half(Faulty):
            def call(self, what, function, *args):
                if what == "write":
                    function(args[0][:cut])  # noqa: B023
                    raise OSError(28)
                return Faulty.call(self, what, function, *args)

        rejects = DeadLetters(log)
        log.fs = rejects._fs = Half(fs)
        for _ in range(3):
            raises(OSError, rejects.add, 2, 400, b"", b"2")
            raises(OSError, DeadLetters(log).add, 2, 400, b"", b"2")
        log.fs = rejects._fs = fs
        rejects.add(2, 400, b"", b"2")
        DeadLetters(log).add(3, 400, b"", b"3")
        assert [seq for seq, _, _, _ in read(log)] == [1, 2, 3], cut
        assert DeadLetters(log).total == 3
        discard(log)


def test_an_error_at_any_call_of_add_costs_nothing():
    for after in (False, True):
        for max_bytes, n in ((4096, 6), (None, 3)):
            i = calls = 0
            while i <= calls:
                log = make(folder(), max_bytes)
                payload = b'"' + b"x" * (log.limit // 4 if max_bytes else 10) + b'"'
                for seq in range(1, n):
                    DeadLetters(log).add(seq, 400, b"", payload)
                fs = log.fs
                log.fs = faulty = Faulty(fs, i, after)
                try:
                    DeadLetters(log).add(n, 400, b"", payload)
                except OSError:
                    DeadLetters(log).add(n, 400, b"", payload)
                calls = max(calls, faulty.calls)
                log.fs = fs
                numbers = [seq for seq, _, _, _ in read(log)]
                assert numbers[-1] == n and numbers == list(range(numbers[0], n + 1))
                assert len(numbers) >= (2 if max_bytes else n)
                assert DeadLetters(log).total == n, (i, faulty.log)
                discard(log)
                i += 1
            assert i > 5


def test_something_else_under_its_name_is_passed_over():
    log = make()
    os.mkdir(log.fs.path + "/rejected-2.log")
    for seq in (1, 2):
        DeadLetters(log).add(seq, 400, b"", b"%d" % seq)
    assert [seq for seq, _, _, _ in read(log)] == [1, 2]
    assert log.damaged <= 1  # FAT says that there is nothing
    discard(log)


def test_a_file_that_cannot_be_read_is_passed_over_after_some_tries():
    log = make()
    DeadLetters(log).add(1, 400, b"", b"1")
    fs = log.fs

    class Bad(Faulty):
        def open(self, name, mode):
            if name == "rejected.log" and mode == "rb":
                raise OSError(5)
            return self._fs.open(name, mode)

    log.fs = Bad(fs)
    for _ in range(39):
        raises(OSError, DeadLetters, log)
    DeadLetters(log).add(2, 400, b"", b"2")
    discard(log)


# --- put back ---


def aside(log, n, first=1, size=0):
    """Append n records, all of them refused and acknowledged."""
    for _ in range(n):
        payload = b'{"n":%d,"x":"%s"}' % (log.stored + first, b"x" * size)
        seq = log.append([payload])
        DeadLetters(log).add(seq, 400, b"", payload)
    log.ack(1, log.stored, 0)


def test_what_is_put_back_gets_new_numbers_in_the_old_order():
    for slot_size in (0, 128):
        path = folder()
        log = make(path, None, slot_size)
        aside(log, 5)
        log.append([b"6"])
        payloads = [payload for _, _, _, payload in read(log)]
        assert DeadLetters(log).requeue(log.append) == 5
        assert list(log.read(None)) == list(enumerate([b"6"] + payloads, 6))
        assert read(log) == [] and DeadLetters(log).requeue(log.append) == 0
        assert DeadLetters(log).total == 5
        names = [name for name, _ in log.fs.files()]
        assert "requeue" not in names
        # What remains is one line that knows the total.
        assert sum([len(content(log, name)) for name in FILES]) <= 128
        log.close()
        log = make(path, None, slot_size)
        assert waiting(log) == [b"6"] + payloads
        assert (DeadLetters(log).total, read(log)) == (5, [])
        DeadLetters(log).add(99, 400, b"", b"99")
        assert (DeadLetters(log).total, len(read(log))) == (6, 1)
        assert DeadLetters(log).requeue(log.append) == 1
        discard(log)


def test_much_goes_back_in_groups_that_fit():
    log = make(folder(), 65536)
    aside(log, 30, 1, log.max_record // 8)
    payloads = [payload for _, _, _, payload in read(log)]
    assert len(payloads) > 8
    groups = []

    def append(group, before):
        groups.append(len(group))
        assert sum([len(payload) + 30 for payload in group]) <= log.max_record
        return log.append(group, before)

    assert DeadLetters(log).requeue(append) == len(payloads) == sum(groups)
    assert len(groups) > 1
    assert waiting(log)[-len(payloads) :] == payloads
    discard(log)


def test_others_may_append_at_the_same_time():
    # The numbers are those that they get under the log's lock, not those that were next before.
    for die in (False, True):
        path = folder()
        log = make(path)
        aside(log, 3)
        payloads = [payload for _, _, _, payload in read(log)]

        def append(group, before):
            log.append([b'"other"'])  # noqa: B023
            log.append(group, before)  # noqa: B023
            if die:  # noqa: B023
                raise KeyboardInterrupt

        try:
            DeadLetters(log).requeue(append)
        except KeyboardInterrupt:
            pass
        log.append([b'"more"'])
        log.close()
        log = make(path)
        assert waiting(log) == [b'"other"'] + payloads + [b'"more"']
        assert read(log) == []
        discard(log)


def test_no_file_stays_open():
    # On MicroPython an abandoned generator would keep its file, on which littlefs then trips.
    log = make(folder(), 65536)
    aside(log, 30, 1, log.max_record // 8)
    fs = log.fs
    log.fs = faulty = Faulty(fs)
    DeadLetters(log).add(99, 400, b"", b"99")
    assert faulty.opened == 0
    records = DeadLetters(log).records()
    assert next(records)
    records.close()
    assert faulty.opened == 0

    def append(group, before):
        assert faulty.opened <= 1
        return log.append(group, before)

    def no(group, before):
        before(log.stored + 1)
        raise OSError(28)

    raises(OSError, DeadLetters(log).requeue, no)
    assert faulty.opened == 0

    def die(group, before):
        log.append(group, before)
        raise KeyboardInterrupt

    log.journal._fs = faulty
    raises(KeyboardInterrupt, DeadLetters(log).requeue, die)
    log.append([b"1"])
    DeadLetters(log).resolve()  # reads the log up to where the others begin
    assert faulty.opened == 1, faulty.opened  # the journal's
    DeadLetters(log).requeue(append)
    log.fs = log.journal._fs = log._cursor._fs = fs
    discard(log)


def test_an_append_that_is_refused_leaves_all_of_it_set_aside():
    path = folder()
    log = make(path, 4096)
    aside(log, 4, 1, 40)
    log.on_full = "raise"
    full = b'"' + b"f" * 200 + b'"'
    try:
        while True:
            log.append([full])
    except OSError:
        pass
    before = read(log)
    assert len(before) == 4
    try:
        while True:
            log.append([b"1"])
    except OSError:
        pass
    raises(OSError, DeadLetters(log).requeue, log.append)
    assert read(log) == before
    log.ack(1, log.stored, 0)
    assert DeadLetters(log).requeue(log.append) == 4
    assert waiting(log) == [payload for _, _, _, payload in before]
    discard(log)


def test_a_record_like_it_under_its_number_is_not_taken_for_it():
    # The append fails, and the number goes to another record that is the same text.
    path = folder()
    log = make(path)
    same = b'{"event":"boot"}'
    DeadLetters(log).add(log.append([same]), 400, b"", same)
    log.ack(1, 1, 0)

    def fail(group, before):
        before(log.stored + 1)
        raise OSError(28)

    raises(OSError, DeadLetters(log).requeue, fail)
    log.append([same])
    assert DeadLetters(log).requeue(log.append) == 1
    assert waiting(log) == [same, same]
    discard(log)


def test_what_was_appended_after_a_failure_is_known_too():
    # The first append fails, the second does not, and the line that says so cannot be written.
    log = make()
    aside(log, 2)
    expected = _sum(log)

    def fail(group, before):
        before(log.stored + 1)
        raise OSError(28)

    raises(OSError, DeadLetters(log).requeue, fail)
    fs = log.fs

    class Full(Faulty):
        def open(self, name, mode):
            if mode == "ab" and "rejected" in name:
                raise OSError(28)
            return self._fs.open(name, mode)

    log.fs = Full(fs)
    raises(OSError, DeadLetters(log).requeue, log.append)
    log.fs = fs
    assert DeadLetters(log).requeue(log.append) == 0
    assert waiting(log) == expected
    discard(log)


def _sum(log):
    """What waits in the log, and what is set aside."""
    return sorted(waiting(log) + [payload for _, _, _, payload in read(log)])


class InMemory:
    """
    A Directory whose files are read from a copy in RAM.

    MicroPython's readline() reads files of the host byte by byte: a call of the system for each.
    """

    def __init__(self, fs):
        self._fs = fs

    def open(self, name, mode):
        f = self._fs.open(name, mode)
        if mode != "rb":
            return f
        try:
            return BytesIO(f.read())
        finally:
            f.close()

    def __getattr__(self, name):
        return getattr(self._fs, name)


def copy(path, to):
    """Copy a folder of files, and what is in its folders."""
    os.mkdir(to)
    for name in os.listdir(path):
        if os.stat(path + "/" + name)[0] & 0x4000:
            copy(path + "/" + name, to + "/" + name)
        else:
            with open(path + "/" + name, "rb") as source, open(to + "/" + name, "wb") as target:
                target.write(source.read())


def test_an_error_at_any_call_of_requeue_loses_and_repeats_nothing():
    in_memory = MICROPYTHON and os.getenv("POSTCACHE_TEST_FS") not in ("lfs2", "fat")

    def restart(path):
        fs = Directory(path)
        log = Log(InMemory(fs) if in_memory else fs, None, slot_size)
        resume(log)
        return log

    cases = noticed = 0
    start = 0  # the sweeps of a sample look at different calls
    for slot_size, size in ((0, 10), (128, 10), (0, 1500)):
        size = size if MICROPYTHON or size < 99 else 60000
        # The past of all of them: what is set aside is the slow part of it.
        past = folder()
        log = restart(past)
        aside(log, 6, 1, size)
        log.close()
        for after in (False, True):
            for reboot in (False, True):
                i = start % STRIDE
                start += 1
                struck = True
                while struck:
                    path = folder()
                    copy(past, path)
                    log = restart(path)
                    aside(log, 1, 1, size)  # its cursor is not durable, and the files are in use
                    log.append([b'"last"'])
                    expected = _sum(log)
                    assert len(expected) == 8
                    fs = log.fs
                    log.fs = log.journal._fs = log._cursor._fs = faulty = Faulty(fs, i, after)
                    failed = None
                    try:
                        DeadLetters(log).requeue(log.append)
                    except OSError as e:
                        failed = e
                    struck = faulty.left < 0
                    log.fs = log.journal._fs = log._cursor._fs = fs
                    noticed += bool(failed or log.errors)
                    facts = (slot_size, size, after, reboot, i, faulty.log[i - 3 : i + 1])
                    if reboot:
                        log.close()
                        log = restart(path)
                    else:
                        DeadLetters(log).requeue(log.append)
                        assert read(log) == []
                    assert _sum(log) == expected, facts
                    DeadLetters(log).requeue(log.append)
                    assert sorted(waiting(log)) == expected, facts
                    assert read(log) == []
                    discard(log)
                    i += STRIDE
                    cases += 1
    assert cases > 700 // STRIDE and noticed > cases // 2


def test_a_requeue_that_ended_early_is_found_out_before_anything_is_added():
    for slot_size in (0, 128):
        path = folder()
        log = make(path, None, slot_size)
        aside(log, 3)
        expected = _sum(log)

        def append(group, before):
            log.append(group, before)  # noqa: B023
            raise KeyboardInterrupt

        raises(KeyboardInterrupt, DeadLetters(log).requeue, append)
        log.close()
        log = make(path, None, slot_size)
        assert "requeue" not in [name for name, _ in log.fs.files()]
        assert read(log) == [] and _sum(log) == expected
        discard(log)


def test_what_a_killed_program_set_aside_is_synced_before_it_is_passed_over():
    # It may be visible and not durable: passed over durably, a power cut would take it.
    path = folder()
    log = make(path)
    log.append([b"1"])
    log.freeze(1)
    DeadLetters(log).add(1, 400, b"", b"1")
    log.close()
    log = Log(Directory(path), None, 0)
    fs = log.fs
    log.fs = faulty = Faulty(fs)
    resume(log)
    assert log.acked == 1 and "flush" in faulty.log
    log.fs = fs
    discard(log)


def test_what_was_set_aside_alone_is_passed_over_whichever_file_it_is_in():
    for name in FILES:
        path = folder()
        log = make(path)
        if name == "rejected-2.log":
            aside(log, 1)
            assert DeadLetters(log).requeue(log.append) == 1  # ends with the other file in use
            log.ack(1, log.stored, 0)
        seq = log.append([b"1"])
        log.freeze(seq)
        DeadLetters(log).add(seq, 400, b"", b"1")
        assert [other for other in FILES if content(log, other)] == [name]
        log.close()
        log = make(path)
        assert len(log) == 0 and log.acked == seq
        assert [payload for _, _, _, payload in read(log)] == [b"1"]
        discard(log)


def test_another_record_under_the_number_of_one_that_was_set_aside_is_not_passed_over():
    # The cursor and the segments were wiped, and rejected.log was not: numbers begin anew.
    path = folder()
    log = make(path)
    log.append([b"1"])
    log.freeze(1)
    DeadLetters(log).add(1, 400, b"", b"another")
    log.close()
    log = make(path)
    assert waiting(log) == [b"1"] and log.acked == 0
    discard(log)


def test_a_file_that_cannot_be_looked_up_may_be_there():
    # In it is the record that was alone, or how far a requeue came.
    class Blind(Faulty):
        def size(self, name):
            if name in ("rejected.log", "requeue"):
                raise OSError(5)
            return self._fs.size(name)

    path = folder()
    log = make(path)
    log.append([b"1"])
    log.freeze(1)
    DeadLetters(log).add(1, 400, b"", b"1")
    log.close()
    log = Log(Blind(Directory(path)), None, 0)
    resume(log)
    assert len(log) == 0 and log.acked == 1
    log.close()
    discard(log)


def test_the_segment_of_a_record_that_is_passed_over_is_removed():
    path = folder()
    log = make(path)
    log.append([b"1"])
    log.journal.close()
    log.append([b"2"])  # into the next segment
    log.freeze(1)
    DeadLetters(log).add(1, 400, b"", b"1")
    log.close()
    log = Log(Directory(path), None, 0)
    assert "0000000001.log" in os.listdir(path)
    resume(log)
    assert "0000000001.log" not in os.listdir(path)
    assert [payload for _, payload in log.read()] == [b"2"]
    discard(log)


def test_a_card_that_cannot_be_written_still_opens():
    path = folder()
    log = make(path)
    aside(log, 3)

    def append(group, before):
        log.append(group, before)
        raise KeyboardInterrupt

    raises(KeyboardInterrupt, DeadLetters(log).requeue, append)
    log.close()
    fs = Directory(path)

    class ReadOnly(Faulty):
        def open(self, name, mode):
            if mode != "rb":
                raise OSError(30)
            return self._fs.open(name, mode)

        def put(self, name, data):
            raise OSError(30)

        def remove(self, name):
            raise OSError(30)

    log = Log(ReadOnly(fs), None, 0)
    resume(log)
    assert len(waiting(log)) == 3 and log.errors >= 1
    log.close()
    log = make(path)
    assert len(waiting(log)) == 3 and read(log) == []
    discard(log)


def test_requeue_of_a_cache_needs_an_open_one():
    cache = POSTCache("http://x/", folder(), 60, http=Http(), clock=Clock())
    assert requeue(cache) == 0
    cache.close()
    raises(ValueError, requeue, cache)
