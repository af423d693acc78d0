"""
Frame: how records become a request, and what an answer means.

A `Frame` is all that differs between wire formats. A new format is a `Frame`, and a face that
makes records for it (see `influx`). What is on flash is always JSON.

    record --encode()--> payload, on flash --render()--> line --\
                                           --render()--> line ---+--> head line between line tail
"""

from collections import namedtuple

from .ports import dumps

# What an answer means for the batch that it answers:
#
# kind      "delivered": the server has the records, but for those in `refused`
#           "retry": keep them, back off, and send the same again
#           "blocked": the same, slowly: a person has to correct something
#           "too large": halve the batch, and those after it
#           "refused": the server does not want one of the records, or more: search by halves
#           "plain": the server does not take gzip: send the same without it from now on
# pause     int, milliseconds to wait at least, such as Retry-After asks for
# refused   with "delivered", a dict of what the server named and did not take, as InfluxDB's
#           partial writes do: position in the batch, from 0, to the reason, bytes. These records
#           become dead letters, and all others count as delivered.
Verdict = namedtuple("Verdict", ("kind", "pause", "refused"))


class Frame:
    """
    Records as JSON in a list, POSTed to one URL.

    What its methods return depends on their arguments alone: a retry must send the same bytes,
    also after a reboot.

    Args:
        url: str; None to store only.
        headers: dict of str, sent with each request.
        head, between, tail: bytes before, between and after the records.

    Attributes: `size`, the bytes of head and tail; `confirm`, a callable as `POSTCache` has it, or
    None.

    A format sets these two only if it has a use for them; None costs nothing for each record:

    group(payload): what it has in common with the records that may share its request; anything
        that can be compared.
    render(payload): bytes, the line that is sent for a payload; None sends the payload itself.
    """

    group = render = confirm = None

    def __init__(self, url, headers, head, between, tail):
        self.url = url
        self.headers = headers
        self.head = head
        self.between = between
        self.tail = tail
        self.size = len(head) + len(tail)

    def encode(self, record, kwargs):
        """
        Return the payload, bytes of JSON text on one line, that is stored for a record.

        Args:
            record: what the face was given.
            kwargs: dict, further arguments of `json.dumps`.

        Raises ValueError for what cannot be sent.
        """
        return dumps(record, kwargs)

    def request(self, group):
        """Return the URL and the headers, a dict that is not changed, for records of `group`."""
        return self.url, self.headers

    def verdict(self, batch, status, headers, start):
        """
        Return the `Verdict` on an answer.

        Args:
            batch: the `send.Batch` that was sent.
            status: int.
            headers: mapping of str with lower-case names.
            start: bytes, the beginning of the body, at most 512.
        """
        if 200 <= status < 300 and (not self.confirm or self.confirm(status, headers, start)):
            return Verdict("delivered", 0, {})
        from .send.statuses import judge

        return Verdict(*judge(status, headers), {})
