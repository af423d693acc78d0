"""
Keeps points, as standard input tells: a list in JSON on each line, and one line printed for it.

    influx.py URL PATH TOKEN SETTINGS       SETTINGS: JSON, further arguments of Influx

    ["write", measurement, fields, tags, epoch]     prints the number of the point
    ["flush"]                   what waits after it, [waiting, status, error, blocked]
    ["rejected"]                what was set aside
    ["requeue"]                 how many were put back

An exception is printed by the name of its kind.
"""

import json
import sys

from postcache.influx import Influx
from postcache.ports import Clock, Directory, Group, Http


class Ports:
    """What postcache.ports has, but for the worker: only flush() sends."""

    Clock = Clock
    Directory = Directory
    Group = Group
    Http = Http

    class Worker:
        def __init__(self, uplink):
            pass

        def stop(self, ms):
            pass


def main(url, path, token, settings):
    influx = Influx(
        url, path, token or None, async_interval=3600, ports=Ports, **json.loads(settings)
    )
    while True:
        line = sys.stdin.readline()
        if not line:
            break
        command, *args = json.loads(line)
        try:
            if command == "write":
                result = influx.write(*args)
            elif command == "flush":
                influx.flush()
                stats = influx.stats
                result = [stats["waiting"], stats["status"], stats["error"], stats["blocked"]]
            elif command == "rejected":
                result = influx.rejected()
            else:
                result = influx.requeue_rejected()
        except Exception as e:
            result = type(e).__name__
        # One write: a line that the test reads whole was printed whole.
        sys.stdout.write(json.dumps(result) + "\n")
        if hasattr(sys.stdout, "flush"):  # MicroPython's is unbuffered
            sys.stdout.flush()
    influx.close(timeout=0.1)


if __name__ == "__main__":
    main(*sys.argv[1:])
