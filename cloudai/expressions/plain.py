"""Plain data: what goes into an expression and comes out of it, and how large it may be."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from jinja2.runtime import Undefined

from cloudai.core.wording import did_you_mean, shown

MOST_TEXT = 256 * 1024
"""Characters of a result, everything in it counted."""
MOST_ITEMS = 10_000
"""Values of a list, those in it counted."""
MOST_BITS = 1_024
"""Of a whole number."""

Plain = str | int | float | bool | None | list[Any] | dict[str, Any]


class Refused(Exception):
    """Why an expression cannot be meant, and in which line of its text."""

    def __init__(self, why: str, line: int | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.line = line


def plain(value: object) -> Plain:
    """The value if it is plain data, ranges and tuples as lists. Raises ``Refused``."""
    match value:
        case Undefined():
            raise Refused(message(value))
        case None | bool() | str():
            return value
        case int():
            return _whole(value)
        case float():
            if not math.isfinite(value):
                raise Refused(f"{value} is not a number")
            return value
        case list() | tuple() | range():
            check_size(weigh(value))
            return [plain(item) for item in value]
        case Mapping():
            check_size(weigh(value))
            return {_key(key): plain(item) for key, item in value.items()}
    raise Refused(f"a {type(value).__name__} is no value")


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise Refused(f"a key must be text, not {shown(key)}")
    return key


def _whole(value: int) -> int:
    if value.bit_length() > MOST_BITS:
        raise Refused("a number of hundreds of digits")
    return value


def as_text(value: object) -> str:
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int():
            return str(_whole(value))
        case float():
            return repr(value)
        case None:
            raise Refused("null cannot be a part of text; `| default('…', true)` says what to put")
        case Undefined():
            raise Refused(message(value))
        case list() | tuple() | range():
            raise Refused("a list cannot be a part of text; `| join(' ')` makes one of it")
        case Mapping():
            raise Refused("a mapping cannot be a part of text; `| tojson` makes one of it")
    raise Refused(f"a {type(value).__name__} is no value")


def weigh(value: object) -> int:
    """Characters of a value, at least one each; counting stops where it is too much."""
    weight = 0
    waiting: list[Iterator[object]] = [iter((value,))]
    items = 0
    while waiting and weight <= MOST_TEXT:
        for one in waiting[-1]:
            items += 1
            if items > MOST_ITEMS:
                return MOST_TEXT + 1
            weight += len(one) + 1 if isinstance(one, str) else 1
            if isinstance(one, Mapping):
                weight += sum(len(key) for key in one if isinstance(key, str))
                waiting.append(iter(one.values()))
                break
            if isinstance(one, list | tuple | range):
                waiting.append(iter(one))
                break
            if weight > MOST_TEXT:
                break
        else:
            waiting.pop()
    return weight


def check_size(weight: int) -> None:
    if weight > MOST_TEXT:
        raise Refused(f"too much: at most {MOST_TEXT} characters and {MOST_ITEMS} values")


def checked(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        return _whole(value)
    check_size(weigh(value))
    return value


def numbers(*values: object) -> bool:
    """Whether all are (true and false count as 1 and 0)."""
    return all(isinstance(value, int | float) for value in values)


def named(value: object) -> str:
    match value:
        case Undefined():
            raise Refused(message(value))
        case bool() | None:
            return shown(value)
        case str():
            return "text"
        case int() | float():
            return "a number"
        case Mapping():
            return "a mapping"
    return "a list"


def message(value: Undefined) -> str:
    return value._undefined_message


def unknown(name: str, known: Iterable[str]) -> str:
    listed = sorted(known)
    near = did_you_mean(name, listed) if listed else "no names are known here"
    return f"unknown name {shown(name)}; {near}"
