"""Tasks, their assignments and their story; marks on workers; facts about the file.

What a migration says is said for ever: it imports nothing of cloudai.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_STATES = "'queued', 'starting', 'running', 'stopping', 'completed', 'failed', 'cancelled'"


def upgrade() -> None:
    """Makes the first tables."""
    op.create_table(
        "meta",
        sa.Column("key", sa.String(), primary_key=True),
        sa.Column("value", sa.Text(), nullable=False),
    )
    op.create_table(
        "worker_mark",
        sa.Column("worker_id", sa.String(), primary_key=True),
        sa.Column("draining", sa.Boolean(), nullable=False),
        sa.Column("marked_at", sa.BigInteger(), nullable=False),
        sa.Column("drained_by", sa.String(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
    )
    _make_task()
    _make_assignment()
    op.create_table(
        "event",
        sa.Column("position", sa.Integer(), primary_key=True),
        _of_a_task(),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("what", sa.String(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
    )
    op.create_index("event_by_task", "event", ["task_id"])


def _make_task() -> None:
    op.create_table(
        "task",
        sa.Column("position", sa.Integer(), primary_key=True, nullable=False),
        sa.Column("id", sa.String(), nullable=False, unique=True),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("name", sa.String()),
        sa.Column("idempotency_key", sa.String()),
        sa.Column("worker_id", sa.String()),
        sa.Column("assignment_number", sa.Integer()),
        sa.Column("direct", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("started_at", sa.BigInteger()),
        sa.Column("completed_at", sa.BigInteger()),
        sa.Column("exit_code", sa.BigInteger()),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("stop_reason", sa.Text(), nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.CheckConstraint(f"state IN ({_STATES})", name="task_state_is_known"),
        sqlite_autoincrement=True,
    )
    op.create_index("task_by_state", "task", ["state"])
    op.create_index("task_by_user", "task", ["user_id"])
    op.create_index("task_by_name", "task", ["name"])
    op.create_index("task_by_worker", "task", ["worker_id"])
    op.create_index(
        "task_by_key",
        "task",
        ["user_id", "idempotency_key"],
        unique=True,
        sqlite_where=sa.text("idempotency_key IS NOT NULL"),
    )


def _make_assignment() -> None:
    op.create_table(
        "assignment",
        _of_a_task(primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True),
        sa.Column("worker_id", sa.String(), nullable=False),
        sa.Column("placed_at", sa.BigInteger(), nullable=False),
        sa.Column("container_id", sa.String()),
        sa.Column("gpus", sa.Text(), nullable=False),
        sa.Column("started_at", sa.BigInteger()),
        sa.Column("ended_at", sa.BigInteger()),
        sa.Column("exit_code", sa.BigInteger()),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("harvested", sa.Boolean(), nullable=False),
        sa.CheckConstraint("number > 0", name="assignments_count_from_one"),
    )
    op.create_index(
        "assignment_to_harvest",
        "assignment",
        ["task_id"],
        sqlite_where=sa.text("harvested = 0 AND container_id IS NOT NULL"),
    )


def _of_a_task(*, primary_key: bool = False) -> sa.Column[str]:
    return sa.Column(
        "task_id",
        sa.String(),
        sa.ForeignKey("task.id", ondelete="CASCADE"),
        primary_key=primary_key,
        nullable=False,
    )
