"""How much of a fleet a strategy fills: tasks come one by one in a shuffled order, each is placed
at once or dropped, none ever ends. So the papers on packing GPUs measure."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from cloudai.core.errors import InvalidInput
from cloudai.core.model import Resources
from cloudai.core.schedule import Ask, Board

from .fleets import Fleet
from .replay import plain
from .rivals import Contestant
from .trace import Job, Trace

FULL = 1.0

PUBLISHED = {
    "Random": (86.30, 87.47),
    "DotProd": (90.62, 90.85),
    "GpuClustering": (91.65, 91.88),
    "GpuPacking": (91.78, 92.00),
    "BestFit": (92.86, 93.08),
    "FGD": (95.23, 95.39),
}
"""Per cent of GPUs allocated when tasks asking for 100 % and 130 % have come to openb's fleet:
*Beware of Fragmentation* (USENIX ATC 2023), means over ten seeds, from the result files of
``hkust-adsl/kubernetes-scheduler-simulator``."""
PUBLISHED_FOR = (8152, 6_212_000)
"""The list those are of: tasks, and thousandths of GPUs of its fleet."""


@dataclass(frozen=True, slots=True)
class Filling:
    """What one contestant filled."""

    name: str
    marks: tuple[float, ...]
    """How much had been asked for, as a part of the fleet, when it was measured."""
    allocated: tuple[tuple[float, ...], ...]
    """For each mark, the part of the fleet that was allocated then, one a seed."""
    dropped: float
    """The part of all tasks that found no place, mean over seeds."""

    def mean(self, mark: int) -> float:
        return statistics.fmean(self.allocated[mark])

    def deviation(self, mark: int) -> float:
        """Standard deviation between seeds."""
        found = self.allocated[mark]
        return statistics.stdev(found) if len(found) > 1 else 0.0

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "name": self.name,
            "dropped": round(self.dropped, 6),
            "allocated": [
                {
                    "arrived": mark,
                    "mean": round(self.mean(at), 6),
                    "sd": round(self.deviation(at), 6),
                    "each": [round(one, 6) for one in self.allocated[at]],
                }
                for at, mark in enumerate(self.marks)
            ],
        }


def is_published_list(trace: Trace, fleet: Fleet) -> bool:
    """Whether it is the list that ``PUBLISHED`` is of."""
    return trace.kind == "openb" and (len(trace.jobs), fleet.total.gpu_milli) == PUBLISHED_FOR


def fill_many(
    fleet: Fleet,
    jobs: Sequence[Job],
    contestant: Contestant,
    *,
    seeds: Sequence[int],
    upto: float = 1.3,
    tell: Callable[[int], None] = lambda seed: None,
) -> Filling:
    """The experiment with each seed. ``upto``: how much is asked for in the end, as a part of
    what the fleet has. ``tell`` hears each seed as its turn comes."""
    marks = tuple(sorted({min(FULL, upto), upto}))
    found, dropped = list[list[float]](), list[float]()
    for seed in seeds:
        tell(seed)
        one, lost = fill(fleet, jobs, contestant, seed=seed, marks=marks)
        found.append(one)
        dropped.append(lost)
    by_mark = tuple(zip(*found, strict=True))
    return Filling(contestant.name, marks, by_mark, statistics.fmean(dropped))


def fill(
    fleet: Fleet, jobs: Sequence[Job], contestant: Contestant, *, seed: int, marks: Sequence[float]
) -> tuple[list[float], float]:
    """The part allocated at each mark, and the part of the tasks that was dropped."""
    amount = measure_of(fleet, jobs)
    whole = amount(fleet.total)
    seen, ranking = contestant.make(fleet, seed)
    board = Board(contestant.policy, ranking)
    for place in seen.places:
        board.see(place)
    asked = used = dropped = count = 0
    found: list[float] = []
    for job in arrivals(jobs, seed):
        wanted = amount(_whole(job))
        asked, count = asked + wanted, count + 1
        if _placed(board, job, count):
            used += wanted
        else:
            dropped += 1
        while len(found) < len(marks) and asked >= marks[len(found)] * whole:
            found.append(used / whole)
        if len(found) == len(marks):
            break
    return found, dropped / count


def _whole(job: Job) -> Resources:
    return sum((part.resources for part in job.parts), Resources())


def measure_of(fleet: Fleet, jobs: Sequence[Job]) -> Callable[[Resources], int]:
    """GPUs where there are any, else cores. Raises ``InvalidInput`` where the tasks ask for
    none of either."""
    if fleet.total.gpu_milli and any(job.gpu_milli for job in jobs):
        return lambda amount: amount.gpu_milli
    if fleet.total.cpu_milli and any(job.cpu_milli for job in jobs):
        return lambda amount: amount.cpu_milli
    raise InvalidInput("no task of the trace asks for anything the fleet has")


def arrivals(jobs: Sequence[Job], seed: int) -> Iterator[Job]:
    """All of them, shuffled; then drawn again, without end."""
    dice = random.Random(seed)  # noqa: S311 - an experiment, no secret
    order = list(jobs)
    dice.shuffle(order)
    yield from order
    while True:
        yield dice.choice(order)


def _placed(board: Board, job: Job, number: int) -> bool:
    """Whether it found a place at once; where not, it is gone."""
    shapes = plain(job)
    ids = [f"{number}/{part}" for part in range(len(shapes))]
    for part, (id_, shape) in enumerate(zip(ids, shapes, strict=True)):
        ask = Ask(
            id=id_,
            user="all",
            shape=shape,
            position=number,
            group=str(number) if len(ids) > 1 else None,
            group_size=len(ids),
            group_rank=part,
            placement=job.placement,
        )
        board.add(ask)
    if board.plan(0.0).placements:
        return True
    for id_ in ids:
        board.remove(id_)
    return False
