"""Getting a log out of an engine, whole and in order, whatever the engine lost of it.

What was read without following is taken for true. What a follower brought may lack a rotation
that it missed, so it is read once more at the end; what it brings a second time (where it lags
behind rotation, Docker's begins a file anew) ends it. The engine must offer, byte for byte,
what the archive has from some boundary on; where it does not:

- it dropped what the archive has (rotation, a truncated file): the archive keeps it, and goes
  on after it. Nothing in common any more: a gap.
- it has what the archive lacks: the archive's end is written anew, from the last boundary at
  which both agree.
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from bisect import bisect_right
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from cloudai.archive import Archive, Boundary, LogWriter, Rewrite
from cloudai.core.errors import CloudaiError, EngineFailed
from cloudai.engines import LogRecord

log = logging.getLogger(__name__)

COMMON = 8 * 1024**2
"""Bytes of the archive's end within which records in common are looked for."""
TRIES = 20
"""Looks at a log whose old records keep being dropped meanwhile."""

REMEMBERED = 2000
"""Records by whose times one is known that a follower brings again."""
MOST_MARKS = 100_000

Opened = AbstractAsyncContextManager[AsyncIterator[LogRecord]]
Open = Callable[[int], Opened]
"""The engine's records from the first at or after a moment (nanoseconds) on."""


class Sink:
    """Records on their way to the disk: everything that came at once is one write, and nothing
    waits for more to come (``call_soon`` runs as soon as the stream has to wait)."""

    AT_MOST = 1024 * 1024

    def __init__(self, writer: LogWriter | Rewrite, *, grown: Callable[[], None]) -> None:
        self._writer = writer
        self._grown = grown
        self._records: list[tuple[int, bytes]] = []
        self._bytes = 0
        self._failed: CloudaiError | None = None
        self.used = False
        """Whether anything was added."""

    def add(self, record: LogRecord) -> None:
        """Raises ``StoreFull`` and others, also for an earlier record."""
        if not self._records:
            asyncio.get_running_loop().call_soon(self._flush_soon)
        self.used = True
        self._records.append((record.at, record.data))
        self._bytes += len(record.data)
        if self._bytes >= self.AT_MOST:
            self.flush()

    def _flush_soon(self) -> None:
        try:
            self.flush()
        except CloudaiError as error:
            self._failed = error

    def flush(self) -> None:
        """Raises ``StoreFull`` and others, also for an earlier batch."""
        if self._failed is not None:
            raise self._failed
        records, self._records, self._bytes = self._records, [], 0
        if records:
            self._writer.extend(records)
            self._grown()


class Expected:
    """The archive's bytes from a place on, as the engine should offer them."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._held = b""
        self._at = 0
        self.matched = 0
        """Bytes that came as expected."""

    @property
    def done(self) -> bool:
        """Whether the archive has nothing more."""
        return self._at >= len(self._held) and not self._more()

    def is_next(self, data: bytes) -> bool:
        """Whether the archive goes on with these bytes; moves on if it does."""
        while len(self._held) - self._at < len(data):
            if not self._more():
                return False
        if not self._held.startswith(data, self._at):
            return False
        self._at += len(data)
        self.matched += len(data)
        return True

    def _more(self) -> bool:
        more = next(self._chunks, b"")
        self._held, self._at = self._held[self._at :] + more, 0
        return bool(more)


class Repeats:
    """Tells, of the records of one stream, which it may bring for the second time.

    They bear the time they had. To be asked about each that is new, in order; a "may" that is
    wrong (streams that cross by nanoseconds do not, a clock that is set back does) costs a
    look at the log.
    """

    def __init__(self, since: int = 0) -> None:
        """``since``: the time from which on records were asked for."""
        self._latest = since
        self._times: deque[int] = deque(maxlen=REMEMBERED)
        self._marks: set[tuple[int, int]] = set()
        """Of the records of the latest time: the pieces of a long line all bear one."""
        self._last = (0, 0)

    def known(self, record: LogRecord) -> None:
        """This one is not new, and stands where it belongs, also where clocks went back."""
        if record.at < self._latest:
            self._latest = -1
            self._times.clear()
        self.may_have(record)

    def may_have(self, record: LogRecord) -> bool:
        """Whether it may have come before."""
        mark = (len(record.data), zlib.crc32(record.data))
        if record.at > self._latest:
            self._latest = record.at
            self._marks.clear()
        elif record.at == self._latest:
            # All pieces of a line of one byte over and over are alike, but for its end.
            if mark in self._marks and (mark != self._last or record.data.endswith(b"\n")):
                return True
        elif not self._times or record.at <= self._times[0] or record.at in self._times:
            return True
        if record.at == self._latest and len(self._marks) < MOST_MARKS:
            self._marks.add(mark)
        self._last = mark
        self._times.append(record.at)
        return False


@dataclass(frozen=True, slots=True)
class _Differs:
    """The engine offered another record than the archive has at ``offset``; ``None``: none."""

    offset: int
    record: LogRecord | None


class Gatherer:
    """One log on its way, while its writer is open."""

    def __init__(
        self,
        archive: Archive,
        key: tuple[str, int],
        writer: LogWriter,
        open_log: Open,
        *,
        room: int,
        grown: Callable[[], None],
    ) -> None:
        """``room``: see ``Engine.log_room``. ``grown`` is called after each write."""
        self._archive, self._key, self._writer = archive, key, writer
        self._open, self._grown = open_log, grown
        self._room = room
        self.moved = 0
        """Bytes by which what readers have read moved, when the log was written anew."""

    async def bring(self, *, final: bool = False) -> None:
        """Appends what the engine has beyond the archive's end, and makes sure of what was
        followed. ``final``: the container has ended, the engine's log stands still."""
        await self._settle(final=final)
        self._writer.make_sure()

    async def follow(self) -> bool:
        """Appends what comes until the container ends. Whether the engine went on where the
        archive ends; if not, nothing was appended: ``bring`` first."""
        self._writer.make_unsure()
        size = self._writer.resume.size
        edges = [edge for edge, _ in zip(self._writer.boundaries(), range(2), strict=False)]
        start = edges[-1] if edges else Boundary(self._writer.resume.at + 1 if size else 0, size)
        return await self._compare(start, repeats=Repeats(start.since)) is None

    async def _settle(self, *, final: bool) -> None:
        edges = list(self._writer.boundaries())[::-1]
        if not edges:
            await (self._go_on(self._blind()) if self._writer.resume.size else self._read_all())
            return
        # One earlier than needed: a first record that differs then means that the engine
        # dropped older ones, not that the archive lacks it.
        offsets = [edge.offset for edge in edges]
        at = min(bisect_right(offsets, self._writer.sure) - 2, len(edges) - 2)
        at, first = max(0, at), True
        # A log that stands still is gone through to its end: each look begins after the last.
        for _ in range(len(edges) if final else TRIES):
            differs = await self._compare(edges[at])
            if differs is None:
                return
            if differs.record is None:
                # It has less than the archive; nobody knows of how much.
                if final:
                    self._writer.mark_gap(None)
                return
            if differs.offset == offsets[0] == 0 and await self._has_all():
                # A follower missed the very beginning, before which no boundary can be.
                await self._write_anew(edges[0], at_least=self._writer.resume.size)
                return
            inside = max(at, bisect_right(offsets, differs.offset) - 1)
            dropped = differs.record.at > self._latest_before(edges, inside + 1)
            if not dropped and not (first and differs.offset == offsets[at]):
                if differs.offset == offsets[inside] and inside > at:
                    inside -= 1  # What is missing may be as old as what comes before it.
                known = differs.offset - offsets[inside]
                before = None if known else edges[inside - 1].since
                await self._write_anew(edges[inside], known=known, before=before)
                return
            later = [n for n in range(at + 1, len(edges)) if edges[n].since > differs.record.at]
            if not later:
                start = edges[max(at, len(edges) - 2)]
                await self._go_on(start, known=max(0, differs.offset - start.offset))
                return
            at, first = later[0], False
        raise EngineFailed("the worker's engine keeps dropping old log records while they are read")

    def _latest_before(self, edges: Sequence[Boundary], at: int) -> int:
        """Nanoseconds: no record of the archive before that boundary is later."""
        return edges[at].since - 1 if at < len(edges) else self._writer.resume.at

    def _blind(self) -> Boundary:
        """Where to go on without a boundary: after a gap with no later record since."""
        gaps = self._archive.gaps(*self._key)
        return Boundary(self._writer.resume.at, gaps[-1].offset if gaps else 0)

    async def _read_all(self) -> None:
        sink = Sink(self._writer, grown=self._grown)
        cost, began = 0, 0
        try:
            async with self._open(0) as records:
                async for record in records:
                    cost += record.cost
                    began = began or record.at
                    sink.add(record)
        finally:
            sink.flush()
        if cost >= self._room:
            self._writer.mark_beginning(began)

    async def _compare(self, start: Boundary, *, repeats: Repeats | None = None) -> _Differs | None:
        """Reads on from a boundary and appends what is new; says where the engine and the
        archive differ, with nothing appended then. ``repeats`` ends it at what came before,
        with that not appended."""
        expected = Expected(self._archive.read_from(*self._key, start.offset, marks=False))
        sink = Sink(self._writer, grown=self._grown)
        try:
            async with self._open(start.since) as records:
                async for record in records:
                    if sink.used or expected.done:
                        if repeats is not None and repeats.may_have(record):
                            log.info("%s: a follower brings records again", self._key)
                            return _Differs(self._writer.resume.size, record)
                        sink.add(record)
                    elif not expected.is_next(record.data):
                        return _Differs(start.offset + expected.matched, record)
                    elif repeats is not None:
                        repeats.known(record)
        finally:
            sink.flush()
        if sink.used or expected.done:
            return None
        return _Differs(start.offset + expected.matched, None)

    async def _has_all(self) -> bool:
        """Whether the engine has every byte of the archive, in order, maybe with more between."""
        expected = Expected(self._archive.read_from(*self._key, 0, marks=False))
        async with self._open(0) as records:
            async for record in records:
                expected.is_next(record.data)
        return expected.done

    async def _go_on(self, start: Boundary, *, known: int = 0) -> None:
        """Goes on where the engine has not all of the archive's end any more: after the
        records they have in common, or with a gap. ``known``: bytes from the start on that the
        engine offers and the archive has."""
        size, latest = self._writer.resume.size, self._writer.resume.at
        begin = max(start.offset + known, size - COMMON)
        end = b"".join(self._archive.read_from(*self._key, begin, marks=False))
        offered: list[LogRecord] | None = []
        held = 0
        sink = Sink(self._writer, grown=self._grown)
        try:
            async with self._open(start.since) as records:
                async for record in records:
                    if known > 0:
                        known -= len(record.data)
                    elif offered is None:
                        sink.add(record)
                    else:
                        offered.append(record)
                        held += len(record.data)
                        if record.at > latest or held > len(end):
                            self._join(offered, end, sink)
                            offered = None
            if offered:
                self._join(offered, end, sink)
        finally:
            sink.flush()

    def _join(self, offered: list[LogRecord], end: bytes, sink: Sink) -> None:
        """Appends what of the offered records the archive does not end with."""
        whole = b"".join(record.data for record in offered)
        length, known = len(whole), len(offered)
        while known and not end.endswith(whole[:length]):
            known -= 1
            length -= len(offered[known].data)
        if not known:
            log.info("%s: the engine dropped what came before %d", self._key, offered[0].at)
            self._writer.mark_gap(offered[0].at)
        for record in offered[known:]:
            sink.add(record)

    async def _write_anew(
        self, start: Boundary, *, known: int = 0, before: int | None = None, at_least: int = 0
    ) -> None:
        """Writes the archive's end from a boundary on as the engine has it, which may be less:
        a follower may have brought something twice.

        The engine drops the oldest first. So it has all from the boundary on if it offers
        again the ``known`` bytes after it, or any record from the time ``before`` to it; or if
        the log becomes ``at_least`` that long. Raises ``EngineFailed`` where it dropped them
        meanwhile.
        """
        old = self._writer.resume
        log.warning("%s: the log's end is written anew from byte %d", self._key, start.offset)
        expected = Expected(self._archive.read_from(*self._key, start.offset, marks=False))
        rewrite = self._writer.again(start)
        sink = Sink(rewrite, grown=lambda: None)
        same: int | None = None
        """Where in the new log that stands which ended the old one."""
        seen, begun = False, before is None
        try:
            async with self._open(start.since if before is None else before) as records:
                async for record in records:
                    begun = begun or record.at >= start.since
                    if not begun:
                        seen = True
                        continue
                    if before is not None and not seen:
                        raise _dropped_meanwhile()
                    if expected.matched < known and not expected.is_next(record.data):
                        raise _dropped_meanwhile()
                    if same is None and record.at > old.at:
                        sink.flush()
                        same = rewrite.size
                    sink.add(record)
            sink.flush()
            if not begun or expected.matched < known or rewrite.size < at_least:
                raise _dropped_meanwhile()
            moved = (rewrite.size if same is None else same) - old.size
            rewrite.commit()
        except BaseException:
            rewrite.give_up()
            raise
        self.moved += moved
        self._grown()


def _dropped_meanwhile() -> EngineFailed:
    return EngineFailed("the worker's engine dropped log records meanwhile")
