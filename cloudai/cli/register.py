"""``register`` and ``unregister``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from .options import common, worker_argument
from .output import on_terminal, say, tell
from .session import Session
from .terminal import clean

if TYPE_CHECKING:
    from cloudai.core.errors import CloudaiError


class Address(NamedTuple):
    """Where a worker's sshd is."""

    user: str | None
    host: str
    port: int | None


def read_address(text: str) -> Address:
    """``[user@]host[:port]``; IPv6 bare, or in brackets where a port follows.

    Raises ``click.UsageError``.
    """
    user, at, rest = text.rpartition("@")
    if rest.startswith("["):
        host, closed, tail = rest[1:].partition("]")
        port = tail.removeprefix(":")
        if not closed or (tail and not tail.startswith(":")):
            raise click.UsageError(f"{text!r} is no host: expected [ADDRESS]:PORT.")
    elif rest.count(":") == 1:
        host, _, port = rest.partition(":")
    else:
        host, port = rest, ""
    if not host or (at and not user) or (rest.endswith(":") and rest.count(":") == 1):
        raise click.UsageError(f"{text!r} is no host: expected [USER@]HOST[:PORT].")
    if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise click.UsageError(f"{port!r} is no port: expected 1 to 65535.")
    return Address(user or None, host, int(port) if port else None)


@click.command()
@click.argument("worker", metavar="ID")
@click.argument("host", metavar="[USER@]HOST[:PORT]")
@click.option("--user", metavar="USER", help="Log in as USER there.")
@click.option("--identity-file", metavar="FILE", help="Log in with this key.")
@click.option(
    "--min-free",
    type=click.IntRange(min=0),
    metavar="N",
    help="Leave N of its GPUs that nobody uses to people.  [default: 0]",
)
@click.option(
    "--fingerprint", metavar="SHA256:...", help="Accept this host key and no other: for scripts."
)
@click.option("--yes", is_flag=True, help="Accept the host key that is shown, unasked.")
@common
@click.pass_obj
def register_command(
    session: Session,
    worker: str,
    host: str,
    user: str | None,
    identity_file: str | None,
    min_free: int | None,
    fingerprint: str | None,
    yes: bool,
) -> int:
    """Add a worker: connect, show and pin its host key, check it, write it to the inventory.

    What is not said here (user, port, key, jump hosts) comes from ~/.ssh/config. Nothing is
    written where the worker cannot be reached.
    """
    address = read_address(host)
    body: dict[str, Any] = {
        "id": worker,
        "host": address.host,
        "port": address.port,
        "user": user or address.user,
        "identity_file": _absolute(identity_file),
        "min_free": min_free,
    }
    if fingerprint is not None:
        body["fingerprint"] = fingerprint
    answer = _post(session, {k: v for k, v in body.items() if v is not None}, yes=yes)
    session.show(answer, _print_registered, quiet=[answer["worker"]["worker_id"]])
    return 0


def _absolute(path: str | None) -> str | None:
    """The controller works in another folder; ``~`` stays as it is, as it goes to the YAML."""
    return path if path is None or path.startswith("~") else os.path.abspath(Path(path))


def _post(session: Session, body: dict[str, Any], *, yes: bool) -> Any:
    """Asks until every host on the way (a jump host has a key too) is known or refused."""
    from cloudai.core.errors import HostKeyUnknown

    given = body.get("fingerprint")
    seen = {given}
    while True:
        try:
            return session.client.post("/workers/", body)
        except HostKeyUnknown as unknown:
            accepted = _accepted(session, unknown, worker=body["id"], given=given, yes=yes)
            if accepted in seen:
                raise
            seen.add(accepted)
            body = {**body, "fingerprint": accepted}


def _accepted(
    session: Session, unknown: CloudaiError, *, worker: str, given: str | None, yes: bool
) -> str:
    """The fingerprint that was accepted. Raises ``Conflict`` where none was."""
    from cloudai.core.errors import Conflict

    shown = str(unknown.details.get("fingerprint", ""))
    kind = str(unknown.details.get("key_type", ""))
    facts = {"fingerprint": shown, "key_type": kind}
    if given is not None and given != shown:
        raise Conflict(
            f"Worker {worker} shows another host key than the one given:"
            f" {shown} ({kind}), not {given}",
            hint="nothing was written; ask whoever runs that host which one is right",
            **facts,
        )
    if yes:
        if not session.json:
            tell(f"Pinned the host key of {worker}: {shown} ({kind})")
        return shown
    if session.json or session.quiet or not (sys.stdin.isatty() and on_terminal(sys.stderr)):
        raise Conflict(
            f"The host key of {worker} is not known yet: {shown} ({kind})",
            hint=f"if that is right: --fingerprint {shown} (or --yes to accept what is shown)",
            **facts,
        )
    tell(f"{worker} has never been seen before. It shows this host key:")
    tell(f"  {clean(kind)}  {clean(shown)}")
    if not click.confirm("Is it the right one?", default=False, err=True):
        raise Conflict(f"Worker {worker} was not registered: its host key was not accepted")
    return shown


def _print_registered(answer: dict[str, Any]) -> None:
    from .doctor import print_findings
    from .workers import free_of

    worker = answer["worker"]
    say(f"✅ Worker {clean(worker['worker_id'])} registered")
    gpus = len(worker["gpus"] or ())
    say(
        f"  {free_of(worker['cpus'])} cores, {free_of(worker['memory'])} GB memory,"
        f" {free_of(worker['storage'], 0)} GB disk free, {gpus} GPU{'' if gpus == 1 else 's'}"
    )
    print_findings(answer["findings"])


@click.command()
@worker_argument
@common
@click.pass_obj
def unregister_command(session: Session, worker: str) -> int:
    """Take a worker out of the inventory; refused while it holds tasks of ours."""
    from cloudai.client import worker_path

    session.client.delete(worker_path(worker))
    session.show(
        {"unregistered": worker},
        lambda _: say(f"✅ Worker {clean(worker)} unregistered"),
        quiet=[worker],
    )
    return 0
