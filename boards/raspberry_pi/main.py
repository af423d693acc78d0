#!/usr/bin/env python3
"""
Reads a sensor, keeps each reading on disk, and sends them in the background.

    python3 main.py [settings.json]

In a terminal or as a systemd service: docs/boards.md has the commands. Yours to edit: your sensor
goes into read(), the rest is in settings.json.
"""

import json
import logging
import os
import pathlib
import queue
import signal
import socket
import sys
import time

from postcache import POSTCache

DEFAULTS = {
    "device": "",  # sent with each batch; "": this machine's name
    "endpoint": None,  # the URL that readings are POSTed to; null keeps them on disk
    "headers": {},  # sent with each request, {"Authorization": "Bearer ..."}
    "cafile": None,  # for https://, a certificate to trust; null: those of the system
    "cache": None,  # the log's folder; null: the service's own, or "cache" in the current one
    "every": 10,  # seconds from one reading to the next
    "send_every": 30,  # seconds from one round of sending to the next
}
THERMAL = pathlib.Path("/sys/class/thermal/thermal_zone0/temp")
HERE = pathlib.Path(__file__).resolve().parent

log = logging.getLogger("postcache")


def read():
    """Return a reading, a dict. The time is added to it, as "ts"."""
    reading = {"load": round(os.getloadavg()[0], 2)}
    if THERMAL.exists():  # a machine without one still has a load
        reading["celsius"] = int(THERMAL.read_text()) / 1000
    return reading


class Systemd:
    """
    What systemd wants to hear, by its notify protocol; without systemd, silence.

    Attribute: `period`, seconds between two signs of life, infinite when none are wanted.
    """

    def __init__(self):
        self._address = os.environ.get("NOTIFY_SOCKET", "").replace("@", "\0", 1)
        micros = os.environ.get("WATCHDOG_USEC", "")
        self.period = int(micros) / 2e6 if micros.isdigit() and int(micros) else float("inf")

    def tell(self, *lines, patience=0):
        """Send `lines`; where systemd is busy for more than `patience` seconds, give it up."""
        if self._address:
            try:
                with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
                    notify.settimeout(patience)
                    notify.sendto("\n".join(lines).encode(), self._address)
            except OSError:
                pass  # it is busy: the next one will do


def set_up_logging():
    """Log to stderr, for the journal with each line's priority in front of it."""
    handler = logging.StreamHandler()
    form = "%(levelname)s %(message)s"
    where = os.fstat(2)
    if os.environ.get("JOURNAL_STREAM") == "%d:%d" % (where.st_dev, where.st_ino):
        form = "<%(priority)d>%(message)s"
        priorities = {logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, logging.DEBUG: 7}

        def add_priority(record):
            record.priority = priorities.get(record.levelno, 5)
            return True

        handler.addFilter(add_priority)
    handler.setFormatter(logging.Formatter(form))
    log.addHandler(handler)
    log.setLevel(logging.INFO)


def load_settings(argv):
    """Return the settings, with defaults for what is missing or of another type."""
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    path = (
        pathlib.Path(argv[1]) if argv[1:] else pathlib.Path(credentials or HERE, "settings.json")
    )
    config = dict(DEFAULTS)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        for name in found.keys() & DEFAULTS.keys():
            default = DEFAULTS[name]
            value = found[name]
            if default is None:
                fits = value is None or isinstance(value, str)
            elif isinstance(default, int):
                fits = isinstance(value, (int, float)) and value is not True and 0 < value < 1e6
            else:
                fits = isinstance(value, type(default))
            if fits:
                config[name] = value
            else:  # not what it is: it may be a password
                log.error("settings.json: %s is no good; taken: %s", name, default)
    except (OSError, ValueError, AttributeError) as e:
        log.error("settings.json cannot be read (%s); readings are kept", type(e).__name__)
    config["device"] = config["device"] or socket.gethostname()
    folder = os.environ.get("STATE_DIRECTORY", "")
    config["cache"] = config["cache"] or os.path.join(folder, "cache")
    return config


def open_cache(config):
    """Return the POSTCache of these settings; one that stores only if they are no good."""
    try:
        return POSTCache(
            config["endpoint"],
            config["cache"],
            config["send_every"],
            {"device": config["device"]},
            headers=config["headers"],
            cafile=config["cafile"],
            timestamp_key="ts",
            on_event=on_event,
        )
    except (OSError, TypeError, ValueError) as e:
        cache = POSTCache(None, config["cache"], timestamp_key="ts", on_event=on_event)
        log.error("settings.json: %s; readings are kept on disk until that is mended", e)
        return cache


def on_event(kind, detail):
    """Log what POSTCache tells."""
    words = ", ".join("%s: %s" % item for item in detail.items() if item[1] is not None)
    log.log(logging.INFO if kind == "recovered" else logging.WARNING, "%s %s", kind, words)


class Logger:
    """The loop: read, store, say so, wait."""

    def __init__(self, cache, systemd):
        self._cache = cache
        self._systemd = systemd
        self._failure = None
        self._failed = 0

    def step(self):
        """
        Store one reading.

        Returns False when it could not be stored: a disk that is full, gone or read-only is for
        systemd to know; a sensor that fails is not.
        """
        stored = False
        failure = None
        try:
            try:
                reading = read()
            except Exception:
                stored = True  # nothing that it could not store
                raise
            if self._failed and isinstance(reading, dict):
                reading["failed"] = self._failed
            self._cache.add_request(reading)  # on disk when this returns
            stored = True
        except Exception as e:
            self._failed += 1
            failure = "%s: %s" % (type(e).__name__, e)
        if failure != self._failure:  # once, not every ten seconds
            self._failure = failure
            if failure:
                log.error("no reading: %s", failure)
            else:
                log.info("readings again, after %d failures", self._failed)
        return stored

    def run(self, every, stop):
        """Go on until there is something in `stop`, a queue.SimpleQueue."""
        due = time.monotonic()
        well = True
        while True:
            if time.monotonic() >= due:
                due = max(due + every, time.monotonic())
                well = self.step()
            stats = self._cache.stats
            state = stats["error"] or "all is well"
            if stats["blocked"]:
                state += ", and a person must mend that"
            status = "STATUS=%d waiting; %s" % (stats["waiting"], self._failure or state)
            self._systemd.tell(" ".join(status.split()), *(["WATCHDOG=1"] if well else []))
            try:
                stop.get(timeout=max(0, min(due - time.monotonic(), self._systemd.period)))
                return
            except queue.Empty:
                pass


def main(argv):
    set_up_logging()
    stop = queue.SimpleQueue()  # an Event's set() can lock up in a handler
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: stop.put(number))
    systemd = Systemd()
    config = load_settings(argv)
    try:
        cache = open_cache(config)
    except OSError as e:
        log.error("the log cannot be opened: %s", e)
        return 1
    log.info("%s: %d readings wait in %s", config["device"], len(cache), config["cache"])
    systemd.tell("READY=1", patience=5)  # this one has no next one
    Logger(cache, systemd).run(config["every"], stop)
    systemd.tell("STOPPING=1", patience=5)
    cache.close()  # delivers what waits if the server is well
    log.info("stopped; %d readings wait", len(cache))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
