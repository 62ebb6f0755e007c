"""The fake engine keeps an engine's promises, and breaks exactly those it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudai.core.errors import ContainerGone, EngineFailed, Indeterminate, WorkerUnreachable
from cloudai.core.model import GIB, Phase, Resources, TaskSpec
from cloudai.engines import (
    CannotStart,
    Engine,
    ImageMissing,
    LogRecord,
    NotAdmitted,
    Order,
    Outcome,
    Running,
)
from cloudai.engines.fake import FakeClock, FakeEngine, FakeWorker, Fault, Job
from tests.log_records import one_by_one

ENGINE: type[Engine] = FakeEngine
"""mypy holds the fake to the protocol here."""


def order(
    task: str = "task-1", *, number: int = 1, image: str = "busybox", **resources: float
) -> Order:
    return Order(
        assignment_id=f"{task}.{number}",
        task_id=task,
        store_id="store",
        spec=TaskSpec(image=image, resources=Resources.of(**resources)),
        env={},
    )


async def started(engine: FakeEngine, wanted: Order) -> Running:
    outcome = await engine.start(wanted)
    assert isinstance(outcome, Running), outcome
    return outcome


async def gathered(records: AsyncIterator[LogRecord]) -> bytes:
    return b"".join([record.data async for record in records])


async def test_a_task_runs_ends_and_is_removed() -> None:
    engine = FakeEngine()
    running = await started(engine, order())
    assert running.container.phase is Phase.RUNNING
    engine.worker.finish("task-1.1", 3)
    sight = await engine.look("task-1.1")
    assert sight is not None
    assert (sight.phase, sight.exit_code) == (Phase.EXITED, 3)
    await engine.remove("task-1.1")
    assert await engine.look("task-1.1") is None
    assert await engine.observe() == ()


async def test_starting_again_is_answered_with_the_same_container() -> None:
    engine = FakeEngine()
    first = await started(engine, order())
    again = await started(engine, order())
    assert again.container.id == first.container.id
    engine.worker.finish("task-1.1")
    assert (await started(engine, order())).container.phase is Phase.EXITED
    assert engine.worker.starts["task-1.1"] == 1


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (
            {"cpus": 100},
            "Insufficient CPU: worker has 4.0 available, task requires 100.0",
        ),
        ({"memory": 17}, "Insufficient memory: worker has 16.0 available, task requires 17.0"),
        ({"storage": 101}, "Insufficient storage: worker has 100.0 available, task requires 101.0"),
        ({"gpus": 3}, "Insufficient GPU: worker has 2.0 available, task requires 3.0"),
    ],
)
async def test_what_does_not_fit_is_not_admitted(asked: dict[str, float], reason: str) -> None:
    outcome = await FakeEngine(FakeWorker(gpus=2)).start(order(**asked))
    assert isinstance(outcome, NotAdmitted)
    assert outcome.reason == reason


async def test_gpus_are_shared_by_parts_and_whole_ones_are_alone() -> None:
    worker = FakeWorker(gpus=3)
    engine = FakeEngine(worker)
    worker.outsiders[worker.gpus[0]] = 1
    half = await started(engine, order("a", gpus=0.5))
    other_half = await started(engine, order("b", gpus=0.5))
    whole = await started(engine, order("c", gpus=1))
    assert half.container.gpus == other_half.container.gpus == (worker.gpus[1],)
    assert whole.container.gpus == (worker.gpus[2],)
    assert isinstance(await engine.start(order("d", gpus=0.1)), NotAdmitted)
    worker.finish("a.1")
    assert (await started(engine, order("e", gpus=0.4))).container.gpus == (worker.gpus[1],)


def wishing(name: str, gpus: float, **wishes: Any) -> Order:
    placed = order(name, gpus=gpus)
    return replace(placed, spec=replace(placed.spec, **wishes))


async def test_wishes_of_gpus_are_met_or_refused_with_the_wish() -> None:
    worker = FakeWorker(gpus=3, gpu=("NVIDIA A100-SXM4-80GB", 80))
    worker.devices[worker.gpus[0]] = ("NVIDIA GeForce RTX 4090", 24)
    engine = FakeEngine(worker)
    assert (await started(engine, order("a", gpus=1))).container.gpus == (worker.gpus[0],)
    placed = wishing("b", 0.25, gpu_model="a100", gpu_memory=50 * GIB)
    running = await started(engine, placed)
    assert running.container.gpus == (worker.gpus[1],)
    assert running.container.gpu_memory == 50 * GIB
    assert (await engine.probe()).containers[1].gpu_memory == 50 * GIB
    other = await started(engine, wishing("c", 0.25, gpu_memory=40 * GIB))
    assert other.container.gpus == (worker.gpus[2],)
    refused = await engine.start(wishing("d", 2, gpu_model="a100", gpu_memory=40 * GIB))
    assert isinstance(refused, NotAdmitted)
    assert (refused.what, refused.available, refused.required) == ("gpu", 0.0, 2.0)
    assert refused.reason == (
        "Insufficient GPU: worker has 0.0 available, task requires 2.0 (a100, 40.0 GB)"
    )


async def test_what_ops_keep_for_people() -> None:
    worker = FakeWorker(gpus=3)
    worker.min_free_gpus, worker.tasks_per_gpu = 1, 1
    engine = FakeEngine(worker)
    assert (await started(engine, order("a", gpus=0.1))).container.gpus == (worker.gpus[0],)
    assert (await started(engine, order("b", gpus=0.1))).container.gpus == (worker.gpus[1],)
    assert isinstance(await engine.start(order("c", gpus=0.1)), NotAdmitted)
    worker.max_gpus, worker.min_free_gpus = 2, 0
    assert isinstance(await engine.start(order("c", gpus=0.1)), NotAdmitted)
    worker.max_gpus = None
    assert (await started(engine, order("c", gpus=0.1))).container.gpus == (worker.gpus[2],)


async def test_a_probe_shows_images_and_clocks() -> None:
    worker = FakeWorker(gpus=1)
    assert (await FakeEngine(worker).probe()).images == frozenset()
    worker.images = {"busybox", "localhost:5000/x", "python:3.9"}
    sight = await FakeEngine(worker).probe()
    assert sight.images == {
        *("busybox", "busybox:latest", "python:3.9"),
        *("localhost:5000/x", "localhost:5000/x:latest"),
    }
    assert sight.gpus[0].clock == 1410


async def test_a_member_of_a_group_sees_its_group() -> None:
    engine = FakeEngine(FakeWorker(name="w1"))
    assert engine.address == "w1"
    engine.address = "10.0.0.1"
    placed = wishing("a", 0, group="group-1", group_size=2, group_rank=1)
    placed = replace(placed, peers=("10.0.0.2", engine.address), env={"MASTER_PORT": "7"})
    assert " --network host " in engine.preview(placed)
    await started(engine, placed)
    env = engine.worker.containers["a.1"].env
    assert (env["CLOUDAI_RANK"], env["RANK"], env["MASTER_ADDR"]) == ("1", "1", "10.0.0.2")
    assert env["MASTER_PORT"] == "7"
    assert "--network" not in engine.preview(order())


@given(st.lists(st.tuples(st.sampled_from("123456789"), st.sampled_from([0, 0.3, 0.5, 1, 2]))))
def test_no_gpu_is_ever_given_beyond_one(asked: list[tuple[str, float]]) -> None:
    worker = FakeWorker(gpus=3)
    engine = FakeEngine(worker)

    async def run() -> None:
        for task, gpus in asked:
            await engine.start(order(f"task-{task}", gpus=gpus))
            if int(task) % 3 == 0 and f"task-{task}.1" in worker.containers:
                worker.finish(f"task-{task}.1")

    asyncio.run(run())
    held = dict.fromkeys(worker.gpus, 0)
    for sight in worker.sights():
        for uuid in sight.gpus if sight.holds else ():
            held[uuid] += min(1000, sight.held.gpu_milli)
    assert all(amount <= 1000 for amount in held.values())


async def test_two_engines_share_one_worker() -> None:
    worker = FakeWorker(cpus=2)
    mine, theirs = FakeEngine(worker), FakeEngine(worker)
    await started(mine, order("a", cpus=1.5))
    assert isinstance(await theirs.start(order("b", cpus=1)), NotAdmitted)
    assert [sight.task_id for sight in await theirs.observe()] == ["a"]


@pytest.mark.parametrize(
    ("fault", "error", "containers", "starts"),
    [
        (Fault.UNREACHABLE, WorkerUnreachable, 0, 0),
        (Fault.LOST_BEFORE, Indeterminate, 0, 0),
        (Fault.LOST_HALF, Indeterminate, 1, 0),
        (Fault.LOST_AFTER, Indeterminate, 1, 1),
        (Fault.REFUSED, EngineFailed, 0, 0),
    ],
)
async def test_a_start_goes_wrong_as_planned_and_the_next_one_is_well(
    fault: Fault, error: type[Exception], containers: int, starts: int
) -> None:
    engine = FakeEngine()
    engine.plan("start", fault)
    with pytest.raises(error):
        await engine.start(order())
    assert len(engine.worker.containers) == containers
    assert engine.worker.starts["task-1.1"] == starts
    await started(engine, order())
    assert engine.worker.starts["task-1.1"] == 1
    assert [deed.outcome for deed in engine.history] == [fault, "Running"]


async def test_it_cannot_be_reached_for_some_calls_or_until_it_comes_back() -> None:
    engine = FakeEngine()
    engine.go_away(2)
    for _ in range(2):
        with pytest.raises(WorkerUnreachable):
            await engine.observe()
    assert await engine.observe() == ()
    engine.go_away()
    for _ in range(5):
        with pytest.raises(WorkerUnreachable):
            await engine.probe()
    engine.come_back()
    assert (await engine.probe()).cpus == 4


async def test_a_held_call_waits_and_has_no_effect_when_cancelled() -> None:
    engine = FakeEngine()
    gate = engine.hold("start")
    call = asyncio.create_task(engine.start(order()))
    await gate.reached.wait()
    assert not engine.worker.containers
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert not engine.worker.containers
    call = asyncio.create_task(engine.start(order()))
    gate.open()
    assert isinstance(await call, Running)


async def test_a_call_held_before_its_answer_has_had_its_effect() -> None:
    engine = FakeEngine()
    gate = engine.hold("start", after=True)
    call = asyncio.create_task(engine.start(order()))
    await gate.reached.wait()
    assert engine.worker.starts["task-1.1"] == 1
    gate.open()
    await call


async def test_a_start_that_fails_leaves_nothing_behind() -> None:
    engine = FakeEngine()
    engine.worker.jobs["broken"] = Job(start_error="no such file", start_code=127)
    outcome = await engine.start(order(image="broken"))
    assert outcome == CannotStart("no such file", 127)
    assert await engine.look("task-1.1") is None
    assert engine.worker.held() == Resources()


async def test_a_missing_image_is_pulled_or_not() -> None:
    engine = FakeEngine()
    engine.worker.images = {"busybox"}
    engine.worker.registry["secret"] = "pull access denied"
    assert await engine.start(order(image="alpine")) == ImageMissing()
    assert [progress.text async for progress in engine.pull("alpine")]
    await started(engine, order(image="alpine"))
    with pytest.raises(EngineFailed, match="pull access denied"):
        [progress async for progress in engine.pull("secret")]


async def test_a_job_ends_by_the_clock_and_says_so_at_once() -> None:
    clock = FakeClock()
    engine = FakeEngine(FakeWorker(clock=clock))
    engine.worker.jobs["short"] = Job(seconds=5, exit_code=2, output=b"a\nb\n")
    async with engine.happenings() as happenings:
        await started(engine, order(image="short"))
        clock.advance(60)
        actions = [(await anext(happenings)).action for _ in range(3)]
    assert actions == ["create", "start", "die"]
    sight = await engine.look("task-1.1")
    assert sight is not None
    assert sight.started_at is not None
    assert sight.finished_at is not None
    assert (sight.finished_at - sight.started_at).total_seconds() == 5
    assert sight.exit_code == 2


async def test_events_and_followed_logs_break_when_it_goes_away() -> None:
    engine = FakeEngine()
    running = await started(engine, order())
    async with (
        engine.happenings() as happenings,
        one_by_one(engine.logs(running.container.id, follow=True)) as records,
    ):
        engine.worker.write("task-1.1", b"one\n")
        assert (await anext(records)).data == b"one\n"
        engine.go_away()
        with pytest.raises(Indeterminate):
            await anext(happenings)
        with pytest.raises(Indeterminate):
            await anext(records)


async def test_logs_are_followed_to_the_end_and_cut_by_since_and_tail() -> None:
    clock = FakeClock()
    engine = FakeEngine(FakeWorker(clock=clock))
    container = (await started(engine, order())).container
    engine.worker.write("task-1.1", b"one\ntwo\n")
    clock.advance(1)
    async with one_by_one(engine.logs(container.id, follow=True)) as records:
        following = asyncio.create_task(gathered(records))
        engine.worker.write("task-1.1", b"three")
        await asyncio.sleep(0)
        engine.worker.finish("task-1.1")
        assert await following == b"one\ntwo\nthree"
    async with one_by_one(engine.logs(container.id)) as records:
        last = [record async for record in records][-1]
    async with one_by_one(engine.logs(container.id, since=last.at)) as records:
        assert await gathered(records) == b"three"
    async with one_by_one(engine.logs(container.id, tail=2)) as records:
        assert await gathered(records) == b"two\nthree"


async def test_a_container_that_vanishes_breaks_its_log_and_is_gone() -> None:
    engine = FakeEngine()
    container = (await started(engine, order())).container
    async with one_by_one(engine.logs(container.id, follow=True)) as records:
        following = asyncio.create_task(gathered(records))
        await asyncio.sleep(0)
        engine.worker.vanish("task-1.1")
        with pytest.raises(ContainerGone):
            await following
    with pytest.raises(ContainerGone):
        async with engine.logs(container.id):
            pass


@pytest.mark.parametrize(("honours", "code"), [(True, 143), (False, 137)])
async def test_stopping_ends_the_job_and_removing_needs_that(honours: bool, code: int) -> None:
    engine = FakeEngine()
    engine.worker.jobs["busybox"] = Job(honours_term=honours)
    await started(engine, order())
    with pytest.raises(EngineFailed, match="still runs"):
        await engine.remove("task-1.1")
    await engine.stop("task-1.1", grace=10)
    sight = await engine.look("task-1.1")
    assert sight is not None
    assert sight.exit_code == code
    await engine.stop("task-1.1", grace=10)
    await engine.remove("task-1.1")
    await engine.remove("task-1.1")


async def test_a_strangers_container_is_reported_and_left_alone() -> None:
    engine = FakeEngine()
    engine.worker.strangers.add("task-1.1")
    assert isinstance(await engine.start(order()), CannotStart)
    with pytest.raises(EngineFailed, match="not cloudai's"):
        await engine.look("task-1.1")
    with pytest.raises(EngineFailed):
        await engine.remove("task-1.1")
    assert await engine.observe() == ()


async def test_a_command_in_the_container_talks_both_ways() -> None:
    engine = FakeEngine()
    container = (await started(engine, order())).container
    engine.worker.commands["false"] = (1, b"")
    shape = {"tty": False, "columns": 80, "rows": 24}
    async with engine.execute(container.id, ["cat"], **shape) as terminal:
        await terminal.write(b"hello")
        await terminal.write(b"")
        assert await terminal.read() == (1, b"hello")
        assert await terminal.read() == (0, b"")
        assert await terminal.wait() == 0
    async with engine.execute(container.id, ["false"], **shape) as terminal:
        assert await terminal.read() == (0, b"")
        assert await terminal.wait() == 1


OUTCOMES = (Running, NotAdmitted, CannotStart)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(Fault) | st.none()), max_size=12))
def test_whatever_goes_wrong_an_assignment_is_started_at_most_once(
    calls: list[tuple[str, Fault | None]],
) -> None:
    engine = FakeEngine()

    async def run() -> list[Outcome]:
        answers = []
        for task, fault in calls:
            if fault:
                engine.plan("start", fault)
            try:
                answers.append(await engine.start(order(task)))
            except (WorkerUnreachable, EngineFailed):
                continue
        return answers

    assert all(isinstance(answer, OUTCOMES) for answer in asyncio.run(run()))
    assert all(count <= 1 for count in engine.worker.starts.values())
