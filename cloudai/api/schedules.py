"""Schedules: batches that are submitted again and again."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Body, Request

from cloudai.controller.schedules import Schedules
from cloudai.core.cron import Schedule
from cloudai.core.request import known_fields
from cloudai.core.wishes import check_flag
from cloudai.crontimes import next_times

from . import shapes
from .batches import batch_shape
from .requests import SCHEDULE_EXAMPLES
from .tasks import desk_of

router = APIRouter(prefix="/schedules", tags=["schedules"])

Wanted = Annotated[dict[str, Any], Body(openapi_examples=SCHEDULE_EXAMPLES)]
SHOWN = 3
"""Next times that are told."""


def schedule(one: Schedule) -> shapes.Json:
    return {
        "schedule_id": one.id,
        "user_id": one.user_id,
        "line": one.line,
        "zone": one.zone,
        "files": list(one.files),
        "set": dict(one.settings),
        "missed": str(one.missed),
        "overlap": one.overlap,
        "created_at": shapes.moment(one.created_at),
        "due_at": shapes.moment(one.due_at),
        "last_at": shapes.moment(one.last_at),
        "last_batch": one.last_batch,
        "last_outcome": one.last_outcome,
    }


def in_depth(one: Schedule) -> shapes.Json:
    """With its next times."""
    times = next_times(one.line, one.zone, max(one.created_at, datetime.now(UTC)), SHOWN)
    return {**schedule(one), "next": [shapes.moment(at) for at in times]}


def _schedules(request: Request) -> Schedules:
    return desk_of(request).controller.schedules


@router.post("/", status_code=201)
async def add(request: Request, body: Wanted) -> shapes.Json:
    """Submits a batch at the times of a cron line from now on. Its files are read and checked at
    once, and again each time."""
    user = request.app.state.default_user
    made, size = await _schedules(request).add(body, default_user=user)
    return {**in_depth(made), "size": size}


@router.get("/")
async def list_schedules(request: Request) -> shapes.Json:
    """In the order in which they were made."""
    return {"schedules": [schedule(one) for one in _schedules(request).all]}


@router.get("/{schedule_id}")
async def show(request: Request, schedule_id: str) -> shapes.Json:
    """One, with its next times."""
    return in_depth(_schedules(request).get(schedule_id))


@router.delete("/{schedule_id}", status_code=204)
async def remove(request: Request, schedule_id: str) -> None:
    """Forgets it; the batches that it made go on."""
    await _schedules(request).remove(schedule_id)


@router.post("/{schedule_id}/run", status_code=201)
async def run(
    request: Request, schedule_id: str, body: Annotated[dict[str, Any] | None, Body()] = None
) -> shapes.Json:
    """Submits its batch now. 409 while an earlier one has not ended; `{"overlap": true}` does
    not mind."""
    asked = known_fields(body or {}, ("overlap",))
    overlap = asked.quantity("overlap", check_flag, otherwise=False)
    batch = await _schedules(request).run_now(schedule_id, overlap=overlap)
    return await batch_shape(desk_of(request), batch)
