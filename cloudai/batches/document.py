"""A batch file's text to plain values that know their places.

YAML, JSON, JSON lines and CSV, all to the same: dictionaries, lists, texts, numbers, and the
line and column of each. Nothing in a file is obeyed: no tag makes an object, an alias is no
more than what it stands for, and a file is no larger than what we look through.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, StringMark, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from cloudai.core.problems import FileInvalid, Place, Problems
from cloudai.core.wording import shown, visible

FORMATS = ("yaml", "json", "jsonl", "csv")
LARGEST = 64 * 1024 * 1024
"""Bytes of a file of JSON, JSON lines or CSV."""
LARGEST_YAML = 4 * 1024 * 1024
"""Bytes: its parser reads about a megabyte in five seconds; a matrix says much in few lines."""
MOST_VALUES = 2_000_000
"""Keys and values of one file of JSON."""
MOST_OF_YAML = 200_000
"""Of one of YAML, aliases counted as what they stand for."""
DEEPEST = 20

Path = tuple[str | int, ...]
"""How one gets to a value: keys and positions."""
TOP: Path = ()


@dataclass(slots=True)
class Document:
    """A whole file: its value, and where each part of it stands."""

    name: str
    data: Any
    places: dict[Path, Place] = field(default_factory=dict)
    keys: dict[Path, Place] = field(default_factory=dict)
    """Where the key of a value stands."""

    def key(self, path: Path) -> Place:
        """Where its key stands, or what it is a part of."""
        return self.keys.get(path) or self.place(path)

    def under(self, *path: str | int) -> None:
        """All of it is a part of something: its places are moved there."""
        self.places = {(*path, *old): place for old, place in self.places.items()}
        self.keys = {(*path, *old): place for old, place in self.keys.items()}

    def place(self, path: Path) -> Place:
        """Where that is, or what it is a part of."""
        while path not in self.places and path:
            path = path[:-1]
        return self.places.get(path, Place(1, 1))


def read_document(text: str, form: str, problems: Problems) -> Document:
    """The file as plain values. Raises ``FileInvalid`` where it cannot be read; what stands
    twice is added to ``problems``."""
    largest = LARGEST_YAML if form == "yaml" else LARGEST
    if len(text) > largest:
        hint = "; a matrix, JSON lines or CSV take less" if form == "yaml" else ""
        raise problems.stop(Place(1, 1), f"is larger than {largest // 1024**2} MiB{hint}")
    text = text.removeprefix("\ufeff")
    document = Document(problems.source, None)
    match form:
        case "yaml":
            _Yaml(document, problems).read(text)
        case "json":
            _Json(document, problems, text).whole()
        case "jsonl":
            _lines(document, problems, text)
        case _:
            _csv(document, problems, text)
    return document


# ------------------------------------------------------------------ YAML

_WORDS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_CORE_TAGS = {
    f"tag:yaml.org,2002:{kind}"
    for kind in ("map", "seq", "str", "int", "float", "bool", "null", "timestamp", "value")
}


@dataclass(slots=True)
class _Yaml:
    document: Document
    problems: Problems
    values: int = 0

    def read(self, text: str) -> None:
        node = self._compose(text)
        if node is not None:
            self.document.data = self._value(node, TOP, 0)

    def _compose(self, text: str) -> Node | None:
        try:
            found: Node | None = YAML(typ="safe", pure=True).compose(text)
        except MarkedYAMLError as wrong:
            mark = wrong.problem_mark or wrong.context_mark
            place = Place(mark.line + 1, mark.column + 1) if isinstance(mark, StringMark) else None
            said = visible(", ".join(part for part in (wrong.context, wrong.problem) if part))
            raise self.problems.stop(place or Place(1, 1), f"not YAML: {said[:200]}") from None
        except ReaderError as wrong:
            line = text.count("\n", 0, wrong.position) + 1
            column = wrong.position - text.rfind("\n", 0, wrong.position)
            why = "not YAML: a control character that text cannot have"
            raise self.problems.stop(Place(line, column), why) from None
        except (YAMLError, ValueError, ArithmeticError, LookupError, AttributeError) as wrong:
            # The library lets a few bare exceptions out, as for escapes beyond Unicode.
            raise self.problems.stop(Place(1, 1), f"not YAML: {shown(str(wrong))}") from None
        except RecursionError:
            why = f"nested deeper than {DEEPEST}"
            raise self.problems.stop(Place(1, 1), why) from None
        return found

    def _value(self, node: Node, path: Path, depth: int) -> Any:
        place = Place(node.start_mark.line + 1, node.start_mark.column + 1)
        self.document.places[path] = place
        self.values += 1
        if self.values > MOST_OF_YAML:
            raise self.problems.stop(place, "too many keys and values")
        if depth > DEEPEST:
            raise self.problems.stop(place, f"nested deeper than {DEEPEST}")
        tag = str(node.tag)
        if tag not in _CORE_TAGS:
            raise self.problems.stop(place, f"a tag ({shown(tag)}); a batch has none")
        match node:
            case ScalarNode():
                return self._scalar(node, place)
            case SequenceNode():
                return [
                    self._value(one, (*path, at), depth + 1) for at, one in enumerate(node.value)
                ]
            case MappingNode():
                return self._table(node, path, depth)
        raise self.problems.stop(place, "what is this?")

    def _table(self, node: MappingNode, path: Path, depth: int) -> dict[str, Any]:
        table: dict[str, Any] = {}
        for key, value in node.value:
            at = Place(key.start_mark.line + 1, key.start_mark.column + 1)
            if not isinstance(key, ScalarNode) or key.value == "<<":
                merge = isinstance(key, ScalarNode)
                why = "a merge key (<<); use defaults instead" if merge else "a key must be text"
                raise self.problems.stop(at, why)
            name = str(key.value)
            if name in table:
                self.problems.add(at, f"key {shown(name)} stands twice")
                continue
            self.document.keys[*path, name] = at
            table[name] = self._value(value, (*path, name), depth + 1)
            if isinstance(value, ScalarNode) and value.value == "":
                self.document.places[*path, name] = at
        return table

    def _scalar(self, node: ScalarNode, place: Place) -> Any:
        text = str(node.value)
        if node.style is not None:
            return text
        if text in ("", "~", "null", "Null", "NULL"):
            return None
        if text in _WORDS:
            return _WORDS[text]
        if _INT.fullmatch(text) and len(text) < 1000:
            return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
        if _FLOAT.fullmatch(text) and len(text) < 1000:
            return float(text)
        return text


# ------------------------------------------------------------------ JSON

_SPACE = re.compile(r"[ \t\n\r]*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,300})(\.[0-9]{1,300})?([eE][-+]?[0-9]{1,4})?")
_STRINGS = json.JSONDecoder()
_LITERALS = {"true": True, "false": False, "null": None}


@dataclass(slots=True)
class _Json:
    """A reader that tells where each value stands, which the standard one does not."""

    document: Document
    problems: Problems
    text: str
    line: int = 1
    counted: int = 0
    """Index up to which lines are counted."""
    values: int = 0

    def whole(self) -> None:
        at = self._space(0)
        self.document.data, at = self._value(at, TOP, 0)
        at = self._space(at)
        if at < len(self.text):
            raise self._stop(at, "something stands behind the end")

    def _space(self, at: int) -> int:
        found = _SPACE.match(self.text, at)
        return found.end() if found else at

    def _place(self, at: int) -> Place:
        # Values come in order, so each line is counted once.
        if at >= self.counted:
            self.line += self.text.count("\n", self.counted, at)
            self.counted = at
            line = self.line
        else:
            line = self.text.count("\n", 0, at) + 1
        return Place(line, at - self.text.rfind("\n", 0, at))

    def _stop(self, at: int, why: str) -> FileInvalid:
        return self.problems.stop(self._place(at), f"not JSON: {why}")

    def _value(self, at: int, path: Path, depth: int) -> tuple[Any, int]:
        place = self.document.places[path] = self._place(at)
        self.values += 1
        if self.values > MOST_VALUES:
            raise self.problems.stop(place, "too many keys and values")
        if depth > DEEPEST:
            raise self.problems.stop(place, f"nested deeper than {DEEPEST}")
        match self.text[at : at + 1]:
            case '"':
                return self._string(at)
            case "{":
                return self._table(at, path, depth)
            case "[":
                return self._list(at, path, depth)
            case _:
                return self._plain(at)

    def _plain(self, at: int) -> tuple[Any, int]:
        for word, value in _LITERALS.items():
            if self.text.startswith(word, at):
                return value, at + len(word)
        if found := _NUMBER.match(self.text, at):
            whole = found[1] is None and found[2] is None
            return (int(found[0]) if whole else float(found[0])), found.end()
        raise self._stop(at, "a value is missing here")

    def _string(self, at: int) -> tuple[str, int]:
        try:
            value, end = _STRINGS.raw_decode(self.text, at)
        except json.JSONDecodeError as wrong:
            raise self._stop(wrong.pos, wrong.msg) from None
        return str(value), end

    def _list(self, at: int, path: Path, depth: int) -> tuple[list[Any], int]:
        found: list[Any] = []
        at = self._space(at + 1)
        if self.text.startswith("]", at):
            return found, at + 1
        while True:
            value, at = self._value(at, (*path, len(found)), depth + 1)
            found.append(value)
            at, more = self._next(at, "]")
            if not more:
                return found, at

    def _table(self, at: int, path: Path, depth: int) -> tuple[dict[str, Any], int]:
        table: dict[str, Any] = {}
        at = self._space(at + 1)
        if self.text.startswith("}", at):
            return table, at + 1
        while True:
            key_at = at
            if not self.text.startswith('"', at):
                raise self._stop(at, "a key in double quotes is missing here")
            name, at = self._string(at)
            self.document.keys[*path, name] = self._place(key_at)
            at = self._space(at)
            if not self.text.startswith(":", at):
                raise self._stop(at, "a colon is missing here")
            value, at = self._value(self._space(at + 1), (*path, name), depth + 1)
            if name in table:
                self.problems.add(self._place(key_at), f"key {shown(name)} stands twice")
            else:
                table[name] = value
            at, more = self._next(at, "}")
            if not more:
                return table, at

    def _next(self, at: int, closing: str) -> tuple[int, bool]:
        at = self._space(at)
        if self.text.startswith(",", at):
            return self._space(at + 1), True
        if self.text.startswith(closing, at):
            return at + 1, False
        raise self._stop(at, f"a comma or {closing} is missing here")


def _lines(document: Document, problems: Problems, text: str) -> None:
    """JSON lines: a value a line; of each only the line is known, not the places inside."""
    found: list[Any] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line, object_pairs_hook=_once)
        except json.JSONDecodeError as wrong:
            raise problems.stop(Place(number, wrong.colno), f"not JSON: {wrong.msg}") from None
        except _Twice as twice:
            problems.add(Place(number, 1), f"key {shown(twice.args[0])} stands twice")
            continue
        except (ValueError, RecursionError):
            why = "not JSON: nested too deep, or a number too long"
            raise problems.stop(Place(number, 1), why) from None
        document.places[len(found),] = Place(number, 1)
        found.append(value)
    document.data = found


class _Twice(Exception):
    """A key that stands twice."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        names = [name for name, _ in pairs]
        raise _Twice(next(name for name in names if names.count(name) > 1))
    return table


# ------------------------------------------------------------------ CSV


def _csv(document: Document, problems: Problems, text: str) -> None:
    """A head of field names, then a task a row; an empty cell says nothing."""
    found: list[dict[str, Any]] = []
    head: list[str] = []
    for line, row in _rows(text, problems):
        if not any(cell.strip() for cell in row):
            continue
        if not head:
            head = [name.strip() for name in row]
            _check_head(head, line, problems)
            continue
        if len(row) != len(head):
            why = f"{len(row)} cells, where the head has {len(head)}"
            problems.add(Place(line, 1), why)
            continue
        document.places[len(found),] = Place(line, 1)
        found.append({name: cell for name, cell in zip(head, row, strict=True) if cell != ""})
    document.data = found


def _rows(text: str, problems: Problems) -> Iterator[tuple[int, list[str]]]:
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    begins = 1
    try:
        for row in lines:
            yield begins, row
            begins = lines.line_num + 1
    except csv.Error as wrong:
        raise problems.stop(Place(lines.line_num or 1, 1), f"not CSV: {wrong}") from None


def _check_head(head: list[str], line: int, problems: Problems) -> None:
    for at, name in enumerate(head):
        if not name:
            problems.add(Place(line, 1), f"column {at + 1} has no name")
        elif name in head[:at]:
            problems.add(Place(line, 1), f"column {shown(name)} stands twice")
    problems.settle()
