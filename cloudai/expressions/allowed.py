"""What an expression may use: functions, filters, tests. Each measures its result before it
makes it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

from jinja2.runtime import Undefined

from cloudai.core.wording import shown

from .plain import (
    MOST_ITEMS,
    Refused,
    as_text,
    check_size,
    checked,
    message,
    named,
    numbers,
    plain,
    weigh,
)

WIDEST = 1_000
"""Characters to which ``format`` pads."""


def _range(*bounds: object) -> list[int]:
    ends = [bound for bound in bounds if type(bound) is int]
    if not 1 <= len(ends) == len(bounds) <= 3:
        raise Refused("range takes one to three whole numbers: range(5), range(1, 6)")
    wanted = range(*ends)
    # len() of a range beyond 2**63 raises; its ends tell the same.
    if wanted and abs(wanted[-1] - wanted[0]) // abs(wanted.step) >= MOST_ITEMS:
        raise Refused(f"range of more than {MOST_ITEMS} numbers")
    return list(wanted)


def _join(values: object, between: object = "") -> str:
    parts = [as_text(item) for item in _listed(values)]
    separator = as_text(between)
    check_size(sum(len(part) for part in parts) + len(separator) * len(parts))
    return separator.join(parts)


def _listed(value: object) -> list[Any]:
    if isinstance(value, str | list | tuple | range | Mapping):
        return list(value)
    raise Refused(f"a list is needed, not {named(value)}")


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise Refused(f"text is needed, not {named(value)}; `| string` makes one of it")
    return value


def _replace(value: object, old: object, new: object) -> str:
    text, gone, put = _text(value), _text(old), _text(new)
    check_size(len(text) + text.count(gone) * len(put))
    return text.replace(gone, put)


def _int(value: object) -> int:
    if isinstance(value, str) and not re.fullmatch(r"\s*[+-]?[0-9]{1,300}\s*", value):
        raise Refused(f"{shown(value)} is not a whole number")
    if not isinstance(value, str | int | float):
        raise Refused(f"a number is needed, not {named(value)}")
    return int(value)


def _float(value: object) -> float:
    if not isinstance(value, str | int | float) or (isinstance(value, str) and len(value) > 300):
        raise Refused(f"a number is needed, not {named(value)}")
    return float(value)


def _round(value: object, digits: object = 0) -> int | float:
    if not isinstance(value, int | float) or type(digits) is not int:
        raise Refused(f"a number is needed, not {named(value)}")
    return round(value, digits) if digits else round(value)


def format_text(value: object, *given: object) -> str:
    """As Python's ``%``, of texts and numbers, padded to a bounded width."""
    pattern = _text(value)
    for width in re.findall(r"[0-9]+", pattern):
        if len(width) > 4 or int(width) > WIDEST:
            raise Refused(f"format pads to at most {WIDEST} characters")
    if "*" in pattern or "%(" in pattern:
        raise Refused("format knows no * and no names; write the width: '%03d'")
    for one in given:
        if not isinstance(one, str | int | float):
            raise Refused(f"format takes text and numbers, not {named(one)}")
    widest = WIDEST + max((weigh(one) for one in given), default=0)
    check_size(len(pattern) + pattern.count("%") * widest)
    return pattern % given


def _sum(values: object) -> object:
    items = _listed(values)
    if not numbers(*items):
        raise Refused("sum adds numbers")
    return sum(items)


def default(value: object, instead: object = "", empty_too: object = False) -> object:
    return instead if isinstance(value, Undefined) or (empty_too and not value) else value


def _unique(values: object) -> list[Any]:
    found: list[Any] = []
    seen: set[str] = set()
    for item in _listed(values):
        mark = json.dumps(plain(item), sort_keys=True)
        if mark not in seen:
            seen.add(mark)
            found.append(item)
    return found


FILTERS: dict[str, Callable[..., object]] = {
    "abs": lambda value: abs(value),
    "capitalize": lambda value: _text(value).capitalize(),
    "count": lambda value: len(_listed(value)),
    "first": lambda value: _listed(value)[0],
    "float": _float,
    "format": format_text,
    "int": _int,
    "join": _join,
    "last": lambda value: _listed(value)[-1],
    "length": lambda value: len(_listed(value)),
    "list": _listed,
    "lower": lambda value: _text(value).lower(),
    "max": lambda value: max(_listed(value)),
    "min": lambda value: min(_listed(value)),
    "replace": _replace,
    "reverse": lambda value: value[::-1] if isinstance(value, str) else _listed(value)[::-1],
    "round": _round,
    "sort": lambda value: sorted(_listed(value)),
    "split": lambda value, at=None: _text(value).split(at),
    "string": lambda value: as_text(value),
    "sum": _sum,
    "title": lambda value: _text(value).title(),
    "tojson": lambda value: json.dumps(plain(value), ensure_ascii=False),
    "trim": lambda value: _text(value).strip(),
    "unique": _unique,
    "upper": lambda value: _text(value).upper(),
}
"""Besides ``default`` (``d``), which alone may meet a name that is not there."""
FUNCTIONS: dict[str, Callable[..., object]] = {"range": _range}
TESTS = (
    *("boolean", "defined", "divisibleby", "even", "false", "float", "in", "integer", "mapping"),
    *("none", "number", "odd", "sequence", "string", "true", "undefined"),
    *("eq", "equalto", "ge", "gt", "le", "lt", "ne", "==", "!=", ">", ">=", "<", "<="),
)


def bounded(own: Callable[..., object]) -> Callable[..., object]:
    """The filter, with its input known and its result measured."""

    @wraps(own)
    def filtered(*values: object, **named: object) -> object:
        for value in (*values, *named.values()):
            if isinstance(value, Undefined):
                raise Refused(message(value))
            check_size(weigh(value))
        return checked(own(*values, **named))

    return filtered
