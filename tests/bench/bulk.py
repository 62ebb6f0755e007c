"""A hundred thousand tasks in one batch, next to SQLite alone.

``cloudai batch FILE`` as a whole process, to a warm controller that reaches no worker, so that
nothing but the batch is worked on: read, expanded, checked, stored in one transaction, handed to
the scheduler. Against it the very same rows, in the same tables with the same indexes, as safe
(WAL, ``synchronous=FULL``, foreign keys), in one ``executemany`` each from Python's sqlite3. Each
time anew in a home of its own. Then what is asked of so many: over the API, and of SQLite.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cloudai.store import Store
from tests.fleet.cloudai_home import Home, a_home

from .figures import CPU_SECONDS, MB, MS, SECONDS, Aim, Group, Series, growth
from .lab import Lab
from .starts import cloudai
from .timing import Sample, cpu_of, memory_of, peak_of, side_by_side, timed

MOST = 100_000
ROUNDS = 2
RAW = "sqlite3 alone: the same rows"
MATRIX, LINES = "cloudai batch, a matrix", "cloudai batch, JSON lines"


def measure(lab: Lab) -> Iterator[Group]:
    """Row 7, and row 10 of it."""
    most = MOST // 10 if lab.short else MOST
    runs: dict[str, list[Run]] = {MATRIX: [], LINES: []}
    raw: list[float] = []
    for turn in range(1 if lab.short else ROUNDS):
        for what, file in ((MATRIX, a_matrix(most)), (LINES, json_lines(most))):
            with a_controller(lab, f"{file[0]}-{turn}") as home:
                runs[what].append(submit(home, file))
                if what is MATRIX:
                    raw.append(raw_seconds(home, lab.folder / f"raw-{turn}.db"))
                    if not turn:
                        asked = list(questions(home, most))
    yield Group(
        7,
        f"{most:,} tasks in one batch",
        (
            *(Series(what, tuple(run.seconds for run in found)) for what, found in runs.items()),
            Series(RAW, tuple(raw)),
        ),
        SECONDS,
        aims=(
            Aim("a matrix: at most 5 × raw", against=RAW, at_most=5),
            Aim("JSON lines: at most 5 × raw", of=LINES, against=RAW, at_most=5),
        ),
        notes=(
            "Of JSON lines' time (py-spy) a third is reading and checking what was written, a sixth"
            " turning tasks into rows, a sixth SQLite itself, a seventh handing them to the"
            " scheduler, a fifteenth the fingerprint that `--resume` goes by.",
        ),
    )
    yield Group(
        7,
        f"{most:,} tasks in one batch: the controller's CPU until the answer",
        tuple(Series(what, tuple(run.cpu for run in found)) for what, found in runs.items()),
        CPU_SECONDS,
    )
    yield Group(
        7,
        f"{most:,} tasks in one batch: the controller's memory",
        (
            *(Series(what, tuple(one.peak for one in found)) for what, found in runs.items()),
            Series("before", tuple(one.before for found in runs.values() for one in found)),
        ),
        MB,
        notes=("The most it had in RAM at any time until the answer.",),
    )
    yield Group(
        7,
        f"{most:,} tasks in one batch: who asks for a page of tasks meanwhile",
        tuple(
            Series(f"{what}: {which}", tuple(at(one.waits) for one in found))
            for what, found in runs.items()
            for which, at in (("half of the time", half), ("the longest wait", max))
        ),
        MS,
    )
    yield from asked
    if lab.short:
        return
    costs = {}
    for part in (10, 5, 2):
        with a_controller(lab, f"part-{part}") as home:
            costs[most // part] = submit(home, a_matrix(most // part)).cpu
    costs[most] = Series(MATRIX, tuple(run.cpu for run in runs[MATRIX])).median
    yield growth("a batch, the controller's CPU", CPU_SECONDS, costs, of="tasks")


# ------------------------------------------------------------------ what is submitted


def a_matrix(tasks: int) -> tuple[str, str]:
    """A file's name and text: two axes, as a sweep has them."""
    return "sweep.yaml", (
        "defaults: {image: 'busybox:1.36', cpus: 1, memory: 1g}\n"
        "tasks:\n"
        "- id: train\n"
        "  name: train\n"
        f"  matrix: {{seed: range(100), lr: range({tasks // 100})}}\n"
        "  argv: [python, train.py, '--lr={{ lr }}', '--seed={{ seed }}']\n"
    )


def json_lines(tasks: int) -> tuple[str, str]:
    """The same, each task a line of its own."""
    said = {"image": "busybox:1.36", "name": "train", "cpus": 1, "memory": "1g"}
    return "sweep.jsonl", "".join(
        json.dumps(
            {**said, "argv": ["python", "train.py", f"--lr={n // 100}", f"--seed={n % 100}"]}
        )
        + "\n"
        for n in range(tasks)
    )


@dataclass(frozen=True, slots=True)
class Run:
    """What one batch cost: seconds of the command, of the controller's CPU; its bytes of memory;
    the seconds that each of those waited who asked meanwhile."""

    seconds: float
    cpu: float
    before: float
    peak: float
    waits: list[float]


class Nowhere:
    """A fleet of one worker that nobody reaches: nothing is ever placed."""

    def inventory(self) -> str:
        return "workers:\n  far: {host: 127.0.0.1, port: 9, user: nobody}\n"

    def known_hosts(self) -> str:
        return ""


@contextmanager
def a_controller(lab: Lab, name: str) -> Iterator[Home]:
    with a_home(lab.folder / name, Nowhere()) as home:
        home.run("workers", code=None)
        yield home


def submit(home: Home, file: tuple[str, str]) -> Run:
    """One batch of it."""
    name, text = file
    (home.folder / name).write_text(text)
    pid = home.controller_pid
    before, used, waits = memory_of(pid), cpu_of(pid), list[float]()
    with asking(home, waits):
        seconds, _ = timed(cloudai("batch", name), env=home.environment, cwd=home.folder)
    return Run(seconds, cpu_of(pid) - used, before, peak_of(pid), waits)


@contextmanager
def asking(home: Home, waits: list[float]) -> Iterator[None]:
    """Meanwhile somebody asks for a page of tasks, ten times a second."""
    over = threading.Event()

    def ask() -> None:
        while not over.wait(0.1):
            waits.append(answered(home, "/tasks/?limit=20"))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def answered(home: Home, path: str) -> float:
    """Seconds until the API has answered."""
    began = time.perf_counter()
    home.ask(path)
    return time.perf_counter() - began


def half(waits: list[float]) -> float:
    return sorted(waits)[len(waits) // 2]


# ------------------------------------------------------------------ SQLite alone


def raw_seconds(home: Home, path: Path) -> float:
    """The rows that are in that home, put into an empty database of the same schema."""
    with closing(sqlite3.connect(home.folder / "cloudai.db")) as ours:
        tables = {
            table: ours.execute(f"SELECT * FROM {table} ORDER BY position").fetchall()
            for table in ("batch", "task", "event")
        }
    Store.open(path, now=datetime.now(UTC)).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            db.execute(f"PRAGMA {pragma}")
        began = time.perf_counter()
        db.execute("BEGIN IMMEDIATE")
        for table, rows in tables.items():
            marks = ", ".join("?" * len(rows[0]))
            db.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)
        db.execute("COMMIT")
        seconds = time.perf_counter() - began
    path.unlink()
    return seconds


def questions(home: Home, most: int) -> Iterator[Group]:
    """Pages of a hundred of them, with how many there are in all, which the API tells with each
    page; and counts."""
    batch = home.ask("/batches/")["batches"][0]["batch_id"]
    with closing(sqlite3.connect(home.folder / "cloudai.db")) as db:
        for what, query, where in (
            ("the first page of 100", "", "1"),
            ("the last page of 100", f"&offset={most - 100}", "1"),
            ("a page of those that wait", "&status=queued", "state = 'queued'"),
            ("a page of a user's", "&user=ann", "user_id = 'ann'"),
            ("a page of a batch's", f"&batch={batch}", f"batch_id = '{batch}'"),
            ("a page of a worker's, which has none", "&worker=far", "worker_id = 'far'"),
        ):
            offset = most - 100 if "offset" in query else 0
            page = (
                f"SELECT * FROM task WHERE {where} ORDER BY position DESC LIMIT 100 OFFSET {offset}"
            )
            count = f"SELECT count(*) FROM task WHERE {where}"
            yield asked(home, db, what, f"/tasks/?limit=100{query}", page, count)
        grouped = "SELECT state, count(*) FROM task GROUP BY state"
        yield asked(home, db, "all counted by state", "/tasks/stats/metrics", grouped)


def asked(home: Home, db: sqlite3.Connection, what: str, path: str, *statements: str) -> Group:
    def raw() -> float:
        began = time.perf_counter()
        for statement in statements:
            db.execute(statement).fetchall()
        return time.perf_counter() - began

    samples: dict[str, Sample] = {
        "the API": lambda: answered(home, path),
        "sqlite3 alone": raw,
    }
    return Group(
        7,
        what,
        side_by_side(samples, rounds=5),
        MS,
        aims=(Aim("at most 5 × raw", against="sqlite3 alone", at_most=5),),
        notes=(
            "An answer of the API costs some 2 ms whatever is asked, and each task that it tells"
            " about 0.05 ms more; raw rows are neither parsed nor told.",
        ),
    )
