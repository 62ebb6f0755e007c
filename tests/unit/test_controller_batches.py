"""Batches, arrays and needs, carried out over fake engines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloudai.controller import effects as effects_module
from cloudai.controller import link as link_module
from cloudai.core.errors import Conflict, InvalidInput, NotFound, TaskNotFound
from cloudai.core.model import State
from cloudai.core.problems import FileInvalid
from cloudai.engines.fake import FakeWorker
from cloudai.service import Batches
from tests.unit.test_controller import Bench, until


class BatchBench(Bench):
    @property
    def batches(self) -> Batches:
        return Batches(self.service)

    async def batch(self, text: str, **more: Any) -> Any:
        files = [{"name": "b.yaml", "text": text, "format": "yaml"}]
        made, tasks, _ = await self.batches.submit({"files": files, **more}, default_user="ann")
        return made, {task.spec.name: task for task in tasks}

    async def array(self, array: str, **fields: Any) -> Any:
        body = {"docker_image": "x", "req_cpu": 1.0, "array": array, **fields}
        made, _ = await self.batches.submit_array(body, default_user="ann")
        return made

    async def state(self, task_id: str) -> State:
        return (await self.service.find(task_id)).state

    async def finish(self, task_id: str, code: int = 0) -> None:
        task = await self.reach(await self.service.find(task_id), State.RUNNING)
        assert task.assignment is not None
        self.workers[task.assignment.worker_id].finish(task.assignment.id, code)
        await self.ended(task)


@pytest.fixture
def a_bench(tmp_path: Path) -> Callable[..., BatchBench]:
    return lambda **workers: BatchBench(tmp_path, workers)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "AGAIN_AT_MOST", 0.05)
    monkeypatch.setattr(effects_module, "LATE", 0.05)


PIPELINE = """
name: nightly
defaults: {image: x, cpus: 1, env: {TOKEN: secret}}
tasks:
- name: prepare
- {id: train, name: "train-{{ n }}", matrix: {n: [0, 1]}, after: prepare}
- {name: report, after: {train: any}}
- {name: clean, after: {train: failed}, on_unmet: skip}
- {name: publish, after: train}
"""


async def test_a_batch_goes_as_its_needs_say_and_adds_up(a_bench):
    async with a_bench(w1=FakeWorker(cpus=8)).running() as bench:
        batch, tasks = await bench.batch(PIPELINE)
        await bench.reach(tasks["prepare"], State.RUNNING)
        await until(lambda: tasks["report"].id in bench.controller.waiting, "it waits")
        why = bench.controller.waiting[tasks["train-0"].id]
        assert why == f"after {batch.id}/prepare"
        await bench.finish(tasks["prepare"].id)
        await bench.finish(tasks["train-0"].id)
        await bench.finish(tasks["train-1"].id, 3)
        # One of train failed: what needs all of it can never start, what needs a failure does.
        publish = await bench.ended(tasks["publish"])
        assert publish.state is State.CANCELLED
        assert not publish.skipped
        assert publish.reason == (
            f"not started: it needs {batch.id}/train to end well, and train-1"
            f" ({tasks['train-1'].id}) failed (exit code 3)"
        )
        await bench.finish(tasks["report"].id)
        await bench.finish(tasks["clean"].id)
        standing = await bench.batches.standing(batch.id)
        assert standing.ended
        assert standing.size == 6
        assert standing.counts[State.COMPLETED] == 4
        assert (standing.counts[State.FAILED], standing.counts[State.CANCELLED]) == (1, 1)


async def test_a_need_that_will_not_be_met_leaves_a_task_out_where_that_was_asked(a_bench):
    async with a_bench(w1=FakeWorker(cpus=8)).running() as bench:
        batch, tasks = await bench.batch(PIPELINE)
        for name in ("prepare", "train-0", "train-1"):
            await bench.finish(tasks[name].id)
        clean = await bench.ended(tasks["clean"])
        assert (clean.state, clean.skipped) == (State.CANCELLED, True)
        assert "all 2 completed" in clean.reason
        await bench.finish(tasks["report"].id)
        await bench.finish(tasks["publish"].id)
        standing = await bench.batches.standing(batch.id)
        assert (standing.skipped, standing.counts[State.CANCELLED]) == (1, 0)


async def test_a_cancelled_need_ends_the_whole_chain(a_bench):
    async with a_bench(w1=FakeWorker(cpus=8)).running() as bench:
        text = "defaults: {image: x}\ntasks:\n- {name: a}\n" + "".join(
            f"- {{name: {one}, after: {before}}}\n" for before, one in ("ab", "bc", "cd")
        )
        batch, tasks = await bench.batch(text)
        await bench.reach(tasks["a"], State.RUNNING)
        await bench.service.cancel(tasks["a"].id)
        last = await bench.ended(tasks["d"])
        assert f"c ({tasks['c'].id}) was cancelled" in last.reason
        standing = await bench.batches.standing(batch.id)
        assert standing.counts[State.CANCELLED] == 4


async def test_the_values_of_a_batch_are_there_until_its_last_task_has_ended(a_bench, tmp_path):
    async with a_bench(w1=FakeWorker(cpus=8)).running() as bench:
        batch, tasks = await bench.batch(PIPELINE)
        kept = bench.service.home / "vault" / f"{batch.id}.json"
        assert kept.exists()
        for name in ("prepare", "train-0", "train-1", "report"):
            running = await bench.reach(tasks[name], State.RUNNING)
            env = bench.workers["w1"].containers[running.assignment.id].env
            assert env["TOKEN"] == "secret"
            await bench.finish(tasks[name].id)
        assert kept.exists()
        await bench.finish(tasks["publish"].id)
        await bench.ended(tasks["clean"])
        assert not kept.exists()


async def test_a_once_key_makes_one_batch(a_bench):
    async with a_bench(w1=FakeWorker(cpus=1)).running() as bench:
        first, tasks = await bench.batch(PIPELINE, once_key="nightly-{{ date }}")
        again, none = await bench.batch(PIPELINE, once_key="nightly-{{ date }}")
        assert again == first
        assert len(tasks) == 6
        assert none == {}
        assert first.once_key.startswith("nightly-20")
        other, _ = await bench.batch(PIPELINE, once_key="another")
        assert other != first
        with pytest.raises(InvalidInput, match="once_key"):
            await bench.batch(PIPELINE, once_key="{{ nope }}")


async def test_nothing_is_stored_of_a_batch_with_a_mistake(a_bench):
    async with a_bench(w1=FakeWorker(cpus=1)).running() as bench:
        with pytest.raises(FileInvalid):
            await bench.batch(PIPELINE + "- {name: bad, cpus: lots}\n")
        assert await bench.service.tasks() == ([], 0)
        assert list((bench.service.home / "vault").glob("*")) == []


async def test_what_completed_before_is_left_out_and_needed_no_more(a_bench):
    async with a_bench(w1=FakeWorker(cpus=8)).running() as bench:
        _, tasks = await bench.batch(PIPELINE)
        marks = {name: task.spec.fingerprint for name, task in tasks.items()}
        # All of these run the same image, and nothing else sets them apart.
        assert len(set(marks.values())) == 1
        text = PIPELINE.replace("- name: prepare", "- {name: prepare, command: prep}").replace(
            'name: "train-{{ n }}"', 'name: "train-{{ n }}", command: "t {{ n }}"'
        )
        _, tasks = await bench.batch(text)
        marks = {name: task.spec.fingerprint for name, task in tasks.items()}
        done = {marks["prepare"]: 1, marks["train-0"]: 1}
        _, left = await bench.batch(text, done=done)
        assert set(left) == {"train-1", "report", "clean", "publish"}
        assert left["train-1"].spec.after == ()
        batch = left["train-1"].spec.batch
        assert left["publish"].spec.after == (f"{batch}/train:ok",)
        same = {marks["report"]: 2}
        _, left = await bench.batch(text, done=same)
        assert len(left) == 4  # two of the three that are alike


async def test_a_batch_is_retried_as_a_new_one_that_needs_itself(a_bench):
    async with a_bench(w1=FakeWorker(cpus=8)).running() as bench:
        batch, tasks = await bench.batch(PIPELINE)
        await bench.finish(tasks["prepare"].id)
        await bench.finish(tasks["train-0"].id)
        await bench.finish(tasks["train-1"].id, 1)
        await bench.finish(tasks["report"].id)
        await bench.finish(tasks["clean"].id)
        await bench.ended(tasks["publish"])
        with pytest.raises(Conflict, match="values of TOKEN are gone"):
            await bench.batches.retry(batch.id, {"failed": True})
        again, new = await bench.batches.retry(
            batch.id, {"failed": True, "env": {"TOKEN": "again"}}
        )
        assert {task.spec.name for task in new} == {"train-1", "publish"}
        by_name = {task.spec.name: task for task in new}
        assert by_name["publish"].spec.after == (f"{again.id}/train:ok",)
        running = await bench.reach(by_name["train-1"], State.RUNNING)
        assert bench.workers["w1"].containers[running.assignment.id].env["TOKEN"] == "again"
        await bench.finish(by_name["train-1"].id)
        await bench.finish(by_name["publish"].id)
        assert (await bench.batches.standing(again.id)).counts[State.COMPLETED] == 2
        with pytest.raises(Conflict, match="ended badly"):
            await bench.batches.retry(again.id, {"failed": True})


async def test_a_cancelled_batch_starts_nothing_more_and_can_be_forgotten(a_bench):
    async with a_bench(w1=FakeWorker(cpus=1)).running() as bench:
        text = "defaults: {image: x, grace: 0}\ntasks:\n- {matrix: {n: range(5)}, name: 't{{ n }}'}"
        batch, tasks = await bench.batch(text)
        await bench.reach(tasks["t0"], State.RUNNING)
        with pytest.raises(Conflict, match="has not ended"):
            await bench.batches.forget(batch.id)
        assert await bench.batches.cancel(batch.id) == 5
        for task in tasks.values():
            await bench.ended(task)
        assert sum(bench.workers["w1"].starts.values()) == 1
        assert await bench.batches.forget(batch.id) == 5
        with pytest.raises(NotFound):
            bench.service.store.batch(batch.id)


# ------------------------------------------------------------------ arrays


async def test_an_array_has_so_many_places_and_tells_each_its_index(a_bench):
    async with a_bench(w1=FakeWorker(cpus=8)).running() as bench:
        array = await bench.array("0-4%2", name="sweep")
        assert [task.id for task in array.elements] == [f"{array.id}_{n}" for n in range(5)]
        await bench.reach(array.elements[1], State.RUNNING)
        await until(lambda: array.elements[4].id in bench.controller.waiting, "it waits")
        assert "2 of its array run" in bench.controller.waiting[array.elements[4].id]
        assert await bench.state(array.elements[2].id) is State.QUEUED
        for task in array.elements:
            running = await bench.reach(task, State.RUNNING)
            env = bench.workers["w1"].containers[running.assignment.id].env
            assert env["CLOUDAI_ARRAY_INDEX"] == env["SLURM_ARRAY_TASK_ID"]
            assert env["CLOUDAI_ARRAY_INDEX"] == task.id.rpartition("_")[2]
            assert env["CLOUDAI_ARRAY_SIZE"] == "5"
            assert len(bench.workers["w1"].containers) <= 2
            await bench.finish(task.id)
        assert (await bench.batches.standing(array.id)).counts[State.COMPLETED] == 5


async def test_an_array_is_found_by_its_id_a_beginning_or_its_name(a_bench):
    async with a_bench(w1=FakeWorker(cpus=1)).running() as bench:
        array = await bench.array("3,7", name="sweep")
        store = bench.service.store
        for word in (array.id, array.id[:-2], "sweep"):
            assert store.locate(word).array == array.id
            with pytest.raises(Conflict, match=f"{word} is an array .* as in {word}_3|array"):
                store.find(word)
        for word in (f"{array.id}_7", f"{array.id}[7]", "sweep[7]"):
            assert store.find(word).id == f"{array.id}_7"
        for word in (f"{array.id}_8", f"{array.id}[8]", "sweep[8]"):
            with pytest.raises(TaskNotFound):
                store.find(word)


async def test_arrays_wait_for_each_other_element_by_element(a_bench):
    async with a_bench(w1=FakeWorker(cpus=8)).running() as bench:
        first = await bench.array("0-2", name="cut")
        second = await bench.array("0-2", after=["cut[*]"])
        last = await bench.submit(after=[second.id])
        await bench.finish(f"{first.id}_1")
        await bench.finish(f"{second.id}_1")
        assert await bench.state(f"{second.id}_0") is State.QUEUED
        await bench.finish(f"{first.id}_0", 1)
        assert (await bench.ended(second.elements[0])).state is State.CANCELLED
        assert (await bench.ended(last)).state is State.CANCELLED
        with pytest.raises(InvalidInput, match="no element 3"):
            await bench.array("0-3", after=["cut[*]"])
        with pytest.raises(InvalidInput, match="only an array's elements"):
            await bench.submit(after=["cut[*]"])
        with pytest.raises(TaskNotFound):
            await bench.submit(after=["nobody"])


async def test_elements_that_failed_are_retried_under_their_indexes(a_bench):
    async with a_bench(w1=FakeWorker(cpus=8)).running() as bench:
        array = await bench.array("0-3", name="sweep")
        for n, code in enumerate((0, 1, 0, 2)):
            await bench.finish(f"{array.id}_{n}", code)
        made, new = await bench.batches.retry(array.id, {"failed": True})
        assert [task.id for task in new] == [f"{made.id}_1", f"{made.id}_3"]
        assert {task.spec.array_size for task in new} == {4}
        _everything, new = await bench.batches.retry(array.id, {})
        assert len(new) == 4


async def test_a_key_makes_an_array_once(a_bench):
    async with a_bench(w1=FakeWorker(cpus=1)).running() as bench:
        first = await bench.array("0-2", idempotency_key="k")
        again = await bench.array("0-2", idempotency_key="k")
        assert again.id == first.id
        assert (await bench.service.tasks())[1] == 3
        await bench.submit(idempotency_key="other")
        with pytest.raises(Conflict, match="of no array"):
            await bench.array("0-2", idempotency_key="other")


# ------------------------------------------------------------------ needs of tasks


async def test_what_others_wait_for_is_not_forgotten(a_bench):
    async with a_bench(w1=FakeWorker(cpus=8)).running() as bench:
        first, second = await bench.submit(), await bench.submit()
        last = await bench.submit(after=[first.id, second.id])
        await bench.finish(first.id)
        with pytest.raises(Conflict, match=f"is needed by {last.id}"):
            await bench.service.forget(first.id)
        await bench.finish(second.id)
        await bench.finish(last.id)
        await bench.service.forget(first.id)


async def test_a_task_is_not_placed_before_its_time(a_bench):
    async with a_bench(w1=FakeWorker(cpus=8)).running() as bench:
        later = await bench.submit(begin="1h")
        now = await bench.submit()
        await bench.reach(now, State.RUNNING)
        await until(lambda: later.id in bench.controller.waiting, "it waits")
        assert bench.controller.waiting[later.id].startswith("not before ")
        past = await bench.submit(begin="2020-01-01T00:00:00Z")
        await bench.reach(past, State.RUNNING)
        with pytest.raises(InvalidInput, match="begin"):
            await bench.submit(begin="soon")


async def test_a_new_controller_goes_on_where_the_other_left(a_bench):
    bench = a_bench(w1=FakeWorker(cpus=8))
    async with bench.running():
        batch, tasks = await bench.batch(PIPELINE)
        await bench.reach(tasks["prepare"], State.RUNNING)
    async with bench.running():
        for name in ("prepare", "train-0", "train-1", "report", "publish"):
            await bench.finish(tasks[name].id)
        await bench.ended(tasks["clean"])
        standing = await bench.batches.standing(batch.id)
        assert (standing.counts[State.COMPLETED], standing.skipped) == (5, 1)


async def test_a_group_waits_for_its_time_and_for_what_it_needs(a_bench):
    async with a_bench(w1=FakeWorker(cpus=8)).running() as bench:
        first = await bench.submit(name="first")
        one = {"docker_image": "x", "after": ["first"], "begin": "1s"}
        group, _ = await bench.service.submit_group(
            {"tasks": [one], "replicas": 2}, default_user="ann"
        )
        assert {task.spec.after for task in group} == {(f"{first.id}:ok",)}
        assert all(task.not_before > task.created_at for task in group)
        await bench.finish(first.id)
        for task in group:
            await bench.finish(task.id)
        with pytest.raises(InvalidInput, match=r"tasks\[0\].array"):
            await bench.service.submit_group(
                {"tasks": [{"docker_image": "x", "array": "0-3"}]}, default_user="ann"
            )
