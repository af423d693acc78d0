"""
A logger that forks (CPython): what its child does with the open log must harm nobody.

    forked.py os|multiprocessing URL PATH INTERVAL

Prints what the child's calls came to, one a line, and in the end "parent: N waiting".
"""

import multiprocessing
import os
import sys
import threading
import warnings

from postcache import POSTCache
from postcache.ports.cpython import files

# Python 3.12 and later warn of forks while threads run; that is what we are here for.
warnings.simplefilter("ignore", DeprecationWarning)
# And its copy of the parent's connection, which the child drops unclosed, as it must.
warnings.simplefilter("ignore", ResourceWarning)


def outcome(call, *args):
    try:
        return repr(call(*args))
    except Exception as e:
        return type(e).__name__


def child(cache):
    def tell(name, *args):
        print(name, outcome(getattr(cache, name), *args), flush=True)

    tell("add_request", {"from": "child"})
    tell("flush")
    tell("poll")
    tell("close")


def run(how, cache):
    """Fork; the child uses the log, then ends as programs end, its exit handlers included."""
    if how == "os":
        pid = os.fork()
        if not pid:
            child(cache)
            sys.exit(0)
        status = os.waitpid(pid, 0)[1]
        assert status == 0, status
    else:
        process = multiprocessing.get_context("fork").Process(target=child, args=(cache,))
        process.start()
        process.join()
        assert process.exitcode == 0, process.exitcode


def fork_in_a_commit(how, cache):
    """Fork while another thread holds the log's locks; there is nobody to free them in a child."""
    syncing = threading.Event()
    go_on = threading.Event()
    sync = files._sync

    def slow(fd):
        syncing.set()
        go_on.wait()
        sync(fd)

    files._sync = slow
    thread = threading.Thread(target=cache.add_request, args=({"n": 2},))
    thread.start()
    syncing.wait()
    run(how, cache)
    files._sync = sync
    go_on.set()
    thread.join()


def main(how, url, path, interval):
    cache = POSTCache(url, path, async_interval=float(interval) or None)
    cache.add_request({"n": 1})
    cache.flush()
    if "commit" in how:
        fork_in_a_commit(how.split("-")[0], cache)
    else:
        run(how, cache)
        cache.add_request({"n": 2})
    cache.add_request({"n": 3})
    cache.flush()
    print("parent: %d waiting" % len(cache), flush=True)
    cache.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
