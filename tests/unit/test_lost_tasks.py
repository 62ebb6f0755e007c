"""Workers that vanish, and containers that someone else touched: what becomes of their tasks."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from cloudai.api.doors import Doors
from cloudai.api.tasks import shape
from cloudai.controller import link as link_module
from cloudai.controller.desk import has_ended
from cloudai.controller.link import Reach
from cloudai.controller.orphans import Orphans
from cloudai.core.errors import AuthenticationFailed, Conflict, InvalidInput, WorkerUnreachable
from cloudai.core.lifecycle import RESTARTED
from cloudai.core.model import State, Task
from cloudai.core.reconcile import NO_RECORD
from cloudai.engines.fake import FakeWorker, Fault
from tests.unit.test_controller import SECONDS, Bench, until

STEP = 5.0
"""Seconds the clock moves between two passes."""


class LostBench(Bench):
    """A bench whose absences are measured on a clock that moves when told to."""

    monotonic = wall = 0.0

    def hold_the_clock(self) -> LostBench:
        self.controller.absences.clock = lambda: (self.monotonic, self.wall)
        self.controller.absences._at = (0.0, 0.0)
        return self

    async def live(self, seconds: float) -> None:
        """So many seconds pass, awake."""
        for _ in range(round(seconds / STEP)):
            await self.pass_time(STEP, STEP)

    async def pass_time(self, elapsed: float, wall: float) -> None:
        self.monotonic += elapsed
        self.wall += wall
        self.controller.wake()
        taken = self.controller.absences
        await until(lambda: taken._at == (self.monotonic, self.wall), "a pass")

    async def lose(self, *names: str) -> None:
        for name in names:
            self.engines[name].go_away()
        for name in names:
            link = self.controller.fleet.link(name)
            await until(lambda link=link: link.reach is Reach.UNREACHABLE, f"{name} is away")

    async def story(self, task: Task) -> list[str]:
        events = await self.service.in_thread(self.service.store.events, task.id)
        return [event.what for event in events]

    async def started(self, worker: str, **body: object) -> Task:
        """A task that runs on that worker, where others are too."""
        for name in self.workers:
            await self.desk.set_draining(name, name != worker)
        task = await self.reach(await self.submit(**body), State.RUNNING)
        for name in self.workers:
            await self.desk.set_draining(name, False)
        return task


@pytest.fixture
def two(tmp_path: Path) -> LostBench:
    return LostBench(tmp_path, {"w1": FakeWorker(name="w1"), "w2": FakeWorker(name="w2")})


@pytest.fixture
def one(tmp_path: Path) -> LostBench:
    return LostBench(tmp_path, {"w1": FakeWorker(name="w1")})


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "AGAIN_AT_MOST", 0.05)


# ------------------------------------------------------------------ --on-lost


async def test_fail_gives_it_up_and_what_comes_back_is_brought_home(two: LostBench) -> None:
    async with two.running():
        two.hold_the_clock()
        task = await two.started("w1", on_lost="fail", lost_after=60)
        await two.lose("w1")
        await two.live(55)
        assert (await two.service.find(task.id)).state is State.RUNNING
        await two.live(20)
        failed = await two.service.find(task.id)
        assert (failed.state, failed.reason) == (
            State.FAILED,
            "worker w1 could not be reached for 1m00s",
        )
        assert has_ended(failed), "nobody waits for a log that may never come"
        two.workers["w1"].write(task.assignment.id, b"still at it\n")
        two.engines["w1"].come_back()
        await until(lambda: not two.workers["w1"].containers, "stopped and removed")
        await until(lambda: _has(two, task, "came back"), "told")
        assert await two.log(task) == b"still at it\n"
        after = await two.service.find(task.id)
        assert (after.state, after.exit_code) == (State.FAILED, None)


async def test_who_follows_a_log_waits_for_its_worker(one: LostBench) -> None:
    async with one.running():
        task = await one.reach(await one.submit(), State.RUNNING)
        name = task.assignment.id
        await one.lose("w1")
        with pytest.raises(WorkerUnreachable):
            await one.log(task)
        stream = await one.desk.logs(await one.service.find(task.id), follow=True)
        one.workers["w1"].write(name, b"one\n")
        one.engines["w1"].come_back()
        async with asyncio.timeout(SECONDS):
            assert await anext(stream) == b"one\n"
            one.workers["w1"].finish(name, 0)
            assert [chunk async for chunk in stream] == []


async def _has(bench: LostBench, task: Task, what: str) -> bool:
    return what in await bench.story(task)


async def test_requeue_runs_it_elsewhere_and_the_first_one_is_removed(two: LostBench) -> None:
    async with two.running():
        two.hold_the_clock()
        task = await two.started("w1", on_lost="requeue", lost_after=60)
        await two.lose("w1")
        await two.live(70)
        again = await two.reach(task, State.RUNNING)
        assert (again.worker_id, again.assignment.number) == ("w2", 2)
        # Both run: nobody can fence a worker that is cut off.
        assert two.workers["w1"].containers[f"{task.id}.1"].sight.phase == "running"
        two.engines["w1"].come_back()
        await until(lambda: not two.workers["w1"].containers, "the stale one is gone")
        assert (await two.service.find(task.id)).state is State.RUNNING
        two.workers["w2"].finish(f"{task.id}.2", 0)
        assert (await two.ended(task)).state is State.COMPLETED
        assert dict(two.workers["w1"].starts) == {f"{task.id}.1": 1}
        assert dict(two.workers["w2"].starts) == {f"{task.id}.2": 1}


async def test_requeued_for_its_only_worker_it_starts_anew_once_that_is_back(
    two: LostBench,
) -> None:
    async with two.running():
        two.hold_the_clock()
        task = await two.started("w1", on_lost="requeue", lost_after=60, target="w1")
        await two.lose("w1")
        await two.live(70)
        await two.reach(task, State.QUEUED)
        two.engines["w1"].come_back()
        again = await two.reach(task, State.RUNNING)
        assert again.assignment.id == f"{task.id}.2"
        await until(lambda: list(two.workers["w1"].containers) == [again.assignment.id], "one left")


async def test_wait_waits_for_ever_and_completes_as_itself(two: LostBench) -> None:
    async with two.running():
        two.hold_the_clock()
        task = await two.started("w1", lost_after=60)
        await two.lose("w1")
        await two.live(600)
        assert (await two.service.find(task.id)).state is State.RUNNING
        two.workers["w1"].write(task.assignment.id, b"all of it\n")
        two.workers["w1"].finish(task.assignment.id, 0)
        two.engines["w1"].come_back()
        done = await two.ended(task)
        assert (done.state, done.exit_code) == (State.COMPLETED, 0)
        assert done.assignment.container_id == task.assignment.container_id
        assert await two.log(task) == b"all of it\n"


async def test_all_vanish_at_once_nothing_is_decided_and_it_is_said_once(
    two: LostBench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with two.running():
        two.hold_the_clock()
        doors = Doors(two.controller, two.home)
        first = await two.started("w1", on_lost="fail", lost_after=60)
        second = await two.started("w2", on_lost="requeue", lost_after=60)
        await two.lose("w1", "w2")
        await two.live(300)
        for task in (first, second):
            assert (await two.service.find(task.id)).state is State.RUNNING
        (notice,) = doors.notices()
        assert "this machine's own network" in notice
        said = [r for r in caplog.records if "own network" in r.getMessage()]
        assert len(said) == 1
        two.engines["w1"].come_back()
        two.engines["w2"].come_back()
        await until(lambda: not doors.notices(), "all is well again")


async def test_sleep_begins_the_measure_anew(two: LostBench) -> None:
    async with two.running():
        two.hold_the_clock()
        task = await two.started("w1", on_lost="fail", lost_after=60)
        await two.lose("w1")
        await two.live(55)
        await two.pass_time(1, 8 * 3600)
        await two.live(50)
        assert (await two.service.find(task.id)).state is State.RUNNING
        await two.live(20)
        assert (await two.service.find(task.id)).state is State.FAILED


async def test_a_worker_that_comes_back_in_time_begins_the_measure_anew(two: LostBench) -> None:
    async with two.running():
        two.hold_the_clock()
        task = await two.started("w1", on_lost="fail", lost_after=60)
        for _ in range(3):
            await two.lose("w1")
            await two.live(45)
            two.engines["w1"].come_back()
            link = two.controller.fleet.link("w1")
            await until(lambda link=link: link.reach is Reach.ACTIVE, "back")
            await two.live(STEP)
        assert (await two.service.find(task.id)).state is State.RUNNING


async def test_with_no_other_worker_nothing_is_decided(one: LostBench) -> None:
    async with one.running():
        one.hold_the_clock()
        task = await one.started("w1", on_lost="fail", lost_after=60)
        await one.lose("w1")
        await one.live(300)
        assert (await one.service.find(task.id)).state is State.RUNNING


async def test_this_machine_itself_says_nothing_about_the_network(two: LostBench) -> None:
    async with two.running():
        two.inventory.write_text("workers:\n  w1: {host: h}\n  w2: {connection: local}\n")
        two.hold_the_clock()
        fleet = two.controller.fleet
        await until(lambda: fleet.link("w2").spec.connection == "local", "it is local")
        await until(lambda: fleet.link("w2").reach is Reach.ACTIVE, "it is there")
        task = await two.started("w1", on_lost="fail", lost_after=60)
        await two.lose("w1")
        await two.live(300)
        assert (await two.service.find(task.id)).state is State.RUNNING


async def test_a_worker_that_refuses_us_is_not_lost(
    two: LostBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse() -> None:
        raise AuthenticationFailed("permission denied for ann")

    async with two.running():
        two.hold_the_clock()
        task = await two.started("w1", on_lost="fail", lost_after=60)
        monkeypatch.setattr(two.engines["w1"], "probe", refuse)
        two.engines["w1"].drop_streams()
        link = two.controller.fleet.link("w1")
        await until(lambda: link.reach is Reach.STOPPED, "it refuses")
        await two.live(300)
        assert (await two.service.find(task.id)).state is State.RUNNING


async def test_a_dispatched_task_cannot_be_requeued(one: LostBench) -> None:
    async with one.running():
        with pytest.raises(InvalidInput, match="never waits in the queue"):
            await one.dispatch("w1", on_lost="requeue")
        assert await one.service.tasks() == ([], 0)


async def test_a_dispatch_that_its_controller_did_not_live_to_send_fails(one: LostBench) -> None:
    async with one.running():
        body = {"docker_image": "busybox"}
        task, _ = await one.service.submit(body, default_user="ann", direct=True)
    async with one.running():
        failed = await one.reach(task, State.FAILED)
        assert "dispatch it again" in failed.reason
        assert not one.workers["w1"].containers


# ------------------------------------------------------------------ mark-lost


async def test_a_persons_word_counts_only_where_nobody_can_look(one: LostBench) -> None:
    async with one.running():
        task = await one.started("w1")
        with pytest.raises(Conflict, match="Worker w1 can be reached"):
            await one.desk.mark_lost(task.id)
        waiting = await one.submit(req_cpu=64)
        with pytest.raises(Conflict, match="is queued: it is on no worker"):
            await one.desk.mark_lost(waiting.id)
        await one.lose("w1")
        lost = await one.desk.mark_lost(task.id)
        assert lost.state is State.FAILED
        assert "marked as lost" in lost.reason
        with pytest.raises(Conflict, match="is failed"):
            await one.desk.mark_lost(task.id)
        one.workers["w1"].write(task.assignment.id, b"last words\n")
        one.workers["w1"].finish(task.assignment.id, 0)
        one.engines["w1"].come_back()
        await until(lambda: not one.workers["w1"].containers, "removed")
        assert await one.log(task) == b"last words\n"
        assert (await one.service.find(task.id)).state is State.FAILED


async def test_a_marked_task_follows_its_own_wish(two: LostBench) -> None:
    async with two.running():
        task = await two.started("w1", on_lost="requeue")
        stopping = await two.started("w1")
        await two.lose("w1")
        await two.service.cancel(stopping.id)
        assert (await two.desk.mark_lost(stopping.id)).state is State.CANCELLED
        assert (await two.desk.mark_lost(task.id)).state is State.QUEUED
        assert (await two.reach(task, State.RUNNING)).worker_id == "w2"


async def test_a_forgotten_lost_task_leaves_an_orphan_that_nobody_touches(one: LostBench) -> None:
    async with one.running():
        task = await one.started("w1")
        await one.lose("w1")
        await one.desk.mark_lost(task.id)
        await one.service.forget(task.id)
        one.engines["w1"].come_back()
        link = one.controller.fleet.link("w1")
        await until(lambda: link.reach is Reach.ACTIVE, "back")
        for _ in range(5):
            one.controller.wake()
            await asyncio.sleep(0.01)
        assert list(one.workers["w1"].containers) == [task.assignment.id]
        (orphan,) = await Orphans(one.controller).find()
        assert (orphan.container.task_id, orphan.mine) == (task.id, True)


# ------------------------------------------------------------------ hands of others


async def test_a_container_restarted_by_hand_is_no_success(one: LostBench) -> None:
    async with one.running():
        task, worker = await one.started("w1"), one.workers["w1"]
        worker.clock.advance(1)
        worker.restart(task.assignment.id)
        failed = await one.reach(task, State.FAILED)
        assert (failed.reason, failed.exit_code) == (RESTARTED, None)
        await one.ended(task)
        assert not worker.containers


async def test_a_container_restarted_and_ended_while_nobody_looked_is_no_success(
    one: LostBench,
) -> None:
    async with one.running():
        task, worker = await one.started("w1"), one.workers["w1"]
        await one.lose("w1")
        worker.finish(task.assignment.id, 1)
        worker.clock.advance(1)
        worker.containers[task.assignment.id].sight = _rerun(worker, task)
        one.engines["w1"].come_back()
        failed = await one.ended(task)
        assert (failed.state, failed.reason) == (State.FAILED, RESTARTED)


def _rerun(worker: FakeWorker, task: Task):  # type: ignore[no-untyped-def]
    from dataclasses import replace

    sight = worker.containers[task.assignment.id].sight
    return replace(sight, started_at=worker.clock(), finished_at=worker.clock(), exit_code=0)


async def test_a_container_that_runs_again_after_its_end_ends_nothing_twice(
    one: LostBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with one.running():
        task, worker = await one.started("w1"), one.workers["w1"]
        gate = one.engines["w1"].hold("logs")
        worker.write(task.assignment.id, b"first\n")
        worker.finish(task.assignment.id, 0)
        await asyncio.wait_for(gate.reached.wait(), SECONDS)
        worker.clock.advance(1)
        worker.restart(task.assignment.id)
        gate.open()
        await until(lambda: not worker.containers, "stopped and removed")
        done = await one.ended(task)
        assert (done.state, done.exit_code) == (State.COMPLETED, 0)
        assert (await one.story(task)).count("exited") == 1


async def test_a_paused_container_runs_and_says_so(one: LostBench) -> None:
    async with one.running():
        task, worker = await one.started("w1"), one.workers["w1"]
        worker.pause(task.assignment.id)
        await until(lambda: shape(one.desk, task)["phase"] == "paused", "it says so")
        assert (await one.service.find(task.id)).state is State.RUNNING
        worker.pause(task.assignment.id, paused=False)
        await until(lambda: shape(one.desk, task)["phase"] == "", "it goes on")
        worker.finish(task.assignment.id, 0)
        assert (await one.ended(task)).state is State.COMPLETED


@pytest.mark.parametrize("seen", [True, False], ids=["watched", "while away"])
async def test_an_end_that_no_engine_saw_is_no_exit_code_of_the_job(
    one: LostBench, seen: bool
) -> None:
    async with one.running():
        task, worker = await one.started("w1"), one.workers["w1"]
        if not seen:
            await one.lose("w1")
        worker.clock.advance(60)
        worker.reboot()
        one.engines["w1"].drop_streams()
        one.engines["w1"].come_back()
        failed = await one.ended(task)
        assert (failed.state, failed.reason, failed.exit_code) == (State.FAILED, NO_RECORD, None)


async def test_its_own_255_stays_its_own(one: LostBench) -> None:
    async with one.running():
        task, worker = await one.started("w1"), one.workers["w1"]
        worker.clock.advance(60)
        worker.finish(task.assignment.id, 255)
        failed = await one.ended(task)
        assert (failed.reason, failed.exit_code) == ("exit code 255", 255)


async def test_a_container_pruned_before_its_harvest_ends_the_wait_for_its_log(
    one: LostBench,
) -> None:
    async with one.running():
        task, worker = await one.started("w1"), one.workers["w1"]
        one.engines["w1"].plan("logs", Fault.REFUSED)
        worker.finish(task.assignment.id, 0)
        await one.reach(task, State.COMPLETED)
        worker.vanish(task.assignment.id)
        done = await one.ended(task)
        assert (done.state, done.assignment.harvested) == (State.COMPLETED, True)
        assert "log lost" in await one.story(task)
