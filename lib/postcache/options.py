"""
What few programs ask for, loaded by those that do: the rarer arguments of a face.

The signature below is the only list of them; the docstrings, the type hints and the page of the
API are compared with it by a test.
"""


class Options:
    """
    Arguments that are checked now, before anything is made, and applied later.

    See `client.POSTCache` for each. Raises ValueError for what is no good, TypeError for an
    unknown name.

    Attributes: `transport`, what the HTTP port has to know; `slot_size`.
    """

    def __init__(
        self,
        flush_every=1,
        slot_size=None,
        on_full="drop_oldest",
        max_age=None,
        on_event=None,
        confirm=None,
        feed=None,
        online=None,
        cafile=None,
        verify=True,
        compress=False,
        timestamp_key=None,
    ):
        if not flush_every >= 1:
            raise ValueError("flush_every: 1 or more")
        if not (slot_size or 0) >= 0:
            raise ValueError("slot_size: bytes")
        if verify is not True and verify is not False:  # None, 0 or a path is a mistake
            raise ValueError("verify: True or False")
        for name, value in (("on_event", on_event), ("online", online), ("feed", feed)):
            if value is not None and not callable(value):
                raise ValueError(name + ": a callable")
        if on_full not in ("drop_oldest", "drop_newest", "raise"):
            raise ValueError("on_full: drop_oldest, drop_newest or raise")
        if max_age is not None and not max_age > 0:
            raise ValueError("max_age: seconds > 0")
        if not (confirm is None or confirm == "ack" or callable(confirm)):
            raise ValueError('confirm: "ack" or a callable')
        if timestamp_key is not None and not (isinstance(timestamp_key, str) and timestamp_key):
            raise ValueError("timestamp_key: a str")
        self.transport = cafile, verify, feed
        self.slot_size = slot_size
        self._flush_every = flush_every
        self._on_full = on_full
        self._max_age = max_age
        self._on_event = on_event
        self._confirm = confirm
        self._online = online
        self._compress = compress
        self._timestamp_key = timestamp_key

    def apply(self, uplink):
        """Give an `uplink.Uplink` and its parts what they have to know."""
        log = uplink.storage
        outbox = uplink.outbox
        log.on_full = self._on_full
        if self._flush_every > 1:
            from .log.buffered import Buffered

            uplink.buffered = buffered = Buffered(log, uplink.commit, self._flush_every)
            uplink.commit = buffered.commit
            uplink.hold = buffered.add
        if self._on_full == "drop_newest":
            uplink.commit = _dropping(log, uplink.commit)
            uplink.hold = _dropping(log, uplink.hold)
        if self._timestamp_key:
            from .send.stamps import Stamps

            stamps = Stamps(log, uplink.clock, self._timestamp_key)
            encode = uplink.encode
            uplink.encode = lambda record, kwargs: stamps.stamp(record, encode(record, kwargs))
            if outbox:
                outbox.stamps = stamps
        gates = ()
        if self._max_age:
            from .log.ages import Ages

            uplink.ages = ages = Ages(log, uplink.clock, int(self._max_age * 1000))
            uplink.watchers = (ages.note,)
            gates = (ages.expire,)
        online = self._online
        if online:
            gates += (lambda: "" if online() else "offline",)
        if outbox:
            uplink.frame.confirm = self._confirm
            if self._confirm == "ack":
                # Not `outbox`: a cycle of objects would keep a log that nobody closed in use.
                sent = outbox.headers
                uplink.frame.confirm = lambda status, headers, start: (
                    headers.get("postcache-ack") == sent["Postcache-Last"]
                )
            outbox.gates = gates
            if self._compress:
                from .ports.gzipped import available, length, stream

                outbox.gzip = (length, stream) if available() else None
        if self._on_event:
            from .send.events import Events

            look = Events(self._on_event, log, outbox, self._compress, uplink.ages).look
            uplink.watchers += (look,)
            if outbox:
                outbox.watchers = (look,)


def _dropping(log, append):
    def call(payloads):
        try:
            return append(payloads)
        except OSError as e:
            if not payloads or e.args[1:] != ("full",):
                raise
            with log.lock:
                log.dropped += len(payloads)
            return 0

    return call
