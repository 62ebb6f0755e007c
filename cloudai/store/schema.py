"""The schema's revisions: made and brought up to date when the store is opened.

A new revision is a file in ``migrations/versions`` and a new ``HEAD`` here; a test holds the
tables of ``rows`` to what the migrations make.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect

from cloudai.core.errors import StoreFailed, StoreTooNew
from cloudai.crash import point

from .database import Database

if TYPE_CHECKING:
    from alembic.config import Config

HEAD = "0004"
"""The revision this program reads and writes."""


def bring_up_to_date(database: Database, *, target: str = HEAD) -> None:
    """Makes the tables, or migrates them after a copy was put beside the file.

    The copy is ``PATH.before-REVISION``. Raises ``StoreTooNew`` where a newer cloudai wrote
    the file, and ``StoreFailed`` where it is not a database of ours.
    """
    with database.read() as connection:
        before = stored_revision(database, connection)
    if before == target:
        return
    config = alembic_config()
    if before is not None:
        _refuse_unknown(database, config, before)
        database.copy_to(database.path.with_name(f"{database.path.name}.before-{target}"))
    with database.rewrite() as connection:
        _upgrade(config, connection, target)
        if broken := connection.exec_driver_sql("PRAGMA foreign_key_check").all():
            raise StoreFailed(
                f"{database.path} cannot be brought to schema {target}: "
                f"{len(broken)} rows belong to nothing",
                hint="Nothing was changed. Please report this.",
            )
        point("schema.made")
    point("schema.committed")


def stored_revision(database: Database, connection: Connection) -> str | None:
    """The revision of the file; ``None`` for an empty one."""
    tables = set(inspect(connection).get_table_names())
    if not tables:
        return None
    if "alembic_version" not in tables or "meta" not in tables:
        raise StoreFailed(
            f"{database.path} is a database, but not one of cloudai",
            hint="Move it away, or set CLOUDAI_HOME to another folder.",
        )
    revision = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    return str(revision)


def alembic_config() -> Config:
    """Alembic's configuration; it needs no file, and finds the scripts wherever installed."""
    # 150 ms, needed only when the schema is not yet as it should be.
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "cloudai.store:migrations")
    config.set_main_option("path_separator", "os")
    return config


def _upgrade(config: Config, connection: Connection, target: str) -> None:
    from alembic import command

    config.attributes["connection"] = connection
    command.upgrade(config, target)


def _refuse_unknown(database: Database, config: Config, revision: str) -> None:
    from alembic.script import ScriptDirectory

    if revision in {
        script.revision for script in ScriptDirectory.from_config(config).walk_revisions()
    }:
        return
    with database.read() as connection:
        writer = connection.exec_driver_sql(
            "SELECT value FROM meta WHERE key = 'written_by'"
        ).scalar()
    raise StoreTooNew(
        f"{database.path} was written by cloudai {writer or 'of a newer version'} "
        f"(schema {revision}; this one knows {HEAD})",
        hint=f"Install cloudai {writer or 'again in its newest version'}, or go back to a copy "
        f"that was made before: {database.path.name}.before-…",
        schema=revision,
        written_by=writer,
    )
