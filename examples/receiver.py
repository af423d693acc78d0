"""
A receiver that has every record exactly once: docs/protocol.md in code.

    python receiver.py received.db

It remembers one number per stream, the highest that it has, and moves it in the transaction that
stores the records. It answers 200 only after the commit: whatever is lost on the way, the sender
sends the batch again, and what comes twice is recognised. Python 3.9, standard library only.

It knows no password and no TLS. Before strangers can reach it (--host), put it behind a web
server that has both.
"""

import argparse
import contextlib
import json
import re
import sqlite3
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MAX_BODY = 1 << 20  # bytes; records of 512 KiB at most, and the top level attributes
HEADERS = ("Stream", "First", "Last")  # after "Postcache-"
SCHEMA = """
CREATE TABLE IF NOT EXISTS streams (stream TEXT PRIMARY KEY, highest INTEGER, attributes TEXT);
CREATE TABLE IF NOT EXISTS records (stream TEXT, number INTEGER, record TEXT,
                                    PRIMARY KEY (stream, number));
"""


def parse(headers, body, key):
    """Return (stream, first, records, attributes) of a batch; ValueError if it is malformed."""
    stream, first, last = (headers.get("Postcache-" + name, "") for name in HEADERS)
    if not re.fullmatch("[!-~]{1,64}", stream) or not re.fullmatch("[1-9][0-9]{0,17}", first):
        raise ValueError("Postcache-Stream or Postcache-First is missing or bad")
    try:
        attributes = json.loads(body)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    records = attributes.pop(key, None) if isinstance(attributes, dict) else None
    if not records or not isinstance(records, list):
        raise ValueError("no list of records called " + key)
    if last != str(int(first) + len(records) - 1):
        raise ValueError("not as many records as Postcache-First and Postcache-Last say")
    return stream, int(first), records, attributes


def store(path, stream, first, records, attributes):
    """Store what is new of a batch; return how many records that were."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db, db:
        # Locked before it is read: a try that the sender gave up may still be at work here.
        db.execute("BEGIN IMMEDIATE")
        row = db.execute("SELECT highest FROM streams WHERE stream = ?", (stream,)).fetchone()
        known = max(0, row[0] + 1 - first) if row else 0
        rows = [(stream, first + i, json.dumps(r)) for i, r in enumerate(records)][known:]
        if rows:
            db.executemany("INSERT INTO records VALUES (?, ?, ?)", rows)
            state = (stream, rows[-1][1], json.dumps(attributes))
            db.execute("REPLACE INTO streams VALUES (?, ?, ?)", state)
    return len(rows)  # committed


def unpack(body):
    """Return the content of a gzip body; ValueError if it is none, or larger than MAX_BODY."""
    unzip = zlib.decompressobj(31)
    try:
        data = unzip.decompress(body, MAX_BODY)
    except zlib.error as e:
        raise ValueError("no gzip: %s" % e) from None
    if not unzip.eof or unzip.unused_data:
        raise ValueError("no gzip, or more than %d bytes in it" % MAX_BODY)
    return data


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps the connection for the next batch
    timeout = 60  # seconds that a sender may be silent

    def do_POST(self):
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch("[0-9]{1,18}", length) or int(length) > MAX_BODY:
            self.close_connection = True  # its body stays unread
            self.answer(413 if length else 411, "a Content-Length up to %d is needed" % MAX_BODY)
            return
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            return  # the sender has left
        encoding = self.headers.get("Content-Encoding")
        if encoding not in (None, "gzip"):
            self.answer(415, "gzip or nothing")
            return
        try:
            if encoding:
                body = unpack(body)
            batch = parse(self.headers, body, self.server.key)
            n = store(self.server.path, *batch)
        except ValueError as e:
            self.answer(400, str(e))
        except sqlite3.Error as e:
            self.answer(503, str(e))  # the sender keeps the batch and comes again
        else:
            # For confirm="ack": no hotspot says this.
            self.answer(200, "%d new records" % n, self.headers["Postcache-Last"])

    def answer(self, status, text, ack=None):
        data = text.encode("utf-8", "replace") + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        if ack:
            self.send_header("Postcache-Ack", ack)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Stores postcache batches in an SQLite file.")
    parser.add_argument("database", help="made if it is missing")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on [%(default)s]")
    parser.add_argument("--port", type=int, default=8080, help="0 takes a free one [%(default)s]")
    parser.add_argument("--key", default="lines", help="the sender's data_key [%(default)s]")
    options = parser.parse_args(arguments)
    with contextlib.closing(sqlite3.connect(options.database)) as db:
        db.executescript(SCHEMA)
    with ThreadingHTTPServer((options.host, options.port), Handler) as server:
        server.path = options.database
        server.key = options.key
        print("Listening on http://%s:%d/" % server.server_address[:2], flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


if __name__ == "__main__":
    main()
