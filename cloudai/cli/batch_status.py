"""``batch status``, ``batch report`` and ``batch joblog``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from cloudai.records import figures_of, is_final, outcome_of
from cloudai.records.figures import Figures
from cloudai.records.reading import entry_of

from .batch_news import HELD, find_batch, tasks_of
from .batch_summary import name_of, print_summary
from .options import common
from .output import Column, Styled, on_terminal, print_fields, print_table, say, tell
from .record_options import report_options
from .session import Session
from .wording import NOTHING, age, clock, since

Task = dict[str, Any]
Batch = dict[str, Any]
LISTED = 20
STYLES = {"running": "cyan", "completed": "green", "failed": "red", "queued": ""}
WAITS = "waiting for the scheduler"


@click.command("status")
@click.argument("ref", metavar="[BATCH]", required=False)
@click.option("--user", metavar="USER", help="Only this user's.")
@click.option("--name", metavar="NAME", help="Only of this name.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=LISTED,
    show_default=True,
    metavar="N",
    help="At most so many.",
)
@click.option("--offset", type=click.IntRange(min=0), metavar="N", help="Leave out the newest N.")
@common
@click.pass_obj
def status_command(session: Session, /, ref: str | None, **filters: Any) -> int:
    """List batches, newest first; or show one: its entries, what waits and why.

    One that has ended is summed up: by exit code, where, what took longest, what was skipped.
    """
    if ref is None:
        answer = session.client.get("/batches/", **filters)
        session.show(answer, _print_batches, quiet=[one["batch_id"] for one in answer["batches"]])
        return 0
    batch = find_batch(session.client, ref)
    tasks = tasks_of(session.client, batch)
    figures = figures_of(tasks, None if batch["ended"] else datetime.now().astimezone())
    session.show(
        {**batch, "figures": figures.as_json()},
        lambda _: _print_batch(batch, tasks, figures),
        quiet=[batch["status"]],
    )
    return 0


def _print_batches(answer: dict[str, Any]) -> None:
    batches = answer["batches"]
    if not batches and on_terminal():
        say("No batches.")
        return
    heads = [
        Column("BATCH"),
        Column("STATUS"),
        Column("DONE", right=True),
        Column("FAILED", right=True),
        Column("RUNS", right=True),
        Column("AGE", right=True),
        Column("NAME", flexible=True),
    ]
    print_table(heads, [_batch_row(batch) for batch in batches])
    if answer["total"] > len(batches) and on_terminal():
        tell(f"{len(batches)} of {answer['total']}: --limit and --offset show more")


def _batch_row(batch: Batch) -> list[str | Styled]:
    counts = batch["counts"]
    bad = counts["failed"] + counts["cancelled"]
    held = sum(counts[word] for word in HELD)
    return [
        batch["batch_id"],
        Styled(batch["status"], STYLES.get(batch["status"], "")),
        f"{counts['completed'] + counts['skipped']}/{batch['size']}",
        Styled(str(bad), "red") if bad else NOTHING,
        str(held) if held else NOTHING,
        age(batch["created_at"]),
        batch["name"] or NOTHING,
    ]


def _print_batch(batch: Batch, tasks: Sequence[Task], figures: Figures) -> None:
    if batch["ended"]:
        print_summary(batch, figures)
    else:
        told = ", ".join(f"{count} {word}" for word, count in figures.counts.items() if count)
        print_fields(
            [
                ("Batch", name_of(batch)),
                ("Status", f"{batch['status']} {since(batch.get('started_at'))}".strip()),
                ("Tasks", f"{figures.tasks}: {told}"),
                ("User", batch["user_id"]),
                ("Files", ", ".join(batch.get("files") or ())),
                ("Key", batch.get("once_key")),
                ("Created", clock(batch["created_at"])),
            ]
        )
    if len(figures.entries) < 2 and batch["ended"]:
        return
    say()
    waits = {} if batch["ended"] else _why_by_entry(tasks)
    heads = [
        Column("ENTRY", flexible=True),
        *(Column(word, right=True) for word in ("TASKS", "DONE", "FAILED", "RUNS", "WAITS")),
        Column("WHY", flexible=True),
    ]
    rows = [_entry_row(one, waits) for one in _entries(tasks)]
    print_table(heads[: None if waits else -1], rows if waits else [row[:-1] for row in rows])
    if not batch["ended"]:
        say()
        say(f"`cloudai batch follow {batch['batch_id']}` watches it.")


def _entries(tasks: Sequence[Task]) -> list[tuple[str, Counter[str]]]:
    found: dict[str, Counter[str]] = {}
    for task in tasks:
        found.setdefault(entry_of(task), Counter())[outcome_of(task)] += 1
    return list(found.items())


def _entry_row(one: tuple[str, Counter[str]], waits: dict[str, str]) -> list[str | Styled]:
    name, counts = one
    bad = counts["failed"] + counts["cancelled"]
    held = sum(counts[word] for word in HELD)
    done = str(counts["completed"]) + (f"+{counts['skipped']}" if counts["skipped"] else "")
    return [
        name,
        str(counts.total()),
        done,
        Styled(str(bad), "red") if bad else NOTHING,
        str(held) if held else NOTHING,
        str(counts["queued"]) if counts["queued"] else NOTHING,
        waits.get(name, NOTHING),
    ]


def _why_by_entry(tasks: Sequence[Task]) -> dict[str, str]:
    """For each entry of which something waits, the reason that most of it gives."""
    found: dict[str, Counter[str]] = {}
    for task in tasks:
        if task["status"] == "queued":
            found.setdefault(entry_of(task), Counter())[task["reason"] or WAITS] += 1
    return {entry: reasons.most_common(1)[0][0] for entry, reasons in found.items()}


@click.command("report")
@click.argument("ref", metavar="BATCH")
@report_options
@common
@click.pass_obj
def report_command(
    session: Session, ref: str, report: tuple[Path, ...], report_format: str | None
) -> int:
    """Sum a batch up, also while it runs; with --report to files, as HTML, JSON or JUnit."""
    from cloudai.records.document import as_document

    from .report import check_reports, write_reports

    check_reports(report, report_format)
    batch = find_batch(session.client, ref)
    tasks = tasks_of(session.client, batch)
    figures = figures_of(tasks, None if batch["ended"] else datetime.now().astimezone())
    write_reports(session.client, batch, tasks, report, report_format)
    session.show(
        as_document(batch, tasks, figures),
        lambda _: print_summary(batch, figures),
        quiet=[str(path) for path in report] or [batch["status"]],
    )
    return 0


@click.command("joblog")
@click.argument("ref", metavar="BATCH")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@common
@click.pass_obj
def joblog_command(session: Session, ref: str, file: Path) -> int:
    """Write a batch's job log to FILE: a line for each task that has ended, as GNU parallel does.

    Lines that are there already stay as they are, and none is written twice.
    """
    from cloudai.core.errors import CloudaiError

    from .joblog import JobLog, check_joblog

    check_joblog(file)
    batch = find_batch(session.client, ref)
    tasks = tasks_of(session.client, batch)
    ended = sorted(filter(is_final, tasks), key=lambda task: task["completed_at"] or "")
    with JobLog(file, tasks) as log:
        written = log.add(ended)
        if log.trouble:
            raise CloudaiError(f"--joblog: {log.trouble}")
    answer = {"batch_id": batch["batch_id"], "file": str(file), "written": written}
    session.show(answer, lambda _: say(f"✅ {file}: {written} lines more"), quiet=[written])
    return 0
