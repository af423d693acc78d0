"""`socket` of the board in wasm_board.py, which has no network: every look-up fails."""

AF_INET, SOCK_STREAM = 2, 1


def getaddrinfo(host, port, *args):
    raise OSError(-2)


class socket:  # noqa: N801 - its name
    def __init__(self, *args):
        raise OSError(97)  # EAFNOSUPPORT
