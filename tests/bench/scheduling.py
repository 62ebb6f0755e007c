"""What a decision costs.

Places tasks of 200 shapes and 50 users on workers of four kinds with eight GPUs each, from an
empty fleet; then one task ends and a pass follows; then somebody asks why a task waits. One
process, one core; seconds are of that process alone, since others may share the machine.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random
from statistics import median

from cloudai.core.model import GIB, Resources, Strategy
from cloudai.core.policy import Policy
from cloudai.core.schedule import Ask, Board, Shape, empty_place, why

from .figures import CPU_SECONDS, MS, Group, Series, growth
from .lab import Lab

NOW = 1_000_000.0
KINDS = (
    (64, 256, "A100-SXM4-80GB", 80),
    (96, 512, "H100", 80),
    (128, 1024, "A100-SXM4-40GB", 40),
    (64, 256, "V100-SXM2-32GB", 32),
)
"""Cores, GiB, model and GiB of each of its eight GPUs."""
TASKS, WORKERS = 100_000, 10_000
ENDS = 40


@dataclass(frozen=True, slots=True)
class Cost:
    """What was measured on one fleet and queue. Seconds of CPU."""

    name: str
    tasks: int
    workers: int
    placed: int
    full: float
    after_one_end: float
    why: float


def shapes(random: Random) -> list[Shape]:
    """200 of them: what small and large jobs ask for."""
    return [
        Shape(
            resources=Resources.of(
                cpus=random.choice([1, 2, 4, 6, 8]),
                memory=random.choice([4, 8, 16, 32]) + number / 100,
                storage=1,
                gpus=random.choice([0, 0, 0.25, 0.5, 1, 1, 1, 2, 4, 8]),
            ),
            limit=random.choice([None, 3600.0, 7200.0]),
        )
        for number in range(200)
    ]


def a_board(tasks: int, workers: int, strategy: Strategy) -> Board:
    """The fleet and its queue, nothing placed yet."""
    random = Random(1)
    some = shapes(random)
    board = Board(Policy(strategy=strategy))
    for i in range(workers):
        cpus, memory, model, gpu_memory = KINDS[i % len(KINDS)]
        board.see(
            empty_place(
                f"w{i}",
                total=Resources.of(cpus=cpus, memory=memory, storage=1000),
                devices=[(model, gpu_memory * GIB)] * 8,
            )
        )
    for i in range(tasks):
        board.add(an_ask(f"task-{i}", i, tasks, random, some), NOW)
    return board


def an_ask(task_id: str, i: int, tasks: int, random: Random, some: list[Shape]) -> Ask:
    """One of the queue, submitted a second after the one before."""
    return Ask(
        id=task_id,
        user=f"user{random.randrange(50)}",
        shape=random.choice(some),
        priority=random.choice([25, 50, 50, 50, 75]),
        since=NOW - tasks + i,
        position=i,
    )


def in_use(tasks: int, workers: int) -> Board:
    """A fleet on which all that fitted runs and one task in fifty has just ended, before a board
    that has never seen it, with as many tasks waiting as there ever were."""
    random = Random(3)
    full = a_board(tasks, workers, Strategy.SPREAD)
    full.plan(NOW)
    board = Board(Policy())
    for i, place in enumerate(full.workers.places):
        running = tuple(full.workers.running[i].values())
        board.see(replace(place, free=full.workers.free[i], running=running))
    some = shapes(Random(1))
    for i in range(tasks):
        board.add(an_ask(f"later-{i}", i, tasks, random, some), NOW)
    for task_id in random.sample(sorted(board.workers.at), len(board.workers.at) // 50):
        board.finish(task_id)
    return board


def cost(
    tasks: int, workers: int, strategy: Strategy = Strategy.SPREAD, *, busy: bool = False
) -> Cost:
    """Measures one fleet and queue. ``busy``: on a fleet in use."""
    random = Random(2)
    board = in_use(tasks, workers) if busy else a_board(tasks, workers, strategy)
    gc.collect()
    gc.freeze()
    began = time.process_time()
    plan = board.plan(NOW)
    full = time.process_time() - began
    ends = []
    for one in random.sample(plan.placements, min(ENDS, len(plan.placements))):
        board.finish(one.task_id)
        began = time.process_time()
        board.plan(NOW + 1)
        ends.append(time.process_time() - began)
    waiting = next(iter(board.queue.asks), None)
    began = time.process_time()
    if waiting is not None:
        why(board, waiting, NOW + 2)
    asked = time.process_time() - began
    gc.unfreeze()
    name = "fleet in use" if busy else strategy.value
    return Cost(name, tasks, workers, len(plan.placements), full, median(ends), asked)


def measure(lab: Lab) -> Iterator[Group]:
    """What docs/scheduling.md promises of the size at which it is asked about."""
    tasks, workers = (TASKS // 20, WORKERS // 20) if lab.short else (TASKS, WORKERS)
    costs = [
        cost(tasks, workers),
        cost(tasks, workers, busy=True),
        cost(tasks, workers, Strategy.LOAD_BALANCED),
        cost(tasks, workers, Strategy.PERFORMANCE_OPTIMIZED),
    ]
    size = f"{tasks:,} tasks, {workers:,} workers"
    for title, unit, of in (
        ("a full pass", CPU_SECONDS, "full"),
        ("a pass after one end", MS, "after_one_end"),
        ("why a task waits", MS, "why"),
    ):
        series = tuple(Series(one.name, (getattr(one, of),)) for one in costs)
        yield Group(11, f"{title}; {size}", series, unit)
    if lab.short:
        return
    parts = (10, 5, 2)
    by_tasks = {tasks // part: cost(tasks // part, workers).full for part in parts}
    by_workers = {workers // part: cost(tasks, workers // part).full for part in parts}
    whole = costs[0].full
    title = f"a full pass, {workers:,} workers"
    yield growth(title, CPU_SECONDS, by_tasks | {tasks: whole}, of="tasks")
    title = f"a full pass, {tasks:,} tasks"
    yield growth(title, CPU_SECONDS, by_workers | {workers: whole}, of="workers")
