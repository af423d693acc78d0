"""URLs and the head of a request, for those who speak HTTP/1.1 themselves."""


def split(url):
    """
    Return `(scheme, host, port, path)` of a URL: "http" or "https", str, int, str with its query.

    Raises ValueError for anything else than an absolute http:// or https:// URL in printable
    ASCII, without a user name.
    """
    # Never repeated in the text of the exception: it may hold a secret.
    if isinstance(url, str) and url and min(url) > " " and max(url) <= "~":
        scheme, _, rest = url.split("#")[0].partition("://")
        place, _, path = rest.partition("/")
        host, _, port = place.partition(":")
        if place[:1] == "[":  # an IPv6 address
            host, end, port = place[1:].partition("]")
            if not end or port[:1] not in ("", ":"):
                host = ""
            port = port[1:]
        port = port or ("443" if scheme == "https" else "80")
        if (
            scheme in ("http", "https")
            and host
            and "@" not in place
            and "?" not in place
            and port.isdigit()
            and 0 < int(port) < 65536
        ):
            return scheme, host, int(port), "/" + path
    raise ValueError(
        "http_endpoint: an http:// or https:// URL in ASCII, without user or password"
    )


def head(host, path, headers):
    """
    Return the head of a POST as bytes.

    Args:
        host: str, the value of Host: as it is in the URL, with a port if that is not the default.
        path: str, with the query.
        headers: dict of str, Content-Length among them.
    """
    lines = ["POST %s HTTP/1.1\r\nHost: %s\r\nConnection: close" % (path, host)]
    for name in headers:
        lines.append(name + ": " + headers[name])
    lines.append("\r\n")
    return "\r\n".join(lines).encode()
