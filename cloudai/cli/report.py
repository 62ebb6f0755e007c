"""``--report``: a batch's report in a file, as HTML, JSON or JUnit."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloudai.core.errors import CloudaiError, InvalidInput
from cloudai.records import Figures, figures_of, outcome_of

if TYPE_CHECKING:
    from cloudai.client import Client

Task = dict[str, Any]
Batch = dict[str, Any]

FORMATS = {".html": "html", ".htm": "html", ".json": "json", ".xml": "junit"}
MOST_OUTPUTS = 50
"""Failed tasks whose output's end stands in a report."""
LINES = 30
MOST_BYTES = 65_536


def form_of(path: Path, given: str | None) -> str:
    """What a report is to be: as given, or by the file's name. Raises ``click.UsageError``."""
    if form := given or FORMATS.get(path.suffix.lower()):
        return form
    raise click.UsageError(
        f"--report: {path} says not what it is to be; name it .html, .json or .xml (JUnit), or"
        " give --report-format."
    )


def check_reports(paths: Sequence[Path], given: str | None) -> None:
    """Before anything is submitted: whether they can be written, and as what."""
    for path in paths:
        form_of(path, given)
        folder = path.absolute().parent
        if not folder.is_dir():
            raise InvalidInput(f"--report: there is no folder {folder}", hint=f"mkdir -p {folder}")
        if not os.access(folder, os.W_OK):
            raise InvalidInput(f"--report: nothing may be written in {folder}")


def write_reports(
    client: Client, batch: Batch, tasks: Sequence[Task], paths: Sequence[Path], given: str | None
) -> None:
    """Writes each; whole or not at all. Raises ``CloudaiError``."""
    if not paths:
        return
    now = None if batch["ended"] else datetime.now().astimezone()
    figures = figures_of(tasks, now)
    forms = {form_of(path, given) for path in paths}
    outputs = {} if forms == {"json"} else _outputs(client, figures)
    for path in paths:
        form = form_of(path, given)
        _write(path, text_of_report(form, batch, tasks, figures, outputs, now))


def text_of_report(
    form: str,
    batch: Batch,
    tasks: Sequence[Task],
    figures: Figures,
    outputs: dict[str, str],
    now: datetime | None = None,
) -> str:
    """A report's whole text. ``form``: html, json or junit; ``outputs``: by task id, the end
    of what it wrote."""
    from cloudai.graph import as_svg, graph_of
    from cloudai.records.document import as_document
    from cloudai.records.html import as_html
    from cloudai.records.junit import as_junit

    if form == "json":
        return json.dumps(as_document(batch, tasks, figures), indent=2) + "\n"
    if form == "junit":
        return as_junit(batch, tasks, figures, outputs=outputs)
    graph = graph_of(batch["batch_id"], tasks)
    drawn = as_svg(graph, title="What comes after what") if graph.edges else ""
    return as_html(batch, tasks, figures, outputs=outputs, graph=drawn, now=now)


def _outputs(client: Client, figures: Figures) -> dict[str, str]:
    """The last lines of what failed tasks wrote, as far as they can be had."""
    wanted = [
        task for task in figures.failed if outcome_of(task) == "failed" and task["started_at"]
    ]
    return {task["task_id"]: _end_of(client, task["task_id"]) for task in wanted[:MOST_OUTPUTS]}


def _end_of(client: Client, task_id: str) -> str:
    from cloudai.client import task_path

    try:
        with client.stream(task_path(task_id, "logs"), tail=LINES) as chunks:
            data = b"".join(chunks)
    except CloudaiError as error:
        return f"(it cannot be read: {error.message})"
    return readable(data[-MOST_BYTES:])


def readable(data: bytes) -> str:
    """Log bytes as text: of a line that was written over only what stood last, no colours."""
    from .terminal import LogCleaner

    lines = [line.rstrip(b"\r").rpartition(b"\r")[2] for line in data.split(b"\n")]
    cleaner = LogCleaner(colours=False)
    return (cleaner.feed(b"\n".join(lines)) + cleaner.close()).strip("\n")


def _write(path: Path, text: str) -> None:
    """The whole file or none of it; what is no plain file (/dev/stdout) is written as it is."""
    data = text.encode("utf-8", "replace")
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(data)
            return
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            beside.write_bytes(data)
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise CloudaiError(f"--report: {path} cannot be written: {error.strerror}") from error
