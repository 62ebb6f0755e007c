"""The channels of one worker's connections.

sshd allows ``MaxSessions`` (10) programs at once on a connection, frees a place late, and may be
set to fewer (facts, 4). So few are used at a time, what a worker allows is learnt from its
refusals, and a further connection is opened where lasting channels would leave no place for
short calls.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import asyncssh
from tenacity import (
    AsyncRetrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)

from cloudai.shells.channel import STDERR, STDOUT, Channel
from cloudai.shells.ssh_connect import Connection, Shared

CHANNELS = 6
"""In flight a connection: with 8 one in ten was refused, with 6 none (facts, 4)."""
LANES = 8
"""Connections to one worker at the most; one is the rule."""
REFUSALS = 12
"""Of a channel, before it is given up."""


class SshChannel(Channel, asyncssh.SSHClientSession[bytes]):
    """A program on the worker."""

    _chan: asyncssh.SSHClientChannel[bytes]

    def __init__(self, on_gone: Callable[[], None]) -> None:
        super().__init__()
        self._on_gone = on_gone

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        self._chan = chan

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        self.arrived(STDERR if datatype == asyncssh.EXTENDED_DATA_STDERR else STDOUT, data)

    def eof_received(self) -> bool:
        # Its status is still to come.
        return True

    def exit_status_received(self, status: int) -> None:
        self.exited(status)

    def exit_signal_received(self, signal: str, core_dumped: bool, msg: str, lang: str) -> None:
        self.exited(128 + _number(signal))

    def connection_lost(self, exc: Exception | None) -> None:
        self.finished()
        self.gone.set()
        self._on_gone()

    def write(self, data: bytes) -> None:
        with suppress(OSError):
            self._chan.write(data)

    def write_eof(self) -> None:
        with suppress(OSError):
            self._chan.write_eof()

    def signal(self, name: str) -> None:
        with suppress(OSError):
            self._chan.send_signal(name)

    def close(self) -> None:
        self._chan.close()

    def resize(self, columns: int, rows: int) -> None:
        with suppress(OSError):
            self._chan.change_terminal_size(columns, rows)

    def _pause_reading(self) -> None:
        self._chan.pause_reading()

    def _resume_reading(self) -> None:
        self._chan.resume_reading()


class Lane:
    """One connection, and how much of it is taken."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.limit = CHANNELS
        self.short = 0
        self.lasting = 0
        self._refused_before = False

    @property
    def taken(self) -> int:
        return self.short + self.lasting

    def has_room(self, *, lasting: bool, first: bool) -> bool:
        """The first lane always keeps a place for short calls."""
        return self.taken < (self.limit - 1 if lasting and first else self.limit)

    def take(self, *, lasting: bool) -> None:
        if lasting:
            self.lasting += 1
        else:
            self.short += 1

    def release(self, *, lasting: bool) -> None:
        if lasting:
            self.lasting -= 1
        else:
            self.short -= 1

    def refused(self) -> None:
        """sshd said no to one more. Once may be a place freed late; twice is what it allows."""
        if self._refused_before:
            self.limit = max(1, min(self.limit, self.taken - 1))
        self._refused_before = True

    def accepted(self) -> None:
        self._refused_before = False


class Lanes:
    """All connections to one worker; ``dial`` opens one more."""

    def __init__(self, dial: Callable[[], Coroutine[Any, Any, Connection]]) -> None:
        self._dial = dial
        self._lanes: list[Lane] = []
        self._opening: Shared[None] = Shared()
        self._freed = asyncio.Event()

    @property
    def alive(self) -> bool:
        return any(lane.connection.alive for lane in self._lanes)

    async def connection(self) -> Connection:
        """A connection, for what takes no session's place."""
        while True:
            self._drop_dead()
            if self._lanes:
                return self._lanes[0].connection
            await self._opening.get(self._add)

    async def open(
        self, command: str, *, lasting: bool, terminal: tuple[int, int] | None
    ) -> SshChannel:
        """A channel on which that command runs. ``terminal``: columns and rows."""
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(asyncssh.ChannelOpenError),
            stop=stop_after_attempt(REFUSALS),
            wait=wait_random_exponential(multiplier=0.02, max=1),
            reraise=True,
        )
        async for attempt in retrying:
            with attempt:
                lane = await self._lane(lasting=lasting)
                return await self._open_on(lane, command, lasting=lasting, terminal=terminal)
        raise AssertionError("tenacity raises the last refusal")

    async def close(self) -> None:
        await self._opening.cancel()
        lanes, self._lanes = self._lanes, []
        for lane in lanes:
            await lane.connection.close()
        self._freed.set()

    # ------------------------------------------------------------ the steps

    async def _lane(self, *, lasting: bool) -> Lane:
        """Takes a place; waits for one where none is free and no connection may be added."""
        while True:
            self._drop_dead()
            for index, lane in enumerate(self._lanes):
                if lane.has_room(lasting=lasting, first=index == 0):
                    lane.take(lasting=lasting)
                    return lane
            # Short calls end soon: those are waited for, lasting ones are not.
            soon = not lasting and any(lane.short for lane in self._lanes)
            if not soon and len(self._lanes) < LANES:
                await self._opening.get(self._add)
            else:
                self._freed.clear()
                await self._freed.wait()

    async def _add(self) -> None:
        connection = await self._dial()
        self._lanes.append(Lane(connection))

    def _drop_dead(self) -> None:
        self._lanes = [lane for lane in self._lanes if lane.connection.alive]

    async def _open_on(
        self, lane: Lane, command: str, *, lasting: bool, terminal: tuple[int, int] | None
    ) -> SshChannel:
        place = _Place(lane, lasting, self._freed)
        channel = SshChannel(place.release)
        opening = asyncio.ensure_future(
            lane.connection.ssh.create_session(
                lambda: channel,
                command,
                encoding=None,
                request_pty="force" if terminal else False,
                term_type="xterm-256color" if terminal else None,
                term_size=terminal,
            )
        )
        try:
            await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(lambda done: _abandon(done, channel, place))
            raise
        except BaseException as error:
            if isinstance(error, asyncssh.ChannelOpenError):
                lane.refused()
            place.release()
            raise
        lane.accepted()
        return channel


class _Place:
    """A place taken on a lane; given back once, by whoever first finds it unused."""

    def __init__(self, lane: Lane, lasting: bool, freed: asyncio.Event) -> None:
        self._lane: Lane | None = lane
        self._lasting = lasting
        self._freed = freed

    def release(self) -> None:
        if self._lane is not None:
            self._lane.release(lasting=self._lasting)
            self._lane = None
            self._freed.set()


def _abandon(opening: asyncio.Future[Any], channel: SshChannel, place: _Place) -> None:
    """Nobody waits for that channel any more: close it as soon as it opens."""
    if opening.cancelled() or opening.exception() is not None:
        place.release()
    else:
        channel.close()


def _number(name: str) -> int:
    return signal.Signals.__members__.get(f"SIG{name}", signal.SIGKILL).value
