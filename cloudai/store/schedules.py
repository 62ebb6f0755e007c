"""Schedules as rows, and the batches that they made."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from cloudai.core.cron import Missed, Schedule
from cloudai.core.errors import Conflict, NotFound

from . import queries
from .rows import BATCH, SCHEDULE, TASK


def add(connection: Connection, one: Schedule) -> None:
    """Remembers it. Raises ``Conflict`` where its id is taken."""
    row = {
        "id": one.id,
        "user_id": one.user_id,
        "line": one.line,
        "zone": one.zone,
        "files": json.dumps(one.files),
        "settings": json.dumps(dict(one.settings)),
        "missed": str(one.missed),
        "overlap": one.overlap,
        "created_at": one.created_at,
        "due_at": one.due_at,
        "last_at": one.last_at,
        "last_batch": one.last_batch,
        "last_outcome": one.last_outcome,
    }
    try:
        connection.execute(insert(SCHEDULE).values(**row))
    except IntegrityError:
        raise Conflict(
            f"There is a schedule {one.id} already",
            hint=f"`cloudai cron rm {one.id}` first, or give it another --name",
        ) from None


def remove(connection: Connection, schedule_id: str) -> None:
    """Forgets it; its batches stay. Raises ``NotFound``."""
    gone = connection.execute(delete(SCHEDULE).where(SCHEDULE.c.id == schedule_id))
    if gone.rowcount == 0:
        raise not_found(schedule_id)


def not_found(schedule_id: str) -> NotFound:
    return NotFound(
        f"Schedule {schedule_id} not found",
        hint="`cloudai cron list` lists them",
        schedule=schedule_id,
    )


def every(connection: Connection) -> list[Schedule]:
    """All of them, in the order in which they were made."""
    rows = connection.execute(select(SCHEDULE).order_by(SCHEDULE.c.position))
    return [_schedule(row) for row in rows]


def note(connection: Connection, one: Schedule, before: Schedule) -> bool:
    """Writes when it is due next and what came of the last time; nothing, and false, where it
    does not stand as it did before."""
    stands = (SCHEDULE.c.id == before.id, SCHEDULE.c.due_at == before.due_at)
    changed = update(SCHEDULE).where(*stands, SCHEDULE.c.created_at == before.created_at)
    values = {
        "due_at": one.due_at,
        "last_at": one.last_at,
        "last_batch": one.last_batch,
        "last_outcome": one.last_outcome,
    }
    return connection.execute(changed.values(**values)).rowcount > 0


def batch_of(connection: Connection, key: str) -> str | None:
    """The id of the batch that a once key made. Whose it is its files may say: so not asked."""
    return connection.execute(select(BATCH.c.id).where(BATCH.c.once_key == key)).scalar()


def unended(connection: Connection, keys: str) -> str | None:
    """The newest batch, of those whose once keys begin so, that has not ended."""
    live = select(TASK.c.position).where(
        TASK.c.batch_id == BATCH.c.id, TASK.c.state.in_(queries.LIVE)
    )
    of_it = (queries.begins_with(BATCH.c.once_key, keys), live.exists())
    wanted = select(BATCH.c.id).where(*of_it).order_by(BATCH.c.position.desc())
    return connection.execute(wanted.limit(1)).scalar()


def _schedule(row: Row[Any]) -> Schedule:
    return Schedule(
        id=row.id,
        user_id=row.user_id,
        line=row.line,
        zone=row.zone,
        files=tuple(json.loads(row.files)),
        settings=json.loads(row.settings),
        missed=Missed(row.missed),
        overlap=row.overlap,
        created_at=row.created_at,
        due_at=row.due_at,
        last_at=row.last_at,
        last_batch=row.last_batch,
        last_outcome=row.last_outcome,
    )
