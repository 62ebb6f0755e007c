"""What an engine's own description of a container means. Pure: documents in, sightings out.

A document is a whole ``docker inspect``, which is also ``GET /containers/{id}/json``. Whoever
may create containers on a worker can put anything into labels, so nothing in a document is
trusted to have the right type or a sane value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime

from cloudai.core.model import ContainerSight, Phase, Resources

from . import labels

FULL_ID = re.compile(r"[0-9a-f]{64}")
SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,9})?)\s*([kmgtp]?)(?:i?b)?", re.IGNORECASE)
UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
LARGEST = 2**63 - 1
HELD_LABELS = (
    labels.CPU_MILLI,
    labels.MEMORY,
    labels.STORAGE,
    labels.GPU_MILLI,
    labels.GPUS,
    labels.ASSIGNMENT,
    labels.STORE,
    labels.TASK,
    labels.GPU_MEMORY,
)
"""What stands in a line of ``docker ps`` after id, name and state."""
KILLED = 137


def sight_of(document: Mapping[str, object]) -> ContainerSight | None:
    """One container of ours, or ``None`` for anything that is not: no labels of ours, a name
    other than its assignment label says, or no state that can be understood. Never raises."""
    config, state = mapping(document.get("Config")), mapping(document.get("State"))
    named = _texts(config.get("Labels"))
    assignment_id = name_of(document)
    container_id = _text(document.get("Id"))
    task_id, store_id = named.get(labels.TASK, ""), named.get(labels.STORE, "")
    if not assignment_id or named.get(labels.ASSIGNMENT) != assignment_id:
        return None
    if not task_id or not store_id or not FULL_ID.fullmatch(container_id):
        return None
    started_at = moment(state.get("StartedAt"))
    phase = _phase(state, started=started_at is not None)
    if phase is None:
        return None
    error = _text(state.get("Error"))
    return ContainerSight(
        id=container_id,
        assignment_id=assignment_id,
        task_id=task_id,
        store_id=store_id,
        user_id=named.get(labels.USER, ""),
        task_name=named.get(labels.NAME, ""),
        phase=phase,
        held=_held(named),
        gpus=tuple(part for part in named.get(labels.GPUS, "").split(",") if part),
        gpu_memory=_declared(named.get(labels.GPU_MEMORY, "")),
        created_at=moment(document.get("Created")),
        started_at=started_at,
        finished_at=_finished_at(state, started_at) if phase is Phase.EXITED else None,
        exit_code=_exit_code(state, phase, started=started_at is not None, error=error),
        oom_killed=state.get("OOMKilled") is True,
        error=error,
        image=_text(config.get("Image")),
        argv=(*_words(config.get("Entrypoint")), *_words(config.get("Cmd"))),
        limits=_limits(mapping(document.get("HostConfig"))),
    )


def _finished_at(state: Mapping[str, object], started_at: datetime | None) -> datetime | None:
    """When it ended; never before it began: of a container that ends at once, the engine may
    write down the end first."""
    finished_at = moment(state.get("FinishedAt"))
    if finished_at is None or started_at is None:
        return finished_at
    return max(finished_at, started_at)


def document_of_held(line: str) -> dict[str, object]:
    """A line of ``docker ps`` (see ``command.HELD``), as far as it goes, as a description. Of one
    that has ended it says too little, and nothing is made of it."""
    words = line.split("\t")
    if len(words) != len(HELD_LABELS) + 3:
        return {}
    named = dict(zip(HELD_LABELS, words[3:], strict=True))
    return listed(words[0], words[1], words[2], named)


def listed(
    container_id: str, name: str, state: str, named: Mapping[str, object], image: str = ""
) -> dict[str, object]:
    """What a list of containers tells of one, as a description of one that lives, or was never
    started; nothing for another."""
    if state not in ("created", "running", "paused"):
        return {}
    return {
        "Id": container_id,
        "Name": name,
        "Config": {"Labels": {key: value for key, value in named.items() if value}, "Image": image},
        "State": {"Status": state},
    }


def name_of(document: Mapping[str, object]) -> str:
    """The container's name without the engine's leading slash; empty where there is none."""
    return _text(document.get("Name")).removeprefix("/")


def killed_for_unknown_reason(sight: ContainerSight) -> bool:
    """Killed, and not said to be for lack of memory: the engine may say so a moment later
    (facts, 18)."""
    return sight.exit_code == KILLED and not sight.oom_killed


def moment(value: object) -> datetime | None:
    """A point in time of the engine's (RFC 3339, up to nanoseconds); its zero is ``None``."""
    if not isinstance(value, str) or "T" not in value:
        return None
    try:
        at = datetime.fromisoformat(value)
        at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return at if at.year > 1 else None


def _phase(state: Mapping[str, object], *, started: bool) -> Phase | None:
    """``None`` where the document says neither a status nor whether it runs."""
    match state.get("Status"):
        case "created":
            return Phase.CREATED
        case "running" | "restarting":
            return Phase.RUNNING
        case "paused":
            return Phase.PAUSED
        case "exited" | "dead":
            return Phase.EXITED
    # "removing" (nothing runs in it any more), or a word of an engine newer than this text.
    if state.get("Paused") is True:
        return Phase.PAUSED
    if state.get("Running") is True:
        return Phase.RUNNING
    if state.get("Running") is False:
        return Phase.EXITED if started else Phase.CREATED
    return None


def _exit_code(
    state: Mapping[str, object], phase: Phase, *, started: bool, error: str
) -> int | None:
    """The code it ended with. A container that never started shows 0, which means nothing,
    or with an error the code of that failure (facts, 15 and 16)."""
    code = state.get("ExitCode")
    if not isinstance(code, int) or isinstance(code, bool):
        return None
    if started:
        return code if phase is Phase.EXITED else None
    return code if error and code != 0 else None


def _held(named: Mapping[str, str]) -> Resources:
    def amount(label: str) -> int:
        text = named.get(label, "")
        # A forged label must neither free what others hold nor overflow a database column.
        return min(int(text), LARGEST) if re.fullmatch(r"[0-9]{1,30}", text) else 0

    return Resources(
        cpu_milli=amount(labels.CPU_MILLI),
        memory=amount(labels.MEMORY),
        storage=amount(labels.STORAGE),
        gpu_milli=amount(labels.GPU_MILLI),
    )


def _declared(text: str) -> int | None:
    """Bytes, as many digits as admission on the worker takes; ``None`` for anything else."""
    return int(text) if re.fullmatch(r"[0-9]{1,15}", text) else None


def _limits(host: Mapping[str, object]) -> dict[str, int]:
    cpu_milli = _count(host.get("NanoCpus")) // 1_000_000
    quota, period = _count(host.get("CpuQuota")), _count(host.get("CpuPeriod"))
    if not cpu_milli and quota:
        cpu_milli = quota * 1000 // (period or 100_000)
    return {
        "cpu_milli": cpu_milli,
        "memory": _count(host.get("Memory")),
        "memory_swap": _count(host.get("MemorySwap")),
        "pids": _count(host.get("PidsLimit")),
        "storage": _size(_texts(host.get("StorageOpt")).get("size", "")),
    }


def _size(text: str) -> int:
    """Bytes of a size as Docker writes one (``10G``); 0 where it is none."""
    if not (match := SIZE.fullmatch(text.strip())):
        return 0
    return min(int(float(match[1]) * 1024 ** UNITS[match[2].lower()]), LARGEST)


def _count(value: object) -> int:
    """A limit: positive, or 0 for unlimited, which engines also write as null and -1."""
    if not isinstance(value, int) or isinstance(value, bool):
        return 0
    return min(max(value, 0), LARGEST)


def mapping(value: object) -> Mapping[str, object]:
    """The value where it is an object of JSON; an empty one where it is anything else."""
    return value if isinstance(value, Mapping) else {}


def _texts(value: object) -> dict[str, str]:
    return {
        key: text
        for key, text in mapping(value).items()
        if isinstance(key, str) and isinstance(text, str)
    }


def _words(value: object) -> tuple[str, ...]:
    items = value if isinstance(value, list) else []
    return tuple(item for item in items if isinstance(item, str))


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
