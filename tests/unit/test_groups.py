"""Placement groups: checked as a whole, stored as a whole, cancelled and waited for by their id."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cloudai.core.errors import Conflict, InvalidInput, NotFound, StoreFull
from cloudai.core.groups import read_group
from cloudai.core.model import Placement, State
from cloudai.core.names import check_task_name, is_group_id
from cloudai.engines.fake import FakeWorker
from cloudai.service import Service
from tests.unit.cli_case import Cloudai
from tests.unit.stub_controller import Reply, StubController, make_ended, make_task
from tests.unit.test_controller import Bench
from tests.unit.test_orphans import Door

ONE = {"docker_image": "alpine"}
GROUP = "group-1731629400-k3f9x2ab"


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    service = Service(tmp_path)
    await service.open()
    yield service
    await service.close()


def members(body: Any) -> list[Any]:
    return read_group(body, default_user="ann", group=GROUP)


def refused(body: Any) -> str:
    with pytest.raises(InvalidInput) as caught:
        members(body)
    assert caught.value.message.isprintable()
    return caught.value.message


def test_ranks_are_in_the_order_given():
    found = members({"placement": "STRICT-SPREAD", "tasks": [{"docker_image": n} for n in "abc"]})
    assert [one.spec.image for one in found] == ["a", "b", "c"]
    assert [one.spec.group_rank for one in found] == [0, 1, 2]
    assert {(one.spec.group, one.spec.group_size) for one in found} == {(GROUP, 3)}
    assert {one.spec.placement for one in found} == {Placement.STRICT_SPREAD}


def test_replicas_are_the_same_task_several_times():
    found = members({"replicas": 3, "tasks": [{**ONE, "env": {"A": "b"}}]})
    assert [one.spec.group_rank for one in found] == [0, 1, 2]
    assert [dict(one.env) for one in found] == [{"A": "b"}] * 3
    assert found[0].spec.placement is Placement.PACK


def test_the_key_of_a_group_is_its_first_ones():
    found = members({"idempotency_key": "k", "replicas": 2, "tasks": [ONE]})
    assert [one.spec.idempotency_key for one in found] == ["k", None]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ([], "send a JSON object"),
        ({}, "tasks: null; give a list of 1 to 256 tasks"),
        ({"tasks": []}, "give a list of 1 to 256 tasks"),
        ({"tasks": [ONE] * 257}, "give a list of 1 to 256 tasks"),
        ({"tasks": [ONE], "replica": 2}, "unknown field 'replica'; did you mean 'replicas'?"),
        ({"tasks": [ONE], "replicas": 0}, "replicas: 0; give a whole number from 1 to 256"),
        ({"tasks": [ONE], "replicas": 257}, "replicas: 257; give a whole number"),
        ({"tasks": [ONE, ONE], "replicas": 2}, "give one task to be repeated"),
        ({"tasks": [ONE], "placement": "stict_pack"}, "did you mean 'strict_pack'?"),
        ({"tasks": [ONE, 3]}, "tasks[1]: 3; give an object"),
        ({"tasks": [ONE, {**ONE, "req_cpu": 0}]}, "tasks[1].req_cpu: 0 is too little"),
        ({"tasks": [{**ONE, "idempotency_key": "k"}]}, "give the group one, beside tasks"),
        ({"tasks": [ONE, {**ONE, "user_id": "bob"}]}, "tasks[1].user_id: 'bob', and 'ann'"),
        ({"tasks": [ONE, {**ONE, "priority": 1}]}, "tasks[1].priority: 1, and 50 in tasks[0]"),
    ],
)
def test_what_cannot_be_meant(body, why):
    assert why in refused(body)


def test_no_task_is_called_like_a_group():
    assert is_group_id(GROUP)
    assert not is_group_id("group-1")
    assert check_task_name("group-1") == "group-1"
    with pytest.raises(InvalidInput, match="looks like a group's id"):
        check_task_name(GROUP)


async def test_a_group_is_stored_whole_or_not_at_all(service, monkeypatch):
    body = {"tasks": [{**ONE, "env": {"A": "s3cret"}}], "replicas": 3}
    insert = service.store.submit_group

    def fails(tasks: Any) -> Any:
        raise StoreFull("no room")

    monkeypatch.setattr(service.store, "submit_group", fails)
    with pytest.raises(StoreFull):
        await service.submit_group(body, default_user="ann")
    assert (await service.tasks())[1] == 0
    assert not list((service.home / "vault").glob("task-*")), "no values are left behind"
    monkeypatch.setattr(service.store, "submit_group", insert)
    with pytest.raises(InvalidInput):
        await service.submit_group({"tasks": [ONE, {}]}, default_user="ann")
    assert (await service.tasks())[1] == 0
    tasks, created = await service.submit_group(body, default_user="ann")
    assert created
    assert re.fullmatch("group-[0-9]+-[a-z0-9]{8}", tasks[0].spec.group)
    assert await service.group(tasks[0].spec.group) == tasks
    assert service.vault.get(tasks[2].id) == {"A": "s3cret"}
    with pytest.raises(NotFound):
        await service.group(GROUP)


async def test_the_same_key_makes_one_group(service):
    body = {"tasks": [{**ONE, "env": {"A": "b"}}], "replicas": 2, "idempotency_key": "nightly"}
    first, created = await service.submit_group(body, default_user="ann")
    again, anew = await service.submit_group(body, default_user="ann")
    assert (created, anew) == (True, False)
    assert [one.id for one in again] == [one.id for one in first]
    assert (await service.tasks())[1] == 2
    assert len(list((service.home / "vault").iterdir())) == 2
    other, _ = await service.submit_group(body, default_user="bob")
    assert other[0].id not in {one.id for one in first}
    await service.submit({**ONE, "idempotency_key": "alone"}, default_user="ann")
    with pytest.raises(Conflict, match="which is of no group"):
        await service.submit_group({**body, "idempotency_key": "alone"}, default_user="ann")
    assert (await service.submit_group(body, default_user="eve", dry_run=True))[1]
    assert (await service.tasks(user="eve"))[1] == 0


async def test_a_group_over_the_api(tmp_path):
    async with Bench(tmp_path, {"w1": FakeWorker(cpus=8)}).running() as bench:
        door = Door(bench)
        body = {"placement": "pack", "replicas": 3, "tasks": [{**ONE, "req_memory": "64m"}]}
        status, group = await door.ask("POST", "/groups/", body)
        assert status == 201
        assert (group["size"], group["placement"], len(group["tasks"])) == (3, "pack", 3)
        ids = [task["task_id"] for task in group["tasks"]]
        for rank, task_id in enumerate(ids):
            _, task = await door.ask("GET", f"/tasks/{task_id}")
            assert (task["group"], task["group_rank"]) == (group["group_id"], rank)
            assert (task["group_size"], task["placement"]) == (3, "pack")
            await bench.reach(await bench.service.find(task_id), State.RUNNING)
        bench.workers["w1"].finish(f"{ids[1]}.1", 3)
        await bench.reach(await bench.service.find(ids[1]), State.FAILED)
        path = f"/groups/{group['group_id']}"
        _, now = await door.ask("GET", path)
        assert [one["status"] for one in now["tasks"]] == ["running", "failed", "running"]
        status, now = await door.ask("PATCH", f"{path}/cancel")
        assert status == 200
        for task_id in (ids[0], ids[2]):
            await bench.reach(await bench.service.find(task_id), State.CANCELLED)
        assert (await door.ask("PATCH", f"{path}/cancel"))[0] == 409
        assert (await door.ask("GET", f"/groups/{GROUP}"))[0] == 404
        status, answer = await door.ask("POST", "/groups/", {"tasks": [{}]})
        assert (status, answer["error"]["message"][:23]) == (422, "tasks[0].docker_image: ")
        status, answer = await door.ask("POST", "/groups/", {"tasks": [{**ONE, "target": "w9"}]})
        assert status == 404
        status, dry = await door.ask("POST", "/groups/", body, dry_run="true")
        assert status == 200
        assert dry["tasks"][0]["docker_run"]


# ------------------------------------------------------------------ the command line

IDS = [f"task-1731629400-{name}" for name in ("aaa", "bbb")]


def make_group(*tasks: dict[str, Any]) -> dict[str, Any]:
    found = tasks or tuple(make_task(task_id=one) for one in IDS)
    return {"group_id": GROUP, "placement": "spread", "size": 2, "tasks": list(found)}


def test_task_replicas(cloudai: Cloudai, stub: StubController) -> None:
    stub.on("POST /groups/", Reply(make_group(), 201))
    args = ("task", "alpine", "--replicas", "2", "--placement", "spread", "--user", "ann")
    result = cloudai(*args, "--idempotency-key", "k", "--preemptible")
    assert result.code == 0
    assert f"Group {GROUP} queued: 2 tasks, placed together (spread)" in result.out
    assert [line.strip() for line in result.out.splitlines()[1:]] == IDS
    assert stub.bodies("POST /groups/") == [
        {
            "placement": "spread",
            "replicas": 2,
            "idempotency_key": "k",
            "tasks": [{"docker_image": "alpine", "user_id": "ann", "preemptible": True}],
        }
    ]
    assert cloudai(*args, "-q").out.split() == IDS
    stub.on("POST /groups/", Reply(make_group(), 200))
    assert "was there before" in cloudai(*args).out
    dry = cloudai(*args, "--dry-run")
    assert "Nothing was queued (--dry-run); it would be 2 tasks, placed together" in dry.out


def test_what_replicas_do_not_go_with(cloudai: Cloudai, stub: StubController) -> None:
    assert "give both" in cloudai("task", "alpine", "--placement", "pack").err
    assert "use --wait" in cloudai("task", "alpine", "--replicas", "2", "-f").err
    assert cloudai("task", "alpine", "--replicas", "257").code == 2
    assert not stub.asked


def test_a_refused_value_of_a_replica_is_named_by_its_flag(cloudai, stub):
    stub.refuse("POST /groups/", InvalidInput("tasks[0].retries: 'x'; give a whole number"))
    result = cloudai("task", "alpine", "--replicas", "2", "--retries", "x")
    assert "--retries: 'x'; give" in result.err


def test_waiting_for_a_group_is_waiting_for_all_of_it(cloudai, stub):
    ended = [make_ended(task_id=IDS[0]), make_ended("failed", 3, task_id=IDS[1])]
    stub.on(f"GET /groups/{GROUP}", make_group())
    for task in ended:
        stub.on(f"GET /tasks/{task['task_id']}", task)
    result = cloudai("wait", GROUP)
    assert result.code == 3
    assert result.out.splitlines() == [f"{IDS[0]} completed 0", f"{IDS[1]} failed 3"]
    stub.on("POST /groups/", Reply(make_group(), 201))
    result = cloudai("task", "alpine", "--replicas", "2", "--wait", "-q")
    assert (result.code, result.out.split()) == (3, [*IDS, "0", "3"])


def test_cancelling_a_group_tells_what_it_stopped(cloudai, stub):
    ended = make_ended(task_id=IDS[0])
    stub.on(f"GET /groups/{GROUP}", make_group(ended, make_task(task_id=IDS[1])))
    stopped = make_task(task_id=IDS[1], status="cancelled")
    stub.on(f"PATCH /groups/{GROUP}/cancel", make_group(ended, stopped))
    result = cloudai("cancel", GROUP)
    assert (result.code, result.out) == (0, f"✅ Task {IDS[1]} cancelled\n")


def test_show_tells_what_was_asked_of_the_scheduler(cloudai, stub):
    task = make_task(
        **{"priority": 75, "strategy": "binpack", "nodes": ["gpu1", "zone=lab"]},
        **{"gpu_model": "a100", "gpu_memory": 40.0, "require": ["memory>=64"], "avoid": ["old"]},
        **{"near": ["db"], "apart": ["web"], "preemptible": True, "retries": 3, "failures": 1},
        **{"retry_on": ["oom", "75"], "not_before": "2026-01-31T12:00:10.000000Z"},
        **{"group": GROUP, "group_size": 4, "group_rank": 2, "placement": "strict_pack"},
    )
    stub.on(f"GET /tasks/{task['task_id']}", task)
    shown = re.sub(" +", " ", cloudai("show", task["task_id"]).out)
    for line in (
        "Priority high (75)",
        "Strategy binpack",
        "Nodes gpu1 or zone=lab",
        "GPU memory 40 GB on each",
        "Requires memory>=64",
        "Retries 1 of 3 used, on oom, 75",
        "Not before 2026-01-31 12:00:10",
        f"Group {GROUP}, rank 2 of 4, strict_pack",
    ):
        assert line in shown
