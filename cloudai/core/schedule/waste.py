"""How much of a worker's free GPUs tasks like those that come could not use: what ``binpack``
keeps small.

The rule, *hole yield*. Every GPU with something free is a hole. For each demand of the mix, a
hole's yield is the thousandths of it that such tasks could use, scaled down where the worker
has too little CPU or memory to give each of them its share. A hole need not take the first task
that comes: among the next ``DRAWS`` it takes the one that suits it best, so its worth is the
expected greatest yield among that many draws from the mix. A worker's worth is the sum over its
holes, its waste is the free GPU that the worth does not cover, and a task goes where it makes
the waste grow least.

The aim is that of FGD (*Beware of Fragmentation*, USENIX ATC 2023), which weighs what each
shape of the mix by itself could not use. ``docs/scheduling.md`` has both on that paper's trace.
Everything here is arrays over workers: CPU in thousandths, memory in bytes, GPUs in thousandths
of one, 0 where there is none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cloudai.core.capacity import WHOLE

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

DRAWS = 8
"""How many coming tasks a hole may choose from; 4 to 16 make little difference."""
BATCH = 1 << 21
"""Most numbers held at once in one table of holes and demands."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What a task asks for. A share of one GPU has ``gpus`` 1 and ``milli`` below 1000."""

    cpu: int
    memory: int
    gpus: int = 0
    milli: int = WHOLE

    @property
    def shared(self) -> bool:
        return self.gpus == 1 and self.milli < WHOLE


@dataclass(frozen=True, slots=True)
class Table:
    """The mix made ready: distinct demands that want GPUs, and on which kind of worker."""

    cpu: Ints
    memory: Ints
    gpus: Ints
    milli: Ints
    weight: Floats
    """[kind of worker, demand]: how often it comes, 0 where it may not go there; all demands
    together weigh 1."""


@dataclass(frozen=True, slots=True)
class State:
    """What is free on some workers: one entry, or one row of ``rooms``, each."""

    cpu: Ints
    memory: Ints
    rooms: Ints
    kind: Ints

    def after(self, row: Ints, demand: Demand, rooms: Ints) -> State:
        """Those of ``row`` once each has taken the task, its GPUs being as in ``rooms``."""
        return State(
            self.cpu[row] - demand.cpu, self.memory[row] - demand.memory, rooms, self.kind[row]
        )


def waste_added(demand: Demand, state: State, table: Table) -> Floats:
    """How much waste the task adds on each of these workers, all of which can take it."""
    rooms = np.sort(np.maximum(state.rooms, 0), axis=1)
    every = np.arange(len(rooms))
    after = rooms.copy()
    if demand.shared:
        # The least room that will do, as the worker itself chooses.
        slot = np.argmax(rooms >= demand.milli, axis=1)
        after[every, slot] -= demand.milli
    elif demand.gpus:
        free = after == WHOLE
        after[free & (np.cumsum(free, axis=1) <= demand.gpus)] = 0
    before = worth(State(state.cpu, state.memory, rooms, state.kind), table)
    left = worth(state.after(every, demand, after), table)
    # Less is free by what it takes: waste after, less waste before.
    return before - left - demand.gpus * demand.milli


def worth(state: State, table: Table) -> Floats:
    """The GPU thousandths that each worker's holes are expected to give."""
    size, demands = len(state.cpu), len(table.cpu)
    found: Floats = np.zeros(size)
    if size == 0 or demands == 0 or state.rooms.shape[1] == 0:
        return found
    step = max(1, BATCH // (demands * state.rooms.shape[1]))
    for start in range(0, size, step):
        part = slice(start, start + step)
        found[part] = _worth(
            State(state.cpu[part], state.memory[part], state.rooms[part], state.kind[part]), table
        )
    return found


def _worth(state: State, table: Table) -> Floats:
    copies = _copies(state, table)
    # The part of those copies that CPU and memory allow; nothing where not even one fits.
    allowed = np.minimum(_ratio(state.cpu, table.cpu), _ratio(state.memory, table.memory))
    part = np.minimum(1.0, allowed / np.maximum(copies, 1))
    part[(allowed < 1.0) | (copies == 0)] = 0.0
    # One row for each distinct hole of a worker; ``alike``: how many such it has.
    rooms = np.sort(state.rooms, axis=1)
    first = np.ones(rooms.shape, dtype=bool)
    first[:, 1:] = rooms[:, 1:] != rooms[:, :-1]
    worker, column = np.nonzero(first & (rooms > 0))
    if len(worker) == 0:
        return np.zeros(len(state.cpu))
    hole = rooms[worker, column]
    alike = (rooms[worker] == hole[:, None]).sum(axis=1)
    in_share = hole[:, None] // table.milli * table.milli
    in_several = copies[worker] * (table.gpus * WHOLE) / alike[:, None]
    in_several[hole < WHOLE] = 0.0
    gain = np.where(table.gpus > 1, in_several, in_share) * part[worker]
    best = _expected_best(gain, table.weight[state.kind[worker]])
    summed = np.bincount(worker, weights=best * alike, minlength=len(state.cpu))
    return summed.astype(np.float64)


def _copies(state: State, table: Table) -> Ints:
    """How many tasks of each demand the GPUs could take, were CPU and memory ample."""
    whole = (state.rooms == WHOLE).sum(axis=1)
    sizes, place = np.unique(table.milli, return_inverse=True)
    per_size = (state.rooms[:, :, None] // sizes).sum(axis=1)
    copies: Ints = np.where(table.gpus > 1, whole[:, None] // table.gpus, per_size[:, place])
    return copies


def _ratio(have: Ints, need: Ints) -> Floats:
    ratio: Floats = np.where(need > 0, have[:, None] / np.maximum(need, 1), np.inf)
    return ratio


def _expected_best(gain: Floats, weight: Floats) -> Floats:
    """The mean of the greatest of ``DRAWS`` gains; weight short of 1 gains nothing."""
    order = np.argsort(gain, axis=1)
    gain = np.take_along_axis(gain, order, axis=1)
    weight = np.take_along_axis(weight, order, axis=1)
    below = 1.0 - np.cumsum(weight[:, ::-1], axis=1)[:, ::-1]
    power = np.maximum(below, 0.0) ** DRAWS
    upper = np.ones_like(power)
    upper[:, :-1] = power[:, 1:]
    best: Floats = ((upper - power) * gain).sum(axis=1)
    return best
