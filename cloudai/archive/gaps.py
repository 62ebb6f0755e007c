"""What is missing from a log, said beside it and shown where it is missing.

The log itself holds the container's bytes and nothing else. ``1.gaps`` says at which offsets
the engine had dropped something, and between which records; a reader gets a line there::

    \\n[cloudai: gap: the engine no longer has what came between 2026-01-31T12:00:01.123456789Z
    and 2026-01-31T12:00:09.000000000Z]\\n

Where nobody can tell the place, ``length`` says within how many bytes it is.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from cloudai.core.units import show_gib
from cloudai.disk import disk_errors, write_whole


@dataclass(frozen=True, slots=True)
class Gap:
    """The engine dropped what came at this place."""

    offset: int
    """Bytes of the log before it."""
    after: int | None = None
    """Nanoseconds: the last record before it; ``None`` at the log's beginning."""
    before: int | None = None
    """The first after it; ``None`` where none came any more."""
    length: int = 0
    """Bytes after it between which records may be missing as well: they came in a way that may
    leave some out, and the engine dropped its own before both could be compared."""

    @property
    def text(self) -> bytes:
        """The line that is shown in its place."""
        after, before = _shown(self.after), _shown(self.before)
        if self.length:
            when = f" after {after}" if after else ""
            when = f" between {after} and {before}" if after and before else when
            what = (
                f"records may be missing here and in the next {self.length} bytes: the engine"
                f" dropped what came{when or f' before {before}'} before it could be compared"
            )
        elif after and before:
            what = f"the engine no longer has what came between {after} and {before}"
        elif after:
            what = f"the engine no longer has what came after {after}"
        else:
            what = f"the engine had dropped old records; what it kept begins at {before}"
        return f"\n[cloudai: gap: {what}]\n".encode()


def cut_text(left_out: int, limit: int) -> bytes:
    """The line in place of bytes that were left out at home."""
    return (
        f"\n[cloudai: cut: {left_out} bytes are left out here, the log is longer than"
        f" {show_gib(limit)}]\n"
    ).encode()


def gaps_of(path: Path) -> list[Gap]:
    """In order. Raises ``StoreFailed`` where the disk does."""
    with disk_errors(path):
        try:
            return [Gap(**entry) for entry in json.loads(path.read_bytes())]
        except FileNotFoundError:
            return []
        except (ValueError, TypeError) as error:
            raise OSError(f"it is damaged ({error})") from error


def write_gaps(path: Path, gaps: Sequence[Gap]) -> None:
    """Raises ``OSError``."""
    write_whole(path, json.dumps([asdict(gap) for gap in gaps]).encode("ascii"))


def _shown(at: int | None) -> str:
    if at is None:
        return ""
    seconds, nanos = divmod(at, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{nanos:09d}Z"
