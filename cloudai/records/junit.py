"""A batch as a JUnit report: what CI servers and their readers show as tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cloudai.markup import Markup, element

from .figures import Batch, Figures
from .reading import Task, entry_of, label_of, moment, outcome_of, seconds_of


def as_junit(
    batch: Batch, tasks: Sequence[Task], figures: Figures, *, outputs: Mapping[str, str]
) -> str:
    """A test suite with a test case a task. A failed task is a failure, a cancelled one an
    error; one that was left out, or has not ended, is skipped. ``outputs``: by task id, the
    end of what it wrote."""
    counts = figures.counts
    failures, errors = counts["failed"], counts["cancelled"]
    skipped = figures.tasks - counts["completed"] - failures - errors
    title = batch.get("name") or batch["batch_id"]
    totals: dict[str, Any] = {
        "name": title,
        "tests": figures.tasks,
        "failures": failures,
        "errors": errors,
        "skipped": skipped,
        "time": _seconds(figures.whole.seconds),
    }
    began = moment(batch.get("started_at"))
    suite = element(
        "testsuite",
        "\n",
        _properties(batch, figures),
        *(_case(task, title, outputs.get(task["task_id"], "")) for task in tasks),
        **totals,
        timestamp=began.strftime("%Y-%m-%dT%H:%M:%S") if began else None,
    )
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{element("testsuites", suite, **totals)}\n'


def _properties(batch: Batch, figures: Figures) -> Markup:
    told = {
        "batch": batch["batch_id"],
        "elapsed_seconds": None if figures.elapsed is None else _seconds(figures.elapsed),
        **{f"tasks_on.{one.name}": one.tasks for one in figures.workers},
    }
    rows = [
        element("property", name=name, value=value)
        for name, value in told.items()
        if value is not None
    ]
    return element("properties", *rows)


def _case(task: Task, title: str, output: str) -> Markup:
    outcome, reason = outcome_of(task), task.get("reason") or ""
    inner: Markup | None = None
    match outcome:
        case "completed":
            pass
        case "failed":
            kind = f"exit code {task['exit_code']}" if task.get("exit_code") else "cloudai"
            inner = element("failure", output or reason, message=reason or "failed", type=kind)
        case "cancelled":
            inner = element("error", output or reason, message=reason or "cancelled", type="cancel")
        case "skipped":
            inner = element("skipped", message=reason or "left out")
        case _:
            inner = element("skipped", message=f"has not ended: {outcome}")
    case = element(
        "testcase",
        inner,
        name=_name(task),
        classname=f"{title}.{entry_of(task)}" if task.get("entry") else title,
        time=_seconds(seconds_of(task) or 0.0),
    )
    return Markup(f"\n{case}")


def _name(task: Task) -> str:
    """Its label and its id: two tests of a suite never have one name."""
    label, task_id = label_of(task), str(task["task_id"])
    return label if label == task_id else f"{label} ({task_id})"


def _seconds(seconds: float) -> str:
    return f"{seconds:.3f}"
