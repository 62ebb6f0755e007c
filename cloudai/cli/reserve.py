"""``reserve``, ``reservations``, ``unreserve``, and seed 004's spellings of the same."""

from __future__ import annotations

import os
from typing import Any

import click

from .asking import as_typed
from .options import answers_in_time, common, complete_workers
from .output import Column, on_terminal, print_error, print_json, print_table, say
from .session import Session
from .wording import amount, local

Reservation = dict[str, Any]
PARTS = (
    ("req_cpu", "CPUs", "CPU"),
    ("req_memory", "GB memory", "GB memory"),
    ("req_storage", "GB disk", "GB disk"),
    ("req_gpu", "GPUs", "GPU"),
)
FLAGS = {
    "worker_id": "--worker",
    "req_cpu": "--cpus",
    "req_memory": "--memory",
    "req_storage": "--storage",
    "req_gpu": "--gpus",
    "user_id": "--user",
    "priority": "--priority",
    "for": "--for",
    "note": "--note",
}
OF_SEED_004 = {"worker_id": "--node", "priority": "--priority", "for": "--for"}
TYPES = {"cpu": "req_cpu", "memory": "req_memory", "storage": "req_storage", "gpu": "req_gpu"}


@answers_in_time
def complete_reservations(
    ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[str]:
    """Their ids."""
    session = ctx.find_object(Session) or Session()
    found = session.connect(start=False, patience=0.2).get("/reservations/")["reservations"]
    ids = [one["reservation_id"] for one in found]
    return [one for one in ids if one.startswith(incomplete)]


# ---------------------------------------------------------------- reserve


@click.command()
@click.option(
    "--worker",
    "worker_id",
    metavar="ID",
    required=True,
    help="A part of this worker.",
    shell_complete=complete_workers,
)
@click.option("--cpus", "req_cpu", metavar="CORES", help="So many cores of it.")
@click.option("--memory", "req_memory", metavar="GB", help="So much memory: 4, 4.0 or 4g.")
@click.option("--storage", "req_storage", metavar="GB", help="So much disk.")
@click.option("--gpus", "req_gpu", metavar="GPUS", help="So many GPUs, or a share of one.")
@click.option(
    "--priority",
    metavar="LEVEL",
    help="For tasks of that priority and higher: low, normal, high, urgent, or 0 to 100.",
)
@click.option(
    "--for", "for_", metavar="TIME", help="Until then: 90m, 4h.  [default: until unreserve]"
)
@click.option(
    "--user",
    "user_id",
    metavar="USER",
    help="For tasks of USER.  [default: yours; with --priority everybody's]",
)
@click.option("--note", metavar="TEXT", help="What it is for.")
@common
@click.pass_obj
def reserve_command(session: Session, /, for_: str | None, **asked: Any) -> int:
    """Keep a part of a worker for somebody's tasks.

    What of it lies idle is lent to preemptible tasks, which give it back when its owner's task
    comes. Tasks that run there already go on.

    \b
      cloudai reserve --worker gpu1 --gpus 2 --for 4h
      cloudai reserve --worker gpu1 --cpus 2 --priority high --user ann
    """
    if asked["user_id"] is None and asked["priority"] is None:
        asked["user_id"] = os.environ.get("CLOUDAI_USER") or None
    return _reserve(session, {**asked, "for": for_}, FLAGS)


def _reserve(session: Session, asked: dict[str, Any], flags: dict[str, str]) -> int:
    body = {name: value for name, value in asked.items() if value is not None}
    with as_typed(session, flags):
        made = session.client.post("/reservations/", body)
    session.show(made, _tell, quiet=[made["reservation_id"]])
    return 0


def _tell(one: Reservation) -> None:
    until = f"until {local(one['until'])}" if one["until"] else "until it is given back"
    say(f"✅ {one['reservation_id']} keeps {what(one)} of {one['worker_id']}")
    say(f"   for {whose(one)}, {until}")


def what(one: Reservation) -> str:
    """``2 CPUs, 1 GPU``."""
    parts = []
    for field, several, single in PARTS:
        if one[field]:
            parts.append(f"{amount(one[field], 3)} {single if one[field] == 1 else several}")
    return ", ".join(parts)


def whose(one: Reservation) -> str:
    """``ann``, ``priority 75 and higher``, or both."""
    tasks = f"priority {one['priority']} and higher" if one["priority"] else ""
    return ", ".join(filter(None, (one["user_id"], tasks))) or "everybody"


# ---------------------------------------------------------------- reservations


@click.command()
@click.option("--worker", metavar="ID", help="Only there.", shell_complete=complete_workers)
@common
@click.pass_obj
def reservations_command(session: Session, worker: str | None) -> int:
    """List what is kept for whom, until when, and how much of it is used and lent."""
    return _list(session, worker)


def _list(session: Session, worker: str | None) -> int:
    answer = session.client.get("/reservations/", worker=worker)
    ids = [one["reservation_id"] for one in answer["reservations"]]
    session.show(answer, _print, quiet=ids)
    return 0


def _print(answer: dict[str, Any]) -> None:
    if not answer["reservations"] and on_terminal():
        say("Nothing is reserved.")
        return
    heads = [
        Column("RESERVATION"),
        Column("WORKER"),
        Column("WHOSE", flexible=True),
        Column("UNTIL"),
        Column("WHAT", flexible=True),
    ]
    rows = [
        [
            one["reservation_id"],
            one["worker_id"],
            whose(one),
            local(one["until"]),
            standing(one) + (f"; {one['note']}" if one["note"] else ""),
        ]
        for one in answer["reservations"]
    ]
    print_table(heads, rows)


def standing(one: Reservation) -> str:
    """``2 CPUs (1 used, 1 lent), 1 GPU (idle)``."""
    parts = []
    for field, several, single in PARTS:
        if not one[field]:
            continue
        used, lent = one["used"][field], one["lent"][field]
        told = [f"{amount(used, 2)} used"] if used else []
        told += [f"{amount(lent, 2)} lent"] if lent else []
        name = single if one[field] == 1 else several
        parts.append(f"{amount(one[field], 3)} {name} ({', '.join(told) or 'idle'})")
    return ", ".join(parts)


# ---------------------------------------------------------------- unreserve


@click.command()
@click.argument(
    "reservations", nargs=-1, required=True, metavar="ID...", shell_complete=complete_reservations
)
@common
@click.pass_obj
def unreserve_command(session: Session, reservations: tuple[str, ...]) -> int:
    """Give reservations back: what they kept is everybody's again."""
    from urllib.parse import quote

    from cloudai.core.errors import CloudaiError

    done, failed, code = [], [], 0
    for one in reservations:
        try:
            session.client.delete(f"/reservations/{quote(one, safe='')}")
        except CloudaiError as error:
            if not session.json:
                print_error(error, as_json=False)
            failed.append({"reservation": one, **error.as_json()})
            code = max(code, error.exit_code)
            continue
        done.append(one)
        if not session.json:
            say(one if session.quiet else f"✅ {one} given back")
    if session.json:
        print_json({"removed": done, "errors": failed})
    return code


# ---------------------------------------------------------------- seed 004's spellings


@click.group()
def resource_sharing_command() -> None:
    """Share workers: `reservations` and `reserve` by other names."""


@resource_sharing_command.command()
@click.option("--node", metavar="ID", help="Only there.", shell_complete=complete_workers)
@common
@click.pass_obj
def status(session: Session, node: str | None) -> int:
    """List what is kept for whom, as `reservations` does."""
    return _list(session, node)


@resource_sharing_command.command()
@click.option(
    "--node", metavar="ID", required=True, help="Of this worker.", shell_complete=complete_workers
)
@click.option(
    "--type",
    "kind",
    type=click.Choice(list(TYPES)),
    required=True,
    help="What of it.",
)
@click.option("--amount", "much", metavar="N", required=True, help="So many, or so many GB.")
@click.option(
    "--priority", metavar="LEVEL", help="For tasks of that priority and higher, of everybody."
)
@click.option("--for", "for_", metavar="TIME", help="Until then.  [default: until unreserve]")
@click.option("--user", "user_id", metavar="USER", help="For tasks of USER.")
@common
@click.pass_obj
def request(
    session: Session,
    node: str,
    kind: str,
    much: str,
    priority: str | None,
    for_: str | None,
    user_id: str | None,
) -> int:
    """Keep a part of a worker, as `reserve` does.

    \b
      cloudai resource-sharing request --node gpu1 --type cpu --amount 2.0 --priority high
    """
    if user_id is None and priority is None:
        user_id = os.environ.get("CLOUDAI_USER") or None
    asked = {"worker_id": node, TYPES[kind]: much, "priority": priority, "for": for_}
    flags = {**OF_SEED_004, TYPES[kind]: "--amount", "user_id": "--user"}
    return _reserve(session, {**asked, "user_id": user_id}, flags)
