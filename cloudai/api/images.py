"""Images of this machine, sent to workers."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict

from cloudai.controller.link import Link
from cloudai.controller.shipping import OnTheWay, Pushed
from cloudai.core.errors import InvalidInput
from cloudai.core.image import check_image
from cloudai.engines import LocalImage, Shipment

from . import shapes
from .tasks import desk_of, while_listening

router = APIRouter(prefix="/images", tags=["images"])


class Push(BaseModel):
    """What ``image push`` sends."""

    model_config = ConfigDict(extra="forbid")

    image: str
    workers: list[str] = []
    all: bool = False


@router.post("/push", response_class=StreamingResponse)
async def push(request: Request, wanted: Push) -> StreamingResponse:
    """Sends an image of this machine to workers, several at a time; a line of JSON for each
    thing that happens, the last about each worker with its ``outcome``."""
    desk = desk_of(request)
    if bool(wanted.workers) == wanted.all:
        raise InvalidInput("workers: name some, or say all: true, not both", field="workers")
    check_image(wanted.image, what="image")
    controller = desk.controller
    if wanted.all:
        links = [link for link in controller.fleet.workers() if not link.twin]
    else:
        links = [controller.link(worker) for worker in dict.fromkeys(wanted.workers)]
    if not links:
        raise InvalidInput("there are no workers to send it to", hint="`cloudai register` adds one")
    image = await controller.shipping.find(wanted.image)
    news = controller.shipping.push(image, links)
    return StreamingResponse(
        while_listening(request, _lines(image, links, news)), media_type="application/x-ndjson"
    )


async def _lines(
    image: LocalImage, links: list[Link], news: AsyncGenerator[OnTheWay | Pushed, None]
) -> AsyncGenerator[bytes, None]:
    workers = [link.id for link in links]
    yield _line({"image": image.reference, "image_id": image.id, "workers": workers})
    async with aclosing(news):
        async for one in news:
            yield _line(_on_the_way(one) if isinstance(one, OnTheWay) else _pushed(one))


def _line(found: shapes.Json) -> bytes:
    return json.dumps(found).encode() + b"\n"


def _on_the_way(one: OnTheWay) -> shapes.Json:
    return {
        "worker_id": one.worker_id,
        "percent": one.shipment.percent,
        **_shipment(one.shipment),
        "bytes": one.shipment.done,
        "total": one.shipment.total,
    }


def _pushed(one: Pushed) -> shapes.Json:
    done = one.shipment
    return {
        "worker_id": one.worker_id,
        "outcome": "failed" if done is None else "sent" if done.sent else "there",
        **_shipment(done or Shipment(layers=0, sent_layers=0, sent=0, done=0, total=None)),
        "seconds": round(one.seconds, 3),
        "error": one.error.as_json() if one.error else None,
    }


def _shipment(one: Shipment) -> shapes.Json:
    return {"layers": one.layers, "sent_layers": one.sent_layers, "sent": one.sent}
