"""The graph of a batch: a node an entry of its file, an edge a need, from tasks' JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from typing import Any

Task = Mapping[str, Any]

FEW = 24
"""So many nodes are drawn one by one; of more, those that look alike are drawn as one."""
HOWS = ("ok", "failed", "any")
MET, WAITING, UNMET = "met", "waiting", "unmet"


@dataclass(frozen=True, slots=True)
class Node:
    """One entry of the file with all of its tasks, or a task or batch that is not of it."""

    key: str
    label: str
    counts: Mapping[str, int] = field(default_factory=dict)
    """Its tasks by status; those that were left out are ``skipped``."""
    outside: bool = False

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def done(self) -> int:
        return self.counts.get("completed", 0)

    @property
    def ended(self) -> bool:
        going = set(self.counts) - {"completed", "failed", "cancelled", "skipped"}
        return not any(self.counts[state] for state in going)

    @property
    def state(self) -> str:
        """The worst that can be said of it: failed, cancelled, running, waiting, skipped,
        completed; ``outside`` for what is not of the batch."""
        if self.outside:
            return "outside"
        for state in ("failed", "cancelled"):
            if self.counts.get(state):
                return state
        if any(self.counts.get(state) for state in ("starting", "running", "stopping")):
            return "running"
        if not self.ended:
            return "waiting"
        return "completed" if self.done else "skipped"

    @property
    def words(self) -> str:
        """Its figures in a few words: ``12/20, 3 failed``."""
        if self.outside:
            return "not of this batch"
        if self.total == 1:
            return "waiting" if self.state == "waiting" else self.state
        told = [f"{self.done}/{self.total}"]
        told += [f"{n} {one}" for one in ("failed", "cancelled") if (n := self.counts.get(one))]
        if left_out := self.counts.get("skipped"):
            told.append("all skipped" if left_out == self.total else f"{left_out} skipped")
        return ", ".join(told)


@dataclass(frozen=True, slots=True)
class Edge:
    """``target`` needs that ``source`` ended ``how``."""

    source: str
    target: str
    how: str = "ok"
    state: str = WAITING
    """``met``, ``waiting``, or ``unmet``: it never will be."""


@dataclass(frozen=True, slots=True)
class Graph:
    """Without cycles; nodes in the order of the batch."""

    nodes: Mapping[str, Node]
    edges: Sequence[Edge]


def graph_of(batch_id: str, tasks: Sequence[Task]) -> Graph:
    """The graph of a batch's tasks, given in the order of the batch."""
    names = _names(batch_id, tasks)
    nodes: dict[str, Node] = {}
    grouped: dict[str, list[Task]] = {}
    for task in tasks:
        grouped.setdefault(_key(task), []).append(task)
    for key, members in grouped.items():
        counts = Counter("skipped" if one.get("skipped") else one["status"] for one in members)
        nodes[key] = Node(key, _label(members), counts)
    edges: dict[tuple[str, str, str], set[str]] = {}
    for task in tasks:
        for need in task.get("after") or ():
            ref, how = _need(need)
            members = names.get(ref, [])
            if not members:
                nodes.setdefault(ref, Node(ref, ref, outside=True))
            state = _state(members, how)
            for source in {_key(one) for one in members} or {ref}:
                if source != _key(task):
                    edges.setdefault((source, _key(task), how), set()).add(state)
    listed = [Edge(*ends, _worst(states)) for ends, states in edges.items()]
    return _alike_together(_without_cycles(Graph(nodes, listed)))


def _key(task: Task) -> str:
    return str(task.get("entry") or task["task_id"])


def _label(members: Sequence[Task]) -> str:
    first = members[0]
    return str(first.get("entry") or first.get("name") or first["task_id"])


def _need(text: str) -> tuple[str, str]:
    ref, colon, how = text.rpartition(":")
    return (ref, how) if colon and how in HOWS else (text, "ok")


def _names(batch_id: str, tasks: Sequence[Task]) -> dict[str, list[Task]]:
    """Every reference that a need may use for tasks of the batch."""
    found: dict[str, list[Task]] = {}
    for task in tasks:
        names = {task["task_id"], task.get("array")}
        if task.get("entry"):
            names.add(f"{batch_id}/{task['entry']}")
        for name in names - {None}:
            found.setdefault(name, []).append(task)
    return found


def _state(members: Sequence[Task], how: str) -> str:
    """How a need stands of these tasks; ``waiting`` for those of which nothing is known."""
    if not members:
        return WAITING
    node = Node(
        "", "", Counter("skipped" if one.get("skipped") else one["status"] for one in members)
    )
    bad = node.counts.get("failed", 0) + node.counts.get("cancelled", 0)
    match how:
        case "ok" if bad or node.counts.get("skipped"):
            return UNMET
        case "failed" if node.ended:
            return MET if bad else UNMET
        case _:
            return MET if node.ended else WAITING


def _worst(states: Iterable[str]) -> str:
    found = set(states)
    return next(state for state in (UNMET, WAITING, MET) if state in found)


def _without_cycles(graph: Graph) -> Graph:
    """Entries whose tasks need each other crosswise are one node: no task needs itself, so
    only their being drawn together made a cycle."""
    while True:
        before: dict[str, set[str]] = {key: set() for key in graph.nodes}
        for edge in graph.edges:
            before[edge.target].add(edge.source)
        try:
            TopologicalSorter(before).prepare()
            return graph
        except CycleError as error:
            graph = _merged(graph, [list(dict.fromkeys(error.args[1]))], between=" + ")


def _alike_together(graph: Graph) -> Graph:
    """Of many nodes those that come after the same and before the same are one."""
    if len(graph.nodes) <= FEW:
        return graph
    around: dict[str, list[tuple[str, ...]]] = {key: [] for key in graph.nodes}
    for edge in graph.edges:
        around[edge.target].append(("after", edge.source, edge.how))
        around[edge.source].append(("before", edge.target, edge.how))
    alike: dict[tuple[tuple[str, ...], ...], list[str]] = {}
    for key, ends in around.items():
        if not graph.nodes[key].outside:
            alike.setdefault(tuple(sorted(ends)), []).append(key)
    return _merged(graph, [keys for keys in alike.values() if len(keys) > 1], between=" … ")


def _merged(graph: Graph, sets: Sequence[Sequence[str]], *, between: str) -> Graph:
    into = {key: keys[0] for keys in sets for key in keys}
    nodes = {key: node for key, node in graph.nodes.items() if into.get(key, key) == key}
    for keys in sets:
        members = [graph.nodes[key] for key in keys]
        counts: Counter[str] = Counter()
        for one in members:
            counts.update(one.counts)
        ends = (members[0], members[-1]) if between == " … " else members
        label = between.join(one.label for one in ends)
        nodes[keys[0]] = replace(members[0], label=label, counts=counts)
    edges: dict[tuple[str, str, str], set[str]] = {}
    for edge in graph.edges:
        source, target = into.get(edge.source, edge.source), into.get(edge.target, edge.target)
        if source != target:
            edges.setdefault((source, target, edge.how), set()).add(edge.state)
    return Graph(nodes, [Edge(*ends, _worst(states)) for ends, states in edges.items()])
