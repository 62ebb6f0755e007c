"""What the end of a failed task's log says about its worker."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloudai.core.model import State
from cloudai.core.symptoms import TELLING
from cloudai.engines.fake_worker import FakeWorker
from tests.unit.test_controller import Bench

LOST = b"RuntimeError: Failed to initialize NVML: Unknown Error\n"


async def hint(tmp_path: Path, log: bytes, *, code: int = 1, gpus: float = 1.0) -> str:
    """Of a task that wrote this and ended so."""
    worker = FakeWorker(name="w1", gpus=2)
    bench = Bench(tmp_path, {"w1": worker})
    async with bench.running():
        task = await bench.reach(await bench.submit(req_gpu=gpus), State.RUNNING)
        assert task.assignment is not None
        worker.write(task.assignment.id, log)
        worker.finish(task.assignment.id, code)
        return await bench.desk.symptom(await bench.ended(task))


async def test_gpus_that_went_away_are_told_by_the_log_of_a_failed_task(tmp_path: Path) -> None:
    assert "lost its GPUs" in await hint(tmp_path, b"epoch 1\n" + LOST + b"bye\n")


async def test_a_driver_that_was_updated_is_told_too(tmp_path: Path) -> None:
    log = b"Failed to initialize NVML: Driver/library version mismatch\n"
    assert "needs a reboot" in await hint(tmp_path, log)


@pytest.mark.parametrize(
    ("log", "wish"),
    [
        (LOST, {"code": 0}),
        (LOST, {"gpus": 0.0}),
        (b"ValueError: no such thing\n", {}),
        (LOST + b"x" * TELLING, {}),
        (b"", {}),
    ],
    ids=["it went on", "without a GPU", "another failure", "long ago", "no log"],
)
async def test_nothing_is_guessed(tmp_path: Path, log: bytes, wish: dict[str, float]) -> None:
    assert await hint(tmp_path, log, **wish) == ""  # type: ignore[arg-type]
