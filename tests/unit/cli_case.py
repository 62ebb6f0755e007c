"""Running the CLI in a test: in this process, as a process in a pipe, or on a terminal."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
WITHIN = 15.0
"""Seconds a test waits for what must happen at once."""


@dataclass
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Cloudai = Callable[..., Result]


def environment(home: Path, **more: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    utf8 = {"LC_ALL": "C.UTF-8", "TZ": "UTC", "TERM": "xterm"}
    return {**kept, **utf8, "CLOUDAI_HOME": str(home), "PYTHONPATH": str(ROOT), **more}


def command(*args: str) -> list[str]:
    return [sys.executable, "-m", "cloudai", *args]


@contextlib.contextmanager
def process(home: Path, *args: str, **more: Any) -> Iterator[subprocess.Popen[bytes]]:
    """``cloudai`` as a process with its streams in pipes; ended on leaving."""
    env = environment(home, **more.pop("env", {}))
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command(*args), env=env, **{**pipes, **more}) as running:
        try:
            yield running
        finally:
            running.kill()


class Screen:
    """``cloudai`` on a terminal of its own."""

    def __init__(self, home: Path, *args: str, columns: int = 80, **env: str) -> None:
        self.text = b""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            with contextlib.suppress(BaseException):
                values = environment(home, COLUMNS=str(columns), **env)
                os.execve(sys.executable, command(*args), values)
            os._exit(127)
        self.attributes = termios.tcgetattr(self.fd)

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(self.pid, 9)
            os.waitpid(self.pid, 0)
        os.close(self.fd)

    def until(self, text: str) -> str:
        """Everything shown so far, once ``text`` is among it."""
        wanted, deadline = text.encode(), time.monotonic() + WITHIN
        while wanted not in self.text:
            if not self._read(deadline - time.monotonic()):
                raise AssertionError(f"{text!r} never came; the screen has {self.text!r}")
        return self.text.decode(errors="replace")

    def press(self, keys: bytes) -> None:
        os.write(self.fd, keys)

    def end(self, *, insist: bytes = b"") -> int:
        """Its exit status (negative: the signal that ended it), once it has ended.

        ``insist``: a key pressed again every second until then, as people do.
        """
        deadline = time.monotonic() + WITHIN
        while (data := self._read(1.0)) != b"" and time.monotonic() < deadline:
            if data is None and insist:
                self.press(insist)
        while (found := os.waitpid(self.pid, os.WNOHANG))[0] == 0:
            assert time.monotonic() < deadline, f"it does not end; screen: {self.text!r}"
            time.sleep(0.01)
        return os.waitstatus_to_exitcode(found[1])

    @property
    def modes(self) -> list[Any]:
        """The terminal's present attributes."""
        return termios.tcgetattr(self.fd)

    def _read(self, within: float) -> bytes | None:
        """What came next: ``None`` for nothing in that time, empty at the end."""
        if within <= 0 or not select.select([self.fd], [], [], within)[0]:
            return None
        try:
            data = os.read(self.fd, 65536)
        except OSError:  # the other side is gone
            return b""
        self.text += data
        return data
