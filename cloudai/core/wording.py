"""How foreign values appear in messages: one line, short, nothing invisible left raw."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from math import ceil, floor

LONGEST = 60
"""Characters of a foreign text that a message carries."""


def shown(value: object) -> str:
    """A value as a message may carry it; control, bidi and other unprintable characters escaped."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str() if len(value) > LONGEST:
            return f"{value[: LONGEST - 20]!r}… ({len(value)} characters)"
        case str():
            return repr(value)
        case int():
            return str(value) if value.bit_length() < 100 else "a number of hundreds of digits"
        case float() if not math.isfinite(value):
            return str(value)
        case float():
            return f"{value:g}"
        case list() | tuple():
            return "a list"
        case dict():
            return "an object"
        case _:
            return f"a {type(value).__name__}"


def visible(text: str) -> str:
    """The text on one line, its unprintable characters escaped as ``shown`` does, unquoted."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def nearest(word: str, options: Iterable[str]) -> str | None:
    """The option a person most likely meant, or nothing that comes near."""
    # difflib's cost grows with the square of the length; no name of ours is that long.
    found = difflib.get_close_matches(word[:64].lower(), list(options), n=1, cutoff=0.6)
    return found[0] if found else None


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """``did you mean 'host'? Known: host, port, user``; only what is known where none is near."""
    listed = list(options)
    near = nearest(word, listed)
    known = ", ".join(listed)
    return f"did you mean {near!r}? Known: {known}" if near else f"known: {known}"


def insufficient(what: str, available: float, required: float) -> str:
    """Seed 000's words: ``Insufficient CPU: worker has 4.0 available, task requires 100.0``."""
    return (
        f"Insufficient {what}: worker has {amount(available, down=True)} available,"
        f" task requires {amount(required)}"
    )


def amount(value: float, *, down: bool = False) -> str:
    """One decimal where that is the truth, else as many as it takes, at most three.

    What is available is rounded down, so that a message never says that 0.5 of 0.5 is too
    little.
    """
    thousandths = floor(value * 1000 + 1e-6) if down else ceil(value * 1000 - 1e-6)
    text = f"{thousandths / 1000:.3f}".rstrip("0")
    return text + "0" if text.endswith(".") else text
