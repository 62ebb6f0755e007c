"""What people are told of a task that waits, to the word."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from cloudai.core.capacity import free_of
from cloudai.core.model import (
    GIB,
    ContainerSight,
    EngineFacts,
    Gpu,
    GpuProcess,
    Phase,
    Placement,
    Resources,
    WorkerSight,
    WorkerSpec,
)
from cloudai.core.policy import HOUR, Policy, Quota
from cloudai.core.schedule import Ask, Board, Place, Reservation, Running, Shape, Why, why
from cloudai.core.schedule.snapshot import Use

NOW = 1_000_000.0
MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


def gpu(index: int, **more: Any) -> Gpu:
    return Gpu(uuid=f"GPU-{index}", index=index, model="NVIDIA A100", memory=40 * GIB, **more)


def outsider(index: int, user: str | None = "bob", pid: int = 4242) -> Gpu:
    return gpu(index, processes=(GpuProcess(pid=pid, name="python train.py", user=user),))


def held(task_id: str, *gpus: int, share: float = 1.0, memory: float | None = None) -> Any:
    """A container of ours that has these GPUs, and the same for the board."""
    many = len(gpus) if share == 1.0 else share
    container = ContainerSight(
        id=f"id-{task_id}",
        assignment_id=f"{task_id}.1",
        task_id=task_id,
        store_id="s",
        phase=Phase.RUNNING,
        held=Resources.of(cpus=1, memory=1, gpus=many),
        gpus=tuple(f"GPU-{one}" for one in gpus),
        gpu_memory=None if memory is None else int(memory * GIB),
    )
    running = Running(
        id=task_id, user="ann", resources=container.held, devices=gpus, started=NOW - 60
    )
    return container, running


def a_place(
    worker_id: str = "gpu1",
    *,
    cpus: int = 16,
    memory: int = 64,
    available: float | None = None,
    gpus: tuple[Gpu, ...] = (),
    tasks: tuple[Any, ...] = (),
    running: tuple[Running, ...] = (),
    reserved: tuple[Reservation, ...] = (),
    **spec: Any,
) -> Place:
    sight = WorkerSight(
        cpus=cpus,
        memory=memory * GIB,
        memory_available=int((memory if available is None else available) * GIB),
        disk=100 * GIB,
        disk_free=80 * GIB,
        load=0.0,
        clock=MOMENT,
        machine_id="m",
        engine=EngineFacts(id="e", version="28"),
        gpus=gpus,
        containers=tuple(container for container, _ in tasks),
    )
    worker = WorkerSpec(id=worker_id, **spec)
    free = free_of(sight, worker)
    index = {device.uuid: at for at, device in enumerate(free.devices)}
    seen = tuple(
        Running(
            id=one.id,
            user=one.user,
            resources=one.resources,
            started=one.started,
            devices=tuple(index[uuid] for uuid in container.gpus if uuid in index),
        )
        for container, one in tasks
    )
    return Place(worker_id=worker_id, free=free, running=(*seen, *running), reserved=reserved)


def an_ask(number: int = 1, *, user: str = "eve", **shape: Any) -> Ask:
    asked = {name: shape.pop(name) for name in ("cpus", "memory", "gpus") if name in shape}
    more = {name: shape.pop(name) for name in tuple(shape) if name not in Shape.__slots__}
    resources = Resources.of(**{"cpus": 1, "memory": 1, "storage": 1, **asked})
    return Ask(
        id=f"task-{number}",
        user=user,
        shape=Shape(resources=resources, **shape),
        **{"since": NOW, "position": number, **more},
    )


def told(places: list[Place], *asks: Ask, policy: Policy | None = None) -> tuple[Why, str]:
    """What is said of the last of the tasks, at length and in one line, after a pass."""
    board = Board(policy)
    for place in places:
        board.see(place)
    for ask in asks:
        board.add(ask, NOW)
    plan = board.plan(NOW)
    return why(board, asks[-1].id, NOW), plan.waiting[asks[-1].id]


def reasons(places: list[Place], *asks: Ask, policy: Policy | None = None) -> list[str]:
    found, _ = told(places, *asks, policy=policy)
    return [f"{', '.join(one.workers)}: {one.reason}" for one in found.reasons]


# ---------------------------------------------------------------- GPUs: who has them


def test_who_has_the_gpus_task_by_task_and_process_by_process():
    place = a_place(gpus=(gpu(0), gpu(1), outsider(2), outsider(3)), tasks=(held("task-9", 0, 1),))
    assert reasons([place], an_ask(gpus=1)) == [
        "gpu1: 0 of 4 GPUs free, 2 held by task-9 (ann), 2 used outside cloudai by bob,"
        " pid 4242 python train.py"
    ]


@pytest.mark.parametrize(
    ("gpus", "tasks", "spec", "asked", "words"),
    [
        ((), (), {}, {"gpus": 1}, "it has no GPU"),
        (
            (gpu(0, error="ERR!"), gpu(1)),
            (held("task-9", 1),),
            {},
            {"gpus": 1},
            "0 of 2 GPUs free, 1 broken, 1 held by task-9 (ann)",
        ),
        (
            (gpu(0), gpu(1)),
            (),
            {"min_free_gpus": 1},
            {"gpus": 2},
            "1 of 2 GPUs free, 1 kept free for people",
        ),
        (
            (gpu(0, memory_used=9 * GIB),),
            (),
            {},
            {"gpus": 1},
            "0 of 1 GPUs free, 1 used outside cloudai: its memory is in use, by whom cannot be"
            " seen",
        ),
        (
            (outsider(0, user=None),),
            (held("task-9", 0),),
            {},
            {"gpus": 1},
            "0 of 1 GPUs free, 1 used outside cloudai by somebody, pid 4242 python train.py, next"
            " to task-9 (ann)",
        ),
        (
            (gpu(0),),
            (held("task-8", 0, share=0.5), held("task-9", 0, share=0.25)),
            {},
            {"gpus": 0.5},
            "0 of 1 GPUs free, 1 shared by task-8 (ann) and task-9 (ann), 0.25 of it free",
        ),
        (
            (gpu(0),),
            (held("task-8", 0, share=0.25), held("task-9", 0, share=0.25)),
            {"tasks_per_gpu": 2},
            {"gpus": 0.25},
            "0 of 1 GPUs free, 1 shared by task-8 (ann) and task-9 (ann), 0.5 of it free but no"
            " more than 2 tasks may share one",
        ),
        (
            (gpu(0),),
            (held("task-9", 0, share=0.25, memory=30),),
            {},
            {"gpus": 0.25, "gpu_memory": 20 * GIB},
            "0 of 1 GPUs (20.0 GB) free, 1 shared by task-9 (ann), 0.75 of it free but only 10 GB"
            " of its memory unclaimed",
        ),
        (
            (gpu(0, mig_parent="GPU-x"), gpu(1, mig_parent="GPU-x")),
            (held("task-9", 0), held("task-8", 1)),
            {},
            {"gpus": 1},
            "0 of 2 MIG slices free, 1 held by task-9 (ann), 1 held by task-8 (ann)",
        ),
        (
            (gpu(0),),
            (),
            {},
            {"gpus": 1, "gpu_model": "h100"},
            "none of its 1 GPUs (NVIDIA A100) is as asked: h100",
        ),
    ],
)
def test_every_way_in_which_a_gpu_is_not_to_be_had(gpus, tasks, spec, asked, words):
    assert reasons([a_place(gpus=gpus, tasks=tasks, **spec)], an_ask(**asked)) == [f"gpu1: {words}"]


def test_what_was_placed_a_moment_ago_is_told_as_held():
    """Also what this very pass gave, and what is still being started."""
    place = a_place(gpus=(gpu(0), gpu(1)))
    assert reasons([place], an_ask(1, gpus=2, user="ann"), an_ask(2, gpus=1)) == [
        "gpu1: 0 of 2 GPUs free, 2 held by task-1 (ann)"
    ]


# ---------------------------------------------------------------- CPUs, memory, disk


def test_who_has_the_cores_the_largest_first_and_the_rest_together():
    running = tuple(
        Running(id=f"task-1{i}", user="ann", resources=Resources.of(cpus=i + 1)) for i in range(5)
    )
    place = a_place(running=running, reserve=Resources.of(cpus=1))
    place.free.cpu -= 15_000
    assert reasons([place], an_ask(cpus=2)) == [
        "gpu1: 0 of 16 CPUs free, 5 held by task-14 (ann), 4 held by task-13 (ann),"
        " 3 held by task-12 (ann), 3 by 2 more, 1 kept back for the system"
    ]


def test_memory_that_others_use_is_told():
    place = a_place(available=3.25, tasks=(held("task-9"),))
    assert reasons([place], an_ask(memory=4)) == [
        "gpu1: 3.2 of 64 GB of memory free, 1 held by task-9 (ann), 59.7 kept back or used"
        " outside cloudai"
    ]


# ---------------------------------------------------------------- everything else in the way


def test_a_worker_that_is_no_place_for_it_says_why():
    places = [
        Place(worker_id="w1", free=None, closed="draining"),
        a_place("w2"),
        Place(worker_id="w3", free=None, closed="draining"),
    ]
    found, line = told(places, an_ask(require=("zone=lab",)))
    assert [(one.workers, one.reason) for one in found.reasons] == [
        (("w1", "w3"), "draining"),
        (("w2",), "it has not zone=lab"),
    ]
    assert line == "w1, w3: draining; w2: it has not zone=lab"
    assert found.would_fit == ("leaving out --require zone=lab: 1 worker is large enough",)


def test_what_is_reserved_is_said_whose_and_that_it_can_be_lent():
    mine = Reservation(id="r", user="ann", resources=Resources.of(cpus=14))
    found, line = told([a_place(reserved=(mine,))], an_ask(cpus=4))
    assert line == "gpu1: what is free there is reserved for ann"
    assert found.would_fit == ("--preemptible: what is reserved and idle on gpu1 is lent",)


def test_whose_a_reservation_is():
    def whose(**more: Any) -> str:
        return Reservation(id="r", resources=Resources(), **more).whose

    assert whose(user="ann") == "ann"
    assert whose(user=None, priority=75) == "tasks of priority 75 and higher"
    assert whose(user="ann", priority=75) == "ann's tasks of priority 75 and higher"


def test_a_reservation_is_for_its_user_and_its_priority():
    one = Reservation(id="r", user="ann", resources=Resources.of(cpus=16), priority=75)
    low, high = an_ask(1, user="ann"), an_ask(2, user="ann", priority=75)
    board = Board()
    board.see(a_place(reserved=(one,)))
    board.add(low, NOW)
    board.add(high, NOW)
    assert [placing.task_id for placing in board.plan(NOW).placements] == ["task-2"]


def test_a_place_kept_for_another_says_for_whom():
    busy = Running(
        id="task-9", user="ann", resources=Resources.of(cpus=10), ends=NOW + HOUR, started=NOW - 60
    )
    place = a_place(running=(busy,))
    place.free.cpu -= 10_000
    first, second = an_ask(1, cpus=16), an_ask(2, user="zoe", cpus=4)
    found, line = told([place], first, second)
    assert line == "gpu1: kept for task-1, whose turn comes before"
    assert (found.ahead, found.next_task, found.next_user) == (1, "task-1", "eve")


# ---------------------------------------------------------------- its turn, and what would help


def test_where_its_turn_comes_from():
    board = Board(Policy(weights={"eve": 2.0}))
    board.see(a_place(cpus=10))
    board.set_use({"eve": Use(cpu_seconds=10 * 4 * HOUR), "bob": Use(cpu_seconds=10 * HOUR)})
    board.add(an_ask(1, cpus=100, since=NOW - 7 * HOUR), NOW)
    board.add(an_ask(2, cpus=100, user="bob", priority=75), NOW)
    board.plan(NOW)
    found = why(board, "task-1", NOW)
    assert found.asks == "100 CPUs, 1 GB of memory, 1 GB of disk"
    assert found.turn == (
        "priority 75: 50, and 25 for 7 h of waiting; eve has had 2.00 h for a weight of 2 of the"
        " whole fleet; at that priority bob (1.00 h) had less and goes first"
    )
    assert (found.ahead, found.next_task, found.next_user) == (1, "task-2", "bob")


@pytest.mark.parametrize(
    ("asked", "advice"),
    [
        ({"cpus": 100}, "asking for at most 16 CPUs: no worker it may go to has more"),
        ({"memory": 65}, "asking for at most 64 GB of memory: no worker it may go to has more"),
        ({"gpus": 3}, "asking for at most 2 GPUs: no worker it may go to has more"),
        ({"gpus": 2}, "asking for 1 GPU: one is free on one worker now"),
        ({"nodes": ("lab",)}, "leaving out --node lab: 1 worker is large enough"),
        (
            {"gpus": 1, "gpu_model": "h100"},
            "leaving out the GPU model h100: 1 worker is large enough",
        ),
    ],
)
def test_what_would_make_it_fit(asked, advice):
    found, _ = told([a_place(gpus=(gpu(0), gpu(1)), tasks=(held("task-9", 0),))], an_ask(**asked))
    assert found.would_fit[0] == advice


def test_a_higher_priority_would_have_preemptible_tasks_give_way():
    busy = Running(id="task-9", user="ann", resources=Resources.of(cpus=10), preemptible=True)
    place = a_place(running=(busy,))
    place.free.cpu -= 10_000
    found, _ = told([place], an_ask(cpus=8))
    assert found.would_fit == (
        "a priority above 50: task-9 would give way, being preemptible",
        "the end of a task that runs now, such as task-9 on gpu1",
    )


def test_when_it_can_start_by_the_time_limits_of_what_runs():
    busy = Running(id="task-9", user="ann", resources=Resources.of(cpus=10), ends=NOW + HOUR)
    place = a_place(running=(busy,))
    place.free.cpu -= 10_000
    found, _ = told([place], an_ask(cpus=8))
    assert (found.start, found.start_on) == (NOW + HOUR, "gpu1")


def test_workers_that_would_do_if_they_took_tasks():
    found, line = told([Place(worker_id="w1", free=None, closed="draining")], an_ask())
    assert line == "w1: draining"
    assert found.would_fit == ("w1 taking tasks again",)


def test_a_task_that_came_after_the_pass_starts_in_the_next():
    board = Board()
    board.see(a_place())
    board.plan(NOW)
    board.add(an_ask(), NOW)
    found = why(board, "task-1", NOW)
    assert (found.fits, found.reasons, found.would_fit, found.ahead) == (("gpu1",), (), (), 0)


# ---------------------------------------------------------------- quotas and groups


def test_over_a_quota_it_waits_for_that():
    policy = Policy(quotas={"eve": Quota(cpu_milli=2000)})
    found, line = told([a_place()], an_ask(1, cpus=2), an_ask(2, cpus=1), policy=policy)
    assert line == found.held == "over the quota of eve: it would have 3 CPUs of 2"
    assert found.fits == ()


def a_group(size: int, *, of: int | None = None, **asked: Any) -> list[Ask]:
    return [
        an_ask(i, group="group-1", group_size=of or size, group_rank=i, **asked)
        for i in range(size)
    ]


def test_a_group_waits_for_the_rest_of_itself():
    _, line = told([a_place()], *a_group(2, of=3))
    assert line == "group-1 waits for 1 more of its tasks"


def test_a_group_says_how_many_of_it_would_fit():
    members = a_group(3, cpus=8, placement=Placement.STRICT_PACK)
    found, line = told([a_place()], *members)
    assert (
        line
        == found.held
        == ("the 3 tasks of group-1 start together (strict_pack): 2 of them would fit now")
    )
    assert found.fits == ()


def test_a_group_of_which_nothing_fits_lacks_what_one_of_it_lacks():
    _, line = told([a_place()], *a_group(2, cpus=17))
    assert line == "gpu1: Insufficient CPU: worker has 16.0 available, task requires 17.0"


# ---------------------------------------------------------------- in one line


def test_three_workers_in_one_line():
    places = [a_place("w1", cpus=4), a_place("w2", cpus=4), a_place("w3", cpus=8)]
    assert told(places, an_ask(cpus=9))[1] == (
        "w1, w2: Insufficient CPU: worker has 4.0 available, task requires 9.0;"
        " w3: Insufficient CPU: worker has 8.0 available, task requires 9.0"
    )


def test_many_workers_with_different_figures_are_told_together():
    places = [a_place(f"w{i}", cpus=i) for i in range(1, 8)]
    assert told(places, an_ask(cpus=9))[1] == (
        "all 7 workers: Insufficient CPU: at most 7.0 available, task requires 9.0"
    )


def a_large_fleet() -> list[Place]:
    places = [a_place(f"w{i}", cpus=4) for i in range(900)]
    places += [a_place(f"x{i}", cpus=16, gpus=(outsider(0),)) for i in range(60)]
    closed = [f"unreachable since 12:0{i % 10}: no route" for i in range(40)]
    return places + [
        Place(worker_id=f"y{i}", free=None, closed=why) for i, why in enumerate(closed)
    ]


def test_a_thousand_workers_in_one_line():
    found, line = told(a_large_fleet(), an_ask(cpus=8, gpus=1))
    assert line == (
        "w0, w1, w2 and 897 more: Insufficient CPU: at most 4.0 available, task requires 8.0;"
        " x0, x1, x2 and 57 more: Insufficient GPU: at most 0.0 available, task requires 1.0;"
        " y0, y10, y20 and 1 more: unreachable since 12:00: no route;"
        " 9 more reasons on 36 more: cloudai why task-1"
    )
    assert sum(len(one.workers) for one in found.reasons) == 1000


@pytest.mark.parametrize("asked", [{"near": ("task-77",)}, {"apart": ("task-9",)}])
def test_a_reason_on_every_one_of_a_thousand_workers(asked):
    found, _ = told(a_large_fleet(), an_ask(**asked), an_ask(2, **{**asked, "cpus": 99}))
    assert sum(len(one.workers) for one in found.reasons) == 1000
