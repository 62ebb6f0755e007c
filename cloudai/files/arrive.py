"""What comes back from a container: a tar stream that nobody vouches for.

It is gathered in a file, checked, unpacked into a private folder beside where it is to go, and
only then renamed into place. Nothing in it decides where anything goes beyond that folder: no
``..``, no absolute names, no devices, and links are made last, when nothing is written any more,
and only those that stay inside.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from posixpath import normpath

from cloudai.disk import make_private_folder

from .packs import CHUNK
from .scan import leads_out, told

TAR, TREE = "tar", "tree"
MOST_LEFT_OUT = 20
"""Things left out that are told by name."""


class Refused(Exception):
    """It cannot go where it is to go; nothing was changed there. The message says why."""


@dataclass(slots=True)
class Unpacked:
    """What became of a stream."""

    root: Path
    """The one folder or file that it held, in the staging folder."""
    files: int = 0
    size: int = 0
    left_out: list[str] = field(default_factory=list)
    """What was not made, and why, for people."""


class Staging:
    """A folder of ours alone (0700) in which one download is gathered; found again by the next
    try, with what came so far."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tar = folder / TAR

    def begin(self) -> int:
        """Makes it; answers how many bytes are there already. Raises ``OSError``."""
        if self.folder.is_symlink():
            raise NotADirectoryError(20, "a link is in the way", str(self.folder))
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        make_private_folder(self.folder)
        descriptor = os.open(self.tar, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        os.close(descriptor)
        return self.tar.stat().st_size

    def append(self, data: bytes) -> None:
        descriptor = os.open(self.tar, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
        finally:
            os.close(descriptor)

    def digest(self) -> str:
        """The SHA-256 of all that came."""
        found = hashlib.sha256()
        with open(self.tar, "rb", buffering=0) as file:
            while chunk := file.read(CHUNK):
                found.update(chunk)
        return found.hexdigest()

    def spoiled(self) -> None:
        """Begin anew."""
        self.tar.unlink(missing_ok=True)

    def unpack(self) -> Unpacked:
        """Raises ``Refused``, ``OSError``."""
        tree = self.folder / TREE
        shutil.rmtree(tree, ignore_errors=True)
        tree.mkdir(mode=0o700)
        with open(self.tar, "rb") as file:
            return unpack(file, tree)

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def unpack(stream: object, into: Path) -> Unpacked:
    """Unpacks a tar stream (something to ``read`` from) into an empty private folder.

    Raises ``Refused`` for what is no tar stream or holds nothing that may be made, ``OSError``.
    """
    done = Unpacked(into)
    links: list[tuple[str, str]] = []
    umask = os.umask(0o077)
    os.umask(umask)
    roots: set[str] = set()
    try:
        with tarfile.open(
            fileobj=stream,  # type: ignore[call-overload]
            mode="r|",
            encoding="utf-8",
            errors="surrogateescape",
        ) as tar:
            for member in tar:
                name = _safe_name(member.name)
                if name is None:
                    _leave_out(done, member.name, "it leads out of the folder")
                    continue
                roots.add(name.partition("/")[0])
                if member.issym():
                    links.append((name, member.linkname))
                else:
                    _make(tar, member, into, name, umask, done)
    except tarfile.TarError as error:
        raise Refused(f"what came is no whole tar stream: {error}") from None
    for name, link in links:
        _link(into, name, link, done)
    made = [into / root for root in sorted(roots) if os.path.lexists(into / root)]
    if len(made) > 1:
        raise Refused("what came holds more than was asked for")
    if not made:
        why = f" ({done.left_out[0]})" if done.left_out else ""
        raise Refused(f"there is nothing in it that may be brought home{why}")
    done.root = made[0]
    return done


def place(unpacked: Path, to: Path) -> Path:
    """Puts what was unpacked where it is to go, over what is there of the same names; answers
    where. What is in the folder besides stays. Raises ``Refused`` with nothing changed, and
    ``OSError``."""
    to = Path(os.path.realpath(to))
    if not stat.S_ISDIR(unpacked.lstat().st_mode):
        if to.is_dir() or to.name != unpacked.name:
            to = to / unpacked.name
        _check_over(unpacked, to)
        _make_parents(to)
        unpacked.replace(to)
        return to
    _check_over(unpacked, to)
    _make_parents(to)
    _merge(unpacked, to)
    return to


def _safe_name(name: str) -> str | None:
    """The name below the folder; ``None`` where it leads out of it."""
    if name.startswith("/") or "\x00" in name:
        return None
    clean = normpath(name)
    if clean in (".", "..") or clean.startswith("../") or ".." in name.split("/"):
        return None
    return clean


def _make(
    tar: tarfile.TarFile,
    member: tarfile.TarInfo,
    into: Path,
    name: str,
    umask: int,
    done: Unpacked,
) -> None:
    place = into / name
    try:
        if member.isdir():
            place.mkdir(mode=0o777, parents=True, exist_ok=True)
        elif member.isreg():
            place.parent.mkdir(mode=0o777, parents=True, exist_ok=True)
            _write(tar, member, place, umask)
            done.files += 1
            done.size += member.size
        elif member.islnk():
            target = _safe_name(member.linkname)
            if target is None or not stat.S_ISREG((into / target).lstat().st_mode):
                _leave_out(done, name, "it is a hard link to nothing that came with it")
                return
            place.parent.mkdir(mode=0o777, parents=True, exist_ok=True)
            os.link(into / target, place, follow_symlinks=False)
            done.files += 1
        else:
            _leave_out(done, name, "it is a device, a pipe or a socket")
    except (FileExistsError, NotADirectoryError, FileNotFoundError, IsADirectoryError):
        _leave_out(done, name, "something else of that name came with it")
    except ValueError:
        _leave_out(done, name, "its name cannot be a file's here")


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, place: Path, umask: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    mode = 0o777 if member.mode & 0o100 else 0o666
    source = tar.extractfile(member)
    assert source is not None
    with open(os.open(place, flags, mode & ~umask), "wb", buffering=0) as file:
        shutil.copyfileobj(source, file, CHUNK)
    if file_size := member.size - place.stat().st_size:
        raise tarfile.ReadError(f"{file_size} bytes of {member.name!r} are missing")
    seconds = max(0, int(member.mtime))
    os.utime(place, (seconds, seconds), follow_symlinks=False)


def _link(into: Path, name: str, link: str, done: Unpacked) -> None:
    """Made last; one that leads out, also over other links, is taken back."""
    inside = name.partition("/")[2]
    if not inside or leads_out(inside, link):
        _leave_out(done, name, f"it is a link to {told(link)}, out of the folder")
        return
    place, root = into / name, os.path.realpath(into / name.partition("/")[0])
    try:
        place.parent.mkdir(mode=0o777, parents=True, exist_ok=True)
        place.symlink_to(link)
    except (OSError, ValueError):
        _leave_out(done, name, "something else of that name came with it")
        return
    leads = os.path.realpath(place)
    if leads != root and not leads.startswith(f"{root}/"):
        place.unlink()
        _leave_out(done, name, f"it is a link to {told(link)}, out of the folder")


def _leave_out(done: Unpacked, name: str, why: str) -> None:
    if len(done.left_out) < MOST_LEFT_OUT:
        done.left_out.append(f"{told(name)}: {why}")


def _check_over(source: Path, to: Path) -> None:
    """Raises ``Refused`` where a folder would go over a file, a file over a folder, or anything
    through a link."""
    if not os.path.lexists(to):
        return
    is_folder = stat.S_ISDIR(source.lstat().st_mode)
    if is_folder != stat.S_ISDIR(to.lstat().st_mode):
        words = "a folder" if is_folder else "a file"
        raise Refused(f"{to} is there already, and {words} cannot take its place")
    if is_folder:
        for inner in source.iterdir():
            _check_over(inner, to / inner.name)


def _make_parents(to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)


def _merge(source: Path, to: Path) -> None:
    if not os.path.lexists(to):
        source.replace(to)
        return
    for inner in sorted(source.iterdir()):
        if stat.S_ISDIR(inner.lstat().st_mode):
            _merge(inner, to / inner.name)
        else:
            inner.replace(to / inner.name)
