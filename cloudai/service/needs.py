"""What people name in ``--after``, looked up: a spec's needs by whole ids."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from cloudai.core.arrays import element_id
from cloudai.core.errors import InvalidInput
from cloudai.core.model import State, TaskSpec
from cloudai.core.needs import EACH, Need, needs_of, with_needs
from cloudai.store import Store


def with_whole_needs(store: Store, spec: TaskSpec) -> TaskSpec:
    """One task's needs. Raises ``TaskNotFound``, ``NotFound``, ``Conflict``, ``InvalidInput``."""
    return next(with_needs_each(store, spec, [spec]))


def with_needs_each(
    store: Store, spec: TaskSpec, elements: Iterable[TaskSpec]
) -> Iterator[TaskSpec]:
    """The same for each element of an array, all of which need what ``spec`` says: ``X[*]`` is
    the element of X with the same index. Each word is looked up once."""
    whole: list[Need] = []
    each: list[tuple[Need, frozenset[str]]] = []
    for need in needs_of(spec):
        if not need.ref.endswith(EACH):
            whole.append(replace(need, ref=store.resolve(need.ref)))
            continue
        array = store.resolve(need.ref.removesuffix(EACH))
        each.append((replace(need, ref=array), frozenset(store.ids_of(array, tuple(State)))))
    for element in elements:
        own = [_element(need, ids, element) for need, ids in each]
        yield with_needs(element, [*whole, *own])


def _element(need: Need, ids: frozenset[str], element: TaskSpec) -> Need:
    ref = element_id(need.ref, element.array_index)
    if element.array is None:
        raise InvalidInput(
            f"after: {need.ref}{EACH} means the element with the same index; only an array's"
            " elements have one",
            hint=f"give an array too, or {need.ref} for all of it",
            field="after",
        )
    if ref not in ids:
        raise InvalidInput(
            f"after: the array {need.ref} has no element {element.array_index}",
            hint="element by element, both arrays need the same indexes",
            field="after",
        )
    return replace(need, ref=ref)
