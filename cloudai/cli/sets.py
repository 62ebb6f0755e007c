"""Batches and arrays where tasks are named: their ids stand for all their tasks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cloudai.client import Client

Set = dict[str, Any]
PAGE = 10_000


def is_set(found: dict[str, Any]) -> bool:
    """Whether an answer is about many tasks: how they stand as a whole."""
    return "counts" in found


def name_of(found: Set) -> str:
    """Its id."""
    return str(found.get("batch_id") or found["task_id"])


def ask(client: Client, method: str, ref: str, *rest: str, body: object = None) -> Any:
    """A request about a task, an array or a batch: a batch by its id or, where no task has that
    name, by its name. Raises ``TaskNotFound`` for what is none of these."""
    from cloudai.client import batch_path, task_path
    from cloudai.core.errors import NotFound, TaskNotFound
    from cloudai.core.names import is_batch_id

    if is_batch_id(ref):
        return client.request(method, batch_path(ref, *rest), body=body).data
    try:
        return client.request(method, task_path(ref, *rest), body=body).data
    except TaskNotFound as no_task:
        try:
            return client.request(method, batch_path(ref, *rest), body=body).data
        except NotFound:
            raise no_task from None


def tasks_of(client: Client, found: Set, *, status: list[str] | None = None) -> Iterator[Any]:
    """Its tasks, in the order of submission."""
    kind = "batch" if "batch_id" in found else "array"
    wanted: dict[str, Any] = {kind: name_of(found), "status": status}
    first = client.get("/tasks/", limit=1, **wanted)
    pages = range(0, first["total"], PAGE)
    for offset in reversed(pages):
        page = client.get("/tasks/", limit=PAGE, offset=offset, **wanted)
        yield from reversed(page["tasks"])
