"""Logs record by record, for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from cloudai.engines import LogBatch, LogRecord


@asynccontextmanager
async def one_by_one(
    logs: AbstractAsyncContextManager[AsyncIterator[LogBatch]],
) -> AsyncIterator[AsyncIterator[LogRecord]]:
    """What ``Engine.logs`` brings, without its batches."""
    async with logs as batches:
        yield (record async for batch in batches for record in batch)
