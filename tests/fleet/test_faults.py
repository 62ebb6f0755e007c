"""What is promised when things break, on real sshd and real engines (the short form)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fleet.cloudai_home import Home, a_home, counted_starts, until
from tests.fleet_lab import Fleet, Worker
from tests.fleet_lab.fleet import reserved_root
from tests.fleet_lab.processes import members

WAITING = "seq 1 500; until [ -e /go ]; do sleep 0.1; done; seq 501 1000; exit 9"
WHOLE = b"".join(b"%d\n" % number for number in range(1, 1001))


def let_go(worker: Worker, container: str) -> None:
    """Lets a task that runs WAITING go on, whatever cloudai can reach."""
    done = worker.docker("exec", container, "touch", "/go")
    assert done.returncode == 0, done.stderr


def waiting_task(home: Home, worker: Worker) -> tuple[str, str]:
    """A task that goes on when told, and its container."""
    task = home.dispatch(worker, "alpine", "-c", WAITING)
    return task, home.ask(f"/tasks/{task}")["container_id"]


def ends_by_itself(home: Home, task: str, container: str) -> None:
    """It ends with its own code and its whole log, in the container it always had."""
    [ended] = home.ended(task, seconds=60)
    assert (ended["status"], ended["exit_code"], ended["reason"]) == ("failed", 9, "exit code 9")
    assert [one["container_id"] for one in ended["assignments"]] == [container]
    assert home.run("logs", task).out == WHOLE


def unreachable(home: Home, worker: Worker) -> None:
    until(lambda: home.seen(worker)["state"] == "unreachable", "it is noticed", seconds=60)


# ------------------------------------------------------------------ the way to a worker


def test_a_worker_cut_off_keeps_its_task_and_nobody_else_minds(alert_home, mended_fleet):
    home, worker = alert_home, mended_fleet[1]
    task, container = waiting_task(home, worker)
    worker.cut()
    unreachable(home, worker)
    shown = home.ask(f"/tasks/{task}")
    assert (shown["status"], shown["worker_seen"]["reachable"]) == ("running", False)
    assert shown["worker_seen"]["since"] == home.seen(worker)["since"]
    assert "has not been reached since" in home.run("show", task).text
    assert re.search(r"^worker-1 +unreachable .* since \d\d:\d\d", home.run("workers").text, re.M)
    queued = home.task(worker.name, "alpine", "--", "true")
    until(lambda: "unreachable since" in home.ask(f"/tasks/{queued}")["reason"], "why it waits")
    home.ended(home.task("worker-2", "alpine", "--", "true"))
    let_go(worker, container)
    assert home.ask(f"/tasks/{task}")["status"] == "running"
    worker.uncut()
    ends_by_itself(home, task, container)
    assert home.ended(queued)[0]["status"] == "completed"


def test_an_sshd_killed_and_restarted_costs_nothing(home, mended_fleet):
    worker = mended_fleet[1]
    task, container = waiting_task(home, worker)
    worker.kill("sshd")
    unreachable(home, worker)
    until(lambda: "connection refused" in home.seen(worker)["reason"], "why")
    let_go(worker, container)
    assert home.ask(f"/tasks/{task}")["status"] == "running"
    worker.start("sshd")
    ends_by_itself(home, task, container)


def test_following_a_log_survives_its_connections(home, mended_fleet):
    worker = mended_fleet[1]
    script = "for i in $(seq 1 60); do seq ${i}00 ${i}99; sleep 0.05; done; printf end"
    task = home.dispatch(worker, "alpine", "-c", script)
    following = home.start("logs", "-f", task, bufsize=0)
    assert following.stdout is not None
    seen = b""
    for more in (1, 2000, 4000):
        while seen.count(b"\n") < more:
            seen += following.stdout.readline()
        worker.drop_connections()
    rest, error = following.communicate(timeout=90)
    assert following.returncode == 0, error
    home.ended(task)
    expected = subprocess.run(
        ["busybox", "sh", "-c", script.replace("sleep 0.05", ":")], capture_output=True, check=True
    ).stdout
    assert seen + rest == expected
    assert home.run("logs", task).out == expected


# ------------------------------------------------------------------ engines


@pytest.fixture
def live_worker(mended_fleet: Fleet) -> Iterator[Worker]:
    """A worker whose containers outlive their engine."""
    worker = mended_fleet[1]
    worker.engine_options = ["--live-restore"]
    worker.restart("dockerd")
    yield worker
    worker.engine_options = []
    worker.remove_containers()
    worker.restart("dockerd")


def test_a_task_outlives_its_engine_with_live_restore(live_worker, home):
    task, container = waiting_task(home, live_worker)
    live_worker.kill("dockerd")
    unreachable(home, live_worker)
    assert home.ask(f"/tasks/{task}")["status"] == "running"
    live_worker.start("dockerd")
    until(lambda: home.worker(live_worker)["state"] == "active", "it is back")
    let_go(live_worker, container)
    ends_by_itself(home, task, container)


def test_a_task_that_its_engine_took_along_is_no_success(home, mended_fleet):
    worker = mended_fleet[1]
    task, _ = waiting_task(home, worker)
    worker.kill("dockerd")
    unreachable(home, worker)
    assert home.ask(f"/tasks/{task}")["status"] == "running"
    worker.start("dockerd")
    [ended] = home.ended(task, seconds=60)
    assert ended["status"] == "failed"
    assert ended["exit_code"] not in (0, 9)
    assert ended["reason"]
    assert home.run("logs", task).out == WHOLE[: WHOLE.index(b"501\n")]
    home.ended(home.task(worker.name, "alpine", "--", "true"))


def test_a_container_removed_by_hand_is_no_success(home, mended_fleet):
    worker = mended_fleet[1]
    task, container = waiting_task(home, worker)
    assert home.run("logs", task).out
    assert worker.docker("rm", "-f", container).returncode == 0
    [ended] = home.ended(task)
    assert ended["status"] == "failed"
    assert ended["reason"]
    assert home.run("logs", task).out == WHOLE[: WHOLE.index(b"501\n")]


# ------------------------------------------------------------------ who a worker is


def test_a_changed_host_key_stops_that_worker_until_the_hint_is_followed(home, mended_fleet):
    worker = mended_fleet[1]
    home.run("workers")
    before = worker.fingerprint
    worker.change_host_key()
    until(lambda: home.seen(worker)["state"] == "stopped", "it is noticed")
    reason = home.seen(worker)["reason"]
    assert before in reason
    assert worker.fingerprint in reason
    home.ended(home.task("worker-2", "alpine", "--", "true"))
    refused = home.run("dispatch", worker.name, "alpine", "--", "true", code=5)
    mend = re.search(r"only then: (.*)", refused.error)
    assert mend, refused.error

    # As a person would: paste it, and answer what it asks.
    commands = mend[1].replace("cloudai register", "cloudai register --yes")
    tools = home.folder / "tools"
    tools.mkdir()
    (tools / "cloudai").write_text(f'#!/bin/sh\nexec {sys.executable} -m cloudai "$@"\n')
    (tools / "cloudai").chmod(0o755)
    inventory = home.inventory.read_text()
    path = f"{tools}:{home.environment['PATH']}"
    pasted = subprocess.run(
        ["/bin/sh", "-ec", commands],
        env=home.environment | {"PATH": path},
        cwd=home.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert pasted.returncode == 0, (commands, pasted)
    assert home.inventory.read_text() == inventory
    assert worker.known_hosts_line in (home.folder / "known_hosts").read_text()
    until(lambda: home.seen(worker)["state"] == "active", "it is back")
    home.ended(home.dispatch(worker, "alpine", "--", "true"))


def test_one_machine_under_two_names_is_booked_once(home, mended_fleet):
    worker = mended_fleet[1]
    home.inventory.write_text(
        home.inventory.read_text() + f"  twin: {{host: {worker.host}, port: {worker.port}}}\n"
    )
    until(lambda: home.seen("twin")["state"] == "stopped", "it is noticed")
    why = "the same machine and engine as worker-1"
    assert why in home.seen("twin")["reason"]
    assert why in home.run("workers").text
    assert "not active" in home.run("dispatch", "twin", "alpine", code=1).error
    queued = home.task("twin", "alpine", "--", "true")
    until(lambda: why in home.ask(f"/tasks/{queued}")["reason"], "why it waits")
    home.ended(home.dispatch(worker, "alpine", "--", "true"))


# ------------------------------------------------------------------ us


def test_a_controller_killed_five_times_loses_and_doubles_nothing(home, mended_fleet):
    with counted_starts(*mended_fleet.workers) as starts:
        tasks = []
        for number in range(12):
            script = f"echo {number} begins; sleep 1; echo {number} ends; exit {number % 3}"
            tasks.append(home.task("alpine", "--cpus", "0.5", "--memory", "32m", "-c", script))
            if number % 2:
                home.kill_controller()
            if number == 10:
                break
        tasks.append(home.task("alpine", "--cpus", "0.5", "--memory", "32m", "-c", "exit 11"))
        ended = home.ended(*tasks, seconds=90)
    assert [task["exit_code"] for task in ended] == [*(number % 3 for number in range(11)), 11]
    names = [one["assignment_id"] for task in ended for one in task["assignments"]]
    assert dict(starts) == dict.fromkeys(names, 1)
    for number, task in enumerate(tasks[:11]):
        expected = f"{number} begins\n{number} ends\n"
        assert home.run("logs", task).text == expected
    for worker in mended_fleet.workers:
        assert worker.docker("ps", "-aq").stdout == ""


def listening(worker: Worker) -> set[str]:
    """The sockets that its processes listen on."""
    found = set()
    for pid in members(worker.mark):
        try:
            open_files = {os.readlink(file) for file in Path(f"/proc/{pid}/fd").iterdir()}
            tcp = [
                line.split()
                for name in ("tcp", "tcp6")
                for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]
            ]
            unix = [
                line.split() for line in Path(f"/proc/{pid}/net/unix").read_text().splitlines()[1:]
            ]
        except OSError:
            continue
        found |= {
            f"tcp {row[1]}" for row in tcp if f"socket:[{row[9]}]" in open_files if row[3] == "0A"
        }
        found |= {
            f"unix {row[7]}"
            for row in unix
            if f"socket:[{row[6]}]" in open_files
            if row[3] == "00010000" and len(row) > 7
        }
    return found


def traces(worker: Worker, place: Path) -> dict[str, object]:
    """What could be left behind on a worker, but for images and logs of its daemons."""
    files = [
        path for folder in ("home", "etc", "tools") for path in (worker.root / folder).rglob("*")
    ]
    return {
        "processes": set(members(worker.mark).items()),
        "listening": listening(worker),
        "files": {str(path) for path in files},
        "temporary": sorted(os.listdir(place)),
        "in memory": sorted(os.listdir(place.parent / "dev" / "shm")),
        "containers": worker.docker("ps", "-aq").stdout,
        "volumes": worker.docker("volume", "ls", "-q").stdout,
        "networks": worker.docker("network", "ls", "-q").stdout,
    }


def test_nothing_of_ours_is_left_on_a_worker(tmp_path):
    """From before it is registered until its tasks ended: but for images, all is as before."""
    with reserved_root(Path("/var/tmp")) as root, Fleet(root, workers=1, gpus=()) as fleet:
        worker = fleet[1]
        # A /tmp and a /dev/shm of its own: the machine's are everybody's.
        inside = ["nsenter", f"--mount=/proc/{worker.keeper.pid}/ns/mnt"]
        for folder in ("/tmp", "/dev/shm"):
            subprocess.run([*inside, "mount", "-t", "tmpfs", "tmp", folder], check=True)
        place = Path(f"/proc/{worker.keeper.pid}/root/tmp")
        before = traces(worker, place)
        with a_home(tmp_path / "h", fleet) as home:
            home.inventory.unlink()
            home.run(
                *("register", worker.name, f"{worker.user}@{worker.host}:{worker.port}"),
                *("--identity-file", str(fleet.identity_file)),
                *("--fingerprint", worker.fingerprint),
            )
            task, container = waiting_task(home, worker)
            home.run("secret", "set", "KEY", "--in-file", send=b"x\0y")
            with_secret = home.task(
                *("alpine", "-e", "TOKEN=x y", "--secret", "KEY"),
                *("-c", 'echo "$TOKEN"; od -c /run/secrets/KEY'),
            )
            following = home.start("logs", "-f", task)
            home.run("exec", task, "--", "true")
            home.run("doctor", worker.name)
            home.worker(worker)
            home.run("dispatch", worker.name, "no-such-image:1", code=None)
            let_go(worker, container)
            ends_by_itself(home, task, container)
            home.ended(with_secret)
            following.communicate(timeout=30)

            def connected() -> bool:
                now = traces(worker, place)
                extra = now["processes"] - before["processes"]
                return {name for _, name in extra} <= {"sshd"} and all(
                    now[key] == before[key] for key in before if key != "processes"
                )

            until(connected, "all but the connection is as before")
        until(lambda: traces(worker, place) == before, "all is as before")


# ------------------------------------------------------------------ ops


def test_a_bad_edit_keeps_the_last_good_inventory_and_is_said_until_mended(home):
    good = home.inventory.read_text()
    assert home.run("workers").error == ""
    home.inventory.write_text(good.replace("worker-2: {host", "worker-2: {hots"))
    at = f"{home.inventory}:4:14: unknown key 'hots'; did you mean 'host'?"
    for words in (("workers",), ("tasks",), ("dispatch", "worker-2", "alpine", "--", "true")):
        assert at in home.run(*words).error
    assert len(home.json("workers")["workers"]) == 3
    home.kill_controller()
    # A fresh controller has no last good one to fall back to: it knows no worker, and says why.
    assert at in home.run("workers").error
    home.inventory.write_text(good)
    assert home.run("workers").error == ""
    assert home.worker("worker-2")["state"] == "active"


def test_a_drained_worker_finishes_what_it_has_and_takes_nothing_new(home, mended_fleet):
    worker = mended_fleet[1]
    task, container = waiting_task(home, worker)
    home.run("drain", worker.name)
    assert home.seen(worker)["state"] == "draining"
    queued = home.task(worker.name, "alpine", "--", "true")
    until(lambda: "draining" in home.ask(f"/tasks/{queued}")["reason"], "why it waits")
    assert "not active" in home.run("dispatch", worker.name, "alpine", code=1).error
    home.kill_controller()
    assert home.ask("/workers/")["workers"][0]["draining"] is True
    let_go(worker, container)
    ends_by_itself(home, task, container)
    assert home.ask(f"/tasks/{queued}")["status"] == "queued"
    home.run("resume", worker.name)
    assert home.ended(queued)[0]["status"] == "completed"
