"""What is kept beside the tasks: reservations, and what users have used."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, delete, insert, or_, select

from cloudai.core.errors import NotFound
from cloudai.core.model import Reservation, Resources
from cloudai.core.usage import Run, kind_from

from . import queries
from .mapping import reservation_from, reservation_values
from .rows import RESERVATION

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def add_reservation(connection: Connection, one: Reservation) -> None:
    """Remembers it; that of its id must be new."""
    connection.execute(insert(RESERVATION).values(**reservation_values(one)))


def remove_reservation(connection: Connection, reservation_id: str) -> None:
    """Raises ``NotFound``."""
    gone = connection.execute(delete(RESERVATION).where(RESERVATION.c.id == reservation_id))
    if gone.rowcount == 0:
        raise NotFound(f"Reservation {reservation_id} not found", reservation=reservation_id)


def reservations(connection: Connection, now: datetime) -> list[Reservation]:
    """Those that hold now, in the order in which they were made."""
    lasting = or_(RESERVATION.c.until.is_(None), RESERVATION.c.until > now)
    wanted = select(RESERVATION).where(lasting).order_by(RESERVATION.c.position)
    return [reservation_from(row) for row in connection.execute(wanted)]


def runs(connection: Connection) -> Iterator[Run]:
    """Every run that is over, in the order in which they ended. One pass over all tasks."""
    for row in connection.execute(queries.runs()):
        user_id, image, shell, word, task_type, cpu_milli, memory, storage, gpu_milli, *rest = row
        worker_id, started, ended, completed = rest
        yield Run(
            user_id=user_id,
            kind=kind_from(image, shell, () if word is None else (word,), task_type),
            worker_id=worker_id,
            resources=Resources(
                cpu_milli=cpu_milli, memory=memory, storage=storage, gpu_milli=gpu_milli
            ),
            started_at=_EPOCH + timedelta(microseconds=started),
            ended_at=_EPOCH + timedelta(microseconds=ended),
            completed=bool(completed),
        )
