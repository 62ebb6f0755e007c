"""``distribute``: how tasks spread over the workers, seen."""

from __future__ import annotations

import secrets
import sys
from typing import Any

import click

from .asking import as_typed
from .options import common, complete_workers
from .output import Column, StatusLine, Styled, on_terminal, print_fields, print_table, say, tell
from .session import Session
from .wording import NOTHING, amount, is_final
from .workers import STYLES, free_of

Task = dict[str, Any]
Worker = dict[str, Any]
STRATEGIES = ("spread", "load_balanced", "performance_optimized", "node_specific", "binpack")
WIDEST = 40
"""Characters of the longest bar."""


@click.group()
def distribute_command() -> None:
    """See how tasks spread over the workers; try a strategy with small tasks."""


# ---------------------------------------------------------------- test


@distribute_command.command()
@click.option(
    "--strategy",
    type=click.Choice(STRATEGIES),
    metavar="NAME",
    help=f"{', '.join(STRATEGIES[:-1])} or {STRATEGIES[-1]}.  [default: the inventory's]",
)
@click.option(
    "--tasks",
    "count",
    type=click.IntRange(1, 1000),
    default=10,
    show_default=True,
    metavar="N",
    help="So many.",
)
@click.option(
    "--node",
    "nodes",
    multiple=True,
    metavar="NODE",
    help="Only there: a worker, a pool, or label=value; may be repeated.",
    shell_complete=complete_workers,
)
@click.option("--image", default="busybox", show_default=True, help="It needs `true` and `sleep`.")
@click.option("--cpus", "req_cpu", metavar="CORES", help="Of each.  [default: 1.0]")
@click.option("--gpus", "req_gpu", metavar="GPUS", help="Of each.  [default: 0.0]")
@click.option(
    "--hold",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="SECONDS",
    help="How long each stays, so that they are there together.",
)
@click.option("--keep", is_flag=True, help="Do not forget the tasks afterwards.")
@common
@click.pass_obj
def test(session: Session, /, count: int, keep: bool, hold: int, **asked: Any) -> int:
    """Really run N small tasks, and show where they went.

    Ends with 1 if any of them failed. Ctrl-C cancels and forgets all of them.
    """
    body = {
        "docker_image": asked["image"],
        "argv": ["sleep", str(hold)] if hold else ["true"],
        "req_memory": "16m",
        "req_storage": "16m",
        "grace": 0,
        **{name: asked[name] for name in ("strategy", "req_cpu", "req_gpu") if asked[name]},
        **({"nodes": list(asked["nodes"])} if asked["nodes"] else {}),
    }
    ids: list[str] = []
    try:
        _submit(session, body, count, ids)
        done = _wait(session, ids)
    except BaseException:
        # Also where one was refused in the middle, or with Ctrl-C: nothing is left behind.
        _clear_away(session, ids)
        raise
    answer = _outcome(session, asked["strategy"], done)
    session.show(answer, lambda answer: _print_outcome(answer, keep=keep), quiet=ids)
    if not keep:
        _forget(session, ids)
    return 1 if answer["failed"] else 0


def _submit(session: Session, body: dict[str, Any], count: int, ids: list[str]) -> None:
    run = secrets.token_hex(2)
    with as_typed(session):
        for number in range(1, count + 1):
            named = {**body, "name": f"distribute-test-{run}-{number}"}
            ids.append(session.client.post("/tasks/", named)["task_id"])


def _wait(session: Session, ids: list[str]) -> list[Task]:
    """All of them once they have ended."""
    from .following import until

    done: list[Task] = []
    status = StatusLine(shown=not (session.json or session.quiet))
    patience = 2 if on_terminal(sys.stderr) else 55
    try:
        for task_id in ids:
            while not is_final(task := until(session.client, task_id, "final", timeout=patience)):
                why = f": {task['reason']}" if task["status"] == "queued" else ""
                status.show(f"{len(done)} of {len(ids)} ended; {task_id} {task['status']}{why}")
            done.append(task)
    finally:
        status.clear()
    return done


def _clear_away(session: Session, ids: list[str]) -> None:
    """Cancels and forgets what was begun."""
    from cloudai.client import task_path
    from cloudai.core.errors import CloudaiError

    from .following import finished

    if ids and not session.quiet:
        tell(f"Cancelling {len(ids)} tasks …")
    for task_id in ids:
        try:
            session.client.patch(task_path(task_id, "cancel"))
        except CloudaiError:
            continue  # it has ended
    for task_id in ids:
        finished(session.client, task_id)
    _forget(session, ids)


def _forget(session: Session, ids: list[str]) -> None:
    from cloudai.client import task_path
    from cloudai.core.errors import CloudaiError

    for task_id in ids:
        try:
            session.client.delete(task_path(task_id))
        except CloudaiError as error:
            tell(f"⚠ {task_id} stays: {error.message}")


def _outcome(session: Session, strategy: str | None, done: list[Task]) -> dict[str, Any]:
    """Where they went, workers without any too."""
    workers = session.client.get("/workers/")["workers"]
    counts = {worker["worker_id"]: 0 for worker in workers}
    for task in done:
        if task["worker_id"]:
            counts[task["worker_id"]] = counts.get(task["worker_id"], 0) + 1
    policy = session.client.get("/scheduler/")["policy"]
    return {
        "strategy": strategy or policy["strategy"],
        "workers": counts,
        "failed": sum(task["status"] != "completed" for task in done),
        "tasks": done,
    }


def _print_outcome(answer: dict[str, Any], *, keep: bool) -> None:
    counts, tasks = answer["workers"], answer["tasks"]
    most = max([*counts.values(), 1])
    heads = [Column("WORKER"), Column("TASKS", right=True), Column("")]
    rows: list[list[str | Styled]] = [
        [worker, str(count), Styled("█" * max(bool(count), WIDEST * count // most), "cyan")]
        for worker, count in counts.items()
    ]
    print_table(heads, rows)
    say()
    for task in tasks:
        if task["status"] != "completed":
            say(f"  {task['task_id']} {task['status']}: {task['reason']}")
    strategy, total, failed = answer["strategy"], len(tasks), answer["failed"]
    kept = "kept" if keep else "forgotten again"
    if failed:
        say(f"❌ {failed} of {total} tasks by {strategy} failed; all are {kept}")
    else:
        say(f"✅ {total} tasks by {strategy} completed; all are {kept}")


# ---------------------------------------------------------------- status


@distribute_command.command()
@common
@click.pass_obj
def status(session: Session) -> int:
    """Show what each worker has, its load and what is free; the queue; who has had how much."""
    workers = session.client.get("/workers/")["workers"]
    answer = {"workers": workers, "scheduler": session.client.get("/scheduler/")}
    session.show(answer, _print_status, quiet=[worker["worker_id"] for worker in workers])
    return 0


def _print_status(answer: dict[str, Any]) -> None:
    scheduler = answer["scheduler"]
    counts = scheduler["tasks"]
    there = [f"{counts[state]} {state}" for state in ("queued", "starting", "running", "stopping")]
    print_fields([("Strategy", scheduler["policy"]["strategy"]), ("Tasks", ", ".join(there))])
    say()
    print_table(
        [
            Column("WORKER"),
            Column("STATE"),
            Column("TASKS", right=True),
            Column("LOAD", right=True),
            Column("FREE CPU"),
            Column("FREE GPU"),
        ],
        [_worker_row(worker) for worker in answer["workers"]],
    )
    if scheduler["users"]:
        say()
        _print_users(scheduler["users"])


def _worker_row(worker: Worker) -> list[str | Styled]:
    gpus = worker["gpus"] or []
    idle = {"total": len(gpus), "free": sum(gpu["use"] == "free" for gpu in gpus)}
    return [
        worker["worker_id"],
        Styled(worker["state"], STYLES.get(worker["state"], "")),
        NOTHING if worker["tasks"] is None else str(worker["tasks"]),
        NOTHING if worker["load"] is None else amount(worker["load"], 2),
        _free(worker["cpus"]),
        _free(idle) if gpus else NOTHING,
    ]


def _free(pair: dict[str, Any] | None) -> str:
    """``12/16``, on a terminal with a bar of what is free."""
    text = free_of(pair)
    if not pair or not pair.get("total") or not on_terminal():
        return text
    full = round(10 * max(0.0, pair["free"]) / pair["total"])
    return f"{'█' * full}{'░' * (10 - full)} {text}"


def _print_users(users: list[dict[str, Any]]) -> None:
    heads = [
        Column("USER"),
        Column("WEIGHT", right=True),
        Column("HAD H", right=True),
        Column("WAITING", right=True),
        Column("TASKS", right=True),
        Column("CPU", right=True),
        Column("GPU", right=True),
    ]
    rows = [
        [
            one["user_id"],
            amount(one["weight"], 2),
            amount(one["had"], 2),
            str(one["waiting"]),
            str(one["tasks"]),
            amount(one["cpus"]),
            amount(one["gpus"], 2),
        ]
        for one in users
    ]
    print_table(heads, rows)
