"""Worker scripts: templates in, shell text out, every value quoted. The only home of jinja2's
shell side: shell text lives in ``templates/worker/*.sh.j2`` and nowhere else.

A value is quoted by the environment itself (``finalize``), so quoting cannot be forgotten:
``{{ x }}`` is always one whole shell word (a list: several words). Inside quotes or a heredoc
that would break, so templates may not do it; a test reads them all (facts, 33).
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

PACKAGED = Path(__file__).parent / "templates" / "worker"
IN_CHECKOUT = Path(__file__).parent.parent / "templates" / "worker"

Value = (
    str
    | int
    | list[str]
    | tuple[str, ...]
    | Sequence[tuple[str | int | list[str], ...]]
    | Mapping[str, int]
)
"""What a template may be given: words, rows of words to go through, and numbers by name."""


def _word(value: object) -> str:
    if isinstance(value, bool) or value is None:
        raise TypeError(f"a script value must say what it means in text, not {value!r}")
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        if "\x00" in value:
            raise ValueError("a NUL byte cannot be part of a shell word")
        return shlex.quote(value)
    if isinstance(value, list | tuple):
        return " ".join(_word(item) for item in value)
    raise TypeError(f"cannot put a {type(value).__name__} into a script")


def folder() -> Path:
    """Where the worker scripts are: inside the installed package, or in the checkout."""
    return PACKAGED if PACKAGED.is_dir() else IN_CHECKOUT


@cache
def _environment() -> jinja2.Environment:
    return ImmutableSandboxedEnvironment(
        loader=jinja2.FileSystemLoader(folder()),
        undefined=jinja2.StrictUndefined,
        finalize=_word,
        autoescape=False,  # shell text, quoted by finalize; HTML rules would corrupt it
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(name: str, /, **values: Value) -> str:
    """The shell text of ``templates/worker/NAME.sh.j2`` with its values quoted in.

    Raises ``jinja2.UndefinedError`` for a missing value, ``TypeError`` or ``ValueError`` for
    one that cannot be a shell word: all are mistakes of ours, never of a user.
    """
    return _environment().get_template(f"{name}.sh.j2").render(values)
