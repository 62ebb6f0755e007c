"""A trace: what tasks came, when, and how long they ran. Times are seconds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from cloudai.core.errors import InvalidInput
from cloudai.core.model import NORMAL_PRIORITY, Placement
from cloudai.core.schedule import Shape

MOST_SHOWN = 20
"""Faults of a file that are told one by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A task of a trace. One too wide for any worker has several parts, which start together."""

    id: str
    user: str
    submitted: float
    """On whatever clock the trace has: only differences count."""
    runtime: float | None
    """How long it ran; ``None``: not known, so it cannot be replayed."""
    parts: tuple[Shape, ...]
    priority: int = NORMAL_PRIORITY
    name: str | None = None
    group: str | None = None
    """Jobs of one group start together, or none does."""
    placement: Placement = Placement.PACK

    @property
    def shape(self) -> Shape:
        """Of its first part."""
        return self.parts[0]

    @property
    def cpu_milli(self) -> int:
        return sum(part.resources.cpu_milli for part in self.parts)

    @property
    def gpu_milli(self) -> int:
        return sum(part.resources.gpu_milli for part in self.parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """What a file, or the store, said."""

    source: str
    jobs: tuple[Job, ...]
    """By submission; of those at the same moment, as written."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Why a line is no job -> how many are so."""
    notes: tuple[str, ...] = ()
    """How the trace was read, where there was a choice."""
    header: dict[str, str] = field(default_factory=dict)
    """What an SWF file says of its machine."""
    kind: str = "ours"
    """``ours``, ``history``, ``swf`` or ``openb``."""


def by_submission(jobs: Sequence[Job]) -> tuple[Job, ...]:
    """In the order in which they came."""
    return tuple(sorted(jobs, key=lambda job: job.submitted))


class Faults:
    """Gathers what cannot be meant in a file, each with its line."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.found: list[tuple[int, str]] = []

    def add(self, line: int, text: str) -> None:
        self.found.append((line, text))

    def settle(self) -> None:
        """Raises ``InvalidInput`` with a line for each, if there are any."""
        if not self.found:
            return
        shown = [f"{self.source}:{line}: {text}" for line, text in self.found[:MOST_SHOWN]]
        if len(self.found) > MOST_SHOWN:
            shown.append(f"{self.source}: and {len(self.found) - MOST_SHOWN} more of the kind")
        raise InvalidInput("\n".join(shown), lines=[line for line, _ in self.found[:MOST_SHOWN]])
