"""``task --script FILE``: a script, and the lines in it that say how to run it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field as a_field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from .options import DashedCommand

if TYPE_CHECKING:
    from cloudai.core.directives import Header

_ELSEWHERE = ("script", "json", "quiet", "inventory", "help", "follow")
"""Flags that say nothing about the task: the command line's alone."""
_ADDED = ("env", "env_files")
"""Flags of which the script's count too where the command line has some: a variable of the same
name is the command line's."""
_FIELDS = {"gpu": ("gpu_model",), "image": ("docker_image",), "dependency": ("dependency", "after")}
"""Fields of the request whose flag has another name for itself."""


@dataclass(slots=True)
class Scripted:
    """A script as it was read."""

    name: str
    """Of the file, for messages."""
    text: str
    places: dict[str, str] = a_field(default_factory=dict)
    """Field of the request -> ``train.sh:3: --mem=4G``, where the script says it."""
    notices: list[str] = a_field(default_factory=list)


def read_script(ctx: click.Context, asked: dict[str, Any]) -> Scripted | None:
    """The script that is asked for, if one is, its own flags put into ``asked`` where the command
    line does not have them. Raises ``click.UsageError`` and ``InvalidInput``."""
    from cloudai.core.directives import Dialect, read_header
    from cloudai.core.slurm import translate

    if asked["script"] is None:
        return None
    if asked["command"] is not None:
        raise click.UsageError("Give --script FILE or -c TEXT, not both.", ctx=ctx)
    name, text = _text_of(ctx, asked["script"])
    script = Scripted(name, text)
    header = read_header(text, source=name)
    script.notices += _late(header, name)
    slurm = [one for one in header.directives if one.dialect is Dialect.SBATCH]
    cpus = asked["req_cpu"] if _typed(ctx, "req_cpu") else None
    translated = translate(slurm, source=name, cpus=cpus)
    script.notices += translated.notices
    lines = [(one.line, one.flags, one.spelled) for one in translated.said]
    lines += [
        (one.line, one.words, "") for one in header.directives if one.dialect is Dialect.CLOUDAI
    ]
    given: dict[str, Any] = {}
    for line, flags, spelled in sorted(lines, key=lambda one: one[0]):
        for option, value in _parsed(ctx, flags, f"{name}:{line}"):
            key = str(option.name)
            given[key] = (*given.get(key, ()), *value) if option.multiple else value
            place = f"{name}:{line}: {spelled or option.opts[-1]}"
            script.places |= dict.fromkeys(_FIELDS.get(key, (key,)), place)
    _take(ctx, asked, given, script)
    if asked["name"] is None:
        asked["name"] = _name_of(script)
    return script


def _text_of(ctx: click.Context, file: str) -> tuple[str, str]:
    from cloudai.core.request import MOST_ARGUMENTS

    name = "stdin" if file == "-" else Path(file).name
    try:
        if file == "-":
            data = sys.stdin.buffer.read(MOST_ARGUMENTS + 1)
        else:
            with Path(file).expanduser().open("rb") as opened:
                data = opened.read(MOST_ARGUMENTS + 1)
    except OSError as error:
        raise click.UsageError(f"--script {file}: {error.strerror}.", ctx=ctx) from error
    if len(data) > MOST_ARGUMENTS:
        raise click.UsageError(
            f"--script {file}: it is longer than {MOST_ARGUMENTS // 1024} KB; put it into the"
            " image or a mounted folder, and run it from there.",
            ctx=ctx,
        )
    try:
        return name, data.decode()
    except UnicodeDecodeError:
        raise click.UsageError(f"--script {file}: it is not UTF-8 text.", ctx=ctx) from None


def _late(header: Header, name: str) -> list[str]:
    return [
        f"{name}:{one.line}: this #{one.dialect} line stands behind the first command and is not"
        " read; move it up"
        for one in header.late
    ]


def _typed(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE


def _parsed(ctx: click.Context, flags: Sequence[str], where: str) -> list[tuple[click.Option, Any]]:
    """The flags of one line, read as those of the command line are."""
    from cloudai.core.errors import InvalidInput

    command = ctx.command
    assert isinstance(command, DashedCommand)
    try:
        if "--" in flags:
            raise click.UsageError("arguments of the script come on the command line, after --")
        command.refuse_near_misses(ctx, list(flags))
        values, rest, order = command.make_parser(ctx).parse_args(list(flags))
        words = values.get("words")  # click's own mark where there are none
        if strays := [*(words if isinstance(words, list | tuple) else ()), *rest]:
            raise click.UsageError(f"{strays[0]!r} is no flag; an image is said by --image")
        found = []
        for option in dict.fromkeys(one for one in order if isinstance(one, click.Option)):
            if option.name in _ELSEWHERE:
                raise click.UsageError(f"{option.opts[0]} belongs on the command line")
            found.append((option, option.type_cast_value(ctx, values[str(option.name)])))
    except click.UsageError as wrong:
        said = wrong.format_message().rstrip(".")
        raise InvalidInput(f"{where}: {said[:1].lower()}{said[1:]}") from None
    return found


def _take(
    ctx: click.Context, asked: dict[str, Any], given: dict[str, Any], script: Scripted
) -> None:
    """What the command line says wins. Two flags for one thing are one thing."""
    same = {"gpu": "req_gpu", "req_gpu": "gpu", "dry_run": "test_only", "test_only": "dry_run"}
    for name, value in given.items():
        if name in _ADDED:
            asked[name] = (*value, *asked[name])
        elif not _typed(ctx, name) and not (name in same and _typed(ctx, same[name])):
            asked[name] = value
            continue
        for field in _FIELDS.get(name, (name,)):
            script.places.pop(field, None)


def _name_of(script: Scripted) -> str | None:
    """As sbatch does: a task without a name has its script's, where that can be one."""
    from cloudai.core.errors import InvalidInput
    from cloudai.core.names import check_task_name

    try:
        return None if script.name == "stdin" else check_task_name(script.name)
    except InvalidInput:
        return None
