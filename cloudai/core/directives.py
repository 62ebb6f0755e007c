"""The lines of a script that say how to run it: ``#CLOUDAI --gpus 2``, ``#SBATCH -c 4``. Pure.

As sbatch reads them: they stand at the very beginning of a line, before the first command; what
is behind a `` #`` on them is a comment.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from enum import StrEnum

from .errors import InvalidInput

_DIRECTIVE = re.compile(r"#(CLOUDAI|SBATCH)(?=\s|$)(.*)")
_WORD = re.compile(r"""(?:[^\s'"\\]|\\.|'[^']*'|"(?:[^"\\]|\\.)*")+""")


class Dialect(StrEnum):
    """Whose flags a line has."""

    CLOUDAI = "CLOUDAI"
    SBATCH = "SBATCH"


@dataclass(frozen=True, slots=True)
class Directive:
    """One line of them."""

    line: int
    """From 1."""
    dialect: Dialect
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Header:
    """What a script says of itself."""

    directives: tuple[Directive, ...]
    late: tuple[Directive, ...] = ()
    """Those behind the first command, which mean nothing."""


def read_header(text: str, *, source: str) -> Header:
    """The directives of a script. ``source``: its name, for messages. Raises ``InvalidInput``
    naming file and line."""
    found: list[Directive] = []
    late: list[Directive] = []
    begun = False
    for number, line in enumerate(text.split("\n"), start=1):
        if match := _DIRECTIVE.fullmatch(line.rstrip("\r")):
            dialect = Dialect(match[1])
            if begun:
                late.append(Directive(number, dialect, ()))
                continue
            try:
                words = split_words(match[2])
            except ValueError as wrong:
                raise InvalidInput(f"{source}:{number}: {wrong}", line=number) from None
            found.append(Directive(number, dialect, words))
        elif line.strip() and not line.startswith("#"):
            begun = True
    return Header(tuple(found), tuple(late))


def split_words(text: str) -> tuple[str, ...]:
    """Words as a shell reads them, quotes and backslashes included, up to a comment; nothing is
    expanded. Raises ``ValueError``, in words, for a quote that is not closed."""
    words: list[str] = []
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        if text[at] == "#":
            break
        match = _WORD.match(text, at)
        rest = text[match.end() :] if match else text[at:]
        if match is None or (rest and not rest[0].isspace()):
            raise ValueError(f"a quote is not closed: {text.strip()}")
        words += shlex.split(match[0])
        at = match.end()
    return tuple(words)
