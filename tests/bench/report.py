"""The run's figures as tables: for a terminal, and for docs/performance.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from .figures import ROWS, Group, Reached, Series

HEADS = ("median", "least", "most", "ratio")


def as_text(group: Group) -> Iterator[str]:
    """One comparison, within 80 columns when its names are."""
    many = max(len(one.samples) for one in group.series)
    title = f"{group.title}, {group.unit.word}" + (f", {many} rounds" if many > 1 else "")
    width = max(len(title) - (0 if many > 1 else 20), *(len(one.what) for one in group.series))
    heads = HEADS if many > 1 else ("", "", *HEADS[-1:])
    yield f"{title:<{width}}" + "".join(f"{head:>10}" for head in heads).rstrip()
    for one in group.series:
        yield f"{one.what:<{width}}{_cells(group, one)}{_ratio(group, one):>9.2f}×"
    for reached in group.reached():
        yield f"  {_outcome(reached)}"
    for note in group.notes:
        yield f"  {note}"


def _cells(group: Group, one: Series) -> str:
    figures = [one.median, min(one.samples), max(one.samples)]
    if len(one.samples) == 1:
        figures = figures[:1]
    return "".join(f"{group.unit.text(figure):>10}" for figure in figures)


def _ratio(group: Group, one: Series) -> float:
    ours = group.series[0].median
    return one.median / ours if ours else 0.0


def _outcome(reached: Reached) -> str:
    return f"{reached.aim.text}: {reached.value:.2f}{'' if reached.within else ', SHORT OF IT'}"


def conditions(found: Mapping[str, str]) -> Iterator[str]:
    width = max(map(len, found), default=0)
    for name, value in found.items():
        yield f"{name:<{width}}  {value}"


def rooms(lines: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    yield "lines of code that are not blank"
    for top, each in lines.items():
        told = ", ".join(f"{room} {count}" for room, count in each.items())
        yield f"{top:<10}{sum(each.values()):>7}  {told}"


def as_markdown(found: Mapping[str, str], groups: Sequence[Group]) -> Iterator[str]:
    """The generated part of docs/performance.md: what was aimed at and reached, then all of it."""
    yield "| | |"
    yield "|---|---|"
    for name, value in found.items():
        yield f"| {name} | {value} |"
    yield ""
    yield "| # | aim | measured | |"
    yield "|--:|---|--:|---|"
    for group in groups:
        for reached in group.reached():
            mark = "reached" if reached.within else "**short**"
            what = f"{group.title}: {reached.aim.text}"
            yield f"| {group.row} | {what} | {reached.value:.2f} | {mark} |"
    row = 0
    for group in groups:
        if group.row != row:
            row = group.row
            yield ""
            yield f"### {row}. {ROWS[row]}"
        yield ""
        yield f"| {group.title}, {group.unit.word} | median | least | most | ratio |"
        yield "|---|--:|--:|--:|--:|"
        for one in group.series:
            figures = (one.median, min(one.samples), max(one.samples))
            told = " | ".join(group.unit.text(figure) for figure in figures)
            yield f"| {one.what} | {told} | {_ratio(group, one):.2f} |"
        for note in group.notes:
            yield ""
            yield note
