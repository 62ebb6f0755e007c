"""Rows to the domain's frozen dataclasses and back."""

from __future__ import annotations

import dataclasses
import json
from operator import attrgetter
from typing import Any

from sqlalchemy import ColumnElement, Row

from cloudai.core.errors import StoreTooNew
from cloudai.core.model import (
    Assignment,
    OnLost,
    OnUnmet,
    Placement,
    Reservation,
    Resources,
    State,
    Strategy,
    Task,
    TaskSpec,
)

from .rows import ASSIGNMENT, TASK

Values = dict[str, Any]

_COLUMNS_OF_SPEC = ("user_id", "name", "idempotency_key", "group", "batch", "array")
_JSON_OF_SPEC = sorted(
    {field.name for field in dataclasses.fields(TaskSpec)} - {*_COLUMNS_OF_SPEC, "resources"}
)
_NOTHING = {
    field.name: field.default
    for field in dataclasses.fields(TaskSpec)
    if field.default is None or field.default is False or field.default == ()
} | {"array_index": 0, "array_size": 1, "on_unmet": OnUnmet.CANCEL, "signal_before": 60.0}
"""Defaults that can never come to mean something else."""
_KNOWN_JSON = frozenset(_JSON_OF_SPEC)
_LEFT_OUT = [_NOTHING.get(name, ...) for name in _JSON_OF_SPEC]
_RESOURCES = tuple(field.name for field in dataclasses.fields(Resources))
_VALUES_OF_SPEC = attrgetter(*_JSON_OF_SPEC)
_AMOUNTS = attrgetter(*_RESOURCES)
_TEXT = json.JSONEncoder(separators=(",", ":"))
_OF_RESERVATION = tuple(
    field.name for field in dataclasses.fields(Reservation) if field.name != "resources"
)

TASK_COLUMNS: tuple[ColumnElement[Any], ...] = (
    TASK.c.id,
    TASK.c.state,
    TASK.c.user_id,
    TASK.c.name,
    TASK.c.idempotency_key,
    TASK.c.direct,
    TASK.c.created_at,
    TASK.c.started_at,
    TASK.c.completed_at,
    TASK.c.exit_code,
    TASK.c.reason,
    TASK.c.stop_reason,
    TASK.c.spec,
    TASK.c.group_id,
    TASK.c.failures,
    TASK.c.not_before,
    TASK.c.requeue,
    TASK.c.batch_id,
    TASK.c.array_id,
    TASK.c.skipped,
)
ASSIGNMENT_COLUMNS: tuple[ColumnElement[Any], ...] = (
    ASSIGNMENT.c.task_id,
    ASSIGNMENT.c.number,
    ASSIGNMENT.c.worker_id,
    ASSIGNMENT.c.placed_at,
    ASSIGNMENT.c.container_id,
    ASSIGNMENT.c.gpus,
    ASSIGNMENT.c.started_at,
    ASSIGNMENT.c.ended_at,
    ASSIGNMENT.c.exit_code,
    ASSIGNMENT.c.reason,
    ASSIGNMENT.c.harvested,
    ASSIGNMENT.c.lost,
)


def spec_to_text(spec: TaskSpec) -> str:
    """What of a spec has no column of its own, as JSON. What asks for nothing is left out:
    a queue of a hundred thousand is read in every pass."""
    each = zip(_JSON_OF_SPEC, _VALUES_OF_SPEC(spec), _LEFT_OUT, strict=True)
    fields = {name: value for name, value, nothing in each if value != nothing}
    fields["resources"] = dict(zip(_RESOURCES, _AMOUNTS(spec.resources), strict=True))
    return _TEXT.encode(fields)


def spec_from_text(text: str, *, task_id: str, columns: Values) -> TaskSpec:
    """The other way. Raises ``StoreTooNew`` for what this program does not know."""
    fields = json.loads(text)
    resources = fields.pop("resources")
    unknown = [*(fields.keys() - _KNOWN_JSON), *(resources.keys() - set(_RESOURCES))]
    if unknown:
        raise StoreTooNew(
            f"{task_id} was submitted by a newer cloudai: {', '.join(sorted(unknown))} is not "
            "known to this one",
            hint="Install the newer version again.",
        )
    for name, value in fields.items():
        if isinstance(value, list):
            fields[name] = tuple(value)
    fields["on_lost"] = OnLost(fields.get("on_lost", OnLost.WAIT))
    fields["on_unmet"] = OnUnmet(fields.get("on_unmet", OnUnmet.CANCEL))
    fields["placement"] = Placement(fields.get("placement", Placement.PACK))
    if fields.get("strategy") is not None:
        fields["strategy"] = Strategy(fields["strategy"])
    return TaskSpec(resources=Resources(**resources), **fields, **columns)


def task_values(task: Task) -> Values:
    """A task's whole row."""
    spec = task.spec
    return {
        "id": task.id,
        "user_id": spec.user_id,
        "name": spec.name,
        "idempotency_key": spec.idempotency_key,
        "group_id": spec.group,
        "batch_id": spec.batch,
        "array_id": spec.array,
        "direct": task.direct,
        "created_at": task.created_at,
        "spec": spec_to_text(spec),
        **standing_values(task),
    }


def standing_values(task: Task) -> Values:
    """Those columns of a task's row that an event may change."""
    assignment = task.assignment
    return {
        "state": task.state,
        "reason": task.reason,
        "stop_reason": task.stop_reason,
        "started_at": task.started_at,
        "completed_at": task.completed_at,
        "exit_code": task.exit_code,
        "worker_id": assignment.worker_id if assignment else None,
        "assignment_number": assignment.number if assignment else None,
        "failures": task.failures,
        "not_before": task.not_before,
        "requeue": task.requeue,
        "skipped": task.skipped,
    }


def assignment_values(assignment: Assignment) -> Values:
    """An assignment's whole row."""
    values = {
        field.name: getattr(assignment, field.name) for field in dataclasses.fields(assignment)
    }
    return {**values, "gpus": json.dumps(assignment.gpus)}


def task_from(row: Row[Any]) -> Task:
    """From ``TASK_COLUMNS`` followed by ``ASSIGNMENT_COLUMNS`` (all null: none)."""
    split = len(TASK_COLUMNS)
    (
        task_id,
        state,
        user_id,
        name,
        idempotency_key,
        direct,
        created_at,
        started_at,
        completed_at,
        exit_code,
        reason,
        stop_reason,
        spec,
        group_id,
        failures,
        not_before,
        requeue,
        batch_id,
        array_id,
        skipped,
    ) = row[:split]
    columns = {
        "user_id": user_id,
        "name": name,
        "idempotency_key": idempotency_key,
        "group": group_id,
        "batch": batch_id,
        "array": array_id,
    }
    return Task(
        id=task_id,
        spec=spec_from_text(spec, task_id=task_id, columns=columns),
        state=State(state),
        reason=reason,
        created_at=created_at,
        started_at=started_at,
        completed_at=completed_at,
        exit_code=exit_code,
        direct=direct,
        stop_reason=stop_reason,
        assignment=assignment_from(row[split:]) if row[split] is not None else None,
        failures=failures,
        not_before=not_before,
        requeue=requeue,
        skipped=skipped,
    )


def assignment_from(row: tuple[Any, ...]) -> Assignment:
    """From ``ASSIGNMENT_COLUMNS``."""
    (
        task_id,
        number,
        worker_id,
        placed_at,
        container_id,
        gpus,
        started_at,
        ended_at,
        exit_code,
        reason,
        harvested,
        lost,
    ) = row
    return Assignment(
        task_id=task_id,
        number=number,
        worker_id=worker_id,
        placed_at=placed_at,
        container_id=container_id,
        gpus=tuple(json.loads(gpus)),
        started_at=started_at,
        ended_at=ended_at,
        exit_code=exit_code,
        reason=reason,
        harvested=harvested,
        lost=lost,
    )


def reservation_values(one: Reservation) -> Values:
    """A reservation's whole row."""
    return {
        **{name: getattr(one.resources, name) for name in _RESOURCES},
        **{name: getattr(one, name) for name in _OF_RESERVATION},
    }


def reservation_from(row: Row[Any]) -> Reservation:
    """From a whole row."""
    values = dict(row._mapping)
    resources = Resources(**{name: values[name] for name in _RESOURCES})
    return Reservation(resources=resources, **{name: values[name] for name in _OF_RESERVATION})
