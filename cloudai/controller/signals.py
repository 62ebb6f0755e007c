"""Telling those who wait that something changed."""

from __future__ import annotations

import asyncio


class Signal:
    """Wakes everybody who waits at that moment. Nothing is remembered: look, then wait."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def fire(self) -> None:
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self, timeout: float | None = None) -> bool:
        """Whether it fired within ``timeout`` seconds (for ever where ``None``)."""
        event = self._event
        try:
            await asyncio.wait_for(event.wait(), timeout)
        except TimeoutError:
            return False
        return True
