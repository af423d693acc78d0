"""
Retry-After, loaded when a server sends one.

A date is compared with the answer's own Date header and with nothing else: a board's clock may be
unset, or wrong.
"""

_CAP = 600  # s: a server may ask for patience, not for silence
_MONTHS = "JanFebMarAprMayJunJulAugSepOctNovDec"


def _seconds(date):
    """Seconds of an IMF-fixdate (RFC 9110, 5.6.7) since some fixed day, or ValueError."""
    _, day, month, year, time, _ = date.split(" ")
    hour, minute, second = time.split(":")
    month = _MONTHS.index(month) // 3 + 10
    # Years that begin in March, so that a leap day is the last one.
    year = int(year) - 1 + month // 12
    days = year * 365 + year // 4 - year // 100 + year // 400 + (month % 12 * 306 + 5) // 10
    return ((days + int(day)) * 24 + int(hour)) * 3600 + int(minute) * 60 + int(second)


def retry_after(headers):
    """Return the milliseconds, 0..600000, that an answer's headers (lower-case names) ask for."""
    value = headers["retry-after"]
    try:
        if value.isdigit():
            seconds = int(value)
        else:
            seconds = _seconds(value) - _seconds(headers.get("date", ""))
    except ValueError:
        return 0
    return max(0, min(seconds, _CAP)) * 1000
