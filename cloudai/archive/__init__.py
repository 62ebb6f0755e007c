"""Task logs at home: exactly the container's bytes, and a small index for time.

::

    FOLDER/task-…/1.log     the bytes of assignment 1, nothing else
                  1.idx     entries of 40 bytes, one a segment of the log
                  1.gaps    where the engine had dropped something (see ``gaps``)
                  1.sure    while it is followed: bytes up to which nothing is missing
                  1.done    bytes and SHA-256 of a log that is whole, written last

A long log goes on in further parts, and a finished one is compressed (see ``parts``). The last
entry of the index is rewritten with every append, so it always says where to go on: after a
crash the log is cut to what the index vouches for, and the rest is asked of the worker again.

Offsets count the container's bytes since the beginning: neither marks, nor compression, nor
what was left out to keep within the limit change them.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from cloudai.disk import disk_errors, plain_name, sync_folder

from .gaps import Gap, gaps_of
from .index import GRANULARITY, SEGMENT, Index
from .parts import compress, reading, spans_of
from .reader import LogReader, begin_of_lines, done_bytes, log_file
from .writer import LEAST_LIMIT, LIMIT, Boundary, LogWriter, ResumePoint, Rewrite, log_size

__all__ = [
    "GRANULARITY",
    "LEAST_LIMIT",
    "LIMIT",
    "SEGMENT",
    "Archive",
    "Boundary",
    "Gap",
    "LogReader",
    "LogWriter",
    "ResumePoint",
    "Rewrite",
]


class Archive:
    """The logs of all tasks. Every method raises ``StoreFull``, ``StoreReadOnly`` or
    ``StoreFailed`` where the disk does, and ``InvalidInput`` for a task id that is none."""

    def __init__(self, folder: Path, *, limit: int = LIMIT) -> None:
        self._folder = folder
        self._limit = max(limit, LEAST_LIMIT)

    def writer(self, task_id: str, number: int) -> LogWriter:
        """Opens (or goes on with) the log of assignment ``number``. One at a time for each."""
        return LogWriter(self._base(task_id, number), limit=self._limit)

    def read(
        self,
        task_id: str,
        number: int,
        *,
        since: int = 0,
        tail: int | None = None,
        marks: bool = True,
    ) -> Iterator[bytes]:
        """The bytes as the container wrote them, up to the present end, in large chunks.

        ``since`` (nanoseconds since the epoch) loses no record of that time or later, and
        begins less than 0.1 s of record time, or 64 KiB and a record, too early. ``tail``:
        of those the last so many lines, as ``tail -n`` counts them. ``marks``: with a line
        where something is missing. No log: no bytes.
        """
        begin = self.begin(task_id, number, since=since, tail=tail)
        return self.read_from(task_id, number, begin, marks=marks)

    def begin(self, task_id: str, number: int, *, since: int = 0, tail: int | None = None) -> int:
        """Offset in bytes at which such a ``read`` begins; to follow, go on from there."""
        base = self._base(task_id, number)
        offset = self._begin_of(base, since) if since > 0 else 0
        return offset if tail is None else begin_of_lines(base, offset, tail)

    def _begin_of(self, base: Path, since: int) -> int:
        for part, end in reversed(spans_of(base)):
            with reading(part.file(".idx")) as descriptor:
                found = Index(descriptor).begin_of(since) if descriptor is not None else None
            if found is not None:
                return found if end is None else min(found, end)
        return 0

    def read_from(
        self, task_id: str, number: int, offset: int, *, marks: bool = True
    ) -> Iterator[bytes]:
        """The bytes from ``offset`` up to the present end, in large chunks."""
        return iter(self.reader(task_id, number, offset, marks=marks))

    def reader(
        self, task_id: str, number: int, offset: int = 0, *, marks: bool = True
    ) -> LogReader:
        """A place in the log, to read on from as often as it grows."""
        return LogReader(self._base(task_id, number), offset, limit=self._limit, marks=marks)

    def gaps(self, task_id: str, number: int) -> list[Gap]:
        """What the engine had dropped, in order."""
        return gaps_of(log_file(self._base(task_id, number), ".gaps"))

    def size(self, task_id: str, number: int) -> int:
        """Bytes so far, those left out to keep within the limit included."""
        base = self._base(task_id, number)
        with disk_errors(base):
            return log_size(base)

    def complete(self, task_id: str, number: int) -> bool:
        """Whether the log was finished and is as long as it was then."""
        done = done_bytes(self._base(task_id, number))
        return done is not None and done == self.size(task_id, number)

    def compress(self, task_id: str, number: int) -> None:
        """Compresses a finished log; one that is, or is short, stays as it is. Takes about a
        second for 100 MB."""
        if not self.complete(task_id, number):
            return
        base = self._base(task_id, number)
        with disk_errors(base):
            for part, end in spans_of(base):
                compress(part, end)

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
