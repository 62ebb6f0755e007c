"""Many tasks at once: arrays, batches, and what can be done with them as a whole."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from cloudai.batches import Asked, File, link, read_files
from cloudai.core.arrays import element_id, elements_of
from cloudai.core.errors import CloudaiError, Conflict, InvalidInput
from cloudai.core.fingerprint import fingerprint
from cloudai.core.lifecycle import StopAsked
from cloudai.core.model import FINAL, Batch, State, Task, TaskSpec, altered
from cloudai.core.names import check_task_name, check_user
from cloudai.core.needs import How, Need, needs_of, with_needs
from cloudai.core.request import array_of, begin_of, check_key, known_fields, read_request
from cloudai.core.wishes import check_flag
from cloudai.core.wording import shown
from cloudai.store import Standing, has_files, task_rows

from .ids import new_id, new_ids
from .needs import with_needs_each
from .service import Service, bundle_of, now

FIELDS = ("files", "set", "once_key", "no_overlap", "name", "user_id", "done")
RETRY_FIELDS = ("failed", "env")


@dataclass(frozen=True, slots=True)
class Array:
    """An array, and its elements where they are at hand."""

    id: str
    elements: list[Task]


class Batches:
    """Batches and arrays of one service."""

    def __init__(self, service: Service) -> None:
        self.service = service

    # ---------------------------------------------------------------- arrays

    async def submit_array(
        self, body: Mapping[str, object], *, default_user: str, dry_run: bool = False
    ) -> tuple[Array, bool]:
        """All elements of an array, queued in one transaction, and whether they are new: an
        idempotency key makes it once. Raises ``InvalidInput``, and ``Conflict`` for a key that
        made something else."""
        service, at = self.service, now()
        expand = service.types.expand
        spec, env = read_request(body, default_user=default_user, expand=expand)
        elements = array_of(body)
        assert elements is not None
        [spec] = await service.tied_to_images([spec])
        if not dry_run:
            (spec,) = await asyncio.to_thread(service.files.with_files, [spec])
        array, begin = new_id("task", at), begin_of(body, at)
        specs = list(elements_of(spec, array, elements))
        if spec.after:
            specs = await service.in_thread(
                lambda: list(with_needs_each(service.store, spec, specs))
            )
        # The key makes the array: its first element has it.
        specs[1:] = [replace(one, idempotency_key=None) for one in specs[1:]]
        service.allow(specs[:1])
        await service.check_secrets(specs[:1])
        tasks = [
            service.new(one, at, task_id=element_id(array, one.array_index), begin=begin)
            for one in specs
        ]
        if dry_run:
            return Array(array, tasks), True
        values = {task.id: env for task in tasks} if env else {}
        kept = await service.in_thread(
            service.keep_together, array, values, lambda: service.store.submit_array(tasks)
        )
        made = kept[0].spec.array
        assert made is not None
        if created := made == array:
            service.changed(kept[0])
        return Array(made, kept), created

    # ---------------------------------------------------------------- batches

    async def submit(
        self,
        body: Mapping[str, object],
        *,
        default_user: str,
        dry_run: bool = False,
        check: Callable[[Sequence[TaskSpec]], None] = lambda specs: None,
        moment: datetime | None = None,
    ) -> tuple[Batch, list[Task], bool]:
        """A whole batch, queued in one transaction, and whether it is new: its tasks, or none
        where the once key made it before. ``check`` raises for what cannot be meant of workers;
        ``moment``: which its files mean by date and time, with a zone, if not the present one.
        Raises ``FileInvalid`` with every mistake in its files, ``InvalidInput`` for the rest of
        the body, ``Conflict`` where it must not overlap with an earlier one; nothing is stored
        then."""
        request = known_fields(body, FIELDS)
        user = request.read("user_id", check_user, otherwise=default_user)
        at = now().astimezone()
        batch_id = new_id("batch", at)
        asked = Asked(
            _settings(body),
            moment or at,
            user,
            batch_id,
            new_ids(at),
            self.service.types.expand,
        )
        done = _done(body)
        plan = await asyncio.to_thread(
            self._plan,
            _files(body),
            asked,
            done,
            request.given("once_key") and body["once_key"],
            at,
            dry_run=dry_run,
        )
        name = request.read("name", check_task_name, otherwise=plan.name)
        batch = Batch(
            id=batch_id,
            name=name,
            user_id=plan.user,
            once_key=plan.once_key,
            created_at=at,
            size=len(plan.tasks),
            files=tuple(file.name for file in _files(body)),
        )
        alone = request.quantity("no_overlap", check_flag, otherwise=False)
        if alone and name is None and not has_files(batch):
            raise InvalidInput(
                "no_overlap: this batch has neither a name nor files to know it again by",
                hint="give it a name",
                field="no_overlap",
            )
        check([task.spec for task in plan.tasks])
        for one in {task.spec.user_id: task.spec for task in plan.tasks}.values():
            self.service.allow([one])
        await self._check_secrets(plan.tasks)
        specs = await self.service.tied_to_images([task.spec for task in plan.tasks])
        tasks = [
            task if spec is task.spec else replace(task, spec=spec)
            for task, spec in zip(plan.tasks, specs, strict=True)
        ]
        if dry_run:
            return batch, tasks, True
        return await self._keep(batch, tasks, plan.values, alone=alone)

    async def _check_secrets(self, tasks: Sequence[Task]) -> None:
        """Each secret once. A refusal names the first entry that wants it."""
        for spec in {task.spec.secrets: task.spec for task in reversed(tasks)}.values():
            try:
                await self.service.check_secrets([spec])
            except InvalidInput as error:
                error.message = f"{spec.entry}: {error.message}"
                raise

    async def _keep(
        self,
        batch: Batch,
        tasks: list[Task],
        values: Mapping[str, Mapping[str, str]],
        *,
        alone: bool = False,
    ) -> tuple[Batch, list[Task], bool]:
        service = self.service

        def write() -> list[Task]:
            made.append(service.store.submit_batch(batch, tasks, alone=alone, ready=ready))
            return tasks if made[0][1] else []

        made: list[tuple[Batch, bool]] = []
        # Not in the store's thread, where everybody else waits meanwhile.
        ready = await asyncio.to_thread(task_rows, tasks) if tasks else None
        kept = await service.in_thread(service.keep_together, batch.id, values, write)
        if kept:
            service.changed(kept[0])
        return made[0][0], kept, made[0][1]

    def _plan(
        self,
        files: Sequence[File],
        asked: Asked,
        done: Counter[str],
        once_key: Any,
        at: datetime,
        *,
        dry_run: bool,
    ) -> _Plan:
        """In a thread of its own: it may take seconds."""
        store = self.service.store
        read = read_files(files, asked)
        link(read, asked, store.resolve)
        key = check_key(_rendered(once_key, asked), what="once_key") if once_key else read.once_key
        tasks: list[Task] = []
        values: dict[str, Mapping[str, str]] = {}
        left_out: set[str] = set()
        specs = [planned.spec for planned in read.tasks]
        if not dry_run:
            specs = self.service.files.with_files(specs)
        for planned, spec in zip(read.tasks, specs, strict=True):
            mark = fingerprint(spec, planned.env, store.id)
            if done[mark] > 0:
                done[mark] -= 1
                left_out.add(planned.id)
                continue
            spec = altered(
                spec,
                batch=asked.batch_id,
                entry=planned.entry.id,
                fingerprint=mark,
                after=planned.needs,
            )
            tasks.append(self.service.new(spec, at, task_id=planned.id, begin=planned.begin))
            if planned.env:
                values[planned.id] = planned.env
        if left_out:
            tasks = _without(tasks, left_out, asked.batch_id)
        return _Plan(read.name, read.user, key, tasks, values)

    # ---------------------------------------------------------------- as a whole

    async def standing(self, ref: str) -> Standing:
        """How the tasks of a batch or array stand."""
        return await self.service.in_thread(self.service.store.standing, ref)

    async def cancel(self, ref: str) -> int:
        """Cancels all tasks of a batch or array that have not ended, those that wait first, and
        tells how many. Raises ``Conflict`` where all have ended."""
        service, at = self.service, now()
        live = await service.in_thread(
            service.store.ids_of, ref, [state for state in State if not state.final]
        )
        if not live:
            raise Conflict(f"All tasks of {ref} have ended already")
        queued = await service.in_thread(service.store.ids_of, ref, [State.QUEUED])
        # What waits goes first, in one transaction, so that nothing starts meanwhile.
        stopped = await service.record_all(
            [(task_id, StopAsked(at=at)) for task_id in reversed(queued)]
        )
        ended = {task.id for task in stopped}
        for task_id in live:
            if task_id not in ended:
                try:
                    await service.cancel(task_id)
                except CloudaiError as error:
                    if not isinstance(error, Conflict):
                        raise
        return len(live)

    async def forget(self, ref: str) -> int:
        """Forgets all tasks of an ended batch or array, and the batch. Raises ``Conflict``
        while any has not ended, or has its log still on a worker."""
        service = self.service
        if await service.in_thread(service.store.any_live, ref):
            raise Conflict(f"{ref} has not ended", hint=f"first: cloudai cancel {ref}")
        ended = await service.in_thread(service.store.ids_of, ref, FINAL)
        for task_id in ended:
            await service.forget(task_id)
        await service.in_thread(service.store.forget_batch, ref)
        return len(ended)

    async def retry(
        self, ref: str, body: Mapping[str, object]
    ) -> tuple[Batch | Array | Task, list[Task]]:
        """What has ended of a batch or array, or one task, once more: new tasks, which need each
        other as the old ones did. ``failed``: only what did not complete. ``env``: values for
        variables, which are gone with the end of the old ones. Raises ``Conflict`` where there
        is nothing to be run again, or where values are missing."""
        request = known_fields(body, RETRY_FIELDS)
        failed = request.quantity("failed", check_flag, otherwise=False)
        service, at = self.service, now()
        again = await service.in_thread(service.store.again, ref, failed=failed)
        if not again:
            why = "ended badly" if failed else "has ended yet"
            raise Conflict(f"Nothing of {ref} {why}: nothing was queued")
        values = await self._values_again(again, body)
        batch = None
        if again[0].spec.batch == ref:
            old = await service.in_thread(service.store.batch, ref)
            batch = replace(
                old, id=new_id("batch", at), once_key=None, created_at=at, size=len(again)
            )
        tasks = _renewed(again, at, batch.id if batch else None)
        specs = await asyncio.to_thread(service.files.with_files, [task.spec for task in tasks])
        tasks = [replace(task, spec=spec) for task, spec in zip(tasks, specs, strict=True)]
        new_values = {
            new.id: values[old.id] for old, new in zip(again, tasks, strict=True) if values[old.id]
        }
        if batch is not None:
            made, kept, _ = await self._keep(batch, tasks, new_values)
            return made, kept
        bundle = bundle_of(tasks[0].spec)

        def write() -> list[Task]:
            return service.store.submit_many(tasks)

        kept = await (
            service.in_thread(service.keep_each, new_values, write)
            if bundle is None
            else service.in_thread(service.keep_together, bundle, new_values, write)
        )
        service.changed(kept[0])
        array = kept[0].spec.array
        return (Array(array, kept) if array else kept[0]), kept

    async def _values_again(
        self, tasks: Sequence[Task], body: Mapping[str, object]
    ) -> dict[str, dict[str, str]]:
        given = body.get("env") or {}
        if not isinstance(given, Mapping):
            raise InvalidInput(f"env: {shown(given)}; give names and values", field="env")
        found: dict[str, dict[str, str]] = {}
        for task in tasks:
            kept = await self.service.in_thread(self.service.values, task)
            values = {**kept, **{str(name): str(value) for name, value in given.items()}}
            if missing := [name for name in task.spec.env if name not in values]:
                raise Conflict(
                    f"The values of {', '.join(missing[:5])} are gone: they are kept only until"
                    " their task ends",
                    hint=f"give them again: -e {missing[0]}=VALUE, or submit the batch again with"
                    " --resume",
                )
            found[task.id] = {name: values[name] for name in task.spec.env}
        return found


@dataclass(frozen=True, slots=True)
class _Plan:
    name: str | None
    user: str
    once_key: str | None
    tasks: list[Task]
    values: Mapping[str, Mapping[str, str]]


# ------------------------------------------------------------------ what was sent


def _files(body: Mapping[str, object]) -> list[File]:
    files = body.get("files")
    right = 'give a list of files, each {"name": …, "text": …, "format": "yaml"}'
    if not isinstance(files, list):
        raise InvalidInput(f"files: {shown(files)}; {right}", field="files")
    found: list[File] = []
    for at, one in enumerate(files):
        said = one if isinstance(one, Mapping) else {}
        name, text, form = said.get("name"), said.get("text"), said.get("format", "yaml")
        if not (isinstance(name, str) and isinstance(text, str) and isinstance(form, str)):
            raise InvalidInput(f"files[{at}]: {shown(one)}; {right}", field="files")
        found.append(File(name, text, form))
    return found


def _settings(body: Mapping[str, object]) -> dict[str, str]:
    given = body.get("set") or {}
    if not isinstance(given, Mapping) or not all(isinstance(one, str) for one in given.values()):
        raise InvalidInput(f"set: {shown(given)}; give names and texts", field="set")
    return {str(name): str(value) for name, value in given.items()}


def _done(body: Mapping[str, object]) -> Counter[str]:
    given = body.get("done") or {}
    if not isinstance(given, Mapping) or not all(
        isinstance(count, int) and not isinstance(count, bool) for count in given.values()
    ):
        raise InvalidInput(f"done: {shown(given)}; give fingerprints and counts", field="done")
    return Counter({str(mark): int(str(count)) for mark, count in given.items()})


def _rendered(text: object, asked: Asked) -> str:
    """A once key may have the date in it."""
    from cloudai.expressions import render_text

    if not isinstance(text, str):
        raise InvalidInput(f"once_key: {shown(text)}; give text", field="once_key")
    values = {
        **asked.settings,
        "date": f"{asked.now:%Y-%m-%d}",
        "time": f"{asked.now:%H:%M}",
        "timestamp": int(asked.now.timestamp()),
        "user": asked.user,
    }
    try:
        return render_text(text, values)
    except InvalidInput as wrong:
        raise InvalidInput(f"once_key: {wrong.message}", field="once_key") from None


# ------------------------------------------------------------------ needs of what is left


def _without(tasks: Sequence[Task], left_out: set[str], batch_id: str) -> list[Task]:
    """The tasks that are still to run, of a batch of which some completed before: what is met
    by those is no need any more."""
    entries = {f"{batch_id}/{task.spec.entry}" for task in tasks}
    arrays = {task.spec.array for task in tasks}

    def stays(need: Need) -> bool:
        if need.how is How.FAILED:
            return True
        if need.ref.startswith(f"{batch_id}/"):
            return need.ref in entries
        return need.ref not in left_out and (need.ref in arrays or not _is_array_of(need.ref))

    def _is_array_of(ref: str) -> bool:
        return any(one.startswith(f"{ref}_") for one in left_out)

    return [
        replace(
            task,
            spec=with_needs(task.spec, [one for one in needs_of(task.spec) if stays(one)]),
        )
        for task in tasks
    ]


def _renewed(again: Sequence[Task], at: datetime, batch: str | None) -> list[Task]:
    """The same tasks under new ids; what they need of each other is renewed with them."""
    another = new_ids(at)
    arrays: dict[str, str] = {}
    names: dict[str, str] = {}
    for task in again:
        array = task.spec.array
        if array is not None:
            new = arrays.setdefault(array, another("task"))
            names[task.id] = element_id(new, task.spec.array_index)
        else:
            names[task.id] = another("task")
    groups: dict[str, str] = {}
    old_batch = again[0].spec.batch
    entries = {f"{old_batch}/{task.spec.entry}" for task in again} if batch else set()
    renewed: list[Task] = []
    for task in again:
        spec = task.spec
        needs = [_renewed_need(need, names, arrays, entries, batch) for need in needs_of(spec)]
        spec = with_needs(spec, [need for need in needs if need is not None])
        group = groups.setdefault(spec.group, another("group")) if spec.group else None
        spec = replace(
            spec,
            batch=batch,
            entry=spec.entry if batch else None,
            array=arrays[spec.array] if spec.array else None,
            group=group,
            idempotency_key=None,
        )
        renewed.append(Task(id=names[task.id], spec=spec, state=State.QUEUED, created_at=at))
    return renewed


def _renewed_need(
    need: Need,
    names: Mapping[str, str],
    arrays: Mapping[str, str],
    entries: set[str],
    batch: str | None,
) -> Need | None:
    ref = names.get(need.ref) or arrays.get(need.ref)
    if ref is None and need.ref in entries:
        ref = f"{batch}/{need.ref.partition('/')[2]}"
    return need if ref is None else replace(need, ref=ref)
