"""What a scheduling decision rests on, and what comes of it. Times are seconds since the epoch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from operator import attrgetter
from types import MappingProxyType
from typing import Any

from cloudai.core.capacity import WHOLE, Free, empty_free
from cloudai.core.gpus import ANY, Wish
from cloudai.core.model import (
    LOWEST_PRIORITY,
    NORMAL_PRIORITY,
    Placement,
    Resources,
    Strategy,
    Task,
)

NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """All of a task that decides where it fits and how workers are ranked for it.

    Tasks of one shape are alike to the scheduler: what was found out for one holds for all.
    """

    resources: Resources
    strategy: Strategy | None = None
    target: str | None = None
    nodes: tuple[str, ...] = ()
    gpu_model: str | None = None
    gpu_memory: int | None = None
    require: tuple[str, ...] = ()
    avoid: tuple[str, ...] = ()
    near: tuple[str, ...] = ()
    apart: tuple[str, ...] = ()
    image: str = ""
    kind: str = ""
    """Tasks of one kind take alike long on one worker."""
    preemptible: bool = False
    limit: float | None = None
    """Seconds after which it surely ends."""
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash(_COMPARED(self)))

    def __hash__(self) -> int:
        """Worked out once: each task of a queue is looked up by it, again and again."""
        return self._hash

    @property
    def wish(self) -> Wish:
        if self.gpu_model is None and self.gpu_memory is None:
            return ANY
        return Wish(self.gpu_model, self.gpu_memory)


_COMPARED = attrgetter(*(one.name for one in fields(Shape) if one.compare))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A waiting task."""

    id: str
    user: str
    shape: Shape
    priority: int = NORMAL_PRIORITY
    since: float = 0.0
    """When it was submitted."""
    position: int = 0
    """Its place in the order of submission."""
    name: str | None = None
    held: str = ""
    """Why it is not to be placed yet, whatever is free (a need that is not met)."""
    group: str | None = None
    group_size: int = 1
    group_rank: int = 0
    placement: Placement = Placement.PACK
    refused: Mapping[str, str] = field(default_factory=dict)
    """worker -> why it did not admit this task a moment ago."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A task that holds a part of a worker."""

    id: str
    user: str
    resources: Resources
    wish: Wish = ANY
    name: str | None = None
    priority: int = NORMAL_PRIORITY
    preemptible: bool = False
    ending: bool = False
    """It is being stopped: its part will be free soon."""
    ours: bool = True
    """False where another cloudai placed it: seen, respected, never touched."""
    started: float = 0.0
    ends: float | None = None
    """When it surely has ended, by its time limit."""
    devices: tuple[int, ...] = ()
    """Which of the worker's ``Free.devices`` it holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """A part of a worker that is kept for somebody."""

    id: str
    user: str | None
    """``None``: everybody."""
    resources: Resources
    until: float = float("inf")
    priority: int = LOWEST_PRIORITY
    """For tasks of at least that."""

    def is_for(self, user: str, priority: int) -> bool:
        """Whether a task may have of it by right."""
        return self.user in (None, user) and priority >= self.priority

    @property
    def whose(self) -> str:
        """``ann``, ``tasks of priority 75 and higher``, ``ann's tasks of …``."""
        if self.priority == LOWEST_PRIORITY:
            return self.user or "everybody"
        tasks = f"{self.user}'s tasks" if self.user else "tasks"
        return f"{tasks} of priority {self.priority} and higher"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A worker as the scheduler sees it: what is free, or why it takes no tasks now."""

    worker_id: str
    free: Free | None
    closed: str = ""
    """Why no task may go there (``draining``, ``unreachable since 12:03``), empty when open."""
    labels: Mapping[str, str] = field(default_factory=dict)
    pools: tuple[str, ...] = ()
    """Groups of the inventory it is in."""
    images: frozenset[str] = frozenset()
    load: float = 0.0
    """Runnable processes a core, as measured."""
    running: tuple[Running, ...] = ()
    """Everything that holds a part of it."""
    reserved: tuple[Reservation, ...] = ()

    def facts(self) -> dict[str, tuple[str, ...]]:
        """What expressions are held against: labels, and what the worker is."""
        facts: dict[str, tuple[str, ...]] = {key: (value,) for key, value in self.labels.items()}
        facts["worker"] = (self.worker_id,)
        facts["pool"] = self.pools
        if self.free is not None:
            models = dict.fromkeys(use.gpu.model for use in self.free.gpus if use.gpu.model)
            facts["gpu_model"] = tuple(models)
            facts["gpus"] = (str(self.free.total.gpu_milli // WHOLE),)
            facts["cpus"] = (f"{self.free.total.cpus:g}",)
            facts["memory"] = (f"{self.free.total.memory_gib:g}",)
        return facts


def empty_place(
    worker_id: str,
    *,
    total: Resources,
    devices: Iterable[tuple[str, int | None]] = (),
    labels: Mapping[str, str] = NOTHING,
    pools: tuple[str, ...] = (),
) -> Place:
    """A worker with nothing on it. ``devices``: (model, bytes of memory) of each GPU."""
    return Place(worker_id=worker_id, free=empty_free(total, devices), labels=labels, pools=pools)


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What somebody has used, older use counting less: what ``Policy.half_life`` makes of it."""

    cpu_seconds: float = 0.0
    """Cores times seconds."""
    memory_seconds: float = 0.0
    """Bytes times seconds."""
    gpu_seconds: float = 0.0
    gpu_hours_today: float = 0.0
    """Within the last 24 hours, not decayed."""


@dataclass(frozen=True, slots=True)
class Placing:
    """Send this task there."""

    task_id: str
    worker_id: str


@dataclass(frozen=True, slots=True)
class Preempting:
    """Stop this task, and put it back in the queue: its room is for another."""

    task_id: str
    for_task: str
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do, for someone else to carry out."""

    placements: list[Placing] = field(default_factory=list)
    """In the order in which they were decided."""
    preempt: list[Preempting] = field(default_factory=list)
    waiting: Mapping[str, str] = field(default_factory=dict)
    """task -> why it waits, in one line."""


_OF_SPEC = (
    *("resources", "strategy", "target", "nodes", "gpu_model", "gpu_memory", "require", "avoid"),
    *("near", "apart", "image", "preemptible"),
)
_VALUES_OF_SPEC = attrgetter(*_OF_SPEC, "time_limit")


def shape_of(task: Task, kind: str = "") -> Shape:
    """What of a task the scheduler looks at: the same object for tasks that are alike."""
    return _shape(kind, *_VALUES_OF_SPEC(task.spec))


@lru_cache(maxsize=1024)
def _shape(kind: str, *values: Any) -> Shape:
    return Shape(kind=kind, **dict(zip((*_OF_SPEC, "limit"), values, strict=True)))


def ask_of(
    task: Task,
    position: int,
    *,
    kind: str = "",
    held: str = "",
    refused: Mapping[str, str] = NOTHING,
) -> Ask:
    """A queued task as the scheduler sees it."""
    spec = task.spec
    return Ask(
        id=task.id,
        user=spec.user_id,
        shape=shape_of(task, kind),
        priority=spec.priority,
        since=task.created_at.timestamp(),
        position=position,
        name=spec.name,
        held=held,
        group=spec.group,
        group_size=spec.group_size,
        group_rank=spec.group_rank,
        placement=spec.placement,
        refused=refused,
    )
