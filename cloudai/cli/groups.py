"""Placement groups: ``task --replicas``, and ids of groups where tasks are named."""

from __future__ import annotations

from typing import Any

from .output import say
from .session import Session

Task = dict[str, Any]
Group = dict[str, Any]


def go_on_with(session: Session, group: Group, *, known: bool, wait: bool) -> int:
    """After a group was accepted: tells its tasks, and waits for all of them where asked."""
    ids = [task["task_id"] for task in group["tasks"]]
    if not (wait and session.json):
        session.show(group, lambda group: _tell(group, known=known), quiet=ids)
    if not wait:
        return 0
    from .awaiting import Awaited, wait_for_all

    done, code = wait_for_all(session, [Awaited("group", group["group_id"], tuple(ids))])
    if session.json:
        session.show({**group, "tasks": done}, lambda _: None)
    return code


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
