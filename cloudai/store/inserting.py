"""Many rows at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import Connection, Table, insert
from sqlalchemy.dialects import sqlite

from .mapping import Values

Bind = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Rows:
    """A statement and the values of many rows for it, as the driver takes them."""

    statement: str
    values: list[tuple[Any, ...]]

    def insert(self, connection: Connection) -> None:
        connection.exec_driver_sql(self.statement, self.values)


def rows_of(table: Table, rows: Sequence[Values]) -> Rows:
    """What ``connection.execute(insert(table), rows)`` would insert. That looks at every value of
    every row by itself: here a column's type sees each value that the column has once. All rows
    have the same columns, and there is at least one."""
    statement, binds = _prepared(table, frozenset(rows[0]))
    columns = [_bound(bind, [row[name] for row in rows]) for name, bind in binds.items()]
    return Rows(statement, list(zip(*columns, strict=True)))


@cache
def _prepared(table: Table, names: frozenset[str]) -> tuple[str, dict[str, Bind | None]]:
    """The statement, and in its order how each column's type makes of a value what the driver
    takes; it raises for a wrong one."""
    dialect = sqlite.dialect()
    statement = insert(table).values(dict.fromkeys(names)).compile(dialect=dialect)
    types = {one.name: one.type.dialect_impl(dialect) for one in table.columns if one.name in names}
    return str(statement), {name: one.bind_processor(dialect) for name, one in types.items()}


def _bound(bind: Bind | None, values: list[Any]) -> list[Any]:
    if bind is None:
        return values
    known = {value: bind(value) for value in set(values)}
    return [known[value] for value in values]
