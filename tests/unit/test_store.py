"""What the store answers: tasks come, are found, listed and forgotten."""

import dataclasses
import sqlite3
import string
import threading
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudai.core.errors import Conflict, InvalidInput, StoreTooNew, TaskNotFound
from cloudai.core.lifecycle import Exited, Placed, Refused, Started, StopAsked
from cloudai.core.model import (
    GIB,
    Assignment,
    OnLost,
    OnUnmet,
    Placement,
    Resources,
    State,
    Strategy,
    Task,
    TaskSpec,
)
from cloudai.store import EventRow, Store

NOW = datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=UTC)


def a_task(number=1, *, state=State.QUEUED, **spec):
    return Task(
        id=f"task-1700000000-{number:06}",
        spec=TaskSpec(image="alpine", **spec),
        state=state,
        created_at=NOW + timedelta(seconds=number),
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "home" / "cloudai.db"


@pytest.fixture
def store(path):
    with Store.open(path, now=NOW) as store:
        yield store


def run_to_end(store, task, *, worker="gpu1", code=0, seconds=10):
    for event in (
        Placed(at=NOW, worker_id=worker),
        Started(at=NOW, number=1, container_id="c" * 64),
        Exited(
            at=NOW + timedelta(seconds=seconds), number=1, container_id="c" * 64, exit_code=code
        ),
    ):
        task = store.record(task, event)
    return task


# ------------------------------------------------------------------ rows are the domain

moments = st.datetimes(
    min_value=datetime(1, 1, 2),
    max_value=datetime(9999, 12, 30),
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))]),
)
words = st.text(max_size=30)
optional_words = st.none() | words
counts = st.integers(0, 2**53)
tuples = st.lists(words, max_size=3).map(tuple)
specs = st.builds(
    TaskSpec,
    image=words,
    argv=tuples,
    shell=optional_words,
    resources=st.builds(
        Resources, cpu_milli=counts, memory=counts, storage=counts, gpu_milli=counts
    ),
    user_id=words,
    name=optional_words,
    target=optional_words,
    env=tuples,
    mounts=tuples,
    workdir=optional_words,
    run_as=optional_words,
    shm_size=st.none() | counts,
    time_limit=st.none() | st.floats(0, 1e9),
    grace=st.floats(0, 1e6),
    idempotency_key=st.none(),
    on_lost=st.sampled_from(OnLost),
    lost_after=st.floats(0, 1e6),
    priority=st.integers(0, 100),
    strategy=st.none() | st.sampled_from(Strategy),
    nodes=tuples,
    gpu_model=optional_words,
    gpu_memory=st.none() | counts,
    require=tuples,
    avoid=tuples,
    near=tuples,
    apart=tuples,
    preemptible=st.booleans(),
    retries=st.integers(0, 100),
    retry_on=tuples,
    group=optional_words,
    group_size=st.integers(1, 256),
    group_rank=st.integers(0, 255),
    placement=st.sampled_from(Placement),
    batch=optional_words,
    entry=optional_words,
    fingerprint=optional_words,
    array=optional_words,
    array_index=st.integers(0, 2**31),
    array_size=st.integers(1, 100_000),
    array_limit=st.none() | st.integers(1, 1000),
    after=tuples,
    on_unmet=st.sampled_from(OnUnmet),
    signal=optional_words,
    signal_before=st.floats(0, 1e6),
    first_output=st.none() | st.floats(0, 1e6),
    idle_output=st.none() | st.floats(0, 1e6),
    task_type=optional_words,
    uploads=tuples,
    downloads=tuples,
    secrets=tuples,
    ship_image=optional_words,
)
codes = st.none() | st.integers(-(2**31), 2**31)


@st.composite
def tasks(draw):
    task_id = "task-" + draw(st.text(string.ascii_letters + string.digits, min_size=1))
    assignment = draw(
        st.none()
        | st.builds(
            Assignment,
            task_id=st.just(task_id),
            number=st.integers(1, 99),
            worker_id=words,
            placed_at=moments,
            container_id=optional_words,
            gpus=tuples,
            started_at=st.none() | moments,
            ended_at=st.none() | moments,
            exit_code=codes,
            reason=words,
            harvested=st.booleans(),
            lost=st.booleans(),
        )
    )
    return Task(
        id=task_id,
        spec=draw(specs),
        state=draw(st.sampled_from(State)),
        reason=draw(words),
        created_at=draw(moments),
        started_at=draw(st.none() | moments),
        completed_at=draw(st.none() | moments),
        exit_code=draw(codes),
        direct=draw(st.booleans()),
        stop_reason=draw(words),
        assignment=assignment,
        failures=draw(st.integers(0, 100)),
        not_before=draw(st.none() | moments),
        requeue=draw(st.booleans()),
        skipped=draw(st.booleans()),
    )


@pytest.fixture(scope="module")
def kept_open(tmp_path_factory):
    with Store.open(tmp_path_factory.mktemp("kept") / "cloudai.db", now=NOW) as store:
        yield store


@settings(deadline=None)
@given(tasks())
def test_a_task_comes_back_exactly_as_it_went_in(kept_open, task):
    assert kept_open.submit(task) == task
    found = kept_open.get(task.id)
    assert found == task
    assert type(found.state) is State
    assert type(found.spec.on_lost) is OnLost
    assert type(found.spec.placement) is Placement
    assert type(found.spec.on_unmet) is OnUnmet
    assert found.spec.strategy is None or type(found.spec.strategy) is Strategy
    assert found.created_at.tzinfo is UTC
    assert kept_open.assignments(task.id) == ([task.assignment] if task.assignment else [])
    with sqlite3.connect(kept_open._database.path) as raw:  # so that ids may come again
        raw.execute("PRAGMA foreign_keys = ON")
        raw.execute("DELETE FROM task")
    raw.close()


def test_every_field_of_a_spec_is_covered_by_that_test():
    drawn = {field.name for field in dataclasses.fields(TaskSpec)}
    assert drawn == {
        *("image", "argv", "shell", "resources", "user_id", "name", "target", "env", "mounts"),
        *("workdir", "run_as", "shm_size", "time_limit", "grace", "idempotency_key"),
        *("on_lost", "lost_after", "priority", "strategy", "nodes", "gpu_model", "gpu_memory"),
        *("require", "avoid", "near", "apart", "preemptible", "retries", "retry_on"),
        *("group", "group_size", "group_rank", "placement"),
        *(
            "batch",
            "entry",
            "fingerprint",
            "array",
            "array_index",
            "array_size",
            "array_limit",
            "after",
            "on_unmet",
        ),
        *("signal", "signal_before", "first_output", "idle_output", "task_type"),
        *("uploads", "downloads", "secrets", "ship_image"),
    }


@pytest.mark.parametrize("state", ["nonsense", "QUEUED", "", "Running"])
def test_an_unknown_state_is_never_written(store, path, state):
    with pytest.raises(ValueError, match="not a valid State"):
        store.submit(dataclasses.replace(a_task(), state=state))
    store.submit(a_task(2))
    with sqlite3.connect(path) as raw, pytest.raises(sqlite3.IntegrityError):
        raw.execute("UPDATE task SET state = ?", (state,))
    raw.close()
    assert store.tasks() == ([a_task(2)], 1)


def test_a_time_without_a_zone_is_never_written(store):
    with pytest.raises(ValueError, match="no time zone"):
        store.submit(dataclasses.replace(a_task(), created_at=datetime(2026, 1, 1)))
    assert store.tasks() == ([], 0)


@pytest.mark.parametrize(
    "task",
    [a_task(name="\udcff"), dataclasses.replace(a_task(), exit_code=2**70)],
    ids=["text that is none", "a number beyond 64 bits"],
)
def test_what_sqlite_cannot_hold_is_refused(store, task):
    with pytest.raises(InvalidInput):
        store.submit(task)
    assert store.tasks() == ([], 0)


def test_a_spec_of_a_newer_cloudai_is_not_read_as_half_of_it(store, path):
    store.submit(a_task())
    with sqlite3.connect(path) as raw:
        raw.execute("""UPDATE task SET spec = json_set(spec, '$.not_yet', 'x')""")
    raw.close()
    with pytest.raises(StoreTooNew, match="not_yet"):
        store.get(a_task().id)


# ------------------------------------------------------------------ submit


def test_the_same_key_of_the_same_user_is_the_task_made_before(store):
    first = store.submit(a_task(1, idempotency_key="nightly", user_id="ann"))
    again = store.submit(a_task(2, idempotency_key="nightly", user_id="ann", shell="other"))
    other = store.submit(a_task(3, idempotency_key="nightly", user_id="bob"))
    assert again == first
    assert other.id == a_task(3).id
    assert store.tasks()[1] == 2
    assert len(store.events(first.id)) == 1


def test_the_task_made_before_is_answered_as_it_stands_now(store):
    ended = run_to_end(store, store.submit(a_task(1, idempotency_key="k")))
    assert store.submit(a_task(2, idempotency_key="k")) == ended


def test_a_key_is_free_again_once_its_task_is_forgotten(store):
    ended = run_to_end(store, store.submit(a_task(1, idempotency_key="k")))
    store.forget(ended.id)
    assert store.submit(a_task(2, idempotency_key="k")).id == a_task(2).id


def test_two_submits_that_race_make_one_task(path):
    with Store.open(path, now=NOW) as one, Store.open(path, now=NOW) as two:
        assert one.id == two.id
        answers, barrier = [], threading.Barrier(2)

        def submit(store, offset):
            for round_ in range(20):
                barrier.wait(10)
                task = a_task(round_ * 2 + offset, idempotency_key=f"key {round_}")
                answers.append((round_, store.submit(task).id))

        threads = [threading.Thread(target=submit, args=each) for each in ((one, 0), (two, 1))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert len(answers) == 40
        assert len(set(answers)) == 20
        assert one.tasks()[1] == 20


def test_an_id_is_taken_once(store):
    store.submit(a_task(1))
    with pytest.raises(Conflict):
        store.submit_many([a_task(2), a_task(1)])
    assert store.tasks()[1] == 1, "all or none"


def test_many_come_at_once_in_their_order(store):
    store.submit(a_task(1, idempotency_key="a"))
    many = [
        a_task(5),
        a_task(4, idempotency_key="b"),
        a_task(3, idempotency_key="b"),
        a_task(2, idempotency_key="a"),
    ]
    answers = store.submit_many(many, what="imported", text="from a file")
    assert [task.id for task in answers] == [a_task(n).id for n in (5, 4, 4, 1)]
    assert [task.id for task in store.active()] == [a_task(n).id for n in (1, 5, 4)]
    assert store.events(a_task(4).id) == [EventRow(a_task(4).created_at, "imported", "from a file")]
    assert store.submit_many([]) == []


# ------------------------------------------------------------------ find


def test_each_of_many_has_the_first_line_of_its_own_story(store):
    store.submit(a_task(1))
    store.submit_many([a_task(3), a_task(2), a_task(4)], what="adopted", text="as it runs")
    store.submit_many([a_task(5)])
    assert [store.events(a_task(n).id) for n in (1, 2, 3, 4, 5)] == [
        [EventRow(a_task(1).created_at, "submitted", "")],
        *([EventRow(a_task(n).created_at, "adopted", "as it runs")] for n in (2, 3, 4)),
        [EventRow(a_task(5).created_at, "submitted", "")],
    ]


def test_one_wrong_value_among_many_leaves_none_of_them(store):
    wrong = dataclasses.replace(a_task(2), created_at=datetime(2026, 1, 31))
    with pytest.raises(ValueError, match="no time zone"):
        store.submit_many([a_task(1), wrong])
    assert store.tasks() == ([], 0)


def test_a_task_is_found_by_id_by_its_beginning_and_by_name(store):
    old = store.submit(a_task(1, name="train"))
    new = store.submit(a_task(22, name="train"))
    assert store.get(old.id) == store.find(old.id) == old
    assert store.find("task-1700000000-00002") == new
    assert store.find("train") == new


def test_an_exact_id_wins_over_those_that_begin_with_it(store):
    short = store.submit(a_task(1))
    store.submit(dataclasses.replace(a_task(1), id=short.id + "7"))
    assert store.find(short.id) == short


def test_a_beginning_of_several_is_a_conflict_that_lists_them(store):
    store.submit_many([a_task(n) for n in range(8)])
    with pytest.raises(Conflict) as caught:
        store.find("task-17")
    assert caught.value.details["tasks"] == [a_task(n).id for n in (7, 6, 5, 4, 3)]
    assert caught.value.message.endswith(", …")
    with pytest.raises(Conflict) as caught:
        store.find("task-1700000000-00000")
    assert a_task(0).id in caught.value.message or len(caught.value.details["tasks"]) == 5


@pytest.mark.parametrize(
    "wanted",
    ["task-%", "task-_", "task-1700000000-______", "%", "task-*", "task-", "task", "", "x"],
)
def test_nothing_is_a_wildcard(store, wanted):
    store.submit(a_task(1, name="train"))
    with pytest.raises(TaskNotFound):
        store.find(wanted)


def test_a_name_that_looks_like_an_id_is_found_as_a_name(store):
    named = store.submit(a_task(1, name="task-force"))
    assert store.find("task-force") == named
    assert store.find("task-17") == named


def test_get_wants_the_whole_id(store):
    store.submit(a_task(1))
    with pytest.raises(TaskNotFound):
        store.get("task-17")


# ------------------------------------------------------------------ lists


def test_lists_are_newest_first_filtered_and_paged(store):
    for number in range(10):
        task = store.submit(a_task(number, user_id="ann" if number % 2 else "bob", name="n"))
        if number < 4:
            run_to_end(store, task, worker="gpu1" if number < 3 else "gpu2", code=number % 2)

    def numbers(**filters):
        found, total = store.tasks(**filters)
        return [int(task.id[-6:]) for task in found], total

    assert numbers() == ([9, 8, 7, 6, 5, 4, 3, 2, 1, 0], 10)
    assert numbers(limit=3) == ([9, 8, 7], 10)
    assert numbers(limit=3, offset=8) == ([1, 0], 10)
    assert numbers(limit=0) == ([], 10)
    assert numbers(states=[State.COMPLETED]) == ([2, 0], 2)
    assert numbers(states=(State.COMPLETED, State.FAILED), user="ann") == ([3, 1], 2)
    assert numbers(worker="gpu1") == ([2, 1, 0], 3)
    assert numbers(name="n", user="bob", limit=1) == ([8], 5)
    assert numbers(name="other") == ([], 0)


def test_order_is_that_of_submission_whatever_the_clock_said(store):
    store.submit(a_task(9))
    store.submit(a_task(1))
    assert [task.id for task in store.active()] == [a_task(9).id, a_task(1).id]
    assert [task.id for task in store.tasks()[0]] == [a_task(1).id, a_task(9).id]


def test_active_tasks_and_those_to_harvest(store):
    queued, placed, running, ended, harvested, cancelled = (
        store.submit(a_task(number)) for number in range(6)
    )
    placed = store.record(placed, Placed(at=NOW, worker_id="gpu1"))
    running = store.record(running, Placed(at=NOW, worker_id="gpu1"))
    running = store.record(running, Started(at=NOW, number=1, container_id="c"))
    ended, harvested = run_to_end(store, ended), run_to_end(store, harvested, code=3)
    store.record(cancelled, StopAsked(at=NOW))
    store.mark_harvested(harvested.id, 1)
    store.mark_harvested(harvested.id, 1)
    store.mark_harvested("task-gone", 1)
    assert store.active() == [queued, placed, running]
    assert store.unharvested() == [ended]
    assert store.get(harvested.id).assignment.harvested


def test_earlier_assignments_are_harvested_too(store):
    task = store.submit(a_task(1, retries=3))
    for number in (1, 2):
        task = store.record(task, Placed(at=NOW, worker_id=f"gpu{number}"))
        task = store.record(task, Started(at=NOW, number=number, container_id=f"c{number}"))
        first = task.assignment
        task = store.record(
            task, Exited(at=NOW, number=number, container_id=f"c{number}", exit_code=1)
        )
        assert task.state is State.QUEUED
    assert store.active() == [task]
    out = store.unharvested()
    assert [one.assignment.id for one in out] == [f"{task.id}.1", f"{task.id}.2"]
    assert {one.state for one in out} == {State.CANCELLED}, "it is over for each of them"
    store.mark_harvested(task.id, 2)
    task = store.record(store.get(task.id), Placed(at=NOW, worker_id="gpu3"))
    assert [one.assignment.number for one in store.unharvested()] == [1]
    assert store.get(task.id) == task
    store.mark_harvested(task.id, first.number - 1)
    assert store.unharvested() == []


def test_the_whole_story_of_a_task(store):
    task = store.submit(a_task(1))
    task = store.record(task, Placed(at=NOW, worker_id="gpu1"))
    task = store.record(task, Refused(at=NOW, number=1, reason="Insufficient CPU"))
    task = store.record(task, Placed(at=NOW, worker_id="gpu2"))
    task = store.record(
        task, Started(at=NOW, number=2, container_id="c" * 64, gpus=("GPU-a", "GPU-b"))
    )
    task = store.record(task, StopAsked(at=NOW, reason="time limit of 5 s reached"))
    store.add_event(task.id, NOW, "unreachable", "gpu2 since noon")
    task = store.record(
        task, Exited(at=NOW, number=2, container_id="c" * 64, exit_code=137, oom_killed=True)
    )
    assert task.state is State.FAILED
    assert [(line.what, line.text) for line in store.events(task.id)] == [
        ("submitted", ""),
        ("placed", "on gpu1"),
        ("refused", "Insufficient CPU"),
        ("placed", "on gpu2"),
        ("started", "container cccccccccccc with GPU-a, GPU-b"),
        ("stop_asked", "time limit of 5 s reached"),
        ("unreachable", "gpu2 since noon"),
        ("exited", "out of memory: killed by the kernel; ask for more with -mem"),
    ]
    first, second = store.assignments(task.id)
    assert (first.number, first.worker_id, first.reason) == (1, "gpu1", "Insufficient CPU")
    assert first.harvested
    assert second == task.assignment
    assert store.assignments("task-none") == []
    assert store.events("task-none") == []


def test_a_story_needs_its_task(store):
    with pytest.raises(TaskNotFound):
        store.add_event("task-none", NOW, "x", "y")


# ------------------------------------------------------------------ forget


def test_only_a_finished_task_is_forgotten_and_all_of_it(store, path):
    task = store.submit(a_task(1))
    with pytest.raises(Conflict, match="queued"):
        store.forget(task.id)
    run_to_end(store, task)
    store.submit(a_task(2))
    store.forget(task.id)
    for look in (store.get, store.forget):
        with pytest.raises(TaskNotFound):
            look(task.id)
    with sqlite3.connect(path) as raw:
        left = [
            raw.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("task", "assignment", "event")
        ]
    raw.close()
    assert left == [1, 0, 1]


# ------------------------------------------------------------------ workers and figures


def test_draining_is_remembered(path):
    with Store.open(path, now=NOW) as store:
        store.set_draining("gpu1", True, NOW, by="ann", note="new disks")
        store.set_draining("gpu2", True, NOW)
        store.set_draining("gpu2", False, NOW)
        store.set_draining("gpu1", True, NOW)
    with Store.open(path, now=NOW) as store:
        assert store.draining() == {"gpu1"}


def test_metrics_are_those_of_the_api(store):
    assert store.metrics() == {
        "total_tasks": 0,
        "pending_tasks": 0,
        "running_tasks": 0,
        "completed_tasks": 0,
        "failed_tasks": 0,
        "cancelled_tasks": 0,
        "success_rate": 0.0,
        "average_execution_time": 0.0,
    }
    for number in range(6):
        run_to_end(store, store.submit(a_task(number)), code=number // 5, seconds=10 + number)
    store.submit(a_task(10))
    store.record(store.submit(a_task(11)), Placed(at=NOW, worker_id="w"))
    running = store.record(store.submit(a_task(12)), Placed(at=NOW, worker_id="w"))
    running = store.record(running, Started(at=NOW, number=1, container_id="c"))
    store.record(running, StopAsked(at=NOW))
    store.record(store.submit(a_task(13)), StopAsked(at=NOW))
    assert store.metrics() == {
        "total_tasks": 10,
        "pending_tasks": 2,
        "running_tasks": 1,
        "completed_tasks": 5,
        "failed_tasks": 1,
        "cancelled_tasks": 1,
        "success_rate": 83.3,
        "average_execution_time": 12.0,
    }
    assert store.counts() == {
        State.QUEUED: 1,
        State.STARTING: 1,
        State.RUNNING: 0,
        State.STOPPING: 1,
        State.COMPLETED: 5,
        State.FAILED: 1,
        State.CANCELLED: 1,
    }


def test_versions_are_said(store):
    assert store.sqlite_version == sqlite3.sqlite_version
    assert store.schema_version == "0004"
    assert store.integrity() == []


def test_the_large_numbers_of_gpu_hosts_fit(store):
    huge = Resources(cpu_milli=256_000, memory=2048 * GIB, storage=10**15, gpu_milli=16_000)
    task = store.submit(a_task(1, resources=huge))
    assert store.get(task.id).spec.resources == huge


def test_the_story_tells_tries_and_preemptions(store):
    task = store.submit(a_task(1, retries=3))
    for number, ended in ((1, (StopAsked(at=NOW, reason="for task-x", requeue=True),)), (2, ())):
        task = store.record(task, Placed(at=NOW, worker_id="gpu1"))
        task = store.record(task, Started(at=NOW, number=number, container_id="c"))
        for event in ended:
            task = store.record(task, event)
        task = store.record(task, Exited(at=NOW, number=number, container_id="c", exit_code=9))
    assert [(line.what, line.text) for line in store.events(task.id)] == [
        ("submitted", ""),
        ("placed", "on gpu1"),
        ("started", "container c"),
        ("preempted", "for task-x"),
        ("exited", "exit code 9"),
        ("queued again", "for task-x"),
        ("placed", "on gpu1"),
        ("started", "container c"),
        ("exited", "exit code 9"),
        ("tried again", f"try 2 of 4 at {NOW + timedelta(seconds=10):%H:%M:%S} UTC"),
    ]


def test_news_of_a_stop_that_a_cancel_overtook_is_stale(store):
    task = store.submit(a_task(1))
    task = store.record(task, Placed(at=NOW, worker_id="gpu1"))
    task = store.record(task, Started(at=NOW, number=1, container_id="c"))
    stopping = store.record(task, StopAsked(at=NOW, reason="for task-x", requeue=True))
    cancelled = store.record(stopping, StopAsked(at=NOW))
    exit_seen = Exited(at=NOW, number=1, container_id="c", exit_code=137)
    assert store.record(stopping, exit_seen) is None, "it would have run again"
    assert store.record(cancelled, exit_seen).state is State.CANCELLED


LEFT = st.sampled_from([State.QUEUED, State.STARTING, State.RUNNING, State.COMPLETED])


@settings(max_examples=60, deadline=None)
@given(
    tasks=st.lists(st.tuples(LEFT, st.sampled_from([None, None, "a", "b"])), max_size=12),
    limit=st.integers(1, 6),
)
def test_what_waits_is_told_oldest_first_and_an_array_as_one(kept_open, tasks, limit):
    with kept_open._database.write() as connection:
        connection.exec_driver_sql("DELETE FROM task")
    many = [
        a_task(number, state=state, array=array, array_index=number)
        for number, (state, array) in enumerate(tasks)
    ]
    kept_open.submit_many(many)
    going = [task for task in many if task.state in (State.QUEUED, State.STARTING)]
    firsts = {}
    for task in going:
        firsts.setdefault(task.spec.array or task.id, []).append(task)
    expected = [(of[0].id, len(of)) for of in firsts.values()][:limit]
    found, total = kept_open.waiting(limit)
    assert ([(task.id, count) for task, count in found], total) == (expected, len(going))


# ------------------------------------------------------------------ speed comes from indexes


@pytest.mark.parametrize(
    ("ask", "steps"),
    [
        (lambda store: store.active(), "task_by_state"),
        (lambda store: store.unharvested(), "assignment_to_harvest"),
        (lambda store: store.find("task-1700000000-0"), "sqlite_autoindex_task_1"),
        (lambda store: store.tasks(user="ann"), "task_by_user"),
        (lambda store: store.tasks(states=[State.FAILED]), "task_by_state"),
        (lambda store: store.tasks(worker="w"), "task_by_worker"),
        (lambda store: store.tasks(name="n"), "task_by_name"),
        (lambda store: store.submit(a_task(2, idempotency_key="k")), "task_by_key"),
        (lambda store: store.events(a_task().id), "event_by_task"),
        (lambda store: store.counts(), "task_by_state"),
        (lambda store: store.waiting(5), "task_by_array"),
    ],
)
def test_no_question_walks_through_all_tasks(store, path, ask, steps):
    store.submit(a_task(1))
    statements = []
    with store._database.read() as connection:
        driver = connection.connection.driver_connection
    driver.set_trace_callback(statements.append)
    ask(store)
    driver.set_trace_callback(None)
    with sqlite3.connect(path) as raw:
        plan = [
            step[3]
            for statement in statements
            if statement.startswith("SELECT")
            for step in raw.execute(f"EXPLAIN QUERY PLAN {statement}")
        ]
    raw.close()
    assert any(steps in step for step in plan), plan
    assert not [step for step in plan if step.startswith("SCAN") and "USING" not in step], plan
