"""The run's figures as a table for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from .timing import Group

HEADS = ("median", "fastest", "slowest", "ratio")


def report(
    conditions: Mapping[str, str],
    groups: Sequence[Group],
    lines: Mapping[str, Mapping[str, int]],
) -> str:
    """Conditions, a table a comparison (ratio: to its first row), and lines of code by room."""
    parts = [*_conditions(conditions)]
    for group in groups:
        parts += ["", *_table(group)]
    return "\n".join([*parts, "", *_rooms(lines)])


def _conditions(conditions: Mapping[str, str]) -> Iterator[str]:
    width = max(map(len, conditions), default=0)
    for name, value in conditions.items():
        yield f"{name:<{width}}  {value}"


def _table(group: Group) -> Iterator[str]:
    rows = group.as_json()["rows"]
    rounds = len(rows[0]["samples_ms"])
    title = f"{group.title}, ms of {rounds} round{'s' if rounds > 1 else ''}"
    width = max(len(title), *(len(row["what"]) for row in rows))
    yield f"{title:<{width}}" + "".join(f"{head:>10}" for head in HEADS)
    for row in rows:
        times = (row["median_ms"], row["fastest_ms"], row["slowest_ms"])
        cells = "".join(f"{time:>10.1f}" for time in times)
        yield f"{row['what']:<{width}}{cells}{row['ratio']:>9.2f}×"


def _rooms(lines: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    yield "lines of code that are not blank"
    for top, rooms in lines.items():
        each = ", ".join(f"{room} {count}" for room, count in rooms.items())
        yield f"{top:<10}{sum(rooms.values()):>7}  {each}"
