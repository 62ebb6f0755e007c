"""``make chaos``: every fault on the practice fleet, and one table of what came of it."""

from __future__ import annotations

import contextlib
import secrets
import sys
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import click

from tests.fleet_lab import Fleet, FleetError
from tests.fleet_lab.fleet import reserved_root

from . import (
    at_scale,
    on_anything,
    on_connections,
    on_engines,
    on_files,
    on_homes,
    on_tries,
    on_workers,
)
from .checker import Kind, Violation, check
from .faults import FAULTS, Fault
from .lab import a_lab

ROOMS = (
    on_connections,
    on_engines,
    on_files,
    on_homes,
    on_workers,
    on_tries,
    on_anything,
    at_scale,
)
"""Imported for what they register."""
COLUMNS = (Kind.LOST, Kind.DOUBLED, Kind.FALSE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What came of one fault."""

    fault: Fault
    times: int
    outcome: Counter[str]
    seconds: float
    violations: list[Violation] = field(default_factory=list)
    trouble: str = ""
    """What else was not as expected."""

    @property
    def good(self) -> bool:
        return not self.violations and not self.trouble


def try_fault(fault: Fault, fleet: Fleet, folder: Path, seed: int) -> Row:
    """Injects one fault and judges what came of it."""
    began, trouble, violations = time.monotonic(), "", []
    # Each fault has a seed of its own: it replays alone as it went in the whole run.
    own = Random(f"{seed} {fault.name}").randrange(2**32)
    with a_lab(fleet, folder, own) as lab:
        try:
            fault.run(lab)
        except Exception:
            trouble = traceback.format_exc()
            with contextlib.suppress(Exception):
                lab.settle()
        try:
            violations = check(lab.conclude())
        except Exception:
            trouble = trouble or traceback.format_exc()
        return Row(
            fault=fault,
            times=lab.times,
            outcome=Counter(told.state for told in lab.history.at_the_end.values()),
            seconds=time.monotonic() - began,
            violations=violations,
            trouble=trouble,
        )


def chosen(*, only: str | None, short: bool, full: bool) -> list[Fault]:
    """The faults of a run, in the order in which they stand in the code."""
    if only:
        return [fault for fault in FAULTS.values() if only.lower() in fault.name.lower()]
    return [fault for fault in FAULTS.values() if (not short or fault.short) and full >= fault.full]


def heading() -> str:
    return f"{'fault':40} {'times':>5}  {'outcome':34} " + " ".join(
        f"{column:>7}" for column in COLUMNS
    )


def line(row: Row) -> str:
    outcome = ", ".join(f"{count} {state}" for state, count in sorted(row.outcome.items()))
    counts = Counter(violation.kind for violation in row.violations)
    figures = " ".join(f"{counts[column]:>7}" for column in COLUMNS)
    verdict = "" if row.good else "  BROKEN"
    return (
        f"{row.fault.name:40} {row.times:>5}  {outcome:34} {figures}  {row.seconds:5.1f} s{verdict}"
    )


@click.command(help=__doc__)
@click.option("--seed", type=int, help="Of an earlier run, to replay it.")
@click.option("--only", metavar="TEXT", help="Those whose name has this in it.")
@click.option("--short", is_flag=True, help="Those of make test.")
@click.option("--full", is_flag=True, help="Also those that take minutes.")
@click.option("--list", "listed", is_flag=True, help="Name them, with what must come of each.")
def main(seed: int | None, only: str | None, short: bool, full: bool, listed: bool) -> None:
    faults = chosen(only=only, short=short, full=full or bool(only))
    if listed:
        for fault in faults:
            click.echo(f"{fault.name}\n    how:      {fault.how}\n    expected: {fault.expected}")
        return
    seed = secrets.randbelow(10**6) if seed is None else seed
    click.echo(f"seed {seed}\n\n{heading()}")
    rows = []
    with reserved_root() as root, Fleet(root) as fleet:
        for number, fault in enumerate(faults):
            row = try_fault(fault, fleet, root.parent / f"c{number}", seed)
            rows.append(row)
            click.echo(line(row))
            for violation in row.violations:
                click.echo(f"    {violation}")
            click.echo(row.trouble, nl=False)
    broken = [row.fault.name for row in rows if not row.good]
    click.echo(f"\n{len(rows)} faults, {len(broken)} broken promises; seed {seed}")
    if broken:
        click.echo("broken: " + ", ".join(broken))
        sys.exit(1)


if __name__ == "__main__":
    try:
        main(prog_name="python -m tests.chaos")
    except FleetError as error:
        click.echo(f"practice fleet: {error}", err=True)
        sys.exit(1)
