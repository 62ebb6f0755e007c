"""The live view of a batch: a bar, figures, and a line for each task that holds a place.

Nothing jumps: a task keeps its line while it runs, the next one takes over a line that became
free, and every figure has its column.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any

from cloudai.core.units import show_duration
from cloudai.records import label_of, moment, outcome_of, seconds_of
from cloudai.records.pace import Pending, rate, remaining
from cloudai.records.reading import entry_of

from .terminal import clean
from .wording import span

if TYPE_CHECKING:
    from rich.text import Text

Task = dict[str, Any]
Batch = Mapping[str, Any]

MOST_ROWS = 16
UNKNOWN = "—"
PARTS = (
    ("completed", "green"),
    ("skipped", "yellow"),
    ("cancelled", "magenta"),
    ("failed", "red"),
    ("running", "cyan"),
    ("waiting", "bright_black"),
)
_FULL = {
    "completed": "█",
    "skipped": "▓",
    "cancelled": "▚",
    "failed": "▞",
    "running": "▒",
    "waiting": "░",
}
_ASCII = {
    "completed": "#",
    "skipped": "/",
    "cancelled": "x",
    "failed": "!",
    "running": ">",
    "waiting": ".",
}


def parts_of(counts: Mapping[str, int]) -> dict[str, int]:
    """A batch's counts as the parts of its bar."""
    held = sum(counts.get(word, 0) for word in ("starting", "running", "stopping"))
    ended = {word: counts.get(word, 0) for word in ("completed", "skipped", "cancelled", "failed")}
    return {**ended, "running": held, "waiting": counts.get("queued", 0)}


def shares(parts: Mapping[str, int], width: int) -> dict[str, int]:
    """So many columns for each part, in proportion; what there is at all has at least one."""
    whole = sum(parts.values())
    if not whole:
        return {"waiting": width}
    exact = {word: width * count / whole for word, count in parts.items() if count}
    found = {word: max(1, int(share)) for word, share in exact.items()}
    while (rest := width - sum(found.values())) != 0 and found:
        # Given to, or taken from, whoever is farthest from its share.
        off = {word: exact[word] - found[word] for word in found}
        word = max(off, key=off.__getitem__) if rest > 0 else min(off, key=off.__getitem__)
        found[word] += 1 if rest > 0 else -1
    return found


class Outlook:
    """Rate and estimated end, from what has ended so far."""

    def __init__(self) -> None:
        self._places: deque[int] = deque(maxlen=30)

    def told(
        self, tasks: Sequence[Task], held: int, now: datetime
    ) -> tuple[float | None, float | None]:
        """Tasks a minute, and seconds until the end; ``None`` for what is not known."""
        self._places.append(held)
        starts = [at.timestamp() for task in tasks if (at := moment(task["started_at"]))]
        ends = [at.timestamp() for task in tasks if (at := moment(task["completed_at"]))]
        pace = rate(ends, now.timestamp(), min(starts, default=None))
        if len(ends) < 2 or not held:
            return pace, None
        pending, needs = _pending(tasks, now)
        return pace, remaining(pending, needs, max(self._places))


def _pending(
    tasks: Sequence[Task], now: datetime
) -> tuple[dict[str, Pending], dict[str, set[str]]]:
    waiting: dict[str, int] = {}
    running: dict[str, list[float]] = {}
    took: dict[str, list[float]] = {}
    limits: dict[str, int | None] = {}
    needs: dict[str, set[str]] = {}
    known = _references(tasks)
    for task in tasks:
        entry, outcome = entry_of(task), outcome_of(task)
        limits[entry] = task.get("array_limit")
        if outcome == "queued":
            waiting[entry] = waiting.get(entry, 0) + 1
        elif outcome in ("starting", "running", "stopping"):
            running.setdefault(entry, []).append(seconds_of(task, now) or 0.0)
        elif outcome == "completed" and (seconds := seconds_of(task)) is not None:
            took.setdefault(entry, []).append(seconds)
        for need in task.get("after") or ():
            ref = need.rpartition(":")[0]
            needs.setdefault(entry, set()).update(known.get(ref, ()))
    pending = {
        entry: Pending(
            waiting.get(entry, 0),
            running.get(entry, ()),
            sum(took[entry]) / len(took[entry]) if entry in took else None,
            limit,
        )
        for entry, limit in limits.items()
    }
    return pending, needs


def _references(tasks: Sequence[Task]) -> dict[str, set[str]]:
    """The entries that a need's reference may mean."""
    found: dict[str, set[str]] = {}
    for task in tasks:
        entry = entry_of(task)
        for name in (task["task_id"], task.get("array"), f"{task.get('batch')}/{entry}"):
            if name:
                found.setdefault(name, set()).add(entry)
    return found


class Screen:
    """What is drawn, from one look to the next."""

    def __init__(self, *, width: int, height: int, ascii_only: bool, colours: bool) -> None:
        self._width = max(40, width)
        self._most = max(1, min(MOST_ROWS, height - 8))
        self._glyphs = _ASCII if ascii_only else _FULL
        self._colours = colours and not ascii_only
        self._dot = "-" if ascii_only else "·"
        self._unknown = "?" if ascii_only else UNKNOWN
        self._rows: list[str | None] = []
        self._outlook = Outlook()
        self._overflow = False

    def lines(
        self, batch: Batch, tasks: Sequence[Task], running: Sequence[Task], now: datetime
    ) -> list[Text]:
        """The view as lines, none wider than the screen."""
        parts = parts_of(batch["counts"])
        return [
            self._title(batch, now),
            self._bar(parts),
            self._figures(parts),
            self._pace(tasks, parts, now),
            *self._running(running, now),
        ]

    def _title(self, batch: Batch, now: datetime) -> Text:
        from rich.text import Text

        began = moment(batch.get("started_at"))
        ran = show_duration(int((now - began).total_seconds())) if began else ""
        name = clean(batch.get("name") or "")
        told = f"{name}  {batch['batch_id']}" if name else str(batch["batch_id"])
        room = self._width - 8
        return Text(f"{told[:room]:<{room}}{ran:>8}", style="bold")

    def _bar(self, parts: Mapping[str, int]) -> Text:
        from rich.text import Text

        whole = sum(parts.values())
        done = whole - parts["running"] - parts["waiting"]
        told = f" {done:>{len(str(whole))}}/{whole} {100 * done // max(1, whole):>3} %"
        line = Text()
        columns = shares(parts, self._width - len(told))
        for word, style in PARTS:
            line.append(self._glyph(word) * columns.get(word, 0), style=style)
        return line.append(told)

    def _glyph(self, word: str) -> str:
        """Where there are colours, they tell how tasks ended."""
        ended = word not in ("running", "waiting")
        return "█" if self._colours and ended else self._glyphs[word]

    def _figures(self, parts: Mapping[str, int]) -> Text:
        from rich.text import Text

        width = len(str(sum(parts.values())))
        line = Text()
        for word, style in PARTS:
            count = parts[word]
            if word in ("skipped", "cancelled") and not count:
                continue
            if line:
                line.append("  ")
            line.append(f"{self._glyph(word)} ", style=style)
            line.append(f"{count:>{width}} {word}", style="" if count else "dim")
        line.truncate(self._width)
        return line

    def _pace(self, tasks: Sequence[Task], parts: Mapping[str, int], now: datetime) -> Text:
        from rich.text import Text

        pace, left = self._outlook.told(tasks, parts["running"], now)
        speed = self._unknown if pace is None else f"{pace:.0f}" if pace >= 10 else f"{pace:.1f}"
        if not parts["running"] and not parts["waiting"]:
            end = "done"
        elif left is None:
            end = f"end {self._unknown}"
        else:
            at = (now + timedelta(seconds=left)).astimezone()
            clock = at.strftime("%H:%M" if left < 43_200 else "%d %b %H:%M")
            end = f"about {show_duration(round(left))} left, until {clock}"
        return Text(f"{speed:>6} tasks/min {self._dot} {end}"[: self._width])

    def _running(self, running: Sequence[Task], now: datetime) -> list[Text]:
        from rich.text import Text

        by_id = {task["task_id"]: task for task in running}
        self._rows = [one if one in by_id else None for one in self._rows]
        shown = set(self._rows)
        for task in sorted(running, key=lambda task: (task["started_at"] or "~", task["task_id"])):
            if task["task_id"] in shown:
                continue
            if None in self._rows:
                self._rows[self._rows.index(None)] = task["task_id"]
            elif len(self._rows) < self._most:
                self._rows.append(task["task_id"])
        lines = [Text("")] if self._rows else []
        for one in self._rows:
            lines.append(Text("") if one is None else self._row(by_id[one], now))
        hidden = len(running) - sum(1 for one in self._rows if one)
        self._overflow = self._overflow or hidden > 0
        if self._overflow:
            lines.append(Text(f"  and {hidden} more" if hidden > 0 else "", style="dim"))
        return lines

    def _row(self, task: Task, now: datetime) -> Text:
        from rich.text import Text

        seconds = seconds_of(task, now)
        aged = "" if seconds is None else span(seconds)
        phase = clean(task.get("phase") or "")
        state = str(task["status"])
        told = phase if state == "running" and phase else f"{state}: {phase}" if phase else state
        worker = clean(task.get("worker_id") or "")
        label_room = max(12, self._width - 2 - 16 - 1 - 6 - 2 - 24)
        label = _fitted(clean(_called(task)), label_room)
        line = Text(f"  {label} {_fitted(worker, 15)} {aged:>6}  ")
        line.append(told, style="cyan" if state != "running" or phase else "dim")
        line.truncate(self._width)
        return line


def _called(task: Task) -> str:
    """What tells it from the others of its entry: where it has no name, its command."""
    if task.get("name") or task.get("array") or not task.get("entry"):
        return label_of(task)
    return f"{task['entry']}: {task.get('command') or task['docker_image']}"


def _fitted(text: str, room: int) -> str:
    """The text in so many columns of the terminal, filled up or cut."""
    from rich.cells import cell_len, set_cell_size

    if cell_len(text) > room:
        return f"{set_cell_size(text, room - 1)}…"
    return set_cell_size(text, room)


class LiveView:
    """The screen on the terminal; gone when it is left. Lines that stay are printed above."""

    def __init__(self) -> None:
        from rich.live import Live

        from .output import rich_console, with_colours

        self._console = rich_console()
        size = self._console.size
        self._screen = Screen(
            width=size.width - 1,
            height=size.height,
            ascii_only=not speaks(_FULL["completed"] + UNKNOWN),
            colours=with_colours(),
        )
        self._live = Live(console=self._console, auto_refresh=False, transient=True)

    def __enter__(self) -> LiveView:
        self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def show(self, batch: Batch, tasks: Sequence[Task], running: Sequence[Task]) -> None:
        """Draws how things stand now."""
        from rich.console import Group

        now = datetime.now().astimezone()
        self._live.update(Group(*self._screen.lines(batch, tasks, running, now)), refresh=True)

    def keep(self, line: str) -> None:
        """A line that stays above the view."""
        from rich.text import Text

        self._console.print(Text(clean(line)), soft_wrap=True)


def speaks(text: str) -> bool:
    """Whether stdout's encoding has these characters."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
