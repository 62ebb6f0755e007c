"""A fleet to replay on: from YAML, from the workers that are there, from a trace's header.

::

    gpu-[4]:                     # gpu-1 to gpu-4; gpu-[5:8] counts on
      cpus: 64
      memory: 512                # GiB, or with a unit
      storage: 2000              # not said: it is not counted
      gpus: {A100: 8}
      gpu_memory: 80
      labels: {zone: lab}
      pools: lab                 # one, or several with commas
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cloudai.core.errors import InvalidInput
from cloudai.core.model import GIB, Resources
from cloudai.core.names import check_worker_id
from cloudai.core.problems import NOWHERE, Problems
from cloudai.core.problems import Place as At
from cloudai.core.schedule import Place, empty_place
from cloudai.core.units import PIB, parse_amount, parse_cpus
from cloudai.core.wishes import check_gpu_model
from cloudai.core.wording import did_you_mean, shown
from cloudai.inventory.ranges import read_range
from cloudai.inventory.schema import check_label_key
from cloudai.inventory.tree import Node, Table, Text, read_tree

AMPLE = PIB
"""Bytes of what a fleet does not say: it is not counted."""
MOST_WORKERS = 50_000
MOST_GPUS = 64
"""Of one worker."""
KEYS = ("cpus", "memory", "storage", "gpus", "gpu_memory", "labels", "pools")
_COUNT = re.compile(r"(.*)\[([0-9]{1,5})\](.*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Workers with nothing on them."""

    source: str
    places: tuple[Place, ...]
    notes: tuple[str, ...] = ()

    @property
    def total(self) -> Resources:
        """Of all workers together."""
        return sum((one.free.total for one in self.places if one.free), Resources())

    def widest(self) -> Resources:
        """The most that any one worker has of each."""
        totals = [one.free.total for one in self.places if one.free]
        return Resources(
            cpu_milli=max((one.cpu_milli for one in totals), default=0),
            memory=max((one.memory for one in totals), default=0),
            storage=max((one.storage for one in totals), default=0),
            gpu_milli=max((one.gpu_milli for one in totals), default=0),
        )


# ---------------------------------------------------------------- YAML


def read_fleet(text: str, *, source: str) -> Fleet:
    """The fleet that a YAML file describes. Raises ``InvalidInput`` with file, line and column
    of all that is wrong."""
    problems = Problems(source)
    root = read_tree(text, problems, what="a fleet is workers, each with cpus and memory")
    places: dict[str, Place] = {}
    for entry in root.entries.values() if root else ():
        place = entry.key.place
        for worker_id, made in _workers(entry.key.text or "", entry.value, problems, place):
            if worker_id in places:
                problems.add(place, f"worker {shown(worker_id)} stands twice")
            places[worker_id] = made
        if len(places) > MOST_WORKERS:
            raise problems.stop(place, f"more than {MOST_WORKERS} workers")
    if not places and not problems.found:
        raise problems.stop(root.place if root else NOWHERE, "no workers in it")
    problems.settle()
    return Fleet(source=source, places=tuple(places.values()))


def _workers(key: str, node: Node, problems: Problems, at: At) -> list[tuple[str, Place]]:
    try:
        ids = _ids(key)
    except InvalidInput as wrong:
        problems.add(at, wrong.message)
        return []
    if not isinstance(node, Table):
        problems.add(at, f"{shown(key)}: give its cpus and memory")
        return []
    reader = _Reader(node, problems)
    for entry in node.entries.values():
        if entry.key.text not in KEYS:
            meant = did_you_mean(entry.key.text or "", KEYS)
            problems.add(entry.key.place, f"unknown key {shown(entry.key.text)}; {meant}")
    total = Resources(
        cpu_milli=reader.amount("cpus", parse_cpus),
        memory=reader.amount("memory", parse_amount),
        storage=reader.amount("storage", parse_amount, otherwise=AMPLE),
    )
    devices, labels, pools = reader.devices(), reader.labels(), reader.pools()
    return [
        (one, empty_place(one, total=total, devices=devices, labels=labels, pools=pools))
        for one in ids
    ]


def _ids(key: str) -> list[str]:
    """``gpu-[4]``: gpu-1 to gpu-4; ``gpu-[3:8]``: as in an inventory. Raises ``InvalidInput``."""
    if counted := _COUNT.fullmatch(key):
        head, count, tail = counted.groups()
        if not 1 <= int(count) <= MOST_WORKERS:
            raise InvalidInput(f"{shown(key)}: give 1 to {MOST_WORKERS} workers")
        return [check_worker_id(f"{head}{n}{tail}") for n in range(1, int(count) + 1)]
    many = read_range(key)
    if many is None:
        return [check_worker_id(key)]
    return [check_worker_id(id_) for _, id_ in many.ids()]


class _Reader:
    """One worker's values; what cannot be meant is noted at its place."""

    def __init__(self, table: Table, problems: Problems) -> None:
        self.table = table
        self.problems = problems

    def amount(self, key: str, parse: Any, *, otherwise: int | None = None) -> int:
        entry = self.table.entries.get(key)
        if entry is None:
            if otherwise is None:
                self.problems.add(self.table.place, f"{key}: missing")
            return otherwise or 0
        return self._read(entry.value, key, parse) or 0

    def _read(self, node: Node, key: str, parse: Any) -> int | None:
        if not isinstance(node, Text) or node.text is None:
            self.problems.add(node.place, f"{key}: give one value")
            return None
        try:
            value: int = parse(node.text, what=key)
        except InvalidInput as wrong:
            self.problems.add(node.place, wrong.message)
            return None
        return value

    def devices(self) -> list[tuple[str, int | None]]:
        """(model, bytes of memory) of each GPU."""
        memory = self.amount("gpu_memory", parse_amount, otherwise=0) or None
        found: list[tuple[str, int | None]] = []
        for model, node in self._table("gpus").items():
            count = self._read(node, f"gpus.{model}", _count)
            try:
                check_gpu_model(model, what="gpus")
            except InvalidInput as wrong:
                self.problems.add(node.place, wrong.message)
            found += [(model, memory)] * (count or 0)
        if len(found) > MOST_GPUS:
            self.problems.add(self.table.place, f"gpus: more than {MOST_GPUS} in one worker")
        return found[:MOST_GPUS]

    def labels(self) -> dict[str, str]:
        found = {}
        for key, node in self._table("labels").items():
            try:
                check_label_key(key)
            except InvalidInput as wrong:
                self.problems.add(node.place, wrong.message)
            if isinstance(node, Text) and node.text is not None:
                found[key] = node.text
            else:
                self.problems.add(node.place, f"labels.{key}: give one value")
        return found

    def pools(self) -> tuple[str, ...]:
        entry = self.table.entries.get("pools")
        if entry is None:
            return ()
        if not isinstance(entry.value, Text):
            self.problems.add(entry.key.place, "pools: give names with commas")
            return ()
        return tuple(one.strip() for one in (entry.value.text or "").split(",") if one.strip())

    def _table(self, key: str) -> dict[str, Node]:
        entry = self.table.entries.get(key)
        if entry is None:
            return {}
        if not isinstance(entry.value, Table):
            self.problems.add(entry.key.place, f"{key}: keys and values belong here")
            return {}
        return {one.key.text or "": one.value for one in entry.value.entries.values()}


def _count(text: str, *, what: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 4 and int(text) <= MOST_GPUS):
        raise InvalidInput(f"{what}: {shown(text)}; give a whole number up to {MOST_GPUS}")
    return int(text)


# ---------------------------------------------------------------- what is there


def fleet_of_workers(workers: Iterable[Mapping[str, Any]]) -> Fleet:
    """The present workers, as ``GET /workers/`` answers, each as if nothing were on it."""
    places, unseen = [], list[str]()
    for worker in workers:
        if not worker["cpus"] or worker["cpus"]["total"] is None:
            unseen.append(worker["worker_id"])
        else:
            places.append(_present(worker))
    notes = [f"{len(unseen)} workers were never seen and are left out: {', '.join(unseen[:5])}"]
    return Fleet(
        source="the workers that are there",
        places=tuple(places),
        notes=tuple(notes if unseen else ()),
    )


def _present(worker: Mapping[str, Any]) -> Place:
    return empty_place(
        worker["worker_id"],
        total=Resources.of(
            cpus=worker["cpus"]["total"],
            memory=worker["memory"]["total"],
            storage=worker["storage"]["total"],
        ),
        devices=[
            (gpu["model"], None if gpu["memory"] is None else round(gpu["memory"] * GIB))
            for gpu in worker["gpus"] or ()
            if not gpu.get("error")
        ],
        labels=worker["labels"],
        pools=tuple(worker.get("groups") or worker.get("pools") or ()),
    )


# ---------------------------------------------------------------- a trace's header


def fleet_of_header(header: Mapping[str, str], *, source: str, gpus: bool = False) -> Fleet:
    """The machine that an SWF file says it is of: ``MaxNodes`` workers with ``MaxProcs``
    processors in all. Raises ``InvalidInput`` where it does not say."""
    processors, nodes = _number(header, "MaxProcs"), _number(header, "MaxNodes")
    if processors is None and nodes is None:
        raise InvalidInput(
            f"{source}: its header has neither MaxProcs nor MaxNodes",
            hint="describe the fleet in a file: --fleet FILE",
        )
    processors = processors or nodes or 1
    nodes = min(nodes or 1, processors)
    if nodes > MOST_WORKERS:
        raise InvalidInput(f"{source}: MaxNodes: {nodes}; at most {MOST_WORKERS} are replayed")
    each, more = divmod(processors, nodes)
    sizes = [each + 1] * more + [each] * (nodes - more)
    places = tuple(_of_processors(n, size, gpus=gpus) for n, size in enumerate(sizes, start=1))
    text = f"{nodes} workers of {sizes[-1]}" + (f" or {sizes[0]}" if more else "")
    return Fleet(
        source=f"the header of {source}",
        places=places,
        notes=(f"{text} {'GPUs' if gpus else 'cores'}, as the header says",),
    )


def _of_processors(n: int, size: int, *, gpus: bool) -> Place:
    # A worker without any core would not be one to the scheduler.
    total = Resources.of(cpus=1 if gpus else size, memory=1)
    devices = [("GPU", None)] * size if gpus else []
    return empty_place(f"node-{n}", total=total, devices=devices)


def _number(header: Mapping[str, str], key: str) -> int | None:
    found = re.match(r"[0-9]{1,9}", header.get(key, "").replace(",", ""))
    return int(found[0]) if found and int(found[0]) > 0 else None
