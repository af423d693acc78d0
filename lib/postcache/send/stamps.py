"""
The time at which each record was added: `timestamp_key`, loaded by those that use it.

    {"ts":1763697600,"t": 21.5}                          stored with the clock set, and sent
     {"ts":null,"uptime_ms":4711,"boot":954,"t": 21.5}   stored before that, behind a space

A record that begins with a space is dated when it is sent, by what the clock said once it was set
in the same boot, minus the uptime then: the boot's offset. That is durable before the first date
made from it is sent, and never changes. Without one the record is sent as it is.

    clock-a clock-b   two alternating copies: [boot, records up to this one stay null, offset]

A date is in seconds, or in milliseconds under a key that ends in "_ms". The clock knows seconds
only; what is between them comes from the uptime, and no two records get the same millisecond, so
that their order can be seen.

A boot is one life of this object. Its number is above that of each record before it, so it is new
also when both copies are lost.
"""

import json

from ..ports import Lock, const, dumps, forget

_WAIT = const(600000)  # ms that a record waits for the clock
_BOOTS = const(16)  # with an offset and records that wait; a later boot gets none
_TRIES = const(40)  # how often a file is tried, each time after a back-off, before it is given up


class Stamps:
    """
    Dates the records of a log.

    Args:
        log: a `log.Log`.
        clock: with ticks_ms(), and unix(): seconds since 1970, or None while it is not set. A
            clock without unix() is never set.
        key: str, the name of the time in a record; None to date only what is there.
    """

    def __init__(self, log, clock, key):
        self._log = log
        self._pair = None  # of files; not read yet
        self._clock = clock
        self._ask = getattr(clock, "unix", None)
        self._key = key
        self._lock = Lock()
        # Oldest first, each a list: boot, last record that stays null, offset in ms or 0.
        self._boots = []
        self._mine = None  # the one of this boot, once it has an undated record
        self._dirty = False  # its offset is not on flash, or not as it is here
        self._null = self._tries = 0
        self._ahead = self._last = 0  # of dates in ms: less the uptime; the newest

    def stamp(self, body, payload):
        """
        Return `payload` with the time in it.

        Args:
            body: the record. One that has the key is left as it is.
            payload: bytes, its JSON text.

        Raises ValueError for a record that is no object. What cannot be written costs the record
        its date, and is counted.
        """
        if payload[:1] != b"{":
            raise ValueError("timestamp_key: records must be objects")
        if not isinstance(body, dict):
            body = json.loads(payload)  # what a function in json_dumps_kwargs made of it
        if self._key in body:
            return payload
        uptime = self._clock.ticks_ms()
        date = unix = self._unix()
        fine = unix is not None and self._key[-3:] == "_ms"
        if fine:
            date = unix * 1000
        boot = None
        try:
            with self._lock:
                if unix is None:
                    boot = self._begin()
                else:
                    if fine:
                        date = self._between(date, uptime)
                    if self._learn(unix) or self._dirty:
                        self._save()
        except OSError:  # clock-a or -b cannot be read, or a callback came in between
            self._log.errors += 1
        rest = payload[1:].lstrip()
        if rest[:1] != b"}":
            rest = b"," + rest
        key = dumps(self._key)
        if unix is not None:
            return b"{%s:%d%s" % (key, date, rest)
        # A second space: fields of ours would hide the record's own.
        return b'%s{%s:null,"uptime_ms":%d,"boot":%s%s' % (
            b"  " if "uptime_ms" in body or "boot" in body else b" ",
            key,
            uptime,
            dumps(boot),
            rest,
        )

    def complete(self, number, payload, hurry):
        """
        Return `payload`, stored with a space before it, as it is to be sent.

        None: it has to wait, as the clock may be set soon; never with `hurry`. Raises OSError when
        it cannot be known yet: try again later. The same bytes come out each time, if frozen() is
        called before any of them is sent.
        """
        at = payload.find(b':null,"uptime_ms":')
        mid = payload.find(b',"boot":', at)
        uptime = payload[at + 18 : mid]
        if mid < 0 or not uptime.isdigit():
            return payload  # a custom encoder put a space before it
        uptime = int(uptime)
        end = payload.find(b",", mid + 8)
        if end < 0:
            end = len(payload) - 1
        boot = payload[mid + 8 : end]
        offset = 0
        if boot != b"null":
            with self._lock:
                mine = self._mine
                unix = None
                if mine and not mine[2]:
                    unix = self._unix()
                if unix is not None and self._learn(unix):
                    self._save()
                for entry in self._load():
                    if b"%d" % entry[0] == boot and number > entry[1]:
                        offset = entry[2]
                        if entry is not mine:
                            continue
                        if self._dirty:
                            offset = 0
                        elif offset:
                            self._null = min(self._null, number - 1)
                        elif (
                            unix is None
                            and not hurry
                            and self._ask
                            and self._clock.ticks_ms() - uptime < _WAIT
                        ):
                            return None
                        if not offset:
                            self._null = number
        if not offset and payload[1:2] != b" ":
            return payload[1:]
        step = 1 if payload[at - 4 : at] == b'_ms"' else 1000
        date = b"%d" % ((uptime + offset) // step) if offset else b"null"
        return b"%s:%s%s" % (payload[:at].lstrip(), date, payload[end:])

    def frozen(self, last):
        """
        Records up to number `last` are about to be sent: what complete() left null stays so.

        To be called before a batch's first try. Never raises: what cannot be written is counted.
        """
        try:
            with self._lock:
                mine = self._mine
                last = min(last, self._null)
                if mine and last > mine[1]:
                    # As long as there is no offset this need not be on flash: it will be written
                    # with the offset, and after a reboot there will never be one.
                    mine[1] = last
                    if mine[2]:
                        self._dirty = True
                if self._dirty:
                    self._save()
        except OSError:  # a callback came in between
            self._log.errors += 1

    def _between(self, second, uptime):
        """Return the date in ms at `uptime`, in a second that is given in ms: after the last."""
        ms = min(max(self._ahead + uptime, second), second + 999)
        self._ahead = ms - uptime
        if ms <= self._last < ms + 1000:
            ms = self._last + 1
        self._last = ms
        return ms

    def _unix(self):
        try:
            return (self._ask and self._ask()) or None
        except OSError:  # a chip on a bus
            self._log.errors += 1

    def _begin(self):
        """Return the number of this boot, on flash; None when it could not be written."""
        if not self._mine:
            boots = self._load()
            mine = [max(self._log.stored, boots[-1][0] if boots else 0) + 1, 0, 0]
            boots.append(mine)
            self._prune()
            # A boot that is over without an offset will have none.
            self._boots = [entry for entry in boots if entry[2] or entry is mine]
            if not self._save():
                return None
            self._mine = mine
        return self._mine[0]

    def _learn(self, unix):
        """Fix the offset of this boot, unless it is; return True if it has to be written."""
        mine = self._mine
        if not mine or mine[2]:
            return False
        self._prune()
        if len(self._boots) > _BOOTS:
            return False  # not the oldest go: a retry may have to repeat their dates
        mine[2] = unix * 1000 - self._clock.ticks_ms()
        self._dirty = True
        return True

    def _prune(self):
        """Forget the boots whose records are all delivered: they lie below the next one's."""
        boots = self._boots
        while len(boots) > 1 and boots[1][0] <= self._log.acked + 1:
            boots.pop(0)

    def _load(self):
        if not self._pair:
            from ..log.recover import read_pair

            log = self._log
            try:
                self._pair, boots, damaged = read_pair(
                    log.fs, "clock", _parsed, self._tries >= _TRIES - 1
                )
            except OSError:
                self._tries += 1
                raise  # taken for lost it would change what is sent
            finally:
                forget(__name__.replace("send.stamps", "log.recover"))
            log.damaged += damaged
            self._boots = boots or []
        return self._boots

    def _save(self):
        """Write the newer copy; return True if it is durable."""
        log = self._log
        log.writes += 1
        try:
            self._pair.write(dumps(self._boots))
        except OSError:
            log.errors += 1
            return False
        self._dirty = False
        return True


def _parsed(text):
    return [[int(boot), int(last), int(offset)] for boot, last, offset in json.loads(text)]
