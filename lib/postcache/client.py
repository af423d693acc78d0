"""
POSTCache: records as JSON, POSTed in batches to one URL.

A program says `add_request(reading)`. When that returns, the reading is on flash; when the link is
there, it is on the server.
"""

from .uplink import Uplink


class POSTCache(Uplink):
    """
    Keeps records on flash until an HTTP server has them.

    Args:
        http_endpoint: str, the URL that batches are POSTed to. None: store only; a later instance
            with an endpoint delivers what is there.
        cache_path: str, the log's own directory; made if missing. A file there is left alone. Or
            a `ports.Directory` of your own.
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
        ports: all of them, for tests: what stands for the module `postcache.ports`, anything with
            its Clock, Directory, Group, Http and Worker.

    Options, by name only, and loaded by programs that give one:
        flush_every: int >= 1, records that are stored together. With n > 1 the newest n - 1 of
            them are in RAM only: a power cut, a crash or an exit without close() loses these.
            flush(), close() and add_many() store them.
        slot_size: int, bytes of a slot of the slot journal; 0 for the append journal. None
            chooses: slots on littlefs (512 bytes on a Pico, else 128), elsewhere append.
        on_full: what happens when `max_bytes` are taken. "drop_oldest": the oldest segment goes.
            "drop_newest": the new record is not stored, and add_request returns 0. "raise":
            OSError (28, "full"). What is dropped is counted.
        max_age: seconds > 0; records that have waited longer are dropped and counted, at most a
            sixteenth of it late. Only time counts in which this instance runs; see `log.ages`.
        on_event: callable(kind, detail), told what happens; see `send.events`.
        confirm: what else makes a 2xx answer count. A callable(status, headers, start) that
            returns True if it does; headers has lower-case names, start is the first bytes of the
            body, at most 512. Or "ack": the answer must have a header `Postcache-Ack` with the
            number that the request had in `Postcache-Last`, so that no hotspot's 200 counts.
        feed: callable, called at least once a second during an exchange, such as a watchdog's
            feed; not during a name look-up on MicroPython, which blocks.
        online: callable, asked before each try; while it returns False nothing is looked up or
            sent.
        cafile: str, path of the certificates, PEM or DER, that https:// trusts. None: the system's
            on CPython; MicroPython has none, and refuses https:// then.
        verify: False sends to any server that speaks TLS, whoever it is.
        compress: True sends gzip, until a server answers 415, where the firmware can make it: a
            board's stock firmware cannot.
        timestamp_key: str; each record, a dict then, gets the time at which it was added under
            this key: int, seconds since 1970, or milliseconds if the key ends in "_ms". Taken
            before the clock was set it is dated later; where that cannot be, it has null, and
            "uptime_ms" and "boot". Until then it takes 40 bytes more on flash.

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
        **settings,
    ):
        from .checks import json_frame

        super().__init__(
            json_frame(http_endpoint, headers, data_key, top_level_attributes),
            cache_path,
            async_interval=async_interval,
            upload_limit=upload_limit,
            **settings,
        )

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
        return self.add((body,), json_dumps_kwargs)

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
        return self.add(bodies, json_dumps_kwargs, True)
