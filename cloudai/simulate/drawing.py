"""Plots of several replays: as text, a line of blocks a strategy, and as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from cloudai.core.units import show_duration

from .measures import Summary

BLOCKS = " ▁▂▃▄▅▆▇█"
LABEL = 22
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")
TITLES = {
    "gpus": "GPUs in use",
    "cpus": "CPUs in use",
    "fragmentation": "GPUs that are free and of no use",
    "waiting": "tasks waiting",
}


def as_text(rows: Sequence[Summary], *, width: int = 80) -> list[str]:
    """Use and queue over time: for each of them a line a strategy, all on one scale."""
    drawn = [row for row in rows if row.series]
    if not drawn:
        return []
    room = max(10, width - LABEL)
    longest = max(row.makespan for row in drawn)
    lines: list[str] = []
    for key in _keys(drawn, ("gpus", "cpus", "waiting")):
        top = 1.0 if key in ("gpus", "cpus") else _top(drawn, key)
        scale = "100 %" if key in ("gpus", "cpus") else f"{top:,.0f}"
        lines.append(f"{TITLES[key]} (█ is {scale})")
        for row in drawn:
            wide = max(1, round(room * row.makespan / longest))
            lines.append((row.name.ljust(LABEL) + spark(row.series[key], top, wide)).rstrip())
        lines.append("")
    lines[-1] = " " * LABEL + "0" + show_duration(longest).rjust(room - 1)
    return lines


def _keys(rows: Sequence[Summary], wanted: Sequence[str]) -> list[str]:
    """Those that are worth drawing: CPUs only where no task wants GPUs."""
    there = [key for key in wanted if all(key in row.series for row in rows)]
    if "gpus" in there and any(max(row.series["gpus"]) > 0 for row in rows):
        there.remove("cpus")
    elif "gpus" in there:
        there.remove("gpus")
    return there


def _top(rows: Sequence[Summary], key: str) -> float:
    return max((max(row.series[key]) for row in rows), default=0.0) or 1.0


def spark(values: Sequence[float], top: float, width: int) -> str:
    """So many blocks, each the mean of its part; anything above zero shows."""
    parts = np.array_split(np.array(values), min(width, len(values)))
    text = ""
    for part in parts:
        level = float(part.mean()) / top * (len(BLOCKS) - 1)
        text += BLOCKS[min(len(BLOCKS) - 1, max(round(level), 1 if level > 0.02 else 0))]
    return text


# ---------------------------------------------------------------- SVG

WIDTH, HEIGHT, LEFT, GAP, RIGHT = 860, 170, 60, 46, 20


def as_svg(rows: Sequence[Summary], *, title: str) -> str:
    """One panel a measure, one line a strategy, over time since the first submission."""
    drawn = [row for row in rows if row.series]
    keys = _keys(drawn, ("gpus", "cpus", "fragmentation", "waiting")) if drawn else []
    last = max((row.makespan for row in drawn), default=1.0)
    top = 34 + 20 * (1 + (len(drawn) - 1) // 4 if drawn else 0)
    height = top + len(keys) * (HEIGHT + GAP) + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}"'
        f' viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="{LEFT}" y="20" font-size="14">{escape(title)}</text>',
        *_legend(drawn),
    ]
    for at, key in enumerate(keys):
        parts += _panel(drawn, key, top + 20 + at * (HEIGHT + GAP), last)
    return "\n".join([*parts, "</svg>", ""])


def _legend(rows: Sequence[Summary]) -> list[str]:
    parts = []
    for at, row in enumerate(rows):
        x, y = LEFT + at % 4 * 195, 42 + at // 4 * 20
        colour = COLOURS[at % len(COLOURS)]
        parts.append(f'<rect x="{x}" y="{y - 9}" width="14" height="9" fill="{colour}"/>')
        parts.append(f'<text x="{x + 20}" y="{y}">{escape(row.name)}</text>')
    return parts


def _panel(rows: Sequence[Summary], key: str, y: int, last: float) -> list[str]:
    wide = WIDTH - LEFT - RIGHT
    parts_of_whole = key != "waiting"
    top = 1.0 if key in ("gpus", "cpus") else _top(rows, key)
    parts = [f'<text x="{LEFT}" y="{y - 5}">{TITLES[key]}</text>']
    for part in (0.0, 0.5, 1.0):
        line = y + HEIGHT * (1 - part)
        label = f"{top * part * 100:.3g} %" if parts_of_whole else f"{top * part:,.0f}"
        parts.append(
            f'<path d="M{LEFT} {line:.1f}h{wide}" stroke="#ddd"/>'
            f'<text x="{LEFT - 6}" y="{line + 4:.1f}" text-anchor="end">{label}</text>'
        )
    for part in (0.0, 0.25, 0.5, 0.75, 1.0):
        anchor = "start" if part == 0 else "end" if part == 1 else "middle"
        parts.append(
            f'<text x="{LEFT + wide * part:.1f}" y="{y + HEIGHT + 15}" fill="#666"'
            f' text-anchor="{anchor}">{show_duration(last * part)}</text>'
        )
    for at, row in enumerate(rows):
        points = _points(row.series[key], row.makespan / last * wide, y, top)
        colour = COLOURS[at % len(COLOURS)]
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.3"/>'
        )
    return parts


def _points(values: Sequence[float], wide: float, y: int, top: float) -> str:
    step = wide / len(values)
    return " ".join(
        f"{LEFT + (at + 0.5) * step:.1f},{y + HEIGHT * (1 - min(1.0, value / top)):.1f}"
        for at, value in enumerate(values)
    )
