"""Files of a container, both ways, as tar streams."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect

from cloudai.core.errors import Indeterminate

from . import shapes
from .tasks import desk_of, while_listening

router = APIRouter(prefix="/tasks", tags=["tasks"])

Path = Annotated[str, Query(description="in the container, absolute")]


@router.get("/{task_id}/files", response_class=StreamingResponse)
async def fetch(request: Request, task_id: str, path: Path) -> StreamingResponse:
    """A folder or file, as a tar stream. It is whole where it ends as a chunked answer does."""
    desk = desk_of(request)
    stream = desk.fetch(await desk.service.find(task_id), path)
    # What is wrong shows before the first byte, and is an answer of its own.
    first = await anext(stream, b"")
    return StreamingResponse(
        while_listening(request, _after(first, stream)), media_type="application/x-tar"
    )


async def _after(first: bytes, stream: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    try:
        yield first
        async for chunk in stream:
            yield chunk
    finally:
        await stream.aclose()


@router.put("/{task_id}/files")
async def put(request: Request, task_id: str) -> shapes.Json:
    """Unpacks a tar stream at the root of a running task's container."""
    desk = desk_of(request)
    task = await desk.service.find(task_id)
    size = await desk.copy_in(task, _body(request))
    return {"task_id": task.id, "bytes": size}


async def _body(request: Request) -> AsyncIterator[bytes]:
    try:
        async for chunk in request.stream():
            if chunk:
                yield chunk
    except ClientDisconnect:
        raise Indeterminate("whoever sent it went away before its end") from None
