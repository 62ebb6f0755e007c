"""What a replay comes to in numbers, and over time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .replay import Outcome, Sample

BOUND = 10.0
"""Seconds: shorter tasks count as that long in the slowdown."""
BINS = 400
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One row of the comparison. Times in seconds, parts from 0 to 1; ``None``: nothing to
    measure."""

    name: str
    tasks: int
    placed: int
    never: Counter[str]
    """Why a task was never placed -> how many."""
    wait_mean: float | None
    wait_median: float | None
    wait_95: float | None
    slowdown_mean: float | None
    """(waiting + run time) / run time, at least 1; see ``BOUND``."""
    slowdown_95: float | None
    cpus: float | None
    gpus: float | None
    """The part of the fleet in use, mean over the whole time."""
    fragmentation: float | None
    """The part of all GPUs that is free and of no use to a task of the trace; see
    ``fragments``."""
    makespan: float
    """From the first submission to the last end."""
    preempted: int
    at_limit: int
    not_counted: Counter[str]
    series: dict[str, list[float]]
    """``cpus``, ``gpus``, ``fragmentation`` and ``waiting``, each the mean of one of ``BINS``
    equal parts of the makespan."""

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        plain = {key: getattr(self, key) for key in self.__slots__ if key != "series"}
        rounded = {
            key: round(value, 6) if isinstance(value, float) else value
            for key, value in plain.items()
        }
        series = {key: [round(one, 6) for one in found] for key, found in self.series.items()}
        return {
            **rounded,
            "never": dict(self.never),
            "never_placed": sum(self.never.values()),
            "not_counted": dict(+self.not_counted),
            "series": series,
        }


def summary_of(outcome: Outcome) -> Summary:
    """The row of one replay."""
    waits, slowdowns = _waits(outcome)
    samples = outcome.samples
    span = samples[-1].at - samples[0].at if samples else 0.0
    total = outcome.total
    with_gpus = bool(total.gpu_milli) and outcome.wants_gpus
    return Summary(
        name=outcome.name,
        tasks=len(outcome.fates),
        placed=len(waits),
        never=Counter(fate.why for fate in outcome.fates if fate.start is None),
        wait_mean=_mean(waits),
        wait_median=_percentile(waits, 50),
        wait_95=_percentile(waits, 95),
        slowdown_mean=_mean(slowdowns),
        slowdown_95=_percentile(slowdowns, 95),
        cpus=_use([one.cpu for one in samples], samples, total.cpu_milli),
        gpus=_use([one.gpu for one in samples], samples, total.gpu_milli),
        fragmentation=_use([one.fragments for one in samples], samples, total.gpu_milli)
        if with_gpus
        else None,
        makespan=span,
        preempted=sum(fate.preempted for fate in outcome.fates),
        at_limit=outcome.at_limit,
        not_counted=outcome.not_counted,
        series=_series(outcome) if span else {},
    )


def _waits(outcome: Outcome) -> tuple[list[float], list[float]]:
    waits, slowdowns = [], []
    for fate in outcome.fates:
        if fate.start is not None and fate.end is not None:
            wait, ran = fate.start - fate.job.submitted, fate.end - fate.start
            waits.append(wait)
            slowdowns.append(max(1.0, (wait + ran) / max(ran, BOUND)))
    return waits, slowdowns


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _percentile(values: Sequence[float], part: float) -> float | None:
    return float(np.percentile(values, part)) if values else None


def _use(values: Sequence[float], samples: Sequence[Sample], whole: int) -> float | None:
    """Mean over time, as a part of the whole."""
    if not whole or not samples:
        return None
    found = binned(values, samples, 1)
    return max(0.0, float(found[0])) / whole


def binned(values: Sequence[float], samples: Sequence[Sample], bins: int) -> Floats:
    """The mean of each of so many equal parts of the time that the samples span."""
    at = np.array([one.at for one in samples])
    at -= at[0]
    if at[-1] <= 0:
        return np.full(bins, float(values[-1]))
    area = np.concatenate([[0.0], np.cumsum(np.array(values[:-1], np.float64) * np.diff(at))])
    edges = np.linspace(0.0, at[-1], bins + 1)
    means: Floats = np.diff(np.interp(edges, at, area)) / (at[-1] / bins)
    return means


def _series(outcome: Outcome) -> dict[str, list[float]]:
    samples, total = outcome.samples, outcome.total
    found = {"cpus": binned([one.cpu for one in samples], samples, BINS) / (total.cpu_milli or 1)}
    if total.gpu_milli:
        found["gpus"] = binned([one.gpu for one in samples], samples, BINS) / total.gpu_milli
    if total.gpu_milli and outcome.wants_gpus:
        lost = binned([one.fragments for one in samples], samples, BINS)
        found["fragmentation"] = lost / total.gpu_milli
    found["waiting"] = binned([one.waiting for one in samples], samples, BINS)
    return {key: np.maximum(values, 0.0).tolist() for key, values in found.items()}
