"""Containers that no task here claims: listed, left alone, and adopted, stopped or forgotten by
hand; and a copy of the database, from which such come. The doors are asked as people ask them.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import stat
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from cloudai.api.app import make_app
from cloudai.api.doors import Doors
from cloudai.controller.link import Reach
from cloudai.core.lifecycle import Adopted
from cloudai.core.model import State, TaskSpec
from cloudai.engines import Order
from cloudai.engines.fake import FakeWorker
from cloudai.store import Store
from tests.unit.test_controller import Bench, until


class Door:
    """A controller's API, without a wire."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.app = make_app(bench.desk, Doors(bench.controller, bench.home))

    async def ask(self, method: str, path: str, body: Any = None, **query: Any) -> tuple[int, Any]:
        """Status and JSON of the answer."""
        sent = [{"type": "http.request", "body": json.dumps(body).encode() if body else b""}]
        answer: list[Any] = []

        async def receive() -> Any:
            return sent.pop() if sent else await asyncio.Event().wait()

        async def send(message: Any) -> None:
            answer.append(message)

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": urlencode(query).encode(),
            "headers": [(b"content-type", b"application/json")] if body else [],
            "client": None,
            "server": None,
            "scheme": "http",
        }
        await self.app(scope, receive, send)
        text = b"".join(part.get("body", b"") for part in answer[1:])
        return answer[0]["status"], json.loads(text) if text else None

    def place(
        self, name: str, /, *, store: str | None = None, start: bool = True, **spec: Any
    ) -> str:
        """A container with our labels that this store knows nothing of."""
        worker = self.bench.workers["w1"]
        order = Order(
            assignment_id=name,
            task_id=name.rpartition(".")[0],
            store_id=store or self.bench.service.store.id,
            spec=TaskSpec(**{"image": "alpine", "argv": ("sleep", "9"), **spec}),
            env={},
        )
        worker.create(order)
        if start:
            worker.start(name)
        return name

    async def seen(self, name: str) -> None:
        link = self.bench.controller.fleet.link("w1")
        await until(lambda: link.container(name) is not None, f"{name} is seen")


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    async with Bench(tmp_path, {"w1": FakeWorker(name="w1")}).running() as bench:
        link = bench.controller.fleet.link("w1")
        await until(lambda: link.reach is Reach.ACTIVE, "the worker")
        yield Door(bench)


OURS = "task-1700000000-abcd.1"
THEIRS = "task-1700000001-efgh.3"


async def test_they_are_listed_and_left_alone(door: Door) -> None:
    door.place(OURS, user_id="ann", name="train")
    door.place(THEIRS, store="another", user_id="bob")
    known = await door.bench.reach(await door.bench.submit(), State.RUNNING)
    await door.seen(THEIRS)
    for _ in range(5):
        door.bench.controller.wake()
        await asyncio.sleep(0.01)
    _, answer = await door.ask("GET", "/orphans/")
    ours, theirs = sorted(answer["orphans"], key=lambda one: one["task_id"])
    assert (ours["assignment_id"], ours["mine"], ours["user_id"]) == (OURS, True, "ann")
    assert (theirs["assignment_id"], theirs["mine"], theirs["store_id"]) == (
        THEIRS,
        False,
        "another",
    )
    assert (ours["docker_image"], ours["command"], ours["name"]) == ("alpine", "sleep 9", "train")
    assert (ours["worker_id"], ours["phase"], ours["req_cpu"]) == ("w1", "running", 1.0)
    assert set(door.bench.workers["w1"].containers) == {OURS, THEIRS, known.assignment.id}
    assert (await door.ask("GET", "/orphans/", worker="w9"))[0] == 404


async def test_an_adopted_one_is_a_task_like_any_other(door: Door) -> None:
    door.place(OURS, user_id="ann", name="train", shell="echo $HOME")
    await door.seen(OURS)
    status, task = await door.ask("POST", f"/orphans/{OURS}/adopt")
    assert (status, task["status"], task["worker_id"]) == (201, "running", "w1")
    assert (task["user_id"], task["name"], task["command"]) == ("ann", "train", "echo $HOME")
    assert [event["what"] for event in task["events"]] == ["adopted"]
    assert (await door.ask("GET", "/orphans/"))[1] == {"orphans": []}
    door.bench.workers["w1"].write(OURS, b"hello\n")
    door.bench.workers["w1"].finish(OURS, 3)
    ended = await door.bench.ended(await door.bench.service.find(task["task_id"]))
    assert (ended.state, ended.exit_code) == (State.FAILED, 3)
    assert await door.bench.log(ended) == b"hello\n"
    assert not door.bench.workers["w1"].containers
    assert door.bench.workers["w1"].starts[OURS] == 1


async def test_one_that_ended_is_adopted_with_its_end(door: Door) -> None:
    door.place(OURS)
    door.bench.workers["w1"].finish(OURS, 0)
    await door.seen(OURS)
    _, task = await door.ask("POST", f"/orphans/{OURS.removesuffix('.1')}/adopt")
    ended = await door.bench.ended(await door.bench.service.find(task["task_id"]))
    assert (ended.state, ended.exit_code) == (State.COMPLETED, 0)


async def test_a_task_that_an_older_copy_still_has_in_its_queue_takes_it_back(door: Door) -> None:
    await door.bench.desk.set_draining("w1", True)
    task = await door.bench.submit()
    name = door.place(f"{task.id}.1")
    await door.seen(name)
    (orphan,) = (await door.ask("GET", "/orphans/"))[1]["orphans"]
    assert orphan["assignment_id"] == name
    status, adopted = await door.ask("POST", f"/orphans/{name}/adopt")
    assert (status, adopted["status"]) == (201, "running")
    assert adopted["assignments"][0]["assignment_id"] == name
    door.bench.workers["w1"].finish(name, 0)
    assert (await door.bench.ended(task)).state is State.COMPLETED
    assert dict(door.bench.workers["w1"].starts) == {name: 1}


async def test_one_that_is_adopted_while_strays_are_looked_for_is_none(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    await door.bench.desk.set_draining("w1", True)
    task = await door.bench.submit()
    store, worker = door.bench.service.store, door.bench.workers["w1"]
    adopted: list[Any] = []

    def overtaken(read: Any) -> Any:
        """The adoption comes between the first of two reads and the second."""

        def reads(task_id: str) -> Any:
            found = read(task_id)
            if not adopted:
                sight = worker.containers[f"{task.id}.1"].sight
                at = sight.started_at
                event = Adopted(at=at, number=1, worker_id="w1", container_id=sight.id)
                adopted.append(store.record(task, event))
            return found

        return reads

    monkeypatch.setattr(store, "get", overtaken(store.get))
    monkeypatch.setattr(store, "assignments", overtaken(store.assignments))
    name = door.place(f"{task.id}.1")
    await until(lambda: bool(adopted), "the look for strays")
    for _ in range(5):
        door.bench.controller.wake()
        await asyncio.sleep(0.01)
    assert worker.containers[name].sight.phase == "running"


async def test_a_task_that_has_ended_takes_none(door: Door) -> None:
    task = await door.bench.submit(req_cpu=64)
    await door.bench.service.cancel(task.id)
    name = door.place(f"{task.id}.7")
    await door.seen(name)
    status, refused = await door.ask("POST", f"/orphans/{name}/adopt")
    assert status == 409
    assert "is cancelled: it has no use for" in refused["error"]["message"]


async def test_what_another_store_placed_wants_a_second_word(door: Door) -> None:
    door.place(THEIRS, store="another")
    await door.seen(THEIRS)
    worker = door.bench.workers["w1"]
    for method, verb in (("POST", "/adopt"), ("POST", "/stop"), ("DELETE", "")):
        status, refused = await door.ask(method, f"/orphans/{THEIRS}{verb}")
        assert status == 409
        assert "placed by another cloudai (store another)" in refused["error"]["message"]
    assert worker.containers[THEIRS].sight.phase == "running"
    status, task = await door.ask("POST", f"/orphans/{THEIRS}/adopt", foreign="true")
    assert (status, task["assignments"][0]["number"]) == (201, 3)
    worker.finish(THEIRS, 0)
    await until(lambda: not worker.containers, "harvested and removed")


async def test_stop_then_forget(door: Door) -> None:
    door.place(OURS)
    await door.seen(OURS)
    status, refused = await door.ask("DELETE", f"/orphans/{OURS}")
    assert (status, refused["error"]["hint"]) == (409, f"first: cloudai orphans stop {OURS}")
    status, stopped = await door.ask("POST", f"/orphans/{OURS}/stop")
    assert (status, stopped["phase"], stopped["exit_code"]) == (200, "exited", 143)
    assert OURS in door.bench.workers["w1"].containers, "it and its log stay"
    assert (await door.ask("DELETE", f"/orphans/{OURS}"))[0] == 204
    assert not door.bench.workers["w1"].containers
    assert (await door.ask("DELETE", f"/orphans/{OURS}"))[0] == 404


async def test_one_that_never_started_can_only_be_forgotten(door: Door) -> None:
    door.place(OURS, start=False)
    await door.seen(OURS)
    status, refused = await door.ask("POST", f"/orphans/{OURS}/adopt")
    assert (status, "never started" in refused["error"]["message"]) == (409, True)
    assert (await door.ask("DELETE", f"/orphans/{OURS}"))[0] == 204


@pytest.mark.parametrize("name", ["../../etc.1", "task-1-a.0", "task-1-a.b", "Task-1-a.1"])
async def test_an_id_that_cloudai_never_made_is_not_adopted(door: Door, name: str) -> None:
    door.place(name)
    await door.seen(name)
    orphans = (await door.ask("GET", "/orphans/"))[1]["orphans"]
    assert [one["assignment_id"] for one in orphans] == [name]
    status, _ = await door.ask("POST", f"/orphans/{name}/adopt")
    assert status in (404, 409)
    assert await door.bench.service.tasks() == ([], 0)


async def test_a_task_that_is_known_here_is_no_orphan_to_be_touched(door: Door) -> None:
    task = await door.bench.reach(await door.bench.submit(), State.RUNNING)
    for method, verb in (("POST", "/adopt"), ("POST", "/stop"), ("DELETE", "")):
        status, _ = await door.ask(method, f"/orphans/{task.assignment.id}{verb}", foreign="true")
        assert status == 404
    assert (await door.bench.service.find(task.id)).state is State.RUNNING


async def test_marking_as_lost_over_the_api(door: Door) -> None:
    task = await door.bench.reach(await door.bench.submit(), State.RUNNING)
    status, refused = await door.ask("POST", f"/tasks/{task.id}/mark-lost")
    assert (status, refused["error"]["code"]) == (409, "conflict")
    door.bench.engines["w1"].go_away()
    link = door.bench.controller.fleet.link("w1")
    await until(lambda: link.reach is Reach.UNREACHABLE, "it is away")
    status, lost = await door.ask("POST", f"/tasks/{task.id}/mark-lost")
    assert (status, lost["status"], lost["on_lost"]) == (200, "failed", "wait")
    assert lost["assignments"][0]["lost"] is True


# ------------------------------------------------------------------ backup


async def test_a_backup_is_whole_private_and_overwrites_nothing(door: Door, tmp_path: Path) -> None:
    task = await door.bench.reach(await door.bench.submit(env={"KEY": "s3cret"}), State.RUNNING)
    target = tmp_path / "copy.db"
    status, answer = await door.ask("POST", "/controller/backup", {"path": str(target)})
    assert (status, answer) == (201, {"path": str(target), "size": target.stat().st_size})
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert b"s3cret" not in target.read_bytes()
    before = target.read_bytes()
    status, refused = await door.ask("POST", "/controller/backup", {"path": str(target)})
    assert (status, "is there already" in refused["error"]["message"]) == (409, True)
    assert target.read_bytes() == before
    with closing(sqlite3.connect(target)) as copy:
        assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    with Store.open(target, now=task.created_at) as store:
        assert store.get(task.id) == task
    assert not list(tmp_path.glob(".copy*"))


@pytest.mark.parametrize("path", ["copy.db", "/no/such/folder/copy.db"])
async def test_a_backup_needs_a_place(door: Door, path: str) -> None:
    status, refused = await door.ask("POST", "/controller/backup", {"path": path})
    assert (status, refused["error"]["code"]) == (422, "invalid")


async def test_a_backup_that_fails_leaves_nothing(
    door: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cloudai.store.database.os.fsync", full)
    target = tmp_path / "copy.db"
    status, refused = await door.ask("POST", "/controller/backup", {"path": str(target)})
    assert (status, refused["error"]["code"]) == (503, "store_full")
    assert not list(tmp_path.glob("*copy*"))
