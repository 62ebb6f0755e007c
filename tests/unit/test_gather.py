"""Logs on their way home while the engine drops, hides and cuts: every byte that it kept comes
home once and in order, and what it did not keep is said where it is missing."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloudai.archive import Archive
from cloudai.controller import collect, gather
from cloudai.controller.collect import Collection
from cloudai.controller.gather import Repeats
from cloudai.core.errors import CloudaiError, StoreFull
from cloudai.core.model import Resources, TaskSpec
from cloudai.engines import LogRecord, Order
from cloudai.engines.fake import FakeEngine, FakeWorker

KEY = ("task-1700000000-log", 1)
NAME = "task-1700000000-log.1"
MARK = re.compile(rb"\n\[cloudai: gap: [^\n]*\]\n")
SECONDS = 10.0


async def until(condition: Callable[[], bool], what: str) -> None:
    async with asyncio.timeout(SECONDS):
        while not condition():
            await asyncio.sleep(0.001)
    assert condition(), what


@dataclass
class Bench:
    """One container that writes numbered records, and its log's way home."""

    folder: Path
    worker: FakeWorker = field(default_factory=FakeWorker)
    written: list[bytes] = field(default_factory=list)
    following: asyncio.Task[None] | None = None

    def __post_init__(self) -> None:
        self.engine = FakeEngine(self.worker)
        self.link = SimpleNamespace(engine=self.engine, id="w1", lost=lambda error: None)
        order = Order(
            assignment_id=NAME,
            task_id=KEY[0],
            store_id="s",
            spec=TaskSpec(image="busybox", resources=Resources.of(cpus=1, memory=1)),
            env={},
        )
        self.container = self.worker.create(order)
        self.worker.start(NAME)
        self.restart()

    def restart(self) -> None:
        """A new controller: nothing is remembered but the files."""
        self.archive = Archive(self.folder)
        self.collection = Collection(self.archive, KEY)

    def write(self, count: int, *, apart: float = 0, size: int = 0) -> None:
        for _ in range(count):
            self.worker.clock.advance(apart)  # type: ignore[attr-defined]
            data = b"%06d %s\n" % (len(self.written), b"x" * size)
            self.written.append(data)
            self.worker.write(NAME, data)

    async def bring(self) -> None:
        await self.collection.bring(self.link, self.container.sight.id, follow=False)  # type: ignore[arg-type]

    def follow(self) -> None:
        async def follow() -> None:
            try:
                await self.collection.bring(self.link, self.container.sight.id, follow=True)  # type: ignore[arg-type]
            except CloudaiError:
                return

        self.following = asyncio.ensure_future(follow())

    async def leave(self) -> None:
        if self.following is not None:
            self.following.cancel()
            await asyncio.gather(self.following, return_exceptions=True)
            self.following = None

    async def finish(self) -> None:
        await self.leave()
        self.worker.finish(NAME)
        await self.collection.finish(self.link, self.container.sight.id)  # type: ignore[arg-type]

    def home(self, *, marks: bool = False) -> bytes:
        return b"".join(self.archive.read(*KEY, marks=marks))

    def check(self) -> None:
        """Once, in order, all that the engine keeps, and a gap wherever something is missing."""
        shown = self.home(marks=True)
        pieces = MARK.split(shown)
        assert b"".join(pieces) == self.home()
        lines = [line + b"\n" for line in self.home().split(b"\n")[:-1]]
        numbers = [int(line[:6]) for line in lines]
        assert lines == [self.written[number] for number in numbers]
        assert numbers == sorted(set(numbers)), "doubled, or out of order"
        kept = [int(record.data[:6]) for record in self.container.log]
        assert set(kept) <= set(numbers), "lost, though the engine has it"
        assert self.missing() <= self.said(), "missing, and not said"

    def missing(self) -> set[int]:
        """Offsets at which records are missing at home."""
        places, offset, next_one = set(), 0, None
        for line in self.home().splitlines(keepends=True):
            if next_one not in (None, int(line[:6])):
                places.add(offset)
            offset, next_one = offset + len(line), int(line[:6]) + 1
        return places

    def said(self) -> set[int]:
        """Offsets at which it is said that some may be missing."""
        gaps = self.archive.gaps(*KEY)
        return {at for gap in gaps for at in range(gap.offset, gap.offset + gap.length + 1)}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("write"),
            st.integers(1, 12),
            st.sampled_from([0.0, 0.0, 0.001, 0.03, 0.2, 5.0]),
            st.sampled_from([0, 0, 300, 70_000]),
        ),
        st.tuples(st.just("bring")),
        st.tuples(st.just("follow")),
        st.tuples(st.just("cut")),
        st.tuples(st.just("restart")),
        st.tuples(st.just("rotate"), st.integers(0, 15)),
        st.tuples(st.just("truncate")),
        st.tuples(st.just("repeated"), st.integers(1, 15)),
        st.tuples(st.just("missed"), st.integers(1, 5), st.sampled_from([0.0, 0.01, 1.0])),
    ),
    max_size=25,
)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps)
def test_whatever_happens_the_log_is_whole_or_says_what_is_missing(
    tmp_path_factory: pytest.TempPathFactory, plan: list[tuple[object, ...]]
) -> None:
    asyncio.run(_live(Bench(tmp_path_factory.mktemp("logs")), plan))


SMALL = 16 * 1024
"""Bytes that an engine keeps of which a follower can miss any record but the first."""


async def _live(bench: Bench, plan: list[tuple[object, ...]]) -> None:
    bench.worker.log_room = SMALL
    for step, *values in plan:
        match step, values:
            case "write", [count, apart, size]:
                bench.write(count, apart=apart, size=size)  # type: ignore[arg-type]
            case "bring", _:
                await bench.leave()
                await bench.bring()
            case "follow", _:
                await bench.leave()
                bench.follow()
            case "cut", _:
                bench.engine.drop_streams()
            case "restart", _:
                await bench.leave()
                bench.restart()
            case "rotate", [keep]:
                # What was never read and is dropped cannot be told: no log begins at zero.
                if bench.archive.size(*KEY):
                    bench.worker.rotate(NAME, keep)  # type: ignore[arg-type]
            case "missed", [count, apart]:
                bench.write(count, apart=apart)  # type: ignore[arg-type]
                bench.worker.miss(NAME)
            case "repeated", [count]:
                bench.worker.repeat(NAME, count)  # type: ignore[arg-type]
            case "truncate", _:
                if bench.archive.size(*KEY):
                    bench.worker.truncate(NAME)
        for _ in range(30):
            await asyncio.sleep(0)
    await bench.finish()
    bench.check()
    assert bench.archive.complete(*KEY)


async def test_a_rotation_that_a_follower_missed_is_found_and_mended(bench: Bench) -> None:
    bench.write(3, apart=1)
    bench.follow()
    await until(lambda: len(bench.home()) == 3 * 8, "the beginning is home")
    bench.write(4, apart=1)
    bench.worker.miss(NAME)
    bench.write(5, apart=1)
    await until(lambda: len(bench.home()) == 8 * 8, "it went on after what it missed")
    await bench.finish()
    assert bench.home(marks=True) == b"".join(bench.written)
    assert bench.collection.moved == 4 * 8, "readers go on where they were"


async def followed_with_a_hole(bench: Bench, *, apart: float) -> None:
    """Records 20 to 29 missed by a follower that brought 10 to 19, and then what came after."""
    bench.worker.log_room = SMALL
    bench.write(10, apart=apart)
    bench.follow()
    await until(lambda: len(bench.home()) == 10 * 8, "the beginning is home")
    bench.write(10, apart=apart)
    await until(lambda: len(bench.home()) == 20 * 8, "and what came then")
    bench.write(10, apart=apart)
    bench.worker.miss(NAME)
    bench.write(200, apart=apart)
    await until(lambda: len(bench.home()) == 220 * 8, "it went on after what it missed")
    await bench.leave()


@pytest.mark.parametrize("apart", [0.0, 0.0001, 0.003, 1.0])
async def test_what_was_missed_and_is_the_oldest_that_is_kept_comes_home(
    bench: Bench, apart: float
) -> None:
    """What comes before it, and would show that something is missing, is dropped: rotation
    drops whole files, and a follower misses whole ones."""
    await followed_with_a_hole(bench, apart=apart)
    bench.worker.rotate(NAME, 210)
    await bench.bring()
    assert bench.home() == b"".join(bench.written)
    await bench.finish()
    bench.check()


@pytest.mark.parametrize("apart", [0.0, 0.0001, 0.003, 1.0])
@pytest.mark.parametrize(("kept", "first"), [(205, 20), (200, 20), (199, 21), (150, 70)])
async def test_what_was_missed_and_then_dropped_is_said(
    bench: Bench, apart: float, kept: int, first: int
) -> None:
    """Nobody can tell any more where, or whether: it is after what was made sure of, and
    before the first record that could be compared."""
    await followed_with_a_hole(bench, apart=apart)
    bench.worker.rotate(NAME, kept)
    await bench.bring()
    assert bench.missing() == {20 * 8}
    assert bench.said() == set(range(10 * 8, first * 8 + 1))
    bench.check()
    bench.write(20, apart=apart)
    await bench.finish()
    bench.check()
    assert bench.home().endswith(b"".join(bench.written[-kept:]))


async def test_the_words_where_nobody_can_tell(bench: Bench) -> None:
    await followed_with_a_hole(bench, apart=1)
    bench.worker.rotate(NAME, 199)
    await bench.bring()
    assert bench.home(marks=True).startswith(
        b"".join(bench.written[:10])
        + b"\n[cloudai: gap: records may be missing here and in the next 88 bytes: the engine"
        b" dropped what came between 2026-01-01T00:00:10.000000000Z and"
        b" 2026-01-01T00:00:32.000000000Z before it could be compared]\n" + bench.written[10]
    )


async def test_more_than_is_looked_through_comes_home_too(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gather, "COMMON", 256)
    monkeypatch.setattr(gather, "ENOUGH", 64)
    await followed_with_a_hole(bench, apart=1)
    bench.write(200, apart=1)
    bench.worker.miss(NAME)
    bench.worker.rotate(NAME, 410)
    await bench.bring()
    assert bench.home() == b"".join(bench.written)


async def test_a_long_log_without_a_later_time_goes_on_where_it_was(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All pieces of a line bear the time of the first: no boundary comes after it."""
    monkeypatch.setattr(gather, "COMMON", 256)
    monkeypatch.setattr(gather, "ENOUGH", 64)
    bench.worker.log_room = SMALL
    bench.write(300)
    await bench.bring()
    bench.write(20)
    bench.worker.rotate(NAME, 290)
    await bench.bring()
    bench.check()
    assert bench.home() == b"".join(bench.written)


async def test_what_is_made_sure_of_in_time_needs_no_mark(bench: Bench) -> None:
    await followed_with_a_hole(bench, apart=0.01)
    await bench.bring()
    bench.worker.rotate(NAME, 10)
    bench.write(10)
    await bench.finish()
    assert bench.home(marks=True) == b"".join(bench.written)


async def test_what_a_follower_brings_again_does_not_come_home_again(bench: Bench) -> None:
    """Docker's does, where it lags behind rotation: it begins the file anew."""
    bench.write(5, apart=1)
    bench.follow()
    await until(lambda: len(bench.home()) == 5 * 8, "the beginning is home")
    bench.write(4, apart=1)
    await until(lambda: len(bench.home()) == 9 * 8, "it went on")
    bench.worker.repeat(NAME, 3)
    bench.write(2, apart=1)
    await until(lambda: bench.following is not None and bench.following.done(), "it is noticed")
    assert bench.home() == b"".join(bench.written[:9])
    bench.follow()
    await until(lambda: len(bench.home()) == 11 * 8, "and followed again")
    await bench.finish()
    assert bench.home(marks=True) == b"".join(bench.written)


async def test_a_log_that_came_home_with_records_twice_is_mended_and_closed(bench: Bench) -> None:
    """As an earlier version left it: it must not keep its task from being put away."""
    bench.write(5)
    first, second, third, *rest = ((record.at, record.data) for record in bench.container.log)
    with bench.archive.writer(*KEY) as writer:
        writer.make_unsure()
        writer.extend([first, second, third, second, third, *rest])
    await bench.finish()
    assert bench.home(marks=True) == b"".join(bench.written)
    assert bench.archive.complete(*KEY)


async def test_many_places_where_they_differ_are_all_gone_through_once_it_has_ended(
    bench: Bench,
) -> None:
    bench.write(120, apart=1)
    log = [(record.at, record.data) for record in bench.container.log]
    with bench.archive.writer(*KEY) as writer:
        writer.make_unsure()
        for at in range(0, 120, 2):
            writer.extend([log[at], log[at + 1], log[at]])
    await bench.finish()
    assert bench.archive.complete(*KEY)
    lines = bench.home().splitlines(keepends=True)
    assert [line for line, _ in itertools.groupby(sorted(lines))] == bench.written


async def test_a_clock_that_is_set_back_ends_a_follower_once(bench: Bench) -> None:
    bench.write(3, apart=60)
    bench.follow()
    await until(lambda: len(bench.home()) == 3 * 8, "the beginning is home")
    bench.worker.clock.advance(-3600)  # type: ignore[attr-defined]
    bench.write(2, apart=1)
    await until(lambda: bench.following is not None and bench.following.done(), "it is noticed")
    bench.follow()
    await until(lambda: len(bench.home()) == 5 * 8, "and followed again")
    bench.write(2, apart=1)
    await until(lambda: len(bench.home()) == 7 * 8, "it goes on")
    assert bench.following is not None
    assert not bench.following.done()
    await bench.finish()
    assert bench.home(marks=True) == b"".join(bench.written)


def test_streams_that_cross_and_long_lines_are_no_repetition() -> None:
    repeats = Repeats()
    news = [(10, b"a\n"), (12, b"b\n"), (11, b"c\n"), (13, b"x" * 9), (13, b"x" * 9), (13, b"x\n")]
    assert not any(repeats.may_have(LogRecord(at=at, data=data)) for at, data in news)
    assert repeats.may_have(LogRecord(at=13, data=b"x\n"))
    assert repeats.may_have(LogRecord(at=11, data=b"c\n"))
    assert repeats.may_have(LogRecord(at=9, data=b"earlier\n"))


async def test_what_a_killed_controller_followed_is_made_sure_of_by_the_next(bench: Bench) -> None:
    bench.write(3, apart=1)
    bench.follow()
    await until(lambda: len(bench.home()) == 3 * 8, "the beginning is home")
    bench.write(4, apart=1)
    bench.worker.miss(NAME)
    bench.write(5, apart=1)
    await until(lambda: len(bench.home()) == 8 * 8, "it went on after what it missed")
    await bench.leave()
    bench.restart()
    await bench.finish()
    assert bench.home(marks=True) == b"".join(bench.written)


async def test_a_follower_that_went_deaf_is_noticed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collect, "SILENCE", 0.02)
    monkeypatch.setattr(collect, "ON_ITS_WAY", 0.02)
    bench.write(3, apart=1)
    bench.follow()
    await until(lambda: len(bench.home()) == 3 * 8, "it is home")
    await asyncio.sleep(0.1)
    assert bench.following is not None
    assert not bench.following.done(), "silence alone is no fault"
    bench.worker.truncate(NAME)
    bench.write(2, apart=1)
    await until(lambda: bench.following is not None and bench.following.done(), "it is noticed")
    bench.follow()
    await until(lambda: len(bench.home()) == 5 * 8, "and followed again")
    await bench.finish()
    bench.check()


async def test_a_deaf_follower_does_not_keep_the_harvest_waiting(bench: Bench) -> None:
    bench.write(3, apart=1)
    bench.collection.follower = asyncio.ensure_future(
        bench.collection.bring(bench.link, bench.container.sight.id, follow=True)  # type: ignore[arg-type]
    )
    await until(lambda: len(bench.home()) == 3 * 8, "it is home")
    bench.worker.truncate(NAME)
    bench.write(2, apart=1)
    async with asyncio.timeout(SECONDS):
        await bench.finish()
    bench.check()


async def test_the_words_of_a_gap(bench: Bench) -> None:
    bench.write(2, apart=1)
    await bench.bring()
    bench.write(2, apart=1)
    bench.worker.rotate(NAME, 0)
    bench.write(2, apart=1)
    await bench.finish()
    one, two, _, _, five, six = bench.written
    assert bench.home(marks=True) == (
        one + two + b"\n[cloudai: gap: the engine no longer has what came between"
        b" 2026-01-01T00:00:02.000000000Z and 2026-01-01T00:00:05.000000000Z]\n" + five + six
    )
    assert [gap.offset for gap in bench.archive.gaps(*KEY)] == [len(one + two)]


async def test_a_log_emptied_at_its_end_says_so(bench: Bench) -> None:
    bench.write(2, apart=1)
    await bench.bring()
    bench.write(2, apart=1)
    bench.worker.rotate(NAME, 0)
    await bench.finish()
    assert bench.home(marks=True) == b"".join(bench.written[:2]) + (
        b"\n[cloudai: gap: the engine no longer has what came after"
        b" 2026-01-01T00:00:02.000000000Z]\n"
    )


async def test_a_log_as_large_as_the_engine_keeps_may_lack_its_beginning(bench: Bench) -> None:
    bench.worker.log_room = 100
    bench.write(50, apart=1)
    bench.worker.rotate(NAME, 20)
    await bench.finish()
    shown = bench.home(marks=True)
    assert shown.startswith(
        b"\n[cloudai: gap: the engine had dropped old records; what it kept begins at"
        b" 2026-01-01T00:00:31.000000000Z]\n000030 "
    )
    assert bench.home() == b"".join(bench.written[30:])


async def test_long_lines_and_bytes_that_are_no_text_through_twenty_cuts(bench: Bench) -> None:
    line = bytes(range(256)) * 20_000
    pieces = [line[at : at + 16_384] for at in range(0, len(line), 16_384)]
    for _ in range(20):
        bench.follow()
        for piece in pieces[:20]:
            bench.written.append(piece)
            bench.worker.write_record(NAME, piece)
        await asyncio.sleep(0.002)
        bench.engine.drop_streams()
        await bench.leave()
    for piece in pieces:
        bench.written.append(piece)
        bench.worker.write_record(NAME, piece)
    await bench.finish()
    assert bench.home(marks=True) == b"".join(bench.written)


async def test_a_full_disk_at_home_loses_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.write(2, apart=1)
    await bench.bring()
    bench.write(2, apart=1)

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr("cloudai.archive.writer.write_all", full)
        with pytest.raises(StoreFull):
            await bench.finish()
        assert not bench.archive.complete(*KEY)
    await bench.finish()
    assert bench.home(marks=True) == b"".join(bench.written)
