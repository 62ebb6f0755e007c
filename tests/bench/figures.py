"""What a bench tells: series of figures side by side, and what was aimed at."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Unit:
    """How a figure is printed. Samples are kept in the base unit: seconds, bytes, a second."""

    word: str
    scale: float = 1.0
    """What a sample is multiplied by before it is printed."""
    decimals: int = 1
    more_is_better: bool = False

    def text(self, value: float) -> str:
        return f"{value * self.scale:,.{self.decimals}f}"


MS = Unit("ms", 1000)
SECONDS = Unit("s", decimals=2)
CPU_SECONDS = Unit("s of CPU", decimals=2)
CPU_MS_EACH = Unit("ms of CPU each", 1000, 2)
PER_SECOND = Unit("a second", more_is_better=True)
MB_PER_SECOND = Unit("MB a second", 1e-6, more_is_better=True)
MB = Unit("MB", 1e-6, 0)
PERCENT_OF_A_CORE = Unit("% of a core", 100, 2)
POWER = Unit("power of the size", decimals=2)
UNITS = {
    unit.word: unit
    for unit in (
        *(MS, SECONDS, CPU_SECONDS, CPU_MS_EACH, PER_SECOND, MB_PER_SECOND, MB),
        *(PERCENT_OF_A_CORE, POWER),
    )
}


ROWS = {
    1: "One task dispatched",
    2: "One task and its result",
    3: "Many short tasks",
    4: "1,000 workers seen",
    5: "Logs",
    6: "Commands",
    7: "Large batches",
    8: "A controller at rest",
    9: "A controller killed and started again",
    10: "Growth",
    11: "The scheduler",
}
"""What docs/performance.md tells, by its number there."""


@dataclass(frozen=True, slots=True)
class Series:
    """All samples of one thing, in the group's base unit."""

    what: str
    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.samples)


@dataclass(frozen=True, slots=True)
class Aim:
    """What a figure should reach, in the issue's words; measured, never passed or failed.

    ``of``: the series it is about, ours (the first) when ``None``; ``against``: the series that
    it is divided by, or ``None`` when the bound is absolute, in the printed unit.
    """

    text: str
    of: str | None = None
    against: str | None = None
    at_most: float | None = None
    at_least: float | None = None


@dataclass(frozen=True, slots=True)
class Reached:
    """How an aim came out: the quotient or the printed figure, and whether it is within."""

    aim: Aim
    value: float
    within: bool


@dataclass(frozen=True, slots=True)
class Group:
    """Things that are compared; the first is ours, and what the others are measured by.

    ``row``: one of ``ROWS``; ``notes``: what a reader must know
    of how it was measured, or why an aim was missed, a sentence or two each.
    """

    row: int
    title: str
    series: tuple[Series, ...]
    unit: Unit = MS
    aims: tuple[Aim, ...] = ()
    notes: tuple[str, ...] = field(default=())

    def one(self, what: str | None) -> Series:
        """The series of that name, ours when ``None``. Raises ``KeyError``."""
        if what is None:
            return self.series[0]
        found = next((one for one in self.series if one.what == what), None)
        if found is None:
            raise KeyError(f"{self.title} has no {what}")
        return found

    def reached(self) -> list[Reached]:
        """Every aim with what came of it; those whose series was not measured are left out."""
        measured = {one.what for one in self.series}
        found = []
        for aim in self.aims:
            if {aim.of, aim.against} - {None} - measured:
                continue
            value = self.one(aim.of).median
            if aim.against is None:
                value *= self.unit.scale
            else:
                value /= self.one(aim.against).median
            low = aim.at_least is None or value >= aim.at_least
            high = aim.at_most is None or value <= aim.at_most
            found.append(Reached(aim, value, low and high))
        return found

    def as_json(self) -> dict[str, Any]:
        return {
            "row": self.row,
            "title": self.title,
            "unit": self.unit.word,
            "series": {one.what: list(one.samples) for one in self.series},
            "aims": [
                {"aim": one.aim.text, "value": one.value, "within": one.within}
                for one in self.reached()
            ],
            "notes": list(self.notes),
        }


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """The slope of cost over size, both in logarithms: 1 is a straight line."""
    xs, ys = [math.log(size) for size in sizes], [math.log(value) for value in costs]
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    above = sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True))
    return above / sum((a - x) ** 2 for a in xs)


def growth(title: str, unit: Unit, costs: dict[int, float], *, of: str) -> Group:
    """Row 10: what 1, 2, 5, 10 times the work costs, and the exponent. ``costs``: size -> cost
    in the unit's base; ``of``: what is counted, as in "tasks"."""
    power = exponent(list(costs), list(costs.values()))
    return Group(
        10,
        title,
        tuple(Series(f"{size:,} {of}", (cost,)) for size, cost in costs.items()),
        unit,
        notes=(f"It grows with the {of} to the power of {power:.2f}.",),
    )
