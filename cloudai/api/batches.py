"""Batches: files of tasks, submitted as a whole."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Request
from fastapi.responses import JSONResponse

from cloudai.controller.desk import Desk
from cloudai.core.errors import InvalidInput
from cloudai.core.model import Batch

from . import shapes
from .requests import BATCH_EXAMPLES
from .tasks import LONGEST_WAIT, Again, desk_of, shape

router = APIRouter(prefix="/batches", tags=["batches"])

Wanted = Annotated[dict[str, Any], Body(openapi_examples=BATCH_EXAMPLES)]


async def batch_shape(desk: Desk, batch: Batch, *, until_ended: float = 0.0) -> shapes.Json:
    return shapes.batch(batch, await desk.standing(batch.id, until_ended=until_ended))


@router.post("/", status_code=201)
async def submit(request: Request, body: Wanted, dry_run: bool = False) -> JSONResponse:
    """Queues all tasks of a batch, or none. 200 and the earlier batch for a once key that is
    known; every mistake of its files at once in ``details.problems``."""
    desk = desk_of(request)
    batch, tasks, created = await desk.submit_batch(
        body, default_user=request.app.state.default_user, dry_run=dry_run
    )
    if dry_run:
        shown = [{**shape(desk, task), "docker_run": desk.preview(task)} for task in tasks]
        size = {"name": batch.name, "once_key": batch.once_key, "size": len(tasks)}
        return JSONResponse({**size, "tasks": shown}, 200)
    known = {"known": not created}
    return JSONResponse({**await batch_shape(desk, batch), **known}, 201 if created else 200)


@router.get("/")
async def list_batches(
    request: Request,
    user: str | None = None,
    name: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    offset: Annotated[int, Query(ge=0)] = 0,
) -> shapes.Json:
    """Newest first, with how many there are in all."""
    desk = desk_of(request)
    found, total = await desk.service.in_thread(
        desk.service.store.batches, user=user, name=name, limit=limit, offset=offset
    )
    return {"batches": [await batch_shape(desk, one) for one in found], "total": total}


async def _find(desk: Desk, ref: str) -> Batch:
    return await desk.service.in_thread(desk.service.store.batch, ref)


@router.get("/{batch}")
async def show(
    request: Request,
    batch: str,
    until: str | None = None,
    timeout: Annotated[float, Query(ge=0, le=LONGEST_WAIT)] = 25.0,
) -> shapes.Json:
    """One batch, by its id, the beginning of one, or its name; with ``until=final`` once all
    its tasks have ended."""
    desk = desk_of(request)
    if until not in (None, "final"):
        raise InvalidInput(f"until is {until!r}; it can be final")
    found = await _find(desk, batch)
    return await batch_shape(desk, found, until_ended=timeout if until else 0.0)


@router.get("/{batch}/changes")
async def changes(
    request: Request,
    batch: str,
    since: Annotated[int | None, Query(ge=0)] = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
) -> shapes.Json:
    """The tasks with which something happened since a cursor of an earlier answer, in the order
    of their latest change; without ``since`` none, and the cursor of now."""
    desk = desk_of(request)
    found = await _find(desk, batch)
    news = await desk.service.in_thread(
        desk.service.store.changes, found.id, since=since, limit=limit
    )
    tasks = [shape(desk, task) for task in news.tasks]
    return {"tasks": tasks, "cursor": news.cursor, "more": news.more}


@router.patch("/{batch}/cancel")
async def cancel(request: Request, batch: str) -> shapes.Json:
    """Stops all its tasks that have not ended; 409 where all have."""
    desk = desk_of(request)
    found = await _find(desk, batch)
    await desk.batches.cancel(found.id)
    return await batch_shape(desk, found)


@router.post("/{batch}/retry", status_code=201)
async def retry(request: Request, batch: str, body: Again = None) -> shapes.Json:
    """What of it has ended, once more, as a new batch; ``failed``: only what did not complete.
    ``env``: values for variables, which are gone with the old tasks."""
    desk = desk_of(request)
    found = await _find(desk, batch)
    made, _ = await desk.batches.retry(found.id, body or {})
    assert isinstance(made, Batch)
    return await batch_shape(desk, made)


@router.delete("/{batch}", status_code=204)
async def forget(request: Request, batch: str) -> None:
    """Forgets it, once it has ended, with all its tasks and their logs."""
    desk = desk_of(request)
    found = await _find(desk, batch)
    await desk.batches.forget(found.id)
