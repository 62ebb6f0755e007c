"""How ``simulate`` shows what it found: tables, and a plot in the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .output import Column, columns, print_table, say
from .wording import NOTHING, long_span

if TYPE_CHECKING:
    from cloudai.simulate import Filling, Fleet, Summary, Trace

WIDEST = 80


def print_replays(trace: Trace, fleet: Fleet, rows: Sequence[Summary]) -> None:
    """What was replayed, how long tasks waited, how full it was, and both over time."""
    from cloudai.simulate import as_text

    _print_about(trace, fleet)
    if rows:
        _print_counts(rows[0].not_counted, "not replayed")
        if rows[0].at_limit:
            say(f"       {rows[0].at_limit} ran into their time limit, which ends them")
    say()
    _print_waits(rows)
    say()
    _print_use(rows)
    if any(row.never for row in rows):
        say()
    for row in rows:
        for why, count in row.never.most_common():
            say(f"{row.name}: {count} never placed: {why}")
    say()
    for line in as_text(rows, width=min(WIDEST, columns())):
        say(line)


def _print_about(trace: Trace, fleet: Fleet) -> None:
    total = fleet.total
    jobs = trace.jobs
    lasts = jobs[-1].submitted - jobs[0].submitted
    say(f"Trace: {trace.source}: {len(jobs)} tasks, submitted within {long_span(lasts)}")
    for note in trace.notes:
        say(f"       {note}")
    _print_counts(trace.skipped, "left out")
    gpus = f", {total.gpus:g} GPUs" if total.gpu_milli else ""
    say(f"Fleet: {fleet.source}: {len(fleet.places)} workers, {total.cpus:g} cores{gpus}")
    for note in fleet.notes:
        say(f"       {note}")


def _print_counts(counts: Counter[str], what: str) -> None:
    for why, count in counts.most_common():
        if count:
            say(f"       {count} {what}: {why}")


def _print_waits(rows: Sequence[Summary]) -> None:
    heads = [
        Column("STRATEGY"),
        Column("WAIT", right=True),
        Column("MEDIAN", right=True),
        Column("95%", right=True),
        Column("SLOWDOWN", right=True),
        Column("SLOWDOWN 95%", right=True),
        Column("MAKESPAN", right=True),
    ]
    print_table(
        heads,
        [
            [
                row.name,
                _seconds(row.wait_mean),
                _seconds(row.wait_median),
                _seconds(row.wait_95),
                _number(row.slowdown_mean),
                _number(row.slowdown_95),
                _seconds(row.makespan),
            ]
            for row in rows
        ],
    )


def _print_use(rows: Sequence[Summary]) -> None:
    heads = [
        Column("STRATEGY"),
        Column("CPUS", right=True),
        Column("GPUS", right=True),
        Column("FRAGMENTED", right=True),
        Column("PLACED", right=True),
        Column("NEVER", right=True),
        Column("PREEMPTED", right=True),
    ]
    print_table(
        heads,
        [
            [
                row.name,
                _percent(row.cpus),
                _percent(row.gpus),
                _percent(row.fragmentation),
                str(row.placed),
                str(sum(row.never.values())),
                str(row.preempted),
            ]
            for row in rows
        ],
    )


def _seconds(value: float | None) -> str:
    from cloudai.core.units import show_duration

    return NOTHING if value is None else show_duration(value)


def _number(value: float | None) -> str:
    if value is None:
        return NOTHING
    return f"{value:.2f}" if value < 100 else f"{value:.0f}"


def _percent(value: float | None) -> str:
    return NOTHING if value is None else f"{value * 100:.1f}%"


# ---------------------------------------------------------------- place or drop


def print_fillings(trace: Trace, fleet: Fleet, found: Sequence[Filling], *, seeds: int) -> None:
    """How full the fleet was, next to what was published where it is that list."""
    from cloudai.simulate import PUBLISHED, is_published_list

    _print_about(trace, fleet)
    what = "GPUs" if fleet.total.gpu_milli else "cores"
    say(f"Per cent of {what} allocated when tasks asking for so much had come:")
    say(f"mean ± standard deviation of {seeds} shuffles")
    say()
    marks = found[0].marks
    heads = [
        Column("STRATEGY"),
        *(Column(f"AT {mark * 100:g}%", right=True) for mark in marks),
        Column("DROPPED", right=True),
    ]
    rows = [
        [
            one.name,
            *(
                f"{one.mean(at) * 100:.2f}±{one.deviation(at) * 100:.2f}"
                for at in range(len(marks))
            ),
            _percent(one.dropped),
        ]
        for one in found
    ]
    if is_published_list(trace, fleet) and marks == (1.0, 1.3):
        rows += [
            [f"paper:{name}", *(f"{value:.2f}" for value in values), NOTHING]
            for name, values in PUBLISHED.items()
        ]
    print_table(heads, rows)
