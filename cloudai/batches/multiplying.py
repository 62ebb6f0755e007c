"""Groups and arrays: one planned task, or several, become those that are really queued."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from cloudai.core.arrays import element_id, elements_of
from cloudai.core.errors import InvalidInput
from cloudai.core.groups import MOST_TASKS as LARGEST_GROUP
from cloudai.core.model import Placement
from cloudai.core.wishes import check_placement
from cloudai.core.wording import shown

from .planned import Planned


def grouped(tasks: Sequence[Planned], wanted: Any, new_id: Callable[[str], str]) -> list[Planned]:
    """What ``group:`` makes of an entry's tasks: ``strict_spread`` one group of all of them,
    ``{placement: …, replicas: 4}`` of each a group of four; nothing leaves them alone. Raises
    ``InvalidInput``."""
    if wanted is None:
        return list(tasks)
    placement, replicas = _placement(wanted)
    if any(task.elements is not None for task in tasks):
        raise InvalidInput("an entry is a group or an array, not both")
    if replicas is None and len(tasks) > LARGEST_GROUP:
        raise InvalidInput(f"{len(tasks)} tasks; a group has at most {LARGEST_GROUP}")
    sets = [tasks] if replicas is None else [[task] * replicas for task in tasks]
    found: list[Planned] = []
    for members in sets:
        group = new_id("group")
        for rank, task in enumerate(members):
            spec = replace(
                task.spec,
                group=group,
                group_size=len(members),
                group_rank=rank,
                placement=placement,
            )
            own = task.id if replicas is None else new_id("task")
            found.append(replace(task, id=own, spec=spec, after=list(task.after)))
    return found


def _placement(wanted: Any) -> tuple[Placement, int | None]:
    said = wanted if isinstance(wanted, dict) else {"placement": wanted}
    if unknown := said.keys() - {"placement", "replicas"}:
        raise InvalidInput(f"key {shown(min(unknown))}; known: placement, replicas")
    how, replicas = said.get("placement", "pack"), said.get("replicas")
    if not isinstance(how, str):
        raise InvalidInput(f"placement: {shown(how)}; give text")
    whole = isinstance(replicas, int) and not isinstance(replicas, bool)
    if replicas is not None and not (whole and 1 <= replicas <= LARGEST_GROUP):
        raise InvalidInput(f"replicas: {shown(replicas)}; give 1 to {LARGEST_GROUP}")
    return check_placement(how), replicas


def spread(tasks: Iterable[Planned]) -> list[Planned]:
    """With all elements of those that are arrays in their place."""
    found: list[Planned] = []
    for task in tasks:
        if task.elements is None:
            found.append(task)
            continue
        for spec in elements_of(task.spec, task.id, task.elements):
            own = element_id(task.id, spec.array_index)
            found.append(replace(task, id=own, spec=spec, elements=None, after=list(task.after)))
    return found
