"""Placement groups of which some tasks have ended: the others wait for no one who cannot come."""

from __future__ import annotations

import pytest

from cloudai.controller import loop as loop_module
from cloudai.core.model import State, Task
from cloudai.engines.fake import FakeWorker
from tests.unit.test_controller import Bench


@pytest.fixture
def bench(tmp_path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(loop_module, "TICK", 0.05)
    return Bench(tmp_path, {"w1": FakeWorker(cpus=2)})


async def submit_group(bench: Bench, count: int) -> list[Task]:
    one = {"docker_image": "busybox", "req_cpu": 1.0, "req_memory": 0.25}
    group, _ = await bench.service.submit_group(
        {"tasks": [one] * count, "placement": "strict_pack"}, default_user="ann"
    )
    return group


async def test_the_others_go_when_one_that_does_not_fit_with_them_is_cancelled(bench):
    async with bench.running():
        first, second, third = await submit_group(bench, 3)  # 3 CPUs, and the worker has 2
        await bench.service.cancel(third.id)
        await bench.reach(first, State.RUNNING)
        await bench.reach(second, State.RUNNING)


async def test_the_last_one_goes_alone(bench):
    async with bench.running():
        group = await submit_group(bench, 3)
        for task in group[:2]:
            await bench.service.cancel(task.id)
        await bench.reach(group[2], State.RUNNING)
