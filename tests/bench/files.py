"""Files to a worker and back: ours, rsync, scp and tar over ssh, in one run.

``python -m tests.bench.files [--small 20000] [--big 1g]``. Ours is timed to the moment at which
the task's container runs with the files in it; the others only put them on the worker's disk.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click

from cloudai.core.units import parse_docker_size
from tests.fleet.cloudai_home import Home, a_home
from tests.fleet_lab import Fleet, Worker
from tests.fleet_lab.fleet import reserved_root

from .starts import ALIAS, cloudai, openssh
from .timing import BenchFailed

SMALL, OF_EACH, PER_FOLDER = 20_000, 1000, 100
BIG = "1g"
CHUNK = 4 * 1024**2
RSYNC = ("rsync", "-a", "-e", "ssh")
LONGEST = 1800.0
"""Seconds any one command may take."""


@click.command(help="cloudai next to rsync, scp and tar over ssh.")
@click.option("--small", default=SMALL, show_default=True, help="So many files of 1 KB.")
@click.option("--big", default=BIG, show_default=True, help="The size of one file.")
def main(small: int, big: str) -> None:
    for line in lines(small=small, big=big):
        print(line, flush=True)


def lines(*, small: int = SMALL, big: str = BIG) -> Iterator[str]:
    """A table, as it comes."""
    size = parse_docker_size(big, what="--big")
    with (
        reserved_root() as root,
        Fleet(root, workers=1) as fleet,
        tempfile.TemporaryDirectory(prefix="cloudai-bench-") as name,
    ):
        folder, worker = Path(name), fleet.workers[0]
        with (
            a_home(folder / "home", fleet) as home,
            openssh(worker, folder) as env,
        ):
            home.run("workers")
            ways = Ways(home, worker, folder, env)
            tree, one = folder / "tree", folder / "one"
            yield "files on their way to a worker, over loopback (seconds)"
            yield _row("", "cloudai", "rsync -a", "scp -r", "tar | ssh")
            _write_small(tree, small)
            yield ways.row(f"{small} files of 1 KB, first time", tree, anew=True)
            yield ways.row("  unchanged", tree)
            (tree / "d0" / "f0").write_bytes(os.urandom(OF_EACH))
            yield ways.row("  one changed", tree)
            shutil.rmtree(tree)
            _write_big(one, size)
            yield ways.row(f"one file of {big}, first time", one, anew=True)
            yield ways.row("  unchanged", one)
            yield ways.back(f"one file of {big}, back home", one)
            yield f"the controller's memory at its most: {_peak(home.controller_pid)}"


class Ways:
    """The four of them, to one worker."""

    def __init__(self, home: Home, worker: Worker, folder: Path, env: dict[str, str]) -> None:
        self.home, self.worker, self.folder, self.env = home, worker, folder, env
        self.there = worker.root / "there"
        # It finds no ssh by PATH.
        self.scp = ("scp", "-rq", "-S", str(shutil.which("ssh", path=env["PATH"])))

    def row(self, title: str, tree: Path, *, anew: bool = False) -> str:
        """``anew``: nothing of it is there."""
        if anew:
            shutil.rmtree(self.there, ignore_errors=True)
            self.there.mkdir()
        return _row(
            title,
            f"{self._ours(tree):.2f}",
            f"{self._timed([*RSYNC, f'{tree}/', f'{ALIAS}:{self.there}/r']):.2f}",
            f"{self._timed([*self.scp, str(tree), f'{ALIAS}:{self.there}/s']):.2f}",
            f"{self._tar(tree):.2f}",
        )

    def back(self, title: str, one: Path) -> str:
        """The first file of a folder that is there already."""
        name = next(one.iterdir()).name
        words = ("--upload", f"{one}:/one", "-storage", "20", "--", "sleep", "9999")
        task = self.home.dispatch(self.worker, "busybox", *words)
        there, here = f"{ALIAS}:{self.there}/r/{name}", str(self.folder / "back")
        times = []
        for argv in (
            cloudai("cp", f"{task}:/one/{name}", here),
            [*RSYNC, there, here],
            [*self.scp, there, here],
        ):
            times.append(self._timed(argv))
            (self.folder / "back").unlink()
        self.home.run("cancel", task)
        self.home.run("wait", task, code=None)
        return _row(title, *(f"{one:.2f}" for one in times), "-")

    def _ours(self, tree: Path) -> float:
        words = ("--upload", f"{tree}:/work", "-storage", "20", "--", "true")
        argv = cloudai("dispatch", "--quiet", self.worker.name, "busybox", *words)
        began = time.monotonic()
        task = self._run(argv).strip()
        seconds = time.monotonic() - began
        self.home.run("wait", task)
        return seconds

    def _tar(self, tree: Path) -> float:
        script = (
            f"tar -C {tree} -cf - . | ssh {ALIAS} 'mkdir -p {self.there}/t && "
            f"tar -C {self.there}/t -xf -'"
        )
        return self._timed(["sh", "-c", script])

    def _timed(self, argv: list[str]) -> float:
        began = time.monotonic()
        self._run(argv)
        return time.monotonic() - began

    def _run(self, argv: list[str]) -> str:
        done = subprocess.run(
            argv,
            env={**self.home.environment, "PATH": self.env["PATH"]},
            cwd=self.home.folder,
            capture_output=True,
            text=True,
            timeout=LONGEST,
            check=False,
        )
        if done.returncode != 0:
            raise BenchFailed(f"{argv}: {done.stderr}")
        return done.stdout


def _row(title: str, *cells: str) -> str:
    return f"{title:<36}" + "".join(f"{cell:>11}" for cell in cells)


def _write_small(folder: Path, count: int) -> None:
    for number in range(count):
        inner = folder / f"d{number // PER_FOLDER}"
        if number % PER_FOLDER == 0:
            inner.mkdir(parents=True)
        (inner / f"f{number}").write_bytes(os.urandom(OF_EACH))


def _write_big(folder: Path, size: int) -> None:
    folder.mkdir()
    piece = os.urandom(CHUNK)
    with (folder / "big").open("wb") as file:
        for at in range(0, size, CHUNK):
            file.write((at.to_bytes(8, "big") + piece)[: min(CHUNK, size - at)])


def _peak(pid: int) -> str:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return f"{int(found[1]) // 1024} MB" if found else "unknown"


if __name__ == "__main__":
    main()
