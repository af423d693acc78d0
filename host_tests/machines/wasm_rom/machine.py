"""`machine` of the board in wasm_board.py: resets are real; the rest is there to be imported."""

import _board

PWRON_RESET, HARD_RESET, WDT_RESET, DEEPSLEEP_RESET, SOFT_RESET = 1, 2, 3, 4, 5


def reset():
    _board.reset()


def soft_reset():
    raise SystemExit


def reset_cause():
    return PWRON_RESET


def unique_id():
    return b"\x02wasm\x01"


def freq(*args):
    return 160000000


class WDT:
    """It never bites: the host may stop the whole process for as long as it likes."""

    def __init__(self, id=0, timeout=5000):
        pass

    def feed(self):
        pass


class Timer:
    """It never fires."""

    ONE_SHOT, PERIODIC = 0, 1

    def __init__(self, id=-1, **kwargs):
        pass

    def init(self, **kwargs):
        pass

    def deinit(self):
        pass


class Pin:
    """It keeps what is written to it."""

    IN, OUT, PULL_UP, PULL_DOWN = 0, 1, 1, 2

    def __init__(self, id, mode=-1, pull=-1, *, value=0):
        self._value = value

    def value(self, *args):
        if not args:
            return self._value
        self._value = int(args[0])
        return None

    __call__ = value


class ADC:
    """27 degrees, if it is asked for the chip's temperature."""

    CORE_TEMP = 4

    def __init__(self, channel):
        pass

    def read_u16(self):
        return 14019


class _Registers(dict):
    def __getitem__(self, address):
        return self.get(address, 0)


mem32 = _Registers()


def lightsleep(ms=0):
    """Sleep for ever: the program ends here, and a reset begins anew."""
    print("[asleep]")
    raise SystemExit


deepsleep = lightsleep
