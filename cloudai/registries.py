"""Log-ins of registries, kept at home and given to a worker for one pull. What a password is kept
in is another's business (``Passwords``); who logs in where is in ``registries.json`` (0600).
"""

from __future__ import annotations

import hashlib
import json
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from cloudai.core.errors import InvalidInput, NotFound, StoreFailed
from cloudai.core.image import check_registry, registry_of
from cloudai.disk import disk_errors, write_whole

LONGEST = 64 * 1024
"""Bytes of a password: some are tokens, or the whole key of a service account."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What may be told of a log-in."""

    registry: str
    username: str
    set_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """A log-in with its password."""

    registry: str
    username: str
    password: str = field(repr=False)


class Passwords(Protocol):
    """Where values are kept by name. ``get`` raises ``NotFound``; all may raise
    ``StoreFailed``."""

    def put(self, name: str, value: bytes) -> object: ...

    def get(self, name: str) -> bytes: ...

    def drop(self, name: str) -> None: ...


class Registries:
    """Every method may raise ``StoreFailed``. They block: a keyring may take its time."""

    def __init__(self, home: Path, passwords: Passwords) -> None:
        self._path = home / "registries.json"
        self._passwords = passwords
        self._changing = threading.Lock()

    def put(self, registry: str, username: str, password: str) -> Known:
        """Keeps a log-in, in place of an earlier one there. Raises ``InvalidInput``; no message
        holds any of the password."""
        registry = check_registry(registry)
        if not username or ":" in username or not username.isprintable():
            raise InvalidInput(
                f"username: {username!r} cannot be one: it is text without a colon",
                field="username",
            )
        value = _encoded(password)
        known = Known(registry=registry, username=username, set_at=datetime.now(UTC))
        with self._changing:
            entries = self._read()
            self._passwords.put(_name(registry), value)
            self._write({**entries, registry: known})
        return known

    def all(self) -> list[Known]:
        """By registry."""
        return sorted(self._read().values(), key=lambda one: one.registry)

    def drop(self, registry: str) -> None:
        """Forgets it. Raises ``NotFound``."""
        registry = check_registry(registry)
        with self._changing:
            entries = self._read()
            if registry not in entries:
                raise NotFound(
                    f"There is no log-in of {registry}", hint="`cloudai registry list` lists them"
                )
            del entries[registry]
            self._write(entries)
            with suppress(NotFound):
                self._passwords.drop(_name(registry))

    def login_for(self, image: str) -> Login | None:
        """What its registry is to be told by whoever pulls it; ``None`` where no log-in is kept.
        Raises ``StoreFailed`` where its password cannot be had now."""
        known = self._read().get(registry_of(image))
        if known is None:
            return None
        try:
            password = self._passwords.get(_name(known.registry))
        except (NotFound, StoreFailed) as error:
            raise StoreFailed(
                f"the password of {known.username} at {known.registry} cannot be had:"
                f" {error.message}",
                hint=f"`cloudai registry login {known.registry}` keeps it anew",
            ) from error
        return Login(registry=known.registry, username=known.username, password=password.decode())

    # ------------------------------------------------------------------ the file

    def _read(self) -> dict[str, Known]:
        with disk_errors(self._path):
            try:
                text = self._path.read_bytes()
            except FileNotFoundError:
                return {}
        try:
            found: dict[str, Any] = json.loads(text)
            return {
                name: Known(
                    registry=name,
                    username=str(one["username"]),
                    set_at=datetime.fromisoformat(one["set_at"]),
                )
                for name, one in found.items()
            }
        except (ValueError, KeyError, TypeError, AttributeError):
            raise StoreFailed(
                f"{self._path} is damaged",
                hint="remove that file, and log in again: cloudai registry login HOST -u USER",
            ) from None

    def _write(self, entries: dict[str, Known]) -> None:
        record = {
            one.registry: {"username": one.username, "set_at": one.set_at.isoformat()}
            for one in entries.values()
        }
        with disk_errors(self._path):
            write_whole(self._path, json.dumps(record).encode())


def _encoded(password: str) -> bytes:
    try:
        value = password.encode()
    except UnicodeEncodeError:
        raise InvalidInput("password: it is not valid UTF-8", field="password") from None
    if not value or len(value) > LONGEST or "\n" in password or "\0" in password:
        why = "it is empty" if not value else "it is no single line of at most 64 KiB"
        raise InvalidInput(f"password: {why}", field="password")
    return value


def _name(registry: str) -> str:
    """A file's, or a secret's: whatever characters an address may have."""
    return f"registry-{hashlib.sha256(registry.encode()).hexdigest()[:32]}"
