"""What an entry of a batch may say: words for people, and the fields of the API behind them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cloudai.core.request import FIELDS

WORDS = {
    "image": "docker_image",
    "cpus": "req_cpu",
    "memory": "req_memory",
    "storage": "req_storage",
    "gpus": "req_gpu",
    "user": "user_id",
    "worker": "target",
    "type": "task_type",
}
"""What people write -> what the API calls it; both may be written."""
OF_ENTRIES = ("id", "matrix", "include", "exclude", "group")
"""What only entries have."""
NOT_HERE = ("idempotency_key",)
"""The batch as a whole has a key: ``--once-key``."""
KNOWN = (
    *OF_ENTRIES,
    *WORDS,
    *(field for field in FIELDS if field not in NOT_HERE),
)
OF_FILES = ("name", "user", "defaults", "vars", "tasks", "once_key")
"""What stands at the top of a file."""

_TEXTS = {
    *("docker_image", "command", "user_id", "name", "target", "workdir", "run_as", "gpu_model"),
    *("task_type", "signal"),
}
"""Fields that are text, also where what is written reads as a number."""
_LISTS_OF_TEXT = {"argv", "mounts", "secrets", "uploads", "downloads"}


def field_of(word: str) -> str:
    """The API's name."""
    return WORDS.get(word, word)


def word_of(field: str, written: Mapping[str, Any]) -> str:
    """The name by which a field was written."""
    if field in written:
        return field
    return next((word for word, name in WORDS.items() if name == field and word in written), field)


def as_body(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The body of ``POST /tasks/`` for an entry whose expressions are done: numbers where text
    is meant become text, so that ``name: 7`` and ``LR: 0.1`` mean what they say."""
    body: dict[str, Any] = {}
    for word, value in entry.items():
        field = field_of(word)
        if field in OF_ENTRIES or value is None:
            continue
        if field in _TEXTS:
            value = as_text(value)
        elif field in _LISTS_OF_TEXT and isinstance(value, list):
            value = [as_text(one) for one in value]
        elif field == "env" and isinstance(value, dict):
            value = {name: as_text(one) for name, one in value.items()}
        body[field] = value
    return body


def as_text(value: Any) -> Any:
    """A number, true or false as text; all else as it is."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    return value
