"""``why``: everything that keeps a task waiting."""

from __future__ import annotations

from typing import Any

import click

from .options import common, task_argument
from .output import folded, print_fields, say, say_in
from .session import Session
from .wording import local, moment, since

Answer = dict[str, Any]
NAMED = 8
"""So many workers with the same reason are named."""
STYLES = {
    "unreachable": "red",
    "stopped": "red",
    "draining": "yellow",
    "set aside": "yellow",
    "not reached yet": "yellow",
    "kept for": "cyan",
    "what is free there is reserved": "cyan",
}
"""How a reason begins, and how it looks: red is away, yellow is closed, cyan is for others."""


@click.command()
@task_argument
@common
@click.pass_obj
def why_command(session: Session, task: str) -> int:
    """Tell why a task waits: for each worker the reason, its turn, when it can start.

    And what would make it fit. Of a task that does not wait it tells how it stands.
    """
    from cloudai.client import task_path

    answer = session.client.get(task_path(task, "why"))
    session.show(answer, print_why, quiet=answer["fits"])
    return 0


def print_why(answer: Answer) -> None:
    """The whole story of one task's waiting."""
    if not answer["waits"]:
        say(f"{answer['task_id']} does not wait: {_standing(answer)}")
        return
    print_fields(
        [
            ("Task", answer["task_id"]),
            ("Asks for", answer["asks"]),
            ("Waits for", answer["held"]),
            ("Place", _place(answer)),
            ("Turn", answer["turn"]),
        ]
    )
    words, style = _start(answer)
    say_in(style, folded("Start".ljust(11), words))
    if answer["reasons"]:
        say("Workers")
    for one in answer["reasons"]:
        say_in(_style(one["reason"]), folded("  ", f"{_names(one['workers'])}: {one['reason']}"))
    if answer["would_fit"]:
        say("What would help")
    for advice in answer["would_fit"]:
        say(folded("  ", advice))


def _place(answer: Answer) -> str | None:
    """How many go before it; nothing for a task that is not in line yet."""
    if not answer["turn"]:
        return None
    if not answer["ahead"]:
        return "first of all that wait"
    many = "1 goes" if answer["ahead"] == 1 else f"{answer['ahead']} go"
    first = answer["next_task"]
    whose = f" of {answer['next_user']}" if answer["next_user"] else ""
    return f"{many} before it, first {first}{whose}" if first else f"{many} before it"


def _start(answer: Answer) -> tuple[str, str]:
    """When it can start, as far as can be told, and its colour."""
    if answer["fits"]:
        return f"fits on {_names(answer['fits'])}: starts in the next pass", "green"
    if answer["start"]:
        at = f"{local(answer['start'])} on {answer['start_on']}"
        return f"{at}, by the time limits of what runs there; at the latest", ""
    if answer["held"] or answer["reasons"]:
        return "not known: no time limit tells when", ""
    return "the next pass of the scheduler takes it up", "green"


def _standing(answer: Answer) -> str:
    status, worker = answer["status"], answer["worker_id"]
    there = f" on {worker}" if worker else ""
    if status == "running":
        return f"running{there} {since(answer['started_at'])}".rstrip()
    if moment(answer["completed_at"]):
        why = answer["reason"] if answer["reason"] != status else ""
        told = f"{status}{there} at {local(answer['completed_at'])}"
        return f"{told}: {why}" if why else told
    return f"{status}{there}"


def _style(reason: str) -> str:
    return next((style for begin, style in STYLES.items() if reason.startswith(begin)), "")


def _names(workers: list[str]) -> str:
    if len(workers) <= NAMED:
        return ", ".join(workers)
    return f"{', '.join(workers[:3])} and {len(workers) - 3} more"
