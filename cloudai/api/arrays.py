"""Arrays, at the same paths as tasks: an array's id means all its elements."""

from __future__ import annotations

from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse

from cloudai.controller.desk import Desk

from . import shapes


async def submit(request: Request, body: dict[str, Any], *, dry_run: bool) -> Response:
    """Queues all elements of an array, or none. 200 and the earlier array for an idempotency
    key that is known."""
    desk: Desk = request.app.state.desk
    array, created = await desk.batches.submit_array(
        body, default_user=request.app.state.default_user, dry_run=dry_run
    )
    if not dry_run:
        return JSONResponse(await shown(desk, array.id), 201 if created else 200)
    first = array.elements[0]
    where, would_wait = await desk.where([first])
    return JSONResponse(
        {
            **shapes.task(first),
            "docker_run": desk.preview(first),
            "task_id": array.id,
            "events": [],
            "would_start_on": where.get(first.id),
            "would_wait": would_wait,
        },
        200,
    )


async def shown(desk: Desk, array: str, *, until_ended: float = 0.0) -> shapes.Json:
    """How an array stands; once it has ended, or after so many seconds."""
    standing = await desk.standing(array, until_ended=until_ended)
    elements, _ = await desk.service.tasks(array=array, limit=1)
    return shapes.array(array, standing, elements[0])
