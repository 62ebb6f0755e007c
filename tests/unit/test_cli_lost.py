"""``--on-lost``, ``mark-lost``, ``orphans`` and ``backup`` on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cloudai.core.errors import Conflict
from tests.unit.cli_case import Cloudai
from tests.unit.stub_controller import TASK_ID, Reply, StubController, make_running, make_task

ORPHAN = {
    "assignment_id": f"{TASK_ID}.1",
    "task_id": TASK_ID,
    "worker_id": "worker-1",
    "reachable": True,
    "store_id": "0123456789abcdef",
    "mine": False,
    "user_id": "bob",
    "name": None,
    "docker_image": "alpine",
    "command": "sleep 9",
    "req_cpu": 1.0,
    "req_memory": 0.5,
    "req_storage": 1.0,
    "req_gpu": 0.0,
    "gpus": [],
    "phase": "running",
    "since": "2026-01-31T12:00:02.000000Z",
    "exit_code": None,
    "container_id": "0123456789abcdef0123",
}


@pytest.mark.parametrize(
    ("args", "fields"),
    [
        ([], {}),
        (["--on-lost", "requeue"], {"on_lost": "requeue"}),
        (["--on-lost=fail", "--lost-after", "1h"], {"on_lost": "fail", "lost_after": "1h"}),
        (["--lost-after", "90"], {"lost_after": 90.0}),
    ],
)
def test_the_wish_is_sent(
    args: list[str], fields: dict[str, Any], cloudai: Cloudai, stub: StubController
) -> None:
    stub.on("POST /tasks/", Reply(make_task(), 201))
    assert cloudai("task", "alpine", *args).code == 0
    (body,) = stub.bodies("POST /tasks/")
    assert {key: body[key] for key in body if "lost" in key} == fields


def test_an_unknown_wish_is_a_usage_error(cloudai: Cloudai, stub: StubController) -> None:
    assert cloudai("task", "alpine", "--on-lost", "retry").code == 2


def test_show_tells_the_wish(cloudai: Cloudai, stub: StubController) -> None:
    route = f"GET /tasks/{TASK_ID}"
    stub.on(route, make_running(on_lost="requeue", lost_after=3600.0))
    assert "it is run elsewhere after 1 h out of reach" in cloudai("show", TASK_ID).out
    stub.on(route, make_running())
    assert "out of reach" not in cloudai("show", TASK_ID).out


def test_mark_lost_says_what_became_of_each(cloudai: Cloudai, stub: StubController) -> None:
    stub.on(f"POST /tasks/{TASK_ID}/mark-lost", make_task(status="failed"))
    assert cloudai("mark-lost", TASK_ID).out == f"✅ Task {TASK_ID} marked as lost: failed\n"
    stub.on(f"POST /tasks/{TASK_ID}/mark-lost", make_task())
    assert "is back in the queue" in cloudai("mark-lost", TASK_ID).out
    assert cloudai("mark-lost", TASK_ID, "--json").json["task_id"] == TASK_ID
    stub.refuse("POST /tasks/other/mark-lost", Conflict("Worker w1 can be reached", hint="look"))
    both = cloudai("mark-lost", "other", TASK_ID)
    assert (both.code, TASK_ID in both.out) == (1, True)
    assert "Worker w1 can be reached" in both.err


def test_orphans_are_listed_as_columns(cloudai: Cloudai, stub: StubController) -> None:
    stub.on("GET /orphans/", {"orphans": [ORPHAN, {**ORPHAN, "mine": True, "user_id": ""}]})
    head, theirs, ours = cloudai("orphans").out.splitlines()
    assert head.split()[:5] == ["CONTAINER", "WORKER", "STORE", "USER", "PHASE"]
    assert theirs.split()[:5] == [f"{TASK_ID}.1", "worker-1", "other", "bob", "running"]
    assert ours.split()[2:4] == ["this", "-"]
    assert cloudai("orphans", "--json").json["orphans"][0] == ORPHAN
    assert cloudai("orphans", "--quiet", "--worker", "worker-1").out.split()[0] == f"{TASK_ID}.1"
    assert stub.asked[-1].query == {"worker": ["worker-1"]}


@pytest.mark.parametrize(
    ("verb", "route", "answer", "words"),
    [
        ("adopt", f"POST /orphans/{TASK_ID}.1/adopt", make_running(), "is followed from now on"),
        ("stop", f"POST /orphans/{TASK_ID}.1/stop", {**ORPHAN, "phase": "exited"}, "is exited"),
        ("forget", f"DELETE /orphans/{TASK_ID}.1", Reply(None, 204), "is removed"),
    ],
)
def test_what_becomes_of_one(
    verb: str, route: str, answer: Any, words: str, cloudai: Cloudai, stub: StubController
) -> None:
    stub.on(route, answer)
    done = cloudai("orphans", verb, f"{TASK_ID}.1", "--foreign", "--worker", "w1")
    assert (done.code, words in done.out) == (0, True)
    assert stub.asked[-1].query == {"foreign": ["true"], "worker": ["w1"]}
    cloudai("orphans", verb, f"{TASK_ID}.1")
    assert stub.asked[-1].query == {}


def test_a_backup_is_asked_for_by_its_whole_path(
    cloudai: Cloudai, stub: StubController, tmp_path: Path
) -> None:
    path = str(tmp_path / "copy.db")
    stub.on("POST /controller/backup", Reply({"path": path, "size": 4096}, 201))
    done = cloudai("backup", "copy.db")
    assert done.out == f"✅ The database is copied to {path} (4096 bytes)\n"
    assert stub.bodies("POST /controller/backup") == [{"path": path}]
    assert cloudai("backup", "copy.db", "--quiet").out == f"{path}\n"
