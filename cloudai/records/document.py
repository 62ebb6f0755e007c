"""A batch as one JSON document, for programs that come later."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .figures import Batch, Figures
from .reading import Task, label_of, outcome_of, seconds_of

VERSION = 1
"""Grows when a field changes its meaning or goes; new fields may come at any time."""

_OF_BATCH = (
    *("batch_id", "name", "user_id", "once_key", "files", "status"),
    *("created_at", "started_at", "completed_at"),
)
_OF_TASK = (
    *("entry", "docker_image", "command", "exit_code", "worker_id", "reason"),
    *("created_at", "started_at", "completed_at", "fingerprint"),
)


def as_document(batch: Batch, tasks: Sequence[Task], figures: Figures) -> dict[str, Any]:
    """The batch, its figures, and a few fields of each task, in the order of the batch. A batch
    that has ended makes the same document whenever it is asked for."""
    return {
        "report": VERSION,
        **{key: batch.get(key) for key in _OF_BATCH},
        "size": figures.tasks,
        "forgotten": max(0, batch.get("submitted", figures.tasks) - figures.tasks),
        "figures": figures.as_json(),
        "tasks": [_task(task) for task in tasks],
    }


def _task(task: Task) -> dict[str, Any]:
    seconds = seconds_of(task)
    return {
        "task_id": task["task_id"],
        "label": label_of(task),
        "status": outcome_of(task),
        **{key: task.get(key) for key in _OF_TASK},
        "seconds": None if seconds is None else round(seconds, 3),
        "tried_again": task.get("failures") or 0,
    }
