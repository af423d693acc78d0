"""
postcache: never lose a reading.

    cache = POSTCache("http://server/readings", "cache")
    cache.add_request({"t": 21.5})

Names are loaded on first use, so that a logger does not pay RAM for what it does not touch.
"""

__version__ = "1.0.0.dev0"


def __getattr__(name):
    if name != "POSTCache":
        raise AttributeError(name)
    from .client import POSTCache

    return POSTCache
