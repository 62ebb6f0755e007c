"""Secrets on the fleet, as a person uses them, and controllers that die with them on the way."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.fleet.cloudai_home import Home, a_home, until
from tests.fleet_lab import Fleet

MEMORY = Path("/dev/shm")
VALUE = b"s3cr3t-\0\xff-$(id)-'\"\n" + bytes(range(256))
MARKER = b"s3cr3t-"


@pytest.fixture
def left() -> Callable[[], set[Path]]:
    """Files of secrets that were not there before."""
    before = set(MEMORY.glob("cloudai-*"))
    return lambda: set(MEMORY.glob("cloudai-*")) - before


def test_a_secret_reaches_the_container_byte_for_byte_and_nothing_else(
    home: Home, mended_fleet: Fleet, left: Callable[[], set[Path]]
) -> None:
    worker = mended_fleet[1]
    home.know_only(worker)
    said = home.run("secret", "set", "KEY", "--in-file", send=VALUE).text
    assert (
        said == f"✅ Secret KEY is set: {len(VALUE)} bytes, kept in a file that only you can read\n"
    )
    missing = home.run("task", "alpine", "--secret", "KEYS", "--", "true", code=2)
    assert missing.error.startswith("❌ --secret: no secret 'KEYS' is set; did you mean 'KEY'?\n")

    words = ["alpine", "--secret", "KEY", "--secret", "KEY=/etc/x/key"]
    shell = "cmp /run/secrets/KEY /etc/x/key && od -An -v -tx1 /etc/x/key | tr -d ' \\n'"
    tasks = [home.task(*words, "-c", f"{shell}; until [ -e /go ]; do sleep 0.1; done")]
    tasks.append(home.task(*words, "--run-as", "1000:1000", "-c", shell))
    [ended] = home.ended(tasks[1])
    assert ended["exit_code"] == 0
    container = home.ask(f"/tasks/{tasks[0]}?until=started")["container_id"]
    assert MARKER.decode() not in worker.docker("inspect", container).stdout
    for process in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            with suppress(OSError):
                assert MARKER not in (process / name).read_bytes()
    worker.docker("exec", container, "touch", "/go")
    home.ended(tasks[0])
    assert [home.run("logs", task).text for task in tasks] == [VALUE.hex()] * 2
    assert MARKER not in home.everything()
    assert left() == set()


def test_controllers_that_die_leave_no_secret(
    mended_fleet: Fleet, left: Callable[[], set[Path]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    points = ("start.answered", "exit.seen", "harvest.removed")
    with ExitStack() as stack:
        homes = [
            stack.enter_context(a_home(tmp_path_factory.mktemp("home"), mended_fleet))
            for _ in points
        ]
        tasks = []
        for home, worker, at in zip(homes, mended_fleet.workers, points, strict=True):
            home.know_only(worker)
            home.run("secret", "set", "KEY", "--in-file", send=VALUE)
            home.run("controller", "stop")
            words = ("--secret", "KEY", "-c", "head -c 7 /run/secrets/KEY; sleep 1")
            told = home.run("task", "-q", "alpine", *words, CLOUDAI_CRASH_AT=at)
            tasks.append(told.text.strip())
        for home, task in zip(homes, tasks, strict=True):
            until(lambda home=home: dead(home), "the controller dies")
            [ended] = home.ended(task)
            assert (ended["status"], len(ended["assignments"])) == ("completed", 1)
            assert home.run("logs", task).text == "s3cr3t-"
    assert left() == set()


def dead(home: Home) -> bool:
    try:
        os.kill(home.controller_pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_what_was_removed_by_hand_is_swept(
    home: Home, mended_fleet: Fleet, left: Callable[[], set[Path]]
) -> None:
    worker = mended_fleet[1]
    home.know_only(worker)
    home.run("secret", "set", "KEY", "--in-file", send=VALUE)
    task = home.dispatch(worker, "alpine", "--secret", "KEY", "--", "sleep", "600")
    assert len(left()) == 1
    worker.docker("rm", "-f", home.ask(f"/tasks/{task}")["container_id"])
    home.run("workers", "--refresh")
    until(lambda: left() == set(), "the next look at the worker", seconds=20)
