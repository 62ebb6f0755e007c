"""When a task may start, and how it is ended: flags in, fields of the request out. sbatch's long
spellings mean what they mean there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeVar

import click

from .options import complete_tasks

F = TypeVar("F", bound=Callable[..., Any])

ENDING_OPTIONS = (
    click.option(
        "--signal",
        metavar="SIGNAL[@SECONDS]",
        help="Sent so long before its time limit, and first at each stop, for a checkpoint:"
        " USR1@60.",
    ),
    click.option(
        "--first-output",
        metavar="TIME",
        help="End it where it has written nothing at all after so long: 10m.",
    ),
    click.option(
        "--idle-output",
        metavar="TIME",
        help="End it where it has written nothing for so long: 30m. Whole lines count, or 16 KB.",
    ),
)
"""Also for a task that is dispatched."""

START_OPTIONS = (
    click.option(
        "--after",
        multiple=True,
        metavar="TASK[:HOW]",
        help="Only once that one has ended: ok, failed or any.  [default: ok]",
        shell_complete=complete_tasks,
    ),
    click.option(
        "--dependency",
        metavar="LIST",
        help="The same as sbatch says it: afterok:ID[:ID],afternotok:ID,afterany:ID,aftercorr:ID.",
    ),
    click.option(
        "--on-unmet",
        metavar="WHAT",
        help="When that can no longer be: cancel it, or skip it.  [default: cancel]",
    ),
    click.option(
        "--begin",
        metavar="TIME",
        help="Not before: 2h, now+1hour, 16:00, tomorrow, 2026-01-31T02:00 (local time), ...",
    ),
    click.option(
        "--array",
        metavar="INDEXES[%N]",
        help="Once for each index, in CLOUDAI_ARRAY_INDEX: 0-99, 1,3,5-7, 0-15:4; N at once.",
    ),
    click.option(
        "--requeue/--no-requeue",
        default=None,
        help="The same as --on-lost requeue --preemptible, or neither.",
    ),
    click.option(
        "--test-only", is_flag=True, help="As --dry-run: show what would be, and queue nothing."
    ),
)
"""For a task that waits in the queue."""

FLAGS = {
    "signal": "--signal",
    "first_output": "--first-output",
    "idle_output": "--idle-output",
    "after": "--after",
    "dependency": "--dependency",
    "on_unmet": "--on-unmet",
    "begin": "--begin",
    "array": "--array",
}
"""What a person typed for each field of the request."""


def start_options(command: F) -> F:
    """The flags of a task that waits for its time."""
    for option in reversed(START_OPTIONS):
        command = option(command)
    return command


def endings_of(asked: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that say how it is ended."""
    return {name: asked.get(name) for name in ("signal", "first_output", "idle_output")}


def starts_of(ctx: click.Context, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that say when it may start; what was not said is left out. Raises
    ``click.UsageError``, and ``InvalidInput`` for what sbatch would not understand either."""
    from cloudai.core.slurm import parse_begin, parse_dependency

    after = list(asked["after"])
    if asked["dependency"] is not None:
        after += parse_dependency(asked["dependency"])
    begin = asked["begin"]
    if begin is not None:
        local = datetime.now()
        begin = parse_begin(begin, local, local=datetime.astimezone)
    if asked["on_unmet"] is not None and not after:
        raise click.UsageError("--on-unmet says what --after does; give both.", ctx=ctx)
    if asked["array"] is not None and asked["replicas"] is not None:
        raise click.UsageError("--array and --replicas do not go together.", ctx=ctx)
    fields = {
        "after": after,
        "on_unmet": asked["on_unmet"],
        "begin": begin,
        **_requeued(ctx, asked),
    }
    fields["array"] = asked["array"]
    return {name: value for name, value in fields.items() if value not in (None, [])}


def _requeued(ctx: click.Context, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Slurm requeues a job when its node fails and when it is preempted; these are both."""
    if asked["requeue"] is None:
        return {}
    against = asked["on_lost"] not in (None, "requeue" if asked["requeue"] else "wait")
    if against or (asked["preemptible"] and not asked["requeue"]):
        word = "--requeue" if asked["requeue"] else "--no-requeue"
        other = f"--on-lost {asked['on_lost']}" if against else "--preemptible"
        raise click.UsageError(f"{word} and {other} say different things.", ctx=ctx)
    return {"on_lost": "requeue", "preemptible": True} if asked["requeue"] else {}
