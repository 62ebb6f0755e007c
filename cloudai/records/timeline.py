"""Which worker ran what, when: a lane a worker, as SVG for the page of a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime

from cloudai.core.units import show_duration
from cloudai.markup import Markup, element

from .reading import Task, label_of, moment, outcome_of

WIDTH, LEFT, ROW, PITCH = 1000, 150, 9, 11
MOST_LANES = 40
"""Workers that are drawn, those with most tasks."""
MOST_TASKS = 5_000
"""Tasks that are drawn, the longest ones: what is narrower than a pixel shows nothing."""
MOST_ROWS = 12
"""Tasks of one worker side by side; more lie over each other."""

Span = tuple[float, float, Task]


def timeline(tasks: Sequence[Task], now: datetime | None = None) -> Markup:
    """All that ran, with the present time as the end of what still runs."""
    spans = [span for task in tasks if (span := _span(task, now))]
    if not spans:
        return element("p", "Nothing has run.")
    first = min(begin for begin, _, _ in spans)
    whole = max(1e-3, max(end for _, end, _ in spans) - first)
    drawn = sorted(spans, key=lambda span: span[0] - span[1])[:MOST_TASKS]
    lanes: dict[str, list[Span]] = {}
    for span in sorted(drawn, key=lambda span: (span[0], span[1])):
        lanes.setdefault(str(span[2].get("worker_id") or "?"), []).append(span)
    busiest = Counter({name: len(lane) for name, lane in lanes.items()}).most_common(MOST_LANES)
    shown = sorted(name for name, _ in busiest)
    y, parts = 4.0, []
    for name in shown:
        rows = _rows(lanes[name])
        height = PITCH * (max(rows) + 1) + 3
        parts.append(element("rect", class_="lane", x=LEFT, y=y, width=WIDTH - LEFT, height=height))
        parts.append(element("text", _short(name), x=0, y=round(y + height / 2 + 4, 1)))
        for span, row in zip(lanes[name], rows, strict=True):
            parts.append(_task(span, first, whole, y + 2 + PITCH * row))
        y += height + 4
    parts += _ticks(whole, y)
    drawing = element(
        "svg",
        *parts,
        viewBox=f"0 0 {WIDTH} {y + 18:.0f}",
        role="img",
        aria_label="Which worker ran what, when",
    )
    if len(shown) < len(lanes):
        return Markup(drawing + element("p", f"… and {len(lanes) - len(shown)} more workers"))
    return drawing


def _span(task: Task, now: datetime | None) -> Span | None:
    begin = moment(task.get("started_at"))
    end = moment(task.get("completed_at")) or now
    if begin is None or end is None:
        return None
    return begin.timestamp(), max(begin, end).timestamp(), task


def _rows(lane: Iterable[Span]) -> list[int]:
    """For each task of one worker, in the order of their starts, the row that was free then."""
    free: list[float] = []
    rows = []
    for begin, end, _ in lane:
        row = next((at for at, until in enumerate(free) if until <= begin), len(free))
        if row >= MOST_ROWS:
            row = min(range(MOST_ROWS), key=free.__getitem__)
        if row == len(free):
            free.append(end)
        free[row] = end
        rows.append(row)
    return rows


def _task(span: Span, first: float, whole: float, y: float) -> Markup:
    begin, end, task = span
    scale = (WIDTH - LEFT) / whole
    outcome = outcome_of(task)
    title = f"{label_of(task)}: {outcome}, {show_duration(round(end - begin, 1))}"
    return element(
        "rect",
        element("title", title),
        class_=f"task {outcome}",
        x=round(LEFT + (begin - first) * scale, 2),
        y=round(y, 1),
        width=round(max(0.7, (end - begin) * scale - 0.6), 2),
        height=ROW,
        rx=1.5,
    )


def _ticks(whole: float, y: float) -> list[Markup]:
    parts = []
    for part in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = LEFT + (WIDTH - LEFT) * part
        anchor = "start" if part == 0 else "end" if part == 1 else "middle"
        parts.append(element("path", class_="tick", d=f"M{x:.1f} 0V{y:.1f}"))
        text = show_duration(round(whole * part, 1 if whole < 60 else 0))
        parts.append(element("text", text, x=round(x, 1), y=round(y + 14, 1), text_anchor=anchor))
    return parts


def _short(name: str) -> str:
    return name if len(name) <= 20 else f"{name[:19]}…"
