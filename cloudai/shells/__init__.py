"""How a script reaches a worker: the Shell protocol. Implementations: ``ssh``, ``local``.

A shell carries text and bytes and knows nothing of Docker. Every remote call has three
outcomes (facts, 1): a whole reply that says ok, a whole reply that says failed, or
``Indeterminate`` raised. A worker that cannot be reached raises ``WorkerUnreachable`` or a
child of it; so a caller that holds a ``Reply`` holds the truth.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole reply, framed by the script and checked for its length."""

    status: int
    """What the script's main function returned; 0 is ok."""
    body: bytes

    @property
    def ok(self) -> bool:
        return self.status == 0

    @property
    def text(self) -> str:
        """The body, decoded at the edge: worker bytes are never trusted to be UTF-8."""
        return self.body.decode("utf-8", "replace")


class Terminal(Protocol):
    """A process on the worker with its streams open: ``exec`` (with or without a tty)."""

    async def read(self) -> tuple[int, bytes]:
        """Next output: (1 or 2, bytes); ``(0, b"")`` once both streams ended."""

    async def write(self, data: bytes) -> None:
        """To its stdin; empty bytes close it."""

    async def resize(self, columns: int, rows: int) -> None: ...

    async def wait(self) -> int:
        """Its exit status. Raises ``Indeterminate`` if the link ended first."""

    async def close(self) -> None: ...


class Shell(Protocol):
    """One worker's shell. Connects by itself, on first use and again after a loss."""

    @property
    def address(self) -> str:
        """The host it really connects to, no alias; before the first use, what it was given.
        127.0.0.1 for this machine."""

    async def run(self, script: str, *, timeout: float) -> Reply:
        """Runs plain commands in ``/bin/sh -s``; the shell frames them itself (``framing``).

        Their stdin is ``/dev/null``, their stdout is the reply's body (without NUL bytes),
        their stderr is dropped: a script that needs a program's stderr captures it. ``timeout``
        in seconds for the whole call, connecting included; what still runs there then is
        killed. Raises ``WorkerUnreachable`` and its children, ``Indeterminate`` when the reply
        is not whole.
        """

    async def feed(
        self, script: str, data: AsyncIterable[bytes], *, idle_timeout: float, timeout: float
    ) -> Reply:
        """Runs plain commands whose stdin is these bytes; else as ``run``.

        What the script leaves unread is not sent: a reply that comes early is the answer.
        ``idle_timeout``: seconds for which the other end may take none of them;
        ``timeout``: seconds from their end to the answer. Raises as ``run`` does, and
        whatever ``data`` raises. Then, and when the link dies, the script sees its stdin end
        early: it must tell by the bytes themselves whether it has them all.
        """

    def stream(
        self, script: str, *, idle_timeout: float | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Runs plain commands and yields their raw stdout in chunks, as they come.

        The frame ties their process group to the connection (facts, 12; see ``framing``), so
        nothing outlives the context, or us. The iterator ends when the script ended with
        status 0; ``EngineFailed``, with what it wrote to stderr and ``details['status']``,
        when it ended with another; ``Indeterminate`` when the link ended first, or after
        ``idle_timeout`` seconds without output.
        """

    def terminal(
        self, command: str, *, tty: bool, columns: int = 80, rows: int = 24
    ) -> AbstractAsyncContextManager[Terminal]:
        """Runs shell text with its streams open both ways, on a terminal where ``tty``.

        What a login shell prints before it is dropped. On leaving, stdin closes and, on a
        terminal, the process group is hung up.
        """

    def socket(self, remote_path: str) -> AbstractAsyncContextManager[str]:
        """A path on this machine (0600) through which the worker's UNIX socket is reached,
        while the context lasts. Raises ``EngineFailed`` where the worker refuses that.

        Each connection made there is one of the worker's own; all close when the link is
        lost, and the path then refuses: enter again."""

    async def close(self) -> None:
        """Ends every connection. The next call connects again."""
