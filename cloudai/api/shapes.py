"""The JSON of ``docs/api.md``: the domain in, plain values out. ``--json`` prints the same."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from cloudai.controller.desk import WorkerView
from cloudai.controller.fleet import free_now
from cloudai.controller.link import Link, Reach
from cloudai.controller.orphans import Orphan
from cloudai.controller.sharing import Reserved
from cloudai.core.capacity import Free, GpuUse
from cloudai.core.files import downloads_of, uploads_of
from cloudai.core.model import (
    GIB,
    Assignment,
    Batch,
    ContainerSight,
    GpuProcess,
    Resources,
    State,
    Task,
    TaskSpec,
)
from cloudai.core.schedule import Why
from cloudai.engines import Finding, Usage
from cloudai.service import Standing

Json = dict[str, Any]


def moment(at: datetime | None) -> str | None:
    """ISO 8601 in UTC."""
    return None if at is None else at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def gib(amount: int | None) -> float | None:
    """Bytes as GiB, to a thousandth."""
    return None if amount is None else round(amount / GIB, 3)


def assignment(one: Assignment) -> Json:
    return {
        "assignment_id": one.id,
        "number": one.number,
        "worker_id": one.worker_id,
        "placed_at": moment(one.placed_at),
        "started_at": moment(one.started_at),
        "ended_at": moment(one.ended_at),
        "exit_code": one.exit_code,
        "container_id": one.container_id,
        "gpus": list(one.gpus),
        "reason": one.reason,
        "harvested": one.harvested,
        "lost": one.lost,
    }


def task(one: Task, *, reason: str = "", phase: str = "", link: Link | None = None) -> Json:
    """A task as in lists. ``reason``: why it waits, where the scheduler knows better."""
    spec, held = one.spec, one.assignment
    shown = held if one.state.assigned or one.state.final else None
    return {
        "task_id": one.id,
        "user_id": spec.user_id,
        "name": spec.name,
        "task_type": spec.task_type,
        "docker_image": spec.image,
        "command": spec.command,
        "req_cpu": spec.resources.cpus,
        "req_memory": spec.resources.memory_gib,
        "req_storage": spec.resources.storage_gib,
        "req_gpu": spec.resources.gpus,
        "status": str(one.state),
        "reason": reason or one.stop_reason or one.reason,
        "phase": phase,
        "created_at": moment(one.created_at),
        "started_at": moment(one.started_at),
        "completed_at": moment(one.completed_at),
        "worker_id": shown.worker_id if shown else None,
        "target": spec.target,
        "container_id": shown.container_id if shown else None,
        "gpus": list(shown.gpus) if shown else [],
        "exit_code": one.exit_code,
        "env": list(spec.env),
        "mounts": list(spec.mounts),
        "secrets": list(spec.secrets),
        "workdir": spec.workdir,
        "uploads": [str(one) for one in uploads_of(spec)],
        "downloads": [str(one) for one in downloads_of(spec)],
        "run_as": spec.run_as,
        "shm_size": gib(spec.shm_size),
        "time_limit": spec.time_limit,
        "signal": f"{spec.signal}@{spec.signal_before:g}" if spec.signal else None,
        "first_output": spec.first_output,
        "idle_output": spec.idle_output,
        "idempotency_key": spec.idempotency_key,
        "ship_image": spec.ship_image,
        "on_lost": str(spec.on_lost),
        "lost_after": spec.lost_after,
        **_wishes(spec),
        "failures": one.failures,
        "not_before": moment(one.not_before),
        "skipped": one.skipped,
        "direct": one.direct,
        "worker_seen": _seen(one, link),
        "assignments": [assignment(held)] if held else [],
    }


def _wishes(spec: TaskSpec) -> Json:
    """What it asks of the scheduler, under the names of the request."""
    return {
        "priority": spec.priority,
        "strategy": str(spec.strategy) if spec.strategy else None,
        "nodes": list(spec.nodes),
        "gpu_model": spec.gpu_model,
        "gpu_memory": gib(spec.gpu_memory),
        "require": list(spec.require),
        "avoid": list(spec.avoid),
        "near": list(spec.near),
        "apart": list(spec.apart),
        "preemptible": spec.preemptible,
        "retries": spec.retries,
        "retry_on": list(spec.retry_on),
        "group": spec.group,
        "group_size": spec.group_size,
        "group_rank": spec.group_rank,
        "placement": str(spec.placement) if spec.group else None,
        "after": list(spec.after),
        "on_unmet": str(spec.on_unmet),
        "batch": spec.batch,
        "entry": spec.entry,
        "fingerprint": spec.fingerprint,
        "array": spec.array,
        "array_index": spec.array_index if spec.array else None,
        "array_size": spec.array_size if spec.array else None,
        "array_limit": spec.array_limit,
    }


def standing(one: Standing) -> Json:
    """How many tasks stand how; those that were left out are not among the cancelled."""
    counts = {str(state): count for state, count in one.counts.items()}
    return {
        "size": one.size,
        "counts": {**counts, "skipped": one.skipped},
        "ended": one.ended,
        "status": _status(one),
        "started_at": moment(one.started_at),
        "completed_at": moment(one.completed_at),
    }


def _status(one: Standing) -> str:
    """One word for many tasks."""
    if not one.ended:
        begun = one.size > one.counts[State.QUEUED]
        return "running" if begun else "queued"
    bad = one.counts[State.FAILED] + one.counts[State.CANCELLED]
    return "failed" if bad else "completed"


def batch(one: Batch, stands: Standing) -> Json:
    """A batch, and how its tasks stand."""
    return {
        "batch_id": one.id,
        "name": one.name,
        "user_id": one.user_id,
        "once_key": one.once_key,
        "created_at": moment(one.created_at),
        "files": list(one.files),
        "submitted": one.size,
        **standing(stands),
    }


def array(array_id: str, stands: Standing, first: Task) -> Json:
    """An array, and how its elements stand."""
    return {
        "task_id": array_id,
        "array": array_id,
        "user_id": first.spec.user_id,
        "name": first.spec.name,
        "docker_image": first.spec.image,
        "command": first.spec.command,
        "batch": first.spec.batch,
        "array_size": first.spec.array_size,
        "array_limit": first.spec.array_limit,
        "created_at": moment(first.created_at),
        **standing(stands),
    }


def _seen(one: Task, link: Link | None) -> Json:
    if not one.state.assigned:
        return {"reachable": True, "since": None}
    if link is None:
        return {"reachable": False, "since": None}
    return {"reachable": link.reach is Reach.ACTIVE, "since": moment(link.since)}


# ---------------------------------------------------------------------- workers


def worker(view: WorkerView) -> Json:
    """A worker as in lists. Numbers are as last seen, ``None`` before the first sight."""
    link = view.link
    spec, sight = link.spec, link.sight
    free = free_now(link, view.holds)
    living = [container for container in link.containers() if container.holds]
    return {
        "worker_id": link.id,
        "state": _state(view),
        "reason": link.reason or view.set_aside,
        "since": moment(link.since),
        "host": spec.host or ("localhost" if spec.connection == "local" else link.id),
        "labels": dict(spec.labels),
        "draining": view.draining,
        "set_aside": bool(view.set_aside),
        "cpus": _cpus(free),
        "memory": _amounts(free, "memory_gib", available=gib(sight.memory_available))
        if sight
        else _amounts(None, "", available=None),
        "storage": _amounts(free, "storage_gib"),
        "gpus": [gpu(use, living) for use in free.gpus] if free else [],
        "gpu_trouble": sight.gpu_trouble if sight else "",
        "tasks": len(living),
        "load": sight.load if sight else None,
        "engine": {
            "version": sight.engine.version,
            "storage_limit": sight.engine.storage_limit,
            "gpu_runtime": sight.engine.gpu_runtime,
        }
        if sight
        else None,
        "kept": [reservation(one) for one in view.reserved],
        "seen_at": moment(link.seen_at),
    }


def _state(view: WorkerView) -> str:
    if view.link.twin:
        return str(Reach.STOPPED)
    if view.link.reach is Reach.ACTIVE and view.draining:
        return "draining"
    if view.link.reach is Reach.ACTIVE and view.set_aside:
        return "set_aside"
    return str(view.link.reach)


def _cpus(free: Free | None) -> Json:
    if free is None:
        return {"total": None, "reserved": None, "free": None}
    return {
        "total": free.total.cpus,
        "reserved": free.reserved.cpus,
        "free": max(0.0, free.free.cpus),
    }


def _amounts(free: Free | None, attribute: str, **more: float | None) -> Json:
    def read(amount: Resources) -> float:
        value: float = getattr(amount, attribute)
        return max(0.0, round(value, 3))

    if free is None:
        return {"total": None, "reserved": None, "free": None, **more}
    return {
        "total": read(free.total),
        "reserved": read(free.reserved),
        "free": read(free.free),
        **more,
    }


def gpu(use: GpuUse, containers: Iterable[ContainerSight]) -> Json:
    containers = list(containers)
    owner = {container.id: container.task_id for container in containers}
    users = {container.task_id: container.user_id for container in containers}
    one = use.gpu
    return {
        "uuid": one.uuid,
        "index": one.index,
        "model": one.model,
        "memory": gib(one.memory),
        "memory_used": gib(one.memory_used),
        "utilisation": one.utilisation,
        "temperature": one.temperature,
        "mig_parent": one.mig_parent,
        "error": one.error,
        "use": str(use.use),
        "held": use.held / 1000,
        "tasks": list(use.tasks),
        "users": list(dict.fromkeys(users[task] for task in use.tasks if task in users)),
        "processes": [_process(process, owner) for process in one.processes],
    }


def _process(process: GpuProcess, owner: Mapping[str, str]) -> Json:
    return {
        "pid": process.pid,
        "name": process.name,
        "user": process.user,
        "memory": gib(process.memory),
        "task_id": owner.get(process.container or ""),
    }


def worker_in_depth(view: WorkerView, *, usage: Mapping[str, Usage], store_id: str) -> Json:
    """What ``stats`` shows: reservations and whose, the host, the engine."""
    link = view.link
    sight, skew = link.sight, None
    if sight is not None and link.seen_at is not None:
        skew = round((sight.clock - link.seen_at).total_seconds(), 1)
    return {
        **worker(view),
        "reservations": [
            _held(container, usage.get(container.id), store_id)
            for container in link.containers()
            if container.holds
        ],
        "os": sight.os if sight else None,
        "kernel": sight.kernel if sight else None,
        "login": sight.login if sight else None,
        "clock_skew": skew,
        "watching": getattr(link.engine, "watching", None),
    }


def _held(container: ContainerSight, usage: Usage | None, store_id: str) -> Json:
    return {
        "task_id": container.task_id,
        "user_id": container.user_id,
        "name": container.task_name or None,
        "mine": container.store_id == store_id,
        "cpus": container.held.cpus,
        "memory": gib(container.held.memory),
        "storage": gib(container.held.storage),
        "req_gpu": container.held.gpus,
        "gpus": list(container.gpus),
        "since": moment(container.started_at),
        "phase": str(container.phase),
        "cpu_percent": usage.cpu_percent if usage else None,
        "memory_used": gib(usage.memory) if usage else None,
    }


# ---------------------------------------------------------------------- the scheduler


def reservation(one: Reserved) -> Json:
    """A part of a worker that is kept, with what its owner uses of it and what is lent."""
    kept = one.reservation
    return {
        "reservation_id": kept.id,
        "worker_id": kept.worker_id,
        "user_id": kept.user_id,
        "priority": kept.priority,
        **_amounts_of(kept.resources),
        "used": _amounts_of(one.lending.used),
        "lent": _amounts_of(one.lending.lent),
        "until": moment(kept.until),
        "created_at": moment(kept.created_at),
        "created_by": kept.created_by,
        "note": kept.note,
    }


def _amounts_of(amount: Resources) -> Json:
    return {
        "req_cpu": amount.cpus,
        "req_memory": gib(amount.memory),
        "req_storage": gib(amount.storage),
        "req_gpu": amount.gpus,
    }


def why(one: Task, found: Why | None) -> Json:
    """Why a task waits; of one that does not, how it stands."""
    found = found or Why(task_id=one.id)
    start = None if found.start is None else datetime.fromtimestamp(found.start, UTC)
    shown = one.assignment if one.state.assigned or one.state.final else None
    return {
        "task_id": one.id,
        "status": str(one.state),
        "waits": one.state is State.QUEUED,
        "worker_id": shown.worker_id if shown else None,
        "started_at": moment(one.started_at),
        "completed_at": moment(one.completed_at),
        "reason": one.stop_reason or one.reason,
        "asks": found.asks,
        "held": found.held,
        "fits": list(found.fits),
        "reasons": [
            {"workers": list(because.workers), "reason": because.reason}
            for because in found.reasons
        ],
        "ahead": found.ahead,
        "next_task": found.next_task or None,
        "next_user": found.next_user or None,
        "turn": found.turn,
        "would_fit": list(found.would_fit),
        "start": moment(start),
        "start_on": found.start_on or None,
    }


def orphan(one: Orphan) -> Json:
    """A container that no task here claims."""
    container = one.container
    return {
        "assignment_id": container.assignment_id,
        "task_id": container.task_id,
        "worker_id": one.link.id,
        "reachable": one.link.reach is Reach.ACTIVE,
        "store_id": container.store_id,
        "mine": one.mine,
        "user_id": container.user_id,
        "name": container.task_name or None,
        "docker_image": container.image,
        "command": shlex.join(container.argv),
        "req_cpu": container.held.cpus,
        "req_memory": gib(container.held.memory),
        "req_storage": gib(container.held.storage),
        "req_gpu": container.held.gpus,
        "gpus": list(container.gpus),
        "phase": str(container.phase),
        "since": moment(container.started_at or container.created_at),
        "exit_code": container.exit_code,
        "container_id": container.id,
    }


def finding(one: Finding) -> Json:
    return {
        "check": one.check,
        "ok": one.ok,
        "warning": one.warning,
        "found": one.found,
        "mend": one.mend,
    }
