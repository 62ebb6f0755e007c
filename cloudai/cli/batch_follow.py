"""Following a batch to its end: ``batch follow``, ``batch FILE --follow`` and ``--wait``,
``wait BATCH``; its job log and reports on the way."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from cloudai.records import exit_code_of, figures_of, is_final, label_of, outcome_of, seconds_of

from .batch_news import Watching, find_batch
from .batch_summary import print_summary, told
from .options import common
from .output import StatusLine, on_terminal, print_json, say, tell
from .record_options import check_record, record_options
from .session import Session
from .wording import NOTHING

Task = dict[str, Any]
Batch = dict[str, Any]

LOOK_EVERY = 1.0
"""Seconds between two drawings of the live view; the lines of a pipe may come a little later."""
MOST_LINES = 20
"""Failures that are told above the live view; the summary has the rest."""


@click.command("follow")
@click.argument("ref", metavar="BATCH")
@record_options
@common
@click.pass_obj
def follow_command(
    session: Session,
    ref: str,
    joblog: Path | None,
    report: tuple[Path, ...],
    report_format: str | None,
) -> int:
    """Follow a batch to its end, and sum it up.

    On a terminal a bar, the rate, the estimated end, and a line for each task that runs; in a
    pipe a line for each task that ends. Ends as `wait` does. Ctrl-C leaves; the batch goes on.
    """
    check_record(joblog, report, report_format)
    batch = find_batch(session.client, ref)
    return follow_batch(session, batch, joblog=joblog, reports=report, form=report_format)


def follow_batch(
    session: Session,
    batch: Batch,
    *,
    live: bool = True,
    joblog: Path | None = None,
    reports: Sequence[Path] = (),
    form: str | None = None,
) -> int:
    """Follows a batch to its end: the exit code of the last task that failed, 0 where none did.

    ``live``: on a terminal the live view, else a line of how it stands; in a pipe a line a
    task. ``joblog`` is appended to as tasks end, ``reports`` are written at the end. Raises
    ``CloudaiError`` where one of them cannot be written, at the end.
    """
    from .report import write_reports

    watching = Watching(session.client, batch)
    try:
        trouble = _to_the_end(session, watching, live=live, joblog=joblog)
    except KeyboardInterrupt:
        goes_on(batch["batch_id"], joblog)
        raise
    figures = figures_of(watching.tasks)
    if session.json:
        print_json(watching.batch, line=True)
    elif not session.quiet:
        if not on_terminal():
            say()
        print_summary(watching.batch, figures)
    write_reports(session.client, watching.batch, watching.tasks, reports, form)
    if trouble:
        from cloudai.core.errors import CloudaiError

        again = f"cloudai batch joblog {batch['batch_id']} {joblog}"
        raise CloudaiError(f"--joblog: {trouble}", hint=f"`{again}` writes what is missing")
    return code_of(watching.tasks)


def code_of(tasks: Sequence[Task]) -> int:
    """The exit code of the last one that ended badly; 0 where none did."""
    bad = [task for task in tasks if is_final(task) and exit_code_of(task)]
    last = max(bad, key=lambda task: task["completed_at"] or "", default=None)
    return 0 if last is None else exit_code_of(last)


def _to_the_end(session: Session, watching: Watching, *, live: bool, joblog: Path | None) -> str:
    """Waits and shows; what became of the job log, where it could not be written."""
    from .joblog import JobLog

    with contextlib.ExitStack() as stack:
        log = stack.enter_context(JobLog(joblog, watching.tasks)) if joblog else None
        show = stack.enter_context(_shown(session, live=live))
        ended = watching.fresh()
        while True:
            if log:
                log.add(ended)
            show.tell(watching, ended)
            if watching.over:
                return log.trouble if log else ""
            ended = watching.look(LOOK_EVERY if show.often else 2 * LOOK_EVERY)


class _Nothing:
    """Shows nothing."""

    often = False

    def __enter__(self) -> _Nothing:
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def tell(self, watching: Watching, ended: Sequence[Task]) -> None:
        pass


class _Lines(_Nothing):
    """A line for each task that ends."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json

    def tell(self, watching: Watching, ended: Sequence[Task]) -> None:
        for task in ended:
            if self._as_json:
                print_json(task, line=True)
            else:
                say(line_of(task))
        if ended:
            sys.stdout.flush()


class _Standing(_Nothing):
    """One line that is written over."""

    often = True

    def __enter__(self) -> _Standing:
        self._line = StatusLine()
        return self

    def __exit__(self, *_: Any) -> None:
        self._line.clear()

    def tell(self, watching: Watching, ended: Sequence[Task]) -> None:
        from .progress import parts_of

        parts = parts_of(watching.batch["counts"])
        told = ", ".join(f"{count} {word}" for word, count in parts.items() if count)
        self._line.show(f"{watching.batch['batch_id']}: {told}")


class _Live(_Nothing):
    """The live view, with a line above it for what fails."""

    often = True

    def __enter__(self) -> _Live:
        from .progress import LiveView

        self._view = LiveView()
        self._view.__enter__()
        self._first, self._left = True, MOST_LINES
        return self

    def __exit__(self, *left: Any) -> None:
        self._view.__exit__(*left)

    def tell(self, watching: Watching, ended: Sequence[Task]) -> None:
        bad = [task for task in ended if outcome_of(task) == "failed"]
        if not self._first:
            for task in bad[: self._left]:
                self._view.keep(f"✗ {told(task, with_id=False)}")
            self._left = max(0, self._left - len(bad))
        self._first = False
        running = [] if watching.over else watching.running(200)
        self._view.show(watching.batch, watching.tasks, running)


def _shown(session: Session, *, live: bool) -> _Nothing:
    if session.json:
        return _Lines(as_json=True)
    if session.quiet:
        return _Nothing()
    if not on_terminal() or os.environ.get("TERM") == "dumb":
        return _Lines(as_json=False)
    return _Live() if live else _Standing()


def line_of(task: Task) -> str:
    """How one task ended: its id, how, exit code, worker, how long, and what it is called."""
    from cloudai.core.units import show_duration

    own = NOTHING if task["exit_code"] is None else task["exit_code"]
    seconds = seconds_of(task)
    took = NOTHING if seconds is None else show_duration(seconds)
    label = label_of(task)
    called = "" if label == task["task_id"] else f" {label}"
    worker = task["worker_id"] or NOTHING
    return f"{task['task_id']} {outcome_of(task)} {own} {worker} {took}{called}"


def goes_on(batch_id: str, joblog: Path | None = None) -> None:
    """Says that leaving ends nothing, and how to come back."""
    log = f" --joblog {joblog}" if joblog else ""
    tell(f"Batch {batch_id} goes on.")
    tell(f"  cloudai batch follow {batch_id}{log}   watches it")
    tell(f"  cloudai cancel {batch_id}   stops it")
