"""How long a person waits for a command that starts nothing, next to the least it could take."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tests.fleet.cloudai_home import Home
from tests.fleet_lab import Worker

from .starts import cloudai
from .timing import Group, Sample, side_by_side, timed


def help_text(home: Home, *, rounds: int) -> Group:
    """``--help``, which imports click and the standard library only."""
    return side_by_side(
        "the command line alone",
        {
            "cloudai --help": _whole(home, cloudai("--help")),
            "python -c 'import click'": _whole(home, [sys.executable, "-c", "import click"]),
            "python -c pass": _whole(home, [sys.executable, "-c", "pass"]),
        },
        rounds=rounds,
    )


def questions(home: Home, worker: Worker, *, task: str, rounds: int) -> Group:
    """``task``: a task that ``show`` can tell about. docker speaks to its own machine here, and
    to one engine; cloudai answers for all workers."""
    return side_by_side(
        "questions (controller warm)",
        {
            "cloudai queue": _whole(home, cloudai("queue")),
            "cloudai workers": _whole(home, cloudai("workers")),
            "cloudai show TASK": _whole(home, cloudai("show", task)),
            "docker ps (local socket)": _whole(home, ["docker", "-H", worker.docker_host, "ps"]),
        },
        rounds=rounds,
    )


def _whole(home: Home, argv: Sequence[str]) -> Sample:
    return lambda: timed(argv, env=home.environment, cwd=home.folder)[0]
