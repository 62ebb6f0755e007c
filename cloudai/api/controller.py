"""The controller itself: health, the doctor of this side, leaving."""

from __future__ import annotations

import os
from pathlib import Path

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict

from cloudai import __version__
from cloudai.controller.desk import FIRST_SIGHT
from cloudai.controller.shut_out import shut_out

from . import shapes
from .doors import Doors
from .tasks import desk_of

router = APIRouter(tags=["controller"])


class Backup(BaseModel):
    """Where a copy is to be."""

    model_config = ConfigDict(extra="forbid")

    path: str


@router.get("/health")
async def health(request: Request, settled: bool = False) -> shapes.Json:
    """That it runs, since when, and over which inventory; ``settled``: once each worker was
    tried, so that what wants a person's eye is known, or after five seconds."""
    doors: Doors = request.app.state.doors
    if settled:
        await desk_of(request).settled(FIRST_SIGHT)
    inventory = doors.controller.inventory
    return {
        "status": "ok",
        "version": __version__,
        "pid": os.getpid(),
        "home": str(doors.home),
        "inventory": {
            "path": str(inventory.path) if inventory.path else None,
            "error": doors.controller.inventory_error,
            "workers": len(doors.controller.fleet.workers()),
        },
        "since": shapes.moment(doors.since),
        "idle_exit": doors.idle_exit,
        "schedules": len(doors.controller.schedules.all),
        "shut_out": bool(shut_out(doors.controller.fleet.workers())),
        "notices": doors.notices(),
    }


@router.get("/doctor")
async def doctor(request: Request) -> shapes.Json:
    """The checks of this side: database, disk, inventory, keys."""
    findings = await desk_of(request).examine_home()
    return {"findings": [shapes.finding(one) for one in findings]}


@router.post("/controller/backup", status_code=201)
async def backup(request: Request, wanted: Backup) -> shapes.Json:
    """A whole copy of the database, while it is in use; never over what is there."""
    size = await desk_of(request).service.backup(Path(wanted.path))
    return {"path": wanted.path, "size": size}


@router.post("/controller/stay")
async def stay(request: Request) -> shapes.Json:
    """Leaves no more by itself, however quiet it is."""
    doors: Doors = request.app.state.doors
    doors.idle_exit = None
    return await health(request)


@router.post("/controller/stop")
async def stop(request: Request) -> shapes.Json:
    """Leaves. Nothing on any worker is touched."""
    doors: Doors = request.app.state.doors
    doors.leave.set()
    schedules = len(doors.controller.schedules.all)
    return {"stopping": True, "pid": os.getpid(), "schedules": schedules}
