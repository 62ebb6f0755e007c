"""The rules of the machine in virtual time (test_machine.py), by the same names, on real workers:
what people, workers, networks and power supplies do, in an order that the seed decides.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from tests.fleet_lab.worker import Worker

from .faults import fault
from .history import Container
from .lab import Lab
from .witness import UNHEARD, containers_of

STEPS = 80

JOB = """\
me=/w/{name}.$HOSTNAME
echo began >>$me
i=0
while [ -e /w/hold ] && [ ! -e /w/{name}.end ]; do
  echo "{name} line $i"; i=$((i+1)); sleep 0.3
done
code=$(cat /w/{name}.end 2>/dev/null || echo 0)
rm -f /w/{name}.end
echo $i >/w/{name}.lines
[ $code = 0 ] && echo ended >>$me
exit $code
"""
"""Writes lines until it is told to end, each try in a file of its own."""
MANY = 10_000
"""More lines than any job here comes to write."""
OUTSIDE = 4_000_001
"""A pid that no process has."""

WISHES: tuple[dict[str, object], ...] = (
    {},
    {},
    {"retries": 2},
    {"preemptible": True, "priority": "low"},
    {"priority": "high"},
    {"preemptible": True, "priority": "low", "retries": 1},
)
JOBS = ("plain", "plain", "plain", "quick", "bad", "nosuch")

Rule = Callable[[], object]


class Anything:
    """One laptop, two workers, and what may happen to them."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.random = lab.random
        self.laptop = lab.laptop()
        self.workers = (lab.fleet.workers[0], lab.fleet.gpu_worker)
        self.laptop.know_only(*self.workers)
        self.names = 0
        lab.hold()
        lab.undo.append(self._thaw_containers)

    def rules(self) -> dict[str, Rule]:
        """Every rule by its name."""
        return {
            name: getattr(self, name)
            for name in vars(type(self))
            if not name.startswith("_") and name != "rules"
        }

    # ---------------------------------------------------------------- people

    def submit(self) -> None:
        body = self._body(self.random.choice(JOBS)) | self.random.choice(WISHES)
        body["idempotency_key"] = body["name"]
        self._acknowledged(self.laptop.post(body), body)

    def submit_a_group(self) -> None:
        tasks = [self._body("plain"), self._body("plain")]
        body = {"tasks": tasks, "placement": self.random.choice(("pack", "spread"))}
        with suppress(OSError, ValueError):
            made = json.loads(self.laptop.ask_for("/groups/", method="POST", body=body))
            for member, task in zip(made["tasks"], tasks, strict=True):
                self._acknowledged(member["task_id"], task)

    def dispatch(self) -> None:
        worker = self.random.choice(self.workers)
        self.laptop.ask("dispatch", "dispatch", worker.name, "alpine", "--memory", "16m", "--",
                        "sleep", "1")  # fmt: skip

    def cancel(self) -> None:
        tasks = [one for one in self.laptop.tasks() or () if one["completed_at"] is None]
        if tasks:
            self.laptop.cancel(self.random.choice(sorted(one["task_id"] for one in tasks)))

    # ---------------------------------------------------------------- workers

    def a_job_ends(self) -> None:
        if running := [one for one in self._containers("running") if one.task_id in self.lab.jobs]:
            name = self.lab.jobs[self.random.choice(running).task_id]
            (self.lab.witnessed / f"{name}.end").write_text(str(self.random.choice((0, 0, 1, 137))))

    def a_job_writes(self) -> None:
        """They do so by themselves."""
        time.sleep(0.5)

    def someone_removes_a_container(self) -> None:
        if there := list(self._containers("created", "running", "paused", "exited")):
            chosen = self.random.choice(there)
            self.lab.history.meddled.add(chosen.task_id)
            # Whether its start is recorded already is not to be known from here.
            self.lab.history.unrecorded.add(chosen.task_id)
            self._docker("rm", "-f", chosen)

    def someone_pauses_a_container(self) -> None:
        if there := list(self._containers("running", "paused")):
            chosen = self.random.choice(there)
            self._docker("pause" if chosen.state == "running" else "unpause", chosen)

    def an_outsider_takes_a_gpu(self) -> None:
        gpus = self.lab.fleet.gpu_worker.gpus
        assert gpus is not None
        gpus.leave(OUTSIDE)
        if self.random.random() < 0.5:
            gpus.occupy(0, pid=OUTSIDE)

    # ---------------------------------------------------------------- networks

    def unreachable(self) -> None:
        self.random.choice(self.workers).cut()

    def reachable(self) -> None:
        for worker in self.workers:
            worker.uncut()

    def calls_will_go_wrong(self) -> None:
        """Its engine answers nobody for a while."""
        worker = self.random.choice(self.workers)
        worker.freeze("dockerd")
        time.sleep(self.random.uniform(0.2, 3))
        worker.thaw("dockerd")

    def streams_drop(self) -> None:
        self.random.choice(self.workers).drop_connections()

    # ---------------------------------------------------------------- power supplies and time

    def the_controller_is_killed_and_another_comes(self) -> None:
        self.laptop.kill_controller()
        self.laptop.tasks()

    def time_passes(self) -> None:
        time.sleep(self.random.choice((0.05, 0.2, 0.5, 1.0, 3.0)))

    # ---------------------------------------------------------------- what they share

    def _body(self, job: str) -> dict[str, object]:
        self.names += 1
        name = f"j{self.names}"
        body: dict[str, object] = {
            "docker_image": "nowhere.invalid/x" if job == "nosuch" else "alpine",
            "req_cpu": self.random.choice((0.2, 0.5, 1.0)),
            "req_gpu": self.random.choice((0.0, 0.0, 0.0, 0.5, 1.0)),
            "req_memory": "16m",
            "name": name,
            "env": {"TOKEN": "x"},
            "mounts": [f"type=bind,src={self.lab.witnessed},dst=/w"],
            "grace": 1,
        }
        match job:
            case "quick":
                return body | {"command": "echo done; exit 3"}
            case "bad":
                return body | {"argv": ["/nosuch"]}
            case _:
                return body | {"command": JOB.format(name=name)}

    def _acknowledged(self, task_id: str, body: dict[str, object]) -> None:
        name = str(body["name"])
        if task_id and body.get("command") == JOB.format(name=name):
            self.lab.jobs[task_id] = name

    def _containers(self, *states: str) -> Iterator[Container]:
        """Of both workers; none of one whose engine does not answer."""
        for worker in self.workers:
            with suppress(*UNHEARD):
                yield from (one for one in containers_of(worker) if one.state in states)

    def _docker(self, *words: str | Container) -> None:
        """Whatever comes of it: the container may be gone by now."""
        container = words[-1]
        assert isinstance(container, Container)
        for worker in self.workers:
            if container in tuple(self._of(worker)):
                worker.docker(*[str(word) for word in words[:-1]], container.id)

    def _of(self, worker: Worker) -> Iterator[Container]:
        with suppress(*UNHEARD):
            yield from containers_of(worker)

    def _thaw_containers(self) -> None:
        for container in list(self._containers("paused")):
            self._docker("unpause", container)


@fault(
    "anything in any order",
    how=f"{STEPS} steps, drawn by the seed: submits, groups, cancels, ends, removals, pauses, cut"
    " networks, hung engines, lost connections, killed controllers",
    expected="every promise holds, whatever each task came to",
)
def anything(lab: Lab) -> None:
    world = Anything(lab)
    rules = world.rules()
    names = ["submit", *rules]
    for _ in range(STEPS):
        rules[lab.random.choice(names)]()
        lab.times += 1
    lab.settle()
    for task_id, name in lab.jobs.items():
        if world.laptop.task_of(task_id)["status"] == "completed":
            lines = int((lab.witnessed / f"{name}.lines").read_text())
            lab.expected[task_id] = (name, lines)
        elif not any("ended" in said for said in lab.said(name)):
            lab.expected[task_id] = (name, MANY)  # a beginning of it is what came home
