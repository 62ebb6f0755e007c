"""What a probe's answer means. Pure: text in, ``WorkerSight`` out."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from cloudai.core.errors import EngineFailed, Indeterminate
from cloudai.core.model import EngineFacts, Gpu, GpuProcess, WorkerSight, WorkerSpec

from .command import OPEN_FILES
from .containers import document_of_held, sight_of
from .parts import TOO_LATE, Parts, whole_number

CDI_BY_GPUS = 29
"""The engine version from which ``--gpus`` itself goes through CDI (facts, 21)."""
IMAGES = 500
"""Names of images that are taken of one worker."""
IMAGE = re.compile(r"[a-z0-9][!-~]{0,400}:[A-Za-z0-9_.-]{1,128}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """What a start needs of the last probe: it changes only when the engine is set up anew."""

    data_root: str
    endpoint: str
    engine: str
    """Its own id."""
    cpus: int
    memory: int
    storage_limit: str
    gpu_by: str
    """``gpus`` or ``cdi``: by which option this engine gives GPUs."""
    open_files: int = OPEN_FILES
    """As many as this engine may give a container, and no more than it needs."""


def parse_probe(text: str, spec: WorkerSpec) -> WorkerSight:
    """One whole answer of the probe script.

    Raises ``EngineFailed`` when the worker answers and its Docker does not; ``Indeterminate``
    when Docker did not list its containers in time: an empty list would be a lie.
    """
    parts = Parts(text)
    facts = parts.facts()
    info = _info(parts, spec, login=facts.get("login", ""))
    total, available = _numbers(facts.get("memory", ""), 2)
    disk, disk_free = _numbers(facts.get("disk", ""), 2)
    memory = total or _count(info.get("MemTotal"))
    gpus, trouble = _gpus(parts)
    if parts.status("ids") != 0:
        raise Indeterminate(f"Docker on {spec.id} did not list its containers: {parts.said('ids')}")
    documents = list(parts.documents("container"))
    if parts.lines("ids") and parts.status("container") in TOO_LATE:
        if parts.status("listed") != 0:
            raise Indeterminate(f"Docker on {spec.id} did not describe its containers in time")
        documents = [*parts.documents("each")]
        described = {document.get("Id") for document in documents}
        for line in parts.lines("listed"):
            listed = document_of_held(line)
            if listed.get("Id") not in described:
                documents.append(listed)
    sights = (sight_of(document) for document in documents)
    return WorkerSight(
        cpus=_number(facts.get("cpus", "")) or _count(info.get("NCPU")),
        memory=memory,
        memory_available=available if total else memory,
        disk=disk,
        disk_free=disk_free,
        load=_decimal(facts.get("load", "")),
        clock=_clock(facts.get("clock", ""), info),
        machine_id=facts.get("machine_id", ""),
        boot_id=facts.get("boot_id", ""),
        os=facts.get("os") or str(info.get("OperatingSystem") or ""),
        kernel=facts.get("kernel", ""),
        login=facts.get("login", ""),
        engine=_engine(facts, info),
        gpus=gpus,
        gpu_trouble=trouble,
        containers=tuple(sight for sight in sights if sight is not None),
        images=_images(parts.lines("images")[:IMAGES]),
    )


def _images(listed: Sequence[str]) -> frozenset[str]:
    """Every name by which a task may ask for one of them: ``alpine:latest`` is also ``alpine``.
    Some engines (podman's) say Docker Hub's domain, which people leave out."""
    found: set[str] = set()
    for name in filter(IMAGE.fullmatch, listed):
        short = name.removeprefix("docker.io/").removeprefix("library/")
        found |= {name, short, name.removesuffix(":latest"), short.removesuffix(":latest")}
    return frozenset(found)


def learn(text: str, sight: WorkerSight) -> Learned:
    """What of a probe that ``parse_probe`` accepted the start script needs."""
    parts = Parts(text)
    info = next(iter(parts.documents("info")), {})
    may = _number(parts.facts().get("open_files", ""))
    major = re.match(r"\d+", sight.engine.version)
    old = major is None or int(major[0]) < CDI_BY_GPUS
    return Learned(
        data_root=str(info.get("DockerRootDir") or "/"),
        endpoint=sight.engine.endpoint,
        engine=sight.engine.id,
        cpus=sight.cpus,
        memory=sight.memory,
        storage_limit=sight.engine.storage_limit,
        gpu_by="cdi" if sight.engine.gpu_runtime == "cdi" and old else "gpus",
        open_files=min(OPEN_FILES, may) if may else OPEN_FILES,
    )


def docker_trouble(words: str, worker_id: str, *, login: str = "") -> EngineFailed:
    """Docker's own refusal to talk, with its mend."""
    if re.search(r"permission denied", words, re.IGNORECASE):
        who = login or "USER"
        return EngineFailed(
            f"Docker on {worker_id} does not let {who} in: {words}",
            hint=f"on {worker_id}: `sudo usermod -aG docker {who}`, then log in again",
        )
    if re.search(r"docker: (command )?not found|No such file or directory", words):
        return EngineFailed(
            f"Docker is not installed on {worker_id}: {words}",
            hint="install Docker Engine there, or put `docker` on the PATH of its logins",
        )
    return EngineFailed(
        f"Docker does not answer on {worker_id}: {words}",
        hint=f"on {worker_id}: `sudo systemctl status docker`, `sudo systemctl start docker`",
    )


def _info(parts: Parts, spec: WorkerSpec, *, login: str) -> Mapping[str, Any]:
    document = next(iter(parts.documents("info")), {})
    if parts.status("info") == 0 and document.get("ServerVersion"):
        return document
    if parts.status("info") in TOO_LATE:
        raise docker_trouble("no answer within 15 s", spec.id)
    errors = document.get("ServerErrors")
    words = parts.said("info") or "; ".join(map(str, errors if isinstance(errors, list) else []))
    raise docker_trouble(words or "it said nothing", spec.id, login=login)


def _engine(facts: Mapping[str, str], info: Mapping[str, Any]) -> EngineFacts:
    started = _number(facts.get("engine_started", ""))
    warnings = info.get("Warnings")
    return EngineFacts(
        id=str(info.get("ID") or ""),
        version=str(info["ServerVersion"]),
        endpoint=facts.get("endpoint", ""),
        storage_driver=str(info.get("Driver") or ""),
        storage_limit=storage_limit(info, facts.get("mount", "")),
        memory_limit=info.get("MemoryLimit") is True,
        swap_limit=info.get("SwapLimit") is True,
        cpu_limit=info.get("CpuCfsQuota") is True,
        pids_limit=info.get("PidsLimit") is True,
        gpu_runtime=_gpu_runtime(facts, info),
        cgroup=f"v{info.get('CgroupVersion') or '1'} ({info.get('CgroupDriver') or 'unknown'})",
        started_at=datetime.fromtimestamp(started, UTC) if started else None,
        warnings=tuple(map(str, warnings)) if isinstance(warnings, list) else (),
    )


def storage_limit(info: Mapping[str, Any], mount: str) -> str:
    """``quota`` only where ``--storage-opt size`` is really enforced (facts, 22): btrfs and
    zfs, and overlay2 over xfs mounted with project quotas. ``mount``: type and options of the
    file system under the engine's data."""
    driver = info.get("Driver")
    status = info.get("DriverStatus")
    pairs = dict(pair for pair in status or [] if isinstance(pair, list) and len(pair) == 2)
    if "io.containerd" in str(pairs.get("driver-type", "")):
        return "watch"
    if driver in ("btrfs", "zfs"):
        return "quota"
    kind, _, options = mount.partition(" ")
    on_xfs = kind == "xfs" and pairs.get("Backing Filesystem") == "xfs"
    if driver == "overlay2" and on_xfs and {"pquota", "prjquota"} & set(options.split(",")):
        return "quota"
    return "watch"


def _gpu_runtime(facts: Mapping[str, str], info: Mapping[str, Any]) -> str:
    runtimes, devices = info.get("Runtimes"), info.get("DiscoveredDevices")
    if isinstance(runtimes, dict) and "nvidia" in runtimes:
        return "nvidia"
    found = any("nvidia.com/gpu" in str(device) for device in devices or [])
    if found or (facts.get("gpu_cdi") and info.get("CDISpecDirs")):
        return "cdi"
    return "hook" if facts.get("gpu_hook") else ""


# --- GPUs


def _gpus(parts: Parts) -> tuple[tuple[Gpu, ...], str]:
    if parts.status("gpus") is None:
        return (), "reading the GPUs did not end in time"
    return parse_gpus(parts.lines("gpus"))


def parse_gpus(lines: Sequence[str]) -> tuple[tuple[Gpu, ...], str]:
    """Devices and trouble from the lines of ``gpus()`` (templates/worker/_gpus.sh.j2)."""
    gpus: dict[str, Gpu] = {}
    processes: dict[str, list[GpuProcess]] = {}
    trouble = ""
    for line in lines:
        match line.split("\t"):
            case ["gpu", uuid, index, memory, used, use, heat, clock, parent, error, *model]:
                gpus[uuid] = Gpu(
                    uuid=uuid,
                    index=_number(index),
                    model=html.unescape(" ".join(model)),
                    memory=whole_number(memory),
                    memory_used=whole_number(used),
                    utilisation=whole_number(use),
                    temperature=whole_number(heat),
                    clock=whole_number(clock),
                    mig_parent=None if parent == "-" else parent,
                    error=None if error == "-" else error,
                )
            case ["proc", uuid, pid, kind, memory, container, user, *name] if whole_number(pid):
                processes.setdefault(uuid, []).append(
                    GpuProcess(
                        pid=_number(pid),
                        name=html.unescape(" ".join(name)),
                        memory=whole_number(memory),
                        user=None if user == "-" else user,
                        container=None if container == "-" else container,
                        graphics=kind == "G",
                    )
                )
            case ["trouble", *words]:
                trouble = " ".join(words).strip()
    shown = (replace(gpu, processes=tuple(processes.get(gpu.uuid, ()))) for gpu in gpus.values())
    return tuple(shown), trouble


# --- numbers that a worker sent


def _number(text: str) -> int:
    return whole_number(text) or 0


def _numbers(text: str, count: int) -> list[int]:
    """The first so many words as numbers, 0 for what is none."""
    words = [*text.split()[:count], *[""] * count][:count]
    return [_number(word) for word in words]


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _decimal(text: str) -> float:
    return float(text) if re.fullmatch(r"[0-9]{1,9}([.][0-9]{1,9})?", text) else 0.0


def _clock(text: str, info: Mapping[str, Any]) -> datetime:
    """The host's clock; the engine's where ``date`` tells no more (it always tells seconds)."""
    match = re.match(r"([0-9]{1,11})(?:\.([0-9]{1,9}))?", text)
    if match:
        micros = int((match[2] or "").ljust(6, "0")[:6])
        return datetime.fromtimestamp(int(match[1]), UTC).replace(microsecond=micros)
    try:
        return datetime.fromisoformat(str(info.get("SystemTime"))).astimezone(UTC)
    except ValueError:
        raise Indeterminate("the worker did not tell its time") from None
