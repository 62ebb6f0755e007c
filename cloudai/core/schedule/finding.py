"""Which worker one task gets, if any: fit, then rank."""

from __future__ import annotations

import numpy as np

from cloudai.core.capacity import Free
from cloudai.core.policy import Policy

from .keeps import Keep, may_pass, room_of
from .ranking import Ranking, Strategies, first_of
from .shares import Shares
from .snapshot import Ask, Place
from .workers import Indexes, Need, Workers

FEW = 32
"""So many workers in line are asked one by one before all are asked at once."""
FEW_CHANGED = 24
"""So many changed workers are asked one by one what fits there."""


class Finder:
    """The fleet with everything that stands between a task and a worker."""

    def __init__(self, policy: Policy, ranking: Ranking | None) -> None:
        self.workers = Workers()
        self.shares = Shares(policy, self.workers)
        self.strategies = Strategies(self.workers, policy.strategy)
        self.ranking = ranking
        self.keeps: dict[int, Keep] = {}
        """worker -> who waits for it."""
        self.reserved: set[int] = set()
        """Workers of which parts are reserved for somebody."""
        self.awaited: set[int] = set()
        """Those of them that lend nothing now: who has a right to it waits."""
        self.order: dict[str, int] = {}
        """task -> how many go before it, of the first ones."""
        self._images: dict[str, set[int]] = {}

    def see(self, place: Place) -> int:
        """A worker as it is now; answers its index."""
        i = self.workers.index.get(place.worker_id)
        if i is not None:
            self._count(i, -1)
            for image in self.workers.places[i].images:
                self._images.get(image, set()).discard(i)
        totals = self.workers.totals
        i = self.workers.see(place)
        self._count(i, +1)
        if self.workers.totals != totals:
            self.shares.fleet_changed()
        for image in place.images:
            self._images.setdefault(image, set()).add(i)
        (self.reserved.add if place.reserved else self.reserved.discard)(i)
        return i

    def _count(self, i: int, sign: int) -> None:
        for one in self.workers.running[i].values():
            self.shares.count(one.user, one.resources, sign)

    # ---------------------------------------------------------------- the best one

    def find(
        self, ask: Ask, need: Need, now: float, *, among: set[int] | None = None
    ) -> int | None:
        """The best worker that can take it now, or ``None``. ``among``: only these are worth
        looking at."""
        odd = self.keeps.keys() | self.reserved
        barred = self.barred(ask)
        if ask.shape.near:
            near = self.workers.with_tasks(ask.shape.near)
            among = near if among is None else among & near
        if among is not None and len(among) <= FEW_CHANGED:
            return self._best(need, self._able(ask, need, among - barred, odd, now))
        best = self._first_in_line(need, odd, barred) if among is None else None
        if best is None:
            best = self._best_of_all(need, odd | barred, among)
        looked_at = odd - barred if among is None else (odd & among) - barred
        if looked_at and best is not None:
            looked_at = self._better(need, best, looked_at)
        able = self._able(ask, need, looked_at, odd, now)
        return self._best(need, able if best is None else [best, *able])

    def _better(self, need: Need, best: int, others: set[int]) -> set[int]:
        """Those of the others that could be chosen instead; the rest need not be looked at."""
        keeps = self.keeps
        others = {i for i in others if i not in keeps or need not in keeps[i].closed_to}
        line = self.strategies.line(need) if others and self.ranking is None else None
        if line is None or self._images.get(need.shape.image):
            return others
        key, mine = line.key, (line.key(best), best)
        return {i for i in others if (key(i), i) < mine}

    def _able(
        self, ask: Ask, need: Need, looked_at: set[int], odd: set[int], now: float
    ) -> list[int]:
        met, fits, keeps = need.met, self.workers.fits, self.keeps
        able = []
        for i in looked_at:
            keep = keeps.get(i)
            if keep is not None and need in keep.closed_to and not self.before(ask, keep):
                continue
            if not met[i] or not fits(i, need):
                if keep is not None:
                    keep.closed_to.add(need)  # until the worker changes, and the keep with it
            elif i not in odd or self.lets_in(ask, need, i, now):
                able.append(i)
        return able

    def _first_in_line(self, need: Need, odd: set[int], barred: set[int]) -> int | None:
        """The first of the line where one of the first will do; most often one does."""
        line = self.strategies.line(need) if self.ranking is None else None
        if line is None or self._images.get(need.shape.image):
            return None
        met, fits = need.met, self.workers.fits
        return line.first(
            lambda i: bool(met[i] and i not in odd and i not in barred and fits(i, need)),
            FEW,
        )

    def _best_of_all(self, need: Need, without: set[int], among: set[int] | None) -> int | None:
        if not len(self.workers):
            return None
        mask = self.workers.able(need)
        if without:
            mask[list(without)] = False
        if among is not None:
            only = np.zeros_like(mask)
            only[list(among)] = True
            mask &= only
        candidates = np.flatnonzero(mask)
        while len(candidates):
            i = self._choose(need, candidates)
            if self.workers.fits(i, need):
                return i
            # A share whose memory does not fit: columns cannot tell.
            candidates = candidates[candidates != i]
        return None

    def _best(self, need: Need, fitting: list[int]) -> int | None:
        if len(fitting) < 2:
            return fitting[0] if fitting else None
        return self._choose(need, np.array(sorted(fitting), np.intp))

    def _choose(self, need: Need, candidates: Indexes) -> int:
        if self.ranking is not None:
            return self.ranking.best(need.shape, candidates, self.workers)
        line = self.strategies.line(need)
        if line is None:
            return self.strategies.packing.best(need, candidates)
        keys = line.column(self.workers.log, self.workers.epoch)
        holders = self._images.get(need.shape.image)
        if holders:
            keys = keys.copy()
            keys[list(holders)] -= self.strategies.prize(need.shape)
        return first_of(keys, candidates)

    # ---------------------------------------------------------------- what stands in the way

    def barred(self, ask: Ask) -> set[int]:
        """Workers that this very task may not have now, whatever is free there."""
        index = self.workers.index
        barred = {index[worker] for worker in ask.refused if worker in index}
        if ask.shape.apart:
            barred |= self.workers.with_tasks(ask.shape.apart)
        for pool in self.shares.over_in_pools(ask.user, ask.shape.resources):
            barred |= {i for i in self.workers if pool in self.workers.places[i].pools}
        return barred

    def room_for(self, ask: Ask, i: int) -> Free | None:
        """What is free on a worker for that task: reservations of others are not, unless it
        is preemptible and so may borrow them while nobody waits who has a right to them."""
        free = self.workers.free[i]
        if free is None or i not in self.reserved:
            return free
        if ask.shape.preemptible and i not in self.awaited:
            return free
        place = self.workers.places[i]
        return room_of(ask, free, place.reserved, self.workers.running[i])

    def lets_in(self, ask: Ask, need: Need, i: int, now: float) -> bool:
        """Whether reservations and who waits for a worker let the task have what is free."""
        if i in self.reserved:
            room = self.room_for(ask, i)
            if room is None or room.lacks(need.resources, need.wish) is not None:
                return False
        keep = self.keeps.get(i)
        if keep is None or self.before(ask, keep):
            return True
        if need in keep.closed_to or not may_pass(keep, ask.shape, now):
            keep.closed_to.add(need)
            return False
        return True

    def before(self, ask: Ask, keep: Keep) -> bool:
        """Whether the task is the one that waits for that worker, or goes before it."""
        return self.order.get(ask.id, len(self.order) + 1) <= keep.rank
