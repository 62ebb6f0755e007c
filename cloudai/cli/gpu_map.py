"""A worker's GPUs in one glyph each, and whose letters those are."""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping
from typing import Any

Worker = Mapping[str, Any]
NOBODY = "(unknown)"
"""Holds a GPU by labels of ours that do not say whose it is."""


class GpuMap:
    """Letters for owners, given in the order they are met: ``A`` holds a whole GPU, ``a`` a
    share of one."""

    def __init__(self) -> None:
        self._letters: dict[str, str] = {}

    def draw(self, worker: Worker) -> str:
        """One glyph a GPU, in the order of their indices; empty where there are none."""
        gpus = sorted(worker["gpus"] or (), key=lambda gpu: (gpu["index"], gpu["uuid"]))
        glyphs = "".join(map(self._glyph, gpus))
        return glyphs + ("?" if worker.get("gpu_trouble") else "")

    def legend(self) -> str:
        """What the glyphs mean, for under the table."""
        owners = ", ".join(f"{letter} {owner}" for owner, letter in self._letters.items())
        shared = f"{owners} (small: a share)" if owners else ""
        return "GPUs: " + ", ".join(
            filter(None, (". free", shared, "x outside cloudai", "! broken"))
        )

    def _glyph(self, gpu: Mapping[str, Any]) -> str:
        match gpu["use"]:
            case "free":
                return "."
            case "outside":
                return "x"
            case "broken":
                return "!"
        letter = self._letter(gpu.get("users") or ())
        shared = (gpu.get("held") or 1.0) < 1.0 or len(gpu["tasks"]) > 1
        return letter.lower() if shared else letter

    def _letter(self, users: Iterable[str]) -> str:
        owner = next(filter(None, users), NOBODY)
        if owner not in self._letters:
            at = len(self._letters)
            self._letters[owner] = _LETTERS[at] if at < len(_LETTERS) else "#"
        return self._letters[owner]


_LETTERS = string.ascii_uppercase.replace("X", "")  # x is an outsider's
