"""Watching a worker's containers through the Engine API, whatever way leads to it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterable, Mapping, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    aclosing,
    asynccontextmanager,
    suppress,
)
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any, Literal, TypeVar
from urllib.parse import quote

from cloudai import scripts
from cloudai.core.errors import CloudaiError, ContainerGone, EngineFailed, Indeterminate
from cloudai.core.model import ContainerSight
from cloudai.engines import Happening, LogBatch, Usage
from cloudai.shells import Shell, Terminal

from . import labels
from .api_http import Answer, EngineHttp, path_of, whole_object
from .api_logs import ContainerLog
from .containers import killed_for_unknown_reason, listed, moment, name_of, sight_of
from .log_records import LogPlace

Way = Literal["api", "cli"]
T = TypeVar("T")

DESCRIBED_WITHIN = 8.0
"""Seconds in which an engine describes one container that it has not locked."""
SECOND_LOOK = 0.3
"""Seconds after which the engine surely knows whether a kill was for lack of memory."""
FRESH = timedelta(seconds=5)
"""An end older than this on the engine's own clock is not looked at twice."""
SAMPLE_APART = 0.3
"""Seconds between the two readings that give a share of CPU time."""
ANSWERS_WITHIN = 5.0
"""Seconds for the engine to show that it is there, turns waited for included."""
REMOVED_WITHIN = 60.0
"""Seconds: the engine walks what the container wrote."""
MEASURING = 120.0
"""Seconds for the sizes of all containers: the engine walks their files."""
LONGEST_EVENT = 1024**2
"""Bytes."""
ACTIONS = [
    *("create", "start", "restart", "pause", "unpause", "update", "rename"),
    *("oom", "kill", "die", "stop", "destroy"),
]
"""Those after which a container looks different; execs and health checks do not count."""


class ApiWatch:
    """A ``Watch`` (see there for what each verb means and raises)."""

    def __init__(
        self, http: EngineHttp, *, shell: Shell, host: str, way: Way, doors: AsyncExitStack
    ) -> None:
        self._http = http
        self._shell = shell
        self._host = host
        self._way = way
        self._doors = doors

    @property
    def way(self) -> Way:
        return self._way

    async def observe(self) -> tuple[ContainerSight, ...]:
        found = await self._http.call("/containers/json", {"all": "1", "filters": _ours()})
        sights = await _together(self._described(entry) for entry in _entries(found))
        return tuple(sight for sight in sights if sight is not None)

    async def look(self, name: str) -> ContainerSight | None:
        try:
            answer = await self._http.call(path_of(name, "json"), timeout=DESCRIBED_WITHIN)
        except ContainerGone:
            return None
        except Indeterminate:
            if (as_listed := await self._listed(name)) is None:
                raise
            return as_listed
        found = name_of(whole_object(answer))
        if found != name:
            # The engine also takes the beginning of an id for a name.
            return None
        if (sight := await self._sight(answer)) is None:
            raise EngineFailed(
                f"the worker has a container called {name} that is not cloudai's",
                hint="nobody here will touch it; rename or remove it there",
            )
        return sight

    async def describe(self, name: str) -> Mapping[str, Any]:
        try:
            answer = await self._http.call(path_of(name, "json"), timeout=DESCRIBED_WITHIN)
        except ContainerGone:
            return {}
        found = whole_object(answer)
        return found if name_of(found) == name else {}

    async def remove(self, container_id: str) -> None:
        try:
            path = f"/containers/{quote(container_id, safe='')}"
            await self._http.delete(path, timeout=REMOVED_WITHIN)
        except ContainerGone:
            return
        except EngineFailed as error:
            if "already in progress" not in error.message:
                raise

    async def volume_labels(self, name: str) -> Mapping[str, str]:
        try:
            answer = await self._http.call(f"/volumes/{quote(name, safe='')}")
        except EngineFailed as error:
            if error.details.get("status") == HTTPStatus.NOT_FOUND:
                return {}
            raise
        found = whole_object(answer).get("Labels")
        named = found if isinstance(found, dict) else {}
        return {str(key): value for key, value in named.items() if isinstance(value, str)}

    @asynccontextmanager
    async def happenings(self) -> AsyncIterator[AsyncIterator[Happening]]:
        # The engine answers before it subscribes, so what happens in between would be missed:
        # ask for everything since a moment before, on the engine's own clock.
        now = (await self._http.ping()).at
        query = {"filters": _our_events()}
        if now is not None:
            query["since"] = str(int(now.timestamp()))
        async with (
            self._http.stream("/events", query) as chunks,
            aclosing(_happenings(chunks)) as happenings,
        ):
            yield happenings

    @asynccontextmanager
    async def logs(
        self, container_id: str, *, since: int = 0, follow: bool = False, tail: int | None = None
    ) -> AsyncIterator[AsyncIterator[LogBatch]]:
        log = await ContainerLog.opened(self._http, container_id)
        place = LogPlace(since)
        records = log.follow(place, tail) if follow else log.read(place, tail=tail)
        async with aclosing(records):
            yield records

    async def usage(self, container_ids: Sequence[str]) -> Mapping[str, Usage]:
        first = await self._readings(container_ids)
        await asyncio.sleep(SAMPLE_APART if first else 0)
        second = await self._readings(list(first))
        return {key: _usage(first[key], reading) for key, reading in second.items()}

    async def sizes(self) -> Mapping[str, int]:
        listed = await self._http.call(
            "/containers/json",
            {"size": "1", "filters": _ours(status=["running", "paused"])},
            timeout=MEASURING,
        )
        measured = {}
        for entry in _entries(listed):
            named, size = entry.get("Labels"), entry.get("SizeRw", 0)
            assignment_id = named.get(labels.ASSIGNMENT) if isinstance(named, dict) else None
            if f"/{assignment_id}" in (entry.get("Names") or ()) and isinstance(size, int):
                measured[str(assignment_id)] = size
        return measured

    def execute(
        self, container_id: str, argv: Sequence[str], *, tty: bool, columns: int, rows: int
    ) -> AbstractAsyncContextManager[Terminal]:
        command = scripts.render(
            "exec", host=self._host, tty=int(tty), container=container_id, argv=list(argv)
        )
        return self._shell.terminal(command.strip(), tty=tty, columns=columns, rows=rows)

    async def answers(self) -> bool:
        try:
            async with asyncio.timeout(ANSWERS_WITHIN):
                await self._http.ping()
        except (TimeoutError, CloudaiError):
            return False
        return True

    async def close(self) -> None:
        await self._doors.aclose()

    async def _described(self, entry: Mapping[str, Any]) -> ContainerSight | None:
        """One of a list. The engine describes none that files are copied into, or out of, until
        that is done: then what the list says, and nothing of one that has ended."""
        try:
            return await self._inspect(str(entry["Id"]))
        except Indeterminate:
            await self._http.ping()
            return sight_of(_as_listed(entry))

    async def _listed(self, name: str) -> ContainerSight | None:
        filters = json.dumps({"name": [f"^/{name}$"], "label": [labels.ASSIGNMENT]})
        found = _entries(
            await self._http.call("/containers/json", {"all": "1", "filters": filters})
        )
        return sight_of(_as_listed(found[0])) if len(found) == 1 else None

    async def _inspect(self, container_id: str) -> ContainerSight | None:
        try:
            path = path_of(container_id, "json")
            return await self._sight(await self._http.call(path, timeout=DESCRIBED_WITHIN))
        except ContainerGone:
            return None

    async def _sight(self, answer: Answer) -> ContainerSight | None:
        sight = sight_of(whole_object(answer))
        if sight and killed_for_unknown_reason(sight) and _just_ended(sight, answer.at):
            await asyncio.sleep(SECOND_LOOK)
            with suppress(ContainerGone):
                answer = await self._http.call(path_of(sight.id, "json"))
            return sight_of(whole_object(answer)) or sight
        return sight

    async def _readings(self, container_ids: Iterable[str]) -> dict[str, dict[str, Any]]:
        """One reading of each container that runs."""

        async def read(container_id: str) -> tuple[str, dict[str, Any]] | None:
            path = path_of(container_id, "stats")
            try:
                answer = await self._http.call(
                    path, {"stream": "false", "one-shot": "true"}, timeout=DESCRIBED_WITHIN
                )
            except ContainerGone:
                return None
            except Indeterminate:
                await self._http.ping()
                return None  # locked: see _described
            reading = whole_object(answer)
            return (container_id, reading) if moment(reading.get("read")) else None

        readings = await _together(read(container_id) for container_id in container_ids)
        return dict(reading for reading in readings if reading)


async def _together(calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of all; the first to fail ends the others and is raised as it is."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _happenings(chunks: AsyncIterator[bytes]) -> AsyncGenerator[Happening, None]:
    pending = bytearray()
    async for chunk in chunks:
        pending += chunk
        *lines, rest = bytes(pending).split(b"\n")
        pending[:] = rest
        if len(pending) > LONGEST_EVENT:
            raise EngineFailed(f"the worker's engine sent an event of over {LONGEST_EVENT} bytes")
        for line in lines:
            if happening := _happening(line):
                yield happening
    if pending.strip():
        raise Indeterminate("the worker's engine ended its events inside one")


def _happening(line: bytes) -> Happening | None:
    try:
        event = json.loads(line) if line.strip() else {}
        attributes = event.get("Actor", {}).get("Attributes", {})
        assignment_id, action = attributes.get(labels.ASSIGNMENT), event.get("Action")
    except (ValueError, RecursionError, AttributeError):
        raise EngineFailed("the worker's engine sent an event that is no JSON") from None
    if not isinstance(assignment_id, str) or not isinstance(action, str) or not assignment_id:
        return None
    return Happening(assignment_id=assignment_id, action=action.partition(":")[0])


def _just_ended(sight: ContainerSight, now: datetime | None) -> bool:
    if now is None or sight.finished_at is None:
        return True
    return now - sight.finished_at < FRESH


def _usage(first: Mapping[str, Any], second: Mapping[str, Any]) -> Usage:
    """From two readings of one container. What the engine does not tell is ``None``."""
    began, ended = moment(first.get("read")), moment(second.get("read"))
    spent = _number(second, "cpu_stats", "cpu_usage", "total_usage")
    before = _number(first, "cpu_stats", "cpu_usage", "total_usage")
    percent = None
    if began and ended and ended > began and spent is not None and before is not None:
        percent = max(0.0, (spent - before) / 1e9 / (ended - began).total_seconds() * 100)
    used = _number(second, "memory_stats", "usage")
    if used is not None:
        # As `docker stats` counts: without file pages the kernel can drop at once. The first
        # name is that of cgroup v1, the second that of v2.
        droppable = _number(second, "memory_stats", "stats", "total_inactive_file")
        if droppable is None:
            droppable = _number(second, "memory_stats", "stats", "inactive_file") or 0
        used = used - droppable if droppable < used else used
    return Usage(
        cpu_percent=None if percent is None else round(percent, 2),
        memory=used,
        pids=_number(second, "pids_stats", "current"),
    )


def _number(reading: object, *path: str) -> int | None:
    for key in path:
        reading = reading.get(key) if isinstance(reading, Mapping) else None
    return reading if isinstance(reading, int) and not isinstance(reading, bool) else None


def _ours(**more: list[str]) -> str:
    return json.dumps({"label": [labels.ASSIGNMENT], **more})


def _our_events() -> str:
    return json.dumps({"type": ["container"], "label": [labels.ASSIGNMENT], "event": ACTIONS})


def _as_listed(entry: Mapping[str, Any]) -> dict[str, object]:
    names, named = entry.get("Names"), entry.get("Labels")
    name = names[0] if isinstance(names, list) and names else ""
    image = entry.get("Image")
    return listed(
        str(entry["Id"]),
        str(name),
        str(entry.get("State")),
        named if isinstance(named, dict) else {},
        image if isinstance(image, str) else "",
    )


def _entries(answer: Answer) -> list[dict[str, Any]]:
    listed = answer.document
    if not isinstance(listed, list) or not all(
        isinstance(entry, dict) and isinstance(entry.get("Id"), str) for entry in listed
    ):
        raise EngineFailed("the worker's engine answered something that is no list of containers")
    return listed
