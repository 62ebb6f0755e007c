"""How much of what is reserved its owners use, and how much of it others have meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields

from cloudai.core.capacity import Free
from cloudai.core.model import Resources

from .order import Queue
from .snapshot import Reservation, Running
from .workers import Need, Workers

NONE = Resources()


@dataclass(frozen=True, slots=True)
class Lending:
    """What becomes of one reservation now."""

    used: Resources = NONE
    lent: Resources = NONE
    """In the hands of preemptible tasks of others, who give it back when its owner comes."""


def lending(
    reserved: Sequence[Reservation], free: Free | None, running: Mapping[str, Running]
) -> dict[str, Lending]:
    """Of each reservation on one worker, by its id. What a task holds counts for one of them
    only, the first that it may have of. ``free``: what nobody has there."""
    used = dict.fromkeys((one.id for one in reserved), NONE)
    for task in running.values():
        rest = task.resources
        for one in reserved:
            if one.is_for(task.user, task.priority):
                part = _least(rest, _less(one.resources, used[one.id]))
                used[one.id] = used[one.id] + part
                rest = _less(rest, part)
    idle = {one.id: _less(one.resources, used[one.id]) for one in reserved}
    missing = NONE
    if free is not None:
        missing = _less(sum(idle.values(), NONE), _least(free.total, free.free))
        borrowed = (one.resources for one in running.values() if one.preemptible)
        missing = _least(missing, sum(borrowed, NONE))
    found = {}
    for one in reserved:
        lent = _least(missing, idle[one.id])
        missing = _less(missing, lent)
        found[one.id] = Lending(used[one.id], lent)
    return found


def awaited(
    reserved: set[int], workers: Workers, queue: Queue, need_of: Callable[[int], Need]
) -> set[int]:
    """Workers on which somebody who has a right to what is reserved there waits for it: it is
    lent to nobody now, or who gave it back would have it again before its owner."""
    waiting = [
        (queue.asks[head[1]], need_of(number))
        for number, slots in queue.where.items()
        for slot in slots
        if (head := queue.head(slot, number)) is not None
    ]
    found = set()
    for i in reserved:
        free, kept = workers.free[i], workers.places[i].reserved
        if free is None:
            continue
        room = free.copy()
        for one in workers.running[i].values():
            owner = any(mine.is_for(one.user, one.priority) for mine in kept)
            if one.ending or (one.preemptible and not owner):
                room.give(one.resources, one.devices, one.wish)
        if any(
            need.met[i]
            and any(mine.is_for(ask.user, ask.priority) for mine in kept)
            and room.lacks(need.resources, need.wish) is None
            for ask, need in waiting
        ):
            found.add(i)
    return found


_NAMES = tuple(field.name for field in fields(Resources))


def _least(one: Resources, other: Resources) -> Resources:
    return Resources(
        **{name: max(0, min(getattr(one, name), getattr(other, name))) for name in _NAMES}
    )


def _less(one: Resources, other: Resources) -> Resources:
    return Resources(**{name: max(0, getattr(one, name) - getattr(other, name)) for name in _NAMES})
