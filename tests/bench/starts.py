"""From a laptop to a running container on a worker: ours, and the ways people do it by hand.

Whole processes, all to the same worker of the practice fleet, with the same image and command.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.fleet.cloudai_home import Home
from tests.fleet_lab import Worker
from tests.fleet_lab.processes import wait_until

from .figures import Aim, Group
from .lab import Lab
from .timing import BenchFailed, Sample, side_by_side, timed

IMAGE = ("busybox", "true")
ALIAS = "worker"
CONTROL = "worker-warm"


def cloudai(*words: str) -> list[str]:
    return [sys.executable, "-m", "cloudai", *words]


COLD, COLD_ONCE = "ssh (cold) docker run -d", "ssh (cold) docker run --rm"


def measure(lab: Lab) -> Iterator[Group]:
    """Rows 1 and 2."""
    worker = lab.fleet.workers[0]
    with lab.home("starts") as home, openssh(worker, lab.folder) as env:
        run = ("docker", "run", "-d", *IMAGE)
        samples: dict[str, Sample] = {
            "cloudai dispatch (controller warm)": lambda: _dispatch(home, worker),
            "ssh (ControlMaster) docker run -d": lambda: _by_hand(
                worker, ["ssh", CONTROL, *run], env
            ),
            COLD: lambda: _by_hand(worker, ["ssh", ALIAS, *run], env),
            "docker -H ssh:// run -d": lambda: _by_hand(
                worker, ["docker", "-H", f"ssh://{ALIAS}", *run[1:]], env
            ),
        }
        yield Group(
            1,
            "dispatch until the container runs",
            side_by_side(samples, rounds=lab.rounds),
            aims=(Aim("at most 0.6 of cold ssh", against=COLD, at_most=0.6),),
        )
        once = ("docker", "run", "--rm", *IMAGE)
        image, *argv = IMAGE
        whole: dict[str, Sample] = {
            "cloudai task --wait": lambda: _waited(home, worker, [image, "--wait", "--", *argv]),
            "ssh (ControlMaster) docker run --rm": lambda: timed(["ssh", CONTROL, *once], env=env)[
                0
            ],
            COLD_ONCE: lambda: timed(["ssh", ALIAS, *once], env=env)[0],
        }
        yield Group(
            2,
            "a task, from submit to its result, on an idle fleet",
            side_by_side(whole, rounds=lab.rounds),
            aims=(Aim("at most 0.8 of cold ssh", against=COLD_ONCE, at_most=0.8),),
        )


def _waited(home: Home, worker: Worker, words: list[str]) -> float:
    argv = cloudai("task", "--quiet", worker.name, *words)
    seconds, _ = timed(argv, env=home.environment, cwd=home.folder)
    _demand_none(worker)
    return seconds


def _dispatch(home: Home, worker: Worker) -> float:
    image, *argv = IMAGE
    seconds, out = timed(
        cloudai("dispatch", "--quiet", worker.name, image, "--", *argv),
        env=home.environment,
        cwd=home.folder,
    )
    # Its log comes home and its container goes before anything else is timed.
    home.run("wait", out.strip())
    _demand_none(worker)
    return seconds


def _by_hand(worker: Worker, argv: list[str], env: dict[str, str]) -> float:
    seconds, out = timed(argv, env=env)
    removed = worker.docker("rm", "-f", out.strip())
    if removed.returncode != 0:
        raise BenchFailed(f"{shlex.join(argv)} left {out!r}: {removed.stderr}")
    _demand_none(worker)
    return seconds


def _demand_none(worker: Worker) -> None:
    wait_until(lambda: not worker.docker("ps", "-aq").stdout, f"{worker.name} has no container")


@contextlib.contextmanager
def openssh(worker: Worker, folder: Path) -> Iterator[dict[str, str]]:
    """The environment in which ``ssh`` knows the worker by two names, one of them warm.
    ``folder``: one of its own is made in there; its path must be short."""
    folder = Path(tempfile.mkdtemp(prefix="ssh-", dir=folder))
    config = folder / "ssh_config"
    config.write_text(
        f"Host {ALIAS} {CONTROL}\n"
        f"  HostName {worker.host}\n"
        f"  Port {worker.port}\n"
        f"  User {worker.user}\n"
        f"  IdentityFile {worker.identity_file}\n"
        f"  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {worker.fleet_root / 'known_hosts'}\n"
        f"  BatchMode yes\n"
        f"Host {CONTROL}\n"
        f"  ControlMaster auto\n"
        f"  ControlPath {folder / 'control'}\n"
        f"  ControlPersist yes\n"
    )
    # docker calls plain ssh and takes no settings for it: so both get them from a wrapper.
    tools = folder / "tools"
    tools.mkdir()
    wrapper = tools / "ssh"
    wrapper.write_text(
        f'#!/bin/sh\nPATH=${{PATH#*:}} exec ssh -F {shlex.quote(str(config))} "$@"\n'
    )
    wrapper.chmod(0o755)
    env = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}
    env.pop("DOCKER_HOST", None)
    try:
        yield env
    finally:
        subprocess.run(["ssh", "-O", "exit", CONTROL], env=env, capture_output=True, check=False)
