"""A task's fingerprint: equal for tasks that would run the same, wherever they stand in a file
and whatever they are called. What ``--resume`` goes by."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import fields

from .model import Resources, TaskSpec

LENGTH = 16
"""Hexadecimal digits: two of a million tasks share one once in thirty million batches."""

_RUNS = (
    *("image", "argv", "shell", "target", "mounts", "workdir", "run_as", "shm_size"),
    *("gpu_model", "gpu_memory", "uploads", "downloads", "secrets", "ship_image"),
)
_AMOUNTS = tuple(one.name for one in fields(Resources))


def fingerprint(spec: TaskSpec, env: Mapping[str, str], key: str) -> str:
    """``env``: with values; ``key``: keeps them from being guessed by who sees the fingerprint."""
    said: dict[str, object] = {name: getattr(spec, name) for name in _RUNS}
    said["resources"] = [getattr(spec.resources, name) for name in _AMOUNTS]
    said["env"] = sorted(env.items())
    said["index"] = spec.array_index if spec.array is not None else None
    text = json.dumps(said, separators=(",", ":"), sort_keys=True)
    return hmac.digest(key.encode(), text.encode(), hashlib.sha256).hex()[:LENGTH]
