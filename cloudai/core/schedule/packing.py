"""``binpack``: what tasks come, and where the next one wastes least (``waste``).

Scores are kept between decisions: of a shape, only workers that changed since its last turn
are scored, and workers that are alike are scored once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cloudai.core.capacity import WHOLE

from .snapshot import Shape
from .waste import Demand, Floats, State, Table, waste_added
from .workers import Indexes, Need, Workers

MOST_DEMANDS = 256
"""Only the most frequent are weighed."""
REFRESH = 0.5
"""The mix is weighed anew when so much of what is known of it has come since."""
REMEMBERED = 1 << 18
DIGITS = 6
"""Scores are rounded to so many, so that equal ones are equal."""


@dataclass(slots=True)
class Scores:
    """A shape's scores on all workers, right up to an entry of the log of changes."""

    version: int
    epoch: int
    seen: int
    of: Floats


class Packing:
    """The mix of what comes, learnt as it comes, and the choice of workers by it."""

    def __init__(self, workers: Workers) -> None:
        self.workers = workers
        self._count: dict[Shape, float] = {}
        self._known = 0.0
        self._fresh = 0.0
        self._table: Table | None = None
        self._version = 0
        self._kinds: dict[object, int] = {}
        self._sample: list[int] = []
        """A worker of each kind."""
        self._memo: dict[tuple[Demand, bytes], float] = {}
        self._scores: dict[Demand, Scores] = {}

    def learn(self, shape: Shape) -> None:
        """One more of that shape has come."""
        self._count[shape] = self._count.get(shape, 0.0) + 1
        self._fresh += 1

    def best(self, need: Need, candidates: Indexes) -> int:
        """The candidate on which the task wastes least; of equal ones the fullest."""
        scores = self._scored(_demand(need.shape))[candidates]
        equal = candidates[scores == scores.min()]
        busy = self.workers.busy
        return max((int(i) for i in equal), key=lambda i: (busy[i], -i))

    # ---------------------------------------------------------------- the mix

    def _weighed(self) -> Table:
        """The mix as it was when it was last weighed."""
        kinds = len(self._kinds)
        stale = self._table is None or self._fresh >= REFRESH * self._known
        if stale or self._table is None or self._table.weight.shape[0] != kinds:
            self._known += self._fresh
            self._fresh = 0.0
            self._table = self._weigh()
            self._version += 1
            self._memo.clear()
        return self._table

    def _weigh(self) -> Table:
        weights: dict[Demand, Floats] = {}
        popular: dict[Demand, float] = {}
        for shape, count in self._count.items():
            demand = _demand(shape)
            if demand.gpus:
                row = weights.setdefault(demand, np.zeros(len(self._sample)))
                row += count * self._may_go(shape)
                popular[demand] = popular.get(demand, 0.0) + count
        chosen = sorted(popular, key=lambda one: (-popular[one], one.cpu, one.memory, one.milli))
        chosen = chosen[:MOST_DEMANDS]
        total = sum(popular[one] for one in chosen) or 1.0
        columns = np.array([(d.cpu, d.memory, d.gpus, d.milli) for d in chosen], np.int64)
        columns = columns.reshape(-1, 4)
        weight = np.zeros((len(self._sample), len(chosen)))
        for at, demand in enumerate(chosen):
            weight[:, at] = weights[demand] / total
        return Table(columns[:, 0], columns[:, 1], columns[:, 2], columns[:, 3], weight)

    def _may_go(self, shape: Shape) -> Floats:
        """For each kind of worker, whether tasks of that shape can go there at all."""
        need = self.workers.need(shape)
        return np.array([float(need.met[i] and need.view.suiting[i] > 0) for i in self._sample])

    # ---------------------------------------------------------------- scores

    def _scored(self, demand: Demand) -> Floats:
        workers = self.workers
        self._note_kinds()
        table = self._weighed()
        scores, epoch = self._scores.get(demand), workers.epoch
        if (
            scores is None
            or (scores.version, scores.epoch) != (self._version, epoch)
            or len(scores.of) != len(workers)
        ):
            scores = Scores(self._version, epoch, 0, np.full(len(workers), np.inf))
            self._scores[demand] = scores
            changed = list(workers)
        else:
            changed = sorted(set(workers.log[scores.seen :]))
        scores.seen = len(workers.log)
        self._rescore(demand, scores.of, changed, table)
        return scores.of

    def _note_kinds(self) -> None:
        """Workers with the same GPUs and labels are of a kind."""
        new = len(self.workers) - len(self.workers.kind_of)
        self.workers.kind_of += [-1] * new
        for i in self.workers.unsorted:
            free, place = self.workers.free[i], self.workers.places[i]
            devices = tuple((use.gpu.model, use.gpu.memory) for use in free.gpus) if free else ()
            key = (devices, tuple(sorted(place.labels.items())), place.pools)
            if key not in self._kinds:
                self._kinds[key] = len(self._kinds)
                self._sample.append(i)
            self.workers.kind_of[i] = self._kinds[key]
        self.workers.unsorted.clear()

    def _rescore(self, demand: Demand, scores: Floats, changed: list[int], table: Table) -> None:
        if len(self._memo) > REMEMBERED:
            self._memo.clear()
        states: dict[bytes, tuple[int, int, int, list[int]]] = {}
        keys: list[tuple[int, bytes]] = []
        for i in changed:
            row = self._row(demand, i)
            if row is None:
                scores[i] = np.inf
                continue
            key = repr(row).encode()
            keys.append((i, key))
            if (demand, key) not in self._memo:
                states[key] = row
        if states:
            rows = list(states.values())
            width = max(len(rooms) for *_, rooms in rows)
            padded = [[0] * (width - len(rooms)) + rooms for *_, rooms in rows]
            state = State(
                cpu=np.array([row[0] for row in rows], np.int64),
                memory=np.array([row[1] for row in rows], np.int64),
                rooms=np.array(padded, np.int64).reshape(len(rows), width),
                kind=np.array([row[2] for row in rows], np.int64),
            )
            added = np.round(waste_added(demand, state, table), DIGITS).tolist()
            for key, score in zip(states, added, strict=True):
                self._memo[demand, key] = score
        for i, key in keys:
            scores[i] = self._memo[demand, key]

    def _row(self, demand: Demand, i: int) -> tuple[int, int, int, list[int]] | None:
        """What is free on a worker, without the order of its GPUs; ``None``: too little."""
        workers, free = self.workers, self.workers.free[i]
        if free is None or free.cpu < demand.cpu or free.memory < demand.memory:
            return None
        rooms = free.shares
        if demand.shared and (not rooms or rooms[-1] < demand.milli):
            return None
        if not demand.shared and rooms.count(WHOLE) < demand.gpus:
            return None
        return free.cpu, free.memory, workers.kind_of[i], rooms


def _demand(shape: Shape) -> Demand:
    need = shape.resources
    whole, share = divmod(need.gpu_milli, WHOLE)
    return Demand(
        cpu=need.cpu_milli,
        memory=need.memory,
        gpus=whole or (1 if share else 0),
        milli=WHOLE if whole or not share else share,
    )
