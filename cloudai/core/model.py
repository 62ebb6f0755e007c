"""The domain, in frozen dataclasses. The words are those of ``docs/architecture.md``.

Quantities are integers so that sums are exact: thousandths of a core, thousandths of a GPU,
bytes. People and the API speak cores and GiB ("GB" in the seeds means GiB).
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import StrEnum
from operator import attrgetter

GIB = 1024**3
MIB = 1024**2

LOWEST_PRIORITY, NORMAL_PRIORITY, HIGHEST_PRIORITY = 0, 50, 100
PRIORITIES = {"low": 25, "normal": NORMAL_PRIORITY, "high": 75, "urgent": HIGHEST_PRIORITY}
"""What people call them."""


class State(StrEnum):
    """Where a task stands. *Why* it stands there is a separate field."""

    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        return self in FINAL

    @property
    def assigned(self) -> bool:
        """A worker holds, or may hold, a container for the task."""
        return self in ASSIGNED


FINAL = frozenset({State.COMPLETED, State.FAILED, State.CANCELLED})
ASSIGNED = frozenset({State.STARTING, State.RUNNING, State.STOPPING})


class OnLost(StrEnum):
    """What becomes of a task whose worker stays out of reach. The user's choice, per task."""

    WAIT = "wait"
    """Nothing, by itself, however long."""
    REQUEUE = "requeue"
    """Run elsewhere. The lost one may still run where nobody can see it: twice at once."""
    FAIL = "fail"


class Strategy(StrEnum):
    """How the workers that could take a task are ranked (seed 004)."""

    SPREAD = "spread"
    """The worker with the fewest tasks."""
    LOAD_BALANCED = "load_balanced"
    """The worker that is the least busy, as measured, not only as reserved."""
    PERFORMANCE_OPTIMIZED = "performance_optimized"
    """The fastest: by past runs of the same kind, else by its GPUs and cores."""
    NODE_SPECIFIC = "node_specific"
    """Only the nodes that are named; among them as ``spread``."""
    BINPACK = "binpack"
    """Where the least is lost for others: keeps whole GPUs and big workers free."""


class Placement(StrEnum):
    """How the tasks of a placement group lie (seed 004)."""

    PACK = "pack"
    """On as few workers as possible."""
    SPREAD = "spread"
    """On as many workers as possible."""
    STRICT_PACK = "strict_pack"
    """All on one worker, or not at all."""
    STRICT_SPREAD = "strict_spread"
    """Each on a worker of its own, or not at all."""


class OnUnmet(StrEnum):
    """What becomes of a task whose need can no longer be met (``TaskSpec.after``)."""

    CANCEL = "cancel"
    """It is cancelled: something that was wanted will not be."""
    SKIP = "skip"
    """It is left out, and nothing is wrong with that."""


class Cause(StrEnum):
    """Why an assignment ended badly: what ``--retries`` can be limited to."""

    EXIT = "exit"
    """An exit code other than 0."""
    OOM = "oom"
    LOST = "lost"
    """Its worker was given up, or has no record of how it ended."""
    START = "start"
    """It could not be started there."""
    PULL = "pull"
    """Its image could not be had."""
    HUNG = "hung"
    """It wrote nothing for too long (``first_output``, ``idle_output``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """An amount of a worker: what a task asks, what is reserved, what is free."""

    cpu_milli: int = 0
    memory: int = 0
    """Bytes."""
    storage: int = 0
    """Bytes."""
    gpu_milli: int = 0

    @classmethod
    def of(
        cls, *, cpus: float = 0, memory: float = 0, storage: float = 0, gpus: float = 0
    ) -> Resources:
        """From cores, GiB, GiB and GPUs."""
        return cls(
            cpu_milli=round(cpus * 1000),
            memory=round(memory * GIB),
            storage=round(storage * GIB),
            gpu_milli=round(gpus * 1000),
        )

    @property
    def cpus(self) -> float:
        """Cores."""
        return self.cpu_milli / 1000

    @property
    def memory_gib(self) -> float:
        return self.memory / GIB

    @property
    def storage_gib(self) -> float:
        return self.storage / GIB

    @property
    def gpus(self) -> float:
        return self.gpu_milli / 1000

    def __add__(self, other: Resources) -> Resources:
        return Resources(
            cpu_milli=self.cpu_milli + other.cpu_milli,
            memory=self.memory + other.memory,
            storage=self.storage + other.storage,
            gpu_milli=self.gpu_milli + other.gpu_milli,
        )

    def __sub__(self, other: Resources) -> Resources:
        return Resources(
            cpu_milli=self.cpu_milli - other.cpu_milli,
            memory=self.memory - other.memory,
            storage=self.storage - other.storage,
            gpu_milli=self.gpu_milli - other.gpu_milli,
        )


DEFAULT_RESOURCES = Resources.of(cpus=1.0, memory=0.5, storage=1.0, gpus=0.0)
"""Seed 000: 1 core, 0.5 GB, 1 GB, no GPU."""


# ------------------------------------------------------------------ what ops write


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSpec:
    """A host of the inventory, as ops wrote it. Anything left out comes from ssh_config."""

    id: str
    connection: str = "ssh"
    """``ssh``, or ``local``: the same scripts through a shell of this machine."""
    host: str | None = None
    """An address or an alias of ~/.ssh/config; the id where nothing else is said."""
    port: int | None = None
    user: str | None = None
    identity_file: str | None = None
    proxy_jump: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    reserve: Resources = Resources()
    """Kept free of tasks, for the people who work on that host."""
    max_gpus: int | None = None
    """At most so many of its GPUs for tasks; ``None``: all of them."""
    min_free_gpus: int = 0
    """So many GPUs that nobody uses are left for people, whatever tasks wait."""
    tasks_per_gpu: int | None = None
    """At most so many tasks share one GPU; ``None``: as many as their shares allow."""
    gpu_idle_memory: int = 512 * MIB
    """Bytes in use on a GPU up to which it still counts as idle (a desktop's share)."""
    engine: str = "docker"
    engine_socket: str | None = None
    """DOCKER_HOST for that worker where its own login does not set the right one."""
    groups: tuple[str, ...] = ()
    place: str = ""
    """``file:line`` it stands at, for messages."""


# ------------------------------------------------------------------ what a worker shows


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuProcess:
    """A process on a GPU."""

    pid: int
    name: str
    memory: int | None = None
    """Bytes."""
    user: str | None = None
    container: str | None = None
    """Full id of the container it runs in, where the kernel tells."""
    graphics: bool = False
    """It draws and computes nothing, as a desktop does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A device that can be given to a task: a whole GPU, or a MIG instance of one."""

    uuid: str
    index: int
    """As nvidia-smi numbers it now. For people only: it is not stable (facts, 28)."""
    model: str
    memory: int | None = None
    """Bytes; ``None`` where the driver does not say (unified memory)."""
    memory_used: int | None = None
    utilisation: int | None = None
    """Percent."""
    temperature: int | None = None
    """Degrees Celsius."""
    clock: int | None = None
    """The most its SM clock can be, in MHz."""
    mig_parent: str | None = None
    """UUID of the physical GPU when this is a MIG instance."""
    processes: tuple[GpuProcess, ...] = ()
    error: str | None = None
    """Set where the device itself reports that it is broken."""


class Phase(StrEnum):
    """Where a container stands, as its engine says."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    EXITED = "exited"


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSight:
    """One container with our labels, read whole from the engine."""

    id: str
    """The engine's full container id."""
    assignment_id: str
    """Its name."""
    task_id: str
    store_id: str
    """Which cloudai store placed it (two laptops may share a worker)."""
    user_id: str = ""
    task_name: str = ""
    phase: Phase
    held: Resources = Resources()
    gpus: tuple[str, ...] = ()
    """UUIDs it was given."""
    gpu_memory: int | None = None
    """Bytes it may use on each of them, as its owner declared."""
    created_at: datetime | None = None
    started_at: datetime | None = None
    """``None``: it never started, whatever its exit code says (facts, 16)."""
    finished_at: datetime | None = None
    exit_code: int | None = None
    oom_killed: bool = False
    error: str = ""
    """The engine's own word on why it could not start."""
    image: str = ""
    argv: tuple[str, ...] = ()
    """What runs in it: its entrypoint and command."""
    limits: Mapping[str, int] = field(default_factory=dict)
    """Read back from the engine: cpu_milli, memory, memory_swap, pids, storage (0: unlimited)."""

    @property
    def holds(self) -> bool:
        """Whether its reservation counts: everything that lives or may yet start."""
        return self.phase is not Phase.EXITED


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFacts:
    """What the worker's engine says of itself."""

    id: str
    version: str
    endpoint: str = ""
    """Where its API listens on the worker, such as ``unix:///var/run/docker.sock``."""
    storage_driver: str = ""
    storage_limit: str = "watch"
    """``quota``: the engine enforces ``--storage``; ``watch``: cloudai measures and stops."""
    memory_limit: bool = True
    swap_limit: bool = True
    cpu_limit: bool = True
    pids_limit: bool = True
    gpu_runtime: str = ""
    """``nvidia``, ``cdi``, ``hook`` or empty: how the engine can give GPUs to containers."""
    cgroup: str = ""
    started_at: datetime | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSight:
    """One whole probe of a worker: a single round trip."""

    cpus: int
    """Cores."""
    memory: int
    """Bytes in all."""
    memory_available: int
    """Bytes that could be had now, outsiders counted."""
    disk: int
    """Bytes in all, where the engine keeps its data."""
    disk_free: int
    load: float
    """Runnable processes, mean of the last minute."""
    clock: datetime
    """The worker's own clock, when it answered."""
    machine_id: str
    boot_id: str = ""
    os: str = ""
    kernel: str = ""
    login: str = ""
    """Who we are there."""
    engine: EngineFacts
    gpus: tuple[Gpu, ...] = ()
    gpu_trouble: str = ""
    """Why GPUs could not be read (nvidia-smi hung, failed), empty when all is well."""
    containers: tuple[ContainerSight, ...] = ()
    images: frozenset[str] = frozenset()
    """Names of images it has, each as ``docker run`` may be given it (``alpine:latest`` and
    ``alpine``)."""


# ------------------------------------------------------------------ what people want


AS_IT_IS_NOW = ""
"""Instead of an image's id: of the image that has the name now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec:
    """What the user wants. Values of environment variables are not part of it (see vault)."""

    image: str
    argv: tuple[str, ...] = ()
    """Given after ``--``; empty: the image's own command."""
    shell: str | None = None
    """Given with ``-c``: run as ``/bin/sh -c TEXT``. Text that begins with ``#!`` is a script:
    run by the interpreter it names, with ``argv`` as its arguments (see ``core.script``)."""
    resources: Resources = DEFAULT_RESOURCES
    user_id: str = "admin"
    name: str | None = None
    target: str | None = None
    """Only this worker will do."""
    env: tuple[str, ...] = ()
    """Names only."""
    mounts: tuple[str, ...] = ()
    """In ``docker run --mount`` form."""
    workdir: str | None = None
    run_as: str | None = None
    """``uid[:gid]`` inside the container."""
    shm_size: int | None = None
    """Bytes."""
    time_limit: float | None = None
    """Seconds of running."""
    grace: float = 10.0
    """Seconds between the polite and the hard stop."""
    idempotency_key: str | None = None
    on_lost: OnLost = OnLost.WAIT
    lost_after: float = 600.0
    """Seconds out of reach after which ``on_lost`` applies; see ``core.lost``."""
    priority: int = NORMAL_PRIORITY
    """0 to 100; higher goes first."""
    strategy: Strategy | None = None
    """``None``: the fleet's default."""
    nodes: tuple[str, ...] = ()
    """Only workers with one of these ids, labels (``zone=lab``) or pools (groups) will do."""
    gpu_model: str | None = None
    """Only GPUs with this in their model's name will do (``a100``)."""
    gpu_memory: int | None = None
    """Bytes that each GPU must have for it; a share holds so many of its device."""
    require: tuple[str, ...] = ()
    """Expressions that a worker must meet; see ``core.labels``."""
    avoid: tuple[str, ...] = ()
    """Expressions that a worker must not meet."""
    near: tuple[str, ...] = ()
    """Only workers on which one of these tasks (ids, names) is."""
    apart: tuple[str, ...] = ()
    """No worker on which one of these tasks (ids, names) is."""
    preemptible: bool = False
    """May be put back in the queue for a task of higher priority, or for a reservation."""
    retries: int = 0
    """How often it is tried again after it ended badly."""
    retry_on: tuple[str, ...] = ()
    """Causes, or exit codes, for which it is; empty: any."""
    group: str | None = None
    """The placement group it is one of: all of them are placed, or none is."""
    group_size: int = 1
    group_rank: int = 0
    """0 to ``group_size - 1``."""
    placement: Placement = Placement.PACK
    batch: str | None = None
    """The batch it was submitted with."""
    entry: str | None = None
    """Which of the batch's entries it comes from: needs may name that."""
    fingerprint: str | None = None
    """Of one of a batch; see ``core.fingerprint``."""
    array: str | None = None
    """The array it is an element of: its id is that one's, ``_`` and its index."""
    array_index: int = 0
    array_size: int = 1
    """How many elements the array has."""
    array_limit: int | None = None
    """At most so many elements of the array hold a place at once."""
    after: tuple[str, ...] = ()
    """What must have ended first, and how: ``task-…:ok``, ``:failed`` or ``:any``; see
    ``core.needs``."""
    on_unmet: OnUnmet = OnUnmet.CANCEL
    signal: str | None = None
    """Sent first when it is to stop, to give it time for a checkpoint: ``USR1``."""
    signal_before: float = 60.0
    """Seconds it then has, and by which ``signal`` precedes the time limit."""
    first_output: float | None = None
    """Seconds within which it must write something."""
    idle_output: float | None = None
    """Seconds for which it may write nothing."""
    task_type: str | None = None
    """The template it was made from."""
    uploads: tuple[str, ...] = ()
    downloads: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    """Names, and where each is a file in the container; no values."""
    ship_image: str | None = None
    """The id of the image of this machine's engine that it runs, wherever: what ``image`` named
    when it was submitted. ``AS_IT_IS_NOW`` until that was looked up."""

    @property
    def command(self) -> str:
        """What runs, as one line for people (seed 002's ``command``)."""
        return self.shell if self.shell is not None else shlex.join(self.argv)


_OF_SPEC = tuple(one.name for one in fields(TaskSpec))
_ALL_OF_SPEC = attrgetter(*_OF_SPEC)
_PUT = {name: getattr(TaskSpec, name).__set__ for name in _OF_SPEC}


def altered(spec: TaskSpec, **changes: object) -> TaskSpec:
    """What ``dataclasses.replace`` makes, in a third of the time: for a hundred thousand."""
    new = object.__new__(TaskSpec)
    for put, value in zip(_PUT.values(), _ALL_OF_SPEC(spec), strict=True):
        put(new, value)
    for name, value in changes.items():
        _PUT[name](new, value)
    return new


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """One execution of a task on a worker, numbered; its number fences stale news."""

    task_id: str
    number: int
    worker_id: str
    placed_at: datetime
    container_id: str | None = None
    gpus: tuple[str, ...] = ()
    started_at: datetime | None = None
    ended_at: datetime | None = None
    exit_code: int | None = None
    reason: str = ""
    harvested: bool = False
    """Log at home and container gone (or never there)."""
    lost: bool = False
    """Given up while its worker could not be reached. Its container, if it is seen again, is a
    stale one: stopped, its log brought home, removed."""

    @property
    def id(self) -> str:
        """Also the container's name: an atomic mutex on its engine (facts, 14)."""
        return f"{self.task_id}.{self.number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What the user wants and how it stands."""

    id: str
    spec: TaskSpec
    state: State
    reason: str = ""
    created_at: datetime
    started_at: datetime | None = None
    completed_at: datetime | None = None
    exit_code: int | None = None
    direct: bool = False
    """Dispatched to a named worker: a refusal fails it, it never waits in the queue."""
    stop_reason: str = ""
    """While stopping: why. Empty means the user cancelled."""
    assignment: Assignment | None = None
    """The present or last one."""
    failures: int = 0
    """How often it ended badly and was tried again."""
    not_before: datetime | None = None
    """While queued: it is not placed earlier (it failed, and is given time)."""
    requeue: bool = False
    """While stopping: it goes back to the queue, since its place is needed."""
    skipped: bool = False
    """Once cancelled: it was left out, since a need of it was not met (``OnUnmet.SKIP``)."""

    @property
    def worker_id(self) -> str | None:
        return self.assignment.worker_id if self.assignment else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """A part of a worker that is kept for somebody, until a time or until it is given back."""

    id: str
    worker_id: str
    resources: Resources
    user_id: str | None = None
    """Whose; ``None``: of all whose tasks have its priority, or more."""
    priority: int = NORMAL_PRIORITY
    """0 to 100: tasks of its owner with at least that may use it."""
    until: datetime | None = None
    """``None``: until somebody gives it back."""
    created_at: datetime
    created_by: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Tasks that were submitted together, from files."""

    id: str
    name: str | None = None
    user_id: str
    once_key: str | None = None
    """At most one batch of its user has it."""
    created_at: datetime
    size: int
    """How many tasks it had when it was submitted."""
    files: tuple[str, ...] = ()
    """Their names."""
