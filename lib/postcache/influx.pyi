from collections.abc import Callable, Mapping
from os import PathLike
from typing import Any, Literal

from .uplink import Uplink, _Clock, _Directory, _Http

class Influx(Uplink):
    def __init__(
        self,
        url: str | None,
        cache_path: str | PathLike[str] | _Directory,
        token: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        async_interval: float | None = None,
        upload_limit: int = 500,
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
        http: _Http | None = None,
        clock: _Clock | None = None,
    ) -> None: ...
    def write(
        self,
        measurement: str,
        fields: Mapping[str, bool | int | float | str],
        tags: Mapping[str, str] | None = None,
        epoch: float | None = None,
    ) -> int: ...
