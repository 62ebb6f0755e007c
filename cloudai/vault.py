"""The values of tasks' environment variables: the only place at home that holds them.

The database, the log and the API know names alone. One 0600 file a task, or a batch or array of
them, in a 0700 folder.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cloudai.core.errors import StoreFailed
from cloudai.disk import (
    disk_errors,
    make_private_folder,
    plain_name,
    sync_folder,
    write_whole,
)


class Vault:
    """Environment values by task. Every method raises ``StoreFull``, ``StoreReadOnly`` or
    ``StoreFailed`` where the disk does, and ``InvalidInput`` for a task id that is none."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, task_id: str, env: Mapping[str, str]) -> None:
        """Keeps the values. They are on the disk when it returns, so commit the task's row
        after it. Nothing is written for no values."""
        path = self._path(task_id)
        if not env:
            return
        with disk_errors(self._folder):
            make_private_folder(self._folder)
            write_whole(path, json.dumps(dict(env)).encode("ascii"))

    def put_all(self, bundle: str, values: Mapping[str, Mapping[str, str]]) -> None:
        """Keeps the values of many tasks in one file, equal ones once: as ``put``, by the id of
        their batch or array."""
        path = self._path(bundle)
        kept: dict[str, int] = {}
        of: dict[str, int] = {}
        for task_id, env in values.items():
            if env:
                of[task_id] = kept.setdefault(json.dumps(dict(env)), len(kept))
        if not of:
            return
        whole = {"values": [json.loads(text) for text in kept], "of": of}
        with disk_errors(self._folder):
            make_private_folder(self._folder)
            write_whole(path, json.dumps(whole).encode("ascii"))

    def get(self, task_id: str, bundle: str | None = None) -> dict[str, str]:
        """The values; none where none were put. ``bundle``: the id by which ``put_all`` kept
        them."""
        if bundle is None:
            return self._read(task_id, lambda whole: whole)
        return self._read(bundle, lambda whole: _of(whole, task_id))

    def _read(self, name: str, pick: Callable[[Any], Any]) -> dict[str, str]:
        path = self._path(name)
        with disk_errors(path):
            try:
                text = path.read_bytes()
            except FileNotFoundError:
                return {}
        try:
            return {str(name): str(value) for name, value in pick(json.loads(text)).items()}
        except (ValueError, AttributeError, LookupError, TypeError):
            # ``from None``: the parser's error quotes what it read.
            raise StoreFailed(
                f"{path} is damaged: the environment of {name} is lost",
                hint="Cancel it and submit it again.",
            ) from None

    def has(self, name: str) -> bool:
        """Whether values are kept under that id."""
        return self._path(name).exists()

    def drop(self, task_id: str) -> None:
        """Forgets the values; none there is fine."""
        path = self._path(task_id)
        with disk_errors(path):
            try:
                path.unlink()
            except FileNotFoundError:
                return
            sync_folder(self._folder)

    def sweep(self, keep: set[str]) -> None:
        """Forgets the values of all tasks but those, and what a killed ``put`` left."""
        wanted = {self._path(task_id) for task_id in keep}
        with disk_errors(self._folder):
            if not self._folder.is_dir():
                return
            for path in sorted(self._folder.iterdir()):
                ours = path.name.endswith((".json", ".json.new"))
                if ours and path not in wanted:
                    path.unlink(missing_ok=True)
            sync_folder(self._folder)

    def _path(self, task_id: str) -> Path:
        return self._folder / f"{plain_name(task_id)}.json"


def _of(whole: Any, task_id: str) -> Any:
    at = whole["of"].get(task_id)
    return {} if at is None else whole["values"][at]
