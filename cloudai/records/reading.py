"""What the API's JSON of a task says, in the words of reports."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

Task = Mapping[str, Any]

FINAL = ("completed", "failed", "cancelled")
OUTCOMES = ("completed", "failed", "cancelled", "skipped")
STOPPED_BY_US = 125
"""Stands for the exit code of a task that has none to trust."""


def moment(text: str | None) -> datetime | None:
    """An API time; ``None`` for none and for what cannot be read."""
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else None


def is_final(task: Task) -> bool:
    """Whether it has ended, or was left out."""
    return task.get("status") in FINAL


def outcome_of(task: Task) -> str:
    """Its status; ``skipped`` for one that was left out, since what it needs did not end so."""
    return "skipped" if task.get("skipped") else str(task.get("status"))


def exit_code_of(task: Task) -> int:
    """What a command ends with that ends with its task: the task's own exit code, or 125
    where cloudai failed or stopped it. One that was left out counts for nothing: 0."""
    outcome = outcome_of(task)
    if outcome in ("completed", "skipped"):
        return 0
    if outcome == "cancelled":
        return STOPPED_BY_US
    return task.get("exit_code") or STOPPED_BY_US


def seconds_of(task: Task, now: datetime | None = None) -> float | None:
    """Seconds that it ran, in its last try; until ``now`` where it runs. ``None``: it never
    started, or runs and no ``now`` is given."""
    start, end = moment(task.get("started_at")), moment(task.get("completed_at")) or now
    if start is None or end is None:
        return None
    return max(0.0, (end - start).total_seconds())


def label_of(task: Task) -> str:
    """What people call it: its name, or its entry in the batch's file, with its index where it
    is one of an array; else its id."""
    name = task.get("name") or task.get("entry")
    if not name:
        return str(task.get("task_id"))
    return f"{name}[{task['array_index']}]" if task.get("array") else str(name)


def entry_of(task: Task) -> str:
    """What stands for it where tasks are counted together: its entry, else itself."""
    return str(task.get("entry") or task.get("task_id"))
