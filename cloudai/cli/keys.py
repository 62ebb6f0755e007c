"""Keys of the terminal, one by one, and the terminal put back whatever happens."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Sequence
from types import FrameType, TracebackType
from typing import Any


def can_read_keys() -> bool:
    """Whether a person sits at stdin and stdout, and we are in the foreground there."""
    try:
        fd = sys.stdin.fileno()
        return sys.stdin.isatty() and sys.stdout.isatty() and os.tcgetpgrp(fd) == os.getpgrp()
    except (OSError, ValueError, AttributeError):
        return False


class Keys:
    """While entered, keys come without Enter and are not shown; Ctrl-C still interrupts.

    ``raw``: nothing is interpreted here at all, for a terminal on the other side.
    """

    def __init__(self, *, raw: bool = False) -> None:
        self._fd = sys.stdin.fileno()
        self._raw = raw
        self._before: list[Any] = []
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Keys:
        self._before = termios.tcgetattr(self._fd)
        for number in (signal.SIGTERM, signal.SIGHUP):
            self._handlers[number] = signal.signal(number, _leave)
        self._handlers[signal.SIGCONT] = signal.signal(signal.SIGCONT, self._take_again)
        self._take()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # TCSAFLUSH: the rest of a key such as an arrow is not for the shell.
        termios.tcsetattr(self._fd, termios.TCSAFLUSH, self._before)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def wait(self, *others: int, timeout: float | None = None) -> Sequence[int]:
        """Which of the other descriptors can be read, or stdin's, within ``timeout`` seconds."""
        return select.select([self._fd, *others], [], [], timeout)[0]

    @property
    def fd(self) -> int:
        return self._fd

    def read(self) -> bytes:
        """What was pressed; empty at the end of the input."""
        try:
            return os.read(self._fd, 1024)
        except OSError:
            return b""

    def _take(self) -> None:
        if self._raw:
            tty.setraw(self._fd, termios.TCSAFLUSH)
        else:
            tty.setcbreak(self._fd, termios.TCSAFLUSH)

    def _take_again(self, _number: int, _frame: FrameType | None) -> None:
        """After Ctrl-Z and ``fg`` the shell has put the terminal back to its own ways."""
        self._take()


def _leave(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
