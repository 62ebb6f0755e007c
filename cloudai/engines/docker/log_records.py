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
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Protocol

from cloudai.core.errors import EngineFailed, Indeterminate, LogUnreadable
from cloudai.engines import LogRecord

HEAD = struct.Struct(">BxxxL")
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

    def feed(self, data: bytes) -> Iterator[LogRecord]:
        """The records that are whole now. Raises ``EngineFailed`` for what is no log."""

    def finish(self) -> Iterator[LogRecord]:
        """The rest, once the engine said that this was all. Raises ``Indeterminate`` where
        that cannot be, since a record is cut."""


class Frames:
    """The log of a container without a terminal."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> Iterator[LogRecord]:
        self._pending += data
        at = 0
        try:
            while len(self._pending) - at >= HEAD.size:
                stream, length = HEAD.unpack_from(self._pending, at)
                end = at + HEAD.size + length
                _check_frame(stream, length)
                if end > len(self._pending):
                    return
                content = bytes(self._pending[at + HEAD.size : end])
                at = end
                yield _record(content, stream)
        finally:
            del self._pending[:at]

    def finish(self) -> Iterator[LogRecord]:
        if self._pending:
            raise Indeterminate("the worker's engine ended a log inside a record")
        return iter(())


class Lines:
    """The log of a container with a terminal: one stream, no frames."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> Iterator[LogRecord]:
        self._pending += data
        at = 0
        try:
            while end := self._end_of_record(at):
                content = bytes(self._pending[at:end])
                at = end
                yield _record(content, STDOUT)
        finally:
            del self._pending[:at]
        if len(self._pending) > LARGEST_RECORD:
            raise _no_log(f"{len(self._pending)} bytes without an end of line")

    def finish(self) -> Iterator[LogRecord]:
        rest, self._pending = bytes(self._pending), bytearray()
        return iter((_record(rest, STDOUT),) if rest else ())

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


def _mark(record: LogRecord) -> tuple[int, int, int]:
    return record.at, len(record.data), zlib.crc32(record.data)


def nanoseconds(stamp: re.Match[bytes]) -> int:
    """A stamp in nanoseconds since the epoch."""
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
    if stamp is None:
        raise _no_log(content[:LONGEST_STAMP])
    try:
        at = nanoseconds(stamp)
    except ValueError:
        raise _no_log(content[:LONGEST_STAMP]) from None
    data = content[stamp.end() :]
    return LogRecord(at=at, data=data, stream=stream, cost=_cost(data))


def _cost(data: bytes) -> int:
    """Bytes of a record in the engine's file: a JSON object a line."""
    long = len(data) - len(data.translate(None, SIX))
    short = len(data) - len(data.translate(None, TWO))
    return len(data) + 5 * long + short + AROUND


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
