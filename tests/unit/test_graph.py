"""What comes after what: laid out so that it can be read, whatever the graph."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudai.graph import Graph, as_lines, as_svg, graph_of
from cloudai.graph.layers import layered
from cloudai.graph.text import plain_text, wide

BATCH = "batch-1-a"
numbers = iter(range(10**9))


def task(entry: str | None, status: str = "queued", *after: str, **changes: Any) -> dict[str, Any]:
    return {
        "task_id": f"task-1-{next(numbers)}",
        "entry": entry,
        "name": None,
        "array": None,
        "status": "cancelled" if status == "skipped" else status,
        "skipped": status == "skipped",
        "after": [one if one.startswith("task-") else f"{BATCH}/{one}" for one in after],
        **changes,
    }


def drawn(graph: Graph, **how: Any) -> str:
    return plain_text(as_lines(graph, **how))


NIGHTLY = [
    task("prepare", "completed"),
    *(task("train", status, "prepare:ok") for status in ("completed", "failed", "running")),
    task("evaluate", "skipped", "train:ok"),
    task("alarm", "queued", "train:failed"),
    task("tidy", "queued", "evaluate:any", "alarm:any"),
]


NIGHTLY_DRAWN = """\
         ┌───────────┐
         │ ✓ prepare │
         │ completed │
         └─────┬─────┘
               ▼
       ┌───────────────┐
       │ ✗ train       │
       │ 1/3, 1 failed │
       └───────┬───────┘
       ┌╌╌╌╌╌╌╌┴──────┐
       ▼              ✗
┌─────────────┐  ┌─────────┐
│ – evaluate  │  │ ○ alarm │
│ skipped     │  │ waiting │
└──────┬──────┘  └────┬────┘
       └───┐       ┌──┘
           ◆       ◆
          ┌─────────┐
          │ ○ tidy  │
          │ waiting │
          └─────────┘

▼ after it completed   ✗ after a failure   ◆ however it ended   ╎ will not be
"""


def test_a_batch_is_drawn_as_it_stands() -> None:
    assert drawn(graph_of(BATCH, NIGHTLY)) == NIGHTLY_DRAWN
    assert follow_lines(NIGHTLY_DRAWN)


def test_ascii_is_ascii() -> None:
    graph = graph_of(BATCH, [*NIGHTLY, task("größe", "queued", "tidy:ok")])
    assert drawn(graph, ascii_only=True).isascii()


@pytest.mark.parametrize(
    ("after", "statuses", "state"),
    [
        ("ok", ["completed", "completed"], "met"),
        ("ok", ["completed", "running"], "waiting"),
        ("ok", ["failed", "running"], "unmet"),
        ("ok", ["skipped"], "unmet"),
        ("failed", ["failed", "running"], "waiting"),
        ("failed", ["failed", "completed"], "met"),
        ("failed", ["completed"], "unmet"),
        ("any", ["failed", "skipped"], "met"),
        ("any", ["queued", "skipped"], "waiting"),
    ],
)
def test_whether_a_need_is_met(after: str, statuses: list[str], state: str) -> None:
    tasks = [*(task("a", status) for status in statuses), task("b", "queued", f"a:{after}")]
    (edge,) = graph_of(BATCH, tasks).edges
    assert (edge.how, edge.state) == (after, state)


def test_elements_that_need_each_others_elements_are_one_line_between_their_entries() -> None:
    arrays = {name: f"task-9-{name}" for name in "ab"}
    tasks = [
        task("a", "completed", task_id=f"task-9-a_{n}", array=arrays["a"]) for n in range(3)
    ] + [
        task("b", "queued", f"task-9-a_{n}:ok", task_id=f"task-9-b_{n}", array=arrays["b"])
        for n in range(3)
    ]
    graph = graph_of(BATCH, tasks)
    assert [(one.source, one.target, one.state) for one in graph.edges] == [("a", "b", "met")]
    crossed = [*tasks, task("a", "queued", "task-9-b_0:ok")]
    assert [node.label for node in graph_of(BATCH, crossed).nodes.values()] in (
        ["a + b"],
        ["b + a"],
    )


def test_what_is_not_of_the_batch_is_shown_and_said() -> None:
    graph = graph_of(BATCH, [task("a", "queued", "task-7-other:ok")])
    assert graph.nodes["task-7-other"].outside
    assert "not of this batch" in drawn(graph)


def test_a_thousand_tasks_that_look_alike_are_one_box() -> None:
    tasks = [task(None, "completed", task_id=f"task-5-{n}") for n in range(1000)]
    tasks.append(task("sum", "queued", *(f"task-5-{n}:ok" for n in range(1000))))
    graph = graph_of(BATCH, tasks)
    assert len(graph.nodes) == 2
    assert "1000/1000" in drawn(graph)


# ------------------------------------------------------------------ any graph


@st.composite
def dags(draw: st.DrawFn) -> tuple[dict[str, int], list[tuple[str, str]]]:
    size = draw(st.integers(1, 14))
    nodes = {f"n{at}": draw(st.integers(6, 30)) | 1 for at in range(size)}
    pairs = [(f"n{a}", f"n{b}") for b in range(size) for a in range(b)]
    edges = draw(st.lists(st.sampled_from(pairs), max_size=24, unique=True)) if pairs else []
    order = draw(st.permutations(list(nodes)))
    return {key: nodes[key] for key in order}, edges


@settings(max_examples=80)
@given(dags(), st.sampled_from([None, 40, 80]))
def test_every_node_lies_once_every_edge_goes_down_and_nothing_overlaps(
    dag: tuple[dict[str, int], list[tuple[str, str]]], room: int | None
) -> None:
    widths, edges = dag
    layout = layered(widths, edges, gap=2, room=room)
    keys = Counter(slot.key for row in layout.layers for slot in row if slot.key)
    assert keys == Counter(widths.keys())
    assert set(layout.ways) == set(edges)
    for (source, target), way in layout.ways.items():
        assert (way[0].key, way[-1].key) == (source, target)
        for upper, lower in pairwise(way):
            assert lower.layer == upper.layer + 1
    for at, row in enumerate(layout.layers):
        assert {slot.layer for slot in row} == {at}
        assert any(slot.key for slot in row)
        for left, right in pairwise(row):
            assert right.x - left.x >= (left.width + right.width) / 2 + 2 - 1e-6
        if room is not None:
            nodes = [slot for slot in row if slot.key]
            assert len(nodes) == 1 or sum(s.width for s in nodes) + 2 * len(nodes) - 2 <= room
    assert min(s.x - s.width / 2 for row in layout.layers for s in row) >= -1e-6


@settings(max_examples=60)
@given(dags(), st.sampled_from(["ok", "failed", "any"]), st.booleans(), st.integers(0, 99))
def test_every_label_is_drawn_once_within_the_width(
    dag: tuple[dict[str, int], list[tuple[str, str]]], how: str, plain: bool, seed: int
) -> None:
    widths, edges = dag
    statuses = ("completed", "failed", "queued", "skipped", "running")
    tasks = [
        task(
            f"{key}-x",
            statuses[(at + seed) % 5],
            *(f"{a}-x:{how if at % 2 else 'ok'}" for a, b in edges if b == key),
        )
        for at, key in enumerate(widths)
    ]
    graph = graph_of(BATCH, tasks)
    text = drawn(graph, width=80, ascii_only=plain)
    assert all(wide(line) <= 80 for line in text.split("\n"))
    for key in widths:
        boxes = [line for line in text.split("\n") if f" {key}-x " in f"{line} "]
        assert boxes, key
    if plain:
        assert text.isascii()
    root = ElementTree.fromstring(as_svg(graph, title="t"))
    labels = [one.text for one in root.iter() if one.attrib.get("class") == "label"]
    assert sorted(str(label) for label in labels) == sorted(f"{key}-x" for key in widths)


def follow_lines(text: str) -> set[tuple[str, str]]:
    """Which boxes a reader sees joined: from each box's port down along the lines to heads."""
    rows = text.split("\n")
    sides = dict(zip(" ╵╷│╴┘┐┤╶└┌├─┴┬┼╎╌", [*range(16), 3, 12], strict=True))
    at = {(r, c): one for r, line in enumerate(rows) for c, one in enumerate(line)}
    inside: dict[tuple[int, int], str] = {}
    for r, line in enumerate(rows):
        for c, one in enumerate(line):
            if one == "┌" and (end := line.find("┐", c)) > 0 and at.get((r + 1, c)) == "│":
                label = rows[r + 1][c + 1 : end].strip()
                if len(label.split()) == 2 and rows[r + 3][c : c + 1] == "└":
                    inside |= {
                        (r + y, x): label.split()[1] for y in range(4) for x in range(c, end + 1)
                    }
    found = set()
    for (r, c), label in inside.items():
        if at[r, c] != "┬":
            continue
        seen, todo = set(), [(r + 1, c, 1)]
        while todo:
            y, x, come = todo.pop()
            if (y, x, come) in seen:
                continue
            seen.add((y, x, come))
            one = at.get((y, x), " ")
            if one in "▼✗◆":
                found.add((label, inside[y + 1, x]))
                continue
            lead = sides.get(one, 0)
            assert lead & come or (come in (4, 8) and lead == 3), f"a line ends at {y},{x}\n{text}"
            if not lead & come:  # it passes under an upright one
                lead = 12
            elif come == 2:
                continue
            for side, dy, dx, back in ((2, 1, 0, 1), (4, 0, -1, 8), (8, 0, 1, 4)):
                if lead & side and side != come:
                    todo.append((y + dy, x + dx, back))
    return found


@settings(max_examples=80)
@given(dags())
def test_whoever_follows_the_lines_comes_to_what_needs_it(
    dag: tuple[dict[str, int], list[tuple[str, str]]],
) -> None:
    widths, edges = dag
    tasks = [task(key, "queued", *(f"{a}:ok" for a, b in edges if b == key)) for key in widths]
    text = drawn(graph_of(BATCH, tasks), width=80)
    if "┌" in text:
        assert follow_lines(text) == set(edges)


@pytest.mark.parametrize("seed", [11, 48, 141, 156, 171, 173, 219, 251, 271, 307])
def test_lines_that_begin_where_others_end_are_not_taken_for_each_other(seed: int) -> None:
    chance = random.Random(seed)
    size, dense = chance.randint(4, 14), chance.choice([1, 1.5, 2, 3])
    edges = {
        (f"n{a}", f"n{b}") for b in range(size) for a in range(b) if chance.random() < dense / size
    }
    keys = [f"n{at}" for at in range(size)]
    chance.shuffle(keys)
    tasks = [task(key, "queued", *(f"{a}:ok" for a, b in edges if b == key)) for key in keys]
    text = drawn(graph_of(BATCH, tasks))
    assert "┌" in text
    assert follow_lines(text) == edges
