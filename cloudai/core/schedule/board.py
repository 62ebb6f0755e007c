"""The scheduler: workers and waiting tasks in, a plan out. Pure: no clock, no disk, no network.

The same board places, explains and simulates, so these can never disagree. It remembers between
two plans what was found out: that nothing of a shape fits anywhere stays true until a worker
changes, and then only that worker is looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from cloudai.core.capacity import Free
from cloudai.core.model import Resources, Strategy
from cloudai.core.policy import Policy

from .explain import GONE, Waiting
from .finding import FEW_CHANGED, Finder
from .gangs import lay_out
from .keeps import Keep, keep_for, passed
from .lending import awaited
from .order import Queue, Round
from .preempt import Victims, victims_on
from .ranking import Ranking
from .snapshot import Ask, Place, Placing, Plan, Preempting, Running, Shape, Use
from .workers import Need

SHAPES = 1000
"""So many shapes of which nothing waits are remembered at the least."""
FEW_TO_PRUNE = 8
"""Up to so many changed workers, shapes that fit there no more are let go at once."""


class Board:
    """A fleet and its queue, as a scheduler sees them."""

    def __init__(self, policy: Policy | None = None, ranking: Ranking | None = None) -> None:
        self.policy = policy or Policy()
        self.finder = Finder(self.policy, ranking)
        self.workers = self.finder.workers
        self.shares = self.finder.shares
        self.keeps = self.finder.keeps
        self.queue = Queue(self.policy)
        self.groups: dict[str, dict[str, Ask]] = {}
        """Groups of which some are waiting: the first rank stands in line for all of them."""
        self.held: dict[str, Ask] = {}
        """Waiting for something else than room."""
        self._now = 0.0
        self._owners: set[str | None] = set()
        """Users who have something reserved; ``None``: priorities have."""
        self._needs: dict[int, Need] = {}
        self._blocked: set[int] = set()
        """Shapes that fit nowhere, as far as is known."""
        self._grouped: set[int] = set()
        """Those that stand for a group."""
        self._changed: set[int] = set()
        """Workers that changed since the last plan."""

    # ---------------------------------------------------------------- what is there

    def see(self, place: Place) -> None:
        """A worker as it is now: new, or changed."""
        if place.worker_id not in self.workers.index:
            self._needs.clear()
        self._changed.add(self.finder.see(place))
        self._note_owners()

    def _note_owners(self) -> None:
        """Who has something reserved sees other room than all others: their tasks are shapes
        of their own. Where priorities have, tasks of each priority are."""
        reserved = [one for i in self.finder.reserved for one in self.workers.places[i].reserved]
        owners: set[str | None] = {one.user for one in reserved if one.user is not None}
        if any(one.priority for one in reserved):
            owners.add(None)
        if owners == self._owners:
            return
        self._owners = owners
        for ask in [one for one in self.queue.asks.values() if one.group is None]:
            self.queue.add(ask, self._now, alone=self._right_of(ask))

    def _right_of(self, ask: Ask) -> object:
        """What tells tasks of one shape apart, where something is reserved."""
        user = ask.user if ask.user in self._owners else None
        priority = ask.priority if None in self._owners else None
        return (user, priority) if (user, priority) != (None, None) else None

    def drop(self, worker_id: str) -> None:
        """A worker is no more."""
        if worker_id in self.workers.index:
            self.see(Place(worker_id=worker_id, free=None, closed=GONE))

    def set_use(self, use: Mapping[str, Use]) -> None:
        """What everybody has used so far."""
        self.shares.set_use(use)

    def set_run_times(self, seconds: Mapping[tuple[str, str], float]) -> None:
        """(kind, worker) -> how long such tasks took there."""
        self.finder.strategies.set_run_times(seconds)

    def add(self, ask: Ask, now: float = 0.0) -> None:
        """A task waits, or waits otherwise than before."""
        self.remove(ask.id)
        if ask.held:
            self.held[ask.id] = ask
        elif ask.group is not None and ask.group_size > 1:
            self._add_member(ask, now)
        else:
            # One more of a shape that fits nowhere fits nowhere either.
            self.queue.add(ask, now, alone=self._right_of(ask))
            self.finder.strategies.packing.learn(ask.shape)

    def _add_member(self, ask: Ask, now: float) -> None:
        assert ask.group is not None
        members = self.groups.setdefault(ask.group, {})
        members[ask.id] = ask
        self.finder.strategies.packing.learn(ask.shape)
        if len(members) == ask.group_size:
            leader = min(members.values(), key=lambda one: one.group_rank)
            number = self.queue.add(leader, now, alone=ask.group)
            self._grouped.add(number)
            self._blocked.discard(number)

    def remove(self, task_id: str) -> None:
        """A task waits no more."""
        if self.held.pop(task_id, None) is not None:
            return
        ask = self.queue.remove(task_id)
        if ask is not None and ask.group is None:
            self._unkeep(task_id)
            return
        for group, members in list(self.groups.items()):
            if members.pop(task_id, None) is not None:
                # Without one of them the others wait for it.
                for one in members.values():
                    self.queue.remove(one.id)
                if not members:
                    del self.groups[group]

    def finish(self, task_id: str) -> Running | None:
        """A task that held a part of a worker does so no more."""
        freed = self.workers.give(task_id)
        if freed is None:
            return None
        i, one = freed
        self.shares.count(one.user, one.resources, -1)
        self._changed.add(i)
        return one

    def need(self, shape: Shape) -> Need:
        """The shape, made ready for many questions."""
        number = self.queue.number_of(shape)
        need = self._needs.get(number)
        if need is None:
            need = self._needs[number] = self.workers.need(shape)
        return need

    def _need(self, number: int) -> Need:
        need = self._needs.get(number)
        if need is None:
            need = self._needs[number] = self.workers.need(self.queue.shapes[number])
        return need

    # ---------------------------------------------------------------- the plan

    def plan(self, now: float) -> Plan:
        """Places what fits now, and takes it; says who is to make room for whom."""
        self._now = now
        self.queue.lift(now)
        if len(self.queue.shapes) > SHAPES + 2 * len(self.queue):
            self._forget_shapes()
        plan = Plan(waiting=Waiting(self, now))
        self._note_awaited()
        while True:
            before = len(plan.placements)
            self._renew_keeps()
            numbers = self._to_ask()
            changed, self._changed = self._changed, set()
            turns = Round(self.queue, numbers, self.shares.score)
            while (ask := turns.next()) is not None:
                self._decide(ask, turns, plan, now, changed)
            turns.close()
            # Who waited for one worker and went to another has left the first to others.
            if not self._changed or len(plan.placements) == before:
                break
        self._make_room(plan)
        return plan

    def _note_awaited(self) -> None:
        """Who waits for what is reserved for them has it lent to nobody."""
        finder = self.finder
        if not finder.reserved and not finder.awaited:
            return
        before, finder.awaited = (
            finder.awaited,
            awaited(finder.reserved, self.workers, self.queue, self._need),
        )
        self._changed |= before - finder.awaited

    def _forget_shapes(self) -> None:
        """What was found out for shapes of which nothing waits any more."""
        unused = self.queue.forget_unused()
        self._blocked -= unused
        self._grouped -= unused
        self._needs.clear()
        self.workers.forget_needs()

    def _to_ask(self) -> set[int]:
        """Shapes of which something may fit."""
        waiting = {number for number, slots in self.queue.where.items() if slots}
        self._blocked &= waiting
        asked = waiting - self._blocked
        changed = [i for i in self._changed if self.workers.free[i] is not None]
        if changed:
            asked |= self._grouped & waiting
            for number in self._blocked - self._grouped:
                if self._may_fit(self._need(number), changed):
                    asked.add(number)
        return asked

    def _may_fit(self, need: Need, changed: list[int]) -> bool:
        if len(changed) > FEW_CHANGED:
            return bool(self.workers.able(need)[changed].any())
        met, fits = need.met, self.workers.fits
        return any(met[i] and fits(i, need) for i in changed)

    def _decide(self, ask: Ask, turns: Round, plan: Plan, now: float, changed: set[int]) -> None:
        """Places it, or notes what stands in its way."""
        number = self.queue.number(ask.id)
        if number in self._grouped:
            self._decide_group(ask, number, turns, plan, now)
            return
        need = self._need(number)
        if self.shares.over_quota(ask.user, need.resources):
            turns.bar(ask)
            return
        among = changed if number in self._blocked else None
        i = self.finder.find(ask, need, now, among=among)
        if i is not None:
            self._place(ask, need, i, plan, now)
            self._let_go(turns, changed)
        elif self._for_itself(ask):
            turns.skip(ask)
        else:
            self._blocked.add(number)
            if self._keep(ask, need):
                turns.skip(ask)
            else:
                turns.left.discard(number)

    def _for_itself(self, ask: Ask) -> bool:
        """Whether what stands in its way need not stand in the way of others of its shape."""
        return bool(ask.refused or self.shares.over_in_pools(ask.user, ask.shape.resources))

    def _let_go(self, turns: Round, changed: set[int]) -> None:
        """Shapes that were asked about only for what changed, and fit there no more."""
        if len(changed) > FEW_TO_PRUNE:
            return
        few = list(changed)
        for number in (turns.left & self._blocked) - self._grouped:
            if not self._may_fit(self._need(number), few):
                turns.left.discard(number)

    def _place(self, ask: Ask, need: Need, i: int, plan: Plan, now: float) -> None:
        """It has that worker from now on."""
        shape = need.shape
        ends = now + shape.limit if shape.limit is not None else None

        def hold(devices: tuple[int, ...]) -> Running:
            return Running(
                id=ask.id,
                user=ask.user,
                resources=shape.resources,
                wish=need.wish,
                name=ask.name,
                priority=ask.priority,
                preemptible=shape.preemptible,
                started=now,
                ends=ends,
                devices=devices,
            )

        one = self.workers.take(i, need, hold)
        self.shares.count(ask.user, shape.resources, +1)
        self.queue.remove(ask.id)
        if self.keeps:
            keep = self.keeps.get(i)
            if keep is not None and not self.finder.before(ask, keep):
                passed(keep, one)
            self._unkeep(ask.id)
        plan.placements.append(Placing(ask.id, self.workers.places[i].worker_id))

    # ---------------------------------------------------------------- blocked tasks keep places

    def _renew_keeps(self) -> None:
        """Whose turn comes first is found anew; workers that nobody waits for any more have
        changed for everybody else."""
        first: list[Ask] = []
        for ask in self.queue.in_order(self.shares.score):
            if len(first) >= 2 * self.policy.heads:
                break
            first.append(ask)
        self.finder.order = {ask.id: rank for rank, ask in enumerate(first)}
        before = dict(self.keeps)
        self.keeps.clear()
        changed = [i for i in self._changed if self.workers.free[i] is not None]
        standing = {keep.ask.id: keep for keep in before.values()}
        for ask in first:
            number = self.queue.number(ask.id)
            if number in self._grouped or number not in self._blocked:
                continue
            need = self._need(number)
            if not self._may_fit(need, changed) and not self.shares.over_quota(
                ask.user, need.resources
            ):
                self._keep(ask, need, standing.get(ask.id))
        for i, keep in before.items():
            now = self.keeps.get(i)
            if now is None or now.ask.id != keep.ask.id or now.start != keep.start:
                self._changed.add(i)

    def _keep(self, ask: Ask, need: Need, standing: Keep | None = None) -> bool:
        """Keeps a place for a blocked task, and tells whether there may be one for another of its
        shape. ``standing``: what it kept before."""
        if len(self.keeps) >= self.policy.heads:
            return False
        order = self.finder.order
        rank = order.setdefault(ask.id, len(order))
        rooms = {
            i: room
            for i in self.finder.reserved
            if (room := self.finder.room_for(ask, i)) is not None
        }
        taken = self.keeps.keys() | self.finder.barred(ask)
        among: set[int] | None = None
        if standing is not None and standing.worker not in self._changed | taken:
            # Only what changed can let it start earlier than where it waits already.
            among = self._changed - taken
        keep = keep_for(ask, need, self.workers, taken, rank, rooms, among=among)
        if among is not None and standing is not None and not _earlier(keep, standing):
            standing.rank = rank
            keep = standing
        if keep is not None:
            self.keeps[keep.worker] = keep
        return keep is not None

    def _unkeep(self, task_id: str) -> None:
        for i, keep in self.keeps.items():
            if keep.ask.id == task_id:
                del self.keeps[i]
                self._changed.add(i)
                return

    # ---------------------------------------------------------------- groups

    def _decide_group(self, leader: Ask, number: int, turns: Round, plan: Plan, now: float) -> None:
        assert leader.group is not None
        members = sorted(self.groups[leader.group].values(), key=lambda one: one.group_rank)
        laid = self.lay_out(members)
        if laid is None:
            self._blocked.add(number)
            turns.left.discard(number)
            return
        del self.groups[leader.group]
        for ask in members:
            self._place(ask, self.need(ask.shape), laid[ask.id], plan, now)

    def lay_out(self, members: list[Ask]) -> dict[str, int] | None:
        """Where all of a group can go now, or ``None``."""
        leader = members[0]
        whole = sum((ask.shape.resources for ask in members), Resources())
        if self.shares.over_quota(leader.user, whole, len(members)):
            return None
        rooms = self._rooms(leader, [self.need(shape) for shape in {a.shape for a in members}])
        barred = {ask.id: self.finder.barred(ask) for ask in members}
        needs = {ask.id: self.need(ask.shape) for ask in members}

        def may_go(ask: Ask, i: int) -> bool:
            return bool(needs[ask.id].met[i]) and i not in barred[ask.id]

        return lay_out(members, rooms, may_go)

    def _rooms(self, leader: Ask, needs: Iterable[Need]) -> dict[int, Free]:
        """Workers that could take one of a group, the preferred first, with what is free."""
        able = np.zeros(len(self.workers), np.bool_)
        for need in needs:
            able |= self.workers.able(need)
        preference = self._preference(leader)
        rooms: dict[int, Free] = {}
        for i in sorted((int(i) for i in np.flatnonzero(able)), key=preference):
            keep = self.keeps.get(i)
            room = self.finder.room_for(leader, i)
            if room is not None and (keep is None or self.finder.before(leader, keep)):
                rooms[i] = room
        return rooms

    def _preference(self, leader: Ask) -> Callable[[int], float]:
        strategies = self.finder.strategies
        line = strategies.line(self.need(leader.shape))
        if line is None or strategies.of(leader.shape) is Strategy.BINPACK:
            return lambda i: -self.workers.busy[i]
        return line.key

    # ---------------------------------------------------------------- preemption

    def _make_room(self, plan: Plan) -> None:
        """Preemptible tasks give way to the first blocked ones."""
        if not self.workers.soft:
            return
        order, chosen = self.finder.order, set[str]()
        blocked = [self.queue.asks[one] for one in order if one in self.queue.asks]
        for ask in sorted(blocked, key=lambda ask: order[ask.id]):
            number = self.queue.number(ask.id)
            over = self.shares.over_quota(ask.user, ask.shape.resources)
            if number not in self._blocked or number in self._grouped or over:
                continue
            victims = self.victims(ask, chosen)
            for one in victims.tasks if victims else ():
                chosen.add(one.id)
                why = f"preempted: its place is for {ask.id}"
                plan.preempt.append(Preempting(one.id, ask.id, why))

    def victims(self, ask: Ask, chosen: Iterable[str] = ()) -> Victims | None:
        """Whose end would make room for it at the least cost."""
        gone, best = set(chosen), None
        large = self.workers.large_enough(self.need(ask.shape))
        for i in sorted(self.workers.soft - self.finder.barred(ask)):
            room = self.finder.room_for(ask, i)
            if not large[i] or room is None:
                continue
            reserved = self.workers.places[i].reserved
            owner = any(one.is_for(ask.user, ask.priority) for one in reserved)
            running = [one for one in self.workers.running[i].values() if one.id not in gone]
            found = victims_on(ask, i, room, running, owner=owner)
            if found is not None and (best is None or found.burden < best.burden):
                best = found
        return best


def _earlier(new: Keep | None, standing: Keep) -> bool:
    """Whether it could start elsewhere earlier than where it waits."""
    if new is None or new.start is None:
        return False
    return standing.start is None or new.start < standing.start
