"""The loop over fake engines: whole lives of tasks, and faults in between."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from cloudai.controller import desk as desk_module
from cloudai.controller import effects as effects_module
from cloudai.controller import link as link_module
from cloudai.controller import loop as loop_module
from cloudai.controller.desk import Desk, has_ended, has_left_starting, why_dispatch_failed
from cloudai.controller.link import Reach
from cloudai.controller.loop import Controller
from cloudai.core.errors import (
    AuthenticationFailed,
    Conflict,
    HostKeyUnknown,
    LogUnreadable,
    WorkerNotActive,
    WorkerNotFound,
    WorkerUnreachable,
)
from cloudai.core.model import Phase, State, Task, WorkerSpec
from cloudai.engines import ImageSource, NotAdmitted, Order
from cloudai.engines.docker import DockerEngine
from cloudai.engines.fake import FakeEngine, FakeWorker, Fault
from cloudai.engines.fake_worker import Job
from cloudai.inventory import InventoryFile
from cloudai.service import Service, now
from cloudai.shells.local import LocalShell

SECONDS = 5.0
"""How long anything may take here; only a broken test waits so long."""


async def until(condition: Callable[[], bool | Awaitable[bool]], what: str) -> None:
    """Lets the loop run until the condition holds."""
    deadline = asyncio.get_running_loop().time() + SECONDS
    while True:
        held = condition()
        if isinstance(held, Awaitable):
            held = await held
        if held:
            return
        assert asyncio.get_running_loop().time() < deadline, f"never: {what}"
        await asyncio.sleep(0.005)


class Bench:
    """A controller over fake workers, and shorthands."""

    def __init__(self, home: Path, workers: dict[str, FakeWorker]) -> None:
        self.home = home
        self.workers = workers
        self.engines: dict[str, FakeEngine] = {}
        self.inventory = home / "hosts.yaml"
        self.images: ImageSource | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Bench]:
        lines = "".join(f"  {name}: {{host: h}}\n" for name in self.workers)
        self.inventory.write_text(f"workers:\n{lines}" if lines else "workers: {}\n")
        self.service = Service(self.home)
        await self.service.open()
        self.controller = Controller(
            self.service,
            InventoryFile(self.inventory),
            lambda spec: self._engine(spec.id),
            images=self.images,
        )
        self.desk = Desk(self.controller, None)  # type: ignore[arg-type]
        await self.controller.begin()
        loop = asyncio.create_task(self.controller.run())
        try:
            yield self
        finally:
            loop.cancel()
            await asyncio.gather(loop, return_exceptions=True)
            await self.service.close()

    def _engine(self, name: str) -> FakeEngine:
        self.engines[name] = FakeEngine(self.workers[name])
        return self.engines[name]

    async def submit(self, **body: object) -> Task:
        body = {"docker_image": "busybox", "req_cpu": 1.0, "req_memory": 0.25, **body}
        task, _ = await self.service.submit(body, default_user="ann")
        return task

    async def dispatch(self, worker: str, **body: object) -> Task:
        body = {"docker_image": "busybox", **body}
        task, self.dispatched_anew = await self.desk.dispatch(
            worker, body, default_user="ann", timeout=SECONDS
        )
        return task

    async def reach(self, task: Task, state: State) -> Task:
        found = await self.controller.wait_for(
            task.id, lambda one: one.state is state, timeout=SECONDS
        )
        assert found.state is state, f"{found.state}: {found.reason}"
        return found

    async def ended(self, task: Task) -> Task:
        found = await self.controller.wait_for(task.id, has_ended, timeout=SECONDS)
        assert has_ended(found), f"{found.state}: {found.reason}"
        return found

    async def log(self, task: Task, **how: object) -> bytes:
        stream = await self.desk.logs(await self.service.find(task.id), **how)
        return b"".join([chunk async for chunk in stream])


@pytest.fixture
def a_bench(tmp_path: Path) -> Callable[..., Bench]:
    return lambda **workers: Bench(tmp_path, workers)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "AGAIN_AT_MOST", 0.05)
    monkeypatch.setattr(effects_module, "LATE", 0.05)


async def test_a_good_life(a_bench):
    async with a_bench(w1=FakeWorker()).running() as bench:
        task = await bench.reach(await bench.submit(), State.RUNNING)
        bench.workers["w1"].write(task.assignment.id, b"one\ntwo\n")
        bench.workers["w1"].finish(task.assignment.id, 0)
        task = await bench.ended(task)
        assert (task.state, task.exit_code) == (State.COMPLETED, 0)
        assert await bench.log(task) == b"one\ntwo\n"
        assert not bench.workers["w1"].containers
        assert bench.workers["w1"].starts[task.assignment.id] == 1


async def test_an_effect_that_is_called_off_before_it_began_is_let_go(a_bench):
    async def effect() -> None:
        raise AssertionError("it began")

    async with a_bench().running() as bench:
        work = effect()
        bench.controller._do("task-1-x", work)
        bench.controller._busy["task-1-x"].cancel()
        await until(lambda: not bench.controller._busy, "it is over")
        assert inspect.getcoroutinestate(work) == inspect.CORO_CLOSED


async def test_a_task_that_changed_while_it_was_read_is_left_to_the_next_pass(a_bench):
    async with a_bench(w1=FakeWorker()).running() as bench:
        task = await bench.reach(await bench.submit(), State.RUNNING)
        read, record = bench.service.unfinished, bench.service.record
        overtaken, written = [], []

        async def overtake():
            found = await read()
            if not overtaken:
                bench.workers["w1"].finish(task.assignment.id, 0)
                link = bench.controller.link("w1")
                await until(lambda: link.containers()[0].phase is Phase.EXITED, "it is seen")
                overtaken.append(await bench.service.cancel(task.id))
            return found

        async def watch(task, event):
            written.append(await record(task, event))
            return written[-1]

        bench.service.unfinished, bench.service.record = overtake, watch
        bench.controller.wake()
        await bench.ended(task)
        assert overtaken
        assert None not in written, "nothing is decided on what is not so any more"


async def test_many_tasks_on_two_workers_never_more_than_there_is(a_bench):
    workers = {"w1": FakeWorker(cpus=2, name="w1"), "w2": FakeWorker(cpus=2, name="w2")}
    async with a_bench(**workers).running() as bench:
        tasks = [await bench.submit() for _ in range(12)]
        done = 0
        while done < len(tasks):
            await until(lambda: any(w.containers for w in workers.values()), "something runs")
            for worker in workers.values():
                assert worker.held().cpu_milli <= 2000
                for name, container in list(worker.containers.items()):
                    if container.sight.phase == "running":
                        worker.finish(name)
                        done += 1
            await asyncio.sleep(0.005)
        for task in tasks:
            assert (await bench.ended(task)).state is State.COMPLETED
        assert all(count == 1 for w in workers.values() for count in w.starts.values())


async def test_the_reason_of_a_wait_is_known(a_bench):
    async with a_bench(w1=FakeWorker(cpus=2)).running() as bench:
        task = await bench.submit(req_cpu=64)
        await until(lambda: task.id in bench.controller.waiting, "a pass")
        await until(
            lambda: (
                "worker has 2.0 available, task requires 64.0" in bench.controller.waiting[task.id]
            ),
            "its reason",
        )


@pytest.mark.parametrize("fault", [Fault.LOST_BEFORE, Fault.LOST_HALF, Fault.LOST_AFTER])
async def test_a_lost_reply_to_a_start_starts_once(a_bench, fault):
    async with a_bench(w1=FakeWorker()).running() as bench:
        await until(lambda: "w1" in bench.engines, "the link")
        bench.engines["w1"].plan("start", fault)
        task = await bench.reach(await bench.submit(), State.RUNNING)
        bench.workers["w1"].finish(task.assignment.id, 0)
        assert (await bench.ended(task)).state is State.COMPLETED
        assert dict(bench.workers["w1"].starts) == {task.assignment.id: 1}


async def test_unreachable_never_ends_a_task(a_bench):
    async with a_bench(w1=FakeWorker()).running() as bench:
        task = await bench.reach(await bench.submit(), State.RUNNING)
        bench.engines["w1"].go_away()
        link = bench.controller.fleet.link("w1")
        await until(lambda: link.reach is Reach.UNREACHABLE, "it is known to be away")
        bench.workers["w1"].finish(task.assignment.id, 7)
        for _ in range(5):
            bench.controller.wake()
            await asyncio.sleep(0.01)
        assert (await bench.service.find(task.id)).state is State.RUNNING
        bench.engines["w1"].come_back()
        task = await bench.ended(task)
        assert (task.state, task.exit_code, task.reason) == (State.FAILED, 7, "exit code 7")


async def test_a_container_removed_by_hand_is_a_failure_with_words(a_bench):
    async with a_bench(w1=FakeWorker()).running() as bench:
        task = await bench.reach(await bench.submit(), State.RUNNING)
        bench.workers["w1"].vanish(task.assignment.id)
        task = await bench.ended(task)
        assert task.state is State.FAILED
        assert "removed on the worker by someone else" in task.reason


async def test_cancel_waiting_running_and_while_it_starts(a_bench):
    async with a_bench(w1=FakeWorker(cpus=1)).running() as bench:
        running = await bench.reach(await bench.submit(), State.RUNNING)
        waiting = await bench.submit()
        assert (await bench.service.cancel(waiting.id)).state is State.CANCELLED
        assert (await bench.service.cancel(running.id)).state is State.STOPPING
        assert (await bench.ended(running)).state is State.CANCELLED
        gate = bench.engines["w1"].hold("start")
        starting = await bench.submit()
        await asyncio.wait_for(gate.reached.wait(), SECONDS)
        await bench.service.cancel(starting.id)
        gate.open()
        assert (await bench.ended(starting)).state is State.CANCELLED
        await until(lambda: not bench.workers["w1"].containers, "nothing left there")


async def test_a_missing_image_is_pulled_and_one_that_does_not_exist_says_so(a_bench):
    worker = FakeWorker()
    worker.images = set()
    worker.registry["nosuch"] = "pull access denied for nosuch"
    async with a_bench(w1=worker).running() as bench:
        task = await bench.reach(await bench.submit(docker_image="alpine"), State.RUNNING)
        story = await bench.service.in_thread(bench.service.store.events, task.id)
        assert [e.what for e in story if e.what.startswith("pull")] == ["pulling", "pulled"]
        task = await bench.dispatch("w1", docker_image="nosuch")
        assert task.state is State.FAILED
        assert "pull access denied" in task.reason


async def test_an_image_that_no_worker_has_or_can_pull_ends_a_queued_task_too(a_bench):
    workers = {"w1": FakeWorker(cpus=8, name="w1"), "w2": FakeWorker(name="w2")}
    for worker in workers.values():
        worker.images = set()
        worker.registry |= {"nosuch": "no such image", "elsewhere": "no registry here"}
    workers["w2"].images.add("elsewhere")
    async with a_bench(**workers).running() as bench:
        task = await bench.ended(await bench.submit(docker_image="nosuch"))
        assert (task.state, task.reason) == (State.FAILED, "no such image")
        tried = {worker.name for worker in workers.values()}
        store = bench.service.store
        assignments = await bench.service.in_thread(store.assignments, task.id)
        assert {assignment.worker_id for assignment in assignments} == tried
        task = await bench.reach(await bench.submit(docker_image="elsewhere"), State.RUNNING)
        assert task.worker_id == "w2"


async def test_a_start_that_fails_is_a_failure_with_the_engines_word(a_bench):
    worker = FakeWorker()
    worker.jobs["bad"] = Job(start_error='"nosuch": executable file not found')
    async with a_bench(w1=worker).running() as bench:
        task = await bench.ended(await bench.submit(docker_image="bad"))
        assert task.state is State.FAILED
        assert "executable file not found" in task.reason


async def test_dispatch_answers_when_it_runs_or_why_not(a_bench):
    async with a_bench(w1=FakeWorker(cpus=4)).running() as bench:
        assert (await bench.dispatch("w1")).state is State.RUNNING
        task = await bench.dispatch("w1", req_cpu=100)
        assert task.state is State.FAILED
        assert task.reason == "Insufficient CPU: worker has 3.0 available, task requires 100.0"
        with pytest.raises(WorkerNotFound, match="Worker worker-999 not found") as caught:
            await bench.dispatch("worker-999")
        failed = await bench.service.find(caught.value.details["task_id"])
        assert (failed.state, failed.reason) == (State.FAILED, "Worker worker-999 not found")
        await bench.desk.set_draining("w1", True)
        with pytest.raises(WorkerNotActive, match="Worker w1 is not active"):
            await bench.dispatch("w1")
        assert len(bench.workers["w1"].containers) == 1


async def test_a_task_is_previewed_before_there_is_a_worker(a_bench, monkeypatch):
    async with a_bench().running() as bench:
        monkeypatch.setattr(
            bench.controller.fleet, "connect", lambda spec: DockerEngine(spec, LocalShell())
        )
        task = await bench.submit(docker_image="alpine", argv=["true"])
        assert bench.desk.preview(task).startswith("docker run -d ")
        assert bench.controller.fleet.workers() == []


async def test_the_same_key_dispatches_once_and_tells_what_came_of_it(a_bench):
    async with a_bench(w1=FakeWorker(cpus=4)).running() as bench:
        first = await bench.dispatch("w1", idempotency_key="k")
        assert bench.dispatched_anew
        assert (await bench.dispatch("w1", idempotency_key="k")).id == first.id
        assert not bench.dispatched_anew
        refused = await bench.dispatch("w1", req_cpu=100, idempotency_key="big")
        error = why_dispatch_failed(refused, again=True)
        assert (error.exit_code, refused.id in error.hint) == (4, True)


async def test_dispatch_to_an_unreachable_worker_says_so_at_once(a_bench):
    async with a_bench(w1=FakeWorker()).running() as bench:
        await until(lambda: "w1" in bench.engines, "the link")
        bench.engines["w1"].go_away()
        link = bench.controller.fleet.link("w1")
        await until(lambda: link.reach is Reach.UNREACHABLE, "it is known to be away")
        with pytest.raises(WorkerUnreachable) as caught:
            await bench.dispatch("w1")
        failed = await bench.service.find(caught.value.details["task_id"])
        assert failed.state is State.FAILED
        assert not bench.workers["w1"].containers


async def test_a_known_worker_is_trusted_also_by_the_first_command_of_all(a_bench, monkeypatch):
    pinned: list[str] = []
    asked = asyncio.Event()
    probe = FakeEngine.probe

    async def guarded(engine: FakeEngine) -> object:
        if not pinned:
            await asked.wait()
            raise HostKeyUnknown("the host key of h is not known")
        return await probe(engine)

    async def pin(spec: WorkerSpec, fingerprint: str) -> None:
        pinned.append(fingerprint)

    monkeypatch.setattr(FakeEngine, "probe", guarded)
    async with a_bench(w1=FakeWorker()).running() as bench:
        bench.desk.host_keys = SimpleNamespace(pin=pin)
        bench.controller.follow_inventory()
        assert bench.controller.fleet.link("w1").reach is Reach.CONNECTING
        spec = WorkerSpec(id="w1", host="h")
        first = asyncio.create_task(bench.desk.register(spec, fingerprint="SHA256:x"))
        await asyncio.sleep(0)
        asked.set()
        view, _ = await first
        assert (pinned, view.link.reach) == (["SHA256:x"], Reach.ACTIVE)


async def test_draining_takes_no_new_tasks_until_resumed(a_bench):
    async with a_bench(w1=FakeWorker()).running() as bench:
        await bench.desk.set_draining("w1", True)
        task = await bench.submit()
        await until(lambda: bench.controller.waiting.get(task.id) == "w1: draining", "its reason")
        await bench.desk.set_draining("w1", False)
        await bench.reach(task, State.RUNNING)


async def test_a_restarted_controller_goes_on_where_the_last_one_was(a_bench):
    bench = a_bench(w1=FakeWorker())
    async with bench.running():
        tasks = [await bench.reach(await bench.submit(), State.RUNNING) for _ in range(3)]
    bench.workers["w1"].finish(tasks[0].assignment.id, 0)
    bench.workers["w1"].vanish(tasks[1].assignment.id)
    async with bench.running():
        assert (await bench.ended(tasks[0])).state is State.COMPLETED
        assert (await bench.ended(tasks[1])).state is State.FAILED
        assert (await bench.service.find(tasks[2].id)).state is State.RUNNING
    assert set(bench.workers["w1"].starts.values()) == {1}


async def test_a_late_container_of_a_cancelled_assignment_is_stopped_and_removed(a_bench):
    """The link died during the start, the task was cancelled meanwhile, and the worker's script
    went on: the container appears when nobody wants it any more."""
    async with a_bench(w1=FakeWorker()).running() as bench:
        await until(lambda: "w1" in bench.engines, "the link")
        engine = bench.engines["w1"]
        engine.plan("start", Fault.LOST_BEFORE)
        gate = engine.hold("start")
        task = await bench.submit()
        await asyncio.wait_for(gate.reached.wait(), SECONDS)
        await bench.service.cancel(task.id)
        gate.open()
        task = await bench.ended(task)
        assert task.state is State.CANCELLED
        order = Order(
            assignment_id=f"{task.id}.1",
            task_id=task.id,
            store_id=bench.service.store.id,
            spec=task.spec,
            env={},
        )
        bench.workers["w1"].create(order)
        bench.workers["w1"].start(order.assignment_id)
        await until(lambda: not bench.workers["w1"].containers, "stopped and removed")
        assert (await bench.service.find(task.id)).state is State.CANCELLED


async def test_what_another_store_has_under_the_name_of_an_assignment_that_is_over_is_left(a_bench):
    """As where two homes began as copies of one."""
    async with a_bench(w1=FakeWorker()).running() as bench:
        await until(lambda: "w1" in bench.engines, "the link")
        worker, link = bench.workers["w1"], bench.controller.fleet.link("w1")
        bench.engines["w1"].plan("start", Fault.LOST_BEFORE)
        gate = bench.engines["w1"].hold("start")
        task = await bench.submit()
        await asyncio.wait_for(gate.reached.wait(), SECONDS)
        await bench.service.cancel(task.id)
        gate.open()
        task = await bench.ended(task)
        order = Order(
            assignment_id=f"{task.id}.1", task_id=task.id, store_id="other", spec=task.spec, env={}
        )
        worker.create(order)
        worker.start(order.assignment_id)
        await until(lambda: link.container(order.assignment_id) is not None, "it is seen")
        for _ in range(5):
            bench.controller.wake()
            await asyncio.sleep(0.02)
        assert worker.containers[order.assignment_id].sight.phase is Phase.RUNNING


async def test_another_container_under_the_name_of_one_that_is_removed_is_left(a_bench):
    """Somebody made it by hand, labels and all: it is not the one that the assignment had."""
    async with a_bench(w1=FakeWorker()).running() as bench:
        worker, link = bench.workers["w1"], bench.controller.fleet.link("w1")
        task = await bench.reach(await bench.submit(), State.RUNNING)
        name, store_id = task.assignment.id, bench.service.store.id
        worker.finish(name, 0)
        await bench.ended(task)
        await until(lambda: not worker.containers, "its own is removed")
        order = Order(
            assignment_id=name, task_id=task.id, store_id=store_id, spec=task.spec, env={}
        )
        worker.create(order)
        worker.start(name)
        await until(lambda: link.container(name) is not None, "it is seen")
        for _ in range(5):
            bench.controller.wake()
            await asyncio.sleep(0.02)
        assert worker.containers[name].sight.phase is Phase.RUNNING


async def test_following_a_log_over_cut_streams_loses_and_doubles_nothing(a_bench):
    async with a_bench(w1=FakeWorker()).running() as bench:
        task = await bench.reach(await bench.submit(), State.RUNNING)
        name, worker = task.assignment.id, bench.workers["w1"]
        reading = asyncio.create_task(bench.log(task, follow=True))
        for number in range(60):
            worker.write(name, b"line %d\n" % number)
            await asyncio.sleep(0.002)
            if number % 20 == 10:
                bench.engines["w1"].drop_streams()
        worker.finish(name, 0)
        assert await asyncio.wait_for(reading, SECONDS) == b"".join(
            b"line %d\n" % number for number in range(60)
        )


async def test_lines_are_passed_on_without_asking_whether_the_task_has_ended(a_bench, monkeypatch):
    asked: list[str] = []

    async with a_bench(w1=FakeWorker()).running() as bench:
        task = await bench.reach(await bench.submit(), State.RUNNING)
        stream = await bench.desk.logs(task, follow=True)
        bench.workers["w1"].write(task.assignment.id, b"first\n")
        assert await anext(stream) == b"first\n"
        ended = bench.desk._log_ended
        monkeypatch.setattr(
            bench.desk, "_log_ended", lambda one: asked.append(one.id) or ended(one)
        )
        for number in range(5):
            bench.workers["w1"].write(task.assignment.id, b"%d\n" % number)
            assert await anext(stream) == b"%d\n" % number
        assert len(asked) <= 1, "but for where a line took a second"
        bench.workers["w1"].finish(task.assignment.id, 0)
        assert [chunk async for chunk in stream] == []


async def test_a_log_can_be_followed_before_the_task_starts(a_bench):
    worker = FakeWorker(cpus=1)
    worker.jobs["busybox"] = Job(output=b"hello\n")
    async with a_bench(w1=worker).running() as bench:
        first = await bench.reach(await bench.submit(), State.RUNNING)
        second = await bench.submit()
        reading = asyncio.create_task(bench.log(second, follow=True))
        worker.finish(first.assignment.id)
        second = await bench.reach(second, State.RUNNING)
        worker.finish(second.assignment.id)
        assert await asyncio.wait_for(reading, SECONDS) == b"hello\n"


async def test_an_end_that_is_seen_before_the_answer_to_its_start_is_not_forgotten(
    a_bench, monkeypatch
):
    start = FakeEngine.start

    async def late(engine, order):
        outcome = await start(engine, order)  # it runs, and that is what the answer will say
        bench.workers["w1"].finish(order.assignment_id)
        await bench.controller.fleet.link("w1").look(order.assignment_id)
        return outcome

    monkeypatch.setattr(FakeEngine, "start", late)
    # Nothing more is heard of it.
    monkeypatch.setattr(link_module.Link, "_follow", lambda *_: asyncio.sleep(SECONDS))
    async with a_bench(w1=FakeWorker()).running() as bench:
        task = await bench.ended(await bench.submit())
        assert (task.state, task.exit_code) == (State.COMPLETED, 0)


async def test_a_time_limit_ends_it_with_that_reason(a_bench):
    async with a_bench(w1=FakeWorker(clock=now)).running() as bench:
        task = await bench.ended(await bench.submit(time_limit=0.2))
        assert (task.state, task.reason) == (State.FAILED, "time limit of 0.2 s reached")


async def test_a_storage_limit_that_is_watched_ends_it_with_that_reason(a_bench, monkeypatch):
    from cloudai.controller import loop

    monkeypatch.setattr(loop, "SIZES_EVERY", 0.05)
    async with a_bench(w1=FakeWorker()).running() as bench:
        task = await bench.reach(await bench.submit(req_storage=1), State.RUNNING)
        bench.workers["w1"].containers[task.assignment.id].size = 2 * 2**30
        task = await bench.ended(task)
        assert task.state is State.FAILED
        assert task.reason == "storage limit: 2.00 GB written, 1.00 GB asked for with -storage"


async def test_a_list_of_workers_has_the_stale_ones_looked_at_again(a_bench, monkeypatch):
    async with a_bench(w1=FakeWorker(), w2=FakeWorker()).running() as bench:
        await until(lambda: len(bench.engines) == 2, "the links")
        links = bench.controller.fleet.workers()
        await until(lambda: all(link.sight for link in links), "both are seen")
        before = [link.seen_at for link in links]
        await bench.desk.workers()
        links[0].seen_at = now() - 2 * desk_module.FRESH
        await bench.desk.workers()
        await until(lambda: links[0].seen_at >= before[0], "the stale one is seen again")
        assert links[1].seen_at == before[1]


async def test_a_worker_that_refuses_us_is_not_asked_again_by_itself(a_bench, monkeypatch):
    bench = a_bench(w1=FakeWorker())
    tries = 0

    async def refuse(self):
        nonlocal tries
        tries += 1
        raise AuthenticationFailed("permission denied for ann")

    monkeypatch.setattr(FakeEngine, "probe", refuse)
    async with bench.running():
        await until(lambda: bool(bench.engines), "the link")
        link = bench.controller.fleet.link("w1")
        await until(lambda: link.reach is Reach.STOPPED, "it is stopped")
        await asyncio.sleep(0.2)
        assert tries == 1
        with pytest.raises(AuthenticationFailed):
            await link.ensure(SECONDS)
        assert tries == 2


async def test_a_worker_that_leaves_the_inventory_keeps_its_task(a_bench):
    async with a_bench(w1=FakeWorker(name="w1"), w2=FakeWorker(name="w2")).running() as bench:
        task = await bench.reach(await bench.submit(target="w1"), State.RUNNING)
        bench.inventory.write_text("workers:\n  w2: {host: h}\n")
        await until(lambda: len(bench.controller.fleet.workers()) == 1, "the edit is taken over")
        bench.workers["w1"].finish(task.assignment.id, 0)
        assert (await bench.ended(task)).state is State.COMPLETED
        await until(lambda: bench.controller.fleet.get("w1") is None, "the link goes too")


async def test_a_bad_edit_keeps_the_last_good_inventory_and_says_so(a_bench):
    async with a_bench(w1=FakeWorker()).running() as bench:
        await until(lambda: "w1" in bench.engines, "the link")
        bench.inventory.write_text("workers:\n  w1: {hots: h}\n")
        await until(lambda: bool(bench.controller.inventory_error), "it is said")
        assert "hots" in bench.controller.inventory_error
        assert [link.id for link in bench.controller.fleet.workers()] == ["w1"]
        bench.inventory.write_text("workers:\n  w1: {host: h}\n")
        await until(lambda: not bench.controller.inventory_error, "it is mended")


async def test_two_workers_that_are_one_machine_are_not_booked_twice(a_bench):
    twin = FakeWorker(name="same")
    async with a_bench(w1=twin, w2=twin).running() as bench:
        await until(lambda: len(bench.engines) == 2, "the links")
        links = bench.controller.fleet.workers()
        await until(lambda: all(link.sight for link in links), "both are seen")
        assert [bool(link.twin) for link in links] == [False, True]
        task = await bench.reach(await bench.submit(), State.RUNNING)
        assert task.worker_id == "w1"
        with pytest.raises(WorkerNotActive):
            await bench.dispatch("w2")
        broken = [one for one in await bench.desk.doctor("w2") if not one.ok]
        assert ["same machine and engine as w1" in one.found for one in broken] == [True]
        assert all(one.ok for one in await bench.desk.doctor("w1"))


async def test_a_twin_that_is_first_seen_for_a_dispatch_takes_none(a_bench):
    twin = FakeWorker(name="same")
    async with a_bench(w1=twin, w2=twin).running() as bench:
        await until(lambda: len(bench.engines) == 2, "the links")
        second = bench.controller.fleet.link("w2")
        await until(lambda: bool(second.twin), "it is known")
        # As where its key was pinned a moment ago: not reached so far, and nothing known of it.
        second.twin, second.sight = "", None
        second.lost(WorkerUnreachable("its host key is not known"))
        with pytest.raises(WorkerNotActive):
            await bench.dispatch("w2")


async def test_a_worker_in_trouble_sends_the_task_back_to_the_queue(a_bench):
    async with a_bench(w1=FakeWorker()).running() as bench:
        await until(lambda: "w1" in bench.engines, "the link")
        bench.engines["w1"].plan("start", Fault.REFUSED)
        task = await bench.submit()
        found = await bench.controller.wait_for(
            task.id, lambda one: bool(one.assignment) and one.state is State.QUEUED, timeout=SECONDS
        )
        assert found.reason


async def test_a_worker_that_goes_on_refusing_is_asked_less_and_less(a_bench, monkeypatch):
    monkeypatch.setattr(loop_module, "REFUSED_FOR", 0.05)
    async with a_bench(w1=FakeWorker()).running() as bench:
        await until(lambda: "w1" in bench.engines, "the link")
        bench.engines["w1"].plan("start", *[Fault.REFUSED] * 4)
        began = time.monotonic()
        await bench.reach(await bench.submit(), State.RUNNING)
        assert time.monotonic() - began >= 0.05 + 0.1 + 0.2 + 0.4


async def test_room_that_comes_free_is_noticed_before_the_pause_is_over(a_bench, monkeypatch):
    monkeypatch.setattr(loop_module, "REFUSED_FOR", 1000.0)
    worker = FakeWorker(cpus=2, memory=4)
    async with a_bench(w1=worker).running() as bench:
        first = await bench.reach(await bench.submit(), State.RUNNING)
        # Refused, as when somebody else took the rest in between.
        refused = NotAdmitted(what="cpu", available=0.0, required=1.0, reason="Insufficient CPU")

        async def refuse(_: object) -> NotAdmitted:
            return refused

        with monkeypatch.context() as full:
            full.setattr(bench.engines["w1"], "start", refuse)
            second = await bench.submit()
            await until(
                lambda: refused.reason in bench.controller.waiting.get(second.id, ""), "it waits"
            )
        assert worker.starts == {first.assignment.id: 1}
        worker.finish(first.assignment.id, 0)
        await bench.reach(second, State.RUNNING)


async def test_nothing_is_removed_while_a_start_of_it_may_be_on_its_way(a_bench, monkeypatch):
    monkeypatch.setattr(effects_module, "LATE", 0.5)
    bench = a_bench(w1=FakeWorker())
    async with bench.running():
        task = await bench.reach(await bench.submit(), State.RUNNING)
    async with bench.running():
        began = time.monotonic()
        bench.workers["w1"].finish(task.assignment.id, 0)
        await bench.reach(task, State.COMPLETED)
        assert time.monotonic() - began < 0.5, "its end is told at once"
        assert task.assignment.id in bench.workers["w1"].containers
        await bench.ended(task)
        assert time.monotonic() - began > 0.4
        assert not bench.workers["w1"].containers


async def test_forgetting_needs_an_end_and_takes_the_log(a_bench):
    async with a_bench(w1=FakeWorker()).running() as bench:
        task = await bench.reach(await bench.submit(env={"TOKEN": "secret"}), State.RUNNING)
        with pytest.raises(Conflict):
            await bench.service.forget(task.id)
        bench.workers["w1"].write(task.assignment.id, b"x\n")
        bench.workers["w1"].finish(task.assignment.id)
        await bench.ended(task)
        everything = b"".join(p.read_bytes() for p in bench.home.rglob("*") if p.is_file())
        assert b"secret" not in everything
        await bench.service.forget(task.id)
        assert not (bench.home / "logs" / task.id).exists()


async def test_dispatch_while_the_engine_is_in_trouble_fails_the_task(a_bench):
    async with a_bench(w1=FakeWorker()).running() as bench:
        await until(lambda: "w1" in bench.engines, "the link")
        await bench.controller.fleet.link("w1").ensure(SECONDS)
        bench.engines["w1"].plan("start", Fault.REFUSED)
        task = await bench.dispatch("w1")
        assert has_left_starting(task)
        assert task.state is State.FAILED


async def test_a_full_disk_at_home_keeps_the_container_and_says_so(a_bench, monkeypatch):
    from cloudai.controller import effects

    monkeypatch.setattr(effects, "FULL", 0.05)
    worker = FakeWorker()
    async with a_bench(w1=worker).running() as bench:
        task = await bench.reach(await bench.submit(), State.RUNNING)
        worker.write(task.assignment.id, b"precious\n")

        def full(*args):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as broken:
            broken.setattr("cloudai.archive.writer.write_all", full)
            worker.finish(task.assignment.id, 3)
            task = await bench.reach(task, State.FAILED)
            assert task.exit_code == 3
            phases = bench.controller.effects.phases
            await until(lambda: "No space left" in phases.get(task.id, ""), "it is said")
            assert "its container is kept on w1" in phases[task.id]
            assert task.assignment.id in worker.containers
        await bench.ended(task)
        assert await bench.log(task) == b"precious\n"
        assert not worker.containers
        assert task.id not in phases


async def test_a_log_that_its_engine_cannot_read_to_its_end_comes_home_as_far_as_it_goes(
    a_bench, monkeypatch
):
    """As after a full disk there: the last record is torn, and nothing is read past it."""
    monkeypatch.setattr(effects_module, "AGAIN", 0.01)
    worker = FakeWorker()
    async with a_bench(w1=worker).running() as bench:
        task = await bench.reach(await bench.submit(), State.RUNNING)
        worker.write(task.assignment.id, b"whole\n")
        whole = bench.engines["w1"].logs

        @asynccontextmanager
        async def torn(container_id, **how):
            async def records(source):
                async for record in source:
                    yield record
                raise LogUnreadable("the worker's engine could not read the log: unexpected EOF")

            async with whole(container_id, **how) as source:
                yield records(source)

        monkeypatch.setattr(bench.engines["w1"], "logs", torn)
        assert await bench.log(task) == b"whole\n", "what is home is shown"
        worker.finish(task.assignment.id, 7)
        task = await bench.ended(task)
        assert (task.state, task.exit_code) == (State.FAILED, 7)
        first, gap = (await bench.log(task)).split(b"\n", 1)
        assert first == b"whole"
        assert b"cloudai: gap: the engine no longer has what came after" in gap
        assert not worker.containers


async def test_a_gap_is_shown_and_can_be_left_out(a_bench):
    worker = FakeWorker(clock=now)
    async with a_bench(w1=worker).running() as bench:
        task = await bench.reach(await bench.submit(), State.RUNNING)
        name = task.assignment.id
        worker.write(name, b"one\n")
        assert await bench.log(task) == b"one\n"
        worker.write(name, b"dropped\n")
        worker.rotate(name, 0)
        worker.write(name, b"three\n")
        worker.finish(name)
        task = await bench.ended(task)
        before, after = (await bench.log(task)).split(b"\n[cloudai: gap: ")
        assert before == b"one\n"
        assert after.endswith(b"]\nthree\n")
        assert await bench.log(task, marks=False) == b"one\nthree\n"


async def test_a_log_is_compressed_also_by_the_controller_after_the_one_that_was_killed(
    a_bench, monkeypatch
):
    from cloudai.archive import Archive

    worker = FakeWorker()
    bench = a_bench(w1=worker)
    text = b"a line of many\n" * 10_000

    def killed(self, task_id, number):
        raise OSError("killed")

    with monkeypatch.context() as broken:
        broken.setattr(Archive, "compress", killed)
        async with bench.running():
            task = await bench.reach(await bench.submit(), State.RUNNING)
            worker.write(task.assignment.id, text)
            worker.finish(task.assignment.id)
            await until(lambda: bench.service.archive.complete(task.id, 1), "its log is home")
    async with bench.running():
        task = await bench.ended(task)
        assert (bench.home / "logs" / task.id / "1.log.gz").exists()
        assert await bench.log(task) == text
