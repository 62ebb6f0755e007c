"""Log-ins of registries. A password goes in and never comes out."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, SecretStr

from cloudai.registries import Known

from . import shapes
from .tasks import desk_of

router = APIRouter(prefix="/registries", tags=["registries"])


class Wanted(BaseModel):
    """What ``registry login`` sends."""

    model_config = ConfigDict(extra="forbid")

    registry: str
    username: str
    password: SecretStr


def shape(one: Known) -> shapes.Json:
    return {
        "registry": one.registry,
        "username": one.username,
        "set_at": shapes.moment(one.set_at),
    }


@router.get("/")
async def list_registries(request: Request) -> shapes.Json:
    """All log-ins that are kept, without their passwords."""
    found = await asyncio.to_thread(desk_of(request).service.registries.all)
    return {"registries": [shape(one) for one in found]}


@router.post("/", status_code=201)
async def log_in(request: Request, wanted: Wanted) -> shapes.Json:
    """Keeps a log-in, in place of an earlier one of that registry."""
    registries = desk_of(request).service.registries
    password = wanted.password.get_secret_value()
    known = await asyncio.to_thread(registries.put, wanted.registry, wanted.username, password)
    return shape(known)


@router.delete("/{registry}", status_code=204)
async def log_out(request: Request, registry: str) -> None:
    """Forgets it."""
    await asyncio.to_thread(desk_of(request).service.registries.drop, registry)
