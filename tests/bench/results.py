"""Results as files, so that two commits can be compared: ``make bench-compare``."""

from __future__ import annotations

import json
import os
import platform
import sqlite3
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from .figures import UNITS, Group

CHECKOUT = Path(__file__).resolve().parents[2]
FOLDER = CHECKOUT / "build" / "bench"
NOTABLE = 0.05
"""Below so much of a change, medians say nothing."""


def commit() -> str:
    """The checkout's commit, with a plus where files differ from it."""
    said = subprocess.run(
        ["git", "describe", "--always", "--dirty=+", "--abbrev=10", "--exclude=*"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    return said.stdout.strip() or "unknown"


def conditions(*, bridge: bool, short: bool, rounds: int) -> dict[str, str]:
    """What the figures depend on."""
    docker = _first_line("docker", "--version").removeprefix("Docker version ")
    engine = _first_line("dockerd", "--version").removeprefix("Docker version ")
    return {
        "commit": commit(),
        "form": f"{'short' if short else 'whole'}, {rounds} rounds",
        "network": f"loopback; engines with {'a bridge network' if bridge else 'no network'}",
        "engine": f"Docker {engine.split(',')[0]}, docker command {docker.split(',')[0]}",
        "ssh": _first_line("ssh", "-V").partition(",")[0],
        "python": f"{platform.python_version()}, SQLite {sqlite3.sqlite_version}",
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.release()}",
    }


def _first_line(*argv: str) -> str:
    said = subprocess.run(argv, capture_output=True, text=True, check=False)
    return (said.stdout + said.stderr).strip().partition("\n")[0]


def document(
    conditions: dict[str, str], groups: list[Group], lines: dict[str, dict[str, int]]
) -> dict[str, Any]:
    """One run, as it is kept: every sample in base units (seconds, bytes, a second)."""
    return {
        "conditions": conditions,
        "groups": [group.as_json() for group in groups],
        "lines": lines,
    }


def keep(result: dict[str, Any], only: Sequence[str] = ()) -> Path:
    """Writes a run's file, named by its commit and form, and by its parts where those are not
    all; answers its path."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    conditions = result["conditions"]
    form = conditions["form"].partition(",")[0]
    path = FOLDER / f"{'-'.join([conditions['commit'], form, *only])}.json"
    path.write_text(json.dumps(result, indent=1))
    return path


def find(name: str) -> Path:
    """A run by its file or the start of its commit. Raises ``click.UsageError``."""
    if Path(name).is_file():
        return Path(name)
    found = sorted(FOLDER.glob(f"{name}*.json"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise click.UsageError(f"no results of {name} in {FOLDER.relative_to(CHECKOUT)}")
    return found[-1]


def latest() -> list[Path]:
    """The two newest runs, the older first."""
    found = sorted(FOLDER.glob("*.json"), key=lambda path: path.stat().st_mtime)
    if len(found) < 2:
        raise click.UsageError("two runs of `make bench` are needed, or name two results")
    return found[-2:]


def compared(before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    """Lines: every series that both runs have, with what changed by more than its spread."""
    for name, then in before["conditions"].items():
        now = after["conditions"].get(name, "")
        yield f"{name:<8} {then}" if then == now else f"{name:<8} {then} -> {now}"
    earlier = {(one["row"], one["title"]): one for one in before["groups"]}
    for group in after["groups"]:
        old = earlier.get((group["row"], group["title"]))
        shared = [what for what in group["series"] if old and what in old["series"]]
        if old is None or not shared or old["unit"] != group["unit"]:
            continue
        yield ""
        yield f"{group['title']}, {group['unit']}"
        for what in shared:
            yield _change(what, old["series"][what], group["series"][what], group["unit"])


def _change(what: str, then: list[float], now: list[float], word: str) -> str:
    unit = UNITS[word]
    a, b = statistics.median(then), statistics.median(now)
    ratio = b / a if a else 1.0
    # Apart only when the middle halves of both do not meet: a machine has its moods.
    apart = _middle(then)[1] < _middle(now)[0] or _middle(now)[1] < _middle(then)[0]
    verdict = ""
    if apart and abs(ratio - 1) > NOTABLE:
        verdict = "better" if (ratio > 1) == unit.more_is_better else "WORSE"
    return f"  {what:<44}{unit.text(a):>10}{unit.text(b):>10}{ratio:>7.2f}×  {verdict}".rstrip()


def _middle(samples: list[float]) -> tuple[float, float]:
    """The middle half."""
    if len(samples) < 2:
        return samples[0], samples[0]
    quarters = statistics.quantiles(samples, n=4, method="inclusive")
    return quarters[0], quarters[2]


@click.command(help="Two runs of `make bench`, side by side: files, or the starts of commits.")
@click.argument("before", required=False)
@click.argument("after", required=False)
def main(before: str | None, after: str | None) -> None:
    if before is None:
        one, other = latest()
    elif after is None:
        one, other = find(before), latest()[-1]
    else:
        one, other = find(before), find(after)
    for line in compared(json.loads(one.read_text()), json.loads(other.read_text())):
        click.echo(line)


if __name__ == "__main__":
    main(prog_name="python -m tests.bench.results")
    sys.exit(0)
