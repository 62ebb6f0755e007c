"""One worker as the controller has it: its engine, what was last seen there, and since when it
is out of reach. A link only looks; it never acts on a task.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from cloudai.core.errors import (
    AuthenticationFailed,
    CloudaiError,
    HostKeyChanged,
    HostKeyUnknown,
    Indeterminate,
    WorkerUnreachable,
)
from cloudai.core.model import ContainerSight, Phase, WorkerSight, WorkerSpec
from cloudai.core.reconcile import UNSEEN, Sighting
from cloudai.engines import Engine, Happening

from .signals import Signal, wait

log = logging.getLogger(__name__)

REFRESH = 15.0
"""Seconds between probes, at the least; what ends in between is told by the engine's events."""
AGAIN_AT_MOST = 30.0
"""Seconds between tries to reach a worker, at the most."""
STARTS_AT_ONCE = 2
"""One engine saturates at two to four starts in flight (facts, 30)."""


class Reach(StrEnum):
    """Whether a worker can be reached."""

    CONNECTING = "connecting"
    ACTIVE = "active"
    UNREACHABLE = "unreachable"
    STOPPED = "stopped"
    """A person must act: its host key changed, or it refuses us."""


class Link:
    """One worker's connection."""

    def __init__(
        self,
        spec: WorkerSpec,
        engine: Engine,
        *,
        changed: Callable[[], None],
        met: Callable[[], None] = lambda: None,
        every: Callable[[], float] = lambda: REFRESH,
    ) -> None:
        """``changed`` is called whenever something new was seen, ``met`` when it is the first
        time, or another machine or engine than before. ``every``: seconds between probes."""
        self._met, self._every = met, every
        self.spec = spec
        self.engine = engine
        self.reach = Reach.CONNECTING
        self.error: CloudaiError | None = None
        self.since: datetime | None = None
        """When it went out of reach."""
        self.sight: WorkerSight | None = None
        self.seen_at: datetime | None = None
        self.retired = False
        """No longer in the inventory; kept for the tasks it still holds."""
        self.twin: str = ""
        """Another worker of the inventory that is the same machine and engine."""
        self.starts = asyncio.Semaphore(STARTS_AT_ONCE)
        self.fills = asyncio.Semaphore(STARTS_AT_ONCE)
        """Places of starts that put files into their container first: those take their time."""
        self.freed_at = float("-inf")
        """The monotonic time at which a container was last seen to hold nothing any more."""
        self._changed = changed
        self._seen: dict[str, tuple[float, ContainerSight | None]] = {}
        self._listed = float("-inf")
        self._probed = float("-inf")
        self._starting: set[str] = set()
        self._poked = asyncio.Event()
        self._tried = Signal()

    @property
    def id(self) -> str:
        return self.spec.id

    @property
    def reason(self) -> str:
        """Why it takes no tasks by itself; empty when all is well."""
        if self.twin:
            return f"the same machine and engine as {self.twin}: remove one from the inventory"
        return self.error.message if self.error else ""

    # ---------------------------------------------------------------- what is known

    def containers(self) -> list[ContainerSight]:
        """Our containers as last seen, whichever store placed them."""
        return [container for _, container in self._seen.values() if container is not None]

    def container(self, assignment_id: str) -> ContainerSight | None:
        """One of them."""
        return self._seen.get(assignment_id, (0.0, None))[1]

    @property
    def heard_at(self) -> float:
        """The monotonic time of the latest whole look, when it began."""
        return self._listed

    def sighting(self, assignment_id: str, since: float) -> Sighting:
        """What is known of a container, as evidence for a decision now.

        ``since``: the monotonic time of the task's latest change. Absence, or a container not
        started yet, counts only when it was seen after that; life and death only go forward.
        """
        if self.reach is not Reach.ACTIVE:
            return UNSEEN
        at, container = self._seen.get(assignment_id, (self._listed, None))
        engine_started, clock = None, None
        if self.sight is not None:
            engine_started = self.sight.engine.started_at
            clock = self.sight.clock + timedelta(seconds=time.monotonic() - self._probed)
        if container is not None and container.phase is not Phase.CREATED:
            return Sighting(True, container, engine_started=engine_started, clock=clock)
        if at < since:
            return UNSEEN
        confirmed = assignment_id in self._seen
        return Sighting(True, container, confirmed=confirmed, engine_started=engine_started)

    def saw(self, assignment_id: str, container: ContainerSight | None, began: float) -> None:
        """Keeps what one look, begun at that monotonic time, showed of one container."""
        before = self._seen.get(assignment_id, (float("-inf"), None))
        if before[0] <= began:
            self._seen[assignment_id] = (began, container)
            self._note_freed([before[1]])

    def _saw_all(self, containers: tuple[ContainerSight, ...], began: float) -> None:
        before = self.containers()
        newer = {key: value for key, value in self._seen.items() if value[0] > began}
        self._seen = {c.assignment_id: (began, c) for c in containers} | newer
        self._listed = max(self._listed, began)
        self._note_freed(before)

    def _note_freed(self, before: Iterable[ContainerSight | None]) -> None:
        for container in before:
            if container is not None and container.holds:
                now = self.container(container.assignment_id)
                if now is None or not now.holds:
                    self.freed_at = time.monotonic()

    # ---------------------------------------------------------------- looking

    async def look(self, assignment_id: str) -> ContainerSight | None:
        """One container, asked by name. Raises what the engine raises."""
        began = time.monotonic()
        container = await self.engine.look(assignment_id)
        self.saw(assignment_id, container, began)
        self._changed()
        return container

    async def refresh(self) -> WorkerSight:
        """A whole probe now. Raises what the engine raises."""
        began = time.monotonic()
        sight = await self.engine.probe()
        self._probed = time.monotonic()
        stranger, known = self.sight is None or not _same(self.sight, sight), self._phases()
        self.sight, self.seen_at = sight, datetime.now(UTC)
        self._saw_all(sight.containers, began)
        if stranger:
            self._met()
        self._mark(Reach.ACTIVE, None)
        if self._phases() != known:
            self._changed()
        return sight

    def _phases(self) -> dict[str, tuple[str, Phase]]:
        """What decides about tasks: amounts that come and go wait for the next pass."""
        return {c.assignment_id: (c.id, c.phase) for c in self.containers()}

    def poke(self) -> None:
        """Look again now, whatever the cadence; an authentication failure is tried again."""
        self._poked.set()

    async def ensure(self, timeout: float) -> None:
        """Returns once the worker is active; tries to reach it now. Raises why it is not."""
        if self.reach is Reach.ACTIVE:
            return
        tried = self._tried.listen()
        self.poke()
        if not await tried.wait(timeout) and self.error is None:
            raise WorkerUnreachable(
                "Failed to connect to worker: timed out", worker=self.id, seconds=timeout
            )
        if self.error is not None:
            raise self.error

    def lost(self, error: CloudaiError) -> None:
        """Somebody who used the link found that the worker does not answer."""
        if self.reach is Reach.ACTIVE:
            self._mark(Reach.UNREACHABLE, error)
            self.poke()

    # ---------------------------------------------------------------- the loop

    async def run(self) -> None:
        """Keeps looking until cancelled. Ends no task and starts none."""
        failures = 0
        while True:
            self._poked.clear()
            was = time.monotonic()
            try:
                await self._watch()
            except (AuthenticationFailed, HostKeyChanged, HostKeyUnknown) as error:
                self._mark(Reach.STOPPED, error)
            except CloudaiError as error:
                self._mark(Reach.UNREACHABLE, error)
            except Exception:
                log.exception("worker %s: a mistake of ours while watching it", self.id)
                self._mark(
                    Reach.UNREACHABLE,
                    CloudaiError("internal error while watching it; see controller.log"),
                )
            self._tried.fire()
            failures = 1 if time.monotonic() - was > AGAIN_AT_MOST else failures + 1
            await self._close_quietly()
            await self._pause(failures)

    async def _pause(self, failures: int) -> None:
        """Backs off, with jitter, on unreachable alone; never knocks again where it was refused
        by itself (facts, 4: sshd bans for that)."""
        seconds: float | None = min(AGAIN_AT_MOST, 0.5 * 2**failures) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
        if isinstance(self.error, AuthenticationFailed):
            seconds = None
        elif self.reach is Reach.STOPPED:
            seconds = AGAIN_AT_MOST
        await wait(self._poked, seconds)

    async def _watch(self) -> None:
        """Looks while the worker answers; returns or raises when its stream of events ends."""
        await self.refresh()
        self._tried.fire()
        async with self.engine.happenings() as happenings:
            began = time.monotonic()
            self._saw_all(await self.engine.observe(), began)
            self._changed()
            ended = asyncio.ensure_future(self._follow(happenings))
            try:
                while not ended.done():
                    self._poked.clear()
                    poked = asyncio.ensure_future(self._poked.wait())
                    await asyncio.wait(
                        {ended, poked}, timeout=self._every(), return_when=asyncio.FIRST_COMPLETED
                    )
                    poked.cancel()
                    if not ended.done():
                        await self.refresh()
                await ended
            finally:
                ended.cancel()
                await asyncio.gather(ended, return_exceptions=True)

    @contextmanager
    def starting(self, assignment_id: str) -> Iterator[None]:
        """While we start it, that it is there is no news: the answer tells how it stands."""
        self._starting.add(assignment_id)
        try:
            yield
        finally:
            self._starting.discard(assignment_id)

    async def _follow(self, happenings: AsyncIterator[Happening]) -> None:
        async for happening in happenings:
            if (
                happening.action in ("create", "start")
                and happening.assignment_id in self._starting
            ):
                continue
            log.debug("worker %s: %s %s", self.id, happening.action, happening.assignment_id)
            try:
                await self.look(happening.assignment_id)
            except Indeterminate:
                self.poke()  # a whole look says whether the worker is still there

    async def _close_quietly(self) -> None:
        try:
            await self.engine.close()
        except CloudaiError as error:
            log.debug("worker %s: closing: %s", self.id, error)

    def _mark(self, reach: Reach, error: CloudaiError | None) -> None:
        if reach is Reach.ACTIVE and self.reach is Reach.ACTIVE:
            return
        if reach is Reach.ACTIVE:
            log.info("worker %s: active", self.id)
            self.since = None
        elif self.reach is not reach or self.since is None:
            self.since = self.since or datetime.now(UTC)
            log.warning("worker %s: %s: %s", self.id, reach, error)
        self.reach, self.error = reach, error
        self._changed()


def _same(one: WorkerSight, other: WorkerSight) -> bool:
    """The same machine and engine."""
    return (one.machine_id, one.engine.id) == (other.machine_id, other.engine.id)
