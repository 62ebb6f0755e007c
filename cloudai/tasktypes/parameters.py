"""The typed parameters of a task type: what was given, read into the values that its template's
expressions see. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cloudai.core.errors import InvalidInput
from cloudai.core.units import parse_amount, parse_duration
from cloudai.core.wording import did_you_mean, nearest, shown

Value = str | int | float | bool | None

LONGEST_PATH = 4096
_TRUE = ("true", "yes", "on", "1")
_FALSE = ("false", "no", "off", "0")


class _Wrong(Exception):
    """Why a value is none of that type: what would be right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One parameter, as the header of a template describes it."""

    name: str
    type: str
    """One of ``TYPES``."""
    help: str
    required: bool
    default: Value = None
    """What counts where none is given and none is required; ``None``: nothing."""
    choices: tuple[str, ...] = ()
    least: int | float | None = None
    most: int | float | None = None

    def read(self, given: object) -> Value:
        """The value as expressions see it: a size and a duration stay as they were written.
        Raises ``InvalidInput`` naming the parameter, what would be right and what it is for."""
        if given is None and not self.required:
            return self.default
        field = f"parameters.{self.name}"
        if given is None:
            raise InvalidInput(f"{field}: missing; {self.wanted()}: {self.help}", field=field)
        try:
            return TYPES[self.type](self, given)
        except _Wrong as wrong:
            raise InvalidInput(
                f"{field}: {shown(given)}; {wrong}: {self.help}", field=field
            ) from None

    def wanted(self) -> str:
        """What to give, in a few words."""
        match self.type:
            case "choice":
                return f"give {' or '.join(self.choices)}"
            case "int" | "float":
                kind = "a whole number" if self.type == "int" else "a number"
                return f"give {kind}{self._bounds()}"
            case _:
                return f"give {_WORDS[self.type]}"

    def _bounds(self) -> str:
        if self.least is not None and self.most is not None:
            return f" from {self.least} to {self.most}"
        if self.least is not None:
            return f", {self.least} or more"
        return "" if self.most is None else f", {self.most} or less"

    def check_bounds(self, number: float) -> None:
        low = self.least is not None and number < self.least
        if low or (self.most is not None and number > self.most):
            raise _Wrong(self.wanted())


def read_parameters(parameters: Sequence[Parameter], given: object, *, of: str) -> dict[str, Value]:
    """All values by name. ``given``: a mapping from names to values, as JSON has them or as text;
    ``of``: the task type, for messages. Raises ``InvalidInput``."""
    if given is None:
        given = {}
    if not isinstance(given, Mapping):
        raise InvalidInput(
            f'parameters: {shown(given)}; give an object such as {{"prompt": "Hello"}}',
            field="parameters",
        )
    known = {one.name: one for one in parameters}
    for name in given:
        if name not in known:
            near = nearest(str(name), known)
            raise InvalidInput(
                f"parameters.{name if str(name).isidentifier() else shown(name)}: {of} has no such"
                f" parameter; {did_you_mean(str(name), known) if known else 'it has none'}",
                hint=f"{near}: {known[near].help}" if near else "",
                field="parameters",
            )
    return {one.name: one.read(given.get(one.name)) for one in parameters}


# -------------------------------------------------------------------- one check a type


def _text(parameter: Parameter, given: object) -> str:
    if isinstance(given, bool):
        return "true" if given else "false"
    if isinstance(given, int | float):
        return repr(given)
    if not isinstance(given, str) or "\x00" in given:
        raise _Wrong(parameter.wanted())
    return given


def _int(parameter: Parameter, given: object) -> int:
    if isinstance(given, str) and re.fullmatch(r"\s*[+-]?[0-9]{1,18}\s*", given):
        given = int(given)
    if isinstance(given, float) and given.is_integer():
        given = int(given)
    if isinstance(given, bool) or not isinstance(given, int):
        raise _Wrong(parameter.wanted())
    parameter.check_bounds(given)
    return given


def _float(parameter: Parameter, given: object) -> float:
    if isinstance(given, str) and len(given) <= 64:
        try:
            given = float(given)
        except ValueError:
            raise _Wrong(parameter.wanted()) from None
    if isinstance(given, bool) or not isinstance(given, int | float) or not math.isfinite(given):
        raise _Wrong(parameter.wanted())
    parameter.check_bounds(given)
    return float(given)


def _bool(parameter: Parameter, given: object) -> bool:
    if isinstance(given, bool):
        return given
    word = str(given).strip().lower()
    if word not in (*_TRUE, *_FALSE):
        raise _Wrong(parameter.wanted())
    return word in _TRUE


def _choice(parameter: Parameter, given: object) -> str:
    word = _text(parameter, given)
    if word not in parameter.choices:
        near = nearest(word, parameter.choices)
        raise _Wrong(f"did you mean {near!r}? {parameter.wanted()}" if near else parameter.wanted())
    return word


def _path(parameter: Parameter, given: object) -> str:
    """One that can stand in a mount: a comma or a quote would say more than a path."""
    text = _text(parameter, given)
    if not text.startswith("/") or len(text) > LONGEST_PATH or not text.isprintable():
        raise _Wrong(parameter.wanted())
    if set(text) & {",", '"'}:
        raise _Wrong(f"{parameter.wanted()}, with no comma and no quote in it")
    return text


def _as_written(parse: Callable[..., object]) -> Callable[[Parameter, object], str]:
    def check(parameter: Parameter, given: object) -> str:
        try:
            parse(given, what=parameter.name)
        except InvalidInput:
            raise _Wrong(parameter.wanted()) from None
        return _text(parameter, given)

    return check


TYPES: dict[str, Callable[[Parameter, object], Value]] = {
    "text": _text,
    "int": _int,
    "float": _float,
    "bool": _bool,
    "choice": _choice,
    "size": _as_written(parse_amount),
    "duration": _as_written(parse_duration),
    "path": _path,
}
_WORDS = {
    "text": "text",
    "bool": "true or false",
    "size": "GiB such as 4, or a size such as 512m",
    "duration": "seconds, or a duration such as 90m",
    "path": "a whole path such as /data/in",
}
