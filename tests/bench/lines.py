"""How much there is to read: lines of code that are not blank, by room."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

TOPS = ("cloudai", "templates", "tests")
KINDS = (".py", ".j2", ".mako")


def lines_by_room(root: Path) -> dict[str, dict[str, int]]:
    """top -> room -> lines. A file that lies loose in ``cloudai`` is a room of its own; loose
    files elsewhere count for the top itself."""
    found: dict[str, dict[str, int]] = {}
    for top in TOPS:
        counted: Counter[str] = Counter()
        for path in sorted((root / top).rglob("*")):
            if path.suffix in KINDS and path.is_file():
                counted[_room(path.relative_to(root / top), top)] += _lines(path)
        found[top] = dict(counted.most_common())
    return found


def _room(path: Path, top: str) -> str:
    if len(path.parts) > 1:
        return path.parts[0]
    return path.stem if top == "cloudai" else "(top)"


def _lines(path: Path) -> int:
    return sum(bool(line.strip()) for line in path.read_text("utf-8").splitlines())
