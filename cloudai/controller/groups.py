"""Placement groups on the way to their workers: who is where, and who has to come back.

A group is placed as a whole; a worker may still refuse one of it. Then the others come back,
so that no part of a group holds anything for long.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from cloudai.core.model import State, Task
from cloudai.core.schedule import Plan

ON_THE_WAY = (State.STARTING, State.RUNNING)


def comes_again(task: Task) -> bool:
    """A member that was on its way with all others and failed, or was lost: that is its own
    affair, and it is placed alone."""
    held = task.assignment
    return task.failures > 0 or (held is not None and held.lost)


class Groups:
    """Where the members of each group were sent."""

    def __init__(self) -> None:
        self._workers: dict[str, dict[int, str]] = {}

    def laid_out(self, plan: Plan, tasks: Mapping[str, Task]) -> None:
        """Remembers a plan before any of it is carried out: each member is told its peers."""
        for placing in plan.placements:
            task = tasks[placing.task_id]
            if task.spec.group is not None:
                ranks = self._workers.setdefault(task.spec.group, {})
                ranks[task.spec.group_rank] = placing.worker_id

    def workers(self, task: Task, active: Iterable[Task]) -> tuple[str, ...]:
        """The workers of a task's group by rank; empty where it is in none."""
        group = task.spec.group
        if group is None:
            return ()
        ranks = {
            one.spec.group_rank: one.worker_id
            for one in active
            if one.spec.group == group and one.worker_id is not None
        }
        ranks |= self._workers.get(group, {})
        return tuple(ranks[rank] or "" for rank in sorted(ranks))

    def half_started(self, active: Sequence[Task], busy: Collection[str]) -> list[tuple[Task, str]]:
        """Members that are on workers while another of their group waits again. ``busy``: those
        about which something is just being done."""
        groups: dict[str, list[Task]] = {}
        for task in active:
            if task.spec.group is not None and not task.direct:
                groups.setdefault(task.spec.group, []).append(task)
        back: list[tuple[Task, str]] = []
        for members in groups.values():
            waits = [
                one
                for one in members
                if one.state is State.QUEUED and one.id not in busy and not comes_again(one)
            ]
            there = [one for one in members if one.state in ON_THE_WAY]
            if waits and there:
                why = f"{waits[0].id} of its group was not admitted: {waits[0].reason}"
                back += [(one, why) for one in there]
        for group in list(self._workers.keys() - groups.keys()):
            del self._workers[group]
        return back
