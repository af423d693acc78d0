"""A real HTTP server on loopback that misbehaves on command: the one that all tests send to.

The demo and the bench send to it, too. Each request is answered by the next entry of a script,
and an entry can be a plain answer or a failure that real networks produce: a reset, a hang, a
torn answer, a hotspot's login page; in TLS as well. http.server is too polite for that, so this
one speaks HTTP/1.0 and 1.1 over plain sockets, one thread per connection.

    client --POST--> Connection (thread) --take the next Answer--> FakeServer.answers / .default
                         |  read as much of the request as the Answer wants
                         |  Receiver.take()      if the Answer stores and the body is complete
                         |  FakeServer.requests  now wait_for() can see it
                         |  on_request(request)  the hook of the test
                         +--play the Answer--> client

    serving/answer.py      Answer: what may happen to a request, as data
    serving/wire.py        Wire: a socket whose every wait can be ended from outside
    serving/request.py     Request: HTTP/1 read from a Wire, strictly
    serving/connection.py  Connection: request, answer, request, answer ...
    serving/receiver.py    Receiver: checks the protocol, has every record exactly once
    influx.py              InfluxServer: another receiver, that of line protocol

Whole hosts fail as well: down() refuses connections, deaf() leaves them without an answer.

CPython 3.9 or later on a POSIX system, standard library only; it listens on 127.0.0.1 and
nowhere else.

    python host_tests/machines/fake_server.py [--port N] [--status 200]     shows what arrives
"""

import argparse
import collections
import errno
import select
import signal
import socket
import sys
import threading
import time

from serving.answer import BROKEN, Answer
from serving.connection import Connection
from serving.receiver import Receiver

__all__ = ["BROKEN", "Answer", "FakeServer", "Receiver"]


class FakeServer:
    """The scripted server; `with FakeServer() as server:` starts and stops it.

    port: 0 takes a free one. path: what .url ends with; every path is answered alike, but for
        those in .pages.
    record: False keeps no requests and no bodies, and lets the receiver only count.
    receiver: None makes one; False means none; or a Receiver of your own.
    on_request: callable(request) run in the server's thread when a request has been read, stored
        and recorded, before its answer is played.
    tls: None, or an ssl.SSLContext of a server, with its certificate: then it speaks https.
    rcvbuf: SO_RCVBUF in bytes of every connection, so that a client's sends soon block.

    ack: True; False leaves the Postcache-Ack header out of answers to batches that were stored.
    gzip: True; False answers 415 to gzip bodies, as to any other Content-Encoding.
    hello: what a TLS client's first bytes get: None for a handshake, or "hang" (until release(),
        stop() or the client leaves), "reset" (RST) or "close".
    close_notify: True; False ends TLS streams as a cut line or an attacker would, without a word.
    refusals: sentences about TLS handshakes that failed, as when the client did not trust us.
    hellos: how many TLS clients have begun to speak while hello was set.
    answers: the script, a deque of entries; each answers one request.
    default: the entry while there is none in answers. An entry is an Answer or a function:
        function(request) -> Answer, called once the request is read completely.
    pages: {path: Answer} that never use up the script; has /login.
    requests: [Request], in the order in which their reading ended. A client that leaves within a
        head is not listed and uses no entry; one that leaves within a body is and does.
    request_count: how many there were, recorded or not.
    connections: TCP connections accepted so far.
    errors: sentences and tracebacks: requests that were not HTTP, exceptions in hooks.
    """

    def __init__(
        self,
        port=0,
        path="/readings",
        record=True,
        receiver=None,
        on_request=None,
        tls=None,
        rcvbuf=None,
    ):
        self.tls = tls
        self.rcvbuf = rcvbuf
        self.ack = self.gzip = self.close_notify = True
        self.hello = None
        self.hellos = 0
        self.refusals = []
        self.port = port
        self.path = path
        self.record = record
        if receiver is None:
            receiver = Receiver() if record else Receiver(keep=False, parse=False)
        self.receiver = receiver or None
        self.on_request = on_request
        self.default = Answer(200)
        self.pages = {"/login": Answer.captive_portal()}
        self.requests = []
        self.request_count = 0
        self.connections = 0
        self.errors = []
        self.answers = collections.deque()
        self.releases = 0  # how often release() was called
        self._open = set()
        self._changed = threading.Condition(threading.RLock())
        self._life = threading.RLock()
        self._socket = None  # bound; it listens while _acceptor runs, or while deaf
        self._callers = []  # the sockets that fill its queue while deaf
        self._acceptor = None
        self._wake = None

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    @property
    def base(self):
        """http://127.0.0.1:PORT, or https://"""
        return "%s://127.0.0.1:%d" % ("https" if self.tls else "http", self.port)

    @property
    def url(self):
        """http://127.0.0.1:PORT/readings, or https://"""
        return self.base + self.path

    @property
    def open_connections(self):
        """How many connections are open now."""
        with self._changed:
            return len(self._open)

    @property
    def pending(self):
        """How many entries of the script are still unused."""
        return len(self.answers)

    def start(self):
        """Bind and listen; returns self. Again after stop(), it takes the same port."""
        with self._life:
            if self._socket is None:
                self._socket = self._bind()
            self.up()
        return self

    def stop(self, timeout=5):
        """Close every socket and join every thread, in timeout seconds at most.

        A thread that a hook keeps busy longer is left behind (they are daemons) and named in
        errors; its socket is closed all the same.
        """
        with self._life:
            self._stop_accepting()
            if self._socket is not None:
                self._hang_up()
                self._socket = None
        left = self._abort_all(reset=False, timeout=timeout)
        for connection in left:
            self.note("connection %d did not end; its hook blocks" % connection.number)
            connection.close()

    def down(self, timeout=5):
        """Like a server that crashed: connections are refused, open ones reset."""
        with self._life:
            if self._acceptor is None and not self._callers:
                return
            self._stop_accepting()
            self._hang_up()
            # Held, not listened to: connections are refused, nobody else gets the port, and no
            # client can connect to itself by being given this very port (Linux, loopback).
            self._socket = self._bind()
        self._abort_all(reset=True, timeout=timeout)

    def deaf(self):
        """Like a host behind a firewall that drops everything: connecting to it gets no answer.

        Open connections are reset. up() and down() end it.
        """
        with self._life:
            self.start()
            self.down()
            self._socket.listen(0)
            # The queue takes one that is never accepted; the next one finds it full.
            answered = True
            while answered:
                caller = socket.socket()
                self._callers.append(caller)
                caller.setblocking(False)
                caller.connect_ex(("127.0.0.1", self.port))
                ready = select.poll()
                ready.register(caller, select.POLLOUT)
                answered = ready.poll(200)

    def up(self):
        """Listen again, on the same port."""
        with self._life:
            if self._acceptor is not None:
                return
            if self._socket is None:
                raise RuntimeError("start() the server first")
            if self._callers:
                self.down()
            self._socket.listen(128)
            self._wake = socket.socketpair()
            self._acceptor = threading.Thread(
                target=self._accept,
                name="fake-server-accept",
                args=(self._socket, self._wake[1]),
                daemon=True,
            )
            self._acceptor.start()

    def script(self, *answers):
        """Append entries; each answers one request. Answers or function(request) -> Answer."""
        for answer in answers:
            if not (isinstance(answer, Answer) or callable(answer)):
                raise TypeError("script() takes Answers, not %r" % (answer,))
        with self._changed:
            self.answers.extend(answers)

    def clear_script(self):
        """Forget the unused entries; default answers from now on."""
        with self._changed:
            self.answers.clear()

    def release(self):
        """End every hang and every endless answer of the requests recorded so far."""
        with self._changed:
            self.releases += 1
            for connection in self._open:
                connection.wake()

    def wait_until(self, condition, timeout=10):
        """Wait until condition() is true of this server; AssertionError after timeout seconds."""
        with self._changed:
            if not self._changed.wait_for(condition, timeout):
                raise AssertionError("not true after %s s" % timeout)

    def wait_for(self, count, timeout=10):
        """Wait until count requests have been recorded; returns a copy of the list.

        With record=False they are counted and the list is empty.
        timeout: seconds, after which AssertionError tells what was there.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._recorded() >= count, timeout):
                raise AssertionError(
                    "%d requests after %s s, not %d: %r; errors: %r"
                    % (self._recorded(), timeout, count, self.requests[-5:], self.errors)
                )
            return list(self.requests)

    def wait_closed(self, timeout=10):
        """Wait until no connection is open; AssertionError after timeout seconds."""
        with self._changed:
            if not self._changed.wait_for(lambda: not self._open, timeout):
                raise AssertionError("%d connections open after %s s" % (len(self._open), timeout))

    def _recorded(self):
        return len(self.requests) if self.record else self.request_count

    def _bind(self):
        bound = socket.socket()
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if self.rcvbuf:
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.rcvbuf)
            bound.setblocking(False)
            bound.bind(("127.0.0.1", self.port))
        except BaseException:
            bound.close()
            raise
        self.port = bound.getsockname()[1]
        return bound

    def _hang_up(self):
        for each in (*self._callers, self._socket):
            each.close()
        self._callers.clear()

    def _accept(self, listener, wake):
        ready = select.poll()
        ready.register(listener, select.POLLIN)
        ready.register(wake, select.POLLIN)
        pause = select.poll()
        pause.register(wake, select.POLLIN)
        while wake.fileno() not in [fd for fd, _ in ready.poll()]:
            try:
                accepted = listener.accept()[0]
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.ECONNABORTED):
                    self.note("accept: %s" % error)
                    pause.poll(50)  # out of descriptors: do not spin
                continue
            with self._changed:
                self.connections += 1
                self._changed.notify_all()
                connection = accepted
                try:
                    connection = Connection(self, accepted, self.connections)
                    self._open.add(connection)
                    connection.thread.start()
                except (OSError, RuntimeError) as error:  # no descriptor, no thread
                    connection.close()
                    self.note("connection %d: %s" % (self.connections, error))

    def _stop_accepting(self):
        if self._acceptor is None:
            return
        self._wake[0].send(b"x")
        self._acceptor.join()
        for end in self._wake:
            end.close()
        self._acceptor = self._wake = None

    def _abort_all(self, reset, timeout):
        """End all connections and wait for their threads; returns those that did not end.

        When resetting, nobody waits for a thread that runs a hook: the hook may be the caller,
        or wait for the caller. Its connection is reset when the hook returns.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            doomed = list(self._open)
            for connection in doomed:
                connection.abort(reset)

            def waited_for():
                return [
                    each
                    for each in doomed
                    if each in self._open
                    and each.thread is not threading.current_thread()
                    and not (reset and each.in_hook)
                ]

            self._changed.wait_for(lambda: not waited_for(), timeout)
            left = waited_for()
        for connection in doomed:
            # Those that left _open have nothing more to do than to return.
            if (
                connection not in left
                and connection.thread is not threading.current_thread()
                and not connection.in_hook
            ):
                connection.thread.join(max(0, deadline - time.monotonic()))
        return left

    # What a Connection asks and tells

    def take(self, path):
        """The entry for one request: a page, the next of the script, or the default."""
        if path in self.pages:
            return self.pages[path]
        with self._changed:
            return self.answers.popleft() if self.answers else self.default

    def leaves_unread(self):
        """Whether the next entry answers without a look at the request."""
        with self._changed:
            entry = self.answers[0] if self.answers else self.default
            return getattr(entry, "read", None) == "nothing"

    def take_unread(self):
        """The next entry, if it is such a one, else None."""
        with self._changed:
            return self.take(None) if self.leaves_unread() else None

    def greeted(self):
        """A TLS client has begun to speak, and hello says what it gets."""
        with self._changed:
            self.hellos += 1
            self._changed.notify_all()

    def recorded(self, request):
        """A request has been read; returns how often release() was called before."""
        with self._changed:
            self.request_count += 1
            if self.record:
                self.requests.append(request)
            self._changed.notify_all()
            return self.releases

    def closed(self, connection):
        """A connection has ended."""
        with self._changed:
            self._open.discard(connection)
            self._changed.notify_all()

    def note(self, text):
        """Something is wrong that no answer shows."""
        self.errors.append(text)


def _describe(request):
    """One line of text about a request, for the command line."""
    headers = request.headers
    text = "%s %s %s" % (time.strftime("%H:%M:%S"), request.method, request.path)
    if request.receipt not in (None, "plain"):
        text += " stream %s, %s-%s, %s" % (
            headers.get("postcache-stream", "?"),
            headers.get("postcache-first", "?"),
            headers.get("postcache-last", "?"),
            request.receipt,
        )
    if not request.complete:
        text += " (cut short)"
    body = request.body.decode("utf-8", "replace")
    # One line per batch, whatever the body holds, and no control codes for the terminal.
    body = "".join(char if char.isprintable() else " " for char in body[:400])
    return "%s: %s%s -> %s" % (
        text,
        body,
        "..." if len(request.body) > 400 else "",
        request.answer.status,
    )


def _count(options):
    """Serve until the end of stdin: the server whose work must not take the GIL of a bench."""
    size = 0

    def count(request):
        nonlocal size
        size += request.size

    with FakeServer(options.port, record=False, on_request=count) as server:
        server.default = Answer(options.status)
        print(server.url, flush=True)
        for _ in sys.stdin:
            print(server.request_count, size, flush=True)
    return 0


def main(arguments=None):
    """The command line: serve until Ctrl-C and print one line per request. Returns 0."""
    parser = argparse.ArgumentParser(description="Answers every request and shows what arrives.")
    parser.add_argument("--port", type=int, default=8080, help="0 takes a free one [8080]")
    parser.add_argument("--status", type=int, default=200, help="the answer to all [200]")
    parser.add_argument(
        "--counts",
        action="store_true",
        help="look into nothing; answer each line of stdin by the counts of requests and bytes",
    )
    options = parser.parse_args(arguments)
    if options.counts:
        return _count(options)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also when started with &
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    server = FakeServer(
        options.port,
        record=False,
        receiver=Receiver(keep=False),
        on_request=lambda request: print(_describe(request), flush=True),
    )
    server.default = Answer(options.status)
    try:
        server.start()
    except OSError as error:
        print(
            "Port %d cannot be used (%s); try --port 0." % (options.port, error), file=sys.stderr
        )
        return 1
    try:
        print("Listening on %s, Ctrl-C ends." % server.url, flush=True)
        threading.Event().wait()
    except KeyboardInterrupt:
        pass
    finally:
        server.stop()
    receiver = server.receiver
    print(
        "%d requests, %d records, %d duplicate batches, %d gaps"
        % (server.request_count, receiver.count, receiver.duplicates, len(receiver.gaps)),
        flush=True,
    )
    for text in receiver.errors + server.errors:
        print(text, file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
