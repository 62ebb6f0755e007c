"""YAML text to a small tree that knows its places. Reads events, never objects: no tag is
obeyed, no alias expanded, and nothing is deeper than we look (facts, 31).

Values stay text; the reader knows what each should be, so ``host: no`` is the host "no".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, StringMark, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    Event,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
)
from ruamel.yaml.reader import ReaderError

from cloudai.core.problems import FileInvalid, Place, Problems
from cloudai.core.wording import shown, visible

LARGEST = 1024 * 1024
"""Bytes of a file; thousands of workers fit by ranges into a few hundred."""
LONGEST_LINE = 10_000
"""Characters: the scanner's cost grows with the square of a line's length."""
MOST_VALUES = 150_000
"""Keys and values; ten thousand workers with a line each have fewer, and take seconds."""
DEEPEST = 10
"""The schema needs six."""


@dataclass(frozen=True, slots=True)
class Text:
    """A value as written, or nothing (``null``)."""

    text: str | None
    place: Place
    start: int
    """Index of its first character in the whole text."""
    end: int
    """Index behind its last."""


@dataclass(slots=True)
class Listing:
    """A list: no key of an inventory takes one."""

    place: Place
    end: int


@dataclass(slots=True)
class Table:
    """Keys and what they hold, in order."""

    place: Place
    flow: bool
    """Written in braces."""
    start: int
    end: int
    entries: dict[str, Entry] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Entry:
    """A key with its value."""

    key: Text
    value: Node


Node = Text | Listing | Table


INVENTORY = "an inventory is keys and values: defaults, groups, workers"


def read_tree(text: str, problems: Problems, *, what: str = INVENTORY) -> Table | None:
    """The tree of a whole inventory, ``None`` where nothing is written. ``what``: what to say
    where the text is no keys and values at all.

    What is wrong is added to ``problems``; raises ``FileInvalid`` where reading cannot go on:
    not YAML, too large, too deep, or with more than one reading.
    """
    _check_text(text, problems)
    root = _Builder(text, problems).build(_events(text, problems))
    if root is None or (isinstance(root, Text) and root.text is None):
        return None
    if not isinstance(root, Table):
        raise problems.stop(root.place, what)
    return root


def _check_text(text: str, problems: Problems) -> None:
    if len(text) > LARGEST or len(text.encode("utf-8", "replace")) > LARGEST:
        raise problems.stop(Place(1, 1), "is larger than 1 MiB; write ranges such as gpu[1:500]")
    for number, line in enumerate(text.split("\n"), start=1):
        if len(line) > LONGEST_LINE:
            raise problems.stop(Place(number, 1), f"a line of more than {LONGEST_LINE} characters")
        if re.match(r" *\t\s*\S", line):
            problems.add(Place(number, line.index("\t") + 1), "a tab; YAML indents with spaces")
    problems.settle()


def _events(text: str, problems: Problems) -> Iterator[Event]:
    try:
        yield from YAML(typ="safe", pure=True).parse(text)
    except MarkedYAMLError as wrong:
        mark = wrong.problem_mark or wrong.context_mark
        place = _place(mark) if isinstance(mark, StringMark) else Place(1, 1)
        said = visible(", ".join(part for part in (wrong.context, wrong.problem) if part))[:200]
        if "got '['" in said:
            said += '; in braces a range needs quotes, such as "gpu[2:8]"'
        raise problems.stop(place, f"not YAML: {said or 'it cannot be read'}") from None
    except ReaderError as wrong:
        line = text.count("\n", 0, wrong.position) + 1
        column = wrong.position - text.rfind("\n", 0, wrong.position)
        raise problems.stop(
            Place(line, column), "not YAML: a control character that text cannot have"
        ) from None
    except (YAMLError, ValueError, ArithmeticError, LookupError, AttributeError) as wrong:
        # The library lets a few bare exceptions out, as for escapes beyond Unicode.
        raise problems.stop(Place(1, 1), f"not YAML: {shown(str(wrong))}") from None


def _place(mark: Any) -> Place:
    return Place(mark.line + 1, mark.column + 1)


@dataclass(slots=True)
class _Open:
    """A collection that is being read; ``key`` waits for its value."""

    node: Table | Listing
    key: Text | None = None


@dataclass(slots=True)
class _Builder:
    """Events to tree, without recursion."""

    text: str
    problems: Problems
    root: Node | None = None
    open: list[_Open] = field(default_factory=list)

    def build(self, events: Iterator[Event]) -> Node | None:
        documents = 0
        for count, event in enumerate(events):
            if count > MOST_VALUES:
                raise self._stop(event, "too many keys and values; write ranges, gpu[1:500]")
            if isinstance(event, DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise self._stop(event, "a second document (---); an inventory is one")
                if event.tags or event.version not in (None, (1, 2)):
                    raise self._stop(event, "a %-directive; an inventory needs none")
            elif isinstance(event, NodeEvent):
                self._node(event)
            elif isinstance(event, CollectionEndEvent):
                self._close(event)
        return self.root

    def _stop(self, event: Event, text: str) -> FileInvalid:
        return self.problems.stop(_place(event.start_mark), text)

    def _node(self, event: NodeEvent) -> None:
        if isinstance(event, AliasEvent):
            raise self._stop(
                event, f"an alias ({shown(str(event.anchor))}); use defaults and groups instead"
            )
        if event.anchor is not None:
            raise self._stop(
                event, f"an anchor ({shown(str(event.anchor))}); use defaults and groups instead"
            )
        if (tag := getattr(event, "tag", None)) is not None:
            raise self._stop(event, f"a tag ({shown(str(tag))}); an inventory has none")
        place, start, end = _place(event.start_mark), event.start_mark.index, event.end_mark.index
        if isinstance(event, ScalarEvent):
            self._add(self._scalar(event, place, start, end))
        elif isinstance(event, CollectionStartEvent):
            if len(self.open) >= DEEPEST:
                raise self._stop(event, f"nested deeper than {DEEPEST}")
            table = isinstance(event, MappingStartEvent)
            flow = bool(event.flow_style)
            node = Table(place, flow, start, end) if table else Listing(place, end)
            self.open.append(_Open(node))

    def _scalar(self, event: ScalarEvent, place: Place, start: int, end: int) -> Text:
        if event.style is None and event.value in ("", "~", "null", "Null", "NULL"):
            return Text(None, place, start, end)
        return Text(str(event.value), place, start, end)

    def _close(self, event: CollectionEndEvent) -> None:
        node = self.open.pop().node
        if isinstance(node, Table) and not node.flow:
            # A block ends with its last value; the event is only behind comments that follow.
            node.end = max((entry.value.end for entry in node.entries.values()), default=node.end)
        else:
            node.end = event.end_mark.index
        self._add(node)

    def _add(self, node: Node) -> None:
        if not self.open:
            self.root = node
            return
        holder = self.open[-1]
        if isinstance(holder.node, Listing):
            holder.node.end = max(holder.node.end, node.end)
        elif holder.key is None:
            holder.key = self._key(node)
        else:
            self._entry(holder.node, holder.key, node)
            holder.key = None

    def _key(self, node: Node) -> Text:
        """The key, or one without text where it cannot be one."""
        if isinstance(node, Text) and node.text not in (None, "<<"):
            return node
        merge = isinstance(node, Text) and node.text == "<<"
        why = "a merge key (<<); use defaults and groups instead"
        self.problems.add(node.place, why if merge else "a key must be plain text")
        return Text(None, node.place, node.end, node.end)

    def _entry(self, table: Table, key: Text, value: Node) -> None:
        if key.text is None:
            return
        if isinstance(value, Text) and value.start == value.end:
            # Nothing written: its place is the key's, its end behind the colon.
            colon = re.compile(r"[ \t]*:").match(self.text, key.end)
            end = colon.end() if colon else key.end
            value = Text(value.text, key.place, end, end)
        if key.text in table.entries:
            first = table.entries[key.text].key.place
            self.problems.add(
                key.place, f"key {shown(key.text)} stands twice; first in line {first.line}"
            )
            return
        table.entries[key.text] = Entry(key, value)
