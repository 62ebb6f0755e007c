"""Ids that stand for many workers: ``gpu[2:8]``, and the words their values may use."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from cloudai.core.errors import InvalidInput
from cloudai.core.wording import shown

MOST = 10_000
"""Workers of one range."""

_RANGE = re.compile(r"([^\[\]]*)\[([0-9]{1,9}):([0-9]{1,9})\]([^\[\]]*)")
_PLACEHOLDER = re.compile(r"\{(?:(id)|n(?::0([1-9]))?)\}")


@dataclass(frozen=True, slots=True)
class Range:
    """``head[first:last]tail``, both ends included; ``width`` digits where it is padded."""

    head: str
    first: int
    last: int
    tail: str
    width: int

    def id(self, number: int) -> str:
        return f"{self.head}{number:0{self.width}}{self.tail}"

    def ids(self) -> Iterator[tuple[int, str]]:
        """Each number with its worker's id."""
        return ((number, self.id(number)) for number in range(self.first, self.last + 1))

    def without(self, number: int) -> tuple[str, ...]:
        """The keys that stand for the same workers but that one."""
        parts = ((self.first, number - 1), (number + 1, self.last))
        return tuple(self._key(first, last) for first, last in parts if first <= last)

    def _key(self, first: int, last: int) -> str:
        if first == last:
            return self.id(first)
        return f"{self.head}[{first:0{self.width}}:{last:0{self.width}}]{self.tail}"


def read_range(key: str) -> Range | None:
    """The range a key stands for, ``None`` for a plain id. Raises ``InvalidInput``."""
    if "[" not in key and "]" not in key:
        return None
    found = _RANGE.fullmatch(key)
    if found is None:
        raise InvalidInput(f"{shown(key)} is not a range; give one such as gpu[2:8] or gpu[01:12]")
    head, first, last, tail = found.groups()
    padded = first.startswith("0") and len(first) > 1
    many = Range(head, int(first), int(last), tail, len(first) if padded else 0)
    if many.last < many.first:
        raise InvalidInput(f"{shown(key)} counts down; give the smaller number first")
    if many.last - many.first >= MOST:
        raise InvalidInput(f"{shown(key)} is more than {MOST} workers")
    return many


def has_placeholder(text: str) -> bool:
    """Whether the text says ``{n}``, ``{n:02}`` or ``{id}``."""
    return _PLACEHOLDER.search(text) is not None


def fill(text: str, *, worker_id: str, number: int | None) -> str:
    """The text for one worker: ``{n}`` its number, ``{n:03}`` padded, ``{id}`` its id.

    Raises ``InvalidInput`` for ``{n}`` outside a range.
    """

    def value(found: re.Match[str]) -> str:
        if found[1]:
            return worker_id
        if number is None:
            raise InvalidInput(f"{shown(text)} uses {{n}}, and only ranges have a number")
        return f"{number:0{found[2] or 0}}"

    return _PLACEHOLDER.sub(value, text)
