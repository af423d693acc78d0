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
        max_bytes: int >= 4096, flash that the records may take. None: half of what is free, at
            most 1 GiB (2 MiB on MicroPython).
        http, clock: ports of your own; see `postcache.ports`. A clock without unix() counts as
            never set.
        options: the rest, by name only; they are loaded by programs that give one.
        flush_every: int >= 1, records that are stored together. With n > 1 the newest n - 1 of
            them are in RAM only: a power cut, a crash or an exit without close() loses these.
            flush(), close() and add_many() store them.
        slot_size: int, bytes of a slot of the slot journal; 0 for the append journal. None
            chooses: slots on littlefs (512 bytes on a Pico, else 128), elsewhere append.
        on_full: what happens when `max_bytes` are taken. "drop_oldest": the oldest segment goes.
            "drop_newest": the new record is not stored, and add_request returns 0. "raise":
            OSError (28, "full"). What is dropped is counted.
        max_age: seconds > 0; records that have waited longer are dropped and counted, at most a
            sixteenth of it late. Only time counts in which this instance runs; see `ages`.
        on_event: callable(kind, detail), told what happens; see `events`.
        confirm: what else must be true of a 2xx answer to count. A callable(status, headers,
            start) that returns it; headers has lower-case names, start is the first bytes of the
            body, at most 512. Or "ack": there is a header `Postcache-Ack` with the number that the
            request had in `Postcache-Last`, so that no hotspot's 200 is taken for a delivery.
        feed: callable, called at least once a second during an exchange, such as a watchdog's
            feed; not during a name look-up on MicroPython, which blocks.
        online: callable, asked before each try; while it returns False nothing is looked up or
            sent.
        cafile: str, path of the certificates, PEM or DER, that an https:// server must have one
            from. None: the system's on CPython; MicroPython has none and refuses https:// then.
        verify: False sends to any server that speaks TLS, whoever it is.
        compress: True sends gzip, until a server answers 415, where the firmware can make it: a
            board's stock firmware cannot.
        timestamp_key: str; each record, a dict then, gets the time at which it was added under
            this key: int, seconds since 1970. Taken before the clock was set it is dated later;
            where that cannot be, it has null, and "uptime_ms" and "boot". Until then it takes 40
            bytes more on flash.

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
        http=None,
        clock=None,
        **options,
    ):
        transport: tuple = ()
        slot_size = None
        if options:
            from .options import check

            transport, slot_size = check(**options)
        from .opening import settings

        around = settings(
            headers,
            top_level_attributes,
            data_key,
            (timeout, upload_limit, max_bytes, async_interval),
        )
        self._outbox = self._worker = self._http = self._held = self._ages = None
        self._watchers = ()  # called after each add
        self._loops = 0  # tasks in run()
        self._ours = not http  # a port that asyncio's streams can stand in for
        self._dumps = dumps
        self._timeout = timeout
        self._closed = False
        self._sync = not async_interval
        self._sending = Lock()
        self._clock = clock or Clock()
        if http_endpoint is not None:
            self._http = http or Http(http_endpoint, *transport)
        self._fs = Directory(cache_path)
        try:
            self._log = log = Log(self._fs, max_bytes, slot_size)
            self._append = self._hold = Group(log) if Group else log.append
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
            if options:
                from .options import apply

                apply(self, **options)
        except BaseException:
            self._fs.close()
            raise
        if self._outbox and async_interval and Worker:
            self._worker = Worker(self)

    def add_request(self, body, **json_dumps_kwargs):
        """
        Store one record; durable when this returns.

        Args:
            body: any JSON value. A str is stored as a JSON string.
            json_dumps_kwargs: further arguments of `json.dumps`.

        Returns the record's sequence number, an int >= 1: (stream, number) names it for ever.
        0: it was dropped, with `on_full="drop_newest"`. Raises ValueError when `body` is no JSON,
        too long or the cache is closed, and OSError when it could not be stored. A failure to
        send is not raised: the record waits.
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
        self._fs.check()  # first: a forked child must not wait for threads that it does not have
        if self._closed:
            raise ValueError("closed")
        payloads = [self._dumps(body, kwargs) for body in bodies]
        size = sum([len(payload) + OVERHEAD for payload in payloads])
        if not 0 < size <= self._log.max_record + OVERHEAD:
            raise ValueError("none, or over %d bytes" % self._log.max_record)
        seq = failure = None
        try:
            seq = append(payloads)
        except OSError as e:
            failure = e  # told when what is there has had its turn, which may make room
        if self._closed:
            self._store()  # close() came in between
        for call in self._watchers:
            call()
        if self._loops:
            pass  # run() sends it: nothing here holds up its event loop
        elif self._sync:
            self._drain(self._timeout)
        else:
            self.poll()
        if failure:
            raise failure
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
        try:
            self._store()
        except OSError:
            if not self._outbox:
                raise
            self._drain(timeout, self._log.stored)  # may make room for what is held
            self._store()
        else:
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

        While it runs add_request() only stores, and no slow server holds up the event loop. What
        still does: flush() and close() of this cache; a name look-up on MicroPython, which has no
        other; and there `post` of a port of your own that has no `apost`. Cancel the task to stop
        early: the batch that is on its way is sent again.
        """
        from .aio import run

        return run(self, self._idle_ms)

    def close(self, timeout=None):
        """
        Deliver what waits if the server is well, then stop; what is left waits on flash.

        While run() is at work it only stops: cancel that first to have the rest delivered.

        Args:
            timeout: seconds at most; None for the timeout of the constructor.

        Raises OSError, and stays open, only when records that `flush_every` has held back cannot
        be stored.
        """
        if self._closed or not self._fs.path:  # in a forked child all of this is its parent's
            return
        self._store()
        if timeout is None:
            timeout = self._timeout
        clock = self._clock
        end = clock.ticks_ms() + int(timeout * 1000)
        if self._outbox and not self._outbox.error and not self._loops:
            self._drain(timeout / 2, self._log.stored)
        self._closed = True
        try:
            self._store()  # added while the others were on their way
        except BaseException:
            self._closed = False
            raise
        abort = getattr(self._http, "close", int)
        if self._worker:
            self._worker.stop(end - clock.ticks_ms(), abort)
        abort()
        self._log.close()

    def rejected(self):
        """
        Return what the server refused, record by record, and was set aside: oldest first.

        A list of dicts: number, int; status, int, of the answer; reason, str, the beginning of
        its body; record, the JSON value. Their file is bounded: the oldest go when it is full.
        """
        from .rejects import listed

        return listed(self._log)

    def requeue_rejected(self):
        """
        Add all that was set aside again, as new records behind all others.

        Returns how many. Raises ValueError when the cache is closed, and OSError when they could
        not be stored, or an exchange is going on and does not end within the timeout; what is not
        added then is still set aside.
        """
        from .rejects import requeue

        return requeue(self)

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
        A plain dict of what there is, and what happened since this instance was made.

        stream: str. journal: str, "append" or "slot". added, sent: records. waiting: records;
        bytes: flash that the log's files take; age_ms: how long the oldest has waited, at least.
        retries: tries that failed. status: int, the last answer, None for none. error: str, why
        the last try failed, or what is waited for, or None. blocked: True when a person must mend
        that. next_try_ms: milliseconds until the next try may be made. dropped: records given up,
        too old or the log full, and rejected: set aside, since the stream began. damaged: pieces
        of flash that held no record where one was due. errors: failed calls of the file system
        that cost nothing yet, and of on_event. writes: writes of the journal and the cursor, which
        is what wears flash. See docs/operations.md.
        """
        from .stats import collect

        return collect(self)

    def _idle_ms(self):
        """Milliseconds until poll() may have something to do; None when it never will."""
        if self._closed or not self._fs.path:
            return None
        if not self._outbox or self._worker or not len(self._log):
            return 1000
        return self._outbox.wait_ms()

    def _store(self):
        if self._held:
            self._append(())

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
                if not outbox.send(left, goal > 0):
                    return
            finally:
                self._sending.release()
