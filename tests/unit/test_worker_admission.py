"""Admission on the worker: the shell's answer against an obvious one in Python."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloudai.core.model import GIB, MIB
from cloudai.engines.docker.admission import amount
from cloudai.scripts import render

from .worker_tools import COMBINATIONS, Tools

IDLE = 512 * MIB


@dataclass(frozen=True)
class Held:
    cpu: int = 0
    memory: int = 0
    storage: int = 0
    gpu: int = 0
    gpus: tuple[str, ...] = ()
    state: str = "running"

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
        ]
        return "\t".join(fields)


@dataclass(frozen=True)
class Device:
    uuid: str
    used: int | None = 0
    broken: bool = False
    processes: tuple[tuple[str, int | None], ...] = ()
    """(type, number of the container it runs in)"""

    def lines(self) -> list[str]:
        used = "-" if self.used is None else str(self.used)
        fault = "it is broken" if self.broken else "-"
        found = [
            "\t".join(["gpu", self.uuid, "0", str(80 * GIB), used, "0", "30", "-", fault, "M"])
        ]
        for kind, container in self.processes:
            where = "-" if container is None else f"{container:064x}"
            found.append("\t".join(["proc", self.uuid, "9", kind, "-", where, "-", "x"]))
        return found


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


def ask(tools: Tools, question: Question) -> str:
    lines = [held.line(number) for number, held in enumerate(question.held)]
    for device in question.devices:
        lines += device.lines()
    numbers = [
        *question.want,
        question.cpus,
        question.memory,
        question.available,
        question.disk,
        question.disk_free,
        *question.keep,
        question.max_gpus,
        IDLE,
    ]
    script = f"{render('_admit')}\nadmit {' '.join(map(str, numbers))}\n"
    return tools.run(script, stdin="".join(f"{line}\n" for line in lines)).strip()


def expected(q: Question) -> str:
    """The same answer, as one would say it."""
    live = {n: h for n, h in enumerate(q.held) if h.state not in ("exited", "dead")}
    cpu = q.cpus * 1000 - q.keep[0] - sum(h.cpu for h in live.values())
    memory = min(q.memory - q.keep[1] - sum(h.memory for h in live.values()), q.available)
    disk = min(q.disk - q.keep[2] - sum(h.storage for h in live.values()), q.disk_free)
    for what, have, want in (("cpu", cpu, 0), ("memory", memory, 1), ("storage", disk, 2)):
        if q.want[want] > have:
            return f"refuse {what} {max(0, have)} {q.want[want]}"
    milli = q.want[3]
    return "ok -" if not milli else expected_gpus(q, live, milli)


def expected_gpus(q: Question, live: dict[int, Held], milli: int) -> str:
    sound = [device for device in q.devices if not device.broken]
    whole = {uuid for h in live.values() if h.gpu >= 1000 for uuid in h.gpus}
    shares: dict[str, int] = {}
    for h in live.values():
        if 0 < h.gpu < 1000:
            for uuid in h.gpus:
                shares[uuid] = shares.get(uuid, 0) + h.gpu
    taken = whole | set(shares)

    def compute(device: Device) -> list[int | None]:
        return [container for kind, container in device.processes if kind != "G"]

    free = [
        device.uuid
        for device in sound
        if device.uuid not in taken and not compute(device) and (device.used or 0) <= IDLE
    ]
    room = len(sound) * 1000 - q.keep[3] - sum(h.gpu for h in live.values())
    most = len(sound) - q.keep[3] // 1000
    if q.max_gpus >= 0:
        most = min(most, q.max_gpus)
    if milli >= 1000:
        count = min(len(free), most - len(taken), room // 1000 if room > 0 else 0)
        if count * 1000 < milli:
            return f"refuse gpu {max(0, count) * 1000} {milli}"
        return f"ok {','.join(free[: milli // 1000])}"
    options = []
    for place, device in enumerate(sound):
        if device.uuid in shares and device.uuid not in whole:
            if any(container not in live for container in compute(device)):
                continue
            options.append((1000 - shares[device.uuid], place, device.uuid))
    fitting = [o for o in sorted(options) if min(o[0], room) >= milli]
    if fitting:
        return f"ok {fitting[0][2]}"
    new = free[:1] if len(taken) < most else []
    if new and room >= milli:
        return f"ok {new[0]}"
    rooms = [min(o[0], room) for o in options] + ([min(1000, room)] if new else [])
    return f"refuse gpu {max([0, *rooms])} {milli}"


UUIDS = ["GPU-a", "GPU-b", "GPU-c", "MIG-d"]


@st.composite
def questions(draw: st.DrawFn) -> Question:
    def number(most: int) -> st.SearchStrategy[int]:
        return st.integers(0, most)

    devices = []
    for uuid in UUIDS[: draw(number(4))]:
        processes = draw(
            st.lists(
                st.tuples(
                    st.sampled_from(["C", "G", "C+G", "M+C", "-"]),
                    st.sampled_from([None, 0, 1, 2, 77]),
                ),
                max_size=2,
            )
        )
        used = draw(st.sampled_from([None, 0, IDLE, IDLE + 1, 40 * GIB]))
        devices.append(Device(uuid, used, draw(number(5)) == 0, tuple(processes)))
    held = []
    for _ in range(draw(number(4))):
        gpu = draw(st.sampled_from([0, 250, 500, 1000, 2000]))
        count = 0 if not gpu else max(1, gpu // 1000)
        uuids = draw(st.permutations(UUIDS))[:count]
        state = draw(st.sampled_from(["created", "running", "paused", "restarting", "exited"]))
        held.append(
            Held(
                draw(number(6000)),
                draw(number(30 * GIB)),
                draw(number(300 * GIB)),
                gpu,
                tuple(uuids),
                state,
            )
        )
    return Question(
        want=(
            draw(st.integers(1, 9000)),
            draw(st.integers(1, 40 * GIB)),
            draw(number(500 * GIB)),
            draw(st.sampled_from([0, 100, 250, 500, 750, 1000, 2000, 3000])),
        ),
        available=draw(st.integers(20 * GIB, 60 * GIB)),
        keep=(draw(number(2000)), draw(number(4 * GIB)), 0, draw(st.sampled_from([0, 500, 1000]))),
        max_gpus=draw(st.integers(-1, 4)),
        held=tuple(held),
        devices=tuple(devices),
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
def test_the_worker_decides_as_one_would(question: Question, pair: tuple[str, str]) -> None:
    assert ask(tools_of(pair), question) == expected(question)


def gpus(*uuids: str) -> tuple[Device, ...]:
    return tuple(Device(uuid) for uuid in uuids)


ONE = (1000, GIB, GIB)
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
    "one device kept free": (
        Question((*ONE, 2000), devices=gpus("GPU-a", "GPU-b"), keep=(0, 0, 0, 1000)),
        "refuse gpu 1000 2000",
    ),
    "a desktop on it is no outsider": (
        Question((*ONE, 1000), devices=(Device("GPU-a", 300 * MIB, processes=(("G", None),)),)),
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


FORGED: Sequence[str] = ("-5", "1e99", "abc", "9" * 16, "$(id)", "1 2", "")


@pytest.mark.parametrize("text", FORGED)
def test_a_forged_label_frees_and_breaks_nothing(text: str) -> None:
    tools = tools_of(("dash", "mawk"))
    forged = Held().line(1).split("\t")
    forged[3] = forged[4] = forged[5] = forged[6] = text
    real = Held(cpu=16000).line(2)
    script = f"{render('_admit')}\nadmit 1 1 1 0 16 9 9 9 9 0 0 0 0 -1 0\n"
    stdin = "\t".join(forged) + "\n" + real + "\n"
    assert tools.run(script, stdin=stdin).strip() == "refuse cpu 0 1"


@pytest.mark.parametrize(
    ("value", "text"),
    [(4, "4.0"), (100, "100.0"), (0.25, "0.25"), (0.5, "0.5"), (0, "0.0"), (1.125, "1.125")],
)
def test_amounts_in_words(value: float, text: str) -> None:
    assert amount(value) == text
