"""Work as files: batches, arrays, needs, schedules."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing that was there before came in a batch, or was left out."""
    op.add_column("task", sa.Column("batch_id", sa.String()))
    op.add_column("task", sa.Column("array_id", sa.String()))
    op.add_column(
        "task", sa.Column("skipped", sa.Boolean(), nullable=False, server_default=sa.false())
    )
    for name in ("batch", "array"):
        filled = sa.text(f"{name}_id IS NOT NULL")
        op.create_index(f"task_by_{name}", "task", [f"{name}_id"], sqlite_where=filled)
    op.create_table(
        "batch",
        sa.Column("position", sa.Integer(), primary_key=True, nullable=False),
        sa.Column("id", sa.String(), nullable=False, unique=True),
        sa.Column("name", sa.String()),
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("once_key", sa.String()),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("tasks", sa.Integer(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
    )
    op.create_index("batch_by_name", "batch", ["name"])
    op.create_index(
        "batch_by_key",
        "batch",
        ["user_id", "once_key"],
        unique=True,
        sqlite_where=sa.text("once_key IS NOT NULL"),
    )
    op.create_table(
        "schedule",
        sa.Column("position", sa.Integer(), primary_key=True, nullable=False),
        sa.Column("id", sa.String(), nullable=False, unique=True),
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("line", sa.String(), nullable=False),
        sa.Column("zone", sa.String(), nullable=False),
        sa.Column("files", sa.Text(), nullable=False),
        sa.Column("settings", sa.Text(), nullable=False),
        sa.Column("missed", sa.String(), nullable=False),
        sa.Column("overlap", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=False),
        sa.Column("last_at", sa.BigInteger()),
        sa.Column("last_batch", sa.String()),
        sa.Column("last_outcome", sa.Text(), nullable=False),
    )
