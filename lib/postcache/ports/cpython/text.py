"""JSON text on CPython."""

import json

_encode = json.JSONEncoder(allow_nan=False).encode  # json.dumps would make one for each call


def _refuse(name):
    raise ValueError("%s is no JSON" % name)


def dumps(value, kwargs=None):
    """
    Return `value` as bytes of JSON text on one line.

    Args:
        value: what `json.dumps` takes, but for NaN and infinity, which no JSON parser has to
            accept.
        kwargs: dict, further arguments of `json.dumps`.

    Raises ValueError for anything that is not JSON, also if it came out of a custom encoder.
    """
    try:
        if not kwargs:
            return _encode(value).encode()
        kwargs["allow_nan"] = False
        text = json.dumps(value, **kwargs)
        json.loads(text, parse_constant=_refuse)
        # A raw newline in valid JSON text is white space between tokens: indent= makes them.
        return text.replace("\r", " ").replace("\n", " ").encode()
    except (TypeError, RecursionError, AttributeError) as e:
        raise ValueError("not JSON: %s" % e) from None
