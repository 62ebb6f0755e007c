"""What was uploaded, as it was when its task was submitted: packs, and trees made of them.

::

    CLOUDAI_HOME/files/packs/SHA256     tar entries (see ``packs``), 0600
                       trees/SHA256     one tree: its pieces, then what is in it
                       latest/…         the newest tree of a folder, for the next time
                       workers/ID       that this worker was sent some of it

A changed folder makes one more pack, of what changed alone; the rest of its tree stays where it
is. What was looked at before and has the same size, mode and time is not read again.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from cloudai.core.errors import InvalidInput, NotFound
from cloudai.core.files import Parcel, Piece, Upload, owner_of, uploads_of, with_trees
from cloudai.core.model import TaskSpec
from cloudai.crash import point
from cloudai.disk import disk_errors, make_private_folder, plain_name, write_whole

from .packs import CHUNK, Changed, PackWriter, digest_of, header
from .scan import Found, look, scan, told

RACY = 2 * 10**9
"""Nanoseconds: what changed so shortly before it was taken may have changed after, unseen."""
TRIES = 3
"""For a file that is being written while it is read."""
MOST_PACKS = 24
MOST_PIECES = 500
"""Each costs a start some milliseconds on the worker."""
MOST_DEAD = 64 * 1024**2
"""Bytes of packs that a tree no longer uses, beyond as many as it uses: then all is packed anew."""
KEPT_FOR = 7 * 86400.0
"""Seconds for which the newest tree of a folder is kept that no task waits for."""
FRESH = 3600.0
"""Seconds for which a tree is kept at any rate: its task may not be stored yet."""

Key = tuple[str, str, tuple[int, int]]


class Row(NamedTuple):
    """One thing of a tree, and where its entry is."""

    path: str
    kind: str
    mode: int
    size: int
    mtime: int
    link: str
    digest: str
    pack: str
    begin: int
    length: int

    @property
    def means(self) -> tuple[str, str, int, str]:
        """What makes it what it is."""
        return self.path, self.kind, self.mode, self.digest or self.link


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of taking a folder."""

    tree: str
    files: int
    size: int
    """Bytes of the tree."""
    new: int
    """Bytes that were not there before."""


@dataclass(frozen=True, slots=True)
class _Tree:
    taken: int
    """Nanoseconds since the epoch."""
    packs: dict[str, int]
    rows: list[Row]


class Files:
    """All that is kept of uploads. Every method blocks; they may be called from any thread.

    Raises ``StoreFull`` and its kin where the disk does.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._packs, self._trees = folder / "packs", folder / "trees"
        self._latest = folder / "latest"
        self._workers = folder / "workers"
        self._one_at_a_time = threading.Lock()

    # ---------------------------------------------------------------- taking

    def with_files(self, specs: Sequence[TaskSpec]) -> list[TaskSpec]:
        """The specs, their uploads taken; each folder once, however many ask for it. Raises
        ``InvalidInput`` for what cannot be taken."""
        taken: dict[Key, str] = {}

        def take(one: Upload, owner: tuple[int, int]) -> Upload:
            if one.tree and self._has(one.tree):
                return one
            key = (one.source, one.to, owner)
            if key not in taken:
                taken[key] = self.take(*key).tree
            return replace(one, tree=taken[key])

        found = []
        for spec in specs:
            if spec.uploads:
                owner = owner_of(spec)
                uploads = [take(one, owner) for one in uploads_of(spec)]
                spec = replace(spec, uploads=with_trees(uploads))
            found.append(spec)
        return found

    def take(self, source: str, to: str, owner: tuple[int, int]) -> Taken:
        """Keeps a folder as it is now; durable when it returns. Raises ``InvalidInput``."""
        with self._one_at_a_time, disk_errors(self._folder):
            for folder in (self._folder, self._packs, self._trees, self._latest):
                make_private_folder(folder)
            return self._take(Path(source), (source, to, owner))

    def _take(self, folder: Path, key: Key) -> Taken:
        now = time.time_ns()
        before = self._newest(key)
        found = [Found("", "d", 0o755, 0, 0), *(_for_all(one, key[2]) for one in scan(folder))]
        writer = PackWriter(self._packs)
        try:
            rows = [self._row(folder, one, key, before, writer) for one in found]
            new = writer.size
            pack = writer.close()
        finally:
            writer.abandon()
        point("files.packed")
        rows = [row if row.pack else row._replace(pack=pack) for row in rows]
        tree = _name(key, rows)
        if (same := self._read(tree)) is not None:
            # It was like this once before: as it was kept then, with the times of now.
            there = {row.path: row for row in same.rows}
            rows = [there[row.path]._replace(mtime=row.mtime) for row in rows]
        self._write(tree, now, rows)
        write_whole(self._latest / _name(key, ()), tree.encode())
        point("files.kept")
        return Taken(tree, len(rows) - 1, sum(row.length for row in rows), new)

    def _row(
        self, folder: Path, one: Found, key: Key, before: dict[str, Row], writer: PackWriter
    ) -> Row:
        old = before.get(one.path)
        if old is not None and _looks_same(one, old):
            return old
        place = folder / one.path
        for _ in range(TRIES):
            try:
                alike = old is not None and (old.kind, *old[2:4]) == ("f", one.mode, one.size)
                if old is not None and alike and digest_of(place, one) == old.digest:
                    return old._replace(mtime=one.mtime)
                name = f"{key[1].lstrip('/')}/{one.path}".rstrip("/")
                begin, length, digest = writer.add(one, place, header(one, name, key[2]))
                return Row(*_seen(one), digest, "", begin, length)
            except Changed:
                one = _for_all(look(place, one.path), key[2])
            except OSError as error:
                if error.filename is None:
                    raise  # our own disk
                raise InvalidInput(
                    f"uploads: {told(place)} cannot be read: {error.strerror}",
                    hint="leave it out with a .dockerignore, or make it readable",
                    field="uploads",
                ) from None
        raise InvalidInput(
            f"uploads: {told(place)} changes while it is read",
            hint="leave it out with a .dockerignore, or submit once it is written",
            field="uploads",
        )

    # ---------------------------------------------------------------- giving

    def parcel(self, spec: TaskSpec) -> Parcel:
        """What a worker needs for it. Raises ``NotFound`` where it is no longer here."""
        packs: dict[str, int] = {}
        pieces: list[Piece] = []
        for one in uploads_of(spec):
            try:
                with open(self._trees / (one.tree or "none"), "rb") as file:
                    head = json.loads(file.readline())
            except (OSError, ValueError):
                raise NotFound(
                    f"What was uploaded of {told(one.source)} is no longer in {self._folder}",
                    hint="submit the task again",
                ) from None
            packs |= head["packs"]
            pieces += [(str(pack), int(begin), int(size)) for pack, begin, size in head["pieces"]]
        return Parcel(packs=packs, pieces=tuple(pieces))

    def read(self, pack: str, begin: int) -> Iterator[bytes]:
        """A pack from that byte on."""
        with disk_errors(self._packs / pack), open(self._packs / pack, "rb", 0) as file:
            file.seek(begin)
            while chunk := file.read(CHUNK):
                yield chunk

    # ---------------------------------------------------------------- which workers have some

    def sent_to(self, worker_id: str) -> None:
        """Remembers, before anything is sent, that it has some of it."""
        path = self._workers / plain_name(worker_id)
        if not path.exists():
            with disk_errors(path):
                make_private_folder(self._workers)
                write_whole(path, b"")

    def workers(self) -> list[str]:
        """Those that have, or may have, some of it."""
        return [path.name for path in _listed(self._workers)]

    def gone_from(self, worker_id: str) -> None:
        """It has nothing of it any more."""
        (self._workers / plain_name(worker_id)).unlink(missing_ok=True)

    # ---------------------------------------------------------------- forgetting

    def sweep(self, keep: Callable[[], set[str]]) -> None:
        """Forgets trees that no waiting or running task (``keep``: theirs) needs, but for the
        newest of each folder for a week, and packs that no tree needs."""
        with self._one_at_a_time, disk_errors(self._folder):
            if not self._folder.is_dir():
                return
            wanted, now = keep(), time.time()
            for path in _listed(self._latest):
                if _age(path, now) > KEPT_FOR:
                    path.unlink(missing_ok=True)
            wanted |= {path.read_text("ascii") for path in _listed(self._latest)}
            for path in _listed(self._trees):
                if path.name not in wanted and _age(path, now) > FRESH:
                    path.unlink(missing_ok=True)
            self._drop_packs()

    def drop(self, trees: set[str]) -> None:
        """Forgets trees that nobody needs any more, with what only they needed."""
        with self._one_at_a_time, disk_errors(self._folder):
            for path in _listed(self._latest):
                if path.read_text("ascii") in trees:
                    path.unlink(missing_ok=True)
            for tree in trees:
                (self._trees / tree).unlink(missing_ok=True)
            self._drop_packs()

    def _drop_packs(self) -> None:
        needed: set[str] = set()
        for path in _listed(self._trees):
            with open(path, "rb") as file:
                needed |= set(json.loads(file.readline())["packs"])
        for path in _listed(self._packs):
            if path.name not in needed:
                path.unlink(missing_ok=True)

    # ---------------------------------------------------------------- trees on the disk

    def _has(self, tree: str) -> bool:
        with self._one_at_a_time:
            path = self._trees / tree
            if not path.is_file():
                return False
            os.utime(path)
            return True

    def _newest(self, key: Key) -> dict[str, Row]:
        """path -> how it was when that folder was last taken; nothing where all is to be packed
        anew. What is too fresh to be told from a later change has no time there."""
        try:
            name = (self._latest / _name(key, ())).read_text("ascii")
        except FileNotFoundError:
            return {}
        if (tree := self._read(name)) is None:
            return {}
        live, held = sum(row.length for row in tree.rows), sum(tree.packs.values())
        if len(tree.packs) > MOST_PACKS or held - live > live + MOST_DEAD:
            return {}
        if len(_pieces(tree.rows)) > MOST_PIECES:
            return {}
        return {
            row.path: row._replace(mtime=-1) if row.path and row.mtime >= tree.taken - RACY else row
            for row in tree.rows
        }

    def _read(self, tree: str) -> _Tree | None:
        """``None`` where it is not here whole."""
        try:
            head, *rows = (self._trees / tree).read_bytes().splitlines()
            found = json.loads(head)
        except (FileNotFoundError, ValueError):
            return None
        for pack, size in found["packs"].items():
            path = self._packs / pack
            if not path.is_file() or path.stat().st_size != size:
                return None
        return _Tree(found["taken"], found["packs"], [Row(*json.loads(row)) for row in rows])

    def _write(self, tree: str, now: int, rows: Sequence[Row]) -> None:
        packs = {row.pack: (self._packs / row.pack).stat().st_size for row in rows}
        head = {"taken": now, "packs": packs, "pieces": _pieces(rows)}
        lines = [json.dumps(one, separators=(",", ":")) for one in (head, *rows)]
        write_whole(self._trees / tree, "\n".join(lines).encode("ascii"))


def _for_all(one: Found, owner: tuple[int, int]) -> Found:
    """Whoever the container runs as may read what the owner here may: nobody else is in it."""
    if owner != (0, 0) or one.kind == "l":
        return one
    readable = one.mode & 0o500
    return replace(one, mode=one.mode | readable >> 3 | readable >> 6)


def _looks_same(one: Found, old: Row) -> bool:
    return _seen(one) == tuple(old[:6]) or (one.kind == "d" and _means(one) == old.means)


def _means(one: Found) -> tuple[str, str, int, str]:
    return one.path, one.kind, one.mode, one.link


def _seen(one: Found) -> tuple[str, str, int, int, int, str]:
    return one.path, one.kind, one.mode, one.size, one.mtime, one.link


def _name(key: Key, rows: Sequence[Row]) -> str:
    said = json.dumps([key[1:] if rows else key, [row.means for row in rows]])
    return hashlib.sha256(said.encode("ascii")).hexdigest()


def _pieces(rows: Sequence[Row]) -> list[list[str | int]]:
    """Entries that follow each other in one pack are one piece."""
    pieces: list[list[str | int]] = []
    end: tuple[str, int] | None = None
    for row in rows:
        if end == (row.pack, row.begin):
            pieces[-1][2] = int(pieces[-1][2]) + row.length
        else:
            pieces.append([row.pack, row.begin, row.length])
        end = (row.pack, row.begin + row.length)
    return pieces


def _listed(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _age(path: Path, now: float) -> float:
    return now - path.stat().st_mtime
