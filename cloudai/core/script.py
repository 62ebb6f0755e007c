"""A script that a task runs in its container: its text, and who reads it. Pure.

A spec carries it as shell text that begins with ``#!``, its arguments in ``argv``; a first line
that says no more than that is ours, before a script which does not say who reads it. Text that is
given with ``-c`` and begins so is a script, too: it says itself who is to run it.
"""

from __future__ import annotations

from dataclasses import dataclass

from .errors import InvalidInput
from .model import TaskSpec
from .wording import shown

MARK = "#!"
SHELL = "/bin/sh"
"""Who reads a script that does not say."""


@dataclass(frozen=True, slots=True)
class Script:
    """A script, as it is to be run: ``interpreter [option] FILE [arguments…]``."""

    text: str
    interpreter: str
    option: str = ""
    """All that follows the interpreter on its line, as one word: so the kernel reads it."""
    arguments: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """For people: ``script of 12 lines for /bin/bash``."""
        lines = self.text.count("\n") + (not self.text.endswith("\n"))
        reader = " ".join(filter(None, (self.interpreter, self.option)))
        return f"script of {lines} line{'s' if lines != 1 else ''} for {reader}"


def script_of(spec: TaskSpec) -> Script | None:
    """The script that a task runs; ``None`` where it runs something else."""
    return None if spec.shell is None else as_script(spec.shell, spec.argv)


def as_script(shell: str, arguments: tuple[str, ...] = ()) -> Script | None:
    """The script that shell text is, if it is one."""
    if not shell.startswith(MARK):
        return None
    first, _, rest = shell.partition("\n")
    words = first.removeprefix(MARK).strip(" \t\r").split(None, 1)
    if not words:
        return Script(rest, SHELL, arguments=arguments)
    return Script(shell, words[0], "".join(words[1:]), arguments)


def check_script(text: str, *, what: str = "script") -> str:
    """The text as a spec carries it. Raises ``InvalidInput``."""
    if not text.strip():
        raise InvalidInput(f"{what}: it is empty", field=what)
    first = text.partition("\n")[0]
    if first.endswith("\r"):
        raise InvalidInput(
            f"{what}: its lines end as on DOS (CR LF), which no interpreter on Linux reads",
            hint="sed -i 's/\\r$//' FILE   mends it",
            field=what,
        )
    if not text.startswith(MARK):
        return f"{MARK}\n{text}"
    interpreter = first.removeprefix(MARK).split()[:1]
    if interpreter and not interpreter[0].startswith("/"):
        raise InvalidInput(
            f"{what}: its first line names {shown(interpreter[0])}; give the whole path of its"
            " interpreter in the image, such as #!/bin/bash or #!/usr/bin/env python3",
            field=what,
        )
    return text
