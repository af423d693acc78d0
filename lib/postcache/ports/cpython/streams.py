"""HTTP on CPython's asyncio streams, for `POSTCache.run()`."""

import asyncio
import ssl
from base64 import b64encode
from urllib.parse import unquote, urlsplit

from ..answer import Answer
from ..request import head
from .deadline import Deadline

CHUNK = 65536


async def apost(http, url, headers, chunks, timeout):
    """
    POST and wait for the whole answer, as `Http.post()` of the client `http` does.

    Each exchange has a connection of its own. Keeping `timeout` is up to the caller, who cancels;
    the connection is dropped then, too.
    """
    parts = urlsplit(url)
    reader, writer = await _connect(http, parts, timeout)
    failure = None
    unsent = int(headers["Content-Length"])

    async def send():
        nonlocal failure, unsent
        left = unsent
        pending = bytearray(_head(parts, headers))
        try:
            for chunk in chunks:
                pending += chunk
                left -= len(chunk)
                # All of it is sent before the next chunk is asked for: behind the last one
                # the outbox does other work, and the server can do its own in the meantime.
                if len(pending) >= CHUNK or left <= 0:
                    writer.write(pending)
                    await writer.drain()
                    unsent = left
                    pending = bytearray()
        except Exception as e:  # of the body, too: what is sent of it is no request
            failure = e
            writer.transport.abort()

    # A task beside the reading: a server may refuse, and leave, before it has read everything,
    # and a transport that fails to write forgets what has come in.
    sender = asyncio.ensure_future(send())
    answer = Answer()
    try:
        while not answer.feed(data := await reader.read(CHUNK)):
            pass
        if not data and not _goodbye(writer.get_extra_info("ssl_object")):
            raise OSError(104, "answer cut short")
        if 200 <= answer.status < 300 and unsent > 0:
            # It cannot have taken what it has not read.
            raise failure or OSError(104, "answered too early")
        return answer.status, answer.headers, answer.start
    except OSError as e:
        raise failure or e from None
    finally:
        sender.cancel()
        writer.transport.abort()


async def _connect(http, parts, timeout):
    host = parts.hostname
    tls = http.tls
    # Not by open_connection(): while a resolver hangs, each try would take another thread of
    # the program's executor. This one leaves it at the deadline, and starts one at most.
    addresses = await asyncio.get_running_loop().run_in_executor(
        None, http.addresses, host, parts.port or (443 if tls else 80), Deadline(timeout, None)
    )
    failure = OSError(113, "no address for the host")
    for *_, address in addresses:
        # Counted before: one that swallows everything is given up by the caller's deadline.
        http.turn += 1
        try:
            connection = await asyncio.open_connection(
                *address[:2], limit=CHUNK, ssl=tls, server_hostname=host if tls else None
            )
        except OSError as e:
            failure = e
        else:
            http.turn -= 1
            return connection
    raise failure


def _goodbye(tls):
    # RFC 9112, section 9.8: without a length only the server's close_notify says that this is all.
    # asyncio takes a line that was cut for the same; OpenSSL still knows.
    if tls is None:
        return True
    try:
        tls.read(1)
    except ssl.SSLZeroReturnError:
        return True
    except ssl.SSLError:
        pass
    return False


def _head(parts, headers):
    host = parts.netloc.rpartition("@")[2]
    path = parts.path or "/"
    if parts.query:
        path += "?" + parts.query
    if parts.username is not None:  # RFC 7617, as in http://user:password@host/
        user = "%s:%s" % (unquote(parts.username), unquote(parts.password or ""))
        headers = dict(headers, Authorization="Basic " + b64encode(user.encode()).decode())
    return head(host, path, headers)
