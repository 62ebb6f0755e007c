"""``backup``: a copy of the database."""

from __future__ import annotations

from pathlib import Path

import click

from .options import common
from .output import say
from .session import Session


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@common
@click.pass_obj
def backup_command(session: Session, file: Path) -> int:
    """Copy the database to FILE, while it is in use: tasks and their stories.

    Logs and values of variables are no part of it. A file that is there is never overwritten.
    To go back to a copy: stop the controller, put it in place of cloudai.db, remove
    cloudai.db-wal, cloudai.db-shm and cloudai.db.opened; `cloudai orphans` then lists what runs
    and is not known to it.
    """
    place = file.expanduser().absolute()
    answer = session.client.post("/controller/backup", {"path": str(place)})
    session.show(
        answer,
        lambda done: say(f"✅ The database is copied to {done['path']} ({done['size']} bytes)"),
        quiet=[answer["path"]],
    )
    return 0
