"""The ``scheduling`` part of an inventory: how waiting tasks are ordered, and who may have how
much. Its keys, and how it is read into a ``Policy``."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, TypeVar

from cloudai.core.errors import InvalidInput
from cloudai.core.model import Strategy
from cloudai.core.names import check_user
from cloudai.core.policy import EVERYONE, Policy, Quota
from cloudai.core.problems import Place, Problems
from cloudai.core.units import parse_cpus, parse_duration
from cloudai.core.wishes import check_strategy
from cloudai.core.wording import did_you_mean, shown

from .tree import Entry, Node, Table, Text

T = TypeVar("T")

MOST = 1_000_000
_NUMBER = re.compile(r"(?:[0-9]{1,9}\.?[0-9]{0,9}|\.[0-9]{1,9})")


def _number(text: str, *, what: str) -> float:
    if not _NUMBER.fullmatch(text) or float(text) > MOST:
        raise InvalidInput(f"{what}: {shown(text)} is not a number; give 0 to {MOST}")
    return float(text)


def _weight(text: str, *, what: str) -> float:
    weight = _number(text, what=what)
    if weight < 0.001:
        raise InvalidInput(f"{what}: {shown(text)} is nothing; give a share such as 2 or 0.5")
    return weight


def _count(text: str, *, what: str) -> int:
    if not re.fullmatch(r"[0-9]{1,6}", text):
        raise InvalidInput(f"{what}: {shown(text)} is not a whole number; give 0 or more")
    return int(text)


def _period(text: str, *, what: str) -> float:
    seconds = parse_duration(text, what=what)
    if seconds < 1:
        raise InvalidInput(f"{what}: {shown(text)} is too short; give a duration such as 6h or 7d")
    return seconds


def _strategy(text: str, *, what: str) -> Strategy:
    strategy = check_strategy(text, what=what)
    if strategy is Strategy.NODE_SPECIFIC:
        raise InvalidInput(f"{what}: {text} needs nodes, which each task names for itself")
    return strategy


def _cpus(text: str, *, what: str) -> int:
    return parse_cpus(text, what=what, zero=True)


def _gpus(text: str, *, what: str) -> int:
    return round(_number(text, what=what) * 1000)


VALUES: dict[str, Callable[..., Any]] = {
    "strategy": _strategy,
    "half_life": _period,
    "ageing": _period,
    "heads": _count,
}
QUOTA: dict[str, tuple[str, Callable[..., Any]]] = {
    "tasks": ("tasks", _count),
    "cpus": ("cpu_milli", _cpus),
    "gpus": ("gpu_milli", _gpus),
    "gpu_hours": ("gpu_hours", _number),
}
"""Key -> the field of ``Quota``, and how its text is read."""
KEYS = (*VALUES, "weights", "quotas", "pools")


@dataclass(frozen=True, slots=True)
class PolicyReader:
    """Reads the table; what is wrong is added to ``problems``."""

    problems: Problems
    pools: Collection[str]
    """The names of the inventory's groups."""

    def read(self, table: Table | None) -> Policy:
        """The policy; what is not said has its default."""
        found: dict[str, Any] = {}
        for key, entry in self._entries(table, KEYS):
            where = f"scheduling.{key}"
            if key in VALUES:
                value = self._value(entry.value, VALUES[key], where)
                if value is not None:
                    found[key] = value
            elif key == "weights":
                found["weights"] = self._weights(entry.value, where)
            elif key == "quotas":
                found["quotas"] = self._quotas(entry.value, where)
            else:
                found["pool_quotas"] = self._pools(entry.value, where)
        return Policy(**found)

    def _weights(self, node: Node, where: str) -> dict[str, float]:
        found: dict[str, float] = {}
        for user, entry in self._users(node, where):
            weight = self._value(entry.value, _weight, f"{where}.{user}")
            if weight is not None:
                found[user] = weight
        return found

    def _quotas(self, node: Node, where: str) -> dict[str, Quota]:
        found: dict[str, Quota] = {}
        for user, entry in self._users(node, where):
            table = as_table(self.problems, entry.value, f"{where}.{user}")
            amounts: dict[str, Any] = {}
            for key, one in self._entries(table, tuple(QUOTA)):
                field, read = QUOTA[key]
                amounts[field] = self._value(one.value, read, f"{where}.{user}.{key}")
            found[user] = Quota(**amounts)
        return found

    def _pools(self, node: Node, where: str) -> dict[str, dict[str, Quota]]:
        found: dict[str, dict[str, Quota]] = {}
        table = as_table(self.problems, node, where)
        for pool, entry in table.entries.items() if table else ():
            if pool not in self.pools:
                known = did_you_mean(pool, self.pools) if self.pools else "there are no groups"
                text = f"{where}: no group {shown(pool)}; {known}"
                self.problems.add(entry.key.place, text)
                continue
            found[pool] = self._quotas(entry.value, f"{where}.{pool}")
        return found

    def _users(self, node: Node, where: str) -> list[tuple[str, Entry]]:
        """Entries whose keys are users, or ``*``."""
        found: list[tuple[str, Entry]] = []
        table = as_table(self.problems, node, where)
        for user, entry in table.entries.items() if table else ():
            try:
                found.append((user if user == EVERYONE else check_user(user, what=where), entry))
            except InvalidInput as wrong:
                self.problems.add(entry.key.place, wrong.message)
        return found

    def _entries(self, table: Table | None, known: tuple[str, ...]) -> list[tuple[str, Entry]]:
        found: list[tuple[str, Entry]] = []
        for key, entry in table.entries.items() if table else ():
            if key in known:
                found.append((key, entry))
            else:
                text = f"unknown key {shown(key)}; {did_you_mean(key, known)}"
                self.problems.add(entry.key.place, text)
        return found

    def _value(self, node: Node, read: Callable[..., T], what: str) -> T | None:
        place: Place = node.place
        if not isinstance(node, Text):
            found = "keys and values" if isinstance(node, Table) else "a list"
            self.problems.add(place, f"{what}: {found} where one value belongs")
        elif node.text is None:
            self.problems.add(place, f"{what}: has no value; give one or leave the key out")
        else:
            try:
                return read(node.text, what=what)
            except InvalidInput as wrong:
                self.problems.add(place, wrong.message)
        return None


def as_table(problems: Problems, node: Node, what: str) -> Table | None:
    """The node as keys and values; nothing written counts as none."""
    if isinstance(node, Table):
        return node
    if not (isinstance(node, Text) and node.text is None):
        found = shown(node.text) if isinstance(node, Text) else "a list"
        problems.add(node.place, f"{what}: {found} where keys and values belong, or {{}}")
    return None
