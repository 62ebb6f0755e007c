"""Who has how much: fair shares and quotas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cloudai.core.model import Resources
from cloudai.core.policy import HOUR, Policy, Quota

from .snapshot import Use
from .workers import Workers

HORIZON = HOUR
"""What somebody holds now counts, in fair shares, as if it had been used for so many seconds."""
NO_USE = Use()


@dataclass(slots=True)
class Holding:
    """What one user has on workers now: thousandths and bytes."""

    tasks: int = 0
    cpu: int = 0
    memory: int = 0
    gpu: int = 0

    def count(self, need: Resources, sign: int) -> None:
        """One task more, or one less."""
        self.tasks += sign
        self.cpu += sign * need.cpu_milli
        self.memory += sign * need.memory
        self.gpu += sign * need.gpu_milli


class Shares:
    """What everybody has had, and has."""

    def __init__(self, policy: Policy, workers: Workers) -> None:
        self.policy = policy
        self.workers = workers
        self.use: Mapping[str, Use] = {}
        self.holdings: dict[str, Holding] = {}
        self._scores: dict[str, float] = {}

    def set_use(self, use: Mapping[str, Use]) -> None:
        """What everybody has used so far."""
        self.use = use
        self._scores.clear()

    def count(self, user: str, need: Resources, sign: int) -> None:
        """A task of that user holds a part of a worker, or does so no more."""
        self.holdings.setdefault(user, Holding()).count(need, sign)
        self._scores.pop(user, None)

    def fleet_changed(self) -> None:
        """The whole is another: so are all parts of it."""
        self._scores.clear()

    def score(self, user: str) -> float:
        """How much of the fleet somebody has had for their weight: seconds of the whole."""
        score = self._scores.get(user)
        if score is None:
            past = self._past(user) + self._present(user) * HORIZON
            score = self._scores[user] = past / self.policy.weight(user)
        return score

    def _past(self, user: str) -> float:
        use = self.use.get(user)
        if use is None:
            return 0.0
        return self.workers.cost(use.cpu_seconds * 1000, use.memory_seconds, use.gpu_seconds * 1000)

    def _present(self, user: str) -> float:
        held = self.holdings.get(user)
        return self.workers.cost(held.cpu, held.memory, held.gpu) if held is not None else 0.0

    # ---------------------------------------------------------------- quotas

    def over_quota(self, user: str, need: Resources, tasks: int = 1) -> str:
        """Which limit of the user so much more would exceed, in words; empty for none."""
        quota = self.policy.quota(user)
        if quota is None:
            return ""
        today = self.use.get(user, NO_USE).gpu_hours_today
        return exceeds(quota, self.holdings.get(user, Holding()), need, tasks, today)

    def over_in_pools(self, user: str, need: Resources) -> list[str]:
        """Pools in which the user would exceed what they may have there."""
        over = []
        for pool in self.policy.pool_quotas:
            quota = self.policy.pool_quota(pool, user)
            if quota is not None and exceeds(quota, self.held_in(pool, user), need, 1, 0.0):
                over.append(pool)
        return over

    def held_in(self, pool: str, user: str) -> Holding:
        """What a user has on the workers of a pool."""
        holding = Holding()
        for i in self.workers:
            if pool in self.workers.places[i].pools:
                for one in self.workers.running[i].values():
                    if one.user == user:
                        holding.count(one.resources, +1)
        return holding


def exceeds(quota: Quota, held: Holding, need: Resources, tasks: int, gpu_hours: float) -> str:
    """Which limit would be exceeded, in words; empty for none."""
    cpu, gpu = held.cpu + need.cpu_milli, held.gpu + need.gpu_milli
    if quota.tasks is not None and held.tasks + tasks > quota.tasks:
        return f"{held.tasks} of {quota.tasks} tasks are on workers"
    if quota.cpu_milli is not None and cpu > quota.cpu_milli:
        return f"it would have {cpu / 1000:g} CPUs of {quota.cpu_milli / 1000:g}"
    if need.gpu_milli and quota.gpu_milli is not None and gpu > quota.gpu_milli:
        return f"it would have {gpu / 1000:g} GPUs of {quota.gpu_milli / 1000:g}"
    if need.gpu_milli and quota.gpu_hours is not None and gpu_hours >= quota.gpu_hours:
        return f"{gpu_hours:.1f} of {quota.gpu_hours:g} GPU-hours a day are used"
    return ""


def never_within(quota: Quota | None, need: Resources, tasks: int = 1) -> str:
    """Why so much could not start even if its user had nothing; empty where it could."""
    return exceeds(quota, Holding(), need, tasks, 0.0) if quota is not None else ""
