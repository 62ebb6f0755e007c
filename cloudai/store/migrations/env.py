"""What alembic runs to migrate: inside the store's own transaction, and silent.

The usual ``fileConfig`` is left out on purpose: it would reset the controller's logging.
"""

from alembic import context

from cloudai.store.rows import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
