"""Images of this machine's own engine, to be sent to workers that have no registry for them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cloudai.core.errors import EngineFailed, NotFound
from cloudai.engines import LocalImage

from .embedded import local_endpoint

ANSWER_WITHIN = 10.0
SAVE_WITHIN = 1800.0
"""Seconds until an engine gives the first of an image: some write all of it to a file before."""
PIECE = 1024 * 1024
NOBODY = "there is no Docker here that answers"
HOW = "start Docker on this machine, or set DOCKER_HOST where the controller is started"


class LocalImages:
    """An ``ImageSource``. ``endpoint``: the path of the engine's socket, where it is not to be
    found as docker finds it."""

    def __init__(self, endpoint: str | None = None) -> None:
        self._endpoint = endpoint

    def find(self, reference: str, *, image_id: str | None = None) -> LocalImage:
        """See ``ImageSource.find``."""
        from docker.errors import ImageNotFound

        with self._engine(ANSWER_WITHIN) as engine:
            try:
                found = engine.inspect_image(image_id or reference)
            except ImageNotFound:
                raise _no_image(reference, image_id) from None
            history = engine.history(found["Id"])
            named = image_id is None or _id_of(engine, reference) == found["Id"]
        return _read(reference, found, history, named=named)

    def archive(self, image: LocalImage) -> Iterator[bytes]:
        """See ``ImageSource.archive``. By its name while that is its own: an engine of another
        kind knows it by that alone."""
        from docker.errors import ImageNotFound

        with self._engine(SAVE_WITHIN) as engine:
            try:
                yield from engine.get_image(
                    image.reference if image.named else image.id, chunk_size=PIECE
                )
            except ImageNotFound:
                raise _no_image(image.reference, image.id) from None

    @contextmanager
    def _engine(self, timeout: float) -> Iterator[Any]:
        """The SDK's client of the engine's API. Its errors are raised as ours."""
        import docker
        import requests
        from docker.errors import DockerException

        endpoint = self._endpoint or local_endpoint()
        if endpoint is None:
            raise EngineFailed(f"No local images: {NOBODY} on a UNIX socket", hint=HOW)
        _knock(endpoint)
        try:
            client = docker.DockerClient(base_url=f"unix://{endpoint}", timeout=int(timeout))
            try:
                yield client.api
            finally:
                client.close()
        except (DockerException, requests.RequestException, OSError) as error:
            raise EngineFailed(f"this machine's Docker failed: {error}") from error


def _knock(endpoint: str) -> None:
    """Before the SDK does: it leaves its socket open where nobody answers."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(ANSWER_WITHIN)
        try:
            probe.connect(endpoint)
        except OSError as error:
            why = error.strerror or error
            raise EngineFailed(
                f"No local images: {NOBODY} ({endpoint}: {why})", hint=HOW
            ) from error


def _no_image(reference: str, image_id: str | None) -> NotFound:
    if image_id is None:
        return NotFound(
            f"There is no image {reference} on this machine",
            hint="`docker image ls` lists what there is; `docker build -t NAME .` builds one",
            image=reference,
        )
    return NotFound(
        f"The image {reference} as it was when the task was submitted"
        f" ({image_id[7:19]}) is no longer on this machine",
        hint="build it again, and submit the task again",
        image=reference,
    )


def _id_of(engine: Any, reference: str) -> str | None:
    from docker.errors import ImageNotFound

    try:
        return str(engine.inspect_image(reference)["Id"])
    except ImageNotFound:
        return None


def _read(
    reference: str, found: dict[str, Any], history: list[dict[str, Any]], *, named: bool
) -> LocalImage:
    layers = tuple(found["RootFS"].get("Layers") or ())
    # What an instruction that changed no file left has no layer, and no size either.
    sizes = tuple(step["Size"] for step in reversed(history) if step["Size"])
    return LocalImage(
        reference=reference,
        id=found["Id"],
        named=named,
        layers=layers,
        sizes=sizes if len(sizes) == len(layers) else (),
        size=int(found.get("Size") or 0),
        platform=f"{found.get('Os') or 'linux'}/{found.get('Architecture') or 'unknown'}",
        created=str(found.get("Created") or ""),
    )
