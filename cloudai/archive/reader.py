"""Reading a log, live or finished, plain or compressed, with a line where something is missing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from cloudai.disk import disk_errors

from .gaps import cut_text, gaps_of
from .parts import CHUNK, Body, opened, spans_of


class LogReader:
    """A place in a log that moves on as it is read; iterate again for what came since."""

    def __init__(self, base: Path, offset: int = 0, *, limit: int, marks: bool = True) -> None:
        self._base, self._limit, self._marks = base, limit, marks
        self.offset = offset
        """Bytes of the log before this place; marks do not count."""
        self._told = -1
        """The offset of the last gap that was shown."""

    def __iter__(self) -> Iterator[bytes]:
        """Large chunks up to the present end. Marks come as chunks of their own."""
        for part, end in spans_of(self._base):
            if end is not None and self.offset >= end:
                continue
            with opened(part) as body:
                if body is None:
                    continue
                if self.offset < part.begin:
                    # The parts in between were left out, by now or before.
                    left_out, self.offset = part.begin - self.offset, part.begin
                    if self._marks:
                        yield cut_text(left_out, self._limit)
                yield from self._body(body, part.begin, end)
        yield from self._gaps(self.offset)

    def _body(self, body: Body, begin: int, end: int | None) -> Iterator[bytes]:
        while True:
            yield from self._gaps(self.offset)
            size = CHUNK if end is None else min(CHUNK, end - self.offset)
            for gap in self._untold():
                if gap > self.offset:
                    size = min(size, gap - self.offset)
                    break
            data = body.read(self.offset - begin, size)
            if not data:
                return
            self.offset += len(data)
            yield data

    def _untold(self) -> list[int]:
        if not self._marks:
            return []
        gaps = gaps_of(log_file(self._base, ".gaps"))
        return [gap.offset for gap in gaps if gap.offset > self._told]

    def _gaps(self, offset: int) -> Iterator[bytes]:
        if offset not in self._untold():
            return
        for gap in gaps_of(log_file(self._base, ".gaps")):
            if gap.offset == offset:
                self._told = offset
                yield gap.text


def begin_of_lines(base: Path, floor: int, lines: int) -> int:
    """Where the last ``lines`` lines begin, not before ``floor``; read from the end."""
    spans = spans_of(base)
    end, closed = None, False
    for part, following in reversed(spans):
        with opened(part) as body:
            if body is None:
                continue
            stop = part.begin + body.length
            stop = stop if following is None else min(stop, following)
            if end is None:
                end = stop
                if lines <= 0 or end <= floor:
                    return max(end, floor)
            position = stop
            if not closed and stop > part.begin:
                # A newline at the very end closes the last line and begins none.
                closed = True
                if body.read(stop - 1 - part.begin, 1) == b"\n":
                    position = stop - 1
            while position > max(floor, part.begin):
                begin = max(floor, part.begin, position - CHUNK)
                chunk = _exactly(body, begin - part.begin, position - begin)
                found = chunk.count(b"\n")
                if found >= lines:
                    at = len(chunk)
                    for _ in range(lines):
                        at = chunk.rindex(b"\n", 0, at)
                    return begin + at + 1
                lines, position = lines - found, begin
            if part.begin <= floor:
                return floor
    return floor


def _exactly(body: Body, offset: int, size: int) -> bytes:
    data = bytearray()
    while len(data) < size and (more := body.read(offset + len(data), size - len(data))):
        data += more
    return bytes(data)


def log_file(base: Path, suffix: str) -> Path:
    """A file that there is one of for each log."""
    return base.with_name(base.name + suffix)


def done_bytes(base: Path) -> int | None:
    """Bytes of a finished log; ``None`` for one that is not, as far as anybody can tell."""
    path = log_file(base, ".done")
    with disk_errors(path):
        try:
            return int(json.loads(path.read_bytes())["bytes"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None
