"""Many rows at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from sqlalchemy import Connection, Table, insert
from sqlalchemy.dialects import sqlite

from .mapping import Values

Bind = Callable[[Any], Any]


def insert_many(connection: Connection, table: Table, rows: Sequence[Values]) -> None:
    """What ``connection.execute(insert(table), rows)`` does, but that looks at every value of every
    row by itself: here a column's type sees each value that the column has once. All rows have
    the same columns."""
    statement, binds = _prepared(table, frozenset(rows[0]))
    columns = [_bound(bind, [row[name] for row in rows]) for name, bind in binds.items()]
    connection.exec_driver_sql(statement, list(zip(*columns, strict=True)))


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
