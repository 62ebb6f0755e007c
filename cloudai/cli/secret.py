"""``secret``: values that tasks read as files, set once and known by their names."""

from __future__ import annotations

import base64
import sys
from typing import Any

import click

from .ending import each
from .options import common, complete_secrets
from .output import Column, on_terminal, print_table, say, tell
from .session import Session
from .wording import local

Secret = dict[str, Any]


@click.group()
def secret_command() -> None:
    """Set, list and remove secrets, which tasks read as files.

    A task takes them with --secret NAME. Values are kept by the controller, in the system's
    keyring where it can be had and else in a file that only you can read.

    \b
      cloudai secret set HF_TOKEN
      cloudai task trainer:1 --secret HF_TOKEN -c 'python train.py /run/secrets/HF_TOKEN'
    """


@secret_command.command("set")
@click.argument("name", shell_complete=complete_secrets)
@click.option(
    "--in-file",
    is_flag=True,
    help="Keep it in a file also where there is a keyring: readable without your session.",
)
@common
@click.pass_obj
def set_secret(session: Session, name: str, in_file: bool) -> int:
    """Set a secret, from stdin byte by byte, or asked for unseen on a terminal.

    \b
      cloudai secret set HF_TOKEN
      cloudai secret set KEY <key.pem
    """
    from urllib.parse import quote

    from cloudai.core.secrets import check_secret_name

    check_secret_name(name, what="NAME")
    value = _value(name)
    body = {"base64": base64.b64encode(value).decode("ascii"), "in_file": in_file}
    # The keyring may have to be unlocked first.
    made = session.client.request(
        "PUT", f"/secrets/{quote(name, safe='')}", body=body, patience=120
    ).data
    session.show(made, _tell_set, quiet=[made["name"]])
    if value.endswith(b"\n") and value.count(b"\n") == 1 and not session.json:
        tell(f"⚠ The value of {name} ends with a line end, and is kept so: printf %s has none.")
    return 0


def _value(name: str) -> bytes:
    if not on_terminal(sys.stdin):
        return sys.stdin.buffer.read()
    text: str = click.prompt(
        f"Value of {name} (is not shown)", hide_input=True, err=True, default="", show_default=False
    )
    return text.encode("utf-8", "surrogateescape")


def _tell_set(made: Secret) -> None:
    say(f"✅ Secret {made['name']} is set: {made['size']} bytes, kept in {_place(made)}")
    if made["note"]:
        say(f"   not in the system's keyring: {made['note']}")
    elif made["kept"] == "keyring":
        say("   A controller that cron starts while you are not logged in may not be able to read")
        say("   it there; with --in-file it can.")


def _place(made: Secret) -> str:
    return "the system's keyring" if made["kept"] == "keyring" else "a file that only you can read"


@secret_command.command("list")
@common
@click.pass_obj
def list_secrets(session: Session) -> int:
    """List secrets: when each was set, where it is kept, its size; never its value."""
    answer = session.client.get("/secrets/")
    session.show(answer, _print, quiet=[one["name"] for one in answer["secrets"]])
    return 0


def _print(answer: dict[str, Any]) -> None:
    if not answer["secrets"] and on_terminal():
        say("No secrets.")
        return
    heads = [Column("SECRET"), Column("SET"), Column("KEPT IN"), Column("BYTES", right=True)]
    rows = [
        [one["name"], local(one["set_at"]), one["kept"], str(one["size"])]
        for one in answer["secrets"]
    ]
    print_table(heads, rows)


@secret_command.command("rm")
@click.argument(
    "names", nargs=-1, required=True, metavar="NAME...", shell_complete=complete_secrets
)
@common
@click.pass_obj
def remove_secrets(session: Session, names: tuple[str, ...]) -> int:
    """Forget secrets. Tasks that run keep what they have; queued ones that need it will fail."""
    from urllib.parse import quote

    def forget(name: str) -> str:
        session.client.delete(f"/secrets/{quote(name, safe='')}")
        if not session.json:
            say(name if session.quiet else f"✅ Secret {name} forgotten")
        return name

    return each(session, names, forget, several="removed", kind="secret")
