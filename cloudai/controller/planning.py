"""Keeps the scheduler's board in step with the fleet and the queue. Nothing is decided here:
what links saw and what the store holds goes in, a plan comes out.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from cloudai.core.model import ContainerSight, State, Strategy, Task
from cloudai.core.policy import Policy
from cloudai.core.schedule import (
    Ask,
    Board,
    Place,
    Plan,
    Reservation,
    Running,
    Use,
    Why,
    ask_of,
    in_one_line,
    why,
)
from cloudai.core.usage import Used, gpu_hours_within, kind_of, use_of
from cloudai.service import Service

from .fleet import Fleet, free_now, hold_of, why_closed
from .groups import comes_again
from .link import Link

NONE: Mapping[str, str] = {}
NO_USE = [0.0, 0.0, 0.0]
SLICE = 1000
"""Tasks that are looked at before others get a word in: some milliseconds."""


class Planner:
    """One board, for as long as the policy stays the same."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.board = Board()
        self._places: dict[str, Place] = {}
        self._asks: dict[str, Ask] = {}
        self._positions: dict[str, int] = {}
        self._touched: set[str] = set()
        """Workers on the board that hold what was only planned."""

    # ---------------------------------------------------------------- in step

    def follow_policy(self, policy: Policy) -> None:
        """Ops decided otherwise: everything is looked at anew."""
        if policy != self.board.policy:
            self.board = Board(policy)
            self._places, self._asks = {}, {}

    def follow(
        self,
        active: Sequence[Task],
        *,
        store_id: str,
        closed: Mapping[str, str],
        reserved: Mapping[str, Sequence[Reservation]],
    ) -> None:
        """The workers as they are now. ``closed``: why they take no tasks, beyond what links
        know; ``reserved``: parts that are kept for somebody, by worker."""
        assigned: dict[str, list[Task]] = {}
        for task in active:
            if task.state.assigned and task.worker_id is not None:
                assigned.setdefault(task.worker_id, []).append(task)
        present = {link.id: link for link in self.fleet.workers()}
        for gone in self._places.keys() - present.keys():
            self.board.drop(gone)
            del self._places[gone]
        for worker_id, link in present.items():
            place = place_of(
                link,
                assigned.get(worker_id, ()),
                store_id=store_id,
                closed=closed.get(worker_id, ""),
                reserved=tuple(reserved.get(worker_id, ())),
            )
            if place != self._places.get(worker_id) or worker_id in self._touched:
                self._places[worker_id] = place
                self.board.see(place)
        self._touched.clear()

    async def queue(
        self,
        waiting: Iterable[Task],
        active: Iterable[Task],
        refused: Mapping[str, Mapping[str, str]],
        now: datetime,
        held: Mapping[str, str] = NONE,
    ) -> None:
        """The tasks that wait, in the order of submission, of all that are ``active``.
        ``refused``: task -> worker -> why it was not admitted there a moment ago. ``held``: why
        some are not to be placed yet, whatever is free. Whoever asks something meanwhile is
        answered: a hundred thousand take a second."""
        # Who of a group has ended is not waited for, nor who has gone ahead and comes again.
        sizes = Counter(
            task.spec.group
            for task in active
            if task.spec.group is not None and not comes_again(task)
        )
        asks: dict[str, Ask] = {}
        for at, task in enumerate(waiting):
            if at % SLICE == SLICE - 1:
                await asyncio.sleep(0)
            known = self._asks.get(task.id)
            refusals = refused.get(task.id, NONE)
            before = held.get(task.id, "")
            plain = not (refusals or before or task.not_before or task.spec.group)
            if known is not None and plain and not known.held and not known.refused:
                asks[task.id] = known  # what a task asks for never changes
                continue
            ask = ask_of(
                task,
                self._positions.setdefault(task.id, len(self._positions)),
                kind=kind_of(task.spec),
                held=before or _held(task, now),
                refused=refusals,
            )
            if ask.group is not None:
                ask = replace(ask, group_size=1 if comes_again(task) else sizes[ask.group])
            asks[task.id] = ask
        for gone in self._asks.keys() - asks.keys():
            self.board.remove(gone)
        for at, (task_id, ask) in enumerate(asks.items()):
            if at % SLICE == SLICE - 1:
                await asyncio.sleep(0)
            known = self._asks.get(task_id)
            if ask is not known and ask != known:
                self.board.add(ask, now.timestamp())
        self._asks = asks

    async def follow_use(self, service: Service, active: Sequence[Task], now: datetime) -> None:
        """What everybody has used up to now, and how long tasks of the kinds that wait for the
        fastest worker took on each."""
        past = await service.usage(now, self.board.policy.half_life)
        hours = await service.gpu_hours(now)
        self.board.set_use(use_by_user(active, past, hours, now, self.board.policy.half_life))
        fast = Strategy.PERFORMANCE_OPTIMIZED
        kinds = {
            ask.shape.kind
            for ask in self._asks.values()
            if (ask.shape.strategy or self.board.policy.strategy) is fast
        }
        seconds = {}
        for kind in sorted(kinds):
            for worker_id, mean in (await service.run_times(kind)).items():
                seconds[kind, worker_id] = mean
        self.board.set_run_times(seconds)

    # ---------------------------------------------------------------- asked

    def plan(self, now: datetime) -> Plan:
        """What to do now."""
        plan = self.board.plan(now.timestamp())
        for placing in plan.placements:
            self._touched.add(placing.worker_id)
            self._asks.pop(placing.task_id, None)
        return plan

    def why(self, task_id: str, now: datetime) -> Why:
        """Everything that keeps a task waiting. Raises ``KeyError`` for one that does not."""
        return why(self.board, task_id, now.timestamp())

    def where(self, tasks: Sequence[Task], now: datetime) -> tuple[dict[str, str], str]:
        """Where tasks that are not in the queue would go now, one alone or all of a group: by
        id, or none of them and why. All stays as it was. They come after everything that
        waits."""
        asks = [ask_of(task, len(self._positions), kind=kind_of(task.spec)) for task in tasks]
        for ask in asks:
            self.board.add(ask, now.timestamp())
        try:
            places = self.board.workers.places
            found = self._where(asks, now.timestamp())
            if found is not None:
                return {task: places[i].worker_id for task, i in found.items()}, ""
            return {}, in_one_line(self.board, asks[0], now.timestamp())
        finally:
            for ask in asks:
                self.board.remove(ask.id)

    def _where(self, asks: list[Ask], now: float) -> dict[str, int] | None:
        if len(asks) > 1:
            return self.board.lay_out(asks)
        ask = asks[0]
        if self.board.shares.over_quota(ask.user, ask.shape.resources):
            return None
        i = self.board.finder.find(ask, self.board.need(ask.shape), now)
        return None if i is None else {ask.id: i}

    def user_of(self, task_id: str) -> str:
        """Whose a waiting task is; empty for one that does not wait."""
        ask = self._asks.get(task_id)
        return ask.user if ask is not None else ""

    def could_go(self, task: Task) -> set[str]:
        """Open workers on which the task would fit if nothing else were there."""
        need = self.board.need(ask_of(task, 0).shape)
        large = self.board.workers.large_enough(need)
        places = self.board.workers.places
        return {place.worker_id for place, able in zip(places, large, strict=True) if able}


def use_by_user(
    active: Iterable[Task],
    past: Mapping[str, Used],
    gpu_hours: Mapping[str, float],
    now: datetime,
    half_life: float,
) -> dict[str, Use]:
    """Past use, and that of what still runs."""
    sums = {user: [one.cpu, one.memory, one.gpu] for user, one in past.items()}
    hours = dict(gpu_hours)
    for task in active:
        if task.started_at is None or not task.state.assigned:
            continue
        user, need = task.spec.user_id, task.spec.resources
        one = use_of(need, task.started_at, now, now=now, half_life=half_life)
        so_far = sums.setdefault(user, [0.0, 0.0, 0.0])
        for at, amount in enumerate((one.cpu, one.memory, one.gpu)):
            so_far[at] += amount
        more = gpu_hours_within(need, task.started_at, now, now=now)
        hours[user] = hours.get(user, 0.0) + more
    return {
        user: Use(
            cpu_seconds=sums.get(user, NO_USE)[0],
            memory_seconds=sums.get(user, NO_USE)[1],
            gpu_seconds=sums.get(user, NO_USE)[2],
            gpu_hours_today=hours.get(user, 0.0),
        )
        for user in sums.keys() | hours.keys()
    }


def _held(task: Task, now: datetime) -> str:
    """Why it is not to be placed yet, whatever is free."""
    if task.not_before is not None and task.not_before > now:
        begins = task.not_before.astimezone()
        today = begins.date() == now.astimezone().date()
        return task.reason or f"not before {begins:%H:%M}" + (
            "" if today else f"{begins: on %Y-%m-%d}"
        )
    return ""


def place_of(
    link: Link,
    tasks: Sequence[Task],
    *,
    store_id: str,
    closed: str = "",
    reserved: tuple[Reservation, ...] = (),
) -> Place:
    """A worker as the scheduler sees it: what links and the store know of it."""
    closed = why_closed(link, False) or closed
    free = None if closed else free_now(link, [hold_of(task) for task in tasks])
    sight = link.sight
    index = {device.uuid: i for i, device in enumerate(free.devices)} if free else {}
    mine = {task.id for task in tasks}
    running = [running_of(task, index) for task in tasks]
    running += [
        stranger_of(container, index, ours=container.store_id == store_id)
        for container in link.containers()
        if container.holds and container.task_id not in mine
    ]
    return Place(
        worker_id=link.id,
        free=free,
        closed=closed,
        labels=link.spec.labels,
        pools=link.spec.groups,
        images=sight.images if sight else frozenset(),
        load=sight.load / max(1, sight.cpus) if sight else 0.0,
        running=tuple(running),
        reserved=reserved,
    )


def running_of(task: Task, index: Mapping[str, int]) -> Running:
    """A task of ours that holds a part of a worker. ``index``: where each GPU stands."""
    hold, spec = hold_of(task), task.spec
    began = task.started_at or (task.assignment.placed_at if task.assignment else task.created_at)
    limit = spec.time_limit
    return Running(
        id=task.id,
        user=spec.user_id,
        resources=spec.resources,
        wish=hold.wish,
        name=spec.name,
        priority=spec.priority,
        preemptible=spec.preemptible and not task.direct and spec.group is None,
        ending=task.state is State.STOPPING,
        started=began.timestamp(),
        ends=began.timestamp() + limit if limit is not None else None,
        devices=_devices(task.assignment.gpus if task.assignment else (), index),
    )


def stranger_of(container: ContainerSight, index: Mapping[str, int], *, ours: bool) -> Running:
    """A container that no active task here claims: another cloudai's, or a leftover."""
    started = container.started_at or container.created_at or datetime.fromtimestamp(0, UTC)
    return Running(
        id=container.task_id,
        user=container.user_id,
        resources=container.held,
        name=container.task_name or None,
        ours=ours,
        ending=ours,
        started=started.timestamp(),
        devices=_devices(container.gpus, index),
    )


def _devices(uuids: Iterable[str], index: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(index[uuid] for uuid in uuids if uuid in index)
