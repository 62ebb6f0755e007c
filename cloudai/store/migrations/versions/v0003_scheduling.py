"""What the scheduler remembers: tries, groups, reservations."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing that was there before was ever tried again, or is one of a group."""
    op.add_column("task", sa.Column("group_id", sa.String()))
    op.add_column(
        "task", sa.Column("failures", sa.Integer(), nullable=False, server_default=sa.text("0"))
    )
    op.add_column("task", sa.Column("not_before", sa.BigInteger()))
    op.add_column(
        "task", sa.Column("requeue", sa.Boolean(), nullable=False, server_default=sa.false())
    )
    op.create_index(
        "task_by_group", "task", ["group_id"], sqlite_where=sa.text("group_id IS NOT NULL")
    )
    op.create_table(
        "reservation",
        sa.Column("position", sa.Integer(), primary_key=True, nullable=False),
        sa.Column("id", sa.String(), nullable=False, unique=True),
        sa.Column("worker_id", sa.String(), nullable=False),
        sa.Column("cpu_milli", sa.BigInteger(), nullable=False),
        sa.Column("memory", sa.BigInteger(), nullable=False),
        sa.Column("storage", sa.BigInteger(), nullable=False),
        sa.Column("gpu_milli", sa.BigInteger(), nullable=False),
        sa.Column("user_id", sa.String()),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("until", sa.BigInteger()),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
    )
