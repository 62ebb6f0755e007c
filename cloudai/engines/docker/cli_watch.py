"""A door to a worker's engine where its socket may not be forwarded: the docker command there.

Each connection to a UNIX socket of this machine becomes one ``docker system dial-stdio`` on
the worker, which carries bytes between its own streams and the engine. It ends with its
stdin, so nothing is left on the worker when the connection to it dies (facts, 12).
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from cloudai import scripts
from cloudai.core.errors import CloudaiError, Indeterminate, WorkerUnreachable
from cloudai.shells import Shell, Terminal

from .api_http import Door

CHUNK = 64 * 1024
CALLS = 2
"""sshd allows ten sessions a connection, and followers and scripts want theirs (facts, 4)."""
MOST_WORDS = 2000
"""Bytes of the docker command's stderr that are kept for the message."""


@asynccontextmanager
async def dialled(shell: Shell, host: str) -> AsyncIterator[Door]:
    """A socket through which the engine at ``host`` (empty: as the login has it) answers.

    Never raises by itself: a worker that cannot be reached shows as a connection that closes,
    and ``Door.trouble`` then says why.
    """
    # Short on every system: the path of a UNIX socket has about a hundred bytes.
    folder = Path(tempfile.mkdtemp(prefix="cloudai-", dir=_short_folder()))
    dial = _Dial(shell, host)
    try:
        path = str(folder / "engine.sock")
        server = await asyncio.start_unix_server(dial.accept, path)
        try:
            yield Door(path, trouble=dial.trouble, calls=CALLS)
        finally:
            server.close()
            await dial.hang_up()
            await server.wait_closed()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _short_folder() -> str | None:
    return "/tmp" if Path("/tmp").is_dir() else None  # noqa: S108 - mkdtemp makes it ours, 0700


class _Dial:
    """The connections that are open, and why the last one closed."""

    def __init__(self, shell: Shell, host: str) -> None:
        self._shell = shell
        self._host = host
        self._open: set[asyncio.Task[None]] = set()
        self._trouble: CloudaiError | None = None

    def trouble(self) -> CloudaiError | None:
        return self._trouble

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._connect(reader, writer))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def hang_up(self) -> None:
        tasks = tuple(self._open)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        command = scripts.render("dial", host=self._host).strip()
        try:
            async with self._shell.terminal(command, tty=False) as terminal:
                await self._carry(terminal, reader, writer)
        except CloudaiError as error:
            self._trouble = error
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _carry(
        self, terminal: Terminal, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Until either side closes: neither HTTP client nor engine ever closes half."""
        there = asyncio.create_task(_send(reader, terminal))
        back = asyncio.create_task(self._receive(terminal, writer))
        try:
            await asyncio.wait((there, back), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (there, back):
                task.cancel()
            results = await asyncio.gather(there, back, return_exceptions=True)
        for result in results:
            if isinstance(result, CloudaiError):
                raise result

    async def _receive(self, terminal: Terminal, writer: asyncio.StreamWriter) -> None:
        words = bytearray()
        while True:
            stream, data = await terminal.read()
            if stream == 0:
                raise await _why_it_ended(terminal, words.decode("utf-8", "replace").strip())
            if stream == 1:
                self._trouble = None
                writer.write(data)
                await writer.drain()
            else:
                words += data[: MOST_WORDS - len(words)]


async def _send(reader: asyncio.StreamReader, terminal: Terminal) -> None:
    with suppress(OSError):
        while data := await reader.read(CHUNK):
            await terminal.write(data)


async def _why_it_ended(terminal: Terminal, words: str) -> CloudaiError:
    status = await terminal.wait()
    if status == 0:
        return Indeterminate("Docker on the worker closed the connection")
    return WorkerUnreachable(
        f"the docker command on the worker does not reach its engine (status {status}): "
        f"{words or 'it said nothing'}",
        hint="`cloudai doctor` checks the worker",
    )
