"""``python -m tests.bench.images``: an image from this machine to a worker, by ``cloudai image
push`` and by ``docker save | ssh docker load``, side by side on a practice fleet of its own.

Bytes are those between the client and the worker's sshd, counted on the way.
"""

from __future__ import annotations

import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import click

from tests.fleet.cloudai_home import Home, a_home
from tests.fleet_lab import Fleet, Worker
from tests.fleet_lab.fleet import reserved_root

from .timing import BenchFailed, load
from .wire import Wire

MIB = 1024 * 1024
BASE = 100 * MIB
"""Bytes of the image's base, half of which pack to nothing, as programs and data do."""
CODE = 2 * MIB
SLOW = 10 * 1000 * 1000
"""Bytes a second of the slow network: 80 Mbit/s."""


class Sample(NamedTuple):
    seconds: float
    sent: int


@dataclass(frozen=True, slots=True)
class Case:
    """What the worker has of the image when it is sent."""

    name: str
    prepare: Callable[[Worker], None]


@click.command(help="cloudai image push next to docker save | ssh docker load.")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(min=1))
@click.option("--json", "as_json", is_flag=True, help="All samples, as JSON.")
def main(rounds: int, as_json: bool) -> None:
    at_start = load()
    with reserved_root() as root, Fleet(root, workers=2, gpus=()) as fleet:
        rows = measure(fleet, rounds)
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{os.cpu_count()} cores, load at start {at_start}; engine 20.10, OpenSSH client;")
    print(f"median of {rounds}; image of {BASE // MIB} MiB base and {CODE // MIB} MiB code\n")
    for row in rows:
        print(
            f"{row['network']:10}{row['case']:22}{row['way']:28}"
            f"{row['seconds']:8.2f} s{row['sent'] / MIB:9.1f} MiB"
        )


def measure(fleet: Fleet, rounds: int) -> list[dict[str, object]]:
    here, there = fleet.workers
    build(here)
    rows = []
    with tempfile.TemporaryDirectory(prefix="cloudai-bench-") as folder:
        for network, rate in (("loopback", 0), ("80 Mbit/s", SLOW)):
            with a_way(fleet, there, Path(folder) / network[:2], here, rate) as (home, wire):
                rows += each_case(home, wire, here, there, network, rounds)
    return rows


def each_case(
    home: Home, wire: Wire, here: Worker, there: Worker, network: str, rounds: int
) -> list[dict[str, object]]:
    def by_us() -> None:
        run([sys.executable, "-m", "cloudai", "image", "push", "app:1", there.name], home)

    def by_hand() -> None:
        ssh = ["ssh", "-F", "/dev/null", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR"]
        known = f"UserKnownHostsFile={home.folder / 'known_hosts'}"
        ssh += ["-o", known, "-i", str(there.identity_file), "-p", str(wire.port)]
        save = ["docker", "-H", here.docker_host, "save", "app:1"]
        ssh = shlex.join([*ssh, "root@127.0.0.1", "docker load -q"])
        run(["sh", "-c", f"{shlex.join(save)} | {ssh}"], home)

    ways = {"cloudai image push": by_us, "docker save | ssh docker load": by_hand}
    cases = (
        Case("nothing there", lambda worker: forget(worker, "app:1", "base:1", "code:1")),
        Case("the base is there", lambda worker: give_base(here, worker)),
        Case("nothing changed", lambda worker: None),
    )
    by_us()  # the connection is there, as it is while somebody works
    rows: list[dict[str, object]] = []
    for case in cases:
        taken: dict[str, list[Sample]] = {way: [] for way in ways}
        for _ in range(rounds):
            for way, send in ways.items():
                case.prepare(there)
                taken[way].append(sample(send, wire))
                check(here, there)
        for way, samples in taken.items():
            rows.append(
                {
                    "network": network,
                    "case": case.name,
                    "way": way,
                    "seconds": statistics.median(one.seconds for one in samples),
                    "sent": int(statistics.median(one.sent for one in samples)),
                    "samples": [round(one.seconds, 3) for one in samples],
                }
            )
    return rows


@contextmanager
def a_way(
    fleet: Fleet, there: Worker, folder: Path, here: Worker, rate: int
) -> Iterator[tuple[Home, Wire]]:
    """A laptop whose engine is ``here``, and what lies between it and ``there``."""
    wire = Wire(there.host, there.port, rate=rate)
    try:
        with a_home(folder, fleet, DOCKER_HOST=here.docker_host) as home:
            text = home.inventory.read_text()
            direct = f"{{host: {there.host}, port: {there.port}}}"
            assert direct in text
            through = f"{{host: 127.0.0.1, port: {wire.port}}}"
            home.inventory.write_text(text.replace(direct, through))
            with (home.folder / "known_hosts").open("a") as known:
                known.write(f"[127.0.0.1]:{wire.port} {there.host_key}\n")
            yield home, wire
    finally:
        wire.close()


def sample(send: Callable[[], None], wire: Wire) -> Sample:
    before, began = wire.passed, time.perf_counter()
    send()
    return Sample(time.perf_counter() - began, wire.passed - before)


def build(worker: Worker) -> None:
    """Half of each layer cannot be packed, the other half is a text said again and again."""
    for base, name, size, place in (
        ("busybox", "base:1", BASE, "a"),
        ("base:1", "app:1", CODE, "b"),
    ):
        half = size // 2
        script = (
            f"head -c {half} /dev/urandom >/{place};"
            f" yes 'a line of some program' | head -c {half} >/{place}2"
        )
        for words in (
            ("run", "--network", "none", "--name", "made", base, "sh", "-c", script),
            ("commit", "made", name),
            ("rm", "made"),
        ):
            docker(worker, *words)


def give_base(here: Worker, there: Worker) -> None:
    """The worker has what the image is built on, not the image."""
    forget(there, "app:1")
    if there.docker("image", "inspect", "base:1").returncode:
        with here.engine() as from_here, there.engine() as to_there:
            to_there.images.load(b"".join(from_here.images.get("base:1").save(named=True)))


def forget(worker: Worker, *names: str) -> None:
    for name in names:
        worker.docker("rmi", "-f", name)


def check(here: Worker, there: Worker) -> None:
    """Raises ``BenchFailed`` where it is not the very image."""
    found = [
        docker(worker, "image", "inspect", "-f", "{{.Id}}", "app:1") for worker in (here, there)
    ]
    if found[0] != found[1]:
        raise BenchFailed(f"{found[0]} here, {found[1]} there")


def docker(worker: Worker, *words: str) -> str:
    done = worker.docker(*words)
    if done.returncode:
        raise BenchFailed(done.stderr.strip())
    return done.stdout.strip()


def run(words: list[str], home: Home) -> None:
    done = subprocess.run(
        words, env=home.environment, cwd=home.folder, capture_output=True, timeout=300, check=False
    )
    if done.returncode:
        raise BenchFailed(f"{words[:4]}: {done.stderr.decode(errors='replace').strip()}")


if __name__ == "__main__":
    main()
