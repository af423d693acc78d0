"""
One deadline for a whole exchange.

It is kept by setting the socket's timeout to what is left before every call that can wait;
http.client alone would grant the full timeout to every single byte.
"""

import socket
import time


class Deadline:
    """The one deadline of an exchange; waits for it in slices when somebody is to be fed."""

    def __init__(self, timeout, feed):
        self._end = time.monotonic() + timeout
        self._feed = feed

    def left(self):
        """Return the seconds that the next call may wait; raise when there are none left."""
        if self._feed:
            self._feed()
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError(110, "no whole answer within the timeout")
        return min(left, 0.9) if self._feed else left

    def call(self, sock, function, *args):
        """Return function(*args), which waits for `sock`."""
        while True:
            sock.settimeout(self.left())
            try:
                return function(*args)
            except socket.timeout as e:
                if e.errno:  # not of settimeout, but of TCP
                    raise
