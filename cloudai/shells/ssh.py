"""Workers over SSH: ``SshNetwork`` is made once, by whoever owns the shells; it gives one
``SshShell`` a worker.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Coroutine
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import asyncssh

from cloudai.core.errors import (
    CloudaiError,
    HostKeyChanged,
    Indeterminate,
    WorkerUnreachable,
)
from cloudai.core.model import WorkerSpec
from cloudai.disk import disk_errors, make_private_folder
from cloudai.shells import Reply, Terminal
from cloudai.shells.channel import GRACE, Call, ChannelTerminal, feed, follow, leave
from cloudai.shells.framing import COMMAND, command_line, end_process, why_no_socket
from cloudai.shells.hostkeys import HostKey, KnownHosts, Shown, Verdict, same_fingerprint
from cloudai.shells.ssh_config import Destination, SshConfig
from cloudai.shells.ssh_connect import Connection, Dialler, Timeouts
from cloudai.shells.ssh_errors import call_error, socket_refused
from cloudai.shells.ssh_lanes import Lanes, SshChannel

T = TypeVar("T")

LEAVE_WITHIN = 0.3
"""Seconds in which a program ends whose stdin closed, as most do."""
SOCKET_PATH_AT_MOST = 100
"""Bytes: the address of a UNIX socket has 104 on a Mac, 108 on Linux."""


class SshNetwork:
    """Everything that SSH connections share: known hosts, keys, jump hosts, turns to knock.

    ``home``: ``CLOUDAI_HOME``, for our own known_hosts and the local ends of sockets.
    ``ssh_folder``: the user's ``~/.ssh``; ``config``: another ssh_config than the one in there.
    """

    def __init__(
        self,
        home: Path,
        *,
        ssh_folder: Path | None = None,
        config: Path | None = None,
        system_known_hosts: Path = Path("/etc/ssh/ssh_known_hosts"),
        timeouts: Timeouts | None = None,
    ) -> None:
        folder = ssh_folder or Path.home() / ".ssh"
        self.known_hosts = KnownHosts(
            home / "known_hosts", user=folder / "known_hosts", system=system_known_hosts
        )
        self.timeouts = timeouts or Timeouts()
        self._config = SshConfig(config or folder / "config", folder)
        self.dialler = Dialler(self._config, self.known_hosts, self.timeouts)
        self._sockets = _SocketFolder(home / "sockets")

    def shell(self, spec: WorkerSpec) -> SshShell:
        """A shell for that worker. Connects on first use."""
        return SshShell(self, spec)

    async def destination(self, spec: WorkerSpec) -> Destination:
        """Where that worker is, by the inventory and ssh_config as they are now."""
        return await asyncio.to_thread(self._config.destination, spec)

    def new_socket_path(self) -> Path:
        """A path of a socket that is to be: short, in a folder of ours alone."""
        return self._sockets.new_path()

    async def show_key(self, spec: WorkerSpec) -> HostKey:
        """The key that host shows, without logging in. Raises ``WorkerUnreachable``."""
        destination = await self.destination(spec)
        return HostKey.of(await self.dialler.show_key(destination), destination.known_name)

    async def pin(self, spec: WorkerSpec, fingerprint: str) -> str:
        """Takes the host's key as its own from now on, if it has that fingerprint.

        Returns its line in our known_hosts. Raises ``HostKeyChanged`` where the host shows
        another key, or where it is known already by another.
        """
        destination = await self.destination(spec)
        key = await self.dialler.show_key(destination)
        name = destination.known_name
        found = HostKey.of(key, name)
        shown = Shown(
            found,
            name,
            host=destination.host,
            port=destination.port,
            worker=spec.id,
            jump=False,
            pin_line=destination.pin_line,
        )
        if not same_fingerprint(found.fingerprint, fingerprint):
            raise HostKeyChanged(
                f"{name} shows the host key {found.fingerprint} ({found.key_type}), "
                f"not {fingerprint}",
                hint="do not go on before you know why",
                worker=spec.id,
                expected=[fingerprint],
                fingerprint=found.fingerprint,
                key_type=found.key_type,
            )
        files = self.known_hosts.files(destination.known_hosts)
        verdict = self.known_hosts.judge(key, name, files)
        if verdict is Verdict.CHANGED:
            raise shown.changed(self.known_hosts.about(name, files))
        if verdict is Verdict.REVOKED:
            raise shown.revoked()
        if verdict is Verdict.UNKNOWN:
            return await asyncio.to_thread(self.known_hosts.add, key, name)
        return found.line

    async def retry(self, spec: WorkerSpec) -> None:
        """A person acted: knock again where we were refused."""
        self.dialler.forget_refusals(await self.destination(spec))

    async def close(self) -> None:
        """Closes shared jump hosts; shells are closed by their owners, before."""
        await self.dialler.close()
        self._sockets.remove()


class SshShell:
    """One worker over SSH."""

    def __init__(self, network: SshNetwork, spec: WorkerSpec) -> None:
        self.spec = spec
        self.reason: CloudaiError | None = None
        """Why it could not be reached when that was last tried."""
        self._network = network
        self._destination: Destination | None = None
        self._lanes = Lanes(self._dial)
        self._ending: set[asyncio.Task[None]] = set()

    @property
    def state(self) -> str:
        """``connected``, ``unreachable`` (see ``reason``) or ``idle``."""
        if self._lanes.alive:
            return "connected"
        return "unreachable" if self.reason else "idle"

    @property
    def address(self) -> str:
        if self._destination is not None:
            return self._destination.host
        return self.spec.host or self.spec.id

    async def run(self, script: str, *, timeout: float) -> Reply:
        began = time.monotonic()
        channel = await self._open(COMMAND, within=timeout)
        call = Call(channel, script)
        try:
            async with asyncio.timeout(max(0.0, timeout - (time.monotonic() - began))):
                return await call.answer()
        except TimeoutError:
            self._later(call.stop())
            raise Indeterminate(
                f"No whole answer from the worker within {timeout:g} s",
                worker=self.spec.id,
                seconds=timeout,
            ) from None
        except BaseException:
            self._later(call.stop())
            raise

    async def feed(
        self, script: str, data: AsyncIterable[bytes], *, idle_timeout: float, timeout: float
    ) -> Reply:
        channel = await self._open(COMMAND, lasting=True)
        try:
            return await feed(
                channel,
                script,
                data,
                start_within=self._network.timeouts.command,
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
        within = self._network.timeouts.command
        channel = await self._open(COMMAND, lasting=True)
        try:
            chunks = follow(channel, script, start_within=within, idle_timeout=idle_timeout)
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
        size = (columns, rows) if tty else None
        channel = await self._open(framed.text, lasting=True, terminal=size)
        terminal = ChannelTerminal(channel, framed.nonce)
        try:
            yield terminal
        finally:
            self._later(self._end_terminal(channel, terminal))

    def socket(self, remote_path: str) -> AbstractAsyncContextManager[str]:
        return self._socket(remote_path)

    @asynccontextmanager
    async def _socket(self, remote_path: str) -> AsyncGenerator[str, None]:
        within = self._network.timeouts.command
        connection = await self._within(within, self._lanes.connection())
        try:
            async with asyncio.timeout(within):
                _, probe = await connection.ssh.open_unix_connection(remote_path)
                probe.close()
        except asyncssh.ChannelOpenError as error:
            raise await self._why_no_socket(remote_path, connection, error) from error
        except (TimeoutError, OSError, asyncssh.Error) as error:
            raise call_error(error) from error
        path = self._network.new_socket_path()
        with disk_errors(path):
            listener = await connection.ssh.forward_local_path(str(path), remote_path)
        try:
            path.chmod(0o600)
            yield str(path)
        finally:
            listener.close()
            path.unlink(missing_ok=True)

    async def close(self) -> None:
        """Ends every connection and what runs in it. The next call connects again."""
        if self._ending:
            await asyncio.wait(self._ending, timeout=GRACE)
        await self._lanes.close()
        await asyncio.gather(*self._ending, return_exceptions=True)

    async def retry(self) -> None:
        """A person acted: knock again where we were refused."""
        await self._network.retry(self.spec)

    # ------------------------------------------------------------ the steps

    async def _end_terminal(self, channel: SshChannel, terminal: ChannelTerminal) -> None:
        """Letting go hangs up a terminal; what has none, and goes on without stdin, is ended
        by its process id: sshd passes signals on for some users only."""
        try:
            channel.write_eof()
            channel.signal("TERM")
            with suppress(TimeoutError):
                await asyncio.wait_for(channel.gone.wait(), LEAVE_WITHIN)
            if not channel.ended.is_set():
                with suppress(TimeoutError, WorkerUnreachable):
                    await asyncio.wait_for(terminal.begun(), LEAVE_WITHIN)
        finally:
            channel.close()
        if channel.status is None and terminal.pid is not None and self._lanes.alive:
            with suppress(CloudaiError):
                await self.run(end_process(terminal.pid), timeout=self._network.timeouts.command)

    async def _dial(self) -> Connection:
        try:
            self._destination = await self._network.destination(self.spec)
            connection = await self._network.dialler.dial(self._destination)
        except CloudaiError as error:
            self.reason = error
            raise
        self.reason = None
        return connection

    async def _open(
        self,
        command: str,
        *,
        lasting: bool = False,
        terminal: tuple[int, int] | None = None,
        within: float | None = None,
    ) -> SshChannel:
        """A channel on which that command runs. ``within`` seconds, or else the timeouts of
        connecting and then ``command``."""
        opening = self._lanes.open(command, lasting=lasting, terminal=terminal)
        timeouts = self._network.timeouts
        if within is None:
            within = timeouts.connect + timeouts.login + timeouts.command
        return await self._within(within, opening)

    async def _within(self, seconds: float, opening: Coroutine[Any, Any, T]) -> T:
        try:
            async with asyncio.timeout(seconds):
                return await opening
        except TimeoutError:
            raise WorkerUnreachable(
                "Failed to connect to worker: timed out", worker=self.spec.id, seconds=seconds
            ) from None
        except (OSError, asyncssh.Error) as error:
            raise call_error(error) from error

    async def _why_no_socket(
        self, path: str, connection: Connection, error: asyncssh.ChannelOpenError
    ) -> CloudaiError:
        assert self._destination is not None
        if not connection.alive:
            return call_error(error)
        reply = await self.run(why_no_socket(path), timeout=self._network.timeouts.command)
        reason = reply.text.strip()
        if not reason and error.code == asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED:
            reason = "sshd there forbids it (AllowStreamLocalForwarding)"
        return socket_refused(
            path, reason or "nothing answers there, or sshd forbids it", self._destination
        )

    def _later(self, ending: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(ending)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


class _SocketFolder:
    """A folder of ours alone for the local ends of sockets, made when first needed."""

    def __init__(self, wanted: Path) -> None:
        self._wanted = wanted
        self._temporary: Path | None = None
        self._swept = False

    def new_path(self) -> Path:
        name = f"{os.getpid()}-{secrets.token_hex(4)}"
        path = self._wanted / name
        if len(os.fsencode(path)) <= SOCKET_PATH_AT_MOST:
            if not self._swept:
                self._sweep()
            return path
        if self._temporary is None:
            # Not $TMPDIR: on a Mac that alone takes half of what an address may have.
            self._temporary = Path(tempfile.mkdtemp(prefix="cloudai-", dir="/tmp"))
        return self._temporary / name

    def _sweep(self) -> None:
        """Removes what a killed controller left behind."""
        with disk_errors(self._wanted):
            make_private_folder(self._wanted)
            for left in self._wanted.iterdir():
                pid = left.name.partition("-")[0]
                if pid.isdigit() and not _lives(int(pid)):
                    left.unlink(missing_ok=True)
        self._swept = True

    def remove(self) -> None:
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary = None


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
