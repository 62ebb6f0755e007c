"""Whether a task that ended badly is tried again, and when. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta

from .model import Cause, Task

FIRST_PAUSE = 10.0
"""Seconds until the second try; doubled for each further one."""
LONGEST_PAUSE = 600.0
"""Seconds at the most."""


def cause_of(exit_code: int | None, *, oom_killed: bool) -> Cause:
    """Why a container that really ran ended badly."""
    if exit_code is None:
        return Cause.LOST
    return Cause.OOM if oom_killed else Cause.EXIT


def tries_again(task: Task, cause: Cause, exit_code: int | None = None) -> bool:
    """Whether an end by this cause, or with this exit code, is one to be tried again after.

    A dispatched task never waits in a queue, so it never is.
    """
    if task.direct or task.failures >= task.spec.retries:
        return False
    wanted = task.spec.retry_on
    if not wanted or cause in wanted:
        return True
    return exit_code is not None and str(exit_code) in wanted


def tries_elsewhere(task: Task) -> bool:
    """Whether it is tried again while its given-up container may still run where nobody sees
    it: twice at once is for its owner alone to allow, so ``lost`` must be named."""
    return Cause.LOST in task.spec.retry_on and tries_again(task, Cause.LOST)


def pause(failures: int) -> timedelta:
    """How long a task waits after so many bad ends, the first of them 1."""
    return timedelta(seconds=min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(failures - 1, 16)))


def next_try(task: Task, why: str, not_before: datetime) -> str:
    """Why a task waits that ended badly: ``exit code 1; try 2 of 4 at 12:03:10 UTC``.

    ``task`` as it stood when that happened.
    """
    number, most = task.failures + 2, task.spec.retries + 1
    return f"{why}; try {number} of {most} at {not_before:%H:%M:%S} UTC"
