"""The worker that is there with no inventory at all: this machine's own engine. The docker SDK
speaks here and in ``local_images``, to this machine's engine alone.
"""

from __future__ import annotations

import contextlib
import os
import time

from cloudai.core.model import WorkerSpec

ASK_AGAIN = 30.0
"""Seconds for which the answer is kept: an engine may be started meanwhile."""


class EmbeddedWorker:
    """``local``, while this machine has an engine that answers."""

    def __init__(self) -> None:
        self._asked = float("-inf")
        self._spec: WorkerSpec | None = None

    def __call__(self) -> WorkerSpec | None:
        at = time.monotonic()
        if at - self._asked > ASK_AGAIN or (self._spec is None and at - self._asked > 2):
            self._asked = at
            self._spec = find_local_engine()
        return self._spec


def local_endpoint() -> str | None:
    """The path of the UNIX socket of this machine's engine, as DOCKER_HOST or the docker context
    names it; ``None`` where that is another kind of address."""
    from docker.context import ContextAPI

    endpoint = os.environ.get("DOCKER_HOST", "")
    if not endpoint:
        with contextlib.suppress(Exception):  # a damaged ~/.docker/config.json is not ours
            context = ContextAPI.get_current_context()
            endpoint = (context.Host if context else "") or ""
    endpoint = endpoint or "unix:///var/run/docker.sock"
    return endpoint.removeprefix("unix://") if endpoint.startswith("unix://") else None


def find_local_engine() -> WorkerSpec | None:
    """This machine's engine as DOCKER_HOST or the docker context names it, else none.

    Blocks for at most a few milliseconds: only UNIX sockets are asked.
    """
    import docker
    from docker.errors import DockerException

    endpoint = local_endpoint()
    if endpoint is None:
        return None
    client = None
    try:
        client = docker.DockerClient(base_url=f"unix://{endpoint}", timeout=2)
        client.ping()
    except (DockerException, OSError):
        return None
    finally:
        if client is not None:
            client.close()
    return WorkerSpec(
        id="local", connection="local", engine_socket=f"unix://{endpoint}", place="this machine"
    )
