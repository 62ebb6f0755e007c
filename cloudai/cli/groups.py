"""Placement groups: ``task --replicas``, and ids of groups where tasks are named."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .output import say
from .session import Session
from .wording import exit_code_of

if TYPE_CHECKING:
    from cloudai.client import Client

Task = dict[str, Any]
Group = dict[str, Any]


def members_of(client: Client, names: Iterable[str]) -> list[str]:
    """Ids of the tasks that are named, each once; a group's id names all of its tasks. All are
    looked up first: a mistyped one is said at once, not after hours."""
    from cloudai.client import group_path, task_path
    from cloudai.core.names import is_group_id

    found: dict[str, None] = {}
    for name in names:
        if is_group_id(name):
            tasks = client.get(group_path(name))["tasks"]
        else:
            tasks = [client.get(task_path(name))]
        found |= dict.fromkeys(task["task_id"] for task in tasks)
    return list(found)


def go_on_with(session: Session, group: Group, *, known: bool, wait: bool) -> int:
    """After a group was accepted: tells its tasks, and waits for all of them where asked."""
    ids = [task["task_id"] for task in group["tasks"]]
    if not (wait and session.json):
        session.show(group, lambda group: _tell(group, known=known), quiet=ids)
    if not wait:
        return 0
    done, code = wait_for(session, ids)
    if session.json:
        session.show({**group, "tasks": done}, lambda _: None)
    return code


def wait_for(session: Session, ids: Iterable[str]) -> tuple[list[Task], int]:
    """The tasks once all have ended, told one by one, and the exit code of the last that
    failed."""
    from .following import finished

    done, code = [], 0
    for task_id in ids:
        task = finished(session.client, task_id)
        done.append(task)
        code = exit_code_of(task) or code
        own = "-" if task["exit_code"] is None else task["exit_code"]
        if not session.json:
            say(own if session.quiet else f"{task['task_id']} {task['status']} {own}")
    return done, code


def preview_group(group: Group) -> None:
    """What would be queued."""
    from .preview import preview

    say(preview(group["tasks"][0]))
    say()
    say(f"Nothing was queued (--dry-run); it would be {_size(group)}")
    for task in group["tasks"]:
        if worker := task.get("would_start_on"):
            say(f"  rank {task['group_rank']} would start on {worker} now")
    if why := group.get("would_wait"):
        say(f"  it would wait: {why}")


def _tell(group: Group, *, known: bool) -> None:
    if known:
        say(f"✅ Group {group['group_id']} was there before: the same --idempotency-key made it")
    else:
        say(f"✅ Group {group['group_id']} queued: {_size(group)}")
    for task in group["tasks"]:
        say(f"  {task['task_id']}")


def _size(group: Group) -> str:
    many = "1 task" if group["size"] == 1 else f"{group['size']} tasks"
    return f"{many}, placed together ({group['placement']})"
