"""Secrets of this home: set, listed, removed. A value comes in a body and is never answered."""

from __future__ import annotations

import base64
from typing import Annotated, Any

from fastapi import APIRouter, Body, Request
from fastapi.responses import JSONResponse

from cloudai.core.errors import InvalidInput
from cloudai.core.request import known_fields
from cloudai.secrets import Secret

from . import shapes
from .tasks import desk_of

router = APIRouter(prefix="/secrets", tags=["secrets"])

Given = Annotated[dict[str, Any], Body()]


def secret_shape(secret: Secret) -> shapes.Json:
    return {
        "name": secret.name,
        "set_at": shapes.moment(secret.set_at),
        "kept": str(secret.kept),
        "size": secret.size,
    }


@router.get("/")
async def listed(request: Request) -> shapes.Json:
    """All of them, by name; no values."""
    service = desk_of(request).service
    found = await service.of_secrets(service.secrets.all)
    return {"secrets": [secret_shape(one) for one in found]}


@router.get("/{name}")
async def show(request: Request, name: str) -> shapes.Json:
    """One; not its value."""
    service = desk_of(request).service
    return secret_shape(await service.of_secrets(service.secrets.one, name))


@router.put("/{name}")
async def put(request: Request, name: str, given: Given) -> JSONResponse:
    """Sets it, in place of an earlier value. ``note``: why it is kept in a file where a keyring
    was wanted."""
    value, in_file = _read(given)
    service = desk_of(request).service
    secret, note = await service.of_secrets(service.secrets.put, name, value, in_file=in_file)
    return JSONResponse({**secret_shape(secret), "note": note})


@router.delete("/{name}", status_code=204)
async def remove(request: Request, name: str) -> None:
    """Forgets it. Tasks that run keep what they have."""
    service = desk_of(request).service
    await service.of_secrets(service.secrets.drop, name)


def _read(given: dict[str, Any]) -> tuple[bytes, bool]:
    """The value, and whether it goes into a file in any case. No message shows any of it."""
    body = known_fields(given, ("value", "base64", "in_file")).body
    in_file = body.get("in_file", False)
    if not isinstance(in_file, bool):
        raise InvalidInput("in_file: give true or false", field="in_file")
    fields = [field for field in ("value", "base64") if body.get(field) is not None]
    if len(fields) != 1:
        raise InvalidInput("value: send value (text) or base64 (of any bytes)", field="value")
    text = body[fields[0]]
    if not isinstance(text, str):
        raise InvalidInput(f"{fields[0]}: it is not text; put it in quotes", field=fields[0])
    try:
        value = text.encode() if fields == ["value"] else base64.b64decode(text, validate=True)
    except ValueError:
        # ``from None``: these errors quote what they read.
        why = "it is not valid UTF-8" if fields == ["value"] else "it is no base64"
        raise InvalidInput(f"{fields[0]}: {why}", field=fields[0]) from None
    return value, in_file
