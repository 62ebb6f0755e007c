"""Workers: ask, register, drain, dispatch to."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict

from cloudai.controller.desk import FIRST_SIGHT, WorkerView, has_left_starting, why_dispatch_failed
from cloudai.controller.link import Reach
from cloudai.core.model import State, WorkerSpec
from cloudai.inventory import check_worker

from . import shapes
from .tasks import LONGEST_WAIT, Wanted, desk_of, in_full

router = APIRouter(prefix="/workers", tags=["workers"])
on_tasks = APIRouter(prefix="/tasks/workers", tags=["workers"])
"""Seed 003's paths."""


class Registration(BaseModel):
    """What ``register`` sends."""

    model_config = ConfigDict(extra="forbid")

    id: str
    host: str | None = None
    port: int | None = None
    user: str | None = None
    identity_file: str | None = None
    proxy_jump: str | None = None
    connection: str = "ssh"
    min_free: int = 0
    fingerprint: str | None = None


def shape(view: WorkerView) -> shapes.Json:
    return shapes.worker(view)


async def _all(request: Request, *, refresh: bool = False) -> list[WorkerView]:
    desk = desk_of(request)
    await desk.settled(FIRST_SIGHT)
    return await desk.workers(refresh=refresh)


@router.get("/")
async def list_workers(request: Request, refresh: bool = False) -> shapes.Json:
    """All of the inventory, as last seen; ``refresh`` probes first."""
    return {"workers": [shape(view) for view in await _all(request, refresh=refresh)]}


@on_tasks.get("/stats")
async def stats(request: Request) -> shapes.Json:
    """Each worker and its load."""
    return await list_workers(request)


@on_tasks.get("/health")
async def health(request: Request) -> shapes.Json:
    """How many workers can be reached, and how long the queue is."""
    desk = desk_of(request)
    views = await _all(request)
    online = sum(view.link.reach is Reach.ACTIVE for view in views)
    _, waiting = await desk.service.tasks(states=[State.QUEUED], limit=1)
    status = "empty" if not views else "down" if not online else "degraded"
    if views and online == len(views):
        status = "healthy"
    return {
        "status": status,
        "total_workers": len(views),
        "online_workers": online,
        "queue_info": {"length": waiting},
    }


@router.get("/{worker_id}")
async def show(request: Request, worker_id: str) -> shapes.Json:
    """One in depth: reservations and whose, each GPU, processes also of others."""
    desk = desk_of(request)
    view, usage = await desk.worker(worker_id)
    return shapes.worker_in_depth(view, usage=usage, store_id=desk.service.store.id)


@router.post("/", status_code=201)
async def register(request: Request, wanted: Registration) -> shapes.Json:
    """Connects, pins the host key, runs the doctor, writes the inventory."""
    fields = wanted.model_dump(exclude={"fingerprint", "min_free"}, exclude_none=True)
    spec = check_worker(WorkerSpec(**fields, min_free_gpus=wanted.min_free))
    view, findings = await desk_of(request).register(spec, fingerprint=wanted.fingerprint)
    return {"worker": shape(view), "findings": [shapes.finding(one) for one in findings]}


@router.delete("/{worker_id}", status_code=204)
async def unregister(request: Request, worker_id: str) -> None:
    """Takes it out of the inventory."""
    await desk_of(request).unregister(worker_id)


@router.get("/{worker_id}/doctor")
async def doctor(request: Request, worker_id: str) -> shapes.Json:
    """Every check with its mend."""
    findings = await desk_of(request).doctor(worker_id)
    return {"findings": [shapes.finding(one) for one in findings]}


@router.patch("/{worker_id}/drain")
async def drain(request: Request, worker_id: str) -> shapes.Json:
    """No new tasks there; the ones that run go on."""
    return shape(await desk_of(request).set_draining(worker_id, True))


@router.patch("/{worker_id}/resume")
async def resume(request: Request, worker_id: str) -> shapes.Json:
    """Takes tasks again."""
    return shape(await desk_of(request).set_draining(worker_id, False))


@router.post("/{worker_id}/dispatch", status_code=201)
async def dispatch(
    request: Request,
    worker_id: str,
    body: Wanted,
    timeout: Annotated[float, Query(ge=0, le=LONGEST_WAIT)] = 25.0,
) -> JSONResponse:
    """Bypasses queue and scheduler; answers when the container runs, or why not."""
    desk = desk_of(request)
    task, created = await desk.dispatch(
        worker_id, body, default_user=request.app.state.default_user, timeout=timeout
    )
    never_ran = task.assignment is None or task.assignment.container_id is None
    if has_left_starting(task) and task.state is State.FAILED and never_ran:
        raise why_dispatch_failed(task, again=not created)
    return JSONResponse(await in_full(desk, task), 201 if created else 200)
