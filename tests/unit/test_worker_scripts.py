"""The start script with a docker that is a stub: what cannot be had on a real one at will."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from cloudai.core.errors import EngineFailed, Indeterminate
from cloudai.core.model import Resources, TaskSpec, WorkerSpec
from cloudai.engines import NOTHING, CannotStart, ImageMissing, NotAdmitted, Order, Running
from cloudai.engines.docker import command
from cloudai.engines.docker.admission import LockHeld, Undo, Unread, parse_start
from cloudai.engines.docker.files import of_start
from cloudai.engines.docker.secret_files import secret_files
from cloudai.scripts import render

from .worker_tools import SHELLS, Tools

ORDER = Order(
    assignment_id="task-1-abc.1",
    task_id="task-1-abc",
    store_id="store-7",
    spec=TaskSpec(image="busybox", argv=("true",), resources=Resources.of(cpus=1, memory=0.5)),
    env={},
)
DOCUMENT = """{"Id":"%s","Name":"/task-1-abc.1","Created":"2026-01-31T12:00:00Z",\
"State":{"Status":"%s","Running":true,"StartedAt":"%s","ExitCode":%d,"Error":"%s"},\
"Config":{"Labels":{"cloudai.assignment":"task-1-abc.1","cloudai.task":"task-1-abc",\
"cloudai.store":"store-7"}},"HostConfig":{"NanoCpus":%d,"Memory":%d,"MemorySwap":%d,"PidsLimit":9}}"""
NEEDED = ("awk", "sed", "cat", "df", "free", "nproc", "readlink", "timeout", "tr", "grep", "printf")


def document(
    status: str = "running",
    *,
    started: str = "2026-01-31T12:00:01Z",
    code: int = 0,
    error: str = "",
    cpu: int = 1000,
    memory: int = 512 * 2**20,
    swap: int = 512 * 2**20,
) -> str:
    return DOCUMENT % ("a" * 64, status, started, code, error, cpu * 10**6, memory, swap)


def script(
    folder: Path,
    *,
    gpu_by: str = "gpus",
    gpu_milli: int = 0,
    time_limit: int = 0,
    secrets: dict[str, bytes] | None = None,
    first_output: int = 0,
    idle_output: int = 0,
    signal: str = "",
    before: int = 0,
    read_back: bool = True,
    **wishes: Any,
) -> str:
    resources = dataclasses.replace(ORDER.spec.resources, gpu_milli=gpu_milli)
    spec = dataclasses.replace(ORDER.spec, resources=resources, **wishes)
    placed = dataclasses.replace(ORDER, spec=spec)
    return render(
        "start",
        docker_host="",
        endpoint=f"unix://{folder}/docker.sock",
        name=placed.assignment_id,
        task=placed.task_id,
        store=placed.store_id,
        image=spec.image,
        options=command.run_options(placed, storage_limit="watch", env=()),
        argv=command.arguments(spec),
        env_lines=[],
        exported=[],
        secrets=secret_files(secrets or {}),
        engine="ENGINE:1",
        held_format=command.HELD,
        read_back=int(read_back),
        time_limit=time_limit,
        first_output=first_output,
        idle_output=idle_output,
        signal=signal,
        before=before,
        grace=3,
        gpu_by=gpu_by,
        cpus=4,
        memory=2**33,
        data_root=str(folder),
        **of_start(NOTHING),
        **command.admission(spec, WorkerSpec(id="gpu1")),
    )


def stub(tools: Tools, *, run: str = "exit 0", found: str = "", listed: str = "") -> None:
    """A docker that notes its words. ``run``: what its run does; ``found``: what inspect
    says; ``listed``: what ps says once it ran."""
    (tools.folder / "found").write_text(found)
    (tools.folder / "listed").write_text(listed)
    tools.put(
        "docker",
        f"""cd {tools.folder}
printf '%s\\n' "$*" >>words
case $1 in
  run) : >ran; {run} ;;
  ps) if [ -e ran ]; then cat listed; fi ;;
  inspect) cat found; [ -s found ] ;;
  image) echo 'Error: No such image: busybox'; exit 1 ;;
esac""",
    )


def words(tools: Tools) -> list[str]:
    return (tools.folder / "words").read_text().splitlines()


@pytest.fixture(params=SHELLS)
def tools(request: pytest.FixtureRequest, tmp_path: Path) -> Tools:
    return Tools(tmp_path, request.param)


def started(tools: Tools, **values: object) -> str:
    """What a start answers. As its sender does, asks again where the worker's lock was not
    had: busybox's `timeout` leaves a watchdog behind, which holds it for up to a second."""
    answer = tools.run(script(tools.folder, **values))  # type: ignore[arg-type]
    while answer.endswith("verdict busy\n"):
        answer = tools.run(script(tools.folder, **values))  # type: ignore[arg-type]
    return answer


def test_it_looks_runs_and_reads_back(tools: Tools) -> None:
    stub(tools, found=document())
    outcome = parse_start(started(tools), ORDER, worker_id="gpu1")
    assert isinstance(outcome, Running)
    listing, run, look = words(tools)
    assert listing.startswith("ps -a --no-trunc --filter label=cloudai.assignment --format ")
    assert run.startswith("run -d --name task-1-abc.1 --pull never --init ")
    assert run.endswith(" -- busybox true")
    assert look.startswith("inspect --type container ")


def test_what_its_sender_reads_back_it_does_not(tools: Tools) -> None:
    stub(tools, found=document())
    answer = started(tools, read_back=False)
    assert isinstance(parse_start(answer, ORDER, worker_id="gpu1", read_back=False), Unread)
    assert [one.split()[0] for one in words(tools)] == ["ps", "run"]
    (tools.folder / "ran").unlink()
    (tools.folder / "words").unlink()
    stub(tools, run="echo no such thing; exit 125")
    answer = started(tools, read_back=False)
    assert isinstance(parse_start(answer, ORDER, worker_id="gpu1", read_back=False), ImageMissing)
    assert [one.split()[0] for one in words(tools)] == ["ps", "run", "inspect", "ps", "image"]


def test_cdi_devices_are_named_one_by_one(tools: Tools) -> None:
    stub(tools, found=document())
    data = Path(__file__).parent.parent / "data" / "nvidia" / "broken"
    tools.put("nvidia-smi", f"cat {data}.xml")
    started(tools, gpu_by="cdi", gpu_milli=1000)
    uuid = "GPU-57754e8c-7b57-b54c-c0fa-b445981228bb"
    assert f" --label cloudai.gpus={uuid} --device nvidia.com/gpu={uuid} -- " in words(tools)[1]
    (tools.folder / "words").unlink()
    (tools.folder / "ran").unlink()
    started(tools, gpu_milli=1000)
    assert f' --label cloudai.gpus={uuid} --gpus "device={uuid}" -- ' in words(tools)[1]


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (document(memory=0, swap=0), "does not enforce memory limits"),
        (document(cpu=0), "does not enforce CPU limits"),
        (document(cpu=0, memory=0), "does not enforce memory limits and CPU limits"),
    ],
)
def test_a_limit_that_was_not_applied_undoes_the_start(
    tmp_path: Path, found: str, words: str
) -> None:
    tools = Tools(tmp_path)
    stub(tools, found=found)
    outcome = parse_start(started(tools), ORDER, worker_id="gpu1")
    assert isinstance(outcome, Undo)
    assert f"gpu1 {words}" in outcome.outcome.reason


def test_swap_alone_is_a_warning(tmp_path: Path) -> None:
    tools = Tools(tmp_path)
    stub(tools, found=document(swap=-1))
    outcome = parse_start(started(tools), ORDER, worker_id="gpu1")
    assert isinstance(outcome, Running)
    assert "swap" in outcome.warnings[0]


LEFT = "\t".join(
    ["a" * 64, "task-1-abc.1", "created", *[""] * 5, "task-1-abc.1", "store-7", "task-1-abc"]
)


def test_what_a_failed_run_left_is_removed(tools: Tools) -> None:
    error = "could not select device driver"
    zero = "0001-01-01T00:00:00Z"
    stub(
        tools,
        run="echo docker: it failed >&2; exit 125",
        found=document("created", started=zero, code=128, error=error),
        listed=f"{LEFT}\n",
    )
    outcome = parse_start(started(tools), ORDER, worker_id="gpu1")
    assert isinstance(outcome, CannotStart)
    assert "NVIDIA container toolkit" in outcome.reason
    assert words(tools)[-1] == "rm task-1-abc.1"


def test_a_strangers_container_is_not_removed(tools: Tools) -> None:
    stranger = LEFT.replace("store-7", "store-8")
    stub(tools, run="exit 125", found='{"Id":"b"}', listed=f"{stranger}\n")
    outcome = parse_start(started(tools), ORDER, worker_id="gpu1")
    assert isinstance(outcome, CannotStart)
    assert "nothing was touched" in outcome.reason
    assert not any(line.startswith(("rm", "stop", "start")) for line in words(tools))


def test_an_engines_own_trouble_is_not_the_tasks(tools: Tools) -> None:
    stub(
        tools,
        run="echo 'write: no space left on device' >&2; exit 125",
        found=document("created", started="0001-01-01T00:00:00Z", code=0, error=""),
        listed=f"{LEFT}\n",
    )
    with pytest.raises(EngineFailed, match="disk of its Docker is full"):
        parse_start(started(tools), ORDER, worker_id="gpu1")


def test_no_image(tools: Tools) -> None:
    stub(tools, run="exit 125")
    assert parse_start(started(tools), ORDER, worker_id="gpu1") == ImageMissing()


def test_an_engine_that_does_not_list_is_not_asked_to_run(tools: Tools) -> None:
    tools.put("docker", 'echo "$1" >>words; echo Cannot connect to the Docker daemon; exit 1')
    with pytest.raises(EngineFailed, match="gpu1: Cannot connect to the Docker daemon"):
        parse_start(
            tools.run(f"cd {tools.folder}\n{script(tools.folder)}"), ORDER, worker_id="gpu1"
        )
    assert words(tools) == ["ps"]


def test_a_run_that_does_not_end_concludes_nothing(tmp_path: Path) -> None:
    tools = Tools(tmp_path)
    stub(tools, run="sleep 30", listed=f"{LEFT}\n")
    hurried = script(tmp_path).replace("deadline 120 docker run", "deadline 1 docker run")
    with pytest.raises(Indeterminate):
        parse_start(tools.run(hurried), ORDER, worker_id="gpu1")
    assert not any(line.startswith("rm") for line in words(tools))


# --- the lock


@contextmanager
def lock_held(folder: Path, seconds: float) -> Iterator[None]:
    """Somebody else's start: the lock is held so long, or until the test is done with it."""
    with subprocess.Popen(
        ["flock", str(folder), "sh", "-c", f"echo held; exec sleep {seconds}"],
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"held\n"
        yield
        with suppress(ProcessLookupError):
            os.killpg(holder.pid, 9)


def test_perl_locks_where_flock_is_missing(tmp_path: Path) -> None:
    tools = Tools(tmp_path, "dash")
    tools.only(*(name for name in NEEDED if shutil.which(name)), "perl", "dash")
    stub(tools, found=document())
    tools.put("docker", (tmp_path / "docker").read_text().replace("#!/bin/sh\n", ""))
    patient = script(tmp_path).replace("lock 1\n", "lock 5\n")
    before = time.monotonic()
    with lock_held(tmp_path, 0.7):
        assert "verdict ran" in tools.run(patient)
    assert time.monotonic() - before > 0.6


@pytest.mark.parametrize("perl", [False, True])
def test_a_lock_not_had_in_a_second(tmp_path: Path, perl: bool) -> None:
    tools = Tools(tmp_path, "dash")
    names = [name for name in NEEDED if shutil.which(name)]
    tools.only(*names, "dash", "perl" if perl else "flock")
    stub(tools, found=document())
    with lock_held(tmp_path, 30):
        told = tools.run(script(tmp_path))
    assert parse_start(told, ORDER, worker_id="gpu1") == LockHeld()
    assert not (tmp_path / "words").exists()


def test_no_way_to_lock_is_said(tmp_path: Path) -> None:
    tools = Tools(tmp_path, "dash")
    tools.only(*(name for name in NEEDED if shutil.which(name)), "dash")
    stub(tools)
    outcome = parse_start(tools.run(script(tmp_path)), ORDER, worker_id="gpu1")
    assert isinstance(outcome, CannotStart)
    assert "util-linux" in outcome.reason
    assert not (tmp_path / "words").exists()


def test_a_folder_that_cannot_be_opened_is_said(tools: Tools) -> None:
    stub(tools)
    gone = script(tools.folder / "nowhere")
    outcome = parse_start(tools.run(gone), ORDER, worker_id="gpu1")
    assert isinstance(outcome, CannotStart)
    assert f"({tools.folder}/nowhere) cannot be read" in outcome.reason
    assert "chmod" in outcome.reason


def test_a_remote_engine_is_locked_by_its_program(tools: Tools) -> None:
    stub(tools, found=document())
    text = script(tools.folder).replace(f"unix://{tools.folder}/docker.sock", "tcp://10.0.0.9:2375")
    assert "verdict ran" in tools.run(text)


# --- words


def test_a_refusal_in_words() -> None:
    told = "verdict refused memory 1610612736 8589934592\n"
    outcome = parse_start(told, ORDER, worker_id="gpu1")
    assert outcome == NotAdmitted(
        what="memory",
        available=1.5,
        required=8.0,
        reason="Insufficient memory: worker has 1.5 available, task requires 8.0",
    )


@pytest.mark.parametrize(
    ("wishes", "said"),
    [
        ({}, ""),
        ({"gpu_model": "a100"}, " (a100)"),
        ({"gpu_memory": 40 * 2**30}, " (40.0 GB)"),
        ({"gpu_model": "a100", "gpu_memory": 40 * 2**30}, " (a100, 40.0 GB)"),
    ],
)
def test_a_refusal_names_the_wish(wishes: dict[str, Any], said: str) -> None:
    placed = dataclasses.replace(ORDER, spec=dataclasses.replace(ORDER.spec, **wishes))
    outcome = parse_start("verdict refused gpu 1000 2000\n", placed, worker_id="gpu1")
    assert isinstance(outcome, NotAdmitted)
    words = "Insufficient GPU: worker has 1.0 available, task requires 2.0"
    assert outcome.reason == words + said
    outcome = parse_start("verdict refused cpu 1000 2000\n", placed, worker_id="gpu1")
    assert isinstance(outcome, NotAdmitted)
    assert outcome.reason.endswith("task requires 2.0")


def test_a_start_looks_for_what_is_wished(tools: Tools) -> None:
    stub(tools, found=document())
    data = Path(__file__).parent.parent / "data" / "nvidia"
    tools.put("nvidia-smi", f"case $1 in -L) cat {data}/mig.list ;; *) cat {data}/mig.xml ;; esac")
    started(tools, gpu_milli=1000, gpu_model="MIG-1G")
    uuid = "MIG-fc043520-0eee-e15d-0dd1-6f356124fc83"
    assert f'--gpus "device={uuid}"' in words(tools)[1]
    refused = started(tools, gpu_milli=1000, gpu_model="; touch never; $(id)")
    assert refused.endswith("verdict refused gpu 0 1000\n")
    refused = started(tools, gpu_milli=1000, gpu_memory=81 * 2**30)
    assert refused.endswith("verdict refused gpu 0 1000\n")


@pytest.mark.parametrize(
    "text", ["", "verdict", "verdict nonsense", "verdict refused cpu", "noise"]
)
def test_an_answer_that_means_nothing_is_no_answer(text: str) -> None:
    with pytest.raises(Indeterminate):
        parse_start(text, ORDER, worker_id="gpu1")


def test_ran_without_a_container_is_no_answer() -> None:
    with pytest.raises(Indeterminate):
        parse_start("found status 1\nverdict ran\n", ORDER, worker_id="gpu1")


# --- the time limit, watched on the worker


def watchers(name: str = ORDER.assignment_id) -> list[int]:
    """Sessions that watch a time limit, by their command lines."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            argv = process.joinpath("cmdline").read_bytes().split(b"\0")
            if b"cloudai-limit" in argv and name.encode() in argv:
                found.append(os.getsid(int(process.name)))
    return sorted(set(found))


def until(condition: Callable[[], bool], *, within: float = 15) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextmanager
def a_container(
    tools: Tools, *, shown: bool, program: Sequence[str] = ("sleep", "60")
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is the container's, and a docker that knows it. ``shown``: its /proc entry
    tells whose it is, as on a real worker."""
    container_id = "a" * 64
    with subprocess.Popen(program) as process:
        tools.put(
            "docker",
            f"""cd {tools.folder}
printf '%s\\n' "$*" >>words
case "$1 $*" in
  run*) : >ran ;;
  ps*) ;;
  logs*) if [ -e unwell ]; then echo Cannot connect to the Docker daemon >&2; exit 1; fi
    echo WARNING: a warning of the docker command >&2; cat log ;;
  volume*create*) [ -e note ] || printf '%s\\n' "$@" >note ;;
  volume*inspect*) printf '%s ' "$(sed -n 's/^cloudai.by=//p' note)"
    sed -n 's/^cloudai.at=//p' note ;;
  inspect*Paused*) cat paused ;;
  kill*) kill -s "$3" {process.pid} ;;
  inspect*State.Pid*) echo {container_id} {process.pid} "$(date -u +%Y-%m-%dT%H:%M:%S.5Z)" ;;
  inspect*) cat found ;;
  wait*) while [ -d /proc/{process.pid} ]; do sleep 0.05; done ;;
  stop*) kill {process.pid} ;;
esac""",
        )
        (tools.folder / "found").write_text(document())
        (tools.folder / "log").write_text("")
        (tools.folder / "paused").write_text("false")
        # Whose a process is, is told from its cgroups: a stub tells it of ours.
        answer = "[ -d " + f"/proc/{process.pid} ]" if shown else "false"
        tools.put(
            "grep", f'case "$*" in *"{container_id}"*) {answer} ;; *) exec /bin/grep "$@" ;; esac'
        )
        yield process
        process.kill()


def the_watcher() -> int:
    """The one session that watches, once it has left ours: it outlives its connection."""
    until(lambda: len(watchers()) == 1 and os.getsid(0) not in watchers())
    return watchers()[0]


def held_open_by(process: int) -> set[str]:
    """What it has open. A shell opens and closes as it works: what is gone, it does not hold."""
    held = set()
    for link in Path(f"/proc/{process}/fd").iterdir():
        with suppress(FileNotFoundError):
            held.add(os.readlink(link))
    return held


@pytest.mark.parametrize("shown", [True, False])
def test_a_time_limit_is_held_by_the_worker_alone(tools: Tools, shown: bool) -> None:
    with a_container(tools, shown=shown) as process:
        before = time.monotonic()
        started(tools, time_limit=1)
        assert str(tools.folder) not in held_open_by(the_watcher()), "the lock"
        assert process.wait(60) != 0
        assert time.monotonic() - before > 1, "never early"
        until(lambda: not watchers())
    said = words(tools)
    assert f"stop -t 3 {'a' * 64}" in said
    assert not any("task-1-abc.1" in line for line in said if line.startswith("stop"))


@pytest.mark.parametrize("shown", [True, False])
def test_who_watches_a_limit_goes_with_the_container(tools: Tools, shown: bool) -> None:
    with a_container(tools, shown=shown) as process:
        started(tools, time_limit=600)
        assert the_watcher()
        process.kill()
        process.wait()
        until(lambda: not watchers())
    assert not any(line.startswith("stop") for line in words(tools))


def test_a_limit_is_watched_once_however_often_it_is_started(tmp_path: Path) -> None:
    tools = Tools(tmp_path)
    with a_container(tools, shown=True) as process:
        started(tools, time_limit=600)
        started(tools, time_limit=600)
        assert the_watcher()
        process.kill()
        process.wait()
        until(lambda: not watchers())


def test_without_a_limit_nobody_watches(tmp_path: Path) -> None:
    tools = Tools(tmp_path)
    stub(tools, found=document())
    started(tools)
    assert watchers() == []


# --- files of secrets


SECRETS = {"/run/secrets/T": bytes(range(256)) + b"%s\\n$(id)'", "/etc/a, b": b"second\n"}
SHOWS_MOUNTS = """for word; do
  case $word in type=bind,src=/dev/shm/*)
    source=${word#*src=} source=${source%%,*}
    cat "$source" >>got; ls -ld "$source" "${source%/*}" | cut -c 1-10 >>modes ;;
  esac
done"""


@pytest.fixture
def secrets_folder() -> Iterator[Path]:
    folder = Path(f"/dev/shm/cloudai-{os.getuid()}-{ORDER.assignment_id}")
    shutil.rmtree(folder, ignore_errors=True)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def removal() -> str:
    return render("remove", docker_host="", name=ORDER.assignment_id, noted=0)


def test_secrets_are_written_whole_and_go_with_the_container(
    tools: Tools, secrets_folder: Path
) -> None:
    stub(tools, run=SHOWS_MOUNTS, found=document())
    answer = started(tools, secrets=SECRETS)
    assert answer.splitlines()[-1] == "verdict ran"
    assert (tools.folder / "got").read_bytes() == b"".join(SECRETS.values())
    assert (
        sorted((tools.folder / "modes").read_text().split())
        == ["-r--r--r--"] * 2 + ["drwx------"] * 2
    )
    assert sorted(path.name for path in secrets_folder.iterdir()) == ["1", "2", "engine"]
    # One that runs is left; one that is not there any more takes them along.
    (tools.folder / "found").write_text(f"running {ORDER.assignment_id}\n")
    tools.run(removal())
    assert secrets_folder.exists()
    (tools.folder / "found").write_text("")
    tools.put("docker", "echo Error: No such container: task-1-abc.1; exit 1")
    tools.run(removal())
    assert not secrets_folder.exists()


def test_a_start_that_failed_leaves_no_secret(tools: Tools, secrets_folder: Path) -> None:
    stub(tools, run=f"{SHOWS_MOUNTS}; exit 125")
    assert started(tools, secrets=SECRETS).splitlines()[-1] == "verdict image-missing"
    assert (tools.folder / "got").exists()
    assert not secrets_folder.exists()


def test_an_engine_that_hangs_keeps_them_for_what_may_still_come(
    tools: Tools, secrets_folder: Path
) -> None:
    stub(tools, run="exit 124")
    assert started(tools, secrets=SECRETS).splitlines()[-1] == "verdict silent"
    assert {path.name for path in secrets_folder.iterdir()} == {"1", "2", "engine", "starting"}


def test_a_shell_without_a_printf_of_its_own_gives_none(tools: Tools, secrets_folder: Path) -> None:
    stub(tools, found=document())
    text = "type() { echo printf is /usr/bin/printf; }\n" + script(tools.folder, secrets=SECRETS)
    answer = tools.run(text)
    outcome = parse_start(answer, ORDER, worker_id="gpu1")
    assert isinstance(outcome, CannotStart)
    assert "has no printf of its own" in outcome.reason
    assert not (tools.folder / "ran").exists()
    assert not secrets_folder.exists()


def test_an_answer_without_a_reason_is_no_secret_given() -> None:
    outcome = parse_start("verdict nosecrets\n", ORDER, worker_id="gpu1")
    assert isinstance(outcome, CannotStart)


# --- silence, and the signal that gives time


def log_line(tools: Tools, number: int) -> None:
    """The container writes, as its engine stores it."""
    (tools.folder / "log").write_text(f"2026-01-31T12:00:{number:02}.000000000Z line {number}\n")


def asked(tools: Tools, what: str) -> int:
    return sum(line.startswith(what) for line in words(tools))


def note_of(tools: Tools) -> str:
    """Why it was ended, as noted; empty while it is not."""
    with suppress(FileNotFoundError):
        for line in (tools.folder / "note").read_text().splitlines():
            if line.startswith("cloudai.end="):
                return line.removeprefix("cloudai.end=")
    return ""


def hurried(tools: Tools, **values: Any) -> None:
    """A start on a worker whose seconds are tenths."""
    text = script(tools.folder, **values).replace("/proc/uptime", str(tools.folder / "uptime"))
    assert text.count("sleep ") > 3
    tools.put("doze", 'exec /bin/sleep "0.$1"')
    tools.put("date", "exec /bin/date +%s%N | /usr/bin/cut -c-11")
    tools.run(text.replace("sleep ", "doze "))


def test_a_task_that_never_writes_is_ended(tools: Tools) -> None:
    with a_container(tools, shown=True) as process:
        before = time.monotonic()
        hurried(tools, first_output=3, idle_output=600)
        assert process.wait(60) != 0
        assert time.monotonic() - before > 0.3, "never early"
        until(lambda: not watchers())
    assert note_of(tools) == "first"
    assert asked(tools, "kill") == 0, "no signal was asked for"


def test_a_task_that_has_written_may_be_silent_and_nobody_watches_it_then(tools: Tools) -> None:
    with a_container(tools, shown=True) as process:
        log_line(tools, 1)
        hurried(tools, first_output=4)
        until(lambda: not watchers() and asked(tools, "logs") > 0)
        assert process.poll() is None
    assert note_of(tools) == ""


def test_a_task_that_falls_silent_is_ended_and_not_before(tmp_path: Path) -> None:
    tools = Tools(tmp_path)
    with a_container(tools, shown=True) as process:
        hurried(tools, idle_output=8)
        for number in range(3):
            log_line(tools, number)
            seen = asked(tools, "logs")
            until(lambda seen=seen: asked(tools, "logs") > seen + 1)
            assert process.poll() is None, "a line in two looks"
        last = time.monotonic()
        assert process.wait(60) != 0
        assert time.monotonic() - last > 0.6
        until(lambda: not watchers())
    assert note_of(tools) == "idle"


@pytest.mark.parametrize("how", ["paused", "unwell"])
def test_a_time_of_which_nobody_knows_is_no_silence(tmp_path: Path, how: str) -> None:
    """A container that is paused, an engine that does not answer."""
    tools = Tools(tmp_path)
    with a_container(tools, shown=True) as process:
        (tmp_path / how).write_text("true")
        hurried(tools, idle_output=4)
        until(lambda: asked(tools, "logs") > 6)
        assert process.poll() is None
        (tmp_path / "paused").write_text("false")
        (tmp_path / "unwell").unlink(missing_ok=True)
        assert process.wait(60) != 0
        until(lambda: not watchers())


CATCHES = "trap 'echo caught >>{0}/caught' USR1; trap 'exit 0' TERM; while :; do sleep 0.05; done"


def test_a_signal_comes_before_the_limit(tmp_path: Path) -> None:
    tools = Tools(tmp_path)
    program = ["dash", "-c", CATCHES.format(tools.folder)]
    with a_container(tools, shown=True, program=program) as process:
        before = time.monotonic()
        started(tools, time_limit=2, signal="USR1", before=2)
        until((tools.folder / "caught").exists)
        told = time.monotonic()
        assert told - before > 0.9, "never early"
        assert process.wait(15) == 0
        assert time.monotonic() - told > 1, "it was given its time"
        until(lambda: not watchers())
    assert note_of(tools) == "limit"
    assert (tools.folder / "caught").read_text() == "caught\n"


def tell(tools: Tools, before: int) -> list[str]:
    """What tell.sh answers but for the label."""
    (tools.folder / "found").write_text("running task-1-abc.1\n")
    text = render("tell", docker_host="", name="task-1-abc.1", signal="USR1", before=before)
    return [line for line in tools.run(text).splitlines() if not line.startswith("label")]


def test_a_signal_is_sent_once_however_often_it_is_asked(tools: Tools) -> None:
    program = ["dash", "-c", CATCHES.format(tools.folder)]
    with a_container(tools, shown=True, program=program) as process:
        (tools.folder / "ran").touch()
        until(lambda: b"TERM" in Path(f"/proc/{process.pid}/cmdline").read_bytes())
        assert tell(tools, 600) == ["left 600"]
        until((tools.folder / "caught").exists)
        [left] = tell(tools, 600)
        assert 590 <= int(left.removeprefix("left ")) <= 600
        note = (tools.folder / "note").read_text()
        (tools.folder / "note").write_text(note.replace("cloudai.at=", "cloudai.at=0\nx="))
        assert tell(tools, 600) == ["left 0"]
        process.kill()
    assert asked(tools, "kill -s USR1 task-1-abc.1") == 1


def test_without_a_note_there_is_no_signal(tmp_path: Path) -> None:
    tools = Tools(tmp_path)
    with a_container(tools, shown=True):
        (tmp_path / "docker").write_text(
            (tmp_path / "docker").read_text().replace("volume*create*) ", "volume*create*) exit 1;")
        )
        assert tell(tools, 600) == []
    assert asked(tools, "kill") == 0
