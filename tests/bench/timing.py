"""Taking times side by side: a round takes one sample of each, so that whatever else the machine
does falls on all alike; a median takes out what fell on one.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Sample = Callable[[], float]
"""Does the thing once, cleans up after it, and answers the seconds it took without that."""

LONGEST = 120.0
"""Seconds any one command may take."""


class BenchFailed(Exception):
    """What was to be timed did not work, so its time would mean nothing."""


@dataclass(frozen=True, slots=True)
class Series:
    """All samples of one thing, in seconds."""

    what: str
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


@dataclass(frozen=True, slots=True)
class Group:
    """Things that are compared; the first is ours, and what the others are measured by."""

    title: str
    series: tuple[Series, ...]

    def as_json(self) -> dict[str, Any]:
        ours = self.series[0].median
        rows = [
            {
                "what": one.what,
                "median_ms": _ms(one.median),
                "fastest_ms": _ms(min(one.seconds)),
                "slowest_ms": _ms(max(one.seconds)),
                "ratio": round(one.median / ours, 2),
                "samples_ms": [_ms(each) for each in one.seconds],
            }
            for one in self.series
        ]
        return {"title": self.title, "rows": rows}


def side_by_side(title: str, samples: Mapping[str, Sample], *, rounds: int) -> Group:
    """So many rounds, after one that is not counted. Each round begins with another of them,
    so that none always follows the same one."""
    names = list(samples)
    taken: dict[str, list[float]] = {name: [] for name in names}
    for sample in samples.values():
        sample()
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            taken[name].append(samples[name]())
    return Group(title, tuple(Series(name, tuple(taken[name])) for name in names))


def timed(
    argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> tuple[float, str]:
    """The seconds a whole process takes from its start to its end, and its stdout.

    Raises ``BenchFailed`` where it does not end well.
    """
    began = time.perf_counter()
    ended = subprocess.run(
        list(argv),
        env=None if env is None else dict(env),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=LONGEST,
        check=False,
    )
    seconds = time.perf_counter() - began
    if ended.returncode != 0:
        words = ended.stderr.decode(errors="replace").strip() or "no word about it"
        raise BenchFailed(f"{' '.join(argv)}: ended with {ended.returncode}: {words}")
    return seconds, ended.stdout.decode(errors="replace")


def load() -> str:
    """The machine's load averages over 1, 5 and 15 minutes."""
    return " ".join(f"{average:.2f}" for average in os.getloadavg())


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)
