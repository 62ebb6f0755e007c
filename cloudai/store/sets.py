"""Tasks that belong together: arrays and batches, and how they stand as a whole."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    and_,
    false,
    func,
    insert,
    literal,
    or_,
    select,
    text,
    true,
)

from cloudai.core.model import Batch, State
from cloudai.core.names import is_batch_id
from cloudai.core.needs import How, Need, Tally

from . import queries
from .rows import BATCH, TASK


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a set of tasks stands as a whole."""

    counts: dict[State, int]
    """Without those that were left out."""
    skipped: int
    started_at: datetime | None
    """When the first of them began."""
    completed_at: datetime | None
    """When the last one ended, once all have."""

    @property
    def size(self) -> int:
        return sum(self.counts.values()) + self.skipped

    @property
    def ended(self) -> bool:
        return not any(self.counts[state] for state in queries.LIVE)


# ------------------------------------------------------------------ which tasks


def members(ref: str) -> ColumnElement[bool]:
    """The tasks that an id means: of a batch, of an entry of one (``batch-…/entry``), of an
    array, or the one task."""
    batch, slash, entry = ref.partition("/")
    if is_batch_id(batch):
        whole = TASK.c.batch_id == batch
        return and_(whole, func.json_extract(TASK.c.spec, "$.entry") == entry) if slash else whole
    return or_(TASK.c.id == ref, TASK.c.array_id == ref)


def array_exists(connection: Connection, array_id: str) -> bool:
    found = select(TASK.c.position).where(TASK.c.array_id == array_id).limit(1)
    return connection.execute(found).first() is not None


def first_index(connection: Connection, array_id: str) -> int:
    """Of the array's first element."""
    index = func.json_extract(TASK.c.spec, "$.array_index")
    wanted = select(index).where(TASK.c.array_id == array_id).order_by(TASK.c.position).limit(1)
    return connection.execute(wanted).scalar() or 0


def by_beginning(connection: Connection, prefix: str, *, limit: int) -> list[tuple[str, bool]]:
    """Ids that begin so, newest first, each with whether it is an array's. An array comes once,
    unless more than its own id was typed."""
    whole = TASK.c.id if "_" in prefix else func.coalesce(TASK.c.array_id, TASK.c.id)
    within = queries.begins_with(TASK.c.id, prefix)
    wanted = select(whole.label("ref"), (whole != TASK.c.id).label("is_array"))
    rows = connection.execute(wanted.where(within).distinct().order_by(whole.desc()).limit(limit))
    return [(str(ref), bool(is_array)) for ref, is_array in rows]


# ------------------------------------------------------------------ how they stand


def tally(connection: Connection, ref: str) -> Tally:
    """What a need weighs of them; see ``core.needs``."""
    which = members(ref)
    grouped = select(TASK.c.state, TASK.c.skipped, func.count()).where(which)
    rows = connection.execute(grouped.group_by(TASK.c.state, TASK.c.skipped)).all()
    total = sum(int(count) for _, _, count in rows)
    ended = sum(int(count) for state, _, count in rows if state.final)
    completed = sum(int(count) for state, _, count in rows if state is State.COMPLETED)
    skipped = sum(int(count) for _, left_out, count in rows if left_out)
    bad = _bad(connection, which) if ended > completed else ""
    return Tally(total=total, ended=ended, completed=completed, skipped=skipped, bad=bad)


def _bad(connection: Connection, which: ColumnElement[bool]) -> str:
    poor = TASK.c.state.in_((State.FAILED, State.CANCELLED))
    wanted = select(TASK.c.id, TASK.c.name, TASK.c.state, TASK.c.skipped, TASK.c.reason)
    row = connection.execute(wanted.where(which, poor).order_by(TASK.c.position).limit(1)).first()
    if row is None:
        return ""
    who = f"{row.name} ({row.id})" if row.name else row.id
    if row.skipped:
        return f"{who} was left out"
    if row.state is State.CANCELLED:
        return f"{who} was cancelled"
    return f"{who} failed ({row.reason})" if row.reason else f"{who} failed"


def standing(connection: Connection, ref: str) -> Standing:
    """How they stand as a whole."""
    which = members(ref)
    wanted = select(
        TASK.c.state,
        TASK.c.skipped,
        func.count(),
        func.min(TASK.c.started_at),
        func.max(TASK.c.completed_at),
    )
    rows = connection.execute(wanted.where(which).group_by(TASK.c.state, TASK.c.skipped)).all()
    counts = dict.fromkeys(State, 0)
    for state, left_out, count, _, _ in rows:
        counts[state] += 0 if left_out else int(count)
    began = [first for _, _, _, first, _ in rows if first is not None]
    ends = [last for _, _, _, _, last in rows if last is not None]
    live = any(counts[state] for state in queries.LIVE)
    return Standing(
        counts=counts,
        skipped=sum(int(count) for _, left_out, count, _, _ in rows if left_out),
        started_at=min(began, default=None),
        completed_at=None if live else max(ends, default=None),
    )


def any_live(connection: Connection, ref: str) -> bool:
    """Whether any of them has not ended."""
    live = select(TASK.c.position).where(members(ref), TASK.c.state.in_(queries.LIVE)).limit(1)
    return connection.execute(live).first() is not None


def ids(connection: Connection, ref: str, states: Collection[State]) -> list[str]:
    """Those of them in these states, in the order of submission."""
    chosen = select(TASK.c.id).where(members(ref), TASK.c.state.in_(sorted(set(states))))
    return list(connection.execute(chosen.order_by(TASK.c.position)).scalars())


def needed_by(connection: Connection, refs: Sequence[str]) -> str | None:
    """A waiting task that needs one of these references, if there is one."""
    needs = func.json_each(TASK.c.spec, "$.after").table_valued("value")
    named = needs.c.value.in_([str(Need(ref, how)) for ref in refs for how in How])
    wanted = select(TASK.c.id).select_from(TASK.join(needs, true()))
    waiting = TASK.c.state == State.QUEUED
    return connection.execute(wanted.where(waiting, named).limit(1)).scalar()


def waiting(connection: Connection, limit: int) -> tuple[list[tuple[str, int]], int]:
    """What waits for a worker or is being started, oldest first, an array as one: the first
    task of each with how many there are; and how many tasks that is in all."""
    going = (State.QUEUED, State.STARTING)
    found: list[tuple[int, str, int]] = []
    for state in going:
        # One state at a time, which its index has in order: the first few are soon found.
        alone = select(TASK.c.position, TASK.c.id, literal(1))
        of_state = alone.where(TASK.c.state == state, TASK.c.array_id.is_(None))
        found += _counted(connection, of_state.order_by(TASK.c.position).limit(limit))
    # The plus keeps SQLite from the index of states, in which all that waits would be looked at.
    either = text("+task.state IN ('queued', 'starting')")
    elements = select(func.min(TASK.c.position), TASK.c.id, func.count())
    arrays = elements.where(TASK.c.array_id.is_not(None), either).group_by(TASK.c.array_id)
    found = sorted([*found, *_counted(connection, arrays)])[:limit]
    total = select(func.count()).select_from(TASK).where(TASK.c.state.in_(going))
    rows = [(task_id, count) for _, task_id, count in found]
    return rows, int(connection.execute(total).scalar_one())


def _counted(connection: Connection, wanted: queries.Selection) -> list[tuple[int, str, int]]:
    """(position, id, how many) of each."""
    rows = connection.execute(wanted)
    return [(int(position), str(task_id), int(count)) for position, task_id, count in rows]


# ------------------------------------------------------------------ batches


def add_batch(connection: Connection, batch: Batch) -> None:
    """Remembers it; its id and its key must be new."""
    connection.execute(
        insert(BATCH).values(
            id=batch.id,
            name=batch.name,
            user_id=batch.user_id,
            once_key=batch.once_key,
            created_at=batch.created_at,
            tasks=batch.size,
            source=json.dumps(batch.files),
        )
    )


def batch_by_key(connection: Connection, user_id: str, key: str) -> Batch | None:
    wanted = select(BATCH).where(BATCH.c.user_id == user_id, BATCH.c.once_key == key)
    row = connection.execute(wanted).first()
    return None if row is None else _batch(row)


def has_files(batch: Batch) -> bool:
    """Whether it can be known again by its files: text from a pipe has no name of its own."""
    return any(name.startswith("/") for name in batch.files)


def unended_like(connection: Connection, batch: Batch) -> str | None:
    """The newest batch of its user, with its name or its files, that has not ended."""
    live = select(TASK.c.position).where(
        TASK.c.batch_id == BATCH.c.id, TASK.c.state.in_(queries.LIVE)
    )
    alike = [BATCH.c.name == batch.name] if batch.name is not None else []
    if has_files(batch):
        alike.append(BATCH.c.source == json.dumps(batch.files))
    of_it = (BATCH.c.user_id == batch.user_id, or_(false(), *alike))
    wanted = select(BATCH.c.id).where(*of_it, live.exists())
    return connection.execute(wanted.order_by(BATCH.c.position.desc()).limit(1)).scalar()


def batch_by_id(connection: Connection, batch_id: str) -> Batch | None:
    row = connection.execute(select(BATCH).where(BATCH.c.id == batch_id)).first()
    return None if row is None else _batch(row)


def batches_beginning(connection: Connection, prefix: str, *, limit: int) -> list[Batch]:
    wanted = select(BATCH).where(queries.begins_with(BATCH.c.id, prefix))
    return [_batch(row) for row in connection.execute(wanted.limit(limit))]


def batch_by_name(connection: Connection, name: str) -> Batch | None:
    """The newest."""
    wanted = select(BATCH).where(BATCH.c.name == name).order_by(BATCH.c.position.desc())
    row = connection.execute(wanted.limit(1)).first()
    return None if row is None else _batch(row)


def batches(
    connection: Connection, *, user: str | None, name: str | None, limit: int, offset: int
) -> tuple[list[Batch], int]:
    """One page, newest first, and how many there are in all."""
    conditions: list[ColumnElement[bool]] = []
    if user is not None:
        conditions.append(BATCH.c.user_id == user)
    if name is not None:
        conditions.append(BATCH.c.name == name)
    count = select(func.count()).select_from(BATCH).where(*conditions)
    total = int(connection.execute(count).scalar_one())
    page = select(BATCH).where(*conditions).order_by(BATCH.c.position.desc())
    found = connection.execute(page.limit(limit).offset(offset))
    return [_batch(row) for row in found], total


def _batch(row: Row[Any]) -> Batch:
    return Batch(
        id=row.id,
        name=row.name,
        user_id=row.user_id,
        once_key=row.once_key,
        created_at=row.created_at,
        size=row.tasks,
        files=tuple(json.loads(row.source)),
    )
