"""Placing, and the reasons for not placing."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from cloudai.core.capacity import Hold, Use, free_of
from cloudai.core.model import (
    GIB,
    ContainerSight,
    EngineFacts,
    Gpu,
    GpuProcess,
    Phase,
    Resources,
    State,
    Task,
    TaskSpec,
    WorkerSight,
    WorkerSpec,
)
from cloudai.core.schedule import Ask, Board, Place, Plan, ask_of, schedule
from cloudai.core.schedule.keeps import keep_for
from cloudai.core.wording import amount, insufficient

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def a_sight(*, cpus=4, memory=16, gpus=(), containers=(), available=None) -> WorkerSight:
    return WorkerSight(
        cpus=cpus,
        memory=memory * GIB,
        memory_available=(memory if available is None else available) * GIB,
        disk=100 * GIB,
        disk_free=80 * GIB,
        load=0.0,
        clock=NOW,
        machine_id="m",
        engine=EngineFacts(id="e", version="20.10"),
        gpus=tuple(gpus),
        containers=tuple(containers),
    )


def a_container(task_id="task-1", *, phase=Phase.RUNNING, gpus=(), **held) -> ContainerSight:
    return ContainerSight(
        id=f"id-{task_id}",
        assignment_id=f"{task_id}.1",
        task_id=task_id,
        store_id="s",
        phase=phase,
        held=Resources.of(**held),
        gpus=gpus,
    )


def a_task(number: int, *, target=None, refused=None, **ask) -> Ask:
    resources = Resources.of(**{"cpus": 1, "memory": 0.5, "storage": 1, **ask})
    task = Task(
        id=f"task-{number}",
        spec=TaskSpec(image="busybox", resources=resources, target=target),
        state=State.QUEUED,
        created_at=NOW,
    )
    return ask_of(task, number, refused=refused or {})


def placed(plan: Plan) -> list[tuple[str, str]]:
    return [(one.task_id, one.worker_id) for one in plan.placements]


def gpus(count: int, **more) -> list[Gpu]:
    return [Gpu(uuid=f"GPU-{i}", index=i, model="A100", **more) for i in range(count)]


def place(worker_id="w1", **sight) -> Place:
    return Place(worker_id=worker_id, free=free_of(a_sight(**sight), WorkerSpec(id=worker_id)))


def closed(worker_id: str, why: str) -> Place:
    return Place(worker_id=worker_id, free=None, closed=why)


def test_the_words_of_the_seed():
    assert insufficient("CPU", 4.0, 100.0) == (
        "Insufficient CPU: worker has 4.0 available, task requires 100.0"
    )
    assert amount(0.25) == "0.25"
    assert amount(0.4999999, down=True) == "0.499"
    assert amount(3.0) == "3.0"


def test_reservations_come_from_containers_that_live():
    free = free_of(
        a_sight(
            containers=[
                a_container("task-1", cpus=1, memory=2),
                a_container("task-2", cpus=1, memory=2, phase=Phase.EXITED),
                a_container("task-3", cpus=1, memory=2, phase=Phase.CREATED),
            ]
        ),
        WorkerSpec(id="w", reserve=Resources.of(cpus=0.5, memory=1)),
    )
    assert free.free.cpus == 1.5
    assert free.free.memory_gib == 11


def test_a_placed_task_holds_once_whether_seen_or_not():
    sight = a_sight(containers=[a_container("task-1", cpus=1)])
    holds = [Hold("task-1", Resources.of(cpus=1)), Hold("task-2", Resources.of(cpus=2))]
    assert free_of(sight, WorkerSpec(id="w"), holds).free.cpus == 1


def test_memory_that_outsiders_use_is_not_free():
    assert free_of(a_sight(memory=16, available=3), WorkerSpec(id="w")).free.memory_gib == 3


def test_a_desktop_that_only_draws_keeps_nobody_away():
    desktop = GpuProcess(pid=1, name="Xorg", memory=GIB // 4, graphics=True)
    little = Gpu(uuid="GPU-0", index=0, model="", memory_used=GIB // 4, processes=(desktop,))
    much = Gpu(uuid="GPU-1", index=1, model="", memory_used=2 * GIB, processes=(desktop,))
    free = free_of(a_sight(gpus=[little, much]), WorkerSpec(id="w"))
    assert [use.use for use in free.gpus] == [Use.FREE, Use.OUTSIDE]


def test_gpus_of_others_are_seen_and_respected():
    devices = gpus(5)
    devices[1] = Gpu(
        uuid="GPU-1", index=1, model="A100", processes=(GpuProcess(pid=1, name="python"),)
    )
    devices[2] = Gpu(uuid="GPU-2", index=2, model="A100", memory_used=2 * GIB)
    devices[3] = Gpu(uuid="GPU-3", index=3, model="A100", error="ERR!")
    devices[4] = Gpu(
        uuid="GPU-4",
        index=4,
        model="A100",
        memory_used=9 * GIB,
        processes=(GpuProcess(pid=2, name="train", container="id-task-1"),),
    )
    held = ContainerSight(
        id="id-task-1",
        assignment_id="task-1.1",
        task_id="task-1",
        store_id="s",
        phase=Phase.RUNNING,
        held=Resources.of(gpus=1),
        gpus=("GPU-4",),
    )
    free = free_of(a_sight(gpus=devices, containers=[held]), WorkerSpec(id="w"))
    assert [use.use for use in free.gpus] == [
        Use.FREE,
        Use.OUTSIDE,
        Use.OUTSIDE,
        Use.BROKEN,
        Use.TASK,
    ]
    assert free.lacks(Resources.of(gpus=1)) is None
    assert free.lacks(Resources.of(gpus=2)) == ("GPU", 1.0, 2.0)


def test_shares_fill_a_device_that_is_shared_already_and_whole_ones_stay_alone():
    free = free_of(a_sight(gpus=gpus(2)), WorkerSpec(id="w"))
    free.take(Resources.of(gpus=0.5))
    free.take(Resources.of(gpus=0.5))
    assert sorted(free.shares) == [0, 1000]
    free.take(Resources.of(gpus=1))
    assert free.lacks(Resources.of(gpus=0.1)) == ("GPU", 0.0, 0.1)


def test_ops_limits_on_gpus_hold():
    spec = WorkerSpec(id="w", max_gpus=1)
    assert free_of(a_sight(gpus=gpus(4)), spec).lacks(Resources.of(gpus=2)) == ("GPU", 1.0, 2.0)
    spec = WorkerSpec(id="w", reserve=Resources.of(gpus=3))
    assert free_of(a_sight(gpus=gpus(4)), spec).gpu_room(1000) == 1000


def test_a_worker_that_became_smaller_than_its_reservations_takes_nothing():
    sight = a_sight(cpus=2, containers=[a_container("task-1", cpus=4)])
    assert free_of(sight, WorkerSpec(id="w")).lacks(Resources.of(cpus=0.1)) == ("CPU", 0.0, 0.1)


def test_tasks_spread_and_every_unplaced_one_has_a_reason():
    places = [place("w1", cpus=2), place("w2", cpus=2), closed("w3", "draining")]
    plan = schedule([a_task(i) for i in range(5)], places)
    assert [worker for _, worker in placed(plan)] == ["w1", "w2", "w1", "w2"]
    assert dict(plan.waiting) == {
        "task-4": "w1, w2: Insufficient CPU: worker has 0.0 available, task requires 1.0;"
        " w3: draining"
    }


def test_a_target_is_the_only_candidate():
    plan = schedule([a_task(1, target="w2")], [place("w1"), place("w2")])
    assert placed(plan) == [("task-1", "w2")]
    plan = schedule([a_task(1, target="w2")], [place("w1"), closed("w2", "draining")])
    assert dict(plan.waiting) == {"task-1": "draining"}
    plan = schedule([a_task(1, target="w9")], [place("w1")])
    assert dict(plan.waiting) == {"task-1": "Worker w9 not found"}


def test_no_workers_says_what_to_do():
    assert "cloudai register" in schedule([a_task(1)], []).waiting["task-1"]


def test_a_worker_that_refused_a_moment_ago_is_left_alone():
    refused = {"w1": "Insufficient GPU: worker has 0.0 available, task requires 1.0"}
    plan = schedule([a_task(1, refused=refused), a_task(2)], [place("w1")])
    assert placed(plan) == [("task-2", "w1")]
    assert "Insufficient GPU" in plan.waiting["task-1"]


def test_cpu_tasks_leave_gpu_workers_alone_where_they_can():
    places = [place("gpu", cpus=64, memory=256, gpus=gpus(8)), place("cpu", cpus=4)]
    plan = schedule([a_task(1)], places)
    assert placed(plan) == [("task-1", "cpu")]


asks = st.builds(
    dict,
    cpus=st.sampled_from([0.5, 1, 2, 8]),
    memory=st.sampled_from([0.1, 1, 8]),
    gpus=st.sampled_from([0, 0.25, 0.5, 0.75, 1, 2]),
)


@given(st.lists(asks, max_size=40), st.lists(st.integers(1, 8), min_size=1, max_size=5))
def test_never_more_than_there_is_and_always_a_reason(wanted, sizes):
    places = [place(f"w{i}", cpus=n, gpus=gpus(n // 2)) for i, n in enumerate(sizes)]
    queue = [a_task(i, **ask) for i, ask in enumerate(wanted)]
    plan = schedule(queue, places)
    went = dict(placed(plan))
    assert set(went) | set(plan.waiting) == {task.id for task in queue}
    assert not set(went) & set(plan.waiting)
    assert all(plan.waiting.values())
    for i, n in enumerate(sizes):
        here = [task.shape.resources for task in queue if went.get(task.id) == f"w{i}"]
        assert sum(r.cpu_milli for r in here) <= n * 1000
        assert sum(r.memory for r in here) <= 16 * GIB
        assert sum(r.gpu_milli for r in here) <= n // 2 * 1000


def test_a_long_queue_of_one_shape_is_asked_about_once_however_small_the_fleet(monkeypatch):
    asked = []

    def counted(ask, *rest, **more):
        asked.append(ask.id)
        return keep_for(ask, *rest, **more)

    monkeypatch.setattr("cloudai.core.schedule.board.keep_for", counted)
    board = Board()
    for name in ("w1", "w2"):
        board.see(place(name, cpus=2))
    for number in range(1000):
        board.add(a_task(number, cpus=2 if number % 2 else 1))
    plan = board.plan(NOW.timestamp())
    assert len(plan.placements) + len(plan.waiting) == 1000
    assert len(asked) <= 6, "two keep a worker, and one of each shape finds that none is left"


def test_tasks_that_are_alike_have_one_shape_between_them():
    one, other = a_task(1, target="gpu1"), a_task(2, target="gpu1")
    assert one.shape is other.shape
    assert a_task(3, target="gpu2").shape != one.shape
    again = replace(replace(one.shape, limit=60.0), limit=None)
    assert (again, hash(again)) == (one.shape, hash(one.shape))
    assert hash(replace(one.shape, limit=60.0)) != hash(one.shape)
