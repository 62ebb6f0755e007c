"""What a worker has left. Derived from what lives, never counted up and down (promise 5).

The worker's own admission says the same again under its lock; this is the hint for scheduling
and for people, that is the truth (design, 5).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum

from .gpus import ANY, Wish, model_matches
from .model import GIB, ContainerSight, Gpu, GpuProcess, Resources, WorkerSight, WorkerSpec

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
    outsiders: tuple[GpuProcess, ...] = ()
    """Processes on it that compute and are nobody's task."""

    @property
    def room(self) -> int:
        """Thousandths that a task could still get."""
        return WHOLE - self.held if self.use in (Use.FREE, Use.TASK) else 0


@dataclass(frozen=True, slots=True)
class Hold:
    """A task that was placed on a worker and is not yet seen there."""

    task_id: str
    resources: Resources
    wish: Wish = ANY


@dataclass(slots=True)
class Device:
    """A GPU as tasks could still get it."""

    uuid: str
    model: str
    memory: int | None
    """Bytes in all; ``None``: the driver does not say."""
    room: int
    """Thousandths that are not held; ``WHOLE`` where nobody has any of it."""
    memory_left: int
    """Bytes that no share of it claims."""
    sharers: int = 0

    def suits(self, wish: Wish) -> bool:
        if wish.model is not None and not model_matches(wish.model, self.model):
            return False
        return wish.memory is None or (self.memory is not None and self.memory >= wish.memory)

    def claim(self, milli: int, declared: int | None) -> int:
        """Bytes that a share of it counts for: as declared, else its part of the whole."""
        return declared if declared is not None else (self.memory or 0) * milli // WHOLE


@dataclass(slots=True)
class Free:
    """What is left of one worker. Mutable: a scheduling pass takes from it as it places."""

    total: Resources
    cpu: int
    """Thousandths of a core."""
    memory: int
    storage: int
    """Bytes."""
    devices: list[Device] = field(default_factory=list)
    """Those that could be given at all: none that an outsider has, none that is broken."""
    idle_left: int = 0
    """How many idle devices tasks may still begin to use."""
    tasks_per_gpu: int | None = None
    reserved: Resources = field(default_factory=Resources)
    """By labelled containers and placed tasks, not counting what ops keep back: for people, as
    it was when it was read."""
    gpus: list[GpuUse] = field(default_factory=list)
    """All of them, with who has each: for people."""

    @property
    def free(self) -> Resources:
        return Resources(
            cpu_milli=self.cpu,
            memory=self.memory,
            storage=self.storage,
            gpu_milli=sum(self.shares),
        )

    @property
    def shares(self) -> list[int]:
        """Room on each device that may be given, in thousandths, whole ones as 1000."""
        shared = [device.room for device in self.devices if device.room < WHOLE]
        return sorted(shared) + [WHOLE] * min(self.idle_left, len(self.devices) - len(shared))

    def copy(self) -> Free:
        """One to try things on."""
        devices = [
            Device(one.uuid, one.model, one.memory, one.room, one.memory_left, one.sharers)
            for one in self.devices
        ]
        return Free(
            self.total,
            self.cpu,
            self.memory,
            self.storage,
            devices,
            self.idle_left,
            self.tasks_per_gpu,
            self.reserved,
            self.gpus,
        )

    # ---------------------------------------------------------------- does it fit?

    def lacks(self, need: Resources, wish: Wish = ANY) -> tuple[str, float, float] | None:
        """The first thing missing for ``need``: (what, available, required), or ``None``."""
        if need.cpu_milli > self.cpu:
            return "CPU", max(0, self.cpu) / 1000, need.cpus
        if need.memory > self.memory:
            return "memory", max(0, self.memory) / GIB, need.memory_gib
        if need.storage > self.storage:
            return "storage", max(0, self.storage) / GIB, need.storage_gib
        if need.gpu_milli and self.gpu_room(need.gpu_milli, wish) < need.gpu_milli:
            return "GPU", self.gpu_room(need.gpu_milli, wish) / WHOLE, need.gpus
        return None

    def could_hold(self, need: Resources, wish: Wish = ANY) -> bool:
        """Whether ``need`` is within what the worker has in all."""
        return (
            need.cpu_milli <= self.total.cpu_milli
            and need.memory <= self.total.memory
            and need.storage <= self.total.storage
            and (not need.gpu_milli or need.gpu_milli <= WHOLE * self.suiting(wish))
        )

    def suiting(self, wish: Wish) -> int:
        """How many of its GPUs are such, whoever has them."""
        if wish == ANY:
            return self.total.gpu_milli // WHOLE
        return len(self.such(wish))

    def such(self, wish: Wish) -> list[GpuUse]:
        """Its GPUs that would do, whoever has them."""
        return [use for use in self.gpus if wish == ANY or _as_device(use.gpu).suits(wish)]

    def gpu_room(self, need: int, wish: Wish = ANY) -> int:
        """Thousandths that a request of that kind could get: whole devices, or the best share."""
        whole, best = self.gpu_rooms(wish)
        return whole * WHOLE if need >= WHOLE else best

    def gpu_rooms(self, wish: Wish = ANY) -> tuple[int, int]:
        """How many whole devices, and the largest share of one: thousandths."""
        idle, best = 0, 0
        for device in self.devices:
            if wish is not ANY and not device.suits(wish):
                continue
            if device.room == WHOLE:
                idle += 1
            elif device.room > best:
                best = max(best, self._shareable(device, wish))
        idle = max(0, min(idle, self.idle_left))
        return idle, WHOLE if idle else best

    def _shareable(self, device: Device, wish: Wish) -> int:
        """The largest share of a device that is shared already: thousandths. One that declares
        no memory claims its part of it, so what is left of that limits it, too."""
        if not self._may_share(device, 0, wish):
            return 0
        if not device.memory or wish.memory is not None:
            return device.room
        return min(device.room, (WHOLE * (device.memory_left + 1) - 1) // device.memory)

    def _may_share(self, device: Device, milli: int, wish: Wish) -> bool:
        if self.tasks_per_gpu is not None and device.sharers >= self.tasks_per_gpu:
            return False
        if device.memory is None:
            return True
        return device.claim(milli, wish.memory) <= device.memory_left

    # ---------------------------------------------------------------- take and give back

    def take(self, need: Resources, wish: Wish = ANY) -> tuple[int, ...]:
        """Holds ``need``, which must fit; answers which of ``devices``. Shares go where the
        least room is left (best fit), whole ones to the least devices that will do."""
        chosen = self.choose(need.gpu_milli, wish) if need.gpu_milli else ()
        self.take_these(need, chosen, wish)
        return chosen

    def take_these(self, need: Resources, chosen: Iterable[int], wish: Wish = ANY) -> None:
        """Holds ``need`` with just these devices: what ``give`` undoes."""
        self.cpu -= need.cpu_milli
        self.memory -= need.memory
        self.storage -= need.storage
        self.hold(chosen, need.gpu_milli, wish)

    def choose(self, milli: int, wish: Wish = ANY) -> tuple[int, ...]:
        """Which devices a request that fits would get."""
        shared, idle = [], []
        for i, device in enumerate(self.devices):
            if wish is not ANY and not device.suits(wish):
                continue
            if device.room == WHOLE:
                idle.append(i)
            elif milli < WHOLE and device.room >= milli and self._may_share(device, milli, wish):
                shared.append(i)
        if milli < WHOLE and shared:
            return (min(shared, key=lambda i: self.devices[i].room),)
        # Where devices differ, the large ones are kept for who asks for them.
        idle.sort(key=lambda i: self.devices[i].memory or 0)
        return tuple(idle[: max(1, milli // WHOLE)])

    def hold(self, chosen: Iterable[int], milli: int, wish: Wish = ANY) -> None:
        """These devices are held, whole or by a share."""
        for i in chosen:
            device = self.devices[i]
            if device.room == WHOLE:
                self.idle_left -= 1
            device.room -= min(WHOLE, milli)
            device.sharers += 1
            device.memory_left -= device.claim(min(WHOLE, milli), wish.memory)

    def give(self, need: Resources, chosen: Iterable[int], wish: Wish = ANY) -> None:
        """What was held is free again."""
        self.cpu += need.cpu_milli
        self.memory += need.memory
        self.storage += need.storage
        for i in chosen:
            device = self.devices[i]
            device.room += min(WHOLE, need.gpu_milli)
            device.sharers -= 1
            device.memory_left += device.claim(min(WHOLE, need.gpu_milli), wish.memory)
            if device.room == WHOLE:
                self.idle_left += 1

    def take_what_is_there(self, need: Resources, wish: Wish = ANY) -> tuple[int, ...]:
        """A hold counts even where the worker shrank below it after an edit."""
        if self.gpu_room(need.gpu_milli, wish) >= need.gpu_milli:
            return self.take(need, wish)
        self.take(replace(need, gpu_milli=0))
        self.idle_left = 0
        for device in self.devices:
            device.room = device.memory_left = 0
        return ()


def _as_device(gpu: Gpu) -> Device:
    return Device(gpu.uuid, gpu.model, gpu.memory, WHOLE, gpu.memory or 0)


def empty_free(
    total: Resources,
    devices: Iterable[tuple[str, int | None]] = (),
    *,
    tasks_per_gpu: int | None = None,
) -> Free:
    """A worker with nothing on it. ``devices``: (model, bytes of memory) of each GPU."""
    gpus = [
        Gpu(uuid=f"GPU-{i}", index=i, model=model, memory=memory)
        for i, (model, memory) in enumerate(devices)
    ]
    return Free(
        total=replace(total, gpu_milli=WHOLE * len(gpus)),
        cpu=total.cpu_milli,
        memory=total.memory,
        storage=total.storage,
        devices=[_as_device(gpu) for gpu in gpus],
        idle_left=len(gpus),
        tasks_per_gpu=tasks_per_gpu,
        gpus=[GpuUse(gpu, Use.FREE) for gpu in gpus],
    )


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
            outsiders=outsiders(gpu, ours),
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
    if any(not process.graphics for process in gpu.processes):
        return Use.OUTSIDE  # a container of ours that was not given it computes there all the same
    if gpu.memory_used is not None and gpu.memory_used > idle_memory:
        return Use.OUTSIDE
    return Use.FREE


def free_of(sight: WorkerSight, spec: WorkerSpec, holds: Iterable[Hold] = ()) -> Free:
    """What tasks could still get on a worker, as its latest probe saw it. Pure.

    Capacity, less what ops keep back, less every labelled container that holds (whoever placed
    it), less ``holds`` placed and not seen yet, less memory and GPUs that others use now.
    """
    living = [container for container in sight.containers if container.holds]
    seen = {container.task_id for container in living}
    reserved = sum((container.held for container in living), Resources())
    uses = gpu_uses(sight.gpus, sight.containers, idle_memory=spec.gpu_idle_memory)
    total = Resources(
        cpu_milli=sight.cpus * 1000,
        memory=sight.memory,
        storage=sight.disk,
        gpu_milli=WHOLE * len(sight.gpus),
    )
    left = total - spec.reserve - reserved
    free = Free(
        total=total,
        cpu=left.cpu_milli,
        memory=min(left.memory, sight.memory_available),
        storage=min(left.storage, sight.disk_free),
        devices=_devices(uses, living),
        idle_left=_idle_left(uses, spec),
        tasks_per_gpu=spec.tasks_per_gpu,
        reserved=reserved,
        gpus=uses,
    )
    for hold in holds:
        if hold.task_id not in seen:
            free.take_what_is_there(hold.resources, hold.wish)
            free.reserved = free.reserved + hold.resources
    return free


def _devices(uses: list[GpuUse], living: list[ContainerSight]) -> list[Device]:
    """Those that are idle or in tasks' hands, with what is left of each."""
    devices = {use.gpu.uuid: _as_device(use.gpu) for use in uses if use.use in (Use.FREE, Use.TASK)}
    for container in living:
        for uuid in container.gpus:
            if (device := devices.get(uuid)) is None:
                continue
            milli = min(WHOLE, container.held.gpu_milli)
            device.room = max(0, device.room - milli)
            device.sharers += 1
            device.memory_left -= device.claim(milli, container.gpu_memory)
    return list(devices.values())


def _idle_left(uses: list[GpuUse], spec: WorkerSpec) -> int:
    """Idle GPUs that tasks may begin to use: at most ``max_gpus`` in tasks' hands, and as many
    left alone as ops reserve or want to stay free."""
    idle = sum(use.use is Use.FREE for use in uses)
    in_hand = sum(use.held > 0 for use in uses)
    idle -= -(-spec.reserve.gpu_milli // WHOLE) + spec.min_free_gpus
    if spec.max_gpus is not None:
        idle = min(idle, spec.max_gpus - in_hand)
    return max(0, idle)
