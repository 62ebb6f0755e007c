"""The only state machine: what can happen to a task, and what it then is.

::

    queued ──Placed──► starting ──Started──► running ──Exited(0)──► completed
      │ ▲                 │ │                  │  │ └───Exited(n)──► failed
      │ ├────Refused──────┘ └─StartFailed─► failed└─Gone, Restarted─► failed
      │ └────Lost(requeue), from any worker;  Lost ─► failed | cancelled
      └──StopAsked──► cancelled   StopAsked ──► stopping ──Exited/Gone──► cancelled | failed
      Adopted: queued ──► running

``advance`` is total: an event that does not apply to the task as it stands now is stale news
and answers ``None``; nobody may then write anything.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from .model import Assignment, State, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """The scheduler, or a person, chose a worker. Recorded before anything is sent."""

    at: datetime
    worker_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The worker admits it not now. Costs no retry; a dispatched task fails by it."""

    at: datetime
    number: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """Its container runs."""

    at: datetime
    number: int
    container_id: str
    gpus: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StartFailed:
    """It cannot run: no such image, no such command, no GPU runtime, ..."""

    at: datetime
    number: int
    reason: str
    exit_code: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Exited:
    """Its container really started and really ended. Read whole, about that container id."""

    at: datetime
    number: int
    container_id: str
    exit_code: int | None
    """``None``: the engine has no record of it."""
    oom_killed: bool = False
    error: str = ""
    started_at: datetime | None = None
    memory: int = 0
    """The limit it had, in bytes, for the words of an out-of-memory end."""
    over: str = ""
    """Why it was stopped, where its worker did that by itself: its time limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StopAsked:
    """By the user (empty reason) or by a limit (the reason)."""

    at: datetime
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gone:
    """There is no container, or there is one that never started, and there will be none."""

    at: datetime
    number: int
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restarted:
    """Its container was started again by someone else: what it now does is another run."""

    at: datetime
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """Its worker cannot be reached, and the assignment is given up: as the task's owner chose
    beforehand, or by a person's word that it is gone for good."""

    at: datetime
    number: int
    reason: str
    requeue: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopted:
    """A person says that this container, which no assignment claims, is the task's."""

    at: datetime
    number: int
    worker_id: str
    container_id: str
    gpus: tuple[str, ...] = ()


Event = (
    Placed
    | Refused
    | Started
    | StartFailed
    | Exited
    | StopAsked
    | Gone
    | Restarted
    | Lost
    | Adopted
)


RESTARTED = "restarted on the worker by someone else: how it ended is not known"
"""Why a task failed whose container ran a second time."""


def advance(task: Task, event: Event) -> Task | None:
    """The task after the event, or ``None`` for stale news. Pure.

    Events that carry an assignment's number apply to that assignment only.
    """
    if isinstance(event, Adopted):
        return _adopted(task, event)
    number = getattr(event, "number", None)
    if number is not None and (task.assignment is None or task.assignment.number != number):
        return None
    match event, task.state:
        case Placed(), State.QUEUED:
            return replace(
                task,
                state=State.STARTING,
                reason="",
                exit_code=None,
                assignment=Assignment(
                    task_id=task.id,
                    number=(task.assignment.number if task.assignment else 0) + 1,
                    worker_id=event.worker_id,
                    placed_at=event.at,
                ),
            )
        case Refused(), State.STARTING:
            if task.direct:
                return _end(task, State.FAILED, event.at, event.reason, harvested=True)
            return replace(
                _close(task, event.at, event.reason, harvested=True),
                state=State.QUEUED,
                reason=event.reason,
            )
        case Started(), State.STARTING:
            return _started(task, event.at, event.container_id, event.gpus, State.RUNNING)
        case Started(), State.STOPPING:
            return _started(task, event.at, event.container_id, event.gpus, State.STOPPING)
        case StartFailed(), State.STARTING:
            return _end(
                task,
                State.FAILED,
                event.at,
                event.reason,
                exit_code=event.exit_code,
                harvested=True,
            )
        case StartFailed(), State.STOPPING:
            return _end(task, _after_stop(task), event.at, task.stop_reason, harvested=True)
        case Exited(), State.STARTING | State.RUNNING | State.STOPPING:
            return _exited(task, event)
        case StopAsked(), State.QUEUED:
            state = State.FAILED if event.reason else State.CANCELLED
            return replace(
                task, state=state, reason=event.reason or "cancelled", completed_at=event.at
            )
        case StopAsked(), State.STARTING | State.RUNNING:
            return replace(task, state=State.STOPPING, stop_reason=event.reason)
        case StopAsked(), State.STOPPING if not event.reason and task.stop_reason:
            return None
        case Gone(), State.STOPPING:
            return _end(task, _after_stop(task), event.at, task.stop_reason, harvested=True)
        case Gone(), State.RUNNING:
            return _end(
                task,
                State.FAILED,
                event.at,
                event.reason or "its container is gone",
                harvested=True,
            )
        case Restarted(), State.RUNNING:
            return _end(task, State.FAILED, event.at, RESTARTED)
        case Lost(), State.STARTING | State.RUNNING | State.STOPPING:
            return _lost(task, event)
        case _:
            return None


def _lost(task: Task, event: Lost) -> Task:
    assert task.assignment is not None
    given_up = replace(task, assignment=replace(task.assignment, lost=True))
    if task.state is State.STOPPING:
        return _end(given_up, _after_stop(task), event.at, task.stop_reason)
    if event.requeue and not task.direct:
        return replace(
            _close(given_up, event.at, event.reason),
            state=State.QUEUED,
            reason=event.reason,
            started_at=None,
        )
    return _end(given_up, State.FAILED, event.at, event.reason)


def _adopted(task: Task, event: Adopted) -> Task | None:
    last = task.assignment.number if task.assignment else 0
    if task.state is not State.QUEUED or event.number <= last:
        return None
    assignment = Assignment(
        task_id=task.id, number=event.number, worker_id=event.worker_id, placed_at=event.at
    )
    return _started(
        replace(task, assignment=assignment),
        event.at,
        event.container_id,
        event.gpus,
        State.RUNNING,
    )


def _after_stop(task: Task) -> State:
    return State.FAILED if task.stop_reason else State.CANCELLED


def _started(
    task: Task, at: datetime, container_id: str, gpus: tuple[str, ...], state: State
) -> Task:
    assert task.assignment is not None
    return replace(
        task,
        state=state,
        reason="",
        started_at=at,
        assignment=replace(task.assignment, container_id=container_id, gpus=gpus, started_at=at),
    )


def _exited(task: Task, event: Exited) -> Task | None:
    assert task.assignment is not None
    known = task.assignment.container_id
    if known is not None and known != event.container_id:
        return None
    if known is None:
        task = _started(
            task,
            event.started_at or event.at,
            event.container_id,
            task.assignment.gpus,
            task.state,
        )
    if task.state is State.STOPPING:
        state, reason = _after_stop(task), task.stop_reason
    elif event.over:
        state, reason = State.FAILED, event.over
    elif event.exit_code == 0 and not event.error:
        state, reason = State.COMPLETED, ""
    else:
        state, reason = State.FAILED, why_it_failed(event)
    return _end(task, state, event.at, reason, exit_code=event.exit_code)


def why_it_failed(event: Exited) -> str:
    """The end of a container, in words. 137 alone is not out-of-memory (facts, 18)."""
    code = event.exit_code
    if event.error:
        return event.error
    if code is None:
        return "no record of how it ended"
    if event.oom_killed:
        limit = f" (limit {event.memory / 2**30:.2f} GB)" if event.memory else ""
        return f"out of memory{limit}: killed by the kernel; ask for more with -mem"
    if code == 126:
        return "exit code 126: the command was found and could not be executed"
    if code == 127:
        return "exit code 127: command not found, in the image or by its shell"
    if code == 137:
        return "exit code 137: killed (SIGKILL) by someone, not for lack of memory"
    if code == 143:
        return "exit code 143: ended by SIGTERM"
    if 128 < code < 160:
        return f"exit code {code}: ended by signal {code - 128}"
    return f"exit code {code}"


def _close(
    task: Task,
    at: datetime,
    reason: str,
    *,
    exit_code: int | None = None,
    harvested: bool = False,
) -> Task:
    """Ends the present assignment."""
    if task.assignment is None:
        return task
    return replace(
        task,
        assignment=replace(
            task.assignment, ended_at=at, exit_code=exit_code, reason=reason, harvested=harvested
        ),
    )


def _end(
    task: Task,
    state: State,
    at: datetime,
    reason: str,
    *,
    exit_code: int | None = None,
    harvested: bool = False,
) -> Task:
    if state is State.CANCELLED and not reason:
        reason = "cancelled"
    return replace(
        _close(task, at, reason, exit_code=exit_code, harvested=harvested),
        state=state,
        reason=reason,
        completed_at=at,
        exit_code=exit_code,
    )
