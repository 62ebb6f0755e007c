"""``logs``: what a task wrote."""

from __future__ import annotations

import click

from .options import common, task_argument
from .output import on_terminal, tell
from .session import Session


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

    On a terminal, escape sequences other than colours are left out.
    """
    from cloudai.client import task_path

    from .following import log, until
    from .story import unreachable
    from .writing import LogWriter

    if raw and on_terminal():
        raise click.UsageError("--raw is for pipes and files: on a terminal logs are made safe.")
    client = session.client
    if follow and number is None:
        while (found := until(client, task, "started"))["status"] in ("queued", "starting"):
            pass
        if away := unreachable(found):
            tell(away)
    with LogWriter() as writer:
        if follow and (tail, since, number) == (None, None, None):
            for chunk in log(client, task):
                writer.write(chunk)
            return 0
        asked = {"follow": follow or None, "tail": tail, "since": since, "number": number}
        with client.stream(task_path(task, "logs"), **asked) as chunks:
            for chunk in chunks:
                writer.write(chunk)
    return 0
