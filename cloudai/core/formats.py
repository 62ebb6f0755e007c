"""What kind of batch file a name tells."""

from __future__ import annotations

FORMATS = {
    ".yaml": "yaml",
    ".yml": "yaml",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
}


def format_of(name: str) -> str | None:
    """``yaml``, ``json``, ``jsonl`` or ``csv`` by the end of a file's name; ``None`` for any
    other."""
    stem, dot, end = name.rpartition(".")
    return FORMATS.get(f".{end.lower()}") if dot and stem else None
