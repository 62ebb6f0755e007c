"""``--joblog`` and ``--report``: what a batch leaves in files of yours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def report_options(command: F) -> F:
    """``--report FILE`` and ``--report-format``."""
    for option in (
        click.option(
            "--report-format",
            type=click.Choice(("html", "json", "junit")),
            help="What --report is, where its name does not say.",
        ),
        click.option(
            "--report",
            multiple=True,
            metavar="FILE",
            type=click.Path(dir_okay=False, path_type=Path),
            help="Write a report when it has ended: .html, .json or .xml (JUnit); may be repeated.",
        ),
    ):
        command = option(command)
    return command


def record_options(command: F) -> F:
    """Those, and ``--joblog FILE``."""
    return click.option(
        "--joblog",
        metavar="FILE",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Append a line for each task that ends, as GNU parallel writes them.",
    )(report_options(command))


def check_record(joblog: Path | None, reports: Sequence[Path], form: str | None) -> None:
    """Refuses what could not be written, before anything is asked for."""
    from .joblog import check_joblog
    from .report import check_reports

    if joblog:
        check_joblog(joblog)
    check_reports(reports, form)
