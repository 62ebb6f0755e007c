"""A workload in Standard Workload Format, made by a documented recipe, where none that was
published is at hand.

- Arrivals: a Poisson process whose rate follows the day: 1.8 times the mean at 2 pm, 0.2 times
  at 2 am.
- Width: log-uniform from 1 to ``widest`` processors; three of four are rounded to a power of two.
- Run time: log-uniform from 30 s to 8 h. Requested time: one to three times that, up to the next
  quarter of an hour, as people overestimate.
- Users: twenty, the n-th as active as 1/n.
- The mean arrival rate is such that ``load`` of all processors would be in use.

Equal seeds give equal text. ``python -m tests.unit.synthetic_trace [JOBS [SEED]]`` prints one.
"""

from __future__ import annotations

import math
import random
import sys

DAY = 86_400.0
USERS = 20
SHORTEST, LONGEST = 30.0, 8 * 3600.0


def swf(
    jobs: int = 2000,
    *,
    seed: int = 1,
    nodes: int = 32,
    processors: int = 512,
    widest: int = 64,
    load: float = 0.85,
) -> str:
    """The text of a log of so many jobs."""
    dice = random.Random(seed)
    rows = [_job(dice, widest) for _ in range(jobs)]
    area = sum(width * runtime for width, runtime, *_ in rows) / jobs
    lines = [
        "; Version: 2.2",
        f"; Computer: none: made by tests/unit/synthetic_trace.py, seed {seed}",
        f"; MaxJobs: {jobs}",
        f"; MaxNodes: {nodes}",
        f"; MaxProcs: {processors}",
    ]
    at = 0.0
    for number, (width, runtime, asked, user) in enumerate(rows, start=1):
        at = _next(dice, at, load * processors / area)
        fields = [number, round(at), -1, runtime, width, -1, -1, width, asked, -1, 1, user]
        lines.append(" ".join(str(field) for field in [*fields, 1, 1 + user % 7, 1, 1, -1, -1]))
    return "\n".join(lines) + "\n"


def _job(dice: random.Random, widest: int) -> tuple[int, int, int, int]:
    """(processors, seconds, requested seconds, user)."""
    exponent = dice.uniform(0, math.log2(widest))
    width = 2 ** round(exponent) if dice.random() < 0.75 else round(2**exponent)
    runtime = round(SHORTEST * (LONGEST / SHORTEST) ** dice.random())
    asked = math.ceil(runtime * dice.uniform(1, 3) / 900) * 900
    user = dice.choices(range(1, USERS + 1), [1 / n for n in range(1, USERS + 1)])[0]
    return width, runtime, asked, user


def _next(dice: random.Random, at: float, mean_rate: float) -> float:
    """The next arrival, by thinning."""
    most = 1.8 * mean_rate
    while True:
        at += dice.expovariate(most)
        rate = mean_rate * (1 + 0.8 * math.cos(2 * math.pi * (at / DAY - 14 / 24)))
        if dice.random() * most < rate:
            return at


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:3]]
    sys.stdout.write(swf(given[0] if given else 2000, seed=given[1] if given[1:] else 1))
