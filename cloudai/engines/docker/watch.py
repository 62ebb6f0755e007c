"""How containers are observed, followed and entered on one worker: two ways, one meaning.

``api``: the Engine API through the shell's own channel to the worker's socket. It takes no
session of sshd's and leaves no process behind. ``cli``: where sshd or the socket's permissions
refuse that, the same API through ``docker system dial-stdio``, one process a connection, tied
to its stdin. ``docker logs`` would not do: its text does not say where a record ends (two
streams in one, chunks of long lines, bytes that are not UTF-8), and what a task printed is
not to be guessed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, Protocol

from cloudai.core.errors import EngineFailed, WorkerUnreachable
from cloudai.core.model import ContainerSight
from cloudai.engines import Happening, LogBatch, Usage
from cloudai.shells import Shell, Terminal

from .api_http import Door, EngineHttp
from .api_watch import ApiWatch, Way
from .cli_watch import dialled

UNIX = "unix://"


class Watch(Protocol):
    """One worker's containers, seen from here.

    Every verb raises ``WorkerUnreachable`` or its child ``Indeterminate`` where a reply is
    not whole; where it no longer ``answers`` after that, close it and open another.
    ``EngineFailed``: the engine answered that it cannot be done.
    """

    @property
    def way(self) -> Way:
        """How the worker is watched, for ``stats`` and ``doctor``."""

    async def observe(self) -> tuple[ContainerSight, ...]:
        """All containers with our labels. One removed meanwhile is left out."""

    async def look(self, name: str) -> ContainerSight | None:
        """One container by its name; ``None`` only when the engine says it has none.

        Raises ``EngineFailed`` where the name belongs to a container that is not ours.
        """

    async def describe(self, name: str) -> Mapping[str, Any]:
        """How the engine describes a container of that name, whosever it is; empty where it has
        none."""

    async def remove(self, container_id: str) -> None:
        """Removes a container that does not run; one that is gone already, or going, is fine.
        By its id: nothing else can be hit, whoever takes its name meanwhile."""

    async def volume_labels(self, name: str) -> Mapping[str, str]:
        """The labels of a volume by its name; none where there is none of it."""

    def happenings(self) -> AbstractAsyncContextManager[AsyncIterator[Happening]]:
        """Events of our containers. Entered once nothing can be missed any more; the first
        ones may be up to some seconds old. Ends when the engine ends it."""

    def logs(
        self, container_id: str, *, since: int = 0, follow: bool = False, tail: int | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[LogBatch]]:
        """Records from the first at or after ``since`` (nanoseconds) on, the last ``tail`` of
        them; with ``follow`` also those to come until the container ends."""

    async def usage(self, container_ids: Sequence[str]) -> Mapping[str, Usage]:
        """What those of the containers use that run now, by id."""

    async def sizes(self) -> Mapping[str, int]:
        """Bytes each running container wrote to its own layer, by assignment id."""

    def execute(
        self, container_id: str, argv: Sequence[str], *, tty: bool, columns: int, rows: int
    ) -> AbstractAsyncContextManager[Terminal]:
        """A command in a running container; a process of the docker CLI in either way."""

    async def answers(self) -> bool:
        """Whether it still leads to the engine, asked now and soon known."""

    async def close(self) -> None: ...


async def open_watch(shell: Shell, endpoint: str, *, host: str = "", prefer: Way = "api") -> Watch:
    """The best way to watch this worker now.

    ``endpoint`` is where its engine listens, as the probe found it (``unix:///run/docker.sock``);
    anything else than ``unix://`` leads there through the docker command alone. ``host`` is the
    DOCKER_HOST that ops wrote for the worker; empty: as its login has it. Raises
    ``WorkerUnreachable`` and its children where no way leads there.
    """
    by_socket = endpoint.startswith(UNIX)
    host = host or (endpoint if by_socket else "")
    if prefer == "api" and by_socket:
        path = endpoint.removeprefix(UNIX)
        if watch := await _through_socket(shell, path, host=host):
            return watch
    async with AsyncExitStack() as stack:
        door = await stack.enter_async_context(dialled(shell, host))
        return await _opened(shell, host, way="cli", door=door, stack=stack)


async def _through_socket(shell: Shell, remote_path: str, *, host: str) -> Watch | None:
    """``None`` where sshd or the socket refuses that. Then the worker's own docker command
    either gets there another way, or its words are the better message."""
    async with AsyncExitStack() as stack:
        try:
            # A worker that cannot be reached raises here and is not tried again by the other
            # way: sshd counts failed log-ins (facts, 4).
            path = await stack.enter_async_context(shell.socket(remote_path))
        except EngineFailed:
            return None
        try:
            return await _opened(shell, host, way="api", door=Door(path), stack=stack)
        except (EngineFailed, WorkerUnreachable):
            return None


async def _opened(shell: Shell, host: str, *, way: Way, door: Door, stack: AsyncExitStack) -> Watch:
    http = EngineHttp(door)
    stack.push_async_callback(http.close)
    await http.ping()
    return ApiWatch(http, shell=shell, host=host, way=way, doors=stack.pop_all())
