"""``batch``: files of tasks, submitted as a whole."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from .asking import login_name
from .batch_follow import follow_batch, follow_command
from .batch_status import joblog_command, report_command, status_command
from .options import common
from .output import on_terminal, say
from .record_options import check_record, record_options
from .session import Session
from .wording import counted_tasks

Batch = dict[str, Any]
SHOWN = 20
"""Tasks of a dry run that a person sees; ``--json`` has all."""


class _OrSubmit(click.Group):
    """``batch FILE…`` submits; a word that is a command of its own is that command."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        first = next((arg for arg in args if not arg.startswith("-")), None)
        asks_for_help = first is None and any(arg in ("-h", "--help") for arg in args)
        if args and first not in self.commands and not asks_for_help:
            args = ["submit", *args]
        return super().parse_args(ctx, args)

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage(ctx.command_path, "FILE... [OPTIONS]")
        formatter.write_usage(ctx.command_path, "COMMAND [ARGS]...", prefix="       ")


@click.group(cls=_OrSubmit)
def batch_command() -> None:
    """Submit files of tasks as a whole, and see how batches stand.

    \b
      cloudai batch sweep.yaml --set epochs=5
      cloudai batch nightly.yaml --once-key 'nightly-{{ date }}' --quiet
      cloudai batch submit --help       all options
    """


batch_command.add_command(status_command)
batch_command.add_command(follow_command)
batch_command.add_command(report_command)
batch_command.add_command(joblog_command)


@batch_command.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--set", "settings", multiple=True, metavar="NAME=VALUE", help="A value for expressions."
)
@click.option("--name", metavar="NAME", help="A name to call the batch by.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["yaml", "json", "jsonl", "csv"]),
    help="What the files are.  [default: by their names; - is YAML]",
)
@click.option(
    "--once-key",
    metavar="KEY",
    help="At most one batch of yours has it: nightly-{{ date }}. A second does nothing.",
)
@click.option(
    "--no-overlap",
    is_flag=True,
    help="Refuse while an earlier batch of yours, with its name or files, has not ended.",
)
@click.option(
    "--user",
    "user_id",
    metavar="USER",
    help="Whose tasks they are.  [env: CLOUDAI_USER; default: your login name]",
)
@click.option("--dry-run", is_flag=True, help="Print the tasks it would be, and queue nothing.")
@click.option(
    "--wait", is_flag=True, help="Wait for its end and sum it up; end with the last failure's code."
)
@click.option("--follow", is_flag=True, help="The same, with a live view.")
@record_options
@click.option("--resume", is_flag=True, help="Leave out what completed, by the file of --joblog.")
@common
@click.pass_obj
def submit(session: Session, /, files: tuple[str, ...], dry_run: bool, **asked: Any) -> int:
    """Submit the tasks of FILES (YAML, JSON, JSON lines, CSV; - is stdin) as one batch.

    All files are checked before anything is stored, and every mistake is told with its place.
    --joblog and --report wait for its end. --resume goes by what tasks are, never by their
    place in a file: two equal ones are left out once both have completed.
    With --quiet it says nothing unless something is wrong: for cron.
    """
    joblog: Path | None = asked["joblog"]
    if asked["resume"] and joblog is None:
        raise click.UsageError("--resume needs --joblog: the file says what completed.")
    check_record(joblog, asked["report"], asked["report_format"])
    body = {
        "files": [_read(name, asked["form"]) for name in files],
        "set": settings_of(asked["settings"]),
        "user_id": asked["user_id"] or login_name(_environ()),
        **{name: asked[name] for name in ("name", "once_key") if asked[name] is not None},
        **({"no_overlap": True} if asked["no_overlap"] else {}),
    }
    if asked["resume"] and joblog:
        from .joblog import completed_by

        body["done"] = dict(completed_by(joblog))
    answer = session.client.request(
        "POST", "/batches/", body=body, query={"dry_run": dry_run or None}, patience=600
    )
    if dry_run:
        session.show(answer.data, _preview, quiet=[_line(task) for task in answer.data["tasks"]])
        return 0
    batch: Batch = answer.data
    waits = asked["wait"] or asked["follow"] or joblog or asked["report"]
    if not (waits and session.json):
        session.show(batch, _tell)
    shut_out = _hear(session)
    if not waits:
        return 0
    if shut_out:
        _refuse_to_wait(batch)
    return follow_batch(
        session,
        batch,
        live=asked["follow"],
        joblog=joblog,
        reports=asked["report"],
        form=asked["report_format"],
    )


def _hear(session: Session) -> bool:
    """Takes in what wants a person's eye, also where this command started the controller, and
    tells whether no worker lets us in. The batch is queued whatever comes of it."""
    from cloudai.core.errors import CloudaiError

    try:
        return bool(session.client.get("/health", settled=True).get("shut_out"))
    except CloudaiError:
        return False


def _refuse_to_wait(batch: Batch) -> NoReturn:
    """It might be for ever, and what is told at the end would never be."""
    from cloudai.core.errors import WorkerUnreachable

    raise WorkerUnreachable(
        f"Batch {batch['batch_id']} is queued, but no worker lets us in: not waited for it",
        hint=f"once that is mended it starts by itself; `cloudai wait {batch['batch_id']}` waits",
        batch=batch["batch_id"],
    )


def _environ() -> Any:
    import os

    return os.environ


def settings_of(given: tuple[str, ...]) -> dict[str, str]:
    """The values of ``--set``. Raises ``click.UsageError``."""
    found: dict[str, str] = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not equals or not name:
            raise click.UsageError(f"--set {one}: give NAME=VALUE.")
        found[name] = value
    return found


def _read(name: str, form: str | None) -> dict[str, str]:
    """A file as it is sent: by its whole name, so that messages and relative paths in it mean
    the same everywhere."""
    if name == "-":
        return {
            "name": "<stdin>",
            "text": _text(sys.stdin.buffer.read(), name),
            "format": form or "yaml",
        }
    from cloudai.core.formats import FORMATS, format_of

    path = Path(name)
    found = form or format_of(name)
    if found is None:
        raise click.UsageError(
            f"{name}: what is it? Its name ends in none of {', '.join(FORMATS)}; give --format."
        )
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise click.UsageError(f"{name}: {error.strerror}.") from None
    return {"name": str(path.absolute()), "text": _text(raw, name), "format": found}


def _text(raw: bytes, name: str) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise click.UsageError(f"{name}:{line}: not UTF-8.") from None


def _tell(batch: Batch) -> None:
    if not batch["submitted"]:
        say("✅ Nothing is left to do: all of it has completed, by the job log")
        return
    named = f" ({batch['name']})" if batch["name"] else ""
    many = counted_tasks(batch["submitted"])
    if batch["known"]:
        say(f"✅ Batch {batch['batch_id']}{named} was there before: the same --once-key made it;")
        say("   nothing new was queued")
        return
    say(f"✅ Batch {batch['batch_id']}{named} queued: {many}")
    if on_terminal():
        say(f"   cloudai batch status {batch['batch_id']}   tells how it stands")


def _preview(answer: dict[str, Any]) -> None:
    for task in answer["tasks"][:SHOWN]:
        say(_line(task))
        if task["after"]:
            say(f"    after {', '.join(task['after'])}")
    more = answer["size"] - SHOWN
    if more > 0:
        say(f"… and {more} more; --json has all")
    say()
    say(f"Nothing was queued (--dry-run); it would be {counted_tasks(answer['size'])}")


def _line(task: dict[str, Any]) -> str:
    index = f"[{task['array_index']}]" if task["array"] else ""
    return f"{task['name'] or task['entry']}{index}: {task['docker_run']}"
