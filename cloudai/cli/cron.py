"""``cron``: batches that are submitted again and again, at set times, by the controller."""

from __future__ import annotations

import os
import sys
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from .asking import as_typed, login_name
from .options import answers_in_time, common
from .output import (
    Column,
    Styled,
    on_terminal,
    print_error,
    print_fields,
    print_json,
    print_table,
    say,
)
from .session import Session
from .wording import counted_tasks, local, moment

Schedule = dict[str, Any]
FLAGS = {
    "line": "LINE",
    "files": "FILE",
    "set": "--set",
    "id": "--name",
    "zone": "--zone",
    "missed": "--missed",
    "overlap": "--overlap",
    "user_id": "--user",
}


@answers_in_time
def complete_schedules(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Their ids."""
    session = ctx.find_object(Session) or Session()
    found = session.connect(start=False, patience=0.2).get("/schedules/")["schedules"]
    ids = [one["schedule_id"] for one in found]
    return [one for one in ids if one.startswith(incomplete)]


@click.group()
def cron_command() -> None:
    """Submit batch files again and again, at the times of a cron line.

    The controller keeps the schedules, and stays while there are any. After a reboot it is
    there again once any command needs it, or: @reboot cloudai controller start, in your crontab.

    \b
      cloudai cron add "0 2 * * *" nightly.yaml --name nightly --zone Europe/Berlin
      cloudai cron add @hourly sweep.yaml --set epochs=5 --missed once
      cloudai cron list
    """


# ---------------------------------------------------------------- add


@cron_command.command()
@click.argument("line", metavar="LINE")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--set", "settings", multiple=True, metavar="NAME=VALUE", help="A value for expressions."
)
@click.option("--name", "id_", metavar="ID", help="What to call it by.  [default: a new id]")
@click.option(
    "--zone",
    metavar="ZONE",
    help="The time zone that LINE means, such as Europe/Berlin.  [default: this machine's]",
)
@click.option(
    "--missed",
    type=click.Choice(["skip", "once"]),
    help="Times at which no controller ran: pass them over, or run once for all of them.  "
    "[default: skip]",
)
@click.option("--overlap", is_flag=True, help="Run also while its last batch has not ended.")
@click.option(
    "--user",
    "user_id",
    metavar="USER",
    help="Whose tasks they are.  [env: CLOUDAI_USER; default: your login name]",
)
@common
@click.pass_obj
def add(session: Session, /, line: str, files: tuple[str, ...], overlap: bool, **asked: Any) -> int:
    """Submit FILES as one batch at the times of LINE, from now on.

    LINE is minute, hour, day of the month, month and day of the week, as in a crontab, in
    quotes; or @hourly, @daily, @weekly, @monthly, @yearly. The files are checked now, and read
    anew each time; in them, {{ date }} and {{ time }} are those of the time that is due.
    """
    from .batch import settings_of

    body = {
        "line": line,
        "files": [str(Path(name).absolute()) for name in files],
        "set": settings_of(asked["settings"]),
        "id": asked["id_"],
        "zone": asked["zone"],
        "missed": asked["missed"],
        "overlap": overlap or None,
        "user_id": asked["user_id"] or login_name(os.environ),
    }
    if "-" in files:
        raise click.UsageError("A schedule reads its files again each time: give files, not -.")
    with as_typed(session, FLAGS):
        made = session.client.request("POST", "/schedules/", body=_given(body), patience=600).data
    session.show(made, _tell_added, quiet=[made["schedule_id"]])
    return 0


def _given(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if value is not None}


def _tell_added(one: Schedule) -> None:
    say(f"✅ {one['schedule_id']}: {counted_tasks(one['size'])} at {one['line']} ({one['zone']})")
    for at in one["next"]:
        say(f"   next: {in_zone(at, one['zone'])}")
    say("   The controller stays for it. To have it back after a reboot, put this into your")
    say("   crontab (crontab -e):")
    say(f"   @reboot {_own_path()} controller start >/dev/null")


def _own_path() -> str:
    """This command, by its whole path: cron's own PATH is short."""
    import shlex
    import shutil

    found = shutil.which(sys.argv[0]) or sys.argv[0]
    return shlex.quote(os.path.abspath(found)) if found.endswith("cloudai") else "cloudai"


def in_zone(text: str | None, zone: str) -> str:
    """An API time as the clocks there show it: ``Sat 2026-01-31 02:00``."""
    from zoneinfo import ZoneInfo

    at = moment(text)
    if at is None:
        return "-"
    try:
        there: datetime = at.astimezone(ZoneInfo(zone))
    except (LookupError, ValueError, OSError):
        return f"{at:%a %Y-%m-%d %H:%M} UTC"
    return f"{there:%a %Y-%m-%d %H:%M}"


# ---------------------------------------------------------------- list, show


@cron_command.command("list")
@common
@click.pass_obj
def list_(session: Session) -> int:
    """List the schedules: when each is due, and what came of the last time."""
    answer = session.client.get("/schedules/")
    ids = [one["schedule_id"] for one in answer["schedules"]]
    session.show(answer, _print, quiet=ids)
    return 0


def _print(answer: dict[str, Any]) -> None:
    if not answer["schedules"] and on_terminal():
        say('There are no schedules. `cloudai cron add "0 2 * * *" FILE` makes one.')
        return
    heads = [
        Column("SCHEDULE"),
        Column("LINE", flexible=True),
        Column("NEXT"),
        Column("LAST"),
        Column("OUTCOME", flexible=True),
    ]
    rows = [
        [
            one["schedule_id"],
            one["line"],
            local(one["due_at"]),
            local(one["last_at"]),
            Styled(outcome(one), "red" if one["last_outcome"].startswith("failed") else ""),
        ]
        for one in answer["schedules"]
    ]
    print_table(heads, rows)


def outcome(one: Schedule) -> str:
    """What came of the last time: ``submitted: batch-…``."""
    words: str = one["last_outcome"]
    return f"{words}: {one['last_batch']}" if words.startswith("submitted") else words or "-"


@cron_command.command()
@click.argument("schedule", metavar="ID", shell_complete=complete_schedules)
@common
@click.pass_obj
def show(session: Session, schedule: str) -> int:
    """Tell all of one schedule, with its next times."""
    one = session.client.get(_path(schedule))
    session.show(one, _print_one, quiet=[one["schedule_id"]])
    return 0


def _print_one(one: Schedule) -> None:
    settings = ", ".join(f"{name}={value}" for name, value in one["set"].items())
    print_fields(
        [
            ("Schedule", one["schedule_id"]),
            ("Line", f"{one['line']} ({one['zone']})"),
            *(("Next" if not at else "", in_zone(time, one["zone"])) for at, time in _next(one)),
            *(("File", name) for name in one["files"]),
            ("Set", settings),
            ("User", one["user_id"]),
            ("Missed", "run once for all" if one["missed"] == "once" else "skip"),
            ("Overlap", "yes" if one["overlap"] else "no"),
            ("Last", in_zone(one["last_at"], one["zone"]) if one["last_at"] else None),
            ("Outcome", outcome(one) if one["last_outcome"] else None),
        ]
    )


def _next(one: Schedule) -> Any:
    return enumerate(one["next"])


def _path(schedule: str, verb: str = "") -> str:
    return f"/schedules/{quote(schedule, safe='')}" + (f"/{verb}" if verb else "")


# ---------------------------------------------------------------- rm, run


@cron_command.command()
@click.argument(
    "schedules", nargs=-1, required=True, metavar="ID...", shell_complete=complete_schedules
)
@common
@click.pass_obj
def rm(session: Session, schedules: tuple[str, ...]) -> int:
    """Remove schedules. The batches that they made go on."""
    from cloudai.core.errors import CloudaiError

    done, failed, code = [], [], 0
    for one in schedules:
        try:
            session.client.delete(_path(one))
        except CloudaiError as error:
            if not session.json:
                print_error(error, as_json=False)
            failed.append({"schedule": one, **error.as_json()})
            code = max(code, error.exit_code)
            continue
        done.append(one)
        if not session.json:
            say(one if session.quiet else f"✅ {one} removed")
    if session.json:
        print_json({"removed": done, "errors": failed})
    return code


@cron_command.command()
@click.argument("schedule", metavar="ID", shell_complete=complete_schedules)
@click.option("--overlap", is_flag=True, help="Also while its last batch has not ended.")
@common
@click.pass_obj
def run(session: Session, schedule: str, overlap: bool) -> int:
    """Submit a schedule's batch now. Its times stay as they are."""
    body = {"overlap": True} if overlap else {}
    batch = session.client.request("POST", _path(schedule, "run"), body=body, patience=600).data
    many = counted_tasks(batch["submitted"])
    session.show(
        batch,
        lambda batch: say(f"✅ Batch {batch['batch_id']} queued: {many}"),
        quiet=[batch["batch_id"]],
    )
    return 0
