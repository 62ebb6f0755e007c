"""``controller run|start|stop|status``."""

from __future__ import annotations

import contextlib
import gc
import os
import time
from typing import TYPE_CHECKING, Any

import click

from .options import common
from .output import print_fields, print_json, say
from .session import Session
from .wording import long_span, since

if TYPE_CHECKING:
    from cloudai.client import Client

IDLE_EXIT = 300.0
"""Seconds after which one that a command started leaves, with nothing to do and nobody asking."""
STOP_WITHIN = 30.0
"""Seconds."""


@click.group()
def controller_command() -> None:
    """Run, start, stop and see the controller: the one process that speaks to the workers.

    Any command that needs it starts it, and such a one leaves when there is nothing left to
    do. Tasks never depend on it: they go on while it is away.
    """


@controller_command.command()
@click.option(
    "--idle-exit",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Leave after so long with nothing to do and nobody asking.",
)
@click.option("--background", is_flag=True, hidden=True)
@click.option("--stay", is_flag=True, hidden=True)
@click.option("--ready-fd", type=int, hidden=True)
@common
@click.pass_obj
def run(
    session: Session,
    idle_exit: float | None,
    background: bool,
    stay: bool,
    ready_fd: int | None,
) -> int:
    """Run it here, in the foreground: for systemd, and to see what it does."""
    # Nothing of a thousand modules is garbage: not to look for any saves a fifth of the start.
    gc.disable()
    from cloudai import daemon

    gc.freeze()
    gc.enable()
    from cloudai.client import find_home, find_inventory
    from cloudai.client.place import make_home

    home = find_home(os.environ)
    make_home(home)
    if background and not stay and idle_exit is None:
        idle_exit = IDLE_EXIT
    inventory = find_inventory(session.inventory, os.environ, home=home).path
    return daemon.run(
        home, inventory, background=background, ready_fd=ready_fd, idle_exit=idle_exit
    )


@controller_command.command()
@common
@click.pass_obj
def start(session: Session) -> int:
    """Start it in the background, to stay also when there is nothing to do."""
    was_there = _health(session.connect(start=False)) is not None
    client = session.connect()
    client.ensure_running(stay=True)
    health = client.post("/controller/stay")
    words = "is already running" if was_there else "runs"
    session.show(
        health,
        lambda health: say(f"✅ The controller {words} (process {health['pid']})"),
        quiet=[health["pid"]],
    )
    return 0


@controller_command.command()
@common
@click.pass_obj
def stop(session: Session) -> int:
    """Stop it. Nothing on any worker is touched: tasks go on."""
    from cloudai.client import ControllerFailed
    from cloudai.client.connection import NotRunning
    from cloudai.client.place import socket_path

    client = session.connect(start=False)
    socket = socket_path(client.home)
    words = "The controller is not running"
    with contextlib.suppress(NotRunning):
        schedules = client.post("/controller/stop").get("schedules", 0)
        words = "The controller has left; tasks on workers go on"
        if schedules:
            words += f"\n   {_schedules(schedules)} will miss what is due until it is back"
        # Its socket goes last: after that the home is free for the next one.
        deadline = time.monotonic() + STOP_WITHIN
        while os.path.exists(socket):
            if time.monotonic() > deadline:
                raise ControllerFailed(
                    f"The controller has not left within {STOP_WITHIN:g} seconds",
                    hint="controller.log in its home says what it waits for",
                )
            time.sleep(0.02)
    session.show({"status": "stopped"}, lambda _: say(f"✅ {words}"))
    return 0


@controller_command.command()
@common
@click.pass_obj
def status(session: Session) -> int:
    """Show whether it runs, and how. Ends with 1 if it does not."""
    health = _health(session.connect(start=False))
    if health is None:
        if session.json:
            print_json({"status": "stopped"})
        else:
            say("The controller is not running; any command that needs it starts it.")
        return 1
    session.show(health, _print_health, quiet=[health["pid"]])
    return 0


def _health(client: Client) -> dict[str, Any] | None:
    from cloudai.client.connection import NotRunning

    try:
        found: dict[str, Any] = client.get("/health")
    except NotRunning:
        return None
    return found


def _schedules(count: int) -> str:
    return "1 schedule" if count == 1 else f"{count} schedules"


def _print_health(health: dict[str, Any]) -> None:
    inventory = health["inventory"]
    print_fields(
        [
            ("Controller", f"{health['status']}, process {health['pid']}"),
            ("Version", health["version"]),
            ("Running", since(health["since"])),
            ("Leaves", _leaving(health["idle_exit"], health.get("schedules", 0))),
            ("Home", health["home"]),
            ("Inventory", f"{inventory['path']}, {inventory['workers']} workers"),
            ("Trouble", inventory["error"]),
        ]
    )


def _leaving(idle_exit: float | None, schedules: int) -> str:
    if idle_exit is None:
        return "when it is told to"
    if schedules:
        return f"when it is told to: it keeps {_schedules(schedules)}"
    return f"after {long_span(idle_exit)} with nothing to do and nobody asking"
