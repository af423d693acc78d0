"""Threads: group commit, the thread that sends, and blocking calls beside an event loop."""

import atexit
import collections
import threading

Lock = threading.Lock


class Group:
    """
    Group commit: threads that append at the same time share one write and one sync.

    The thread that gets the lock leads: it takes what is queued and stores it for all. The others
    sleep on locks of their own until their records are stored or it is their turn to lead; at one
    lock they would wake up one after the other. Waking is for speed only. A thread that is not
    woken, because Ctrl-C hit the leader, looks for itself after a moment.

    Args:
        log: with append(payloads), which stores a list and returns the number of the last one,
            size_of(payloads) and max_record: a group is not longer than the longest record, or it
            would outgrow a segment.
    """

    def __init__(self, log):
        self._log = log
        self._leading = threading.Lock()
        self._appointed = False  # somebody has been woken to lead
        self._queue = collections.deque()

    def append(self, payloads):
        """Store `payloads`; return the number of the last, or raise what its commit raised."""
        if not (self._queue or self._appointed or self._leading.locked()):
            # One thread alone needs no queue. If another one comes first, this one waits for it.
            try:
                with self._leading:
                    return self._log.append(payloads)
            finally:
                self._pass_on()
        entry = _Entry(payloads)
        self._queue.append(entry)
        if self._leading.locked() or self._appointed:
            while not entry.wake.acquire(timeout=0.1) and self._leading.locked():
                pass  # a slow disk: whoever leads has this one in the group, or in the next
        if entry.result is None:
            with self._leading:
                self._appointed = False
                while entry.result is None:
                    self._commit()
            self._pass_on()
        if isinstance(entry.result, BaseException):
            raise entry.result
        return entry.result

    def _pass_on(self):
        """
        Wake the next leader, one that came while this one led.

        Were it this one again, with its next record, it would lead a group of its own while the
        others wake up.
        """
        following = list(self._queue)[:1]
        self._appointed = bool(following)
        self._wake(following)

    def _commit(self):
        if not self._queue:
            raise OSError(4, "interrupted")  # the thread that took this one's record from it
        group = []
        failure = OSError(4, "interrupted")
        try:
            size = 0
            while self._queue:
                size += self._log.size_of(self._queue[0].payloads)
                if group and size > self._log.max_record:
                    break
                group.append(self._queue.popleft())
            last = self._log.append([payload for entry in group for payload in entry.payloads])
            for entry in reversed(group):
                entry.result = last
                last -= len(entry.payloads)
        except Exception as e:
            failure = e
        finally:
            for entry in group:
                if entry.result is None:
                    entry.result = failure
            self._wake(group)

    @staticmethod
    def _wake(entries):
        for entry in entries:
            try:
                entry.wake.release()
            except RuntimeError:
                pass  # awake already


class _Entry:
    """Payloads on their way through a Group, together."""

    __slots__ = ("payloads", "result", "wake")

    def __init__(self, payloads):
        self.payloads = payloads
        self.result = None  # its number, or the exception of its commit
        self.wake = threading.Lock()  # held until it is stored, or has to lead
        self.wake.acquire()


class Worker:
    """
    A daemon thread that sends what is due.

    Args:
        uplink: with `closed`, `timeout`, `http`, exchange(timeout), outbox.wait_ms(), and close(),
            which is called at the interpreter's exit, while threads still run.
    """

    def __init__(self, uplink):
        self._uplink = uplink
        self._at_exit = at_exit = uplink.close
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="postcache", daemon=True)
        self._thread.start()  # may fail: then nothing must be called at exit
        atexit.register(at_exit)

    def _run(self):
        uplink = self._uplink
        wait_ms = uplink.outbox.wait_ms
        while True:
            while not uplink.closed and not wait_ms():
                uplink.exchange(uplink.timeout)
            if self._stop.wait(max(1, wait_ms()) / 1000):
                return

    def stop(self, ms):
        """
        Ask the thread to end and wait for it, `ms` milliseconds at most.

        When it takes longer than half of that an exchange hangs: its port is closed.
        """
        self._stop.set()
        atexit.unregister(self._at_exit)
        if self._thread is not threading.current_thread():
            self._thread.join(max(0, ms) / 2000)
            if self._thread.is_alive():
                if hasattr(self._uplink.http, "close"):
                    self._uplink.http.close()
                self._thread.join(max(0, ms) / 2000)


async def offload(call):
    """Await a blocking call without holding up the event loop."""
    import asyncio  # heavy, and most loggers have no event loop

    await asyncio.get_running_loop().run_in_executor(None, call)
