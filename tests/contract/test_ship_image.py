"""Images from one real engine to another: what goes over the wire, what is there afterwards, and
what a connection that breaks leaves behind."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import tarfile
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from pathlib import Path

import pytest

from cloudai.controller.local_images import LocalImages
from cloudai.core.errors import EngineFailed, NotFound
from cloudai.core.model import Resources, TaskSpec, WorkerSpec
from cloudai.engines import ImageMissing, LocalImage, Order, Running, Shipment
from cloudai.engines.docker import DockerEngine, shipping
from cloudai.shells import Reply, Shell
from tests.fleet_lab import Fleet, Worker
from tests.fleet_lab.fleet import reserved_root

from .shells import opened_shell

BIG = 3_000_000
BEGIN = len("manifest.json")


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[Worker, Worker]]:
    with reserved_root() as root, Fleet(root, workers=2, gpus=()) as fleet:
        yield fleet.workers[0], fleet.workers[1]


@pytest.fixture
def here(pair: tuple[Worker, Worker]) -> Iterator[Worker]:
    """Whose engine is this machine's own."""
    yield pair[0]
    forget_images(pair[0])


@pytest.fixture
def there(pair: tuple[Worker, Worker]) -> Iterator[Worker]:
    yield pair[1]
    pair[1].remove_containers()
    forget_images(pair[1])


class CutShell:
    """What is sent to the worker ends after so many pieces, as where the connection breaks."""

    def __init__(self, inner: Shell) -> None:
        self.inner = inner
        self.run, self.close = inner.run, inner.close
        self.stream, self.socket = inner.stream, inner.socket
        self.cut_at: int | bytes | None = None
        """So many pieces go, or those before the one that begins so."""

    async def feed(self, script: str, chunks: AsyncIterable[bytes], **how: float) -> Reply:
        async def some() -> AsyncIterator[bytes]:
            at = 0
            async for chunk in chunks:
                begin = gzip.decompress(chunk)[:BEGIN]
                if at == self.cut_at or (at and begin == self.cut_at):
                    return
                at += 1
                yield chunk

        return await self.inner.feed(script, some(), **how)


@pytest.fixture
async def shell(there: Worker, tmp_path: Path) -> AsyncIterator[CutShell]:
    async with opened_shell("ssh", there, tmp_path) as inner:
        yield CutShell(inner)


@pytest.fixture
async def engine(shell: CutShell) -> AsyncIterator[DockerEngine]:
    made = DockerEngine(WorkerSpec(id="there"), shell)  # type: ignore[arg-type]
    yield made
    await made.close()


@pytest.fixture
def source(here: Worker) -> LocalImages:
    return LocalImages(str(here.socket))


def forget_images(worker: Worker) -> None:
    kept = worker.docker("image", "ls", "-q", "busybox").stdout.split()
    every = set(worker.docker("image", "ls", "-aq").stdout.split()) - set(kept)
    if every:
        worker.docker("rmi", "-f", *every)


def add_layer(worker: Worker, base: str, name: str, script: str) -> None:
    for words in (
        ("run", "--network", "none", "--name", "made", base, "sh", "-c", script),
        ("commit", "-c", 'CMD ["cat", "/note"]', "made", name),
        ("rm", "made"),
    ):
        done = worker.docker(*words)
        assert done.returncode == 0, done.stderr


def build(worker: Worker, note: str) -> None:
    """``mine:1``: what all have, a layer of some size, and on top a small one that differs."""
    if worker.docker("image", "inspect", "middle").returncode:
        add_layer(worker, "busybox", "middle", f"head -c {BIG} /dev/urandom >/big")
    add_layer(worker, "middle", "mine:1", f"echo {note} >/note")


def quiet(shipment: Shipment) -> None:
    """Nobody listens."""


def layers_of(worker: Worker) -> list[str]:
    """What its engine keeps of layers, of images or not."""
    return sorted(map(str, (worker.root / "data/image/overlay2/layerdb").rglob("diff")))


def images(worker: Worker) -> set[str]:
    return set(worker.docker("image", "ls", "-aq", "--no-trunc").stdout.split())


def what_runs(image: LocalImage) -> Order:
    return Order(
        assignment_id=f"task-1-{image.id[7:15]}.1",
        task_id=f"task-1-{image.id[7:15]}",
        store_id="s",
        spec=TaskSpec(
            image=image.reference,
            ship_image=image.id,
            resources=Resources.of(cpus=0.1, memory=0.03125, storage=0.25),
        ),
        env={},
    )


async def test_only_the_layers_that_the_worker_lacks_are_sent(
    here: Worker, there: Worker, engine: DockerEngine, source: LocalImages
) -> None:
    build(here, "one")
    first = source.find("mine:1")
    assert isinstance(await engine.start(what_runs(first)), ImageMissing)
    heard: list[Shipment] = []
    done = await engine.ship(first, source, tell=heard.append)
    assert (done.layers, done.sent_layers) == (3, 2)
    assert BIG < done.sent < 1.1 * BIG
    assert heard[0].percent == 0
    assert heard[-1].percent == 99
    assert there.docker("image", "inspect", "-f", "{{.Id}}", "mine:1").stdout.strip() == first.id
    again = await engine.ship(first, source, tell=quiet)
    assert (again.sent_layers, again.sent) == (0, 0)

    build(here, "two")
    second = source.find("mine:1")
    done = await engine.ship(second, source, tell=quiet)
    assert done.sent_layers == 1
    assert done.sent < 20_000
    assert there.docker("image", "inspect", "-f", "{{.Id}}", "mine:1").stdout.strip() == second.id

    # Each task runs its own, whatever has the name now.
    for image, note in ((first, "one\n"), (second, "two\n")):
        outcome = await engine.start(what_runs(image))
        assert isinstance(outcome, Running)
        name = outcome.container.assignment_id
        there.docker("wait", name)
        assert there.docker("logs", name).stdout == note

    # One that is there under no name of ours is named, without a byte; an older one is not.
    there.docker("tag", "busybox", "mine:1")
    assert (await engine.ship(second, source, tell=quiet)).sent == 0
    assert there.docker("image", "inspect", "-f", "{{.Id}}", "mine:1").stdout.strip() == second.id
    older = source.find("mine:1", image_id=first.id)
    assert not older.named
    there.docker("rmi", "-f", first.id)
    await engine.ship(older, source, tell=quiet)
    assert there.docker("image", "inspect", "-f", "{{.Id}}", "mine:1").stdout.strip() == second.id
    assert first.id in images(there)
    with pytest.raises(NotFound, match="no longer on this machine"):
        source.find("mine:1", image_id=f"sha256:{'0' * 64}")


@pytest.mark.parametrize("shares_the_base", [True, False])
async def test_nothing_of_an_image_that_is_cut_stays_and_a_second_try_brings_it(
    here: Worker,
    there: Worker,
    shell: CutShell,
    engine: DockerEngine,
    source: LocalImages,
    shares_the_base: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where a file in the archive ends: an engine takes that for the archive's end, and
    those before 25 then make images of what they find."""
    build(here, "cut")
    image = source.find("mine:1")
    if not shares_the_base:
        there.docker("rmi", "-f", "busybox", "alpine")
    before, layers = images(there), layers_of(there)
    monkeypatch.setattr(shipping, "BATCH", 1)
    for place in (3, 9, 12, 20, b"manifest.json", b"repositories\0"):
        shell.cut_at = place
        if place == b"repositories\0":  # all that counts is there
            await engine.ship(image, source, tell=quiet)
            there.docker("rmi", image.id)
        else:
            with pytest.raises(EngineFailed, match="cannot send mine:1 to there"):
                await engine.ship(image, source, tell=quiet)
        assert images(there) == before
        assert layers_of(there) == layers
    assert not list((there.root / "data/tmp").iterdir())
    shell.cut_at = None
    done = await engine.ship(image, source, tell=quiet)
    assert done.sent_layers == (2 if shares_the_base else 3)
    assert image.id in images(there)
    if not shares_the_base:
        there.load_image()


async def test_an_archive_that_breaks_off_here_leaves_nothing_there(
    here: Worker, there: Worker, engine: DockerEngine
) -> None:
    class Breaks(LocalImages):
        def archive(self, image: LocalImage) -> Iterator[bytes]:
            yield from itertools.islice(super().archive(image), 2)

    source = Breaks(str(here.socket))
    build(here, "torn")
    before = images(there)
    with pytest.raises(EngineFailed, match="this machine's Docker broke off"):
        await engine.ship(source.find("mine:1"), source, tell=quiet)
    assert images(there) == before


async def test_an_image_for_another_processor_is_refused_before_a_byte_is_sent(
    here: Worker, there: Worker, engine: DockerEngine, source: LocalImages
) -> None:
    build(here, "arm")
    put_for_arm(here, b"".join(source.archive(source.find("mine:1"))))
    image = source.find("arm:1")
    with pytest.raises(EngineFailed, match="is for linux/arm64, and there is linux/"):
        await engine.ship(image, source, tell=quiet)
    assert "arm" not in there.docker("image", "ls").stdout


def put_for_arm(worker: Worker, archive: bytes) -> None:
    """The same image, said to be for another processor."""
    changed = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(archive)) as old,
        tarfile.open(fileobj=changed, mode="w") as new,
    ):
        for entry in old:
            content = old.extractfile(entry).read() if entry.isfile() else b""  # type: ignore[union-attr]
            if entry.name == "manifest.json":
                content = content.replace(b"mine:1", b"arm:1")
            elif entry.name.endswith(".json") or entry.size < 20_000:
                content = content.replace(b'"amd64"', b'"arm64"')
            entry.size = len(content)
            new.addfile(entry, io.BytesIO(content))
    with worker.engine() as client:
        client.images.load(changed.getvalue())
    assert json.loads(worker.docker("image", "inspect", "arm:1").stdout)[0]["Architecture"]
