"""One container's log, read and followed through the Engine API to its very last byte."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

from cloudai.core.errors import EngineFailed
from cloudai.engines import LogBatch

from .api_http import EngineHttp, path_of, whole_object
from .log_records import Decoder, Frames, Lines, LogPlace

ENDING = 5.0
"""Seconds between the end of a followed log and the container's own."""
ASK_AGAIN = 0.2
"""Seconds."""


class ContainerLog:
    """The log of one container, which is there when this is made."""

    def __init__(self, http: EngineHttp, container_id: str, *, terminal: bool) -> None:
        self._http = http
        self._container_id = container_id
        self._terminal = terminal

    @classmethod
    async def opened(cls, http: EngineHttp, container_id: str) -> ContainerLog:
        """Raises ``ContainerGone`` where there is none."""
        document = whole_object(await http.call(path_of(container_id, "json")))
        config = document.get("Config")
        terminal = isinstance(config, Mapping) and config.get("Tty") is True
        return cls(http, container_id, terminal=terminal)

    async def follow(
        self, place: LogPlace, tail: int | None = None
    ) -> AsyncGenerator[LogBatch, None]:
        """The last ``tail`` records from a place on and all to come. The engine ends a followed
        log with its container, at times before the last records (facts, 19): those are read
        once it has ended."""
        if tail is not None:
            # With none of them asked for, the last is read to know where the log stands.
            async with aclosing(self.read(place, tail=max(1, tail))) as batches:
                async for batch in batches:
                    if tail:
                        yield batch
        async with aclosing(self.read(place, follow=True)) as batches:
            async for batch in batches:
                yield batch
        await self._wait_for_end()
        async with aclosing(self.read(place)) as batches:
            async for batch in batches:
                yield batch

    async def read(
        self, place: LogPlace, *, follow: bool = False, tail: int | None = None
    ) -> AsyncGenerator[LogBatch, None]:
        """What comes after a place, which moves on with it. Raises ``EngineFailed`` where that
        is not found again."""
        decoder: Decoder = Lines() if self._terminal else Frames()
        rejoin = place.rejoin()
        query = self._query(place.since, follow=follow, tail=tail)
        async with self._http.stream(path_of(self._container_id, "logs"), query) as chunks:
            async for chunk in chunks:
                while found := decoder.feed(chunk):
                    chunk = b""
                    if batch := rejoin.new_of(found):
                        place.passed_all(batch)
                        yield batch
            if batch := rejoin.new_of(decoder.finish()):
                place.passed_all(batch)
                yield batch
        if not rejoin.found:
            raise EngineFailed("the container's log was cut short on the worker while read")

    @staticmethod
    def _query(since: int, *, follow: bool, tail: int | None) -> dict[str, str]:
        query = {"stdout": "1", "stderr": "1", "timestamps": "1", "follow": str(int(follow))}
        if tail is not None:
            query["tail"] = str(tail)
        if since > 0:
            seconds, nanos = divmod(since, 1_000_000_000)
            query["since"] = f"{seconds}.{nanos:09d}"
        return query

    async def _wait_for_end(self) -> None:
        """The engine closes a log a moment before it says that the container has ended."""
        deadline = asyncio.get_running_loop().time() + ENDING
        while await self._runs():
            if asyncio.get_running_loop().time() > deadline:
                raise EngineFailed("Docker ended the log of a container that still runs")
            await asyncio.sleep(ASK_AGAIN)

    async def _runs(self) -> bool:
        document = whole_object(await self._http.call(path_of(self._container_id, "json")))
        state = document.get("State")
        return isinstance(state, Mapping) and state.get("Running") is True
