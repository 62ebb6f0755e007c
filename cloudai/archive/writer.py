"""Writing one assignment's log, through crashes, full disks and a limit of its size."""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from cloudai.core.errors import Conflict
from cloudai.core.model import GIB
from cloudai.crash import point
from cloudai.disk import disk_errors, make_private_folder, sync_folder, write_all, write_whole

from .gaps import Gap, gaps_of, write_gaps
from .index import SLOT, Entry, Index, Segment
from .parts import Part, length_of, parts_of, reading, spans_of
from .reader import LogReader, done_bytes, log_file

LIMIT = GIB
"""Bytes of one log that are kept at home: its first quarter, and the last three."""
LEAST_LIMIT = 1024 * 1024

Records = Iterable[tuple[int, bytes]]


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """What a log has."""

    at: int = 0
    """Nanoseconds since the epoch: the latest time written."""
    size: int = 0
    """Bytes written."""


@dataclass(frozen=True, slots=True)
class Boundary:
    """A place from which a log can be asked for again: the engine's records from the first
    at or after ``since`` on are the log's bytes from ``offset`` on."""

    since: int
    """Nanoseconds."""
    offset: int


class _Tape:
    """The part that is written, and those after it as it fills."""

    def __init__(self, base: Path, part: Part, segment: Segment, *, limit: int) -> None:
        self._base, self._limit = base, limit
        self.parts = [part]
        """Those this tape has written to."""
        self.segment = segment
        self._log = self._index = -1
        self._open()

    @property
    def part(self) -> Part:
        return self.parts[-1]

    def mend(self) -> None:
        """Cuts both files to the last entry that is true of the log."""
        index = Index(self._index)
        size = os.fstat(self._log).st_size + self.part.begin
        for slot in reversed(range(len(index))):
            entry = index[slot]
            if entry and entry.end <= size and self._holds(entry):
                self.segment = Segment.reopened(entry, slot)
                break
        os.ftruncate(self._log, self.segment.size - self.part.begin)
        used = self.segment.slot + (self.segment.opened_at is not None)
        os.ftruncate(self._index, used * SLOT)

    def write(self, records: Records) -> None:
        times, data = list[int](), list[bytes]()
        for at, one in records:
            times.append(at)
            data.append(one)
        segment, begin = copy.copy(self.segment), 0
        slot, entries, chunks = segment.slot, list[bytes](), list[bytes]()
        while begin < len(times):
            end = segment.end_of(times, data, begin)
            if end > begin:
                chunks.append(b"".join(data[begin:end]))
                segment.add(times[begin:end], chunks[-1])
                begin = end
                continue
            entries.append(segment.pack())
            segment.close()
            if self._is_full(segment):
                self._put(segment, slot, chunks, entries)
                self._roll()
                segment = copy.copy(self.segment)
                slot, entries, chunks = segment.slot, [], []
        if chunks:
            self._put(segment, slot, chunks, [*entries, segment.pack()])

    def sync(self) -> None:
        os.fsync(self._log)
        os.fsync(self._index)

    def close(self) -> None:
        for descriptor in (self._log, self._index):
            if descriptor >= 0:
                os.close(descriptor)
        self._log = self._index = -1

    def _open(self) -> None:
        try:
            flags = os.O_RDWR | os.O_CREAT
            self._index = os.open(self.part.file(".idx"), flags, 0o600)
            self._log = os.open(self.part.file(".log"), flags, 0o600)
        except BaseException:
            self.close()
            raise

    def _put(self, segment: Segment, slot: int, chunks: list[bytes], entries: list[bytes]) -> None:
        held = self.segment.size - self.part.begin
        try:
            write_all(self._log, b"".join(chunks), held)
            point("log.written")
            write_all(self._index, b"".join(entries), slot * SLOT)
        except OSError:
            # What the index may say of these bytes is refuted by their absence.
            os.ftruncate(self._log, held)
            raise
        self.segment = segment

    def _is_full(self, segment: Segment) -> bool:
        held = segment.size - self.part.begin + segment.slot * SLOT
        return held >= self._limit // 16

    def _roll(self) -> None:
        """Goes on in a new part, and leaves out the oldest of the last three quarters."""
        self.sync()
        self._leave_out()
        self.close()
        begin = self.segment.size
        self.parts.append(Part.at(self._base, begin, prefix=self.part.prefix))
        self.segment = Segment(at=self.segment.at, size=begin, begin=begin)
        self._open()
        os.ftruncate(self._log, 0)
        os.ftruncate(self._index, 0)

    def _leave_out(self) -> None:
        kept = self.parts if self.part.prefix else parts_of(self._base)
        sizes = {part: length_of(part) + _size(part.file(".idx")) for part in kept}
        for part in kept[1:]:
            if sum(sizes.values()) + self._limit // 16 <= self._limit:
                return
            if part.begin >= self._limit // 4 and part.begin != self.part.begin:
                part.remove()
                del sizes[part]

    def _holds(self, entry: Entry) -> bool:
        """Whether the log really has the bytes an entry speaks of: a power loss may keep the
        index and lose them."""
        length = entry.end - entry.begin
        data = os.pread(self._log, length, entry.begin - self.part.begin)
        return len(data) == length and entry.is_of(data)


class LogWriter:
    """Writes one assignment's log. Close it, or use it as a context manager."""

    def __init__(self, base: Path, *, limit: int = LIMIT) -> None:
        self._base, self._limit = base, max(limit, LEAST_LIMIT)
        self._tape: _Tape | None = None
        self._resume = ResumePoint()
        with disk_errors(base.parent):
            make_private_folder(base.parent)
            self._sweep()
            done = done_bytes(base)
            parts = parts_of(base)
            # Only what was marked whole is ever compressed.
            packed = bool(parts) and not parts[-1].file(".log").exists()
            self._finished = packed or (done is not None and done == log_size(base))
            try:
                self._open()
            except BaseException:
                self.close()
                raise

    def _open(self) -> None:
        before = next(entries_newest_first(self._base), None)
        if self._finished:
            self._resume = ResumePoint(before.at if before else 0, log_size(self._base))
            return
        parts = parts_of(self._base) or [Part.first(self._base)]
        # A part's first time is told from the one before it.
        older = next(entries_newest_first(self._base, before=parts[-1].begin), None)
        begin = parts[-1].begin
        start = Segment(at=older.at if older else 0, size=begin, begin=begin)
        self._tape = _Tape(self._base, parts[-1], start, limit=self._limit)
        self._tape.mend()
        gaps = gaps_of(log_file(self._base, ".gaps"))
        if true := [gap for gap in gaps if gap.offset <= self._tape.segment.size]:
            if len(true) < len(gaps):
                write_gaps(log_file(self._base, ".gaps"), true)
        elif gaps:
            log_file(self._base, ".gaps").unlink()

    def _sweep(self) -> None:
        """Removes what an earlier writer was writing anew when it was killed."""
        for path in self._base.parent.glob(f".{self._base.name}.*"):
            path.unlink(missing_ok=True)

    @property
    def resume(self) -> ResumePoint:
        """Where to go on: what was appended before, by this writer or one that was killed."""
        if self._tape is None:
            return self._resume
        return ResumePoint(self._tape.segment.at, self._tape.segment.size)

    @property
    def finished(self) -> bool:
        """Whether the log is whole: nothing can be appended any more."""
        return self._finished

    def boundaries(self) -> Iterator[Boundary]:
        """Where it can be asked for again, newest first, back to the last cut."""
        newer: Entry | None = None
        for entry in entries_newest_first(self._base):
            if newer is not None:
                if entry.end != newer.begin:
                    return
                if newer.fresh:
                    yield Boundary(entry.at + 1, newer.begin)
            newer = entry
        if newer is not None and newer.begin == 0:
            yield Boundary(0, 0)

    def append(self, at: int, data: bytes) -> None:
        """Appends one record: its time in nanoseconds since the epoch, its bytes.

        Readers see it at once. If it raises ``StoreFull`` or ``StoreFailed`` nothing was
        appended, and it can be tried again.
        """
        self.extend(((at, data),))

    def extend(self, records: Records) -> None:
        """Appends records with one write for all: many times faster than one by one. Where
        it raises, ``resume`` says what was appended."""
        tape = self._writable()
        with disk_errors(tape.part.file(".log")):
            tape.write(records)

    def mark_gap(self, before: int | None) -> None:
        """Says that the engine dropped what came after the present end and before the record
        of that time, which is appended next (``None``: nothing came any more)."""
        self._mark(Gap(self.resume.size, self.resume.at or None, before))
        # So that there is a boundary at the gap: what comes after it is compared from there.
        self._writable().segment.end()

    def mark_unsure(self, begin: int, end: int, *, after: int | None, before: int | None) -> None:
        """Says that records may be missing anywhere between two offsets, both included: the
        engine dropped what came between those times before it could be compared."""
        self._mark(Gap(begin, after, before, end - begin))

    def mark_beginning(self, at: int) -> None:
        """Says that the engine had dropped something before the log's first record, of then."""
        self._mark(Gap(0, None, at))

    def _mark(self, gap: Gap) -> None:
        self._writable()
        path = log_file(self._base, ".gaps")
        known = gaps_of(path)
        if any(one.offset == gap.offset and one.length >= gap.length for one in known):
            return
        others = [one for one in known if one.offset != gap.offset or not one.length]
        with disk_errors(path):
            write_gaps(path, sorted([*others, gap], key=lambda one: (one.offset, one.length)))

    @property
    def sure(self) -> int:
        """Bytes of which is known that nothing is missing between them."""
        path = log_file(self._base, ".sure")
        with disk_errors(path):
            try:
                return min(int(path.read_bytes()), self.resume.size)
            except FileNotFoundError:
                return self.resume.size
            except ValueError:
                return 0

    def make_unsure(self) -> None:
        """From here on records come in a way that may miss some; also after a crash."""
        path, sure = log_file(self._base, ".sure"), self.sure
        with disk_errors(path):
            write_whole(path, str(sure).encode("ascii"))

    def make_sure(self) -> None:
        """All that was written was compared with what the engine has."""
        path = log_file(self._base, ".sure")
        with disk_errors(path):
            path.unlink(missing_ok=True)

    def again(self, boundary: Boundary) -> Rewrite:
        """Writes anew what comes after a boundary, beside what is there."""
        self._writable()
        return Rewrite(self, self._base, boundary, limit=self._limit)

    def finish(self) -> None:
        """Marks the log whole, once its bytes are on the disk. Doing it again is fine."""
        if self._finished:
            return
        tape = self._writable()
        with disk_errors(tape.part.file(".log")):
            tape.sync()
            digest = hashlib.sha256()
            for chunk in LogReader(self._base, limit=self._limit, marks=False):
                digest.update(chunk)
            self._resume = self.resume
            mark = {"bytes": self._resume.size, "sha256": digest.hexdigest()}
            write_whole(log_file(self._base, ".done"), json.dumps(mark).encode("ascii"))
            sync_folder(self._base.parent.parent)
        self._finished = True
        self.close()

    def close(self) -> None:
        """Lets go of the files. What was appended stays."""
        if self._tape is not None:
            self._resume = self.resume
            self._tape.close()
            self._tape = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _writable(self) -> _Tape:
        if self._finished or self._tape is None:
            raise Conflict(f"The log {self._base.name} of {self._base.parent.name} is closed")
        return self._tape

    def _reopen(self) -> None:
        with disk_errors(self._base.parent):
            self.close()
            self._open()


class Rewrite:
    """A log's end, written anew where nobody sees it, until ``commit`` puts it in place.

    A crash leaves the log as it was, or with a part of what is new: it goes on from there.
    """

    def __init__(self, writer: LogWriter, base: Path, boundary: Boundary, *, limit: int) -> None:
        self._writer, self._base, self._boundary = writer, base, boundary
        part = Part.at(base, boundary.offset, prefix=".")
        at, size = max(0, boundary.since - 1), boundary.offset
        with disk_errors(part.file(".log")):
            part.remove()
            self._tape = _Tape(base, part, Segment(at=at, size=size, begin=size), limit=limit)

    @property
    def size(self) -> int:
        """Bytes of the whole log, as it will be."""
        return self._tape.segment.size

    def extend(self, records: Records) -> None:
        """As ``LogWriter.extend``."""
        with disk_errors(self._tape.part.file(".log")):
            self._tape.write(records)

    def keep(self, chunks: Iterable[bytes], *, until: int) -> None:
        """Begins with these bytes of the old log, none of whose records is later than that
        time in nanoseconds; what is written next can be asked for again by itself."""
        self.extend((max(until, self._tape.segment.at), chunk) for chunk in chunks)
        self._tape.segment.end()

    def commit(self) -> None:
        """What was written takes the place of what was there."""
        with disk_errors(self._base.parent):
            self._tape.sync()
            self._tape.close()
            new = [part for part in self._tape.parts if part.file(".log").exists()]
            old = [part for part in parts_of(self._base) if part.begin > self._boundary.offset]
            self._show(new[0])
            for part in old:
                part.remove()
            for part in new[1:]:
                self._show(part)
            sync_folder(self._base.parent)
        self._writer._reopen()

    def give_up(self) -> None:
        """The log stays as it was."""
        self._tape.close()
        for part in self._tape.parts:
            with suppress(OSError):
                part.remove()

    def _show(self, part: Part) -> None:
        # The log last: the name of a log makes the part.
        for suffix in (".idx", ".log"):
            part.file(suffix).replace(part.shown().file(suffix))


def entries_newest_first(base: Path, *, before: int | None = None) -> Iterator[Entry]:
    """All entries of a log, of parts that begin before an offset; ones that newer parts took
    the place of are left out."""
    for part, following in reversed(spans_of(base)):
        if before is not None and part.begin >= before:
            continue
        with reading(part.file(".idx")) as descriptor:
            if descriptor is None:
                continue
            for entry in Index(descriptor).newest_first():
                if following is None or entry.end <= following:
                    yield entry


def log_size(base: Path) -> int:
    """Bytes of a log, those left out included."""
    parts = parts_of(base)
    return parts[-1].begin + length_of(parts[-1]) if parts else 0


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
