"""Containers that no task here claims: list them; adopt, stop or forget one."""

from __future__ import annotations

from fastapi import APIRouter, Request

from cloudai.controller.desk import FIRST_SIGHT
from cloudai.controller.orphans import Orphans

from . import shapes
from .tasks import desk_of, in_full

router = APIRouter(prefix="/orphans", tags=["workers"])


def _orphans(request: Request) -> Orphans:
    return Orphans(desk_of(request).controller)


@router.get("/")
async def list_orphans(request: Request, worker: str | None = None) -> shapes.Json:
    """As last seen; nothing is ever done to them by itself."""
    await desk_of(request).settled(FIRST_SIGHT)
    return {"orphans": [shapes.orphan(one) for one in await _orphans(request).find(worker)]}


@router.post("/{wanted}/adopt", status_code=201)
async def adopt(
    request: Request, wanted: str, worker: str | None = None, foreign: bool = False
) -> shapes.Json:
    """A task of this store from now on."""
    await desk_of(request).settled(FIRST_SIGHT)
    task = await _orphans(request).adopt(
        wanted, worker_id=worker, foreign=foreign, default_user=request.app.state.default_user
    )
    return await in_full(desk_of(request), task)


@router.post("/{wanted}/stop")
async def stop(
    request: Request, wanted: str, worker: str | None = None, foreign: bool = False
) -> shapes.Json:
    """Politely, then by force; it and its log stay there."""
    await desk_of(request).settled(FIRST_SIGHT)
    return shapes.orphan(await _orphans(request).stop(wanted, worker_id=worker, foreign=foreign))


@router.delete("/{wanted}", status_code=204)
async def forget(
    request: Request, wanted: str, worker: str | None = None, foreign: bool = False
) -> None:
    """Removes it from its worker, its log with it."""
    await desk_of(request).settled(FIRST_SIGHT)
    await _orphans(request).forget(wanted, worker_id=worker, foreign=foreign)
