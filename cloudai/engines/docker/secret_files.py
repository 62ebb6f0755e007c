"""Files of secrets as shell text: what the start script writes, byte by byte. Pure.

``printf`` is a builtin of the shells that scripts run in, so values are in no argument list;
and it writes any byte, which a here-document cannot (and some shells keep those on a disk).
"""

from __future__ import annotations

from collections.abc import Mapping

from cloudai.core.mounts import bind_mount

PIECE = 4096
"""Bytes of a value in one ``printf``."""
_PLAIN = frozenset(
    b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 \n_@+=:,./#!?*$<>|~(){}[]^;&"
)
"""Bytes that ``printf`` and quotes leave as they are."""

File = tuple[int, list[str], str]
"""Its bytes, the formats of the ``printf`` that write it, and the mount of it after its source."""


def secret_files(secrets: Mapping[str, bytes]) -> list[File]:
    """For the start script, from what each file holds by its place in the container."""
    return [
        (
            len(value),
            [_format(value[at : at + PIECE]) for at in range(0, len(value), PIECE)],
            bind_mount("/", target).removeprefix("type=bind,src=/"),
        )
        for target, value in secrets.items()
    ]


def _format(piece: bytes) -> str:
    return "".join(chr(byte) if byte in _PLAIN else f"\\{byte:03o}" for byte in piece)
