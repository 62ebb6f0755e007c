"""Admission on the worker: the shell's answer against that of the core, which schedules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import mkdtemp

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloudai.core.capacity import free_of
from cloudai.core.gpus import ANY, Wish, plain
from cloudai.core.model import (
    GIB,
    MIB,
    ContainerSight,
    EngineFacts,
    Gpu,
    GpuProcess,
    Phase,
    Resources,
    WorkerSight,
    WorkerSpec,
)
from cloudai.engines.docker.admission import amount
from cloudai.scripts import render

from .worker_tools import COMBINATIONS, Tools

IDLE = 512 * MIB
PHASES = {
    "created": Phase.CREATED,
    "running": Phase.RUNNING,
    "restarting": Phase.RUNNING,
    "paused": Phase.PAUSED,
    "exited": Phase.EXITED,
}


@dataclass(frozen=True)
class Held:
    cpu: int = 0
    memory: int = 0
    storage: int = 0
    gpu: int = 0
    gpus: tuple[str, ...] = ()
    state: str = "running"
    declared: int | None = None

    def line(self, number: int) -> str:
        fields = [
            f"held {number:064x}",
            f"task-{number}.1",
            self.state,
            *map(str, (self.cpu, self.memory, self.storage, self.gpu)),
            ",".join(self.gpus),
            f"task-{number}.1",
            "store",
            f"task-{number}",
            "" if self.declared is None else str(self.declared),
        ]
        return "\t".join(fields)

    def sight(self, number: int) -> ContainerSight:
        return ContainerSight(
            id=f"{number:064x}",
            assignment_id=f"task-{number}.1",
            task_id=f"task-{number}",
            store_id="store",
            phase=PHASES[self.state],
            held=resources(self.cpu, self.memory, self.storage, self.gpu),
            gpus=self.gpus,
            gpu_memory=self.declared,
        )


@dataclass(frozen=True)
class Device:
    uuid: str
    used: int | None = 0
    broken: bool = False
    processes: tuple[tuple[str, int | None], ...] = ()
    """(type, number of the container it runs in)"""
    model: str = "NVIDIA A100-SXM4-80GB"
    memory: int | None = 80 * GIB

    def lines(self) -> list[str]:
        memory, used = ("-" if n is None else str(n) for n in (self.memory, self.used))
        fault = "it is broken" if self.broken else "-"
        found = [
            "\t".join(
                ["gpu", self.uuid, "0", memory, used, "0", "30", "1410", "-", fault, self.model]
            )
        ]
        for kind, container in self.processes:
            where = "-" if container is None else f"{container:064x}"
            found.append("\t".join(["proc", self.uuid, "9", kind, "-", where, "-", "x"]))
        return found

    def sight(self) -> Gpu:
        return Gpu(
            uuid=self.uuid,
            index=0,
            model=self.model,
            memory=self.memory,
            memory_used=self.used,
            error="it is broken" if self.broken else None,
            processes=tuple(
                GpuProcess(
                    pid=9,
                    name="x",
                    container=None if container is None else f"{container:064x}",
                    graphics=kind == "G",
                )
                for kind, container in self.processes
            ),
        )


@dataclass(frozen=True)
class Question:
    want: tuple[int, int, int, int]
    cpus: int = 16
    memory: int = 64 * GIB
    available: int = 60 * GIB
    disk: int = 900 * GIB
    disk_free: int = 400 * GIB
    keep: tuple[int, int, int, int] = (0, 0, 0, 0)
    max_gpus: int = -1
    held: tuple[Held, ...] = ()
    devices: tuple[Device, ...] = ()
    wish: Wish = ANY
    min_free: int = 0
    tasks_per_gpu: int | None = None


def resources(cpu: int, memory: int, storage: int, gpu: int) -> Resources:
    return Resources(cpu_milli=cpu, memory=memory, storage=storage, gpu_milli=gpu)


def ask(tools: Tools, question: Question, *, host_tells: bool = True) -> str:
    """``host_tells``: what the host has comes from itself; else by the arguments."""
    amounts = (question.cpus, question.memory, question.available)
    disk = (question.disk, question.disk_free)
    told = "\t".join(
        ["host", str(amounts[0]), "{} {}".format(*amounts[1:]), "{} {} /".format(*disk)]
    )
    lines = [told if host_tells else "host\t\t\t"]
    lines += [held.line(number) for number, held in enumerate(question.held)]
    for device in question.devices:
        lines += device.lines()
    wish = question.wish
    words = [
        *question.want,
        *([1, 1, 1, 1, 1] if host_tells else [*amounts, *disk]),
        *question.keep,
        question.max_gpus,
        IDLE,
        -1 if wish.memory is None else wish.memory,
        plain(wish.model or "") or "''",
        question.min_free,
        -1 if question.tasks_per_gpu is None else question.tasks_per_gpu,
    ]
    script = f"{render('_admit')}\nadmit {' '.join(map(str, words))}\n"
    return tools.run(script, stdin="".join(f"{line}\n" for line in lines)).strip()


def expected(q: Question) -> str:
    """The same answer, by the scheduler's own view of such a worker."""
    sight = WorkerSight(
        cpus=q.cpus,
        memory=q.memory,
        memory_available=q.available,
        disk=q.disk,
        disk_free=q.disk_free,
        load=0.0,
        clock=datetime(2026, 1, 31, tzinfo=UTC),
        machine_id="m",
        engine=EngineFacts(id="e", version="29"),
        gpus=tuple(device.sight() for device in q.devices),
        containers=tuple(held.sight(number) for number, held in enumerate(q.held)),
    )
    spec = WorkerSpec(
        id="gpu1",
        reserve=resources(*q.keep),
        max_gpus=None if q.max_gpus < 0 else q.max_gpus,
        min_free_gpus=q.min_free,
        tasks_per_gpu=q.tasks_per_gpu,
        gpu_idle_memory=IDLE,
    )
    free, need = free_of(sight, spec), resources(*q.want)
    if lack := free.lacks(need, q.wish):
        what, have, want = {
            "CPU": ("cpu", free.cpu, need.cpu_milli),
            "memory": ("memory", free.memory, need.memory),
            "storage": ("storage", free.storage, need.storage),
            "GPU": ("gpu", free.gpu_room(need.gpu_milli, q.wish), need.gpu_milli),
        }[lack[0]]
        return f"refuse {what} {max(0, have)} {want}"
    if not need.gpu_milli:
        return "ok -"
    chosen = free.choose(need.gpu_milli, q.wish)
    return f"ok {','.join(free.devices[i].uuid for i in chosen)}"


UUIDS = ["GPU-a", "GPU-b", "GPU-c", "MIG-d"]
MODELS = ["NVIDIA A100-SXM4-80GB", "NVIDIA A100-SXM4-80GB MIG 3g.40gb", "NVIDIA GeForce RTX 4090"]
WISHES = [None] * 6 + ["a100", "A100 SXM4", "rtx-4090", "3g.40gb", "h100"]


@st.composite
def questions(draw: st.DrawFn) -> Question:
    def number(most: int) -> st.SearchStrategy[int]:
        return st.integers(0, most)

    devices = []
    process = st.tuples(
        st.sampled_from(["G", "C", "C+G", "M+C", "-"]), st.sampled_from([0, 1, 2, None, 77])
    )
    for uuid in UUIDS[draw(number(3)) :]:
        processes = draw(st.lists(process, max_size=2)) if draw(number(4)) == 4 else []
        devices.append(
            Device(
                uuid,
                draw(st.sampled_from([0, 0, IDLE, None, IDLE + 1])),
                draw(number(7)) == 7,
                tuple(processes),
                draw(st.sampled_from(MODELS)),
                draw(st.sampled_from([None, 24564 * MIB, 40 * GIB, 80 * GIB + 1])),
            )
        )
    held = []
    for _ in range(draw(st.sampled_from([0, 1, 2, 3, 5]))):
        gpu = draw(st.sampled_from([0, 250, 333, 333, 500, 1000, 2000]))
        count = 0 if not gpu else max(1, gpu // 1000)
        uuids = draw(st.permutations(UUIDS))[:count]
        state = draw(st.sampled_from(["created", "running", "paused", "restarting", "exited"]))
        held.append(
            Held(
                draw(number(4000)),
                draw(number(20 * GIB)),
                draw(number(100 * GIB)),
                gpu,
                tuple(uuids),
                state,
                draw(st.sampled_from([None, None, 0, 8 * GIB, 60 * GIB, 10**15 - 1])),
            )
        )
    return Question(
        want=(
            draw(st.integers(1, 6000)),
            draw(st.integers(1, 30 * GIB)),
            draw(number(300 * GIB)),
            draw(st.sampled_from([0, 100, 250, 333, 500, 1000, 1000, 2000])),
        ),
        available=draw(st.integers(20 * GIB, 60 * GIB)),
        keep=(
            draw(number(2000)),
            draw(number(4 * GIB)),
            0,
            draw(st.sampled_from([0, 0, 0, 500, 1000])),
        ),
        max_gpus=draw(st.sampled_from([-1, -1, -1, 0, 1, 2, 4])),
        held=tuple(held),
        devices=tuple(devices),
        wish=Wish(
            draw(st.sampled_from(WISHES)),
            draw(st.sampled_from([None, None, None, 1, 8 * GIB, 20 * GIB, 40 * GIB, 80 * GIB])),
        ),
        min_free=draw(st.sampled_from([0, 0, 0, 0, 1, 2])),
        tasks_per_gpu=draw(st.sampled_from([None, None, None, 1, 2])),
    )


TOOLS: dict[tuple[str, str], Tools] = {}


def tools_of(pair: tuple[str, str]) -> Tools:
    if pair not in TOOLS:
        TOOLS[pair] = Tools(Path(mkdtemp(prefix="cloudai-admission-")), *pair)
    return TOOLS[pair]


@pytest.fixture(scope="module", autouse=True)
def _swept() -> object:
    import shutil

    yield None
    for tools in TOOLS.values():
        shutil.rmtree(tools.folder)
    TOOLS.clear()


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(question=questions(), pair=st.sampled_from(COMBINATIONS))
def test_it_decides_as_the_scheduler_does(question: Question, pair: tuple[str, str]) -> None:
    assert ask(tools_of(pair), question) == expected(question)


def gpus(*uuids: str) -> tuple[Device, ...]:
    return tuple(Device(uuid) for uuid in uuids)


ONE = (1000, GIB, GIB)
RTX = "NVIDIA GeForce RTX 4090"
MIXED = (
    Device("GPU-a"),
    Device("GPU-b", model=RTX, memory=24 * GIB),
    Device("GPU-c", model="NVIDIA GB10", memory=None),
)


def shares(*declared: int | None, gpu: int = 250) -> tuple[Held, ...]:
    return tuple(Held(gpu=gpu, gpus=("GPU-a",), declared=one) for one in declared)


CASES = {
    "whole ones, lowest index first": (
        Question((*ONE, 2000), devices=gpus("GPU-b", "GPU-a", "GPU-c")),
        "ok GPU-b,GPU-a",
    ),
    "a share takes a free device": (
        Question((*ONE, 500), devices=gpus("GPU-a", "GPU-b")),
        "ok GPU-a",
    ),
    "a share joins the fullest that has the room": (
        Question(
            (*ONE, 250),
            devices=gpus("GPU-a", "GPU-b", "GPU-c"),
            held=(Held(gpu=500, gpus=("GPU-a",)), Held(gpu=750, gpus=("GPU-b",))),
        ),
        "ok GPU-b",
    ),
    "an outsider on a shared device blocks it": (
        Question(
            (*ONE, 250),
            devices=(Device("GPU-a", processes=(("C", None),)), Device("GPU-b")),
            held=(Held(gpu=500, gpus=("GPU-a",)),),
        ),
        "ok GPU-b",
    ),
    "our own process on a shared device does not": (
        Question(
            (*ONE, 250),
            devices=(Device("GPU-a", 9 * GIB, processes=(("C", 0),)), Device("GPU-b")),
            held=(Held(gpu=500, gpus=("GPU-a",)),),
        ),
        "ok GPU-a",
    ),
    "a whole one is never shared": (
        Question((*ONE, 1000), devices=gpus("GPU-a"), held=(Held(gpu=100, gpus=("GPU-a",)),)),
        "refuse gpu 0 1000",
    ),
    "an ended container holds nothing": (
        Question(
            (*ONE, 1000),
            devices=gpus("GPU-a"),
            held=(Held(16000, 64 * GIB, 0, 1000, ("GPU-a",), "exited"),),
        ),
        "ok GPU-a",
    ),
    "a created one holds what it asked": (
        Question((*ONE, 0), held=(Held(cpu=15500, state="created"),)),
        "refuse cpu 500 1000",
    ),
    "memory that outsiders use is not there": (
        Question((1000, 8 * GIB, 0, 0), available=4 * GIB),
        f"refuse memory {4 * GIB} {8 * GIB}",
    ),
    "what ops keep": (
        Question((1000, GIB, 0, 0), keep=(15500, 0, 0, 0)),
        "refuse cpu 500 1000",
    ),
    "storage above two to the 31 stays exact": (
        Question((1, 1, 300 * GIB + 1, 0), disk_free=300 * GIB),
        f"refuse storage {300 * GIB} {300 * GIB + 1}",
    ),
    "at most so many devices for tasks": (
        Question(
            (*ONE, 1000),
            devices=gpus("GPU-a", "GPU-b"),
            held=(Held(gpu=1000, gpus=("GPU-a",)),),
            max_gpus=1,
        ),
        "refuse gpu 0 1000",
    ),
    "a container of ours that computes on a GPU it was not given keeps it from others": (
        Question(
            (*ONE, 2000),
            devices=(Device("GPU-a"), Device("GPU-b", processes=(("C", 0),))),
            held=(Held(gpu=0, gpus=()),),
        ),
        "refuse gpu 1000 2000",
    ),
    "one that a task has counts, whoever else came to it": (
        Question(
            (*ONE, 1000),
            devices=(Device("GPU-a", processes=(("C", None),)), Device("GPU-b")),
            held=(Held(gpu=500, gpus=("GPU-a",)),),
            max_gpus=1,
        ),
        "refuse gpu 0 1000",
    ),
    "one device kept free": (
        Question((*ONE, 2000), devices=gpus("GPU-a", "GPU-b"), keep=(0, 0, 0, 1000)),
        "refuse gpu 1000 2000",
    ),
    "a desktop on it is no outsider": (
        Question((*ONE, 1000), devices=(Device("GPU-a", 300 * MIB, processes=(("G", None),)),)),
        "ok GPU-a",
    ),
    "a model, however it is written": (
        Question((*ONE, 1000), devices=MIXED, wish=Wish("RTX-4090")),
        "ok GPU-b",
    ),
    "a model that there is not so often": (
        Question((*ONE, 2000), devices=MIXED, wish=Wish("a100")),
        "refuse gpu 1000 2000",
    ),
    "memory that each must have": (
        Question((*ONE, 1000), devices=MIXED, wish=Wish(None, 40 * GIB)),
        "ok GPU-a",
    ),
    "memory that is not known is not enough": (
        Question((*ONE, 500), devices=MIXED[2:], wish=Wish(None, 1)),
        "refuse gpu 0 500",
    ),
    "a share of a device of unknown memory": (
        Question((*ONE, 500), devices=MIXED[2:], held=(Held(gpu=500, gpus=("GPU-c",)),)),
        "ok GPU-c",
    ),
    "the least of those that will do": (
        Question((*ONE, 1000), devices=MIXED[:2]),
        "ok GPU-b",
    ),
    "a share of declared memory where that is left": (
        Question((*ONE, 250), devices=MIXED[:1], held=shares(60 * GIB), wish=Wish(None, 20 * GIB)),
        "ok GPU-a",
    ),
    "a share of declared memory where less is left": (
        Question(
            (*ONE, 250), devices=MIXED[:1], held=shares(60 * GIB + 1), wish=Wish(None, 20 * GIB)
        ),
        "refuse gpu 0 250",
    ),
    "a share that says nothing claims its part": (
        Question((*ONE, 250), devices=MIXED[:1], held=shares(70 * GIB)),
        "refuse gpu 125 250",
    ),
    "what is there of a share, said of one that is too large": (
        Question((*ONE, 750), devices=MIXED[:1], held=shares(None, gpu=500)),
        "refuse gpu 500 750",
    ),
    "so do those of before": (
        Question(
            (*ONE, 250), devices=MIXED[:1], held=shares(None, None), wish=Wish(None, 41 * GIB)
        ),
        "refuse gpu 0 250",
    ),
    "so many on one device": (
        Question(
            (*ONE, 250), devices=gpus("GPU-a", "GPU-b"), held=shares(None, None), tasks_per_gpu=2
        ),
        "ok GPU-b",
    ),
    "so many on each device": (
        Question((*ONE, 250), devices=MIXED[:1], held=shares(None, None), tasks_per_gpu=2),
        "refuse gpu 0 250",
    ),
    "so many left to people": (
        Question((*ONE, 2000), devices=gpus("GPU-a", "GPU-b"), min_free=1),
        "refuse gpu 1000 2000",
    ),
    "what an outsider has is not left to people": (
        Question(
            (*ONE, 1000),
            devices=(Device("GPU-a", processes=(("C", None),)), Device("GPU-b")),
            min_free=1,
        ),
        "refuse gpu 0 1000",
    ),
    "a device that is shared already is not left to people": (
        Question((*ONE, 250), devices=MIXED[:1], held=shares(None), min_free=1),
        "ok GPU-a",
    ),
    "a broken one is none": (
        Question((*ONE, 1000), devices=(Device("GPU-a", broken=True), Device("GPU-b"))),
        "ok GPU-b",
    ),
}


@pytest.mark.parametrize("pair", COMBINATIONS, ids="-".join)
@pytest.mark.parametrize("case", CASES)
def test_the_rules(case: str, pair: tuple[str, str]) -> None:
    question, answer = CASES[case]
    assert expected(question) == answer
    assert ask(tools_of(pair), question) == answer


@pytest.mark.parametrize(
    "case", ["memory that outsiders use is not there", "storage above two to the 31 stays exact"]
)
def test_what_a_host_does_not_tell_its_last_probe_did(case: str) -> None:
    question, answer = CASES[case]
    assert ask(tools_of(("dash", "mawk")), question, host_tells=False) == answer


FORGED: Sequence[str] = ("-5", "1e99", "abc", "9" * 16, "$(id)", "1 2", "")


@pytest.mark.parametrize("text", FORGED)
def test_a_forged_label_frees_and_breaks_nothing(text: str) -> None:
    tools = tools_of(("dash", "mawk"))
    forged = Held().line(1).split("\t")
    forged[3] = forged[4] = forged[5] = forged[6] = text
    real = Held(cpu=16000).line(2)
    script = f"{render('_admit')}\nadmit 1 1 1 0 16 9 9 9 9 0 0 0 0 -1 0 -1 '' 0 -1\n"
    stdin = "\t".join(forged) + "\n" + real + "\n"
    assert tools.run(script, stdin=stdin).strip() == "refuse cpu 0 1"


@pytest.mark.parametrize(
    ("value", "text"),
    [(4, "4.0"), (100, "100.0"), (0.25, "0.25"), (0.5, "0.5"), (0, "0.0"), (1.125, "1.125")],
)
def test_amounts_in_words(value: float, text: str) -> None:
    assert amount(value) == text
