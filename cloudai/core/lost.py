"""When a worker that cannot be reached costs a task its place there. Pure.

=======  =================================  ==============================================
on_lost  out of reach for ``lost_after``    anything else
=======  =================================  ==============================================
wait     –                                  –
requeue  Lost: back to the queue            –
fail     Lost: failed                       –
=======  =================================  ==============================================

Out of reach counts only while this controller was awake and trying and some other worker
answered: where all are silent at once it is our own network, and where this machine slept
nobody was looking.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from datetime import datetime

from .lifecycle import Lost
from .model import OnLost, Task
from .units import show_duration

LONGEST_STEP = 10.0
"""Seconds between two looks at the clock beyond which this process was stopped."""
CLOCKS_APART = 5.0
"""Seconds by which the time of day may move otherwise than the clock that never jumps; more,
and the machine slept, or its clock was set."""


def was_asleep(*, elapsed: float, wall: float) -> bool:
    """Whether nobody was awake between two looks at both clocks, so many seconds apart each."""
    return elapsed > LONGEST_STEP or abs(wall - elapsed) > CLOCKS_APART


def count_absence(
    counted: Mapping[str, float], *, away: Set[str], heard: bool, elapsed: float, wall: float
) -> dict[str, float]:
    """Seconds for which each worker of ``away`` counts as out of reach, from what was counted
    until ``elapsed`` seconds ago.

    ``heard``: some other worker answered. Sleep starts the measure anew; a worker that is not
    in ``away`` is forgotten.
    """
    if was_asleep(elapsed=elapsed, wall=wall):
        return dict.fromkeys(away, 0.0)
    step = elapsed if heard else 0.0
    return {worker: counted[worker] + step if worker in counted else 0.0 for worker in away}


def given_up(task: Task, absent: float, now: datetime) -> Lost | None:
    """The end of an assignment whose worker counts as out of reach for ``absent`` seconds, or
    ``None`` while nothing is to happen by itself."""
    spec, held = task.spec, task.assignment
    if held is None or not task.state.assigned or spec.on_lost is OnLost.WAIT:
        return None
    if absent < spec.lost_after:
        return None
    after = show_duration(spec.lost_after)
    return Lost(
        at=now,
        number=held.number,
        reason=f"worker {held.worker_id} could not be reached for {after}",
        requeue=spec.on_lost is OnLost.REQUEUE,
    )


def marked_lost(task: Task, now: datetime) -> Lost:
    """A person's word that an assigned task's worker, or its container there, is gone for good.
    ``wait`` counts as ``fail``: there is nothing left to wait for."""
    assert task.assignment is not None
    return Lost(
        at=now,
        number=task.assignment.number,
        reason=f"marked as lost: {task.assignment.worker_id} is gone for good, a person says",
        requeue=task.spec.on_lost is OnLost.REQUEUE,
    )
