"""
Arguments that every program gives, checked: loaded to make a face, and then given up.

All of it raises ValueError or TypeError for a bad argument, before anything is written.
"""

from .envelope import Frame
from .ports import dumps

# Beginnings of the header names that are set by us, in lower case.
_RESERVED = ("content-", "transfer", "host", "idempote", "postcach", "")


def check_numbers(timeout, limit, max_bytes, interval):
    """Check the numbers of an `uplink.Uplink`: see there."""
    for name, ok in (
        ("timeout: seconds > 0", timeout > 0),
        ("upload_limit: 1 or more", limit >= 1),
        ("max_bytes: 4096 or more", max_bytes is None or max_bytes >= 4096),
        ("async_interval: seconds > 0", interval is None or interval > 0),
    ):
        if not ok:
            raise ValueError(name)


def checked_headers(kind, headers, authorization=None):
    """
    Return the fixed headers of a request, a dict.

    Args:
        kind: str, the Content-Type.
        headers: a program's own, a dict of str, or None.
        authorization: str, the value of that header, which must not be among them then; or None.
    """
    fields = {"Content-Type": kind}
    pairs = list((headers or {}).items())
    if authorization:
        pairs.append(("Authorization", authorization))
    names = []
    for name, value in pairs:
        text = name + value
        names.append(name.lower())
        if min(text) < " " or max(text) > "~" or names[-1][:8] in _RESERVED:
            raise ValueError("bad header")
        for c in name:
            if c in ' "(),/:;<=>?@[]{}' or c == chr(92):  # RFC 9110, 5.6.2: no token
                raise ValueError("bad header")
        if names[-1] in names[:-1]:
            raise ValueError("a header twice")
        fields[name] = value
    return fields


def json_frame(url, headers, data_key, attributes):
    """Return the `Frame` of `client.POSTCache`: records in a list, in a JSON object."""
    if not isinstance(data_key, str):
        raise ValueError("data_key: a str")
    # Text of its own: a dict that the caller changes later would change the bytes of a retry.
    rest = (attributes or {}).copy()
    rest.pop(data_key, None)
    tail = b"]," + dumps(rest)[1:] if rest else b"]}"
    fixed = checked_headers("application/json", headers)
    return Frame(url, fixed, b"{" + dumps(data_key) + b":[", b",", tail)
