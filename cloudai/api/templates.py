"""Task types: which there are, what each takes, and what one would run."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Request

from cloudai.core.errors import InvalidInput
from cloudai.tasktypes import Listed, Parameter

from . import shapes
from .requests import RENDER_EXAMPLES
from .tasks import desk_of

router = APIRouter(prefix="/templates", tags=["templates"])

Wanted = Annotated[dict[str, Any], Body(openapi_examples=RENDER_EXAMPLES)]


def _parameter(one: Parameter) -> shapes.Json:
    return {
        "name": one.name,
        "type": one.type,
        "help": one.help,
        "required": one.required,
        "default": one.default,
        "choices": list(one.choices) or None,
        "min": one.least,
        "max": one.most,
    }


def _listed(one: Listed) -> shapes.Json:
    kind = one.kind
    return {
        "name": one.name,
        "file": one.file,
        "origin": one.origin,
        "about": kind.about if kind else None,
        "parameters": [_parameter(each) for each in kind.parameters] if kind else [],
        "problem": one.problem or None,
    }


@router.get("/")
async def list_templates(request: Request) -> shapes.Json:
    """All that a name finds, by name; one that cannot be read with its problem."""
    types = desk_of(request).service.types
    return {
        "templates": [_listed(one) for one in types.listed()],
        "folders": [{"origin": origin, "path": str(path)} for origin, path in types.folders()],
    }


@router.get("/{name:path}")
async def show(request: Request, name: str) -> shapes.Json:
    """One, by name or by the whole path of its file, with the task as its template says it."""
    found = desk_of(request).service.types.one(name)
    assert found.kind is not None
    return {**_listed(found), "task": dict(found.kind.task)}


@router.post("/{name:path}/render")
async def render(request: Request, name: str, body: Wanted) -> shapes.Json:
    """The body of ``POST /tasks/`` that it stands for, and the ``docker run`` line; nothing is
    queued."""
    if body.get("task_type") not in (None, name):
        raise InvalidInput("task_type: the path says which", field="task_type")
    desk = desk_of(request)
    asked = {**body, "task_type": name}
    whole = desk.service.types.expand(asked)
    task, _ = await desk.service.submit(
        asked, default_user=request.app.state.default_user, dry_run=True
    )
    return {"body": whole, "docker_run": desk.preview(task)}
