"""
What a status means that does not acknowledge: loaded by the first such answer.

    3xx 5xx, 2xx that is     retry
        not confirmed,
        408 425 429
    401 403 404 405 410      blocked
    413                      too large
    415                      plain, for a gzip body; else refused
    400, 422, other 4xx      refused
"""

from ..ports import const

_SLOW = const(150000)  # ms, and the jitter of up to 300 s comes on top


def judge(status, headers):
    """
    Return `(kind, pause)` of the `envelope.Verdict` on an answer.

    Args:
        status: int.
        headers: mapping of str with lower-case names.
    """
    pause = 0
    if "retry-after" in headers:
        from .retry_after import retry_after

        pause = retry_after(headers)
    if status < 400 or status >= 500 or status in (408, 425, 429):
        return "retry", pause
    if status in (401, 403, 404, 405, 410):
        return "blocked", max(pause, _SLOW)
    if status == 413:
        return "too large", pause
    return "plain" if status == 415 else "refused", pause
