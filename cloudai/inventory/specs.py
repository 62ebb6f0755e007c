"""A worker's values to its spec and back, in the words of the schema."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from cloudai.core.model import GIB, MIB, Resources, WorkerSpec
from cloudai.core.names import check_worker_id

from .schema import LABELS, OF_SSH, Path, Value, check_label_key, read_value


def build_spec(
    worker_id: str, values: Mapping[Path, Value], *, groups: tuple[str, ...] = (), place: str = ""
) -> WorkerSpec:
    """The worker that these values of the schema describe; what is left out has its default."""
    local = values.get(("connection",)) == "local"

    def text(key: str) -> str | None:
        value = values.get((key,))
        return None if value is None or (local and key in OF_SSH) else str(value)

    def number(*path: str, otherwise: int = 0) -> int:
        return int(values.get(path, otherwise))

    return WorkerSpec(
        id=worker_id,
        connection=text("connection") or "ssh",
        host=text("host"),
        port=None if local else number("port") or None,
        user=text("user"),
        identity_file=text("identity_file"),
        proxy_jump=text("proxy_jump"),
        labels=MappingProxyType({p[1]: str(v) for p, v in values.items() if p[0] == LABELS}),
        reserve=Resources(
            cpu_milli=number("reserve", "cpus"),
            memory=number("reserve", "memory"),
            storage=number("reserve", "storage"),
            gpu_milli=number("reserve", "gpus"),
        ),
        max_gpus=number("gpus", "max") if ("gpus", "max") in values else None,
        min_free_gpus=number("gpus", "min_free"),
        tasks_per_gpu=number("gpus", "share") or None,
        gpu_idle_memory=number("gpus", "idle_memory", otherwise=512 * MIB),
        engine_socket=text("engine_socket"),
        groups=groups,
        place=place,
    )


def check_worker(spec: WorkerSpec) -> WorkerSpec:
    """The worker as an inventory would read it back. Raises ``InvalidInput`` naming the key."""
    check_worker_id(spec.id)
    for label in spec.labels:
        check_label_key(label)
    values = {
        path: read_value(path, str(value))
        for path, value in values_of(spec).items()
        if value is not None
    }
    return build_spec(spec.id, values, groups=spec.groups, place=spec.place)


def values_of(spec: WorkerSpec) -> dict[tuple[str, ...], str | int | float | None]:
    """The worker by the schema's keys, in the units that people write; nothing where not given."""
    reserve = spec.reserve
    return {
        ("connection",): spec.connection,
        ("host",): spec.host,
        ("port",): spec.port,
        ("user",): spec.user,
        ("identity_file",): spec.identity_file,
        ("proxy_jump",): spec.proxy_jump,
        **{("labels", key): value for key, value in spec.labels.items()},
        ("reserve", "cpus"): _decimal(reserve.cpu_milli),
        ("reserve", "memory"): _amount(reserve.memory),
        ("reserve", "storage"): _amount(reserve.storage),
        ("reserve", "gpus"): _decimal(reserve.gpu_milli),
        ("gpus", "max"): spec.max_gpus,
        ("gpus", "min_free"): spec.min_free_gpus,
        ("gpus", "share"): spec.tasks_per_gpu,
        ("gpus", "idle_memory"): _amount(spec.gpu_idle_memory),
        ("engine_socket",): spec.engine_socket,
    }


def _decimal(milli: int) -> int | float:
    return milli // 1000 if milli % 1000 == 0 else milli / 1000


def _amount(size: int) -> int | str:
    if size % GIB == 0:
        return size // GIB
    return f"{size // MIB}m" if size % MIB == 0 else f"{size}b"
