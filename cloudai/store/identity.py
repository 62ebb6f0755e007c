"""Which database this is: its id, who wrote it last, and whether it is the newest copy."""

from __future__ import annotations

import json
import secrets
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection, select
from sqlalchemy.dialects.sqlite import insert

from cloudai import __version__
from cloudai.core.errors import StoreFailed
from cloudai.crash import point
from cloudai.disk import disk_errors, write_whole

from .database import Database
from .rows import META


def introduce(database: Database, *, now: datetime) -> str:
    """Notes that the database was opened; answers its id, random and made once.

    A small file beside it, ``PATH.opened``, counts along. Raises ``StoreFailed`` where that
    file remembers more than the database does: then an older copy was put in its place, and
    going on would start again what the newer one knows to be done.
    """
    beside = database.path.with_name(f"{database.path.name}.opened")
    with database.write() as connection:
        facts = {row.key: row.value for row in connection.execute(select(META))}
        store_id = facts.get("id") or secrets.token_hex(8)
        openings = int(facts.get("openings", "0"))
        _refuse_older_copy(database.path, beside, store_id=store_id, openings=openings)
        _put(connection, "id", store_id)
        _put(connection, "openings", str(openings + 1))
        _put(connection, "written_by", __version__)
        if "created_at" not in facts:
            _put(connection, "created_at", now.isoformat())
    point("store.counted")
    mark = {"id": store_id, "openings": openings + 1}
    with disk_errors(beside):
        write_whole(beside, json.dumps(mark).encode("ascii"))
    return store_id


def _put(connection: Connection, key: str, value: str) -> None:
    row = insert(META).values(key=key, value=value)
    connection.execute(row.on_conflict_do_update(index_elements=["key"], set_={"value": value}))


def _refuse_older_copy(path: Path, beside: Path, *, store_id: str, openings: int) -> None:
    try:
        mark = json.loads(beside.read_bytes())
        if mark["id"] != store_id or int(mark["openings"]) <= openings:
            return
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return
    raise StoreFailed(
        f"The database {path} was rolled back to an older copy: it was opened "
        f"{mark['openings']} times, and this copy knows of {openings}",
        hint="Put the newest copy back. To go on with this one all the same, remove "
        f"{beside.name}: tasks that ended since may run a second time.",
    )
