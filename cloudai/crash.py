"""Places at which the controller can be made to die, to see that the next one goes on.

``CLOUDAI_CRASH_AT=NAME`` ends it there at once, as a kill would: nothing is flushed, closed or
said; ``NAME:3`` on the third visit. ``python -m cloudai.crash`` lists the names.
"""

from __future__ import annotations

import os
import threading
from types import MappingProxyType

CRASH_POINTS = MappingProxyType(
    {
        "schema.made": "the tables are made or migrated, not committed",
        "schema.committed": "the tables are committed, the store not introduced",
        "store.counted": "the opening is counted in the database, not beside it",
        "copy.written": "a copy of the database is written, not yet under its name",
        "files.packed": "a pack of what is uploaded is kept, no tree needs it yet",
        "files.kept": "what is uploaded is kept, its task is not",
        "submit.vault": "the values of the environment are kept, the task is not",
        "submit.stored": "the task is stored, nobody was told",
        "cron.due": "a schedule is due, nothing is submitted",
        "cron.submitted": "a schedule's batch is stored, that is not recorded",
        "place.before": "a worker is chosen, nothing is recorded",
        "place.recorded": "the assignment is recorded, nothing was sent",
        "pull.begun": "the image is about to be asked for",
        "pull.done": "the image is there, the container is not",
        "ship.begun": "the image is about to be sent from this machine",
        "ship.half": "a part of the image is on its way",
        "ship.done": "the image is there, the container is not",
        "upload.begun": "a worker is about to be sent what a task brings along",
        "upload.done": "the worker has what the task brings along, the container is not there",
        "start.before": "the order is ready, nothing was sent",
        "start.answered": "the worker answered to a start, nothing is recorded",
        "start.recorded": "what the worker answered is recorded",
        "exit.seen": "the container's end is seen, nothing is recorded",
        "exit.recorded": "the task is final, its log is on the worker",
        "log.written": "bytes of a log are written, its index does not know them",
        "harvest.brought": "the whole log is at home, not marked whole",
        "harvest.closed": "the log is marked whole, the container is still there",
        "download.came": "a download is home whole, it is not where it is to go",
        "download.placed": "a download is where it is to go, that is not recorded",
        "harvest.removed": "the container is removed, that is not recorded",
        "harvest.marked": "all of an assignment is done",
        "cancel.recorded": "the wish to stop is recorded, nothing was sent",
        "stop.before": "the container is about to be stopped",
        "stop.sent": "the container was told to stop, its end was not seen",
        "forget.row": "the task is forgotten, its log is not",
        "forget.log": "the log is forgotten, the values of the environment are not",
        "forget.files": "a worker is about to be told to forget what tasks brought along",
        "register.pinned": "the host key is known, the worker is not in the inventory",
        "register.written": "the worker stands in the inventory, nobody was told",
    }
)
"""Every place by name, in the order of a task's life, and how things stand there."""

EXIT_CODE = 137
"""As of a process that was killed."""


def _wish(text: str) -> tuple[str, int]:
    name, _, visit = text.partition(":")
    return name, int(visit) if visit.isdigit() else 1


_name, _visits_left = _wish(os.environ.get("CLOUDAI_CRASH_AT", ""))
_counting = threading.Lock()


def point(name: str) -> None:
    """A place at which to die, if that was asked for."""
    global _visits_left
    if name != _name:
        return
    with _counting:
        _visits_left -= 1
        if _visits_left == 0:
            os._exit(EXIT_CODE)


if __name__ == "__main__":
    for place, standing in CRASH_POINTS.items():
        print(f"{place:18}{standing}")
