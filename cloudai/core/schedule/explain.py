"""Why a task waits: for each worker the exact reason, in words. The same board that places it
says so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cloudai.core.capacity import WHOLE, Free, Use, outsiders
from cloudai.core.gpus import ANY
from cloudai.core.model import Resources
from cloudai.core.wording import amount, insufficient

from .keeps import Keep, keep_for
from .snapshot import Ask, Running
from .workers import condition_of, first_unmet

if TYPE_CHECKING:
    from .board import Board

GONE = "no longer in the inventory"
DETAILED = 64
"""Up to so many workers, each is told in full; beyond, those with the same lack together."""


@dataclass(frozen=True, slots=True)
class Because:
    """One reason, and the workers for which it holds."""

    workers: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """Everything that keeps a task waiting."""

    task_id: str
    held: str = ""
    """What it waits for besides room: another task, a pause after a failure, a quota."""
    reasons: tuple[Because, ...] = ()
    fits: tuple[str, ...] = ()
    """Workers on which it would start in the next pass."""
    ahead: int = 0
    """Waiting tasks whose turn comes before."""
    next_task: str = ""
    """Whose turn comes first of all."""
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
        alike = None if ask.refused or ask.group else (ask.shape, ask.user)
        if alike not in self._lines or alike is None:
            line = in_one_line(self._board, ask, self._now)
            if alike is None:
                return line
            self._lines[alike] = line
        return ask.held or self._lines[alike]

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


def in_one_line(board: Board, ask: Ask, now: float) -> str:
    """Why it waits, workers with the same reason together. A task for one worker needs no name
    before its reason."""
    if ask.held:
        return ask.held
    if not any(not place.closed or place.free for place in board.workers.places) and not len(
        board.workers
    ):
        return "no workers in the inventory; `cloudai register ID HOST` adds one"
    target = ask.shape.target
    if target is not None and not _is_there(board, target):
        return f"Worker {target} not found"
    if ask.group is not None and (words := _of_group(board, ask, now)):
        return words
    if over := board.shares.over_quota(ask.user, ask.shape.resources):
        return f"over the quota of {ask.user}: {over}"
    reasons = grouped(board, ask, now, only=target)
    if target is not None:
        return reasons[0].reason if reasons else ""
    if not reasons:
        return "its turn comes with the next pass"
    return "; ".join(f"{some(one.workers)}: {one.reason}" for one in reasons)


def _is_there(board: Board, worker_id: str) -> bool:
    i = board.workers.index.get(worker_id)
    return i is not None and board.workers.places[i].closed != GONE


def _of_group(board: Board, ask: Ask, now: float) -> str:
    assert ask.group is not None
    members = board.groups.get(ask.group, {})
    if len(members) < ask.group_size:
        return f"{ask.group} waits for {ask.group_size - len(members)} more of its tasks"
    if over := board.shares.over_quota(
        ask.user, sum((one.shape.resources for one in members.values()), Resources()), len(members)
    ):
        return f"over the quota of {ask.user}: {over}"
    if board.finder.find(ask, board.need(ask.shape), now) is None:
        return ""
    return (
        f"{ask.group} starts as a whole: its {len(members)} tasks do not all fit"
        f" ({ask.placement.value})"
    )


def grouped(board: Board, ask: Ask, now: float, *, only: str | None = None) -> list[Because]:
    """The reasons of all workers, those with the same one together."""
    workers = board.workers
    found: dict[str, list[str]] = {}
    in_full = len(workers) <= DETAILED
    for i in workers if in_full or only else _not_met_or_closed(board, ask):
        place = workers.places[i]
        if place.closed == GONE or only not in (None, place.worker_id):
            continue
        if why := reason(board, ask, i, now):
            found.setdefault(why, []).append(place.worker_id)
    reasons = [Because(tuple(ids), why) for why, ids in found.items()]
    if not in_full and only is None:
        reasons += _by_lack(board, ask)
    return reasons


def _not_met_or_closed(board: Board, ask: Ask) -> list[int]:
    """In a large fleet: the workers whose reason is another than a lack of room."""
    odd = set(board.keeps) | {i for i in board.workers if board.workers.places[i].reserved}
    odd |= {board.workers.index[w] for w in ask.refused if w in board.workers.index}
    met = np.frombuffer(board.need(ask.shape).met, np.bool_)
    closed = board.workers.column("cpu") < 0
    return sorted(odd | {int(i) for i in np.flatnonzero(~met | closed)})


def _by_lack(board: Board, ask: Ask) -> list[Because]:
    """In a large fleet: how many lack what, and the most there is of it anywhere."""
    workers, need, wish = board.workers, ask.shape.resources, ask.shape.wish
    left = np.frombuffer(board.need(ask.shape).met, np.bool_) & (workers.column("cpu") >= 0)
    gpu = f"whole {wish}" if need.gpu_milli >= WHOLE else f"best {wish}"
    unit = 1.0 if need.gpu_milli >= WHOLE else 1 / WHOLE
    reasons = []
    for what, column, wanted, scale in (
        ("CPU", "cpu", need.cpu_milli, 1 / 1000),
        ("memory", "memory", need.memory, 1 / 2**30),
        ("storage", "storage", need.storage, 1 / 2**30),
        ("GPU", gpu, need.gpu_milli * (1 / WHOLE / unit), unit),
    ):
        have = workers.column(column)
        lacking = np.flatnonzero(left & (have < wanted))
        if len(lacking):
            most = float(have[lacking].max()) * scale
            ids = tuple(workers.places[int(i)].worker_id for i in lacking)
            words = insufficient(what, most, wanted * scale)
            reasons.append(Because(ids, words.replace("worker has", "at most")))
        left &= have >= wanted
    return reasons


def reason(board: Board, ask: Ask, i: int, now: float) -> str:
    """Why the task cannot go to that worker now; empty when it can."""
    workers, place = board.workers, board.workers.places[i]
    free = workers.free[i]
    if place.closed or free is None:
        return place.closed or "not seen yet"
    if unmet := first_unmet(condition_of(ask.shape), workers.facts[i]):
        return unmet
    names = {one.id for one in workers.running[i].values()} | {
        one.name for one in workers.running[i].values()
    }
    if ask.shape.apart and (here := names & set(ask.shape.apart)):
        return f"{', '.join(sorted(map(str, here)))} is there, apart from which it is to be"
    if ask.shape.near and not names & set(ask.shape.near):
        return f"{' or '.join(ask.shape.near)} is not there, near which it is to be"
    lack = free.lacks(ask.shape.resources, ask.shape.wish)
    if lack is not None:
        wish = f" ({ask.shape.wish})" if lack[0] == "GPU" and ask.shape.wish != ANY else ""
        return insufficient(*lack) + wish
    if words := _kept_from(board, ask, i, now):
        return words
    if place.worker_id in ask.refused:
        return ask.refused[place.worker_id]
    for pool in board.shares.over_in_pools(ask.user, ask.shape.resources):
        if pool in place.pools:
            return f"over the quota of {ask.user} in {pool}"
    return ""


def _kept_from(board: Board, ask: Ask, i: int, now: float) -> str:
    """What else has the room that is free there."""
    place, keep = board.workers.places[i], board.keeps.get(i)
    room = board.finder.room_for(ask, i)
    if room is not None and room.lacks(ask.shape.resources, ask.shape.wish) is not None:
        whose = ", ".join(
            dict.fromkeys(
                one.whose for one in place.reserved if not one.is_for(ask.user, ask.priority)
            )
        )
        return f"what is free there is reserved for {whose}"
    if (
        keep is not None
        and keep.ask.id != ask.id
        and not board.finder.lets_in(ask, board.need(ask.shape), i, now)
    ):
        return f"kept for {keep.ask.id}, whose turn comes before"
    return ""


# ---------------------------------------------------------------- words


def some(ids: Sequence[str], at_most: int = 3) -> str:
    """``w1, w2, w3 and 5 more``."""
    shown = ", ".join(ids[:at_most])
    return shown if len(ids) <= at_most else f"{shown} and {len(ids) - at_most} more"


# ---------------------------------------------------------------- the whole story


def why(board: Board, task_id: str, now: float) -> Why:
    """Everything that keeps a waiting task where it is. Raises ``KeyError`` for another."""
    ask = find_ask(board, task_id)
    if ask.held:
        return Why(task_id=task_id, held=ask.held)
    over = board.shares.over_quota(ask.user, ask.shape.resources)
    held = f"over the quota of {ask.user}: {over}" if over else ""
    if ask.group is not None:
        held = held or _of_group(board, ask, now)
    reasons = [Because(one.workers, _in_detail(board, one)) for one in grouped(board, ask, now)]
    ahead, next_task = _ahead(board, ask)
    keep = _earliest(board, ask)
    return Why(
        task_id=task_id,
        held=held,
        reasons=tuple(reasons),
        fits=tuple(_fitting(board, ask, now)),
        ahead=ahead,
        next_task=next_task,
        turn=_turn(board, ask, now),
        would_fit=tuple(_would_fit(board, ask)),
        start=keep.start if keep else None,
        start_on=board.workers.places[keep.worker].worker_id if keep else "",
    )


def _fitting(board: Board, ask: Ask, now: float) -> list[str]:
    if len(board.workers) > DETAILED or board.shares.over_quota(ask.user, ask.shape.resources):
        return []
    return [
        board.workers.places[i].worker_id
        for i in board.workers
        if board.workers.free[i] is not None and not reason(board, ask, i, now)
    ]


def _in_detail(board: Board, because: Because) -> str:
    """For GPUs, who has them; told for one worker at a time."""
    if not because.reason.startswith("Insufficient GPU") or len(because.workers) != 1:
        return because.reason
    i = board.workers.index[because.workers[0]]
    free = board.workers.free[i]
    return who_has_gpus(free, board.workers.running[i]) if free is not None else because.reason


def who_has_gpus(free: Free, running: Mapping[str, Running]) -> str:
    """``0 of 4 GPUs free, 2 held by task-… (ann), 2 used outside cloudai by bob, pid 4242
    python train.py``."""
    holders: dict[str, int] = {}
    outside: list[str] = []
    broken = 0
    for use in free.gpus:
        if use.use is Use.TASK:
            for task_id in use.tasks:
                holders[task_id] = holders.get(task_id, 0) + 1
        elif use.use is Use.OUTSIDE:
            who = [
                f"{one.user or 'somebody'}, pid {one.pid} {one.name}"
                for one in outsiders(use.gpu, frozenset(running))
            ]
            outside.append(", ".join(who) or "memory in use by nobody who can be seen")
        broken += use.use is Use.BROKEN
    for one in running.values():
        if one.resources.gpu_milli and one.id not in holders:
            holders[one.id] = max(1, one.resources.gpu_milli // WHOLE)
    idle, _ = free.gpu_rooms()
    parts = [f"{idle} of {len(free.gpus)} GPUs free"]
    for task_id, count in holders.items():
        user = running[task_id].user if task_id in running else "another cloudai"
        parts.append(f"{count} held by {task_id} ({user})")
    for them in dict.fromkeys(outside):
        parts.append(f"{outside.count(them)} used outside cloudai by {them}")
    if broken:
        parts.append(f"{broken} broken")
    unused = sum(use.use is Use.FREE for use in free.gpus)
    if unused > idle and not holders.keys() - running.keys():
        kept = (
            unused
            - idle
            - sum(
                one.resources.gpu_milli // WHOLE
                for one in running.values()
                if one.id not in {task for use in free.gpus for task in use.tasks}
            )
        )
        if kept > 0:
            parts.append(f"{kept} kept free for people")
    return ", ".join(parts)


def _ahead(board: Board, ask: Ask) -> tuple[int, str]:
    """How many waiting tasks come before, and the first of all: as the order stands now."""
    count, first = 0, ""
    level = board.queue.level(ask.id) if ask.id in board.queue.asks else ask.priority
    mine = (-level, board.shares.score(ask.user), ask.user, ask.position)
    for its_level, users in board.queue.slots():
        for user in users:
            line = board.queue.line(its_level, user)
            key = (-its_level, board.shares.score(user), user)
            if key < mine[:3]:
                count += len(line)
            elif key == mine[:3]:
                count += sum(1 for position, _ in line if position < ask.position)
    for one in board.queue.in_order(board.shares.score):
        first = one.id
        break
    return count, "" if first == ask.id else first


def _turn(board: Board, ask: Ask, now: float) -> str:
    level = board.queue.level_of(ask, now)
    lifted = f" + {level - ask.priority} for waiting" if level > ask.priority else ""
    return (
        f"priority {ask.priority}{lifted}; {ask.user} has had"
        f" {board.shares.score(ask.user) / 3600:.2f} hours of the whole fleet for their weight"
    )


def _would_fit(board: Board, ask: Ask) -> list[str]:
    """What could be changed so that it fits, nearest first."""
    workers, need, wish = board.workers, ask.shape.resources, ask.shape.wish
    if not len(workers) or ask.group is not None:
        return []
    if not workers.large_enough(board.need(ask.shape)).any():
        return _never(board, ask)
    advice = []
    if need.gpu_milli >= 2 * WHOLE:
        most = max((free.gpu_rooms(wish)[0] for free in workers.free if free), default=0)
        if most:
            advice.append(f"asking for {most} GPUs: so many are free on one worker now")
    victims = board.victims(ask)
    if victims is not None and victims.tasks:
        who = ", ".join(one.id for one in victims.tasks)
        advice.append(f"preempting {who}, which is preemptible")
    ends = [
        (one.ends is None, one.ends or one.started, one.id)
        for i in np.flatnonzero(workers.large_enough(board.need(ask.shape)))
        for one in workers.running[int(i)].values()
        if one.ours
    ]
    if ends:
        advice.append(f"the end of a task that runs now, such as {min(ends)[2]}")
    return advice


def _never(board: Board, ask: Ask) -> list[str]:
    """No worker is large enough: what is the most that one has."""
    frees = [free for i in board.workers if (free := board.workers.free[i]) is not None]
    if not frees:
        return ["a worker that can be reached"]
    need = ask.shape.resources
    most = [
        ("CPUs", need.cpus, max(free.total.cpus for free in frees)),
        ("GB of memory", need.memory_gib, max(free.total.memory_gib for free in frees)),
        ("GB of storage", need.storage_gib, max(free.total.storage_gib for free in frees)),
        ("GPUs", need.gpus, max(float(free.suiting(ask.shape.wish)) for free in frees)),
    ]
    found = [
        f"asking for at most {amount(there, down=True)} {what}: no worker has more"
        for what, wanted, there in most
        if wanted > there
    ]
    return found or ["a worker that meets all its conditions, or fewer of them"]


def _earliest(board: Board, ask: Ask) -> Keep | None:
    for keep in board.keeps.values():
        if keep.ask.id == ask.id:
            return keep
    if ask.group is not None:
        return None
    found = keep_for(ask, board.need(ask.shape), board.workers, set(board.keeps), 0, {})
    return found if found is not None and found.start is not None else None
