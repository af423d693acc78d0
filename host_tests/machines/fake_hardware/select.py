"""`select` in virtual time. Sockets are real."""

import os

import uselect
import world
from uselect import POLLERR, POLLHUP, POLLIN, POLLOUT  # noqa: F401

# To wait in vain for a second takes this many ms; a server on a busy machine needs some of them.
PATIENCE = int(os.getenv("FAKE_PATIENCE") or 200)


class poll:  # noqa: N801 - its name
    def __init__(self):
        self._poll = uselect.poll()
        self._busy = []

    def register(self, stream, *args):
        if stream not in self._busy:
            self._busy.append(stream)
        self._poll.register(stream, *args)

    def unregister(self, stream):
        if stream in self._busy:
            self._busy.remove(stream)
        self._poll.unregister(stream)

    def modify(self, *args):
        self._poll.modify(*args)

    def poll(self, ms=-1):
        if not self._busy:
            world.spend(ms)
            return []
        found = self._poll.poll(ms * PATIENCE // 1000 + 1)
        world.spend(1 if found else ms)
        return found

    def ipoll(self, ms=-1, flags=0):
        return iter(self.poll(ms))
