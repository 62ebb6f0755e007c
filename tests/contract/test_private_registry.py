"""A pull from a real registry that asks who one is: the log-in goes in by stdin, into memory, and
nothing of it is there afterwards."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from cloudai.core.errors import EngineFailed
from cloudai.core.model import WorkerSpec
from cloudai.engines import RegistryLogin
from cloudai.engines.docker import DockerEngine
from tests.fleet_lab import Fleet, Worker
from tests.fleet_lab.fleet import reserved_root
from tests.ssh.sshd import until

from .shells import opened_shell

CONFIG = """\
version: 0.1
storage: {{filesystem: {{rootdirectory: {folder}/registry}}}}
auth: {{htpasswd: {{realm: test, path: {folder}/htpasswd}}}}
http: {{addr: "127.0.0.1:5000"}}
"""
PASSWORD = "pa:ss $(x) 'w"
HTPASSWD = (
    "ann:$2b$04$D0P6vdkfuoGNG6Ag7WGbLu2JOlehqZBkeuyuo/5nz/sCKtwIfHRrO\n"  # bcrypt of that password
)
ANN = RegistryLogin(registry="127.0.0.1:5000", username="ann", password=PASSWORD)
IMAGE = "127.0.0.1:5000/team/mine"  # docker says which tag it takes, before anything else
TELLS = """\
if [ "$1" = pull ]; then
  stat -c '%a %F' "$DOCKER_CONFIG" "$DOCKER_CONFIG/config.json" >{note}
  stat -f -c %T "$DOCKER_CONFIG" >>{note}
  tr '\\0' ' ' </proc/$PPID/cmdline >>{note}
  {then}
fi
exec /usr/bin/docker "$@"
"""


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """Its own registry listens inside its network, and has the image; it has not."""
    folder = tmp_path_factory.mktemp("registry")
    (folder / "htpasswd").write_text(HTPASSWD)
    (folder / "config.yml").write_text(CONFIG.format(folder=folder))
    with reserved_root() as root, Fleet(root, workers=1, gpus=()) as fleet:
        worker = fleet.workers[0]
        network = f"--net=/proc/{worker.keeper.pid}/ns/net"
        log = folder / "log"
        with log.open("wb") as out:
            words = ["nsenter", network, "docker-registry", "serve", str(folder / "config.yml")]
            registry = subprocess.Popen(words, stdout=out, stderr=out)
        try:
            until(lambda: b"listening on" in log.read_bytes(), "the registry listens", seconds=10)
            for words in (
                ["login", "-u", "ann", "-p", PASSWORD, "127.0.0.1:5000"],
                ["tag", "busybox", IMAGE],
                ["push", IMAGE],
                ["logout", "127.0.0.1:5000"],
                ["rmi", IMAGE],
            ):
                done = worker.docker(*words)
                assert done.returncode == 0, done.stderr
            yield worker
        finally:
            registry.kill()
            registry.wait()


@pytest.fixture
async def engine(worker: Worker, tmp_path: Path) -> AsyncIterator[DockerEngine]:
    async with opened_shell("ssh", worker, tmp_path) as shell:
        made = DockerEngine(WorkerSpec(id="w"), shell)
        yield made
        await made.close()
    worker.docker("rmi", IMAGE)
    (worker.root / "tools/docker").unlink(missing_ok=True)


def tell(worker: Worker, note: Path, then: str = "") -> None:
    tool = worker.root / "tools/docker"
    tool.write_text(f"#!/bin/sh\n{TELLS.format(note=note, then=then)}")
    tool.chmod(0o755)


def log_ins() -> list[Path]:
    return list(Path("/dev/shm").glob("cloudai-login-*"))


async def pull(engine: DockerEngine, login: RegistryLogin | None) -> None:
    async for _ in engine.pull(IMAGE, login=login):
        pass


async def test_a_pull_is_told_the_log_in_and_keeps_nothing_of_it(
    worker: Worker, engine: DockerEngine, tmp_path: Path
) -> None:
    with pytest.raises(EngineFailed) as refused:
        await pull(engine, None)
    assert "cloudai registry login" in refused.value.hint
    wrong = RegistryLogin(registry="127.0.0.1:5000", username="ann", password="guess")
    with pytest.raises(EngineFailed, match="the worker may not have it"):
        await pull(engine, wrong)
    # One that a power failure or kill -9 left is put away by the next.
    Path("/dev/shm/cloudai-login-999999999-old").mkdir(mode=0o700)
    tell(worker, note := tmp_path / "note")
    await pull(engine, ANN)
    assert worker.docker("image", "inspect", IMAGE).returncode == 0
    said = note.read_text().splitlines()
    assert said[:3] == ["700 directory", "600 regular file", "tmpfs"]
    assert "ann" not in said[3]
    assert log_ins() == []
    assert "ann" not in Path(worker.home / ".docker/config.json").read_text()


async def test_a_log_in_is_gone_when_its_pull_is_cut(
    worker: Worker, engine: DockerEngine, tmp_path: Path
) -> None:
    tell(worker, note := tmp_path / "note", then="exec sleep 60")
    pulling = asyncio.create_task(pull(engine, ANN))
    await asyncio.to_thread(until, lambda: note.exists() and len(log_ins()) == 1, "docker pulls")
    pulling.cancel()
    await asyncio.gather(pulling, return_exceptions=True)
    await asyncio.to_thread(until, lambda: not log_ins(), "it is gone", seconds=8)
