"""All workers of the inventory, each with its link."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime

from cloudai.core.capacity import Free, Hold, free_of
from cloudai.core.errors import WorkerNotFound
from cloudai.core.gpus import ANY, Wish
from cloudai.core.model import Task, WorkerSpec
from cloudai.engines import Engine

from .link import REFRESH, Link, Reach

log = logging.getLogger(__name__)


PROBES_A_SECOND = 16
"""Of all workers together: a thousand are probed every minute, two hundred every 15 seconds."""


class Fleet:
    """Links by worker id, kept in step with the inventory.

    ``connect`` makes the engine of a worker; ``changed`` is called when anything new is seen.
    """

    def __init__(
        self, connect: Callable[[WorkerSpec], Engine], *, changed: Callable[[], None]
    ) -> None:
        self.connect = connect
        self._changed = changed
        self._links: dict[str, Link] = {}
        self._loops: dict[str, asyncio.Task[None]] = {}
        self._leaving: set[asyncio.Task[None]] = set()

    def __iter__(self) -> Iterator[Link]:
        return iter(self._links.values())

    def get(self, worker_id: str) -> Link | None:
        return self._links.get(worker_id)

    def link(self, worker_id: str) -> Link:
        """Raises ``WorkerNotFound``; a worker taken out of the inventory is none any more."""
        link = self._links.get(worker_id)
        if link is None or link.retired:
            raise WorkerNotFound(worker_id)
        return link

    def workers(self) -> list[Link]:
        """In the inventory's order."""
        return [link for link in self._links.values() if not link.retired]

    # ---------------------------------------------------------------- in step

    def follow(self, specs: Mapping[str, WorkerSpec], *, needed: set[str]) -> None:
        """Takes over the inventory. A worker that left it stays linked while in ``needed``
        (it holds tasks of ours), and takes no new ones."""
        before = [(link.id, link.retired) for link in self._links.values()]
        for worker_id, link in list(self._links.items()):
            spec = specs.get(worker_id)
            if spec is None and worker_id in needed:
                link.retired = True
            elif spec is None or spec != link.spec:
                self._drop(worker_id)
        for worker_id, spec in specs.items():
            if worker_id not in self._links:
                self._add(spec)
            self._links[worker_id].retired = False
        order = {worker_id: i for i, worker_id in enumerate(specs)}
        self._links = dict(
            sorted(self._links.items(), key=lambda item: order.get(item[0], len(order)))
        )
        if [(link.id, link.retired) for link in self._links.values()] != before:
            self._find_twins()

    def _add(self, spec: WorkerSpec) -> None:
        link = Link(
            spec,
            self.connect(spec),
            changed=self._changed,
            met=self._find_twins,
            every=self._every,
        )
        self._links[spec.id] = link
        self._loops[spec.id] = asyncio.create_task(link.run(), name=f"link {spec.id}")

    def _drop(self, worker_id: str) -> None:
        link = self._links.pop(worker_id)
        loop = self._loops.pop(worker_id)
        loop.cancel()
        leaving = asyncio.create_task(self._leave(link, loop))
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)

    async def _leave(self, link: Link, loop: asyncio.Task[None]) -> None:
        await asyncio.gather(loop, return_exceptions=True)
        await link.engine.close()

    async def close(self) -> None:
        """Closes every connection. Nothing on any worker is touched."""
        for worker_id in list(self._links):
            self._drop(worker_id)
        await asyncio.gather(*self._leaving, return_exceptions=True)

    def _every(self) -> float:
        """Seconds between two probes of one worker: of a large fleet so many a second."""
        return max(REFRESH, len(self._links) / PROBES_A_SECOND)

    def _find_twins(self) -> None:
        """Two workers that are one machine *and* one engine would be booked twice: the later
        one takes no tasks. (Engines apart on one machine, as a practice fleet has, are two.)"""
        first: dict[tuple[str, str], str] = {}
        for link in self.workers():
            if link.sight is None:
                continue
            key = (link.sight.machine_id, link.sight.engine.id)
            other = first.setdefault(key, link.id)
            twin = "" if other == link.id else other
            if twin and not link.twin:
                log.error("worker %s is the same machine and engine as %s", link.id, twin)
            link.twin = twin


def holds_by_worker(active: Iterable[Task]) -> dict[str, list[Hold]]:
    """What tasks with an assignment hold, by worker, seen there or not."""
    holds: dict[str, list[Hold]] = {}
    for task in active:
        if task.state.assigned and task.worker_id is not None:
            holds.setdefault(task.worker_id, []).append(hold_of(task))
    return holds


def hold_of(task: Task) -> Hold:
    """What a task holds of its worker, seen there or not."""
    spec = task.spec
    wish = Wish(spec.gpu_model, spec.gpu_memory) if spec.gpu_model or spec.gpu_memory else ANY
    return Hold(task.id, spec.resources, wish)


def free_now(link: Link, holds: Iterable[Hold]) -> Free | None:
    """What tasks could still get there: the probe, with containers as seen since."""
    if link.sight is None:
        return None
    return free_of(replace(link.sight, containers=tuple(link.containers())), link.spec, holds)


def why_closed(link: Link, draining: bool) -> str:
    """Why no new task may go there; empty when it may."""
    if draining:
        return "draining"
    if link.twin:
        return link.reason
    if link.reach is Reach.CONNECTING:
        return "not reached yet"
    if link.reach is Reach.UNREACHABLE:
        return f"unreachable since {local_clock(link.since)}: {link.reason}"
    if link.reach is Reach.STOPPED:
        return f"stopped: {link.reason}"
    return ""


def local_clock(at: datetime | None) -> str:
    """A time of day for people, where this machine stands."""
    return (at or datetime.now(UTC)).astimezone().strftime("%H:%M")
