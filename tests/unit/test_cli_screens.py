"""What people and programs see: the seeds' screens to the letter, tables, JSON, exit codes."""

from __future__ import annotations

import datetime
import re
from pathlib import Path
from typing import Any

import pytest

from cloudai.core.errors import (
    Conflict,
    EngineFailed,
    HostKeyUnknown,
    Insufficient,
    InvalidInput,
    NotFound,
    TaskNotFound,
    WorkerNotActive,
    WorkerNotFound,
    WorkerUnreachable,
)
from cloudai.core.model import State
from tests.unit.cli_case import Cloudai, Screen
from tests.unit.stub_controller import (
    TASK_ID,
    Asked,
    Reply,
    StubController,
    make_ended,
    make_gpu,
    make_running,
    make_task,
    make_worker,
)

SUBMIT, DISPATCH = "POST /tasks/", "POST /workers/worker-1/dispatch"
ONE, LOGS = f"GET /tasks/{TASK_ID}", f"GET /tasks/{TASK_ID}/logs"

PREVIEW = f"""\
═══════════════════════════════════════════════════════
  📤 SENDING TASK TO WORKER
═══════════════════════════════════════════════════════
  Task ID:           {TASK_ID}
  Target Worker:     worker-1
  Docker Image:      docker.io/user/sample:latest
  Command:           docker run -d --cpus=2.0 --memory=1.0g -- docker.io/user/sample:latest
───────────────────────────────────────────────────────
  Resource Requirements:
    • CPU Cores:     2.00 cores
    • Memory:        1.00 GB
    • Storage:       1.00 GB
    • GPU Cores:     0.00 cores
═══════════════════════════════════════════════════════

"""
PREVIEWED: dict[str, Any] = {
    "docker_image": "docker.io/user/sample:latest",
    "docker_run": "docker run -d --cpus=2.0 --memory=1.0g -- docker.io/user/sample:latest",
    "target": "worker-1",
    "req_cpu": 2.0,
    "req_memory": 1.0,
}


def ago(**span: float) -> str:
    at = datetime.datetime.now(datetime.UTC) - datetime.timedelta(**span)
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


# ------------------------------------------------------------------ task and dispatch


def test_task_prints_the_preview_of_seed_001(cloudai: Cloudai, stub: StubController) -> None:
    stub.on(SUBMIT, Reply(make_task(**PREVIEWED), 201))
    result = cloudai("task", "worker-1", "docker.io/user/sample:latest")
    assert result.out == PREVIEW + f"✅ Task {TASK_ID} queued for worker-1\n"
    assert (result.code, result.err) == (0, "")


def test_the_scheduler_decides_where_no_worker_is_named(
    cloudai: Cloudai, stub: StubController
) -> None:
    stub.on(SUBMIT, Reply(make_task(), 201))
    out = cloudai("task", "alpine").out
    assert "  Target Worker:     (scheduler decides)\n" in out
    assert out.endswith(f"✅ Task {TASK_ID} queued\n")


def test_quiet_prints_the_id_alone(cloudai: Cloudai, stub: StubController) -> None:
    stub.on(SUBMIT, Reply(make_task(), 201))
    assert cloudai("task", "alpine", "-q").out == f"{TASK_ID}\n"


def test_json_is_the_apis(cloudai: Cloudai, stub: StubController) -> None:
    task = make_task(name="größe\u202e")
    stub.on(SUBMIT, Reply(task, 201))
    result = cloudai("task", "alpine", "--json")
    assert result.json == task
    assert result.out.isascii()


def test_the_same_key_again_says_that_nothing_is_new(
    cloudai: Cloudai, stub: StubController
) -> None:
    stub.on(SUBMIT, Reply(make_task(), 200))
    assert "was there before" in cloudai("task", "alpine", "--idempotency-key", "k").out


def test_who_follows_a_worker_out_of_reach_is_told(cloudai: Cloudai, stub: StubController) -> None:
    away = {"reachable": False, "since": ago(minutes=5)}
    stub.on(f"GET /tasks/{TASK_ID}", make_running(worker_seen=away))
    stub.on(LOGS, Reply(chunks=[b"later\n"]))
    result = cloudai("logs", "-f", TASK_ID)
    assert result.out == "later\n"
    assert "has not been reached" in result.err


def test_a_dry_run_queues_nothing_and_says_so(cloudai: Cloudai, stub: StubController) -> None:
    stub.on(SUBMIT, make_task(**PREVIEWED))
    result = cloudai("task", "worker-1", "alpine", "--dry-run")
    assert result.out == PREVIEW + "Nothing was queued (--dry-run)\n"
    assert stub.asked[0].query == {"dry_run": ["true"]}


def test_dispatch_says_it_in_the_words_of_seed_000(cloudai: Cloudai, stub: StubController) -> None:
    stub.on(DISPATCH, Reply(make_running(), 201))
    result = cloudai("dispatch", "worker-1", "alpine:latest")
    assert result.out == f"✅ Task {TASK_ID} dispatched directly to worker worker-1!\n"
    assert stub.asked[0].query == {"timeout": ["25"]}


@pytest.mark.parametrize(
    ("error", "line", "code"),
    [
        (WorkerNotFound("worker-1"), "Worker worker-1 not found", 3),
        (
            Insufficient("Insufficient CPU: worker has 4.0 available, task requires 100.0"),
            "Insufficient CPU: worker has 4.0 available, task requires 100.0",
            4,
        ),
        (WorkerNotActive("worker-1"), "Worker worker-1 is not active", 1),
        (
            WorkerUnreachable("Failed to connect to worker: connection refused"),
            "Failed to connect to worker: connection refused",
            5,
        ),
        (EngineFailed("no such image: alpin"), "no such image: alpin", 1),
    ],
)
def test_dispatch_fails_in_the_words_of_seed_000(
    error: Any, line: str, code: int, cloudai: Cloudai, stub: StubController
) -> None:
    stub.refuse(DISPATCH, error)
    result = cloudai("dispatch", "worker-1", "alpine:latest")
    assert result.err.splitlines()[0] == f"❌ Failed to dispatch task: {line}"
    assert (result.code, result.out) == (code, "")

    result = cloudai("dispatch", "worker-1", "alpine:latest", "--json")
    assert (result.code, result.json) == (code, {"error": error.as_json()})


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("pull access denied for alpin", 1),
        ("Insufficient GPU: worker has 0.0 available, task requires 1.0", 4),
    ],
)
def test_dispatch_waits_for_an_image_and_tells_how_it_went(
    reason: str, code: int, cloudai: Cloudai, stub: StubController
) -> None:
    pulling = make_task(status="starting", worker_id="worker-1", phase="pulling alpin: 4 %")
    stub.on(DISPATCH, Reply(pulling, 201))
    stub.on(ONE, pulling, make_task(status="failed", worker_id="worker-1", reason=reason))
    result = cloudai("dispatch", "worker-1", "alpin")
    assert result.err == f"❌ Failed to dispatch task: {reason}\n"
    assert result.code == code
    assert [one.query for one in stub.asked[1:]] == [{"until": ["started"], "timeout": ["25"]}] * 2


def test_the_same_key_again_says_that_nothing_new_was_dispatched(
    cloudai: Cloudai, stub: StubController
) -> None:
    stub.on(DISPATCH, Reply(make_running(), 200))
    out = cloudai("dispatch", "worker-1", "alpine", "--idempotency-key", "k").out
    assert out.startswith(f"✅ Task {TASK_ID} was there before")


def test_dispatch_does_not_wait_for_a_worker_that_went_away(
    cloudai: Cloudai, stub: StubController
) -> None:
    starting = make_task(status="starting", worker_id="worker-1")
    stub.on(DISPATCH, Reply(starting, 201))
    blink, away = ({"reachable": False, "since": ago(seconds=long)} for long in (0, 30))
    stub.on(ONE, {**starting, "worker_seen": blink}, {**starting, "worker_seen": away})
    result = cloudai("dispatch", "worker-1", "alpine")
    assert result.code == 5
    assert f"worker-1 went out of reach while it was starting {TASK_ID}" in result.err
    assert f"`cloudai show {TASK_ID}`" in result.err
    assert len(stub.asked) == 3


def test_a_dispatched_task_that_ran_and_failed_was_dispatched(
    cloudai: Cloudai, stub: StubController
) -> None:
    stub.on(DISPATCH, Reply(make_ended("failed", 3, reason="exit code 3"), 201))
    assert cloudai("dispatch", "worker-1", "alpine").code == 0


def test_a_command_without_its_dashes_is_explained(cloudai: Cloudai, stub: StubController) -> None:
    stub.refuse(SUBMIT, WorkerNotFound("alpine"))
    assert (
        "if alpine is the image: cloudai task alpine -- ls" in cloudai("task", "alpine", "ls").err
    )
    assert "is the image" not in cloudai("task", "alpine", "ls", "--", "x").err


def test_a_refused_value_is_named_by_its_flag(cloudai: Cloudai, stub: StubController) -> None:
    stub.refuse(SUBMIT, InvalidInput("mounts[0]: 'x': unknown key 'x'"))
    assert cloudai("task", "alpine").err == "❌ --mount: 'x': unknown key 'x'\n"
    message = cloudai("task", "alpine", "--json").json["error"]["message"]
    assert message == "mounts[0]: 'x': unknown key 'x'"


def test_an_error_of_the_server_is_usage_where_it_says_so(
    cloudai: Cloudai, stub: StubController
) -> None:
    stub.refuse(SUBMIT, InvalidInput("-cpu_cores nan: not a number", hint="give a number"))
    result = cloudai("task", "alpine", "-cpu_cores", "nan")
    assert result.code == 2
    assert result.err == "❌ -cpu_cores nan: not a number\n   give a number\n"


# ------------------------------------------------------------------ waiting, following


@pytest.mark.parametrize(
    ("end", "code", "line"),
    [
        (make_ended(), 0, f"✅ Task {TASK_ID} completed in 12 s"),
        (
            make_ended("failed", 3, reason="exit code 3"),
            3,
            f"❌ Task {TASK_ID} failed: exit code 3",
        ),
        (
            make_ended("failed", None, reason="its container is gone"),
            125,
            f"❌ Task {TASK_ID} failed: its container is gone",
        ),
        (
            make_ended("failed", 0, reason="time limit of 5 s reached"),
            125,
            f"❌ Task {TASK_ID} failed: time limit of 5 s reached",
        ),
        (
            make_ended("cancelled", 0, reason="cancelled"),
            125,
            f"❌ Task {TASK_ID} was cancelled",
        ),
    ],
)
def test_wait_and_follow_end_with_the_tasks_own_exit_code(
    end: Any, code: int, line: str, cloudai: Cloudai, stub: StubController
) -> None:
    stub.on(SUBMIT, Reply(make_task(), 201))
    stub.on(ONE, make_task(reason="no room"), make_running(), end)
    result = cloudai("task", "alpine", "--wait")
    assert result.code == code
    assert result.out.splitlines()[-1] == line
    assert {tuple(one.query["until"]) for one in stub.asked[1:]} == {("final",)}

    stub.on(ONE, make_task(), make_running(), end)
    stub.on(LOGS, Reply(chunks=[b"one\n", b"\xfftwo"]))
    result = cloudai("task", "alpine", "--follow")
    assert result.code == code
    assert result.out.endswith(f"Task {TASK_ID} queued\none\n\ufffdtwo")
    assert result.err == line + "\n"

    stub.on(ONE, end)
    assert cloudai("wait", TASK_ID).code == code


def test_quiet_follow_is_the_log_and_nothing_else(cloudai: Cloudai, stub: StubController) -> None:
    stub.on(SUBMIT, Reply(make_task(), 201))
    stub.on(ONE, make_running(), make_ended())
    stub.on(LOGS, Reply(chunks=[b"one\n"]))
    result = cloudai("task", "alpine", "--follow", "-q")
    assert (result.out, result.err) == ("one\n", "")


def test_wait_with_json_prints_the_final_task(cloudai: Cloudai, stub: StubController) -> None:
    stub.on(SUBMIT, Reply(make_task(), 201))
    stub.on(ONE, make_ended())
    assert cloudai("task", "alpine", "--wait", "--json").json == make_ended()


def test_a_task_that_never_started_has_no_log_to_follow(
    cloudai: Cloudai, stub: StubController
) -> None:
    stub.on(SUBMIT, Reply(make_task(), 201))
    stub.on(ONE, make_task(status="failed", exit_code=127, reason="no such command: ecko"))
    result = cloudai("task", "alpine", "--follow", "--", "ecko")
    assert result.code == 127
    assert result.err == f"❌ Task {TASK_ID} failed: no such command: ecko\n"


def test_following_goes_on_where_a_cut_log_was_left(cloudai: Cloudai, stub: StubController) -> None:
    stub.on(SUBMIT, Reply(make_task(), 201))
    stub.on(ONE, make_running(), make_ended())
    stub.on(
        LOGS,
        Reply(chunks=[b"one\ntw"], cut=True),
        Reply(drop=True),
        Reply(chunks=[b"one", b"\ntwo\nth"], cut=True),
        Reply(chunks=[b"one\ntwo\nthree\n"]),
    )
    result = cloudai("task", "alpine", "--follow", "-q")
    assert (result.out, result.code) == ("one\ntwo\nthree\n", 0)


def test_a_log_that_always_breaks_off_is_given_up(
    cloudai: Cloudai, stub: StubController, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloudai.cli.following.PAUSE", 0.001)
    stub.on(ONE, make_running())
    stub.on(LOGS, Reply(chunks=[b"one\n"], cut=True))
    result = cloudai("logs", TASK_ID, "-f")
    assert (result.out, result.code) == ("one\n", 1)
    assert "went away" in result.err
    assert [str(one) for one in stub.asked].count(LOGS) > 1


def test_wait_for_several_reports_each(cloudai: Cloudai, stub: StubController) -> None:
    ends = {
        "a": make_ended(task_id="task-a"),
        "b": make_ended("failed", 7, task_id="task-b"),
        "c": make_ended("failed", 3, task_id="task-c"),
        "d": make_ended("cancelled", None, task_id="task-d"),
        "e": make_ended(task_id="task-e"),
    }
    for name, end in ends.items():
        stub.on(f"GET /tasks/{name}", {**end, "status": "running"})
        stub.on(f"GET /tasks/task-{name}", {**end, "status": "running"}, end)
    result = cloudai("wait", "a", "b", "c", "e")
    assert result.code == 3
    lines = ["task-a completed 0", "task-b failed 7", "task-c failed 3", "task-e completed 0"]
    assert result.out.splitlines() == lines
    assert stub.asked[-1].query == {"until": ["final"], "timeout": ["55"]}
    result = cloudai("wait", "d")
    assert (result.code, result.out) == (125, "task-d cancelled -\n")
    assert cloudai("wait", "a", "e", "--json").json == {"tasks": [ends["a"], ends["e"]]}
    assert cloudai("wait", "b", "--json").json == ends["b"]


def test_a_mistyped_task_is_said_before_any_is_waited_for(
    cloudai: Cloudai, stub: StubController
) -> None:
    stub.on(ONE, make_running())
    stub.refuse("GET /tasks/tsak", TaskNotFound("tsak"))
    stub.refuse("GET /batches/tsak", NotFound("Batch tsak not found"))
    result = cloudai("wait", TASK_ID, "tsak")
    assert (result.code, result.out) == (3, "")


# ------------------------------------------------------------------ logs


def test_logs_are_bytes(
    stub: StubController, cloudai: Cloudai, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    from cloudai.cli import main

    raw = bytes(range(256)) * 300
    stub.on(LOGS, Reply(chunks=[raw[:1000], raw[1000:]]))
    assert main(["logs", TASK_ID]) == 0
    assert capfdbinary.readouterr().out == raw
    assert main(["logs", TASK_ID, "--raw"]) == 0
    assert capfdbinary.readouterr().out == raw


def test_logs_ask_as_they_are_told(cloudai: Cloudai, stub: StubController) -> None:
    stub.on(ONE, make_task(), make_running())
    stub.on(LOGS, Reply(chunks=[b"x"]))
    cloudai("logs", TASK_ID)
    cloudai("logs", TASK_ID, "--tail", "5", "--since", "10m", "-f")
    assert stub.asked[0].query == {}
    assert stub.asked[-1].query == {"follow": ["true"], "tail": ["5"], "since": ["10m"]}
    assert [str(one) for one in stub.asked[1:-1]] == [ONE, ONE], "a queued task is waited for"


# ------------------------------------------------------------------ lists


def test_queue_says_why_each_waits_oldest_first(cloudai: Cloudai, stub: StubController) -> None:
    newest = make_task(
        task_id="task-2", status="starting", worker_id="gpu1", phase="pulling alpine: 43 %"
    )
    oldest = make_task(task_id="task-1", reason="no worker has 100 cores", target="worker-1")
    old = {"created_at": ago(minutes=5), "waiting": 1}
    tasks = [{**oldest, **old}, {**newest, **old}]
    stub.on("GET /tasks/stats/queue", {"tasks": tasks, "total": 2})
    assert cloudai("queue").out.splitlines() == [
        "TASK    USER  STATUS     AGE  WHY",
        "task-1  ann   queued    5min  for worker-1: no worker has 100 cores",
        "task-2  ann   starting  5min  on gpu1: pulling alpine: 43 %",
    ]
    assert cloudai("queue", "-q").out == "task-1\ntask-2\n"


def test_an_array_is_one_row_of_the_queue(cloudai: Cloudai, stub: StubController) -> None:
    element = {"array": "task-9", "array_index": 3, "array_size": 100, "array_limit": 10}
    task = make_task(
        task_id="task-9_3", reason="no room", created_at=ago(minutes=5), waiting=97, **element
    )
    stub.on("GET /tasks/stats/queue", {"tasks": [task], "total": 97})
    assert cloudai("queue").out.splitlines()[1:] == [
        "task-9  ann   queued  5min  97 of 100, 10 at once: no room"
    ]
    assert cloudai("queue", "-q").out == "task-9\n"
    task |= {"status": "starting", "worker_id": "gpu1", "phase": ""}
    stub.on("GET /tasks/stats/queue", {"tasks": [task], "total": 97})
    assert "97 of 100, 10 at once: on gpu1: starting" in cloudai("queue").out


def test_tasks_in_a_pipe_are_columns_that_awk_can_cut(
    cloudai: Cloudai, stub: StubController
) -> None:
    tasks = [
        make_ended(task_id="task-1", name="my train", created_at=ago(hours=2.1)),
        make_task(task_id="task-2", created_at=ago(days=3), status="cancelled"),
    ]
    stub.on("GET /tasks/", {"tasks": tasks, "total": 2})
    assert cloudai("tasks", "--user", "ann", "--status", "failed").out.splitlines() == [
        "TASK    STATUS     WORKER    EXIT   AGE  TOOK  IMAGE",
        "task-1  completed  worker-1     0  2h06   12s  alpine:latest (my train)",
        "task-2  cancelled  -            -    3d     -  alpine:latest",
    ]
    assert stub.asked[0].query == {"status": ["failed"], "user": ["ann"], "limit": ["100"]}


def test_the_states_to_choose_from_are_all_there_are() -> None:
    from cloudai.cli.tasks import STATES

    assert list(STATES) == [str(state) for state in State]


WORKERS = [
    make_worker(
        worker_id="gpu1",
        gpus=[
            make_gpu(2, "outside"),
            make_gpu(0, "task", held=1.0, tasks=["task-1"], users=["ann"]),
            make_gpu(1, "task", held=0.5, tasks=["task-2"], users=["bob"]),
            make_gpu(3, "broken", error="ERR!"),
            make_gpu(4),
            make_gpu(5, "task", held=1.0, tasks=["task-9"]),
        ],
    ),
    make_worker(
        worker_id="gpu2",
        state="unreachable",
        reason="connection refused",
        gpu_trouble="nvidia-smi hung",
        cpus={"total": None, "reserved": None, "free": None},
        memory={"total": None, "reserved": None, "free": None, "available": None},
        storage={"total": None, "reserved": None, "free": None},
        engine=None,
    ),
]


def test_workers_in_a_pipe(cloudai: Cloudai, stub: StubController) -> None:
    away = {**WORKERS[1], "since": ago(minutes=4)}
    stub.on("GET /workers/", {"workers": [WORKERS[0], away]})
    lines = cloudai("workers").out.splitlines()
    assert lines[0].split() == [
        "WORKER",
        "STATE",
        "CPU",
        "MEMORY_GB",
        "DISK_GB",
        "GPU",
        "TASKS",
        "NOTE",
    ]
    assert lines[1].split() == [
        "gpu1",
        "active",
        "12/16",
        "50.1/62.8",
        "400/900",
        "Abx!.C",
        "2",
        "-",
    ]
    assert lines[2].split()[:7] == ["gpu2", "unreachable", "-", "-", "-", "?", "2"]
    assert re.search(r"since \d\d:\d\d \(4 min\): connection refused: nvidia-smi hung$", lines[2])
    assert lines[3] == (
        "# GPUs: . free, A ann, B bob, C (unknown) (small: a share), x outside cloudai, ! broken"
    )


def test_without_gpus_there_is_no_legend(cloudai: Cloudai, stub: StubController) -> None:
    stub.on("GET /workers/", {"workers": [make_worker()]})
    result = cloudai("workers", "--refresh")
    assert len(result.out.splitlines()) == 2
    assert stub.asked[0].query == {"refresh": ["true"]}
    assert [str(one) for one in stub.asked] == ["GET /workers/"]


def test_workers_fit_80_columns_on_a_terminal(home: Path, stub: StubController) -> None:
    away = {**WORKERS[1], "since": ago(minutes=4)}
    long = make_worker(worker_id="rack-12-node-07", gpus=[make_gpu(at) for at in range(8)])
    stub.on("GET /workers/", {"workers": [WORKERS[0], away, long]})
    with Screen(home, "workers", NO_COLOR="1") as screen:
        assert screen.end() == 0
    text = screen.text.decode().replace("\r\n", "\n")
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 80
    assert "rack-12-node-07" in text
    assert "........" in text
    assert "unreachable" in text
    assert "(4 min)" in text
    assert "gpu2: connection refused" in text


def test_ids_are_never_broken_on_a_narrow_terminal(home: Path, stub: StubController) -> None:
    task = make_ended("failed", 1, reason="x" * 200, docker_image="registry/" + "i" * 60)
    stub.on("GET /tasks/", {"tasks": [task], "total": 5})
    with Screen(home, "tasks", columns=80) as screen:
        assert screen.end() == 0
    text = screen.text.decode()
    assert TASK_ID in text
    assert "1 of 5" in text
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text).replace("\r\n", "\n")
    assert max(map(len, plain.splitlines())) <= 80


def test_stats_tells_a_worker_in_depth(cloudai: Cloudai, stub: StubController) -> None:
    outsider = {"pid": 7, "name": "python", "user": "bob", "memory": 12.0, "task_id": None}
    ours = {"pid": 8, "name": "train", "user": None, "memory": None, "task_id": "task-1"}
    worker = make_worker(
        labels={"zone": "lab"},
        gpus=[
            make_gpu(0, "task", held=0.5, tasks=["task-1"], processes=[ours]),
            make_gpu(1, "outside", processes=[outsider]),
        ],
        reservations=[
            {
                "task_id": "task-1",
                "user_id": "ann",
                "name": "train",
                "mine": False,
                "cpus": 4.0,
                "memory": 8.0,
                "storage": 1.0,
                "req_gpu": 0.5,
                "gpus": ["GPU-00000000"],
                "since": ago(minutes=5),
                "phase": "running",
                "cpu_percent": 97.2,
                "memory_used": 3.5,
            }
        ],
        os="Debian GNU/Linux 12",
        kernel="6.1",
        login="ops",
        clock_skew=-3.0,
        watching="api",
    )
    stub.on("GET /workers/worker-1", worker)
    out = cloudai("stats", "worker-1").out
    for words in (
        "12 of 16 cores free, 4 reserved",
        "50.1 of 62.8 GB free, 8 reserved; 55 available",
        "zone=lab",
        "watched by cloudai",
        "3 s behind ours",
        "its Engine API",
        "process 7 python of bob, 12 GB: outside cloudai",
        "process 8 train: task-1",
        "train (another cloudai's)",
    ):
        assert words in out
    row = next(line for line in out.splitlines() if line.startswith("task-1 "))
    assert row.split()[:8] == ["task-1", "ann", "4", "97%", "8", "3.5", "0.5", "5min"]


def test_stats_of_a_worker_not_seen_yet(cloudai: Cloudai, stub: StubController) -> None:
    stub.on("GET /workers/gpu2", {**WORKERS[1], "seen_at": None, "load": None})
    out = cloudai("stats", "gpu2").out
    assert re.search("^Seen +never$", out, re.M)
    assert re.search("^GPU trouble +nvidia-smi hung$", out, re.M)


def test_show_tells_the_whole_story(cloudai: Cloudai, stub: StubController) -> None:
    task = make_running(
        name="train",
        env=["TOKEN"],
        gpus=["GPU-1"],
        worker_seen={"reachable": False, "since": ago(minutes=4)},
        events=[{"at": "2026-01-31T12:00:01.000000Z", "what": "placed", "text": "on worker-1"}],
    )
    stub.on(ONE, task)
    out = cloudai("show", TASK_ID).out
    for line in (
        rf"Task +{TASK_ID} \(train\)",
        r"Last seen +⚠ worker-1 has not been reached since \d\d:\d\d \(4 min\);.*as last seen",
        r"Command +echo hello",
        r"Variables +TOKEN",
        r"Asked +1.00 cores, 0.50 GB memory, 1.00 GB storage, 0.00 GPUs",
        r"#1 +worker-1 +12:00:02 +- +0123456789ab +-",
        r"2026-01-31 12:00:01  placed on worker-1",
    ):
        assert re.search(f"^{line}$", out, re.M), line


# ------------------------------------------------------------------ several at once


def test_cancel_reports_each_and_ends_with_the_worst(
    cloudai: Cloudai, stub: StubController
) -> None:
    stub.on("PATCH /tasks/a/cancel", make_running(task_id="task-a", status="stopping"))
    stub.on("PATCH /tasks/b/cancel", make_task(task_id="task-b", status="cancelled"))
    stub.refuse("PATCH /tasks/c/cancel", Conflict("Task task-c is completed"))
    stub.refuse("PATCH /tasks/d/cancel", TaskNotFound("d"))
    stub.refuse("PATCH /batches/d/cancel", NotFound("Batch d not found"))
    result = cloudai("cancel", "d", "a", "c", "b")
    assert result.code == 3
    assert result.out == "✅ Task task-a is being stopped\n✅ Task task-b cancelled\n"
    assert "❌ Task d not found" in result.err
    assert "❌ Task task-c is completed" in result.err

    answer = cloudai("cancel", "a", "c", "--json").json
    assert [one["task_id"] for one in answer["tasks"]] == ["task-a"]
    assert [(one["task"], one["code"]) for one in answer["errors"]] == [("c", "conflict")]
    assert cloudai("cancel", "b", "--json").json["status"] == "cancelled"
    assert cloudai("cancel", "c", "--json").json["error"]["code"] == "conflict"


def test_rm_forgets_each(cloudai: Cloudai, stub: StubController) -> None:
    stub.on("DELETE /tasks/a", Reply(status=204))
    stub.refuse("DELETE /tasks/b", Conflict("Task task-b is running"))
    result = cloudai("rm", "b", "a")
    assert (result.code, result.out) == (1, "✅ Task a forgotten\n")
    assert cloudai("rm", "a", "--json").json == {"removed": ["a"], "errors": []}


# ------------------------------------------------------------------ workers, doctor


@pytest.mark.parametrize(("verb", "words"), [("drain", "no new tasks"), ("resume", "again")])
def test_drain_and_resume(verb: str, words: str, cloudai: Cloudai, stub: StubController) -> None:
    stub.on(f"PATCH /workers/gpu1/{verb}", make_worker(worker_id="gpu1"))
    assert words in cloudai(verb, "gpu1").out


def finding(check: str, *, ok: bool, warning: bool = False, mend: str = "") -> dict[str, Any]:
    return {"check": check, "ok": ok, "warning": warning, "found": "as it is", "mend": mend}


def test_doctor_of_a_worker(cloudai: Cloudai, stub: StubController) -> None:
    found = [
        finding("docker", ok=True),
        finding("clock", ok=False, warning=True, mend="run ntpd"),
        finding("memory limit", ok=False, mend="boot with cgroup_enable=memory"),
    ]
    stub.on("GET /workers/gpu1/doctor", {"findings": found})
    result = cloudai("doctor", "gpu1")
    assert result.out.splitlines() == [
        "  ✓ docker: as it is",
        "  ⚠ clock: as it is",
        "      → run ntpd",
        "  ✗ memory limit: as it is",
        "      → boot with cgroup_enable=memory",
    ]
    assert result.code == 1
    stub.on("GET /workers/gpu1/doctor", {"findings": found[:2]})
    assert cloudai("doctor", "gpu1").code == 0


def test_doctor_of_all(cloudai: Cloudai, stub: StubController) -> None:
    fine = {"findings": [finding("database", ok=True)]}
    stub.on("GET /doctor", fine)
    stub.on("GET /workers/", {"workers": [make_worker(), make_worker(worker_id="gpu2")]})
    stub.on("GET /workers/worker-1/doctor", fine)
    away = WorkerUnreachable("gpu2 cannot be reached", hint="is it on?")
    stub.refuse("GET /workers/gpu2/doctor", away)
    result = cloudai("doctor")
    assert result.code == 1
    assert result.out.splitlines()[-3:] == [
        "Worker gpu2",
        "  ✗ reachable: gpu2 cannot be reached",
        "      → is it on?",
    ]
    answer = cloudai("doctor", "--json").json
    assert answer["workers"] == {"worker-1": fine, "gpu2": {"error": away.as_json()}}


FINGERPRINT = "SHA256:abcdef"


def register_stub(stub: StubController) -> None:
    """A host key nobody knows, until it is sent back."""

    def post(asked: Asked) -> Reply:
        if asked.body.get("fingerprint") == FINGERPRINT:
            findings = [finding("docker", ok=True)]
            return Reply({"worker": make_worker(), "findings": findings}, 201)
        facts = {"fingerprint": FINGERPRINT, "key_type": "ssh-ed25519"}
        error = HostKeyUnknown("the host key of h is not known", **facts)
        return Reply({"error": error.as_json()}, 503)

    stub.on("POST /workers/", post)


@pytest.mark.parametrize(
    ("flags", "code"),
    [(["--yes"], 0), (["--fingerprint", FINGERPRINT], 0), ([], 1), (["--json"], 1)],
)
def test_register_pins_a_key_only_when_it_was_accepted(
    flags: list[str], code: int, cloudai: Cloudai, stub: StubController, tmp_path: Path
) -> None:
    register_stub(stub)
    args = ["register", "worker-1", "ops@10.0.0.1:2222", "--identity-file", "key", *flags]
    result = cloudai(*args)
    assert result.code == code
    assert stub.asked[0].body == {
        "id": "worker-1",
        "host": "10.0.0.1",
        "port": 2222,
        "user": "ops",
        "identity_file": str(tmp_path / "key"),
        **({"fingerprint": FINGERPRINT} if "--fingerprint" in flags else {}),
    }
    if code == 0:
        assert "✅ Worker worker-1 registered" in result.out
        assert "✓ docker" in result.out
    else:
        assert f"--fingerprint {FINGERPRINT}" in result.err + result.out
        assert len(stub.asked) == 1


@pytest.mark.parametrize("flags", [[], ["--yes"]])
def test_register_refuses_another_key_than_the_one_given(
    flags: list[str], cloudai: Cloudai, stub: StubController
) -> None:
    register_stub(stub)
    result = cloudai("register", "w", "h", "--fingerprint", "SHA256:other", *flags)
    assert result.code == 1
    assert FINGERPRINT in result.err
    assert len(stub.asked) == 1


@pytest.mark.parametrize(("answer", "code"), [(b"y\n", 0), (b"n\n", 1), (b"\n", 1), (b"\x03", 130)])
def test_register_asks_a_person(answer: bytes, code: int, home: Path, stub: StubController) -> None:
    register_stub(stub)
    with Screen(home, "register", "worker-1", "h") as screen:
        shown = screen.until("Is it the right one?")
        assert f"ssh-ed25519  {FINGERPRINT}" in shown.replace("\r\n", "\n")
        screen.press(answer)
        # One Ctrl-C that comes between the question and Python's wait for the answer is kept
        # until something else is typed.
        assert screen.end(insist=answer if answer == b"\x03" else b"") == code
    assert len(stub.asked) == (2 if code == 0 else 1)


def test_unregister(cloudai: Cloudai, stub: StubController) -> None:
    stub.on("DELETE /workers/gpu1", Reply(status=204))
    assert cloudai("unregister", "gpu1").out == "✅ Worker gpu1 unregistered\n"
    assert cloudai("unregister", "gpu1", "--json").json == {"unregistered": "gpu1"}


# ------------------------------------------------------------------ controller


HEALTH = {
    "status": "ok",
    "version": "0.1.0",
    "pid": 42,
    "home": "/h",
    "inventory": {"path": "/h/hosts.yaml", "error": None, "workers": 3},
    "since": "2026-01-31T12:00:00.000000Z",
    "idle_exit": 300.0,
    "notices": [],
}


def test_controller_status_and_start_see_the_one_that_runs(
    cloudai: Cloudai, stub: StubController
) -> None:
    stub.on("GET /health", HEALTH)
    result = cloudai("controller", "status")
    assert result.code == 0
    assert "/h/hosts.yaml, 3 workers" in result.out
    assert re.search("^Leaves +after 5 min with nothing to do", result.out, re.M)
    assert cloudai("controller", "status", "--json").json == HEALTH
    stub.on("POST /controller/stay", {**HEALTH, "idle_exit": None})
    assert (
        cloudai("controller", "start").out == "✅ The controller is already running (process 42)\n"
    )


def test_controller_status_and_stop_start_none(
    home: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    from cloudai.cli import main

    assert main(["controller", "status"]) == 1
    assert main(["controller", "stop"]) == 0
    assert not home.exists()
    assert b"not running" in capfdbinary.readouterr().out


def test_controller_stop_says_whether_there_was_one(
    home: Path, cloudai: Cloudai, stub: StubController
) -> None:
    def leave(_: object) -> Reply:
        (home / "controller.sock").unlink()
        return Reply({"stopping": True})

    stub.on("POST /controller/stop", leave)
    assert cloudai("controller", "stop").out == (
        "✅ The controller has left; tasks on workers go on\n"
    )
    assert cloudai("controller", "stop").out == "✅ The controller is not running\n"


# ------------------------------------------------------------------ what everybody gets


def test_notices_stand_on_stderr_once(cloudai: Cloudai, stub: StubController) -> None:
    notice = {"X-Cloudai-Notice": "hosts.yaml%3A line 3%0Atwo%1b[2J"}
    stub.on("GET /doctor", Reply({"findings": []}, headers=notice))
    stub.on("GET /workers/", Reply({"workers": []}, headers=notice))
    result = cloudai("doctor")
    assert result.err == "⚠ hosts.yaml: line 3\n⚠ two[2J\n"


HOSTILE = "[red]x[/nope]\x1b]0;owned\x07\u202e\x9b2J\r\nb"


def test_foreign_text_is_neither_markup_nor_escape(home: Path, stub: StubController) -> None:
    task = make_task(reason=HOSTILE, user_id=HOSTILE, docker_image=HOSTILE, name=HOSTILE)
    stub.on("GET /tasks/", {"tasks": [task], "total": 1})
    stub.on("GET /tasks/stats/queue", {"tasks": [{**task, "waiting": 1}], "total": 1})
    stub.on(ONE, task)
    stub.on("GET /workers/", {"workers": [make_worker(worker_id=HOSTILE, reason=HOSTILE)]})
    for args in (["queue"], ["tasks"], ["show", TASK_ID], ["workers"]):
        with Screen(home, *args, columns=200) as screen:
            assert screen.end() == 0, screen.text
        assert b"[red]x[/nope]" in screen.text
        for evil in (b"\x1b]", b"\x07", "\u202e".encode(), "\x9b".encode()):
            assert evil not in screen.text


def test_a_fault_of_ours_is_one_line(cloudai: Cloudai, stub: StubController) -> None:
    stub.on("GET /tasks/", {"unexpected": 1})
    result = cloudai("tasks")
    assert result.code == 1
    assert "This is a fault of cloudai itself: KeyError" in result.err
    assert "Traceback" not in result.err
