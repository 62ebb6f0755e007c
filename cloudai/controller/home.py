"""The doctor's checks of this side: database, disk, inventory, keys."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path

from cloudai.core.errors import CloudaiError
from cloudai.engines import Finding
from cloudai.service import Service

SAFE_SQLITE = (3, 51, 3)
"""From here on the WAL mode's rare corruption is mended (facts, 35)."""
LITTLE_DISK = 1024**3
"""Bytes free at home under which it is worth saying."""


async def examine_home(
    service: Service, *, inventory: Path | None, inventory_error: str | None, workers: int
) -> tuple[Finding, ...]:
    """Every check of this machine with its mend."""
    return (
        await _database(service),
        _sqlite(),
        _disk(service.home),
        _private(service.home),
        _inventory(inventory, inventory_error, workers),
        _agent(),
    )


async def _database(service: Service) -> Finding:
    path = service.home / "cloudai.db"
    try:
        problems = await service.in_thread(service.store.integrity)
    except CloudaiError as error:
        return Finding(check="database", ok=False, found=error.message, mend=error.hint)
    if problems:
        return Finding(
            check="database",
            ok=False,
            found=f"{path}: {problems[0]}",
            mend="stop the controller and put back the newest copy beside it (cloudai.db.before-*)",
        )
    version = service.store.schema_version
    return Finding(check="database", ok=True, found=f"{path} is sound (schema {version})")


def _sqlite() -> Finding:
    found = f"SQLite {sqlite3.sqlite_version}"
    if sqlite3.sqlite_version_info >= SAFE_SQLITE:
        return Finding(check="SQLite", ok=True, found=found)
    return Finding(
        check="SQLite",
        ok=True,
        warning=True,
        found=f"{found}: before 3.51.3 its WAL mode could, very rarely, corrupt a database",
        mend="a newer Python or libsqlite3; every write is synchronous meanwhile",
    )


def _disk(home: Path) -> Finding:
    free = shutil.disk_usage(home).free
    found = f"{free / 2**30:.1f} GB free at {home}"
    if free >= LITTLE_DISK:
        return Finding(check="disk at home", ok=True, found=found)
    return Finding(
        check="disk at home",
        ok=free > 0,
        warning=True,
        found=found,
        mend="make room: without it nothing new is accepted and no log comes home",
    )


def _private(home: Path) -> Finding:
    mode = home.stat().st_mode & 0o777
    if mode & 0o077:
        return Finding(
            check="home is private",
            ok=False,
            found=f"{home} has mode {mode:o}",
            mend=f"chmod 700 {home}",
        )
    return Finding(check="home is private", ok=True, found=f"{home} ({mode:o})")


def _inventory(path: Path | None, error: str | None, workers: int) -> Finding:
    if error:
        return Finding(check="inventory", ok=False, found=error, mend=f"edit {path}")
    if path is None or not path.exists():
        return Finding(
            check="inventory",
            ok=True,
            warning=True,
            found=f"none at {path}; {workers} worker(s)",
            mend="cloudai register ID HOST",
        )
    return Finding(check="inventory", ok=True, found=f"{path}: {workers} worker(s)")


def _agent() -> Finding:
    socket = os.environ.get("SSH_AUTH_SOCK")
    if socket and Path(socket).exists():
        return Finding(check="ssh agent", ok=True, found=socket)
    return Finding(
        check="ssh agent",
        ok=True,
        warning=True,
        found="none: keys with a passphrase cannot be used",
        mend='eval "$(ssh-agent)" && ssh-add, then `cloudai controller stop`',
    )
