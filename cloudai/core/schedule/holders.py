"""Who has what a task lacks on one worker, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import floor

from cloudai.core.capacity import WHOLE, Device, Free, GpuUse, Use
from cloudai.core.gpus import ANY, Wish
from cloudai.core.model import GIB
from cloudai.core.wording import amount

from .snapshot import Running

SHOWN = 3
"""So many holders by name; the others together."""
OUTSIDE = "kept back or used outside cloudai"
Owners = Mapping[str, Running]
"""Everything that holds a part of the worker, by its id."""


def who_has(what: str, free: Free, running: Owners, need: int, wish: Wish) -> str:
    """``1 of 16 CPUs free, 12 held by task-1 (ann), 3 kept back``. ``what``: as ``Free.lacks``
    names it; ``need``: thousandths of GPUs."""
    if what == "GPU":
        return who_has_gpus(free, running, need, wish)
    if what == "CPU":
        held = {one.id: one.resources.cpus for one in running.values()}
        return _of_amounts(
            free.cpu / 1000, free.total.cpus, "CPUs", held, running, "kept back for the system"
        )
    if what == "memory":
        held = {one.id: one.resources.memory_gib for one in running.values()}
        have, total = free.memory / GIB, free.total.memory_gib
        return _of_amounts(have, total, "GB of memory", held, running, OUTSIDE)
    held = {one.id: one.resources.storage_gib for one in running.values()}
    have, total = free.storage / GIB, free.total.storage_gib
    return _of_amounts(have, total, "GB of disk", held, running, OUTSIDE)


def _of_amounts(
    have: float, total: float, unit: str, held: Mapping[str, float], running: Owners, rest: str
) -> str:
    have = max(0.0, have)
    parts = [f"{_rounded(have)} of {_rounded(total)} {unit} free"]
    holders = sorted(held.items(), key=lambda one: (-one[1], one[0]))
    holders = [(one, much) for one, much in holders if much > 0]
    for task_id, much in holders[:SHOWN]:
        parts.append(f"{_rounded(much)} held by {_whose(task_id, running)}")
    if others := holders[SHOWN:]:
        parts.append(f"{_rounded(sum(much for _, much in others))} by {len(others)} more")
    left = total - have - sum(held.values())
    if left >= 0.05:
        parts.append(f"{_rounded(left)} {rest}")
    return ", ".join(parts)


def _rounded(value: float) -> str:
    """At most one decimal, rounded down; what is less keeps what it has."""
    tenths = floor(value * 10 + 1e-6) / 10
    return amount(tenths or value, down=True).removesuffix(".0")


def _whose(task_id: str, running: Owners) -> str:
    one = running.get(task_id)
    if one is None or not one.user:
        return f"{task_id} (another cloudai)"
    return f"{task_id} ({one.user})" if one.ours else f"{task_id} ({one.user}, another cloudai)"


# ---------------------------------------------------------------- GPUs


def who_has_gpus(free: Free, running: Owners, need: int = WHOLE, wish: Wish = ANY) -> str:
    """``0 of 4 GPUs free, 2 held by task-1 (ann), 2 used outside cloudai by bob, pid 4242
    python train.py``. ``need``: thousandths that are asked for."""
    such = free.such(wish)
    if not free.gpus:
        return "it has no GPU"
    if not such:
        models = ", ".join(dict.fromkeys(use.gpu.model or "of no known model" for use in free.gpus))
        return f"none of its {len(free.gpus)} GPUs ({models}) is as asked: {wish}"
    devices = {device.uuid: (at, device) for at, device in enumerate(free.devices)}
    users = _Users(free, running)
    idle, stories = 0, Counter[str]()
    for use in such:
        at, device = devices.get(use.gpu.uuid, (-1, None))
        if device is not None and device.room == WHOLE:
            idle += 1
        else:
            stories[_of_one(use, device, users.of(use, at), running, free, need, wish)] += 1
    usable = min(idle, free.idle_left)
    noun = "MIG slices" if all(use.gpu.mig_parent for use in such) else "GPUs"
    asked = f" ({wish})" if wish != ANY else ""
    parts = [f"{usable} of {len(such)} {noun}{asked} free"]
    parts += [f"{count} {story}" for story, count in stories.items()]
    if idle > usable:
        parts.append(f"{idle - usable} kept free for people")
    return ", ".join(parts)


class _Users:
    """Which tasks have each device: as seen there, as the board knows, or what is only being
    started and has to be somewhere."""

    def __init__(self, free: Free, running: Owners) -> None:
        self._by_device: dict[int, list[str]] = {}
        seen = {task_id for use in free.gpus for task_id in use.tasks}
        self._unseen: list[str] = []
        for one in running.values():
            for at in one.devices:
                self._by_device.setdefault(at, []).append(one.id)
            if one.resources.gpu_milli and not one.devices and one.id not in seen:
                self._unseen += [one.id] * max(1, one.resources.gpu_milli // WHOLE)

    def of(self, use: GpuUse, at: int) -> list[str]:
        known = list(dict.fromkeys([*use.tasks, *self._by_device.get(at, ())]))
        if known or at < 0 or not self._unseen:
            return known
        return [self._unseen.pop(0) if len(self._unseen) > 1 else self._unseen[0]]


def _of_one(
    use: GpuUse,
    device: Device | None,
    tasks: Sequence[str],
    running: Owners,
    free: Free,
    need: int,
    wish: Wish,
) -> str:
    """What is with one GPU that is not idle."""
    if use.use is Use.BROKEN:
        return "broken"
    if use.use is Use.OUTSIDE or device is None:
        beside = f", next to {_names(tasks, running)}" if tasks else ""
        return f"used outside cloudai{_by(use)}{beside}"
    if not tasks:
        return "held by a task that is not known here"
    if device.room == 0 and len(tasks) == 1:
        return f"held by {_whose(tasks[0], running)}"
    left = f"{amount(device.room / WHOLE, down=True)} of it free"
    return f"shared by {_names(tasks, running)}, {left}{_not_shared(device, free, need, wish)}"


def _names(tasks: Sequence[str], running: Owners) -> str:
    named = [_whose(one, running) for one in tasks[:SHOWN]]
    if len(tasks) > SHOWN:
        named.append(f"{len(tasks) - SHOWN} more")
    return " and ".join(named)


def _by(use: GpuUse) -> str:
    them = [f"{one.user or 'somebody'}, pid {one.pid} {one.name}" for one in use.outsiders]
    if not them:
        return ": its memory is in use, by whom cannot be seen"
    more = f" and {len(them) - SHOWN} more" if len(them) > SHOWN else ""
    return f" by {'; '.join(them[:SHOWN])}{more}"


def _not_shared(device: Device, free: Free, need: int, wish: Wish) -> str:
    """Why a share is not to be had though so much of the device is free."""
    if need >= WHOLE or device.room < need:
        return ""
    if free.tasks_per_gpu is not None and device.sharers >= free.tasks_per_gpu:
        return f" but no more than {free.tasks_per_gpu} tasks may share one"
    if device.memory is not None and device.claim(need, wish.memory) > device.memory_left:
        left = _rounded(max(0, device.memory_left) / GIB)
        return f" but only {left} GB of its memory unclaimed"
    return ""


def some(ids: Sequence[str], at_most: int = SHOWN) -> str:
    """``w1, w2, w3 and 5 more``."""
    shown = ", ".join(ids[:at_most])
    return shown if len(ids) <= at_most else f"{shown} and {len(ids) - at_most} more"


def either(words: Iterable[str]) -> str:
    """``a``, ``a or b``."""
    return " or ".join(words)
