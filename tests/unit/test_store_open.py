"""Opening: made once, migrated after a copy, refused when newer, and never half of anything."""

import contextlib
import logging
import os
import re
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from cloudai import __version__
from cloudai.core.errors import (
    StoreBusy,
    StoreFailed,
    StoreFull,
    StoreReadOnly,
    StoreTooNew,
)
from cloudai.core.lifecycle import Placed, Refused
from cloudai.core.model import OnLost, Placement, State, Task, TaskSpec
from cloudai.store import Store, database, schema
from cloudai.store.database import Database
from cloudai.store.rows import METADATA

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
FIRST = "0001"


def a_task(number=1, **spec):
    return Task(
        id=f"task-1700000000-{number:06}",
        spec=TaskSpec(image="alpine", **spec),
        state=State.QUEUED,
        created_at=NOW,
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "home" / "cloudai.db"


@contextlib.contextmanager
def raw(path):
    """The file as sqlite3 itself sees it."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


# ------------------------------------------------------------------ made once


def test_the_file_is_private_and_safe(path):
    old_mask = os.umask(0)
    try:
        with Store.open(path, now=NOW) as store:
            store.submit(a_task())
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
            with store._database.read() as connection:
                pragmas = {
                    name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                    for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
                }
    finally:
        os.umask(old_mask)
    assert modes.keys() >= {"cloudai.db", "cloudai.db-wal"}
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert pragmas == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "busy_timeout": 2000,
    }


def test_a_file_that_others_may_read_is_taken_back(path):
    Store.open(path, now=NOW).close()
    path.chmod(0o644)
    Store.open(path, now=NOW).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_id_is_made_once_and_is_another_for_each(path, tmp_path):
    with Store.open(path, now=NOW) as store:
        first = store.id
    with Store.open(path, now=NOW) as store:
        assert store.id == first
    with Store.open(tmp_path / "other.db", now=NOW) as store:
        assert store.id != first
    assert re.fullmatch("[0-9a-f]{16}", first)


@pytest.mark.parametrize("name", ["a?b.db", "a%20b.db", "ü #1.db", "file:x.db", "a b.db"])
def test_the_home_may_have_any_name(tmp_path, name):
    Store.open(tmp_path / name, now=NOW).close()
    assert (tmp_path / name).stat().st_size > 0


def test_an_empty_file_that_a_kill_left_is_filled(path):
    path.parent.mkdir()
    path.touch()
    with Store.open(path, now=NOW) as store:
        assert store.integrity() == []
    assert not list(path.parent.glob("*.before-*"))


def test_opening_again_imports_no_alembic_and_is_silent(path):
    Store.open(path, now=NOW).close()
    code = (
        "import sys, logging; from datetime import *; from pathlib import Path\n"
        "from cloudai.store import Store\n"
        "Store.open(Path(sys.argv[1]), now=datetime.now(UTC)).close()\n"
        "assert 'alembic' not in sys.modules"
    )
    command = [sys.executable, "-W", "error", "-c", code, str(path)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    assert (done.returncode, done.stdout) == (0, b"")


def test_making_it_leaves_the_logging_alone(path, capfd):
    before = logging.root.handlers[:], logging.root.level, logging.getLogger("x.y").disabled
    Store.open(path, now=NOW).close()
    after = logging.root.handlers[:], logging.root.level, logging.getLogger("x.y").disabled
    assert after == before
    assert capfd.readouterr() == ("", "")


# ------------------------------------------------------------------ the schema


def test_the_program_and_its_scripts_agree_on_the_head():
    scripts = ScriptDirectory.from_config(schema.alembic_config())
    assert scripts.get_heads() == [schema.HEAD]
    assert scripts.get_base() == FIRST


def test_tables_and_migrations_agree(path):
    with Store.open(path, now=NOW) as store, store._database.read() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, METADATA) == []


def test_tables_and_migrations_agree_on_checks_too(path, tmp_path):
    def statements(connection):
        found = connection.exec_driver_sql("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")
        for (sql,) in found:
            if "alembic_version" not in sql and "sqlite_sequence" not in sql:
                yield from re.findall(r"CHECK \(.*?\)(?=,? *\n)", sql)

    with Store.open(path, now=NOW) as store, store._database.read() as connection:
        migrated = sorted(statements(connection))
    made = Database(tmp_path / "made.db")
    with made.write() as connection:
        METADATA.create_all(connection)
        assert sorted(statements(connection)) == migrated
    assert len(migrated) == 2
    made.close()


def first_released(path):
    """A database as the first released schema had it, with a task that was placed."""
    database = Database(path)
    schema.bring_up_to_date(database, target=FIRST)
    database.close()
    with raw(path) as connection:
        connection.execute("INSERT INTO meta VALUES ('id', 'abc'), ('written_by', '0.1.0')")
        connection.execute(
            "INSERT INTO task (id, state, user_id, worker_id, assignment_number, direct, "
            "created_at, reason, stop_reason, spec) VALUES ('task-1-a', 'starting', 'ann', "
            "'gpu1', 1, 0, 1000000, '', '', ?)",
            [
                '{"image": "alpine", "argv": ["a", "b"], "env": ["A"], "grace": 10.0, '
                '"resources": {"cpu_milli": 1000, "memory": 4, "storage": 5, "gpu_milli": 0}}'
            ],
        )
        connection.execute(
            "INSERT INTO assignment (task_id, number, worker_id, placed_at, gpus, reason, "
            "harvested) VALUES ('task-1-a', 1, 'gpu1', 2000000, '[\"GPU-a\"]', '', 0)"
        )
        connection.execute(
            "INSERT INTO event (task_id, at, what, text) "
            "VALUES ('task-1-a', 1000000, 'submitted', '')"
        )


def test_the_first_released_schema_is_read_by_this_program(path):
    first_released(path)
    with Store.open(path, now=NOW) as store:
        (task,) = store.active()
        assert (task.id, task.state, task.spec.argv) == ("task-1-a", State.STARTING, ("a", "b"))
        assert task.created_at == datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
        assert task.assignment.gpus == ("GPU-a",)
        assert not task.assignment.lost
        assert task.spec.on_lost is OnLost.WAIT
        assert [line.what for line in store.events(task.id)] == ["submitted"]
        assert store.id == "abc"
        assert store.integrity() == []


def test_a_database_of_any_schema_goes_on_with_nothing_tried_again(path):
    """From the first release, and from the one in between."""
    first_released(path)
    home = Database(path)
    schema.bring_up_to_date(home, target="0002")
    home.close()
    assert Path(f"{path}.before-0002").exists()
    with raw(path) as connection:
        connection.execute("UPDATE assignment SET lost = 1")
    with Store.open(path, now=NOW) as store:
        (task,) = store.active()
        assert task.assignment.lost
        assert (task.failures, task.not_before, task.requeue) == (0, None, False)
        assert (task.spec.priority, task.spec.retries, task.spec.group) == (50, 0, None)
        assert (task.spec.strategy, task.spec.placement) == (None, Placement.PACK)
        assert (task.spec.batch, task.spec.array, task.spec.after) == (None, None, ())
        assert not task.skipped
        assert store.reservations(NOW) == []
        assert store.ledger(3600.0).usage(NOW) == {}
        assert store.integrity() == []
        refused = store.record(task, Refused(at=NOW, number=1, reason="full"))
        assert store.active() == [refused]


NEXT = """
import sqlalchemy as sa
from alembic import op

revision = "9999"
down_revision = "{head}"

def upgrade():
    with op.batch_alter_table("task", recreate="always") as batch:
        batch.add_column(sa.Column("colour", sa.String(), server_default="red"))
    {more}
"""


@pytest.fixture
def next_revision(tmp_path, monkeypatch):
    """Makes this program one revision newer, with a table made anew: the hardest kind."""

    def make(more="pass"):
        folder = tmp_path / "versions"
        shutil.copytree(Path(schema.__file__).parent / "migrations" / "versions", folder)
        (folder / "next.py").write_text(NEXT.format(more=more, head=schema.HEAD))
        known = schema.alembic_config

        def config():
            made = known()
            made.set_main_option("version_locations", str(folder))
            return made

        monkeypatch.setattr(schema, "alembic_config", config)

    return make


def test_a_migration_is_made_after_a_copy_and_loses_nothing(path, next_revision):
    first_released(path)
    next_revision()
    home = Database(path)
    schema.bring_up_to_date(home, target="9999")
    with pytest.raises(StoreFailed), home.write() as connection:
        connection.exec_driver_sql("INSERT INTO event VALUES (9, 'task-none', 1, '', '')")
    home.close()
    with raw(path) as now, raw(f"{path}.before-9999") as before:
        for connection, revision in ((now, "9999"), (before, "0001")):
            assert connection.execute("SELECT * FROM alembic_version").fetchall() == [(revision,)]
            for table in ("task", "assignment", "event"):
                count = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
                assert count == (1,), f"{table} of {revision}"
        assert now.execute("SELECT colour FROM task").fetchall() == [("red",)]
    assert stat.S_IMODE(Path(f"{path}.before-9999").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "more", ["op.execute('DELETE FROM task')", "op.execute('nonsense')", "1 / 0"]
)
def test_a_migration_that_fails_changes_nothing(path, next_revision, more):
    first_released(path)
    next_revision(more)
    home = Database(path)
    with pytest.raises((StoreFailed, ZeroDivisionError)):
        schema.bring_up_to_date(home, target="9999")
    home.close()
    with Store.open(path, now=NOW) as store:
        assert [task.id for task in store.active()] == ["task-1-a"]
        assert store.integrity() == []


def test_a_newer_database_is_refused_with_who_wrote_it(path):
    Store.open(path, now=NOW).close()
    with raw(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0999'")
        connection.execute("UPDATE meta SET value = '7.1.0' WHERE key = 'written_by'")
    content = path.read_bytes()
    with pytest.raises(StoreTooNew) as caught:
        Store.open(path, now=NOW)
    assert "cloudai 7.1.0" in caught.value.message
    assert "Install cloudai 7.1.0" in caught.value.hint
    assert path.read_bytes() == content
    assert not list(path.parent.glob("*.before-*"))


def test_who_wrote_it_is_noted(path):
    Store.open(path, now=NOW).close()
    with raw(path) as connection:
        facts = dict(connection.execute("SELECT * FROM meta").fetchall())
    assert facts["written_by"] == __version__
    assert facts["created_at"] == NOW.isoformat()


# ------------------------------------------------------------------ kill -9

KILLED = """
import sys, dataclasses
from datetime import UTC, datetime
from pathlib import Path
from cloudai.core.model import OnLost, State, Task, TaskSpec
from cloudai.core.lifecycle import Placed
from cloudai.store import Store

now = datetime.now(UTC)
store = Store.open(Path(sys.argv[1]), now=now)
made = Task(id="task-1-0", spec=TaskSpec(image="a"), state=State.QUEUED, created_at=now)
for n in range(1, 1_000_000):
    task = store.submit(dataclasses.replace(made, id=f"task-1-{n}"))
    store.record(task, Placed(at=now, worker_id="w"))
    print(n, flush=True)
    if n == int(sys.argv[2]):
        with store._database.write() as connection:
            connection.exec_driver_sql("DELETE FROM task")
            print("in the middle", flush=True)
            sys.stdin.read()
"""


def killed(path, *, halt, after):
    """Runs a writer and kills it -9 once it printed ``after``; what it said until then."""
    command = [sys.executable, "-c", KILLED, str(path), str(halt)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        said = []
        for line in process.stdout:
            said.append(line.strip())
            if said[-1] == after:
                process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    return said


def test_killed_within_a_transaction_what_was_committed_is_there_and_no_more(path):
    killed(path, halt=3, after="in the middle")
    with Store.open(path, now=NOW) as store:
        assert [task.id for task in store.active()] == ["task-1-1", "task-1-2", "task-1-3"]
        assert store.integrity() == []


@pytest.mark.parametrize("after", [1, 7, 20])
def test_killed_anywhere_all_that_was_answered_is_there(path, after):
    said = killed(path, halt=0, after=str(after))
    with Store.open(path, now=NOW) as store:
        found = store.active()
        assert len(found) >= len(said)
        for task in found[: len(said)]:
            assert task.state is State.STARTING
            assert [line.what for line in store.events(task.id)] == ["submitted", "placed"]
        for task in found:
            assert len(store.assignments(task.id)) == len(store.events(task.id)) - 1
        assert store.integrity() == []


# ------------------------------------------------------------------ what a disk does


def test_a_database_that_another_process_holds(path, monkeypatch):
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.05)
    with Store.open(path, now=NOW) as store, raw(path) as other:
        other.execute("BEGIN IMMEDIATE")
        for refused in (lambda: store.submit(a_task()), lambda: Store.open(path, now=NOW)):
            with pytest.raises(StoreBusy, match="Another process holds") as caught:
                refused()
            assert str(path) in caught.value.message
        other.execute("ROLLBACK")
        store.submit(a_task())


def test_a_full_disk_keeps_what_was_there(path):
    with Store.open(path, now=NOW) as store:
        task = store.submit(a_task(1))
        with store._database.read() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StoreFull, match="No space left"):
            store.submit(a_task(2, shell="x" * 100_000))
        assert store.active() == [task]
        assert store.record(task, Placed(at=NOW, worker_id="w"))


def test_a_database_that_becomes_read_only(path):
    with Store.open(path, now=NOW) as store:
        with store._database.read() as connection:
            connection.exec_driver_sql("PRAGMA query_only = ON")
        with pytest.raises(StoreReadOnly, match="cannot be written"):
            store.submit(a_task())
        assert store.active() == []


@contextlib.contextmanager
def as_nobody(folder):
    """Not root, whom no permission stops; the folder and its files are somebody else's."""
    if os.geteuid() != 0:
        for file in [*folder.iterdir(), folder]:
            file.chmod(file.stat().st_mode & ~0o222)
        yield
        folder.chmod(0o700)
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_home_that_belongs_to_somebody_else():
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        Store.open(folder / "cloudai.db", now=NOW).close()
        folder.chmod(0o755)
        (folder / "cloudai.db").chmod(0o644)
        with as_nobody(folder), pytest.raises(StoreReadOnly, match="cannot be written"):
            Store.open(folder / "cloudai.db", now=NOW)


def damage(path):
    content = bytearray(path.read_bytes())
    for offset in range(4096, len(content), 512):
        content[offset : offset + 64] = b"\xa5" * 64
    path.write_bytes(content)


def test_a_damaged_file_is_said_with_what_to_do(path):
    with Store.open(path, now=NOW) as store:
        store.submit_many([a_task(n) for n in range(500)])
    damage(path)
    with pytest.raises(StoreFailed, match="is damaged") as caught, Store.open(path, now=NOW) as it:
        it.active()
    assert "malformed" in caught.value.message
    assert ".recover" in caught.value.hint


def test_the_integrity_check_tells_of_damage(path):
    with Store.open(path, now=NOW) as store:
        store.submit_many([a_task(n) for n in range(500)])
        with store._database.read() as connection:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        damage(path)
        with store._database.read() as connection:
            connection.exec_driver_sql("PRAGMA shrink_memory")
        assert store.integrity() != []


@pytest.mark.parametrize("content", [b"# notes\n" * 600, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_file_that_is_no_database(path, content):
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(StoreFailed, match=r"damaged|not a database"):
        Store.open(path, now=NOW)
    assert path.read_bytes() == content


def test_a_database_of_another_program_is_left_alone(path):
    path.parent.mkdir()
    with raw(path) as connection:
        connection.execute("CREATE TABLE bookmarks (url)")
    with pytest.raises(StoreFailed, match="not one of cloudai"):
        Store.open(path, now=NOW)
    with raw(path) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("bookmarks",)]


def test_an_older_copy_put_in_its_place_is_noticed(path):
    Store.open(path, now=NOW).close()
    older = path.read_bytes()
    with Store.open(path, now=NOW) as store:
        store.submit(a_task())
    path.write_bytes(older)
    for _ in range(2):
        with pytest.raises(StoreFailed, match="rolled back") as caught:
            Store.open(path, now=NOW)
    assert "cloudai.db.opened" in caught.value.hint
    (path.parent / "cloudai.db.opened").unlink()
    Store.open(path, now=NOW).close()
    Store.open(path, now=NOW).close()


@pytest.mark.parametrize("mark", [b"", b"{", b"[]", b'{"id": "another", "openings": 99}'])
def test_a_mark_of_another_database_or_a_broken_one_stops_nobody(path, mark):
    Store.open(path, now=NOW).close()
    (path.parent / "cloudai.db.opened").write_bytes(mark)
    Store.open(path, now=NOW).close()


def test_a_folder_in_its_place(path):
    path.mkdir(parents=True)
    with pytest.raises(StoreFailed):
        Store.open(path, now=NOW)
