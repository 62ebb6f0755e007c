"""A waiting task's place in the queue, where its turn comes from, when it can start, and what
would make it fit: in words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from cloudai.core.capacity import WHOLE, Free
from cloudai.core.gpus import ANY
from cloudai.core.model import HIGHEST_PRIORITY
from cloudai.core.policy import HOUR
from cloudai.core.wording import amount

from .holders import some
from .keeps import LOOKED_AT, Keep, keep_for
from .snapshot import Ask, Shape
from .workers import condition_of, first_unmet, meets

if TYPE_CHECKING:
    from .board import Board

GONE = "no longer in the inventory"


def asks_for(ask: Ask) -> str:
    """``4 CPUs, 16 GB of memory, 1 GB of disk, 2 GPUs (a100)``."""
    need, wish = ask.shape.resources, ask.shape.wish
    parts = [
        f"{_plain(need.cpus)} CPU{'' if need.cpu_milli == 1000 else 's'}",
        f"{_plain(need.memory_gib)} GB of memory",
        f"{_plain(need.storage_gib)} GB of disk",
    ]
    if need.gpu_milli:
        such = f" ({wish})" if wish != ANY else ""
        parts.append(f"{_plain(need.gpus)} GPU{'' if need.gpu_milli <= WHOLE else 's'}{such}")
    return ", ".join(parts)


def _plain(value: float) -> str:
    return amount(value).removesuffix(".0")


# ---------------------------------------------------------------- its place


def leader_of(board: Board, ask: Ask) -> Ask:
    """Who stands in line for it: of a group the first rank."""
    if ask.group is None or ask.id in board.queue.asks:
        return ask
    members = board.groups.get(ask.group, {}).values()
    return next((one for one in members if one.id in board.queue.asks), ask)


def ahead_of(board: Board, ask: Ask) -> tuple[int, Ask | None]:
    """How many waiting tasks come before, and the first of all, where that is another: as the
    order stands now."""
    leader = leader_of(board, ask)
    mine = _key(board, leader)
    count = 0
    for level, users in board.queue.slots():
        for user in users:
            key = (-level, board.shares.score(user), user)
            if key > mine[:3]:
                continue
            line = board.queue.line(level, user)
            whole = key < mine[:3]
            count += len(line) if whole else sum(at < leader.position for at, _ in line)
    for members in board.groups.values():
        first = next((one for one in members.values() if one.id in board.queue.asks), None)
        if first is not None and first.group != ask.group and _key(board, first) < mine:
            count += len(members) - 1
    head = next(iter(board.queue.in_order(board.shares.score)), None)
    return count, None if head is None or head.id == leader.id else head


def _key(board: Board, ask: Ask) -> tuple[int, float, str, int]:
    level = board.queue.level(ask.id) if ask.id in board.queue.asks else ask.priority
    return -level, board.shares.score(ask.user), ask.user, ask.position


def turn_of(board: Board, ask: Ask, now: float) -> str:
    """Priority, waiting and fair share, and who has had less at the same level."""
    level = board.queue.level_of(ask, now)
    parts = [f"priority {level}"]
    if level > ask.priority:
        hours = (now - ask.since) / HOUR
        parts = [f"priority {level}: {ask.priority}, and {level - ask.priority} for {hours:.0f} h"]
        parts[0] += " of waiting"
    parts.append(f"{ask.user} has had {_had(board, ask.user)} of the whole fleet")
    present = -_key(board, leader_of(board, ask))[0]
    users = next((users for at, users in board.queue.slots() if at == present), [])
    mine = board.shares.score(ask.user)
    before = sorted((board.shares.score(user), user) for user in users if user != ask.user)
    less = [f"{user} ({_had(board, user)})" for score, user in before if score < mine]
    if less:
        parts.append(f"at that priority {some(less)} had less and {_go(less)} first")
    return "; ".join(parts)


def _go(users: list[str]) -> str:
    return "goes" if len(users) == 1 else "go"


def _had(board: Board, user: str) -> str:
    """What somebody has had for their weight."""
    hours = f"{board.shares.score(user) / HOUR:.2f} h"
    weight = board.policy.weight(user)
    return hours if weight == 1.0 else f"{hours} for a weight of {weight:g}"


# ---------------------------------------------------------------- when


def earliest(board: Board, ask: Ask) -> Keep | None:
    """Where and when it can start at the latest, as far as time limits tell."""
    for keep in board.keeps.values():
        if keep.ask.id == ask.id:
            return keep if keep.start is not None else None
    if ask.group is not None:
        return None
    finder = board.finder
    rooms = {i: room for i in finder.reserved if (room := finder.room_for(ask, i)) is not None}
    taken = board.keeps.keys() | finder.barred(ask)
    found = keep_for(ask, board.need(ask.shape), board.workers, taken, 0, rooms)
    return found if found is not None and found.start is not None else None


# ---------------------------------------------------------------- what would help


def would_fit(board: Board, ask: Ask) -> list[str]:
    """What could be changed so that it fits, nearest first."""
    if not len(board.workers) or ask.group is not None:
        return []
    if not board.workers.large_enough(board.need(ask.shape)).any():
        closed = _closed(board, ask)
        return [*closed, *(_relaxed(board, ask) or _never(board, ask, bool(closed)))]
    return [
        *_fewer_gpus(board, ask),
        *_preempting(board, ask),
        *_borrowing(board, ask),
        *_ends(board, ask),
        *_closed(board, ask),
    ]


def _closed(board: Board, ask: Ask) -> list[str]:
    """Workers that take no tasks now and might do."""
    places = [
        place
        for i, place in enumerate(board.workers.places)
        if place.closed not in ("", GONE)
        and not first_unmet(condition_of(ask.shape), board.workers.facts[i])
    ]
    if not places:
        return []
    if len(places) == 1:
        return [f"{places[0].worker_id} taking tasks again"]
    names = some([place.worker_id for place in places])
    return [f"one of {len(places)} workers taking tasks again: {names}"]


def _fewer_gpus(board: Board, ask: Ask) -> list[str]:
    need, wish = ask.shape.resources, ask.shape.wish
    if need.gpu_milli < 2 * WHOLE:
        return []
    one = board.workers.need(replace(ask.shape, resources=replace(need, gpu_milli=WHOLE)))
    others = {i for i, keep in board.keeps.items() if keep.ask.id != ask.id}
    able = [i for i in np.flatnonzero(board.workers.able(one)) if i not in others]
    rooms = [board.finder.room_for(ask, int(i)) for i in able]
    most = max((room.gpu_rooms(wish)[0] for room in rooms if room is not None), default=0)
    if not most:
        return []
    many = "1 GPU: one is" if most == 1 else f"{most} GPUs: so many are"
    return [f"asking for {many} free on one worker now"]


def _preempting(board: Board, ask: Ask) -> list[str]:
    """Preemptible tasks that would make room for it, now or with a higher priority."""
    victims = board.victims(ask)
    if victims is not None and not victims.tasks:
        return ["the end of what is being stopped for it"]
    if victims is not None:
        who = some([one.id for one in victims.tasks])
        return [f"its turn: then {who} gives way, being preemptible"]
    urgent = board.victims(replace(ask, priority=HIGHEST_PRIORITY + 1))
    if urgent is None or not urgent.tasks:
        return []
    above = max(one.priority for one in urgent.tasks)
    if above >= HIGHEST_PRIORITY:
        return []
    who = some([one.id for one in urgent.tasks])
    return [f"a priority above {above}: {who} would give way, being preemptible"]


def _borrowing(board: Board, ask: Ask) -> list[str]:
    """Where only a reservation of somebody else is in the way."""
    if ask.shape.preemptible:
        return []
    need, found = board.need(ask.shape), []
    for i in sorted(board.finder.reserved):
        room = board.finder.room_for(ask, i)
        lacks = room is not None and room.lacks(need.resources, need.wish) is not None
        if need.met[i] and lacks and board.workers.fits(i, need):
            found.append(board.workers.places[i].worker_id)
    return [f"--preemptible: what is reserved and idle on {some(found)} is lent"] if found else []


def _ends(board: Board, ask: Ask) -> list[str]:
    """The first end of a task that runs where it could run."""
    workers = board.workers
    able = np.flatnonzero(workers.large_enough(board.need(ask.shape)))
    limits = workers.column("first_end")[able]
    # In a large fleet not everything is looked at: the first by its limit, else any of some.
    some_of = able[[int(np.argmin(limits))]] if np.isfinite(limits).any() else able[:LOOKED_AT]
    ends = [
        (one.ends is None, one.ends or one.started, one.id, workers.places[int(i)].worker_id)
        for i in some_of
        for one in workers.running[int(i)].values()
        if one.ours
    ]
    if not ends:
        return []
    _, _, task_id, worker_id = min(ends)
    return [f"the end of a task that runs now, such as {task_id} on {worker_id}"]


def _relaxed(board: Board, ask: Ask) -> list[str]:
    """Conditions of which one alone keeps it from workers that are large enough."""
    return [
        f"leaving out {flag}: {_workers(count)} large enough"
        for flag, shape in _without_one(ask.shape)
        if (count := _large(board, shape))
    ]


def _without_one(shape: Shape) -> Iterator[tuple[str, Shape]]:
    if shape.target is not None:
        yield f"the worker {shape.target}", replace(shape, target=None)
    if shape.nodes:
        yield f"--node {', '.join(shape.nodes)}", replace(shape, nodes=())
    for name, texts in (("require", shape.require), ("avoid", shape.avoid)):
        for text in texts:
            rest = tuple(one for one in texts if one != text)
            if name == "require":
                yield f"--require {text}", replace(shape, require=rest)
            else:
                yield f"--avoid {text}", replace(shape, avoid=rest)
    if shape.gpu_model is not None:
        yield f"the GPU model {shape.gpu_model}", replace(shape, gpu_model=None)


def _workers(count: int) -> str:
    return "1 worker is" if count == 1 else f"{count} workers are"


def _large(board: Board, shape: Shape) -> int:
    return sum(
        free is not None
        and free.could_hold(shape.resources, shape.wish)
        and meets(condition_of(shape), board.workers.facts[i])
        for i, free in enumerate(board.workers.free)
    )


def _never(board: Board, ask: Ask, closed: bool) -> list[str]:
    """No open worker is large enough: what is the most that one has. ``closed``: others might
    be."""
    frees = [
        free
        for i, free in enumerate(board.workers.free)
        if free is not None and meets(condition_of(ask.shape), board.workers.facts[i])
    ]
    if not frees:
        return [] if closed else ["a worker that meets all its conditions, or fewer of them"]
    found = [
        f"asking for at most {_plain(there)} {what}: no worker it may go to has more"
        for what, wanted, there in _most(ask, frees)
        if wanted > there
    ]
    return found or ["asking for less: no one worker has all of it"]


def _most(ask: Ask, frees: list[Free]) -> list[tuple[str, float, float]]:
    need, wish = ask.shape.resources, ask.shape.wish
    such = f"GPUs ({wish})" if wish != ANY else "GPUs"
    return [
        ("CPUs", need.cpus, max(free.total.cpus for free in frees)),
        ("GB of memory", need.memory_gib, max(_floor(free.total.memory_gib) for free in frees)),
        ("GB of disk", need.storage_gib, max(_floor(free.total.storage_gib) for free in frees)),
        (such, need.gpus, max(float(free.suiting(wish)) for free in frees)),
    ]


def _floor(value: float) -> float:
    return int(value * 10) / 10
