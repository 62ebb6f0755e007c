"""What must have ended before a task may start: ``--after``. Pure.

A need names a task, or a set of tasks (an array, an entry of a batch, a whole batch), and how
it must have ended. Ids in a spec are whole; what people type is looked up when the task is
submitted. Of a set:

- ``ok``: all of it completed;
- ``any``: all of it has ended, however;
- ``failed``: all of it has ended, and at least one failed or was cancelled.

A task that was left out (``OnUnmet.SKIP``) is neither ok nor failed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from .errors import InvalidInput
from .model import TaskSpec
from .wording import did_you_mean, shown

MOST_NEEDS = 1000
LONGEST_REF = 200
"""Characters of what a need names: a batch's id and the id of one of its entries."""
EACH = "[*]"
"""Behind a reference to an array: the element that has the index of the one that needs it."""

_REF = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9._-]*(?:/[A-Za-z0-9][A-Za-z0-9._-]*)?(?:\[(?:[0-9]{1,9}|\*)\])?"
)
_ELEMENT = re.compile(r"(?P<array>.+?)(?:\[(?P<index>[0-9]{1,9})\])")


class How(StrEnum):
    """How what is needed must have ended."""

    OK = "ok"
    FAILED = "failed"
    ANY = "any"


@dataclass(frozen=True, slots=True)
class Need:
    """One task or set of tasks, and how it must have ended."""

    ref: str
    how: How = How.OK

    def __str__(self) -> str:
        return f"{self.ref}:{self.how}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """How the tasks of one reference stand."""

    total: int = 0
    ended: int = 0
    completed: int = 0
    skipped: int = 0
    bad: str = ""
    """One that failed, was cancelled or left out, and how, for people."""

    @property
    def failed(self) -> int:
        """Failed, or cancelled by somebody."""
        return self.ended - self.completed - self.skipped


@dataclass(frozen=True, slots=True)
class Waits:
    """Not yet, and why."""

    why: str


@dataclass(frozen=True, slots=True)
class Unmeetable:
    """Never, and why."""

    why: str


def parse_need(text: str, *, what: str = "after") -> Need:
    """``REF`` or ``REF:ok|failed|any``. Raises ``InvalidInput``."""
    ref, colon, word = text.strip().partition(":")
    if len(ref) > LONGEST_REF or not _REF.fullmatch(ref):
        raise InvalidInput(
            f"{what}: {shown(text)}; give a task's id or name, an array's or a batch's id, and"
            " how it must have ended, as in task-…:ok",
            field=what,
        )
    try:
        return Need(ref, How(word.strip().lower()) if colon else How.OK)
    except ValueError:
        hint = did_you_mean(word.strip().lower(), [str(one) for one in How])
        raise InvalidInput(f"{what}: {shown(text)}; {hint}", field=what) from None


def check_after(value: object, *, what: str = "after") -> tuple[str, ...]:
    """Needs in their canonical form: a list, one text (with commas), or an object of reference
    and how. Raises ``InvalidInput``."""
    items: list[object]
    match value:
        case str():
            items = [part for part in value.split(",") if part.strip()]
        case Mapping():
            items = [f"{ref}:{how}" for ref, how in value.items()]
        case list() | tuple():
            items = list(value)
        case _:
            items = []
    if not items or len(items) > MOST_NEEDS:
        raise InvalidInput(
            f"{what}: {shown(value)}; give 1 to {MOST_NEEDS} needs, such as task-…:ok", field=what
        )
    for item in items:
        if not isinstance(item, str):
            raise InvalidInput(f"{what}: {shown(item)}; give text such as task-…:ok", field=what)
    return tuple(dict.fromkeys(str(parse_need(str(item), what=what)) for item in items))


def needs_of(spec: TaskSpec) -> tuple[Need, ...]:
    """What its spec says, parsed."""
    return tuple(parse_need(text) for text in spec.after)


def with_needs(spec: TaskSpec, needs: Sequence[Need]) -> TaskSpec:
    """The same task with these needs."""
    return replace(spec, after=tuple(dict.fromkeys(str(need) for need in needs)))


def plain_id(ref: str) -> str:
    """``task-…[7]`` as ids are written: ``task-…_7``."""
    element = _ELEMENT.fullmatch(ref)
    return f"{element['array']}_{element['index']}" if element else ref


def split_element(ref: str) -> tuple[str, int | None]:
    """``train[7]``: the name, and the index where one is given."""
    element = _ELEMENT.fullmatch(ref)
    return (element["array"], int(element["index"])) if element else (ref, None)


def weigh(spec: TaskSpec, tallies: Mapping[str, Tally]) -> Waits | Unmeetable | None:
    """What keeps a task from starting; ``None``: nothing does. ``tallies``: of each reference
    that its needs name. What can never be met outweighs what may yet be."""
    waits: list[str] = []
    for need in needs_of(spec):
        match _weigh(need, tallies.get(need.ref, Tally())):
            case Unmeetable() as never:
                return never
            case Waits(why=why):
                waits.append(why)
    return Waits(f"after {', '.join(waits)}") if waits else None


def _weigh(need: Need, tally: Tally) -> Waits | Unmeetable | None:
    if tally.total == 0:
        return Unmeetable(f"{need.ref} is not known any more")
    going = tally.total - tally.ended
    some = f"{need.ref} ({tally.ended} of {tally.total} ended)" if tally.total > 1 else need.ref
    match need.how:
        case How.OK if tally.ended > tally.completed:
            return Unmeetable(f"it needs {need.ref} to end well, and {tally.bad}")
        case How.FAILED if not going and not tally.failed:
            left_out = " or were left out" if tally.skipped else ""
            return Unmeetable(
                f"it needs a failure of {need.ref}, and "
                + (f"all {tally.total} completed{left_out}" if tally.total > 1 else "it did not")
            )
        case _ if going:
            return Waits(some)
        case _:
            return None
