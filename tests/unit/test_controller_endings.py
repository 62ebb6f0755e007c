"""Signals that give time and silence that ends a task, over fake workers, faults included."""

from __future__ import annotations

import pytest

from cloudai.controller import loop as loop_module
from cloudai.core import retry
from cloudai.core.endings import Ending
from cloudai.core.model import State, Task
from cloudai.engines.fake import FakeClock, FakeWorker, Fault, Job
from tests.unit.test_controller import Bench, until
from tests.unit.test_tries import harvested, preempt, runs


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr("cloudai.controller.effects.LATE", 0.05)
    monkeypatch.setattr("cloudai.controller.effects.AGAIN", 0.02)
    monkeypatch.setattr("cloudai.controller.link.AGAIN_AT_MOST", 0.05)
    monkeypatch.setattr(loop_module, "TICK", 0.05)


@pytest.fixture
def worker() -> FakeWorker:
    return FakeWorker(clock=FakeClock())


@pytest.fixture
def bench(tmp_path, worker) -> Bench:
    return Bench(tmp_path, {"w1": worker})


async def pass_time(worker: FakeWorker, seconds: float) -> None:
    assert isinstance(worker.clock, FakeClock)
    worker.clock.advance(seconds)


async def test_a_task_that_writes_nothing_fails_with_that_reason(bench, worker):
    async with bench.running():
        silent = await bench.reach(await bench.submit(first_output=600), State.RUNNING)
        chatty = await bench.reach(
            await bench.submit(first_output=600, idle_output=60), State.RUNNING
        )
        worker.write(chatty.assignment.id, b"hello\n")
        await pass_time(worker, 59)
        worker.write(chatty.assignment.id, b"again\n")
        await pass_time(worker, 2)
        assert worker.containers[chatty.assignment.id].sight.exit_code is None
        await pass_time(worker, 600)
        silent, chatty = await bench.ended(silent), await bench.ended(chatty)
        assert (silent.state, silent.reason) == (State.FAILED, "no output in its first 10m")
        assert (chatty.state, chatty.reason) == (State.FAILED, "no output for 1m")
        told = await bench.service.in_thread(bench.service.store.events, silent.id)
        assert "no output in its first 10m (exit code 143)" in [one.text for one in told]
        assert await bench.log(chatty) == b"hello\nagain\n"
        await harvested(bench, chatty, 1)
        assert worker.notes == {}, "no note is left"


async def test_a_hung_task_is_tried_again_where_it_may_be(bench, worker):
    async with bench.running():
        task = await bench.submit(idle_output=60, retries=1, retry_on="hung")
        await runs(bench, task, 1)
        await pass_time(worker, 61)
        task = await runs(bench, task, 2)
        assert task.failures == 1
        await pass_time(worker, 61)
        assert (await bench.ended(task)).reason == "no output for 1m"


async def test_a_cancel_sends_the_signal_first_and_once_whatever_is_lost(bench, worker):
    async with bench.running():
        task = await bench.reach(await bench.submit(signal="USR1@60"), State.RUNNING)
        container = worker.containers[task.assignment.id]
        bench.engines["w1"].plan("stop", Fault.REFUSED, Fault.LOST_BEFORE, Fault.REFUSED)
        worker.tell(task.assignment.id, Ending.ASKED, "USR1")  # it came; its answer did not
        await bench.service.cancel(task.id)
        task = await bench.ended(task)
        assert task.state is State.CANCELLED
        assert container.signals == ["USR1"]


@pytest.mark.parametrize("how", ["preempted", "storage"])
async def test_what_is_stopped_for_other_reasons_has_its_time_too(bench, worker, how, monkeypatch):
    monkeypatch.setattr(loop_module, "SIZES_EVERY", 0.05)
    worker.jobs["busybox"] = Job(on_signal=0)
    async with bench.running():
        task = await bench.submit(signal="USR1@60", req_storage=1, preemptible=True)
        task = await bench.reach(task, State.RUNNING)
        container = worker.containers[task.assignment.id]
        if how == "preempted":
            await preempt(bench, task)
            again: Task = await runs(bench, task, 2)
            assert again.failures == 0, "0 was the checkpoint's, not the task's"
        else:
            container.size = 2 * 2**30
            assert "storage limit" in (await bench.ended(task)).reason
        assert container.signals == ["USR1"]


async def test_a_checkpoint_that_ends_with_0_at_the_limit_is_the_limits_end(bench, worker):
    async with bench.running():
        task = await bench.submit(signal="USR1@60", time_limit=120, retries=3)
        task = await bench.reach(task, State.RUNNING)
        # What its worker does by itself, while nobody is connected.
        bench.engines["w1"].go_away()
        worker.tell(task.assignment.id, Ending.LIMIT, "USR1")
        worker.finish(task.assignment.id, 0)
        bench.engines["w1"].come_back()
        task = await bench.ended(task)
        assert task.state is State.FAILED
        assert task.reason == "time limit of 120 s reached; USR1 was sent 60 s before"


async def test_the_note_of_a_container_that_somebody_removed_goes_too(bench, worker):
    async with bench.running():
        task = await bench.reach(await bench.submit(idle_output=60), State.RUNNING)
        worker.notes[task.assignment.id] = Ending.IDLE
        worker.vanish(task.assignment.id)
        task = await bench.ended(task)
        assert "removed on the worker" in task.reason
        await until(lambda: worker.notes == {}, "its note is removed")
