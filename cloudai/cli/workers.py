"""``workers``, ``drain`` and ``resume``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from .gpu_map import GpuMap
from .options import common, worker_argument
from .output import (
    Column,
    Styled,
    on_terminal,
    plain_table,
    print_json,
    print_rich,
    rich_console,
    say,
)
from .reserve import what, whose
from .session import Session
from .terminal import clean
from .wording import NOTHING, amount, local, since

if TYPE_CHECKING:
    from rich.console import Group

Worker = dict[str, Any]
STYLES = {
    "active": "green",
    "draining": "yellow",
    "set_aside": "yellow",
    "unreachable": "red",
    "stopped": "red",
}
REDRAW_EVERY = 2.0
"""Seconds."""


@click.command()
@click.option("--watch", is_flag=True, help="Stay and redraw; q or Ctrl-C leaves.")
@click.option("--refresh", is_flag=True, help="Look at every worker again first.")
@common
@click.pass_obj
def workers_command(session: Session, watch: bool, refresh: bool) -> int:
    """List the workers: state, what is free of what there is, GPUs, tasks.

    GPUs are drawn one glyph each, in the order of their indices: . free, a capital letter a
    user's whole GPU, a small one a share of it, x used outside cloudai, ! broken.
    """
    if watch:
        return _watch(session, refresh=refresh)
    answer = session.client.get("/workers/", refresh=refresh or None)
    session.show(
        answer,
        lambda answer: _print_workers(answer["workers"]),
        quiet=[worker["worker_id"] for worker in answer["workers"]],
    )
    return 0


def _print_workers(workers: list[Worker]) -> None:
    if on_terminal():
        print_rich(_drawing(workers))
        return
    glyphs = GpuMap()
    heads = [*_heads(), Column("NOTE")]
    rows = [[*_row(one, glyphs, one["state"]), _note(one) or NOTHING] for one in workers]
    for line in plain_table(heads, rows):
        print(line)
    if any(worker["gpus"] for worker in workers):
        print(f"# {clean(glyphs.legend())}")


def _heads() -> list[Column]:
    return [
        Column("WORKER"),
        Column("STATE", flexible=True),
        Column("CPU", right=True),
        Column("MEMORY GB", right=True),
        Column("DISK GB", right=True),
        Column("GPU", flexible=True),
        Column("TASKS", right=True),
    ]


def _row(worker: Worker, glyphs: GpuMap, state: str) -> list[str | Styled]:
    return [
        worker["worker_id"],
        Styled(state, STYLES.get(worker["state"], "")),
        free_of(worker["cpus"]),
        free_of(worker["memory"]),
        free_of(worker["storage"], digits=0),
        glyphs.draw(worker) or NOTHING,
        NOTHING if worker["tasks"] is None else str(worker["tasks"]),
    ]


def free_of(pair: dict[str, Any] | None, digits: int = 1) -> str:
    """``12/16``: free of all; ``-`` before the first sight."""
    if not pair or pair.get("total") is None:
        return NOTHING
    return f"{amount(pair.get('free'), digits)}/{amount(pair['total'], digits)}"


def state_of(worker: Worker) -> str:
    """Its state, and since when where it cannot be reached."""
    return f"{worker['state']} {_away(worker)}".strip()


def _away(worker: Worker) -> str:
    there = worker["state"] in ("active", "draining", "set_aside")
    return "" if there else since(worker["since"])


def _note(worker: Worker) -> str:
    """Why it stands as it does, in a line."""
    told = ": ".join(filter(None, (_away(worker), worker["reason"], worker.get("gpu_trouble"))))
    return "; ".join(filter(None, (told, *_kept(worker))))


def _kept(worker: Worker) -> list[str]:
    """What of it is reserved, a line each."""
    return [f"{what(one)} kept for {whose(one)}{_until(one)}" for one in worker.get("kept", ())]


def _until(reservation: dict[str, Any]) -> str:
    return f" until {local(reservation['until'])}" if reservation["until"] else ""


def _drawing(workers: list[Worker]) -> Group:
    from rich.console import Group
    from rich.text import Text

    from .output import rich_table

    if not workers:
        return Group(Text("No workers yet: `cloudai register ID HOST` adds one."))
    glyphs = GpuMap()
    table = rich_table(_heads(), [_row(one, glyphs, state_of(one)) for one in workers])
    below = [
        f"{worker['worker_id']}: {why}"
        for worker in workers
        for why in (worker["reason"], worker.get("gpu_trouble"), *_kept(worker))
        if why
    ]
    if any(worker["gpus"] for worker in workers):
        below.append(glyphs.legend())
    return Group(table, *(Text(clean(line), style="dim") for line in below))


def _watch(session: Session, *, refresh: bool) -> int:
    """Redraws in place until q or Ctrl-C; with ``--json`` a document a line, for ever."""
    import time

    while session.json:
        print_json(session.client.get("/workers/", refresh=refresh or None), line=True)
        sys.stdout.flush()
        time.sleep(REDRAW_EVERY)
    from .keys import Keys, can_read_keys

    if not can_read_keys():
        raise click.UsageError("--watch needs a terminal; with --json it prints a line each time.")
    from rich.live import Live

    with Keys() as keys, Live(console=rich_console(), auto_refresh=False, transient=False) as live:
        while True:
            answer = session.client.get("/workers/", refresh=refresh or None)
            live.update(_drawing(answer["workers"]), refresh=True)
            if keys.wait(timeout=REDRAW_EVERY) and keys.read() in (b"q", b"Q", b"\x1b", b""):
                return 0


@click.command()
@worker_argument
@common
@click.pass_obj
def drain_command(session: Session, worker: str) -> int:
    """Give a worker no new tasks; those it has go on."""
    return _set(session, worker, "drain", "is draining: it gets no new tasks")


@click.command()
@worker_argument
@common
@click.pass_obj
def resume_command(session: Session, worker: str) -> int:
    """Give a drained worker tasks again."""
    return _set(session, worker, "resume", "takes tasks again")


def _set(session: Session, worker: str, verb: str, words: str) -> int:
    from cloudai.client import worker_path

    answer = session.client.patch(worker_path(worker, verb))
    worker_id = answer["worker_id"]
    session.show(answer, lambda _: say(f"✅ Worker {worker_id} {words}"), quiet=[worker_id])
    return 0
