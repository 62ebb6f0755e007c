"""How long a person waits for a command that starts nothing, next to the least it could take."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from tests.fleet.cloudai_home import Home

from .figures import Aim, Group
from .lab import Lab
from .starts import IMAGE, cloudai
from .timing import Sample, side_by_side, timed

CLICK = "python -c 'import click'"


def measure(lab: Lab) -> Iterator[Group]:
    """Row 6. docker speaks to its own machine here, and to one engine; cloudai answers for all
    workers."""
    worker = lab.fleet.workers[0]
    with lab.home("commands") as home:
        image, *argv = IMAGE
        task = home.dispatch(worker, image, "--", *argv)
        home.run("wait", task)
        yield Group(
            6,
            "the command line alone",
            side_by_side(
                {
                    "cloudai --help": _whole(home, cloudai("--help")),
                    CLICK: _whole(home, [sys.executable, "-c", "import click"]),
                    "python -c pass": _whole(home, [sys.executable, "-c", "pass"]),
                },
                rounds=lab.rounds,
            ),
            aims=(Aim("at most 3 × python with click", against=CLICK, at_most=3),),
        )
        yield Group(
            6,
            "questions (controller warm)",
            side_by_side(
                {
                    "cloudai queue": _whole(home, cloudai("queue")),
                    "cloudai workers": _whole(home, cloudai("workers")),
                    "cloudai show TASK": _whole(home, cloudai("show", task)),
                    "docker ps (local socket)": _whole(
                        home, ["docker", "-H", worker.docker_host, "ps"]
                    ),
                },
                rounds=lab.rounds,
            ),
        )


def _whole(home: Home, argv: Sequence[str]) -> Sample:
    return lambda: timed(argv, env=home.environment, cwd=home.folder)[0]
