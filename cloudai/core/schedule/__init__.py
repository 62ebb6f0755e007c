"""Where waiting tasks go, in which order, and why not: snapshot in, plan out. Pure.

::

    snapshot   what a decision rests on: Place, Ask, Running -> Plan
    workers    all workers in columns: what fits where
    order      whose turn it is: priority, fair share, submission
    ranking    the strategies; packing is binpack's
    keeps      places that blocked tasks keep, backfill around them; reservations
    gangs      placement groups
    preempt    who makes room
    board      all of it together: places, and remembers what was found out
    explain    the same, in words
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cloudai.core.policy import Policy

from .board import Board
from .explain import Because, Why, in_one_line, why
from .ranking import Ranking
from .shares import never_within
from .snapshot import (
    Ask,
    Place,
    Placing,
    Plan,
    Preempting,
    Reservation,
    Running,
    Shape,
    Use,
    ask_of,
    empty_place,
    shape_of,
)

__all__ = [
    "Ask",
    "Because",
    "Board",
    "Place",
    "Placing",
    "Plan",
    "Preempting",
    "Ranking",
    "Reservation",
    "Running",
    "Shape",
    "Use",
    "Why",
    "ask_of",
    "empty_place",
    "in_one_line",
    "never_within",
    "schedule",
    "shape_of",
    "why",
]


def schedule(
    queue: Iterable[Ask],
    places: Iterable[Place],
    *,
    now: float = 0.0,
    policy: Policy | None = None,
    use: Mapping[str, Use] | None = None,
) -> Plan:
    """One plan for a fleet and a queue, from nothing remembered."""
    board = Board(policy)
    board.set_use(use or {})
    for place in places:
        board.see(place)
    for ask in queue:
        board.add(ask, now)
    return board.plan(now)
