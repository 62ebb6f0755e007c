"""What tasks bring along and send home, over fake engines: cut, crashed, refused."""

from __future__ import annotations

import io
import os
import tarfile
from contextlib import asynccontextmanager

import pytest

from cloudai import crash
from cloudai.controller import carry as carry_module
from cloudai.controller import collect as collect_module
from cloudai.controller import effects as effects_module
from cloudai.core.errors import Conflict, Indeterminate, InvalidInput
from cloudai.core.model import State
from cloudai.engines.fake import FakeEngine, FakeWorker, Fault
from cloudai.engines.fake_worker import Job
from cloudai.files import kept as kept_module
from tests.unit.test_controller import Bench, a_bench, impatient, until

__all__ = ["a_bench", "impatient"]

DONE = Job(seconds=0)


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    monkeypatch.setattr(carry_module, "PAUSE", 0.0)
    monkeypatch.setattr(effects_module, "AGAIN", 0.0)
    monkeypatch.setattr(effects_module, "FULL", 0.02)
    monkeypatch.setattr(collect_module, "FULL", 0.02)


@pytest.fixture
def code(tmp_path):
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "train.py").write_text("print(1)\n")
    (folder / "data").write_bytes(os.urandom(3 * 2**20))
    return folder


def worker(**jobs: Job) -> FakeWorker:
    made = FakeWorker()
    made.jobs.update(jobs)
    return made


def result(**files: str | bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        folder = tarfile.TarInfo("out")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(folder)
        for name, data in files.items():
            body = data.encode() if isinstance(data, str) else data
            info = tarfile.TarInfo(f"out/{name}")
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    return stream.getvalue()


def names_in(data: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return tar.getnames()


async def story(bench: Bench, task_id: str) -> dict[str, str]:
    events = await bench.service.in_thread(bench.service.store.events, task_id)
    return {event.what: event.text for event in events}


async def test_what_is_brought_along_is_in_the_container_before_it_starts(a_bench, code):
    w1 = worker()
    async with a_bench(w1=w1).running() as bench:
        task = await bench.reach(await bench.submit(uploads=[str(code)]), State.RUNNING)
        filled = w1.filled[task.assignment.id]
        assert names_in(filled + bytes(1024)) == [
            "workspace",
            "workspace/data",
            "workspace/train.py",
        ]
        assert (code / "data").read_bytes() in filled
        # The next one finds it there: nothing is sent.
        second = await bench.reach(await bench.submit(uploads=[str(code)]), State.RUNNING)
        assert "uploading" in await story(bench, task.id)
        assert "uploading" not in await story(bench, second.id)


async def test_a_later_edit_changes_nothing_for_a_task_that_waits(a_bench, code):
    w1 = worker()
    async with a_bench(w1=w1).running() as bench:
        big = await bench.reach(await bench.submit(req_cpu=4.0), State.RUNNING)
        task = await bench.submit(uploads=[str(code)])
        (code / "train.py").write_text("print(2)\n")
        w1.finish(big.assignment.id)
        task = await bench.reach(task, State.RUNNING)
        assert b"print(1)" in w1.filled[task.assignment.id]


async def test_an_upload_that_is_cut_goes_on_where_it_was(a_bench, code):
    w1 = worker()
    async with a_bench(w1=w1).running() as bench:
        await until(lambda: "w1" in bench.engines, "a link")
        bench.engines["w1"].plan("put", Fault.LOST_AFTER)
        task = await bench.reach(await bench.submit(uploads=[str(code)]), State.RUNNING)
        said = await bench.service.in_thread(bench.service.store.events, task.id)
        sizes = [event.text for event in said if event.what == "uploading"]
        assert sizes == ["3.0 MB to w1", "2.0 MB to w1"]
        assert w1.starts[task.assignment.id] == 1


async def test_a_task_that_is_cancelled_is_sent_nothing_more(a_bench, code):
    w1 = worker()
    async with a_bench(w1=w1).running() as bench:
        await until(lambda: "w1" in bench.engines, "a link")
        gate = bench.engines["w1"].hold("put")
        task = await bench.submit(uploads=[str(code)])
        await gate.reached.wait()
        await bench.service.cancel(task.id)
        gate.open()
        await bench.reach(task, State.CANCELLED)
        assert not w1.starts
        assert not any(name for name in next(iter(w1.packs.values())) if "." not in name)


async def test_a_worker_keeps_nothing_of_tasks_that_are_forgotten(a_bench, code, tmp_path):
    w1 = worker(done=DONE)
    async with a_bench(w1=w1).running() as bench:
        first = await bench.submit(docker_image="done", uploads=[str(code)])
        second = await bench.submit(docker_image="done", uploads=[str(code)])
        for task in (first, second):
            await bench.ended(task)
        await bench.service.forget(first.id)
        await bench.controller.whole_pass(1)
        assert w1.packs
        assert list((tmp_path / "files" / "packs").iterdir())
        await bench.service.forget(second.id)
        await until(lambda: bench.controller.wake() or not w1.packs, "the worker is tidied")
        assert not list((tmp_path / "files" / "packs").iterdir())
        await until(lambda: not bench.service.files.workers(), "that is remembered")


@pytest.mark.parametrize("place", ["files.packed", "files.kept", "upload.begun", "upload.done"])
async def test_a_controller_that_dies_around_an_upload_leaves_it_to_the_next(
    a_bench, code, monkeypatch, place
):
    class Died(BaseException):
        pass

    def point(name: str) -> None:
        if name == place:
            raise Died

    w1 = worker()
    bench = a_bench(w1=w1)
    with monkeypatch.context() as patch:
        patch.setattr(carry_module, "point", point)
        patch.setattr(kept_module, "point", point)
        async with bench.running():
            if place.startswith("files"):
                with pytest.raises(Died):
                    await bench.submit(uploads=[str(code)])
                assert not (await bench.service.unfinished())[0]
            else:
                task = await bench.submit(uploads=[str(code)])
                await until(lambda: bench.controller._busy == {}, "it died there")
    async with bench.running():
        if place.startswith("files"):
            task = await bench.submit(uploads=[str(code)])
        task = await bench.reach(task, State.RUNNING)
        assert (code / "data").read_bytes() in w1.filled[task.assignment.id]
        assert w1.starts[task.assignment.id] == 1


async def test_bad_input_stores_nothing(a_bench, code):
    os.mkfifo(code / "pipe")
    async with a_bench(w1=worker()).running() as bench:
        with pytest.raises(InvalidInput, match="'pipe'"):
            await bench.submit(uploads=[str(code)])
        assert (await bench.service.tasks())[1] == 0


async def finished_with(bench: Bench, w1: FakeWorker, data: bytes | None, code: int = 0, **body):
    """A task that ran and has that to send home."""
    task = await bench.reach(await bench.submit(**body), State.RUNNING)
    if data is not None:
        w1.results[task.assignment.id, "/out"] = data
    w1.finish(task.assignment.id, code)
    return task


async def test_results_come_home_before_the_container_goes(a_bench, tmp_path):
    w1 = worker()
    async with a_bench(w1=w1).running() as bench:
        task = await finished_with(
            bench, w1, result(a="1"), 3, downloads=[f"/out:{tmp_path}/res/{{task}}"]
        )
        task = await bench.ended(task)
        assert task.state is State.FAILED  # what a failed one has is brought, too
        assert (tmp_path / "res" / task.id / "a").read_text() == "1"
        assert [path.name for path in (tmp_path / "res").iterdir()] == [task.id]
        assert not w1.containers


async def test_a_download_that_is_cut_goes_on_where_it_was(a_bench, tmp_path):
    w1, big = worker(), os.urandom(100_000)
    async with a_bench(w1=w1).running() as bench:
        task = await bench.reach(
            await bench.submit(downloads=[f"/out:{tmp_path}/res"]), State.RUNNING
        )
        engine = bench.engines["w1"]
        w1.results[task.assignment.id, "/out"] = result(big=big)
        begins: list[int] = []
        fetch = FakeEngine.fetch

        @asynccontextmanager
        async def cut_once(container_id: str, path: str, *, begin: int = 0):
            begins.append(begin)
            async with fetch(engine, container_id, path, begin=begin) as fetched:
                if len(begins) == 1:
                    fetched.chunks = cut(fetched.chunks)
                yield fetched

        async def cut(chunks):
            async for chunk in chunks:
                yield chunk
                raise Indeterminate("the link was lost")

        engine.fetch = cut_once
        w1.finish(task.assignment.id)
        await bench.ended(task)
        assert (tmp_path / "res" / "big").read_bytes() == big
        assert begins == [0, 4096]


async def test_what_cannot_be_brought_home_is_told_and_blocks_nothing(a_bench, tmp_path):
    w1 = worker()
    async with a_bench(w1=w1).running() as bench:
        task = await finished_with(bench, w1, None, downloads=[f"/out:{tmp_path}/res"])
        task = await bench.ended(task)
        assert task.state is State.COMPLETED
        assert "Could not find the file /out" in (await story(bench, task.id))["warning"]
        assert not w1.containers


async def test_a_worker_that_refuses_again_and_again_is_given_up(a_bench, tmp_path):
    w1 = worker()
    async with a_bench(w1=w1).running() as bench:
        task = await bench.reach(
            await bench.submit(downloads=[f"/out:{tmp_path}/res"]), State.RUNNING
        )
        bench.engines["w1"].plan("fetch", *[Fault.REFUSED] * carry_module.GIVEN_UP_AFTER)
        w1.finish(task.assignment.id)
        await bench.ended(task)
        assert "/out is not brought home" in (await story(bench, task.id))["warning"]


async def test_a_full_disk_at_home_keeps_the_container_until_there_is_room(
    a_bench, tmp_path, monkeypatch
):
    w1, full = worker(), [True]
    append = carry_module.Staging.append

    def appending(self, data: bytes) -> None:
        if full[0]:
            raise OSError(28, "No space left on device")
        append(self, data)

    monkeypatch.setattr(carry_module.Staging, "append", appending)
    async with a_bench(w1=w1).running() as bench:
        task = await finished_with(bench, w1, result(a="1"), downloads=[f"/out:{tmp_path}/res"])
        phases = bench.controller.effects.phases
        await until(lambda: "container is kept" in phases.get(task.id, ""), "it is told")
        assert w1.containers
        with pytest.raises(Conflict, match="still on w1"):
            await bench.service.forget(task.id)
        full[0] = False
        await bench.ended(task)
        assert (tmp_path / "res" / "a").read_text() == "1"


async def test_where_it_cannot_go_it_is_kept_at_home(a_bench, tmp_path):
    w1 = worker()
    (tmp_path / "file").write_text("mine")
    async with a_bench(w1=w1).running() as bench:
        for to in (f"{tmp_path}/file", f"{tmp_path}/file/deep/res"):
            task = await finished_with(bench, w1, result(a="1"), downloads=[f"/out:{to}"])
            await bench.ended(task)
            kept = tmp_path / "results" / f"{task.assignment.id}-0"
            assert (kept / "a").read_text() == "1"
            assert str(kept) in (await story(bench, task.id))["downloaded"]
        assert (tmp_path / "file").read_text() == "mine"
        assert not list(tmp_path.glob("**/.cloudai-*"))


@pytest.mark.parametrize("place", ["harvest.closed", "download.came", "download.placed"])
async def test_a_controller_that_dies_around_a_download_leaves_it_to_the_next(
    a_bench, tmp_path, monkeypatch, place
):
    class Died(BaseException):
        pass

    def point(name: str) -> None:
        if name == place:
            raise Died

    w1 = worker()
    bench = a_bench(w1=w1)
    with monkeypatch.context() as patch:
        patch.setattr(carry_module, "point", point)
        patch.setattr(effects_module, "point", point)
        async with bench.running():
            task = await finished_with(bench, w1, result(a="1"), downloads=[f"/out:{tmp_path}/res"])
            await bench.reach(task, State.COMPLETED)
            await until(lambda: bench.controller._busy == {}, "it died there")
            assert w1.containers
    async with bench.running():
        await bench.ended(task)
        assert (tmp_path / "res" / "a").read_text() == "1"
        assert not list(tmp_path.glob("**/.cloudai-*"))
        await until(lambda: not list((tmp_path / "files" / "brought").iterdir()), "tidied")


def test_every_point_of_this_room_is_listed():
    for name in ("files.packed", "files.kept", "upload.begun", "upload.done"):
        assert name in crash.CRASH_POINTS
    for name in ("download.came", "download.placed", "forget.files"):
        assert name in crash.CRASH_POINTS


async def test_unregistering_takes_a_workers_files_away(a_bench, code):
    w1 = worker(done=DONE)
    async with a_bench(w1=w1).running() as bench:
        task = await bench.submit(docker_image="done", uploads=[str(code)])
        await bench.ended(task)
        assert w1.packs
        await bench.desk.unregister("w1")
        assert not w1.packs
