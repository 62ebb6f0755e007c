"""Whose turn it is: priority, then fair shares, then the order of submission.

A task's *level* is its priority, lifted again and again while it waits, so that nothing starves.
Within a level the user goes first who has had the least of the fleet for their weight, counting
what they hold now and what this very pass gives them; of one user, the earliest task.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from heapq import heapify, heappop, heappush, heapreplace

from cloudai.core.policy import Policy

from .snapshot import Ask, Shape

Slot = tuple[int, str]
"""A level and a user."""
_COMPACT = 64


class Queue:
    """The waiting tasks, by level, user and shape. Shapes are numbered: equal ones share one."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.asks: dict[str, Ask] = {}
        self.shapes: dict[int, Shape] = {}
        self.where: dict[int, Counter[Slot]] = {}
        """shape -> how many tasks of it wait in each slot."""
        self._next = 0
        self._numbers: dict[object, int] = {}
        self._level: dict[str, int] = {}
        self._number: dict[str, int] = {}
        self._heaps: dict[tuple[int, str, int], list[tuple[int, str]]] = {}
        self._lines: dict[Slot, list[tuple[int, str]]] = {}
        self._dead: Counter[Slot] = Counter()
        self._lifts: list[tuple[float, str, int]] = []

    def __len__(self) -> int:
        return len(self.asks)

    # ---------------------------------------------------------------- come and go

    def add(self, ask: Ask, now: float, *, alone: object = None) -> int:
        """Puts it in line; answers its shape's number. ``alone``: it shares its number with
        nothing but what is given the same (a group, a task with refusals of its own)."""
        if ask.id in self.asks:
            self.remove(ask.id)
        number = self.number_of(ask.shape, alone)
        level = self.level_of(ask, now)
        self.asks[ask.id] = ask
        self._number[ask.id] = number
        self._enter(ask, level, number)
        self._lift_later(ask, level)
        return number

    def number_of(self, shape: Shape, alone: object = None) -> int:
        key = shape if alone is None else (shape, alone)
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = self._next
            self._next += 1
            self.shapes[number] = shape
            self.where[number] = Counter()
        return number

    def forget_unused(self) -> set[int]:
        """Takes back the numbers of shapes of which nothing waits; answers which."""
        unused = {number for number, slots in self.where.items() if not slots}
        for number in unused:
            del self.shapes[number], self.where[number]
        self._numbers = {key: one for key, one in self._numbers.items() if one not in unused}
        return unused

    def number(self, task_id: str) -> int:
        return self._number[task_id]

    def level(self, task_id: str) -> int:
        return self._level[task_id]

    def level_of(self, ask: Ask, now: float) -> int:
        """Its priority, and ``lift`` points more for every ``ageing`` seconds of waiting. A
        clock that went backwards makes nobody younger than new."""
        waited = max(0.0, now - ask.since)
        return ask.priority + self.policy.lift * int(waited // self.policy.ageing)

    def _enter(self, ask: Ask, level: int, number: int) -> None:
        slot = (level, ask.user)
        self._level[ask.id] = level
        self.where[number][slot] += 1
        heappush(self._heaps.setdefault((*slot, number), []), (ask.position, ask.id))
        insort(self._lines.setdefault(slot, []), (ask.position, ask.id))

    def remove(self, task_id: str) -> Ask | None:
        """Out of line. What stands in the heaps is passed over when it comes to the top."""
        ask = self.asks.pop(task_id, None)
        if ask is not None:
            self._leave(ask, self._level.pop(task_id), self._number.pop(task_id))
        return ask

    def _leave(self, ask: Ask, level: int, number: int) -> None:
        slot = (level, ask.user)
        count = self.where[number]
        count[slot] -= 1
        if not count[slot]:
            del count[slot]
            self._heaps.pop((*slot, number), None)
        self._dead[slot] += 1
        line = self._lines[slot]
        if self._dead[slot] > _COMPACT and self._dead[slot] * 2 > len(line):
            line[:] = [one for one in line if self._stands(one[1], level)]
            self._dead[slot] = 0
        if not line:
            del self._lines[slot]

    def _stands(self, task_id: str, level: int) -> bool:
        return self._level.get(task_id) == level

    # ---------------------------------------------------------------- ageing

    def _lift_later(self, ask: Ask, level: int) -> None:
        steps = (level - ask.priority) // self.policy.lift + 1 if self.policy.lift else 0
        if steps:
            heappush(self._lifts, (ask.since + steps * self.policy.ageing, ask.id, ask.position))

    def lift(self, now: float) -> None:
        """Moves up who has waited long enough."""
        while self._lifts and self._lifts[0][0] <= now:
            _, task_id, _ = heappop(self._lifts)
            ask = self.asks.get(task_id)
            if ask is None:
                continue
            before, number = self._level[task_id], self._number[task_id]
            after = self.level_of(ask, now)
            if after != before:
                self._leave(ask, before, number)
                self._enter(ask, after, number)
                self._lift_later(ask, after)

    # ---------------------------------------------------------------- the order

    def head(self, slot: Slot, number: int) -> tuple[int, str] | None:
        """(position, id) of the first task of that shape there."""
        heap = self._heaps.get((*slot, number))
        while heap:
            if self._stands(heap[0][1], slot[0]) and self._number[heap[0][1]] == number:
                return heap[0]
            heappop(heap)
        return None

    def pass_over(self, slot: Slot, number: int) -> None:
        """Takes the first of them out of line for now; ``put_back`` undoes it."""
        heappop(self._heaps[(*slot, number)])

    def put_back(self, task_id: str) -> None:
        """Undoes ``pass_over``."""
        if (ask := self.asks.get(task_id)) is not None:
            key = (self._level[task_id], ask.user, self._number[task_id])
            heappush(self._heaps.setdefault(key, []), (ask.position, task_id))

    def in_order(self, score: Callable[[str], float]) -> Iterator[Ask]:
        """All of them as they stand before anything is placed: levels, then users by
        ``score``, then submission."""
        for level, users in self.slots():
            for user in sorted(users, key=lambda user: (score(user), user)):
                for _, task_id in list(self._lines.get((level, user), ())):
                    if self._stands(task_id, level):
                        yield self.asks[task_id]

    def line(self, level: int, user: str) -> list[tuple[int, str]]:
        """(position, id) of all that wait there, in order."""
        line = self._lines.get((level, user), [])
        return [one for one in line if self._stands(one[1], level)]

    def slots(self) -> list[tuple[int, list[str]]]:
        """Levels, highest first, with who waits there."""
        levels: dict[int, list[str]] = {}
        for level, user in self._lines:
            levels.setdefault(level, []).append(user)
        return sorted(levels.items(), reverse=True)


class Round:
    """One walk through the tasks of some shapes in the order of their turns, while scores
    change by what is placed."""

    def __init__(self, queue: Queue, numbers: Iterable[int], score: Callable[[str], float]) -> None:
        self.queue = queue
        self.score = score
        self.left = set(numbers)
        """Shapes whose tasks are still asked about."""
        self._skipped: list[str] = []
        self._levels: dict[int, dict[str, list[int]]] = {}
        for number in self.left:
            for level, user in queue.where[number]:
                self._levels.setdefault(level, {}).setdefault(user, []).append(number)
        self._order = sorted(self._levels, reverse=True)
        self._at = -1
        self._users: list[tuple[float, str]] = []
        self._heads: dict[str, list[tuple[int, str, int]]] = {}
        self._barred: set[tuple[str, int]] = set()

    def next(self) -> Ask | None:
        """Whose turn it is; the same again until told what became of it."""
        while self.left:
            if not self._users and not self._next_level():
                return None
            score, user = self._users[0]
            now = self.score(user)
            if now > score:
                heapreplace(self._users, (now, user))
                continue
            task_id = self._first_of(user)
            if task_id is None:
                heappop(self._users)
            else:
                return self.queue.asks[task_id]
        return None

    def _next_level(self) -> bool:
        self._at += 1
        if self._at >= len(self._order):
            return False
        users = self._levels[self._order[self._at]]
        self._users = [(self.score(user), user) for user in users]
        heapify(self._users)
        self._heads = {}
        return True

    def _first_of(self, user: str) -> str | None:
        level = self._order[self._at]
        heads = self._heads.get(user)
        if heads is None:
            heads = []
            for number in self._levels[level][user]:
                if number in self.left and (head := self.queue.head((level, user), number)):
                    heads.append((*head, number))
            heapify(heads)
            self._heads[user] = heads
        while heads:
            position, task_id, number = heads[0]
            if number not in self.left or (user, number) in self._barred:
                heappop(heads)
                continue
            present = self.queue.head((level, user), number)
            if present == (position, task_id):
                return task_id
            if present is None:
                heappop(heads)
            else:
                heapreplace(heads, (*present, number))
        return None

    def skip(self, ask: Ask) -> None:
        """This one not, in this round; others of its shape may."""
        self.queue.pass_over((self._order[self._at], ask.user), self.queue.number(ask.id))
        self._skipped.append(ask.id)

    def bar(self, ask: Ask) -> None:
        """No task of that shape of that user, in this round."""
        self._barred.add((ask.user, self.queue.number(ask.id)))

    def close(self) -> None:
        """Puts back in line what was passed over."""
        for task_id in self._skipped:
            self.queue.put_back(task_id)
