"""Telling those who wait that something changed."""

from __future__ import annotations

import asyncio


async def wait(event: asyncio.Event, timeout: float | None) -> bool:
    """Whether the event is set within ``timeout`` seconds (for ever where ``None``).

    Not ``asyncio.wait_for``: in Python 3.11 that may swallow a cancel that comes with the event.
    """
    try:
        async with asyncio.timeout(timeout):
            await event.wait()
    except TimeoutError:
        return False
    return True


class Ear:
    """Hears the next firing since it was made."""

    def __init__(self, event: asyncio.Event) -> None:
        self._event = event

    async def wait(self, timeout: float | None = None) -> bool:
        """Whether it fired within ``timeout`` seconds (for ever where ``None``)."""
        return await wait(self._event, timeout)


class Signal:
    """Wakes everybody who listens. Nothing is remembered: listen, then look, then wait."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def fire(self) -> None:
        self._event.set()
        self._event = asyncio.Event()

    def listen(self) -> Ear:
        return Ear(self._event)
