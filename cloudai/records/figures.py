"""What a batch comes to: how its tasks ended, where, how long they took."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from .reading import OUTCOMES, Task, entry_of, label_of, moment, outcome_of, seconds_of

SLOWEST = 5
NO_CODE = "none"
LEFT_OUT = "left out: "
"""How the reason of one that was left out begins."""
UNKNOWN = "no reason is known"

Batch = Mapping[str, Any]


@dataclass(slots=True)
class Share:
    """What one worker did of it, or what one entry of the file came to."""

    name: str
    tasks: int = 0
    """Of a worker: those that were last there."""
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    skipped: int = 0
    seconds: float = 0.0
    """Of running, of all tasks together."""
    ran: int = 0
    """How many of them ever ran."""

    @property
    def ended(self) -> int:
        return self.completed + self.failed + self.cancelled + self.skipped

    @property
    def mean(self) -> float | None:
        """Seconds."""
        return self.seconds / self.ran if self.ran else None

    def count(self, task: Task, now: datetime | None) -> None:
        self.tasks += 1
        outcome = outcome_of(task)
        if outcome in OUTCOMES:
            setattr(self, outcome, getattr(self, outcome) + 1)
        if (seconds := seconds_of(task, now)) is not None:
            self.seconds += seconds
            self.ran += 1

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "tasks": self.tasks,
            **{outcome: getattr(self, outcome) for outcome in OUTCOMES},
            "seconds": round(self.seconds, 3),
            "mean_seconds": None if self.mean is None else round(self.mean, 3),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """All of it. Counts are of the tasks that were given; ``whole`` adds up to ``tasks``."""

    tasks: int
    counts: dict[str, int]
    """By outcome, in the order of ``OUTCOMES``, then by the status of those that go on."""
    by_exit_code: dict[str, int]
    """Of those that failed or completed; ``none``: where there is no exit code."""
    whole: Share
    workers: list[Share]
    entries: list[Share]
    """In the order of the batch."""
    slowest: list[Task]
    failed: list[Task]
    """Those that failed or were cancelled, in the order of the batch."""
    left_out: dict[str, list[str]]
    """Why tasks were skipped, and which (their labels)."""
    tried_again: int
    """Tasks that ended badly at least once and were tried again."""
    tries: int
    """How often that was."""
    elapsed: float | None
    """Seconds from the first start to the last end, or until now."""

    @property
    def ended(self) -> int:
        return self.whole.ended

    @property
    def mean(self) -> float | None:
        return self.whole.mean

    def as_json(self) -> dict[str, Any]:
        """The same input makes the same JSON, to the byte."""
        return {
            "tasks": self.tasks,
            "counts": self.counts,
            "by_exit_code": self.by_exit_code,
            "workers": [one.as_json() for one in self.workers],
            "entries": [one.as_json() for one in self.entries],
            "slowest": [
                {
                    "task_id": task["task_id"],
                    "label": label_of(task),
                    "worker_id": task.get("worker_id"),
                    "seconds": _rounded(seconds_of(task)),
                }
                for task in self.slowest
            ],
            "skipped": [{"reason": why, "tasks": who} for why, who in self.left_out.items()],
            "tried_again": self.tried_again,
            "tries": self.tries,
            "elapsed_seconds": _rounded(self.elapsed),
            "total_seconds": round(self.whole.seconds, 3),
            "mean_seconds": _rounded(self.mean),
        }


def figures_of(tasks: Sequence[Task], now: datetime | None = None) -> Figures:
    """What these tasks, in the order of their batch, come to; those that run count until
    ``now``, where it is given."""
    statuses = Counter(outcome_of(task) for task in tasks)
    others = sorted(set(statuses) - set(OUTCOMES))
    whole = Share("")
    for task in tasks:
        whole.count(task, now)
    timed = [task for task in tasks if outcome_of(task) in OUTCOMES and seconds_of(task)]
    return Figures(
        tasks=len(tasks),
        counts={word: statuses[word] for word in (*OUTCOMES, *others)},
        by_exit_code=_by_exit_code(tasks),
        whole=whole,
        workers=sorted(
            _shares(((task.get("worker_id"), task) for task in tasks), now),
            key=lambda one: (-one.tasks, one.name),
        ),
        entries=_shares(((entry_of(task), task) for task in tasks), now),
        slowest=sorted(timed, key=lambda task: -(seconds_of(task) or 0))[:SLOWEST],
        failed=[task for task in tasks if outcome_of(task) in ("failed", "cancelled")],
        left_out=_left_out(tasks),
        tried_again=sum(1 for task in tasks if task.get("failures")),
        tries=sum(task.get("failures") or 0 for task in tasks),
        elapsed=_elapsed(tasks, now),
    )


def _shares(keyed: Iterable[tuple[object, Task]], now: datetime | None) -> list[Share]:
    found: dict[str, Share] = {}
    for key, task in keyed:
        if key:
            found.setdefault(str(key), Share(str(key))).count(task, now)
    return list(found.values())


def _by_exit_code(tasks: Sequence[Task]) -> dict[str, int]:
    codes = Counter(
        task.get("exit_code") for task in tasks if outcome_of(task) in ("completed", "failed")
    )
    known = sorted(code for code in codes if code is not None)
    told = {str(code): codes[code] for code in known}
    return {**told, NO_CODE: codes[None]} if None in codes else told


def _left_out(tasks: Sequence[Task]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for task in tasks:
        if outcome_of(task) == "skipped":
            why = str(task.get("reason") or UNKNOWN).removeprefix(LEFT_OUT)
            found.setdefault(why, []).append(label_of(task))
    return found


def _elapsed(tasks: Sequence[Task], now: datetime | None) -> float | None:
    starts = [at for task in tasks if (at := moment(task.get("started_at")))]
    if not starts:
        return None
    ends = [at for task in tasks if (at := moment(task.get("completed_at")))]
    live = any(outcome_of(task) not in OUTCOMES for task in tasks)
    last = now if live else max(ends, default=None)
    return None if last is None else max(0.0, (last - min(starts)).total_seconds())


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
