"""One question to the system's keyring: ``python -m cloudai.secrets.ask_keyring``.

A JSON object on stdin (``verb``: put, get or drop; ``service``, ``name``, ``value``), one on
stdout: ``{"value": …}``, or ``{"why": …}`` where it cannot be done. Values are in neither
arguments nor environment.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from typing import Any

NONE_HERE = "there is none here"


def main() -> int:
    """Answers the question on stdin."""
    question = json.loads(sys.stdin.buffer.read())
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            answer = ask(question)
        except Exception as error:
            answer = {"why": _words(error, question.get("value"))}
    sys.stdout.write(json.dumps(answer))
    return 0


def ask(question: dict[str, str]) -> dict[str, Any]:
    """What the keyring says."""
    try:
        import keyring
        import keyring.errors
    except ImportError:
        return {"why": "the Python package keyring is not installed"}
    found = keyring.get_keyring()
    # Those that fail, that forget, or that keep plain text have less.
    if found.priority < 1:
        return {"why": NONE_HERE}
    service, name = question["service"], question["name"]
    match question["verb"]:
        case "get":
            return {"value": found.get_password(service, name)}
        case "drop":
            with contextlib.suppress(keyring.errors.PasswordDeleteError):
                found.delete_password(service, name)
            left = found.get_password(service, name) is not None
            return {"why": "it did not remove the value"} if left else {}
    found.set_password(service, name, question["value"])
    if found.get_password(service, name) != question["value"]:
        return {"why": "it did not keep the value"}
    return {}


def _words(error: Exception, value: str | None) -> str:
    words = " ".join(str(error).split())[:200]
    if not words or (value and value in words):
        return type(error).__name__
    return f"{words} ({type(error).__name__})"


if __name__ == "__main__":
    sys.exit(main())
