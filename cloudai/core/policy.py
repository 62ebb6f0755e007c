"""What ops decide about who may have how much: the ``scheduling`` part of the inventory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .model import Strategy

HOUR = 3600.0
DAY = 24 * HOUR
EVERYONE = "*"
"""In quotas and weights: whoever has none of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """The most that one user may hold at once, and use a day. ``None``: no limit."""

    tasks: int | None = None
    """Tasks on workers at the same time."""
    cpu_milli: int | None = None
    gpu_milli: int | None = None
    gpu_hours: float | None = None
    """GPU-hours within the last 24 hours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How waiting tasks are ordered and ranked; the same for the scheduler, ``why`` and
    ``simulate``."""

    strategy: Strategy = Strategy.SPREAD
    """For tasks that name none."""
    half_life: float = 7 * DAY
    """Seconds after which past use counts half."""
    ageing: float = 6 * HOUR
    """Seconds of waiting that lift a task by ``lift`` points of priority, again and again."""
    lift: int = 25
    weights: Mapping[str, float] = field(default_factory=dict)
    """user -> share of the fleet they are owed, next to the 1.0 of everybody else."""
    quotas: Mapping[str, Quota] = field(default_factory=dict)
    """user or ``*`` -> the most they may hold on all workers together."""
    pool_quotas: Mapping[str, Mapping[str, Quota]] = field(default_factory=dict)
    """pool (a group of the inventory) -> user or ``*`` -> the most they may hold there."""
    heads: int = 8
    """So many blocked tasks, first in order, keep a place that later ones may not delay."""

    def weight(self, user: str) -> float:
        return self.weights.get(user, self.weights.get(EVERYONE, 1.0))

    def quota(self, user: str) -> Quota | None:
        """What holds for a user on all workers together."""
        return self.quotas.get(user, self.quotas.get(EVERYONE))

    def pool_quota(self, pool: str, user: str) -> Quota | None:
        """What holds for a user on the workers of one pool."""
        of_pool = self.pool_quotas.get(pool, {})
        return of_pool.get(user, of_pool.get(EVERYONE))
