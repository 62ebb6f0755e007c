"""Images of this machine on their way to workers: for tasks (``--ship-image``), and when a person
pushes one. What several want at once on one worker is sent there once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass

from cloudai.core.errors import CloudaiError, WorkerUnreachable
from cloudai.core.units import show_gib
from cloudai.crash import point
from cloudai.engines import ImageSource, LocalImage, Shipment

from .link import Link

log = logging.getLogger(__name__)

AT_ONCE = 3
"""Images on their way at a time: more share one uplink, and one engine that reads them."""
TELL_EVERY = 0.2
"""Seconds between what is told of one."""
REACHED_WITHIN = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """What came of sending an image to one worker."""

    worker_id: str
    shipment: Shipment | None = None
    """At the end, where it is there."""
    seconds: float = 0.0
    error: CloudaiError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OnTheWay:
    """How far the image is to one worker."""

    worker_id: str
    shipment: Shipment


class Shipping:
    """Sends what ``source``, this machine's engine, has."""

    def __init__(self, source: ImageSource) -> None:
        self._source = source
        self._places = asyncio.Semaphore(AT_ONCE)
        self._under_way: dict[tuple[str, str], asyncio.Lock] = {}

    async def find(self, reference: str, *, image_id: str | None = None) -> LocalImage:
        """See ``ImageSource.find``."""
        return await asyncio.to_thread(self._source.find, reference, image_id=image_id)

    async def image_id(self, reference: str) -> str:
        """What a task that is to run this machine's image of that name is tied to. Raises
        ``NotFound``, ``EngineFailed``."""
        return (await self.find(reference)).id

    async def ship(
        self,
        link: Link,
        reference: str,
        *,
        image_id: str | None = None,
        tell: Callable[[Shipment], None] = lambda shipment: None,
    ) -> Shipment:
        """Brings it to the worker, unless it is there. ``tell`` hears how far it is. Raises
        ``NotFound`` where this machine has it no more, ``EngineFailed``, ``WorkerUnreachable``.
        """
        image = await self.find(reference, image_id=image_id)
        lock = self._under_way.setdefault((link.id, image.id), asyncio.Lock())
        async with lock, self._places:
            point("ship.begun")
            shipment = await link.engine.ship(image, self._source, tell=_told(tell))
            point("ship.done")
        log.info("%s (%s) to %s: %s", reference, image.id, link.id, shown_outcome(shipment))
        return shipment

    async def push(
        self, image: LocalImage, links: Sequence[Link]
    ) -> AsyncGenerator[OnTheWay | Pushed, None]:
        """Sends it to these workers, several at a time; tells how far each is, and what came of
        it. No worker's failure is another's; nothing is raised for one."""
        news: asyncio.Queue[OnTheWay | Pushed] = asyncio.Queue()

        async def one(link: Link) -> None:
            began = time.monotonic()
            last = float("-inf")

            def tell(shipment: Shipment) -> None:
                nonlocal last
                if time.monotonic() - last >= TELL_EVERY:
                    last = time.monotonic()
                    news.put_nowait(OnTheWay(worker_id=link.id, shipment=shipment))

            try:
                await link.ensure(REACHED_WITHIN)
                done = await self.ship(link, image.reference, image_id=image.id, tell=tell)
                pushed = Pushed(worker_id=link.id, shipment=done, seconds=time.monotonic() - began)
            except CloudaiError as error:
                if isinstance(error, WorkerUnreachable):
                    link.lost(error)
                pushed = Pushed(worker_id=link.id, error=error)
            news.put_nowait(pushed)

        sending = [asyncio.create_task(one(link)) for link in links]
        try:
            left = len(sending)
            while left:
                found = await _next_or_failure(news, sending)
                left -= isinstance(found, Pushed)
                yield found
        finally:
            for task in sending:
                task.cancel()
            await asyncio.gather(*sending, return_exceptions=True)


async def _next_or_failure(
    news: asyncio.Queue[OnTheWay | Pushed], sending: Sequence[asyncio.Task[None]]
) -> OnTheWay | Pushed:
    """The next news. Raises what is a fault of ours in one of them, which would tell no end."""
    coming = asyncio.ensure_future(news.get())
    watching = {coming, *(task for task in sending if not task.done())}
    try:
        while True:
            done, watching = await asyncio.wait(watching, return_when=asyncio.FIRST_COMPLETED)
            for one in done - {coming}:
                one.result()
            if coming in done:
                return coming.result()
    finally:
        coming.cancel()


def _told(tell: Callable[[Shipment], None]) -> Callable[[Shipment], None]:
    def heard(shipment: Shipment) -> None:
        if shipment.sent:
            point("ship.half")
        tell(shipment)

    return heard


def shown_progress(shipment: Shipment) -> str:
    """``43 %``, or how much went where the whole is not known."""
    percent = shipment.percent
    return f"{percent} %" if percent is not None else show_gib(shipment.done)


def shown_outcome(shipment: Shipment) -> str:
    """What was sent, for people."""
    if not shipment.sent_layers and not shipment.sent:
        return "it was there already"
    return f"sent {shipment.sent_layers} of {shipment.layers} layers, {show_gib(shipment.sent)}"
