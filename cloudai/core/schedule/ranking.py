"""Which of the workers that can take a task is the best: the strategies (seed 004).

A strategy whose ranking of workers no task changes keeps them in line, and the first that fits
is the answer. ``binpack`` looks at all that fit, each time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from cloudai.core.gpus import plain
from cloudai.core.model import Strategy

from .packing import Packing
from .snapshot import Shape
from .workers import OUT, Indexes, Line, Need, Workers

HAS_IMAGE = 2.0
"""In ``spread``: a worker that holds the image goes before others with as many tasks."""
LOAD_OF_IMAGE = 0.25
"""In ``load_balanced``: having the image makes up for so much load a core."""
PULL = 0.05
"""In ``performance_optimized``: the part of its time that a pull is taken to cost."""


class Ranking(Protocol):
    """Another way to choose, to be measured next to ours; see ``simulate``."""

    def best(self, shape: Shape, candidates: Indexes, workers: Workers) -> int:
        """One of ``candidates``, workers that can take a task of that shape now."""


class Strategies:
    """The five strategies over one fleet."""

    def __init__(self, workers: Workers, default: Strategy) -> None:
        self.workers = workers
        self.default = default
        self.packing = Packing(workers)
        self._run_times: Mapping[tuple[str, str], float] = {}
        """(kind, worker) -> seconds that such tasks took there, on the mean."""
        self._scales: dict[tuple[str, bool], float] = {}

    def of(self, shape: Shape) -> Strategy:
        return shape.strategy or self.default

    def set_run_times(self, seconds: Mapping[tuple[str, str], float]) -> None:
        """What is known now; lines that rest on what was known before are made anew."""
        if seconds == self._run_times:
            return
        self._run_times = seconds
        self._scales.clear()
        for name in [one for one in self.workers.lines if isinstance(one, tuple)]:
            del self.workers.lines[name]

    def line(self, need: Need) -> Line | None:
        """The line of workers for it; ``None`` where each is to be looked at."""
        workers, shape = self.workers, need.shape
        strategy = self.of(shape)
        if strategy is Strategy.BINPACK:
            return None
        if strategy is Strategy.LOAD_BALANCED:
            return workers.line(strategy, lambda: Line(self._blank(), renew=self._load))
        if strategy is Strategy.PERFORMANCE_OPTIMIZED:
            kind, gpus = shape.kind, bool(need.whole or need.share)
            return workers.line(
                (strategy, kind, gpus),
                lambda: Line(self._blank(), renew=lambda i: self._seconds(kind, gpus, i)),
            )
        if need.whole:
            return workers.line(
                need.whole,
                lambda: Line(workers.ranks, room=workers.plain.whole, at_least=need.whole),
            )
        if need.share:
            return workers.line("share", lambda: Line(workers.ranks, room=workers.plain.best))
        return workers.line("no gpus", lambda: Line(workers.ranks_without))

    def _blank(self) -> list[float]:
        return [OUT] * len(self.workers)

    def prize(self, shape: Shape) -> float:
        """By how much a worker's key is better for holding the image."""
        strategy = self.of(shape)
        if strategy is Strategy.LOAD_BALANCED:
            return LOAD_OF_IMAGE
        if strategy is Strategy.PERFORMANCE_OPTIMIZED:
            return PULL
        return HAS_IMAGE

    def _load(self, i: int) -> float:
        free = self.workers.free[i]
        if free is None:
            return OUT
        total = free.total.cpu_milli
        reserved = 1 - free.cpu / total if total else 1.0
        return max(self.workers.places[i].load, reserved) + self.workers.busy[i] / 1000

    def _seconds(self, kind: str, gpus: bool, i: int) -> float:
        """What a run of that kind takes there, relative to others, as far as can be told."""
        workers = self.workers
        if workers.free[i] is None:
            return OUT
        crowd = workers.busy[i] / 1000
        known = self._run_times.get((kind, workers.places[i].worker_id))
        if known is not None:
            return known / self._scale(kind, gpus) + crowd
        return 1 / speed(workers, i, gpus) + crowd

    def _scale(self, kind: str, gpus: bool) -> float:
        """Seconds that a run of that kind would take on a worker of speed 1."""
        if (kind, gpus) in self._scales:
            return self._scales[kind, gpus]
        scales = [
            seconds * speed(self.workers, i, gpus)
            for (its, worker), seconds in self._run_times.items()
            if its == kind and (i := self.workers.index.get(worker)) is not None
        ]
        scale = sum(scales) / len(scales) if scales else 1.0
        self._scales[kind, gpus] = scale or 1.0
        return self._scales[kind, gpus]


MODELS = {
    **{"b200": 22.0, "h200": 10.5, "h100": 10.0, "gh200": 10.5, "l40s": 3.6, "rtx6000ada": 3.6},
    **{"a100": 3.1, "l40": 1.8, "a40": 1.5, "a6000": 1.55, "a30": 1.65, "l4": 1.2, "a10": 1.25},
    **{"v100": 1.25, "4090": 3.3, "3090": 1.4, "t4": 0.65, "p100": 0.2, "k80": 0.05, "m40": 0.07},
}
"""Dense 16-bit tensor throughput in 100 TFLOPS, from the makers' data sheets (32-bit for cards
without such units): how models compare where no past run tells better."""


def model_speed(model: str, clock: int | None, memory: int | None) -> float:
    """How fast a GPU is, relative to others. Unknown models: by memory and clock alone."""
    name = plain(model)
    known = [value for key, value in MODELS.items() if key in name]
    base = max(known) if known else (memory or 8 * 2**30) / 2**30 / 40
    return base * ((clock or 1500) / 1500 if not known else 1.0)


def speed(workers: Workers, i: int, gpus: bool) -> float:
    """How fast a worker is for one task, relative to others: its fastest GPU, or 1."""
    free = workers.free[i]
    if free is None or not gpus:
        return 1.0
    found = [model_speed(use.gpu.model, use.gpu.clock, use.gpu.memory) for use in free.gpus]
    return max(found, default=0.01) or 0.01


def first_of(keys: np.ndarray[tuple[int], np.dtype[np.float64]], candidates: Indexes) -> int:
    """The candidate with the least key; among equals the first."""
    return int(candidates[int(np.argmin(keys[candidates]))])
