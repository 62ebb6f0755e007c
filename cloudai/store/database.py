"""The SQLite file: how it is opened, written in transactions, copied, and what it says
when it refuses, in our words."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import URL, Connection, create_engine, event
from sqlalchemy.exc import DBAPIError, StatementError
from sqlalchemy.pool import ConnectionPoolEntry, StaticPool

from cloudai.core.errors import (
    Conflict,
    InvalidInput,
    StoreBusy,
    StoreFailed,
    StoreFull,
    StoreReadOnly,
)
from cloudai.crash import point
from cloudai.disk import as_store_failed, disk_errors, make_private_folder, sync_folder

BUSY_SECONDS = 2.0
"""How long a statement waits for another process before it gives up."""
_ROOM = 1024 * 1024
"""Bytes free below which a vague disk error is taken for a full disk."""


class Database:
    """One connection to the file, used by one thread at a time."""

    def __init__(self, path: Path) -> None:
        """Opens the file, or makes it: 0600, WAL, every commit on the disk.

        Raises the ``StoreFailed`` family, as ``read`` and ``write`` do.
        """
        self.path = path
        self._lock = threading.RLock()
        with disk_errors(path):
            make_private_folder(path.parent)
            _make_private_file(path)
        # Built by parts: a ``?`` or ``%`` in the path of a home folder is part of its name.
        self._engine = create_engine(
            URL.create("sqlite", database=str(path)),
            poolclass=StaticPool,
            hide_parameters=True,
            connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False},
        )
        event.listen(self._engine, "connect", _prepare)
        event.listen(self._engine, "begin", _begin)
        try:
            with self.read() as connection:
                mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar_one()
            if mode != "wal":
                raise StoreFailed(
                    f"The disk of {path} cannot hold a safe database (journal mode {mode})",
                    hint="Set CLOUDAI_HOME to a folder on a local disk, not on the network.",
                )
        except BaseException:
            self.close()
            raise

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection with one unchanging view of the data."""
        with self._lock, explained(self.path), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction, alone with the data from its start; on the disk once it is left.

        Nothing of it is there if the block raises.
        """
        with self._lock, explained(self.path), self._engine.connect() as connection:
            connection.execution_options(begin="BEGIN IMMEDIATE")
            with connection.begin():
                yield connection

    @contextmanager
    def rewrite(self) -> Iterator[Connection]:
        """As ``write``, while tables are made anew: foreign keys are not held meanwhile."""
        with self._lock:
            self._hold_foreign_keys(False)
            try:
                with self.write() as connection:
                    yield connection
            finally:
                self._hold_foreign_keys(True)

    def copy_to(self, target: Path) -> None:
        """Puts a whole, consistent copy of the database (0600) at ``target``."""
        with self._copied_beside(target) as beside:
            beside.replace(target)

    def copy_to_new(self, target: Path) -> None:
        """As ``copy_to``, to a place where nothing is; raises ``Conflict`` otherwise."""
        taken = Conflict(
            f"{target} is there already; nothing was written",
            hint="give another name, or remove it first",
        )
        if os.path.lexists(target):
            raise taken
        with self._copied_beside(target) as beside:
            try:
                os.link(beside, target)  # unlike a rename, it replaces nothing
            except FileExistsError:
                raise taken from None
            except OSError:
                # File systems without links, as on a USB stick.
                if os.path.lexists(target):
                    raise taken from None
                beside.replace(target)

    @contextmanager
    def _copied_beside(self, target: Path) -> Iterator[Path]:
        """A whole copy under a name of its own, to be put at the target; gone afterwards."""
        beside = target.with_name(f".{target.name}.new")
        with self._lock, disk_errors(target), explained(self.path):
            beside.unlink(missing_ok=True)
            _make_private_file(beside)
            try:
                with closing(sqlite3.connect(beside)) as copy, self._engine.connect() as source:
                    driver = source.connection.driver_connection
                    assert isinstance(driver, sqlite3.Connection)
                    driver.backup(copy)
                descriptor = os.open(beside, os.O_RDONLY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
                point("copy.written")
                yield beside
            finally:
                beside.unlink(missing_ok=True)
            sync_folder(target.parent)

    def close(self) -> None:
        with self._lock:
            self._engine.dispose()

    def _hold_foreign_keys(self, hold: bool) -> None:
        # Outside of any transaction, where alone SQLite heeds it.
        with explained(self.path), self._engine.connect() as connection:
            driver = connection.connection.driver_connection
            assert isinstance(driver, sqlite3.Connection)
            driver.execute(f"PRAGMA foreign_keys = {'ON' if hold else 'OFF'}")


def _make_private_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        mode = os.fstat(descriptor).st_mode
        if mode & 0o077:
            os.fchmod(descriptor, mode & 0o700)
    finally:
        os.close(descriptor)


def _prepare(driver: sqlite3.Connection, entry: ConnectionPoolEntry) -> None:
    """Sets a new connection up."""
    # The driver begins no transactions of its own; ``_begin`` does.
    driver.isolation_level = None
    for pragma in (
        "journal_mode = WAL",
        "synchronous = FULL",
        "fullfsync = ON",  # macOS: really on the disk; nothing elsewhere
        "foreign_keys = ON",
        "trusted_schema = OFF",
    ):
        driver.execute(f"PRAGMA {pragma}").close()


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))


# ------------------------------------------------------------------ what SQLite says


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Raises our errors in place of those of SQLite, its driver and the disk."""
    try:
        yield
    except (DBAPIError, sqlite3.Error) as error:
        raise as_ours(error, path) from error
    except StatementError as error:
        # A value that its column's type refused.
        raise error.orig or error from None
    except OSError as error:
        raise as_store_failed(error, path) from error
    except (OverflowError, UnicodeEncodeError) as error:
        raise InvalidInput(f"The database cannot hold that: {error}") from error


def as_ours(error: DBAPIError | sqlite3.Error, path: Path) -> StoreFailed:
    """What SQLite said about ``path``, as the error a person meets."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    # Nothing but SQLite's own words: the statement's values stay out of messages.
    said = str(cause)
    name = getattr(cause, "sqlite_errorname", "")
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_PROTOCOL")):
        return StoreBusy(
            f"Another process holds the database {path} ({said})",
            hint="Try again; `lsof` on that file tells who holds it.",
        )
    if name == "SQLITE_FULL" or (_is_vague(name) and _no_room(path)):
        return StoreFull(
            f"No space left for the database {path}",
            hint="Free some space on that disk; what was stored before is still there.",
        )
    if name.startswith(("SQLITE_READONLY", "SQLITE_PERM", "SQLITE_AUTH")):
        return StoreReadOnly(
            f"The database {path} cannot be written ({said})",
            hint="Give it back to your user, or set CLOUDAI_HOME to a folder of your own.",
        )
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return StoreFailed(
            f"The database {path} is damaged ({said})",
            hint="Stop the controller and move the file away; "
            f"`sqlite3 {path.name} .recover` saves what can be saved. "
            "Containers on the workers go on untouched.",
        )
    return StoreFailed(f"The database {path} failed: {said}")


def _is_vague(name: str) -> bool:
    return name.startswith(("SQLITE_IOERR", "SQLITE_CANTOPEN"))


def _no_room(path: Path) -> bool:
    try:
        return shutil.disk_usage(path.parent).free < _ROOM
    except OSError:
        return False
