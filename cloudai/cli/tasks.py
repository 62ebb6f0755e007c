"""``queue``, ``tasks`` and ``show``."""

from __future__ import annotations

from typing import Any

import click

from .options import common, complete_tasks, complete_types, complete_workers, task_argument
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
@click.option(
    "--limit",
    type=click.IntRange(1, 10_000),
    default=1000,
    show_default=True,
    metavar="N",
    help="At most so many rows.",
)
@common
@click.pass_obj
def queue_command(session: Session, limit: int) -> int:
    """List what waits for a worker or is being started, oldest first, and why.

    An array is one row.
    """
    answer = session.client.get("/tasks/stats/queue", limit=limit)
    session.show(answer, _print_queue, quiet=[_queued_id(task) for task in answer["tasks"]])
    return 0


def _queued_id(task: Task) -> str:
    return str(task.get("array") or task["task_id"])


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
            _queued_id(task),
            task["user_id"],
            Styled(task["status"], STYLES.get(task["status"], "")),
            age(task["created_at"]),
            _why(task),
        ]
        for task in answer["tasks"]
    ]
    print_table(heads, rows)
    more = answer["total"] - sum(task.get("waiting", 1) for task in answer["tasks"])
    if more > 0 and on_terminal():
        tell(f"and {more} more tasks: --limit shows more")


def _why(task: Task) -> str:
    """Why it waits, after what sets it apart from others: its array, its priority, its group."""
    before = []
    if task.get("array"):
        limit = task.get("array_limit")
        at_once = f", {limit} at once" if limit else ""
        before.append(f"{task['waiting']} of {task['array_size']}{at_once}")
    if task["status"] == "starting":
        does = f"on {task['worker_id']}: {task.get('phase') or 'starting'}"
        return ": ".join([*before, does])
    if priority := priority_of(task):
        before.append(f"priority {priority}")
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
@click.option("--batch", metavar="ID", help="Only of this batch, by its whole id.")
@click.option("--array", metavar="ID", help="Only of this array, by its whole id.")
@click.option(
    "--type",
    "task_type",
    metavar="NAME",
    help="Only of this task type.",
    shell_complete=complete_types,
)
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
    """Tell one task's whole story: what it asked, where it ran, what happened, why it ended.

    Of an array: how its elements stand.
    """
    from cloudai.client import task_path

    from .story import print_array, print_story

    found = session.client.get(task_path(task))
    people = print_array if "counts" in found else print_story
    session.show(found, people, quiet=[found["task_id"]])
    return 0
