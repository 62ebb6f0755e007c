"""Who competes: our strategies, and the two that every paper measures against."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cloudai.core.capacity import WHOLE, Device, Free
from cloudai.core.gpus import ANY, Wish
from cloudai.core.model import Resources, Strategy
from cloudai.core.policy import Policy
from cloudai.core.schedule import Place, Ranking, Shape
from cloudai.core.schedule.workers import Indexes, Workers

from .fleets import Fleet

RIVALS = ("best-fit", "random")


class BestFit:
    """The worker with the least left of CPUs and GPUs afterwards, both in parts of the largest
    worker's and cut to whole per cents; of equal ones the first. So the published simulator
    scores it."""

    def __init__(self, widest: Resources) -> None:
        self.widest = widest

    def best(self, shape: Shape, candidates: Indexes, workers: Workers) -> int:
        """See ``Ranking``."""
        cpu = workers.column("cpu")[candidates] - shape.resources.cpu_milli
        left = cpu / max(1, self.widest.cpu_milli)
        if self.widest.gpu_milli:
            gpu = np.array([_gpu_left(workers.free[i]) for i in candidates])
            left = (left + (gpu - shape.resources.gpu_milli) / self.widest.gpu_milli) / 2
        return int(candidates[int(np.argmax(((1 - left) * 100).astype(int)))])


def _gpu_left(free: Free | None) -> int:
    left = 0
    for device in free.devices if free else ():
        left += device.room
    return left


class Random:
    """Any worker that can take it."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - an experiment, no secret

    def best(self, shape: Shape, candidates: Indexes, workers: Workers) -> int:
        """See ``Ranking``."""
        return int(candidates[self._random.randrange(len(candidates))])


@dataclass(slots=True)
class AnyDevice(Free):
    """A worker that gives a share any device with the room for it, rather than the fullest."""

    random: random.Random | None = None

    def choose(self, milli: int, wish: Wish = ANY) -> tuple[int, ...]:
        """Which devices a request that fits would get."""
        if milli >= WHOLE or self.random is None:
            return Free.choose(self, milli, wish)
        able = [i for i, one in enumerate(self.devices) if self._takes(one, milli, wish)]
        return (self.random.choice(able),)

    def _takes(self, device: Device, milli: int, wish: Wish) -> bool:
        if not device.suits(wish) or device.room < milli:
            return False
        return self.idle_left > 0 if device.room == WHOLE else self._may_share(device, milli, wish)

    def copy(self) -> Free:
        """One to try things on."""
        return with_any_device(Free.copy(self), self.random)


def with_any_device(free: Free, random_: random.Random | None) -> Free:
    """The same room, its shares given at random."""
    return AnyDevice(
        total=free.total,
        cpu=free.cpu,
        memory=free.memory,
        storage=free.storage,
        devices=free.devices,
        idle_left=free.idle_left,
        tasks_per_gpu=free.tasks_per_gpu,
        reserved=free.reserved,
        gpus=free.gpus,
        random=random_,
    )


@dataclass(frozen=True, slots=True)
class Contestant:
    """A way to place, by its name."""

    name: str
    policy: Policy
    ranking: Callable[[Fleet, int], Ranking] | None = None
    """Made anew for a fleet and a seed; ``None``: the policy's strategy."""
    at_random: bool = False
    """Shares go to any device, too."""

    def make(self, fleet: Fleet, seed: int) -> tuple[Fleet, Ranking | None]:
        """The fleet as it sees it, and its ranking."""
        ranking = self.ranking(fleet, seed) if self.ranking else None
        if not self.at_random:
            return fleet, ranking
        dice = random.Random(seed + 1)  # noqa: S311 - an experiment, no secret
        places = tuple(_at_random(place, dice) for place in fleet.places)
        return Fleet(source=fleet.source, places=places, notes=fleet.notes), ranking


def _at_random(place: Place, dice: random.Random) -> Place:
    return place if place.free is None else replace(place, free=with_any_device(place.free, dice))


def contestants(strategies: Sequence[Strategy], *, calibrate: bool) -> list[Contestant]:
    """The strategies, and with ``calibrate`` plain best-fit and random."""
    found = [Contestant(str(strategy), Policy(strategy=strategy)) for strategy in strategies]
    if calibrate:
        found.append(Contestant("best-fit", Policy(), lambda fleet, _: BestFit(fleet.widest())))
        found.append(Contestant("random", Policy(), lambda _, seed: Random(seed), at_random=True))
    return found
