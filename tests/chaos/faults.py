"""The faults by name: how each is injected, and what must come of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .lab import Lab

Run = Callable[[Lab], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One row of the table. ``run`` injects it and asserts what is particular to it; the
    promises are the checker's business, after every one."""

    name: str
    how: str
    expected: str
    run: Run
    short: bool = False
    """Part of the short form in ``make test``."""
    full: bool = False
    """Minutes: only with ``--full``."""


FAULTS: dict[str, Fault] = {}


def fault(
    name: str, *, how: str, expected: str, short: bool = False, full: bool = False
) -> Callable[[Run], Run]:
    """Registers a scenario."""

    def register(run: Run) -> Run:
        assert name not in FAULTS, name
        FAULTS[name] = Fault(name=name, how=how, expected=expected, run=run, short=short, full=full)
        return run

    return register
