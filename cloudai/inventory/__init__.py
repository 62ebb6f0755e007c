"""The inventory: YAML that ops write, read into workers and edited without losing a comment.

``parse`` is text in, workers out. ``InventoryFile`` re-reads a file when it changes and keeps
the last good one. ``add_worker`` and ``remove_worker`` edit it for ``register``. The package
is the only home of ruamel.yaml.
"""

from __future__ import annotations

from cloudai.core.problems import FileInvalid

from .file import InventoryFile, Snapshot
from .reading import parse
from .specs import check_worker
from .writing import add_worker, plan_worker, remove_worker

__all__ = [
    "FileInvalid",
    "InventoryFile",
    "Snapshot",
    "add_worker",
    "check_worker",
    "parse",
    "plan_worker",
    "remove_worker",
]
