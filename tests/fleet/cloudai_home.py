"""A home of its own on the practice fleet, and the real command as a person uses it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fleet_lab import Fleet
from tests.fleet_lab.worker import Worker

CHECKOUT = Path(__file__).parents[2]
SECONDS = 30.0


def until(condition: Callable[[], object], what: str, seconds: float = SECONDS) -> None:
    """Waits until the condition holds; fails when it does not."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.05)


@dataclass
class Done:
    """How a command ended."""

    code: int
    out: bytes
    error: str

    @property
    def text(self) -> str:
        return self.out.decode()


class Home:
    """One CLOUDAI_HOME with its inventory: a laptop."""

    def __init__(self, folder: Path, fleet: Fleet, **environment: str) -> None:
        self.folder = folder
        self.inventory = folder / "hosts.yaml"
        self.environment = {
            **os.environ,
            "CLOUDAI_HOME": str(folder),
            "CLOUDAI_INVENTORY": str(self.inventory),
            "CLOUDAI_USER": "ann",
            "PYTHONPATH": str(CHECKOUT),
            "COLUMNS": "80",
            **environment,
        }
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.inventory.write_text(fleet.inventory())
        (folder / "known_hosts").write_text(fleet.known_hosts())

    def start(self, *words: str, **how: Any) -> subprocess.Popen[bytes]:
        """A command that goes on while the test does."""
        how = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE} | how
        return subprocess.Popen(
            [sys.executable, "-m", "cloudai", *words],
            env=self.environment,
            stderr=subprocess.PIPE,
            cwd=self.folder,
            **how,
        )

    def run(self, *words: str, code: int | None = 0, send: bytes = b"", **more: str) -> Done:
        """A command to its end; ``code`` is what it must end with (``None``: anything)."""
        ended = subprocess.run(
            [sys.executable, "-m", "cloudai", *words],
            env=self.environment | more,
            input=send,
            capture_output=True,
            cwd=self.folder,
            timeout=100,
            check=False,
        )
        done = Done(ended.returncode, ended.stdout, ended.stderr.decode())
        assert code is None or done.code == code, f"{words}: {done}"
        return done

    def json(self, *words: str, code: int | None = 0) -> Any:
        return json.loads(self.run(*words, "--json", code=code).out)

    def show(self, task_id: str) -> Any:
        return self.json("show", task_id)

    def dispatch(self, worker: Worker | str, *words: str) -> str:
        """Dispatches and answers the task's id."""
        name = worker if isinstance(worker, str) else worker.name
        return self.run("dispatch", "--quiet", name, *words).text.strip()

    def task(self, *words: str) -> str:
        """Queues and answers the task's id."""
        return self.run("task", "--quiet", *words).text.strip()

    @property
    def controller_pid(self) -> int:
        return int((self.folder / "controller.lock").read_text())

    def kill_controller(self) -> None:
        os.kill(self.controller_pid, signal.SIGKILL)

    def everything(self) -> bytes:
        """All bytes at home: to find what must not be there."""
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        return b"\0".join(path.read_bytes() for path in files)


@contextmanager
def a_home(folder: Path, fleet: Fleet, **environment: str) -> Iterator[Home]:
    """A home whose controller is gone afterwards, whatever the test did."""
    home = Home(folder, fleet, **environment)
    try:
        yield home
    finally:
        home.run("controller", "stop", code=None)
