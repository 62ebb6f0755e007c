"""A laptop that sleeps, a worker that is away: hours of it, in virtual time."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloudai.controller.link import Reach
from cloudai.core.model import State, Task

from .checker import check
from .world import SimWorker, World, a_template

HOUR = 3600.0


@pytest.fixture
def world() -> Iterator[World]:
    folder = Path(tempfile.mkdtemp(prefix="cloudai-chaos-"))
    try:
        with a_template(folder / "template") as template:
            made = World(folder / "home", template, seed=1)
            made.workers["w1"] = SimWorker("w1", made, cpus=2)
            made.start_controller()
            yield made
            made.close()
    finally:
        shutil.rmtree(folder)


def a_running_task(world: World) -> Task:
    body = {"docker_image": "alpine", "req_cpu": 1.0}
    task = world.ask("submit", world.service.submit(body, default_user="ann"))
    world.pass_time(5)
    [task] = world.tasks()
    assert task.state is State.RUNNING
    return task


def the_end_of(world: World, before: Task) -> Task:
    world.heal()
    world.pass_time(120)
    assert check(world.conclude()) == []
    [task] = world.tasks()
    assert task.assignment is not None
    assert before.assignment is not None
    assert task.assignment.container_id == before.assignment.container_id
    assert task.assignment.number == before.assignment.number
    return task


@pytest.mark.parametrize("code", [0, 7])
def test_a_worker_away_for_twelve_hours_keeps_its_task(world: World, code: int):
    before = a_running_task(world)
    assert before.assignment is not None
    worker, name = world.workers["w1"], before.assignment.id
    world.engines["w1"].go_away()
    for hour in range(12):
        world.pass_time(60)
        world.loop.jump(HOUR - 60)
        worker.write(name, b"hour %d\n" % hour)
        [task] = world.tasks()
        assert task.state is State.RUNNING
        assert world.controller.fleet.link("w1").reach is Reach.UNREACHABLE
    worker.end(name, code)
    task = the_end_of(world, before)
    assert (task.exit_code, task.state.value) == (code, "failed" if code else "completed")
    assert world.history.archived[task.id].count(b"hour") == 12


def test_a_laptop_that_slept_all_night_goes_on_where_it_was(world: World):
    before = a_running_task(world)
    world.loop.jump(9 * HOUR)
    world.pass_time(30)
    [task] = world.tasks()
    assert task.state is State.RUNNING
    assert before.assignment is not None
    world.workers["w1"].end(before.assignment.id, 0)
    assert the_end_of(world, before).state is State.COMPLETED


def test_a_controller_that_was_off_all_night_learns_how_it_ended(world: World):
    before = a_running_task(world)
    assert before.assignment is not None
    world.kill_controller()
    world.workers["w1"].write(before.assignment.id, b"in the night\n")
    world.workers["w1"].end(before.assignment.id, 0)
    world.loop.jump(9 * HOUR)
    world.start_controller()
    task = the_end_of(world, before)
    assert task.state is State.COMPLETED
    assert world.history.archived[task.id] == b"in the night\n"
