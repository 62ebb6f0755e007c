"""All workers in columns: what fits where, found without asking each of them.

Scalars live in lists, which Python reads fast; numpy copies of them are brought up to date when
a question is about all workers at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import lru_cache
from heapq import heapify, heappop, heappush, heapreplace

import numpy as np
import numpy.typing as npt

from cloudai.core.capacity import WHOLE, Free
from cloudai.core.gpus import ANY, Wish
from cloudai.core.labels import meets_any, parse
from cloudai.core.model import Resources

from .snapshot import Place, Running, Shape

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Indexes = npt.NDArray[np.intp]
Condition = tuple[str | None, tuple[str, ...], tuple[str, ...], tuple[str, ...]]
"""What of a shape a worker meets or not whatever is free there: target, nodes, require, avoid."""


def condition_of(shape: Shape) -> Condition:
    return shape.target, shape.nodes, shape.require, shape.avoid


UNCONDITIONAL: Condition = (None, (), (), ())
OF_FREE = ("cpu", "memory", "storage")
OF_TOTAL = ("total_cpu", "total_memory", "total_storage")
NOTHING_AT_ALL = Resources()
OUT = float("inf")
NO_GPU_WANTED = 1.0
TASK = 4.0
"""What one more task on a worker counts in ``ranks``; all else only decides between equals."""
LOG_LENGTH = 4096


class View:
    """What each worker has for one wish of GPUs: whole devices, and the best share."""

    def __init__(self, wish: Wish) -> None:
        self.wish = wish
        self.whole: list[int] = []
        self.best: list[int] = []
        self.names = (f"whole {wish}", f"best {wish}", f"suiting {wish}")
        self.suiting: list[int] = []
        """Devices that would do, whoever has them."""

    def write(self, i: int, free: Free | None) -> None:
        """The worker's new figures."""
        if i == len(self.whole):
            for column in (self.whole, self.best, self.suiting):
                column.append(0)
        if free is None:
            self.whole[i] = self.best[i] = self.suiting[i] = 0
        else:
            self.whole[i], self.best[i] = free.gpu_rooms(self.wish) if free.devices else (0, 0)
            self.suiting[i] = free.suiting(self.wish)


class Need:
    """A shape made ready: its figures, and what each worker is to it."""

    __slots__ = (
        *("shape", "resources", "wish", "cpu", "memory", "storage", "whole", "share"),
        *("met", "view"),
    )

    def __init__(self, shape: Shape, met: bytearray, view: View) -> None:
        self.shape = shape
        self.resources = shape.resources
        self.wish = shape.wish
        self.cpu = shape.resources.cpu_milli
        self.memory = shape.resources.memory
        self.storage = shape.resources.storage
        self.whole, self.share = divmod(shape.resources.gpu_milli, WHOLE)
        """Whole GPUs, or thousandths of one."""
        self.met = met
        """For each worker, whether it meets what is asked whatever is free there."""
        self.view = view


class Line:
    """Workers in the order of a ranking that no task's shape changes: the first that fits is
    the best. A heap whose entries may be older than the truth: a task that comes only makes a
    worker stand further back, which is found out when it would be its turn.
    """

    def __init__(
        self,
        keys: list[float],
        *,
        room: list[int] | None = None,
        at_least: int = 1,
        renew: Callable[[int], float] | None = None,
    ) -> None:
        """``keys``: lower is better, infinite: not in line. ``room``: only those with
        ``at_least`` so much of it are in line. ``renew``: a worker's key, for a list of the
        line's own; without it, ``keys`` is kept by others."""
        self.keys = keys
        self.room = room
        self.at_least = at_least
        self._renew = renew
        if renew is not None:
            keys[:] = [renew(i) for i in range(len(keys))]
        self._known = [self.key(i) for i in range(len(keys))]
        """The key of each worker's entry in the heap."""
        self._heap = [(key, i) for i, key in enumerate(self._known) if key < OUT]
        heapify(self._heap)
        self._column: Floats | None = None
        self._seen = (0, 0)
        """Up to where of the log of changes the column is right: epoch and entry."""

    def key(self, i: int) -> float:
        """How good the worker is; infinite where it is not in line."""
        if self.room is not None and self.room[i] < self.at_least:
            return OUT
        return self.keys[i]

    def write(self, i: int) -> None:
        """The worker changed otherwise than by a task that came."""
        self.renew(i)
        if i == len(self._known):
            self._known.append(OUT)
        key = self.key(i)
        if key < self._known[i]:
            self._known[i] = key
            heappush(self._heap, (key, i))

    def renew(self, i: int) -> None:
        """Works out the worker's key anew, where that is this line's business."""
        if self._renew is not None:
            if i == len(self.keys):
                self.keys.append(OUT)
            self.keys[i] = self._renew(i)

    @property
    def renews(self) -> bool:
        return self._renew is not None

    def first(self, fits: Callable[[int], bool], at_most: int) -> int | None:
        """The first that fits, where it is among the first ``at_most``."""
        passed: list[tuple[float, int]] = []
        heap, known, found = self._heap, self._known, None
        keys, room, at_least = self.keys, self.room, self.at_least
        while heap and len(passed) < at_most:
            was, i = heap[0]
            if known[i] != was:
                heappop(heap)  # it came nearer since, and stands there
                continue
            key = keys[i]
            if room is not None and room[i] < at_least:
                key = OUT
            if key != was:
                known[i] = key
                if key < OUT:
                    heapreplace(heap, (key, i))
                else:
                    heappop(heap)
                continue
            if fits(i):
                found = i
                break
            passed.append(heappop(heap))
        for entry in passed:
            heappush(heap, entry)
        return found

    def column(self, log: list[int], epoch: int) -> Floats:
        """The keys as an array; not in line is infinity. ``log``: workers that changed since
        the epoch began."""
        if self._column is None or len(self._column) != len(self.keys) or self._seen[0] != epoch:
            self._column = np.array([self.key(i) for i in range(len(self.keys))])
        else:
            for i in set(log[self._seen[1] :]):
                self._column[i] = self.key(i)
        self._seen = (epoch, len(log))
        return self._column


class Workers:
    """The fleet, as far as a scheduler looks at it. Indexes are stable while a worker is there."""

    def __init__(self) -> None:
        self.index: dict[str, int] = {}
        self.places: list[Place] = []
        self.free: list[Free | None] = []
        """``None``: closed, or not seen."""
        self.running: list[dict[str, Running]] = []
        self.at: dict[str, int] = {}
        """task -> the worker that it holds a part of."""
        self.named: dict[str, Counter[int]] = {}
        """name of a task -> workers on which such are."""
        self.tasks: list[int] = []
        self.busy: list[float] = []
        """The part in use of whatever is used most there, 0 to 1."""
        self.ranks: list[float] = []
        """How full each is, for tasks that are to be spread: by tasks, then by what is in use;
        infinite where none may go."""
        self.ranks_without: list[float] = []
        """The same for tasks without GPUs, which go rather where none are."""
        self.lines: dict[object, Line] = {}
        self.plain = View(ANY)
        """What there is for who will have any GPU: never less than for a wish."""
        self.views: dict[Wish, View] = {ANY: self.plain}
        self.cpu: list[int] = []
        self.memory: list[int] = []
        self.storage: list[int] = []
        self.soft: set[int] = set()
        """Workers with tasks that are being stopped, or could be for another."""
        self.log: list[int] = []
        """Workers whose free part changed, in that order, since the epoch began."""
        self.epoch = 0
        self.kind_of: list[int] = []
        self.unsorted: set[int] = set()
        """Workers of which ``packing`` does not know the kind."""
        self.total_cpu = 0
        self.total_memory = 0
        self.total_gpu = 0
        self.facts: list[dict[str, tuple[str, ...]]] = []
        self._conditions: dict[Condition, bytearray] = {UNCONDITIONAL: bytearray()}
        self._columns: dict[str, Floats] = {}
        self._stale: set[int] = set()

    def __len__(self) -> int:
        return len(self.places)

    @property
    def totals(self) -> tuple[int, int, int]:
        """Thousandths of cores, bytes, thousandths of GPUs of all open workers."""
        return self.total_cpu, self.total_memory, self.total_gpu

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.places)))

    # ---------------------------------------------------------------- they come, change and go

    def see(self, place: Place) -> int:
        """A worker as it is now; answers its index."""
        i = self.index.get(place.worker_id)
        if i is None:
            i = self.index[place.worker_id] = len(self.places)
            self._append(place)
        self._count_totals(i, -1)
        for task_id in list(self.running[i]):
            self._forget(task_id)
        self.places[i] = place
        self.free[i] = None if place.closed or place.free is None else place.free.copy()
        self._count_totals(i, +1)
        for one in place.running:
            self._remember(one, i)
        self.tasks[i] = len(self.running[i])
        facts = place.facts()
        self.unsorted.add(i)
        if facts != self.facts[i] or len(self._conditions[UNCONDITIONAL]) == i:
            self.facts[i] = facts
            self._judge(i)
        self.write(i)
        for line in self.lines.values():
            line.write(i)
        return i

    def _append(self, place: Place) -> None:
        self.places.append(replace(place, free=None, closed="not seen yet"))
        self.free.append(None)
        self.running.append({})
        self.facts.append({})
        self.tasks.append(0)
        self.busy.append(0.0)
        for column in (self.cpu, self.memory, self.storage):
            column.append(-1)
        self.ranks.append(OUT)
        self.ranks_without.append(OUT)
        self._columns.clear()

    def _count_totals(self, i: int, sign: int) -> None:
        free = self.free[i]
        if free is not None:
            self.total_cpu += sign * free.total.cpu_milli
            self.total_memory += sign * free.total.memory
            self.total_gpu += sign * free.total.gpu_milli

    def _judge(self, i: int) -> None:
        """Which conditions it meets."""
        facts = self.facts[i]
        for condition, met in self._conditions.items():
            verdict = meets(condition, facts)
            if i == len(met):
                met.append(verdict)
            else:
                met[i] = verdict

    def _remember(self, one: Running, i: int) -> None:
        self.running[i][one.id] = one
        self.at[one.id] = i
        if one.preemptible or one.ending:
            self.soft.add(i)
        if one.name is not None:
            self.named.setdefault(one.name, Counter())[i] += 1

    def _forget(self, task_id: str) -> Running:
        i = self.at.pop(task_id)
        one = self.running[i].pop(task_id)
        if i in self.soft and not any(
            other.preemptible or other.ending for other in self.running[i].values()
        ):
            self.soft.discard(i)
        if one.name is not None:
            self.named[one.name][i] -= 1
            self.named[one.name] += Counter()  # drops what has come to nothing
            if not self.named[one.name]:
                del self.named[one.name]
        return one

    def with_tasks(self, words: Iterable[str]) -> set[int]:
        """Workers on which any of these tasks (ids or names) is."""
        found = {i for word in words for i in self.named.get(word, ())}
        return found | {self.at[word] for word in words if word in self.at}

    def write(self, i: int) -> None:
        """Brings everything derived up to date after its free parts changed."""
        free = self.free[i]
        if free is None:
            self.busy[i] = 1.0
            self.cpu[i] = self.memory[i] = self.storage[i] = -1
            self.ranks[i] = self.ranks_without[i] = OUT
        else:
            self.busy[i] = busy(free)
            self.ranks[i] = self.ranks_without[i] = self.tasks[i] * TASK + self.busy[i]
            if free.total.gpu_milli:
                self.ranks_without[i] += NO_GPU_WANTED
            self.cpu[i], self.memory[i], self.storage[i] = free.cpu, free.memory, free.storage
        self._stale.add(i)
        self._note(i)
        for view in self.views.values():
            view.write(i, free)

    def _note(self, i: int) -> None:
        if len(self.log) > LOG_LENGTH + 16 * len(self.places):
            self.log.clear()
            self.epoch += 1
        self.log.append(i)

    # ---------------------------------------------------------------- a task comes and goes

    def take(self, i: int, need: Need, hold: Callable[[tuple[int, ...]], Running]) -> Running:
        """A task holds its part from now on. ``hold`` makes it, given its devices."""
        free = self.free[i]
        assert free is not None
        one = hold(free.take(need.resources, need.wish))
        self._remember(one, i)
        self.tasks[i] += 1
        self.write(i)
        for line in self.lines.values():
            if line.renews:
                line.renew(i)
        return one

    def give(self, task_id: str) -> tuple[int, Running] | None:
        """Its part is free again; where that was."""
        i = self.at.get(task_id)
        if i is None:
            return None
        one = self._forget(task_id)
        free = self.free[i]
        if free is not None:
            free.give(one.resources, one.devices, one.wish)
        self.tasks[i] -= 1
        self.write(i)
        for line in self.lines.values():
            line.write(i)
        return i, one

    # ---------------------------------------------------------------- what fits

    def need(self, shape: Shape) -> Need:
        """The shape, made ready for many questions."""
        condition = condition_of(shape)
        met = self._conditions.get(condition)
        if met is None:
            met = bytearray(meets(condition, self.facts[i]) for i in self)
            self._conditions[condition] = met
        return Need(shape, met, self.view(shape.wish))

    def view(self, wish: Wish) -> View:
        view = self.views.get(wish)
        if view is None:
            view = self.views[wish] = View(wish)
            for i in self:
                view.write(i, self.free[i])
            self._columns.clear()
        return view

    def forget_needs(self) -> None:
        """Drops what is kept of conditions, wishes and rankings; every ``Need`` made so far with
        it."""
        self.lines.clear()
        self._conditions = {UNCONDITIONAL: self._conditions[UNCONDITIONAL]}
        self.views = {ANY: self.plain}
        self._columns.clear()

    def line(self, name: object, make: Callable[[], Line]) -> Line:
        line = self.lines.get(name)
        if line is None:
            line = self.lines[name] = make()
        return line

    def fits(self, i: int, need: Need) -> bool:
        """Whether there is room for it now. Conditions are not looked at."""
        if need.cpu > self.cpu[i] or need.memory > self.memory[i] or need.storage > self.storage[i]:
            return False
        if need.whole:
            return need.whole <= need.view.whole[i]
        if not need.share:
            return self.cpu[i] >= 0
        free = self.free[i]
        # How much memory a share claims depends on the share: only the devices can tell.
        return need.share <= need.view.best[i] and (
            free is not None and free.gpu_room(need.share, need.wish) >= need.share
        )

    def column(self, name: str) -> Floats:
        """``cpu``, ``memory``, ``storage``, ``total_cpu``, ...: one number a worker."""
        self._bring_up_to_date()
        return self._columns[name]

    @property
    def rooms(self) -> npt.NDArray[np.int64]:
        """Free thousandths of each device of each worker; -1 where there is none."""
        most = max((len(free.devices) for free in self.free if free), default=0)
        rooms = np.full((len(self), most), -1, np.int64)
        for i, free in enumerate(self.free):
            if free is not None:
                rooms[i, : len(free.devices)] = [device.room for device in free.devices]
        return rooms

    def able(self, need: Need) -> Mask:
        """Open workers that meet its conditions and have the room now, as far as columns tell:
        ``fits`` has the last word on shares."""
        mask = np.frombuffer(need.met, np.bool_) & (self.column("cpu") >= need.cpu)
        mask &= self._columns["memory"] >= need.memory
        mask &= self._columns["storage"] >= need.storage
        if need.whole:
            mask &= self._columns[need.view.names[0]] >= need.whole
        elif need.share:
            mask &= self._columns[need.view.names[1]] >= need.share
        return mask

    def large_enough(self, need: Need) -> Mask:
        """Open workers that meet its conditions and could hold it if nothing else were there."""
        mask = np.frombuffer(need.met, np.bool_) & (self.column("total_cpu") >= max(need.cpu, 1))
        mask &= self._columns["total_memory"] >= need.memory
        mask &= self._columns["total_storage"] >= need.storage
        if need.whole or need.share:
            mask &= self._columns[need.view.names[2]] >= (need.whole or 1)
        return mask

    def _bring_up_to_date(self) -> None:
        if not self._columns:
            names = [*OF_FREE, *OF_TOTAL, "first_end"]
            for view in self.views.values():
                names += view.names
            self._columns = {name: np.zeros(len(self)) for name in names}
            self._stale = set(self)
        if not self._stale:
            return
        stale = list(self._stale)
        columns = self._columns
        for name, values in zip(OF_FREE, (self.cpu, self.memory, self.storage), strict=True):
            columns[name][stale] = [values[i] for i in stale]
        totals = [free.total if (free := self.free[i]) else NOTHING_AT_ALL for i in stale]
        columns["total_cpu"][stale] = [total.cpu_milli for total in totals]
        columns["total_memory"][stale] = [total.memory for total in totals]
        columns["total_storage"][stale] = [total.storage for total in totals]
        columns["first_end"][stale] = [first_end(self.running[i].values()) for i in stale]
        for view in self.views.values():
            for name, values in zip(view.names, (view.whole, view.best, view.suiting), strict=True):
                columns[name][stale] = [values[i] for i in stale]
        self._stale.clear()

    def cost(self, cpu: float, memory: float, gpu: float) -> float:
        """A dominant share: the part of the fleet that it is of what it is most of. In
        thousandths, bytes and thousandths."""
        return max(
            cpu / (self.total_cpu or 1),
            memory / (self.total_memory or 1),
            gpu / (self.total_gpu or 1),
        )


def first_end(running: Iterable[Running]) -> float:
    """When the first of them surely ends; infinity where none has a time limit."""
    return min([one.ends for one in running if one.ends is not None], default=float("inf"))


def busy(free: Free) -> float:
    """The part in use of whatever is used most of a worker."""
    total = free.total
    least = min(free.cpu / (total.cpu_milli or 1), free.memory / (total.memory or 1))
    if total.gpu_milli:
        left = 0
        for device in free.devices:
            left += device.room
        least = min(least, left / total.gpu_milli)
    return min(1.0, max(0.0, 1 - least))


def meets(condition: Condition, facts: dict[str, tuple[str, ...]]) -> bool:
    """Whether a worker of these facts meets a condition."""
    return first_unmet(condition, facts) == ""


def first_unmet(condition: Condition, facts: dict[str, tuple[str, ...]]) -> str:
    """What of a condition a worker does not meet, in words; empty where it meets all."""
    target, nodes, require, avoid = condition
    if target is not None and facts["worker"] != (target,):
        return f"it is not {target}"
    if nodes and not meets_any(nodes, facts):
        return f"it is not {' or '.join(nodes)}"
    for text in require:
        if not _parsed(text).meets(facts):
            return f"it has not {text}"
    for text in avoid:
        if _parsed(text).meets(facts):
            return f"it has {text}, which is to be avoided"
    return ""


_parsed = lru_cache(4096)(parse)
