"""
https:// on MicroPython: a small client on `tls`, loaded for an https:// URL only.

What `requests` makes of https:// takes any certificate. This one takes what leads to a certificate
in `cafile`, for the host in the URL, within its dates.
"""

import select
import socket
from binascii import a2b_base64

import tls

from ..request import head, split
from .http import Plain

_VERIFY_FAILED = -0x2700  # MBEDTLS_ERR_X509_CERT_VERIFY_FAILED


class Secure(Plain):
    """
    A client for https://; one connection, and one handshake, for each exchange.

    mbedTLS compares the dates of certificates with the board's clock. On a board whose clock has
    not been set that is the year 1970, 2000 or 2021, before the beginning of any certificate of
    today: no server is trusted, every try fails with OSError -9984, and the log keeps what it has
    until the clock is set (by NTP, which needs no certificate).

    An answer without a length ends with the stream, and of that mbedTLS does not say whether the
    server or somebody on the way has ended it: its head, which nobody can forge, has to do.

    The handshake is arithmetic that nothing interrupts, 1 to 4 s of it on a board: a watchdog
    needs more time than that. It takes about 40 KB of heap while an exchange lasts; on an ESP32
    not of MicroPython's.

    Args:
        url: str; checked here, used in post().
        feed: None, or a callable for a watchdog.
        cafile: str, path of one or more certificates in PEM, or one in DER. That of the authority
            that signed the server's, or the server's own if it signed that itself.
        verify: False takes any certificate, also without `cafile`.

    Raises ValueError for a bad URL, for no certificates or bad ones; OSError for a file that
    cannot be read.
    """

    def __init__(self, url, feed, cafile, verify):
        split(url)
        self.feed = feed
        self._raw = None
        self.context = context = tls.SSLContext(tls.PROTOCOL_TLS_CLIENT)
        if cafile:
            _load(context, cafile)
        elif verify:
            raise ValueError(
                "https:// needs cafile=, a file with the certificate (PEM or DER) of the"
                " authority that signed the server's; verify=False would trust anybody"
            )
        if not verify:
            context.verify_mode = tls.CERT_NONE  # pyright: ignore[reportAttributeAccessIssue]

    def _request(self, url, headers, chunks):
        try:
            self._speak(url, headers, chunks)
        except OSError as e:
            if -256 < (e.errno or 0) < 0:  # of the socket, seen through mbedTLS
                raise OSError(-e.errno)
            raise

    def _speak(self, url, headers, chunks):
        _, host, port, path = split(url)
        family, kind, proto, _, address = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)[0]
        self.socket(family, kind, proto)
        self._raw = self._socket
        self.connect(address)
        # The handshake is left to the first write, or it would wait for ever for a silent server.
        self._socket = self.context.wrap_socket(
            self._raw, server_hostname=host, do_handshake_on_connect=False
        )
        self._poll = select.poll()  # the other one still watches the naked socket
        self.write(head(url.split("/")[2], path, headers))
        for chunk in chunks:
            self.write(chunk)
        self.readline()

    def _flush(self):
        try:
            Plain._flush(self)  # the first one makes the handshake
        except ValueError as e:  # "The certificate is ..."
            raise OSError(_VERIFY_FAILED, str(e).strip())

    def close(self):
        # The stream closes the socket, but not after a failed handshake. Never the socket alone:
        # the stream's finaliser would close it a second time, when its number may be another's.
        Plain.close(self)
        self._socket, self._raw = self._raw, None
        Plain.close(self)


def _load(context, cafile):
    # As DER, which every build reads, and one at a time: a bundle may be long.
    data = b""
    count = 0
    inside = False
    try:
        with open(cafile, "rb") as f:
            for line in f:
                if line[:10] == b"-----BEGIN":
                    inside = True
                    data = b""
                elif line[:8] == b"-----END":
                    inside = False
                    count += 1
                    context.load_verify_locations(a2b_base64(data))
                    data = b""
                else:
                    data += line
        if inside or not count:
            context.load_verify_locations(data)
    except ValueError:
        raise ValueError("cafile: not one or more whole certificates in PEM, or one in DER")
    except OSError as e:
        raise OSError(e.errno, "cafile: " + cafile)
