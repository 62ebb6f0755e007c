"""The state machine and the reconcile table, one test a cell."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    Cause,
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


# ------------------------------------------------------------------ tried again


def retrying(*events, retries=3, retry_on=(), **fields) -> Task:
    spec = replace(QUEUED.spec, retries=retries, retry_on=retry_on)
    return after(*events, task=replace(QUEUED, spec=spec, **fields))


@pytest.mark.parametrize(
    ("events", "cause"),
    [
        ((PLACED, STARTED, exited(1)), "exit"),
        ((PLACED, STARTED, exited(137, oom_killed=True)), "oom"),
        ((PLACED, STARTED, exited(None)), "lost"),
        ((PLACED, STARTED, Gone(at=NOW, number=1)), "lost"),
        ((PLACED, StartFailed(at=NOW, number=1, reason="no GPU runtime")), "start"),
        ((PLACED, StartFailed(at=NOW, number=1, reason="away", cause=Cause.PULL)), "pull"),
    ],
)
def test_a_bad_end_is_tried_again_where_its_cause_is_named(events, cause):
    for retry_on in ((), (cause,), ("77", cause)):
        task = retrying(*events, retry_on=retry_on)
        assert (task.state, task.failures, task.started_at) == (State.QUEUED, 1, None)
        assert task.not_before == NOW + 10 * SECOND
        assert task.reason.endswith("; try 2 of 4 at 12:00:10 UTC")
        assert task.assignment.ended_at == NOW
        assert task.reason == f"{task.assignment.reason}; try 2 of 4 at 12:00:10 UTC"
    others = tuple(str(one) for one in Cause if one != cause)
    assert retrying(*events, retry_on=others).state is State.FAILED
    assert retrying(*events, retries=0).state is State.FAILED
    assert retrying(*events, direct=True).state is State.FAILED


def test_an_exit_code_can_be_named():
    assert retrying(PLACED, STARTED, exited(75), retry_on=("75",)).state is State.QUEUED
    assert retrying(PLACED, STARTED, exited(7), retry_on=("75",)).state is State.FAILED


def test_tries_have_an_end_and_come_more_and_more_seldom():
    task, waits = replace(QUEUED, spec=replace(QUEUED.spec, retries=9)), []
    while not task.state.final:
        task = after(PLACED, task=task)
        assert task.not_before is None
        number = task.assignment.number
        task = after(replace(STARTED, number=number), task=task)
        task = after(replace(exited(1), number=number), task=task)
        if task.not_before:
            waits.append((task.not_before - NOW).total_seconds())
    assert waits == [10, 20, 40, 80, 160, 320, 600, 600, 600]
    assert (task.state, task.failures, task.assignment.number) == (State.FAILED, 9, 10)
    assert task.reason == "exit code 1"


def test_the_wait_is_by_this_machines_clock():
    seen_at = NOW + timedelta(hours=3)
    task = retrying(PLACED, STARTED, exited(1, seen_at=seen_at))
    assert task.not_before == seen_at + 10 * SECOND
    assert task.assignment.ended_at == NOW


@pytest.mark.parametrize(
    "events",
    [
        (PLACED, STARTED, exited(0)),
        (PLACED, STARTED, exited(137, over="time limit of 60 s reached")),
        (PLACED, STARTED, StopAsked(at=NOW), exited(137)),
        (PLACED, STARTED, StopAsked(at=NOW, reason="storage limit"), exited(137)),
        (PLACED, StopAsked(at=NOW), Gone(at=NOW, number=1)),
        (PLACED, STARTED, Restarted(at=NOW, number=1)),
        (StopAsked(at=NOW),),
    ],
)
def test_what_is_never_tried_again(events):
    assert retrying(*events).state.final


def test_a_given_up_worker_is_one_to_try_again_after_only_where_lost_is_named():
    """For then it may run twice at once."""
    assert retrying(PLACED, STARTED, LOST).state is State.FAILED
    task = retrying(PLACED, STARTED, LOST, retry_on=("lost",))
    assert (task.state, task.failures, task.assignment.lost) == (State.QUEUED, 1, True)
    assert retrying(PLACED, STARTED, REQUEUE).failures == 0


def test_a_task_that_waits_for_its_next_try_can_be_cancelled():
    task = retrying(PLACED, STARTED, exited(1), StopAsked(at=NOW))
    assert (task.state, task.not_before, task.exit_code) == (State.CANCELLED, None, None)
    assert task.assignment.exit_code == 1, "what it ended with stays"
    assert not task.assignment.harvested


# ------------------------------------------------------------------ preempted

PREEMPT = StopAsked(at=NOW, reason="its place is needed", requeue=True)
PREEMPTED = after(PREEMPT, task=RUNNING)


@pytest.mark.parametrize("before", [STARTING, RUNNING])
@pytest.mark.parametrize(
    "end",
    [
        *(exited(0), exited(143), exited(1, by_itself=True), exited(None), LOST, REQUEUE),
        *(Gone(at=NOW, number=1), StartFailed(at=NOW, number=1, reason="x")),
    ],
)
def test_what_makes_room_goes_back_to_the_queue(before, end):
    task = after(PREEMPT, task=before)
    assert (task.state, task.requeue) == (State.STOPPING, True)
    task = after(end, task=task)
    if end is LOST:
        assert task.state is State.FAILED, "its owner's word: it may still run there"
        return
    assert (task.state, task.requeue, task.stop_reason) == (State.QUEUED, False, "")
    assert task.reason == ("away" if end is REQUEUE else "its place is needed")
    assert (task.failures, task.not_before, task.started_at) == (0, None, None)
    assert after(PLACED, task=task).assignment.number == 2


def test_what_completed_before_it_was_told_to_stop_is_completed():
    assert after(exited(0, by_itself=True), task=PREEMPTED).state is State.COMPLETED
    over = exited(137, over="time limit of 60 s reached")
    assert after(over, task=PREEMPTED).reason == "time limit of 60 s reached"


@pytest.mark.parametrize(("reason", "state"), [("", State.CANCELLED), ("limit", State.FAILED)])
def test_a_stop_for_good_wins_over_making_room(reason, state):
    task = after(StopAsked(at=NOW, reason=reason), task=PREEMPTED)
    assert not task.requeue
    assert after(exited(0, by_itself=True), task=task).state is state
    assert advance(task, PREEMPT) is None, "and not the other way round"


def test_what_does_not_run_or_never_waits_cannot_make_room():
    for task in (QUEUED, PREEMPTED, STOPPING, COMPLETED, replace(RUNNING, direct=True)):
        assert advance(task, PREEMPT) is None


# ------------------------------------------------------------------ any sequence


moments = st.integers(0, 5000).map(lambda seconds: NOW + timedelta(seconds=seconds))
reasons = st.sampled_from(["", "because"])
numbers = st.integers(1, 6)
news = st.one_of(
    st.builds(Placed, at=moments, worker_id=st.just("w")),
    st.builds(Refused, at=moments, number=numbers, reason=reasons),
    st.builds(Started, at=moments, number=numbers, container_id=st.just("c")),
    st.builds(
        StartFailed,
        at=moments,
        number=numbers,
        reason=reasons,
        cause=st.sampled_from([Cause.START, Cause.PULL]),
    ),
    st.builds(
        Exited,
        at=moments,
        number=numbers,
        container_id=st.just("c"),
        exit_code=st.sampled_from([0, 1, 137, None]),
        oom_killed=st.booleans(),
        over=reasons,
        by_itself=st.booleans(),
    ),
    st.builds(StopAsked, at=moments, reason=reasons, requeue=st.booleans()),
    st.builds(Gone, at=moments, number=numbers, reason=reasons),
    st.builds(Restarted, at=moments, number=numbers),
    st.builds(Lost, at=moments, number=numbers, reason=reasons, requeue=st.booleans()),
)
wishes = st.builds(
    TaskSpec,
    image=st.just("busybox"),
    retries=st.integers(0, 2),
    retry_on=st.sampled_from([(), ("exit",), ("oom", "137"), ("lost",), ("start", "pull")]),
)


@given(wishes, st.booleans(), st.lists(news, max_size=40))
def test_any_news_in_any_order(spec, direct, events):
    task = replace(QUEUED, spec=spec, direct=direct)
    for event in events:
        moved = advance(task, event)
        if moved is None:
            continue
        assert not task.state.final, "an end is for ever"
        assert task.failures <= moved.failures <= min(task.failures + 1, spec.retries)
        assert not (direct and moved.state is State.QUEUED), "a dispatched task never waits"
        held, before = moved.assignment, task.assignment
        assert (held.number if held else 0) >= (before.number if before else 0)
        assert moved.requeue <= (moved.state is State.STOPPING)
        assert (moved.not_before is None) or moved.state is State.QUEUED
        assert bool(moved.stop_reason) <= (moved.state is not State.QUEUED)
        if moved.state is State.QUEUED:
            assert held is not None
            assert held.ended_at is not None, "what waits holds nothing"
            assert moved.failures == task.failures or moved.not_before is not None
            assert advance(moved, PLACED).state is State.STARTING, "and can always come back"
        if moved.state is State.STOPPING and moved.requeue:
            back = advance(moved, Gone(at=NOW, number=held.number))
            assert back.state is State.QUEUED
        task = moved


@given(wishes, st.sampled_from([exited(1), exited(137, oom_killed=True), LOST, exited(None)]))
def test_whatever_is_asked_for_tries_come_to_an_end(spec, end):
    task = replace(QUEUED, spec=spec)
    for _ in range(spec.retries + 1):
        if task.state.final:
            break
        task = after(PLACED, task=task)
        number = task.assignment.number
        task = after(replace(STARTED, number=number), replace(end, number=number), task=task)
    assert task.state is State.FAILED
    assert task.failures <= spec.retries
