"""A file of the user's replaced as a whole: readers see the old text or the new, never half."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path

from cloudai.disk import disk_errors, sync_folder


def write_text(path: Path, text: str) -> None:
    """Writes the text, synced to disk. A link stays one, its target is replaced; permissions
    stay; a new file below the home, and folders made for it, are the owner's alone.

    Raises ``StoreFailed`` or the child of it that fits; then nothing has changed.
    """
    with disk_errors(path):
        target = Path(os.path.realpath(path))
        _make_folder(target.parent)
        _replace(target, text.encode())


def _make_folder(folder: Path) -> None:
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    for one in reversed(missing):
        one.mkdir(mode=0o700 if _at_home(one) else 0o777, exist_ok=True)


def _at_home(path: Path) -> bool:
    return path.is_relative_to(os.path.realpath(Path.home()))


def _replace(target: Path, content: bytes) -> None:
    old = target.stat() if target.exists() else None
    beside = target.with_name(f".{target.name}.{secrets.token_hex(4)}.new")
    # Not through a private temporary file: a new one in a shared folder follows the umask.
    mode = 0o600 if old is None and _at_home(target) else 0o666
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with open(descriptor, "wb") as file:
            if old is not None:
                _copy_rights(file.fileno(), old)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(target)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)


def _copy_rights(descriptor: int, old: os.stat_result) -> None:
    with contextlib.suppress(PermissionError):  # only root may give a file to another
        os.fchown(descriptor, old.st_uid, old.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(old.st_mode))
