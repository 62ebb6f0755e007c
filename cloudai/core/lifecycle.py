"""The only state machine: what can happen to a task, and what it then is.

::

    queued ──Placed──► starting ──Started──► running ──Exited(0)──► completed
      │ ▲                 │ │                  │  │ └───Exited(n)──► failed
      │ ├────Refused──────┘ └─StartFailed─► failed└─Gone, Restarted─► failed
      │ └────Lost(requeue), from any worker;  Lost ─► failed | cancelled
      └──StopAsked──► cancelled   StopAsked ──► stopping ──Exited/Gone──► cancelled | failed
      Adopted: queued ──► running           Unmet: queued ──► cancelled

Two ways lead back to the queue besides. Where retries are left for that cause, a bad end
(Exited, StartFailed, Gone, Lost) goes there instead of to failed, counts a failure and waits
until ``not_before``. And what is stopped because its place is needed (StopAsked with
``requeue``) goes there once its container has ended, and counts none; a user's cancel in
between wins, and one that completed before it was told to stop is completed.

``advance`` is total: an event that does not apply to the task as it stands now is stale news
and answers ``None``; nobody may then write anything.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from .model import Assignment, Cause, State, Task
from .retry import cause_of, next_try, pause, tries_again, tries_elsewhere


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
    cause: Cause = Cause.START
    """``START`` or ``PULL``."""


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
    """Why it was stopped, where its worker did that by itself: its time limit, its silence."""
    hung: bool = False
    """That was its silence: another try may do better."""
    seen_at: datetime | None = None
    """When that was seen, by this machine's clock; ``at`` is by the worker's."""
    by_itself: bool = False
    """It surely ended before anything told it to stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StopAsked:
    """By the user (empty reason), by a limit (the reason), or, with ``requeue``, because its
    place is needed: then it goes back to the queue for that reason."""

    at: datetime
    reason: str = ""
    requeue: bool = False


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmet:
    """What it needs can no longer come: it will not start. ``skip``: that is as it should be."""

    at: datetime
    reason: str
    skip: bool = False


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
    | Unmet
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
                not_before=None,
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
            return _failed(
                task,
                event.at,
                event.reason,
                event.cause,
                exit_code=event.exit_code,
                harvested=True,
            )
        case StartFailed() | Gone(), State.STOPPING:
            return _stopped(task, event.at, harvested=True)
        case Exited(), State.STARTING | State.RUNNING | State.STOPPING:
            return _exited(task, event)
        case StopAsked(), _:
            return _stop_asked(task, event)
        case Unmet(), State.QUEUED:
            word = "left out" if event.skip else "not started"
            ended = _end(task, State.CANCELLED, event.at, f"{word}: {event.reason}", close=False)
            return replace(ended, skipped=event.skip)
        case Gone(), State.RUNNING:
            why = event.reason or "its container is gone"
            return _failed(task, event.at, why, Cause.LOST, harvested=True)
        case Restarted(), State.RUNNING:
            return _end(task, State.FAILED, event.at, RESTARTED)
        case Lost(), State.STARTING | State.RUNNING | State.STOPPING:
            return _lost(task, event)
        case _:
            return None


def _stop_asked(task: Task, event: StopAsked) -> Task | None:
    if event.requeue and task.direct:
        return None  # a dispatched task never waits in the queue
    match task.state:
        case State.QUEUED if not event.requeue:
            state = State.FAILED if event.reason else State.CANCELLED
            return _end(task, state, event.at, event.reason, close=False)
        case State.STARTING | State.RUNNING:
            return replace(
                task, state=State.STOPPING, stop_reason=event.reason, requeue=event.requeue
            )
        case State.STOPPING if task.requeue and not event.requeue:
            return replace(task, stop_reason=event.reason, requeue=False)
        case _:
            return None


def _lost(task: Task, event: Lost) -> Task:
    assert task.assignment is not None
    given_up = replace(task, assignment=replace(task.assignment, lost=True))
    if task.state is State.STOPPING and not task.requeue:
        return _stopped(given_up, event.at)
    if event.requeue and not task.direct:
        return _back(given_up, event.at, event.reason)
    if tries_elsewhere(task):
        return _failed(given_up, event.at, event.reason, Cause.LOST)
    return _end(given_up, State.FAILED, event.at, event.reason)


def _adopted(task: Task, event: Adopted) -> Task | None:
    last = task.assignment.number if task.assignment else 0
    if task.state is not State.QUEUED or event.number <= last:
        return None
    assignment = Assignment(
        task_id=task.id, number=event.number, worker_id=event.worker_id, placed_at=event.at
    )
    return _started(
        replace(task, assignment=assignment, not_before=None),
        event.at,
        event.container_id,
        event.gpus,
        State.RUNNING,
    )


def _stopped(
    task: Task, at: datetime, *, exit_code: int | None = None, harvested: bool = False
) -> Task:
    """The end of what was to stop: for a user, for a limit, or to come again later."""
    if task.requeue:
        return _back(task, at, task.stop_reason, exit_code=exit_code, harvested=harvested)
    state = State.FAILED if task.stop_reason else State.CANCELLED
    return _end(task, state, at, task.stop_reason, exit_code=exit_code, harvested=harvested)


def _failed(
    task: Task,
    at: datetime,
    reason: str,
    cause: Cause,
    *,
    exit_code: int | None = None,
    harvested: bool = False,
    seen_at: datetime | None = None,
) -> Task:
    """It ended badly: failed, or back in the queue where it is to be tried again.

    ``seen_at``: by this machine's clock, where ``at`` is not.
    """
    if not tries_again(task, cause, exit_code):
        return _end(task, State.FAILED, at, reason, exit_code=exit_code, harvested=harvested)
    not_before = (seen_at or at) + pause(task.failures + 1)
    back = _back(task, at, reason, exit_code=exit_code, harvested=harvested)
    return replace(
        back,
        reason=next_try(task, reason, not_before),
        failures=task.failures + 1,
        not_before=not_before,
    )


def _back(
    task: Task,
    at: datetime,
    reason: str,
    *,
    exit_code: int | None = None,
    harvested: bool = False,
) -> Task:
    """Back in the queue: the present assignment is over, and the task is not."""
    return replace(
        _close(task, at, reason, exit_code=exit_code, harvested=harvested),
        state=State.QUEUED,
        reason=reason,
        started_at=None,
        stop_reason="",
        requeue=False,
    )


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
    code, good = event.exit_code, event.exit_code == 0 and not event.error
    if task.state is State.STOPPING and not (task.requeue and (event.over or event.by_itself)):
        return _stopped(task, event.at, exit_code=code)
    if event.over and event.hung:
        return _failed(
            task, event.at, event.over, Cause.HUNG, exit_code=code, seen_at=event.seen_at
        )
    if event.over:
        return _end(task, State.FAILED, event.at, event.over, exit_code=code)
    if good:
        return _end(task, State.COMPLETED, event.at, "", exit_code=code)
    if task.state is State.STOPPING:
        return _stopped(task, event.at, exit_code=code)
    cause = cause_of(code, oom_killed=event.oom_killed)
    return _failed(
        task, event.at, why_it_failed(event), cause, exit_code=code, seen_at=event.seen_at
    )


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
    close: bool = True,
) -> Task:
    """``close``: the present assignment ends with it; else it was over before."""
    if state is State.CANCELLED and not reason:
        reason = "cancelled"
    if close:
        task = _close(task, at, reason, exit_code=exit_code, harvested=harvested)
    return replace(
        task,
        state=state,
        reason=reason,
        completed_at=at,
        exit_code=exit_code,
        not_before=None,
        requeue=False,
    )
