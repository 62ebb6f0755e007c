"""The protocol of our worker scripts' answers: lines that begin with the name of their part.

A part that is a command ends with ``NAME status N``; without it, the command did not end in
its time. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

STATUS = re.compile(r"status (\d{1,3})")
NUMBER = re.compile(r"[0-9]{1,18}")
TOO_LATE = (None, 124, 137, 142, 143)
"""Statuses of a command that its deadline ended."""


def whole_number(text: str) -> int | None:
    """A number of at most eighteen ASCII digits; anything else, however much, is none."""
    return int(text) if NUMBER.fullmatch(text) else None


class Parts:
    """An answer, by parts. Unknown parts are kept, missing ones are empty."""

    def __init__(self, text: str) -> None:
        self._lines: dict[str, list[str]] = {}
        for line in text.split("\n"):
            name, _, rest = line.partition(" ")
            if "\t" in name:  # tab-separated lines begin with their kind
                name, rest = line.split("\t", 1)[0], line
            if name:
                self._lines.setdefault(name, []).append(rest)

    def lines(self, name: str) -> list[str]:
        """What the command of that part said, without its status."""
        lines = self._lines.get(name, [])
        return lines[:-1] if lines and STATUS.fullmatch(lines[-1]) else list(lines)

    def status(self, name: str) -> int | None:
        """Its exit status; ``None`` where it did not end in time, or was not asked."""
        lines = self._lines.get(name, [])
        match = STATUS.fullmatch(lines[-1]) if lines else None
        return whole_number(match[1]) if match else None

    def said(self, name: str) -> str:
        """Its words, for people: what is not JSON, without Docker's advice on its own usage."""
        words = (
            line.strip()
            for line in self.lines(name)
            if line and not line.startswith("{") and not line.startswith("Run 'docker")
        )
        return " ".join(word for word in words if word)

    def documents(self, name: str) -> list[Mapping[str, Any]]:
        """The JSON objects among its lines; anything else there is not one of them."""
        found: list[Mapping[str, Any]] = []
        for line in self.lines(name):
            if not line.startswith("{"):
                continue
            try:
                document = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(document, dict):
                found.append(document)
        return found

    def facts(self) -> dict[str, str]:
        """``fact KEY VALUE`` lines; the last of a key counts."""
        facts = {}
        for line in self._lines.get("fact", []):
            key, _, value = line.partition(" ")
            facts[key] = value.strip()
        return facts
