"""What a front door sends to have a task run, checked: the body of ``POST /tasks/``
(docs/api.md). The only home of that validation, with ``wishes`` (what the scheduler is asked)
and ``groups`` (several at once); the CLI and the API both end here.

A new field is one line in ``FIELDS`` and one in ``_spec``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from .arrays import Elements, parse_array
from .errors import InvalidInput
from .files import check_downloads, check_uploads, upload_of
from .image import check_image
from .labels import node_of
from .model import (
    AS_IT_IS_NOW,
    DEFAULT_RESOURCES,
    MIB,
    NORMAL_PRIORITY,
    OnLost,
    OnUnmet,
    Resources,
    Strategy,
    TaskSpec,
    altered,
)
from .mounts import check_mount, mount_target
from .names import (
    check_env_name,
    check_run_as,
    check_task_name,
    check_task_type,
    check_user,
    check_worker_id,
)
from .needs import check_after
from .script import check_script
from .secrets import MOST as MOST_SECRETS
from .secrets import check_secret, check_targets
from .signals import DEFAULT_BEFORE, parse_signal
from .units import parse_amount, parse_begin, parse_cpus, parse_duration, parse_gpus
from .wishes import (
    check_each,
    check_expression,
    check_flag,
    check_gpu_model,
    check_priority,
    check_retries,
    check_retry_on,
    check_strategy,
    check_task_reference,
)
from .wording import did_you_mean, shown

T = TypeVar("T")

MOST_ARGUMENTS = 100 * 1024
"""Bytes of command and mounts together: ``docker run`` takes them as arguments."""
MOST_OF_A_VARIABLE = 128 * 1024 - 1
"""Bytes of NAME=value: the kernel's MAX_ARG_STRLEN, less the closing zero."""
MOST_OF_ALL_VARIABLES = 1024 * 1024
"""Bytes: half of what the kernel lets a program start with."""
MOST_VARIABLES = 1000
MOST_MOUNTS = 64
LEAST_MEMORY = 6 * MIB
"""Docker starts no container with less."""
DEFAULT_GRACE = 10.0
LONGEST_GRACE = 3600.0
"""Seconds."""
LONGEST_PATH = 4096
DEFAULT_LOST_AFTER = 600.0
LEAST_LOST_AFTER = 60.0
"""Seconds: less is a network's hiccup."""

_NVIDIA_DOORS = {
    "NVIDIA_VISIBLE_DEVICES": "it would choose GPUs past the assignment",
    "NVIDIA_MIG_CONFIG_DEVICES": "it would let the task reconfigure GPUs it was not given",
    "NVIDIA_MIG_MONITOR_DEVICES": "it would let the task watch GPUs it was not given",
    "DOCKER_RESOURCE_GPU": "NVIDIA's runtime may take it for NVIDIA_VISIBLE_DEVICES",
}
"""Variables that NVIDIA's runtime itself obeys; the others only matter inside the container."""


@dataclass(frozen=True, slots=True)
class Request:
    """What was sent, its field names known; every read names the field it is about."""

    body: Mapping[str, object]

    def given(self, field: str) -> bool:
        """Whether the field was sent with a value: null is as good as left out."""
        return self.body.get(field) is not None

    def text(self, field: str) -> str:
        """The field as text. Raises ``InvalidInput`` for another type."""
        return _text(self.body[field], what=field)

    def read(self, field: str, check: Callable[..., T], *, otherwise: T) -> T:
        """``check(text, what=field)`` where the field was sent, else ``otherwise``."""
        return check(self.text(field), what=field) if self.given(field) else otherwise

    def quantity(self, field: str, parse: Callable[..., T], *, otherwise: T) -> T:
        """``parse(number or text, what=field)`` where the field was sent, else ``otherwise``."""
        return parse(self.body[field], what=field) if self.given(field) else otherwise


FIELDS = (
    *("docker_image", "argv", "command", "req_cpu", "req_memory", "req_storage", "req_gpu"),
    *("user_id", "name", "target", "env", "mounts", "secrets", "workdir", "run_as", "shm_size"),
    *("time_limit", "grace", "idempotency_key", "on_lost", "lost_after"),
    *("priority", "strategy", "nodes", "gpu_model", "gpu_memory", "require", "avoid"),
    *("near", "apart", "preemptible", "retries", "retry_on"),
    *("task_type", "parameters"),
    *("after", "on_unmet", "begin", "array"),
    "ship_image",
    *("signal", "first_output", "idle_output", "script"),
    *("uploads", "downloads"),
)
"""All that may be sent; only ``docker_image`` must be."""
OF_THE_QUEUE = (
    *("priority", "strategy", "nodes", "require", "avoid", "near", "apart"),
    *("preemptible", "retries", "retry_on", "after", "on_unmet", "begin", "array"),
)
"""Those that mean nothing to a task that is dispatched past the queue."""


def known_fields(body: Mapping[str, object], fields: Collection[str]) -> Request:
    """The body of a request, of which nothing is passed over. Raises ``InvalidInput`` for what
    is no object, and for a field that is none of ``fields``, with the nearest that is."""
    if not isinstance(body, Mapping):
        raise InvalidInput(f"the body is {shown(body)}; send a JSON object")
    for field in body:
        if field not in fields:
            raise InvalidInput(
                f"unknown field {shown(field)}; {did_you_mean(str(field), fields)}",
                field=shown(field),
            )
    return Request(body)


Expand = Callable[[Mapping[str, object]], Mapping[str, object]]
"""A body that names a ``task_type`` and ``parameters`` to one that says all of it."""


def read_request(
    body: Mapping[str, object], *, default_user: str, expand: Expand | None = None
) -> tuple[TaskSpec, dict[str, str]]:
    """What to run, and apart from it the values of its environment variables.

    ``body``: parsed JSON. ``default_user``: whose task it is when none is named. ``expand``:
    knows the task types; without it ``task_type`` is no more than a word. Raises
    ``InvalidInput`` naming the field, what was given and what would be right.
    """
    request = known_fields(body, FIELDS)
    if expand is not None and request.given("task_type"):
        request = known_fields(expand(body), FIELDS)
    if request.given("parameters"):
        raise InvalidInput(
            "parameters: they go with task_type, which names what takes them", field="parameters"
        )
    env = _env(request)
    return _spec(request, env, default_user), env


OWN = ("command", "argv", "script", "env", "name")
"""Fields that tasks of a sweep have each their own of. Nothing else hangs on what they say."""
MOST_ALIKE = 1000


class Requests:
    """Reads many requests, of which most say the same but for ``OWN``: what they share is checked
    once."""

    def __init__(self, *, default_user: str, expand: Expand | None = None) -> None:
        self._default_user = default_user
        self._expand = expand
        self._known: dict[str, TaskSpec] = {}
        """What was right, as it was written, to what came of it."""

    def read(self, body: Mapping[str, object]) -> tuple[TaskSpec, dict[str, str]]:
        """As ``read_request``."""
        shared = repr([one for one in body.items() if one[0] not in OWN])
        known = self._known.get(shared)
        if known is None:
            found = read_request(body, default_user=self._default_user, expand=self._expand)
            if body.get("task_type") is None and len(self._known) < MOST_ALIKE:
                self._known[shared] = found[0]
            return found
        request = Request(body)
        env = _env(request)
        shell, argv = _command(request)
        _check_size(shell, argv, known.mounts)
        name = request.read("name", check_task_name, otherwise=None)
        return altered(known, shell=shell, argv=argv, env=tuple(env), name=name), env


def _spec(request: Request, env: Mapping[str, str], default_user: str) -> TaskSpec:
    shell, argv = _command(request)
    mounts = _mounts(request)
    _check_size(shell, argv, mounts)
    strategy, nodes = _strategy(request)
    retries, retry_on = _retries(request)
    time_limit = _time_limit(request)
    signal, before = _signal(request, time_limit)
    uploads = check_uploads(_texts(request, "uploads"))
    return TaskSpec(
        image=_image(request),
        argv=argv,
        shell=shell,
        resources=_resources(request),
        user_id=request.read("user_id", check_user, otherwise=default_user),
        name=request.read("name", check_task_name, otherwise=None),
        target=request.read("target", check_worker_id, otherwise=None),
        env=tuple(env),
        mounts=mounts,
        secrets=_secrets(request, mounts),
        workdir=request.read("workdir", _workdir, otherwise=_first_target(uploads)),
        run_as=request.read("run_as", check_run_as, otherwise=None),
        shm_size=request.quantity("shm_size", parse_amount, otherwise=None),
        time_limit=time_limit,
        grace=_grace(request),
        idempotency_key=request.read("idempotency_key", check_key, otherwise=None),
        on_lost=request.read("on_lost", _on_lost, otherwise=OnLost.WAIT),
        lost_after=_lost_after(request),
        priority=request.quantity("priority", check_priority, otherwise=NORMAL_PRIORITY),
        strategy=strategy,
        nodes=nodes,
        gpu_model=request.read("gpu_model", check_gpu_model, otherwise=None),
        gpu_memory=request.quantity("gpu_memory", parse_amount, otherwise=None),
        require=_each(request, "require", check_expression, _EXPRESSIONS),
        avoid=_each(request, "avoid", check_expression, _EXPRESSIONS),
        near=_each(request, "near", check_task_reference, _TASKS),
        apart=_each(request, "apart", check_task_reference, _TASKS),
        preemptible=request.quantity("preemptible", check_flag, otherwise=False),
        retries=retries,
        retry_on=retry_on,
        uploads=uploads,
        downloads=check_downloads(_texts(request, "downloads")),
        after=check_after(request.body["after"]) if request.body.get("after") else (),
        on_unmet=request.read("on_unmet", _on_unmet, otherwise=OnUnmet.CANCEL),
        task_type=request.read("task_type", check_task_type, otherwise=None),
        ship_image=_ship_image(request),
        signal=signal,
        signal_before=before,
        first_output=_span(request, "first_output", "10m"),
        idle_output=_span(request, "idle_output", "30m"),
    )


def array_of(body: Mapping[str, object]) -> Elements | None:
    """The elements that are asked for; ``None``: one task. Raises ``InvalidInput``."""
    return None if body.get("array") is None else parse_array(body["array"])


def begin_of(body: Mapping[str, object], now: datetime) -> datetime | None:
    """Before which moment it is not to start: RFC 3339 (UTC where no zone is given), seconds
    since the epoch, or a duration from ``now`` such as ``2h``. Raises ``InvalidInput``."""
    if (value := body.get("begin")) is None:
        return None
    text = _text(value if isinstance(value, str) else str(value), what="begin")
    return parse_begin(text, now, what="begin")


_EXPRESSIONS = "expressions such as zone=lab"
_TASKS = "ids or names of tasks"


def _each(request: Request, field: str, check: Callable[..., str], right: str) -> tuple[str, ...]:
    if not request.given(field):
        return ()
    return check_each(request.body[field], check, what=field, right=right)


def _strategy(request: Request) -> tuple[Strategy | None, tuple[str, ...]]:
    strategy = request.read("strategy", check_strategy, otherwise=None)
    nodes = _each(request, "nodes", node_of, "ids of workers, names of pools, or label=value")
    if strategy is Strategy.NODE_SPECIFIC and not nodes:
        raise _refuse(
            "strategy",
            request.body["strategy"],
            "it needs nodes: ids of workers, names of pools, or label=value",
        )
    return strategy, nodes


def _retries(request: Request) -> tuple[int, tuple[str, ...]]:
    retries = request.quantity("retries", check_retries, otherwise=0)
    retry_on = check_retry_on(request.body["retry_on"]) if request.given("retry_on") else ()
    if retry_on and not retries:
        raise _refuse("retry_on", request.body["retry_on"], "it needs retries, 1 or more")
    return retries, retry_on


def _refuse(field: str, value: object, right: str, *, hint: str = "") -> InvalidInput:
    return InvalidInput(f"{field}: {shown(value)}; {right}", hint=hint, field=field)


def _text(value: object, *, what: str) -> str:
    if not isinstance(value, str):
        raise _refuse(what, value, "give text")
    if "\x00" in value:
        raise _refuse(what, value, "a zero byte can be no part of it")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _refuse(what, value, "it is not valid UTF-8") from None
    return value


def _image(request: Request) -> str:
    if not request.given("docker_image"):
        raise InvalidInput("docker_image: missing; say which image to run", field="docker_image")
    return check_image(request.text("docker_image"))


def _ship_image(request: Request) -> str | None:
    """Which of this machine's images is looked up once the whole request is known to be right."""
    wanted = request.quantity("ship_image", check_flag, otherwise=False)
    return AS_IT_IS_NOW if wanted else None


def _resources(request: Request) -> Resources:
    default = DEFAULT_RESOURCES
    memory = request.quantity("req_memory", parse_amount, otherwise=default.memory)
    if memory < LEAST_MEMORY:
        raise _refuse("req_memory", request.body["req_memory"], "Docker needs 6m at the least")
    return Resources(
        cpu_milli=request.quantity("req_cpu", parse_cpus, otherwise=default.cpu_milli),
        memory=memory,
        storage=request.quantity("req_storage", parse_amount, otherwise=default.storage),
        gpu_milli=_gpus(request),
    )


def _gpus(request: Request) -> int:
    """Thousandths; one GPU where a model is named and no number."""
    model = request.given("gpu_model")
    gpus = request.quantity("req_gpu", parse_gpus, otherwise=1000 if model else 0)
    for field in ("gpu_model", "gpu_memory"):
        if request.given(field) and not gpus:
            raise _refuse(field, request.body[field], "it needs GPUs: give req_gpu (--gpus)")
    return gpus


def _command(request: Request) -> tuple[str | None, tuple[str, ...]]:
    """Shell text, a script with its arguments, or an argument list; nothing of it is the image's
    own command."""
    if request.given("script"):
        if request.given("command"):
            raise InvalidInput(
                "command and script: both given; send shell text (-c) or a script, not both",
                field="script",
            )
        return check_script(request.text("script")), _argv(request)
    if request.given("command") and request.given("argv"):
        raise InvalidInput(
            "command and argv: both given; send shell text (-c) or an argument list (--), not both",
            field="command",
        )
    if request.given("command"):
        if not request.text("command").strip():
            raise _refuse(
                "command", request.body["command"], "it says nothing to run; leave it out"
            )
        return request.text("command"), ()
    argv = _argv(request)
    if argv and not argv[0]:
        raise _refuse("argv", argv[0], "its first item names the program to run")
    return None, argv


def _argv(request: Request) -> tuple[str, ...]:
    return tuple(
        _text(item, what=f"argv[{index}]") for index, item in enumerate(_items(request, "argv"))
    )


def _items(request: Request, field: str) -> list[object]:
    value = request.body[field] if request.given(field) else []
    if not isinstance(value, list | tuple):
        raise _refuse(field, value, "give a list")
    return list(value)


def _texts(request: Request, field: str) -> list[str]:
    items = enumerate(_items(request, field))
    return [_text(item, what=f"{field}[{index}]") for index, item in items]


def _first_target(uploads: tuple[str, ...]) -> str | None:
    """Where the command starts, where nothing else is said: in what was uploaded first."""
    return upload_of(uploads[0]).to if uploads else None


def _check_size(shell: str | None, argv: tuple[str, ...], mounts: tuple[str, ...]) -> None:
    size = sum(len(item.encode()) + 1 for item in (shell or "", *argv, *mounts))
    if size > MOST_ARGUMENTS:
        raise InvalidInput(
            f"command: {size} bytes with its mounts; docker takes them as arguments, at most"
            f" {MOST_ARGUMENTS}",
            hint="put a long script into the image or into a mounted file",
            field="command",
        )


def _env(request: Request) -> dict[str, str]:
    given = request.body["env"] if request.given("env") else {}
    if not isinstance(given, Mapping):
        raise _refuse("env", given, 'give an object such as {"NAME": "value"}')
    if len(given) > MOST_VARIABLES:
        raise InvalidInput(f"env: {len(given)} variables; at most {MOST_VARIABLES}", field="env")
    env = {_variable(name): _value(name, value) for name, value in given.items()}
    size = sum(len(name) + len(value.encode()) + 2 for name, value in env.items())
    if size > MOST_OF_ALL_VARIABLES:
        raise InvalidInput(
            f"env: {size} bytes in all; the kernel starts no program with that much, give at most"
            f" {MOST_OF_ALL_VARIABLES}",
            hint="mount a file instead",
            field="env",
        )
    return env


def _variable(name: object) -> str:
    checked = check_env_name(_text(name, what="env"))
    if why := _NVIDIA_DOORS.get(checked):
        raise InvalidInput(
            f"env: {checked} is set by cloudai alone: {why}",
            hint="ask for GPUs with req_gpu (--gpus); inside, CUDA_VISIBLE_DEVICES narrows them",
            field="env",
        )
    return checked


def _value(name: object, value: object) -> str:
    """The value, checked. It may be a secret: no message shows it."""
    field = f"env.{name}"
    if not isinstance(value, str):
        raise InvalidInput(f"{field}: its value is not text; put it in quotes", field=field)
    try:
        size = len(f"{name}={value}".encode())
    except UnicodeEncodeError:
        raise InvalidInput(f"{field}: its value is not valid UTF-8", field=field) from None
    if "\x00" in value:
        raise InvalidInput(
            f"{field}: its value has a zero byte, which no variable can", field=field
        )
    if size > MOST_OF_A_VARIABLE:
        raise InvalidInput(
            f"{field}: {size} bytes with its name; the kernel takes at most {MOST_OF_A_VARIABLE}",
            hint="mount a file instead",
            field=field,
        )
    return value


def _mounts(request: Request) -> tuple[str, ...]:
    items = _items(request, "mounts")
    if len(items) > MOST_MOUNTS:
        raise InvalidInput(f"mounts: {len(items)} of them; at most {MOST_MOUNTS}", field="mounts")
    mounts: list[str] = []
    targets: set[str] = set()
    for index, item in enumerate(items):
        what = f"mounts[{index}]"
        mount = check_mount(_text(item, what=what), what=what)
        if mount_target(mount) in targets:
            raise _refuse(what, item, "another mount has the same dst")
        targets.add(mount_target(mount))
        mounts.append(mount)
    return tuple(mounts)


def _secrets(request: Request, mounts: tuple[str, ...]) -> tuple[str, ...]:
    items = _items(request, "secrets")
    if len(items) > MOST_SECRETS:
        raise InvalidInput(
            f"secrets: {len(items)} of them; at most {MOST_SECRETS}", field="secrets"
        )
    secrets = tuple(
        check_secret(_text(item, what=f"secrets[{index}]"), what=f"secrets[{index}]")
        for index, item in enumerate(items)
    )
    check_targets(secrets, mounts)
    return secrets


def _workdir(text: str, *, what: str) -> str:
    if not text.startswith("/") or len(text) > LONGEST_PATH or not text.isprintable():
        raise _refuse(what, text, "give an absolute path in the container, such as /work")
    return text


def check_key(text: str, *, what: str) -> str:
    """An idempotency key."""
    if not text.strip() or len(text) > 255 or not text.isprintable():
        raise _refuse(what, text, "give 1 to 255 visible characters, such as nightly-2026-01-31")
    return text


def _time_limit(request: Request) -> float | None:
    return _span(request, "time_limit", "90m")


def _span(request: Request, field: str, example: str) -> float | None:
    """Seconds, more than none."""
    span = request.quantity(field, parse_duration, otherwise=None)
    if span == 0:
        raise _refuse(field, request.body[field], f"give more than nothing, such as {example}")
    return span


def _signal(request: Request, time_limit: float | None) -> tuple[str | None, float]:
    if not request.given("signal"):
        return None, DEFAULT_BEFORE
    signal, before = parse_signal(request.body["signal"])
    if time_limit is not None and before >= time_limit:
        raise _refuse(
            "signal",
            request.body["signal"],
            f"{before:g} s before a time limit of {time_limit:g} s is before it starts; give"
            f" fewer, as in {signal}@{max(1, time_limit // 4):g}",
        )
    return signal, before


def _grace(request: Request) -> float:
    grace = request.quantity("grace", parse_duration, otherwise=DEFAULT_GRACE)
    if grace > LONGEST_GRACE:
        raise _refuse("grace", request.body["grace"], "give 0 to 3600 seconds")
    return grace


def _on_lost(text: str, *, what: str) -> OnLost:
    try:
        return OnLost(text)
    except ValueError:
        raise _refuse(what, text, "give wait, requeue or fail") from None


def _on_unmet(text: str, *, what: str) -> OnUnmet:
    try:
        return OnUnmet(text)
    except ValueError:
        raise _refuse(what, text, "give cancel or skip") from None


def _lost_after(request: Request) -> float:
    after = request.quantity("lost_after", parse_duration, otherwise=DEFAULT_LOST_AFTER)
    if after < LEAST_LOST_AFTER:
        raise _refuse("lost_after", request.body["lost_after"], "give a minute at the least")
    return after
