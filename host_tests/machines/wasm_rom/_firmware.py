"""
What a board's firmware has and MicroPython's WebAssembly port lacks; imported at power-up.

The port's asyncio has no run(): JavaScript's event loop is its own. This run() blocks, as a
board's does.
"""

import asyncio
import asyncio.core as core
import os
import random
import time


def _urandom(n):
    return bytes([random.getrandbits(8) for _ in range(n)])


def _run(coro):
    ended = []
    task = core.create_task(coro)
    task.state = lambda _, e: ended.append(e)  # as if somebody waited for it
    while not ended:
        first = core._task_queue.peek()
        if first:
            time.sleep_ms(max(0, time.ticks_diff(first.ph_key, time.ticks_ms())))
        elif not ended:
            raise RuntimeError("all tasks wait for ever")
        core._run_iter()
    if isinstance(ended[0], StopIteration):
        return ended[0].value
    raise ended[0]


os.urandom = _urandom
core._schedule_run_iter = lambda ms: None  # no timer of JavaScript's
core.new_event_loop()
asyncio.run = core.run = _run
