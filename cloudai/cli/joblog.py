"""``--joblog``: the job log's file, appended to as tasks end, and read for ``--resume``."""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from cloudai.core.errors import CloudaiError, InvalidInput
from cloudai.records.joblog import Appending, completed_in

Task = dict[str, Any]


class JobLog:
    """Appends whole lines, at once and durably: a client that is killed leaves no half of
    one, and the next one goes on behind it."""

    def __init__(self, path: Path, tasks: Sequence[Task]) -> None:
        """``tasks``: all of the batch, in its order. Raises ``CloudaiError`` where the file
        cannot be written."""
        self.path = path
        self.trouble = ""
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
            self._lines = Appending(_all_of(self._fd), tasks)
        except OSError as error:
            raise _cannot(path, error) from error

    def __enter__(self) -> JobLog:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def add(self, ended: Iterable[Task]) -> int:
        """Appends the lines of tasks that have ended; answers how many. Where the disk is full
        or gone, nothing more is written; ``trouble`` says so, and what is being waited for goes
        on."""
        if self.trouble:
            return 0
        lines = [line for task in ended if (line := self._lines.add(task))]
        data = "".join(lines).encode("utf-8", "replace")
        try:
            while data:
                data = data[os.write(self._fd, data) :]
            os.fsync(self._fd)
        except OSError as error:
            if not _cannot_be_synced(error):
                self.trouble = f"{self.path} cannot be written: {error.strerror}"
        return len(lines)


def _all_of(fd: int) -> bytes:
    """What is in the file; of a pipe or a device, nothing."""
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        return b""
    parts = []
    while part := os.read(fd, 1 << 20):
        parts.append(part)
    return b"".join(parts)


def _cannot_be_synced(error: OSError) -> bool:
    """A pipe or a terminal has nothing to sync."""
    return error.errno in (errno.EINVAL, errno.ENOTSUP, errno.EROFS)


def _cannot(path: Path, error: OSError) -> CloudaiError:
    return CloudaiError(f"--joblog: {path} cannot be written: {error.strerror}")


def check_joblog(path: Path) -> None:
    """Before anything is submitted: whether it can be written. Raises ``InvalidInput``."""
    folder = path.absolute().parent
    if not folder.is_dir():
        raise InvalidInput(f"--joblog: there is no folder {folder}", hint=f"mkdir -p {folder}")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise InvalidInput(f"--joblog: {path} may not be written")


def completed_by(path: Path) -> Counter[str]:
    """For ``--resume``: fingerprints of what completed by a job log, and how often each did;
    none where there is no such file yet. Raises ``InvalidInput``."""
    try:
        with path.open("rb") as file:
            return completed_in(_all_of(file.fileno()))
    except FileNotFoundError:
        return Counter()
    except OSError as error:
        raise InvalidInput(f"--resume: {path} cannot be read: {error.strerror}") from error
