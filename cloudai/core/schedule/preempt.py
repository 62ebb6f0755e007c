"""Who makes room for a task that goes before: only who was submitted as preemptible, of lower
priority, the lowest and the youngest first, and no more of them than it takes. Never for
fairness alone: priorities are those that were asked for, not lifted by waiting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cloudai.core.capacity import Free

from .snapshot import Ask, Running


@dataclass(frozen=True, slots=True)
class Victims:
    """Tasks whose end makes room on a worker; none: it is being made already."""

    worker: int
    tasks: tuple[Running, ...]

    @property
    def burden(self) -> tuple[int, int, float]:
        """What is better of two choices: fewer, of lower priority, that ran for less long."""
        highest = max((one.priority for one in self.tasks), default=-1)
        oldest = min((one.started for one in self.tasks), default=0.0)
        return len(self.tasks), highest, -oldest


def victims_on(
    ask: Ask, worker: int, room: Free, running: Sequence[Running], *, owner: bool
) -> Victims | None:
    """The fewest tasks on one worker whose end lets the task in, if that can be had.

    ``room``: what is free for it there. ``owner``: it comes to what is reserved for it, so
    whoever borrows that goes, whatever their priority.
    """
    shape, room = ask.shape, room.copy()
    for one in running:
        if one.ending:
            room.give(one.resources, one.devices, one.wish)
    if room.lacks(shape.resources, shape.wish) is None:
        return Victims(worker, ())
    able = [
        one
        for one in running
        if one.preemptible
        and one.ours
        and not one.ending
        and (owner or one.priority < ask.priority)
    ]
    able.sort(key=lambda one: (one.priority, -one.started, one.id))
    chosen: list[Running] = []
    for one in able:
        chosen.append(one)
        room.give(one.resources, one.devices, one.wish)
        if room.lacks(shape.resources, shape.wish) is None:
            return Victims(worker, tuple(_without_needless(ask, room, chosen)))
    return None


def _without_needless(ask: Ask, room: Free, chosen: list[Running]) -> list[Running]:
    """Lets off whoever does not help after all, the highest and oldest first."""
    kept = list(chosen)
    for one in reversed(chosen):
        trial = room.copy()
        trial.take_these(one.resources, one.devices, one.wish)
        if trial.lacks(ask.shape.resources, ask.shape.wish) is None:
            kept.remove(one)
            room = trial
    return kept
