"""What few programs ask for, loaded by those that do: arguments of POSTCache, checked and set."""

from .ports import dumps


def check(
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
    """
    Raise ValueError for what is no good, before anything is made; see POSTCache for what is.

    Returns ((cafile, verify, feed), slot_size): what the HTTP port and the log have to know.
    """
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
    return (cafile, verify, feed), slot_size


def apply(
    cache,
    flush_every=1,
    on_full="drop_oldest",
    max_age=None,
    on_event=None,
    confirm=None,
    online=None,
    compress=False,
    timestamp_key=None,
    **others,
):
    """Give `cache`, a POSTCache, and its parts what check() let through."""
    log = cache._log
    outbox = cache._outbox
    log.on_full = on_full
    if flush_every > 1:
        from .held import Held

        cache._held = held = Held(log, cache._append, flush_every)
        cache._append = held.commit
        cache._hold = held.hold
    if on_full == "drop_newest":
        cache._append = _dropping(log, cache._append)
        cache._hold = _dropping(log, cache._hold)
    if timestamp_key:
        from .stamps import Stamps

        stamps = Stamps(log, log._fs, cache._clock, timestamp_key)
        cache._dumps = lambda body, kwargs: stamps.stamp(body, dumps(body, kwargs))
        if outbox:
            outbox.stamps = stamps
    if max_age:
        from .ages import Ages

        cache._ages = Ages(log, cache._clock, int(max_age * 1000))
        cache._watchers = (cache._ages.note,)
    if outbox:
        if max_age or online:
            outbox.before = _before(max_age and cache._ages, online)
        if confirm == "ack":
            # The very dict of the request's headers.
            sent = outbox.headers
            outbox.confirm = lambda status, headers, start: (
                headers.get("postcache-ack") == sent["Postcache-Last"]
            )
        else:
            outbox.confirm = confirm
        if compress:
            from .gzipped import available, pack

            if available():
                outbox.pack = pack
    if on_event:
        from .events import Events

        look = Events(on_event, log, outbox, compress, max_age and cache._ages).look
        cache._watchers += (look,)
        if outbox:
            outbox.notify = look


def _before(ages, online):
    def call():
        if ages:
            ages.expire()
        return "offline" if online and not online() else None

    return call


def _dropping(log, append):
    def call(payloads):
        try:
            return append(payloads)
        except OSError as e:
            if not payloads or e.args[1:] != ("full",):
                raise
            with log._lock:
                log.dropped += len(payloads)
            return 0

    return call
