"""What a user can do that needs workers: dispatch, look at workers, register, read logs, enter
a container. The tasks' own verbs are the service's.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from cloudai.core.capacity import Hold
from cloudai.core.errors import (
    CloudaiError,
    Conflict,
    EngineFailed,
    HostKeyChanged,
    HostKeyUnknown,
    Insufficient,
    InvalidInput,
    LogUnreadable,
    NotFound,
    StoreFailed,
    WorkerNotActive,
    WorkerNotFound,
    WorkerUnreachable,
)
from cloudai.core.files import container_path
from cloudai.core.lifecycle import StopAsked
from cloudai.core.lost import marked_lost
from cloudai.core.model import Assignment, Batch, OnLost, State, Task, WorkerSpec
from cloudai.core.request import OF_THE_QUEUE
from cloudai.core.schedule import Why
from cloudai.core.symptoms import TELLING, symptom
from cloudai.crash import point
from cloudai.engines import Engine, Finding, Order, Usage
from cloudai.inventory import add_worker, plan_worker, remove_worker
from cloudai.service import Batches, Service, Standing, now
from cloudai.shells import Terminal

from .fleet import holds_by_worker
from .home import examine_home
from .link import Link, Reach
from .loop import Controller
from .sharing import Reserved

log = logging.getLogger(__name__)

FRESH = timedelta(seconds=5)
"""How old what is known of a worker may be before a list of workers has it looked at again."""
FIRST_SIGHT = 5.0
"""Seconds somebody waits, after a start, for workers that were not tried yet."""
LOOK_WITHIN = 15.0
"""Seconds somebody waits for a worker to be looked at; an nvidia-smi that hangs takes ten."""


class HostKeys(Protocol):
    """Pins host keys; see ``shells.ssh``."""

    async def pin(self, spec: WorkerSpec, fingerprint: str) -> str: ...


@dataclass(frozen=True, slots=True)
class WorkerView:
    """A link with what the store and the scheduler know beside it."""

    link: Link
    draining: bool
    holds: Sequence[Hold]
    set_aside: str = ""
    """Why it is given no tasks for a while, where nothing could be started there."""
    reserved: Sequence[Reserved] = ()


class Desk:
    """One method a wish. Raises the errors of ``core.errors``."""

    def __init__(self, controller: Controller, host_keys: HostKeys) -> None:
        self.controller = controller
        self.service: Service = controller.service
        self.host_keys = host_keys
        self.batches = Batches(self.service)

    # ---------------------------------------------------------------- many tasks

    async def submit_batch(
        self, body: Mapping[str, object], *, default_user: str, dry_run: bool = False
    ) -> tuple[Batch, list[Task], bool]:
        """A whole batch; see ``Batches.submit``. Also raises ``WorkerNotFound`` for a target
        that is none."""
        return await self.batches.submit(
            body, default_user=default_user, dry_run=dry_run, check=self.controller.check_targets
        )

    async def standing(self, ref: str, *, until_ended: float = 0.0) -> Standing:
        """How a batch or array stands; once all of it has ended, or after so many seconds."""
        deadline = time.monotonic() + until_ended
        while True:
            ear, began = self.controller.ends.listen(), time.monotonic()
            standing = await self.batches.standing(ref)
            took, left = time.monotonic() - began, deadline - time.monotonic()
            if standing.ended or left <= 0:
                return standing
            await ear.wait(left)
            # Counting a hundred thousand after each of them ended would leave time for no more.
            await asyncio.sleep(10 * took)

    # ---------------------------------------------------------------- dispatch

    async def dispatch(
        self,
        worker_id: str,
        body: Mapping[str, object],
        *,
        default_user: str,
        timeout: float,
    ) -> tuple[Task, bool]:
        """Seed 000: bypasses queue and scheduler. Answers once the container runs or has ended,
        or with the task still ``starting`` after ``timeout`` seconds (an image being pulled);
        and whether it is new, or what the same idempotency key made before.

        A failed dispatch leaves the task ``failed`` with that reason, reserves nothing, and
        raises why, with ``task_id`` in the details.
        """
        target = body.get("target")
        if target not in (None, worker_id):
            raise InvalidInput(f"target is {target!r}, and the dispatch is to {worker_id}")
        _refuse_wishes_for_the_queue(body)
        task, created = await self.service.submit(body, default_user=default_user, direct=True)
        if not created:
            return task, False
        try:
            await self._check(worker_id, timeout)
        except CloudaiError as error:
            error.details["task_id"] = task.id
            await self.service.record(task, StopAsked(at=now(), reason=error.message))
            raise
        await self.controller.place(task, worker_id)
        placed = await self.controller.wait_for(task.id, has_left_starting, timeout=timeout)
        return placed, True

    async def _check(self, worker_id: str, timeout: float) -> None:
        link = self.controller.link(worker_id)
        if worker_id in self.controller.draining:
            raise WorkerNotActive(worker_id, why="it is draining; `cloudai resume` opens it again")
        await link.ensure(timeout)
        # Only now: that it is another worker's machine shows at the first sight of it.
        if link.twin:
            raise WorkerNotActive(worker_id, why=link.reason)

    # ---------------------------------------------------------------- workers

    async def workers(self, *, refresh: bool = False) -> list[WorkerView]:
        """All of the inventory, in its order. ``refresh``: probed first, reachable or not; else
        as last seen, and what is not fresh is looked at again for whoever asks next."""
        links = self.controller.fleet.workers()
        if refresh:
            await asyncio.gather(*(self._refresh(link) for link in links))
        for link in links:
            if link.reach is Reach.ACTIVE and link.seen_at and now() - link.seen_at > FRESH:
                link.poke()
        return [await self.view(link) for link in links]

    async def settled(self, timeout: float) -> None:
        """Waits, at most so many seconds, until every worker was tried once."""
        connecting = [
            link for link in self.controller.fleet.workers() if link.reach is Reach.CONNECTING
        ]
        await asyncio.gather(*(link.ensure(timeout) for link in connecting), return_exceptions=True)

    async def _refresh(self, link: Link) -> None:
        """Looks now. One that is slow to answer stands as last seen: its link goes on asking,
        and finds out whether it is still there."""
        try:
            async with asyncio.timeout(LOOK_WITHIN):
                if link.reach is Reach.ACTIVE:
                    await link.refresh()
                else:
                    await link.ensure(10)
        except TimeoutError:
            link.poke()
        except CloudaiError as error:
            link.lost(error)

    async def view(self, link: Link) -> WorkerView:
        active = await self.service.active()
        controller, holds = self.controller, holds_by_worker(active).get(link.id, [])
        return WorkerView(
            link,
            link.id in controller.draining,
            holds,
            controller.setbacks.set_aside().get(link.id, ""),
            self.reservations(link.id),
        )

    async def worker(self, worker_id: str) -> tuple[WorkerView, Mapping[str, Usage]]:
        """One in depth: probed now, with what its containers use. As last seen when it cannot
        be reached."""
        link = self.controller.link(worker_id)
        await self._refresh(link)
        running = [container.id for container in link.containers() if container.holds]
        usage: Mapping[str, Usage] = {}
        if link.reach is Reach.ACTIVE and running:
            try:
                usage = await link.engine.usage(running)
            except EngineFailed:
                usage = {}
            except WorkerUnreachable as error:
                link.lost(error)
        return await self.view(link), usage

    async def set_draining(self, worker_id: str, draining: bool) -> WorkerView:
        """No new tasks there, or again."""
        link = self.controller.link(worker_id)
        await self.service.in_thread(self.service.store.set_draining, worker_id, draining, now())
        self.controller.draining = await self.service.in_thread(self.service.store.draining)
        if not draining:
            link.poke()
        self.controller.wake()
        return await self.view(link)

    async def doctor(self, worker_id: str) -> tuple[Finding, ...]:
        """Every check of a worker with its mend."""
        link = self.controller.link(worker_id)
        findings = await examine(link.engine)
        link.poke()
        if link.twin:
            twin = f"the same machine and engine as {link.twin}: both would be booked"
            mend = f"remove {worker_id} or {link.twin} from the inventory"
            findings = (*findings, Finding(check="one machine", ok=False, found=twin, mend=mend))
        return findings

    async def examine_home(self) -> tuple[Finding, ...]:
        """Every check of this machine with its mend."""
        return await examine_home(
            self.service,
            inventory=self.controller.inventory.path,
            inventory_error=self.controller.inventory_error,
            workers=len(self.controller.fleet.workers()),
        )

    # ---------------------------------------------------------------- the scheduler asked

    async def why(self, task: Task) -> Why | None:
        """Everything that keeps a task waiting; ``None`` for one that does not wait."""
        if task.state is not State.QUEUED:
            return None
        try:
            return self.controller.planner.why(task.id, now())
        except KeyError:
            # It came a moment ago, or goes somewhere just now.
            await self.controller.whole_pass(LOOK_WITHIN)
        try:
            return self.controller.planner.why(task.id, now())
        except KeyError:
            return None

    async def where(self, tasks: Sequence[Task]) -> tuple[Mapping[str, str], str]:
        """Where tasks that are not queued would go now, by id, or why they would wait."""
        links = self.controller.fleet.workers()
        connecting = any(link.reach is Reach.CONNECTING for link in links)
        await self.settled(FIRST_SIGHT)
        if connecting or not self.controller.has_looked:
            await self.controller.whole_pass(LOOK_WITHIN)
        return self.controller.planner.where(tasks, now())

    def reservations(self, worker_id: str | None = None) -> list[Reserved]:
        """All that hold, or those on one worker, with what is used and lent of each."""
        return self.controller.sharing.told(self.controller.planner.board, now(), worker_id)

    async def reserve(self, body: Mapping[str, object], *, default_user: str) -> Reserved:
        """Keeps a part of a worker; see ``Sharing.reserve``."""
        made = await self.controller.sharing.reserve(
            body, default_user=default_user, patience=LOOK_WITHIN
        )
        return next(one for one in self.reservations() if one.reservation.id == made.id)

    async def unreserve(self, reservation_id: str) -> None:
        """Gives it back. Raises ``NotFound``."""
        await self.controller.sharing.give_back(reservation_id)

    # ---------------------------------------------------------------- registering

    async def register(
        self, spec: WorkerSpec, *, fingerprint: str | None
    ) -> tuple[WorkerView, tuple[Finding, ...]]:
        """Pins the host key, runs the doctor, writes the inventory keeping its comments. For
        one that stands there already and does not trust its host key yet: pins and checks.

        Raises ``HostKeyUnknown`` with the fingerprint where none is given and none is known;
        nothing is written where the worker cannot be reached.
        """
        fleet = self.controller.fleet
        path = self._inventory_path()
        known = fleet.get(spec.id)
        is_new = known is None or known.retired
        if known is not None and not is_new:
            if known.reach is Reach.CONNECTING:
                # The controller may have begun with this very command: what its host shows is
                # not known yet.
                await asyncio.gather(known.ensure(10), return_exceptions=True)
            spec = _to_be_trusted(known, asked=spec)
        else:
            # Reached now as it will be once it stands in the file, whose defaults are its own.
            spec = await self.service.in_thread(plan_worker, path, spec)
        if fingerprint is not None and spec.connection == "ssh":
            await self.host_keys.pin(spec, fingerprint)
        point("register.pinned")
        engine = self.controller.fleet.connect(spec)
        try:
            sight = await engine.probe()
            findings = await engine.doctor()
        finally:
            await engine.close()
        for link in fleet.workers():
            if link.sight is None or link is known:
                continue
            same = (link.sight.machine_id, link.sight.engine.id)
            if same == (sight.machine_id, sight.engine.id):
                raise Conflict(
                    f"{spec.host} is the same machine and engine as {link.id}",
                    hint=f"use {link.id}, or unregister it first",
                )
        if is_new:
            await self.service.in_thread(add_worker, path, spec)
        point("register.written")
        self.controller.follow_inventory()
        link = fleet.link(spec.id)
        await asyncio.gather(link.ensure(15), return_exceptions=True)
        return await self.view(link), findings

    def _inventory_path(self) -> Path:
        snapshot = self.controller.inventory.read()
        if snapshot.error:
            raise Conflict(
                "the inventory has a mistake; nothing was written",
                hint=snapshot.error,
            )
        assert snapshot.path is not None
        return snapshot.path

    async def unregister(self, worker_id: str) -> None:
        """Takes a worker out of the inventory. Raises ``Conflict`` while it holds tasks."""
        link = self.controller.link(worker_id)
        active = await self.service.active()
        holds = [hold.task_id for hold in holds_by_worker(active).get(worker_id, [])]
        if holds:
            raise Conflict(
                f"Worker {worker_id} holds {len(holds)} of your tasks: {', '.join(holds[:3])}",
                hint=f"first: cloudai drain {worker_id}, and wait for or cancel them",
            )
        if link.id in await asyncio.to_thread(self.service.files.workers):
            await self.controller.effects.carrier.forget(link, even_needed=True)
        await self.service.in_thread(remove_worker, self._inventory_path(), worker_id)
        self.controller.follow_inventory()

    # ---------------------------------------------------------------- tasks on workers

    async def logs(
        self,
        task: Task,
        *,
        since: int = 0,
        tail: int | None = None,
        follow: bool = False,
        marks: bool = True,
        number: int | None = None,
    ) -> AsyncGenerator[bytes, None]:
        """A task's log as the container wrote it: what is home, what is new on the worker, and
        with ``follow`` what is still to come, however long its worker is away. ``since`` in
        nanoseconds. Raises before the first byte when the worker cannot be reached and nothing
        is home, unless there is more to follow. ``marks``: with a line where something is
        missing. ``number``: of that assignment, where it is not the latest one; raises
        ``NotFound`` where there is none."""
        if number is not None:
            task = await self._as_assigned(task, number)
        if not follow or has_container_or_end(task):
            await self._catch_up(task, follow=follow)
        return self._stream_log(task, since, tail, follow=follow, marks=marks)

    async def _as_assigned(self, task: Task, number: int) -> Task:
        """The task with that assignment in place of its latest; an earlier one is over."""
        if task.assignment is not None and task.assignment.number == number:
            return task
        every = await self.service.in_thread(self.service.store.assignments, task.id)
        for one in every:
            if one.number == number:
                return replace(task, assignment=one, state=State.CANCELLED)
        known = ", ".join(str(one.number) for one in every) or "none yet"
        raise NotFound(f"Task {task.id} has no try {number}", hint=f"there are: {known}")

    async def symptom(self, task: Task) -> str:
        """What the end of a failed task's log, as far as it is home, says about its worker."""
        if task.state is not State.FAILED or task.assignment is None:
            return ""
        try:
            end = await asyncio.to_thread(self._end_of_log, task.assignment)
        except StoreFailed as error:
            log.warning("the end of the log of %s: %s", task.id, error)
            return ""
        return symptom(task, end)

    def _end_of_log(self, held: Assignment) -> bytes:
        archive = self.service.archive
        size = archive.size(held.task_id, held.number)
        begin = max(0, size - TELLING)
        return b"".join(archive.read_from(held.task_id, held.number, begin, marks=False))

    async def _catch_up(self, task: Task, *, follow: bool) -> None:
        try:
            await self.controller.collector.catch_up(task)
        except (WorkerUnreachable, LogUnreadable, StoreFailed) as error:
            assert task.assignment is not None
            away = isinstance(error, WorkerUnreachable)
            if follow and away and not task.state.final:
                return
            if not self.service.archive.size(task.id, task.assignment.number):
                raise

    async def _stream_log(
        self, task: Task, since: int, tail: int | None, *, follow: bool, marks: bool
    ) -> AsyncGenerator[bytes, None]:
        while follow and not has_container_or_end(task):
            task = await self.controller.wait_for(task.id, has_container_or_end, timeout=60)
            await self._catch_up(task, follow=True)
        if task.assignment is None:
            return
        key = (task.id, task.assignment.number)
        archive = self.service.archive
        reader = archive.reader(*key, archive.begin(*key, since=since, tail=tail), marks=marks)
        for chunk in reader:
            yield chunk
        if not follow or archive.complete(*key) or task.assignment.container_id is None:
            return
        async with aclosing(self.controller.collector.follow(task)) as growth:
            async for moved, quiet in growth:
                # Asking costs more than passing lines on: a log that grows has not ended.
                ended = archive.complete(*key) or (quiet and await self._log_ended(task))
                reader.offset = max(0, reader.offset + moved)
                for chunk in reader:
                    yield chunk
                if ended:
                    return

    async def _log_ended(self, task: Task) -> bool:
        assert task.assignment is not None
        if self.service.archive.complete(task.id, task.assignment.number):
            return True
        present = await self.service.find(task.id)
        held = present.assignment
        if held is None or held.number != task.assignment.number:
            return True
        return present.state.final and (held.harvested or held.lost)

    async def execute(
        self, task: Task, argv: Sequence[str], *, tty: bool, columns: int, rows: int
    ) -> AbstractAsyncContextManager[Terminal]:
        """A command in the task's running container."""
        if not argv:
            raise InvalidInput("no command given", hint=f"cloudai exec {task.id} -- sh")
        if task.state is not State.RUNNING or task.assignment is None:
            raise Conflict(f"Task {task.id} is {task.state}, not running")
        link = self.controller.fleet.get(task.assignment.worker_id)
        if link is None:
            raise WorkerNotFound(task.assignment.worker_id)
        assert task.assignment.container_id is not None
        return link.engine.execute(
            task.assignment.container_id, argv, tty=tty, columns=columns, rows=rows
        )

    async def fetch(self, task: Task, path: str) -> AsyncGenerator[bytes, None]:
        """A folder or file out of a task's container, as a tar stream; while it runs, and
        after, until its container is removed."""
        path = container_path(path, what="path")
        engine, container_id = self._container(task)
        async with engine.fetch(container_id, path) as fetched:
            async for chunk in fetched.chunks:
                yield chunk

    async def copy_in(self, task: Task, data: AsyncIterator[bytes]) -> int:
        """Unpacks a tar stream at the root of a running task's container; answers how many
        bytes it had."""
        if task.state is not State.RUNNING:
            raise Conflict(f"Task {task.id} is {task.state}, not running")
        engine, container_id = self._container(task)
        size = 0

        async def counted() -> AsyncGenerator[bytes, None]:
            nonlocal size
            async for chunk in data:
                size += len(chunk)
                yield chunk

        await engine.copy_in(container_id, counted())
        return size

    def _container(self, task: Task) -> tuple[Engine, str]:
        """A task's container as it can be reached. Raises ``Conflict``, ``WorkerNotFound``."""
        held = task.assignment
        if held is None or held.container_id is None or task.state is State.QUEUED:
            raise Conflict(f"Task {task.id} is {task.state}: it has no container")
        if held.harvested or held.lost:
            raise Conflict(
                f"Task {task.id} is {task.state}: its container is removed",
                hint="--download brings results home when a task ends",
            )
        link = self.controller.fleet.get(held.worker_id)
        if link is None:
            raise WorkerNotFound(held.worker_id)
        return link.engine, held.container_id

    async def mark_lost(self, wanted: str) -> Task:
        """A person's word that the worker, or the container there, is gone for good: the task
        follows its ``on_lost``, where ``wait`` counts as ``fail``. Raises ``Conflict`` for a
        task that is on no worker, and while its worker can be reached."""
        task = await self.service.find(wanted)
        while task.state.assigned and task.worker_id is not None:
            await self._refuse_reachable(task, task.worker_id)
            if lost := await self.service.record(task, marked_lost(task, now())):
                return lost
            task = await self.service.find(task.id)
        raise Conflict(f"Task {task.id} is {task.state}: it is on no worker")

    async def _refuse_reachable(self, task: Task, worker_id: str) -> None:
        link = self.controller.fleet.get(worker_id)
        if link is None:
            return  # not in the inventory any more
        if link.reach is Reach.CONNECTING:
            await asyncio.gather(link.ensure(10), return_exceptions=True)
        if link.reach is Reach.ACTIVE:
            raise Conflict(
                f"Worker {worker_id} can be reached: what became of {task.id} is seen there",
                hint=f"`cloudai show {task.id}` tells it; `cloudai cancel {task.id}` stops it",
            )

    def preview(self, task: Task) -> str:
        """The ``docker run`` line of a task, for people."""
        number = task.assignment.number if task.assignment else 1
        order = Order(
            assignment_id=f"{task.id}.{number}",
            task_id=task.id,
            store_id=self.service.store.id,
            spec=task.spec,
            env=dict.fromkeys(task.spec.env, ""),
        )
        worker_id = task.worker_id or task.spec.target
        link = self.controller.fleet.get(worker_id) if worker_id else None
        links = [link] if link else self.controller.fleet.workers()
        if links:
            return links[0].engine.preview(order)
        # Before the first worker is registered, too: nothing is asked of this one.
        nobody = WorkerSpec(id="local", connection="local")
        return self.controller.fleet.connect(nobody).preview(order)


def _refuse_wishes_for_the_queue(body: Mapping[str, object]) -> None:
    hint = "`cloudai task WORKER IMAGE` goes to one worker through the queue"
    if body.get("on_lost") == OnLost.REQUEUE:
        raise InvalidInput(
            "on_lost: a dispatched task never waits in the queue; give wait or fail",
            hint=hint,
            field="on_lost",
        )
    for field in OF_THE_QUEUE:
        if body.get(field) is not None:
            raise InvalidInput(
                f"{field}: a dispatched task never waits in the queue; leave it out",
                hint=hint,
                field=field,
            )


def _to_be_trusted(known: Link, *, asked: WorkerSpec) -> WorkerSpec:
    """The worker as it stands in the inventory, where it only lacks a trusted host key and was
    asked for by its own address. Raises ``Conflict`` otherwise."""
    spec = known.spec
    same = asked.host == (spec.host or spec.id) and all(
        wanted in (None, there)
        for wanted, there in ((asked.port, spec.port), (asked.user, spec.user))
    )
    if same and isinstance(known.error, HostKeyUnknown | HostKeyChanged):
        return spec
    raise Conflict(
        f"Worker {spec.id} is in the inventory already"
        + (f" ({spec.place})" if spec.place else ""),
        hint="" if same else f"edit it there, or `cloudai unregister {spec.id}` first",
    )


def has_left_starting(task: Task) -> bool:
    """It runs, or it is over: what ``dispatch`` and ``until=started`` wait for."""
    return task.state not in (State.QUEUED, State.STARTING)


def has_ended(task: Task) -> bool:
    """It is final, and its log is home or given up: what ``until=final`` waits for."""
    held = task.assignment
    if held is None or held.container_id is None:
        return task.state.final
    return task.state.final and (held.harvested or held.lost)


def has_container_or_end(task: Task) -> bool:
    held = task.assignment
    return task.state.final or (
        task.state in (State.RUNNING, State.STOPPING)
        and held is not None
        and held.container_id is not None
    )


def why_dispatch_failed(task: Task, *, again: bool) -> CloudaiError:
    """The error of a dispatched task that the worker did not take, by its words; ``again``: its
    idempotency key was used for it before."""
    kind = Insufficient if task.reason.startswith("Insufficient ") else EngineFailed
    hint = (
        f"that was {task.id}, made before with the same idempotency key; nothing was tried now"
        if again
        else ""
    )
    return kind(task.reason, hint=hint, task_id=task.id)


async def examine(engine: Engine) -> tuple[Finding, ...]:
    """The doctor's findings; a worker that cannot be reached is a finding itself."""
    try:
        return await engine.doctor()
    except WorkerUnreachable as error:
        return (Finding(check="reachable", ok=False, found=error.message, mend=error.hint),)
    except CloudaiError as error:
        return (Finding(check="engine", ok=False, found=error.message, mend=error.hint),)
