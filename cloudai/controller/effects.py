"""Carrying out what was decided about one task: start, stop, harvest, remove.

Each is safe to repeat. Nothing here decides anything: an answer becomes an event, and an
answer that never came becomes nothing at all; the next sighting says what to do.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, replace

from cloudai.core.endings import as_noted, keeps_note
from cloudai.core.errors import (
    CloudaiError,
    ContainerGone,
    EngineFailed,
    NotFound,
    SecretUnreadable,
    StoreFailed,
    WorkerUnreachable,
)
from cloudai.core.lifecycle import Exited, Gone, Refused, Started, StartFailed
from cloudai.core.model import Assignment, Cause, ContainerSight, Phase, State, Task
from cloudai.core.reconcile import Confirm, Harvest, Record, Remove, Start, Stop
from cloudai.crash import point
from cloudai.engines import (
    CannotStart,
    FilesMissing,
    ImageMissing,
    NotAdmitted,
    Order,
    Outcome,
    RegistryLogin,
    Running,
    Shipment,
)
from cloudai.service import Service, now

from .carry import Carrier, Unwanted
from .collect import FULL, Collector
from .link import Link
from .setbacks import Setbacks
from .shipping import Shipping, shown_outcome, shown_progress

log = logging.getLogger(__name__)

AGAIN = 1.0
"""Seconds after which what an engine refused is tried again."""
LATE = 3.0
"""Seconds after which a start whose sender has not heard of it, or is dead, has taken effect or
never will: its way there, and the second it may wait for the worker's lock."""


class Effects:
    """Everything that is done to a worker on behalf of a task."""

    def __init__(
        self,
        service: Service,
        collector: Collector,
        *,
        could_go: Callable[[Task], set[str]],
        refused: Callable[[Task, str], None] = lambda task, why: None,
        setbacks: Setbacks | None = None,
        peers: Callable[[Task], tuple[str, ...]] = lambda task: (),
        shipping: Shipping,
    ) -> None:
        """``could_go``: the reachable workers that are large enough for a task. ``refused`` is
        called with one that its worker did not admit, queued again, and why. ``peers``: the
        addresses of a task's group, by rank."""
        self._peers = peers
        self._setbacks = setbacks or Setbacks()
        self.shipping = shipping
        self.service = service
        self.collector = collector
        self.phases: dict[str, str] = {}
        """task -> what its start is at (``pulling alpine: 43 %``), for people only."""
        self.carrier = Carrier(service, self.phases)
        self._could_go = could_go
        self._refused = refused
        self._untold: set[str] = set()
        """Assignments that are to make room, and that nothing was told to stop yet."""
        self._imageless: dict[str, set[str]] = {}
        """task -> workers on which its image is not and could not be pulled."""
        self._pulls: dict[tuple[str, str], asyncio.Lock] = {}
        self._began = time.monotonic()
        self._unheard: dict[str, float | None] = {}
        """assignment placed by this controller -> when the answer to a start of it was given
        up, if one was."""

    async def carry_out(
        self, task: Task, link: Link, action: Start | Confirm | Record | Stop | Harvest | Remove
    ) -> None:
        """Does it, and records what came of it. Raises nothing about workers: a worker that
        does not answer is the link's news, not the task's."""
        assert task.assignment is not None
        try:
            match action:
                case Start():
                    await self._start(task, task.assignment, link)
                case Confirm():
                    await link.look(task.assignment.id)
                case Record(event=event, remove=remove):
                    if remove or (isinstance(event, Gone) and keeps_note(task.spec)):
                        await self._remove(task, task.assignment, link)
                    if isinstance(event, Exited):
                        event = replace(event, by_itself=task.assignment.id in self._untold)
                        event = await self._as_noted(event, task, link)
                        point("exit.seen")
                    await self.service.record(task, event)
                    if isinstance(event, Exited):
                        point("exit.recorded")
                case Stop():
                    log.info("%s: stopping on %s", task.id, link.id)
                    self._untold.discard(task.assignment.id)
                    point("stop.before")
                    await self._stop(task, task.assignment, link)
                    point("stop.sent")
                    await link.look(task.assignment.id)
                case Harvest():
                    await self._harvest(task, task.assignment, link)
                case Remove():
                    await self._remove(task, task.assignment, link)
        except WorkerUnreachable as error:
            log.info("%s: %s on %s: %s", task.id, type(action).__name__, link.id, error)
            link.lost(error)
        except EngineFailed as error:
            log.warning("%s: %s on %s: %s", task.id, type(action).__name__, link.id, error)
            await asyncio.sleep(AGAIN)
        except StoreFailed as error:
            # Whatever could not be kept at home is still on the worker, and tried again.
            log.error("%s: %s on %s: %s", task.id, type(action).__name__, link.id, error)
            self.phases[task.id] = f"{error.message}; its container is kept on {link.id}"
            await asyncio.sleep(FULL)

    def changed(self, task: Task) -> None:
        """Hears of every change that this controller makes. What it does not know to be untold
        (another one, before a crash, may have told it) counts as told."""
        self.carrier.changed(task)
        if task.assignment is None:
            return
        if task.state is State.STOPPING and task.requeue:
            self._untold.add(task.assignment.id)
        else:
            self._untold.discard(task.assignment.id)

    def placed(self, assignment_id: str) -> None:
        """It is new: no other controller can have sent a start of it."""
        self._unheard[assignment_id] = None

    # ---------------------------------------------------------------- start

    async def _start(self, task: Task, assignment: Assignment, link: Link) -> None:
        try:
            secrets = await self.service.secret_files(task.spec)
        except (NotFound, SecretUnreadable) as error:
            await self._without_secrets(task, assignment, link, error)
            return
        try:
            parcel = await self.carrier.parcel(task)
        except NotFound as error:
            reason = f"{error.message}; {error.hint}"
            failed = StartFailed(at=now(), number=assignment.number, reason=reason)
            await self.service.record(task, failed)
            return
        order = Order(
            assignment_id=assignment.id,
            task_id=task.id,
            store_id=self.service.store.id,
            spec=task.spec,
            env=await self.service.in_thread(self.service.values, task),
            peers=self._peers(task),
            secrets=secrets,
            parcel=parcel,
        )
        places = link.fills if parcel.pieces else link.starts
        try:
            async with places:
                point("start.before")
                began, outcome = time.monotonic(), await self._asked_to_start(link, order)
            while isinstance(outcome, ImageMissing | FilesMissing):
                if isinstance(outcome, FilesMissing):
                    await self.carrier.send(task, link, parcel, outcome.have)
                else:
                    try:
                        await self._fetch(task, link)
                    except (EngineFailed, NotFound) as error:
                        await self._no_image(task, assignment, error.message)
                        return
                async with places:
                    began, outcome = time.monotonic(), await self._asked_to_start(link, order)
        except WorkerUnreachable:
            self._unheard[assignment.id] = time.monotonic()
            raise
        except Unwanted:
            link.poke()  # nothing was started: that it is seen lets the task end
            return
        except EngineFailed as error:
            # The worker's trouble, not the task's: it may fit elsewhere, or later.
            self._setbacks.failed(link.id, task.id, error.message)
            await self._refuse(task, assignment, error.message)
            return
        finally:
            self.phases.pop(task.id, None)
        point("start.answered")
        match outcome:
            case Running(container=container, warnings=warnings):
                self._imageless.pop(task.id, None)
                self._setbacks.started(link.id)
                # As it was at some time since then: its end may have been seen meanwhile.
                link.saw(assignment.id, container, began)
                for warning in warnings:
                    await self.service.note(task.id, "warning", warning)
                await self._record_running(task, assignment, container)
            case NotAdmitted(reason=reason):
                await self._refuse(task, assignment, reason)
                link.poke()
            case CannotStart(reason=reason, exit_code=code):
                self._setbacks.failed(link.id, task.id, reason, code)
                await self.service.record(
                    task,
                    StartFailed(at=now(), number=assignment.number, reason=reason, exit_code=code),
                )
        point("start.recorded")

    @staticmethod
    async def _asked_to_start(link: Link, order: Order) -> Outcome:
        with link.starting(order.assignment_id):
            return await link.engine.start(order)

    async def _without_secrets(
        self, task: Task, assignment: Assignment, link: Link, error: CloudaiError
    ) -> None:
        """A secret of it cannot be had: no worker's fault, and no other worker would help. An
        earlier start, which had it, may have had its effect all the same."""
        unheard = self._unheard.get(assignment.id, self._began)
        if unheard is not None:
            await asyncio.sleep(unheard + LATE - time.monotonic())
            container = await link.look(assignment.id)
            if container is not None and container.phase is not Phase.CREATED:
                return
            if container is not None:
                await link.engine.remove(assignment.id)
        why = f"{error.message}{f'; {error.hint}' if error.hint else ''}"
        failed = StartFailed(at=now(), number=assignment.number, reason=why)
        await self.service.record(task, failed)

    async def _record_running(
        self, task: Task, assignment: Assignment, container: ContainerSight
    ) -> None:
        if container.started_at is None:
            return  # not whole: the next look says when it started
        moved = await self.service.record(
            task,
            Started(
                at=container.started_at,
                number=assignment.number,
                container_id=container.id,
                gpus=container.gpus,
            ),
        )
        if moved is None:
            # Cancelled while it was starting: the container is known all the same.
            log.info("%s: started after its state changed", task.id)

    async def _no_image(self, task: Task, assignment: Assignment, reason: str) -> None:
        """The image is not there and cannot be had: another worker may have it. Once none is
        left that could take the task, that is its end."""
        tried = self._imageless.setdefault(task.id, set())
        tried.add(assignment.worker_id)
        if not task.direct and self._could_go(task) - tried:
            await self._refuse(task, assignment, reason)
            return
        del self._imageless[task.id]
        failed = StartFailed(at=now(), number=assignment.number, reason=reason, cause=Cause.PULL)
        await self.service.record(task, failed)

    async def _refuse(self, task: Task, assignment: Assignment, reason: str) -> None:
        log.info("%s: not admitted on %s: %s", task.id, assignment.worker_id, reason)
        event = Refused(at=now(), number=assignment.number, reason=reason)
        moved = await self.service.record(task, event)
        if moved is not None and moved.state is State.QUEUED:
            self._refused(moved, reason)

    async def _fetch(self, task: Task, link: Link) -> None:
        """Brings the image, from a registry or from this machine."""
        if task.spec.ship_image is None:
            await self._pull(task, link)
        else:
            await self._ship(task, link, task.spec.ship_image)

    async def _ship(self, task: Task, link: Link, image_id: str) -> None:
        """As a pull: a phase of its own, shared by those who wait for the same."""
        image = task.spec.image
        self.phases[task.id] = f"waiting to ship {image}"

        def tell(shipment: Shipment) -> None:
            self.phases[task.id] = f"shipping {image}: {shown_progress(shipment)}"

        await self.service.note(task.id, "shipping", f"{image} ({image_id[7:19]}) to {link.id}")
        done = await self.shipping.ship(link, image, image_id=image_id, tell=tell)
        await self.service.note(task.id, "shipped", f"{image}: {shown_outcome(done)}")

    async def _pull(self, task: Task, link: Link) -> None:
        """Brings the image; several tasks that need the same one on a worker share the pull.

        A phase of its own, outside the worker's lock and outside the places for starts.
        """
        image = task.spec.image
        lock = self._pulls.setdefault((link.id, image), asyncio.Lock())
        waited = lock.locked()
        self.phases[task.id] = f"waiting for {image} to be pulled" if waited else f"pulling {image}"
        async with lock:
            if waited:
                return  # whoever held the lock pulled it; the next start says if not
            await self.service.note(task.id, "pulling", f"{image} on {link.id}")
            try:
                login = await self.service.registry_login(image)
            except StoreFailed as error:
                raise EngineFailed(f"cannot pull {image}: {error.message}") from error
            point("pull.begun")
            told = RegistryLogin(**asdict(login)) if login else None
            async for progress in link.engine.pull(image, login=told):
                self.phases[task.id] = f"pulling {image}: {progress.text}"
            point("pull.done")
            await self.service.note(task.id, "pulled", image)

    # ---------------------------------------------------------------- the end

    async def _stop(self, task: Task, assignment: Assignment, link: Link) -> None:
        """One that was given up, or is over, is given no time for a checkpoint: another may run
        that writes the same."""
        signal = None if task.state.final else task.spec.signal
        await link.engine.stop(
            assignment.id, grace=task.spec.grace, signal=signal, before=task.spec.signal_before
        )

    async def _as_noted(self, event: Exited, task: Task, link: Link) -> Exited:
        assert task.assignment is not None
        if not keeps_note(task.spec):
            return event
        return as_noted(event, task.spec, await link.engine.ending(task.assignment.id))

    async def _harvest(self, task: Task, assignment: Assignment, link: Link) -> None:
        """Whole log home first, then the container goes."""
        try:
            await self.collector.finish(task, link)
            point("harvest.closed")
            await self.carrier.bring(task, assignment, link)
            self.phases.pop(task.id, None)
            await self._remove(task, assignment, link)
        except ContainerGone:
            if keeps_note(task.spec):
                await self._remove(task, assignment, link)
            await self.service.note(
                task.id, "log lost", "its container was removed before its whole log was home"
            )
        if assignment.lost:
            back = f"{link.id} is back: the log of {assignment.id} is home, its container removed"
            await self.service.note(task.id, "came back", back)
        point("harvest.removed")
        await self.service.mark_harvested(task, assignment.number)
        point("harvest.marked")
        await asyncio.to_thread(self.carrier.done_with, assignment)

    async def _remove(self, task: Task, assignment: Assignment, link: Link) -> None:
        """Not while a start of it, of this controller or of one that died, may still be on its
        way: the container's name is what keeps that from being a second one."""
        unheard = self._unheard.get(assignment.id, self._began)
        if unheard is not None:
            await asyncio.sleep(unheard + LATE - time.monotonic())
        await link.engine.remove(
            assignment.id, noted=keeps_note(task.spec), secrets=bool(task.spec.secrets)
        )
        self._unheard.pop(assignment.id, None)
        link.saw(assignment.id, None, time.monotonic())
