"""
The only place that knows which runtime this is.

A port gives the core the same few names on every runtime:

    Directory   the files of one log, durable when a call returns, and the sizes that suit them
    Http        post(), one exchange with a deadline
    Clock       ticks_ms() and unix()
    Lock, Group, Worker, offload   threads; the last three are None where there are none
    dumps       JSON text that any parser takes
    BATCH, BUFFER   bytes that suit this machine's network and memory
    const, forget   what keeps the heap small on MicroPython

Each is a plain object, and a caller or a test may pass one of its own: a Directory as
`cache_path`, `http=`, `clock=`.
"""

import sys

if sys.implementation.name == "micropython":
    from . import micropython as _port

    def __getattr__(name):  # a second dict of all these names would cost heap
        return getattr(_port, name)

else:
    from .cpython import *  # noqa: F403
