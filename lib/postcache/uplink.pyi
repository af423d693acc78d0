# Uplink, what every face has, and the ports that a program may bring along, typed.

from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from os import PathLike
from typing import Any, Protocol, TypedDict

from typing_extensions import Self

from .envelope import Frame
from .log import Log
from .log.ages import Ages
from .log.buffered import Buffered
from .send import Outbox

class _Http(Protocol):
    # It may also have apost(), a coroutine function with what post() takes and returns, for
    # run(); feed(), called while that waits; and close(), called when the face is closed.
    def post(
        self, url: str, headers: dict[str, str], chunks: Iterator[bytes], timeout: float, /
    ) -> tuple[int, Mapping[str, str]] | tuple[int, Mapping[str, str], bytes]: ...

class _Clock(Protocol):
    # It may also have unix(): seconds since 1970, None while it has not been set.
    def ticks_ms(self) -> int: ...

class _Directory(Protocol):
    # What each of these is: see ports.cpython.files.
    @property
    def path(self) -> str | None: ...
    @property
    def segment(self) -> int: ...
    @property
    def block(self) -> int: ...
    @property
    def reserve(self) -> int: ...
    @property
    def max_bytes(self) -> int: ...
    @property
    def slot_size(self) -> int: ...
    @property
    def slots(self) -> int: ...
    def check(self) -> None: ...
    def close(self) -> None: ...
    def files(self) -> Sequence[tuple[str, int]]: ...
    def size(self, name: str, /) -> int: ...
    def open(self, name: str, mode: str, /) -> Any: ...
    def put(self, name: str, data: bytes, /) -> None: ...
    def remove(self, name: str, /) -> None: ...
    def make(self, name: str, /) -> None: ...
    def free(self) -> int: ...

class _Ports(Protocol):
    # The module `ports`, or what stands for it: a class or function for each, None for no threads.
    @property
    def Clock(self) -> Callable[[], _Clock]: ...  # noqa: N802
    @property
    def Directory(self) -> Callable[[Any], _Directory]: ...  # noqa: N802
    @property
    def Http(self) -> Callable[..., _Http]: ...  # noqa: N802
    @property
    def Group(self) -> Callable[[Log], Any] | None: ...  # noqa: N802
    @property
    def Worker(self) -> Callable[[Any], Any] | None: ...  # noqa: N802

class _Lock(Protocol):
    def acquire(self, blocking: bool = ..., timeout: float = ..., /) -> bool: ...
    def release(self) -> None: ...

class _Stats(TypedDict):
    stream: str
    added: int
    sent: int
    waiting: int
    bytes: int | None
    age_ms: int
    dropped: int
    rejected: int
    damaged: int
    errors: int
    writes: int
    retries: int
    status: int | None
    error: str | None
    blocked: bool
    next_try_ms: int
    journal: str

class _Reject(TypedDict):
    number: int
    status: int
    reason: str
    record: Any

class Uplink:
    frame: Frame
    fs: _Directory
    storage: Log
    outbox: Outbox | None
    http: _Http | None
    clock: _Clock
    timeout: float
    closed: bool
    buffered: Buffered | None
    sending: _Lock
    immediate: bool
    loops: int
    watchers: tuple[Callable[[], object], ...]
    encode: Callable[[Any, dict[str, Any]], bytes]
    commit: Callable[[Sequence[bytes]], int]
    hold: Callable[[Sequence[bytes]], int]
    ages: Ages | None
    def __init__(
        self, frame: Frame, cache_path: str | PathLike[str] | _Directory, **settings: Any
    ) -> None: ...
    def add(self, records: Sequence[Any], kwargs: dict[str, Any], commit: bool = False) -> int: ...
    def flush(self, timeout: float | None = None) -> bool: ...
    def poll(self) -> None: ...
    def run(self) -> Coroutine[Any, Any, None]: ...
    def close(self, timeout: float | None = None) -> None: ...
    def rejected(self) -> list[_Reject]: ...
    def requeue_rejected(self) -> int: ...
    def idle_ms(self) -> int | None: ...
    def exchange(self, timeout: float, hurry: bool = False, *wait: float) -> bool: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *args: object) -> None: ...
    def __len__(self) -> int: ...
    def __bool__(self) -> bool: ...
    @property
    def stats(self) -> _Stats: ...
