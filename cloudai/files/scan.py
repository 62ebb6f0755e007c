"""What of a folder is meant: its files, folders and links, in order, and nothing that could
reach beyond it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from posixpath import dirname, normpath

from cloudai.core.errors import InvalidInput

from .ignore import Rules

MOST = 1_000_000
"""Files of one upload."""
LONGEST = 3000
"""Bytes of a path in it; the engine's own bound is 4096, its target included."""


@dataclass(frozen=True, slots=True)
class Found:
    """One thing in the folder, as ``lstat`` shows it."""

    path: str
    """Relative, with slashes; not decoded bytes are surrogates, as ``os.fsdecode`` makes them."""
    kind: str
    """``f``, ``d`` or ``l``."""
    mode: int
    """Permission bits."""
    size: int
    mtime: int
    """Nanoseconds."""
    link: str = ""


def scan(folder: Path, *, keep_all: bool = False) -> list[Found]:
    """Everything below the folder that its ignore files do not leave out (``keep_all``: all),
    parents before what is in them, by name.

    Raises ``InvalidInput``, with the path, for what is no folder, for links that lead out of it,
    and for sockets, pipes and devices.
    """
    if not folder.is_dir():
        what = "is no folder" if folder.exists() else "is not there"
        raise InvalidInput(f"uploads: {told(folder)} {what}", field="uploads")
    found: list[Found] = []
    for one in _walk(folder, "", Rules(), keep_all=keep_all):
        found.append(one)
        if len(found) > MOST:
            raise InvalidInput(
                f"uploads: {told(folder)} holds more than {MOST} files",
                hint="leave some out with a .dockerignore, or pack them into one file",
                field="uploads",
            )
    return found


def _walk(folder: Path, prefix: str, rules: Rules, *, keep_all: bool) -> Iterator[Found]:
    if not keep_all:
        rules = rules.below(folder, prefix)
    try:
        with os.scandir(folder) as entries:
            listed = sorted(entries, key=lambda entry: os.fsencode(entry.name))
    except OSError as error:
        raise _unreadable(folder, error) from None
    for entry in listed:
        path = prefix + entry.name
        is_folder = entry.is_dir(follow_symlinks=False)
        if not keep_all and rules.leaves_out(path, folder=is_folder):
            continue
        one = look(Path(entry.path), path)
        yield one
        if is_folder:
            yield from _walk(Path(entry.path), f"{path}/", rules, keep_all=keep_all)


def look(place: Path, path: str) -> Found:
    """One thing, checked. Raises ``InvalidInput``."""
    if len(os.fsencode(path)) > LONGEST:
        raise _refuse(path, f"its path is longer than {LONGEST} bytes")
    try:
        seen = place.lstat()
        mode, mtime = stat.S_IMODE(seen.st_mode) & 0o777, seen.st_mtime_ns
        if stat.S_ISREG(seen.st_mode):
            return Found(path, "f", mode, seen.st_size, mtime)
        if stat.S_ISDIR(seen.st_mode):
            return Found(path, "d", mode, 0, mtime)
        if stat.S_ISLNK(seen.st_mode):
            link = os.readlink(place)
            _check_link(path, link)
            return Found(path, "l", 0o777, 0, mtime, link)
    except OSError as error:
        raise _unreadable(place, error) from None
    raise _refuse(path, "it is a socket, a pipe or a device, which cannot be sent")


def _check_link(path: str, link: str) -> None:
    if leads_out(path, link):
        raise _refuse(path, f"it is a link to {told(link)}, out of the uploaded folder")


def leads_out(path: str, link: str) -> bool:
    """Whether a link at that path of a tree leads out of the tree."""
    if link.startswith("/"):
        return True
    leads = normpath("/".join(filter(None, (dirname(path), link))))
    return leads == ".." or leads.startswith("../")


def told(path: str | Path) -> str:
    """A path as a message may carry it: what is not printable is escaped; of a long one, its
    end."""
    text = str(path)
    return repr(text if len(text) <= 200 else f"…{text[-199:]}")


def _refuse(path: str, why: str) -> InvalidInput:
    return InvalidInput(
        f"uploads: {told(path)}: {why}",
        hint="leave it out with a .dockerignore",
        field="uploads",
    )


def _unreadable(place: Path, error: OSError) -> InvalidInput:
    return InvalidInput(
        f"uploads: {told(place)} cannot be read: {error.strerror}",
        hint="leave it out with a .dockerignore, or make it readable",
        field="uploads",
    )
