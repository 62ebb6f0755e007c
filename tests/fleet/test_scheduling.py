"""What the scheduler decides, on real workers and through the command that people type."""

from __future__ import annotations

import pytest

from tests.fleet.cloudai_home import Home, until
from tests.fleet_lab import Fleet, Worker
from tests.fleet_lab.gpus import StandIn

LITTLE = ("--cpus", "0.1", "--memory", "16m", "--storage", "16m")
HOLD = ("--", "sleep", "600")


@pytest.fixture
def worker(mended_fleet: Fleet) -> Worker:
    return mended_fleet.gpu_worker


@pytest.fixture
def gpus(worker: Worker) -> StandIn:
    assert worker.gpus is not None
    return worker.gpus


def status(home: Home, task_id: str) -> str:
    found: str = home.ask(f"/tasks/{task_id}")["status"]
    return found


def comes_to(home: Home, task_id: str, state: str) -> None:
    until(lambda: status(home, task_id) == state, f"{task_id} is {state}")


def reason(home: Home, task_id: str) -> str:
    found: str = home.ask(f"/tasks/{task_id}")["reason"]
    return found


def test_a_preemptible_task_makes_room_and_comes_again(home, worker, gpus):
    low = home.task("alpine", *LITTLE, "--gpus", "4", "--preemptible", "--priority", "low", *HOLD)
    comes_to(home, low, "running")
    first = home.ask(f"/tasks/{low}")["container_id"]
    urgent = home.task("alpine", *LITTLE, "--gpus", "1", "--priority", "urgent", "--", "true")
    home.ended(urgent)
    assert status(home, urgent) == "completed"
    comes_to(home, low, "running")
    again = home.ask(f"/tasks/{low}")
    assert again["container_id"] != first
    assert [one["number"] for one in again["assignments"]] == [1, 2]
    assert any(urgent in event["text"] for event in again["events"])


def test_a_wish_for_a_model_is_held_by_the_worker_too(home, worker, gpus):
    fitting = home.task(
        "alpine", *LITTLE, "--gpu", "a100:2", "-c", 'echo "$NVIDIA_VISIBLE_DEVICES"'
    )
    home.ended(fitting)
    assert home.run("logs", fitting).text.strip() == ",".join(gpus.uuids()[:2])
    other = home.task("alpine", *LITTLE, "--gpu", "h100", "--", "true")
    until(lambda: "h100" in reason(home, other), "it says what is missing")
    refused = home.run("dispatch", worker.name, "alpine", "--gpu", "h100", "--", "true", code=4)
    assert "task requires 1.0 (h100)" in refused.error


def test_a_group_is_told_its_peers_and_starts_as_a_whole(home, mended_fleet):
    tell = 'echo "$CLOUDAI_RANK of $CLOUDAI_WORLD_SIZE at $CLOUDAI_PEERS by $MASTER_ADDR"'
    done = home.run(
        *("task", "alpine", "-q", *LITTLE, "--replicas", "3"),
        *("--placement", "strict_spread", "-c", tell),
    )
    members = done.text.split()
    for member in members:
        home.ended(member)
    tasks = [home.ask(f"/tasks/{member}") for member in members]
    assert len({task["worker_id"] for task in tasks}) == 3
    address = {worker.name: worker.host for worker in mended_fleet.workers}
    peers = ",".join(address[task["worker_id"]] for task in tasks)
    for rank, member in enumerate(members):
        said = home.run("logs", member).text.strip()
        assert said == f"{rank} of 3 at {peers} by {address[tasks[0]['worker_id']]}"


def test_a_group_that_cannot_start_as_a_whole_holds_nothing(home, mended_fleet):
    done = home.run(
        *("task", "alpine", "-q", *LITTLE, "--replicas", "4"),
        *("--placement", "strict_spread", *HOLD),
    )
    members = done.text.split()
    until(lambda: "whole" in reason(home, members[0]), "it says that it waits for all")
    assert {status(home, member) for member in members} == {"queued"}
    home.ended(home.task("alpine", *LITTLE, "--", "true"))


def test_a_task_that_fails_is_tried_again_with_a_log_of_each_try(home, worker):
    home.know_only(worker)
    task = home.task("alpine", *LITTLE, "--retries", "1", "-c", "echo try; exit 3")
    until(
        lambda: home.ask(f"/tasks/{task}")["reason"].startswith("exit code 3; try 2 of 2"), "again"
    )
    home.ended(task)
    shown = home.ask(f"/tasks/{task}")
    assert (shown["status"], shown["exit_code"]) == ("failed", 3)
    assert [home.run("logs", task, "--try", number).text for number in "12"] == ["try\n"] * 2


def test_quotas_and_strategies_of_the_inventory_hold(home, mended_fleet):
    text = home.inventory.read_text()
    home.inventory.write_text("scheduling: {quotas: {bob: {tasks: 1}}}\n" + text)
    first = home.task("alpine", *LITTLE, "--user", "bob", *HOLD)
    comes_to(home, first, "running")
    second = home.task("alpine", *LITTLE, "--user", "bob", "--", "true")
    until(lambda: "over the quota of bob" in reason(home, second), "it says so")
    home.run("cancel", first)
    home.ended(second)
    assert status(home, second) == "completed"


def test_labels_and_nodes_decide_where(home, mended_fleet):
    one, two, *_ = [worker.name for worker in mended_fleet.workers]
    there = home.task("alpine", *LITTLE, "--node", two, "--", "true")
    home.ended(there)
    assert home.ask(f"/tasks/{there}")["worker_id"] == two
    never = home.task("alpine", *LITTLE, "--require", "zone=attic", "--", "true")
    until(lambda: "zone=attic" in reason(home, never), "it says which condition")
    apart = home.task("alpine", *LITTLE, "--name", "holder", "--node", one, *HOLD)
    comes_to(home, apart, "running")
    other = home.task("alpine", *LITTLE, "--anti-affinity", "holder", "--", "true")
    home.ended(other)
    assert home.ask(f"/tasks/{other}")["worker_id"] != one
    same = home.task("alpine", *LITTLE, "--affinity", "holder", "--", "true")
    home.ended(same)
    assert home.ask(f"/tasks/{same}")["worker_id"] == one
