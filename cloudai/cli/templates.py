"""``templates``: which task types there are, what each takes, and what one would run."""

from __future__ import annotations

import json
from typing import Any

import click

from .asking import as_typed, parameters_of, type_name
from .options import common, complete_types
from .output import Column, Styled, on_terminal, print_fields, print_table, say, tell
from .session import Session
from .wording import NOTHING

Template = dict[str, Any]

_name = click.argument("name", metavar="NAME|FILE", shell_complete=complete_types)


@click.group()
def templates_command() -> None:
    """List and show task types, and what one would run.

    A task type is a file with typed parameters and the task that is made of them; docs/templates.md
    says how to write one. The first that has a name counts: of the project (templates/tasks/ beside
    its inventory/), of the home, of cloudai.

    \b
      cloudai templates show llm
      cloudai templates render llm -p prompt=Hello
      cloudai task --type llm -p prompt=Hello
    """


@templates_command.command("list")
@common
@click.pass_obj
def list_(session: Session) -> int:
    """List task types, and where each comes from."""
    answer = session.client.get("/templates/")
    session.show(answer, _print_list, quiet=[one["name"] for one in answer["templates"]])
    return 0


def _print_list(answer: dict[str, Any]) -> None:
    heads = [Column("TYPE"), Column("FROM"), Column("ABOUT", flexible=True)]
    rows = [
        [
            one["name"],
            one["origin"],
            Styled(f"⚠ {one['problem']}", "red") if one["problem"] else one["about"],
        ]
        for one in answer["templates"]
    ]
    print_table(heads, rows)
    if on_terminal():
        for folder in answer["folders"]:
            tell(f"# {folder['origin']}: {folder['path']}")


@templates_command.command("show")
@_name
@common
@click.pass_obj
def show(session: Session, name: str) -> int:
    """Show one task type: its parameters, and the task it makes."""
    from cloudai.client import template_path

    found = session.client.get(template_path(str(type_name(name))))
    session.show(found, _print_one, quiet=[found["file"]])
    return 0


def _print_one(one: Template) -> None:
    print_fields([("Type", one["name"]), ("About", one["about"]), ("File", one["file"])])
    say()
    heads = [
        Column("PARAMETER"),
        Column("TYPE"),
        Column("DEFAULT", flexible=True),
        Column("HELP", flexible=True),
    ]
    print_table(heads, [_parameter_row(each) for each in one["parameters"]])
    say()
    for field, value in one["task"].items():
        say(
            f"{field}: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
        )


def _parameter_row(one: dict[str, Any]) -> list[str | Styled]:
    default = one["default"]
    if one["required"]:
        shown: str | Styled = Styled("(needed)", "bold")
    elif default is None:
        shown = NOTHING
    else:
        shown = (default or '""') if isinstance(default, str) else json.dumps(default)
    return [one["name"], one["type"], shown, one["help"] + _within(one)]


def _within(one: dict[str, Any]) -> str:
    """Which values it takes, where those are few or bounded."""
    if one["choices"]:
        return f" ({', '.join(one['choices'])})"
    bounds = {"from": one["min"], "to": one["max"]}
    said = " ".join(f"{word} {bound}" for word, bound in bounds.items() if bound is not None)
    return f" ({said})" if said else ""


@templates_command.command("render")
@_name
@click.option(
    "-p",
    "--param",
    "parameters",
    multiple=True,
    metavar="NAME=VALUE",
    help="A parameter; @FILE, or @- for stdin, takes the value from there.",
)
@common
@click.pass_obj
def render(session: Session, name: str, parameters: tuple[str, ...]) -> int:
    """Print the docker run line and the request that a task type makes; nothing is queued."""
    from cloudai.client import template_path

    with as_typed(session):
        answer = session.client.request(
            "POST",
            template_path(str(type_name(name)), "render"),
            body={"parameters": parameters_of(parameters)},
        ).data
    session.show(answer, _print_rendered, quiet=[answer["docker_run"]])
    return 0


def _print_rendered(answer: dict[str, Any]) -> None:
    say(answer["docker_run"])
    say()
    say(json.dumps(answer["body"], indent=2, ensure_ascii=False))
