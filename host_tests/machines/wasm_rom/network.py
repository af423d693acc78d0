"""`network` of the board in wasm_board.py: a radio that never finds anything."""

STA_IF = 0


def country(code):
    pass


def hostname(name):
    pass


class WLAN:
    """It is off, whatever it is told."""

    def __init__(self, interface):
        pass

    def _no(self, *args):
        return 0

    active = connect = disconnect = isconnected = status = deinit = _no
