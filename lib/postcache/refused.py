"""
What an answer means that does not acknowledge, loaded by the first one.

    3xx 5xx, 2xx that is     back-off, and the same again
        not confirmed,
        408 425 429
    401 403 404 405 410      a person must mend it: the same again, slowly
    413                      too large: halve the batch, and remember that
    415, for a gzip body     send it plain from now on
    400, 422, other 4xx      the server does not want one of the records, or more: halve the batch
                             until a bad one stands alone, and set that aside

A batch of n records with one bad one costs at most log2(n) + 3 requests: the whole, a half for
each level, the bad one alone, and all that is behind it. When the left half was taken the bad one
is in the right half, which need not be tried as a whole.

A server that refuses everything has not looked at the records. So after some records in a row have
been set aside and none was taken, each further one costs a back-off, and is tried alone.
"""

from .ports import const

_SLOW = const(150000)  # ms, and the jitter of up to 300 s comes on top
_ROW = const(8)


def judge(outbox, status, headers, reason):
    """
    Deal with the batch that got `status`; `reason` is the beginning of the answer's body.

    Returns (what to call the error, the milliseconds to wait at least beside the back-off); None
    for these: go on at once, as nothing has failed. Raises OSError when a record could not be set
    aside; it stays where it is then.
    """
    pause = 0
    if "retry-after" in headers:
        from .retry import retry_after

        pause = retry_after(headers)
    error = "HTTP %d" % status
    if 200 <= status < 300:
        error += ", not confirmed"
    if status < 400 or status >= 500 or status in (408, 425, 429):
        return error, pause
    if status in (401, 403, 404, 405, 410):
        outbox.blocked = True
        outbox.failed = 9  # a fleet that was locked out does not come back together, either
        return error, max(pause, _SLOW)
    if status == 415 and outbox.pack:
        outbox.pack = None
        del outbox.headers["Content-Encoding"]
        return error, None
    log = outbox.log
    first, last, _, end, size, _ = batch = outbox.batch
    outbox.batch = None
    outbox.halve = _halve
    around = len(outbox.head), len(outbox.tail)
    if last > first:
        if status == 413:
            outbox.most = (size - sum(around)) // 2
        else:
            outbox.suspect = last
        # Another batch, under another key. Durable, so that a device which is restarted after each
        # try comes to an end, too.
        log.freeze((first + last - 1) // 2)
        return error, pause or None
    from .rejects import Rejects

    pieces = outbox.body(batch)  # dated and all, as the server has seen it
    record = next(pieces)[around[0] :]
    if not list(pieces):  # else the end came apart
        record = record[: -around[1]]
    pieces.close()
    Rejects(log).add(first, status, reason, record)
    log.ack(first, last, 0)
    outbox.end = end
    outbox.refused += 1
    outbox.refusal = first, status, reason
    outbox.row += 1
    if outbox.row < _ROW:
        return error, pause or None
    outbox.blocked = True
    return error, pause


def _halve(outbox, first):
    """Return how many records a batch from number `first` on may have."""
    if outbox.row > 1:
        return 1
    if first <= outbox.suspect:
        return max(1, (outbox.suspect - first + 1) // 2)
    return outbox.limit
