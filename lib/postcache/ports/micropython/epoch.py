"""The time of day on a board: loaded by those that ask for it, `timestamp_key` among them."""

from micropython import const

_EPOCH_2000 = const(946684800)
_SET = const(1735689600)  # 2025-01-01: boards without a battery begin in 1970, 2000, 2021


def unix(time):
    """Return seconds since 1970, an int, by the module `time`; None if that is not set."""
    now = time.time()
    if isinstance(now, float):  # of 32 bits, its steps are two minutes
        now = time.time_ns() // 1000000000 if hasattr(time, "time_ns") else int(now)
    if time.gmtime(0)[0] == 2000:
        now += _EPOCH_2000
    return now if now >= _SET else None
