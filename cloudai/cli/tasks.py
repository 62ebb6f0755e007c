"""``queue``, ``tasks`` and ``show``."""

from __future__ import annotations

from typing import Any

import click

from .options import common, complete_tasks, complete_workers, task_argument
from .output import Column, Styled, on_terminal, print_table, say, tell
from .session import Session
from .wording import NOTHING, age, priority_of, span, took

Task = dict[str, Any]
STATES = ("queued", "starting", "running", "stopping", "completed", "failed", "cancelled")
STYLES = {
    "running": "green",
    "completed": "green",
    "failed": "red",
    "cancelled": "yellow",
    "stopping": "yellow",
    "starting": "cyan",
}
PAGE = 100
WAITS = "waiting for the scheduler"


@click.command()
@common
@click.pass_obj
def queue_command(session: Session) -> int:
    """List what waits for a worker or is being started, oldest first, and why."""
    answer = _all(session, status=["queued", "starting"])
    ids = [task["task_id"] for task in reversed(answer["tasks"])]
    session.show(answer, _print_queue, quiet=ids)
    return 0


def _all(session: Session, **query: Any) -> dict[str, Any]:
    """All pages as one answer."""
    found: dict[str, Task] = {}
    while True:
        page = session.client.get("/tasks/", limit=PAGE, offset=len(found), **query)
        # Between two pages tasks may come and go: none is shown twice.
        fresh = {task["task_id"]: task for task in page["tasks"] if task["task_id"] not in found}
        found.update(fresh)
        if not fresh or len(found) >= page["total"]:
            return {"tasks": list(found.values()), "total": page["total"]}


def _print_queue(answer: dict[str, Any]) -> None:
    if not answer["tasks"] and on_terminal():
        say("Nothing is waiting.")
        return
    heads = [
        Column("TASK"),
        Column("USER"),
        Column("STATUS"),
        Column("AGE", right=True),
        Column("WHY", flexible=True),
    ]
    rows = [
        [
            task["task_id"],
            task["user_id"],
            Styled(task["status"], STYLES.get(task["status"], "")),
            age(task["created_at"]),
            _why(task),
        ]
        for task in reversed(answer["tasks"])
    ]
    print_table(heads, rows)


def _why(task: Task) -> str:
    """Why it waits, after what sets it apart from others: its priority, its group."""
    if task["status"] == "starting":
        return f"on {task['worker_id']}: {task.get('phase') or 'starting'}"
    priority = priority_of(task)
    before = [f"priority {priority}"] if priority else []
    if task.get("group"):
        before.append(f"{task['group_rank'] + 1} of {task['group_size']} of {task['group']}")
    if task.get("target"):
        before.append(f"for {task['target']}")
    return ": ".join(filter(None, (", ".join(before), task.get("reason") or WAITS)))


@click.command()
@click.option(
    "--status", type=click.Choice(STATES), multiple=True, help="Only these; may be repeated."
)
@click.option("--user", metavar="USER", help="Only this user's.")
@click.option(
    "--worker", metavar="ID", help="Only on this worker.", shell_complete=complete_workers
)
@click.option("--name", metavar="NAME", help="Only of this name.", shell_complete=complete_tasks)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=PAGE,
    show_default=True,
    metavar="N",
    help="At most so many.",
)
@click.option("--offset", type=click.IntRange(min=0), metavar="N", help="Leave out the newest N.")
@common
@click.pass_obj
def tasks_command(session: Session, /, status: tuple[str, ...], **filters: Any) -> int:
    """List tasks, newest first, also those that have ended."""
    answer = session.client.get("/tasks/", status=list(status) or None, **filters)
    session.show(answer, _print_tasks, quiet=[task["task_id"] for task in answer["tasks"]])
    return 0


def _print_tasks(answer: dict[str, Any]) -> None:
    tasks = answer["tasks"]
    if not tasks and on_terminal():
        say("No tasks.")
        return
    heads = [
        Column("TASK"),
        Column("STATUS"),
        Column("WORKER"),
        Column("EXIT", right=True),
        Column("AGE", right=True),
        Column("TOOK", right=True),
        Column("IMAGE", flexible=True),
    ]
    print_table(heads, [_task_row(task) for task in tasks])
    if answer["total"] > len(tasks) and on_terminal():
        tell(f"{len(tasks)} of {answer['total']}: --limit and --offset show more")


def _task_row(task: Task) -> list[str | Styled]:
    seconds = took(task)
    named = f" ({task['name']})" if task.get("name") else ""
    return [
        task["task_id"],
        Styled(task["status"], STYLES.get(task["status"], "")),
        task["worker_id"] or NOTHING,
        NOTHING if task["exit_code"] is None else str(task["exit_code"]),
        age(task["created_at"]),
        NOTHING if seconds is None else span(seconds),
        task["docker_image"] + named,
    ]


@click.command()
@task_argument
@common
@click.pass_obj
def show_command(session: Session, task: str) -> int:
    """Tell one task's whole story: what it asked, where it ran, what happened, why it ended."""
    from cloudai.client import task_path

    from .story import print_story

    found = session.client.get(task_path(task))
    session.show(found, print_story, quiet=[found["task_id"]])
    return 0
