"""Images of this machine on their way: asked of tasks, shared, refused, told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from cloudai.controller import effects as effects_module
from cloudai.controller.local_images import LocalImages
from cloudai.controller.shipping import OnTheWay, Pushed
from cloudai.core.errors import EngineFailed, Indeterminate, NotFound
from cloudai.core.model import State
from cloudai.engines import LocalImage
from cloudai.engines.docker.parts import Parts
from cloudai.engines.docker.shipping import (
    Cargo,
    There,
    arrived,
    read_there,
    refuse_other_platform,
)
from cloudai.engines.fake import FakeWorker, Fault
from tests.unit.stub_controller import Reply
from tests.unit.test_controller import SECONDS, Bench, until

A, B, C = (f"sha256:{letter * 64}" for letter in "abc")


def an_image(image_id: str = "sha256:" + "1" * 64, **fields: object) -> LocalImage:
    made = {
        "reference": "mine:1",
        "id": image_id,
        "named": True,
        "layers": (A, B, C),
        "sizes": (100, 20, 3),
        "size": 123,
        "platform": "linux/amd64",
        "created": "2026-01-31T12:00:00Z",
    }
    return LocalImage(**{**made, **fields})  # type: ignore[arg-type]


class Here:
    """This machine's engine, in memory."""

    def __init__(self) -> None:
        self.image = an_image()

    def find(self, reference: str, *, image_id: str | None = None) -> LocalImage:
        if reference != self.image.reference or image_id not in (None, self.image.id):
            raise NotFound(f"There is no image {reference} on this machine")
        return self.image

    def archive(self, image: LocalImage) -> Iterator[bytes]:
        yield b"half of an archive"


# ------------------------------------------------------------------ what a worker says


def answer(*lines: str, platform: str = "linux/amd64", store: str = "[]") -> Parts:
    text = [f"platform {platform}", "platform status 0", f"store {store}", "store status 0"]
    text += [*(f"image {line}" for line in lines), "image status 0"]
    return Parts("\n".join(text))


def sight(image_id: str, *layers: str, created: str = "2026-01-31T12:00:00Z") -> str:
    inside = ",".join(f'"{layer}"' for layer in layers)
    return f"{image_id} {created} [{inside}]"


def test_what_a_worker_has_is_read_from_all_of_its_images() -> None:
    image = an_image()
    found = read_there(answer(sight(A, A), sight(B, A, B)), image, worker_id="w1")
    assert found == There(
        platform="linux/amd64", containerd=False, same=None, named=False, shared=2
    )
    found = read_there(answer(sight(image.id, A, B, C)), image, worker_id="w1")
    assert (found.same, found.named) == (image.id, False)


def test_an_engine_with_containerds_store_gets_every_layer_and_knows_an_image_by_its_look() -> None:
    store = '[["driver-type","io.containerd.snapshotter.v1"]]'
    image = an_image()
    lines = [sight(A, A, B), sight(B, A, B, C, created="2025-01-01T00:00:00Z")]
    assert read_there(answer(*lines, store=store), image, worker_id="w1").shared == 0
    found = read_there(answer(*lines, sight(C, A, B, C), store=store), image, worker_id="w1")
    assert found.same == C
    # Elsewhere an id is the same everywhere: what only looks alike is another image.
    assert read_there(answer(sight(C, A, B, C)), image, worker_id="w1").same is None


def test_forged_and_torn_answers_are_no_images() -> None:
    lines = (
        "x",
        "sha256:1 now",
        "sha256:1 now [1,2]",
        f"sha256:1 now {'[' * 9999}",
        "sha256:1 n {",
    )
    found = read_there(answer(*lines), an_image(), worker_id="w1")
    assert (found.same, found.shared) == (None, 0)
    with pytest.raises(Indeterminate):
        read_there(Parts("platform linux/amd64\nplatform status 124"), an_image(), worker_id="w1")


def test_an_image_for_another_processor_is_refused() -> None:
    there = read_there(answer(platform="linux/arm64"), an_image(), worker_id="w1")
    with pytest.raises(EngineFailed, match="is for linux/amd64, and w1 is linux/arm64") as refused:
        refuse_other_platform(an_image(), there, worker_id="w1")
    assert "--platform linux/arm64" in refused.value.hint


def loaded(*lines: str) -> str:
    return arrived(Parts("\n".join(lines)), an_image(), worker_id="w1")


def test_an_image_has_arrived_when_it_is_there_whatever_the_engine_says() -> None:
    mine = f"there {sight(an_image().id, A, B, C)}"
    assert loaded("load status 0", mine, "there status 0") == an_image().id
    assert loaded("load status 1", "tag status 0", mine, "there status 0") == an_image().id
    missing = "there Error: No such image"
    with pytest.raises(EngineFailed, match="took it and does not have it"):
        loaded("load Loaded image", "load status 0", missing, "there status 1")
    with pytest.raises(EngineFailed, match="disk of its Docker is full"):
        loaded("load write /x: no space left on device", "load status 1", missing, "there status 1")
    with pytest.raises(EngineFailed, match="did not come whole"):
        loaded("load unexpected EOF", "load status 1", missing, "there status 1")
    with pytest.raises(EngineFailed, match="invalid tag"):
        loaded("load status 0", "tag invalid tag", "tag status 1", mine, "there status 0")


async def test_an_archive_that_breaks_off_here_is_sent_no_end() -> None:
    there = read_there(answer(), an_image(), worker_id="w1")
    cargo = Cargo(an_image(), Here(), there, tell=lambda shipment: None)
    with pytest.raises(EngineFailed, match="this machine's Docker broke off"):
        async for _ in cargo.stream():
            pass


# ------------------------------------------------------------------ tasks


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(effects_module, "LATE", 0.05)
    workers = {name: FakeWorker(cpus=8, name=name) for name in ("w1", "w2")}
    for worker in workers.values():
        worker.images = set()
    made = Bench(tmp_path, workers)
    made.images = here = Here()
    async with made.running() as running:
        assert running.controller.shipping._source is here
        yield running


async def test_a_task_runs_the_image_that_had_the_name_when_it_was_submitted(bench: Bench) -> None:
    task = await bench.submit(docker_image="mine:1", ship_image=True)
    assert task.spec.ship_image == an_image().id
    await bench.reach(task, State.RUNNING)
    store = bench.service.store
    story = await bench.service.in_thread(store.events, task.id)
    assert [e.what for e in story if e.what.startswith("ship")] == ["shipping", "shipped"]
    # The name means another image now, also on the worker; this one goes by its id.
    bench.images.image = an_image("sha256:" + "2" * 64)
    second = await bench.submit(docker_image="mine:1", ship_image=True, target=task.spec.target)
    assert second.spec.ship_image == "sha256:" + "2" * 64
    await bench.reach(second, State.RUNNING)


async def test_an_image_that_is_not_here_is_refused_before_anything_is_stored(bench: Bench) -> None:
    with pytest.raises(NotFound, match="There is no image nosuch on this machine"):
        await bench.submit(docker_image="nosuch", ship_image=True)
    assert (await bench.service.tasks())[1] == 0


async def test_tasks_that_need_the_same_image_share_its_shipping(bench: Bench) -> None:
    await until(lambda: "w1" in bench.engines, "w1 is known")
    gate = bench.engines["w1"].hold("ship")
    body = {"docker_image": "mine:1", "ship_image": True, "target": "w1"}
    tasks = [await bench.submit(**body) for _ in range(3)]
    await asyncio.wait_for(gate.reached.wait(), SECONDS)
    phases = bench.controller.effects.phases
    await until(lambda: len(phases) == 3, "all wait for it")
    assert sorted(phases.values())[0].startswith("shipping mine:1: 0 %")
    gate.open()
    for task in tasks:
        await bench.reach(task, State.RUNNING)
    ships = [deed for deed in bench.engines["w1"].history if deed.verb == "ship"]
    assert {deed.outcome for deed in ships} == {"ok"}
    assert not phases


async def test_a_worker_that_cannot_have_it_is_no_reason_not_to_ask_another(bench: Bench) -> None:
    bench.workers["w1"].registry[an_image().id] = "the image is for linux/arm64"
    task = await bench.reach(
        await bench.submit(docker_image="mine:1", ship_image=True), State.RUNNING
    )
    assert task.worker_id == "w2"
    bench.workers["w2"].registry[an_image().id] = "the image is for linux/arm64"
    bench.workers["w2"].images = set()
    failed = await bench.ended(await bench.submit(docker_image="mine:1", ship_image=True))
    assert (failed.state, failed.reason) == (State.FAILED, "the image is for linux/arm64")


async def test_an_image_that_was_removed_here_meanwhile_fails_the_task_in_words(
    bench: Bench,
) -> None:
    await until(lambda: "w1" in bench.engines, "w1 is known")
    gate = bench.engines["w1"].hold("start")
    task = await bench.submit(docker_image="mine:1", ship_image=True, target="w1")
    await asyncio.wait_for(gate.reached.wait(), SECONDS)
    bench.images.image = an_image("sha256:" + "2" * 64)
    gate.open()
    assert "There is no image mine:1" in (await bench.ended(task)).reason


async def test_a_broken_connection_ends_no_task_and_the_image_is_sent_again(bench: Bench) -> None:
    await until(lambda: "w1" in bench.engines, "w1 is known")
    bench.engines["w1"].plan("ship", Fault.LOST_BEFORE)
    task = await bench.submit(docker_image="mine:1", ship_image=True, target="w1")
    await bench.reach(task, State.RUNNING)


# ------------------------------------------------------------------ push


async def test_a_push_tells_of_each_worker_what_came_of_it(bench: Bench) -> None:
    bench.workers["w1"].images = {an_image().id}
    bench.workers["w2"].registry[an_image().id] = "its disk is full"
    shipping = bench.controller.shipping
    links = [bench.controller.link(name) for name in ("w1", "w2")]
    news = [one async for one in shipping.push(await shipping.find("mine:1"), links)]
    ended = {one.worker_id: one for one in news if isinstance(one, Pushed)}
    assert ended["w1"].shipment is not None
    assert ended["w1"].shipment.sent_layers == 0
    assert ended["w2"].error is not None
    assert ended["w2"].error.message == "its disk is full"
    assert {one.worker_id for one in news if isinstance(one, OnTheWay)} == {"w1", "w2"}


NEWS = (
    b'{"image": "mine:1", "image_id": "sha256:1", "workers": ["w1", "w2"]}\n'
    b'{"worker_id": "w1", "percent": 40, "layers": 3, "sent_layers": 1, "sent": 4, "bytes": 4,'
    b' "total": 10}\n{"worker_id": "w1", "outcome": "sent", "lay'
)
MORE = (
    b'ers": 3, "sent_layers": 1, "sent": 1048576, "seconds": 0.51, "error": null}\n'
    b'{"worker_id": "w2", "outcome": "failed", "layers": 0, "sent_layers": 0, "sent": 0,'
    b' "seconds": 0.0, "error": {"message": "no \\u001b[31mroom", "hint": "make some"}}\n'
)


def test_the_command_says_a_line_a_worker_and_fails_where_one_did(
    stub: object, cloudai: Callable[..., object]
) -> None:
    stub.on("POST /images/push", Reply(chunks=[NEWS, MORE]))  # type: ignore[attr-defined]
    done = cloudai("image", "push", "mine:1", "w1", "w2")
    assert done.code == 1  # type: ignore[attr-defined]
    assert done.out.splitlines() == [  # type: ignore[attr-defined]
        "✅ w1: sent 1 of 3 layers, 1 MiB in 0.5 s",
        "❌ w2: no [31mroom",
        "   make some",
    ]
    found = cloudai("image", "push", "mine:1", "--all", "--json").json  # type: ignore[attr-defined]
    assert [one["outcome"] for one in found["results"]] == ["sent", "failed"]
    assert stub.bodies("POST /images/push")[-1] == {  # type: ignore[attr-defined]
        "image": "mine:1",
        "workers": [],
        "all": True,
    }
    assert cloudai("image", "push", "mine:1", "w1", "-q").out == "w1\n"  # type: ignore[attr-defined]
    assert cloudai("image", "push", "mine:1").code == 2  # type: ignore[attr-defined]


def test_without_an_engine_here_it_is_said_how_to_have_one(tmp_path: Path) -> None:
    for path, word in ((tmp_path / "nothing", "answers"), (tmp_path, "answers")):
        with pytest.raises(EngineFailed, match=word) as failed:
            LocalImages(str(path)).find("alpine")
        assert "DOCKER_HOST" in failed.value.hint
