"""``make bench``: one run on a practice fleet of its own, printed as tables or JSON."""

from __future__ import annotations

import json
import os
import platform
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from tests.fleet.cloudai_home import Home, a_home
from tests.fleet_lab import Fleet, FleetError, Worker
from tests.fleet_lab.fleet import reserved_root

from . import files, scheduling
from .commands import help_text, questions
from .lines import lines_by_room
from .report import report
from .starts import IMAGE, starts
from .timing import BenchFailed, Group, load

CHECKOUT = Path(__file__).resolve().parents[2]


@click.command(help="cloudai next to what people use today. Tells; passes and fails nothing.")
@click.option("--rounds", default=10, show_default=True, type=click.IntRange(min=1))
@click.option("--bridge", is_flag=True, help="Engines with a bridge network: slower starts.")
@click.option("--json", "as_json", is_flag=True, help="All samples too, as JSON.")
def main(rounds: int, bridge: bool, as_json: bool) -> None:
    at_start = load()
    with reserved_root() as root, Fleet(root, bridge=bridge) as fleet:
        groups = measure(fleet, rounds=rounds)
        conditions = conditions_of(fleet.workers[0], bridge=bridge, load_at_start=at_start)
    lines = lines_by_room(CHECKOUT)
    if as_json:
        found: dict[str, Any] = {"conditions": conditions, "lines": lines}
        found["groups"] = [group.as_json() for group in groups]
        print(json.dumps(found, indent=2))
    else:
        print(report(conditions, groups, lines))
        print()
        for line in scheduling.lines():
            print(line, flush=True)
        print()
        for line in files.lines():
            print(line, flush=True)


def measure(fleet: Fleet, *, rounds: int) -> list[Group]:
    """All comparisons, with a laptop of their own whose controller is warm."""
    worker = fleet.workers[0]
    with (
        tempfile.TemporaryDirectory(prefix="cloudai-bench-") as folder,
        a_home(Path(folder) / "home", fleet) as home,
    ):
        task = _known_task(home, worker)
        return [
            starts(home, worker, rounds=rounds, folder=Path(folder)),
            help_text(home, rounds=rounds),
            questions(home, worker, task=task, rounds=rounds),
        ]


def _known_task(home: Home, worker: Worker) -> str:
    image, *argv = IMAGE
    task = home.dispatch(worker, image, "--", *argv)
    home.run("wait", task)
    return task


def conditions_of(worker: Worker, *, bridge: bool, load_at_start: str) -> dict[str, str]:
    """What the figures depend on."""
    versions = worker.docker("version", "--format", "{{.Server.Version}} {{.Client.Version}}")
    engine, client = versions.stdout.split()
    ssh = subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=True).stderr
    return {
        "engine": f"Docker {engine}, docker command {client}",
        "network": "bridge" if bridge else "none",
        "ssh": ssh.partition(",")[0].strip(),
        "python": f"{platform.python_version()}, SQLite {sqlite3.sqlite_version}",
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "load": f"{load_at_start} at the start, {load()} at the end",
    }


if __name__ == "__main__":
    try:
        main(prog_name="python -m tests.bench")
    except (BenchFailed, FleetError) as error:
        click.echo(f"bench: {error}", err=True)
        sys.exit(1)
