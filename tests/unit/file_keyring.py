"""A keyring for tests: ``PYTHON_KEYRING_BACKEND=tests.unit.file_keyring.FileKeyring``, in the
file that ``$FILE_KEYRING`` names. Where ``<file>.locked`` is there, it is locked."""

from __future__ import annotations

import json
import os
from pathlib import Path

from keyring.backend import KeyringBackend
from keyring.errors import KeyringLocked, PasswordDeleteError


class FileKeyring(KeyringBackend):
    """Entries in a JSON file."""

    priority = 5  # type: ignore[assignment]

    @property
    def _path(self) -> Path:
        return Path(os.environ["FILE_KEYRING"])

    def _entries(self) -> dict[str, str]:
        if Path(f"{self._path}.locked").exists():
            raise KeyringLocked("Failed to unlock the collection!")
        return json.loads(self._path.read_text()) if self._path.exists() else {}

    def get_password(self, service: str, username: str) -> str | None:
        return self._entries().get(f"{service}\n{username}")

    def set_password(self, service: str, username: str, password: str) -> None:
        self._path.write_text(json.dumps({**self._entries(), f"{service}\n{username}": password}))

    def delete_password(self, service: str, username: str) -> None:
        entries = self._entries()
        if entries.pop(f"{service}\n{username}", None) is None:
            raise PasswordDeleteError("not found")
        self._path.write_text(json.dumps(entries))


class PlainKeyring(FileKeyring):
    """One that keeps plain text says so by its priority."""

    priority = 0.5  # type: ignore[assignment]


class ForgetfulKeyring(FileKeyring):
    """Does as if."""

    def set_password(self, service: str, username: str, password: str) -> None:
        pass


class WaitingKeyring(FileKeyring):
    """Waits for a person, who is not there."""

    def get_password(self, service: str, username: str) -> str | None:
        import threading

        threading.Event().wait()
        return None
