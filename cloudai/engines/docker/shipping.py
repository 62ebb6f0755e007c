"""Sending an image of this machine to a worker: what it lacks, how, and whether it arrived.

Pure but for the stream that is sent. An engine of the classic kind (graph drivers) knows an image
by the digest of its settings, wherever it is, and does not open a layer that it has. One with
containerd's image store knows it by another digest and wants every layer: it is sent all, and
told by when it was built and what is in it.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from cloudai.core.errors import EngineFailed, Indeterminate
from cloudai.engines import ImageSource, LocalImage, Shipment

from .failures import why_not_loaded
from .packing import Packer
from .parts import TOO_LATE, Parts
from .saved import Torn, files_of, placeholder, shared, without

BATCH = 1024 * 1024
"""Bytes handed to the connection at once."""
CONTAINERD = "io.containerd.snapshotter"


@dataclass(frozen=True, slots=True, kw_only=True)
class There:
    """What a worker has of images, as far as one of ours is concerned."""

    platform: str
    containerd: bool
    same: str | None
    """Its id there, where it has that very image."""
    named: bool
    """Whether that is what the image's name means there."""
    shared: int
    """How many of its layers, from the base on, need not be sent."""


def read_there(parts: Parts, image: LocalImage, *, worker_id: str) -> There:
    """The answer of ``images.sh.j2``. Raises ``EngineFailed`` where Docker does not answer,
    ``Indeterminate`` where it does not in time."""
    for part in ("platform", "store", "image"):
        if parts.status(part) in TOO_LATE:
            raise Indeterminate(f"Docker on {worker_id} did not tell its images in time")
    platform = parts.said("platform")
    if parts.status("platform") != 0:
        raise EngineFailed(f"Docker does not answer on {worker_id}: {platform}")
    containerd = any(CONTAINERD in line for line in parts.lines("store"))
    images = _sights(parts.lines("image"))
    same = next((one.id for one in images if one.id == image.id), None)
    if same is None and containerd:
        same = next((one.id for one in images if one.is_like(image)), None)
    return There(
        platform=platform,
        containerd=containerd,
        same=same,
        named=same is not None and parts.said("named") == same,
        shared=0 if containerd else shared(image.layers, [one.layers for one in images]),
    )


@dataclass(frozen=True, slots=True)
class _Sight:
    """An image on the worker."""

    id: str
    created: str
    layers: tuple[str, ...]

    def is_like(self, image: LocalImage) -> bool:
        return (self.created, self.layers) == (image.created, image.layers)


def _sights(lines: list[str]) -> list[_Sight]:
    return [found for line in lines if (found := _sight(line)) is not None]


def _sight(line: str) -> _Sight | None:
    words = line.split(" ", 2)
    if len(words) != 3 or not words[0].startswith("sha256:"):
        return None
    try:
        layers = json.loads(words[2])
    except (ValueError, RecursionError):
        return None
    if not isinstance(layers, list) or not all(isinstance(one, str) for one in layers):
        return None
    return _Sight(words[0], words[1], tuple(layers))


def refuse_other_platform(image: LocalImage, there: There, *, worker_id: str) -> None:
    """Raises ``EngineFailed``. Engines tell no variant of their own; a 32-bit image on 64 bits
    is the engine's to refuse."""
    if image.platform != there.platform:
        raise EngineFailed(
            f"the image {image.reference} is for {image.platform}, and {worker_id} is"
            f" {there.platform}",
            hint=f"build it for that: docker build --platform {there.platform} …",
        )


def arrived(parts: Parts, image: LocalImage, *, worker_id: str) -> str:
    """The answer of ``load.sh.j2``: the image's id there. Raises ``EngineFailed`` where it is
    not there, with the engine's word."""
    sights = _sights(parts.lines("there"))
    same = (one.id for one in sights if one.id == image.id or one.is_like(image))
    found = next(same, "")
    if found and parts.status("tag") in (0, None):
        return found
    if parts.status("load") in TOO_LATE and not found:
        raise Indeterminate(f"Docker on {worker_id} did not say what became of {image.reference}")
    words = parts.said("load") if not found else parts.said("tag")
    if not found and parts.status("load") == 0:
        words = ""
    why = why_not_loaded(words, image=image.reference, worker=worker_id)
    raise EngineFailed(why.reason, hint=why.hint)


class Cargo:
    """The stream that is sent for an image, and how far it is."""

    def __init__(
        self,
        image: LocalImage,
        source: ImageSource,
        there: There,
        *,
        tell: Callable[[Shipment], None],
    ) -> None:
        self._image, self._source, self._tell = image, source, tell
        self._left_out = files_of(image.layers, there.shared)
        self._packer = Packer()
        self._first = b"" if there.containerd else placeholder()
        count = len(image.layers)
        self.shipment = Shipment(
            layers=count,
            sent_layers=count - there.shared,
            sent=0,
            done=0,
            total=_size(image, there.shared),
        )

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """What goes to the worker. This machine's engine is read, and what it gives is packed,
        in a thread of its own while the piece before is on its way. Raises ``EngineFailed``
        where that engine breaks off."""
        pieces = self._pieces()
        thread = ThreadPoolExecutor(1, thread_name_prefix="ship")
        loop = asyncio.get_running_loop()

        def ask() -> asyncio.Future[tuple[int, bytes] | None]:
            return loop.run_in_executor(thread, lambda: next(pieces, None))

        self._tell(self.shipment)
        coming = ask()
        try:
            while (found := await coming) is not None:
                coming = ask()
                size, packed = found
                began = time.monotonic()
                yield packed
                self._packer.took(len(packed), time.monotonic() - began)
                now = self.shipment
                self.shipment = replace(now, sent=now.sent + len(packed), done=now.done + size)
                self._tell(self.shipment)
        finally:
            coming.cancel()
            thread.submit(pieces.close)
            thread.shutdown(wait=False)

    def _pieces(self) -> Generator[tuple[int, bytes], None, None]:
        held = bytearray(self._first)
        try:
            for piece in without(self._source.archive(self._image), self._left_out):
                held += piece
                if len(held) >= BATCH:
                    yield len(held), self._packer.pack(held)
                    held.clear()
        except Torn as error:
            raise EngineFailed(
                f"this machine's Docker broke off while it gave {self._image.reference}: {error}",
                hint="try again; `docker save` here says more",
            ) from error
        if held:
            yield len(held), self._packer.pack(held)


def _size(image: LocalImage, have: int) -> int | None:
    if not have:
        return image.size
    return sum(image.sizes[have:]) if len(image.sizes) == len(image.layers) else None
