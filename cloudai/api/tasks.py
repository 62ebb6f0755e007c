"""Tasks: submit, ask, cancel, forget, read logs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from cloudai.controller.desk import Desk, has_ended, has_left_starting
from cloudai.controller.link import Link
from cloudai.core.errors import InvalidInput, TaskNotFound
from cloudai.core.model import Phase, State, Task
from cloudai.core.units import parse_since
from cloudai.service import now

from . import arrays, shapes
from .requests import TASK_EXAMPLES

router = APIRouter(prefix="/tasks", tags=["tasks"])

LONGEST_WAIT = 60.0
"""Seconds a request may wait at the most."""

Wanted = Annotated[dict[str, Any], Body(openapi_examples=TASK_EXAMPLES)]
Again = Annotated[dict[str, Any] | None, Body()]


def desk_of(request: Request) -> Desk:
    desk: Desk = request.app.state.desk
    return desk


def shape(desk: Desk, task: Task) -> shapes.Json:
    """A task as it stands, with what only the running controller knows."""
    link = desk.controller.fleet.get(task.worker_id) if task.worker_id else None
    waits = desk.controller.waiting.get(task.id, "") if task.state is State.QUEUED else ""
    phase = desk.controller.effects.phases.get(task.id, "") or _paused(task, link)
    return shapes.task(task, reason=waits, phase=phase, link=link)


def _paused(task: Task, link: Link | None) -> str:
    """A container that someone froze is a running one all the same."""
    if link is None or task.assignment is None or not task.state.assigned:
        return ""
    container = link.container(task.assignment.id)
    return "paused" if container is not None and container.phase is Phase.PAUSED else ""


async def in_full(desk: Desk, task: Task) -> shapes.Json:
    """One task with its whole story."""
    store = desk.service.store
    assignments = await desk.service.in_thread(store.assignments, task.id)
    events = await desk.service.in_thread(store.events, task.id)
    return {
        **shape(desk, task),
        "hint": await desk.symptom(task),
        "docker_run": desk.preview(task),
        "assignments": [shapes.assignment(one) for one in assignments],
        "events": [{**asdict(one), "at": shapes.moment(one.at)} for one in events],
    }


@router.post("/", status_code=201)
async def submit(request: Request, body: Wanted, dry_run: bool = False) -> Response:
    """Queues a task. 200 and the earlier task for an idempotency key that is known."""
    desk = desk_of(request)
    target = body.get("target")
    if isinstance(target, str):
        desk.controller.link(target)
    if body.get("array") is not None:
        return await arrays.submit(request, body, dry_run=dry_run)
    task, created = await desk.service.submit(
        body, default_user=request.app.state.default_user, dry_run=dry_run
    )
    if dry_run:
        where, would_wait = await desk.where([task])
        shown = {
            **shape(desk, task),
            "docker_run": desk.preview(task),
            "events": [],
            "would_start_on": where.get(task.id),
            "would_wait": would_wait,
        }
        return JSONResponse(shown, 200)
    return JSONResponse(await in_full(desk, task), 201 if created else 200)


@router.get("/")
async def list_tasks(
    request: Request,
    status: Annotated[list[State] | None, Query()] = None,
    user: str | None = None,
    worker: str | None = None,
    name: str | None = None,
    batch: str | None = None,
    array: str | None = None,
    task_type: str | None = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 100,
    offset: Annotated[int, Query(ge=0)] = 0,
) -> shapes.Json:
    """Newest first, with how many there are in all."""
    desk = desk_of(request)
    found, total = await desk.service.tasks(
        states=status or (),
        user=user,
        worker=worker,
        name=name,
        batch=batch,
        array=array,
        task_type=task_type,
        limit=limit,
        offset=offset,
    )
    return {"tasks": [shape(desk, task) for task in found], "total": total}


@router.get("/stats/queue")
async def queue(
    request: Request, limit: Annotated[int, Query(ge=1, le=10_000)] = 1000
) -> shapes.Json:
    """What waits or is being started, oldest first. An array comes once, as the first of its
    elements, with how many of them there are (``waiting``)."""
    desk = desk_of(request)
    found, total = await desk.service.in_thread(desk.service.store.waiting, limit)
    return {
        "tasks": [{**shape(desk, task), "waiting": count} for task, count in found],
        "total": total,
    }


@router.get("/stats/metrics")
async def metrics(request: Request) -> Mapping[str, object]:
    """How many tasks there were, how they ended, how long they ran."""
    return await desk_of(request).service.metrics()


@router.get("/{task_id}")
async def show(
    request: Request,
    task_id: str,
    until: str | None = None,
    timeout: Annotated[float, Query(ge=0, le=LONGEST_WAIT)] = 25.0,
    user: str | None = None,
) -> shapes.Json:
    """One task; with ``until`` answers once it left ``starting``, or is final. Of an array, how
    its elements stand as a whole."""
    desk = desk_of(request)
    conditions = {"started": has_left_starting, "final": has_ended}
    if until is not None and until not in conditions:
        raise InvalidInput(f"until is {until!r}; it can be started or final")
    found = await desk.service.locate(task_id)
    if found.array is not None:
        ended = until == "final"
        return await arrays.shown(desk, found.array, until_ended=timeout if ended else 0.0)
    task = await desk.service.find(task_id)
    if user is not None and user != task.spec.user_id:
        raise TaskNotFound(f"{task_id} of {user}")
    if until is not None:
        task = await desk.controller.wait_for(task.id, conditions[until], timeout=timeout)
    return await in_full(desk, task)


@router.get("/{task_id}/why")
async def why(request: Request, task_id: str) -> shapes.Json:
    """What keeps a task waiting, worker by worker; of one that does not wait, how it stands."""
    desk = desk_of(request)
    task = await desk.service.find(task_id)
    found = await desk.why(task)
    return shapes.why(await desk.service.find(task.id), found)


@router.patch("/{task_id}/cancel")
async def cancel(request: Request, task_id: str) -> shapes.Json:
    """Stops it, then kills it after its grace; all elements of an array."""
    desk = desk_of(request)
    found = await desk.service.locate(task_id)
    if found.array is not None:
        await desk.batches.cancel(found.array)
        return await arrays.shown(desk, found.array)
    return shape(desk, await desk.service.cancel(task_id))


@router.post("/{task_id}/mark-lost")
async def mark_lost(request: Request, task_id: str) -> shapes.Json:
    """A person's word that its worker is gone for good."""
    desk = desk_of(request)
    return shape(desk, await desk.mark_lost(task_id))


@router.delete("/{task_id}", status_code=204)
async def forget(request: Request, task_id: str) -> None:
    """Forgets a finished task and its logs; an array with all its elements."""
    desk = desk_of(request)
    found = await desk.service.locate(task_id)
    if found.array is not None:
        await desk.batches.forget(found.array)
    else:
        await desk.service.forget(task_id)


@router.post("/{task_id}/retry", status_code=201)
async def retry(request: Request, task_id: str, body: Again = None) -> shapes.Json:
    """A task that has ended once more, as a new one; of an array its elements, as a new array.
    ``failed``: only what did not complete. ``env``: values for variables, which are gone with
    the old ones."""
    desk = desk_of(request)
    found = await desk.service.locate(task_id)
    ref = found.array or (await desk.service.find(task_id)).id
    _made, tasks = await desk.batches.retry(ref, body or {})
    if found.array is not None:
        assert tasks[0].spec.array is not None
        return await arrays.shown(desk, tasks[0].spec.array)
    return shape(desk, tasks[0])


@router.get("/{task_id}/logs", response_class=StreamingResponse)
async def logs(
    request: Request,
    task_id: str,
    follow: bool = False,
    tail: Annotated[int | None, Query(ge=0)] = None,
    since: str | None = None,
    marks: bool = True,
    number: Annotated[int | None, Query(ge=1)] = None,
) -> StreamingResponse:
    """Bytes as the container wrote them; with ``marks``, a line where something is missing.
    Of the latest assignment, or of that ``number``."""
    desk = desk_of(request)
    task = await desk.service.find(task_id)
    begin = parse_since(since, now()) if since else 0
    stream = await desk.logs(
        task, since=begin, tail=tail, follow=follow, marks=marks, number=number
    )
    return StreamingResponse(
        while_listening(request, stream), media_type="application/octet-stream"
    )


async def while_listening(
    request: Request, stream: AsyncGenerator[bytes, None]
) -> AsyncIterator[bytes]:
    """The stream until it ends or its reader is gone: a quiet log sends nothing, so sending
    would never tell."""
    gone = asyncio.ensure_future(_left(request))
    coming: asyncio.Future[bytes | None] | None = None
    try:
        while True:
            coming = asyncio.ensure_future(anext(stream, None))
            await asyncio.wait({coming, gone}, return_when=asyncio.FIRST_COMPLETED)
            chunk = coming.result() if coming.done() else None
            if chunk is None:
                return
            yield chunk
    finally:
        gone.cancel()
        # The framework cancels us over and over where it saw first that the reader left.
        closing = asyncio.ensure_future(_close(stream, coming))
        _closing.add(closing)
        closing.add_done_callback(_closing.discard)
        await asyncio.shield(closing)


_closing: set[asyncio.Future[None]] = set()


async def _close(
    stream: AsyncGenerator[bytes, None], coming: asyncio.Future[bytes | None] | None
) -> None:
    if coming is not None:
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)
    await stream.aclose()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
