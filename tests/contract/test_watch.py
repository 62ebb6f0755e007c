"""One contract for every way of watching a worker: the Engine API and the docker command, here
and over SSH, against a real engine."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from cloudai.core.errors import ContainerGone, EngineFailed, Indeterminate, WorkerUnreachable
from cloudai.core.model import MIB, ContainerSight, Phase, WorkerSpec
from cloudai.engines import LogRecord
from cloudai.engines.docker import DockerEngine, labels
from cloudai.engines.docker.api_watch import ApiWatch
from cloudai.engines.docker.watch import Watch, Way, open_watch
from cloudai.shells import Shell, Terminal
from tests.contract.relay import Relay
from tests.fleet_lab import Fleet, Worker
from tests.fleet_lab.fleet import reserved_root
from tests.log_records import one_by_one

from .shells import opened_shell

WAYS: list[tuple[Way, str]] = [("api", "local"), ("cli", "local"), ("api", "ssh"), ("cli", "ssh")]
CHUNK = 16384
"""Bytes of a line that the engine keeps in one record."""
SOON = 10.0
numbers = itertools.count(1)


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with reserved_root() as root, Fleet(root, workers=1, gpus=()) as fleet:
        yield fleet.workers[0]


@pytest.fixture(autouse=True)
def clean(worker: Worker) -> Iterator[None]:
    yield
    worker.remove_containers()


@pytest.fixture(params=WAYS, ids="-".join)
def way(request: pytest.FixtureRequest) -> tuple[Way, str]:
    chosen: tuple[Way, str] = request.param
    return chosen


@pytest.fixture
async def shell(way: tuple[Way, str], worker: Worker, tmp_path: Path) -> AsyncIterator[Shell]:
    async with opened_shell(way[1], worker, tmp_path) as shell:
        yield shell


@pytest.fixture
async def watch(way: tuple[Way, str], shell: Shell, worker: Worker) -> AsyncIterator[Watch]:
    watch = await open_watch(shell, worker.docker_host, prefer=way[0])
    yield watch
    await watch.close()


@asynccontextmanager
async def through_relay(
    way: tuple[Way, str], shell: Shell, worker: Worker, folder: Path
) -> AsyncIterator[tuple[Watch, Relay]]:
    """A watch whose every byte passes a relay that can cut it."""
    async with Relay(str(worker.socket), folder / "relay") as relay:
        watch = await open_watch(shell, f"unix://{relay.path}", prefer=way[0])
        try:
            yield watch, relay
        finally:
            await watch.close()


def fresh_name() -> str:
    return f"task-1700000000-w{next(numbers)}.1"


def created(worker: Worker, name: str, *words: str, options: tuple[str, ...] = ()) -> str:
    """A container of ours, not started. Its id."""
    named = {
        labels.ASSIGNMENT: name,
        labels.TASK: name.removesuffix(".1"),
        labels.STORE: "store-1",
        labels.USER: "ann",
        labels.CPU_MILLI: "500",
        labels.MEMORY: str(64 * MIB),
    }
    marks = [part for key, value in named.items() for part in ("--label", f"{key}={value}")]
    made = worker.docker(
        *("create", "--network", "none", "--log-driver", "json-file", "--name", name),
        *(*marks, *options, "--", "busybox", *words),
    )
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


def started(worker: Worker, name: str, *words: str, options: tuple[str, ...] = ()) -> str:
    container_id = created(worker, name, *words, options=options)
    result = worker.docker("start", container_id)
    assert result.returncode == 0, result.stderr
    return container_id


def ended(worker: Worker, name: str, *words: str, options: tuple[str, ...] = ()) -> str:
    container_id = started(worker, name, *words, options=options)
    assert worker.docker("wait", container_id).returncode == 0
    return container_id


async def seen(watch: Watch, name: str) -> ContainerSight:
    sight = await watch.look(name)
    assert sight is not None
    return sight


async def until(condition: Callable[[], Awaitable[bool]], *, within: float = SOON) -> None:
    async with asyncio.timeout(within):
        while not await condition():
            await asyncio.sleep(0.02)


async def whole_log(
    watch: Watch,
    container_id: str,
    *,
    since: int = 0,
    follow: bool = False,
    tail: int | None = None,
) -> list[LogRecord]:
    logs = watch.logs(container_id, since=since, follow=follow, tail=tail)
    async with one_by_one(logs) as records:
        return [record async for record in records]


async def drained(items: AsyncIterator[object]) -> None:
    async for _ in items:
        pass


def text(records: list[LogRecord], stream: int | None = None) -> bytes:
    return b"".join(record.data for record in records if stream in (None, record.stream))


# ------------------------------------------------------------------------- looking


async def test_it_says_which_way_it_goes(watch: Watch, way: tuple[Way, str]) -> None:
    assert watch.way == way[0]


async def test_every_state_of_a_container_is_told_apart(watch: Watch, worker: Worker) -> None:
    made, running, paused, over = (fresh_name() for _ in range(4))
    created(worker, made)
    limits = ("--cpus", "0.5", "--memory", "64m", "--memory-swap", "64m", "--pids-limit", "50")
    container_id = started(worker, running, "sleep", "1000", options=limits)
    started(worker, paused, "sleep", "1000")
    worker.docker("pause", paused)
    ended(worker, over, "sh", "-c", "exit 3")

    sights = {sight.assignment_id: sight for sight in await watch.observe()}
    assert {name: sight.phase for name, sight in sights.items()} == {
        made: Phase.CREATED,
        running: Phase.RUNNING,
        paused: Phase.PAUSED,
        over: Phase.EXITED,
    }
    for name, sight in sights.items():
        assert await watch.look(name) == sight
        assert (sight.exit_code is None) is (name != over)
        assert (sight.started_at is None) is (name == made)
        assert (sight.finished_at is None) is (name != over)
    assert sights[over].exit_code == 3
    one = sights[running]
    assert (one.id, one.task_id, one.store_id) == (container_id, running[:-2], "store-1")
    assert (one.held.cpu_milli, one.held.memory) == (500, 64 * MIB)
    assert one.limits == {
        "cpu_milli": 500,
        "memory": 64 * MIB,
        "memory_swap": 64 * MIB,
        "pids": 50,
        "storage": 0,
    }


async def test_a_start_that_failed_shows_its_code_and_reason(watch: Watch, worker: Worker) -> None:
    name = fresh_name()
    created(worker, name, "no-such-command")
    assert worker.docker("start", name).returncode != 0
    sight = await seen(watch, name)
    assert (sight.phase, sight.started_at, sight.exit_code) == (Phase.CREATED, None, 127)
    assert "no-such-command" in sight.error


async def test_out_of_memory_is_told_apart_from_a_kill(watch: Watch, worker: Worker) -> None:
    hungry, killed = fresh_name(), fresh_name()
    small = ("--memory", "16m", "--memory-swap", "16m")
    ended(worker, hungry, "tail", "/dev/zero", options=small)
    started(worker, killed, "sleep", "1000")
    worker.docker("kill", killed)
    worker.docker("wait", killed)
    sights = {sight.assignment_id: sight for sight in await watch.observe()}
    assert (sights[hungry].exit_code, sights[hungry].oom_killed) == (137, True)
    assert (sights[killed].exit_code, sights[killed].oom_killed) == (137, False)
    assert await watch.look(killed) == sights[killed]


async def test_what_was_removed_or_never_was_is_not_there(watch: Watch, worker: Worker) -> None:
    name = fresh_name()
    ended(worker, name, "true")
    assert await watch.look(name) is not None
    worker.docker("rm", name)
    assert await watch.look(name) is None
    assert await watch.look("task-1-never.1") is None
    assert await watch.observe() == ()


async def test_the_beginning_of_an_id_is_nobodys_name(watch: Watch, worker: Worker) -> None:
    container_id = started(worker, fresh_name(), "sleep", "1000")
    assert await watch.look(container_id[:12]) is None


async def test_strangers_are_never_observed_and_reported_when_they_hold_a_name(
    watch: Watch, worker: Worker
) -> None:
    ours, taken = fresh_name(), fresh_name()
    started(worker, ours, "sleep", "1000")
    worker.docker("run", "-d", "--network", "none", "--name", taken, "busybox", "sleep", "1000")
    copied = ("--label", f"{labels.ASSIGNMENT}={ours}", "--label", f"{labels.TASK}=x")
    worker.docker("run", "-d", "--network", "none", "--name", "copy", *copied, "busybox", "true")
    assert [sight.assignment_id for sight in await watch.observe()] == [ours]
    with pytest.raises(EngineFailed, match="not cloudai's"):
        await watch.look(taken)


async def test_many_containers_are_observed_whole(watch: Watch, worker: Worker) -> None:
    names = {fresh_name() for _ in range(25)}
    for name in names:
        created(worker, name)
    assert {sight.assignment_id for sight in await watch.observe()} == names


# ------------------------------------------------------------------------- happenings


async def test_what_happens_is_known_within_a_second(watch: Watch, worker: Worker) -> None:
    name = fresh_name()
    async with watch.happenings() as happenings:

        async def next_is(action: str) -> None:
            async with asyncio.timeout(1):
                async for happening in happenings:
                    assert happening.assignment_id.startswith("task-17000")
                    # Those of a moment before entering may come once more.
                    if (happening.assignment_id, happening.action) == (name, action):
                        return

        worker.docker("run", "-d", "--network", "none", "--name", "stranger", "busybox", "true")
        # At once: nothing between entering and the first event may be missed.
        created(worker, name, "sleep", "1000")
        await next_is("create")
        worker.docker("start", name)
        await next_is("start")
        worker.docker("exec", name, "true")
        worker.docker("kill", name)
        await next_is("die")
        worker.docker("rm", name)
        await next_is("destroy")


# ------------------------------------------------------------------------- logs

AWKWARD = r"""
x() { head -c "$1" /dev/zero | tr '\0' "$2"; }
x 16383 a; echo; x 16384 b; echo; x 16385 c; echo; x 40000 d; echo
echo; echo; printf 'tab\tcr\r\nnul\0nul\n'; x 20000 '\377'; echo
echo '2026-01-01T00:00:00.000000000Z a stamp'; printf 'x%.0s' 1; echo ' 2026-01-01T00:00:00Z y'
x 5000000 e; echo; printf '\001\001\000\000\000\000\000\005frame'
printf 'no newline'
"""


def awkward() -> bytes:
    """What ``AWKWARD`` writes, as Docker's log keeps it: a byte that is not UTF-8 becomes the
    three bytes of U+FFFD."""
    lines = [b"a" * 16383, b"b" * 16384, b"c" * 16385, b"d" * 40000, b"", b"", b"tab\tcr\r"]
    lines += [b"nul\0nul", "\N{REPLACEMENT CHARACTER}".encode() * 20000]
    lines += [b"2026-01-01T00:00:00.000000000Z a stamp", b"x 2026-01-01T00:00:00Z y"]
    return b"\n".join([*lines, b"e" * 5_000_000, b"\1\1\0\0\0\0\0\5frameno newline"])


async def test_logs_are_the_bytes_that_docker_kept(watch: Watch, worker: Worker) -> None:
    container_id = ended(worker, fresh_name(), "sh", "-c", AWKWARD)
    records = await whole_log(watch, container_id)
    assert text(records) == awkward()
    assert {record.stream for record in records} == {1}
    assert [record.at for record in records] == sorted(record.at for record in records)
    longest = max(len(record.data) for record in records if b"\xef" not in record.data)
    assert longest == CHUNK
    assert records[-1].data.endswith(b"no newline")


async def test_the_two_streams_are_told_apart_even_where_neither_ends_its_line(
    watch: Watch, worker: Worker
) -> None:
    script = "printf out; exec >&-; printf 'one\ntwo' >&2"
    records = await whole_log(watch, ended(worker, fresh_name(), "sh", "-c", script))
    assert (text(records, 1), text(records, 2)) == (b"out", b"one\ntwo")


async def test_a_log_is_followed_until_the_container_ends(watch: Watch, worker: Worker) -> None:
    name = fresh_name()
    script = "echo one; while ! [ -e /go ]; do sleep 0.05; done; echo two; printf three"
    container_id = started(worker, name, "sh", "-c", script)
    async with one_by_one(watch.logs(container_id, follow=True)) as records:
        assert (await anext(records)).data == b"one\n"
        worker.docker("exec", name, "touch", "/go")
        async with asyncio.timeout(SOON):
            assert [record.data async for record in records] == [b"two\n", b"three"]


async def test_following_may_begin_near_the_end(watch: Watch, worker: Worker) -> None:
    name = fresh_name()
    script = "echo one; echo two; while ! [ -e /go ]; do sleep 0.05; done; echo three"
    container_id = started(worker, name, "sh", "-c", script)

    async def both_written() -> bool:
        return len(await whole_log(watch, container_id)) == 2

    await until(both_written)
    async with (
        one_by_one(watch.logs(container_id, follow=True, tail=1)) as last,
        one_by_one(watch.logs(container_id, follow=True, tail=0)) as none,
    ):
        assert (await anext(last)).data == b"two\n"
        first_new = asyncio.create_task(anext(none))
        await whole_log(watch, container_id)
        worker.docker("exec", name, "touch", "/go")
        async with asyncio.timeout(SOON):
            assert (await first_new).data == b"three\n"
            assert [record.data async for record in none] == []
            assert [record.data async for record in last] == [b"three\n"]


async def test_the_log_of_a_silent_container_opens_at_once(watch: Watch, worker: Worker) -> None:
    name = fresh_name()
    container_id = started(worker, name, "sleep", "1000")
    async with asyncio.timeout(SOON), one_by_one(watch.logs(container_id, follow=True)) as records:
        worker.docker("kill", name)
        assert [record async for record in records] == []


async def test_a_container_not_started_has_an_empty_log(watch: Watch, worker: Worker) -> None:
    container_id = created(worker, fresh_name())
    assert await whole_log(watch, container_id, follow=True) == []


async def test_a_log_is_read_from_a_moment_on_and_from_its_end(
    watch: Watch, worker: Worker
) -> None:
    script = "for i in 1 2 3 4 5; do echo $i; sleep 0.01; done"
    container_id = ended(worker, fresh_name(), "sh", "-c", script)
    records = await whole_log(watch, container_id)
    assert [record.data for record in records] == [b"1\n", b"2\n", b"3\n", b"4\n", b"5\n"]
    for index, record in enumerate(records):
        assert await whole_log(watch, container_id, since=record.at) == records[index:]
        assert await whole_log(watch, container_id, since=record.at + 1) == records[index + 1 :]
        assert await whole_log(watch, container_id, tail=index) == records[5 - index :]
    both = await whole_log(watch, container_id, since=records[2].at, tail=2)
    assert both == records[3:]


async def test_a_container_on_a_terminal_has_a_log_too(watch: Watch, worker: Worker) -> None:
    script = "head -c 40000 /dev/zero | tr '\\0' d; echo; echo; echo err >&2; printf '$ '"
    container_id = ended(worker, fresh_name(), "sh", "-c", script, options=("-t",))
    records = await whole_log(watch, container_id)
    assert text(records) == b"d" * 40000 + b"\r\n\r\nerr\r\n$ "
    assert max(len(record.data) for record in records) == CHUNK


async def test_the_log_of_no_container_is_refused(watch: Watch) -> None:
    with pytest.raises(ContainerGone, match="No such container"):
        await whole_log(watch, "0" * 64)


def followers(worker: Worker) -> int:
    """Docker commands on this worker, whoever started them."""
    found = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = process.joinpath("cmdline").read_bytes().split(b"\0")
            surroundings = process.joinpath("environ").read_bytes().split(b"\0")
        except OSError:
            continue
        ours = f"DOCKER_HOST={worker.docker_host}".encode() in surroundings
        found += ours and Path(words[0].decode()).name == "docker"
    return found


def connections(worker: Worker) -> int:
    """Sockets the engine itself holds open."""
    open_files = Path(f"/proc/{worker.dockerd.pid}/fd").iterdir()
    return sum("socket:" in str(file.readlink()) for file in open_files if file.is_symlink())


async def test_a_follower_that_leaves_leaves_nothing_behind(watch: Watch, worker: Worker) -> None:
    container_id = started(worker, fresh_name(), "sh", "-c", "echo here; sleep 1000")
    await watch.observe()
    before = followers(worker), connections(worker)
    async with one_by_one(watch.logs(container_id, follow=True)) as records, watch.happenings():
        assert (await anext(records)).data == b"here\n"
        assert connections(worker) > before[1]

    async def as_before() -> bool:
        return followers(worker) <= before[0] and connections(worker) <= before[1]

    await until(as_before)


async def test_closing_leaves_no_process_on_the_worker(
    way: tuple[Way, str], shell: Shell, worker: Worker
) -> None:
    container_id = started(worker, fresh_name(), "sh", "-c", "echo here; sleep 1000")
    watch = await open_watch(shell, worker.docker_host, prefer=way[0])
    async with one_by_one(watch.logs(container_id, follow=True)) as records:
        await anext(records)
        await watch.close()
        with pytest.raises(WorkerUnreachable):
            await anext(records)

    async def nothing_left() -> bool:
        return followers(worker) == 0

    await until(nothing_left)


# ------------------------------------------------------------------------- measuring


async def test_usage_is_plausible(watch: Watch, worker: Worker) -> None:
    busy = started(worker, fresh_name(), "sh", "-c", "while :; do :; done")
    idle = started(worker, fresh_name(), "sleep", "1000")
    over = ended(worker, fresh_name(), "true")
    usage = await watch.usage([busy, idle, over, "0" * 64])
    assert set(usage) == {busy, idle}
    assert usage[busy].cpu_percent is not None
    assert usage[idle].cpu_percent is not None
    assert 5 < usage[busy].cpu_percent < 150
    assert 0 <= usage[idle].cpu_percent < 5
    assert usage[idle].memory is not None
    assert 0 < usage[idle].memory < 50 * MIB
    assert usage[idle].pids == 1


async def test_sizes_are_what_running_containers_wrote(watch: Watch, worker: Worker) -> None:
    writer, over = fresh_name(), fresh_name()
    started(worker, writer, "sh", "-c", "head -c 3000000 /dev/zero >/file; sleep 1000")
    ended(worker, over, "sh", "-c", "head -c 3000000 /dev/zero >/file")

    async def written() -> bool:
        return (await watch.sizes())[writer] >= 3_000_000

    await until(written)
    sizes = await watch.sizes()
    assert set(sizes) == {writer}
    assert sizes[writer] < 3_100_000


# ------------------------------------------------------------------------- entering


async def heard(terminal: Terminal) -> tuple[bytes, bytes, int]:
    """Everything it says until it ends: stdout, stderr, exit status."""
    said = {1: bytearray(), 2: bytearray()}
    async with asyncio.timeout(SOON):
        while (part := await terminal.read())[0]:
            said[part[0]] += part[1]
        return bytes(said[1]), bytes(said[2]), await terminal.wait()


async def test_a_command_has_its_streams_apart_and_its_own_exit_code(
    watch: Watch, worker: Worker
) -> None:
    container_id = started(worker, fresh_name(), "sleep", "1000")
    script = "cat; echo to stderr >&2; exit 7"
    argv = ["sh", "-c", script]
    async with watch.execute(container_id, argv, tty=False, columns=80, rows=24) as terminal:
        await terminal.write(b"in\0\xff\n")
        await terminal.write(b"")
        assert await heard(terminal) == (b"in\0\xff\n", b"to stderr\n", 7)


async def test_arguments_arrive_as_they_are(watch: Watch, worker: Worker) -> None:
    container_id = started(worker, fresh_name(), "sleep", "1000")
    odd = ["", "a b", "$(id)", "`id`", "'", '"', "\\", "\\\\", "*", "-x", "--", "é\n", "!", "%"]
    argv = ["sh", "-c", 'for w; do printf "<%s>" "$w"; done', "sh", *odd]
    async with watch.execute(container_id, argv, tty=False, columns=80, rows=24) as terminal:
        await terminal.write(b"")
        out, _, status = await heard(terminal)
    assert (out, status) == ("".join(f"<{word}>" for word in odd).encode(), 0)


# The docker command sets the size a moment after the command has started.
SIZED = """
tty
until [ "$(stty size 2>/dev/null)" = "30 100" ]; do sleep 0.05; done; echo sized
until [ "$(stty size 2>/dev/null)" = "40 120" ]; do sleep 0.05; done; echo resized
read word; echo "got $word"
"""


async def test_a_terminal_is_one_and_has_a_size(watch: Watch, worker: Worker) -> None:
    container_id = started(worker, fresh_name(), "sleep", "1000")
    argv = ["sh", "-c", SIZED]
    async with watch.execute(container_id, argv, tty=True, columns=100, rows=30) as terminal:
        output = bytearray()

        async def said(what: bytes) -> None:
            async with asyncio.timeout(SOON):
                while what not in output:
                    stream, data = await terminal.read()
                    assert stream, bytes(output)
                    output.extend(data)

        await said(b"/dev/pts/")
        await said(b"sized\r\n")
        await terminal.resize(120, 40)
        await said(b"resized\r\n")
        await terminal.write(b"word\n")
        await said(b"got word\r\n")
        assert await terminal.wait() == 0


async def test_a_command_that_is_not_there_says_so(watch: Watch, worker: Worker) -> None:
    container_id = started(worker, fresh_name(), "sleep", "1000")
    async with watch.execute(container_id, ["no-such"], tty=False, columns=80, rows=24) as terminal:
        out, err, status = await heard(terminal)
    assert status in (126, 127)
    assert b"no-such" in out + err


async def test_a_container_that_does_not_run_is_not_entered(watch: Watch, worker: Worker) -> None:
    container_id = ended(worker, fresh_name(), "true")
    async with watch.execute(container_id, ["true"], tty=False, columns=80, rows=24) as terminal:
        _, err, status = await heard(terminal)
    assert status == 1
    assert b"not running" in err


# ------------------------------------------------------------------------- cut


async def test_a_connection_cut_anywhere_raises_and_never_shortens(
    way: tuple[Way, str], shell: Shell, worker: Worker, tmp_path: Path
) -> None:
    container_id = ended(worker, fresh_name(), "seq", "1", "300")
    async with through_relay(way, shell, worker, tmp_path) as (watch, relay):
        whole = await whole_log(watch, container_id)
        everything = await watch.observe()
        assert len(whole) == 300
        for allowed in (0, 1, 150, 400, 900, 2000, 5000):
            relay.cut_after(allowed)
            with pytest.raises(WorkerUnreachable):
                await whole_log(watch, container_id)
            relay.cut_after(allowed)
            with pytest.raises(WorkerUnreachable):
                await watch.observe()
        relay.cut_after(None)
        assert await whole_log(watch, container_id) == whole
        assert await watch.observe() == everything


async def test_streams_break_loudly(
    way: tuple[Way, str], shell: Shell, worker: Worker, tmp_path: Path
) -> None:
    name = fresh_name()
    container_id = started(worker, name, "sh", "-c", "echo here; sleep 1000")
    async with (
        through_relay(way, shell, worker, tmp_path) as (watch, relay),
        watch.happenings() as happenings,
        one_by_one(watch.logs(container_id, follow=True)) as records,
    ):
        await anext(records)
        relay.cut()
        async with asyncio.timeout(SOON):
            with pytest.raises(WorkerUnreachable):
                await anext(records)
            with pytest.raises(WorkerUnreachable):
                await drained(happenings)
        assert (await seen(watch, name)).phase is Phase.RUNNING


async def test_an_engine_that_is_away_is_a_worker_that_cannot_be_reached(
    way: tuple[Way, str], shell: Shell, worker: Worker, tmp_path: Path
) -> None:
    async with through_relay(way, shell, worker, tmp_path) as (watch, relay):
        await relay.refuse()
        with pytest.raises(WorkerUnreachable):
            await watch.observe()
        with pytest.raises(WorkerUnreachable):
            await watch.look("task-1-x.1")
    with pytest.raises(WorkerUnreachable, match=re.escape(str(relay.path))):
        await open_watch(shell, f"unix://{relay.path}", prefer=way[0])


async def test_one_answer_that_did_not_come_drops_no_follower(
    way: tuple[Way, str], shell: Shell, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(*_: object) -> None:
        raise Indeterminate("Docker did not answer in time")

    name = fresh_name()
    container_id = started(worker, name, "sh", "-c", "echo here; sleep 1000")
    spec = WorkerSpec(id=worker.name, engine_socket=worker.docker_host)
    engine = DockerEngine(spec, shell, watch_via=way[0])
    async with (
        AsyncExitStack() as stack,
        engine.happenings() as happenings,
        one_by_one(engine.logs(container_id, follow=True)) as records,
    ):
        stack.push_async_callback(engine.close)
        await anext(records)
        monkeypatch.setattr(ApiWatch, "look", silent)
        with pytest.raises(Indeterminate):
            await engine.look(name)
        assert engine.watching == way[0]
        worker.docker("kill", name)
        async with asyncio.timeout(SOON):
            await drained(records)
            # Word of containers that the test before removed may come first.
            while (await anext(happenings)).assignment_id != name:
                pass


# ------------------------------------------------------------------------- choosing


@pytest.mark.parametrize("kind", ["local", "ssh"])
@pytest.mark.parametrize("endpoint", ["", "tcp://10.0.0.1:2376"])
async def test_without_a_socket_of_its_own_the_docker_command_leads_there(
    worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, endpoint: str
) -> None:
    # As its login has it: over SSH, the worker's sshd sets this.
    monkeypatch.setenv("DOCKER_HOST", worker.docker_host)
    name = fresh_name()
    created(worker, name)
    async with opened_shell(kind, worker, tmp_path) as shell:
        watch = await open_watch(shell, endpoint)
        assert watch.way == "cli"
        assert [sight.assignment_id for sight in await watch.observe()] == [name]
        await watch.close()


async def test_where_sshd_forwards_no_sockets_the_docker_command_leads_there(
    worker: Worker, tmp_path: Path
) -> None:
    worker.sshd_options = {"AllowStreamLocalForwarding": "no"}
    worker.restart("sshd")
    try:
        async with opened_shell("ssh", worker, tmp_path) as shell:
            watch = await open_watch(shell, worker.docker_host)
            assert watch.way == "cli"
            assert await watch.observe() == ()
            await watch.close()
    finally:
        worker.mend()


async def test_a_hundred_followers_share_one_connection(worker: Worker, tmp_path: Path) -> None:
    container_id = started(worker, fresh_name(), "sh", "-c", "echo here; sleep 1000")
    async with opened_shell("ssh", worker, tmp_path) as shell:
        watch = await open_watch(shell, worker.docker_host)

        async def follow(ready: asyncio.Event) -> bytes:
            async with one_by_one(watch.logs(container_id, follow=True)) as records:
                record = await anext(records)
                await ready.wait()
                return record.data

        ready = asyncio.Event()
        tasks = [asyncio.create_task(follow(ready)) for _ in range(100)]
        name = json.loads(worker.docker("inspect", container_id).stdout)[0]["Name"][1:]
        assert (await seen(watch, name)).phase is Phase.RUNNING
        ready.set()
        assert await asyncio.gather(*tasks) == [b"here\n"] * 100
        await watch.close()
