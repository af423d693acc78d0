"""
HTTP on MicroPython's asyncio streams, for `POSTCache.run()`; one connection for each exchange.

The socket is made here: asyncio.open_connection() leaves its own open when it is cancelled, or
refused at once. Read and written is one after the other: with two tasks at one TLS stream the
reader can tell the poll to wait for the server, which waits for what the writer holds.
"""

import asyncio
import socket
from errno import EINPROGRESS

from ..answer import Answer
from ..request import head, split


async def apost(http, url, headers, chunks, timeout):
    """
    POST and wait for the whole answer, as `http.post()` does.

    Keeping `timeout` is up to the caller, who cancels; the socket is closed then, too. The
    name look-up blocks the event loop, and so does the arithmetic of a TLS handshake.
    """
    _, host, port, path = split(url)
    family, kind, proto, _, address = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)[0]
    raw = sock = socket.socket(family, kind, proto)
    try:
        sock.setblocking(False)
        try:
            sock.connect(address)
        except OSError as e:
            if e.errno != EINPROGRESS:
                raise
        context = http.context
        if context:
            sock = context.wrap_socket(raw, server_hostname=host, do_handshake_on_connect=False)
        # Reads, too; the types know neither this nor its buffer.
        stream = asyncio.StreamWriter(sock)  # pyright: ignore[reportCallIssue]
        out = bytearray(head(url.split("/")[2], path, headers))
        left = int(headers["Content-Length"])
        failure = None
        for chunk in chunks:
            out += chunk
            left -= len(chunk)
            # All of it is sent before the next chunk is asked for: behind the last one the
            # outbox does other work, and the server can do its own in the meantime.
            if len(out) > 512 or left <= 0:
                # Not by write(), which would try before there is a connection: drain() waits.
                stream.out_buf = out  # pyright: ignore[reportAttributeAccessIssue]
                try:
                    await stream.drain()
                except OSError as e:
                    failure = e  # a server may refuse before it has read everything
                    break
                except ValueError:  # "The certificate is ..."
                    raise OSError(-0x2700)  # MBEDTLS_ERR_X509_CERT_VERIFY_FAILED
                out = bytearray()
        answer = Answer()
        whole = False
        try:
            while not whole:
                # Until there is something to be read.
                await stream.read(0)  # pyright: ignore[reportAttributeAccessIssue]
                # No byte more than must come: an error behind a whole answer would hide it.
                if answer.left > 0:
                    data = sock.read(min(answer.left, 256))
                else:
                    data = sock.readline(256)  # pyright: ignore[reportCallIssue]
                if data is not None:
                    whole = answer.feed(data)
        except OSError as e:
            raise failure or e
        if failure and 200 <= answer.status < 300:
            raise failure  # it cannot have taken what it has not read
        return answer.status, answer.headers, answer.start
    finally:
        # The stream closes the socket, but not after a failed handshake; see https.py.
        sock.close()
        if sock is not raw:
            raw.close()
