"""Starting the controller in the background, and hearing from it that it is ready."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import cloudai

from .errors import ControllerFailed, error_from_json
from .place import LOG_NAME, make_home, socket_path

READY_WITHIN = 20.0
"""Seconds."""

_started: list[subprocess.Popen[bytes]] = []
"""Kept, so that none is collected while it runs: they outlive this process."""


def controller_command(inventory: Path, *, stay: bool) -> list[str]:
    """What runs a controller in the background, but for its ``--ready-fd``."""
    # -P: a file of the present folder must not stand in for a module.
    command = [sys.executable, "-P", "-m", "cloudai", "controller", "run", "--background"]
    if stay:
        command.append("--stay")
    return [*command, "--inventory", str(inventory)]


def start_controller(home: Path, inventory: Path, *, stay: bool = False) -> None:
    """Starts one and returns once it, or one that was faster, is ready to be spoken to.

    Raises the error it reports, or ``ControllerFailed`` with the last line of its log.
    """
    make_home(home)
    socket_path(home)
    log = home / LOG_NAME
    read_end, write_end = os.pipe()
    try:
        with _open_log(log) as output:
            written = output.tell()
            command = [*controller_command(inventory, stay=stay), "--ready-fd", str(write_end)]
            process = _spawn(command, home=home, log_fd=output.fileno(), ready_fd=write_end)
        os.close(write_end)
        write_end = -1
        line = _first_line(read_end, deadline=time.monotonic() + READY_WITHIN)
    finally:
        os.close(read_end)
        if write_end >= 0:
            os.close(write_end)
    _conclude(line, process=process, log=log, written=written)


def _open_log(log: Path) -> BinaryIO:
    try:
        file = os.fdopen(
            os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "ab"
        )
    except OSError as error:
        raise ControllerFailed(
            f"The controller's log {log} cannot be written: {error.strerror}",
            hint="see that the home is yours and its disk is not full",
        ) from error
    file.seek(0, os.SEEK_END)
    return file


def _spawn(
    command: Sequence[str], *, home: Path, log_fd: int, ready_fd: int
) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(  # noqa: S603 (our own interpreter, no shell)
        command,
        cwd=home,
        env=environment(home),
        stdin=subprocess.DEVNULL,
        stdout=log_fd,
        stderr=log_fd,
        pass_fds=(ready_fd,),
        start_new_session=True,
    )
    _started.append(process)
    return process


def environment(home: Path) -> dict[str, str]:
    """Ours, with the home made absolute and a checkout that is not installed findable."""
    environ = {**os.environ, "CLOUDAI_HOME": str(home)}
    root = Path(cloudai.__file__).resolve().parent.parent
    if root.name not in ("site-packages", "dist-packages"):
        paths = [str(root), environ.get("PYTHONPATH", "")]
        environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    return environ


def _first_line(fd: int, *, deadline: float) -> bytes | None:
    """The first line from ``fd``, what came before its end, or ``None`` past the deadline."""
    got = b""
    while b"\n" not in got:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([fd], [], [], left)[0]:
            return None
        data = os.read(fd, 65536)
        if not data:
            break
        got += data
    return got.partition(b"\n")[0]


def _conclude(
    line: bytes | None, *, process: subprocess.Popen[bytes], log: Path, written: int
) -> None:
    if line is None:
        raise ControllerFailed(
            f"The controller was not ready within {READY_WITHIN:g} seconds"
            f" (process {process.pid}){_last_line(log, written)}",
            hint=f"it may still come; {log} says what it does",
        )
    try:
        word = json.loads(line)
    except ValueError:
        raise ControllerFailed(
            f"The controller could not be started{_last_line(log, written)}",
            hint=f"the whole story is in {log}",
        ) from None
    if isinstance(word, dict) and word.get("error"):
        raise error_from_json(word, status=500)


def _last_line(log: Path, written: int) -> str:
    """What was last added to the log since it had ``written`` bytes, as the end of a sentence."""
    try:
        with log.open("rb") as file:
            file.seek(written)
            lines = file.read()[-4096:].decode("utf-8", "replace").strip().splitlines()
    except OSError:
        return ""
    # An error is told in a line with a sign, and what may mend it below: the first says more.
    told = [line.removeprefix("❌ ") for line in lines if line.startswith("❌ ")] or lines
    return f"; its last words: {told[-1].strip()}" if told else " and left no word in its log"
