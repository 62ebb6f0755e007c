"""Answers that are read as they come: what becomes of one whose reader leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from fastapi import Request
from fastapi.responses import StreamingResponse

from cloudai.api.tasks import while_listening


@pytest.mark.parametrize("quiet", [True, False])
async def test_a_stream_whose_reader_left_is_closed_and_closes_what_it_holds(quiet: bool) -> None:
    closed = asyncio.Event()
    began = asyncio.Event()

    async def stream() -> AsyncGenerator[bytes, None]:
        try:
            began.set()
            while True:
                yield b"chunk"
                await asyncio.sleep(3600 if quiet else 0.001)
        finally:
            await asyncio.sleep(0.01)  # as long as it takes to let go of a worker
            closed.set()

    async def receive() -> dict[str, Any]:
        await began.wait()
        await asyncio.sleep(0.01)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        pass

    scope = {"type": "http", "method": "GET", "asgi": {"version": "3.0"}}
    response = StreamingResponse(while_listening(Request(scope, receive), stream()))
    await response(scope, receive, send)
    async with asyncio.timeout(2):
        await closed.wait()
