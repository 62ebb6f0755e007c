"""What became of a batch's tasks since somebody looked last: by the story, which every change
of a task adds a line to."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from cloudai.core.model import Task

from . import queries
from .mapping import task_from
from .rows import EVENT, TASK


@dataclass(frozen=True, slots=True)
class Changes:
    """``tasks`` as they stand now, in the order of their latest change; ``cursor``: where to go
    on from; ``more``: there is more already."""

    tasks: list[Task]
    cursor: int
    more: bool


def changes(connection: Connection, batch_id: str, since: int | None, limit: int) -> Changes:
    """Tasks of a batch with a line of the story behind ``since``, at most ``limit``; ``None``:
    none, only the cursor of now."""
    newest = int(connection.execute(select(func.max(EVENT.c.position))).scalar() or 0)
    if since is None:
        return Changes([], newest, False)
    last = func.max(EVENT.c.position)
    wanted = (
        select(TASK.c.id, last)
        .select_from(EVENT.join(TASK, TASK.c.id == EVENT.c.task_id))
        .where(EVENT.c.position > since, TASK.c.batch_id == batch_id)
        .group_by(TASK.c.id)
        .order_by(last)
        .limit(limit + 1)
    )
    found = [(str(task_id), int(position)) for task_id, position in connection.execute(wanted)]
    more = len(found) > limit
    kept = found[:limit]
    rows = connection.execute(queries.WHOLE.where(TASK.c.id.in_([one for one, _ in kept])))
    tasks = {task.id: task for task in (task_from(row) for row in rows)}
    cursor = kept[-1][1] if more else newest
    return Changes([tasks[task_id] for task_id, _ in kept], cursor, more)
