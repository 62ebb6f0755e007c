"""One handshake with one sshd: who is there, who we are, and how long it may take."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import asyncssh
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)

from cloudai.core.errors import AuthenticationFailed, CloudaiError, WorkerUnreachable
from cloudai.shells.hostkeys import HostKey, KnownHosts, Shown, Verdict, known_name
from cloudai.shells.ssh_config import Destination, KeyFiles, Keyring, SshConfig
from cloudai.shells.ssh_errors import HandshakeDropped, cannot_connect, connect_error

log = logging.getLogger(__name__)

T = TypeVar("T")

HANDSHAKES_A_DOOR = 8
"""At once to one sshd: of 32 at once a quarter was dropped (facts, 13)."""
HANDSHAKES = 32
"""At once in all: each costs this machine milliseconds of arithmetic, and its timer runs."""
TRIES = 6
"""Of a handshake that was dropped, within one call; after the first, one at a time."""
CIPHERS = "^aes128-gcm@openssh.com"
"""Before the others: a packet costs half as much to open by it as by the usual first."""
KNOCK_AGAIN = 60.0
"""Seconds after which a person's next call may offer the same keys again where they were
refused; sshd bans for less patience (facts, 4)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """In seconds."""

    connect: float = 10.0
    """To reach sshd; ``ConnectTimeout`` of ssh_config goes first."""
    login: float = 20.0
    """For the handshake and to be let in."""
    command: float = 30.0
    """For a stream or a terminal to begin."""
    keepalive: float = 5.0
    """Of silence before each question whether the other side is still there; three unanswered
    end it. ``ServerAliveInterval`` of ssh_config goes first."""


class Connection:
    """An open, authenticated connection, and whether it still is."""

    def __init__(self, ssh: asyncssh.SSHClientConnection, lost: asyncio.Event) -> None:
        self.ssh = ssh
        self._lost = lost

    @property
    def alive(self) -> bool:
        return not self._lost.is_set()

    async def close(self) -> None:
        self.ssh.close()
        try:
            async with asyncio.timeout(2):
                await self.ssh.wait_closed()
        except TimeoutError:
            self.ssh.abort()


class Shared(Generic[T]):
    """Something that takes a while to make, made once for all who wait for it together.

    Who stops waiting does not stop the others.
    """

    def __init__(self) -> None:
        self._making: asyncio.Task[T] | None = None

    async def get(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        if self._making is None or self._making.done():
            self._making = asyncio.create_task(make())
            # Nobody may be left to hear of a failure.
            self._making.add_done_callback(_heard)
        return await asyncio.shield(self._making)

    async def cancel(self) -> None:
        if self._making is not None:
            self._making.cancel()
            await asyncio.gather(self._making, return_exceptions=True)


@dataclass(slots=True)
class _Door:
    """The sshd at one place, with how many may knock there at once."""

    many: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(HANDSHAKES_A_DOOR))
    alone: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(frozen=True, slots=True)
class _Refusal:
    error: AuthenticationFailed
    shown: tuple[bytes, ...]
    at: float


class Dialler:
    """Opens connections; remembers who refused us, and shares jump hosts."""

    def __init__(self, config: SshConfig, known_hosts: KnownHosts, timeouts: Timeouts) -> None:
        self.config = config
        self.known_hosts = known_hosts
        self.timeouts = timeouts
        self._keys = KeyFiles()
        self._all = asyncio.Semaphore(HANDSHAKES)
        self._doors: dict[tuple[Destination | None, str, int], _Door] = {}
        self._refusals: dict[Destination, _Refusal] = {}
        self._jumps: dict[Destination, Connection] = {}
        self._jumping: dict[Destination, Shared[Connection]] = {}

    async def dial(self, destination: Destination) -> Connection:
        """A fresh connection. Raises ``WorkerUnreachable`` and its children, translated."""
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(HandshakeDropped),
            stop=stop_after_attempt(TRIES),
            wait=wait_random_exponential(multiplier=0.1, max=2),
            reraise=True,
            before_sleep=_log_drop,
        )
        async for attempt in retrying:
            with attempt:
                return await self._handshake(
                    destination, again=attempt.retry_state.attempt_number > 1
                )
        raise AssertionError("tenacity raises the last failure")

    async def show_key(self, destination: Destination) -> asyncssh.SSHKey:
        """The key the host shows, without logging in."""
        tunnel = await self._tunnel(destination)
        client = _Client(self, destination, peek=True)
        try:
            async with self._knocking(destination, again=False) as deadline:
                client.deadline = deadline
                connection = await asyncssh.connect(
                    **self._options(destination, client, tunnel, Keyring())
                )
                connection.abort()
        except Exception as error:
            if client.shown is not None:
                return client.shown
            raise self._failed(error, destination, client, Keyring()) from error
        raise cannot_connect("it shows no host key", destination)

    def forget_refusals(self, destination: Destination) -> None:
        """A person acted: the next call may knock again, jump hosts included."""
        step: Destination | None = destination
        while step is not None:
            self._refusals.pop(step.way, None)
            step = step.jump

    async def close(self) -> None:
        for shared in self._jumping.values():
            await shared.cancel()
        # The last hop first: each lives inside the one before it.
        for connection in reversed(self._jumps.values()):
            await connection.close()
        self._jumps.clear()

    # ------------------------------------------------------------ the steps

    async def _handshake(self, destination: Destination, *, again: bool) -> Connection:
        tunnel = await self._tunnel(destination)
        client = _Client(self, destination)
        async with AsyncExitStack() as stack:
            ring = await self._ring(destination, stack)
            self._stop_if_refused(destination, ring)
            try:
                async with self._knocking(destination, again=again) as deadline:
                    client.deadline = deadline
                    ssh = await asyncssh.connect(**self._options(destination, client, tunnel, ring))
            except Exception as error:
                raise self._failed(error, destination, client, ring) from error
        self._refusals.pop(destination.way, None)
        return Connection(ssh, client.lost)

    async def _tunnel(self, destination: Destination) -> asyncssh.SSHClientConnection | None:
        """The connection to the jump host before it, shared by all workers behind that."""
        if destination.jump is None:
            return None
        way = destination.jump.way
        open_one = self._jumps.get(way)
        if open_one is None or not open_one.alive:
            shared = self._jumping.setdefault(way, Shared())
            jump = destination.jump
            open_one = await shared.get(lambda: self._open_jump(jump))
        return open_one.ssh

    async def _open_jump(self, jump: Destination) -> Connection:
        self._jumps.pop(jump.way, None)
        connection = self._jumps[jump.way] = await self.dial(jump)
        return connection

    @asynccontextmanager
    async def _knocking(
        self, destination: Destination, *, again: bool
    ) -> AsyncGenerator[asyncio.Timeout, None]:
        """Waits for a turn at that sshd; the clock runs only from then on."""
        jump = destination.jump.way if destination.jump else None
        door = self._doors.setdefault((jump, destination.host, destination.port), _Door())
        async with AsyncExitStack() as turn:
            if again:
                await turn.enter_async_context(door.alone)
            await turn.enter_async_context(door.many)
            await turn.enter_async_context(self._all)
            limit = destination.connect_timeout or self.timeouts.connect
            async with asyncio.timeout(limit) as deadline:
                yield deadline

    async def _ring(self, destination: Destination, stack: AsyncExitStack) -> Keyring:
        in_agent: list[asyncssh.SSHKeyPair] = []
        if destination.agent:
            try:
                async with asyncio.timeout(self.timeouts.connect):
                    agent = await stack.enter_async_context(
                        asyncssh.connect_agent(destination.agent)
                    )
                    in_agent = list(await agent.get_keys())
            except (OSError, ValueError, TimeoutError) as error:
                log.debug("the agent at %s does not answer: %s", destination.agent, error)
        return self._keys.ring(destination, in_agent)

    def _stop_if_refused(self, destination: Destination, ring: Keyring) -> None:
        refusal = self._refusals.get(destination.way)
        if (
            refusal is not None
            and refusal.shown == ring.shown
            and time.monotonic() - refusal.at < KNOCK_AGAIN
        ):
            raise refusal.error

    def _options(
        self,
        destination: Destination,
        client: _Client,
        tunnel: asyncssh.SSHClientConnection | None,
        ring: Keyring,
    ) -> dict[str, Any]:
        user, port = destination.asked
        interval, times = destination.keepalive or (self.timeouts.keepalive, 3)
        options: dict[str, Any] = {
            "host": destination.alias,
            "config": self.config.paths,
            "client_factory": lambda: client,
            "tunnel": tunnel,
            "known_hosts": client.known_authorities,
            "x509_trusted_certs": None,
            "x509_trusted_cert_paths": [],
            # asyncssh loads keys of its own where it is given an empty list.
            "client_keys": list(ring.pairs) or None,
            "agent_path": None,
            "agent_identities": None,
            "agent_forwarding": False,
            "x11_forwarding": False,
            "password_auth": False,
            "kbdint_auth": False,
            "gss_kex": False,
            "command": None,
            "request_pty": False,
            "send_env": None,
            "encoding": None,
            "connect_timeout": None,
            "login_timeout": 0,
            "keepalive_interval": interval,
            "keepalive_count_max": times,
        }
        if user is not None:
            options["username"] = user
        if port is not None:
            options["port"] = port
        if not destination.own_key_algorithms or client.peek:
            options["server_host_key_algs"] = client.algorithms()
        if not destination.own_ciphers:
            options["encryption_algs"] = CIPHERS
        return options

    def _failed(
        self, error: Exception, destination: Destination, client: _Client, ring: Keyring
    ) -> CloudaiError:
        if isinstance(error, TimeoutError) and client.deadline and client.deadline.expired():
            return cannot_connect(
                "login timed out" if client.connected else "timed out", destination
            )
        if isinstance(error, asyncssh.HostKeyNotVerifiable):
            return client.host_key_error(str(error))
        translated = connect_error(error, destination, ring)
        if isinstance(translated, AuthenticationFailed):
            self._refusals[destination.way] = _Refusal(translated, ring.shown, time.monotonic())
        return translated


class _Client(asyncssh.SSHClient):
    """What asyncssh asks and tells during one handshake."""

    def __init__(self, dialler: Dialler, destination: Destination, *, peek: bool = False) -> None:
        self.peek = peek
        """Only look at the key the host shows."""
        self.connected = False
        self.lost = asyncio.Event()
        self.shown: asyncssh.SSHKey | None = None
        self.deadline: asyncio.Timeout | None = None
        self._login_timeout = dialler.timeouts.login
        self._known_hosts = dialler.known_hosts
        self._destination = destination
        self._files = dialler.known_hosts.files(destination.known_hosts)
        self._shown_name = ""
        self._verdict = Verdict.UNKNOWN

    def algorithms(self) -> list[str]:
        """Host key types to ask for, best first."""
        names = self._known_hosts.algorithms(self._destination.known_name, self._files)
        return [name for name in names if "-cert-" not in name] if self.peek else names

    def known_authorities(self, host: str, addr: str, port: int | None) -> tuple[Any, Any, Any]:
        """For asyncssh in place of known_hosts: it checks certificates; keys are our matter."""
        known = self._known_hosts.about(self._name(host, port or 22), self._files)
        if self.peek or not known.authorities:
            return [], [], []
        return [], known.authorities, known.revoked

    def validate_host_public_key(
        self, host: str, addr: str, port: int, key: asyncssh.SSHKey
    ) -> bool:
        self.shown = key
        self._shown_name = self._name(host, port)
        self._verdict = self._known_hosts.judge(key, self._shown_name, self._files)
        return self._verdict is Verdict.TRUSTED and not self.peek

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        self.connected = True
        if self.deadline is not None and not self.deadline.expired():
            self.deadline.reschedule(asyncio.get_running_loop().time() + self._login_timeout)
        _acknowledge_at_once(conn)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()

    def host_key_error(self, said: str) -> WorkerUnreachable:
        """Why the host's key was not accepted, with what mends it."""
        there = self._destination
        if self.shown is None:
            # A certificate, or a revoked key beside one: asyncssh says why.
            return cannot_connect(said[:1].lower() + said[1:], there)
        shown = Shown(
            HostKey.of(self.shown, self._shown_name),
            self._shown_name,
            host=there.host,
            port=there.port,
            worker=there.worker,
            jump=there.is_jump,
            pin_line=there.pin_line,
        )
        if self._verdict is Verdict.REVOKED:
            return shown.revoked()
        if self._verdict is Verdict.CHANGED:
            return shown.changed(self._known_hosts.about(self._shown_name, self._files))
        return shown.unknown()

    def _name(self, host: str, port: int) -> str:
        return known_name(host, port, self._destination.host_key_alias)


def _acknowledge_at_once(conn: asyncssh.SSHClientConnection) -> None:
    """sshd sends small packets only once the last one is acknowledged, and Linux takes 40 ms
    for that unless told otherwise, again and again (facts, 5)."""
    quick = getattr(socket, "TCP_QUICKACK", None)
    sock = conn.get_extra_info("socket")
    if quick is None or sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    receive = conn.data_received

    def receive_and_acknowledge(data: bytes, datatype: asyncssh.DataType = None) -> None:
        receive(data, datatype)
        with suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, quick, 1)

    # asyncssh offers no hook where data arrives; asyncio looks the method up each time.
    setattr(conn, "data_received", receive_and_acknowledge)  # noqa: B010


def _heard(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()


def _log_drop(state: RetryCallState) -> None:
    log.debug("handshake dropped, try %d", state.attempt_number)
