"""Task logs at home: exactly the container's bytes, and a small index for time.

::

    FOLDER/task-…/1.log     the bytes of assignment 1, nothing else
                  1.idx     entries of 40 bytes, one a segment of the log
                  1.done    bytes and SHA-256 of a log that is whole, written last

A segment spans less than 0.1 s of record time and ends once it holds 64 KiB. The last entry
is rewritten with every append, so the index always says where to go on: after a crash the
log is cut to what the index vouches for, and the rest is asked of the worker again.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from cloudai.core.errors import Conflict
from cloudai.crash import point
from cloudai.disk import (
    disk_errors,
    make_private_folder,
    plain_name,
    sync_folder,
    write_all,
    write_whole,
)

GRANULARITY = 100_000_000
"""Nanoseconds: a segment's records lie within less than this."""
SEGMENT = 64 * 1024
"""Bytes after which a segment ends."""
CHUNK = 256 * 1024
"""Bytes read at a time."""

_ENTRY = struct.Struct("<qqqqI")
_SUM = struct.Struct("<I")
_SLOT = _ENTRY.size + _SUM.size


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """Where a log goes on.

    Ask for records from ``at`` on. If the first that comes has exactly that time, leave out
    ``count`` records, whatever their times; if it is later, the engine dropped some: a gap.
    """

    at: int = 0
    """Nanoseconds since the epoch: the latest time written."""
    count: int = 0
    """Records written since the first of that time, itself included. Where times never go
    back: how many of that time were written."""
    size: int = 0
    """Bytes written."""


@dataclass(slots=True)
class _Segment:
    """The segment being written, and the totals up to its end: what an entry holds."""

    at: int = 0
    count: int = 0
    size: int = 0
    opened_at: int | None = None
    """Time of its first record."""
    begin: int = 0
    checksum: int = 0
    slot: int = 0

    def takes(self, at: int) -> bool:
        """Whether a record of that time still belongs into it."""
        if self.opened_at is None:
            return True
        return at - self.opened_at < GRANULARITY and self.size - self.begin < SEGMENT

    def add(self, at: int, data: bytes) -> None:
        if self.opened_at is None:
            self.opened_at = at
        # Clocks go back: the latest time stays, so that the index can be searched by halves.
        self.count = 1 if at > self.at else self.count + 1
        self.at = max(at, self.at)
        self.size += len(data)
        self.checksum = zlib.crc32(data, self.checksum)

    def close(self) -> None:
        """Begins the next one."""
        self.opened_at = None
        self.begin = self.size
        self.checksum = 0
        self.slot += 1

    def pack(self) -> bytes:
        entry = _ENTRY.pack(self.at, self.count, self.begin, self.size, self.checksum)
        return entry + _SUM.pack(zlib.crc32(entry))


@dataclass(frozen=True, slots=True)
class _Entry:
    at: int
    count: int
    begin: int
    end: int
    checksum: int


class _Index:
    """The entries of an index file, read where they lie."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._length = os.fstat(descriptor).st_size // _SLOT

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, slot: int) -> _Entry | None:
        """``None`` for an entry that is torn."""
        data = os.pread(self._descriptor, _SLOT, slot * _SLOT)
        if len(data) < _SLOT or _SUM.unpack(data[_ENTRY.size :])[0] != zlib.crc32(
            data[: _ENTRY.size]
        ):
            return None
        return _Entry(*_ENTRY.unpack(data[: _ENTRY.size]))

    def begin_of(self, since: int) -> int:
        """Offset in bytes before which every record is older than ``since``."""
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            entry = self[middle]
            if entry is not None and entry.at < since:
                low = middle + 1
            else:
                high = middle
        last = self[low - 1] if low else None
        return last.end if last else 0


class LogWriter:
    """Writes one assignment's log. Close it, or use it as a context manager."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._log = self._index = -1
        with disk_errors(base.parent):
            make_private_folder(base.parent)
            try:
                self._log = os.open(base.with_suffix(".log"), os.O_RDWR | os.O_CREAT, 0o600)
                self._index = os.open(base.with_suffix(".idx"), os.O_RDWR | os.O_CREAT, 0o600)
                self._finished = _done(base) == os.fstat(self._log).st_size
                self._segment = self._mend()
            except BaseException:
                self.close()
                raise

    @property
    def resume(self) -> ResumePoint:
        """Where to go on: what was appended before, by this writer or one that was killed."""
        return ResumePoint(self._segment.at, self._segment.count, self._segment.size)

    @property
    def finished(self) -> bool:
        """Whether the log is whole: nothing can be appended any more."""
        return self._finished

    def append(self, at: int, data: bytes) -> None:
        """Appends one record: its time in nanoseconds since the epoch, its bytes.

        Readers see it at once. If it raises ``StoreFull`` or ``StoreFailed`` nothing was
        appended, and it can be tried again.
        """
        self.extend(((at, data),))

    def extend(self, records: Iterable[tuple[int, bytes]]) -> None:
        """Appends records with one write for all: many times faster than one by one."""
        if self._finished:
            raise Conflict(f"The log {self._base.name} of {self._base.parent.name} is closed")
        segment = copy.copy(self._segment)
        slot, entries, chunks = segment.slot, [], []
        for at, data in records:
            if not segment.takes(at):
                entries.append(segment.pack())
                segment.close()
            segment.add(at, data)
            chunks.append(data)
        if not chunks:
            return
        entries.append(segment.pack())
        with disk_errors(self._base.with_suffix(".log")):
            try:
                write_all(self._log, b"".join(chunks), self._segment.size)
                point("log.written")
                write_all(self._index, b"".join(entries), slot * _SLOT)
            except OSError:
                # What the index may say of these bytes is refuted by their absence.
                os.ftruncate(self._log, self._segment.size)
                raise
        self._segment = segment

    def finish(self) -> None:
        """Marks the log whole, once its bytes are on the disk. Doing it again is fine."""
        if self._finished:
            return
        with disk_errors(self._base.with_suffix(".log")):
            os.fsync(self._log)
            os.fsync(self._index)
            digest = hashlib.sha256()
            for chunk in _from(self._log, 0):
                digest.update(chunk)
            mark = {"bytes": self._segment.size, "sha256": digest.hexdigest()}
            write_whole(self._base.with_suffix(".done"), json.dumps(mark).encode("ascii"))
            sync_folder(self._base.parent.parent)
        self._finished = True

    def close(self) -> None:
        """Lets go of the files. What was appended stays."""
        for descriptor in (self._log, self._index):
            if descriptor >= 0:
                os.close(descriptor)
        self._log = self._index = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _mend(self) -> _Segment:
        """Cuts both files to the last entry that is true of the log."""
        index = _Index(self._index)
        size = os.fstat(self._log).st_size
        for slot in reversed(range(len(index))):
            entry = index[slot]
            if entry and entry.end <= size and self._holds(entry):
                segment = _Segment(entry.at, entry.count, entry.end, begin=entry.end, slot=slot + 1)
                break
        else:
            segment = _Segment()
        if not self._finished:
            os.ftruncate(self._log, segment.size)
            os.ftruncate(self._index, segment.slot * _SLOT)
        return segment

    def _holds(self, entry: _Entry) -> bool:
        """Whether the log really has the bytes an entry speaks of: a power loss may keep the
        index and lose them."""
        length = entry.end - entry.begin
        data = os.pread(self._log, length, entry.begin)
        return len(data) == length and zlib.crc32(data) == entry.checksum


class Archive:
    """The logs of all tasks. Every method raises ``StoreFull``, ``StoreReadOnly`` or
    ``StoreFailed`` where the disk does, and ``InvalidInput`` for a task id that is none."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def writer(self, task_id: str, number: int) -> LogWriter:
        """Opens (or goes on with) the log of assignment ``number``. One at a time for each."""
        return LogWriter(self._base(task_id, number))

    def read(
        self, task_id: str, number: int, *, since: int = 0, tail: int | None = None
    ) -> Iterator[bytes]:
        """The bytes as the container wrote them, up to the present end, in large chunks.

        ``since`` (nanoseconds since the epoch) loses no record of that time or later, and
        begins less than 0.1 s of record time, or 64 KiB and a record, too early. ``tail``:
        of those the last so many lines, as ``tail -n`` counts them. No log: no bytes.
        """
        begin = self.begin(task_id, number, since=since, tail=tail)
        return self.read_from(task_id, number, begin)

    def begin(self, task_id: str, number: int, *, since: int = 0, tail: int | None = None) -> int:
        """Offset in bytes at which such a ``read`` begins; to follow, go on from there."""
        base = self._base(task_id, number)
        offset = 0
        with _reading(base.with_suffix(".idx")) as index:
            if index is not None and since > 0:
                offset = _Index(index).begin_of(since)
        with _reading(base.with_suffix(".log")) as log:
            if log is not None and tail is not None:
                offset = _begin_of_lines(log, offset, tail)
        return offset

    def read_from(self, task_id: str, number: int, offset: int) -> Iterator[bytes]:
        """The bytes from ``offset`` up to the present end, in large chunks."""
        with _reading(self._base(task_id, number).with_suffix(".log")) as log:
            if log is not None:
                yield from _from(log, offset)

    def size(self, task_id: str, number: int) -> int:
        """Bytes at home so far."""
        path = self._base(task_id, number).with_suffix(".log")
        with disk_errors(path):
            try:
                return path.stat().st_size
            except FileNotFoundError:
                return 0

    def complete(self, task_id: str, number: int) -> bool:
        """Whether the log was finished and is as long as it was then."""
        done = _done(self._base(task_id, number))
        return done is not None and done == self.size(task_id, number)

    def drop(self, task_id: str) -> None:
        """Forgets a task's logs; none there is fine."""
        folder = self._folder / plain_name(task_id)
        with disk_errors(folder):
            try:
                shutil.rmtree(folder)
            except FileNotFoundError:
                return
            sync_folder(self._folder)

    def _base(self, task_id: str, number: int) -> Path:
        return self._folder / plain_name(task_id) / str(int(number))


@contextmanager
def _reading(path: Path) -> Iterator[int | None]:
    """The descriptor of a file opened for reading, ``None`` where there is no such file."""
    with disk_errors(path):
        descriptor = _open_if_there(path)
        try:
            yield descriptor
        finally:
            if descriptor is not None:
                os.close(descriptor)


def _open_if_there(path: Path) -> int | None:
    try:
        return os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None


def _from(log: int, offset: int) -> Iterator[bytes]:
    while chunk := os.pread(log, CHUNK, offset):
        yield chunk
        offset += len(chunk)


def _begin_of_lines(log: int, floor: int, lines: int) -> int:
    """Where the last ``lines`` lines begin, not before ``floor``; read from the end."""
    end = os.fstat(log).st_size
    if lines <= 0 or end <= floor:
        return max(end, floor)
    # A newline at the very end closes the last line and begins none.
    position = end - 1 if os.pread(log, 1, end - 1) == b"\n" else end
    while position > floor:
        begin = max(floor, position - CHUNK)
        chunk = os.pread(log, position - begin, begin)
        found = chunk.count(b"\n")
        if found >= lines:
            at = len(chunk)
            for _ in range(lines):
                at = chunk.rindex(b"\n", 0, at)
            return begin + at + 1
        lines, position = lines - found, begin
    return floor


def _done(base: Path) -> int | None:
    """Bytes of a finished log; ``None`` for one that is not, as far as anybody can tell."""
    path = base.with_suffix(".done")
    with disk_errors(path):
        try:
            return int(json.loads(path.read_bytes())["bytes"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None
