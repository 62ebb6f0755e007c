"""Faults of the laptop: the controller dies anywhere, the disk is full, the database is not as
it should be.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from cloudai.crash import CRASH_POINTS
from tests.fleet_lab.worker import Worker

from .faults import fault
from .lab import JOB, Lab, Laptop, until
from .on_connections import STILL, all_complete, put_bashrc, some
from .on_engines import run_on

WORKS_WHEN_ASKED_AGAIN = "whoever asked asks again, and each task is done once"


def crash_at(*names: str) -> Callable[[Lab], None]:
    """A scenario: one laptop for each of these points, whose controller dies there."""

    def crash(lab: Lab) -> None:
        for name in names:
            visit(lab, lab.laptop(), name)
        for name in names:
            until(lambda name=name: not doomed(name), f"the controller dies at {name}")
            lab.times += 1
        lab.settle()

    return crash


POINTS = list(CRASH_POINTS)
for _name in POINTS:
    fault(
        f"crash at {_name}",
        how=f"the controller dies where {CRASH_POINTS[_name]}",
        expected=WORKS_WHEN_ASKED_AGAIN,
    )(crash_at(_name))


def doomed(name: str) -> list[int]:
    """The controllers that are to die at that point, and have not."""
    found, mark = [], f"CLOUDAI_CRASH_AT={name}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found


def visit(lab: Lab, laptop: Laptop, name: str) -> None:
    """Does what leads to that point. The first command's controller is the one to die there."""
    wish = {"CLOUDAI_CRASH_AT": name}
    worker = lab.fleet.workers[len(lab.laptops) % len(lab.fleet.workers)]
    job = f"j{len(lab.laptops)}"
    match name.partition(".")[0]:
        case "pull":
            # No registry can be reached here: the worker's docker has its own idea of a pull.
            lab.put_tool(
                worker,
                "docker",
                'if [ "$1" = pull ]; then exec /usr/bin/docker tag alpine:latest far:away; fi\n'
                'exec /usr/bin/docker "$@"\n',
            )
            words = ("task", "--quiet", worker.name, "far:away", "--idempotency-key", "k")
            task = insist(laptop, *words, "--", "true", **wish)
            laptop.ended(task)
            worker.docker("rmi", "far:away")
        case "ship":
            # This laptop's own engine is another worker's.
            source = lab.fleet.workers[(len(lab.laptops) + 1) % len(lab.fleet.workers)]
            image = build(source, f"here:{len(lab.laptops)}", 3_000_000)
            laptop.environment["DOCKER_HOST"] = source.docker_host
            words = ("task", "--quiet", worker.name, image, "--idempotency-key", "k")
            task = insist(laptop, *words, "--ship-image", "--", "true", **wish)
            laptop.ended(task)
            worker.docker("rmi", image)
            source.docker("rmi", image)
        case "copy":
            copy = laptop.folder / "copy.db"
            laptop.submit(job, worker=worker, lines=1, **wish)
            laptop.ask("backup", "backup", str(copy))
            assert not copy.exists(), "half a copy under its whole name"
            laptop.ask("backup", "backup", str(copy))
            assert copy.exists()
        case "cron":
            visit_schedule(lab, laptop, worker.name, job, name)
        case "files" | "upload" | "download":
            code, home = laptop.folder / "code", laptop.folder / f"home-{job}"
            some_code(code)
            bring = f"mkdir /out; cat /workspace/a /workspace/b/c >/out/both; {STAYS}"
            fields = {"uploads": [str(code)], "downloads": [f"/out:{home}"]}
            task = laptop.submit(
                job, worker=worker, lines=3, pause=0.1, tail=bring, fields=fields, **wish
            )
            laptop.ended(task)
            lab.expected[task] = (job, 3)
            both = (code / "a").read_bytes() + (code / "b" / "c").read_bytes()
            assert (home / "both").read_bytes() == both, "what came home is not what was sent"
        case "cancel" | "stop":
            task = laptop.submit(job, worker=worker, held=True, **wish)
            laptop.until_running(task)
            laptop.cancel(task)
            until(lambda: laptop.task_of(task)["status"] in ("stopping", "cancelled"), "it stops")
        case "forget":
            code = laptop.folder / "code"
            some_code(code)
            fields = {"uploads": [str(code)]}
            task = laptop.submit(job, worker=worker, lines=1, fields=fields, **wish)
            laptop.ended(task)
            lab.history.forgotten.add(task)
            lab.expected.pop(task)
            cache = worker.home / ".cache" / "cloudai" / store_of(laptop)
            assert list(cache.iterdir())
            for _ in range(2):
                laptop.ask("rm", "rm", task, task_id=task)
            # The next controller, too, knows what is to be taken away.
            until(lambda: laptop.ask("workers", "workers") and not cache.exists(), "it is tidy")
        case "register":
            laptop.inventory.write_text("workers: {}\n")
            (laptop.folder / "known_hosts").unlink()
            laptop.run("workers", code=None, **wish)
            key = ["--identity-file", str(lab.fleet.identity_file)]
            where = [worker.name, f"{worker.user}@{worker.host}:{worker.port}"]
            for _ in range(2):
                words = ["register", *where, *key, "--fingerprint", worker.fingerprint]
                laptop.ask("register", *words)
            laptop.submit(job, worker=worker, lines=2)
        case _:
            laptop.submit(job, worker=worker, lines=3, pause=0.1, env={"TOKEN": "x"}, **wish)


def build(worker: Worker, name: str, size: int) -> str:
    """Gives a worker's engine an image with that many bytes that cannot be packed, on top of
    what all have."""
    made = name.replace(":", "-")
    fill = f"head -c {size} /dev/urandom >/blob"
    run_on(worker, "run", "--network", "none", "--name", made, "alpine", "sh", "-c", fill)
    run_on(worker, "commit", made, name)
    run_on(worker, "rm", made)
    return name


def visit_schedule(lab: Lab, laptop: Laptop, worker: str, job: str, name: str) -> None:
    """A schedule that is due as the doomed controller comes; the next one sees to it."""
    laptop.run("controller", "start")
    body = {
        "docker_image": "alpine",
        "command": JOB.format(name=job, lines=2, pause=0.1, wait=""),
        "req_cpu": 0.2,
        "req_memory": "16m",
        "name": job,
        "target": worker,
        "mounts": [f"type=bind,src={lab.witnessed},dst=/w"],
    }
    batch = laptop.folder / "batch.json"
    batch.write_text(json.dumps({"tasks": [body]}))
    laptop.run("cron", "add", "0 0 1 1 *", str(batch), "--name", job, "--missed", "once")
    laptop.run("controller", "stop")
    with closing(sqlite3.connect(laptop.folder / "cloudai.db")) as database:
        database.execute("UPDATE schedule SET due_at = ?", (int(time.time() * 1e6),))
        database.commit()
    laptop.run("controller", "start", code=None, CLOUDAI_CRASH_AT=name)
    until(lambda: not doomed(name), f"the controller dies at {name}")
    laptop.run("controller", "start")
    until(
        lambda: laptop.get(f"/schedules/{job}")["last_outcome"] == "submitted",
        f"{job} is submitted",
    )
    [task] = laptop.tasks() or []
    laptop.names[job] = task["task_id"]
    lab.jobs[task["task_id"]] = job
    lab.expected[task["task_id"]] = (job, 2)


STAYS = "sleep 0.1"
"""So that its end is seen by itself."""


def some_code(folder: Path) -> None:
    """A folder to be uploaded."""
    (folder / "b").mkdir(parents=True, exist_ok=True)
    (folder / "a").write_bytes(os.urandom(300_000))
    (folder / "b" / "c").write_bytes(os.urandom(1000))


def store_of(laptop: Laptop) -> str:
    """The id of its store."""
    return str(json.loads((laptop.folder / "cloudai.db.opened").read_bytes())["id"])


def insist(laptop: Laptop, *words: str, **more: str) -> str:
    """The task's id, asked for until it is acknowledged."""
    done = laptop.ask("submit", *words, **more)
    for _ in range(5):
        if done.code == 0:
            break
        done = laptop.ask("submit", *words)
    assert done.code == 0, done.error
    return done.text.strip()


@fault(
    "controller killed at random",
    how="SIGKILL ten times while tasks are submitted, run and end",
    expected=STILL,
)
def killed_at_random(lab: Lab) -> None:
    laptop = lab.laptop()
    for number in range(10):
        laptop.submit(f"t{number}", lines=10)
        time.sleep(lab.random.uniform(0, 0.8))
        laptop.kill_controller()
        lab.times += 1
    all_complete(lab)


@fault(
    "a start that comes late",
    how="the log-in of a start hangs; its controller dies; the next one starts the task, which"
    " ends and is put away; then the log-in goes on",
    expected="the late start starts nothing",
)
def late_start(lab: Lab) -> None:
    worker = lab.fleet.workers[0]
    laptop = lab.laptop()
    laptop.ended(laptop.submit("first", worker=worker, lines=1))
    hang, go = worker.home / "hang", worker.home / "go"
    put_bashrc(
        lab,
        worker,
        f"if rm {hang} 2>/dev/null; then while [ ! -e {go} ]; do sleep 0.1; done; fi\n",
    )
    lab.undo.append(lambda: go.unlink(missing_ok=True))
    hang.touch()
    task = laptop.submit("late", worker=worker, lines=1)
    until(lambda: not hang.exists(), "a log-in hangs")
    assert laptop.task_of(task)["status"] == "starting", "it was another log-in"
    laptop.kill_controller()
    lab.times = 1
    assert laptop.ended(task)["status"] == "completed"
    go.touch()
    time.sleep(3)  # for the late start to do what it must not
    all_complete(lab)


@fault(
    "home's disk full",
    how="the home is on a file system of 8 MB that somebody fills up while tasks run",
    expected="submits are refused, saying so; once there is room again " + STILL,
    short=True,
)
def home_full(lab: Lab) -> None:
    folder = lab.folder / "h0"
    folder.mkdir(mode=0o700)
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m,mode=700", "tmpfs", str(folder)]
    subprocess.run(mount, check=True)
    try:
        laptop = lab.laptop()
        laptop.until_running(*some(laptop, 2, held=True))
        filler = folder / "filler"
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"x" * 4096)
            except OSError:
                lab.times = 1
        done = laptop.ask("submit", "task", "--quiet", "alpine", "-e", "A=b", "--", "true")
        assert done.code == 1, done
        assert "No space left" in done.error or "space" in done.error, done.error
        filler.unlink()
        all_complete(lab)
        lab.conclude()
    finally:
        for laptop in lab.laptops:
            laptop.close()
        subprocess.run(["umount", "-l", str(folder)], check=True)


@fault(
    "database locked",
    how="another process holds it for four seconds, again and again",
    expected="commands are refused or wait; " + STILL,
    short=True,
)
def database_locked(lab: Lab) -> None:
    laptop = lab.laptop()
    some(laptop, 3, lines=10)
    for number in range(2):
        with closing(sqlite3.connect(laptop.folder / "cloudai.db", timeout=10)) as other:
            other.execute("BEGIN IMMEDIATE")
            lab.times += 1
            refused = laptop.submit(f"during{number}", lines=1, insist=False)
            assert not refused
            time.sleep(1)  # effects come home meanwhile, and find it locked
            other.execute("ROLLBACK")
        laptop.submit(f"during{number}", lines=1)
    all_complete(lab)


@fault(
    "database rolled back to an older copy",
    how="the file as it was before a task ran is put back",
    expected="refused, saying so; with the newest copy back " + STILL,
    short=True,
)
def rolled_back(lab: Lab) -> None:
    laptop = lab.laptop()
    laptop.run("controller", "start")
    laptop.run("controller", "stop")
    until(lambda: laptop.controller is None, "it leaves")
    database, older = laptop.folder / "cloudai.db", lab.folder / "older.db"
    newest = lab.folder / "newest.db"
    shutil.copy(database, older)
    laptop.ended(laptop.submit("ran", lines=2))
    laptop.run("controller", "stop")
    until(lambda: laptop.controller is None, "it leaves")
    replace_database(database, newest, older)
    lab.times = 1
    done = laptop.run("tasks", code=None)
    assert done.code == 1, done
    assert "rolled back" in done.error, done.error
    replace_database(database, older, newest)
    all_complete(lab)


def replace_database(database: Path, keep_as: Path, by: Path) -> None:
    """With a controller gone, the file is all there is."""
    for rest in ("-wal", "-shm"):
        assert not database.with_name(database.name + rest).exists(), "a controller is there"
    shutil.copy(database, keep_as)
    shutil.copy(by, database)
    os.chmod(database, 0o600)
