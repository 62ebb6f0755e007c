"""Logs: whole, followed, and one line's way, next to ``ssh WORKER docker logs``.

Both come out of a whole process and go where a script would have them: into a file or a pipe.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import quantiles

from tests.fleet.cloudai_home import Home
from tests.fleet_lab import Worker
from tests.fleet_lab.processes import wait_until

from .figures import (
    CPU_SECONDS,
    MB_PER_SECOND,
    MS,
    PER_SECOND,
    PERCENT_OF_A_CORE,
    Aim,
    Group,
    Series,
)
from .lab import Lab
from .starts import ALIAS, cloudai, openssh
from .timing import BenchFailed, Sample, cpu_of, side_by_side

LINE = b"%010d" + b" and what else a line of a hundred bytes says".ljust(89, b".") + b"\n"
PACE = 10_000
"""Lines a second."""
BURST = 0.005
"""Seconds between what a program writes at once."""
APART = 0.007
"""Seconds between lines whose delay is measured."""
SOON = 60.0

SSH, SSH_FOLLOW = "ssh docker logs", "ssh docker logs -f"
FRESH, HOME, FOLLOW = "cloudai logs (on the worker)", "cloudai logs (at home)", "cloudai logs -f"


def measure(lab: Lab) -> Iterator[Group]:
    """Row 5."""
    worker = lab.fleet.workers[0]
    with lab.home("logs") as home, openssh(worker, lab.folder) as env:
        yield from _whole(lab, home, worker, env)
        with _a_pipe(home, worker) as pipe:
            ways = {
                FOLLOW: lambda: Follower(cloudai("logs", "-f", pipe.task), home.environment),
                SSH_FOLLOW: lambda: Follower(
                    ["ssh", ALIAS, "docker", "logs", "-f", pipe.container], env
                ),
            }
            yield from _followed(lab, pipe, ways, home.controller_pid)
            yield _delayed(lab, pipe, ways)


# ------------------------------------------------------------------------------- whole


def _whole(lab: Lab, home: Home, worker: Worker, env: dict[str, str]) -> Iterator[Group]:
    lines = 100_000 if lab.short else 1_000_000
    writes = f"""awk 'BEGIN {{ for (n = 0; n < {lines}; n++) printf "{_as_awk(LINE)}", n }}'"""
    ended = home.dispatch(worker, "busybox", "--", "sh", "-c", writes)
    lives = home.dispatch(worker, "busybox", "--", "sh", "-c", f"{writes}; sleep 9999")
    container = _container(home, lives)
    home.ended(ended, seconds=SOON * 2)
    last = f"{lines - 1:010d}"
    wait_until(
        lambda: worker.docker("logs", "--tail", "1", container).stdout.startswith(last),
        "the log is written",
    )
    size, out = lines * len(LINE % 0), lab.folder / "log"
    cpu: dict[str, list[float]] = {FRESH: [], HOME: [], SSH: []}

    def fetched(name: str, argv: list[str], environment: Mapping[str, str], *pids: int) -> float:
        before = sum(map(cpu_of, pids))
        seconds, used = _into(out, argv, environment)
        if out.stat().st_size != size:
            raise BenchFailed(f"{name}: {out.stat().st_size} bytes of {size}")
        cpu[name].append(used + sum(map(cpu_of, pids)) - before)
        return seconds

    def fresh() -> float:
        shutil.rmtree(home.folder / "logs" / lives, ignore_errors=True)
        return fetched(FRESH, cloudai("logs", lives), home.environment, home.controller_pid)

    samples: dict[str, Sample] = {
        FRESH: fresh,
        HOME: lambda: fetched(HOME, cloudai("logs", ended), home.environment, home.controller_pid),
        SSH: lambda: fetched(SSH, ["ssh", ALIAS, "docker", "logs", container], env),
    }
    took = side_by_side(samples, rounds=min(3, lab.rounds))
    # Its log comes home before anything else is measured.
    home.run("cancel", lives)
    home.ended(lives, seconds=SOON)
    title = f"{size / 1e6:.0f} MB of log whole"
    yield Group(
        5,
        title,
        tuple(Series(one.what, tuple(size / each for each in one.samples)) for one in took),
        MB_PER_SECOND,
        aims=tuple(
            Aim(f"{what}: at least 1.3 of ssh", of=what, against=SSH, at_least=1.3)
            for what in (FRESH, HOME)
        ),
        notes=(
            "A task's log comes home when the task ends, and is read from there; that of one "
            "that runs comes from its worker, through the archive.",
            "The engine's own reading of its log, 5 µs of CPU a line, is most of the time of both "
            "ways that ask it.",
        ),
    )
    yield Group(
        5,
        f"{title}: CPU here (controller and command; ssh)",
        # The first of each was to warm up.
        tuple(Series(name, tuple(used[1:])) for name, used in cpu.items()),
        CPU_SECONDS,
        aims=tuple(
            Aim(f"{what}: at most a quarter of ssh", of=what, against=SSH, at_most=0.25)
            for what in (FRESH, HOME)
        ),
        notes=(
            "From the worker, a line passes Python: a third to a half of that is asyncssh, for "
            "the engine writes line by line and sshd sends what it finds, two or three lines a "
            "packet; a fifth is HTTP, a chunk for each line; a fifth cuts the records.",
            "At home, a third of it is the start of the command, a third is inflating.",
        ),
    )


def _as_awk(line: bytes) -> str:
    return line.decode().replace("\n", "\\n")


def _into(out: Path, argv: Sequence[str], environment: Mapping[str, str]) -> tuple[float, float]:
    """Seconds until a process that writes into a file has ended, and its seconds of CPU."""
    with open(out, "wb") as file:
        began = time.perf_counter()
        process = subprocess.Popen(
            argv, env=dict(environment), stdin=subprocess.DEVNULL, stdout=file
        )
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise BenchFailed(f"{' '.join(argv)}: ended with {process.returncode}")
    return seconds, used.ru_utime + used.ru_stime


def _container(home: Home, task: str) -> str:
    """Its name on the worker, once it runs."""
    found = home.ask(f"/tasks/{task}?until=started&timeout=60")
    return str(found["assignments"][-1]["assignment_id"])


# ------------------------------------------------------------------------------ followed


@dataclass
class Pipe:
    """A task that writes what it is given, at once."""

    task: str
    container: str
    into: Callable[[bytes], object]
    lines: int = 0
    """Written so far."""

    def write(self, *lines: bytes) -> None:
        self.into(b"".join(lines))
        self.lines += len(lines)


@contextmanager
def _a_pipe(home: Home, worker: Worker) -> Iterator[Pipe]:
    task = home.dispatch(worker, "busybox", "--", "sh", "-c", "mkfifo /pipe; exec cat /pipe")
    container = _container(home, task)
    pid = worker.docker("inspect", "--format", "{{.State.Pid}}", container).stdout.strip()
    pipe = Path(f"/proc/{pid}/root/pipe")
    wait_until(pipe.is_fifo, "the task has its pipe")
    with open(pipe, "wb", buffering=0) as file:
        yield Pipe(task, container, file.write)
    home.ended(task)


class Follower:
    """A process that prints a log, and when what it printed came."""

    def __init__(self, argv: list[str], environment: Mapping[str, str]) -> None:
        self._what = " ".join(argv)
        self._process = subprocess.Popen(
            argv,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        )
        self.text = bytearray()
        self.lines = 0
        self.arrivals: list[tuple[int, int]] = []
        """Lines that had come by a time in nanoseconds, in order."""
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        while data := os.read(self._process.stdout.fileno(), 2**20):
            now = time.monotonic_ns()
            self.text += data
            self.lines += data.count(b"\n")
            self.arrivals.append((self.lines, now))

    def wait_for(self, lines: int) -> None:
        deadline = time.monotonic() + SOON
        while self.lines < lines:
            if time.monotonic() > deadline:
                raise BenchFailed(f"{self._what}: {self.lines} lines of {lines}")
            time.sleep(0.001)

    def delays(self, since: int) -> Iterator[float]:
        """Seconds that lines took which say when they were written; those from one on."""
        for place, line in enumerate(islice(self.text.splitlines(), since, None), since):
            came = self.arrivals[bisect_right(self.arrivals, (place, 2**63))][1]
            yield (came - int(line)) / 1e9

    @property
    def cpu(self) -> float:
        return cpu_of(self._process.pid)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()
        self._thread.join()
        assert self._process.stdout is not None
        self._process.stdout.close()


Ways = Mapping[str, Callable[[], Follower]]


def _followed(lab: Lab, pipe: Pipe, ways: Ways, controller: int) -> Iterator[Group]:
    seconds = 2.0 if lab.short else 10.0
    rates: dict[str, list[float]] = {name: [] for name in ways}
    shares: dict[str, list[float]] = {name: [] for name in ways}
    expected = bytearray()
    for _ in range(1 if lab.short else 2):
        for name, way in ways.items():
            follower = way()
            try:
                pipe.write(first := LINE % pipe.lines)
                expected += first
                follower.wait_for(pipe.lines)
                pids = (controller,) if name == FOLLOW else ()
                used, began = follower.cpu + sum(map(cpu_of, pids)), time.perf_counter()
                before = pipe.lines
                for text in _paced(seconds, pipe):
                    expected += text
                follower.wait_for(pipe.lines)
                took = time.perf_counter() - began
                used = follower.cpu + sum(map(cpu_of, pids)) - used
                if follower.text != expected:
                    raise BenchFailed(f"{name}: its lines are not those that were written")
            finally:
                follower.close()
            rates[name].append((pipe.lines - before) / took)
            shares[name].append(used / took)
    title = f"a log followed at {PACE:,} lines a second"
    yield Group(
        5,
        title,
        tuple(Series(name, tuple(each)) for name, each in rates.items()),
        PER_SECOND,
        aims=(Aim("at least 0.9 of ssh, no line lost", against=SSH_FOLLOW, at_least=0.9),),
    )
    yield Group(
        5,
        f"{title}: CPU here (controller and command; ssh)",
        tuple(Series(name, tuple(each)) for name, each in shares.items()),
        PERCENT_OF_A_CORE,
    )


def _paced(seconds: float, pipe: Pipe) -> Iterator[bytes]:
    """Writes lines, and answers them."""
    began, first = time.perf_counter(), pipe.lines
    while (passed := time.perf_counter() - began) < seconds:
        due = first + int(passed * PACE) - pipe.lines
        lines = [LINE % number for number in range(pipe.lines, pipe.lines + due)]
        pipe.write(*lines)
        yield b"".join(lines)
        time.sleep(BURST)


def _delayed(lab: Lab, pipe: Pipe, ways: Ways) -> Group:
    """Both follow at once, so that each line comes to both."""
    of_each: dict[str, list[list[float]]] = {name: [] for name in ways}
    for _ in range(1 if lab.short else 3):
        followers = {name: way() for name, way in ways.items()}
        try:
            # The first may come before they follow, with all that was there.
            for _ in range(5):
                pipe.write(b"begin\n")
                for follower in followers.values():
                    follower.wait_for(pipe.lines)
            begin = pipe.lines
            for _ in range(300 if lab.short else 1000):
                pipe.write(b"%d\n" % time.monotonic_ns())
                time.sleep(APART)
            for name, follower in followers.items():
                follower.wait_for(pipe.lines)
                cuts = quantiles(follower.delays(begin), n=100)
                of_each[name].append([cuts[49], cuts[98]])
        finally:
            for follower in followers.values():
                follower.close()
    series = [
        Series(f"{name}, {part}", tuple(one[at] for one in each))
        for at, part in enumerate(("p50", "p99"))
        for name, each in of_each.items()
    ]
    over = tuple(
        ours[1] - theirs[1]
        for ours, theirs in zip(of_each[FOLLOW], of_each[SSH_FOLLOW], strict=True)
    )
    return Group(
        5,
        "one line, from the program that writes it to our stdout",
        (*series, Series("p99 over ssh's", over)),
        MS,
        aims=(Aim("p99 at most 20 ms over ssh's", of="p99 over ssh's", at_most=20),),
    )
