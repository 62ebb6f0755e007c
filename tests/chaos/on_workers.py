"""Faults of what a worker is made of: its containers, its GPUs, its disk, its clock; and of a
worker that stays away for too long.
"""

from __future__ import annotations

from .faults import fault
from .lab import Lab, until
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
