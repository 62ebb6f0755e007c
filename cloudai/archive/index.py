"""The index of a part of a log: entries of 40 bytes, one a segment.

A segment spans less than 0.1 s of record time and ends once it holds 64 KiB. It begins with a
record that is later than all before it, wherever that can be: from such a place on, the log
can be asked for again by time alone, and must come back byte for byte.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

GRANULARITY = 100_000_000
"""Nanoseconds: a segment's records lie within less than this, where clocks do not go back."""
SEGMENT = 64 * 1024
"""Bytes after which a segment ends, at the next record that is later."""
LONGEST = 64 * SEGMENT
"""Bytes after which it ends at any record."""

_ENTRY = struct.Struct("<qqqqI")
_SUM = struct.Struct("<I")
SLOT = _ENTRY.size + _SUM.size
FRESH, OTHER = -2, 0
"""Whether a segment's first record is later than all before it. Version 0.1.0 wrote a count
here, never below zero."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One segment: the latest time up to its end, and where it lies in the whole log."""

    at: int
    kind: int
    begin: int
    end: int
    checksum: int

    @property
    def fresh(self) -> bool:
        return self.kind == FRESH

    def is_of(self, data: bytes) -> bool:
        """Whether these are the bytes it speaks of."""
        return zlib.crc32(data) == self.checksum


@dataclass(slots=True)
class Segment:
    """The segment being written, and the totals up to its end: what an entry holds."""

    at: int = 0
    """Nanoseconds: the latest time so far. Clocks go back; this does not, so that the index
    can be searched by halves."""
    size: int = 0
    begin: int = 0
    opened_at: int | None = None
    """Time of its first record."""
    kind: int = OTHER
    checksum: int = 0
    slot: int = 0

    @classmethod
    def reopened(cls, entry: Entry, slot: int) -> Segment:
        """The last one of a log that goes on. It takes no later record, only ones as old."""
        return cls(
            at=entry.at,
            size=entry.end,
            begin=entry.begin,
            opened_at=entry.at - GRANULARITY,
            kind=entry.kind,
            checksum=entry.checksum,
            slot=slot,
        )

    def end_of(self, times: Sequence[int], data: Sequence[bytes], begin: int) -> int:
        """The first of these records, from one on, that does not belong into it any more."""
        held, latest, opened_at = self.size - self.begin, self.at, self.opened_at
        for place in range(begin, len(times)):
            at = times[place]
            if opened_at is None:
                opened_at = at
            elif at <= latest:
                if held >= LONGEST:
                    return place
            elif held >= SEGMENT or at - opened_at >= GRANULARITY:
                return place
            if at > latest:
                latest = at
            held += len(data[place])
        return len(times)

    def add(self, times: Sequence[int], data: bytes) -> None:
        """Records that belong into it, with all their data in one."""
        if self.opened_at is None:
            self.opened_at = times[0]
            self.kind = FRESH if times[0] > self.at else OTHER
        self.at = max(self.at, *times)
        self.size += len(data)
        self.checksum = zlib.crc32(data, self.checksum)

    def end(self) -> None:
        """Takes no later record any more: the next of those is one to go on from."""
        if self.opened_at is not None:
            self.opened_at = min(self.opened_at, self.at - GRANULARITY)

    def close(self) -> None:
        """Begins the next one."""
        self.begin = self.size
        self.opened_at = None
        self.kind = OTHER
        self.checksum = 0
        self.slot += 1

    def pack(self) -> bytes:
        entry = _ENTRY.pack(self.at, self.kind, self.begin, self.size, self.checksum)
        return entry + _SUM.pack(zlib.crc32(entry))


class Index:
    """The entries of an index file, read where they lie."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._length = os.fstat(descriptor).st_size // SLOT

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, slot: int) -> Entry | None:
        """``None`` for an entry that is torn."""
        return _entry(os.pread(self._descriptor, SLOT, slot * SLOT))

    def newest_first(self) -> Iterator[Entry]:
        """Those that are whole, in blocks: an index can be long."""
        block = 1024
        for first in range((len(self) - 1) // block * block, -1, -block):
            data = os.pread(self._descriptor, block * SLOT, first * SLOT)
            for at in range(len(data) // SLOT * SLOT - SLOT, -1, -SLOT):
                if entry := _entry(data[at : at + SLOT]):
                    yield entry

    def begin_of(self, since: int) -> int | None:
        """Offset in bytes before which every record is older than ``since``; ``None`` where
        no segment of this index is."""
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            entry = self[middle]
            if entry is not None and entry.at < since:
                low = middle + 1
            else:
                high = middle
        last = self[low - 1] if low else None
        return last.end if last else None


def _entry(data: bytes) -> Entry | None:
    if len(data) < SLOT or _SUM.unpack(data[_ENTRY.size :])[0] != zlib.crc32(data[: _ENTRY.size]):
        return None
    return Entry(*_ENTRY.unpack(data[: _ENTRY.size]))
