"""Errors on this side of the socket: the API's error JSON made an exception again.

::

    CloudaiError
    └── ControllerFailed         exit 1   the controller cannot be started, or went away
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cloudai.core.errors import CloudaiError


class ControllerFailed(CloudaiError):
    """The controller cannot be started, cannot be spoken to, or went away in mid-answer."""

    code = "controller_failed"
    http_status = 503


def error_from_json(answer: object, *, status: int) -> CloudaiError:
    """The exception for an error body; ``status`` speaks where the body does not.

    A code this version does not know keeps its message, hint and exit code.
    """
    found = answer.get("error") if isinstance(answer, dict) else None
    if not isinstance(found, dict):
        return ControllerFailed(
            f"The controller failed (HTTP {status})",
            hint="the end of controller.log in the home says why",
        )
    code = str(found.get("code", "failed"))
    exit_code = found.get("exit_code")
    kind = _class_for(code, exit_code if isinstance(exit_code, int) else 1)
    # Leaves of the tree have constructors of their own: fill the base's fields instead.
    error = kind.__new__(kind)
    CloudaiError.__init__(error, str(found.get("message", "")), hint=str(found.get("hint") or ""))
    details = found.get("details")
    error.details = details if isinstance(details, dict) else {}
    return error


def _class_for(code: str, exit_code: int) -> type[CloudaiError]:
    for kind in _tree(CloudaiError):
        if kind.code == code and kind.exit_code == exit_code:
            return kind
    fields: dict[str, Any] = {"code": code, "exit_code": exit_code}
    return type("CloudaiError", (CloudaiError,), fields)


def _tree(kind: type[CloudaiError]) -> Iterator[type[CloudaiError]]:
    yield kind
    for child in kind.__subclasses__():
        # Classes made for unknown codes are not part of the tree.
        if child.__name__ != "CloudaiError":
            yield from _tree(child)
