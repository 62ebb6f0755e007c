"""The system's keyring, asked through a process of its own (``ask_keyring``).

A keyring may wait for a person who is asked to unlock it, for ever when nobody is there: so
each question has a deadline, and what asks it can be ended.
"""

from __future__ import annotations

import base64
import json
import os
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SET_WITHIN = 45.0
"""Seconds: somebody is there, and may be asked for the keyring's password."""
READ_WITHIN = 10.0


class KeyringUnusable(Exception):
    """No keyring, or it does not do what was asked; why, in words."""


class SystemKeyring:
    """The keyring of whoever runs this. ``service``: under which name our entries stand there,
    one for each home."""

    def __init__(self, service: str) -> None:
        self._service = service

    def put(self, name: str, value: bytes) -> None:
        """Keeps a value. Raises ``KeyringUnusable``."""
        text = base64.b64encode(value).decode("ascii")
        self._ask({"verb": "put", "name": name, "value": text}, within=SET_WITHIN)

    def get(self, name: str) -> bytes | None:
        """The value; ``None`` where there is none. Raises ``KeyringUnusable``."""
        text = self._ask({"verb": "get", "name": name}, within=READ_WITHIN).get("value")
        if text is None:
            return None
        try:
            return base64.b64decode(text, validate=True)
        except (ValueError, TypeError):
            raise KeyringUnusable("what it has under that name is not ours") from None

    def drop(self, name: str) -> None:
        """Forgets a value; none there is fine. Raises ``KeyringUnusable``."""
        self._ask({"verb": "drop", "name": name}, within=READ_WITHIN)

    def _ask(self, question: dict[str, str], *, within: float) -> dict[str, Any]:
        try:
            done = subprocess.run(
                [sys.executable, "-P", "-m", "cloudai.secrets.ask_keyring"],
                input=json.dumps({**question, "service": self._service}).encode("ascii"),
                capture_output=True,
                timeout=within,
                env=with_session_bus(os.environ, os.getuid()),
                start_new_session=True,  # nothing may ask on a terminal behind our back
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise KeyringUnusable(f"it is locked, or did not answer within {within:g} s") from None
        except OSError as error:
            raise KeyringUnusable(f"it cannot be asked: {error.strerror}") from None
        try:
            answer: dict[str, Any] = json.loads(done.stdout)
        except ValueError:
            raise KeyringUnusable("what asks it broke off without a word") from None
        if why := answer.get("why"):
            raise KeyringUnusable(str(why))
        return answer


def with_session_bus(environ: Mapping[str, str], uid: int) -> dict[str, str]:
    """The environment, with the user's own bus where there is one and nothing leads to it: cron
    and ssh name none, and the keyring of somebody who is logged in answers all the same."""
    bus = Path(f"/run/user/{uid}/bus")
    if "DBUS_SESSION_BUS_ADDRESS" in environ or not _is_socket_of(bus, uid):
        return dict(environ)
    return {**environ, "DBUS_SESSION_BUS_ADDRESS": f"unix:path={bus}"}


def _is_socket_of(path: Path, uid: int) -> bool:
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISSOCK(found.st_mode) and found.st_uid == uid
