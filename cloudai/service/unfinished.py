"""All that is not finished, kept at hand: the loop looks at it in every pass, and a queue of a
hundred thousand would take seconds to read each time.

It is what the store holds and no more: read once, changed by what was written and is on the disk,
and read anew after a write that failed. There is one writer, so nothing else can change it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from cloudai.core.model import Task
from cloudai.store import Store


class Unfinished:
    """Belongs to the store's thread."""

    def __init__(self, store: Store) -> None:
        """Reads all of it."""
        self._store = store
        self._active = {task.id: task for task in store.active()}
        self._out = {task.id for task in store.unharvested()}
        """Tasks that may have an assignment that is over, and whose log or container is still on
        a worker."""

    def active(self) -> list[Task]:
        """All tasks that have not ended, in the order of submission."""
        return list(self._active.values())

    def unharvested(self) -> list[Task]:
        """As ``Store.unharvested``."""
        found = self._store.unharvested(self._out) if self._out else []
        self._out = {task.id for task in found}
        return found

    def come(self, tasks: Iterable[Task]) -> None:
        """They were stored. One that is known is older than what is known of it."""
        for task in tasks:
            if not task.state.final:
                self._active.setdefault(task.id, task)

    def moved(self, task: Task) -> None:
        """It now stands so."""
        if task.state.final:
            self._active.pop(task.id, None)
        else:
            self._active[task.id] = task
        held = task.assignment
        if held is not None and held.ended_at is not None and not held.harvested:
            self._out.add(task.id)

    def harvested(self, task_id: str, number: int) -> None:
        """That assignment's log is home and its container is gone."""
        task = self._active.get(task_id)
        if task is not None and task.assignment and task.assignment.number == number:
            held = replace(task.assignment, harvested=True)
            self._active[task_id] = replace(task, assignment=held)
