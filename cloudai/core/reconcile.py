"""What a sighting means: the heart of the program. Pure; one test a cell.

========  ==================  ========================  =======================  ===============
state     absent              created, never started    running (or paused)      exited
========  ==================  ========================  =======================  ===============
STARTING  start (again)       start, or StartFailed     Started                  Exited
RUNNING   confirm, then Gone  Gone                      – (limits are checked)   Exited
STOPPING  confirm, then Gone  remove, Gone              stop (again)             Exited
final     harvest (log lost)  remove                    stop: stale assignment   harvest, remove
========  ==================  ========================  =======================  ===============

Unreachable, or not seen since the task last changed: wait. Always.

An assignment of a task that is queued again, or runs again, is over like that of a final one:
the store offers it as a task that is (see ``Store.unharvested``), and the last row holds.

A RUNNING task whose container was started at another time than the assignment remembers was
restarted by someone: Restarted, alive or exited. A container with another id than the
assignment's is another container: then its own is absent. One that ended while its engine was
not there has no exit code worth the name: Exited without one. One that was stopped on the
worker at its time limit ended by that limit, whatever its code; where the worker notes why it
stops a container, that note counts (see ``core.endings``).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from .endings import over_limit, stops_after
from .lifecycle import Event, Exited, Gone, Restarted, Started, StartFailed, StopAsked
from .model import ContainerSight, Phase, State, Task

NO_RECORD_CODE = 255
"""What an engine shows for a container of whose end it has no record (facts, 18)."""
COMING_UP = timedelta(seconds=60)
"""Within this after its start an engine finds out which of its containers are no more."""
STOPPED_BY_SIGNAL = (137, 143)
CLOCK_SLEW = 2.0
"""Seconds by which a clock that is being set right may shorten what was longer."""
STOP_LATE = 15.0
"""Seconds after a time limit until its container is surely told to stop."""
NO_RECORD = "no record of how it ended: the engine was restarted"


@dataclass(frozen=True, slots=True)
class Sighting:
    """What is known of an assignment's container at this moment.

    ``seen`` is false while the worker cannot be reached, or was last read before the task's
    latest change; then ``container`` means nothing.
    """

    seen: bool
    container: ContainerSight | None = None
    confirmed: bool = False
    """An absence that was asked about by name, not concluded from a list."""
    engine_started: datetime | None = None
    """On the worker's clock, where it is known."""
    clock: datetime | None = None
    """What the worker's clock shows now, where it is known."""


UNSEEN = Sighting(seen=False)


@dataclass(frozen=True, slots=True)
class Wait:
    """Do nothing now."""


@dataclass(frozen=True, slots=True)
class Start:
    """Start it, or look whether an earlier try did: idempotent by the container's name."""


@dataclass(frozen=True, slots=True)
class Confirm:
    """Ask for that container by name before concluding that it is gone."""


@dataclass(frozen=True, slots=True)
class Record:
    """Write the event; if ``remove``, then also remove the container, which never started."""

    event: Event
    remove: bool = False


@dataclass(frozen=True, slots=True)
class Stop:
    """Ask the container to stop, and kill it after the grace."""

    why: str = ""


@dataclass(frozen=True, slots=True)
class Harvest:
    """Bring the whole log home, then remove the container."""


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove a container that never started."""


Action = Wait | Start | Confirm | Record | Stop | Harvest | Remove


def reconcile(task: Task, sighting: Sighting, now: datetime) -> Action:
    """What to do next about a task, given what is seen of its container. Pure.

    ``now`` is this machine's time.
    """
    if task.assignment is None or not sighting.seen:
        return Wait()
    container = sighting.container
    if container is not None and task.assignment.container_id not in (None, container.id):
        sighting, container = Sighting(True, confirmed=True), None
    if container is None:
        return _absent(task, sighting, now)
    if container.phase is Phase.EXITED and container.started_at is not None:
        return _exited(task, container, sighting, now)
    if container.phase in (Phase.CREATED, Phase.EXITED):
        return _never_started(task, container, now)
    return _alive(task, container, sighting, now)


def _absent(task: Task, sighting: Sighting, now: datetime) -> Action:
    assert task.assignment is not None
    number = task.assignment.number
    match task.state:
        case State.STARTING:
            return Start()
        case State.RUNNING | State.STOPPING if not sighting.confirmed:
            return Confirm()
        case State.RUNNING:
            return Record(
                Gone(
                    at=now,
                    number=number,
                    reason="its container was removed on the worker by someone else",
                )
            )
        case State.STOPPING:
            return Record(Gone(at=now, number=number))
        case state if not state.final:
            return Wait()
        case _ if task.assignment.container_id is None or task.assignment.harvested:
            return Wait()
        case _:
            return Harvest() if sighting.confirmed else Confirm()


def _never_started(task: Task, container: ContainerSight, now: datetime) -> Action:
    assert task.assignment is not None
    number = task.assignment.number
    match task.state:
        case State.STARTING if container.error:
            return Record(
                StartFailed(
                    at=now, number=number, reason=container.error, exit_code=container.exit_code
                ),
                remove=True,
            )
        case State.STARTING:
            return Start()
        case State.RUNNING:
            reason = container.error or "its container never started"
            return Record(Gone(at=now, number=number, reason=reason), remove=True)
        case State.STOPPING:
            return Record(Gone(at=now, number=number), remove=True)
        case _:
            return Remove()


def _alive(task: Task, container: ContainerSight, sighting: Sighting, now: datetime) -> Action:
    assert task.assignment is not None
    if container.started_at is None and not task.state.final:
        return Wait()  # not whole: an engine that has just started it says when a moment later
    started = Started(
        at=container.started_at or now,
        number=task.assignment.number,
        container_id=container.id,
        gpus=container.gpus,
    )
    match task.state:
        case State.STARTING:
            return Record(started)
        case State.STOPPING if task.assignment.container_id is None:
            return Record(started)
        case State.STOPPING:
            return Stop(task.stop_reason)
        case State.RUNNING if was_restarted(task, container):
            return Record(Restarted(at=now, number=task.assignment.number))
        case State.RUNNING:
            if over := over_time(task, now, sighting.clock):
                return Record(StopAsked(at=now, reason=over))
            return Wait()
        case _:
            return Stop("a stale assignment")


def was_restarted(task: Task, container: ContainerSight) -> bool:
    """Whether it runs, or ran, another time than the assignment knows of. To the microsecond:
    no clock set right in between can look like it."""
    assert task.assignment is not None
    known, seen = task.assignment.started_at, container.started_at
    return known is not None and seen is not None and known != seen


def has_no_record(container: ContainerSight, engine_started: datetime | None) -> bool:
    """Whether it ended while its engine was not there to see it: what the engine shows as its
    exit code and end is its own invention, made as it came up again."""
    if container.exit_code is None:
        return True
    if container.exit_code != NO_RECORD_CODE or engine_started is None:
        return False
    if container.started_at is None or container.started_at >= engine_started:
        return False
    ended = container.finished_at
    return ended is None or engine_started <= ended <= engine_started + COMING_UP


def _exited(task: Task, container: ContainerSight, sighting: Sighting, now: datetime) -> Action:
    assert task.assignment is not None
    if task.state.final:
        return Harvest()
    if task.state is State.RUNNING and was_restarted(task, container):
        return Record(Restarted(at=now, number=task.assignment.number))
    unknown = has_no_record(container, sighting.engine_started)
    return Record(
        Exited(
            at=container.finished_at or now,
            number=task.assignment.number,
            container_id=container.id,
            # An exit without a code is not a success (facts, 16).
            exit_code=None if unknown else container.exit_code,
            oom_killed=container.oom_killed,
            error=container.error or (NO_RECORD if unknown and sighting.engine_started else ""),
            started_at=container.started_at,
            memory=container.held.memory,
            over="" if unknown else ended_by_limit(task, container),
            seen_at=now,
        )
    )


def ended_by_limit(task: Task, container: ContainerSight) -> str:
    """Why it ended, where its worker stopped it at its time limit while nobody was there.

    By SIGTERM or SIGKILL at the limit or after it. With another code, 0 included, only within
    the grace after the limit: that is a job which was told to stop and ended by itself, as it
    is where the controller tells it. Later than that nobody can have told it to.
    """
    limit = task.spec.time_limit
    if limit is None or container.started_at is None or container.finished_at is None:
        return ""
    if container.oom_killed or container.error:
        return ""
    ran = (container.finished_at - container.started_at).total_seconds()
    if container.exit_code in STOPPED_BY_SIGNAL:
        stopped = ran >= limit - CLOCK_SLEW
    else:
        stopped = limit <= ran <= limit + task.spec.grace + STOP_LATE
    return over_limit(task.spec) if stopped else ""


def over_time(task: Task, now: datetime, clock: datetime | None) -> str:
    """Why the task must stop by its time limit, or nothing. One that is given time by a signal
    is told so much before.

    Both the worker's ``clock`` since its start and ours since it was placed must say so: clocks
    of two machines differ, and either may be set meanwhile. The worker itself holds the limit
    by the time since its boot.
    """
    limit = stops_after(task.spec)
    if limit is None or clock is None or task.started_at is None or task.assignment is None:
        return ""
    ran = min(clock - task.started_at, now - task.assignment.placed_at)
    return over_limit(task.spec) if ran.total_seconds() >= limit else ""
