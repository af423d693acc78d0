"""
Uplink: what drives a log, an outbox, a clock and an HTTP port, for every face.

    face --record--> Uplink.add() --payload--> Buffered, Group -> Log
                     Uplink.poll(), flush(), worker, run() -> Outbox <- Log
                                                              Outbox -> Http

A face (`client.POSTCache`, `influx.Influx`) makes records and a `Frame`; the rest is here.
"""

# The parts are set by assemble(), which pyright does not follow.
# pyright: reportAttributeAccessIssue=false, reportUnnecessaryComparison=false

from .log.line import OVERHEAD


class Uplink:
    """
    Stores records and delivers them.

    Args:
        frame: an `envelope.Frame`.
        cache_path: str, or a `ports.Directory` of your own, for this instance alone: anything with
            its methods, sizes and `path`. It is closed with the instance, also when that fails.
        settings: arguments that all faces have, by name; see `client.POSTCache`.

    Attributes: `frame`, `fs`, `storage` (a `log.Log`), `outbox` (None without a URL), `http`,
    `clock`, `timeout`, the parts; `closed`; `buffered`, a `log.buffered.Buffered` or None;
    `sending`, a lock, held during an exchange; `immediate`, True to send inside add(); `loops`,
    the number of tasks in run(); `watchers`, callables, called after each add; `encode`,
    `frame.encode` or what stands for it; `commit` and `hold`, callables that store a list of
    payloads and return the number of the last, the second of them perhaps later; `ages`, a
    `log.ages.Ages` or None. A face must not use these names for anything else.
    """

    outbox = http = worker = buffered = ages = None
    watchers = ()
    closed = False
    loops = 0

    def __init__(self, frame, cache_path, **settings):
        from .assemble import assemble

        assemble(self, frame, cache_path, **settings)

    def add(self, records, kwargs, commit=False):
        """
        Store records; see `POSTCache.add_request` and add_many, which have `commit` True.

        Args:
            records: sequence of what `frame.encode` takes.
            kwargs: dict, given to it.
        """
        self.fs.check()  # first: a forked child must not wait for threads that it does not have
        if self.closed:
            raise ValueError("closed")
        payloads = [self.encode(record, kwargs) for record in records]
        log = self.storage
        if not 0 < log.size_of(payloads) <= log.max_record + OVERHEAD:
            raise ValueError("none, or over %d bytes" % log.max_record)
        seq = failure = None
        try:
            seq = (self.commit if commit else self.hold)(payloads)
        except OSError as e:
            failure = e  # told when what is there has had its turn, which may make room
        if self.closed:
            self._store()  # close() came in between
        for watcher in self.watchers:
            watcher()
        if self.loops:
            pass  # run() sends it: nothing here holds up its event loop
        elif self.immediate:
            self._drain(self.timeout)
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

        Returns True when nothing waits any more. Raises OSError only when `flush_every` has kept
        records in RAM that cannot be stored; they are kept and tried again.
        """
        self.fs.check()
        try:
            self._store()
        except OSError:
            if not self.outbox:
                raise
        self._drain(timeout, self.storage.stored)  # may make room for what is buffered
        self._store()
        return not len(self)

    def poll(self):
        """For programs with a main loop of their own: send one batch, if it is time."""
        if self.idle_ms() == 0:
            self.exchange(self.timeout, False, False)

    def run(self):
        """
        For asyncio programs, a coroutine to run as a task: sends when it is time, until close().

        While it runs add_request() only stores, and no slow server holds up the event loop. What
        still does: flush() and close() of this cache; a name look-up on MicroPython, which has no
        other; and there `post` of a port of your own that has no `apost`. Cancel the task to stop
        early: the batch that is on its way is sent again.
        """
        from .send import aio

        return aio.run(self)

    def close(self, timeout=None):
        """
        Deliver what waits if the server is well, then stop; what is left waits on flash.

        While run() is at work it only stops: cancel that first to have the rest delivered.

        Args:
            timeout: seconds at most; None for the timeout of the constructor.

        Raises OSError, and stays open, only when records that `flush_every` has kept in RAM cannot
        be stored.
        """
        if self.closed or not self.fs.path:  # in a forked child all of this is its parent's
            return
        self._store()
        if timeout is None:
            timeout = self.timeout
        clock = self.clock
        end = clock.ticks_ms() + int(timeout * 1000)
        outbox = self.outbox
        if outbox and not outbox.error and not self.loops:
            self._drain(timeout / 2, self.storage.stored)
        self.closed = True
        try:
            self._store()  # added while the others were on their way
        except BaseException:
            self.closed = False
            raise
        if self.worker:
            self.worker.stop(end - clock.ticks_ms())
        if hasattr(self.http, "close"):
            self.http.close()
        self.storage.close()

    def rejected(self):
        """
        Return what the server refused, record by record, and was set aside: oldest first.

        A list of dicts: number, int; status, int, of the answer; reason, str, the beginning of
        its body; record, the JSON value. Their file is bounded: the oldest go when it is full.
        """
        from .send.dead_letters import listed

        return listed(self.storage)

    def requeue_rejected(self):
        """
        Add all that was set aside again, as new records behind all others.

        Returns how many. Raises ValueError when the cache is closed, and OSError when they could
        not be stored, or an exchange is going on and does not end within the timeout; what is not
        added then is still set aside.
        """
        from .send import dead_letters

        return dead_letters.requeue(self)

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.close()

    def __len__(self):
        """Records waiting. Damage that has not been read yet counts as if it were whole."""
        return len(self.storage) + len(self.buffered or ())

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
        the last try failed, or what is waited for, or None. blocked: True when a person must
        act. next_try_ms: milliseconds until the next try may be made. dropped: records given up,
        too old or the log full, and rejected: set aside, since the stream began. damaged: pieces
        of flash that held no record where one was due. errors: failed calls of the file system
        that cost nothing yet, and of on_event. writes: writes of the journal and the cursor, which
        is what wears flash. See docs/operations.md.
        """
        from .stats import collect

        return collect(self)

    def idle_ms(self):
        """Return the milliseconds until poll() may have something to do; None for never."""
        if self.closed or not self.fs.path:
            return None
        if not self.outbox or self.worker or not len(self.storage):
            return 1000
        return self.outbox.wait_ms()

    def _store(self):
        if self.buffered:
            self.commit(())

    def exchange(self, timeout, hurry=False, *wait):
        """
        Send one batch, within `timeout` seconds; `wait` are what Lock.acquire() takes.

        Returns True to go on; False also when another thread sends.
        """
        if not self.sending.acquire(*wait):
            return False
        try:
            return self.outbox.send(timeout, hurry)
        finally:
            self.sending.release()

    def _drain(self, timeout, goal=0):
        """
        Send until record `goal` is delivered, a try fails, or `timeout` seconds have gone.

        Without a goal, inside add(): until nothing waits; not during a back-off; not while another
        thread sends, which will find this record too; and one batch more only while half of the
        time is left, so that no exchange gets too little of it.
        """
        log = self.storage
        outbox = self.outbox
        clock = self.clock
        end = clock.ticks_ms() + int((timeout or 0) * 1000)
        least = 0
        while outbox and log.acked < (goal or log.stored) and (goal or not outbox.wait_ms()):
            left = self.timeout
            if timeout is not None:
                left = min(left, (end - clock.ticks_ms()) / 1000)
            if left <= least or self.closed:
                return
            if not goal:
                least = left / 2
            if not self.exchange(left, goal > 0, goal > 0, left if goal else -1):
                return
