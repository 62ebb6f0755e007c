"""Options and arguments that several commands share."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

from .argv import split
from .session import Session

F = TypeVar("F", bound=Callable[..., Any])
ARGV = "cloudai.argv"
"""Where a command that takes ``-- ARGV…`` finds it in ``ctx.meta`` (``None``: no ``--``)."""


def _keep(field: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def callback(ctx: click.Context, _param: click.Parameter, value: Any) -> None:
        if value:
            setattr(ctx.ensure_object(Session), field, value)

    return callback


def common(command: F) -> F:
    """``--json``, ``--quiet`` and ``--inventory``: before the command's name or after it."""
    for option in reversed(
        (
            click.option(
                "--json",
                is_flag=True,
                expose_value=False,
                callback=_keep("json"),
                help="Answer with the API's JSON, errors too.",
            ),
            click.option(
                "--quiet",
                "-q",
                is_flag=True,
                expose_value=False,
                callback=_keep("quiet"),
                help="Print ids and results only.",
            ),
            click.option(
                "--inventory",
                metavar="FILE",
                expose_value=False,
                callback=_keep("inventory"),
                help="The inventory of workers.  [env: CLOUDAI_INVENTORY]",
            ),
        )
    ):
        command = option(command)
    return command


class DashedCommand(click.Command):
    """A command that takes ``-- ARGV…``: whatever stands after ``--`` is left untouched."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ours, ctx.meta[ARGV] = split(args)
        self.refuse_near_misses(ctx, ours)
        return super().parse_args(ctx, ours)

    def refuse_near_misses(self, ctx: click.Context, ours: list[str]) -> None:
        """click would read -cpus as -c "pus" and run that, and name -gpu by its -g."""
        from difflib import get_close_matches

        options = [one for one in self.get_params(ctx) if isinstance(one, click.Option)]
        known = {name for option in options for name in option.opts}
        with_value = {name for one in options if not one.is_flag for name in one.opts}
        long = [name for name in known if re.match("-[a-z]{2}", name)]
        for before, arg in zip(["", *ours], ours, strict=False):
            word = arg.partition("=")[0]
            missed = re.match("-c.", word) or (
                re.match("-[a-z]{2}", word) and word[:2] not in known
            )
            if missed and word not in known and before not in with_value:
                near = get_close_matches(word, long, n=1, cutoff=0.5)
                hint = f" Did you mean {near[0]}?" if near else ""
                raise click.UsageError(f"No such option {word}.{hint}", ctx=ctx)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "[-- ARGV...]"]


def answers_in_time(complete: F) -> F:
    """A completion that never fails and never starts a controller."""

    @functools.wraps(complete)
    def quietly(*args: Any) -> Any:
        try:
            return complete(*args)
        except Exception:  # a broken completion must not break the command line being typed
            return []

    return quietly  # type: ignore[return-value]


@answers_in_time
def complete_tasks(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Ids and names of the newest tasks."""
    tasks = _ask(ctx, "/tasks/")["tasks"]
    names = [name for task in tasks for name in (task["task_id"], task["name"]) if name]
    return _fitting(names, incomplete)


@answers_in_time
def complete_workers(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Ids of the workers."""
    found = _ask(ctx, "/workers/")["workers"]
    return _fitting([worker["worker_id"] for worker in found], incomplete)


@answers_in_time
def complete_types(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Names of task types."""
    return _fitting([one["name"] for one in _ask(ctx, "/templates/")["templates"]], incomplete)


@answers_in_time
def complete_secrets(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Names of secrets."""
    return _fitting([one["name"] for one in _ask(ctx, "/secrets/")["secrets"]], incomplete)


def _ask(ctx: click.Context, path: str) -> Any:
    session = ctx.find_object(Session) or Session()
    return session.connect(start=False, patience=0.2).get(path)


def _fitting(names: list[str], incomplete: str) -> list[str]:
    plain = re.compile(r"[\w.@-]+")  # the shell must not read anything into them
    return [
        name
        for name in dict.fromkeys(names)
        if name.startswith(incomplete) and plain.fullmatch(name)
    ]


task_argument = click.argument("task", shell_complete=complete_tasks)
tasks_argument = click.argument(
    "tasks", nargs=-1, required=True, metavar="TASK...", shell_complete=complete_tasks
)
worker_argument = click.argument("worker", metavar="ID", shell_complete=complete_workers)
