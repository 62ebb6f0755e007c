"""The same short story over every way to a worker: what people see must not differ."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime

import pytest

from tests.fleet.cloudai_home import Home, a_home
from tests.fleet_lab import Fleet, Worker
from tests.fleet_lab.fleet import reserved_root

STORY = "echo one; until [ -e /go ]; do sleep 0.1; done; printf 'two\\000\\303\\251'; exit 7"
NOISE = """echo 'Welcome to this machine!'
printf 'no end of line '
echo 'and a complaint' >&2
"""


def tell_the_story(home: Home, worker: Worker | str, *, watched_by: str) -> None:
    """Dispatch, follow, look, enter, end."""
    task = home.dispatch(worker, "alpine", "--memory", "64m", "-c", STORY)
    following = home.start("logs", "-f", task, bufsize=0)
    assert following.stdout is not None
    assert following.stdout.readline() == b"one\n"

    seen = home.worker(worker)
    assert (seen["state"], seen["watching"]) == ("active", watched_by)
    [held] = seen["reservations"]
    assert (held["task_id"], held["mine"], held["cpus"]) == (task, True, 1.0)
    assert held["cpu_percent"] >= 0
    assert 0 <= held["memory_used"] < 64 / 1024

    inside = home.run("exec", "-i", task, "--", "sh", "-c", "cat; exit 5", send=b"a\0b", code=5)
    assert inside.out == b"a\0b"
    home.run("exec", task, "--", "touch", "/go")

    out, error = following.communicate(timeout=60)
    assert (following.returncode, out) == (0, b"two\0\xc3\xa9"), error
    home.run("wait", task, code=7)
    [ended] = home.ended(task)
    assert (ended["status"], ended["exit_code"]) == ("failed", 7)
    [exited] = [event["at"] for event in ended["events"] if event["what"] == "exited"]
    late = datetime.fromisoformat(exited) - datetime.fromisoformat(ended["completed_at"])
    assert 0 <= late.total_seconds() < 1, "known within a second"
    assert home.run("logs", task).out == b"one\ntwo\0\xc3\xa9"
    assert home.worker(worker)["tasks"] == 0


# ------------------------------------------------------------------ sshd


def login_shell(name: str) -> dict[str, str]:
    """sshd takes the shell from the account; a forced command puts another one before it."""
    path = shutil.which(name)
    assert path, f"{name} is not installed: apt-get install {name}"
    return {"ForceCommand": f'{path} -c "$SSH_ORIGINAL_COMMAND"'}


WAYS: dict[str, tuple[Callable[[], dict[str, str]], str]] = {
    "no-sockets": (lambda: {"AllowStreamLocalForwarding": "no"}, "cli"),
    "two-sessions": (lambda: {"MaxSessions": "2"}, "api"),
    "two-sessions-no-sockets": (
        lambda: {"MaxSessions": "2", "AllowStreamLocalForwarding": "no"},
        "cli",
    ),
    "fish": (lambda: login_shell("fish"), "api"),
}


@pytest.mark.parametrize("way", WAYS)
def test_over_an_sshd_that_is_set_up_otherwise(mended_fleet, home, way):
    settings, watched_by = WAYS[way]
    worker = mended_fleet[1]
    worker.sshd_options = settings()
    worker.restart("sshd")
    home.know_only(worker)
    tell_the_story(home, worker, watched_by=watched_by)


@pytest.fixture
def noisy(mended_fleet: Fleet) -> Iterator[Worker]:
    worker = mended_fleet[1]
    start_up = worker.home / ".bashrc"
    start_up.write_text(NOISE)
    yield worker
    start_up.unlink()


@pytest.mark.parametrize("way", ["api", "cli"])
def test_over_a_login_that_prints(noisy, home, way):
    if way == "cli":
        noisy.sshd_options = {"AllowStreamLocalForwarding": "no"}
        noisy.restart("sshd")
    assert "Welcome" in noisy.ssh("true").stdout
    home.know_only(noisy)
    tell_the_story(home, noisy, watched_by=way)


# ------------------------------------------------------------------ engines


def test_on_an_engine_with_a_bridge(tmp_path):
    with ExitStack() as stack:
        root = stack.enter_context(reserved_root())
        fleet = stack.enter_context(Fleet(root, workers=1, gpus=(), bridge=True))
        home = stack.enter_context(a_home(tmp_path / "h", fleet))
        tell_the_story(home, fleet[1], watched_by="api")
        task = home.dispatch(fleet[1], "alpine", "--", "ip", "addr", "show", "eth0")
        home.ended(task)
        assert "inet 172." in home.run("logs", task).text


def test_without_ssh_on_this_machine(mended_fleet, home):
    worker = mended_fleet[1]
    home.inventory.write_text(
        f"workers:\n  here: {{connection: local, engine_socket: {worker.docker_host}}}\n"
    )
    tell_the_story(home, "here", watched_by="api")
    home.run("controller", "stop")
    # asyncio warns where somebody else took a process's exit status from it.
    log = (home.folder / "controller.log").read_text()
    assert "Unknown child process" not in log
    assert " WARNING " not in log
    assert " ERROR " not in log
