"""What a task may ask of the scheduler, checked: the fields of a request beyond what to run.

Each check answers the value as ``TaskSpec`` has it, or raises ``InvalidInput`` naming the field,
what was given and what would be right.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from . import labels
from .errors import InvalidInput
from .model import HIGHEST_PRIORITY, PRIORITIES, Cause, Placement, Strategy
from .names import LONGEST
from .wording import did_you_mean, shown

MOST_ITEMS = 32
"""Expressions, nodes or tasks of one field."""
MOST_RETRIES = 100

_MODEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._-]*[A-Za-z0-9])?")
_TASK = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def _refuse(what: str, value: object, right: str) -> InvalidInput:
    return InvalidInput(f"{what}: {shown(value)}; {right}", field=what)


def whole_number(value: object, *, what: str, most: int, right: str) -> int:
    """A whole number from 0 to ``most``, as a JSON number or as text."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value.strip()):
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise _refuse(what, value, right)
    return value


def check_priority(value: object, *, what: str = "priority") -> int:
    """0 to 100, or a word for one."""
    if isinstance(value, str) and (word := value.strip().lower()) in PRIORITIES:
        return PRIORITIES[word]
    right = f"give {', '.join(PRIORITIES)}, or a whole number from 0 to {HIGHEST_PRIORITY}"
    return whole_number(value, what=what, most=HIGHEST_PRIORITY, right=right)


def check_strategy(text: str, *, what: str = "strategy") -> Strategy:
    """By its name, in any case, with ``-`` or ``_``."""
    word = text.strip().lower().replace("-", "_")
    try:
        return Strategy(word)
    except ValueError:
        raise _refuse(what, text, did_you_mean(word, [str(one) for one in Strategy])) from None


def check_placement(text: str, *, what: str = "placement") -> Placement:
    """By its name, in any case, with ``-`` or ``_``."""
    word = text.strip().lower().replace("-", "_")
    try:
        return Placement(word)
    except ValueError:
        raise _refuse(what, text, did_you_mean(word, [str(one) for one in Placement])) from None


def check_gpu_model(text: str, *, what: str = "gpu_model") -> str:
    """Part of a GPU model's name."""
    model = text.strip()
    if len(model) > LONGEST or not _MODEL.fullmatch(model):
        raise _refuse(
            what, text, "give part of the model's name: letters, digits, ' ', '.', '_' and '-'"
        )
    return model


def check_retries(value: object, *, what: str = "retries") -> int:
    """0 to 100."""
    right = f"give a whole number from 0 to {MOST_RETRIES}"
    return whole_number(value, what=what, most=MOST_RETRIES, right=right)


def check_flag(value: object, *, what: str) -> bool:
    """``true`` or ``false``."""
    if not isinstance(value, bool):
        raise _refuse(what, value, "give true or false")
    return value


def check_retry_on(value: object, *, what: str = "retry_on") -> tuple[str, ...]:
    """Causes and exit codes: a list, or text with commas. An empty one: any cause."""
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list | tuple) or len(items) > MOST_ITEMS:
        raise _refuse(what, value, f"give a list of at most {MOST_ITEMS} causes or exit codes")
    return tuple(dict.fromkeys(_cause(item, what=what) for item in items))


def _cause(item: object, *, what: str) -> str:
    word = str(item).strip().lower() if isinstance(item, str | int) else ""
    if isinstance(item, bool):
        word = ""
    if word in {str(cause) for cause in Cause}:
        return word
    if re.fullmatch(r"[0-9]{1,3}", word) and 1 <= int(word) <= 255:
        return str(int(word))
    causes = ", ".join(Cause)
    raise _refuse(what, item, f"give causes ({causes}) or exit codes from 1 to 255")


def check_each(
    value: object, check: Callable[..., str], *, what: str, right: str
) -> tuple[str, ...]:
    """A list, or one text alone, each item checked; the same one counts once."""
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list | tuple) or len(items) > MOST_ITEMS:
        raise _refuse(what, value, f"give a list of at most {MOST_ITEMS}: {right}")
    for item in items:
        if not isinstance(item, str):
            raise _refuse(what, item, f"give {right}")
    return tuple(dict.fromkeys(check(item, what=what) for item in items))


def check_expression(text: str, *, what: str) -> str:
    """An expression in its canonical form."""
    return str(labels.parse(text, what=what))


def check_task_reference(text: str, *, what: str) -> str:
    """A task's id or name; whether there is one is the scheduler's to find out."""
    word = text.strip()
    if len(word) > LONGEST or not _TASK.fullmatch(word):
        raise _refuse(what, text, "give a task's id or name")
    return word
