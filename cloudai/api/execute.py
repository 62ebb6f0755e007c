"""A command in a running container, over a WebSocket."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated

from fastapi import APIRouter, Query, WebSocket, WebSocketDisconnect

from cloudai.controller.desk import Desk
from cloudai.core.errors import CloudaiError, InvalidInput
from cloudai.shells import Terminal

router = APIRouter(prefix="/tasks", tags=["tasks"])


@router.websocket("/{task_id}/exec")
async def execute(
    socket: WebSocket,
    task_id: str,
    arg: Annotated[list[str] | None, Query()] = None,
    tty: bool = False,
    columns: Annotated[int, Query(ge=1, le=10_000)] = 80,
    rows: Annotated[int, Query(ge=1, le=10_000)] = 24,
) -> None:
    """stdin as binary messages; output as binary messages, the first byte the stream's number;
    at the end one text message with the exit code or the error."""
    desk: Desk = socket.app.state.desk
    await socket.accept()
    try:
        task = await desk.service.find(task_id)
        entered = await desk.execute(task, arg or [], tty=tty, columns=columns, rows=rows)
        async with entered as terminal:
            code = await _carry(socket, terminal)
        await socket.send_text(json.dumps({"exit_code": code}))
        await socket.close()
    except CloudaiError as error:
        await socket.send_text(json.dumps({"error": error.as_json()}))
        await socket.close()
    except WebSocketDisconnect:
        pass


async def _carry(socket: WebSocket, terminal: Terminal) -> int:
    """Both ways until the command ends. Raises ``WebSocketDisconnect`` when the client left."""
    outward = asyncio.ensure_future(_outward(socket, terminal))
    inward = asyncio.ensure_future(_inward(socket, terminal))
    try:
        await asyncio.wait({outward, inward}, return_when=asyncio.FIRST_COMPLETED)
        if not outward.done():
            inward.result()
        await outward
        return await terminal.wait()
    finally:
        for way in (outward, inward):
            way.cancel()
        await asyncio.gather(outward, inward, return_exceptions=True)


async def _outward(socket: WebSocket, terminal: Terminal) -> None:
    while True:
        stream, data = await terminal.read()
        if not stream:
            return
        await socket.send_bytes(bytes([stream]) + data)


async def _inward(socket: WebSocket, terminal: Terminal) -> None:
    """Ends only by raising: a client that closed its stdin still listens."""
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect
        if (data := message.get("bytes")) is not None:
            if data:
                await terminal.write(data)
            continue
        match _read(message.get("text") or ""):
            case {"eof": True}:
                await terminal.write(b"")
            case {"resize": [int(columns), int(rows)]}:
                await terminal.resize(columns, rows)


def _read(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError as error:
        raise InvalidInput("a text message must be JSON") from error
