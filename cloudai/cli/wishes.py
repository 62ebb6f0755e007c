"""What ``task`` and ``dispatch`` may ask of the scheduler: flags in, fields of the request out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from .options import complete_tasks, complete_workers

F = TypeVar("F", bound=Callable[..., Any])

GPU_OPTIONS = (
    click.option(
        "--gpu",
        metavar="MODEL[:N]",
        help="GPUs of that model, by part of its name, and how many: a100:2.",
    ),
    click.option(
        "--gpu-memory", metavar="GB", help="Memory that each of its GPUs must have for it."
    ),
)
"""Also for a task that is dispatched."""

QUEUE_OPTIONS = (
    click.option(
        "--priority",
        metavar="LEVEL",
        help="low, normal, high, urgent, or 0 to 100.  [default: normal]",
    ),
    click.option(
        "--strategy",
        metavar="NAME",
        help="How its worker is chosen: spread, load_balanced, performance_optimized,"
        " node_specific or binpack.  [default: the inventory's]",
    ),
    click.option(
        "--node",
        "nodes",
        multiple=True,
        metavar="NODE",
        help="Only there: a worker, a pool, or label=value; may be repeated.",
        shell_complete=complete_workers,
    ),
    click.option(
        "--require",
        multiple=True,
        metavar="EXPR",
        help="Only on workers of which it is true: zone=lab, 'memory>=64', '!old', ...",
    ),
    click.option(
        "--avoid", multiple=True, metavar="EXPR", help="Only on workers of which it is not."
    ),
    click.option(
        "--affinity",
        "near",
        multiple=True,
        metavar="TASK",
        help="Only on the worker of that task.",
        shell_complete=complete_tasks,
    ),
    click.option(
        "--anti-affinity",
        "apart",
        multiple=True,
        metavar="TASK",
        help="Never on the worker of that task.",
        shell_complete=complete_tasks,
    ),
    click.option(
        "--preemptible",
        is_flag=True,
        help="It may be stopped and queued again where others need its place.",
    ),
    click.option(
        "--retries", metavar="N", help="Try it again so often after a bad end.  [default: 0]"
    ),
    click.option(
        "--retry-on",
        metavar="CAUSE,...",
        help="Only after these: exit, oom, lost, start, pull, hung, or exit codes.  [default: any]",
    ),
    click.option(
        "--replicas",
        type=click.IntRange(1, 256),
        metavar="N",
        help="So many of it, placed together or not at all.",
    ),
    click.option(
        "--placement",
        metavar="HOW",
        help="How replicas lie: pack, spread, strict_pack or strict_spread.  [default: pack]",
    ),
)
"""For a task that waits in the queue."""

FLAGS = {
    "priority": "--priority",
    "strategy": "--strategy",
    "nodes": "--node",
    "gpu_model": "--gpu",
    "gpu_memory": "--gpu-memory",
    "require": "--require",
    "avoid": "--avoid",
    "near": "--affinity",
    "apart": "--anti-affinity",
    "retries": "--retries",
    "retry_on": "--retry-on",
    "placement": "--placement",
}
"""What a person typed for each field of the request."""


def queue_options(command: F) -> F:
    """The flags of a task that waits in the queue."""
    for option in reversed(QUEUE_OPTIONS):
        command = option(command)
    return command


def wishes_of(asked: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of one task; what was not said is left out. Raises ``click.UsageError``."""
    fields = {name: asked.get(name) for name in ("priority", "strategy", "gpu_memory", "retries")}
    for name in ("nodes", "require", "avoid", "near", "apart"):
        fields[name] = list(asked.get(name) or ())
    fields["preemptible"] = asked.get("preemptible") or None
    if asked.get("retry_on") is not None:
        fields["retry_on"] = asked["retry_on"].split(",")
    fields |= _gpus(asked)
    return {name: value for name, value in fields.items() if value not in (None, [])}


def _gpus(asked: Mapping[str, Any]) -> dict[str, str]:
    if asked.get("gpu") is None:
        return {}
    model, colon, count = asked["gpu"].rpartition(":")
    if not colon:
        return {"gpu_model": count}
    if not model or not count:
        raise click.UsageError("--gpu: give a model, or a model and a number: a100, a100:2.")
    if asked.get("req_gpu") is not None:
        raise click.UsageError(f"--gpu {asked['gpu']} and --gpus both say how many; give one.")
    return {"gpu_model": model, "req_gpu": count}


def group_body(ctx: click.Context, body: dict[str, Any], asked: Mapping[str, Any]) -> Any:
    """The body of a placement group of equal tasks; ``None`` where one task alone is meant."""
    if asked["replicas"] is None:
        if asked["placement"] is not None:
            raise click.UsageError("--placement says how --replicas N lie; give both.", ctx=ctx)
        return None
    one = dict(body)
    key = one.pop("idempotency_key", None)
    wanted = {
        "placement": asked["placement"],
        "replicas": asked["replicas"],
        "tasks": [one],
        "idempotency_key": key,
    }
    return {name: value for name, value in wanted.items() if value is not None}
