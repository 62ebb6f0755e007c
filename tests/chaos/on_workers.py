"""Faults of what a worker is made of: its containers, its GPUs, its disk, its clock; and of a
worker that stays away for too long.
"""

from __future__ import annotations

from tests.fleet_lab.worker import Worker

from .faults import fault
from .lab import Lab, Laptop, until
from .on_connections import worker_state
from .on_engines import run_on
from .witness import containers_of


def cut_until_ended(lab: Lab, task: str) -> str:
    """Ends a held task's job while its worker, the first, is cut off; its container's name."""
    worker = lab.fleet.workers[0]
    name = lab.container(worker, task)
    worker.cut()
    lab.release()
    until(lambda: not any(one.holds for one in containers_of(worker)), "the job ends")
    return name


@fault(
    "container started by hand",
    how="the job ends while its worker is cut off, then docker start of its container",
    expected="failed, saying so; never completed, for what the second run does is another job",
)
def started_by_hand(lab: Lab) -> None:
    worker = lab.fleet.workers[0]
    laptop = lab.laptop()
    task = laptop.submit("twice", worker=worker, held=True)
    laptop.until_running(task)
    lab.history.touched.add(task)
    run_on(worker, "start", cut_until_ended(lab, task))
    lab.times = 1
    worker.uncut()
    ended = laptop.ended(task)
    assert ended["status"] == "failed", ended
    assert "restarted on the worker" in ended["reason"], ended["reason"]
    assert ended["exit_code"] is None, ended
    lab.settle()


def give_up(lab: Lab, name: str, on_lost: str) -> tuple[Laptop, Worker, str]:
    """A task whose worker was cut off for so long that it was given up there, which the worker
    knows nothing of. It says that it began, and waits for ``go``."""
    laptop = lab.laptop()
    wait = "echo began; while [ ! -e /w/go ]; do sleep 0.2; done; echo ended"
    task = laptop.post(
        {
            "docker_image": "alpine",
            "command": wait,
            "req_cpu": 0.2,
            "req_memory": "16m",
            "name": name,
            "mounts": [f"type=bind,src={lab.witnessed},dst=/w"],
            "grace": 1,
            "on_lost": on_lost,
            "lost_after": 60,
        }
    )
    laptop.until_running(task)
    worker = lab.fleet[laptop.task_of(task)["worker_id"]]
    worker.cut()
    lab.times = 1
    until(lambda: worker_state(laptop, worker) == "unreachable", "it is noticed", 90)
    assert laptop.task_of(task)["status"] == "running"
    until(lambda: laptop.task_of(task)["assignments"][0]["lost"], "it is given up", 150)
    assert any(one.holds for one in containers_of(worker)), "a worker that is cut off goes on"
    return laptop, worker, task


def until_cleared(worker: Worker) -> None:
    """Once it is back, what was given up there is stopped and removed."""
    worker.uncut()
    until(lambda: not containers_of(worker), "the given-up container is stopped and removed", 90)


@fault(
    "worker lost, --on-lost requeue",
    how="cut off for longer than --lost-after, while the others answer",
    expected="the task runs elsewhere and completes there; once the worker is back, the container"
    " that was given up is stopped and removed",
)
def lost_requeued(lab: Lab) -> None:
    laptop, worker, task = give_up(lab, "mover", "requeue")
    laptop.until_running(task)
    first, second = laptop.task_of(task)["assignments"]
    assert first["worker_id"] != second["worker_id"]
    until_cleared(worker)
    assert laptop.task_of(task)["status"] == "running", "its second run is another container"
    (lab.witnessed / "go").touch()
    assert laptop.ended(task)["status"] == "completed"
    assert laptop.log(task).decode().splitlines()[-1] == "ended"
    lab.settle()
    first, second = laptop.task_of(task)["assignments"]
    assert (first["lost"], first["harvested"], second["lost"]) == (True, True, False)


@fault(
    "worker lost, --on-lost fail",
    how="cut off for longer than --lost-after, while the others answer",
    expected="the task fails, saying so; once the worker is back, its container is stopped, its"
    " log comes home, and it is removed",
)
def lost_failed(lab: Lab) -> None:
    laptop, worker, task = give_up(lab, "loser", "fail")
    told = laptop.task_of(task)
    assert (told["status"], told["exit_code"]) == ("failed", None), told
    assert "could not be reached for" in told["reason"], told["reason"]
    until_cleared(worker)
    laptop.ended(task)
    assert laptop.log(task).startswith(b"began")
    lab.settle()
    assert len(laptop.task_of(task)["assignments"]) == 1
