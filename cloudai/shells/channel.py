"""One process at the other end, and the three ways it is talked to. Both shells share these, so
that a script behaves the same over SSH and on this machine.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Coroutine
from contextlib import suppress
from typing import Any

from cloudai.core.errors import EngineFailed, Indeterminate, WorkerUnreachable
from cloudai.shells import Reply
from cloudai.shells.framing import (
    Framed,
    began,
    ended,
    frame,
    frame_input,
    frame_stream,
    process_of,
    stop_line,
    unframe,
)

log = logging.getLogger(__name__)

STDOUT, STDERR = 1, 2
HELD_AT_MOST = 4 * 1024**2
"""Bytes read and not yet taken, above which the other end is asked to wait."""
GRACE = 2.0
"""Seconds between the polite and the hard end of a process group."""
WORDS_AT_MOST = 4096
"""Bytes of stderr kept for messages and the debug log."""
NOISE_AT_MOST = 1024**2
"""Bytes a login shell may print before the script runs."""
ANSWER_AT_MOST = 64 * 1024**2
"""Bytes of one whole answer: thousands of containers, each described at length."""
STRAGGLE = 2.0
"""Seconds without output after which a process that ended counts as done, though a child of it
still holds its streams open."""


class Channel(ABC):
    """A process with its streams. The transport calls the first group of methods."""

    def __init__(self) -> None:
        self.status: int | None = None
        """Its exit status, 128 + n when signal n ended it; ``None``: not known (yet)."""
        self._chunks: deque[tuple[int, bytes]] = deque()
        self._held = 0
        self._paused = False
        self._fresh = asyncio.Event()
        self._over = False
        self._quiet_since = 0.0
        self._writable = asyncio.Event()
        self._writable.set()
        self.ended = asyncio.Event()
        """Set once the process ended, or nothing more will be heard of it."""
        self.gone = asyncio.Event()
        """Set once the transport itself is closed."""

    # ------------------------------------------------------------ called by the transport

    def arrived(self, fd: int, data: bytes) -> None:
        """Output came on descriptor 1 or 2."""
        if self._over:
            return
        self._quiet_since = asyncio.get_running_loop().time()
        self._chunks.append((fd, data))
        self._held += len(data)
        if self._held > HELD_AT_MOST and not self._paused:
            self._paused = True
            self._pause_reading()
        self._fresh.set()

    def exited(self, status: int) -> None:
        """The process ended; a child of it may hold its streams open, and is not waited for."""
        self.status = status
        self.ended.set()
        self._quiet_since = asyncio.get_running_loop().time()
        self._finish_when_quiet()

    def finished(self) -> None:
        """Nothing more will come."""
        self._over = True
        self.ended.set()
        self._writable.set()
        self._fresh.set()

    def _finish_when_quiet(self) -> None:
        if self._over:
            return
        loop = asyncio.get_running_loop()
        left = self._quiet_since + STRAGGLE - loop.time()
        if self._paused or left > 0:
            loop.call_later(max(left, 0.1), self._finish_when_quiet)
        else:
            self.finished()

    def pause_writing(self) -> None:
        if not self._over:
            self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # ------------------------------------------------------------ called by us

    async def read(self) -> tuple[int, bytes]:
        """Next output: (1 or 2, bytes); ``(0, b"")`` once both streams ended."""
        while not self._chunks:
            if self._over:
                return 0, b""
            self._fresh.clear()
            await self._fresh.wait()
        fd, data = self._chunks.popleft()
        self._held -= len(data)
        if self._paused and self._held <= HELD_AT_MOST // 2:
            self._paused = False
            self._resume_reading()
        return fd, data

    async def drain(self) -> None:
        """Returns when the other end takes more."""
        await self._writable.wait()

    @abstractmethod
    def write(self, data: bytes) -> None:
        """To its stdin; dropped when nobody reads there any more."""

    @abstractmethod
    def write_eof(self) -> None: ...

    @abstractmethod
    def signal(self, name: str) -> None:
        """``TERM``, ``KILL`` or ``HUP`` to its process group, as far as it can be reached."""

    @abstractmethod
    def close(self) -> None:
        """Lets go of it at once."""

    @abstractmethod
    def resize(self, columns: int, rows: int) -> None: ...

    @abstractmethod
    def _pause_reading(self) -> None: ...

    @abstractmethod
    def _resume_reading(self) -> None: ...


class Words:
    """The last of a program's stderr, for messages."""

    def __init__(self) -> None:
        self._kept = bytearray()

    def add(self, data: bytes) -> None:
        self._kept += data
        del self._kept[:-WORDS_AT_MOST]

    def __str__(self) -> str:
        return self._kept.decode("utf-8", "replace").strip()


class Call:
    """One script sent over a channel for one whole reply."""

    def __init__(self, channel: Channel, script: str, *, reads: bool = False) -> None:
        """``reads``: what is sent once it has ``begun`` is the script's stdin."""
        self._channel = channel
        self._framed = frame_input(script) if reads else frame(script)
        self._out = bytearray()
        self.begun = asyncio.Event()

    async def answer(self) -> Reply:
        """Raises ``Indeterminate`` when the reply is not whole, ``WorkerUnreachable`` when the
        login ended without running anything (its words are in the message).

        Who does not wait for it to return or raise calls ``stop``.
        """
        out, words, nonce = self._out, Words(), self._framed.nonce
        self._channel.write(self._framed.sent)
        while True:
            fd, data = await self._channel.read()
            if fd == STDERR:
                words.add(data)
                continue
            out += data
            if not self.begun.is_set() and began(nonce, out) >= 0:
                self.begun.set()
            if fd == 0 or ended(nonce, out, len(out) - len(data)):
                break
            if len(out) > ANSWER_AT_MOST:
                raise Indeterminate(
                    "The worker answers without end",
                    hint="something there floods the log-in: look at it by `ssh`",
                )
        if str(words):
            log.debug("stderr of a script: %s", words)
        reply = unframe(nonce, out)
        if reply is None:
            raise _why_cut(self._channel, self._framed, out, words)
        self._channel.close()
        return reply

    async def stop(self) -> None:
        """Ends the script and all its children before their time, and lets go."""
        try:
            if not self._channel.gone.is_set():
                self._channel.write(stop_line(self._framed.nonce))
                self._channel.write_eof()
                # What has not begun is kept from beginning by letting go at once.
                if began(self._framed.nonce, self._out) >= 0:
                    await _within(GRACE + 1, self._channel.gone.wait())
        finally:
            self._channel.close()


async def feed(
    channel: Channel,
    script: str,
    data: AsyncIterable[bytes],
    *,
    start_within: float,
    idle_timeout: float,
    timeout: float,
) -> Reply:
    """Sends a script and then its stdin; see ``Shell.feed``. ``start_within``: seconds in which
    it must begin. Whoever calls leaves the channel by ``leave``."""
    call = Call(channel, script, reads=True)
    answering = asyncio.ensure_future(call.answer())
    feeding = asyncio.ensure_future(_pass_on(call, channel, data, start_within, idle_timeout))
    try:
        await asyncio.wait({answering, feeding}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            await feeding
            await asyncio.wait({answering}, timeout=timeout)
        if not answering.done():
            raise Indeterminate(
                f"No whole answer from the worker {timeout:g} s after all was sent",
                seconds=timeout,
            )
        return await answering
    finally:
        for part in (answering, feeding):
            part.cancel()
        await asyncio.gather(answering, feeding, return_exceptions=True)


async def _pass_on(
    call: Call,
    channel: Channel,
    data: AsyncIterable[bytes],
    start_within: float,
    idle_timeout: float,
) -> None:
    # Not by wait_for: it forgets that it was cancelled when what it waits for is there.
    try:
        async with asyncio.timeout(start_within):
            await call.begun.wait()
    except TimeoutError:
        raise Indeterminate(
            f"The worker gave no answer for {start_within:g} s", seconds=start_within
        ) from None
    async for chunk in data:
        channel.write(chunk)
        try:
            async with asyncio.timeout(idle_timeout):
                await channel.drain()
        except TimeoutError:
            raise Indeterminate(
                f"The worker took no more of what was sent for {idle_timeout:g} s",
                seconds=idle_timeout,
            ) from None
        if channel.ended.is_set():
            return
    channel.write_eof()


async def follow(
    channel: Channel, script: str, *, start_within: float, idle_timeout: float | None
) -> AsyncGenerator[bytes, None]:
    """Sends a script and yields its stdout as it comes.

    ``start_within``: seconds in which it must begin, ``idle_timeout``: seconds without output;
    ``Indeterminate`` is raised after either. Ends and raises as ``Shell.stream`` says.
    """
    framed = frame_stream(script)
    channel.write(framed.sent)
    out: bytearray | None = bytearray()
    words = Words()
    wait: float | None = start_within
    while True:
        try:
            async with asyncio.timeout(wait):
                fd, data = await channel.read()
        except TimeoutError:
            what = "no output" if out is None else "no answer"
            raise Indeterminate(f"The worker gave {what} for {wait:g} s", seconds=wait) from None
        if fd == 0:
            break
        if fd == STDERR:
            words.add(data)
        elif out is None:
            yield data
        else:
            out += data
            start = began(framed.nonce, out)
            if start >= 0:
                first, out, wait = bytes(out[start:]), None, idle_timeout
                if first:
                    yield first
            else:
                _refuse_noise(out)
    if out is not None:
        raise _why_cut(channel, framed, out, words)
    if channel.status is None:
        raise Indeterminate("The connection to the worker ended while its output was read")
    if channel.status != 0:
        raise EngineFailed(
            str(words) or f"The script on the worker ended with status {channel.status}",
            status=channel.status,
        )


class ChannelTerminal:
    """A ``Terminal`` over a channel that runs ``framing.command_line``."""

    def __init__(self, channel: Channel, nonce: str) -> None:
        self._channel = channel
        self._nonce = nonce
        self._noise: bytearray | None = bytearray()
        self.pid: int | None = None
        """The command's process id there, once it has begun."""

    async def read(self) -> tuple[int, bytes]:
        while True:
            fd, data = await self._next()
            if data or fd == 0:
                return fd, data

    async def begun(self) -> None:
        """Returns once ``pid`` is known or never will be; may take some of its output."""
        while self.pid is None and (await self._next())[0]:
            pass

    async def _next(self) -> tuple[int, bytes]:
        """Output without what came before our mark; may be none."""
        fd, data = await self._channel.read()
        if self._noise is None or fd == STDERR:
            return fd, data
        noise = self._noise
        if fd == 0:
            # Our mark never came: what the login printed is all there is to show.
            self._noise = None
            return (STDOUT, bytes(noise)) if noise else (0, b"")
        noise += data
        start = began(self._nonce, noise)
        if start < 0:
            _refuse_noise(noise)
            return fd, b""
        self.pid, self._noise = process_of(self._nonce, noise), None
        return fd, bytes(noise[start:])

    async def write(self, data: bytes) -> None:
        if data:
            self._channel.write(data)
            await self._channel.drain()
        else:
            self._channel.write_eof()

    async def resize(self, columns: int, rows: int) -> None:
        self._channel.resize(columns, rows)

    async def wait(self) -> int:
        await self._channel.ended.wait()
        if self._channel.status is None:
            raise Indeterminate("The connection to the worker ended before the command did")
        return self._channel.status

    async def close(self) -> None:
        self._channel.signal("HUP")
        self._channel.close()


async def leave(channel: Channel) -> None:
    """Closes a script's stdin, by which one that streams or is fed ends itself, and lets go of
    it: at once it would be killed in the middle of what it does about that end."""
    try:
        channel.write_eof()
        await _within(GRACE + 1, channel.gone.wait())
    finally:
        channel.close()


async def _within(seconds: float, event: Coroutine[Any, Any, Any]) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(event, seconds)


def _refuse_noise(noise: bytearray) -> None:
    if len(noise) > NOISE_AT_MOST:
        raise WorkerUnreachable(
            "Failed to connect to worker: its login prints without end",
            hint="look at the login shell's start-up files on the worker",
        )


def _why_cut(
    channel: Channel, framed: Framed, out: bytearray, words: Words
) -> Indeterminate | WorkerUnreachable:
    """Nothing is known when the script may have run; a login that refused is another matter."""
    if began(framed.nonce, out) >= 0 or channel.status is None or channel.status > 128:
        return Indeterminate("The worker's answer was cut; nothing is known of what it was about")
    said = bytes(out[:WORDS_AT_MOST]).decode("utf-8", "replace")
    said = " ".join(f"{said} {words}".split()) or f"status {channel.status}"
    return WorkerUnreachable(
        f"Failed to connect to worker: the login there runs no commands: {said}",
        hint="the account needs a login shell that runs what it is given (see `getent passwd`)",
        status=channel.status,
    )
