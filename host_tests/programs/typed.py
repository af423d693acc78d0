"""
A program whose author has pyright check the types: it must accept what is right here.

And it must find what is marked as wrong: a mark that is not needed is an error as well. Nobody
runs this.
"""
# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from typing_extensions import assert_type

import postcache.ports
from postcache import POSTCache
from postcache.ports import Clock, Directory, Http
from postcache.uplink import Uplink

URL = "http://192.168.1.10:8080/readings"


class Modem:
    """A port of one's own, with a part of the answer's body, and all that a port may have."""

    def post(
        self, url: str, headers: dict[str, str], chunks: Iterator[bytes], timeout: float
    ) -> tuple[int, dict[str, str], bytes]:
        return 200, {"content-length": str(sum(map(len, chunks)))}, b""

    async def apost(
        self, url: str, headers: dict[str, str], chunks: Iterator[bytes], timeout: float
    ) -> tuple[int, dict[str, str]]:
        return 200, {}

    def close(self) -> None:
        pass


class Ticks:
    """A clock that has nothing but ticks."""

    def ticks_ms(self) -> int:
        return 0


class Card:
    """A Directory of one's own, by its methods and sizes."""

    path = "/card"
    segment = 8192
    block = 512
    reserve = 0
    max_bytes = 1 << 20
    slot_size = 0
    slots = 40

    def check(self) -> None: ...

    def close(self) -> None: ...

    def files(self) -> list[tuple[str, int]]:
        return []

    def size(self, name: str) -> int:
        return len(name)

    def open(self, name: str, mode: str) -> Any: ...

    def put(self, name: str, data: bytes) -> None: ...

    def remove(self, name: str) -> None: ...

    def make(self, name: str) -> None: ...

    def free(self) -> int:
        return 0


def signed(status: int, headers: Mapping[str, str], start: bytes) -> bool:
    return headers.get("x-ok") == "1" and b"ok" in start


def told(kind: str, detail: dict[str, Any]) -> None:
    print(kind, detail)


def right() -> None:
    """All that a program may do."""
    assert_type(postcache.__version__, str)
    with POSTCache(
        URL,
        Path("cache"),
        0.5,
        {"device": "greenhouse-1"},
        100,
        "lines",
        False,
        headers={"Authorization": "Bearer x"},
        timeout=2.5,
        max_bytes=None,
        flush_every=16,
        slot_size=0,
        on_full="raise",
        max_age=3600,
        on_event=told,
        confirm=signed,
        feed=lambda: None,
        online=lambda: True,
        cafile="ca.pem",
        verify=False,
        compress=True,
        timestamp_key="t",
        http=Modem(),
        clock=Ticks(),
        ports=postcache.ports,
    ) as cache:
        assert_type(cache, POSTCache)
        assert_type(cache.add_request({"t": 21.5}, separators=(",", ":")), int)
        assert_type(cache.add_request(datetime.date.today(), default=str), int)
        assert_type(cache.add_many([1, "two", None]), int)
        assert_type(cache.add_many(({"t": 1}, {"t": 2})), int)
        assert_type(cache.flush(), bool)
        assert_type(cache.flush(timeout=3), bool)
        cache.poll()
        assert_type(cache.idle_ms(), "int | None")
        assert_type(len(cache), int)
        assert_type(cache.requeue_rejected(), int)
        for letter in cache.rejected():
            assert_type(letter["number"], int)
            assert_type(letter["reason"], str)
        stats = cache.stats
        assert_type(stats["waiting"], int)
        assert_type(stats["error"], "str | None")
        assert_type(stats["bytes"], "int | None")
        face: Uplink = cache  # for a function that takes any face
        face.close(1)
    POSTCache(None, "cache", confirm="ack")
    POSTCache(None, Directory("cache"), http=Http(URL), clock=Clock())
    POSTCache(None, Card()).close()


async def beside() -> None:
    """In an event loop."""
    cache = POSTCache(URL, "cache", 30)
    task = asyncio.create_task(cache.run())
    assert_type(await task, None)


class Deaf:
    """No port: its post() takes no timeout."""

    def post(self, url: str, headers: dict[str, str], chunks: Iterator[bytes]) -> Any: ...


def wrong() -> None:
    """What must be found."""
    POSTCache(URL)  # pyright: ignore[reportCallIssue]
    POSTCache(URL, 5)  # pyright: ignore[reportArgumentType]
    POSTCache(URL, "cache", None, None, 1, "x", True, {})  # pyright: ignore[reportCallIssue]
    POSTCache(URL, "cache", flush_evry=2)  # pyright: ignore[reportCallIssue]
    POSTCache(URL, "cache", on_full="drop")  # pyright: ignore[reportArgumentType]
    POSTCache(URL, "cache", confirm="yes")  # pyright: ignore[reportArgumentType]
    POSTCache(URL, "cache", on_event=signed)  # pyright: ignore[reportArgumentType]
    POSTCache(URL, "cache", http=Deaf())  # pyright: ignore[reportArgumentType]
    POSTCache(URL, "cache", clock=Modem())  # pyright: ignore[reportArgumentType]
    POSTCache(URL, "cache", ports=Ticks())  # pyright: ignore[reportArgumentType]
    cache = POSTCache(URL, Ticks())  # pyright: ignore[reportArgumentType]
    cache.add_many({"t": 1})  # pyright: ignore[reportArgumentType]
    cache.flush("soon")  # pyright: ignore[reportArgumentType]
    cache.requeue()  # pyright: ignore
    cache.stats["lost"]  # pyright: ignore
