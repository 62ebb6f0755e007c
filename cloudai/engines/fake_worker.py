"""The machine behind a fake engine: containers, capacity and images in memory, no real time.

Several ``FakeEngine``s may share one ``FakeWorker``, as several laptops share a real worker.
A test reads and changes it directly: that is what happens *on the worker*, whether or not
anybody can reach it.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from cloudai.core.capacity import WHOLE, free_of
from cloudai.core.endings import Ending
from cloudai.core.errors import ContainerGone
from cloudai.core.gpus import Wish
from cloudai.core.model import (
    GIB,
    ContainerSight,
    EngineFacts,
    Gpu,
    GpuProcess,
    Phase,
    Resources,
    TaskSpec,
    WorkerSight,
    WorkerSpec,
)
from cloudai.core.wording import insufficient

from . import Happening, LogRecord, NotAdmitted, Order
from .arrays import array_env
from .groups import group_env

KILLED, TERMINATED, NO_RECORD = 137, 143, 255
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)


class FakeClock:
    """The time, which passes only when told to."""

    def __init__(self, now: datetime = BEGINNING) -> None:
        self.now = now
        self.passed: list[Callable[[], None]] = []
        """Called after each step."""

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        for call in self.passed:
            call()


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a container does once it runs."""

    seconds: float | None = None
    """How long it runs by itself; ``None``: until ``finish``."""
    exit_code: int = 0
    output: bytes = b""
    """Written when it starts, a record a line."""
    honours_term: bool = True
    on_signal: int | None = None
    """The code with which it ends at the signal that gives it time; ``None``: it goes on."""
    start_error: str = ""
    """Not empty: it cannot be started, for this reason."""
    start_code: int = 127


@dataclass(slots=True)
class FakeContainer:
    """A container and what only the machine knows of it."""

    sight: ContainerSight
    job: Job
    spec: TaskSpec
    signals: list[str] = field(default_factory=list)
    """What it was sent to give it time."""
    wrote_at: datetime | None = None
    """When it last wrote something."""
    env: Mapping[str, str] = field(default_factory=dict)
    """What it sees of its environment: its group's variables and the user's."""
    secrets: Mapping[str, bytes] = field(default_factory=dict)
    """What its files of secrets hold."""
    log: list[LogRecord] = field(default_factory=list)
    """What the engine keeps of it."""
    dropped: int = 0
    """Records that it does not keep any more, of all before the last ones."""
    deaf: int = 0
    """Followers opened before this many truncations hear nothing more (facts, 19)."""
    missed: int = 0
    missed_to: int = 0
    """Followers opened before this many misses go on at this record."""
    repeated: int = 0
    repeated_from: int = 0
    """Followers opened before this many repetitions go on at this record, which they had."""
    size: int = 0
    """Bytes it wrote to its own layer."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set and replaced whenever the container or its log changes."""

    def silent_until(self, began: datetime) -> tuple[datetime | None, Ending]:
        """Until when it may be silent, and why it is ended then."""
        allowed, why = self.spec.idle_output, Ending.IDLE
        if self.wrote_at is None and self.spec.first_output is not None:
            allowed, why = self.spec.first_output, Ending.FIRST
        if allowed is None:
            return None, why
        return (self.wrote_at or began) + timedelta(seconds=allowed), why

    def change(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


class FakeWorker:
    """A machine with an engine. Resources in cores, GiB, GiB and GPUs, as people say them."""

    def __init__(
        self,
        *,
        clock: Callable[[], datetime] | None = None,
        cpus: int = 4,
        memory: float = 16,
        disk: float = 100,
        gpus: int = 0,
        gpu: tuple[str, float | None] = ("Fake GPU", 80),
        reserve: Resources | None = None,
        name: str = "fake",
    ) -> None:
        self.clock = clock or FakeClock()
        self.name = name
        self.cpus = cpus
        self.memory = round(memory * GIB)
        self.disk = round(disk * GIB)
        self.gpus = [f"GPU-{name}-{index}" for index in range(gpus)]
        self.devices = dict.fromkeys(self.gpus, gpu)
        """Model and memory in GiB of each GPU; ``None`` where the driver does not say."""
        self.reserve = reserve or Resources()
        self.min_free_gpus = 0
        self.max_gpus: int | None = None
        self.tasks_per_gpu: int | None = None
        """What ops keep for people, as in ``WorkerSpec``."""
        self.containers: dict[str, FakeContainer] = {}
        self.notes: dict[str, Ending] = {}
        """assignment -> why its container was begun to be ended, where that is noted."""
        self.signals: Counter[str] = Counter()
        """assignment -> how often it was sent its signal. More than once is a bug."""
        self.strangers: set[str] = set()
        """Names of containers that are nobody's of ours."""
        self.outsiders: dict[str, int] = {}
        """GPU uuid -> bytes that a process outside cloudai uses there."""
        self.outside_memory = 0
        self.images: set[str] | None = None
        """Images that are there; ``None``: any that is asked for."""
        self.registry: dict[str, str] = {}
        """image -> why it cannot be pulled; an image not named here can be."""
        self.jobs: dict[str, Job] = {}
        """image -> what its containers do; others run until ``finish``."""
        self.starts: Counter[str] = Counter()
        """assignment -> how often a process was started for it. More than one is a bug."""
        self.commands: dict[str, tuple[int, bytes]] = {}
        """What ``execute`` answers to a command: exit code and output."""
        self.packs: dict[str, dict[str, bytes]] = {}
        """store -> what was put there for its tasks, by name; incomplete ones end in .part."""
        self.filled: dict[str, bytes] = {}
        """container -> the stream that it was filled with before its start."""
        self.results: dict[tuple[str, str], bytes] = {}
        """(container, path) -> the tar stream that is fetched there."""
        self.log_room = 10**12
        """See ``Engine.log_room``."""
        self.engine_started = self.clock()
        self._subscribers: list[asyncio.Queue[Happening | None]] = []
        self._made = 0
        self._boots = 0
        if isinstance(self.clock, FakeClock):
            self.clock.passed.append(self.settle)

    # --------------------------------------------------------- what happens on the machine

    def create(self, order: Order, gpus: tuple[str, ...] = ()) -> FakeContainer:
        """Makes the container of an order, not started."""
        spec, name = order.spec, order.assignment_id
        self._made += 1
        digest = hashlib.sha256(f"{self.name}/{self._made}".encode()).hexdigest()
        asked = spec.resources
        container = FakeContainer(
            ContainerSight(
                id=digest,
                assignment_id=name,
                task_id=order.task_id,
                store_id=order.store_id,
                user_id=spec.user_id,
                task_name=spec.name or "",
                phase=Phase.CREATED,
                held=asked,
                gpus=gpus,
                gpu_memory=spec.gpu_memory if gpus else None,
                created_at=self.clock(),
                image=spec.image,
                argv=("/bin/sh", "-c", spec.shell) if spec.shell is not None else spec.argv,
                limits={"cpu_milli": asked.cpu_milli, "memory": asked.memory},
            ),
            self.jobs.get(spec.image, Job()),
            spec,
            env={**array_env(spec), **group_env(order), **order.env},
            secrets=dict(order.secrets),
        )
        self.containers[name] = container
        self._tell(name, "create")
        return container

    def start(self, name: str) -> ContainerSight:
        """Starts a created container, or fails to, as its job says."""
        container = self.containers[name]
        job = container.job
        if job.start_error:
            self._show(container, error=job.start_error, exit_code=job.start_code)
            return container.sight
        self.starts[name] += 1
        self._show(container, phase=Phase.RUNNING, started_at=self.clock())
        self._tell(name, "start")
        self.write(name, job.output)
        self.settle()
        return container.sight

    def write(self, name: str, data: bytes, *, stream: int = 1) -> None:
        """The container writes to its log: one record a line."""
        for line in data.splitlines(keepends=True):
            self.write_record(name, line, stream=stream)

    def write_record(self, name: str, data: bytes, *, stream: int = 1) -> None:
        """One record of any bytes: a piece of a long line."""
        container = self.containers[name]
        at = (self.clock() - EPOCH) // timedelta(microseconds=1) * 1000
        container.wrote_at = self.clock()
        container.log.append(LogRecord(at=at, data=data, stream=stream))
        container.change()

    def rotate(self, name: str, keep: int) -> None:
        """The engine drops all but the last ``keep`` records. A follower that was further
        behind goes on with what is left, and says nothing."""
        container = self.containers[name]
        gone = max(0, len(container.log) - keep)
        del container.log[:gone]
        container.dropped += gone

    def miss(self, name: str) -> None:
        """Followers miss what they have not had yet, silently; the engine keeps it."""
        container = self.containers[name]
        container.missed += 1
        container.missed_to = container.dropped + len(container.log)

    def repeat(self, name: str, count: int) -> None:
        """Followers bring the last ``count`` records again, as if they were new."""
        container = self.containers[name]
        container.repeated += 1
        container.repeated_from = container.dropped + max(0, len(container.log) - count)
        container.change()

    def truncate(self, name: str) -> None:
        """Somebody empties the log file. Whoever follows it hangs from now on."""
        self.rotate(name, 0)
        self.containers[name].deaf += 1

    def finish(
        self,
        name: str,
        exit_code: int = 0,
        *,
        oom_killed: bool = False,
        at: datetime | None = None,
    ) -> None:
        """The container's process ends."""
        container = self.containers[name]
        if container.sight.phase not in (Phase.RUNNING, Phase.PAUSED):
            return
        self._show(
            container,
            phase=Phase.EXITED,
            finished_at=at or self.clock(),
            exit_code=exit_code,
            oom_killed=oom_killed,
        )
        self._tell(name, "die")

    def tell(self, name: str, why: Ending, signal: str | None) -> None:
        """Notes once why it is ended, and sends its signal with the note."""
        container = self.containers[name]
        if name in self.notes or container.sight.phase not in (Phase.RUNNING, Phase.PAUSED):
            return
        self.notes[name] = why
        if signal is not None:
            self.signals[name] += 1
            container.signals.append(signal)
            if container.job.on_signal is not None:
                self.finish(name, container.job.on_signal)

    def stop(self, name: str) -> None:
        """SIGTERM, and SIGKILL for a job that does not honour it."""
        job = self.containers[name].job
        self.finish(name, TERMINATED if job.honours_term else KILLED)

    def pause(self, name: str, *, paused: bool = True) -> None:
        """Someone pauses it by hand, or lets it go on."""
        container = self.containers[name]
        if container.sight.phase in (Phase.RUNNING, Phase.PAUSED):
            self._show(container, phase=Phase.PAUSED if paused else Phase.RUNNING)
            self._tell(name, "pause" if paused else "unpause")

    def restart(self, name: str) -> None:
        """Someone starts it again by hand. Not counted in ``starts``: it was none of ours."""
        container = self.containers[name]
        self.finish(name, KILLED)
        self._show(
            container,
            phase=Phase.RUNNING,
            started_at=self.clock(),
            finished_at=None,
            exit_code=None,
        )
        self._tell(name, "start")

    def reboot(self) -> None:
        """The machine goes down without a word and comes up: its engine has no record of how
        its containers ended, and invents one."""
        self._boots += 1
        self.engine_started = self.clock()
        for name, container in self.containers.items():
            if container.sight.phase in (Phase.RUNNING, Phase.PAUSED):
                self.finish(name, NO_RECORD)
        for queue in self._subscribers:
            queue.put_nowait(None)

    def vanish(self, name: str) -> None:
        """The container is removed, by whomever."""
        if container := self.containers.pop(name, None):
            container.change()
            self._tell(name, "destroy")

    def settle(self) -> None:
        """Ends whatever ran out its own time by now, or wrote nothing for too long."""
        now = self.clock()
        for name, container in tuple(self.containers.items()):
            began, seconds = container.sight.started_at, container.job.seconds
            if container.sight.phase is not Phase.RUNNING or began is None:
                continue
            end = began + timedelta(seconds=seconds) if seconds is not None else None
            hangs, why = container.silent_until(began)
            if end is not None and end <= now and (hangs is None or end <= hangs):
                self.finish(name, container.job.exit_code, at=end)
            elif hangs is not None and hangs < now:
                self.tell(name, why, container.spec.signal)
                self.stop(name)

    # ------------------------------------------------------------------- what is asked of it

    def held(self) -> Resources:
        """What the containers that live, or may yet start, hold in all."""
        self.settle()
        total = Resources()
        for container in self.containers.values():
            if container.sight.holds:
                total = total + container.sight.held
        return total

    def admit(self, spec: TaskSpec) -> NotAdmitted | tuple[str, ...]:
        """The GPUs for such a task, or what is missing."""
        asked, wish = spec.resources, Wish(spec.gpu_model, spec.gpu_memory)
        free = free_of(self.sight(), self._as_ops_wrote_it())
        if (lack := free.lacks(asked, wish)) is None:
            chosen = free.choose(asked.gpu_milli, wish) if asked.gpu_milli else ()
            return tuple(free.devices[i].uuid for i in chosen)
        what, available, required = lack
        reason = insufficient(what, available, required)
        if what == "GPU" and str(wish):
            reason += f" ({wish})"
        return NotAdmitted(what=what.lower(), available=available, required=required, reason=reason)

    def _as_ops_wrote_it(self) -> WorkerSpec:
        return WorkerSpec(
            id=self.name,
            reserve=self.reserve,
            max_gpus=self.max_gpus,
            min_free_gpus=self.min_free_gpus,
            tasks_per_gpu=self.tasks_per_gpu,
        )

    def total(self) -> Resources:
        """What the machine has."""
        return Resources(
            cpu_milli=self.cpus * 1000,
            memory=self.memory,
            storage=self.disk,
            gpu_milli=len(self.gpus) * WHOLE,
        )

    def sight(self) -> WorkerSight:
        """The machine as a probe shows it."""
        held = self.held()
        return WorkerSight(
            cpus=self.cpus,
            memory=self.memory,
            memory_available=self.memory - self.outside_memory,
            disk=self.disk,
            disk_free=self.disk - held.storage,
            load=0.0,
            clock=self.clock(),
            machine_id=f"machine-{self.name}",
            boot_id=f"boot-{self.name}-{self._boots}",
            os="fake",
            engine=EngineFacts(
                id=f"engine-{self.name}",
                version="fake",
                endpoint="fake://",
                started_at=self.engine_started,
                gpu_runtime="hook" if self.gpus else "",
            ),
            gpus=tuple(self._gpu(index, uuid) for index, uuid in enumerate(self.gpus)),
            containers=tuple(self.sights()),
            images=frozenset(name for image in self.images or () for name in _names(image)),
        )

    def sights(self) -> Iterable[ContainerSight]:
        """All containers of ours."""
        self.settle()
        return [container.sight for container in self.containers.values()]

    def subscribe(self) -> asyncio.Queue[Happening | None]:
        """Events from now on; whoever puts a ``None`` in ends the stream."""
        queue: asyncio.Queue[Happening | None] = asyncio.Queue()
        self._subscribers.append(queue)
        return queue

    def unsubscribe(self, queue: asyncio.Queue[Happening | None]) -> None:
        self._subscribers.remove(queue)

    def named(self, container_id: str) -> FakeContainer:
        """By the engine's id. Raises ``ContainerGone`` where there is none."""
        for container in self.containers.values():
            if container.sight.id == container_id:
                return container
        raise ContainerGone(f"No such container: {container_id}")

    def _gpu(self, index: int, uuid: str) -> Gpu:
        used = self.outsiders.get(uuid)
        someone = () if used is None else (GpuProcess(pid=4242, name="python", memory=used),)
        model, memory = self.devices[uuid]
        return Gpu(
            uuid=uuid,
            index=index,
            model=model,
            memory=None if memory is None else round(memory * GIB),
            clock=1410,
            memory_used=used or 0,
            utilisation=0 if used is None else 90,
            processes=someone,
        )

    def _show(self, container: FakeContainer, **changes: object) -> None:
        container.sight = replace(container.sight, **changes)  # type: ignore[arg-type]
        container.change()

    def _tell(self, name: str, action: str) -> None:
        for queue in self._subscribers:
            queue.put_nowait(Happening(assignment_id=name, action=action))


def _names(image: str) -> set[str]:
    """With its tag, as an engine lists it, and without one where that means the same."""
    tagged = image if ":" in image.rpartition("/")[2] else f"{image}:latest"
    return {tagged, tagged.removesuffix(":latest")}
