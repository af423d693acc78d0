"""
The log on real file systems: order, numbers, damage, space, and what opening does.

With the append journal, also on littlefs; test_slots.py is for the other one.
"""

import os

from support import MICROPYTHON, Counting, cut_off, folder, raises

from postcache.log import Log
from postcache.log.line import encode
from postcache.ports import Directory


def open_log(path, **kwargs):
    return Log(Directory(path), slot_size=0, **kwargs)


def records(log, position=None):
    return list(log.read(position))


def numbers(log):
    return [seq for seq, _ in log.read(None)]


def put(path, name, data):
    with open(path + "/" + name, "wb") as f:
        f.write(data)


def get(path, name):
    with open(path + "/" + name, "rb") as f:
        return f.read()


def segments(path):
    return sorted([name for name in os.listdir(path) if name.endswith(".log")])


def filled(path, n, **kwargs):
    """A closed log with records 1..n of 100 bytes each."""
    log = open_log(path, **kwargs)
    for i in range(1, n + 1):
        assert log.append([b'"%098d"' % i]) == i
    log.close()


def test_records_come_out_in_order_with_their_numbers():
    log = open_log(folder())
    assert [log.append([b"%d" % i]) for i in (10, 20, 30)] == [1, 2, 3]
    assert log.append([b"40", b"50"]) == 5
    assert records(log) == [(1, b"10"), (2, b"20"), (3, b"30"), (4, b"40"), (5, b"50")]
    assert len(log) == 5
    log.close()


def test_what_was_appended_is_there_after_reopening():
    path = folder()
    filled(path, 7)
    log = open_log(path)
    assert numbers(log) == [1, 2, 3, 4, 5, 6, 7]
    assert log.append([b"8"]) == 8
    assert records(log)[7:] == [(8, b"8")]
    log.close()


def test_many_short_lives_stay_in_one_file():
    path = folder()
    for i in range(20):
        log = open_log(path)
        assert log.append([b"1"]) == i + 1
        log.close()
    assert segments(path) == ["0000000001.log"]


def test_a_full_file_is_left_alone_and_the_next_is_named_by_its_first_number():
    path = folder()
    filled(path, 200, max_bytes=65536)  # 8192 bytes a segment
    names = segments(path)
    assert len(names) > 2
    for name in names:
        content = get(path, name)
        assert len(content) <= 8192
        assert int(content.split(b" ")[1]) == int(name[:-4])
    log = open_log(path, max_bytes=65536)
    assert numbers(log) == list(range(1, 201))
    log.close()


def test_acknowledged_records_do_not_come_back_and_their_segments_go():
    path = folder()
    filled(path, 200, max_bytes=65536)
    log = open_log(path, max_bytes=65536)
    log.ack(1, 150, 0)
    assert numbers(log) == list(range(151, 201))
    assert int(segments(path)[0][:-4]) <= 151
    log.close()
    log = open_log(path)
    assert numbers(log) == list(range(151, 201))
    assert len(log) == 50
    log.close()


def test_numbers_are_not_reused_when_everything_was_delivered():
    path = folder()
    filled(path, 5)
    log = open_log(path)
    stream = log.stream
    log.ack(1, 5, 0)
    log.close()
    for name in segments(path):
        os.remove(path + "/" + name)
    log = open_log(path)
    assert log.stream == stream
    assert log.append([b"6"]) == 6
    log.close()


def test_numbers_in_flight_are_not_reused_when_their_records_are_lost():
    path = folder()
    filled(path, 5)
    log = open_log(path)
    log.freeze(5)
    log.close()
    put(path, segments(path)[0], b"")
    log = open_log(path)
    assert log.append([b"6"]) == 6
    log.close()


def test_a_lost_cursor_costs_duplicates_under_a_new_stream_never_records():
    path = folder()
    filled(path, 200, max_bytes=65536)
    log = open_log(path)
    stream = log.stream
    log.ack(1, 150, 0)
    left = int(segments(path)[0][:-4])
    log.close()
    for name in ("cursor-a", "cursor-b"):
        put(path, name, b"\x00" * 50)
    log = open_log(path)
    assert log.stream != stream and len(log.stream) == 16
    assert numbers(log) == list(range(left, 201))
    assert len(log) == 201 - left and log.damaged == 2
    log.close()


def test_a_cursor_that_littlefs_cannot_read_is_a_damaged_one():
    path = folder()
    filled(path, 5)
    log = open_log(path)
    stream = log.stream
    log.ack(1, 2, 0)
    log.close()
    fs = Directory(path)
    real = fs.open

    def fail(name, mode):
        if name == "cursor-b":
            raise OSError(84, "")
        return real(name, mode)

    fs.open = fail
    log = Log(fs, None, 0)
    assert log.stream == stream and log.damaged == 1
    log.close()


def test_one_damaged_cursor_costs_one_step_at_most():
    for name in ("cursor-a", "cursor-b"):
        path = folder()
        filled(path, 5)
        log = open_log(path)
        stream = log.stream
        log.ack(1, 2, 3)
        log.ack(3, 3, 0)
        log.close()
        put(path, name, b"garbage")
        log = open_log(path)
        assert log.stream == stream
        assert numbers(log) in ([3, 4, 5], [4, 5])
        # The next write must not hit the only copy that is whole.
        log.ack(4, 4, 0)
        log.close()
        log = open_log(path)
        assert log.stream == stream and numbers(log) == [5]
        log.close()


def test_a_cursor_that_is_torn_again_and_again_leaves_the_other_copy_whole():
    path = folder()
    filled(path, 5)
    log = open_log(path)
    stream = log.stream
    log.ack(1, 1, 0)
    real = log.fs.put

    def tear(name, data):
        real(name, data[: len(data) // 2])
        raise OSError(5, "")

    log.fs.put = tear
    for seq in (2, 3, 4):
        log.ack(seq, seq, 0)
    cut_off(log)
    log = open_log(path)
    assert log.stream == stream and numbers(log) == [2, 3, 4, 5]
    log.close()


def test_a_newer_format_is_refused_in_a_sentence_and_not_touched():
    path = folder()
    filled(path, 3)
    put(path, "cursor-a", encode(99, b'[2, "0123456789abcdef", {"new": 1}]'))
    before = [(name, get(path, name)) for name in sorted(os.listdir(path)) if name != "lock"]
    fs = Directory(path)
    e = raises(OSError, Log, fs, None, 0)
    fs.close()
    assert "newer" in str(e)
    after = [(name, get(path, name)) for name in sorted(os.listdir(path)) if name != "lock"]
    assert before == after


def test_a_cursor_of_another_shape_is_damage():
    for text in (
        b'["1", "x", 0, 0, 0]',
        b'{"v": 1}',
        b"[1]",
        b"[]",
        b"7",
        b"null",
        b'[1, "x", 0]',
    ):
        path = folder()
        filled(path, 2)
        put(path, "cursor-a", encode(99, text))
        put(path, "cursor-b", encode(98, text))
        log = open_log(path)
        assert numbers(log) == [1, 2] and log.damaged == 2
        log.close()


def test_one_damaged_line_costs_one_record():
    for victim in (1, 3, 5):
        path = folder()
        filled(path, 5)
        name = segments(path)[0]
        lines = get(path, name).split(b"\n")
        lines[victim - 1] = lines[victim - 1].replace(b"0", b"x")
        put(path, name, b"\n".join(lines))
        log = open_log(path)
        assert numbers(log) == [n for n in range(1, 6) if n != victim]
        seq = log.append([b"6"])
        assert seq == 6 if victim < 5 else seq > 5
        assert records(log)[-1] == (seq, b"6")
        log.close()


def test_damage_is_counted_once_however_often_it_is_read():
    path = folder()
    filled(path, 5)
    name = segments(path)[0]
    lines = get(path, name).split(b"\n")
    lines[2] = lines[2].replace(b"0", b"x")
    put(path, name, b"\n".join(lines))
    log = open_log(path)
    for _ in range(3):
        assert numbers(log) == [1, 2, 4, 5]
    assert log.damaged == 1
    log.close()


def test_a_torn_tail_is_passed_over_and_takes_no_neighbour_along():
    path = folder()
    filled(path, 3)
    name = segments(path)[0]
    whole = get(path, name)
    third = whole.rfind(b"\n", 0, len(whole) - 1) + 1
    for cut in range(third, len(whole)):
        put(path, name, whole[:cut])
        for other in segments(path):
            if other != name:
                os.remove(path + "/" + other)
        log = open_log(path)
        assert numbers(log) == [1, 2]
        seq = log.append([b"4"])
        assert seq >= 3
        assert records(log)[2:] == [(seq, b"4")]
        log.close()
        log = open_log(path)
        assert [n for n, _ in log.read(None)] == [1, 2, seq]
        log.close()


def test_numbers_that_a_caller_may_hold_are_not_reused_after_damage():
    path = folder()
    filled(path, 5)
    name = segments(path)[0]
    # The last three lines are gone, newlines and all.
    data = get(path, name)
    at = 0
    for _ in range(2):
        at = data.find(b"\n", at) + 1
    put(path, name, data[:at] + b"\xff" * (len(data) - at))
    log = open_log(path)
    assert log.append([b"new"]) > 5
    log.close()


def test_a_line_out_of_place_is_not_believed():
    # Old content of a reused cluster (FAT) has a good checksum and a number that is not its turn.
    path = folder()
    filled(path, 3)
    name = segments(path)[0]
    put(path, name, get(path, name) + encode(2, b'"stale"') + encode(4, b'"good"'))
    log = open_log(path)
    assert numbers(log) == [1, 2, 3, 4]
    assert records(log)[1][1] != b'"stale"'
    log.close()


def test_what_a_failed_write_left_behind_is_hidden_by_the_next_file():
    path = folder()
    filled(path, 3)
    name = segments(path)[0]
    # Record 4 was written whole, then its sync failed: its caller got an error, and number 4 went
    # to another record, in the next file.
    put(path, name, get(path, name) + encode(4, b'"failed"'))
    put(path, "0000000004.log", encode(4, b'"stored"') + encode(5, b'"5"'))
    log = open_log(path)
    assert records(log)[3:] == [(4, b'"stored"'), (5, b'"5"')]
    log.close()


def test_opening_succeeds_on_any_bytes():
    for junk in (b"", b"\x00" * 3000, b"\xff" * 5000, b"\n" * 100, b"x" * 9000, b"1 2 3\n" * 50):
        for name in ("0000000001.log", "0000000003.log", "cursor-a", "cursor-b"):
            path = folder()
            filled(path, 2)
            put(path, name, junk)
            log = open_log(path)
            seq = log.append([b'"after"'])
            assert records(log)[-1] == (seq, b'"after"')
            log.close()


def test_strangers_files_are_left_alone():
    path = folder()
    filled(path, 2)
    names = (
        "notes.txt",
        "1.log",
        "000000000x.log",
        "0000000000.log",
        ".log",
        "backup",
        "-000000001.log",
    )
    for name in names:
        put(path, name, b"mine")
    os.mkdir(path + "/0000000009.log")
    log = open_log(path)
    log.append([b"3"])
    log.ack(1, 3, 0)
    log.close()
    for name in names:
        assert get(path, name) == b"mine"


def test_full_the_oldest_segment_is_dropped_and_counted():
    path = folder()
    log = open_log(path, max_bytes=16384)  # 2048 bytes a segment
    for i in range(1, 501):
        log.append([b'"%098d"' % i])
    size = sum([len(get(path, name)) for name in os.listdir(path)])
    assert size <= 16384
    left = numbers(log)
    assert left == list(range(left[0], 501))
    assert len(left) > 80  # of about 140 that fit
    assert log.dropped == left[0] - 1
    log.close()
    log = open_log(path, max_bytes=16384)
    assert numbers(log) == left
    assert log.dropped == left[0] - 1  # also after a reboot
    log.close()


def test_what_is_delivered_is_not_counted_as_dropped():
    path = folder()
    log = open_log(path, max_bytes=16384)
    for i in range(1, 501):
        log.append([b'"%098d"' % i])
        log.ack(i, i, 0)
    assert log.dropped == 0
    assert len(segments(path)) == 1
    log.close()


def test_dropped_while_it_was_on_its_way_and_then_delivered_is_not_dropped():
    log = open_log(folder(), max_bytes=16384)
    for i in range(1, 11):
        log.append([b'"%098d"' % i])
    log.freeze(10)
    for i in range(11, 301):
        log.append([b'"%098d"' % i])
    dropped = log.dropped
    assert dropped > 10
    log.ack(1, 10, 0)
    assert log.dropped == dropped - 10
    assert len(log) == len(numbers(log))
    log.close()


def test_strangers_that_fill_the_log_do_not_make_it_drop_its_journal():
    path = folder()
    filled(path, 3)
    put(path, "photo.jpg", b"x" * 20000)
    log = open_log(path, max_bytes=16384)
    for i in range(4, 101):
        assert log.append([b'"%098d"' % i]) == i
    left = numbers(log)
    assert len(left) > 16 and left == list(range(left[0], 101))
    log.close()
    log = open_log(path, max_bytes=16384)
    assert log.append([b"1"]) == 101
    log.close()


def test_a_disk_that_others_have_filled_is_no_reason_to_drop_what_is_there():
    log = open_log(folder())
    log.limit = log.journal._limit = 2048
    log.fs.free = lambda: 0
    for i in range(1, 15):
        log.append([b'"%098d"' % i])
    dropped = log.dropped
    size = sum([log.fs.size(name) for name, _ in log.fs.files()])
    assert dropped == 0
    assert size < 2048 + 300
    log.close()


def test_a_callback_in_the_middle_of_an_append_takes_no_number_twice():
    if not MICROPYTHON:
        return  # a lock that waits is right where there are threads
    log = open_log(folder())
    log.append([b"1"])
    real = log.journal._write

    def write(*args):
        log.journal._write = real
        raises(OSError, log.append, [b'"came in between"'])
        real(*args)

    log.journal._write = write
    assert log.append([b"2"]) == 2
    assert log.append([b"3"]) == 3
    assert records(log) == [(1, b"1"), (2, b"2"), (3, b"3")]
    log.close()


def test_a_position_goes_on_where_a_reader_stopped():
    path = folder()
    filled(path, 200, max_bytes=65536)
    log = open_log(path, max_bytes=65536)
    position = None
    seen = []
    while True:
        reader = log.read(position)
        n = 0
        for seq, _ in reader:
            if n == 7:  # this one is seen and not taken
                break
            seen.append(seq)
            n += 1
        reader.close()
        if not n:
            break
        position = reader.place
        assert position[2] == seen[-1]
    assert seen == list(range(1, 201))
    log.append([b"201"])
    assert records(log, position) == [(201, b"201")]
    log.close()


def test_readers_of_one_log_each_have_a_place_of_their_own():
    path = folder()
    filled(path, 200, max_bytes=65536)
    log = open_log(path, max_bytes=65536)
    half = log.read()
    for seq, _ in half:
        if seq > 100:
            break
    half.close()
    first, second = log.read(), log.read(half.place)
    taken = []
    for expected, (seq, _) in enumerate(first, 1):
        assert seq == expected
        if seq <= 100:
            taken.append(next(iter(second))[0])
            assert first.place[2] == max(0, seq - 1)  # this one is not taken yet
            assert second.place[2] == taken[-1] - 1
    assert taken == list(range(101, 201))
    assert list(second) == []
    assert first.place == second.place and half.place[2] == 100
    log.close()


def test_opening_reads_the_cursor_and_the_end_of_the_newest_file_only():
    path = folder()
    filled(path, 40, max_bytes=65536)
    fs = Counting(Directory(path))
    Log(fs, 65536, 0).close()
    few, few_calls = fs.read, fs.calls
    log = open_log(path, max_bytes=65536)
    for i in range(400):
        log.append([b'"%098d"' % i])
    log.close()
    fs = Counting(Directory(path))
    Log(fs, 65536, 0).close()
    assert fs.read <= few + 100 and fs.calls == few_calls
    assert few <= 2048 + 2 * 128


def test_the_longest_record_fits_and_comes_back():
    log = open_log(folder())
    payload = b'"' + b"x" * (log.max_record - 2) + b'"'
    assert log.max_record > log.fs.segment - 40
    log.append([b"1"])
    log.append([payload])
    log.append([b"3"])
    assert [p for _, p in log.read(None)] == [b"1", payload, b"3"]
    log.close()


def test_a_second_owner_is_refused_and_a_later_one_is_not():
    path = folder()
    log = open_log(path)
    e = raises(OSError, Directory, path)
    assert e.errno == 16 or "use" in str(e)
    log.close()
    open_log(path).close()


def test_a_file_in_the_way_is_named_and_not_touched():
    path = folder()
    fs = Directory(path)
    put(path, "cache.db", b"SQLite format 3\x00")
    e = raises(OSError, Directory, path + "/cache.db")
    assert "cache.db" in str(e)
    assert get(path, "cache.db") == b"SQLite format 3\x00"
    fs.close()


def test_missing_parents_are_made():
    path = folder() + "/a/b"
    log = open_log(path)
    log.append([b"1"])
    log.close()
    assert "0000000001.log" in os.listdir(path)


def test_a_stream_has_its_name_before_its_first_record():
    path = folder()
    log = open_log(path)
    stream = log.stream
    log.append([b"1"])
    log.close()
    log = open_log(path)
    assert log.stream == stream
    log.close()


def test_numbers_in_a_file_that_is_all_damaged_are_not_reused():
    path = folder()
    filled(path, 5)
    name = segments(path)[0]
    put(path, name, b"\xff" * len(get(path, name)))
    log = open_log(path)
    assert log.damaged == 1
    assert log.append([b"new"]) > 5
    log.close()


def test_old_content_at_the_end_of_a_file_takes_no_number_back():
    # FAT: the file got its new length and a cluster, and then the power went.
    path = folder()
    filled(path, 3)
    put(path, "0000000004.log", encode(2, b'"old"'))
    log = open_log(path)
    assert numbers(log) == [1, 2, 3]
    assert log.append([b"new"]) > 3
    log.close()


def test_segments_that_an_acknowledgement_left_behind_go_at_the_next_open():
    path = folder()
    filled(path, 200, max_bytes=65536)
    before = segments(path)
    log = open_log(path, max_bytes=65536)
    log._remove = lambda first: False  # the power goes behind the cursor
    log.ack(1, 200, 0)
    log.close()
    assert segments(path) == before
    open_log(path).close()
    assert segments(path) == before[-1:]


def test_the_last_blocks_of_a_file_system_are_never_counted_on():
    path = folder()
    log = open_log(path, max_bytes=1 << 30)
    log.limit = log.journal._limit = 2048
    log.fs.free = lambda: Directory.reserve + 8192
    for i in range(1, 301):
        log.append([b'"%098d"' % i])
    assert sum([size for _, size in log.fs.files()]) <= 8192 + 1024
    left = numbers(log)
    assert log.dropped == left[0] - 1 > 0
    log.close()


def test_a_drop_counts_what_was_not_delivered_yet():
    path = folder()
    log = open_log(path, max_bytes=16384)
    for i in range(1, 11):
        log.append([b'"%098d"' % i])
    log.ack(1, 5, 0)
    for i in range(11, 301):
        log.append([b'"%098d"' % i])
    assert log.dropped == numbers(log)[0] - 1 - 5
    log.close()


def test_a_segment_that_cannot_be_removed_does_not_cost_the_next_one():
    path = folder()
    log = open_log(path, max_bytes=16384)
    while log.dropped == 0:
        log.append([b'"%098d"' % log.stored])
    firsts = log.journal.firsts[:]
    dropped = log.dropped

    def remove(name):
        raise OSError(5, "")

    log.fs.remove = remove
    while log.dropped == dropped:
        log.append([b'"%098d"' % log.stored])
    assert log.dropped == firsts[1] - 1 and log.errors == 1
    log.close()


def test_an_acknowledgement_on_a_full_disk_is_written_once_there_is_room():
    path = folder()
    filled(path, 200, max_bytes=65536)
    fs = Directory(path)
    log = Log(fs, 65536, 0)
    real = fs.put

    def put_if_there_is_room(name, data):
        if len(segments(path)) > 1:
            raise OSError(28, "")
        real(name, data)

    fs.put = put_if_there_is_room
    log.ack(1, 195, 0)
    assert log.errors == 1
    cut_off(log)
    log = open_log(path)
    assert numbers(log) == [196, 197, 198, 199, 200]
    log.close()


def test_what_a_killed_process_left_is_synced_before_it_is_looked_at():
    path = folder()
    filled(path, 3)
    fs = Directory(path)
    real = fs.open
    calls = []

    def note(name, mode):
        f = real(name, mode)
        if name[-4:] != ".log":
            return f
        calls.append(mode)
        if mode == "rb":
            return f

        class Noted:
            def flush(self):
                calls.append("sync")
                f.flush()

            def close(self):
                f.close()

        return Noted()

    fs.open = note
    log = Log(fs, None, 0)
    assert calls[:3] == ["ab", "sync", "rb"]
    log.close()


def test_zeros_that_a_killed_host_left_behind_the_last_line_are_no_damage():
    """A host fills its newest segment with zeros ahead, and any runtime may go on with it."""
    for zeros in (1, 29, 600, 3000, 40000):
        path = folder()
        filled(path, 3)
        name = segments(path)[0]
        data = get(path, name)
        put(path, name, data + bytes(zeros))
        for i in (4, 5):
            log = open_log(path)
            assert log.damaged == 0
            assert log.stored == i - 1
            assert log.append([b"%d" % i]) == i
            assert numbers(log) == list(range(1, i + 1))
            assert log.damaged == 0
            log.close()
        assert get(path, name)[: len(data)] == data
        # Nobody needs memory for the zeros: they are gone, or lines instead of them.
        for name in segments(path):
            for line in get(path, name).split(b"\n"):
                assert len(line) < 512
                assert b"\0" not in line


def test_behind_a_torn_line_zeros_are_no_more_damage():
    path = folder()
    filled(path, 3)
    name = segments(path)[0]
    data = get(path, name)
    put(path, name, data + b"12345678 4 {" + bytes(3000))
    log = open_log(path)
    assert log.damaged == 1
    assert log.stored == 4  # the torn one's number may be somebody's
    assert log.append([b"5"]) == 5
    assert numbers(log) == [1, 2, 3, 5]
    assert len(segments(path)) == 2
    assert b"\0" not in get(path, name)
    log.close()


def test_a_segment_of_nothing_but_zeros_is_an_empty_one():
    path = folder()
    filled(path, 3)
    put(path, "0000000004.log", bytes(5000))
    log = open_log(path)
    assert log.damaged == 0
    assert log.append([b"4"]) == 4
    assert numbers(log) == [1, 2, 3, 4]
    assert get(path, "0000000004.log")[:13] == encode(4, b"4")
    log.close()
    log = open_log(path)
    assert numbers(log) == [1, 2, 3, 4]
    assert log.damaged == 0
    log.close()


def test_zeros_on_a_card_that_cannot_be_written_are_not_read():
    path = folder()
    filled(path, 3)
    name = segments(path)[0]
    put(path, name, get(path, name) + bytes(3000))
    fs = Directory(path)
    real = fs.open

    def read_only(name, mode):
        if mode != "rb" and name[-4:] == ".log":
            raise OSError(30, "read-only")
        return real(name, mode)

    fs.open = read_only
    log = Log(fs, None, 0)
    assert numbers(log) == [1, 2, 3]
    assert log.damaged == 0
    log.close()


def test_half_a_line_of_a_failed_write_is_no_damage():
    path = folder()
    log = open_log(path)
    log.append([b"1"])
    file = log.journal._file

    class Half:
        def write(self, data):
            file.write(data[: len(data) // 2])
            file.flush()
            raise OSError(28, "")

        def close(self):
            file.close()

    log.journal._file = Half()
    raises(OSError, log.append, [b"2"])
    assert numbers(log) == [1] and log.damaged == 0
    log.close()


def test_a_disk_that_others_fill_later_is_no_reason_to_drop_what_is_there():
    path = folder()
    filled(path, 100, max_bytes=16384)
    log = open_log(path)
    log.limit = log.journal._limit = 2048
    log.fs.free = lambda: 0
    firsts = log.journal.firsts[:]
    for i in range(20):
        log.append([b'"%098d"' % i])
    left = numbers(log)
    assert left == list(range(left[0], 121))
    assert left[0] <= firsts[2]  # a new file takes the place of an old one, and of no more
    log.close()


def test_a_cursor_that_cannot_be_read_for_a_while_is_not_taken_for_lost():
    path = folder()
    filled(path, 5)
    log = open_log(path)
    stream = log.stream
    log.ack(1, 3, 0)
    log.close()
    fs = Directory(path)
    real = fs.open
    for broken in ("cursor-a", "cursor-b"):

        def fail(name, mode, broken=broken):
            if name == broken:
                raise OSError(5, "")
            return real(name, mode)

        fs.open = fail
        assert raises(OSError, Log, fs, None, 0).errno == 5
    fs.close()
    log = open_log(path)
    assert log.stream == stream and numbers(log) == [4, 5]
    log.close()
