"""What a user can do about tasks, one method each, and the only way anything is written.

Every call to the store runs in one thread of its own, in order: the event loop never waits
for a disk, and a write is durable before its method returns.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

from cloudai.archive import LEAST_LIMIT, LIMIT, Archive
from cloudai.core.errors import Conflict, InvalidInput, NotFound, TaskNotFound
from cloudai.core.files import uploads_of
from cloudai.core.groups import read_group
from cloudai.core.lifecycle import Event, StopAsked
from cloudai.core.model import (
    AS_IT_IS_NOW,
    NORMAL_PRIORITY,
    Reservation,
    Resources,
    State,
    Task,
    TaskSpec,
)
from cloudai.core.policy import Policy
from cloudai.core.request import begin_of, read_request
from cloudai.core.secrets import secret_name, secret_target
from cloudai.core.units import parse_docker_size, show_gib
from cloudai.core.usage import Ledger, Used, run_of
from cloudai.crash import point
from cloudai.files import Files
from cloudai.registries import Login, Registries
from cloudai.secrets import Secrets
from cloudai.store import Located, Store
from cloudai.tasktypes import TaskTypes
from cloudai.vault import Vault

from .ids import new_id
from .needs import with_whole_needs
from .unfinished import Unfinished

P = ParamSpec("P")
T = TypeVar("T")


def now() -> datetime:
    return datetime.now(UTC)


def log_limit(environ: Mapping[str, str]) -> int:
    """Bytes of each log to keep, of ``CLOUDAI_LOG_LIMIT``. Raises ``InvalidInput``."""
    wanted = environ.get("CLOUDAI_LOG_LIMIT")
    if not wanted:
        return LIMIT
    limit = parse_docker_size(wanted, what="CLOUDAI_LOG_LIMIT")
    if limit < LEAST_LIMIT:
        raise InvalidInput(
            f"CLOUDAI_LOG_LIMIT is {wanted!r}, less than {show_gib(LEAST_LIMIT)}",
            hint="give a size such as 200m or 4g",
        )
    return limit


async def _no_images(reference: str) -> str:
    raise NotFound(f"There is no image {reference} on this machine", image=reference)


class Service:
    """The store, the vault and the archive of one home, behind verbs.

    ``changed`` is called with each task that was written, in the event loop. ``log_limit``:
    bytes of each log that are kept at home.
    """

    def __init__(
        self,
        home: Path,
        *,
        changed: Callable[[Task], None] = lambda task: None,
        log_limit: int = LIMIT,
    ) -> None:
        self.home = home
        self.changed = changed
        self.allow: Callable[[Sequence[TaskSpec]], None] = lambda specs: None
        """Raises for what its user may never have, whatever is free; set by who knows quotas."""
        self.types = TaskTypes(home)
        self.image_id: Callable[[str], Awaitable[str]] = _no_images
        """The id of this machine's image of that name; set by who can send it to workers."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self.store: Store
        self.vault = Vault(home / "vault")
        self.registries = Registries(home, Secrets(home / "registries"))
        self.secrets = Secrets(home / "secrets")
        self._asking = ThreadPoolExecutor(2, thread_name_prefix="secrets")
        self._ledger: Ledger | None = None
        self._unfinished: Unfinished | None = None
        self.archive = Archive(home / "logs", limit=log_limit)
        self.files = Files(home / "files")
        self.forgot_uploads = True
        """A task that brought something along may have been forgotten since it was last seen
        which workers still need what they have."""

    async def open(self) -> None:
        """Opens the database, migrating it where needed. Raises ``StoreFailed``."""
        self.store = await self.in_thread(Store.open, self.home / "cloudai.db", now=now())
        active, _ = await self.unfinished()
        await self.in_thread(self.vault.sweep, {name for task in active for name in kept_as(task)})
        await self.in_thread(self.secrets.sweep)
        await asyncio.to_thread(self.files.sweep, lambda: trees_of(active))

    async def close(self) -> None:
        store = getattr(self, "store", None)
        if store is not None:
            await self.in_thread(store.close)
        self._thread.shutdown()
        self._asking.shutdown(wait=False, cancel_futures=True)

    async def in_thread(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs something that touches the disk, after everything asked before it."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, lambda: call(*args, **kwargs))

    # ---------------------------------------------------------------- asking

    async def unfinished(self) -> tuple[list[Task], list[Task]]:
        """All tasks that have not ended, and ended ones whose log or container is still out."""
        return await self.in_thread(self._all_unfinished)

    async def active(self) -> list[Task]:
        """All tasks that have not ended, in the order of submission."""
        return await self.in_thread(lambda: self._known().active())

    def _all_unfinished(self) -> tuple[list[Task], list[Task]]:
        return self._known().active(), self._known().unharvested()

    def _known(self) -> Unfinished:
        if self._unfinished is None:
            self._unfinished = Unfinished(self.store)
        return self._unfinished

    def _write(self, write: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Writes to the store. After a failure nobody knows what of it is on the disk, so what
        is at hand is read anew."""
        try:
            return write(*args, **kwargs)
        except BaseException:
            self._unfinished = None
            raise

    async def find(self, wanted: str) -> Task:
        """By id, unique prefix of one, or name. Raises ``TaskNotFound``, ``Conflict``."""
        return await self.in_thread(self.store.find, wanted)

    async def tasks(
        self,
        *,
        states: Sequence[State] = (),
        user: str | None = None,
        worker: str | None = None,
        name: str | None = None,
        batch: str | None = None,
        array: str | None = None,
        task_type: str | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> tuple[list[Task], int]:
        """Newest first, with how many there are in all."""
        return await self.in_thread(
            self.store.tasks,
            states=states,
            user=user,
            worker=worker,
            name=name,
            batch=batch,
            array=array,
            task_type=task_type,
            limit=limit,
            offset=offset,
        )

    async def metrics(self) -> Mapping[str, object]:
        """Seed 003's figures."""
        return await self.in_thread(self.store.metrics)

    # ---------------------------------------------------------------- telling

    async def submit(
        self,
        body: Mapping[str, object],
        *,
        default_user: str,
        direct: bool = False,
        dry_run: bool = False,
    ) -> tuple[Task, bool]:
        """A queued task from what a front door sent, and whether it is a new one.

        ``direct``: it bypasses the queue; the caller places it. The values of its environment
        are in the vault before the task is in the store. Raises ``InvalidInput``.
        """
        expand = partial(self.types.expand, direct=direct)
        spec, env = read_request(body, default_user=default_user, expand=expand)
        if spec.after:
            spec = await self.in_thread(with_whole_needs, self.store, spec)
        if not direct:
            self.allow([spec])
        [spec] = await self.tied_to_images([spec])
        await self.check_secrets([spec])
        if not dry_run:
            (spec,) = await asyncio.to_thread(self.files.with_files, [spec])
        at = now()
        task = self.new(spec, at, direct=direct, begin=begin_of(body, at))
        if dry_run:
            return task, True
        kept, *_ = await self.in_thread(
            self.keep_each, {task.id: env}, lambda: [self.store.submit(task)]
        )
        if created := kept.id == task.id:
            self.changed(kept)
        return kept, created

    async def registry_login(self, image: str) -> Login | None:
        """What the image's registry is to be told, where a log-in is kept. Raises
        ``StoreFailed``."""
        return await self.of_secrets(self.registries.login_for, image)

    async def tied_to_images(self, specs: Sequence[TaskSpec]) -> list[TaskSpec]:
        """The same, where those that are to run an image of this machine say which by its id, as
        it is now. Raises ``NotFound`` where there is none, ``EngineFailed`` where no engine
        answers here."""
        named = {spec.image for spec in specs if spec.ship_image == AS_IT_IS_NOW}
        ids = {image: await self.image_id(image) for image in sorted(named)}
        return [
            replace(spec, ship_image=ids[spec.image]) if spec.ship_image == AS_IT_IS_NOW else spec
            for spec in specs
        ]

    async def of_secrets(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """A call of ``secrets``, in threads of their own: a keyring may take its time."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._asking, lambda: call(*args, **kwargs))

    async def check_secrets(self, specs: Sequence[TaskSpec]) -> None:
        """That all their secrets are set, and can be read now. Raises ``InvalidInput``,
        ``StoreFailed``."""
        for wanted in dict.fromkeys(spec.secrets for spec in specs if spec.secrets):
            await self.of_secrets(self.secrets.check, wanted)

    async def secret_files(self, spec: TaskSpec) -> dict[str, bytes]:
        """What each of its secrets holds, by its place in the container. Raises ``NotFound``
        for one that was removed, ``StoreFailed``."""
        return {
            secret_target(one): await self.of_secrets(self.secrets.get, secret_name(one))
            for one in spec.secrets
        }

    def new(
        self,
        spec: TaskSpec,
        at: datetime,
        *,
        task_id: str | None = None,
        direct: bool = False,
        begin: datetime | None = None,
    ) -> Task:
        """A task as it is queued; nothing is written."""
        return Task(
            id=task_id or new_id("task", at),
            spec=spec,
            state=State.QUEUED,
            created_at=at,
            direct=direct,
            not_before=begin,
        )

    def keep_together(
        self,
        bundle: str,
        values: Mapping[str, Mapping[str, str]],
        write: Callable[[], list[Task]],
    ) -> list[Task]:
        """Writes the tasks of a batch or array, after the values of their variables; answers
        those that stand now, which are earlier ones where a key was known. In the store's
        thread."""
        return self._keep(
            lambda: self.vault.put_all(bundle, values),
            write,
            lambda kept: [] if any(bundle in kept_as(task) for task in kept) else [bundle],
        )

    def keep_each(
        self, values: Mapping[str, Mapping[str, str]], write: Callable[[], list[Task]]
    ) -> list[Task]:
        """The same for tasks that have nothing to do with each other."""

        def put() -> None:
            for task_id, env in values.items():
                self.vault.put(task_id, env)

        return self._keep(put, write, lambda kept: values.keys() - {task.id for task in kept})

    def _keep(
        self,
        put: Callable[[], None],
        write: Callable[[], list[Task]],
        unused: Callable[[list[Task]], Iterable[str]],
    ) -> list[Task]:
        """``unused``: what was put for nothing, for nothing new was written by it."""
        kept: list[Task] = []
        try:
            put()
            point("submit.vault")
            kept = self._write(write)
            self._known().come(kept)
        finally:
            for name in unused(kept):
                self.vault.drop(name)
        point("submit.stored")
        return kept

    async def submit_group(
        self, body: Mapping[str, object], *, default_user: str, dry_run: bool = False
    ) -> tuple[list[Task], bool]:
        """All tasks of a placement group, queued, and whether they are new ones: in one
        transaction, after the whole of it was checked. Raises ``InvalidInput``, and
        ``Conflict`` for an idempotency key that made a task of no group."""
        at = now()
        members = read_group(
            body,
            default_user=default_user,
            group=new_id("group", at),
            expand=self.types.expand,
        )
        self.allow([member.spec for member in members])
        await self.check_secrets([member.spec for member in members])
        specs = await self.tied_to_images([member.spec for member in members])
        specs = [
            await self.in_thread(with_whole_needs, self.store, spec) if spec.after else spec
            for spec in specs
        ]
        if not dry_run:
            specs = await asyncio.to_thread(self.files.with_files, specs)
        tasks = [
            self.new(spec, at, begin=begin_of(member.body, at))
            for spec, member in zip(specs, members, strict=True)
        ]
        if dry_run:
            return tasks, True
        values = {task.id: one.env for task, one in zip(tasks, members, strict=True)}
        kept = await self.in_thread(self.keep_each, values, lambda: self.store.submit_group(tasks))
        created = kept[0].id == tasks[0].id
        for task in kept if created else ():
            self.changed(task)
        return kept, created

    async def group(self, group_id: str) -> list[Task]:
        """The members of a placement group. Raises ``NotFound``."""
        return await self.in_thread(self.store.group, group_id)

    async def cancel_group(self, group_id: str) -> list[Task]:
        """Cancels all of it that has not ended. Raises ``Conflict`` where all has."""
        members = await self.group(group_id)
        if all(member.state.final for member in members):
            raise Conflict(f"All tasks of group {group_id} have ended already")
        for member in members:
            with contextlib.suppress(Conflict, TaskNotFound):  # it ended just now
                await self.cancel(member.id)
        return await self.group(group_id)

    async def record(self, task: Task, event: Event) -> Task | None:
        """Writes what happened, if it still applies; ``None`` for stale news."""
        moved = await self.in_thread(self._record, task, event)
        if moved is not None:
            self.changed(moved)
        return moved

    def _record(self, task: Task, event: Event) -> Task | None:
        moved = self._write(self.store.record, task, event)
        if moved is not None:
            self._known().moved(moved)
            if _ends_run(task, moved):
                self._count(moved)
            if moved.state.final:
                self._drop_values(moved)
        return moved

    async def record_all(self, happened: Sequence[tuple[str, Event]]) -> list[Task]:
        """Writes what happened to many tasks that wait, by id, in one transaction; answers those
        to which it still applied."""
        moved = await self.in_thread(self._record_all, happened)
        for task in moved:
            self.changed(task)
        return moved

    def _record_all(self, happened: Sequence[tuple[str, Event]]) -> list[Task]:
        moved = self._write(self.store.record_all, happened)
        for task in moved:
            self._known().moved(task)
            if task.state.final:
                self._drop_values(task)
        return moved

    async def locate(self, wanted: str) -> Located:
        """A task, or an array, by the words that people use. Raises ``TaskNotFound``,
        ``Conflict``."""
        return await self.in_thread(self.store.locate, wanted)

    def values(self, task: Task) -> dict[str, str]:
        """The values of its variables. In the store's thread: see ``in_thread``."""
        return self.vault.get(task.id, bundle_of(task.spec))

    def _drop_values(self, task: Task) -> None:
        """What is kept for a whole batch or array goes with the last of it."""
        bundle = bundle_of(task.spec)
        self.vault.drop(task.id)
        if bundle is not None and self.vault.has(bundle) and not self.store.any_live(bundle):
            self.vault.drop(bundle)

    # ---------------------------------------------------------------- shares of the fleet

    async def usage(self, now: datetime, half_life: float) -> dict[str, Used]:
        """user -> what their runs that are over count for now: core-, byte- and GPU-seconds, of
        which half is left after ``half_life`` seconds. What still runs is the caller's to add
        (``core.usage.use_of``)."""
        return await self.in_thread(lambda: self._books(half_life).usage(now))

    async def gpu_hours(self, now: datetime) -> dict[str, float]:
        """user -> GPU-hours within the last 24 hours, of runs that are over; see
        ``core.usage.gpu_hours_within`` for what still runs."""
        return await self.in_thread(lambda: self._books(None).gpu_hours(now))

    async def run_times(self, kind: str) -> dict[str, float]:
        """worker -> mean seconds that completed runs of that kind (``core.usage.kind_of``) took
        there."""
        return await self.in_thread(lambda: self._books(None).run_times(kind))

    def _books(self, half_life: float | None) -> Ledger:
        """Read from all tasks once, and anew where the half-life is another; kept up to date
        by ``_record``, in the same thread."""
        if self._ledger is None or half_life not in (None, self._ledger.half_life):
            self._ledger = self.store.ledger(half_life or Policy().half_life)
        return self._ledger

    async def add_reservation(
        self,
        worker_id: str,
        resources: Resources,
        *,
        user_id: str | None = None,
        priority: int = NORMAL_PRIORITY,
        until: datetime | None = None,
        created_by: str = "",
        note: str = "",
    ) -> Reservation:
        """Keeps a part of a worker for a user, or for all of a priority. Raises
        ``InvalidInput`` for nothing, or for a time that is over."""
        at = now()
        if resources == Resources():
            raise InvalidInput("a reservation of nothing; say how much, such as cpus or gpus")
        if until is not None and until <= at:
            raise InvalidInput("until: that time is over", field="until")
        one = Reservation(
            id=new_id("reservation", at),
            worker_id=worker_id,
            resources=resources,
            user_id=user_id,
            priority=priority,
            until=until,
            created_at=at,
            created_by=created_by,
            note=note,
        )
        await self.in_thread(self.store.add_reservation, one)
        return one

    async def remove_reservation(self, reservation_id: str) -> None:
        """Gives it back. Raises ``NotFound``."""
        await self.in_thread(self.store.remove_reservation, reservation_id)

    async def reservations(self, now: datetime) -> list[Reservation]:
        """Those that hold now, in the order in which they were made."""
        return await self.in_thread(self.store.reservations, now)

    # ---------------------------------------------------------------- more to tell

    def _count(self, task: Task) -> None:
        run = run_of(task)
        if run is not None and self._ledger is not None:
            self._ledger.add(run)

    async def note(self, task_id: str, what: str, text: str) -> None:
        """Adds a line to the task's story."""
        await self.in_thread(self.store.add_event, task_id, now(), what, text)

    async def mark_harvested(self, task: Task, number: int) -> None:
        """Its log is home and its container gone."""
        await self.in_thread(self._mark_harvested, task.id, number)
        self.changed(task)

    def _mark_harvested(self, task_id: str, number: int) -> None:
        self._write(self.store.mark_harvested, task_id, number)
        self._known().harvested(task_id, number)

    async def cancel(self, wanted: str) -> Task:
        """``cancelled`` if it waited, else ``stopping``. Raises ``Conflict`` when it is final."""
        while True:
            task = await self.find(wanted)
            if task.state.final:
                raise Conflict(f"Task {task.id} is {task.state} already")
            if task.state is State.STOPPING and not (task.stop_reason or task.requeue):
                return task
            moved = await self.record(task, StopAsked(at=now()))
            if moved is not None:
                point("cancel.recorded")
                return moved
            if task.state is State.STOPPING:
                return task

    async def forget(self, wanted: str) -> Task:
        """Forgets a finished task and its logs. Raises ``Conflict`` while it is not finished,
        or while its log is not home yet."""
        task = await self.find(wanted)
        if not task.state.final:
            raise Conflict(
                f"Task {task.id} is {task.state}", hint=f"first: cloudai cancel {task.id}"
            )
        for held in await self.in_thread(self.store.assignments, task.id):
            if held.container_id and not (held.harvested or held.lost):
                raise Conflict(
                    f"Task {task.id}: its log is still on {held.worker_id}",
                    hint="try again once the worker is reachable and the log is home",
                )
        await self.in_thread(self._forget, task.id)
        if task.spec.uploads:
            await self._forget_uploads(task.spec)
        return task

    async def _forget_uploads(self, spec: TaskSpec) -> None:
        """What only that task brought along; what of it is on workers goes, too (see the
        controller's ``Carrier``)."""
        trees = trees_of_spec(spec)
        others = await self.in_thread(lambda: {one for one in trees if self.store.any_with(one)})
        if gone := trees - others:
            await asyncio.to_thread(self.files.drop, gone)
        self.forgot_uploads = True

    async def adopt(self, task: Task) -> Task:
        """Remembers a task that runs already. Raises ``Conflict`` for an id that is there."""
        assert task.assignment is not None
        text = f"container {(task.assignment.container_id or '')[:12]} on {task.worker_id}"
        await self.in_thread(self._adopt, task, text)
        self.changed(task)
        return task

    def _adopt(self, task: Task, text: str) -> None:
        self._write(self.store.submit, task, what="adopted", text=text)
        self._known().come([task])

    async def backup(self, target: Path) -> int:
        """A whole copy of the database, while it is in use, and its size in bytes: tasks and
        their story, without logs and without values of variables. Raises ``Conflict`` where
        something is there already, ``InvalidInput`` for what is no place, ``StoreFailed``."""
        if not target.is_absolute():
            raise InvalidInput(f"{target}: give the whole path of a file", field="path")
        return await self.in_thread(self._backup, target)

    def _backup(self, target: Path) -> int:
        if not target.parent.is_dir():
            raise InvalidInput(f"there is no folder {target.parent}", field="path")
        self.store.backup(target)
        return target.stat().st_size

    def _forget(self, task_id: str) -> None:
        self.store.forget(task_id)
        point("forget.row")
        self.archive.drop(task_id)
        point("forget.log")
        self.vault.drop(task_id)


def trees_of_spec(spec: TaskSpec) -> set[str]:
    """What it brings along, as ``files`` keeps it."""
    return {one.tree for one in uploads_of(spec) if one.tree}


def trees_of(tasks: Sequence[Task]) -> set[str]:
    return {tree for task in tasks if task.spec.uploads for tree in trees_of_spec(task.spec)}


def bundle_of(spec: TaskSpec) -> str | None:
    """Under which id the vault keeps the values of a task that is one of many."""
    return spec.batch or spec.array


def kept_as(task: Task) -> list[str]:
    """The names under which the vault may keep something for a task."""
    bundle = bundle_of(task.spec)
    return [task.id] if bundle is None else [task.id, bundle]


def _ends_run(before: Task, after: Task) -> bool:
    """Whether the latest assignment is over by what just happened."""
    was, held = before.assignment, after.assignment
    return held is not None and held.ended_at is not None and (was is None or not was.ended_at)
