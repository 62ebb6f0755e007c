"""The job log: a line a task, in the nine columns that GNU parallel writes.

What parallel has no column for, what the task *is*, stands behind its command as a comment of
the shell: `` # cloudai:FINGERPRINT``. ``--resume`` goes by that alone, never by the place of a
line or of a task.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from .reading import exit_code_of, moment, outcome_of

Task = Mapping[str, Any]

COLUMNS = (
    *("Seq", "Host", "Starttime", "JobRuntime", "Send", "Receive", "Exitval", "Signal"),
    "Command",
)
HEADER = "\t".join(COLUMNS) + "\n"
THIS_MACHINE = ":"
"""Parallel's name for the machine that it runs on."""

_FINGERPRINT = re.compile(r" # cloudai:([0-9A-Za-z_-]{1,128})$")
_CONTROL = re.compile("[\x01-\x1f\x7f-\x9f\u2028\u2029]")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Line:
    """One whole line of a job log."""

    seq: int
    rest: str
    """What stands behind its number, without the line end."""
    ok: bool
    fingerprint: str | None
    """``None``: cloudai did not write it."""


def line_of(task: Task, seq: int) -> str | None:
    """The line of a task that has ended, with its line end; ``None`` for one that never ran:
    it was left out, or was cancelled before it started.

    As parallel has it of jobs on other machines, a signal's number is in ``Exitval`` (128 + N),
    and ``Signal`` is 0. Parallel's stand-in for a line end in a command is NUL; other control
    characters, tabs too, are spaces, so that there are nine columns whatever a command holds.
    """
    outcome = outcome_of(task)
    start, end = moment(task.get("started_at")), moment(task.get("completed_at"))
    if outcome not in ("completed", "failed", "cancelled") or end is None:
        return None
    if start is None and outcome == "cancelled":
        return None
    start = start or end
    columns = (
        str(seq),
        str(task.get("worker_id") or THIS_MACHINE),
        _seconds(start),
        _runtime(start, end),
        *("0", "0"),
        str(exit_code_of(task)),
        "0",
        _command(task),
    )
    return "\t".join(columns) + "\n"


def _seconds(at: datetime) -> str:
    return f"{at.timestamp():.3f}"


def _runtime(start: datetime, end: datetime) -> str:
    # Cut to whole milliseconds, not rounded, and a worker's clock may be set back.
    milliseconds = max(0, int((end - start).total_seconds() * 1e6) // 1000)
    return f"{milliseconds // 1000:6d}.{milliseconds % 1000:03d}"


def _command(task: Task) -> str:
    told = str(task.get("command") or task.get("docker_image") or "")
    told = _SURROGATE.sub("\ufffd", told.replace("\0", " ").replace("\n", "\0"))
    return f"{_CONTROL.sub(' ', told)} # cloudai:{task.get('fingerprint')}"


def whole_lines(log: bytes) -> Iterator[Line]:
    """The lines of jobs; the header, half a line at the end and what is no line of a job log
    are passed over."""
    *whole, _half = log.split(b"\n")
    for raw in whole:
        seq, _, rest = raw.decode("utf-8", "replace").partition("\t")
        columns = rest.split("\t", 7)
        if len(columns) < 8 or not re.fullmatch("[0-9]{1,18}", seq):
            continue
        found = _FINGERPRINT.search(columns[7])
        ok = columns[5] == columns[6] == "0"
        yield Line(int(seq), rest, ok, found[1] if found else None)


def completed_in(log: bytes) -> Counter[str]:
    """Fingerprints of what completed, by a job log, and how often each did."""
    return Counter(one.fingerprint for one in whole_lines(log) if one.ok and one.fingerprint)


class Appending:
    """What to append to a log for the tasks of one batch as they end: each task's line once,
    also where an earlier client wrote some of them before it was killed.

    ``Seq`` is a task's place in its batch, counted on from the last job that was in the log
    before this batch's: no number stands twice.
    """

    def __init__(self, log: bytes, tasks: Sequence[Task]) -> None:
        """``tasks``: all of the batch, in its order."""
        self._places = {task["task_id"]: place for place, task in enumerate(tasks, 1)}
        self._there: dict[str, list[int]] = {}
        last = 0
        for one in whole_lines(log):
            self._there.setdefault(one.rest, []).append(one.seq)
            last = max(last, one.seq)
        self._base = next(self._bases(tasks), last)
        self._lead = "" if log.strip() else HEADER
        if log and not log.endswith(b"\n"):
            self._lead = "\n" + self._lead

    def _bases(self, tasks: Sequence[Task]) -> Iterator[int]:
        """What comes before the batch's numbers, by its tasks that are in the log already."""
        for place, task in enumerate(tasks, 1):
            for seq in self._there.get(_rest_of(line_of(task, place)), ()):
                if seq >= place:
                    yield seq - place

    def add(self, task: Task) -> str:
        """What to append for a task that has ended; empty where its line is there, or it gets
        none."""
        told = line_of(task, self._base + self._places[task["task_id"]])
        known = self._there.get(_rest_of(told))
        if told is None or known:
            if known:
                known.pop()
            return ""
        lead, self._lead = self._lead, ""
        return lead + told


def _rest_of(line: str | None) -> str:
    return "" if line is None else line.partition("\t")[2].removesuffix("\n")
