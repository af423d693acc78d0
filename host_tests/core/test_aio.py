"""run() with HTTP ports of the test's own: every moment of an exchange, on every file system."""

import asyncio

from support import Clock, Http, folder

from postcache import POSTCache


class Gate(Http):
    """Answers when it is let: `gate` is an Event; `begun` and `ended` count exchanges."""

    def __init__(self, *answers, between=None):
        super().__init__(*answers)
        self.gate = asyncio.Event()
        self.between = between
        self.begun = self.ended = 0

    async def apost(self, url, headers, chunks, timeout):
        self.begun += 1
        try:
            pieces = []
            for chunk in chunks:
                pieces.append(chunk)
                if self.between:
                    await self.between()
            await self.gate.wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0.005)  # run() waits for a port that cleans up
            self.ended += 1
            raise
        self.ended += 1
        return self.post(url, headers, pieces, timeout)


def make(http, path=None, **kwargs):
    clock = Clock()
    kwargs.setdefault("timeout", 60)
    return POSTCache("http://x/", path or folder(), http=http, clock=clock, **kwargs), clock


def fill(path, n, text=""):
    with POSTCache(None, path) as cache:
        for i in range(n):
            cache.add_request([i, text])


async def until(condition):
    for _ in range(20000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("never")


async def cancelled(task):
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return True
    return False


def test_a_port_with_apost_is_awaited():
    async def main():
        http = Gate()
        path = folder()
        fill(path, 3)
        cache, _ = make(http, path)
        task = asyncio.create_task(cache.run())
        await until(lambda: http.begun)
        assert len(cache) == 3 and not http.posts
        http.gate.set()
        await until(lambda: not len(cache))
        cache.close()
        await task
        assert http.lines() == [[i, ""] for i in range(3)]
        assert http.timeouts == [60]

    asyncio.run(main())


def test_a_port_without_apost_is_called():
    async def main():
        http = Http(500)
        path = folder()
        fill(path, 3)
        cache, clock = make(http, path)
        task = asyncio.create_task(cache.run())
        await until(lambda: cache.stats["retries"])

        def delivered():
            # More than once: the thread that calls the port may not have set the pause yet.
            clock.now += 10**6
            return not len(cache)

        await until(delivered)
        cache.close()
        await task
        assert http.lines() == [[i, ""] for i in range(3)]

    asyncio.run(main())


def test_without_an_endpoint_it_waits_for_close():
    async def main():
        cache = POSTCache(None, folder())
        task = asyncio.create_task(cache.run())
        await asyncio.sleep(0.01)
        assert not task.done()
        cache.close()
        await task

    asyncio.run(main())


def test_while_it_runs_adding_only_stores():
    async def main():
        http = Gate()
        cache, _ = make(http)
        task = asyncio.create_task(cache.run())
        await asyncio.sleep(0)
        cache.add_request([0, ""])
        assert not http.posts and len(cache) == 1
        http.gate.set()
        await until(lambda: not len(cache))
        assert await cancelled(task)
        cache.add_request([1, ""])  # nobody runs: as ever
        assert not len(cache)
        assert http.lines() == [[0, ""], [1, ""]]
        cache.close()

    asyncio.run(main())


def test_a_cancellation_is_never_lost_and_loses_nothing():
    """In each round of the event loop, from before the exchange to behind it."""

    async def main(rounds, before):
        http = Gate()
        path = folder()
        fill(path, 3)
        cache, _ = make(http, path)
        task = asyncio.create_task(cache.run())
        if before:  # the answer comes just before the cancellation, or with it
            await until(lambda: http.begun)
            http.gate.set()
        for _ in range(rounds):
            await asyncio.sleep(0)
        assert await cancelled(task)
        assert http.begun == http.ended
        assert cache.flush()
        assert http.lines() == [[i, ""] for i in range(3)]
        assert len(http.taken) == 1, "an answer was there, and was not noted"
        cache.close()

    for rounds in range(8):
        asyncio.run(main(rounds, False))
        asyncio.run(main(rounds, True))


def test_the_deadline_ends_an_exchange_but_not_run():
    async def main():
        http = Gate()
        path = folder()
        fill(path, 3)
        cache, clock = make(http, path, timeout=0.01)
        task = asyncio.create_task(cache.run())
        await until(lambda: cache.stats["retries"])
        assert http.begun == http.ended == 1
        assert cache.stats["error"].split()[1] == "110"
        assert len(cache) == 3
        http.gate.set()
        clock.now += 10**8
        await until(lambda: not len(cache))
        assert not task.done()
        assert http.begun == 2
        assert http.lines() == [[i, ""] for i in range(3)]
        assert await cancelled(task)
        cache.close()

    asyncio.run(main())


def test_whatever_a_port_raises_is_a_failed_try():
    class Broken(Http):
        async def apost(self, *args):
            if self.answers:
                raise self.answers.pop()
            return self.post(*args)

    async def main():
        http = Broken(ValueError("x"), OSError(5), MemoryError(), KeyError("http://secret"))
        path = folder()
        fill(path, 3)
        cache, clock = make(http, path)
        task = asyncio.create_task(cache.run())
        errors = []
        for n in range(1, 5):
            await until(lambda: cache.stats["retries"] == n)  # noqa: B023
            errors.append(cache.stats["error"].split()[0])
            clock.now += 10**8
        await until(lambda: not len(cache))
        cache.close()
        await task
        assert errors[0] == "KeyError" and errors[1] == "MemoryError" and errors[3] == "ValueError"
        assert http.lines() == [[i, ""] for i in range(3)]

    asyncio.run(main())


def test_adding_between_the_pieces_of_a_body():
    """Slots are written out, segments sealed and begun, while a batch is being read."""

    async def main(**kwargs):
        n = 20

        async def between():
            nonlocal n
            if n < 200:
                for _ in range(7):
                    cache.add_request([n, "x" * 90])
                    n += 1
            await asyncio.sleep(0)

        http = Gate(between=between)
        http.gate.set()
        path = folder()
        fill(path, 20, "x" * 90)
        cache, _ = make(http, path, **kwargs)
        task = asyncio.create_task(cache.run())
        await until(lambda: n >= 200 and not len(cache))
        cache.close()
        await task
        assert n > 200
        assert http.lines() == [[i, "x" * 90] for i in range(n)]
        assert len(http.taken) == len(http.posts)

    asyncio.run(main())
    asyncio.run(main(slot_size=128))
    asyncio.run(main(upload_limit=3))


def test_offline_is_asked_again_in_a_second_and_not_at_once():
    asked = []

    def online():
        asked.append(1)
        return len(asked) > 1

    async def main():
        http = Gate()
        http.gate.set()
        path = folder()
        fill(path, 3)
        cache, clock = make(http, path, online=online)
        task = asyncio.create_task(cache.run())
        await until(lambda: asked)
        for _ in range(100):
            await asyncio.sleep(0.0001)
        assert len(asked) == 1 and not http.begun
        assert await cancelled(task)
        clock.now += 1000
        task = asyncio.create_task(cache.run())
        await until(lambda: not len(cache))
        assert await cancelled(task)
        cache.close()
        assert len(asked) == 2 and len(http.taken) == 1

    asyncio.run(main())


def test_after_close_an_answer_is_not_noted():
    # Another instance may own the log by then, and have moved its cursor.
    async def main():
        http = Gate()
        path = folder()
        fill(path, 3)
        cache, _ = make(http, path)
        task = asyncio.create_task(cache.run())
        await until(lambda: http.begun)
        cache.close(0)
        other, _ = make(http, path)
        http.gate.set()
        await task
        assert len(http.taken) == 1
        assert cache.stats["sent"] == 0 and len(other) == 3
        assert other.flush()
        assert http.lines() == [[i, ""] for i in range(3)]
        assert http.taken[0] == http.taken[1]
        other.close()

    asyncio.run(main())
