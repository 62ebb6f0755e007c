"""Where the nodes of a graph without cycles lie: in layers, each edge from an upper one to a
lower one, with few crossings and short ways.

Long edges pass the layers between through slots of their own. Units are the caller's:
characters, or pixels.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from itertools import pairwise

SWEEPS = 8
MOST_SWEPT = 2_000
"""Slots up to which crossings are reduced at all."""


@dataclass(slots=True, eq=False)
class Slot:
    """A place in a layer: a node's, or one through which a long edge passes."""

    layer: int
    width: int
    key: str | None = None
    x: float = 0.0
    """Its centre."""
    above: list[Slot] = field(default_factory=list)
    below: list[Slot] = field(default_factory=list)


@dataclass(slots=True)
class Layout:
    """``layers``: slots from left to right. ``ways``: for each edge the slots that it passes,
    both ends included."""

    layers: list[list[Slot]]
    ways: dict[tuple[str, str], list[Slot]]
    width: int


def layered(
    widths: Mapping[str, int],
    edges: Iterable[tuple[str, str]],
    *,
    gap: int,
    room: int | None = None,
    lane: int = 1,
) -> Layout:
    """Lays nodes of these widths out. ``gap``: the least between two neighbours. ``room``: no
    layer of nodes is wider, where a single node is not; the ways that pass it may make it so
    (``width``). ``lane``: how wide such a way is."""
    listed = list(dict.fromkeys(edges))
    layers = _layers(widths, listed, gap=gap, room=room)
    slots = {key: Slot(layer, widths[key], key) for key, layer in layers.items()}
    rows: list[list[Slot]] = [[] for _ in range(max(layers.values(), default=-1) + 1)]
    for key in widths:
        rows[layers[key]].append(slots[key])
    ways = {}
    for source, target in listed:
        between = range(layers[source] + 1, layers[target])
        passed = [Slot(layer, lane) for layer in between]
        for slot in passed:
            rows[slot.layer].append(slot)
        ways[source, target] = way = [slots[source], *passed, slots[target]]
        for upper, lower in pairwise(way):
            upper.below.append(lower)
            lower.above.append(upper)
    _order(rows)
    width = _place(rows, gap=gap)
    return Layout(rows, ways, width)


def _layers(
    widths: Mapping[str, int], edges: Sequence[tuple[str, str]], *, gap: int, room: int | None
) -> dict[str, int]:
    """For each node its layer: one below the lowest that it needs, or where there is room."""
    before: dict[str, list[str]] = {key: [] for key in widths}
    for source, target in edges:
        before[target].append(source)
    sorter = TopologicalSorter(before)
    sorter.prepare()
    found: dict[str, int] = {}
    taken: list[int] = []
    place = {key: at for at, key in enumerate(widths)}
    while sorter.is_active():
        for key in sorted(sorter.get_ready(), key=place.__getitem__):
            layer = max((found[one] + 1 for one in before[key]), default=0)
            while room is not None and layer < len(taken) and taken[layer]:
                if taken[layer] + gap + widths[key] <= room:
                    break
                layer += 1
            taken += [0] * (layer + 1 - len(taken))
            taken[layer] += widths[key] + (gap if taken[layer] else 0)
            found[key] = layer
            sorter.done(key)
    # A layer that was only passed over on the way down holds nothing.
    used = {layer: at for at, layer in enumerate(sorted(set(found.values())))}
    return {key: used[layer] for key, layer in found.items()}


def _order(rows: list[list[Slot]]) -> None:
    """Turns each layer so that few edges cross: by the mean place of what each is tied to."""
    if sum(map(len, rows)) > MOST_SWEPT:
        return
    best, least = [list(row) for row in rows], _crossings(rows)
    for sweep in range(SWEEPS):
        if not least:
            break
        down = sweep % 2 == 0
        for at in range(1, len(rows)) if down else range(len(rows) - 2, -1, -1):
            fixed = {id(slot): place for place, slot in enumerate(rows[at - 1 if down else at + 1])}
            row = rows[at]
            own = {id(slot): place for place, slot in enumerate(row)}

            def mean(slot: Slot, fixed: dict[int, int] = fixed, own: dict[int, int] = own) -> float:
                tied = [fixed[id(one)] for one in (slot.above if down else slot.below)]  # noqa: B023
                return sum(tied) / len(tied) if tied else own[id(slot)]

            row.sort(key=mean)
        if (now := _crossings(rows)) < least:
            best, least = [list(row) for row in rows], now
    rows[:] = best


def _crossings(rows: Sequence[Sequence[Slot]]) -> int:
    found = 0
    for upper, lower in pairwise(rows):
        place = {id(slot): at for at, slot in enumerate(lower)}
        seen: list[int] = []
        for slot in upper:
            for end in sorted(place[id(one)] for one in slot.below):
                found += len(seen) - bisect_right(seen, end)
                insort(seen, end)
    return found


def _place(rows: Sequence[Sequence[Slot]], *, gap: int) -> int:
    """Gives every slot its ``x``: near what it is tied to, in order, none over another. Answers
    the width of it all."""
    for row in rows:
        _spread(row, [0.0] * len(row), gap=gap)
    for sweep in range(2 * SWEEPS):
        down = sweep % 2 == 0
        for row in rows if down else list(reversed(rows)):
            wanted = []
            for slot in row:
                tied = (slot.above if down else slot.below) or slot.above or slot.below
                wanted.append(sum(one.x for one in tied) / len(tied) if tied else slot.x)
            _spread(row, wanted, gap=gap)
    left = min((slot.x - slot.width / 2 for row in rows for slot in row), default=0.0)
    for row in rows:
        for slot in row:
            slot.x -= left
    return round(max((slot.x + slot.width / 2 for row in rows for slot in row), default=0.0))


def _spread(row: Sequence[Slot], wanted: Sequence[float], *, gap: int) -> None:
    """Centres as near to the wanted ones as the order and the widths let them be (least
    squares: neighbours that want to overlap share their mean)."""
    offsets, at = [], 0.0
    for before, slot in zip([None, *row], row, strict=False):
        at += 0.0 if before is None else (before.width + slot.width) / 2 + gap
        offsets.append(at)
    blocks: list[tuple[float, int]] = []
    for want, offset in zip(wanted, offsets, strict=True):
        mean, many = want - offset, 1
        while blocks and blocks[-1][0] > mean:
            other, size = blocks.pop()
            mean, many = (other * size + mean * many) / (size + many), size + many
        blocks.append((mean, many))
    means = [mean for mean, many in blocks for _ in range(many)]
    for slot, mean, offset in zip(row, means, offsets, strict=True):
        slot.x = mean + offset
