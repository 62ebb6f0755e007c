"""What a worker has left. Derived from what lives, never counted up and down (promise 5).

The worker's own admission says the same again under its lock; this is the hint for scheduling
and for people, that is the truth (design, 5).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum

from .model import ContainerSight, Gpu, GpuProcess, Resources, WorkerSight, WorkerSpec

WHOLE = 1000
"""Thousandths of a GPU that make a whole one."""


class Use(StrEnum):
    """Who has a GPU."""

    FREE = "free"
    TASK = "task"
    OUTSIDE = "outside"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class GpuUse:
    """One GPU and who has it. ``held``: thousandths that tasks of any cloudai hold."""

    gpu: Gpu
    use: Use
    held: int = 0
    tasks: tuple[str, ...] = ()

    @property
    def room(self) -> int:
        """Thousandths that a task could still get."""
        return WHOLE - self.held if self.use in (Use.FREE, Use.TASK) else 0


@dataclass(frozen=True, slots=True)
class Hold:
    """A task that was placed on a worker and is not yet seen there."""

    task_id: str
    resources: Resources


@dataclass(slots=True)
class Free:
    """What is left of one worker. Mutable: a scheduling pass takes from it as it places."""

    total: Resources
    reserved: Resources
    """By labelled containers and placed tasks, not counting what ops keep back."""
    free: Resources
    gpus: list[GpuUse] = field(default_factory=list)
    shares: list[int] = field(default_factory=list)
    """Room on each GPU that may be given, in thousandths, whole ones as 1000."""

    def lacks(self, need: Resources) -> tuple[str, float, float] | None:
        """The first thing missing for ``need``: (what, available, required), or ``None``."""
        if need.cpu_milli > self.free.cpu_milli:
            return "CPU", max(0.0, self.free.cpus), need.cpus
        if need.memory > self.free.memory:
            return "memory", max(0.0, self.free.memory_gib), need.memory_gib
        if need.storage > self.free.storage:
            return "storage", max(0.0, self.free.storage_gib), need.storage_gib
        if need.gpu_milli and not self._gpus_fit(need.gpu_milli):
            return "GPU", self.gpu_room(need.gpu_milli) / WHOLE, need.gpus
        return None

    def could_hold(self, need: Resources) -> bool:
        """Whether ``need`` is within what the worker has in all."""
        return (
            need.cpu_milli <= self.total.cpu_milli
            and need.memory <= self.total.memory
            and need.storage <= self.total.storage
            and need.gpu_milli <= self.total.gpu_milli
        )

    def gpu_room(self, need: int) -> int:
        """Thousandths that a request of that kind could get: whole devices, or the best share."""
        if need >= WHOLE:
            return WHOLE * sum(share == WHOLE for share in self.shares)
        return max(self.shares, default=0)

    def _gpus_fit(self, need: int) -> bool:
        return self.gpu_room(need) >= need

    def take(self, need: Resources) -> None:
        """Holds ``need``, which must fit. Shares go where the least room is left (best fit)."""
        self.free = self.free - need
        self.reserved = self.reserved + need
        if not need.gpu_milli:
            return
        if need.gpu_milli < WHOLE:
            fitting = [i for i, share in enumerate(self.shares) if share >= need.gpu_milli]
            best = min(fitting, key=lambda i: self.shares[i])
            self.shares[best] -= need.gpu_milli
            return
        for _ in range(need.gpu_milli // WHOLE):
            self.shares.remove(WHOLE)


def outsiders(gpu: Gpu, ours: frozenset[str]) -> tuple[GpuProcess, ...]:
    """Processes that compute on a GPU and run in no container of any cloudai (``ours``:
    container ids). A desktop that only draws keeps nobody away; its memory counts."""
    return tuple(
        process
        for process in gpu.processes
        if process.container not in ours and not process.graphics
    )


def gpu_uses(
    gpus: Iterable[Gpu], containers: Iterable[ContainerSight], *, idle_memory: int
) -> list[GpuUse]:
    """Who has each GPU. A free one is one that neither cloudai nor anyone else uses.

    ``idle_memory``: bytes in use up to which a GPU without a holder still counts as idle.
    """
    containers = [container for container in containers if container.holds]
    ours = frozenset(container.id for container in containers)
    held: dict[str, int] = {}
    tasks: dict[str, list[str]] = {}
    for container in containers:
        for uuid in container.gpus:
            share = min(WHOLE, container.held.gpu_milli)
            held[uuid] = held.get(uuid, 0) + share
            tasks.setdefault(uuid, []).append(container.task_id)
    return [
        GpuUse(
            gpu=gpu,
            use=_use(gpu, held.get(gpu.uuid, 0), ours, idle_memory),
            held=min(WHOLE, held.get(gpu.uuid, 0)),
            tasks=tuple(tasks.get(gpu.uuid, ())),
        )
        for gpu in gpus
    ]


def _use(gpu: Gpu, held: int, ours: frozenset[str], idle_memory: int) -> Use:
    if gpu.error:
        return Use.BROKEN
    if outsiders(gpu, ours):
        return Use.OUTSIDE
    if held:
        return Use.TASK
    if gpu.memory_used is not None and gpu.memory_used > idle_memory:
        return Use.OUTSIDE
    return Use.FREE


def free_of(sight: WorkerSight, spec: WorkerSpec, holds: Iterable[Hold] = ()) -> Free:
    """What tasks could still get on a worker, as its latest probe saw it. Pure.

    Capacity, less what ops keep back, less every labelled container that holds (whoever placed
    it), less ``holds`` placed and not seen yet, less memory and GPUs that others use now.
    """
    seen = {container.task_id for container in sight.containers if container.holds}
    reserved = Resources()
    for container in sight.containers:
        if container.holds:
            reserved = reserved + container.held
    unseen = [hold.resources for hold in holds if hold.task_id not in seen]
    uses = gpu_uses(sight.gpus, sight.containers, idle_memory=spec.gpu_idle_memory)
    total = Resources(
        cpu_milli=sight.cpus * 1000,
        memory=sight.memory,
        storage=sight.disk,
        gpu_milli=WHOLE * len(sight.gpus),
    )
    left = total - spec.reserve - reserved
    shares = _offered(uses, spec)
    free = Free(
        total=total,
        reserved=reserved,
        free=Resources(
            cpu_milli=left.cpu_milli,
            memory=min(left.memory, sight.memory_available),
            storage=min(left.storage, sight.disk_free),
            gpu_milli=sum(shares),
        ),
        gpus=uses,
        shares=shares,
    )
    for need in unseen:
        _take_what_is_there(free, need)
    return free


def _offered(uses: list[GpuUse], spec: WorkerSpec) -> list[int]:
    """Room on the GPUs that may be given: at most ``max_gpus`` in tasks' hands, and as many
    left alone as ops reserve."""
    shared = sorted(use.room for use in uses if use.use is Use.TASK and use.room)
    idle = sum(use.use is Use.FREE for use in uses)
    in_hand = sum(use.use is Use.TASK for use in uses)
    idle -= -(-spec.reserve.gpu_milli // WHOLE)
    if spec.max_gpus is not None:
        idle = min(idle, spec.max_gpus - in_hand)
    return shared + [WHOLE] * max(0, idle)


def _take_what_is_there(free: Free, need: Resources) -> None:
    """A hold counts even where the worker shrank below it after an edit."""
    if free.gpu_room(need.gpu_milli) >= need.gpu_milli:
        free.take(need)
    else:
        free.take(replace(need, gpu_milli=0))
        free.shares.clear()
