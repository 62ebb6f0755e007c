"""Processes that outlive the Python that started them, found and ended by pid alone."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

POLL_SECONDS = 0.005


class FleetError(Exception):
    """The practice fleet cannot do that; the message says exactly why."""


def wait_until(condition: Callable[[], bool], what: str, *, timeout: float = 20.0) -> None:
    """Polls until the condition holds. Raises ``FleetError`` naming ``what`` after ``timeout``
    seconds.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise FleetError(f"{what}: not within {timeout:g} s")
        time.sleep(POLL_SECONDS)


def _stat(pid: int) -> tuple[str, str] | None:
    """(state letter, start time in ticks) of a process, ``None`` when there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()
    return fields[0], fields[19]


def alive(pid: int) -> bool:
    """Whether it runs; one that ended but was not reaped by its parent does not."""
    found = _stat(pid)
    return found is not None and found[0] not in "ZX"


class Daemon:
    """A process known by a file with its pid and its start time, so that another process
    that got the same pid later is never taken for it.
    """

    def __init__(self, name: str, pid_file: Path, log: Path) -> None:
        self.name = name
        self.pid_file = pid_file
        self.log = log

    @property
    def pid(self) -> int | None:
        """Its pid while it runs."""
        try:
            pid, started = self.pid_file.read_text().split()
        except (FileNotFoundError, ValueError):
            return None
        found = _stat(int(pid))
        if found is None or found[0] in "ZX" or found[1] != started:
            return None
        return int(pid)

    @property
    def frozen(self) -> bool:
        pid = self.pid
        found = _stat(pid) if pid else None
        return found is not None and found[0] == "T"

    def start(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None) -> None:
        """Starts it detached, its output appended to the log. Returns at once."""
        # A shell in between, so that init becomes the parent and no child is left to reap.
        script = 'log=$1; shift; "$@" >>"$log" 2>&1 </dev/null & echo $!'
        started = subprocess.run(
            ["/bin/sh", "-c", script, self.name, str(self.log), *argv],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,
            check=True,
        )
        pid = int(started.stdout)
        found = _stat(pid)
        self.pid_file.write_text(f"{pid} {found[1] if found else 0}\n")

    def signal(self, number: signal.Signals) -> None:
        """Raises ``FleetError`` when it does not run."""
        pid = self.pid
        if pid is None:
            raise FleetError(f"{self.name} is not running{self.last_words()}")
        os.kill(pid, number)

    def stop(self) -> None:
        """SIGTERM, and waits until it has ended; fine when it is not running."""
        if self.pid is not None:
            self.signal(signal.SIGTERM)
            wait_until(lambda: self.pid is None, f"{self.name} ends")
        self.pid_file.unlink(missing_ok=True)

    def kill(self) -> None:
        """Ends it at once, frozen or not; fine when it is not running."""
        pid = self.pid
        if pid is not None:
            end([pid])
        self.pid_file.unlink(missing_ok=True)

    def wait_ready(self, ready: Callable[[], bool], *, timeout: float = 30.0) -> None:
        """Waits for the condition; raises ``FleetError`` with the log's end if it dies first."""

        def settled() -> bool:
            if ready():
                return True
            if self.pid is None:
                raise FleetError(f"{self.name} ended at once{self.last_words()}")
            return False

        try:
            wait_until(settled, f"{self.name} answers", timeout=timeout)
        except FleetError as error:
            raise FleetError(f"{error}{self.last_words()}") from None

    def last_words(self, lines: int = 8) -> str:
        """The end of its log, for messages."""
        try:
            text = self.log.read_text(errors="replace")
        except FileNotFoundError:
            return ""
        tail = text.splitlines()[-lines:]
        return "".join(f"\n  {line}" for line in [f"({self.log})", *tail]) if tail else ""


# ------------------------------------------------------------------ those nobody wrote down


def members(mark: str) -> dict[int, str]:
    """Every process of a worker by pid, with its short name: those that see the mount named
    ``mark`` (all that was started in the worker's mount namespace) and those in a cgroup
    below it (its containers). The beginning of a mark stands for all that begin so.
    """
    seen: dict[str, bool] = {}
    found = {}
    for pid in _pids():
        try:
            namespace = os.readlink(f"/proc/{pid}/ns/mnt")
            if namespace not in seen:
                seen[namespace] = mark in Path(f"/proc/{pid}/mountinfo").read_text()
            ours = seen[namespace] or f"/{mark}" in Path(f"/proc/{pid}/cgroup").read_text()
            if ours and alive(pid):
                found[pid] = Path(f"/proc/{pid}/comm").read_text().strip()
        except OSError:  # it ended meanwhile
            continue
    return found


def _pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


def end(pids: Sequence[int], *, timeout: float = 20.0) -> None:
    """SIGKILLs processes and waits until they are gone."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(alive(pid) for pid in pids), f"{list(pids)} end", timeout=timeout)


def end_members(mark: str) -> None:
    """Ends all of a worker's processes; again, while new ones appear."""
    deadline = time.monotonic() + 20
    _thaw_cgroups(mark)
    while found := members(mark):
        if time.monotonic() > deadline:
            raise FleetError(f"processes of {mark} do not end: {found}")
        end(list(found))


def _cgroups(mark: str) -> Iterator[Path]:
    """The worker's cgroup in each hierarchy (v1), or in the one there is (v2)."""
    top = Path("/sys/fs/cgroup")
    yield from (*top.glob(f"{mark}*"), *top.glob(f"*/{mark}*"))


def _thaw_cgroups(mark: str) -> None:
    """A paused container of cgroup v1 does not take a SIGKILL until it is thawed."""
    for cgroup in _cgroups(mark):
        for state in cgroup.glob("**/freezer.state"):
            with contextlib.suppress(OSError):
                state.write_text("THAWED")


def remove_cgroups(mark: str) -> None:
    """Removes the worker's cgroups, which are empty by now."""
    for cgroup in list(_cgroups(mark)):
        for folder, _, _ in os.walk(cgroup, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)
