"""Where waiting tasks go: snapshot in, plan out, a reason for everything not placed. Pure.

The order is submission; a task goes to the worker that is left with the largest part of it
free; a task that does not fit now does not hold up the ones behind it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, floor

from .capacity import Free
from .model import Resources, Task


@dataclass(slots=True)
class Place:
    """A worker as the scheduler sees it: what is free, or why it takes no tasks now."""

    worker_id: str
    free: Free | None
    closed: str = ""
    """Why no task may go there (``draining``, ``unreachable since 12:03``), empty when open."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything a decision rests on."""

    queue: Sequence[Task]
    """In submission order."""
    places: Sequence[Place]
    refused: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """(task, worker) -> why that worker did not admit it a moment ago."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do, for someone else to carry out."""

    placements: Sequence[tuple[str, str]]
    """(task, worker), in the order in which they were decided."""
    waiting: Mapping[str, str]
    """task -> why it waits, in one line."""


def schedule(snapshot: Snapshot) -> Plan:
    """Places what fits now. Takes from the ``Free`` of the snapshot's places as it goes."""
    placements: list[tuple[str, str]] = []
    waiting: dict[str, str] = {}
    for task in snapshot.queue:
        fitting, reasons = _candidates(task, snapshot)
        if fitting:
            best = max(fitting, key=lambda place: _left(place, task.spec.resources))
            assert best.free is not None
            best.free.take(task.spec.resources)
            placements.append((task.id, best.worker_id))
        else:
            waiting[task.id] = say_why(task, reasons, len(snapshot.places))
    return Plan(placements, waiting)


def _candidates(task: Task, snapshot: Snapshot) -> tuple[list[Place], dict[str, str]]:
    fitting: list[Place] = []
    reasons: dict[str, str] = {}
    for place in snapshot.places:
        if task.spec.target not in (None, place.worker_id):
            continue
        why = why_not(task, place, snapshot.refused)
        if why:
            reasons[place.worker_id] = why
        else:
            fitting.append(place)
    return fitting, reasons


def why_not(task: Task, place: Place, refused: Mapping[tuple[str, str], str]) -> str:
    """Why the task cannot go to that worker now; empty when it can."""
    if place.closed or place.free is None:
        return place.closed or "not seen yet"
    lack = place.free.lacks(task.spec.resources)
    if lack is not None:
        return insufficient(*lack)
    return refused.get((task.id, place.worker_id), "")


def insufficient(what: str, available: float, required: float) -> str:
    """Seed 000's words: ``Insufficient CPU: worker has 4.0 available, task requires 100.0``."""
    return (
        f"Insufficient {what}: worker has {amount(available, down=True)} available,"
        f" task requires {amount(required)}"
    )


def amount(value: float, *, down: bool = False) -> str:
    """One decimal where that is the truth, else as many as it takes, at most three.

    What is available is rounded down, so that a message never says that 0.5 of 0.5 is too
    little.
    """
    thousandths = floor(value * 1000 + 1e-6) if down else ceil(value * 1000 - 1e-6)
    text = f"{thousandths / 1000:.3f}".rstrip("0")
    return text + "0" if text.endswith(".") else text


def _left(place: Place, need: Resources) -> tuple[float, float]:
    """How much of the worker would be free afterwards: its scarcest part, then all of it.

    A task without GPUs goes rather where no GPUs are, so that they stay reachable.
    """
    assert place.free is not None
    free, total = place.free.free - need, place.free.total
    parts = [
        free.cpu_milli / max(1, total.cpu_milli),
        free.memory / max(1, total.memory),
    ]
    if need.gpu_milli:
        parts.append(free.gpu_milli / max(1, total.gpu_milli))
    elif total.gpu_milli:
        parts.append(0.0)
    return min(parts), sum(parts)


def say_why(task: Task, reasons: Mapping[str, str], workers: int) -> str:
    """Why a task waits, in one line, workers with the same reason together. A task for one
    worker needs no name before its reason."""
    if not workers:
        return "no workers in the inventory; `cloudai register ID HOST` adds one"
    if not reasons:
        return f"Worker {task.spec.target} not found"
    if task.spec.target is not None:
        return reasons[task.spec.target]
    grouped: dict[str, list[str]] = {}
    for worker_id, reason in reasons.items():
        grouped.setdefault(reason, []).append(worker_id)
    return "; ".join(f"{_some(ids)}: {reason}" for reason, ids in grouped.items())


def _some(ids: Sequence[str], at_most: int = 3) -> str:
    shown = ", ".join(ids[:at_most])
    return shown if len(ids) <= at_most else f"{shown} and {len(ids) - at_most} more"
