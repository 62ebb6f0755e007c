"""The client: one method a verb of HTTP, parsed JSON out, errors raised."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlencode

import cloudai
from cloudai.core.errors import InvalidInput, Leaving, NotFound, TaskNotFound, WorkerNotFound

from .connection import CONNECT_WITHIN, NotRunning, connect, translated
from .errors import ControllerFailed, error_from_json
from .http import Response, send
from .place import Inventory, socket_path

ANSWER_WITHIN = 120.0
"""Seconds; ``POST /workers/`` connects, probes and runs the doctor in one answer."""
LISTENS_WITHIN = 20.0
"""Seconds."""

Query = Mapping[str, Any]
"""Values: text, numbers, bools, sequences of those; ``None`` is left out."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A success: its HTTP status, and its JSON (``None`` where there is no body)."""

    status: int
    data: Any


class Client:
    """Speaks to the controller of a home; starts one where none runs, unless told not to."""

    def __init__(
        self,
        home: Path,
        inventory: Inventory,
        *,
        start: bool = True,
        patience: float = ANSWER_WITHIN,
    ) -> None:
        self.home = home
        self.inventory = inventory
        self.notices: list[str] = []
        """What the controller wants a person to know, each once, in the order it came."""
        self._start = start
        self._patience = patience

    def get(self, path: str, *, patience: float | None = None, **query: Any) -> Any:
        """``patience``: seconds in which the answer must come, where it is not the usual."""
        return self.request("GET", path, query=query, patience=patience).data

    def post(self, path: str, body: object = None, **query: Any) -> Any:
        return self.request("POST", path, query=query, body=body).data

    def patch(self, path: str, body: object = None, **query: Any) -> Any:
        return self.request("PATCH", path, query=query, body=body).data

    def delete(self, path: str, **query: Any) -> Any:
        return self.request("DELETE", path, query=query).data

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: object = None,
        patience: float | None = None,
    ) -> Answer:
        """One request. Raises the error the controller answers, or ``ControllerFailed``."""
        try:
            return self._once(method, path, query=query, body=body, patience=patience)
        except (ControllerFailed, Leaving) as error:
            # One that was just leaving: asking the next changes nothing.
            cut = isinstance(error, Leaving) or isinstance(error.__cause__, ConnectionError)
            if method != "GET" or not cut:
                raise
            return self._once(method, path, query=query, body=body, patience=patience)

    @contextmanager
    def stream(self, path: str, /, **query: Any) -> Iterator[Iterator[bytes]]:
        """A GET whose body is read as it comes; chunks may be of any length and stay away for
        any time. Raises ``ControllerFailed`` where the stream is cut."""
        with self._exchange("GET", path, query=query, patience=float("inf")) as response:
            yield self._chunks(response)

    @contextmanager
    def post_stream(self, path: str, body: object) -> Iterator[Iterator[bytes]]:
        """A POST whose answer is read as it comes; see ``stream``."""
        with self._exchange("POST", path, body=body, patience=float("inf")) as response:
            yield self._chunks(response)

    def upload(self, path: str, pieces: Iterator[bytes], /, **query: Any) -> Any:
        """A PUT whose body is sent piece by piece; its answer's JSON. What ``pieces`` raises is
        raised, and the other end learns that it did not come whole."""
        with (
            self._exchange(
                "PUT", path, query=query, body=pieces, patience=float("inf")
            ) as response,
            translated(socket_path(self.home)),
        ):
            return _parsed(response.read())

    def ensure_running(self, *, stay: bool = False) -> str:
        """The path of a socket on which a controller listens; ``stay``: see start_controller.

        Raises ``NotRunning`` where none runs and this client may not start one.
        """
        path = socket_path(self.home)
        with translated(path):
            self._reach(lambda: connect(path), stay=stay).close()
        return path

    def headers(self) -> dict[str, str]:
        """What every request says of us. One that starts no controller asks the one that runs,
        whichever inventory it has: how else could it be stopped, to change over?"""
        if not self._start:
            return {}
        found = {"X-Cloudai-Inventory": quote(str(self.inventory.path))}
        if self.inventory.explicit:
            found["X-Cloudai-Inventory-Explicit"] = "1"
        return found

    def heed(self, *, version: str | None, notice: str | None) -> None:
        """Keeps what an answer's headers ``X-Cloudai-…`` want a person to know."""
        notices = unquote(notice or "").splitlines()
        if version and version != cloudai.__version__:
            notices.append(
                f"the running controller is cloudai {version}, this is {cloudai.__version__}:"
                " `cloudai controller stop`, and the next command starts the new one"
            )
        for line in notices:
            if line and line not in self.notices:
                self.notices.append(line)

    def _once(
        self,
        method: str,
        path: str,
        *,
        query: Query | None,
        body: object,
        patience: float | None,
    ) -> Answer:
        with (
            self._exchange(method, path, query=query, body=body, patience=patience) as response,
            translated(socket_path(self.home)),
        ):
            text = response.read()
            return Answer(response.status, _parsed(text) if text else None)

    @contextmanager
    def _exchange(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: object = None,
        patience: float | None = None,
    ) -> Iterator[Response]:
        """Sends, and answers the response of a success; anything else is raised."""
        target = path + _query_text(query or {})
        payload = body if isinstance(body, Iterator | None) else _payload(body)
        with closing(self._connection(patience)) as link, link.makefile("rb") as reader:
            with translated(socket_path(self.home)):
                headers = self.headers()
                if payload is not None:
                    kind = "json" if isinstance(payload, bytes) else "x-tar"
                    headers["Content-Type"] = f"application/{kind}"
                send(link, method, target, headers=headers, body=payload)
                response = Response(reader)
                self.heed(
                    version=response.headers.get("x-cloudai-version"),
                    notice=response.headers.get("x-cloudai-notice"),
                )
                if response.status >= 400:
                    raise error_from_json(_parsed(response.read()), status=response.status)
            # What breaks in the reader's own hands is not the controller's fault.
            yield response

    def _connection(self, patience: float | None) -> socket.socket:
        """Connected. Starting a controller happens here, before anything was sent."""
        path = socket_path(self.home)
        seconds = self._patience if patience is None else patience
        with translated(path):
            link = self._reach(lambda: connect(path, within=min(seconds, CONNECT_WITHIN)))
        link.settimeout(None if seconds == float("inf") else seconds)
        return link

    def _reach(self, connect: Callable[[], socket.socket], *, stay: bool = False) -> socket.socket:
        """Connects, to a controller that is started for it where none runs and we may.

        One that is just leaving listens no more and still holds its home, and one that was
        faster than ours may not listen yet: so it is tried again for a while.
        """
        try:
            return connect()
        except NotRunning:
            if not self._start:
                raise
        from .start import start_controller  # seldom needed, and then a process is worth its time

        deadline = time.monotonic() + LISTENS_WITHIN
        while True:
            start_controller(self.home, self.inventory.path, stay=stay)
            for _ in range(25):
                try:
                    return connect()
                except NotRunning:
                    time.sleep(0.02)
            if time.monotonic() > deadline:
                raise ControllerFailed(
                    "The controller said it is ready, and does not listen",
                    hint="controller.log in its home says why; `cloudai controller run` shows it",
                )

    def _chunks(self, response: Response) -> Iterator[bytes]:
        pieces = response.pieces()
        while True:
            with translated(socket_path(self.home)):
                piece = next(pieces, None)
            if piece is None:
                return
            yield piece


def task_path(task: str, *rest: str) -> str:
    """``/tasks/<task>/…``. Raises ``TaskNotFound`` for what can be no task's id or name."""
    if not task or "/" in task:
        raise TaskNotFound(task)
    return "/".join(("/tasks", quote(task, safe=""), *rest))


def group_path(group: str, *rest: str) -> str:
    """``/groups/<group>/…``, for what ``core.names.is_group_id`` says is one."""
    return "/".join(("/groups", quote(group, safe=""), *rest))


def batch_path(batch: str, *rest: str) -> str:
    """``/batches/<batch>/…``. Raises ``NotFound`` for what can be no batch's id or name."""
    if not batch or "/" in batch:
        raise NotFound(f"Batch {batch} not found", hint="`cloudai batch status` lists them")
    return "/".join(("/batches", quote(batch, safe=""), *rest))


def template_path(name: str, *rest: str) -> str:
    """``/templates/<name>/…``. Raises ``NotFound`` for no name at all."""
    if not name:
        raise NotFound("no task type ''", hint="`cloudai templates list` lists them")
    return "/".join(("/templates", quote(name, safe=""), *rest))


def worker_path(worker: str, *rest: str) -> str:
    """``/workers/<worker>/…``. Raises ``WorkerNotFound`` for what can be no worker's id."""
    if not worker or "/" in worker:
        raise WorkerNotFound(worker)
    return "/".join(("/workers", quote(worker, safe=""), *rest))


def _query_text(query: Query) -> str:
    given = {
        name: str(value).lower() if isinstance(value, bool) else value
        for name, value in query.items()
        if value is not None
    }
    return f"?{urlencode(given, doseq=True)}" if given else ""


def _payload(body: object) -> bytes:
    try:
        return json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(
            "There are bytes in it that are not UTF-8",
            hint="arguments and values of variables are sent as text; pass bytes in a file",
        ) from error


def _parsed(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None
