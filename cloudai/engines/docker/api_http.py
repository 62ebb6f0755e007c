"""HTTP to one Docker engine through a UNIX socket of this machine. The only home of aiohttp.

Answers come in the three kinds every remote reply comes in: whole and good, whole and refused
(``EngineFailed`` with the engine's own words), or cut (``WorkerUnreachable`` and its child
``Indeterminate``). A body that ended early is never handed on as a short one.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
from yarl import URL

from cloudai.core.errors import (
    CloudaiError,
    ContainerGone,
    EngineFailed,
    Indeterminate,
    WorkerUnreachable,
)

CALL = 30.0
"""Seconds for a call, from the moment its turn came to the last byte of its answer."""
IDLE = 15.0
"""Seconds an unused connection is kept; each may hold a session slot of sshd's."""
NO_QUERY: Mapping[str, str] = {}
LARGEST_BODY = 64 * 1024**2
"""Bytes. The description of ten thousand containers is well below."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole good answer."""

    document: Any
    """Its JSON; text where it is none (``/_ping``)."""
    at: datetime | None
    """The engine's own clock when it answered, in whole seconds."""
    api_version: str
    """The newest the engine offers; empty where it does not say."""


@dataclass(frozen=True, slots=True)
class Door:
    """A UNIX socket of this machine that leads to a worker's engine."""

    path: str
    trouble: Callable[[], CloudaiError | None] = lambda: None
    """What went wrong behind the socket, where more is known than that it closed."""
    calls: int = 16
    """How many calls may be in flight at once: what each costs depends on the way."""


class EngineHttp:
    """Calls and streams of one engine. ``version`` is negotiated by the first ping."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._version = ""
        self._turns = asyncio.Semaphore(door.calls)
        self._calls = _session(door.path)
        self._streams = _session(door.path)

    async def ping(self) -> Answer:
        """Asks whether the engine is there, and which API it speaks."""
        answer = await self._fetch("/_ping", NO_QUERY, CALL)
        if not self._version:
            self._version = answer.api_version or await self._ask_version()
        return answer

    async def call(
        self, path: str, query: Mapping[str, str] = NO_QUERY, *, timeout: float = CALL
    ) -> Answer:
        """GETs a JSON document. ``timeout`` in seconds, for the whole call."""
        if not self._version:
            await self.ping()
        return await self._fetch(f"/v{self._version}{path}", query, timeout)

    async def delete(self, path: str, *, timeout: float = CALL) -> None:
        """DELETEs. Raises as ``call`` does."""
        if not self._version:
            await self.ping()
        url = _url(f"/v{self._version}{path}", NO_QUERY)
        async with self._turns:
            with self._translated():
                async with asyncio.timeout(timeout), self._calls.delete(url) as response:
                    if response.status == HTTPStatus.NO_CONTENT:
                        return
                    body = await _body(response)
        raise _refusal(response.status, body)

    @asynccontextmanager
    async def stream(
        self, path: str, query: Mapping[str, str]
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """GETs a body without end, as chunks. Entered once the engine began to answer."""
        if not self._version:
            await self.ping()
        url = _url(f"/v{self._version}{path}", query)
        with self._translated():
            async with asyncio.timeout(CALL):
                response = await self._streams.get(url)
        try:
            if response.status != HTTPStatus.OK:
                with self._translated():
                    async with asyncio.timeout(CALL):
                        raise _refusal(response.status, await _body(response))
            _check_measured(response)
            async with aclosing(self._chunks(response)) as chunks:
                yield chunks
        finally:
            response.close()

    async def close(self) -> None:
        try:
            await self._streams.close()
        finally:
            await self._calls.close()

    async def _fetch(self, path: str, query: Mapping[str, str], timeout: float) -> Answer:
        async with self._turns:
            return await self._fetch_now(path, query, timeout)

    async def _fetch_now(self, path: str, query: Mapping[str, str], timeout: float) -> Answer:
        with self._translated():
            async with (
                asyncio.timeout(timeout),
                self._calls.get(_url(path, query)) as response,
            ):
                body = await _body(response)
        if response.status != HTTPStatus.OK:
            raise _refusal(response.status, body)
        return Answer(
            document=_document(response, body),
            at=_date(response.headers.get("Date", "")),
            api_version=_version(response.headers.get("Api-Version", "")),
        )

    async def _ask_version(self) -> str:
        answer = await self._fetch("/version", NO_QUERY, CALL)
        offered = answer.document.get("ApiVersion") if isinstance(answer.document, dict) else None
        if version := _version(str(offered)):
            return version
        raise EngineFailed("the worker's engine does not say which version of its API it speaks")

    async def _chunks(self, response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
        while True:
            with self._translated():
                chunk = await response.content.readany()
            if not chunk:
                return
            yield chunk

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except aiohttp.ClientConnectorError as error:
            raise self._door.trouble() or WorkerUnreachable(
                f"Docker does not answer: {error.strerror or error}",
                hint="is it running there? `cloudai doctor` checks the worker",
            ) from error
        except TimeoutError as error:
            raise self._door.trouble() or Indeterminate("Docker did not answer in time") from error
        except aiohttp.ClientPayloadError as error:
            raise self._door.trouble() or Indeterminate(
                "the connection to Docker broke in the middle of an answer"
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            raise self._door.trouble() or Indeterminate(
                f"the connection to Docker broke: {error or type(error).__name__}"
            ) from error
        except RuntimeError as error:
            # aiohttp's word for a session that was closed meanwhile.
            if not self._streams.closed:
                raise
            raise self._door.trouble() or Indeterminate("the connection was closed") from error


def path_of(container: str, what: str) -> str:
    """Where the API has something about a container, named by its name or id."""
    return f"/containers/{quote(container, safe='')}/{what}"


def whole_object(answer: Answer) -> dict[str, Any]:
    """An answer that must be one description. Raises ``EngineFailed`` for anything else."""
    if not isinstance(answer.document, dict):
        raise EngineFailed("the worker's engine answered something that is no description")
    return answer.document


def _session(path: str) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.UnixConnector(path=path, limit=0, keepalive_timeout=IDLE),
        timeout=aiohttp.ClientTimeout(total=None),
        auto_decompress=False,
        raise_for_status=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
    )


def _url(path: str, query: Mapping[str, str]) -> URL:
    """``path`` is quoted already."""
    text = f"http://docker{path}"
    return URL(f"{text}?{urlencode(query)}" if query else text, encoded=True)


def _check_measured(response: aiohttp.ClientResponse) -> None:
    """Refuses a body that ends where the connection does: whole and cut would look alike."""
    chunked = response.headers.get("Transfer-Encoding", "").lower() == "chunked"
    if not chunked and "Content-Length" not in response.headers:
        raise EngineFailed("the worker's engine answers without saying where its answer ends")


async def _body(response: aiohttp.ClientResponse) -> bytes:
    _check_measured(response)
    gathered = bytearray()
    while chunk := await response.content.readany():
        gathered += chunk
        if len(gathered) > LARGEST_BODY:
            raise EngineFailed(f"the worker's engine answered more than {LARGEST_BODY} bytes")
    return bytes(gathered)


def _document(response: aiohttp.ClientResponse, body: bytes) -> Any:
    if not response.headers.get("Content-Type", "").startswith("application/json"):
        return body.decode("utf-8", "replace")
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise EngineFailed("the worker's engine answered something that is no JSON") from None


def _refusal(status: int, body: bytes) -> EngineFailed:
    words = body.decode("utf-8", "replace").strip()
    try:
        document = json.loads(words)
        words = str(document["message"])
    except (ValueError, RecursionError, KeyError, TypeError):
        words = words[:300]
    if status == HTTPStatus.NOT_FOUND and words.startswith("No such container"):
        return ContainerGone(words, status=status)
    return EngineFailed(f"Docker on the worker says: {words or f'status {status}'}", status=status)


def _date(header: str) -> datetime | None:
    try:
        return parsedate_to_datetime(header)
    except ValueError:
        return None


def _version(text: str) -> str:
    major, dot, minor = text.partition(".")
    return text if dot and major.isdecimal() and minor.isdecimal() else ""
