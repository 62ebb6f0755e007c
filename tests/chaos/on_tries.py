"""The controller dies while tasks come again: make room for others, are tried once more, or
start together.
"""

from __future__ import annotations

import json
import os
import time

from .faults import fault
from .lab import HELD, Lab, Laptop
from .on_workers import post_job


def kill_again_and_again(lab: Lab, laptop: Laptop, times: int) -> None:
    for _ in range(times):
        time.sleep(lab.random.uniform(0.1, 1.0))
        laptop.kill_controller()
        lab.times += 1
        laptop.tasks()  # which brings up the next one


def log_of_try(laptop: Laptop, task: str, number: int) -> bytes:
    return laptop.ask_for(f"/tasks/{task}/logs?number={number}")


@fault(
    "killed while a task makes room",
    how="SIGKILL while one of higher priority takes the place of one that holds a whole worker,"
    " and while that comes back",
    expected="both complete; the one that made room in a second container, its first one's log"
    " kept, with no time at which they hold more than there is",
)
def makes_room(lab: Lab) -> None:
    worker = lab.fleet.workers[0]
    laptop = lab.laptop()
    lab.hold()
    whole = {"req_cpu": float(os.cpu_count() or 1), "target": worker.name}
    waits = f"echo began; {HELD}; echo ended"
    low = post_job(lab, laptop, waits, priority="low", preemptible=True, **whole)
    laptop.until_running(low)
    high = post_job(lab, laptop, "echo high; sleep 1", priority="high", **whole)
    kill_again_and_again(lab, laptop, 4)
    assert laptop.ended(high)["status"] == "completed", laptop.task_of(high)
    laptop.until_running(low)
    kill_again_and_again(lab, laptop, 2)
    lab.release()
    assert laptop.ended(low)["status"] == "completed", laptop.task_of(low)
    lab.settle()
    first, second = laptop.task_of(low)["assignments"]
    assert (first["harvested"], second["harvested"]) == (True, True)
    assert log_of_try(laptop, low, 1) == b"began\n"
    assert log_of_try(laptop, low, 2) == laptop.log(low) == b"began\nended\n"
    assert laptop.log(high) == b"high\n"


@fault(
    "killed while a task is tried again",
    how="SIGKILL from its first end, with 1, to its second, with 0",
    expected="completed after two tries, none of them twice, each with its own log",
)
def tried_again(lab: Lab) -> None:
    laptop = lab.laptop()
    script = "if [ -e /w/tried ]; then echo second; exit; fi; touch /w/tried; echo first; exit 1"
    task = post_job(lab, laptop, script, retries=3)
    kill_again_and_again(lab, laptop, 8)
    assert laptop.ended(task)["status"] == "completed", laptop.task_of(task)
    lab.settle()
    assert len(laptop.task_of(task)["assignments"]) == 2
    assert log_of_try(laptop, task, 1) == b"first\n"
    assert laptop.log(task) == b"second\n"


@fault(
    "killed while a group starts",
    how="SIGKILL while three tasks that start together find their workers",
    expected="all three complete, each once",
)
def group_starts(lab: Lab) -> None:
    laptop = lab.laptop()
    laptop.run("controller", "start")
    one = {"docker_image": "alpine", "command": "echo done; sleep 1", "req_memory": "16m"}
    body = {"tasks": [one] * 3, "placement": "strict_spread"}
    made = json.loads(laptop.ask_for("/groups/", method="POST", body=body))
    kill_again_and_again(lab, laptop, 5)
    for member in made["tasks"]:
        assert laptop.ended(member["task_id"])["status"] == "completed", member
        assert laptop.log(member["task_id"]) == b"done\n"
    lab.settle()
