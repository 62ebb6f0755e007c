"""``python -m tests.fleet_lab.nightly``: a nightly batch under real cron, with a worker that fails
half-way, and whether the report adds up.

A practice fleet, a crontab of one line, Debian's cron. The line fires every minute, so the same
batch is asked for again and again while it runs; its once key makes one of it. Once half of the
tasks have completed, everything on one worker is killed: its sshd, its engine, its containers.
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from tests.fleet.cloudai_home import Home

from .crond import crond
from .fleet import Fleet, reserved_root

CLOUDAI = Path(sys.executable).parent / "cloudai"
RATES = ("0.1", "0.03", "0.01", "0.003")
SHOWN = 5
READERS = 8
"""Of tasks and logs, at once."""

# Every task that is lost with its worker is tried again: where the worker stays away, once it is
# given up; where it comes back, once it is known that its end was not seen.
BATCH = """
name: nightly-{{{{ date }}}}
defaults:
  image: alpine
  cpus: 0.1
  memory: 16m
  storage: 1m
  on_lost: requeue
  lost_after: 60
  retries: 5
  retry_on: [lost]
tasks:
- {{name: prepare, command: "echo ready"}}
- id: train
  name: train-{{{{ lr }}}}-{{{{ seed }}}}
  matrix: {{lr: [{rates}], seed: range({seeds})}}
  command: "echo lr={{{{ lr }}}} seed={{{{ seed }}}}; sleep {seconds}"
  after: prepare
- {{name: report, command: "echo all done", after: {{train: ok, prepare: ok}}}}
"""

CRONTAB = """\
HOME={home}
* * * * * {cloudai} batch nightly.yaml --once-key 'nightly-{{{{ date }}}}' --quiet \
>>{out} 2>&1; echo $? >>{codes}
"""


class DoesNotAddUp(Exception):
    """What was promised and did not come true."""


@dataclass
class Figures:
    """What was asked for, and what is seen."""

    tasks: int
    """In the matrix."""
    wrong: list[str] = field(default_factory=list)

    def note(self, what: str, value: object) -> None:
        print(f"  {what:46}{value}", flush=True)

    def expect(self, what: str, found: object, wanted: object) -> None:
        """A figure that must be so."""
        right = found == wanted
        self.note(what, found if right else f"{found}, and not {wanted}  ✗")
        if not right:
            self.wrong.append(what)


def main() -> int:
    """Exit code 0 where all adds up."""
    parser = argparse.ArgumentParser(prog="python -m tests.fleet_lab.nightly", description=__doc__)
    parser.add_argument("--tasks", type=int, default=1000, help="of the matrix, by fours")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="that each of them runs")
    parser.add_argument(
        "--back-after",
        type=float,
        metavar="SECONDS",
        help="bring the failed worker back then; without it, it stays away until the end",
    )
    parser.add_argument("--limit", type=float, default=3600.0, metavar="SECONDS")
    asked = parser.parse_args()
    with (
        reserved_root() as root,
        Fleet(root, workers=asked.workers) as fleet,
        tempfile.TemporaryDirectory(prefix="nightly-") as folder,
    ):
        wrong = _night(fleet, Path(folder), asked)
    print("it adds up" if not wrong else f"it does not add up: {'; '.join(wrong)}")
    return 1 if wrong else 0


def _night(fleet: Fleet, folder: Path, asked: argparse.Namespace) -> list[str]:
    seeds = max(1, asked.tasks // len(RATES))
    user = folder / "user"
    home = Home(user / ".cloudai", fleet)
    text = BATCH.format(rates=", ".join(RATES), seeds=seeds, seconds=f"{asked.seconds:g}")
    (user / "nightly.yaml").write_text(text)
    out, codes = folder / "out", folder / "codes"
    for path in (out, codes):
        path.touch()
    crontab = CRONTAB.format(home=user, cloudai=CLOUDAI, out=out, codes=codes)
    figures = Figures(len(RATES) * seeds)
    print(f"{figures.tasks} tasks in a matrix, one before and one after them")
    print(f"crontab: {crontab.splitlines()[1]}")
    try:
        with crond(folder / "cron", crontab):
            batch = _run(fleet, home, figures, asked)
            _wait(lambda: codes.read_text().count("\n") > 1, 130, "cron fires again", out)
        _add_up(fleet, home, batch, figures, seeds)
        figures.expect("exit codes of the line in cron", _counted(codes), {"0": _lines(codes)})
        figures.expect("bytes that it printed", out.stat().st_size, 0)
    finally:
        home.run("controller", "stop", code=None)
    return figures.wrong


def _run(fleet: Fleet, home: Home, figures: Figures, asked: argparse.Namespace) -> str:
    """The batch's id, once all of it has ended."""
    out = home.folder.parent.parent / "out"
    _wait((home.folder / "controller.sock").exists, 90, "cron starts a controller", out)
    deadline, failed_at, worker = time.monotonic() + asked.limit, 0.0, fleet.workers[-1]
    batch, shown = "", 0.0
    while True:
        found = home.ask("/batches/")["batches"]
        counts = found[0]["counts"] if found else {}
        if found and not batch:
            batch = found[0]["batch_id"]
            figures.note("batch", f"{batch}, {found[0]['size']} tasks")
        if found and found[0]["ended"]:
            return str(batch)
        done = counts.get("completed", 0)
        if not failed_at and done >= figures.tasks // 2:
            running = home.ask(f"/tasks/?batch={batch}&limit=10000")["tasks"]
            held = sum(
                1
                for task in running
                if task["worker_id"] == worker.name and task["status"] in ("running", "starting")
            )
            worker.kill("sshd")
            worker.kill("dockerd")
            failed_at = time.monotonic()
            figures.note(f"{worker.name} fails, sshd and dockerd killed", f"{done} completed")
            figures.note("tasks that it had then", held)
        if failed_at and asked.back_after and time.monotonic() > failed_at + asked.back_after:
            worker.mend()
            figures.note(f"{worker.name} is back", f"after {time.monotonic() - failed_at:.0f} s")
            asked.back_after = None
        if time.monotonic() > shown + 15:
            shown = time.monotonic()
            print(f"  … {json.dumps({k: v for k, v in counts.items() if v})}", flush=True)
        if time.monotonic() > deadline:
            raise DoesNotAddUp(f"not ended within {asked.limit:g} s: {counts}")
        time.sleep(0.5)


def _add_up(fleet: Fleet, home: Home, batch: str, figures: Figures, seeds: int) -> None:
    told = home.ask(f"/batches/{batch}")
    whole = figures.tasks + 2
    figures.expect("batches that cron made", home.ask("/batches/")["total"], 1)
    figures.expect("size", told["size"], whole)
    ends = {state: count for state, count in told["counts"].items() if count}
    figures.expect("how they ended", ends, {"completed": whole})
    tasks = home.ask(f"/tasks/?batch={batch}&limit=10000")["tasks"]
    figures.expect("tasks listed", len({task["task_id"] for task in tasks}), whole)
    figures.expect(
        "exit codes", dict(Counter(str(task["exit_code"]) for task in tasks)), {"0": whole}
    )
    with ThreadPoolExecutor(READERS) as pool:
        full = list(pool.map(lambda task: home.ask(f"/tasks/{task['task_id']}"), tasks))
    runs = [one for task in full for one in task["assignments"]]
    good = [one for one in runs if one["exit_code"] == 0 and not one["lost"]]
    again = sum(1 for task in full if len(task["assignments"]) > 1)
    figures.expect("runs that completed", len(good), whole)
    figures.note("tasks that ran again after the failure", again)
    figures.note("runs in all", len(runs))
    figures.note("completed by worker", dict(sorted(Counter(o["worker_id"] for o in good).items())))
    wanted = Counter(f"lr={lr} seed={seed}" for lr in RATES for seed in range(seeds))
    wanted.update(["ready", "all done"])
    figures.note("logs still on the worker that is away", whole - _right(home, full, wanted)[0])
    _order(full, figures)
    figures.note("from the first start to the last end", f"{_seconds(told):.0f} s")
    for worker in fleet.workers:
        worker.mend()
    _wait(lambda: not _left(fleet), 180, "no container is left on any worker", None)
    figures.expect("containers left on the workers", len(_left(fleet)), 0)
    right, wrong = _right(home, full, wanted)
    figures.expect("logs at home that are right, each once", right, whole)
    for log in wrong[:SHOWN]:
        figures.note("a log that is not", repr(log[:200]))


def _right(home: Home, full: list[Any], wanted: Counter[str]) -> tuple[int, list[str]]:
    """How many logs are what their tasks wrote, and the others."""
    with ThreadPoolExecutor(READERS) as pool:
        logs = Counter(pool.map(lambda task: _log(home, task), full))
    return (logs & wanted).total(), list(logs - wanted)


def _order(full: list[Any], figures: Figures) -> None:
    """Nothing began before what it needs had ended."""
    by_name: dict[str, Any] = {task["name"]: task for task in full}
    trained = [task for task in full if task["name"].startswith("train-")]
    first = min(task["started_at"] for task in trained)
    last = max(task["completed_at"] for task in trained)
    after = by_name["prepare"]["completed_at"] <= first and last <= by_name["report"]["started_at"]
    figures.expect("each began after what it needs", after, True)


def _log(home: Home, task: Any) -> str:
    with closing(socket.socket(socket.AF_UNIX)) as link:
        link.connect(str(home.folder / "controller.sock"))
        http = HTTPConnection("controller")
        http.sock = link
        http.request("GET", f"/tasks/{task['task_id']}/logs")
        answer = http.getresponse()
        text = answer.read().decode().strip()
    return text if answer.status == 200 else f"{answer.status}: {text}"


def _seconds(told: Any) -> float:
    from datetime import datetime

    begin, end = (datetime.fromisoformat(told[name]) for name in ("started_at", "completed_at"))
    return (end - begin).total_seconds()


def _left(fleet: Fleet) -> list[str]:
    found: list[str] = []
    for worker in fleet.workers:
        with worker.engine() as client:
            found += [one.id for one in client.containers.list(all=True, ignore_removed=True)]
    return found


def _counted(codes: Path) -> dict[str, int]:
    return dict(Counter(codes.read_text().split()))


def _lines(codes: Path) -> int:
    return len(codes.read_text().split())


def _wait(condition: Callable[[], object], seconds: float, what: str, told: Path | None) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            said = f"; it said: {told.read_text()}" if told and told.exists() else ""
            raise DoesNotAddUp(f"never: {what}{said}")
        time.sleep(0.5)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except DoesNotAddUp as error:
        print(f"nightly: {error}", file=sys.stderr)
        sys.exit(1)
