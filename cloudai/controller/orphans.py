"""Containers with cloudai's labels that no assignment of this store claims: of another store, or
of tasks that this one does not know (an older copy of the database was put in place, a task
was forgotten). They are listed and left alone, until a person says what is to become of one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from cloudai.core.errors import Conflict, InvalidInput, NotFound, TaskNotFound
from cloudai.core.lifecycle import Adopted
from cloudai.core.model import Assignment, ContainerSight, Phase, State, Task, TaskSpec
from cloudai.core.names import check_task_name, check_user
from cloudai.service import now

from .link import Link, Reach
from .loop import Controller

T = TypeVar("T")

OURS = re.compile(r"(task-[0-9]{1,12}-[a-z0-9]{1,32}(?:_[0-9]{1,10})?)\.([1-9][0-9]{0,8})")
"""An assignment's id as cloudai makes them: anyone can write labels."""
GRACE = 10.0
"""Seconds between the polite and the hard stop."""


@dataclass(frozen=True, slots=True)
class Orphan:
    """One of them, as last seen."""

    container: ContainerSight
    link: Link
    mine: bool
    """Placed by this store, which does not know of it; else another store's, which may be
    alive and well."""


class Orphans:
    """One method a wish. Raises the errors of ``core.errors``."""

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self.service = controller.service

    async def find(self, worker_id: str | None = None) -> list[Orphan]:
        """All that were seen, or those of one worker."""
        fleet = self.controller.fleet
        links = (
            [self.controller.link(worker_id)]
            if worker_id
            else [link for link in fleet if not link.twin]
        )
        seen = [(link, container) for link in links for container in link.containers()]
        store = self.service.store
        task_ids = {container.task_id for _, container in seen}
        known = await self.service.in_thread(store.known_containers, task_ids)
        return [
            Orphan(container, link, container.store_id == store.id)
            for link, container in seen
            if known.get(container.assignment_id, "") not in (None, container.id)
        ]

    async def adopt(
        self, wanted: str, *, worker_id: str | None, foreign: bool, default_user: str
    ) -> Task:
        """Makes it a task's of this store: followed, harvested and removed as any other."""
        orphan = await self._pick(wanted, worker_id, foreign)
        container = orphan.container
        made = OURS.fullmatch(container.assignment_id)
        if made is None or made[1] != container.task_id:
            raise Conflict(f"{container.assignment_id} is no id that cloudai makes: not adopted")
        if container.started_at is None:
            raise Conflict(
                f"{container.assignment_id} never started: there is nothing to follow",
                hint=f"`cloudai orphans forget {container.assignment_id}` removes it",
            )
        try:
            task = await self.service.in_thread(self.service.store.get, container.task_id)
        except TaskNotFound:
            task = adopted_task(container, orphan.link.id, int(made[2]), default_user)
            return await self.service.adopt(task)
        return await self._adopt_for(task, orphan, int(made[2]))

    async def _adopt_for(self, task: Task, orphan: Orphan, number: int) -> Task:
        container = orphan.container
        assert container.started_at is not None
        event = Adopted(
            at=container.started_at,
            number=number,
            worker_id=orphan.link.id,
            container_id=container.id,
            gpus=container.gpus,
        )
        adopted = await self.service.record(task, event)
        if adopted is None:
            raise Conflict(
                f"Task {task.id} is {task.state}: it has no use for {container.assignment_id}",
                hint="`cloudai orphans stop` ends it, `cloudai orphans forget` removes it",
            )
        return adopted

    async def stop(self, wanted: str, *, worker_id: str | None, foreign: bool) -> Orphan:
        """Politely, then by force; it and its log stay on the worker."""
        orphan = await self._pick(wanted, worker_id, foreign)
        name = orphan.container.assignment_id
        await orphan.link.engine.stop(name, grace=GRACE)
        after = await orphan.link.look(name)
        return Orphan(after or orphan.container, orphan.link, orphan.mine)

    async def forget(self, wanted: str, *, worker_id: str | None, foreign: bool) -> None:
        """Removes it from its worker, its log with it. Raises ``Conflict`` while it runs."""
        orphan = await self._pick(wanted, worker_id, foreign)
        name = orphan.container.assignment_id
        if orphan.container.phase in (Phase.RUNNING, Phase.PAUSED):
            raise Conflict(f"{name} runs", hint=f"first: cloudai orphans stop {name}")
        await orphan.link.engine.remove(name)
        await orphan.link.look(name)

    async def _pick(self, wanted: str, worker_id: str | None, foreign: bool) -> Orphan:
        """The one that is meant, looked at just now."""
        found = [
            orphan
            for orphan in await self.find(worker_id)
            if wanted in (orphan.container.assignment_id, orphan.container.task_id)
        ]
        if not found:
            raise NotFound(f"No orphan {wanted}", hint="`cloudai orphans` lists them")
        if len(found) > 1:
            places = ", ".join(f"{one.container.assignment_id} on {one.link.id}" for one in found)
            raise Conflict(f"{wanted} could be several: {places}", hint="say which: --worker ID")
        orphan = found[0]
        if not orphan.mine and not foreign:
            raise Conflict(
                f"{wanted} was placed by another cloudai (store {orphan.container.store_id}),"
                " which may be following it",
                hint="only where that one is gone for good: --foreign",
            )
        if orphan.link.reach is not Reach.ACTIVE:
            await orphan.link.ensure(10)
        container = await orphan.link.look(orphan.container.assignment_id)
        if container is None or container.id != orphan.container.id:
            raise NotFound(f"{wanted} is not on {orphan.link.id} any more")
        return Orphan(container, orphan.link, orphan.mine)


def adopted_task(container: ContainerSight, worker_id: str, number: int, user: str) -> Task:
    """A task as far as its container tells. It stands as running, whatever the container does
    now: what is seen next says how it goes on, and nothing is ever started for it."""
    text = container.argv[2] if container.argv[:2] == ("/bin/sh", "-c") else None
    is_shell = text is not None and len(container.argv) == 3
    spec = TaskSpec(
        image=container.image,
        argv=() if is_shell else container.argv,
        shell=text if is_shell else None,
        resources=container.held,
        user_id=_checked(check_user, container.user_id) or user,
        name=_checked(check_task_name, container.task_name),
    )
    created = container.created_at or now()
    assignment = Assignment(
        task_id=container.task_id,
        number=number,
        worker_id=worker_id,
        placed_at=created,
        container_id=container.id,
        gpus=container.gpus,
        started_at=container.started_at,
    )
    return Task(
        id=container.task_id,
        spec=spec,
        state=State.RUNNING,
        created_at=created,
        started_at=container.started_at,
        assignment=assignment,
    )


def _checked(check: Callable[..., T], text: str) -> T | None:
    try:
        return check(text, what="label")
    except InvalidInput:
        return None
