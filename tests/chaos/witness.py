"""Watches real engines from beside them, while workers and controllers come and go: samples of
all our containers, and the engines' own streams of events.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import quote, urlencode

from tests.fleet_lab.worker import Worker

from .history import Container, Deed, History, Sample

EVERY = 0.25
"""Seconds between samples."""
OURS = {"filters": json.dumps({"label": ["cloudai.assignment"]})}
UNHEARD = (HTTPException, OSError, ValueError)
"""An engine that is dead, hung or coming up."""


class Witness:
    """Writes what it sees into the history, until closed."""

    def __init__(self, history: History, workers: list[Worker]) -> None:
        self.history = history
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=look, args=(worker,), daemon=True)
            for worker in workers
            for look in (self._take_samples, self._follow_events)
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(10)

    def _take_samples(self, worker: Worker) -> None:
        while not self._over.wait(EVERY):
            with contextlib.suppress(*UNHEARD):
                seen = containers_of(worker)
                self.history.samples.append(
                    Sample(at=time.monotonic(), worker=worker.name, containers=seen)
                )

    def _follow_events(self, worker: Worker) -> None:
        since, known = time.time(), set[str]()
        while not self._over.is_set():
            with contextlib.suppress(*UNHEARD):
                # Ends by itself each second: nothing else wakes a thread that reads.
                until = max(since, time.time()) + 1
                span = {"since": f"{since - 1:.6f}", "until": f"{until:.6f}"}
                for event in answers(worker, "/events", **span, **OURS):
                    # The same second is asked for twice, so that nothing falls in between.
                    if (key := json.dumps(event, sort_keys=True)) not in known:
                        known.add(key)
                        self.history.deeds.append(deed_of(worker.name, event))
                since = until - 0.5
                continue
            self._over.wait(0.1)


def deed_of(worker: str, event: dict[str, Any]) -> Deed:
    about = event["Actor"]["Attributes"]
    code = about.get("exitCode")
    return Deed(
        worker=worker,
        action=event["Action"],
        name=about.get("name", ""),
        id=event["Actor"]["ID"],
        exit_code=int(code) if code is not None else None,
    )


def containers_of(worker: Worker) -> tuple[Container, ...]:
    """All of ours there, each described by its engine. Raises one of ``UNHEARD``."""
    found = []
    [listed] = answers(worker, "/containers/json", all="1", **OURS)
    for one in listed:
        with contextlib.suppress(FileNotFoundError):
            [document] = answers(worker, f"/containers/{quote(one['Id'])}/json")
            found.append(container_of(document))
    return tuple(found)


def answers(worker: Worker, path: str, **query: str) -> Iterator[Any]:
    """What its engine answers, document by document, each on a line of its own. (The docker
    package leaves its socket open where an engine is gone.) Raises ``FileNotFoundError`` where
    there is no such thing, and one of ``UNHEARD``."""
    with closing(socket.socket(socket.AF_UNIX)) as link:
        link.settimeout(5)
        link.connect(str(worker.socket))
        http = HTTPConnection("engine")
        http.sock = link
        http.request("GET", f"{path}?{urlencode(query)}", headers={"Connection": "close"})
        with closing(http.getresponse()) as response:
            if response.status == 404:
                raise FileNotFoundError(path)
            if response.status != 200:
                raise HTTPException(f"{path}: {response.status}")
            for line in response:
                yield json.loads(line)


def container_of(document: dict[str, Any]) -> Container:
    labels, state = document["Config"]["Labels"], document["State"]
    started = state["StartedAt"]
    return Container(
        name=document["Name"].removeprefix("/"),
        id=document["Id"],
        task_id=labels["cloudai.task"],
        store_id=labels["cloudai.store"],
        state=state["Status"],
        started_at="" if started.startswith("0001-") else started,
        exit_code=state["ExitCode"],
        error=state["Error"],
        pid=state["Pid"],
        cpu_milli=int(labels.get("cloudai.cpu_milli") or 0),
        memory=int(labels.get("cloudai.memory") or 0),
        gpu_milli=int(labels.get("cloudai.gpu_milli") or 0),
        gpus=tuple(part for part in labels.get("cloudai.gpus", "").split(",") if part),
    )
