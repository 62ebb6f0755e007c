"""``cancel``, ``mark-lost``, ``wait`` and ``rm``: several tasks, each reported."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from .options import common, tasks_argument
from .output import print_error, print_json, say
from .session import Session
from .wording import is_final

Task = dict[str, Any]


@click.command()
@tasks_argument
@common
@click.pass_obj
def cancel_command(session: Session, tasks: tuple[str, ...]) -> int:
    """Stop tasks: a polite signal first, a forced end after each one's grace.

    The id of a group, of an array or of a batch stops all its tasks that have not ended.
    """
    from cloudai.client import group_path
    from cloudai.core.names import is_group_id

    from .sets import ask, is_set, name_of
    from .story import counted

    def cancel(task: str) -> Task:
        if is_group_id(task):
            before = session.client.get(group_path(task))["tasks"]
            group: Task = session.client.patch(group_path(task, "cancel"))
            live = {one["task_id"] for one in before if not is_final(one)}
            for member in group["tasks"]:
                if member["task_id"] in live:
                    say_stopped(member)
            return group
        stopped: Task = ask(session.client, "PATCH", task, "cancel")
        if not is_set(stopped):
            say_stopped(stopped)
        elif not session.json:
            words = f"✅ {name_of(stopped)}: {counted(stopped['counts'])}"
            say(name_of(stopped) if session.quiet else words)
        return stopped

    def say_stopped(task: Task) -> None:
        words = "cancelled" if task["status"] == "cancelled" else "is being stopped"
        if not session.json:
            task_id = task["task_id"]
            say(task_id if session.quiet else f"✅ Task {task_id} {words}")

    return each(session, tasks, cancel, several="tasks", bare=True)


@click.command()
@tasks_argument
@common
@click.pass_obj
def mark_lost_command(session: Session, tasks: tuple[str, ...]) -> int:
    """Say that the workers of these tasks, or their containers there, are gone for good.

    Only a person can know that. Each task fails, or goes back to the queue where it was asked
    for with --on-lost requeue. Refused while the worker can be reached. If it comes back all
    the same, the container is stopped, its log brought home, and it is removed.
    """
    from cloudai.client import task_path

    def mark(task: str) -> Task:
        lost: Task = session.client.post(task_path(task, "mark-lost"))
        if not session.json:
            again = "is back in the queue" if lost["status"] == "queued" else lost["status"]
            task_id = lost["task_id"]
            say(task_id if session.quiet else f"✅ Task {task_id} marked as lost: {again}")
        return lost

    return each(session, tasks, mark, several="tasks", bare=True)


@click.command()
@tasks_argument
@common
@click.pass_obj
def rm_command(session: Session, tasks: tuple[str, ...]) -> int:
    """Forget ended tasks and their logs.

    The id of an array or of a batch forgets all its tasks, once all have ended.
    """
    from .sets import ask

    def forget(task: str) -> str:
        ask(session.client, "DELETE", task)
        if not session.json:
            say(task if session.quiet else f"✅ Task {task} forgotten")
        return task

    return each(session, tasks, forget, several="removed")


@click.command()
@tasks_argument
@click.option(
    "--failed",
    is_flag=True,
    help="Only what failed, was cancelled or left out.",
)
@click.option(
    "-e",
    "--env",
    "env",
    multiple=True,
    metavar="NAME[=VALUE]",
    help="A variable's value again: values are gone once their task has ended.",
)
@common
@click.pass_obj
def retry_command(
    session: Session, tasks: tuple[str, ...], failed: bool, env: tuple[str, ...]
) -> int:
    """Run tasks that have ended once more, as new tasks.

    Of an array its elements, as a new array with the same indexes; of a batch its tasks, as a
    new batch, in which they need each other as before.
    """
    import os

    from .asking import environment
    from .sets import ask, is_set, name_of
    from .wording import counted_tasks

    values = environment(env, (), os.environ)

    def again(task: str) -> Task:
        body = {"failed": failed, **({"env": values} if values else {})}
        new: Task = ask(session.client, "POST", task, "retry", body=body)
        if not session.json:
            many = counted_tasks(new["size"]) if is_set(new) else "1 task"
            say(name_of(new) if session.quiet else f"✅ {task} again: {name_of(new)}, {many}")
        return new

    return each(session, tasks, again, several="tasks", bare=True)


@click.command()
@tasks_argument
@common
@click.pass_obj
def wait_command(session: Session, tasks: tuple[str, ...]) -> int:
    """Wait for tasks to end, and end with the exit code of the last one that failed.

    A line each: its id, how it ended, and its exit code. A task that cloudai failed or that
    was cancelled counts as 125, one that was skipped as 0. The id of a batch, an array or a
    group stands for all its tasks.
    """
    from .awaiting import find, wait_for_all

    found = find(session.client, tasks)
    done, code = wait_for_all(session, found)
    if session.json:
        print_json(done[0] if len(found) == 1 and not found[0].many else {"tasks": done})
    return code


def each(
    session: Session,
    names: Sequence[str],
    act: Callable[[str], Any],
    *,
    several: str,
    bare: bool = False,
    kind: str = "task",
) -> int:
    """Acts on each, also after one failed; the highest exit code of all.

    ``bare``: with ``--json`` the answer for one alone is its own JSON. ``kind``: what the names
    are of.
    """
    from cloudai.core.errors import CloudaiError

    done, failed, code = [], [], 0
    for name in names:
        try:
            done.append(act(name))
        except CloudaiError as error:
            if len(names) == 1 or not session.json:
                print_error(error, as_json=session.json)
            failed.append({kind: name, **error.as_json()})
            code = max(code, error.exit_code)
    if session.json and len(names) > 1:
        print_json({several: done, "errors": failed})
    elif session.json and done:
        print_json(done[0] if bare else {several: done, "errors": []})
    return code
