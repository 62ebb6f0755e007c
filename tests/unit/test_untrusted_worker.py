"""What a worker answers is not trusted: whatever comes, the calls of that worker fail, in words,
and nothing else happens. (Containers described falsely: test_containers.)
"""

from __future__ import annotations

import contextlib
import json
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cloudai.core.errors import CloudaiError, Indeterminate
from cloudai.core.model import Phase, Resources, TaskSpec, WorkerSpec
from cloudai.engines import Order, Running
from cloudai.engines.docker import api_watch, log_records
from cloudai.engines.docker.admission import parse_start
from cloudai.engines.docker.containers import sight_of
from cloudai.engines.docker.doctor import Examination, judge
from cloudai.engines.docker.parts import Parts
from cloudai.engines.docker.probe import learn, parse_probe
from cloudai.engines.docker.pulling import Pull
from cloudai.shells import channel as channel_module
from cloudai.shells import framing
from cloudai.shells.channel import STDOUT, Call, Channel

from .test_containers import BEGAN, document

DATA = Path(__file__).parent.parent / "data" / "probe"
SPEC = WorkerSpec(id="gpu1")
RECORDED = [path.read_text() for path in sorted(DATA.glob("*.txt"))]
ORDER = Order(
    assignment_id="task-1-abc.1",
    task_id="task-1-abc",
    store_id="store-1",
    spec=TaskSpec(image="alpine", argv=(), resources=Resources.of(cpus=1), user_id="ann"),
    env={},
)
LONG = "9" * 5000
"""More digits than Python turns into a number."""

junk = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        [LONG, f"-{LONG}", "1e999", "NaN", "\x1b[2J\x1b]0;x\x07", "\u202eexe", "²", "٣"]
    ),
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | junk,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(junk, inner, max_size=3),
    max_leaves=8,
)


@st.composite
def mangled(draw: st.DrawFn) -> str:
    """A recorded answer of a probe with some of its lines changed, doubled, cut or gone."""
    lines = draw(st.sampled_from(RECORDED)).split("\n")
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(lines) - 1))
        between = draw(st.sampled_from((" ", "\t")))
        words = lines[at].split(between)
        match draw(st.sampled_from(("word", "drop", "line", "json", "cut"))):
            case "word":
                words[draw(st.integers(0, len(words) - 1))] = draw(junk)
                lines[at] = between.join(words)
            case "drop" if len(lines) > 1:
                del lines[at]
            case "line":
                lines.insert(at, f"{words[0]} {draw(junk)}")
            case "json":
                lines.insert(at, f"{words[0]} {json.dumps(draw(anything))}")
            case _:
                lines[at] = lines[at][: draw(st.integers(0, len(lines[at])))]
    return "\n".join(lines)


@given(mangled())
@example(f"fact cpus {LONG}\n" + RECORDED[0])
@example(RECORDED[0].replace("status 0", f"status {LONG}"))
def test_a_probe(text: str) -> None:
    with contextlib.suppress(CloudaiError):
        sight = parse_probe(text, SPEC)
        learn(text, sight)
        moment = sight.clock
        judge(
            Examination(
                worker_id="gpu1",
                sight=sight,
                trouble=None,
                facts=Parts(text).facts(),
                asked_at=moment,
                answered_at=moment,
            )
        )


VERDICTS = (
    "standing ran refused image-missing failed silent stranger unknown busy nolock".split()  # noqa: SIM905
)


@st.composite
def answers_to_a_start(draw: st.DrawFn) -> str:
    told = document()
    part = draw(st.sampled_from(["State", "Config", "HostConfig", "Id", "Name"]))
    if isinstance(told[part], dict) and draw(st.booleans()):
        told[part][draw(st.sampled_from(sorted(told[part])))] = draw(anything)
    else:
        told[part] = draw(anything)
    rest = " ".join(draw(st.lists(junk, max_size=3)))
    return "\n".join(
        [
            f"run {draw(junk)}",
            f"run status {draw(st.sampled_from(['0', '1', '125', LONG]))}",
            f"found {json.dumps(told)}",
            f"trouble {draw(junk)}",
            f"verdict {draw(st.sampled_from(VERDICTS))} {rest}".strip(),
        ]
    )


@given(answers_to_a_start() | st.text(max_size=200))
@example(f"verdict refused cpu {LONG} 1")
@example("verdict refused cpu -1 x")
def test_a_start(text: str) -> None:
    with contextlib.suppress(CloudaiError):
        outcome = parse_start(text, ORDER, worker_id="gpu1")
        if isinstance(outcome, Running):
            assert outcome.container.phase is not Phase.CREATED


@given(st.dictionaries(st.sampled_from(sorted(document())), anything))
def test_a_description_of_another_kind_is_none_or_whole(changes: dict[str, Any]) -> None:
    sight = sight_of(document() | changes)
    assert sight is None or (sight.id and sight.assignment_id and sight.task_id)


@given(st.lists(junk | st.builds("{} {}".format, st.sampled_from(["tick", "done"]), junk)))
@example([f"tick {LONG}"])
@example([f"done {LONG}"])
def test_a_pull(lines: list[str]) -> None:
    pull = Pull("alpine", stall=10, clock=lambda: 0.0)
    with contextlib.suppress(CloudaiError):
        for line in lines:
            pull.line(line)
        pull.finish()


@given(st.binary(max_size=200) | anything.map(lambda value: json.dumps(value).encode()))
def test_an_event(line: bytes) -> None:
    with contextlib.suppress(CloudaiError):
        api_watch._happening(line)


@given(anything, anything)
def test_a_reading_of_what_it_uses(one: object, other: object) -> None:
    first: dict[str, Any] = {"read": BEGAN, "cpu_stats": {"cpu_usage": {"total_usage": 1}}}
    second: dict[str, Any] = {"read": one, "cpu_stats": other, "memory_stats": one}
    api_watch._usage(first, second)


@given(st.binary(max_size=300))
@example(b"\x01\0\0\0\xff\xff\xff\xff")
def test_a_log(data: bytes) -> None:
    for decoder in (log_records.Frames(), log_records.Lines()):
        with contextlib.suppress(CloudaiError):
            list(decoder.feed(data))
            list(decoder.finish())


@given(st.text(alphabet=string.printable, max_size=40))
@example(LONG)
def test_a_reply_of_any_length_it_claims(length: str) -> None:
    nonce = "cloudai-0"
    told = f"\n{nonce} reply {length}\nbody\n{nonce} status {length}\n\n{nonce} end\n"
    framing.unframe(nonce, told.encode())


class Endless(Channel):
    """Says the same again and again."""

    def __init__(self, said: bytes) -> None:
        super().__init__()
        self.said = said
        self.taken = 0

    async def read(self) -> tuple[int, bytes]:
        self.taken += len(self.said)
        return STDOUT, self.said

    def write(self, data: bytes) -> None: ...

    def write_eof(self) -> None: ...

    def signal(self, name: str) -> None: ...

    def close(self) -> None: ...

    def resize(self, columns: int, rows: int) -> None: ...

    def _pause_reading(self) -> None: ...

    def _resume_reading(self) -> None: ...


async def test_an_answer_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_module, "ANSWER_AT_MOST", 100_000)
    endless = Endless(b"x" * 1000)
    with pytest.raises(Indeterminate, match="without end"):
        await Call(endless, "true").answer()
    assert endless.taken <= 101_000
