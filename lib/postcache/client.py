"""
POSTCache: the public face of the outbox.

A program says `add_request(reading)`. When that returns, the reading is on flash; when the link is
there, it is on the server.
"""

from .line import OVERHEAD
from .log import Log
from .outbox import Outbox
from .ports import Clock, Directory, Group, Http, Lock, Worker, dumps


class POSTCache:
    """
    Keeps records on flash until an HTTP server has them.

    Args:
        http_endpoint: str, the URL that batches are POSTed to. None: store only; a later instance
            with an endpoint delivers what is there.
        cache_path: str, the log's own directory; made if missing. A file there is left alone.
        async_interval: seconds between rounds of sending, a number > 0. None: each add_request
            tries to send. With a number CPython sends in a daemon thread; MicroPython sends inside
            add_request, poll() and run(), when it is time.
        top_level_attributes: dict, sent with every batch beside the records.
        upload_limit: int >= 1, records in a batch at most.
        data_key: str, the name of the list of records in a batch.
        check_same_thread: taken for compatibility; any thread may add.
        headers: dict of str, sent with every request.
        timeout: seconds for one HTTP exchange, > 0.
        max_bytes: int >= 4096, flash that the records may take; full, it drops the oldest segment.
            None: half of what is free, at most 1 GiB (2 MiB on MicroPython).
        flush_every: int >= 1, records that are stored together. With n > 1 the newest n - 1 of
            them are in RAM only: a power cut, a crash or an exit without close() loses these.
            flush(), close() and add_many() store them.
        slot_size: int, bytes of a slot of the slot journal; 0 for the append journal. None
            chooses: slots on littlefs (512 bytes on a Pico, else 128), elsewhere append.
        http, clock: ports of your own; see `postcache.ports`.

    Raises ValueError or TypeError for a bad argument, OSError when the directory cannot be used:
    not writable, a file, in use by another instance, or written by a newer version.
    """

    def __init__(
        self,
        http_endpoint,
        cache_path,
        async_interval=None,
        top_level_attributes=None,
        upload_limit=500,
        data_key="lines",
        check_same_thread=True,
        *,
        headers=None,
        timeout=10,
        max_bytes=None,
        flush_every=1,
        slot_size=None,
        http=None,
        clock=None,
    ):
        if not (
            isinstance(data_key, str)
            and timeout > 0
            and upload_limit >= 1
            and (max_bytes is None or max_bytes >= 4096)
            and flush_every >= 1
            and (slot_size or 0) >= 0
            and (async_interval is None or async_interval > 0)
        ):
            raise ValueError("bad async_interval, timeout, limit")
        from .opening import settings

        around = settings(headers, top_level_attributes, data_key)
        self._outbox = self._worker = self._http = self._held = None
        self._timeout = timeout
        self._closed = False
        self._sync = not async_interval
        self._sending = Lock()
        self._clock = clock or Clock()
        if http_endpoint is not None:
            self._http = http or Http(http_endpoint)
        self._fs = Directory(cache_path)
        try:
            self._log = log = Log(self._fs, max_bytes, slot_size)
        except BaseException:
            self._fs.close()
            raise
        self._append = self._hold = Group(log) if Group else log.append
        if flush_every > 1:
            from .held import Held

            held = Held(log, self._append, flush_every)
            self._held = held.payloads
            self._append = held.commit
            self._hold = held.hold
        if self._http:
            self._outbox = Outbox(
                log,
                self._http,
                self._clock,
                http_endpoint,
                around,
                upload_limit,
                int((async_interval or 0) * 1000),
            )
            if async_interval and Worker:
                self._worker = Worker(self._step, self.close)

    def add_request(self, body, **json_dumps_kwargs):
        """
        Store one record; durable when this returns.

        Args:
            body: any JSON value. A str is stored as a JSON string.
            json_dumps_kwargs: further arguments of `json.dumps`.

        Returns the record's sequence number, an int >= 1: (stream, number) names it for ever.
        Raises ValueError when `body` is no JSON, too long or the cache is closed, and OSError
        when it could not be stored. A failure to send is not raised: the record waits.
        """
        return self._add((body,), json_dumps_kwargs, self._hold)

    def add_many(self, bodies, **json_dumps_kwargs):
        """
        Store records together, with one commit; all are durable when this returns.

        Args:
            bodies: list or tuple of JSON values. Their lines, 30 bytes longer than their text each
                at most, must fit into a segment.
            json_dumps_kwargs: further arguments of `json.dumps`.

        Returns the sequence number of the last one; they are consecutive. Raises like add_request;
        a ValueError means that none was stored. A power cut in the middle may leave the first
        of them.
        """
        return self._add(bodies, json_dumps_kwargs, self._append)

    def _add(self, bodies, kwargs, append):
        payloads = [dumps(body, kwargs) for body in bodies]
        self._fs.check()  # first: a forked child must not wait for threads that it does not have
        if self._closed:
            raise ValueError("closed")
        size = sum([len(payload) + OVERHEAD for payload in payloads])
        if not 0 < size <= self._log.max_record + OVERHEAD:
            raise ValueError("none, or over %d bytes" % self._log.max_record)
        seq = append(payloads)
        if self._closed and self._held:
            self._append(())  # close() came in between
        if self._sync:
            self._drain(self._timeout)
        else:
            self.poll()
        return seq

    def flush(self, timeout=None):
        """
        Try to deliver now everything that has been added so far, back-off or not.

        Args:
            timeout: seconds for the whole call; None: until it is delivered or one try fails, each
                within the timeout of the constructor.

        Returns True when nothing waits any more. Raises OSError only when `flush_every` has held
        back records that cannot be stored; they are kept and tried again.
        """
        self._fs.check()
        if self._held:
            self._append(())
        self._drain(timeout, self._log.stored)
        return not len(self)

    def poll(self):
        """For programs with a main loop of their own: send one batch, if it is time."""
        if self._idle_ms() == 0 and self._sending.acquire(False):
            try:
                self._outbox.send(self._timeout)
            finally:
                self._sending.release()

    def run(self):
        """
        For asyncio programs, a coroutine to run as a task: sends when it is time, until close().

        On CPython the event loop goes on while a server is slow; on MicroPython it waits for the
        exchange, `timeout` seconds at most.
        """
        from .aio import run

        return run(self, self._idle_ms)

    def close(self, timeout=None):
        """
        Deliver what waits if the server is well, then stop; what is left waits on flash.

        Args:
            timeout: seconds at most; None for the timeout of the constructor.

        Raises OSError, and stays open, only when records that `flush_every` has held back cannot
        be stored.
        """
        if self._closed or not self._fs.path:  # in a forked child all of this is its parent's
            return
        if self._held:
            self._append(())
        if timeout is None:
            timeout = self._timeout
        clock = self._clock
        end = clock.ticks_ms() + int(timeout * 1000)
        if self._outbox and not self._outbox.error:
            self._drain(timeout / 2, self._log.stored)
        self._closed = True
        if self._held:
            self._append(())  # added while the others were on their way
        abort = getattr(self._http, "close", int)
        if self._worker:
            self._worker.stop(end - clock.ticks_ms(), abort)
        abort()
        self._log.close()

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.close()

    def __len__(self):
        """Records waiting. Damage that has not been read yet counts as if it were whole."""
        return len(self._log) + len(self._held or ())

    def __bool__(self):
        """An empty cache is a cache: `if cache:` asks whether there is one."""
        return True

    @property
    def stats(self):
        """
        A plain dict of what happened since this instance was made.

        added, sent: records. waiting: records. retries: tries that failed.
        status: int, the last answer, None for none. error: str, why the last try failed, or None.
        next_try_ms: milliseconds until the next try may be made. dropped: records given up because
        the log was full, since the stream began. rejected: records that the server refused.
        damaged: pieces of flash that held no record where one was due. errors: failed calls of the
        file system that cost nothing yet. stream: str. journal: str, "append" or "slot".
        """
        from .stats import collect

        return collect(self._log, self._outbox, self._held or ())

    def _idle_ms(self):
        """Milliseconds until poll() may have something to do; None when it never will."""
        if self._closed or not self._fs.path:
            return None
        if not self._outbox or self._worker or not len(self._log):
            return 1000
        return self._outbox.wait_ms()

    def _drain(self, timeout, goal=0):
        """
        Send until record `goal` is delivered, a try fails, or `timeout` seconds have gone.

        Without a goal, inside add_request: until nothing waits; not during a back-off; not while
        another thread sends, which will find this record too; and one batch more only while half
        of the time is left, so that no exchange gets too little of it.
        """
        log = self._log
        outbox = self._outbox
        clock = self._clock
        end = clock.ticks_ms() + int((timeout or 0) * 1000)
        least = 0
        while outbox and log.acked < (goal or log.stored) and (goal or not outbox.wait_ms()):
            left = self._timeout
            if timeout is not None:
                left = min(left, (end - clock.ticks_ms()) / 1000)
            if left <= least or self._closed:
                return
            if not goal:
                least = left / 2
            if not self._sending.acquire(goal > 0, left if goal else -1):
                return
            try:
                if not outbox.send(left):
                    return
            finally:
                self._sending.release()

    def _step(self):
        """The worker's turn: everything that is due. Returns milliseconds until the next one."""
        while not self._closed and not self._outbox.wait_ms():
            with self._sending:
                self._outbox.send(self._timeout)
        return max(1, self._outbox.wait_ms())
