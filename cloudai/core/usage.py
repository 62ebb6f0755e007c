"""What users have used, and how long tasks of a kind take where: sums of assignments that are
over, kept up to date one by one. Pure; ``now`` is an argument.

Use counts from an assignment's start to its end, as much as its task asked for, and decays: what
was used a ``half_life`` ago counts half. Exactly so for each moment of a run, not only its end.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from .model import Resources, State, Task, TaskSpec
from .policy import DAY, HOUR

LONGEST_KIND = 255
MOST_HALF_LIVES = 500.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """Amounts times seconds, decayed."""

    cpu: float = 0.0
    """Core-seconds."""
    memory: float = 0.0
    """Byte-seconds."""
    gpu: float = 0.0
    """GPU-seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """An assignment that is over, and how much it held while it ran."""

    user_id: str
    kind: str
    worker_id: str
    resources: Resources
    started_at: datetime
    ended_at: datetime
    completed: bool
    """It ended well: only then its time says how long its kind takes."""

    @property
    def seconds(self) -> float:
        """How long it ran; a clock that went backwards makes it nothing."""
        return max(0.0, (self.ended_at - self.started_at).total_seconds())


def kind_of(spec: TaskSpec) -> str:
    """Tasks of one kind take about as long on one worker: its task type, or else its image and
    its command's first word."""
    return kind_from(spec.image, spec.shell, spec.argv, spec.task_type)


def kind_from(
    image: str, shell: str | None, argv: Sequence[str], task_type: str | None = None
) -> str:
    """As ``kind_of``, of the parts of a spec that it needs."""
    if task_type is not None:
        return f"type: {task_type}"  # no image has such a name
    words = argv if shell is None else shell.split(maxsplit=1)
    return f"{image} {words[0] if words else ''}".strip()[:LONGEST_KIND]


def run_of(task: Task) -> Run | None:
    """What the task's latest assignment adds to the sums, once it is over and if it ran."""
    held = task.assignment
    if held is None or held.started_at is None or held.ended_at is None:
        return None
    return Run(
        user_id=task.spec.user_id,
        kind=kind_of(task.spec),
        worker_id=held.worker_id,
        resources=task.spec.resources,
        started_at=held.started_at,
        ended_at=held.ended_at,
        completed=task.state is State.COMPLETED,
    )


def use_of(
    resources: Resources,
    started_at: datetime,
    ended_at: datetime,
    *,
    now: datetime,
    half_life: float,
) -> Used:
    """What holding so much in that time counts for now. For one that still runs, ``ended_at``
    is now."""
    ran = max(0.0, (ended_at - started_at).total_seconds())
    since = max(0.0, (now - ended_at).total_seconds())
    # The integral of 0.5 ** (age / half_life) over the run.
    rate = math.log(2) / half_life
    weight = math.exp(-rate * since) * -math.expm1(-rate * ran) / rate
    return Used(
        cpu=resources.cpus * weight, memory=resources.memory * weight, gpu=resources.gpus * weight
    )


def gpu_hours_within(
    resources: Resources,
    started_at: datetime,
    ended_at: datetime,
    *,
    now: datetime,
    window: float = DAY,
) -> float:
    """GPU-hours of that run within the last ``window`` seconds. For one that still runs,
    ``ended_at`` is now."""
    begin = max(started_at, now - timedelta(seconds=window))
    return max(0.0, (ended_at - begin).total_seconds()) / HOUR * resources.gpus


class Ledger:
    """The sums. ``add`` each run that is over once, in any order; that costs the same however
    many there were before."""

    def __init__(self, half_life: float) -> None:
        """``half_life``: seconds."""
        self.half_life = half_life
        self._origin: datetime | None = None
        self._latest: datetime | None = None
        """When the last of them ended: no use counts for more than it did then."""
        self._used: defaultdict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
        """user -> CPU, memory, GPU, as if it had been ``_origin`` when each run ended."""
        self._recent: list[Run] = []
        """Those with GPUs that ended within the last day, as far as it is known."""
        self._times: defaultdict[str, dict[str, tuple[int, float]]] = defaultdict(dict)
        """kind -> worker -> how many completed there, and seconds in all."""

    def add(self, run: Run) -> None:
        """Counts a run that is over."""
        scale = self._scale(run.ended_at)
        more = use_of(
            run.resources, run.started_at, run.ended_at, now=run.ended_at, half_life=self.half_life
        )
        used = self._used[run.user_id]
        for at, amount in enumerate((more.cpu, more.memory, more.gpu)):
            used[at] += amount * scale
        if run.resources.gpu_milli:
            self._recent.append(run)
        if run.completed:
            count, total = self._times[run.kind].get(run.worker_id, (0, 0.0))
            self._times[run.kind][run.worker_id] = (count + 1, total + run.seconds)

    def usage(self, now: datetime) -> dict[str, Used]:
        """user -> what their runs that are over count for now."""
        if self._origin is None or self._latest is None:
            return {}
        left = math.pow(0.5, self._half_lives(max(now, self._latest)))
        return {
            user: Used(cpu=used[0] * left, memory=used[1] * left, gpu=used[2] * left)
            for user, used in self._used.items()
        }

    def gpu_hours(self, now: datetime) -> dict[str, float]:
        """user -> GPU-hours within the last 24 hours, of runs that are over."""
        horizon = now - timedelta(seconds=DAY)
        self._recent = [run for run in self._recent if run.ended_at > horizon]
        found: defaultdict[str, float] = defaultdict(float)
        for run in self._recent:
            found[run.user_id] += gpu_hours_within(
                run.resources, run.started_at, run.ended_at, now=now
            )
        return dict(found)

    def run_times(self, kind: str) -> dict[str, float]:
        """worker -> mean seconds that completed runs of that kind took there."""
        times = self._times.get(kind, {})
        return {worker: total / count for worker, (count, total) in times.items()}

    def _half_lives(self, at: datetime) -> float:
        assert self._origin is not None
        return (at - self._origin).total_seconds() / self.half_life

    def _scale(self, ended_at: datetime) -> float:
        """What a unit of use at that moment counts as at the origin, which moves on before
        numbers grow beyond what a float holds."""
        if self._origin is None or self._latest is None:
            self._origin = self._latest = ended_at
        self._latest = max(self._latest, ended_at)
        if (ahead := self._half_lives(ended_at)) > MOST_HALF_LIVES:
            for used in self._used.values():
                used[:] = [amount * 0.5 ** min(ahead, 1000.0) for amount in used]
            self._origin = ended_at
        return math.pow(2.0, max(-1000.0, self._half_lives(ended_at)))
