"""A graph as one SVG file that needs nothing else, light and dark."""

from __future__ import annotations

from collections.abc import Sequence

from cloudai.markup import Markup, element

from .layers import Slot, layered
from .model import HOWS, Edge, Graph, Node

HEIGHT, BETWEEN, MARGIN, GAP = 46, 54, 16, 26
ROOM = 1500
"""Pixels that a layer of nodes may take."""
CHARACTER = 7.4
"""Pixels, at the most, of a character of a label, in the mean."""
LONGEST_LABEL = 40

STYLE = """
.graph { --ink: #1d2125; --soft: #667079; --card: #fff; --ground: #fff;
  --completed: #2f9e58; --failed: #d3382f;
  --cancelled: #c9820a; --skipped: #8a94a0; --running: #2f7dc9; --waiting: #98a2ac;
  --outside: #98a2ac; }
@media (prefers-color-scheme: dark) { .graph { --ink: #e6e9ec; --soft: #98a2ac; --card: #262b31;
  --ground: #1c2024;
  --completed: #4cc27a; --failed: #ff6b61; --cancelled: #eba937; --skipped: #7d8792;
  --running: #5aa9f0; --waiting: #7d8792; --outside: #7d8792; } }
.graph { background: var(--ground); }
.graph text { font: 13px system-ui, "Segoe UI", Roboto, sans-serif; fill: var(--ink); }
.graph text.label { font-weight: 600; }
.graph text.words, .graph text.how { font-size: 11px; fill: var(--soft); }
.graph rect { fill: var(--card); stroke-width: 1.5; }
.graph .share { stroke: none; opacity: .85; }
.graph .edge { fill: none; stroke-width: 1.4; stroke: var(--waiting); }
.graph .edge.met { stroke: var(--completed); }
.graph .edge.unmet { stroke: var(--failed); stroke-dasharray: 5 4; }
.graph .head { fill: var(--waiting); } .graph .head.met { fill: var(--completed); }
.graph .head.unmet { fill: var(--failed); }
"""
_COLOURED = ("completed", "failed", "cancelled", "skipped", "running", "waiting", "outside")
_RULES = "".join(
    f".graph .{state} > .frame {{ stroke: var(--{state}); }} "
    f".graph .share.{state} {{ fill: var(--{state}); }}\n"
    for state in _COLOURED
)
_HOWS = {"failed": "if it failed", "any": "however it ended"}


def as_svg(graph: Graph, *, title: str) -> str:
    """The whole file's text."""
    labels = {key: _short(node.label) for key, node in graph.nodes.items()}
    widths = {
        key: max(96, round(CHARACTER * max(len(labels[key]), 0.85 * len(node.words))) + 28)
        for key, node in graph.nodes.items()
    }
    ends = [(edge.source, edge.target) for edge in graph.edges]
    layout = layered(widths, ends, gap=GAP, room=ROOM, lane=8)
    wide = layout.width + 2 * MARGIN
    high = 2 * MARGIN + max(0, len(layout.layers) * (HEIGHT + BETWEEN) - BETWEEN)
    hows: dict[str, list[str]] = {}
    for how in HOWS:
        for edge in graph.edges:
            if edge.how == how and how not in hows.setdefault(edge.target, []):
                hows[edge.target].append(how)
    parts = [
        _edge(edge, layout.ways[edge.source, edge.target], _port(edge.how, hows[edge.target]))
        for edge in graph.edges
    ]
    told = {(edge.target, edge.how): layout.ways[edge.source, edge.target] for edge in graph.edges}
    parts += [
        _how(how, way[-1], _port(how, hows[target]))
        for (target, how), way in told.items()
        if how in _HOWS
    ]
    parts += [
        _node(graph.nodes[slot.key], slot, labels[slot.key])
        for slots in layout.layers
        for slot in slots
        if slot.key is not None
    ]
    return element(
        "svg",
        element("title", title),
        element("style", Markup(STYLE + _RULES)),
        *parts,
        xmlns="http://www.w3.org/2000/svg",
        class_="graph",
        viewBox=f"0 0 {wide} {high}",
        width=wide,
        height=high,
        role="img",
    )


def _top(slot: Slot) -> int:
    return MARGIN + slot.layer * (HEIGHT + BETWEEN)


def _node(node: Node, slot: Slot, label: str) -> Markup:
    left, top = MARGIN + slot.x - slot.width / 2, _top(slot)
    centre = round(MARGIN + slot.x, 1)
    bars, at = [], left + 8
    room = slot.width - 16
    for state in _COLOURED:
        # Whatever holds a place counts as running here.
        count = node.counts.get(state, 0)
        if state == "running":
            count += node.counts.get("starting", 0) + node.counts.get("stopping", 0)
        if count and node.total > 1:
            part = room * count / node.total
            bars.append(
                element(
                    "rect",
                    class_=f"share {state}",
                    x=round(at, 1),
                    y=top + HEIGHT - 7,
                    width=round(part, 1),
                    height=3,
                )
            )
            at += part
    return element(
        "g",
        element("title", f"{node.label}: {node.words}"),
        element(
            "rect",
            class_="frame",
            x=round(left, 1),
            y=top,
            width=slot.width,
            height=HEIGHT,
            rx=7,
        ),
        element("text", label, class_="label", x=centre, y=top + 19, text_anchor="middle"),
        element("text", node.words, class_="words", x=centre, y=top + 34, text_anchor="middle"),
        *bars,
        class_=node.state,
    )


def _port(how: str, among: Sequence[str]) -> float:
    """Where an edge arrives, from the middle: those that want different ends arrive apart."""
    return 22.0 * (among.index(how) - (len(among) - 1) / 2)


def _edge(edge: Edge, way: Sequence[Slot], port: float) -> Markup:
    xs = [MARGIN + slot.x for slot in way]
    xs[-1] += port
    x, y = xs[0], float(_top(way[0]) + HEIGHT)
    path = f"M{x:.1f} {y:.0f}"
    for to, slot in zip(xs[1:], way[1:], strict=True):
        top = _top(slot)
        end = top - (6 if slot.key is not None else 0)
        bend = BETWEEN / 2
        path += f"C{x:.1f} {y + bend:.0f} {to:.1f} {end - bend:.0f} {to:.1f} {end}"
        x, y = to, float(end)
        if slot.key is None:
            y = top + HEIGHT
            path += f"V{y:.0f}"
    head = f"M{x - 4:.1f} {y - 1:.0f}h8l-4 7z"
    return element(
        "g",
        element("path", class_=f"edge {edge.state}", d=path),
        element("path", class_=f"head {edge.state}", d=head),
    )


def _how(how: str, slot: Slot, port: float) -> Markup:
    x, y = MARGIN + slot.x + port, _top(slot) - 8
    return element("text", _HOWS[how], class_="how", x=round(x + 8, 1), y=y)


def _short(label: str) -> str:
    return label if len(label) <= LONGEST_LABEL else f"{label[: LONGEST_LABEL - 1]}…"
