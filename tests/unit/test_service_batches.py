"""Large batches as the service stores them."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from cloudai.service import Batches, Service
from cloudai.store import task_rows

SWEEP = """
tasks:
- id: train
  image: busybox
  matrix: {seed: range(50), lr: range(10)}
  argv: [train, "--seed={{ seed }}", "--lr={{ lr }}"]
"""


async def test_the_rows_of_a_batch_are_made_where_nobody_waits_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def counted(tasks):
        made.append((len(tasks), threading.current_thread().name))
        return task_rows(tasks)

    monkeypatch.setattr("cloudai.service.batches.task_rows", counted)
    service = Service(tmp_path)
    await service.open()
    body = {"files": [{"name": "sweep.yaml", "text": SWEEP}]}
    batch, tasks, created = await Batches(service).submit(body, default_user="ann")
    [(count, thread)] = made
    assert (count, created) == (500, True)
    assert not thread.startswith("store"), "whoever asks the store would wait"
    kept, total = await service.tasks(batch=batch.id, limit=1000)
    assert total == 500
    assert kept == tasks[::-1]
    assert (await service.active()) == tasks
    await service.close()
