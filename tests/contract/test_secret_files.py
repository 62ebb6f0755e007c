"""Files of secrets on a real engine: whole, in memory alone, seen by nobody else, gone in time."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloudai.core.errors import EngineFailed
from cloudai.core.request import read_request
from cloudai.core.secrets import LARGEST
from cloudai.engines import CannotStart, ImageMissing, Order
from cloudai.engines.docker import DockerEngine, command
from tests.fleet_lab import Fleet, Worker
from tests.fleet_lab.fleet import reserved_root

from .shells import opened_shell
from .test_engine_start import There, names, order, output, running, said, spec_of

MEMORY = Path("/dev/shm")
TOKEN = b"s3cr3t-$(id)-'\"`\\n%s\n"
BINARY = bytes(range(256)) * 3 + b"-n\0"


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with reserved_root() as root, Fleet(root, workers=1, gpus=()) as fleet:
        yield fleet.workers[0]


@pytest.fixture
def folders(worker: Worker) -> Iterator[Any]:
    """Which containers have files here that were not there before."""
    before = set(MEMORY.glob("cloudai-*"))
    yield lambda: {path.name for path in set(MEMORY.glob("cloudai-*")) - before}
    worker.remove_containers()
    for path in set(MEMORY.glob("cloudai-*")) - before:
        shutil.rmtree(path)


@pytest.fixture(params=["local", "ssh"])
async def either(
    request: pytest.FixtureRequest, worker: Worker, tmp_path: Path
) -> AsyncIterator[DockerEngine]:
    async with opened_shell(request.param, worker, tmp_path) as shell:
        engine = DockerEngine(spec_of(worker), there(worker, shell))
        yield engine
        await engine.close()


@pytest.fixture
async def here(worker: Worker, tmp_path: Path) -> AsyncIterator[There]:
    async with opened_shell("local", worker, tmp_path) as shell:
        yield there(worker, shell)


@pytest.fixture
async def engine(worker: Worker, here: There) -> AsyncIterator[DockerEngine]:
    engine = DockerEngine(spec_of(worker), here)
    await engine.probe()
    yield engine
    await engine.close()


def there(worker: Worker, shell: Any) -> There:
    return There(shell, f"PATH={worker.search_path}; export PATH")


def with_secrets(files: dict[str, bytes], *argv: str, **changes: Any) -> Order:
    """An order as the controller makes it, with these files."""
    wanted = [f"S{index}={target}" for index, target in enumerate(files)]
    spec, _ = read_request({"docker_image": "busybox", "secrets": wanted}, default_user="ann")
    placed = order(*argv, secrets=spec.secrets, **changes)
    return dataclasses.replace(placed, secrets=files)


def folder_of(placed: Order) -> str:
    return f"cloudai-{os.getuid()}-{placed.assignment_id}"


@pytest.mark.parametrize("run_as", [None, "1000:1000"])
async def test_a_task_reads_its_secrets_and_nobody_else_does(
    either: DockerEngine, worker: Worker, folders: Any, run_as: str | None
) -> None:
    files = {"/run/secrets/TOKEN": TOKEN, '/etc/a, "b"/key': BINARY}
    shell = """cat /run/secrets/TOKEN; cat '/etc/a, "b"/key' | od -An -v -tx1 | tr -d ' \\n'
      echo; (echo x >/run/secrets/TOKEN) 2>&1; echo ready; sleep 600"""
    placed = with_secrets(files, argv=(), shell=shell, run_as=run_as)
    await running(either, placed)
    await said(worker, placed, "ready")
    log = worker.docker("logs", placed.assignment_id).stdout
    assert log.startswith(TOKEN.decode() + BINARY.hex() + "\n")
    assert "can't create" in log, "it may be read only"

    assert folders() == {folder_of(placed)}
    folder = MEMORY / folder_of(placed)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in folder.iterdir()) == ["1", "2", "engine"]
    told = worker.docker("inspect", placed.assignment_id).stdout
    assert "s3cr3t" not in told
    assert str(folder) in told
    on_disk = subprocess.run(
        ["grep", "-r", "-l", "-s", "-D", "skip", "s3cr3t", str(worker.root)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    # The log has it, since the task printed it; its own file system has an empty file.
    assert all(line.endswith("-json.log") for line in on_disk.stdout.split()), on_disk.stdout

    await either.stop(placed.assignment_id, grace=0)
    assert folders() == {folder_of(placed)}, "as long as there is a container"
    await either.remove(placed.assignment_id)
    assert folders() == set()


async def test_large_ones_arrive_whole_and_in_no_command_line(
    engine: DockerEngine, here: There, worker: Worker, folders: Any
) -> None:
    # A docker client that notes every command line and environment on the machine.
    watcher = worker.root / "watching"
    watcher.mkdir()
    (watcher / "docker").write_text(
        "#!/bin/sh\ncat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null |"
        f" tr '\\0' ' ' >>{watcher}/seen\nexec /usr/bin/docker \"$@\"\n"
    )
    (watcher / "docker").chmod(0o755)
    here.prelude = f"PATH={watcher}:$PATH; export PATH"
    large, token = os.urandom(LARGEST), b"s3cr3t-" + b"z" * 50
    files = {"/run/secrets/L": large, "/run/secrets/T": token}
    placed = with_secrets(files, argv=(), shell="sha256sum /run/secrets/L; wc -c </run/secrets/T")
    shown = await output(engine, worker, placed)
    assert shown.split() == [hashlib.sha256(large).hexdigest(), "/run/secrets/L", "57"]
    seen = (watcher / "seen").read_bytes()
    assert placed.assignment_id.encode() in seen
    assert b"s3cr3t" not in seen


async def test_a_start_that_fails_leaves_no_secret(engine: DockerEngine, folders: Any) -> None:
    files = {"/run/secrets/T": TOKEN}
    assert isinstance(await engine.start(with_secrets(files, image="nosuch:1")), ImageMissing)
    assert folders() == set()
    assert isinstance(await engine.start(with_secrets(files, run_as="carol")), CannotStart)
    assert folders() == set()


async def test_a_created_one_gets_its_files_anew(
    engine: DockerEngine, worker: Worker, folders: Any
) -> None:
    """As after a reboot of a worker, or a controller that died between create and start."""
    placed = with_secrets({"/run/secrets/T": TOKEN}, "cat", "/run/secrets/T")
    words = command.run_options(placed, storage_limit="watch", env=(), open_files=1024)
    mount = f"type=bind,src={MEMORY / folder_of(placed)}/1,dst=/run/secrets/T,readonly"
    (MEMORY / folder_of(placed)).mkdir(mode=0o700)
    (MEMORY / folder_of(placed) / "1").write_text("old")
    made = worker.docker("create", *words, "--mount", mount, "--", "busybox", *placed.spec.argv)
    assert made.returncode == 0, made.stderr
    shutil.rmtree(MEMORY / folder_of(placed))
    assert await output(engine, worker, placed) == TOKEN.decode()


async def test_what_was_left_behind_is_swept_and_nothing_else(
    engine: DockerEngine, worker: Worker, folders: Any
) -> None:
    lives, gone = (with_secrets({"/run/secrets/T": TOKEN}) for _ in range(2))
    for placed in (lives, gone):
        await running(engine, placed)
    stranger, starting = (MEMORY / f"cloudai-{os.getuid()}-task-1-{x}.1" for x in "ab")
    for folder, engine_id in ((stranger, "another"), (starting, "")):
        shutil.copytree(MEMORY / folder_of(gone), folder)
        if engine_id:
            (folder / "engine").write_text(engine_id)
    (starting / "starting").touch()
    worker.docker("rm", "-f", gone.assignment_id)
    await engine.probe()
    assert folders() == {folder_of(lives), stranger.name, starting.name}
    os.utime(starting / "starting", (0, 0))
    await running(engine, order())
    assert folders() == {folder_of(lives), stranger.name}


async def test_where_no_place_is_in_memory_it_is_refused(
    here: There, worker: Worker, folders: Any, tmp_path: Path
) -> None:
    engine = DockerEngine(spec_of(worker), here)
    await engine.probe()
    placed = with_secrets({"/run/secrets/T": TOKEN})
    taken = MEMORY / folder_of(placed)
    taken.symlink_to(tmp_path)
    try:
        outcome = await engine.start(placed)
    finally:
        taken.unlink()
    assert isinstance(outcome, CannotStart)
    assert "somebody else's folder is in the way" in outcome.reason
    # A worker whose /dev/shm is an ordinary folder: as it is with none.
    (tmp_path / "run").mkdir()
    here.prelude += f"; XDG_RUNTIME_DIR={tmp_path}/run; export XDG_RUNTIME_DIR\n" + (
        'awk() { case $* in *proc/mounts*) echo ext4 ;; *) command awk "$@" ;; esac; }'
    )
    outcome = await engine.start(placed)
    assert isinstance(outcome, CannotStart)
    assert "no memory-backed place" in outcome.reason
    assert (names(worker), list(tmp_path.rglob("*-task-*")), folders()) == ([], [], set())


async def test_a_full_place_is_the_workers_trouble(
    here: There, worker: Worker, folders: Any, tmp_path: Path
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "small", str(small)], check=True)
    try:
        engine = DockerEngine(spec_of(worker), here)
        await engine.probe()
        real = 'awk() { case $at in /dev/shm) echo ext4 ;; *) command awk "$@" ;; esac; }'
        here.prelude += f"; XDG_RUNTIME_DIR={small}; export XDG_RUNTIME_DIR\n{real}"
        with pytest.raises(EngineFailed, match="no room for files of secrets"):
            await engine.start(with_secrets({"/run/secrets/T": b"x" * 100_000}))
        assert list(small.iterdir()) == []
        fits = with_secrets({"/run/secrets/T": TOKEN}, "cat", "/run/secrets/T")
        # The engine has its own view of mounts, and not this one: that is told too.
        outcome = await engine.start(fits)
        assert isinstance(outcome, CannotStart), outcome
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)
