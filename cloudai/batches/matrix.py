"""Matrices: an entry times every combination of values."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cloudai.core.errors import InvalidInput
from cloudai.core.wording import shown

from .document import Path

MOST_TASKS = 100_000
"""Of one batch."""

Values = dict[str, Any]
Render = Callable[[Any, Path], Any]
"""Does the expressions of what stands at that place."""


def combinations(entry: Mapping[str, Any], render: Render) -> Iterator[Values]:
    """The values of each task of an entry, the last axis fastest; one empty combination where
    there is no matrix.

    ``include`` and ``exclude`` stand in the matrix or beside it. A combination is left out that
    has all values of one that is excluded; those included come last, as they are. Raises
    ``InvalidInput`` with ``details["path"]``.
    """
    matrix = entry.get("matrix")
    if matrix is None:
        for key in ("include", "exclude"):
            if entry.get(key) is not None:
                raise _wrong((key,), "it needs a matrix")
        yield {}
        return
    if not isinstance(matrix, dict) or not matrix:
        raise _wrong(("matrix",), "give names and their values, as in {lr: [0.1, 0.01]}")
    axes = {
        name: _axis(name, values, render) for name, values in matrix.items() if name not in _SIDE
    }
    include = _list_of_values("include", entry, render)
    exclude = _list_of_values("exclude", entry, render)
    size = 1 if axes else 0
    for values in axes.values():
        size *= len(values)
    if size + len(include) > MOST_TASKS:
        raise _wrong(("matrix",), f"{size + len(include)} combinations; at most {MOST_TASKS}")
    if axes:
        for one in itertools.product(*axes.values()):
            combo = dict(zip(axes, one, strict=True))
            if not any(_has_all(combo, out) for out in exclude):
                yield combo
    yield from include


_SIDE = ("include", "exclude")


def _axis(name: str, values: Any, render: Render) -> list[Any]:
    """A list; or an expression for one, as in ``range(5)``."""
    path: Path = ("matrix", name)
    if not name.isidentifier():
        raise _wrong(path, f"{shown(name)} cannot be used in expressions; give letters and '_'")
    if isinstance(values, str) and "{{" not in values:
        values = "{{ " + values + " }}"
    found = render(values, path)
    if not isinstance(found, list) or not found:
        raise _wrong(path, f"{shown(values)}; give a list, or an expression such as range(5)")
    return found


def _list_of_values(key: str, entry: Mapping[str, Any], render: Render) -> list[Values]:
    within = entry["matrix"].get(key)
    path: Path = ("matrix", key) if within is not None else (key,)
    listed = render(within if within is not None else entry.get(key), path)
    if listed is None:
        return []
    if not isinstance(listed, list) or not all(isinstance(one, dict) and one for one in listed):
        raise _wrong(path, "give a list of values by name, as in [{lr: 0.1, seed: 3}]")
    return listed


def _has_all(values: Values, wanted: Values) -> bool:
    return all(name in values and values[name] == value for name, value in wanted.items())


def _wrong(path: Path, why: str) -> InvalidInput:
    return InvalidInput(f"{path[-1]}: {why}", path=list(path))
