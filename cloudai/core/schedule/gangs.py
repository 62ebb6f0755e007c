"""Placement groups: all of their tasks are placed together, or none is.

Nothing is held for a part of a group, so two groups cannot wait for each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cloudai.core.capacity import Free
from cloudai.core.model import Placement

from .snapshot import Ask

Rooms = dict[int, Free]
"""worker -> what is free there for the group, in order of preference."""


def lay_out(
    members: Sequence[Ask], rooms: Rooms, may_go: Callable[[Ask, int], bool]
) -> dict[str, int] | None:
    """task -> worker for all of them, or ``None``. ``may_go``: whether a worker meets a
    member's conditions; ``rooms`` stand in the order in which they are preferred."""
    # The hardest to place first: ranks keep their numbers all the same.
    order = sorted(members, key=lambda ask: _size(ask), reverse=True)
    match members[0].placement:
        case Placement.STRICT_PACK:
            return _on_one(order, rooms, may_go)
        case Placement.PACK:
            return _on_one(order, rooms, may_go) or _packed(order, rooms, may_go)
        case Placement.SPREAD:
            return _spread(order, rooms, may_go) or _packed(order, rooms, may_go)
        case Placement.STRICT_SPREAD:
            return _apart(order, rooms, may_go)


def _size(ask: Ask) -> tuple[int, int, int, int]:
    need = ask.shape.resources
    return need.gpu_milli, need.cpu_milli, need.memory, need.storage


def _fits(ask: Ask, room: Free) -> bool:
    return room.lacks(ask.shape.resources, ask.shape.wish) is None


def _on_one(
    order: Sequence[Ask], rooms: Rooms, may_go: Callable[[Ask, int], bool]
) -> dict[str, int] | None:
    for i, room in rooms.items():
        if all(may_go(ask, i) for ask in order) and _fill(order, room.copy()) == len(order):
            return {ask.id: i for ask in order}
    return None


def _fill(order: Sequence[Ask], room: Free) -> int:
    """How many of them fit there together, in that order."""
    for count, ask in enumerate(order):
        if not _fits(ask, room):
            return count
        room.take(ask.shape.resources, ask.shape.wish)
    return len(order)


def _packed(
    order: Sequence[Ask], rooms: Rooms, may_go: Callable[[Ask, int], bool]
) -> dict[str, int] | None:
    """Worker after worker, the one that takes most of what is left next."""
    left, laid = list(order), dict[str, int]()
    free = {i: room.copy() for i, room in rooms.items()}
    while left:
        best: tuple[int, list[Ask]] | None = None
        for i, room in free.items():
            trial, here = room.copy(), []
            for ask in left:
                if may_go(ask, i) and _fits(ask, trial):
                    trial.take(ask.shape.resources, ask.shape.wish)
                    here.append(ask)
            if best is None or len(here) > len(best[1]):
                best = (i, here)
        if best is None or not best[1]:
            return None
        i, here = best
        del free[i]
        laid.update({ask.id: i for ask in here})
        left = [ask for ask in left if ask.id not in laid]
    return laid


def _spread(
    order: Sequence[Ask], rooms: Rooms, may_go: Callable[[Ask, int], bool]
) -> dict[str, int] | None:
    """Each where the fewest of them are."""
    free = {i: room.copy() for i, room in rooms.items()}
    count = dict.fromkeys(free, 0)
    laid: dict[str, int] = {}
    for ask in order:
        able = [i for i in free if may_go(ask, i) and _fits(ask, free[i])]
        if not able:
            return None
        i = min(able, key=lambda i: count[i])
        free[i].take(ask.shape.resources, ask.shape.wish)
        count[i] += 1
        laid[ask.id] = i
    return laid


def _apart(
    order: Sequence[Ask], rooms: Rooms, may_go: Callable[[Ask, int], bool]
) -> dict[str, int] | None:
    """A worker of its own for each: a matching, so that it is found wherever there is one."""
    able = {
        ask.id: [i for i, room in rooms.items() if may_go(ask, i) and _fits(ask, room)]
        for ask in order
    }
    holder: dict[int, str] = {}

    def settle(task_id: str, tried: set[int]) -> bool:
        for i in able[task_id]:
            if i in tried:
                continue
            tried.add(i)
            if i not in holder or settle(holder[i], tried):
                holder[i] = task_id
                return True
        return False

    if not all(settle(ask.id, set()) for ask in order):
        return None
    return {task_id: i for i, task_id in holder.items()}
