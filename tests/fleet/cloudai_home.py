"""A home of its own on the practice fleet, and the real command as a person uses it."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Protocol

from tests.fleet_lab.processes import end
from tests.fleet_lab.worker import Worker

CHECKOUT = Path(__file__).parents[2]
SECONDS = 30.0
FINAL = ("completed", "failed", "cancelled")


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


class Hosts(Protocol):
    """Workers that a laptop is to know: the practice fleet, or others."""

    def inventory(self) -> str: ...

    def known_hosts(self) -> str: ...


class Home:
    """One CLOUDAI_HOME with its inventory: a laptop."""

    def __init__(self, folder: Path, fleet: Hosts, **environment: str) -> None:
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

    def know_only(self, *workers: Worker) -> None:
        """Leaves only those in the inventory."""
        names = [f"  {worker.name}:" for worker in workers]
        lines = self.inventory.read_text().splitlines(keepends=True)
        kept = [one for one in lines if "host:" not in one or one.startswith(tuple(names))]
        self.inventory.write_text("".join(kept))

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

    def ask(self, path: str) -> Any:
        """What the API answers to a GET; quicker than a command, for polling."""
        try:
            return self._ask(path)
        except (FileNotFoundError, ConnectionRefusedError):
            self.run("workers")
            return self._ask(path)

    def _ask(self, path: str) -> Any:
        with closing(socket.socket(socket.AF_UNIX)) as link:
            link.settimeout(100)
            link.connect(str(self.folder / "controller.sock"))
            http = HTTPConnection("controller")
            http.sock = link
            http.request("GET", path)
            return json.loads(http.getresponse().read())

    def worker(self, worker: Worker | str) -> Any:
        """A worker in depth, looked at now."""
        return self.ask(f"/workers/{_name(worker)}")

    def seen(self, worker: Worker | str) -> Any:
        """A worker as it stands in the list, without looking."""
        workers = self.ask("/workers/")["workers"]
        return next(one for one in workers if one["worker_id"] == _name(worker))

    def ended(self, *task_ids: str, seconds: float = SECONDS) -> list[Any]:
        """The tasks once they are final and their logs home."""
        deadline = time.monotonic() + seconds
        tasks = []
        for task_id in task_ids:
            left = max(1, int(deadline - time.monotonic()))
            task = self.ask(f"/tasks/{task_id}?until=final&timeout={min(60, left)}")
            assert task["status"] in FINAL, task
            tasks.append(task)
        return tasks

    def show(self, task_id: str) -> Any:
        return self.json("show", task_id)

    def dispatch(self, worker: Worker | str, *words: str) -> str:
        """Dispatches and answers the task's id."""
        return self.run("dispatch", "--quiet", _name(worker), *words).text.strip()

    def task(self, *words: str) -> str:
        """Queues and answers the task's id."""
        return self.run("task", "--quiet", *words).text.strip()

    @property
    def controller_pid(self) -> int:
        return int((self.folder / "controller.lock").read_text())

    def kill_controller(self) -> None:
        """At once, and gone when this returns."""
        with open(self.folder / "controller.lock") as lock:
            end([self.controller_pid])
            fcntl.flock(lock, fcntl.LOCK_EX)  # its last thread has let go

    def everything(self) -> bytes:
        """All bytes at home: to find what must not be there."""
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        return b"\0".join(path.read_bytes() for path in files)


def _name(worker: Worker | str) -> str:
    return worker if isinstance(worker, str) else worker.name


@contextmanager
def a_home(folder: Path, fleet: Hosts, **environment: str) -> Iterator[Home]:
    """A home whose controller is gone afterwards, whatever the test did."""
    home = Home(folder, fleet, **environment)
    try:
        yield home
    finally:
        home.run("controller", "stop", code=None)


@contextmanager
def counted_starts(*workers: Worker) -> Iterator[Counter[str]]:
    """How often each container was started meanwhile, by name, as the engines tell it. Whole
    once left."""
    starts: Counter[str] = Counter()

    def count(happened: Any) -> None:
        for event in happened:
            starts[event["Actor"]["Attributes"]["name"]] += 1

    with ExitStack() as stack:
        for worker in workers:
            client = stack.enter_context(worker.engine())
            about = {"type": "container", "event": "start"}
            happened = client.events(decode=True, filters=about)
            thread = threading.Thread(target=count, args=(happened,))
            thread.start()
            stack.callback(thread.join)
            stack.callback(happened.close)
        yield starts
