"""The tables. Private to the store: outside it there are only the domain's dataclasses.

A table model checks nothing by itself (facts, 36), so the column types do, and where a wrong
value would be a lie for ever the database does as well.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Dialect,
    Index,
    Integer,
    String,
    Table,
    Text,
    text,
)
from sqlalchemy.types import TypeDecorator
from sqlmodel import Field, SQLModel

from cloudai.core.model import State

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Moment(TypeDecorator[datetime]):
    """An aware time, kept as microseconds since the epoch; UTC when it comes back."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value} has no time zone")
        return (value - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        return None if value is None else _EPOCH + timedelta(microseconds=value)


class StateText(TypeDecorator[State]):
    """A state by its value, and nothing that is no state."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: State | None, dialect: Dialect) -> str | None:
        return None if value is None else State(value).value

    def process_result_value(self, value: str | None, dialect: Dialect) -> State | None:
        return None if value is None else State(value)


_STATES = ", ".join(f"'{state.value}'" for state in State)


class TaskRow(SQLModel, table=True):
    """A task. What is asked for or sorted by has a column, the rest of the spec is JSON."""

    __tablename__ = "task"
    __table_args__ = (
        CheckConstraint(f"state IN ({_STATES})", name="task_state_is_known"),
        Index("task_by_state", "state"),
        Index("task_by_user", "user_id"),
        Index("task_by_name", "name"),
        Index("task_by_worker", "worker_id"),
        Index("task_by_group", "group_id", sqlite_where=text("group_id IS NOT NULL")),
        Index("task_by_batch", "batch_id", sqlite_where=text("batch_id IS NOT NULL")),
        Index("task_by_array", "array_id", sqlite_where=text("array_id IS NOT NULL")),
        Index(
            "task_by_key",
            "user_id",
            "idempotency_key",
            unique=True,
            sqlite_where=text("idempotency_key IS NOT NULL"),
        ),
        {"sqlite_autoincrement": True},
    )

    # Every index ends in it, silently: so each answers "newest first" without sorting.
    position: int | None = Field(default=None, primary_key=True, sa_type=Integer)
    """Order of submission, which no clock can change."""
    id: str = Field(unique=True)
    state: State = Field(sa_type=StateText)
    user_id: str
    name: str | None = None
    idempotency_key: str | None = None
    worker_id: str | None = None
    """Of the present or last assignment."""
    assignment_number: int | None = Field(default=None, sa_type=Integer)
    direct: bool
    created_at: datetime = Field(sa_type=Moment)
    started_at: datetime | None = Field(default=None, sa_type=Moment)
    completed_at: datetime | None = Field(default=None, sa_type=Moment)
    exit_code: int | None = Field(default=None, sa_type=BigInteger)
    reason: str = Field(sa_type=Text)
    stop_reason: str = Field(sa_type=Text)
    spec: str = Field(sa_type=Text)
    """JSON; last of the first columns, so that looking at those does not read it."""
    group_id: str | None = None
    failures: int = Field(sa_type=Integer)
    not_before: datetime | None = Field(default=None, sa_type=Moment)
    requeue: bool
    batch_id: str | None = None
    array_id: str | None = None
    skipped: bool


class AssignmentRow(SQLModel, table=True):
    """One execution of a task on a worker."""

    __tablename__ = "assignment"
    __table_args__ = (
        CheckConstraint("number > 0", name="assignments_count_from_one"),
        Index(
            "assignment_to_harvest",
            "task_id",
            sqlite_where=text("harvested = 0 AND container_id IS NOT NULL"),
        ),
    )

    task_id: str = Field(primary_key=True, foreign_key="task.id", ondelete="CASCADE")
    number: int = Field(primary_key=True, sa_type=Integer)
    worker_id: str
    placed_at: datetime = Field(sa_type=Moment)
    container_id: str | None = None
    gpus: str = Field(sa_type=Text)
    """JSON list of UUIDs."""
    started_at: datetime | None = Field(default=None, sa_type=Moment)
    ended_at: datetime | None = Field(default=None, sa_type=Moment)
    exit_code: int | None = Field(default=None, sa_type=BigInteger)
    reason: str = Field(sa_type=Text)
    harvested: bool
    lost: bool


class HappeningRow(SQLModel, table=True):
    """One line of a task's story."""

    __tablename__ = "event"
    __table_args__ = (Index("event_by_task", "task_id"),)

    position: int | None = Field(default=None, primary_key=True, sa_type=Integer)
    task_id: str = Field(foreign_key="task.id", ondelete="CASCADE")
    at: datetime = Field(sa_type=Moment)
    what: str
    text: str = Field(sa_type=Text)


class WorkerMarkRow(SQLModel, table=True):
    """What people decided about a worker, which no probe can tell."""

    __tablename__ = "worker_mark"

    worker_id: str = Field(primary_key=True)
    draining: bool
    marked_at: datetime = Field(sa_type=Moment)
    drained_by: str
    note: str = Field(sa_type=Text)


class ReservationRow(SQLModel, table=True):
    """A part of a worker that is kept for somebody."""

    __tablename__ = "reservation"

    position: int | None = Field(default=None, primary_key=True, sa_type=Integer)
    id: str = Field(unique=True)
    worker_id: str
    cpu_milli: int = Field(sa_type=BigInteger)
    memory: int = Field(sa_type=BigInteger)
    storage: int = Field(sa_type=BigInteger)
    gpu_milli: int = Field(sa_type=BigInteger)
    user_id: str | None = None
    priority: int = Field(sa_type=Integer)
    until: datetime | None = Field(default=None, sa_type=Moment)
    created_at: datetime = Field(sa_type=Moment)
    created_by: str
    note: str = Field(sa_type=Text)


class BatchRow(SQLModel, table=True):
    """Tasks that were submitted together, from files."""

    __tablename__ = "batch"
    __table_args__ = (
        Index("batch_by_name", "name"),
        Index(
            "batch_by_key",
            "user_id",
            "once_key",
            unique=True,
            sqlite_where=text("once_key IS NOT NULL"),
        ),
    )

    position: int | None = Field(default=None, primary_key=True, sa_type=Integer)
    id: str = Field(unique=True)
    name: str | None = None
    user_id: str
    once_key: str | None = None
    created_at: datetime = Field(sa_type=Moment)
    tasks: int = Field(sa_type=Integer)
    """How many it had when it was submitted."""
    source: str = Field(sa_type=Text)
    """JSON list: the names of its files."""


class ScheduleRow(SQLModel, table=True):
    """A batch that is submitted again and again, at times that a cron line says."""

    __tablename__ = "schedule"

    position: int | None = Field(default=None, primary_key=True, sa_type=Integer)
    id: str = Field(unique=True)
    user_id: str
    line: str
    """Five fields, as cron's."""
    zone: str
    """The time zone in which they are meant, by its IANA name."""
    files: str = Field(sa_type=Text)
    """JSON list of whole paths; read anew each time."""
    settings: str = Field(sa_type=Text)
    """JSON object: the values of ``--set``."""
    missed: str
    """``skip`` or ``once``: what becomes of times at which no controller ran."""
    overlap: bool
    created_at: datetime = Field(sa_type=Moment)
    due_at: datetime = Field(sa_type=Moment)
    """The next time."""
    last_at: datetime | None = Field(default=None, sa_type=Moment)
    """The latest time it was due."""
    last_batch: str | None = None
    last_outcome: str = Field(sa_type=Text)
    """What came of it, in words."""


class MetaRow(SQLModel, table=True):
    """Facts about the database itself."""

    __tablename__ = "meta"

    key: str = Field(primary_key=True)
    value: str = Field(sa_type=Text)


METADATA = SQLModel.metadata
TASK: Table = METADATA.tables["task"]
ASSIGNMENT: Table = METADATA.tables["assignment"]
EVENT: Table = METADATA.tables["event"]
WORKER_MARK: Table = METADATA.tables["worker_mark"]
RESERVATION: Table = METADATA.tables["reservation"]
BATCH: Table = METADATA.tables["batch"]
SCHEDULE: Table = METADATA.tables["schedule"]
META: Table = METADATA.tables["meta"]
