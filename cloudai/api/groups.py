"""Placement groups: several tasks that are placed together or not at all."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Request
from fastapi.responses import JSONResponse

from cloudai.controller.desk import Desk
from cloudai.core.model import Task

from . import shapes
from .requests import GROUP_EXAMPLES
from .tasks import desk_of, shape

router = APIRouter(prefix="/groups", tags=["groups"])

Wanted = Annotated[dict[str, Any], Body(openapi_examples=GROUP_EXAMPLES)]


def group_shape(desk: Desk, members: list[Task]) -> shapes.Json:
    first = members[0].spec
    return {
        "group_id": first.group,
        "placement": str(first.placement),
        "size": first.group_size,
        "tasks": [shape(desk, member) for member in members],
    }


@router.post("/", status_code=201)
async def submit(request: Request, body: Wanted, dry_run: bool = False) -> JSONResponse:
    """Queues all tasks of a group, or none. 200 and the earlier group for an idempotency key
    that is known."""
    desk = desk_of(request)
    tasks = body.get("tasks")
    for one in tasks if isinstance(tasks, list) else ():
        target = one.get("target") if isinstance(one, dict) else None
        if isinstance(target, str):
            desk.controller.link(target)
    members, created = await desk.service.submit_group(
        body, default_user=request.app.state.default_user, dry_run=dry_run
    )
    shown = group_shape(desk, members)
    if dry_run:
        where, would_wait = await desk.where(members)
        for one, member in zip(shown["tasks"], members, strict=True):
            one["docker_run"] = desk.preview(member)
            one["would_start_on"] = where.get(member.id)
        shown["would_wait"] = would_wait
    return JSONResponse(shown, 201 if created and not dry_run else 200)


@router.get("/{group_id}")
async def show(request: Request, group_id: str) -> shapes.Json:
    """Its tasks, in the order of their ranks."""
    desk = desk_of(request)
    return group_shape(desk, await desk.service.group(group_id))


@router.patch("/{group_id}/cancel")
async def cancel(request: Request, group_id: str) -> shapes.Json:
    """Stops all its tasks that have not ended; 409 where all have."""
    desk = desk_of(request)
    return group_shape(desk, await desk.service.cancel_group(group_id))
