"""What was asked, answered and seen while faults were injected: the evidence of the checker.

Nothing here is taken from the product's memory but what it *told* (``Told``): containers are as
their engines describe them, and that a job really ran is written down by the job itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

WHOLE_GPU = 1000
"""Thousandths."""


class Answer(StrEnum):
    """How something that was asked ended, as far as the asker knows."""

    OK = "ok"
    FAILED = "failed"
    """It was refused: nothing of it may have happened."""
    UNKNOWN = "unknown"
    """No whole answer: it may have happened, or may yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One thing that was asked of a controller."""

    verb: str
    began: float
    """Seconds of one monotonic clock, as all times here."""
    ended: float
    answer: Answer
    task_id: str = ""
    """Of the task it was about or made, where that was answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """One container with our labels as its engine describes it at one moment."""

    name: str
    id: str
    task_id: str
    store_id: str
    state: str
    """The engine's word: created, running, paused, exited, dead."""
    started_at: str = ""
    """The engine's text; empty where it never started."""
    exit_code: int = 0
    error: str = ""
    pid: int = 0
    cpu_milli: int = 0
    memory: int = 0
    gpu_milli: int = 0
    gpus: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        return self.state not in ("exited", "dead", "removing")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """All containers of ours on one worker, read whole."""

    at: float
    worker: str
    containers: tuple[Container, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Deed:
    """One line of an engine's own stream of events."""

    worker: str
    action: str
    """create, start, die, destroy, ..."""
    name: str
    id: str
    exit_code: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A task as a controller told it."""

    at: float
    home: str
    task_id: str
    state: str
    exit_code: int | None = None
    reason: str = ""
    container_id: str | None = None
    assignment: str = ""
    lost: bool = False
    """Its worker, or its container there, was given up."""

    @property
    def final(self) -> bool:
        return self.state in ("completed", "failed", "cancelled")


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What a worker has."""

    cpu_milli: int
    memory: int
    gpus: int = 0


@dataclass(slots=True)
class History:
    """All evidence of one run. Times never go back within a list."""

    operations: list[Operation] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    deeds: list[Deed] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    at_the_end: dict[str, Told] = field(default_factory=dict)
    """Every task that was there at the end, by id."""
    rooms: dict[str, Room] = field(default_factory=dict)
    began: dict[str, int] = field(default_factory=dict)
    """task -> how often its process began in one try, as the process itself wrote down."""
    ended_well: set[str] = field(default_factory=set)
    """Tasks whose process wrote down that it came to its end."""
    archived: dict[str, bytes] = field(default_factory=dict)
    """task -> the log that is at home at the end."""
    expected: dict[str, bytes] = field(default_factory=dict)
    """task -> every byte its process writes when it comes to its end."""
    earlier_archived: dict[str, bytes] = field(default_factory=dict)
    """assignment -> the log at home of a try that was not the last one."""
    earlier_expected: dict[str, bytes] = field(default_factory=dict)
    """assignment -> every byte that such a try wrote, where it came to an end."""
    may_be_lost: set[str] = field(default_factory=set)
    """Tasks whose owner, or a person, allowed to give up a worker that is out of reach."""
    touched: set[str] = field(default_factory=set)
    """Tasks whose container a person started again by hand: its starts are not ours."""
    forgotten: set[str] = field(default_factory=set)
    """Tasks that were asked to be forgotten."""
    meddled: set[str] = field(default_factory=set)
    """Tasks whose container a person removed: its end and its log may be unknown."""
    unrecorded: set[str] = field(default_factory=set)
    """Tasks whose container a person removed before its start could be recorded: whoever comes
    next cannot know that it ran."""
    lossy: set[str] = field(default_factory=set)
    """Tasks of whose log the engine itself dropped a part."""
    left: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """worker -> what of ours is still there at the end, by name."""

    def containers(self) -> Iterable[Container]:
        for sample in self.samples:
            yield from sample.containers
