"""Workers on which nothing can be started: set aside for a while, and tried again."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from .fleet import local_clock

IN_A_ROW = 3
"""So many starts that fail one after the other, of different tasks, set a worker aside."""
FIRST_PAUSE = 60.0
LONGEST_PAUSE = 3600.0
"""Seconds; doubled each time that the first start after a pause fails too."""
OF_THE_TASK = (126, 127)
"""Exit codes that say that the command is wrong, wherever it is tried."""


@dataclass(slots=True)
class Setback:
    """What went wrong on one worker lately."""

    tasks: tuple[str, ...] = ()
    why: str = ""
    pause: float = FIRST_PAUSE
    until: float = float("-inf")
    """Monotonic."""


class Setbacks:
    """Counts starts that failed, by worker. In memory alone: after a restart all may try."""

    def __init__(self) -> None:
        self._of: dict[str, Setback] = {}

    def started(self, worker_id: str) -> None:
        """Something could be started there: all is well."""
        self._of.pop(worker_id, None)

    def failed(self, worker_id: str, task_id: str, why: str, exit_code: int | None = None) -> None:
        """A start there failed. What the task itself is to blame for does not count."""
        if exit_code in OF_THE_TASK:
            return
        setback = self._of.setdefault(worker_id, Setback())
        setback.why = why
        if task_id not in setback.tasks:
            setback.tasks = (*setback.tasks, task_id)[-IN_A_ROW:]
        if len(setback.tasks) >= IN_A_ROW and time.monotonic() >= setback.until:
            setback.until = time.monotonic() + setback.pause
            setback.pause = min(LONGEST_PAUSE, 2 * setback.pause)

    def set_aside(self) -> dict[str, str]:
        """Workers that take no tasks for this, and why, in words."""
        return {
            worker_id: f"set aside until {_clock(one.until)}: {IN_A_ROW} tasks in a row could not"
            f" be started there, the last: {one.why}"
            for worker_id, one in self._of.items()
            if one.until > time.monotonic()
        }


def _clock(until: float) -> str:
    return local_clock(datetime.now(UTC) + timedelta(seconds=until - time.monotonic()))
