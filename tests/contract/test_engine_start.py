"""Starting on a real engine, by the real scripts: at most once, admitted, limited, undone."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import os
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from cloudai.core.errors import EngineFailed, Indeterminate
from cloudai.core.model import GIB, MIB, Phase, Resources, TaskSpec, WorkerSpec
from cloudai.engines import CannotStart, ImageMissing, NotAdmitted, Order, Running
from cloudai.engines.docker import DockerEngine, command, labels
from cloudai.engines.docker.api_watch import ApiWatch
from cloudai.engines.groups import master_port
from cloudai.shells import Reply, Shell, Terminal
from tests.fleet_lab import Fleet, Worker
from tests.fleet_lab.fleet import reserved_root

from .shells import opened_shell

SMALL = Resources.of(cpus=0.05, memory=0.03125, storage=0.25)
numbers = itertools.count(1)


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with reserved_root() as root, Fleet(root, workers=1, gpus=(1,)) as fleet:
        yield fleet.workers[0]


@pytest.fixture(autouse=True)
def clean(worker: Worker) -> Iterator[None]:
    yield
    worker.remove_containers()
    assert worker.gpus
    worker.gpus.reset()


class There:
    """A shell with text before each script: another machine's PATH, stubs, a cut reply."""

    def __init__(self, inner: Shell, prelude: str = "") -> None:
        self.inner, self.prelude = inner, prelude
        self.lose_next = False
        self.scripts: list[str] = []

    @property
    def address(self) -> str:
        return self.inner.address

    async def run(self, script: str, *, timeout: float) -> Reply:
        self.scripts.append(script)
        reply = await self.inner.run(f"{self.prelude}\n{script}", timeout=timeout)
        if self.lose_next:
            self.lose_next = False
            raise Indeterminate("the reply was cut")
        return reply

    def stream(
        self, script: str, *, idle_timeout: float | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        return self.inner.stream(f"{self.prelude}\n{script}", idle_timeout=idle_timeout)

    def terminal(
        self, command: str, *, tty: bool, columns: int = 80, rows: int = 24
    ) -> AbstractAsyncContextManager[Terminal]:
        return self.inner.terminal(command, tty=tty, columns=columns, rows=rows)

    def socket(self, remote_path: str) -> AbstractAsyncContextManager[str]:
        return self.inner.socket(remote_path)

    async def close(self) -> None:
        await self.inner.close()


@pytest.fixture(params=["local", "ssh"])
async def shell(
    request: pytest.FixtureRequest, worker: Worker, tmp_path: Path
) -> AsyncIterator[There]:
    async with opened_shell(request.param, worker, tmp_path) as inner:
        yield There(inner, f"PATH={worker.search_path}; export PATH")


@pytest.fixture
async def here(worker: Worker, tmp_path: Path) -> AsyncIterator[There]:
    async with opened_shell("local", worker, tmp_path) as inner:
        yield There(inner, f"PATH={worker.search_path}; export PATH")


def spec_of(worker: Worker, **changes: Any) -> WorkerSpec:
    return WorkerSpec(id=worker.name, engine_socket=worker.docker_host, **changes)


@pytest.fixture
async def engine(worker: Worker, here: There) -> AsyncIterator[DockerEngine]:
    engine = DockerEngine(spec_of(worker), here)
    yield engine
    await engine.close()


@pytest.fixture
async def either(worker: Worker, shell: There) -> AsyncIterator[DockerEngine]:
    """Here, and over SSH."""
    engine = DockerEngine(spec_of(worker), shell)
    yield engine
    await engine.close()


def order(*argv: str, env: dict[str, str] | None = None, **changes: Any) -> Order:
    task_id = f"task-1731629400-{next(numbers):06d}"
    spec = TaskSpec(image="busybox", argv=argv or ("sleep", "600"), resources=SMALL, user_id="ann")
    return Order(
        assignment_id=f"{task_id}.1",
        task_id=task_id,
        store_id="store-7",
        spec=dataclasses.replace(spec, **changes),
        env=env or {},
    )


def inspect(worker: Worker, name: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = json.loads(worker.docker("inspect", name).stdout)
    return found[0]


def names(worker: Worker) -> list[str]:
    return worker.docker("ps", "-a", "--format", "{{.Names}}").stdout.split()


@asynccontextmanager
async def followed(engine: DockerEngine) -> AsyncIterator[None]:
    """Somebody reads the engine's events, as a controller does."""

    async def read(happenings: AsyncIterator[Any]) -> None:
        async for _ in happenings:
            pass

    async with engine.happenings() as happenings:
        reading = asyncio.create_task(read(happenings))
        try:
            yield
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


async def running(engine: DockerEngine, placed: Order) -> Running:
    outcome = await engine.start(placed)
    assert isinstance(outcome, Running), outcome
    return outcome


async def said(worker: Worker, placed: Order, words: str) -> None:
    """Waits until its log has these: what the shell of a job did before then, it has done."""
    async with asyncio.timeout(30):
        while words not in worker.docker("logs", placed.assignment_id).stdout:
            await asyncio.sleep(0.05)


async def output(engine: DockerEngine, worker: Worker, placed: Order) -> str:
    """Starts it, waits until it ended, and what it printed."""
    await running(engine, placed)
    worker.docker("wait", placed.assignment_id)
    return worker.docker("logs", placed.assignment_id).stdout


# ------------------------------------------------------------------ read back from here


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Containers that were described through the socket, in order."""
    names: list[str] = []
    describe = ApiWatch.describe

    async def noted(watch: ApiWatch, name: str) -> Mapping[str, Any]:
        names.append(name)
        return await describe(watch, name)

    monkeypatch.setattr(ApiWatch, "describe", noted)
    return names


async def test_who_follows_the_events_has_its_limits_read_back_through_the_socket(
    either: DockerEngine, shell: There, asked: list[str]
) -> None:
    placed = order()
    async with followed(either):
        found = await running(either, placed)
    assert set(asked) == {placed.assignment_id}
    assert found.container.limits["memory"] == SMALL.memory
    assert found.container.phase is Phase.RUNNING
    assert "run status 0') find_it" not in shell.scripts[-1]


@pytest.mark.parametrize("follows", [True, False])
async def test_a_limit_that_is_seen_through_the_socket_not_to_hold_undoes_the_start(
    engine: DockerEngine, worker: Worker, monkeypatch: pytest.MonkeyPatch, follows: bool
) -> None:
    describe = ApiWatch.describe

    async def unlimited(watch: ApiWatch, name: str) -> Mapping[str, Any]:
        found = dict(await describe(watch, name))
        return {**found, "HostConfig": {**found["HostConfig"], "Memory": 0}}

    monkeypatch.setattr(ApiWatch, "describe", unlimited)
    await engine.observe()
    async with followed(engine) if follows else nullcontext():
        outcome = await engine.start(order())
    assert isinstance(outcome, CannotStart)
    assert "does not enforce memory limits" in outcome.reason
    assert names(worker) == []


@pytest.mark.parametrize("first", ["created", "gone", "lost"])
async def test_a_description_of_before_it_was_started_is_asked_for_again(
    engine: DockerEngine, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    describe, calls = ApiWatch.describe, itertools.count()

    async def early(watch: ApiWatch, name: str) -> Mapping[str, Any]:
        found = await describe(watch, name)
        if next(calls) > 0:
            return found
        if first == "lost":
            raise Indeterminate("Docker did not answer in time")
        return {} if first == "gone" else {**found, "State": {"Status": "created"}}

    monkeypatch.setattr(ApiWatch, "describe", early)
    async with followed(engine):
        assert (await running(engine, order())).container.phase is Phase.RUNNING
    assert next(calls) >= 2


# --- starting


async def test_it_runs_with_its_limits_and_labels(either: DockerEngine, worker: Worker) -> None:
    await either.probe()
    placed = order(name="train", resources=dataclasses.replace(SMALL, cpu_milli=250))
    before = time.monotonic()
    outcome = await running(either, placed)
    took = (time.monotonic() - before) * 1000
    print(f"start {took:.0f} ms")
    sight = outcome.container
    assert (sight.phase, sight.assignment_id) == (Phase.RUNNING, placed.assignment_id)
    assert (sight.held, sight.user_id, sight.task_name) == (placed.spec.resources, "ann", "train")
    assert sight.limits == {
        "cpu_milli": 250,
        "memory": SMALL.memory,
        "memory_swap": SMALL.memory,
        "pids": command.PIDS,
        "storage": 0,
    }
    assert outcome.warnings == ()
    document = inspect(worker, placed.assignment_id)
    host = document["HostConfig"]
    assert (host["Init"], host["ShmSize"], host["AutoRemove"]) == (True, 64 * MIB, False)
    assert host["LogConfig"] == {
        "Type": "json-file",
        "Config": {"max-size": "50m", "max-file": "10"},
    }
    assert host["RestartPolicy"]["Name"] == "no"
    assert document["Config"]["Labels"][labels.SPEC] == command.spec_hash(placed.spec)
    assert "NVIDIA_VISIBLE_DEVICES=void" in document["Config"]["Env"]


async def test_a_shell_task_is_the_shells_whatever_the_entrypoint(
    engine: DockerEngine, worker: Worker
) -> None:
    done = subprocess.run(
        ["docker", "-H", worker.docker_host, "commit", "-c", 'ENTRYPOINT ["/bin/false"]',
         worker.docker("create", "busybox").stdout.strip(), "stubborn:1"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    placed = order(image="stubborn:1", argv=(), shell="echo $((6*7)) '$x'; echo a\necho b")
    assert await output(engine, worker, placed) == "42 $x\na\nb\n"


async def test_started_twice_is_started_once(either: DockerEngine, worker: Worker) -> None:
    placed = order()
    first = await running(either, placed)
    second = await running(either, placed)
    assert first.container.id == second.container.id
    assert first.container.started_at == second.container.started_at
    assert len(names(worker)) == 1


async def test_a_lost_reply_is_found_again(
    engine: DockerEngine, here: There, worker: Worker
) -> None:
    placed = order("echo", "once")
    await engine.probe()
    here.lose_next = True
    with pytest.raises(Indeterminate):
        await engine.start(placed)
    worker.docker("wait", placed.assignment_id)
    outcome = await running(engine, placed)
    assert (outcome.container.phase, outcome.container.exit_code) == (Phase.EXITED, 0)
    assert worker.docker("logs", placed.assignment_id).stdout == "once\n"


async def test_an_ended_one_is_reported_even_when_there_is_no_room(
    engine: DockerEngine, worker: Worker
) -> None:
    placed = order("true")
    await running(engine, placed)
    worker.docker("wait", placed.assignment_id)
    greedy = dataclasses.replace(
        placed, spec=dataclasses.replace(placed.spec, resources=Resources.of(cpus=100, memory=1))
    )
    assert (await running(engine, greedy)).container.phase is Phase.EXITED


async def test_one_created_and_never_started_is_started(
    engine: DockerEngine, worker: Worker
) -> None:
    placed = order()
    await engine.probe()
    words = command.run_options(placed, storage_limit="watch", env=(), open_files=1024)
    made = worker.docker("create", *words, "--", "busybox", "sleep", "600")
    assert made.returncode == 0, made.stderr
    outcome = await running(engine, placed)
    assert (outcome.container.phase, outcome.container.id) == (Phase.RUNNING, made.stdout.strip())


# --- refusals


@pytest.mark.parametrize(
    ("resources", "what", "reason"),
    [
        (
            Resources.of(cpus=100, memory=0.1),
            "cpu",
            "Insufficient CPU: worker has {cpus} available, task requires 100.0",
        ),
        (Resources.of(cpus=0.1, memory=5000), "memory", "available, task requires 5000.0"),
        (
            Resources.of(cpus=0.1, memory=0.1, storage=10**6),
            "storage",
            "available, task requires 1000000.0",
        ),
        (
            Resources.of(cpus=0.1, memory=0.1, gpus=5),
            "gpu",
            "Insufficient GPU: worker has 4.0 available, task requires 5.0",
        ),
    ],
)
async def test_the_words_of_a_refusal(
    engine: DockerEngine, worker: Worker, resources: Resources, what: str, reason: str
) -> None:
    sight = await engine.probe()
    outcome = await engine.start(order(resources=resources))
    assert isinstance(outcome, NotAdmitted), outcome
    assert outcome.what == what
    assert outcome.reason.endswith(reason.format(cpus=f"{sight.cpus:.1f}"))
    assert outcome.available < outcome.required
    assert names(worker) == []


async def test_what_others_hold_is_not_there(engine: DockerEngine, worker: Worker) -> None:
    total = (await engine.probe()).cpus
    other = dataclasses.replace(order(), store_id="another-laptop")
    await running(engine, other)
    outcome = await engine.start(order(resources=Resources.of(cpus=total, memory=0.1)))
    assert isinstance(outcome, NotAdmitted)
    assert outcome.available == total - 0.05
    worker.docker("kill", other.assignment_id)
    worker.docker("wait", other.assignment_id)
    await running(engine, order(resources=Resources.of(cpus=total, memory=0.1)))


async def test_what_ops_keep_is_not_there(here: There, worker: Worker) -> None:
    total = (await DockerEngine(spec_of(worker), here).probe()).cpus
    keeping = DockerEngine(spec_of(worker, reserve=Resources.of(cpus=0.5)), here)
    outcome = await keeping.start(order(resources=Resources.of(cpus=total, memory=0.1)))
    assert isinstance(outcome, NotAdmitted)
    assert outcome.available == total - 0.5


async def test_an_image_that_is_not_there(engine: DockerEngine, worker: Worker) -> None:
    for image in ("nosuch:1", "--privileged", "registry.invalid/x@sha256:" + "0" * 64):
        outcome = await engine.start(order(image=image))
        if image == "--privileged":
            assert isinstance(outcome, CannotStart), outcome
            assert "not an image name" in outcome.reason
        else:
            assert outcome == ImageMissing()
    assert names(worker) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mounts": ("type=bind,src=/nosuch,dst=/x",)}, "/nosuch does not exist on the worker"),
        ({"mounts": ("nonsense",)}, "the mount cannot be meant"),
        ({"run_as": "carol"}, 'the image busybox has no user "carol"'),
        ({"workdir": "/bin/sh"}, "not a folder"),
        ({"workdir": "relative"}, "must be absolute"),
        ({"image": "UPPER"}, "UPPER is not an image name"),
        ({"resources": Resources.of(cpus=0.1, memory=0.001)}, "no container less than 6MB"),
        ({"resources": Resources.of(cpus=0.1, memory=0.1, gpus=1.5)}, "1.5 GPUs cannot be given"),
        ({"argv": ("x" * 200_000,)}, "too long"),
    ],
)
async def test_what_cannot_start_says_why_and_leaves_nothing(
    engine: DockerEngine, worker: Worker, changes: dict[str, Any], words: str
) -> None:
    outcome = await engine.start(order(**changes))
    assert isinstance(outcome, CannotStart), outcome
    assert words in outcome.reason
    assert names(worker) == []


async def test_a_command_that_is_none_ends_at_once(engine: DockerEngine, worker: Worker) -> None:
    # The container's init starts, and it is the init that finds no such command.
    placed = order("nosuch")
    await running(engine, placed)
    worker.docker("wait", placed.assignment_id)
    assert (await running(engine, placed)).container.exit_code == 127


async def test_a_start_that_failed_before_is_told_and_removed(
    engine: DockerEngine, worker: Worker
) -> None:
    placed = order("nosuch")
    words = command.run_options(placed, storage_limit="watch", env=(), open_files=1024)
    words.remove("--init")
    assert worker.docker("run", "-d", *words, "--", "busybox", "nosuch").returncode == 127
    outcome = await engine.start(placed)
    assert isinstance(outcome, CannotStart), outcome
    assert outcome.reason.startswith(
        'cannot start: "nosuch" is not a command in the image busybox (Docker: '
    )
    assert outcome.exit_code == 127
    assert names(worker) == []


async def test_a_name_taken_by_a_stranger(engine: DockerEngine, worker: Worker) -> None:
    placed = order()
    assert worker.docker("create", "--name", placed.assignment_id, "busybox").returncode == 0
    forged = dataclasses.replace(order(), store_id="mine")
    marks = [f"{labels.ASSIGNMENT}={forged.assignment_id}", f"{labels.STORE}=other"]
    flags = [
        word for mark in [*marks, f"{labels.TASK}={forged.task_id}"] for word in ("--label", mark)
    ]
    assert (
        worker.docker("create", "--name", forged.assignment_id, *flags, "busybox").returncode == 0
    )
    for taken in (placed, forged):
        outcome = await engine.start(taken)
        assert isinstance(outcome, CannotStart), outcome
        assert (
            f"the name {taken.assignment_id} is taken by a container that is not" in outcome.reason
        )
        assert outcome.reason.endswith("nothing was touched")
    with pytest.raises(EngineFailed, match="not cloudai's"):
        await engine.stop(placed.assignment_id, grace=0)
    with pytest.raises(EngineFailed, match="not cloudai's"):
        await engine.remove(placed.assignment_id)
    assert inspect(worker, placed.assignment_id)["State"]["Status"] == "created"


async def test_an_engine_that_is_down(engine: DockerEngine, worker: Worker) -> None:
    await engine.probe()
    worker.kill("dockerd")
    try:
        with pytest.raises(EngineFailed, match=f"Docker does not answer on {worker.name}: Cannot"):
            await engine.probe()
        with pytest.raises(EngineFailed, match="Docker does not answer"):
            await engine.start(order())
        with pytest.raises(EngineFailed, match="Docker does not answer"):
            await engine.stop("task-1.1", grace=0)
        docker = next(one for one in await engine.doctor() if one.check == "docker")
        assert not docker.ok
        assert "systemctl" in docker.mend
    finally:
        worker.start("dockerd")


# --- environment

NASTY = {
    "QUOTES": """it's "quoted" $(touch /tmp/never) `id` \\ $HOME""",
    "LINES": "one\ntwo\n\nthree",
    "LONG": "x" * 100_000,
    "EMPTY": "",
    "SPACES": "  both ends  ",
    "HASH": "# no comment",
    "UNICODE": "grüße \u202e 🎉",
    "DOCKER_HOST": "tcp://evil:2375",
    "DOCKER_CONFIG": "/nowhere",
    "PATH": "/nowhere:/bin",
    "HOME": "/nowhere",
    "LD_PRELOAD": "/nowhere.so",
    "http_proxy": "http://evil:1",
    "IFS": "abc",
    "PS4": "$(touch /tmp/never)",
    "ENV": "/nowhere",
    "PPID": "1",
    "UID": "0",
    "_": "x",
    "part_name": "a\nb",
    "run": "a\nb",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://evil",
    "GODEBUG": "x",
}


@pytest.mark.parametrize("sh", ["dash", "bash --posix", "busybox sh"])
async def test_every_value_arrives_as_it_is(
    engine: DockerEngine, here: There, worker: Worker, sh: str
) -> None:
    await engine.probe()
    here.prelude = f"PATH={worker.search_path}; export PATH"
    placed = order("env", "-0", env=NASTY)
    script = await engine._start_script(placed, read_back=True)
    done = subprocess.run(
        [*sh.split(), "-s"], input=script, capture_output=True, text=True, timeout=60
    )
    assert "verdict ran" in done.stdout, done
    env = dict(
        pair.split("=", 1) for pair in inspect(worker, placed.assignment_id)["Config"]["Env"]
    )
    assert {name: env.get(name) for name in NASTY} == NASTY
    assert not Path("/tmp/never").exists()


async def test_no_value_is_in_any_command_line(
    engine: DockerEngine, here: There, worker: Worker
) -> None:
    secret = "s3cr3t-" + "z" * 20
    await engine.probe()
    # A docker client that notes every command line on the machine while it runs.
    watcher = worker.root / "watcher"
    watcher.mkdir(exist_ok=True)
    program = watcher / "docker"
    program.write_text(
        f"#!/bin/sh\ncat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' >>{watcher}/seen\n"
        'exec /usr/bin/docker "$@"\n'
    )
    program.chmod(0o755)
    here.prelude = f"PATH={watcher}:$PATH; export PATH"
    placed = order("env", env={"A": secret, "B": f"{secret}\nsecond line", "DOCKER_X": secret})
    shown = await output(engine, worker, placed)
    assert shown.count(secret) == 3
    seen = (watcher / "seen").read_text(errors="replace")
    assert f"--name {placed.assignment_id}" in seen
    assert secret not in seen


@pytest.mark.parametrize(
    "env",
    [{"PATH": "a\nb"}, {"A-B": "x"}, {"NVIDIA_VISIBLE_DEVICES": "all"}, {"A": "x" * 200_000}],
)
async def test_a_value_that_cannot_be_given(
    engine: DockerEngine, worker: Worker, env: dict[str, str]
) -> None:
    outcome = await engine.start(order(env=env))
    assert isinstance(outcome, CannotStart), outcome
    assert next(iter(env)) in outcome.reason
    assert names(worker) == []


# --- stop, remove


async def test_stop_and_remove(either: DockerEngine, worker: Worker) -> None:
    script = "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.1; done"
    placed = order(argv=(), shell=script)
    name = placed.assignment_id
    await running(either, placed)
    await said(worker, placed, "ready")
    with pytest.raises(EngineFailed, match="running"):
        await either.remove(name)
    await either.stop(name, grace=10)
    sight = await either.look(name)
    assert sight is not None
    assert (sight.phase, sight.exit_code) == (Phase.EXITED, 7)
    await either.stop(name, grace=10)
    await either.close()
    await either.remove(name)
    assert name not in names(worker)
    await either.remove(name)
    await either.stop(name, grace=10)


async def test_one_that_ignores_term_is_killed_after_its_grace(
    engine: DockerEngine, worker: Worker
) -> None:
    placed = order(argv=(), shell="trap '' TERM; echo ready; while :; do sleep 0.1; done")
    await running(engine, placed)
    await said(worker, placed, "ready")
    before = time.monotonic()
    await engine.stop(placed.assignment_id, grace=1)
    assert 0.9 < time.monotonic() - before < 8
    assert inspect(worker, placed.assignment_id)["State"]["ExitCode"] == 137


async def test_a_paused_one_is_stopped_too(engine: DockerEngine, worker: Worker) -> None:
    placed = order()
    await running(engine, placed)
    assert worker.docker("pause", placed.assignment_id).returncode == 0
    await engine.stop(placed.assignment_id, grace=5)
    assert inspect(worker, placed.assignment_id)["State"]["Status"] == "exited"


async def test_one_created_is_removed(engine: DockerEngine, worker: Worker) -> None:
    placed = order()
    words = command.run_options(placed, storage_limit="watch", env=(), open_files=1024)
    assert worker.docker("create", *words, "--", "busybox").returncode == 0
    await engine.remove(placed.assignment_id)
    assert names(worker) == []


async def test_what_left_nothing_else_is_removed_without_a_script(
    either: DockerEngine, shell: There, worker: Worker
) -> None:
    async def remove(name: str) -> None:
        await either.remove(name, noted=False, secrets=False)

    placed, created = order("true"), order()
    await either.observe()
    name = placed.assignment_id
    await running(either, placed)
    sleeping = order()
    await running(either, sleeping)
    words = command.run_options(created, storage_limit="watch", env=(), open_files=1024)
    assert worker.docker("create", *words, "--", "busybox").returncode == 0
    assert worker.docker("run", "-d", "--name", "task-1-else.1", "busybox", "true").returncode == 0
    worker.docker("wait", name)
    sent = len(shell.scripts)
    with pytest.raises(EngineFailed, match="is running on worker-1: not removed"):
        await remove(sleeping.assignment_id)
    with pytest.raises(EngineFailed, match="is not cloudai's, nothing was touched"):
        await remove("task-1-else.1")
    for gone in (name, name, created.assignment_id, "task-1-never.1"):
        await remove(gone)
    assert sorted(names(worker)) == sorted([sleeping.assignment_id, "task-1-else.1"])
    assert len(shell.scripts) == sent


async def test_one_whose_name_another_took_is_not_removed_for_it(
    engine: DockerEngine, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    placed = order("true")
    name = placed.assignment_id
    await engine.observe()
    await running(engine, placed)
    worker.docker("wait", name)
    describe = ApiWatch.describe

    async def then_taken(watch: ApiWatch, wanted: str) -> Mapping[str, Any]:
        found = await describe(watch, wanted)
        worker.docker("rm", name)
        worker.docker("run", "-d", "--name", name, "busybox", "true")
        return found

    monkeypatch.setattr(ApiWatch, "describe", then_taken)
    await engine.remove(name, noted=False, secrets=False)
    assert names(worker) == [name]


# --- GPUs


def gpu_order(gpus: float) -> Order:
    return order("env", resources=dataclasses.replace(SMALL, gpu_milli=round(gpus * 1000)))


async def test_gpus_are_chosen_by_uuid_around_outsiders(
    engine: DockerEngine, worker: Worker
) -> None:
    assert worker.gpus
    uuids = worker.gpus.uuids()
    worker.gpus.occupy(1, pid=2147483001)
    sleeper = dataclasses.replace(gpu_order(2).spec, argv=("sleep", "600"))
    first = dataclasses.replace(gpu_order(2), spec=sleeper)
    assert (await running(engine, first)).container.gpus == (uuids[0], uuids[2])
    env = inspect(worker, first.assignment_id)["HostConfig"]["DeviceRequests"]
    assert env[0]["DeviceIDs"] == [uuids[0], uuids[2]]
    refused = await engine.start(gpu_order(2))
    assert isinstance(refused, NotAdmitted)
    assert refused.reason == "Insufficient GPU: worker has 1.0 available, task requires 2.0"
    shown = await output(engine, worker, gpu_order(1))
    assert f"NVIDIA_VISIBLE_DEVICES={uuids[3]}\n" in shown


async def test_shares_meet_on_one_device(engine: DockerEngine, worker: Worker) -> None:
    assert worker.gpus
    uuids = worker.gpus.uuids()
    chosen = []
    for share in (0.5, 0.25, 0.5, 0.25):
        placed = gpu_order(share)
        spec = dataclasses.replace(placed.spec, argv=("sleep", "600"))
        outcome = await running(engine, dataclasses.replace(placed, spec=spec))
        chosen.append(outcome.container.gpus[0])
    assert chosen == [uuids[0], uuids[0], uuids[1], uuids[0]]


async def test_mig_instances_are_given(engine: DockerEngine, worker: Worker) -> None:
    assert worker.gpus
    worker.gpus.scene = "mig"
    uuids = worker.gpus.uuids()
    assert uuids[0].startswith("MIG-")
    shown = await output(engine, worker, gpu_order(1))
    # The first of the smallest: larger ones are kept for who asks for them.
    assert f"NVIDIA_VISIBLE_DEVICES={uuids[2]}\n" in shown
    sight = await engine.probe()
    assert [gpu.uuid for gpu in sight.gpus] == uuids


async def test_a_driver_in_trouble_gives_no_gpu_and_says_so(
    engine: DockerEngine, worker: Worker
) -> None:
    assert worker.gpus
    worker.gpus.scene = "mismatch"
    refused = await engine.start(gpu_order(1))
    assert isinstance(refused, NotAdmitted)
    assert refused.reason.startswith(
        "Insufficient GPU: worker has 0.0 available, task requires 1.0 (nvidia-smi failed"
    )
    assert "version mismatch" in (await engine.probe()).gpu_trouble
    await running(engine, order())


async def test_max_gpus(here: There, worker: Worker) -> None:
    engine = DockerEngine(spec_of(worker, max_gpus=1), here)
    refused = await engine.start(gpu_order(2))
    assert isinstance(refused, NotAdmitted)
    assert refused.available == 1.0


def asking(gpus: float, **wishes: Any) -> Order:
    """A sleeper that asks for GPUs of some kind."""
    placed = gpu_order(gpus)
    spec = dataclasses.replace(placed.spec, argv=("sleep", "600"), **wishes)
    return dataclasses.replace(placed, spec=spec)


async def test_only_gpus_of_the_wished_model_are_given(
    engine: DockerEngine, worker: Worker
) -> None:
    assert worker.gpus
    worker.gpus.scene = "mig"
    slices, whole = worker.gpus.uuids()[:4], worker.gpus.uuids()[4]
    first = await running(engine, asking(1, gpu_model="1g-10gb"))
    assert first.container.gpus == (slices[2],)
    second = await running(engine, asking(1, gpu_model="A100 SXM4", gpu_memory=40 * GIB))
    assert second.container.gpus == (whole,)
    refused = await engine.start(asking(2, gpu_model="MIG 1g", gpu_memory=8 * GIB))
    assert isinstance(refused, NotAdmitted)
    assert refused.reason == (
        "Insufficient GPU: worker has 1.0 available, task requires 2.0 (MIG 1g, 8.0 GB)"
    )
    refused = await engine.start(asking(0.5, gpu_model="h100"))
    assert isinstance(refused, NotAdmitted)
    assert refused.reason.endswith("worker has 0.0 available, task requires 0.5 (h100)")
    assert {gpu.clock for gpu in (await engine.probe()).gpus} == {1410}


async def test_declared_memory_is_a_label_that_shares_obey(
    engine: DockerEngine, worker: Worker
) -> None:
    assert worker.gpus
    uuids = worker.gpus.uuids()
    first = await running(engine, asking(0.25, gpu_memory=50 * GIB))
    assert (first.container.gpus, first.container.gpu_memory) == ((uuids[0],), 50 * GIB)
    found = inspect(worker, first.container.assignment_id)["Config"]["Labels"]
    assert found[labels.GPU_MEMORY] == str(50 * GIB)
    assert [one.gpu_memory for one in (await engine.probe()).containers] == [50 * GIB]
    assert (await running(engine, asking(0.25, gpu_memory=40 * GIB))).container.gpus == (uuids[1],)
    silent = await running(engine, asking(0.25))
    assert (silent.container.gpus, silent.container.gpu_memory) == ((uuids[0],), None)
    assert (await running(engine, asking(0.25, gpu_memory=15 * GIB))).container.gpus == (uuids[1],)


async def test_what_is_left_to_people(here: There, worker: Worker) -> None:
    assert worker.gpus
    uuids = worker.gpus.uuids()
    engine = DockerEngine(spec_of(worker, min_free_gpus=2, tasks_per_gpu=1), here)
    refused = await engine.start(asking(3))
    assert isinstance(refused, NotAdmitted)
    assert refused.available == 2.0
    for uuid in uuids[:2]:
        assert (await running(engine, asking(0.25))).container.gpus == (uuid,)
    assert isinstance(await engine.start(asking(0.25)), NotAdmitted)


# --- placement groups


async def test_a_member_of_a_group(engine: DockerEngine, worker: Worker) -> None:
    member = {"group": "group-1", "group_size": 2, "group_rank": 1}
    placed = order("env", env={"MASTER_PORT": "7777", "NCCL_DEBUG": "INFO"}, **member)
    placed = dataclasses.replace(placed, peers=("10.0.0.1", "10.0.0.2"))
    shown = (await output(engine, worker, placed)).splitlines()
    port = master_port("group-1")
    assert {
        "CLOUDAI_GROUP=group-1",
        "CLOUDAI_RANK=1",
        "CLOUDAI_WORLD_SIZE=2",
        "CLOUDAI_MASTER_ADDR=10.0.0.1",
        f"CLOUDAI_MASTER_PORT={port}",
        "CLOUDAI_PEERS=10.0.0.1,10.0.0.2",
        "RANK=1",
        "LOCAL_RANK=0",
        "WORLD_SIZE=2",
        "MASTER_ADDR=10.0.0.1",
        "MASTER_PORT=7777",
        "PET_NNODES=2",
        "PET_NODE_RANK=1",
        "PET_MASTER_ADDR=10.0.0.1",
        f"PET_MASTER_PORT={port}",
        "NCCL_DEBUG=INFO",
    } <= set(shown)
    assert inspect(worker, placed.assignment_id)["HostConfig"]["NetworkMode"] == "host"
    assert " --network host " in engine.preview(placed)


async def test_who_is_alone_has_a_network_of_its_own(engine: DockerEngine, worker: Worker) -> None:
    placed = order("env", group="group-1", group_size=1)
    assert "CLOUDAI_" not in await output(engine, worker, placed)
    assert inspect(worker, placed.assignment_id)["HostConfig"]["NetworkMode"] != "host"


async def test_where_others_find_the_worker(shell: There, worker: Worker) -> None:
    engine = DockerEngine(spec_of(worker), shell)
    await engine.probe()
    assert engine.address in ("127.0.0.1", worker.host)
    assert engine.address == shell.address


# --- many at once


async def test_eight_at_once_never_exceed_what_there_is(worker: Worker, here: There) -> None:
    engines = [DockerEngine(spec_of(worker), here) for _ in range(8)]
    await asyncio.gather(*(engine.probe() for engine in engines))
    size = Resources(cpu_milli=10, memory=32 * MIB, storage=MIB, gpu_milli=1000)
    orders = [order(resources=size) for _ in engines]
    outcomes = await asyncio.gather(
        *(engine.start(placed) for engine, placed in zip(engines, orders, strict=True))
    )
    ran = [outcome for outcome in outcomes if isinstance(outcome, Running)]
    refused = [outcome for outcome in outcomes if isinstance(outcome, NotAdmitted)]
    assert (len(ran), len(refused)) == (4, 4), outcomes
    given = [uuid for outcome in ran for uuid in outcome.container.gpus]
    assert worker.gpus
    assert sorted(given) == sorted(worker.gpus.uuids())


async def test_one_order_eight_times_at_once_is_one_container(worker: Worker, here: There) -> None:
    engines = [DockerEngine(spec_of(worker), here) for _ in range(8)]
    await asyncio.gather(*(engine.probe() for engine in engines))
    placed = order()
    outcomes = await asyncio.gather(*(engine.start(placed) for engine in engines))
    ids = {outcome.container.id for outcome in outcomes if isinstance(outcome, Running)}
    assert (len(ids), len(names(worker))) == (1, 1), outcomes


async def test_a_lock_that_is_held_is_waited_for(engine: DockerEngine, worker: Worker) -> None:
    await engine.probe()
    holder = subprocess.Popen(
        ["flock", str(worker.root), "sh", "-c", "echo held; sleep 3"], stdout=subprocess.PIPE
    )
    assert holder.stdout
    assert holder.stdout.readline() == b"held\n"
    before = time.monotonic()
    await running(engine, order())
    assert time.monotonic() - before > 2.5
    holder.wait()
    holder.stdout.close()


# --- the host


async def test_the_probe(either: DockerEngine, worker: Worker) -> None:
    placed = order()
    await running(either, placed)
    sight = await either.probe()
    assert [one.assignment_id for one in sight.containers] == [placed.assignment_id]
    assert sight.engine.endpoint == worker.docker_host
    assert sight.engine.id == worker.docker("info", "--format", "{{.ID}}").stdout.strip()
    assert sight.memory > sight.memory_available > 0
    assert sight.disk > sight.disk_free > GIB
    assert [gpu.index for gpu in sight.gpus] == [0, 1, 2, 3]
    assert (sight.login, sight.engine.storage_limit) == ("root", "watch")
    assert "busybox:latest" in sight.images


async def test_the_engine_of_the_login_is_found(worker: Worker, tmp_path: Path) -> None:
    async with opened_shell("ssh", worker, tmp_path) as shell:
        engine = DockerEngine(WorkerSpec(id=worker.name), shell)
        assert (await engine.probe()).engine.endpoint == worker.docker_host
        await running(engine, order())


async def test_the_doctor(either: DockerEngine, worker: Worker) -> None:
    findings = {one.check: one for one in await either.doctor()}
    assert findings["docker"].ok
    assert findings["lock"].ok
    assert str(worker.root) in findings["lock"].found
    assert findings["clock"].ok


async def test_a_noisy_login_is_found(worker: Worker, tmp_path: Path) -> None:
    (worker.home / ".bashrc").write_text("echo Welcome to the machine\n")
    try:
        async with opened_shell("ssh", worker, tmp_path) as shell:
            engine = DockerEngine(spec_of(worker), shell)
            findings = {one.check: one for one in await engine.doctor()}
            assert "Welcome to the machine" in findings["login"].found
            await running(engine, order())
    finally:
        (worker.home / ".bashrc").unlink()


# --- pulling


async def test_a_pull_that_cannot_be(engine: DockerEngine) -> None:
    with pytest.raises(EngineFailed, match=r"cannot pull registry.invalid/x:1: the worker cannot"):
        async for _ in engine.pull("registry.invalid/x:1"):
            pass
    with pytest.raises(EngineFailed, match="that is not an image name"):
        async for _ in engine.pull("--all-tags"):
            pass


STUCK = """
docker() {
  case $1 in pull) echo '0123456789ab: Pulling fs layer'; %s ;; *) command docker "$@" ;; esac
}
"""


async def test_a_pull_that_stands_still_is_given_up(
    engine: DockerEngine, here: There, worker: Worker
) -> None:
    await engine.probe()
    here.prelude = STUCK % "sleep 60"
    told: list[str] = []

    async def pull() -> None:
        async for progress in engine.pull("busybox", stall=3):
            told.append(progress.text)

    with pytest.raises(EngineFailed, match="made no progress for 3 s"):
        await pull()
    assert told == ["pulling busybox: 0 of 1 layers"]


async def test_a_pull_says_how_far_it_is(engine: DockerEngine, here: There) -> None:
    await engine.probe()
    here.prelude = STUCK % "echo '0123456789ab: Pull complete'; echo 'Status: done'"
    told = [progress.text async for progress in engine.pull("busybox")]
    assert told == ["pulling busybox: 0 of 1 layers", "pulling busybox: 1 of 1 layers"]


# --- the time limit, held by the worker alone


def watchers(name: str) -> list[str]:
    """Command lines on this machine that watch the limit of that assignment, one a session."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            argv = process.joinpath("cmdline").read_bytes().split(b"\0")
            if b"cloudai-limit" in argv and name.encode() in argv:
                found[os.getsid(int(process.name))] = b" ".join(argv).decode()
    return list(found.values())


async def until(condition: Callable[[], bool], *, within: float = 20) -> None:
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("kind", ["local", "ssh"])
async def test_a_time_limit_holds_with_nobody_connected(
    kind: str, worker: Worker, tmp_path: Path
) -> None:
    placed = order(
        time_limit=2, grace=1, env=("SECRET",), shell="trap '' TERM; sleep 600 & wait; wait"
    )
    placed = dataclasses.replace(placed, env={"SECRET": "hunter2"})
    async with opened_shell(kind, worker, tmp_path) as shell:
        engine = DockerEngine(
            spec_of(worker), There(shell, f"PATH={worker.search_path}; export PATH")
        )
        await running(engine, placed)
        await engine.close()
    # It begins as setsid and becomes the shell.
    name = f"sh -s -- cloudai-limit {placed.assignment_id} 2 1 "
    await until(
        lambda: [line.startswith(name) for line in watchers(placed.assignment_id)] == [True]
    )
    state = {}

    def ended() -> bool:
        state.update(inspect(worker, placed.assignment_id)["State"])
        return not state["Running"]

    await until(ended)
    assert state["ExitCode"] in (137, 143)
    began, over = (
        datetime.fromisoformat(state[key][:26] + "+00:00") for key in ("StartedAt", "FinishedAt")
    )
    assert 2 <= (over - began).total_seconds() <= 12
    await until(lambda: not watchers(placed.assignment_id), within=10)


@pytest.mark.parametrize("end", ["kill", "rm", "by itself"])
async def test_who_watches_a_limit_is_gone_with_the_container(
    end: str, engine: DockerEngine, worker: Worker
) -> None:
    placed = order("sleep", "3" if end == "by itself" else "600", time_limit=600)
    await running(engine, placed)
    await until(lambda: len(watchers(placed.assignment_id)) == 1)
    if end != "by itself":
        worker.docker(*({"kill": ["kill"], "rm": ["rm", "-f"]}[end]), placed.assignment_id)
    await until(lambda: not watchers(placed.assignment_id))


async def test_a_paused_containers_time_runs_too(engine: DockerEngine, worker: Worker) -> None:
    placed = order(time_limit=2, grace=1)
    await running(engine, placed)
    worker.docker("pause", placed.assignment_id)
    await until(lambda: inspect(worker, placed.assignment_id)["State"]["Status"] == "exited")
    await until(lambda: not watchers(placed.assignment_id))


async def test_a_limit_holds_through_a_restart_of_the_engine(
    worker: Worker, engine: DockerEngine
) -> None:
    worker.engine_options = ["--live-restore"]
    worker.restart("dockerd")
    try:
        placed = order(time_limit=4, grace=1)
        await running(engine, placed)
        worker.restart("dockerd")
        assert inspect(worker, placed.assignment_id)["State"]["Running"]
        await until(lambda: not inspect(worker, placed.assignment_id)["State"]["Running"])
        await until(lambda: not watchers(placed.assignment_id))
    finally:
        worker.engine_options = []
        worker.remove_containers()
        worker.restart("dockerd")
