"""What people see of the scheduler: why, the queue, reservations, distribute."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from cloudai.core.errors import Insufficient, InvalidInput, NotFound, TaskNotFound, WorkerNotFound
from tests.unit.cli_case import Cloudai, Screen
from tests.unit.stub_controller import (
    TASK_ID,
    Asked,
    Reply,
    StubController,
    make_ended,
    make_gpu,
    make_task,
    make_worker,
)

WHY = f"GET /tasks/{TASK_ID}/why"
RESERVATION = "reservation-1731629400-k3f9x2ab"


def make_why(**changes: Any) -> dict[str, Any]:
    return {
        "task_id": TASK_ID,
        "status": "queued",
        "waits": True,
        "worker_id": None,
        "started_at": None,
        "completed_at": None,
        "reason": "",
        "asks": "1 CPU, 0.5 GB of memory, 1 GB of disk, 2 GPUs",
        "held": "",
        "fits": [],
        "reasons": [
            {
                "workers": ["gpu1"],
                "reason": "0 of 4 GPUs free, 2 held by task-7 (ann), 2 used outside cloudai by bob,"
                " pid 4242 python train.py",
            },
            {"workers": ["gpu2", "gpu3"], "reason": "draining"},
        ],
        "ahead": 3,
        "next_task": "task-5",
        "next_user": "bob",
        "turn": "priority 50; ann has had 1.20 h of the whole fleet",
        "would_fit": ["the end of a task that runs now, such as task-7 on gpu1"],
        "start": "2026-01-31T13:45:00.000000Z",
        "start_on": "gpu1",
        **changes,
    }


# ---------------------------------------------------------------- why


def test_why_tells_place_turn_start_and_every_worker(
    cloudai: Cloudai, stub: StubController
) -> None:
    stub.on(WHY, make_why())
    assert cloudai("why", TASK_ID).out.splitlines() == [
        f"Task       {TASK_ID}",
        "Asks for   1 CPU, 0.5 GB of memory, 1 GB of disk, 2 GPUs",
        "Place      3 go before it, first task-5 of bob",
        "Turn       priority 50; ann has had 1.20 h of the whole fleet",
        "Start      31 Jan 13:45 on gpu1, by the time limits of what runs there; at the latest",
        "Workers",
        "  gpu1: 0 of 4 GPUs free, 2 held by task-7 (ann), 2 used outside cloudai by bob, pid 4242"
        " python train.py",
        "  gpu2, gpu3: draining",
        "What would help",
        "  the end of a task that runs now, such as task-7 on gpu1",
    ]


def test_why_of_one_that_starts_next(cloudai: Cloudai, stub: StubController) -> None:
    fits = ["gpu1", "gpu2"]
    stub.on(WHY, make_why(fits=fits, reasons=[], ahead=0, next_task=None, would_fit=[]))
    out = cloudai("why", TASK_ID).out
    assert "Place      first of all that wait\n" in out
    assert "Start      fits on gpu1, gpu2: starts in the next pass\n" in out
    assert cloudai("why", TASK_ID, "-q").out == "gpu1\ngpu2\n"


def test_why_of_one_that_is_held(cloudai: Cloudai, stub: StubController) -> None:
    held = "tried again at 13:00 after exit code 1"
    stub.on(WHY, make_why(held=held, reasons=[], turn="", would_fit=[], start=None))
    assert cloudai("why", TASK_ID).out.splitlines()[2:] == [
        f"Waits for  {held}",
        "Start      not known: no time limit tells when",
    ]


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ({"status": "running", "worker_id": "gpu1"}, "running on gpu1"),
        ({"status": "starting", "worker_id": "gpu1"}, "starting on gpu1"),
        (
            {
                "status": "failed",
                "worker_id": "gpu1",
                "completed_at": "2025-01-31T12:00:14.000000Z",
                "reason": "exit code 1",
            },
            "failed on gpu1 at 2025-01-31: exit code 1",
        ),
        (
            {"status": "cancelled", "completed_at": "2025-01-31T12:00:14.000000Z"},
            "cancelled at 2025-01-31",
        ),
    ],
)
def test_why_of_one_that_does_not_wait_says_how_it_stands(
    cloudai: Cloudai, stub: StubController, task: dict[str, Any], words: str
) -> None:
    stub.on(WHY, make_why(waits=False, **task))
    result = cloudai("why", TASK_ID)
    assert result.out == f"{TASK_ID} does not wait: {words}\n"
    assert result.code == 0


def test_why_of_an_unknown_task(cloudai: Cloudai, stub: StubController) -> None:
    stub.refuse("GET /tasks/nope/why", TaskNotFound("nope"))
    assert cloudai("why", "nope").code == 3
    stub.on(WHY, make_why())
    assert cloudai("why", TASK_ID, "--json").json == make_why()


def test_why_folds_at_80_columns_and_colours_what_is_closed(
    home: Path, stub: StubController
) -> None:
    stub.on(WHY, make_why())
    with Screen(home, "why", TASK_ID) as screen:
        assert screen.end() == 0
        text = screen.text.decode()
    assert "\x1b[33m  gpu2, gpu3: draining" in text
    plain = text.replace("\x1b[33m", "").replace("\x1b[0m", "")
    assert all(len(line) <= 80 for line in plain.splitlines())
    assert "used outside cloudai by bob,\r\n  pid 4242 python train.py\r\n" in plain


# ---------------------------------------------------------------- queue and dry run


def test_queue_says_priority_and_group(cloudai: Cloudai, stub: StubController) -> None:
    tasks = [
        make_task(task_id="task-1", priority=75, target="w1", reason="draining"),
        make_task(
            task_id="task-2", group="group-1-ab", group_size=4, group_rank=1, reason="no room"
        ),
    ]
    stub.on("GET /tasks/stats/queue", {"tasks": tasks, "total": 2})
    out = cloudai("queue").out
    assert "  2 of 4 of group-1-ab: no room\n" in out
    assert "  priority high (75), for w1: draining\n" in out


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"would_start_on": "gpu1", "would_wait": ""}, "it would start on gpu1 now"),
        ({"would_start_on": None, "would_wait": "gpu1: draining"}, "it would wait: gpu1: draining"),
    ],
)
def test_a_dry_run_says_where_it_would_go(
    cloudai: Cloudai, stub: StubController, answer: dict[str, Any], words: str
) -> None:
    stub.on("POST /tasks/", make_task(**answer))
    out = cloudai("task", "alpine", "--dry-run").out
    assert out.endswith(f"\nNothing was queued; {words} (--dry-run)\n")


def test_a_dry_run_of_a_group_says_where_each_would_go(
    cloudai: Cloudai, stub: StubController
) -> None:
    tasks = [
        make_task(group="group-1", group_size=2, group_rank=rank, would_start_on=f"gpu{rank}")
        for rank in range(2)
    ]
    group = {"group_id": "group-1", "placement": "spread", "size": 2, "tasks": tasks}
    stub.on("POST /groups/", {**group, "would_wait": ""})
    out = cloudai("task", "alpine", "--replicas", "2", "--dry-run").out
    assert "  rank 0 would start on gpu0 now\n  rank 1 would start on gpu1 now\n" in out


# ---------------------------------------------------------------- reservations


def make_reservation(**changes: Any) -> dict[str, Any]:
    nothing = {"req_cpu": 0.0, "req_memory": 0.0, "req_storage": 0.0, "req_gpu": 0.0}
    return {
        "reservation_id": RESERVATION,
        "worker_id": "gpu1",
        "user_id": "ann",
        "priority": 0,
        **nothing,
        "req_cpu": 2.0,
        "req_gpu": 1.0,
        "used": {**nothing, "req_cpu": 1.5},
        "lent": {**nothing, "req_cpu": 0.5},
        "until": "2025-01-31T16:00:00.000000Z",
        "created_at": "2025-01-31T12:00:00.000000Z",
        "created_by": "ann",
        "note": "",
        **changes,
    }


def test_reserve_sends_what_was_typed(
    cloudai: Cloudai, stub: StubController, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub.on("POST /reservations/", Reply(make_reservation(), 201))
    out = cloudai("reserve", "--worker", "gpu1", "--cpus", "2", "--gpus", "1", "--for", "4h").out
    assert out == (f"✅ {RESERVATION} keeps 2 CPUs, 1 GPU of gpu1\n   for ann, until 2025-01-31\n")
    monkeypatch.setenv("CLOUDAI_USER", "eve")
    quiet = cloudai("reserve", "--worker", "gpu1", "--memory", "8g", "-q")
    assert quiet.out == f"{RESERVATION}\n"
    cloudai("reserve", "--worker", "gpu1", "--cpus", "1", "--priority", "high")
    assert stub.bodies("POST /reservations/") == [
        {"worker_id": "gpu1", "req_cpu": "2", "req_gpu": "1", "for": "4h"},
        {"worker_id": "gpu1", "req_memory": "8g", "user_id": "eve"},
        {"worker_id": "gpu1", "req_cpu": "1", "priority": "high"},
    ]


def test_reserve_is_refused_by_the_flag_that_was_typed(
    cloudai: Cloudai, stub: StubController
) -> None:
    asked = ("reserve", "--worker", "gpu1", "--cpus", "x")
    stub.refuse("POST /reservations/", InvalidInput("req_cpu: 'x'; give cores"))
    assert "❌ --cpus: 'x'; give cores" in cloudai(*asked).err
    stub.refuse("POST /reservations/", WorkerNotFound("gpu1"))
    assert cloudai(*asked).code == 3
    stub.refuse("POST /reservations/", Insufficient("gpu1 has 4 CPUs; 5 are asked for"))
    assert cloudai(*asked).code == 4


def test_reservations_say_what_is_used_and_lent(cloudai: Cloudai, stub: StubController) -> None:
    more = make_reservation(user_id=None, priority=75, until=None, note="demo", worker_id="w2")
    stub.on("GET /reservations/", {"reservations": [make_reservation(), more]})
    lines = cloudai("reservations").out.splitlines()
    assert lines[0].split() == ["RESERVATION", "WORKER", "WHOSE", "UNTIL", "WHAT"]
    assert lines[1].endswith("  2 CPUs (1.5 used, 0.5 lent), 1 GPU (idle)")
    assert "priority_75_and_higher" in lines[2]
    assert lines[2].endswith("; demo")
    assert cloudai("resource-sharing", "status").out.splitlines() == lines
    assert cloudai("reservations", "-q").out == f"{RESERVATION}\n" * 2


def test_unreserve_gives_back_each(cloudai: Cloudai, stub: StubController) -> None:
    stub.on(f"DELETE /reservations/{RESERVATION}", Reply(None, 204))
    stub.refuse("DELETE /reservations/r2", NotFound("Reservation r2 not found"))
    result = cloudai("unreserve", "r2", RESERVATION)
    assert result.out == f"✅ {RESERVATION} given back\n"
    assert result.code == 3
    assert cloudai("unreserve", RESERVATION, "--json").json == {
        "removed": [RESERVATION],
        "errors": [],
    }


def test_resource_sharing_is_the_same_by_seed_004s_names(
    cloudai: Cloudai, stub: StubController
) -> None:
    stub.on("POST /reservations/", Reply(make_reservation(), 201))
    asked = ("--node", "gpu1", "--type", "gpu", "--amount", "2.0", "--priority", "high")
    cloudai("resource-sharing", "request", *asked, "--for", "4h")
    body = {"worker_id": "gpu1", "req_gpu": "2.0", "priority": "high", "for": "4h"}
    assert stub.bodies("POST /reservations/") == [body]
    stub.refuse("POST /reservations/", InvalidInput("req_gpu: '2.0'; no"))
    assert "--amount: '2.0'; no" in cloudai("resource-sharing", "request", *asked).err


def test_workers_and_stats_say_what_is_kept_and_set_aside(
    cloudai: Cloudai, stub: StubController
) -> None:
    aside = make_worker(
        state="set_aside",
        reason="set aside until 12:30: 3 tasks in a row",
        kept=[make_reservation()],
    )
    stub.on("GET /workers/", {"workers": [aside]})
    out = cloudai("workers").out
    assert out.splitlines()[1].endswith(
        "set aside until 12:30: 3 tasks in a row; 2 CPUs, 1 GPU kept for ann until 2025-01-31"
    )
    stub.on("GET /workers/worker-1", aside)
    assert (
        "Kept         2 CPUs (1.5 used, 0.5 lent), 1 GPU (idle) for ann until 2025-01-31\n"
        in cloudai("stats", "worker-1").out
    )


# ---------------------------------------------------------------- distribute


def queue_all(stub: StubController, workers: list[str], **changes: Any) -> list[str]:
    """Tasks that each end on one of the workers."""
    ids = [f"task-{number}" for number in range(1, len(workers) + 1)]
    coming = itertools.cycle(ids)
    stub.on("POST /tasks/", lambda _: Reply(make_task(task_id=next(coming)), 201))
    for task_id, worker in zip(ids, workers, strict=True):
        stub.on(f"GET /tasks/{task_id}", make_ended(task_id=task_id, worker_id=worker, **changes))
        stub.on(f"DELETE /tasks/{task_id}", Reply(None, 204))
        stub.on(f"PATCH /tasks/{task_id}/cancel", make_ended(task_id=task_id))
    there = [make_worker(worker_id=one) for one in ("w1", "w2", "w3")]
    stub.on("GET /workers/", {"workers": there})
    stub.on("GET /scheduler/", SCHEDULER)
    return ids


SCHEDULER = {
    "policy": {"strategy": "spread"},
    "tasks": {"queued": 3, "starting": 0, "running": 2, "stopping": 0},
    "users": [
        {
            "user_id": "ann",
            "weight": 2.0,
            "had": 1.204,
            "waiting": 3,
            "tasks": 2,
            "cpus": 2.0,
            "memory": 1.0,
            "gpus": 0.5,
        }
    ],
}


def test_distribute_shows_where_they_went_and_forgets_them(
    cloudai: Cloudai, stub: StubController
) -> None:
    ids = queue_all(stub, ["w1", "w1", "w2"])
    result = cloudai("distribute", "test", "--tasks", "3", "--strategy", "binpack", "--node", "lab")
    assert result.out == (
        "WORKER  TASKS\n"
        f"w1          2  {'█' * 40}\n"
        f"w2          1  {'█' * 20}\n"
        "w3          0  -\n"
        "\n"
        "✅ 3 tasks by binpack completed; all are forgotten again\n"
    )
    assert result.code == 0
    sent = stub.bodies("POST /tasks/")
    assert {body.pop("name").rpartition("-")[2] for body in sent} == {"1", "2", "3"}
    assert sent[0] == {
        "docker_image": "busybox",
        "argv": ["true"],
        "req_memory": "16m",
        "req_storage": "16m",
        "grace": 0,
        "strategy": "binpack",
        "nodes": ["lab"],
    }
    gone = [str(one) for one in stub.asked if one.method == "DELETE"]
    assert gone == [f"DELETE /tasks/{task_id}" for task_id in ids]


def test_distribute_ends_with_1_where_one_failed_and_keeps_where_asked(
    cloudai: Cloudai, stub: StubController
) -> None:
    queue_all(stub, ["w1"], status="failed", reason="exit code 1")
    result = cloudai("distribute", "test", "--tasks", "1", "--keep")
    assert "  task-1 failed: exit code 1\n" in result.out
    assert result.out.endswith("❌ 1 of 1 tasks by spread failed; all are kept\n")
    assert result.code == 1
    assert not [one for one in stub.asked if one.method == "DELETE"]


def test_distribute_leaves_nothing_behind_where_one_is_refused(
    cloudai: Cloudai, stub: StubController
) -> None:
    queue_all(stub, ["w1", "w1"])
    refusal = InvalidInput("nodes[0]: '?'; give a worker")
    refused = Reply({"error": refusal.as_json()}, refusal.http_status)
    stub.on("POST /tasks/", Reply(make_task(task_id="task-1"), 201), refused)
    result = cloudai("distribute", "test", "--tasks", "2", "--node", "?")
    assert result.code == 2
    assert "--node: '?'; give a worker" in result.err
    methods = [str(one) for one in stub.asked if one.method in ("PATCH", "DELETE")]
    assert methods == ["PATCH /tasks/task-1/cancel", "DELETE /tasks/task-1"]


def test_ctrl_c_cancels_and_forgets_all_of_them(home: Path, stub: StubController) -> None:
    queue_all(stub, ["w1"])
    ended = Reply(make_ended("cancelled", None, task_id="task-1"))
    cancelled: list[bool] = []

    def cancel(_: Asked) -> Reply:
        cancelled.append(True)
        return ended

    waiting = Reply(make_task(task_id="task-1", reason="w1: no room"))
    stub.on("GET /tasks/task-1", lambda _: ended if cancelled else waiting)
    stub.on("PATCH /tasks/task-1/cancel", cancel)
    with Screen(home, "distribute", "test", "--tasks", "1") as screen:
        screen.until("task-1 queued: w1: no room")
        screen.press(b"\x03")
        assert screen.end() == 130
    assert str(stub.asked[-1]) == "DELETE /tasks/task-1"


def test_distribute_status_shows_workers_queue_and_users(
    cloudai: Cloudai, stub: StubController
) -> None:
    gpus = [make_gpu(0), make_gpu(1, "task", tasks=["task-1"], users=["ann"])]
    stub.on("GET /workers/", {"workers": [make_worker(gpus=gpus)]})
    stub.on("GET /scheduler/", SCHEDULER)
    assert cloudai("distribute", "status").out.splitlines() == [
        "Strategy  spread",
        "Tasks     3 queued, 0 starting, 2 running, 0 stopping",
        "",
        "WORKER    STATE   TASKS  LOAD  FREE_CPU  FREE_GPU",
        "worker-1  active      2   1.2  12/16     1/2",
        "",
        "USER  WEIGHT  HAD_H  WAITING  TASKS  CPU  GPU",
        "ann        2    1.2        3      2    2  0.5",
    ]
