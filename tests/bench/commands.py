"""How long a person waits for a command that starts nothing, next to the least it could take."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cloudai.core.lifecycle import StopAsked
from cloudai.core.model import Batch, Resources, State, Task, TaskSpec
from cloudai.store import Store
from tests.fleet.cloudai_home import Home, a_home

from .figures import Aim, Group
from .lab import Lab
from .results import CHECKOUT
from .starts import cloudai
from .timing import Sample, side_by_side, timed

CLICK = "python -c 'import click'"
TASKS = 100_000
WAITING = 2_000
"""Of them, the rest has ended."""
COMPLETION = "completion of `cloudai show task-…`"
AIM = 150


def measure(lab: Lab) -> Iterator[Group]:
    """Row 6. docker speaks to its own machine here, and to one engine; cloudai answers for all
    workers."""
    tasks = TASKS // 10 if lab.short else TASKS
    folder = lab.folder / "commands"
    with a_home(folder, lab.fleet) as home:
        some = filled(folder, tasks)
        home.run("workers")
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
        docker = ["docker", "-H", lab.fleet.workers[0].docker_host, "ps"]
        completing = {
            "_CLOUDAI_COMPLETE": "bash_complete",
            "COMP_WORDS": f"cloudai show {some[:15]}",
            "COMP_CWORD": "2",
        }
        ours = {
            "cloudai queue": _whole(home, cloudai("queue")),
            "cloudai workers": _whole(home, cloudai("workers")),
            "cloudai show TASK": _whole(home, cloudai("show", some)),
            "cloudai tasks": _whole(home, cloudai("tasks")),
            COMPLETION: _whole(home, cloudai(), completing),
        }
        yield Group(
            6,
            f"questions, {tasks:,} tasks in the store (controller warm)",
            side_by_side(
                {
                    **ours,
                    "docker ps (local socket)": _whole(home, docker),
                    "git status": _whole(home, ["git", "-C", str(CHECKOUT), "status", "--short"]),
                },
                rounds=lab.rounds,
            ),
            aims=tuple(Aim(f"{one}: at most {AIM} ms", of=one, at_most=AIM) for one in ours),
        )


def filled(home: Path, count: int) -> str:
    """Writes so many tasks into a home's store, and answers one that waits."""
    store = Store.open(home / "cloudai.db", now=datetime.now(UTC))
    spec = TaskSpec(
        image="busybox",
        argv=("true",),
        user_id="ann",
        resources=Resources.of(cpus=1, memory=1, storage=1),
        batch="batch-1",
    )
    at = datetime.now(UTC) - timedelta(days=1)
    tasks = [
        Task(
            id=f"task-1795000000-{number:08d}",
            spec=spec,
            state=State.QUEUED,
            created_at=at,
            not_before=at + timedelta(days=30),
        )
        for number in range(count)
    ]
    store.submit_batch(Batch(id="batch-1", user_id="ann", created_at=at, size=count), tasks)
    over = tasks[: count - min(WAITING, count // 2)]
    store.record_all([(task.id, StopAsked(at=at)) for task in over])
    store.close()
    return tasks[-1].id


def _whole(home: Home, argv: Sequence[str], more: dict[str, str] | None = None) -> Sample:
    return lambda: timed(argv, env=home.environment | (more or {}), cwd=home.folder)[0]
