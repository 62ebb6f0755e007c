"""Expressions about workers: what ``--require``, ``--avoid`` and ``--node`` say. Pure.

::

    zone=lab       some value of zone is lab       zone in (lab, attic)   some is one of these
    zone!=lab      none is, or there is no zone    memory>=64             some is a number of 64
    zone           there is one                                           or more; also <= > <
    !zone          there is none

They are asked of a worker's facts: its labels, and ``worker``, ``pool`` (its groups),
``gpu_model``, ``gpus``, ``cpus`` and ``memory`` (GiB). A fact may have several values, or none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal

from .errors import InvalidInput
from .names import check_worker_id
from .wording import shown

Facts = Mapping[str, tuple[str, ...]]
"""What is so of a worker: each fact with its values."""

LONGEST = 1024
"""Characters of one expression."""
LONGEST_VALUE = 255
MOST_VALUES = 64
RIGHT = (
    "give an expression such as zone=lab, zone!=lab, zone, !zone, 'zone in (lab, attic)' or"
    " memory>=64"
)

_KEY = r"[A-Za-z0-9][A-Za-z0-9._/-]{0,62}"
_WORD = re.compile(rf"(!)?\s*({_KEY})")
_IN = re.compile(rf"({_KEY})\s+in\s*\(([^()]*)\)", re.IGNORECASE)
_COMPARED = re.compile(rf"({_KEY})\s*(>=|<=|!=|==|=|>|<)\s*(.*)", re.DOTALL)
_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,30}\.?[0-9]{0,30}|\.[0-9]{1,30})")
_NUMERIC = {">=", "<=", ">", "<"}


@dataclass(frozen=True, slots=True)
class Expression:
    """One condition on a worker. ``str()`` of it is canonical: equal ones are written alike."""

    key: str
    operator: str
    """``has``, ``!``, ``=``, ``!=``, ``in``, ``>=``, ``<=``, ``>`` or ``<``."""
    values: tuple[str, ...] = ()

    def meets(self, facts: Facts) -> bool:
        """Whether a worker of these facts meets it."""
        found = facts.get(self.key, ())
        match self.operator:
            case "has":
                return bool(found)
            case "!":
                return not found
            case "=" | "in":
                return any(value in self.values for value in found)
            case "!=":
                return not any(value in self.values for value in found)
            case _:
                return any(self._compares(value) for value in found)

    def _compares(self, value: str) -> bool:
        if not _NUMBER.fullmatch(value):
            return False
        left, right = Decimal(value), Decimal(self.values[0])
        match self.operator:
            case ">=":
                return left >= right
            case "<=":
                return left <= right
            case ">":
                return left > right
            case _:
                return left < right

    def __str__(self) -> str:
        match self.operator:
            case "has":
                return self.key
            case "!":
                return f"!{self.key}"
            case "in":
                return f"{self.key} in ({', '.join(self.values)})"
            case _:
                return f"{self.key}{self.operator}{self.values[0]}"


def parse(text: str, *, what: str = "expression") -> Expression:
    """The expression that a text says. Raises ``InvalidInput`` naming ``what``."""
    given = text.strip()
    if not given or len(given) > LONGEST or not given.isprintable():
        raise _refuse(what, text, RIGHT)
    if listed := _IN.fullmatch(given):
        return _one_of(listed[1], listed[2], what=what, text=text)
    if compared := _COMPARED.fullmatch(given):
        return _compared(*compared.groups(), what=what, text=text)
    if word := _WORD.fullmatch(given):
        return Expression(word[2], "!" if word[1] else "has")
    raise _refuse(what, text, RIGHT)


def parse_node(text: str, *, what: str = "nodes") -> tuple[Expression, ...]:
    """What ``--node`` names, as expressions of which a worker must meet one: a bare word is a
    worker's id or a pool's name, anything with an operator an expression. Raises
    ``InvalidInput``."""
    word = text.strip()
    if not re.search(r"[=<>!()\s]", word):
        check_worker_id(word, what=what)
        return Expression("worker", "=", (word,)), Expression("pool", "=", (word,))
    found = parse(word, what=what)
    if found.operator not in ("=", "in"):
        raise _refuse(
            what, text, "give a worker's id, a pool's name, or label=value; --require takes more"
        )
    return (found,)


def node_of(text: str, *, what: str = "nodes") -> str:
    """What ``--node`` names in its canonical form. Raises ``InvalidInput``."""
    found = parse_node(text, what=what)
    return str(found[0]) if len(found) == 1 else text.strip()


def meets_any(nodes: Iterable[str], facts: Facts) -> bool:
    """Whether a worker is one of the nodes that a task names (``TaskSpec.nodes``)."""
    return any(one.meets(facts) for text in nodes for one in parse_node(text))


def _one_of(key: str, inside: str, *, what: str, text: str) -> Expression:
    values = tuple(dict.fromkeys(value.strip() for value in inside.split(",")))
    if not all(_is_value(value) for value in values) or len(values) > MOST_VALUES:
        raise _refuse(what, text, f"give 1 to {MOST_VALUES} values, such as zone in (lab, attic)")
    if len(values) == 1:
        return Expression(key, "=", values)
    return Expression(key, "in", tuple(sorted(values)))


def _compared(key: str, operator: str, value: str, *, what: str, text: str) -> Expression:
    operator = "=" if operator == "==" else operator
    if not _is_value(value):
        raise _refuse(what, text, RIGHT)
    if operator in _NUMERIC and not _NUMBER.fullmatch(value):
        raise _refuse(what, text, f"'{operator}' compares numbers, such as memory>=64")
    return Expression(key, operator, (value,))


def _is_value(text: str) -> bool:
    return 0 < len(text) <= LONGEST_VALUE and text[0] not in "=<>!"


def _refuse(what: str, text: str, right: str) -> InvalidInput:
    return InvalidInput(f"{what}: {shown(text)} cannot be meant; {right}", field=what)
