"""The disk at home: its errors in our words, and files written whole or not at all."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cloudai.core.errors import InvalidInput, StoreFailed, StoreFull, StoreReadOnly

FULL_DISK = frozenset({errno.ENOSPC, errno.EDQUOT})
_READ_ONLY = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


def as_store_failed(error: OSError, path: Path) -> StoreFailed:
    """What the operating system said about ``path``, as the error a person meets."""
    if error.errno in FULL_DISK:
        return StoreFull(
            f"No space left for {path}",
            hint="Free some space on that disk; what was stored before is still there.",
        )
    if error.errno in _READ_ONLY:
        return StoreReadOnly(
            f"{path} cannot be written: {error.strerror}",
            hint="Give it back to your user; CLOUDAI_HOME and --inventory name other places.",
        )
    return StoreFailed(f"{path}: {error.strerror or error}")


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Raises ``StoreFull``, ``StoreReadOnly`` or ``StoreFailed`` in place of ``OSError``."""
    try:
        yield
    except OSError as error:
        raise as_store_failed(error, path) from error


def plain_name(name: str) -> str:
    """``name``, safe as the name of one file in a folder; else raises ``InvalidInput``."""
    if not _PLAIN_NAME.fullmatch(name):
        raise InvalidInput(f"{name!r} cannot be a task id")
    return name


def make_private_folder(folder: Path) -> None:
    """Makes ``folder``, and what is missing above it, with mode 0700; takes an existing one
    back from others."""
    for missing in [above for above in reversed(folder.parents) if not above.exists()]:
        missing.mkdir(mode=0o700, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    mode = folder.stat().st_mode
    if mode & 0o077:
        folder.chmod(mode & 0o700)


def write_all(descriptor: int, data: bytes, offset: int) -> None:
    """Writes all of ``data`` at ``offset`` bytes, or raises ``OSError``."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def write_whole(path: Path, data: bytes) -> None:
    """Puts ``data`` into ``path`` (0600): after a crash it is there whole, or not at all.

    On the disk, folder entry included, when it returns. Raises ``OSError``.
    """
    beside = path.with_name(f".{path.name}.new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        try:
            write_all(descriptor, data, 0)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes what was created, renamed or removed in ``folder`` survive a power loss."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
