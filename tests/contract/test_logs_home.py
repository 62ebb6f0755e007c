"""Whole logs from a real engine into the archive: cut connections, rotation, truncated files."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from cloudai.archive import Archive
from cloudai.controller import collect
from cloudai.controller.collect import Collection
from cloudai.core.errors import CloudaiError
from cloudai.core.model import WorkerSpec
from cloudai.engines.docker import DockerEngine, command
from cloudai.shells import Shell
from tests.contract.relay import Relay
from tests.fleet_lab import Fleet, Worker
from tests.fleet_lab.fleet import reserved_root

from .shells import opened_shell

MARK = re.compile(rb"\n\[cloudai: gap: [^\n]*\]\n")
SOON = 60.0
numbers = itertools.count(1)


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with reserved_root() as root, Fleet(root, workers=1, gpus=()) as fleet:
        yield fleet.workers[0]


@pytest.fixture(autouse=True)
def clean(worker: Worker) -> Iterator[None]:
    yield
    worker.remove_containers()


class Bench:
    """One container's log on its way through a relay that can be cut."""

    def __init__(self, worker: Worker, relay: Relay, shell: Shell, folder: Path) -> None:
        self.worker, self.relay = worker, relay
        spec = WorkerSpec(id=worker.name, engine_socket=f"unix://{relay.path}")
        self.engine = DockerEngine(spec, shell)
        self.link = SimpleNamespace(engine=self.engine, id=worker.name)
        self.key = (f"task-1700000000-l{next(numbers)}", 1)
        self.archive = Archive(folder / "logs")
        self.collection = Collection(self.archive, self.key)
        self.following: asyncio.Task[None] | None = None

    def start(self, script: str, *options: str) -> None:
        made = self.worker.docker(
            *("run", "-d", "--network", "none", "--log-driver", "json-file", *options),
            *("--name", f"{self.key[0]}.1", "busybox", "sh", "-c", script),
        )
        assert made.returncode == 0, made.stderr
        self.container = made.stdout.strip()

    def follow(self) -> None:
        """Keeps following, as a reader's follower does."""

        async def follow() -> None:
            while True:
                with suppress(CloudaiError):
                    await self.collection.bring(self.link, self.container, follow=True)  # type: ignore[arg-type]
                await asyncio.sleep(0.05)

        self.following = asyncio.create_task(follow())
        self.collection.follower = self.following

    async def grown_to(self, size: int) -> None:
        async with asyncio.timeout(SOON):
            while self.archive.size(*self.key) < size:
                await asyncio.sleep(0.01)

    async def brought_to(self, size: int) -> None:
        """Brings what there is, without following."""
        async with asyncio.timeout(SOON):
            while self.archive.size(*self.key) < size:
                await self.collection.bring(self.link, self.container, follow=False)  # type: ignore[arg-type]

    async def ended(self) -> None:
        waiting = asyncio.to_thread(self.worker.docker, "wait", self.container)
        await asyncio.wait_for(waiting, SOON)

    async def finish(self) -> None:
        await self.ended()
        async with asyncio.timeout(SOON):
            await self.collection.finish(self.link, self.container)  # type: ignore[arg-type]

    def home(self, *, marks: bool = True) -> bytes:
        return b"".join(self.archive.read(*self.key, marks=marks))

    def log_file(self) -> Path:
        said = self.worker.docker("inspect", "--format", "{{.LogPath}}", self.container)
        return Path(said.stdout.strip())


@pytest.fixture
async def bench(worker: Worker, tmp_path: Path) -> AsyncIterator[Bench]:
    async with (
        opened_shell("local", worker, tmp_path) as shell,
        Relay(str(worker.socket), tmp_path / "relay") as relay,
    ):
        bench = Bench(worker, relay, shell, tmp_path)
        yield bench
        if bench.following is not None:
            bench.following.cancel()
            await asyncio.gather(bench.following, return_exceptions=True)
        await bench.engine.close()


LINE = "%08d of a flood of numbered lines that is long\\n"
FLOOD = f"""awk 'BEGIN {{ for (n = 0; n < 200000; n++) printf "{LINE}", n }}'"""


async def test_a_flood_through_twenty_cut_connections_comes_home_to_the_byte(bench: Bench) -> None:
    bench.start(FLOOD)
    bench.follow()
    for _ in range(20):
        size = bench.archive.size(*bench.key)
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                await bench.grown_to(size + 300_000)
        bench.relay.cut()
    await bench.finish()
    line = LINE.replace("\\n", "\n").encode()
    assert bench.home() == b"".join(line % n for n in range(200_000))
    assert bench.archive.complete(*bench.key)


async def test_long_lines_and_bytes_come_home_through_cuts(bench: Bench) -> None:
    bench.start(
        "for i in 1 2; do head -c 5000000 /dev/zero | tr '\\0' $i; echo; sleep 0.2; done;"
        " printf 'caf\\303\\251\\0\\033[0m'"
    )
    bench.follow()
    for _ in range(5):
        await asyncio.sleep(0.1)
        bench.relay.cut()
    await bench.finish()
    lines = b"1" * 5_000_000 + b"\n" + b"2" * 5_000_000 + b"\n"
    assert bench.home() == lines + "café".encode() + b"\0\x1b[0m"


async def test_rotation_under_flood_loses_nothing_that_is_kept_and_says_the_rest(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file is gone after two others. ``docker logs -f`` by itself repeats whole files here,
    and leaves others out as if it went on: of that it is said within which bytes it may be."""
    monkeypatch.setattr(command, "LOG_ROOM", 2 * 200_000 * 98 // 100)
    bench.start(
        "n=0; while [ $n -lt 60 ]; do seq $((n * 3000)) $((n * 3000 + 2999));"
        " n=$((n + 1)); sleep 0.05; done",
        *("--log-opt", "max-size=200k", "--log-opt", "max-file=3"),
    )
    bench.follow()
    await bench.finish()
    kept = bench.worker.docker("logs", bench.container).stdout.encode()
    assert bench.home(marks=False).endswith(kept)
    gaps = bench.archive.gaps(*bench.key)
    assert [mark.strip() for mark in MARK.findall(bench.home())] == [g.text.strip() for g in gaps]
    offset, next_one = 0, None
    for line in bench.home(marks=False).splitlines(keepends=True):
        number = int(line)
        if next_one not in (None, number):
            assert number > next_one, "doubled"
            said = any(gap.offset <= offset <= gap.offset + gap.length for gap in gaps)
            assert said, f"{next_one} to {number - 1} are missing at {offset}, and not said"
        offset, next_one = offset + len(line), number + 1
    assert next_one == 60 * 3000


async def test_what_dockers_follower_brings_again_at_a_rotation_comes_home_once(
    bench: Bench,
) -> None:
    """Where it lags behind, it begins a file anew, and leaves others out: Docker itself, not
    the way to it. All of it is kept, so all of it must be at home, without a gap."""
    bench.start(
        "n=0; while [ $n -lt 60 ]; do seq $((n * 1000)) $((n * 1000 + 999));"
        " n=$((n + 1)); sleep 0.03; done",
        *("--log-opt", "max-size=60k", "--log-opt", "max-file=100"),
    )
    bench.follow()
    await bench.finish()
    assert bench.home() == b"".join(b"%d\n" % n for n in range(60_000))


NUMBERS = "seq 1 1000; while ! [ -e /go ]; do sleep 0.05; done; seq 1001 2000"


def numbered(first: int, last: int) -> bytes:
    return b"".join(b"%d\n" % n for n in range(first, last + 1))


async def test_a_log_file_truncated_under_a_follower_loses_nothing_that_was_kept(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the engine's follower sees the cut, and then misses nothing, is a matter of its
    timing. Where it does not, all that is known is that something may be missing there."""
    monkeypatch.setattr(collect, "SILENCE", 0.3)
    monkeypatch.setattr(collect, "ON_ITS_WAY", 0.3)
    bench.start(NUMBERS)
    bench.follow()
    await bench.grown_to(3893)
    bench.log_file().write_bytes(b"")
    bench.worker.docker("exec", bench.container, "touch", "/go")
    await bench.finish()
    assert bench.home(marks=False) == numbered(1, 2000)
    assert MARK.split(bench.home()) in (
        [numbered(1, 2000)],
        [numbered(1, 1000), numbered(1001, 2000)],
    )


async def test_a_log_file_truncated_while_nobody_followed_is_a_gap_and_the_rest_comes(
    bench: Bench,
) -> None:
    bench.start(NUMBERS)
    await bench.brought_to(3893)
    bench.log_file().write_bytes(b"")
    bench.worker.docker("exec", bench.container, "touch", "/go")
    await bench.finish()
    assert MARK.split(bench.home()) == [numbered(1, 1000), numbered(1001, 2000)]
