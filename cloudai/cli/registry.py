"""``registry``: log-ins of private registries, given to workers for one pull at a time."""

from __future__ import annotations

import sys
from typing import Any
from urllib.parse import quote

import click

from .options import common
from .output import Column, print_table, say
from .session import Session
from .terminal import clean
from .wording import clock


@click.group()
def registry_command() -> None:
    """Keep log-ins of private registries.

    They stay on this machine. A worker that pulls an image is told the one of its registry, in
    memory, for as long as docker takes to read it.
    """


@registry_command.command("login")
@click.argument("registry", metavar="HOST")
@click.option("-u", "--username", required=True, metavar="USER", help="Who logs in.")
@common
@click.pass_context
def login_command(ctx: click.Context, registry: str, username: str) -> int:
    """Keep a log-in. The password is asked for, or read from a pipe; it is no option, for
    everybody sees those in `ps`.

    HOST is as images' names begin with it; docker.io where they name none.

    \b
      cloudai registry login registry.example.com -u ann
      pass show registry | cloudai registry login registry.example.com -u ann
    """
    session = ctx.ensure_object(Session)
    body = {"registry": registry, "username": username, "password": _password(username, registry)}
    known = session.client.post("/registries/", body)
    session.show(
        known,
        lambda one: say(f"✅ Log-in of {clean(one['username'])} at {clean(one['registry'])} kept"),
    )
    return 0


def _password(username: str, registry: str) -> str:
    if not sys.stdin.isatty():
        # A token may be printed with a line end after it; there is none in a password.
        return sys.stdin.read().removesuffix("\n").removesuffix("\r")
    asked: str = click.prompt(f"Password of {username} at {registry}", hide_input=True, err=True)
    return asked


@registry_command.command("list")
@common
@click.pass_context
def list_command(ctx: click.Context) -> int:
    """List the log-ins, without their passwords."""
    session = ctx.ensure_object(Session)
    answer = session.client.get("/registries/")
    names = [one["registry"] for one in answer["registries"]]
    session.show(answer, _print_registries, quiet=names)
    return 0


def _print_registries(answer: dict[str, Any]) -> None:
    if not answer["registries"]:
        say("No log-ins are kept; cloudai registry login HOST -u USER keeps one.")
        return
    heads = [Column("REGISTRY", flexible=True), Column("USERNAME"), Column("SET")]
    rows = [
        [one["registry"], one["username"], clock(one["set_at"])] for one in answer["registries"]
    ]
    print_table(heads, rows)


@registry_command.command("logout")
@click.argument("registry", metavar="HOST")
@common
@click.pass_context
def logout_command(ctx: click.Context, registry: str) -> int:
    """Forget a log-in."""
    session = ctx.ensure_object(Session)
    session.client.delete(f"/registries/{quote(registry, safe='')}")
    session.show(
        {"registry": registry}, lambda one: say(f"✅ Log-in at {clean(registry)} forgotten")
    )
    return 0
