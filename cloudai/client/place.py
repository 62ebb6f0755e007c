"""Where things are: the home with its socket, and the inventory a command means."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .errors import ControllerFailed

SOCKET_NAME = "controller.sock"
LOG_NAME = "controller.log"
LONGEST_SOCKET_PATH = 103
"""Bytes: macOS has room for 104 with the closing zero, Linux for 108."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """The inventory file a command means, and whether a person named it."""

    path: Path
    explicit: bool = False


def find_home(environ: Mapping[str, str]) -> Path:
    """``$CLOUDAI_HOME``, else ``~/.cloudai``; absolute, not yet made."""
    home = Path(environ.get("CLOUDAI_HOME") or "~/.cloudai")
    return Path(os.path.abspath(home.expanduser()))


def find_inventory(flag: str | None, environ: Mapping[str, str], *, home: Path) -> Inventory:
    """``--inventory``, else ``$CLOUDAI_INVENTORY``, else ``./inventory/hosts.yaml`` where it
    is there, else the home's."""
    named = flag or environ.get("CLOUDAI_INVENTORY")
    if named:
        return Inventory(Path(os.path.abspath(Path(named).expanduser())), explicit=True)
    here = Path(os.path.abspath("inventory/hosts.yaml"))
    return Inventory(here if here.exists() else home / "hosts.yaml")


def make_home(home: Path) -> None:
    """Makes the home, for its owner alone. Raises ``ControllerFailed``."""
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ControllerFailed(
            f"The home {home} cannot be made: {error.strerror}",
            hint="set CLOUDAI_HOME to a folder of yours",
        ) from error


def socket_path(home: Path) -> str:
    """The controller's socket. Raises ``ControllerFailed`` where its path is too long."""
    path = str(home / SOCKET_NAME)
    if len(os.fsencode(path)) > LONGEST_SOCKET_PATH:
        raise ControllerFailed(
            f"The path of the controller's socket is too long for a UNIX socket: {path}",
            hint=f"set CLOUDAI_HOME to a shorter path: {LONGEST_SOCKET_PATH} bytes at most"
            f" with /{SOCKET_NAME}",
        )
    return path
