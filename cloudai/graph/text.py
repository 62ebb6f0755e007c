"""A graph drawn in characters: boxes in layers, lines between them, each piece with a style."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from unicodedata import east_asian_width

from .layers import Layout, Slot, layered
from .model import HOWS, MET, UNMET, WAITING, Edge, Graph, Node

GAP = 2
LONGEST_LABEL = 30
MOST_LAYERS = 100
UP, DOWN, LEFT, RIGHT = 1, 2, 4, 8

Piece = tuple[str, str]
"""Text and its style: a node's state, ``met``, ``waiting``, ``unmet``, or nothing."""
Line = list[Piece]

_GLYPHS = " ╵╷│╴┘┐┤╶└┌├─┴┬┼"
_ASCII = " |||-+++-+++-+++"
_HEADS = {"ok": "▼", "failed": "✗", "any": "◆"}
_ASCII_HEADS = {"ok": "v", "failed": "x", "any": "*"}
_LEGEND = {"ok": "after it completed", "failed": "after a failure", "any": "however it ended"}
_MARKS = {
    "completed": "✓",
    "failed": "✗",
    "cancelled": "✗",
    "running": "●",
    "waiting": "○",
    "skipped": "–",
    "outside": "↗",
}
_ASCII_MARKS = {
    "completed": "+",
    "failed": "x",
    "cancelled": "x",
    "running": "*",
    "waiting": "o",
    "skipped": "-",
    "outside": "^",
}


class _Hand:
    """What to draw with."""

    def __init__(self, *, ascii_only: bool) -> None:
        self.ascii_only = ascii_only
        self.glyphs = _ASCII if ascii_only else _GLYPHS
        self.heads = _ASCII_HEADS if ascii_only else _HEADS
        self.marks = _ASCII_MARKS if ascii_only else _MARKS
        self.dashes = {
            UP | DOWN: ":" if ascii_only else "╎",
            LEFT | RIGHT: "." if ascii_only else "╌",
        }
        self.cut = "~" if ascii_only else "…"

    def joined(self, sides: int) -> str:
        """The character that leads to these sides."""
        return self.glyphs[sides]


def as_lines(graph: Graph, *, width: int = 80, ascii_only: bool = False) -> list[Line]:
    """The graph as lines of at most ``width`` columns; where it is too wide or too tangled to
    be drawn so, as a list, a line a node. Labels must be clean text of one line."""
    hand = _Hand(ascii_only=ascii_only)
    drawn = _drawing(graph, width, hand) if graph.edges else None
    lines = _listing(graph, width, hand) if drawn is None else drawn
    return [*lines, *_legend(graph, hand, drawn=drawn is not None)]


def plain_text(lines: Sequence[Line]) -> str:
    """The lines without their styles."""
    return "".join("".join(text for text, _ in line).rstrip() + "\n" for line in lines)


# ---------------------------------------------------------------- boxes


def _drawing(graph: Graph, width: int, hand: _Hand) -> list[Line] | None:
    labels = {key: _inside(node, hand) for key, node in graph.nodes.items()}
    coming = Counter(edge.target for edge in graph.edges)
    widths = {
        key: _odd(max(6, *map(wide, inside), 2 * coming[key] - 1) + 4)
        for key, inside in labels.items()
    }
    ends = [(edge.source, edge.target) for edge in graph.edges]
    # The ways of long edges take room, too: then fewer boxes lie side by side.
    tried = (layered(widths, ends, gap=GAP, room=width - less) for less in range(0, width, 12))
    layout = next((one for one in tried if one.width <= width), None)
    if layout is None or len(layout.layers) > MOST_LAYERS:
        return None
    canvas = _Canvas(hand)
    row = 0
    for at, slots in enumerate(layout.layers):
        below = layout.layers[at + 1] if at + 1 < len(layout.layers) else []
        for slot in slots:
            if slot.key is not None:
                canvas.box(row, slot, labels[slot.key], graph.nodes[slot.key].state)
        for state, slot in _passing(graph, layout, slots):
            for line in range(row, row + 4):
                canvas.wire(line, int(slot.x), UP | DOWN, id(slot), state)
        row += 4
        if below:
            wires = _wires(graph, layout, at)
            tracks = _tracks(wires)
            if tracks is None:
                return None
            row = canvas.channel(row, wires, tracks)
    return canvas.lines()


def _inside(node: Node, hand: _Hand) -> tuple[str, str]:
    words = node.words
    return _fitted(f"{hand.marks[node.state]} {node.label}", LONGEST_LABEL, hand), words


def _passing(graph: Graph, layout: Layout, slots: Sequence[Slot]) -> Iterator[tuple[str, Slot]]:
    for edge in graph.edges:
        for slot in layout.ways[edge.source, edge.target][1:-1]:
            if slot in slots:
                yield edge.state, slot


class _Wire:
    """What leads from one slot of a layer to one of the next."""

    def __init__(self, source: Slot, target: Slot, column: int, edge: Edge) -> None:
        self.source, self.target, self.edge = source, target, edge
        self.begin, self.end = int(source.x), column
        self.last = target.key is not None


def _wires(graph: Graph, layout: Layout, layer: int) -> list[_Wire]:
    """What leads from this layer to the next. No two slots' wires arrive in one column, so that
    nobody who follows one comes upon another."""
    coming: dict[int, list[tuple[Slot, Slot, Edge]]] = {}
    for edge in graph.edges:
        way = layout.ways[edge.source, edge.target]
        at = layer - way[0].layer
        if 0 <= at < len(way) - 1:
            coming.setdefault(id(way[at + 1]), []).append((way[at], way[at + 1], edge))
    taken = {int(source.x) for arriving in coming.values() for source, _, _ in arriving}
    found = []
    for arriving in coming.values():
        target = arriving[0][1]
        if target.key is None:
            found += [_Wire(source, target, int(target.x), edge) for source, _, edge in arriving]
            continue
        arriving.sort(key=lambda one: (one[0].x, HOWS.index(one[2].how)))
        columns = _ports(target, [int(source.x) for source, _, _ in arriving], taken)
        found += [
            _Wire(source, target, column, edge)
            for (source, _, edge), column in zip(arriving, columns, strict=True)
        ]
    return found


def _ports(target: Slot, sources: Sequence[int], taken: Collection[int]) -> list[int]:
    """Columns of a box's top, at least two apart, near those from where the wires come.
    ``taken``: columns in which wires begin; each is left to what begins there."""
    half = target.width // 2
    first, last = int(target.x) - half + 1, int(target.x) + half - 1
    found: list[int] = []
    for at, source in enumerate(sources):
        least = found[-1] + 2 if found else first
        most = last - 2 * (len(sources) - 1 - at)
        outside = len(sources) == 1 and not first <= source <= last
        want = int(target.x) if outside else source
        free = [one for one in range(least, most + 1) if one == source or one not in taken]
        found.append(min(free or [least], key=lambda one: abs(one - want)))
    return found


def _tracks(wires: Sequence[_Wire]) -> dict[int, int] | None:
    """For each slot that wires leave sideways the row of the channel in which they do.

    Where one slot's wires go down in the column in which another's begin, the other's must
    have turned off before. ``None``: that cannot be.
    """
    nets: dict[int, list[_Wire]] = {}
    for wire in wires:
        nets.setdefault(id(wire.source), []).append(wire)
    sideways = {key: net for key, net in nets.items() if any(w.begin != w.end for w in net)}
    before: dict[int, set[int]] = {key: set() for key in sideways}
    for key, net in sideways.items():
        for other, theirs in nets.items():
            if other == key or all(wire.end != theirs[0].begin for wire in net):
                continue
            if other not in sideways:
                return None
            before[key].add(other)
    spans = {
        key: (
            min(w.begin if w.begin < w.end else w.end for w in net),
            max(max(w.begin, w.end) for w in net),
        )
        for key, net in sideways.items()
    }
    rows: list[list[int]] = []
    found: dict[int, int] = {}
    try:
        order = list(TopologicalSorter(before).static_order())
    except CycleError:
        return None
    for key in order:
        row = max((found[other] + 1 for other in before[key]), default=0)
        while row < len(rows) and any(_overlap(spans[key], spans[other]) for other in rows[row]):
            row += 1
        while row >= len(rows):
            rows.append([])
        rows[row].append(key)
        found[key] = row
    return found


def _overlap(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return one[0] <= other[1] + 1 and other[0] <= one[1] + 1


class _Canvas:
    """Cells by row and column: characters, or pieces of wires that are joined when they are
    printed."""

    def __init__(self, hand: _Hand) -> None:
        self._hand = hand
        self._text: dict[tuple[int, int], Piece] = {}
        self._wires: dict[tuple[int, int], dict[int, int]] = {}
        self._states: dict[tuple[int, int], set[str]] = {}

    def box(self, row: int, slot: Slot, inside: tuple[str, str], state: str) -> None:
        hand, half = self._hand, slot.width // 2
        left, inner = int(slot.x) - half, slot.width - 2
        flat, upright = hand.joined(LEFT | RIGHT), hand.joined(UP | DOWN)
        top = hand.joined(DOWN | RIGHT) + flat * inner + hand.joined(DOWN | LEFT)
        bottom = hand.joined(UP | RIGHT) + flat * inner + hand.joined(UP | LEFT)
        if slot.below:
            bottom = bottom[:half] + hand.joined(DOWN | LEFT | RIGHT) + bottom[half + 1 :]
        self._write(row, left, top, state)
        for at, text in enumerate(inside, 1):
            padded = f" {text}{' ' * (inner - 1 - wide(text))}"
            self._write(row + at, left, upright, state)
            self._write(row + at, left + 1, padded, state)
            self._write(row + at, left + slot.width - 1, upright, state)
        self._write(row + 3, left, bottom, state)

    def _write(self, row: int, column: int, text: str, style: str) -> None:
        for one in text:
            self._text[row, column] = (one, style)
            column += wide(one)

    def wire(self, row: int, column: int, sides: int, net: int, state: str) -> None:
        cell = self._wires.setdefault((row, column), {})
        cell[net] = cell.get(net, 0) | sides
        self._states.setdefault((row, column), set()).add(state)

    def channel(self, row: int, wires: Sequence[_Wire], tracks: Mapping[int, int]) -> int:
        """Draws the wires from the row on; answers the first row after them."""
        dashed = any(wire.edge.state == UNMET for wire in wires)
        # Of a short straight line only its head would be seen, and not that it is dashed.
        height = max([1 if dashed else 0, *(at + 1 for at in tracks.values())]) + 1
        for wire in wires:
            net, state = id(wire.source), wire.edge.state
            turn = row + tracks[net] if net in tracks else None
            for line in range(row, row + height):
                if turn is None or line < turn:
                    self.wire(line, wire.begin, UP | DOWN, net, state)
                elif line > turn:
                    self.wire(line, wire.end, UP | DOWN, net, state)
            if turn is not None:
                self._turn(turn, wire, net)
            if wire.last:
                head = self._hand.heads[wire.edge.how]
                cell = row + height - 1, wire.end
                states = self._states[cell]
                self._text[cell] = (head, _strongest(states))
        return row + height

    def _turn(self, row: int, wire: _Wire, net: int) -> None:
        state = wire.edge.state
        if wire.begin == wire.end:
            self.wire(row, wire.begin, UP | DOWN, net, state)
            return
        low, high = sorted((wire.begin, wire.end))
        for column in range(low, high + 1):
            sides = (LEFT if column > low else 0) | (RIGHT if column < high else 0)
            sides |= UP if column == wire.begin else 0
            sides |= DOWN if column == wire.end else 0
            self.wire(row, column, sides, net, state)

    def lines(self) -> list[Line]:
        cells = {at: self._joined(at) for at in self._wires}
        cells |= self._text
        rows: dict[int, dict[int, Piece]] = {}
        for (row, column), piece in cells.items():
            rows.setdefault(row, {})[column] = piece
        return [_line(rows.get(row, {})) for row in range(max(rows, default=-1) + 1)]

    def _joined(self, at: tuple[int, int]) -> Piece:
        nets, states = self._wires[at], self._states[at]
        flat = [sides for sides in nets.values() if sides == LEFT | RIGHT]
        upright = [sides for sides in nets.values() if sides == UP | DOWN]
        sides = 0
        if len(flat) + len(upright) == len(nets) and upright:
            sides = UP | DOWN  # they cross, and do not meet: the upright one goes over
        else:
            for one in nets.values():
                sides |= one
        style = _strongest(states)
        if states == {UNMET} and sides in self._hand.dashes:
            return self._hand.dashes[sides], style
        return self._hand.joined(sides), style


def _line(cells: Mapping[int, Piece]) -> Line:
    """Neighbours of one style are one piece."""
    line: Line = []
    at = 0
    for column in sorted(cells):
        text, style = cells[column]
        if column > at:
            line.append((" " * (column - at), ""))
        if line and line[-1][1] == style and column == at:
            line[-1] = (line[-1][0] + text, style)
        else:
            line.append((text, style))
        at = column + wide(text)
    return line


def _strongest(states: set[str]) -> str:
    return next(state for state in (UNMET, WAITING, MET) if state in states)


# ---------------------------------------------------------------- a list


def _listing(graph: Graph, width: int, hand: _Hand) -> list[Line]:
    """A line a node, in the order in which they can start, with what it comes after."""
    needs: dict[str, list[Edge]] = {key: [] for key in graph.nodes}
    for edge in graph.edges:
        needs[edge.target].append(edge)
    before = {key: [edge.source for edge in edges] for key, edges in needs.items()}
    depth: dict[str, int] = {}
    for key in TopologicalSorter(before).static_order():
        depth[key] = max((depth[one] + 1 for one in before[key]), default=0)
    place = {key: at for at, key in enumerate(graph.nodes)}
    lines: list[Line] = []
    for key in sorted(graph.nodes, key=lambda key: (depth[key], place[key])):
        node = graph.nodes[key]
        head = f"{hand.marks[node.state]} {_fitted(node.label, LONGEST_LABEL, hand)}"
        lines.append([(head, node.state), (f"  {node.words}", "")])
        for edge in needs[key]:
            source = _fitted(graph.nodes[edge.source].label, max(12, width - 22), hand)
            told = {MET: "", WAITING: "", UNMET: ": will not be"}[edge.state]
            text = f"    {hand.heads[edge.how]} {source}{told}"
            lines.append([(text, edge.state)])
    return lines


def _legend(graph: Graph, hand: _Hand, *, drawn: bool) -> list[Line]:
    """What the signs mean that are not plain: only those that are there."""
    hows = {edge.how for edge in graph.edges}
    told = [f"{hand.heads[how]} {_LEGEND[how]}" for how in HOWS if how in hows]
    if drawn and any(edge.state == UNMET for edge in graph.edges):
        told.append(f"{hand.dashes[UP | DOWN]} will not be")
    plain = hows <= {"ok"} and len(told) < 2
    return [] if plain else [[], [("   ".join(told), "legend")]]


# ---------------------------------------------------------------- widths of text


def wide(text: str) -> int:
    """How many columns of a terminal it takes."""
    return sum(2 if east_asian_width(one) in "WF" else 1 for one in text)


def _fitted(text: str, room: int, hand: _Hand) -> str:
    text = text.encode("ascii", "replace").decode() if hand.ascii_only else text
    if wide(text) <= room:
        return text
    while text and wide(text) > room - 1:
        text = text[:-1]
    return text + hand.cut


def _odd(width: int) -> int:
    return width | 1
