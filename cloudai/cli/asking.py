"""What ``task`` and ``dispatch`` ask for: flags in, the body of the request out.

Values go as they were typed; the server judges them, once for every front door.
"""

from __future__ import annotations

import codecs
import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from . import timing, wishes
from .options import ARGV, complete_secrets, complete_types, complete_workers
from .session import Session

F = TypeVar("F", bound=Callable[..., Any])

TYPE_OPTIONS = (
    click.option(
        "--type",
        "task_type",
        metavar="NAME|FILE",
        help="A task of that type; `cloudai templates list` shows them. IMAGE is then optional.",
        shell_complete=complete_types,
    ),
    click.option(
        "-p",
        "--param",
        "parameters",
        multiple=True,
        metavar="NAME=VALUE",
        help="A parameter of --type; @FILE, or @- for stdin, takes the value from there.",
    ),
)
"""For a task that is made from a template."""

_OPTIONS = (
    *TYPE_OPTIONS,
    click.option("-c", "command", metavar="TEXT", help="Run TEXT with the image's /bin/sh."),
    click.option(
        "-cpu_cores",
        "--cpus",
        "req_cpu",
        metavar="CORES",
        help="CPU cores, fractions too.  [default: 1.0]",
    ),
    click.option(
        "-mem", "--memory", "req_memory", metavar="GB", help="4, 4.0, 4g or 512m.  [default: 0.5]"
    ),
    click.option(
        "-storage",
        "--storage",
        "req_storage",
        metavar="GB",
        help="Disk it may fill: 10, 10g or 512m.  [default: 1.0]",
    ),
    click.option(
        "-gpu_cores",
        "--gpus",
        "req_gpu",
        metavar="GPUS",
        help="Whole GPUs, or a share of one up to 1.0.  [default: 0.0]",
    ),
    *wishes.GPU_OPTIONS,
    click.option(
        "-e",
        "--env",
        "env",
        multiple=True,
        metavar="NAME[=VALUE]",
        help="Set a variable; NAME alone takes its value from here.",
    ),
    click.option(
        "--env-file",
        "env_files",
        multiple=True,
        metavar="FILE",
        help="Variables from a file in docker's format.",
    ),
    click.option(
        "--mount",
        "mounts",
        multiple=True,
        metavar="SPEC",
        help="As docker run's: type=bind,src=/data,dst=/data.",
    ),
    click.option(
        "--ship-image",
        is_flag=True,
        help="Run this machine's own image of that name: it is sent to the worker.",
    ),
    click.option(
        "--secret",
        "secrets",
        multiple=True,
        metavar="NAME[=PATH]",
        help="A secret as a file in the container.  [default: /run/secrets/NAME]",
        shell_complete=complete_secrets,
    ),
    click.option(
        "--upload",
        "uploads",
        multiple=True,
        metavar="DIR[:PATH]",
        help="Bring a folder of this machine along, to PATH.  [default: /workspace]",
    ),
    click.option(
        "--download",
        "downloads",
        multiple=True,
        metavar="PATH[:DIR]",
        help="Bring PATH of the container home when it ends.  [default: to here]",
    ),
    click.option("--workdir", metavar="DIR", help="Where the command starts."),
    click.option("--name", metavar="NAME", help="A name to call the task by."),
    click.option(
        "--user",
        "user_id",
        metavar="USER",
        help="Whose task it is.  [env: CLOUDAI_USER; default: your login name]",
    ),
    click.option("--run-as", metavar="UID[:GID]", help="The user inside the container."),
    click.option("--shm-size", metavar="GB", help="Size of /dev/shm."),
    click.option("--time-limit", metavar="TIME", help="Stop it after so long: seconds, 90m, 12h."),
    click.option(
        "--grace",
        metavar="SECONDS",
        help="Between the polite stop and the forced one.  [default: 10]",
    ),
    *timing.ENDING_OPTIONS,
    click.option(
        "--on-lost",
        type=click.Choice(["wait", "requeue", "fail"]),
        metavar="WHAT",
        help="When its worker stays out of reach: wait, requeue (it may then run twice at once)"
        " or fail.  [default: wait]",
    ),
    click.option(
        "--lost-after",
        metavar="TIME",
        help="How long is too long for --on-lost.  [default: 10m]",
    ),
    click.option(
        "--idempotency-key",
        metavar="KEY",
        help="The same key again answers the task it made before.",
    ),
    click.option(
        "--follow", "-f", is_flag=True, help="Print its log live; end with its exit code."
    ),
    click.option("--wait", is_flag=True, help="Wait for its end; end with its exit code."),
)


_FLAGS = {
    "docker_image": "IMAGE",
    "task_type": "--type",
    "parameters": "-p",
    "target": "WORKER",
    "argv": "the command after --",
    "command": "-c",
    "script": "--script",
    "req_cpu": "-cpu_cores",
    "req_memory": "-mem",
    "req_storage": "-storage",
    "req_gpu": "-gpu_cores",
    "user_id": "--user",
    "env": "-e",
    "mounts": "--mount",
    "secrets": "--secret",
    "uploads": "--upload",
    "downloads": "--download",
    "run_as": "--run-as",
    "shm_size": "--shm-size",
    "time_limit": "--time-limit",
    "idempotency_key": "--idempotency-key",
    "ship_image": "--ship-image",
    "workdir": "--workdir",
    "name": "--name",
    "grace": "--grace",
    **wishes.FLAGS,
    **timing.FLAGS,
}
"""What a person typed for each field of the request."""


@contextmanager
def as_typed(
    session: Session,
    flags: Mapping[str, str] | None = None,
    *,
    places: Mapping[str, str] | None = None,
) -> Iterator[None]:
    """A refusal names the flag that was typed, where the API names the field it sent.
    ``flags``: of another command than ``task``; ``places``: where a file says it instead."""
    known = {**(_FLAGS if flags is None else flags), **(places or {})}
    from cloudai.core.errors import InvalidInput, TaskNotFound

    try:
        yield
    except TaskNotFound as error:
        if (place := (places or {}).get("after")) and not session.json:
            error.message = f"{place}: {error.message}"
        raise
    except InvalidInput as error:
        field = re.match(r"(?:tasks\[0\]\.)?(\w+)(?:\[\d+\])?: ", error.message)
        if not session.json:
            error.message = re.sub(r"^(?:tasks\[0\]\.)?parameters\.", "-p ", error.message)
        if field and field[1] in known and not session.json:
            error.message = f"{known[field[1]]}: {error.message[field.end() :]}"
        raise


def task_options(words: str) -> Callable[[F], F]:
    """All flags that say what to run, and how to go on once it is accepted; ``words``: what
    stands before ``--``, for the help."""

    def decorate(command: F) -> F:
        command = click.argument("words", nargs=-1, metavar=words, shell_complete=complete_workers)(
            command
        )
        for option in reversed(_OPTIONS):
            command = option(command)
        return command

    return decorate


def task_body(
    ctx: click.Context, *, image: str | None, target: str | None, asked: Mapping[str, Any]
) -> dict[str, Any]:
    """The body of the request. Raises ``click.UsageError`` for what cannot be meant here."""
    argv = ctx.meta[ARGV]
    if argv is not None and asked["command"] is not None:
        raise click.UsageError("Give -c TEXT or -- ARGV…, not both.", ctx=ctx)
    if asked["parameters"] and asked["task_type"] is None:
        raise click.UsageError("-p gives a parameter to a task type: --type NAME.", ctx=ctx)
    if argv == []:
        raise click.UsageError("There is no command after --.", ctx=ctx)
    body = {
        "docker_image": image,
        "task_type": type_name(asked["task_type"]),
        "parameters": parameters_of(asked["parameters"]),
        "target": target,
        "argv": argv,
        "command": asked["command"],
        "req_cpu": number(asked["req_cpu"]),
        "req_memory": asked["req_memory"],
        "req_storage": asked["req_storage"],
        "req_gpu": number(asked["req_gpu"]),
        "user_id": asked["user_id"] or login_name(os.environ),
        "env": environment(asked["env"], asked["env_files"], os.environ),
        "mounts": list(asked["mounts"]),
        "secrets": list(asked["secrets"]),
        "uploads": [upload(text, Path.cwd()) for text in asked["uploads"]],
        "downloads": [download(text, Path.cwd()) for text in asked["downloads"]],
        "time_limit": number(asked["time_limit"]),
        "grace": number(asked["grace"]),
        "lost_after": number(asked["lost_after"]),
        "ship_image": asked["ship_image"] or None,
    }
    for field in ("workdir", "name", "run_as", "shm_size", "idempotency_key", "on_lost"):
        body[field] = asked[field]
    body |= wishes.wishes_of(asked) | timing.endings_of(asked)
    # What was not said is the server's to fill in.
    return {name: value for name, value in body.items() if value not in (None, {}, [])}


def type_name(given: str | None) -> str | None:
    """The name of a template; of a file its whole path, for the controller knows no folder of
    ours."""
    if given is None or not ("/" in given or given.endswith(".yaml.j2")):
        return given
    return os.path.abspath(os.path.expanduser(given))


def parameters_of(pairs: Sequence[str]) -> dict[str, str]:
    """Values by name, those with ``@`` from files (``@@``: an @ of its own). Raises
    ``click.UsageError``."""
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise click.UsageError(f"-p {pair}: give NAME=VALUE, such as -p prompt=Hello.")
        if name in found:
            raise click.UsageError(f"-p {name}: given twice.")
        found[name] = _from_place(name, value)
    return found


def _from_place(name: str, value: str) -> str:
    if not value.startswith("@"):
        return value
    if value.startswith("@@"):
        return value[1:]
    place = value[1:]
    try:
        if place == "-":
            return sys.stdin.buffer.read().decode()
        return Path(place).expanduser().read_bytes().decode()
    except OSError as error:
        hint = "" if place else " An @ of its own is written @@."
        why = error.strerror if place else "there is no name of a file behind the @"
        raise click.UsageError(f"-p {name}={value}: {why}.{hint}") from error
    except UnicodeDecodeError as error:
        raise click.UsageError(f"-p {name}={value}: it is not UTF-8 text.") from error


def upload(text: str, here: Path) -> str:
    """``DIR[:PATH]`` with the whole path of DIR, which may be relative to ``here``."""
    from cloudai.core.files import upload_beside

    return upload_beside(os.path.expanduser(text), str(here))


def download(text: str, here: Path) -> str:
    """``PATH[:DIR]`` with the whole path of DIR: under the same name in ``here``, where none is
    given."""
    from cloudai.core.files import download_beside

    path, colon, to = text.partition(":")
    return download_beside(f"{path}{colon}{os.path.expanduser(to)}", str(here))


def number(text: str | None) -> float | str | None:
    """A number where it is a finite one, else the text as typed: the server names its fault."""
    try:
        value = float(text or "")
    except ValueError:
        return text
    return value if math.isfinite(value) else text


def login_name(environ: Mapping[str, str]) -> str:
    """Whose tasks these are: ``$CLOUDAI_USER`` or who is logged in."""
    if name := environ.get("CLOUDAI_USER"):
        return name
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return f"uid-{os.getuid()}"


def environment(
    given: Sequence[str], files: Sequence[str], environ: Mapping[str, str]
) -> dict[str, str]:
    """Variables by name: files first, then ``-e``; the last word counts."""
    found: dict[str, str] = {}
    for file in files:
        found.update(_from_file(file, environ))
    for pair in given:
        name, equals, value = pair.partition("=")
        if not equals and name not in environ:
            raise click.UsageError(
                f"-e {name}: there is no variable {name} in the environment to take it from."
            )
        found[name] = value if equals else environ[name]
    return found


def _from_file(file: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Docker's format: NAME=VALUE as it stands, NAME alone from here if set, # comments."""
    if file == "-":
        raise click.UsageError("--env-file takes the path of a file, not -.")
    try:
        text = Path(file).expanduser().read_bytes().removeprefix(codecs.BOM_UTF8).decode()
    except OSError as error:
        raise click.UsageError(f"--env-file {file}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise click.UsageError(f"--env-file {file}: it is not UTF-8 text.") from error
    found: dict[str, str] = {}
    for at, raw in enumerate(text.split("\n"), start=1):
        line = raw.removesuffix("\r").lstrip()
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        if not name:
            raise click.UsageError(f"--env-file {file}: line {at} has no name before the =.")
        if any(mark.isspace() for mark in name):
            raise click.UsageError(f"--env-file {file}: line {at} has a space in the name.")
        if equals:
            found[name] = value
        elif name in environ:
            found[name] = environ[name]
    return found
