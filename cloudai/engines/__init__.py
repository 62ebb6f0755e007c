"""What a worker's engine can be told: a few idempotent verbs. ``docker`` is the first.

Nothing outside this package says "docker". An engine receives a Shell and never imports one.
Every verb may raise ``WorkerUnreachable`` (nothing is known) or ``Indeterminate`` (a reply was
cut: ask again); a returned value is always a whole answer. ``EngineFailed``: the worker
answered that it cannot be done.
"""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol, overload

from cloudai.core.endings import Ending
from cloudai.core.errors import NotFound
from cloudai.core.files import Parcel
from cloudai.core.model import ContainerSight, TaskSpec, WorkerSight
from cloudai.shells import Terminal

NOTHING = Parcel()


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Everything a worker needs to run one assignment."""

    assignment_id: str
    task_id: str
    store_id: str
    spec: TaskSpec
    env: Mapping[str, str]
    """Values by name: from the vault, never shown, never in argv."""
    peers: tuple[str, ...] = ()
    """Addresses of the members of its placement group, by rank."""
    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """What each of the files of ``spec.secrets`` holds, by its place in the container. Given on
    memory-backed storage of the worker, and gone with the container."""
    parcel: Parcel = NOTHING
    """What is to be in the container before it starts."""


@dataclass(frozen=True, slots=True)
class Running:
    """It runs (or ran): whoever started it, it is this assignment's one container."""

    container: ContainerSight
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NotAdmitted:
    """The worker has not the room now. ``what``: cpu, memory, storage, gpu."""

    what: str
    available: float
    """Cores, GiB, GiB or GPUs."""
    required: float
    reason: str
    """In the words of seed 000: ``Insufficient CPU: worker has 4.0 available, ...``."""


@dataclass(frozen=True, slots=True)
class ImageMissing:
    """The image is not on the worker: pull it, then start again."""


@dataclass(frozen=True, slots=True)
class FilesMissing:
    """What it brings along is not on the worker: put it there, then start again."""

    have: Mapping[str, int]
    """pack -> bytes of it that are there."""


@dataclass(frozen=True, slots=True)
class CannotStart:
    """It will not run there however often it is tried; nothing is left behind."""

    reason: str
    exit_code: int | None = None


Outcome = Running | NotAdmitted | ImageMissing | FilesMissing | CannotStart


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryLogin:
    """What a registry is to be told. Never in argv, a log or a file that outlives the pull."""

    registry: str
    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class PullProgress:
    """How far a pull is, for people."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalImage:
    """An image of this machine's engine."""

    reference: str
    """As it was asked for."""
    id: str
    """``sha256:…``, as that engine knows it."""
    named: bool
    """Whether the reference is that image's still."""
    layers: tuple[str, ...]
    """Digests of what is in each, unpacked (diff ids), base first."""
    sizes: tuple[int, ...]
    """Bytes in each layer, unpacked; empty where that cannot be told apart."""
    size: int
    """Bytes of all of them."""
    platform: str
    """``linux/amd64``."""
    created: str
    """When it was built, in the engine's words: part of what it is."""


class ImageSource(Protocol):
    """This machine's engine, as far as images go. Both block."""

    def find(self, reference: str, *, image_id: str | None = None) -> LocalImage:
        """The image of that name, or of that id, which may have lost the name since. Raises
        ``NotFound``, and ``EngineFailed`` where no engine answers here."""

    def archive(self, image: LocalImage) -> Iterator[bytes]:
        """The whole image as one tar stream, as the engine saves it. Raises ``EngineFailed``."""


class NoImages:
    """An ``ImageSource`` of a machine without an engine."""

    def find(self, reference: str, *, image_id: str | None = None) -> LocalImage:
        raise NotFound(f"There is no image {reference} on this machine", image=reference)

    def archive(self, image: LocalImage) -> Iterator[bytes]:
        raise NotFound(f"There is no image {image.reference} on this machine")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipment:
    """How far the shipping of an image is, and at its end what came of it."""

    layers: int
    """Layers in all."""
    sent_layers: int
    """Of those, the ones that the worker lacked."""
    sent: int
    """Bytes on the wire, so far."""
    done: int
    """Bytes of ``total`` that are through: what was packed tighter counts as it was."""
    total: int | None
    """Bytes to send, about; ``None`` where that cannot be told."""

    @property
    def percent(self) -> int | None:
        """0 to 99 while it is under way."""
        return None if not self.total else min(99, self.done * 100 // self.total)


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One record as the engine stored it: a line, or a chunk of a long one."""

    at: int
    """Nanoseconds since the epoch."""
    data: bytes
    """As the container wrote it."""
    stream: int = 1
    """1 stdout, 2 stderr; always 1 where the way of watching cannot tell."""


class LogBatch(Sequence[LogRecord]):
    """Records that came together, in the engine's order. A log has millions: what is done with
    all of them is done with the columns, which costs a tenth of it record by record."""

    __slots__ = ("_cost_of", "at", "data", "stream")

    def __init__(
        self,
        at: Sequence[int],
        data: Sequence[bytes],
        stream: Sequence[int],
        cost_of: Callable[[Sequence[bytes]], int],
    ) -> None:
        """As in ``LogRecord``; ``cost_of``: bytes that such data take in the engine's own log."""
        self.at, self.data, self.stream, self._cost_of = at, data, stream, cost_of

    @classmethod
    def of(
        cls, records: Sequence[LogRecord], cost_of: Callable[[Sequence[bytes]], int] = lambda _: 0
    ) -> LogBatch:
        return cls(
            [one.at for one in records],
            [one.data for one in records],
            [one.stream for one in records],
            cost_of,
        )

    @property
    def cost(self) -> int:
        """Bytes they take in the engine's own log, as far as that can be told."""
        return self._cost_of(self.data)

    def __len__(self) -> int:
        return len(self.at)

    @overload
    def __getitem__(self, place: int) -> LogRecord: ...

    @overload
    def __getitem__(self, place: slice) -> LogBatch: ...

    def __getitem__(self, place: int | slice) -> LogRecord | LogBatch:
        if isinstance(place, slice):
            return LogBatch(self.at[place], self.data[place], self.stream[place], self._cost_of)
        return LogRecord(self.at[place], self.data[place], self.stream[place])

    def __iter__(self) -> Iterator[LogRecord]:
        return map(LogRecord, self.at, self.data, self.stream)


@dataclass(frozen=True, slots=True)
class Happening:
    """Something happened to one of our containers; look at it again."""

    assignment_id: str
    action: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a running container uses now."""

    cpu_percent: float | None
    memory: int | None
    """Bytes."""
    pids: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One check of the doctor, with its mend."""

    check: str
    ok: bool
    found: str
    mend: str = ""
    warning: bool = False
    """Not right, and tasks run all the same."""


async def _nothing() -> AsyncGenerator[bytes, None]:
    return
    yield b""


@dataclass(slots=True)
class Fetched:
    """A tar stream out of a container."""

    chunks: AsyncIterator[bytes] = field(default_factory=_nothing)
    """From where it was asked for on; ends only when all of it came."""
    digest: str = ""
    """Once ``chunks`` ended: the SHA-256 of the whole stream, as the worker says."""


class Engine(Protocol):
    """One worker's engine."""

    @property
    def log_room(self) -> int:
        """Bytes of one container's log, as records cost, that the engine surely keeps; of a
        log that takes as much it may have dropped the beginning."""

    @property
    def address(self) -> str:
        """Where others find the worker: the host that is really connected to, no alias of it;
        127.0.0.1 for this machine."""

    async def probe(self) -> WorkerSight:
        """The whole worker in one round trip: host, engine, GPUs, our containers."""

    async def start(self, order: Order) -> Outcome:
        """Admits and runs one assignment, at most once, under the worker's lock.

        Safe to repeat: a container of that name is looked at, never started twice.
        """

    def pull(
        self, image: str, *, login: RegistryLogin | None = None
    ) -> AsyncIterator[PullProgress]:
        """Brings the image to the worker, where ``login`` is kept no longer than that takes.
        Raises ``EngineFailed`` with the registry's word, or when nothing moved for the stall
        limit."""

    async def ship(
        self, image: LocalImage, source: ImageSource, *, tell: Callable[[Shipment], None]
    ) -> Shipment:
        """Brings an image of this machine's engine to the worker: its layers that are not there,
        its name, and it is looked at once it is there. ``tell`` hears how far it is.

        Nothing of an image that was cut on its way stays. Raises ``EngineFailed`` where it is
        for another kind of processor, before anything is sent, and with the engine's word."""

    async def put(
        self, store_id: str, pack: str, data: AsyncIterator[bytes], *, begin: int, size: int
    ) -> None:
        """Puts a pack of ``size`` bytes on the worker, from byte ``begin`` on, which is how much
        is there. Its name is its SHA-256; it is there whole, and checked, or not at all, and what
        came of it can be gone on with. ``EngineFailed`` where the worker cannot keep it."""

    async def forget_files(self, store_id: str) -> None:
        """Takes away all that was put there for that store's tasks; nothing there is fine."""

    def fetch(
        self, container_id: str, path: str, *, begin: int = 0
    ) -> AbstractAsyncContextManager[Fetched]:
        """A folder or file out of a container, whether it runs or not, as a tar stream: the same
        bytes each time, of one that does not run. Raises ``NotFound`` where there is nothing of
        that path, ``ContainerGone``."""

    async def copy_in(self, container_id: str, data: AsyncIterator[bytes]) -> None:
        """Unpacks a tar stream at the root of a container. Raises ``EngineFailed``,
        ``NotFound``, ``ContainerGone``."""

    async def look(self, assignment_id: str) -> ContainerSight | None:
        """One container by name, whole; ``None`` only when the engine says it is not there."""

    async def observe(self) -> tuple[ContainerSight, ...]:
        """All containers with our labels, whoever placed them."""

    def happenings(self) -> AbstractAsyncContextManager[AsyncIterator[Happening]]:
        """The engine's own stream of events about our containers, from now on.

        The context is entered once the stream is open, so an ``observe`` after that misses
        nothing. The iterator ends or raises when the stream does."""

    async def stop(
        self, assignment_id: str, *, grace: float, signal: str | None = None, before: float = 0
    ) -> None:
        """SIGTERM, then SIGKILL after ``grace`` seconds; with ``signal`` (``USR1``) that one
        first, and SIGTERM ``before`` seconds later unless it ended. The signal is sent once in a
        container's life, whoever asks and how often; who asks again waits for the rest of its
        time. Returns when all is sent and answered."""

    async def ending(self, assignment_id: str) -> Ending | None:
        """Why the worker itself, or somebody before, began to end that container, where it
        notes such things (``core.endings.keeps_note``)."""

    async def remove(self, assignment_id: str, *, noted: bool = True, secrets: bool = True) -> None:
        """Removes an ended or never started container of ours; none there is fine. ``noted``:
        the worker may keep a note of its end, ``secrets``: files of secrets; they go too."""

    def logs(
        self,
        container_id: str,
        *,
        since: int = 0,
        follow: bool = False,
        tail: int | None = None,
    ) -> AbstractAsyncContextManager[AsyncIterator[LogBatch]]:
        """Records with ``at >= since`` (nanoseconds), the last ``tail`` of them, and then,
        with ``follow``, those to come until the container ends; as they come, one at least."""

    async def usage(self, container_ids: Sequence[str]) -> Mapping[str, Usage]:
        """One-shot use of running containers, by id."""

    async def sizes(self) -> Mapping[str, int]:
        """Bytes written by each of our running containers to its own layer, by assignment id."""

    def execute(
        self, container_id: str, argv: Sequence[str], *, tty: bool, columns: int, rows: int
    ) -> AbstractAsyncContextManager[Terminal]:
        """A command in the running container."""

    async def doctor(self) -> tuple[Finding, ...]:
        """Every check with its mend."""

    def preview(self, order: Order) -> str:
        """The ``docker run`` line as a person would type it, for the task's preview."""

    async def close(self) -> None: ...
