"""What a task brings along and what it sends home: uploads and downloads, as they are asked for
and as a spec keeps them. Pure.

A spec holds each as one line of JSON. An upload names the content it stands for (``tree``, see
``cloudai.files``), so that a later edit of the folder changes nothing for a task that waits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from posixpath import basename, join, normpath

from .errors import InvalidInput
from .model import TaskSpec
from .wording import shown

WORKSPACE = "/workspace"
"""Where an upload goes that names no place."""
MOST = 16
"""Uploads, or downloads, of one task."""
LONGEST = 4096
"""Bytes of one path."""
_NOT_THERE = ("/", "/proc", "/sys", "/dev", "/run", "/tmp")  # noqa: S108 - of the container
_NEVER_UNDER = ("/proc/", "/sys/", "/dev/")

Piece = tuple[str, int, int]
"""A part of a pack: its name, where it begins, how many bytes it has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A folder of the controller's machine, and where it goes in the container."""

    source: str
    to: str
    tree: str = ""
    """Its content, as it was taken; empty: not taken yet."""

    def __str__(self) -> str:
        return f"{self.source}:{self.to}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """A path in the container, and where it goes at home."""

    path: str
    to: str
    """A folder: what is in a folder goes into it, and a file too, unless it has the file's own
    name. May hold ``{task}`` and ``{index}``, for tasks that must not write over each other."""

    def __str__(self) -> str:
        return f"{self.path}:{self.to}"

    def place(self, task_id: str, index: int) -> str:
        """Where it goes, for one task."""
        return self.to.replace("{task}", task_id).replace("{index}", str(index))


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """All that is to be in a container before it starts: packs, and which parts of them make the
    tar stream that is unpacked in it."""

    packs: Mapping[str, int] = field(default_factory=dict)
    """name -> bytes"""
    pieces: tuple[Piece, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of the stream."""
        return sum(length for _, _, length in self.pieces)


def check_uploads(items: Sequence[str]) -> tuple[str, ...]:
    """``DIR[:/workspace]`` each, as a spec keeps them. Raises ``InvalidInput``."""
    uploads = [_upload(text, what=f"uploads[{index}]") for index, text in enumerate(items)]
    _refuse_many(uploads, "uploads")
    targets = [f"{one.to}/" for one in uploads]
    for index, target in enumerate(targets):
        for other in (*targets[:index], *targets[index + 1 :]):
            if other.startswith(target):
                raise InvalidInput(
                    f"uploads[{index}]: {target[:-1]} holds {other[:-1]}, which another one fills;"
                    " give each a folder of its own",
                    field="uploads",
                )
    return tuple(_kept(one) for one in uploads)


def check_downloads(items: Sequence[str]) -> tuple[str, ...]:
    """``/out[:DIR]`` each, as a spec keeps them. Raises ``InvalidInput``."""
    downloads = [_download(text, what=f"downloads[{index}]") for index, text in enumerate(items)]
    _refuse_many(downloads, "downloads")
    return tuple(_kept(one) for one in downloads)


def upload_beside(text: str, folder: str) -> str:
    """``DIR[:PATH]`` with the whole path of DIR, which may be relative to ``folder``."""
    source, colon, to = text.rpartition(":")
    if not colon or not to.startswith("/"):
        source, colon, to = text, "", ""
    return f"{normpath(join(folder, source))}{colon}{to}"


def download_beside(text: str, folder: str) -> str:
    """``PATH[:DIR]`` with the whole path of DIR, which may be relative to ``folder``: under its
    own name there, where none is given."""
    path, _, to = text.partition(":")
    return f"{path}:{normpath(join(folder, to or basename(path.rstrip('/'))))}"


def upload_of(text: str) -> Upload:
    """One as a spec keeps it."""
    return Upload(**json.loads(text))


def uploads_of(spec: TaskSpec) -> list[Upload]:
    return [upload_of(text) for text in spec.uploads]


def downloads_of(spec: TaskSpec) -> list[Download]:
    return [Download(**json.loads(text)) for text in spec.downloads]


def with_trees(uploads: Sequence[Upload]) -> tuple[str, ...]:
    """As a spec keeps them."""
    return tuple(_kept(one) for one in uploads)


def owner_of(spec: TaskSpec) -> tuple[int, int]:
    """Who owns the files in the container: ``run_as``, where it is in numbers; else root."""
    user, _, group = (spec.run_as or "").partition(":")
    if not user.isdecimal():
        return 0, 0
    return int(user), int(group) if group.isdecimal() else 0


def container_path(text: str, *, what: str) -> str:
    """An absolute path in a container, without its dots. Raises ``InvalidInput``."""
    if not text.startswith("/") or "\x00" in text or not text.isprintable():
        raise _refuse(what, text, "give an absolute path in the container")
    if len(text.encode()) > LONGEST:
        raise _refuse(what, text, f"it is longer than {LONGEST} bytes")
    if ".." in text.split("/"):
        raise _refuse(what, text, "give the path without ..")
    return "/" + normpath(text).lstrip("/")


def _upload(text: str, *, what: str) -> Upload:
    source, colon, to = text.rpartition(":")
    if not colon or not to.startswith("/"):
        source, to = text, WORKSPACE
    _own_path(source, text, what=what)
    to = container_path(to, what=what)
    if to in _NOT_THERE or to.startswith(_NEVER_UNDER):
        raise _refuse(what, text, "give a folder of its own in the container, such as /workspace")
    return Upload(source=source, to=to)


def _download(text: str, *, what: str) -> Download:
    path, colon, to = text.partition(":")
    path = container_path(path, what=what)
    if path == "/" or path.startswith(_NEVER_UNDER):
        raise _refuse(what, text, "give a folder or file below /, such as /out")
    if not colon:
        raise _refuse(what, text, f"say where to, such as {path}:/home/me/{basename(path)}")
    _own_path(to, text, what=what)
    return Download(path=path, to=to)


def _own_path(path: str, text: str, *, what: str) -> None:
    if not path.startswith("/"):
        raise _refuse(what, text, "give an absolute path of the controller's machine")
    if len(path.encode()) > LONGEST or not path.isprintable():
        raise _refuse(what, text, f"give a printable path of at most {LONGEST} bytes")


def _refuse_many(items: Sequence[object], what: str) -> None:
    if len(items) > MOST:
        raise InvalidInput(f"{what}: {len(items)} of them; at most {MOST}", field=what)


def _kept(one: Upload | Download) -> str:
    return json.dumps(asdict(one), sort_keys=True, separators=(",", ":"))


def _refuse(what: str, text: str, right: str) -> InvalidInput:
    return InvalidInput(f"{what}: {shown(text)}; {right}", field=what.partition("[")[0])
