"""``doctor``: every check, with its mend."""

from __future__ import annotations

import threading
from typing import Any

import click

from .options import common, complete_workers
from .output import print_json, say
from .session import Session
from .terminal import clean

Finding = dict[str, Any]
AT_ONCE = 8
"""Workers asked at the same time."""


@click.command()
@click.argument("worker", metavar="[ID]", required=False, shell_complete=complete_workers)
@common
@click.pass_obj
def doctor_command(session: Session, worker: str | None) -> int:
    """Check one worker, or this side and all workers: ✓ fine, ⚠ works all the same, ✗ broken.

    Ends with 1 if anything is broken.
    """
    from cloudai.client import worker_path

    if worker is not None:
        answer = session.client.get(worker_path(worker, "doctor"))
        session.show(answer, lambda _: print_findings(answer["findings"]), quiet=_broken([answer]))
        return 1 if _broken([answer]) else 0
    here = session.client.get("/doctor")
    ids = [one["worker_id"] for one in session.client.get("/workers/")["workers"]]
    answers = _ask_all(session, ids)
    broken = _broken([here, *answers.values()])
    if session.json:
        print_json({**here, "workers": answers})
    elif session.quiet:
        for line in broken:
            say(line)
    else:
        _print_all(here, answers)
    return 1 if broken else 0


def _ask_all(session: Session, ids: list[str]) -> dict[str, Any]:
    """The doctor's answer, or ``{"error": …}``, by worker."""
    from cloudai.client import worker_path
    from cloudai.core.errors import CloudaiError

    client, slots = session.client, threading.Semaphore(AT_ONCE)
    answers: dict[str, Any] = dict.fromkeys(ids)

    def ask(worker: str) -> None:
        with slots:
            try:
                answers[worker] = client.get(worker_path(worker, "doctor"))
            except CloudaiError as error:
                answers[worker] = {"error": error.as_json()}

    # Daemons, so that Ctrl-C need not wait for a worker that does not answer.
    threads = [threading.Thread(target=ask, args=(one,), daemon=True) for one in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def _findings(answer: dict[str, Any]) -> list[Finding]:
    if "error" not in answer:
        found: list[Finding] = answer["findings"]
        return found
    error = answer["error"]
    return [
        {
            "check": "reachable",
            "ok": False,
            "warning": False,
            "found": error["message"],
            "mend": error["hint"],
        }
    ]


def _broken(answers: list[dict[str, Any]]) -> list[str]:
    return [
        f"{one['check']}: {one['found']}"
        for answer in answers
        for one in _findings(answer)
        if not one["ok"] and not one["warning"]
    ]


def _print_all(here: dict[str, Any], answers: dict[str, Any]) -> None:
    say("This side")
    print_findings(here["findings"])
    for worker, answer in answers.items():
        say()
        say(f"Worker {clean(worker)}")
        print_findings(_findings(answer))


def print_findings(findings: list[Finding]) -> None:
    """A line each, and under it what mends it."""
    for one in findings:
        sign = "⚠" if one["warning"] else "✓" if one["ok"] else "✗"
        say(f"  {sign} {clean(one['check'])}: {clean(one['found'])}")
        if one["mend"] and (one["warning"] or not one["ok"]):
            say(f"      → {clean(one['mend'])}")
