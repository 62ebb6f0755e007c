"""An engine in memory that can be told to misbehave: for tests of everything above engines.

It keeps every promise of the ``Engine`` protocol until told otherwise, is deterministic and
never waits for real time, so that rules can be tested by the thousand. The machine behind it
is a ``FakeWorker``; the fake engine is one controller's connection to it, with its faults.
"""

from __future__ import annotations

import asyncio
import hashlib
import shlex
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeVar

from cloudai.core.endings import Ending
from cloudai.core.errors import (
    ContainerGone,
    EngineFailed,
    Indeterminate,
    NotFound,
    WorkerUnreachable,
)
from cloudai.core.model import ContainerSight, Phase, WorkerSight
from cloudai.shells import Terminal

from . import (
    CannotStart,
    Fetched,
    FilesMissing,
    Finding,
    Happening,
    ImageMissing,
    ImageSource,
    LocalImage,
    LogBatch,
    NotAdmitted,
    Order,
    Outcome,
    PullProgress,
    RegistryLogin,
    Running,
    Shipment,
    Usage,
)
from .fake_worker import FakeClock, FakeContainer, FakeWorker, Job
from .groups import is_member

__all__ = ["Deed", "FakeClock", "FakeEngine", "FakeWorker", "Fault", "Gate", "Job"]

T = TypeVar("T")
ALIVE = (Phase.RUNNING, Phase.PAUSED)


class Fault(StrEnum):
    """How one call can go wrong."""

    UNREACHABLE = "unreachable"
    """Nothing is sent."""
    LOST_BEFORE = "lost before"
    """Sent, and the link broke before it had an effect."""
    LOST_HALF = "lost half"
    """A start that created the container, did not start it, and did not answer."""
    LOST_AFTER = "lost after"
    """It had its effect; the answer was lost."""
    REFUSED = "refused"
    """The worker answers that it cannot be done."""


@dataclass(frozen=True, slots=True)
class Deed:
    """One call and how it ended."""

    verb: str
    subject: str
    """The assignment, container or image it was about; empty for the whole worker."""
    outcome: str
    """``ok``, the name of what ``start`` answered, or the fault."""


class Gate:
    """Holds calls of a verb until opened."""

    def __init__(self, *, after: bool) -> None:
        self.after = after
        self.reached = asyncio.Event()
        """Set once a call waits here."""
        self._opened = asyncio.Event()

    def open(self) -> None:
        self._opened.set()

    async def passed(self) -> None:
        self.reached.set()
        await self._opened.wait()


class FakeEngine:
    """An ``Engine`` (see there for what each verb means)."""

    def __init__(self, worker: FakeWorker | None = None) -> None:
        self.worker = worker or FakeWorker()
        self.address = self.worker.name
        self.history: list[Deed] = []
        self.findings: tuple[Finding, ...] = ()
        self.closed = False
        self.logins: list[RegistryLogin | None] = []
        """What pulls were given, in their order."""
        self._away: int | None = 0
        self._faults: defaultdict[str, deque[Fault]] = defaultdict(deque)
        self._gates: dict[str, Gate] = {}
        self._queues: list[asyncio.Queue[Happening | None]] = []
        self._breaks = 0

    # ------------------------------------------------------------- to be told to misbehave

    def go_away(self, calls: int | None = None) -> None:
        """Cannot be reached, for so many calls or until ``come_back``. Open streams break."""
        self._away = calls
        self.drop_streams()

    def come_back(self) -> None:
        self._away = 0

    def plan(self, verb: str, *faults: Fault) -> None:
        """The next calls of the verb go wrong in this order; those after them are well."""
        self._faults[verb].extend(faults)

    def hold(self, verb: str, *, after: bool = False) -> Gate:
        """Calls of the verb wait from now on: before their effect, or before their answer."""
        self._gates[verb] = Gate(after=after)
        return self._gates[verb]

    def drop_streams(self) -> None:
        """Events and followed logs that are open break."""
        self._breaks += 1
        for queue in self._queues:
            queue.put_nowait(None)
        for container in self.worker.containers.values():
            container.change()

    # ---------------------------------------------------------------------------- the verbs

    async def probe(self) -> WorkerSight:
        return await self._call("probe", "", self.worker.sight)

    async def start(self, order: Order) -> Outcome:
        name = order.assignment_id
        if self._next("start") is Fault.LOST_HALF:
            self._faults["start"].popleft()
            await self._call("start", name, lambda: self._create(order), lost=Fault.LOST_HALF)
        return await self._call("start", name, lambda: self._start(order))

    async def pull(
        self, image: str, *, login: RegistryLogin | None = None
    ) -> AsyncIterator[PullProgress]:
        self.logins.append(login)
        yield PullProgress(f"pulling {image}")
        await self._call("pull", image, lambda: self._pull(image))
        yield PullProgress(f"pulled {image}")

    async def ship(
        self, image: LocalImage, source: ImageSource, *, tell: Callable[[Shipment], None]
    ) -> Shipment:
        """Nothing is left out and nothing packed: a fake worker has whole images."""
        lacks = self.worker.images is not None and image.id not in self.worker.images
        count, size = (len(image.layers), image.size) if lacks else (0, 0)
        shipment = Shipment(layers=len(image.layers), sent_layers=count, sent=0, done=0, total=size)
        tell(shipment)
        await self._call("ship", image.id, lambda: self._ship(image))
        return replace(shipment, sent=size, done=size)

    async def put(
        self, store_id: str, pack: str, data: AsyncIterator[bytes], *, begin: int, size: int
    ) -> None:
        packs = self.worker.packs.setdefault(store_id, {})
        came = packs.get(f"{pack}.part", b"")
        if len(came) != begin:
            raise Indeterminate(f"{len(came)} bytes are there, not {begin}")
        async for chunk in data:
            came += chunk
            packs[f"{pack}.part"] = came
            await self._call("put", pack, lambda: None)
        if len(came) == size and hashlib.sha256(came).hexdigest() == pack:
            packs[pack] = packs.pop(f"{pack}.part")

    async def forget_files(self, store_id: str) -> None:
        await self._call(
            "forget_files", store_id, lambda: self.worker.packs.pop(store_id, None) and None
        )

    @asynccontextmanager
    async def fetch(
        self, container_id: str, path: str, *, begin: int = 0
    ) -> AsyncIterator[Fetched]:
        container = await self._call("fetch", container_id, lambda: self._named(container_id))
        whole = self.worker.results.get((container.sight.assignment_id, path))
        if whole is None:
            raise NotFound(f"Could not find the file {path} in container {container_id}")
        fetched = Fetched()

        async def chunks() -> AsyncGenerator[bytes, None]:
            for at in range(begin, len(whole), 4096):
                await self._call("fetched", container_id, lambda: None)
                yield whole[at : at + 4096]
            fetched.digest = hashlib.sha256(whole).hexdigest()

        fetched.chunks = chunks()
        yield fetched

    async def copy_in(self, container_id: str, data: AsyncIterator[bytes]) -> None:
        container = await self._call("copy_in", container_id, lambda: self._named(container_id))
        name = container.sight.assignment_id
        self.worker.filled[name] = b"".join([chunk async for chunk in data])

    async def look(self, assignment_id: str) -> ContainerSight | None:
        return await self._call("look", assignment_id, lambda: self._look(assignment_id))

    async def observe(self) -> tuple[ContainerSight, ...]:
        return await self._call("observe", "", lambda: tuple(self.worker.sights()))

    @asynccontextmanager
    async def happenings(self) -> AsyncIterator[AsyncIterator[Happening]]:
        queue = await self._call("happenings", "", self.worker.subscribe)
        self._queues.append(queue)
        try:
            async with aclosing(_drain(queue)) as happenings:
                yield happenings
        finally:
            self._queues.remove(queue)
            self.worker.unsubscribe(queue)

    async def stop(
        self, assignment_id: str, *, grace: float, signal: str | None = None, before: float = 0
    ) -> None:
        # No real time passes: who does not honour a polite stop is killed at once.
        del grace, before
        await self._call("stop", assignment_id, lambda: self._stop(assignment_id, signal))

    async def ending(self, assignment_id: str) -> Ending | None:
        return await self._call(
            "ending", assignment_id, lambda: self.worker.notes.get(assignment_id)
        )

    async def remove(self, assignment_id: str, *, noted: bool = True, secrets: bool = True) -> None:
        await self._call("remove", assignment_id, lambda: self._remove(assignment_id, noted))

    @asynccontextmanager
    async def logs(
        self, container_id: str, *, since: int = 0, follow: bool = False, tail: int | None = None
    ) -> AsyncIterator[AsyncIterator[LogBatch]]:
        container = await self._call("logs", container_id, lambda: self._named(container_id))
        first = next((i for i, record in enumerate(container.log) if record.at >= since), None)
        at = len(container.log) if first is None else first
        if tail is not None:
            at = max(at, len(container.log) - tail)
        at += container.dropped
        async with aclosing(self._records(container, at, follow=follow)) as records:
            yield records

    @property
    def log_room(self) -> int:
        return self.worker.log_room

    async def usage(self, container_ids: Sequence[str]) -> Mapping[str, Usage]:
        return await self._call("usage", "", lambda: self._usage(container_ids))

    async def sizes(self) -> Mapping[str, int]:
        return await self._call("sizes", "", self._sizes)

    @asynccontextmanager
    async def execute(
        self, container_id: str, argv: Sequence[str], *, tty: bool, columns: int, rows: int
    ) -> AsyncIterator[Terminal]:
        del tty, columns, rows
        container = await self._call("execute", container_id, lambda: self._named(container_id))
        if container.sight.phase is not Phase.RUNNING:
            raise EngineFailed(f"container {container_id} is not running")
        yield FakeTerminal(self.worker.commands.get(argv[0]), argv)

    async def doctor(self) -> tuple[Finding, ...]:
        return await self._call("doctor", "", lambda: self.findings)

    def preview(self, order: Order) -> str:
        spec = order.spec
        network = ["--network", "host"] if is_member(spec) else []
        run = ["docker", "run", "-d", "--name", order.assignment_id, *network, "--", spec.image]
        return shlex.join([*run, *(("/bin/sh", "-c", spec.shell) if spec.shell else spec.argv)])

    async def close(self) -> None:
        self.closed = True
        self.drop_streams()

    # -------------------------------------------------------------------------- their effects

    async def _call(
        self, verb: str, subject: str, effect: Callable[[], T], *, lost: Fault | None = None
    ) -> T:
        """One call with whatever was planned for it. A call that is cancelled while it is
        held before its effect has none."""
        gate = self._gates.get(verb)
        if gate and not gate.after:
            await gate.passed()
        fault = Fault.UNREACHABLE if self._is_away() else lost or self._next(verb, take=True)
        if fault in (Fault.UNREACHABLE, Fault.LOST_BEFORE, Fault.REFUSED):
            self.history.append(Deed(verb, subject, fault))
            raise _error(fault)
        try:
            result = effect()
        except EngineFailed:
            self.history.append(Deed(verb, subject, Fault.REFUSED))
            raise
        said = type(result).__name__ if verb == "start" else "ok"
        self.history.append(Deed(verb, subject, fault or said))
        if gate and gate.after:
            await gate.passed()
        if fault is not None:
            raise _error(fault)
        return result

    def _next(self, verb: str, *, take: bool = False) -> Fault | None:
        planned = self._faults[verb]
        if not planned:
            return None
        return planned.popleft() if take else planned[0]

    def _is_away(self) -> bool:
        if not self._away:
            return self._away is None
        self._away -= 1
        return True

    def _create(self, order: Order) -> FakeContainer | NotAdmitted | None:
        name = order.assignment_id
        if name in self.worker.containers or name in self.worker.strangers:
            return None
        gpus = self.worker.admit(order.spec)
        return gpus if isinstance(gpus, NotAdmitted) else self.worker.create(order, gpus)

    def _start(self, order: Order) -> Outcome:
        worker, name = self.worker, order.assignment_id
        if name in worker.strangers:
            return CannotStart(f"the worker has a container called {name} that is not cloudai's")
        if name not in worker.containers:
            image = order.spec.ship_image or order.spec.image
            if worker.images is not None and image not in worker.images:
                return ImageMissing()
            packs = worker.packs.get(order.store_id, {})
            if lacking := [pack for pack in order.parcel.packs if pack not in packs]:
                return FilesMissing({pack: len(packs.get(f"{pack}.part", b"")) for pack in lacking})
            if isinstance(refused := self._create(order), NotAdmitted):
                return refused
        worker.settle()
        sight = worker.containers[name].sight
        if sight.phase is Phase.CREATED and not sight.error:
            if order.parcel.pieces:
                packs = worker.packs[order.store_id]
                worker.filled[name] = b"".join(
                    packs[pack][begin : begin + size] for pack, begin, size in order.parcel.pieces
                )
            sight = worker.start(name)
        if sight.started_at is None:
            worker.vanish(name)
            return CannotStart(sight.error or "it never started", sight.exit_code)
        return Running(sight)

    def _pull(self, image: str) -> None:
        if why := self.worker.registry.get(image):
            raise EngineFailed(why)
        if self.worker.images is not None:
            self.worker.images.add(image)

    def _ship(self, image: LocalImage) -> None:
        if why := self.worker.registry.get(image.id):
            raise EngineFailed(why)
        if self.worker.images is not None:
            self.worker.images |= {image.id, image.reference}

    def _look(self, name: str) -> ContainerSight | None:
        if name in self.worker.strangers:
            raise EngineFailed(f"the worker has a container called {name} that is not cloudai's")
        self.worker.settle()
        container = self.worker.containers.get(name)
        return container.sight if container else None

    def _stop(self, name: str, signal: str | None) -> None:
        self.worker.settle()
        if name in self.worker.containers:
            if signal is not None:
                self.worker.tell(name, Ending.ASKED, signal)
            self.worker.stop(name)

    def _remove(self, name: str, noted: bool) -> None:
        sight = self._look(name)
        if sight and sight.phase in ALIVE:
            raise EngineFailed(f"container {name} still runs: it is not removed")
        self.worker.vanish(name)
        if noted:
            self.worker.notes.pop(name, None)

    def _named(self, container_id: str) -> FakeContainer:
        self.worker.settle()
        return self.worker.named(container_id)

    async def _records(
        self, container: FakeContainer, at: int, *, follow: bool
    ) -> AsyncGenerator[LogBatch, None]:
        breaks, name = self._breaks, container.sight.assignment_id
        deaf, missed, repeated = container.deaf, container.missed, container.repeated
        begun = 0  # What it begins anew is what it went on with last: all of that it had.
        while True:
            if breaks != self._breaks:
                raise _error(Fault.LOST_AFTER)
            at = max(at, container.dropped)
            if follow and missed != container.missed:
                at, missed = max(at, container.missed_to), container.missed
                begun = at
            if follow and repeated != container.repeated:
                at, repeated = min(at, max(container.repeated_from, begun)), container.repeated
            if follow and deaf != container.deaf:
                await container.changed.wait()
            elif at < container.dropped + len(container.log):
                fresh = container.log[at - container.dropped :]
                at += len(fresh)
                yield LogBatch.of(fresh, lambda data: sum(map(len, data)))
            elif follow and self.worker.containers.get(name) is not container:
                raise ContainerGone(f"No such container: {container.sight.id}")
            elif follow and container.sight.phase in ALIVE:
                await container.changed.wait()
            else:
                return

    def _usage(self, container_ids: Sequence[str]) -> dict[str, Usage]:
        return {
            sight.id: Usage(cpu_percent=1.0, memory=sight.held.memory // 2, pids=1)
            for sight in self.worker.sights()
            if sight.id in container_ids and sight.phase in ALIVE
        }

    def _sizes(self) -> dict[str, int]:
        self.worker.settle()
        return {
            name: container.size
            for name, container in self.worker.containers.items()
            if container.sight.phase in ALIVE
        }


class FakeTerminal:
    """A command in a fake container: ``cat``, or whatever ``FakeWorker.commands`` answers."""

    def __init__(self, answer: tuple[int, bytes] | None, argv: Sequence[str]) -> None:
        self._code, output = answer or (0, shlex.join(argv).encode() + b"\n")
        self._echoes = answer is None and argv[0] == "cat"
        self._output: asyncio.Queue[bytes] = asyncio.Queue()
        if not self._echoes:
            self._output.put_nowait(output)
            self._output.put_nowait(b"")
        self.size: tuple[int, int] | None = None
        self.closed = False

    async def read(self) -> tuple[int, bytes]:
        if data := await self._output.get():
            return 1, data
        self._output.put_nowait(b"")
        return 0, b""

    async def write(self, data: bytes) -> None:
        if self._echoes:
            self._output.put_nowait(data)

    async def resize(self, columns: int, rows: int) -> None:
        self.size = (columns, rows)

    async def wait(self) -> int:
        return self._code

    async def close(self) -> None:
        self.closed = True


async def _drain(queue: asyncio.Queue[Happening | None]) -> AsyncGenerator[Happening, None]:
    while happening := await queue.get():
        yield happening
    raise _error(Fault.LOST_AFTER)


def _error(fault: Fault) -> Exception:
    match fault:
        case Fault.UNREACHABLE:
            return WorkerUnreachable("the fake worker cannot be reached")
        case Fault.REFUSED:
            return EngineFailed("the fake worker refuses that, as it was told to")
        case _:
            return Indeterminate(f"the fake worker's reply was cut ({fault})")
