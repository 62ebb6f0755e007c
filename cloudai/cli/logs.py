"""``logs``: what a task wrote."""

from __future__ import annotations

import click

from .options import common, task_argument
from .output import on_terminal, tell
from .session import Session
from .sets import is_set, tasks_of


@click.command()
@task_argument
@click.option("--follow", "-f", is_flag=True, help="Go on until the task ends.")
@click.option("--tail", type=click.IntRange(min=0), metavar="N", help="The last N lines only.")
@click.option(
    "--since", metavar="TIME", help="From then on: 10m (ago), RFC 3339, or seconds since 1970."
)
@click.option(
    "--try",
    "number",
    type=click.IntRange(min=1),
    metavar="N",
    help="Of its Nth try, where it was tried again.  [default: the latest]",
)
@click.option(
    "--raw",
    is_flag=True,
    help="Insist on the bytes as written; refused on a terminal, the rule in a pipe.",
)
@common
@click.pass_obj
def logs_command(
    session: Session,
    task: str,
    follow: bool,
    tail: int | None,
    since: str | None,
    number: int | None,
    raw: bool,
) -> int:
    """Print what a task wrote, byte for byte, also after its container is gone.

    Of an array: of each element that has begun, under its id. On a terminal, escape sequences
    other than colours are left out.
    """
    from cloudai.client import task_path
    from cloudai.core.errors import Conflict

    from .following import log, until
    from .story import unreachable
    from .writing import LogWriter

    if raw and on_terminal():
        raise click.UsageError("--raw is for pipes and files: on a terminal logs are made safe.")
    client = session.client
    if follow and number is None:
        found = until(client, task, "started")
        if is_set(found):
            raise click.UsageError(f"{task} is an array: --follow takes one of its tasks.")
        while found["status"] in ("queued", "starting"):
            found = until(client, task, "started")
        if away := unreachable(found):
            tell(away)
    with LogWriter() as writer:
        if follow and (tail, since, number) == (None, None, None):
            for chunk in log(client, task):
                writer.write(chunk)
            return 0
        asked = {"follow": follow or None, "tail": tail, "since": since, "number": number}
        try:
            with client.stream(task_path(task, "logs"), **asked) as chunks:
                for chunk in chunks:
                    writer.write(chunk)
        except Conflict as error:
            if number is not None or "array" not in error.details:
                raise
            return _logs_of_all(session, error.details["array"], tail=tail, since=since)
    return 0


def _logs_of_all(session: Session, array: str, *, tail: int | None, since: str | None) -> int:
    """Each element's log under a line with its id; that line goes where messages go, so that
    what comes through a pipe is the bytes of the logs alone."""
    from cloudai.client import task_path

    from .writing import LogWriter

    for task in tasks_of(session.client, {"task_id": array}):
        if task["started_at"] is None:
            continue
        if not session.quiet:
            tell(f"── {task['task_id']} ({task['status']})")
        with (
            LogWriter() as writer,
            session.client.stream(
                task_path(task["task_id"], "logs"), tail=tail, since=since
            ) as chunks,
        ):
            for chunk in chunks:
                writer.write(chunk)
            if on_terminal():
                writer.finish_line()
    return 0
