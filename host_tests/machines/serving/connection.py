"""One connection of the server: read a request, take the next answer, play it."""

import threading
import traceback

from serving.answer import Answer
from serving.request import BadRequest, Request, read_body, read_head
from serving.wire import Gone, Wire


class Connection:
    """One TCP connection and its thread; everything public may be used from any thread.

    server: the FakeServer, which says what to play and is told what happened.
    number: of the connection, from 1.
    in_hook: whether the thread is in a function of the test.
    """

    def __init__(self, server, accepted, number):
        self.server = server
        self.number = number
        self.in_hook = False
        self._wire = Wire(accepted)
        self._reset = False  # end with RST
        self._half_read = None  # the last request, if bytes of it may still come
        self._mark = 0  # the server's count of releases when the request came
        self.thread = threading.Thread(
            target=self._run, name="fake-server-%d" % number, daemon=True
        )

    def abort(self, reset):
        """End this connection, with RST or in order."""
        self._reset = self._reset or reset
        self._wire.abort()

    def wake(self):
        """Let the thread see whether it has been released."""
        self._wire.wake()

    def close(self):
        """Close the socket; once is enough, twice does no harm."""
        self._wire.close(self._reset)
        self.server.closed(self)  # last: who waits for this finds the socket closed

    # One request after the other

    def _run(self):
        try:
            if not self.server.tls or self._handshake():
                while self._serve():
                    pass
                if self.server.close_notify and not self._reset:
                    self._wire.say_goodbye()
            if self._half_read and not self._reset:
                # RST for unread bytes would overtake a polite end.
                self._half_read.unread = self._wire.drain()
        except (Gone, OSError):
            pass  # the client left or reset, or stop() and down(): nothing to report
        except Exception:
            self.server.note(traceback.format_exc())
        self.close()

    def _handshake(self):
        """Begin TLS; False if no connection came of it."""
        hello = self.server.hello
        if not hello:
            try:
                self._wire.handshake(self.server.tls)
            except OSError as error:
                self.server.refusals.append("connection %d: %s" % (self.number, error))
                return False
            return True
        self._mark = self.server.releases
        self._wire.wait_byte()
        self.server.greeted()
        self._reset = hello == "reset"
        if hello == "hang":
            self._hang()
        return False

    def _serve(self):
        """Read and answer one request; True if another may follow."""
        request = Request(connection=self.number)
        self._half_read = None
        try:
            entry = self._entry_for_unread()
            if entry is None:
                if not read_head(self._wire, request):
                    return False
                entry = self.server.take(request.path.partition("?")[0])
            gone = not self._read_as_far_as(entry, request)
            request.answer = self._answer_of(entry, request)
            self._half_read = None if request.complete else request
            self._record(request)
            return not gone and self._play(request, request.answer)
        except BadRequest as problem:
            status, text = problem.args
            self.server.note("bad request: " + text)
            self._half_read = request
            request.answer = Answer(status, body=text, close=True)
            self.server.recorded(request)
            self._wire.send(request.answer.encode(request, self.server.base)[0])
            return False

    def _entry_for_unread(self):
        """Wait for the first byte; the script's entry if that leaves the request unread, or None.

        An entry is used by a request, not by a connection: a client that connects and leaves, or
        keeps an idle connection, uses none.
        """
        self._wire.wait_byte()
        if not self.server.leaves_unread() or not self._wire.peek():
            return None  # or closed, as the reader will find
        return self.server.take_unread()

    def _read_as_far_as(self, entry, request):
        """Read as much of the body as the entry wants; False if the client left before."""
        reach = entry.read if isinstance(entry, Answer) else "all"
        if reach in ("head", "nothing"):
            return True
        receiver = self.server.receiver
        keep = self.server.record or (receiver is not None and receiver.parse)
        return read_body(self._wire, request, None if reach == "all" else reach, keep)

    def _answer_of(self, entry, request):
        if request.coding not in ("", "gzip" if self.server.gzip else ""):
            return Answer(415, name="415 by the server")
        if isinstance(entry, Answer):
            return entry
        answer = self._call(entry, request)
        if not isinstance(answer, Answer):
            raise TypeError("%r returned %r, not an Answer" % (entry, answer))
        return answer

    def _record(self, request):
        """Let the receiver, the server and the test know of a request."""
        answer = request.answer
        if answer.rcvbuf:
            self._wire.narrow(answer.rcvbuf)
        self._store(request, answer)
        self._mark = self.server.recorded(request)
        for hook in (self.server.on_request, answer.on_request):
            if hook is not None:
                self._call(hook, request)

    def _store(self, request, answer):
        receiver = self.server.receiver
        if receiver is not None and request.complete and request.receipt in (None, "seen"):
            request.receipt = receiver.take(
                request.headers, request.body, answer.store, request.method
            )

    def _call(self, function, request):
        """Run a function of the test, marked as such for down().

        Gone if the connection ended before, or if the function raised; then errors tells, also
        of an OSError, which from a socket would mean no more than that the client left.
        """
        self.in_hook = True
        try:
            self._wire.check()
            return function(request)
        except Exception as error:
            if not isinstance(error, Gone):
                self.server.note(traceback.format_exc())
            raise Gone from None
        finally:
            self.in_hook = False

    # The answer

    def _play(self, request, answer):
        """Send the answer and do what follows it; True if the connection lives on."""
        data, end = answer.encode(request, self.server.base, self.server.ack)
        if answer.interval:
            self._wire.drip(data, answer.interval)
        else:
            self._wire.send(data)
        if answer.endless:
            self._repeat(answer)
        if answer.reply is not None:
            self._swallow(answer)
        if end == "hang":
            if not self._hang() or answer.then is None:
                return False
            request.answer = answer.then
            if answer.then.store and not answer.store:
                self._store(request, answer.then)
            return self._play(request, answer.then)
        if end == "reset":
            self._reset = True
        # What follows an unread body cannot be told from a new request.
        return end == "keep" and request.complete

    def _released(self):
        return self.server.releases != self._mark

    def _repeat(self, answer):
        block = answer.endless if answer.interval else answer.endless * 64
        at = 0
        while not self._released():
            if answer.interval:
                self._wire.drip(block[at : at + 1], answer.interval)
                at = (at + 1) % len(block)
            else:
                self._wire.send(block)

    def _swallow(self, answer):
        while not self._released():
            if self._wire.wait_readable():
                if not self._wire.receive():
                    return
                self._wire.send(answer.reply)

    def _hang(self):
        """Say nothing; True if released, False if the client left."""
        while not self._released():
            if self._wire.wait_leaving():
                return False
        return True
