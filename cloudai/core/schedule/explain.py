"""Why a task waits: for each worker the exact reason, in words. The same board that places it
says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cloudai.core.capacity import WHOLE
from cloudai.core.gpus import ANY
from cloudai.core.model import Resources
from cloudai.core.wording import insufficient

from .advice import GONE, ahead_of, asks_for, earliest, turn_of, would_fit
from .holders import either, some, who_has
from .snapshot import Ask
from .workers import Mask, condition_of, first_unmet

if TYPE_CHECKING:
    from .board import Board

__all__ = ["GONE", "Because", "Waiting", "Why", "find_ask", "in_one_line", "why"]

DETAILED = 64
"""Up to so many workers, each is told in full; beyond, those with the same lack together."""
SHORT = 3
"""So many reasons stand in one line."""


@dataclass(frozen=True, slots=True)
class Because:
    """One reason, and the workers for which it holds."""

    workers: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """Everything that keeps a task waiting."""

    task_id: str
    asks: str = ""
    """What it asks for."""
    held: str = ""
    """What it waits for besides room: another task, a pause after a failure, a quota."""
    reasons: tuple[Because, ...] = ()
    fits: tuple[str, ...] = ()
    """Workers on which it would start in the next pass."""
    ahead: int = 0
    """Waiting tasks whose turn comes before."""
    next_task: str = ""
    """Whose turn comes first of all; empty where it is its own."""
    next_user: str = ""
    turn: str = ""
    """What its place in line comes from: priority, waiting, fair share."""
    would_fit: tuple[str, ...] = ()
    """What would make it fit."""
    start: float | None = None
    """When it can start at the latest, by the time limits of what runs."""
    start_on: str = ""


class Waiting(Mapping[str, str]):
    """task -> why it waits, in one line; worked out when somebody asks."""

    def __init__(self, board: Board, now: float) -> None:
        self._board = board
        self._now = now
        self._lines: dict[object, str] = {}

    def __getitem__(self, task_id: str) -> str:
        ask = find_ask(self._board, task_id)
        if ask.held:
            return ask.held
        if ask.refused:
            return in_one_line(self._board, ask, self._now)
        alike = (ask.shape, ask.user, ask.priority, ask.group)
        if alike not in self._lines:
            self._lines[alike] = in_one_line(self._board, ask, self._now)
        return self._lines[alike]

    def __iter__(self) -> Iterator[str]:
        board = self._board
        yield from board.queue.asks
        yield from board.held
        for members in board.groups.values():
            yield from (task_id for task_id in members if task_id not in board.queue.asks)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def find_ask(board: Board, task_id: str) -> Ask:
    """Raises ``KeyError`` for a task that does not wait."""
    ask = board.queue.asks.get(task_id) or board.held.get(task_id)
    if ask is not None:
        return ask
    for members in board.groups.values():
        if task_id in members:
            return members[task_id]
    raise KeyError(task_id)


# ---------------------------------------------------------------- in one line


def in_one_line(board: Board, ask: Ask, now: float) -> str:
    """Why it waits, workers with the same reason together. A task for one worker needs no name
    before its reason."""
    if ask.held:
        return ask.held
    there = sum(place.closed != GONE for place in board.workers.places)
    if not there:
        return "no workers in the inventory; `cloudai register ID HOST` adds one"
    target = ask.shape.target
    if target is not None and not _is_there(board, target):
        return f"Worker {target} not found"
    if words := _besides_room(board, ask):
        return words
    reasons = grouped(board, ask, now, only=target)
    if target is not None:
        return reasons[0].reason if reasons else ""
    if len(reasons) > SHORT:
        reasons = grouped(board, ask, now, by_lack=True)
    if not reasons:
        return "its turn comes with the next pass"
    reasons.sort(key=lambda one: -len(one.workers))
    told = [f"{_names(one, there)}: {one.reason}" for one in reasons[:SHORT]]
    if more := reasons[SHORT:]:
        many = sum(len(one.workers) for one in more)
        told.append(f"{len(more)} more reasons on {many} more: cloudai why {ask.id}")
    return "; ".join(told)


def _names(because: Because, there: int) -> str:
    """Its workers; all of many need no names."""
    if there > SHORT and len(because.workers) == there:
        return f"all {there} workers"
    return some(because.workers)


def _is_there(board: Board, worker_id: str) -> bool:
    i = board.workers.index.get(worker_id)
    return i is not None and board.workers.places[i].closed != GONE


def _besides_room(board: Board, ask: Ask) -> str:
    """What it waits for that no worker can give: a quota, others of its group."""
    members = board.groups.get(ask.group, {}) if ask.group is not None else {}
    if ask.group is not None and ask.group_size > 1:
        if len(members) < ask.group_size:
            return f"{ask.group} waits for {ask.group_size - len(members)} more of its tasks"
        whole = sum((one.shape.resources for one in members.values()), Resources())
        over = board.shares.over_quota(ask.user, whole, len(members))
    else:
        over = board.shares.over_quota(ask.user, ask.shape.resources)
    if over:
        return f"over the quota of {ask.user}: {over}"
    return _of_group(board, sorted(members.values(), key=lambda one: one.group_rank))


def _of_group(board: Board, members: list[Ask]) -> str:
    """How much of a group would fit now; empty where not even one of it does, or all."""
    if not members:
        return ""
    fits, least, most = 0, 1, len(members)
    while least <= most:
        middle = (least + most) // 2
        if board.lay_out(members[:middle]) is not None:
            fits, least = middle, middle + 1
        else:
            most = middle - 1
    if fits in (0, len(members)):
        return ""
    return (
        f"the {len(members)} tasks of {members[0].group} start together"
        f" ({members[0].placement.value}): {fits} of them would fit now"
    )


# ---------------------------------------------------------------- worker by worker


def grouped(
    board: Board,
    ask: Ask,
    now: float,
    *,
    only: str | None = None,
    by_lack: bool = False,
    tell: Callable[[Board, Ask, int, float], str] | None = None,
) -> list[Because]:
    """The reasons of all workers, those with the same one together. ``by_lack``: those that
    lack the same thing too, as in a large fleet; ``tell``: says a reason in other words."""
    workers = board.workers
    found: dict[str, list[str]] = {}
    by_lack = by_lack or (len(workers) > DETAILED and only is None)
    lacking, rest = _by_lack(board, ask, now) if by_lack else ([], list(workers))
    for i in rest:
        place = workers.places[i]
        if place.closed == GONE or only not in (None, place.worker_id):
            continue
        if why := (tell or reason)(board, ask, i, now):
            found.setdefault(why, []).append(place.worker_id)
    told = [Because(tuple(ids), why) for why, ids in found.items()] + lacking
    return sorted(told, key=lambda one: -len(one.workers)) if by_lack else told


def _by_lack(board: Board, ask: Ask, now: float) -> tuple[list[Because], list[int]]:
    """How many lack what, and the most there is of it anywhere; and the workers whose reason
    is another, to be looked at one by one."""
    workers, need = board.workers, board.need(ask.shape)
    open_ = workers.column("cpu") >= 0
    left = np.frombuffer(need.met, np.bool_) & open_
    one_by_one = ~left | _odd(board, ask)
    reasons = []
    if ask.shape.near:
        near = np.zeros(len(workers), np.bool_)
        near[list(workers.with_tasks(ask.shape.near))] = True
        if (far := left & ~near).any():
            reasons.append(Because(_ids(board, far), _not_near(ask)))
        left &= near
    for what, column, wanted, unit in _wanted(ask):
        lacking = left & (workers.column(column) < wanted)
        if lacking.any():
            most = float(workers.column(column)[lacking].max()) * unit
            words = insufficient(what, most, wanted * unit).replace("worker has", "at most")
            reasons.append(Because(_ids(board, lacking), words + _wished(what, ask)))
        left &= ~lacking
        one_by_one &= ~lacking
    if need.share:
        # Columns know how much of a device is free, not whether its memory is.
        full = [int(i) for i in np.flatnonzero(left) if not workers.fits(int(i), need)]
        if full:
            ids = tuple(workers.places[i].worker_id for i in full)
            reasons.append(Because(ids, "no GPU with so much memory, or so few tasks, to share"))
            one_by_one[full] = False
    if ask.shape.near:
        one_by_one &= ~far
    return reasons, [int(i) for i in np.flatnonzero(one_by_one)]


def _wanted(ask: Ask) -> tuple[tuple[str, str, float, float], ...]:
    """(what, column of the workers, how much of it is needed, what one of it is in words)."""
    need, wish = ask.shape.resources, ask.shape.wish
    whole = need.gpu_milli >= WHOLE
    gpus = (f"whole {wish}", need.gpu_milli / WHOLE, 1.0)
    return (
        ("CPU", "cpu", need.cpu_milli, 1 / 1000),
        ("memory", "memory", need.memory, 1 / 2**30),
        ("storage", "storage", need.storage, 1 / 2**30),
        ("GPU", *(gpus if whole else (f"best {wish}", float(need.gpu_milli), 1 / WHOLE))),
    )


def _odd(board: Board, ask: Ask) -> Mask:
    """Workers that have room, perhaps, and yet something else in the way."""
    finder = board.finder
    odd = np.zeros(len(board.workers), np.bool_)
    odd[list(board.keeps.keys() | finder.reserved | finder.barred(ask))] = True
    return odd


def _ids(board: Board, mask: Mask) -> tuple[str, ...]:
    return tuple(board.workers.places[int(i)].worker_id for i in np.flatnonzero(mask))


def _wished(what: str, ask: Ask) -> str:
    return f" ({ask.shape.wish})" if what == "GPU" and ask.shape.wish != ANY else ""


def _not_near(ask: Ask) -> str:
    return f"{either(ask.shape.near)} is not there, near which it is to be"


def reason(board: Board, ask: Ask, i: int, now: float) -> str:
    """Why the task cannot go to that worker now; empty when it can."""
    if words := _shut(board, ask, i):
        return words
    free = board.workers.free[i]
    lack = free.lacks(ask.shape.resources, ask.shape.wish) if free is not None else None
    if lack is not None:
        return insufficient(*lack) + _wished(lack[0], ask)
    return _kept_from(board, ask, i, now)


def in_detail(board: Board, ask: Ask, i: int, now: float) -> str:
    """The same, with who has what it lacks."""
    if words := _shut(board, ask, i):
        return words
    free, shape = board.workers.free[i], ask.shape
    lack = free.lacks(shape.resources, shape.wish) if free is not None else None
    if free is not None and lack is not None:
        running = board.workers.running[i]
        return who_has(lack[0], free, running, shape.resources.gpu_milli, shape.wish)
    return _kept_from(board, ask, i, now)


def _shut(board: Board, ask: Ask, i: int) -> str:
    """What speaks against the worker, however much is free there."""
    workers, place = board.workers, board.workers.places[i]
    if place.closed or workers.free[i] is None:
        return place.closed or "not seen yet"
    if unmet := first_unmet(condition_of(ask.shape), workers.facts[i]):
        return unmet
    running = workers.running[i].values()
    here = {one.id for one in running} | {one.name for one in running}
    if apart := [one for one in ask.shape.apart if one in here]:
        return f"{', '.join(apart)} is there, apart from which it is to be"
    if ask.shape.near and not here & set(ask.shape.near):
        return _not_near(ask)
    return ""


def _kept_from(board: Board, ask: Ask, i: int, now: float) -> str:
    """What else has the room that is free there."""
    place, keep = board.workers.places[i], board.keeps.get(i)
    room = board.finder.room_for(ask, i)
    if room is not None and room.lacks(ask.shape.resources, ask.shape.wish) is not None:
        others = [one for one in place.reserved if not one.is_for(ask.user, ask.priority)]
        whose = dict.fromkeys(one.whose for one in others)
        return f"what is free there is reserved for {', '.join(whose)}"
    if (
        keep is not None
        and keep.ask.id != ask.id
        and not board.finder.lets_in(ask, board.need(ask.shape), i, now)
    ):
        return f"kept for {keep.ask.id}, whose turn comes before"
    if place.worker_id in ask.refused:
        return ask.refused[place.worker_id]
    for pool in board.shares.over_in_pools(ask.user, ask.shape.resources):
        if pool in place.pools:
            return f"over the quota of {ask.user} in {pool}"
    return ""


# ---------------------------------------------------------------- the whole story


def why(board: Board, task_id: str, now: float) -> Why:
    """Everything that keeps a waiting task where it is. Raises ``KeyError`` for another."""
    ask = find_ask(board, task_id)
    if ask.held:
        return Why(task_id=task_id, asks=asks_for(ask), held=ask.held)
    held = _besides_room(board, ask)
    fits = () if held else _fitting(board, ask, now)
    count, first = ahead_of(board, ask)
    keep = None if fits else earliest(board, ask)
    return Why(
        task_id=task_id,
        asks=asks_for(ask),
        held=held,
        reasons=tuple(grouped(board, ask, now, tell=in_detail)),
        fits=fits,
        ahead=count,
        next_task=first.id if first else "",
        next_user=first.user if first else "",
        turn=turn_of(board, ask, now),
        would_fit=() if fits else tuple(would_fit(board, ask)),
        start=max(now, keep.start) if keep is not None and keep.start is not None else None,
        start_on=board.workers.places[keep.worker].worker_id if keep is not None else "",
    )


def _fitting(board: Board, ask: Ask, now: float) -> tuple[str, ...]:
    """Where it would go; in a small fleet all workers that would do."""
    workers = board.workers
    if ask.group is not None and ask.group_size > 1:
        members = sorted(board.groups[ask.group].values(), key=lambda one: one.group_rank)
        laid = board.lay_out(members)
        return (workers.places[laid[ask.id]].worker_id,) if laid else ()
    if len(workers) > DETAILED:
        i = board.finder.find(ask, board.need(ask.shape), now)
        return () if i is None else (workers.places[i].worker_id,)
    return tuple(
        workers.places[i].worker_id
        for i in workers
        if workers.free[i] is not None and not reason(board, ask, i, now)
    )
