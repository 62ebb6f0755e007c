"""A task's story: what happened, in the words that ``cloudai show`` prints."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from cloudai.core.lifecycle import (
    RESTARTED,
    Adopted,
    Event,
    Exited,
    Gone,
    Lost,
    Placed,
    Refused,
    Restarted,
    Started,
    StartFailed,
    StopAsked,
    Unmet,
    why_it_failed,
)
from cloudai.core.model import State, Task


@dataclass(frozen=True, slots=True)
class EventRow:
    """One line of it."""

    at: datetime
    what: str
    """One word for programs."""
    text: str
    """For people; may be empty."""


def tell(event: Event, before: Task, after: Task) -> list[EventRow]:
    """What an event means that moved a task from one standing to another, in words."""
    lines = [_line(event)]
    if after.failures > before.failures:
        text = after.reason.rpartition("; ")[2]
        lines.append(EventRow(event.at, "tried again", text))
    elif before.requeue and after.state is State.QUEUED:
        lines.append(EventRow(event.at, "queued again", after.reason))
    return lines


def _line(event: Event) -> EventRow:
    match event:
        case Placed():
            what, text = "placed", f"on {event.worker_id}"
        case Refused():
            what, text = "refused", event.reason
        case Started():
            gpus = f" with {', '.join(event.gpus)}" if event.gpus else ""
            what, text = "started", f"container {event.container_id[:12]}{gpus}"
        case StartFailed():
            what, text = "start_failed", event.reason
        case Exited(over=over) if over:
            what, text = "exited", f"{over} (exit code {event.exit_code})"
        case Exited(exit_code=0, error=""):
            what, text = "exited", "exit code 0"
        case Exited():
            what, text = "exited", why_it_failed(event)
        case StopAsked(requeue=True):
            what, text = "preempted", event.reason.removeprefix("preempted: ")
        case StopAsked():
            what, text = "stop_asked", event.reason or "by the user"
        case Gone():
            what, text = "gone", event.reason or "no container is left"
        case Restarted():
            what, text = "restarted", RESTARTED
        case Lost():
            back = "; back to the queue" if event.requeue else ""
            what, text = "lost", f"{event.reason}{back}"
        case Adopted():
            what, text = "adopted", f"container {event.container_id[:12]} on {event.worker_id}"
        case Unmet():
            what, text = "left out" if event.skip else "not started", event.reason
    return EventRow(event.at, what, text)
