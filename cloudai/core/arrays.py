"""Arrays: one task many times, each with an index. ``--array 0-99%10``, as Slurm writes it.

An element's id is the array's, ``_`` and its index: a word that any shell leaves alone.
``task-…[7]`` means the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from .errors import InvalidInput
from .model import TaskSpec, altered
from .wording import shown

MOST_ELEMENTS = 100_000
LARGEST_INDEX = 1_000_000_000

INDEX = "CLOUDAI_ARRAY_INDEX"
"""The variable that tells a task its index; ``CLOUDAI_ARRAY_SIZE`` and ``CLOUDAI_ARRAY_ID``
stand beside it."""

_PART = re.compile(r"([0-9]{1,10})(?:-([0-9]{1,10})(?::([0-9]{1,10}))?)?")
_RIGHT = "give indexes such as 0-99, 1,3,5-7 or 0-15:4, and %N for at most N at once"


@dataclass(frozen=True, slots=True)
class Elements:
    """Which indexes, in the order given, and how many of them may hold a place at once."""

    indexes: tuple[int, ...]
    limit: int | None = None


def parse_array(value: object, *, what: str = "array") -> Elements:
    """``0-99%10``, ``1,3,5-7``, ``0-15:4``; a number N is the one index N. Raises
    ``InvalidInput``."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or len(value) > 100_000:
        raise _refuse(what, value)
    listed, percent, limit = value.replace(" ", "").partition("%")
    if percent and not re.fullmatch(r"[1-9][0-9]{0,8}", limit):
        raise _refuse(what, value)
    indexes: dict[int, None] = {}
    for part in listed.split(","):
        for index in _indexes(part, value, what):
            if index in indexes:
                raise _refuse(what, value, f"{index} stands twice")
            indexes[index] = None
            if len(indexes) > MOST_ELEMENTS:
                raise _refuse(what, value, f"at most {MOST_ELEMENTS} elements")
    return Elements(tuple(indexes), int(limit) if percent else None)


def _indexes(part: str, value: object, what: str) -> range:
    found = _PART.fullmatch(part)
    if not found:
        raise _refuse(what, value)
    first, last = int(found[1]), int(found[2] or found[1])
    step = int(found[3] or 1)
    if last < first or not step or last > LARGEST_INDEX:
        raise _refuse(what, value)
    return range(first, last + 1, step)


def _refuse(what: str, value: object, why: str = "") -> InvalidInput:
    return InvalidInput(f"{what}: {shown(value)}; {why or _RIGHT}", field=what)


def element_id(array: str, index: int) -> str:
    """The id of one element."""
    return f"{array}_{index}"


def elements_of(spec: TaskSpec, array: str, wanted: Elements) -> Iterator[TaskSpec]:
    """The specs of all elements of an array of that id."""
    for index in wanted.indexes:
        yield altered(
            spec,
            array=array,
            array_index=index,
            array_size=len(wanted.indexes),
            array_limit=wanted.limit,
        )
