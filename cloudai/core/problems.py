"""What is wrong in a file that people write, gathered so that one reading names every mend."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

from .errors import InvalidInput

MOST_SHOWN = 20


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where in the text: line and column from 1, as editors count them."""

    line: int
    column: int


NOWHERE = Place(0, 0)
"""For what is wrong with the file as a whole."""


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing that cannot be meant, and what would be right."""

    place: Place
    text: str


class FileInvalid(InvalidInput):
    """Files cannot be meant as written. One line a problem, each with its place."""

    def __init__(self, source: str, problems: list[Problem]) -> None:
        self._say([(source, problem) for problem in problems])

    @classmethod
    def of_files(cls, found: list[tuple[str, Problem]]) -> Self:
        """Of several files, each problem with its file's name."""
        error = cls("", [])
        error._say(found)
        return error

    def _say(self, found: list[tuple[str, Problem]]) -> None:
        lines = [_line(source, problem) for source, problem in found]
        if len(lines) > MOST_SHOWN:
            lines[MOST_SHOWN:] = [f"{found[-1][0]}: and {len(lines) - MOST_SHOWN} more of the kind"]
        super().__init__(
            "\n".join(lines),
            problems=[
                {"file": source, "line": at.place.line, "column": at.place.column, "text": at.text}
                for source, at in found[:MOST_SHOWN]
            ],
        )


def _line(source: str, problem: Problem) -> str:
    if problem.place == NOWHERE:
        return f"{source}: {problem.text}"
    return f"{source}:{problem.place.line}:{problem.place.column}: {problem.text}"


@dataclass(slots=True)
class Problems:
    """Gathers problems while reading goes on; the same one at the same place counts once."""

    source: str
    found: dict[Problem, None] = field(default_factory=dict)

    def add(self, place: Place, text: str) -> None:
        self.found[Problem(place, text)] = None

    def stop(self, place: Place, text: str) -> FileInvalid:
        """The error for a problem behind which nothing can be read; raise it."""
        self.add(place, text)
        return self.error()

    def error(self) -> FileInvalid:
        return FileInvalid(self.source, sorted(self.found))

    def settle(self) -> None:
        """Raises ``FileInvalid`` if anything was found."""
        if self.found:
            raise self.error()
