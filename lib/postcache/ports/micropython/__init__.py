"""MicroPython: flush is sync, `requests` for http://, everything cooperative."""

import json
import time

from micropython import const

from .files import Directory, forget  # noqa: F401

BATCH = 16384  # bytes of a batch: what a slow radio link carries within one timeout
BUFFER = 1024  # a batch up to this size is kept in RAM between its tries
# No threads: whoever wants to send calls poll(), and there are no commits that could be grouped.
Worker = Group = offload = None


class Lock:
    """There are no threads, but a callback can call back in while the lock is taken."""

    taken = False

    def acquire(self, *args):
        taken, self.taken = self.taken, True
        return not taken

    def __enter__(self):
        if not self.acquire():
            raise OSError(16)  # EBUSY: a callback came in between, and may try again later

    def release(self):
        self.taken = False

    def __exit__(self, kind, value, trace):  # *args would need memory, when there may be none
        self.taken = False


def _check(value):
    # This json.dumps writes nan, <object>, {2, 1}, {1: 2} and P(a=1) without a word.
    ok = value is None or isinstance(value, (str, int, bool))
    if isinstance(value, float):
        ok = not value - value  # nan, also for infinity
    elif isinstance(value, list) or type(value) is tuple:
        ok = True
        for item in value:
            _check(item)
    elif isinstance(value, dict):
        ok = True
        for key in value:
            ok = ok and isinstance(key, str)
            _check(value[key])
    if not ok:
        raise ValueError("not JSON: %s" % type(value))


def dumps(value, kwargs=None):
    """
    Return `value` as bytes of JSON text on one line.

    Args:
        value: None, bool, int, float, str, list, tuple, or a dict with str keys, nested.
        kwargs: dict, further arguments of `json.dumps`; this one knows `separators`.

    Raises ValueError for anything else.
    """
    try:
        _check(value)
        text = json.dumps(value, **(kwargs or {}))
        if kwargs:
            json.loads(text)
    except (TypeError, RuntimeError):  # RuntimeError: nested too deeply
        raise ValueError("not JSON")
    data = text.encode().replace(b"\n", b" ")
    at = 0
    while True:
        at = data.find(b"\xed", at) + 1
        if not at:
            return data
        if data[at] >= 0xA0:
            # U+D800..DFFF: half of a pair that json.loads() made of "\ud83d\ude00". In UTF-8 that
            # is invalid, and a server would refuse the whole batch; as an escape it is JSON again.
            code = 0xD000 | (data[at] & 0x3F) << 6 | data[at + 1] & 0x3F
            data = data[: at - 1] + b"\\u%04x" % code + data[at + 2 :]


_PAST = const(1 << 20)  # ms


class Clock:
    """The board's clock."""

    def __init__(self):
        self._ms = 0
        self._ticks = time.ticks_ms()
        self._mask = time.ticks_add(0, -1)  # the port's own wrap after this one

    def ticks_ms(self):
        """
        Return milliseconds that only grow, past the 12 days after which the port's own wrap.

        Call it at least once in 12 days; every record and every poll() does. Nothing else can tell
        how often the ticks have wrapped in between.
        """
        # Nearly all of the period is the future: ticks_diff() would see half of it. Some is the
        # past, for a reader that another one overtakes. No branch: a callback may come in there.
        ticks = time.ticks_ms()
        self._ms += ((ticks - self._ticks + _PAST) & self._mask) - _PAST
        self._ticks = ticks
        return self._ms

    def unix(self):
        """Return seconds since 1970, an int; None while the clock has not been set."""
        from .epoch import unix

        return unix(time)


def Http(url, cafile=None, verify=True, feed=None):  # noqa: N802 - a class on CPython
    """
    Return a client for `url`: `http.Plain` for http://, `https.Secure` for https://.

    Args:
        url: str, http:// or https://.
        cafile: str, path of the certificates that are trusted, PEM or DER, for https://.
        verify: False takes any certificate: the server may be anybody.
        feed: None, or a callable for a watchdog: called at least once a second while the client
            waits, but for a name look-up, and while the body is sent.

    Raises ValueError for a bad URL or bad certificates, OSError for a file that cannot be read.
    """
    from ..answer import Answer  # noqa: F401 - loaded now, not amid an exchange

    if str(url)[:8] == "https://":
        from .https import Secure

        return Secure(url, feed, cafile, verify)
    from .http import Plain

    return Plain(url, feed)
