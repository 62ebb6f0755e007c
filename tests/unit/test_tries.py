"""Tasks that are tried again, and tasks that make room: over fake engines, faults included."""

from __future__ import annotations

import time

import pytest

from cloudai.controller import loop as loop_module
from cloudai.core import retry
from cloudai.core.errors import Conflict, InvalidInput, NotFound
from cloudai.core.lifecycle import StopAsked
from cloudai.core.model import State, Task
from cloudai.engines.fake import FakeWorker, Fault
from cloudai.service import now
from tests.unit.test_controller import Bench, until


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr("cloudai.controller.effects.LATE", 0.05)
    monkeypatch.setattr("cloudai.controller.link.AGAIN_AT_MOST", 0.05)
    monkeypatch.setattr(loop_module, "TICK", 0.05)


@pytest.fixture
def bench(tmp_path) -> Bench:
    return Bench(tmp_path, {"w1": FakeWorker()})


async def runs(bench: Bench, task: Task, number: int) -> Task:
    """The task once its try of that number runs."""
    found = await bench.controller.wait_for(
        task.id,
        lambda one: one.state is State.RUNNING and one.assignment.number == number,
        timeout=5,
    )
    assert (found.state, found.assignment.number) == (State.RUNNING, number), found
    return found


async def preempt(bench: Bench, task: Task) -> Task:
    moved = await bench.service.record(
        task, StopAsked(at=now(), reason="its place is needed", requeue=True)
    )
    assert moved is not None
    return moved


async def harvested(bench: Bench, task: Task, *numbers: int) -> None:
    async def home() -> bool:
        every = await bench.service.in_thread(bench.service.store.assignments, task.id)
        return all(one.harvested for one in every if one.number in numbers)

    await until(home, f"tries {numbers} are harvested")


async def test_each_try_has_its_log_and_leaves_no_container(bench):
    async with bench.running():
        worker = bench.workers["w1"]
        task = await bench.submit(retries=2)
        for number, text in ((1, b"one\n"), (2, b"two\n")):
            task = await runs(bench, task, number)
            worker.write(task.assignment.id, text)
            worker.finish(task.assignment.id, 1)
        task = await runs(bench, task, 3)
        await harvested(bench, task, 1, 2)
        assert set(worker.containers) == {task.assignment.id}
        worker.write(task.assignment.id, b"three\n")
        assert await bench.log(task, number=1) == b"one\n"
        assert await bench.log(task, number=2) == b"two\n"
        assert await bench.log(task) == b"three\n"
        worker.finish(task.assignment.id, 0)
        task = await bench.ended(task)
        assert (task.state, task.failures, task.exit_code) == (State.COMPLETED, 2, 0)
        assert not worker.containers
        assert set(worker.starts.values()) == {1}
        with pytest.raises(NotFound, match="has no try 4"):
            await bench.log(task, number=4)


async def test_the_last_failure_stands(bench):
    async with bench.running():
        task = await bench.submit(retries=1)
        for number in (1, 2):
            task = await runs(bench, task, number)
            bench.workers["w1"].finish(task.assignment.id, 3)
        task = await bench.ended(task)
        assert (task.state, task.reason, task.failures) == (State.FAILED, "exit code 3", 1)


async def test_a_controller_that_died_in_between_leaves_nothing_out(bench):
    """It saw the exit, wrote down that the task is to be tried again, and was killed."""
    async with bench.running():
        task = await runs(bench, await bench.submit(retries=1), 1)
        worker = bench.workers["w1"]
        worker.write(task.assignment.id, b"one\n")
        bench.engines["w1"].plan("remove", *[Fault.REFUSED] * 50)
        bench.engines["w1"].hold("start")
        worker.finish(task.assignment.id, 1)
        task = await bench.reach(task, State.QUEUED)
    bench.engines.clear()
    async with bench.running():
        task = await runs(bench, task, 2)
        await harvested(bench, task, 1)
        assert set(worker.containers) == {task.assignment.id}
        assert await bench.log(task, number=1) == b"one\n"


async def test_an_earlier_container_that_somebody_removed_is_not_waited_for(bench):
    async with bench.running():
        task = await runs(bench, await bench.submit(retries=1), 1)
        bench.engines["w1"].plan("remove", Fault.REFUSED)
        bench.workers["w1"].finish(task.assignment.id, 1)
        task = await runs(bench, task, 2)
        if f"{task.id}.1" in bench.workers["w1"].containers:
            bench.workers["w1"].vanish(f"{task.id}.1")
        await harvested(bench, task, 1)


async def test_an_earlier_log_that_is_still_out_keeps_the_task_from_being_forgotten(bench):
    async with bench.running():
        task = await runs(bench, await bench.submit(retries=1), 1)
        gate = bench.engines["w1"].hold("remove")
        bench.workers["w1"].finish(task.assignment.id, 1)
        task = await runs(bench, task, 2)
        bench.workers["w1"].finish(task.assignment.id, 0)
        task = await bench.reach(task, State.COMPLETED)
        with pytest.raises(Conflict, match="its log is still on w1"):
            await bench.service.forget(task.id)
        gate.open()
        await harvested(bench, task, 1, 2)
        await bench.service.forget(task.id)


async def test_a_failed_start_is_tried_again_for_its_cause(bench):
    bench.workers["w1"].images = set()
    bench.workers["w1"].registry["nowhere"] = "no such image"
    async with bench.running():
        task = await bench.submit(docker_image="nowhere", retries=1, retry_on=["pull"])
        await bench.reach(task, State.FAILED)
        story = await bench.service.in_thread(bench.service.store.events, task.id)
        assert [one.what for one in story].count("start_failed") == 2
        other = await bench.submit(docker_image="nowhere", retries=1, retry_on=["exit"])
        assert (await bench.reach(other, State.FAILED)).failures == 0


async def test_what_makes_room_runs_again_and_its_first_log_is_kept(bench):
    async with bench.running():
        task = await runs(bench, await bench.submit(), 1)
        bench.workers["w1"].write(task.assignment.id, b"half\n")
        await preempt(bench, task)
        task = await runs(bench, task, 2)
        await harvested(bench, task, 1)
        assert (task.failures, await bench.log(task, number=1)) == (0, b"half\n")
        story = await bench.service.in_thread(bench.service.store.events, task.id)
        assert [one.what for one in story if one.what in ("preempted", "queued again")] == [
            "preempted",
            "queued again",
        ]


async def test_a_cancel_while_it_makes_room_is_a_cancel(bench):
    async with bench.running():
        task = await runs(bench, await bench.submit(), 1)
        gate = bench.engines["w1"].hold("stop")
        await preempt(bench, task)
        await gate.reached.wait()
        await bench.service.cancel(task.id)
        gate.open()
        assert (await bench.ended(task)).state is State.CANCELLED


async def test_a_job_that_ends_with_0_as_it_is_told_to_has_not_finished_its_work(bench):
    async with bench.running():
        task = await runs(bench, await bench.submit(), 1)
        gate = bench.engines["w1"].hold("stop")
        await preempt(bench, task)
        await gate.reached.wait()
        bench.workers["w1"].finish(task.assignment.id, 0)
        gate.open()
        assert (await runs(bench, task, 2)).failures == 0


async def test_one_that_completed_before_it_was_told_to_is_completed(bench):
    async with bench.running():
        task = await runs(bench, await bench.submit(), 1)
        link = bench.controller.fleet.link("w1")
        record, stop = bench.service.record, StopAsked(at=now(), reason="room", requeue=True)

        async def and_ends(task: Task, event: object) -> Task | None:
            moved = await record(task, event)
            if event is stop:
                bench.workers["w1"].finish(task.assignment.id, 0)
                sight = bench.workers["w1"].containers[task.assignment.id].sight
                link.saw(task.assignment.id, sight, time.monotonic())
            return moved

        bench.service.record = and_ends
        await bench.service.record(task, stop)
        assert (await bench.ended(task)).state is State.COMPLETED


async def test_a_bad_end_is_no_refusal_of_the_worker(bench):
    async with bench.running():
        task = await runs(bench, await bench.submit(retries=1), 1)
        bench.workers["w1"].finish(task.assignment.id, 1)
        await runs(bench, task, 2)
        assert not bench.controller._refused


@pytest.mark.parametrize(
    "wish", [{"retries": 1}, {"priority": "high"}, {"preemptible": True}, {"nodes": ["w1"]}]
)
async def test_a_dispatched_task_asks_nothing_of_the_queue(bench, wish):
    async with bench.running():
        with pytest.raises(InvalidInput, match="a dispatched task never waits in the queue"):
            await bench.dispatch("w1", **wish)
