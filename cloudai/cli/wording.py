"""Numbers, times and ends of tasks in words for people. Pure but for the local time zone."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from cloudai.records.reading import exit_code_of as exit_code_of
from cloudai.records.reading import is_final as is_final
from cloudai.records.reading import moment as moment

NOTHING = "-"

Task = Mapping[str, Any]


def amount(value: float | None, digits: int = 1) -> str:
    """``12``, ``12.5``, or ``-`` for what is not known."""
    if value is None:
        return NOTHING
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def span(seconds: float) -> str:
    """``12s``, ``4min``, ``2h05``, ``3d``: without a space, for tables."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}min"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}"
    return f"{whole // 86400}d"


def long_span(seconds: float) -> str:
    """``12 s``, ``4 min``, ``2 h 5 min``, ``3 d``: for sentences."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min"
    if whole < 86400:
        minutes = whole % 3600 // 60
        return f"{whole // 3600} h" + (f" {minutes} min" if minutes else "")
    return f"{whole // 86400} d"


def local(text: str | None, *, now: datetime | None = None) -> str:
    """An API time on this machine's clock, short: ``12:03`` today and around midnight, else
    ``31 Jan 12:03``, or ``2025-01-31``."""
    at = moment(text)
    if at is None:
        return NOTHING
    here = at.astimezone()
    today = (now or datetime.now().astimezone()).astimezone()
    if here.date() == today.date() or abs(today - here) < timedelta(hours=12):
        return here.strftime("%H:%M")
    return here.strftime("%d %b %H:%M" if here.year == today.year else "%Y-%m-%d")


def clock(text: str | None) -> str:
    """An API time on this machine's clock, to the second, for timelines."""
    at = moment(text)
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S") if at else NOTHING


def seconds_since(text: str | None, *, now: datetime | None = None) -> float | None:
    """Seconds from an API time to now."""
    at = moment(text)
    if at is None:
        return None
    return ((now or datetime.now().astimezone()) - at).total_seconds()


def age(text: str | None) -> str:
    """How long ago an API time was, for tables."""
    seconds = seconds_since(text)
    return NOTHING if seconds is None else span(seconds)


def since(text: str | None) -> str:
    """``since 12:03 (4 min)``, or nothing where there is no time."""
    seconds = seconds_since(text)
    return "" if seconds is None else f"since {local(text)} ({long_span(seconds)})"


def took(task: Task) -> float | None:
    """Seconds a task has run, so far or in all; ``None`` if it never did."""
    start, end = moment(task.get("started_at")), moment(task.get("completed_at"))
    if start is None:
        return None
    return ((end or datetime.now().astimezone()) - start).total_seconds()


NORMAL = 50
_PRIORITIES = {25: "low", 75: "high", 100: "urgent"}


def priority_of(task: Task) -> str | None:
    """``high (75)``, ``60``; nothing for the normal one."""
    number = task.get("priority", NORMAL)
    if number == NORMAL:
        return None
    word = _PRIORITIES.get(number)
    return f"{word} ({number})" if word else str(number)


def counted_tasks(count: int) -> str:
    """``1 task``, ``7 tasks``."""
    return "1 task" if count == 1 else f"{count} tasks"


def result(task: Task) -> str:
    """How a final task ended, in a line."""
    task_id, status, reason = task["task_id"], task["status"], task.get("reason")
    seconds = took(task)
    if status == "completed":
        return f"✅ Task {task_id} completed" + (
            "" if seconds is None else f" in {long_span(seconds)}"
        )
    if status == "cancelled":
        why = f": {reason}" if reason and reason != "cancelled" else ""
        return f"❌ Task {task_id} was cancelled{why}"
    return f"❌ Task {task_id} failed: {reason or 'no reason is known'}"


def standing(task: Task) -> str:
    """What a task that has not started is waiting for, in a line."""
    if task.get("status") == "starting":
        return f"starting on {task.get('worker_id')}: {task.get('phase') or 'starting'}"
    return f"{task.get('status')}: {task.get('reason') or 'waiting for a worker'}"
