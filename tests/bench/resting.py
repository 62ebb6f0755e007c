"""A controller with a thousand workers and ten thousand tasks that run: at rest, and killed.

Workers are a ``crowd``; the store is written as a controller would have left it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cloudai.core.lifecycle import Placed, Started
from cloudai.core.model import Batch, Resources, State, Task, TaskSpec
from cloudai.store import Store
from tests.fleet.cloudai_home import Home, a_home

from . import crowd
from .figures import CPU_MS_EACH, MB, PERCENT_OF_A_CORE, SECONDS, Aim, Group, Series, growth
from .lab import Lab
from .timing import BenchFailed, cpu_of, memory_of, peak_of

EACH = 10
"""Tasks that run on one worker."""
RESTED = datetime.fromisoformat(crowd.STARTED.replace("Z", "+00:00"))
SEEN_WITHIN = 300.0
QUIET = 3.0
"""Seconds after all was seen before rest is measured."""


def measure(lab: Lab) -> Iterator[Group]:
    """Rows 8 and 9, a part of row 4, and the growth of 8."""
    count = 100 if lab.short else 1000
    rest_for = 15.0 if lab.short else 40.0
    cold, again = first_sights(lab, count)
    yield Group(
        4,
        f"{count:,} workers of the crowd seen again, over open connections",
        (Series("cloudai controller", again),),
        CPU_MS_EACH,
        (Aim("at most 0.5 ms of client CPU a worker", at_most=0.5),),
        ("With its share of answering `workers --refresh`.",),
    )
    with laid_out(lab, count, EACH) as home:
        began = time.monotonic()
        home.run("controller", "start")
        all_seen(home, count, count * EACH)
        warm = time.monotonic() - began
        share, memory, peak = at_rest(home, rest_for)
        killed = []
        for _ in range(1):
            home.kill_controller()
            began = time.monotonic()
            home.run("controller", "start")
            all_seen(home, count, count * EACH)
            killed.append(time.monotonic() - began)
    size = f"{count:,} workers, {count * EACH:,} running tasks"
    yield Group(
        8,
        f"at rest, {size}",
        (Series("cloudai controller", (share,)),),
        PERCENT_OF_A_CORE,
        (Aim("at most 5 % of a core", at_most=5),),
        (f"Over {rest_for:.0f} s, each worker looked at as often as always.",),
    )
    yield Group(
        8,
        f"memory, {size}",
        (
            Series("cloudai controller", (memory,)),
            Series("at its most, since its start", (peak,)),
        ),
        MB,
        (Aim("at most 300 MB", at_most=300),),
    )
    again = "killed by SIGKILL, until every task is seen again"
    yield Group(
        9,
        f"a controller starts, {count:,} workers",
        (
            Series(again, tuple(killed)),
            Series("first sight of as many workers without a task", (cold,)),
            Series("started after the store was written elsewhere", (warm,)),
        ),
        SECONDS,
        (
            Aim(
                "at most 1.2 of a first sight",
                against="first sight of as many workers without a task",
                at_most=1.2,
            ),
        ),
    )
    if not lab.short:
        costs = {count: share}
        for part in (10, 5, 2):
            with laid_out(lab, count // part, EACH) as home:
                home.run("controller", "start")
                all_seen(home, count // part, count // part * EACH)
                costs[count // part] = at_rest(home, 10.0)[0]
        yield growth("at rest", PERCENT_OF_A_CORE, dict(sorted(costs.items())), of="workers")


def first_sights(lab: Lab, count: int) -> tuple[float, tuple[float, ...]]:
    """Seconds from nothing until each worker was seen, without tasks; and, three times, seconds of
    CPU a worker for seeing all again."""
    with laid_out(lab, count, 0) as home:
        began = time.monotonic()
        home.run("controller", "start")
        all_seen(home, count, 0)
        seconds, again = time.monotonic() - began, []
        time.sleep(QUIET)
        for _ in range(3):
            before = cpu_of(home.controller_pid)
            home.ask("/workers/?refresh=true")
            again.append((cpu_of(home.controller_pid) - before) / count)
    return seconds, tuple(again)


@contextmanager
def laid_out(lab: Lab, count: int, each: int) -> Iterator[Home]:
    """A crowd, and a home whose store says that so many tasks run on each of them."""
    folder = lab.folder / f"crowd-{count}-{each}-{time.monotonic_ns()}"
    folder.mkdir()
    there = crowd.Crowd(folder, count)
    there.make_keys()
    with a_home(folder / "home", there) as home, there.serving(written(home.folder, count, each)):
        yield home


def written(home: Path, count: int, each: int) -> dict[str, list[dict[str, str]]]:
    """Writes the tasks into the home's store, running; worker -> what the crowd must know."""
    store = Store.open(home / "cloudai.db", now=datetime.now(UTC))
    spec = TaskSpec(
        image="busybox",
        argv=("sleep", "infinity"),
        user_id="ann",
        resources=Resources.of(cpus=1, memory=1, storage=1),
        batch="batch-1",
    )
    submitted = RESTED - timedelta(seconds=10)
    tasks: list[Task] = []
    there: dict[str, list[dict[str, str]]] = {}
    happened = []
    for number in range(count):
        worker = crowd.name(number)
        for index in range(each):
            task_id = f"task-1795000000-{number:04d}{index:04d}"
            assignment = f"{task_id}.1"
            tasks.append(Task(id=task_id, spec=spec, state=State.QUEUED, created_at=submitted))
            happened.append((task_id, Placed(at=submitted, worker_id=worker)))
            started = Started(at=RESTED, number=1, container_id=crowd.container_id(assignment))
            happened.append((task_id, started))
            one = {"assignment": assignment, "task": task_id, "store": store.id}
            there.setdefault(worker, []).append(one)
    if tasks:
        batch = Batch(id="batch-1", user_id="ann", created_at=submitted, files=(), size=len(tasks))
        store.submit_batch(batch, tasks)
        moved = store.record_all(happened)
        if len(moved) != len(happened):
            raise BenchFailed("the tasks could not be written as running")
    store.close()
    return there


def all_seen(home: Home, workers: int, tasks: int) -> None:
    """Waits until each worker was seen, and each task on it."""
    deadline = time.monotonic() + SEEN_WITHIN
    while True:
        # The list of them all costs the controller more than what is measured here.
        online = home.ask("/tasks/workers/health")["online_workers"]
        if online == workers:
            running = sum(one["tasks"] for one in home.ask("/workers/")["workers"])
            if running == tasks:
                return
        if time.monotonic() > deadline:
            raise BenchFailed(f"{online} workers were seen, no more")
        time.sleep(0.2)


def at_rest(home: Home, seconds: float) -> tuple[float, float, float]:
    """The share of a core it uses while nobody asks, its memory, and the most it had."""
    pid = home.controller_pid
    time.sleep(QUIET)
    before, began = cpu_of(pid), time.monotonic()
    time.sleep(seconds)
    used = cpu_of(pid) - before
    return used / (time.monotonic() - began), memory_of(pid), peak_of(pid)
