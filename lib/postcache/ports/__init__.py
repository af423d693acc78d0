"""
The only place that knows which runtime this is.

A port gives the core the same few names on every runtime: `Directory` (files, durable when a call
returns), `Http`, `Clock`, `Lock`, `Worker`, `dumps` and the sizes that fit the machine. Each is a
plain object that a caller or a test may replace by its own.
"""

import sys

if sys.implementation.name == "micropython":
    from . import micropython as _port

    def __getattr__(name):  # a second dict of all these names would cost heap
        return getattr(_port, name)

else:
    from .cpython import *  # noqa: F403
