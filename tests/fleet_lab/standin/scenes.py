"""The GPUs a worker pretends to have: scenes by name, plus the processes put on them.

A scene is read anew at every call from a folder:

- ``scene``: the name of one of ``SCENES``;
- ``seed``: any text, so that two workers never share a UUID;
- ``processes``: outsiders, one a line: device (UUID or index), pid, type, MiB, name; tabs between.

Memory is in MiB throughout, as in what nvidia-smi prints.
"""

from __future__ import annotations

import hashlib
import os
from typing import NamedTuple


class Process(NamedTuple):
    """Something that uses a device. ``kind``: ``C`` compute, ``G`` graphics, ``C+G``."""

    pid: int
    name: str
    memory: int
    kind: str = "C"
    instance: int | None = None
    """GPU instance id, for a process inside a MIG instance."""


class Instance(NamedTuple):
    """A MIG instance."""

    uuid: str
    profile: str
    gpu_instance: int
    compute_instance: int
    processors: int
    total: int
    used: int


class Device(NamedTuple):
    uuid: str
    number: int
    minor: int
    bus: str
    model: str
    brand: str
    architecture: str
    capability: str
    total: int
    reserved: int
    used: int
    temperature: int
    power: float
    power_limit: float
    utilisation: int = 0
    processes: tuple[Process, ...] = ()
    instances: tuple[Instance, ...] = ()
    mig: bool | None = None
    """``None``: a model that cannot do MIG."""
    unified: bool = False
    """Shares the machine's memory, so the driver knows no memory figures."""
    broken: bool = False
    display: bool = False


class Scene(NamedTuple):
    driver: str = "550.163.01"
    cuda: str = "12.4"
    devices: tuple[Device, ...] = ()
    failure: str = ""
    """What the tool says instead of anything else."""
    exit_code: int = 0
    hangs: bool = False


# ------------------------------------------------------------------ the machines


def _uuid(prefix: str, *parts: object) -> str:
    """A stable UUID in NVIDIA's notation."""
    digits = hashlib.md5(repr(parts).encode(), usedforsecurity=False).hexdigest()
    cuts = (digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])
    return f"{prefix}-{'-'.join(cuts)}"


def _a100(seed: str, index: int) -> Device:
    return Device(
        uuid=_uuid("GPU", seed, "a100", index),
        number=index,
        minor=(2, 3, 0, 1)[index % 4],  # as on real boards: not the order of the index
        bus=("07", "0B", "48", "4C")[index % 4],
        model="NVIDIA A100-SXM4-80GB",
        brand="NVIDIA",
        architecture="Ampere",
        capability="8.0",
        total=81920,
        reserved=598,
        used=4,
        temperature=31 + index,
        power=61.5 + index,
        power_limit=400.0,
        mig=False,
    )


def _h100(seed: str, index: int) -> Device:
    return _a100(seed, index)._replace(
        uuid=_uuid("GPU", seed, "h100", index),
        minor=index,
        bus=("1B", "43", "52", "61")[index % 4],
        model="NVIDIA H100 80GB HBM3",
        architecture="Hopper",
        capability="9.0",
        total=81559,
        reserved=551,
        used=1,
        power=70.2,
        power_limit=700.0,
    )


def _desktop(seed: str) -> Device:
    screen = (
        Process(2143, "/usr/lib/xorg/Xorg", 247, "G"),
        Process(2391, "/usr/bin/gnome-shell", 61, "G"),
    )
    return Device(
        uuid=_uuid("GPU", seed, "rtx4090"),
        number=0,
        minor=0,
        bus="01",
        model="NVIDIA GeForce RTX 4090",
        brand="GeForce",
        architecture="Ada Lovelace",
        capability="8.9",
        total=24564,
        reserved=355,
        used=16,
        temperature=43,
        power=28.4,
        power_limit=450.0,
        utilisation=3,
        processes=screen,
        display=True,
    )


def _unified(seed: str) -> Device:
    return Device(
        uuid=_uuid("GPU", seed, "gb10"),
        number=0,
        minor=0,
        bus="01",
        model="NVIDIA GB10",
        brand="NVIDIA",
        architecture="Blackwell",
        capability="12.1",
        total=0,
        reserved=0,
        used=0,
        temperature=38,
        power=4.6,
        power_limit=0.0,
        processes=(Process(1873, "/usr/lib/xorg/Xorg", 43, "G"),),
        unified=True,
        display=True,
    )


def _sliced(seed: str) -> Device:
    device = _a100(seed, 0)
    slices = (
        ("3g.40gb", 2, 42, 40192, 37),
        ("2g.20gb", 3, 28, 19968, 19),
        ("1g.10gb", 9, 14, 9728, 12),
        ("1g.10gb", 10, 14, 9728, 12),
    )
    instances = tuple(
        Instance(_uuid("MIG", device.uuid, gi), profile, gi, 0, processors, total, used)
        for profile, gi, processors, total, used in slices
    )
    return device._replace(
        mig=True, instances=instances, used=sum(one.used for one in instances), temperature=29
    )


def _scene(name: str, seed: str) -> Scene:
    match name:
        case "a100x4":
            return Scene(devices=tuple(_a100(seed, index) for index in range(4)))
        case "h100":
            return Scene("570.124.06", "12.8", (_h100(seed, 0),))
        case "rtx4090":
            return Scene("565.57.01", "12.7", (_desktop(seed),))
        case "mig":
            return Scene(devices=(_sliced(seed), _a100(seed, 1)))
        case "gb10":
            return Scene("580.95.05", "13.0", (_unified(seed),))
        case "broken":
            return Scene(devices=(_a100(seed, 0), _a100(seed, 1)._replace(broken=True)))
        case "mismatch":
            return Scene(
                failure="Failed to initialize NVML: Driver/library version mismatch\n"
                "NVML library version: 550.163",
                exit_code=18,
            )
        case "no-driver":
            return Scene(
                failure="NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA "
                "driver. Make sure that the latest NVIDIA driver is installed and running.\n",
                exit_code=9,
            )
        case "lost":
            return Scene(
                failure="Unable to determine the device handle for GPU0000:0B:00.0: Unknown Error",
                exit_code=255,
            )
        case "none":
            return Scene(failure="No devices were found", exit_code=6)
        case "hang":
            return Scene(hangs=True)
    raise KeyError(name)


SCENES = (
    "a100x4",
    "h100",
    "rtx4090",
    "mig",
    "gb10",
    "broken",
    "mismatch",
    "no-driver",
    "lost",
    "none",
    "hang",
)
DEFAULT = "a100x4"


# ------------------------------------------------------------------ with outsiders on them


def load(folder: str) -> Scene:
    """The scene as it stands now. Raises ``KeyError`` for a name that is none of ``SCENES``."""
    name = _text(folder, "scene").strip() or DEFAULT
    scene = _scene(name, _text(folder, "seed").strip())
    lines = [line.split("\t") for line in _text(folder, "processes").splitlines() if line]
    devices = tuple(_occupied(device, lines) for device in scene.devices)
    return scene._replace(devices=devices)


def _text(folder: str, name: str) -> str:
    try:
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def _occupied(device: Device, lines: list[list[str]]) -> Device:
    """The device with its outsiders, their memory counted."""
    instances = list(device.instances)
    processes = list(device.processes)
    for where, pid, kind, memory, name in lines:
        if where in (device.uuid, str(device.number)):
            processes.append(Process(int(pid), name, int(memory), kind))
        for place, instance in enumerate(instances):
            if where == instance.uuid:
                instances[place] = instance._replace(used=instance.used + int(memory))
                processes.append(Process(int(pid), name, int(memory), kind, instance.gpu_instance))
    busy = any("C" in process.kind for process in processes)
    return device._replace(
        processes=tuple(processes),
        instances=tuple(instances),
        used=device.used + sum(process.memory for process in processes),
        utilisation=97 if busy else device.utilisation,
        temperature=device.temperature + (24 if busy else 0),
    )
