# The public names, typed. They are loaded on first use, which a type checker cannot follow.

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any, Literal

from .uplink import Uplink, _Clock, _Directory, _Http, _Ports

__version__: str

class POSTCache(Uplink):
    def __init__(
        self,
        http_endpoint: str | None,
        cache_path: str | PathLike[str] | _Directory,
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
        ports: _Ports = ...,
    ) -> None: ...
    def add_request(self, body: Any, **json_dumps_kwargs: Any) -> int: ...
    def add_many(self, bodies: Sequence[Any], **json_dumps_kwargs: Any) -> int: ...
