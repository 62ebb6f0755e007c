"""What a batch came to, for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cloudai.records import Figures, label_of, outcome_of, seconds_of
from cloudai.records.reading import Task

from .output import folded, print_fields, say
from .wording import long_span

Batch = Mapping[str, Any]
MOST_FAILED = 10
MOST_NAMED = 5


def name_of(batch: Batch) -> str:
    """Its name and id, or its id alone."""
    name, batch_id = batch.get("name"), batch["batch_id"]
    return f"{name} ({batch_id})" if name else str(batch_id)


def print_summary(batch: Batch, figures: Figures) -> None:
    """By how it ended, by exit code, where, how long, what failed, what was left out and why."""
    say(headline(batch, figures))
    say()
    print_fields(_fields(batch, figures))
    _print_failed(figures)
    _print_left_out(figures)


def headline(batch: Batch, figures: Figures) -> str:
    """How it stands or ended, in a line."""
    took = "" if figures.elapsed is None else f" in {long_span(figures.elapsed)}"
    if not batch.get("ended"):
        return f"Batch {name_of(batch)}: {figures.ended} of {figures.tasks} ended"
    bad = [f"{n} {word}" for word in ("failed", "cancelled") if (n := figures.counts[word])]
    if bad:
        return f"❌ Batch {name_of(batch)} ended{took}: {' and '.join(bad)} of {figures.tasks}"
    return f"✅ Batch {name_of(batch)} completed{took}"


def _fields(batch: Batch, figures: Figures) -> list[tuple[str, object]]:
    counts, whole = figures.counts, figures.whole
    gone = max(0, batch.get("submitted", figures.tasks) - figures.tasks)
    mean = figures.mean
    codes = ", ".join(f"{code}: {count}" for code, count in figures.by_exit_code.items())
    ran = "" if mean is None else f"; {_exact(whole.seconds)} in all tasks, {_exact(mean)} each"
    return [
        (
            "Tasks",
            ", ".join([str(figures.tasks), *(f"{n} {word}" for word, n in counts.items() if n)]),
        ),
        ("Forgotten", f"{gone} more were removed with `cloudai rm`" if gone else None),
        ("Exit codes", codes),
        (
            "Time",
            f"{long_span(figures.elapsed)} from start to end{ran}"
            if figures.elapsed is not None
            else None,
        ),
        ("Tried again", _tries(figures)),
        ("Workers", ", ".join(_worker(one.name, one.tasks, one.failed) for one in figures.workers)),
        ("Slowest", ", ".join(_slow(task) for task in figures.slowest) or None),
    ]


def _exact(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else long_span(seconds)


def _tries(figures: Figures) -> str | None:
    if not figures.tries:
        return None
    many = "1 task" if figures.tried_again == 1 else f"{figures.tried_again} tasks"
    return f"{figures.tries} times, {many}"


def _worker(name: str, tasks: int, failed: int) -> str:
    return f"{name}: {tasks}" + (f" ({failed} failed)" if failed else "")


def _slow(task: Task) -> str:
    from cloudai.core.units import show_duration

    return f"{label_of(task)} {show_duration(seconds_of(task) or 0)}"


def _print_failed(figures: Figures) -> None:
    if not figures.failed:
        return
    say()
    for task in figures.failed[:MOST_FAILED]:
        say(folded("✗ ", told(task)))
    more = len(figures.failed) - MOST_FAILED
    if more > 0:
        say(f"   … and {more} more")


def told(task: Task, *, with_id: bool = True) -> str:
    """How one task ended badly, in a line."""
    from cloudai.core.units import show_duration

    label, task_id = label_of(task), task["task_id"]
    who = f"{label} ({task_id})" if with_id and label != task_id else label
    where = f" on {task['worker_id']}" if task.get("worker_id") else ""
    seconds = seconds_of(task)
    after = "" if seconds is None else f" after {show_duration(seconds)}"
    outcome = outcome_of(task)
    why = task.get("reason")
    return f"{who} {outcome}{where}{after}" + (f": {why}" if why and why != outcome else "")


def _print_left_out(figures: Figures) -> None:
    if figures.left_out:
        say()
    for why, who in figures.left_out.items():
        some = ", ".join(who[:MOST_NAMED]) + (", …" if len(who) > MOST_NAMED else "")
        say(folded(f"– {len(who)} skipped: ", f"{some}: {why}"))
