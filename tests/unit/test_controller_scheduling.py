"""What the scheduler decides, carried out over fake engines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cloudai.controller import effects as effects_module
from cloudai.controller import link as link_module
from cloudai.controller.fleet import Fleet
from cloudai.controller.planning import SLICE, Planner
from cloudai.core.errors import Insufficient
from cloudai.core.model import State, Task, TaskSpec
from cloudai.engines import CannotStart, NotAdmitted
from cloudai.engines.fake import FakeWorker
from tests.unit.test_controller import Bench, until


class PolicyBench(Bench):
    """A bench whose inventory also says how to schedule."""

    def follow(self, scheduling: str) -> None:
        text = self.inventory.read_text("utf-8")
        self.inventory.write_text(f"scheduling: {scheduling}\n{text}")
        self.controller.wake()


@pytest.fixture
def a_bench(tmp_path: Path) -> Callable[..., PolicyBench]:
    return lambda **workers: PolicyBench(tmp_path, workers)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "AGAIN_AT_MOST", 0.05)
    monkeypatch.setattr(effects_module, "LATE", 0.05)


async def test_an_urgent_task_takes_the_place_of_a_preemptible_one_which_runs_later(a_bench):
    async with a_bench(w1=FakeWorker(cpus=2)).running() as bench:
        worker = bench.workers["w1"]
        low = await bench.reach(
            await bench.submit(req_cpu=2.0, priority="low", preemptible=True, grace=0),
            State.RUNNING,
        )
        urgent = await bench.submit(req_cpu=2.0, priority="urgent")
        urgent = await bench.reach(urgent, State.RUNNING)
        low = await bench.service.find(low.id)
        assert low.state is State.QUEUED
        assert urgent.id in low.reason
        worker.finish(urgent.assignment.id, 0)
        low = await bench.reach(low, State.RUNNING)
        assert low.assignment.number == 2
        assert low.failures == 0
        worker.finish(low.assignment.id, 0)
        assert (await bench.ended(low)).state is State.COMPLETED


async def test_nobody_is_stopped_who_did_not_agree_to_it(a_bench):
    async with a_bench(w1=FakeWorker(cpus=2)).running() as bench:
        low = await bench.reach(await bench.submit(req_cpu=2.0, priority="low"), State.RUNNING)
        urgent = await bench.submit(req_cpu=2.0, priority="urgent")
        await until(lambda: urgent.id in bench.controller.waiting, "it waits")
        assert "Insufficient CPU" in bench.controller.waiting[urgent.id]
        assert (await bench.service.find(low.id)).state is State.RUNNING


async def test_the_more_important_goes_first_and_a_quota_holds(a_bench):
    async with a_bench(w1=FakeWorker(cpus=2)).running() as bench:
        bench.follow("{quotas: {bob: {tasks: 1}}}")
        await until(lambda: bench.controller.policy.quotas, "the policy is known")
        await bench.reach(await bench.submit(user_id="bob"), State.RUNNING)
        first = await bench.reach(await bench.submit(), State.RUNNING)
        over = await bench.submit(user_id="bob", priority="urgent")
        normal = await bench.submit()
        high = await bench.submit(priority="high")
        await until(lambda: over.id in bench.controller.waiting, "it waits")
        assert "over the quota of bob" in bench.controller.waiting[over.id]
        bench.workers["w1"].finish(first.assignment.id, 0)
        await bench.reach(high, State.RUNNING)
        assert (await bench.service.find(normal.id)).state is State.QUEUED


async def test_what_a_quota_never_allows_is_refused_at_once(a_bench):
    async with a_bench(w1=FakeWorker(cpus=8)).running() as bench:
        bench.follow("{quotas: {bob: {cpus: 2}}}")
        await until(lambda: bench.controller.policy.quotas, "the policy is known")
        with pytest.raises(Insufficient, match="it would have 4 CPUs of 2"):
            await bench.submit(user_id="bob", req_cpu=4.0)
        with pytest.raises(Insufficient, match="it would have 3 CPUs of 2"):
            await a_group(bench, 3, user_id="bob")
        assert (await bench.service.tasks())[1] == 0
        await bench.reach(await bench.submit(req_cpu=4.0), State.RUNNING)


async def a_group(bench: Bench, size: int, **body: object) -> list:
    body = {"docker_image": "busybox", "req_cpu": 1.0, "req_memory": 0.25, **body}
    members, _ = await bench.service.submit_group(
        {"placement": "strict_spread", "tasks": [body] * size}, default_user="ann"
    )
    return members


async def test_a_group_starts_as_a_whole_or_not_at_all(a_bench):
    async with a_bench(
        w1=FakeWorker(cpus=2, name="w1"), w2=FakeWorker(cpus=2, name="w2")
    ).running() as bench:
        alone = await bench.reach(await bench.submit(req_cpu=2.0, target="w2"), State.RUNNING)
        members = await a_group(bench, 2)
        await until(lambda: members[0].id in bench.controller.waiting, "it waits")
        await until(
            lambda: "start together" in bench.controller.waiting[members[0].id], "and says so"
        )
        bench.workers["w2"].finish(alone.assignment.id, 0)
        there = [await bench.reach(member, State.RUNNING) for member in members]
        assert {task.worker_id for task in there} == {"w1", "w2"}
        # Each is told where all are, by rank, before any of them has started.
        for task in there:
            env = bench.workers[task.worker_id].containers[task.assignment.id].env
            assert env["CLOUDAI_PEERS"] == ",".join(one.worker_id for one in there)
            assert env["MASTER_ADDR"] == there[0].worker_id


async def test_where_one_of_a_group_is_refused_the_others_come_back(a_bench):
    async with a_bench(
        w1=FakeWorker(cpus=2, name="w1"), w2=FakeWorker(cpus=2, name="w2")
    ).running() as bench:
        await until(lambda: len(bench.engines) == 2, "both are linked")
        real, refusals = bench.engines["w2"].start, []

        async def refuse_once(order):
            if not refusals:
                refusals.append(order.assignment_id)
                why = "Insufficient CPU: worker has 0.0 available, task requires 1.0"
                return NotAdmitted(what="cpu", available=0.0, required=1.0, reason=why)
            return await real(order)

        bench.engines["w2"].start = refuse_once
        members = await a_group(bench, 2, grace=0)

        async def has_come_back() -> bool:
            stories = [
                await bench.service.in_thread(bench.service.store.events, one.id) for one in members
            ]
            return any("of its group was not admitted" in e.text for s in stories for e in s)

        await until(has_come_back, "the other is told to come back")


async def test_a_task_is_tried_again_as_often_as_it_may(a_bench, monkeypatch):
    from cloudai.core import retry

    monkeypatch.setattr(retry, "FIRST_PAUSE", retry.FIRST_PAUSE * 0)
    async with a_bench(w1=FakeWorker()).running() as bench:
        task = await bench.submit(retries=1)
        for number in (1, 2):
            task = await bench.controller.wait_for(
                task.id,
                lambda one, number=number: (
                    one.state is State.RUNNING and one.assignment.number == number
                ),
                timeout=5,
            )
            assert task.assignment.number == number
            bench.workers["w1"].finish(task.assignment.id, 3)
        task = await bench.ended(task)
        assert (task.state, task.exit_code, task.failures) == (State.FAILED, 3, 1)


async def test_a_worker_on_which_nothing_starts_is_set_aside_and_says_why(a_bench):
    async with a_bench(w1=FakeWorker()).running() as bench:
        await until(lambda: "w1" in bench.engines, "it is linked")

        async def fail(order):
            return CannotStart("the GPU runtime is broken")

        bench.engines["w1"].start = fail
        for _ in range(3):
            assert (await bench.ended(await bench.submit())).state is State.FAILED
        fourth = await bench.submit()
        await until(lambda: "set aside" in bench.controller.waiting.get(fourth.id, ""), "it says")
        assert "the GPU runtime is broken" in bench.controller.waiting[fourth.id]


@pytest.mark.parametrize("image", ["alpine", "alpine:latest", "alpine:3.19"])
async def test_a_worker_that_holds_the_image_is_preferred(a_bench, image):
    workers = {name: FakeWorker(name=name) for name in ("w1", "w2", "w3")}
    for worker in workers.values():
        worker.images = set()
    workers["w2"].images = {"alpine", "alpine:3.19"}
    async with a_bench(**workers).running() as bench:
        fleet = bench.controller.fleet
        await until(lambda: len([one for one in fleet if one.sight]) == 3, "all are seen")
        task = await bench.reach(await bench.submit(docker_image=image), State.RUNNING)
        assert task.worker_id == "w2"


async def test_whoever_asks_is_answered_while_many_come_to_the_scheduler():
    at = datetime(2026, 1, 31, tzinfo=UTC)
    tasks = [
        Task(id=f"task-1-{n}", spec=TaskSpec(image="busybox"), state=State.QUEUED, created_at=at)
        for n in range(5 * SLICE)
    ]
    planner, answered = Planner(Fleet(lambda spec: None, changed=lambda: None)), 0

    async def ask():
        nonlocal answered
        while True:
            await asyncio.sleep(0)
            answered += 1

    asking = asyncio.create_task(ask())
    await planner.queue(tasks, tasks, {}, at)
    asking.cancel()
    assert answered >= 8
    assert len(planner.plan(at).waiting) == len(tasks)
