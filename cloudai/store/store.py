"""The one writer's memory: every change in one transaction, on the disk before it returns.

A change of state is a guarded write: it is made only while the row still stands as the caller
saw it, so news that is stale by now changes nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sqlalchemy import Connection, delete, insert, select, text, update
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import IntegrityError

from cloudai.core.arrays import element_id
from cloudai.core.cron import Schedule
from cloudai.core.errors import Conflict, NotFound, StoreFailed, TaskNotFound
from cloudai.core.lifecycle import Event, advance
from cloudai.core.model import Assignment, Batch, Reservation, State, Task
from cloudai.core.names import BATCH_PREFIX
from cloudai.core.needs import Tally, plain_id, split_element
from cloudai.core.usage import Ledger

from . import books, changes, queries, schedules, sets
from .changes import Changes
from .database import Database
from .identity import introduce
from .inserting import Rows, rows_of
from .mapping import assignment_from, assignment_values, standing_values, task_from, task_values
from .rows import ASSIGNMENT, BATCH, EVENT, TASK, WORKER_MARK
from .schema import HEAD, bring_up_to_date
from .sets import Standing
from .story import EventRow, tell

_LISTED = 5
MOST_NAMED = 1000
"""Ids in one question: many more are found faster by looking at all."""


@dataclass(frozen=True, slots=True)
class Located:
    """What a word means: a task, or an array."""

    task: Task | None = None
    array: str | None = None
    example: int = 0
    """An index that the array has."""


class Store:
    """What the home folder remembers. Synchronous; meant for one dedicated thread, and safe
    from several.

    Every method raises ``StoreBusy``, ``StoreReadOnly``, ``StoreFull`` or ``StoreFailed``
    where the disk or the database does; nothing was written then.
    """

    def __init__(self, database: Database, store_id: str) -> None:
        self._database = database
        self.id = store_id
        """Random, made once: tells our containers from those of another cloudai."""

    @classmethod
    def open(cls, path: Path, *, now: datetime) -> Self:
        """Opens the database, making it or bringing its schema up to date.

        Also raises ``StoreTooNew`` where a newer cloudai wrote it.
        """
        database = Database(path)
        try:
            bring_up_to_date(database)
            return cls(database, introduce(database, now=now))
        except BaseException:
            database.close()
            raise

    def close(self) -> None:
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # -------------------------------------------------------------- tasks come

    def submit(self, task: Task, *, what: str = "submitted", text: str = "") -> Task:
        """Remembers a task. A user's known idempotency key answers the task made before."""
        return self.submit_many((task,), what=what, text=text)[0]

    def submit_many(
        self, tasks: Iterable[Task], *, what: str = "submitted", text: str = ""
    ) -> list[Task]:
        """All of them or none, in that order; answers as ``submit`` does for each."""
        answers: list[Task] = []
        new: list[Task] = []
        known: dict[tuple[str, str], Task] = {}
        with self._database.write() as connection:
            for task in tasks:
                before = _made_before(connection, task, known)
                answers.append(before or task)
                if before is None:
                    new.append(task)
            _insert_tasks(connection, new, what=what, text=text)
        return answers

    def submit_array(self, tasks: Sequence[Task]) -> list[Task]:
        """The elements of an array, all of it or nothing. The first one's idempotency key makes
        the array; a known one answers what is left of the array made before, and raises
        ``Conflict`` where it made a task that is of none."""
        with self._database.write() as connection:
            before = _made_before(connection, tasks[0], {})
            if before is None:
                _insert_tasks(connection, tasks, what="submitted", text="")
                return list(tasks)
            if before.spec.array is None:
                raise Conflict(
                    f"The idempotency key {before.spec.idempotency_key} made the task {before.id},"
                    " which is of no array",
                    hint="give another key",
                    task_id=before.id,
                )
            return _all(connection, queries.whole_of(sets.members(before.spec.array)))

    def again(self, ref: str, *, failed: bool) -> list[Task]:
        """Those tasks of a batch or array, or the task, that have ended, or only those of them
        that did not complete, in the order of submission."""
        poor = TASK.c.state.in_((State.FAILED, State.CANCELLED) if failed else queries.ENDED)
        with self._database.read() as connection:
            return _all(connection, queries.whole_of(sets.members(ref), poor))

    def forget_batch(self, batch_id: str) -> None:
        """Forgets a batch of which no task is left; another, or none of that id, is fine."""
        left = select(TASK.c.position).where(TASK.c.batch_id == batch_id).exists()
        with self._database.write() as connection:
            connection.execute(delete(BATCH).where(BATCH.c.id == batch_id, ~left))

    def submit_batch(
        self,
        batch: Batch,
        tasks: Sequence[Task],
        *,
        alone: bool = False,
        ready: Rows | None = None,
    ) -> tuple[Batch, bool]:
        """A batch with all its tasks, or nothing, and whether it is new: a user's known key
        answers the batch that it made before. ``alone``: raises ``Conflict`` while an earlier
        batch of that user, of the same name or the same files, has not ended. ``ready``: their
        ``task_rows``, where they were made beforehand."""
        with self._database.write() as connection:
            if batch.once_key is not None:
                before = sets.batch_by_key(connection, batch.user_id, batch.once_key)
                if before is not None:
                    return before, False
            if alone and (before_it := sets.unended_like(connection, batch)) is not None:
                raise Conflict(
                    f"{before_it} of the same name or files has not ended: nothing was queued",
                    hint=f"`cloudai batch status {before_it}` tells how it stands",
                    batch=before_it,
                )
            sets.add_batch(connection, batch)
            _insert_tasks(connection, tasks, what="submitted", text="", ready=ready)
        return batch, True

    def submit_group(self, tasks: Sequence[Task]) -> list[Task]:
        """A placement group, all of it or nothing: answers its members. The first one's
        idempotency key makes the group; a known one answers what is left of the group made
        before, and raises ``Conflict`` where it made a task that is of none."""
        with self._database.write() as connection:
            before = _made_before(connection, tasks[0], {})
            if before is None:
                _insert_tasks(connection, tasks, what="submitted", text="")
                return list(tasks)
            if before.spec.group is None:
                raise Conflict(
                    f"The idempotency key {before.spec.idempotency_key} made the task {before.id},"
                    " which is of no group",
                    hint="give another key",
                    task_id=before.id,
                )
            return _all(connection, queries.by_group(before.spec.group))

    # -------------------------------------------------------------- tasks are found

    def get(self, task_id: str) -> Task:
        """Raises ``TaskNotFound``."""
        with self._database.read() as connection:
            return _one(connection, task_id)

    def find(self, wanted: str) -> Task:
        """By id, by a unique beginning of one, or by name (the newest of that name).

        Raises ``TaskNotFound``, or ``Conflict`` for a beginning that several ids share, and for
        what is an array.
        """
        found = self.locate(wanted)
        if found.task is not None:
            return found.task
        one = f"{wanted}_{found.example}" if "[" not in wanted else wanted
        raise Conflict(
            f"{wanted} is an array of several tasks",
            hint=f"name one of them, as in {one}",
            array=found.array,
        )

    def locate(self, wanted: str) -> Located:
        """As ``find``, and an array by the same words. Raises ``TaskNotFound``, ``Conflict``."""
        word = plain_id(wanted)
        with self._database.read() as connection:
            if task := _first(connection, queries.by_id(word)):
                return Located(task=task)
            if sets.array_exists(connection, word):
                return _array(connection, word)
            if word.startswith(queries.ID_PREFIX) and word != queries.ID_PREFIX:
                begun = sets.by_beginning(connection, word, limit=_LISTED + 1)
                if len(begun) > 1:
                    raise _ambiguous(wanted, [ref for ref, _ in begun])
                for ref, is_array in begun:
                    return (
                        _array(connection, ref) if is_array else Located(task=_one(connection, ref))
                    )
            name, index = split_element(wanted)
            if task := _first(connection, queries.by_name(name)):
                if task.spec.array is None and index is None:
                    return Located(task=task)
                if task.spec.array is not None:
                    if index is None:
                        return _array(connection, task.spec.array)
                    element = element_id(task.spec.array, index)
                    if task := _first(connection, queries.by_id(element)):
                        return Located(task=task)
        raise TaskNotFound(wanted)

    def resolve(self, wanted: str) -> str:
        """The whole id that a need means by a word: of a task, an array, a batch or an entry of
        one. Raises ``TaskNotFound``, ``NotFound``, ``Conflict``."""
        word, slash, entry = wanted.partition("/")
        if slash or word.startswith(BATCH_PREFIX):
            batch = self.batch(word)
            ref = f"{batch.id}/{entry}" if slash else batch.id
            with self._database.read() as connection:
                if not sets.tally(connection, ref).total:
                    raise NotFound(f"Batch {batch.id} has no entry {entry}", batch=batch.id)
            return ref
        found = self.locate(wanted)
        return found.task.id if found.task else str(found.array)

    def batch(self, wanted: str) -> Batch:
        """By id, by a unique beginning of one, or by name (the newest). Raises ``NotFound``,
        ``Conflict``."""
        with self._database.read() as connection:
            if batch := sets.batch_by_id(connection, wanted):
                return batch
            if wanted.startswith(BATCH_PREFIX) and wanted != BATCH_PREFIX:
                begun = sets.batches_beginning(connection, wanted, limit=_LISTED + 1)
                if len(begun) > 1:
                    raise _ambiguous(wanted, [one.id for one in begun], several="batches")
                if begun:
                    return begun[0]
            if batch := sets.batch_by_name(connection, wanted):
                return batch
        raise NotFound(
            f"Batch {wanted} not found", hint="`cloudai batch status` lists them", batch=wanted
        )

    def batches(
        self,
        *,
        user: str | None = None,
        name: str | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> tuple[list[Batch], int]:
        """One page, newest first, and how many there are in all."""
        with self._database.read() as connection:
            return sets.batches(connection, user=user, name=name, limit=limit, offset=offset)

    def standing(self, ref: str) -> Standing:
        """How the tasks of a batch, of an entry of one or of an array stand as a whole."""
        with self._database.read() as connection:
            return sets.standing(connection, ref)

    def tallies(self, refs: Iterable[str]) -> dict[str, Tally]:
        """How the tasks that these ids mean stand, as needs weigh them."""
        with self._database.read() as connection:
            return {ref: sets.tally(connection, ref) for ref in refs}

    def ids_of(self, ref: str, states: Collection[State]) -> list[str]:
        """The tasks of a batch or array in these states, in the order of submission."""
        with self._database.read() as connection:
            return sets.ids(connection, ref, states)

    def changes(self, batch_id: str, *, since: int | None, limit: int) -> Changes:
        """Tasks of a batch with which something happened since then (a cursor of an earlier
        answer; ``None``: none, only the cursor of now)."""
        with self._database.read() as connection:
            return changes.changes(connection, batch_id, since, limit)

    def any_live(self, ref: str) -> bool:
        """Whether any task of a batch or array has not ended."""
        with self._database.read() as connection:
            return sets.any_live(connection, ref)

    def group(self, group_id: str) -> list[Task]:
        """What there is of a placement group, in the order of ranks. Raises ``NotFound``."""
        with self._database.read() as connection:
            members = _all(connection, queries.by_group(group_id))
        if not members:
            raise NotFound(f"Group {group_id} not found", group=group_id)
        return members

    def tasks(
        self,
        *,
        states: Collection[State] = (),
        user: str | None = None,
        worker: str | None = None,
        name: str | None = None,
        batch: str | None = None,
        array: str | None = None,
        task_type: str | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> tuple[list[Task], int]:
        """One page, newest first, and how many there are in all. ``worker``: where they are,
        or were last; ``batch`` and ``array``: whole ids."""
        conditions = queries.matching(
            states=states,
            user=user,
            worker=worker,
            name=name,
            batch=batch,
            array=array,
            task_type=task_type,
        )
        with self._database.read() as connection:
            total = connection.execute(queries.total(conditions)).scalar_one()
            wanted = queries.page(conditions, limit=max(limit, 0), offset=max(offset, 0))
            return _all(connection, wanted), int(total)

    def waiting(self, limit: int) -> tuple[list[tuple[Task, int]], int]:
        """What waits or is being started, oldest first, an array as one: at most ``limit``
        tasks, each with how many of its array there are (1 for a task alone); and how many
        tasks that is in all."""
        with self._database.read() as connection:
            rows, total = sets.waiting(connection, limit)
            counts = dict(rows)
            tasks = _all(connection, queries.whole_of(TASK.c.id.in_(counts)))
        return [(task, counts[task.id]) for task in tasks], total

    def active(self) -> list[Task]:
        """All that have not ended, in the order of submission."""
        with self._database.read() as connection:
            return _all(connection, queries.live())

    def unharvested(self, among: Collection[str] | None = None) -> list[Task]:
        """Those with an assignment that is over and whose log is not home yet, or whose
        container is not removed: once for each such assignment, which stands in ``assignment``.
        One that waits again, or runs again, comes as one that was cancelled. ``among``: only of
        these tasks."""
        wanted = queries.to_harvest()
        if among is not None and len(among) <= MOST_NAMED:
            wanted = wanted.where(TASK.c.id.in_(among))
        with self._database.read() as connection:
            return [_as_over(task) for task in _all(connection, wanted)]

    def assignments(self, task_id: str) -> list[Assignment]:
        """All of a task's, in order."""
        with self._database.read() as connection:
            rows = connection.execute(queries.assignments_of(task_id))
            return [assignment_from(tuple(row)) for row in rows]

    def known_containers(self, task_ids: Collection[str]) -> dict[str, str | None]:
        """By assignment id, the container of each assignment of these tasks (``None``: not
        known yet); tasks that are not here are left out."""
        with self._database.read() as connection:
            rows = connection.execute(queries.containers_of(task_ids))
            return {f"{task_id}.{number}": container for task_id, number, container in rows}

    def events(self, task_id: str) -> list[EventRow]:
        """A task's story, in the order it was written."""
        with self._database.read() as connection:
            rows = connection.execute(queries.story_of(task_id))
            return [EventRow(*row) for row in rows]

    # -------------------------------------------------------------- tasks change

    def record(self, task: Task, event: Event) -> Task | None:
        """The task after the event, once it is on the disk.

        ``None`` where the event does not apply to the task, or the task no longer stands as
        given (state, what becomes of it once stopped, assignment, container): stale news,
        nothing was written.
        """
        after = advance(task, event)
        if after is None:
            return None
        with self._database.write() as connection:
            return _record(connection, task, event, after)

    def record_all(self, happened: Iterable[tuple[str, Event]]) -> list[Task]:
        """What happened to many tasks, by id, in one transaction: those to which it applied,
        once all of it is on the disk."""
        moved: list[Task] = []
        with self._database.write() as connection:
            for task_id, event in happened:
                task = _first(connection, queries.by_id(task_id))
                after = advance(task, event) if task is not None else None
                if task is not None and after is not None:
                    done = _record(connection, task, event, after)
                    moved += [done] if done is not None else []
        return moved

    def add_event(self, task_id: str, at: datetime, what: str, text: str) -> None:
        """One more line of the task's story. Raises ``TaskNotFound``."""
        with self._database.write() as connection:
            try:
                _insert_event(connection, task_id, EventRow(at, what, text))
            except IntegrityError:
                raise TaskNotFound(task_id) from None

    def mark_harvested(self, task_id: str, number: int) -> None:
        """The assignment's log is home and its container is gone. Again, or for a task that
        was forgotten, is fine."""
        with self._database.write() as connection:
            connection.execute(
                update(ASSIGNMENT)
                .where(ASSIGNMENT.c.task_id == task_id, ASSIGNMENT.c.number == number)
                .values(harvested=True)
            )

    def forget(self, task_id: str) -> None:
        """Removes an ended task and its story. Raises ``Conflict`` for one that has not
        ended, or by whose end another is still to be weighed, and ``TaskNotFound``."""
        with self._database.write() as connection:
            spec = _one(connection, task_id).spec
            refs = [task_id, spec.array, spec.batch, f"{spec.batch}/{spec.entry}"]
            waits = sets.needed_by(connection, [ref for ref in refs if ref is not None])
            if waits is not None:
                raise Conflict(
                    f"Task {task_id} is needed by {waits}, which waits for how it ended",
                    hint=f"once {waits} has started, or is cancelled",
                    task_id=task_id,
                )
            ended = TASK.c.state.in_(queries.ENDED)
            gone = connection.execute(delete(TASK).where(TASK.c.id == task_id, ended))
            if gone.rowcount == 0:
                state = _one(connection, task_id).state
                raise Conflict(
                    f"Task {task_id} is {state}: only a finished one can be forgotten",
                    hint=f"`cloudai cancel {task_id}` first",
                    task_id=task_id,
                )

    # -------------------------------------------------------------- uploads

    def any_with(self, text: str) -> bool:
        """Whether the spec of any task holds that text: letters and digits."""
        wanted = select(TASK.c.id).where(TASK.c.spec.contains(text, autoescape=True)).limit(1)
        with self._database.read() as connection:
            return connection.execute(wanted).first() is not None

    def workers_with_uploads(self) -> set[str]:
        """Where tasks that brought something along are or were, of those that are not
        forgotten."""
        wanted = (
            select(ASSIGNMENT.c.worker_id)
            .distinct()
            .select_from(ASSIGNMENT.join(TASK, TASK.c.id == ASSIGNMENT.c.task_id))
            .where(TASK.c.spec.contains('"uploads":', autoescape=True))
        )
        with self._database.read() as connection:
            return set(connection.execute(wanted).scalars())

    # -------------------------------------------------------------- workers

    def set_draining(
        self, worker_id: str, draining: bool, at: datetime, *, by: str = "", note: str = ""
    ) -> None:
        """No new tasks there, or again; who said so, and why."""
        mark = {"draining": draining, "marked_at": at, "drained_by": by, "note": note}
        row = sqlite.insert(WORKER_MARK).values(worker_id=worker_id, **mark)
        with self._database.write() as connection:
            connection.execute(row.on_conflict_do_update(index_elements=["worker_id"], set_=mark))

    def draining(self) -> set[str]:
        """Workers that take no new tasks."""
        marked = select(WORKER_MARK.c.worker_id).where(WORKER_MARK.c.draining)
        with self._database.read() as connection:
            return set(connection.execute(marked).scalars())

    # -------------------------------------------------------------- shares of the fleet

    def add_reservation(self, one: Reservation) -> None:
        """Remembers a reservation of a new id."""
        with self._database.write() as connection:
            books.add_reservation(connection, one)

    def remove_reservation(self, reservation_id: str) -> None:
        """Gives it back. Raises ``NotFound``."""
        with self._database.write() as connection:
            books.remove_reservation(connection, reservation_id)

    def reservations(self, now: datetime) -> list[Reservation]:
        """Those that hold now, in the order in which they were made."""
        with self._database.read() as connection:
            return books.reservations(connection, now)

    # -------------------------------------------------------------- schedules

    def add_schedule(self, one: Schedule) -> None:
        """Remembers a schedule. Raises ``Conflict`` where its id is taken."""
        with self._database.write() as connection:
            schedules.add(connection, one)

    def remove_schedule(self, schedule_id: str) -> None:
        """Forgets a schedule; its batches stay. Raises ``NotFound``."""
        with self._database.write() as connection:
            schedules.remove(connection, schedule_id)

    def schedules(self) -> list[Schedule]:
        """All of them, in the order in which they were made."""
        with self._database.read() as connection:
            return schedules.every(connection)

    def note_schedule(self, one: Schedule, before: Schedule) -> bool:
        """Writes when it is due next and what came of the last time, if it still stands as
        ``before``."""
        with self._database.write() as connection:
            return schedules.note(connection, one, before)

    def batch_of_schedule(self, key: str) -> str | None:
        """The id of the batch that was made with that once key."""
        with self._database.read() as connection:
            return schedules.batch_of(connection, key)

    def unended_of_schedule(self, keys: str) -> str | None:
        """The newest batch with such a once key that has not ended, by its id."""
        with self._database.read() as connection:
            return schedules.unended(connection, keys)

    def ledger(self, half_life: float) -> Ledger:
        """What all runs that are over add up to, for a half-life in seconds. One pass over all
        tasks; a second or two for a hundred thousand."""
        ledger = Ledger(half_life)
        with self._database.read() as connection:
            for run in books.runs(connection):
                ledger.add(run)
        return ledger

    # -------------------------------------------------------------- figures

    def counts(self) -> dict[State, int]:
        """How many tasks there are in each state."""
        with self._database.read() as connection:
            found = {row[0]: int(row[1]) for row in connection.execute(queries.by_state())}
        return {state: found.get(state, 0) for state in State}

    def metrics(self) -> dict[str, int | float]:
        """The figures of seed 003. Starting counts as pending and stopping as running, so
        that the parts make the whole."""
        count = self.counts()
        with self._database.read() as connection:
            mean = connection.execute(queries.mean_microseconds()).scalar() or 0.0
        completed, failed = count[State.COMPLETED], count[State.FAILED]
        ended = completed + failed
        return {
            "total_tasks": sum(count.values()),
            "pending_tasks": count[State.QUEUED] + count[State.STARTING],
            "running_tasks": count[State.RUNNING] + count[State.STOPPING],
            "completed_tasks": completed,
            "failed_tasks": failed,
            "cancelled_tasks": count[State.CANCELLED],
            "success_rate": round(100 * completed / ended, 1) if ended else 0.0,
            "average_execution_time": round(mean / 1_000_000, 3),
        }

    def backup(self, target: Path) -> None:
        """Puts a whole copy of the database (0600) at ``target``, while it is in use.

        Raises ``Conflict`` where something is there already.
        """
        self._database.copy_to_new(target)

    def integrity(self) -> list[str]:
        """What SQLite finds wrong with the file; empty when all is well."""
        try:
            with self._database.read() as connection:
                found = connection.exec_driver_sql("PRAGMA integrity_check").scalars().all()
                loose = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
        except StoreFailed as error:
            return [error.message]
        wrong = [str(line) for line in found if line != "ok"]
        return wrong + [f"row {row[1]} of {row[0]} belongs to nothing" for row in loose]

    @property
    def sqlite_version(self) -> str:
        return sqlite3.sqlite_version

    @property
    def schema_version(self) -> str:
        return HEAD


# ------------------------------------------------------------------ reading


def _all(connection: Connection, wanted: queries.Selection) -> list[Task]:
    return [task_from(row) for row in connection.execute(wanted)]


def _first(connection: Connection, wanted: queries.Selection) -> Task | None:
    row = connection.execute(wanted).first()
    return None if row is None else task_from(row)


def _as_over(task: Task) -> Task:
    return task if task.state.final else replace(task, state=State.CANCELLED)


def _one(connection: Connection, task_id: str) -> Task:
    task = _first(connection, queries.by_id(task_id))
    if task is None:
        raise TaskNotFound(task_id)
    return task


def _array(connection: Connection, array_id: str) -> Located:
    index = sets.first_index(connection, array_id)
    return Located(array=array_id, example=index)


def _ambiguous(wanted: str, ids: list[str], *, several: str = "tasks") -> Conflict:
    more = ", …" if len(ids) > _LISTED else ""
    return Conflict(
        f"{wanted} could be several {several}: {', '.join(ids[:_LISTED])}{more}",
        hint="Type more of the id.",
        tasks=ids[:_LISTED],
    )


# ------------------------------------------------------------------ writing


def _made_before(
    connection: Connection, task: Task, known: dict[tuple[str, str], Task]
) -> Task | None:
    """The task that has this one's idempotency key; ``known``: those seen in this batch."""
    key = task.spec.idempotency_key
    if key is None:
        return None
    user = task.spec.user_id
    before = known.get((user, key)) or _first(connection, queries.by_key(user, key))
    known[user, key] = before or task
    return before


def task_rows(tasks: Sequence[Task]) -> Rows:
    """What stands for tasks in the database: of a hundred thousand, half of the work of storing
    them, and for any thread."""
    return rows_of(TASK, [task_values(task) for task in tasks])


def _insert_tasks(
    connection: Connection,
    tasks: Sequence[Task],
    *,
    what: str,
    text: str,
    ready: Rows | None = None,
) -> None:
    if not tasks:
        return
    try:
        (ready or task_rows(tasks)).insert(connection)
    except IntegrityError as error:
        if "UNIQUE" not in str(error.orig):
            raise
        raise Conflict("A task with that id is there already") from None
    connection.execute(_FIRST_LINES, {"what": what, "text": text, "tasks": len(tasks)})
    assigned = [task.assignment for task in tasks if task.assignment]
    if assigned:
        rows_of(ASSIGNMENT, [assignment_values(each) for each in assigned]).insert(connection)


_FIRST_LINES = text(
    "INSERT INTO event (task_id, at, what, text) SELECT id, created_at, :what, :text FROM task"
    " WHERE position > last_insert_rowid() - :tasks ORDER BY position"
)
"""Of the stories of so many tasks, which were the last rows to be inserted."""


def _record(connection: Connection, task: Task, event: Event, after: Task) -> Task | None:
    guarded = update(TASK).where(*_stands_as(task)).values(**standing_values(after))
    if connection.execute(guarded).rowcount == 0:
        return None
    _write_assignment(connection, task.assignment, after.assignment)
    for line in tell(event, task, after):
        _insert_event(connection, task.id, line)
    return after


def _stands_as(task: Task) -> tuple[Any, ...]:
    """The row is as the caller saw it: the guard of every change."""
    assignment = task.assignment
    container = (
        select(ASSIGNMENT.c.container_id)
        .where(ASSIGNMENT.c.task_id == TASK.c.id, ASSIGNMENT.c.number == TASK.c.assignment_number)
        .scalar_subquery()
    )
    return (
        TASK.c.id == task.id,
        TASK.c.state == task.state,
        TASK.c.requeue == task.requeue,
        TASK.c.assignment_number.is_not_distinct_from(assignment and assignment.number),
        container.is_not_distinct_from(assignment and assignment.container_id),
    )


def _write_assignment(
    connection: Connection, before: Assignment | None, after: Assignment | None
) -> None:
    if after is None or after == before:
        return
    values = assignment_values(after)
    if before is None or before.number != after.number:
        connection.execute(insert(ASSIGNMENT).values(**values))
        return
    connection.execute(
        update(ASSIGNMENT)
        .where(ASSIGNMENT.c.task_id == after.task_id, ASSIGNMENT.c.number == after.number)
        .values(**values)
    )


def _insert_event(connection: Connection, task_id: str, line: EventRow) -> None:
    row = {"task_id": task_id, "at": line.at, "what": line.what, "text": line.text}
    connection.execute(insert(EVENT).values(**row))
