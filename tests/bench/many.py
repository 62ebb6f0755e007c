"""Many short tasks on three workers, to the last result and until nothing is left of them there.

All run ``busybox true``. Ours admits each under its worker's lock, stores every step, brings the
log home, and removes the container when that is done; the others start containers that remove
themselves, and keep nothing but what they print.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

from tests.fleet.cloudai_home import Home
from tests.fleet_lab import Fleet, Worker
from tests.fleet_lab.processes import wait_until

from .figures import PER_SECOND, Aim, Group, Series, Unit, growth
from .lab import Lab
from .starts import IMAGE
from .timing import BenchFailed

IN_FLIGHT = 4
"""Starts at a time on one worker, for all who can be told so."""
LONGEST = 300.0
"""Seconds any one way may take for all."""
LIMIT = "the engines alone (API, local socket)"
CONTROLLED = "xargs, ssh with ControlMaster"
PARALLEL = "GNU parallel --sshlogin"
PARALLEL_CONTROLLED = "GNU parallel with ControlMaster"
SWARM = "Swarm, a replicated job on one node"
SECONDS_ALL = Unit("s for all", decimals=2)


def measure(lab: Lab) -> Iterator[Group]:
    """Row 3, and its growth."""
    count = 60 if lab.short else 300
    with lab.home("many") as home, openssh(lab) as env:
        ways: dict[str, Callable[[int], float]] = {
            "cloudai batch": lambda tasks: ours(home, lab.fleet, tasks),
            LIMIT: lambda tasks: by_engines(lab.fleet, tasks),
            CONTROLLED: lambda tasks: by_xargs(lab.fleet, tasks, env),
            PARALLEL_CONTROLLED: lambda tasks: by_parallel(lab, tasks, env, "-warm"),
        }
        if not lab.short:
            ways |= {
                PARALLEL: lambda tasks: by_parallel(lab, tasks, env, ""),
                SWARM: lambda tasks: by_swarm(lab.fleet.workers[0], tasks),
            }
        for way in ways.values():
            way(6)
        taken = {}
        for name, way in ways.items():
            taken[name] = count / way(count)
            settled(lab.fleet)
        aims = [
            Aim(f"ahead of {rival}", against=rival, at_least=1)
            for rival in (CONTROLLED, PARALLEL_CONTROLLED, PARALLEL, SWARM)
        ]
        yield Group(
            3,
            f"{count} tasks of `true` on three workers",
            tuple(Series(name, (each,)) for name, each in taken.items()),
            PER_SECOND,
            (Aim("at least 0.8 of the engines' limit", against=LIMIT, at_least=0.8), *aims),
        )
        if not lab.short:
            costs = {tasks: ours(home, lab.fleet, tasks) for tasks in (30, 60, 150)}
            costs[count] = count / taken["cloudai batch"]
            yield growth("a batch of short tasks", SECONDS_ALL, costs, of="tasks")


def settled(fleet: Fleet) -> None:
    """Nothing of what ran before is left."""
    for worker in fleet.workers:
        wait_until(lambda w=worker: not w.docker("ps", "-aq").stdout, f"{worker.name} is empty")


def ours(home: Home, fleet: Fleet, count: int) -> float:
    """A batch, whole commands: until all have ended, their logs are home and their containers
    gone."""
    image, *argv = IMAGE
    entry = {"id": "one", "image": image, "argv": argv, "req_cpu": 0.5, "req_memory": 0.25}
    path = home.folder / "many.yaml"
    path.write_text(json.dumps({"tasks": [entry | {"matrix": {"n": list(range(count))}}]}))
    began = time.monotonic()
    batch = home.json("batch", str(path))["batch_id"]
    while (left := home.ask(f"/batches/{batch}?until=final&timeout=60"))["counts"][
        "completed"
    ] < count:
        if time.monotonic() - began > LONGEST:
            raise BenchFailed(f"the batch has not ended: {left}")
    settled(fleet)
    return time.monotonic() - began


def by_engines(fleet: Fleet, count: int) -> float:
    """create, start, wait, delete: what the engines can do when nobody asks for more."""
    with ExitStack() as stack:
        pools = []
        for worker in fleet.workers:
            client = stack.enter_context(worker.engine())
            pool = stack.enter_context(ThreadPoolExecutor(IN_FLIGHT))
            pools.append((client.api, pool))

        def one(api: object) -> None:
            made = api.create_container(*IMAGE)  # type: ignore[attr-defined]
            api.start(made["Id"])  # type: ignore[attr-defined]
            api.wait(made["Id"])  # type: ignore[attr-defined]
            api.remove_container(made["Id"])  # type: ignore[attr-defined]

        began = time.monotonic()
        running = [pools[n % len(pools)] for n in range(count)]
        for each in [pool.submit(one, api) for api, pool in running]:
            each.result()
        return time.monotonic() - began


def by_xargs(fleet: Fleet, count: int, env: dict[str, str]) -> float:
    hosts = "\n".join(f"{fleet.workers[n % 3].name}-warm" for n in range(count))
    run = f"ssh $0 docker run --rm {shlex.join(IMAGE)}"
    at_once = str(IN_FLIGHT * len(fleet.workers))
    return _timed(["xargs", "-n1", "-P", at_once, "sh", "-c", run], env, send=hosts)


def by_parallel(lab: Lab, count: int, env: dict[str, str], kind: str) -> float:
    logins = ",".join(f"{IN_FLIGHT}/{worker.name}{kind}" for worker in lab.fleet.workers)
    words = ["parallel", "--will-cite", "--plain", "--sshlogin", logins, "-N0"]
    numbers = "\n".join(map(str, range(count)))
    return _timed([*words, "docker", "run", "--rm", *IMAGE], env, send=numbers)


def by_swarm(worker: Worker, count: int) -> float:
    """One node does all of it: three would need a network between the engines."""
    image, *argv = IMAGE
    name = f"job{time.monotonic_ns()}"
    words = ["service", "create", "--quiet", "--name", name, "--mode", "replicated-job"]
    words += ["--replicas", str(count), "--max-concurrent", str(IN_FLIGHT)]
    words += ["--no-resolve-image", "--restart-condition", "none", image, *argv]
    began = time.monotonic()
    done = worker.docker("swarm", "init", "--advertise-addr", "127.0.0.1")
    if done.returncode:
        raise BenchFailed(f"docker swarm init: {done.stderr.strip()}")
    try:
        began = time.monotonic()
        done = worker.docker(*words)
        if done.returncode:
            raise BenchFailed(f"docker service create: {done.stderr.strip()}")
        return time.monotonic() - began
    finally:
        worker.docker("service", "rm", name)
        worker.docker("swarm", "leave", "--force")


def _timed(argv: list[str], env: dict[str, str], *, send: str) -> float:
    began = time.monotonic()
    done = subprocess.run(
        argv, input=send, env=env, capture_output=True, text=True, timeout=LONGEST, check=False
    )
    seconds = time.monotonic() - began
    if done.returncode:
        raise BenchFailed(f"{shlex.join(argv[:4])}: {done.stderr.strip()[-500:]}")
    return seconds


@contextmanager
def openssh(lab: Lab) -> Iterator[dict[str, str]]:
    """The environment in which ``ssh`` knows every worker by its name, and by NAME-warm, which
    keeps one connection open."""
    folder = lab.folder / "many-ssh"
    folder.mkdir()
    lines = []
    for worker in lab.fleet.workers:
        lines += [
            f"Host {worker.name} {worker.name}-warm",
            f"  HostName {worker.host}",
            f"  Port {worker.port}",
            f"  User {worker.user}",
            f"  IdentityFile {worker.identity_file}",
            "  IdentitiesOnly yes",
            f"  UserKnownHostsFile {worker.fleet_root / 'known_hosts'}",
            "  BatchMode yes",
            f"Host {worker.name}-warm",
            "  ControlMaster auto",
            f"  ControlPath {folder}/%n",
            "  ControlPersist yes",
        ]
    config = folder / "config"
    config.write_text("\n".join(lines) + "\n")
    wrapper = folder / "ssh"
    wrapper.write_text(
        f'#!/bin/sh\nPATH=${{PATH#*:}} exec ssh -F {shlex.quote(str(config))} "$@"\n'
    )
    wrapper.chmod(0o755)
    env = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "HOME": str(folder)}
    try:
        for worker in lab.fleet.workers:
            subprocess.run(["ssh", f"{worker.name}-warm", "true"], env=env, check=True)
        yield env
    finally:
        for worker in lab.fleet.workers:
            words = ["ssh", "-O", "exit", f"{worker.name}-warm"]
            subprocess.run(words, env=env, capture_output=True, check=False)
