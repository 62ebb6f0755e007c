"""This machine as a worker: the same scripts through a shell of its own."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import pty
import signal
import stat
import struct
import sys
import termios
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from cloudai.core.errors import EngineFailed, Indeterminate
from cloudai.shells import Reply, Terminal
from cloudai.shells.channel import (
    GRACE,
    STDOUT,
    Call,
    Channel,
    ChannelTerminal,
    feed,
    follow,
    leave,
)
from cloudai.shells.framing import command_line

SHELL = ("/bin/sh", "-s")
START_WITHIN = 30.0
CHUNK = 64 * 1024

# A session leader's terminal must be made its controlling one, and only the child itself can
# do that. This little program does, where `preexec_fn` would run between fork and exec of a
# process with threads.
TAKE_TERMINAL = (
    "import fcntl, os, sys, termios\n"
    "fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
    "os.execv('/bin/sh', ['sh', '-c', sys.argv[1]])\n"
)


class LocalShell:
    """Runs scripts here, each in a process group of its own."""

    def __init__(self) -> None:
        self._ending: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        return "127.0.0.1"

    async def run(self, script: str, *, timeout: float) -> Reply:
        channel = await _start(SHELL)
        call = Call(channel, script)
        try:
            async with asyncio.timeout(timeout):
                reply = await call.answer()
        except TimeoutError:
            self._later(call.stop())
            raise Indeterminate(f"No whole answer within {timeout:g} s", seconds=timeout) from None
        except BaseException:
            self._later(call.stop())
            raise
        self._later(channel.gone.wait())
        return reply

    async def feed(
        self, script: str, data: AsyncIterable[bytes], *, idle_timeout: float, timeout: float
    ) -> Reply:
        channel = await _start(SHELL)
        try:
            return await feed(
                channel,
                script,
                data,
                start_within=START_WITHIN,
                idle_timeout=idle_timeout,
                timeout=timeout,
            )
        finally:
            self._later(leave(channel))

    def stream(
        self, script: str, *, idle_timeout: float | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        return self._stream(script, idle_timeout)

    @asynccontextmanager
    async def _stream(
        self, script: str, idle_timeout: float | None
    ) -> AsyncGenerator[AsyncIterator[bytes], None]:
        channel = await _start(SHELL)
        try:
            chunks = follow(channel, script, start_within=START_WITHIN, idle_timeout=idle_timeout)
            async with aclosing(chunks):
                yield chunks
        finally:
            self._later(leave(channel))

    def terminal(
        self, command: str, *, tty: bool, columns: int = 80, rows: int = 24
    ) -> AbstractAsyncContextManager[Terminal]:
        return self._terminal(command, tty, columns, rows)

    @asynccontextmanager
    async def _terminal(
        self, command: str, tty: bool, columns: int, rows: int
    ) -> AsyncGenerator[Terminal, None]:
        framed = command_line(command)
        channel: Channel
        if tty:
            channel = await _start_on_terminal(framed.text, columns, rows)
        else:
            channel = await _start(("/bin/sh", "-c", framed.text))
        try:
            yield ChannelTerminal(channel, framed.nonce)
        finally:
            self._later(_end(channel, first="HUP" if tty else "TERM"))

    def socket(self, remote_path: str) -> AbstractAsyncContextManager[str]:
        return self._socket(remote_path)

    @asynccontextmanager
    async def _socket(self, path: str) -> AsyncGenerator[str, None]:
        try:
            _, writer = await asyncio.open_unix_connection(path)
        except (OSError, ValueError) as error:
            raise EngineFailed(
                f"Cannot open the socket {path}: {_why(path, error)}", path=path
            ) from error
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        yield path

    async def close(self) -> None:
        """Waits until everything that was left is gone."""
        await asyncio.gather(*self._ending, return_exceptions=True)

    def _later(self, ending: Any) -> None:
        task = asyncio.ensure_future(ending)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


async def _end(channel: Channel, *, first: str) -> None:
    """Ends what a channel runs: the signal named first, SIGKILL a while later."""
    try:
        for name in (first, "KILL"):
            if not channel.gone.is_set():
                channel.signal(name)
                with suppress(TimeoutError):
                    await asyncio.wait_for(channel.gone.wait(), GRACE)
    finally:
        channel.close()


def _why(path: str, error: Exception) -> str:
    with suppress(OSError):
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return "not a socket"
    text = error.strerror if isinstance(error, OSError) else None
    return (text or str(error)).lower()


async def _start(argv: tuple[str, ...]) -> _PipeChannel:
    channel = _PipeChannel()
    await asyncio.get_running_loop().subprocess_exec(
        lambda: channel, *argv, start_new_session=True, cwd=Path.home()
    )
    return channel


class _PipeChannel(Channel, asyncio.SubprocessProtocol):
    """A process on three pipes."""

    _transport: asyncio.SubprocessTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.SubprocessTransport)
        self._transport = transport

    def pipe_data_received(self, fd: int, data: bytes | str) -> None:
        assert isinstance(data, bytes)
        self.arrived(fd, data)

    def process_exited(self) -> None:
        code = self._transport.get_returncode()
        assert code is not None
        self.exited(code if code >= 0 else 128 - code)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport.close()
        self.finished()
        self.gone.set()

    def _pipe(self, fd: int) -> Any:
        return self._transport.get_pipe_transport(fd)

    def write(self, data: bytes) -> None:
        if not self._over and not self._pipe(0).is_closing():
            self._pipe(0).write(data)

    def write_eof(self) -> None:
        if not self._over and not self._pipe(0).is_closing():
            self._pipe(0).write_eof()

    def signal(self, name: str) -> None:
        _signal_group(self._transport.get_pid(), name)

    def close(self) -> None:
        _let_go(self._transport)

    def resize(self, columns: int, rows: int) -> None:
        """Pipes have no size."""

    def _pause_reading(self) -> None:
        for fd in (1, 2):
            if not self._pipe(fd).is_closing():
                self._pipe(fd).pause_reading()

    def _resume_reading(self) -> None:
        for fd in (1, 2):
            if not self._pipe(fd).is_closing():
                self._pipe(fd).resume_reading()


async def _start_on_terminal(command: str, columns: int, rows: int) -> _PtyChannel:
    ours, theirs = pty.openpty()
    try:
        channel = _PtyChannel(ours)
        channel.resize(columns, rows)
        await asyncio.get_running_loop().subprocess_exec(
            lambda: channel.process,
            *(sys.executable, "-I", "-S", "-c", TAKE_TERMINAL, command),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            cwd=Path.home(),
            env={"TERM": "xterm-256color", **os.environ},
        )
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    channel.open()
    return channel


class _PtyChannel(Channel):
    """A process on a pseudo-terminal, whose our end is read by the event loop."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self.process = _PtyProcess(self)
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        self._unsent = bytearray()
        self._at_end = False

    def open(self) -> None:
        os.set_blocking(self._fd, False)
        self._loop.add_reader(self._fd, self._readable)

    def _readable(self) -> None:
        try:
            data = os.read(self._fd, CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            # Linux says so when the last process has closed the terminal.
            if error.errno != errno.EIO:
                raise
            data = b""
        if data:
            self.arrived(STDOUT, data)
        else:
            self._at_end = True
            self._loop.remove_reader(self._fd)
            if self.status is not None:
                self.finished()

    def exited(self, status: int) -> None:
        super().exited(status)
        if self._at_end:
            self.finished()

    def write(self, data: bytes) -> None:
        if self._fd < 0 or self._over:
            return
        self._unsent += data
        self._send()

    def _send(self) -> None:
        try:
            del self._unsent[: os.write(self._fd, self._unsent)]
        except BlockingIOError:
            pass
        except OSError:
            self._unsent.clear()
        if self._unsent:
            self._loop.add_writer(self._fd, self._send)
            self.pause_writing()
        else:
            self._loop.remove_writer(self._fd)
            self.resume_writing()

    def write_eof(self) -> None:
        """On a terminal, end of input is a character."""
        self.write(b"\x04")

    def signal(self, name: str) -> None:
        _signal_group(self.process.pid, name)

    def close(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            self._loop.remove_writer(self._fd)
            os.close(self._fd)
            self._fd = -1
        self.process.close()
        self.finished()

    def resize(self, columns: int, rows: int) -> None:
        if self._fd >= 0:
            fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def _pause_reading(self) -> None:
        self._loop.remove_reader(self._fd)

    def _resume_reading(self) -> None:
        if self._fd >= 0 and not self._at_end:
            self._loop.add_reader(self._fd, self._readable)


class _PtyProcess(asyncio.SubprocessProtocol):
    """Tells a terminal's channel how its process ended."""

    pid = 0

    def __init__(self, channel: _PtyChannel) -> None:
        self._channel = channel

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.SubprocessTransport)
        self._transport = transport
        self.pid = transport.get_pid()

    def process_exited(self) -> None:
        code = self._transport.get_returncode()
        assert code is not None
        self._channel.exited(code if code >= 0 else 128 - code)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport.close()
        self._channel.gone.set()

    def close(self) -> None:
        _let_go(self._transport)


def _let_go(transport: asyncio.SubprocessTransport) -> None:
    """Closes a process's pipes and kills what has not ended.

    Not by the transport's own ``close``: that polls, and so takes the exit status away from
    asyncio's watcher, which then has none to tell.
    """
    if transport.get_returncode() is not None:
        transport.close()
        return
    for fd in (0, 1, 2):
        if (pipe := transport.get_pipe_transport(fd)) is not None:
            pipe.close()
    with suppress(ProcessLookupError):
        os.kill(transport.get_pid(), signal.SIGKILL)


def _signal_group(pid: int, name: str) -> None:
    # A group outlives its leader as long as a member does, and its number with it.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.Signals[f"SIG{name}"])
