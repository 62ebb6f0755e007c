"""The inventory file while it lives: re-read when it changes, the last good one kept."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import time
from dataclasses import dataclass, field
from pathlib import Path

from cloudai.core.model import WorkerSpec
from cloudai.core.policy import Policy
from cloudai.core.problems import NOWHERE, FileInvalid, Place, Problem
from cloudai.disk import write_whole

from .reading import read_fleet
from .tree import LARGEST

_FRESH = 2_000_000_000
"""Nanoseconds: a file written so lately may change again without its times showing it."""

KEPT_NAME = "inventory.last-good.json"

_Stamp = tuple[int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The inventory as it stands."""

    workers: dict[str, WorkerSpec]
    error: str | None
    """Why the file as it is now cannot be taken; then ``workers`` are of the last good one."""
    path: Path | None
    changed: bool
    """The workers differ from those of the reading before (always true at the first)."""
    policy: Policy = field(default_factory=Policy)
    """What its ``scheduling`` says; as with the workers, of the last good one."""


class InventoryFile:
    """One inventory on disk. ``None``, or a file that is not there yet: no workers.

    ``home``: the folder that remembers the last good one, so that a controller which starts
    while the file has a mistake knows it, too.
    """

    def __init__(self, path: Path | None, *, home: Path | None = None) -> None:
        self.path = path
        self._kept = home / KEPT_NAME if home is not None else None
        self._workers: dict[str, WorkerSpec] | None = None
        self._policy = Policy()
        self._error: str | None = None
        self._stamp: _Stamp | None = None
        self._content: bytes | None = None

    def read(self) -> Snapshot:
        """The inventory now. Cheap while the file stays as it is; never raises."""
        before = self._workers
        try:
            self._look()
        except FileInvalid as wrong:
            self._error = wrong.message
        if self._workers is None:
            self._workers = {}
        changed = self._workers != before
        return Snapshot(self._workers, self._error, self.path, changed, self._policy)

    def _look(self) -> None:
        if self.path is None:
            return
        known, stamp = self._content, self._stamp
        # Until it is read whole, nothing is known of what stands there now.
        self._content = self._stamp = None
        seen = _stamp(self.path)
        if seen is None:
            if self._workers:
                raise _unreadable(self.path, "the file is gone")
            self._error = None
            return
        content = known if known is not None and seen == stamp else read_bytes(self.path)
        self._content = content
        self._stamp = seen if time.time_ns() - max(seen[0], seen[1]) > _FRESH else None
        if content != known:
            self._take(content, self.path)

    def _take(self, content: bytes, path: Path) -> None:
        if self._workers is None:
            self._recall(path)
        if self._workers and not content.strip():
            # An editor that writes in two steps, or a full disk, more often than a wish.
            raise _unreadable(path, "is empty; write `workers: {}` if that is meant")
        text = decode(content, source=str(path))
        fleet = read_fleet(text, source=str(path))
        self._workers, self._policy = fleet.workers, fleet.policy
        self._error = None
        self._keep(text, path)

    def _keep(self, text: str, path: Path) -> None:
        if self._kept is None:
            return
        # A home that cannot be written says so where it matters; reading goes on.
        with contextlib.suppress(OSError):
            write_whole(self._kept, json.dumps({"path": str(path), "text": text}).encode())

    def _recall(self, path: Path) -> None:
        """Takes over the last good one of that path, where it is remembered."""
        if self._kept is None:
            return
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, FileInvalid):
            kept = json.loads(self._kept.read_bytes())
            if kept["path"] == str(path):
                fleet = read_fleet(kept["text"], source=str(path))
                self._workers, self._policy = fleet.workers, fleet.policy


def read_bytes(path: Path) -> bytes:
    """The file whole. Raises ``FileInvalid``; a pipe or a device is never opened."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise _unreadable(path, "is not a file")
        with open(path, "rb") as file:
            return file.read(LARGEST + 1)
    except OSError as wrong:
        raise _unreadable(path, f"cannot be read: {wrong.strerror}") from None


def decode(content: bytes, *, source: str) -> str:
    """The file's text, without a byte order mark. Raises ``FileInvalid`` if not UTF-8."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as wrong:
        line = content.count(b"\n", 0, wrong.start) + 1
        column = wrong.start - content.rfind(b"\n", 0, wrong.start)
        problem = Problem(Place(line, column), "is not UTF-8; save it as such")
        raise FileInvalid(source, [problem]) from None


def _stamp(path: Path) -> _Stamp | None:
    """What changes when the file does; ``None`` where there is none."""
    try:
        seen = os.stat(path)
    except FileNotFoundError:
        return None
    except OSError as wrong:
        raise _unreadable(path, f"cannot be read: {wrong.strerror}") from None
    return (seen.st_mtime_ns, seen.st_ctime_ns, seen.st_size, seen.st_ino, seen.st_dev)


def _unreadable(path: Path, why: str) -> FileInvalid:
    return FileInvalid(str(path), [Problem(NOWHERE, why)])
