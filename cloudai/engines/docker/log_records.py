"""Container logs as the engine sends them, cut into the records it stored. Pure.

The engine keeps a line, or a chunk of a line beyond 16 KiB, as one record. With timestamps
asked for, it sends each as ``2026-01-31T12:00:00.000000000Z `` and the bytes, the newline
included where there was one:

- ``Frames``: the records of a container without a terminal come one to a frame, so their ends
  are exact. A frame is eight bytes of head (stream, three zeros, length) and the record.
- ``Lines``: a container with a terminal has no frames. All chunks of one line bear the same
  stamp, so a chunk ends where its own stamp comes again. Lengths do not tell: the engine's log
  file holds three bytes for each byte that is not UTF-8.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Protocol

from cloudai.core.errors import EngineFailed, Indeterminate, LogUnreadable
from cloudai.engines import LogBatch, LogRecord

HEAD = struct.Struct(">BxxxL")
STAMPED = struct.Struct(">BxxxL20s9s2s")
"""A head and the stamp after it: up to the point, the nanoseconds, ``Z `` and no other zone."""
STDOUT, STDERR, ENGINE = 1, 2, 3
"""Streams of a frame; on the third, newer engines say what went wrong with the log itself."""
LARGEST_RECORD = 64 * 1024**2
"""Bytes. Docker's own are below 64 KiB; more than this is no log."""
REMEMBERED = 10_000
"""Records by which a place in a log is found again."""
STAMP = re.compile(
    rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d) ",
)
LONGEST_STAMP = 36
SIX = bytes(code for code in range(32) if code not in b"\n\r\t") + b"<>&"
"""Bytes that the engine's JSON spells with six."""
TWO = b'\n\r\t"\\'
AROUND = 67
"""Bytes of JSON around one record."""


class Decoder(Protocol):
    """Bytes of one log in, its records out."""

    def feed(self, data: bytes) -> LogBatch:
        """The records that are whole now; none after that where it is asked once more, with
        no data. Raises ``EngineFailed`` for what is no log, once all before it were given."""

    def finish(self) -> LogBatch:
        """The rest, once the engine said that this was all. Raises ``Indeterminate`` where
        that cannot be, since a record is cut."""


class _Cut:
    """Records that were cut off, column by column."""

    def __init__(self) -> None:
        self.at: list[int] = []
        self.data: list[bytes] = []
        self.stream: list[int] = []

    def add(self, record: LogRecord) -> None:
        self.at.append(record.at)
        self.data.append(record.data)
        self.stream.append(record.stream)

    def batch(self) -> LogBatch:
        return LogBatch(self.at, self.data, self.stream, _cost)


class Frames:
    """The log of a container without a terminal."""

    def __init__(self) -> None:
        self._pending = [b""]
        self._lacking = HEAD.size
        """Bytes without which no further record is whole."""

    def feed(self, data: bytes) -> LogBatch:
        self._pending.append(data)
        self._lacking -= len(data)
        cut = _Cut()
        if self._lacking <= 0:
            held, begin = b"".join(self._pending), 0
            self._lacking = 0
            try:
                while not self._lacking:
                    begin = _cut_usual(held, begin, cut)
                    begin = self._cut_next(held, begin, cut)
            except EngineFailed:
                if not cut.at:
                    raise
            self._pending = [held[begin:]]
        return cut.batch()

    def finish(self) -> LogBatch:
        if any(self._pending):
            raise Indeterminate("the worker's engine ended a log inside a record")
        return _Cut().batch()

    def _cut_next(self, held: bytes, begin: int, cut: _Cut) -> int:
        """Cuts one record off, whatever it looks like; where the next begins."""
        self._lacking = HEAD.size - (len(held) - begin)
        if self._lacking > 0:
            return begin
        stream, length = HEAD.unpack_from(held, begin)
        _check_frame(stream, length)
        end = begin + HEAD.size + length
        self._lacking = max(0, end - len(held))
        if not self._lacking:
            cut.add(_record(held[begin + HEAD.size : end], stream))
            begin = end
        return begin


def _cut_usual(held: bytes, begin: int, cut: _Cut) -> int:
    """Cuts off the frames from there on that are as engines write them, for a third of the
    time; where the first begins that is not, or not whole."""
    at, data, streams = cut.at, cut.data, cut.stream
    last, base = b"", 0
    for_stamp = len(held) - STAMPED.size
    while begin <= for_stamp:
        stream, length, second, nanos, zone = STAMPED.unpack_from(held, begin)
        end = begin + HEAD.size + length
        usual = 0 < stream < ENGINE and zone == b"Z " and nanos.isdigit()
        if not usual or end > len(held) or length < STAMPED.size - HEAD.size:
            break
        if second != last:
            try:
                base = nanoseconds(STAMP.match(held, begin + HEAD.size)) - int(nanos)
            except ValueError:
                break
            last = second
        at.append(base + int(nanos))
        data.append(held[begin + STAMPED.size : end])
        streams.append(stream)
        begin = end
    return begin


class Lines:
    """The log of a container with a terminal: one stream, no frames."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> LogBatch:
        self._pending += data
        cut, begin = _Cut(), 0
        try:
            while end := self._end_of_record(begin):
                cut.add(_record(bytes(self._pending[begin:end]), STDOUT))
                begin = end
        except EngineFailed:
            if not cut.at:
                raise
        finally:
            del self._pending[:begin]
        if len(self._pending) > LARGEST_RECORD:
            raise _no_log(f"{len(self._pending)} bytes without an end of line")
        return cut.batch()

    def finish(self) -> LogBatch:
        rest, self._pending, cut = bytes(self._pending), bytearray(), _Cut()
        if rest:
            cut.add(_record(rest, STDOUT))
        return cut.batch()

    def _end_of_record(self, at: int) -> int:
        """Where the record that begins at ``at`` ends; 0 while that is not known."""
        stamp = STAMP.match(self._pending, at)
        if stamp is None:
            if len(self._pending) - at >= LONGEST_STAMP:
                raise _no_log(bytes(self._pending[at : at + LONGEST_STAMP]))
            return 0
        newline = self._pending.find(b"\n", stamp.end())
        limit = newline if newline >= 0 else len(self._pending)
        again = self._pending.find(stamp[0], stamp.end(), limit)
        return again if again >= 0 else newline + 1


class LogPlace:
    """Where a reader of one log stands, so that it can go on in another stream of the same.

    The engine sends the log from its first record at or after a moment on, and does not filter
    after that (facts, 19): stamps may repeat, and go back with the worker's clock. So the place
    is kept as the highest stamp so far and the records since it first came.
    """

    def __init__(self, since: int = 0) -> None:
        self.since = since
        """What to ask the engine for, in nanoseconds."""
        self._recent: deque[tuple[int, int, int]] = deque(maxlen=REMEMBERED)

    def passed(self, record: LogRecord) -> None:
        """The reader has this one, the next of the log."""
        if record.at > self.since:
            self._recent.clear()
            self.since = record.at
        self._recent.append(_mark(record))

    def passed_all(self, batch: LogBatch) -> None:
        """The reader has these, the next of the log."""
        latest = max(batch.at)
        # Those before the latest time first comes leave nothing behind.
        first = batch.at.index(latest) if latest > self.since else 0
        for record in batch[first:]:
            self.passed(record)

    def rejoin(self) -> Rejoin:
        """Tells what is new in a stream that was asked for from ``since`` on."""
        return Rejoin(self.since, list(self._recent))


class Rejoin:
    """Finds the place where a reader stood in a stream that began before it."""

    def __init__(self, since: int, recent: list[tuple[int, int, int]]) -> None:
        self._since = since
        self._recent = recent
        self._window: deque[tuple[int, int, int]] = deque(maxlen=len(recent))
        self.found = not recent
        """Whether the place has come by; a stream that ends before it lost a part."""
        self._begun = False

    def is_new(self, record: LogRecord) -> bool:
        """Whether the reader has not had it; to be asked once about each, in order."""
        if not self._recent:
            # Nothing was read yet. Only the beginning is cut, as the engine does.
            self._begun = self._begun or record.at >= self._since
            return self._begun
        if self.found:
            return True
        self._window.append(_mark(record))
        self.found = self._window[-1] == self._recent[-1] and list(self._window) == self._recent
        return False

    def new_of(self, batch: LogBatch) -> LogBatch:
        """Those that are new; to be asked once about each batch, in order."""
        for place, record in enumerate(batch):
            if self.is_new(record):
                return batch[place:] if place else batch
        return batch[len(batch) :]


def _mark(record: LogRecord) -> tuple[int, int, int]:
    return record.at, len(record.data), zlib.crc32(record.data)


def nanoseconds(stamp: re.Match[bytes] | None) -> int:
    """A stamp in nanoseconds since the epoch. Raises ``ValueError`` for what is none."""
    if stamp is None:
        raise ValueError("no stamp")
    fraction = (stamp[2] or b"").ljust(9, b"0")
    return _seconds(stamp[1], stamp[3]) * 1_000_000_000 + int(fraction)


@lru_cache(maxsize=64)
def _seconds(date_and_time: bytes, zone: bytes) -> int:
    # Few distinct seconds to a log, and parsing a date costs more than all the rest.
    at = datetime.fromisoformat((date_and_time + zone.replace(b"Z", b"+00:00")).decode("ascii"))
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)


def _record(content: bytes, stream: int) -> LogRecord:
    if stream == ENGINE:
        words = content.decode("utf-8", "replace").strip()
        raise LogUnreadable(f"the worker's engine could not read the log: {words}")
    stamp = STAMP.match(content)
    try:
        at = nanoseconds(stamp)
    except ValueError:
        stamp = None
    if stamp is None:
        raise _no_log(content[:LONGEST_STAMP])
    return LogRecord(at=at, data=content[stamp.end() :], stream=stream)


def _cost(data: Sequence[bytes]) -> int:
    """Bytes of records in the engine's file: a JSON object a line."""
    text = b"".join(data)
    long = len(text) - len(text.translate(None, SIX))
    short = len(text) - len(text.translate(None, TWO))
    return len(text) + 5 * long + short + AROUND * len(data)


def _check_frame(stream: int, length: int) -> None:
    if stream not in (STDOUT, STDERR, ENGINE):
        raise _no_log(f"a frame of stream {stream}")
    if length > LARGEST_RECORD:
        raise _no_log(f"a frame of {length} bytes")


def _no_log(what: object) -> EngineFailed:
    return EngineFailed(
        f"the worker sent something that is no container log: {what!r}",
        hint="is something other than Docker answering at its socket? "
        "`cloudai doctor` checks the worker",
    )
