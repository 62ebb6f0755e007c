"""Following a task from the queue to its end, through cut connections and new controllers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .wording import is_final

if TYPE_CHECKING:
    from cloudai.client import Client

Task = dict[str, Any]
TRIES = 5
"""So often in a row a log that breaks off is taken up again before we give up."""
PAUSE = 0.2
"""Seconds before the second try; doubled each time."""


def until(client: Client, task_id: str, what: str, *, timeout: float = 55) -> Task:
    """The task once it is ``started`` or ``final``, or as it is after ``timeout`` seconds."""
    from cloudai.client import task_path

    task: Task = client.get(task_path(task_id), patience=timeout + 60, until=what, timeout=timeout)
    return task


def finished(client: Client, task_id: str) -> Task:
    """The task, once it is final and its log is home."""
    while not is_final(task := until(client, task_id, "final")):
        pass
    return task


def follow(client: Client, task_id: str) -> Iterator[Task | bytes]:
    """The task whenever it stands differently, its log as it comes, last the final task.

    A log that breaks off is taken up where it was left, from a new controller if need be.
    """
    execution, shown = None, 0
    while True:
        task = until(client, task_id, "started", timeout=2)
        yield task
        if task["status"] in ("queued", "starting"):
            continue
        if task["started_at"] is not None:
            newest = [one["assignment_id"] for one in task["assignments"]][-1:]
            if newest != execution:
                execution, shown = newest, 0
            for chunk in log(client, task_id, skip=shown):
                shown += len(chunk)
                yield chunk
        task = until(client, task_id, "final", timeout=5)
        if is_final(task):
            yield task
            return


def log(client: Client, task_id: str, *, skip: int = 0) -> Iterator[bytes]:
    """The task's log from its byte ``skip`` on, until its container ended."""
    from cloudai.client import ControllerFailed, task_path

    failures = 0
    while True:
        at = 0
        try:
            with client.stream(task_path(task_id, "logs"), follow=True) as chunks:
                for chunk in chunks:
                    fresh = chunk[max(0, skip - at) :]
                    at += len(chunk)
                    if fresh:
                        skip, failures = at, 0
                        yield fresh
            return
        except ControllerFailed:
            failures += 1
            if failures >= TRIES:
                raise
            time.sleep(PAUSE * 2 ** (failures - 1))
