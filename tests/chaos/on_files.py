"""Faults while files are on their way: what tasks bring along, and what they send home."""

from __future__ import annotations

import os
import time

from .faults import fault
from .lab import Lab, until
from .on_connections import STILL

SIZE = 24 * 1024**2
"""Bytes: seconds on the way, at the relay's pace."""
PACE = 3 * 1024**2


@fault(
    "files cut on their way",
    how="a relay ends every connection three times while a task's files are sent, and three times"
    " while its results come home",
    expected="each goes on where it was, and arrives whole; " + STILL,
)
def files_cut(lab: Lab) -> None:
    worker = lab.fleet.workers[0]
    laptop = lab.laptop()
    relay = lab.relay(laptop, worker)
    code, home = laptop.folder / "code", laptop.folder / "home"
    code.mkdir()
    (code / "big").write_bytes(os.urandom(SIZE))
    relay.rate = PACE
    fields = {"uploads": [str(code)], "downloads": [f"/out:{home}"]}
    tail = "mkdir /out; cp /workspace/big /out/big; sleep 0.1"
    task = laptop.submit("t", worker=worker, lines=2, tail=tail, fields=fields)
    lab.expected[task] = ("t", 2)
    for doing in ("uploading", "bringing"):
        for _ in range(3):
            # Within the first moments of a transfer that takes many seconds: it is cut for sure.
            until(lambda doing=doing: doing in laptop.task_of(task)["phase"], doing, 60)
            time.sleep(lab.random.uniform(0, 0.3))
            relay.cut()
            lab.times += 1
            until(lambda doing=doing: doing not in laptop.task_of(task)["phase"], "a cut", 60)
    relay.rate = 0
    assert laptop.ended(task)["status"] == "completed"
    assert (home / "big").read_bytes() == (code / "big").read_bytes()
    story = [event["text"] for event in laptop.show(task)["events"]]
    sent = [text for text in story if text.endswith(f" to {worker.name}") and "MB" in text]
    assert len(set(sent)) > 1, f"each began anew: {sent}"
