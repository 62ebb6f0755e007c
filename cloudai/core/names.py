"""Names that people give: workers, tasks, users. Each check answers the name or raises
``InvalidInput`` naming ``what`` it was for and what would be right."""

from __future__ import annotations

import re

from .errors import InvalidInput
from .wording import shown

LONGEST = 63
TASK_PREFIX = "task-"
"""Ids of tasks begin so; names of other things may not."""
BATCH_PREFIX = "batch-"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_GROUP_ID = re.compile(r"group-[0-9]+-[a-z0-9]+")
_BATCH_ID = re.compile(r"batch-[0-9]+-[a-z0-9]+")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@-]*")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_RUN_AS_PART = r"(?:[0-9]{1,10}|[A-Za-z_][A-Za-z0-9._-]*\$?)"
_RUN_AS = re.compile(rf"{_RUN_AS_PART}(?::{_RUN_AS_PART})?")
_LARGEST_UID = 2**31 - 1
_OF_LETTERS = (
    f"give letters, digits, '.', '_' and '-', a letter or digit first, at most {LONGEST} characters"
)


def _refuse(what: str, text: str, why: str, right: str, *, hint: str = "") -> InvalidInput:
    return InvalidInput(f"{what}: {shown(text)} {why}; {right}", hint=hint, field=what)


def _check(text: str, pattern: re.Pattern[str], *, what: str, right: str) -> str:
    if not text:
        raise _refuse(what, text, "is empty", right)
    if len(text) > LONGEST:
        raise _refuse(what, text, "is too long", right)
    if not pattern.fullmatch(text):
        raise _refuse(what, text, "has characters it cannot have", right)
    return text


def _not_an_id(text: str, what: str) -> str:
    if text.startswith(TASK_PREFIX) or text == TASK_PREFIX[:-1]:
        raise _refuse(what, text, "looks like a task's id", "begin it with another word")
    return text


def is_group_id(text: str) -> bool:
    """Whether it can only be the id of a placement group: no task's id or name is like it."""
    return _GROUP_ID.fullmatch(text) is not None


def is_batch_id(text: str) -> bool:
    """Whether it can only be the id of a batch."""
    return _BATCH_ID.fullmatch(text) is not None


def check_worker_id(text: str, *, what: str = "worker") -> str:
    """A worker's id: letters, digits, ``.``, ``_``, ``-``; at most 63; no ``task-`` in front."""
    return _not_an_id(_check(text, _NAME, what=what, right=_OF_LETTERS), what)


def check_task_name(text: str, *, what: str = "name") -> str:
    """A task's ``--name``: as a worker's id, and not like the id of a placement group or
    of a batch."""
    if is_group_id(text) or text.startswith(BATCH_PREFIX):
        kind = "group" if is_group_id(text) else "batch"
        raise _refuse(what, text, f"looks like a {kind}'s id", "begin it with another word")
    return _not_an_id(_check(text, _NAME, what=what, right=_OF_LETTERS), what)


def check_entry_id(text: str, *, what: str = "id") -> str:
    """What the entries of a batch are called in it: as a worker's id."""
    return _check(text, _NAME, what=what, right=_OF_LETTERS)


def check_task_type(text: str, *, what: str = "task_type") -> str:
    """The name of a template: letters, digits, ``.``, ``_``, ``-``; at most 63."""
    return _check(text, _NAME, what=what, right=_OF_LETTERS)


def check_user(text: str, *, what: str = "user_id") -> str:
    """Whose task it is: a person's name, ``@`` allowed; not a number, not ``uid:gid``."""
    if re.fullmatch(r"[0-9]+(:.*)?", text) or ":" in text:
        raise _refuse(
            what,
            text,
            "is not a person's name",
            "it says whose task it is, such as ann",
            hint="`--run-as UID[:GID]` (run_as) sets the user inside the container",
        )
    right = f"give letters, digits, '.', '_', '@' and '-', at most {LONGEST} characters"
    return _check(text, _USER, what=what, right=right)


def check_run_as(text: str, *, what: str = "run_as") -> str:
    """The user inside the container: ``uid[:gid]``, in numbers or names."""
    right = "give uid or uid:gid, in numbers or names, such as 1000:1000"
    _check(text, _RUN_AS, what=what, right=right)
    for part in text.split(":"):
        if part.isdecimal() and int(part) > _LARGEST_UID:
            raise _refuse(what, text, f"is beyond {_LARGEST_UID}", right)
    return text


def check_env_name(text: str, *, what: str = "env") -> str:
    """The name of an environment variable: letters, digits and ``_``, no digit first."""
    if len(text) > 255 or not _ENV_NAME.fullmatch(text):
        raise _refuse(
            what,
            text,
            "is not the name of a variable",
            "give letters, digits and '_', no digit first, at most 255 characters",
        )
    return text
