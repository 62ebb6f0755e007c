"""Secrets of this home: set once by name, given to tasks as files. The only place that holds
their values, each in the system's keyring or in a 0600 file here.

Whether the keyring can be had is for the moment to say: a controller that cron started has no
session, and a keyring may be locked. What cannot be had is told, never guessed.
"""

from __future__ import annotations

import base64
import contextlib
import json
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from cloudai.core.errors import Conflict, InvalidInput, NotFound, SecretUnreadable
from cloudai.core.secrets import LARGEST, check_secret_name, secret_name
from cloudai.core.wording import nearest
from cloudai.disk import disk_errors, make_private_folder, sync_folder, write_whole

from .keyrings import KeyringUnusable, SystemKeyring

REFUSED = 15.0
"""Seconds for which a keyring that did not answer is not asked again: it may take long to say
no, and many tasks may want to know."""
FRESH = 300.0
"""Seconds for which what the keyring said is remembered: a batch asks it once, not each task."""


class Kept(StrEnum):
    """Where a value is."""

    KEYRING = "keyring"
    FILE = "file"


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """What may be told of one."""

    name: str
    set_at: datetime
    size: int
    """Bytes."""
    kept: Kept


class Secrets:
    """Every method may raise ``StoreFailed`` where the disk fails. Safe to call from threads;
    one that asks the keyring may take as long as ``SystemKeyring`` waits."""

    def __init__(self, folder: Path, keyring: SystemKeyring | None = None) -> None:
        self._folder = folder
        self._keyring = keyring or SystemKeyring(f"cloudai {folder.parent}")
        self._changing = threading.Lock()
        self._fresh: dict[str, tuple[float, bytes]] = {}
        """name -> (monotonic time until which it holds, value), of the keyring's alone."""
        self._refused = (0.0, "")
        """Why the keyring did not answer, and until when that holds."""

    def put(self, name: str, value: bytes, *, in_file: bool = False) -> tuple[Secret, str]:
        """Sets it, in place of an earlier value: after a crash it is the new one whole, or the
        old one. Answers it, and why it is in a file where the keyring was wanted.

        ``in_file``: also where there is a keyring. Raises ``InvalidInput`` for an empty value
        or one that is too large; no message holds any of it.
        """
        check_secret_name(name)
        if not 1 <= len(value) <= LARGEST:
            why = f"{len(value)} bytes; at most {LARGEST // 1024} KiB" if value else "it is empty"
            raise InvalidInput(f"value: {why}", field="value")
        with self._changing:
            before = self._read(name)
            self._fresh.pop(name, None)
            why = "" if in_file else self._into_keyring(name, value)
            kept = Kept.FILE if in_file or why else Kept.KEYRING
            secret = Secret(name=name, set_at=datetime.now(UTC), size=len(value), kept=kept)
            self._write(secret, value)
            if before is not None and before[0].kept is Kept.KEYRING and kept is Kept.FILE:
                self._out_of_keyring(name)
        return secret, why

    def get(self, name: str) -> bytes:
        """The value. Raises ``NotFound``, and ``SecretUnreadable`` where its keyring does not
        give it."""
        found = self._read(name)
        if found is None:
            raise NotFound(f"No secret {name} is set", hint=_how_to_set(name), secret=name)
        secret, value = found
        return self._from_keyring(name) if secret.kept is Kept.KEYRING else value

    def all(self) -> list[Secret]:
        """By name."""
        with disk_errors(self._folder):
            paths = sorted(self._folder.glob("[!.]*.json")) if self._folder.is_dir() else []
        found = (self._read(path.name.removesuffix(".json")) for path in paths)
        return [one[0] for one in found if one is not None]

    def one(self, name: str) -> Secret:
        """Raises ``NotFound``."""
        found = self._read(check_secret_name(name))
        if found is None:
            raise NotFound(
                f"No secret {name} is set", hint="`cloudai secret list` lists them", secret=name
            )
        return found[0]

    def drop(self, name: str) -> None:
        """Forgets it. Raises ``NotFound``; and ``SecretUnreadable`` where it stays in a keyring
        that cannot be had: then it is still listed."""
        with self._changing:
            secret = self.one(name)
            self._fresh.pop(name, None)
            if secret.kept is Kept.KEYRING:
                try:
                    self._keyring.drop(name)
                except KeyringUnusable as error:
                    raise _unreadable(name, str(error)) from None
            path = self._path(name)
            with disk_errors(path):
                path.unlink(missing_ok=True)
                sync_folder(self._folder)

    def check(self, wanted: Iterable[str]) -> None:
        """That the values of a task's secrets (``NAME=/target``) can be had now. Raises
        ``InvalidInput`` for one that is not set, ``SecretUnreadable``."""
        for index, secret in enumerate(wanted):
            name = secret_name(secret)
            try:
                self.get(name)
            except NotFound as error:
                known = {one.name.lower(): one.name for one in self.all()}
                near = nearest(name, known)
                meant = f"; did you mean {known[near]!r}?" if near else ""
                raise InvalidInput(
                    f"secrets[{index}]: no secret {name!r} is set{meant}",
                    hint=error.hint,
                    field="secrets",
                ) from None

    def sweep(self) -> None:
        """Removes what a killed ``put`` left."""
        with disk_errors(self._folder):
            for path in self._folder.glob(".*.json.new") if self._folder.is_dir() else ():
                path.unlink(missing_ok=True)

    # ------------------------------------------------------------------ the keyring

    def _into_keyring(self, name: str, value: bytes) -> str:
        """Why it is not there; empty when it is."""
        self._refused = (0.0, "")
        try:
            self._keyring.put(name, value)
        except KeyringUnusable as error:
            return str(error)
        return ""

    def _out_of_keyring(self, name: str) -> None:
        """An old value, to which nothing leads; where the keyring cannot be had, it stays."""
        with contextlib.suppress(KeyringUnusable):
            self._keyring.drop(name)

    def _from_keyring(self, name: str) -> bytes:
        until, value = self._fresh.get(name, (0.0, b""))
        if time.monotonic() < until:
            return value
        until, why = self._refused
        if time.monotonic() < until:
            raise _unreadable(name, why)
        try:
            found = self._keyring.get(name)
        except KeyringUnusable as error:
            self._refused = (time.monotonic() + REFUSED, str(error))
            raise _unreadable(name, str(error)) from None
        if found is None:
            raise _unreadable(name, "it was removed from the keyring")
        self._fresh[name] = (time.monotonic() + FRESH, found)
        return found

    # ------------------------------------------------------------------ the files

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"

    def _read(self, name: str) -> tuple[Secret, bytes] | None:
        """What is kept of a secret here, and its value where that is in the file."""
        path = self._path(name)
        with disk_errors(path):
            try:
                text = path.read_bytes()
            except FileNotFoundError:
                return None
        try:
            known: dict[str, Any] = json.loads(text)
            secret = Secret(
                name=known["name"],
                set_at=datetime.fromisoformat(known["set_at"]),
                size=int(known["size"]),
                kept=Kept(known["kept"]),
            )
            value = base64.b64decode(known.get("value", ""), validate=True)
            if secret.kept is Kept.FILE and len(value) != secret.size:
                raise ValueError
        except (ValueError, KeyError, TypeError, AttributeError):
            # ``from None``: the parser's error quotes what it read.
            raise SecretUnreadable(
                f"{path} is damaged: the secret {name} is lost",
                hint=f"remove that file, then {_how_to_set(name)}",
            ) from None
        # Where the disk takes names for the same that differ in their case.
        return (secret, value) if secret.name == name else None

    def _write(self, secret: Secret, value: bytes) -> None:
        path = self._path(secret.name)
        record = {
            "name": secret.name,
            "set_at": secret.set_at.isoformat(),
            "size": secret.size,
            "kept": str(secret.kept),
        }
        if secret.kept is Kept.FILE:
            record["value"] = base64.b64encode(value).decode("ascii")
        with disk_errors(self._folder):
            make_private_folder(self._folder)
            self._refuse_other_case(path, secret.name)
            write_whole(path, json.dumps(record).encode("ascii"))

    def _refuse_other_case(self, path: Path, name: str) -> None:
        if path.exists() and path.name not in {one.name for one in self._folder.iterdir()}:
            raise Conflict(
                f"{name} and a secret whose name differs in its case alone cannot both be kept"
                " on this disk",
                hint="give it another name",
            )


def _how_to_set(name: str) -> str:
    return f"`cloudai secret set {name}` sets it"


def _unreadable(name: str, why: str) -> SecretUnreadable:
    return SecretUnreadable(
        f"The secret {name} is kept in the keyring, which does not give it: {why}",
        hint=f"`cloudai secret set {name} --in-file` keeps it in a file of the home, which can"
        " be read without your session too",
        secret=name,
    )
