"""What is made of batch files on the way to tasks, and the mistakes that are found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cloudai.core.arrays import Elements
from cloudai.core.model import TaskSpec
from cloudai.core.problems import FileInvalid, Place, Problems
from cloudai.core.request import Expand

from .document import Document, Path


@dataclass(frozen=True, slots=True)
class File:
    """A batch file as it was sent."""

    name: str
    text: str
    format: str


@dataclass(slots=True)
class Entry:
    """One entry of a file, and the tasks that came of it."""

    id: str
    file: Document
    path: Path
    written: Mapping[str, Any]
    defaults: Mapping[str, Any]
    values: Mapping[str, Any]
    tasks: list[Planned] = field(default_factory=list)

    def place(self, word: str) -> Place:
        """Where it says that, or where the file's defaults do."""
        if word in self.written or word not in self.defaults:
            return self.file.place((*self.path, word))
        return self.file.place(("defaults", word))


@dataclass(slots=True)
class Planned:
    """A task that a batch will have. An array is one of these until it is spread out."""

    id: str
    spec: TaskSpec
    env: Mapping[str, str]
    begin: datetime | None
    entry: Entry
    elements: Elements | None = None
    """Of an array that is not spread out yet."""
    after: list[tuple[str, str]] = field(default_factory=list)
    """(reference as written, how), until they are linked."""
    needs: tuple[str, ...] = ()
    """Linked."""

    @property
    def name(self) -> str | None:
        return self.spec.name


@dataclass(frozen=True, slots=True)
class Asked:
    """What was said beside the files."""

    settings: Mapping[str, str]
    """``--set``."""
    now: datetime
    """With the zone in which ``date`` and ``time`` are meant."""
    user: str
    batch_id: str
    new_id: Callable[[str], str]
    """An id of that kind that nothing has yet."""
    expand: Expand | None = None
    """Knows the task types."""


@dataclass(frozen=True, slots=True)
class Read:
    """The files, read whole."""

    name: str | None
    user: str
    once_key: str | None
    tasks: list[Planned]
    entries: list[Entry]


class Mistakes:
    """Gathers what is wrong in all files of a batch."""

    def __init__(self) -> None:
        self.of: dict[str, Problems] = {}

    def add(self, file: str, place: Place, text: str) -> None:
        self.of.setdefault(file, Problems(file)).add(place, text)

    def settle(self) -> None:
        """Raises ``FileInvalid`` if anything was found."""
        found = [(name, problem) for name, one in self.of.items() for problem in sorted(one.found)]
        if found:
            raise FileInvalid.of_files(found)
