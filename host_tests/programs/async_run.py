"""
An asyncio program that does what it is told over a connection: a JSON list a line each way.

    async_run.py URL PATH TIMEOUT PORT [CAFILE]

While anything blocks the event loop it answers nothing, so an answer proves that nothing does.
"""

import asyncio
import gc
import json
import socket
import sys

from postcache import POSTCache
from postcache.ports import Clock

url, path, timeout, port, *cafile = sys.argv[1:]


class Jumping:
    """A clock that can be put forward, so that nobody has to sit out a back-off."""

    def __init__(self):
        self.clock = Clock()
        self.ahead = 0

    def ticks_ms(self):
        return self.clock.ticks_ms() + self.ahead


class Program:
    def __init__(self):
        self.clock = Jumping()
        self.tasks = []
        self.outcomes = []
        self.open()

    def open(self):
        self.cache = cache = POSTCache(
            url,
            path,
            timeout=float(timeout),
            top_level_attributes={"device": "é"},
            cafile=cafile[0] if cafile else None,
            clock=self.clock,
        )
        outbox = cache.outbox
        finish = outbox.finish

        def noted(answer):
            done = finish(answer)
            self.outcomes.append([done, len(cache), outbox.status, outbox.error])
            return done

        outbox.finish = noted

    async def start(self):
        self.tasks.append(asyncio.create_task(self.cache.run()))

    async def cancel(self):
        for task in self.tasks:
            task.cancel()
        return await self.join()

    async def join(self):
        ends = []
        while self.tasks:
            try:
                ends.append(await self.tasks.pop(0))
            except asyncio.CancelledError:
                ends.append("cancelled")
        return ends

    async def outcome(self, i):
        while len(self.outcomes) <= i:
            await asyncio.sleep(0.001)
        return self.outcomes[i]

    async def empty(self):
        while len(self.cache):
            await asyncio.sleep(0.001)

    async def jump(self):
        self.clock.ahead += 10**8

    async def add(self, first, end, size):
        for n in range(first, end):
            self.cache.add_request({"n": n, "x": "x" * size} if size else {"n": n})

    async def state(self):
        free = self.cache.sending.acquire(False)
        if free:
            self.cache.sending.release()
        return [len(self.cache), len(self.outcomes), free]

    async def flush(self, seconds):
        return self.cache.flush(seconds)

    async def close(self, seconds):
        return self.cache.close(seconds)

    async def reopen(self):
        self.open()

    async def narrow(self):
        """From now on a connection takes only a few KB ahead of its server."""
        if hasattr(socket.socket, "sendmsg"):
            init = socket.socket.__init__

            def narrow(self, *args, **kwargs):
                init(self, *args, **kwargs)
                self.setsockopt(1, 7, 4096)  # SOL_SOCKET, SO_SNDBUF

            socket.socket.__init__ = narrow
        else:
            import postcache.ports.micropython.streams as streams

            class Narrow:
                getaddrinfo = socket.getaddrinfo
                SOCK_STREAM = socket.SOCK_STREAM

                def socket(self, *args):
                    made = socket.socket(*args)
                    made.setsockopt(1, 7, 1)  # the least that there is
                    return made

            streams.socket = Narrow()


async def main():
    program = Program()
    reader, writer = await asyncio.open_connection("127.0.0.1", int(port))
    while True:
        line = await reader.readline()
        if not line:
            break
        name, *args = json.loads(line)
        result = await getattr(program, name)(*args)
        writer.write(json.dumps(result).encode() + b"\n")
        await writer.drain()
    await program.cancel()
    program.cache.close(0.1)
    writer.close()
    await writer.wait_closed()


asyncio.run(main())
gc.collect()
