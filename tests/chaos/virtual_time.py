"""An event loop on which hours pass in milliseconds, and every run is the same run.

Whenever nothing is ready, the time jumps to whatever comes next. What would run in a thread
runs at once, and its answer comes a little later, as drawn: so the order of things varies with
the seed and with nothing else.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from random import Random
from typing import Any


class NothingWillHappen(Exception):
    """Everybody waits for somebody else, for ever."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """``began``: seconds on its clock at first."""

    def __init__(self, random: Random, began: float = 0.0) -> None:
        self._now = began
        self._random = random
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        return self._now

    def jump(self, seconds: float) -> None:
        self._now += seconds

    def run_in_executor(  # type: ignore[override]
        self, executor: object, call: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        future = self.create_future()
        try:
            settle, value = future.set_result, call(*args)
        except Exception as error:
            settle, value = future.set_exception, error
        self.call_later(self._random.choice((0, 0.001, 0.02)), _unless_done, future, settle, value)
        return future


def _unless_done(future: asyncio.Future[Any], settle: Callable[[Any], None], value: Any) -> None:
    if not future.done():
        settle(value)


class _JumpingSelector(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise NothingWillHappen
        if timeout > 0:
            self._loop.jump(timeout)
        return []
