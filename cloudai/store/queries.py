"""What is asked of the tables."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Select, and_, func, select, text, type_coerce

from cloudai.core.model import FINAL, State

from .mapping import ASSIGNMENT_COLUMNS, TASK_COLUMNS
from .rows import ASSIGNMENT, EVENT, TASK

Selection = Select[*tuple[Any, ...]]

LIVE = tuple(state for state in State if not state.final)
HELD = tuple(state for state in State if state.assigned)
ENDED = tuple(state for state in State if state in FINAL)
ID_PREFIX = "task-"
_AFTER_ALL = "\U0010ffff"

_OF_PRESENT = and_(
    ASSIGNMENT.c.task_id == TASK.c.id, ASSIGNMENT.c.number == TASK.c.assignment_number
)
WHOLE: Selection = select(*TASK_COLUMNS, *ASSIGNMENT_COLUMNS).select_from(
    TASK.outerjoin(ASSIGNMENT, _OF_PRESENT)
)
"""Tasks with their present or last assignment: what ``mapping.task_from`` reads."""


def by_id(task_id: str) -> Selection:
    return WHOLE.where(TASK.c.id == task_id)


def begins_with(column: ColumnElement[str], prefix: str) -> ColumnElement[bool]:
    """A range, not LIKE: nothing in ``prefix`` is a wildcard."""
    return and_(column >= prefix, column < prefix + _AFTER_ALL)


def by_name(name: str) -> Selection:
    """The newest one."""
    return WHOLE.where(TASK.c.name == name).order_by(TASK.c.position.desc()).limit(1)


def by_group(group_id: str) -> Selection:
    """All of a placement group, in the order they were submitted."""
    return WHOLE.where(TASK.c.group_id == group_id).order_by(TASK.c.position)


def whole_of(*conditions: ColumnElement[bool]) -> Selection:
    """Tasks that meet all of these, in the order of submission."""
    return WHOLE.where(*conditions).order_by(TASK.c.position)


def by_key(user_id: str, key: str) -> Selection:
    return WHOLE.where(TASK.c.user_id == user_id, TASK.c.idempotency_key == key)


def live() -> Selection:
    """In the order of submission."""
    return WHOLE.where(TASK.c.state.in_(LIVE)).order_by(TASK.c.position)


def to_harvest() -> Selection:
    """Assignments that are over, whose container may still be on its worker, and which were
    not given up: of tasks that ended, wait again, or run elsewhere.

    The words of the condition are those of its index, or SQLite does not see that it serves.
    """
    waiting = text("assignment.harvested = 0 AND assignment.container_id IS NOT NULL")
    present = and_(ASSIGNMENT.c.number == TASK.c.assignment_number, TASK.c.state.in_(HELD))
    return (
        select(*TASK_COLUMNS, *ASSIGNMENT_COLUMNS)
        .select_from(ASSIGNMENT.join(TASK, TASK.c.id == ASSIGNMENT.c.task_id))
        .where(waiting, ~present, ~ASSIGNMENT.c.lost)
        .order_by(TASK.c.position, ASSIGNMENT.c.number)
    )


def matching(
    *,
    states: Collection[State],
    user: str | None,
    worker: str | None,
    name: str | None,
    batch: str | None,
    array: str | None,
    task_type: str | None,
) -> list[ColumnElement[bool]]:
    """Conditions on tasks; none of them: all tasks."""
    conditions: list[ColumnElement[bool]] = []
    if states:
        conditions.append(TASK.c.state.in_(sorted(set(states))))
    if user is not None:
        conditions.append(TASK.c.user_id == user)
    if worker is not None:
        conditions.append(TASK.c.worker_id == worker)
    if name is not None:
        conditions.append(TASK.c.name == name)
    if batch is not None:
        conditions.append(TASK.c.batch_id == batch)
    if array is not None:
        conditions.append(TASK.c.array_id == array)
    if task_type is not None:
        conditions.append(func.json_extract(TASK.c.spec, "$.task_type") == task_type)
    return conditions


def page(conditions: list[ColumnElement[bool]], *, limit: int, offset: int) -> Selection:
    """Newest first. Chosen by their positions alone, so that sorting many moves little."""
    newest = TASK.c.position.desc()
    chosen = select(TASK.c.position).where(*conditions).order_by(newest).limit(limit).offset(offset)
    return WHOLE.where(TASK.c.position.in_(chosen)).order_by(newest)


def total(conditions: list[ColumnElement[bool]]) -> Selection:
    return select(func.count()).select_from(TASK).where(*conditions)


def assignments_of(task_id: str) -> Selection:
    return (
        select(*ASSIGNMENT_COLUMNS)
        .where(ASSIGNMENT.c.task_id == task_id)
        .order_by(ASSIGNMENT.c.number)
    )


def containers_of(task_ids: Collection[str]) -> Selection:
    """Which container each assignment of these tasks has, as far as it is known."""
    columns = (ASSIGNMENT.c.task_id, ASSIGNMENT.c.number, ASSIGNMENT.c.container_id)
    return select(*columns).where(ASSIGNMENT.c.task_id.in_(sorted(task_ids)))


OF_RUNS = (
    *("image", "shell", "argv[0]", "task_type"),
    *(f"resources.{name}" for name in ("cpu_milli", "memory", "storage", "gpu_milli")),
)


def runs() -> Selection:
    """Every assignment that really ran and is over, with what it held and whether it is the
    one that its task completed by. Raw, and the spec read where it is: for a hundred thousand
    rows at once."""
    completed = and_(
        TASK.c.state == State.COMPLETED, ASSIGNMENT.c.number == TASK.c.assignment_number
    )
    return (
        select(
            TASK.c.user_id,
            *(func.json_extract(TASK.c.spec, f"$.{part}") for part in OF_RUNS),
            ASSIGNMENT.c.worker_id,
            type_coerce(ASSIGNMENT.c.started_at, BigInteger),
            type_coerce(ASSIGNMENT.c.ended_at, BigInteger),
            completed,
        )
        .select_from(ASSIGNMENT.join(TASK, TASK.c.id == ASSIGNMENT.c.task_id))
        .where(ASSIGNMENT.c.started_at.is_not(None), ASSIGNMENT.c.ended_at.is_not(None))
        .order_by(ASSIGNMENT.c.ended_at)
    )


def story_of(task_id: str) -> Selection:
    return (
        select(EVENT.c.at, EVENT.c.what, EVENT.c.text)
        .where(EVENT.c.task_id == task_id)
        .order_by(EVENT.c.position)
    )


def by_state() -> Selection:
    return select(TASK.c.state, func.count()).group_by(TASK.c.state)


def mean_microseconds() -> Selection:
    """How long completed tasks ran, on average."""
    ran = text("avg(completed_at - started_at)")
    return select(ran).select_from(TASK).where(TASK.c.state == State.COMPLETED)
