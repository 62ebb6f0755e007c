"""One scenario's surroundings: laptops on the practice fleet, jobs that tell what they did, and
the history of it all.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from tests.fleet.cloudai_home import Done, Home
from tests.fleet_lab import Fleet
from tests.fleet_lab.processes import alive
from tests.fleet_lab.worker import Worker

from .history import Answer, History, Operation, Room, Told
from .relay import Relay
from .witness import Witness, containers_of

CONVERGED_WITHIN = 120.0
"""Seconds, once everything is well again."""

JOB = """\
echo began >>/w/{name}
i=0
while [ $i -lt {lines} ]; do echo "{name} line $i"; i=$((i+1)); sleep {pause}; done
{wait}
echo ended >>/w/{name}
"""
HELD = "while [ -e /w/hold ]; do sleep 0.2; done"


T = TypeVar("T")


def until(condition: Callable[[], T], what: str, seconds: float = 60.0) -> T:
    """What the condition answers once it holds; fails when it does not."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.1)
    return answer


class Laptop(Home):
    """A home whose every question and answer is written down."""

    def __init__(self, lab: Lab, folder: Path, **environment: str) -> None:
        super().__init__(folder, lab.fleet, **environment)
        self.lab = lab
        self.names: dict[str, str] = {}
        """name -> task id, of all that were acknowledged."""
        self._over = threading.Event()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    # ---------------------------------------------------------------- asking

    def ask(self, verb: str, *words: str, task_id: str = "", **more: str) -> Done:
        """One command, whatever comes of it, in the history."""
        began = time.monotonic()
        done = self.run(*words, code=None, **more)
        answer = Answer.OK if done.code == 0 else Answer.UNKNOWN
        if verb == "submit" and answer is Answer.OK:
            task_id = done.text.strip()
        self.lab.history.operations.append(
            Operation(
                verb=verb, began=began, ended=time.monotonic(), answer=answer, task_id=task_id
            )
        )
        assert "Traceback" not in done.error, done.error
        return done

    def submit(
        self,
        name: str,
        *,
        lines: int = 10,
        pause: float = 0.2,
        worker: Worker | None = None,
        held: bool = False,
        insist: bool = True,
        tail: str = "",
        cpus: float = 0.2,
        env: Mapping[str, str] | None = None,
        time_limit: float | None = None,
        fields: Mapping[str, object] | None = None,
        **more: str,
    ) -> str:
        """A job that writes numbered lines, and says itself when it begins and ends. Asked for
        again until it is acknowledged, as cron would: with the same key it is the same task.

        ``fields``: more of the request's body. ``held``: it runs until the faults are taken
        back. ``tail``: shell text that comes after. ``more``: the environment of the
        controller that is started for it, where none runs.
        """
        if held:
            self.lab.hold()
        script = JOB.format(name=name, lines=lines, pause=pause, wait=HELD if held else "")
        body = {
            "docker_image": "alpine",
            "command": script + tail,
            "req_cpu": cpus,
            "req_memory": "16m",
            "name": name,
            "target": worker.name if worker else None,
            "env": dict(env or {}),
            "mounts": [f"type=bind,src={self.lab.witnessed},dst=/w"],
            "grace": 1,
            "idempotency_key": name,
            **(fields or {}),
        }
        if time_limit is not None:
            body["time_limit"] = time_limit
        task_id = self.post(body, **more)
        if insist and not task_id:
            task_id = until(partial(self.post, body), f"{name} is acknowledged")
        if task_id:
            self.names[name] = task_id
            self.lab.jobs[task_id] = name
            if not tail:
                self.lab.expected[task_id] = (name, lines)
        return task_id

    def post(self, body: Mapping[str, object], **more: str) -> str:
        """A task's id as the API acknowledged it, or nothing where it did not."""
        began, answer, task_id = time.monotonic(), Answer.UNKNOWN, ""
        if self.controller is None:
            self.run("controller", "start", code=None, **more)
        try:
            made = self.ask_for("/tasks/", method="POST", body=body, timeout=20)
            answer, task_id = Answer.OK, str(json.loads(made)["task_id"])
        except ValueError:
            answer = Answer.FAILED
        except OSError:
            pass  # nobody knows
        if task_id and body.get("on_lost", "wait") != "wait":
            self.lab.history.may_be_lost.add(task_id)
        self.lab.history.operations.append(
            Operation(
                verb="submit", began=began, ended=time.monotonic(), answer=answer, task_id=task_id
            )
        )
        return task_id

    def cancel(self, task_id: str) -> Done:
        return self.ask("cancel", "cancel", task_id, task_id=task_id)

    def answer(self, path: str, *words: str) -> Any:
        """What the API answers at ``path``; where no controller is there, the command of those
        words brings one up and prints the same. ``None`` where neither does."""
        with contextlib.suppress(OSError, ValueError):
            return self.get(path)
        done = self.run(*words, "--json", code=None)
        return json.loads(done.out) if done.code == 0 else None

    def task_of(self, task_id: str) -> Any:
        """The task as it is told now; insists."""
        found: list[Any] = [None]

        def told() -> bool:
            found[0] = self.answer(f"/tasks/{task_id}", "show", task_id)
            return found[0] is not None

        until(told, f"{task_id} is shown")
        return found[0]

    def tasks(self) -> list[Any] | None:
        """All of them, or ``None`` where nobody tells."""
        answer = self.answer("/tasks/?limit=1000", "tasks", "--limit", "1000")
        return None if answer is None else list(answer["tasks"])

    def until_running(self, *task_ids: str) -> None:
        for task_id in task_ids:
            until(lambda: self.task_of(task_id)["status"] == "running", f"{task_id} runs")  # noqa: B023

    def ended(self, task_id: str) -> Any:
        """The task once it is final and its log is home."""
        until(lambda: is_over(self.task_of(task_id)), f"{task_id} ends", CONVERGED_WITHIN)
        return self.task_of(task_id)

    @property
    def controller(self) -> int | None:
        """The controller's pid, where one runs."""
        try:
            pid = self.controller_pid
        except (OSError, ValueError):
            return None
        return pid if alive(pid) else None

    def kill_controller(self) -> None:
        pid = self.controller
        if pid is not None:
            os.kill(pid, 9)
            until(lambda: not alive(pid), "the controller is gone")

    # ---------------------------------------------------------------- listening

    def get(self, path: str) -> Any:
        """An answer of the API's own; starts no controller. Raises ``OSError``, ``ValueError``."""
        return json.loads(self.ask_for(path))

    def ask_for(
        self, path: str, *, method: str = "GET", body: object = None, timeout: float = 5.0
    ) -> bytes:
        """Raises ``OSError``, also for an answer that ends before it began, and ``ValueError``
        for one that is an error."""
        data = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.0\r\nContent-Type: application/json\r\n"
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(timeout)
            link.connect(str(self.folder / "controller.sock"))
            link.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
            answer = b"".join(iter(lambda: link.recv(1 << 16), b""))
        status, found, content = answer.partition(b"\r\n\r\n")
        if not found:
            raise ConnectionError("the controller went away")
        if b" 20" not in status[:20]:
            raise ValueError(answer.decode(errors="replace"))
        return content

    def _listen(self) -> None:
        while not self._over.wait(0.5):
            with contextlib.suppress(OSError, ValueError, KeyError):
                at = time.monotonic()
                for task in self.get("/tasks/?limit=1000")["tasks"]:
                    self.lab.history.told.append(self.told(task, at))

    def log(self, task_id: str) -> bytes:
        """All of a task's log, as it is at home."""
        with contextlib.suppress(OSError):
            return self.ask_for(f"/tasks/{task_id}/logs")
        return self.run("logs", task_id, code=None).out

    def told(self, task: Any, at: float) -> Told:
        held = task["assignments"][-1:] or [{}]
        return Told(
            at=at,
            home=self.folder.name,
            task_id=task["task_id"],
            state=task["status"],
            exit_code=task["exit_code"],
            reason=task["reason"] if task["status"] in ("completed", "failed", "cancelled") else "",
            container_id=task["container_id"],
            assignment=held[0].get("assignment_id", ""),
            lost=held[0].get("lost", False),
        )

    def close(self) -> None:
        self._over.set()
        self._listener.join(10)
        self.kill_controller()


def is_over(task: Any) -> bool:
    """Final, and the log of each try home (or there is none)."""
    kept = [one for one in task["assignments"] if one["container_id"] and not one["harvested"]]
    return task["status"] in ("completed", "failed", "cancelled") and not kept


class Lab:
    """The surroundings of one scenario."""

    def __init__(self, fleet: Fleet, folder: Path, seed: int) -> None:
        self.fleet = fleet
        self.folder = folder
        self.random = Random(seed)
        self.times = 0
        """How often the fault was injected."""
        self.history = History()
        self.expected: dict[str, tuple[str, int]] = {}
        self.jobs: dict[str, str] = {}
        self.laptops: list[Laptop] = []
        self.relays: list[Relay] = []
        self.undo: list[Callable[[], object]] = []
        """What is taken back before things are to become well again."""
        self.witnessed = folder / "w"
        self.witnessed.mkdir(parents=True)
        self.witnessed.chmod(0o777)
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        for worker in fleet.workers:
            self.history.rooms[worker.name] = Room(
                cpu_milli=1000 * (os.cpu_count() or 1), memory=memory
            )
        self.witness = Witness(self.history, list(fleet.workers))

    def laptop(self, **environment: str) -> Laptop:
        made = Laptop(self, self.folder / f"h{len(self.laptops)}", **environment)
        self.laptops.append(made)
        return made

    def relay(self, laptop: Laptop, worker: Worker) -> Relay:
        """Puts a relay between a laptop and a worker."""
        relay = Relay(worker.host, worker.port)
        self.relays.append(relay)
        text = laptop.inventory.read_text()
        there = f"{{host: {worker.host}, port: {worker.port}}}"
        assert there in text
        laptop.inventory.write_text(text.replace(there, f"{{host: 127.0.0.1, port: {relay.port}}}"))
        with (laptop.folder / "known_hosts").open("a") as known:
            known.write(f"[127.0.0.1]:{relay.port} {worker.host_key}\n")
        return relay

    def put_tool(self, worker: Worker, name: str, script: str) -> None:
        """A program that comes before the worker's own of that name, until the end."""
        path = worker.root / "tools" / name
        path.write_text(f"#!/bin/sh\n{script}")
        path.chmod(0o755)
        self.undo.append(lambda: path.unlink(missing_ok=True))

    def hold(self) -> None:
        """Held jobs run on."""
        (self.witnessed / "hold").touch()
        self.undo.append(self.release)

    def release(self) -> None:
        """They come to their end."""
        (self.witnessed / "hold").unlink(missing_ok=True)

    def container(self, worker: Worker, task_id: str) -> str:
        """The name of a task's container that is there."""
        names = [one.name for one in containers_of(worker) if one.task_id == task_id]
        assert names, f"no container of {task_id} on {worker.name}"
        return names[0]

    # ---------------------------------------------------------------- the end

    def heal(self) -> None:
        """Takes every fault back."""
        for call in reversed(self.undo):
            call()
        self.undo.clear()
        for worker in self.fleet.workers:
            worker.mend()

    def settle(self) -> Counter[str]:
        """All is over on every laptop; how many ended how."""
        self.heal()
        outcome: Counter[str] = Counter()
        for laptop in self.laptops:

            def over(laptop: Laptop = laptop) -> bool:
                tasks = laptop.tasks()
                return tasks is not None and all(is_over(task) for task in tasks)

            with contextlib.suppress(AssertionError):  # the checker says who is not over
                until(over, "all is over", CONVERGED_WITHIN)
            for task in laptop.tasks() or ():
                outcome[task["status"]] += 1
        return outcome

    def conclude(self) -> History:
        """The whole history, once everything is over."""
        history = self.history
        self.witness.close()
        for laptop in self.laptops:
            for task in laptop.tasks() or ():
                task_id = task["task_id"]
                history.at_the_end[task_id] = laptop.told(task, time.monotonic())
                if task_id in self.expected:
                    history.archived[task_id] = laptop.log(task_id)
        for task_id, (name, lines) in self.expected.items():
            whole = "".join(f"{name} line {number}\n" for number in range(lines))
            history.expected[task_id] = whole.encode()
        for task_id, name in self.jobs.items():
            tries = self.said(name)
            history.began[task_id] = max(said.count("began") for said in tries)
            if any("ended" in said for said in tries):
                history.ended_well.add(task_id)
        history.left = {
            worker.name: tuple(one.name for one in containers_of(worker))
            for worker in self.fleet.workers
        }
        return history

    def said(self, name: str) -> list[list[str]]:
        """What a job wrote down: in one file, or in one of each of its containers."""
        files = [self.witnessed / name, *self.witnessed.glob(f"{name}.*")]
        return [file.read_text().split() for file in files if file.exists()] or [[]]

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self.heal()
        self.witness.close()
        for laptop in self.laptops:
            laptop.close()
        for relay in self.relays:
            relay.close()
        for worker in self.fleet.workers:
            worker.remove_containers()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def a_lab(fleet: Fleet, folder: Path, seed: int) -> Iterator[Lab]:
    """Surroundings on a fleet that is well; nothing of them is left afterwards."""
    fleet.up()
    for worker in fleet.workers:
        worker.remove_containers()
    shutil.rmtree(folder, ignore_errors=True)  # what a killed run left
    lab = Lab(fleet, folder, seed)
    try:
        yield lab
    finally:
        lab.close()
