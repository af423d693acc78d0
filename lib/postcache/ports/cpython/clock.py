"""The clock of a computer."""

import time

_SET = 1735689600  # 2025-01-01: what is before it nobody has set


class Clock:
    """The system's clock."""

    def ticks_ms(self):
        """Return milliseconds that only grow."""
        return time.monotonic_ns() // 1_000_000

    def unix(self):
        """Return seconds since 1970, an int; None while the clock has not been set."""
        now = int(time.time())
        return now if now >= _SET else None
