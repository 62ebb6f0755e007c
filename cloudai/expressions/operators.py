"""Operators, each on what it is for, its result no larger than may be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .allowed import format_text
from .plain import MOST_BITS, Refused, check_size, checked, named, numbers, weigh


def operate(operator: str, left: Any, right: Any) -> object:
    """An operator on what it is for, its result no larger than may be."""
    if operator == "%" and isinstance(left, str):
        return format_text(left, *(right if isinstance(right, tuple | list) else (right,)))
    if operator == "*" and (isinstance(left, str | list) != isinstance(right, str | list)):
        many, times = (left, right) if isinstance(left, str | list) else (right, left)
        if not isinstance(times, int):
            raise Refused(f"* of {named(many)} takes a whole number, not {named(times)}")
        check_size(weigh(many) * max(times, 0))
        return checked(many * times)
    if operator == "+" and type(left) is type(right) and isinstance(left, str | list):
        check_size(weigh(left) + weigh(right))
        return left + right
    if not numbers(left, right):
        raise Refused(f"{operator} of {named(left)} and {named(right)}")
    whole = isinstance(left, int) and isinstance(right, int)
    if operator == "**" and whole and abs(right) * left.bit_length() > MOST_BITS:
        raise Refused("a number of hundreds of digits")
    done = OPERATORS[operator](left, right)
    if not numbers(done):
        raise Refused("is not a number")
    return checked(done)


OPERATORS: dict[str, Callable[[Any, Any], object]] = {
    "+": lambda left, right: left + right,
    "-": lambda left, right: left - right,
    "*": lambda left, right: left * right,
    "/": lambda left, right: left / right,
    "//": lambda left, right: left // right,
    "%": lambda left, right: left % right,
    "**": lambda left, right: left**right,
}
