"""A batch as it goes on: its counts, what ended since the last look, what runs now.

However many tasks it has, a look costs three small answers: all of them are asked for once, at
the beginning, and then only those with which something happened.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from cloudai.records import is_final
from cloudai.records.reading import OUTCOMES

from . import sets

if TYPE_CHECKING:
    from cloudai.client import Client

Task = dict[str, Any]
Batch = dict[str, Any]

PAGE = 1_000
HELD = ("starting", "running", "stopping")
_KEPT = (
    *("task_id", "name", "entry", "array", "array_index", "array_limit", "batch", "user_id"),
    *("docker_image", "command", "fingerprint", "after", "status", "skipped", "reason", "phase"),
    *("worker_id", "exit_code", "failures", "created_at", "started_at", "completed_at"),
)


def find_batch(client: Client, ref: str) -> Batch:
    """By id, a unique beginning of one, or name (the newest). Raises ``NotFound``."""
    from cloudai.client import batch_path

    batch: Batch = client.get(batch_path(ref))
    return batch


def tasks_of(client: Client, found: Batch) -> list[Task]:
    """All tasks of a batch or an array, in the order of submission; of each what is needed
    here."""
    return [_slim(task) for task in sets.tasks_of(client, found)]


def _slim(task: Task) -> Task:
    return {key: task.get(key) for key in _KEPT}


class Watching:
    """One batch, looked at again and again."""

    def __init__(self, client: Client, batch: Batch) -> None:
        from cloudai.client import batch_path

        self._client = client
        self._path = batch_path(batch["batch_id"])
        self.batch = batch
        self._known: dict[str, Task] = {}
        self._told: set[str] = set()
        self._cursor = 0
        self._reload()

    @property
    def tasks(self) -> list[Task]:
        """All that there are, in the order of the batch."""
        return list(self._known.values())

    @property
    def over(self) -> bool:
        return self.batch["ended"] is True

    def look(self, within: float) -> list[Task]:
        """What ended since the last look, in the order it was recorded; waits up to so many
        seconds, less where the batch ends."""
        self.batch = self._client.get(
            self._path, patience=within + 60, until="final", timeout=round(within, 3)
        )
        for task in self._changes():
            if task["task_id"] in self._known:
                self._known[task["task_id"]] = _slim(task)
        if self._missed():
            self._reload()
        return self.fresh()

    def fresh(self) -> list[Task]:
        """Those that have ended and were not told yet."""
        ended = [
            task
            for task in self._known.values()
            if is_final(task) and task["task_id"] not in self._told
        ]
        self._told |= {task["task_id"] for task in ended}
        return sorted(ended, key=lambda task: task["completed_at"] or "")

    def running(self, most: int) -> list[Task]:
        """What holds a place now, with its phase; at most so many."""
        batch_id = self.batch["batch_id"]
        page = self._client.get("/tasks/", batch=batch_id, status=list(HELD), limit=most)
        return [_slim(task) for task in page["tasks"]]

    def _changes(self) -> Iterator[Task]:
        while True:
            page = self._client.get(f"{self._path}/changes", since=self._cursor, limit=PAGE)
            yield from page["tasks"]
            if page["cursor"] < self._cursor:  # the story of what was forgotten is gone
                self._reload()
                return
            self._cursor = page["cursor"]
            if not page["more"]:
                return

    def _missed(self) -> bool:
        """Whether fewer ended than the batch counts."""
        counts = self.batch["counts"]
        ended: int = sum(counts[word] for word in OUTCOMES)
        return ended > sum(1 for task in self._known.values() if is_final(task))

    def _reload(self) -> None:
        self._cursor = self._client.get(f"{self._path}/changes")["cursor"]
        found = tasks_of(self._client, self.batch)
        self._known = {task["task_id"]: task for task in found}
