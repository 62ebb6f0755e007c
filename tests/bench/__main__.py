"""``make bench``: what docs/performance.md tells, measured in one run on this machine."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import click

from tests.fleet_lab import FleetError

from . import pages, report, results
from .figures import Group
from .lab import Lab
from .lines import lines_by_room
from .timing import BenchFailed, load

PARTS = ("starts", "many", "logs", "commands", "bulk", "seeing", "resting", "scheduling")
"""Modules of this folder, in the order in which they run; each has a ``measure(lab)``."""


@click.command(help="cloudai next to what people use today. Tells; passes and fails nothing.")
@click.option("--short", is_flag=True, help="Smaller sizes and fewer rounds: minutes less.")
@click.option("--rounds", type=click.IntRange(min=1), help="Of each comparison; 10, short: 3.")
@click.option("--bridge", is_flag=True, help="Engines with a bridge network: slower starts.")
@click.option("--only", multiple=True, type=click.Choice(PARTS), help="This part alone.")
@click.option(
    "--page/--no-page",
    default=None,
    help="Write docs/performance.md; a whole run of all parts does, others do not.",
)
def main(
    short: bool, rounds: int | None, bridge: bool, only: tuple[str, ...], page: bool | None
) -> int:
    rounds = rounds or (3 if short else 10)
    found = results.conditions(bridge=bridge, short=short, rounds=rounds)
    at_start = load()
    for line in report.conditions(found):
        click.echo(line)
    groups: list[Group] = []
    failed: list[str] = []
    with (
        tempfile.TemporaryDirectory(prefix="cloudai-bench-") as folder,
        Lab(Path(folder), rounds=rounds, short=short, bridge=bridge) as lab,
    ):
        for name in only or PARTS:
            try:
                for group in _told(name, lab):
                    groups.append(group)
                    click.echo()
                    for line in report.as_text(group):
                        click.echo(line)
            except BenchFailed as error:
                # What else was measured stands.
                failed.append(name)
                click.echo(f"bench: {name}: {error}", err=True)
    found["load"] = f"{at_start} at the start, {load()} at the end"
    lines = lines_by_room(results.CHECKOUT)
    click.echo()
    for line in report.rooms(lines):
        click.echo(line)
    groups.sort(key=lambda group: group.row)
    kept = results.keep(results.document(found, groups, lines), only)
    click.echo(f"\nkept in {kept.relative_to(results.CHECKOUT)}")
    if page or (page is None and not (short or only or failed)):
        pages.write(found, groups)
        click.echo("written into docs/performance.md")
    return 1 if failed else 0


def _told(name: str, lab: Lab) -> Iterator[Group]:
    measure: Callable[[Lab], Iterator[Group]] = import_module(f".{name}", __package__).measure
    began = time.monotonic()
    yield from measure(lab)
    click.echo(f"\n({name}: {time.monotonic() - began:.0f} s)")


if __name__ == "__main__":
    try:
        sys.exit(main(prog_name="python -m tests.bench", standalone_mode=False))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except FleetError as error:
        click.echo(f"bench: {error}", err=True)
        sys.exit(1)
