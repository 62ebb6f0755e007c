"""What keeps tasks from being placed though there may be room: what they need has not ended,
or as many elements of their array hold a place as may at once.

How the tasks of a reference stand is asked of the store once, and again only after one of them
ended: a batch may have a hundred thousand tasks that wait.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime

from cloudai.core.lifecycle import Unmet
from cloudai.core.model import OnUnmet, Task
from cloudai.core.needs import Tally, Unmeetable, Waits, needs_of, weigh
from cloudai.service import Service


class Needs:
    """One for a controller. Told of every change, so that what it remembers is true."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._tallies: dict[str, Tally] = {}
        self._stale: set[str] = set()
        """What changed while it was being counted."""

    def changed(self, task: Task) -> None:
        """A task has ended, or stands otherwise: what was counted of it is counted anew."""
        spec = task.spec
        for ref in (task.id, spec.array, spec.batch, f"{spec.batch}/{spec.entry}"):
            if ref is not None:
                self._tallies.pop(ref, None)
                self._stale.add(ref)

    async def look(
        self, waiting: Sequence[Task], active: Iterable[Task], now: datetime
    ) -> tuple[dict[str, str], list[tuple[str, Unmet]]]:
        """Why tasks are not to be placed yet, by id; and those that never will be."""
        tallies = await self._count(waiting)
        held = _over_their_limit(waiting, active)
        never: list[tuple[str, Unmet]] = []
        for task in waiting:
            if not task.spec.after:
                continue
            match weigh(task.spec, tallies):
                case Unmeetable(why=why):
                    skip = task.spec.on_unmet is OnUnmet.SKIP
                    never.append((task.id, Unmet(at=now, reason=why, skip=skip)))
                    held[task.id] = why
                case Waits(why=why):
                    held[task.id] = why
                case None:
                    pass
        return held, never

    async def _count(self, waiting: Iterable[Task]) -> dict[str, Tally]:
        wanted = {need.ref for task in waiting if task.spec.after for need in needs_of(task.spec)}
        for gone in self._tallies.keys() - wanted:
            del self._tallies[gone]
        counted = dict(self._tallies)
        if new := wanted - counted.keys():
            self._stale.clear()
            store = self._service.store
            found = await self._service.in_thread(store.tallies, sorted(new))
            counted |= found
            self._tallies |= {ref: one for ref, one in found.items() if ref not in self._stale}
        return counted


def _over_their_limit(waiting: Iterable[Task], active: Iterable[Task]) -> dict[str, str]:
    """Elements that wait for others of their array (``--array 0-99%10``); those of the lowest
    indexes, as they were submitted, go first."""
    holding: Counter[str] = Counter()
    for task in active:
        if task.spec.array is not None and task.spec.array_limit and task.state.assigned:
            holding[task.spec.array] += 1
    held: dict[str, str] = {}
    for task in waiting:
        array, limit = task.spec.array, task.spec.array_limit
        if array is None or not limit:
            continue
        if holding[array] >= limit:
            held[task.id] = f"{limit} of its array run, and no more are to at once"
        else:
            holding[array] += 1
    return held
