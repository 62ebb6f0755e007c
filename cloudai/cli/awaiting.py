"""What ``wait`` waits for: tasks, and all tasks of a batch, an array or a group."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cloudai.records import exit_code_of, outcome_of

from .output import say
from .session import Session

if TYPE_CHECKING:
    from cloudai.client import Client

Task = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Awaited:
    """``kind``: task, batch, array or group."""

    kind: str
    id: str
    members: tuple[str, ...] = ()
    """Of a group: its tasks."""

    @property
    def many(self) -> bool:
        return self.kind != "task"


def find(client: Client, names: Iterable[str]) -> list[Awaited]:
    """What is named, each once. All are looked up first: a mistyped one is said at once, not
    after hours."""
    from cloudai.client import group_path
    from cloudai.core.names import is_group_id

    from .sets import ask, is_set, name_of

    found: dict[Awaited, None] = {}
    for name in names:
        if is_group_id(name):
            tasks = client.get(group_path(name))["tasks"]
            one = Awaited("group", name, tuple(task["task_id"] for task in tasks))
        else:
            seen = ask(client, "GET", name)
            many = "batch" if "batch_id" in seen else "array"
            one = Awaited(many if is_set(seen) else "task", name_of(seen))
        found[one] = None
    return list(found)


def wait_for_all(session: Session, awaited: Sequence[Awaited]) -> tuple[list[Task], int]:
    """The tasks once all have ended, each once, told one by one, and the exit code of the last
    that failed."""
    done: dict[str, Task] = {}
    code = 0
    for one in awaited:
        for task in _ended(session.client, one):
            if task["task_id"] in done:
                continue
            done[task["task_id"]] = task
            code = exit_code_of(task) or code
            own = "-" if task["exit_code"] is None else task["exit_code"]
            if not session.json:
                say(own if session.quiet else f"{task['task_id']} {outcome_of(task)} {own}")
    return list(done.values()), code


def _ended(client: Client, one: Awaited) -> Iterator[Task]:
    """Its tasks, once they have ended; those of a batch as they end."""
    from .following import finished

    match one.kind:
        case "batch":
            yield from _of_batch(client, one.id)
        case "array":
            yield from _of_array(client, one.id)
        case "group":
            for member in one.members:
                yield finished(client, member)
        case _:
            yield finished(client, one.id)


def _of_batch(client: Client, batch_id: str) -> Iterator[Task]:
    from .batch_news import Watching, find_batch

    watching = Watching(client, find_batch(client, batch_id))
    yield from watching.fresh()
    while not watching.over:
        yield from watching.look(2.0)


def _of_array(client: Client, array: str) -> Iterator[Task]:
    """In the order of their indexes."""
    from .batch_news import tasks_of
    from .following import until

    while not until(client, array, "final")["ended"]:
        pass
    yield from tasks_of(client, {"task_id": array})
