"""
The server in a process of its own, so that its work does not take the GIL of what is measured.

    python bench/server.py      prints its URL; each line on stdin is answered with
                                "requests bytes", the end of stdin ends it
"""

import subprocess
import sys

import measure  # noqa: F401, for its search path


class Server:
    """
    The process, as the benchmark sees it: `url`, and counters of what has arrived.

    It reads every request completely, looks into none, keeps nothing and answers 200.
    """

    def __init__(self):
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            universal_newlines=True,
            bufsize=1,
        )
        self.url = self._process.stdout.readline().strip()
        if not self.url:
            raise OSError("the server did not start")

    def counters(self):
        """Return (requests, bytes of their bodies) since it was started."""
        self._process.stdin.write("?\n")
        requests, size = self._process.stdout.readline().split()
        return int(requests), int(size)

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


def main():
    """Serve until the end of stdin."""
    from fake_server import FakeServer

    size = 0

    def count(request):
        nonlocal size
        size += request.size

    with FakeServer(record=False, on_request=count) as server:
        print(server.url, flush=True)
        for _ in sys.stdin:
            print(server.request_count, size, flush=True)


if __name__ == "__main__":
    main()
