"""What the Engine API's client makes of engines that are new, wrong, cut or hostile."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from cloudai.core.errors import ContainerGone, EngineFailed, Indeterminate, WorkerUnreachable
from cloudai.engines.docker import api_http
from cloudai.engines.docker.api_http import Door, EngineHttp
from cloudai.engines.docker.api_watch import ApiWatch
from cloudai.engines.docker.watch import open_watch
from cloudai.shells.local import LocalShell
from tests.unit.test_containers import document

Answers = Callable[[str], bytes]
PING = b"HTTP/1.1 200 OK\r\nApi-Version: 1.52\r\nContent-Length: 2\r\n\r\nOK"


def answer(body: Any, status: str = "200 OK") -> bytes:
    """A whole HTTP answer with a JSON body."""
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(text)}"
    return head.encode() + b"\r\n\r\n" + text


@asynccontextmanager
async def engine(folder: Path, answers: Answers) -> AsyncIterator[str]:
    """Something at a UNIX socket that answers each request as it is told, then closes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            request = await reader.readuntil(b"\r\n\r\n")
            path = request.split(b" ", 2)[1].decode()
            writer.write(PING if path == "/_ping" else answers(path))
            await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(serve, folder / "s")
    async with server:
        yield str(folder / "s")


@asynccontextmanager
async def client(folder: Path, answers: Answers) -> AsyncIterator[EngineHttp]:
    async with engine(folder, answers) as path:
        http = EngineHttp(Door(path))
        try:
            yield http
        finally:
            await http.close()


@asynccontextmanager
async def watching(folder: Path, answers: Answers) -> AsyncIterator[ApiWatch]:
    async with engine(folder, answers) as path:
        shell = LocalShell()
        watch = await open_watch(shell, f"unix://{path}")
        assert isinstance(watch, ApiWatch)
        assert watch.way == "api"
        try:
            yield watch
        finally:
            await watch.close()
            await shell.close()


async def test_it_speaks_the_version_the_engine_offers(tmp_path: Path) -> None:
    asked: list[str] = []

    def answers(path: str) -> bytes:
        asked.append(path)
        return answer([])

    async with client(tmp_path, answers) as http:
        await http.call("/containers/json", {"all": "1"})
    assert asked == ["/v1.52/containers/json?all=1"]


async def test_an_engine_that_does_not_say_so_at_once_is_asked_for_its_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{__name__}.PING", answer({}))

    def answers(path: str) -> bytes:
        return answer({"ApiVersion": "1.41"} if path == "/version" else {"path": path})

    async with client(tmp_path, answers) as http:
        assert (await http.call("/info")).document == {"path": "/v1.41/info"}


@pytest.mark.parametrize("version", ["", "1", "x.y", "1.41/../../x"])
async def test_a_version_that_is_none_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr(f"{__name__}.PING", answer({}))
    async with client(tmp_path, lambda path: answer({"ApiVersion": version})) as http:
        with pytest.raises(EngineFailed, match="which version"):
            await http.ping()


async def test_the_engines_own_words_are_kept(tmp_path: Path) -> None:
    refusal = answer({"message": "no space left on device"}, "500 Internal Server Error")
    async with client(tmp_path, lambda path: refusal) as http:
        with pytest.raises(EngineFailed, match="no space left on device"):
            await http.call("/x")
        with pytest.raises(EngineFailed, match="no space left on device"):
            async with http.stream("/x", {}):
                pass


@pytest.mark.parametrize(
    ("words", "error"),
    [("No such container: x", ContainerGone), ("page not found", EngineFailed)],
)
async def test_only_a_404_about_a_container_says_that_it_is_not_there(
    tmp_path: Path, words: str, error: type[EngineFailed]
) -> None:
    refusal = answer({"message": words}, "404 Not Found")
    async with client(tmp_path, lambda path: refusal) as http:
        with pytest.raises(EngineFailed) as caught:
            await http.call("/containers/x/json")
    assert type(caught.value) is error


WHOLE = answer([{"Id": "1"}, {"Id": "2"}])
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\n[1,2,\r\n2\r\n3]\r\n0\r\n\r\n"
)


@pytest.mark.parametrize("whole", [WHOLE, CHUNKED])
async def test_an_answer_cut_anywhere_is_indeterminate(tmp_path: Path, whole: bytes) -> None:
    left = [whole]
    async with client(tmp_path, lambda path: left[0]) as http:
        assert (await http.call("/containers/json")).document
        for kept in range(len(whole)):
            left[0] = whole[:kept]
            with pytest.raises(Indeterminate):
                await http.call("/containers/json")


async def drained(http: EngineHttp) -> list[bytes]:
    async with http.stream("/logs", {}) as chunks:
        return [chunk async for chunk in chunks]


async def test_a_stream_cut_anywhere_is_indeterminate(tmp_path: Path) -> None:
    left = [CHUNKED]
    async with client(tmp_path, lambda path: left[0]) as http:
        assert b"".join(await drained(http)) == b"[1,2,3]"
        for kept in range(len(CHUNKED)):
            left[0] = CHUNKED[:kept]
            with pytest.raises(Indeterminate):
                await drained(http)


async def test_a_body_that_ends_with_the_connection_is_not_believed(tmp_path: Path) -> None:
    endless = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n[]"
    async with client(tmp_path, lambda path: endless) as http:
        with pytest.raises(EngineFailed, match="where its answer ends"):
            await http.call("/containers/json")
        with pytest.raises(EngineFailed, match="where its answer ends"):
            async with http.stream("/logs", {}):
                pass


async def test_a_body_without_end_is_not_gathered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_http, "LARGEST_BODY", 1000)
    async with client(tmp_path, lambda path: answer(["x" * 2000])) as http:
        with pytest.raises(EngineFailed, match="more than 1000 bytes"):
            await http.call("/containers/json")


async def test_an_engine_that_is_silent_is_indeterminate(tmp_path: Path) -> None:
    silent = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"
    held = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        if b"/_ping " in request:
            writer.write(PING)
        else:
            writer.write(silent)
            await held.wait()
        writer.close()

    server = await asyncio.start_unix_server(serve, tmp_path / "s")
    http = EngineHttp(Door(str(tmp_path / "s")))
    try:
        with pytest.raises(Indeterminate, match="in time"):
            await http.call("/info", timeout=0.1)
    finally:
        held.set()
        await http.close()
        server.close()


async def test_nobody_at_the_socket_is_a_worker_that_cannot_be_reached(tmp_path: Path) -> None:
    http = EngineHttp(Door(str(tmp_path / "none")))
    with pytest.raises(WorkerUnreachable, match="Docker does not answer"):
        await http.ping()
    await http.close()


@pytest.mark.parametrize("body", [b"{", b"[" * 100_000, {"not": "a list"}, [1], [{"Id": 5}]])
async def test_a_list_that_is_none_is_never_an_empty_one(tmp_path: Path, body: Any) -> None:
    async with watching(tmp_path, lambda path: answer(body)) as watch:
        with pytest.raises(EngineFailed):
            await watch.observe()


async def test_a_container_removed_after_it_was_listed_is_left_out(tmp_path: Path) -> None:
    ours = document()

    def answers(path: str) -> bytes:
        if path.endswith(f"/{ours['Id']}/json"):
            return answer(ours)
        if path.endswith("/gone/json"):
            return answer({"message": "No such container: gone"}, "404 Not Found")
        return answer([{"Id": ours["Id"]}, {"Id": "gone"}])

    async with watching(tmp_path, answers) as watch:
        assert [sight.id for sight in await watch.observe()] == [ours["Id"]]


async def test_one_container_that_cannot_be_read_fails_the_whole_observation(
    tmp_path: Path,
) -> None:
    ours = document()

    def answers(path: str) -> bytes:
        if path.endswith(f"/{ours['Id']}/json"):
            return answer(ours)
        if path.endswith("/broken/json"):
            return answer({"message": "it hangs"}, "500 Internal Server Error")
        return answer([{"Id": ours["Id"]}, {"Id": "broken"}])

    async with watching(tmp_path, answers) as watch:
        with pytest.raises(EngineFailed, match="it hangs"):
            await watch.observe()


async def test_out_of_memory_is_believed_when_the_engine_says_it_a_moment_later(
    tmp_path: Path,
) -> None:
    seen: list[str] = []

    def answers(path: str) -> bytes:
        seen.append(path)
        state = {"Status": "exited", "Running": False, "ExitCode": 137}
        return answer(document(**state, OOMKilled=len(seen) > 1))

    async with watching(tmp_path, answers) as watch:
        sight = await watch.look("task-1-abc.1")
    assert sight is not None
    assert sight.oom_killed
    assert len(seen) == 2


async def test_a_name_that_begins_like_an_id_finds_only_that_name(tmp_path: Path) -> None:
    async with watching(tmp_path, lambda path: answer(document())) as watch:
        assert await watch.look("abab") is None


async def test_names_are_quoted_into_the_path(tmp_path: Path) -> None:
    asked: list[str] = []

    def answers(path: str) -> bytes:
        asked.append(path)
        return answer({"message": "No such container: x"}, "404 Not Found")

    async with watching(tmp_path, answers) as watch:
        await watch.look("a/../b?x=1#y")
    assert asked == ["/v1.52/containers/a%2F..%2Fb%3Fx%3D1%23y/json"]


async def test_one_that_was_closed_meanwhile_is_no_mistake_of_ours(tmp_path: Path) -> None:
    async with client(tmp_path, lambda path: answer([])) as http:
        await http.ping()
        await http.close()
        with pytest.raises(Indeterminate, match="was closed"):
            await http.call("/containers/json")
        with pytest.raises(Indeterminate, match="was closed"):
            async with http.stream("/events", {}):
                pass
