"""``cp``: files into a task's container, and out of it, as tar streams."""

from __future__ import annotations

import os
import stat
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING

import click

from .options import common, complete_tasks
from .output import on_terminal, say, tell
from .session import Session

if TYPE_CHECKING:
    from rich.progress import Progress

CHUNK = 256 * 1024


@click.command()
@click.argument("source", metavar="SRC", shell_complete=complete_tasks)
@click.argument("target", metavar="DST", shell_complete=complete_tasks)
@common
@click.pass_context
def cp_command(ctx: click.Context, source: str, target: str) -> int:
    """Copy files between here and a task's container. One of SRC and DST is TASK:/PATH.

    Into a container that runs; out of one also after it ended, until its log is home. A folder's
    content goes into DST where DST is to be made; where DST is a folder here, or ends with /,
    SRC goes into it under its own name. With - on this side, a tar stream is read or written.

    \b
      cloudai cp train:/out/model.pt .
      cloudai cp config.yaml train:/workspace/
      cloudai cp train:/out - | tar tv
    """
    session: Session = ctx.obj
    there, back = _of_task(source), _of_task(target)
    if (there is None) == (back is None):
        raise click.UsageError("Exactly one of SRC and DST is TASK:/PATH.", ctx=ctx)
    if there is not None:
        return _out(session, there, target)
    assert back is not None
    return _in(session, source, back)


def _of_task(text: str) -> tuple[str, str] | None:
    """Task and path; ``None`` for a place here: ``./a:/b`` is one."""
    task, colon, path = text.partition(":")
    if not colon or not path.startswith("/") or "/" in task or not task:
        return None
    return task, path


# ------------------------------------------------------------------ out


def _out(session: Session, there: tuple[str, str], target: str) -> int:
    from cloudai.client import task_path

    task, path = there
    if target == "-" and on_terminal():
        raise click.UsageError("A tar stream is nothing for a terminal: pipe it, or name a place.")
    shown = not (session.json or session.quiet)
    with (
        session.client.stream(task_path(task, "files"), path=path) as chunks,
        Bar(f"{task}:{path}", None, shown=shown) as bar,
    ):
        if target == "-":
            for chunk in chunks:
                sys.stdout.buffer.write(chunk)
                bar.more(len(chunk))
            sys.stdout.buffer.flush()
            return 0
        place, files, size = _unpacked(_Reader(chunks, bar.more), target)
    done = {"task": task, "path": path, "to": str(place), "files": files, "bytes": size}
    session.show(done, lambda _: say(f"✅ {task}:{path} is in {place}"), quiet=[place])
    return 0


def _unpacked(stream: _Reader, target: str) -> tuple[Path, int, int]:
    """Unpacks beside where it goes, then renames."""
    from cloudai.core.errors import CloudaiError
    from cloudai.files import Refused, place, unpack

    to = Path(target)
    folder = to if to.is_dir() else to.parent
    if target.endswith("/"):
        to.mkdir(parents=True, exist_ok=True)
        folder = to
    elif not folder.is_dir():
        raise CloudaiError(f"There is no folder {folder} to copy into")
    with tempfile.TemporaryDirectory(prefix=".cloudai-", dir=folder) as staging:
        try:
            done = unpack(stream, Path(staging))
            stream.rest()
            if to.is_dir():
                where = place(done.root, to / done.root.name)
            elif done.root.is_dir():
                where = place(done.root, to)
            else:
                renamed = done.root.rename(done.root.with_name(to.name))
                where = place(renamed, to)
        except Refused as error:
            raise CloudaiError(f"Nothing was copied: {error}") from None
    for left_out in done.left_out:
        tell(f"⚠ left out: {left_out}")
    return where, done.files, done.size


class _Reader:
    """Chunks as a file; what breaks them off is raised as it is."""

    def __init__(self, chunks: Iterator[bytes], more: Callable[[int], None]) -> None:
        self._chunks, self._more = chunks, more
        self._held = b""

    def read(self, size: int = -1) -> bytes:
        while len(self._held) < size or size < 0:
            chunk = next(self._chunks, None)
            if chunk is None:
                break
            self._more(len(chunk))
            self._held += chunk
        if size < 0:
            size = len(self._held)
        data, self._held = self._held[:size], self._held[size:]
        return data

    def rest(self) -> None:
        """To the end: only there it shows that nothing was cut."""
        while self.read(CHUNK):
            pass


# ------------------------------------------------------------------ in


def _in(session: Session, source: str, back: tuple[str, str]) -> int:
    from cloudai.client import task_path
    from cloudai.core.files import container_path

    task, path = back
    into = path.endswith("/")
    path = container_path(path, what="DST")
    shown = not (session.json or session.quiet)
    if source == "-":
        total, pieces = None, _pieces(sys.stdin.buffer)
        if path != "/":
            raise click.UsageError("A tar stream is unpacked at the root: give TASK:/.")
    else:
        place = Path(source)
        if not os.path.lexists(place):
            raise click.UsageError(f"There is no {source} here.")
        if into:
            path = f"{path.rstrip('/')}/{place.resolve().name}"
        elif path == "/":
            raise click.UsageError("Say where: TASK:/PATH, or TASK:/FOLDER/.")
        total, pieces = _size(place), _tar(place, path.lstrip("/"))
    with Bar(f"{task}:{path}", total, shown=shown) as bar:
        sent = session.client.upload(task_path(task, "files"), bar.over(pieces))
    done = {"task": sent["task_id"], "path": path, "bytes": sent["bytes"]}
    session.show(done, lambda _: say(f"✅ {source} is in {task}:{path}"), quiet=[path])
    return 0


def _pieces(stream: IO[bytes]) -> Iterator[bytes]:
    while piece := stream.read(CHUNK):
        yield piece


def _size(place: Path) -> int:
    if not place.is_dir():
        return place.lstat().st_size
    size = 0
    for folder, _, files in os.walk(place):
        size += sum(os.lstat(os.path.join(folder, name)).st_size for name in files)
    return size


def _tar(place: Path, name: str) -> Iterator[bytes]:
    """A folder or file as a tar stream, under another name, owned by root there."""
    # What is a link by name is meant as what it leads to; links below it stay links.
    for one, named in _walk(place.resolve(), name):
        seen, info = one.lstat(), tarfile.TarInfo(named)
        info.mode, info.mtime = stat.S_IMODE(seen.st_mode) & 0o777, max(0, int(seen.st_mtime))
        if stat.S_ISREG(seen.st_mode):
            info.size = seen.st_size
        elif stat.S_ISDIR(seen.st_mode):
            info.type = tarfile.DIRTYPE
        elif stat.S_ISLNK(seen.st_mode):
            info.type, info.linkname = tarfile.SYMTYPE, os.readlink(one)
        else:
            tell(f"⚠ left out: {one} is a device, a pipe or a socket")
            continue
        yield info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
        if info.isreg():
            yield from _data(one, info.size)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _walk(place: Path, name: str) -> Iterator[tuple[Path, str]]:
    yield place, name
    if place.is_dir() and not place.is_symlink():
        for inner in sorted(place.iterdir()):
            yield from _walk(inner, f"{name}/{inner.name}")


def _data(place: Path, size: int) -> Iterator[bytes]:
    left = size
    with open(place, "rb") as file:
        while left:
            piece = file.read(min(CHUNK, left))
            if not piece:
                raise click.ClickException(f"{place} became shorter while it was read.")
            left -= len(piece)
            yield piece
    yield bytes(-size % tarfile.BLOCKSIZE)


# ------------------------------------------------------------------ how far it is


class Bar:
    """Progress on a terminal's stderr; nothing elsewhere."""

    def __init__(self, what: str, total: int | None, *, shown: bool) -> None:
        self._shown = shown and on_terminal(sys.stderr) and os.environ.get("TERM") != "dumb"
        self._what, self._total = what, total
        self._progress: Progress | None = None
        self._told, self._done = 0.0, 0

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def over(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            yield piece
            self.more(len(piece))

    def more(self, size: int) -> None:
        """So many bytes more."""
        self._done += size
        if not self._shown or time.monotonic() - self._told < 0.1:
            return
        self._told = time.monotonic()
        if self._progress is None:
            self._begin()
        assert self._progress is not None
        self._progress.update(self._progress.task_ids[0], completed=self._done)

    def _begin(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        from .terminal import clean

        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True, markup=False, emoji=False),
            transient=True,
        )
        self._progress.add_task(clean(self._what), total=self._total)
        self._progress.start()
