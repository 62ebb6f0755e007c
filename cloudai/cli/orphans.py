"""``orphans``: containers of cloudai that no task here claims."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from .options import answers_in_time, common, complete_workers
from .output import Column, on_terminal, print_table, say
from .session import Session
from .wording import NOTHING, age, amount

Orphan = dict[str, Any]
F = TypeVar("F", bound=Callable[..., Any])


@answers_in_time
def complete_orphans(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Their ids."""
    session = ctx.find_object(Session) or Session()
    found = session.connect(start=False, patience=0.2).get("/orphans/")["orphans"]
    ids = [orphan["assignment_id"] for orphan in found]
    return [one for one in ids if one.startswith(incomplete)]


def one_orphan(command: F) -> F:
    """Which one is meant, and that it may be another cloudai's."""
    for decorate in (
        click.option(
            "--foreign",
            is_flag=True,
            help="Also where another cloudai placed it: only when that one is gone for good.",
        ),
        click.option(
            "--worker", metavar="ID", help="The one there.", shell_complete=complete_workers
        ),
        click.argument("orphan", metavar="ID", shell_complete=complete_orphans),
    ):
        command = decorate(command)
    return command


@click.group(invoke_without_command=True)
@click.option("--worker", metavar="ID", help="Only there.", shell_complete=complete_workers)
@common
@click.pass_context
def orphans_command(ctx: click.Context, worker: str | None) -> int:
    """List containers with cloudai's labels that no task here claims; adopt, stop or forget one.

    Those of this store come to be when an older copy of the database was put in place, or when
    a task was forgotten whose worker was lost. Those of another store are most often simply
    the tasks of a colleague. None is ever touched by itself.
    """
    if ctx.invoked_subcommand is not None:
        return 0
    session = ctx.ensure_object(Session)
    answer = session.client.get("/orphans/", worker=worker)
    ids = [orphan["assignment_id"] for orphan in answer["orphans"]]
    session.show(answer, _print_orphans, quiet=ids)
    return 0


def _print_orphans(answer: dict[str, Any]) -> None:
    if not answer["orphans"] and on_terminal():
        say("No orphans.")
        return
    heads = [
        Column("CONTAINER"),
        Column("WORKER"),
        Column("STORE"),
        Column("USER"),
        Column("PHASE"),
        Column("AGE", right=True),
        Column("CPU", right=True),
        Column("MEMORY GB", right=True),
        Column("GPUS", flexible=True),
    ]
    print_table(heads, [_row(orphan) for orphan in answer["orphans"]])


def _row(orphan: Orphan) -> list[str]:
    return [
        orphan["assignment_id"],
        orphan["worker_id"],
        "this" if orphan["mine"] else "other",
        orphan["user_id"] or NOTHING,
        orphan["phase"],
        age(orphan["since"]),
        amount(orphan["req_cpu"]),
        amount(orphan["req_memory"]),
        ",".join(orphan["gpus"]) or NOTHING,
    ]


@orphans_command.command()
@one_orphan
@common
@click.pass_obj
def adopt(session: Session, orphan: str, worker: str | None, foreign: bool) -> int:
    """Make it a task of this store: watched, its log brought home, removed at its end."""
    task = _ask(session.client.post, orphan, "/adopt", worker, foreign)
    task_id = task["task_id"]
    session.show(task, lambda _: say(f"✅ Task {task_id} is followed from now on"), quiet=[task_id])
    return 0


@orphans_command.command()
@one_orphan
@common
@click.pass_obj
def stop(session: Session, orphan: str, worker: str | None, foreign: bool) -> int:
    """Stop it: politely, by force after 10 s. It and its log stay on the worker."""
    answer = _ask(session.client.post, orphan, "/stop", worker, foreign)
    name = answer["assignment_id"]
    session.show(answer, lambda _: say(f"✅ {name} is {answer['phase']}"), quiet=[answer["phase"]])
    return 0


@orphans_command.command()
@one_orphan
@common
@click.pass_obj
def forget(session: Session, orphan: str, worker: str | None, foreign: bool) -> int:
    """Remove it from its worker, and with it its log. One that runs is stopped first."""
    _ask(session.client.delete, orphan, "", worker, foreign)
    session.show({"removed": orphan}, lambda _: say(f"✅ {orphan} is removed"), quiet=[orphan])
    return 0


def _ask(ask: Callable[..., Any], orphan: str, verb: str, worker: str | None, foreign: bool) -> Any:
    from urllib.parse import quote

    return ask(f"/orphans/{quote(orphan, safe='')}{verb}", worker=worker, foreign=foreign or None)
