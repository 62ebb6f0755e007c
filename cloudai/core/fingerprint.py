"""A task's fingerprint: equal for tasks that would run the same, wherever they stand in a file
and whatever they are called. What ``--resume`` goes by."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import fields
from operator import attrgetter

from .model import Resources, TaskSpec

LENGTH = 16
"""Hexadecimal digits: two of a million tasks share one once in thirty million batches."""

_RUNS = sorted(
    (
        *("image", "argv", "shell", "target", "mounts", "workdir", "run_as", "shm_size"),
        *("gpu_model", "gpu_memory", "uploads", "downloads", "secrets", "ship_image"),
    )
)
_WHAT_RUNS = attrgetter(*_RUNS)
_AMOUNTS = attrgetter(*(one.name for one in fields(Resources)))
_TEXT = json.JSONEncoder(separators=(",", ":"), sort_keys=True)


def fingerprint(spec: TaskSpec, env: Mapping[str, str], key: str) -> str:
    """``env``: with values; ``key``: keeps them from being guessed by who sees the fingerprint."""
    said = dict(zip(_RUNS, _WHAT_RUNS(spec), strict=True))
    said["resources"] = _AMOUNTS(spec.resources)
    said["env"] = sorted(env.items())
    said["index"] = spec.array_index if spec.array is not None else None
    return hmac.digest(key.encode(), _TEXT.encode(said).encode(), hashlib.sha256).hex()[:LENGTH]
