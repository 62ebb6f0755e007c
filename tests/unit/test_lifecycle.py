"""The state machine and the reconcile table, one test a cell."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from cloudai.core.lifecycle import (
    RESTARTED,
    Adopted,
    Exited,
    Gone,
    Lost,
    Placed,
    Refused,
    Restarted,
    Started,
    StartFailed,
    StopAsked,
    advance,
)
from cloudai.core.model import (
    FINAL,
    ContainerSight,
    Phase,
    Resources,
    State,
    Task,
    TaskSpec,
)
from cloudai.core.reconcile import (
    NO_RECORD,
    UNSEEN,
    Confirm,
    Harvest,
    Record,
    Remove,
    Sighting,
    Start,
    Stop,
    Wait,
    reconcile,
)

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
QUEUED = Task(id="task-1-a", spec=TaskSpec(image="busybox"), state=State.QUEUED, created_at=NOW)


def after(*events, task=QUEUED) -> Task:
    for event in events:
        moved = advance(task, event)
        assert moved is not None, f"{event} does not apply to {task.state}"
        task = moved
    return task


PLACED = Placed(at=NOW, worker_id="w1")
STARTED = Started(at=NOW, number=1, container_id="c1", gpus=("GPU-1",))


def exited(code=0, **more) -> Exited:
    return Exited(at=NOW, number=1, container_id="c1", exit_code=code, **more)


STARTING = after(PLACED)
RUNNING = after(PLACED, STARTED)
STOPPING = after(PLACED, STARTED, StopAsked(at=NOW))
COMPLETED = after(PLACED, STARTED, exited())
LOST = Lost(at=NOW, number=1, reason="away")
REQUEUE = Lost(at=NOW, number=1, reason="away", requeue=True)
ADOPTED = Adopted(at=NOW, number=2, worker_id="w2", container_id="c2")


def test_a_good_life():
    assert COMPLETED.state is State.COMPLETED
    assert COMPLETED.exit_code == 0
    assert COMPLETED.assignment.id == "task-1-a.1"
    assert COMPLETED.assignment.gpus == ("GPU-1",)
    assert not COMPLETED.assignment.harvested


def test_a_refusal_goes_back_to_the_queue_with_its_reason_and_the_next_try_has_a_new_number():
    task = after(PLACED, Refused(at=NOW, number=1, reason="Insufficient GPU"))
    assert (task.state, task.reason) == (State.QUEUED, "Insufficient GPU")
    assert after(PLACED, task=task).assignment.number == 2


def test_a_refusal_fails_a_dispatched_task():
    task = after(
        PLACED,
        Refused(at=NOW, number=1, reason="Insufficient GPU"),
        task=replace(QUEUED, direct=True),
    )
    assert (task.state, task.reason) == (State.FAILED, "Insufficient GPU")


@pytest.mark.parametrize(
    ("event", "state", "words"),
    [
        (exited(3), State.FAILED, "exit code 3"),
        (exited(137), State.FAILED, "SIGKILL"),
        (exited(137, oom_killed=True, memory=2**29), State.FAILED, "out of memory (limit 0.50 GB)"),
        (exited(0, oom_killed=True), State.COMPLETED, ""),
        (exited(139), State.FAILED, "signal 11"),
        (exited(0, error="no record of its exit"), State.FAILED, "no record"),
    ],
)
def test_ends(event, state, words):
    task = after(PLACED, STARTED, event)
    assert task.state is state
    assert words in task.reason
    assert bool(task.reason) == bool(words)


def test_a_cancel_before_the_start_is_known_ends_cancelled_however_it_ended():
    asked = after(PLACED, StopAsked(at=NOW))
    assert asked.state is State.STOPPING
    assert after(Gone(at=NOW, number=1), task=asked).state is State.CANCELLED
    assert after(exited(0), task=asked).state is State.CANCELLED
    assert after(StopAsked(at=NOW)).state is State.CANCELLED


def test_a_limit_fails_with_its_reason():
    task = after(
        PLACED, STARTED, StopAsked(at=NOW, reason="time limit of 1 s reached"), exited(137)
    )
    assert (task.state, task.reason) == (State.FAILED, "time limit of 1 s reached")


@pytest.mark.parametrize(
    ("task", "event"),
    [
        (COMPLETED, STARTED),
        (COMPLETED, exited(1)),
        (COMPLETED, StopAsked(at=NOW)),
        (COMPLETED, Gone(at=NOW, number=1)),
        (COMPLETED, PLACED),
        (RUNNING, PLACED),
        (RUNNING, STARTED),
        (RUNNING, Refused(at=NOW, number=1, reason="x")),
        (RUNNING, replace(exited(), container_id="another")),
        (RUNNING, replace(exited(), number=2)),
        (QUEUED, STARTED),
        (QUEUED, exited()),
        (STARTING, Gone(at=NOW, number=1)),
        (STARTING, Restarted(at=NOW, number=1)),
        (STOPPING, Restarted(at=NOW, number=1)),
        (QUEUED, LOST),
        (COMPLETED, LOST),
        (RUNNING, replace(LOST, number=2)),
        (RUNNING, ADOPTED),
        (COMPLETED, ADOPTED),
    ],
)
def test_stale_news_changes_nothing(task, event):
    assert advance(task, event) is None


def seen(phase: Phase, **more) -> Sighting:
    fields = {
        "id": "c1",
        "assignment_id": "task-1-a.1",
        "task_id": "task-1-a",
        "store_id": "s",
        "phase": phase,
        "started_at": None if phase is Phase.CREATED else NOW,
        "exit_code": 0 if phase is Phase.EXITED else None,
        "held": Resources.of(cpus=1),
    }
    return Sighting(True, ContainerSight(**{**fields, **more}))


ABSENT = Sighting(True)
GONE = Sighting(True, confirmed=True)
CREATED = seen(Phase.CREATED)
ALIVE = seen(Phase.RUNNING)
PAUSED = seen(Phase.PAUSED)
ENDED = seen(Phase.EXITED)
NEVER = seen(Phase.EXITED, started_at=None)
LATER = NOW + timedelta(microseconds=1)
RERUN = seen(Phase.RUNNING, started_at=LATER)
RERUN_ENDED = seen(Phase.EXITED, started_at=LATER)
ANOTHER = seen(Phase.EXITED, id="c2")


@pytest.mark.parametrize(
    ("task", "sighting", "action"),
    [
        (STARTING, ABSENT, Start),
        (STARTING, GONE, Start),
        (STARTING, CREATED, Start),
        (STARTING, ALIVE, Record),
        (STARTING, PAUSED, Record),
        (STARTING, ENDED, Record),
        (RUNNING, ABSENT, Confirm),
        (RUNNING, GONE, Record),
        (RUNNING, CREATED, Record),
        (RUNNING, ALIVE, Wait),
        (RUNNING, PAUSED, Wait),
        (RUNNING, ENDED, Record),
        (STOPPING, ABSENT, Confirm),
        (STOPPING, GONE, Record),
        (STOPPING, CREATED, Record),
        (STOPPING, ALIVE, Stop),
        (STOPPING, ENDED, Record),
        (COMPLETED, ABSENT, Confirm),
        (COMPLETED, GONE, Harvest),
        (COMPLETED, RERUN, Stop),
        (COMPLETED, RERUN_ENDED, Harvest),
        (COMPLETED, ANOTHER, Harvest),
        (replace(COMPLETED, assignment=replace(COMPLETED.assignment, harvested=True)), GONE, Wait),
        (STOPPING, RERUN, Stop),
        (STARTING, seen(Phase.RUNNING, started_at=None), Wait),
        (COMPLETED, CREATED, Remove),
        (COMPLETED, ALIVE, Stop),
        (COMPLETED, ENDED, Harvest),
        (QUEUED, ABSENT, Wait),
    ]
    + [(task, UNSEEN, Wait) for task in (STARTING, RUNNING, STOPPING, COMPLETED)],
)
def test_what_a_sighting_means(task, sighting, action):
    assert type(reconcile(task, sighting, NOW)) is action


@pytest.mark.parametrize(
    ("task", "sighting", "event", "state"),
    [
        (STARTING, ALIVE, Started, State.RUNNING),
        (STARTING, ENDED, Exited, State.COMPLETED),
        (STARTING, seen(Phase.CREATED, error="no such command"), StartFailed, State.FAILED),
        (RUNNING, ENDED, Exited, State.COMPLETED),
        (RUNNING, seen(Phase.EXITED, exit_code=None), Exited, State.FAILED),
        (RUNNING, NEVER, Gone, State.FAILED),
        (RUNNING, GONE, Gone, State.FAILED),
        (RUNNING, RERUN, Restarted, State.FAILED),
        (RUNNING, RERUN_ENDED, Restarted, State.FAILED),
        (RUNNING, ANOTHER, Gone, State.FAILED),
        (STOPPING, RERUN_ENDED, Exited, State.CANCELLED),
        (STOPPING, ANOTHER, Gone, State.CANCELLED),
        (STOPPING, ENDED, Exited, State.CANCELLED),
        (STOPPING, CREATED, Gone, State.CANCELLED),
        (STOPPING, GONE, Gone, State.CANCELLED),
    ],
)
def test_what_is_recorded_applies(task, sighting, event, state):
    action = reconcile(task, sighting, NOW)
    assert isinstance(action, Record)
    assert isinstance(action.event, event)
    assert advance(task, action.event).state is state


def test_a_time_limit_stops_at_its_time_and_not_before():
    task = replace(RUNNING, spec=replace(RUNNING.spec, time_limit=60))
    early, late = NOW + timedelta(seconds=59), NOW + timedelta(seconds=60)
    assert reconcile(task, replace(ALIVE, clock=early), early) == Wait()
    action = reconcile(task, replace(ALIVE, clock=late), late)
    assert action == Record(StopAsked(at=late, reason="time limit of 60 s reached"))


@pytest.mark.parametrize("apart", [timedelta(hours=-1), timedelta(hours=1)])
def test_a_clock_that_is_wrong_never_brings_a_time_limit_forward(apart):
    """The worker's from the beginning, the worker's set since, ours set since."""
    task = replace(RUNNING, spec=replace(RUNNING.spec, time_limit=1800))
    soon, late = NOW + timedelta(seconds=5), NOW + timedelta(seconds=1800)
    held = replace(task.assignment, started_at=NOW + apart)
    wrong = replace(task, assignment=held, started_at=NOW + apart)
    assert reconcile(wrong, seen(Phase.RUNNING, started_at=NOW + apart), soon) == Wait()
    there = seen(Phase.RUNNING, started_at=NOW + apart)
    assert reconcile(wrong, replace(there, clock=soon + apart), soon) == Wait()
    stopped = reconcile(wrong, replace(there, clock=late + apart), late)
    assert isinstance(stopped.event, StopAsked)
    assert reconcile(task, replace(ALIVE, clock=soon + apart), soon) == Wait()
    assert reconcile(task, replace(ALIVE, clock=soon), soon + apart) == Wait()


LIMITED = replace(RUNNING, spec=replace(RUNNING.spec, time_limit=60, grace=10))
OVER = (State.FAILED, "time limit of 60 s reached")


@pytest.mark.parametrize(
    ("ran", "code", "end"),
    [
        (60, 137, OVER),
        (61, 143, OVER),
        (58.5, 143, OVER),  # the clock was set right meanwhile
        (57, 143, (State.FAILED, "exit code 143: ended by SIGTERM")),
        (9000, 137, OVER),  # its engine could not be told before
        (62, 0, OVER),  # a job that heard SIGTERM and left in peace
        (62, 3, OVER),
        (59.5, 0, (State.COMPLETED, "")),
        (59.5, 3, (State.FAILED, "exit code 3")),
        (9000, 0, (State.COMPLETED, "")),  # nobody told it to stop
        (9000, 3, (State.FAILED, "exit code 3")),
    ],
)
def test_a_container_that_its_worker_stopped_at_its_limit_is_told_apart(ran, code, end):
    sighting = seen(Phase.EXITED, exit_code=code, finished_at=NOW + timedelta(seconds=ran))
    action = reconcile(LIMITED, sighting, NOW + timedelta(days=1))
    moved = advance(LIMITED, action.event)
    assert (moved.state, moved.reason, moved.exit_code) == (*end, code)
    unlimited = advance(RUNNING, reconcile(RUNNING, sighting, NOW).event)
    assert "limit" not in unlimited.reason


def test_an_out_of_memory_end_is_not_the_limits():
    late = NOW + timedelta(seconds=61)
    sighting = seen(Phase.EXITED, exit_code=137, oom_killed=True, finished_at=late)
    assert "memory" in advance(LIMITED, reconcile(LIMITED, sighting, late).event).reason


def test_no_event_leaves_a_final_state():
    for state in FINAL:
        task = replace(COMPLETED, state=state)
        news = (PLACED, STARTED, exited(1), StopAsked(at=NOW), Gone(at=NOW, number=1))
        for event in (*news, LOST, REQUEUE, ADOPTED, Restarted(at=NOW, number=1)):
            assert advance(task, event) is None


# ------------------------------------------------------------------ lost, adopted, restarted


@pytest.mark.parametrize(
    ("task", "event", "state", "reason"),
    [
        (STARTING, LOST, State.FAILED, "away"),
        (RUNNING, LOST, State.FAILED, "away"),
        (STOPPING, LOST, State.CANCELLED, "cancelled"),
        (STARTING, REQUEUE, State.QUEUED, "away"),
        (RUNNING, REQUEUE, State.QUEUED, "away"),
        (STOPPING, REQUEUE, State.CANCELLED, "cancelled"),
        (replace(RUNNING, direct=True), REQUEUE, State.FAILED, "away"),
        (after(StopAsked(at=NOW, reason="limit"), task=RUNNING), REQUEUE, State.FAILED, "limit"),
    ],
)
def test_a_lost_assignment(task, event, state, reason):
    lost = advance(task, event)
    assert (lost.state, lost.reason) == (state, reason)
    assert lost.assignment.lost
    assert not lost.assignment.harvested, "its log may still come home"
    assert lost.assignment.container_id == task.assignment.container_id


def test_a_requeued_task_starts_afresh_under_the_next_number():
    task = after(REQUEUE, replace(PLACED, worker_id="w2"), task=RUNNING)
    assert (task.assignment.number, task.worker_id, task.assignment.lost) == (2, "w2", False)
    assert task.started_at is None
    assert advance(task, exited(0)) is None, "late news of the first one"


def test_adopting_claims_a_container_for_a_task_that_waits():
    task = after(ADOPTED)
    assert (task.state, task.assignment.id, task.worker_id) == (State.RUNNING, "task-1-a.2", "w2")
    assert task.assignment.container_id == "c2"
    done = after(replace(exited(), number=2, container_id="c2"), task=task)
    assert done.state is State.COMPLETED
    requeued = after(REQUEUE, task=RUNNING)
    assert advance(requeued, replace(ADOPTED, number=1)) is None, "a number is given once"


def test_a_restarted_container_is_no_success_and_its_log_comes_home():
    task = after(Restarted(at=NOW, number=1), task=RUNNING)
    assert (task.state, task.reason, task.exit_code) == (State.FAILED, RESTARTED, None)
    assert not task.assignment.harvested


SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("engine", "code", "ended", "known"),
    [
        (NOW + 60 * SECOND, 255, NOW + 61 * SECOND, False),
        (NOW + 60 * SECOND, 255, None, False),
        (NOW + 60 * SECOND, None, NOW + 61 * SECOND, False),
        (None, None, NOW, False),
        # Its own 255: before the engine went, long after it came back, or in its own time.
        (NOW + 60 * SECOND, 255, NOW + 30 * SECOND, True),
        (NOW + 60 * SECOND, 255, NOW + 600 * SECOND, True),
        (NOW - 60 * SECOND, 255, NOW + 1 * SECOND, True),
        (NOW + 60 * SECOND, 0, NOW + 61 * SECOND, True),
        (None, 255, NOW + 61 * SECOND, True),
    ],
)
def test_an_end_that_no_engine_saw_has_no_exit_code(engine, code, ended, known):
    sighting = replace(seen(Phase.EXITED, exit_code=code, finished_at=ended), engine_started=engine)
    action = reconcile(RUNNING, sighting, NOW)
    assert isinstance(action.event, Exited)
    assert action.event.exit_code == (code if known else None)
    task = advance(RUNNING, action.event)
    assert task.state is (State.COMPLETED if code == 0 else State.FAILED)
    assert task.exit_code == action.event.exit_code
    if not known:
        assert task.reason == (NO_RECORD if engine else "no record of how it ended")
