"""
The time of each record: what is stored, what is sent, and that neither changes or lies.

A device here has a true time, which its clock shows only once it is set. Its records say when they
were really added, so a date can be checked.
"""

import json
import sys

from support import MICROPYTHON, Clock, folder, raises

from postcache.log import Log
from postcache.log.line import encode
from postcache.ports import Directory, dumps
from postcache.send.stamps import Stamps

START = 1763697600  # 2025-11-21
COPIES = ("clock-a", "clock-b")


class PowerCutError(Exception):
    pass


class Faulty:
    """A Directory whose writes of the state and the cursor can fail, or be the last one."""

    def __init__(self, fs):
        self._fs = fs
        self.puts = []  # names
        self.full = False
        self.before_put = None  # called with the name
        self.cut = None  # how many puts until the power fails, "before", "torn" or "after" it
        self.how = ""
        self.unreadable = 0  # errno for the state's copies

    def put(self, name, data):
        if name[:1] == "+":  # a slot
            self._fs.put(name, data)
            return
        self.puts.append(name)
        if self.before_put:
            self.before_put(name)
        if self.full:
            raise OSError(28, "")
        if self.cut is not None:
            self.cut -= 1
            if self.cut < 0:
                if self.how != "before":
                    self._fs.put(name, data if self.how == "after" else data[: len(data) // 2])
                raise PowerCutError
        self._fs.put(name, data)

    def open(self, name, mode):
        if name in COPIES and self.unreadable:
            raise OSError(self.unreadable, "")
        return self._fs.open(name, mode)

    def __getattr__(self, name):
        return getattr(self._fs, name)


class Device:
    """A board that loses its clock whenever it boots, and what it has sent."""

    def __init__(self, key="ts"):
        self.path = folder()
        self.key = key
        self.now = START * 1000  # ms, the truth
        self.sent = {}  # number: bytes
        self.lives = {}  # boot: the life that used the number
        self.added = 0
        self.life = 0
        self.log = None
        self.boot()

    def boot(self, cut=None, how=""):
        if self.log is not None:
            self.log.journal.close()  # as the power leaves it: close() would write the cursor
            self.log.fs.close()
        self.now += 5000
        self.life += 1
        self.born = self.now
        self.clock = Clock()
        self.fs = Faulty(Directory(self.path))
        self.log = Log(self.fs)
        self.stamps = Stamps(self.log, self.clock, self.key)
        self.fs.puts.clear()
        self.fs.cut, self.fs.how = cut, how

    def wait(self, ms):
        self.now += ms
        self.clock.now = self.now - self.born
        if self.clock.date is not None:
            self.clock.date = self.now // 1000

    def set_clock(self):
        self.clock.date = 0
        self.wait(0)

    def add(self, **fields):
        """Store a record; return its number."""
        body = dict(fields, at=self.now // 1000, life=self.life)
        self.added = self.log.append([self.stamps.stamp(body, dumps(body))])
        return self.added

    def stored(self):
        return [payload for _, payload in self.log.read(None)]

    def form(self, hurry=False, limit=100):
        """As the outbox does: a list of (number, payload), to the end of the batch in flight."""
        log = self.log
        last = log.sending if log.sending > log.acked else 0
        batch = []
        for number, payload in log.read(None):
            if payload[:1] == b" ":
                payload = self.stamps.complete(number, payload, hurry or last)
            if payload is None or (number > last if last else len(batch) == limit):
                break
            batch.append((number, payload))
        return batch

    def post(self, batch):
        """What goes out has to be what went out before, and no lie."""
        if not batch:
            return
        last = batch[-1][0]
        self.stamps.frozen(last)
        self.log.freeze(last)
        body = []
        for number, payload in self.log.read(None):
            if number > last:
                break
            if payload[:1] == b" ":
                payload = self.stamps.complete(number, payload, True)
            body.append((number, payload))
        assert body == batch
        for number, payload in batch:
            assert self.sent.setdefault(number, payload) == payload, (self.sent[number], payload)
            self.check(payload)

    def check(self, payload):
        record = json.loads(payload)
        assert payload[:1] == b"{"
        if record["ts"] is not None:
            assert 0 <= record["at"] - record["ts"] <= 1, record
            assert "uptime_ms" not in record and "boot" not in record
        else:
            assert record["uptime_ms"] >= 0
            boot = record["boot"]
            assert boot is None or self.lives.setdefault(boot, record["life"]) == record["life"]

    def send(self, hurry=False):
        """Send all that may go; return the times in it."""
        batch = self.form(hurry)
        self.post(batch)
        return [json.loads(payload)["ts"] for _, payload in batch]

    def state(self):
        """Return (generation, boots) of each copy of the state that is there."""
        found = []
        for name in COPIES:
            try:
                with self.fs.open(name, "rb") as f:
                    _, generation, text = f.readline().split(b" ", 2)
                found.append((int(generation), json.loads(text)))
            except OSError:
                pass
        return sorted(found)


def damage(device, name, data):
    device.log.close()
    with open(device.path + "/" + name, "wb") as f:
        f.write(data)
    device.boot()


# --- With the clock set ---


def fine_dates(steps):
    """Return the dates under "t_ms" of records added after `steps`: (ms, what the clock says)."""
    log = Log(Directory(folder()))
    clock = Clock()
    stamps = Stamps(log, clock, "t_ms")
    found = []
    for ms, clock.date in steps:
        clock.now += ms
        found.append(json.loads(stamps.stamp({}, b"{}"))["t_ms"])
    log.close()
    return found


def test_a_key_that_ends_in_ms_has_milliseconds():
    # Within the second that the clock says, as far from each other as they were.
    steps = [(0, START), (250, START), (600, START), (250, START + 1), (5000, START + 6)]
    assert fine_dates(steps) == [
        START * 1000,
        START * 1000 + 250,
        START * 1000 + 850,
        START * 1000 + 1100,
        START * 1000 + 6100,
    ]
    # The first one came at the end of its second: the others tell.
    steps = [(0, START), (100, START + 1), (100, START + 1)]
    assert fine_dates(steps) == [START * 1000, START * 1000 + 1000, START * 1000 + 1100]


def test_no_two_records_have_the_same_millisecond():
    dates = fine_dates([(0, START)] * 50 + [(30, START), (30, START)])
    assert dates[:50] == [START * 1000 + n for n in range(50)]
    assert dates[50:] == [START * 1000 + 50, START * 1000 + 60]


def test_milliseconds_follow_a_clock_that_is_set_anew():
    dates = fine_dates([(0, START), (700, START), (10, START + 9000), (10, START - 9000)])
    assert [date // 1000 - START for date in dates] == [0, 0, 9000, -9000]
    dates = fine_dates([(0, START), (10, START - 9000), (10, START - 9000), (990, START - 8999)])
    assert dates[1] < dates[2] < dates[3] < (START - 8998) * 1000


def test_milliseconds_are_known_later_too():
    log = Log(Directory(folder()))
    clock = Clock()
    stamps = Stamps(log, clock, "t_ms")
    payloads = []
    for clock.now in (1001, 1002, 2500):
        payloads.append(stamps.stamp({}, b"{}"))
    clock.now = 3000
    clock.date = START
    payloads.append(stamps.stamp({}, b"{}"))
    # Also by one that was made for another key, or for none.
    for key in ("t_ms", None):
        if key is None:
            stamps = Stamps(log, clock, None)
        found = [
            json.loads(stamps.complete(n + 1, payload, False))
            for n, payload in enumerate(payloads[:3])
        ]
        assert [record["t_ms"] - START * 1000 for record in found] == [-1999, -1998, -500]
        assert [len(record) for record in found] == [1, 1, 1]
    assert json.loads(payloads[3]) == {"t_ms": START * 1000}
    log.close()


def test_a_set_clock_stamps_at_once_and_costs_no_flash():
    device = Device()
    device.set_clock()
    device.add()
    device.wait(2500)
    device.add()
    assert device.stored() == [
        b'{"ts":1763697605,"at": 1763697605, "life": 1}',
        b'{"ts":1763697607,"at": 1763697607, "life": 1}',
    ]
    assert device.fs.puts == [] and device.state() == []
    assert device.send() == [START + 5, START + 7]
    device.log.close()


def test_records_of_every_shape_stay_valid_json():
    device = Device()
    bodies = [
        {},
        {"a": 1},
        {"a": {"ts": 2}},
        {"a": [1, 2], "b": "x, y"},
        {"a": '":null,"uptime_ms":'},
    ]
    for ready in (False, True):
        if ready:
            device.set_clock()
        for body in bodies:
            for kwargs in ({}, {"separators": (",", ":")}):
                payload = device.stamps.stamp(body, dumps(body, kwargs))
                assert (payload[:2] == b" {") is not ready
                if not ready:
                    null = json.loads(device.stamps.complete(1, payload, True))
                    assert [null.pop("uptime_ms"), null.pop("boot")] == [0, 1]
                    assert null.pop("ts", 0) is None and null == body
                record = json.loads(payload)
                assert record.pop("ts") == (START + 5 if ready else None)
                record.pop("uptime_ms", 0), record.pop("boot", 0)
                assert record == body
    device.log.close()


def test_an_empty_object_with_white_space_in_it():
    device = Device()
    assert json.loads(device.stamps.stamp({}, b"{ }"))["boot"] == 1
    device.set_clock()
    assert device.stamps.stamp({}, b"{ }") == b'{"ts":1763697605}'
    device.log.close()


def test_what_is_undated_is_dated_whatever_its_shape():
    device = Device()
    bodies = [{}, {"a": 1}, {"a": '":null,"uptime_ms":'}, {"uptime_ms": 3, "b": 1}, {"boot": "x"}]
    undated = [device.stamps.stamp(body, dumps(body)) for body in bodies]
    device.set_clock()
    for i in range(len(bodies)):
        payload = device.stamps.complete(i + 1, undated[i], False)
        assert payload == b'{"ts":1763697605' + (b"," if bodies[i] else b"") + dumps(bodies[i])[1:]
    device.log.close()


def test_indented_text_is_stamped_too():
    if MICROPYTHON:
        return  # its json knows no indent
    device = Device()
    body = {"a": 1, "b": {}}
    undated = [device.stamps.stamp(b, dumps(b, {"indent": 4})) for b in (body, {})]
    assert json.loads(device.stamps.complete(1, undated[0], True)) == {
        "ts": None, "uptime_ms": 0, "boot": 1, "a": 1, "b": {},
    }  # fmt: skip
    device.set_clock()
    assert json.loads(device.stamps.stamp(body, dumps(body, {"indent": 4})))["ts"] == START + 5
    assert device.stamps.complete(2, undated[1], True) == b'{"ts":1763697605}'
    device.log.close()


def test_a_key_of_the_record_itself_is_left_alone():
    device = Device(key='t\u00e9"')
    for body in ({'t\u00e9"': 5}, {"a": 1, 't\u00e9"': None}):
        assert device.stamps.stamp(body, dumps(body)) == dumps(body)
    assert device.fs.puts == []
    payload = device.stamps.stamp({"ts": 1}, b'{"ts": 1}')
    assert json.loads(payload)['t\u00e9"'] is None
    device.set_clock()
    assert json.loads(device.stamps.complete(1, payload, True)) == {'t\u00e9"': START + 5, "ts": 1}
    device.log.close()


def test_fields_of_the_record_are_not_hidden_by_ours():
    device = Device()
    for body in ({"uptime_ms": 7, "x": 1}, {"boot": "cold", "x": 1}):
        payload = device.stamps.stamp(body, dumps(body))
        assert device.stamps.complete(1, payload, True) == b'{"ts":null,' + dumps(body)[1:]
    device.log.close()


def test_what_is_no_object_is_refused_before_anything_is_written():
    device = Device()
    for body in ([1], "{}", 5, None, True):
        raises(ValueError, device.stamps.stamp, body, dumps(body))
    assert device.fs.puts == []
    device.log.close()


def test_an_object_that_an_encoder_made_is_looked_into():
    if MICROPYTHON:
        return  # its json knows no default
    device = Device()
    device.set_clock()
    for fields in ({"a": 1}, {"ts": 4}):
        body = object()
        payload = dumps(body, {"default": lambda _, fields=fields: fields})
        assert json.loads(device.stamps.stamp(body, payload)) == dict({"ts": START + 5}, **fields)
    device.log.close()


# --- Before the clock is set ---


def test_an_undated_record_waits_ten_minutes_at_most():
    device = Device()
    device.add()
    device.wait(599999)
    assert device.send() == []
    device.wait(1)
    device.add()
    assert device.send() == [None]  # the second one still waits
    device.log.close()


def test_who_is_in_a_hurry_does_not_wait():
    device = Device()
    device.add()
    assert device.send(hurry=True) == [None]
    assert json.loads(device.sent[1]) == {
        "ts": None, "uptime_ms": 0, "boot": 1, "at": START + 5, "life": 1,
    }  # fmt: skip
    device.log.close()


def test_a_clock_that_is_never_set_is_not_waited_for():
    class Bare:
        def ticks_ms(self):
            return 7

    device = Device()
    device.stamps = Stamps(device.log, Bare(), "ts")
    device.add()
    assert device.send() == [None]
    device.log.close()


def test_once_the_clock_is_set_earlier_records_are_dated():
    device = Device()
    for _ in range(3):
        device.add()
        device.wait(61700)
    assert device.send() == []
    device.set_clock()
    device.add()
    times = device.send()
    assert len(times) == 4 and times == sorted(times)
    # The clock said 190 at 190.1: a date is up to a second early, and never late.
    assert times == [START + 4, START + 66, START + 128, START + 190]
    device.log.close()


def test_a_boot_costs_a_write_for_its_number_and_one_for_its_offset():
    device = Device()
    for _ in range(50):
        device.add()
    assert device.fs.puts == ["clock-b"]
    device.set_clock()
    for _ in range(50):
        device.add()
    assert device.fs.puts == ["clock-b", "clock-a"]
    device.send()
    assert device.fs.puts == ["clock-b", "clock-a", "cursor-a"]
    device.log.close()


def test_dates_are_known_after_a_reboot():
    device = Device()
    device.add()
    device.wait(3000)
    device.set_clock()
    device.add()  # the offset is on flash with it, before anything is sent
    device.boot()
    device.add()
    assert device.send() == [START + 5, START + 8]  # and the third one waits
    device.log.close()


def test_what_cannot_be_known_is_never_made_up():
    device = Device()
    device.add()
    device.boot()
    device.set_clock()
    device.add()
    assert device.send() == [None, START + 10]
    device.boot()
    device.add()
    device.set_clock()
    device.add()
    assert device.form()[0][1] == device.sent[1]
    device.log.close()


def test_an_offset_is_durable_before_a_date_made_from_it_is_sent():
    device = Device()
    device.add()
    device.wait(1000)
    device.set_clock()
    batch = device.form()  # no record was added since
    device.boot()
    assert device.form() == batch
    assert json.loads(batch[0][1])["ts"] == START + 5
    device.log.close()


def test_a_clock_that_jumps_changes_no_byte_of_a_retry():
    device = Device()
    device.add()
    device.set_clock()
    device.send()
    for date in (START - 86400, START + 10**8, None, START):
        device.clock.date = date
        device.post(device.form())
        number = device.log.append([device.stamps.stamp({}, b"{}")])
        payload = list(device.log.read(None))[-1][1]
        if date is None:
            # It was set, so this one is dated all the same.
            assert json.loads(device.stamps.complete(number, payload, False))["ts"] == START + 5
        else:
            assert json.loads(payload)["ts"] == date
    device.boot()
    device.post(device.form())
    device.log.close()


def test_null_stays_null_once_it_was_sent():
    device = Device()
    device.add()
    assert device.send(hurry=True) == [None]
    device.wait(1000)
    device.add()
    device.set_clock()
    device.post(device.form())  # the batch in flight: the first one
    assert len(device.sent) == 1
    device.log.ack(1, 1, 0)
    assert device.send() == [START + 6]
    device.boot()
    device.post(device.form())
    device.log.close()


def test_null_stays_null_after_a_reboot_with_the_offset_known():
    device = Device()
    device.add()
    device.send(hurry=True)
    device.set_clock()
    device.add()  # writes the offset
    device.boot()
    assert device.send() == [None]
    device.log.ack(1, 1, 0)
    assert device.send() == [START + 5]
    device.log.close()


def test_what_was_only_looked_at_is_dated_later():
    device = Device()
    device.add()
    device.add()
    assert [json.loads(p)["ts"] for _, p in device.form(hurry=True, limit=1)] == [None]
    device.set_clock()  # nothing has been sent
    batch = device.form(limit=1)
    device.post(batch)
    assert [json.loads(p)["ts"] for _, p in batch] == [START + 5]
    device.log.close()


def test_a_clock_that_is_set_while_a_batch_is_formed():
    device = Device()
    device.add()
    batch = device.form(hurry=True)
    device.set_clock()
    device.add()  # another thread's
    device.post(batch)
    device.boot()
    assert device.send() == [None]
    device.log.ack(1, 1, 0)
    assert device.send() == [START + 5]
    device.log.close()


def test_a_board_that_wakes_with_its_clock_running_needs_no_repair():
    device = Device()
    device.add()
    device.set_clock()
    device.add()
    for _ in range(3):  # deep sleep: a new life, and a clock that is set at once
        device.boot()
        device.set_clock()
        device.add()
        assert device.fs.puts == []
    assert device.send() == [START + 5, START + 5, START + 10, START + 15, START + 20]
    device.log.close()


def test_a_chip_that_does_not_answer_is_a_clock_that_is_not_set():
    device = Device()

    def unplugged():
        raise OSError(19, "")

    device.clock.unix = unplugged
    device.stamps = Stamps(device.log, device.clock, "ts")
    device.add()
    assert device.log.errors == 1
    assert device.send(hurry=True) == [None]
    device.log.close()


def test_without_a_key_what_is_there_is_dated_all_the_same():
    device = Device(key=None)
    device.stamps = Stamps(device.log, device.clock, "zeit")
    device.add()
    device.set_clock()
    device.add()
    device.boot()
    assert device.stamps.complete(1, device.stored()[0], False) == (
        b'{"zeit":1763697605,"at": 1763697605, "life": 1}'
    )
    assert device.fs.puts == []
    device.log.close()


def test_what_others_put_behind_a_space_is_left_alone():
    device = Device()
    device.add()
    device.set_clock()
    for payload in (
        b" ",
        b" {}",
        b" 5",
        b' {"ts":null}',
        b' {"a":0123456789,"boot":2}',
        b' {"ts":null,"uptime_ms":5}',
        b' {"ts":null,"uptime_ms":5.5,"boot":1}',
        b' {"ts":null,"uptime_ms":"5","boot":1,"a":1}',
        b' {"ts":null,"uptime_ms":,"boot":1,"a":1}',
    ):
        assert device.stamps.complete(1, payload, False) == payload
    device.log.close()


# --- The state on flash ---


def test_a_boot_number_is_above_all_records_before_it():
    device = Device()
    numbers = []
    for _ in range(5):
        number = device.add()
        device.add()
        boot = json.loads(device.stored()[-1])["boot"]
        assert boot <= number
        numbers.append(boot)
        device.boot()
    assert numbers == [1, 3, 5, 7, 9]
    device.log.close()


def test_a_hundred_boots_without_a_clock_leave_little_behind():
    device = Device()
    for _ in range(100):
        device.add()
        device.boot()
    assert [len(boots) for _, boots in device.state()] == [1, 1]
    assert device.send() == [None] * 100
    assert len(device.lives) == 100
    device.log.close()


def test_a_hundred_boots_that_end_before_a_record_is_stored_share_no_number():
    device = Device()
    for _ in range(100):
        device.stamps.stamp({}, b"{}")
        device.boot()
    device.add()
    assert device.send(hurry=True) == [None]
    assert list(device.lives) == [101]
    device.log.close()


def test_sixteen_boots_keep_their_dates_and_the_oldest_never_lose_them():
    device = Device()
    for _ in range(20):
        device.add()
        device.wait(2000)
        device.set_clock()
        device.add()
        device.boot()
    assert [len(boots) for _, boots in device.state()] == [17, 17]
    batch = device.form()
    device.post(batch)
    times = [json.loads(payload)["ts"] for _, payload in batch]
    assert None not in times[:32] and times[32::2] == [None] * 4
    # As they are delivered there is room again.
    device.log.ack(1, 40, 0)
    device.add()
    device.set_clock()
    device.send()
    assert [boot for boot, _, _ in device.state()[1][1]] == [41]
    device.boot()
    device.post(device.form())
    device.log.close()


def test_a_boot_is_forgotten_with_its_last_record_and_not_before():
    device = Device()
    device.add()
    device.add()
    device.set_clock()
    device.form()  # writes the offset
    device.boot()
    device.log.ack(1, 1, 0)
    device.add()
    assert [boot for boot, _, _ in device.state()[-1][1]] == [1, 3]
    device.boot()
    assert device.send() == [START + 5, None]
    device.log.ack(1, 2, 0)
    device.add()
    assert [boot for boot, _, _ in device.state()[-1][1]] == [4]
    device.log.close()


def test_a_boot_that_is_delivered_is_all_forgotten():
    device = Device()
    device.add()
    device.set_clock()
    device.form()
    device.boot()
    device.log.ack(1, 1, 0)
    device.add()
    assert [boot for boot, _, _ in device.state()[-1][1]] == [2]
    device.log.close()


def test_what_is_delivered_is_forgotten_when_the_offset_is_written():
    device = Device()
    for _ in range(16):
        device.add()
        device.set_clock()
        device.add()
        device.boot()
    device.add()  # the 17th, still without an offset
    device.log.ack(1, 2, 0)
    device.set_clock()
    assert None not in device.send()
    assert len(device.state()[-1][1]) == 16
    device.log.close()


def test_a_copy_that_is_lost_costs_dates_at_most():
    for torn in (b"", b"0000", b"\xff" * 4096, b"x" * 5000 + b"\n", None):
        for lost in (("clock-a",), ("clock-b",), COPIES):
            device = Device()
            for _ in range(3):
                device.add()
                device.set_clock()
                device.add()
                device.boot()
            assert len(device.state()[-1][1]) == 3
            for name in lost:
                if torn is None:
                    device.fs.remove(name)
                else:
                    damage(device, name, torn)
            if torn is None:
                device.boot()
            device.add()
            times = device.send(hurry=True)
            assert device.log.damaged == (0 if torn is None else len(lost))
            assert len(times) == 7 and times[-1] is None
            if lost == ("clock-a",):  # the newest offset
                assert times[:6:2] == [START + 5, START + 10, None]
            elif lost == ("clock-b",):
                assert times[:6:2] == [START + 5, START + 10, START + 15]
            else:
                assert times[:6:2] == [None, None, None]
            assert len(device.lives) == {1: 1 + times[:6:2].count(None), 2: 4}[len(lost)]
            device.log.close()


def test_a_good_line_with_strange_content_counts_as_damage():
    for text in (b"5", b"null", b'"abc"', b"[1]", b"[[1,2]]", b'[["x","y","z"]]', b"[[1,2,[]]]"):
        device = Device()
        damage(device, "clock-a", encode(8, text))
        device.add()
        assert device.log.damaged == 1 and device.send(hurry=True) == [None]
        assert list(device.lives) == [1]
        device.log.close()


def test_a_copy_that_cannot_be_read_now_is_waited_for():
    device = Device()
    device.add()
    device.set_clock()
    device.send()
    device.boot()
    device.fs.unreadable = 5
    assert raises(OSError, device.form).errno == 5
    device.add()  # stored all the same; its boot has no number
    assert device.log.errors == 1 and device.log.damaged == 0
    device.fs.unreadable = 0
    device.post(device.form())
    device.log.ack(1, 1, 0)
    assert device.send() == [None] and json.loads(device.sent[2])["boot"] is None
    device.log.close()


def test_a_copy_that_can_never_be_read_does_not_hold_up_records():
    device = Device()
    device.add()
    device.set_clock()
    device.add()
    device.boot()
    device.fs.unreadable = 5
    tries = 1
    while tries < 100:
        try:
            device.form()
            break
        except OSError:
            tries += 1
    assert tries == 40 and device.send() == [None, START + 5]
    assert device.log.damaged == 2
    device.log.close()


def test_metadata_that_is_damaged_is_not_waited_for():
    device = Device()
    device.add()
    device.boot()
    device.fs.unreadable = 84
    assert device.send() == [None] and device.log.damaged == 2
    device.log.close()


def test_a_full_disk_costs_the_number_and_not_the_record():
    device = Device()
    device.fs.full = True
    assert [device.add(), device.add()] == [1, 2]
    assert device.log.errors == 2
    device.fs.full = False
    device.add()
    assert [json.loads(payload)["boot"] for payload in device.stored()] == [None, None, 3]
    device.set_clock()
    assert device.send() == [None, None, START + 5]
    device.log.close()


def test_a_date_that_cannot_be_made_durable_is_not_sent():
    device = Device()
    device.add()
    device.set_clock()
    device.fs.full = True
    assert device.send() == [None]
    device.add()
    device.boot()
    assert device.send() == [None, START + 5]
    device.log.close()


def test_an_offset_is_written_as_soon_as_there_is_room():
    device = Device()
    device.add()
    device.add()
    device.set_clock()
    device.fs.full = True
    device.post(device.form(limit=1))
    device.fs.full = False
    device.add()
    device.boot()
    device.post(device.form())  # null, as it was
    device.log.ack(1, 1, 0)
    assert device.send() == [START + 5, START + 5]
    device.log.close()


def test_a_write_that_is_durable_and_says_that_it_failed():
    device = Device()
    device.add()
    device.set_clock()
    put = device.fs._fs.put

    def lying(name, data):
        put(name, data)
        if name in COPIES:
            device.fs._fs.put = put
            raise OSError(5, "")

    device.fs._fs.put = lying
    assert device.send() == [None]
    device.add()
    device.boot()
    device.post(device.form())
    device.log.close()


def test_what_callbacks_add_in_the_middle_is_stored_without_a_boot():
    if not MICROPYTHON:
        return  # there threads wait for each other: host_tests/wire/test_clock.py
    device = Device()

    def callback(name):
        device.fs.before_put = None
        device.add()
        errors.append(raises(OSError, device.stamps.complete, 1, device.stored()[0], True).errno)
        device.stamps.frozen(1)

    errors = []
    device.add()
    device.fs.before_put = callback
    device.set_clock()
    device.add()
    device.clock.date = None
    device.stamps._mine = None
    device.fs.before_put = callback
    device.add()
    boots = [json.loads(payload).get("boot") for payload in device.stored()]
    assert boots == [1, None, None, None, 4]
    assert errors == [16, 16] and device.log.errors == 4
    device.log.close()


# --- Everything at once ---


def lives(device):
    """Four lives of a device, with all that can happen in them."""
    for turn in range(4):
        device.add()
        device.wait(1700)
        device.add()
        if turn & 1:
            device.post(device.form(hurry=True, limit=3))
        device.wait(900)
        if turn != 2:
            device.set_clock()
            device.add()
        device.wait(900)
        batch = device.form()
        device.post(batch)
        if batch and turn != 1:
            device.log.ack(batch[0][0], batch[-1][0], 0)
        device.add()
        device.boot(device.fs.cut, device.fs.how)


def test_a_power_cut_at_every_write_changes_no_byte_and_loses_no_record():
    cuts = 0
    for how in ("before", "torn", "after"):
        n = 0
        while True:
            device = Device()
            device.fs.cut, device.fs.how = n, how
            try:
                lives(device)
                device.log.close()
                break
            except PowerCutError:
                cuts += 1
                n += 1
            device.boot()
            assert device.log.stored == device.added
            left = range(device.log.acked + 1, device.added + 1)
            assert [seq for seq, _ in device.log.read(None)] == list(left)
            device.send(hurry=True)  # in flight is a batch, or all
            device.log.ack(1, device.log.sending, 0)
            device.send(hurry=True)
            device.add()
            device.set_clock()
            device.add()
            device.log.ack(1, device.log.sending, 0)
            assert len(device.send()) == 2
            device.boot()
            device.post(device.form())
            device.log.close()
    assert cuts > 40


class Dice:
    """The same numbers on every runtime."""

    def __init__(self, seed):
        self.state = seed

    def __call__(self, n):
        self.state = (self.state * 1103515245 + 12345) & 0x7FFFFFFF
        return (self.state >> 12) % n


def test_whatever_happens_no_date_is_a_lie_and_no_byte_changes():
    dated = nulls = 0
    for seed in range(6):
        dice = Dice(seed)
        device = Device()
        for _ in range(250):
            what = dice(16)
            device.wait(dice(3) * 1300)
            try:
                if what < 5:
                    device.add()
                elif what == 5:
                    device.set_clock()
                elif what == 6:
                    device.wait(600000)
                elif what == 7:
                    device.boot()
                elif what == 8:
                    device.fs.full = not dice(3)
                elif what == 9:
                    device.fs.cut = dice(3)
                    device.fs.how = ("before", "torn", "after")[dice(3)]
                else:
                    batch = device.form(not dice(3), 1 + dice(5))
                    if not dice(3):
                        device.add()
                    if not dice(4):
                        device.set_clock()
                    device.post(batch)
                    if batch and dice(3):
                        device.log.ack(batch[0][0], batch[-1][0], 0)
            except PowerCutError:
                device.boot()
        device.log.close()
        for payload in device.sent.values():
            if b'"ts":null' in payload:
                nulls += 1
            else:
                dated += 1
    assert dated > 60 and nulls > 60, (dated, nulls)


# --- The runtime's own clock ---


class Time:
    """MicroPython's time module as boards have it, or CPython's."""

    def __init__(self, seconds, epoch=1970, bits=0, ns=True):
        self.seconds = seconds - (946684800 if epoch == 2000 else 0)
        self.epoch = epoch
        self.bits = bits  # of a float's mantissa; 0: ints
        self.ms = 0
        if ns:
            self.time_ns = lambda: self.seconds * 1000000000 + 999999999

    def time(self):
        if not self.bits:
            return self.seconds
        step = 1
        while self.seconds // step >> self.bits:
            step *= 2
        return float(self.seconds // step * step)

    def gmtime(self, seconds):
        assert seconds == 0
        return (self.epoch, 1, 1, 0, 0, 0, 3, 1)

    def ticks_ms(self):
        return self.ms & 0x3FFFFFFF

    def ticks_add(self, ticks, delta):
        return (ticks + delta) & 0x3FFFFFFF

    def ticks_diff(self, end, start):
        return ((end - start + 0x20000000) & 0x3FFFFFFF) - 0x20000000


def port():
    """The module that has the clock, and asks the module `time`."""
    return sys.modules["postcache.ports." + ("micropython" if MICROPYTHON else "cpython.clock")]


def with_time(module, check):
    own = port()
    real = own.time
    own.time = module
    try:
        return check(own.Clock())
    finally:
        own.time = real


def unix(module):
    return with_time(module, lambda clock: clock.unix())


def test_a_clock_before_2025_is_not_set():
    first = 1735689600
    epochs = (1970, 2000) if MICROPYTHON else (1970,)
    for epoch in epochs:
        for seconds, answer in (
            (first - 1, None),
            (first, first),
            (START, START),
            (4102444800, 4102444800),  # 2100
            (1609459200, None),  # a Pico's beginning
            (946684800, None),  # an ESP32's
        ):
            assert unix(Time(seconds, epoch)) == answer
    assert isinstance(unix(Time(START)), int)


def test_floats_of_32_bits_are_gone_around():
    if not MICROPYTHON:
        return  # its floats have 64
    for epoch in (1970, 2000):
        for seconds in (START, START + 63, START + 127):
            assert unix(Time(seconds, epoch, bits=24)) == seconds
            # Nothing better is to be had: a minute or two, and nothing worse.
            got = unix(Time(seconds, epoch, bits=24, ns=False))
            assert isinstance(got, int) and 0 <= seconds - got < 128
            assert unix(Time(seconds, epoch, bits=53, ns=False)) == seconds
        assert unix(Time(1735689600 - 200, epoch, bits=24)) is None


def test_uptime_goes_on_past_the_wrap_of_the_ports_own():
    if not MICROPYTHON:
        return  # its clock does not wrap
    day = 86400000

    def check(clock):
        before = clock.ticks_ms()
        for step in (1, 0x3FFFFFFF, day, 6 * day, 7 * day, 12 * day, 5):
            own.ms += step
            now = clock.ticks_ms()
            want = step if step <= 0x3FFFFFFF - (1 << 20) else step - 0x40000000
            assert now - before == want, step
            before = now
        # One that read earlier and comes later.
        own.ms -= 1000
        assert before - clock.ticks_ms() == 1000
        own.ms += 3000
        assert clock.ticks_ms() - before == 2000

    for start in (0, 0x3FFFFFFF, 0x20000000):
        own = Time(START)
        own.ms = start
        with_time(own, check)


def test_records_on_both_sides_of_the_wrap_are_dated():
    if not MICROPYTHON:
        return
    own = Time(946684800, epoch=2000)
    own.ms = 0x3FFFFFFF - 1000

    def check(clock):
        fs = Directory(folder())
        log = Log(fs)
        stamps = Stamps(log, clock, "ts")
        for _ in range(3):
            log.append([stamps.stamp({}, b"{}")])
            own.ms += 900000
        own.seconds = START - 946684800
        dates = [json.loads(stamps.complete(n, p, True))["ts"] for n, p in log.read(None)]
        assert dates == [START - 2700, START - 1800, START - 900]
        log.close()

    with_time(own, check)


def test_the_clock_of_this_machine_is_set():
    clock = port().Clock()
    assert clock.unix() > START
    before = clock.ticks_ms()
    assert clock.ticks_ms() >= before
