"""Guarded writes: the rows and ``advance`` agree, stale news writes nothing, ends are for ever."""

import shutil
import tempfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
)

from cloudai.core.errors import Conflict, StoreBusy, TaskNotFound
from cloudai.core.lifecycle import (
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
from cloudai.core.model import Cause, State, Task, TaskSpec
from cloudai.service.unfinished import Unfinished
from cloudai.store import Store, database
from cloudai.store.story import tell

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def a_task(number=1, *, retries=0, **fields):
    return Task(
        id=f"task-1700000000-{number:06}",
        spec=TaskSpec(image="alpine", retries=retries),
        state=State.QUEUED,
        created_at=NOW,
        **fields,
    )


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "cloudai.db", now=NOW) as store:
        yield store


# ------------------------------------------------------------------ one write


def test_what_is_recorded_is_what_advance_says(store):
    task = store.submit(a_task())
    event = Placed(at=NOW, worker_id="gpu1")
    placed = store.record(task, event)
    assert placed == advance(task, event) == store.get(task.id)


def test_news_that_does_not_apply_writes_nothing(store):
    task = store.submit(a_task())
    assert store.record(task, Gone(at=NOW, number=1)) is None
    assert store.get(task.id) == task
    assert [line.what for line in store.events(task.id)] == ["submitted"]


def test_of_two_that_place_a_task_one_does(store, tmp_path):
    task = store.submit(a_task())
    with Store.open(tmp_path / "cloudai.db", now=NOW) as other:
        first = other.record(task, Placed(at=NOW, worker_id="gpu1"))
        assert store.record(task, Placed(at=NOW, worker_id="gpu2")) is None
    assert store.get(task.id) == first
    assert [line.text for line in store.events(task.id)] == ["", "on gpu1"]
    assert len(store.assignments(task.id)) == 1


def test_news_of_an_earlier_assignment_writes_nothing(store):
    first = store.record(store.submit(a_task()), Placed(at=NOW, worker_id="gpu1"))
    queued = store.record(first, Refused(at=NOW, number=1, reason="full"))
    second = store.record(queued, Placed(at=NOW, worker_id="gpu1"))
    # Its state is right, its number is not.
    assert store.record(first, Started(at=NOW, number=1, container_id="c")) is None
    assert store.get(first.id) == second


def test_a_lost_assignment_is_kept_and_the_next_one_has_another_number(store):
    task = store.record(store.submit(a_task()), Placed(at=NOW, worker_id="gpu1"))
    task = store.record(task, Started(at=NOW, number=1, container_id="c"))
    queued = store.record(task, Lost(at=NOW, number=1, reason="away", requeue=True))
    assert (queued.state, queued.started_at) == (State.QUEUED, None)
    placed = store.record(queued, Placed(at=NOW, worker_id="gpu2"))
    lost, present = store.assignments(task.id)
    assert (lost.lost, lost.harvested, lost.reason, lost.container_id) == (True, False, "away", "c")
    assert (present, present.number) == (placed.assignment, 2)
    # Late news of the first one changes nothing.
    late = Exited(at=NOW, number=1, container_id="c", exit_code=0)
    assert store.record(task, late) is None
    assert store.known_containers([task.id, "task-none"]) == {
        f"{task.id}.1": "c",
        f"{task.id}.2": None,
    }


def test_a_lost_end_is_not_waited_for(store):
    task = store.record(store.submit(a_task()), Placed(at=NOW, worker_id="gpu1"))
    task = store.record(task, Started(at=NOW, number=1, container_id="c"))
    store.record(task, Lost(at=NOW, number=1, reason="away"))
    assert store.unharvested() == []
    assert store.get(task.id).state is State.FAILED


def test_news_about_another_container_writes_nothing(store):
    asked = store.record(store.submit(a_task()), Placed(at=NOW, worker_id="gpu1"))
    stopping = store.record(asked, StopAsked(at=NOW))
    started = store.record(stopping, Started(at=NOW, number=1, container_id="c"))
    # State and number are right, and the caller does not know the container yet.
    assert store.record(stopping, Gone(at=NOW, number=1)) is None
    other = Exited(at=NOW, number=1, container_id="d", exit_code=0)
    assert store.record(stopping, other) is None
    assert store.get(started.id) == started


def test_a_forgotten_task_cannot_be_changed(store):
    task = store.submit(a_task())
    store.record(task, StopAsked(at=NOW))
    store.forget(task.id)
    assert store.record(task, Placed(at=NOW, worker_id="gpu1")) is None


def test_a_harvest_noted_meanwhile_is_not_undone(store):
    task = store.record(store.submit(a_task()), Placed(at=NOW, worker_id="gpu1"))
    task = store.record(task, Started(at=NOW, number=1, container_id="c"))
    ended = store.record(task, Exited(at=NOW, number=1, container_id="c", exit_code=0))
    store.mark_harvested(task.id, 1)
    for stale in (task, ended):
        assert store.record(stale, Gone(at=NOW, number=1)) is None
    assert store.unharvested() == []


@pytest.mark.parametrize("broken", ["event", "assignment"])
def test_a_change_is_whole_or_not_at_all(store, monkeypatch, broken):
    task = store.submit(a_task())
    with store._database.write() as connection:
        connection.exec_driver_sql(
            f"CREATE TRIGGER broken BEFORE INSERT ON {broken} "
            "BEGIN SELECT RAISE(ABORT, 'broken on purpose'); END"
        )
    with pytest.raises(Exception, match="broken on purpose"):
        store.record(task, Placed(at=NOW, worker_id="gpu1"))
    assert store.get(task.id) == task
    assert store.assignments(task.id) == []
    assert len(store.events(task.id)) == 1


def test_nothing_is_written_while_another_process_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.05)
    path = tmp_path / "cloudai.db"
    with Store.open(path, now=NOW) as store, Store.open(path, now=NOW) as other:
        task = store.submit(a_task())
        with other._database.write():
            with pytest.raises(StoreBusy):
                store.record(task, Placed(at=NOW, worker_id="gpu1"))
            assert store.get(task.id) == task, "reading goes on"
        assert store.record(task, Placed(at=NOW, worker_id="gpu1"))


# ------------------------------------------------------------------ any sequence


def events(number):
    """All kinds of news, true or not, about assignment ``number`` or one beside it."""
    at = st.integers(0, 1000).map(lambda seconds: NOW + timedelta(seconds=seconds))
    numbers = st.sampled_from([number, number, number, number + 1, max(number - 1, 1)])
    reasons = st.sampled_from(["", "because"])
    containers = st.sampled_from(["c1", "c1", "c2"])
    codes = st.sampled_from([0, 0, 1, 137, 143])
    gpus = st.sampled_from([(), ("GPU-a", "GPU-b")])
    return st.one_of(
        st.builds(Placed, at=at, worker_id=st.sampled_from(["gpu1", "gpu2"])),
        st.builds(Refused, at=at, number=numbers, reason=reasons),
        st.builds(Started, at=at, number=numbers, container_id=containers, gpus=gpus),
        st.builds(
            StartFailed,
            at=at,
            number=numbers,
            reason=reasons,
            exit_code=codes,
            cause=st.sampled_from([Cause.START, Cause.PULL]),
        ),
        st.builds(
            Exited,
            at=at,
            number=numbers,
            container_id=containers,
            exit_code=codes,
            oom_killed=st.booleans(),
            error=reasons,
            by_itself=st.booleans(),
        ),
        st.builds(StopAsked, at=at, reason=reasons, requeue=st.booleans()),
        st.builds(Gone, at=at, number=numbers, reason=reasons),
        st.builds(Restarted, at=at, number=numbers),
        st.builds(Lost, at=at, number=numbers, reason=st.just("away"), requeue=st.booleans()),
        st.builds(
            Adopted,
            at=at,
            number=numbers,
            worker_id=st.sampled_from(["gpu1", "gpu2"]),
            container_id=containers,
            gpus=gpus,
        ),
    )


class AnySequence(RuleBasedStateMachine):
    """The store against a model: a plain dictionary and ``advance``."""

    ids = Bundle("ids")

    @initialize()
    def open(self):
        self.folder = Path(tempfile.mkdtemp())
        self.open_store()
        self.model = {}
        self.seen = {}
        self.stories = {}
        self.assignments = {}
        self.made = 0
        self.touched = ""

    def open_store(self):
        self.store = Store.open(self.folder / "cloudai.db", now=NOW)
        with self.store._database.read() as connection:  # power loss is not tested here
            connection.connection.driver_connection.execute("PRAGMA synchronous = OFF")
        self.at_hand = Unfinished(self.store)

    def teardown(self):
        self.store.close()
        shutil.rmtree(self.folder)

    @rule(target=ids, direct=st.booleans(), retries=st.integers(0, 3))
    def submit(self, direct, retries):
        self.made += 1
        self.touched = f"task-1700000000-{self.made:06}"
        task = self.store.submit(a_task(self.made, direct=direct, retries=retries))
        self.at_hand.come([task])
        self.assignments[task.id] = {}
        self.model[task.id] = task
        self.seen[task.id] = [task]
        self.stories[task.id] = 1
        return task.id

    @rule(task_id=ids, data=st.data())
    def news(self, task_id, data):
        """About the task as it stands, or as somebody saw it some time ago."""
        present = self.model.get(task_id)
        self.touched = task_id
        given = data.draw(st.sampled_from(self.seen[task_id][::-1]))
        number = given.assignment.number if given.assignment else 1
        event = data.draw(events(number))
        after = self.store.record(given, event)
        if after is not None:
            self.at_hand.moved(after)
        if after is None:
            assert given != present or advance(given, event) is None
            return
        assert present is not None
        assert not present.state.final, "an end is for ever"
        assert self.but_harvest(given) == self.but_harvest(present), "stale news was written"
        assert after == advance(given, event)
        # That a log came home meanwhile is no change of the task, and is kept.
        after = advance(present, event)
        self.model[task_id] = after
        self.seen[task_id].append(after)
        self.stories[task_id] += len(tell(event, given, after))
        if after.assignment:
            self.assignments[task_id][after.assignment.number] = after.assignment
        assert after.failures <= after.spec.retries

    @staticmethod
    def but_harvest(task):
        held = task.assignment
        return replace(task, assignment=held and replace(held, harvested=False))

    @rule(task_id=ids)
    def harvest(self, task_id):
        """Whatever is over, of a task that may have gone on since."""
        task = self.model.get(task_id)
        for number, held in self.assignments[task_id].items() if task else ():
            present = held.number == task.assignment.number
            if present and task.state.assigned:
                continue
            self.store.mark_harvested(task_id, number)
            self.at_hand.harvested(task_id, number)
            harvested = self.assignments[task_id][number] = replace(held, harvested=True)
            if present:
                self.model[task_id] = replace(task, assignment=harvested)
                self.seen[task_id].append(self.model[task_id])

    @rule(task_id=consumes(ids))
    def forget(self, task_id):
        task = self.model.get(task_id)
        if task is not None and not task.state.final:
            with pytest.raises(Conflict):
                self.store.forget(task_id)
            return
        self.store.forget(task_id)
        del self.model[task_id]
        with pytest.raises(TaskNotFound):
            self.store.get(task_id)

    @rule()
    def reopen(self):
        self.store.close()
        self.open_store()

    @invariant()
    def rows_and_model_agree(self):
        known = list(self.model.values())
        assert self.store.tasks(limit=1000) == (known[::-1], len(known))
        assert self.store.active() == [task for task in known if not task.state.final]
        assert self.at_hand.active() == self.store.active()
        assert self.at_hand.unharvested() == self.store.unharvested()
        assert self.store.unharvested() == [
            replace(
                task, assignment=held, state=task.state if task.state.final else State.CANCELLED
            )
            for task in known
            for _, held in sorted(self.assignments[task.id].items())
            if held.container_id
            and not held.harvested
            and not held.lost
            and not (task.state.assigned and held.number == task.assignment.number)
        ]
        if task := self.model.get(self.touched):
            numbers = [each.number for each in self.store.assignments(task.id)]
            last = task.assignment.number if task.assignment else 0
            assert numbers == sorted(set(numbers)), "each counts once, in order"
            assert (numbers or [0])[-1] == last
            assert len(self.store.events(task.id)) == self.stories[task.id]


AnySequence.TestCase.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)
TestAnySequence = AnySequence.TestCase
