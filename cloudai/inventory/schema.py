"""Every key a worker can have, and how its text is read. ``docs/inventory.md`` and the example
fleet name the same keys; a test compares them."""

from __future__ import annotations

import re
from collections.abc import Callable

from cloudai.core.errors import InvalidInput
from cloudai.core.units import parse_amount, parse_cpus, parse_gpus
from cloudai.core.wording import shown

Path = tuple[str, ...]
"""A key with the table it stands in: ``("port",)``, ``("reserve", "cpus")``."""
Value = str | int

LABELS = "labels"
"""The one table whose keys are the user's own."""
CONNECTIONS = ("ssh", "local")
OF_SSH = ("host", "port", "user", "identity_file", "proxy_jump")
"""Keys that mean nothing to a worker with ``connection: local``."""

_HOST = re.compile(r"[A-Za-z0-9_.:%\[\]-]+")
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,62}")
_WORDS = re.compile(r"[^\s]+")


def _refuse(what: str, text: str, right: str) -> InvalidInput:
    return InvalidInput(f"{what}: {shown(text)} {right}", field=what)


def _host(text: str, *, what: str) -> str:
    right = "is not a host; give an address, a name, or an alias of ~/.ssh/config"
    if re.fullmatch(r"[^:\[\]]+:[0-9]+", text):
        raise _refuse(what, text, "has a port; write it apart, as port:")
    if "@" in text:
        raise _refuse(what, text, "has a user; write it apart, as user:")
    if text.startswith("-") or len(text) > 255 or not _HOST.fullmatch(text):
        raise _refuse(what, text, right)
    if re.fullmatch(r"[0-9.]+", text) and re.search(r"(?:^|\.)0[0-9]", text):
        raise _refuse(what, text, "is an address with a zero in front of a number")
    return text


def _port(text: str, *, what: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= 65535:
        raise _refuse(what, text, "is not a port; give a whole number from 1 to 65535")
    return int(text)


def _word(text: str, *, what: str) -> str:
    if (
        text.startswith("-")
        or len(text) > 255
        or not text.isprintable()
        or not _WORDS.fullmatch(text)
    ):
        raise _refuse(what, text, "must be one word that does not begin with '-'")
    return text


def _file(text: str, *, what: str) -> str:
    if text.startswith("-") or len(text) > 4096 or not text.isprintable() or not text.strip():
        raise _refuse(what, text, "is not a path")
    return text


def _connection(text: str, *, what: str) -> str:
    if text not in CONNECTIONS:
        raise _refuse(what, text, f"is not one of {', '.join(CONNECTIONS)}")
    return text


def _engine_socket(text: str, *, what: str) -> str:
    path = text.removeprefix("unix://")
    if (
        not path.startswith("/")
        or len(path) > 100
        or not _WORDS.fullmatch(path)
        or not text.isprintable()
    ):
        raise _refuse(what, text, "is not a socket; give one such as unix:///run/docker.sock")
    return f"unix://{path}"


def _amount(text: str, *, what: str) -> int:
    return parse_amount(text, what=what, zero=True)


def _cpus(text: str, *, what: str) -> int:
    return parse_cpus(text, what=what, zero=True)


def _gpus(text: str, *, what: str) -> int:
    return parse_gpus(text, what=what)


def _count(text: str, *, what: str) -> int:
    if not re.fullmatch(r"[0-9]{1,4}", text):
        raise _refuse(what, text, "is not a number of GPUs; give a whole number, 0 or more")
    return int(text)


def _share(text: str, *, what: str) -> int:
    if not re.fullmatch(r"[0-9]{1,4}", text) or not int(text):
        raise _refuse(what, text, "is not a number of tasks; give a whole number, 1 or more")
    return int(text)


def _label(text: str, *, what: str) -> str:
    if len(text) > 255 or not text.isprintable() or not text.strip():
        raise _refuse(what, text, "is not a label's value; give 1 to 255 visible characters")
    return text


KEYS: dict[Path, Callable[..., Value]] = {
    ("host",): _host,
    ("port",): _port,
    ("user",): _word,
    ("identity_file",): _file,
    ("proxy_jump",): _word,
    ("connection",): _connection,
    ("engine_socket",): _engine_socket,
    ("reserve", "cpus"): _cpus,
    ("reserve", "memory"): _amount,
    ("reserve", "storage"): _amount,
    ("reserve", "gpus"): _gpus,
    ("gpus", "max"): _count,
    ("gpus", "min_free"): _count,
    ("gpus", "share"): _share,
    ("gpus", "idle_memory"): _amount,
}
TABLES = (LABELS, *dict.fromkeys(path[0] for path in KEYS if len(path) == 2))
WORKER_KEYS = (*(path[0] for path in KEYS if len(path) == 1), *TABLES)
TOP_KEYS = ("defaults", "groups", "workers", "scheduling")


def keys_of(table: str) -> tuple[str, ...]:
    """The keys of ``reserve`` or ``gpus``."""
    return tuple(path[1] for path in KEYS if len(path) == 2 and path[0] == table)


def table_of(key: str) -> str | None:
    """The table a key belongs into that was written beside it."""
    return next((path[0] for path in KEYS if len(path) == 2 and path[1] == key), None)


def read_value(path: Path, text: str) -> Value:
    """What the text means at that key. Raises ``InvalidInput`` naming the key."""
    read = _label if path[0] == LABELS else KEYS[path]
    return read(text, what=".".join(path))


def check_label_key(text: str) -> str:
    """A label's name. Raises ``InvalidInput``."""
    if not _LABEL.fullmatch(text):
        raise _refuse(
            LABELS, text, "is not a label's name; give letters, digits, '.', '_', '/' and '-'"
        )
    return text
