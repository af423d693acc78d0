# The public names, typed. They are loaded on first use, which a type checker cannot follow.

from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from os import PathLike
from typing import Any, Literal, Protocol, TypedDict

from typing_extensions import Self

__version__: str

class _Http(Protocol):
    # It may also have a close(), called when the POSTCache is closed.
    def post(
        self, url: str, headers: dict[str, str], chunks: Iterator[bytes], timeout: float, /
    ) -> tuple[int, Mapping[str, str]] | tuple[int, Mapping[str, str], bytes]: ...

class _Clock(Protocol):
    # It may also have unix(): seconds since 1970, None while it has not been set.
    def ticks_ms(self) -> int: ...

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

class POSTCache:
    def __init__(
        self,
        http_endpoint: str | None,
        cache_path: str | PathLike[str],
        async_interval: float | None = None,
        top_level_attributes: dict[str, Any] | None = None,
        upload_limit: int = 500,
        data_key: str = "lines",
        check_same_thread: bool = True,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float = 10,
        max_bytes: int | None = None,
        flush_every: int = 1,
        slot_size: int | None = None,
        on_full: Literal["drop_oldest", "drop_newest", "raise"] = "drop_oldest",
        max_age: float | None = None,
        on_event: Callable[[str, dict[str, Any]], object] | None = None,
        confirm: Literal["ack"] | Callable[[int, Mapping[str, str], bytes], object] | None = None,
        feed: Callable[[], object] | None = None,
        online: Callable[[], object] | None = None,
        cafile: str | None = None,
        verify: bool = True,
        compress: bool = False,
        timestamp_key: str | None = None,
        http: _Http | None = None,
        clock: _Clock | None = None,
    ) -> None: ...
    def add_request(self, body: Any, **json_dumps_kwargs: Any) -> int: ...
    def add_many(self, bodies: Sequence[Any], **json_dumps_kwargs: Any) -> int: ...
    def flush(self, timeout: float | None = None) -> bool: ...
    def poll(self) -> None: ...
    def run(self) -> Coroutine[Any, Any, None]: ...
    def close(self, timeout: float | None = None) -> None: ...
    def rejected(self) -> list[_Reject]: ...
    def requeue_rejected(self) -> int: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *args: object) -> None: ...
    def __len__(self) -> int: ...
    def __bool__(self) -> bool: ...
    @property
    def stats(self) -> _Stats: ...
