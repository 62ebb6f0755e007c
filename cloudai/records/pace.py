"""How fast a batch goes, and when it may be done: from what has ended so far, or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

WINDOW = 300.0
"""Seconds over which the rate is taken."""
LEAST = 2
"""So many tasks must have ended before anything is said."""


def rate(ends: Sequence[float], now: float, began: float | None) -> float | None:
    """Tasks a minute, of late: from the times (seconds) at which tasks ended. ``began``: when
    the first one started. ``None``: too little is known."""
    if began is None or len(ends) < LEAST:
        return None
    window = min(WINDOW, now - began)
    if window < 1:
        return None
    return sum(1 for at in ends if at > now - window) * 60 / window


@dataclass(frozen=True, slots=True)
class Pending:
    """What is left of one entry."""

    waiting: int
    running: Sequence[float]
    """Seconds that each of those that hold a place has run."""
    mean: float | None
    """Seconds that one of them ran, of those that completed; ``None``: none has."""
    limit: int | None = None
    """At most so many at once."""


def remaining(
    entries: Mapping[str, Pending], needs: Mapping[str, Iterable[str]], places: int
) -> float | None:
    """Seconds until the last task ends, if the rest is like what has ended and so many run at
    once. ``needs``: which entries an entry comes after. ``None``: too little is known.

    Never less than the longest chain of entries that wait for each other takes.
    """
    known = [one.mean for one in entries.values() if one.mean is not None]
    if not known or places < 1:
        return None
    usual = sum(known) / len(known)
    work = 0.0
    alone: dict[str, float] = {}
    for name, one in entries.items():
        mean = usual if one.mean is None else one.mean
        rest = [max(0.0, mean - seconds) for seconds in one.running]
        mine = one.waiting * mean + sum(rest)
        work += mine
        at_once = min(places, one.limit or places)
        alone[name] = max([mine / at_once, mean if one.waiting else 0.0, *rest])
    return max(work / places, _longest_chain(alone, needs))


def _longest_chain(alone: Mapping[str, float], needs: Mapping[str, Iterable[str]]) -> float:
    """Seconds that the entries on the longest way through the needs take, one after another."""
    before = {
        name: [one for one in needs.get(name, ()) if one in alone and one != name] for name in alone
    }
    reach: dict[str, float] = {}
    try:
        for name in TopologicalSorter(before).static_order():
            reach[name] = alone[name] + max((reach[one] for one in before[name]), default=0.0)
    except CycleError:
        # Elements of two arrays may need each other crosswise; then the entries say nothing.
        return max(alone.values(), default=0.0)
    return max(reach.values(), default=0.0)
