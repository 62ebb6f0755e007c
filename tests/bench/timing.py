"""Taking times side by side: a round takes one sample of each, so that whatever else the machine
does falls on all alike; a median takes out what fell on one.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from .figures import Series

Sample = Callable[[], float]
"""Does the thing once, cleans up after it, and answers the seconds it took without that."""

LONGEST = 120.0
"""Seconds any one command may take."""


class BenchFailed(Exception):
    """What was to be timed did not work, so its time would mean nothing."""


def side_by_side(samples: Mapping[str, Sample], *, rounds: int) -> tuple[Series, ...]:
    """So many rounds, after one that is not counted. Each round begins with another of them,
    so that none always follows the same one."""
    names = list(samples)
    taken: dict[str, list[float]] = {name: [] for name in names}
    for sample in samples.values():
        sample()
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            taken[name].append(samples[name]())
    return tuple(Series(name, tuple(taken[name])) for name in names)


def timed(
    argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> tuple[float, str]:
    """The seconds a whole process takes from its start to its end, and its stdout.

    Raises ``BenchFailed`` where it does not end well.
    """
    began = time.perf_counter()
    ended = subprocess.run(
        list(argv),
        env=None if env is None else dict(env),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=LONGEST,
        check=False,
    )
    seconds = time.perf_counter() - began
    if ended.returncode != 0:
        words = ended.stderr.decode(errors="replace").strip() or "no word about it"
        raise BenchFailed(f"{' '.join(argv)}: ended with {ended.returncode}: {words}")
    return seconds, ended.stdout.decode(errors="replace")


TICK = os.sysconf("SC_CLK_TCK")


def cpu_of(pid: int) -> float:
    """Seconds of CPU that a process and its children that were waited for have used."""
    stat = Path(f"/proc/{pid}/stat").read_text()
    fields = stat.rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICK


def peak_of(pid: int) -> float:
    """Bytes: the most memory that a process has had in RAM so far."""
    return _of_status(pid, "VmHWM:")


def memory_of(pid: int) -> float:
    """Bytes of RAM that a process has now."""
    return _of_status(pid, "VmRSS:")


def _of_status(pid: int, name: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name):
            return float(line.split()[1]) * 1024
    raise BenchFailed(f"process {pid} has no {name}")


def load() -> str:
    """The machine's load averages over 1, 5 and 15 minutes."""
    return " ".join(f"{average:.2f}" for average in os.getloadavg())
