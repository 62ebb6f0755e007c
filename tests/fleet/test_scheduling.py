"""What people see of the scheduler, on real workers: why, reserve, distribute."""

from __future__ import annotations

import os

import pytest

from tests.fleet.cloudai_home import Home, until
from tests.fleet_lab import Fleet, Worker

LITTLE = ("--cpus", "0.1", "--memory", "16m", "--storage", "16m")
HOLD = ("--", "sleep", "600")


@pytest.fixture
def worker(mended_fleet: Fleet) -> Worker:
    return mended_fleet.gpu_worker


def test_why_names_who_has_the_gpus(home: Home, worker: Worker) -> None:
    home.know_only(worker)
    assert worker.gpus is not None
    first, second, *_ = worker.gpus.uuids()
    for uuid in (first, second):
        worker.gpus.occupy(uuid, pid=os.getpid(), name="python3 train.py", memory=3000)
    holder = home.dispatch(worker, "alpine", *LITTLE, "--gpus", "2", *HOLD)
    waits = home.task("alpine", *LITTLE, "--gpus", "1", *HOLD)
    shown = home.run("why", waits).text
    assert (
        f"  {worker.name}: 0 of 4 GPUs free, 2 used outside cloudai by root, pid {os.getpid()}"
        f" python3 train.py, 2 held by {holder} (ann)\n" in shown
    )
    assert f"the end of a task that runs now, such as {holder} on {worker.name}" in shown
    assert f"running on {worker.name}" in home.run("why", holder).text
    shown = home.run("task", "alpine", "--gpus", "1", "--dry-run").text
    assert "it would wait: " in shown
    home.run("cancel", holder)
    until(lambda: home.ask(f"/tasks/{waits}")["status"] == "running", "it has its turn")


def test_what_is_reserved_is_lent_and_taken_back(home: Home, worker: Worker) -> None:
    home.know_only(worker)
    made = home.run("reserve", "--worker", worker.name, "--gpus", "4", "--for", "1h", "-q").text
    lent = home.task("alpine", *LITTLE, "--gpus", "4", "--user", "bob", "--preemptible", *HOLD)
    other = home.task("alpine", *LITTLE, "--gpus", "1", "--user", "eve", *HOLD)
    until(lambda: home.ask(f"/tasks/{lent}")["status"] == "running", "it is lent")
    assert "4 GPUs (4 lent)" in home.run("reservations").text
    mine = home.task("alpine", *LITTLE, "--gpus", "2", "--priority", "low", *HOLD)
    until(lambda: home.ask(f"/tasks/{mine}")["status"] == "running", "it is taken back")
    assert home.ask(f"/tasks/{lent}")["status"] == "queued"
    assert "reserved for ann" in home.run("why", other).text
    assert "4 GPUs (2 used)" in home.run("stats", worker.name).text
    home.run("unreserve", made.strip())
    until(lambda: home.ask(f"/tasks/{other}")["status"] == "running", "it is everybody's")


def test_distribute_runs_small_tasks_and_leaves_nothing(home: Home, mended_fleet: Fleet) -> None:
    asked = ("--tasks", "4", "--strategy", "spread", "--image", "alpine", "--cpus", "0.1")
    shown = home.run("distribute", "test", *asked).text
    assert "✅ 4 tasks by spread completed; all are forgotten again\n" in shown
    assert home.ask("/tasks/")["total"] == 0
    for worker in mended_fleet.workers:
        assert worker.name in shown
    shown = home.run("distribute", "status").text
    assert "Tasks     0 queued, 0 starting, 0 running, 0 stopping\n" in shown
