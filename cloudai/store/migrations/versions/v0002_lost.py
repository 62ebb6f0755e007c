"""Assignments that were given up while their worker could not be reached."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing that was there before was given up."""
    op.add_column(
        "assignment",
        sa.Column("lost", sa.Boolean(), nullable=False, server_default=sa.false()),
    )
