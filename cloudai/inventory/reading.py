"""Inventory text to workers: defaults, groups and the workers' own keys, the nearest wins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cloudai.core.errors import InvalidInput
from cloudai.core.model import WorkerSpec
from cloudai.core.names import check_worker_id
from cloudai.core.policy import Policy
from cloudai.core.problems import Place, Problems
from cloudai.core.wording import did_you_mean, shown

from .ranges import Range, fill, has_placeholder, read_range
from .scheduling import PolicyReader, as_table
from .schema import (
    LABELS,
    OF_SSH,
    TABLES,
    TOP_KEYS,
    WORKER_KEYS,
    Path,
    Value,
    check_label_key,
    keys_of,
    read_value,
    table_of,
)
from .specs import build_spec
from .tree import Entry, Node, Table, Text, read_tree

MOST_WORKERS = 50_000


@dataclass(frozen=True, slots=True)
class Given:
    """One value as written: what it means, or its text where that depends on the worker."""

    text: str
    place: Place
    value: Value | None


Body = Mapping[Path, Given]
"""The values of defaults, of a group or of a worker, their tables flattened."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a worker's id is written."""

    place: Place
    key: str
    range: Range | None
    number: int | None


@dataclass(slots=True)
class Fleet:
    """What an inventory says: its workers, where each is written, and how tasks are ordered."""

    source: str
    workers: dict[str, WorkerSpec] = field(default_factory=dict)
    origins: dict[str, Origin] = field(default_factory=dict)
    policy: Policy = field(default_factory=Policy)
    """What its ``scheduling`` says."""


def parse(text: str, *, source: str) -> dict[str, WorkerSpec]:
    """Workers by id, in the order written. ``source`` names the text in messages.

    Raises ``FileInvalid`` with all that is wrong, a line each.
    """
    return read_fleet(text, source=source).workers


def read_fleet(text: str, *, source: str) -> Fleet:
    """As ``parse``, with the origin of each worker, and the policy."""
    problems = Problems(source)
    root = read_tree(text, problems)
    reader = _Reader(problems, Fleet(source))
    if root is not None:
        reader.read(root)
    problems.settle()
    return reader.fleet


@dataclass(slots=True)
class _Reader:
    problems: Problems
    fleet: Fleet
    defaults: Body = field(default_factory=dict)
    clashes: set[tuple[Place, Place]] = field(default_factory=set)

    def read(self, root: Table) -> None:
        for entry in root.entries.values():
            if entry.key.text not in TOP_KEYS:
                self._unknown(entry, TOP_KEYS, "workers stand under `workers:`")
        self.defaults = self._body(self._table(root, "defaults"), ())
        self._check_local(self.defaults, self.defaults)
        groups = self._table(root, "groups")
        for entry in groups.entries.values() if groups else ():
            self._group(entry)
        self._workers(self._table(root, "workers"), self.defaults, ())
        reader = PolicyReader(self.problems, tuple(groups.entries) if groups else ())
        self.fleet.policy = reader.read(self._table(root, "scheduling"))

    def _table(self, holder: Table, key: str) -> Table | None:
        entry = holder.entries.get(key)
        return self._as_table(entry.value, key) if entry else None

    def _as_table(self, node: Node, what: str) -> Table | None:
        return as_table(self.problems, node, what)

    def _unknown(self, entry: Entry, known: tuple[str, ...], advice: str = "") -> None:
        key = entry.key.text or ""
        meant = did_you_mean(key, known)
        if advice and not meant.startswith("did"):
            meant = f"{advice} {meant}"
        self.problems.add(entry.key.place, f"unknown key {shown(key)}; {meant}")

    def _group(self, entry: Entry) -> None:
        name = entry.key.text or ""
        try:
            check_worker_id(name, what="group")
        except InvalidInput as wrong:
            self.problems.add(entry.key.place, wrong.message)
        table = self._as_table(entry.value, name)
        if table is not None:
            own = self._body(table, ("workers",))
            self._check_local(own, own)
            self._workers(self._table(table, "workers"), {**self.defaults, **own}, (name,))

    def _body(self, table: Table | None, beside: tuple[str, ...]) -> dict[Path, Given]:
        """The worker's keys that stand in a table; ``beside`` names keys that are not such."""
        body: dict[Path, Given] = {}
        for entry in table.entries.values() if table else ():
            key = entry.key.text or ""
            if key in TABLES:
                self._inner(key, self._as_table(entry.value, key), body)
            elif key in WORKER_KEYS:
                self._value((key,), entry, body)
            elif key not in beside:
                inside = table_of(key)
                advice = f"write {inside}: {{{key}: …}}" if inside else ""
                self._unknown(entry, WORKER_KEYS + beside, advice)
        return body

    def _inner(self, name: str, table: Table | None, body: dict[Path, Given]) -> None:
        for entry in table.entries.values() if table else ():
            key = entry.key.text or ""
            if name == LABELS:
                try:
                    check_label_key(key)
                except InvalidInput as wrong:
                    self.problems.add(entry.key.place, wrong.message)
            elif key not in keys_of(name):
                self._unknown(entry, keys_of(name))
                continue
            self._value((name, key), entry, body)

    def _value(self, path: Path, entry: Entry, body: dict[Path, Given]) -> None:
        node = entry.value
        what = ".".join(path)
        if not isinstance(node, Text):
            found = "keys and values" if isinstance(node, Table) else "a list"
            self.problems.add(node.place, f"{what}: {found} where one value belongs")
        elif node.text is None:
            self.problems.add(node.place, f"{what}: has no value; give one or leave the key out")
        elif has_placeholder(node.text):
            body[path] = Given(node.text, node.place, None)
        else:
            value = self._meaning(path, node.text, node.place)
            if value is not None:
                body[path] = Given(node.text, node.place, value)

    def _meaning(self, path: Path, text: str, place: Place) -> Value | None:
        try:
            return read_value(path, text)
        except InvalidInput as wrong:
            self.problems.add(place, wrong.message)
            return None

    def _workers(self, table: Table | None, inherited: Body, groups: tuple[str, ...]) -> None:
        for entry in table.entries.values() if table else ():
            own = self._body(self._as_table(entry.value, entry.key.text or ""), ())
            body = self._of_alias({**inherited, **own})
            self._check_local(body, own)
            for origin, worker_id in self._ids(entry):
                if self._claim(worker_id, origin):
                    spec = self._spec(worker_id, origin, body, groups)
                    self.fleet.workers[worker_id] = spec

    def _of_alias(self, body: Body) -> Body:
        """A worker without a host is an alias of ~/.ssh/config: what our defaults say of the way
        there gives way to what stands there."""
        if ("host",) in body:
            return body
        return {
            path: given
            for path, given in body.items()
            if path[0] not in OF_SSH or given is not self.defaults.get(path)
        }

    def _check_local(self, body: Body, own: Body) -> None:
        connection = body.get(("connection",))
        if connection is None or connection.value != "local":
            return
        for key in OF_SSH:
            if given := own.get((key,)):
                self.problems.add(given.place, f"{key}: is of no use with connection: local")

    def _ids(self, entry: Entry) -> list[tuple[Origin, str]]:
        key, place = entry.key.text or "", entry.key.place
        try:
            many = read_range(key)
            if many is None:
                return [(Origin(place, key, None, None), check_worker_id(key))]
            check_worker_id(many.id(many.last))
        except InvalidInput as wrong:
            self.problems.add(place, wrong.message)
            return []
        if len(self.fleet.workers) + many.last - many.first >= MOST_WORKERS:
            raise self.problems.stop(place, f"more than {MOST_WORKERS} workers")
        return [(Origin(place, key, many, number), id_) for number, id_ in many.ids()]

    def _claim(self, worker_id: str, origin: Origin) -> bool:
        """Whether the id is free; two ranges that overlap are told once."""
        first = self.fleet.origins.setdefault(worker_id, origin)
        if first is origin:
            return True
        if (first.place, origin.place) not in self.clashes:
            self.clashes.add((first.place, origin.place))
            self.problems.add(
                origin.place,
                f"worker {worker_id} stands twice: here as {origin.key}, and as {first.key}"
                f" at {self.fleet.source}:{first.place.line}",
            )
        return False

    def _spec(
        self, worker_id: str, origin: Origin, body: Body, groups: tuple[str, ...]
    ) -> WorkerSpec:
        values = {
            path: value
            for path, given in body.items()
            if (value := self._of_worker(path, given, worker_id, origin)) is not None
        }
        return build_spec(
            worker_id, values, groups=groups, place=f"{self.fleet.source}:{origin.place.line}"
        )

    def _of_worker(self, path: Path, given: Given, worker_id: str, origin: Origin) -> Value | None:
        if given.value is not None:
            return given.value
        try:
            text = fill(given.text, worker_id=worker_id, number=origin.number)
        except InvalidInput as wrong:
            self.problems.add(given.place, f"{'.'.join(path)}: {wrong.message}")
            return None
        return self._meaning(path, text, given.place)
