"""
asyncio: `Uplink.run()`, loaded by programs that have an event loop.

An exchange is a task of its own, on the runtime's own streams, and run() waits until that one or
the watch, which looks at the deadline and at close(), says that it is over. Nobody but the program
ever cancels run(), so that no cancellation can be taken for a deadline, or the other way round.

    run() --begin()--> batch --> talk: streams.apost() --answer--> over --> run() --finish()-->
                                 watch: timeout, close() --------> over
"""

import asyncio

from ..ports import offload


async def run(uplink):
    """
    Send what waits in an `uplink.Uplink` when it is time, until it is closed.

    An HTTP port is awaited when it has `apost(url, headers, chunks, timeout)`, a coroutine
    function with what its post() takes and returns. Without one its post() is called: in a thread
    where there are threads, else it holds up the event loop. So is, on CPython, the post() of a
    class that derives from one with `apost`, and has no `apost` of its own.
    """
    idle_ms = uplink.idle_ms
    uplink.loops += 1
    try:
        while idle_ms() is not None:
            pause = 0
            if idle_ms() == 0:
                if not _awaited(uplink.http):
                    if offload:  # pyright: ignore[reportUnnecessaryComparison] - None on a board
                        await offload(uplink.poll)
                    else:
                        uplink.poll()  # no thread to call it in
                elif uplink.sending.acquire(False):
                    try:
                        await _exchange(uplink)
                    finally:
                        uplink.sending.release()
                else:
                    pause = 100  # another run(), or a flush() in a thread: it sends this, too
            await asyncio.sleep(max(1, pause, min(1000, idle_ms() or 0)) / 1000)
    finally:
        uplink.loops -= 1


def _awaited(http):
    """Return True if the port's apost() is to be awaited, False if its post() is to be called."""
    for kind in getattr(type(http), "__mro__", ()):  # MicroPython has none
        names = vars(kind)
        if "post" in names or "apost" in names:
            return "apost" in names
    return hasattr(http, "apost")


async def _exchange(uplink):
    outbox = uplink.outbox
    http = uplink.http
    idle_ms = uplink.idle_ms
    answers = []  # the first one counts
    over = asyncio.Event()

    async def talk():
        try:
            answers.append(await http.apost(url, headers, body, uplink.timeout))
        except Exception as e:  # a bug in somebody's port, too, must not end the program that logs
            answers.append(e)
        over.set()

    async def watch():
        # By the clock, since a busy loop sleeps longer than it says; and by sleeps, which end also
        # if a clock of somebody's own does not.
        clock = uplink.clock
        left = uplink.timeout * 1000
        end = clock.ticks_ms() + left
        feed = getattr(http, "feed", None)
        try:
            while idle_ms() is not None:
                if feed:
                    feed()
                left = min(left, end - clock.ticks_ms())
                if left <= 0:
                    break
                await asyncio.sleep(min(left, 900) / 1000)
                left -= 900
        except Exception as e:  # of the program's feed
            answers.append(e)
        over.set()

    try:
        job = outbox.begin()
    except Exception as e:
        outbox.finish(e)
        return
    if not job:
        return
    url, headers, body = job
    talker = asyncio.create_task(talk())
    watcher = asyncio.create_task(watch())
    try:
        await over.wait()
        answers.append(OSError(110))
    finally:
        watcher.cancel()
        talker.cancel()
        try:
            # Not awaited: who is cancelled while awaiting a task cannot tell whose end that was.
            while not talker.done():
                await asyncio.sleep(0.01)
        finally:
            try:
                body.close()
            except ValueError:
                pass  # a thread of somebody's apost() is at it, and finds it closed later
            # An answer counts, also when run() was cancelled in the same moment. But once closed,
            # the log may have another owner already; then this batch is sent again.
            if answers and idle_ms() is not None:
                outbox.finish(answers[0])
