"""Every front door: REST over the UNIX socket, as ``docs/api.md`` says. Thin: a route reads what
was sent, asks the service or the desk, and shapes the answer.
"""

from __future__ import annotations

import getpass
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from cloudai import __version__
from cloudai.controller.desk import Desk
from cloudai.core.errors import CloudaiError, InvalidInput, Leaving, NotFound

from . import (
    batches,
    controller,
    execute,
    files,
    groups,
    images,
    orphans,
    page,
    registries,
    scheduler,
    schedules,
    secrets,
    tasks,
    templates,
    workers,
)
from .doors import Doors

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


def make_app(desk: Desk, doors: Doors) -> FastAPI:
    """The application for one controller. ``doors`` knows who asked when, and how to leave."""
    app = FastAPI(
        title="cloudai",
        version=__version__,
        description="SSH hosts as one GPU cluster. Errors, fields and examples: docs/api.md.",
        docs_url=None,
        redoc_url=None,
    )
    app.state.desk = desk
    app.state.doors = doors
    app.state.default_user = getpass.getuser()
    app.include_router(workers.on_tasks)
    app.include_router(execute.router)
    app.include_router(files.router)
    app.include_router(tasks.router)
    app.include_router(groups.router)
    app.include_router(images.router)
    app.include_router(registries.router)
    app.include_router(batches.router)
    app.include_router(templates.router)
    app.include_router(schedules.router)
    app.include_router(workers.router)
    app.include_router(orphans.router)
    app.include_router(scheduler.router)
    app.include_router(secrets.router)
    app.include_router(controller.router)
    app.include_router(page.router)
    app.add_exception_handler(CloudaiError, _ours)
    app.add_exception_handler(RequestValidationError, _unreadable)
    app.add_exception_handler(HTTPException, _no_such_page)
    app.add_exception_handler(Exception, _mistake_of_ours)
    app.add_middleware(_Courtesy, doors=doors)
    return app


def _answer(error: CloudaiError) -> JSONResponse:
    return JSONResponse({"error": error.as_json()}, status_code=error.http_status)


def _ours(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, CloudaiError)
    return _answer(error)


def _unreadable(request: Request, error: Exception) -> JSONResponse:
    """What the framework refused, in our words: never the values that were sent."""
    assert isinstance(error, RequestValidationError)
    if any(one["loc"][0] == "body" for one in error.errors()):
        # What is inside a JSON object is judged by read_request: this one was none, or curl's
        # -d said that it is a form, and it was never read as what it is.
        unsaid = "json" not in request.headers.get("content-type", "")
        how = "send one as Content-Type: application/json; " if unsaid else ""
        hint = f"{how}/docs shows examples"
        return _answer(InvalidInput("body: it is not a JSON object", hint=hint))
    problems = [
        f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors()
    ]
    return _answer(InvalidInput("; ".join(problems)))


def _no_such_page(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return _answer(NotFound(f"{request.url.path} is not part of the API", hint="see /docs"))
    answer = _answer(InvalidInput(f"{request.method} {request.url.path}: {error.detail}"))
    answer.status_code = error.status_code
    return answer


def _mistake_of_ours(request: Request, error: Exception) -> JSONResponse:
    log.error("%s %s", request.method, request.url.path, exc_info=error)
    return _answer(
        CloudaiError("internal error", hint="the controller's log says more: controller.log")
    )


class _Courtesy:
    """Around every request: who asked when, which inventory was meant, and on the answer the
    version and what wants a person's eye."""

    def __init__(self, app: Callable[..., Awaitable[None]], doors: Doors) -> None:
        self.app = app
        self.doors = doors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return

        notice = ""
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", []))
                headers.append((b"x-cloudai-version", __version__.encode()))
                notices = [*self.doors.notices(), *([notice] if notice else [])]
                if notices:
                    headers.append((b"x-cloudai-notice", quote("\n".join(notices)).encode()))
                message = {**message, "headers": headers}
                started = True
            await send(message)

        with self.doors.asked():
            try:
                notice = self.doors.check_inventory(scope["headers"])
            except CloudaiError as error:
                await _answer(error)(scope, receive, send_with_headers)
                return
            # An edit of a moment ago counts, and a mistake in it is said at once.
            self.doors.controller.follow_inventory()
            if scope.get("method") != "GET":
                await self.app(scope, receive, send_with_headers)
                return
            try:
                with self.doors.reading():
                    await self.app(scope, receive, send_with_headers)
            except Leaving as error:
                if not started:
                    await _answer(error)(scope, receive, send_with_headers)
