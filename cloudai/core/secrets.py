"""What a task says of secrets: the name of each, and where it is a file in the container.

Values are no part of a task. One spelling is kept: ``NAME=/run/secrets/NAME``.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable

from .errors import InvalidInput
from .mounts import bind_mount, mount_target
from .wording import shown

FOLDER = "/run/secrets"
LONGEST_NAME = 63
LARGEST = 512 * 1024
"""Bytes of one value."""
MOST = 64
"""Secrets of one task."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def check_secret_name(text: str, *, what: str = "name") -> str:
    """The name of a secret: letters, digits, ``.``, ``_``, ``-``; at most 63. Raises
    ``InvalidInput`` naming ``what``."""
    if len(text) > LONGEST_NAME or not _NAME.fullmatch(text):
        raise InvalidInput(
            f"{what}: {shown(text)} cannot be the name of a secret; give letters, digits, '.', '_'"
            f" and '-', a letter or digit first, at most {LONGEST_NAME} characters",
            field=what,
        )
    return text


def check_secret(text: str, *, what: str = "secrets") -> str:
    """``NAME`` or ``NAME=/a/path`` in one spelling. Raises ``InvalidInput`` naming ``what``."""
    name, equals, target = text.partition("=")
    check_secret_name(name, what=what)
    if not equals:
        return f"{name}={FOLDER}/{name}"
    if not target.startswith("/") or target.endswith("/"):
        raise InvalidInput(
            f"{what}: {shown(text)}; after = give the absolute path of a file in the container,"
            f" such as {name}={FOLDER}/{name}",
            field=what,
        )
    target = "/" + posixpath.normpath(target).lstrip("/")
    bind_mount("/", target, what=what)
    return f"{name}={target}"


def secret_name(secret: str) -> str:
    """The name in a checked one."""
    return secret.partition("=")[0]


def secret_target(secret: str) -> str:
    """Where in the container a checked one is a file."""
    return secret.partition("=")[2]


def check_targets(secrets: Iterable[str], mounts: Iterable[str], *, what: str = "secrets") -> None:
    """Raises ``InvalidInput`` where two secrets, or a secret and a mount, have the same place
    in the container, or one would have to be below the file that a secret is."""
    mounted = {mount_target(mount) for mount in mounts}
    targets: set[str] = set()
    for index, secret in enumerate(secrets):
        target = secret_target(secret)
        if target in mounted:
            raise _taken(what, index, secret, "a mount has the same dst")
        if target in targets:
            raise _taken(what, index, secret, "another secret has the same place")
        targets.add(target)
    for index, secret in enumerate(secrets):
        for other in targets | mounted:
            if other.startswith(secret_target(secret) + "/"):
                raise _taken(what, index, secret, f"that is a file, and {other} cannot be below it")


def _taken(what: str, index: int, secret: str, why: str) -> InvalidInput:
    return InvalidInput(f"{what}[{index}]: {shown(secret)}; {why}", field=what)
