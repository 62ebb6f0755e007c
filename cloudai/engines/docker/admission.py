"""What the start script's answer means. Pure, but for the follow-up it may ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cloudai.core.errors import EngineFailed, Indeterminate
from cloudai.core.gpus import Wish
from cloudai.core.model import GIB, ContainerSight, Phase
from cloudai.engines import (
    CannotStart,
    FilesMissing,
    ImageMissing,
    NotAdmitted,
    Order,
    Outcome,
    Running,
)

from .containers import mapping, sight_of
from .failures import why_not_started
from .files import missing, why_not_filled
from .parts import Parts, whole_number

NAMES = {"cpu": "CPU", "memory": "memory", "storage": "storage", "gpu": "GPU"}
UNITS = {"cpu": 1000, "memory": GIB, "storage": GIB, "gpu": 1000}


@dataclass(frozen=True, slots=True)
class LockHeld:
    """Other starts had the worker's lock: nothing was done. To be asked again."""


@dataclass(frozen=True, slots=True)
class Unread:
    """It was started, and how it stands was left for us to see: ``judged`` goes on from there."""


@dataclass(frozen=True, slots=True)
class Undo:
    """It runs, or was left created, and may not stay: remove it, then the outcome is true."""

    outcome: CannotStart


def parse_start(
    text: str, order: Order, *, worker_id: str, read_back: bool = True
) -> Outcome | Undo | Unread | LockHeld:
    """``read_back``: whether the script was to say how a container stands that it has started.

    Raises ``EngineFailed`` where the worker could not say now (try again later), and
    ``Indeterminate`` where a start may still be under way."""
    parts = Parts(text)
    word, *rest = (parts.lines("verdict") or [""])[-1].split(" ")
    match word:
        case "ran" if not read_back:
            return Unread()
        case "standing" | "ran":
            return judged(_document(parts), order, worker_id=worker_id)
        case "refused" if len(rest) == 3 and rest[0] in NAMES:
            available, required = whole_number(rest[1]), whole_number(rest[2])
            if available is not None and required is not None:
                return _refused(parts, order, rest[0], available, required)
        case "image-missing":
            return ImageMissing()
        case "files-missing":
            return FilesMissing(missing(parts))
        case "unfilled":
            return CannotStart(why_not_filled(parts, worker_id))
        case "stranger":
            return CannotStart(_stranger(parts, order))
        case "failed":
            return _failed(parts, order, worker_id)
        case "nosecrets":
            return _no_secrets(rest, worker_id)
        case "silent":
            raise Indeterminate(f"Docker on {worker_id} did not finish starting in time")
        case "unknown":
            words = parts.said("held") or "it did not list its containers"
            raise EngineFailed(f"Docker does not answer on {worker_id}: {words}")
        case "busy":
            return LockHeld()
        case "nolock":
            return CannotStart(_no_lock(" ".join(rest), worker_id))
    raise Indeterminate(f"{worker_id} gave no answer to a start that can be understood")


def amount(value: float) -> str:
    """One decimal, or as many as it takes not to lie: 4.0, 0.25."""
    text = f"{value:.1f}"
    for digits in range(2, 7):
        if abs(float(text) - value) < 0.0000005:
            break
        text = f"{value:.{digits}f}"
    return text


def _refused(parts: Parts, order: Order, what: str, available: int, required: int) -> NotAdmitted:
    unit = UNITS[what]
    # Rounded down: "0.5 available, 0.5 required" must not be said of a refusal.
    there = available / unit if unit == 1000 else int(available / unit * 100) / 100
    reason = (
        f"Insufficient {NAMES[what]}: worker has {amount(there)} available,"
        f" task requires {amount(required / unit)}"
    )
    spec, trouble = order.spec, parts.lines("trouble")
    if what == "gpu" and (wish := str(Wish(spec.gpu_model, spec.gpu_memory))):
        reason += f" ({wish})"
    if what == "gpu" and trouble:
        reason += f" ({trouble[-1].removeprefix('trouble').strip()})"
    return NotAdmitted(what=what, available=there, required=required / unit, reason=reason)


def _document(parts: Parts) -> Mapping[str, Any]:
    return next(iter(parts.documents("found")), {})


def judged(document: Mapping[str, Any], order: Order, *, worker_id: str) -> Outcome | Undo:
    """What a start came to, by how the engine describes the container (empty: not at all), its
    limits included. Raises as ``parse_start`` does."""
    sight = sight_of(document)
    if sight is None:
        raise Indeterminate(f"{worker_id} started it and did not say how it stands")
    if sight.phase is Phase.CREATED:
        if not sight.error:
            raise Indeterminate(f"{worker_id} has its container, not started yet")
        why = why_not_started(sight.error, image=order.spec.image)
        if why.transient:
            raise EngineFailed(f"{worker_id}: {why.reason}", hint=why.hint)
        return Undo(CannotStart(why.reason, sight.exit_code))
    missing = unenforced(sight, document, order)
    if missing and sight.phase is not Phase.EXITED:
        return Undo(
            CannotStart(
                f"{worker_id} does not enforce {' and '.join(missing)}: its kernel or Docker"
                " ignores them, so the task was stopped (`cloudai doctor` has more)"
            )
        )
    return Running(sight, _warnings(sight, order))


def has_begun(document: Mapping[str, Any]) -> bool:
    """Whether it is described as one that was started at all."""
    return mapping(document.get("State")).get("Status") not in (None, "", "created")


def unenforced(sight: ContainerSight, document: Mapping[str, Any], order: Order) -> list[str]:
    """Limits that were asked for and that the engine shows otherwise."""
    asked, limits = order.spec.resources, sight.limits
    missing = []
    if limits.get("memory") != asked.memory:
        missing.append("memory limits")
    if asked.cpu_milli and limits.get("cpu_milli") != asked.cpu_milli:
        missing.append("CPU limits")
    if asked.gpu_milli and set(sight.gpus) != _devices(document):
        missing.append("the choice of GPUs")
    return missing


def _devices(document: Mapping[str, Any]) -> set[str]:
    found: set[str] = set()
    requests = mapping(document.get("HostConfig")).get("DeviceRequests")
    for request in requests if isinstance(requests, list) else []:
        devices = request.get("DeviceIDs") if isinstance(request, dict) else None
        for device in devices if isinstance(devices, list) else []:
            found.add(str(device).removeprefix("nvidia.com/gpu="))
    return found


def _warnings(sight: ContainerSight, order: Order) -> tuple[str, ...]:
    warnings = []
    if sight.limits.get("memory_swap") != order.spec.resources.memory:
        warnings.append("the worker cannot limit swap: the task may use more than its memory there")
    if not sight.limits.get("pids"):
        warnings.append("the worker does not limit the number of processes")
    return tuple(warnings)


def _stranger(parts: Parts, order: Order) -> str:
    document = _document(parts)
    who = str(document.get("Id") or "unknown")[:12]
    image = mapping(document.get("Config")).get("Image") or "unknown"
    return (
        f"the name {order.assignment_id} is taken by a container that is not cloudai's"
        f" ({who}, image {image}), nothing was touched"
    )


def _failed(parts: Parts, order: Order, worker_id: str) -> CannotStart:
    document = _document(parts)
    state = mapping(document.get("State"))
    words = str(state.get("Error") or "") or parts.said("run")
    code = state.get("ExitCode")
    why = why_not_started(words, image=order.spec.image)
    if why.transient:
        raise EngineFailed(f"{worker_id}: {why.reason}", hint=why.hint)
    return CannotStart(why.reason, code if isinstance(code, int) and code else None)


def _no_secrets(rest: list[str], worker_id: str) -> CannotStart:
    """Why there is no place for its files of secrets. Raises ``EngineFailed`` where there may be
    one later."""
    why, where = rest[0] if rest else "", " ".join(rest[1:])
    if why == "full":
        raise EngineFailed(
            f"{worker_id} has no room for files of secrets in {where}",
            hint="that is memory-backed: see what fills it there",
        )
    words = {
        "place": f"{worker_id} has no memory-backed place for files of secrets: neither /dev/shm"
        " nor its login's XDG_RUNTIME_DIR is a tmpfs that may be written",
        "taken": f"on {worker_id} somebody else's folder is in the way of its files of secrets:"
        f" {where}",
        "printf": f"the shell of {worker_id} (/bin/sh) has no printf of its own, so values would"
        " be seen in a list of processes: no secrets can be given there",
    }
    return CannotStart(words.get(why, f"{worker_id} cannot take files of secrets"))


def _no_lock(place: str, worker_id: str) -> str:
    if place == "flock":
        return (
            f"{worker_id} has neither flock nor perl, so starts there cannot be kept apart:"
            " install util-linux"
        )
    mend = f"on the worker, `sudo chmod o+rx {place or 'that folder'}`"
    return (
        f"the folder of {worker_id}'s Docker socket ({place or 'unknown'}) cannot be read, so"
        f" starts there cannot be kept apart: {mend}"
    )
