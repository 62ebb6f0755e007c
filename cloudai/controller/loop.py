"""The loop: observe ► reconcile ► schedule ► start. It decides nothing itself.

Woken by a submit, by what a link saw, by an effect that ended, and by time; a pass reads what
is unfinished from the store, asks ``core`` what that means, and starts effects, at most one a
task at a time. Kill it between any two lines: the next one observes and goes on.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

from cloudai.core.errors import CloudaiError, Insufficient, WorkerNotFound
from cloudai.core.lifecycle import Placed, StopAsked
from cloudai.core.lost import given_up
from cloudai.core.model import ContainerSight, Resources, State, Task, TaskSpec, WorkerSpec
from cloudai.core.policy import Policy
from cloudai.core.reconcile import Sighting, Wait, reconcile
from cloudai.core.schedule import never_within
from cloudai.crash import point
from cloudai.engines import Engine, ImageSource, NoImages
from cloudai.inventory import InventoryFile
from cloudai.service import Batches, Service, now

from .absences import Absences
from .collect import Collector
from .effects import Effects
from .fleet import Fleet
from .groups import Groups
from .link import Link, Reach
from .needs import Needs
from .planning import Planner
from .schedules import Schedules
from .setbacks import Setbacks
from .sharing import Sharing
from .shipping import Shipping
from .signals import Signal, wait

log = logging.getLogger(__name__)

TICK = 1.0
"""Seconds between passes when nothing wakes the loop: time limits and inventory edits."""
CALM = 40
RAREST = 10.0
"""... and so many times as long as the last pass took, up to seconds: a pass over ten thousand
tasks that wait for nothing but their end is not worth more."""
HEAVY = 0.05
BREATH = 0.5
"""Seconds: after a pass longer than the first, twice its time, the second at the most, is left to
links and people, however much happens."""
REFUSED_FOR = 5.0
"""Seconds for which a worker that did not admit a task is not asked for it again; doubled each
time it still does not, so that a registry that is away does not fill the task's story."""
REFUSED_AT_MOST = 60.0
SIZES_EVERY = 10.0
"""Seconds between measurements where a storage limit can only be watched."""


class Refusal(NamedTuple):
    """That a worker did not admit a task: by which assignment, why, when, and for how long it
    counts where nothing there comes to its end before."""

    number: int
    why: str
    at: float
    """Monotonic."""
    pause: float


class Controller:
    """Owns the links and everything that runs. One a home.

    ``connect`` makes a worker's engine: the seam at which tests put the fake one. ``images``:
    what this machine's own engine has, to be sent to workers.
    """

    def __init__(
        self,
        service: Service,
        inventory: InventoryFile,
        connect: Callable[[WorkerSpec], Engine],
        *,
        embedded: Callable[[], WorkerSpec | None] = lambda: None,
        images: ImageSource | None = None,
    ) -> None:
        self.service = service
        self.inventory = inventory
        service.types.inventory = lambda: self.inventory.path
        self.embedded = embedded
        """The worker to use where there is no inventory at all: this machine's engine."""
        self.fleet = Fleet(connect, changed=self.wake)
        self.collector = Collector(service.archive, self.fleet.get)
        self.planner = Planner(self.fleet)
        self.groups = Groups()
        self.sharing = Sharing(service, self.fleet, changed=self.wake)
        self.setbacks = Setbacks()
        self.needs = Needs(service)
        self.shipping = Shipping(images or NoImages())
        self.schedules = Schedules(
            service, functools.partial(Batches(service).submit, check=self.check_targets)
        )
        self.effects = Effects(
            service,
            self.collector,
            could_go=self.planner.could_go,
            refused=self._keep_refusal,
            setbacks=self.setbacks,
            peers=self._peers,
            shipping=self.shipping,
        )
        self.absences = Absences()
        self.policy = Policy()
        """What ops decided, as the inventory says it."""
        self.waiting: Mapping[str, str] = {}
        """task -> why it waits, from the latest pass."""
        self.draining: set[str] = set()
        self.inventory_error: str | None = None
        self._wake = asyncio.Event()
        self._begun = self._done = 0
        """Passes."""
        self._passed = Signal()
        self.ends = Signal()
        """A task has ended."""
        self._busy: dict[str, asyncio.Task[None]] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._tidying: asyncio.Task[None] | None = None
        self._touched: dict[str, float] = {}
        self._active: list[Task] = []
        self._refused: dict[tuple[str, str], Refusal] = {}
        self._signals: dict[str, Signal] = {}
        self._measured: dict[str, float] = {}
        self._needed: set[str] = set()
        """Workers that hold tasks of ours, in the inventory or not."""
        self.idle_since = time.monotonic()
        """Since when nothing is queued or on a worker; moved on by every pass that has work."""
        service.changed = self._task_changed
        service.allow = self._allow
        service.image_id = self.shipping.image_id

    # ---------------------------------------------------------------- waking and waiting

    def wake(self) -> None:
        """Makes a pass happen soon."""
        self._wake.set()

    def _task_changed(self, task: Task) -> None:
        self._touched[task.id] = time.monotonic()
        self.effects.changed(task)
        self.needs.changed(task)
        if task.state.final:
            self.ends.fire()
        if signal := self._signals.get(task.id):
            signal.fire()
        self.wake()

    def _keep_refusal(self, task: Task, why: str) -> None:
        assert task.assignment is not None
        held = task.assignment
        before = self._refused.get((task.id, held.worker_id))
        if before is not None and before.number == held.number:
            return
        pause = min(REFUSED_AT_MOST, 2 * before.pause) if before else REFUSED_FOR
        self._refused[task.id, held.worker_id] = Refusal(held.number, why, time.monotonic(), pause)

    async def wait_for(self, task_id: str, done: Callable[[Task], bool], *, timeout: float) -> Task:
        """The task once ``done`` holds, or as it stands after ``timeout`` seconds."""
        signal = self._signals.setdefault(task_id, Signal())
        deadline = time.monotonic() + timeout
        while True:
            ear = signal.listen()
            task = await self.service.find(task_id)
            left = deadline - time.monotonic()
            if done(task) or left <= 0:
                if task.state.final:
                    self._signals.pop(task_id, None)
                return task
            await ear.wait(left)

    async def whole_pass(self, timeout: float) -> None:
        """Waits, at most so many seconds, for a pass that begins after this was asked."""
        wanted, deadline = self._begun + 1, time.monotonic() + timeout
        while self._done < wanted and (left := deadline - time.monotonic()) > 0:
            ear = self._passed.listen()
            self.wake()
            await ear.wait(left)

    @property
    def has_looked(self) -> bool:
        """Whether it has planned at all since it began."""
        return self._done > 0

    # ---------------------------------------------------------------- the loop

    async def begin(self) -> None:
        """Knows its workers; call it before anybody may ask."""
        self.draining = await self.service.in_thread(self.service.store.draining)
        await self.sharing.load()
        self.follow_inventory()
        await self.schedules.load()
        active, _ = await self.service.unfinished()
        for task in active:
            if task.direct and task.state is State.QUEUED:
                # Whoever dispatched it has had no answer, and nothing ever takes it up again.
                why = "the controller ended before it was sent to its worker; dispatch it again"
                await self.service.record(task, StopAsked(at=now(), reason=why))

    async def run(self) -> None:
        """Runs until cancelled. Leaves everything on the workers as it is."""
        self._in_background(self.schedules.run())
        try:
            while True:
                self._wake.clear()
                self._begun += 1
                began = time.monotonic()
                try:
                    await self._pass()
                    self._done = self._begun
                    self._passed.fire()
                except CloudaiError as error:
                    log.error("pass given up, tried again: %s", error)
                    await asyncio.sleep(TICK)
                except Exception:
                    log.exception("pass given up, tried again: a mistake of ours")
                    await asyncio.sleep(TICK)
                took = time.monotonic() - began
                if took > HEAVY:
                    await asyncio.sleep(min(2 * took, BREATH))
                await wait(self._wake, max(TICK, min(CALM * took, RAREST)))
        finally:
            working = [*self._busy.values(), *self._background]
            for work in working:
                work.cancel()
            await asyncio.gather(*working, return_exceptions=True)
            await self.fleet.close()

    async def _pass(self) -> None:
        began = time.monotonic()
        active, ended = await self.service.unfinished()
        self._active = active
        unfinished = [*active, *ended]
        self._needed = {task.worker_id for task in unfinished if task.worker_id is not None}
        self.follow_inventory()
        if unfinished:
            self.idle_since = time.monotonic()
        self.absences.count(self.fleet)
        for task in unfinished:
            # What changed since it was read is another pass's business: that change woke it.
            if self._touched.get(task.id, float("-inf")) <= began:
                self._reconcile(task)
        await self._give_up(active)
        await self._strays(
            {t.assignment.id for t in unfinished if t.assignment and t.state is not State.QUEUED}
        )
        await self._schedule(active)
        self._watch_sizes(active)
        self._tidy_files()
        self._forget_old()

    def link(self, worker_id: str) -> Link:
        """Raises ``WorkerNotFound``. An edit of a moment ago counts."""
        try:
            return self.fleet.link(worker_id)
        except WorkerNotFound:
            self.follow_inventory()
            return self.fleet.link(worker_id)

    def follow_inventory(self) -> None:
        """Takes over the inventory as it stands; a bad edit keeps the last good one."""
        snapshot = self.inventory.read()
        if snapshot.error != self.inventory_error:
            if snapshot.error:
                log.error("inventory: %s", snapshot.error)
            self.inventory_error = snapshot.error
        self.policy = snapshot.policy
        specs = dict(snapshot.workers)
        if not specs and snapshot.error is None and (local := self.embedded()) is not None:
            specs = {local.id: local}
        self.fleet.follow(specs, needed=self._needed)

    def _reconcile(self, task: Task) -> None:
        """One that is over is so for one assignment, and may go on elsewhere meanwhile: what is
        done for it keeps only that assignment busy."""
        if task.assignment is None or task.state is State.QUEUED:
            return
        key = task.assignment.id if task.state.final else task.id
        link = self.fleet.get(task.assignment.worker_id)
        if link is None or key in self._busy:
            return
        sighting = link.sighting(task.assignment.id, self._touched.get(task.id, float("-inf")))
        action = reconcile(task, sighting, now())
        if not isinstance(action, Wait):
            self._do(key, self.effects.carry_out(task, link, action))

    async def _give_up(self, active: list[Task]) -> None:
        """Assignments whose worker stays out of reach, where their user chose so beforehand."""
        for task in active:
            if task.worker_id is None or task.id in self._busy:
                continue
            lost = given_up(task, self.absences.of(task.worker_id), now())
            if lost is not None:
                log.warning("%s: %s", task.id, lost.reason)
                await self.service.record(task, lost)

    def _do(self, task_id: str, work: Coroutine[object, object, None]) -> None:
        """Runs one effect for a task, or for an assignment of one that is over; no other starts
        for it meanwhile."""
        running = asyncio.ensure_future(self._see_through(task_id, work))
        self._busy[task_id] = running

        def done(_: asyncio.Future[None]) -> None:
            self._busy.pop(task_id, None)
            work.close()  # where this ended before it began: nobody else lets go of it
            self.wake()

        running.add_done_callback(done)

    async def _see_through(self, task_id: str, work: Awaitable[None]) -> None:
        """An effect that fails here (a full disk at home, say) is tried again, not at once."""
        try:
            await work
            return
        except CloudaiError as error:
            log.error("%s: %s", task_id, error)
        except Exception:
            log.exception("%s: a mistake of ours", task_id)
        await asyncio.sleep(TICK)

    # ---------------------------------------------------------------- placing

    async def _schedule(self, active: list[Task]) -> None:
        waiting = [
            task
            for task in active
            if task.state is State.QUEUED and not task.direct and task.id not in self._busy
        ]
        moment, unfinished = now(), {task.id for task in active}
        self._refused = {key: one for key, one in self._refused.items() if key[0] in unfinished}
        self.planner.follow_policy(self.policy)
        self.planner.follow(
            active,
            store_id=self.service.store.id,
            closed=self._closed(),
            reserved=self.sharing.by_worker(moment),
        )
        held, never = await self.needs.look(waiting, active, moment)
        await self.planner.queue(waiting, active, self._refusals(), moment, held)
        if waiting:
            await self.planner.follow_use(self.service, active, moment)
        plan = self.planner.plan(moment)
        self.waiting = plan.waiting
        by_id = {task.id: task for task in active}
        self.groups.laid_out(plan, by_id)
        for placing in plan.placements:
            await self.place(by_id[placing.task_id], placing.worker_id)
        for victim in plan.preempt:
            await self._stop_for_another(by_id.get(victim.task_id), victim.reason)
        for task, why in self.groups.half_started(active, set(self._busy)):
            await self._stop_for_another(task, why)
        if never:
            await self.service.record_all(never)

    async def _stop_for_another(self, task: Task | None, why: str) -> None:
        """It goes back to the queue once it has ended."""
        if task is not None:
            log.info("%s: %s", task.id, why)
            await self.service.record(task, StopAsked(at=now(), reason=why, requeue=True))

    def _peers(self, task: Task) -> tuple[str, ...]:
        """The addresses of the workers of a task's group, by rank."""
        links = [self.fleet.get(worker) for worker in self.groups.workers(task, self._active)]
        return tuple(link.engine.address if link else "" for link in links)

    def _allow(self, specs: Sequence[TaskSpec]) -> None:
        """Raises ``Insufficient`` for what would wait for ever, over its user's quota."""
        user, whole = specs[0].user_id, sum((spec.resources for spec in specs), Resources())
        if never := never_within(self.policy.quota(user), whole, len(specs)):
            raise Insufficient(
                f"Over the quota of {user}, whatever is free: {never}",
                hint="quotas stand under `scheduling:` in the inventory",
            )

    def check_targets(self, specs: Sequence[TaskSpec]) -> None:
        """Raises ``WorkerNotFound`` for a target that is no worker."""
        for target in sorted({spec.target for spec in specs if spec.target is not None}):
            self.link(target)

    def _closed(self) -> dict[str, str]:
        """Workers that take no tasks though they can be reached, and why."""
        return {**self.setbacks.set_aside(), **dict.fromkeys(self.draining, "draining")}

    def _refusals(self) -> dict[str, dict[str, str]]:
        """task -> worker -> why it did not admit it a moment ago."""
        refusals: dict[str, dict[str, str]] = {}
        for (task_id, worker_id), one in self._refused.items():
            if self._counts(worker_id, one):
                refusals.setdefault(task_id, {})[worker_id] = one.why
        return refusals

    def _counts(self, worker_id: str, refusal: Refusal) -> bool:
        link = self.fleet.get(worker_id)
        freed = link is not None and link.freed_at > refusal.at
        return not freed and time.monotonic() < refusal.at + refusal.pause

    async def place(self, task: Task, worker_id: str) -> Task | None:
        """Commits a task to a worker, then starts it there."""
        point("place.before")
        placed = await self.service.record(task, Placed(at=now(), worker_id=worker_id))
        point("place.recorded")
        if placed is not None and placed.assignment is not None:
            self.effects.placed(placed.assignment.id)
        link = self.fleet.get(worker_id)
        if placed is not None and link is not None and link.reach is Reach.ACTIVE:
            # Nothing of that name can be there yet: no need to look first.
            action = reconcile(placed, Sighting(seen=True, confirmed=True), now())
            if not isinstance(action, Wait):
                self._do(placed.id, self.effects.carry_out(placed, link, action))
        return placed

    # ---------------------------------------------------------------- strays and limits

    async def _strays(self, known: set[str]) -> None:
        """Containers of ours that no unfinished task claims: late effects of an assignment
        that is over. Ones of tasks that this store does not know are left alone (promise 7)."""
        for link in self.fleet:
            if link.reach is not Reach.ACTIVE:
                continue
            for container in link.containers():
                mine = container.store_id == self.service.store.id
                claimed = container.assignment_id in known or container.assignment_id in self._busy
                if mine and not claimed:
                    await self._settle(container, link)

    async def _settle(self, container: ContainerSight, link: Link) -> None:
        try:
            # In this order: an assignment that is read here is not newer than the task.
            assignments = await self.service.in_thread(
                self.service.store.assignments, container.task_id
            )
            task = await self.service.in_thread(self.service.store.get, container.task_id)
        except CloudaiError:
            return
        present = task.assignment
        if task.state.assigned and present and present.id == container.assignment_id:
            return  # placed since this pass began
        for assignment in assignments:
            if assignment.id == container.assignment_id and assignment.worker_id == link.id:
                if assignment.container_id not in (None, container.id):
                    return  # somebody else's, under its name
                its = replace(assignment, container_id=container.id)
                past = replace(task, assignment=its, state=State.CANCELLED)
                action = reconcile(past, Sighting(True, container), now())
                if not isinstance(action, Wait):
                    self._do(assignment.id, self.effects.carry_out(past, link, action))

    def _watch_sizes(self, active: list[Task]) -> None:
        """Where the engine cannot limit storage, measures it and stops what is over."""
        watched: dict[str, list[Task]] = {}
        for task in active:
            if task.state is State.RUNNING and task.worker_id is not None:
                watched.setdefault(task.worker_id, []).append(task)
        for worker_id, tasks in watched.items():
            link = self.fleet.get(worker_id)
            due = time.monotonic() - self._measured.get(worker_id, 0.0) >= SIZES_EVERY
            if link is None or link.sight is None or link.reach is not Reach.ACTIVE or not due:
                continue
            if link.sight.engine.storage_limit == "watch":
                self._measured[worker_id] = time.monotonic()
                self._in_background(self._measure(link, tasks))

    async def _measure(self, link: Link, tasks: list[Task]) -> None:
        try:
            sizes = await link.engine.sizes()
        except CloudaiError as error:
            log.info("worker %s: sizes: %s", link.id, error)
            return
        for task in tasks:
            assert task.assignment is not None
            used, limit = sizes.get(task.assignment.id, 0), task.spec.resources.storage
            if used > limit:
                reason = (
                    f"storage limit: {used / 2**30:.2f} GB written,"
                    f" {limit / 2**30:.2f} GB asked for with -storage"
                )
                await self.service.record(task, StopAsked(at=now(), reason=reason))

    def _tidy_files(self) -> None:
        """Workers keep nothing of what tasks brought along that are forgotten."""
        carrier = self.effects.carrier
        if carrier.untidy and (self._tidying is None or self._tidying.done()):
            self._tidying = asyncio.ensure_future(carrier.tidy(self.fleet.get))
            self._in_background(self._tidying)

    def _in_background(self, work: Awaitable[None]) -> None:
        running: asyncio.Task[None] = asyncio.ensure_future(work)
        self._background.add(running)
        running.add_done_callback(self._background.discard)

    def _forget_old(self) -> None:
        """Drops notes about tasks that ended long ago; they live in the store."""
        if len(self._touched) > 10_000:
            horizon = time.monotonic() - 600
            self._touched = {key: at for key, at in self._touched.items() if at > horizon}


def seen_since(link: Link | None) -> tuple[bool, datetime | None]:
    """Whether a task's worker is reached now, and since when it is not."""
    if link is None:
        return False, None
    return link.reach is Reach.ACTIVE, link.since
