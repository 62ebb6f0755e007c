"""Faults of connections and log-ins. None of them may end a task, or start one twice."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

from tests.fleet_lab.processes import members
from tests.fleet_lab.worker import Worker, make_key

from .faults import fault
from .lab import Lab, Laptop, until

STILL = "every task completes, in the container it was started in"


def connections_of(worker: Worker) -> list[int]:
    """The sshd processes that serve a connection."""
    found = members(worker.mark)
    return [
        pid for pid, name in found.items() if name.startswith("sshd") and pid != worker.sshd.pid
    ]


def worker_state(laptop: Laptop, worker: Worker) -> str:
    """As the controller tells it; starts none."""
    try:
        workers = laptop.get("/workers/")["workers"]
    except (OSError, ValueError):
        return ""
    return next(str(one["state"]) for one in workers if one["worker_id"] == worker.name)


def some(laptop: Laptop, count: int, **how: object) -> list[str]:
    """That many tasks."""
    return [laptop.submit(f"t{number}", **how) for number in range(count)]  # type: ignore[arg-type]


def all_complete(lab: Lab) -> None:
    outcome = lab.settle()
    assert set(outcome) == {"completed"}, outcome


@fault(
    "connection killed during a command",
    how="SIGKILL of every connection's sshd, again and again while tasks start and write",
    expected=STILL,
    short=True,
)
def connections_killed(lab: Lab) -> None:
    laptop = lab.laptop()
    for number in range(8):
        laptop.submit(f"t{number}", lines=15)
        for worker in lab.fleet.workers:
            worker.drop_connections()
            lab.times += 1
        time.sleep(lab.random.uniform(0, 0.4))
    all_complete(lab)


@fault(
    "reply lost after docker run",
    how="docker run succeeds, then the connection dies before the worker can answer",
    expected=STILL,
    short=True,
)
def reply_lost_after_run(lab: Lab) -> None:
    worker = lab.fleet.workers[0]
    laptop = lab.laptop()
    ran = worker.root / "ran"
    lab.undo.append(lambda: ran.unlink(missing_ok=True))
    lab.put_tool(
        worker,
        "docker",
        f'/usr/bin/docker "$@"; code=$?\n'
        f'if [ "$1" = run ]; then echo >>{ran}; sleep 5; fi\nexit $code\n',
    )
    for number in range(2):
        laptop.submit(f"t{number}", worker=worker)
        until(lambda n=number: ran.exists() and ran.stat().st_size > n, "docker run went through")
        worker.drop_connections()
        lab.times += 1
    all_complete(lab)


@fault(
    "half-open link",
    how="SIGSTOP of the connections' sshd: open, and silent",
    expected=STILL,
)
def half_open(lab: Lab) -> None:
    worker = lab.fleet.workers[0]
    laptop = lab.laptop()
    laptop.until_running(laptop.submit("before", worker=worker, held=True))
    frozen = connections_of(worker)
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    lab.times += len(frozen)
    laptop.submit("during", worker=worker)
    until(lambda: len(connections_of(worker)) > len(frozen), "another connection is made", 90)
    for pid in frozen:
        os.kill(pid, signal.SIGKILL)
    all_complete(lab)


@fault(
    "reply cut in half",
    how="a relay ends each connection after a number of bytes that grows from one to the next",
    expected=STILL,
)
def reply_cut(lab: Lab) -> None:
    worker = lab.fleet.workers[0]
    laptop = lab.laptop()
    relay = lab.relay(laptop, worker)
    relay.cut_after = 3000
    some(laptop, 3, worker=worker)
    for _ in range(8):
        before = relay.cuts
        until(lambda n=before: relay.cuts > n, "a connection was cut", 60)
        relay.cut_after += lab.random.randrange(400, 2500)
    lab.times = relay.cuts
    relay.cut_after = 0
    all_complete(lab)


@fault("MaxSessions 2", how="sshd_config", expected=STILL, short=True)
def max_sessions(lab: Lab) -> None:
    worker = lab.fleet.workers[0]
    worker.sshd_options = {"MaxSessions": "2"}
    worker.restart("sshd")
    laptop = lab.laptop()
    tasks = some(laptop, 4, worker=worker, lines=5)
    followers = [laptop.start("logs", "-f", task_id) for task_id in tasks]
    lab.times = 1
    for follower in followers:
        out, error = follower.communicate(timeout=90)
        assert out.count(b"line") == 5, error
    all_complete(lab)


@fault("MaxStartups 1", how="sshd_config; three controllers knock at once", expected=STILL)
def max_startups(lab: Lab) -> None:
    worker = lab.fleet.workers[0]
    worker.sshd_options = {"MaxStartups": "1"}
    worker.restart("sshd")
    for number, laptop in enumerate([lab.laptop() for _ in range(3)]):
        laptop.submit(f"t{number}", worker=worker)
        lab.times += 1
    all_complete(lab)


@fault(
    "wrong key three times",
    how="another identity_file in the inventory, mended and broken again",
    expected="it knocks once for each wrong key and not again; the task waits, then completes",
)
def wrong_key(lab: Lab) -> None:
    worker = lab.fleet.workers[0]
    laptop = lab.laptop()
    good = laptop.inventory.read_text()
    running = laptop.submit("running", worker=worker, held=True)
    laptop.until_running(running)
    log = worker.sshd.log
    for number in range(3):
        other = lab.folder / f"wrong{number}"
        make_key(other, "nobody")
        laptop.inventory.write_text(good.replace(str(lab.fleet.identity_file), str(other)))
        until(lambda: worker_state(laptop, worker) == "stopped", "it is refused")
        knocks = log.read_text().count("Connection closed by authenticating")
        time.sleep(2)  # to see that it does not knock again
        assert log.read_text().count("Connection closed by authenticating") == knocks
        waiting = laptop.submit(f"waiting{number}", worker=worker, lines=3)
        assert laptop.task_of(waiting)["status"] == "queued"
        assert laptop.task_of(running)["status"] == "running"
        laptop.inventory.write_text(good)
        until(lambda: worker_state(laptop, worker) == "active", "it is let in again")
        lab.times += 1
    all_complete(lab)


@fault(
    "host key changed",
    how="sshd comes back with another key; later with the key pinned anew",
    expected="that worker stops, no byte of a task is sent to it; the others go on",
    short=True,
)
def host_key_changed(lab: Lab) -> None:
    worker, other, *_ = lab.fleet.workers
    laptop = lab.laptop()
    running = laptop.submit("running", worker=worker, held=True)
    laptop.until_running(running)
    worker.change_host_key()
    lab.times = 1
    until(lambda: worker_state(laptop, worker) == "stopped", "it is noticed")
    waiting = laptop.submit("waiting", worker=worker, lines=3)
    elsewhere = laptop.submit("elsewhere", worker=other, lines=3)
    assert laptop.ended(elsewhere)["status"] == "completed"
    assert laptop.task_of(waiting)["status"] == "queued"
    assert laptop.task_of(running)["status"] == "running"
    (laptop.folder / "known_hosts").write_text(lab.fleet.known_hosts())
    laptop.run("doctor", worker.name, code=None)
    all_complete(lab)


@fault("sshd restarted", how="SIGKILL of listener and connections, started again", expected=STILL)
def sshd_restarted(lab: Lab) -> None:
    laptop = lab.laptop()
    some(laptop, 6, lines=20)
    for _ in range(2):
        for worker in lab.fleet.workers:
            worker.restart("sshd")
            lab.times += 1
    all_complete(lab)


@fault(
    "800 ms latency and 8 KB/s",
    how="a relay in front of sshd",
    expected=STILL,
)
def slow_line(lab: Lab) -> None:
    worker = lab.fleet.workers[0]
    laptop = lab.laptop()
    relay = lab.relay(laptop, worker)
    relay.delay, relay.rate = 0.4, 8192  # each way
    lab.times = 1
    some(laptop, 2, worker=worker, lines=20)
    all_complete(lab)


@fault(
    "all workers vanish",
    how="every worker's network is cut at once, for longer than every timeout",
    expected="no task changes; " + STILL,
)
def all_vanish(lab: Lab) -> None:
    laptop = lab.laptop()
    tasks = some(laptop, 6, held=True)
    laptop.until_running(*tasks)
    for worker in lab.fleet.workers:
        worker.cut()
        lab.times += 1
    for worker in lab.fleet.workers:
        until(lambda one=worker: worker_state(laptop, one) == "unreachable", "it is noticed", 90)
    assert {laptop.task_of(task_id)["status"] for task_id in tasks} == {"running"}
    all_complete(lab)


FAKETIME = Path("/usr/lib")
"""Where the package libfaketime puts its libraries, by architecture."""


def moved_clock(moved: str, **more: str) -> dict[str, str]:
    """The environment of programs that see their wall clock moved by that many seconds
    (libfaketime), and their other clocks as they are."""
    library = next(FAKETIME.glob("*/faketime/libfaketimeMT.so.1"))
    return {"LD_PRELOAD": str(library), "DONT_FAKE_MONOTONIC": "1", "FAKETIME": moved} | more


@fault(
    "controller stopped",
    how="SIGSTOP for longer than every timeout, with its clock moved on by ten minutes"
    " meanwhile, as of a laptop that sleeps; then SIGCONT",
    expected=STILL,
)
def controller_stopped(lab: Lab) -> None:
    clock = lab.folder / "clock"
    clock.write_text("+0")
    seen = {"FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_CACHE_DURATION": "1"}
    environment = moved_clock("+0", **seen)
    del environment["FAKETIME"]  # it goes before the file
    laptop = lab.laptop(**environment)
    laptop.until_running(*some(laptop, 6, held=True, time_limit=300))
    pid = laptop.controller
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    lab.times = 1
    clock.write_text("+600")
    time.sleep(40)  # nothing happens meanwhile; that is the point
    os.kill(pid, signal.SIGCONT)
    assert {task["status"] for task in until(laptop.tasks, "it answers") or ()} == {"running"}
    all_complete(lab)


def put_bashrc(lab: Lab, worker: Worker, text: str) -> None:
    path: Path = worker.home / ".bashrc"
    path.write_text(text)
    lab.undo.append(lambda: path.unlink(missing_ok=True))


@fault(
    "noise in .bashrc",
    how="text, a NUL, escape sequences and what looks like a reply, on both streams",
    expected=STILL,
    short=True,
)
def noise(lab: Lab) -> None:
    worker = lab.fleet.workers[0]
    put_bashrc(
        lab,
        worker,
        "printf 'Welcome!\\n\\000\\033[2J{\"Id\": 1}\\nverdict ran\\n'\n"
        "printf 'noise\\377\\n' >&2\n",
    )
    lab.times = 1
    some(lab.laptop(), 3, worker=worker)
    all_complete(lab)


@fault(
    "a login that hangs",
    how="sleep in .bashrc, taken out later",
    expected="the worker counts as unreachable, its tasks wait; then " + STILL,
)
def hanging_login(lab: Lab) -> None:
    worker = lab.fleet.workers[0]
    laptop = lab.laptop()
    laptop.until_running(laptop.submit("before", worker=worker, held=True))
    put_bashrc(lab, worker, "sleep 1000\n")
    worker.drop_connections()
    lab.times = 1
    laptop.submit("during", worker=worker, lines=3)
    until(lambda: worker_state(laptop, worker) == "unreachable", "it is noticed", 90)
    lab.heal()
    for pid, name in members(worker.mark).items():
        # The log-ins that hang would hang for as long as they said.
        if name == "sleep" and "1000" in Path(f"/proc/{pid}/cmdline").read_text():
            os.kill(pid, signal.SIGKILL)
    all_complete(lab)


@fault(
    "login shell of another kind",
    how="the log-in runs fish, csh, and nologin in turn",
    expected="fish and csh make no difference; nologin makes the worker unreachable",
)
def login_shells(lab: Lab) -> None:
    worker = lab.fleet.workers[0]
    laptop = lab.laptop()
    for shell in ("/usr/bin/fish", "/bin/csh"):
        found = subprocess.run(["test", "-x", shell], check=False).returncode == 0
        assert found, f"{shell} is not here"
        # As sshd does: the user's shell gets the command by -c.
        worker.sshd_options = {"ForceCommand": f'{shell} -c "$SSH_ORIGINAL_COMMAND"'}
        worker.restart("sshd")
        lab.times += 1
        task = laptop.submit(f"in-{Path(shell).name}", worker=worker, lines=3)
        assert laptop.ended(task)["status"] == "completed"
    worker.sshd_options = {"ForceCommand": "/usr/sbin/nologin"}
    worker.restart("sshd")
    lab.times += 1
    until(lambda: worker_state(laptop, worker) in ("unreachable", "stopped"), "it is noticed", 90)
    all_complete(lab)
