"""Getting a log out of an engine, whole and in order, whatever the engine lost of it.

What was read without following is taken for true: the engine keeps a log's end, and drops the
oldest first. What a follower brought may lack whole files (Docker's goes on with the newest one
where it lags behind rotation, and says nothing), so it is read once more, before the engine
drops as much; what it brings a second time (a file that Docker's begins anew) ends it.

So from the first record that the engine offers on, the log is what the engine has. Where the
archive differs from there on:

- it has older records (the engine dropped them since: rotation, a truncated file): they stay
  before that one.
- it lacks some: its end is written anew.

Between what was made sure of and the first record that the engine still offers, nobody can tell
whether a follower left something out: that is said (``mark_unsure``). Nothing in common any
more: a gap.
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from bisect import bisect_right
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from itertools import chain, islice, takewhile
from operator import lt

from cloudai.archive import Archive, Boundary, LogWriter, Rewrite
from cloudai.core.errors import CloudaiError, EngineFailed
from cloudai.engines import LogBatch, LogRecord

log = logging.getLogger(__name__)

COMMON = 8 * 1024**2
"""Bytes within which records in common are looked for."""
ENOUGH = 1024**2
"""Bytes that are looked through in any case: a few hundred thousand of the shortest records."""
TRIES = 20
"""Looks at a log whose old records keep being dropped meanwhile."""
MAKE_SURE = 4
"""What was followed is read once more after this part of what the engine keeps, as the engine
counts it: short lines take ten times their bytes there."""
FILES = 16
"""An engine's room for a log is at most so many of its files. A follower leaves out whole ones,
and only after it brought one: so from a shorter log nothing can be missing."""
COST = 128
"""Bytes that a byte of a log takes in an engine's file, at most: a line of one byte, in JSON."""

REMEMBERED = 2000
"""Records by whose times one is known that a follower brings again."""
MOST_MARKS = 100_000

Opened = AbstractAsyncContextManager[AsyncIterator[LogBatch]]
Open = Callable[[int], Opened]
"""The engine's records from the first at or after a moment (nanoseconds) on."""


class Sink:
    """Records on their way to the disk: everything that came at once is one write, and nothing
    waits for more to come (``call_soon`` runs as soon as the stream has to wait)."""

    AT_MOST = 1024 * 1024

    def __init__(self, writer: LogWriter | Rewrite, *, grown: Callable[[], None]) -> None:
        self._writer = writer
        self._grown = grown
        self._batches: list[LogBatch] = []
        self._bytes = 0
        self._failed: CloudaiError | None = None
        self.used = False
        """Whether anything was added."""

    def add(self, batch: LogBatch) -> None:
        """Raises ``StoreFull`` and others, also for an earlier batch."""
        if not batch:
            return
        if not self._batches:
            asyncio.get_running_loop().call_soon(self._flush_soon)
        self.used = True
        self._batches.append(batch)
        self._bytes += sum(map(len, batch.data))
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
        batches, self._batches, self._bytes = self._batches, [], 0
        if batches:
            self._writer.extend(
                chain.from_iterable(zip(one.at, one.data, strict=True) for one in batches)
            )
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

    def count_next(self, batch: LogBatch) -> int:
        """With how many of these the archive goes on; moves on by those."""
        if self.is_next(b"".join(batch.data)):
            return len(batch)
        for place, data in enumerate(batch.data):
            if self.done or not self.is_next(data):
                return place
        return len(batch)

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

    def known(self, batch: LogBatch) -> None:
        """These are not new, and stand where they belong, also where clocks went back."""
        if self._is_later(batch):
            return
        for record in batch:
            if record.at < self._latest:
                self._latest = -1
                self._times.clear()
            self.may_have(record)

    def count_new(self, batch: LogBatch) -> int:
        """How many come before the first that may have come before."""
        if self._is_later(batch):
            return len(batch)
        for place, record in enumerate(batch):
            if self.may_have(record):
                return place
        return len(batch)

    def _is_later(self, batch: LogBatch) -> bool:
        """Whether each is later than all before it, as nearly all are: then takes note of them."""
        if not (self._latest < batch.at[0] and all(map(lt, batch.at, batch.at[1:]))):
            return False
        self._times.extend(batch.at[:-1])
        self.may_have(batch[-1])
        return True

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
class _Log:
    """One log: where it is, and where it comes from."""

    archive: Archive
    key: tuple[str, int]
    writer: LogWriter
    open: Open
    room: int
    grown: Callable[[], None]

    def read(self, begin: int, end: int | None = None) -> Iterator[bytes]:
        """The archive's bytes from one offset up to another."""
        for chunk in self.archive.read_from(*self.key, begin, marks=False):
            yield chunk if end is None else chunk[: end - begin]
            begin += len(chunk)
            if end is not None and begin >= end:
                return


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
        self._log = _Log(archive, key, writer, open_log, room, grown)
        self.moved = 0
        """Bytes by which what readers have read moved, when the log was written anew."""

    async def bring(self, *, final: bool = False) -> None:
        """Appends what the engine has beyond the archive's end, and makes sure of what was
        followed. ``final``: the container has ended, the engine's log stands still."""
        writer = self._log.writer
        if writer.resume.size:
            await self._settle(final=final)
        else:
            await self._read_all()
        writer.make_sure()

    async def _settle(self, *, final: bool) -> None:
        for _ in range(TRIES):
            look = _Look(self._log)
            if await look.take(final=final):
                self.moved += look.moved
                return
        raise EngineFailed("the worker's engine keeps dropping old log records while they are read")

    async def _read_all(self) -> None:
        sink = Sink(self._log.writer, grown=self._log.grown)
        cost, began = 0, 0
        try:
            async with self._log.open(0) as batches:
                async for batch in batches:
                    cost += batch.cost
                    began = began or batch.at[0]
                    sink.add(batch)
        finally:
            sink.flush()
        if cost >= self._log.room:
            self._log.writer.mark_beginning(began)

    async def follow(self) -> bool:
        """Appends what comes until the container ends, a record comes a second time, or it is
        time to make sure of it all. Whether the engine went on where the archive ends; if not,
        nothing was appended. Next is to ``bring``, in any case."""
        writer = self._log.writer
        writer.make_unsure()
        size = writer.resume.size
        # What is before a gap, the engine does not have any more.
        gaps = self._log.archive.gaps(*self._log.key)
        floor = max((gap.offset + gap.length for gap in gaps), default=0)
        later = takewhile(lambda edge: edge.offset >= floor, writer.boundaries())
        edges = list(islice(later, 2))
        start = edges[-1] if edges else Boundary(writer.resume.at + 1 if size else 0, size)
        expected = Expected(self._log.read(start.offset))
        repeats = Repeats(start.since)
        sink = Sink(writer, grown=self._log.grown)
        left = self._log.room // MAKE_SURE
        try:
            async with self._log.open(start.since) as batches:
                async for batch in batches:
                    if not (sink.used or expected.done):
                        count = expected.count_next(batch)
                        repeats.known(batch[:count])
                        batch = batch[count:]
                        if batch and not expected.done:
                            return False
                    if batch:
                        count = repeats.count_new(batch)
                        sink.add(batch[:count])
                        if count < len(batch):
                            log.info("%s: a follower brings records again", self._log.key)
                            return False
                        left -= batch.cost
                        if left < 0:
                            return True
        finally:
            sink.flush()
        return sink.used or expected.done


@dataclass(slots=True)
class _Offered:
    """Records that the engine offers, from the first one on, of a segment of the archive whose
    older ones it may have dropped: as many as are needed to find where they are."""

    slot: int
    """Which boundary the segment begins at."""
    passed: int
    """Records that were offered before these."""
    begin: int
    """Offsets in the archive between which they belong."""
    end: int
    first: int
    """Nanoseconds: the time of the first one."""
    until: int
    """Records of then or later come after the segment."""
    open: bool
    """No boundary comes after it: some may be new."""
    held: deque[LogRecord] = field(default_factory=deque)
    size: int = 0
    """Bytes of those that are held."""
    count: int = 0
    """Of all that were offered, and their checksum."""
    checksum: int = 0

    @property
    def all_held(self) -> bool:
        return self.count == len(self.held)

    def add(self, record: LogRecord) -> None:
        self.count += 1
        self.checksum = zlib.crc32(record.data, self.checksum)
        self.held.append(record)
        self.size += len(record.data)
        # More than the archive can have of them, else they are not worth comparing.
        while self.size > min(2 * COMMON, 2 * (self.end - self.begin) + ENOUGH):
            self.size -= len(self.held.popleft().data)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the archive has what the engine offers of a segment."""

    offset: int
    """What is before it, the engine dropped; what is after it, it offers."""
    old: int
    """So many of the records that are held are no newer than the archive."""
    lacks: bool
    """Whether the archive lacks some of those; or they are not all held."""


def _place(offered: _Offered, data: bytes) -> _Place:
    """``data``: the archive's bytes before ``offered.end``, from ``offered.begin`` on where
    those are not too many.

    From the first record on that the engine offers, the archive has those that it offers, in
    order, maybe not all of them, and nothing else.
    """
    held = list(offered.held)
    old, at, lacks = len(held), len(data), False
    whole = offered.end - len(data) <= offered.begin
    if offered.open:
        while old and not data.endswith(held[old - 1].data):
            old -= 1
    for record in reversed(held[:old]):
        if data.endswith(record.data, 0, at):
            at -= len(record.data)
        elif whole or at >= len(record.data):
            lacks = True
        else:
            break  # So much in common is enough.
    if not whole and lacks:
        # Nobody can tell how far back they begin.
        old, at, lacks = 0, len(data), offered.open and not offered.all_held
    elif not offered.all_held:
        lacks = lacks or whole or not old
    return _Place(offered.end - len(data) + at, old, lacks)


class _Anew:
    """A log's end that is written anew from a boundary on."""

    def __init__(self, into: _Log, start: Boundary, offset: int, *, until: int) -> None:
        """What is there up to the offset stays, none of it later than ``until``."""
        log.warning("%s: the log's end is written anew from byte %d", into.key, offset)
        self._old = into.writer.resume
        self._rewrite = into.writer.again(start)
        self._sink = Sink(self._rewrite, grown=lambda: None)
        self._same: int | None = None
        """Where in the new log that stands which ended the old one."""
        try:
            self._rewrite.keep(into.read(start.offset, offset), until=until)
        except BaseException:
            self.give_up()
            raise

    def add(self, batch: LogBatch) -> None:
        if self._same is None and batch and max(batch.at) > self._old.at:
            first = next(place for place, at in enumerate(batch.at) if at > self._old.at)
            self._sink.add(batch[:first])
            self._sink.flush()
            self._same, batch = self._rewrite.size, batch[first:]
        self._sink.add(batch)

    def commit(self) -> int:
        """Puts it in place. Bytes by which what ended the log moved."""
        self._sink.flush()
        same = self._rewrite.size if self._same is None else self._same
        self._rewrite.commit()
        return same - self._old.size

    def give_up(self) -> None:
        self._rewrite.give_up()


class _Look:
    """One look at what the engine has of a log, from where the archive is sure of it.

    It is one stream: an engine opens all files of a log before it sends the first record, so
    nothing is dropped between what is compared and what is appended.
    """

    def __init__(self, of: _Log) -> None:
        self._log, self._writer = of, of.writer
        self._edges: Sequence[Boundary] = list(of.writer.boundaries())[::-1] or [self._blind()]
        self._offsets = [edge.offset for edge in self._edges]
        self._sure, self._end = of.writer.sure, of.writer.resume
        # One earlier than needed: records in common before the place up to which the archive
        # is sure show that nothing is missing there.
        at = min(bisect_right(self._offsets, self._sure) - 2, len(self._edges) - 2)
        self._start = self._edges[max(0, at)]
        self._base = self._start.offset
        self._expected = Expected(of.read(self._base))
        self._passed = 0
        """Records that the engine offered, up to the present one."""
        self._latest = 0
        """Nanoseconds: the latest of those that came as expected."""
        self._offered: _Offered | None = None
        self._place: _Place | None = None
        """Of what it offers, once it is known that the archive lacks some of it."""
        self._sink: Sink | _Anew | None = None
        """Where new records go, as soon as there are any."""
        self._began: int | None = None
        """Nanoseconds: the archive's first record, where it was never made sure of."""
        self.moved = 0
        """See ``Gatherer.moved``."""

    def _blind(self) -> Boundary:
        """Where to begin without a boundary: after a cut with no later record since."""
        gaps = self._log.archive.gaps(*self._log.key)
        return Boundary(self._writer.resume.at, gaps[-1].offset if gaps else 0)

    async def take(self, *, final: bool) -> bool:
        """Makes the archive what the engine has, with what the engine dropped before it.
        ``False``: it dropped some meanwhile, look again. ``final``: see ``Gatherer.bring``."""
        cost = 0
        try:
            async with self._log.open(self._start.since) as batches:
                async for batch in batches:
                    cost += batch.cost
                    if not self._add_all(batch):
                        break
            self._close(final=final)
            if isinstance(self._sink, _Anew):
                self._commit(self._sink)
        except BaseException:
            if isinstance(self._sink, _Anew):
                self._sink.give_up()
            raise
        finally:
            if isinstance(self._sink, Sink):
                self._sink.flush()
        if self._place is not None and self._offered is not None:
            return await self._insert(self._offered, self._place)
        self._mark_beginning(cost)
        return True

    def _add_all(self, batch: LogBatch) -> bool:
        """Goes on by some records. ``False``: the archive lacks some before one of them."""
        while batch:
            count = 0
            if self._sink is not None:
                count = len(batch)
                self._sink.add(batch)
            elif self._offered is not None:
                for record in batch:
                    if record.at >= self._offered.until:
                        break
                    self._offered.add(record)
                    count += 1
                if not count and not self._join(self._offered):
                    return False
            elif self._expected.done:
                self._sink = Sink(self._writer, grown=self._log.grown)
            elif count := self._expected.count_next(batch):
                if not self._passed:
                    self._unsure(0, self._base, batch.at[0])
                self._latest = max(self._latest, *batch.at[:count])
            else:
                self._differ(batch[0])
            self._passed += count
            batch = batch[count:]
        return True

    def _differ(self, record: LogRecord) -> None:
        """The archive does not go on with what the engine offers next."""
        offset = self._base + self._expected.matched
        slot = bisect_right(self._offsets, offset) - 1
        if self._passed and record.at <= self._latest_of(slot):
            # The archive lacks it, or has something twice.
            until = max(self._latest, self._edges[slot].since - 1)
            self._sink = _Anew(self._log, self._edges[slot], offset, until=until)
            return
        # The engine dropped what the archive has; or the archive lacks its very beginning.
        last = len(self._edges) - 1
        while slot < last and self._edges[slot + 1].since <= record.at:
            slot += 1
        self._offered = _Offered(
            slot=slot,
            passed=self._passed,
            begin=max(self._offsets[slot], offset),
            end=self._offsets[slot + 1] if slot < last else self._end.size,
            first=record.at,
            until=self._latest_of(slot) + 1,
            open=slot == last,
        )

    def _latest_of(self, slot: int) -> int:
        """Nanoseconds: nothing that the archive has up to the end of a segment is later."""
        return self._edges[slot + 1].since - 1 if slot + 1 < len(self._edges) else self._end.at

    def _join(self, offered: _Offered) -> bool:
        """Goes on after a segment. ``False``: the archive lacks some of it."""
        begin = max(offered.begin, offered.end - COMMON)
        place = _place(offered, b"".join(self._log.read(begin, offered.end)))
        known = self._base + self._expected.matched if offered.passed else 0
        self._unsure(known, place.offset, offered.first)
        if offered.open and not place.old:
            log.info("%s: the engine dropped what came before %d", self._log.key, offered.first)
            self._writer.mark_gap(offered.first)
        if place.lacks:
            self._place = place
            return False
        self._offered = None
        if offered.open:
            self._sink = Sink(self._writer, grown=self._log.grown)
            self._sink.add(LogBatch.of(list(offered.held)[place.old :]))
        else:
            self._base = offered.end
            self._expected = Expected(self._log.read(self._base))
        return True

    def _close(self, *, final: bool) -> None:
        """The engine has nothing more."""
        if self._sink is not None or self._place is not None:
            return
        if self._offered is not None and self._offered.open:
            self._join(self._offered)
        elif not self._expected.done:
            # It has less than the archive; nobody knows of how much.
            self._unsure(self._base + self._expected.matched, self._end.size, None)
            if final:
                self._writer.mark_gap(None)

    def _unsure(self, known: int, offset: int, before: int | None) -> None:
        """The engine offers what the archive has up to one offset, and from another one on;
        the record that comes there is of the time ``before``."""
        begin, gaps = max(self._sure, known), self._log.archive.gaps(*self._log.key)
        if offset < begin or offset == begin == self._end.size:
            return  # Some of what it offers was made sure of before; or all of the archive was.
        if not offset:
            self._began = before
        elif gaps or offset * COST >= self._log.room // FILES:
            slot = bisect_right(self._offsets, begin) - 1
            after = self._edges[slot].since - 1 if slot >= 0 else 0
            self._writer.mark_unsure(begin, offset, after=max(after, 0) or None, before=before)

    async def _insert(self, offered: _Offered, place: _Place) -> bool:
        """Writes the archive's end anew, from the first record on that the engine offers of a
        segment. ``False``: the engine does not offer the same any more."""
        cost = number = checksum = 0
        start, last = self._edges[offered.slot], offered.passed + offered.count
        anew = _Anew(self._log, start, place.offset, until=offered.first - 1)
        try:
            async with self._log.open(self._start.since) as batches:
                async for batch in batches:
                    cost += batch.cost
                    begin = max(number, offered.passed)
                    fresh = batch[begin - number :]
                    anew.add(fresh)
                    known = fresh[: max(0, last - begin)]
                    checksum = zlib.crc32(b"".join(known.data), checksum)
                    number += len(batch)
            if number < last or checksum != offered.checksum:
                anew.give_up()
                return False
            self._commit(anew)
        except BaseException:
            anew.give_up()
            raise
        self._mark_beginning(cost)
        return True

    def _commit(self, anew: _Anew) -> None:
        self.moved = anew.commit()
        self._log.grown()

    def _mark_beginning(self, cost: int) -> None:
        """``cost``: of all that the engine offers."""
        if self._began is not None and cost >= self._log.room:
            self._writer.mark_beginning(self._began)
