"""When a silent worker costs a task its place: a test a cell, and the measure itself."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudai.core.lifecycle import Lost, Placed, Started, StopAsked, advance
from cloudai.core.lost import count_absence, given_up, marked_lost, was_asleep
from cloudai.core.model import OnLost, State, Task, TaskSpec

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def a_task(on_lost: OnLost, *events: object, after: float = 600.0) -> Task:
    spec = TaskSpec(image="busybox", on_lost=on_lost, lost_after=after)
    task = Task(id="task-1-a", spec=spec, state=State.QUEUED, created_at=NOW)
    for event in events:
        moved = advance(task, event)  # type: ignore[arg-type]
        assert moved is not None
        task = moved
    return task


PLACED = Placed(at=NOW, worker_id="w1")
STARTED = Started(at=NOW, number=1, container_id="c1")
STANDINGS = ((PLACED,), (PLACED, STARTED), (PLACED, STARTED, StopAsked(at=NOW)))


@pytest.mark.parametrize("events", STANDINGS)
@pytest.mark.parametrize("absent", [0.0, 599.9, 600.0, 12 * 3600.0, 1e9])
def test_waiting_is_for_ever(events: tuple[object, ...], absent: float) -> None:
    assert given_up(a_task(OnLost.WAIT, *events), absent, NOW) is None


@pytest.mark.parametrize("events", STANDINGS)
@pytest.mark.parametrize("on_lost", [OnLost.REQUEUE, OnLost.FAIL])
def test_it_is_given_up_at_its_time_and_not_before(
    on_lost: OnLost, events: tuple[object, ...]
) -> None:
    task = a_task(on_lost, *events)
    assert given_up(task, 599.9, NOW) is None
    assert given_up(task, 600.0, NOW) == Lost(
        at=NOW,
        number=1,
        reason="worker w1 could not be reached for 10m00s",
        requeue=on_lost is OnLost.REQUEUE,
    )


@pytest.mark.parametrize("on_lost", list(OnLost))
def test_what_is_on_no_worker_cannot_be_lost(on_lost: OnLost) -> None:
    queued = a_task(on_lost)
    assert given_up(queued, 1e9, NOW) is None
    requeued = a_task(on_lost, PLACED, Lost(at=NOW, number=1, reason="", requeue=True))
    assert given_up(requeued, 1e9, NOW) is None
    for state in (State.COMPLETED, State.FAILED, State.CANCELLED):
        ended = replace(a_task(on_lost, PLACED, STARTED), state=state)
        assert given_up(ended, 1e9, NOW) is None


@pytest.mark.parametrize(
    ("on_lost", "state"),
    [(OnLost.WAIT, State.FAILED), (OnLost.FAIL, State.FAILED), (OnLost.REQUEUE, State.QUEUED)],
)
def test_a_persons_word_counts_at_once_and_wait_counts_as_fail(
    on_lost: OnLost, state: State
) -> None:
    task = a_task(on_lost, PLACED, STARTED)
    after = advance(task, marked_lost(task, NOW))
    assert after is not None
    assert after.state is state
    assert "marked as lost" in after.reason


def counted(before: dict[str, float], *, heard: bool = True, **clocks: float) -> dict[str, float]:
    clocks = {"elapsed": 1.0, "wall": 1.0, **clocks}
    return count_absence(before, away={"w1"}, heard=heard, **clocks)


def test_absence_counts_from_when_it_is_first_known() -> None:
    assert counted({}) == {"w1": 0.0}
    assert counted({"w1": 5.0}) == {"w1": 6.0}
    assert counted({"w1": 5.0, "w2": 9.0}) == {"w1": 6.0}, "w2 is back: forgotten"


def test_where_all_are_silent_nothing_counts_and_nothing_is_forgotten() -> None:
    assert counted({"w1": 5.0}, heard=False) == {"w1": 5.0}


@pytest.mark.parametrize(
    ("elapsed", "wall"),
    [(600.0, 600.0), (1.0, 8 * 3600.0), (1.0, -3600.0), (11.0, 11.0), (1.0, 7.0)],
    ids=["stopped", "slept", "clock set back", "stalled", "clock stepped"],
)
def test_after_sleep_the_measure_begins_anew(elapsed: float, wall: float) -> None:
    assert was_asleep(elapsed=elapsed, wall=wall)
    assert counted({"w1": 599.0}, elapsed=elapsed, wall=wall) == {"w1": 0.0}


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 5), st.floats(-20, 20)), max_size=50))
def test_never_more_than_was_lived_through_awake(
    steps: list[tuple[bool, float, float]],
) -> None:
    """However the clocks run: at most the time that passed since the last sleep with others
    heard."""
    now: dict[str, float] = {"w1": 0.0}
    most = 0.0
    for heard, elapsed, jump in steps:
        wall = elapsed + jump
        most = 0.0 if was_asleep(elapsed=elapsed, wall=wall) else most + elapsed * heard
        now = counted(now, heard=heard, elapsed=elapsed, wall=wall)
        assert now["w1"] <= most + 1e-9
