"""``stats``: one worker in depth."""

from __future__ import annotations

from typing import Any

import click

from .options import common, worker_argument
from .output import Column, Styled, print_fields, print_table, say
from .reserve import standing, whose
from .session import Session
from .terminal import clean
from .wording import NOTHING, age, amount, local
from .workers import state_of

Worker = dict[str, Any]
_LIMITS = {
    "quota": "enforced by its storage driver",
    "watch": "watched by cloudai: a task over its share is stopped",
}
_USES = {"free": "green", "outside": "yellow", "broken": "red"}


@click.command()
@worker_argument
@common
@click.pass_obj
def stats_command(session: Session, worker: str) -> int:
    """Show one worker in depth: what is reserved and by whom, its load, each GPU with its
    processes, also those started outside cloudai."""
    from cloudai.client import worker_path

    answer = session.client.get(worker_path(worker))
    session.show(answer, _print_stats, quiet=[answer["worker_id"]])
    return 0


def _print_stats(worker: Worker) -> None:
    print_fields(_fields(worker))
    if worker["gpus"]:
        say()
        _print_gpus(worker)
    if worker.get("reservations"):
        say()
        _print_reservations(worker)


def _fields(worker: Worker) -> list[tuple[str, object]]:
    engine = worker.get("engine") or {}
    system = [worker.get("os"), worker.get("kernel")]
    labels = " ".join(f"{name}={value}" for name, value in (worker["labels"] or {}).items())
    return [
        ("Worker", worker["worker_id"]),
        ("State", state_of(worker)),
        ("Why", worker["reason"]),
        ("Host", worker["host"]),
        ("Login", worker.get("login")),
        ("Labels", labels),
        ("System", ", ".join(filter(None, system))),
        ("Engine", engine.get("version")),
        ("CPU", _cores(worker)),
        ("Memory", _gigabytes(worker["memory"])),
        ("Disk", _gigabytes(worker["storage"])),
        ("Disk limit", _LIMITS.get(engine.get("storage_limit", ""), engine.get("storage_limit"))),
        ("GPU runtime", engine.get("gpu_runtime") or "none"),
        ("GPU trouble", worker.get("gpu_trouble")),
        ("Load", None if worker["load"] is None else amount(worker["load"], 2)),
        ("Clock", _skew(worker.get("clock_skew"))),
        ("Watched by", {"api": "its Engine API", "cli": "its docker CLI"}.get(_watching(worker))),
        ("Tasks", worker["tasks"]),
        *[("Kept", _kept(one)) for one in worker.get("kept", ())],
        ("Seen", local(worker["seen_at"]) if worker["seen_at"] else "never"),
    ]


def _kept(one: dict[str, Any]) -> str:
    """One reservation there."""
    until = f"until {local(one['until'])}" if one["until"] else "until it is given back"
    told = f"{standing(one)} for {whose(one)} {until}"
    return f"{told}: {one['note']}" if one["note"] else told


def _watching(worker: Worker) -> str:
    return str(worker.get("watching"))


def _cores(worker: Worker) -> str | None:
    cpus = worker["cpus"]
    if not cpus or cpus.get("total") is None:
        return None
    return (
        f"{amount(cpus['free'])} of {amount(cpus['total'])} cores free,"
        f" {amount(cpus['reserved'])} reserved"
    )


def _gigabytes(amounts: dict[str, Any] | None) -> str | None:
    if not amounts or amounts.get("total") is None:
        return None
    text = (
        f"{amount(amounts['free'])} of {amount(amounts['total'])} GB free,"
        f" {amount(amounts['reserved'])} reserved"
    )
    if amounts.get("available") is not None:
        text += f"; {amount(amounts['available'])} available with everything that runs there"
    return text


def _skew(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    if abs(seconds) < 1:
        return "agrees with ours"
    return f"{amount(abs(seconds))} s {'ahead of' if seconds > 0 else 'behind'} ours"


def _print_gpus(worker: Worker) -> None:
    heads = [
        Column("GPU", right=True),
        Column("USE"),
        Column("UTIL", right=True),
        Column("MEMORY GB", right=True),
        Column("TEMP", right=True),
        Column("HELD", right=True),
        Column("MODEL", flexible=True),
    ]
    gpus = sorted(worker["gpus"], key=lambda gpu: (gpu["index"], gpu["uuid"]))
    rows: list[list[str | Styled]] = [
        [
            str(gpu["index"]),
            Styled(gpu["use"], _USES.get(gpu["use"], "")),
            _with_unit(gpu["utilisation"], "%"),
            f"{amount(gpu['memory_used'])}/{amount(gpu['memory'])}",
            _with_unit(gpu["temperature"], "C"),
            amount(gpu["held"], 2) if gpu["held"] else NOTHING,
            gpu["model"] + (" (MIG)" if gpu["mig_parent"] else ""),
        ]
        for gpu in gpus
    ]
    print_table(heads, rows)
    for gpu in gpus:
        _print_gpu_story(gpu)


def _print_gpu_story(gpu: dict[str, Any]) -> None:
    """Its id, who holds it, and every process on it, whoever started it."""
    say(f"  GPU {gpu['index']}: {clean(gpu['uuid'])} {clean(' '.join(gpu['tasks']))}".rstrip())
    if gpu["error"]:
        say(f"    broken: {clean(gpu['error'])}")
    for one in gpu.get("processes") or ():
        whose = one["task_id"] or "outside cloudai"
        user = f" of {clean(one['user'])}" if one["user"] else ""
        memory = "" if one["memory"] is None else f", {amount(one['memory'])} GB"
        say(f"    process {one['pid']} {clean(one['name'])}{user}{memory}: {clean(whose)}")


def _with_unit(value: float | None, unit: str) -> str:
    return NOTHING if value is None else f"{amount(value, 0)}{unit}"


def _print_reservations(worker: Worker) -> None:
    heads = [
        Column("TASK"),
        Column("USER"),
        Column("CPU", right=True),
        Column("USED", right=True),
        Column("MEM GB", right=True),
        Column("USED", right=True),
        Column("GPU", right=True),
        Column("AGE", right=True),
        Column("NAME", flexible=True),
    ]
    rows = [
        [
            one["task_id"],
            one["user_id"] or NOTHING,
            amount(one["cpus"], 2),
            _with_unit(one["cpu_percent"], "%"),
            amount(one["memory"], 2),
            amount(one["memory_used"], 2),
            amount(one["req_gpu"], 2) if one["gpus"] else NOTHING,
            age(one["since"]),
            (one["name"] or NOTHING) + ("" if one["mine"] else " (another cloudai's)"),
        ]
        for one in worker["reservations"]
    ]
    print_table(heads, rows)
