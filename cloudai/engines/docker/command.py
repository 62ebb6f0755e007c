"""``docker run`` as data: what an order becomes, word by word. Pure.

GPUs are missing here: they are chosen on the worker, under its lock, by the start script,
which adds ``--gpus`` (or CDI devices) and their label itself.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from cloudai.core.errors import InvalidInput
from cloudai.core.gpus import plain
from cloudai.core.model import GIB, MIB, TaskSpec, WorkerSpec
from cloudai.core.mounts import bind_mount
from cloudai.core.script import script_of
from cloudai.core.secrets import secret_name, secret_target
from cloudai.engines import Order
from cloudai.engines.groups import is_member
from cloudai.scripts import render

from . import labels
from .containers import HELD_LABELS

HELD = "\t".join(
    [
        "{{.ID}}",
        "{{.Names}}",
        "{{.State}}",
        *(f'{{{{.Label "{label}"}}}}' for label in HELD_LABELS),
    ]
)
"""One line of ``docker ps`` for admission: $1 id, $2 name, $3 state, $4 to $8 what it holds,
$9 to $11 whose it is, $12 the memory it declared of its GPUs."""

PIDS = 16384
OPEN_FILES = 65536
LOG_FILE, LOG_FILES = 50, 10
"""MiB in each, and how many: half a GiB of log a task on the worker. Never one file: rotation
would drop all at once."""
LOG_ROOM = LOG_FILE * MIB * (LOG_FILES - 1) * 98 // 100
"""Bytes of a log that are surely kept, with some room for how they are counted."""

ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
ENV_FILE_LINE = 65535
"""Bytes Docker reads of one line of an env file."""
ENV_VALUE = 131072
"""Bytes of NAME=VALUE and its end that the kernel takes for one string."""
ENV_TOTAL = MIB
CLIENT_NAMES = re.compile(
    r"""(?ix) PATH | HOME | PWD | OLDPWD | SHLVL | TMPDIR | TERM | TZ | IFS | ENV | CDPATH | PPID
    | [E]?UID | OPT(IND|ARG|ERR) | PS[0-4] | RANDOM | SECONDS | LINENO | REPLY | HIST.* | MAIL.*
    | _ | SHELL | SHELLOPTS | BASH.* | FUNCNAME | GROUPS | DIRSTACK | POSIXLY_CORRECT
    | DOCKER_.* | BUILDKIT.* | BUILDX.* | COMPOSE_.* | OTEL_.* | XDG_.* | LD_.* | DYLD_.*
    | GO[A-Z]+ | SSL_CERT_.* | .*_PROXY | LANG(UAGE)? | LC_.* | NLSPATH | RES_OPTIONS
    | LOCALDOMAIN | HOSTALIASES | GLIBC_TUNABLES | MALLOC_.* | GCONV_PATH | PERL.* | SSH_.*
    | NO_COLOR
    """
)
"""Names that the docker client, the C library or a shell acts on."""


@dataclass(frozen=True, slots=True)
class EnvPlan:
    """How values reach the container; never in argv, never in a file on the worker."""

    lines: tuple[str, ...]
    """``NAME=VALUE`` for ``--env-file``, read from a pipe."""
    exported: Mapping[str, str]
    """Through the docker client's own environment, by ``-e NAME``."""


def plan_env(env: Mapping[str, str]) -> EnvPlan:
    """Raises ``InvalidInput`` for what cannot be given whole.

    The env file is the first choice: nothing in it can change the docker client itself, as
    ``DOCKER_HOST``, ``LD_PRELOAD`` or ``OTEL_...`` in its environment would. It cannot carry
    newlines or long lines (facts, 24); those values go by the environment, where their name
    means nothing to the client.
    """
    lines, exported, total = [], {}, 0
    for name, value in env.items():
        if not ENV_NAME.fullmatch(name):
            raise InvalidInput(f"{name!r} cannot be the name of an environment variable")
        if name == "NVIDIA_VISIBLE_DEVICES":
            raise InvalidInput(
                "NVIDIA_VISIBLE_DEVICES is set by cloudai", hint="ask for GPUs with -gpu_cores"
            )
        line = f"{name}={value}"
        size = _size(line, name)
        total += size
        if size <= ENV_FILE_LINE and "\n" not in value and not value.endswith("\r"):
            lines.append(line)
        elif CLIENT_NAMES.fullmatch(name):
            raise InvalidInput(
                f"the value of {name} cannot be given to Docker: under that name it must be one"
                f" line of at most {ENV_FILE_LINE // 1024} KB",
                hint="mount a file instead",
            )
        else:
            exported[name] = value
    if total > ENV_TOTAL:
        raise InvalidInput(
            f"the environment is {total // 1024} KB in all; at most {ENV_TOTAL // 1024} KB can be"
            " given",
            hint="mount a file instead",
        )
    return EnvPlan(tuple(lines), exported)


def _size(line: str, name: str) -> int:
    if "\x00" in line:
        raise InvalidInput(f"the value of {name} has a NUL byte, which no environment can hold")
    try:
        size = len(line.encode())
    except UnicodeEncodeError:
        raise InvalidInput(f"the value of {name} is not valid text (UTF-8)") from None
    if size >= ENV_VALUE:
        raise InvalidInput(
            f"the value of {name} is {size // 1024} KB;"
            f" at most {(ENV_VALUE - 1) // 1024} KB can be given",
            hint="mount a file instead",
        )
    return size


def run_options(
    order: Order, *, storage_limit: str, env: tuple[str, ...], open_files: int = OPEN_FILES
) -> list[str]:
    """The options of ``docker run -d``, all but GPUs and the env file. ``env``: the names that
    are passed by ``-e NAME``; ``storage_limit`` as in ``EngineFacts``.

    Everything whose default differs between engines is said explicitly (facts, 20 and 23).
    ``/dev/shm`` is half the memory unless asked otherwise: it counts as the task's memory
    anyway, and Docker's 64 MB break data loaders.
    """
    spec, resources = order.spec, order.spec.resources
    memory = _bytes(resources.memory)
    shm = spec.shm_size if spec.shm_size is not None else max(64 * MIB, resources.memory // 2)
    options = ["--name", order.assignment_id, "--pull", "never", "--init"]
    options += ["--cpus", _thousandths(resources.cpu_milli)]
    options += ["--memory", memory, "--memory-swap", memory]
    if storage_limit == "quota":
        options += ["--storage-opt", f"size={_bytes(resources.storage)}"]
    options += ["--shm-size", _bytes(shm), "--pids-limit", str(PIDS)]
    options += ["--ulimit", f"nofile={open_files}:{open_files}"]
    options += ["--log-driver", "json-file"]
    options += ["--log-opt", f"max-size={LOG_FILE}m", "--log-opt", f"max-file={LOG_FILES}"]
    for key, value in _labels(order).items():
        options += ["--label", f"{key}={value}"]
    if not resources.gpu_milli:
        options += ["-e", "NVIDIA_VISIBLE_DEVICES=void"]
    return options + _asked(spec, env) + _entrypoint(spec)


def _asked(spec: TaskSpec, env: tuple[str, ...]) -> list[str]:
    """What the user's own flags become. Members of a group find each other by the addresses of
    their hosts, whatever ports they open."""
    options = ["--network", "host"] if is_member(spec) else []
    for name in env:
        options += ["-e", name]
    for mount in spec.mounts:
        options += ["--mount", mount]
    if spec.workdir is not None:
        options += ["--workdir", spec.workdir]
    if spec.run_as is not None:
        options += ["--user", spec.run_as]
    return options


def _entrypoint(spec: TaskSpec) -> list[str]:
    """Seed 002: shell text is /bin/sh's, whatever entrypoint the image has."""
    return [] if spec.shell is None else ["--entrypoint", "/bin/sh"]


def arguments(spec: TaskSpec) -> list[str]:
    """What stands after the image."""
    if spec.shell is None:
        return list(spec.argv)
    if (one := script_of(spec)) is None:
        return ["-c", spec.shell]
    words = [one.text, one.interpreter, one.option, *one.arguments]
    return ["-c", render("script"), "cloudai-script", *words]


def admission(spec: TaskSpec, worker: WorkerSpec) -> dict[str, str | int | list[str]]:
    """What the worker's admission is told: what the task asks, and what ops keep for people.
    No limit is -1."""
    asked, kept = spec.resources, worker.reserve
    reserve = (kept.cpu_milli, kept.memory, kept.storage, kept.gpu_milli)
    return {
        "cpu_milli": asked.cpu_milli,
        "want_memory": asked.memory,
        "want_storage": asked.storage,
        "gpu_milli": asked.gpu_milli,
        "gpu_memory": -1 if spec.gpu_memory is None else spec.gpu_memory,
        "gpu_model": plain(spec.gpu_model or ""),
        "reserve": [str(amount) for amount in reserve],
        "max_gpus": -1 if worker.max_gpus is None else worker.max_gpus,
        "min_free_gpus": worker.min_free_gpus,
        "tasks_per_gpu": -1 if worker.tasks_per_gpu is None else worker.tasks_per_gpu,
        "idle_memory": worker.gpu_idle_memory,
    }


def preview(spec: TaskSpec, *, storage_limit: str = "watch") -> str:
    """The line a person would type for the same: without cloudai's own bookkeeping and the
    defaults it says explicitly, values of variables left out. Docker knows no share of a GPU,
    so there it is one; a script is shown as the file it becomes in the container."""
    resources = spec.resources
    words = ["docker", "run", "-d"]
    words += ["--cpus", _thousandths(resources.cpu_milli), "--memory", _bytes(resources.memory)]
    if storage_limit == "quota":
        words += ["--storage-opt", f"size={_bytes(resources.storage)}"]
    if resources.gpu_milli:
        words += ["--gpus", str(math.ceil(resources.gpu_milli / 1000))]
    if spec.shm_size is not None:
        words += ["--shm-size", _bytes(spec.shm_size)]
    words += _asked(spec, tuple(spec.env))
    for secret in spec.secrets:
        source = f"/dev/shm/{secret_name(secret)}"  # noqa: S108 (for people, nothing is written)
        words += ["--mount", bind_mount(source, secret_target(secret))]
    if one := script_of(spec):
        read = [*filter(None, (one.option,)), "cloudai-script", *one.arguments]
        return shlex.join([*words, "--entrypoint", one.interpreter, "--", spec.image, *read])
    return shlex.join([*words, *_entrypoint(spec), "--", spec.image, *arguments(spec)])


def spec_hash(spec: TaskSpec) -> str:
    """SHA-256 of the spec's JSON; no values of variables are in it."""
    text = json.dumps(asdict(spec), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _labels(order: Order) -> dict[str, str]:
    spec, resources = order.spec, order.spec.resources
    declared = spec.gpu_memory if resources.gpu_milli else None
    found = {
        labels.TASK: order.task_id,
        labels.ASSIGNMENT: order.assignment_id,
        labels.STORE: order.store_id,
        labels.USER: spec.user_id,
        labels.NAME: spec.name or "",
        labels.SPEC: spec_hash(spec),
        labels.CPU_MILLI: str(resources.cpu_milli),
        labels.MEMORY: str(resources.memory),
        labels.STORAGE: str(resources.storage),
        labels.GPU_MILLI: str(resources.gpu_milli),
        labels.GPU_MEMORY: "" if declared is None else str(declared),
    }
    return {key: value for key, value in found.items() if value}


def _thousandths(milli: int) -> str:
    whole, rest = divmod(milli, 1000)
    return f"{whole}.{rest:03d}".rstrip("0").rstrip(".")


def _bytes(size: int) -> str:
    """As Docker reads it, in the largest unit that says it exactly."""
    for unit, letter in ((GIB, "g"), (MIB, "m"), (1024, "k")):
        if size and size % unit == 0:
            return f"{size // unit}{letter}"
    return f"{size}b"
