"""Files on their way to a worker, into its containers, and out of them."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

from cloudai.core.errors import ContainerGone, EngineFailed, Indeterminate, NotFound
from cloudai.core.files import Parcel
from cloudai.engines import Fetched
from cloudai.scripts import Value, render
from cloudai.shells import Shell

from .parts import TOO_LATE, Parts, whole_number

IDLE = 60.0
"""Seconds without a byte taken, or brought, that end a transfer."""
SLOWEST = 20 * 1024**2
"""Bytes a second that a worker's own disk does at the least."""
MARK = b"\ncloudai-sum "
TRAILER = len(MARK) + 64 + 1
DIGEST = re.compile(rb"[0-9a-f]{64}")
NO_SUCH_PATH = re.compile(
    r"could not find the file|no such file or directory|not a directory", re.IGNORECASE
)
NO_CONTAINER = re.compile(r"no such container", re.IGNORECASE)
FULL = re.compile(r"no space left|disk quota exceeded", re.IGNORECASE)


def at_disk_speed(size: int) -> float:
    """Seconds in which a worker surely reads, or writes, so many bytes."""
    return 60.0 + size / SLOWEST


def of_start(parcel: Parcel) -> dict[str, Value]:
    """What the start script is told of what a task brings along."""
    return {
        "pieces": list(parcel.pieces),
        "sizes": dict(parcel.packs),
        "wanted": [f"{name}:{size}" for name, size in parcel.packs.items()],
        "fill_seconds": int(at_disk_speed(parcel.size)),
        "start_by": ["create"] if parcel.pieces else ["run", "-d"],
    }


def missing(parts: Parts) -> dict[str, int]:
    """pack -> bytes of it that are there, of packs that are not there whole."""
    words = (line.split(" ") for line in parts.lines("missing"))
    return {word[0]: whole_number(word[1]) or 0 for word in words if len(word) == 2}


def why_not_filled(parts: Parts, worker_id: str) -> str:
    """Why what a task brings along is not for that container, for good. Raises ``EngineFailed``
    where it may be another time."""
    if parts.status("fill") in TOO_LATE:
        raise EngineFailed(f"{worker_id} did not put its files into the container in time")
    words = parts.said("fill").replace("whole", "").strip() or "it was cut"
    if FULL.search(words) or NO_CONTAINER.search(words) or "whole" not in parts.lines("fill"):
        raise EngineFailed(f"{worker_id} could not put its files into the container: {words}")
    return f"what was uploaded cannot be put into the container: {words}"


async def put(
    shell: Shell,
    data: AsyncIterator[bytes],
    *,
    worker_id: str,
    store_id: str,
    pack: str,
    begin: int,
    size: int,
) -> None:
    """See ``Engine.put``."""
    script = render(
        "put", docker_host="", store=store_id, pack=pack, begin=begin, rest=size - begin, size=size
    )
    patience = at_disk_speed(size)
    reply = await shell.feed(script, data, idle_timeout=IDLE, timeout=patience)
    word, _, rest = (reply.text.strip().splitlines() or [""])[-1].partition(" ")
    if word == "stored":
        return
    came, _, words = rest.partition(" ")
    if word == "short" and words.strip():
        raise EngineFailed(
            f"{worker_id} cannot keep what the task brings along: {words.strip()}",
            hint="it goes into ~/.cache/cloudai of the login there",
        )
    if word == "damaged":
        raise Indeterminate("what came is not what was sent; it is sent again")
    raise Indeterminate(f"the upload broke off at {came or 'an unknown'} of {size} bytes")


async def copy_in(
    shell: Shell, data: AsyncIterator[bytes], *, docker_host: str, container_id: str
) -> None:
    """See ``Engine.copy_in``."""
    script = render("copy_in", docker_host=docker_host, container=container_id)
    reply = await shell.feed(script, data, idle_timeout=IDLE, timeout=10 * IDLE)
    parts = Parts(reply.text)
    if parts.status("copy") != 0:
        raise _refusal(parts.said("copy") or "it does not say why")


@asynccontextmanager
async def fetch(
    shell: Shell, *, docker_host: str, container_id: str, path: str, begin: int
) -> AsyncIterator[Fetched]:
    """See ``Engine.fetch``."""
    script = render(
        "fetch",
        docker_host=docker_host,
        store="none",
        container=container_id,
        path=path,
        begin=begin,
    )
    # The engine may read for long before the first byte that is new.
    patience = at_disk_speed(begin) + IDLE
    try:
        async with shell.stream(script, idle_timeout=patience) as chunks:
            fetched = Fetched()
            fetched.chunks = _without_trailer(chunks, fetched)
            yield fetched
    except EngineFailed as error:
        if "status" in error.details:
            raise _refusal(error.message) from None
        raise


async def _without_trailer(
    chunks: AsyncIterator[bytes], fetched: Fetched
) -> AsyncGenerator[bytes, None]:
    held = bytearray()
    async for chunk in chunks:
        held += chunk
        if len(held) > TRAILER:
            yield bytes(held[:-TRAILER])
            del held[:-TRAILER]
    digest = bytes(held[len(MARK) : -1])
    if not held.startswith(MARK) or not DIGEST.fullmatch(digest):
        raise EngineFailed(
            "the worker cannot tell the SHA-256 of what it sent",
            hint="it needs sha256sum, shasum or openssl",
        )
    fetched.digest = digest.decode("ascii")


def _refusal(words: str) -> EngineFailed | NotFound:
    if NO_CONTAINER.search(words):
        return ContainerGone(words)
    if NO_SUCH_PATH.search(words):
        return NotFound(words.removeprefix("Error response from daemon: "))
    return EngineFailed(f"Docker on the worker says: {words}")
