"""A batch as one HTML page that needs nothing else: no script, no request, light and dark."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from cloudai.core.units import show_duration
from cloudai.markup import Markup, element, join

from .figures import Batch, Figures, Share
from .page_style import STYLE
from .reading import OUTCOMES, Task, label_of, moment, outcome_of, seconds_of
from .timeline import timeline

MOST_FAILED = 200
MOST_ROWS = 20_000
"""Tasks that the last table lists; the figures are of all of them."""
_NONE = "–"


def as_html(
    batch: Batch,
    tasks: Sequence[Task],
    figures: Figures,
    *,
    outputs: Mapping[str, str],
    graph: str = "",
    now: datetime | None = None,
) -> str:
    """``outputs``: by task id, the end of what it wrote. ``graph``: a drawing of what comes
    after what, as SVG that ``cloudai.graph`` made."""
    title = str(batch.get("name") or batch["batch_id"])
    body = element(
        "body",
        _head(batch, figures, title),
        _tiles(figures),
        _bar(figures),
        _section("When and where", timeline(tasks, now)),
        _section("What comes after what", Markup(f'<div class="wide">{graph}</div>'))
        if graph
        else None,
        _failures(figures.failed, outputs),
        _left_out(figures),
        element(
            "div",
            _section("By exit code", _codes(figures)),
            _section("Slowest", _slowest(figures)),
            class_="pair",
        ),
        _section("By worker", _shares(figures.workers, "worker")),
        _section("By entry", _shares(figures.entries, "entry")),
        _all_tasks(tasks, now),
        element(
            "footer",
            "Written by cloudai. Times are UTC and of each task's last try; percentages are of"
            " all tasks.",
        ),
    )
    # Nothing may be loaded, whatever a task was called: the page says so itself.
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src 'none'"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{policy}"/>'),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"{title}: {_state(batch, figures)}"),
        element("style", Markup(STYLE)),
    )
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _state(batch: Batch, figures: Figures) -> str:
    return str(batch.get("status") or f"{figures.ended} of {figures.tasks} ended")


def _head(batch: Batch, figures: Figures, title: str) -> Markup:
    state = _state(batch, figures)
    about = [
        ("batch", batch["batch_id"]),
        ("by", batch.get("user_id")),
        ("from", ", ".join(batch.get("files") or ())),
        ("key", batch.get("once_key")),
        ("submitted", clock(batch.get("created_at"))),
        ("started", clock(batch.get("started_at"))),
        ("ended", clock(batch.get("completed_at"))),
    ]
    told = [
        element("span", element("b", name), " ", value)
        for name, value in about
        if value and value != _NONE
    ]
    return element(
        "header",
        element("h1", title, " ", element("span", state, class_=f"badge {state}")),
        element("p", *told, class_="about"),
    )


def _tiles(figures: Figures) -> Markup:
    counts = figures.counts
    tiles: list[tuple[str, object, str]] = [("tasks", figures.tasks, "")]
    tiles += [(word, counts[word], word if counts[word] else "") for word in OUTCOMES]
    going = figures.tasks - figures.ended
    tiles += [("not ended", going, "running")] if going else []
    tiles += [
        ("tried again", figures.tries, ""),
        ("start to end", _opt(figures.elapsed), ""),
        ("in all tasks", show_duration(figures.whole.seconds), ""),
        ("on average", _opt(figures.mean), ""),
    ]
    return element(
        "div",
        *(
            element("div", element("b", value), element("span", name), class_=f"tile {kind}")
            for name, value, kind in tiles
        ),
        class_="tiles",
    )


def _bar(figures: Figures) -> Markup | None:
    if not figures.tasks:
        return None
    parts = {**{word: figures.counts[word] for word in OUTCOMES}}
    parts["running"] = figures.tasks - figures.ended
    pieces = [
        element(
            "div",
            class_=f"part {word}",
            style=f"flex-grow:{count}",
            title=f"{word}: {count} ({100 * count / figures.tasks:.1f} %)",
        )
        for word, count in parts.items()
        if count
    ]
    return element("div", *pieces, class_="bar")


def _failures(failed: Sequence[Task], outputs: Mapping[str, str]) -> Markup | None:
    if not failed:
        return None
    shown = failed[:MOST_FAILED]
    pieces = [_failure(task, outputs.get(task["task_id"], "")) for task in shown]
    if more := len(failed) - len(shown):
        pieces.append(element("p", f"… and {more} more, in the list of all tasks"))
    return _section(f"What went wrong ({len(failed)})", *pieces)


def _failure(task: Task, output: str) -> Markup:
    outcome = outcome_of(task)
    why = task.get("reason") or outcome
    head = [
        element("span", outcome, class_=f"badge {outcome}"),
        " ",
        element("b", label_of(task)),
        f" on {task['worker_id']}" if task.get("worker_id") else "",
        f" after {show_duration(seconds)}" if (seconds := seconds_of(task)) is not None else "",
        ": ",
        why,
    ]
    inner = [
        element("p", element("code", task["task_id"]), " ", task.get("docker_image") or ""),
        element("pre", task["command"]) if task.get("command") else None,
        element("p", "The end of its output:") if output else None,
        element("pre", output, class_="output") if output else None,
    ]
    return element("details", element("summary", *head), *inner)


def _left_out(figures: Figures) -> Markup | None:
    if not figures.left_out:
        return None
    rows = [
        [str(len(who)), why, ", ".join(who[:20]) + (", …" if len(who) > 20 else "")]
        for why, who in figures.left_out.items()
    ]
    table = _table(["#tasks", "why", "which"], rows)
    return _section(f"What was left out ({figures.counts['skipped']})", table)


def _codes(figures: Figures) -> Markup:
    rows = [[code, str(count)] for code, count in figures.by_exit_code.items()]
    return _table(["exit code", "#tasks"], rows)


def _slowest(figures: Figures) -> Markup:
    rows = [
        [label_of(task), task.get("worker_id") or _NONE, show_duration(seconds_of(task) or 0)]
        for task in figures.slowest
    ]
    return _table(["task", "worker", "#took"], rows)


def _shares(shares: Sequence[Share], kind: str) -> Markup:
    heads = [kind, "#tasks", *(f"#{word}" for word in OUTCOMES), "#in all", "#on average"]
    rows = [
        [
            one.name,
            str(one.tasks),
            *(str(getattr(one, word) or _NONE) for word in OUTCOMES),
            show_duration(one.seconds),
            _opt(one.mean),
        ]
        for one in shares
    ]
    return element("div", _table(heads, rows), class_="wide")


def _all_tasks(tasks: Sequence[Task], now: datetime | None) -> Markup:
    heads = ["task", "id", "status", "worker", "#exit", "started", "#took", "why"]
    rows = [
        [
            label_of(task),
            element("code", task["task_id"]),
            element("span", outcome_of(task), class_=f"badge {outcome_of(task)}"),
            task.get("worker_id") or _NONE,
            _NONE if task.get("exit_code") is None else str(task["exit_code"]),
            clock(task.get("started_at")),
            _opt(seconds_of(task, now)),
            task.get("reason") or "",
        ]
        for task in tasks[:MOST_ROWS]
    ]
    more = len(tasks) - len(rows)
    return element(
        "section",
        element(
            "details",
            element("summary", element("h2", f"All tasks ({len(tasks)})")),
            element("div", _table(heads, rows), class_="wide"),
            element("p", f"… and {more} more: the JSON report has them all") if more else None,
        ),
    )


def _table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> Markup:
    """Columns whose head begins with ``#`` hold numbers."""
    right = ["n" if head.startswith("#") else None for head in heads]
    lines = [
        element(
            "tr", *(element("td", cell, class_=at) for cell, at in zip(row, right, strict=True))
        )
        for row in rows
    ]
    told = [
        element("th", head.lstrip("#"), class_=at) for head, at in zip(heads, right, strict=True)
    ]
    return element(
        "table",
        element("thead", element("tr", *told)),
        element("tbody", join(lines, "\n")),
    )


def _section(title: str, *inner: Markup | None) -> Markup:
    return element("section", element("h2", title), *inner)


def clock(text: str | None) -> str:
    """An API time, to the second, in UTC."""
    at = moment(text)
    return _NONE if at is None else at.strftime("%Y-%m-%d %H:%M:%S")


def _opt(seconds: float | None) -> str:
    return _NONE if seconds is None else show_duration(seconds)
