"""The scheduler's routes over a running controller with fake engines."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloudai.api.app import make_app
from cloudai.api.doors import Doors
from cloudai.core.model import State
from cloudai.engines.fake import FakeWorker
from tests.unit.test_controller import Bench, until


@pytest.fixture
def a_bench(tmp_path: Path) -> Callable[..., Bench]:
    return lambda **workers: Bench(tmp_path, workers)


async def ask(bench: Bench, method: str, target: str, body: Any = None) -> tuple[int, Any]:
    """One request, straight to the application: its status and its JSON."""
    app = make_app(bench.desk, Doors(bench.controller, bench.home))
    path, _, query = target.partition("?")
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        text = b"" if body is None else json.dumps(body).encode()
        return {"type": "http.request", "body": text, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(b"content-type", b"application/json")],
        "http_version": "1.1",
        "scheme": "http",
        "server": ("c", 80),
        "client": ("c", 1),
        "root_path": "",
    }
    await app(scope, receive, send)
    text = b"".join(one.get("body", b"") for one in sent[1:])
    return sent[0]["status"], json.loads(text) if text else None


async def test_reservations_are_made_listed_shown_with_their_worker_and_given_back(a_bench):
    async with a_bench(w1=FakeWorker(cpus=4)).running() as bench:
        await bench.desk.settled(5)
        body = {"worker_id": "w1", "req_cpu": 2, "user_id": "ann", "for": "4h", "note": "demo"}
        status, made = await ask(bench, "POST", "/reservations/", body)
        assert status == 201
        assert (made["worker_id"], made["user_id"], made["req_cpu"]) == ("w1", "ann", 2.0)
        nothing = {"req_cpu": 0.0, "req_memory": 0.0, "req_storage": 0.0, "req_gpu": 0.0}
        assert (made["used"], made["lent"], made["note"]) == (nothing, nothing, "demo")
        assert await ask(bench, "GET", "/reservations/") == (200, {"reservations": [made]})
        assert await ask(bench, "GET", "/reservations/?worker=w2") == (200, {"reservations": []})
        _, answer = await ask(bench, "GET", "/workers/")
        assert answer["workers"][0]["kept"] == [made]
        path = f"/reservations/{made['reservation_id']}"
        assert await ask(bench, "DELETE", path) == (204, None)
        assert (await ask(bench, "DELETE", path))[0] == 404
        status, error = await ask(bench, "POST", "/reservations/", {**body, "req_cpu": 9})
        assert (status, error["error"]["exit_code"]) == (409, 4)
        assert (await ask(bench, "POST", "/reservations/", {**body, "worker_id": "w9"}))[0] == 404


async def test_why_a_task_waits_and_how_one_stands_that_does_not(a_bench):
    async with a_bench(w1=FakeWorker(cpus=2)).running() as bench:
        first = await bench.reach(await bench.submit(req_cpu=2.0, time_limit=60), State.RUNNING)
        second = await bench.submit(req_cpu=2.0, user_id="bob")
        status, why = await ask(bench, "GET", f"/tasks/{second.id}/why")
        assert status == 200
        assert why["waits"] is True
        assert why["reasons"] == [
            {"workers": ["w1"], "reason": f"0 of 2 CPUs free, 2 held by {first.id} (ann)"}
        ]
        assert (why["ahead"], why["next_task"], why["start_on"]) == (0, None, "w1")
        assert why["start"].endswith("Z")
        _, why = await ask(bench, "GET", f"/tasks/{first.id}/why")
        assert (why["waits"], why["status"], why["worker_id"]) == (False, "running", "w1")
        assert (await ask(bench, "GET", "/tasks/nope/why"))[0] == 404


async def test_a_dry_run_says_where_one_task_and_a_group_would_go(a_bench):
    workers = {name: FakeWorker(cpus=2, name=name) for name in ("w1", "w2")}
    async with a_bench(**workers).running() as bench:
        body = {"docker_image": "busybox", "req_cpu": 2.0, "nodes": ["w2"]}
        status, shown = await ask(bench, "POST", "/tasks/?dry_run=true", body)
        assert status == 200
        assert (shown["would_start_on"], shown["would_wait"]) == ("w2", "")
        _, shown = await ask(bench, "POST", "/tasks/?dry_run=true", {**body, "req_cpu": 3.0})
        assert shown["would_start_on"] is None
        assert "Insufficient CPU" in shown["would_wait"]
        group = {"placement": "strict_spread", "replicas": 2, "tasks": [{**body, "nodes": []}]}
        _, shown = await ask(bench, "POST", "/groups/?dry_run=true", group)
        assert {one["would_start_on"] for one in shown["tasks"]} == {"w1", "w2"}
        _, shown = await ask(bench, "POST", "/groups/?dry_run=true", {**group, "replicas": 3})
        assert "2 of them would fit now" in shown["would_wait"]
        assert (await ask(bench, "GET", "/tasks/"))[1]["total"] == 0


async def test_the_scheduler_as_a_whole(a_bench):
    async with a_bench(w1=FakeWorker(cpus=2)).running() as bench:
        await bench.reach(await bench.submit(req_cpu=2.0), State.RUNNING)
        waits = await bench.submit(user_id="bob")
        await until(lambda: waits.id in bench.controller.waiting, "it waits")
        status, shown = await ask(bench, "GET", "/scheduler/")
        assert status == 200
        assert shown["policy"]["strategy"] == "spread"
        assert (shown["tasks"]["queued"], shown["tasks"]["running"]) == (1, 1)
        bob, ann = shown["users"]
        assert (bob["user_id"], bob["waiting"], bob["tasks"], bob["had"]) == ("bob", 1, 0, 0.0)
        assert (ann["user_id"], ann["waiting"], ann["tasks"], ann["cpus"]) == ("ann", 0, 1, 2.0)
        assert ann["had"] >= 1.0


async def test_a_worker_that_is_set_aside_says_so(a_bench):
    async with a_bench(w1=FakeWorker(cpus=2)).running() as bench:
        await bench.desk.settled(5)
        for number in range(3):
            bench.controller.setbacks.failed("w1", f"task-{number}", "no space left on device")
        _, answer = await ask(bench, "GET", "/workers/")
        shown = answer["workers"][0]
        assert (shown["state"], shown["set_aside"]) == ("set_aside", True)
        assert "3 tasks in a row could not be started" in shown["reason"]
        task = await bench.submit()
        await until(lambda: task.id in bench.controller.waiting, "it waits")
        _, why = await ask(bench, "GET", f"/tasks/{task.id}/why")
        assert why["reasons"][0]["reason"] == shown["reason"]
        assert why["would_fit"] == ["w1 taking tasks again"]
