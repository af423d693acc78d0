"""
The tests' server in a process of its own, so that its work does not take the GIL of what is
measured.
"""

import pathlib
import subprocess
import sys

PROGRAM = pathlib.Path(__file__).parents[1] / "host_tests" / "machines" / "fake_server.py"


class Server:
    """
    The process, as the benchmark sees it: `url`, and counters of what has arrived.

    It reads every request completely, looks into none, keeps nothing and answers 200.
    """

    def __init__(self):
        self._process = subprocess.Popen(
            [sys.executable, str(PROGRAM), "--port", "0", "--counts"],
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
