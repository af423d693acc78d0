"""CPython on a POSIX system: os.fdatasync, http.client, threads."""

from .clock import Clock  # noqa: F401
from .files import Directory  # noqa: F401
from .http import Http  # noqa: F401
from .text import dumps  # noqa: F401
from .threads import Group, Lock, Worker, offload  # noqa: F401

BATCH = 512 * 1024  # bytes of a batch; servers often take no more than 1 MiB
BUFFER = BATCH  # a batch up to this size is kept in RAM between its tries


def const(value):
    """MicroPython's micropython.const: here the value itself."""
    return value


def forget(name):
    """Does nothing here: there is room for modules, and another thread may be using one."""
