"""The asyncio face, loaded by programs that have an event loop."""

import asyncio

from . import ports


async def run(cache, idle_ms):
    """
    Send what waits in `cache` when it is time, until it is closed.

    `idle_ms` returns the milliseconds until the next call of `cache.poll()` can have something to
    do, or None once the cache is closed.
    """
    offload = getattr(ports, "offload", None)
    while idle_ms() is not None:
        if offload:
            await offload(cache.poll)
        else:
            cache.poll()  # no thread to call it in
        await asyncio.sleep(max(1, min(1000, idle_ms() or 1)) / 1000)
