"""Places that blocked tasks keep, and who may still go there (backfill).

The first blocked tasks in order each keep the worker on which they can start earliest, as far
as time limits tell. A later task may go there only if it surely ends before that, or takes only
what will be left over then: so it cannot delay the one that waits.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from cloudai.core.capacity import WHOLE, Free
from cloudai.core.model import Resources

from .snapshot import Ask, Reservation, Running, Shape
from .workers import Floats, Indexes, Need, Workers


@dataclass(slots=True)
class Keep:
    """A worker that waits for a task."""

    ask: Ask
    worker: int
    start: float | None
    """When it can start there at the latest; ``None``: its tasks have no time limits."""
    spare: Free
    """What is left over once it runs there."""
    rank: int
    """How many go before it in order."""
    closed_to: set[Need] = field(default_factory=set)
    """Shapes of which none may pass: while it stands, what is left over only becomes less."""


LOOKED_AT = 64
"""In a large fleet: how many workers, by when the first task there ends, are looked at."""


def keep_for(
    ask: Ask,
    need: Need,
    workers: Workers,
    taken: set[int],
    rank: int,
    rooms: dict[int, Free],
    *,
    among: set[int] | None = None,
) -> Keep | None:
    """The worker on which the task can start earliest, of those that nobody keeps yet
    (``taken``); ``None`` where it could start nowhere. ``rooms``: workers whose free part is
    not all for this task. ``among``: only these."""
    mask = workers.large_enough(need)
    if taken:
        mask[list(taken)] = False
    able = np.flatnonzero(mask)
    if among is not None:
        able = able[np.isin(able, list(among))]
    ends = workers.column("first_end")[able]
    order = np.argsort(ends, kind="stable")
    limited = int(np.isfinite(ends).sum())
    best: Keep | None = None
    for first_end, i in zip(ends[order[: min(limited, LOOKED_AT)]], able[order], strict=False):
        if best is not None and best.start is not None and first_end >= best.start:
            break
        start = _start(need, workers, int(i), rooms)
        if start is not None and (best is None or best.start is None or start < best.start):
            best = _keep(ask, need, workers, int(i), start, rank, rooms)
    if best is not None or not len(able):
        return best
    nearest = able[np.argsort(_missing(need, workers, able), kind="stable")]
    for i in nearest[:LOOKED_AT]:
        if (keep := _keep(ask, need, workers, int(i), None, rank, rooms)) is not None:
            return keep
    return None


def _room(workers: Workers, i: int, rooms: dict[int, Free]) -> Free:
    free = rooms.get(i) or workers.free[i]
    assert free is not None
    return free.copy()


def _start(need: Need, workers: Workers, i: int, rooms: dict[int, Free]) -> float | None:
    """When there is room for it on that worker, by the time limits of what runs there."""
    room = _room(workers, i, rooms)
    for one in sorted(
        (one for one in workers.running[i].values() if one.ends is not None),
        key=lambda one: one.ends or 0.0,
    ):
        room.give(one.resources, one.devices, one.wish)
        if room.lacks(need.resources, need.wish) is None:
            return one.ends
    return None


def _keep(
    ask: Ask,
    need: Need,
    workers: Workers,
    i: int,
    start: float | None,
    rank: int,
    rooms: dict[int, Free],
) -> Keep | None:
    """What is left there once the task runs. Where no time limits tell when that is, whatever
    runs there is taken to have ended by then."""
    spare = _room(workers, i, rooms)
    for one in workers.running[i].values():
        if one.ours and (start is None or (one.ends is not None and one.ends <= start)):
            spare.give(one.resources, one.devices, one.wish)
    if spare.lacks(need.resources, need.wish) is not None:
        return None
    spare.take(need.resources, need.wish)
    return Keep(ask, i, start, spare, rank)


def _missing(need: Need, workers: Workers, able: Indexes) -> Floats:
    """How much of what it needs is not free on each of them, in parts of the worker."""
    missing = np.zeros(len(able))
    for name, wanted in (("cpu", need.cpu), ("memory", need.memory), ("storage", need.storage)):
        lack = np.maximum(0, wanted - workers.column(name)[able])
        missing += lack / np.maximum(1, workers.column(f"total_{name}")[able])
    if need.whole or need.share:
        name = need.view.names[0 if need.whole else 1]
        gpus = need.whole or need.share / WHOLE
        missing += np.maximum(0, gpus - workers.column(name)[able] / (1 if need.whole else WHOLE))
    return missing


def may_pass(keep: Keep, shape: Shape, now: float) -> bool:
    """Whether a later task that fits there now cannot delay the one that waits."""
    if shape.limit is not None and keep.start is not None and now + shape.limit <= keep.start:
        return True
    return keep.spare.lacks(shape.resources, shape.wish) is None


def passed(keep: Keep, one: Running) -> None:
    """A later task has gone there: what it holds beyond the start is spare no more."""
    if keep.start is None or one.ends is None or one.ends > keep.start:
        keep.spare.take_what_is_there(one.resources, one.wish)


# ---------------------------------------------------------------- reservations


def unused(reservation: Reservation, running: dict[str, Running]) -> Resources:
    """What of a reservation its owner does not use on that worker."""
    used = sum(
        (one.resources for one in running.values() if reservation.is_for(one.user, one.priority)),
        Resources(),
    )
    whole = reservation.resources
    return Resources(
        cpu_milli=max(0, whole.cpu_milli - used.cpu_milli),
        memory=max(0, whole.memory - used.memory),
        storage=max(0, whole.storage - used.storage),
        gpu_milli=max(0, whole.gpu_milli - used.gpu_milli),
    )


def room_of(
    ask: Ask, free: Free, reserved: tuple[Reservation, ...], running: dict[str, Running]
) -> Free:
    """What is free on a worker for that task: less what is reserved for others and idle."""
    room = free.copy()
    for reservation in reserved:
        if not reservation.is_for(ask.user, ask.priority):
            withhold(room, unused(reservation, running))
    return room


def withhold(room: Free, amount: Resources) -> None:
    """Takes it. Less than nothing is left where more is reserved than is free just now: what
    comes free next is not for others either."""
    whole, share = divmod(amount.gpu_milli, WHOLE)
    room.cpu -= amount.cpu_milli
    room.memory -= amount.memory
    room.storage -= amount.storage
    room.idle_left -= whole + (1 if share else 0)
